"""dl-sync and the reference's `deadline queue sync-output` go on from each other's checkpoints."""

from __future__ import annotations

import json
import re
import shutil
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


def theirs(reference: str, renders: Renders, folder: Path, *words: str, ignore: bool = True) -> str:
    """Run the reference's command with the checkpoint in `folder`: what it prints."""
    given = ["--ignore-storage-profiles"] if ignore else []
    command = renders.command(reference, "queue", "sync-output", "--checkpoint-dir", str(folder), *given, *words)
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


def test_both_map_paths_and_write_the_same_files(reference: str, renders: Renders, tmp_path: Path) -> None:
    """Storage profiles of both systems: the same places, checkpoints and status files, each going on from the other."""
    show, cache, own = tmp_path / "show", tmp_path / "cache", tmp_path / "own"
    show.mkdir()
    cache.mkdir()

    def profile(family: str, **locations: str) -> str:
        made = renders.api.create_storage_profile(
            farmId=renders.ids.farm, displayName=f"{family} {tmp_path.name}", osFamily=family,
            fileSystemLocations=[{"name": name, "path": path, "type": "SHARED"} for name, path in locations.items()],
        )["storageProfileId"]  # fmt: skip
        renders.api.update_queue(
            farmId=renders.ids.farm, queueId=renders.ids.queue, allowedStorageProfileIdsToAdd=[made]
        )
        return str(made)

    studio = profile("LINUX", Show="/studio/show", Cache="/studio/show/cache", Gone="/gone", Other="/other")
    windows = profile("WINDOWS", Show="P:\\Show")
    mine = profile("LINUX", Show=str(show), Cache=str(cache), Gone=str(tmp_path / "gone"))
    begun = ("--storage-profile-id", mine)

    def found() -> dict[str, str]:
        rows = texts(tmp_path).items()
        return {path: text for path, text in rows if path.split("/")[0] in ("show", "cache", "gone", "own") and
                ".deadline" not in path}  # fmt: skip

    def submitted() -> None:
        renders.submit("/studio/show/s", {"f1": "1"}, profile=studio)
        renders.submit("/studio", {"show/cache/x": "c", "show/y": "y", "no": "n"}, profile=studio)
        renders.submit("p:\\SHOW\\w", {"d/z": "z"}, profile=windows, rootPathFormat="windows")
        renders.submit("/gone/a", {"g": "g"}, profile=studio)
        renders.submit("/other/a", {"o": "o"}, profile=studio)
        renders.submit(own, {"m": "m"}, profile=mine)
        renders.submit(tmp_path / "none", {"m": "m"})
        renders.render()

    ours, other = tmp_path / "ours", tmp_path / "other"
    renders.sync(ours, *begun, ignore=False)
    shutil.copytree(ours, other)
    submitted()
    theirs(reference, renders, other, *begun, ignore=False)
    places = found()
    assert set(places) == {"show/s/f1", "show/y", "show/w/d/z", "cache/x", "gone/a/g", "own/m"}
    status = Path(".deadline") / f"{renders.ids.queue}_download_status.json"
    wanted = [plain((folder / status).read_text()) for folder in (show, cache, tmp_path / "gone")]
    for path in places:
        (tmp_path / path).unlink()
    for folder in (show, cache):
        (folder / status).unlink()
    renders.sync(ours, *begun, ignore=False)
    assert found() == places
    assert [plain((folder / status).read_text()) for folder in (show, cache)] == wanted[:2]
    checkpoints = [json.loads(plain(next(each.glob("*_checkpoint.json")).read_text())) for each in (ours, other)]
    for each in checkpoints:
        each["jobs"].sort(key=lambda row: row["job"]["jobId"])
        for row in each["jobs"]:
            row.pop("sessionEndedTimestamp", None)  # the reference gives all jobs of a run that of one
    assert checkpoints[0] == checkpoints[1]
    # Each goes on from the other's.
    again = renders.sync(other, *begun, ignore=False)
    assert (again.files, again.end["jobs_unchanged"]) == ({}, 6)
    submitted()
    for path in places:
        (tmp_path / path).unlink()
    assert len(renders.sync(other, *begun, ignore=False).files) == 6
    told = theirs(reference, renders, other, *begun, ignore=False)
    assert "Downloaded files: 0" in told and "unchanged: 12" in told


def plain(text: str) -> str:
    """A file without what differs from run to run."""
    document = json.loads(text)
    text = json.dumps(document, sort_keys=True)
    for name in ("last_updated", "last_sync_completed_at", "downloadsCompletedTimestamp"):
        text = re.sub(f'"{name}": "[^"]*"', f'"{name}": ""', text)
    return text


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
