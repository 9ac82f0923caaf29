"""Run statuses: what happens to tasks, and how steps and jobs follow, in one transaction.

All changes of a task's status go through a `Ledger`: it writes the tasks, gathers how many went from which status to
which, and `settle` then brings counts, derived statuses, dependencies and failure limits to where they belong.
Source: spec/service.md section 7.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

STATUSES = (
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
)
COLUMNS = {status: f"n_{status.lower()}" for status in STATUSES}
BEGUN = ("ASSIGNED", "STARTING", "SCHEDULED", "RUNNING")  # a worker knows of it
WAITING = ("PENDING", "READY")
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "NOT_COMPATIBLE")
MANY = 5000  # tasks: more than these change in batches, between which requests are served; see `defer`
CHANGING = "UPDATE_IN_PROGRESS"  # lifecycle status of a job or step some of whose tasks wait for a change
ALIGN = "ALIGN"  # a deferred change: tasks that wait become READY or PENDING, as their step waits or not
_ACTIVE_FIRST = ("RUNNING", "INTERRUPTING", "STARTING", "SCHEDULED", "ASSIGNED", "READY")
_PARKED_FIRST = ("SUSPENDED", "NOT_COMPATIBLE", "FAILED", "CANCELED", "SUCCEEDED")

_COUNTS = ", ".join(COLUMNS.values())


def counts(row: sqlite3.Row) -> dict[str, int]:
    """`taskRunStatusCounts` of a step or job row: all twelve, zeros too, since clients index it directly."""
    return {status: row[column] for status, column in COLUMNS.items()}


def step_status(n: dict[str, int]) -> str:
    """The status of a step by its tasks' counts: what is most alive, else what went worst."""
    for status in (*_ACTIVE_FIRST, "PENDING", *_PARKED_FIRST):
        if n[status]:
            return status
    return "SUCCEEDED"


def job_status(n: dict[str, int]) -> str:
    """The status of a job by its tasks' counts.

    PENDING counts as active only beside something active: tasks that wait for a step which failed would else keep
    the job, and whoever waits for it, alive for ever.
    """
    for status in _ACTIVE_FIRST:
        if n[status]:
            return status
    for status in _PARKED_FIRST[:-1]:
        if n[status]:
            return status
    return "PENDING" if n["PENDING"] else "SUCCEEDED"


