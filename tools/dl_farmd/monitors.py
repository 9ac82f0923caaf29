"""Monitors: stored, with their settings; the web application that they stand for is the cloud's."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import pages, store
from .errors import ResourceNotFound, Validation
from .operations import Call, operation
from .tags import forget_tags, set_tags

MAX_SETTINGS = 64


def _get(db: sqlite3.Connection, monitor_id: str) -> sqlite3.Row:
    row = store.one(db, "SELECT * FROM monitors WHERE monitor_id = ?", monitor_id)
    if row is None:
        raise ResourceNotFound("monitor", monitor_id)
    return row


def _url(call: Call, subdomain: str) -> str:
    taken = store.value(call.db, "SELECT monitor_id FROM monitors WHERE subdomain = ?", subdomain)
    if taken not in (None, call.params.get("monitorId")):
        raise Validation("The subdomain is taken.", {"subdomain": "Another monitor has this subdomain"})
    return f"https://{subdomain}.{call.farm.region}.deadlinecloud.amazonaws.com"


@operation("CreateMonitor")
def create_monitor(call: Call) -> dict[str, Any]:
    monitor_id = call.farm.new_id("monitor")
    instance = call.params["identityCenterInstanceArn"].rpartition("/")[2]
    application = f"arn:aws:sso::{call.farm.account}:application/{instance}/apl-{monitor_id[-16:]}"
    store.insert(
        call.db, "monitors", monitor_id=monitor_id, url=_url(call, call.params["subdomain"]),
        identity_center_application_arn=application, created_at=call.now, created_by=call.actor,
        **store.columns(
            call.params, ("displayName", "subdomain", "roleArn", "identityCenterInstanceArn", "identityCenterRegion")
        ),
    )  # fmt: skip
    set_tags(call, f"monitor/{monitor_id}", call.params.get("tags"))
    return {"monitorId": monitor_id, "identityCenterApplicationArn": application}


@operation("GetMonitor")
def get_monitor(call: Call) -> dict[str, Any]:
    return store.members(_get(call.db, call.params["monitorId"]))


@operation("ListMonitors")
def list_monitors(call: Call) -> dict[str, Any]:
    found, token = pages.rows(call, "SELECT * FROM monitors", "1", (), ("created_at", "monitor_id"))
    return {"monitors": [store.members(row) for row in found], "nextToken": token}


@operation("UpdateMonitor")
def update_monitor(call: Call) -> None:
    monitor_id = call.params["monitorId"]
    _get(call.db, monitor_id)
    changes = store.columns(call.params, ("displayName", "subdomain", "roleArn"))
    if "subdomain" in changes:
        changes["url"] = _url(call, changes["subdomain"])
    store.update(
        call.db, "monitors", {"monitor_id": monitor_id}, updated_at=call.now, updated_by=call.actor, **changes
    )  # fmt: skip


@operation("DeleteMonitor")
def delete_monitor(call: Call) -> None:
    monitor_id = call.params["monitorId"]
    _get(call.db, monitor_id)
    call.db.execute("DELETE FROM monitors WHERE monitor_id = ?", (monitor_id,))
    forget_tags(call, f"monitor/{monitor_id}")


@operation("GetMonitorSettings")
def get_monitor_settings(call: Call) -> dict[str, Any]:
    monitor_id = call.params["monitorId"]
    _get(call.db, monitor_id)
    rows = call.db.execute("SELECT name, value FROM monitor_settings WHERE monitor_id = ? ORDER BY name", (monitor_id,))
    return {"settings": {row["name"]: row["value"] for row in rows}}


@operation("UpdateMonitorSettings")
def update_monitor_settings(call: Call) -> None:
    monitor_id = call.params["monitorId"]
    _get(call.db, monitor_id)
    for name, text in call.params["settings"].items():
        if text:
            call.db.execute(
                "INSERT INTO monitor_settings VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (monitor_id, name, text),
            )
        else:
            call.db.execute("DELETE FROM monitor_settings WHERE monitor_id = ? AND name = ?", (monitor_id, name))
    if store.value(call.db, "SELECT count(*) FROM monitor_settings WHERE monitor_id = ?", monitor_id) > MAX_SETTINGS:
        raise Validation(f"A monitor has at most {MAX_SETTINGS} settings.", {"settings": f"At most {MAX_SETTINGS}"})
