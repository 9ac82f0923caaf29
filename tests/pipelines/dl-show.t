Jobs of a list, as the reference client prints them: what is absent is empty.

  $ cat >jobs <<'END'
  > {"type":"resource","resource":"job","id":"job-1","data":{"jobId":"job-1","name":"Été 1: all","taskRunStatus":"READY","createdAt":"2025-07-03T10:49:33.821000Z","createdBy":"me","taskRunStatusCounts":{"READY":2}}}
  > {"type":"end","tool":"dl-ls","ok":true,"total":7}
  > END
  $ dl-show --item-offset 3 jobs <jobs
  Displaying 1 of 7 Jobs starting at 3
  
  - name: "\xC9t\xE9 1: all"
    jobId: job-1
    taskRunStatus: READY
    startedAt: ''
    endedAt: ''
    createdBy: me
    createdAt: 2025-07-03 10:49:33.821000+00:00
    estimatedTimeRemaining: N/A
  
  $ dl-show --term all job-matches <jobs
  Found 7 job(s) matching "all", showing most recent 1:
  
    Été 1: all
      job-1  READY         2025-07-03 10:49:33 +0000
      Tasks: 2 ready
  
    ... and 6 more
  
  To get details, run: deadline job get --job-id <job-id>

How a wait ended is the status, for a script and for a person.

  $ cat >ended <<'END'
  > {"type":"job","job_id":"job-1","name":"x","task_run_status":"RUNNING","task_run_status_counts":{"RUNNING":2},"elapsed_s":0.1}
  > {"type":"job","job_id":"job-1","name":"x","task_run_status":"FAILED","task_run_status_counts":{"FAILED":1,"SUCCEEDED":1},"elapsed_s":2.5}
  > {"type":"task","task_id":"task-1-0","step_id":"step-1","step_name":"render","session_id":"session-1"}
  > {"type":"end","tool":"dl-wait","ok":true}
  > END
  $ dl-show --output json wait <ended
  {
    "jobId": "job-1",
    "jobName": "x",
    "status": "FAILED",
    "elapsedTime": 2.5,
    "failedTasks": [
      {
        "stepId": "step-1",
        "taskId": "task-1-0",
        "stepName": "render",
        "sessionId": "session-1"
      }
    ]
  }
  [2]
  $ dl-show --output verbose wait <ended
  Waiting for job job-1 to complete...
  Job Name: x
  Current status: RUNNING (0/2 tasks succeeded, 2 workers running). [0.1s elapsed]
  Current status: FAILED (1/2 tasks succeeded, 0 workers running). [2.5s elapsed]
  Job ID: job-1
  Job completed with status: FAILED
  Elapsed time: 2.5 seconds
  Found 1 failed tasks:
  - stepId: step-1
    taskId: task-1-0
    stepName: render
    sessionId: session-1
  
  [2]
  $ (head -n 1 ended; tail -n 1 ended) | dl-show --output json wait | jq -c '[.timeout, .jobId]'
  [true,"job-1"]
  $ (head -n 1 ended; tail -n 1 ended) | dl-show --output json wait >/dev/null
  [1]

Lines of a log, with times as wanted.

  $ cat >log <<'END'
  > {"type":"job","job_id":"job-1","name":"x"}
  > {"type":"session","session_id":"session-1","started_at":"2025-07-03T10:49:30Z","log_group":"/g","log_stream":"session-1"}
  > {"type":"log","timestamp":"2025-07-03T10:49:33.500Z","message":"hello"}
  > {"type":"log","timestamp":"2025-07-03T10:49:34.000Z","message":"é"}
  > {"type":"resource","resource":"log_stream","id":"session-1","data":{"logGroupName":"/g","logStreamName":"session-1","nextToken":"b/1"}}
  > {"type":"end","tool":"dl-logs","ok":true}
  > END
  $ dl-show --output verbose logs <log
  Retrieving logs for session session-1 from log group /g...
  Job ID: job-1
  Job Name: x
  
  [2025-07-03T10:49:33.500000+00:00] hello
  [2025-07-03T10:49:34+00:00] é
  
  Retrieved 2 log events.
  More logs are available. Use --next-token "b/1" to retrieve the next page.
  $ dl-show --output json --timestamp-format relative logs <log | jq -c '[.events[].timestamp, .count, .nextToken]'
  ["0:00:03.500000","0:00:04",2,"b/1"]

A stream that is not whole is never shown as if it was.

  $ head -n 1 jobs | dl-show jobs
  [65]
  $ dl-show no-such-view </dev/null 2>/dev/null
  [64]

What was made of a folder, and how it differs, as JSON and for a person.

  $ cat >differs <<'END'
  > {"type":"file","path":"a/new","status":"new"}
  > {"type":"file","path":"a/deep/gone","status":"deleted"}
  > {"type":"file","path":"b","status":"modified"}
  > {"type":"end","tool":"dl-diff","ok":true}
  > END
  $ dl-show --root proj --output verbose manifest-diff <differs
  Manifest Diff of root directory: proj
  ├──a/
  │    ├──deep/
  │    │    └──gone -
  │    └──new +
  └──b M
  $ dl-show --output json manifest-diff <differs | jq -c .
  {"new":["a/new"],"modified":["b"],"deleted":["a/deep/gone"]}
  $ head -n 2 differs | dl-show --output json manifest-diff 2>/dev/null
  [65]
  $ printf '%s\n' '{"type":"manifest","root":"/w/proj","path":"/w/p.manifest"}' '{"type":"end","tool":"dl-manifest","ok":true}' >made
  $ dl-show --root proj --output json snapshot <made
  {"root": "proj", "manifest": "/w/p.manifest"}
  $ dl-show --output json manifest-download <made
  {"downloaded": [{"manifest_root": "/w/proj", "local_manifest_path": "/w/p.manifest"}]}
  $ echo '{"type":"end","tool":"dl-manifest","ok":true}' | dl-show --output verbose snapshot
  No manifest generated

Nothing that differs is told, too.

  $ printf '%s\n' '{"type":"root","root":"/proj","root_path_format":"posix"}' '{"type":"end","tool":"dl-diff","ok":true}' >same
  $ dl-show --root /proj --output verbose manifest-diff <same
  Manifest Diff of root directory: /proj
  No differences
