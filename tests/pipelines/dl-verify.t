needs: farm
A store with two contents and a manifest that needs both.

  $ store=s3://deadline-local/dl-verify-$RANDOM$RANDOM
  $ mkdir in && printf hello >in/b && : >in/a
  $ dl-hash in | dl-manifest --to . | dl-upload --s3-root-uri "$store" --manifest-prefix t >/dev/null

All is well: nothing is told of but how much was looked at.

  $ dl-verify --s3-root-uri "$store"
  {"type":"end","tool":"dl-verify","ok":true,"records":0,"contents":2,"bytes":5,"read":2,"read_bytes":5,"manifests":1,"entries":2}
  $ dl-verify --s3-root-uri "$store" --all | jq -r 'select(.type == "object") | [.status, .hash, .size] | join(" ")'
  good 99aa06d3014798d86001c324468d497f 0
  good b5e9c1ad071b3e7fc779cfaa5e523818 5
  $ dl-verify --s3-root-uri "$store" --quick | jq -c '[.contents, .read, .entries]'
  [2,null,2]

What stands in the journal is not read again.

  $ dl-verify --s3-root-uri "$store" --journal done | jq -c '[.read, .known]'
  [2,null]
  $ dl-verify --s3-root-uri "$store" --journal done | jq -c '[.read, .known]'
  [null,2]
  $ wc -l <done
  2

A manifest of contents that are not there: the answer is 1, and the repair list brings them back.

  $ mkdir new && echo wanted >new/file && cd new
  $ dl-hash file | dl-manifest --to .. | jq -c 'select(.type == "manifest" or .type == "end")' >../only
  $ dl-upload --open-ended --s3-root-uri "$store" --manifest-prefix t <../only >/dev/null
  $ dl-verify --s3-root-uri "$store" --repair-list ../lost >../told
  [1]
  $ jq -r 'select(.type == "object") | [.status, .path, .expected_size] | join(" ")' ../told
  missing file 7
  $ jq -c '[.type, .path]' ../lost
  ["root",null]
  ["file","file"]
  ["end",null]
  $ dl-upload --force-s3-check --s3-root-uri "$store" <../lost | jq -c 'select(.type == "file").upload'
  "new"
  $ dl-verify --s3-root-uri "$store" | jq -c '[.contents, .read, .missing]'
  [3,3,null]

Troubles.

  $ dl-verify --sample some 2>&1 >/dev/null
  dl-verify: --sample takes a number from 0 to 100, not 'some'
  [64]
  $ dl-verify --s3-root-uri s3://no-such-bucket-here/x 2>/dev/null >/dev/null
  [66]
