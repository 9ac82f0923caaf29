"""A dl-session of a test's own: journals in, journals out, no service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dl_worker.folder import SessionFolder, write_json

COMMANDS = Path(sys.executable).parent
PATIENCE_S = 30.0

JOB_ID = "job-" + "a" * 32
STEP_ID = "step-" + "b" * 32
SESSION_ID = "session-" + "c" * 32


def wait_for(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true value of `what`; looked for often, for as long as a slow machine may need."""
    until = time.monotonic() + patience_s
    while not (value := what()):
        if time.monotonic() > until:
            raise AssertionError(f"waited {patience_s} s in vain")
        time.sleep(0.01)
    return value


class LoneSession:
    """A session folder with a dl-session on it, told what to do by the test."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.folder = SessionFolder(str(tmp_path / "sessions" / SESSION_ID))
        os.makedirs(self.folder.file("entities"))
        self.session_dir = tmp_path / "work" / SESSION_ID
        self.count = 0
        self.environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": "AGENTKEY",
            "AWS_SECRET_ACCESS_KEY": "AGENTSECRET",
            "AWS_PROFILE": "agent",
            "PATH": f"{COMMANDS}:{os.environ['PATH']}",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.job: dict[str, Any] = {"jobId": JOB_ID, "schemaVersion": "jobtemplate-2023-09", "logGroupName": "g"}
        self.opening: dict[str, Any] = {}

    def about(self, **fields: Any) -> None:
        write_json(self.folder.file("session.json"), fields)

    def start(self) -> None:
        self.process = subprocess.Popen(["dl-session", self.folder.path], env=self.environment, start_new_session=True)

    def open(self) -> None:
        write_json(self.folder.entity("jobDetails"), self.job)
        self.tell(
            {
                "type": "open",
                "farm_id": "farm-1",
                "fleet_id": "fleet-1",
                "worker_id": "worker-1",
                "queue_id": "queue-1",
                "job_id": JOB_ID,
                "session_id": SESSION_ID,
                "session_dir": str(self.session_dir),
                **self.opening,
            }
        )

    def tell(self, *rows: dict[str, Any]) -> None:
        self.folder.tell(*rows)

    def act(self, definition: dict[str, Any], **fields: Any) -> str:
        """Queue one action; its id."""
        action_id = f"sessionaction-{'d' * 32}-{self.count}"
        self.count += 1
        self.tell({"type": "action", "session_action_id": action_id, "definition": definition, **fields})
        return action_id

    def step(self, script: str | list[str], step_id: str = STEP_ID, **more: Any) -> None:
        """Make a step whose onRun runs `script` in a shell."""
        on_run = {"command": "sh", "args": ["-c", script], **more.pop("on_run", {})}
        template = {"name": "Render", "script": {"actions": {"onRun": on_run}}, **more}
        write_json(
            self.folder.entity("stepDetails", step_id),
            {
                "jobId": JOB_ID,
                "stepId": step_id,
                "schemaVersion": "jobtemplate-2023-09",
                "template": template,
                "dependencies": [],
            },
        )

    def run_task(self, step_id: str = STEP_ID, **parameters: Any) -> str:
        return self.act({"taskRun": {"stepId": step_id, "taskId": "task-" + "e" * 32 + "-0", "parameters": parameters}})

    def make_environment(self, name: str, enter: str | None, leave: str | None) -> str:
        identity = f"JOB:{JOB_ID}:{name}"
        actions = {
            key: {"command": "sh", "args": ["-c", script]}
            for key, script in (("onEnter", enter), ("onExit", leave))
            if script
        }
        write_json(
            self.folder.entity("environmentDetails", identity),
            {
                "jobId": JOB_ID,
                "environmentId": identity,
                "schemaVersion": "jobtemplate-2023-09",
                "template": {"name": name, "script": {"actions": actions}},
            },
        )
        return identity

    def rows(self) -> list[dict[str, Any]]:
        if not os.path.exists(self.folder.outbox):
            return []
        return [json.loads(line) for line in Path(self.folder.outbox).read_bytes().splitlines()]

    def last(self, action_id: str) -> dict[str, Any]:
        rows = [row for row in self.rows() if row.get("session_action_id") == action_id]
        return rows[-1] if rows else {}

    def outcome(self, action_id: str) -> dict[str, Any]:
        """The final report of an action, once it is there."""
        return wait_for(
            lambda: self.last(action_id) if self.last(action_id).get("status", "RUNNING") != "RUNNING" else None
        )

    def until_running(self, action_id: str) -> None:
        wait_for(lambda: self.last(action_id).get("status") == "RUNNING")

    def log(self) -> str:
        lines = Path(self.folder.log).read_bytes().splitlines()
        return "\n".join(json.loads(line)["message"] for line in lines)

    def end(self) -> int:
        """Drop the session, as the farm does when nothing is left to do; dl-session's status."""
        assert self.process
        self.tell({"type": "end"})
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        from dl_worker.processes import kill_session

        kill_session(SESSION_ID)
