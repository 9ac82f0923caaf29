Host metrics go to the worker's log at every interval, until it is told to stop.

  $ export DEADLINE_WORKER_FARM_ID=farm-00000000000000000000000000000000 DEADLINE_WORKER_FLEET_ID=fleet-00000000000000000000000000000000
  $ DEADLINE_WORKER_HOST_METRICS_LOGGING_INTERVAL_SECONDS=0.2 dl-worker-watch --dir w &
  $ until [ "$(grep -c Metrics w/log/worker.jsonl 2>/dev/null)" = 2 ]; do sleep 0.1; done; kill %1; wait %1
  $ head -n 1 w/log/worker.jsonl | jq -r '.message | fromjson | .type, .subtype, has("cpu-usage-percent"), has("memory-used-bytes")'
  Metrics
  System
  true
  true
  $ DEADLINE_WORKER_HOST_METRICS_LOGGING_INTERVAL_SECONDS=0 dl-worker-watch --dir w 2>&1
  dl-worker-watch: configuration: host_metrics_logging_interval_seconds takes seconds above 0, not '0'
  [78]
