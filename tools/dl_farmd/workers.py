"""Workers: their life, their credentials, and what becomes of their work when they are gone.

Source: spec/service.md sections 4.2, 9.1 and 9.2; spec/worker.md section 1.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from . import jobs, lookup, pages, store
from .errors import AccessDenied, Conflict
from .operations import Call, operation
from .run_status import Ledger
from .scheduling import ONLINE, SILENT_S, end_sessions, log_configuration, log_group, silence_s
from .tags import forget_tags, set_tags

ROLE_LIFE_S = 3600
SILENT_INTERVALS = 6  # update intervals without a word, and SILENT_S seconds, before a worker is lost
LOOK_S = 5
MAX_SCRIPT_S = 3600  # of a host configuration
NEARLY = 0.9  # of a fleet's least amount is enough: kernels keep some memory, and not always as much
GONE = ("STOPPED", "NOT_RESPONDING")
DELETABLE = ("CREATED", *GONE)


def start(farm: Any) -> None:
    """Restart the clocks of all workers, which could not be heard while the service was away, and watch them."""

    def restart_clocks(db: sqlite3.Connection) -> None:
        db.execute(
            f"UPDATE workers SET heard_at = ? WHERE status IN ({', '.join('?' * len(ONLINE))})",
            (farm.now_ms(), *ONLINE),
        )

    farm.transaction(restart_clocks)
    farm.every(farm.settings.get("worker_look_s", LOOK_S), lambda db: lose_silent(farm, db))


def lose_silent(farm: Any, db: sqlite3.Connection) -> None:
    """Declare lost the workers that were silent too long, and take back their work."""
    now = farm.now_ms()
    rows = db.execute(
        f"SELECT * FROM workers WHERE status IN ({', '.join('?' * len(ONLINE))})"
        " AND heard_at < ? - max(?, interval_s * ?)",
        (*ONLINE, now, int(silence_s(farm) * 1000), SILENT_INTERVALS * 1000),
    ).fetchall()
    for worker in rows:
        ledger = Ledger(db, now)
        end_sessions(ledger, worker, farm, lost=True)
        ledger.settle()
        store.update(db, "workers", {"worker": worker["worker"]}, status="NOT_RESPONDING", updated_at=now)
        if ledger.readied:
            farm.emit("work", db, fleet_id=worker["fleet_id"])
        farm.tell(f"worker {worker['worker_id']} does not respond; its work is taken back")


def worker_log(row: sqlite3.Row) -> dict[str, Any]:
    """Where a worker sends its own log."""
    return log_configuration(log_group(row["farm_id"], row["fleet_id"]), row["worker_id"])


def details(row: sqlite3.Row) -> dict[str, Any]:
    """A worker as GetWorker answers it."""
    return {
        "farmId": row["farm_id"],
        "fleetId": row["fleet_id"],
        "workerId": row["worker_id"],
        "hostProperties": row["host"],
        "status": row["status"],
        "log": worker_log(row),
        "createdAt": row["created_at"],
        "createdBy": row["created_by"],
        "updatedAt": row["updated_at"],
        "updatedBy": row["updated_by"],
    }


@operation("CreateWorker")
def create_worker(call: Call) -> dict[str, Any]:
    p, db = call.params, call.db
    fleet = lookup.fleet(db, p)
    if fleet["status"] != "ACTIVE":
        raise Conflict(
            "STATUS_CONFLICT", "fleet", p["fleetId"], f"The fleet is {fleet['status']}.", {"status": fleet["status"]}
        )
    # Those that are gone or never came do not count: hosts that come and go would fill the fleet with them.
    there = store.value(
        db, f"SELECT count(*) FROM workers WHERE fleet_id = ? AND status NOT IN ({', '.join('?' * len(GONE))})"
        " AND NOT (status = 'CREATED' AND created_at < ?)",
        p["fleetId"], *GONE, call.now - int(silence_s(call.farm) * 1000),
    )  # fmt: skip
    if there >= fleet["max_worker_count"]:
        # A quota error would fit, but is not among those that this operation may answer.
        raise Conflict(
            "STATUS_CONFLICT",
            "fleet",
            p["fleetId"],
            f"The fleet has {there} workers, and may have {fleet['max_worker_count']}.",
            {"status": fleet["status"]},
        )
    worker_id = call.farm.new_id("worker")
    store.insert(
        db, "workers", worker_id=worker_id, farm_id=p["farmId"], fleet_id=p["fleetId"], status="CREATED",
        host=p.get("hostProperties"), created_at=call.now, created_by=call.actor,
    )  # fmt: skip
    db.execute("UPDATE fleets SET worker_count = worker_count + 1 WHERE fleet_id = ?", (p["fleetId"],))
    set_tags(call, _path(p, worker_id), p.get("tags"))
    return {"workerId": worker_id}


def _path(ids: dict[str, Any], worker_id: str) -> str:
    return f"farm/{ids['farmId']}/fleet/{ids['fleetId']}/worker/{worker_id}"


@operation("GetWorker")
def get_worker(call: Call) -> dict[str, Any]:
    return details(lookup.worker(call.db, call.params))


@operation("BatchGetWorker")
def batch_get_worker(call: Call) -> dict[str, Any]:
    return jobs.batch(call, "workers", lambda ids: details(lookup.worker(call.db, ids)))


@operation("ListWorkers")
def list_workers(call: Call) -> dict[str, Any]:
    lookup.fleet(call.db, call.params)
    rows, token = pages.rows(call, "SELECT * FROM workers", "fleet_id = ?", (call.params["fleetId"],), ("worker",))
    return {"workers": [details(row) for row in rows], "nextToken": token}


@operation("DeleteWorker")
def delete_worker(call: Call) -> dict[str, Any]:
    row = lookup.worker(call.db, call.params)
    if row["status"] not in DELETABLE:
        raise Conflict(
            "STATUS_CONFLICT",
            "worker",
            row["worker_id"],
            f"A worker that is {row['status']} can't be deleted: stop it first.",
            {"status": row["status"]},
        )
    call.db.execute("DELETE FROM workers WHERE worker = ?", (row["worker"],))
    call.db.execute("UPDATE fleets SET worker_count = worker_count - 1 WHERE fleet_id = ?", (row["fleet_id"],))
    forget_tags(call, _path(call.params, row["worker_id"]))
    return {}


@operation("UpdateWorker")
def update_worker(call: Call) -> dict[str, Any]:
    p, db = call.params, call.db
    row = lookup.worker(db, p)
    fleet = lookup.fleet(db, p)
    status = p.get("status")
    columns: dict[str, Any] = {"updated_at": call.now, "updated_by": call.actor, "heard_at": call.now}
    for member, column in (("capabilities", "capabilities"), ("hostProperties", "host")):
        if member in p:
            columns[column] = p[member]
    result: dict[str, Any] = {}
    if status == "STARTED":
        if row["status"] == "STOPPING":
            raise _offline(row["worker_id"], row["status"])  # the agent then says STOPPED, and starts again
        if not _is_compatible(columns.get("capabilities", row["capabilities"]), fleet):
            # The refusal undoes what this request writes, so the status is written after it.
            call.farm.soon(lambda db: _mark_incompatible(call.farm, db, row["worker"]))
            raise _offline(row["worker_id"], "NOT_COMPATIBLE")
        _take_back(call, row, lost=True)  # it was gone without a word, if it had work
        columns["status"] = "STARTED"
        call.farm.logs.create(log_group(p["farmId"], p["fleetId"]), row["worker_id"])
        result = {"log": worker_log(row), "hostConfiguration": fleet["host_configuration"]}
        columns["interval_s"] = 0
        if fleet["host_configuration"]:
            # The agent says nothing while it runs the script.
            script_s = fleet["host_configuration"].get("scriptTimeoutSeconds", MAX_SCRIPT_S)
            columns["interval_s"] = -(-(script_s + SILENT_S) // SILENT_INTERVALS)
    elif status == "STOPPING":
        if row["status"] in ONLINE:
            columns["status"] = "STOPPING"
        elif row["status"] != "STOPPED":
            raise _offline(row["worker_id"], row["status"])
    elif status == "STOPPED":
        _take_back(call, row, lost=False)
        columns["status"] = "STOPPED"
    store.update(db, "workers", {"worker": row["worker"]}, **columns)
    return result


def _take_back(call: Call, row: sqlite3.Row, *, lost: bool) -> None:
    ledger = Ledger(call.db, call.now)
    end_sessions(ledger, row, call.farm, lost=lost)
    ledger.settle()
    if ledger.readied:
        call.farm.emit("work", call.db, fleet_id=row["fleet_id"])


def _mark_incompatible(farm: Any, db: sqlite3.Connection, worker: int) -> None:
    row = store.one(db, "SELECT * FROM workers WHERE worker = ?", worker)
    if row is not None:
        ledger = Ledger(db, farm.now_ms())
        end_sessions(ledger, row, farm, lost=False)
        ledger.settle()
        store.update(db, "workers", {"worker": worker}, status="NOT_COMPATIBLE", updated_at=farm.now_ms())


def _offline(worker_id: str, status: str) -> Conflict:
    return Conflict("STATUS_CONFLICT", "worker", worker_id, f"The worker is {status}.", {"status": status})


def _is_compatible(given: dict[str, Any] | None, fleet: sqlite3.Row) -> bool:
    """Whether a worker is of its fleet's kind, as far as it tells of what the fleet's configuration names."""
    if not given:
        return True
    configured = fleet["capabilities"] or {}
    least = {each["name"].lower(): each["min"] for each in configured.get("amounts") or ()}
    if any(each["value"] < least.get(each["name"].lower(), 0) * NEARLY for each in given["amounts"]):
        return False
    allowed = {
        each["name"].lower(): {value.lower() for value in each["values"]} for each in configured.get("attributes") or ()
    }
    return all(
        {value.lower() for value in each["values"]} & allowed[each["name"].lower()]
        for each in given["attributes"]
        if each["name"].lower() in allowed
    )


@operation("AssumeFleetRoleForWorker")
def assume_fleet_role_for_worker(call: Call) -> dict[str, Any]:
    p = call.params
    row = lookup.worker(call.db, p)
    fleet = lookup.fleet(call.db, p)
    if call.principal.kind == "bootstrap" and row["status"] in ONLINE:
        # Whoever can make workers must not take over one that works.
        raise _offline(row["worker_id"], row["status"])
    claims = {"kind": "worker", "farm": p["farmId"], "fleet": p["fleetId"], "worker": p["workerId"]}
    return {"credentials": _credentials(call, claims, fleet["role_arn"])}


@operation("AssumeQueueRoleForWorker")
def assume_queue_role_for_worker(call: Call) -> dict[str, Any]:
    p = call.params
    row = lookup.worker(call.db, p)
    queue = lookup.queue(call.db, p)
    if row["status"] not in ONLINE:
        raise _offline(row["worker_id"], row["status"])
    at_work = store.value(
        call.db,
        "SELECT 1 FROM sessions WHERE worker = ? AND queue_id = ? AND status = 'STARTED'",
        row["worker"],
        p["queueId"],
    )
    if not at_work:
        raise AccessDenied(f"Worker {row['worker_id']} has no session of queue {p['queueId']}.")
    if not queue["role_arn"]:
        return {}
    settings = queue["job_attachment_settings"] or {}
    claims = {
        "kind": "queue_worker",
        "farm": p["farmId"],
        "queue": p["queueId"],
        "fleet": p["fleetId"],
        "worker": p["workerId"],
        "bucket": settings.get("s3BucketName"),
        "prefix": settings.get("rootPrefix"),
    }
    return {"credentials": _credentials(call, claims, queue["role_arn"])}


def _credentials(call: Call, claims: dict[str, Any], role: str) -> dict[str, Any]:
    minted = call.farm.ring.mint({**claims, "role": role}, ROLE_LIFE_S)
    return {
        "accessKeyId": minted.access_key_id,
        "secretAccessKey": minted.secret_access_key,
        "sessionToken": minted.session_token,
        "expiration": minted.expires * 1000,
    }
