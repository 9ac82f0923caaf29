"""dl-session - run the actions of one session and journal what becomes of them

Usage:
  dl-session [options] [--] <folder>

Reads what to do from <folder>/inbox.jsonl, as it grows, and writes what became of it to <folder>/outbox.jsonl;
what the actions print goes to <folder>/log.jsonl. It needs no service and no other process: whoever started it may
die and come again. Started on the folder of a dl-session that was killed, it fails the action that ran, gives up
what waited, and exits the environments that were entered.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from libdeadline import command, statuses
from libdeadline.errors import Trouble

from . import job_environment, journal, openjd_bridge, processes
from .folder import SessionFolder, Wake, is_alive, now_text, poke, process_name, read_json, take_lock, time_text
from .session_files import SessionFiles
from .session_log import LogFile
from .transfers import Cancelled, Transfer

if TYPE_CHECKING:
    from openjd.sessions import ActionStatus, Session

    from libdeadline.command import Arguments, Run

LOOK_S = 1.0  # between two looks whether anyone still wants this session
ORPHAN_S = 120.0  # how long the scheduler may be away while its supervisor lives
REPORT_S = 0.5  # between two progress reports of one action
MESSAGE_CHARACTERS = 4096
STOP_GRACE_S = 4.0
BAD = ("FAILED", "CANCELED", "INTERRUPTED")


class Action:
    """One session action: what to do, and how far it is."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.id: str = row["session_action_id"]
        self.definition: dict[str, Any] = row["definition"]
        self.kind: str
        self.detail: dict[str, Any]
        self.kind, self.detail = next(iter(self.definition.items()), ("nothing", {}))
        self.error: str | None = row.get("error")
        self.is_cancelled = False
        self.started_at: float | None = None
        self.row: dict[str, Any] = {}


