needs: farm
Contents are stored as their records come, each once; the records say what was done.

  $ mkdir in && date >in/a && cp in/a in/b && : >in/empty && mkdir 'in/sp ace' && date +%N%s >'in/sp ace/c'
  $ dl-hash in | dl-upload >out; jq -r 'select(.type == "file") | "\(.upload)"' out | sort | uniq -c | sed 's/^ *//' | tail -n 1
  [12] present (re)
  $ jq -c 'select(.type == "file") | .path' out
  "a"
  "b"
  "empty"
  "sp ace/c"
  $ tail -n 1 out | jq -c '[.ok, .new + .present]'
  [true,4]

Again, nothing is sent; also not when the store itself is asked.

  $ dl-hash in | dl-upload | tail -n 1 | jq -c '[.new, .present]'
  [null,4]
  $ dl-hash in | dl-upload --force-s3-check --verify | tail -n 1 | jq -c '[.new, .present]'
  [null,4]

A manifest follows its files and learns where it is.

  $ dl-hash in | dl-manifest | dl-upload | jq -r 'select(.type == "manifest").manifest_path' | sed -E 's/[0-9a-f]{32}/ID/g'
  farm-ID/queue-ID/Inputs/ID/ID_input

A file that is not what was hashed is reported and not stored, and no manifest is.

  $ dl-hash in | dl-manifest >hashed && echo different >>in/a
  $ dl-upload <hashed 2>err | jq -c 'select(.type == "manifest" or .type == "end") | [.type, .manifest_path, .ok, .failed]'
  ["manifest",null,null,null]
  ["end",null,false,1]
  $ cat err
  dl-upload: '*/in/a' changed after it was hashed: run again (glob)

Nothing is made of a stream that is not whole, or has no hashes.

  $ head -n 1 hashed | dl-upload 2>&1 >/dev/null
  dl-upload: the stream is not whole: it stopped without an end record
  [65]
  $ echo '{"type":"file","path":"x"}' | dl-upload --open-ended 2>&1 >/dev/null
  dl-upload: 'x' comes without an xxh128 hash: put dl-hash before
  [65]

Records of other kinds pass, and need no store.

  $ printf '%s\n' '{"type":"odd","x":1}' '{"type":"end","tool":"me","ok":true}' | AWS_ENDPOINT_URL_S3=http://127.0.0.1:9 dl-upload
  {"type":"odd","x":1}
  {"type":"end","tool":"dl-upload","ok":true,"records":1}

Options that don't go together are refused.

  $ dl-upload --output --job-id j </dev/null 2>&1 >/dev/null
  dl-upload: --output needs --step-id as well
  [64]
  $ dl-upload --task-id t </dev/null 2>&1 >/dev/null
  dl-upload: --task-id is for outputs: give --output as well
  [64]
  $ dl-upload --s3-root-uri ftp://x </dev/null 2>&1 >/dev/null
  dl-upload: the stream is not whole: there was no input
  [65]
  $ dl-hash in | dl-upload --s3-root-uri ftp://x 2>&1 >/dev/null
  dl-upload: 'ftp://x' is not of the form s3://<bucket>/<root prefix>
  [64]

A store that can't be reached is one line and a status.

  $ date +%s%N >in/new; dl-hash in | AWS_ENDPOINT_URL_S3=http://127.0.0.1:9 dl-upload --force-s3-check 2>err | tail -n 1 | jq -c '[.ok, .status]'; sed "s|'s3://[^']*'|it|" err
  [false,69]
  dl-upload: cannot find it: 'http://127.0.0.1:9' does not answer: Connection refused
