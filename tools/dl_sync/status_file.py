"""The status file: what a monitor shows of each job's and task's download. It is the reference client's file.

Several hosts may write to it, on a shared file system; each adds what it knows.
Source: attachments specification, incremental download, status file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic, sleep, time
from typing import Any

from .checkpoint import IGNORED, is_alive, sweep, write_json
from .survey import COMPLETED, INACTIVE, WITHOUT_ATTACHMENTS, WITHOUT_PROFILE, Survey

SCHEMA = 1
LOCK_STALE_S, LOCK_WAIT_S, LOCK_POLL_S = 60.0, 90.0, 0.5
DEFAULT_FOLDER = "~/.deadline/incremental_download"
_UNFINISHED = ("READY", "RUNNING", "ASSIGNED", "STARTING", "SCHEDULED")
SKIP_REASONS = {WITHOUT_ATTACHMENTS: "no_attachments", WITHOUT_PROFILE: "missing_storage_profile"}


class Result:
    """How fetching went, of a task or of a job. Units: files."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.error_code: str | None = None
        self.error_message: str | None = None

    def fail(self, code: str, message: str) -> None:
        """Remember the first error."""
        if self.error_code is None:
            self.error_code, self.error_message = code, message


class JobResult(Result):
    """How fetching a job's output went, and that of its tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, Result] = {}
        self.farm_failed: set[str] = set()
        self.succeeded: set[str] = set()


def status_of(job: Mapping[str, Any], change: str, result: JobResult | None) -> str:
    """downloaded, in_progress, failed or skipped."""
    if result is not None and result.error_code is not None:
        return "failed"
    if change in SKIP_REASONS:
        return "skipped"
    if change == COMPLETED:
        return "downloaded"
    counts = job.get("taskRunStatusCounts") or {}
    is_over = job.get("endedAt") is not None and not any(counts.get(each) for each in _UNFINISHED)
    return "downloaded" if is_over else "in_progress"


def write(
    places: Iterable[str],
    queue_id: str,
    profile_id: str | None,
    survey: Survey,
    results: Mapping[str, JobResult],
    warn: Callable[[str], None],
) -> list[str]:
    """Bring the status file up to date in each place; where that fails, warn. Returns the places that worked."""
    written = []
    for path in places:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with _lock(path, warn):
                sweep(path)
                document = _document(_jobs_in(path), queue_id, profile_id, survey, results)
                write_json(path, document, mode=0o666)  # others read it
            written.append(path)
        except OSError as error:
            warn(f"the status file '{path}' is not written: {error.strerror or error}")
    return written


def places(queue_id: str, profile: Mapping[str, Any] | None, folder: str) -> list[str]:
    """Where the status file belongs: into each location of the profile that exists, or beside the checkpoint."""
    if profile is None:
        return [os.path.join(folder, f"{queue_id}_{IGNORED}_download_status.json")]
    # A location that does not exist may be a share that is not mounted.
    return [
        os.path.join(each["path"], ".deadline", f"{queue_id}_download_status.json")
        for each in profile.get("fileSystemLocations") or ()
        if os.path.isdir(each["path"])
    ]


def point(queue_id: str, folder: str, actual: str, warn: Callable[[str], None]) -> None:
    """Leave word of the status file at the default place, where a monitor looks for it."""
    default = os.path.expanduser(DEFAULT_FOLDER)
    if os.path.realpath(default) == os.path.realpath(folder):
        return
    path = os.path.join(default, f"{queue_id}_{IGNORED}_download_status.json")
    try:
        os.makedirs(default, exist_ok=True)
        with _lock(path, warn):
            if os.path.exists(path) and os.path.samefile(path, actual):
                return
            sweep(path)
            pointer: dict[str, Any] = {"schema_version": SCHEMA, "status_file_path": actual}
            if _jobs_in(path):
                pointer["superseded_path"] = path
                warn(f"the status in '{path}' gives way to a pointer to '{actual}'")
            write_json(path, pointer, mode=0o666)
    except OSError as error:
        warn(f"the pointer to the status file, '{path}', is not written: {error.strerror or error}")


def _jobs_in(path: str) -> dict[str, Any]:
    from json import loads

    try:
        with open(path, "rb") as file:
            jobs = loads(file.read())["jobs"]
        return jobs if isinstance(jobs, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _document(
    jobs: dict[str, Any],
    queue_id: str,
    profile_id: str | None,
    survey: Survey,
    results: Mapping[str, JobResult],
) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    for job_id, change in survey.changes.items():
        before = jobs.get(job_id)
        if change == INACTIVE:
            if before and before.get("download_status") == "in_progress":
                before["download_status"] = "downloaded" if before.get("downloaded_files") else "skipped"
                before["last_updated"] = now
                _settle(before)
            continue
        result = results.get(job_id)
        tasks = _tasks((before or {}).get("tasks") or {}, result)
        status = status_of(survey.jobs[job_id], change, result)
        if before and before.get("total_files") and not (result and result.total) and status != "failed":
            # Nothing to fetch this time: the counts of the last time stand.
            entry = before
            if entry["download_status"] != status:
                entry.update(download_status=status, last_updated=now, error_code=None, error_message=None)
                entry["failed_files"] = 0
        else:
            counted = result or JobResult()
            entry = {
                "download_status": status,
                "total_files": counted.total,
                "downloaded_files": counted.done,
                "failed_files": counted.total - counted.done,
                "last_updated": now,
                "error_code": counted.error_code,
                "error_message": counted.error_message,
                "skip_reason": SKIP_REASONS.get(change),
            }
        entry["tasks"] = tasks
        _settle(entry)
        jobs[job_id] = entry
    failed = any(result.error_code is not None for result in results.values())
    return {
        "schema_version": SCHEMA,
        "sync_metadata": {
            "queue_id": queue_id,
            "storage_profile_id": profile_id,
            "last_sync_completed_at": now,
            "last_run_status": "failed" if failed else "success",
            "hostname": socket.gethostname(),
        },
        "jobs": jobs,
    }


def _tasks(before: dict[str, Any], result: JobResult | None) -> dict[str, Any]:
    """The entries of a job's tasks, those of this run over those of earlier ones."""
    tasks = dict(before)
    if result is None:
        return tasks
    for task_id in result.succeeded:
        if task_id not in result.tasks and tasks.get(task_id, {}).get("download_status") == "farm_failed":
            del tasks[task_id]
    for task_id in result.farm_failed:
        if tasks.get(task_id, {}).get("download_status") != "downloaded" and task_id not in result.tasks:
            tasks[task_id] = _task_entry("farm_failed", Result())
    for task_id, each in result.tasks.items():
        tasks[task_id] = _task_entry("downloaded" if each.error_code is None else "failed", each)
    return tasks


