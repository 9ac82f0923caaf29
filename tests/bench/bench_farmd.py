"""How fast dl-farmd is: simulated workers over real HTTP with SigV4, from a process of their own.

Usage: python tests/bench/bench_farmd.py [idle] [busy] [actions] [big] [start]

One JSON line for each scene:
  idle     1000 workers with heartbeats every 15 s: how late answers are, how much of a core the server takes
  busy     300 workers with tasks of 2 s: how late their exchanges are answered
  actions  how many actions a second are completed, 100 workers that do nothing but report
  big      a job of 100 000 tasks: creation, pages of lists and searches, memory
  start    from CreateJob to the first task's assignment to an idle worker
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))

from conftest import CONFIGURATION, ROLE, Farmd
from simulated_worker import CAPABILITIES

from libdeadline import sigv4

TICKS = os.sysconf("SC_CLK_TCK")


class Connection:
    """One kept-alive connection that signs with one credential."""

    def __init__(self, port: int, key_id: str, secret: str, token: str | None = None) -> None:
        self.port, self.key_id, self.secret, self.token = port, key_id, secret, token
        self.streams: Any = None

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        content = json.dumps(body).encode() if body is not None else b""
        path, _, query = path.partition("?")
        headers = sigv4.sign(
            method, path, query, {"host": "127.0.0.1"}, sha256(content).hexdigest(), access_key_id=self.key_id,
            secret=self.secret, token=self.token, region="us-west-2", service="deadline",
        )  # fmt: skip
        lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
        target = f"{path}?{query}" if query else path
        writer.write(f"{method} {target} HTTP/1.1\r\n{lines}content-length: {len(content)}\r\n\r\n".encode() + content)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if not head.startswith("HTTP/1.1 20"):
            raise RuntimeError(f"{method} {path}: {head.splitlines()[0]} {answer}")
        return dict(answer)


class Worker:
    """A worker that reports each action as succeeded `task_s` after it was given."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.path = ""
        self.connection = bench.admin
        self.done: set[str] = set()
        self.completed = 0
        self.latencies: list[float] = []

    async def enrol(self) -> Worker:
        fleet = f"/2023-10-12/farms/{self.bench.farm}/fleets/{self.bench.fleet}/workers"
        made = await self.bench.admin.call("POST", fleet, {"hostProperties": {"hostName": "bench"}})
        self.path = f"{fleet}/{made['workerId']}"
        role = (await self.bench.admin.call("GET", f"{self.path}/fleet-roles"))["credentials"]
        self.connection = Connection(
            self.bench.server.port, role["accessKeyId"], role["secretAccessKey"], role["sessionToken"]
        )
        await self.connection.call("PATCH", self.path, {"status": "STARTED", "capabilities": CAPABILITIES})
        return self

    async def exchange(self, updates: dict[str, Any]) -> dict[str, Any]:
        begun = time.perf_counter()
        answer = await self.connection.call("PATCH", f"{self.path}/schedule", {"updatedSessionActions": updates})
        self.latencies.append(time.perf_counter() - begun)
        self.completed += len(updates)
        self.done |= set(updates)
        return answer

    def open_actions(self, answer: dict[str, Any]) -> list[tuple[str, str]]:
        return [
            (action["sessionActionId"], next(iter(action["definition"])))
            for session in answer["assignedSessions"].values()
            for action in session["sessionActions"]
            if action["sessionActionId"] not in self.done
        ]

    async def work(self, until: float, task_s: float) -> None:
        updates: dict[str, Any] = {}
        while time.monotonic() < until:
            answer = await self.exchange(updates)
            updates = {}
            for identity, kind in self.open_actions(answer):
                begun = time.time()
                if kind == "taskRun" and task_s:
                    await asyncio.sleep(task_s)
                updates[identity] = {"completedStatus": "SUCCEEDED", "startedAt": begun, "endedAt": time.time()}
            if not updates:
                await asyncio.sleep(min(answer["updateIntervalSeconds"], 1))

    async def idle(self, until: float, interval_s: float) -> None:
        await asyncio.sleep(interval_s * hash(self.path) % 1000 / 1000)
        while time.monotonic() < until:
            await self.exchange({})
            await asyncio.sleep(interval_s)


def template(tasks: int, steps: int = 1) -> str:
    step = {
        "parameterSpace": {"taskParameterDefinitions": [{"name": "Frame", "type": "INT", "range": f"1-{tasks}"}]},
        "script": {"actions": {"onRun": {"command": "true"}}},
    }
    return json.dumps(
        {
            "specificationVersion": "jobtemplate-2023-09",
            "name": "bench",
            "steps": [{"name": f"Step{n}", **step} for n in range(steps)],
        }
    )


