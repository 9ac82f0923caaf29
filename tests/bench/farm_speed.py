"""How fast the embedded farm is: simulated workers over real HTTP with SigV4. Run it: python tests/bench/farm_speed.py

    python tests/bench/farm_speed.py [creation] [first_start] [completions] [busy] [idle]

Prints one JSON line for each measurement. Nothing here passes or fails.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import psutil

from libdeadline import sigv4

REGION = "us-west-2"
ROLE = "arn:aws:iam::000000000000:role/farm"
CAPABILITIES = {
    "amounts": [{"name": "amount.worker.vcpu", "value": 4}, {"name": "amount.worker.memory", "value": 8192}],
    "attributes": [
        {"name": "attr.worker.os.family", "values": ["linux"]},
        {"name": "attr.worker.cpu.arch", "values": ["x86_64"]},
    ],
}


class Server:
    """A dl-farmd over a new folder."""

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="farm-speed-"))
        if settings:
            (self.folder / "config.json").write_text(json.dumps({"settings": settings}))
        code = "from dl_tools.dl_farmd import main; raise SystemExit(main())"
        command = [sys.executable, "-c", code, "--dir", str(self.folder), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        port = self.folder / "run" / "farmd.port"
        while not port.exists():
            if self.process.poll() is not None:
                raise SystemExit("dl-farmd did not start")
            time.sleep(0.01)
        self.port = int(port.read_text())
        keys = json.loads((self.folder / "keys" / "access.json").read_text())
        self.key, entry = next(iter(keys.items()))
        self.secret = entry["secret"]
        self.usage = psutil.Process(self.process.pid)

    def cpu_s(self) -> float:
        times = self.usage.cpu_times()
        return times.user + times.system

    def memory_mib(self) -> float:
        return self.usage.memory_info().rss / 2**20

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Client:
    """One kept-alive connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.reader: asyncio.StreamReader | None = None

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.server.port, limit=1 << 26)
        path, _, query = f"/2023-10-12/{path}".partition("?")
        content = b"" if body is None else orjson.dumps(body)
        headers = {"host": f"127.0.0.1:{self.server.port}", "content-type": "application/json"}
        sigv4.sign(
            method, path, query, headers, sha256(content).hexdigest(), access_key_id=self.server.key,
            secret=self.server.secret, token=None, region=REGION, service="deadline",
        )  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        target = f"{path}?{query}" if query else path
        self.writer.write(
            f"{method} {target} HTTP/1.1\r\n{lines}content-length: {len(content)}\r\n\r\n".encode() + content
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        answer = orjson.loads(await self.reader.readexactly(length)) if length else {}
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer


async def make_farm(client: Client) -> tuple[str, str, str]:
    farm = (await client.call("POST", "farms", {"displayName": "farm"}))["farmId"]
    user = {"runAs": "WORKER_AGENT_USER"}
    queue = (await client.call("POST", f"farms/{farm}/queues", {"displayName": "queue", "jobRunAsUser": user}))[
        "queueId"
    ]
    capabilities = {
        "vCpuCount": {"min": 1}, "memoryMiB": {"min": 512}, "osFamily": "LINUX", "cpuArchitectureType": "x86_64",
    }  # fmt: skip
    managed = {"customerManaged": {"mode": "NO_SCALING", "workerCapabilities": capabilities}}
    body = {"displayName": "fleet", "roleArn": ROLE, "maxWorkerCount": 2000, "configuration": managed}
    fleet = (await client.call("POST", f"farms/{farm}/fleets", body))["fleetId"]
    await client.call("PUT", f"farms/{farm}/queue-fleet-associations", {"queueId": queue, "fleetId": fleet})
    return farm, queue, fleet


async def submit(client: Client, farm: str, queue: str, tasks: int) -> tuple[str, float]:
    """(job id, seconds until it was created)."""
    frames = {"name": "Frame", "type": "INT", "range": f"1-{tasks}"}
    step = {
        "name": "step",
        "script": {"actions": {"onRun": {"command": "true"}}},
        "parameterSpace": {"taskParameterDefinitions": [frames]},
    }
    template = {"specificationVersion": "jobtemplate-2023-09", "name": "job", "steps": [step]}
    begun = time.perf_counter()
    body = {"template": json.dumps(template), "templateType": "JSON", "priority": 50}
    job = (await client.call("POST", f"farms/{farm}/queues/{queue}/jobs", body))["jobId"]
    while (got := await client.call("GET", f"farms/{farm}/queues/{queue}/jobs/{job}"))[
        "lifecycleStatus"
    ] != "CREATE_COMPLETE":
        assert got["lifecycleStatus"] == "CREATE_IN_PROGRESS", got
        await asyncio.sleep(0.01)
    return job, time.perf_counter() - begun


class Worker:
    """A worker whose tasks take `task_s` seconds each (0: no time)."""

    def __init__(self, server: Server, farm: str, fleet: str, task_s: float) -> None:
        self.client = Client(server)
        self.path = f"farms/{farm}/fleets/{fleet}/workers"
        self.task_s = task_s
        self.completed = 0
        self.latencies: list[float] = []
        self.late = 0

    async def start(self) -> None:
        self.path += "/" + (await self.client.call("POST", self.path, {}))["workerId"]
        await self.client.call("PATCH", self.path, {"status": "STARTED", "capabilities": CAPABILITIES})

    async def exchange(self, updates: dict[str, Any]) -> dict[str, Any]:
        begun = time.perf_counter()
        answer = await self.client.call("PATCH", f"{self.path}/schedule", {"updatedSessionActions": updates})
        self.latencies.append(time.perf_counter() - begun)
        return answer

    async def run(self, until: float) -> None:
        updates: dict[str, Any] = {}
        while time.monotonic() < until:
            answer = await self.exchange(updates)
            updates = {}
            actions = [
                action["sessionActionId"]
                for session in answer["assignedSessions"].values()
                for action in session["sessionActions"]
            ]
            if not actions:
                await asyncio.sleep(max(0.01, answer["updateIntervalSeconds"]))
                continue
            begun = time.monotonic()
            for action in actions:
                started = time.time()
                if self.task_s:
                    await asyncio.sleep(self.task_s)
                updates[action] = {"completedStatus": "SUCCEEDED", "startedAt": started, "endedAt": time.time()}
                self.completed += 1
                if time.monotonic() - begun > answer["updateIntervalSeconds"]:
                    break


def tell(name: str, **values: Any) -> None:
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}
    print(json.dumps({"measured": name, **rounded}), flush=True)


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]


