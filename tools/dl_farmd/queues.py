"""Queues and their environments' owner: settings, status, deletion."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import auth, lookup, pages, store
from .errors import Conflict, Validation
from .farms import get as get_farm
from .operations import Call, operation
from .tags import forget_tags, set_tags

FIELDS = (
    "displayName", "description", "defaultBudgetAction", "jobAttachmentSettings", "roleArn", "jobRunAsUser",
    "schedulingConfiguration", "requiredFileSystemLocationNames", "allowedStorageProfileIds",
)  # fmt: skip
MAX_NAMES = 20


@operation("CreateQueue")
def create_queue(call: Call) -> dict[str, Any]:
    farm_id = call.params["farmId"]
    get_farm(call.db, farm_id)
    queue_id = call.farm.new_id("queue")
    values = {"scheduling_configuration": {"priorityFifo": {}}, **store.columns(call.params, FIELDS)}
    store.insert(
        call.db, "queues", queue_id=queue_id, farm_id=farm_id, status="IDLE", created_at=call.now,
        created_by=call.actor, **values,
    )  # fmt: skip
    _check(call, queue_id)
    set_tags(call, f"farm/{farm_id}/queue/{queue_id}", call.params.get("tags"))
    settle(call.db, queue_id)
    return {"queueId": queue_id}


@operation("GetQueue")
def get_queue(call: Call) -> dict[str, Any]:
    return store.members(lookup.queue(call.db, call.params))


@operation("ListQueues")
def list_queues(call: Call) -> dict[str, Any]:
    get_farm(call.db, call.params["farmId"])
    more, more_args = auth.narrowed(call.principal, call.params, "queue", call.db)
    where, args = f"farm_id = ? AND {more}", [call.params["farmId"], *more_args]
    if "status" in call.params:
        where += " AND status = ?"
        args.append(call.params["status"])
    found, token = pages.rows(call, "SELECT * FROM queues", where, tuple(args), ("created_at", "queue_id"))
    return {"queues": [store.members(row) for row in found], "nextToken": token}


@operation("UpdateQueue")
def update_queue(call: Call) -> None:
    row = lookup.queue(call.db, call.params)
    queue_id = row["queue_id"]
    changes = store.columns(call.params, FIELDS)
    for column, member in (
        ("required_file_system_location_names", "requiredFileSystemLocationNames"),
        ("allowed_storage_profile_ids", "allowedStorageProfileIds"),
    ):
        added, removed = call.params.get(f"{member}ToAdd", ()), set(call.params.get(f"{member}ToRemove", ()))
        if added or removed:
            # In order and once each; what is both added and removed is removed.
            kept = dict.fromkeys([*(row[column] or ()), *added])
            changes[column] = [each for each in kept if each not in removed]
            if len(changes[column]) > MAX_NAMES:
                raise Validation(f"A queue has at most {MAX_NAMES}.", {f"{member}ToAdd": f"At most {MAX_NAMES} in all"})
    store.update(
        call.db, "queues", {"queue_id": queue_id}, updated_at=call.now, updated_by=call.actor, **changes
    )  # fmt: skip
    _check(call, queue_id)
    settle(call.db, queue_id)
    call.farm.emit("queue_changed", call.db, farm_id=row["farm_id"], queue_id=queue_id)


@operation("DeleteQueue")
def delete_queue(call: Call) -> None:
    row = lookup.queue(call.db, call.params)
    queue_id, farm_id = row["queue_id"], row["farm_id"]
    for table, what in (("queue_fleet_associations", "fleet"), ("queue_limit_associations", "limit")):
        if store.one(call.db, f"SELECT 1 FROM {table} WHERE queue_id = ?", queue_id):
            raise Conflict(
                "RESOURCE_IN_USE",
                "queue",
                queue_id,
                f"The queue {queue_id} is associated with a {what}: disassociate it.",
            )
    call.farm.emit("queue_deleting", call.db, farm_id=farm_id, queue_id=queue_id)
    call.db.execute("DELETE FROM members WHERE queue_id = ?", (queue_id,))
    for table in ("queue_environments", "queues"):
        call.db.execute(f"DELETE FROM {table} WHERE queue_id = ?", (queue_id,))
    forget_tags(call, f"farm/{farm_id}/queue/{queue_id}")


def _check(call: Call, queue_id: str) -> None:
    """Refuse a queue whose settings contradict each other.

    Raises: Validation; the frame undoes what was written.
    """
    row = store.one(call.db, "SELECT * FROM queues WHERE queue_id = ?", queue_id)
    assert row is not None
    user = row["job_run_as_user"]
    if user and user["runAs"] == "QUEUE_CONFIGURED_USER" and not (user.get("posix") or user.get("windows")):
        raise Validation(
            "A queue-configured user needs its posix or windows settings.",
            {"jobRunAsUser": "posix or windows is required where runAs is QUEUE_CONFIGURED_USER"},
        )
    for profile_id in row["allowed_storage_profile_ids"] or ():
        if not store.one(
            call.db,
            "SELECT 1 FROM storage_profiles WHERE storage_profile_id = ? AND farm_id = ?",
            profile_id,
            row["farm_id"],
        ):
            raise Validation(
                f"The storage profile {profile_id} does not exist in this farm.",
                {"allowedStorageProfileIds": f"Storage profile {profile_id} does not exist"},
            )


def settle(db: sqlite3.Connection, queue_id: str) -> None:
    """Set the queue's status by its associations and budgets."""
    row = store.one(db, "SELECT * FROM queues WHERE queue_id = ?", queue_id)
    if row is None:
        return
    reason = None
    budgets = db.execute("SELECT * FROM budgets WHERE queue_id = ? AND status = 'ACTIVE'", (queue_id,)).fetchall()
    if any(budget["queue_stopped_at"] is not None for budget in budgets):
        reason = "BUDGET_THRESHOLD_REACHED"
    elif not budgets and row["default_budget_action"] != "NONE":
        reason = "NO_BUDGET_CONFIGURED"
    if reason:
        status = "SCHEDULING_BLOCKED"
    elif store.one(db, "SELECT 1 FROM queue_fleet_associations WHERE queue_id = ? AND status = 'ACTIVE'", queue_id):
        status = "SCHEDULING"
    else:
        status = "IDLE"
    if (status, reason) != (row["status"], row["blocked_reason"]):
        store.update(db, "queues", {"queue_id": queue_id}, status=status, blocked_reason=reason)
