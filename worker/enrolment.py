"""Becoming a worker of the fleet, and ceasing to be one: identity, fleet role, STARTED, STOPPED.

Source: spec worker 1.3, 1.4, 1.9.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from time import sleep, time
from typing import Any

from libdeadline.errors import Trouble

from . import host, host_configuration, service
from .folder import Folder, now_text
from .service import Farm, Wait
from .settings import Settings
from .supervision import supervisor

Tell = Callable[[Trouble], None]
STOPPED_S = 5.0  # how long a failed start tries to take itself back


def enrol(folder: Folder, settings: Settings, wait: Wait = sleep, tell: Tell | None = None) -> dict[str, Any]:
    """Be STARTED: as the worker of worker.json if the farm still knows it, else as a new one. What was written down.

    `tell` hears of the first failure of each call that is repeated.
    Raises: Trouble where asking again doesn't help; nothing but identity and credentials is left behind then.
    """
    properties = host.properties()
    while True:
        worker_id, is_new = _identity(folder, settings, properties, wait, tell)
        farm = Farm(folder, settings, worker_id)
        try:
            if (service.expiry(service.credentials_path(folder, worker_id)) or 0) < time() + 60:
                assume_fleet_role(farm, wait, tell=tell)
            answer = _start(farm, properties, wait, tell)
        except Trouble as trouble:
            if is_new or not service.is_missing(trouble):
                raise
            folder.tell_log("Worker", "Load", f"the farm doesn't know {worker_id} any more", worker_id=worker_id)
            folder.write_worker()
            continue
        try:
            host_configuration.run(farm, answer.get("hostConfiguration"))
        except BaseException:
            set_status(farm, "STOPPED", STOPPED_S)
            raise
        return _noted(folder, farm, answer)


def _identity(
    folder: Folder, settings: Settings, properties: dict[str, Any], wait: Wait, tell: Tell | None
) -> tuple[str, bool]:
    """The worker's id, and whether it was made just now."""
    known = folder.worker()
    instance_id = host.Metadata().instance_id()
    worker_id = known.get("worker_id")
    if worker_id and instance_id and known.get("instance_id") not in (None, instance_id):
        folder.tell_log("Worker", "Load", f"{worker_id} is of another instance: this host is a copy", level="WARNING")
        worker_id = None
    if worker_id:
        if instance_id and not known.get("instance_id"):
            folder.write_worker(**known, instance_id=instance_id)
        return str(worker_id), False
    client = service.base_session(settings).client("deadline", attempts=1, timeout_s=service.CALL_S)
    # One token for all attempts: an answer that got lost must not leave a second worker behind.
    request = {
        "farmId": settings.farm_id,
        "fleetId": settings.fleet_id,
        "hostProperties": properties,
        "clientToken": str(uuid.uuid4()),
    }

    def again(trouble: Trouble) -> bool:
        creating = service.conflict(trouble, settings.fleet_id) == "CREATE_IN_PROGRESS"
        return creating or (service.reason(trouble) is None and service.is_passing(trouble))

    worker_id = service.persist(lambda: client.call("CreateWorker", request), wait, again, tell)["workerId"]
    folder.write_worker(worker_id=worker_id, instance_id=instance_id)
    folder.tell_log("Worker", "Create", "created", worker_id=worker_id, **_ids(settings))
    return str(worker_id), True


def assume_fleet_role(farm: Farm, wait: Wait, *, own: bool = False, tell: Tell | None = None) -> float:
    """Fetch the fleet role's credentials and put them into their file; when they expire, in seconds since the epoch.

    `own`: ask with those that the worker has (a refresh), instead of the bootstrap ones.
    """
    ask = (
        (lambda: farm.call("AssumeFleetRoleForWorker"))
        if own
        else (lambda: farm.bootstrap().call("AssumeFleetRoleForWorker", farm.ids))
    )
    answer = service.persist(ask, wait, tell=tell)
    expires = service.write_credentials(service.credentials_path(farm.folder, farm.worker_id), answer["credentials"])
    farm.folder.tell_log(
        "AWSCreds", "Refresh", "fleet role", resource=farm.worker_id, expiry=str(answer["credentials"]["expiration"])
    )
    return expires


def _start(farm: Farm, properties: dict[str, Any], wait: Wait, tell: Tell | None) -> dict[str, Any]:
    capabilities = host.capabilities(farm.settings)
    attempt = renewed = 0
    while True:
        try:
            return farm.call("UpdateWorker", status="STARTED", capabilities=capabilities, hostProperties=properties)
        except Trouble as trouble:
            status = service.conflict(trouble, farm.worker_id)
            if status in ("STOPPING", "NOT_COMPATIBLE"):
                service.persist(
                    lambda: farm.call(
                        "UpdateWorker", status="STOPPED", capabilities=capabilities, hostProperties=properties
                    ),
                    wait,
                )
                wait(service.backoff_s(attempt))
                attempt += 1
                continue
            if service.is_expired(trouble) and not renewed:
                renewed = 1  # what the file held is of another life of this farm
                assume_fleet_role(farm, wait)
                continue
            if status != "ASSOCIATED" and not service.is_passing(trouble):
                raise
            if tell and attempt == 0:
                tell(trouble)
            wait(service.backoff_s(attempt, service.retry_after_s(trouble)))
            attempt += 1


def _noted(folder: Folder, farm: Farm, answer: dict[str, Any]) -> dict[str, Any]:
    log = answer.get("log") or {}
    options = log.get("options") or {}
    where = None
    if log.get("logDriver") == "awslogs" and {"logGroupName", "logStreamName"} <= options.keys():
        where = {"group": options["logGroupName"], "stream": options["logStreamName"]}
    if log.get("error"):
        folder.tell_log("Worker", "Status", f"the worker's log: {log['error']}", level="WARNING")
    fields = {
        "worker_id": farm.worker_id,
        "status": "STARTED",
        "enrolment": uuid.uuid4().hex,
        "started_at": now_text(),
        "supervisor": supervisor(),
        "log": where,
    }
    folder.write_enrolment(**fields)
    folder.tell_log("Worker", "Status", "STARTED", worker_id=farm.worker_id, **_ids(farm.settings))
    return fields


def is_current(enrolment: dict[str, Any] | None) -> bool:
    """Whether an enrolment is of this life of the worker: STARTED, and by the supervisor that keeps us."""
    return enrolment is not None and enrolment["status"] == "STARTED" and enrolment["supervisor"] == supervisor()


def note_stopped(folder: Folder, status: str = "STOPPED") -> None:
    """Write down that the worker isn't STARTED any more."""
    enrolment = folder.enrolment()
    if enrolment:
        folder.write_enrolment(**{**enrolment, "status": status})


def set_status(farm: Farm, status: str, deadline_s: float, wait: Wait = sleep) -> bool:
    """Tell the farm STOPPING or STOPPED, retrying for `deadline_s` at most; whether it knows."""
    until = time() + deadline_s

    def again(trouble: Trouble) -> bool:
        return service.is_passing(trouble) and time() < until

    with suppress(Trouble):
        service.persist(
            lambda: farm.call("UpdateWorker", status=status, timeout_s=max(1.0, min(5.0, deadline_s))),
            lambda delay: wait(min(delay, max(0.0, until - time()))),
            again,
        )
        farm.folder.tell_log("Worker", "Status", status, worker_id=farm.worker_id, **_ids(farm.settings))
        return True
    return False


def _ids(settings: Settings) -> dict[str, str]:
    return {"farm_id": settings.farm_id, "fleet_id": settings.fleet_id}
