"""Which fleet can run which step, and which limits a step takes.

Matching is by fleet, not by worker: see spec/service.md sections 9.4 and 11.1.
"""

from __future__ import annotations

import sqlite3
from math import ceil
from typing import Any

from . import store
from .lookup import STEP_COLUMNS
from .run_status import MANY, WAITING, Ledger, defer

ONLINE_MS = 1000  # how long a count of workers is good for
# What a host has of it that says nothing about it; Open Job Description's defaults.
DEFAULT_AMOUNTS = {"amount.worker.gpu": (0.0, 0.0), "amount.worker.gpu.memory": (0.0, 0.0)}


def start(farm: Any) -> None:
    """Keep what was worked out in memory, and forget it when a part of it changes."""
    farm.matcher = Matcher()
    for event in ("fleet_changed", "fleet_deleting", "queue_limit_association", "limit_changed", "rollback"):
        farm.on(event, lambda db, **about: farm.matcher.forget())
    farm.on("queue_fleet_association", lambda db, **about: recheck_queue(farm, db, about["queue_id"]))
    farm.on("queue_limit_association", lambda db, **about: recheck_queue(farm, db, about["queue_id"]))
    farm.on("fleet_changed", lambda db, **about: _recheck_fleet(farm, db, about["fleet_id"]))


def matcher(farm: Any) -> Matcher:
    """The farm's matcher."""
    return farm.matcher  # type: ignore[no-any-return]


class Matcher:
    """Answers whether a fleet can run a step, and remembers the answers."""

    def __init__(self) -> None:
        self._fits: dict[tuple[int, str], bool] = {}
        self._limits: dict[int, list[tuple[str, int, int]]] = {}
        self._online: dict[str, tuple[int, int]] = {}  # fleet -> (good until, how many)

    def forget(self) -> None:
        """Work everything out anew."""
        self._fits.clear()
        self._limits.clear()

    def fits(self, db: sqlite3.Connection, queue_id: str, step: sqlite3.Row, fleet_id: str) -> bool:
        """Whether a fleet meets the host requirements of a step, limits of the queue aside."""
        if not step["requirements"]:
            return True
        key = step["step"], fleet_id
        found = self._fits.get(key)
        if found is None:
            fleet = store.one(db, "SELECT capabilities FROM fleets WHERE fleet_id = ?", fleet_id)
            limited = {name for name, _, _ in queue_limits(db, queue_id)}
            found = self._fits[key] = meets(step["requirements"], (fleet and fleet["capabilities"]) or {}, limited)
        return found

    def limits(self, db: sqlite3.Connection, step: sqlite3.Row) -> list[tuple[str, int, int]]:
        """(limit id, its maximum or -1, how much one task takes) of the limits that a step names."""
        if not step["requirements"]:
            return []
        found = self._limits.get(step["step"])
        if found is None:
            queue_id = store.value(db, "SELECT queue_id FROM jobs WHERE job = ?", step["job"])
            needs = {each["name"].lower(): each.get("min", 1) for each in step["requirements"]["amounts"]}
            found = self._limits[step["step"]] = [
                (limit_id, maximum, max(1, ceil(needs[name])))
                for name, limit_id, maximum in queue_limits(db, queue_id)
                if name in needs
            ]
        return found

    def online(self, db: sqlite3.Connection, fleet_id: str, now: int) -> int:
        """How many workers of a fleet may take work, as of a second ago at most."""
        until, count = self._online.get(fleet_id, (0, 0))
        if now >= until:
            count = store.value(
                db,
                "SELECT count(*) FROM workers WHERE fleet_id = ? AND status IN ('STARTED', 'IDLE', 'RUNNING')",
                fleet_id,
            )
            self._online[fleet_id] = now + ONLINE_MS, count
        return count


