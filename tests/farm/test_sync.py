"""dl-sync on a real farm and store: what is fetched, what is remembered, and what happens when something fails."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from renders import BUCKET, Renders, texts


@pytest.fixture(scope="module")
def renders(farm: Any) -> Renders:
    return Renders(farm)


@pytest.fixture
def place(renders: Renders, tmp_path: Path) -> Any:
    """(folder that jobs put out to, folder of a checkpoint that begins now)."""
    renders.sync(tmp_path / "checkpoint")
    (tmp_path / "out").mkdir()
    yield tmp_path / "out", tmp_path / "checkpoint"
    renders.silent = False
    renders.held.clear()
    renders.render()  # so that the next test has the worker to itself


def job_id(job: Any) -> str:
    return str(job.ids["jobId"])


def test_output_is_fetched_once_and_the_newest_of_each_path(renders: Renders, place: Any) -> None:
    out, folder = place
    first = renders.submit(out, {"a.txt": "first", "deep/er/b.txt": "b", "empty": ""})
    renders.render()
    time.sleep(1.1)  # Last-Modified has no more than seconds
    second = renders.submit(out, {"a.txt": "second"}, {})
    renders.render()
    done = renders.sync(folder)
    assert texts(out) == {"a.txt": "second", "deep/er/b.txt": "b", "empty": ""}
    assert (out / "deep/er/b.txt").stat().st_mtime_ns == 1_700_000_000_000_001_000
    assert set(done.files.values()) == {"new"}
    assert len(done.files) == 3
    assert {row["download_status"] for row in done.jobs.values()} == {"downloaded"}
    assert done.end["session_actions"] == 3
    (out / "a.txt").unlink()
    again = renders.sync(folder)
    assert [again.end["jobs_unchanged"], again.end["session_actions"], again.files] == [2, 0, {}]
    assert set(again.tracked) == {job_id(first), job_id(second)}


def test_each_job_keeps_its_own_sessions(renders: Renders, place: Any) -> None:
    """The reference writes one job's session end into all jobs of a run."""
    out, folder = place
    over = renders.submit(out, {"over": "1"})
    renders.render()
    running = renders.submit(out, {"r1": "1"}, {"r2": "2"})
    renders.held.add((job_id(running), 1))
    renders.render()
    done = renders.sync(folder)
    assert set(texts(out)) == {"over", "r1"}
    assert done.jobs[job_id(running)]["download_status"] == "in_progress"
    (session,) = over.sessions()
    assert done.tracked[job_id(over)]["sessionEndedTimestamp"] == session["endedAt"].isoformat()
    assert "sessionEndedTimestamp" not in done.tracked[job_id(running)]
    index = done.tracked[job_id(running)]["sessionCompletedIndexes"]
    actions = running.actions(sessionId=next(iter(index)))
    (action,) = (each for each in actions if "taskRun" in each["definition"] and each["status"] == "SUCCEEDED")
    assert list(index.values()) == [int(action["sessionActionId"].rpartition("-")[2])]
    renders.held.clear()
    renders.render()
    done = renders.sync(folder)
    assert [Path(path).name for path in done.files] == ["r2"]
    assert done.end["session_actions"] == 1
    assert done.tracked[job_id(over)]["sessionEndedTimestamp"] == session["endedAt"].isoformat()


def test_a_requeued_task_is_fetched_again(renders: Renders, place: Any) -> None:
    out, folder = place
    job = renders.submit(out, {"f": "before"})
    renders.render()
    renders.sync(folder)
    renders.outputs[job_id(job), 0] = {"f": "after"}
    job.update_task(0, "PENDING")
    job.update_task(0, "READY") if job.statuses() != ["READY"] else None
    renders.render()
    assert job.status == "SUCCEEDED"
    done = renders.sync(folder)
    assert texts(out) == {"f": "after"}
    assert done.end["session_actions"] == 1


def test_one_failure_holds_up_nothing_else(renders: Renders, place: Any) -> None:
    out, folder = place
    broken = renders.submit(out, {"lost": "no longer there", "x": "x"}, {"y": "y"})
    whole = renders.submit(out, {"z": "z"})
    renders.render()
    key = renders.data_key("no longer there")
    renders.s3.delete_object(Bucket=BUCKET, Key=key)
    done = renders.sync(folder, status=66)
    assert set(texts(out)) == {"x", "y", "z"}
    assert not done.end["ok"]
    assert [row["download_status"] for row in (done.jobs[job_id(broken)], done.jobs[job_id(whole)])] == [
        "failed",
        "downloaded",
    ]
    assert set(done.tracked) == {job_id(whole)}
    assert done.read("failed_jobs") == {job_id(broken): 1}
    told = done.read("download_status")
    assert told["sync_metadata"]["last_run_status"] == "failed"
    entry = told["jobs"][job_id(broken)]
    assert [entry[name] for name in ("download_status", "total_files", "downloaded_files", "failed_files")] == [
        "failed", 3, 2, 1,
    ]  # fmt: skip
    assert entry["error_code"] == "PATH_NOT_FOUND"
    assert sorted(each["download_status"] for each in entry["tasks"].values()) == ["downloaded", "failed"]
    renders.s3.put_object(Bucket=BUCKET, Key=key, Body=b"no longer there")
    done = renders.sync(folder)
    assert texts(out)["lost"] == "no longer there"
    assert done.read("failed_jobs") == {}
    assert done.read("download_status")["jobs"][job_id(broken)]["download_status"] == "downloaded"


