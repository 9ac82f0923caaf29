"""Buckets and objects on disk: bytes in files of their own, all else in one SQLite database.

A file is written under a name that was never used before and is seen only once a row names it; a row is seen
only once its transaction is committed. So a kill at any moment leaves an object whole or absent, and what
was acknowledged is there. Files that no row names (a kill came between) are removed at the next start.
Power loss: the database stays consistent (WAL, synchronous=NORMAL) but the last seconds may be missing from it or from
files, which are not fsynced one by one; a file shorter than its row says is treated as absent, never served.
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
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
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
NINE_VALUES = "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
COLUMNS = "key, size, etag, modified, headers, checksums, files, upload"
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


def now_ms() -> int:
    return int(time() * 1000)


class Store:
    """The folder of one server. Changes become durable, and files that they replaced are removed, by `commit`.

    Raises: Busy where another process has the folder; OSError, sqlite3.Error.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.files = os.path.join(folder, "files")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.makedirs(self.files, mode=0o700, exist_ok=True)
        for number in range(FANOUT):
            os.makedirs(os.path.join(self.files, f"{number:02x}"), mode=0o700, exist_ok=True)
        self._lock = _locked(os.path.join(folder, "lock"))
        self.database = os.path.join(folder, "index.sqlite")
        self._db = _connected(self.database)
        self._db.executescript(SCHEMA)
        # Names of one run sort after those of earlier runs, so that the sweep can tell leftovers from new files.
        self._run = f"{time_ns():016x}"
        self._numbers = count()
        self._obsolete: Files = []  # replaced or deleted by the open transaction
        self._fresh: list[str] = []  # written for it
        self._changed = False
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
            db = _connected(self.database)
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

    def _change(self, statement: str, values: tuple[object, ...]) -> int:
        try:
            if not self._changed:
                self._db.execute("BEGIN IMMEDIATE")
                self._changed = True
            return self._db.execute(statement, values).rowcount
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

    def rollback(self) -> None:
        if self._changed:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                pass  # SQLite has rolled back by itself
        self._changed = False
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

    def put(self, bucket: str, row: Object) -> None:
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
        )
        # Most keys are new, so the old row is looked for only where there is one.
        if not self._change(f"INSERT OR IGNORE INTO object (bucket, {COLUMNS}) {NINE_VALUES}", values):
            self.forget(bucket, row.key)
            self._change(f"INSERT INTO object (bucket, {COLUMNS}) {NINE_VALUES}", values)
        self._fresh += [name for name, _ in row.files]

    def forget(self, bucket: str, key: bytes) -> None:
        """Delete an object, if there is one."""
        found = self._db.execute("SELECT files FROM object WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
        if found:
            self._change("DELETE FROM object WHERE bucket = ? AND key = ?", (bucket, key))
            self._obsolete += json.loads(found[0])

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


def _connected(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=10, cached_statements=64)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return db


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
    key, size, etag, modified, headers, checksums, files, upload = row
    return Object(
        key,
        size,
        etag,
        modified,
        json.loads(headers) if headers != "{}" else {},
        json.loads(checksums) if checksums != "{}" else {},
        json.loads(files),
        upload,
    )


def _upload(row: tuple[Any, ...]) -> Upload:
    upload_id, bucket, key, created, headers, algorithm, checksum_type = row
    return Upload(upload_id, bucket, key, created, json.loads(headers), algorithm, checksum_type)
