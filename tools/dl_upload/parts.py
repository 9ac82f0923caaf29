"""Sends one open file: whole, or in parts that a later run can take up where a killed one left off."""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from time import time
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from libdeadline import statuses
from libdeadline.errors import Trouble, os_trouble
from libdeadline.s3 import S3Error, Stopping
from libdeadline.sockets import Changed, is_loopback, page_buffer, read_at, read_first
from libdeadline.store import Presence, Store

if TYPE_CHECKING:
    from .sending import Item

PART_BYTES = 16 << 20
NEAR_PART_BYTES = 8 << 20  # small enough to be kept in memory, so that it is read but once
MOST_PARTS = 10_000  # S3's limit
READ_BYTES = 1 << 17  # small enough to stay in the processor's cache until it is hashed
NEAR_SENDERS, FAR_SENDERS = 1, 16  # parts on their way at the same time: a second one gains nothing on one machine
DAMAGED_TRIES = 3  # of a content that is right here and arrives wrong
LEFT_S = 7 * 86400.0  # after which nobody is thought to come back for an upload that a killed run began
LOST_S = 900.0  # by which the moment of an upload whose id never arrived may be off: S3 endures no more
HASH_DIGITS = 32
ABORT_S = 5.0  # for which cleaning up may hold up an exit


def send_open(store: Store, hash: str, descriptor: int, path: str, size: int, absent: bool) -> str:
    """Store an open file that fits one request: new, or present where someone else was quicker.

    Raises: Trouble (75) where its content is not what `hash` was made of; nothing was stored then.
    """
    from xxhash import xxh3_128_hexdigest

    from .sending import SMALL_BYTES, changed

    key = store.data_key(hash)
    for _ in range(DAMAGED_TRIES):
        try:
            if size <= SMALL_BYTES:
                data = read_first(descriptor, size + 1)
                if len(data) != size or xxh3_128_hexdigest(data) != hash:
                    raise changed(path)
                stored = store.s3.put(key, data, hash=hash, if_absent=absent)
            else:
                stored = store.s3.put_file(key, descriptor, size, hash=hash, if_absent=absent)
            return "new" if stored else "present"
        except Changed:
            if size > SMALL_BYTES and hash_of(descriptor, size) != hash:
                raise changed(path) from None
    raise damaged(store.s3.url(key))


def damaged(url: str) -> Trouble:
    """The trouble with content that does not arrive as it was sent."""
    return Trouble(f"'{url}' is not what its key says: its content was damaged on the way", statuses.DATA)


def hash_of(descriptor: int, size: int) -> str:
    """XXH3 128 of the first `size` bytes of an open file."""
    from xxhash import xxh3_128

    digest, offset, buffer = xxh3_128(), 0, page_buffer(READ_BYTES)
    while offset < size and (got := read_at(descriptor, buffer[: size - offset], offset)):
        digest.update(buffer[:got])
        offset += got
    return digest.hexdigest()


class Journal:
    """What of a multipart upload is done, in a file that outlives a kill; held by one process at a time.

    Shape: lines, each written at once. `@ <size> <mtime ns> <path as JSON>` is the file that is sent; `- <time> <name>`
    says that an upload is about to be begun; `<upload id> <part bytes> <name>`, that it was; `<number> <hash> <etag>`,
    that a part of it is stored. `name` tells endpoint, bucket and key.
    """

    def __init__(self, folder: str, name: str, part_bytes: int) -> None:
        """Raises: OSError; BlockingIOError where another process holds it."""
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.path = self.place(folder, name)
        self._name, self._part_bytes = name, part_bytes
        self._lock = Lock()
        while True:
            self._file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115
            try:
                _lock_file(self._file)
            except OSError:
                self._file.close()
                raise
            if os.fstat(self._file.fileno()).st_nlink:
                break
            self._file.close()  # whoever held it has removed it meanwhile
        self._file.seek(0)
        noted = Noted(self._file.read())
        self.upload_id: str | None = None
        self.parts: dict[int, tuple[str, str]] = {}
        self.begun_at = noted.begun_at  # when an upload was begun whose id never arrived
        self.lost = noted.uploads  # ids of uploads that can't be gone on with
        if noted.uploads and noted.part_bytes == part_bytes:
            self.upload_id, self.parts = self.lost.pop(), noted.parts

    @staticmethod
    def place(folder: str, name: str) -> str:
        """Where the journal of a name is kept."""
        from xxhash import xxh3_128_hexdigest

        return os.path.join(folder, xxh3_128_hexdigest(name.encode()) + ".parts")

    def intend(self, path: str, about: os.stat_result, now: float) -> None:
        """Note that an upload of a file is about to be begun."""
        from json import dumps

        self._append(f"@ {about.st_size} {about.st_mtime_ns} {dumps(path)}\n- {now:.3f} {self._name}\n")

    def begin(self, upload_id: str) -> None:
        """Note that an upload was begun."""
        self.upload_id, self.parts = upload_id, {}
        self._append(f"{upload_id} {self._part_bytes} {self._name}\n")

    def add(self, number: int, hash: str, etag: str) -> None:
        """Note that a part is stored."""
        self.parts[number] = (hash, etag)
        self._append(f"{number} {hash} {etag}\n")

    def _append(self, line: str) -> None:
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def close(self, *, remove: bool) -> None:
        """Let go of it; `remove` when the upload is over, one way or the other."""
        if remove:
            try:
                os.unlink(self.path)
            except OSError:
                pass
        self._file.close()


