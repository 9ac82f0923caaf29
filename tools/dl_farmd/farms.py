"""Farms."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import auth, pages, store
from .errors import ResourceNotFound, Validation
from .operations import Call, operation
from .tags import set_tags

FIELDS = ("displayName", "description", "kmsKeyArn", "costScaleFactor")


def get(db: sqlite3.Connection, farm_id: str) -> sqlite3.Row:
    """The row of a farm.

    Raises: ResourceNotFound.
    """
    row = store.one(db, "SELECT * FROM farms WHERE farm_id = ?", farm_id)
    if row is None:
        raise ResourceNotFound("farm", farm_id)
    return row


@operation("CreateFarm")
def create_farm(call: Call) -> dict[str, Any]:
    farm_id = call.farm.new_id("farm")
    store.insert(
        call.db,
        "farms",
        farm_id=farm_id,
        created_at=call.now,
        created_by=call.actor,
        **store.columns(call.params, FIELDS),
    )
    set_tags(call, f"farm/{farm_id}", call.params.get("tags"))
    return {"farmId": farm_id}


@operation("GetFarm")
def get_farm(call: Call) -> dict[str, Any]:
    return store.members(get(call.db, call.params["farmId"]))


@operation("ListFarms")
def list_farms(call: Call) -> dict[str, Any]:
    # Clients ask every region of a fixed list; the farm is in its own one only, or it would show ten times.
    if call.region != call.farm.region:
        return pages.nothing(call, "farms")
    found, token = pages.rows(
        call,
        "SELECT * FROM farms",
        *auth.narrowed(call.principal, call.params, "farm", call.db),
        ("created_at", "farm_id"),
    )
    return {"farms": [store.members(row) for row in found], "nextToken": token}


@operation("UpdateFarm")
def update_farm(call: Call) -> None:
    farm_id = call.params["farmId"]
    get(call.db, farm_id)
    store.update(
        call.db,
        "farms",
        {"farm_id": farm_id},
        updated_at=call.now,
        updated_by=call.actor,
        **store.columns(call.params, FIELDS),
    )


@operation("DeleteFarm")
def delete_farm(call: Call) -> None:
    farm_id = call.params["farmId"]
    get(call.db, farm_id)
    for table in ("queues", "fleets", "budgets"):
        if store.one(call.db, f"SELECT 1 FROM {table} WHERE farm_id = ?", farm_id):
            raise Validation(f"The farm {farm_id} still has {table}: delete them first.")
    call.farm.emit("farm_deleting", call.db, farm_id=farm_id)
    for table in ("queue_limit_associations", "storage_profiles", "limits", "members", "farms"):
        call.db.execute(f"DELETE FROM {table} WHERE farm_id = ?", (farm_id,))
    arn = call.farm.arn(f"farm/{farm_id}")
    call.db.execute("DELETE FROM tags WHERE arn = ? OR arn LIKE ? || '/%'", (arn, arn))
