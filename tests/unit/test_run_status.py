"""Any order of reports, requeues, stops and losses leaves counts, statuses and dependencies in line with the tasks."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from dl_tools.dl_farmd import capabilities, jobs, scheduling, sessions, store
from dl_tools.dl_farmd.run_status import BEGUN, ENDED, STATUSES, Ledger, job_status, outcome, requeue, step_status, stop
from hypothesis import given, settings
from hypothesis import strategies as st

FLEET, QUEUE = "fleet-1", "queue-1"
TARGETS = ("READY", "PENDING", "SUSPENDED", "CANCELED", "FAILED", "SUCCEEDED")


class World:
    """A database with one job on three workers, and what the functions under test need of the service."""

    def __init__(self, chance: random.Random, path: Path) -> None:
        self.chance, self.now, self.ids = chance, 1_000_000, 0
        self.db = store.open_writer(path)
        self.db.execute("PRAGMA synchronous = OFF")
        self.listeners: list = []
        self.farm = SimpleNamespace(
            new_id=self.new_id, emit=lambda *args, **more: None, matcher=capabilities.Matcher(), settings={},
            fleet_sizes={}, now_ms=lambda: self.now, logs=SimpleNamespace(create=lambda *args: None),
        )  # fmt: skip
        about = {"created_at": 1, "created_by": "test"}
        add = store.insert
        add(self.db, "farms", farm_id="farm-1", display_name="farm", **about)
        add(self.db, "queues", queue_id=QUEUE, farm_id="farm-1", display_name="queue", status="SCHEDULING", **about)
        add(
            self.db, "fleets", fleet_id=FLEET, farm_id="farm-1", display_name="fleet", status="ACTIVE",
            max_worker_count=9, configuration={}, role_arn="role", **about,
        )  # fmt: skip
        add(
            self.db, "queue_fleet_associations", queue_id=QUEUE, fleet_id=FLEET, farm_id="farm-1", status="ACTIVE",
            **about,
        )  # fmt: skip
        self.max_retries, self.max_failed = chance.randrange(3), chance.choice([0, 2, 50])
        add(
            self.db, "jobs", job_id="job-1", farm_id="farm-1", queue_id=QUEUE, name="job", lifecycle_message="",
            lifecycle_status="CREATE_COMPLETE", priority=50, max_failed=self.max_failed, max_retries=self.max_retries,
            max_workers=chance.choice([-1, 1, 2]), parameters={}, **about,
        )  # fmt: skip
        self.steps = []
        edges = {0: (), 1: (0,), 2: (0, 1), 3: ()}
        sizes = [chance.randrange(1, 6) for _ in edges]
        for position, dependencies in edges.items():
            status = "PENDING" if dependencies else "READY"
            add(
                self.db, "steps", step_id=f"step-{position}", job=1, position=position, name=str(position), template={},
                dependencies=len(dependencies), unresolved=len(dependencies), status=status, created_at=1,
                **{f"n_{status.lower()}": sizes[position]},
            )  # fmt: skip
            step = store.value(self.db, "SELECT last_insert_rowid()")
            self.steps.append(step)
            for number in range(sizes[position]):
                add(self.db, "tasks", step=step, number=number, status=status, parameters={})
            for dependency in dependencies:
                self.db.execute("INSERT INTO step_edges VALUES (?, ?)", (step, self.steps[dependency]))
            self.db.execute(f"UPDATE jobs SET n_{status.lower()} = n_{status.lower()} + ?", (sizes[position],))
        if chance.random() < 0.5:
            add(
                self.db, "environments", environment_id="JOB:1", job=1, position=0, template={}, schema_version="",
                extensions=[],
            )  # fmt: skip
        for worker in range(3):
            add(
                self.db,
                "workers",
                worker_id=f"worker-{worker}",
                farm_id="farm-1",
                fleet_id=FLEET,
                status="IDLE",
                **about,
            )
        ledger = self.ledger()
        ledger.look_at(1)
        ledger.settle()

    def new_id(self, prefix: str) -> str:
        self.ids += 1
        return f"{prefix}-{self.ids:032x}"

    def ledger(self) -> Ledger:
        self.now += 1000
        return Ledger(self.db, self.now, "test")

    # What may happen, each as a function without arguments.

    def plan(self) -> None:
        worker = store.one(self.db, "SELECT * FROM workers WHERE worker = ?", self.chance.randrange(1, 4))
        ledger = self.ledger()
        scheduling.Scheduler(self.farm, ledger, worker).plan()
        ledger.settle()

    def report(self) -> None:
        """What an agent says of the first open action of a session; after a bad end the rest is never attempted."""
        rows = self.db.execute("SELECT * FROM sessions WHERE status = 'STARTED'").fetchall()
        if not rows:
            return
        session = self.chance.choice(rows)
        actions = scheduling.open_actions(self.db, session["session"])
        if not actions:
            return
        ledger = self.ledger()
        if actions[0]["started_at"] is None and self.chance.random() < 0.4:
            scheduling._progress(ledger, actions[0], {"startedAt": self.now})
        else:
            status = self.chance.choices(
                ["SUCCEEDED", "FAILED", "INTERRUPTED", "CANCELED"],
                [0, 1, 0, 9] if actions[0]["status"] == "CANCELING" else [6, 2, 0.3, 0],
            )[0]
            scheduling.complete(ledger, session, actions[0], status, {"startedAt": self.now - 500, "endedAt": self.now})
            if status != "SUCCEEDED" and actions[0]["kind"] != "envExit":
                for action in actions[1:]:
                    if action["kind"] != "envExit":
                        again = scheduling._action(self.db, action["session"], action["number"])
                        scheduling.complete(ledger, session, again, "NEVER_ATTEMPTED", {})
        ledger.settle()

    def lose(self) -> None:
        worker = store.one(self.db, "SELECT * FROM workers WHERE worker = ?", self.chance.randrange(1, 4))
        ledger = self.ledger()
        scheduling.end_sessions(ledger, worker, self.farm, lost=self.chance.random() < 0.5)
        ledger.settle()

    def target_job(self) -> None:
        ledger = self.ledger()
        jobs.set_job_target(self.farm, ledger, 1, self.chance.choice(TARGETS))
        ledger.settle()

    def target_step(self) -> None:
        ledger = self.ledger()
        jobs.set_step_target(self.farm, ledger, self.chance.choice(self.steps), self.chance.choice(TARGETS))
        ledger.settle()

    def target_task(self) -> None:
        ledger, step, target = self.ledger(), self.chance.choice(self.steps), self.chance.choice(TARGETS)
        number = store.value(self.db, "SELECT number FROM tasks WHERE step = ? ORDER BY random() LIMIT 1", step)
        if target in ("READY", "PENDING"):
            requeue(ledger, step, [number])
        else:
            stop(ledger, step, target, [number])
        ledger.settle()

    def end_session(self) -> None:
        session = store.value(
            self.db, "SELECT session FROM sessions WHERE status = 'STARTED' ORDER BY random() LIMIT 1"
        )
        if session is not None:
            ledger = self.ledger()
            sessions.end_early(ledger, session)
            ledger.settle()

    def check(self) -> None:
        job = self.db.execute("SELECT * FROM jobs").fetchone()
        total = dict.fromkeys(STATUSES, 0)
        retries = 0
        for step in self.db.execute("SELECT * FROM steps").fetchall():
            tasks = self.db.execute("SELECT * FROM tasks WHERE step = ?", (step["step"],)).fetchall()
            real = dict.fromkeys(STATUSES, 0)
            for task in tasks:
                real[task["status"]] += 1
                retries += task["attempts"]
                assert (task["ended_at"] is not None) == (task["status"] in ENDED), tuple(task)
                assert task["target"] is None or task["status"] == "INTERRUPTING", tuple(task)
                if task["status"] in (*BEGUN, "INTERRUPTING"):
                    action = scheduling._action(self.db, task["session"], task["action"])
                    assert action is not None and not action["done"], tuple(task)
                    if task["status"] == "INTERRUPTING":
                        assert action["status"] == "CANCELING", (tuple(task), tuple(action))
                else:
                    assert task["attempts"] <= self.max_retries + 1
            assert {status: step[f"n_{status.lower()}"] for status in STATUSES} == real
            assert step["status"] == step_status(real)
            assert (step["ended_at"] is not None) == (step["status"] in ENDED)
            waits = store.value(
                self.db,
                "SELECT count(*) FROM step_edges JOIN steps ON steps.step = dependency WHERE consumer = ?"
                " AND status <> 'SUCCEEDED'",
                step["step"],
            )
            assert step["unresolved"] == waits
            assert not (waits and real["READY"]) and not (not waits and real["PENDING"])
            for status in STATUSES:
                total[status] += real[status]
        assert {status: job[f"n_{status.lower()}"] for status in STATUSES} == total
        assert job["status"] == job_status(total) and job["retries"] == retries
        assert (job["ended_at"] is not None) == (job["status"] in ENDED)
        assert job["target"] is None or total["INTERRUPTING"]
        orphans = self.db.execute(
            "SELECT count(*) FROM actions JOIN sessions USING (session) WHERE done = 0 AND sessions.status = 'ENDED'"
        ).fetchone()[0]
        assert orphans == 0
        held = self.db.execute("SELECT count(DISTINCT worker) FROM sessions WHERE status = 'STARTED'").fetchone()[0]
        assert job["max_workers"] < 0 or held <= job["max_workers"]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_the_books_are_right(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    chance = random.Random(seed)
    world = World(chance, tmp_path_factory.mktemp("world") / "farm.sqlite")
    deeds = [world.plan, world.report, world.lose, world.target_job, world.target_step, world.target_task]
    deeds.append(world.end_session)
    for _ in range(120):
        [deed] = chance.choices(deeds, [8, 14, 0.5, 0.5, 0.5, 1, 0.5])
        world.db.execute("BEGIN")
        deed()
        world.db.execute("COMMIT")
        world.check()
    # Left to itself it comes to an end.
    world.db.execute("UPDATE jobs SET max_workers = -1")
    for _ in range(400):
        world.db.execute("BEGIN")
        world.plan()
        world.report()
        world.db.execute("COMMIT")
    world.check()
    assert world.db.execute("SELECT count(*) FROM sessions WHERE status = 'STARTED'").fetchone()[0] == 0
    assert store.value(world.db, "SELECT n_ready + n_running + n_assigned + n_interrupting FROM jobs") == 0
    world.db.close()


@pytest.mark.parametrize(
    ("completed", "more", "wanted"),
    [
        ("SUCCEEDED", {}, ("SUCCEEDED", 1)),
        ("SUCCEEDED", {"status": "INTERRUPTING", "target": "CANCELED"}, ("SUCCEEDED", 1)),
        ("FAILED", {}, ("READY", 2)),
        ("FAILED", {"attempts": 2}, ("FAILED", 3)),
        ("FAILED", {"status": "INTERRUPTING", "target": "SUSPENDED"}, ("SUSPENDED", 1)),
        ("CANCELED", {"status": "INTERRUPTING", "target": "CANCELED"}, ("CANCELED", 1)),
        ("CANCELED", {"status": "INTERRUPTING", "target": "READY"}, ("READY", 0)),
        ("CANCELED", {}, ("READY", 1)),
        ("INTERRUPTED", {}, ("READY", 1)),
        ("INTERRUPTED", {"counted": True}, ("READY", 2)),
        ("NEVER_ATTEMPTED", {}, ("READY", 1)),
        ("NEVER_ATTEMPTED", {"counted": True, "attempts": 2}, ("FAILED", 3)),
        ("NEVER_ATTEMPTED", {"status": "INTERRUPTING", "target": "CANCELED"}, ("CANCELED", 1)),
        ("RECLAIMED", {}, ("READY", 1)),
    ],
)
def test_where_a_task_goes(completed: str, more: dict, wanted: tuple[str, int]) -> None:
    about = {"status": "RUNNING", "target": None, "attempts": 1, "max_retries": 2, "counted": False, **more}
    assert outcome(completed, **about) == wanted


def test_statuses_of_steps_and_jobs() -> None:
    def counts(**n: int) -> dict[str, int]:
        return {status: n.get(status, 0) for status in STATUSES}

    assert step_status(counts(RUNNING=1, FAILED=2)) == "RUNNING"
    assert step_status(counts(PENDING=1, FAILED=2)) == "PENDING"
    assert job_status(counts(PENDING=1, FAILED=2)) == "FAILED"
    assert job_status(counts(PENDING=1, READY=1, FAILED=2)) == "READY"
    assert job_status(counts(PENDING=3, SUSPENDED=1, SUCCEEDED=1)) == "SUSPENDED"
    assert job_status(counts(SUCCEEDED=4)) == "SUCCEEDED"
    assert job_status(counts(CANCELED=1, SUCCEEDED=4)) == "CANCELED"


def test_a_transaction_undone_leaves_the_books_alone(tmp_path: Path) -> None:
    world = World(random.Random(5), tmp_path / "farm.sqlite")
    before = [tuple(row) for row in world.db.execute("SELECT * FROM jobs")]
    world.db.execute("BEGIN")
    world.plan()
    world.db.execute("ROLLBACK")
    assert [tuple(row) for row in world.db.execute("SELECT * FROM jobs")] == before
    with pytest.raises(sqlite3.OperationalError):
        world.db.execute("ROLLBACK")
