"""Fetches contents to their places from many threads, each distinct content once."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Condition, Lock, Thread
from typing import Any

from . import statuses
from .errors import Trouble, os_trouble
from .placing import RESUMED_BYTES, Folder, Temporary, Tree, copy_names
from .pool import FAR_S, Pool
from .records import File
from .s3 import S3, S3Error, Stopping
from .sockets import Changed, is_loopback, page_buffer, read_at
from .store import Store

TRIES = 3  # of a content that arrives wrong
READ_BYTES = 1 << 17  # small enough to stay in the processor's cache until it is hashed
CLONED_BYTES = 1 << 20  # of a duplicate, from which it is worth asking the file system to share blocks
PART_BYTES, PARTS = 4 << 20, 6  # of a large file from afar: fetched, and kept in memory, at the same time
TOLD_BYTES = 8 << 20  # of a file, between two words of its progress
STOP_S = 3.0  # for which removing temporaries may hold up an exit
SMALL_BYTES = 1 << 17  # of a file, up to which its content is written from memory
KEPT_BYTES = 8 << 20  # of such contents, for their duplicates
REMEMBERED = 20_000  # contents whose place is known, for their duplicates
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}
_FICLONE = 0x40049409  # ioctl of Linux: share the blocks of another file


class Item:
    """A file to fetch, and what became of it."""

    __slots__ = ("data", "done", "fatal", "followers", "local", "name", "origin", "outcome", "row", "told", "tree",
                 "trouble")  # fmt: skip

    def __init__(self, row: File, tree: Tree, local: str) -> None:
        """`local` is the path below `tree`."""
        self.row, self.tree, self.local = row, tree, local
        self.done = self.fatal = False
        self.outcome: str | None = None
        self.trouble: Trouble | None = None
        self.followers: list[Item] = []  # items with the same content, which wait for this one
        self.origin: Item | None = None  # the item that has the same content already
        self.name = ""  # the name that it got
        self.data: bytes | None = None  # its content, for those with the same, where that is kept
        self.told = 0  # bytes that were told as progress before it was done


class Fetcher:
    """The threads that fetch. Items that are done are put into `finished`, and bytes of large files as they come."""

    def __init__(self, store: Store, conflict: str, jobs: int | None, fsync: bool, finished: SimpleQueue[Any]) -> None:
        """`conflict` is SKIP, OVERWRITE or CREATE_COPY."""
        from xxhash import xxh3_128, xxh3_128_hexdigest

        self._digest, self._hexdigest = xxh3_128, xxh3_128_hexdigest
        self.store, self.conflict, self.fsync, self.finished = store, conflict, fsync, finished
        self._pool: Pool[Item] = Pool(self._work, store.s3, jobs)
        self._lock = Lock()
        self._parts = Lock()
        self._first: dict[str, Item] = {}
        self._keeping: deque[Item] = deque()
        self._kept = 0  # bytes

    def submit(self, item: Item) -> None:
        """Have a file fetched, or copied once the same content is here."""
        hash = item.row["hash"]
        with self._lock:
            first = self._first.get(hash)
            if first is None:
                if len(self._first) >= REMEMBERED:
                    del self._first[next(iter(self._first))]
                self._first[hash] = item
            elif not first.done:
                first.followers.append(item)
                return
            elif first.trouble is None:
                item.origin = first
        self._pool.submit(item)

    def close(self) -> None:
        self._pool.close()

    def stop(self) -> None:
        """Give up at once; temporaries are removed by the threads that have them."""
        self.store.s3.stop()
        self._pool.close()
        self._pool.join(STOP_S)

    def _work(self, item: Item) -> bool:
        try:
            self._settle(item)
        except Stopping:
            return False
        except Exception as error:
            item.trouble, item.fatal = _judged(error, os.path.join(item.tree.path, item.local))
        with self._lock:
            item.done = True
            followers, item.followers = item.followers, []
            self._keep(item)
        self.finished.put(item)
        for each in followers:
            each.origin = item if item.trouble is None else None
            if each.origin is None or item.data is None:
                self._pool.submit(each)
            elif not self._work(each):  # with the content at hand, a hand-over would cost more than the work
                return False
        return True

    def _keep(self, item: Item) -> None:
        """Keep the content of a file for its duplicates, and the memory for that within bounds."""
        if item.data is None or item.origin is not None:
            return
        self._keeping.append(item)
        self._kept += len(item.data)
        while self._kept > KEPT_BYTES:
            old = self._keeping.popleft()
            assert old.data is not None
            self._kept -= len(old.data)
            old.data = None

    def _settle(self, item: Item) -> None:
        """Put the file in its place."""
        item.tree.claim(item.local)
        parent, _, name = item.local.rpartition("/")
        folder = item.tree.folder(parent)
        row = item.row
        size, mtime = row["size"], row["mtime"]
        existing = folder.stat(name)
        if existing is not None:
            if stat.S_ISDIR(existing.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.path.join(folder.path, name))
            if self.conflict == "SKIP":
                item.name, item.outcome = name, "skipped"
                self._drop_leftover(folder, name, row)
                return
            if self._is_same(folder, name, existing, row):
                item.name, item.outcome = name, "present"
                if self.conflict == "OVERWRITE" and existing.st_mtime_ns // 1000 != mtime:
                    folder.touch(name, mtime)
                self._drop_leftover(folder, name, row)
                return
            if self.conflict == "CREATE_COPY":
                for copy in copy_names(name):
                    other = folder.stat(copy)
                    if other is None:
                        break
                    if self._is_same(folder, copy, other, row):
                        item.name, item.outcome = copy, "present"
                        self._drop_leftover(folder, name, row)
                        return
        temporary = Temporary(folder, name, row["hash"], size)
        placed = False
        try:
            self._fill(item, temporary, size)
            os.utime(temporary.descriptor, ns=(mtime * 1000, mtime * 1000))
            if self.fsync:
                os.fsync(temporary.descriptor)
            item.name = self._place(temporary, name, existing is not None)
            placed = True
            item.outcome = "new" if item.name else "skipped"
            item.name = item.name or name
        finally:
            temporary.close(remove=not placed or item.outcome == "skipped")

    def _place(self, temporary: Temporary, name: str, taken: bool) -> str:
        """Give a temporary its name: which one it got; '' where it got none because the name was taken meanwhile."""
        if self.conflict == "OVERWRITE":
            temporary.replace(name)
            return name
        if not taken:
            try:
                temporary.claim(name)
                return name
            except FileExistsError:
                if self.conflict == "SKIP":
                    return ""
        for copy in copy_names(name):
            try:
                temporary.claim(copy)
                return copy
            except FileExistsError:
                continue
        raise AssertionError

    def _is_same(self, folder: Folder, name: str, about: os.stat_result, row: File) -> bool:
        if not stat.S_ISREG(about.st_mode) or about.st_size != row["size"]:
            return False
        try:
            descriptor = folder.open(name, os.O_RDONLY)
        except OSError:
            return False
        try:
            return bool(_hash_of(descriptor) == row["hash"])
        finally:
            os.close(descriptor)

    def _drop_leftover(self, folder: Folder, name: str, row: File) -> None:
        """Remove what a killed run had of a large file that is not needed any more."""
        if row["size"] >= RESUMED_BYTES:
            Temporary(folder, name, row["hash"], row["size"]).close(remove=True)

    def _fill(self, item: Item, temporary: Temporary, size: int) -> None:
        """Write the content. Raises: Trouble, where the store does not have it or what comes is not it."""
        origin, hash = item.origin, item.row["hash"]
        if origin is not None:
            if (data := origin.data) is not None:
                if len(data) == size:
                    item.data = data
                    temporary.write(memoryview(data))
                    return
            elif self._copy(origin, temporary, hash, size):
                return
        if size <= SMALL_BYTES:
            item.data = self._fill_small(item, size)
            if temporary.found:
                temporary.restart()
            temporary.write(memoryview(item.data))
            return
        self._fill_large(item, temporary, size)

    def _fill_small(self, item: Item, size: int) -> bytes:
        """The content of a small file."""
        hash = item.row["hash"]
        arrived = key = ""
        for _ in range(TRIES):
            data = bytearray()

            def sink(block: memoryview) -> None:
                data.extend(block)  # noqa: B023
                if len(data) > size:  # noqa: B023
                    raise _larger(item, size)

            key = self._fetch(item, sink, 0, size)
            if key:
                arrived = self._hexdigest(data)
                if arrived == hash and len(data) == size:
                    return bytes(data)
        raise self._damaged(item, key, arrived)

    def _fill_large(self, item: Item, temporary: Temporary, size: int) -> None:
        hash = item.row["hash"]
        arrived = key = ""
        for attempt in range(TRIES):
            digest = self._digest()
            start = 0
            if attempt == 0 and size >= RESUMED_BYTES:
                start = min(temporary.found, size)
                if start and not _read_into(temporary.descriptor, start, digest):
                    start, digest = 0, self._digest()
            if attempt or temporary.found:
                temporary.restart(start)
            come = start
            told = come

            def sink(block: memoryview) -> None:
                nonlocal come, told
                come += len(block)
                if come > size:
                    raise _larger(item, size)
                digest.update(block)  # noqa: B023
                temporary.write(block)
                if come - told >= TOLD_BYTES:
                    item.told += come - told
                    self.finished.put(come - told)
                    told = come

            if come < size:
                key = self._fetch(item, sink, start, size)
                if not key:
                    continue
            arrived = digest.hexdigest()
            if come == size and arrived == hash:
                return
        raise self._damaged(item, key, arrived)

    def _fetch(self, item: Item, sink: Callable[[memoryview], None], start: int, size: int) -> str:
        """Hand the content of a file to `sink`, from `start` on: the key that it has, '' where it changed meanwhile.

        Raises: Trouble (66) where the store does not have it.
        """
        key = self.store.data_key(item.row["hash"])
        try:
            # The second is how very early submitters named it.
            for each in (key, key.removesuffix(".xxh128")):
                if self._get(each, sink, start, size):
                    return each
        except Changed:
            return ""
        path = item.row.path
        raise Trouble(
            f"the content of '{path}' is not in the store: there is no '{self.store.s3.url(key)}'",
            statuses.NO_INPUT,
            path=path,
        )

    def _damaged(self, item: Item, key: str, arrived: str) -> Trouble:
        key = key or self.store.data_key(item.row["hash"])
        why = f"its content hashes to {arrived}" if arrived else "it changes while it is read"
        return Trouble(
            f"'{self.store.s3.url(key)}' is not what its name says: {why}",
            statuses.DATA,
            path=item.row.path,
        )

    def _get(self, key: str, sink: Callable[[memoryview], None], start: int, size: int) -> bool:
        """Hand an object to `sink` from `start` on, in order; False where there is none."""
        s3 = self.store.s3
        is_far = not is_loopback(s3.host) and s3.quickest_s is not None and s3.quickest_s >= FAR_S
        # One stream from afar is slow, several are not; but only one file at a time may keep parts in memory.
        if is_far and size - start >= 2 * PART_BYTES and self._parts.acquire(blocking=False):
            try:
                return _get_parts(s3, key, sink, start, size)
            finally:
                self._parts.release()
        return s3.fetch(key, sink, start=start) is not None

    def _copy(self, origin: Item, temporary: Temporary, hash: str, size: int) -> bool:
        """Take the content from a file that was put in place before; False where it is not that any more."""
        try:
            source = origin.tree.folder(origin.local.rpartition("/")[0]).open(origin.name, os.O_RDONLY)
        except (OSError, Trouble):
            return False
        try:
            if size >= CLONED_BYTES and _clone(source, temporary.descriptor):
                if temporary.size == size and _hash_of(temporary.descriptor) == hash:
                    return True
                temporary.restart()
                return False
            if temporary.found:
                temporary.restart()
            digest = self._digest()
            copied = 0
            while block := os.read(source, min(READ_BYTES, size + 1)):
                digest.update(block)
                copied += len(block)
                if copied > size:
                    break
                temporary.write(memoryview(block))
            if copied == size and digest.hexdigest() == hash:
                return True
            temporary.restart()
            return False
        finally:
            os.close(source)


def _larger(item: Item, size: int) -> Trouble:
    return Trouble(f"'{item.row.path}' is larger in the store than the {size} bytes recorded", statuses.DATA)


def _get_parts(s3: S3, key: str, sink: Callable[[memoryview], None], start: int, size: int) -> bool:
    """Fetch an object in parts at the same time, and hand them over in order; False where there is none.

    So the file that is written is always a whole beginning, which a later run can go on from.
    """
    parts: dict[int, memoryview | BaseException | None] = {}
    changed = Condition()
    offsets = range(start, size, PART_BYTES)
    begun = handed = 0
    over = False

    def work() -> None:
        nonlocal begun
        while True:
            with changed:
                while begun >= handed + PARTS and not over:
                    changed.wait()
                if over or begun >= len(offsets):
                    return
                number = begun
                begun += 1
            result: memoryview | BaseException | None
            try:
                # What is handed over in the end is hashed, so an object replaced in between is noticed.
                result = _get_part(s3, key, offsets[number], min(PART_BYTES, size - offsets[number]))
            except BaseException as error:
                result = error
            with changed:
                parts[number] = result
                changed.notify_all()

    for _ in range(min(PARTS, len(offsets))):
        Thread(target=work, daemon=True).start()
    try:
        for number in range(len(offsets)):
            with changed:
                while number not in parts:
                    changed.wait()
                part = parts.pop(number)
            if part is None:
                return False
            if isinstance(part, BaseException):
                raise part
            sink(part)
            with changed:
                handed += 1
                changed.notify_all()
        return True
    finally:
        with changed:
            over = True
            changed.notify_all()


def _get_part(s3: S3, key: str, start: int, length: int) -> memoryview | None:
    part = memoryview(bytearray(length))
    have = 0

    def take(block: memoryview) -> None:
        nonlocal have
        part[have : have + len(block)] = block
        have += len(block)

    return part if s3.fetch(key, take, start=start, length=length) is not None else None


def _clone(source: int, target: int) -> bool:
    try:
        import fcntl

        fcntl.ioctl(target, _FICLONE, source)
    except (ImportError, OSError):
        return False
    return True


def _hash_of(descriptor: int) -> str:
    from xxhash import xxh3_128

    digest = xxh3_128()
    _read_into(descriptor, 1 << 62, digest)
    return digest.hexdigest()


def _read_into(descriptor: int, length: int, digest: Any) -> bool:
    """Hash the first `length` bytes of a file into `digest`; False where there are fewer."""
    offset = 0
    buffer = page_buffer(READ_BYTES)
    while offset < length:
        got = read_at(descriptor, buffer[: length - offset], offset)
        if not got:
            return False
        digest.update(buffer[:got])
        offset += got
    return True


def _judged(error: Exception, path: str) -> tuple[Trouble, bool]:
    """(the trouble that tells of an error, whether there is no point in going on)."""
    if isinstance(error, OSError):
        error.filename = path  # what the person knows, not the name below some open folder
        trouble = os_trouble(error, "write")
        trouble.__cause__ = error
        return trouble, error.errno in _FATAL
    if isinstance(error, Trouble):
        return error, isinstance(error, S3Error)
    said = f"internal error: {type(error).__name__}: {error}; please report it"
    return Trouble(said, statuses.SOFTWARE), True
