"""Old jobs go, so that the database stays bounded: after `keep_jobs_days` days (a setting; 0 keeps all for ever).
So do workers that were not seen for so long. The jobs of a deleted queue go with it.

A job goes in steps of a transaction each, so that requests are served between them; what is half gone is taken up
again at the next look, since it no longer belongs to a queue.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from .workers import DELETABLE

KEEP_DAYS = 120
LOOK_S = 3600.0
FIRST_LOOK_S = 30.0
AGAIN_S = 60.0
BATCH = 5000  # tasks or actions in one transaction
GONE = "deleted:"  # before the queue id of a job that is being deleted
DAY_MS = 86_400_000


def start(farm: Any) -> None:
    """Look for old jobs soon after the start, and every hour; take up what a stop of the service left half gone."""
    keep_ms = farm.settings.get("keep_jobs_days", KEEP_DAYS) * DAY_MS
    look_s = farm.settings.get("retention_look_s", LOOK_S)

    def look(db: sqlite3.Connection) -> None:
        farm.background(
            lambda: None, lambda db, result: forget_old(farm, db, farm.now_ms() - keep_ms), lambda db, error: None
        )

    def sweep() -> None:
        farm.stepwise(forget_gone(farm, farm.db), lambda db, error: farm.after(AGAIN_S, lambda db: sweep()))

    def on_queue(db: sqlite3.Connection, **about: Any) -> None:
        # No session of them is open: the queue has no fleet any more. What is being created is given up.
        db.execute(
            "UPDATE jobs SET queue_id = ? || queue_id,"
            " lifecycle_status = iif(lifecycle_status = 'CREATE_IN_PROGRESS', 'CREATE_FAILED', lifecycle_status)"
            " WHERE queue_id = ?",
            (GONE, about["queue_id"]),
        )
        farm.after_commit(sweep)

    farm.on("queue_deleting", on_queue)
    sweep()
    if keep_ms > 0:
        farm.after(min(FIRST_LOOK_S, look_s), look)
        farm.every(look_s, look)


def forget_old(farm: Any, db: sqlite3.Connection, before: int) -> Iterator[None]:
    """Delete the jobs that ended and the workers that went before a time in ms; each step is a transaction."""
    forget_workers(farm, db, before)
    yield
    rows = db.execute(
        "SELECT job FROM jobs WHERE ended_at < ? AND n_interrupting = 0"
        " AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.job = jobs.job AND sessions.status = 'STARTED')",
        (before,),
    ).fetchall()
    for (job,) in rows:
        yield from forget_job(farm, db, job)


def forget_gone(farm: Any, db: sqlite3.Connection) -> Iterator[None]:
    """Delete the jobs that belong to no queue any more; each step of the iterator is a transaction."""
    while row := db.execute("SELECT job FROM jobs WHERE queue_id GLOB ? LIMIT 1", (GONE + "*",)).fetchone():
        yield from forget_job(farm, db, row[0])


def forget_workers(farm: Any, db: sqlite3.Connection, before: int) -> None:
    """Delete the workers that went, or never came, before a time in ms: one that comes back is told to enrol anew."""
    rows = db.execute(
        f"SELECT worker, worker_id, fleet_id, farm_id FROM workers WHERE status IN ({', '.join('?' * len(DELETABLE))})"
        " AND coalesce(updated_at, created_at) < ?",
        (*DELETABLE, before),
    ).fetchall()
    for row in rows:
        db.execute("DELETE FROM workers WHERE worker = ?", (row["worker"],))
        db.execute("UPDATE fleets SET worker_count = worker_count - 1 WHERE fleet_id = ?", (row["fleet_id"],))
        path = f"farm/{row['farm_id']}/fleet/{row['fleet_id']}/worker/{row['worker_id']}"
        db.execute("DELETE FROM tags WHERE arn = ?", (farm.arn(path),))


def forget_job(farm: Any, db: sqlite3.Connection, job: int) -> Iterator[None]:
    """Delete a job with all that hangs on it, the bulk of it first and in batches."""
    row = db.execute("SELECT farm_id, queue_id, job_id FROM jobs WHERE job = ?", (job,)).fetchone()
    if row is None:
        return  # it went with its queue
    path = f"farm/{row['farm_id']}/queue/{row['queue_id'].removeprefix(GONE)}/job/{row['job_id']}"
    db.execute("DELETE FROM tags WHERE arn = ?", (farm.arn(path),))
    db.execute("DELETE FROM members WHERE scope = 'job' AND resource_id = ?", (row["job_id"],))
    # Whoever still asks for the job must not see half of it.
    db.execute("UPDATE jobs SET queue_id = ? WHERE job = ?", (GONE + row["queue_id"].removeprefix(GONE), job))
    yield
    sessions = "SELECT session FROM sessions WHERE job = ?"
    steps = "SELECT step FROM steps WHERE job = ?"
    for table, parent, key, columns in (
        ("action_tasks", steps, "step", "step, task, session, action"),
        ("actions", sessions, "session", "session, number"),
        ("tasks", steps, "step", "step, number"),
    ):
        deleting = (
            f"DELETE FROM {table} WHERE ({columns}) IN"
            f" (SELECT {columns} FROM {table} WHERE {key} IN ({parent}) LIMIT {BATCH})"
        )
        while db.execute(deleting, (job,)).rowcount == BATCH:
            yield
    db.execute("DELETE FROM jobs WHERE job = ?", (job,))
    yield