class Ledger:
    """The changes of tasks in one transaction. Use it, then `settle` it, before the transaction ends."""

    def __init__(self, db: sqlite3.Connection, now: int, actor: str | None = None) -> None:
        self.db, self.now, self.actor = db, now, actor
        self._moves: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))  # step -> status -> how many
        self._retries: dict[int, int] = defaultdict(int)
        self._starts: dict[int, int] = {}
        self._jobs: dict[int, bool] = {}  # to look at even if no task changes: whether their failures are too many
        self.readied = False  # whether tasks became READY: others may want to know

    def moved(self, step: int, old: str, new: str, how_many: int = 1) -> None:
        """Count tasks whose status was already written."""
        if old != new and how_many:
            self.readied |= new == "READY"
            self._moves[step][old] -= how_many
            self._moves[step][new] += how_many

    def retried(self, step: int, how_many: int) -> None:
        """Count failed attempts (negative: forgotten ones)."""
        self._retries[step] += how_many

    def started(self, step: int, at: int) -> None:
        """Note that a task of `step` began."""
        self._starts[step] = min(at, self._starts.get(step, at))

    def look_at(self, job: int, *, failures: bool = False) -> None:
        """Have `settle` look at a job even if no task of it changes; with `failures`, whether they are too many."""
        self._jobs[job] = failures or self._jobs.get(job, False)

    def put(
        self,
        step: int,
        old: str,
        new: str,
        numbers: Sequence[int] | None = None,
        *,
        columns: str = "",
        args: Sequence[Any] = (),
    ) -> int:
        """Put the tasks of `step` that are in status `old` (of those `numbers`) into `new`. Returns how many.

        `columns` is more SQL for the SET clause, with its `args`.
        """
        sql = (
            "UPDATE tasks SET status = ?, updated_at = ?, updated_by = coalesce(?, updated_by)"
            f"{columns} WHERE step = ? AND status = ?"
        )
        values = (new, self.now, self.actor, *args, step, old)
        if numbers is None:
            done = self.db.execute(sql, values).rowcount
        else:
            done = 0
            for number in numbers:
                done += self.db.execute(sql + " AND number = ?", (*values, number)).rowcount
        self.moved(step, old, new, done)
        return done

    def put_some(
        self, step: int, old: str, new: str, limit: int, *, columns: str = "", args: Sequence[Any] = ()
    ) -> tuple[int, int]:
        """As `put`, for the first `limit` tasks by number. Returns how many, and the attempts that they had."""
        last, attempts, found = self.db.execute(
            "SELECT max(number), coalesce(sum(attempts), 0), count(*) FROM"
            " (SELECT number, attempts FROM tasks WHERE step = ? AND status = ? ORDER BY number LIMIT ?)",
            (step, old, limit),
        ).fetchone()
        if found:
            self.db.execute(
                "UPDATE tasks SET status = ?, updated_at = ?, updated_by = coalesce(?, updated_by)"
                f"{columns} WHERE step = ? AND status = ? AND number <= ?",
                (new, self.now, self.actor, *args, step, old, last),
            )
            self.moved(step, old, new, found)
        return found, attempts

    def look_at_step(self, step: int) -> None:
        """Have `settle` look at a step even if no task of it changes."""
        self._moves[step]

    def settle(self) -> None:
        """Bring counts, statuses, times, dependencies and failure limits in line with the tasks."""
        while self._moves or self._retries or self._starts or self._jobs:
            moves, self._moves = self._moves, defaultdict(lambda: defaultdict(int))
            retries, self._retries = self._retries, defaultdict(int)
            starts, self._starts = self._starts, {}
            jobs: dict[int, tuple[dict[str, int], int, int | None]] = {}
            for step in {**moves, **retries, **starts}:
                delta = {status: n for status, n in moves.get(step, {}).items() if n}
                job = self._settle_step(step, delta, retries.get(step, 0), starts.get(step))
                total, failed, begun = jobs.get(job, ({}, 0, None))
                for status, n in delta.items():
                    total[status] = total.get(status, 0) + n
                start = starts.get(step)
                begun = start if begun is None else begun if start is None else min(begun, start)
                jobs[job] = (total, failed + retries.get(step, 0), begun)
            again, self._jobs = self._jobs, {}
            for job in again:
                jobs.setdefault(job, ({}, 0, None))
            for job, (total, failed, begun) in jobs.items():
                self._settle_job(job, total, failed, begun, again.get(job, False))

    def _settle_step(self, step: int, delta: dict[str, int], retries: int, start: int | None) -> int:
        row = self._add("steps", "step", step, delta, retries, start)
        n = counts(row)
        status, was = step_status(n), row["status"]
        target = row["target"] if n["INTERRUPTING"] or row["lifecycle_status"] == CHANGING else None
        if status != was or target != row["target"] or (row["ended_at"] is None) != (status not in ENDED):
            self.db.execute(
                "UPDATE steps SET status = ?, target = ?, ended_at = ? WHERE step = ?",
                (status, target, (row["ended_at"] or self.now) if status in ENDED else None, step),
            )
        if (status == "SUCCEEDED") != (was == "SUCCEEDED"):
            self._tell_consumers(step, -1 if status == "SUCCEEDED" else 1)
        return row["job"]  # type: ignore[no-any-return]

    def _tell_consumers(self, step: int, change: int) -> None:
        consumers = self.db.execute("SELECT consumer FROM step_edges WHERE dependency = ?", (step,)).fetchall()
        for (consumer,) in consumers:
            row = self.db.execute(
                "UPDATE steps SET unresolved = unresolved + ? WHERE step = ?"
                " RETURNING job, unresolved, n_pending, n_ready",
                (change, consumer),
            ).fetchone()
            if change > 0 and row["unresolved"] == 1:
                self._recall(consumer)
            if row["unresolved"] == (0 if change < 0 else 1):
                if row["n_pending"] + row["n_ready"] > MANY:
                    defer(self, row["job"], consumer, ALIGN)
                elif change < 0:
                    self.put(consumer, "PENDING", "READY")
                else:
                    self.put(consumer, "READY", "PENDING")

    def _recall(self, step: int) -> None:
        """Take back the tasks of a step that waits again which a worker has been given and has not begun."""
        rows = self.db.execute("SELECT number FROM tasks WHERE step = ? AND status = 'ASSIGNED'", (step,)).fetchall()
        numbers = [row[0] for row in rows]
        self.put(step, "ASSIGNED", "INTERRUPTING", numbers)
        cancel_actions(self.db, step, numbers)

    def _settle_job(
        self, job: int, delta: dict[str, int], retries: int, start: int | None, check_failures: bool
    ) -> None:
        row = self._add("jobs", "job", job, delta, retries, start)
        n = counts(row)
        status = job_status(n)
        target = row["target"] if n["INTERRUPTING"] or row["lifecycle_status"] == CHANGING else None
        if status != row["status"] or target != row["target"] or (row["ended_at"] is None) != (status not in ENDED):
            self.db.execute(
                "UPDATE jobs SET status = ?, target = ?, ended_at = ? WHERE job = ?",
                (status, target, (row["ended_at"] or self.now) if status in ENDED else None, job),
            )
        unfinished = sum(n[each] for each in (*WAITING, *BEGUN))
        # Only a new failure stops the job: a task requeued by hand may try again whatever the others did.
        if (
            n["FAILED"] > row["max_failed"]
            and unfinished
            and (delta.get("FAILED", 0) > 0 or check_failures)
            and row["lifecycle_status"] != CHANGING
        ):
            many = n["READY"] + n["PENDING"] > MANY
            for (step,) in self.db.execute("SELECT step FROM steps WHERE job = ?", (job,)).fetchall():
                stop(self, step, "FAILED", only=BEGUN if many else (*WAITING, *BEGUN))
            if many:
                defer(self, job, None, "FAILED", waiting=True)

    def _add(
        self, table: str, key: str, number: int, delta: dict[str, int], retries: int, start: int | None
    ) -> sqlite3.Row:
        sets = [f"{COLUMNS[status]} = {COLUMNS[status]} + ?" for status in delta]
        values: list[Any] = list(delta.values())
        if retries:
            sets.append("retries = retries + ?")
            values.append(retries)
        if start is not None:
            sets.append("started_at = coalesce(started_at, ?)")
            values.append(start)
        more = "job, lifecycle_status, status" if table == "steps" else "max_failed, lifecycle_status, status"
        wanted = f"{more}, target, ended_at, {_COUNTS}"
        if sets:
            sql = f"UPDATE {table} SET {', '.join(sets)} WHERE {key} = ? RETURNING {wanted}"
        else:
            sql = f"SELECT {wanted} FROM {table} WHERE {key} = ?"
        return self.db.execute(sql, (*values, number)).fetchone()  # type: ignore[no-any-return]


