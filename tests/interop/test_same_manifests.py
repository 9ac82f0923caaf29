"""The reference's manifests and ours are the same bytes, and a bundle's attachments and parameters are the same."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NAMES = [
    "a", "B", "a b", "ä", "a\u0308", "é", "e\u0301", "😀", "Ａ", "ﬀ", 'q"uo\\te', "new\nline", "tab\t",
    "-dash", "~", "x.exr", "x.0001.exr", "日本", "'", "{}", "[a]", "\x7f", "%s", "\u2028",
]  # fmt: skip


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DEADLINE_", "DL_"))}
    (tmp_path / "home").mkdir(exist_ok=True)
    return {**kept, "HOME": str(tmp_path / "home"), "DEADLINE_CLOUD_TELEMETRY_OPT_OUT": "true"}


def snapshot(reference: str, root: Path, out: Path, env: dict[str, str]) -> bytes:
    words = [reference, "manifest", "snapshot", "--root", str(root), "--destination", str(out), "--name", "theirs"]
    subprocess.run(words, env=env, check=True, capture_output=True)
    (found,) = out.glob("theirs-*.manifest")
    return found.read_bytes()


def ours(root: Path, out: Path, env: dict[str, str], *words: str) -> tuple[str, bytes]:
    bin_ = Path(__file__).resolve().parents[2] / "bin"
    hashing = subprocess.Popen([sys.executable, bin_ / "dl-hash", *words, root], env=env, stdout=subprocess.PIPE)
    writing = [sys.executable, bin_ / "dl-manifest", "--to", out, "--name", "ours"]
    subprocess.run(writing, env=env, stdin=hashing.stdout, stdout=subprocess.DEVNULL, check=True)
    assert hashing.wait() == 0
    (found,) = out.glob("ours-*.manifest")
    return found.name, found.read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_a_snapshot_is_the_same_to_the_byte(reference: str, tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    root, env = tmp_path / "root", environment(tmp_path)
    for n in range(60):
        folder = root.joinpath(*generator.sample([f"d{name}" for name in NAMES], generator.randrange(3)))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{n if n % 3 else ''}{generator.choice(NAMES)}"
        if path.is_dir():
            continue
        path.write_bytes(generator.randbytes(generator.choice([0, 1, 100, 5000, 300_000])))
        os.utime(path, ns=(0, generator.randrange(10**18, 2 * 10**18)))
    (root / "link").symlink_to(next(path for path in sorted(root.rglob("*")) if path.is_file()))
    out = tmp_path / "out"
    out.mkdir()
    theirs = snapshot(reference, root, out, env)
    # The reference's snapshot leaves out hidden names and goes into linked folders.
    name, mine = ours(root, out, env, "--no-hidden", "--links", "follow")
    assert mine == theirs
    (their_name,) = (path.name for path in out.glob("theirs-*"))
    assert name.split("-")[1] == their_name.split("-")[1]  # the hash of the root


def test_each_reads_what_the_other_wrote(reference: str, tmp_path: Path) -> None:
    root, out, env = tmp_path / "root", tmp_path / "out", environment(tmp_path)
    root.mkdir()
    out.mkdir()
    (root / "stays").write_bytes(b"s")
    (root / "goes").write_bytes(b"g")
    (root / "changes").write_bytes(b"c")
    snapshot(reference, root, out, env)
    ours(root, out, env)
    (root / "goes").unlink()
    (root / "changes").write_bytes(b"changed")
    (root / "comes").write_bytes(b"n")
    (mine,), (theirs,) = out.glob("ours-*"), out.glob("theirs-*")
    words = [reference, "manifest", "diff", "--root", str(root), "--manifest", str(mine), "--json"]
    told = subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout
    assert json.loads(told[told.index("{") :]) == {"new": ["comes"], "modified": ["changes"], "deleted": ["goes"]}
    diff = Path(__file__).resolve().parents[2] / "bin" / "dl-diff"
    done = subprocess.run([sys.executable, diff, theirs, root], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["path"]: row["status"] for row in rows if row["type"] == "file"} == {
        "comes": "new",
        "changes": "modified",
        "goes": "deleted",
    }


TEMPLATE = {
    "specificationVersion": "jobtemplate-2023-09",
    "name": "Same",
    "parameterDefinitions": [
        {"name": "In", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "IN", "default": "data"},
        {"name": "File", "type": "PATH", "objectType": "FILE", "dataFlow": "INOUT", "default": "data/deep/f"},
        {"name": "Out", "type": "PATH", "dataFlow": "OUT", "default": "out"},
        {"name": "Count", "type": "INT", "default": 3},
        {"name": "Factor", "type": "FLOAT", "default": 0.5},
        {"name": "Text", "type": "STRING", "default": "t"},
    ],
    "steps": [{"name": "Only", "script": {"actions": {"onRun": {"command": "true"}}}}],
}


def test_a_job_gets_the_same_attachments_and_parameters(reference: str, farm: Any, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    for name in ("data/one", "data/deep/f", "data/.hidden", "more/x"):
        path = bundle / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (bundle / "data" / "link").symlink_to("one")
    (bundle / "template.json").write_text(json.dumps(TEMPLATE))
    references = {
        "inputs": {"filenames": [str(bundle / "more" / "x")], "directories": []},
        "outputs": {"directories": [str(bundle / "out2")]},
        "referencedPaths": [str(bundle / "nowhere" / "y")],
    }
    (bundle / "asset_references.json").write_text(json.dumps({"assetReferences": references}))
    values = ["-p", "Count=7", "-p", "Text=a=b"]

    def submitted(*words: str) -> dict[str, Any]:
        done = farm.run(*words, "bundle", "submit", "--yes", *values, str(bundle))
        assert done.returncode == 0, done.stderr + done.stdout
        job_id = [word for word in done.stdout.split() if word.startswith("job-")][-1]
        found = farm.run("dl-ls", "job", "--job-id", job_id)
        if found.returncode:
            found = farm.run("dl-ls", "job", job_id)
        (row,) = (json.loads(line) for line in found.stdout.splitlines() if '"type":"resource"' in line)
        return dict(row["data"])

    mine, theirs = submitted("deadline"), submitted(reference)
    assert mine["parameters"] == theirs["parameters"]
    for field in ("priority", "maxFailedTasksCount", "maxRetriesPerTask", "name"):
        assert mine.get(field) == theirs.get(field), field
    assert mine["attachments"]["fileSystem"] == theirs["attachments"]["fileSystem"]
    pairs = list(zip(mine["attachments"]["manifests"], theirs["attachments"]["manifests"], strict=True))
    assert pairs
    for own, their in pairs:
        own_path, their_path = own.pop("inputManifestPath"), their.pop("inputManifestPath")
        assert own_path.rpartition("/")[2] == their_path.rpartition("/")[2]
        assert own == their
