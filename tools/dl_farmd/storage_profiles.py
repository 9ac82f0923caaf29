"""Storage profiles: where the file systems of a kind of machine are mounted."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import lookup, pages, store
from .errors import ResourceNotFound, Validation
from .farms import get as get_farm
from .operations import Call, operation

MAX_LOCATIONS = 20


def _get(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    row = store.one(
        db, "SELECT * FROM storage_profiles WHERE storage_profile_id = ? AND farm_id = ?",
        ids["storageProfileId"], ids["farmId"],
    )  # fmt: skip
    if row is None:
        raise ResourceNotFound("storage-profile", ids["storageProfileId"])
    return row


def _check_locations(locations: list[dict[str, Any]], member: str) -> list[dict[str, Any]]:
    if len({each["name"] for each in locations}) < len(locations):
        raise Validation("Two file system locations have the same name.", {member: "Names must be unique"})
    if len(locations) > MAX_LOCATIONS:
        raise Validation(
            f"A storage profile has at most {MAX_LOCATIONS} file system locations.",
            {member: f"At most {MAX_LOCATIONS}"},
        )
    return locations


@operation("CreateStorageProfile")
def create_storage_profile(call: Call) -> dict[str, Any]:
    get_farm(call.db, call.params["farmId"])
    identity = call.farm.new_id("sp")
    store.insert(
        call.db, "storage_profiles", storage_profile_id=identity, created_at=call.now, created_by=call.actor,
        file_system_locations=_check_locations(call.params.get("fileSystemLocations", []), "fileSystemLocations"),
        **store.columns(call.params, ("farmId", "displayName", "osFamily")),
    )  # fmt: skip
    return {"storageProfileId": identity}


@operation("GetStorageProfile")
def get_storage_profile(call: Call) -> dict[str, Any]:
    return store.members(_get(call.db, call.params))


@operation("ListStorageProfiles")
def list_storage_profiles(call: Call) -> dict[str, Any]:
    get_farm(call.db, call.params["farmId"])
    found, token = pages.rows(
        call, "SELECT * FROM storage_profiles", "farm_id = ?", (call.params["farmId"],),
        ("created_at", "storage_profile_id"),
    )  # fmt: skip
    return {"storageProfiles": [store.members(row) for row in found], "nextToken": token}


@operation("UpdateStorageProfile")
def update_storage_profile(call: Call) -> None:
    row = _get(call.db, call.params)
    changes = store.columns(call.params, ("displayName", "osFamily"))
    added, removed = call.params.get("fileSystemLocationsToAdd", []), call.params.get("fileSystemLocationsToRemove", [])
    if added or removed:
        gone = {each["name"] for each in removed if each in row["file_system_locations"]}
        kept = [each for each in row["file_system_locations"] if each["name"] not in gone and each not in added]
        changes["file_system_locations"] = _check_locations(kept + added, "fileSystemLocationsToAdd")
    store.update(
        call.db, "storage_profiles", {"storage_profile_id": row["storage_profile_id"]},
        updated_at=call.now, updated_by=call.actor, **changes,
    )  # fmt: skip


@operation("DeleteStorageProfile")
def delete_storage_profile(call: Call) -> None:
    # The model gives this operation no error for what does not exist: deleting it again is no failure.
    farm_id, identity = call.params["farmId"], call.params["storageProfileId"]
    for fleet in call.db.execute("SELECT * FROM fleets WHERE farm_id = ?", (farm_id,)):
        if next(iter(fleet["configuration"].values())).get("storageProfileId") == identity:
            raise Validation(f"The fleet {fleet['fleet_id']} uses the storage profile {identity}.")
    for queue in call.db.execute("SELECT * FROM queues WHERE farm_id = ?", (farm_id,)).fetchall():
        allowed = queue["allowed_storage_profile_ids"] or []
        if identity in allowed:
            store.update(
                call.db, "queues", {"queue_id": queue["queue_id"]},
                allowed_storage_profile_ids=[each for each in allowed if each != identity],
            )  # fmt: skip
    call.db.execute("DELETE FROM storage_profiles WHERE farm_id = ? AND storage_profile_id = ?", (farm_id, identity))


@operation("GetStorageProfileForQueue")
def get_storage_profile_for_queue(call: Call) -> dict[str, Any]:
    queue = lookup.queue(call.db, call.params)
    if call.params["storageProfileId"] not in (queue["allowed_storage_profile_ids"] or ()):
        raise ResourceNotFound("storage-profile", call.params["storageProfileId"])
    return store.members(_get(call.db, call.params))


@operation("ListStorageProfilesForQueue")
def list_storage_profiles_for_queue(call: Call) -> dict[str, Any]:
    allowed = lookup.queue(call.db, call.params)["allowed_storage_profile_ids"] or []
    found, token = pages.rows(
        call, "SELECT * FROM storage_profiles",
        f"farm_id = ? AND storage_profile_id IN ({', '.join('?' * len(allowed))})", (call.params["farmId"], *allowed),
        ("created_at", "storage_profile_id"),
    )  # fmt: skip
    return {"storageProfiles": [store.members(row) for row in found], "nextToken": token}
