"""Hashing files: one open, fstat, read, fstat and close for a small one, blocks of 1 MiB for a large one."""

from __future__ import annotations

import os
import threading
import time
from mmap import mmap
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, NamedTuple

from xxhash import xxh3_128, xxh3_128_hexdigest

from libdeadline import long_paths
from libdeadline.paths import relative_problem
from libdeadline.records import orjson
from libdeadline.walk import is_utf8

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from .cache import Cache, Known

dumps = orjson.dumps
QUICK_BYTES = 1 << 22  # read in a millisecond
BLOCK_BYTES = 1 << 20
SMALLEST_KEPT_BYTES = 1 << 12  # below this reading a file costs no more than asking the cache about it
SETTLED_NS = 2_000_000_000  # a file touched this recently may change again within one tick of its file system's clock
ATTEMPTS = 3  # at a file that changes while it is read
READERS = 8  # threads of a process while reads wait for a disk or a server
TRIAL_EVERY = 8  # jobs between two that find out whether reads still wait
TRIAL_FILES = 16  # that it takes to find out
WAITING_SHARE = 0.5  # of a job's time, above which more readers are used
LOOK_UP_EVERY = 64  # blocks between two looks at whether the parent is alive

FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO would wait for a writer
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
INODE_MASK = (1 << 63) - 1  # SQLite's integers are signed


class Refused(Exception):
    """A file that gets no hash: why (missing, unreadable, changed, special, link, unsafe, undecodable), and a line."""

    def __init__(self, why: str, path: str, message: str) -> None:
        super().__init__(message)
        self.why, self.path, self.message = why, path, message


class Settings(NamedTuple):
    """What all jobs of a run have in common."""

    root: str  # of records that name none
    follow: bool  # a link counts as the file that it leads to
    cache: str | None  # path of the cache
    rehash: bool  # don't ask it
    places: dict[str, str]  # where roots lie on this host, for those that aren't where they say


class Done(NamedTuple):
    """What came of a job: its lines, and what to count, to keep and to report."""

    lines: bytes
    files: int
    size: int
    cached: int
    fresh: list[Known]
    troubles: list[tuple[str, str, str]]  # why, path, sentence
    seconds: float


