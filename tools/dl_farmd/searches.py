"""SearchJobs, SearchSteps, SearchTasks and SearchWorkers: what can be searched of each.

The joins are CROSS JOINs because SQLite keeps their order: from jobs down, so that rows come in the order of the
result and the first page needs no sort of all tasks.

Source: spec/service.md section 12.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from . import jobs, lookup, search, steps, tasks, workers
from .operations import Call, operation
from .search import Field
from .task_values import TaskValues


def _times(table: str) -> dict[str, Field]:
    return {name.upper(): Field(f"{table}.{name}", "time") for name in ("started_at", "ended_at", "updated_at")}


JOBS = search.Target(
    columns="jobs.*",
    source="FROM jobs",
    key="jobs.job",
    fields={
        "NAME": Field("jobs.name"),
        "JOB_ID": Field("jobs.job_id"),
        "QUEUE_ID": Field("jobs.queue_id"),
        "LIFECYCLE_STATUS": Field("jobs.lifecycle_status"),
        "TASK_RUN_STATUS": Field("jobs.status"),
        "TARGET_TASK_RUN_STATUS": Field("jobs.target"),
        "PRIORITY": Field("jobs.priority", "number"),
        "MAX_WORKER_COUNT": Field("jobs.max_workers", "number"),
        "MAX_FAILED_TASKS_COUNT": Field("jobs.max_failed", "number"),
        "MAX_RETRIES_PER_TASK": Field("jobs.max_retries", "number"),
        "TASK_FAILURE_RETRY_COUNT": Field("jobs.retries", "number"),
        "SOURCE_JOB_ID": Field("jobs.source_job_id"),
        "CREATED_AT": Field("jobs.created_at", "time"),
        "CREATED_BY": Field("jobs.created_by"),
        "UPDATED_BY": Field("jobs.updated_by"),
        **_times("jobs"),
    },
    terms=("jobs.name", "jobs.job_id", "jobs.created_by"),
    order=("-jobs.job",),
    parameters=lambda db, where, args: search.JsonParameters("jobs.parameters"),
)
STEPS = search.Target(
    columns=f"{lookup.STEP_COLUMNS}, jobs.job_id, jobs.queue_id, jobs.created_by",
    source="FROM jobs CROSS JOIN steps USING (job)",
    key="jobs.job, steps.step",
    fields={
        "NAME": Field("steps.name"),
        "STEP_ID": Field("steps.step_id"),
        "JOB_ID": Field("jobs.job_id"),
        "QUEUE_ID": Field("jobs.queue_id"),
        "LIFECYCLE_STATUS": Field("steps.lifecycle_status"),
        "TASK_RUN_STATUS": Field("steps.status"),
        "TARGET_TASK_RUN_STATUS": Field("steps.target"),
        "TASK_FAILURE_RETRY_COUNT": Field("steps.retries", "number"),
        "CREATED_AT": Field("steps.created_at", "time"),
        "CREATED_BY": Field("jobs.created_by"),
        "UPDATED_BY": Field("steps.updated_by"),
        **_times("steps"),
    },
    terms=("steps.name", "steps.step_id", "jobs.job_id", "jobs.created_by"),
    order=("-jobs.job", "steps.position"),
)
_TASKS = "FROM jobs CROSS JOIN steps USING (job){} CROSS JOIN tasks USING (step)"


def _split_task_id(text: str) -> tuple[str, str]:
    found = re.fullmatch("task-([0-9a-f]{32})-([0-9]+)", text)
    return (f"step-{found[1]}", found[2]) if found else ("", "")


TASKS = search.Target(
    columns="tasks.*, steps.step_id, steps.created_at, jobs.job_id, jobs.queue_id, jobs.created_by,"
    " (SELECT session_id FROM sessions WHERE sessions.session = tasks.session) AS session_id",
    source=_TASKS.format(""),
    key="jobs.job, steps.step, tasks.number",
    fields={
        "TASK_ID": Field(
            "'task-' || substr(steps.step_id, 6) || '-' || tasks.number",
            parts=("steps.step_id", "tasks.number || ''"),
            split=_split_task_id,
        ),
        "STEP_ID": Field("steps.step_id"),
        "JOB_ID": Field("jobs.job_id"),
        "QUEUE_ID": Field("jobs.queue_id"),
        "RUN_STATUS": Field("tasks.status"),
        "TASK_RUN_STATUS": Field("tasks.status"),
        "TARGET_RUN_STATUS": Field("tasks.target"),
        "FAILURE_RETRY_COUNT": Field("tasks.attempts", "number"),
        "CREATED_AT": Field("steps.created_at", "time"),
        "CREATED_BY": Field("jobs.created_by"),
        "UPDATED_BY": Field("tasks.updated_by"),
        **_times("tasks"),
    },
    terms=(),  # of ids: TaskValues looks at them, too
    # By the outer table's column, or SQLite sorts all tasks of the queue before it gives the first.
    order=("-jobs.job", "steps.position", "tasks.number"),
    parameters=TaskValues,
    placed=_TASKS.format(" LEFT JOIN places ON places.place_of = steps.step"),
)
WORKERS = search.Target(
    columns="workers.*",
    source="FROM workers",
    key="workers.worker",
    fields={
        "STATUS": Field("workers.status"),
        "WORKER_ID": Field("workers.worker_id"),
        "FLEET_ID": Field("workers.fleet_id"),
        "HOST_NAME": Field("json_extract(workers.host, '$.hostName')"),
        "CREATED_AT": Field("workers.created_at", "time"),
        "CREATED_BY": Field("workers.created_by"),
        "UPDATED_AT": Field("workers.updated_at", "time"),
        "UPDATED_BY": Field("workers.updated_by"),
    },
    terms=("workers.worker_id", "workers.fleet_id", "workers.status", "json_extract(workers.host, '$.hostName')"),
    order=("-workers.worker",),
)


def _scope(call: Call, member: str, column: str, find: Any) -> tuple[str, tuple[Any, ...]]:
    """The WHERE that narrows to the queues or fleets asked for, all of which must exist in the farm."""
    ids = call.params[member]
    for each in ids:
        find(call.db, {**call.params, member[:-1]: each})
    # The index is no help with several queues: what it finds is not in the order of the result.
    column = column if len(ids) == 1 else f"+{column}"
    return f"{column} IN ({', '.join('?' * len(ids))})", tuple(ids)


@operation("SearchJobs")
def search_jobs(call: Call) -> dict[str, Any]:
    rows, totals = search.run(call, JOBS, *_scope(call, "queueIds", "jobs.queue_id", lookup.queue))
    items = [jobs.summary(row) | {"queueId": row["queue_id"], "jobParameters": row["parameters"]} for row in rows]
    return {"jobs": items, **totals}


def _within_job(call: Call) -> tuple[str, tuple[Any, ...]]:
    where, args = _scope(call, "queueIds", "jobs.queue_id", lookup.queue)
    where += " AND jobs.lifecycle_status <> 'CREATE_IN_PROGRESS'"
    if "jobId" in call.params:
        return f"{where} AND jobs.job_id = ?", (*args, call.params["jobId"])
    return where, args


@operation("SearchSteps")
def search_steps(call: Call) -> dict[str, Any]:
    rows, totals = search.run(call, STEPS, *_within_job(call))
    items = [
        steps.summary(row, 0) | {"jobId": row["job_id"], "queueId": row["queue_id"], "parameterSpace": row["space"]}
        for row in rows
    ]
    return {"steps": items, **totals}


@operation("SearchTasks")
def search_tasks(call: Call) -> dict[str, Any]:
    rows, totals = search.run(call, TASKS, *_within_job(call))

    def answer(row: sqlite3.Row) -> dict[str, Any]:
        return tasks.answer(row, row) | {
            "stepId": row["step_id"],
            "jobId": row["job_id"],
            "queueId": row["queue_id"],
        }

    return {"tasks": [answer(row) for row in rows], **totals}


@operation("SearchWorkers")
def search_workers(call: Call) -> dict[str, Any]:
    rows, totals = search.run(call, WORKERS, *_scope(call, "fleetIds", "workers.fleet_id", lookup.fleet))
    return {"workers": [workers.details(row) for row in rows], **totals}
