"""License endpoints and metered products belong to the cloud: endpoints are stored and never ready, products none."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import pages, store
from .errors import ResourceNotFound
from .operations import Call, operation
from .tags import forget_tags, set_tags


def _get(db: sqlite3.Connection, identity: str) -> sqlite3.Row:
    row = store.one(db, "SELECT * FROM license_endpoints WHERE license_endpoint_id = ?", identity)
    if row is None:
        raise ResourceNotFound("license-endpoint", identity)
    return row


@operation("CreateLicenseEndpoint")
def create_license_endpoint(call: Call) -> dict[str, Any]:
    identity = call.farm.new_id("le")
    store.insert(
        call.db, "license_endpoints", license_endpoint_id=identity, status="NOT_READY",
        status_message="A farm on one machine has no license servers.", created_at=call.now, created_by=call.actor,
        **store.columns(call.params, ("vpcId", "subnetIds", "securityGroupIds")),
    )  # fmt: skip
    set_tags(call, f"license-endpoint/{identity}", call.params.get("tags"))
    return {"licenseEndpointId": identity}


@operation("GetLicenseEndpoint")
def get_license_endpoint(call: Call) -> dict[str, Any]:
    return store.members(_get(call.db, call.params["licenseEndpointId"]))


@operation("ListLicenseEndpoints")
def list_license_endpoints(call: Call) -> dict[str, Any]:
    found, token = pages.rows(call, "SELECT * FROM license_endpoints", "1", (), ("created_at", "license_endpoint_id"))
    return {"licenseEndpoints": [store.members(row) for row in found], "nextToken": token}


@operation("DeleteLicenseEndpoint")
def delete_license_endpoint(call: Call) -> None:
    identity = call.params["licenseEndpointId"]
    _get(call.db, identity)
    call.db.execute("DELETE FROM license_endpoints WHERE license_endpoint_id = ?", (identity,))
    forget_tags(call, f"license-endpoint/{identity}")


@operation("PutMeteredProduct")
def put_metered_product(call: Call) -> dict[str, Any]:
    _get(call.db, call.params["licenseEndpointId"])
    raise ResourceNotFound("metered-product", call.params["productId"])


@operation("DeleteMeteredProduct")
def delete_metered_product(call: Call) -> dict[str, Any]:
    _get(call.db, call.params["licenseEndpointId"])
    raise ResourceNotFound("metered-product", call.params["productId"])


@operation("ListMeteredProducts")
def list_metered_products(call: Call) -> dict[str, Any]:
    _get(call.db, call.params["licenseEndpointId"])
    return pages.nothing(call, "meteredProducts")


@operation("ListAvailableMeteredProducts")
def list_available_metered_products(call: Call) -> dict[str, Any]:
    return pages.nothing(call, "meteredProducts")
