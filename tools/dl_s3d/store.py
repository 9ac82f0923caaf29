"""Buckets and objects on disk: long contents in files of their own, all else in one SQLite database.

  up to SHORT_BYTES   content ──────────────────────────────────▶ row ─▶ commit ─▶ answer
  longer              content ─▶ file ─▶ flush file and folder ─▶ row ─▶ commit ─▶ answer

A file is written under a name that was never used before and is seen only once a row names it; a row is seen only once
its transaction is committed, which flushes it (WAL, synchronous=FULL). So a kill or a loss of power at any moment
leaves an object whole or absent, and what was acknowledged is there. Files that no row names (the end came between)
are removed at the next start. A file that is missing or not as long as its row says makes its object absent.

Short contents lie in the database because one flush is then enough for all that a turn of the server took in, while
files cost one each, and their making more time than their bytes: measured with 16 clients, 2.3 times as many small
PUTs a second as with a flush of each file, and as many as with none.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from threading import Thread
from time import time, time_ns
from typing import Any

from libdeadline.disk import flush

from .faults import Fault
from .wire import Slice

SCHEMA = """
CREATE TABLE IF NOT EXISTS bucket (
  name TEXT PRIMARY KEY,
  created INTEGER NOT NULL             -- milliseconds since the epoch, as all times here
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object (
  bucket TEXT NOT NULL,
  key BLOB NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified INTEGER NOT NULL,
  headers TEXT NOT NULL,               -- JSON object: those to answer with, names in lower case
  checksums TEXT NOT NULL,             -- JSON object: algorithm to base64 value
  files TEXT NOT NULL,                 -- JSON array of [name, size]: one after the other, the content
  upload TEXT,                         -- the multipart upload that made it
  content INTEGER,                     -- where it is short: id of the row with its bytes; then no files
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS content (
  id INTEGER PRIMARY KEY,
  bytes BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS upload (
  id TEXT PRIMARY KEY,
  bucket TEXT NOT NULL,
  key BLOB NOT NULL,
  created INTEGER NOT NULL,
  headers TEXT NOT NULL,
  algorithm TEXT,                      -- of the checksum that parts carry
  checksum_type TEXT                   -- COMPOSITE or FULL_OBJECT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS part (
  upload TEXT NOT NULL,
  number INTEGER NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified INTEGER NOT NULL,
  checksums TEXT NOT NULL,
  files TEXT NOT NULL,
  PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""
TEN_VALUES = "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
COLUMNS = "key, size, etag, modified, headers, checksums, files, upload, content"
SHORT_BYTES = 1 << 17  # longest content that lies in the database
VERSION = 1  # of the schema; 0 knew no short contents
PAGE_BYTES = 1 << 14  # a third faster with short contents than SQLite's 4096; stores keep what they were made with
LOG_BYTES = 4 << 20  # of the write-ahead log before it is taken over: with more, answers waited longer and were no more
FREE_BYTES = 16 << 20  # that deleted short contents leave in the database for new ones; more is given back
FANOUT = 256  # folders that files are spread over
CACHE_KIB = 16384
LOCK_WAIT_S = 5.0
UPLOAD_LIFE_MS = 7 * 24 * 3600 * 1000  # an upload that was never finished is dropped at a start after this

Files = list[tuple[str, int]]


@dataclass(slots=True)
class Object:
    """An object's row: times in milliseconds, `etag` without quotes."""

    key: bytes
    size: int
    etag: str
    modified: int
    headers: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    files: Files = field(default_factory=list)
    upload: str | None = None
    content: int | None = None


@dataclass(slots=True)
class Upload:
    id: str
    bucket: str
    key: bytes
    created: int
    headers: dict[str, str]
    algorithm: str | None
    checksum_type: str | None


@dataclass(slots=True)
class Part:
    number: int
    size: int
    etag: str
    modified: int
    checksums: dict[str, str]
    files: Files


class Busy(Exception):
    """Another process serves the folder."""


class Newer(Exception):
    """A later version wrote the index: `args[0]` is its schema."""


def now_ms() -> int:
    return int(time() * 1000)


class Store:
    """The folder of one server. Changes become durable, and files that they replaced are removed, by `commit`.

    Without `flushes` they survive the end of the process, and as much of a loss of power as the system cares for.
    Raises: Busy where another process has the folder; Newer; OSError, sqlite3.Error.
    """

    def __init__(self, folder: str, flushes: bool = True) -> None:
        self.folder, self.flushes = folder, flushes
        self.files = os.path.join(folder, "files")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.makedirs(self.files, mode=0o700, exist_ok=True)
        for number in range(FANOUT):
            os.makedirs(os.path.join(self.files, f"{number:02x}"), mode=0o700, exist_ok=True)
        self._lock = _locked(os.path.join(folder, "lock"))
        for each in (self.files, folder):
            flush(each)
        self.database = os.path.join(folder, "index.sqlite")
        self._db = _connected(self.database, flushes)
        _make_schema(self._db)
        # Names of one run sort after those of earlier runs, so that the sweep can tell leftovers from new files.
        self._run = f"{time_ns():016x}"
        self._numbers = count()
        self._obsolete: Files = []  # replaced or deleted by the open transaction
        self._fresh: list[str] = []  # written for it
        self._changed = False
        self._frees = False  # whether it deletes short contents
        self._failure: sqlite3.Error | None = None
        self._names = {name for name, _ in self.buckets()}  # as they will be after the next commit
        stale = self._db.execute("SELECT id FROM upload WHERE created < ?", (now_ms() - UPLOAD_LIFE_MS,)).fetchall()
        for (upload_id,) in stale:
            self.drop_upload(upload_id)
        self.commit()
        self._sweeper = Thread(target=self._sweep, daemon=True)
        self._sweeper.start()

    # -- files

    def new_file(self) -> tuple[str, int]:
        """(name, descriptor open for writing) of a new file."""
        number = next(self._numbers)
        name = f"{self._run}{number:08x}"
        return name, os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def path(self, name: str) -> str:
        return f"{self.files}/{name[-2:]}/{name}"

    def discard(self, files: Iterable[tuple[str, int]]) -> None:
        for name, _ in files:
            try:
                os.unlink(self.path(name))
            except OSError:
                pass  # swept at the next start

    def flush_files(self, files: Files) -> None:
        """Put files and their names on the disk, where changes are to be durable; called from threads.

        Raises: Fault where the disk refuses.
        """
        if not self.flushes:
            return
        try:
            paths = [self.path(name) for name, _ in files]
            for path in (*paths, *{os.path.dirname(path) for path in paths}):
                flush(path)
        except OSError as error:
            raise Fault("InsufficientStorage", f"The object cannot be written: {error.strerror}.") from error

    def is_whole(self, row: Object) -> bool:
        """Whether the files of an object are there with their full sizes."""
        try:
            return all(os.stat(self.path(name)).st_size == size for name, size in row.files)
        except OSError:
            return False

    def slices(self, files: Files, start: int, length: int) -> list[Slice]:
        """Where `length` bytes from `start` on lie."""
        found = []
        for name, size in files:
            if start < size and length > 0:
                taken = min(size - start, length)
                found.append(Slice(self.path(name), start, taken))
                length -= taken
                start = 0
            else:
                start -= size
        return found

    def _sweep(self) -> None:
        """Remove files of earlier runs that no row names."""
        try:
            db = _connected(self.database, self.flushes)
            with db:
                db.execute("BEGIN")
                named = {
                    name
                    for table in ("object", "part")
                    for (files,) in db.execute(f"SELECT files FROM {table}")
                    for name, _ in json.loads(files)
                }
            db.close()
            for folder in os.scandir(self.files):
                for entry in os.scandir(folder.path):
                    if entry.name < self._run and entry.name not in named:
                        os.unlink(entry.path)
        except (OSError, sqlite3.Error):
            pass  # leftovers cost room, nothing else; the next start tries again

    # -- transactions

    @property
    def changed(self) -> bool:
        """Whether there are changes that a crash would lose."""
        return self._changed or self._failure is not None

    def _change(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            if not self._changed:
                self._db.execute("BEGIN IMMEDIATE")
                self._changed = True
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            # Half of a change may be in, and others share the transaction: nobody's is committed.
            self._failure = error
            raise Fault("InsufficientStorage", f"The index cannot be written: {error}.") from error

    def commit(self) -> None:
        """Make the changes since the last commit durable, all or none.

        Raises: Fault where the disk refuses; then the changes, and the files written for them, are gone.
        """
        failure, self._failure = self._failure, None
        if not self._changed and not failure:
            return
        try:
            if failure:
                raise failure
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self.rollback()
            raise Fault("InsufficientStorage", f"The index cannot be written: {error}.") from error
        self._changed = False
        obsolete, self._obsolete, self._fresh = self._obsolete, [], []
        self.discard(obsolete)
        if self._frees:
            self._frees = False
            self._give_back()

    def _give_back(self) -> None:
        """Shorten the database where much of it is free."""
        try:
            (free,), (page_bytes,) = (
                self._db.execute(f"PRAGMA {each}").fetchone() for each in ("freelist_count", "page_size")
            )
            excess = free - FREE_BYTES // page_bytes
            if excess > 0:
                self._db.executescript(f"PRAGMA incremental_vacuum({excess})")  # `execute` frees one page only
        except sqlite3.Error:
            pass  # it costs room, nothing else; the next deletion tries again

    def rollback(self) -> None:
        if self._changed:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                pass  # SQLite has rolled back by itself
        self._changed = self._frees = False
        self._names = {name for name, _ in self.buckets()}
        fresh, self._fresh, self._obsolete = self._fresh, [], []
        self.discard((name, 0) for name in fresh)

    def close(self) -> None:
        self.rollback()
        self._db.close()
        os.close(self._lock)

    # -- buckets

    def buckets(self) -> list[tuple[str, int]]:
        return self._db.execute("SELECT name, created FROM bucket ORDER BY name").fetchall()

    def has_bucket(self, name: str) -> bool:
        return name in self._names

    def create_bucket(self, name: str) -> bool:
        if name in self._names:
            return False
        self._change("INSERT INTO bucket VALUES (?, ?)", (name, now_ms()))
        self._names.add(name)
        return True

    def delete_bucket(self, name: str) -> bool:
        """Whether it was empty, and so is gone, with its unfinished uploads."""
        if self._db.execute("SELECT 1 FROM object WHERE bucket = ? LIMIT 1", (name,)).fetchone():
            return False
        for row in self.uploads(name):
            self.drop_upload(row.id)
        self._change("DELETE FROM bucket WHERE name = ?", (name,))
        self._names.discard(name)
        return True

    # -- objects

    def object(self, bucket: str, key: bytes) -> Object | None:
        row = self._db.execute(f"SELECT {COLUMNS} FROM object WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
        return None if row is None else _object(row)

    def whole_object(self, bucket: str, key: bytes) -> Object | None:
        """An object whose files are all there."""
        row = self.object(bucket, key)
        return row if row is not None and self.is_whole(row) else None

    def content(self, row: Object) -> bytes | None:
        """The bytes of an object that is short; None where they are in its files.

        Raises: Fault where it has neither any more.
        """
        if row.content is None:
            return None
        found = self._db.execute("SELECT bytes FROM content WHERE id = ?", (row.content,)).fetchone()
        if found is None or len(found[0]) != row.size:
            raise Fault("InternalError", "The object's content is not in the index: it is damaged.")
        return found[0]

    def put(self, bucket: str, row: Object, content: bytes | None = None) -> None:
        """Store an object: its `content` if it is short, else the files that `row` names, which were flushed."""
        if content is not None:
            row.content = self._change("INSERT INTO content (bytes) VALUES (?)", (content,)).lastrowid
        values = (
            bucket,
            row.key,
            row.size,
            row.etag,
            row.modified,
            json.dumps(row.headers) if row.headers else "{}",
            json.dumps(row.checksums) if row.checksums else "{}",
            json.dumps(row.files),
            row.upload,
            row.content,
        )
        # Most keys are new, so the old row is looked for only where there is one.
        if not self._change(f"INSERT OR IGNORE INTO object (bucket, {COLUMNS}) {TEN_VALUES}", values).rowcount:
            self.forget(bucket, row.key)
            self._change(f"INSERT INTO object (bucket, {COLUMNS}) {TEN_VALUES}", values)
        self._fresh += [name for name, _ in row.files]

    def forget(self, bucket: str, key: bytes) -> None:
        """Delete an object, if there is one."""
        row = self.object(bucket, key)
        if row is None:
            return
        self._change("DELETE FROM object WHERE bucket = ? AND key = ?", (bucket, key))
        self._obsolete += row.files
        if row.content is not None:
            self._change("DELETE FROM content WHERE id = ?", (row.content,))
            self._frees = True

    def objects(self, bucket: str, start: bytes, end: bytes | None, limit: int) -> Iterator[Object]:
        """Objects with `start` <= key < `end`, in order of their keys' bytes."""
        sql, values = f"SELECT {COLUMNS} FROM object WHERE bucket = ? AND key >= ?", [bucket, start]
        if end is not None:
            sql += " AND key < ?"
            values.append(end)
        for row in self._db.execute(f"{sql} ORDER BY key LIMIT {limit}", values):
            yield _object(row)

    # -- multipart uploads

    def create_upload(self, row: Upload) -> None:
        self._change(
            "INSERT INTO upload VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row.id, row.bucket, row.key, row.created, json.dumps(row.headers), row.algorithm, row.checksum_type),
        )

    def upload(self, upload_id: str, bucket: str, key: bytes) -> Upload | None:
        found = self._db.execute(
            "SELECT * FROM upload WHERE id = ? AND bucket = ? AND key = ?", (upload_id, bucket, key)
        ).fetchone()
        return None if found is None else _upload(found)

    def uploads(self, bucket: str) -> list[Upload]:
        """Unfinished uploads, in order of key and creation."""
        found = self._db.execute("SELECT * FROM upload WHERE bucket = ? ORDER BY key, created, id", (bucket,))
        return [_upload(row) for row in found]

    def put_part(self, upload_id: str, part: Part) -> None:
        old = self._db.execute(
            "SELECT files FROM part WHERE upload = ? AND number = ?", (upload_id, part.number)
        ).fetchone()
        if old:
            self._obsolete += json.loads(old[0])
        self._change(
            "INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                upload_id,
                part.number,
                part.size,
                part.etag,
                part.modified,
                json.dumps(part.checksums),
                json.dumps(part.files),
            ),
        )
        self._fresh += [name for name, _ in part.files]

    def parts(self, upload_id: str) -> list[Part]:
        found = self._db.execute(
            "SELECT number, size, etag, modified, checksums, files FROM part WHERE upload = ? ORDER BY number",
            (upload_id,),
        )
        return [Part(*row[:4], json.loads(row[4]), [tuple(each) for each in json.loads(row[5])]) for row in found]

    def finish_upload(self, upload_id: str, bucket: str, row: Object) -> None:
        """Make an object of an upload's parts: it takes over the files that it names, the others go."""
        kept = {name for name, _ in row.files}
        self._obsolete += [file for part in self.parts(upload_id) for file in part.files if file[0] not in kept]
        fresh = list(self._fresh)
        self.put(bucket, row)
        self._fresh = fresh  # written and committed before: a rollback must leave them with their parts
        self._change("DELETE FROM part WHERE upload = ?", (upload_id,))
        self._change("DELETE FROM upload WHERE id = ?", (upload_id,))

    def drop_upload(self, upload_id: str) -> None:
        self._obsolete += [file for part in self.parts(upload_id) for file in part.files]
        self._change("DELETE FROM part WHERE upload = ?", (upload_id,))
        self._change("DELETE FROM upload WHERE id = ?", (upload_id,))


def _connected(path: str, flushes: bool) -> sqlite3.Connection:
    is_new = not os.path.exists(path)
    db = sqlite3.connect(path, isolation_level=None, timeout=10, cached_statements=64)
    if is_new:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if flushes else 'NORMAL'}")
    db.execute("PRAGMA fullfsync = ON")  # macOS: as libdeadline.disk does it; elsewhere without meaning
    page_bytes = db.execute("PRAGMA page_size").fetchone()[0]
    db.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // page_bytes}")
    db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES * 4}")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return db


def _make_schema(db: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an older version up to this one's.

    Raises: Newer; sqlite3.Error, and the index is as it was.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise Newer(version)
    if version == VERSION:
        return
    is_new = not db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    change = "" if is_new else "ALTER TABLE object ADD COLUMN content INTEGER;"
    db.executescript(f"BEGIN IMMEDIATE; {change} {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def _locked(path: str) -> int:
    """A descriptor that holds the lock of the folder; the kernel lets go of it when the process ends.

    Waits a little, for a server that was just told to stop.
    Raises: Busy.
    """
    from time import monotonic, sleep

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up = monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if monotonic() > give_up:
                os.close(descriptor)
                raise Busy from None
            sleep(0.05)


def _object(row: tuple[Any, ...]) -> Object:
    key, size, etag, modified, headers, checksums, files, upload, content = row
    return Object(
        key,
        size,
        etag,
        modified,
        json.loads(headers) if headers != "{}" else {},
        json.loads(checksums) if checksums != "{}" else {},
        json.loads(files),
        upload,
        content,
    )


def _upload(row: tuple[Any, ...]) -> Upload:
    upload_id, bucket, key, created, headers, algorithm, checksum_type = row
    return Upload(upload_id, bucket, key, created, json.loads(headers), algorithm, checksum_type)