class Noted:
    """What a journal says."""

    def __init__(self, text: str) -> None:
        self.file: tuple[int, int, str] | None = None  # size, mtime in ns, path
        self.name = ""
        self.begun_at: float | None = None
        self.uploads: list[str] = []  # ids; the last one is gone on with
        self.part_bytes = 0  # of the last one
        self.parts: dict[int, tuple[str, str]] = {}
        for line in text.split("\n")[:-1]:  # what follows the last newline was cut off
            first, _, rest = line.partition(" ")
            second, _, third = rest.partition(" ")
            try:
                if first == "@":
                    from json import loads

                    size, _, path = rest.partition(" ")
                    mtime_ns, _, path = path.partition(" ")
                    self.file = (int(size), int(mtime_ns), loads(path))
                elif first == "-":
                    self.begun_at, self.name = float(second), third
                elif len(second) == HASH_DIGITS:
                    if first.isdecimal() and third:
                        self.parts[int(first)] = (second, third)
                elif second.isdecimal():
                    self.uploads.append(first)
                    self.part_bytes, self.name = int(second), third
                    self.parts, self.begun_at = {}, None
            except ValueError:
                continue  # not ours

    def is_over(self) -> bool:
        """Whether the file that was sent is gone or another one, as far as its folder can be seen."""
        if self.file is None:
            return False
        size, mtime_ns, path = self.file
        try:
            about = os.stat(path)
        except FileNotFoundError:
            return os.path.isdir(os.path.dirname(path))
        except OSError:
            return False
        return (about.st_size, about.st_mtime_ns) != (size, mtime_ns)


