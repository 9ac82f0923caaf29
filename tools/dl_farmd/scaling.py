"""How many workers a fleet shall have: which of them are too many, and what an auto scaling fleet aims at.

A worker that is too many gets no more work, and once it has none left is told to stop (`desiredWorkerStatus`). Those
are the last ones of a fleet whose maxWorkerCount was lowered, and of a fleet that scales with its work those that were
idle for its workerIdleDurationSeconds, down to its minWorkerCount and its standbyWorkerCount of idle ones. Nothing
here starts a worker: a fleet's targetWorkerCount and autoScalingStatus are for whoever does.

Source: spec/service.md sections 8 (rule 13) and 10; botocore's model, CustomerManagedAutoScalingConfiguration.
"""

from __future__ import annotations

import sqlite3
from math import ceil
from typing import Any

from . import capabilities, store
from .lookup import STEP_COLUMNS

TAKES_WORK = ("STARTED", "IDLE", "RUNNING")
LOOK_S = 10.0
MOST_STEPS = 500  # of the steps with READY tasks that a look counts


def start(farm: Any) -> None:
    """Keep the aims of auto scaling fleets up to date."""
    farm.fleet_sizes = {}
    for event in ("fleet_changed", "fleet_deleting", "rollback"):
        farm.on(event, lambda db, **about: farm.fleet_sizes.clear())
    farm.every(float(farm.settings.get("scaling_look_s", LOOK_S)), lambda db: aim(farm, db))


def _sizes(farm: Any, db: sqlite3.Connection, fleet_id: str) -> tuple[int, int, dict[str, Any] | None]:
    """(least, most, the auto scaling configuration if there is one) of a fleet's workers."""
    found: tuple[int, int, dict[str, Any] | None] | None = farm.fleet_sizes.get(fleet_id)
    if found is None:
        row = store.one(db, "SELECT * FROM fleets WHERE fleet_id = ?", fleet_id)
        assert row is not None
        managed = row["configuration"].get("customerManaged", {})
        scales = managed.get("mode") == "EVENT_BASED_AUTO_SCALING"
        found = (
            row["min_worker_count"],
            row["max_worker_count"],
            managed.get("autoScalingConfiguration", {}) if scales else None,
        )
        farm.fleet_sizes[fleet_id] = found
    return found


def is_surplus(farm: Any, db: sqlite3.Connection, worker: sqlite3.Row, now: int) -> bool:
    """Whether a worker is one of those that its fleet has too many of."""
    fleet_id = worker["fleet_id"]
    least, most, scales = _sizes(farm, db, fleet_id)
    online = capabilities.matcher(farm).online(db, fleet_id, now)
    if online > most and not _is_among(db, worker, "status = 'RUNNING' DESC, worker", most):
        return True
    if scales is None or worker["status"] not in ("STARTED", "IDLE") or online <= least:
        return False
    idle_since = worker["updated_at"] or worker["created_at"]  # it changed its status last
    if now - idle_since < scales["workerIdleDurationSeconds"] * 1000:
        return False
    kept = max(scales["standbyWorkerCount"], least - _busy(db, fleet_id))
    # Those that came to rest last stay: their caches are warm.
    return not _is_among(db, worker, "updated_at DESC, worker DESC", kept, "AND status IN ('STARTED', 'IDLE')")


def _is_among(db: sqlite3.Connection, worker: sqlite3.Row, order: str, count: int, more: str = "") -> bool:
    """Whether a worker is one of the first `count` that take work in its fleet."""
    listed = ", ".join("?" * len(TAKES_WORK))
    found = db.execute(
        f"SELECT 1 FROM (SELECT worker FROM workers WHERE fleet_id = ? AND status IN ({listed}) {more}"
        f" ORDER BY {order} LIMIT ?) WHERE worker = ?",
        (worker["fleet_id"], *TAKES_WORK, count, worker["worker"]),
    )
    return found.fetchone() is not None


def _busy(db: sqlite3.Connection, fleet_id: str) -> int:
    return int(store.value(db, "SELECT count(*) FROM workers WHERE fleet_id = ? AND status = 'RUNNING'", fleet_id))


def aim(farm: Any, db: sqlite3.Connection) -> None:
    """Set targetWorkerCount and autoScalingStatus of the fleets that scale with their work."""
    for fleet in db.execute("SELECT * FROM fleets WHERE status = 'ACTIVE'").fetchall():
        least, most, scales = _sizes(farm, db, fleet["fleet_id"])
        if scales is None:
            continue
        busy = _busy(db, fleet["fleet_id"])
        online = busy + store.value(
            db, "SELECT count(*) FROM workers WHERE fleet_id = ? AND status IN ('STARTED', 'IDLE')", fleet["fleet_id"]
        )
        wanted = busy + _ready(farm, db, fleet["fleet_id"], most) + scales["standbyWorkerCount"]
        # It may grow by so many a minute, and aims no further ahead of those that came.
        rate = scales["scaleOutWorkersPerMinute"]
        reach = min(max(online, fleet["target_worker_count"] or 0) + ceil(rate * LOOK_S / 60), online + rate)
        target = max(least, min(most, wanted, reach))
        status = "GROWING" if target > online else "SHRINKING" if target < online else "STEADY"
        if (target, status) != (fleet["target_worker_count"], fleet["auto_scaling_status"]):
            store.update(
                db, "fleets", {"fleet_id": fleet["fleet_id"]}, target_worker_count=target, auto_scaling_status=status
            )


def _ready(farm: Any, db: sqlite3.Connection, fleet_id: str, most: int) -> int:
    """How many tasks, up to `most`, wait for a worker of a fleet."""
    match, count = capabilities.matcher(farm), 0
    for step in db.execute(
        f"SELECT {STEP_COLUMNS}, jobs.queue_id FROM queue_fleet_associations AS pair"
        " CROSS JOIN jobs USING (queue_id) CROSS JOIN steps USING (job)"
        " WHERE pair.fleet_id = ? AND pair.status = 'ACTIVE' AND jobs.n_ready > 0 AND steps.n_ready > 0 LIMIT ?",
        (fleet_id, MOST_STEPS),
    ).fetchall():
        if match.fits(db, step["queue_id"], step, fleet_id):
            count += step["n_ready"]
            if count >= most:
                return most
    return count
