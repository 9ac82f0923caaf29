"""A randomised soak of the farm: people who change their minds, workers that fail, a service that is killed.

All requests come from one thread, so what the service acknowledged is one known order: the `Recorder` checks each
answer of UpdateWorkerSchedule against it as it comes, and `audit_from_outside` compares the end with it. Agents run
nothing; what they "run" is known here, which tells whether one task ever ran twice at once. The same seed makes the
same choices; moments of kills differ.
"""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError
from own_farmd import CONFIGURATION, ROLE, Farmd
from simulated_worker import CAPABILITIES, STATUSES, audit, environment, step, template

SETTINGS = {"worker_hold_s": 0, "worker_silence_s": 5, "worker_look_s": 0.2, "retention_look_s": 86_400}
LIMIT = "amount.soak"
KIND = "attr.soak.kind"
VCPU = "amount.worker.vcpu"  # of which each worker has 4
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "NOT_COMPATIBLE")
MADE = ("CREATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_SUCCEEDED")
OPEN = ("ASSIGNED", "RUNNING", "CANCELING", "SCHEDULED", "INTERRUPTING")


class Breach(AssertionError):
    """The farm did what it must never do."""


@dataclass
class Step:
    """What the recorder knows of a step."""

    name: str
    after: set[str]
    special: bool  # only hosts of the second fleet can run it
    limited: int  # how much of the limit a task takes
    vcpu: int  # of a worker; 0: all of it
    chunk: dict[str, Any] | None
    stopped: bool = False  # told to stop, and not requeued since


@dataclass
class Job:
    """What was asked of a job, and what came of it."""

    queue: str
    asked: dict[str, Any]  # the members of GetJob that were acknowledged
    template: dict[str, Any]
    steps: dict[str, Step] = field(default_factory=dict)
    archived: bool = False
    served: set[str] = field(default_factory=set)  # workers given tasks since maxWorkerCount was last changed


@dataclass
class Run:
    """An action that some worker was given."""

    worker: str
    session: str
    job: str
    kind: str
    body: dict[str, Any]
    tasks: list[tuple[str, int]] = field(default_factory=list)
    limited: int = 0
    reported: str | None = None  # as acknowledged


