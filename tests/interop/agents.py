"""The reference worker agent as a process of a test: its fleet, a queue of its own, and what became of jobs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PATIENCE_S = 60.0
SIDE = "attr.side"  # a capability by which a job chooses whose worker it wants


def until(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true value of `what`."""
    limit = time.monotonic() + patience_s
    while not (value := what()):
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)
    return value


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