def test_what_always_fails_is_given_up(renders: Renders, place: Any) -> None:
    out, folder = place
    job = renders.submit(out, {"f": f"lost {out}"})
    renders.render()
    renders.s3.delete_object(Bucket=BUCKET, Key=renders.data_key(f"lost {out}"))
    done = renders.sync(folder, status=66)
    failures = folder / f"{renders.ids.queue}_ignore-storage-profiles_failed_jobs.json"
    assert json.loads(failures.read_text()) == {job_id(job): 1}
    failures.write_text(json.dumps({job_id(job): 4, "job-" + "0" * 32: 2}))
    done = renders.sync(folder, status=66)
    assert "given up" in done.stderr
    assert done.read("failed_jobs") == {job_id(job): 5}
    assert renders.sync(folder).jobs == {}
    renders.sync(folder, "--force-bootstrap", "--bootstrap-lookback-minutes", "1", "--dry-run")
    assert done.read("failed_jobs") == {job_id(job): 5}


def test_a_content_that_is_not_what_its_name_says_is_refused(renders: Renders, place: Any) -> None:
    out, folder = place
    renders.submit(out, {"f": "as it was rendered"})
    renders.render()
    key = renders.data_key("as it was rendered")
    # The server refuses such a content under a name with extension, which very early submitters did not write.
    renders.s3.delete_object(Bucket=BUCKET, Key=key)
    key = key.removesuffix(".xxh128")
    renders.s3.put_object(Bucket=BUCKET, Key=key, Body=b"as somebody made")
    done = renders.sync(folder, status=65)
    assert texts(out) == {}
    assert list(out.iterdir()) == []
    assert "not what its name says" in done.stderr
    renders.s3.delete_object(Bucket=BUCKET, Key=key)


@pytest.mark.parametrize("path", ["../escaped", "/tmp/escaped-absolutely", "a/../../escaped"])
def test_a_hostile_manifest_writes_nothing(renders: Renders, place: Any, path: str) -> None:
    out, folder = place
    renders.submit(out, {path: "gotcha", "fine": "fine"}, {"other": "task"})
    renders.render()
    done = renders.sync(folder, status=65)
    assert texts(out) == {"other": "task"}
    assert not (out.parent / "escaped").exists()
    assert not os.path.exists("/tmp/escaped-absolutely")
    assert "refused" in done.stderr


def test_outputs_of_workers_that_tell_of_none_are_found(renders: Renders, place: Any) -> None:
    out, folder = place
    renders.silent = True
    renders.submit(out, {"f1": "1"}, {}, {"f2": "2"})
    renders.submit(out, {"g": "named"}, fileSystemLocationName="Show")
    renders.render()
    done = renders.sync(folder)
    assert texts(out) == {"f1": "1", "f2": "2", "g": "named"}
    assert done.end["session_actions"] == 4


def test_conflicts_are_resolved_as_asked(renders: Renders, place: Any) -> None:
    out, folder = place
    (out / "f.txt").write_text("mine")
    renders.submit(out, {"f.txt": "rendered"})
    renders.render()
    copy = folder.parent / "copy"
    for name in ("skip", "copy"):
        subprocess.run(["cp", "-r", folder, folder.parent / name], check=True)
    assert set(renders.sync(folder.parent / "skip", "--conflict-resolution=SKIP").files.values()) == {"skipped"}
    assert texts(out) == {"f.txt": "mine"}
    renders.sync(copy, "--conflict-resolution=create_copy")
    assert texts(out) == {"f.txt": "mine", "f (1).txt": "rendered"}
    renders.sync(folder)
    assert texts(out)["f.txt"] == "rendered"


