"""The reference worker agent, unmodified, at work for the embedded farm."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PATIENCE_S = 60.0
ROLE = "arn:aws:iam::000000000000:role/reference"

CHUNKS = """
specificationVersion: jobtemplate-2023-09
extensions: [TASK_CHUNKING]
name: chunks
jobEnvironments:
- name: around
  variables: {GREETING: hello}
  script:
    actions:
      onEnter: {command: bash, args: ["-c", "echo entered"]}
      onExit: {command: bash, args: ["-c", "echo left"]}
steps:
- name: first
  parameterSpace:
    taskParameterDefinitions:
    - name: Frame
      type: CHUNK[INT]
      range: "1-10"
      chunks: {defaultTaskCount: 4, rangeConstraint: CONTIGUOUS}
  script: {actions: {onRun: {command: bash, args: ["-c", "echo $GREETING {{Task.Param.Frame}}"]}}}
- name: second
  dependencies: [{dependsOn: first}]
  script: {actions: {onRun: {command: bash, args: ["-c", "echo after that"]}}}
"""
EXPRESSIONS = """
specificationVersion: jobtemplate-2023-09
extensions: [EXPR]
name: "sum {{ Param.Number + 1 }}"
parameterDefinitions:
- {name: Number, type: INT, default: 3}
- {name: Flag, type: BOOL, default: true}
- {name: Frames, type: "LIST[INT]", default: [4, 5]}
- {name: Grid, type: "LIST[LIST[INT]]", default: [[1, 2], [3]]}
steps:
- name: step
  let: ["twice = Param.Number * 2"]
  parameterSpace: {taskParameterDefinitions: [{name: Frame, type: INT, range: "{{ Param.Frames }}"}]}
  script: {actions: {onRun: {command: bash, args: ["-c", "echo {{ Job.Name }}: {{ twice }} {{ Task.Param.Frame }}"]}}}
"""
SLEEP = """
specificationVersion: jobtemplate-2023-09
name: sleep
jobEnvironments:
- name: around
  script: {actions: {onEnter: {command: "true"}, onExit: {command: "true"}}}
steps:
- name: step
  parameterSpace: {taskParameterDefinitions: [{name: Frame, type: INT, range: "1-2"}]}
  script: {actions: {onRun: {command: sleep, args: ["SECONDS"]}}}
"""
FAILING = """
specificationVersion: jobtemplate-2023-09
name: failing
steps:
- name: step
  parameterSpace: {taskParameterDefinitions: [{name: Frame, type: INT, range: "1-3"}]}
  script: {actions: {onRun: {command: bash, args: ["-c", "exit $(( {{Task.Param.Frame}} == 2 ? 7 : 0 ))"]}}}
"""


class Agent:
    """A reference agent, the only one for a queue and a fleet of its own on the shared farm."""

    def __init__(self, program: str, farm: Any, folder: Path) -> None:
        self.program, self.farm, self.folder = program, farm, folder
        self.client, self.logs = (self._client(name) for name in ("deadline", "logs"))
        farm_id = self.client.list_farms()["farms"][0]["farmId"]
        queue = self.client.create_queue(
            farmId=farm_id, displayName="reference", roleArn=ROLE, jobRunAsUser={"runAs": "WORKER_AGENT_USER"}
        )["queueId"]
        capabilities = {
            "vCpuCount": {"min": 1}, "memoryMiB": {"min": 512}, "osFamily": "LINUX", "cpuArchitectureType": "x86_64",
        }  # fmt: skip
        fleet = self.client.create_fleet(
            farmId=farm_id, displayName="reference", roleArn=ROLE, maxWorkerCount=1,
            configuration={"customerManaged": {"mode": "NO_SCALING", "workerCapabilities": capabilities}},
        )["fleetId"]  # fmt: skip
        self.client.create_queue_fleet_association(farmId=farm_id, queueId=queue, fleetId=fleet)
        self.ids = SimpleNamespace(farm=farm_id, queue=queue, fleet=fleet)
        self.process: subprocess.Popen[bytes] | None = None

    def _client(self, service: str) -> Any:
        """A client by the settings that `dl-farm env` gives to any AWS program."""
        import boto3
        from botocore.config import Config

        environment = self.farm.environment
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            return boto3.Session().client(service, config=Config(retries={"total_max_attempts": 3}))
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def start(self) -> None:
        words = [self.program, "--farm-id", self.ids.farm, "--fleet-id", self.ids.fleet, "--no-shutdown",
                 "--run-jobs-as-agent-user", "--no-host-metrics-logging"]  # fmt: skip
        for option in ("logs-dir", "persistence-dir", "session-root-dir"):
            (self.folder / option).mkdir(exist_ok=True)
            words += [f"--{option}", str(self.folder / option)]
        environment = {"PATH": os.environ["PATH"], **self.farm.environment, "HOME": str(self.folder)}
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def remove(self) -> None:
        """Leave the shared farm as it was."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        farm, queue, fleet = ({name: value} for name, value in zip(("farmId", "queueId", "fleetId"),
                              (self.ids.farm, self.ids.queue, self.ids.fleet), strict=True))  # fmt: skip
        pair = {**farm, **queue, **fleet}
        for worker in self.client.list_workers(**farm, **fleet)["workers"]:
            self.client.update_worker(**farm, **fleet, workerId=worker["workerId"], status="STOPPED")
            self.client.delete_worker(**farm, **fleet, workerId=worker["workerId"])
        self.client.update_queue_fleet_association(**pair, status="STOP_SCHEDULING_AND_CANCEL_TASKS")
        until(lambda: self.client.get_queue_fleet_association(**pair)["status"] == "STOPPED")
        self.client.delete_queue_fleet_association(**pair)
        self.client.delete_fleet(**farm, **fleet)
        self.client.delete_queue(**farm, **queue)

    @property
    def worker(self) -> dict[str, Any]:
        [worker] = self.client.list_workers(farmId=self.ids.farm, fleetId=self.ids.fleet)["workers"]
        return worker

    def submit(self, text: str, **fields: Any) -> dict[str, str]:
        fields = {"template": text, "templateType": "YAML", "priority": 50, **fields}
        job = self.client.create_job(farmId=self.ids.farm, queueId=self.ids.queue, **fields)["jobId"]
        return {"farmId": self.ids.farm, "queueId": self.ids.queue, "jobId": job}

    def wait(self, ids: dict[str, str], *statuses: str) -> dict[str, Any]:
        return until(lambda: (job := self.client.get_job(**ids)).get("taskRunStatus") in statuses and job)

    def actions(self, ids: dict[str, str]) -> list[tuple[str, str]]:
        found = self.client.list_session_actions(**ids)["sessionActions"]
        return [(next(iter(action["definition"])), action["status"]) for action in found]

    def log(self, ids: dict[str, str]) -> str:
        """What all sessions of a job logged."""
        group = f"/aws/deadline/{self.ids.farm}/{self.ids.queue}"
        lines = []
        for session in self.client.list_sessions(**ids)["sessions"]:
            stream = {"logGroupName": group, "logStreamName": session["sessionId"], "startFromHead": True}
            lines += [event["message"] for event in self.logs.get_log_events(**stream)["events"]]
        return "\n".join(lines)


