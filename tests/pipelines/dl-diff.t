A folder is compared with its manifest by size and time.

  $ mkdir -p in/sub; printf one >in/a; printf two >in/sub/b; printf three >in/c; touch -d @100 in/a in/sub/b in/c
  $ dl-hash in | dl-manifest --to . --name was >/dev/null; mv was-* was
  $ dl-diff was in | tail -n 1
  {"type":"end","tool":"dl-diff","ok":true,"records":1,"new":0,"modified":0,"deleted":0}
  $ printf ONE >in/a; touch -d @200 in/a; rm in/sub/b; : >in/new; touch -d @300 in/new
  $ dl-diff was in
  {"type":"root","root":"*/in","root_path_format":"posix"} (glob)
  {"type":"file","path":"a","root":"*/in","size":3,"mtime":200000000,"status":"modified"} (glob)
  {"type":"file","path":"new","root":"*/in","size":0,"mtime":300000000,"status":"new"} (glob)
  {"type":"file","path":"sub/b","root":"*/in","size":3,"mtime":100000000,"hash":"*","hash_alg":"xxh128","status":"deleted"} (glob)
  {"type":"end","tool":"dl-diff","ok":true,"records":4,"new":1,"modified":1,"deleted":1}
  [1]

A microsecond is no difference, and what globs leave out is not deleted.

  $ touch -d @100.000001 in/c; dl-diff --only modified --exclude a was in | tail -n 1
  {"type":"end","tool":"dl-diff","ok":true,"records":1,"new":0,"modified":0,"deleted":0}
  $ dl-diff --include 'sub/**' was in | grep -o '"path":"[^"]*"'
  "path":"sub/b"

A glob takes a folder with all that is in it, unless it is to be exact.

  $ dl-diff --exclude s* was in | grep -c '"path":"sub'
  0
  [1]
  $ dl-diff --exact-globs --exclude s* was in | grep -c '"path":"sub'
  1
  $ dl-diff --exact-globs --include s* was in | grep -c '"path":'
  0
  [1]
  $ dl-diff --exact-globs --include 'sub/*' was in | grep -o '"path":"[^"]*"'
  "path":"sub/b"

By content, times don't matter, and a change that keeps size and time is found.

  $ printf THREE >in/c; touch -d @100 in/c; dl-diff --include c was in | tail -n 1
  {"type":"end","tool":"dl-diff","ok":true,"records":1,"new":0,"modified":0,"deleted":0}
  $ dl-hash in | dl-diff was | grep -o '"path":"[^"]*"\|"status":"[a-z]*"'
  "path":"a"
  "status":"modified"
  "path":"c"
  "status":"modified"
  "path":"new"
  "status":"new"
  "path":"sub/b"
  "status":"deleted"

Two manifests are compared by content.

  $ touch -d @900 in/c; dl-hash in | dl-manifest --to . --name is >/dev/null; mv is-* is
  $ dl-diff was is | grep -o '"path":"[^"]*"\|"status":"[a-z]*"' | paste - -
  "path":"a"	"status":"modified"
  "path":"c"	"status":"modified"
  "path":"new"	"status":"new"
  "path":"sub/b"	"status":"deleted"

What is new or changed can be hashed and written as a manifest.

  $ dl-diff --only new,modified was in | dl-hash | dl-manifest --to changes >/dev/null; dl-manifest cat changes/* | grep -o '"path":"[^"]*"'
  "path":"a"
  "path":"c"
  "path":"new"

Troubles are told apart from differences.

  $ dl-diff gone in 2>&1 >/dev/null
  dl-diff: cannot use 'gone': No such file or directory
  [66]
  $ dl-diff was gone 2>&1 >/dev/null
  dl-diff: cannot use 'gone': No such file or directory
  [66]
  $ dl-diff in/a in 2>&1 >/dev/null
  dl-diff: 'in/a' is not an asset manifest: it is not JSON (*) (glob)
  [65]
  $ dl-diff was --only changed 2>&1 >/dev/null
  dl-diff: --only takes some of new,modified,deleted, not 'changed'
  [64]
  $ dl-hash in | head -n 2 | dl-diff was 2>&1 >/dev/null
  dl-diff: the stream is not whole: it stopped without an end record
  [65]
