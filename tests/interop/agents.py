"""The reference worker agent as a process of a test: its fleet, a queue of its own, and what became of jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PATIENCE_S = 60.0
SIDE = "attr.side"  # a capability by which a job chooses whose worker it wants


SILENCE_S = 10  # without a word, and a worker is lost; longer than any pause of a busy machine
LINES = 60
# Each run of a task marks its begin and its end, so that the marks tell who ran when; and it logs numbered lines.
RUN = f"""
      type: TEXT
      runnable: true
      data: |
        #!/usr/bin/env bash
        mark() {{ echo "$1 {{{{Param.Key}}}} $2 $$" >> '{{{{Param.Marks}}}}'; }}
        trap 'mark end "$1"; exit 143' TERM
        mark begin "$1"
        for i in $(seq 1 {LINES}); do echo "line $i of $1"; done
        sleep "${{2-0.2}}" & wait $!
        mark end "$1"
        exit "${{3-0}}"
"""
HEAD = """
specificationVersion: jobtemplate-2023-09
extensions: [TASK_CHUNKING]
name: %s
parameterDefinitions:
- {name: Marks, type: STRING}
- {name: Key, type: STRING}
"""
WANTS = f"hostRequirements: {{attributes: [{{name: {SIDE}, anyOf: [SIDE]}}]}}"

MANY = f"""
{HEAD % "tasks for whoever has time"}
steps:
- name: step
  parameterSpace: {{taskParameterDefinitions: [{{name: N, type: INT, range: "1-COUNT"}}]}}
  script:
    actions: {{onRun: {{command: "{{{{Task.File.Run}}}}", args: ["{{{{Task.Param.N}}}}", "SECONDS"]}}}}
    embeddedFiles:
    - name: Run{RUN}
"""
QUEUE_ENVIRONMENT = """
specificationVersion: environment-2023-09
environment: {name: Queue, variables: {FROM_QUEUE: queue}}
"""


def until(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true value of `what`."""
    limit = time.monotonic() + patience_s
    while not (value := what()):
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)
    return value


def processes_of(farm: Path) -> list[int]:
    """The farm's supervisord and all below it."""
    top = int((farm / "run" / "supervisord.pid").read_text())
    below: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue
        below.setdefault(parent, []).append(int(place.name))
    found = [top]
    for number in found:
        found += below.get(number, [])
    return found


def kill_all(farm: Path) -> None:
    """kill -9 the whole farm at once."""
    for number in processes_of(farm):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def set_silence(farm: Any) -> None:
    """Start a farm anew with one worker, and so that workers are found lost after SILENCE_S."""
    settings = farm.dir / "config.json"
    known = json.loads(settings.read_text())
    known["settings"] = {**known.get("settings", {}), "worker_silence_s": SILENCE_S, "worker_look_s": 0.2}
    settings.write_text(json.dumps(known))
    for words in (("down",), ("up", "--workers", "1")):
        farm.run("dl-farm", *words, "--dir", str(farm.dir), check=True)


