"""dl-trace - tell how the time of a job was spent

Usage:
  dl-trace [options]

Options:
  --trace-file=<file>  Write a trace there, in the format that chrome://tracing
                       and ui.perfetto.dev show.
  --data               Print all that was read as YAML first.
  --open-ended         Accept a stream without an end record.

Reads the resource records of one job, its steps, tasks, sessions and actions:

  dl-ls --job-id=<id> job,steps,tasks,sessions,actions | dl-trace
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from libdeadline import command, jobs, statuses, times
from libdeadline.errors import Trouble
from libdeadline.records import Record, Resource

KINDS = {"taskRun": "taskRun", "envEnter": "envAction", "envExit": "envAction"}
SYNC = "syncInputJobAttachments"
COUNTED = ("session", "sessionAction", "taskRun", "envAction", "syncJobAttachments")
UNKNOWN_STEP = "<Unknown Step>"
TEMPORARY = ".part"


class Job:
    """A job with its sessions in the order of their starts, their actions, and the names of steps and tasks.

    Units: moments are datetimes; what has no end yet ends at `now`.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.data: dict[str, Any] = {}
        self.place: dict[str, str | None] = {}
        self.steps: dict[str, dict[str, Any]] = {}
        self.tasks: dict[tuple[str, str], dict[str, Any]] = {}
        self._sessions: dict[str, dict[str, Any]] = {}
        self._actions: dict[str, list[dict[str, Any]]] = {}

    def read(self, row: Resource) -> None:
        """Take in one resource."""
        data = times.moments(row.data)
        if row.resource == "job":
            self.data = data
            self.place = {"farmId": row.farm_id, "queueId": row.queue_id}
        elif row.resource == "step":
            self.steps[row.id] = data
        elif row.resource == "task":
            self.tasks[data.get("stepId", ""), row.id] = data
        elif row.resource == "session":
            self._sessions[row.id] = data
        elif row.resource == "action":
            self._actions.setdefault(jobs.session_of(row.id) or "", []).append(data)

    @property
    def started(self) -> datetime:
        """When the job started.

        Raises: Trouble (66) where it has not.
        """
        if not self.data.get("startedAt"):
            raise Trouble("there is no trace: the job has not started", statuses.NO_INPUT)
        moment: datetime = self.data["startedAt"]
        return moment

    def sessions(self) -> list[dict[str, Any]]:
        """Sessions that have started, with their `index`, `actions` and the name of their `step`."""
        started = [session for session in self._sessions.values() if session.get("startedAt")]
        started.sort(key=lambda session: session["startedAt"])
        return [
            {**session, "index": index, "step": self._step_of(session), "actions": self._actions_of(session)}
            for index, session in enumerate(started)
        ]

    def _actions_of(self, session: dict[str, Any]) -> list[dict[str, Any]]:
        actions = self._actions.get(session["sessionId"], [])
        return sorted(actions, key=lambda action: int(action["sessionActionId"].rpartition("-")[2]))

    def _step_of(self, session: dict[str, Any]) -> str:
        for action in self._actions_of(session):
            step_id = action["definition"].get("taskRun", {}).get("stepId")
            if step_id:
                return str(self.steps.get(step_id, {}).get("name") or UNKNOWN_STEP)
        return UNKNOWN_STEP

    def name_of(self, action: dict[str, Any]) -> str:
        """What an action is called in a trace."""
        kind, about = next(iter(action["definition"].items()))
        name = str(action["sessionActionId"])
        if kind == "taskRun":
            task = self.tasks.get((about.get("stepId", ""), about.get("taskId", "")), {})
            values = task.get("parameters") or about.get("parameters") or {}
            name = ",".join(f"{each}={next(iter(value.values()))}" for each, value in values.items())
            name = name or "<No Task Params>"
        elif kind in KINDS:
            name = str(about["environmentId"]).rpartition(":")[2]
        elif kind == SYNC:
            name = f"Sync Job Attchmnt ({'Dependencies' if 'stepId' in about else 'Submitted'})"
        return name if action.get("endedAt") else f"{name} - In Progress"

    def at(self, moment: datetime) -> int:
        """Microseconds from the job's start to a moment."""
        return (moment - self.started) // timedelta(microseconds=1)

    def length(self, what: dict[str, Any]) -> int:
        """Microseconds that a session or action took so far."""
        if not what.get("startedAt"):
            return 0
        return self.at(what.get("endedAt") or self.now) - self.at(what["startedAt"])


