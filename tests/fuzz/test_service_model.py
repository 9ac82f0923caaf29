"""Each constraint of the model, broken alone in a request that is right otherwise; ids of others; repeated tokens.

A request of every operation is made as the model has it, then one thing in it, however deep, is made wrong in one way
that the model forbids: whatever the model says of a member, the service holds clients to it, and names the member.
DL_FUZZ_SEEDS=500 makes a long campaign of it.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))

from in_process import ROLE, Service, error_of, one_of_each
from model_values import MODEL, OPERATIONS, SHAPES, valid

SEEDS = int(os.environ.get("DL_FUZZ_SEEDS", "4"))
FREE = "[^\"'/\\[\\]:;|=,+*?<>\\s]*"
Way = tuple[Any, ...]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Service(tmp_path_factory.mktemp("farm"))
    yield made
    made.farm.close()


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, str]:
    return one_of_each(service)


def input_of(operation: str) -> str:
    return str(MODEL["operations"][operation]["input"]["shape"])


def located(operation: str, where: str) -> set[str]:
    members = SHAPES[input_of(operation)]["members"]
    return {name for name, each in members.items() if each.get("location", "body") == where}


def faults(name: str, value: Any, way: Way = ()) -> Iterator[tuple[Way, Any]]:
    """(path to a value, one that the model forbids there) for a value that fits shape `name`, `...` for none."""
    shape = SHAPES[name]
    kind = shape["type"]
    if shape.get("document"):
        return
    if way:
        for other in (True, 7, "text", [], ["x"], {}, {"x": 1}, 1.5, "", "0x10", "NaN"):
            if not may_be(shape, other):
                yield way, other
    if kind == "structure":
        for member in shape.get("required", ()):
            yield (*way, member), ...
            yield (*way, member), None
        for member, inner in value.items():
            yield from faults(shape["members"][member]["shape"], inner, (*way, member))
        if shape.get("union"):
            yield way, {}
            yield way, {"noSuchMember": value}
    elif kind == "list":
        if value:
            if "max" in shape:
                yield way, value * (shape["max"] // len(value) + 1)
            yield way, [*value, None]
        if shape.get("min", 0):
            yield way, value[: shape["min"] - 1]
        for index, inner in enumerate(value):
            yield from faults(shape["member"]["shape"], inner, (*way, index))
    elif kind == "map":
        if shape.get("min", 0):
            yield way, {}
        for key, inner in value.items():
            yield from faults(shape["value"]["shape"], inner, (*way, key))
    elif kind == "string":
        if "enum" in shape:
            for wrong in ("NO_SUCH_VALUE", value.lower(), value.upper(), value + " ", ""):
                if wrong not in shape["enum"]:
                    yield way, wrong
        if "max" in shape:
            yield way, "x" * (shape["max"] + 1)
            yield way, "é" * (shape["max"] + 1)
        if shape.get("min", 0) and value:
            yield way, "x" * (shape["min"] - 1)
        if shape.get("pattern") not in (None, FREE):
            digits = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
            for wrong in (value + "\n", "\x00", "§", value + "§", " " + value, value + "ü", value.translate(digits)):
                if re.fullmatch(shape["pattern"], wrong, re.ASCII) is None:
                    yield way, wrong
    elif kind in ("integer", "long", "float", "double"):
        if "min" in shape:
            yield way, shape["min"] - 1
        if "max" in shape:
            yield way, shape["max"] + 1
        if kind in ("integer", "long"):
            yield way, 1 << 64
            yield way, -(1 << 63) - 1
    elif kind == "timestamp":
        for wrong in ("yesterday", "2026-13-01T00:00:00Z", "10000-01-01T00:00:00Z", 1e300, ""):
            yield way, wrong


def may_be(shape: dict[str, Any], value: Any) -> bool:
    """Whether a value has the type of a shape."""
    kind = shape["type"]
    if kind == "string":
        return isinstance(value, str)
    if kind in ("integer", "long", "float", "double"):
        return not isinstance(value, bool) and isinstance(value, int | float if "o" in kind[1:3] else int)
    if kind == "timestamp":
        return not isinstance(value, bool) and isinstance(value, int | float)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "list":
        return isinstance(value, list)
    return isinstance(value, dict)


def changed(document: Any, way: Way, value: Any) -> Any:
    """A copy of a document with the value at a path replaced, or gone where it is `...`."""
    if not way:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    if len(way) == 1 and value is ...:
        if way[0] in copy:
            del copy[way[0]]
    else:
        copy[way[0]] = changed(copy[way[0]] if isinstance(copy, list) or way[0] in copy else None, way[1:], value)
    return copy


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_constraint_is_held(operation: str, service: Service, ids: dict[str, str]) -> None:
    shape, in_path, in_query = input_of(operation), located(operation, "uri"), located(operation, "querystring")
    in_header = located(operation, "header")
    seen = 0
    for seed in range(SEEDS):
        rng = random.Random(f"{operation} {seed}")
        params = valid(shape, rng, {name: ids[name] for name in in_path if name in ids})
        for way, wrong in faults(shape, params):
            if not way:
                continue
            if way[0] in in_path and (wrong in (..., None, "") or not isinstance(wrong, str)):
                continue  # that is another path, or the same text
            if way[0] in in_query | in_header and type(wrong) not in (str, int, type(...)):
                continue
            if way[0] in in_query | in_header and kind_of(shape, way) != "integer" and may_be_text(shape, way, wrong):
                continue
            if way[0] in in_header and ("\n" in str(wrong) or not str(wrong).isascii() or "\x00" in str(wrong)):
                continue
            answer = service.call(operation, changed(params, way, wrong))
            what = (operation, way, wrong if len(str(wrong)) < 200 else "(long)")
            assert answer is not None and answer.status == 400, (what, answer and answer.body[:300])
            assert error_of(answer) == "ValidationException", what
            body = json.loads(answer.body)
            assert body["reason"] == "FIELD_VALIDATION_FAILED" and body["message"], (what, body)
            assert any(each["name"].split(".")[0] == way[0] for each in body["fieldList"]), (what, body)
            seen += 1
    assert seen or operation == "ListTagsForResource"  # of whose one member the model says nothing
    assert not service.farm.db.in_transaction


def may_be_text(shape: str, way: Way, wrong: Any) -> bool:
    """Whether a wrong value of a text or a list of texts is a right one once it stands in a query or header."""
    return isinstance(wrong, int) or (wrong is not ... and kind_of(shape, way) == "list")


def kind_of(shape: str, way: Way) -> str:
    return str(SHAPES[SHAPES[shape]["members"][way[0]]["shape"]]["type"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_ids_of_nobody_and_of_others(operation: str, service: Service, ids: dict[str, str]) -> None:
    """An id in the path that nothing has, or that belongs below another parent: not found, never an answer."""
    farm = service.make("CreateFarm", displayName="another")["farmId"]
    queue = service.make("CreateQueue", farmId=farm, displayName="q")["queueId"]
    foreign = {"farmId": farm, "queueId": queue}
    in_path = located(operation, "uri") & ids.keys() - {"resourceArn"}
    modelled = {each["shape"] for each in MODEL["operations"][operation]["errors"]}
    shape = input_of(operation)
    rng = random.Random(operation)
    for name in sorted(in_path):
        params = {**valid(shape, rng, {}), **{each: ids[each] for each in in_path}}
        for other in ({name: re.sub(r"[0-9a-f]{32}", "0" * 32, ids[name])}, {name: foreign.get(name)}):
            if other[name] is None:
                continue
            if len(in_path) == 1 and name in foreign and other[name] == foreign[name]:
                continue  # that is another one's, but whole
            answer = service.call(operation, {**params, **other})
            assert answer is not None and answer.status < 500, (params, answer)
            error = error_of(answer)
            if "ResourceNotFoundException" in modelled:
                assert error in ("ResourceNotFoundException", "ValidationException"), (operation, name, answer.body)
                if error == "ResourceNotFoundException":
                    body = json.loads(answer.body)
                    assert body["resourceId"] and body["resourceType"] and body["message"]
            else:
                assert answer.status in (200, 204) or error in modelled, (operation, name, answer.body)
    # What exists still does.
    assert service.call("GetTask", {each: ids[each] for each in ("farmId", "queueId", "jobId", "stepId", "taskId")})


IDEMPOTENT = [operation for operation in OPERATIONS if "clientToken" in located(operation, "header")]


def test_which_operations_take_a_token() -> None:
    assert len(IDEMPOTENT) == 23


def requests_of(service: Service, ids: dict[str, str]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """A request of each operation that takes a client token, and what changes in another one."""
    farm = {"farmId": ids["farmId"]}
    queue = {**farm, "queueId": ids["queueId"]}
    fleet = {**farm, "fleetId": ids["fleetId"]}
    job = {**queue, "jobId": ids["jobId"]}
    step = {**job, "stepId": ids["stepId"]}
    schedule = {"fixed": {"startTime": 0, "endTime": "2100-01-01T00:00:00Z"}}
    environment = json.dumps(
        {"specificationVersion": "environment-2023-09", "environment": {"name": "e", "variables": {"A": "b"}}}
    )
    named = {"displayName": "n"}, {"displayName": "other"}
    configuration = service.make("GetFleet", **fleet)["configuration"]
    new_fleet = {**farm, **named[0], "maxWorkerCount": 1, "roleArn": ROLE, "configuration": configuration}
    gone = service.make("CreateFleet", **new_fleet)["fleetId"]
    return {
        "BatchUpdateJob": ({"jobs": [{**job, "priority": 1}]}, {"jobs": [{**job, "priority": 2}]}),
        "BatchUpdateTask": (
            {"tasks": [{**step, "taskId": ids["taskId"], "targetRunStatus": "READY"}]},
            {"tasks": [{**step, "taskId": ids["taskId"], "targetRunStatus": "PENDING"}]},
        ),
        "CreateBudget": (
            {
                **farm, **named[0], "usageTrackingResource": {"queueId": ids["queueId"]}, "actions": [],
                "approximateDollarLimit": 1000, "schedule": schedule,
            },
            named[1],
        ),
        "CreateFarm": named,
        "CreateFleet": (new_fleet, named[1]),
        "CreateJob": ({**queue, "priority": 1, "sourceJobId": ids["jobId"]}, {"priority": 2}),
        "CreateLicenseEndpoint": (
            {"vpcId": "vpc-1", "subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"]}, {"vpcId": "vpc-2"},
        ),
        "CreateLimit": ({**farm, **named[0], "amountRequirementName": "amount.t", "maxCount": 1}, {"maxCount": 2}),
        "CreateMonitor": (
            {
                **named[0], "subdomain": "token", "roleArn": ROLE,
                "identityCenterInstanceArn": "arn:aws:sso:::instance/ssoins-0123456789abcdef",
            },
            {"subdomain": "token2"},
        ),
        "CreateQueue": ({**farm, **named[0]}, named[1]),
        "CreateQueueEnvironment": (
            {**queue, "priority": 1, "templateType": "JSON", "template": environment}, {"priority": 2},
        ),
        "CreateStorageProfile": ({**farm, **named[0], "osFamily": "LINUX"}, named[1]),
        "CreateWorker": ({**fleet, "hostProperties": {"hostName": "h"}}, {"hostProperties": {"hostName": "i"}}),
        "DeleteFleet": ({**farm, "fleetId": gone}, {"fleetId": ids["fleetId"]}),
        "UpdateBudget": ({**farm, "budgetId": ids["budgetId"], **named[0]}, named[1]),
        "UpdateFleet": ({**fleet, **named[0]}, named[1]),
        "UpdateJob": ({**job, "priority": 3}, {"priority": 4}),
        "UpdateQueue": ({**queue, **named[0]}, named[1]),
        "UpdateQueueEnvironment": (
            {**queue, "queueEnvironmentId": ids["queueEnvironmentId"], "priority": 3}, {"priority": 4},
        ),
        "UpdateSession": (
            {**job, "sessionId": ids["sessionId"], "targetLifecycleStatus": "ENDED"}, {},
        ),
        "UpdateStep": ({**step, "targetTaskRunStatus": "READY"}, {"targetTaskRunStatus": "PENDING"}),
        "UpdateStorageProfile": ({**farm, "storageProfileId": ids["storageProfileId"], **named[0]}, named[1]),
        "UpdateTask": ({**step, "taskId": ids["taskId"], "targetRunStatus": "READY"}, {"targetRunStatus": "PENDING"}),
    }  # fmt: skip


def test_a_token_makes_one_of_two_requests(service: Service, ids: dict[str, str]) -> None:
    known = requests_of(service, ids)
    assert sorted(known) == IDEMPOTENT
    for operation, (params, other) in known.items():
        token = {"clientToken": f"token {operation}"}
        first = service.call(operation, {**params, **token})
        assert first is not None and first.status in (200, 201), (operation, first.body)
        again = service.call(operation, {**params, **token})
        assert (again.status, again.body) == (first.status, first.body), operation
        stranger = service.mint(kind="user", level="OWNER", name="stranger")
        if operation == "CreateFarm":  # a token is the caller's own
            assert service.call(operation, {**params, **token}, who=stranger).body != first.body
        if other:
            refused = service.call(operation, {**params, **other, **token})
            assert (refused.status, error_of(refused)) == (400, "ValidationException"), (operation, refused.body)
        for wrong in ("", "x" * 65):
            refused = service.call(operation, {**params, "clientToken": wrong})
            assert error_of(refused) == "ValidationException", (operation, wrong)
        if operation.startswith("Create"):
            fresh = service.call(
                operation,
                {**params, "clientToken": f"fresh {operation}", **(other if operation == "CreateMonitor" else {})},
            )
            assert fresh.body != first.body, operation
    # A refused request leaves its token free.
    missing = {"farmId": "farm-" + "0" * 32, "displayName": "x", "clientToken": "refused"}
    assert error_of(service.call("CreateQueue", missing)) == "ResourceNotFoundException"
    assert service.call("CreateQueue", {**missing, "farmId": ids["farmId"]}).status == 200


@pytest.mark.parametrize("operation", OPERATIONS)
def test_bodies_and_methods_that_are_wrong(operation: str, service: Service, ids: dict[str, str]) -> None:
    http = MODEL["operations"][operation]["http"]
    path = re.sub(r"\{(\w+)\}", lambda found: quote(ids.get(found[1], "x"), safe=""), http["requestUri"])
    has_body = bool(located(operation, "body"))
    for body in (b"{", b"[]", b'"x"', b"7", b"\xff\xfe{}", b'{"a": "\xed\xa0\x80"}', b"{}{}", b"'", b'{"a":' * 3000):
        answer = service.send(http["method"], path, body)
        if answer is None:
            continue
        assert answer.status < 500, (operation, body[:40])
        if has_body:
            assert (answer.status, error_of(answer)) == (400, "ValidationException"), (
                operation,
                body[:40],
                answer.body,
            )
            assert json.loads(answer.body)["reason"] in ("CANNOT_PARSE", "FIELD_VALIDATION_FAILED")
    if (
        has_body
        and SHAPES[input_of(operation)].get("required")
        and located(operation, "body") & set(SHAPES[input_of(operation)]["required"])
    ):
        for body in (b"", b"null", b"{}"):
            answer = service.send(http["method"], path, body)
            assert (answer.status, error_of(answer)) == (400, "ValidationException"), (operation, body)
    same_path = {
        each["http"]["method"]
        for each in MODEL["operations"].values()
        if re.sub(r"\{\w+\}", "{}", each["http"]["requestUri"]) == re.sub(r"\{\w+\}", "{}", http["requestUri"])
    }
    for method in ("GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"):
        if method not in same_path:
            answer = service.send(method, path, b"{}")
            assert (answer.status, error_of(answer)) == (404, "UnknownOperationException"), (operation, method)


TAGGED = (
    "CreateBudget",
    "CreateFarm",
    "CreateFleet",
    "CreateLicenseEndpoint",
    "CreateMonitor",
    "CreateQueue",
    "CreateJob",
)


def test_tags_have_rules(service: Service, ids: dict[str, str]) -> None:
    farm = f"arn:aws:deadline:us-west-2:000000000000:farm/{ids['farmId']}"
    known = requests_of(service, ids)
    fifty = {f"k{n}": "v" for n in range(50)}
    for tags in (
        {"": "v"}, {"x" * 129: "v"}, {"k": "x" * 257}, {"aws:mine": "v"}, {"AWS:mine": "v"}, {"a\x00b": "v"},
        {"k": "a\nb"}, {"<k>": "v"}, {**fifty, "k": "v"},
    ):  # fmt: skip
        answer = service.call("TagResource", {"resourceArn": farm, "tags": tags})
        assert (answer.status, error_of(answer)) == (400, "ValidationException"), tags
        assert json.loads(answer.body)["fieldList"][0]["name"].startswith("tags"), answer.body
        for operation in TAGGED:
            answer = service.call(operation, {**known[operation][0], "tags": tags})
            assert error_of(answer) == "ValidationException", (operation, tags, answer.body)
    assert service.make("ListTagsForResource", resourceArn=farm)["tags"] == {}
    good = {"Ünï-c/ö:d+e=@_.": "ü " * 128, "x" * 128: "", "k": "v"}
    service.make("TagResource", resourceArn=farm, tags=good)
    assert service.make("ListTagsForResource", resourceArn=farm)["tags"] == good
    service.make("TagResource", resourceArn=farm, tags={"k": "w"})
    answer = service.call("TagResource", {"resourceArn": farm, "tags": {f"n{n}": "v" for n in range(48)}})
    assert error_of(answer) == "ValidationException"
    service.make("UntagResource", resourceArn=farm, tagKeys=["k", "never there"])
    assert set(service.make("ListTagsForResource", resourceArn=farm)["tags"]) == good.keys() - {"k"}
    for arn in (
        "x", "arn:aws:s3:::bucket", farm.replace("deadline", "s3"), farm.replace("us-west-2", "eu-west-1"),
        farm.replace("0" * 12, "1" * 12), farm + "/", farm + "/queue", farm[:-1] + "g",
        f"{farm}/queue/{ids['queueId']}/x/y",
        f"{farm}/job/{ids['jobId']}", "arn:aws:deadline:us-west-2:000000000000:worker/" + ids["workerId"],
    ):  # fmt: skip
        answer = service.call("TagResource", {"resourceArn": arn, "tags": {"a": "b"}})
        assert error_of(answer) in ("ValidationException", "ResourceNotFoundException"), (arn, answer.body)