class Recorder:
    """What the service said, in order, held to what it may say."""

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.jobs: dict[str, Job] = {}
        self.runs: dict[str, Run] = {}
        self.open: dict[str, dict[str, list[str]]] = {}  # worker -> session -> actions listed and not reported
        self.broken: set[str] = set()  # sessions in which something went wrong, as acknowledged
        self.succeeded: dict[tuple[str, int], str] = {}  # task -> the action whose success was acknowledged
        self.timeline: list[tuple[float, str, Any]] = []
        self.checked: Counter[str] = Counter()

    def note(self, what: str, about: Any) -> None:
        self.timeline.append((time.time(), what, about))

    def reported(self, worker: str, updates: dict[str, dict[str, Any]]) -> None:
        """These updates were acknowledged."""
        for identity, update in updates.items():
            run = self.runs[identity]
            status = update.get("completedStatus")
            if status is None or run.reported is not None:
                continue
            run.reported = status
            self.note("reported", (identity, status))
            if status == "SUCCEEDED":
                self.succeeded.update(dict.fromkeys(run.tasks, identity))
            elif run.kind != "envExit":
                self.broken.add(run.session)
            for actions in self.open.get(worker, {}).values():
                if identity in actions:
                    actions.remove(identity)

    def gone(self, worker: str) -> None:
        """The worker has nothing in hand any more, as far as it knows."""
        self.open.pop(worker, None)
        self.note("gone", worker)

    def answered(self, agent: Agent, answer: dict[str, Any]) -> None:
        """Check an answer of UpdateWorkerSchedule, which was just given, and take it up."""
        before = self.open.get(agent.worker_id, {})
        after: dict[str, list[str]] = {}
        for session_id, listed in answer["assignedSessions"].items():
            actions = [each["sessionActionId"] for each in listed["sessionActions"]]
            known = before.get(session_id, [])
            if actions[: len(known)] != known:
                raise Breach(f"{session_id}: was given {known}, is now told {actions}")
            new = listed["sessionActions"][len(known) :]
            self.check_order(session_id, known, new)
            if session_id not in before:
                self.check_session(agent, session_id, listed)
            for each in new:
                self.check_action(agent, session_id, listed, each)
            after[session_id] = actions
        for session_id, known in before.items():
            if known and session_id not in after:
                raise Breach(f"{session_id} is dropped with {known} unreported")
        for session_id, canceled in answer["cancelSessionActions"].items():
            if not set(canceled) <= set(after.get(session_id, ())):
                raise Breach(f"{session_id}: {canceled} are to be cancelled, {after.get(session_id)} are open")
        self.open[agent.worker_id] = after
        if len(after) > 1:
            self.check_share(agent, answer)
        if len({listed["queueId"] for listed in answer["assignedSessions"].values()}) > 1:
            raise Breach(f"{agent.worker_id} has sessions of several queues")

    def check_share(self, agent: Agent, answer: dict[str, Any]) -> None:
        """A worker with several sessions: all of them say what they need, and there is enough of it."""
        needs = [
            self.known(each["jobId"]).steps[self.step_of(i)].vcpu for i, each in answer["assignedSessions"].items()
        ]
        if len(needs) > self.soak.most_sessions or 0 in needs or sum(needs) > 4:
            raise Breach(f"{agent.worker_id} has sessions that need {needs} of 4")
        self.checked["shared"] += 1

    def step_of(self, session_id: str) -> str:
        return next(
            run.body["stepId"] for run in self.runs.values() if run.session == session_id and run.kind == "taskRun"
        )

    def check_order(self, session_id: str, known: list[str], new: list[dict[str, Any]]) -> None:
        numbers = [int(each["sessionActionId"].rpartition("-")[2]) for each in new]
        last = [int(each.rpartition("-")[2]) for each in known[-1:]]
        if last + numbers != sorted({*last, *numbers}):
            raise Breach(f"{session_id}: actions come as {last + numbers}")
        kinds = [next(iter(each["definition"])) for each in new]
        if session_id in self.broken and set(kinds) - {"envExit"}:
            raise Breach(f"{session_id} is broken and is given {kinds}")
        if "envExit" in kinds and "taskRun" in kinds:
            raise Breach(f"{session_id} is given {kinds}")

    def check_session(self, agent: Agent, session_id: str, listed: dict[str, Any]) -> None:
        """A session that is new: its beginning, and whether its job may have one more worker."""
        job_id = listed["jobId"]
        job = self.known(job_id)
        kinds = [next(iter(each["definition"])) for each in listed["sessionActions"]]
        order = "".join(
            {"syncInputJobAttachments": "s", "envEnter": "e", "taskRun": "t", "envExit": "x"}[k] for k in kinds
        )
        head, body = order.rstrip("t"), order.lstrip("se")
        if body.strip("t") or not body or ("s" in head) != ("attachments" in job.asked):
            raise Breach(f"{session_id} begins with {kinds}")
        maximum = job.asked["maxWorkerCount"]
        others = self.workers_of(job_id) - {agent.worker_id}
        if maximum > 0 and len(others) >= maximum:
            raise Breach(f"{session_id}: {job_id} may have {maximum} workers, and {others} are at it already")
        self.checked["sessions"] += 1
        if job.queue == self.soak.queues[0]:
            self.check_rank(agent, session_id, job)

    def check_rank(self, agent: Agent, session_id: str, job: Job) -> None:
        """Whether work of higher priority that any worker can do was passed over. The database tells what there was."""
        db = sqlite3.connect(f"file:{self.soak.farmd.dir}/farm.sqlite?mode=ro", uri=True)
        rows = db.execute(
            "SELECT jobs.job_id, jobs.priority FROM sessions AS chosen JOIN jobs USING (queue_id) JOIN steps ON"
            " steps.job = jobs.job WHERE chosen.session_id = ? AND jobs.priority > ? AND jobs.max_workers = -1 AND"
            " jobs.lifecycle_status IN ('CREATE_COMPLETE', 'UPDATE_SUCCEEDED') AND steps.unresolved = 0 AND"
            " steps.requirements IS NULL AND jobs.created_at < chosen.started_at - 2000 AND EXISTS (SELECT 1 FROM tasks"
            " WHERE tasks.step = steps.step AND tasks.status = 'READY'"
            " AND ifnull(tasks.updated_at, 0) < chosen.started_at)"
            # A worker leaves a job to others for a while when it could not set it up.
            " AND NOT EXISTS (SELECT 1 FROM sessions AS other JOIN actions USING (session) WHERE other.job = jobs.job"
            " AND other.worker = chosen.worker AND actions.kind <> 'taskRun' AND actions.status = 'FAILED')",
            (session_id, job.asked["priority"]),
        ).fetchall()
        db.close()
        if rows := [row for row in rows if self.jobs[row[0]].steps]:  # the others may have been made just now
            raise Breach(f"{session_id}: priority {job.asked['priority']} goes before {rows}")
        self.checked["ranks"] += 1

    def workers_of(self, job_id: str) -> set[str]:
        """Who has an open session of a job."""
        return {
            worker
            for worker, sessions in self.open.items()
            if any(self.job_of(each) == job_id for each in sessions) and not self.soak.is_lost(worker)
        }

    def job_of(self, session_id: str) -> str:
        return next(run.job for run in self.runs.values() if run.session == session_id)

    def check_action(self, agent: Agent, session_id: str, listed: dict[str, Any], action: dict[str, Any]) -> None:
        """An action that is new."""
        identity = action["sessionActionId"]
        ((kind, body),) = action["definition"].items()
        if identity in self.runs:
            raise Breach(f"{identity} was given before, to {self.runs[identity].worker}")
        run = self.runs[identity] = Run(agent.worker_id, session_id, listed["jobId"], kind, body)
        self.note("given", (identity, kind, agent.worker_id))
        self.checked[kind] += 1
        if kind != "taskRun":
            return
        job = self.known(run.job)
        about = job.steps[body["stepId"]]
        run.tasks = self.tasks_of(about, body)
        run.limited = about.limited
        soak = self.soak
        if about.stopped:
            raise Breach(f"{identity}: {about.name} of {run.job} was told to stop")
        if job.archived:
            raise Breach(f"{identity}: {run.job} is archived")
        if about.special and agent.fleet != soak.fleets[1]:
            raise Breach(f"{identity}: {agent.fleet} can't run {about.name}")
        if soak.associations[job.queue, agent.fleet] != "ACTIVE":
            raise Breach(f"{identity}: the association is {soak.associations[job.queue, agent.fleet]}")
        if agent.state == "stopping":
            raise Breach(f"{identity} was given to a worker that is stopping")
        for task in run.tasks:
            if task in self.succeeded:
                raise Breach(f"{identity}: {task} has succeeded in {self.succeeded[task]}")
        self.check_chunk(identity, about, run)
        job.served = (job.served & self.workers_of(run.job)) | {agent.worker_id}
        if 0 < job.asked["maxWorkerCount"] < len(job.served):
            raise Breach(f"{identity}: {job.served} work on {run.job}, of {job.asked['maxWorkerCount']}")
        for step_id, other in job.steps.items():
            if other.name in about.after:
                got = soak.call("get_step", **soak.ids(job.queue, run.job), stepId=step_id)
                if got["taskRunStatus"] != "SUCCEEDED":
                    raise Breach(f"{identity}: {about.name} waits for {other.name}, which is {got['taskRunStatus']}")
                self.checked["dependencies"] += 1
        if about.limited:
            held = sum(
                self.runs[each].limited
                for worker, sessions in self.open.items()
                if worker != agent.worker_id and not soak.is_lost(worker)
                for actions in sessions.values()
                for each in actions
            )
            held += sum(
                each.limited for each in self.runs.values() if each.worker == agent.worker_id and self.is_held(each)
            )
            if held > soak.limit_count:
                raise Breach(f"{identity}: {held} of the limit are taken, of {soak.limit_count}")
            self.checked["limits"] += 1

    def is_held(self, run: Run) -> bool:
        return run.reported is None and run.session not in self.soak.agents_by_id[run.worker].forgotten

    def tasks_of(self, about: Step, body: dict[str, Any]) -> list[tuple[str, int]]:
        if "taskId" in body:
            return [(body["stepId"], int(body["taskId"].rpartition("-")[2]))]
        assert about.chunk is not None, body
        numbers: list[int] = []
        others = {name: value for name, value in body["parameters"].items() if name != "Chunk"}
        for part in body["parameters"]["Chunk"]["chunkInt"].split(","):
            first, _, last = part.partition("-")
            values = range(int(first), int(last or first) + 1)
            numbers += [about.chunk["numbers"][json.dumps(others, sort_keys=True), value] for value in values]
        return [(body["stepId"], number) for number in numbers]

    def check_chunk(self, identity: str, about: Step, run: Run) -> None:
        if about.chunk is None:
            if len(run.tasks) != 1:
                raise Breach(f"{identity} runs {run.tasks}")
            return
        text = run.body["parameters"]["Chunk"]["chunkInt"]
        if about.chunk["rangeConstraint"] == "CONTIGUOUS" and "," in text:
            raise Breach(f"{identity} runs {text}")
        if len(run.tasks) > about.chunk["defaultTaskCount"] and not about.chunk.get("targetRuntimeSeconds"):
            raise Breach(f"{identity} runs {text}, more than {about.chunk['defaultTaskCount']}")

    def known(self, job_id: str) -> Job:
        """A job with its steps, read from the service when they are first needed."""
        job = self.jobs[job_id]
        if not job.steps:
            soak = self.soak
            where = soak.ids(job.queue, job_id)
            for listed in soak.pages("list_steps", "steps", **where):
                written = next(each for each in job.template["steps"] if each["name"] == listed["name"])
                wanted = written.get("hostRequirements", {})
                needs = {each["name"]: each["min"] for each in wanted.get("amounts", ())}
                about = Step(
                    listed["name"],
                    {each["dependsOn"] for each in written.get("dependencies", ())},
                    bool(wanted.get("attributes")),
                    needs.get(LIMIT, 0),
                    needs.get(VCPU, 0),
                    self.chunks(where, written, listed["stepId"]),
                )
                job.steps[listed["stepId"]] = about
        return job

    def chunks(self, where: dict[str, str], written: dict[str, Any], step_id: str) -> dict[str, Any] | None:
        space = written.get("parameterSpace", {"taskParameterDefinitions": []})
        chunked = [each for each in space["taskParameterDefinitions"] if each["type"] == "CHUNK[INT]"]
        if not chunked:
            return None
        numbers = {}
        for task in self.soak.pages("list_tasks", "tasks", **where, stepId=step_id):
            others = {name: value for name, value in task["parameters"].items() if name != "Chunk"}
            value = int(task["parameters"]["Chunk"]["chunkInt"])
            numbers[json.dumps(others, sort_keys=True), value] = int(task["taskId"].rpartition("-")[2])
        return {**chunked[0]["chunks"], "numbers": numbers}


