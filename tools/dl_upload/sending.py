"""Sends contents to the store from many threads, and tells in which order what was done.

feeder ──▶ pending (in order) ─────────────────▶ emitter: takes from the front what is done
   └─────▶ tasks ──▶ worker threads ──▶ finished ──┘
                         └─▶ large files (parts.py)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from libdeadline import long_paths, statuses
from libdeadline.errors import Trouble, os_trouble
from libdeadline.pool import Pool
from libdeadline.records import File, Record
from libdeadline.s3 import S3Error, Stopping
from libdeadline.store import Presence, Store

from .parts import LargeFiles, damaged, hash_of, send_open

SMALL_BYTES = 1 << 17  # sent from memory
TOGETHER = 16  # contents that are looked for at once
LARGE_BYTES = 32 << 20  # from here on in parts
# A FIFO that took the place of a file must not hold us up.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Item:
    """A record on its way through, and what became of it."""

    __slots__ = (
        "cached", "counted", "done", "fatal", "guessed", "known", "large_bytes", "outcome", "row", "size", "sought",
        "trouble", "twin",
    )  # fmt: skip

    def __init__(self, row: Record) -> None:
        self.row = row
        self.counted = self.done = self.fatal = self.twin = False
        self.sought = self.guessed = False  # looked for in the store already, or taken to be new
        self.known: int | None = None  # size of what the store has
        self.cached: bool | None = None  # believed to be there by the check cache: verified (True) or not (False)
        self.outcome: str | None = None
        self.trouble: Trouble | None = None
        self.size = 0
        self.large_bytes = 0  # of a file sent in parts: told as progress already

    @property
    def is_stored(self) -> bool:
        """Whether the store was seen to have the content, and all of it."""
        return self.known is not None and self.row.get("size") in (None, self.known)


class Sender:
    """The threads that send."""

    def __init__(
        self,
        store: Store,
        presence: Presence,
        jobs: int | None,
        verify: bool,
        journals: str,
        local_path: Callable[[File], str],
        finished: SimpleQueue[Any],
    ) -> None:
        """`local_path` tells where a file lies.

        Items that are done are put into `finished`, and the bytes of a large file's parts as they are sent.
        """
        self.store, self.presence, self.verify, self.map = store, presence, verify, local_path
        self.finished = finished
        self._pool: Pool[Item] = Pool(self._work, store.s3, jobs)
        presence.backlog = self._pool.waiting
        self._large = LargeFiles(store, presence, jobs, journals, self._finish, finished.put)

    def submit(self, item: Item) -> None:
        """Have the file of `item` looked for and, if need be, stored."""
        self.presence.expect(self._pool.submit(item))

    def forget(self, hash: str, size: int) -> None:
        """Drop what a killed run left of the upload of a large content that is in the store by now."""
        self._large.forget(hash, size)

    def close(self) -> None:
        """Let the threads end when all is done."""
        self._pool.close()
        self._large.close()

    def stop(self, *, abort: bool) -> None:
        """Give up at once what is being sent; with `abort` uploads in parts are dropped, else a later run goes on."""
        self.store.s3.stop()
        self._large.stop(abort=abort)

    def _work(self, item: Item) -> bool:
        items = [item]
        try:
            if not item.sought:
                items += self._seek(item)
        except Stopping:
            return False
        except Exception as error:
            self._finish(item, error)
            return True
        for each in items:
            if each is not item and not each.is_stored:
                self._pool.submit(each)  # others may send it meanwhile
                continue
            try:
                if self._settle(each):
                    self._finish(each)
            except Stopping:
                return False
            except Exception as error:
                self._finish(each, error)
        return True

    def _seek(self, item: Item) -> list[Item]:
        """Look for the content of an item, and of others that wait: these others. Raises: what the search does."""
        if self._guess(item):
            return []
        others = self._pool.share(TOGETHER - 1)
        wanted = [item, *(other for other in others if not other.sought and not self._guess(other))]
        try:
            sizes = self.presence.find_each([each.row["hash"] for each in wanted])
        except BaseException:
            for other in others:
                self._pool.submit(other)
            raise
        for each, each.known in zip(wanted, sizes, strict=True):
            each.sought = True
        return others

    def _guess(self, item: Item) -> bool:
        """Whether an item's content is taken to be new, without looking for it."""
        size = item.row.get("size")
        item.guessed = item.cached is None and size is not None and self.presence.is_likely_new(size)
        item.sought = item.guessed
        return item.guessed

    def _finish(self, item: Item, error: Exception | None = None) -> None:
        if error is not None:
            if isinstance(error, OSError):
                error = os_trouble(error, "read")
            elif not isinstance(error, Trouble):
                error = Trouble(f"internal error: {type(error).__name__}: {error}; please report it", statuses.SOFTWARE)
                item.fatal = True
            if isinstance(error, S3Error):
                item.fatal = True  # what fails for one object for good fails for all
            item.trouble = error
        item.done = True
        self.finished.put(item)

    def _settle(self, item: Item) -> bool:
        """See to it that the content is in the store; False where others go on with it."""
        row = item.row
        assert isinstance(row, File)
        hash, size, known, path = row["hash"], row.get("size"), item.known, ""
        if item.cached and known is None:
            self.presence.refute()
        if item.is_stored:
            item.outcome = "present"
        else:
            path = self.map(row)
            descriptor = long_paths.opened(path, FLAGS)
            try:
                about = os.fstat(descriptor)
                if not stat.S_ISREG(about.st_mode):
                    raise Trouble(f"'{path}' is no regular file any more: run again", statuses.TRY_AGAIN, path=path)
                size = about.st_size if size is None else size
                item.size = size
                if about.st_size != size:
                    raise changed(path)
                if size >= LARGE_BYTES:
                    self._large.submit(item, descriptor, path, about, known is None)
                    descriptor = -1
                    return False
                item.outcome = send_open(self.store, hash, descriptor, path, size, known is None)
                if item.guessed and item.outcome == "present":
                    known = self.presence.find(hash)
                    if known is not None and known != size:  # what is there is damaged
                        item.outcome = send_open(self.store, hash, descriptor, path, size, False)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        assert size is not None or known is not None
        self.presence.remember(hash, known if size is None else size)  # type: ignore[arg-type]
        if path and is_other(path, about, hash):
            raise changed(path)  # what was stored is what its key says, but no longer what the file holds
        if self.verify:
            verify(self.store, hash)
        return True


