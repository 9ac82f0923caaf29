"""Sums over sessions: who used how much worker time.

An aggregation is worked out in the background over a connection of its own, and kept for an hour.
Source: spec/service.md section 5; money as in section 11.2.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from . import jobs, lookup, store
from .budgets import RATE
from .errors import ResourceNotFound, Throttling, Validation
from .operations import Call, operation

KEPT_MS = 3_600_000
KEYS = {
    "QUEUE_ID": "queueId",
    "FLEET_ID": "fleetId",
    "JOB_ID": "jobId",
    "USER_ID": "userId",
    "USAGE_TYPE": "usageType",
    "INSTANCE_TYPE": "instanceType",
    "LICENSE_PRODUCT": "licenseProduct",
}


def start(farm: Any) -> None:
    """Aggregations that a stop of the service interrupted have failed; old ones go."""

    def tidy(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM aggregations WHERE started_at < ?", (farm.now_ms() - KEPT_MS,))

    def give_up(db: sqlite3.Connection) -> None:
        db.execute(
            "UPDATE aggregations SET status = 'FAILED', message = 'The service was restarted.'"
            " WHERE status = 'IN_PROGRESS'"
        )

    farm.transaction(give_up)
    farm.every(600, tidy)


@operation("StartSessionsStatisticsAggregation")
def start_sessions_statistics_aggregation(call: Call) -> dict[str, Any]:
    p, db, farm = call.params, call.db, call.farm
    if store.one(db, "SELECT 1 FROM farms WHERE farm_id = ?", p["farmId"]) is None:
        raise ResourceNotFound("farm", p["farmId"])
    resources = p["resourceIds"]
    ((kind, ids),) = resources.items()
    for identity in ids:
        if kind == "queueIds":
            lookup.queue(db, {"farmId": p["farmId"], "queueId": identity})
        else:
            lookup.fleet(db, {"farmId": p["farmId"], "fleetId": identity})
    if p["endTime"] <= p["startTime"]:
        raise Validation("endTime must be after startTime.", {"endTime": "Member must be after startTime"})
    if len(set(p["groupBy"])) != len(p["groupBy"]):
        raise Validation("groupBy names a key twice.", {"groupBy": "Members must be unique"})
    if store.one(db, "SELECT 1 FROM aggregations WHERE farm_id = ? AND status = 'IN_PROGRESS'", p["farmId"]):
        raise Throttling("Another aggregation of this farm is in progress.")
    aggregation_id = farm.new_id("x").partition("-")[2]
    store.insert(
        db, "aggregations", aggregation_id=aggregation_id, farm_id=p["farmId"], status="IN_PROGRESS", request=p,
        started_at=call.now,
    )  # fmt: skip
    farm.after_commit(lambda: _begin(farm, aggregation_id, p))
    return {"aggregationId": aggregation_id}


def _begin(farm: Any, aggregation_id: str, request: dict[str, Any]) -> None:
    def prepare() -> list[dict[str, Any]]:
        db = store.connect(farm.path, read_only=True)
        try:
            return aggregate(db, request, farm.now_ms(), farm.settings.get("dollars_per_worker_hour", RATE))
        finally:
            db.close()

    def write(db: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
        store.update(db, "aggregations", {"aggregation_id": aggregation_id}, status="COMPLETED", rows=rows)

    def fail(db: sqlite3.Connection, error: BaseException) -> None:
        store.update(
            db, "aggregations", {"aggregation_id": aggregation_id}, status="FAILED",
            message=f"The aggregation failed: {error}",
        )  # fmt: skip

    farm.background(prepare, write, fail)


def aggregate(db: sqlite3.Connection, p: dict[str, Any], now: int, dollars_per_hour: float) -> list[dict[str, Any]]:
    """The rows of an aggregation: sessions that overlap the time, cut to it, grouped by keys and period."""
    ((kind, ids),) = p["resourceIds"].items()
    column = "sessions.queue_id" if kind == "queueIds" else "sessions.fleet_id"
    scale = store.value(db, "SELECT cost_scale_factor FROM farms WHERE farm_id = ?", p["farmId"]) or 1.0
    rows = db.execute(
        "SELECT sessions.queue_id, sessions.fleet_id, sessions.started_at, sessions.ended_at, jobs.job_id, jobs.name,"
        f" jobs.created_by FROM sessions JOIN jobs USING (job) WHERE {column} IN ({', '.join('?' * len(ids))})"
        " AND sessions.started_at < ? AND coalesce(sessions.ended_at, ?) > ?",
        (*ids, p["endTime"], now, p["startTime"]),
    )
    groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    names: dict[str, str] = {}
    for row in rows:
        values = {
            "QUEUE_ID": row["queue_id"],
            "FLEET_ID": row["fleet_id"],
            "JOB_ID": row["job_id"],
            "USER_ID": row["created_by"],
            "USAGE_TYPE": "COMPUTE",
        }
        names[row["job_id"]] = row["name"]
        begin = max(row["started_at"], p["startTime"])
        end = min(row["ended_at"] or now, p["endTime"])
        for first, last in _periods(begin, end, p.get("period"), p.get("timezone")):
            cut = max(begin, first), min(end, last)
            if cut[1] > cut[0]:
                span = (max(first, p["startTime"]), min(last, p["endTime"])) if "period" in p else (None, None)
                groups[(*span, *(values.get(key) for key in p["groupBy"]))].append((cut[1] - cut[0]) / 1000)
    result = []
    for key, seconds in sorted(groups.items(), key=lambda item: tuple(str(part) for part in item[0])):
        money = [each / 3600 * dollars_per_hour * scale for each in seconds]
        answer: dict[str, Any] = {
            "count": len(seconds),
            "costInUsd": _statistics(money, p["statistics"]),
            "runtimeInSeconds": _statistics(seconds, p["statistics"]),
            "aggregationStartTime": key[0],
            "aggregationEndTime": key[1],
        }
        for name, value in zip(p["groupBy"], key[2:], strict=True):
            answer[KEYS[name]] = value
        if "jobId" in answer:
            answer["jobName"] = names[answer["jobId"]]
        result.append({name: value for name, value in answer.items() if value is not None})
    return result


def _statistics(values: list[float], wanted: list[str]) -> dict[str, float]:
    work: dict[str, Callable[[list[float]], float]] = {
        "SUM": sum,
        "MIN": min,
        "MAX": max,
        "AVG": lambda each: sum(each) / len(each),
    }
    return {name.lower(): work[name](values) for name in wanted}


def _periods(begin: int, end: int, period: str | None, zone: str | None) -> list[tuple[int, int]]:
    """The calendar periods that [begin, end) touches, in ms, in the time zone `UTC±hh:mm`."""
    if period is None:
        return [(begin, end)]
    offset = timedelta(0)
    if zone:
        offset = timedelta(hours=int(zone[4:6]), minutes=int(zone[7:9])) * (-1 if zone[3] == "-" else 1)
    at = datetime.fromtimestamp(begin / 1000, UTC).astimezone(timezone(offset))
    at = at.replace(minute=0, second=0, microsecond=0)
    if period != "HOURLY":
        at = at.replace(hour=0)
    if period == "WEEKLY":
        at -= timedelta(days=at.weekday())
    if period == "MONTHLY":
        at = at.replace(day=1)
    result = []
    while at.timestamp() * 1000 < end:
        if period == "MONTHLY":
            following = at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)
        else:
            following = (
                at + {"HOURLY": timedelta(hours=1), "DAILY": timedelta(days=1), "WEEKLY": timedelta(days=7)}[period]
            )
        result.append((int(at.timestamp() * 1000), int(following.timestamp() * 1000)))
        at = following
    return result


@operation("GetSessionsStatisticsAggregation")
def get_sessions_statistics_aggregation(call: Call) -> dict[str, Any]:
    p = call.params
    row = store.one(
        call.db, "SELECT * FROM aggregations WHERE aggregation_id = ? AND farm_id = ?", p["aggregationId"], p["farmId"]
    )
    if row is None or row["started_at"] < call.now - KEPT_MS:
        raise ResourceNotFound("sessions-statistics-aggregation", p["aggregationId"])
    items, token = jobs.pages_of_list(call, row["rows"] or [])
    return {"statistics": items, "status": row["status"], "statusMessage": row["message"], "nextToken": token}