# What a mark applies to besides tasks that are not finished.
MARKED: dict[str, tuple[str, ...]] = {
    "SUCCEEDED": ("SUSPENDED", "NOT_COMPATIBLE", "FAILED", "CANCELED"),
    "FAILED": ("SUSPENDED", "NOT_COMPATIBLE"),
    "CANCELED": ("SUSPENDED", "NOT_COMPATIBLE"),
    "SUSPENDED": (),
}
REQUEUED = ("CANCELED", "FAILED", "SUSPENDED", "NOT_COMPATIBLE")  # what runs anew when a job or step is to be READY
STOPPED = ", target = NULL, ended_at = ?"
FORGOTTEN = ", target = NULL, attempts = 0, started_at = NULL, ended_at = NULL"


def is_many(row: sqlite3.Row, target: str) -> bool:
    """Whether so many tasks of a job or step row change on the way to a target that it is done in batches."""
    moving = REQUEUED if target in WAITING else (*WAITING, *MARKED[target])
    return bool(sum(row[COLUMNS[status]] for status in moving) > MANY)


def defer(ledger: Ledger, job: int, step: int | None, target: str, *, waiting: bool = False) -> None:
    """Leave it to changes.py to bring the tasks of a job (or of one step) to a target, batch by batch.

    It is a row of the table `changes`, so it goes on after a stop of the service. Nothing of the job is handed out
    meanwhile, bar for ALIGN. A later change of the same tasks takes the place of an earlier one. `waiting` narrows
    to tasks that wait. Those that are begun are the caller's affair.
    """
    db = ledger.db
    if target == ALIGN:
        db.execute("DELETE FROM changes WHERE step = ? AND target = ?", (step, ALIGN))
    else:
        db.execute(
            "DELETE FROM changes WHERE job = ?1 AND (?2 IS NULL OR step = ?2) AND target <> ?3", (job, step, ALIGN)
        )
        db.execute(
            "UPDATE jobs SET lifecycle_status = ?, lifecycle_message = 'The tasks are being changed.'"
            " WHERE job = ? AND lifecycle_status <> 'ARCHIVED'",
            (CHANGING, job),
        )
        if step is not None:
            db.execute("UPDATE steps SET lifecycle_status = ? WHERE step = ?", (CHANGING, step))
    db.execute(
        "INSERT INTO changes (job, step, target, waiting, actor) VALUES (?, ?, ?, ?, ?)",
        (job, step, target, waiting, ledger.actor),
    )


