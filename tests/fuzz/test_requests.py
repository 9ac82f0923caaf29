"""Requests of every operation with one thing wrong somewhere inside: never a 5xx, and faults name their member.

The service runs in this process, over a database in a temporary folder; each example is one request with a signature.
"""

from __future__ import annotations

import json
import random
import re
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from dl_tools.dl_farmd import server as server_module
from dl_tools.dl_farmd.farm import Farm

from libdeadline import sigv4

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))

from model_values import MODEL, OPERATIONS, SHAPES, valid

WRONG: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64 - 1, 1e308, -1e308, "", "x", "0", "\x00", "é" * 300, "x" * 5000,
    "NaN", "farm-" + "0" * 32, "queue-" + "0" * 32, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", [], [None],
    [[]], ["x"] * 200, {}, {"x": None}, {"": ""}, {"fixed": {}}, {"__proto__": 1},
]  # fmt: skip


class Service:
    """dl-farmd without its socket."""

    def __init__(self, folder: Path) -> None:
        self.errors: list[str] = []
        self.farm = Farm(folder, self.errors.append)
        self.farm.logs = SimpleNamespace(create=lambda *args: None)
        self.soon: list[Any] = []
        later = SimpleNamespace(cancel=lambda: None)
        put = lambda function, *args: self.soon.append((function, args))  # noqa: E731
        loop = SimpleNamespace(call_soon=put, call_later=lambda *args: later, call_soon_threadsafe=put)
        run = SimpleNamespace(level="warning", warn=self.errors.append, debug=lambda message: None)
        self.server = server_module.Server(self.farm, run)
        self.server.strict = True
        self.farm.start(loop)
        self.key = next(iter(self.farm.ring.keys().values()))
        self.answers: list[Any] = []
        self.transport = object()

    def answer(self, request_id: str, answer: Any) -> None:
        self.answers.append(answer)

    def settle(self) -> list[str]:
        """Run what waits for the loop, until the background thread has nothing to do. Returns what was told."""
        self.farm._thread.submit(int).result(timeout=60)
        while self.soon:
            function, args = self.soon.pop(0)
            function(*args)
            self.farm._thread.submit(int).result(timeout=60)
        return self.errors

    def send(self, method: str, path: str, body: bytes) -> Any:
        path, _, query = path.partition("?")
        canonical = "&".join(sorted("{0}={2}".format(*part.partition("=")) for part in query.split("&") if part))
        headers = sigv4.sign(
            method, path, canonical, {"host": "x"}, sha256(body).hexdigest(),
            access_key_id=self.key.access_key_id, secret=self.key.secret, token=None,
            region="us-west-2", service="deadline",
        )  # fmt: skip
        self.answers.clear()
        self.server.pending = [server_module.Request(self, method, path, query, headers, body)]
        self.server.run_group()
        # A request that is held would be answered after a while.
        return self.answers[0] if self.answers else None

    def call(self, operation: str, params: dict[str, Any]) -> Any:
        description = MODEL["operations"][operation]
        target, query, body = description["http"]["requestUri"], [], {}
        for member, reference in SHAPES[description["input"]["shape"]]["members"].items():
            location, wire = reference.get("location"), reference.get("locationName", member)
            if location == "uri":
                target = target.replace("{" + wire + "}", quote(str(params.get(member)), safe="-_.~"))
            elif member not in params or location == "header":
                continue
            elif location == "querystring":
                query.append(f"{wire}={quote(str(params[member]), safe='-_.~')}")
            else:
                body[member] = params[member]
        path = target + ("?" + "&".join(query) if query else "")
        return self.send(description["http"]["method"], path, json.dumps(body).encode())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Service(tmp_path_factory.mktemp("farm"))
    yield made
    made.farm.close()


