"""A worker that speaks the worker protocol and runs nothing: tests decide how each action ends.

Also `audit`, which holds the farm's database to what must always be true of it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CAPABILITIES = {
    "amounts": [{"name": "amount.worker.vcpu", "value": 4}, {"name": "amount.worker.memory", "value": 8192}],
    "attributes": [
        {"name": "attr.worker.os.family", "values": ["linux"]},
        {"name": "attr.worker.cpu.arch", "values": ["x86_64"]},
    ],
}
UNSUCCESSFUL = ("FAILED", "CANCELED", "INTERRUPTED", "NEVER_ATTEMPTED")
Decide = Callable[[str, dict[str, Any], str], Any]  # (kind, definition, action id) -> status, or an update


def succeed(kind: str, body: dict[str, Any], action_id: str) -> str:
    return "SUCCEEDED"


class SimulatedWorker:
    """One worker of a fleet. `schedule` is the service's last answer; `ran` lists (action id, kind, body, status)."""

    def __init__(self, client: Any, farm_id: str, fleet_id: str) -> None:
        self.client = client
        self.ids = {"farmId": farm_id, "fleetId": fleet_id}
        self.schedule: dict[str, Any] = {}
        self.pending: dict[str, dict[str, Any]] = {}
        self.done: set[str] = set()
        self.broken: set[str] = set()
        self.ran: list[tuple[str, str, dict[str, Any], str]] = []

    def create(self) -> SimulatedWorker:
        answer = self.client.create_worker(**self.ids, hostProperties={"hostName": "simulated"})
        self.ids["workerId"] = answer["workerId"]
        return self

    def start(self) -> SimulatedWorker:
        if "workerId" not in self.ids:
            self.create()
        self.started = self.client.update_worker(**self.ids, status="STARTED", capabilities=CAPABILITIES)
        return self

    def stop(self) -> None:
        self.client.update_worker(**self.ids, status="STOPPED")

    @property
    def worker_id(self) -> str:
        return self.ids["workerId"]

    @property
    def status(self) -> str:
        return self.client.get_worker(**self.ids)["status"]

    def exchange(self, updates: dict[str, Any] | None = None) -> dict[str, Any]:
        """Report what is pending (and `updates`), take the new schedule."""
        sent = {**self.pending, **(updates or {})}
        self.schedule = self.client.update_worker_schedule(**self.ids, updatedSessionActions=sent)
        self.pending = {}
        return self.schedule

    def actions(self, session_id: str | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """(action id, kind, definition) of what is assigned and not done, in order."""
        result = []
        for identity, session in self.schedule.get("assignedSessions", {}).items():
            if session_id in (None, identity):
                for action in session["sessionActions"]:
                    ((kind, body),) = action["definition"].items()
                    if action["sessionActionId"] not in self.done:
                        result.append((action["sessionActionId"], kind, body))
        return result

    def begin(self, action_id: str, **fields: Any) -> None:
        """Have it reported that an action runs."""
        now = datetime.now(UTC)
        self.pending[action_id] = {"startedAt": now, "updatedAt": now, **fields}

    def end(self, action_id: str, status: str = "SUCCEEDED", **fields: Any) -> None:
        """Have it reported that an action ended."""
        update: dict[str, Any] = {"completedStatus": status}
        if status != "NEVER_ATTEMPTED":
            now = datetime.now(UTC)
            update |= {"startedAt": now, "endedAt": now, "processExitCode": 0 if status == "SUCCEEDED" else 1}
        self.pending[action_id] = {**update, **fields}
        self.done.add(action_id)

    def run_assigned(self, decide: Decide = succeed) -> int:
        """Run all that is assigned, as an agent would: after a failure only exits run. Returns how many actions."""
        count = 0
        canceled = {each for ids in self.schedule.get("cancelSessionActions", {}).values() for each in ids}
        for session_id in self.schedule.get("assignedSessions", {}):
            for action_id, kind, body in self.actions(session_id):
                if session_id in self.broken and kind != "envExit":
                    outcome: Any = "NEVER_ATTEMPTED"
                elif action_id in canceled:
                    outcome = "CANCELED"
                else:
                    outcome = decide(kind, body, action_id)
                    if outcome is None:
                        break  # it is left as it is, and what follows has to wait
                fields = {}
                if isinstance(outcome, dict):
                    outcome, fields = outcome["completedStatus"], outcome
                self.end(action_id, outcome, **fields)
                self.ran.append((action_id, kind, body, outcome))
                if outcome in UNSUCCESSFUL and kind != "envExit":
                    self.broken.add(session_id)
                count += 1
        return count

    def work(self, decide: Decide = succeed, exchanges: int = 200) -> None:
        """Exchange and run until nothing is assigned."""
        for _ in range(exchanges):
            self.exchange()
            if not self.run_assigned(decide):
                if not self.schedule["assignedSessions"]:
                    return
                if not self.pending:
                    raise AssertionError(f"the worker is stuck with {self.schedule}")
        raise AssertionError(f"no end after {exchanges} exchanges: {self.schedule}")


STATUSES = [
    "PENDING",
    "READY",
    "ASSIGNED",
    "STARTING",
    "SCHEDULED",
    "INTERRUPTING",
    "RUNNING",
    "SUSPENDED",
    "CANCELED",
    "FAILED",
    "SUCCEEDED",
    "NOT_COMPATIBLE",
]


def audit(folder: Path, *, limits_lowered: bool = False) -> None:
    """Hold the database of the farm in `folder` to its invariants.

    `limits_lowered`: some limit's maximum was lowered, and what ran then may still hold more.
    """
    db = sqlite3.connect(f"file:{folder}/farm.sqlite?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    faults: list[str] = []

    def none(text: str, sql: str) -> None:
        rows = [tuple(row) for row in db.execute(sql)]
        if rows:
            faults.append(f"{text}: {rows[:5]} ({len(rows)})")

    db.execute("BEGIN")
    changing = {row[0] for row in db.execute("SELECT job FROM changes")}
    for step in db.execute("SELECT * FROM steps").fetchall():
        real = dict(
            db.execute("SELECT status, count(*) FROM tasks WHERE step = ? GROUP BY status", (step["step"],)).fetchall()
        )
        told = {status: step[f"n_{status.lower()}"] for status in STATUSES}
        if {status: count for status, count in told.items() if count} != real:
            faults.append(f"step {step['step']} counts {told}, has {real}")
        retries = db.execute("SELECT sum(attempts) FROM tasks WHERE step = ?", (step["step"],)).fetchone()[0]
        if step["retries"] != retries:
            faults.append(f"step {step['step']} tells {step['retries']} retries, has {retries}")
        open_edges = db.execute(
            "SELECT count(*) FROM step_edges JOIN steps ON steps.step = dependency"
            " WHERE consumer = ? AND status <> 'SUCCEEDED'",
            (step["step"],),
        ).fetchone()[0]
        if step["unresolved"] != open_edges:
            faults.append(f"step {step['step']} tells {step['unresolved']} unresolved dependencies, has {open_edges}")
        if step["job"] in changing:
            continue  # not all of its tasks are where they are to be
        if step["unresolved"] and step["n_ready"]:
            faults.append(f"step {step['step']} is READY although it waits")
        if not step["unresolved"] and step["n_pending"]:
            faults.append(f"step {step['step']} waits for nothing")
    for status in STATUSES:
        column = f"n_{status.lower()}"
        none(
            f"jobs whose {column} is not that of their steps",
            f"SELECT job, jobs.{column}, sum(steps.{column}) AS n FROM jobs JOIN steps USING (job)"
            f" GROUP BY job HAVING jobs.{column} <> n",
        )
    none(
        "tasks in hand whose action is over",
        "SELECT tasks.step, tasks.number, tasks.status, actions.status FROM tasks LEFT JOIN actions ON"
        " actions.session = tasks.session AND actions.number = tasks.action"
        " WHERE tasks.status IN ('ASSIGNED', 'RUNNING', 'INTERRUPTING', 'STARTING', 'SCHEDULED')"
        " AND coalesce(actions.done, 1)",
    )
    none(
        "open actions whose tasks are not in hand",
        "SELECT actions.session, actions.number, tasks.status FROM actions JOIN action_tasks ON"
        " action_tasks.session = actions.session AND action_tasks.action = actions.number JOIN tasks ON"
        " tasks.step = action_tasks.step AND tasks.number = action_tasks.task WHERE done = 0 AND (tasks.status NOT IN"
        " ('ASSIGNED', 'RUNNING', 'INTERRUPTING') OR tasks.session <> actions.session"
        " OR tasks.action <> actions.number)",
    )
    none(
        "open actions in ended sessions",
        "SELECT session, number FROM actions JOIN sessions USING (session)"
        " WHERE done = 0 AND sessions.status = 'ENDED'",
    )
    none(
        "ended sessions without an end",
        "SELECT session FROM sessions WHERE (status = 'ENDED') <> (ended_at IS NOT NULL)",
    )
    none(
        "open sessions without a job at work",
        "SELECT session FROM sessions LEFT JOIN jobs USING (job) WHERE jobs.job IS NULL",
    )
    none(
        "open sessions of workers that are away",
        "SELECT session, workers.status FROM sessions LEFT JOIN workers USING (worker)"
        " WHERE sessions.status = 'STARTED' AND coalesce(workers.status, 'gone') NOT IN ('RUNNING', 'STOPPING')",
    )
    most = json.loads(config.read_text()).get("settings", {}) if (config := folder / "config.json").exists() else {}
    none(
        "workers with more sessions than they may have",
        "SELECT worker, count(*) AS n, count(DISTINCT queue_id) AS queues FROM sessions WHERE status = 'STARTED'"
        f" GROUP BY worker HAVING n > {int(most.get('worker_sessions', 1))} OR queues > 1",
    )
    if not limits_lowered:
        none(
            "limits of which more is held than there is",
            "SELECT limit_id, max_count, sum(count) AS n FROM limits JOIN limit_holds USING (limit_id)"
            " GROUP BY limit_id HAVING max_count >= 0 AND n > max_count",
        )
    none(
        "limits held for what is over",
        "SELECT limit_id FROM limit_holds JOIN actions ON actions.session = limit_holds.session"
        " AND actions.number = limit_holds.action WHERE done = 1",
    )
    none(
        "tasks that two open actions run",
        "SELECT action_tasks.step, action_tasks.task, count(*) AS n FROM action_tasks JOIN actions ON actions.session ="
        " action_tasks.session AND actions.number = action_tasks.action WHERE done = 0"
        " GROUP BY action_tasks.step, action_tasks.task HAVING n > 1",
    )
    none(
        "tasks that a worker has and has not begun, of steps that wait",
        "SELECT step, number FROM tasks JOIN steps USING (step) WHERE tasks.status = 'ASSIGNED' AND unresolved > 0",
    )
    db.close()
    assert not faults, "\n".join(faults)


def template(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A job template; each step is what `step` makes."""
    return {"specificationVersion": "jobtemplate-2023-09", "name": "job", "steps": list(steps), **more}


def step(name: str = "step", tasks: int = 1, *, after: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A step of `tasks` tasks with the parameter Frame, which depends on the steps `after`."""
    result: dict[str, Any] = {"name": name, "script": {"actions": {"onRun": {"command": "true"}}}, **more}
    if tasks > 1:
        frames = {"name": "Frame", "type": "INT", "range": f"1-{tasks}"}
        result["parameterSpace"] = {"taskParameterDefinitions": [frames]}
    if after:
        result["dependencies"] = [{"dependsOn": each} for each in after]
    return result


def environment(name: str) -> dict[str, Any]:
    """An environment with an enter and an exit action."""
    action = {"command": "true"}
    return {"name": name, "script": {"actions": {"onEnter": action, "onExit": action}}}


class Submitted:
    """A job, as a client sees it."""

    def __init__(self, farmd: Any, ids: Any, body: Any, **fields: Any) -> None:
        self.farmd = farmd
        text = body if isinstance(body, str) else json.dumps(body)
        fields = {"template": text, "templateType": "JSON", "priority": 50, **fields}
        created = self.client.create_job(farmId=ids.farm, queueId=ids.queue, **fields)
        self.ids = {"farmId": ids.farm, "queueId": ids.queue, "jobId": created["jobId"]}
        self.created = self.wait_created()

    @property
    def client(self) -> Any:
        return self.farmd.client()

    def wait_created(self) -> dict[str, Any]:
        limit = time.monotonic() + 30
        while (job := self.get())["lifecycleStatus"] == "CREATE_IN_PROGRESS":
            assert time.monotonic() < limit, "the job is never created"
            time.sleep(0.01)
        return job

    def get(self) -> dict[str, Any]:
        return self.client.get_job(**self.ids)

    @property
    def status(self) -> str:
        return self.get()["taskRunStatus"]

    @property
    def counts(self) -> dict[str, int]:
        return {status: count for status, count in self.get()["taskRunStatusCounts"].items() if count}

    def steps(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.client.list_steps(**self.ids)["steps"]}

    def step_ids(self, name: str = "step") -> dict[str, str]:
        return {**self.ids, "stepId": self.steps()[name]["stepId"]}

    def tasks(self, name: str = "step") -> list[dict[str, Any]]:
        return self.client.list_tasks(**self.step_ids(name))["tasks"]

    def statuses(self, name: str = "step") -> list[str]:
        return [task["runStatus"] for task in self.tasks(name)]

    def update(self, **fields: Any) -> None:
        self.client.update_job(**self.ids, **fields)

    def update_task(self, number: int, target: str, name: str = "step") -> None:
        ids = self.step_ids(name)
        task_id = f"task-{ids['stepId'][5:]}-{number}"
        self.client.update_task(**ids, taskId=task_id, targetRunStatus=target)

    def sessions(self) -> list[dict[str, Any]]:
        return self.client.list_sessions(**self.ids)["sessions"]

    def actions(self, **filters: Any) -> list[dict[str, Any]]:
        return self.client.list_session_actions(**self.ids, **filters)["sessionActions"]


def number_of(task_id: str) -> int:
    """The number in a task's id."""
    return int(task_id.rpartition("-")[2])


def clear(farmd: Any, ids: Any) -> None:
    """Cancel what is left of the queue's jobs, so that the next test has the workers to itself."""
    client = farmd.client()
    for page in client.get_paginator("list_jobs").paginate(farmId=ids.farm, queueId=ids.queue):
        for job in page["jobs"]:
            alive = job.get("taskRunStatus") in ("READY", "PENDING", "RUNNING", "ASSIGNED", "INTERRUPTING")
            if alive or job["lifecycleStatus"] == "CREATE_IN_PROGRESS":
                client.update_job(
                    farmId=ids.farm, queueId=ids.queue, jobId=job["jobId"], targetTaskRunStatus="CANCELED"
                )