def test_jobs_without_attachments_and_farm_failures_are_told(renders: Renders, place: Any) -> None:
    from simulated_worker import Submitted, step, template

    out, folder = place
    plain = Submitted(renders, renders.ids, template(step()))
    renders.outputs[job_id(plain), 0] = {}
    half = renders.submit(out, {"f": "f"}, {"g": "g"})
    renders.failing.add((job_id(half), 1))
    # Without attachments there is no root to put anything below.
    render = renders._end
    renders._end = lambda worker, kind, body, action: (  # type: ignore[method-assign]
        "SUCCEEDED" if body.get("taskId", "").startswith(f"task-{plain.step_ids()['stepId'][5:]}")
        else render(worker, kind, body, action)
    )  # fmt: skip
    try:
        renders.render()
    finally:
        del renders._end  # type: ignore[method-assign]
    done = renders.sync(folder)
    assert done.jobs[job_id(plain)]["skip_reason"] == "no_attachments"
    jobs = done.read("download_status")["jobs"]
    assert jobs[job_id(plain)]["download_status"] == "skipped"
    assert sorted(each["download_status"] for each in jobs[job_id(half)]["tasks"].values()) == [
        "downloaded",
        "farm_failed",
    ]
    assert done.tracked[job_id(plain)]["job"]["attachments"] is None


def test_storage_profiles_map_paths(renders: Renders, place: Any) -> None:
    out, folder = place
    there, here, mine = "/studio/show", out / "show", out / "cache"
    here.mkdir()

    def profile(name: str, *locations: tuple[str, str]) -> str:
        made = renders.api.create_storage_profile(
            farmId=renders.ids.farm, displayName=name, osFamily="LINUX",
            fileSystemLocations=[{"name": each, "path": path, "type": "SHARED"} for each, path in locations],
        )["storageProfileId"]  # fmt: skip
        return str(made)

    theirs = profile("theirs", ("Show", there), ("Cache", "/studio/show/cache"), ("Other", "/other"))
    ours = profile("ours", ("Show", str(here)), ("Cache", str(mine)))
    renders.api.update_queue(
        farmId=renders.ids.farm, queueId=renders.ids.queue, allowedStorageProfileIdsToAdd=[theirs, ours]
    )
    begun = ("--storage-profile-id", ours)
    renders.sync(folder, *begun, ignore=False)
    renders.submit(f"{there}/shots", {"s1/a": "a"}, profile=theirs)
    renders.submit(there, {"cache/c": "c", "b": "b"}, profile=theirs)
    renders.submit("/other", {"d": "d"}, profile=theirs)
    renders.submit(out / "own", {"e": "e"}, profile=ours)
    lost = renders.submit(out / "lost", {"f": "f"})
    renders.render()
    done = renders.sync(folder, *begun, ignore=False)
    found = {path: text for path, text in texts(out).items() if ".deadline" not in path}
    assert found == {"show/shots/s1/a": "a", "show/b": "b", "cache/c": "c", "own/e": "e"}
    assert done.jobs[job_id(lost)]["skip_reason"] == "missing_storage_profile"
    assert done.end["left_out"] == 1
    assert "/other/d" in done.stderr
    status = json.loads((here / ".deadline" / f"{renders.ids.queue}_download_status.json").read_text())
    assert status["sync_metadata"]["storage_profile_id"] == ours
    assert status["jobs"][job_id(lost)]["skip_reason"] == "missing_storage_profile"
    assert done.read("download_checkpoint", ours)["localStorageProfileId"] == ours