def move_some(ledger: Ledger, step: sqlite3.Row, target: str, waiting: bool, limit: int) -> int:
    """Bring up to `limit` tasks of a step row that no worker has in hand to a deferred target. Returns how many."""
    aligned = "PENDING" if step["unresolved"] else "READY"
    columns, new = STOPPED, target
    args: tuple[Any, ...] = (None if target == "SUSPENDED" else ledger.now,)
    if target == ALIGN:
        columns, args, new = "", (), aligned
        olds: tuple[str, ...] = WAITING
    elif target in WAITING:
        columns, args, new = FORGOTTEN, (), aligned
        olds = REQUEUED
    else:
        olds = WAITING if waiting else (*WAITING, *MARKED[target])
    done = 0
    for old in olds:
        if old != new and step[COLUMNS[old]] and done < limit:
            found, attempts = ledger.put_some(step["step"], old, new, limit - done, columns=columns, args=args)
            done += found
            if target in WAITING:
                ledger.retried(step["step"], -attempts)
    return done


def stop(
    ledger: Ledger,
    step: int,
    target: str,
    numbers: Sequence[int] | None = None,
    *,
    only: Iterable[str] | None = None,
) -> None:
    """Bring tasks of `step` (all, or those `numbers`) to `target`: SUSPENDED, CANCELED, FAILED or SUCCEEDED.

    Those that no worker knows of change at once; those begun become INTERRUPTING, keep the target and take it when
    the worker reports. `only` narrows to tasks in these statuses.
    """
    finished = MARKED[target]
    if numbers is not None and target in ("FAILED", "CANCELED"):
        finished = ("SUSPENDED", "NOT_COMPATIBLE", "FAILED", "CANCELED", "SUCCEEDED")
    allowed = None if only is None else set(only)
    for status in (*WAITING, *finished):
        if status != target and (allowed is None or status in allowed):
            ended = None if target == "SUSPENDED" else ledger.now
            ledger.put(step, status, target, numbers, columns=STOPPED, args=(ended,))
    interrupted = 0
    for status in (*BEGUN, "INTERRUPTING"):
        if allowed is None or status in allowed:
            interrupted += ledger.put(step, status, "INTERRUPTING", numbers, columns=", target = ?", args=(target,))
    if interrupted:
        cancel_actions(ledger.db, step, numbers)


def cancel_actions(db: sqlite3.Connection, step: int, numbers: Sequence[int] | None) -> None:
    """Mark for cancelling the open actions that run tasks of `step` (all, or those `numbers`).

    A session whose last task goes that way is stopped whole: what still sets it up would be for nothing.
    """
    if numbers is None:
        rows = db.execute("SELECT session FROM sessions WHERE step = ? AND status = 'STARTED'", (step,)).fetchall()
        for (session,) in rows:
            cancel_session(db, session)
        return
    sessions = set()
    for number in numbers:
        found = db.execute(
            "SELECT session, action FROM tasks WHERE step = ? AND number = ? AND session IS NOT NULL", (step, number)
        ).fetchone()
        if found is not None:
            sessions.add(found[0])
            db.execute(
                "UPDATE actions SET status = 'CANCELING' WHERE session = ? AND number = ? AND done = 0", tuple(found)
            )
    for session in sessions:
        left = db.execute(
            "SELECT 1 FROM actions WHERE session = ? AND done = 0 AND kind = 'taskRun' AND status <> 'CANCELING'",
            (session,),
        ).fetchone()
        if left is None:
            cancel_session(db, session)


def cancel_session(db: sqlite3.Connection, session: int) -> None:
    """Mark all open actions of a session for cancelling, but for the exits of environments."""
    db.execute(
        "UPDATE actions SET status = 'CANCELING' WHERE session = ? AND done = 0 AND kind <> 'envExit'", (session,)
    )
    db.execute("UPDATE sessions SET broken = 1 WHERE session = ?", (session,))


