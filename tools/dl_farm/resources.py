"""What the farm holds from the start, made through its own API: farm, queue, fleet, their association, a bucket."""

from __future__ import annotations

import os
import platform
import sys
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from libdeadline import statuses
from libdeadline.errors import Trouble

from . import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from libdeadline import aws

    from .layout import Folder

FARM_NAME = "Local farm"
QUEUE_NAME = "Local queue"
FLEET_NAME = "Local fleet"
BUCKET = "deadline-local"
ROOT_PREFIX = "DeadlineCloud"
MOST_WORKERS = 100
READY_S = 30.0  # for the servers to answer
FAILING_S = 4.0  # after which a server that was started again and again is given up
ENROL_S = 60.0  # for workers to be at work
PROBE_S = 1.5  # for one answer: the socket is open also while no server runs
POLL_S = 0.1
ONLINE = ("STARTED", "IDLE", "RUNNING")


def session(folder: Folder) -> aws.Session:
    """A session of the farm's owner: what the shell's variables say otherwise has no part in it."""
    from libdeadline import aws, config

    for name in [name for name in os.environ if name.startswith("AWS_") or name == config.PATH_VARIABLE]:
        del os.environ[name]
    os.environ |= environment.variables(folder) | environment.past_proxies()
    return aws.Session(config.read())


def wait_for_servers(folder: Folder, session: aws.Session, failing: Callable[[], str | None]) -> None:
    """Return when both servers answer signed requests; `failing` names one that keeps ending.

    Raises: Trouble (69) with what it said last, or where to look.
    """
    give_up, patience = monotonic() + READY_S, monotonic() + FAILING_S
    client = session.client("deadline", attempts=1, timeout_s=PROBE_S)
    name = None
    while True:
        try:
            client.call("ListFarms", {"maxResults": 1})
            ask_s3(folder, "GET", "/", PROBE_S)
            return
        except Trouble as trouble:
            if monotonic() > give_up:
                logs = folder.at("log")
                raise Trouble(
                    f"the servers do not answer ({trouble.message}): see '{logs}'", statuses.UNAVAILABLE
                ) from None
        name = failing() or name  # it is seen failing only between two attempts
        if name and monotonic() > patience:
            raise Trouble(
                f"dl-{name} does not start: {_last_line(folder.at('log', f'{name}.log'))}", statuses.UNAVAILABLE
            )
        sleep(POLL_S)


def _last_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else f"it says nothing in '{path}'"


def make(folder: Folder, client: aws.Client) -> None:
    """Make what is missing; each id is remembered as soon as it is known.

    The client tokens are fixed, so that a repeat after an interruption finds what was made.
    Raises: Trouble.
    """
    settings = folder.settings
    role = f"arn:aws:iam::{folder.account}:role"

    def made(name: str, operation: str, parameters: dict[str, Any]) -> str:
        key = f"{name}_id"
        if key not in settings:
            token = f"dl-farm-{name}-{settings['token']}"
            settings[key] = client.call(operation, {**parameters, "clientToken": token})[f"{name}Id"]
            folder.write()
        return settings[key]

    farm_id = made("farm", "CreateFarm", {"displayName": FARM_NAME})
    queue_id = made(
        "queue",
        "CreateQueue",
        {
            "farmId": farm_id,
            "displayName": QUEUE_NAME,
            "jobAttachmentSettings": {"s3BucketName": BUCKET, "rootPrefix": ROOT_PREFIX},
            "roleArn": f"{role}/DeadlineLocalQueue",
            "jobRunAsUser": {"runAs": "WORKER_AGENT_USER"},
        },
    )
    fleet_id = made(
        "fleet",
        "CreateFleet",
        {
            "farmId": farm_id,
            "displayName": FLEET_NAME,
            "roleArn": f"{role}/DeadlineLocalFleet",
            "maxWorkerCount": MOST_WORKERS,
            "configuration": {
                "customerManaged": {"mode": "NO_SCALING", "workerCapabilities": capabilities()},
            },
        },
    )
    if not settings.get("is_associated"):
        ids = {"farmId": farm_id, "queueId": queue_id, "fleetId": fleet_id}
        if not list(client.items("ListQueueFleetAssociations", ids)):
            client.call("CreateQueueFleetAssociation", ids)
        settings["is_associated"] = True
        folder.write()
    if settings.get("bucket") != BUCKET:
        ask_s3(folder, "PUT", f"/{BUCKET}")
        settings["bucket"], settings["root_prefix"] = BUCKET, ROOT_PREFIX
        folder.write()


def capabilities() -> dict[str, Any]:
    """What a worker on this machine has, as the fleet is said to have."""
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return {
        "vCpuCount": {"min": cores, "max": cores},
        "memoryMiB": {"min": memory, "max": memory},
        "osFamily": "MACOS" if sys.platform == "darwin" else "LINUX",
        "cpuArchitectureType": "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64",
    }


def workers(folder: Folder, client: aws.Client) -> list[dict[str, Any]]:
    """The workers of the farm's fleet."""
    ids = {"farmId": folder.settings["farm_id"], "fleetId": folder.settings["fleet_id"]}
    return list(client.items("ListWorkers", ids))


def wait_for_workers(
    folder: Folder, client: aws.Client, are_running: Callable[[], bool], on_wait: Callable[[int], None]
) -> None:
    """Return when as many workers as there should be are at work, and their programs run.

    Raises: Trouble (69) with where to look.
    """
    wanted = folder.settings["workers"]
    give_up = monotonic() + ENROL_S
    while True:
        count = sum(worker["status"] in ONLINE for worker in workers(folder, client))
        on_wait(min(count, wanted))
        if count >= wanted and are_running():
            return
        if monotonic() > give_up:
            logs = folder.at("workers")
            raise Trouble(
                f"{wanted - count} of {wanted} workers do not come: see the logs in '{logs}'", statuses.UNAVAILABLE
            )
        sleep(POLL_S)


def ask_s3(folder: Folder, method: str, path: str, timeout_s: float = 10.0) -> None:
    """A request to S3 without a body, of the farm's owner.

    Raises: Trouble (69).
    """
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    from libdeadline import sigv4

    key_id, secret = environment.admin_key(folder)
    host = urlsplit(folder.url("s3d")).netloc
    headers = {"host": host, "x-amz-content-sha256": sigv4.EMPTY_SHA256}
    sigv4.sign(
        method,
        path,
        "",
        headers,
        sigv4.EMPTY_SHA256,
        access_key_id=key_id,
        secret=secret,
        token=None,
        region=folder.region,
        service="s3",
    )
    connection = HTTPConnection(host, timeout=timeout_s)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        answer = response.read().decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        raise Trouble(f"dl-s3d at {host} does not answer: {error}", statuses.UNAVAILABLE) from None
    finally:
        connection.close()
    if response.status != 200 and "BucketAlreadyOwnedByYou" not in answer:
        raise Trouble(f"dl-s3d at {host} refuses: {answer[:300]}", statuses.UNAVAILABLE)
