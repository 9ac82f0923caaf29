needs: farm
A worker joins the fleet of the farm.

  $ export DEADLINE_WORKER_FARM_ID=$(dl-ls farms | jq -r 'select(.resource == "farm") | .id')
  $ export DEADLINE_WORKER_FLEET_ID=$(dl-ls fleets | jq -r 'select(.resource == "fleet") | .id' | head -n 1)
  $ dl-worker-enroll --dir w --log-level info 2>&1
  dl-worker-enroll: worker-[0-9a-f]{32} is STARTED (re)
  $ id=$(jq -r .worker_id w/worker.json)
  $ jq -r '.status, (.log | keys[])' w/enrolment.json
  STARTED
  group
  stream
  $ stat -c '%a %n' w/credentials w/worker.json w/credentials/$id.json | sed "s/$id/ID/"
  700 w/credentials
  600 w/worker.json
  600 w/credentials/ID.json
  $ jq -r 'keys[]' w/credentials/$id.json
  AccessKeyId
  Expiration
  SecretAccessKey
  SessionToken
  Version

Again, it is the same worker. If the farm doesn't know it any more, it is a new one.

  $ dl-worker-enroll --dir w && jq -r .worker_id w/worker.json | sed "s/$id/the same/"
  the same
  $ dl-worker-enroll --dir w --stop
  $ jq -r .status w/enrolment.json
  STOPPED
  $ echo '{"worker_id":"worker-00000000000000000000000000000000"}' >w/worker.json
  $ dl-worker-enroll --dir w && jq -r .worker_id w/worker.json | grep -c 'worker-0000000000000000000000000000000'
  0
  [1]
  $ dl-worker-enroll --dir w --stop

A farm that can't be reached is waited for.

  $ AWS_ENDPOINT_URL_DEADLINE=http://127.0.0.1:9 timeout --preserve-status 2 dl-worker-enroll --dir z 2>&1
  dl-worker-enroll: warning: cannot reach 'http://127.0.0.1:9' for CreateWorker: .*; asking again until it can (re)
  dl-worker-enroll: stopped by signal 15
  [143]

What is missing or wrong is one line.

  $ DEADLINE_WORKER_FLEET_ID=fleet-1 dl-worker-enroll --dir w 2>&1
  dl-worker-enroll: configuration: fleet_id is not an id: 'fleet-1'
  [78]
  $ env -u DEADLINE_WORKER_FARM_ID dl-worker-enroll --dir w 2>&1
  dl-worker-enroll: configuration: farm_id is missing: set it in the environment or in worker.toml
  [78]
  $ DEADLINE_WORKER_FLEET_ID=fleet-00000000000000000000000000000000 dl-worker-enroll --dir x 2>&1
  dl-worker-enroll: CreateWorker failed: ResourceNotFoundException: .* (re)
  [66]
  $ dl-worker-enroll --dir y --stop 2>&1
  dl-worker-enroll: there is no worker in '*/y' (glob)
  [66]
