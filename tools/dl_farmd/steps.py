"""Steps, and what depends on what."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import jobs, lookup, pages, store
from .operations import Call, operation
from .run_status import Ledger, counts

# What depends on a step, and what it depends on, resolved or not: the four dependencyCounts.
SELECT = f"""
SELECT {lookup.STEP_COLUMNS}, jobs.job_id, jobs.farm_id, jobs.queue_id, jobs.created_by,
    (SELECT count(*) FROM step_edges WHERE dependency = steps.step) AS consumers
FROM steps JOIN jobs USING (job)
"""


def summary(row: sqlite3.Row, consumers: int) -> dict[str, Any]:
    """What every answer about a step holds; a consumer of it is resolved when it has succeeded itself."""
    succeeded = row["status"] == "SUCCEEDED"
    return {
        "stepId": row["step_id"],
        "name": row["name"],
        "lifecycleStatus": row["lifecycle_status"],
        "taskRunStatus": row["status"],
        "taskRunStatusCounts": counts(row),
        "taskFailureRetryCount": row["retries"],
        "targetTaskRunStatus": row["target"],
        "createdAt": row["created_at"],
        "createdBy": row["created_by"],
        "updatedAt": row["updated_at"],
        "updatedBy": row["updated_by"],
        "startedAt": row["started_at"],
        "endedAt": row["ended_at"],
        "dependencyCounts": {
            "dependenciesResolved": row["dependencies"] - row["unresolved"],
            "dependenciesUnresolved": row["unresolved"],
            "consumersResolved": consumers if succeeded else 0,
            "consumersUnresolved": 0 if succeeded else consumers,
        },
    }


def details(db: sqlite3.Connection, ids: dict[str, Any]) -> dict[str, Any]:
    """A step as GetStep answers it."""
    row = lookup.step(db, ids)
    consumers = store.value(db, "SELECT count(*) FROM step_edges WHERE dependency = ?", row["step"])
    return summary(row, consumers) | {
        "description": row["description"] or None,
        "requiredCapabilities": row["requirements"],
        "parameterSpace": row["space"],
    }


@operation("GetStep")
def get_step(call: Call) -> dict[str, Any]:
    return details(call.db, call.params)


@operation("BatchGetStep")
def batch_get_step(call: Call) -> dict[str, Any]:
    return jobs.batch(call, "steps", lambda ids: details(call.db, ids))


@operation("ListSteps")
def list_steps(call: Call) -> dict[str, Any]:
    job = lookup.job(call.db, call.params)
    made = "jobs.lifecycle_status <> 'CREATE_IN_PROGRESS'"  # no step shows before all are there
    rows, token = pages.rows(call, SELECT, f"steps.job = ? AND {made}", (job["job"],), ("steps.position",))
    return {"steps": [summary(row, row["consumers"]) for row in rows], "nextToken": token}


@operation("UpdateStep")
def update_step(call: Call) -> dict[str, Any]:
    row = lookup.step(call.db, call.params)
    jobs.changeable(row["job_lifecycle"], "step", row["step_id"])
    ledger = Ledger(call.db, call.now, call.actor)
    jobs.set_step_target(call.farm, ledger, row["step"], call.params["targetTaskRunStatus"])
    ledger.settle()
    call.farm.emit("work", call.db, queue_id=row["queue_id"])
    return {}


@operation("ListStepDependencies")
def list_step_dependencies(call: Call) -> dict[str, Any]:
    step = lookup.step(call.db, call.params)
    rows, token = pages.rows(
        call,
        "SELECT other.position, other.step_id, other.status FROM step_edges"
        " JOIN steps AS other ON other.step = step_edges.dependency",
        "consumer = ?",
        (step["step"],),
        ("other.position",),
        default=1000,
    )
    items = [
        {"stepId": row["step_id"], "status": "RESOLVED" if row["status"] == "SUCCEEDED" else "UNRESOLVED"}
        for row in rows
    ]
    return {"dependencies": items, "nextToken": token}


@operation("ListStepConsumers")
def list_step_consumers(call: Call) -> dict[str, Any]:
    step = lookup.step(call.db, call.params)
    rows, token = pages.rows(
        call,
        "SELECT other.position, other.step_id FROM step_edges JOIN steps AS other ON other.step = step_edges.consumer",
        "dependency = ?",
        (step["step"],),
        ("other.position",),
        default=1000,
    )
    status = "RESOLVED" if step["status"] == "SUCCEEDED" else "UNRESOLVED"
    return {"consumers": [{"stepId": row["step_id"], "status": status} for row in rows], "nextToken": token}