def until(what: Callable[[], Any]) -> Any:
    """The first true value of `what`."""
    limit = time.monotonic() + PATIENCE_S
    while not (value := what()):
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def agent(reference_agent: str, farm: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    made = Agent(reference_agent, farm, tmp_path_factory.mktemp("agent"))
    try:
        made.start()
        yield made
    finally:
        made.remove()


def test_chunks_environments_and_dependencies(agent: Agent) -> None:
    ids = agent.submit(CHUNKS)
    assert agent.wait(ids, "SUCCEEDED", "FAILED")["taskRunStatus"] == "SUCCEEDED"
    kinds = [kind for kind, _ in agent.actions(ids)]
    until(lambda: all(status == "SUCCEEDED" for _, status in agent.actions(ids)))
    assert kinds == ["envEnter", *["taskRun"] * 3, "envExit", "envEnter", "taskRun", "envExit"]
    for line in ("hello 1-4", "hello 5-8", "hello 9-10", "after that", "entered", "left"):
        until(lambda line=line: f"\n{line}\n" in agent.log(ids))


def test_expressions_and_all_that_they_need(agent: Agent) -> None:
    ids = agent.submit(EXPRESSIONS)
    assert agent.wait(ids, "SUCCEEDED", "FAILED")["taskRunStatus"] == "SUCCEEDED"
    for line in ("sum 4: 6 4", "sum 4: 6 5"):
        until(lambda line=line: f"\n{line}\n" in agent.log(ids))


def test_a_task_that_fails_is_tried_as_often_as_it_may(agent: Agent) -> None:
    ids = agent.submit(FAILING, maxRetriesPerTask=1)
    job = agent.wait(ids, "SUCCEEDED", "FAILED")
    assert job["taskRunStatus"] == "FAILED" and job["taskFailureRetryCount"] == 2
    step = agent.client.list_steps(**ids)["steps"][0]["stepId"]
    tasks = agent.client.list_tasks(**ids, stepId=step)["tasks"]
    assert [task["runStatus"] for task in tasks] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    last = agent.client.get_session_action(**ids, sessionActionId=tasks[1]["latestSessionActionId"])
    assert last["processExitCode"] == 7


def test_a_cancel_reaches_the_running_task(agent: Agent) -> None:
    ids = agent.submit(SLEEP.replace("SECONDS", "600"))
    agent.wait(ids, "RUNNING")
    agent.client.update_job(**ids, targetTaskRunStatus="CANCELED")
    agent.wait(ids, "CANCELED")
    until(lambda: agent.actions(ids) == [("envEnter", "SUCCEEDED"), ("taskRun", "CANCELED"), ("envExit", "SUCCEEDED")])
    until(lambda: agent.worker["status"] == "IDLE")


def test_drained_and_crashed_it_gives_its_work_back(agent: Agent) -> None:
    ids = agent.submit(SLEEP.replace("SECONDS", "4"))
    agent.wait(ids, "RUNNING")
    assert agent.end(signal.SIGTERM) == 0
    worker = agent.worker
    assert worker["status"] == "STOPPED"
    job = agent.wait(ids, "READY")
    assert job["taskFailureRetryCount"] == 0  # the agent said that it interrupted the task
    agent.start()
    agent.wait(ids, "RUNNING")
    agent.end(signal.SIGKILL)
    agent.start()
    job = agent.wait(ids, "SUCCEEDED", "FAILED")
    assert job["taskRunStatus"] == "SUCCEEDED" and job["taskFailureRetryCount"] == 1
    assert agent.worker["workerId"] == worker["workerId"]
    assert agent.end(signal.SIGTERM) == 0
