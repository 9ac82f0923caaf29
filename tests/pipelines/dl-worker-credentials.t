needs: farm
Credentials that are missing or soon to expire are renewed, whole, for the agent alone.

  $ export DEADLINE_WORKER_FARM_ID=$(dl-ls farms | jq -r 'select(.resource == "farm") | .id')
  $ export DEADLINE_WORKER_FLEET_ID=$(dl-ls fleets | jq -r 'select(.resource == "fleet") | .id' | head -n 1)
  $ dl-worker-enroll --dir w && keys=$(echo w/credentials/worker-*.json)
  $ cp $keys before && dl-worker-credentials --dir w --once && cmp before $keys && echo still good
  still good
  $ jq '.Expiration = "2020-01-01T00:00:00Z"' before >$keys
  $ dl-worker-credentials --dir w --once && jq -r .Expiration $keys | grep -c 2020
  0
  [1]
  $ stat -c %a $keys
  600
  $ rm $keys; dl-worker-credentials --dir w --once && jq .Version $keys
  1

Two don't work on the same folder.

  $ flock w/run/credentials.lock dl-worker-credentials --dir w --once 2>&1
  dl-worker-credentials: another dl-worker-credentials works on '*/w' (glob)
  [75]
  $ dl-worker-enroll --dir w --stop
