"""Budgets: what a queue may cost, as far as worker time is money on one machine.

Usage is the time that workers spent in sessions of the queue, within the budget's schedule, times an hourly rate
(setting `dollars_per_worker_hour`) and the farm's costScaleFactor. It is summed up anew every few seconds from the
sessions themselves, so nothing is counted twice or lost.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from . import lookup, pages, queues, store
from .errors import ResourceNotFound, Validation
from .farms import get as get_farm
from .operations import Call, operation
from .tags import forget_tags, set_tags

if TYPE_CHECKING:
    from .farm import Farm

FIELDS = ("displayName", "description", "approximateDollarLimit", "schedule", "status")
MAX_ACTIONS = 10
USAGE_S = 10.0
RATE = 1.0  # dollars per worker hour


def _get(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    row = store.one(db, "SELECT * FROM budgets WHERE farm_id = ? AND budget_id = ?", ids["farmId"], ids["budgetId"])
    if row is None:
        raise ResourceNotFound("budget", ids["budgetId"])
    return row


def _members(row: sqlite3.Row) -> dict[str, Any]:
    return store.members(
        row,
        usageTrackingResource={"queueId": row["queue_id"]},
        usages={"approximateDollarUsage": row["approximate_dollar_usage"]},
    )


def _check_schedule(schedule: dict[str, Any] | None) -> None:
    if schedule is not None and schedule["fixed"]["startTime"] >= schedule["fixed"]["endTime"]:
        raise Validation("The schedule ends before it starts.", {"schedule.fixed.endTime": "Must be after startTime"})


@operation("CreateBudget")
def create_budget(call: Call) -> dict[str, Any]:
    farm_id = call.params["farmId"]
    get_farm(call.db, farm_id)
    _check_schedule(call.params["schedule"])
    queue_id = call.params["usageTrackingResource"]["queueId"]
    lookup.queue(call.db, {"farmId": farm_id, "queueId": queue_id})
    budget_id = call.farm.new_id("budget")
    store.insert(
        call.db, "budgets", budget_id=budget_id, farm_id=farm_id, queue_id=queue_id, status="ACTIVE",
        actions=call.params["actions"], created_at=call.now, created_by=call.actor,
        **store.columns(call.params, FIELDS),
    )  # fmt: skip
    set_tags(call, f"farm/{farm_id}/budget/{budget_id}", call.params.get("tags"))
    measure(call.farm, call.db, queue_id)
    return {"budgetId": budget_id}


@operation("GetBudget")
def get_budget(call: Call) -> dict[str, Any]:
    return _members(_get(call.db, call.params))


@operation("ListBudgets")
def list_budgets(call: Call) -> dict[str, Any]:
    get_farm(call.db, call.params["farmId"])
    where, args = "farm_id = ?", [call.params["farmId"]]
    if "status" in call.params:
        where += " AND status = ?"
        args.append(call.params["status"])
    found, token = pages.rows(call, "SELECT * FROM budgets", where, tuple(args), ("created_at", "budget_id"))
    return {"budgets": [_members(row) for row in found], "nextToken": token}


@operation("UpdateBudget")
def update_budget(call: Call) -> None:
    row = _get(call.db, call.params)
    _check_schedule(call.params.get("schedule"))
    changes = store.columns(call.params, FIELDS)
    added, removed = call.params.get("actionsToAdd", []), call.params.get("actionsToRemove", [])
    if added or removed:
        gone = [(each["type"], each["thresholdPercentage"]) for each in (*removed, *added)]
        kept = [each for each in row["actions"] if (each["type"], each["thresholdPercentage"]) not in gone]
        changes["actions"] = kept + added
        if len(changes["actions"]) > MAX_ACTIONS:
            raise Validation(f"A budget has at most {MAX_ACTIONS} actions.", {"actionsToAdd": f"At most {MAX_ACTIONS}"})
    store.update(
        call.db, "budgets", {"budget_id": row["budget_id"]}, updated_at=call.now, updated_by=call.actor, **changes
    )  # fmt: skip
    measure(call.farm, call.db, row["queue_id"])


@operation("DeleteBudget")
def delete_budget(call: Call) -> None:
    row = _get(call.db, call.params)
    call.db.execute("DELETE FROM budgets WHERE budget_id = ?", (row["budget_id"],))
    forget_tags(call, f"farm/{row['farm_id']}/budget/{row['budget_id']}")
    measure(call.farm, call.db, row["queue_id"])


def start(farm: Farm) -> None:
    """Keep the usages up to date."""

    def look(db: sqlite3.Connection) -> None:
        for row in db.execute("SELECT DISTINCT queue_id FROM budgets WHERE status = 'ACTIVE'").fetchall():
            measure(farm, db, row["queue_id"])

    farm.every(float(farm.settings.get("budget_interval_s", USAGE_S)), look)


def measure(farm: Farm, db: sqlite3.Connection, queue_id: str) -> None:
    """Sum up what the queue's budgets have used, stop or free the queue by it, and tell the scheduler of a change."""
    now = farm.now_ms()
    before = store.one(db, "SELECT farm_id, status FROM queues WHERE queue_id = ?", queue_id)
    rate = float(farm.settings.get("dollars_per_worker_hour", RATE)) / 3_600_000
    cancels = False
    for row in db.execute(
        "SELECT budgets.*, cost_scale_factor FROM budgets JOIN farms USING (farm_id) WHERE queue_id = ?", (queue_id,)
    ).fetchall():
        begin, end = row["schedule"]["fixed"]["startTime"], row["schedule"]["fixed"]["endTime"]
        spent_ms = store.value(
            db,
            "SELECT sum(max(0, min(ifnull(ended_at, ?1), ?3) - max(started_at, ?2))) FROM sessions WHERE queue_id = ?4"
            " AND started_at < ?3 AND ifnull(ended_at, ?1) > ?2",
            now, begin, min(now, end), queue_id,
        )  # fmt: skip
        # Never less than before: old jobs may have been cleared away with their sessions.
        same_schedule = row["updated_at"] is None or row["updated_at"] < now
        usage = (spent_ms or 0) * rate * row["cost_scale_factor"]
        if same_schedule and begin <= now:
            usage = max(usage, row["approximate_dollar_usage"])
        reached = [
            action["type"]
            for action in row["actions"]
            if usage >= row["approximate_dollar_limit"] * action["thresholdPercentage"] / 100
        ]
        is_over = bool(reached) and row["status"] == "ACTIVE" and begin <= now < end
        stopped_at = (row["queue_stopped_at"] or now) if is_over else None
        cancels = cancels or (is_over and "STOP_SCHEDULING_AND_CANCEL_TASKS" in reached)
        if (usage, stopped_at) != (row["approximate_dollar_usage"], row["queue_stopped_at"]):
            store.update(
                db, "budgets", {"budget_id": row["budget_id"]},
                approximate_dollar_usage=usage, queue_stopped_at=stopped_at,
            )  # fmt: skip
    if before is None:
        return
    queues.settle(db, queue_id)
    after = store.value(db, "SELECT status FROM queues WHERE queue_id = ?", queue_id)
    if after != before["status"]:
        farm.emit(
            "budget_changed", db, farm_id=before["farm_id"], queue_id=queue_id,
            blocked=after == "SCHEDULING_BLOCKED", cancels=cancels,
        )  # fmt: skip
