"""The worker's state folder and what stands in it: who reads and who writes which file.

  worker.json                      who this worker is               enroll, schedule
  enrolment.json                   it is STARTED, since when        enroll, schedule
  credentials/<workerId>.json      the fleet role's credentials     enroll, credentials
  queues/<queueId>/...             the queue role's, for jobs       schedule, credentials
  sessions/<sessionId>/            a session's journals (below)     schedule, dl-session, logs
  run/<name>.wake, run/<name>.lock how one process pokes another; that only one runs
  log/worker.jsonl                 what the worker tells CloudWatch all; shipped by logs

  sessions/<sessionId>/
  session.json                     what and whose it is             schedule
  inbox.jsonl                      open, action, cancel, stop, end  schedule
  outbox.jsonl                     action records, then `end`       dl-session (schedule, once that is dead)
  reported.jsonl                   what the service has             schedule
  entities/                        templates and the like           schedule
  log.jsonl                        log records                      dl-session (schedule, as above)
  log.offset                       how much of it was shipped       logs
  lock                             held by dl-session while it lives
Source: spec worker 4.1.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

import orjson

from libdeadline import statuses
from libdeadline.errors import Trouble

from . import journal

LOCK_S = 1.0


def write_json(path: str, value: Any, mode: int = 0o600, group: int | None = None) -> None:
    """Replace `path` by `value`, whole or not at all; mode and group are right before it takes its name."""
    write_bytes(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), mode, group)


def write_bytes(path: str, data: bytes, mode: int = 0o600, group: int | None = None) -> None:
    """Replace `path` by `data`, whole or not at all; mode and group are right before it takes its name."""
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if group is not None:
                os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read_json(path: str) -> dict[str, Any] | None:
    """The JSON object in `path`, or None where there is none, or none that can be read as such."""
    try:
        with open(path, "rb") as file:
            value = orjson.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def now_text() -> str:
    """Now, RFC 3339, UTC, milliseconds cut off as CloudWatch's are."""
    return time_text(datetime.now(UTC).timestamp())


def time_text(seconds: float) -> str:
    """`seconds` since the epoch as RFC 3339, UTC, milliseconds cut off."""
    milliseconds = int(seconds * 1000)
    whole = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the pid it names one process for good.

    None where there is no such process (or it is a zombie, which does nothing any more).
    Source: proc(5), /proc/<pid>/stat, fields 3 and 22.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] == b"Z" else int(fields[19])


def process_name(pid: int) -> dict[str, int] | None:
    """What names a process for good, or None where there is none."""
    started = start_time(pid)
    return None if started is None else {"pid": pid, "start_time": started}


def is_alive(name: dict[str, int] | None) -> bool:
    """Whether the process that `process_name` named still runs."""
    return name is not None and start_time(name["pid"]) == name["start_time"]


class Wake:
    """A pipe with a name, by which other processes wake the one that waits on it. Nothing is lost by a lost poke."""

    def __init__(self, path: str) -> None:
        self.path = path
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # Open for writing too, so that it never reads as ended and never blocks for a writer.
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until poked or for `timeout_s`; whether it was poked."""
        if not select.select([self.descriptor], [], [], timeout_s)[0]:
            return False
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.descriptor, 4096)) == 4096:
                pass
        return True

    def poke(self) -> None:
        """Wake the one that waits, from another thread or a signal handler of the same process."""
        with contextlib.suppress(OSError):
            os.write(self.descriptor, b"!")


def poke(path: str) -> None:
    """Wake the process that waits on the pipe `path`, if there is one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # nobody there: whoever comes looks at the files anyway
    with contextlib.suppress(OSError):
        os.write(descriptor, b"!")
    os.close(descriptor)


