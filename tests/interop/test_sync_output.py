"""dl-sync and the reference's `deadline queue sync-output` go on from each other's checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "farm"))
from renders import Renders, Synced, texts


@pytest.fixture(scope="module")
def renders(farm: Any) -> Renders:
    return Renders(farm)


def theirs(reference: str, renders: Renders, folder: Path, *words: str) -> str:
    """Run the reference's command with the checkpoint in `folder`: what it prints."""
    command = renders.command(
        reference, "queue", "sync-output", "--checkpoint-dir", str(folder), "--ignore-storage-profiles", *words
    )
    environment = {**renders.farm.environment, "HOME": str(folder.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_goes_on_where_the_other_stopped(reference: str, renders: Renders, tmp_path: Path) -> None:
    out, folder = tmp_path / "out", tmp_path / "checkpoint"
    out.mkdir()
    theirs(reference, renders, folder)
    renders.submit(out, {"a": "1"}, {"b": "2", "deep/c": "3"})
    renders.render()
    ours: Synced = renders.sync(folder)
    assert len(ours.files) == 3
    (out / "a").unlink()
    told = theirs(reference, renders, folder)
    assert "unchanged: 1" in told
    assert "Downloaded files: 0" in told
    assert not (out / "a").exists()
    renders.submit(out, {"d": "4"})
    renders.render()
    told = theirs(reference, renders, folder)
    assert "Downloaded files: 1" in told
    assert texts(out) == {"b": "2", "deep/c": "3", "d": "4"}
    again = renders.sync(folder)
    assert [again.files, again.end["jobs_unchanged"], again.end["session_actions"]] == [{}, 2, 0]


def test_both_write_the_same_files(reference: str, renders: Renders, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mine, other = tmp_path / "mine", tmp_path / "other"
    renders.sync(mine)
    theirs(reference, renders, other)
    renders.submit(out, {"a": "1"}, {"b": "2", "a": "newer"})
    renders.render()
    told: Synced = renders.sync(mine)
    found = texts(out)
    theirs(reference, renders, other)
    assert texts(out) == found
    name = f"{renders.ids.queue}_ignore-storage-profiles"
    one, two = (json.loads((each / f"{name}_download_checkpoint.json").read_text()) for each in (mine, other))
    assert one["jobs"] == two["jobs"]
    assert one.keys() == two.keys()
    one, two = (json.loads((each / f"{name}_download_status.json").read_text()) for each in (mine, other))
    assert told.rows
    for each in (one, two):
        del each["sync_metadata"]["last_sync_completed_at"]
        for job in each["jobs"].values():
            del job["last_updated"]
    assert one == two


def test_only_one_of_them_runs_at_a_time(reference: str, renders: Renders, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    renders.sync(folder)
    path = next(folder.glob("*_checkpoint.json"))
    follower = subprocess.Popen(
        renders.command("dl-sync", "--follow", "--checkpoint-dir", str(folder), "--ignore-storage-profiles"),
        env=renders.farm.environment, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        lock = Path(f"{path}.pid")
        while not lock.exists():
            assert follower.poll() is None
        with pytest.raises(AssertionError, match=f"process with pid {follower.pid} already holds the lock"):
            theirs(reference, renders, folder)
    finally:
        follower.terminate()
        follower.communicate(timeout=20)
    theirs(reference, renders, folder)
