"""A queue of its own on the shared farm, whose jobs a simulated worker renders: tests say what each task puts out."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from simulated_worker import SimulatedWorker, Submitted, step, template

from libdeadline import manifest, store

ROLE = "arn:aws:iam::000000000000:role/renders"
BUCKET = "deadline-local"
CAPABILITIES = {
    "vCpuCount": {"min": 1}, "memoryMiB": {"min": 512}, "osFamily": "LINUX", "cpuArchitectureType": "x86_64",
}  # fmt: skip


def clients(farm: Any) -> Any:
    """A function that makes a client of a service by the settings that `dl-farm env` gives."""
    import boto3
    from botocore.config import Config

    before = dict(os.environ)
    os.environ.update(farm.environment)
    try:
        session = boto3.Session()
        made = {
            name: session.client(name, config=Config(retries={"total_max_attempts": 3})) for name in ("deadline", "s3")
        }
    finally:
        os.environ.clear()
        os.environ.update(before)
    return made


class Renders:
    """The queue, its store and its workers."""

    def __init__(self, farm: Any) -> None:
        self.farm = farm
        made = clients(farm)
        self.api, self.s3 = made["deadline"], made["s3"]
        self.prefix = f"renders-{uuid4().hex[:8]}"
        farm_id = self.api.list_farms()["farms"][0]["farmId"]
        queue = self.api.create_queue(
            farmId=farm_id, displayName="renders", roleArn=ROLE, jobRunAsUser={"runAs": "WORKER_AGENT_USER"},
            jobAttachmentSettings={"s3BucketName": BUCKET, "rootPrefix": self.prefix},
        )["queueId"]  # fmt: skip
        fleet = self.api.create_fleet(
            farmId=farm_id, displayName="renders", roleArn=ROLE, maxWorkerCount=9,
            configuration={"customerManaged": {"mode": "NO_SCALING", "workerCapabilities": CAPABILITIES}},
        )["fleetId"]  # fmt: skip
        self.api.create_queue_fleet_association(farmId=farm_id, queueId=queue, fleetId=fleet)
        self.ids = SimpleNamespace(farm=farm_id, queue=queue, fleet=fleet)
        self.workers = [SimulatedWorker(self.api, farm_id, fleet).start() for _ in range(1)]
        self.outputs: dict[tuple[str, int], dict[str, str]] = {}  # job and task number to path and text
        self.held: set[tuple[str, int]] = set()  # tasks that don't end yet
        self.failing: set[tuple[str, int]] = set()
        self.silent = False  # workers of old don't tell of the manifests that they stored

    def client(self) -> Any:
        return self.api

    # Jobs.

    def submit(self, root: Path | str, *outputs: dict[str, str], profile: str | None = None, **more: Any) -> Submitted:
        """A job with a task for each of `outputs`, path to text, below `root`."""
        fields: dict[str, Any] = {"storageProfileId": profile} if profile else {}
        row = {"rootPath": str(root), "rootPathFormat": "posix", "outputRelativeDirectories": ["."], **more}
        job = Submitted(
            self, self.ids, template(step(tasks=len(outputs))), maxRetriesPerTask=0, **fields,
            attachments={"manifests": [row], "fileSystem": "COPIED"},
        )  # fmt: skip
        for number, each in enumerate(outputs):
            self.outputs[job.ids["jobId"], number] = each
        return job

    def render(self) -> None:
        """Work until nothing is left but what is held."""
        for _ in range(200):
            busy = 0
            for worker in self.workers:
                worker.exchange()
                busy += worker.run_assigned(lambda kind, body, action: self._end(worker, kind, body, action))  # noqa: B023
            if not busy and not any(worker.pending for worker in self.workers):
                return
        raise AssertionError("the work has no end")

    def _end(self, worker: SimulatedWorker, kind: str, body: dict[str, Any], action_id: str) -> Any:
        if kind != "taskRun":
            return "SUCCEEDED"
        session = next(
            each for each in worker.schedule["assignedSessions"].values()
            if any(action["sessionActionId"] == action_id for action in each["sessionActions"])
        )  # fmt: skip
        job_id, number = session["jobId"], int(body["taskId"].rpartition("-")[2])
        if (job_id, number) in self.held:
            return None
        if (job_id, number) in self.failing:
            return "FAILED"
        job = self.api.get_job(farmId=self.ids.farm, queueId=self.ids.queue, jobId=job_id)
        row = job["attachments"]["manifests"][0]
        files = self.outputs[job_id, number]
        told: dict[str, str] = {}
        if files:
            path = store.output_manifest(
                self.ids.farm, self.ids.queue, job_id, body["stepId"], body["taskId"], action_id, time.time(),
                row["rootPath"], row.get("fileSystemLocationName"),
            )  # fmt: skip
            told = {"outputManifestPath": path, "outputManifestHash": self.put_manifest(path, files, row["rootPath"])}
        return {"completedStatus": "SUCCEEDED", **({} if self.silent else {"manifests": [told]})}

    # The store.

    def put_manifest(self, path: str, files: dict[str, str], root: str) -> str:
        """Store contents and their manifest, as a worker does: the manifest's hash."""
        from xxhash import xxh3_128_hexdigest

        rows = []
        for name, text in files.items():
            data = text.encode()
            hash = xxh3_128_hexdigest(data)
            self.s3.put_object(Bucket=BUCKET, Key=self.data_key(text), Body=data)
            rows.append(manifest.Entry(name, hash, len(data), 1_700_000_000_000_000 + len(rows)))
        data = manifest.encode(rows)
        self.s3.put_object(
            Bucket=BUCKET, Key=f"{self.prefix}/Manifests/{path}", Body=data, Metadata=store.root_metadata(root)
        )
        return str(xxh3_128_hexdigest(data))

    def data_key(self, text: str) -> str:
        from xxhash import xxh3_128_hexdigest

        return f"{self.prefix}/Data/{xxh3_128_hexdigest(text.encode())}.xxh128"

    def keys(self, below: str = "Data/") -> set[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/{below}")
        return {row["Key"] for page in pages for row in page.get("Contents", ())}

    # Commands.

    def command(self, *words: str) -> list[str]:
        return [*words, "--farm-id", self.ids.farm, "--queue-id", self.ids.queue]

    def sync(
        self,
        folder: Path,
        *words: str,
        status: int = 0,
        ignore: bool = True,
        environment: dict[str, str] | None = None,
    ) -> Synced:
        """Run dl-sync with its checkpoint in `folder`, and hold it to `status`."""
        given = ["--ignore-storage-profiles"] if ignore else []
        command = self.command("dl-sync", "--checkpoint-dir", str(folder), *given, *words)
        environment = {**self.farm.environment, "HOME": str(folder.parent), **(environment or {})}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Synced(done, folder, self.ids.queue)


class Synced:
    """What came of a run of dl-sync."""

    def __init__(self, done: subprocess.CompletedProcess[str], folder: Path, queue_id: str) -> None:
        self.stderr, self.folder, self.queue_id = done.stderr, folder, queue_id
        self.rows = [json.loads(line) for line in done.stdout.splitlines()]
        self.end = self.rows[-1]
        assert self.end["type"] == "end"

    @property
    def files(self) -> dict[str, str]:
        """Local path to what was done."""
        return {row["local_path"]: row.get("download", "") for row in self.rows if row["type"] == "file"}

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        return {row["job_id"]: row for row in self.rows if row["type"] == "job"}

    def read(self, name: str, key: str = "ignore-storage-profiles") -> Any:
        """One of the files beside the checkpoint, or None."""
        path = self.folder / f"{self.queue_id}_{key}_{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def tracked(self) -> dict[str, dict[str, Any]]:
        """The checkpoint's jobs, by id."""
        return {row["job"]["jobId"]: row for row in self.read("download_checkpoint")["jobs"]}


def texts(folder: Path) -> dict[str, str]:
    """All files below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}