@dataclass
class Local:
    """A session as its agent sees it."""

    actions: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    entered: list[str] = field(default_factory=list)
    canceled: set[str] = field(default_factory=set)
    broken: bool = False
    running: str | None = None


class Agent:
    """A worker that does what an agent does, but runs nothing."""

    def __init__(self, soak: Soak, fleet: str) -> None:
        self.soak, self.fleet = soak, fleet
        self.state = "off"  # off, on, stopping, crashed
        self.worker_id = ""
        self.sessions: dict[str, Local] = {}
        self.pending: dict[str, dict[str, Any]] = {}
        self.forgotten: set[str] = set()  # sessions that it can't report any more
        self.silent_since = 0.0

    @property
    def ids(self) -> dict[str, str]:
        return {"farmId": self.soak.farm, "fleetId": self.fleet, "workerId": self.worker_id}

    def create(self) -> None:
        answer = self.soak.call(
            "create_worker", farmId=self.soak.farm, fleetId=self.fleet, clientToken=self.soak.token()
        )
        self.worker_id = answer["workerId"]
        self.soak.agents_by_id[self.worker_id] = self
        self.soak.workers_made += 1

    def start(self) -> None:
        """Start, or start anew: what it had in hand is lost."""
        if not self.worker_id:
            self.create()
        self.soak.call("update_worker", **self.ids, status="STARTED", capabilities=CAPABILITIES)
        self.drop()
        self.state = "on"

    def drop(self) -> None:
        self.forgotten |= set(self.sessions) | set(self.soak.recorder.open.get(self.worker_id, ()))
        self.soak.at_work = {task: agent for task, agent in self.soak.at_work.items() if agent is not self}
        self.sessions.clear()
        self.pending.clear()
        self.soak.recorder.gone(self.worker_id)

    def crash(self) -> None:
        """Go away without a word."""
        self.state = "crashed"
        self.silent_since = time.monotonic()
        self.soak.at_work = {task: agent for task, agent in self.soak.at_work.items() if agent is not self}
        self.soak.recorder.note("crash", self.worker_id)

    def stop(self) -> None:
        """The end of a drain: report what there is, and go."""
        self.interrupt()
        self.exchange(adopt=False)
        if self.state == "stopping":
            self.soak.call("update_worker", **self.ids, status="STOPPED")
            self.drop()
            self.state = "off"

    def interrupt(self) -> None:
        """What runs is interrupted, what does not is not attempted."""
        for session in self.sessions.values():
            for identity, kind, _ in list(session.actions):
                if identity == session.running:
                    self.finish(session, identity, "INTERRUPTED")
                elif identity not in self.pending and kind != "envExit":
                    self.finish(session, identity, "NEVER_ATTEMPTED")

    def delete(self) -> None:
        self.soak.call("delete_worker", **self.ids)
        self.soak.workers_made -= 1
        self.soak.recorder.gone(self.worker_id)
        self.worker_id = ""

    def advance(self) -> None:
        """Run a little of each session."""
        for session in self.sessions.values():
            while self.advance_session(session) and self.soak.luck() < (0.75 if self.soak.wild else 1):
                pass

    def advance_session(self, session: Local) -> bool:
        """Begin or end the next action. Returns whether there was one."""
        found = next(
            (each for each in session.actions if self.pending.get(each[0], {}).get("completedStatus") is None), None
        )
        if found is None:
            return False
        identity, kind, body = found
        soak = self.soak
        if session.broken and not (kind == "envExit" and body["environmentId"] in session.entered):
            self.finish(session, identity, "NEVER_ATTEMPTED")
            return True
        if session.running != identity:
            # A reference agent cancels nothing but what runs: what is queued is begun all the same.
            if identity in session.canceled and kind != "envExit" and soak.luck() < 0.5:
                self.finish(session, identity, "CANCELED")
                return True
            self.begin(session, identity, kind)
            return True
        if kind == "envEnter":
            session.entered.append(body["environmentId"])
        if identity in session.canceled:
            self.finish(session, identity, "CANCELED" if soak.luck() < 0.9 else "SUCCEEDED")
        else:
            self.finish(session, identity, soak.outcome(kind))
        return True

    def begin(self, session: Local, identity: str, kind: str) -> None:
        session.running = identity
        run = self.soak.recorder.runs[identity]
        for task in run.tasks:
            other = self.soak.at_work.get(task)
            if other is not None and other is not self and not self.soak.is_lost(other.worker_id):
                raise Breach(f"{identity}: {task} is being run by {other.worker_id}, too")
            self.soak.at_work[task] = self
        if kind == "taskRun":
            self.soak.recorder.note("begin", identity)
        now = datetime.now(UTC)
        self.pending[identity] = {"startedAt": now, "updatedAt": now, "progressPercent": self.soak.luck() * 100}

    def finish(self, session: Local, identity: str, status: str) -> None:
        update: dict[str, Any] = {"completedStatus": status}
        if status != "NEVER_ATTEMPTED":
            now = datetime.now(UTC)
            begun = self.pending.get(identity, {}).get("startedAt", now)
            update |= {"startedAt": begun, "endedAt": now, "processExitCode": 0 if status == "SUCCEEDED" else 1}
        self.pending[identity] = update
        run = self.soak.recorder.runs[identity]
        for task in run.tasks:
            if self.soak.at_work.get(task) is self:
                del self.soak.at_work[task]
        if run.kind == "taskRun" and status != "NEVER_ATTEMPTED":
            self.soak.recorder.note("end", identity)
        session.running = None
        if status != "SUCCEEDED" and run.kind != "envExit":
            session.broken = True

    def exchange(self, *, adopt: bool = True) -> None:
        """Report, and take the new schedule unless its answer is lost on the way."""
        soak = self.soak
        sent = {identity: dict(update) for identity, update in self.pending.items()}
        try:
            answer = soak.call("update_worker_schedule", **self.ids, updatedSessionActions=sent)
        except ClientError as error:
            about = error.response
            if about["Error"]["Code"] != "ConflictException" or about.get("reason") != "STATUS_CONFLICT":
                raise
            soak.seen["offline"] += 1
            self.crash()
            self.start()
            return
        soak.recorder.reported(self.worker_id, sent)
        soak.recorder.answered(self, answer)
        if not adopt or (soak.wild and soak.luck() < 0.08):
            soak.seen["answers lost"] += 1
            return
        for identity, update in sent.items():
            if self.pending.get(identity) == update:
                del self.pending[identity]
        self.take_up(answer)

    def take_up(self, answer: dict[str, Any]) -> None:
        assigned = answer["assignedSessions"]
        for gone in [each for each in self.sessions if each not in assigned]:
            del self.sessions[gone]
        for identity, listed in assigned.items():
            session = self.sessions.setdefault(identity, Local())
            session.actions = [
                (each["sessionActionId"], *next(iter(each["definition"].items()))) for each in listed["sessionActions"]
            ]
            session.canceled = set(answer["cancelSessionActions"].get(identity, ()))

    def turn(self) -> None:
        """Some moments of its life."""
        soak = self.soak
        if self.state == "crashed":
            # Some come back at once; others are missed first.
            if soak.luck() < 0.05 or time.monotonic() - self.silent_since > 8:
                self.start()
        elif self.state == "off":
            if self.worker_id and soak.luck() < 0.1 and soak.wild:
                self.delete()
            self.start()
        elif self.state == "stopping":
            self.advance()
            if soak.luck() < 0.4:
                self.stop()
            else:
                self.exchange()
        else:
            self.advance()
            self.exchange()


