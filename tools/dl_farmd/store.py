"""The farm's one SQLite database: opening, schema, migrations, and the few calls that shorten SQL.

A column declared JSON holds a document: a dict or list given as a parameter is written as JSON text, and what is
selected from such a column comes out decoded. All times are integers, milliseconds since the epoch.

Durability: WAL with synchronous=FULL, so a committed transaction is on disk before COMMIT returns. There is one
writer connection, which belongs to the event loop's thread; threads open their own with `read_only`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from libdeadline import statuses
from libdeadline.errors import Trouble

from . import spaces

SCRIPTS = ("resources.sql", "jobs.sql")
DISK_TROUBLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
Migration = Callable[[sqlite3.Connection], None] | str

ADD_CHANGES = """
CREATE TABLE changes (
    change INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    step INTEGER,
    target TEXT NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 0,
    actor TEXT
);
CREATE INDEX changes_by_job ON changes (job);
"""

ADD_TASK_PARAMETERS = """
CREATE TABLE task_parameters (
    step INTEGER NOT NULL REFERENCES steps ON DELETE CASCADE,
    name TEXT NOT NULL,
    stride INTEGER NOT NULL,
    content JSON NOT NULL,
    PRIMARY KEY (step, name)
) WITHOUT ROWID;
"""


def add_task_parameters(db: sqlite3.Connection) -> None:
    """Add the table, with what the tasks that there are have."""
    _run_statements(db, ADD_TASK_PARAMETERS)
    spaces.write_all(db)


# A step from schema version n (its index + 1) to n + 1: SQL, or a function. A new farm starts from the scripts at
# the newest version; an old one is brought there step by step, all in one transaction.
MIGRATIONS: list[Migration] = [ADD_CHANGES, add_task_parameters]


def encode(document: Any) -> str:
    """A JSON column's text."""
    return orjson.dumps(document).decode()


sqlite3.register_adapter(dict, encode)
sqlite3.register_adapter(list, encode)
sqlite3.register_converter("JSON", orjson.loads)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode: transactions are begun by hand. Rows are `sqlite3.Row`."""
    target = f"{path.absolute().as_uri()}?mode=ro" if read_only else str(path)
    db = sqlite3.connect(
        target,
        uri=read_only,
        isolation_level=None,
        detect_types=sqlite3.PARSE_DECLTYPES,
        cached_statements=1024,
        check_same_thread=not read_only,
    )
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA busy_timeout = 10000")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA cache_size = -65536")
    db.execute("PRAGMA temp_store = MEMORY")
    return db


def open_writer(path: Path, tell: Callable[[str], None] = lambda message: None) -> sqlite3.Connection:
    """The writer connection to the farm's database, made or migrated to the newest schema.

    Raises: Trouble (78) where the file was written by a newer version, (65) where it is no database, (74) where the
    disk is full or does not work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        db = connect(path)
        path.chmod(0o600)
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise Trouble(f"cannot use '{path}': its file system has no shared memory for WAL", statuses.CONFIGURATION)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        migrate(db, path, tell)
    except sqlite3.DatabaseError as error:
        text = f"cannot open the farm's database '{path}': {error}"
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in DISK_TROUBLE:
            raise Trouble(f"{text}: is there room on its disk?", statuses.IO) from error
        raise Trouble(text, statuses.DATA) from error
    return db


def migrate(db: sqlite3.Connection, path: Path, tell: Callable[[str], None] = lambda message: None) -> None:
    """Bring the schema to the newest version, or leave it as it was."""
    newest = len(MIGRATIONS) + 1
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > newest:
        raise Trouble(
            f"the farm's database '{path}' has schema {version}, newer than this version's {newest}: "
            "use the version that wrote it",
            statuses.CONFIGURATION,
        )
    if version == newest:
        return
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("BEGIN IMMEDIATE")
    try:
        if version == 0:
            for script in SCRIPTS:
                _run_script(db, files(__package__).joinpath(script))
        else:
            for step in MIGRATIONS[version - 1 :]:
                if callable(step):
                    step(db)
                else:
                    _run_statements(db, step)
            if broken := db.execute("PRAGMA foreign_key_check").fetchone():
                raise sqlite3.IntegrityError(f"a row of {broken[0]} names one of {broken[2]} that is not there")
        db.execute(f"PRAGMA user_version = {newest}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    if version:
        tell(f"brought '{path}' from schema {version} to {newest}")
    db.execute("PRAGMA foreign_keys = ON")


def _run_script(db: sqlite3.Connection, script: Any) -> None:
    if script.is_file():
        _run_statements(db, script.read_text())


def _run_statements(db: sqlite3.Connection, text: str) -> None:
    # executescript would commit first, and a half-made schema must never be seen.
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""
    if statement.strip():
        db.execute(statement)


def insert(db: sqlite3.Connection, table: str, **columns: Any) -> None:
    """Insert one row."""
    db.execute(_insert_sql(table, tuple(columns)), tuple(columns.values()))


def update(db: sqlite3.Connection, table: str, key: dict[str, Any], **columns: Any) -> int:
    """Set `columns` of the rows whose `key` columns match. Returns how many there were."""
    if not columns:
        return 0
    sql = _update_sql(table, tuple(columns), tuple(key))
    return db.execute(sql, (*columns.values(), *key.values())).rowcount


def one(db: sqlite3.Connection, sql: str, *args: Any) -> sqlite3.Row | None:
    """The first row, or None."""
    return db.execute(sql, args).fetchone()  # type: ignore[no-any-return]


def value(db: sqlite3.Connection, sql: str, *args: Any) -> Any:
    """The first column of the first row, or None."""
    row = db.execute(sql, args).fetchone()
    return None if row is None else row[0]


@lru_cache(maxsize=512)
def _insert_sql(table: str, names: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


@lru_cache(maxsize=512)
def _update_sql(table: str, names: tuple[str, ...], key: tuple[str, ...]) -> str:
    return (
        f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in names)}"
        f" WHERE {' AND '.join(f'{name} = ?' for name in key)}"
    )


@lru_cache(maxsize=2048)
def member_name(column: str) -> str:
    """The service's member name of a column: created_at is createdAt, s3_bucket_name is s3BucketName."""
    first, *rest = column.split("_")
    return first + "".join(part.capitalize() for part in rest)


@lru_cache(maxsize=2048)
def column_name(member: str) -> str:
    """The column name of a member: createdAt is created_at, kmsKeyArn is kms_key_arn."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found[1].lower(), member)


def members(row: sqlite3.Row, **more: Any) -> dict[str, Any]:
    """A row as a response: columns by member name, NULL ones left out, `more` added (by member name)."""
    result = {member_name(name): item for name, item in zip(row.keys(), row, strict=True) if item is not None}
    result.update(more)
    return result


def columns(params: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of the members `names` that the request gave, by column name."""
    return {column_name(name): params[name] for name in names if name in params}