async def creation(server: Server) -> None:
    client = Client(server)
    farm, queue, _ = await make_farm(client)
    job, took = await submit(client, farm, queue, 100_000)
    base = f"farms/{farm}/queues/{queue}/jobs/{job}"
    step = (await client.call("GET", f"{base}/steps"))["steps"][0]["stepId"]
    pages, token = [], ""
    for _ in range(50):
        begun = time.perf_counter()
        page = await client.call("GET", f"{base}/steps/{step}/tasks?maxResults=100{token}")
        pages.append(time.perf_counter() - begun)
        token = f"&nextToken={page['nextToken']}"
    searches = []
    for offset in (0, 5000, 9900):
        body = {"queueIds": [queue], "jobId": job, "itemOffset": offset, "pageSize": 100}
        begun = time.perf_counter()
        await client.call("POST", f"farms/{farm}/search/tasks", body)
        searches.append(time.perf_counter() - begun)
    tell("creation", tasks=100_000, seconds=took, page_ms=max(pages) * 1000, search_ms=max(searches) * 1000,
         memory_mib=server.memory_mib())  # fmt: skip


async def first_start(server: Server) -> None:
    client = Client(server)
    farm, queue, fleet = await make_farm(client)
    worker = Worker(server, farm, fleet, 0)
    await worker.start()
    await worker.exchange({})
    waits = []
    for _ in range(10):
        asking = asyncio.create_task(worker.run(time.monotonic() + 1.5))
        await asyncio.sleep(0.3)
        job, _ = await submit(client, farm, queue, 1)
        await asking
        got = await client.call("GET", f"farms/{farm}/queues/{queue}/jobs/{job}")
        waits.append(_seconds(got["startedAt"]) - _seconds(got["createdAt"]))
    tell("first_start", median_ms=quantile(waits, 0.5) * 1000, worst_ms=max(waits) * 1000)


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


async def many(server: Server, name: str, count: int, tasks: int, task_s: float, seconds: float) -> None:
    client = Client(server)
    farm, queue, fleet = await make_farm(client)
    workers = [Worker(server, farm, fleet, task_s) for _ in range(count)]
    for first in range(0, count, 50):
        await asyncio.gather(*(worker.start() for worker in workers[first : first + 50]))
    if tasks:
        await submit(client, farm, queue, tasks)
    cpu, begun = server.cpu_s(), time.monotonic()
    await asyncio.gather(*(worker.run(begun + seconds) for worker in workers))
    took = time.monotonic() - begun
    latencies = [each for worker in workers for each in worker.latencies]
    done = sum(worker.completed for worker in workers)
    tell(name, workers=count, completions_per_s=done / took, exchanges_per_s=len(latencies) / took,
         p50_ms=quantile(latencies, 0.5) * 1000, p99_ms=quantile(latencies, 0.99) * 1000,
         server_cpu=(server.cpu_s() - cpu) / took, memory_mib=server.memory_mib())  # fmt: skip


MEASURES = {
    "creation": creation,
    "first_start": first_start,
    "completions": lambda server: many(server, "completions", 20, 60_000, 0, 10),
    "busy": lambda server: many(server, "busy", 300, 20_000, 2, 15),
    "idle": lambda server: many(server, "idle", 1000, 0, 0, 40),
}


def main(names: list[str]) -> None:
    for name in names or MEASURES:
        server = Server()
        try:
            asyncio.run(MEASURES[name](server))
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
