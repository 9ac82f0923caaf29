"""Long random sequences of requests, each on what the ones before it made and left: never a 5xx, and the books agree.

What is deleted while in use, changed while gone, made twice or stopped midway comes up here. DL_FUZZ_SEEDS=20 makes
twenty longer campaigns of it.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))

from in_process import CAPABILITIES, ENVIRONMENT, ROLE, TEMPLATE, Service, error_of
from model_values import MODEL, OPERATIONS, SHAPES, valid
from simulated_worker import audit

SEEDS = int(os.environ.get("DL_FUZZ_SEEDS", "1"))
STEPS = 1500 if SEEDS == 1 else 6000
ID = re.compile(r"(farm|queue|fleet|worker|job|step|session|queueenv|budget|limit|sp|le|monitor|volume)-[0-9a-f]{32}|"
                r"(task|sessionaction)-[0-9a-f]{32}-\d+")  # fmt: skip
PARENTS = ("farmId", "queueId", "fleetId", "jobId", "stepId", "workerId")
FIRST = ("CreateFarm", "CreateQueue", "CreateFleet", "CreateQueueFleetAssociation", "CreateJob", "CreateWorker")
HOST = {"vCpuCount": {"min": 1}, "memoryMiB": {"min": 512}, "osFamily": "LINUX", "cpuArchitectureType": "x86_64"}
# Deletions are rare, or nothing would live long enough to have children.
WEIGHTS = {operation: 0.15 if operation.startswith(("Delete", "Disassociate")) else 1.0 for operation in OPERATIONS}
WEIGHTS |= {
    "UpdateWorkerSchedule": 8,
    "UpdateWorker": 3,
    "CreateJob": 3,
    "UpdateJob": 2,
    "UpdateTask": 2,
    "CreateFarm": 0.3,
}


class Walk:
    """A service, and what was made in it: families of ids that belong together."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.service = Service(folder)
        self.families: list[dict[str, str]] = []
        self.loose: dict[str, list[str]] = defaultdict(list)
        self.counts: dict[str, int] = defaultdict(int)

    def family(self, operation: str) -> dict[str, str]:
        """Ids that belong together, most of the time those that an operation needs."""
        if not self.families:
            return {}
        needed = set(SHAPES[MODEL["operations"][operation]["input"]["shape"]].get("required", ()))
        needed &= {name for each in self.families[-300:] for name in each}
        whole = [each for each in self.families[-300:] if needed <= each.keys()]
        if whole and self.rng.random() < 0.7:
            return dict(self.rng.choice(whole))
        one = dict(self.rng.choice(self.families[-60:]))
        if self.rng.random() < 0.5:  # a sibling's children too: those of the same parents
            other = self.rng.choice(self.families[-60:])
            shared = [name for name in PARENTS if name in one and one[name] == other.get(name)]
            if "farmId" in shared or self.rng.random() < 0.1:
                one = {**other, **one} if self.rng.random() < 0.5 else {**one, **other}
        return one

    def params(self, operation: str) -> dict[str, Any]:
        shape = MODEL["operations"][operation]["input"]["shape"]
        family = self.family(operation)
        params = valid(shape, self.rng, family)
        self.fill(params, family)
        rng = self.rng
        if operation == "CreateJob":
            params |= {"template": json.dumps(TEMPLATE), "templateType": "JSON"}
            for name in ("sourceJobId", "storageProfileId", "parameters", "attachments"):
                if rng.random() < 0.8:
                    params.pop(name, None)
            params.pop("maxWorkerCount", None)
        elif operation in ("CreateFleet", "UpdateFleet"):
            if rng.random() < 0.9:
                mode = rng.choice(["NO_SCALING", "EVENT_BASED_AUTO_SCALING"])
                params |= {"configuration": {"customerManaged": {"mode": mode, "workerCapabilities": HOST}}}
            params |= {"minWorkerCount": 0, "maxWorkerCount": rng.choice([0, 1, 5, 50]), "roleArn": ROLE}
            params.pop("hostConfiguration", None)
        elif operation == "CreateQueue":
            params |= {"roleArn": ROLE, "jobRunAsUser": {"runAs": "WORKER_AGENT_USER"}}
            for name in ("allowedStorageProfileIds", "requiredFileSystemLocationNames"):
                if rng.random() < 0.8:
                    params.pop(name, None)
        elif operation in ("CreateBudget", "UpdateBudget"):
            schedule = {"fixed": {"startTime": 0, "endTime": rng.choice([1, "2100-01-01T00:00:00Z"])}}
            params |= {"schedule": schedule, "approximateDollarLimit": rng.choice([0.01, 1000])}
        elif operation in ("CreateLimit", "UpdateLimit"):
            params |= {"amountRequirementName": f"amount.l{rng.randint(1, 3)}", "maxCount": rng.choice([-1, 1, 9])}
        elif operation == "StartSessionsStatisticsAggregation":
            params |= {"startTime": 0, "groupBy": ["QUEUE_ID"], "endTime": "2100-01-01T00:00:00Z"}
            params["resourceIds"] = {"queueIds": [family.get("queueId", "queue-" + "0" * 32)]}
        elif operation == "CreateQueueEnvironment":
            params |= {"template": json.dumps(ENVIRONMENT), "templateType": "JSON"}
        elif operation == "UpdateWorker":
            params |= {"capabilities": CAPABILITIES} if rng.random() < 0.9 else {}
            params["status"] = rng.choice(["STARTED", "STARTED", "STARTED", "STOPPING", "STOPPED"])
        elif operation == "UpdateWorkerSchedule":
            params["updatedSessionActions"] = self.updates(family)
        elif operation == "UpdateJob" and rng.random() < 0.9:
            params.pop("lifecycleStatus", None)
        if rng.random() < 0.1:
            for name in ("clientToken",):
                if name in params:
                    params[name] = rng.choice(["a", "b"])
        else:
            params.pop("clientToken", None)
        return dict(params)

    def updates(self, family: dict[str, str]) -> dict[str, Any]:
        """What the worker was last told to run, in part and with any end."""
        rng, told = self.rng, self.loose.get("told " + family.get("workerId", ""), [])
        updates = {}
        for action in told[: rng.randint(0, len(told))]:
            status = rng.choice(["SUCCEEDED"] * 4 + ["FAILED", "INTERRUPTED", "CANCELED", "NEVER_ATTEMPTED", None])
            updates[action] = {"completedStatus": status} if status else {"progressPercent": 50.0}
            if status != "NEVER_ATTEMPTED":
                updates[action] |= {"startedAt": 1000, "endedAt": 2000} if status else {"startedAt": 1000}
        return updates

    def fill(self, document: Any, family: dict[str, str]) -> None:
        """Put ids of what was made in the place of made-up ones."""
        for key, inner in document.items() if isinstance(document, dict) else enumerate(document):
            if isinstance(inner, dict | list):
                self.fill(inner, family)
                if isinstance(inner, list) and key in ("queueIds", "fleetIds", "allowedStorageProfileIds"):
                    name = {"allowedStorageProfileIds": "storageProfileId"}.get(str(key), str(key)[:-1])
                    document[key] = [family[name]] if name in family else inner
            elif key in family and self.rng.random() < 0.97:
                document[key] = family[key]
            elif isinstance(inner, str) and ID.fullmatch(inner) and self.loose.get(inner.partition("-")[0]):
                document[key] = self.rng.choice(self.loose[inner.partition("-")[0]][-20:])
            elif key == "resourceArn":
                path = f"farm/{family.get('farmId')}"
                kinds = [kind for kind in ("queue", "fleet", "budget") if f"{kind}Id" in family]
                if kinds and self.rng.random() < 0.7:
                    kind = self.rng.choice(kinds)
                    path += f"/{kind}/{family[kind + 'Id']}"
                document[key] = f"arn:aws:deadline:us-west-2:000000000000:{path}"

    def learn(self, operation: str, params: dict[str, Any], body: Any) -> None:
        """Keep the ids of an answer with those that were asked with."""
        base = {name: params[name] for name in PARENTS if isinstance(params.get(name), str)}
        if operation == "UpdateWorkerSchedule":
            told = [
                each["sessionActionId"] for one in body["assignedSessions"].values() for each in one["sessionActions"]
            ]
            self.loose["told " + params["workerId"]] = told
            for session, one in body["assignedSessions"].items():
                self.families.append({**base, "queueId": one["queueId"], "jobId": one["jobId"], "sessionId": session})
        rows = [body] + [
            row for value in body.values() if isinstance(value, list) for row in value if isinstance(row, dict)
        ]
        for row in rows[:6]:
            ids = {name: text for name, text in row.items() if isinstance(text, str) and ID.fullmatch(text)}
            for text in ids.values():
                self.loose[text.partition("-")[0]].append(text)
            if ids and (operation.startswith("Create") or self.rng.random() < 0.6):
                self.families.append({**base, **ids})

    def run(self, steps: int) -> None:
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        for number in range(steps):
            operation = FIRST[number] if number < len(FIRST) else self.rng.choices(names, weights)[0]
            params = self.params(operation)
            answer = self.service.call(operation, params)
            if number % 7 == 0:
                self.service.settle()
            self.counts["sent"] += 1
            if answer is None:
                continue
            assert answer.status < 500, (number, operation, params, answer.body, self.service.errors)
            error = error_of(answer)
            if answer.status in (200, 201, 204):
                self.counts[operation] += 1
                self.learn(operation, params, json.loads(answer.body or b"{}"))
            else:
                self.counts[error] += 1
                modelled = {each["shape"] for each in MODEL["operations"][operation]["errors"]} | {
                    "ValidationException"
                }
                assert error in modelled, (number, operation, params, answer.body)
                body = json.loads(answer.body)
                if error == "ConflictException":
                    assert {"reason", "resourceId", "resourceType", "message"} <= body.keys()
                    assert body["reason"] in SHAPES["ConflictExceptionReason"]["enum"]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_walk_through_all_operations(seed: int, tmp_path: Path) -> None:
    walk = Walk(tmp_path / "farm", seed)
    walk.run(STEPS)
    assert not walk.service.settle(), walk.service.errors
    walk.service.farm.close()
    audit(tmp_path / "farm")
    done = sorted(operation for operation in OPERATIONS if walk.counts[operation])
    assert len(done) > 90 and walk.counts["ConflictException"], (len(done), dict(walk.counts))
