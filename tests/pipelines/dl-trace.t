The time of all sessions, and what it went to.

  $ cat >job <<'END'
  > {"type":"resource","resource":"job","id":"job-1","farm_id":"farm-1","queue_id":"queue-1","data":{"jobId":"job-1","name":"x","startedAt":"2025-07-03T10:00:00Z","endedAt":"2025-07-03T10:00:20Z"}}
  > {"type":"resource","resource":"step","id":"step-1","data":{"stepId":"step-1","name":"render"}}
  > {"type":"resource","resource":"task","id":"task-1-0","data":{"stepId":"step-1","taskId":"task-1-0","parameters":{"Frame":{"int":"7"},"Cam":{"string":"main"}}}}
  > {"type":"resource","resource":"session","id":"session-0123456789abcdef0123456789abcdef","data":{"sessionId":"session-0123456789abcdef0123456789abcdef","workerId":"worker-1","fleetId":"fleet-1","lifecycleStatus":"ENDED","startedAt":"2025-07-03T10:00:00Z","endedAt":"2025-07-03T10:00:20Z"}}
  > {"type":"resource","resource":"action","id":"sessionaction-0123456789abcdef0123456789abcdef-10","data":{"sessionActionId":"sessionaction-0123456789abcdef0123456789abcdef-10","status":"SUCCEEDED","startedAt":"2025-07-03T10:00:12Z","endedAt":"2025-07-03T10:00:13Z","definition":{"envExit":{"environmentId":"JOB:job-1:env"}}}}
  > {"type":"resource","resource":"action","id":"sessionaction-0123456789abcdef0123456789abcdef-9","data":{"sessionActionId":"sessionaction-0123456789abcdef0123456789abcdef-9","status":"SUCCEEDED","startedAt":"2025-07-03T10:00:02Z","endedAt":"2025-07-03T10:00:12Z","definition":{"taskRun":{"stepId":"step-1","taskId":"task-1-0"}}}}
  > {"type":"end","tool":"dl-ls","ok":true}
  > END
  $ dl-trace --trace-file trace.json <job
  
   ==== SUMMARY ====
  
  Session Count: 1
  Session Total Duration: 0:00:20
  Session Action Count: 2
  Session Action Total Duration: 0:00:11
  Task Run Count: 1
  Task Run Total Duration: 0:00:10 (50.0%)
  Non-Task Run Count: 1
  Non-Task Run Total Duration: 0:00:01 (5.0%)
  Sync Job Attachments Count: 0
  Sync Job Attachments Total Duration: 0:00:00 (0.0%)
  Env Action Count: 1
  Env Action Total Duration: 0:00:01 (5.0%)
  
  Within-session Overhead Duration: 0:00:09 (45.0%)
  Within-session Overhead Duration Per Action: 0:00:04.500000

The trace has the actions in their order, and times in microseconds from the start of the job.

  $ jq -r '.traceEvents[] | [.name, .ph, .ts, .dur // "", .pid] | join(" ")' trace.json
  render - 0 B 0  0
  Frame=7,Cam=main X 2000000 10000000 0
  env X 12000000 1000000 0
  render - 0 E 20000000  0
  $ jq -c .otherData.farmId,.otherData.taskRunDuration trace.json
  "farm-1"
  10000000

A job that has not started has none, and a stream that was cut gives none.

  $ sed 's/"startedAt":"[^"]*",//' job | head -n 1 | dl-trace --open-ended
  [66]
  $ head -n 3 job | dl-trace --trace-file other.json
  [65]
  $ ls
  job
  trace.json
