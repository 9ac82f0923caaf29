"""dl-worker-schedule - take this worker's schedule, hand its actions to sessions and report what becomes of them

Usage:
  dl-worker-schedule [options]

Options:
  --dir=<dir>    State folder of the worker. Default: $DL_WORKER_DIR, else
                 $DEADLINE_WORKER_PERSISTENCE_DIR, else /var/lib/deadline.
  --config=<file>
                 Configuration; by default worker.toml in the state folder, else
                 /etc/amazon/deadline/worker.toml.
  --grace=<s>    Time that sessions get when the worker is told to stop [default: 4].

Waits until dl-worker-enroll has made the worker STARTED. Killed and started again it goes on where it was: sessions
run on without it, and what they did meanwhile is reported. SIGTERM stops the worker: actions are interrupted, the
last reports sent, the worker is STOPPED, and no process of a session is left.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from libdeadline import command, statuses
from libdeadline.errors import Trouble

from . import enrolment, held_session, processes, queue_role, service, settings, supervision
from .folder import Folder, Wake, poke, read_json
from .held_session import HeldSession
from .service import Farm

if TYPE_CHECKING:
    from libdeadline.command import Arguments, Run

TICK_S = 1.0  # between two looks at running sessions that nobody poked about
ENROLMENT_S = 1.0
FIRST_INTERVAL_S = 5.0
STOPPED_HEARTBEAT_S = 30.0  # once the farm has asked for STOPPED
EXPEDITED_S = 10.0  # a drain shorter than this reports before the sessions have ended
REPORT_WAIT_S = 1.0  # how long such a drain waits for sessions to say how their actions ended
STATUS_S = 5.0  # longest that telling the farm STOPPING or STOPPED may take


class Drain(BaseException):
    """A signal asked the worker to stop while a call was under way."""


class Scheduler:
    """The loop: report and ask, hand over, look, wait until there is something to do."""

    def __init__(self, folder: Folder, known: settings.Settings, run: Run, grace_s: float) -> None:
        self.folder, self.known, self.run, self.grace_s = folder, known, run, grace_s
        self.wake = Wake(folder.wake("schedule"))
        self.sessions: dict[str, HeldSession] = {}
        self.enrolment: dict[str, Any] = {}
        self.farm: Farm
        self.interval_s = FIRST_INTERVAL_S
        self.attempt = 0
        self.is_draining = False
        self.is_stopping = False  # the farm asked for STOPPED
        self.signal_number = 0
        self._is_interruptible = False

    # Signals

    def take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda number, frame: self.wake.poke())

    def _on_signal(self, number: int, frame: Any) -> None:
        self.is_draining, self.signal_number = True, number
        self.wake.poke()
        if self._is_interruptible:
            self._is_interruptible = False
            raise Drain

    def _call(self, work: Callable[[], Any]) -> Any:
        """Do `work`, which a signal may break off.

        Raises: Drain; what `work` raises.
        """
        if self.is_draining:
            raise Drain
        self._is_interruptible = True
        try:
            return work()
        finally:
            self._is_interruptible = False

    # The loop

    def serve(self) -> None:
        """Be the worker until told to stop.

        Raises: Trouble where the farm refuses the worker for good.
        """
        try:
            if not self._await_enrolment():
                return
            self._attach()
            due = monotonic()
            while not self.is_draining:
                if monotonic() >= due or (self.attempt == 0 and self._is_urgent()):
                    due = monotonic() + self._exchange()
                timeout = max(0.0, due - monotonic())
                self.wake.wait(min(timeout, TICK_S) if self.sessions else timeout)
                self._look()
                if supervision.is_gone(self.enrolment):
                    self.is_draining = True
        except Drain:
            pass
        self._drain()

    def _await_enrolment(self) -> bool:
        while not self.is_draining:
            now = self.folder.enrolment()
            if enrolment.is_current(now):
                assert now is not None
                self._adopt(now)
                return True
            self.wake.wait(ENROLMENT_S)
        return False

    def _adopt(self, now: dict[str, Any]) -> None:
        self.enrolment = now
        self.farm = Farm(self.folder, self.known, now["worker_id"])

    def _attach(self) -> None:
        """Take up the sessions that stand in the folder: those of this enrolment, and the remains of earlier ones."""
        held_session.sweep(self.folder.file("sessions"))
        for folder in self.folder.sessions():
            held = HeldSession(folder, self.farm)
            if held.about.get("enrolment") == self.enrolment["enrolment"]:
                self.sessions[held.session_id] = held
                held.look()
                if not held.has_ended:
                    self._tell("Session", "Info", "attached to the running session", held)
            else:
                self._bury(held)

    def _bury(self, held: HeldSession) -> None:
        """End a session that the farm knows nothing of any more; its folder goes once its log is shipped."""
        held.is_stopping = True
        held.drop()
        held.kill()
        held.look()
        held.has_ended = True
        self.sessions[held.session_id] = held

    def _is_urgent(self) -> bool:
        return any(held.is_urgent() for held in self.sessions.values())

    def _look(self) -> None:
        for session_id, held in list(self.sessions.items()):
            seen = {action_id: row["status"] for action_id, row in held.reports.items()}
            held.look()
            for action_id, row in held.reports.items():
                if seen.get(action_id) != row["status"]:
                    self._tell_action(held, action_id, row)
            if held.is_finished():
                del self.sessions[session_id]
                held.remove()
                self._tell("Session", "Complete", "the session is over", held)
        self._forget_queues()

    def _forget_queues(self) -> None:
        used = {held.queue_id for held in self.sessions.values()}
        for queue_id in os.listdir(self.folder.file("queues")):
            if queue_id not in used:
                queue_role.remove(self.folder, queue_id)

    # Report and ask

    def _exchange(self) -> float:
        """Send what is new and take what comes; how long until the next time at the latest.

        Raises: Trouble where the farm refuses the worker for good; Drain.
        """
        sent = self._reports()
        try:
            answer = self._call(lambda: self._send(sent))
        except Trouble as trouble:
            return self._after(trouble)
        self.attempt = 0
        for held in self.sessions.values():
            held.acknowledge({action_id: row for action_id, row in sent.items() if action_id in held.reports})
        self._take(answer)
        return self.interval_s

    def _reports(self) -> dict[str, dict[str, Any]]:
        return {action_id: row for held in self.sessions.values() for action_id, row in held.unreported().items()}

    def _send(self, reports: dict[str, dict[str, Any]], timeout_s: float = service.CALL_S) -> dict[str, Any]:
        updates = {action_id: held_session.update_of(row) for action_id, row in reports.items()}
        return self.farm.call("UpdateWorkerSchedule", timeout_s=timeout_s, updatedSessionActions=updates)

    def _after(self, trouble: Trouble) -> float:
        """What a failed exchange means: wait and try again, or start anew.

        Raises: Trouble if neither helps.
        """
        worker_id = self.farm.worker_id
        if service.is_passing(trouble):
            delay = service.backoff_s(self.attempt, service.retry_after_s(trouble))
            if self.attempt in (0, 5) or self.attempt % 20 == 0:
                self.run.warn(f"{trouble.message}; trying again")
            self.attempt += 1
            return delay
        if service.is_expired(trouble) and self.attempt < 5:
            self.attempt += 1
            with suppress(Trouble):
                self._call(lambda: enrolment.assume_fleet_role(self.farm, sleep))
                self.farm = Farm(self.folder, self.known, worker_id)
            return service.backoff_s(self.attempt)
        is_offline = service.conflict(trouble, worker_id) is not None
        if not is_offline and not service.is_missing(trouble):
            self.folder.tell_log("Worker", "Status", trouble.message, level="ERROR", worker_id=worker_id)
            enrolment.note_stopped(self.folder, "REFUSED")
            self._kill_all()
            raise trouble
        # The farm took this worker for lost, or deleted it: what runs here runs for nobody.
        self.run.warn(f"{trouble.message}; enrolling again")
        self._kill_all()
        enrolment.note_stopped(self.folder, "OFFLINE")
        if not is_offline:
            self.folder.write_worker()
        self._adopt(self._call(lambda: enrolment.enrol(self.folder, self.known)))
        self.attempt = 0
        return 0.0

    def _take(self, answer: dict[str, Any]) -> None:
        self.interval_s = max(0.1, float(answer["updateIntervalSeconds"]))
        assigned: dict[str, Any] = answer.get("assignedSessions") or {}
        for session_id, held in self.sessions.items():
            if session_id not in assigned and not held.is_dropped:
                held.drop()
                self._tell("Session", "Info", "the farm ended the session", held)
        for session_id, each in assigned.items():
            known = self.sessions.get(session_id)
            if known is None:
                if self.is_stopping:
                    continue
                known = self._begin(session_id, each)
                if known is None:
                    continue
            if not known.is_dropped:
                new = known.offer(each.get("sessionActions") or ())
                if new:
                    self._tell("Session", "Add", f"{len(new)} actions", known, action_ids=new)
        for session_id, ids in (answer.get("cancelSessionActions") or {}).items():
            wanted = self.sessions.get(session_id)
            if wanted is not None:
                wanted.cancel(ids)
        if answer.get("desiredWorkerStatus") == "STOPPED" and not self.is_stopping:
            self.is_stopping = True
            enrolment.set_status(self.farm, "STOPPING", STATUS_S)
        if self.is_stopping:
            self.interval_s = STOPPED_HEARTBEAT_S
            self._shut_down()

    def _begin(self, session_id: str, assigned: dict[str, Any]) -> HeldSession | None:
        if not re.fullmatch(r"session-[0-9a-f]{32}", session_id):
            self.run.warn(f"not a session id: '{session_id}'")
            return None
        held = held_session.create(
            self.folder.session(session_id),
            self.farm,
            self.enrolment,
            assigned,
            [self.folder.wake("schedule"), self.folder.wake("logs")],
            self.folder.file("run", "schedule.lock"),
        )
        self.sessions[session_id] = held
        # Started before it has anything to do: it loads its libraries while the farm is asked what the job is.
        held.start()
        poke(self.folder.wake("logs"))
        self._tell("Session", "Starting", "starting the session", held)
        return held

    def _shut_down(self) -> None:
        if self.known.no_shutdown:
            return
        with suppress(OSError):
            subprocess.Popen(["sudo", "-n", "shutdown", "now"], stdin=subprocess.DEVNULL, start_new_session=True)

    # The end

    def _drain(self) -> None:
        """Stop the worker: interrupt, report, STOPPED, and leave no process of a session."""
        wish = read_json(self.folder.file("run", "drain.json")) or {}
        with suppress(FileNotFoundError):
            os.unlink(self.folder.file("run", "drain.json"))
        grace_s = float(wish.get("grace_s") or self.grace_s)
        message = wish.get("message") or f"the worker was told to stop (signal {self.signal_number})"
        until = monotonic() + grace_s
        is_enrolled = bool(self.enrolment)
        is_busy = any(not held.has_ended for held in self.sessions.values())
        for held in self.sessions.values():
            held.stop(max(1.0, grace_s - 1), message)
        if is_enrolled and is_busy:
            enrolment.set_status(self.farm, "STOPPING", min(1.0, grace_s / 10))
        is_expedited = grace_s < EXPEDITED_S
        self._wait(min(until, monotonic() + REPORT_WAIT_S) if is_expedited else until - STATUS_S, self._is_final)
        if is_enrolled:
            self._report_last(message)
            enrolment.set_status(self.farm, "STOPPED", STATUS_S)
            enrolment.note_stopped(self.folder)
        self._wait(until, lambda: not any(held.is_running() for held in self.sessions.values()))
        self._kill_all()

    def _is_final(self) -> bool:
        return all(held.has_ended or held.is_dry() for held in self.sessions.values())

    def _wait(self, until: float, done: Callable[[], bool]) -> None:
        while True:
            for held in self.sessions.values():
                held.look()
            left = until - monotonic()
            if done() or left <= 0:
                return
            self.wake.wait(min(left, 0.1))

    def _report_last(self, message: str) -> None:
        """Tell the farm how every action ended; for those that no session told of, INTERRUPTED or never attempted."""
        from .folder import now_text

        reports = self._reports()
        for held in self.sessions.values():
            if held.is_dropped:
                continue
            for action_id in held.offered:
                row = held.reports.get(action_id)
                if row is not None and row["status"] in held_session.FINAL:
                    continue
                if row is None:
                    reports[action_id] = {"status": "NEVER_ATTEMPTED"}
                else:
                    reports[action_id] = {
                        **row,
                        "status": "INTERRUPTED",
                        "ended_at": now_text(),
                        "progress_message": message,
                    }
        if not reports:
            return
        until = monotonic() + STATUS_S
        with suppress(Trouble):
            # The answer is not looked at: a worker that stops begins nothing.
            service.persist(
                lambda: self._send(reports, timeout_s=STATUS_S),
                sleep,
                lambda trouble: service.is_passing(trouble) and monotonic() < until,
            )
            for held in self.sessions.values():
                held.acknowledge(reports)

    def _kill_all(self) -> None:
        """End what is left of every session, and give up what the farm will not ask for any more."""
        for held in self.sessions.values():
            held.is_stopping = True
            if held.is_running():
                held.stop(1.0, "the worker is no longer the farm's")
        until = monotonic() + 2
        self._wait(until, lambda: not any(held.is_running() for held in self.sessions.values()))
        for held in self.sessions.values():
            if held.is_running() or processes.of_session(held.session_id):
                held.kill()
            held.look()
            held.is_dropped = held.has_ended = True

    def _tell(self, type_: str, subtype: str, message: str, held: HeldSession, **fields: Any) -> None:
        ids = {"session_id": held.session_id, "queue_id": held.queue_id, "job_id": held.job_id}
        self.folder.tell_log(type_, subtype, message, **ids, **fields)

    def _tell_action(self, held: HeldSession, action_id: str, row: dict[str, Any]) -> None:
        is_final = row["status"] in held_session.FINAL
        kind = next(iter(held.offered.get(action_id) or {"": None}))
        self._tell(
            "Action",
            "End" if is_final else "Start",
            f"{kind} {row['status']}",
            held,
            action_id=action_id,
            kind=LOG_KINDS.get(kind, kind),
            status=row["status"] if is_final else None,
        )


LOG_KINDS = {
    "envEnter": "EnvEnter",
    "envExit": "EnvExit",
    "taskRun": "TaskRun",
    "syncInputJobAttachments": "JobAttachSyncInput",
}


def main_of(args: Arguments, run: Run) -> int:
    grace_s = args.seconds("--grace") or 0.0
    known = settings.read(args["--dir"], args["--config"])
    folder = Folder(known.state_dir).prepare()
    os.makedirs(known.session_root_dir, mode=0o755, exist_ok=True)
    held = folder.lock("schedule")
    scheduler = Scheduler(folder, known, run, grace_s)
    scheduler.take_signals()
    supervision.end_with_supervisor()
    try:
        scheduler.serve()
    finally:
        os.close(held)
    return statuses.OK


def main() -> int:
    return command.call(__doc__, main_of)
