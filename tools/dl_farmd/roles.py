"""The Assume… operations of people and readers (those of workers: workers.py).

Their credentials carry what they are good for, so that nothing need be stored. Claims: `kind` (worker, queue_worker,
queue_user, queue_read, fleet_read), the ids that apply (`farm`, `queue`, `fleet`, `worker`), `role` (its ARN), `name`
(of the one it was made for), and of queue roles `bucket` and `prefix`: what the S3 side lets them reach.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from . import lookup
from .errors import Validation
from .operations import Call, operation

LIFE_S = 3600  # clients start to refresh a quarter of an hour before the end


def _mint(call: Call, claims: dict[str, Any]) -> dict[str, Any]:
    minted = call.farm.ring.mint({k: v for k, v in claims.items() if v is not None}, LIFE_S)
    return {
        "credentials": {
            "accessKeyId": minted.access_key_id,
            "secretAccessKey": minted.secret_access_key,
            "sessionToken": minted.session_token,
            "expiration": minted.expires * 1000,
        }
    }


def _queue_claims(kind: str, queue: sqlite3.Row, name: str) -> dict[str, Any]:
    settings = queue["job_attachment_settings"] or {}
    return {
        "kind": kind,
        "name": name,
        "farm": queue["farm_id"],
        "queue": queue["queue_id"],
        "role": queue["role_arn"],
        "bucket": settings.get("s3BucketName"),
        "prefix": settings.get("rootPrefix"),
    }


def _queue_role(call: Call, kind: str) -> dict[str, Any]:
    queue = lookup.queue(call.db, call.params)
    if not queue["role_arn"]:
        raise Validation(f"The queue {queue['queue_id']} has no role.")
    return _mint(call, _queue_claims(kind, queue, call.actor))


@operation("AssumeQueueRoleForUser")
def assume_queue_role_for_user(call: Call) -> dict[str, Any]:
    return _queue_role(call, "queue_user")


@operation("AssumeQueueRoleForRead")
def assume_queue_role_for_read(call: Call) -> dict[str, Any]:
    return _queue_role(call, "queue_read")


@operation("AssumeFleetRoleForRead")
def assume_fleet_role_for_read(call: Call) -> dict[str, Any]:
    fleet = lookup.fleet(call.db, call.params)
    return _mint(
        call,
        {
            "kind": "fleet_read",
            "name": call.actor,
            "farm": fleet["farm_id"],
            "fleet": fleet["fleet_id"],
            "role": fleet["role_arn"],
        },
    )
