"""The queue role's credentials as a session's processes find them: an AWS profile of its own, in a folder per queue.

Source: spec worker 4.1, 4.2, 1.4.
"""

from __future__ import annotations

import os
import shlex
import shutil
from time import monotonic, sleep
from typing import Any

from libdeadline import statuses
from libdeadline.errors import Trouble

from . import service
from .folder import Folder, read_json, try_lock, write_bytes, write_json
from .service import Farm, Wait

INCONSISTENT_S = 10.0  # how long a queue may seem to be in the wrong state after a change of it


class QueueGone(Trouble):
    """The queue isn't there any more: its sessions can't run."""


def folder_of(folder: Folder, queue_id: str) -> str:
    return folder.file("queues", queue_id)


def profile(folder: Folder, queue_id: str) -> dict[str, str]:
    """The variables that point a process at the queue's credentials."""
    place = folder_of(folder, queue_id)
    return {
        "AWS_PROFILE": f"deadline-{queue_id}",
        "AWS_CONFIG_FILE": os.path.join(place, "config"),
        "AWS_SHARED_CREDENTIALS_FILE": os.path.join(place, "credentials"),
    }


def install(farm: Farm, queue_id: str, group: int | None, wait: Wait = sleep) -> dict[str, str] | None:
    """Have fresh credentials of a queue's role in its folder; the variables that lead there, or None if it has none.

    `group` is the group of the job's user, when that isn't the agent's own.
    Raises: QueueGone; Trouble where the farm refuses them.
    """
    place = folder_of(farm.folder, queue_id)
    os.makedirs(place, mode=0o700, exist_ok=True)
    lock = _locked(os.path.join(place, "lock"))
    try:
        if (service.expiry(os.path.join(place, "aws_credentials.json")) or 0) < _soon():
            given = _assume(farm, queue_id, wait)
            if given is None:
                shutil.rmtree(place, ignore_errors=True)
                return None
            _write(farm, queue_id, place, given, group)
    finally:
        os.close(lock)
    return profile(farm.folder, queue_id)


def refresh(farm: Farm, queue_id: str, wait: Wait = sleep) -> float | None:
    """Renew a queue's credentials; when they expire, or None if the queue has none any more.

    Raises: QueueGone; Trouble where the farm refuses them.
    """
    place = folder_of(farm.folder, queue_id)
    about = read_json(os.path.join(place, "role.json")) or {}
    lock = _locked(os.path.join(place, "lock"))
    try:
        given = _assume(farm, queue_id, wait)
        if given is None:
            return None
        return _write(farm, queue_id, place, given, about.get("group"))
    finally:
        os.close(lock)


def remove(folder: Folder, queue_id: str) -> None:
    """Forget a queue's credentials: no session of it is left."""
    shutil.rmtree(folder_of(folder, queue_id), ignore_errors=True)


def _soon() -> float:
    from time import time

    return time() + 15 * 60


def _locked(path: str) -> int:
    until = monotonic() + 60
    while (lock := try_lock(path)) is None:
        if monotonic() > until:
            raise Trouble(f"'{path}' has been locked for a minute", statuses.TRY_AGAIN)
        sleep(0.05)
    return lock


def _assume(farm: Farm, queue_id: str, wait: Wait) -> dict[str, Any] | None:
    until = monotonic() + INCONSISTENT_S

    def again(trouble: Trouble) -> bool:
        if service.conflict(trouble, queue_id) is not None:
            return monotonic() < until
        return service.is_passing(trouble)

    try:
        answer = service.persist(lambda: farm.call("AssumeQueueRoleForWorker", queueId=queue_id), wait, again)
    except Trouble as trouble:
        if service.is_missing(trouble):
            raise QueueGone(f"the queue '{queue_id}' is gone: {trouble.message}", trouble.status) from None
        raise
    given = answer.get("credentials")
    return given if given and given.get("accessKeyId") else None


def _write(farm: Farm, queue_id: str, place: str, given: dict[str, Any], group: int | None) -> float:
    shared = group is not None
    script = os.path.join(place, "get_aws_credentials.sh")
    keys = os.path.join(place, "aws_credentials.json")
    os.chmod(place, 0o750 if shared else 0o700)
    if group is not None:
        os.chown(place, -1, group)
    mode = 0o640 if shared else 0o600
    name = f"deadline-{queue_id}"
    expires = service.write_credentials(keys, given, mode, group)
    write_bytes(script, f"#!/bin/bash\nset -eu\ncat {shlex.quote(keys)}\n".encode(), 0o750 if shared else 0o700, group)
    command = f"credential_process = {shlex.quote(script)}\n"
    write_bytes(
        os.path.join(place, "config"),
        f"[profile {name}]\n{command}region = {farm.region}\n".encode(),
        mode,
        group,
    )
    write_bytes(os.path.join(place, "credentials"), f"[{name}]\n{command}".encode(), mode, group)
    write_json(os.path.join(place, "role.json"), {"queue_id": queue_id, "group": group})
    farm.folder.tell_log("AWSCreds", "Refresh", "queue role", resource=queue_id, expiry=str(given["expiration"]))
    return expires
