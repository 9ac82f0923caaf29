"""Who is calling, and may they: SigV4 on every request, and the table of what each kind of principal may call.

Source: spec/service.md sections 2.1 and 13.
"""

from __future__ import annotations

import re
import sqlite3
from calendar import timegm
from functools import lru_cache
from hashlib import sha256
from time import strptime, time
from typing import Any

from libdeadline import minted, sigv4

from .errors import AccessDenied, Unauthenticated

SKEW_S = 300

READS = ("Get", "List", "Search", "BatchGet")
CONTRIBUTES = frozenset(
    [
        "CreateJob",
        "UpdateJob",
        "UpdateStep",
        "UpdateTask",
        "UpdateSession",
        "BatchUpdateJob",
        "BatchUpdateTask",
        "CopyJobTemplate",
        "AssumeQueueRoleForUser",
        "AssumeQueueRoleForRead",
        "AssumeFleetRoleForRead",
        "StartSessionsStatisticsAggregation",
    ]
)
MANAGES = frozenset(
    [
        "CreateQueue",
        "UpdateQueue",
        "CreateFleet",
        "UpdateFleet",
        "CreateQueueEnvironment",
        "UpdateQueueEnvironment",
        "DeleteQueueEnvironment",
        "CreateBudget",
        "UpdateBudget",
        "DeleteBudget",
        "CreateLimit",
        "UpdateLimit",
        "DeleteLimit",
        "CreateQueueFleetAssociation",
        "UpdateQueueFleetAssociation",
        "DeleteQueueFleetAssociation",
        "CreateQueueLimitAssociation",
        "UpdateQueueLimitAssociation",
        "DeleteQueueLimitAssociation",
        "CreateStorageProfile",
        "UpdateStorageProfile",
        "DeleteStorageProfile",
        "TagResource",
        "UntagResource",
        "DeleteWorker",
        "UpdateFarm",
    ]
)
AROUND = {"farm": [], "queue": ["farm"], "fleet": ["farm"], "job": ["farm", "queue"]}  # memberships that hold for it
NARROWED = frozenset(("ListQueues", "ListFleets", "ListJobs", "GetFarm"))  # what members of a part may call
LEVELS = {"VIEWER": 0, "CONTRIBUTOR": 1, "MANAGER": 2, "OWNER": 3}
WORKER_CALLS = frozenset(
    [
        "AssumeFleetRoleForWorker",
        "AssumeQueueRoleForWorker",
        "UpdateWorker",
        "UpdateWorkerSchedule",
        "BatchGetJobEntity",
        "DeleteWorker",
    ]
)
BOOTSTRAP_CALLS = frozenset(("CreateWorker", "AssumeFleetRoleForWorker"))


class Principal:
    """Who calls: `kind` is admin, user, bootstrap, worker, queue_worker, queue_user, queue_read or fleet_read.

    `claims` holds what the credential is bound to: farm, queue, fleet, worker, name (those that apply).
    """

    __slots__ = ("kind", "name", "claims", "arn")

    def __init__(self, kind: str, name: str, claims: dict[str, Any], arn: str) -> None:
        self.kind = kind
        self.name = name
        self.claims = claims
        self.arn = arn


def principal_of(key: minted.Principal, account: str) -> Principal:
    """The principal that a resolved credential belongs to."""
    claims = key.claims
    if key.expires is None:
        kind = claims.get("principal", "user")
        name = claims.get("name") or ("admin" if kind == "admin" else key.access_key_id)
        return Principal(kind, name, claims, f"arn:aws:iam::{account}:user/{name}")
    kind = claims.get("kind", "")
    session = claims.get("worker") or claims.get("name") or claims.get("queue") or claims.get("fleet") or kind
    role = claims.get("role") or f"arn:aws:iam::{account}:role/{kind}"
    role_account, _, path = role.partition("::")[2].partition(":role/")
    arn = f"arn:aws:sts::{role_account or account}:assumed-role/{path.rpartition('/')[2]}/{session}"
    return Principal(kind, str(session), claims, arn)


@lru_cache(maxsize=256)
def _seconds(stamp: str) -> int:
    # Kept, since a thousand workers sign within the same few seconds, and this is slow.
    return timegm(strptime(stamp, "%Y%m%dT%H%M%SZ"))