def _task_entry(status: str, result: Result) -> dict[str, Any]:
    return {
        "download_status": status,
        "total_files": result.total,
        "downloaded_files": result.done,
        "error_code": result.error_code,
        "error_message": result.error_message,
    }


def _settle(entry: dict[str, Any]) -> None:
    """A job does not count as done while one of its tasks has an error."""
    if entry.get("download_status") not in ("downloaded", "skipped"):
        return
    wrong = [each for each in (entry.get("tasks") or {}).values() if each.get("error_code")]
    if wrong:
        missing = sum(each.get("total_files", 0) - each.get("downloaded_files", 0) for each in wrong)
        entry.update(
            download_status="failed",
            error_code=wrong[0]["error_code"],
            error_message=wrong[0].get("error_message"),
            skip_reason=None,
        )
        if missing > 0:
            entry["failed_files"] = missing


@contextmanager
def _lock(path: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock beside a status file, as far as other hosts heed it; after a while go on without."""
    from json import dumps, loads

    lock = path + ".lock"

    def holder() -> dict[str, Any] | None:
        try:
            with open(lock, "rb") as file:
                text = file.read()
                about = os.fstat(file.fileno())
        except OSError:
            return None
        try:
            found = loads(text)
            return {**found, "time": float(found.get("time", 0))}
        except (ValueError, TypeError, AttributeError):
            return {"time": about.st_mtime}  # it is just being written, or whoever did was killed

    def is_left(other: dict[str, Any]) -> bool:
        if time() - other["time"] >= LOCK_STALE_S:
            return True
        pid = other.get("pid")
        return other.get("hostname") == socket.gethostname() and type(pid) is int and not is_alive(pid, other["time"])

    until = monotonic() + LOCK_WAIT_S
    stamp: float | None = None
    while stamp is None and monotonic() < until:
        other = holder()
        if other is not None and is_left(other):
            try:
                os.unlink(lock)
            except OSError:
                pass
        elif other is not None:
            sleep(LOCK_POLL_S)  # another host tells nobody when it is done
            continue
        now = time()
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            sleep(LOCK_POLL_S)
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(dumps({"hostname": socket.gethostname(), "time": now, "pid": os.getpid()}).encode())
        stamp = now
    if stamp is None:
        warn(f"the lock '{lock}' is held by another host for too long: going on without")
    try:
        yield
    finally:
        ours = holder()
        if stamp is not None and ours is not None and ours["time"] == stamp:
            try:
                os.unlink(lock)
            except OSError:
                pass
