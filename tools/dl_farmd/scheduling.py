"""UpdateWorkerSchedule: what workers report is written, and what they shall do next is chosen, in one transaction.

A session runs tasks of one step on one worker: it enters environments, runs tasks, exits the environments. Its
actions are rows; one that was listed to the worker stays until the worker reports it or is lost.
Source: spec/service.md sections 8 to 10.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from random import randint
from typing import Any

from . import capabilities, lookup, scaling, store
from .errors import Conflict, ResourceNotFound
from .operations import Call, Hold, operation
from .run_status import CHANGING, Ledger, finish

ONLINE = ("STARTED", "IDLE", "RUNNING", "STOPPING")
MANY_WORKERS = (16, 200)  # online in a fleet: above these, they ask less often
IDLE_S = (0, 5, 15)  # 0: at once, and the answer is held until there is work
WORKING_S = (1, 2, 5)
HOLD_S = 1.0  # short, since an agent that is told to stop waits for the answer
AHEAD_INTERVALS = 2  # how much work a worker is given at once
MAX_AHEAD = 64  # tasks
LOG_INTERVAL_S = "5"
CLOSED = ("ARCHIVED", CHANGING)  # lifecycle statuses of jobs whose READY tasks are not handed out
JOB_COLUMNS = (
    "job, job_id, farm_id, queue_id, priority, max_workers, lifecycle_status, retries, created_at,"
    " attachments IS NOT NULL AS attached"
)
SILENT_S = 60  # at least this long without a word before a worker is lost
HEARD_MS = 10_000  # how stale the time may be at which a worker was heard
HEARD_PARTS = 4  # and at most this part of the silence that loses it
SHUNNED_MS = 5000  # how long a worker leaves a job to others after a set-up that failed


@operation("UpdateWorkerSchedule")
def update_worker_schedule(call: Call) -> dict[str, Any]:
    db = call.db
    worker = lookup.worker(db, call.params)
    if worker["status"] not in ONLINE:
        raise Conflict(
            "STATUS_CONFLICT",
            "worker",
            worker["worker_id"],
            f"The worker is {worker['status']}: it has to start anew with UpdateWorker.",
            {"status": worker["status"]},
        )
    updates = call.params.get("updatedSessionActions") or {}
    ledger = Ledger(db, call.now)
    _apply(call, ledger, worker, updates)
    ledger.settle()
    readied = ledger.readied
    scheduler = Scheduler(call.farm, ledger, worker)
    scheduler.plan()
    ledger.settle()
    if readied:
        call.farm.emit("work", db, fleet_id=worker["fleet_id"])
    return _answer(call, worker, scheduler.is_surplus)


def start(farm: Any) -> None:
    """Wake idle workers when there is work for them."""

    def wake(db: sqlite3.Connection, **about: Any) -> None:
        if "fleet_id" in about:
            # What a worker makes ready or gives back is of any queue that its fleet serves.
            queues, argument = (
                "(SELECT queue_id FROM queue_fleet_associations WHERE fleet_id = ?)",
                about["fleet_id"],
            )
        else:
            queues, argument = "(?)", about["queue_id"]
        rows = db.execute(
            f"SELECT DISTINCT fleet_id FROM queue_fleet_associations WHERE queue_id IN {queues}", (argument,)
        )
        for (fleet_id,) in rows.fetchall():
            farm.after_commit(lambda fleet_id=fleet_id: farm.wake(fleet_id))

    farm.on("work", wake)
    farm.on("queue_fleet_association", lambda db, **about: wake(db, fleet_id=about["fleet_id"]))
    farm.on("fleet_changed", lambda db, **about: wake(db, fleet_id=about["fleet_id"]))


def _apply(call: Call, ledger: Ledger, worker: sqlite3.Row, updates: dict[str, dict[str, Any]]) -> None:
    found = []
    for identity, update in updates.items():
        parts = lookup.split_action_id(identity)
        session = parts and store.one(call.db, "SELECT * FROM sessions WHERE session_id = ?", parts[0])
        if not parts or not session or session["worker"] != worker["worker"]:
            raise ResourceNotFound("session-action", identity)
        found.append((session["session"], parts[1], session, update, identity))
    # In the order in which they ran: what a failure leads to depends on what stands after it.
    for number, action_number, session, update, identity in sorted(found, key=lambda each: each[:2]):
        action = _action(call.db, number, action_number)
        if action is None:
            raise ResourceNotFound("session-action", identity)
        if not action["done"]:
            if "completedStatus" in update:
                complete(ledger, session, action, update["completedStatus"], update)
            else:
                _progress(ledger, action, update)


def _action(db: sqlite3.Connection, session: int, number: int) -> sqlite3.Row | None:
    return store.one(db, "SELECT * FROM actions WHERE session = ? AND number = ?", session, number)


def _progress(ledger: Ledger, action: sqlite3.Row, update: dict[str, Any]) -> None:
    """Note that an action runs, and how far it is."""
    key = {"session": action["session"], "number": action["number"]}
    started = action["started_at"] or update.get("startedAt") or update.get("updatedAt") or ledger.now
    store.update(
        ledger.db,
        "actions",
        key,
        status="CANCELING" if action["status"] == "CANCELING" else "RUNNING",
        started_at=started,
        worker_updated_at=update.get("updatedAt", ledger.now),
        progress=update.get("progressPercent", action["progress"]),
        message=update.get("progressMessage", action["message"]),
    )
    if action["kind"] == "taskRun" and action["started_at"] is None:
        _begin(ledger, action, started)


def _begin(ledger: Ledger, action: sqlite3.Row, started: int) -> None:
    step = action["step"]
    for number in task_numbers(ledger.db, action):
        ledger.put(step, "ASSIGNED", "RUNNING", [number], columns=", started_at = ?", args=(started,))
        ledger.put(step, "INTERRUPTING", "INTERRUPTING", [number], columns=", started_at = ?", args=(started,))
    ledger.started(step, started)


def task_numbers(db: sqlite3.Connection, action: sqlite3.Row) -> list[int]:
    """The tasks that a taskRun action runs."""
    if action["task"] is not None:
        return [action["task"]]
    rows = db.execute(
        "SELECT task FROM action_tasks WHERE session = ? AND action = ? ORDER BY task",
        (action["session"], action["number"]),
    )
    return [row[0] for row in rows]


def complete(
    ledger: Ledger,
    session: sqlite3.Row,
    action: sqlite3.Row,
    status: str,
    update: dict[str, Any],
    *,
    lost: bool = False,
) -> None:
    """End an action with `status`, and let its tasks and its session follow.

    `lost` says that its worker went away without a word: that counts against a task that ran.
    """
    db, now = ledger.db, ledger.now
    number, kind = action["number"], action["kind"]
    never = status in ("NEVER_ATTEMPTED", "RECLAIMED")
    started = None if never else update.get("startedAt") or action["started_at"] or update.get("endedAt") or now
    ended = None if never else update.get("endedAt") or now
    db.execute(
        "UPDATE actions SET status = ?, done = 1, started_at = ?, ended_at = ?, worker_updated_at = ?, exit_code = ?,"
        " progress = ?, message = ?, manifests = ? WHERE session = ? AND number = ?",
        (
            status,
            started,
            ended,
            update.get("updatedAt", update.get("endedAt", action["worker_updated_at"])),
            update.get("processExitCode"),
            100.0 if status == "SUCCEEDED" and kind == "taskRun" else update.get("progressPercent", action["progress"]),
            update.get("progressMessage", action["message"]),
            update.get("manifests") or None,
            action["session"],
            number,
        ),
    )
    for hold in action["limits"] or ():
        db.execute(
            "DELETE FROM limit_holds WHERE limit_id = ? AND session = ? AND action = ?",
            (hold["limitId"], action["session"], number),
        )
    if kind == "taskRun":
        if started is not None:
            ledger.started(action["step"], started)
        counted = bool(action["charged"]) or (lost and started is not None)
        finish(ledger, action, status, started_at=started, ended_at=ended, counted=counted)
        if status == "SUCCEEDED" and started is not None and ended is not None:
            many = 1 if action["task"] is not None else len(task_numbers(db, action))
            db.execute(
                "UPDATE steps SET ran_ms = ran_ms + ?, ran_actions = ran_actions + 1, ran_tasks = ran_tasks + ?"
                " WHERE step = ?",
                (max(0, ended - started), many, action["step"]),
            )
    if status != "SUCCEEDED" and kind != "envExit":
        if not session["broken"]:
            db.execute("UPDATE sessions SET broken = 1 WHERE session = ?", (action["session"],))
        if kind != "taskRun" and (status == "FAILED" or (lost and not never)):
            # A set-up that fails would else be tried for ever: the first task that waits for it pays.
            db.execute(
                "UPDATE actions SET charged = 1 WHERE session = ?1 AND number = (SELECT min(number) FROM actions"
                " WHERE session = ?1 AND done = 0 AND kind = 'taskRun')"
                " AND NOT EXISTS (SELECT 1 FROM actions WHERE session = ?1 AND charged = 1)",
                (action["session"],),
            )


def end_sessions(ledger: Ledger, worker: sqlite3.Row, farm: Any, *, lost: bool) -> None:
    """Take back all that a worker has in hand, because it is gone.

    `lost`: without a word, which counts as a failed attempt of what ran; else it stopped or started in good order.
    """
    db = ledger.db
    for session in open_sessions(db, worker["worker"]):
        for number in [action["number"] for action in open_actions(db, session["session"])]:
            action = _action(db, session["session"], number)  # one by one: the one before it may have charged it
            assert action is not None
            ran = action["started_at"] is not None
            complete(ledger, session, action, "INTERRUPTED" if ran else "RECLAIMED", {}, lost=lost)
        end_session(farm, db, session, ledger.now)


def open_sessions(db: sqlite3.Connection, worker: int) -> list[sqlite3.Row]:
    """The sessions that a worker has in hand, oldest first."""
    sql = "SELECT * FROM sessions WHERE worker = ? AND status = 'STARTED' ORDER BY session"
    return db.execute(sql, (worker,)).fetchall()


def open_actions(db: sqlite3.Connection, session: int) -> list[sqlite3.Row]:
    """The actions of a session that are not complete, in order."""
    sql = "SELECT * FROM actions WHERE session = ? AND done = 0 ORDER BY number"
    return db.execute(sql, (session,)).fetchall()


def end_session(farm: Any, db: sqlite3.Connection, session: sqlite3.Row, now: int) -> None:
    """Close a session none of whose actions is open."""
    db.execute(
        "UPDATE sessions SET status = 'ENDED', target = NULL, ended_at = ? WHERE session = ?", (now, session["session"])
    )
    farm.emit("session_ended", db, queue_id=session["queue_id"], fleet_id=session["fleet_id"])


class Scheduler:
    """The choice of work for one worker, in one transaction."""

    def __init__(self, farm: Any, ledger: Ledger, worker: sqlite3.Row) -> None:
        self.farm, self.ledger, self.db, self.now = farm, ledger, ledger.db, ledger.now
        self.worker = worker
        self.match = capabilities.matcher(farm)
        self.is_surplus = scaling.is_surplus(farm, self.db, worker, self.now)

    def plan(self) -> None:
        """Advance the worker's sessions; if there is room for one more, open the next."""
        in_hand = [session for session in open_sessions(self.db, self.worker["worker"]) if self.advance(session)]
        if self.worker["status"] == "STOPPING" or self.is_surplus:
            return
        most = max(1, int(self.farm.settings.get("worker_sessions", 1)))
        self.ledger.settle()  # a choice reads the counts
        while len(in_hand) < most and self.open_next(in_hand):
            self.ledger.settle()
            in_hand = open_sessions(self.db, self.worker["worker"])

    def advance(self, session: sqlite3.Row) -> bool:
        """Add to a session what it shall do next. Returns whether it goes on."""
        actions = open_actions(self.db, session["session"])
        if not session["broken"] and self.worker["status"] != "STOPPING" and not self.is_surplus:
            running = sum(1 for action in actions if action["kind"] == "taskRun")
            if all(action["kind"] != "envExit" for action in actions) and self.top_up(session, running):
                return True
        if actions:
            return True
        if self.add_exits(session):
            return True
        end_session(self.farm, self.db, session, self.now)
        return False

    def add_exits(self, session: sqlite3.Row) -> bool:
        """Add the exits of all environments that the session entered, innermost first. Returns whether there are."""
        rows = self.db.execute(
            "SELECT kind, environment_id, status FROM actions WHERE session = ? AND environment_id IS NOT NULL"
            " ORDER BY number DESC",
            (session["session"],),
        ).fetchall()
        if any(row["kind"] == "envExit" for row in rows):
            return False
        entered = [row["environment_id"] for row in rows if row["status"] not in ("NEVER_ATTEMPTED", "RECLAIMED")]
        for environment_id in entered:
            self.add_action(session["session"], "envExit", environment_id=environment_id)
        return bool(entered)

    def add_action(self, session: int, kind: str, **columns: Any) -> int:
        """Append an action to a session; returns its number."""
        (number,) = self.db.execute(
            "UPDATE sessions SET next_action = next_action + 1 WHERE session = ? RETURNING next_action - 1", (session,)
        ).fetchone()
        store.insert(self.db, "actions", session=session, number=number, kind=kind, status="ASSIGNED", **columns)
        return number  # type: ignore[no-any-return]

    def top_up(self, session: sqlite3.Row, running: int) -> bool:
        """Give a session more tasks of its step, if it may have them. Returns whether it got any."""
        step = store.one(self.db, f"SELECT {lookup.STEP_COLUMNS} FROM steps WHERE step = ?", session["step"])
        job = store.one(self.db, f"SELECT {JOB_COLUMNS} FROM jobs WHERE job = ?", session["job"])
        if step is None or job is None or not step["n_ready"] or step["unresolved"]:
            return False
        if job["lifecycle_status"] in CLOSED:
            return False
        room = self.ahead(step) - running
        if room <= 0 or not self.associated(session["queue_id"]):
            return False
        queue = store.one(self.db, "SELECT * FROM queues WHERE queue_id = ?", session["queue_id"])
        if queue is None or self.is_full(job) or not self.stays(queue, job):
            return False
        return self.assign(session["session"], step, room) > 0

    def associated(self, queue_id: str) -> bool:
        """Whether the worker's fleet takes work of a queue."""
        status = store.value(
            self.db,
            "SELECT status FROM queue_fleet_associations WHERE queue_id = ? AND fleet_id = ?",
            queue_id,
            self.worker["fleet_id"],
        )
        return bool(status == "ACTIVE")

    def ahead(self, step: sqlite3.Row) -> int:
        """How many taskRuns a worker shall have in hand: some seconds' worth, and no more than its fair share.

        One each where tasks are long or unknown, so that priorities go on to count; where they take a fraction of
        the update interval one each would leave the worker idle most of the time.
        """
        chunks = step["chunks"] or {"size": 1, "target_s": 0}
        if not step["ran_actions"] or chunks["target_s"] or self.limits_of(step):
            return 1
        mean_s = step["ran_ms"] / step["ran_actions"] / 1000
        ahead_s = AHEAD_INTERVALS * _by_size(WORKING_S, self.rivals())
        wanted = min(MAX_AHEAD, int(ahead_s / max(mean_s, 0.01)))
        if wanted <= 1:
            return 1
        share = -(-step["n_ready"] // (self.rivals() * chunks["size"]))
        return max(1, min(wanted, int(share)))

    def rivals(self) -> int:
        """How many workers may want tasks now."""
        return max(1, self.match.online(self.db, self.worker["fleet_id"], self.now))

    def open_next(self, beside: list[sqlite3.Row]) -> bool:
        """Open a session with the work that is this worker's turn, `beside` those in hand. Returns whether it did.

        All sessions that a worker has at a time are of one queue, and together need no more than the worker has.
        """
        queues = self.db.execute(
            "SELECT queues.* FROM queue_fleet_associations AS pair JOIN queues USING (queue_id)"
            " WHERE pair.fleet_id = ? AND pair.status = 'ACTIVE' ORDER BY pair.created_at, queue_id",
            (self.worker["fleet_id"],),
        ).fetchall()
        if not queues:
            return False
        if beside:
            queues = [queue for queue in queues if queue["queue_id"] == beside[0]["queue_id"]]
            if not queues:
                return False
        turn = self.worker["rotation"] % len(queues)
        for offset, queue in enumerate(queues[turn:] + queues[:turn]):
            for job, step in self.candidates(queue):
                if beside and not self.has_room(step, beside):
                    return False  # smaller work, one after the other, would else keep it from the worker for ever
                if self.open_session(queue, job, step):
                    rotation = (turn + offset + 1) % len(queues)
                    if not beside and rotation != self.worker["rotation"]:
                        store.update(self.db, "workers", {"worker": self.worker["worker"]}, rotation=rotation)
                    return True
        return False

    def has_room(self, step: sqlite3.Row, beside: list[sqlite3.Row]) -> bool:
        """Whether the worker has what a step needs beside the sessions that it has in hand.

        A step that names no amount of a worker's has the worker for itself.
        """
        sql = f"SELECT {lookup.STEP_COLUMNS} FROM steps WHERE step = ?"
        steps = [step, *(store.one(self.db, sql, session["step"]) for session in beside)]
        left = {
            each["name"].lower(): each["value"] for each in (self.worker["capabilities"] or {}).get("amounts") or ()
        }
        for each in steps:
            needs = (each and each["requirements"] or {}).get("amounts") or ()
            needs = [need for need in needs if need["name"].lower() in left and need.get("min")]
            if not needs:
                return False
            for need in needs:
                left[need["name"].lower()] -= need["min"]
        return all(amount >= 0 for amount in left.values())

    def candidates(self, queue: sqlite3.Row, held: int | None = None) -> Iterator[tuple[sqlite3.Row, sqlite3.Row]]:
        """Jobs of a queue that this worker can work on, with the step, best first.

        `held` is the job that the worker has in hand now.
        """
        if queue["status"] == "SCHEDULING_BLOCKED":
            return
        for job in self.ordered(queue, held):
            if self.is_full(job) or (held is None and self.shuns(job)):
                continue
            steps = self.db.execute(
                f"SELECT {lookup.STEP_COLUMNS} FROM steps WHERE job = ? AND n_ready > 0 AND unresolved = 0"
                " ORDER BY position",
                (job["job"],),
            ).fetchall()
            for step in steps:
                if self.match.fits(self.db, queue["queue_id"], step, self.worker["fleet_id"]) and self.has_limits(step):
                    yield job, step
                    break

    def ordered(self, queue: sqlite3.Row, held: int | None) -> Iterator[sqlite3.Row]:
        """The jobs of a queue that have READY tasks, in the order of its scheduling configuration."""
        sql = (
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE queue_id = ? AND n_ready > 0"
            f" AND lifecycle_status NOT IN ({', '.join('?' * len(CLOSED))}) ORDER BY priority DESC, job"
        )
        rows = self.db.execute(sql, (queue["queue_id"], *CLOSED))
        configuration = queue["scheduling_configuration"] or {}
        if "priorityBalanced" in configuration:
            return iter(self.balanced(rows.fetchall(), self.running(queue), held, configuration["priorityBalanced"]))
        if "weightedBalanced" in configuration:
            return iter(self.weighted(rows.fetchall(), self.running(queue), held, configuration["weightedBalanced"]))
        return rows

    def running(self, queue: sqlite3.Row) -> Counter[int]:
        """How many tasks of each job of a queue run at a time: one a session, however many it was given ahead."""
        sql = "SELECT job, count(*) FROM sessions WHERE queue_id = ? AND status = 'STARTED' GROUP BY job"
        return Counter(dict(self.db.execute(sql, (queue["queue_id"],)).fetchall()))

    def balanced(
        self, jobs: list[sqlite3.Row], running: Counter[int], held: int | None, settings: dict[str, Any]
    ) -> list[sqlite3.Row]:
        """Higher priority first; among equals the job with the fewest workers, then the older."""
        spare = settings.get("renderingTaskBuffer", 1)

        def rank(job: sqlite3.Row) -> tuple[int, int, bool, int]:
            busy, here = running[job["job"]], job["job"] == held
            # The worker leaves its job only for one that has fewer running tasks by more than the buffer.
            return -job["priority"], busy - spare if here else busy, not here, job["job"]

        return sorted(jobs, key=rank)

    def weighted(
        self, jobs: list[sqlite3.Row], running: Counter[int], held: int | None, settings: dict[str, Any]
    ) -> list[sqlite3.Row]:
        """Highest weight first, of priority, failures, age and running tasks."""
        always = "maxPriorityOverride" in settings and "alwaysScheduleFirst" in settings["maxPriorityOverride"]
        never = "minPriorityOverride" in settings and "alwaysScheduleLast" in settings["minPriorityOverride"]

        def rank(job: sqlite3.Row) -> tuple[int, float, int]:
            busy = running[job["job"]] - (settings.get("renderingTaskBuffer", 1) if job["job"] == held else 0)
            weight = (
                job["priority"] * settings.get("priorityWeight", 100.0)
                + job["retries"] * settings.get("errorWeight", -10.0)
                + (self.now - job["created_at"]) / 1000 * settings.get("submissionTimeWeight", 3.0)
                + busy * settings.get("renderingTaskWeight", -100.0)
            )
            group = -1 if always and job["priority"] == 100 else 1 if never and job["priority"] == 0 else 0
            return group, -weight, job["job"]

        return sorted(jobs, key=rank)

    def stays(self, queue: sqlite3.Row, job: sqlite3.Row) -> bool:
        """Whether the job in hand is still what this worker would choose."""
        if queue["status"] == "SCHEDULING_BLOCKED":
            return False
        best = next(self.candidates(queue, job["job"]), None)
        return best is None or best[0]["job"] == job["job"]

    def is_full(self, job: sqlite3.Row) -> bool:
        """Whether a job has all the workers that it may have, this one not among them.

        Where it may have fewer than before, those that came last are too many.
        """
        if job["max_workers"] < 0:
            return False
        rows = self.db.execute(
            "SELECT worker FROM sessions WHERE job = ? AND status = 'STARTED' GROUP BY worker ORDER BY min(session)"
            " LIMIT ?",
            (job["job"], job["max_workers"]),
        ).fetchall()
        return len(rows) >= job["max_workers"] and self.worker["worker"] not in {row[0] for row in rows}

    def shuns(self, job: sqlite3.Row) -> bool:
        """Whether this worker just failed to set a session of a job up, and an idle one may do better."""
        last = store.one(
            self.db,
            "SELECT session, job, ended_at FROM sessions WHERE worker = ? ORDER BY session DESC LIMIT 1",
            self.worker["worker"],
        )
        if last is None or last["job"] != job["job"] or self.now - (last["ended_at"] or self.now) > SHUNNED_MS:
            return False
        failed = store.one(
            self.db,
            "SELECT 1 FROM actions WHERE session = ? AND kind IN ('envEnter', 'syncInputJobAttachments')"
            " AND status = 'FAILED'",
            last["session"],
        )
        other = failed and store.one(
            self.db,
            "SELECT 1 FROM workers WHERE fleet_id = ? AND worker <> ? AND status IN ('STARTED', 'IDLE')",
            self.worker["fleet_id"],
            self.worker["worker"],
        )
        return other is not None

    def limits_of(self, step: sqlite3.Row) -> list[tuple[str, int, int]]:
        """(limit id, its maximum, how much a task takes) of the limits that a step needs."""
        return self.match.limits(self.db, step)

    def has_limits(self, step: sqlite3.Row) -> bool:
        """Whether one more task of a step can get its limits now."""
        for limit_id, maximum, count in self.limits_of(step):
            if maximum >= 0:
                held = store.value(
                    self.db, "SELECT coalesce(sum(count), 0) FROM limit_holds WHERE limit_id = ?", limit_id
                )
                if held + count > maximum:
                    return False
        return True

    def open_session(self, queue: sqlite3.Row, job: sqlite3.Row, step: sqlite3.Row) -> bool:
        """Make a session for a step: what sets it up, and its first tasks."""
        session_id = self.farm.new_id("session")
        store.insert(
            self.db, "sessions", session_id=session_id, job=job["job"], step=step["step"], queue_id=queue["queue_id"],
            fleet_id=self.worker["fleet_id"], worker=self.worker["worker"], worker_id=self.worker["worker_id"],
            status="STARTED", host=self.worker["host"], started_at=self.now,
        )  # fmt: skip
        session = store.value(self.db, "SELECT last_insert_rowid()")
        attached = bool(job["attached"])
        if attached:
            self.add_action(session, "syncInputJobAttachments")
        environments = self.db.execute(
            "SELECT environment_id FROM environments WHERE job = ? AND (step IS NULL OR step = ?)"
            " ORDER BY step IS NOT NULL, position",
            (job["job"], step["step"]),
        ).fetchall()
        for (environment_id,) in environments:
            self.add_action(session, "envEnter", environment_id=environment_id)
        if attached and step["dependencies"]:
            self.add_action(session, "syncInputJobAttachments", step=step["step"])
        if not self.assign(session, step, self.ahead(step)):
            raise RuntimeError(f"step {step['step_id']} counts ready tasks and has none")
        self.farm.logs.create(log_group(job["farm_id"], queue["queue_id"]), session_id)
        return True

    def assign(self, session: int, step: sqlite3.Row, room: int) -> int:
        """Give a session up to `room` taskRuns of READY tasks, as far as their limits go. Returns how many."""
        limits = self.limits_of(step)
        given = 0
        while given < room and self.has_limits(step):
            if step["chunks"]:
                chunk = self.next_chunk(step)
                if not chunk:
                    break
                chosen = [chunk]
            else:
                rows = self.db.execute(
                    "SELECT number FROM tasks WHERE step = ? AND status = 'READY' ORDER BY attempts, number LIMIT ?",
                    (step["step"], 1 if limits else room - given),
                ).fetchall()
                if not rows:
                    break
                chosen = [[row["number"]] for row in rows]
            for numbers in chosen:
                self.add_run(session, step, numbers, limits)
            given += len(chosen)
        return given

    def add_run(self, session: int, step: sqlite3.Row, numbers: list[int], limits: list[tuple[str, int, int]]) -> None:
        """Append a taskRun of some tasks (one, or a chunk) to a session."""
        columns: dict[str, Any] = {"step": step["step"]}
        if step["chunks"]:
            columns["parameters"] = self.chunk_parameters(step, numbers)
        else:
            columns["task"] = numbers[0]
        if limits:
            columns["limits"] = [{"limitId": limit_id, "count": count} for limit_id, _, count in limits]
        action = self.add_action(session, "taskRun", **columns)
        for limit_id, _, count in limits:
            store.insert(self.db, "limit_holds", limit_id=limit_id, session=session, action=action, count=count)
        for number in numbers:
            self.db.execute(
                "INSERT INTO action_tasks (step, task, session, action) VALUES (?, ?, ?, ?)",
                (step["step"], number, session, action),
            )
        self.ledger.put(
            step["step"], "READY", "ASSIGNED", numbers, columns=", session = ?, action = ?", args=(session, action)
        )

    def next_chunk(self, step: sqlite3.Row) -> list[int]:
        """The tasks that the next action of a chunked step takes: READY, alike but for the chunked value.

        A task that failed before goes alone, so that whoever fails with it is not tried again with it.
        """
        chunks = step["chunks"]
        size = chunks["size"]
        if chunks["target_s"] and step["ran_tasks"]:
            size = int(chunks["target_s"] * 1000 / max(1.0, step["ran_ms"] / step["ran_tasks"]))
        size = max(1, min(size, -(-step["n_ready"] // self.rivals()) if chunks["target_s"] else size, 10_000))
        first = store.one(
            self.db,
            "SELECT number, attempts, chunk_group, chunk_value FROM tasks WHERE step = ? AND status = 'READY'"
            " ORDER BY attempts, number LIMIT 1",
            step["step"],
        )
        if first is None:
            return []
        numbers, value = [first["number"]], first["chunk_value"]
        if first["attempts"] or size == 1:
            return numbers
        rows = self.db.execute(
            "SELECT number, chunk_value FROM tasks WHERE step = ? AND chunk_group = ? AND chunk_value > ?"
            " AND status = 'READY' AND attempts = 0 ORDER BY chunk_value LIMIT ?",
            (step["step"], first["chunk_group"], value, size - 1),
        )
        for row in rows:
            if chunks["contiguous"] and row["chunk_value"] != value + 1:
                break
            numbers.append(row["number"])
            value = row["chunk_value"]
        return numbers

    def chunk_parameters(self, step: sqlite3.Row, numbers: list[int]) -> dict[str, Any]:
        """The parameters of a chunk: those that its tasks share, and the chunked one as a range."""
        parameters, values = None, []
        for number in numbers:
            row = store.one(
                self.db, "SELECT parameters, chunk_value FROM tasks WHERE step = ? AND number = ?", step["step"], number
            )
            assert row is not None
            parameters = parameters or row["parameters"]
            values.append(row["chunk_value"])
        assert parameters is not None
        text = f"{values[0]}-{values[-1]}" if step["chunks"]["contiguous"] else range_text(values)
        return {**parameters, step["chunks"]["parameter"]: {"chunkInt": text}}


def range_text(values: list[int]) -> str:
    """Ascending whole numbers as a range expression: 1,2,3,7 is `1-3,7`."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in parts)


def log_group(farm_id: str, owner_id: str) -> str:
    """The log group of a queue's sessions, or of a fleet's workers."""
    return f"/aws/deadline/{farm_id}/{owner_id}"


def log_configuration(group: str, stream: str) -> dict[str, Any]:
    """Where a worker sends a log. Reference agents fail without `parameters`."""
    return {
        "logDriver": "awslogs",
        "options": {"logGroupName": group, "logStreamName": stream},
        "parameters": {"interval": LOG_INTERVAL_S},
    }


def definition(db: sqlite3.Connection, action: sqlite3.Row, step_id: str | None) -> dict[str, Any]:
    """An action as workers and clients read it: an object of one key."""
    kind = action["kind"]
    if action["environment_id"] is not None:
        return {kind: {"environmentId": action["environment_id"]}}
    if kind == "syncInputJobAttachments":
        return {kind: {"stepId": step_id} if step_id else {}}
    assert step_id is not None
    if action["task"] is None:
        return {kind: {"stepId": step_id, "parameters": action["parameters"]}}
    parameters = store.one(
        db, "SELECT parameters FROM tasks WHERE step = ? AND number = ?", action["step"], action["task"]
    )
    return {
        kind: {
            "taskId": lookup.task_id(step_id, action["task"]),
            "stepId": step_id,
            "parameters": parameters["parameters"] if parameters else {},
        }
    }


def _answer(call: Call, worker: sqlite3.Row, is_surplus: bool) -> dict[str, Any]:
    db = call.db
    assigned: dict[str, Any] = {}
    canceled: dict[str, list[str]] = {}
    for session in open_sessions(db, worker["worker"]):
        job = store.one(db, "SELECT job_id, farm_id FROM jobs WHERE job = ?", session["job"])
        step_id = store.value(db, "SELECT step_id FROM steps WHERE step = ?", session["step"])
        assert job is not None
        actions = open_actions(db, session["session"])
        identity = session["session_id"]
        assigned[identity] = {
            "queueId": session["queue_id"],
            "jobId": job["job_id"],
            "sessionActions": [
                {
                    "sessionActionId": lookup.action_id(identity, action["number"]),
                    "definition": definition(db, action, step_id if action["step"] is not None else None),
                }
                for action in actions
            ],
            "logConfiguration": log_configuration(log_group(job["farm_id"], session["queue_id"]), identity),
        }
        canceling = [action for action in actions if action["status"] == "CANCELING"]
        if canceling and canceling[0]["number"] == actions[0]["number"]:
            canceling = [action for action in actions if action["kind"] != "envExit" or action["status"] == "CANCELING"]
        if canceling:
            canceled[identity] = [lookup.action_id(identity, action["number"]) for action in canceling[:100]]
    status = worker["status"]
    if status != "STOPPING":
        status = "RUNNING" if assigned else "IDLE"
    interval = _interval(call, worker, bool(assigned))
    stops = is_surplus and not assigned and status != "STOPPING"
    if (
        not interval
        and not call.held
        and not stops
        and status == worker["status"]
        and not call.params.get("updatedSessionActions")
    ):
        # Nothing to do, nothing reported, nothing changed: the answer may wait until there is work.
        raise Hold(worker["fleet_id"], call.farm.settings.get("worker_hold_s", HOLD_S))
    changed: dict[str, Any] = {}
    if status != worker["status"]:
        changed = {"status": status, "updated_at": call.now, "updated_by": call.actor}
    stale_ms = min(HEARD_MS, silence_s(call.farm) * 1000 / HEARD_PARTS)
    if changed or interval != worker["interval_s"] or call.now - (worker["heard_at"] or 0) > stale_ms:
        # Not at each call: an idle farm shall leave the disk alone.
        store.update(db, "workers", {"worker": worker["worker"]}, heard_at=call.now, interval_s=interval, **changed)
    return {
        "assignedSessions": assigned,
        "cancelSessionActions": canceled,
        # Not all at the same time: workers that were started together would else go on to call together.
        "updateIntervalSeconds": interval + randint(-(interval // 5), interval // 5),
        "desiredWorkerStatus": "STOPPED" if stops else None,
    }


def silence_s(farm: Any) -> float:
    """How long a worker may be silent at least before it is lost: a setting."""
    return float(farm.settings.get("worker_silence_s", SILENT_S))


def _interval(call: Call, worker: sqlite3.Row, busy: bool) -> int:
    """When the worker shall call again: soon on a small farm, so that small jobs start at once."""
    online = capabilities.matcher(call.farm).online(call.db, worker["fleet_id"], call.now)
    return _by_size(WORKING_S if busy else IDLE_S, online)


def _by_size(seconds: tuple[int, int, int], workers: int) -> int:
    return seconds[sum(workers > bound for bound in MANY_WORKERS)]
