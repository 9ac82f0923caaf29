Without a file every setting has its default, and reading makes none.

  $ dl-config get settings.log_level
  WARNING
  $ dl-config get defaults.farm_id
  
  $ dl-config get settings.job_history_dir
  ~/.deadline/job_history/(default)
  $ ls -A
  $ dl-config show | python3 -c 'import json, sys; rows = json.load(sys.stdin); print(len(rows), rows["settings.config_file_path"])'
  29 /*/.deadline/config (glob)
  $ dl-config show --output=verbose | head -n 6
  AWS Deadline Cloud configuration file:
     /*/.deadline/config (glob)
  
  deadline-cloud-monitor.path:  (default)
     Program file of the Deadline Cloud monitor, which signs people in. The
     monitor sets it.

What is set is kept, for its owner only.

  $ dl-config set defaults.farm_id farm-1
  $ dl-config set defaults.queue_id queue-1
  $ dl-config set settings.auto_accept true
  $ cat ~/.deadline/config
  [profile-(default) defaults]
  farm_id = farm-1
  
  [profile-(default) farm-1 defaults]
  queue_id = queue-1
  
  [settings]
  auto_accept = true
  $ stat -c %a ~/.deadline/config
  600

A queue belongs to its farm: it goes with it, and comes back with it.

  $ dl-config set defaults.farm_id farm-2
  $ dl-config get defaults.queue_id
  
  $ dl-config set defaults.farm_id farm-1
  $ dl-config get defaults.queue_id
  queue-1

Comments and what others keep in the file stay; clear writes the default.

  $ printf '%s\n' '# mine' '[settings]' '; loud' 'log_level: DEBUG' '[other program]' 'key = 50%%' >~/.deadline/config
  $ dl-config clear settings.log_level
  $ dl-config set settings.https_proxy 'http://me:p%40ss@proxy:3128'
  $ cat ~/.deadline/config
  # mine
  [settings]
  ; loud
  log_level = WARNING
  https_proxy = http://me:p%%40ss@proxy:3128
  [other program]
  key = 50%%
  $ dl-config get settings.https_proxy
  http://me:p%40ss@proxy:3128
  $ dl-config set settings.https_proxy ''
  $ dl-config get settings.https_proxy
  

The file may be somewhere else.

  $ DEADLINE_CONFIG_FILE_PATH='~/elsewhere/config' dl-config set settings.locale de_DE
  $ cat elsewhere/config
  [settings]
  locale = de_DE

A name or a value that is none is refused, and nothing is written.

  $ dl-config get nothing 2>&1
  dl-config: 'nothing' is no setting name: it takes the form section.key
  [64]
  $ dl-config set settings.loglevel INFO 2>&1
  dl-config: there is no setting 'settings.loglevel': did you mean settings.log_level?
  [64]
  $ dl-config set settings.auto_accept maybe 2>&1
  dl-config: 'settings.auto_accept' takes true or false, not 'maybe'
  [65]
  $ dl-config set settings.conflict_resolution ask 2>&1
  dl-config: 'settings.conflict_resolution' takes one of NOT_SELECTED, SKIP, OVERWRITE, CREATE_COPY, not 'ask'
  [65]
  $ dl-config set -- settings.max_retries_per_task -1 2>&1
  dl-config: 'settings.max_retries_per_task' takes a whole number from 0 up, not '-1'
  [65]
  $ dl-config show --output=table 2>&1
  dl-config: --output takes one of verbose, json, not 'table'
  [64]

A file that is no settings file is named, with the line.

  $ printf '%s\n' '[settings]' 'log_level = INFO' 'log_level = DEBUG' >broken
  $ DEADLINE_CONFIG_FILE_PATH=broken dl-config show 2>&1
  dl-config: cannot read the settings in 'broken', line 3: 'log_level' stands in section 'settings' twice: correct or remove that line
  [78]
  $ DEADLINE_CONFIG_FILE_PATH=. dl-config get settings.log_level 2>&1
  dl-config: cannot read the settings in '.': Is a directory
  [78]
  $ dl-config get settings.log_level >/dev/full
  [74]