class Runner:
    """Runs actions strictly in the order given; all that it decides, it decides on one thread.

    inbox ──▶ listen ─┐
    openjd callbacks ─┼─▶ events ──▶ run ──▶ outbox
    transfers ────────┘
    """

    def __init__(self, folder: SessionFolder) -> None:
        self.folder = folder
        self.events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.inbox = journal.Reader(folder.inbox)
        self.wake = Wake(folder.wake)
        self.opening: dict[str, Any] = {}
        self.job: dict[str, Any] = {}
        self.session: Session | None = None
        self.files: SessionFiles | None = None  # where the job has attachments
        self.environment: dict[str, str] = {}
        self.queue: list[Action] = []
        self.running: Action | None = None
        self.entered: list[str] = []  # environments to be exited, innermost last
        self.known: dict[str, Action] = {}  # every action that ever came in, in order
        self.past: dict[str, dict[str, Any]] = {}  # what a dl-session before this one reported
        self.is_successor = False
        self.death: str | None = None  # how that one ended
        self.to_reenter: list[str] = []  # environments that it had entered
        self.unentered: set[str] = set()
        self.is_ending = False  # an action failed: from now on only exits
        self.is_over = False  # nobody wants the session any more
        self.stop_status: str | None = None  # what running actions become when the worker stops
        self.stop_at: float | None = None
        self.transfer: Transfer | None = None
        self.row_written = False
        self.ending_message: str | None = None
        self.stop_message: str | None = None
        self.generation = 0  # callbacks of an earlier action are told apart by it
        self._reported_at = 0.0
        self._pending_report = False
        self._scheduler_seen_at = monotonic()

    # What comes in

    def run(self) -> None:
        """Work until the session is over and its environments are exited."""
        Thread(target=self._listen, daemon=True).start()
        self._read_inbox()
        if self.is_successor:
            self._settle_past()
        while not self._is_done():
            if self.running is None:
                self._start_next()
                if self._is_done():
                    break
            timeout = REPORT_S if self._pending_report else LOOK_S
            try:
                event = self.events.get(timeout=timeout)
            except queue.Empty:
                self._look_around()
            else:
                self._take(event)
            self._report_late()

    def _is_done(self) -> bool:
        return self.is_over and self.running is None and not self.entered and not self.to_reenter

    def _listen(self) -> None:
        while True:
            self.wake.wait(None)
            self.events.put(("inbox",))

    def _take(self, event: tuple[Any, ...]) -> None:
        match event:
            case ("inbox",):
                self._read_inbox()
            case ("status", generation, status) if generation == self.generation:
                self._take_status(status)
            case ("transferred", generation, outcome) if generation == self.generation:
                outcome()
            case ("progress", generation, percent, message) if generation == self.generation:
                self._progress(percent, message)
            case ("stop", grace_s, reason):
                self._stop(grace_s, reason)

    def _read_inbox(self) -> None:
        for row in self.inbox.read():
            match row.get("type"):
                case "open":
                    self._open(row)
                case "action":
                    if row["session_action_id"] not in self.known:
                        action = self.known[row["session_action_id"]] = Action(row)
                        self.queue.append(action)
                case "cancel":
                    self._cancel(row["session_action_ids"], row.get("message"))
                case "withdraw":
                    gone = set(row["session_action_ids"])
                    self.queue = [action for action in self.queue if action.id not in gone]
                case "resume":
                    self.death = row["message"]
                case "stop":
                    self._stop(row.get("grace_s", STOP_GRACE_S), row.get("message") or "the worker stops")
                case "end":
                    self._end()

    def _look_around(self) -> None:
        """End the session once there is nobody left who could end it."""
        about = read_json(self.folder.file("session.json")) or {}
        owner = about.get("scheduler_lock")
        if owner is None or self.is_over:
            return
        now = monotonic()
        if is_alive(read_json(owner)):
            self._scheduler_seen_at = now
            return
        supervisor = about.get("supervisor")
        patience_s = ORPHAN_S if supervisor is None or is_alive(supervisor) else 2 * LOOK_S
        if now - self._scheduler_seen_at > patience_s:
            self.say("The worker that this session belongs to is gone: the session ends.")
            self._stop(STOP_GRACE_S, "the worker is gone")

    # After a death

    def take_over(self, rows: list[dict[str, Any]]) -> None:
        """Go on for a dl-session that was killed, by what it wrote into the outbox."""
        self.is_successor = True
        self.past = {row["session_action_id"]: row for row in rows if row.get("type") == "action"}

    def _settle_past(self) -> None:
        """Fail what ran; from now on only environments are exited, those that were entered."""
        why = self.death or "the session's process died unexpectedly"
        entered: list[str] = []
        for action in self.known.values():
            row = self.past.get(action.id)
            if row is None or row["status"] == "NEVER_ATTEMPTED":
                continue
            if row["status"] == "RUNNING":
                self._write({**row, "status": "FAILED", "ended_at": now_text(), "progress_message": why})
            identity = action.detail.get("environmentId", "")
            if action.kind == "envEnter":
                entered.append(identity)
            elif action.kind == "envExit" and identity in entered:
                entered.remove(identity)
        self.queue = [action for action in self.queue if action.id not in self.past]
        self.to_reenter = entered
        self.is_ending, self.ending_message, self.row_written = True, why, True
        self.say(f"ERROR: {why}; from now on environments are only exited")

    def _reenter(self) -> None:
        """Have an environment entered as far as openjd knows, without doing again what its enter did."""
        identity = self.to_reenter.pop(0)
        action = self._start_own({"envEnter": {"environmentId": identity}})
        try:
            entity = self._needed("environmentDetails", identity)
            script = entity["template"].get("script")
            if script:
                script["actions"] = {**script["actions"], "onEnter": {"command": "true"}}
            self._enter(action, entity)
        except Exception as error:  # of whatever library: then it can't be exited either
            self.say(f"ERROR: cannot exit the environment '{identity}': {error}")
            self.running = None

    # Opening

    def _open(self, row: dict[str, Any]) -> None:
        if self.opening:
            return
        self.opening = row
        self.job = read_json(self.folder.entity("jobDetails")) or {}
        try:
            self._open_session()
        except Trouble as trouble:
            self._refuse(trouble.message)
        except Exception as error:  # of whatever library: the session can't run, and says why
            self._refuse(f"cannot set up the session: {error!r}")

    def _open_session(self) -> None:
        from openjd.sessions import LOG, PosixSessionUser, Session

        settings = self.job.get("jobAttachmentSettings")
        session_dir = self.opening["session_dir"]
        os.makedirs(session_dir, mode=0o700, exist_ok=True)
        user = None
        if self.opening.get("job_user"):
            user = PosixSessionUser(self.opening["job_user"]["user"], group=self.opening["job_user"]["group"])
            shutil.chown(session_dir, group=user.group)
            os.chmod(session_dir, 0o750)
        LOG.addHandler(LogFile(self.folder.log, self.opening.get("local_log")))
        LOG.propagate = False
        self.environment = job_environment.of_session(self.opening, settings)
        rules = list(self.job.get("pathMappingRules") or ())
        attachments = read_json(self.folder.entity("jobAttachmentDetails"))
        if attachments is not None:
            # Folders are chosen before the session is made: it takes its path mapping rules once.
            manifests = attachments["attachments"]["manifests"]
            self.files = SessionFiles(self.folder, self.opening, self.job, manifests, self.environment, self.say)
            known = {rule["sourcePath"] for rule in rules}
            rules += [rule for rule in self.files.rules if rule["sourcePath"] not in known]
        # What processes of this session inherit must be clean before the first one starts.
        clean = job_environment.scrubbed()
        os.environ.clear()
        os.environ.update(clean)
        # The clean environment is inherited by same-user processes; with another user only these variables arrive.
        self.session = Session(
            session_id=self.folder.session_id,
            job_parameter_values=openjd_bridge.parameter_values(self.job.get("parameters")),
            path_mapping_rules=openjd_bridge.path_mapping_rules(rules),
            retain_working_dir=bool(self.opening.get("retain_session_dir")),
            user=user,
            callback=self._on_status,
            os_env_vars=self.environment,
            session_root_directory=Path(session_dir),
            revision_extensions=openjd_bridge.session_extensions(self.job.get("extensions")),
        )

    def _refuse(self, why: str) -> None:
        """The session can't run: the first action says why, the rest is never attempted."""
        self.say(f"ERROR: {why}")
        self.opening["error"] = why

    # Order

    def _start_next(self) -> None:
        """Start the next action that is to run; give those before it their final status."""
        while self.running is None:
            if self.is_over:
                self._abandon_queue()
            if self.to_reenter:
                if not self.opening and not self.is_over:
                    return
                if self.session is None or self._is_late():
                    self.to_reenter.clear()
                else:
                    self._reenter()
                continue
            if self.is_over:
                if self.entered and self._exit_locally():
                    continue
                return
            if not self.queue or not self.opening:
                return
            action = self.queue.pop(0)
            if self.opening.get("error"):
                is_first = not self.row_written
                is_tried = is_first or action.kind == "envExit"
                self._finish_unstarted(action, "FAILED" if is_tried else "NEVER_ATTEMPTED", self.opening["error"])
            elif action.is_cancelled and action.kind != "envExit":
                self._finish_unstarted(action, "NEVER_ATTEMPTED" if self.row_written else "CANCELED", None)
            elif self.is_ending and action.kind != "envExit":
                self._finish_unstarted(action, "NEVER_ATTEMPTED", self.ending_message)
            elif action.kind == "envExit" and action.detail.get("environmentId") in self.unentered:
                self._finish_unstarted(action, "NEVER_ATTEMPTED", "its environment was never entered")
            else:
                self._begin(action)

    def _abandon_queue(self) -> None:
        for action in self.queue:
            if self.stop_status:
                self._finish_unstarted(action, "NEVER_ATTEMPTED", None)
        self.queue = []

    def _begin(self, action: Action) -> None:
        self.running = action
        self.generation += 1
        action.started_at = _now()
        self._pending_report = False
        self._reported_at = 0.0
        try:
            if action.error:
                raise Trouble(action.error)
            match action.kind:
                case "envEnter":
                    self._enter(action)
                case "envExit":
                    self._exit(action)
                case "taskRun":
                    self._run_task(action)
                case "syncInputJobAttachments":
                    self._sync(action)
                case _:
                    raise Trouble(f"this worker doesn't know how to do '{action.kind}': a newer worker may")
        except Trouble as trouble:
            self._fail_start(action, trouble.message)
        except Exception as error:  # of whatever library: the action fails, and says why
            self._fail_start(action, f"cannot start: {error}")

    def _fail_start(self, action: Action, message: str) -> None:
        if self.running is action:
            self.say(f"ERROR: {message}")
            self.generation += 1
            self._finish("FAILED", message=message)

    # Actions

    def _enter(self, action: Action, entity: dict[str, Any] | None = None) -> None:
        identity = action.detail["environmentId"]
        entity = entity or self._needed("environmentDetails", identity)
        environment = openjd_bridge.environment_template(entity)
        table = openjd_bridge.symbol_table(entity)
        assert self.session is not None
        self.session.enter_environment(
            environment=environment,
            identifier=identity,
            os_env_vars={"DEADLINE_SESSIONACTION_ID": action.id},
            step_name=self._step_name(identity),
            resolved_symtab=table,
        )
        self._note_entered(identity)

    def _note_entered(self, identity: str) -> None:
        assert self.session is not None
        if identity in self.session.environments_entered and identity not in self.entered:
            self.entered.append(identity)

    def _step_name(self, environment_id: str) -> str | None:
        if not environment_id.startswith("STEP:"):
            return None
        step = read_json(self.folder.entity("stepDetails", environment_id.split(":")[1])) or {}
        name = step.get("template", {}).get("name")
        return str(name) if name else None

    def _exit(self, action: Action) -> None:
        identity = action.detail["environmentId"]
        if identity not in self.entered:
            raise Trouble(f"the environment '{identity}' isn't entered in this session")
        if self.entered[-1] != identity:
            raise Trouble(f"'{identity}' isn't the innermost environment: '{self.entered[-1]}' is to be exited first")
        self._start_exit(identity, {"DEADLINE_SESSIONACTION_ID": action.id})

    def _start_exit(self, identity: str, variables: dict[str, str]) -> None:
        table = None
        with contextlib.suppress(Trouble):  # teardown happens whatever the table is
            table = openjd_bridge.symbol_table(read_json(self.folder.entity("environmentDetails", identity)))
        assert self.session is not None
        self.entered.remove(identity)
        self.session.exit_environment(
            identifier=identity,
            os_env_vars=variables,
            keep_session_running=not (self.is_ending or self.is_over),
            resolved_symtab=table,
        )

    def _run_task(self, action: Action) -> None:
        entity = self._needed("stepDetails", action.detail["stepId"])
        step = openjd_bridge.step_template(entity)
        parameters = openjd_bridge.parameter_values(action.detail.get("parameters"))
        assert self.session is not None
        self.session.run_task(
            step_script=step.script,
            task_parameter_values=parameters,
            os_env_vars=self._task_variables(action),
            step_name=step.name,
            resolved_symtab=openjd_bridge.symbol_table(entity),
        )

    def _task_variables(self, action: Action) -> dict[str, str]:
        variables = {"DEADLINE_SESSIONACTION_ID": action.id, "DEADLINE_STEP_ID": action.detail["stepId"]}
        if action.detail.get("taskId"):
            variables["DEADLINE_TASK_ID"] = action.detail["taskId"]
        return variables

    def _needed(self, kind: str, identity: str) -> dict[str, Any]:
        entity = read_json(self.folder.entity(kind, identity))
        if entity is None:
            raise Trouble(f"the farm did not tell what '{identity}' is")
        return entity

    # Attachments

    def _sync(self, action: Action) -> None:
        files = self.files
        if files is None:
            raise Trouble("the job has no attachments to sync")
        step_id = action.detail.get("stepId")
        dependencies = (self._needed("stepDetails", step_id).get("dependencies") or []) if step_id else None
        generation = self.generation

        def progress(percent: float | None, message: str | None) -> None:
            self.events.put(("progress", generation, percent, message))

        self._transfer(
            lambda transfer: files.sync(transfer, dependencies, progress), lambda nothing: self._finish("SUCCEEDED")
        )

    def _store_outputs(self, files: SessionFiles, action: Action, done: Callable[[list[dict[str, str]]], None]) -> None:
        ids = {"step": action.detail["stepId"]}
        if action.detail.get("taskId"):
            ids["task"] = action.detail["taskId"]
        started_at = action.started_at or _now()
        variables = self._task_variables(action)
        self._transfer(lambda transfer: files.store(transfer, action.id, started_at, ids, variables), done)

    def _transfer(self, work: Callable[[Transfer], Any], done: Callable[[Any], None]) -> None:
        generation = self.generation
        self.transfer = transfer = Transfer()

        def go() -> None:
            try:
                value = work(transfer)
            except Cancelled:
                outcome = lambda: self._finish("CANCELED")  # noqa: E731
            except Trouble as trouble:
                message = trouble.message
                self.say(f"ERROR: {message}")
                outcome = lambda: self._finish("FAILED", message=message)  # noqa: E731
            except Exception as error:
                # Whatever it is: without an outcome the action would seem to run for ever.
                text = f"cannot transfer files: {error!r}"
                self.say(f"ERROR: {text}")
                outcome = lambda: self._finish("FAILED", message=text)  # noqa: E731
            else:
                outcome = lambda: done(value)  # noqa: E731
            self.events.put(("transferred", generation, outcome))

        self._start_report()
        Thread(target=go, daemon=True).start()

    # Status of the running action

    def _on_status(self, session_id: str, status: ActionStatus) -> None:
        # On whatever thread openjd likes, and while it reads the job's output: only hand over.
        self.events.put(("status", self.generation, status))

    def _take_status(self, status: ActionStatus) -> None:
        from openjd.sessions import ActionState

        action = self.running
        if action is None:
            return
        if action.kind == "envEnter":
            self._note_entered(action.detail["environmentId"])
        if status.state == ActionState.RUNNING:
            message = status.fail_message or status.status_message
            if not action.row:
                self._start_report()
            self._progress(status.progress, message)
            return
        outcome = {
            ActionState.SUCCESS: "SUCCEEDED",
            ActionState.CANCELED: "CANCELED",
            ActionState.TIMEOUT: "FAILED",
        }.get(status.state, "FAILED")
        message = status.fail_message or status.status_message
        if status.state == ActionState.TIMEOUT:
            message = f"TIMEOUT: {message or 'the action ran longer than its template allows'}"
        elif outcome == "FAILED" and not message and status.exit_code is None:
            message = "the action could not be started; the session's log says why"
        if outcome == "SUCCEEDED" and action.kind == "taskRun" and self.files and self.is_over:
            outcome = "CANCELED"  # there is no time left to store what it made, so it must run again
        elif outcome == "SUCCEEDED" and action.kind == "taskRun" and self.files:
            # The task is done only once its outputs are stored.
            self.generation += 1
            exit_code, percent = status.exit_code, status.progress
            self._store_outputs(
                self.files,
                action,
                lambda manifests: self._finish(
                    "SUCCEEDED", exit_code=exit_code, message=message, percent=percent, manifests=manifests
                ),
            )
            return
        manifests: list[dict[str, str]] | None = [] if outcome == "SUCCEEDED" and action.kind == "taskRun" else None
        self._finish(outcome, exit_code=status.exit_code, message=message, percent=status.progress, manifests=manifests)

    def _start_report(self) -> None:
        action = self.running
        assert action is not None and action.started_at is not None
        if action.row:
            return
        action.row = {
            "type": "action",
            "session_action_id": action.id,
            "session_id": self.folder.session_id,
            "status": "RUNNING",
            "started_at": time_text(action.started_at),
        }
        self._reported_at = monotonic()
        self._write({**action.row, "updated_at": now_text()})

    def _progress(self, percent: float | None, message: str | None) -> None:
        action = self.running
        if action is None or not action.row or not action.id:
            return
        before = (action.row.get("progress_percent"), action.row.get("progress_message"))
        if percent is not None:
            action.row["progress_percent"] = min(100.0, max(0.0, percent))
        if message:
            action.row["progress_message"] = message[:MESSAGE_CHARACTERS]
        if before != (action.row.get("progress_percent"), action.row.get("progress_message")):
            self._pending_report = True
            self._report_late()

    def _report_late(self) -> None:
        action = self.running
        if self._pending_report and action is not None and monotonic() - self._reported_at >= REPORT_S:
            self._pending_report = False
            self._reported_at = monotonic()
            self._write({**action.row, "updated_at": now_text()})

    def _finish(
        self,
        status: str,
        *,
        exit_code: int | None = None,
        message: str | None = None,
        percent: float | None = None,
        manifests: list[dict[str, str]] | None = None,
    ) -> None:
        """Give the running action its final status, and see what that means for those behind it."""
        action = self.running
        assert action is not None and action.started_at is not None
        if self.stop_status and status in ("CANCELED", "FAILED"):
            status, message = self.stop_status, message or self.stop_message
        row = action.row or {
            "type": "action",
            "session_action_id": action.id,
            "session_id": self.folder.session_id,
            "started_at": time_text(action.started_at),
        }
        row["status"] = status
        row["ended_at"] = now_text()
        if exit_code is not None:
            row["process_exit_code"] = _signed_32(exit_code)
        if percent is not None:
            row["progress_percent"] = min(100.0, max(0.0, percent))
        if message:
            row["progress_message"] = message[:MESSAGE_CHARACTERS]
        if manifests is not None and status == "SUCCEEDED":
            row["manifests"] = manifests
        self.running = None
        self.transfer = None
        self._pending_report = False
        if action.id:
            self._write(row)
        if status in BAD and action.kind != "envExit":
            self.is_ending = True
            self.ending_message = f"{action.id} ended {status}"

    def _finish_unstarted(self, action: Action, status: str, message: str | None) -> None:
        row: dict[str, Any] = {
            "type": "action",
            "session_action_id": action.id,
            "session_id": self.folder.session_id,
            "status": status,
        }
        if status != "NEVER_ATTEMPTED":
            row["started_at"] = row["ended_at"] = now_text()
        if message:
            row["progress_message"] = message[:MESSAGE_CHARACTERS]
        if action.kind == "envEnter" and status == "NEVER_ATTEMPTED":
            self.unentered.add(action.detail["environmentId"])
        self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        self.row_written = True
        journal.append(self.folder.outbox, row)
        self._poke()

    def _poke(self) -> None:
        for path in self.opening.get("wakes") or ():
            poke(path)

    # Ending

    def _cancel(self, ids: list[str], message: str | None) -> None:
        wanted = set(ids)
        for action in self.queue:
            if action.id in wanted:
                action.is_cancelled = True
        if self.running is not None and self.running.id in wanted:
            self.say(f"Canceling the running action: {message or 'the farm asked for it'}")
            self._cancel_running(None)

    def _cancel_running(self, limit_s: float | None) -> None:
        if self.transfer is not None:
            self.transfer.cancel()
            return
        limit = None if limit_s is None else timedelta(seconds=max(0.0, limit_s))
        assert self.session is not None
        with contextlib.suppress(RuntimeError):  # it ended by itself in this moment: its status is on its way
            self.session.cancel_action(time_limit=limit)

    def _stop(self, grace_s: float, message: str) -> None:
        """The worker stops: interrupt what runs, give up what waits, exit environments as far as the time allows."""
        until = monotonic() + grace_s
        self.stop_at = min(self.stop_at or until, until)
        self.stop_status, self.stop_message = "INTERRUPTED", message
        self.is_over = self.is_ending = True
        if self.running is not None:
            self.say(f"Interrupting the running action: {message}")
            self._cancel_running(max(0.0, self.stop_at - monotonic() - 1))

    def _end(self) -> None:
        """The farm dropped the session: cancel what runs, exit what is entered, and go."""
        self.is_over = True
        if self.running is not None:
            self.say("Canceling the running action: the farm ended the session")
            self.is_ending = True
            self._cancel_running(0)

    def _exit_locally(self) -> bool:
        """Start to exit the innermost environment on nobody's order; whether something was started."""
        if self._is_late():
            self.entered.clear()
            return False
        identity = self.entered[-1]
        self._start_own({"envExit": {"environmentId": identity}})
        try:
            self._start_exit(identity, {})
        except (RuntimeError, ValueError) as error:
            self.say(f"ERROR: cannot exit the environment '{identity}': {error}")
            self.running = None
        return True

    def _is_late(self) -> bool:
        return self.stop_at is not None and monotonic() >= self.stop_at

    def _start_own(self, definition: dict[str, Any]) -> Action:
        """Make an action that nobody ordered the running one; it is not reported."""
        self.running = action = Action({"session_action_id": "", "definition": definition})
        action.started_at = _now()
        action.row = {"type": "action", "status": "RUNNING"}
        self.generation += 1
        return action

    def close(self, *, ok: bool) -> None:
        """End what the job left running, remove the session's working files, and journal that it is over."""
        if self.opening.get("cleanup_processes", True):
            count = processes.kill_session(self.folder.session_id)
            if count:
                self.say(f"Ended {count} processes that the job left running")
        if self.session is not None:
            with contextlib.suppress(RuntimeError, OSError):
                self.session.cleanup()
            if not self.opening.get("retain_session_dir"):
                shutil.rmtree(self.opening["session_dir"], ignore_errors=True)
        journal.append(self.folder.outbox, {"type": "end", "tool": "dl-session", "ok": ok})
        self._poke()

    def say(self, message: str) -> None:
        self.folder.write_log(message)


