Where nobody can be asked, a submission passes if all of its paths are known; what follows the bundle is not touched.

  $ bundle='{"type":"bundle","path":"/shot","template":"","template_type":"YAML","name":"x","file_count":1,"total_bytes":3,"known_asset_paths":["/shot"]'
  $ rest='{"type":"file","path":"a","root":"/shot","odd":"  kept  "}'
  $ end='{"type":"end","tool":"dl-bundle","ok":true}'
  $ printf '%s\n' "$bundle}" "$rest" "$end" | setsid dl-consent | tail -n 2
  {"type":"file","path":"a","root":"/shot","odd":"  kept  "}
  {"type":"end","tool":"dl-consent","ok":true,"records":2}

Paths outside of the known ones are refused then, and nothing of the job passes.

  $ unknown="$bundle,\"unknown_asset_paths\":[\"/elsewhere/b\"]}"
  $ printf '%s\n' "$unknown" "$rest" "$end" | setsid dl-consent
  {"type":"end","tool":"dl-consent","ok":false,"records":0,"status":1}
  [1]

An answer may come by a descriptor.

  $ printf '%s\n' "$unknown" "$rest" "$end" | dl-consent --answers=3 3< <(echo y) 2>asked | wc -l
  3
  $ grep elsewhere asked
    /elsewhere/b
  $ printf '%s\n' "$unknown" "$rest" "$end" | dl-consent --answers=3 3< <(printf 'perhaps\nno\n') 2>/dev/null
  {"type":"end","tool":"dl-consent","ok":false,"records":0,"status":1}
  [1]

The default is no where a path is unknown, and yes where all are known.

  $ printf '%s\n' "$unknown" "$end" | dl-consent --answers=3 3< <(echo) >/dev/null 2>&1
  [1]
  $ printf '%s\n' "$bundle}" "$end" | dl-consent --answers=3 3< <(echo) >/dev/null 2>&1

A stream that was cut stays cut.

  $ printf '%s\n' "$bundle}" "$rest" | setsid dl-consent 2>/dev/null | tail -n 1
  {"type":"end","tool":"dl-consent","ok":false,"records":2,"status":65}