class Agent:
    """A reference agent, the only one for a queue and a fleet of its own on the shared farm."""

    def __init__(self, program: str, farm: Any, connect: Callable[[str], Any], folder: Path) -> None:
        self.program, self.farm, self.folder = program, farm, folder
        self.client, self.logs = connect("deadline"), connect("logs")
        farm_id = self.client.list_farms()["farms"][0]["farmId"]
        local = self.client.get_queue(
            farmId=farm_id, queueId=self.client.list_queues(farmId=farm_id)["queues"][0]["queueId"]
        )
        queue = self.client.create_queue(
            farmId=farm_id, displayName="reference", roleArn=local["roleArn"],
            jobAttachmentSettings=local["jobAttachmentSettings"], jobRunAsUser={"runAs": "WORKER_AGENT_USER"},
        )["queueId"]  # fmt: skip
        capabilities = {
            "vCpuCount": {"min": 1}, "memoryMiB": {"min": 512}, "osFamily": "LINUX", "cpuArchitectureType": "x86_64",
            "customAttributes": [{"name": SIDE, "values": ["reference"]}],
        }  # fmt: skip
        fleet = self.client.create_fleet(
            farmId=farm_id, displayName="reference", roleArn=local["roleArn"], maxWorkerCount=1,
            configuration={"customerManaged": {"mode": "NO_SCALING", "workerCapabilities": capabilities}},
        )["fleetId"]  # fmt: skip
        self.client.create_queue_fleet_association(farmId=farm_id, queueId=queue, fleetId=fleet)
        self.ids = SimpleNamespace(farm=farm_id, queue=queue, fleet=fleet, shared_queue=local["queueId"])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [self.program, "--farm-id", self.ids.farm, "--fleet-id", self.ids.fleet, "--no-shutdown",
                 "--run-jobs-as-agent-user", "--no-host-metrics-logging"]  # fmt: skip
        for option in ("logs-dir", "persistence-dir", "session-root-dir"):
            (self.folder / option).mkdir(exist_ok=True)
            words += [f"--{option}", str(self.folder / option)]
        environment = {
            "PATH": os.environ["PATH"], **self.farm.environment, "HOME": str(self.folder),
            "DEADLINE_WORKER_CAPABILITIES": json.dumps({"amounts": {}, "attributes": {SIDE: ["reference"]}}),
        }  # fmt: skip
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
        for worker in self.client.list_workers(**farm, **fleet)["workers"]:
            self.client.update_worker(**farm, **fleet, workerId=worker["workerId"], status="STOPPED")
            self.client.delete_worker(**farm, **fleet, workerId=worker["workerId"])
        for pair in self.client.list_queue_fleet_associations(**farm, **fleet)["queueFleetAssociations"]:
            both = {**farm, **fleet, "queueId": pair["queueId"]}
            self.client.update_queue_fleet_association(**both, status="STOP_SCHEDULING_AND_CANCEL_TASKS")
            until(lambda both=both: self.client.get_queue_fleet_association(**both)["status"] == "STOPPED")
            self.client.delete_queue_fleet_association(**both)
        self.client.delete_fleet(**farm, **fleet)
        self.client.delete_queue(**farm, **queue)

    @property
    def worker(self) -> dict[str, Any]:
        [worker] = self.client.list_workers(farmId=self.ids.farm, fleetId=self.ids.fleet)["workers"]
        return worker

    def ready(self) -> None:
        """Until the agent waits for work."""
        fleet = {"farmId": self.ids.farm, "fleetId": self.ids.fleet}
        until(lambda: [each["status"] for each in self.client.list_workers(**fleet)["workers"]] == ["IDLE"])

    def submit(self, text: str, *, queue: str | None = None, **fields: Any) -> dict[str, str]:
        """The ids of a new job of the agent's own queue, or of another."""
        fields = {"template": text, "templateType": "YAML", "priority": 50, **fields}
        ids = {"farmId": self.ids.farm, "queueId": queue or self.ids.queue}
        return {**ids, "jobId": self.client.create_job(**ids, **fields)["jobId"]}

    def wait(self, ids: dict[str, str], *statuses: str) -> dict[str, Any]:
        return until(lambda: (job := self.client.get_job(**ids)).get("taskRunStatus") in statuses and job)

    def actions(self, ids: dict[str, str]) -> list[tuple[str, str]]:
        found = self.client.list_session_actions(**ids)["sessionActions"]
        return [(next(iter(action["definition"])), action["status"]) for action in found]

    def log(self, ids: dict[str, str]) -> str:
        """What all sessions of a job logged."""
        sessions = self.client.list_sessions(**ids)["sessions"]
        return "\n".join(line for session in sessions for line in self.lines(ids, session["sessionId"]))

    def lines(self, ids: dict[str, str], session_id: str) -> list[str]:
        """What a session logged."""
        stream = {
            "logGroupName": f"/aws/deadline/{ids['farmId']}/{ids['queueId']}", "logStreamName": session_id,
            "startFromHead": True,
        }  # fmt: skip
        return [event["message"] for event in self.logs.get_log_events(**stream)["events"]]


