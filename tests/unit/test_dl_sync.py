"""The parts of dl-sync and of the census that need no farm: the walk over jobs, places, locks, times, order."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import Any

import pytest
from dl_tools.dl_sync import status_file
from dl_tools.dl_sync.checkpoint import Checkpoint, Failures, pid_lock, sweep
from dl_tools.dl_sync.survey import PAGE, _walk
from dl_tools.dl_sync.transfer import _Region, places
from hypothesis import given, settings
from hypothesis import strategies as st

from libdeadline import manifest
from libdeadline.census import moment
from libdeadline.errors import Trouble
from libdeadline.path_mapping import Rule
from libdeadline.pool import each

START = datetime(2026, 1, 1, tzinfo=UTC)


class Service:
    """SearchJobs over jobs that were created at given moments."""

    def __init__(self, moments: list[int]) -> None:
        self.jobs = [{"jobId": f"job-{n}", "createdAt": START + timedelta(seconds=at)} for n, at in enumerate(moments)]
        self.asked = 0

    def call(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        assert operation == "SearchJobs"
        rows = sorted(self.jobs, key=lambda job: (job["createdAt"], job["jobId"]))
        for each_filter in asked["filterExpressions"]["filters"]:
            if "dateTimeFilter" in each_filter:
                rows = [row for row in rows if row["createdAt"] >= each_filter["dateTimeFilter"]["dateTime"]]
        return {"jobs": rows[asked["itemOffset"] :][: asked["pageSize"]]}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=350))
def test_the_walk_finds_every_job_once(moments: list[int]) -> None:
    service = Service(moments)
    found = [job["jobId"] for job in _walk(service, {"farmId": "f", "queueId": "q"}, {})]  # type: ignore[arg-type]
    assert sorted(found) == sorted(job["jobId"] for job in service.jobs)


def test_the_walk_passes_many_jobs_of_one_moment() -> None:
    service = Service([5] * (3 * PAGE) + [6])
    found = [job["jobId"] for job in _walk(service, {"farmId": "f", "queueId": "q"}, {})]  # type: ignore[arg-type]
    assert len(found) == len(set(found)) == 3 * PAGE + 1


def test_output_stays_where_it_was_or_goes_where_the_rules_say() -> None:
    assert places("/proj", "posix", None).find("a/b") == ("/proj", "a/b")
    assert places("C:\\proj", "windows", None).is_empty
    assert places("/other", "posix", []).is_empty
    rules = [Rule("posix", "/proj", "/p"), Rule("posix", "/proj/cache", "/c")]
    assert [places("/", "posix", rules).find(path) for path in ("proj/cache/x", "proj/y", "z")] == [
        ("/c", "x"), ("/p", "y"), None,
    ]  # fmt: skip


def test_a_checkpoint_is_kept_as_it_was_read(tmp_path: Path) -> None:
    document = {
        "localStorageProfileId": "sp-1",
        "downloadsStartedTimestamp": "2026-01-01T00:00:00+00:00",
        "eventualConsistencyMaxSeconds": 60,
        "jobs": [
            {"job": {"jobId": "job-1"}, "sessionEndedTimestamp": "2026-01-01T00:05:00.123000+00:00"},
            {"job": {"jobId": "job-2", "name": "ä", "attachments": None}},
            {"job": {"jobId": "job-3", "unknown": [1]}, "sessionCompletedIndexes": {"session-1": 12}},
        ],
        "downloadsCompletedTimestamp": "2026-01-01T00:10:00.500000+00:00",
    }
    path = tmp_path / "checkpoint.json"
    path.write_text(json.dumps(document))
    checkpoint = Checkpoint.load(str(path))
    assert checkpoint is not None
    checkpoint.save(str(tmp_path / "again.json"))
    assert json.loads((tmp_path / "again.json").read_text()) == document
    assert (tmp_path / "again.json").stat().st_mode & 0o777 == 0o600
    assert Checkpoint.load(str(tmp_path / "none")) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"jobs": 1}', "null", "{"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "checkpoint.json"
    path.write_text(text)
    with pytest.raises(Trouble, match="is no checkpoint") as caught:
        Checkpoint.load(str(path))
    assert caught.value.status == 65


@pytest.mark.parametrize("text", ["", "[]", "{", '{"job-1": "x"}'])
def test_a_damaged_list_of_failures_counts_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "failed.json"
    path.write_text(text)
    assert Failures(str(path)).counts == {}


def test_a_full_disk_gives_no_job_up(tmp_path: Path) -> None:
    failures = Failures(str(tmp_path / "f"))
    for _ in range(9):
        failures.add("job-1", "DISK_FULL")
        failures.add("job-2", "PATH_NOT_FOUND")
    failures.add("job-3", "UNKNOWN")
    failures.add("job-3", "NETWORK_ERROR")
    failures.save()
    kept = Failures(str(tmp_path / "f"))
    assert kept.counts == {"job-1": 1, "job-2": 9, "job-3": 1}
    assert [kept.retried(), kept.is_given_up("job-2")] == [["job-1", "job-3"], True]


def test_the_lock_is_held_by_one_and_taken_over_from_the_dead(tmp_path: Path) -> None:
    path, told = str(tmp_path / "lock.pid"), []
    with pid_lock(path, told.append):
        assert Path(path).read_text() == str(os.getpid())
        with pytest.raises(Trouble, match=f"the process {os.getpid()}") as caught, pid_lock(path, told.append):
            pass
        assert caught.value.status == 75
        assert Path(path).exists()
    assert os.listdir(tmp_path) == []
    for text in ("999999999", "rubbish", ""):
        Path(path).write_text(text)
        with pid_lock(path, told.append):
            assert Path(path).read_text() == str(os.getpid())
    assert len(told) == 3
    with pid_lock(path, told.append):
        Path(path).write_text("1")  # someone took it for stale: it is not ours to remove
    assert Path(path).read_text() == "1"


@pytest.mark.skipif(not os.path.exists("/proc/uptime"), reason="needs /proc")
def test_a_lock_of_a_process_whose_id_another_one_has_by_now_is_taken_over(tmp_path: Path) -> None:
    path, told = tmp_path / "lock.pid", []
    for pid in (os.getpid(), os.getppid()):
        path.write_text(str(pid))
        os.utime(path, (1_700_000_000, 1_700_000_000))  # before that process began
        with pid_lock(str(path), told.append):
            assert path.read_text() == str(os.getpid())
    assert len(told) == 2
    path.write_text(str(os.getppid()))
    with pytest.raises(Trouble, match=f"the process {os.getppid()}"), pid_lock(str(path), told.append):
        pass


def test_what_killed_runs_left_is_swept_up_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "q_download_checkpoint.json"
    left = ["q_download_checkpoint.json.123.tmp", "q_download_checkpoint.json.pid999999999~tmp"]
    kept = [
        path.name, f"{path.name}.pid", f"{path.name}.pid{os.getpid()}~tmp", f"x{path.name}.123.tmp",
        f"{path.name}.mine.tmp", "q_failed_jobs.json",
    ]  # fmt: skip
    for name in (*left, *kept):
        (tmp_path / name).write_text("")
    sweep(str(path))
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


@pytest.mark.parametrize(
    ("text", "age_s"),
    [
        (json.dumps({"hostname": socket.gethostname(), "time": time.time(), "pid": 999999999}), 0),
        (json.dumps({"hostname": "elsewhere", "time": 0}), 0),
        ("", 120),
        ('{"hostname"', 120),
    ],
    ids=["killed here", "old", "empty", "cut"],
)
def test_the_lock_of_a_status_file_that_a_killed_run_left_holds_nobody_up(
    tmp_path: Path, text: str, age_s: float
) -> None:
    path, told = tmp_path / "status.json", []
    lock = tmp_path / "status.json.lock"
    lock.write_text(text)
    os.utime(lock, (time.time() - age_s, time.time() - age_s))
    began = time.monotonic()
    with status_file._lock(str(path), told.append):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < 5
    assert not told and not lock.exists()


def test_times_of_the_store_are_read_in_both_spellings() -> None:
    assert moment("2026-11-21T23:13:36.000Z") == moment("Sat, 21 Nov 2026 23:13:36 GMT") == 1795302816.0
    with pytest.raises(Trouble):
        moment("yesterday")


def test_each_keeps_order_bounds_what_it_takes_and_tells_errors() -> None:
    taken = []

    def items() -> Any:
        for number in range(200):
            taken.append(number)
            yield number

    gate = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            gate.wait(10)
        if number == 3:
            raise ValueError(number)
        return number * 2

    rows = each(work, items(), 4)
    threading.Timer(0.1, gate.set).start()
    assert next(rows) == (0, 0)
    assert len(taken) <= 16
    rest = list(rows)
    assert [item for item, _ in rest] == list(range(1, 200))
    assert isinstance(rest[2][1], ValueError)
    assert [result for _, result in rest if not isinstance(result, Exception)] == [
        number * 2 for number in range(1, 200) if number != 3
    ]


def test_a_manifest_within_a_file_is_read_as_if_it_were_all(tmp_path: Path) -> None:
    rows = [manifest.Entry(f"some/rather/long/folder/file-{n:06}.exr", f"{n:032x}", n, n) for n in range(5000)]
    data = manifest.encode(rows)
    with open(tmp_path / "spool", "w+b") as spool:
        spool.write(b"one before" + data + b"one behind")
        region = BufferedReader(_Region(spool, 10, len(data)))
        found = manifest.read_checked(region)
        first = next(found)
        spool.seek(3)  # as another region's reader does
        assert [first, *found] == rows
        region.seek(0)
        assert region.read() == data and region.read(1) == b""
