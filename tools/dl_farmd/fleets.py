"""Fleets: configuration, the capabilities that follow from it, and volumes, of which one machine has none."""

from __future__ import annotations

from typing import Any

from . import auth, lookup, pages, store
from .errors import Conflict, ResourceNotFound, Validation
from .farms import get as get_farm
from .operations import Call, operation
from .tags import forget_tags, set_tags

FIELDS = (
    "displayName",
    "description",
    "roleArn",
    "minWorkerCount",
    "maxWorkerCount",
    "configuration",
    "hostConfiguration",
)
SCRIPT_TIMEOUT_S = 300  # of a host configuration script, where none is given
AUTO_SCALING = {"standbyWorkerCount": 0, "workerIdleDurationSeconds": 300, "scaleOutWorkersPerMinute": 10}


@operation("CreateFleet")
def create_fleet(call: Call) -> dict[str, Any]:
    farm_id = call.params["farmId"]
    get_farm(call.db, farm_id)
    fleet_id = call.farm.new_id("fleet")
    store.insert(
        call.db, "fleets", fleet_id=fleet_id, farm_id=farm_id, status="ACTIVE", auto_scaling_status="STEADY",
        target_worker_count=0, created_at=call.now, created_by=call.actor, **_columns(call),
    )  # fmt: skip
    _check(call, fleet_id)
    set_tags(call, f"farm/{farm_id}/fleet/{fleet_id}", call.params.get("tags"))
    return {"fleetId": fleet_id}


@operation("GetFleet")
def get_fleet(call: Call) -> dict[str, Any]:
    return store.members(lookup.fleet(call.db, call.params))


@operation("ListFleets")
def list_fleets(call: Call) -> dict[str, Any]:
    get_farm(call.db, call.params["farmId"])
    more, more_args = auth.narrowed(call.principal, call.params, "fleet", call.db)
    where, args = f"farm_id = ? AND {more}", [call.params["farmId"], *more_args]
    for member, column in (("displayName", "display_name"), ("status", "status")):
        if member in call.params:
            where += f" AND {column} = ?"
            args.append(call.params[member])
    found, token = pages.rows(call, "SELECT * FROM fleets", where, tuple(args), ("created_at", "fleet_id"))
    return {"fleets": [store.members(row) for row in found], "nextToken": token}


@operation("UpdateFleet")
def update_fleet(call: Call) -> None:
    row = lookup.fleet(call.db, call.params)
    store.update(
        call.db, "fleets", {"fleet_id": row["fleet_id"]}, updated_at=call.now, updated_by=call.actor, **_columns(call)
    )  # fmt: skip
    _check(call, row["fleet_id"])
    call.farm.emit("fleet_changed", call.db, farm_id=row["farm_id"], fleet_id=row["fleet_id"])


@operation("DeleteFleet")
def delete_fleet(call: Call) -> None:
    row = lookup.fleet(call.db, call.params)
    fleet_id, farm_id = row["fleet_id"], row["farm_id"]
    for table, what in (("queue_fleet_associations", "an associated queue"), ("workers", "workers")):
        if store.one(call.db, f"SELECT 1 FROM {table} WHERE fleet_id = ?", fleet_id):
            raise Conflict("RESOURCE_IN_USE", "fleet", fleet_id, f"The fleet {fleet_id} still has {what}.")
    call.farm.emit("fleet_deleting", call.db, farm_id=farm_id, fleet_id=fleet_id)
    call.db.execute("DELETE FROM members WHERE fleet_id = ?", (fleet_id,))
    call.db.execute("DELETE FROM fleets WHERE fleet_id = ?", (fleet_id,))
    forget_tags(call, f"farm/{farm_id}/fleet/{fleet_id}")


def _columns(call: Call) -> dict[str, Any]:
    columns = store.columns(call.params, FIELDS)
    if "configuration" in columns:
        columns["capabilities"] = capabilities_of(columns["configuration"])
        managed = columns["configuration"].get("customerManaged", {})
        if managed.get("mode") == "EVENT_BASED_AUTO_SCALING":
            managed["autoScalingConfiguration"] = {**AUTO_SCALING, **managed.get("autoScalingConfiguration", {})}
    if "host_configuration" in columns:
        columns["host_configuration"].setdefault("scriptTimeoutSeconds", SCRIPT_TIMEOUT_S)
    return columns


def _check(call: Call, fleet_id: str) -> None:
    """Refuse a fleet whose settings contradict each other.

    Raises: Validation; the frame undoes what was written.
    """
    row = store.one(call.db, "SELECT * FROM fleets WHERE fleet_id = ?", fleet_id)
    assert row is not None
    faults = {}
    if row["min_worker_count"] > row["max_worker_count"]:
        faults["minWorkerCount"] = "Must not be greater than maxWorkerCount"
    for amount in row["capabilities"]["amounts"]:
        if "max" in amount and amount["min"] > amount["max"]:
            faults["configuration"] = f"The minimum of {amount['name']} is greater than its maximum"
    kind, settings = next(iter(row["configuration"].items()))
    names = [each["name"].lower() for each in (*row["capabilities"]["amounts"], *row["capabilities"]["attributes"])]
    if len(set(names)) < len(names):
        faults["configuration"] = "Each capability may be given once"
    profile_id = settings.get("storageProfileId")
    if profile_id and not store.one(
        call.db,
        "SELECT 1 FROM storage_profiles WHERE storage_profile_id = ? AND farm_id = ?",
        profile_id,
        row["farm_id"],
    ):
        faults[f"configuration.{kind}.storageProfileId"] = f"Storage profile {profile_id} does not exist"
    if faults:
        raise Validation("; ".join(faults.values()) + ".", faults)


def capabilities_of(configuration: dict[str, Any]) -> dict[str, Any]:
    """The amounts and attributes that every worker of a fleet has, by the fleet's configuration.

    Shape: {"amounts": [{name, min, max?}], "attributes": [{name, values}]}, as GetFleet answers them.
    """
    kind, settings = next(iter(configuration.items()))
    own = settings["workerCapabilities" if kind == "customerManaged" else "instanceCapabilities"]
    gpus = own.get("acceleratorCapabilities", {})
    count = own.get("acceleratorCount") or gpus.get("count")
    if gpus and not count:
        count = {"min": 1}
    ranges = (
        ("amount.worker.vcpu", own["vCpuCount"]),
        ("amount.worker.memory", own["memoryMiB"]),
        ("amount.worker.gpu", count),
        ("amount.worker.gpu.memory", own.get("acceleratorTotalMemoryMiB")),
    )
    amounts = [{"name": name, **limits} for name, limits in ranges if limits]
    attributes = [
        {"name": "attr.worker.os.family", "values": [own["osFamily"].lower()]},
        {"name": "attr.worker.cpu.arch", "values": [own["cpuArchitectureType"]]},
    ]
    return {
        "amounts": amounts + own.get("customAmounts", []),
        "attributes": attributes + own.get("customAttributes", []),
    }


@operation("ListVolumes")
def list_volumes(call: Call) -> dict[str, Any]:
    lookup.fleet(call.db, call.params)
    return pages.nothing(call, "volumes")


@operation("GetVolume")
def get_volume(call: Call) -> dict[str, Any]:
    lookup.fleet(call.db, call.params)
    raise ResourceNotFound("volume", call.params["volumeId"])


@operation("DeleteVolume")
def delete_volume(call: Call) -> None:
    lookup.fleet(call.db, call.params)
    raise ResourceNotFound("volume", call.params["volumeId"])
