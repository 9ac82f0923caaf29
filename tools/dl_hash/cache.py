"""The hash cache: what was hashed once is not read again while its inode, size and times stay.

A SQLite file of our own that may be deleted at any time. Losing it, or being unable to use it, costs time only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable

Known = tuple[str, int, int, int, int, str]
"""Path (absolute), size, mtime in ns, ctime in ns, inode, hash."""

SCHEMA = 1
SMALLEST_BYTES = 1 << 12  # below this reading a file costs no more than asking about it
SETTLED_NS = 2_000_000_000  # a file touched this recently may change again within one tick of its file system's clock
WAIT_S = 10.0  # for other processes that write


class Cache:
    """One process's connection. Nothing here raises for want of a usable cache: `broken` tells instead."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.broken: str | None = None
        self._connection: sqlite3.Connection | None = None

    @staticmethod
    def is_worth(known: Known, now_ns: int) -> bool:
        """Whether to keep what is known of a file."""
        return known[1] >= SMALLEST_BYTES and now_ns - max(known[2], known[3]) > SETTLED_NS

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
                marks = ",".join("?" * len(names))
                rows = connection.execute(
                    "SELECT name, size, mtime_ns, ctime_ns, inode, hash FROM hashes "
                    f"WHERE folder = ? AND name IN ({marks})",
                    [folder, *names],
                )
                for name, size, mtime_ns, ctime_ns, inode, hash_ in rows:
                    path = f"{folder}/{name}"
                    found[path] = (path, size, mtime_ns, ctime_ns, inode, hash_.hex())
        except (sqlite3.Error, UnicodeError) as error:
            self._give_up(error)
        return found

    def keep(self, rows: Iterable[Known]) -> None:
        """Remember `rows`, in one transaction."""
        connection = self._open(create=True)
        if connection is None:
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO hashes (folder, name, size, mtime_ns, ctime_ns, inode, hash) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (folder, name, size, mtime_ns, ctime_ns, inode, bytes.fromhex(hash_))
                    for path, size, mtime_ns, ctime_ns, inode, hash_ in rows
                    for folder, _, name in (path.rpartition("/"),)
                ],
            )
            connection.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as error:
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
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            # Not a database, or a damaged one: the next run begins a new one.
            for suffix in ("", "-wal", "-shm"):
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
            connection = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
            self._connection = connection
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA:
                if not create:
                    self.close()
                    return None
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("DROP TABLE IF EXISTS hashes")
                connection.execute(
                    "CREATE TABLE hashes (folder TEXT, name TEXT, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, "
                    "inode INTEGER, hash BLOB, PRIMARY KEY (folder, name)) WITHOUT ROWID"
                )
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
                connection.execute("COMMIT")
            connection.execute("PRAGMA synchronous = NORMAL")
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        return self._connection
