needs: farm
A scheduler waits for the worker to be STARTED; told to stop, it sets the worker STOPPED.

  $ export DEADLINE_WORKER_FARM_ID=$(dl-ls farms | jq -r 'select(.resource == "farm") | .id')
  $ export DEADLINE_WORKER_FLEET_ID=$(dl-ls fleets | jq -r 'select(.resource == "fleet") | .id' | head -n 1)
  $ status() { dl-ls workers --fleet-id $DEADLINE_WORKER_FLEET_ID | jq -r --arg id "$(jq -r .worker_id w/worker.json)" 'select(.id == $id) | .status'; }
  $ dl-worker-schedule --dir w & dl-worker-enroll --dir w
  $ until [ "$(status)" = IDLE ]; do sleep 0.1; done; status
  IDLE
  $ dl-worker-schedule --dir w 2>&1
  dl-worker-schedule: another dl-worker-schedule works on '*/w' (glob)
  [75]
  $ kill %1; wait %1
  $ status; jq -r .status w/enrolment.json
  STOPPED
  STOPPED
