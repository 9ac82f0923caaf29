A store of one's own. The server tells its URL when it listens, and its key is in the folder.

  $ dl-s3d --dir=store --listen=127.0.0.1:0 >ready 2>err &
  $ until [ -s ready ]; do sleep 0.05; done; cat ready
  {"type":"resource","resource":"server","id":"dl-s3d","data":{"url":"http://127.0.0.1:*"}} (glob)
  $ ls -l store/keys | sed -n 's/^\(-[-rwx]*\).* /\1 /p'
  -rw------- access.json
  -rw------- master
  $ export AWS_ENDPOINT_URL_S3=$(python3 -c 'import json; print(json.load(open("ready"))["data"]["url"])')
  $ export AWS_ACCESS_KEY_ID=$(python3 -c 'import json; print(*json.load(open("store/keys/access.json")))')
  $ export AWS_SECRET_ACCESS_KEY=$(python3 -c 'import json; print(*[k["secret"] for k in json.load(open("store/keys/access.json")).values()])')
  $ export AWS_DEFAULT_REGION=us-west-2

Any client of S3 will do.

  $ cat >s3.py <<END
  > import boto3, sys
  > from botocore.exceptions import ClientError
  > s3 = boto3.client("s3")
  > try:
  >     exec(sys.argv[1])
  > except ClientError as error:
  >     sys.exit(error.response["Error"]["Code"] + ": " + error.response["Error"]["Message"])
  > END
  $ python3 s3.py 's3.create_bucket(Bucket="frames")'
  $ python3 s3.py 's3.put_object(Bucket="frames", Key="a/b", Body=b"hello", Metadata={"asset-root": "/proj"})'
  $ python3 s3.py 'got = s3.get_object(Bucket="frames", Key="a/b"); print(got["Body"].read(), got["Metadata"])'
  b'hello' {'asset-root': '/proj'}
  $ python3 s3.py 'print([each["Prefix"] for each in s3.list_objects_v2(Bucket="frames", Delimiter="/")["CommonPrefixes"]])'
  ['a/']

What a key says of its content must be so.

  $ python3 s3.py 's3.put_object(Bucket="frames", Key="Data/b5e9c1ad071b3e7fc779cfaa5e523818.xxh128", Body=b"hello")'
  $ python3 s3.py 's3.put_object(Bucket="frames", Key="Data/b5e9c1ad071b3e7fc779cfaa5e523818.xxh128", Body=b"HELLO")' 2>&1
  BadDigest: The content's XXH3-128 is not the one that the key names.
  [1]

Nobody else is let in.

  $ AWS_SECRET_ACCESS_KEY=wrong python3 s3.py 's3.list_buckets()' 2>&1 | cut -d: -f1
  SignatureDoesNotMatch

One server a folder; told to stop, it stops, and what was stored stays.

  $ dl-s3d --dir=store --listen=127.0.0.1:0
  [75]
  $ kill $! && wait $!
  $ cat err
  $ dl-s3d --dir=store --listen=${AWS_ENDPOINT_URL_S3#http://} >ready 2>err &
  $ until [ -s ready ]; do sleep 0.05; done
  $ python3 s3.py 'print(s3.get_object(Bucket="frames", Key="a/b")["Body"].read())'
  b'hello'
  $ kill $! && wait $!

Where it does not listen.

  $ dl-s3d --dir=store --listen=0.0.0.0:0 2>&1
  dl-s3d: '0.0.0.0:0' can be reached by other machines: give a loopback address, or --beyond-loopback
  [64]
  $ dl-s3d --dir=store 2>&1
  dl-s3d: standard input is no listening socket: give --listen=127.0.0.1:0, say
  [64]
