needs: farm
  $ mkdir shot && cat >shot/template.yaml <<'END'
  > specificationVersion: jobtemplate-2023-09
  > name: dl-logs test
  > steps:
  > - name: one
  >   script:
  >     actions:
  >       onRun: {command: bash, args: ["-c", "for i in 1 2 3 4 5; do echo line $i of five; done; echo 'snow: ☃'"]}
  > END
  $ job=$(dl-bundle shot | dl-submit | dl-wait | jq -r 'select(.type == "job").job_id')

The lines of the job's session, behind the job and the session. A session's last lines come after its job's end;
followed, they are waited for.

  $ dl-logs --follow "$job" >/dev/null
  $ dl-logs --all "$job" >log && jq -r .type log | uniq | tr '\n' ' '
  job session log resource end  (no-eol)
  $ jq -r 'select(.type == "log").message' log | grep 'of five\|snow'
  line 1 of five
  line 2 of five
  line 3 of five
  line 4 of five
  line 5 of five
  snow: ☃
  $ jq -r 'select(.type == "log").timestamp' log | head -n 1
  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (re)
  $ jq -r 'select(.type == "log").timestamp' log | sort -c

Without --all it is the newest lines; the token leads to the ones before them.

  $ all=$(jq -r 'select(.type == "log").message' log | wc -l)
  $ dl-logs --limit 2 "$job" >last && jq -r 'select(.type == "log").message' last >two && wc -l <two
  2
  $ token=$(jq -r 'select(.type == "resource").data.nextToken' last)
  $ dl-logs --limit 100 --next-token "$token" "$job" | jq -r 'select(.type == "log").message' >before
  $ cat before two | cmp - <(jq -r 'select(.type == "log").message' log) && echo same
  same
  $ dl-logs --follow "$job" | jq -r 'select(.type == "log").message' | wc -l | test "$all" = "$(cat)"

Followed, a job is read from its first session to its end.

  $ dl-bundle shot | dl-submit | dl-logs --follow | jq -r 'select(.type == "log").message' | grep 'of five\|snow' | tail -n 2
  line 5 of five
  snow: ☃

As text, and for one action of the session:

  $ dl-logs --all --format text "$job" | grep 'line 1 '
  [*-*-*T*+00:00] line 1 of five (glob)
  $ session=$(jq -r 'select(.type == "session").session_id' log)
  $ action=$(dl-ls actions --job-id "$job" | jq -r 'select(.data.definition.taskRun).id')
  $ dl-logs --session-action-id "$action" "$job" | grep -c 'of five'
  5
  $ dl-logs --session-id "$session" --session-action-id sessionaction-00000000000000000000000000000000-0 "$job" >/dev/null 2>&1
  [64]

A job that no worker has touched has nothing to read.

  $ job=$(dl-bundle shot --target-task-run-status SUSPENDED | dl-submit | jq -r 'select(.type == "job").job_id')
  $ dl-logs "$job" 2>&1 >/dev/null
  dl-logs: job '*' has no sessions: no worker has started on it (glob)
  [66]
