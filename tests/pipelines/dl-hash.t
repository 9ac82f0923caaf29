A folder becomes a root and its files, with their hashes. (The hashes are those of xxhsum -H2.)

  $ mkdir -p in/sub in/empty; printf 'hello\n' >in/a.txt; printf x >in/sub/B.txt; : >in/zero.bin
  $ touch -d 2024-01-02T03:04:05.123456789Z in/a.txt in/sub/B.txt in/zero.bin
  $ dl-hash in >out; cat out
  {"type":"root","root":"*/in","root_path_format":"posix"} (glob)
  {"type":"file","path":"a.txt","root":"*/in","size":6,"mtime":1704164645123456,"hash":"6bba86c7e069f56d5a10b435f1c8e49c","hash_alg":"xxh128"} (glob)
  {"type":"file","path":"zero.bin","root":"*/in","size":0,"mtime":1704164645123456,"hash":"99aa06d3014798d86001c324468d497f","hash_alg":"xxh128"} (glob)
  {"type":"file","path":"sub/B.txt","root":"*/in","size":1,"mtime":1704164645123456,"hash":"5c7401c0ec22eeeeeaf06c6480b2cd11","hash_alg":"xxh128"} (glob)
  {"type":"end","tool":"dl-hash","ok":true,"records":4,"files":3,"bytes":7,"cached":0,"empty_dirs":1}

As a filter it fills records in, leaves foreign kinds and fields alone, and keeps the order.

  $ (echo '{"type":"file","path":"zero.bin","size":9,"mine":[1]}'; echo '{"type":"odd", "a":1}'; echo '{"type":"file","path":"a.txt"}'; echo '{"type":"end","tool":"me","ok":true}') | dl-hash --root in
  {"type":"file","path":"zero.bin","size":0,"mine":[1],"root":"*/in","mtime":1704164645123456,"hash":"99aa06d3014798d86001c324468d497f","hash_alg":"xxh128"} (glob)
  {"type":"odd", "a":1}
  {"type":"file","path":"a.txt","root":"*/in","size":6,"mtime":1704164645123456,"hash":"6bba86c7e069f56d5a10b435f1c8e49c","hash_alg":"xxh128"} (glob)
  {"type":"end","tool":"dl-hash","ok":true,"records":3,"files":2,"bytes":6,"cached":0}

Names come from find, ended by NUL or newline; folders among them are passed over.

  $ find in -print0 | sort -z | dl-hash -0 | grep -o '"path":"[^"]*"'
  "path":"in/a.txt"
  "path":"in/sub/B.txt"
  "path":"in/zero.bin"
  $ find in -type f | sort | dl-hash --lines --root in --exclude 'sub/' | grep -o '"path":"[^"]*"'
  "path":"a.txt"
  "path":"zero.bin"

Globs choose, from the root.

  $ dl-hash --include '**/*.txt' --exclude 'a*' in | grep -o '"path":"[^"]*"'
  "path":"sub/B.txt"
  $ dl-hash --include '*.txt' in | grep -o '"path":"[^"]*"'
  "path":"a.txt"
  $ dl-hash --exact-globs --exclude '*' in | grep -o '"path":"[^"]*"'
  "path":"sub/B.txt"
  $ dl-hash --include '../*' in
  {"type":"end","tool":"dl-hash","ok":false,"records":0,"status":64}
  [64]

A missing file is reported, the others are hashed, and the stream does not end well.

  $ dl-hash gone in/a.txt 2>err | grep -o '"type":.*path":"[^"]*"\|"ok":false.*'; cat err
  "type":"file","path":"in/a.txt"
  "ok":false,"records":2,"files":1,"bytes":6,"cached":0,"left_out":1,"status":66}
  dl-hash: cannot read 'gone': No such file or directory
  $ dl-hash --missing skip gone in/a.txt | tail -n 1
  {"type":"end","tool":"dl-hash","ok":true,"records":2,"files":1,"bytes":6,"cached":0,"left_out":1}

Neither is cut-off input passed on as whole.

  $ head -n 3 out | dl-hash 2>err | tail -n 1; cat err
  {"type":"end","tool":"dl-hash","ok":false,"records":3,"files":2,"bytes":6,"cached":0,"status":65}
  dl-hash: the stream is not whole: it stopped without an end record
  $ head -n 3 out | dl-hash --open-ended | tail -n 1
  {"type":"end","tool":"dl-hash","ok":true,"records":3,"files":2,"bytes":6,"cached":0}

