"""Values that fit the shapes of the service model, for requests made at random."""

from __future__ import annotations

import random
import re
from typing import Any

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
