"""Downloads of a job's files as a program or a person makes them: the messages, the answers, and jobs to download."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

from renders import Renders
from simulated_worker import Submitted, step, template

from libdeadline import store

Message = dict[str, Any]


class Person:
    """Somebody with settings of their own, at one of the two clients."""

    def __init__(self, renders: Renders, folder: Path, program: str = "deadline") -> None:
        self.renders, self.folder, self.program = renders, folder, program
        config = folder / "config"
        config.write_text(Path(renders.farm.environment["DEADLINE_CONFIG_FILE_PATH"]).read_text())
        self.environment = {
            **renders.farm.environment, "HOME": str(folder), "DEADLINE_CONFIG_FILE_PATH": str(config),
        }  # fmt: skip

    def run(self, *words: str, answers: str = "", status: int = 0) -> tuple[str, str]:
        """What a command prints, and what it says on standard error."""
        done = subprocess.run(
            words, env=self.environment, cwd=self.folder, input=answers, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout, done.stderr

    def download(self, what: str, job_id: str, *words: str, answers: str = "", status: int = 0) -> tuple[str, str]:
        command = (self.program, "job", f"download-{what}", "--job-id", job_id, *words)
        return self.run(*self.renders.command(*command), answers=answers, status=status)

    def messages(self, what: str, job_id: str, *words: str, answer: Any = (), status: int = 0) -> list[Message]:
        """The messages of a download that a program answers with these lists of roots."""
        lines = [json.dumps({"messageType": "pathconfirm", "value": value}) + "\n" for value in answer]
        out, self.errors = self.download(
            what, job_id, "--output", "json", *words, answers="".join(lines), status=status
        )
        return [json.loads(line) for line in out.splitlines() if line]

    def use(self, profile: str) -> None:
        self.run(self.program, "config", "set", "defaults.farm_id", self.renders.ids.farm)
        self.run(self.program, "config", "set", "settings.storage_profile_id", profile)


def kinds(messages: list[Message]) -> list[str]:
    """The kinds of messages, progress aside."""
    return [message["messageType"] for message in messages if message["messageType"] != "progress"]


def values(messages: list[Message], kind: str) -> list[Any]:
    return [message["value"] for message in messages if message["messageType"] == kind]


def inputs(renders: Renders, roots: dict[str, dict[str, str]], profile: str | None = None) -> str:
    """A job with files below several roots, path to text: its id."""
    rows = []
    for root, files in roots.items():
        path = store.input_manifest(renders.ids.farm, renders.ids.queue, root)
        rows.append(
            {
                "rootPath": root,
                "rootPathFormat": "windows" if root[1:2] == ":" else "posix",
                "inputManifestPath": path,
                "inputManifestHash": renders.put_manifest(path, files, root),
            }
        )
    fields = {"storageProfileId": profile} if profile else {}
    job = Submitted(
        renders, renders.ids, template(step()), targetTaskRunStatus="SUSPENDED",
        attachments={"manifests": rows, "fileSystem": "COPIED"}, **fields,
    )  # fmt: skip
    return str(job.ids["jobId"])


def profile(renders: Renders, family: str, **locations: str) -> str:
    made = renders.api.create_storage_profile(
        farmId=renders.ids.farm, displayName=f"of {uuid4().hex[:6]}", osFamily=family,
        fileSystemLocations=[{"name": name, "path": path, "type": "SHARED"} for name, path in locations.items()],
    )["storageProfileId"]  # fmt: skip
    renders.api.update_queue(farmId=renders.ids.farm, queueId=renders.ids.queue, allowedStorageProfileIdsToAdd=[made])
    return str(made)
