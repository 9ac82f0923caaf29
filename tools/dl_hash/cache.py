"""The hash cache: what was hashed once is not read again while its inode, size and times stay.

A SQLite file of our own that may be deleted, cut or scribbled on at any time. Losing it, or being unable to use it,
costs time only. It has a rollback journal: of a write-ahead log, the index is mapped into memory, and whoever cuts that
file kills every process that has it open. Nothing is synced, since what a power failure damages is found out.

A row holds a run: the files of one folder from its first name up to the first of the next run, a few hundred of
them as JSON, behind a checksum, which SQLite does without. A row for each file cost a quarter of the time that it takes
to hash it.
"""

from __future__ import annotations

import os
import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

from xxhash import xxh3_64_digest

from libdeadline.records import orjson

Known = tuple[str, int, int, int, int, str]
"""Path (absolute), size, mtime in ns, ctime in ns, inode, hash."""

_NO_DAMAGE = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
)
SCHEMA = 3
WAIT_S = 10.0  # for other processes that write
LONGEST_RUN = 512  # files
FEW_RUNS = 4  # in a stretch of names, that are read through instead of being asked for one by one

_OWNER = "SELECT first, files FROM runs WHERE folder = ? AND first <= ? ORDER BY first DESC LIMIT 1"
_NEXT = "SELECT min(first) FROM runs WHERE folder = ? AND first > ?"
_COUNT = "SELECT count(*) FROM runs WHERE folder = ? AND first > ? AND first <= ?"
_BETWEEN = "SELECT first, files FROM runs WHERE folder = ? AND first > ? AND first <= ?"


class Damaged(ValueError):
    """A row is not what was written: a wrong hash could be in it, and nothing else would tell."""


class Cache:
    """One process's connection. Nothing here raises for want of a usable cache: `broken` tells instead."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.broken: str | None = None
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None  # of the file that was opened

    def find(self, paths: list[str]) -> dict[str, Known]:
        """What is known of `paths`; the caller compares it with the files as they are now."""
        found: dict[str, Known] = {}
        connection = self._open(create=False)
        if connection is None:
            return found
        folders: dict[str, list[str]] = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, []).append(name)
        try:
            for folder, names in folders.items():
                wanted = frozenset(names)
                for files in _runs(connection, folder, sorted(names)):
                    for name in wanted.intersection(files):
                        path = f"{folder}/{name}"
                        size, mtime_ns, ctime_ns, inode, hash_ = files[name]
                        found[path] = (path, size, mtime_ns, ctime_ns, inode, hash_)
        except (sqlite3.Error, ValueError, TypeError) as error:
            found.clear()
            self._give_up(error)
        return found

    def keep(self, rows: Iterable[Known]) -> None:
        """Remember `rows`, in one transaction."""
        connection = self._open(create=True)
        if connection is None:
            return
        folders: dict[str, dict[str, Any]] = {}
        for path, *identity in rows:
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, {})[name] = identity
        try:
            connection.execute("BEGIN IMMEDIATE")
            for folder, fresh in folders.items():
                _merge(connection, folder, fresh)
            connection.execute("COMMIT")
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._give_up(error)

    def close(self) -> None:
        if self._connection is not None:
            try:
                self._connection.close()
            except sqlite3.Error:
                pass
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        self.broken = str(error)
        self.close()
        if isinstance(error, OSError) or _primary_code(error) in _NO_DAMAGE:
            return
        # It is no database, or a damaged one: the next run begins anew. One that another process began is left alone.
        if self._inode in (None, _inode_of(self.path)):
            for suffix in ("", "-journal", "-wal", "-shm"):
                try:
                    os.unlink(self.path + suffix)
                except OSError:
                    pass

    def _open(self, *, create: bool) -> sqlite3.Connection | None:
        if self._connection is not None or self.broken:
            return self._connection
        try:
            if not os.path.exists(self.path):
                if not create:
                    return None
                os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            self._inode = _inode_of(self.path)
            connection = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
            self._connection = connection
            connection.execute("PRAGMA synchronous = OFF")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA:
                if not create:
                    self.close()
                    return None
                connection.execute("PRAGMA journal_mode = DELETE")  # it was another one in earlier schemas
                connection.execute("BEGIN IMMEDIATE")
                # Another process may have been faster.
                if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
                    connection.execute("DROP TABLE IF EXISTS hashes")
                    connection.execute("DROP TABLE IF EXISTS runs")
                    connection.execute(
                        "CREATE TABLE runs (folder TEXT, first TEXT, files BLOB, PRIMARY KEY (folder, first)) "
                        "WITHOUT ROWID"
                    )
                    connection.execute(f"PRAGMA user_version = {SCHEMA}")
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError, TypeError) as error:
            self._give_up(error)
        return self._connection


def _inode_of(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _primary_code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _runs(connection: sqlite3.Connection, folder: str, names: list[str]) -> Iterator[dict[str, Any]]:
    """The runs that sorted `names` could be in, as name to size, times, inode and hash."""
    first, last = names[0], names[-1]
    owner = connection.execute(_OWNER, (folder, first)).fetchone()
    if owner:
        yield _unpacked(folder, *owner)
    if connection.execute(_COUNT, (folder, first, last)).fetchone()[0] <= max(FEW_RUNS, len(names) // FEW_RUNS):
        for row in connection.execute(_BETWEEN, (folder, first, last)):
            yield _unpacked(folder, *row)
        return
    # Few names out of a huge folder.
    before = owner[0] if owner else None
    for name in names:
        owner = connection.execute(_OWNER, (folder, name)).fetchone()
        if owner and owner[0] != before:
            before = owner[0]
            yield _unpacked(folder, *owner)


def _packed(folder: str, first: str, files: dict[str, Any]) -> bytes:
    data = orjson.dumps(files)
    return xxh3_64_digest(b"%b/%b/%b" % (folder.encode(), first.encode(), data)) + data


def _unpacked(folder: str, first: str, packed: bytes) -> dict[str, Any]:
    """The files of a run. Raises: Damaged."""
    if not isinstance(first, str) or not isinstance(packed, bytes):
        raise Damaged(f"the rows of '{folder}' are damaged")
    data = packed[8:]
    if xxh3_64_digest(b"%b/%b/%b" % (folder.encode(), first.encode(), data)) != packed[:8]:
        raise Damaged(f"the row of '{folder}' from '{first}' on is damaged")
    files: dict[str, Any] = orjson.loads(data)
    return files


def _merge(connection: sqlite3.Connection, folder: str, fresh: dict[str, Any]) -> None:
    """Put files into the runs that their names belong to, and split those that grow too long."""
    names = sorted(fresh)
    position = 0
    while position < len(names):
        name = names[position]
        owner = connection.execute(_OWNER, (folder, name)).fetchone()
        following = connection.execute(_NEXT, (folder, name)).fetchone()[0]
        end = len(names) if following is None else bisect_left(names, following, position)
        files = _unpacked(folder, *owner) if owner else {}
        files.update({name: fresh[name] for name in names[position:end]})
        position = end
        ordered = sorted(files)
        length = -(-len(ordered) // -(-len(ordered) // LONGEST_RUN))
        for start in range(0, len(ordered), length):
            part = ordered[start : start + length]
            connection.execute(
                "INSERT OR REPLACE INTO runs (folder, first, files) VALUES (?, ?, ?)",
                (folder, part[0], _packed(folder, part[0], {name: files[name] for name in part})),
            )
