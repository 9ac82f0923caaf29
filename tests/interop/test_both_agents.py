"""The reference worker agent and our own on one queue: all kinds of jobs, then stops, crashes and a dead farm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agents import HEAD, RUN, WANTS, Site, until

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


@pytest.fixture(scope="module")
def kinds(site: Site) -> dict[str, dict[str, str]]:
    """Jobs of all kinds, asked for at once; those that name a side go to the reference agent."""
    site.ready()
    return {
        "many": site.many("many", 12, 0.7, priority=90),
        "space": site.ask(SPACE, "space"),
        "chunks": site.ask(CHUNKS, "chunks"),
        "environments": site.ask(ENVIRONMENTS, "environments"),
        "speaking": site.ask(SPEAKING, "speaking", maxRetriesPerTask=0),
        "again": site.ask(TRIED_AGAIN, "again", maxRetriesPerTask=5),
        "long": site.ask(TOO_LONG, "long", maxRetriesPerTask=0),
    }


def test_a_space_of_parameters(site: Site, kinds: dict[str, dict[str, str]]) -> None:
    assert site.wait(kinds["space"], "SUCCEEDED", "FAILED")["taskRunStatus"] == "SUCCEEDED"
    tasks = {f"{a},{b},{c},/a/b" for a, b in ((1, "x y"), (2, "é")) for c in (1.5, 2)}
    assert site.runs("space") == {task: ["begin", "end"] for task in tasks}
    assert site.fleets(kinds["space"]) == {"reference"}
    site.check_once_at_a_time(kinds["space"])
    site.check_logs(kinds["space"])


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
    site.check_once_at_a_time(kinds["many"])
    site.check_logs(kinds["many"])


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
