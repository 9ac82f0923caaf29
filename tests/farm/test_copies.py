"""CopyJobTemplate writes to the S3 side: a dl-s3d over the same folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

TEMPLATE = """\
specificationVersion: jobtemplate-2023-09
name: ünïcode
steps:
- name: one
  script: {actions: {onRun: {command: "true"}}}
"""


def test_a_template_becomes_an_object(tmp_path: Path, start_farmd: Any) -> None:
    from libdeadline.minted import KeyRing

    folder = tmp_path / "farm"
    KeyRing.create(folder / "keys")
    words = [Path(sys.executable).parent / "dl-s3d", "--dir", folder, "--listen", "127.0.0.1:0"]
    s3d = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        assert s3d.stdout is not None
        url = json.loads(s3d.stdout.readline())["data"]["url"]
        (folder / "config.json").write_text(json.dumps({"ports": {"s3d": int(url.rpartition(":")[2])}}))
        server = start_farmd(folder)
        client = server.client()
        key_id, secret = server.admin()
        import boto3

        s3 = boto3.client("s3", "us-west-2", endpoint_url=url, aws_access_key_id=key_id, aws_secret_access_key=secret)
        s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        farm = client.create_farm(displayName="f")["farmId"]
        queue = client.create_queue(farmId=farm, displayName="q", jobRunAsUser={"runAs": "WORKER_AGENT_USER"})[
            "queueId"
        ]
        job = client.create_job(farmId=farm, queueId=queue, template=TEMPLATE, templateType="YAML", priority=1)["jobId"]
        ids = {"farmId": farm, "queueId": queue, "jobId": job}
        copied = client.copy_job_template(**ids, targetS3Location={"bucketName": "bucket", "key": "a b/ü.yaml"})
        assert copied["templateType"] == "YAML"
        assert s3.get_object(Bucket="bucket", Key="a b/ü.yaml")["Body"].read().decode() == TEMPLATE
        with pytest.raises(ClientError, match="NoSuchBucket") as caught:
            client.copy_job_template(**ids, targetS3Location={"bucketName": "no-such-bucket", "key": "k"})
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        missing = {**ids, "jobId": f"job-{'0' * 32}", "targetS3Location": {"bucketName": "bucket", "key": "k"}}
        with pytest.raises(ClientError) as caught:
            client.copy_job_template(**missing)
        assert caught.value.response["resourceId"] == missing["jobId"]
        s3d.kill()
        s3d.wait()
        with pytest.raises(ClientError) as caught:
            client.copy_job_template(**ids, targetS3Location={"bucketName": "bucket", "key": "k"})
        assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    finally:
        s3d.kill()
        s3d.wait()