class Site(Agent):
    """The reference agent beside the farm's own workers on the farm's queue."""

    def __init__(self, program: str, farm: Any, connect: Callable[[str], Any], folder: Path) -> None:
        super().__init__(program, farm, connect, folder)
        self.marks = folder / "marks"
        self.marks.mkdir()
        at = {"farmId": self.ids.farm}
        self.shared = {**at, "queueId": self.ids.shared_queue}
        [local] = [each for each in self.client.list_fleets(**at)["fleets"] if each["fleetId"] != self.ids.fleet]
        self.own_fleet = local["fleetId"]
        configuration = local["configuration"]
        configuration["customerManaged"]["workerCapabilities"]["customAttributes"] = [{"name": SIDE, "values": ["own"]}]
        self.client.update_fleet(**at, fleetId=self.own_fleet, configuration=configuration)
        self.client.create_queue_fleet_association(**self.shared, fleetId=self.ids.fleet)
        self.client.create_queue_environment(**self.shared, priority=1, templateType="YAML", template=QUEUE_ENVIRONMENT)

    def ask(self, text: str, key: str, *, alone: bool = False, **fields: Any) -> dict[str, str]:
        """A new job: of the shared queue, or `alone` of that which only the reference agent serves."""
        parameters = {"Marks": {"string": str(self.marks / key)}, "Key": {"string": key}}
        queue = self.ids.queue if alone else self.ids.shared_queue
        return self.submit(text.replace("SIDE", "reference"), queue=queue, parameters=parameters, **fields)

    def many(self, key: str, count: int, seconds: float, **fields: Any) -> dict[str, str]:
        """A new job of this many tasks that take this long, for whoever has time."""
        return self.ask(MANY.replace("COUNT", str(count)).replace("SECONDS", str(seconds)), key, **fields)

    def associate(self, queue: str, status: str) -> None:
        """Have the reference's fleet serve a queue, or stop it and wait until it has stopped."""
        pair = {"farmId": self.ids.farm, "queueId": queue, "fleetId": self.ids.fleet}
        self.client.update_queue_fleet_association(**pair, status=status)
        if status != "ACTIVE":
            until(lambda: self.client.get_queue_fleet_association(**pair)["status"] == "STOPPED")

    def running(self, ids: dict[str, str], fleet: str) -> list[dict[str, Any]]:
        """The runs of tasks that a fleet's workers have begun and not ended."""
        mine = {s["sessionId"] for s in self.client.list_sessions(**ids)["sessions"] if s["fleetId"] == fleet}
        return [
            action for action in self.task_actions(ids)
            if action["status"] == "RUNNING" and f"session-{action['sessionActionId'].split('-')[1]}" in mine
        ]  # fmt: skip

    def runs(self, key: str) -> dict[str, list[str]]:
        """Of each task of a job, its begins and ends in order."""
        found: dict[str, list[str]] = defaultdict(list)
        marks = self.marks / key
        for line in marks.read_text().splitlines() if marks.exists() else ():
            what, task = re.fullmatch(rf"(begin|end) {re.escape(key)} (.+) \d+", line).groups()  # type: ignore[union-attr]
            found[task].append(what)
        return found

    def fleets(self, ids: dict[str, str]) -> set[str]:
        """Who had sessions of a job."""
        names = {self.ids.fleet: "reference", self.own_fleet: "own"}
        return {names[session["fleetId"]] for session in self.client.list_sessions(**ids)["sessions"]}

    def task_actions(self, ids: dict[str, str]) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("list_session_actions").paginate(**ids)
        found = [action for page in pages for action in page["sessionActions"]]
        return [action for action in found if "taskRun" in action["definition"]]

    def check_once_at_a_time(self, ids: dict[str, str]) -> None:
        """No two actions of one task overlap, and each task's last one is what the task has come to."""
        by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for action in self.task_actions(ids):
            if "startedAt" in action:
                by_task[str(action["definition"]["taskRun"])].append(action)
        for of_one in by_task.values():
            of_one.sort(key=lambda action: action["startedAt"])
            for one, after in zip(of_one, of_one[1:], strict=False):
                assert one["endedAt"] <= after["startedAt"], (one, after)

    def check_logs(self, ids: dict[str, str]) -> None:
        """The last run of each task of the job's only step logged all of its lines, in order."""
        for task, action in self.last_runs(ids).items():
            session_id = f"session-{action['sessionActionId'].split('-')[1]}"
            until(lambda session_id=session_id: "endedAt" in self.client.get_session(**ids, sessionId=session_id))
            lines = [line for line in self.lines(ids, session_id) if line.startswith("line ")]
            found = [line.split(" ")[1] for line in lines if line.endswith(f" of {task}")]
            # A run before it in the same session may have been cut short.
            assert found[-LINES:] == [str(n) for n in range(1, LINES + 1)], (task, session_id)

    def last_runs(self, ids: dict[str, str]) -> dict[str, dict[str, Any]]:
        """The action that ran each task of the job's only step last, by the text of the task's parameters."""
        [step] = self.client.list_steps(**ids)["steps"]
        found = {}
        for task in self.client.list_tasks(**ids, stepId=step["stepId"])["tasks"]:
            text = ",".join(str(next(iter(value.values()))) for value in task["parameters"].values())
            action = self.client.get_session_action(**ids, sessionActionId=task["latestSessionActionId"])
            assert task["runStatus"] == action["status"] == "SUCCEEDED", (task, action)
            found[text] = action
        return found
