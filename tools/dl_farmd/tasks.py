"""Tasks."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import capabilities, jobs, lookup, pages, store
from .errors import Conflict
from .operations import Call, operation
from .run_status import CHANGING, Ledger, requeue, stop

SELECT = "SELECT tasks.*, sessions.session_id FROM tasks LEFT JOIN sessions ON sessions.session = tasks.session"


def answer(row: sqlite3.Row, step: sqlite3.Row) -> dict[str, Any]:
    """A task as GetTask and lists answer it."""
    return {
        "taskId": lookup.task_id(step["step_id"], row["number"]),
        "runStatus": row["status"],
        "targetRunStatus": row["target"],
        "failureRetryCount": row["attempts"],
        "parameters": row["parameters"],
        "createdAt": step["created_at"],
        "createdBy": step["created_by"],
        "startedAt": row["started_at"],
        "endedAt": row["ended_at"],
        "updatedAt": row["updated_at"],
        "updatedBy": row["updated_by"],
        "latestSessionActionId": lookup.action_id(row["session_id"], row["action"]) if row["session_id"] else None,
    }


def details(db: sqlite3.Connection, ids: dict[str, Any]) -> dict[str, Any]:
    """A task by all its ids."""
    step = lookup.step(db, ids)
    task = lookup.task(db, ids, step)
    row = store.one(db, SELECT + " WHERE tasks.step = ? AND tasks.number = ?", step["step"], task["number"])
    assert row is not None
    return answer(row, step)


@operation("GetTask")
def get_task(call: Call) -> dict[str, Any]:
    return details(call.db, call.params)


@operation("BatchGetTask")
def batch_get_task(call: Call) -> dict[str, Any]:
    return jobs.batch(call, "tasks", lambda ids: details(call.db, ids))


@operation("ListTasks")
def list_tasks(call: Call) -> dict[str, Any]:
    step = lookup.step(call.db, call.params)
    rows, token = pages.rows(call, SELECT, "tasks.step = ?", (step["step"],), ("tasks.number",))
    return {"tasks": [answer(row, step) for row in rows], "nextToken": token}


@operation("UpdateTask")
def update_task(call: Call) -> dict[str, Any]:
    _update_task(call, call.params)
    return {}


@operation("BatchUpdateTask")
def batch_update_task(call: Call) -> dict[str, Any]:
    keys = ("farmId", "queueId", "jobId", "stepId", "taskId")
    return jobs.batch_update(call, "tasks", keys, lambda item: _update_task(call, item))


def _update_task(call: Call, ids: dict[str, Any]) -> None:
    step = lookup.step(call.db, ids)
    task = lookup.task(call.db, ids, step)
    jobs.changeable(step["job_lifecycle"], "task", ids["taskId"])
    if step["job_lifecycle"] == CHANGING:
        # Which of the two came last could not be told once the other is carried out.
        raise Conflict(
            "STATUS_CONFLICT", "job", step["job_id"], "Many tasks of the job are being changed: try again later.",
            {"status": CHANGING},
        )  # fmt: skip
    ledger = Ledger(call.db, call.now, call.actor)
    target = ids["targetRunStatus"]
    if target in ("READY", "PENDING"):
        requeue(ledger, step["step"], [task["number"]])
        ledger.settle()
        capabilities.check_job(call.farm, ledger, step["job"])
    else:
        stop(ledger, step["step"], target, [task["number"]])
    ledger.settle()
    call.farm.emit("work", call.db, queue_id=step["queue_id"])
