"""The reference worker agent, unmodified, at work for the embedded farm."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agents import Agent, until

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


@pytest.fixture(scope="module")
def agent(
    reference_agent: str, farm: Any, connect: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    made = Agent(reference_agent, farm, connect, tmp_path_factory.mktemp("agent"))
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
