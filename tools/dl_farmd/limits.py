"""Limits: farm-wide counts of something that tasks need, such as licences."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from . import pages, store
from .errors import ResourceNotFound, Validation
from .farms import get as get_farm
from .operations import Call, operation

NAME = re.compile(r"(?i)([a-z][a-z0-9]{0,63}:)?amount(\.[a-z][a-z0-9_]{0,63})+")


def get(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    """The limit of farmId and limitId.

    Raises: ResourceNotFound.
    """
    row = store.one(db, "SELECT * FROM limits WHERE farm_id = ? AND limit_id = ?", ids["farmId"], ids["limitId"])
    if row is None:
        raise ResourceNotFound("limit", ids["limitId"])
    return row


def _check_count(params: dict[str, Any]) -> None:
    if params.get("maxCount") == 0:
        raise Validation("maxCount can't be 0.", {"maxCount": "Must be -1 (no maximum) or greater than 0"})


@operation("CreateLimit")
def create_limit(call: Call) -> dict[str, Any]:
    get_farm(call.db, call.params["farmId"])
    _check_count(call.params)
    name = call.params["amountRequirementName"]
    if not NAME.fullmatch(name) or name.lower().startswith("amount.worker."):
        raise Validation(
            "The amount requirement name is not valid.",
            {"amountRequirementName": "Must be a name such as amount.licenses, and none of amount.worker"},
        )
    limit_id = call.farm.new_id("limit")
    store.insert(
        call.db, "limits", limit_id=limit_id, created_at=call.now, created_by=call.actor,
        **store.columns(call.params, ("farmId", "displayName", "description", "amountRequirementName", "maxCount")),
    )  # fmt: skip
    return {"limitId": limit_id}


@operation("GetLimit")
def get_limit(call: Call) -> dict[str, Any]:
    row = get(call.db, call.params)
    return _members(call.db, row)


def _members(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    held = store.value(db, "SELECT sum(count) FROM limit_holds WHERE limit_id = ?", row["limit_id"])
    return store.members(row, currentCount=held or 0)


@operation("ListLimits")
def list_limits(call: Call) -> dict[str, Any]:
    get_farm(call.db, call.params["farmId"])
    found, token = pages.rows(
        call, "SELECT * FROM limits", "farm_id = ?", (call.params["farmId"],), ("created_at", "limit_id")
    )  # fmt: skip
    return {"limits": [_members(call.db, row) for row in found], "nextToken": token}


@operation("UpdateLimit")
def update_limit(call: Call) -> None:
    row = get(call.db, call.params)
    _check_count(call.params)
    store.update(
        call.db, "limits", {"limit_id": row["limit_id"]}, updated_at=call.now, updated_by=call.actor,
        **store.columns(call.params, ("displayName", "description", "maxCount")),
    )  # fmt: skip
    call.farm.emit("limit_changed", call.db, farm_id=row["farm_id"], limit_id=row["limit_id"])


@operation("DeleteLimit")
def delete_limit(call: Call) -> None:
    # The model gives this operation no error for what does not exist: deleting it again is no failure.
    ids = (call.params["farmId"], call.params["limitId"])
    queue_id = store.value(
        call.db, "SELECT queue_id FROM queue_limit_associations WHERE farm_id = ? AND limit_id = ?", *ids
    )
    if queue_id is not None:
        raise Validation(f"The limit {ids[1]} is associated with the queue {queue_id}: disassociate it first.")
    call.db.execute("DELETE FROM limits WHERE farm_id = ? AND limit_id = ?", ids)