def requeue(ledger: Ledger, step: int, numbers: Sequence[int] | None = None) -> None:
    """Have tasks of `step` (all but the succeeded, or those `numbers`) run anew: READY, or PENDING if the step waits.

    Finished and parked tasks forget their attempts and times. A task that is being stopped, or asked for by number
    while it runs, is requeued once its worker reports.
    """
    unresolved = ledger.db.execute("SELECT unresolved FROM steps WHERE step = ?", (step,)).fetchone()[0]
    new = "PENDING" if unresolved else "READY"
    statuses = [*REQUEUED]
    if numbers is not None:
        statuses.append("SUCCEEDED")
    for status in statuses:
        forgotten = _attempts(ledger.db, step, status, numbers)
        ledger.put(step, status, new, numbers, columns=FORGOTTEN)
        ledger.retried(step, -forgotten)
    ledger.put(step, "INTERRUPTING", "INTERRUPTING", numbers, columns=", target = 'READY'")
    if numbers is not None and ledger.put(step, "RUNNING", "INTERRUPTING", numbers, columns=", target = 'READY'"):
        cancel_actions(ledger.db, step, numbers)


def _attempts(db: sqlite3.Connection, step: int, status: str, numbers: Sequence[int] | None) -> int:
    sql = "SELECT coalesce(sum(attempts), 0) FROM tasks WHERE step = ? AND status = ?"
    if numbers is None:
        return db.execute(sql, (step, status)).fetchone()[0]  # type: ignore[no-any-return]
    return sum(db.execute(sql + " AND number = ?", (step, status, number)).fetchone()[0] for number in numbers)


def outcome(
    completed: str, *, status: str, target: str | None, attempts: int, max_retries: int, counted: bool
) -> tuple[str, int]:
    """(the task's next status, its failed attempts) after its action ended `completed`.

    READY stands for "READY or PENDING, as the step waits". `counted` says that an end which is no failure of the
    task counts as one: its session's set-up failed on its account, or its worker was lost while it ran.
    """
    if completed == "SUCCEEDED":
        return "SUCCEEDED", attempts
    if status == "INTERRUPTING" and target is not None:
        return ("READY", 0) if target in ("READY", "PENDING") else (target, attempts)
    if completed == "FAILED" or counted:
        attempts += 1
        return ("FAILED" if attempts > max_retries else "READY"), attempts
    return "READY", attempts


def finish(
    ledger: Ledger, action: sqlite3.Row, completed: str, *, started_at: int | None, ended_at: int | None, counted: bool
) -> None:
    """Let the tasks of a taskRun action that ended `completed` take their next status."""
    db, step = ledger.db, action["step"]
    numbers = [action["task"]]
    if action["task"] is None:
        rows = db.execute(
            "SELECT task FROM action_tasks WHERE session = ? AND action = ?", (action["session"], action["number"])
        ).fetchall()
        numbers = [row[0] for row in rows]
    max_retries, unresolved = db.execute(
        "SELECT jobs.max_retries, steps.unresolved FROM steps JOIN jobs USING (job) WHERE step = ?", (step,)
    ).fetchone()
    for number in numbers:
        task = db.execute(
            "SELECT status, target, attempts, session, action FROM tasks WHERE step = ? AND number = ?", (step, number)
        ).fetchone()
        if (task["session"], task["action"]) != (action["session"], action["number"]) or task["status"] not in (
            *BEGUN,
            "INTERRUPTING",
        ):
            continue  # the task went another way meanwhile
        new, attempts = outcome(
            completed,
            status=task["status"],
            target=task["target"],
            attempts=task["attempts"],
            max_retries=max_retries,
            counted=counted,
        )
        if new == "READY" and unresolved:
            new = "PENDING"
        over = new in ENDED
        db.execute(
            "UPDATE tasks SET status = ?, target = NULL, attempts = ?, started_at = ?, ended_at = ?, updated_at = ?"
            " WHERE step = ? AND number = ?",
            (
                new,
                attempts,
                started_at if over else None,
                (ended_at or ledger.now) if over else None,
                ledger.now,
                step,
                number,
            ),
        )
        ledger.moved(step, task["status"], new)
        ledger.retried(step, attempts - task["attempts"])