class Soak:
    """One run: `wild` for some turns, then calm until all is done, then the audits."""

    def __init__(self, farmd: Any, seed: int, agents: int = 6, most_sessions: int = 1) -> None:
        self.farmd, self.most_sessions = farmd, most_sessions
        self.chance = random.Random(seed)
        self.luck = self.chance.random
        self.wild = True
        self.seen: Counter[str] = Counter()
        self.recorder = Recorder(self)
        self.agents_by_id: dict[str, Agent] = {}
        self.at_work: dict[tuple[str, int], Agent] = {}
        self.workers_made = 0
        self.limit_count = 2
        self.make_farm()
        self.agents = [Agent(self, self.fleets[index % 2]) for index in range(agents)]

    def call(self, operation: str, **params: Any) -> Any:
        """One request; again, after a restart, where the service died over it."""
        while True:
            try:
                answer = getattr(self.farmd.client(), operation)(**params)
                answer.pop("ResponseMetadata", None)
                return answer
            except (ConnectionError, HTTPClientError):
                if self.farmd.process.poll() is None:
                    # It closed the kept-open connection, or is about to be gone.
                    time.sleep(0.01)
                    continue
                self.farmd.process.wait()
                self.farmd.start()
                self.seen["restarts"] += 1

    def pages(self, operation: str, name: str, **params: Any) -> list[dict[str, Any]]:
        found, token = [], {}
        while True:
            page = self.call(operation, **params, **token)
            found += page[name]
            if "nextToken" not in page:
                return found
            token = {"nextToken": page["nextToken"]}

    def token(self) -> str:
        return str(UUID(int=self.chance.getrandbits(128)))

    def ids(self, queue: str, job: str) -> dict[str, str]:
        return {"farmId": self.farm, "queueId": queue, "jobId": job}

    def is_lost(self, worker_id: str) -> bool:
        """Whether the service gave a worker up: what it has in hand is none of the service's any more."""
        agent = self.agents_by_id[worker_id]
        if agent.worker_id != worker_id or agent.state in ("crashed", "off"):
            return True
        got = self.call("get_worker", **agent.ids)
        return bool(got["status"] == "NOT_RESPONDING")

    def make_farm(self) -> None:
        self.farm = self.call("create_farm", displayName="soak")["farmId"]
        user = {"runAs": "WORKER_AGENT_USER"}
        store = {"s3BucketName": "bucket", "rootPrefix": "root"}
        self.queues = [
            self.call("create_queue", farmId=self.farm, displayName="plain", jobRunAsUser=user, roleArn=ROLE,
                      jobAttachmentSettings=store)["queueId"],
            self.call("create_queue", farmId=self.farm, displayName="balanced", jobRunAsUser=user, roleArn=ROLE,
                      jobAttachmentSettings=store,
                      schedulingConfiguration={"priorityBalanced": {"renderingTaskBuffer": 1}})["queueId"],
        ]  # fmt: skip
        ordinary = json.loads(json.dumps(CONFIGURATION))
        ordinary["customerManaged"]["workerCapabilities"]["vCpuCount"] = {"min": 4}
        special = json.loads(json.dumps(ordinary))
        special["customerManaged"]["workerCapabilities"]["customAttributes"] = [{"name": KIND, "values": ["special"]}]
        self.fleets = [
            self.call("create_fleet", farmId=self.farm, displayName=name, roleArn=ROLE, maxWorkerCount=100,
                      configuration=configuration)["fleetId"]
            for name, configuration in (("ordinary", ordinary), ("special", special))
        ]  # fmt: skip
        self.associations = {}
        for queue in self.queues:
            for fleet in self.fleets:
                self.call("create_queue_fleet_association", farmId=self.farm, queueId=queue, fleetId=fleet)
                self.associations[queue, fleet] = "ACTIVE"
        self.limit = self.call(
            "create_limit", farmId=self.farm, displayName="soak", amountRequirementName=LIMIT, maxCount=self.limit_count
        )["limitId"]
        for queue in self.queues:
            self.call("create_queue_limit_association", farmId=self.farm, queueId=queue, limitId=self.limit)
        outer = {"specificationVersion": "environment-2023-09", "environment": environment("Outer")}
        self.call("create_queue_environment", farmId=self.farm, queueId=self.queues[0], priority=1, templateType="JSON",
                  template=json.dumps(outer))  # fmt: skip

    def outcome(self, kind: str) -> str:
        """How an action ends."""
        if not self.wild:
            return "SUCCEEDED"
        luck = self.luck()
        if kind == "taskRun":
            return "FAILED" if luck < 0.07 else "INTERRUPTED" if luck < 0.08 else "SUCCEEDED"
        return "FAILED" if luck < 0.03 else "SUCCEEDED"

    # What people do.

    def submit(self) -> None:
        chance = self.chance
        steps = []
        for index in range(chance.randint(1, 4)):
            after = tuple(each["name"] for each in steps if self.luck() < 0.4)
            steps.append(self.random_step(f"s{index}", after))
        body = template(*steps, extensions=["TASK_CHUNKING"])
        if self.luck() < 0.4:
            body["jobEnvironments"] = [environment("Job1"), environment("Job2")][: chance.randint(1, 2)]
        asked: dict[str, Any] = {
            "priority": chance.randint(0, 100),
            "maxFailedTasksCount": chance.choice([0, 2, 20]),
            "maxRetriesPerTask": chance.choice([0, 1, 5]),
            "maxWorkerCount": chance.choice([-1, -1, 1, 2]),
        }
        if self.luck() < 0.3:
            asked["attachments"] = {
                "manifests": [{"rootPath": "/work", "rootPathFormat": "posix", "outputRelativeDirectories": ["out"]}],
                "fileSystem": "COPIED",
            }
        queue = chance.choice(self.queues)
        suspended = self.luck() < 0.1
        start = {"targetTaskRunStatus": "SUSPENDED"} if suspended else {}
        job_id = self.call(
            "create_job", farmId=self.farm, queueId=queue, template=json.dumps(body), templateType="JSON",
            clientToken=self.token(), **asked, **start,
        )["jobId"]  # fmt: skip
        self.recorder.jobs[job_id] = Job(queue, asked, body)
        self.recorder.note("submit", job_id)

    def random_step(self, name: str, after: tuple[str, ...]) -> dict[str, Any]:
        chance = self.chance
        made = step(name, chance.choice([1, 1, 3, 8]), after=after)
        luck = self.luck()
        if luck < 0.25:
            chunks: dict[str, Any] = {
                "defaultTaskCount": chance.randint(1, 4),
                "rangeConstraint": chance.choice(["CONTIGUOUS", "NONCONTIGUOUS"]),
            }
            if self.luck() < 0.5:
                chunks["targetRuntimeSeconds"] = 1
            space = [
                {"name": "Chunk", "type": "CHUNK[INT]", "range": chance.choice(["1-9", "1-4,8-11"]), "chunks": chunks},
                {"name": "Layer", "type": "STRING", "range": ["a", "b"]},
            ]
            made["parameterSpace"] = {"taskParameterDefinitions": space[: chance.randint(1, 2)]}
        elif luck < 0.4:
            made["parameterSpace"] = {
                "taskParameterDefinitions": [
                    {"name": "A", "type": "INT", "range": "1-3"},
                    {"name": "B", "type": "STRING", "range": ["x", "y", "z"]},
                    {"name": "C", "type": "FLOAT", "range": ["0.5", "1.5"]},
                ],
                "combination": "(A, B) * C",
            }
        if self.luck() < 0.25:
            made["stepEnvironments"] = [environment("Step1")]
        needs: dict[str, Any] = {}
        if self.luck() < 0.25:
            needs["amounts"] = [{"name": LIMIT, "min": chance.randint(1, 2)}]
        if self.luck() < 0.5:
            needs["amounts"] = [*needs.get("amounts", []), {"name": VCPU, "min": chance.randint(1, 2)}]
        if self.luck() < 0.15:
            needs["attributes"] = [{"name": KIND, "anyOf": ["special"]}]
        if needs:
            made["hostRequirements"] = needs
        made["script"]["actions"]["onRun"]["timeout"] = 60
        return made

    def some_job(self) -> tuple[str, Job] | None:
        """A job that can be changed."""
        alive = [(job_id, job) for job_id, job in self.recorder.jobs.items() if not job.archived]
        if not alive:
            return None
        job_id, job = self.chance.choice(alive)
        if not job.steps:
            got = self.call("get_job", **self.ids(job.queue, job_id))
            if got["lifecycleStatus"] not in MADE:
                if got["lifecycleStatus"] != "CREATE_IN_PROGRESS":
                    raise Breach(f"{job_id} is {got['lifecycleStatus']}: {got['lifecycleStatusMessage']}")
                return None
            self.recorder.known(job_id)
        return job_id, job

    def change_job(self, targets: list[str]) -> None:
        found = self.some_job()
        if found is None:
            return
        job_id, job = found
        target = self.chance.choice(targets)
        if self.luck() < 0.3:
            answer = self.call(
                "batch_update_job", jobs=[{**self.ids(job.queue, job_id), "targetTaskRunStatus": target}]
            )
            assert not answer["errors"], answer
        else:
            self.call("update_job", **self.ids(job.queue, job_id), targetTaskRunStatus=target)
        self.told(job, list(job.steps), target)
        self.recorder.note("job", (job_id, target))

    def told(self, job: Job, steps: list[str], target: str) -> None:
        for step_id in steps:
            job.steps[step_id].stopped = target not in ("READY", "PENDING")

    def change_step(self) -> None:
        found = self.some_job()
        if found is None:
            return
        job_id, job = found
        step_id = self.chance.choice(list(job.steps))
        target = self.chance.choice(["READY", "PENDING", "CANCELED", "SUSPENDED", "SUCCEEDED", "FAILED"])
        self.call("update_step", **self.ids(job.queue, job_id), stepId=step_id, targetTaskRunStatus=target)
        self.told(job, [step_id], target)
        self.recorder.note("step", (step_id, target))

    def change_tasks(self) -> None:
        found = self.some_job()
        if found is None:
            return
        job_id, job = found
        step_id = self.chance.choice(list(job.steps))
        where = {**self.ids(job.queue, job_id), "stepId": step_id}
        tasks = [each["taskId"] for each in self.pages("list_tasks", "tasks", **where)]
        target = self.chance.choice(["READY", "READY", "PENDING", "CANCELED", "SUSPENDED", "SUCCEEDED", "FAILED"])
        chosen = self.chance.sample(tasks, min(len(tasks), self.chance.randint(1, 3)))
        if len(chosen) == 1:
            try:
                self.call("update_task", **where, taskId=chosen[0], targetRunStatus=target)
            except ClientError as error:
                if error.response.get("context", {}).get("status") != "UPDATE_IN_PROGRESS":
                    raise
                self.seen["refused while changing"] += 1
                return
        else:
            items = [{**where, "taskId": each, "targetRunStatus": target} for each in chosen]
            answer = self.call("batch_update_task", tasks=items)
            refused = [each["taskId"] for each in answer["errors"]]
            assert all(each["code"] == "ConflictException" for each in answer["errors"]), answer
            chosen = [each for each in chosen if each not in refused]
        if target in ("READY", "PENDING"):
            job.steps[step_id].stopped = False
        for each in chosen:
            self.recorder.succeeded.pop((step_id, int(each.rpartition("-")[2])), None)
        self.recorder.note("tasks", (chosen, target))

    def change_numbers(self) -> None:
        found = self.some_job()
        if found is None:
            return
        job_id, job = found
        choices = {
            "priority": range(101),
            "maxWorkerCount": [-1, 1, 2, 3],
            "maxRetriesPerTask": [0, 1, 5],
            "maxFailedTasksCount": [0, 2, 20],
        }
        name = self.chance.choice(list(choices))
        value = self.chance.choice(choices[name])
        self.call("update_job", **self.ids(job.queue, job_id), **{name: value})
        job.asked[name] = value
        if name == "maxWorkerCount":
            job.served = set()

    def archive(self) -> None:
        found = self.some_job()
        if found is not None:
            job_id, job = found
            restarts = self.seen["restarts"]
            try:
                self.call("update_job", **self.ids(job.queue, job_id), lifecycleStatus="ARCHIVED")
            except ClientError as error:
                # Killed when it was done and not yet answered, it refuses the second try.
                if error.response["Error"]["Code"] != "ConflictException" or self.seen["restarts"] == restarts:
                    raise
            job.archived = True
            self.recorder.note("archive", job_id)

    def end_session(self) -> None:
        sessions = [(self.recorder.job_of(each), each) for agent in self.agents for each in agent.sessions]
        if sessions:
            job_id, session_id = self.chance.choice(sessions)
            where = self.ids(self.recorder.jobs[job_id].queue, job_id)
            self.call("update_session", **where, sessionId=session_id, targetLifecycleStatus="ENDED")
            self.recorder.broken.add(session_id)

    def change_association(self) -> None:
        pair = self.chance.choice(list(self.associations))
        wanted = self.chance.choice(
            ["ACTIVE", "ACTIVE", "STOP_SCHEDULING_AND_COMPLETE_TASKS", "STOP_SCHEDULING_AND_CANCEL_TASKS"]
        )
        queue, fleet = pair
        self.call("update_queue_fleet_association", farmId=self.farm, queueId=queue, fleetId=fleet, status=wanted)
        self.associations[pair] = wanted
        self.recorder.note("association", (pair, wanted))

    def change_limit(self) -> None:
        if self.luck() < 0.7:
            count = self.chance.choice([1, 2, 3, 4])
            self.call("update_limit", farmId=self.farm, limitId=self.limit, maxCount=count)
            self.limit_count = count
            self.recorder.note("limit", count)
        else:
            queue = self.chance.choice(self.queues)
            mode = self.chance.choice(["STOP_LIMIT_USAGE_AND_COMPLETE_TASKS", "STOP_LIMIT_USAGE_AND_CANCEL_TASKS"])
            ids = {"farmId": self.farm, "queueId": queue, "limitId": self.limit}
            self.call("update_queue_limit_association", **ids, status=mode)
            self.call("update_queue_limit_association", **ids, status="ACTIVE")

    def kill(self) -> None:
        """kill -9 the service some milliseconds from now, in the midst of what is asked then."""
        process = self.farmd.process
        threading.Timer(self.luck() * 0.03, process.kill).start()
        self.seen["kills"] += 1

    def act(self) -> None:
        """One thing that people or the world do."""
        luck = self.luck()
        agent = self.chance.choice(self.agents)
        for share, act in (
            (0.12, lambda: len(self.recorder.jobs) < self.most_jobs and self.submit()),
            (0.05, lambda: self.change_job(["CANCELED", "SUSPENDED", "FAILED", "SUCCEEDED"])),
            (0.10, lambda: self.change_job(["READY", "PENDING"])),
            (0.06, self.change_step),
            (0.10, self.change_tasks),
            (0.08, self.change_numbers),
            (0.01, self.archive),
            (0.03, self.end_session),
            (0.04, self.change_association),
            (0.04, self.change_limit),
            (0.03, lambda: agent.state == "on" and agent.crash()),
            (0.03, lambda: agent.state == "on" and self.drain(agent)),
            (self.kill_share, self.kill),
        ):
            luck -= share
            if luck < 0:
                act()
                return

    def drain(self, agent: Agent) -> None:
        try:
            self.call("update_worker", **agent.ids, status="STOPPING")
        except ClientError as error:
            # It was silent too long, and is told so.
            if error.response["Error"]["Code"] != "ConflictException":
                raise
            agent.crash()
            return
        agent.state = "stopping"

    def run(self, turns: int, most_jobs: int = 25, kill_share: float = 0.02) -> dict[str, Any]:
        """All of it. Returns what happened, in numbers. Raises: Breach."""
        self.most_jobs, self.kill_share = most_jobs, kill_share
        begun = time.monotonic()
        for turn in range(turns):
            self.act()
            if kill_share and turn == turns // 2:
                self.kill()  # once at the least, whatever the dice say
            for _ in range(2):
                self.chance.choice(self.agents).turn()
            if turn % 50 == 49:
                audit(self.farmd.dir, limits_lowered=True)
        self.calm_down()
        audit(self.farmd.dir)
        self.audit_from_outside()
        return {
            "turns": turns, "seconds": round(time.monotonic() - begun, 1), "jobs": len(self.recorder.jobs),
            "actions": len(self.recorder.runs), **self.recorder.checked, **self.seen,
        }  # fmt: skip

    def calm_down(self) -> None:
        """Let all that can be done be done."""
        self.wild = False
        for queue, fleet in self.associations:
            self.call("update_queue_fleet_association", farmId=self.farm, queueId=queue, fleetId=fleet, status="ACTIVE")
            self.associations[queue, fleet] = "ACTIVE"
        self.call("update_limit", farmId=self.farm, limitId=self.limit, maxCount=2)
        self.limit_count = 2
        self.wait_created()
        # A worker that was lost costs a job its last attempt: hence more than once.
        for _ in range(3):
            for index, (job_id, job) in enumerate(self.recorder.jobs.items()):
                if not job.archived:
                    target = "CANCELED" if index % 5 == 4 else "READY"
                    self.call("update_job", **self.ids(job.queue, job_id), targetTaskRunStatus=target)
                    self.told(self.recorder.known(job_id), list(job.steps), target)
            self.finish_all()

    def finish_all(self) -> None:
        for _ in range(400):
            busy = False
            for agent in self.agents:
                agent.turn()
                busy = busy or bool(agent.sessions or agent.pending) or agent.state != "on"
            if not busy and not self.unfinished():
                return
        raise Breach(f"work is left over: {self.unfinished()}")

    def wait_created(self) -> None:
        limit = time.monotonic() + 30
        for job_id, job in self.recorder.jobs.items():
            while (got := self.call("get_job", **self.ids(job.queue, job_id)))[
                "lifecycleStatus"
            ] == "CREATE_IN_PROGRESS":
                if time.monotonic() > limit:
                    raise Breach(f"{job_id} is never created")
                time.sleep(0.01)
            if got["lifecycleStatus"] not in (("ARCHIVED",) if job.archived else MADE):
                raise Breach(f"{job_id} is {got['lifecycleStatus']}: {got['lifecycleStatusMessage']}")

    def unfinished(self) -> list[tuple[str, str]]:
        left = []
        for job_id, job in self.recorder.jobs.items():
            got = self.call("get_job", **self.ids(job.queue, job_id))
            if got["taskRunStatus"] not in ENDED or got["lifecycleStatus"] == "UPDATE_IN_PROGRESS":
                left.append((job_id, got["taskRunStatus"]))
        return left

    # The audit from outside: the API against itself, and against what was acknowledged.

    def audit_from_outside(self) -> None:
        faults: list[str] = []

        def hold(right: bool, text: str) -> None:
            if not right:
                faults.append(text)

        there = 0
        for agent in self.agents:  # the audit before this one took its time
            agent.turn()
        for fleet in self.fleets:
            workers = self.pages("list_workers", "workers", farmId=self.farm, fleetId=fleet)
            there += len(workers)
            hold(self.call("get_fleet", farmId=self.farm, fleetId=fleet)["workerCount"] == len(workers), "workerCount")
            for each in workers:
                hold(each["status"] in ("STARTED", "IDLE"), f"{each['workerId']} is {each['status']}")
        hold(there == self.workers_made, f"{there} workers of {self.workers_made}")
        for queue in self.queues:
            listed = {each["jobId"] for each in self.pages("list_jobs", "jobs", farmId=self.farm, queueId=queue)}
            made = {job_id for job_id, job in self.recorder.jobs.items() if job.queue == queue}
            hold(listed == made, f"{queue} lists {listed - made} and not {made - listed}")
        seen_actions: set[str] = set()
        for index, (job_id, job) in enumerate(self.recorder.jobs.items()):
            seen_actions |= self.audit_job(hold, job_id, job, canceled=index % 5 == 4)
        hold(set(self.recorder.runs) == seen_actions,
             f"actions given and not shown: {set(self.recorder.runs) - seen_actions};"
             f" shown and not given: {seen_actions - set(self.recorder.runs)}")  # fmt: skip
        hold(self.call("get_limit", farmId=self.farm, limitId=self.limit)["currentCount"] == 0, "the limit leaks")
        if faults:
            raise Breach("\n".join(faults))

    def audit_job(self, hold: Any, job_id: str, job: Job, *, canceled: bool) -> set[str]:
        """Check one job; returns the ids of its session actions."""
        where = self.ids(job.queue, job_id)
        got = self.call("get_job", **where)
        for name, value in job.asked.items():
            if name != "attachments":
                hold(got[name] == value, f"{job_id}: {name} was {value} and is {got[name]}")
        total: Counter[str] = Counter()
        retries = 0
        latest: dict[str, str] = {}
        for listed in self.pages("list_steps", "steps", **where):
            counted: Counter[str] = Counter()
            for task in self.pages("list_tasks", "tasks", **where, stepId=listed["stepId"]):
                counted[task["runStatus"]] += 1
                retries += task["failureRetryCount"]
                if "latestSessionActionId" in task:
                    latest[task["taskId"]] = task["latestSessionActionId"]
                over = task["runStatus"] in ENDED
                hold(
                    ("endedAt" in task) == over, f"{task['taskId']} is {task['runStatus']}, ended: {'endedAt' in task}"
                )
                number = int(task["taskId"].rpartition("-")[2])
                if (listed["stepId"], number) in self.recorder.succeeded:
                    hold(task["runStatus"] == "SUCCEEDED", f"{task['taskId']} succeeded and is {task['runStatus']}")
            told = listed["taskRunStatusCounts"]
            hold(set(told) == set(STATUSES), f"{listed['stepId']} tells {told}")
            hold({k: v for k, v in told.items() if v} == counted, f"{listed['stepId']} tells {told}, has {counted}")
            hold(set(counted) <= set(ENDED), f"{listed['stepId']} ends with {counted}")
            total += counted
        told = {k: v for k, v in got["taskRunStatusCounts"].items() if v}
        hold(told == total, f"{job_id} tells {told}, has {total}")
        hold(got["taskFailureRetryCount"] == retries, f"{job_id} tells {got['taskFailureRetryCount']} of {retries}")
        if not job.archived and not canceled:
            hold(set(total) == {"SUCCEEDED"}, f"{job_id} was to be done and has {total}")
        return self.audit_sessions(hold, where)

    def audit_sessions(self, hold: Any, where: dict[str, str]) -> set[str]:
        runs = self.recorder.runs
        shown: set[str] = set()
        for session in self.pages("list_sessions", "sessions", **where):
            hold(session["lifecycleStatus"] == "ENDED", f"{session['sessionId']} is {session['lifecycleStatus']}")
            actions = self.pages("list_session_actions", "sessionActions", **where, sessionId=session["sessionId"])
            numbers = [int(each["sessionActionId"].rpartition("-")[2]) for each in actions]
            hold(numbers == list(range(len(numbers))), f"{session['sessionId']} has actions {numbers}")
            entered = []
            for each in actions:
                identity = each["sessionActionId"]
                shown.add(identity)
                hold(each["status"] not in OPEN, f"{identity} is {each['status']}")
                run = runs.get(identity)
                if run is not None and run.reported is not None:
                    hold(run.reported == each["status"], f"{identity} was {run.reported}, is {each['status']}")
                ((kind, body),) = each["definition"].items()
                if kind == "envEnter" and each["status"] not in ("NEVER_ATTEMPTED", "RECLAIMED"):
                    entered.append(body["environmentId"])
                elif kind == "envExit":
                    hold(bool(entered) and entered.pop() == body["environmentId"], f"{identity} exits out of order")
            worker_lost = any(each["status"] in ("RECLAIMED", "INTERRUPTED") for each in actions)
            hold(not entered or worker_lost or session["sessionId"] in self.forgotten(), f"{session} leaves {entered}")
        return shown

    def forgotten(self) -> set[str]:
        return {each for agent in self.agents_by_id.values() for each in agent.forgotten}


def soak(folder: Any, seed: int, turns: int, **more: Any) -> dict[str, Any]:
    """Run a soak over a new farm in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    most_sessions = 3 if seed % 4 > 1 else 1
    (folder / "config.json").write_text(json.dumps({"settings": {**SETTINGS, "worker_sessions": most_sessions}}))
    # Every other soak has jobs of a few tasks changed as those of very many are: see run_status.MANY.
    few = "from dl_tools.dl_farmd import changes, run_status\nrun_status.MANY = changes.MANY = 2"
    farmd = Farmd(folder, prelude=few if seed % 2 else "")
    run = SimpleNamespace(soak=None)
    try:
        run.soak = Soak(farmd, seed, most_sessions=most_sessions)
        return run.soak.run(turns, **more)
    except BaseException:
        if run.soak is not None:
            with (folder.parent / f"{folder.name}.timeline").open("w") as file:
                file.writelines(f"{at:.3f} {what} {about}\n" for at, what, about in run.soak.recorder.timeline)
        raise
    finally:
        if farmd.process is not None and farmd.process.poll() is None:
            farmd.kill()
