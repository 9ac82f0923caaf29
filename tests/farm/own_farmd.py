"""A dl-farmd of a test's own: a process on a free port over a folder, and clients of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from libdeadline import sigv4

ROLE = "arn:aws:iam::000000000000:role/farm"
CONFIGURATION = {
    "customerManaged": {
        "mode": "NO_SCALING",
        "workerCapabilities": {
            "vCpuCount": {"min": 1},
            "memoryMiB": {"min": 512},
            "osFamily": "LINUX",
            "cpuArchitectureType": "x86_64",
        },
    }
}

START_S = 20


class Farmd:
    """A running dl-farmd. Its port stays the same over restarts. `prelude` is Python that it runs first."""

    def __init__(self, folder: Path, check: bool = True, prelude: str = "") -> None:
        self.check, self.prelude = check, prelude
        self.dir = folder
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: dict[Any, Any] = {}
        self.log = folder.parent / f"{folder.name}.log"
        self.start()

    def start(self) -> None:
        port_file = self.dir / "run" / "farmd.port"
        port_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{self.prelude}\nfrom dl_tools.dl_farmd import main; raise SystemExit(main())",
                 "--dir", str(self.dir), "--listen", f"127.0.0.1:{self.port}"],
                env={**os.environ, "DL_FARM_CHECK": "1" if self.check else "0"},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )  # fmt: skip
        limit = time.monotonic() + START_S
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"dl-farmd did not start:\n{self.log.read_text()}")
            time.sleep(0.01)
        self.port = int(port_file.read_text())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def restart(self) -> None:
        self.kill()
        self.start()

    def admin(self) -> tuple[str, str]:
        """(access key id, secret) of the admin key."""
        keys = json.loads((self.dir / "keys" / "access.json").read_text())
        return next((key_id, entry["secret"]) for key_id, entry in keys.items() if entry["principal"] == "admin")

    def client(self, service: str = "deadline", credentials: dict[str, str] | None = None, **config: Any) -> Any:
        """A boto3 client: with the admin key, or with `credentials` as an Assume operation answers them.

        It checks no parameters itself, so that wrong ones reach the service, and retries nothing.
        """
        key = (service, json.dumps(credentials, default=str), json.dumps(config, default=str))
        if key not in self._clients:
            import boto3
            from botocore.config import Config

            if credentials is None:
                key_id, secret = self.admin()
                credentials = {"accessKeyId": key_id, "secretAccessKey": secret}
            session = boto3.Session(
                credentials["accessKeyId"],
                credentials["secretAccessKey"],
                credentials.get("sessionToken"),
                region_name=config.pop("region", "us-west-2"),
            )
            self._clients[key] = session.client(
                service,
                endpoint_url=self.url,
                config=Config(
                    inject_host_prefix=False, parameter_validation=False, retries={"total_max_attempts": 1}, **config
                ),
            )
        return self._clients[key]

    def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        key: tuple[str, str] | None = None,
        token: str | None = None,
        service: str = "deadline",
        region: str = "us-west-2",
        now: float | None = None,
        change: Callable[[dict[str, str]], None] = lambda headers: None,
    ) -> SimpleNamespace:
        """Sign and send a request by hand: (status, headers, body decoded from JSON if it is). `change` sees the
        signed headers before they are sent."""
        path, _, query = target.partition("?")
        key_id, secret = key or self.admin()
        query = "&".join(sorted(query.split("&")))
        signed = sigv4.sign(
            method, path, query, {"host": f"127.0.0.1:{self.port}", **(headers or {})}, sha256(body).hexdigest(),
            access_key_id=key_id, secret=secret, token=token, region=region, service=service, now=now,
        )  # fmt: skip
        change(signed)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target, body or None, signed)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = "json" in response.headers.get("content-type", "")
        return SimpleNamespace(
            status=response.status,
            headers=response.headers,
            body=json.loads(content) if is_json else content,
            error=response.headers.get("x-amzn-errortype"),
        )
