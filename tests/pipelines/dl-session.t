A session folder: an inbox says who the session is and what to do; steps and job are files beside it.

  $ mkdir -p s/entities
  $ name() { printf %s "$2" | sha256sum | cut -c1-16 | sed "s/.*/s\/entities\/$1-&.json/"; }
  $ echo '{"jobId":"job-1","schemaVersion":"jobtemplate-2023-09","parameters":{"Who":{"string":"world"}}}' >$(name jobDetails "")
  $ cat >$(name stepDetails step-1) <<END
  > {"jobId":"job-1","stepId":"step-1","schemaVersion":"jobtemplate-2023-09","dependencies":[],"template":{"name":"Greet",
  >  "script":{"actions":{"onRun":{"command":"sh","args":["-c","echo hello {{Param.Who}} {{Task.Param.N}}; exit {{Task.Param.N}}"]}}}}}
  > END
  $ cat >s/inbox.jsonl <<END
  > {"type":"open","farm_id":"farm-1","fleet_id":"fleet-1","worker_id":"worker-1","queue_id":"queue-1","job_id":"job-1","session_id":"session-1","session_dir":"$PWD/work"}
  > {"type":"action","session_action_id":"sa-0","definition":{"taskRun":{"stepId":"step-1","parameters":{"N":{"int":"0"}}}}}
  > {"type":"action","session_action_id":"sa-1","definition":{"taskRun":{"stepId":"step-1","parameters":{"N":{"int":"3"}}}}}
  > {"type":"action","session_action_id":"sa-2","definition":{"taskRun":{"stepId":"step-1","parameters":{"N":{"int":"0"}}}}}
  > END

It runs them in order until it is told that the session is over.

  $ dl-session s & 
  $ until grep -q sa-2 s/outbox.jsonl 2>/dev/null; do sleep 0.1; done
  $ echo '{"type":"end"}' >>s/inbox.jsonl; echo >s/wake; wait $!
  $ jq -r 'select(.type == "action" and .status != "RUNNING") | [.session_action_id, .status, .process_exit_code, .progress_message] | @tsv' s/outbox.jsonl
  sa-0	SUCCEEDED	0	
  sa-1	FAILED	3	
  sa-2	NEVER_ATTEMPTED		sa-1 ended FAILED
  $ tail -n 1 s/outbox.jsonl
  {"type":"end","tool":"dl-session","ok":true}
  $ jq -r .message s/log.jsonl | grep ^hello
  hello world 0
  hello world 3
  $ ls work
  [2]

What is over is over, and a folder must be there.

  $ dl-session s 2>&1
  dl-session: the session 's' is over
  [65]
  $ dl-session gone 2>&1
  dl-session: no session folder '*/gone' (glob)
  [66]