def _lock_file(file: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class _Task(NamedTuple):
    item: Item
    descriptor: int
    path: str
    about: os.stat_result  # of the open file
    absent: bool

    @property
    def size(self) -> int:
        return self.about.st_size


class _Part(NamedTuple):
    key: str
    upload_id: str
    number: int
    hash: str
    source: memoryview | tuple[int, int, int]  # its content, or descriptor, offset and length


class LargeFiles:
    """Sends large files one after another, several parts of each at the same time."""

    def __init__(
        self,
        store: Store,
        presence: Presence,
        jobs: int | None,
        journals: str,
        finish: Callable[..., None],
        moved: Callable[[int], None],
    ) -> None:
        """`finish` is called with an item and its trouble, if any; `moved` with the bytes of each part that is sent."""
        self.store, self.presence, self.journals = store, presence, journals
        self._finish, self._moved = finish, moved
        self._files: SimpleQueue[_Task | None] = SimpleQueue()
        self._parts: SimpleQueue[_Part | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[_Part, Any]] = SimpleQueue()
        self._near = is_loopback(store.s3.host)
        self._most = min(jobs or MOST_PARTS, NEAR_SENDERS if self._near else FAR_SENDERS)
        self._buffers: list[memoryview] = []  # for parts that are kept in memory
        self._senders = 0
        self._thread: Thread | None = None
        self._open: dict[str, tuple[str, Journal | None]] = {}  # key: upload id and journal of what is going on

    def submit(self, item: Item, descriptor: int, path: str, about: os.stat_result, absent: bool) -> None:
        """Have an open file sent; it is closed when that is done."""
        self._files.put(_Task(item, descriptor, path, about, absent))
        if self._thread is None:
            self._thread = Thread(target=self._run, daemon=True)
            self._thread.start()

    def forget(self, hash: str, size: int) -> None:
        """Drop what a killed run left of the upload of a content that is in the store by now."""
        name, part_bytes = self._name(hash, size)
        if not os.path.exists(Journal.place(self.journals, name)):
            return
        try:
            journal = Journal(self.journals, name, part_bytes)
        except OSError:
            return  # someone else is at it
        over = False
        try:
            self._drop(self.store.data_key(hash), journal)
            over = True
        except Trouble:
            pass  # it stays for another run
        finally:
            journal.close(remove=over)

    def _drop(self, key: str, journal: Journal) -> None:
        """Abort all that a journal knows of."""
        if journal.upload_id:
            journal.lost.append(journal.upload_id)
            journal.upload_id = None
        self._drop_lost(key, journal.lost, journal.begun_at)

    def _drop_lost(self, key: str, ids: list[str], begun_at: float | None) -> None:
        """Abort uploads to a key: those of `ids`, and those that were begun about then."""
        from libdeadline.times import of_text

        s3, ids = self.store.s3, [*ids]
        if begun_at is not None:
            try:
                ids += [
                    upload.upload_id
                    for upload in s3.uploads(key)
                    if upload.key == key and abs(of_text(upload.initiated).timestamp() - begun_at) < LOST_S
                ]
            except (S3Error, ValueError):
                pass  # not everyone may list them
        for upload_id in ids:
            s3.abort_multipart(key, upload_id)

    def _name(self, hash: str, size: int) -> tuple[str, int]:
        """(name of the journal, bytes of a part) for a content."""
        least = NEAR_PART_BYTES if self._near else PART_BYTES
        part_bytes = max(least, -(-size // MOST_PARTS) + READ_BYTES & -READ_BYTES)
        return f"{self.store.s3.origin} {self.store.s3.bucket} {self.store.data_key(hash)}", part_bytes

    def close(self) -> None:
        """Let the threads end when all is done."""
        self._files.put(None)

    def stop(self, *, abort: bool) -> None:
        """Stop, and with `abort` drop what is being sent. `S3.stop` was called before."""
        if self._thread is not None:
            self._files.put(None)  # it may have nothing to do, and wait
            self._thread.join(ABORT_S)
        s3 = self.store.s3
        if not self._open or not abort:
            return
        s3.resume(ABORT_S)
        for key, (upload_id, journal) in list(self._open.items()):
            try:
                s3.abort_multipart(key, upload_id)
            except (Trouble, Stopping):
                continue  # the journal stays: the next run goes on with the upload
            if journal is not None:
                journal.close(remove=True)

    def _clear(self) -> None:
        """Abort what killed runs began in this bucket of files that are others by now, or that nobody came back for."""
        s3 = self.store.s3
        try:
            names = os.listdir(self.journals)
        except OSError:
            return
        for name in names:
            try:
                with open(os.path.join(self.journals, name), "r+", encoding="utf-8") as file:
                    _lock_file(file)
                    noted = Noted(file.read())
                    if not noted.name:
                        os.unlink(file.name)  # nothing was begun
                        continue
                    origin, bucket, key = noted.name.split(" ", 2)
                    is_old = os.fstat(file.fileno()).st_mtime < time() - LEFT_S
                    if (origin, bucket) == (s3.origin, s3.bucket) and (is_old or noted.is_over()):
                        self._drop_lost(key, noted.uploads, noted.begun_at)
                        os.unlink(file.name)
            except (OSError, ValueError, Trouble):
                continue  # it may be in use, or not ours to abort

    def _run(self) -> None:
        self._clear()
        while (task := self._files.get()) is not None:
            try:
                task.item.outcome = self._send(task)
                self.presence.remember(str(task.item.row["hash"]), task.size)
                self._finish(task.item)
            except Stopping:
                return
            except Exception as error:
                self._finish(task.item, error)
            finally:
                os.close(task.descriptor)
        for _ in range(self._senders):
            self._parts.put(None)

    def _work(self) -> None:
        s3 = self.store.s3
        while (part := self._parts.get()) is not None:
            result: Any
            for _ in range(DAMAGED_TRIES):
                try:
                    result = s3.put_part(*part)
                    # At once: a part that is stored and not noted would be sent again.
                    if (journal := self._open[part.key][1]) is not None:
                        journal.add(part.number, part.hash, result)
                    break
                except Exception as error:
                    result = error
                    if not isinstance(error, Changed):
                        break
            self._results.put((part, result))

    def _send(self, task: _Task) -> str:
        """Store a file in parts: new, or present where someone else was quicker."""
        hash = str(task.item.row["hash"])
        key = self.store.data_key(hash)
        s3 = self.store.s3
        name, part_bytes = self._name(hash, task.size)
        journal: Journal | None
        try:
            journal = Journal(self.journals, name, part_bytes)
        except OSError:
            journal = None  # another process sends the same, or there is no place for a journal: without, then
        over = False
        try:
            for _ in range(2):
                try:
                    outcome = self._send_parts(task, hash, key, part_bytes, journal)
                    over = True
                    return outcome
                except S3Error as error:
                    # An upload that a journal remembers may have been cleared away meanwhile, or one of its parts.
                    if error.code not in ("NoSuchUpload", "InvalidPart") or journal is None:
                        raise
                    if error.code == "InvalidPart" and journal.upload_id:
                        journal.lost.append(journal.upload_id)
                    journal.upload_id, journal.parts = None, {}
            raise Trouble(f"the upload of '{s3.url(key)}' was aborted by someone else", statuses.TRY_AGAIN)
        except Trouble as error:
            # What a later run can go on with is kept: for changed content there is nothing to go on with.
            if not isinstance(error, S3Error) and key in self._open:
                s3.abort_multipart(key, self._open[key][0])
                over = True
            raise
        finally:
            if not s3.stopping.is_set():
                self._open.pop(key, None)
                if journal is not None:
                    journal.close(remove=over)

    def _send_parts(self, task: _Task, hash: str, key: str, part_bytes: int, journal: Journal | None) -> str:
        from xxhash import xxh3_128

        from .sending import changed, is_other

        s3 = self.store.s3
        if journal is not None and journal.upload_id:
            upload_id = journal.upload_id
        else:
            if journal is not None:
                self._drop_lost(key, journal.lost, journal.begun_at)
                journal.lost, journal.begun_at = [], None
                journal.intend(task.path, task.about, s3.now())
            upload_id = s3.create_multipart(key)
            if journal is not None:
                journal.begin(upload_id)
        self._open[key] = (upload_id, journal)
        whole = xxh3_128()
        in_memory = self._near and part_bytes <= NEAR_PART_BYTES and not s3.verifies
        while in_memory and len(self._buffers) <= self._most:
            self._buffers.append(page_buffer(NEAR_PART_BYTES))
        free = list(self._buffers)
        buffer = page_buffer(READ_BYTES)
        done: dict[int, tuple[str, str]] = {}  # number: hash, etag
        kept: dict[int, memoryview] = {}  # number of a part on its way: its buffer
        on_way = 0
        failed: Exception | None = None

        def collect() -> None:
            nonlocal on_way, failed
            part, result = self._results.get()
            on_way -= 1
            length = len(part.source) if isinstance(part.source, memoryview) else part.source[2]
            if part.number in kept:
                free.append(kept.pop(part.number))
            if isinstance(result, Exception):
                failed = failed or result
                return
            done[part.number] = (part.hash, result)
            self._tell(task.item, length)

        try:
            for number, offset in enumerate(range(0, task.size, part_bytes), 1):
                length = min(part_bytes, task.size - offset)
                digest, position = xxh3_128(), 0
                memory = free.pop() if in_memory else None
                content = memory[:length] if memory is not None else None
                while position < length:
                    if content is not None:
                        buffer = content[position : position + READ_BYTES]
                    got = read_at(task.descriptor, buffer[: length - position], offset + position)
                    if not got:
                        raise changed(task.path)
                    whole.update(buffer[:got])
                    digest.update(buffer[:got])
                    position += got
                part_hash = digest.hexdigest()
                known = journal.parts.get(number) if journal is not None else None
                if known is not None and known[0] == part_hash:
                    done[number] = known
                    self._tell(task.item, length)
                    if memory is not None:
                        free.append(memory)
                    continue
                while on_way >= self._most and failed is None:
                    collect()
                if failed is not None or s3.stopping.is_set():
                    break
                if self._senders < self._most:
                    self._senders += 1
                    Thread(target=self._work, daemon=True).start()
                if memory is not None:
                    kept[number] = memory
                source = content if content is not None else (task.descriptor, offset, length)
                self._parts.put(_Part(key, upload_id, number, part_hash, source))
                on_way += 1
        finally:
            while on_way:
                collect()
        if failed is not None:
            if isinstance(failed, Changed):
                raise changed(task.path) if hash_of(task.descriptor, task.size) != hash else damaged(s3.url(key))
            raise failed
        if s3.stopping.is_set():
            raise Stopping
        try:
            is_changed = whole.hexdigest() != hash or is_other(task.path, task.about, hash)
        except OSError as error:
            raise os_trouble(error, "read") from None
        if is_changed:
            raise changed(task.path)
        parts = [(number, etag, part_hash) for number, (part_hash, etag) in sorted(done.items())]
        if s3.complete_multipart(key, upload_id, parts, if_absent=task.absent):
            return "new"
        s3.abort_multipart(key, upload_id)  # the upload outlives such a refusal
        return "present"

    def _tell(self, item: Item, length: int) -> None:
        item.large_bytes += length
        self._moved(length)