A path out of the root is refused, in records and in lists.

  $ echo '{"type":"file","path":"../in/a.txt"}' | dl-hash --open-ended --root in/sub 2>err; cat err
  {"type":"end","tool":"dl-hash","ok":false,"records":0,"files":0,"bytes":0,"cached":0,"left_out":1,"status":65}
  dl-hash: the path '../in/a.txt' is refused: it has a '..'
  $ echo in/a.txt | dl-hash -l --root in/sub 2>&1 >/dev/null
  dl-hash: '*/in/a.txt' lies outside of the root '*/in/sub': give a --root that holds it (glob)
  [65]

Links, sockets and the like, and names that are no UTF-8: as the policies say.

  $ mkdir odd; cd odd; mkdir d; : >d/f; ln -s d linked; ln -s d/f file; ln -s nowhere dangling; mkfifo fifo; : >$'\xff'; mkdir void
  $ dl-hash . 2>../err >/dev/null; sort ../err
  dl-hash: '\xff' is left out: its name is no UTF-8, which a manifest can't hold
  dl-hash: 'dangling' is left out: it is a link to nothing
  dl-hash: warning: 'fifo' is left out: it is no regular file
  dl-hash: warning: 'linked' is left out: it is a link to a folder, and those are entered with --links=follow
  $ dl-hash --missing warn --undecodable warn --special skip --empty-dirs warn . 2>../err | grep -o '"path":"[^"]*"\|"left_out.*\|"empty.*'; sort ../err
  "path":"file"
  "path":"d/f"
  "left_out":4,"empty_dirs":1}
  dl-hash: warning: '\xff' is left out: its name is no UTF-8, which a manifest can't hold
  dl-hash: warning: 'dangling' is left out: it is a link to nothing
  dl-hash: warning: 'linked' is left out: it is a link to a folder, and those are entered with --links=follow
  dl-hash: warning: 'void' is left out: it is an empty folder, which a manifest can't hold
  $ dl-hash --links follow --missing skip --undecodable skip . 2>/dev/null | grep -o '"path":"[^"]*"'
  "path":"file"
  "path":"d/f"
  "path":"linked/f"
  $ dl-hash --links skip --undecodable skip . 2>/dev/null | grep -o '"path":"[^"]*"'
  "path":"d/f"
  $ dl-hash --links fail --undecodable skip --special skip . 2>&1 >/dev/null | sort
  dl-hash: 'dangling' is left out: it is a link
  dl-hash: 'file' is left out: it is a link
  dl-hash: 'linked' is left out: it is a link
  $ dl-hash --progress json --missing skip --special skip . 2>&1 >/dev/null | grep -o '"status.*'
  "status":65,"path":"�","path_b64":"/w=="}
  $ cd ..

What was hashed once is not read again while it stays; --rehash and --no-cache read it. Small files are always read.

  $ head -c 5000 /dev/zero >big; touch -d 2020-01-01 big
  $ python3 -c 'import os, time; time.sleep(max(0, os.stat("big").st_ctime + 2.1 - time.time()))'
  $ dl-hash big | grep -o '"hash":"[^"]*"\|"cached.*'
  "hash":"4f64c6c36836832295929931b75a6d9f"
  "cached":0}
  $ dl-hash big in/a.txt | tail -n 1
  {"type":"end","tool":"dl-hash","ok":true,"records":3,"files":2,"bytes":5006,"cached":1}
  $ dl-hash --rehash big | grep -o '"cached.*'; dl-hash --no-cache big | grep -o '"cached.*'
  "cached":0}
  "cached":0}
  $ printf y | dd of=big conv=notrunc status=none; touch -d 2020-01-01 big
  $ dl-hash big | grep -o '"hash":"[^"]*"\|"cached.*'
  "hash":"d05263cd89d5e05a0954851d0ba6d0de"
  "cached":0}

A full disk is a failure.

  $ dl-hash in >/dev/full 2>err; cat err
  dl-hash: cannot write the output: No space left on device

A root may lie elsewhere on this host than it says.

  $ mkdir -p here && printf hello >here/b
  $ echo '{"path_mapping_rules":[{"source_path_format":"posix","source_path":"/there","destination_path":"'$PWD'/here"}]}' >rules
  $ printf '%s\n' '{"type":"file","path":"b","root":"/there"}' '{"type":"end","tool":"sh","ok":true}' | dl-hash --no-cache --path-mapping-rules=rules
  {"type":"file","path":"b","root":"/there","size":5,"mtime":[0-9]+,"hash":"b5e9c1ad071b3e7fc779cfaa5e523818","hash_alg":"xxh128"} (re)
  {"type":"end","tool":"dl-hash","ok":true,"records":1,"files":1,"bytes":5,"cached":0}
