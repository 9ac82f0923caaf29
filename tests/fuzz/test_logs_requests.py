"""Requests of the operations of CloudWatch Logs, right and wrong: never a 5xx, and the errors of its model."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from dl_tools.dl_farmd.logs import FUNCTIONS, TARGET, Logs

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))

from in_process import Service

MODEL = Loader().load_service_model("logs", "service-2")
SHAPES = MODEL["shapes"]
SEEDS = int(os.environ.get("DL_FUZZ_SEEDS", "40"))
NOW = int(time.time() * 1000)
GOOD: dict[str, list[Any]] = {
    "logGroupName": ["g", "/aws/deadline/f/q", "gone"],
    "logGroupIdentifier": ["g", "arn:aws:logs:us-west-2:000000000000:log-group:g:*"],
    "logStreamName": ["s", "t", "gone"],
    "logStreamNames": [["s"], ["s", "t"], ["gone"]],
    "logStreamNamePrefix": ["s"],
    "logGroupNamePrefix": ["g"],
    "logGroupNamePattern": ["G"],
    "logEvents": [
        [{"timestamp": NOW, "message": "m"}],
        [{"timestamp": NOW - 1, "message": '{"a": 1}'}, {"timestamp": NOW, "message": "\u0000 é 𝄞"}],
        [{"timestamp": 0, "message": "old"}],
        [{"timestamp": (1 << 62), "message": "new"}],
    ],
    "filterPattern": ["m", "{ $.a = 1 }", "[a, b]", "%m%", "?a ?b"],
    "orderBy": ["LogStreamName", "LastEventTime"],
    "limit": [1, 50, 10_000],
    "startTime": [0, NOW],
    "endTime": [NOW + 1],
    "nextToken": ["f/0--1", f"b/{NOW}-1", f"{NOW}-1-1", "0:s", "g"],
}
WRONG: list[Any] = [
    None, True, 0, -1, 1.5, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), "", "x", "0", "\x00", "é" * 300, "x" * 5000,
    [], {},
    [None], [[]], {"x": None}, "²",
    "f/" + "9" * 19 + "-" + "9" * 19, "f/" + "9" * 30 + "-1", "f/1-" + "9" * 19, "b/1--2",
    "9" * 19 + "-1-1",
    "1-1-" + "9" * 25, "9" * 30 + ":x", "²:x", "²-²-²", "{ $.a = " + "9" * 400 + " }", "[" + "a, " * 300,
    "{ " + "(" * 1000,
    "%" + ".*" * 300 + "%", "%a{99999999}%", [{"timestamp": 1}], [{"timestamp": "x", "message": 1}],
    [{"timestamp": 2**63, "message": "m"}], [{"timestamp": -1, "message": "m"}],
    [{"timestamp": NOW, "message": "m"}, {"timestamp": NOW - 1, "message": "m"}],
]  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Service(tmp_path_factory.mktemp("farm"))
    made.farm.logs = Logs(made.farm.folder / "logs.sqlite", made.farm)
    for group in ("g", "/aws/deadline/f/q"):
        for stream in ("s", "t"):
            made.farm.logs.create(group, stream)
    yield made
    made.farm.logs.close()
    made.farm.close()


def answered(service: Service, operation: str, body: bytes) -> Any:
    """The answer, which the thread of the logs makes."""
    answer = service.send("POST", "/", body, headers={"x-amz-target": f"{TARGET}{operation}"}, service="logs")
    limit = time.monotonic() + 30
    while answer is None:
        assert time.monotonic() < limit, "no answer"
        while service.soon:
            function, args = service.soon.pop(0)
            function(*args)
        answer = service.answers[0] if service.answers else None
        if answer is None:
            time.sleep(0.0005)
    return answer


@pytest.mark.parametrize("operation", sorted(set(FUNCTIONS) - {"DeleteLogGroup", "DeleteLogStream"}))
def test_right_and_wrong_requests(operation: str, service: Service) -> None:
    description = MODEL["operations"][operation]
    members = SHAPES[description["input"]["shape"]]["members"]
    required = SHAPES[description["input"]["shape"]].get("required", ())
    modelled = {each["shape"] for each in description["errors"]} | {
        "SerializationException",
        "InvalidParameterException",
    }
    codes = set()
    for seed in range(SEEDS * 5):
        rng = random.Random(f"{operation} {seed}")
        params = {
            name: rng.choice(GOOD.get(name, ["new"]))
            for name in members
            if name in required or (name in GOOD and rng.random() < 0.4)
        }
        if seed % 3 and members:
            params[rng.choice(sorted(members))] = rng.choice(WRONG)
        answer = answered(service, operation, json.dumps(params).encode())
        body = json.loads(answer.body) if answer.body else {}
        if answer.status != 200:
            assert answer.status == 400, (params, answer.body)
            assert body["__type"] in modelled and body["message"], (operation, params, body)
            codes.add(body["__type"])
    assert not service.errors, service.errors
    assert "InvalidParameterException" in codes, codes


def test_bodies_that_are_none(service: Service) -> None:
    for operation in FUNCTIONS:
        for body in (b"{", b"[]", b"7", b"\xff", b"{}{}"):
            answer = answered(service, operation, body)
            assert answer.status == 400 and json.loads(answer.body)["__type"] == "SerializationException", (
                operation,
                body,
            )
    answer = answered(service, "NoSuchOperation", b"{}")
    assert json.loads(answer.body)["__type"] == "UnknownOperationException"
