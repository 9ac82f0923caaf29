"""The reference client and the reference worker agent on a farm of our own that is killed again and again meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

COMMANDS = Path(sys.executable).parent
WAIT_S = 90.0

JOB = """
specificationVersion: jobtemplate-2023-09
name: frames
parameterDefinitions:
- {name: In, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: in}
- {name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT, default: out}
- {name: Log, type: STRING}
jobEnvironments:
- name: Env
  script:
    actions:
      onEnter: {command: bash, args: ["-c", "echo enter >> '{{Param.Log}}'"]}
      onExit: {command: bash, args: ["-c", "echo exit >> '{{Param.Log}}'"]}
steps:
- name: frames
  parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-4"}]}
  script:
    actions:
      onRun:
        command: bash
        args:
        - -c
        - >-
          sleep 0.5; mkdir -p '{{Param.Out}}'; cp '{{Param.In}}/a.txt' '{{Param.Out}}/{{Task.Param.N}}.txt';
          echo task {{Task.Param.N}} >> '{{Param.Log}}'
- name: sheet
  dependencies: [{dependsOn: frames}]
  script:
    actions:
      onRun:
        command: bash
        args: ["-c", "cat '{{Param.Out}}'/*.txt > '{{Param.Out}}/all.txt'; echo sheet >> '{{Param.Log}}'"]
"""


def until(what: str, test: Callable[[], Any], limit_s: float = WAIT_S) -> Any:
    """What `test` gives as soon as that is something."""
    limit = time.monotonic() + limit_s
    while not (found := test()):
        assert time.monotonic() < limit, f"no {what} after {limit_s:g} s"
        time.sleep(0.05)
    return found


class Site:
    """A farm without workers of ours, the reference client, and the reference agent."""

    def __init__(self, folder: Path, client: str, agent: str) -> None:
        self.folder, self.dir, self.client = folder, folder / "farm", client
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "DEADLINE_", "DL_"))}
        self.base = {**kept, "HOME": str(folder), "PATH": f"{COMMANDS}:{os.environ['PATH']}"}
        up = ["dl-farm", "up", "--dir", str(self.dir), "--workers", "0"]
        subprocess.run(up, env=self.base, check=True, capture_output=True, timeout=120)
        exports = subprocess.run(
            ["dl-farm", "env", "--dir", str(self.dir)], env=self.base, check=True, capture_output=True, text=True
        ).stdout
        printed = subprocess.run(
            ["bash", "-c", f"{exports}\nenv -0"], env=self.base, check=True, capture_output=True, text=True
        ).stdout
        self.environment = dict(item.split("=", 1) for item in printed.split("\0") if "=" in item)
        self.settings = json.loads((self.dir / "config.json").read_text())
        places = [folder / name for name in ("logs", "persistence", "sessions")]
        for place in places:
            place.mkdir()
        with (folder / "agent.out").open("wb") as out:
            self.agent = subprocess.Popen(
                [
                    agent, "--farm-id", self.settings["farm_id"], "--fleet-id", self.settings["fleet_id"],
                    "--no-shutdown", "--run-jobs-as-agent-user", "--no-host-metrics-logging",
                    "--no-cleanup-session-user-processes", "--logs-dir", places[0], "--persistence-dir", places[1],
                    "--session-root-dir", places[2],
                ],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    def run(self, *words: str) -> str:
        """What the reference client prints."""
        done = subprocess.run([self.client, *words], env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def kill(self, name: str) -> None:
        """kill -9 a server; supervisord starts it anew."""

        def find() -> int | None:
            for place in Path("/proc").iterdir():
                try:
                    words = (place / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if f"--dir={self.dir}".encode() in words and any(word.endswith(f"/{name}".encode()) for word in words):
                    return int(place.name)
            return None

        os.kill(until(name, find), signal.SIGKILL)

    def close(self) -> None:
        self.agent.kill()
        self.agent.wait()
        subprocess.run(["dl-farm", "down", "--dir", str(self.dir)], env=self.base, capture_output=True, timeout=60)


@pytest.fixture
def site(reference: str, reference_agent: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, reference, reference_agent)
    try:
        yield made
    finally:
        made.close()


def test_a_job_with_attachments_while_the_servers_are_killed(site: Site) -> None:
    bundle, log = site.folder / "frames", site.folder / "log"
    (bundle / "in").mkdir(parents=True)
    (bundle / "in" / "a.txt").write_text("content\n")
    (bundle / "template.yaml").write_text(JOB)
    job = site.run("bundle", "submit", str(bundle), "--yes", "-p", f"Log={log}").split()[-1]
    for lines in (1, 2, 4):
        until("further line", lambda lines=lines: log.exists() and len(log.read_text().splitlines()) >= lines)
        site.kill("dl-farmd")
    waited = site.run("job", "wait", "--job-id", job, "--timeout", str(int(WAIT_S)))
    assert "SUCCEEDED" in waited
    assert site.agent.poll() is None, "the agent never noticed"
    ran = [line for line in log.read_text().splitlines() if line.startswith(("task", "sheet"))]
    assert ran == ["task 1", "task 2", "task 3", "task 4", "sheet"], "each task ran once, in order"
    until("exit of the last session", lambda: log.read_text().count("exit") == log.read_text().count("enter"))
    site.kill("dl-s3d")
    site.kill("dl-farmd")
    site.run("job", "download-output", "--job-id", job, "--yes")
    assert (bundle / "out" / "all.txt").read_text() == "content\n" * 4
    assert "Session Cleanup" in site.run("job", "logs", "--job-id", job)