class Bench:
    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="dl-bench-")
        self.server = Farmd(Path(self.folder.name) / "farm", check=False)
        client = self.server.client()
        self.farm = client.create_farm(displayName="bench")["farmId"]
        self.queue = client.create_queue(
            farmId=self.farm, displayName="q", jobRunAsUser={"runAs": "WORKER_AGENT_USER"}
        )["queueId"]
        self.fleet = client.create_fleet(
            farmId=self.farm, displayName="f", roleArn=ROLE, maxWorkerCount=10_000, configuration=CONFIGURATION
        )["fleetId"]
        client.create_queue_fleet_association(farmId=self.farm, queueId=self.queue, fleetId=self.fleet)
        self.admin = Connection(self.server.port, *self.server.admin())

    def close(self) -> None:
        self.server.stop()
        self.folder.cleanup()

    def cpu_s(self) -> float:
        assert self.server.process is not None
        fields = Path(f"/proc/{self.server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mib(self) -> float:
        assert self.server.process is not None
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    async def workers(self, count: int) -> list[Worker]:
        return [await Worker(self).enrol() for _ in range(count)]

    async def submit(self, text: str) -> tuple[str, float]:
        """(job id, seconds until it was created)."""
        begun = time.perf_counter()
        jobs = f"/2023-10-12/farms/{self.farm}/queues/{self.queue}/jobs"
        made = await self.admin.call("POST", jobs, {"template": text, "templateType": "JSON", "priority": 50})
        while True:
            job = await self.admin.call("GET", f"{jobs}/{made['jobId']}")
            if job["lifecycleStatus"] != "CREATE_IN_PROGRESS":
                break
            await asyncio.sleep(0.01)
        if job["lifecycleStatus"] != "CREATE_COMPLETE":
            raise RuntimeError(job["lifecycleStatusMessage"])
        return made["jobId"], time.perf_counter() - begun


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 1)


async def idle(bench: Bench) -> dict[str, Any]:
    workers = await bench.workers(1000)
    for each in workers:
        each.latencies.clear()
    cpu, seconds = bench.cpu_s(), 30
    until = time.monotonic() + seconds
    await asyncio.gather(*(each.idle(until, 15) for each in workers))
    seen = [latency for each in workers for latency in each.latencies]
    return {
        "workers": 1000, "heartbeats": len(seen), "core": round((bench.cpu_s() - cpu) / seconds, 3),
        "p50_ms": percentile(seen, 0.5), "p99_ms": percentile(seen, 0.99), "memory_mib": round(bench.memory_mib()),
    }  # fmt: skip


async def busy(bench: Bench) -> dict[str, Any]:
    await bench.submit(template(20_000))
    workers = await bench.workers(300)
    cpu, seconds = bench.cpu_s(), 20
    until = time.monotonic() + seconds
    await asyncio.gather(*(each.work(until, 2.0) for each in workers))
    seen = [latency for each in workers for latency in each.latencies]
    return {
        "workers": 300, "exchanges": len(seen), "actions": sum(each.completed for each in workers),
        "core": round((bench.cpu_s() - cpu) / seconds, 3),
        "p50_ms": percentile(seen, 0.5), "p99_ms": percentile(seen, 0.99),
    }  # fmt: skip


async def actions(bench: Bench) -> dict[str, Any]:
    await bench.submit(template(50_000))
    workers = await bench.workers(100)
    for each in workers:
        each.completed = 0
    cpu, begun, seconds = bench.cpu_s(), time.perf_counter(), 15
    until = time.monotonic() + seconds
    await asyncio.gather(*(each.work(until, 0) for each in workers))
    taken = time.perf_counter() - begun
    done = sum(each.completed for each in workers)
    seen = [latency for each in workers for latency in each.latencies]
    return {
        "actions_per_s": round(done / taken), "exchanges_per_s": round(len(seen) / taken),
        "core": round((bench.cpu_s() - cpu) / taken, 3), "p99_ms": percentile(seen, 0.99),
    }  # fmt: skip


async def big(bench: Bench) -> dict[str, Any]:
    job, created_s = await bench.submit(template(100_000))
    root = f"/2023-10-12/farms/{bench.farm}"
    steps = f"{root}/queues/{bench.queue}/jobs/{job}/steps"
    step = (await bench.admin.call("GET", steps))["steps"][0]["stepId"]
    timings: dict[str, list[float]] = {"list": [], "search": []}
    token, offset = "", 0
    for _ in range(50):
        begun = time.perf_counter()
        page = await bench.admin.call(
            "GET", f"{steps}/{step}/tasks" + (f"?nextToken={quote(token, safe='')}" if token else "")
        )
        timings["list"].append(time.perf_counter() - begun)
        token = page["nextToken"]
        begun = time.perf_counter()
        await bench.admin.call(
            "POST", f"{root}/search/tasks", {"queueIds": [bench.queue], "jobId": job, "itemOffset": offset}
        )
        timings["search"].append(time.perf_counter() - begun)
        offset += 100
    return {
        "tasks": 100_000, "created_s": round(created_s, 2), "memory_mib": round(bench.memory_mib()),
        "list_p99_ms": percentile(timings["list"], 0.99), "search_p99_ms": percentile(timings["search"], 0.99),
    }  # fmt: skip


async def start(bench: Bench) -> dict[str, Any]:
    (worker,) = await bench.workers(1)
    seen = []
    for _ in range(5):
        begun = time.perf_counter()
        waiting = asyncio.create_task(bench.submit(template(1)))
        while True:
            answer = await worker.exchange({})
            opened = worker.open_actions(answer)
            if opened:
                break
            await asyncio.sleep(answer["updateIntervalSeconds"])
        seen.append(time.perf_counter() - begun)
        await waiting
        while opened:
            now = time.time()
            ended = {each: {"completedStatus": "SUCCEEDED", "startedAt": now, "endedAt": now} for each, _ in opened}
            opened = worker.open_actions(await worker.exchange(ended))
    return {"first_task_p50_ms": percentile(seen, 0.5), "worst_ms": percentile(seen, 1.0)}


SCENES = {"idle": idle, "busy": busy, "actions": actions, "big": big, "start": start}


def main() -> None:
    for name in sys.argv[1:] or SCENES:
        bench = Bench()
        try:
            print(json.dumps({"scene": name, **asyncio.run(SCENES[name](bench))}), flush=True)
        finally:
            bench.close()


if __name__ == "__main__":
    main()
