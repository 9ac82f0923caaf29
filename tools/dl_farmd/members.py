"""Who is a member of a farm, queue, fleet or job, at which level."""

from __future__ import annotations

from typing import Any

from . import lookup, pages, store
from .errors import ResourceNotFound
from .farms import get as get_farm
from .operations import Call, operation

MEMBERS = {"farm": "farmId", "queue": "queueId", "fleet": "fleetId", "job": "jobId"}


def _find(call: Call, scope: str) -> str:
    """The id of the resource that the path names, which must exist."""
    if scope == "farm":
        get_farm(call.db, call.params["farmId"])
    else:
        getattr(lookup, scope)(call.db, call.params)
    return str(call.params[MEMBERS[scope]])


def _associate(call: Call, scope: str) -> None:
    own_id = _find(call, scope)
    params = call.params
    call.db.execute(
        "INSERT INTO members (scope, resource_id, principal_id, principal_type, identity_store_id, membership_level,"
        " farm_id, queue_id, fleet_id, job_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET principal_type = excluded.principal_type,"
        " identity_store_id = excluded.identity_store_id, membership_level = excluded.membership_level",
        (
            scope, own_id, params["principalId"], params["principalType"], params["identityStoreId"],
            params["membershipLevel"], params["farmId"], params.get("queueId"), params.get("fleetId"),
            params.get("jobId"),
        ),
    )  # fmt: skip


def _disassociate(call: Call, scope: str) -> None:
    own_id = _find(call, scope)
    gone = call.db.execute(
        "DELETE FROM members WHERE scope = ? AND resource_id = ? AND principal_id = ?",
        (scope, own_id, call.params["principalId"]),
    ).rowcount
    if not gone:
        raise ResourceNotFound("member", call.params["principalId"])


def _list(call: Call, scope: str) -> dict[str, Any]:
    own_id = _find(call, scope)
    found, token = pages.rows(
        call, "SELECT * FROM members", "scope = ? AND resource_id = ?", (scope, own_id), ("principal_id",)
    )  # fmt: skip
    return {"members": [store.members(row) for row in found], "nextToken": token}


def _register(scope: str) -> None:
    name = scope.capitalize()
    operation(f"AssociateMemberTo{name}")(lambda call: _associate(call, scope))
    operation(f"DisassociateMemberFrom{name}")(lambda call: _disassociate(call, scope))
    operation(f"List{name}Members")(lambda call: _list(call, scope))


for _scope in MEMBERS:
    _register(_scope)


@operation("ListMemberships")
def list_memberships(call: Call) -> dict[str, Any]:
    where, args = "principal_id = ?", [call.params["principalId"]]
    if "identityStoreId" in call.params:
        where += " AND identity_store_id = ?"
        args.append(call.params["identityStoreId"])
    kinds = [kind.lower() for kind in call.params.get("resourceTypes", ())]
    if kinds:
        where += f" AND scope IN ({', '.join('?' * len(kinds))})"
        args += kinds
    found, token = pages.rows(call, "SELECT * FROM members", where, tuple(args), ("scope", "resource_id"))
    return {"memberships": [{row["scope"]: store.members(row)} for row in found], "nextToken": token}