def figures(job: Job, sessions: list[dict[str, Any]]) -> dict[str, int]:
    """How many sessions and actions of each kind there were, and how long all of a kind took, in microseconds."""
    found = {f"{name}Count": 0 for name in COUNTED} | {f"{name}Duration": 0 for name in COUNTED}

    def count(name: str, what: dict[str, Any]) -> None:
        found[f"{name}Count"] += 1
        found[f"{name}Duration"] += job.length(what)

    for session in sessions:
        count("session", session)
        for action in session["actions"]:
            count("sessionAction", action)
            kind = next(iter(action["definition"]))
            if kind in KINDS:
                count(KINDS[kind], action)
            elif kind == SYNC:
                count("syncJobAttachments", action)
    return found


def events(job: Job, sessions: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the events of a trace: a process for each worker, numbered as they came to the job.

    Source: Trace Event Format, duration and complete events; client specification, job trace-schedule.
    """
    workers: dict[str, int] = {}
    for session in sessions:
        pid = workers.setdefault(session["workerId"], len(workers))
        name = f"{session['step']} - {session['index']}" + ("" if session.get("endedAt") else " - In Progress")
        event = {"name": name, "cat": "SESSION", "ph": "B", "ts": job.at(session["startedAt"]), "pid": pid, "tid": 0}
        yield event | {
            "args": {each: session.get(each) for each in ("sessionId", "workerId", "fleetId", "lifecycleStatus")}
        }
        for action in session["actions"]:
            if action.get("startedAt"):
                yield {
                    "name": job.name_of(action),
                    "cat": next(iter(action["definition"])),
                    "ph": "X",
                    "ts": job.at(action["startedAt"]),
                    "dur": job.length(action),
                    "pid": pid,
                    "tid": 0,
                    "args": {
                        "sessionActionId": action["sessionActionId"],
                        "status": action["status"],
                        "stepName": session["step"],
                    },
                }
        yield event | {"ph": "E", "ts": job.at(session.get("endedAt") or job.now)}


def summary(found: dict[str, int]) -> str:
    """The figures for a person; shares are of the time of all sessions."""
    whole = found["sessionDuration"]

    def time(microseconds: float, share: bool = True) -> str:
        text = str(timedelta(microseconds=microseconds))
        if not share:
            return text
        return f"{text} ({100 * microseconds / whole:.1f}%)" if whole else f"{text} (N/A)"

    other = found["sessionActionCount"] - found["taskRunCount"]
    other_time = found["sessionActionDuration"] - found["taskRunDuration"]
    overhead = whole - found["sessionActionDuration"]
    count = found["sessionActionCount"]
    lines = [
        f"Session Count: {found['sessionCount']}",
        f"Session Total Duration: {time(whole, share=False)}",
        f"Session Action Count: {count}",
        f"Session Action Total Duration: {time(found['sessionActionDuration'], share=False)}",
        f"Task Run Count: {found['taskRunCount']}",
        f"Task Run Total Duration: {time(found['taskRunDuration'])}",
        f"Non-Task Run Count: {other}",
        f"Non-Task Run Total Duration: {time(other_time)}",
        f"Sync Job Attachments Count: {found['syncJobAttachmentsCount']}",
        f"Sync Job Attachments Total Duration: {time(found['syncJobAttachmentsDuration'])}",
        f"Env Action Count: {found['envActionCount']}",
        f"Env Action Total Duration: {time(found['envActionDuration'])}",
        "",
        f"Within-session Overhead Duration: {time(overhead)}",
        f"Within-session Overhead Duration Per Action: {time(overhead / count, share=False) if count else 'N/A'}",
    ]
    return "\n".join(lines) + "\n"


def write(path: str, document: dict[str, Any]) -> None:
    """Write a trace whole, or not at all.

    Raises: OSError.
    """
    import json

    temporary = path + TEMPORARY
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    run.text = True
    job = Job(datetime.now(UTC))
    for row in run.input(Resource, open_ended=args["--open-ended"]):
        if isinstance(row, Resource):
            job.read(row)
    if not job.data:
        raise Trouble("there is no job in the stream: begin it with dl-ls, as dl-trace --help shows", statuses.DATA)
    job.started  # noqa: B018 - a job that has not started has no trace
    sessions = job.sessions()
    found = figures(job, sessions)
    if args["--data"]:
        from libdeadline import yaml_text

        run.print(f" ==== TRACE DATA ====\n{yaml_text.dump(job.data)}\n\n{yaml_text.dump(sessions)}\n")
    run.print(f"\n ==== SUMMARY ====\n\n{summary(found)}")
    if args["--trace-file"]:
        about = {
            **job.place,
            "jobId": job.data["jobId"],
            "jobName": job.data.get("name"),
            **{name: job.data[name].isoformat() for name in ("startedAt", "endedAt") if job.data.get(name)},
        }
        write(args["--trace-file"], {"traceEvents": list(events(job, sessions)), "otherData": {**about, **found}})
    yield from ()


def main() -> int:
    return command.run(__doc__, stage)
