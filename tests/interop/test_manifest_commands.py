"""deadline manifest and deadline attachment, ours and the reference's: the same manifests, each other's files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

FILES = ("plain.txt", "with space.txt", "été ☃.txt", "deep/er/file.bin", "empty", ".hidden/x", "deep/.dot", "[a]/b.txt")
MTIME_NS = 1_704_164_645_123_456_789


class Client:
    """One of the two clients: a home of its own, in a working folder that both share."""

    def __init__(self, program: str, farm: Any, home: Path, folder: Path) -> None:
        self.program, self.home, self.folder = program, home, folder
        home.mkdir()
        (home / "config").write_text(Path(farm.environment["DEADLINE_CONFIG_FILE_PATH"]).read_text())
        self.environment = {**farm.environment, "HOME": str(home), "DEADLINE_CONFIG_FILE_PATH": str(home / "config")}

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [self.program, *words], env=self.environment, cwd=self.folder, capture_output=True, text=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def json(self, *words: str) -> Any:
        text = self.run(*words, "--json")
        return json.loads(text[text.index("{") :])  # the reference writes a label before it

    def snapshot(self, *words: str, root: str = "work") -> Path:
        to = self.home / "snapshots"
        to.mkdir(exist_ok=True)
        return self.folder / self.json("manifest", "snapshot", "--root", root, "-d", str(to), *words)["manifest"]


@pytest.fixture
def clients(reference: str, farm: Any, tmp_path: Path) -> tuple[Client, Client]:
    for number, path in enumerate(FILES):
        file = tmp_path / "work" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("" if path == "empty" else f"{path} of {tmp_path}\n")
        os.utime(file, ns=(0, MTIME_NS + number))
    (tmp_path / "work/linked").symlink_to("deep")
    return Client("deadline", farm, tmp_path / "ours", tmp_path), Client(reference, farm, tmp_path / "theirs", tmp_path)


@pytest.mark.parametrize(
    "words", [[], ["-i", "deep/**"], ["-i", "*"], ["-i", "**/.dot", "-i", "*.txt"], ["-i", "**/*", "-e", "*.txt"]]
)
def test_snapshots_are_the_same_to_the_byte(clients: tuple[Client, Client], words: list[str]) -> None:
    ours, theirs = (client.snapshot(*words) for client in clients)
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.name[: -len("YYYY-mm-ddTHH-MM-SS.manifest")] == theirs.name[: -len("YYYY-mm-ddTHH-MM-SS.manifest")]


def test_differences_are_the_same(clients: tuple[Client, Client]) -> None:
    us, _ = clients
    was = us.snapshot()
    (us.folder / "work/empty").write_text("no more")
    (us.folder / "work/plain.txt").unlink()
    (us.folder / "work/deep/new").write_text("new")
    root = str(us.folder / "work")  # the reference compares with absolute roots alone
    look = ("manifest", "diff", "--root", root, "--manifest", str(was))
    ours, theirs = ({status: sorted(paths) for status, paths in client.json(*look).items()} for client in clients)
    assert ours == theirs
    assert ours == {"new": ["deep/new", "linked/new"], "modified": ["empty"], "deleted": ["plain.txt"]}
    ours_left, theirs_left = (client.snapshot("--diff", str(was), "-n", "left", root=root) for client in clients)
    assert ours_left.read_bytes() == theirs_left.read_bytes()


@pytest.mark.parametrize("who", ["ours", "theirs"])
def test_each_fetches_what_the_other_stored(clients: tuple[Client, Client], who: str) -> None:
    sender, receiver = clients if who == "ours" else clients[::-1]
    made = sender.snapshot()
    sender.run("attachment", "upload", "-m", str(made), "-r", "work", "--upload-manifest-path", f"by/{who}")
    place = receiver.home / "fetched"
    place.mkdir()
    rules = receiver.home / "rules.json"
    rule = {"source_path_format": "posix", "source_path": "work", "destination_path": str(place)}
    rules.write_text(json.dumps([rule]))
    fetch = ("attachment", "download", "-m", str(made), "--path-mapping-rules", str(rules))
    done = receiver.json(*fetch, "--conflict-resolution", "overwrite")  # without which the reference fails
    entries = json.loads(made.read_text())["paths"]
    assert (done["processed_files"], done["total_files"]) == (len(entries), len(entries))
    assert len(entries) == 7
    for entry in entries:
        assert (place / entry["path"]).read_bytes() == (sender.folder / "work" / entry["path"]).read_bytes()


def test_a_jobs_manifests_are_the_same_to_the_byte(clients: tuple[Client, Client]) -> None:
    us, _ = clients
    (us.folder / "work/template.json").write_text(
        json.dumps(
            {
                "specificationVersion": "jobtemplate-2023-09",
                "name": "manifests",
                "parameterDefinitions": [
                    {"name": "In", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "INOUT", "default": "deep"}
                ],
                "steps": [
                    {
                        "name": "One",
                        "script": {
                            "actions": {"onRun": {"command": "bash", "args": ["-c", "echo 1 >'{{Param.In}}/out'"]}}
                        },
                    }
                ],
            }
        )
    )
    job_id = us.run("bundle", "submit", "work", "--yes").split()[-1]
    us.run("job", "wait", "--job-id", job_id, "--timeout", "120")
    found = []
    for client in clients:
        (client.home / "manifests").mkdir()
        done = client.json("manifest", "download", str(client.home / "manifests"), "--job-id", job_id)
        found.append({each["manifest_root"]: Path(each["local_manifest_path"]) for each in done["downloaded"]})
    ours, theirs = found
    assert list(ours) == list(theirs) == [str(us.folder / "work/deep")]
    for root, path in ours.items():
        assert path.read_bytes() == theirs[root].read_bytes()
        assert b'"path":"out"' in path.read_bytes()
