"""How fast dl-farmd is: simulated workers over real HTTP with SigV4, from a process of their own.

    python tests/bench/farm_speed.py [idle] [busy] [completions] [creation] [start] [million] [retention]

Each scene has a server of its own; without names all are measured, in some eight minutes. Prints each figure with its
goal, and below each scene what CPU time the server and this client used: on a shared machine the clock tells less.
The status is 1 if a goal was missed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))

from own_farmd import CONFIGURATION, ROLE, Farmd
from simulated_worker import CAPABILITIES

from libdeadline import sigv4

missed: list[str] = []


def tell(name: str, value: float, unit: str, goal: tuple[str, float] | None = None) -> None:
    """Print a figure, and whether it is what was aimed at: goal is ("<", most) or (">", least)."""
    text = ""
    if goal is not None:
        good = value < goal[1] if goal[0] == "<" else value >= goal[1]
        text = f"goal {'<' if goal[0] == '<' else '>='} {goal[1]:g} {unit}: {'met' if good else 'MISSED'}"
        if not good:
            missed.append(name)
    print(f"  {name:<58}{value:>12.4g} {unit:<8}{text}", flush=True)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Client:
    """One kept-alive connection that signs with one credential."""

    def __init__(self, port: int, key_id: str, secret: str, token: str | None = None) -> None:
        self.port, self.key_id, self.secret, self.token = port, key_id, secret, token
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        reader, writer = self.streams
        path, _, query = f"/2023-10-12/{path}".partition("?")
        content = b"" if body is None else orjson.dumps(body)
        headers = sigv4.sign(
            method, path, query, {"host": f"127.0.0.1:{self.port}", "content-type": "application/json"},
            sha256(content).hexdigest(), access_key_id=self.key_id, secret=self.secret, token=self.token,
            region="us-west-2", service="deadline",
        )  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        target = f"{path}?{query}" if query else path
        writer.write(f"{method} {target} HTTP/1.1\r\n{lines}content-length: {len(content)}\r\n\r\n".encode() + content)
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        answer = orjson.loads(await reader.readexactly(int(lengths[0]))) if lengths else {}
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"{method} {path}: {head.split(b' ', 2)[1].decode()} {answer}")
        return answer

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()


class Bench:
    """A farm with a queue and a fleet, on a dl-farmd of its own."""

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="farm-speed-"))
        self.folder = self.place / "farm"
        self.folder.mkdir()
        (self.folder / "config.json").write_text(json.dumps({"settings": settings or {}}))
        self.server = Farmd(self.folder, check=False)
        assert self.server.process is not None
        self.usage = psutil.Process(self.server.process.pid)
        self.admin = Client(self.server.port, *self.server.admin())

    async def make(self) -> Bench:
        call = self.admin.call
        self.farm = (await call("POST", "farms", {"displayName": "farm"}))["farmId"]
        self.root = f"farms/{self.farm}"
        user = {"runAs": "WORKER_AGENT_USER"}
        queue = await call("POST", f"{self.root}/queues", {"displayName": "queue", "jobRunAsUser": user})
        self.queue = queue["queueId"]
        body = {"displayName": "f", "roleArn": ROLE, "maxWorkerCount": 10_000, "configuration": CONFIGURATION}
        self.fleet = (await call("POST", f"{self.root}/fleets", body))["fleetId"]
        pair = {"queueId": self.queue, "fleetId": self.fleet}
        await call("PUT", f"{self.root}/queue-fleet-associations", pair)
        self.jobs = f"{self.root}/queues/{self.queue}/jobs"
        return self

    def close(self) -> None:
        self.server.stop()
        shutil.rmtree(self.place)

    def cpu_s(self) -> float:
        times = self.usage.cpu_times()
        return float(times.user + times.system)

    def memory_mib(self) -> float:
        return float(self.usage.memory_info().rss) / 2**20

    def database_mib(self) -> float:
        return (self.folder / "farm.sqlite").stat().st_size / 2**20

    async def workers(self, count: int, task_s: float) -> list[Worker]:
        made = [Worker(self, task_s) for _ in range(count)]
        for first in range(0, count, 50):
            await asyncio.gather(*(worker.enrol() for worker in made[first : first + 50]))
        return made

    async def submit(self, tasks: int, chunk: int = 0, **fields: Any) -> tuple[str, float]:
        """(job id, seconds until it was created)."""
        frames: dict[str, Any] = {"name": "Frame", "type": "INT", "range": f"1-{tasks}"}
        template: dict[str, Any] = {"specificationVersion": "jobtemplate-2023-09", "name": "job"}
        if chunk:
            template["extensions"] = ["TASK_CHUNKING"]
            chunks = {"defaultTaskCount": chunk, "rangeConstraint": "CONTIGUOUS"}
            frames |= {"type": "CHUNK[INT]", "chunks": chunks}
        step = {
            "name": "step",
            "script": {"actions": {"onRun": {"command": "true"}}},
            "parameterSpace": {"taskParameterDefinitions": [frames]},
        }
        body = {"template": json.dumps({**template, "steps": [step]}), "templateType": "JSON", "priority": 50, **fields}
        begun = time.perf_counter()
        job = (await self.admin.call("POST", self.jobs, body))["jobId"]
        while (got := await self.get(job))["lifecycleStatus"] != "CREATE_COMPLETE":
            if got["lifecycleStatus"] != "CREATE_IN_PROGRESS":
                raise RuntimeError(got["lifecycleStatusMessage"])
            await asyncio.sleep(0.01)
        return job, time.perf_counter() - begun

    async def get(self, job: str) -> dict[str, Any]:
        return dict(await self.admin.call("GET", f"{self.jobs}/{job}"))

    async def timed(self, method: str, path: str, body: Any = None) -> tuple[float, Any]:
        """(seconds, the answer) of a request."""
        begun = time.perf_counter()
        answer = await self.admin.call(method, path, body)
        return time.perf_counter() - begun, answer


class Worker:
    """A worker whose tasks take `task_s` seconds each (0: no time), and that calls as an agent does.

    late: answers that took more than a second, and times when it had no task for that long though there were tasks.
    """

    def __init__(self, bench: Bench, task_s: float) -> None:
        self.bench, self.task_s = bench, task_s
        self.completed = self.late = 0
        self.latencies: list[float] = []

    async def enrol(self) -> None:
        workers = f"{self.bench.root}/fleets/{self.bench.fleet}/workers"
        port = self.bench.server.port
        admin = Client(port, self.bench.admin.key_id, self.bench.admin.secret)
        made = await admin.call("POST", workers, {"hostProperties": {"hostName": "bench"}})
        self.path = f"{workers}/{made['workerId']}"
        role = (await admin.call("GET", f"{self.path}/fleet-roles"))["credentials"]
        admin.close()
        self.client = Client(port, role["accessKeyId"], role["secretAccessKey"], role["sessionToken"])
        await self.client.call("PATCH", self.path, {"status": "STARTED", "capabilities": CAPABILITIES})

    async def exchange(self, updates: dict[str, Any], *, waits: bool = False) -> Any:
        begun = time.perf_counter()
        answer = await self.client.call("PATCH", f"{self.path}/schedule", {"updatedSessionActions": updates})
        took = time.perf_counter() - begun
        if not waits:  # an idle worker's answer is held until there is work
            self.latencies.append(took)
            self.late += took > 1
        return answer

    async def run(self, until: float) -> None:
        """Work until a time of the monotonic clock."""
        updates: dict[str, Any] = {}
        dry = time.monotonic()
        while time.monotonic() < until:
            answer = await self.exchange(updates, waits=not updates)
            updates = {}
            actions = [
                action["sessionActionId"]
                for session in answer["assignedSessions"].values()
                for action in session["sessionActions"]
            ]
            called = time.monotonic()
            if not actions:
                await asyncio.sleep(max(0.01, answer["updateIntervalSeconds"]))
                continue
            self.late += called - dry > 1
            for action in actions:
                started = time.time()
                if self.task_s:
                    await asyncio.sleep(self.task_s)
                updates[action] = {"completedStatus": "SUCCEEDED", "startedAt": started, "endedAt": time.time()}
                self.completed += 1
                if time.monotonic() - called > answer["updateIntervalSeconds"]:
                    break
            dry = time.monotonic()

    async def idle(self, until: float, interval_s: float, first: float) -> None:
        """Call every `interval_s`, for the first time at the share `first` of it."""
        await asyncio.sleep(interval_s * first)
        while time.monotonic() < until:
            await self.exchange({})
            await asyncio.sleep(interval_s)


async def idle(bench: Bench) -> None:
    """1 000 workers that have nothing to do, with a heartbeat every 15 s"""
    count = 1000
    workers = await bench.workers(count, 0)
    cpu, begun = bench.cpu_s(), time.monotonic()
    await asyncio.gather(*(each.idle(begun + 40, 15, n / count) for n, each in enumerate(workers)))
    core = (bench.cpu_s() - cpu) / (time.monotonic() - begun)
    seen = [latency for each in workers for latency in each.latencies]
    tell("heartbeats answered, 99 of 100", quantile(seen, 0.99) * 1000, "ms", ("<", 250))
    tell("of a core taken", core, "cores", ("<", 0.5))
    for each in workers:
        each.latencies.clear()
    begun = time.monotonic()
    calling = asyncio.gather(*(each.idle(begun + 16, 15, n / count) for n, each in enumerate(workers)))
    while time.monotonic() < begun + 15:
        await bench.submit(100_000, targetTaskRunStatus="SUSPENDED")
    await calling
    seen = [latency for each in workers for latency in each.latencies]
    tell("the same while jobs of 100 000 tasks are created", quantile(seen, 0.99) * 1000, "ms")


async def busy(bench: Bench) -> None:
    """300 workers with tasks of 2 s"""
    await bench.submit(20_000)
    workers = await bench.workers(300, 2)
    cpu, begun = bench.cpu_s(), time.monotonic()
    await asyncio.gather(*(each.run(begun + 30) for each in workers))
    took = time.monotonic() - begun
    seen = [latency for each in workers for latency in each.latencies]
    tell("late: answers over 1 s, or a worker 1 s without a task", sum(each.late for each in workers), "", ("<", 1))
    tell("exchanges answered, 99 of 100", quantile(seen, 0.99) * 1000, "ms")
    tell("of the workers' time spent in tasks", 200 * sum(each.completed for each in workers) / 300 / took, "%")
    tell("of a core taken", (bench.cpu_s() - cpu) / took, "cores")


async def completions(bench: Bench) -> None:
    """How many actions a second are completed: 20 workers whose tasks take no time"""
    await bench.submit(100_000)
    workers = await bench.workers(20, 0)
    cpu, begun = bench.cpu_s(), time.monotonic()
    await asyncio.gather(*(each.run(begun + 30) for each in workers))
    took, cpu = time.monotonic() - begun, bench.cpu_s() - cpu
    done = sum(each.completed for each in workers)
    tell("actions completed, sustained over 30 s", done / took, "/s", (">", 400))
    tell("actions completed per second of the server's CPU", done / cpu, "/CPU s")


async def creation(bench: Bench) -> None:
    """A job of 100 000 tasks, and pages of a hundred of it"""
    cpu = bench.cpu_s()
    job, took = await bench.submit(100_000)
    tell("from CreateJob to CREATE_COMPLETE", took, "s", ("<", 3))
    tell("CPU time of that", bench.cpu_s() - cpu, "CPU s")
    await pages(bench, job)


async def pages(bench: Bench, job: str) -> None:
    step = (await bench.admin.call("GET", f"{bench.jobs}/{job}/steps"))["steps"][0]["stepId"]
    tasks = f"{bench.jobs}/{job}/steps/{step}/tasks"
    listed, token, cpu = [], "", bench.cpu_s()
    for _ in range(100):
        took, page = await bench.timed("GET", f"{tasks}?maxResults=100{token}")
        listed.append(took)
        token = f"&nextToken={quote(page['nextToken'], safe='')}"
    tell("ListTasks, the slowest of 100 pages", max(listed) * 1000, "ms", ("<", 50))
    tell("  CPU time of one", (bench.cpu_s() - cpu) * 10, "CPU ms")
    about = {"queueIds": [bench.queue], "jobId": job, "pageSize": 100}

    def by(name: str, value: str) -> dict[str, Any]:
        return {"filters": [{"stringFilter": {"name": name, "operator": "EQUAL", "value": value}}], "operator": "AND"}

    frame = {"parameterFilter": {"name": "Frame", "operator": "EQUAL", "value": "77777"}}
    term = {"searchTermFilter": {"searchTerm": "77777", "matchType": "CONTAINS"}}
    few = ("by a parameter", "by a term")
    for name, what in {
        "all": {},
        "by status": {"filterExpressions": by("RUN_STATUS", "READY")},
        "by a parameter": {"filterExpressions": {"filters": [frame], "operator": "AND"}},
        "by a term": {"filterExpressions": {"filters": [term], "operator": "AND"}},
        "sorted by a parameter": {"sortExpressions": [{"parameterSort": {"name": "Frame", "sortOrder": "DESCENDING"}}]},
    }.items():
        cpu = bench.cpu_s()
        searched = [
            (await bench.timed("POST", f"{bench.root}/search/tasks", {**about, **what, "itemOffset": offset}))[0]
            for offset in ((0, 0, 0, 0, 0) if name in few else (0, 0, 100, 5000, 9900))
        ]
        tell(f"SearchTasks, {name}, the slowest of 5 pages", max(searched) * 1000, "ms", ("<", 50))
        tell("  CPU time of one", (bench.cpu_s() - cpu) / len(searched) * 1000, "CPU ms")


async def start(bench: Bench) -> None:
    """From CreateJob to the first task's start, with an idle worker"""
    (worker,) = await bench.workers(1, 0)
    waits = []
    for _ in range(10):
        working = asyncio.create_task(worker.run(time.monotonic() + 1.5))
        await asyncio.sleep(0.3)
        job, _ = await bench.submit(1)
        await working
        while "startedAt" not in (got := await bench.get(job)):
            await worker.run(time.monotonic() + 0.5)
        waits.append(seconds(got["startedAt"]) - seconds(got["createdAt"]))
    tell("median of ten", quantile(waits, 0.5), "s")
    tell("slowest of ten", max(waits), "s", ("<", 1))


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def million(bench: Bench) -> None:
    """A million finished tasks: ten jobs of 100 000, in chunks of 500"""
    jobs = [(await bench.submit(100_000, 500))[0] for _ in range(10)]
    tell("memory with a million tasks waiting", bench.memory_mib(), "MiB", ("<", 300))
    workers = await bench.workers(8, 0)
    cpu, begun = bench.cpu_s(), time.monotonic()
    while True:
        await asyncio.gather(*(each.run(time.monotonic() + 5) for each in workers))
        if [(await bench.get(job))["taskRunStatus"] for job in jobs] == ["SUCCEEDED"] * len(jobs):
            break
    tell("tasks finished", 1_000_000 / (time.monotonic() - begun), "/s")
    tell("tasks finished per second of the server's CPU", 1_000_000 / (bench.cpu_s() - cpu), "/CPU s")
    tell("memory with a million tasks finished", bench.memory_mib(), "MiB", ("<", 300))
    tell("database", bench.database_mib(), "MiB")
    listed = [(await bench.timed("GET", f"{bench.jobs}?maxResults=100"))[0] for _ in range(20)]
    tell("ListJobs, the slowest of 20", max(listed) * 1000, "ms", ("<", 50))
    await pages(bench, jobs[5])
    tell("memory after it was read", bench.memory_mib(), "MiB", ("<", 300))


