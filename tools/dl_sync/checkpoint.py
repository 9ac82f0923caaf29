"""What is remembered from run to run: checkpoint, failures by job, and the lock; all are the reference client's files.

Source: client specification, queue sync-output; attachments specification, incremental download.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from libdeadline import statuses
from libdeadline.errors import Trouble

WINDOW_S = 120  # by which a search may lag behind what happened
MOST_FAILURES = 5  # of one job, after which it is given up
SKEW_S = 60.0  # by which the clock of a file server may be behind
NOT_THE_JOBS = ("DISK_FULL", "NETWORK_ERROR")  # which a follower would meet five times in five minutes
IGNORED = "ignore-storage-profiles"
_NEEDED = (
    "localStorageProfileId",
    "downloadsStartedTimestamp",
    "eventualConsistencyMaxSeconds",
    "jobs",
    "downloadsCompletedTimestamp",
)


class Tracked(NamedTuple):
    """A job that is followed: what the service last said of it, and how far its output was fetched.

    Shape: `job` is as SearchJobs has it, times as text, with the members attachments and storageProfileId of GetJob;
    one that is over has jobId alone. `ended_at` is the latest end of a session whose output was fetched;
    `indexes` tells, by session, the index of its last action whose output was.
    """

    job: dict[str, Any]
    ended_at: datetime | None
    indexes: Mapping[str, int]


class Checkpoint:
    """How far the output of a queue was fetched, for one storage profile or none."""

    def __init__(self, profile_id: str | None, started: datetime) -> None:
        self.profile_id = profile_id
        self.started = self.completed = started
        self.window_s = WINDOW_S
        self.jobs: dict[str, Tracked] = {}

    @property
    def window(self) -> timedelta:
        return timedelta(seconds=self.window_s)

    @classmethod
    def load(cls, path: str) -> Checkpoint | None:
        """The checkpoint in a file, or None where there is no file.

        Raises: Trouble (65) where it is no checkpoint; OSError.
        """
        from json import loads

        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        try:
            return cls._of(loads(data))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            why = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
            raise Trouble(
                f"'{path}' is no checkpoint ({why}): move it away, and run with --force-bootstrap and a lookback that "
                "covers what may be missing",
                statuses.DATA,
                path=path,
            ) from None

    @classmethod
    def _of(cls, document: dict[str, Any]) -> Checkpoint:
        for name in _NEEDED:
            document[name]
        self = cls(document["localStorageProfileId"], _moment(document["downloadsStartedTimestamp"]))
        self.completed = _moment(document["downloadsCompletedTimestamp"])
        self.window_s = int(document["eventualConsistencyMaxSeconds"])
        for row in document["jobs"]:
            ended = row.get("sessionEndedTimestamp")
            indexes = {name: int(index) for name, index in (row.get("sessionCompletedIndexes") or {}).items()}
            tracked = Tracked(dict(row["job"]), _moment(ended) if ended else None, indexes)
            self.jobs[tracked.job["jobId"]] = tracked
        return self

    def save(self, path: str) -> None:
        """Write the checkpoint to a file, whole or not at all. Raises: OSError."""
        rows = []
        for tracked in self.jobs.values():
            row: dict[str, Any] = {"job": tracked.job}
            if tracked.ended_at is not None:
                row["sessionEndedTimestamp"] = tracked.ended_at.isoformat()
            if tracked.indexes:
                row["sessionCompletedIndexes"] = dict(tracked.indexes)
            rows.append(row)
        write_json(
            path,
            {
                "localStorageProfileId": self.profile_id,
                "downloadsStartedTimestamp": self.started.isoformat(),
                "eventualConsistencyMaxSeconds": self.window_s,
                "jobs": rows,
                "downloadsCompletedTimestamp": self.completed.isoformat(),
            },
        )


class Failures:
    """How often fetching a job's output has failed, by job."""

    def __init__(self, path: str) -> None:
        from json import loads

        self.path = path
        self.counts: dict[str, int] = {}
        try:
            with open(path, "rb") as file:
                found = loads(file.read())
            self.counts = {job_id: int(count) for job_id, count in found.items()}
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, AttributeError):
            pass  # as the reference does: a damaged file counts as none

    def retried(self) -> list[str]:
        """The jobs to try again."""
        return [job_id for job_id, count in self.counts.items() if count < MOST_FAILURES]

    def add(self, job_id: str, error_code: str) -> None:
        """Count a failure; one that is not the job's brings it no nearer to being given up, but is tried again."""
        before = self.counts.get(job_id, 0)
        self.counts[job_id] = max(before, 1) if error_code in NOT_THE_JOBS else before + 1

    def is_given_up(self, job_id: str) -> bool:
        return self.counts.get(job_id, 0) >= MOST_FAILURES

    def save(self) -> None:
        """Raises: OSError."""
        if self.counts or os.path.exists(self.path):
            write_json(self.path, self.counts, indent=None)


