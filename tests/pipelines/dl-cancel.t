needs: farm
  $ mkdir shot && cat >shot/template.yaml <<'END'
  > specificationVersion: jobtemplate-2023-09
  > name: dl-cancel test
  > steps:
  > - name: one
  >   parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-3"}]}
  >   script: {actions: {onRun: {command: "true"}}}
  > END
  $ submit() { dl-bundle shot --target-task-run-status SUSPENDED | dl-submit; }

A job of the stream is cancelled; what else is in the stream passes.

  $ submit | dl-cancel | dl-wait >ended; echo ${PIPESTATUS[2]}
  3
  $ jq -r '[.type, .task_run_status // ""] | join(" ")' ended | head -n 2
  bundle 
  job CANCELED

A single task takes another state than its job.

  $ job=$(submit | jq -r 'select(.type == "job").job_id')
  $ step=$(dl-ls steps --job-id "$job" | head -n 1 | jq -r .id)
  $ task=$(dl-ls tasks --job-id "$job" --step-id "$step" | head -n 1 | jq -r .id)
  $ dl-cancel --step-id "$step" --task-id "$task" --to succeeded "$job" | tail -n 1
  {"type":"end","tool":"dl-cancel","ok":true,"records":1}
  $ dl-ls tasks --job-id "$job" | jq -r 'select(.type == "resource").status' | sort | uniq -c | awk '{print $1, $2}'
  1 SUCCEEDED
  2 SUSPENDED

Typed wrongly, nothing is asked of the service.

  $ dl-cancel --to tired "$job" 2>&1 >/dev/null
  dl-cancel: --to takes one of CANCELED, SUSPENDED, FAILED, SUCCEEDED, READY, PENDING, ARCHIVED, not 'tired'
  [64]
  $ dl-cancel --task-id "$task" "$job" 2>&1 >/dev/null
  dl-cancel: --task-id needs --step-id
  [64]
  $ dl-cancel job-00000000000000000000000000000000 >/dev/null 2>&1
  [66]
