"""Sessions and session actions, as clients see them."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import jobs, lookup, pages, store
from .errors import ResourceNotFound
from .operations import Call, operation
from .run_status import Ledger, cancel_session
from .scheduling import definition, log_configuration, log_group


def summary(row: sqlite3.Row) -> dict[str, Any]:
    """What every answer about a session holds."""
    return {
        "sessionId": row["session_id"],
        "fleetId": row["fleet_id"],
        "workerId": row["worker_id"],
        "startedAt": row["started_at"],
        "lifecycleStatus": row["status"],
        "endedAt": row["ended_at"],
        "targetLifecycleStatus": row["target"],
        "updatedAt": row["updated_at"],
        "updatedBy": row["updated_by"],
    }


def details(db: sqlite3.Connection, ids: dict[str, Any]) -> dict[str, Any]:
    """A session as GetSession answers it."""
    row = lookup.session(db, ids)
    return summary(row) | {
        "log": _log(row["farm_id"], row["queue_id"], row["session_id"]),
        "workerLog": _log(row["farm_id"], row["fleet_id"], row["worker_id"]),
        "hostProperties": row["host"],
    }


def _log(farm_id: str, owner_id: str, stream: str) -> dict[str, Any]:
    return log_configuration(log_group(farm_id, owner_id), stream)


@operation("GetSession")
def get_session(call: Call) -> dict[str, Any]:
    return details(call.db, call.params)


@operation("BatchGetSession")
def batch_get_session(call: Call) -> dict[str, Any]:
    return jobs.batch(call, "sessions", lambda ids: details(call.db, ids))


@operation("ListSessions")
def list_sessions(call: Call) -> dict[str, Any]:
    job = lookup.job(call.db, call.params)
    rows, token = pages.rows(call, "SELECT * FROM sessions", "job = ?", (job["job"],), ("session",))
    return {"sessions": [summary(row) for row in rows], "nextToken": token}


@operation("ListSessionsForWorker")
def list_sessions_for_worker(call: Call) -> dict[str, Any]:
    worker = lookup.worker(call.db, call.params)
    rows, token = pages.rows(
        call,
        "SELECT sessions.*, jobs.job_id FROM sessions JOIN jobs USING (job)",
        "sessions.worker = ?",
        (worker["worker"],),
        ("-sessions.session",),
    )
    items = [summary(row) | {"queueId": row["queue_id"], "jobId": row["job_id"]} for row in rows]
    return {"sessions": items, "nextToken": token}


@operation("UpdateSession")
def update_session(call: Call) -> dict[str, Any]:
    """End a session: what it has not begun and what runs is cancelled, its environments are exited."""
    row = lookup.session(call.db, call.params)
    if row["status"] == "ENDED":
        return {}
    ledger = Ledger(call.db, call.now, call.actor)
    end_early(ledger, row["session"])
    ledger.settle()
    return {}


def end_early(ledger: Ledger, session: int) -> None:
    """Have a session cancel what it runs, exit its environments and end; its tasks go back to READY."""
    db = ledger.db
    cancel_session(db, session)
    running = db.execute(
        "SELECT tasks.step, tasks.number FROM action_tasks JOIN tasks"
        " ON tasks.step = action_tasks.step AND tasks.number = action_tasks.task AND tasks.session = ?1"
        " WHERE action_tasks.session = ?1 AND tasks.status = 'RUNNING'",
        (session,),
    ).fetchall()
    for task in running:
        ledger.put(task["step"], "RUNNING", "INTERRUPTING", [task["number"]])
    store.update(db, "sessions", {"session": session}, target="ENDED", updated_at=ledger.now, updated_by=ledger.actor)


def start(farm: Any) -> None:
    """End sessions whose queue, fleet or limit is told to stop at once."""

    def end_all(db: sqlite3.Connection, where: str, *args: Any) -> None:
        ledger = Ledger(db, farm.now_ms())
        for (session,) in db.execute(
            f"SELECT session FROM sessions WHERE status = 'STARTED' AND {where}", args
        ).fetchall():
            end_early(ledger, session)
        ledger.settle()

    def on_fleet(db: sqlite3.Connection, **about: Any) -> None:
        if about["status"] == "STOP_SCHEDULING_AND_CANCEL_TASKS":
            end_all(db, "queue_id = ? AND fleet_id = ?", about["queue_id"], about["fleet_id"])

    def on_limit(db: sqlite3.Connection, **about: Any) -> None:
        if about["status"] == "STOP_LIMIT_USAGE_AND_CANCEL_TASKS":
            holding = "session IN (SELECT session FROM limit_holds WHERE limit_id = ?)"
            end_all(db, f"queue_id = ? AND {holding}", about["queue_id"], about["limit_id"])

    def on_budget(db: sqlite3.Connection, **about: Any) -> None:
        if about["blocked"] and about["cancels"]:
            end_all(db, "queue_id = ?", about["queue_id"])
        elif not about["blocked"]:
            farm.emit("work", db, queue_id=about["queue_id"])

    farm.on("queue_fleet_association", on_fleet)
    farm.on("queue_limit_association", on_limit)
    farm.on("budget_changed", on_budget)


def action_summary(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    """What every answer about a session action holds; `row` has `session_id` and `step_id` too."""
    return {
        "sessionActionId": lookup.action_id(row["session_id"], row["number"]),
        "status": row["status"],
        "startedAt": row["started_at"],
        "endedAt": row["ended_at"],
        "workerUpdatedAt": row["worker_updated_at"],
        "progressPercent": row["progress"],
        "definition": definition(db, row, row["step_id"]),
        "manifests": row["manifests"],
    }


ACTIONS = (
    "SELECT actions.*, sessions.session_id, steps.step_id FROM actions JOIN sessions USING (session)"
    " LEFT JOIN steps ON steps.step = actions.step"
)


def action_details(db: sqlite3.Connection, ids: dict[str, Any]) -> dict[str, Any]:
    """A session action as GetSessionAction answers it."""
    job = lookup.job(db, ids)
    parts = lookup.split_action_id(ids["sessionActionId"])
    row = parts and store.one(
        db, ACTIONS + " WHERE sessions.session_id = ? AND actions.number = ? AND sessions.job = ?", *parts, job["job"]
    )
    if not row:
        raise ResourceNotFound("session-action", ids["sessionActionId"])
    return action_summary(db, row) | {
        "sessionId": row["session_id"],
        "processExitCode": row["exit_code"],
        "progressMessage": row["message"],
        "acquiredLimits": row["limits"],
    }


@operation("GetSessionAction")
def get_session_action(call: Call) -> dict[str, Any]:
    return action_details(call.db, call.params)


@operation("BatchGetSessionAction")
def batch_get_session_action(call: Call) -> dict[str, Any]:
    return jobs.batch(call, "sessionActions", lambda ids: action_details(call.db, ids))


@operation("ListSessionActions")
def list_session_actions(call: Call) -> dict[str, Any]:
    p, db = call.params, call.db
    job = lookup.job(db, p)
    where, args = "sessions.job = ?", [job["job"]]
    if "sessionId" in p:
        where, args = "actions.session = ?", [lookup.session(db, p)["session"]]
    if "taskId" in p:
        step_id, _, number = p["taskId"].partition("-")[2].rpartition("-")
        step = store.value(db, "SELECT step FROM steps WHERE step_id = ? AND job = ?", f"step-{step_id}", job["job"])
        if step is None or not store.one(db, "SELECT 1 FROM tasks WHERE step = ? AND number = ?", step, int(number)):
            raise ResourceNotFound("task", p["taskId"])
        where += (
            " AND (actions.session, actions.number) IN (SELECT session, action FROM action_tasks"
            " WHERE step = ? AND task = ?)"
        )
        args += [step, int(number)]
    rows, token = pages.rows(call, ACTIONS, where, tuple(args), ("actions.session", "actions.number"))
    return {"sessionActions": [action_summary(db, row) for row in rows], "nextToken": token}