class Hasher:
    """Does jobs, one after another, in one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.flags = FLAGS | (0 if settings.follow else NO_FOLLOW)
        self.cache: Cache | None = None
        if settings.cache and not settings.rehash and os.path.exists(settings.cache):
            from .cache import Cache

            self.cache = Cache(settings.cache)
        self.readers = 1
        self.jobs = 0
        self.local = threading.local()
        self.threads: ThreadPoolExecutor | None = None
        self.parent: int | None = None  # process that waits for the results

    def close(self) -> None:
        """Let go of the cache; the next job opens it again."""
        if self.cache:
            self.cache.close()

    def do(self, job: tuple[Any, ...]) -> Done:
        """Do a job: ("folder", root, folder, names) or ("rows", rows)."""
        return self.folder(*job[1:]) if job[0] == "folder" else self.rows(*job[1:])

    def is_quick(self, job: tuple[Any, ...]) -> bool:
        """Whether a job is so small that it needs no process of its own, by the sizes of its files."""
        if job[0] == "folder":
            found: list[Any] = [os.path.join(job[1], job[2], name) for name in job[3]]
        else:
            found = [self._path(row) for row in job[1]]
        try:
            return sum(os.stat(path).st_size for path in found if isinstance(path, str)) <= QUICK_BYTES
        except OSError:
            return True  # hashing it will tell

    def folder(self, root: str, folder: str, names: list[str]) -> Done:
        """Hash the files `names` of `folder`, which is relative to `root` and ends in / unless it is empty."""
        prefix = os.path.join(root, folder) if folder else os.path.join(root, "")
        root_json = dumps(root)

        def line(index: int, known: Known) -> bytes:
            return b'{"type":"file","path":%b,"root":%b,"size":%d,"mtime":%d,"hash":"%b","hash_alg":"xxh128"}\n' % (
                dumps(folder + names[index]),
                root_json,
                known[1],
                known[2] // 1000,
                known[5].encode(),
            )

        return self._do([prefix + name for name in names], line)

    def rows(self, rows: list[dict[str, Any]]) -> Done:
        """Hash the files of `rows`, the fields of file records."""

        def line(index: int, known: Known) -> bytes:
            row = rows[index]
            row.setdefault("root", self.settings.root)
            row["size"], row["mtime"], row["hash"], row["hash_alg"] = known[1], known[2] // 1000, known[5], "xxh128"
            return dumps(row) + b"\n"

        return self._do([self._path(row) for row in rows], line)

    def _path(self, row: dict[str, Any]) -> str | Refused:
        path = row.get("path")
        root = row.get("root", self.settings.root)
        if not isinstance(path, str) or not isinstance(root, str):
            return Refused("unsafe", str(path), f"a file record has no path: {row}"[:200])
        if problem := relative_problem(path):
            return Refused("unsafe", path, f"the path '{path}' is refused: {problem}")
        if not path.isascii() and not is_utf8(path):
            return Refused("undecodable", path, f"the name '{path}' is no UTF-8")
        return os.path.join(self.settings.root, self.settings.places.get(root, root), path)

    def _do(self, paths: list[Any], line: Callable[[int, Known], bytes]) -> Done:
        start = time.perf_counter()
        known = self.cache.find([path for path in paths if isinstance(path, str)]) if self.cache else {}
        self.jobs += 1
        # With many readers nobody can tell whether one would still wait, so now and then a few files are tried.
        trial = len(paths) if self.readers == 1 else TRIAL_FILES if self.jobs % TRIAL_EVERY == 0 else 0
        results = self._one_by_one(paths[:trial], known) if trial else []
        if len(paths) > trial:
            read = self._side_by_side if self.readers > 1 else self._one_by_one
            results += read(paths[trial:], known)
        lines: list[bytes] = []
        fresh: list[Known] = []
        troubles: list[tuple[str, str, str]] = []
        size = cached = 0
        keeps, settled = self.settings.cache is not None, time.time_ns() - SETTLED_NS
        for index, result in enumerate(results):
            if isinstance(result, Refused):
                troubles.append((result.why, result.path, result.message))
                continue
            size += result[1]
            if known and known.get(result[0]) is result:
                cached += 1
            elif keeps and result[1] >= SMALLEST_KEPT_BYTES and result[2] < settled and result[3] < settled:
                fresh.append(result)
            lines.append(line(index, result))
        seconds = time.perf_counter() - start
        return Done(b"".join(lines), len(lines), size, cached, fresh, troubles, seconds)

    def _one_by_one(self, paths: list[Any], known: dict[str, Known]) -> list[Known | Refused]:
        """Do `paths` in this thread, and learn whether more readers would help."""
        start, cpu, sleeps = time.perf_counter(), time.thread_time(), _sleeps()
        results = [self._result(path, known.get(path)) for path in paths]
        spent = time.perf_counter() - start
        waited = spent - (time.thread_time() - cpu)
        # A busy machine makes us wait too, but only a disk or a server makes us sleep.
        slept = _sleeps() - sleeps >= max(1, len(paths) // 2)
        self.readers = READERS if slept and waited > WAITING_SHARE * spent else 1
        return results

    def _side_by_side(self, paths: list[Any], known: dict[str, Known]) -> list[Known | Refused]:
        """Do `paths` in several threads, this one among them."""
        if self.threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self.threads = ThreadPoolExecutor(READERS - 1)
        # Which path is next is one list that all threads pop from: pop is atomic.
        left = list(range(len(paths) - 1, -1, -1))
        results: list[Any] = [None] * len(paths)

        def work() -> None:
            while left:
                try:
                    index = left.pop()
                except IndexError:
                    return
                results[index] = self._result(paths[index], known.get(paths[index]))

        others = [self.threads.submit(work) for _ in range(min(READERS, len(paths)) - 1)]
        work()
        for other in others:
            other.result()
        return results

    def _result(self, path: Any, known: Known | None) -> Known | Refused:
        if not isinstance(path, str):
            return path  # type: ignore[no-any-return]  # it was refused before
        try:
            if known is not None:
                status = long_paths.status(path, follow_symlinks=self.settings.follow)
                if known[1:5] == _identity(status) and S_ISREG(status.st_mode):
                    return known
            return self._hash(path)
        except Refused as refused:
            return refused
        except OSError as error:
            return self._refusal(path, error)

    def _refusal(self, path: str, error: OSError) -> Refused:
        import errno

        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return Refused("missing", path, f"cannot read '{path}': {error.strerror}")
        if error.errno == errno.ELOOP and not self.settings.follow:
            return Refused("link", path, f"'{path}' is a link")
        if error.errno == errno.ELOOP:
            return Refused("missing", path, f"cannot read '{path}': {error.strerror}")
        if error.errno == errno.ENXIO:
            return Refused("special", path, f"'{path}' is no regular file")
        return Refused("unreadable", path, f"cannot read '{path}': {error.strerror}")

    def _hash(self, path: str) -> Known:
        try:
            descriptor = long_paths.opened(path, self.flags | NO_WAIT)
        except BlockingIOError:  # someone holds a lease on it and is asked to give it up
            descriptor = long_paths.opened(path, self.flags)
        try:
            for _ in range(ATTEMPTS):
                before = os.fstat(descriptor)
                if not S_ISREG(before.st_mode):
                    raise Refused("special", path, f"'{path}' is no regular file")
                length, digest = self._read(descriptor, before.st_size)
                identity = _identity(before)
                if length == before.st_size and identity == _identity(os.fstat(descriptor)):
                    return (path, *identity, digest)
                os.lseek(descriptor, 0, os.SEEK_SET)
            raise Refused("changed", path, f"'{path}' changes while it is read")
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, size: int) -> tuple[int, str]:
        """The length and hash of what a descriptor gives; more than `size` is not read to its end."""
        view = getattr(self.local, "view", None)
        if view is None:
            # On a page of its own: the kernel copies five times slower to an address that is odd by 16.
            view = self.local.view = memoryview(mmap(-1, BLOCK_BYTES))
        length = _read_into(descriptor, view)
        if length >= size and length < BLOCK_BYTES:
            return length, xxh3_128_hexdigest(view[:length])
        digest = xxh3_128(view[:length])
        blocks = 1
        while length < size and (count := _read_into(descriptor, view)):
            digest.update(view[:count])
            length += count
            blocks += 1
            if blocks % LOOK_UP_EVERY == 0 and self.parent is not None and os.getppid() != self.parent:
                os._exit(1)  # nobody waits for the result any more
        return length, digest.hexdigest()


def _sleeps() -> int:
    """How often this thread gave up the processor to wait for something."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & INODE_MASK


def _read_into(descriptor: int, view: memoryview) -> int:
    return os.readv(descriptor, (view,))


if not hasattr(os, "readv"):  # Windows

    def _read_into(descriptor: int, view: memoryview) -> int:
        data = os.read(descriptor, len(view))
        view[: len(data)] = data
        return len(data)
