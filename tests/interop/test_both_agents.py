"""The reference worker agent and our own on one queue: all kinds of jobs, then stops, crashes and a dead farm."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import SIDE, Agent, until

SILENCE_S = 8  # without a word, and a worker is lost; longer than any pause of a busy machine
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

SPACE = f"""
{HEAD % "a space of parameters"}
- {{name: Floats, type: FLOAT, default: 1.5}}
steps:
- name: step
  {WANTS}
  parameterSpace:
    taskParameterDefinitions:
    - {{name: A, type: INT, range: "1-2"}}
    - {{name: B, type: STRING, range: ["x y", "é"]}}
    - {{name: C, type: FLOAT, range: ["{{{{Param.Floats}}}}", 2]}}
    - {{name: D, type: PATH, range: [/a/b]}}
    combination: "(A, B) * C * D"
  script:
    actions: {{onRun: {{command: "{{{{Task.File.Run}}}}", args: ["{{{{Task.Param.A}}}},{{{{Task.Param.B}}}},{{{{Task.Param.C}}}},{{{{Task.Param.D}}}}", "0.1"]}}}}
    embeddedFiles:
    - name: Run{RUN}
"""  # noqa: E501
CHUNKS = f"""
{HEAD % "chunks"}
steps:
- name: fixed
  {WANTS}
  parameterSpace:
    taskParameterDefinitions:
    - {{name: Frame, type: "CHUNK[INT]", range: "1-7,20", chunks: {{defaultTaskCount: 3, rangeConstraint: NONCONTIGUOUS}}}}
  script:
    actions: {{onRun: {{command: "{{{{Task.File.Run}}}}", args: ["{{{{Task.Param.Frame}}}}", "0.1"]}}}}
    embeddedFiles:
    - name: Run{RUN}
- name: adaptive
  {WANTS}
  parameterSpace:
    taskParameterDefinitions:
    - name: Frame
      type: CHUNK[INT]
      range: "1-12"
      chunks: {{defaultTaskCount: 2, targetRuntimeSeconds: 1, rangeConstraint: CONTIGUOUS}}
  script:
    actions: {{onRun: {{command: "{{{{Task.File.Run}}}}", args: ["a{{{{Task.Param.Frame}}}}", "0.1"]}}}}
    embeddedFiles:
    - name: Run{RUN}
"""  # noqa: E501
ENVIRONMENTS = f"""
{HEAD % "environments and what they hand on"}
jobEnvironments:
- name: Job
  variables: {{FROM_JOB: "job {{{{Param.Key}}}}"}}
  script:
    actions:
      onEnter: {{command: bash, args: ["-c", "echo openjd_env: FOUND=found; echo entered Job"]}}
      onExit: {{command: bash, args: ["-c", "echo left Job"]}}
steps:
- name: first
  {WANTS}
  stepEnvironments:
  - name: Step
    variables: {{FROM_STEP: step}}
    script:
      actions:
        onEnter: {{command: python3, args: ["{{{{Env.File.Enter}}}}"]}}
        onExit: {{command: bash, args: ["-c", "echo left Step"]}}
      embeddedFiles:
      - {{name: Enter, type: TEXT, filename: enter.py, data: "print('openjd_env: SEEN=' + __file__[-8:])"}}
  script:
    actions: {{onRun: {{command: bash, args: ["-c", "echo told $FROM_QUEUE, $FROM_JOB, $FOUND, $FROM_STEP, $SEEN"]}}}}
- name: second
  {WANTS}
  dependencies: [{{dependsOn: first}}]
  script:
    actions: {{onRun: {{command: bash, args: ["-c", "echo then $FROM_QUEUE, $FROM_JOB, $FOUND, ${{FROM_STEP-no}}"]}}}}
"""
SPEAKING = f"""
{HEAD % "what a task says of itself"}
steps:
- name: step
  {WANTS}
  script:
    actions: {{onRun: {{command: bash, args: ["{{{{Task.File.Run}}}}"]}}}}
    embeddedFiles:
    - name: Run
      type: TEXT
      data: |
        echo "openjd_status: half way"
        echo "openjd_progress: 50.0"
        until [ -e '{{{{Param.Marks}}}}.go' ]; do sleep 0.1; done
        echo "openjd_fail: no licence"
        exit 3
"""
TRIED_AGAIN = f"""
{HEAD % "a task that succeeds in the end"}
steps:
- name: step
  {WANTS}
  script:
    actions:
      onRun: {{command: bash, args: ["-c", "echo try >> '{{{{Param.Marks}}}}.tries'; test $(wc -l < '{{{{Param.Marks}}}}.tries') -ge 3"]}}
