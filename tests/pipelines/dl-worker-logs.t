needs: farm
A session's log goes to the stream that the farm named, each line once.

  $ export DEADLINE_WORKER_FARM_ID=$(dl-ls farms | jq -r 'select(.resource == "farm") | .id')
  $ export DEADLINE_WORKER_FLEET_ID=$(dl-ls fleets | jq -r 'select(.resource == "fleet") | .id' | head -n 1)
  $ dl-worker-enroll --dir w && mkdir -p w/sessions/session-1
  $ jq '{log}' w/enrolment.json >w/sessions/session-1/session.json
  $ now=$(date -u +%Y-%m-%dT%H:%M:%S.000Z)
  $ for text in one two ''; do echo '{"type":"log","timestamp":"'$now'","message":"'$text'"}'; done >w/sessions/session-1/log.jsonl
  $ dl-worker-logs --dir w --once
  $ cmp <(jq .offset w/sessions/session-1/log.offset) <(stat -c %s w/sessions/session-1/log.jsonl)

A batch that was on its way when the shipper was killed is sent again as it was, and the farm knows it.

  $ jq '{offset: 0, end: .offset, now_ms: 1}' w/sessions/session-1/log.offset >o && cp o w/sessions/session-1/log.offset
  $ echo '{"type":"log","timestamp":"'$now'","message":"three"}' >>w/sessions/session-1/log.jsonl
  $ dl-worker-logs --dir w --once
  $ python3 - <<END
  > import json, os
  > from libdeadline import aws, config
  > where = json.load(open("w/enrolment.json"))["log"]
  > logs = aws.Session(config.read()).client("logs")
  > names = {"logGroupName": where["group"], "logStreamName": where["stream"], "startFromHead": True}
  > for event in logs.call("GetLogEvents", names)["events"]:
  >     if not event["message"].startswith("{"):
  >         print(repr(event["message"]))
  > END
  'one'
  'two'
  ' '
  'three'
  $ dl-worker-enroll --dir w --stop