def authenticate(
    ring: minted.KeyRing,
    account: str,
    method: str,
    path: str,
    query: str,
    headers: dict[str, str],
    body: bytes,
    now: float | None = None,
) -> tuple[Principal, str, str]:
    """(the principal, region and service of the signature's scope) of a signed request.

    Raises: Unauthenticated.
    """
    now = time() if now is None else now
    authorization = headers.get("authorization")
    if not authorization:
        raise Unauthenticated("MissingAuthenticationTokenException", "Missing Authentication Token")
    try:
        key_id, day, region, service, signed, _ = sigv4.parse_authorization(authorization)
    except ValueError as error:
        raise Unauthenticated("IncompleteSignatureException", f"The Authorization header is wrong: {error}.") from None
    stamp = headers.get("x-amz-date", "")
    try:
        sent = _seconds(stamp)
    except ValueError:
        raise Unauthenticated("IncompleteSignatureException", "The x-amz-date header is missing or wrong.") from None
    if "host" not in signed or "x-amz-date" not in signed:
        raise Unauthenticated("IncompleteSignatureException", "The host and x-amz-date headers must be signed.")
    if day != stamp[:8]:
        raise Unauthenticated(
            "InvalidSignatureException", "The date of the credential scope is not that of the request."
        )
    if abs(now - sent) > SKEW_S:
        raise Unauthenticated(
            "InvalidSignatureException", f"Signature expired or not yet valid: {stamp} is more than 5 minutes off."
        )
    token = headers.get("x-amz-security-token")
    if token is not None and "x-amz-security-token" not in signed:
        raise Unauthenticated("IncompleteSignatureException", "The x-amz-security-token header must be signed.")
    try:
        key = ring.resolve(key_id, token, now)
    except minted.CredentialError as error:
        raise Unauthenticated(error.code, str(error)) from None
    digest = sha256(body).hexdigest() if body else sigv4.EMPTY_SHA256
    announced = headers.get("x-amz-content-sha256")
    if announced is not None and announced != digest:
        raise Unauthenticated("InvalidSignatureException", "The x-amz-content-sha256 header is not that of the body.")
    try:
        good = sigv4.matches(method, path, query, headers, digest, authorization, key.secret)
    except ValueError as error:
        raise Unauthenticated("IncompleteSignatureException", f"The signature can't be checked: {error}.") from None
    if not good:
        raise Unauthenticated(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided."
            " Check your AWS Secret Access Key and signing method.",
        )
    return principal_of(key, account), region, service


def authorize(principal: Principal, operation: str, params: dict[str, Any], db: sqlite3.Connection) -> None:
    """Let a call of the Deadline API pass, as far as the principal, the path and memberships decide it.

    What else needs the database (whether a queue is one of a worker's sessions) the operations check themselves.
    Raises: AccessDenied.
    """
    kind = principal.kind
    if kind == "admin":
        return
    claims = principal.claims
    if kind == "worker":
        if (
            operation in WORKER_CALLS
            and params.get("workerId") == claims.get("worker")
            and params.get("fleetId") == claims.get("fleet")
            and params.get("farmId") == claims.get("farm")
        ):
            return
    elif kind == "bootstrap":
        if (
            operation in BOOTSTRAP_CALLS
            and params.get("fleetId") == claims.get("fleet")
            and params.get("farmId") == claims.get("farm")
        ):
            return
    elif kind == "user" and _may_user(claims, operation, params, db):
        return
    raise AccessDenied(f"User: {principal.arn} is not authorized to perform: deadline:{operation}")


def _may_user(claims: dict[str, Any], operation: str, params: dict[str, Any], db: sqlite3.Connection) -> bool:
    needed = _level_needed(operation)
    if needed is None:
        return False
    if operation in NARROWED and _is_member_within(claims, params, db):
        return True  # what is listed is narrowed down to what the person may see; the farm itself they see in lists
    return all(level_at(claims, place, db) >= needed for place in _places(params))


