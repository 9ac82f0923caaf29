A whole stream of hashed files becomes a manifest, the bytes of which the format gives. (Sample of the format's description.)

  $ mkdir -p in/sub; printf 'hello\n' >in/a.txt; printf x >in/sub/B.txt; : >in/zero.bin
  $ touch -d 2024-01-02T03:04:05.123456789Z in/a.txt in/sub/B.txt in/zero.bin
  $ dl-hash in | dl-manifest >out; tail -n 2 out
  {"type":"manifest","root":"*/in","root_path_format":"posix","path":"*/.deadline/cache/manifests/de4392d36cd5fc1bd33ec174d7e9bb9e.manifest","hash":"de4392d36cd5fc1bd33ec174d7e9bb9e","hash_alg":"xxh128","size":361,"total_size":7,"file_count":3} (glob)
  {"type":"end","tool":"dl-manifest","ok":true,"records":5,"manifests":1,"files":3,"bytes":7}
  $ cat ~/.deadline/cache/manifests/*; echo
  {"hashAlg":"xxh128","manifestVersion":"2023-03-03","paths":[{"hash":"6bba86c7e069f56d5a10b435f1c8e49c","mtime":1704164645123456,"path":"a.txt","size":6},{"hash":"5c7401c0ec22eeeeeaf06c6480b2cd11","mtime":1704164645123456,"path":"sub/B.txt","size":1},{"hash":"99aa06d3014798d86001c324468d497f","mtime":1704164645123456,"path":"zero.bin","size":0}],"totalSize":7}

Every record is passed on, and nothing else is written.

  $ dl-hash in >hashed; head -n 4 hashed >files; head -n 4 out | cmp - files && echo same
  same
  $ ls ~/.deadline/cache/manifests
  de4392d36cd5fc1bd33ec174d7e9bb9e.manifest

A stream that was cut, or that failed, makes no manifest; nor does one without files, which is no failure.

  $ rm -r ~/.deadline/cache/manifests
  $ head -n 3 hashed | dl-manifest 2>&1 >/dev/null
  dl-manifest: the stream is not whole: it stopped without an end record
  [65]
  $ dl-hash in gone 2>/dev/null | dl-manifest 2>&1 >/dev/null
  dl-manifest: the stream is not whole: 'dl-hash' reported a failure
  [65]
  $ mkdir void; dl-hash void | dl-manifest | tail -n 1
  {"type":"end","tool":"dl-manifest","ok":true,"records":1}
  $ ls ~/.deadline/cache
  $ dl-manifest --open-ended <<<'{"type":"file","path":"a.txt"}' 2>&1 >/dev/null
  dl-manifest: file record 'a.txt' has no hash: pass the stream through dl-hash
  [65]

  $ dl-manifest --open-ended <<<'{"type":"file","path":"a.txt","hash":"0/","size":0,"mtime":0}' 2>&1 >/dev/null
  dl-manifest: file record 'a.txt' has a hash, size or mtime that is none
  [65]
  $ dl-manifest --open-ended <<<'{"type":"file","path":"../a","hash":"0","size":0,"mtime":0}' 2>&1 >/dev/null
  dl-manifest: the path '../a' is refused: it has a '..'
  [65]

With a name it is kept where one wants it, the hash of its root in its name.

  $ dl-hash in | dl-manifest --to kept --name work --root-as /proj | grep -o '"path":"[^"]*manifest"'
  "path":"*/kept/work-731442b4ddb4a5b53a932cb24fb47f14-????-??-??T??-??-??.manifest" (glob)
  $ mv kept/* work.manifest

A manifest becomes file records again, and they the same manifest.

  $ dl-manifest cat work.manifest
  {"type":"file","path":"a.txt","size":6,"mtime":1704164645123456,"hash":"6bba86c7e069f56d5a10b435f1c8e49c","hash_alg":"xxh128"}
  {"type":"file","path":"sub/B.txt","size":1,"mtime":1704164645123456,"hash":"5c7401c0ec22eeeeeaf06c6480b2cd11","hash_alg":"xxh128"}
  {"type":"file","path":"zero.bin","size":0,"mtime":1704164645123456,"hash":"99aa06d3014798d86001c324468d497f","hash_alg":"xxh128"}
  {"type":"end","tool":"dl-manifest","ok":true,"records":3}
  $ dl-manifest cat work.manifest | dl-manifest --to again >/dev/null; cmp again/* work.manifest && echo same
  same

Of two, the last wins in merge; subtract leaves what is not in the others.

  $ printf 'HELLO\n' >in/a.txt; : >in/new; touch -d @1 in/a.txt in/new; rm in/zero.bin
  $ dl-hash in | dl-manifest --to kept --name later >/dev/null; mv kept/* later.manifest
  $ dl-manifest merge --root /r work.manifest later.manifest | grep -o '"path":"[^"]*","root":"/r","size":[0-9]*,"mtime":[0-9]*'
  "path":"a.txt","root":"/r","size":6,"mtime":1000000
  "path":"new","root":"/r","size":0,"mtime":1000000
  "path":"sub/B.txt","root":"/r","size":1,"mtime":1704164645123456
  "path":"zero.bin","root":"/r","size":0,"mtime":1704164645123456
  $ dl-manifest subtract later.manifest work.manifest | grep -o '"path":"[^"]*"'
  "path":"a.txt"
  "path":"new"

Names of every kind keep the format's order and escapes.

  $ mkdir names; cd names; : >é.txt; : >e$'\u0301'.txt; : >😀.txt; : >Ａ.txt; : >'q"uo\te.txt'; touch -d @0 *; cd ..
  $ dl-hash names | dl-manifest --to kept >/dev/null; grep -o '"path":"[^,]*"' kept/*
  "path":"e\u0301.txt"
  "path":"q\"uo\\te.txt"
  "path":"\u00e9.txt"
  "path":"\ud83d\ude00.txt"
  "path":"\uff21.txt"

A manifest file is told of without its files, or behind them; its root by the hash in its name.

  $ dl-manifest stat work.manifest | head -n 1
  {"type":"manifest","path":"*/work.manifest","hash":"de4392d36cd5fc1bd33ec174d7e9bb9e","hash_alg":"xxh128","size":361,"total_size":7,"file_count":3} (glob)
  $ cp work.manifest w-731442b4ddb4a5b53a932cb24fb47f14.manifest
  $ dl-manifest cat --among /elsewhere --among /proj --manifests w-*.manifest | grep -o '"type":"[^"]*"\|"root":"[^"]*"' | paste - -
  "type":"root"	"root":"/proj"
  "type":"file"	"root":"/proj"
  "type":"file"	"root":"/proj"
  "type":"file"	"root":"/proj"
  "type":"manifest"	"root":"/proj"
  "type":"end"\t (re)
  $ echo '[{"source_path_format":"windows","source_path":"/proj","destination_path":"/here"}]' >rules
  $ dl-manifest stat --path-mapping-rules rules w-*.manifest | grep -o '"root":"[^"]*","root_path_format":"[^"]*"'
  "root":"/proj","root_path_format":"windows"
  "root":"/proj","root_path_format":"windows"
  $ dl-manifest stat --among /elsewhere w-*.manifest 2>&1 >/dev/null
  dl-manifest: whose files are those of 'w-731442b4ddb4a5b53a932cb24fb47f14.manifest'? its name holds the hash of none of '/elsewhere'
  [64]

Files that dl-diff tells of as deleted stand in no manifest, and pass.

  $ printf '%s\n' '{"type":"file","path":"a","hash":"0","size":0,"mtime":0,"status":"deleted"}' '{"type":"file","path":"b","hash":"1","size":0,"mtime":0,"status":"new"}' | dl-manifest --open-ended --to=changes --name=c | cut -d, -f 1-2 | head -n 2
  {"type":"file","path":"a"
  {"type":"file","path":"b"
  $ dl-manifest cat changes/c-*.manifest | cut -d, -f 1-2 | head -n 1
  {"type":"file","path":"b"

What is no manifest, or a hostile one, is refused.

  $ echo '{"manifestVersion":"2025-12-04-beta"}' >beta; dl-manifest cat beta 2>&1 >/dev/null
  dl-manifest: 'beta' is not an asset manifest: version '2025-12-04-beta' is not known, only 2023-03-03
  [65]
  $ sed 's/a.txt/..\/a.txt/' work.manifest >evil; dl-manifest cat evil 2>&1 >/dev/null
  dl-manifest: the manifest's path '../a.txt' is refused: it has a '..'
  [65]
  $ printf '%s\n' '{"type":"file","path":"a","hash":"0","size":0,"mtime":0}' '{"type":"file","path":"a/b","hash":"0","size":0,"mtime":0}' | dl-manifest --open-ended 2>&1 >/dev/null
  dl-manifest: the manifest's path 'a/b' is refused: 'a' is a file and a folder
  [65]
  $ printf '%s\n' '{"type":"file","path":"a","hash":"0","size":0,"mtime":0}' '{"type":"file","path":"a","hash":"1","size":0,"mtime":0}' | dl-manifest --open-ended 2>&1 >/dev/null
  dl-manifest: 'a' comes twice, with different contents: run again
  [65]
  $ dl-manifest cat gone 2>&1 >/dev/null
  dl-manifest: cannot use 'gone': No such file or directory
  [66]
