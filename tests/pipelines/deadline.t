needs: farm
The lists of the service, as the reference client prints them.

  $ deadline farm list | sed 's/[0-9a-f]\{32\}/ID/'
  - region: us-west-2
    farmId: farm-ID
    displayName: Local farm
  
  $ deadline queue list | sed 's/[0-9a-f]\{32\}/ID/'
  - queueId: queue-ID
    displayName: Local queue
  
  $ deadline queue get | grep displayName
  displayName: Local queue

What a command runs is shown, and can be pasted.

  $ deadline -n job list --page-size 3
  dl-ls --limit=3 --item-offset=0 jobs | dl-show --item-offset=0 jobs
  $ deadline -n bundle submit 'my shot' -p 'Title=a b' --name it
  dl-bundle --name=it '--parameter=Title=a b' -- 'my shot' | dl-hash | dl-manifest | dl-upload | dl-submit --remember | dl-show submission
  $ mkdir work && deadline -n manifest snapshot --root work -e '*.tmp' --diff /dev/null 2>&1
  deadline: there is no manifest file '/dev/null'
  [66]
  $ : >was && deadline -n manifest snapshot --root work -d . -ie '{"exclude": ["*.tmp"]}' --diff was --json
  dl-diff --only=new,modified --no-hidden --exact-globs --links=follow '--exclude=*.tmp' -- was work | dl-hash --missing=warn | dl-manifest --to=. --root-as=work | dl-show --output=json --root=work snapshot
  $ deadline -n attachment upload -m was -r work --s3-root-uri s3://b/p
  dl-manifest cat --among=work -- was | dl-upload --s3-root-uri=s3://b/p | dl-show --output=verbose attachment-upload
  $ rm -r was work
  $ deadline -x queue list 2>shown >listed && cat shown
  + dl-ls --format=yaml --fields=queueId,displayName queues
  $ eval "$(deadline -n queue list)" | cmp - listed && echo same
  same

A job goes in, runs, and its output comes back.

  $ export DEADLINE_CONFIG_FILE_PATH=$(cp "$DEADLINE_CONFIG_FILE_PATH" config && echo "$PWD/config")
  $ mkdir -p shot/in/sub && echo one >shot/in/a && echo two >'shot/in/sub/b c' && cat >shot/template.yaml <<'END'
  > specificationVersion: jobtemplate-2023-09
  > name: deadline test
  > parameterDefinitions:
  > - {name: In, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: in}
  > - {name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT, default: out}
  > - {name: Status, type: INT, default: 0}
  > steps:
  > - name: copy
  >   parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-2"}]}
  >   script:
  >     actions:
  >       onRun: {command: bash, args: ["-c", "echo copying {{Task.Param.N}}; cat '{{Param.In}}/a' '{{Param.In}}/sub/b c' >'{{Param.Out}}/{{Task.Param.N}}'; exit {{Param.Status}}"]}
  > END
  $ deadline bundle submit shot --max-worker-count 1 | sed 's/job-[0-9a-f]\{32\}/job-ID/'
  Submitting to Queue: Local queue
  
  Upload Summary:
      Processed 2 files totaling 8 B.
  Waiting for Job to be created...
  Submitted job bundle:
     */shot (glob)
  Created 1 step and 2 tasks.
  job-ID
  $ job=$(deadline config get defaults.job_id)
  $ deadline job wait | jq -c '[.jobName, .status, .failedTasks]'
  ["deadline test","SUCCEEDED",[]]
  $ deadline job get | grep -c "^jobId: $job\|^taskRunStatus: SUCCEEDED\|^estimatedTimeRemaining: N/A"
  3
  $ deadline job get 'no such job, surely'
  No jobs found matching "no such job, surely"
  $ deadline job list --page-size 1 | sed -n '1p;4p' | sed 's/of [0-9]*/of N/'
  Displaying 1 of N Jobs starting at 0
    jobId: job-[0-9a-f]{32} (re)
  $ deadline job logs | jq -r '.jobName, (.events[].message | select(startswith("copying")))' | sort
  copying 1
  copying 2
  deadline test
  $ deadline job logs --output verbose --timestamp-format relative | grep -c '^\[.*\] copying'
  2
  $ deadline job download-output --yes --output verbose | sed 's/of [0-9.]* seconds at .*/of T/'
  Downloading output from Job 'deadline test'
  
  Download Summary:
      Downloaded 2 files totaling 16 B.
      Total download time of T
      Download locations (total file counts):
          */shot (2 files) (glob)
  
  $ cat shot/out/1
  one
  two

A program answers where the roots go, and hears how it ends.

  $ echo "{\"messageType\":\"pathconfirm\",\"value\":[\"$PWD/other\"]}" | deadline job download-output | jq -r .messageType | uniq
  title
  presummary
  path
  progress
  summary
  $ cat other/out/2
  one
  two
  $ deadline job download-output </dev/null 2>/dev/null | tail -n 1
  {"messageType": "error", "value": "nobody confirms the paths: give --yes to accept them all"}

A failed job is status 2, a trouble is another.

  $ deadline bundle submit shot -p Status=3 --max-retries-per-task 0 >/dev/null
  $ deadline job wait >waited
  [2]
  $ jq -c '[.status, (.failedTasks | length), .failedTasks[0].stepName]' waited
  ["FAILED",2,"copy"]
  $ deadline job wait --job-id job-00000000000000000000000000000000 >waited
  [66]
  $ jq -c 'keys_unsorted' waited
  ["error","jobId","jobName"]
  $ deadline job requeue-tasks --yes --run-status canceled | tail -n 1
  No tasks to requeue.
  $ yes | deadline job requeue-tasks --run-status failed | tail -n 1
  Requeued a total of 2 tasks.
  $ echo n | deadline job cancel | tail -n 1
  Are you sure you want to cancel this job? [y/n]: Job not canceled.
  $ deadline job cancel --yes | tail -n 1
  Canceling job...

Bad input is one line and a status, and nothing is submitted.

  $ one_line() { "$@" 2>err >/dev/null; echo "$? $(wc -l <err)"; }
  $ one_line deadline bundle submit nowhere
  66 1
  $ mkdir bad && echo 'steps: [' >bad/template.yaml && one_line deadline bundle submit bad
  65 1
  $ one_line deadline bundle submit shot -p Nothing=1
  65 1
  $ echo x >elsewhere && mkdir far && sed "s,^- {name: Status.*,&\n- {name: F\, type: PATH\, dataFlow: IN\, objectType: FILE\, default: \"\"}," shot/template.yaml >far/template.yaml
  $ echo "assetReferences: {inputs: {filenames: [$PWD/elsewhere]}}" >far/asset_references.yaml && mkdir far/in && one_line deadline bundle submit far --yes
  77 1
  $ one_line deadline job frobnicate
  64 1
  $ one_line deadline job list --page-size many
  64 1
  $ AWS_ENDPOINT_URL_DEADLINE=http://127.0.0.1:9 AWS_MAX_ATTEMPTS=1 one_line deadline job list
  69 1
  $ deadline job >/dev/null 2>&1
  [64]

Settings.

  $ deadline config set defaults.job_id ''
  $ one_line deadline job wait
  64 1
  $ deadline config get no.such
  [64]
  $ deadline --redirect-output out config get defaults.aws_profile_name && grep -c . out
  1
