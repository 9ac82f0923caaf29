A farm in a folder of its own, with one worker.

  $ dl-farm env --dir=farm 2>&1 | sed "s|$PWD|.|"
  dl-farm: there is no farm in './farm': make one with 'dl-farm up'
  $ dl-farm up --dir=farm --workers=1
  {"type":"resource","resource":"farm","id":"farm-*","name":"Local farm","data":{"farmId":"farm-*"}} (glob)
  {"type":"resource","resource":"queue","id":"queue-*","name":"Local queue","data":{"farmId":"farm-*","queueId":"queue-*","jobAttachmentSettings":{"s3BucketName":"deadline-local","rootPrefix":"DeadlineCloud"}}} (glob)
  {"type":"resource","resource":"fleet","id":"fleet-*","name":"Local fleet","data":{"farmId":"farm-*","fleetId":"fleet-*"}} (glob)
  {"type":"end","tool":"dl-farm","ok":true,"records":3}

Once more changes nothing.

  $ cp farm/config.json before && dl-farm up --dir=farm >/dev/null && cmp before farm/config.json
  $ dl-farm status --dir=farm | grep -v '"process"'
  {"type":"resource","resource":"server","id":"dl-farmd","status":"RUNNING","data":{"url":"http://127.0.0.1:*"}} (glob)
  {"type":"resource","resource":"server","id":"dl-s3d","status":"RUNNING","data":{"url":"http://127.0.0.1:*"}} (glob)
  \{"type":"resource","resource":"worker","id":"worker-[0-9a-f]{32}","status":"(STARTED|IDLE)","data":\{.*\}\} (re)
  {"type":"resource","resource":"queue","id":"queue-*","name":"Local queue","data":{"farmId":"farm-*","jobs":{}}} (glob)
  {"type":"end","tool":"dl-farm","ok":true,"records":9}

The variables point any AWS program at it, here boto3, and can be taken away again.

  $ eval "$(dl-farm env --dir=farm)"
  $ python3 -c 'import boto3; print(*[f["displayName"] for f in boto3.client("deadline").list_farms()["farms"]])'
  Local farm
  $ python3 -c 'import boto3; print(*[b["Name"] for b in boto3.client("s3").list_buckets()["Buckets"]])'
  deadline-local
  $ python3 -c 'import boto3; print(boto3.client("sts").get_caller_identity()["Arn"])'
  arn:aws:iam::000000000000:user/admin
  $ eval "$(dl-farm env --dir=farm --undo)"; env | grep -c AWS_
  0
  [1]

As the default for all shells, and back to what was there.

  $ mkdir .aws && printf '[default]\nregion = eu-west-1\n' >.aws/config && cp .aws/config kept
  $ dl-farm use --dir=farm
  $ tail -n +4 .aws/config | head -n 5
  # dl-farm use: what follows, up to the line that says so, was added by it
  [profile dl-farm]
  region = us-west-2
  services = dl-farm
  disable_host_prefix_injection = true
  $ dl-config get defaults.aws_profile_name
  dl-farm
  $ AWS_PROFILE=dl-farm python3 -c 'import boto3; print(*[f["displayName"] for f in boto3.client("deadline").list_farms()["farms"]])'
  Local farm
  $ dl-farm use --undo --dir=farm
  $ cmp .aws/config kept; ls .aws; ls -A | grep -c deadline
  config
  0
  [1]
  $ dl-farm use --undo --dir=farm 2>&1
  dl-farm: warning: nothing to undo: this farm is not in use

A copy of it while it runs, and a farm of the copy; doctor finds nothing wrong with either.

  $ dl-farm backup --dir=farm copy.tar.gz
  {"type":"resource","resource":"copy","id":"*/copy.tar.gz","data":{"version":2,"made_at":"*Z","farm_id":"farm-*","databases":{"farm.sqlite":*,"logs.sqlite":*},"objects":0,"files":0,"bytes":0}} (glob)
  {"type":"end","tool":"dl-farm","ok":true,"records":1}
  $ dl-farm backup --dir=farm copy.tar.gz 2>&1 >out | sed "s|$PWD|.|"
  dl-farm: './copy.tar.gz' is there already: name another file or folder
  $ dl-farm restore --dir=second copy.tar.gz >out && cmp farm/config.json second/config.json
  $ dl-farm doctor --dir=second | grep -o '"status":"[A-Z]*"' | sort -u
  "status":"NOTE"
  "status":"OK"
  $ dl-farm doctor --dir=farm | jq -r 'select(.status != "OK" and .type == "resource") | .data.text'
  $ chmod 644 farm/keys/master; dl-farm doctor --dir=farm >out
  [1]
  $ jq -r 'select(.status == "WRONG") | .data.remedy' out | sed "s|$PWD/||" | tee remedy; sh remedy
  chmod 600 farm/keys/master
  $ dl-farm doctor --dir=farm >out

Down is down; nothing of it runs, and a second time is fine.

  $ dl-farm down --dir=farm && dl-farm down --dir=farm
  $ grep -lzx "DEADLINE_LOCAL_FARM=$PWD/farm" /proc/[0-9]*/environ 2>/dev/null | wc -l
  0
  $ dl-farm status --dir=farm | grep -o '"status":"[A-Z]*"'
  "status":"STOPPED"
  "status":"STOPPED"

Deleting asks, or wants to be told.

  $ dl-farm reset --dir=farm 2>&1 </dev/null | sed "s|$PWD|.|"
  dl-farm: this would delete './farm' with all its jobs: say so by --yes
  $ dl-farm reset --dir=farm --yes && ls -d farm 2>&1
  ls: cannot access 'farm': No such file or directory
  [2]
