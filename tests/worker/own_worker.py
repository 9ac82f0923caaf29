"""A queue, a fleet and a worker of a test's own in the shared farm; the test keeps its processes alive, or doesn't."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dl_worker.folder import Folder

from libdeadline import aws, config

COMMANDS = Path(sys.executable).parent
DAEMONS = ("dl-worker-credentials", "dl-worker-logs", "dl-worker-schedule")
PATIENCE_S = 60.0
DONE = ("SUCCEEDED", "FAILED", "CANCELED", "NOT_COMPATIBLE")


def wait_for(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true value of `what`; looked for often, for as long as a slow machine may need."""
    until = time.monotonic() + patience_s
    while not (value := what()):
        if time.monotonic() > until:
            raise AssertionError(f"waited {patience_s} s in vain")
        time.sleep(0.02)
    return value


class OwnWorker:
    def __init__(self, farm: Any, folder: Path, monkeypatch: Any) -> None:
        for name in [name for name in os.environ if name.startswith(("AWS_", "DEADLINE_", "DL_"))]:
            monkeypatch.delenv(name)
        for name, value in farm.environment.items():
            monkeypatch.setenv(name, value)
        self.base = folder
        self.session = aws.Session(config.read())
        self.client = self.session.client("deadline")
        self.farm_id = self.session.config.get("defaults.farm_id")
        shared = self.client.call("GetQueue", self.ids(queueId=self.session.config.get("defaults.queue_id")))
        fleets = list(self.client.items("ListFleets", self.ids()))
        fleet = self.client.call("GetFleet", self.ids(fleetId=fleets[0]["fleetId"]))
        self.settings = shared["jobAttachmentSettings"]
        self.queue_id = self.client.call(
            "CreateQueue",
            self.ids(
                displayName="own",
                jobAttachmentSettings=self.settings,
                roleArn=shared["roleArn"],
                jobRunAsUser={"runAs": "WORKER_AGENT_USER"},
            ),
        )["queueId"]
        self.fleet_id = self.client.call(
            "CreateFleet",
            self.ids(
                displayName="own", roleArn=fleet["roleArn"], maxWorkerCount=10, configuration=fleet["configuration"]
            ),
        )["fleetId"]
        self.client.call("CreateQueueFleetAssociation", self.ids(queueId=self.queue_id, fleetId=self.fleet_id))
        self.environment = {
            **farm.environment,
            "DEADLINE_WORKER_FARM_ID": self.farm_id,
            "DEADLINE_WORKER_FLEET_ID": self.fleet_id,
            "DEADLINE_WORKER_NO_SHUTDOWN": "true",
            "DL_WORKER_DIR": str(folder / "worker"),
        }
        self.folder = Folder(str(folder / "worker")).prepare()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def ids(self, **more: Any) -> dict[str, Any]:
        return {"farmId": self.farm_id, **more}

    # Processes

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, **options)

    def enrol(self) -> str:
        done = self.run("dl-worker-enroll")
        assert done.returncode == 0, done.stderr
        return str(self.folder.worker()["worker_id"])

    def start(self, *names: str) -> None:
        for name in names or DAEMONS:
            with open(self.base / f"{name}.log", "ab") as output:
                self.processes[name] = subprocess.Popen([name], env=self.environment, stdout=output, stderr=output)

    def kill(self, name: str) -> None:
        """End a daemon with -9 and start it again, as a supervisor does."""
        self.processes[name].kill()
        self.processes[name].wait()
        self.start(name)

    def stop(self, name: str) -> int:
        self.processes[name].terminate()
        return self.processes[name].wait(30)

    def session_pids(self) -> list[int]:
        """The dl-session processes of this worker."""
        return [
            json.loads(Path(session.file("lock")).read_bytes())["pid"]
            for session in self.folder.sessions()
            if session.is_running()
        ]

    def close(self) -> None:
        schedule = self.processes.get("dl-worker-schedule")
        if schedule is not None and schedule.poll() is None:
            self.stop("dl-worker-schedule")
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        for pid in self.session_pids():
            os.kill(pid, signal.SIGKILL)

    # Jobs

    def submit(self, script: str, tasks: int = 1, *, name: str = "Step", **more: Any) -> str:
        step = {
            "name": name,
            "parameterSpace": {"taskParameterDefinitions": [{"name": "N", "type": "INT", "range": f"1-{tasks}"}]},
            "script": {"actions": {"onRun": {"command": "sh", "args": ["-c", script]}}},
        }
        return self.submit_steps([step], **more)

    def submit_steps(self, steps: list[dict[str, Any]], **more: Any) -> str:
        wait_for(lambda: not list(self.folder.sessions()))
        template = {"specificationVersion": "jobtemplate-2023-09", "name": "Job", "steps": steps}
        template |= more.pop("template", {})
        answer = self.client.call(
            "CreateJob",
            self.ids(queueId=self.queue_id, template=json.dumps(template), templateType="JSON", priority=50, **more),
        )
        return str(answer["jobId"])

    def job(self, job_id: str) -> dict[str, Any]:
        return self.client.call("GetJob", self.ids(queueId=self.queue_id, jobId=job_id))

    def outcome(self, job_id: str, patience_s: float = PATIENCE_S) -> str:
        return str(wait_for(lambda: (s := self.job(job_id).get("taskRunStatus")) in DONE and s, patience_s))

    def sessions(self, job_id: str) -> list[dict[str, Any]]:
        return list(self.client.items("ListSessions", self.ids(queueId=self.queue_id, jobId=job_id)))

    def actions(self, job_id: str) -> list[dict[str, Any]]:
        """The session actions of a job, each as the farm tells it, in the order of sessions and actions."""
        found = []
        for session in sorted(self.sessions(job_id), key=lambda each: each["startedAt"]):
            ids = self.ids(queueId=self.queue_id, jobId=job_id, sessionId=session["sessionId"])
            rows = list(self.client.items("ListSessionActions", ids))
            found += sorted(rows, key=lambda row: int(row["sessionActionId"].rpartition("-")[2]))
        return found

    def log(self, job_id: str) -> list[str]:
        """The lines of all of a job's sessions, as CloudWatch Logs has them."""
        lines = []
        logs = self.session.client("logs")
        for session in sorted(self.sessions(job_id), key=lambda each: each["startedAt"]):
            ids = self.ids(queueId=self.queue_id, jobId=job_id, sessionId=session["sessionId"])
            where = self.client.call("GetSession", ids)["log"]["options"]
            names = {"logGroupName": where["logGroupName"], "logStreamNames": [where["logStreamName"]]}
            lines += [event["message"] for event in logs.items("FilterLogEvents", names)]
        return lines

    def whole_log(self, job_id: str) -> list[str]:
        """The log once all of it is shipped: the folders of ended sessions are gone then."""
        ids = {session["sessionId"] for session in self.sessions(job_id)}
        wait_for(lambda: not any(os.path.exists(self.folder.file("sessions", each)) for each in ids))
        return self.log(job_id)

    def worker_status(self) -> str:
        ids = self.ids(fleetId=self.fleet_id, workerId=self.folder.worker()["worker_id"])
        return str(self.client.call("GetWorker", ids)["status"])
