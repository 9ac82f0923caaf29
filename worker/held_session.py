"""A session as the scheduler holds it: its folder, its process, what was handed over and what was reported.

All of it can be read back from the folder, so a scheduler that was killed loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
from collections.abc import Iterable
from threading import Thread
from time import time
from typing import Any

from libdeadline import statuses, times
from libdeadline.errors import Trouble

from . import entities, job_environment, journal, processes, queue_role
from .folder import SessionFolder, now_text, read_json, write_json
from .service import Farm
from .transfers import tool

FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "INTERRUPTED", "NEVER_ATTEMPTED")
BAD = ("FAILED", "CANCELED", "INTERRUPTED")
STARTS = 3  # attempts to start a dl-session that dies before its first word
GONE = ".gone"  # behind the name of a folder that is being removed
UNSHIPPED_S = 600.0  # how long an ended session waits for its log to be shipped


class HeldSession:
    """One session of this worker. Only the scheduler's main thread calls it, but for `_feed`."""

    def __init__(self, folder: SessionFolder, farm: Farm) -> None:
        self.folder, self.farm = folder, farm
        self.about: dict[str, Any] = read_json(folder.file("session.json")) or {}
        self.told: dict[str, dict[str, Any]] = {}  # actions in the inbox, by id, in order
        self.offered: dict[str, dict[str, Any]] = {}  # all that the farm assigned, by id, in order
        self.cancelled: set[str] = set()
        self.reports: dict[str, dict[str, Any]] = {}  # the newest of each action
        self.acknowledged: dict[str, str] = {}
        self.is_opened = False
        self.beginnings = 0  # of dl-session, by its own word
        self.has_ended = False  # it said its last, or is dead
        self.is_stopping = False  # the worker stops
        self.is_dropped = False  # the farm doesn't list it any more
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.ended_at: float | None = None
        self._outbox = journal.Reader(folder.outbox)
        self._feed_queue: queue.SimpleQueue[list[tuple[str, dict[str, Any]]]] = queue.SimpleQueue()
        self._feeder: Thread | None = None
        journal.heal(folder.inbox)
        journal.heal(folder.reported)
        for row in journal.Reader(folder.inbox).read():
            match row["type"]:
                case "open":
                    self.is_opened = True
                case "action":
                    self.told[row["session_action_id"]] = row["definition"]
                case "cancel":
                    self.cancelled.update(row["session_action_ids"])
                case "end":
                    self.is_dropped = True
        self.offered.update(self.told)
        for row in journal.Reader(folder.reported).read():
            self.acknowledged[row["session_action_id"]] = row["key"]
        self.read()

    @property
    def session_id(self) -> str:
        return self.folder.session_id

    @property
    def queue_id(self) -> str:
        return str(self.about["queue_id"])

    @property
    def job_id(self) -> str:
        return str(self.about["job_id"])

    # The process

    def start(self) -> None:
        """Start the session's process, detached: it leads a process session of its own and needs nobody."""
        self.starts += 1
        with open(self.folder.file("dl-session.log"), "ab") as output:
            self.process = subprocess.Popen(
                [tool("dl-session"), self.folder.path],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=job_environment.scrubbed() | {"DL_PROGRESS": "none"},
                start_new_session=True,
                cwd=self.folder.path,
            )

    def look(self) -> None:
        """See what the process wrote and whether it lives; mend what its death left undone."""
        if self.has_ended:
            if not self.is_dropped and not self.is_stopping and not self.is_dry():
                processes.kill_session(self.session_id)
                self._give_up("the session's process ended before it was done")
            return
        exit_status = self.process.poll() if self.process is not None else None
        # First whether it lives, then what it said: the other way round its last words could be missed.
        is_running = self.folder.is_running()
        self.read()
        if self.has_ended or is_running or (self.process is not None and exit_status is None):
            return
        if not self.beginnings and self.starts < STARTS and not self.is_dropped:
            self.start()
            return
        how = f" (status {exit_status})" if exit_status else ""
        if exit_status is not None and exit_status < 0:
            how = f" (killed by signal {-exit_status})"
        why = f"the session's process died unexpectedly{how}"
        if self.beginnings == 1 and self.is_opened and not self.is_stopping:
            self._resume(why)
        else:
            self._bury(why)

    def _resume(self, why: str) -> None:
        """Have another process bring a session to its end whose own one died: it exits the environments."""
        processes.kill_session(self.session_id)
        for path in (self.folder.inbox, self.folder.outbox, self.folder.log):
            journal.heal(path)
        journal.append(self.folder.inbox, {"type": "resume", "message": why})
        self.start()

    def read(self) -> None:
        """Take in what dl-session has written since the last look."""
        for row in self._outbox.read():
            if row.get("type") == "session":
                self.beginnings += 1
            elif row.get("type") == "action":
                self.reports[row["session_action_id"]] = row
            elif row.get("type") == "end":
                self.has_ended = True
                self.ended_at = time()

    def _bury(self, why: str) -> None:
        """Report for a dead session what it can't report itself, and end what it left running."""
        processes.kill_session(self.session_id)
        for path in (self.folder.outbox, self.folder.log):
            journal.heal(path)
        self.folder.write_log(f"ERROR: {why}")
        self._give_up(why)
        journal.append(self.folder.outbox, {"type": "end", "tool": "dl-worker-schedule", "ok": False, "message": why})
        self.read()
        self._remove_work()

    def _give_up(self, why: str) -> None:
        """Final statuses for all that was assigned and has none: the first FAILED, exits FAILED, the rest not tried."""
        rows = []
        is_first = True
        for action_id, definition in self.offered.items():
            row = self.reports.get(action_id)
            if row is not None and row["status"] in FINAL:
                continue
            is_tried = row is not None or is_first or "envExit" in definition
            is_first = False
            now = now_text()
            new = {
                "type": "action",
                "session_action_id": action_id,
                "session_id": self.session_id,
                "status": "FAILED" if is_tried else "NEVER_ATTEMPTED",
                "progress_message": why,
            }
            if is_tried:
                new |= {"started_at": row["started_at"] if row else now, "ended_at": now}
            rows.append(new)
        if rows:
            journal.append(self.folder.outbox, *rows)
            self.read()

    def is_running(self) -> bool:
        return (self.process is not None and self.process.poll() is None) or self.folder.is_running()

    def kill(self) -> None:
        """End the process and all that it started, at once."""
        owner = read_json(self.folder.file("lock"))
        if self.folder.is_running() and owner:
            with contextlib.suppress(ProcessLookupError):
                os.kill(owner["pid"], signal.SIGKILL)
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        processes.kill_session(self.session_id)
        self._remove_work()

    def _remove_work(self) -> None:
        if not self.about.get("retain_session_dir") and self.about.get("session_dir"):
            shutil.rmtree(self.about["session_dir"], ignore_errors=True)

    # What goes to it

    def offer(self, actions: Iterable[dict[str, Any]]) -> list[str]:
        """Take the list of actions that the farm assigns now; the ids that are new."""
        listed: dict[str, dict[str, Any]] = {each["sessionActionId"]: each["definition"] for each in actions}
        new = [(action_id, definition) for action_id, definition in listed.items() if action_id not in self.offered]
        self.offered.update(new)
        if self.has_ended:
            if new:
                self._give_up("the session's process isn't there any more")
            return [action_id for action_id, _ in new]
        # What was queued and is not listed any more is not to be done.
        gone = [action_id for action_id in self.offered if action_id not in listed and action_id not in self.reports]
        if gone:
            self.folder.tell({"type": "withdraw", "session_action_ids": gone})
            for action_id in gone:
                del self.offered[action_id]
                self.told.pop(action_id, None)
        untold = [(action_id, each) for action_id, each in listed.items() if action_id not in self.told]
        untold = [(action_id, each) for action_id, each in untold if action_id not in self.reports]
        if untold:
            self.told.update(untold)
            self._feed_queue.put(untold)
            if self._feeder is None or not self._feeder.is_alive():
                self._feeder = Thread(target=self._feed, daemon=True)
                self._feeder.start()
        return [action_id for action_id, _ in new]

    def cancel(self, ids: Iterable[str]) -> None:
        """Hand a wish to cancel on, once for each action."""
        new = [action_id for action_id in ids if action_id not in self.cancelled and not self._is_final(action_id)]
        if new and not self.has_ended:
            self.cancelled.update(new)
            self.folder.tell({"type": "cancel", "session_action_ids": new})

    def drop(self) -> None:
        """The farm doesn't list the session any more: it is to end."""
        if not self.is_dropped:
            self.is_dropped = True
            if not self.has_ended:
                self.folder.tell({"type": "end"})

    def stop(self, grace_s: float, message: str) -> None:
        """The worker stops."""
        self.is_stopping = True
        if not self.has_ended:
            self.folder.tell({"type": "stop", "grace_s": grace_s, "message": message})

    def _feed(self) -> None:
        """Hand actions over in order, each once its entities are there; on its own thread, as the farm may be slow."""
        while True:
            batch = self._feed_queue.get()
            try:
                self._hand_over(batch)
            except Trouble as trouble:
                self._refuse(batch, trouble.message)
            except (OSError, KeyError, TypeError, ValueError) as error:
                self._refuse(batch, f"cannot prepare the session: {error!r}")

    def _refuse(self, batch: list[tuple[str, dict[str, Any]]], why: str) -> None:
        rows: list[dict[str, Any]] = []
        if not self.is_opened:
            self.is_opened = True
            rows.append({**self._opening(), "type": "open", "error": why})
        rows += [
            {"type": "action", "session_action_id": action_id, "definition": definition, "error": why}
            for action_id, definition in batch
        ]
        self.folder.tell(*rows)

    def _hand_over(self, batch: list[tuple[str, dict[str, Any]]]) -> None:
        if not self.is_opened and self.about.get("log_error"):
            raise Trouble(f"the session's log could not be set up: {self.about['log_error']}")
        wanted = [each for _, definition in batch for each in entities.needed(self.job_id, definition)]
        helpful = [each for _, definition in batch for each in entities.helpful(self.job_id, definition)]
        job: list[entities.Identifier] = [] if self.is_opened else [{"jobDetails": {"jobId": self.job_id}}]
        failed = entities.fetch(self.farm, self.folder, [*job, *wanted, *helpful])
        rows: list[dict[str, Any]] = []
        if not self.is_opened:
            if job and entities.key_of(job[0]) in failed:
                raise Trouble(f"the farm doesn't tell what the job is: {failed[entities.key_of(job[0])]}")
            has_attachments = any("jobAttachmentDetails" in each for each in wanted)
            rows.append(self._open(has_attachments))
            self.is_opened = True
        for action_id, definition in batch:
            if action_id not in self.offered:
                continue  # withdrawn meanwhile
            row: dict[str, Any] = {"type": "action", "session_action_id": action_id, "definition": definition}
            for each in entities.needed(self.job_id, definition):
                why = failed.get(entities.key_of(each))
                if why:
                    row["error"] = f"the farm doesn't tell what this action needs: {why}"
            rows.append(row)
        self.folder.tell(*rows)

    # Opening

    def _opening(self) -> dict[str, Any]:
        about = self.about
        return {
            "type": "open",
            **{name: about[name] for name in ("farm_id", "fleet_id", "worker_id", "queue_id", "job_id", "session_id")},
            "session_dir": about["session_dir"],
            "retain_session_dir": about["retain_session_dir"],
            "cleanup_processes": about.get("cleanup_processes", True),
            "local_log": about.get("local_log"),
            "wakes": about["wakes"],
        }

    def _open(self, has_attachments: bool) -> dict[str, Any]:
        """The open record: who the job runs as, with which credentials.

        Raises: Trouble that fails the session.
        """
        job = read_json(self.folder.entity("jobDetails")) or {}
        user = job_user(self.farm.settings, job)
        opening = self._opening()
        opening["job_user"] = user
        profile = None
        if job.get("queueRoleArn"):
            try:
                profile = queue_role.install(self.farm, self.queue_id, _group_id(user))
            except queue_role.QueueGone:
                raise
            except Trouble as trouble:
                if has_attachments:
                    raise
                self.folder.write_log(f"WARNING: no AWS credentials for this session: {trouble.message}")
        if has_attachments and not profile:
            raise Trouble(
                "the job has attachments but its queue gives no credentials to fetch them with: give the queue a role"
            )
        opening["profile"] = profile
        return opening

    # What comes from it

    def _is_final(self, action_id: str) -> bool:
        row = self.reports.get(action_id)
        return row is not None and row["status"] in FINAL

    def unreported(self) -> dict[str, dict[str, Any]]:
        """The reports that the farm doesn't have yet."""
        if self.is_dropped:
            return {}
        return {
            action_id: row for action_id, row in self.reports.items() if self.acknowledged.get(action_id) != key_of(row)
        }

    def is_urgent(self) -> bool:
        """Whether the farm should know now: something ended badly, or there is nothing left to do."""
        news = self.unreported()
        if any(row["status"] in BAD for row in news.values()):
            return True
        return any(row["status"] in FINAL for row in news.values()) and self.is_dry()

    def is_dry(self) -> bool:
        """Whether all that was assigned is done."""
        return all(self._is_final(action_id) for action_id in self.offered)

    def acknowledge(self, sent: dict[str, dict[str, Any]]) -> None:
        """The farm has these; written down before anything else happens."""
        mine = [
            {"session_action_id": action_id, "key": key_of(row)}
            for action_id, row in sent.items()
            if action_id in self.reports
        ]
        if mine:
            journal.append(self.folder.reported, *mine)
            self.acknowledged.update({row["session_action_id"]: row["key"] for row in mine})

    def is_finished(self) -> bool:
        """Whether nothing of it is needed any more."""
        if not self.is_dropped or not self.has_ended or self.is_running():
            return False
        late = self.ended_at is not None and time() - self.ended_at > UNSHIPPED_S
        return late or self.folder.is_log_shipped()

    def remove(self) -> None:
        """Remove the folder, with what a session that was killed left of its working files."""
        self._remove_work()
        # Under another name first: half of a folder that keeps its name would be taken for a session.
        gone = f"{self.folder.path}{GONE}"
        with contextlib.suppress(OSError):
            os.rename(self.folder.path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep(sessions_dir: str) -> None:
    """Remove what a scheduler that was killed left half made or half removed."""
    for name in os.listdir(sessions_dir):
        path = os.path.join(sessions_dir, name)
        if name.endswith(GONE) or not os.path.exists(os.path.join(path, "session.json")):
            shutil.rmtree(path, ignore_errors=True)


def create(
    folder: SessionFolder,
    farm: Farm,
    enrolment: dict[str, Any],
    assigned: dict[str, Any],
    wakes: list[str],
    lock: str,
) -> HeldSession:
    """Make the folder of a newly assigned session; its process is not started yet.

    `wakes` are the pipes that a session pokes when there is news; `lock` names the scheduler that it belongs to.
    """
    settings = farm.settings
    os.makedirs(folder.path, mode=0o700, exist_ok=True)
    log = assigned.get("logConfiguration") or {}
    options = log.get("options") or {}
    error = log.get("error")
    where = None
    if log.get("logDriver") != "awslogs":
        error = error or f"this worker doesn't know the log driver '{log.get('logDriver')}'"
    elif {"logGroupName", "logStreamName"} <= options.keys():
        where = {"group": options["logGroupName"], "stream": options["logStreamName"]}
    else:
        error = error or "the farm named no log group and stream"
    local_log = None
    if settings.local_session_logs and settings.logs_dir:
        local_log = os.path.join(settings.logs_dir, assigned["queueId"], f"{folder.session_id}.log")
    write_json(
        folder.file("session.json"),
        {
            "session_id": folder.session_id,
            "farm_id": settings.farm_id,
            "fleet_id": settings.fleet_id,
            "worker_id": farm.worker_id,
            "queue_id": assigned["queueId"],
            "job_id": assigned["jobId"],
            "enrolment": enrolment["enrolment"],
            "supervisor": enrolment["supervisor"],
            "scheduler_lock": lock,
            "wakes": wakes,
            "log": where,
            "log_error": error,
            "session_dir": os.path.join(settings.session_root_dir, folder.session_id),
            "retain_session_dir": settings.retain_session_dir,
            "cleanup_processes": settings.cleanup_session_user_processes,
            "local_log": local_log,
            "created_at": now_text(),
        },
    )
    return HeldSession(folder, farm)


def key_of(row: dict[str, Any]) -> str:
    """What tells one report of an action from the next.

    Source: spec worker 1.6, the comparison after a successful call.
    """
    return row["status"] if row["status"] in FINAL else f"RUNNING {row.get('updated_at')}"


def update_of(row: dict[str, Any]) -> dict[str, Any]:
    """A report as UpdateWorkerSchedule takes it.

    Source: spec worker 1.6.
    """
    fields: dict[str, Any] = {}
    for name, member in (("started_at", "startedAt"), ("ended_at", "endedAt"), ("updated_at", "updatedAt")):
        if row.get(name):
            fields[member] = times.of_text(row[name])
    if row["status"] in FINAL:
        fields["completedStatus"] = row["status"]
        fields.pop("updatedAt", None)
    if row["status"] == "NEVER_ATTEMPTED":
        for member in ("startedAt", "endedAt"):
            fields.pop(member, None)
    if row.get("process_exit_code") is not None:
        fields["processExitCode"] = row["process_exit_code"]
    if row.get("progress_percent"):
        fields["progressPercent"] = row["progress_percent"]
    if row.get("progress_message"):
        fields["progressMessage"] = row["progress_message"]
    if row.get("manifests") is not None:
        fields["manifests"] = row["manifests"]
    return fields


def job_user(settings: Any, job: dict[str, Any]) -> dict[str, str] | None:
    """The OS user that the job runs as, or None for the agent's own.

    Raises: Trouble where the queue doesn't say, or says what can't be done.
    Source: spec worker 2.5.
    """
    if settings.run_jobs_as_agent_user:
        return None
    if settings.posix_job_user:
        user, _, group = settings.posix_job_user.partition(":")
        return _other(user, group)
    run_as = job.get("jobRunAsUser")
    if not run_as:
        raise Trouble("the queue doesn't say as which user its jobs run: set jobRunAsUser", statuses.CONFIGURATION)
    if run_as.get("runAs") == "WORKER_AGENT_USER":
        return None
    posix = run_as.get("posix") or {}
    if not posix.get("user") or not posix.get("group"):
        raise Trouble("the queue's jobRunAsUser names no POSIX user and group", statuses.CONFIGURATION)
    return _other(posix["user"], posix["group"])


def _other(user: str, group: str) -> dict[str, str] | None:
    import getpass

    return None if user == getpass.getuser() else {"user": user, "group": group}


def _group_id(user: dict[str, str] | None) -> int | None:
    import grp

    if user is None:
        return None
    try:
        return grp.getgrnam(user["group"]).gr_gid
    except KeyError:
        raise Trouble(f"this host has no group '{user['group']}'", statuses.CONFIGURATION) from None
