needs: farm
A list of the farm's queues is a stream of resource records, and ends.

  $ dl-ls queues | jq -r '[.type, .resource // .tool, .name // (.ok | tostring)] | join(" ")'
  resource queue Local queue
  end dl-ls true

The singular is the one of the settings; an id gets that one. A fleet has no setting.

  $ dl-ls queue | head -n 1 | jq -r .data.displayName
  Local queue
  $ dl-ls --format yaml --fields displayName queue
  displayName: Local queue
  
  $ dl-ls --format yaml --fields displayName queues
  - displayName: Local queue
  
  $ fleet=$(dl-ls fleets | head -n 1 | jq -r .id)
  $ dl-ls --format json --fields displayName fleet "$fleet"
  {
    "displayName": "Local fleet"
  }
  $ dl-ls fleet 2>&1 >/dev/null
  dl-ls: which fleet? name its id, or 'fleets' to list
  [64]

A table is for people.

  $ dl-ls --format table farms
  farmId                                 displayName  createdAt
  farm-[0-9a-f]{32}  Local farm   \d{4}-\d\d-\d\d \d\d:\d\d:\d\d (re)

What is not there, and what is no kind:

  $ dl-ls job job-00000000000000000000000000000000 2>err
  {"type":"end","tool":"dl-ls","ok":false,"records":0,"status":66}
  [66]
  $ wc -l <err
  1
  $ dl-ls thing 2>&1 >/dev/null | cut -d: -f1,2
  dl-ls: there is no kind 'thing'
  $ dl-ls --search x queues >/dev/null
  [64]

Without credentials nothing is asked, and the status says so; without a server neither.

  $ lacking="AWS_CONFIG_FILE=none AWS_SHARED_CREDENTIALS_FILE=none DEADLINE_CONFIG_FILE_PATH=none"
  $ env -u AWS_PROFILE $lacking dl-ls farms >/dev/null 2>&1
  [77]
  $ AWS_ENDPOINT_URL_DEADLINE=http://127.0.0.1:9 AWS_MAX_ATTEMPTS=1 dl-ls queues >/dev/null 2>&1
  [69]
