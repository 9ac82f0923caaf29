"""Requests made from the service model, right and wrong: never a 500, and wrong ones get the modelled error."""

from __future__ import annotations

import json
import random
import re
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from botocore.loaders import Loader

MODEL = Loader().load_service_model("deadline", "service-2")
SHAPES = MODEL["shapes"]
OPERATIONS = sorted(MODEL["operations"])
MADE_UP = {
    "FarmId": "farm", "QueueId": "queue", "FleetId": "fleet", "JobId": "job", "StepId": "step", "WorkerId": "worker",
    "SessionId": "session", "BudgetId": "budget", "LimitId": "limit", "MonitorId": "monitor", "VolumeId": "volume",
    "StorageProfileId": "sp", "QueueEnvironmentId": "queueenv", "LicenseEndpointId": "le",
}  # fmt: skip
TEXTS = {
    "TaskId": "task-" + "0" * 32 + "-0",
    "SessionActionId": "sessionaction-" + "0" * 32 + "-0",
    "AggregationId": "0" * 32,
    "IamRoleArn": "arn:aws:iam::000000000000:role/x",
    "IdentityCenterInstanceArn": "arn:aws:sso:::instance/ssoins-0123456789abcdef",
    "IdentityStoreId": "d-0123456789",
    "IdentityCenterPrincipalId": "00000000-0000-0000-0000-000000000000",
    "EnvironmentId": "JOB:job-" + "0" * 32 + ":x",
    "SecretsManagerArn": "",
    "AmountCapabilityName": "amount.worker.thing",
    "AttributeCapabilityName": "attr.worker.thing",
    "StatisticsTimezone": "UTC+00:00",
}
CANDIDATES = (
    "x", "1", "a1", "amount.thing", "attr.thing", "true", "1.5", "A", "10.0.0.1", "A:A:A:A:A:A:A:A", "vpc-1",
    "subnet-1", "sg-1", "arn:aws:kms:us-west-2:000000000000:key/x", "1-1", "UTC+00:00", "arn:aws:s3:::x",
    "arn:aws:secretsmanager:us-west-2:000000000000:secret:x", *TEXTS.values(),
    *(f"{prefix}-{'0' * 32}" for prefix in MADE_UP.values()),
)  # fmt: skip
ANY_NAME = "[^\"'/\\[\\]:;|=,+*?<>\\s]*"  # the pattern that a wrong text below would fit


def valid(name: str, rng: random.Random, ids: dict[str, str], depth: int = 0) -> Any:
    """A value that fits shape `name`: required members always, others sometimes."""
    shape = SHAPES[name]
    kind = shape["type"]
    if shape.get("document"):
        return {"a": [1, "b"]}
    if kind == "structure":
        members = shape["members"]
        if shape.get("union"):
            usable = [m for m in members if depth < 6 or SHAPES[members[m]["shape"]]["type"] != "structure"] or [
                *members
            ]
            member = rng.choice(usable if depth < 6 else usable[:1])
            return {member: valid(members[member]["shape"], rng, ids, depth + 1)}
        required = set(shape.get("required", ()))
        return {
            member: ids.get(member) or valid(reference["shape"], rng, ids, depth + 1)
            for member, reference in members.items()
            if member in required or (depth < 6 and member != "nextToken" and rng.random() < 0.4)
        }
    if kind == "list":
        count = max(shape.get("min", 0), min(rng.randint(0, 2), shape.get("max", 2)))
        return [valid(shape["member"]["shape"], rng, ids, depth + 1) for _ in range(count)]
    if kind == "map":
        count = max(shape.get("min", 0), rng.randint(0, 2))
        return {
            valid(shape["key"]["shape"], rng, ids, depth + 1): valid(shape["value"]["shape"], rng, ids, depth + 1)
            for _ in range(count)
        }
    if kind == "string":
        return text_for(name, shape, rng)
    if kind in ("integer", "float", "double", "long"):
        low, high = shape.get("min", 0), min(shape.get("max", 1000), shape.get("min", 0) + 1000)
        return rng.randint(int(low) + (low != int(low)), int(high)) if kind in ("integer", "long") else float(high)
    if kind == "boolean":
        return rng.random() < 0.5
    return "2026-01-02T03:04:05Z"


def text_for(name: str, shape: dict[str, Any], rng: random.Random) -> str:
    if "enum" in shape:
        return rng.choice(shape["enum"])
    if name in MADE_UP:
        return f"{MADE_UP[name]}-{rng.getrandbits(128):032x}"
    if TEXTS.get(name):
        return TEXTS[name]
    pattern = shape.get("pattern")
    for candidate in CANDIDATES:
        if (pattern is None or re.fullmatch(pattern, candidate)) and len(candidate) >= shape.get("min", 0):
            return candidate
    return "x" * shape.get("min", 1)


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


def test_every_operation_is_there(farmd: Any) -> None:
    from importlib import import_module
    from pathlib import Path
    from pkgutil import iter_modules

    from dl_tools.dl_farmd import operations

    for each in iter_modules([str(Path(operations.__file__).parent)]):
        import_module(f"dl_tools.dl_farmd.{each.name}")
    assert set(OPERATIONS) <= set(operations.OPERATIONS)
