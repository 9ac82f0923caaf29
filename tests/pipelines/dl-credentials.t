needs: farm
The role of the default queue, as a record, for credential_process, and for a shell.

  $ dl-credentials | head -n 1 | jq -c '[.type, (.access_key_id | startswith("ASIA")), (.expiration | endswith("Z"))]'
  ["credentials",true,true]
  $ dl-credentials --format process | jq -c 'keys_unsorted'
  ["Version","AccessKeyId","SecretAccessKey","SessionToken","Expiration"]
  $ deadline queue export-credentials | jq .Version
  1

They work, and are not the person's own: the role of a queue makes no farm.

  $ (eval "$(dl-credentials --format export)"; env -u AWS_PROFILE DEADLINE_CONFIG_FILE_PATH=none python3 -c '
  > import boto3; print(boto3.client("sts").get_caller_identity()["Arn"])')
  arn:aws:sts::*:assumed-role/* (glob)

  $ dl-credentials --mode own >/dev/null 2>&1
  [64]
  $ dl-credentials --queue-id queue-00000000000000000000000000000000 >/dev/null 2>&1
  [66]