TEMPLATE = {
    "specificationVersion": "jobtemplate-2023-09",
    "name": "j",
    "parameterDefinitions": [{"name": "P", "type": "STRING", "default": "p"}],
    "steps": [
        {
            "name": "s",
            "parameterSpace": {"taskParameterDefinitions": [{"name": "N", "type": "INT", "range": "1-5"}]},
            "script": {"actions": {"onRun": {"command": "true"}}},
        }
    ],
}
ENVIRONMENT = {
    "specificationVersion": "environment-2023-09", "environment": {"name": "e", "variables": {"A": "b"}},
}  # fmt: skip
CAPABILITIES = {
    "amounts": [{"name": "amount.worker.vcpu", "value": 4}, {"name": "amount.worker.memory", "value": 4096}],
    "attributes": [
        {"name": "attr.worker.os.family", "values": ["linux"]}, {"name": "attr.worker.cpu.arch", "values": ["x86_64"]},
    ],
}  # fmt: skip
ROLE = "arn:aws:iam::000000000000:role/r"


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, str]:
    """The ids of one of each kind of resource, all of which exist and belong together."""

    def make(operation: str, **params: Any) -> Any:
        answer = service.call(operation, params)
        assert answer.status in (200, 201), answer.body
        return json.loads(answer.body)

    farm = {"farmId": make("CreateFarm", displayName="f")["farmId"]}
    profile = make("CreateStorageProfile", **farm, displayName="p", osFamily="LINUX")["storageProfileId"]
    user = {"runAs": "WORKER_AGENT_USER"}
    queue = {
        **farm,
        "queueId": make(
            "CreateQueue", **farm, displayName="q", roleArn=ROLE, jobRunAsUser=user, allowedStorageProfileIds=[profile]
        )["queueId"],
    }
    small = {"vCpuCount": {"min": 1}, "memoryMiB": {"min": 512}, "osFamily": "LINUX", "cpuArchitectureType": "x86_64"}
    configuration = {"customerManaged": {"mode": "NO_SCALING", "workerCapabilities": small}}
    fleet = {
        **farm,
        "fleetId": make(
            "CreateFleet", **farm, displayName="f", maxWorkerCount=99, roleArn=ROLE, configuration=configuration
        )["fleetId"],
    }
    make("CreateQueueFleetAssociation", **queue, fleetId=fleet["fleetId"])
    limit = make("CreateLimit", **farm, displayName="l", amountRequirementName="amount.l", maxCount=1)["limitId"]
    make("CreateQueueLimitAssociation", **queue, limitId=limit)
    schedule = {"fixed": {"startTime": 0, "endTime": "2100-01-01T00:00:00Z"}}
    budget = make(
        "CreateBudget", **farm, displayName="b", usageTrackingResource={"queueId": queue["queueId"]}, actions=[],
        approximateDollarLimit=1000, schedule=schedule,
    )["budgetId"]  # fmt: skip
    monitor = make(
        "CreateMonitor", displayName="m", subdomain="m", roleArn=ROLE,
        identityCenterInstanceArn="arn:aws:sso:::instance/ssoins-0123456789abcdef",
    )["monitorId"]  # fmt: skip
    endpoint = make("CreateLicenseEndpoint", vpcId="vpc-1", subnetIds=["subnet-1"], securityGroupIds=["sg-1"])
    environment = make(
        "CreateQueueEnvironment", **queue, priority=1, templateType="JSON", template=json.dumps(ENVIRONMENT)
    )["queueEnvironmentId"]
    job = {
        **queue,
        "jobId": make("CreateJob", **queue, priority=50, templateType="JSON", template=json.dumps(TEMPLATE))["jobId"],
    }
    service.settle()
    step = make("ListSteps", **job)["steps"][0]["stepId"]
    task = make("ListTasks", **job, stepId=step)["tasks"][0]["taskId"]
    worker = {**fleet, "workerId": make("CreateWorker", **fleet, hostProperties={"hostName": "h"})["workerId"]}
    make("UpdateWorker", **worker, status="STARTED", capabilities=CAPABILITIES)
    assigned = make("UpdateWorkerSchedule", **worker)["assignedSessions"]
    ((session, about),) = assigned.items()
    return {
        **job, **worker, "stepId": step, "taskId": task, "storageProfileId": profile, "limitId": limit,
        "budgetId": budget,
        "monitorId": monitor, "licenseEndpointId": endpoint["licenseEndpointId"], "queueEnvironmentId": environment,
        "sessionId": session, "sessionActionId": about["sessionActions"][0]["sessionActionId"],
        "resourceArn": f"arn:aws:deadline:us-west-2:000000000000:farm/{farm['farmId']}",
    }  # fmt: skip


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside."""
    found = [path] if path else []
    if isinstance(document, dict | list):
        for key, inner in document.items() if isinstance(document, dict) else enumerate(document):
            found += places(inner, (*path, key))
    return found


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_wrong_value(operation: str, service: Service, ids: dict[str, str]) -> None:
    modelled = {each["shape"] for each in MODEL["operations"][operation]["errors"]} | {"ValidationException"}
    shape = MODEL["operations"][operation]["input"]["shape"]
    in_path = {name for name, each in SHAPES[shape]["members"].items() if each.get("location") == "uri"}
    # What the other operations need is not deleted: these get ids that nothing has.
    known = {} if operation.startswith("Delete") else ids
    for seed in range(60):
        rng = random.Random(f"{operation} {seed}")
        params = {**valid(shape, rng, {}), **{name: known[name] for name in in_path if name in known}}
        replace_ids(params, known, rng)
        paths = [path for path in places(params) if path[0] not in in_path]
        if seed % 6 and paths:
            *way, last = rng.choice(paths)
            inside: Any = params
            for key in way:
                inside = inside[key]
            inside[last] = rng.choice(WRONG)
        service.errors.clear()
        answer = service.call(operation, params)
        if answer is None or answer.status in (200, 201, 204):
            continue
        assert answer.status < 500, (operation, params, answer.body, service.errors)
        error = answer.headers.partition("x-amzn-errortype: ")[2].partition("\r")[0]
        assert error in modelled, (operation, params, answer.body)
        if error == "ValidationException":
            body = json.loads(answer.body)
            assert body["message"] and body["reason"] in ("FIELD_VALIDATION_FAILED", "OTHER"), (operation, params, body)
    assert not service.farm.db.in_transaction
    assert not service.settle(), service.errors


def replace_ids(document: Any, known: dict[str, str], rng: random.Random) -> None:
    """Put ids of what exists in the place of most made-up ones."""
    for key, inner in document.items() if isinstance(document, dict) else enumerate(document):
        if isinstance(inner, dict | list):
            replace_ids(inner, known, rng)
        elif isinstance(key, str) and key in known and rng.random() < 0.8:
            document[key] = known[key]
        elif isinstance(inner, str) and rng.random() < 0.8:
            for each in known.values():
                if re.fullmatch(r"[a-z]+-[0-9a-f]{32}", inner) and each.startswith(inner[: inner.index("-") + 1]):
                    document[key] = each


def test_random_paths_and_bodies(service: Service) -> None:
    rng = random.Random(7)
    words = ["2023-10-12", "farms", "queues", "jobs", "%", "%zz", "..", "{farmId}", "é", "tags", "search", "?"] + [
        "",
        f"farm-{'0' * 32}",
    ]
    for _ in range(2000):
        path = "/" + "/".join(quote(rng.choice(words), safe="%?{}") for _ in range(rng.randint(0, 8)))
        body = rng.choice((b"", b"{}", b"null", b"[]", b"{", bytes(rng.randrange(256) for _ in range(9))))
        answer = service.send(rng.choice(("GET", "PUT", "POST", "PATCH", "DELETE", "HEAD")), path, body)
        assert answer.status in (200, 204, 400, 404), (path, body, answer.body)