"""  # noqa: E501
TOO_LONG = f"""
{HEAD % "a task that takes too long"}
steps:
- name: step
  {WANTS}
  script:
    actions:
      onRun:
        command: "{{{{Task.File.Run}}}}"
        args: [long, "60"]
        timeout: 1
        cancelation: {{mode: NOTIFY_THEN_TERMINATE, notifyPeriodInSeconds: 5}}
    embeddedFiles:
    - name: Run{RUN}
"""
PASSED_ON = f"""
{HEAD % "outputs that go from agent to agent"}
- {{name: In, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: in}}
- {{name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT, default: out}}
steps:
- name: one
  {WANTS.replace("SIDE", "reference")}
  parameterSpace: {{taskParameterDefinitions: [{{name: N, type: INT, range: "1-2"}}]}}
  script:
    actions: {{onRun: {{command: bash, args: ["-c", "mkdir -p '{{{{Param.Out}}}}'; sed s/^/one:/ '{{{{Param.In}}}}/é a.txt' > '{{{{Param.Out}}}}/one-{{{{Task.Param.N}}}}'"]}}}}
- name: two
  {WANTS.replace("SIDE", "own")}
  dependencies: [{{dependsOn: one}}]
  script:
    actions: {{onRun: {{command: bash, args: ["-c", "cat '{{{{Param.Out}}}}'/one-* | sed s/^/two:/ > '{{{{Param.Out}}}}/two'"]}}}}
- name: three
  {WANTS.replace("SIDE", "reference")}
  dependencies: [{{dependsOn: two}}]
  script:
    actions: {{onRun: {{command: bash, args: ["-c", "sed s/^/three:/ '{{{{Param.Out}}}}/two' > '{{{{Param.Out}}}}/three'"]}}}}
