"""Fleets that shrink, fleets that follow their work, and workers that have several sessions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from in_process import CAPABILITIES, ROLE, Service, error_of

NOW = "2026-11-28T00:00:00Z"
HOST = {"vCpuCount": {"min": 1}, "memoryMiB": {"min": 512}, "osFamily": "LINUX", "cpuArchitectureType": "x86_64"}


class Farm:
    """A farm with a queue and a fleet, and workers that answer at once."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None, **fleet: Any) -> None:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"settings": settings or {}}))
        self.service = Service(folder)
        self.make = self.service.make
        self.farm = {"farmId": self.make("CreateFarm", displayName="f")["farmId"]}
        self.queue = self.new_queue()
        configuration = {"customerManaged": {"mode": "NO_SCALING", "workerCapabilities": HOST}}
        fleet = {"maxWorkerCount": 9, "configuration": configuration, **fleet}
        self.fleet = {
            **self.farm,
            "fleetId": self.make("CreateFleet", **self.farm, displayName="f", roleArn=ROLE, **fleet)["fleetId"],
        }
        self.associate(self.queue)
        self.time = self.service.farm.now_ms()
        self.service.farm.now_ms = lambda: self.time

    def new_queue(self) -> dict[str, str]:
        return {**self.farm, "queueId": self.make("CreateQueue", **self.farm, displayName="q")["queueId"]}

    def associate(self, queue: dict[str, str]) -> None:
        self.make("CreateQueueFleetAssociation", **queue, fleetId=self.fleet["fleetId"])

    def pass_time(self, seconds: float) -> None:
        self.time += int(seconds * 1000)

    def worker(self, capabilities: Any = CAPABILITIES) -> dict[str, str]:
        made = self.make("CreateWorker", **self.fleet, hostProperties={"hostName": "h"})["workerId"]
        worker = {**self.fleet, "workerId": made}
        self.make("UpdateWorker", **worker, status="STARTED", capabilities=capabilities)
        self.pass_time(1.1)  # how many there are is counted once a second
        return worker

    def ask(self, worker: dict[str, str], updates: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a worker is told; of an answer that is held, what comes when its time is over."""
        params = {**worker, "updatedSessionActions": updates or {}}
        answer = self.service.call("UpdateWorkerSchedule", params)
        if answer is None:
            self.service.server.pending = [self.held]
            self.service.server.run_group()
            answer = self.service.answers[0]
        assert answer.status == 200, answer.body
        return dict(json.loads(answer.body))

    @property
    def held(self) -> Any:
        # What farm.hold keeps is a closure over the request that waits.
        ((function, _),) = [item for held in self.service.farm._held.values() for item in held.items()][-1:]
        self.service.farm._held.clear()
        return next(cell.cell_contents for cell in function.__closure__ if hasattr(cell.cell_contents, "body"))

    def finish(self, worker: dict[str, str]) -> dict[str, Any]:
        """Report success of all that a worker has in hand, until it has nothing."""
        told = self.ask(worker)
        while told["assignedSessions"]:
            actions = [each for session in told["assignedSessions"].values() for each in session["sessionActions"]]
            done = {"completedStatus": "SUCCEEDED", "startedAt": NOW, "endedAt": NOW}
            told = self.ask(worker, {each["sessionActionId"]: done for each in actions})
        return told

    def submit(self, *steps: dict[str, Any], queue: dict[str, str] | None = None, **more: Any) -> dict[str, str]:
        template = {"specificationVersion": "jobtemplate-2023-09", "name": "j", "steps": list(steps)}
        queue = queue or self.queue
        job = self.make("CreateJob", **queue, priority=50, templateType="JSON", template=json.dumps(template), **more)
        self.service.settle()
        return {**queue, "jobId": job["jobId"]}

    def status(self, worker: dict[str, str]) -> str:
        return str(self.make("GetWorker", **worker)["status"])


def step(name: str = "s", tasks: int = 4, **amounts: float) -> dict[str, Any]:
    needs = [{"name": f"amount.worker.{each}", "min": least} for each, least in amounts.items()]
    return {
        "name": name,
        "parameterSpace": {"taskParameterDefinitions": [{"name": "N", "type": "INT", "range": f"1-{tasks}"}]},
        "script": {"actions": {"onRun": {"command": "true"}}},
        **({"hostRequirements": {"amounts": needs}} if needs else {}),
    }


@pytest.fixture
def made(tmp_path: Path) -> Any:
    farms: list[Farm] = []

    def make(*args: Any, **kwargs: Any) -> Farm:
        farms.append(Farm(tmp_path / str(len(farms)), *args, **kwargs))
        return farms[-1]

    yield make
    for each in farms:
        assert not each.service.errors
        each.service.farm.close()


def test_a_lowered_maximum_stops_the_last_workers(made: Any) -> None:
    farm = made()
    workers = [farm.worker() for _ in range(4)]
    job = farm.submit(step(tasks=30))
    busy = workers[3]
    assert farm.ask(busy)["assignedSessions"]
    farm.make("UpdateJob", **job, priority=0)
    farm.make("UpdateFleet", **farm.fleet, maxWorkerCount=2)
    farm.pass_time(1.1)
    # The busy one stays, and of the others the first; those that are too many are given nothing and told to stop.
    told = [farm.ask(each) for each in workers[1:3]]
    assert [each.get("desiredWorkerStatus") for each in told] == ["STOPPED", "STOPPED"]
    assert not any(each["assignedSessions"] for each in told)
    first = farm.ask(workers[0])
    assert first["assignedSessions"] and "desiredWorkerStatus" not in first
    assert "desiredWorkerStatus" not in farm.ask(busy)
    for each in workers[1:3]:
        farm.make("UpdateWorker", **each, status="STOPPING")
        assert "desiredWorkerStatus" not in farm.ask(each)
        farm.make("UpdateWorker", **each, status="STOPPED")
    refused = farm.service.call("CreateWorker", {**farm.fleet, "hostProperties": {"hostName": "h"}})
    assert (error_of(refused), json.loads(refused.body)["resourceId"]) == ("ConflictException", farm.fleet["fleetId"])
    # Lowered below what is busy: sessions end what they have, then their workers stop.
    farm.make("UpdateFleet", **farm.fleet, maxWorkerCount=0)
    farm.pass_time(1.1)
    for each in (workers[0], busy):
        assert farm.ask(each)["assignedSessions"]
        assert farm.finish(each)["desiredWorkerStatus"] == "STOPPED"
        farm.make("UpdateWorker", **each, status="STOPPED")
    assert farm.make("GetJob", **job)["taskRunStatusCounts"]["READY"] > 20
    farm.make("UpdateFleet", **farm.fleet, maxWorkerCount=9)
    farm.make("UpdateWorker", **busy, status="STARTED", capabilities=CAPABILITIES)
    assert farm.ask(busy)["assignedSessions"]


SCALING = {
    "customerManaged": {
        "mode": "EVENT_BASED_AUTO_SCALING",
        "workerCapabilities": HOST,
        "autoScalingConfiguration": {"standbyWorkerCount": 1, "workerIdleDurationSeconds": 300},
    }
}


def test_idle_workers_of_a_fleet_that_scales_are_stopped(made: Any) -> None:
    farm = made(configuration=SCALING, minWorkerCount=2)
    workers = [farm.worker() for _ in range(5)]
    for each in workers:
        assert "desiredWorkerStatus" not in farm.ask(each)
    farm.pass_time(290)
    farm.submit(step(tasks=1))
    assert farm.ask(workers[0])["assignedSessions"]
    farm.pass_time(20)
    # One is busy; of the idle ones that many are kept that two are there, and one is idle.
    told = [farm.ask(each) for each in workers[1:]]
    stopped = [each for each, answer in zip(workers[1:], told, strict=True) if "desiredWorkerStatus" in answer]
    assert len(stopped) == 3
    for each in stopped:
        farm.make("UpdateWorker", **each, status="STOPPED")
    (kept,) = [each for each in workers[1:] if each not in stopped]
    farm.pass_time(1000)
    assert "desiredWorkerStatus" not in farm.ask(kept)
    assert "desiredWorkerStatus" not in farm.finish(workers[0])  # it came to rest just now
    farm.pass_time(1000)
    assert not any("desiredWorkerStatus" in farm.ask(each) for each in (workers[0], kept))
    # A fleet that does not scale keeps them all.
    plain = made()
    worker = plain.worker()
    plain.ask(worker)
    plain.pass_time(100_000)
    assert "desiredWorkerStatus" not in plain.ask(worker)


def test_a_fleet_that_scales_keeps_its_least_number_of_workers(made: Any) -> None:
    farm = made(configuration=SCALING, minWorkerCount=3)
    workers = [farm.worker() for _ in range(5)]
    for each in workers:
        farm.ask(each)
    farm.pass_time(400)
    assert sum("desiredWorkerStatus" in farm.ask(each) for each in workers) == 2


def test_a_fleet_that_scales_aims_at_its_work(made: Any) -> None:
    from dl_tools.dl_farmd import scaling

    farm = made(configuration=SCALING, maxWorkerCount=40)

    def aim() -> tuple[int, str]:
        farm.service.farm.transaction(lambda db: scaling.aim(farm.service.farm, db))
        got = farm.make("GetFleet", **farm.fleet)
        return got["targetWorkerCount"], got["autoScalingStatus"]

    assert aim() == (1, "GROWING")  # the one that stands by
    worker = farm.worker()
    farm.ask(worker)
    assert aim() == (1, "STEADY")
    job = farm.submit(step(tasks=100), step("t", 100, vcpu=64))  # the second step is too large for the fleet
    farm.submit(step(tasks=100))
    assert aim()[0] <= 4  # ten a minute
    for _ in range(10):
        aim()
    assert aim() == (11, "GROWING")
    farm.make("UpdateJob", **job, targetTaskRunStatus="CANCELED")
    farm.submit(step(tasks=100), maxWorkerCount=2)
    for each in farm.make("ListJobs", **farm.queue)["jobs"]:
        farm.make("UpdateJob", **farm.queue, jobId=each["jobId"], targetTaskRunStatus="CANCELED")
    assert aim() == (1, "STEADY")


LARGE = {
    **CAPABILITIES,
    "amounts": [{"name": "amount.worker.vcpu", "value": 8}, {"name": "amount.worker.memory", "value": 16384}],
}


LARGE_FLEET = {
    "customerManaged": {
        "mode": "NO_SCALING",
        "workerCapabilities": {**HOST, "vCpuCount": {"min": 8}, "memoryMiB": {"min": 16384}},
    }
}


def names(farm: Farm, told: dict[str, Any]) -> list[str]:
    """The names of the jobs or steps that a worker has sessions of."""
    found = []
    for session in told["assignedSessions"].values():
        (run,) = [
            each["definition"]["taskRun"] for each in session["sessionActions"] if "taskRun" in each["definition"]
        ]
        ids = {**farm.farm, "queueId": session["queueId"], "jobId": session["jobId"], "stepId": run["stepId"]}
        found.append(farm.make("GetStep", **ids)["name"])
    return sorted(found)


def test_a_worker_has_one_session_unless_it_may_have_more(made: Any) -> None:
    farm = made(configuration=LARGE_FLEET)
    farm.submit(step("a", vcpu=1), step("b", vcpu=1))
    assert names(farm, farm.ask(farm.worker(LARGE))) == ["a"]


def test_sessions_share_a_worker_as_far_as_it_goes(made: Any) -> None:
    farm = made({"worker_sessions": 5}, configuration=LARGE_FLEET)
    job = farm.submit(step("four", 2, vcpu=4), step("two", 2, vcpu=2, memory=4096), step("whole", 1))
    worker = farm.worker(LARGE)
    told = farm.ask(worker)
    assert names(farm, told) == ["four", "four"]
    assert farm.ask(worker)["assignedSessions"].keys() == told["assignedSessions"].keys()
    # Each is reported by itself; what one leaves free goes to what fits.
    first, second = told["assignedSessions"]
    done = {"completedStatus": "SUCCEEDED", "startedAt": NOW, "endedAt": NOW}
    action = told["assignedSessions"][first]["sessionActions"][0]["sessionActionId"]
    told = farm.ask(worker, {action: done})
    assert second in told["assignedSessions"] and first not in told["assignedSessions"]
    assert names(farm, told) == ["four", "two", "two"]
    # What names no amount has the worker for itself, when it comes to it.
    farm.finish(worker)
    counts = farm.make("GetJob", **job)["taskRunStatusCounts"]
    assert counts["SUCCEEDED"] == 5 and farm.make("GetJob", **job)["taskRunStatus"] == "SUCCEEDED"
    assert farm.status(worker) == "IDLE"


def test_what_needs_a_whole_worker_is_not_kept_from_it_by_smaller_work(made: Any) -> None:
    farm = made({"worker_sessions": 2}, configuration=LARGE_FLEET)
    jobs = {name: farm.submit(step(name, 1, vcpu=2)) for name in "abcd"}
    worker = farm.worker(LARGE)
    told = farm.ask(worker)
    assert names(farm, told) == ["a", "b"]
    for name in "cd":
        farm.make("UpdateJob", **jobs[name], priority=10)
    farm.submit(step("whole", 1))
    done = {"completedStatus": "SUCCEEDED", "startedAt": NOW, "endedAt": NOW}
    first, second = (each["sessionActions"][0]["sessionActionId"] for each in told["assignedSessions"].values())
    assert names(farm, farm.ask(worker, {first: done})) == ["b"]
    assert names(farm, farm.ask(worker, {second: done})) == ["whole"]


def test_a_step_whose_last_task_went_to_a_session_in_hand(made: Any) -> None:
    """The next session is chosen by what is left, not by what there was."""
    farm = made({"worker_sessions": 3}, configuration=LARGE_FLEET)
    job = farm.submit(step("a", 3, vcpu=2))
    worker = farm.worker(LARGE)
    farm.finish(worker)
    assert farm.make("GetJob", **job)["taskRunStatus"] == "SUCCEEDED"
    job = farm.submit(step("a", 4, vcpu=2))
    told = farm.ask(worker)
    assert names(farm, told) == ["a", "a", "a"]
    done = {"completedStatus": "SUCCEEDED", "startedAt": NOW, "endedAt": NOW}
    ended = [each["sessionActions"][0]["sessionActionId"] for each in told["assignedSessions"].values()][:2]
    told = farm.ask(worker, dict.fromkeys(ended, done))
    assert names(farm, told) == ["a", "a"]
    farm.finish(worker)
    assert farm.make("GetJob", **job)["taskRunStatus"] == "SUCCEEDED"


def test_all_sessions_of_a_worker_are_of_one_queue(made: Any) -> None:
    farm = made({"worker_sessions": 4}, configuration=LARGE_FLEET)
    other = farm.new_queue()
    farm.associate(other)
    farm.submit(step("a", 1, vcpu=1))
    farm.submit(step("b", 1, vcpu=1), queue=other)
    worker = farm.worker(LARGE)
    told = farm.ask(worker)
    assert len(names(farm, told)) == 1
    assert len({session["queueId"] for session in told["assignedSessions"].values()}) == 1
    farm.finish(worker)
    jobs = [farm.make("ListJobs", **queue)["jobs"][0]["taskRunStatus"] for queue in (farm.queue, other)]
    assert jobs == ["SUCCEEDED", "SUCCEEDED"]


def test_one_session_of_several_fails_and_the_others_go_on(made: Any) -> None:
    farm = made({"worker_sessions": 2}, configuration=LARGE_FLEET)
    job = farm.submit(step("a", 1, vcpu=4), step("b", 1, vcpu=4), maxRetriesPerTask=0)
    worker = farm.worker(LARGE)
    told = farm.ask(worker)
    first, second = told["assignedSessions"]
    action = told["assignedSessions"][first]["sessionActions"][0]["sessionActionId"]
    told = farm.ask(worker, {action: {"completedStatus": "FAILED", "startedAt": NOW, "endedAt": NOW}})
    assert list(told["assignedSessions"]) == [second]
    counts = farm.make("GetJob", **job)["taskRunStatusCounts"]
    assert (counts["FAILED"], counts["ASSIGNED"]) == (1, 1)
    # The worker starts anew: all of its sessions are taken back.
    farm.make("UpdateWorker", **worker, status="STARTED", capabilities=LARGE)
    assert farm.make("GetJob", **job)["taskRunStatusCounts"]["READY"] == 1