async def retention(bench: Bench) -> None:
    """Jobs that are over are deleted after keep_jobs_days: here a second"""
    workers = await bench.workers(4, 0)
    sizes = []
    for _ in range(8):
        await bench.submit(20_000, 100)
        limit = time.monotonic() + 120
        while (await bench.admin.call("GET", bench.jobs))["jobs"]:
            if time.monotonic() > limit:
                raise RuntimeError("the job is never deleted")
            await asyncio.gather(*(each.run(time.monotonic() + 0.5) for each in workers))
        sizes.append(bench.database_mib())
    tell("database after 2 jobs of 20 000 tasks came and went", sizes[1], "MiB")
    tell("database after 8 of them, against that", sizes[-1] / sizes[1], "x", ("<", 1.25))


SCENES: dict[str, tuple[Callable[[Bench], Awaitable[None]], dict[str, Any]]] = {
    "idle": (idle, {}),
    "busy": (busy, {}),
    "completions": (completions, {}),
    "creation": (creation, {}),
    "start": (start, {}),
    "million": (million, {}),
    "retention": (retention, {"keep_jobs_days": 1 / 86_400, "retention_look_s": 0.5}),
}


async def measure(scene: Callable[[Bench], Awaitable[None]], bench: Bench) -> None:
    await scene(await bench.make())


def main(names: list[str]) -> int:
    for name in names or SCENES:
        scene, settings = SCENES[name]
        print(f"{name}: {scene.__doc__}", flush=True)
        bench = Bench(settings)
        mine, begun = time.process_time(), time.monotonic()
        try:
            asyncio.run(measure(scene, bench))
            print(
                f"  (CPU: server {bench.cpu_s():.1f} s, client {time.process_time() - mine:.1f} s of"
                f" {time.monotonic() - begun:.1f} s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores;"
                f" memory {bench.memory_mib():.0f} MiB)",
                flush=True,
            )
        finally:
            bench.close()
    if missed:
        print(f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