def queue_limits(db: sqlite3.Connection, queue_id: str) -> list[tuple[str, str, int]]:
    """(amount name in lower case, limit id, maximum) of the limits that a queue uses."""
    rows = db.execute(
        "SELECT lower(amount_requirement_name), limit_id, max_count FROM queue_limit_associations AS pair"
        " JOIN limits USING (limit_id) WHERE pair.queue_id = ? AND pair.status = 'ACTIVE'",
        (queue_id,),
    )
    return [tuple(row) for row in rows]


def meets(requirements: dict[str, Any], capabilities: dict[str, Any], limited: set[str]) -> bool:
    """Whether hosts of these capabilities can run what has these requirements.

    An amount's whole range must lie in what is required: any host of the fleet may be given the work. Names in
    `limited` are limits, which no host has.
    """
    amounts = dict(DEFAULT_AMOUNTS)
    for each in capabilities.get("amounts") or ():
        amounts[each["name"].lower()] = (each["min"], each.get("max"))
    attributes = {
        each["name"].lower(): {value.lower() for value in each["values"]}
        for each in capabilities.get("attributes") or ()
    }
    for each in requirements.get("amounts") or ():
        name = each["name"].lower()
        if name in limited:
            continue
        if name not in amounts:
            return False
        low, high = amounts[name]
        if "min" in each and low < each["min"]:
            return False
        if "max" in each and (high is None or high > each["max"]):
            return False
    for each in requirements.get("attributes") or ():
        values = attributes.get(each["name"].lower(), set())
        if "anyOf" in each and not values & {value.lower() for value in each["anyOf"]}:
            return False
        if "allOf" in each and not {value.lower() for value in each["allOf"]} <= values:
            return False
    return True


def check_job(farm: Any, ledger: Ledger, job: int) -> None:
    """Mark the waiting tasks of steps that no fleet of the queue can run, and cancel those of the other steps.

    A queue without fleets is left alone: one may be on its way.
    """
    db = ledger.db
    queue_id = store.value(db, "SELECT queue_id FROM jobs WHERE job = ?", job)
    fleets = [
        row[0]
        for row in db.execute(
            "SELECT fleet_id FROM queue_fleet_associations WHERE queue_id = ? AND status = 'ACTIVE'", (queue_id,)
        )
    ]
    if not fleets:
        return
    steps = db.execute(f"SELECT {STEP_COLUMNS} FROM steps WHERE job = ?", (job,)).fetchall()
    bad = [
        step
        for step in steps
        if step["n_ready"] + step["n_pending"]
        and not any(farm.matcher.fits(db, queue_id, step, fleet_id) for fleet_id in fleets)
    ]
    if not bad:
        return
    hopeless = {step["step"] for step in bad}
    many = sum(step["n_ready"] + step["n_pending"] for step in steps) > MANY
    for step in steps:
        new = "NOT_COMPATIBLE" if step["step"] in hopeless else "CANCELED"
        if many:
            defer(ledger, job, step["step"], new, waiting=True)
            continue
        for old in WAITING:
            ledger.put(step["step"], old, new, columns=", target = NULL, ended_at = ?", args=(ledger.now,))


def recheck_queue(farm: Any, db: sqlite3.Connection, queue_id: str) -> None:
    """Look at the waiting jobs of a queue again: what could run, or could not, may have changed."""
    farm.matcher.forget()
    ledger = Ledger(db, farm.now_ms())
    rows = db.execute(
        "SELECT DISTINCT job FROM jobs JOIN steps USING (job) WHERE queue_id = ? AND jobs.n_ready + jobs.n_pending > 0"
        " AND requirements IS NOT NULL",
        (queue_id,),
    ).fetchall()
    for (job,) in rows:
        check_job(farm, ledger, job)
    ledger.settle()


def _recheck_fleet(farm: Any, db: sqlite3.Connection, fleet_id: str) -> None:
    rows = db.execute("SELECT queue_id FROM queue_fleet_associations WHERE fleet_id = ?", (fleet_id,)).fetchall()
    for (queue_id,) in rows:
        recheck_queue(farm, db, queue_id)
