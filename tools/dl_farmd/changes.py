"""Status changes of very many tasks, carried out in batches between which requests are served.

`run_status.defer` writes such a change down; here it is done, one batch a transaction, so a stop of the service at any
moment leaves a farm whose counts are right, and a change that goes on at the next start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from . import capabilities, lookup, store
from .run_status import ALIGN, CHANGING, WAITING, Ledger, move_some

LOOK_S = 0.25
BATCH = 2000  # tasks in one transaction: short enough that a heartbeat does not notice


def start(farm: Any) -> None:
    """Take up what a stop interrupted; look for new changes again and again, since they come from anywhere."""
    running: list[bool] = []

    def over(db: sqlite3.Connection, error: BaseException) -> None:
        running.clear()  # the next look takes it up again

    def carry_out(db: sqlite3.Connection) -> Iterator[None]:
        while change := store.one(db, "SELECT * FROM changes ORDER BY change LIMIT 1"):
            go_on(farm, db, change)
            yield
        running.clear()

    def look(db: sqlite3.Connection) -> None:
        if not running and store.one(db, "SELECT 1 FROM changes"):
            running.append(True)
            farm.stepwise(carry_out(db), over)

    farm.every(LOOK_S, look)


def go_on(farm: Any, db: sqlite3.Connection, change: sqlite3.Row) -> None:
    """Carry out the next batch of a change, or strike it off."""
    if not move(farm, db, change):
        finish(farm, db, change)


def move(farm: Any, db: sqlite3.Connection, change: sqlite3.Row) -> bool:
    """Carry out one batch of a change. Returns whether there was anything left to do."""
    ledger = Ledger(db, farm.now_ms(), change["actor"])
    where, key = ("step = ?", change["step"]) if change["step"] is not None else ("job = ?", change["job"])
    steps = db.execute(f"SELECT {lookup.STEP_COLUMNS} FROM steps WHERE {where} ORDER BY position", (key,))
    left = BATCH
    for step in steps.fetchall():
        left -= move_some(ledger, step, change["target"], bool(change["waiting"]), left)
        if left <= 0:
            break
    ledger.settle()
    if ledger.readied and change["target"] == ALIGN:
        farm.emit("work", db, queue_id=store.value(db, "SELECT queue_id FROM jobs WHERE job = ?", change["job"]))
    return left < BATCH


def finish(farm: Any, db: sqlite3.Connection, change: sqlite3.Row) -> None:
    """Strike a change off that has nothing left to do, and let its job go on."""
    job = change["job"]
    db.execute("DELETE FROM changes WHERE change = ?", (change["change"],))
    if change["target"] == ALIGN:
        return
    if change["step"] is not None:
        _settled(db, "steps", "step", change["step"])
    if not store.one(db, "SELECT 1 FROM changes WHERE job = ? AND target <> ?", job, ALIGN):
        _settled(db, "jobs", "job", job)
    ledger = Ledger(db, farm.now_ms(), change["actor"])
    ledger.look_at(job, failures=change["target"] == "FAILED")
    if change["step"] is not None:
        ledger.look_at_step(change["step"])
    ledger.settle()
    if change["target"] in WAITING:
        capabilities.check_job(farm, ledger, job)
        ledger.settle()
    farm.emit("work", db, queue_id=store.value(db, "SELECT queue_id FROM jobs WHERE job = ?", job))


def _settled(db: sqlite3.Connection, table: str, key: str, number: int) -> None:
    message = ", lifecycle_message = 'The tasks have been changed.'" if table == "jobs" else ""
    db.execute(
        f"UPDATE {table} SET lifecycle_status = 'UPDATE_SUCCEEDED'{message} WHERE {key} = ? AND lifecycle_status = ?",
        (number, CHANGING),
    )
