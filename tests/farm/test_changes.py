"""Status changes of very many tasks: done in batches, with the same end as those done at once, whatever stops them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from dl_tools.dl_farmd import capabilities, changes, run_status
from in_process import Service, error_of, one_of_each
from own_farmd import Farmd
from simulated_worker import audit

NOW = "2026-11-28T00:00:00Z"
SHELL = {"actions": {"onRun": {"command": "true"}}}


def step(name: str, tasks: int, *after: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": name,
        "parameterSpace": {"taskParameterDefinitions": [{"name": "N", "type": "INT", "range": f"1-{tasks}"}]},
        "script": SHELL,
        **more,
    }
    if after:
        made["dependencies"] = [{"dependsOn": each} for each in after]
    return made


class Scene:
    """A job of some steps on a farm of its own, with a worker that has some of it in hand."""

    def __init__(self, folder: Path, steps: list[dict[str, Any]], **job: Any) -> None:
        self.service = Service(folder)
        ids = one_of_each(self.service)
        self.db = self.service.farm.db
        farm = {"farmId": ids["farmId"]}
        self.worker = {**farm, "fleetId": ids["fleetId"], "workerId": ids["workerId"]}
        self.call("UpdateJob", **farm, queueId=ids["queueId"], jobId=ids["jobId"], targetTaskRunStatus="CANCELED")
        self.report({})
        template = {"specificationVersion": "jobtemplate-2023-09", "name": "large", "steps": steps}
        made = self.call(
            "CreateJob", **farm, queueId=ids["queueId"], templateType="JSON", template=json.dumps(template),
            **{"priority": 50, "maxRetriesPerTask": 0, **job},
        )  # fmt: skip
        self.job = {**farm, "queueId": ids["queueId"], "jobId": made["jobId"]}
        self.service.settle()
        rows = self.call("ListSteps", **self.job)["steps"]
        self.steps = {each["name"]: {**self.job, "stepId": each["stepId"]} for each in rows}

    def call(self, operation: str, **params: Any) -> Any:
        return self.service.make(operation, **params)

    def report(self, outcomes: dict[int, str], rounds: int = 1) -> None:
        """Let the worker end its actions: tasks as `outcomes` has it by their value of N, else with success."""
        for _ in range(rounds):
            answer = self.service.call("UpdateWorkerSchedule", self.worker)
            if answer is None:
                return
            assigned = json.loads(answer.body)
            canceled = {each for ids in assigned["cancelSessionActions"].values() for each in ids}
            updates = {}
            for session in assigned["assignedSessions"].values():
                broken = False
                for action in session["sessionActions"]:
                    ((kind, body),) = action["definition"].items()
                    status = "CANCELED" if action["sessionActionId"] in canceled else "SUCCEEDED"
                    if status == "SUCCEEDED" and kind == "taskRun":
                        status = outcomes.get(int(body["parameters"]["N"]["int"]), "SUCCEEDED")
                    if broken and kind != "envExit":
                        status = "NEVER_ATTEMPTED"
                    times = {} if status == "NEVER_ATTEMPTED" else {"startedAt": NOW, "endedAt": NOW}
                    updates[action["sessionActionId"]] = {"completedStatus": status, **times}
                    broken = broken or status != "SUCCEEDED"
            answer = self.service.call("UpdateWorkerSchedule", {**self.worker, "updatedSessionActions": updates})
            if answer is not None:
                assert answer.status == 200, answer.body

    def carry_out(self) -> int:
        """Do what is deferred, one batch after the other, as the service does. Returns how many batches."""
        count = 0
        while rows := self.db.execute("SELECT * FROM changes ORDER BY change").fetchall():
            self.check_counts()
            self.service.farm.transaction(lambda db, row=rows[0]: changes.go_on(self.service.farm, db, row))
            count += 1
            assert count < 1000
        assert not self.service.errors
        return count

    def check_counts(self) -> None:
        of_job = "tasks.step IN (SELECT step FROM steps WHERE steps.job = jobs.job)"
        for table, where in (("steps", "tasks.step = steps.step"), ("jobs", of_job)):
            for status, column in run_status.COLUMNS.items():
                counted = f"(SELECT count(*) FROM tasks WHERE {where} AND tasks.status = ?)"
                wrong = self.db.execute(f"SELECT 1 FROM {table} WHERE {column} <> {counted}", (status,)).fetchall()
                assert not wrong, (table, status)

    def state(self) -> Any:
        """All that a client sees of the tasks, steps and the job, without ids and times."""
        self.check_counts()
        tasks = self.db.execute(
            "SELECT position, number, tasks.status, tasks.target, attempts, tasks.started_at IS NULL,"
            " tasks.ended_at IS NULL FROM tasks JOIN steps USING (step) JOIN jobs USING (job) WHERE job_id = ?"
            " ORDER BY position, number",
            (self.job["jobId"],),
        )
        steps = self.db.execute(
            "SELECT position, steps.status, steps.target, steps.unresolved, steps.retries, steps.ended_at IS NULL"
            " FROM steps JOIN jobs USING (job) WHERE job_id = ? ORDER BY 1",
            (self.job["jobId"],),
        )
        job = self.db.execute(
            "SELECT status, target, retries, ended_at IS NULL, lifecycle_status = 'ARCHIVED' FROM jobs"
            " WHERE job_id = ?",
            (self.job["jobId"],),
        )
        return [[tuple(row) for row in rows] for rows in (tasks, steps, job)]


def begun(folder: Path) -> Scene:
    """Steps of twenty tasks each, the second after the first; some succeeded, one failed, some in hand."""
    scene = Scene(folder, [step("a", 20), step("b", 20, "a"), step("c", 20)])
    scene.report({3: "FAILED"}, rounds=6)
    return scene


def few(monkeypatch: pytest.MonkeyPatch, tasks: int) -> None:
    """Have more than so few tasks be many, and so few a batch."""
    for module in (run_status, capabilities):
        monkeypatch.setattr(module, "MANY", tasks)
    monkeypatch.setattr(changes, "BATCH", tasks)


REQUESTS: dict[str, Any] = {
    **{
        f"job {target}": [("UpdateJob", None, {"targetTaskRunStatus": target})]
        for target in ("CANCELED", "SUSPENDED", "FAILED", "SUCCEEDED", "READY", "PENDING")
    },
    **{
        f"step {name} {target}": [("UpdateStep", name, {"targetTaskRunStatus": target})]
        for name in "abc"
        for target in ("CANCELED", "SUSPENDED", "SUCCEEDED")
    },
    "archived": [("UpdateJob", None, {"lifecycleStatus": "ARCHIVED"})],
    "canceled and requeued": [
        ("UpdateJob", None, {"targetTaskRunStatus": "CANCELED"}),
        ("UpdateJob", None, {"targetTaskRunStatus": "READY"}),
    ],
    "suspended, then a step taken up": [
        ("UpdateJob", None, {"targetTaskRunStatus": "SUSPENDED"}),
        ("UpdateStep", "c", {"targetTaskRunStatus": "READY"}),
    ],
    "a step succeeded, then taken back": [
        ("UpdateStep", "a", {"targetTaskRunStatus": "SUCCEEDED"}),
        ("UpdateStep", "a", {"targetTaskRunStatus": "CANCELED"}),
        ("UpdateJob", None, {"targetTaskRunStatus": "READY"}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_batches_lead_where_one_change_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for many in (1 << 40, 7):
        few(monkeypatch, many)
        scene = begun(tmp_path / str(many))
        for operation, of, params in REQUESTS[name]:
            scene.call(operation, **(scene.steps[of] if of else scene.job), **params)
            batches = scene.carry_out()
            if many > 7:
                assert not batches
        after_request = scene.state()
        scene.report({}, rounds=3)
        scene.carry_out()
        ends.append((after_request, scene.state() if name != "job READY" else None))
        scene.service.farm.close()
    assert ends[0][0] == ends[1][0]
    assert ends[0][1] == ends[1][1]


def test_more_requests_while_a_change_is_carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 7)
    scene = begun(tmp_path / "f")
    scene.call("UpdateJob", **scene.job, targetTaskRunStatus="CANCELED")
    job = scene.call("GetJob", **scene.job)
    assert (job["lifecycleStatus"], job["targetTaskRunStatus"]) == ("UPDATE_IN_PROGRESS", "CANCELED")
    assert job["taskRunStatusCounts"]["READY"] > 7 and not job["taskRunStatusCounts"]["RUNNING"]
    # What is being canceled is not handed out, nor changed one by one.
    scene.report({}, rounds=2)
    assert scene.call("GetJob", **scene.job)["taskRunStatusCounts"]["ASSIGNED"] == 0
    task = {**scene.steps["c"], "taskId": scene.call("ListTasks", **scene.steps["c"])["tasks"][0]["taskId"]}
    refused = scene.service.call("UpdateTask", {**task, "targetRunStatus": "READY"})
    body = json.loads(refused.body)
    assert (refused.status, error_of(refused), body["reason"]) == (409, "ConflictException", "STATUS_CONFLICT")
    assert body["context"] == {"status": "UPDATE_IN_PROGRESS"} and body["resourceId"] == scene.job["jobId"]
    # The last word counts.
    scene.call("UpdateJob", **scene.job, targetTaskRunStatus="SUSPENDED")
    scene.call("UpdateStep", **scene.steps["c"], targetTaskRunStatus="CANCELED")
    scene.carry_out()
    assert scene.call("GetStep", **scene.steps["c"])["taskRunStatus"] == "CANCELED"
    assert scene.call("GetStep", **scene.steps["b"])["taskRunStatus"] == "SUSPENDED"
    job = scene.call("GetJob", **scene.job)
    assert job["lifecycleStatus"] == "UPDATE_SUCCEEDED" and "targetTaskRunStatus" not in job
    assert scene.call("UpdateTask", **task, targetRunStatus="READY") == {}
    scene.service.farm.close()


def test_too_many_failures_stop_a_large_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 7)
    scene = Scene(tmp_path / "f", [step("a", 40), step("b", 40, "a")], maxFailedTasksCount=1)
    scene.report({1: "FAILED", 2: "FAILED"}, rounds=4)
    assert scene.call("GetJob", **scene.job)["lifecycleStatus"] == "UPDATE_IN_PROGRESS"
    assert scene.carry_out() > 10
    job = scene.call("GetJob", **scene.job)
    assert job["taskRunStatus"] == "FAILED" and job["taskRunStatusCounts"]["READY"] == 0
    assert job["taskRunStatusCounts"]["FAILED"] == 80 - job["taskRunStatusCounts"]["SUCCEEDED"]
    scene.service.farm.close()


def test_a_large_step_follows_what_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 7)
    scene = Scene(tmp_path / "f", [step("a", 1), step("b", 40, "a")])
    scene.report({}, rounds=3)
    assert scene.call("GetStep", **scene.steps["a"])["taskRunStatus"] == "SUCCEEDED"
    assert scene.carry_out() > 5
    step_b = scene.call("GetStep", **scene.steps["b"])
    assert step_b["taskRunStatusCounts"]["PENDING"] == 0 and step_b["lifecycleStatus"] == "CREATE_COMPLETE"
    task = scene.call("ListTasks", **scene.steps["a"])["tasks"][0]["taskId"]
    scene.call("UpdateTask", **scene.steps["a"], taskId=task, targetRunStatus="READY")
    scene.carry_out()
    counts = scene.call("GetStep", **scene.steps["b"])["taskRunStatusCounts"]
    assert counts["READY"] == 0 and counts["PENDING"] > 30
    scene.service.farm.close()


def test_a_large_job_that_no_fleet_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 7)
    needs = {"hostRequirements": {"amounts": [{"name": "amount.worker.vcpu", "min": 999}]}}
    scene = Scene(tmp_path / "f", [step("a", 40, **needs), step("b", 40)])
    scene.carry_out()
    assert scene.call("GetStep", **scene.steps["a"])["taskRunStatusCounts"]["NOT_COMPATIBLE"] == 40
    assert scene.call("GetStep", **scene.steps["b"])["taskRunStatusCounts"]["CANCELED"] == 40
    assert scene.call("GetJob", **scene.job)["taskRunStatus"] == "NOT_COMPATIBLE"
    scene.service.farm.close()


TASKS = 40_000


def large_job(client: Any, farm_ids: Any) -> dict[str, str]:
    template = {"specificationVersion": "jobtemplate-2023-09", "name": "large", "steps": [step("a", TASKS)]}
    job = {"farmId": farm_ids.farm, "queueId": farm_ids.queue}
    job["jobId"] = client.create_job(**job, priority=50, template=json.dumps(template), templateType="JSON")["jobId"]
    until(lambda: client.get_job(**job)["lifecycleStatus"] == "CREATE_COMPLETE")
    return job


def until(condition: Any) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_large_job_is_canceled_while_requests_are_served_and_across_a_kill(farmd: Farmd, farm_ids: Any) -> None:
    client = farmd.client()
    job = large_job(client, farm_ids)
    begin = time.monotonic()
    client.update_job(**job, targetTaskRunStatus="CANCELED")
    assert time.monotonic() - begin < 5
    slowest, batches = 0.0, set()
    for _ in range(5):
        at = time.monotonic()
        batches.add(client.get_job(**job)["taskRunStatusCounts"]["CANCELED"])
        slowest = max(slowest, time.monotonic() - at)
    farmd.restart()
    client = farmd.client()
    until(lambda: client.get_job(**job)["lifecycleStatus"] == "UPDATE_SUCCEEDED")
    done = client.get_job(**job)
    assert done["taskRunStatus"] == "CANCELED" and done["taskRunStatusCounts"]["CANCELED"] == TASKS
    client.update_job(**job, targetTaskRunStatus="READY")
    farmd.restart()
    client = farmd.client()
    until(lambda: client.get_job(**job)["lifecycleStatus"] == "UPDATE_SUCCEEDED")
    assert client.get_job(**job)["taskRunStatusCounts"]["READY"] == TASKS
    audit(farmd.dir)


def test_a_queue_goes_at_once_and_its_jobs_after_it(farmd: Farmd, farm_ids: Any) -> None:
    client = farmd.client()
    queue = client.create_queue(farmId=farm_ids.farm, displayName="short-lived")["queueId"]
    large_job(client, type(farm_ids)(farm=farm_ids.farm, queue=queue))
    client.delete_queue(farmId=farm_ids.farm, queueId=queue)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.list_jobs(farmId=farm_ids.farm, queueId=queue)
    farmd.restart()
    import sqlite3

    db = sqlite3.connect(farmd.dir / "farm.sqlite")
    until(lambda: not db.execute("SELECT 1 FROM jobs WHERE queue_id LIKE '%' || ?", (queue,)).fetchone())
    assert not db.execute("SELECT 1 FROM steps WHERE job NOT IN (SELECT job FROM jobs)").fetchone()
    audit(farmd.dir)
