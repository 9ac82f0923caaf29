needs: farm
  $ mkdir shot && cat >shot/template.yaml <<'END'
  > specificationVersion: jobtemplate-2023-09
  > name: dl-wait test
  > parameterDefinitions:
  > - {name: Status, type: INT}
  > steps:
  > - name: one
  >   parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-2"}]}
  >   script:
  >     actions:
  >       onRun: {command: bash, args: ["-c", "test {{Task.Param.N}} = 1 || exit {{Param.Status}}"]}
  > END
  $ submit() { dl-bundle shot --max-retries-per-task 0 "$@" | dl-submit; }

Behind a submission it passes the stream on, and the job's end takes the place of its beginning.

  $ submit -p Status=0 | dl-wait >ended; echo ${PIPESTATUS[1]}
  0
  $ jq -r '[.type, .task_run_status // .tool // ""] | join(" ")' ended
  bundle 
  job SUCCEEDED
  end dl-wait

A job that fails is an answer, not a trouble: the stream is whole, and names the tasks.

  $ job=$(submit -p Status=3 | jq -r 'select(.type == "job").job_id')
  $ dl-wait "$job" >failed
  [2]
  $ jq -r '[.type, .task_run_status // .run_status // (.ok | tostring), .parameters.N.int // ""] | join(" ")' failed
  job FAILED 
  task FAILED 2
  end true 

The time-out is exact. Cancelled is 3, suspended is 4.

  $ job=$(submit -p Status=0 --target-task-run-status SUSPENDED | jq -r 'select(.type == "job").job_id')
  $ dl-wait "$job" | jq -r .task_run_status | head -n 1
  SUSPENDED
  $ dl-wait "$job" >/dev/null
  [4]
  $ dl-cancel --to archived "$job" >/dev/null && dl-wait "$job" >/dev/null
  [4]
  $ job=$(submit -p Status=0 --target-task-run-status SUSPENDED | jq -r 'select(.type == "job").job_id')
  $ dl-cancel "$job" >/dev/null && dl-wait "$job" >/dev/null
  [3]

Troubles are no answers.

  $ dl-wait job-00000000000000000000000000000000 >/dev/null 2>&1
  [66]
  $ dl-wait --timeout soon job-1 2>&1 >/dev/null
  dl-wait: --timeout takes a duration such as 30, 1.5, 10m or 2h, not 'soon'
  [64]
  $ dl-wait </dev/null >/dev/null 2>&1
  [65]
