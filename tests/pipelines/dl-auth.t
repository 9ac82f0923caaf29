No service answers, so nobody is signed in, and the reason is told. No credential is ever printed.

  $ export AWS_ENDPOINT_URL=http://127.0.0.1:9 AWS_DEFAULT_REGION=us-west-2 AWS_MAX_ATTEMPTS=1
  $ AWS_ACCESS_KEY_ID=AKIAEXAMPLE AWS_SECRET_ACCESS_KEY=geheim dl-auth status
  {"profile_name": "(default)", "source": "HOST_PROVIDED", "status": "CONFIGURATION_ERROR", "api_availability": false, "reason": "cannot reach 'http://127.0.0.1:9' for ListFarms: connection refused: is the farm on this machine up?"}
  $ dl-auth status --output=verbose
      Profile Name: (default)
            Source: HOST_PROVIDED
            Status: CONFIGURATION_ERROR
  API Availability: False
            Reason: there are no AWS credentials in the environment or in the AWS files: sign in, or name another profile
  $ dl-auth status --profile=gone | cut -d, -f2-4
   "source": "NOT_VALID", "status": "CONFIGURATION_ERROR", "api_availability": false
  $ dl-auth login 2>&1
  dl-auth: there is nothing to sign in to with the profile '(default)': only profiles of the Deadline Cloud monitor and of AWS console sign-in are signed in and out here
  [78]

A profile of the monitor: its section tells, and login starts the monitor.

  $ mkdir .aws
  $ cat >.aws/config <<EOF
  > [profile mine]
  > region = us-west-2
  > monitor_id = monitor-1
  > user_id = user-1
  > credential_process = cat $PWD/keys.json
  > EOF
  $ dl-auth status --profile=mine | cut -d, -f2-4
   "source": "DEADLINE_CLOUD_MONITOR_LOGIN", "status": "NEEDS_LOGIN", "api_availability": false
  $ dl-auth login --profile=mine 2>&1
  dl-auth: the settings do not say where the Deadline Cloud monitor is: start the monitor once, or set 'deadline-cloud-monitor.path' with dl-config
  [78]
  $ dl-config set deadline-cloud-monitor.path '~/monitor'
  $ dl-auth logout --profile=mine 2>&1
  dl-auth: cannot start the Deadline Cloud monitor '/*/monitor': No such file or directory: correct the setting 'deadline-cloud-monitor.path' (glob)
  [78]

A monitor that fails is reported with what it said, and logout passes on what it says.

  $ printf '%s\n' '#!/bin/sh' 'echo "$@ refused"' '[ "$1" = logout ]' >monitor && chmod +x monitor
  $ dl-auth login --profile=mine 2>err
  Logging into AWS Profile 'mine' for AWS Deadline Cloud
  The Deadline Cloud monitor opens now: sign in there, then come back.
  [77]
  $ cat err
  dl-auth: Deadline Cloud monitor was not able to log into the mine profile: login --profile mine refused
  $ dl-auth logout --profile=mine
  logout --profile mine refused

One in which nobody signs in is waited for as long as asked, then ended.

  $ printf '%s\n' '#!/bin/sh' 'echo $$ >monitor.pid' 'exec sleep 300' >monitor
  $ dl-auth login --profile=mine --timeout=0.1 2>&1 >/dev/null
  dl-auth: nobody signed in to the profile 'mine' within 0.1 s
  [75]
  $ kill -0 $(cat monitor.pid) 2>/dev/null || echo ended
  ended

Console sign-in: logout deletes the token of the session, even where the monitor is gone.

  $ rm monitor

  $ printf '%s\n' '[profile console]' 'login_session = arn:aws:iam::1:user/me' >>.aws/config
  $ mkdir -p .aws/login/cache && token=.aws/login/cache/$(printf arn:aws:iam::1:user/me | sha256sum | cut -d' ' -f1).json && touch $token
  $ dl-auth logout --profile=console
  Successfully logged out of AWS Console sign-in profile: console
  $ ls .aws/login/cache