def try_lock(path: str) -> int | None:
    """Take the lock `path`: its descriptor, to be kept open as long as it is held, or None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def take_lock(path: str, patience_s: float = LOCK_S) -> int | None:
    """`try_lock`, for a moment: whoever only looks whether the lock is held has it while looking."""
    until = monotonic() + patience_s
    while (descriptor := try_lock(path)) is None:
        if monotonic() > until:
            return None
        sleep(0.02)
    return descriptor


class SessionFolder:
    """The folder of one session; see the module's text for its files."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.session_id = os.path.basename(path)

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    @property
    def inbox(self) -> str:
        return self.file("inbox.jsonl")

    @property
    def outbox(self) -> str:
        return self.file("outbox.jsonl")

    @property
    def reported(self) -> str:
        return self.file("reported.jsonl")

    @property
    def log(self) -> str:
        return self.file("log.jsonl")

    @property
    def wake(self) -> str:
        return self.file("wake")

    def entity(self, kind: str, identity: str = "") -> str:
        """Where the entity stands. Environment ids hold any character, so files are named by a digest."""
        from hashlib import sha256

        return self.file(f"entities/{kind}-{sha256(identity.encode()).hexdigest()[:16]}.json")

    def is_running(self) -> bool:
        """Whether a dl-session holds this session."""
        lock = try_lock(self.file("lock"))
        if lock is None:
            return True
        os.close(lock)
        return False

    def tell(self, *rows: dict[str, Any]) -> None:
        """Put `rows` into the inbox and wake the session."""
        journal.append(self.inbox, *rows)
        poke(self.wake)

    def write_log(self, message: str) -> None:
        """Add a line to the session's log; for dl-session, or for schedule once that is dead."""
        journal.append(self.log, {"type": "log", "timestamp": now_text(), "message": message})

    def shipped_bytes(self) -> int:
        """How much of the log CloudWatch Logs has acknowledged."""
        state = read_json(self.file("log.offset"))
        return int(state["offset"]) if state else 0

    def is_log_shipped(self) -> bool:
        try:
            return os.stat(self.log).st_size <= self.shipped_bytes()
        except FileNotFoundError:
            return True


class Folder:
    """The state folder of one worker."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def prepare(self) -> Folder:
        """Make the folders that aren't there yet."""
        for name, mode in (("", 0o750), ("credentials", 0o700), ("queues", 0o750), ("run", 0o700), ("log", 0o700)):
            os.makedirs(self.file(name) if name else self.path, mode=mode, exist_ok=True)
        os.makedirs(self.file("sessions"), mode=0o700, exist_ok=True)
        return self

    def file(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def wake(self, name: str) -> str:
        """The pipe on which the process of that duty (schedule, credentials, logs) waits."""
        return self.file("run", f"{name}.wake")

    def lock(self, name: str) -> int:
        """Be the only process of that duty for this folder; held until the process ends.

        Raises: Trouble (75) if one runs already.
        """
        descriptor = take_lock(self.file("run", f"{name}.lock"))
        if descriptor is None:
            raise Trouble(f"another dl-worker-{name} works on '{self.path}'", statuses.TRY_AGAIN)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, orjson.dumps(process_name(os.getpid())))
        return descriptor

    def is_locked(self, name: str) -> bool:
        """Whether a process of that duty runs."""
        descriptor = try_lock(self.file("run", f"{name}.lock"))
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def worker(self) -> dict[str, Any]:
        """worker.json: worker_id, instance_id, host_configuration_succeeded; empty where there is no worker yet."""
        return read_json(self.file("worker.json")) or {}

    def write_worker(self, **fields: Any) -> None:
        write_json(self.file("worker.json"), {k: v for k, v in fields.items() if v is not None})

    def enrolment(self) -> dict[str, Any] | None:
        """What UpdateWorker STARTED left: worker_id, status, supervisor, log; None before the first one."""
        return read_json(self.file("enrolment.json"))

    def write_enrolment(self, **fields: Any) -> None:
        write_json(self.file("enrolment.json"), fields)

    def session(self, session_id: str) -> SessionFolder:
        return SessionFolder(self.file("sessions", session_id))

    def sessions(self) -> Iterator[SessionFolder]:
        """The session folders, in the order of their names."""
        try:
            names = sorted(os.listdir(self.file("sessions")))
        except FileNotFoundError:
            return
        for name in names:
            if "." not in name and os.path.exists(self.file("sessions", name, "session.json")):
                yield self.session(name)

    def tell_log(self, type_: str, subtype: str, message: str, *, level: str = "INFO", **fields: Any) -> None:
        """Add an event to the worker's log, with the member names of the reference's structured log.

        Source: spec worker 3.2.
        """
        icon = ICONS.get(f"{type_}.{subtype}") or ICONS.get(type_)
        event = {"level": level, "ti": icon, "type": type_, "subtype": subtype, "message": message, **fields}
        event = {name: value for name, value in event.items() if value is not None}
        text = orjson.dumps(event).decode()
        journal.append(self.file("log", "worker.jsonl"), {"type": "log", "timestamp": now_text(), "message": text})


ICONS = {
    "Worker": "\N{PERSONAL COMPUTER}",
    "AWSCreds": "\N{KEY}",
    "FileSystem": "\N{FLOPPY DISK}",
    "Session": "\N{LARGE BLUE DIAMOND}",
    "Action.Start": "\N{LARGE GREEN CIRCLE}",
    "Action.Cancel": "\N{LARGE YELLOW SQUARE}",
    "Action.Interrupt": "\N{LARGE YELLOW SQUARE}",
    "Action.End": "\N{LARGE PURPLE CIRCLE}",
    "Metrics": "\N{BAR CHART}",
}
