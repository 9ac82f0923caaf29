needs: farm
A manifest in the store is fetched to where a rule, or --to, says.

  $ mkdir -p in/sub && printf hello >in/a.txt && printf hello >in/sub/b && : >in/empty && touch -d 2024-01-02T03:04:05.123456Z in/a.txt
  $ dl-hash in | dl-manifest | dl-upload >stored
  $ manifest=$(jq -r 'select(.type == "manifest").manifest_path' stored)
  $ dl-download --manifest "$manifest" --to out | jq -c 'select(.type == "file") | [.path, .size, .download]'
  ["a.txt",5,"new"]
  ["empty",0,"new"]
  ["sub/b",5,"new"]
  $ diff -r in out && stat -c %y out/a.txt | cut -c 1-26
  2024-01-02 03:04:05.123456
  $ dl-download --manifest "$manifest" --map "$PWD/in=$PWD/mapped" | tail -n 1 | jq -c '[.ok, .new]' && diff -r in mapped
  [true,3]

Manifest records do as well; a job's would be fetched likewise.

  $ jq -c 'select(.type == "manifest" or .type == "end")' stored | dl-download --map "$PWD/in=$PWD/again" | tail -n 1 | jq -c '[.ok, .new]' && diff -r in again
  [true,3]

What is here already is left alone. What differs is a conflict.

  $ dl-download --manifest "$manifest" --to out | tail -n 1 | jq -c '[.new, .present]'
  [null,3]
  $ echo mine >out/a.txt && dl-download --manifest "$manifest" --to out | jq -r 'select(.download == "new") | .local_path' | sed "s|$PWD/||"
  out/a (1).txt
  $ dl-download --manifest "$manifest" --to out | tail -n 1 | jq -c '[.new, .present]'; ls out
  [null,3]
  a (1).txt
  a.txt
  empty
  sub
  $ dl-download --manifest "$manifest" --to out --conflict-resolution skip | tail -n 1 | jq -c '[.new, .present, .skipped]'; cat out/a.txt
  [null,null,3]
  mine
  $ dl-download --manifest "$manifest" --to out --conflict-resolution overwrite | tail -n 1 | jq -c '[.new, .present]'; cat out/a.txt; echo
  [1,2]
  hello

What a manifest holds is listed as it stands there; a manifest file of an unknown root goes to a folder of its own.

  $ dl-download --list --manifest "$manifest" --map "$PWD/in=$PWD/mapped" --below . | jq -r 'select(.type == "file") | "\(.root) \(.path) \(.local_path)"' | sed "s|$PWD/||"
  in a.txt null
  in empty null
  in sub/b null
  $ file=$(jq -r 'select(.type == "manifest").path' stored) && cp "$file" named.manifest
  $ dl-download --manifest named.manifest --below owns | tail -n 1 | jq -c '[.ok, .new]' && diff -r in owns/named.manifest
  [true,3]
  $ mkdir twin && cp "$file" twin/named.manifest
  $ dl-download --manifest named.manifest --manifest twin/named.manifest --below owns 2>&1 >/dev/null | cut -d: -f1-2
  dl-download: the files of two manifests named 'named.manifest' would go to '*/owns/named.manifest' (glob)
  $ rm -r named.manifest owns twin

Globs choose; --dry-run only tells.

  $ dl-download --manifest "$manifest" --to few --include 'sub/' --include '*.txt' --exclude 'a*' --dry-run | jq -r 'select(.type == "file").path'
  sub/b
  $ ls few 2>/dev/null | wc -l
  0

Hostile manifests are refused before anything is written.

  $ bad() { printf '{"hashAlg":"xxh128","manifestVersion":"2023-03-03","paths":[{"hash":"b5e9c1ad071b3e7fc779cfaa5e523818","mtime":0,"path":"%s","size":5}],"totalSize":5}' "$1" >bad.manifest; }
  $ for path in ../up a/../../up /tmp/up a//b ./a 'a/.' ''; do bad "$path"; dl-download --manifest bad.manifest --to new >/dev/null 2>err; echo "$? $(cut -d : -f 2- err)"; done
  65  the manifest's path '../up' is refused: it has a '..'
  65  the manifest's path 'a/../../up' is refused: it has a '..'
  65  the manifest's path '/tmp/up' is refused: it is absolute
  65  the manifest's path 'a//b' is refused: it has an empty part or a '.'
  65  the manifest's path './a' is refused: it has an empty part or a '.'
  65  the manifest's path 'a/.' is refused: it has an empty part or a '.'
  65  the manifest's path '' is refused: it is empty
  $ ls
  again
  bad.manifest
  err
  in
  mapped
  out
  stored

Nothing is written through a link that leads out; one that stays within is followed.

  $ mkdir -p new outside new/real && ln -s ../outside new/out && ln -s real new/within
  $ bad out/a; dl-download --manifest bad.manifest --to new 2>&1 >/dev/null | sed "s|$PWD/||g"; ls outside
  dl-download: the link 'new/out' leads out of 'new': nothing is written through it
  $ bad within/a; dl-download --manifest bad.manifest --to new >/dev/null; cat new/real/a; echo
  hello

What the store does not have, or the farm, is said in one line.

  $ sed -i s/b5e9/0000/ bad.manifest; dl-download --manifest bad.manifest --to new 2>&1 >/dev/null | sed 's|s3://.*/Data|s3://.../Data|'
  dl-download: the content of 'within/a' is not in the store: there is no 's3://.../Data/0000c1ad071b3e7fc779cfaa5e523818.xxh128'
  $ dl-download job-00000000000000000000000000000000 2>/dev/null | jq -c '[.type, .ok, .status]'
  ["end",false,66]
  $ dl-download --manifest no/such --to new 2>&1 >/dev/null | cut -d "'" -f 1
  dl-download: there is no manifest 
  $ dl-download --task-id task-1 x 2>&1 >/dev/null
  dl-download: --task-id needs --step-id as well
  [64]
