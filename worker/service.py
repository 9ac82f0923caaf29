"""Asking the farm as a worker: with whose credentials, how often again, and what an answer means.

Source: spec worker 1.1, 1.2, 1.4.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from random import random
from time import time
from typing import TYPE_CHECKING, Any

from libdeadline import statuses
from libdeadline.errors import Trouble

from .folder import Folder, poke, read_json, write_json
from .settings import Settings

if TYPE_CHECKING:
    from libdeadline import aws

BACKOFF_CAP_S = 30.0
CALL_S = 30.0  # longest wait for one answer
EXPIRED = (
    "ExpiredTokenException",
    "ExpiredToken",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "InvalidClientTokenId",
)

Wait = Callable[[float], None]


def backoff_s(attempt: int, at_least_s: float = 0.0) -> float:
    """How long to wait after failure number `attempt` (from 0) of the same call.

    Source: spec worker 1.2, the intended delay.
    """
    delay = random() * min(2.0 ** (attempt - 1), BACKOFF_CAP_S) if attempt <= 11 else 24 + 6 * random()
    return max(delay, at_least_s * (1 + 0.2 * random())) if at_least_s else delay


def base_session(settings: Settings) -> aws.Session:
    """The session of the bootstrap credentials: the profile that the worker was given, or what the host offers.

    The settings of the client (~/.deadline/config) of whoever runs the agent are not the agent's.
    """
    from libdeadline import aws, config

    return aws.Session(config.read(os.devnull), profile=settings.profile, region=settings.region)


def credentials_path(folder: Folder, worker_id: str) -> str:
    return folder.file("credentials", f"{worker_id}.json")


def write_credentials(path: str, given: Mapping[str, Any], mode: int = 0o600, group: int | None = None) -> float:
    """Write what a service gave as `credentials` in the form of a credential process; when they expire, epoch s.

    Source: spec worker 4.1.
    """
    expiration: datetime = given["expiration"]
    fields = {
        "Version": 1,
        "AccessKeyId": given["accessKeyId"],
        "SecretAccessKey": given["secretAccessKey"],
        "SessionToken": given["sessionToken"],
        "Expiration": f"{expiration.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    write_json(path, fields, mode, group)
    return expiration.timestamp()


def expiry(path: str) -> float | None:
    """When the credentials in a file expire, in seconds since the epoch; None if there are none to be read."""
    fields = read_json(path) or {}
    try:
        return datetime.fromisoformat(fields["Expiration"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None


def read_credentials(path: str) -> aws.Credentials:
    """The credentials in a file that dl-worker-credentials keeps fresh.

    Raises: Trouble (77) where there are none, or none that are still good.
    """
    from libdeadline import aws

    fields, expires = read_json(path) or {}, expiry(path)
    if expires is None or expires <= time():
        raise Trouble("the fleet role's credentials have expired and nobody has renewed them", statuses.NOT_ALLOWED)
    return aws.Credentials(fields["AccessKeyId"], fields["SecretAccessKey"], fields["SessionToken"], expires)


class Farm:
    """The operations of one worker, called with its fleet role's credentials."""

    def __init__(self, folder: Folder, settings: Settings, worker_id: str) -> None:
        self.folder, self.settings, self.worker_id = folder, settings, worker_id
        self._base = base_session(settings)
        self._session = self._fleet_session()

    def _fleet_session(self) -> aws.Session:
        path = credentials_path(self.folder, self.worker_id)
        return self._base.with_credentials(lambda: read_credentials(path))

    @property
    def region(self) -> str:
        return self._base.region

    def bootstrap(self) -> aws.Client:
        """The Deadline client of the bootstrap credentials."""
        return self._base.client("deadline", attempts=1, timeout_s=CALL_S)

    def call(self, operation: str, *, timeout_s: float = CALL_S, **parameters: Any) -> dict[str, Any]:
        """One attempt at an operation of this worker.

        Raises: ServiceError, Trouble; as libdeadline.aws.Client.call.
        """
        client = self._session.client("deadline", attempts=1, timeout_s=timeout_s)
        try:
            return client.call(operation, {**self.ids, **parameters})
        except Trouble as trouble:
            if is_expired(trouble):
                # Look at the file again next time, and have it renewed if it isn't yet.
                self._session = self._fleet_session()
                poke(self.folder.wake("credentials"))
            raise

    def logs(self) -> aws.Client:
        """The CloudWatch Logs client of the fleet role."""
        return self._session.client("logs", attempts=1, timeout_s=CALL_S)

    @property
    def ids(self) -> dict[str, str]:
        return {"farmId": self.settings.farm_id, "fleetId": self.settings.fleet_id, "workerId": self.worker_id}


def is_expired(trouble: Trouble) -> bool:
    """Whether the credentials are to blame, so that newer ones may help."""
    return trouble.code in EXPIRED or (trouble.code is None and trouble.status == statuses.NOT_ALLOWED)


def is_passing(trouble: Trouble) -> bool:
    """Whether the same call may succeed later: throttled, a fault of the service (by any name), or not reached."""
    status = getattr(trouble, "http_status", None)
    if status is None:
        return trouble.status in (statuses.TRY_AGAIN, statuses.UNAVAILABLE)
    return bool(status == 429 or status >= 500 or reason(trouble) == "CONCURRENT_MODIFICATION")


def reason(trouble: Trouble) -> str | None:
    """The reason that a ConflictException gives."""
    if trouble.code != "ConflictException":
        return None
    return str(getattr(trouble, "response", {}).get("reason"))


def conflict(trouble: Trouble, resource_id: str) -> str | None:
    """The status that stands in the way, if this is a STATUS_CONFLICT of that resource; may be empty text."""
    response = getattr(trouble, "response", {})
    if reason(trouble) != "STATUS_CONFLICT" or response.get("resourceId") != resource_id:
        return None
    return str((response.get("context") or {}).get("status", ""))


def is_missing(trouble: Trouble) -> bool:
    return trouble.code == "ResourceNotFoundException"


def retry_after_s(trouble: Trouble) -> float:
    """What the service asked to wait at least."""
    try:
        return float(getattr(trouble, "response", {}).get("retryAfterSeconds") or 0)
    except (TypeError, ValueError):
        return 0.0


def persist(
    call: Callable[[], dict[str, Any]],
    wait: Wait,
    again: Callable[[Trouble], bool] = is_passing,
    tell: Callable[[Trouble], None] | None = None,
) -> dict[str, Any]:
    """`call`, again and again as long as `again` says that it may help, with growing waits in between.

    `tell` hears of the first failure.
    Raises: what the last attempt raised.
    """
    attempt = 0
    while True:
        try:
            return call()
        except Trouble as trouble:
            if not again(trouble):
                raise
            if tell and attempt == 0:
                tell(trouble)
            wait(backoff_s(attempt, retry_after_s(trouble)))
            attempt += 1
