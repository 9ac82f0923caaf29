"""Every conflict of the workers' protocol, in each status of a worker: its reason, its resource and its context."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dl_tools.dl_farmd import workers
from in_process import CAPABILITIES, Service, error_of, one_of_each

WRONG_HOST = {
    "amounts": CAPABILITIES["amounts"],
    "attributes": [
        {"name": "attr.worker.os.family", "values": ["windows"]},
        {"name": "attr.worker.cpu.arch", "values": ["x86_64"]},
    ],
}  # fmt: skip
STATUSES = ("CREATED", "STARTED", "IDLE", "RUNNING", "STOPPING", "STOPPED", "NOT_RESPONDING", "NOT_COMPATIBLE")
ONLINE = {"STARTED", "IDLE", "RUNNING", "STOPPING"}


class Worker:
    """A worker that is brought into a status by what brings real ones there."""

    def __init__(self, service: Service, ids: dict[str, str]) -> None:
        self.service, self.farm = service, {"farmId": ids["farmId"]}
        self.queue = {**self.farm, "queueId": ids["queueId"]}
        self.fleet = {**self.farm, "fleetId": ids["fleetId"]}
        self.job = ids["jobId"]
        made = service.make("CreateWorker", **self.fleet, hostProperties={"hostName": "h"})
        self.ids = {**self.fleet, "workerId": made["workerId"]}

    def call(self, operation: str, **params: Any) -> Any:
        return self.service.call(operation, {**self.ids, **params})

    def bring(self, status: str) -> None:
        if status == "CREATED":
            return
        if status == "NOT_COMPATIBLE":
            assert self.call("UpdateWorker", status="STARTED", capabilities=WRONG_HOST).status == 409
            self.service.settle()
            return
        self.service.make("UpdateWorker", **self.ids, status="STARTED", capabilities=CAPABILITIES)
        if status in ("RUNNING", "STOPPING"):
            self.service.make("CreateJob", **self.queue, priority=99, sourceJobId=self.job)
            self.service.settle()
        if status not in ("STARTED", "STOPPED"):
            self.call("UpdateWorkerSchedule")
        if status in ("STOPPING", "STOPPED"):
            self.service.make("UpdateWorker", **self.ids, status=status)
        if status == "NOT_RESPONDING":
            farm = self.service.farm
            farm.db.execute("UPDATE workers SET heard_at = 0 WHERE worker_id = ?", (self.ids["workerId"],))
            assert farm.transaction(lambda db: workers.lose_silent(farm, db)) is None
            self.service.errors.clear()

    @property
    def status(self) -> str:
        return str(self.service.make("GetWorker", **self.ids)["status"])


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, str]:
    found = one_of_each(service)
    job = {name: found[name] for name in ("farmId", "queueId", "jobId")}
    service.make("UpdateJob", **job, targetTaskRunStatus="CANCELED")
    return found


@pytest.fixture
def worker(service: Service, ids: dict[str, str]) -> Any:
    made = Worker(service, ids)
    yield made
    service.make("UpdateWorker", **made.ids, status="STOPPED")
    for job in service.make("ListJobs", **made.queue)["jobs"]:
        if job["jobId"] != ids["jobId"]:
            service.make("UpdateJob", **made.queue, jobId=job["jobId"], targetTaskRunStatus="CANCELED")


def conflict(answer: Any) -> tuple[Any, ...]:
    body = json.loads(answer.body)
    assert (answer.status, error_of(answer)) == (409, "ConflictException"), answer.body
    assert body["message"]
    return body["reason"], body["resourceType"], body["resourceId"], body["context"]


REQUESTS: dict[str, tuple[Callable[[Worker], Any], set[str]]] = {
    "schedule": (lambda worker: worker.call("UpdateWorkerSchedule"), set(STATUSES) - ONLINE),
    "start": (lambda worker: worker.call("UpdateWorker", status="STARTED", capabilities=CAPABILITIES), {"STOPPING"}),
    "stopping": (
        lambda worker: worker.call("UpdateWorker", status="STOPPING"), {"CREATED", "NOT_RESPONDING", "NOT_COMPATIBLE"},
    ),
    "stopped": (lambda worker: worker.call("UpdateWorker", status="STOPPED"), set()),
    "delete": (lambda worker: worker.call("DeleteWorker"), {*ONLINE, "NOT_COMPATIBLE"}),
    "queue role": (
        lambda worker: worker.call("AssumeQueueRoleForWorker", queueId=worker.queue["queueId"]), set(STATUSES) - ONLINE,
    ),
    "fleet role": (lambda worker: worker.call("AssumeFleetRoleForWorker"), set()),
    "fleet role, bootstrap": (
        lambda worker: worker.service.call(
            "AssumeFleetRoleForWorker", worker.ids,
            who=worker.service.mint(kind="bootstrap", farm=worker.farm["farmId"], fleet=worker.fleet["fleetId"]),
        ),
        ONLINE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("status", STATUSES)
def test_each_request_in_each_status(status: str, service: Service, ids: dict[str, str]) -> None:
    for name, (request, refused) in REQUESTS.items():
        worker = Worker(service, ids)
        worker.bring(status)
        assert worker.status == status, name
        answer = request(worker)
        if status in refused:
            assert conflict(answer) == ("STATUS_CONFLICT", "worker", worker.ids["workerId"], {"status": status}), name
            assert worker.status == status, name
        else:
            assert answer is None or answer.status in (200, 403), (name, answer.body)
            assert answer is None or (answer.status == 403) == (
                name == "queue role" and status not in ("RUNNING", "STOPPING")
            )
        if name != "delete" or status in refused:
            service.make("UpdateWorker", **worker.ids, status="STOPPED")
            service.make("DeleteWorker", **worker.ids)
        for job in service.make("ListJobs", **worker.queue)["jobs"]:
            if job["jobId"] != ids["jobId"]:
                service.make("UpdateJob", **worker.queue, jobId=job["jobId"], targetTaskRunStatus="CANCELED")


def test_a_worker_that_does_not_fit_is_told_so_and_may_come_again(worker: Worker) -> None:
    answer = worker.call("UpdateWorker", status="STARTED", capabilities=WRONG_HOST)
    assert conflict(answer) == ("STATUS_CONFLICT", "worker", worker.ids["workerId"], {"status": "NOT_COMPATIBLE"})
    worker.service.settle()
    assert worker.status == "NOT_COMPATIBLE"
    # What the reference agent does then: STOPPED, and STARTED again.
    assert worker.call("UpdateWorker", status="STOPPED", capabilities=WRONG_HOST).status == 200
    assert worker.call("UpdateWorker", status="STARTED", capabilities=CAPABILITIES).status == 200
    assert worker.status == "STARTED"


def test_a_fleet_that_is_full_or_being_made(service: Service, ids: dict[str, str]) -> None:
    fleet = {"farmId": ids["farmId"], "fleetId": ids["fleetId"]}
    request = {**fleet, "hostProperties": {"hostName": "h"}}
    there = service.make("ListWorkers", **fleet)["workers"]
    most = sum(each["status"] not in ("STOPPED", "NOT_RESPONDING") for each in there)
    service.make("UpdateFleet", **fleet, maxWorkerCount=most)
    wanted = ("STATUS_CONFLICT", "fleet", ids["fleetId"])
    assert conflict(service.call("CreateWorker", request)) == (*wanted, {"status": "ACTIVE"})
    service.make("UpdateFleet", **fleet, maxWorkerCount=most + 1)
    service.farm.db.execute("UPDATE fleets SET status = 'CREATE_IN_PROGRESS' WHERE fleet_id = ?", (ids["fleetId"],))
    assert conflict(service.call("CreateWorker", request)) == (*wanted, {"status": "CREATE_IN_PROGRESS"})
    service.farm.db.execute("UPDATE fleets SET status = 'ACTIVE' WHERE fleet_id = ?", (ids["fleetId"],))
    assert service.call("CreateWorker", request).status == 200
    service.make("UpdateFleet", **fleet, maxWorkerCount=99)


def test_what_is_in_use_is_not_deleted(service: Service, ids: dict[str, str]) -> None:
    farm, queue = {"farmId": ids["farmId"]}, {"farmId": ids["farmId"], "queueId": ids["queueId"]}
    fleet, limit = {**farm, "fleetId": ids["fleetId"]}, {**farm, "limitId": ids["limitId"]}
    for operation, params, kind, own in (
        ("DeleteQueue", queue, "queue", "queueId"),
        ("DeleteFleet", fleet, "fleet", "fleetId"),
    ):
        answer = service.call(operation, params)
        body = json.loads(answer.body)
        assert (answer.status, body["reason"], body["resourceType"], body["resourceId"]) == (
            409, "RESOURCE_IN_USE", kind, ids[own],
        )  # fmt: skip
    for operation, params, kind in (
        ("DeleteQueueFleetAssociation", {**queue, **fleet}, "fleet"),
        ("DeleteQueueLimitAssociation", {**queue, **limit}, "limit"),
    ):  # fmt: skip
        identity = f"{ids['queueId']}/{ids[kind + 'Id']}"
        assert conflict(service.call(operation, params)) == (
            "STATUS_CONFLICT", f"queue-{kind}-association", identity, {"status": "ACTIVE"},
        )  # fmt: skip
    # These have no conflict in the model.
    for operation, params in (("DeleteFarm", farm), ("DeleteLimit", limit)):
        assert error_of(service.call(operation, params)) == "ValidationException"


def test_a_job_that_is_over_is_not_changed(service: Service, ids: dict[str, str], tmp_path: Path) -> None:
    queue = {"farmId": ids["farmId"], "queueId": ids["queueId"]}
    failed = service.make("CreateJob", **queue, priority=1, template="{}", templateType="JSON")["jobId"]
    archived = service.make("CreateJob", **queue, priority=1, sourceJobId=ids["jobId"])["jobId"]
    service.settle()
    service.make("UpdateJob", **queue, jobId=archived, lifecycleStatus="ARCHIVED")
    for job, status in ((failed, "CREATE_FAILED"), (archived, "ARCHIVED")):
        wanted = ("STATUS_CONFLICT", "job", job, {"status": status})
        assert conflict(service.call("UpdateJob", {**queue, "jobId": job, "priority": 2})) == wanted
        (error,) = service.make("BatchUpdateJob", jobs=[{**queue, "jobId": job, "priority": 2}])["errors"]
        assert (error["jobId"], error["code"]) == (job, "ConflictException")
    step = service.make("ListSteps", **queue, jobId=archived)["steps"][0]["stepId"]
    ids_of_step = {**queue, "jobId": archived, "stepId": step}
    answer = service.call("UpdateStep", {**ids_of_step, "targetTaskRunStatus": "READY"})
    assert conflict(answer) == ("STATUS_CONFLICT", "step", step, {"status": "ARCHIVED"})
    task = service.make("ListTasks", **ids_of_step)["tasks"][0]["taskId"]
    answer = service.call("UpdateTask", {**ids_of_step, "taskId": task, "targetRunStatus": "READY"})
    assert conflict(answer) == ("STATUS_CONFLICT", "task", task, {"status": "ARCHIVED"})
