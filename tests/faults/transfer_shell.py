"""Commands with a home of their own, pointed at a bucket that misbehaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fake_s3 import Bucket

COMMANDS = Path(sys.executable).parent


class Shell:
    """Commands with a home of their own and the bucket as their S3."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()

    def environment(self, bucket: Bucket) -> dict[str, str]:
        keys = bucket.keys[0]
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "DEADLINE_", "DL_", "XDG_"))
        }
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{COMMANDS}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_S3": bucket.endpoint,
            "AWS_ACCESS_KEY_ID": keys.access_key_id,
            "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
            "AWS_SESSION_TOKEN": keys.session_token or "",
            "AWS_REGION": "us-west-2",
            "AWS_ACCOUNT_ID": "123456789012",
        }

    def start(self, bucket: Bucket, *words: str, **options: Any) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        made: subprocess.Popen[str] = subprocess.Popen(
            words, env=self.environment(bucket), stdout=pipe, stderr=pipe, text=True, **options
        )
        return made

    def run(self, bucket: Bucket, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=self.environment(bucket), input=text, capture_output=True, text=True, timeout=60
        )
