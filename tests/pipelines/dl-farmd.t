The service takes a free port, tells it when requests are answered, and makes its keys, for their owner only.

  $ dl-farmd --dir farm --listen 127.0.0.1:0 2>log & farmd=$!
  $ until [ -e farm/run/farmd.port ]; do sleep 0.05; done
  $ stat -c '%a %n' farm farm/keys/* farm/farm.sqlite farm/logs.sqlite
  700 farm
  600 farm/keys/access.json
  600 farm/keys/master
  600 farm/farm.sqlite
  600 farm/logs.sqlite

Who does not sign gets nothing; who signs with the admin key gets everything.

  $ cat >ask.py <<'PY'
  > import boto3, json, sys, urllib.error, urllib.request
  > url = "http://127.0.0.1:" + open("farm/run/farmd.port").read().strip()
  > try:
  >     urllib.request.urlopen(url + "/2023-10-12/farms")
  > except urllib.error.HTTPError as error:
  >     print(error.code, error.headers["x-amzn-errortype"])
  > (key_id, key), = json.load(open("farm/keys/access.json")).items()
  > client = boto3.client("deadline", "us-west-2", endpoint_url=url, aws_access_key_id=key_id,
  >     aws_secret_access_key=key["secret"], config=boto3.session.Config(inject_host_prefix=False))
  > print(client.list_farms()["farms"])
  > client.create_farm(displayName="one")
  > print(client.list_farms()["farms"][0]["displayName"])
  > PY
  $ python3 ask.py
  403 MissingAuthenticationTokenException
  []
  one

A second one over the same folder would corrupt it, and does not start.

  $ dl-farmd --dir farm --listen 127.0.0.1:0 2>&1
  dl-farmd: another dl-farmd serves '/*/farm': stop it first (glob)
  [75]

Asked to stop it answers what is open, and ends well. What it acknowledged is there at the next start.

  $ kill $farmd; wait $farmd
  $ cat log
  dl-farmd: serving '/*/farm' on 127.0.0.1:* (glob)
  dl-farmd: stopped
  $ python3 -c 'import sqlite3; print(sqlite3.connect("farm/farm.sqlite").execute("SELECT display_name FROM farms").fetchall())'
  [('one',)]

It listens on loopback only, and says what is wrong with its usage.

  $ dl-farmd --dir farm --listen 0.0.0.0:8650 2>&1
  dl-farmd: dl-farmd listens on loopback only, not on '0.0.0.0'
  [77]
  $ dl-farmd --dir farm </dev/null 2>&1
  dl-farmd: standard input is no socket: give --listen, or run under supervisord
  [64]
  $ dl-farmd --dir farm --listen 8650 2>&1
  dl-farmd: --listen takes an address such as 127.0.0.1:8650, not '8650'
  [64]
