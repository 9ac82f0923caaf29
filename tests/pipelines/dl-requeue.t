needs: farm
  $ mkdir shot && cat >shot/template.yaml <<'END'
  > specificationVersion: jobtemplate-2023-09
  > name: dl-requeue test
  > steps:
  > - name: one
  >   parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-120"}]}
  >   script: {actions: {onRun: {command: "true"}}}
  > END
  $ job=$(dl-bundle shot --target-task-run-status SUSPENDED | dl-submit | dl-cancel | jq -r 'select(.type == "job").job_id')
  $ dl-wait "$job" >/dev/null
  [3]

A dry run counts and changes nothing; states that no task is in have no tasks.

  $ dl-requeue --dry-run "$job" | tail -n 1
  {"type":"end","tool":"dl-requeue","ok":true,"records":122,"tasks":120}
  $ dl-requeue --run-status failed "$job" | jq -r .type | tr '\n' ' '
  job step end  (no-eol)

More tasks than one request takes:

  $ dl-requeue "$job" | jq -r 'select(.type == "task").run_status' | sort | uniq -c | awk '{print $1, $2}'
  120 CANCELED
  $ dl-ls job "$job" | jq -r 'select(.type == "resource").data.taskRunStatusCounts.CANCELED'
  0
  $ dl-cancel "$job" >/dev/null

  $ dl-requeue --run-status tired "$job" >/dev/null 2>&1
  [64]
