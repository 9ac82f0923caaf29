"""Tags of resources, by ARN."""

from __future__ import annotations

from typing import Any

from .errors import ResourceNotFound, Validation
from .operations import Call, operation

MAX_TAGS = 50
TABLES = {
    "farm": "farms",
    "queue": "queues",
    "fleet": "fleets",
    "worker": "workers",
    "job": "jobs",
    "budget": "budgets",
    "license-endpoint": "license_endpoints",
    "monitor": "monitors",
}


def set_tags(call: Call, path: str, tags: dict[str, str] | None) -> None:
    """Add `tags` to the resource at `path` (`farm/F/queue/Q`), which the caller has found or made."""
    if not tags:
        return
    arn = call.farm.arn(path)
    call.db.executemany(
        "INSERT INTO tags VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        [(arn, name, value) for name, value in tags.items()],
    )
    count = call.db.execute("SELECT count(*) FROM tags WHERE arn = ?", (arn,)).fetchone()[0]
    if count > MAX_TAGS:
        raise Validation(f"A resource has at most {MAX_TAGS} tags.", {"tags": f"At most {MAX_TAGS} tags"})


def forget_tags(call: Call, path: str) -> None:
    """Drop the tags of a resource that is deleted."""
    call.db.execute("DELETE FROM tags WHERE arn = ?", (call.farm.arn(path),))


def _find(call: Call) -> str:
    """The path of the resource that the request's ARN names, which must exist.

    Raises: Validation, ResourceNotFound.
    """
    arn: str = call.params["resourceArn"]
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "deadline":
        raise Validation("The resource ARN is not valid.", {"resourceArn": "Member must be an ARN of this service"})
    words = parts[5].split("/")
    pairs = list(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or any(kind not in TABLES for kind, _ in pairs) or arn != call.farm.arn(parts[5]):
        raise ResourceNotFound("resource", arn)
    kind, own_id = pairs[-1]
    where = " AND ".join(f"{name.replace('-', '_')}_id = ?" for name, _ in pairs)
    try:
        found = call.db.execute(f"SELECT 1 FROM {TABLES[kind]} WHERE {where}", [each for _, each in pairs]).fetchone()
    except call.db.OperationalError:  # such as a farm below a queue: no such column
        found = None
    if found is None:
        raise ResourceNotFound(kind, own_id)
    return parts[5]


@operation("TagResource")
def tag_resource(call: Call) -> None:
    set_tags(call, _find(call), call.params.get("tags"))


@operation("UntagResource")
def untag_resource(call: Call) -> None:
    arn = call.farm.arn(_find(call))
    call.db.executemany("DELETE FROM tags WHERE arn = ? AND name = ?", [(arn, k) for k in call.params["tagKeys"]])


@operation("ListTagsForResource")
def list_tags_for_resource(call: Call) -> dict[str, Any]:
    arn = call.farm.arn(_find(call))
    rows = call.db.execute("SELECT name, value FROM tags WHERE arn = ? ORDER BY name", (arn,))
    return {"tags": {row["name"]: row["value"] for row in rows}}
