needs: farm
A store with a content that a manifest needs, and one of a submission that was broken off.

  $ store=s3://deadline-local/dl-gc-$RANDOM$RANDOM
  $ mkdir in && printf hello >in/b
  $ dl-hash in | dl-manifest --to . | dl-upload --s3-root-uri "$store" --manifest-prefix t >/dev/null
  $ echo orphan >orphan && dl-hash orphan | dl-upload --s3-root-uri "$store" >/dev/null

What is young is left alone.

  $ dl-gc --s3-root-uri "$store"
  {"type":"end","tool":"dl-gc","ok":true,"records":0,"manifests":1,"reached":0,"young":2,"unreached":0,"unreached_bytes":0,"young_bytes":12}

Without --delete it only tells.

  $ hash=$(dl-hash orphan | jq -r 'select(.type == "file").hash')
  $ dl-gc --s3-root-uri "$store" --grace 0 >told
  $ jq -r 'select(.type == "object") | [.status, (.hash == $hash), .size] | join(" ")' --arg hash "$hash" told
  unreached true 7
  $ dl-verify --s3-root-uri "$store" | jq .contents
  2

With it, that goes, and what the manifest needs stays.

  $ dl-gc --s3-root-uri "$store" --grace 0 --delete --uploads 2>warned | jq -c 'del(.modified, .key, .hash)'
  {"type":"object","status":"deleted","size":7}
  {"type":"end","tool":"dl-gc","ok":true,"records":1,"manifests":1,"reached":1,"young":0,"deleted":1,"deleted_bytes":7,"reached_bytes":5}
  $ cat warned
  dl-gc: warning: with a grace of less than a day, contents of submissions under way may be deleted
  $ dl-verify --s3-root-uri "$store" | jq -c '[.contents, .read, .missing]'
  [1,1,null]

While a manifest can't be read, nothing is deleted.

  $ dl-hash orphan | dl-upload --force-s3-check --s3-root-uri "$store" >/dev/null
  $ echo '{"type":"manifest","path":"'$PWD'/told"}' >odd
  $ dl-upload --open-ended --s3-root-uri "$store" --manifest-prefix t <odd >/dev/null
  $ dl-gc --s3-root-uri "$store" --grace 0 --delete 2>&1 >/dev/null | grep -o "nothing is deleted.*"
  nothing is deleted while it is not known what this needs
  $ dl-gc --s3-root-uri "$store" --grace 0 --delete >/dev/null 2>&1
  [65]
  $ dl-verify --s3-root-uri "$store" | jq -c 'select(.type == "end") | [.contents, .unreadable]'
  [2,1]

  $ dl-gc --grace soon 2>&1 >/dev/null
  dl-gc: --grace takes a duration such as 30, 1.5, 10m or 2h, not 'soon'
  [64]
