"""dl-farmd in this process, without its socket: a request is a call, for tests that make thousands of them."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from dl_tools.dl_farmd import server as server_module
from dl_tools.dl_farmd.farm import Farm
from model_values import MODEL, SHAPES

from libdeadline import sigv4


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

    def send(
        self, method: str, path: str, body: bytes, *, who: Any = None, headers: Any = None, service: str = "deadline"
    ) -> Any:
        """The answer to a request signed with the admin key, or with `who` (as `mint` makes it); None if it is held."""
        key = who or SimpleNamespace(
            access_key_id=self.key.access_key_id, secret_access_key=self.key.secret, session_token=None
        )
        path, _, query = path.partition("?")
        canonical = "&".join(sorted("{0}={2}".format(*part.partition("=")) for part in query.split("&") if part))
        headers = sigv4.sign(
            method, path, canonical, {"host": "x", **(headers or {})}, sha256(body).hexdigest(),
            access_key_id=key.access_key_id, secret=key.secret_access_key, token=key.session_token,
            region="us-west-2", service=service,
        )  # fmt: skip
        self.answers.clear()
        self.server.pending = [server_module.Request(self, method, path, query, headers, body)]
        self.server.run_group()
        # A request that is held would be answered after a while.
        return self.answers[0] if self.answers else None

    def mint(self, **claims: Any) -> Any:
        """A temporary credential with these claims."""
        return self.farm.ring.mint(claims, 3600)

    def call(self, operation: str, params: dict[str, Any], *, who: Any = None) -> Any:
        """The answer to an operation with its members where the model has them."""
        description = MODEL["operations"][operation]
        target, query, headers, body = description["http"]["requestUri"], [], {}, {}
        for member, reference in SHAPES[description["input"]["shape"]]["members"].items():
            location, wire = reference.get("location"), reference.get("locationName", member)
            if location == "uri":
                target = target.replace("{" + wire + "}", quote(str(params.get(member)), safe="-_.~"))
            elif member not in params:
                continue
            elif location == "header":
                headers[wire.lower()] = str(params[member])
            elif location == "querystring":
                values = params[member] if isinstance(params[member], list) else [params[member]]
                query += [f"{wire}={quote(str(each), safe='-_.~')}" for each in values]
            else:
                body[member] = params[member]
        path = target + ("?" + "&".join(query) if query else "")
        return self.send(description["http"]["method"], path, json.dumps(body).encode(), who=who, headers=headers)

    def make(self, operation: str, **params: Any) -> Any:
        """The members of the answer to an operation that must succeed."""
        answer = self.call(operation, params)
        assert answer is not None and answer.status in (200, 201, 204), (operation, params, answer and answer.body)
        return json.loads(answer.body) if answer.body else {}


def error_of(answer: Any) -> str:
    """The name of an error answer, "" of another."""
    return str(answer.headers.partition("x-amzn-errortype: ")[2].partition("\r")[0])


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


def one_of_each(service: Service) -> dict[str, str]:
    """Make one of each kind of resource, all belonging together; returns their ids by member name."""
    make = service.make

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