def changed(path: str) -> Trouble:
    """The trouble with a file whose content is not what was hashed."""
    return Trouble(f"'{path}' changed after it was hashed: run again", statuses.TRY_AGAIN, path=path)


def holds(path: str, hash: str, size: int) -> bool:
    """Whether there is a regular file of that content at `path`. Raises: OSError."""
    descriptor = long_paths.opened(path, FLAGS)
    try:
        about = os.fstat(descriptor)
        return stat.S_ISREG(about.st_mode) and about.st_size == size and hash_of(descriptor, size) == hash
    finally:
        os.close(descriptor)


def is_other(path: str, about: os.stat_result, hash: str) -> bool:
    """Whether the file at `path` is no longer the one that was opened, nor one alike. Raises: OSError where none is."""
    now = long_paths.status(path)
    if now.st_ctime_ns == about.st_ctime_ns and now.st_ino == about.st_ino and now.st_size == about.st_size:
        return False
    return not holds(path, hash, about.st_size)


def verify(store: Store, hash: str) -> None:
    """Read a content back. Raises: Trouble (65) where it is not what its key says."""
    from xxhash import xxh3_128

    digest = xxh3_128()
    key = store.data_key(hash)
    if store.s3.fetch(key, digest.update) is None or digest.hexdigest() != hash:
        raise damaged(store.s3.url(key))
