"""The fleet's script that makes a host ready, run once as root before the worker takes work.

Source: spec worker 5.6.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from threading import Timer
from typing import Any

from libdeadline import statuses
from libdeadline.errors import Trouble

from .folder import read_json, write_bytes
from .service import Farm, credentials_path

TIMEOUT_S = 300


def run(farm: Farm, configuration: dict[str, Any] | None) -> None:
    """Run the script of a host configuration, unless there is none or it has succeeded on this host already.

    What it prints goes to the worker's log. The fleet role's credentials reach it by its environment only.
    Raises: Trouble (78) if it fails or takes too long; the host may be half configured then.
    """
    folder = farm.folder
    known = folder.worker()
    body = (configuration or {}).get("scriptBody")
    if not body:
        return
    if known.get("host_configuration_succeeded"):
        _tell(farm, "the host configuration succeeded before", status="Skipped")
        return
    assert configuration is not None
    limit_s = int(configuration.get("scriptTimeoutSeconds") or TIMEOUT_S)
    keys = read_json(credentials_path(folder, farm.worker_id)) or {}
    variables = {
        "DEADLINE_FARM_ID": farm.settings.farm_id,
        "DEADLINE_FLEET_ID": farm.settings.fleet_id,
        "DEADLINE_WORKER_ID": farm.worker_id,
        "HOST_CONFIG_TIMEOUT_SECONDS": str(limit_s),
        "AWS_ACCESS_KEY_ID": keys.get("AccessKeyId", ""),
        "AWS_SECRET_ACCESS_KEY": keys.get("SecretAccessKey", ""),
        "AWS_SESSION_TOKEN": keys.get("SessionToken", ""),
    }
    path = folder.file("host_configuration.sh")
    write_bytes(path, body.encode(), 0o700)
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n", f"--preserve-env={','.join(variables)}"]
    _tell(farm, "running the host configuration", status="Running")
    try:
        status = _run(farm, [*as_root, path], {**os.environ, **variables}, limit_s)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if status != 0:
        _tell(farm, "the host configuration failed", status="Failed", exit_code=status, success=False)
        raise Trouble(f"the fleet's host configuration ended with status {status}", statuses.CONFIGURATION)
    folder.write_worker(**known, host_configuration_succeeded=True)
    _tell(farm, "the host configuration succeeded", status="Succeeded", exit_code=0, success=True)


def _run(farm: Farm, command: list[str], environment: dict[str, str], limit_s: int) -> int:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=farm.folder.path,
            start_new_session=True,
        )
    except OSError as error:
        raise Trouble(f"cannot run the host configuration: {error.strerror}", statuses.CONFIGURATION) from None
    timer = Timer(limit_s, _end, (process.pid,))
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            _tell(farm, line.decode("utf-8", "replace").rstrip("\n"))
        return process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            _end(process.pid)


def _end(pid: int) -> None:
    import signal

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _tell(farm: Farm, message: str, **fields: Any) -> None:
    ids = {"farm_id": farm.settings.farm_id, "fleet_id": farm.settings.fleet_id, "worker_id": farm.worker_id}
    farm.folder.tell_log("Worker", "HostConfiguration", message, **ids, **fields)
