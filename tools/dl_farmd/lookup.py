"""The rows that a path names: each found below the parents that it was asked for with, or a 404 for the innermost."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from . import store
from .errors import ResourceNotFound
from .run_status import STATUSES

# All of a step but the long texts, which only workers ask for.
_COUNTS = [f"n_{status.lower()}" for status in STATUSES]
STEP_COLUMNS = ", ".join(
    f"steps.{name}"
    for name in [
        "step", "step_id", "job", "position", "name", "description", "requirements", "space", "chunks",
        "dependencies", "unresolved", "lifecycle_status", "status", "target", "retries", *_COUNTS,
        "ran_ms", "ran_actions", "ran_tasks", "created_at", "updated_at", "updated_by", "started_at", "ended_at",
    ]
)  # fmt: skip


def queue(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    """The queue of farmId and queueId."""
    row = store.one(db, "SELECT * FROM queues WHERE farm_id = ? AND queue_id = ?", ids["farmId"], ids["queueId"])
    return row or _missing("queue", ids["queueId"])


def fleet(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    """The fleet of farmId and fleetId."""
    row = store.one(db, "SELECT * FROM fleets WHERE farm_id = ? AND fleet_id = ?", ids["farmId"], ids["fleetId"])
    return row or _missing("fleet", ids["fleetId"])


def job(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    """The job of farmId, queueId and jobId."""
    row = store.one(
        db, "SELECT * FROM jobs WHERE job_id = ? AND queue_id = ? AND farm_id = ?",
        ids["jobId"], ids["queueId"], ids["farmId"],
    )  # fmt: skip
    return row or _missing("job", ids["jobId"])


def step(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    """The step of farmId, queueId, jobId and stepId, with `job_id`, `farm_id`, `queue_id`, `created_by` of its job."""
    row = store.one(
        db,
        f"SELECT {STEP_COLUMNS}, jobs.job_id, jobs.farm_id, jobs.queue_id, jobs.created_by,"
        " jobs.lifecycle_status AS job_lifecycle"
        " FROM steps JOIN jobs USING (job) WHERE step_id = ? AND job_id = ? AND queue_id = ? AND farm_id = ?"
        " AND jobs.lifecycle_status <> 'CREATE_IN_PROGRESS'",
        ids["stepId"], ids["jobId"], ids["queueId"], ids["farmId"],
    )  # fmt: skip
    return row or _missing("step", ids["stepId"])


def task(db: sqlite3.Connection, ids: dict[str, Any], step_row: sqlite3.Row) -> sqlite3.Row:
    """The task of taskId in the step."""
    found = re.fullmatch(r"task-([0-9a-f]{32})-(\d{1,10})", ids["taskId"])
    if found is not None and found[1] == step_row["step_id"][5:]:
        row = store.one(db, "SELECT * FROM tasks WHERE step = ? AND number = ?", step_row["step"], int(found[2]))
        if row is not None:
            return row
    raise ResourceNotFound("task", ids["taskId"])


def session(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    """The session of farmId, queueId, jobId and sessionId, with `job_id` and `farm_id`."""
    row = store.one(
        db,
        "SELECT sessions.*, jobs.job_id, jobs.farm_id FROM sessions JOIN jobs USING (job)"
        " WHERE session_id = ? AND job_id = ? AND jobs.queue_id = ? AND farm_id = ?",
        ids["sessionId"], ids["jobId"], ids["queueId"], ids["farmId"],
    )  # fmt: skip
    return row or _missing("session", ids["sessionId"])


def worker(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    """The worker of farmId, fleetId and workerId."""
    row = store.one(
        db, "SELECT * FROM workers WHERE worker_id = ? AND fleet_id = ? AND farm_id = ?",
        ids["workerId"], ids["fleetId"], ids["farmId"],
    )  # fmt: skip
    return row or _missing("worker", ids["workerId"])


def _missing(kind: str, identity: str) -> Any:
    raise ResourceNotFound(kind, identity)


def task_id(step_id: str, number: int) -> str:
    """The id of a step's task."""
    return f"task-{step_id[5:]}-{number}"


def action_id(session_id: str, number: int) -> str:
    """The id of a session's action."""
    return f"sessionaction-{session_id[8:]}-{number}"


def split_action_id(identity: str) -> tuple[str, int] | None:
    """(session id, number) of a session action id, or None where it is none."""
    found = re.fullmatch(r"sessionaction-([0-9a-f]{32})-(\d{1,10})", identity)
    return (f"session-{found[1]}", int(found[2])) if found else None