"""  # noqa: E501
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

    def ask(self, text: str, key: str, side: str = "reference", **fields: Any) -> dict[str, str]:
        """A new job of the shared queue."""
        parameters = {"Marks": {"string": str(self.marks / key)}, "Key": {"string": key}}
        return self.submit(text.replace("SIDE", side), queue=self.ids.shared_queue, parameters=parameters, **fields)

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

    def check_logs(self, ids: dict[str, str], tasks: set[str]) -> None:
        """Each of these tasks logged all of its lines, in order, in one session."""
        seen = {}
        for session in self.client.list_sessions(**ids)["sessions"]:
            lines = self.lines(ids, session["sessionId"])
            for task in tasks:
                numbers = [
                    int(m[1]) for line in lines if (m := re.fullmatch(rf"line (\d+) of {re.escape(task)}", line))
                ]
                if numbers:
                    seen[task] = numbers
        assert seen == {task: list(range(1, LINES + 1)) for task in tasks}


@pytest.fixture(scope="module")
def site(
    reference_agent: str, farm: Any, connect: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    settings = farm.dir / "config.json"
    known = json.loads(settings.read_text())
    known["settings"] = {**known.get("settings", {}), "worker_silence_s": SILENCE_S, "worker_look_s": 0.2}
    settings.write_text(json.dumps(known))
    for words in (("down",), ("up", "--workers", "1")):
        farm.run("dl-farm", *words, "--dir", str(farm.dir), check=True)
    made = Site(reference_agent, farm, connect, tmp_path_factory.mktemp("both"))
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def kinds(site: Site) -> dict[str, dict[str, str]]:
    """Jobs of all kinds, asked for at once; those that name a side go to the reference agent."""
    return {
        "space": site.ask(SPACE, "space"),
        "chunks": site.ask(CHUNKS, "chunks"),
        "environments": site.ask(ENVIRONMENTS, "environments"),
        "speaking": site.ask(SPEAKING, "speaking", maxRetriesPerTask=0),
        "again": site.ask(TRIED_AGAIN, "again", maxRetriesPerTask=5),
        "long": site.ask(TOO_LONG, "long", maxRetriesPerTask=0),
        "many": site.ask(MANY.replace("COUNT", "12").replace("SECONDS", "0.5"), "many", priority=90),
    }


def test_a_space_of_parameters(site: Site, kinds: dict[str, dict[str, str]]) -> None:
    assert site.wait(kinds["space"], "SUCCEEDED", "FAILED")["taskRunStatus"] == "SUCCEEDED"
    tasks = {f"{a},{b},{c},/a/b" for a, b in ((1, "x y"), (2, "é")) for c in (1.5, 2)}
    assert site.runs("space") == {task: ["begin", "end"] for task in tasks}
    assert site.fleets(kinds["space"]) == {"reference"}
    until(lambda: all("endedAt" in each for each in site.client.list_sessions(**kinds["space"])["sessions"]))
    site.check_logs(kinds["space"], tasks)


def test_chunks(site: Site, kinds: dict[str, dict[str, str]]) -> None:
    assert site.wait(kinds["chunks"], "SUCCEEDED", "FAILED")["taskRunStatus"] == "SUCCEEDED"
    runs = site.runs("chunks")
    assert all(marks == ["begin", "end"] for marks in runs.values())
    numbers: dict[bool, list[int]] = {True: [], False: []}
    for chunk in runs:
        for part in chunk.removeprefix("a").split(","):
            first, _, last = part.partition("-")
            numbers[chunk.startswith("a")] += range(int(first), int(last or first) + 1)
    assert {name: sorted(found) for name, found in numbers.items()} == {
        False: [1, 2, 3, 4, 5, 6, 7, 20], True: list(range(1, 13))
    }  # fmt: skip


def test_environments(site: Site, kinds: dict[str, dict[str, str]]) -> None:
    assert site.wait(kinds["environments"], "SUCCEEDED", "FAILED")["taskRunStatus"] == "SUCCEEDED"
    told = ["told queue, job environments, found, step, enter.py", "left Step", "left Job",
            "then queue, job environments, found, no", "left Job"]  # fmt: skip
    until(lambda: site.log(kinds["environments"]).count("left Job") == 2)
    log = site.log(kinds["environments"]).splitlines()
    assert [line for line in log if line in told] == told


def test_what_a_task_says_of_itself(site: Site, kinds: dict[str, dict[str, str]]) -> None:
    job = kinds["speaking"]
    site.wait(job, "RUNNING", "FAILED")

    def action() -> dict[str, Any]:
        [found] = site.task_actions(job)
        return site.client.get_session_action(**job, sessionActionId=found["sessionActionId"])

    until(lambda: action().get("progressPercent") == 50.0 and action().get("progressMessage") == "half way")
    (site.marks / "speaking.go").touch()
    assert site.wait(job, "SUCCEEDED", "FAILED")["taskRunStatus"] == "FAILED"
    ended = action()
    assert (ended["status"], ended["processExitCode"], ended["progressMessage"]) == ("FAILED", 3, "no licence")


def test_what_fails_is_tried_again_and_what_takes_too_long_is_ended(
    site: Site, kinds: dict[str, dict[str, str]]
) -> None:
    job = site.wait(kinds["again"], "SUCCEEDED", "FAILED")
    assert (job["taskRunStatus"], job["taskFailureRetryCount"]) == ("SUCCEEDED", 2)
    assert [action["status"] for action in site.task_actions(kinds["again"])].count("FAILED") == 2
    assert site.wait(kinds["long"], "SUCCEEDED", "FAILED")["taskRunStatus"] == "FAILED"
    [action] = site.task_actions(kinds["long"])
    assert 1 <= (action["endedAt"] - action["startedAt"]).total_seconds() < 30


def test_both_take_part(site: Site, kinds: dict[str, dict[str, str]]) -> None:
    assert site.wait(kinds["many"], "SUCCEEDED", "FAILED")["taskRunStatus"] == "SUCCEEDED"
    tasks = {str(n) for n in range(1, 13)}
    assert site.runs("many") == {task: ["begin", "end"] for task in tasks}
    assert site.fleets(kinds["many"]) == {"reference", "own"}
    until(lambda: all("endedAt" in each for each in site.client.list_sessions(**kinds["many"])["sessions"]))
    site.check_logs(kinds["many"], tasks)


def test_outputs_go_from_agent_to_agent(site: Site, tmp_path: Path) -> None:
    bundle = tmp_path / "passed"
    (bundle / "in").mkdir(parents=True)
    (bundle / "in" / "é a.txt").write_text("content\n")
    (bundle / "template.yaml").write_text(PASSED_ON)
    submit = ["deadline", "bundle", "submit", str(bundle), "--yes", "-p", f"Marks={tmp_path}/marks", "-p", "Key=passed"]
    job = site.farm.run(*submit, check=True).stdout.split()[-1]
    ids = {**site.shared, "jobId": job}
    assert site.wait(ids, "SUCCEEDED", "FAILED")["taskRunStatus"] == "SUCCEEDED"
    assert site.fleets(ids) == {"reference", "own"}
    site.farm.run("deadline", "job", "download-output", "--job-id", job, "--yes", check=True)
    found = {path.name: path.read_text() for path in (bundle / "out").iterdir()}
    line = "three:two:one:content\n"
    assert found == {
        "one-1": "one:content\n", "one-2": "one:content\n", "two": "two:one:content\n" * 2, "three": line * 2
    }  # fmt: skip
