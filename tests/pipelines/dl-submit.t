needs: farm
  $ mkdir -p shot/in && echo hello >shot/in/a.txt && cat >shot/template.yaml <<'END'
  > specificationVersion: jobtemplate-2023-09
  > name: dl-submit test
  > parameterDefinitions:
  > - {name: In, type: PATH, dataFlow: IN, default: in}
  > - {name: Out, type: PATH, dataFlow: OUT, default: out}
  > steps:
  > - name: one
  >   script: {actions: {onRun: {command: "true"}}}
  > END
  $ dl-bundle shot --target-task-run-status SUSPENDED | dl-hash | dl-manifest | dl-upload >stored

The request is what the stream tells: attachments in the order of roots, each with its manifest and output folders.

  $ dl-submit --dry-run <stored >request && jq -r 'keys_unsorted | join(" ")' request
  farmId queueId template templateType priority attachments targetTaskRunStatus maxFailedTasksCount maxRetriesPerTask parameters
  $ jq -c '.attachments.manifests[0] | [.rootPathFormat, .outputRelativeDirectories, .inputManifestHash]' request
  \["posix",\["out"\],"[0-9a-f]{32}"\] (re)

A whole stream becomes a job; all that was read is passed on before it.

  $ dl-submit <stored >submitted && jq -r .type submitted | tr '\n' ' '
  bundle root file output_dir manifest job end  (no-eol)
  $ jq -r 'select(.type == "job") | [.name, .lifecycle_status] | join(", ")' submitted
  dl-submit test, CREATE_COMPLETE
  $ job=$(jq -r 'select(.type == "job").job_id' submitted)
  $ dl-ls job "$job" | head -n 1 | jq -c .data.attachments >made; jq -c .attachments request | cmp <(jq -S . made) <(jq -S .attachments request) && echo same
  same

A stream that was cut, one that failed, and one whose files are not stored create no job.

  $ count() { dl-ls jobs | tail -n 1 | jq .total; }
  $ before=$(count)
  $ head -n 3 stored | dl-submit 2>err | tail -n 1
  {"type":"end","tool":"dl-submit","ok":false,"records":3,"status":65}
  $ cat err
  dl-submit: the stream is not whole: it stopped without an end record
  $ (head -n 5 stored; echo '{"type":"end","tool":"x","ok":false}') | dl-submit >/dev/null 2>&1
  [65]
  $ (grep -v '"manifest"' stored) | dl-submit 2>&1 >/dev/null
  dl-submit: the files under '*/shot' are not stored: put dl-hash, dl-manifest and dl-upload before dl-submit (glob)
  [65]
  $ dl-submit </dev/null >/dev/null 2>&1
  [65]
  $ test "$(count)" = "$before"

A template that the service can't make a job of is bad data, and the reason is told.

  $ sed 's/"template":"[^"]*"/"template":"specificationVersion: jobtemplate-2023-09\\nname: x\\nsteps: []\\n"/' stored | dl-submit >/dev/null 2>err
  [65]
  $ wc -l <err
  1
