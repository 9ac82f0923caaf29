"""Requests made from the service model, right and wrong: never a 500, and wrong ones get the modelled error."""

from __future__ import annotations

import json
import random
import re
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from model_values import MODEL, OPERATIONS, SHAPES, valid


def call(client: Any, operation: str, params: dict[str, Any]) -> dict[str, Any] | str:
    """The answer, or the error's name."""
    from botocore import xform_name

    try:
        answer = getattr(client, xform_name(operation))(**params)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status < 500, f"{operation} answered {status} to {params}: {error}"
        return str(error.response["Error"]["Code"])
    return dict(answer)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_valid_requests_are_answered_or_refused_as_modelled(operation: str, farmd: Any, farm_ids: Any) -> None:
    client = farmd.client()
    modelled = {each["shape"] for each in MODEL["operations"][operation]["errors"]}
    shape = MODEL["operations"][operation]["input"]["shape"]
    for seed in range(6):
        rng = random.Random(f"{operation} {seed}")
        # Half of them name what exists, half what does not.
        ids = {"farmId": farm_ids.farm, "queueId": farm_ids.queue, "fleetId": farm_ids.fleet} if seed % 2 else {}
        if operation.startswith("Delete") and operation != "DeleteQueueFleetAssociation":
            ids = {name: each for name, each in ids.items() if f"Delete{name[0].upper()}{name[1:-2]}" != operation}
        outcome = call(client, operation, valid(shape, rng, ids))
        if isinstance(outcome, str):
            assert outcome in modelled, f"{operation} answered {outcome}"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_wrong_requests_get_the_validation_error(operation: str, farmd: Any, farm_ids: Any) -> None:
    name = MODEL["operations"][operation]["input"]["shape"]
    ids = {"farmId": farm_ids.farm, "queueId": farm_ids.queue, "fleetId": farm_ids.fleet}
    for member, wrong in wrong_values(SHAPES[name]):
        answer = send(farmd, operation, {**valid(name, random.Random(operation), ids), member: wrong})
        assert (answer.status, answer.error) == (400, "ValidationException"), (member, wrong, answer)
        assert answer.body["reason"] == "FIELD_VALIDATION_FAILED", (member, wrong, answer)
        assert any(fault["name"].startswith(member) for fault in answer.body["fieldList"]), (member, wrong, answer)


def send(farmd: Any, operation: str, params: dict[str, Any]) -> Any:
    """Send `params` as they are: botocore's serialiser stumbles over what has the wrong type."""
    description = MODEL["operations"][operation]
    target, query, headers, body = description["http"]["requestUri"], [], {"content-type": "application/json"}, {}
    for member, reference in SHAPES[description["input"]["shape"]]["members"].items():
        if member not in params:
            continue
        location, wire, value = reference.get("location"), reference.get("locationName", member), params[member]
        if location == "uri":
            target = target.replace("{" + wire + "}", quote(str(value), safe="-_.~"))
        elif location == "querystring":
            values = value if isinstance(value, list) else [value]
            query += [f"{quote(wire, safe='-_.~')}={quote(str(each), safe='-_.~')}" for each in values]
        elif location == "header":
            headers[wire.lower()] = value
        else:
            body[member] = value
    content = json.dumps(body).encode()
    if query:
        target += "?" + "&".join(query)
    return farmd.send(description["http"]["method"], target, content, headers)


def wrong_values(shape: dict[str, Any]) -> list[tuple[str, Any]]:
    """(member, a value of it that the model forbids and botocore lets through) of an input shape."""
    found: list[tuple[str, Any]] = []
    for member, reference in shape["members"].items():
        inner = SHAPES[reference["shape"]]
        location = reference.get("location")
        kind = inner["type"]
        if kind == "string" and "enum" in inner:
            found.append((member, "NO_SUCH_VALUE"))
        elif (
            kind == "string" and inner.get("pattern") not in (None, "[^\"'/\\[\\]:;|=,+*?<>\\s]*") and location != "uri"
        ):
            found.append((member, "§ not this §"))
        elif kind == "string" and inner.get("pattern") and location == "uri":
            found.append((member, "nonsense!"))
        if kind == "string" and inner.get("max", 1 << 30) < 20_000 and location != "uri":
            found.append((member, "x" * (inner["max"] + 1)))
        if kind == "integer" and inner.get("max", 1 << 31) < (1 << 31) - 1:
            found.append((member, inner["max"] + 1))
        if kind == "integer" and "min" in inner:
            found.append((member, inner["min"] - 1))
        if kind in ("structure", "list", "map") and location is None:
            found.append((member, "a text"))
        if kind == "integer" and location is None:
            found.append((member, "a text"))
        if member in shape.get("required", ()) and location is None:
            found.append((member, None))
        if kind == "structure" and inner.get("union"):
            found.append((member, {}))
    return found


def test_the_manual_names_each_operation_once() -> None:
    from pathlib import Path

    from dl_tools.dl_farmd import logs

    text = (Path(__file__).parents[2] / "man" / "man8" / "dl-farmd.8").read_text()
    section = text.partition(".Sh OPERATIONS\n")[2].partition("\n.Sh ")[0]
    named = re.findall(r"\b(?:[A-Z][a-z]+){2,}[0-9]*(?=[,.]| and\b)", section)
    wanted = [*OPERATIONS, *logs.FUNCTIONS, "GetCallerIdentity"]
    assert sorted(each for each in named if each in wanted) == sorted(wanted)


def test_every_operation_is_there(farmd: Any) -> None:
    from importlib import import_module
    from pathlib import Path
    from pkgutil import iter_modules

    from dl_tools.dl_farmd import operations

    for each in iter_modules([str(Path(operations.__file__).parent)]):
        import_module(f"dl_tools.dl_farmd.{each.name}")
    assert set(OPERATIONS) <= set(operations.OPERATIONS)