def _places(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Where a request acts: ids by member name, one place for each of its resources."""
    # A batch names its resources in a list of objects, each with all the ids.
    batches = [item for items in params.values() if isinstance(items, list) for item in items if isinstance(item, dict)]
    if places := [item for item in batches if "farmId" in item]:
        return places
    if "resourceArn" in params:
        farm = re.search(r"farm/(farm-[0-9a-f]{32})", params["resourceArn"])
        return [{"farmId": farm[1]} if farm else {}]
    # A search and an aggregation name theirs in a list of ids.
    for lists in (params, params.get("resourceIds", {})):
        for name in ("queueIds", "fleetIds"):
            if name in lists:
                return [{"farmId": params["farmId"], name[:-1]: each} for each in lists[name]]
    return [params]


def _is_member_within(claims: dict[str, Any], params: dict[str, Any], db: sqlite3.Connection) -> bool:
    sql, args = "SELECT 1 FROM members WHERE principal_id = ? AND farm_id = ?", [params["farmId"]]
    if "queueId" in params:
        sql += " AND queue_id = ?"
        args.append(params["queueId"])
    return db.execute(f"{sql} LIMIT 1", (claims.get("principal_id"), *args)).fetchone() is not None


def _level_needed(operation: str) -> int | None:
    """The least level that may call `operation`; None for what belongs to workers."""
    if operation in (WORKER_CALLS | BOOTSTRAP_CALLS) - {"DeleteWorker"}:
        return None
    if operation.startswith(READS):
        return LEVELS["VIEWER"]
    if operation in CONTRIBUTES:
        return LEVELS["CONTRIBUTOR"]
    if operation in MANAGES:
        return LEVELS["MANAGER"]
    return LEVELS["OWNER"]  # farms, members, deletions


def level_at(claims: dict[str, Any], place: dict[str, Any], db: sqlite3.Connection) -> int:
    """A person's level where `place` (ids by member name) is: their key's own, or that of a membership around it."""
    farm_id = place.get("farmId")
    own = LEVELS.get(claims.get("level", ""), -1)
    level = own if claims.get("farm") in (None, farm_id) else -1
    if farm_id is None:
        level = max(level, min(own, LEVELS["VIEWER"]))  # nobody of one farm makes others
    if "principal_id" in claims:
        ids = [place[name] for name in ("farmId", "queueId", "fleetId", "jobId") if name in place]
        rows = db.execute(
            "SELECT membership_level FROM members WHERE principal_id = ?"
            f" AND resource_id IN ({', '.join('?' * len(ids))})",
            (claims["principal_id"], *ids),
        )
        level = max([level, *(LEVELS[row[0]] for row in rows)])
        if farm_id is None:
            level = max(level, LEVELS["VIEWER"])  # what is outside of farms, anyone may see
    return level


def narrowed(
    principal: Principal, params: dict[str, Any], scope: str, db: sqlite3.Connection
) -> tuple[str, tuple[Any, ...]]:
    """More of the WHERE of a list of farms, queues, fleets or jobs, with its arguments.

    It leaves what the request's principalId is a member of, and of that what the caller may see: who has no level
    of their own sees what they are a member of. A membership counts for what is below its resource, and makes what is
    above it show in lists.
    """
    parts: list[str] = ["1"]
    args: list[Any] = []
    if "principalId" in params:
        _add(parts, args, scope, params["principalId"])
    claims = principal.claims
    if principal.kind == "user":
        if scope != "farm":
            if level_at(claims, params, db) < LEVELS["VIEWER"]:
                _add(parts, args, scope, claims.get("principal_id"))
        elif claims.get("level") not in LEVELS:
            _add(parts, args, scope, claims.get("principal_id"))
        elif "farm" in claims:
            _add(parts, args, scope, claims.get("principal_id"))
            parts[-1] = f"({parts[-1]} OR farm_id = ?)"
            args.append(claims["farm"])
    return " AND ".join(parts), tuple(args)


def _add(parts: list[str], args: list[Any], scope: str, principal_id: str | None) -> None:
    """Add the condition that a principal is a member of a row's resource, of one around it, or of one below it."""
    column = f"{scope}_id"
    ways = [f"{column} IN (SELECT {column} FROM members WHERE principal_id = ? AND {column} IS NOT NULL)"]
    args.append(principal_id)
    for outer in AROUND[scope]:
        ways.append(f"{outer}_id IN (SELECT resource_id FROM members WHERE principal_id = ? AND scope = '{outer}')")
        args.append(principal_id)
    parts.append(f"({' OR '.join(ways)})")