def _now() -> float:
    from time import time

    return int(time() * 1000) / 1000


def _signed_32(code: int) -> int:
    return (code + (1 << 31)) % (1 << 32) - (1 << 31)


def main_of(args: Arguments, run: Run) -> int:
    folder = SessionFolder(os.path.abspath(args["<folder>"]))
    if not os.path.isdir(folder.path):
        raise Trouble(f"no session folder '{folder.path}'", statuses.NO_INPUT, path=folder.path)
    lock = take_lock(folder.file("lock"))
    if lock is None:
        raise Trouble(f"another dl-session has '{folder.path}'", statuses.TRY_AGAIN, path=folder.path)
    import orjson

    os.ftruncate(lock, 0)
    os.write(lock, orjson.dumps(process_name(os.getpid())))
    journal.heal(folder.outbox)
    journal.heal(folder.log)
    past = journal.Reader(folder.outbox).read()
    if any(row.get("type") == "end" for row in past):
        raise Trouble(f"the session '{folder.session_id}' is over", statuses.DATA)
    journal.append(folder.outbox, {"type": "session", "session_id": folder.session_id, "started_at": now_text()})
    runner = Runner(folder)
    if past:
        runner.take_over(past)

    def on_signal(number: int, frame: Any) -> None:
        runner.events.put(("stop", STOP_GRACE_S, f"dl-session got signal {number}"))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    # openjd takes half a second to load: do it while the scheduler still asks the farm what the job is.
    Thread(target=_load_openjd, daemon=True).start()
    is_whole = False
    try:
        runner.run()
        is_whole = True
    finally:
        runner.close(ok=is_whole)
    return statuses.OK


def _load_openjd() -> None:
    import openjd.model.v2023_09
    import openjd.sessions  # noqa: F401


def main() -> int:
    return command.call(__doc__, main_of)
