"""Tags of resources, by ARN."""

from __future__ import annotations

import re
from typing import Any

from .errors import ResourceNotFound, Validation
from .operations import Call, operation

MAX_TAGS = 50
MAX_NAME, MAX_VALUE = 128, 256  # characters
ALLOWED = re.compile(r"[\w\s.:/=+\-@]*")  # letters, digits and spaces of any language, and these
RESERVED = "aws:"
TABLES = {
    ("farm",): "farms",
    ("farm", "queue"): "queues",
    ("farm", "fleet"): "fleets",
    ("farm", "fleet", "worker"): "workers",
    ("farm", "queue", "job"): "jobs",
    ("farm", "budget"): "budgets",
    ("license-endpoint",): "license_endpoints",
    ("monitor",): "monitors",
}


def set_tags(call: Call, path: str, tags: dict[str, str] | None) -> None:
    """Add `tags` to the resource at `path` (`farm/F/queue/Q`), which the caller has found or made."""
    if not tags:
        return
    for name, value in tags.items():
        _check(name, value)
    arn = call.farm.arn(path)
    call.db.executemany(
        "INSERT INTO tags VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        [(arn, name, value) for name, value in tags.items()],
    )
    count = call.db.execute("SELECT count(*) FROM tags WHERE arn = ?", (arn,)).fetchone()[0]
    if count > MAX_TAGS:
        raise Validation(f"A resource has at most {MAX_TAGS} tags.", {"tags": f"At most {MAX_TAGS} tags"})


def _check(name: str, value: str) -> None:
    """Hold a tag to what AWS asks of tags of any service.

    Raises: Validation.
    """
    fault = None
    if not 1 <= len(name) <= MAX_NAME:
        fault = f"A tag's key has 1 to {MAX_NAME} characters"
    elif len(value) > MAX_VALUE:
        fault = f"A tag's value has at most {MAX_VALUE} characters"
    elif name.lower().startswith(RESERVED):
        fault = f"Keys that begin with {RESERVED} are reserved"
    elif not all(ALLOWED.fullmatch(text) and "\n" not in text for text in (name, value)):
        fault = "A tag has letters, digits, spaces and _.:/=+-@"
    if fault:
        raise Validation(f"{fault}.", {"tags": fault})


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
    kinds, own_ids = tuple(words[::2]), words[1::2]
    if len(words) % 2 or kinds not in TABLES or arn != call.farm.arn(parts[5]):
        raise ResourceNotFound("resource", arn)
    where = " AND ".join(f"{kind.replace('-', '_')}_id = ?" for kind in kinds)
    if call.db.execute(f"SELECT 1 FROM {TABLES[kinds]} WHERE {where}", own_ids).fetchone() is None:
        raise ResourceNotFound(kinds[-1], own_ids[-1])
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