def test_the_checkpoint_is_of_one_storage_profile(renders: Renders, place: Any) -> None:
    _, folder = place
    path = next(folder.glob("*_checkpoint.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "localStorageProfileId": "sp-other"}))
    renders.sync(folder, status=64)


def test_a_signal_saves_what_is_done(renders: Renders, place: Any) -> None:
    out, folder = place
    small = renders.submit(out, {"small": "small"})
    big = renders.submit(out, {f"big/{number}": f"{number}{'x' * 200_000}" for number in range(20)})
    renders.render()
    before = json.loads(next(folder.glob("*_checkpoint.json")).read_text())["downloadsCompletedTimestamp"]
    command = renders.command(
        "dl-sync", "--checkpoint-dir", str(folder), "--ignore-storage-profiles", "--limit-rate", "100K"
    )
    running = subprocess.Popen(command, env=renders.farm.environment, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    rows = []
    for line in running.stdout:
        rows.append(json.loads(line))
        if rows[-1]["type"] == "job":
            running.terminate()
    assert running.wait(20) == 128 + signal.SIGTERM
    assert rows[-1]["ok"] is False
    document = json.loads(next(folder.glob("*_checkpoint.json")).read_text())
    assert [each["job"]["jobId"] for each in document["jobs"]] == [job_id(small)]
    assert document["downloadsCompletedTimestamp"] == before
    assert not list(folder.glob("*.pid*"))
    assert not list(out.rglob(".dl-*"))
    done = renders.sync(folder)
    assert len(texts(out)) == 21
    assert set(done.jobs) == {job_id(big)}


def test_the_checkpoint_is_saved_while_it_runs(renders: Renders, place: Any) -> None:
    out, folder = place
    small = renders.submit(out, {"small": "small"})
    renders.submit(out, {f"big/{number}": f"{number}{'x' * 200_000}" for number in range(20)})
    renders.render()
    at_once = "import dl_tools.dl_sync as tool; tool.SAVE_EVERY_S = 0; raise SystemExit(tool.main())"
    command = renders.command(sys.executable, "-c", at_once, "--checkpoint-dir", str(folder))
    running = subprocess.Popen(
        [*command, "--ignore-storage-profiles", "--limit-rate", "100K"],
        env=renders.farm.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    for line in running.stdout:
        if json.loads(line)["type"] == "job":
            running.kill()
            break
    running.communicate()
    document = json.loads(next(folder.glob("*_checkpoint.json")).read_text())
    assert [each["job"]["jobId"] for each in document["jobs"]] == [job_id(small)]
    assert len(renders.sync(folder).jobs) == 1
    assert len(texts(out)) == 21


def test_killed_at_any_moment_it_is_whole_after_the_next_run(renders: Renders, place: Any) -> None:
    out, folder = place
    wanted = {f"{number:03}": f"{number} " * random.Random(number).randrange(1, 20_000) for number in range(60)}
    rows = list(wanted.items())
    for start in range(0, 60, 20):
        renders.submit(out, dict(rows[start : start + 10]), dict(rows[start + 10 : start + 20]))
    renders.render()
    chance = random.Random(7)
    command = renders.command("dl-sync", "--checkpoint-dir", str(folder), "--ignore-storage-profiles")
    ended = 0
    for _ in range(8):
        running = subprocess.Popen(command, env=renders.farm.environment, stdout=subprocess.PIPE)
        time.sleep(chance.uniform(0.05, 0.6))  # the moment is what is tried here
        running.kill()
        running.communicate()
        ended += running.returncode == 0
        for name, text in texts(out).items():
            assert name.startswith(".dl-") or text == wanted[name]
    renders.sync(folder)
    assert texts(out) == wanted
    assert renders.sync(folder).end["session_actions"] == 0


def test_a_store_that_is_away_is_no_fault_of_the_jobs(renders: Renders, place: Any) -> None:
    out, folder = place
    renders.submit(out, {"f": "f"})
    renders.render()
    with Door(renders.farm.environment["AWS_ENDPOINT_URL_S3"]) as door:
        door.shut()
        done = renders.sync(folder, status=69, environment={"AWS_ENDPOINT_URL_S3": door.url})
        assert done.read("failed_jobs") is None
        assert done.tracked == {}
        command = renders.command(
            "dl-sync", "--follow", "--interval=0.2", "--retry-for=0.5", "--checkpoint-dir", str(folder),
            "--ignore-storage-profiles",
        )  # fmt: skip
        environment = {**renders.farm.environment, "AWS_ENDPOINT_URL_S3": door.url}
        running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert running.stdout is not None and running.stderr is not None
        try:
            assert "looking again" in running.stderr.readline()
            door.open()
            assert json.loads(running.stdout.readline())["local_path"] == str(out / "f")
        finally:
            running.terminate()
            running.communicate(timeout=20)
    assert texts(out) == {"f": "f"}


class Door:
    """A port that leads to a server while it is open, and refuses connections while it is shut."""

    def __init__(self, url: str) -> None:
        self.target = (urlsplit(url).hostname, urlsplit(url).port)
        self.listener: socket.socket | None = None
        self.port = 0

    def __enter__(self) -> Door:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def shut(self) -> None:
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> None:
        try:
            while block := source.recv(65536):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()


@pytest.mark.parametrize("program", [["dl-sync"], ["deadline", "queue", "sync-output", "--json"]])
def test_a_follower_fetches_what_comes(renders: Renders, place: Any, program: list[str]) -> None:
    out, folder = place
    command = renders.command(
        *program, "--follow", "--interval=0.2", "--checkpoint-dir", str(folder), "--ignore-storage-profiles"
    )
    running = subprocess.Popen(command, env=renders.farm.environment, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    try:
        for name in ("one", "two"):
            renders.submit(out, {name: name})
            renders.render()
            for line in running.stdout:
                if json.loads(line)["type"] == "job":
                    break
            assert (out / name).read_text() == name
        renders.sync(folder, status=75)
    finally:
        running.terminate()
        running.communicate(timeout=20)
    assert running.returncode == 128 + signal.SIGTERM
    assert renders.sync(folder).end["jobs_unchanged"] == 2