def write_json(path: str, document: Any, indent: int | None = 2, mode: int = 0o600) -> None:
    """Write a document to a file, whole or not at all. Raises: OSError."""
    from json import dumps

    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(dumps(document, indent=indent).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise


@contextmanager
def pid_lock(path: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file, which holds our process id; one that a dead process left is taken over.

    Raises: Trouble (75) where a living process holds it; OSError.
    """
    temporary = f"{path}{os.getpid()}~tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, str(os.getpid()).encode())
        os.close(descriptor)
        if not _claimed(temporary, path):
            _clear(path, warn)
            if not _claimed(temporary, path):
                raise _held(path, "another process")
    finally:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
    try:
        yield
    finally:
        try:
            with open(path) as file:
                is_ours = file.read() == str(os.getpid())
            if is_ours:
                os.unlink(path)
        except FileNotFoundError:
            pass


def _claimed(temporary: str, path: str) -> bool:
    try:
        if sys.platform == "win32":
            os.rename(temporary, path)  # refuses there to replace a file
        else:
            os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def _clear(path: str, warn: Callable[[str], None]) -> None:
    """Remove a lock that nobody alive holds. Raises: Trouble (75)."""
    try:
        with open(path) as file:
            text = file.read()
        written_at = os.stat(path).st_mtime
    except FileNotFoundError:
        return
    pid = int(text) if text.strip().isdecimal() else None
    if pid is not None and is_alive(pid, written_at):
        raise _held(path, f"the process {pid}")
    why = f"the process {pid}, which wrote it, is gone" if pid is not None else "it holds no process id"
    warn(f"the lock '{path}' is removed: {why}")
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _held(path: str, whose: str) -> Trouble:
    return Trouble(
        f"{whose} is fetching output with the same checkpoint: wait for it, or stop it (its lock is '{path}')",
        statuses.TRY_AGAIN,
        path=path,
    )


def is_alive(pid: int, seen_at: float) -> bool:
    """Whether the process lives that had this id at a moment: not another one that was given it since."""
    if sys.platform == "win32":
        import ctypes

        synchronize, wait_timeout = 0x00100000, 0x102
        handle = ctypes.windll.kernel32.OpenProcess(synchronize, False, pid)
        if not handle:
            return False
        alive = ctypes.windll.kernel32.WaitForSingleObject(handle, 0) == wait_timeout
        ctypes.windll.kernel32.CloseHandle(handle)
        return bool(alive)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    began = _began_at(pid)
    # In a container that was started anew, the next run may have the id of the one that was killed.
    return began is None or began < seen_at + (1.0 if pid == os.getpid() else SKEW_S)


def _began_at(pid: int) -> float | None:
    """When a process began, in seconds since 1970; None where the system does not tell. Source: proc(5)."""
    from time import time

    try:
        with open(f"/proc/{pid}/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/uptime") as file:
            up_s = float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return time() - up_s + ticks / float(os.sysconf("SC_CLK_TCK"))


def sweep(path: str) -> None:
    """Remove what killed runs left beside a file whose lock we hold, and of others' attempts at that lock."""
    folder, name = os.path.split(path)
    for each in os.listdir(folder or "."):
        left = os.path.join(folder, each)
        match = re.fullmatch(re.escape(name) + r"(?:\.\d+\.tmp|\.pid(\d+)~tmp)", each)
        try:
            if match and (match[1] is None or not is_alive(int(match[1]), os.stat(left).st_mtime)):
                os.unlink(left)
        except FileNotFoundError:
            pass


def _moment(text: str) -> datetime:
    from libdeadline.times import of_text

    return of_text(text)
