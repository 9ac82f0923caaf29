"""Which fleets work for which queues, and which limits hold in which queues.

A stop becomes STOPPED by itself once no session of the pair is open: looked at when it is asked for and then
every second, so that whoever ends sessions need not know.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from . import lookup, pages, queues, store
from .errors import Conflict, ResourceNotFound, Validation
from .farms import get as get_farm
from .limits import get as get_limit
from .operations import Call, operation

if TYPE_CHECKING:
    from .farm import Farm

SETTLE_S = 1.0


@operation("CreateQueueFleetAssociation")
def create_queue_fleet_association(call: Call) -> None:
    queue, fleet = lookup.queue(call.db, call.params), lookup.fleet(call.db, call.params)
    _check_fit(call.db, queue, fleet)
    added = call.db.execute(
        "INSERT OR IGNORE INTO queue_fleet_associations (queue_id, fleet_id, farm_id, status, created_at, created_by)"
        " VALUES (?, ?, ?, 'ACTIVE', ?, ?)",
        (queue["queue_id"], fleet["fleet_id"], queue["farm_id"], call.now, call.actor),
    ).rowcount
    if added:
        queues.settle(call.db, queue["queue_id"])
        call.farm.emit(
            "queue_fleet_association", call.db, farm_id=queue["farm_id"], queue_id=queue["queue_id"],
            fleet_id=fleet["fleet_id"], status="ACTIVE", was=None,
        )  # fmt: skip


@operation("GetQueueFleetAssociation")
def get_queue_fleet_association(call: Call) -> dict[str, Any]:
    return store.members(_fleet_pair(call))


@operation("ListQueueFleetAssociations")
def list_queue_fleet_associations(call: Call) -> dict[str, Any]:
    return _list(call, "queue_fleet_associations", "fleetId", "fleet_id", "queueFleetAssociations")


@operation("UpdateQueueFleetAssociation")
def update_queue_fleet_association(call: Call) -> None:
    row = _fleet_pair(call)
    status = call.params["status"]
    if status == "ACTIVE":
        _check_fit(call.db, lookup.queue(call.db, call.params), lookup.fleet(call.db, call.params))
    elif row["status"] == "STOPPED":
        return  # it has stopped already
    store.update(
        call.db, "queue_fleet_associations", {"queue_id": row["queue_id"], "fleet_id": row["fleet_id"]},
        status=status, updated_at=call.now, updated_by=call.actor,
    )  # fmt: skip
    queues.settle(call.db, row["queue_id"])
    call.farm.emit(
        "queue_fleet_association", call.db, farm_id=row["farm_id"], queue_id=row["queue_id"],
        fleet_id=row["fleet_id"], status=status, was=row["status"],
    )  # fmt: skip
    settle_fleets(call.db)


@operation("DeleteQueueFleetAssociation")
def delete_queue_fleet_association(call: Call) -> None:
    row = _fleet_pair(call)
    if row["status"] != "STOPPED":
        raise Conflict(
            "STATUS_CONFLICT", "queue-fleet-association", f"{row['queue_id']}/{row['fleet_id']}",
            f"The association is {row['status']}: stop it before you delete it.", {"status": row["status"]},
        )  # fmt: skip
    call.db.execute(
        "DELETE FROM queue_fleet_associations WHERE queue_id = ? AND fleet_id = ?", (row["queue_id"], row["fleet_id"])
    )
    call.farm.emit(
        "queue_fleet_association", call.db, farm_id=row["farm_id"], queue_id=row["queue_id"],
        fleet_id=row["fleet_id"], status=None, was=row["status"],
    )  # fmt: skip


@operation("CreateQueueLimitAssociation")
def create_queue_limit_association(call: Call) -> None:
    queue, limit = lookup.queue(call.db, call.params), get_limit(call.db, call.params)
    other = store.value(
        call.db,
        "SELECT limit_id FROM queue_limit_associations JOIN limits USING (limit_id)"
        " WHERE queue_id = ? AND amount_requirement_name = ? AND limit_id != ?",
        queue["queue_id"], limit["amount_requirement_name"], limit["limit_id"],
    )  # fmt: skip
    if other is not None:
        raise Validation(
            f"The queue has the limit {other} for {limit['amount_requirement_name']} already.",
            {"limitId": "A queue has one limit for each amount requirement name"},
        )
    added = call.db.execute(
        "INSERT OR IGNORE INTO queue_limit_associations (queue_id, limit_id, farm_id, status, created_at, created_by)"
        " VALUES (?, ?, ?, 'ACTIVE', ?, ?)",
        (queue["queue_id"], limit["limit_id"], queue["farm_id"], call.now, call.actor),
    ).rowcount
    if added:
        call.farm.emit(
            "queue_limit_association", call.db, farm_id=queue["farm_id"], queue_id=queue["queue_id"],
            limit_id=limit["limit_id"], status="ACTIVE", was=None,
        )  # fmt: skip


@operation("GetQueueLimitAssociation")
def get_queue_limit_association(call: Call) -> dict[str, Any]:
    return store.members(_limit_pair(call))


@operation("ListQueueLimitAssociations")
def list_queue_limit_associations(call: Call) -> dict[str, Any]:
    return _list(call, "queue_limit_associations", "limitId", "limit_id", "queueLimitAssociations")


@operation("UpdateQueueLimitAssociation")
def update_queue_limit_association(call: Call) -> None:
    row = _limit_pair(call)
    status = call.params["status"]
    if status != "ACTIVE" and row["status"] == "STOPPED":
        return
    store.update(
        call.db, "queue_limit_associations", {"queue_id": row["queue_id"], "limit_id": row["limit_id"]},
        status=status, updated_at=call.now, updated_by=call.actor,
    )  # fmt: skip
    call.farm.emit(
        "queue_limit_association", call.db, farm_id=row["farm_id"], queue_id=row["queue_id"],
        limit_id=row["limit_id"], status=status, was=row["status"],
    )  # fmt: skip
    settle_limits(call.db)


@operation("DeleteQueueLimitAssociation")
def delete_queue_limit_association(call: Call) -> None:
    row = _limit_pair(call)
    if row["status"] != "STOPPED":
        raise Conflict(
            "STATUS_CONFLICT", "queue-limit-association", f"{row['queue_id']}/{row['limit_id']}",
            f"The association is {row['status']}: stop it before you delete it.", {"status": row["status"]},
        )  # fmt: skip
    call.db.execute(
        "DELETE FROM queue_limit_associations WHERE queue_id = ? AND limit_id = ?", (row["queue_id"], row["limit_id"])
    )
    call.farm.emit(
        "queue_limit_association", call.db, farm_id=row["farm_id"], queue_id=row["queue_id"],
        limit_id=row["limit_id"], status=None, was=row["status"],
    )  # fmt: skip


def start(farm: Farm) -> None:
    """Look again and again whether what was asked to stop has stopped."""

    def settle(db: sqlite3.Connection) -> None:
        settle_fleets(db)
        settle_limits(db)

    farm.every(SETTLE_S, settle)


def settle_fleets(db: sqlite3.Connection) -> None:
    """Make STOPPED of the stopping queue-fleet associations that have no open session."""
    for row in db.execute("SELECT * FROM queue_fleet_associations WHERE status LIKE 'STOP\\_%' ESCAPE '\\'").fetchall():
        pair = (row["queue_id"], row["fleet_id"])
        if not store.one(
            db, "SELECT 1 FROM sessions WHERE queue_id = ? AND fleet_id = ? AND status = 'STARTED' LIMIT 1", *pair
        ):
            db.execute(
                "UPDATE queue_fleet_associations SET status = 'STOPPED' WHERE queue_id = ? AND fleet_id = ?", pair
            )


def settle_limits(db: sqlite3.Connection) -> None:
    """Make STOPPED of the stopping queue-limit associations whose limit no action of the queue holds."""
    for row in db.execute("SELECT * FROM queue_limit_associations WHERE status LIKE 'STOP\\_%' ESCAPE '\\'").fetchall():
        pair = (row["queue_id"], row["limit_id"])
        if not store.one(
            db,
            "SELECT 1 FROM limit_holds JOIN sessions USING (session) WHERE queue_id = ? AND limit_id = ? LIMIT 1",
            *pair,
        ):
            db.execute(
                "UPDATE queue_limit_associations SET status = 'STOPPED' WHERE queue_id = ? AND limit_id = ?", pair
            )


def _fleet_pair(call: Call) -> sqlite3.Row:
    return _pair(call, "queue_fleet_associations", "fleet")


def _limit_pair(call: Call) -> sqlite3.Row:
    return _pair(call, "queue_limit_associations", "limit")


def _pair(call: Call, table: str, kind: str) -> sqlite3.Row:
    queue_id, other_id = call.params["queueId"], call.params[f"{kind}Id"]
    row = store.one(
        call.db, f"SELECT * FROM {table} WHERE queue_id = ? AND {kind}_id = ? AND farm_id = ?",
        queue_id, other_id, call.params["farmId"],
    )  # fmt: skip
    if row is None:
        raise ResourceNotFound(f"queue-{kind}-association", f"{queue_id}/{other_id}")
    return row


def _list(call: Call, table: str, member: str, column: str, result: str) -> dict[str, Any]:
    get_farm(call.db, call.params["farmId"])
    where, args = "farm_id = ?", [call.params["farmId"]]
    for name, own_column in (("queueId", "queue_id"), (member, column)):
        if name in call.params:
            where += f" AND {own_column} = ?"
            args.append(call.params[name])
    found, token = pages.rows(
        call, f"SELECT * FROM {table}", where, tuple(args), ("created_at", "queue_id", column)
    )  # fmt: skip
    return {result: [store.members(row) for row in found], "nextToken": token}


def _check_fit(db: sqlite3.Connection, queue: sqlite3.Row, fleet: sqlite3.Row) -> None:
    """Refuse a fleet that can't run the queue's jobs: wrong system for its user, or locations missing.

    Raises: Validation.
    """
    managed = fleet["configuration"].get("customerManaged")
    if managed is None:
        return
    user = queue["job_run_as_user"]
    if user and user["runAs"] == "QUEUE_CONFIGURED_USER":
        system = "windows" if managed["workerCapabilities"]["osFamily"] == "WINDOWS" else "posix"
        if not user.get(system):
            raise Validation(
                f"The queue's jobRunAsUser has no {system} user, which the fleet's operating system needs.",
                {"fleetId": f"The queue has no {system} user"},
            )
    needed = set(queue["required_file_system_location_names"] or ())
    if needed:
        profile = store.one(
            db, "SELECT * FROM storage_profiles WHERE storage_profile_id = ?", managed.get("storageProfileId")
        )
        missing = needed - {each["name"] for each in (profile["file_system_locations"] if profile else ())}
        if missing:
            names = ", ".join(sorted(missing))
            raise Validation(
                f"The fleet's storage profile lacks file system locations that the queue requires: {names}.",
                {"fleetId": f"The fleet lacks the file system locations {names}"},
            )
