"""`backup`: a copy of the farm as it was at one moment, taken while it runs; `restore`: a farm of such a copy.

What names something is copied before what it names can go, and what it names after that:

  worker.json ─▶ farm.sqlite ─▶ logs.sqlite ─▶ index.sqlite ─▶ objects' files

A worker in the copy is known to the copied farm; inputs of a job were stored before the job was made, so they stand in
the later copy of the index; and the files that an index names never change, they only go when their object does.
If one went meanwhile, the index is copied again. So the copy never names what it lacks.

The copy takes its name when it is whole. Files of objects share their blocks with the farm's where the file system
can (reflinks), or the very file (hard links: they are written once, and only ever removed).
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from libdeadline import statuses
from libdeadline.disk import flush
from libdeadline.errors import Trouble

from . import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from libdeadline.command import Run

    from .layout import Folder

VERSION = 2  # of what a copy consists of
NOTE = "backup.json"
DATABASES = ("farm.sqlite", "logs.sqlite")
INDEX = os.path.join("store", "index.sqlite")
KEYS = ("master", "access.json")
ARCHIVES = (".tar", ".tar.gz", ".tgz")
PAGES = 2048  # copied between two looks at signals and the progress
ROUNDS = 5  # copies of the index, where objects keep going
COPY_BYTES = 1 << 20
FICLONE = 0x40049409  # ioctl(2), linux/fs.h
FANOUT = 256


def backup(folder: Folder, target: str, run: Run) -> dict[str, Any]:
    """Copy the farm to `target`, a new folder or archive; what is in the copy (see `_note`).

    Raises: Trouble; nothing is left behind then.
    """
    target = os.path.abspath(os.path.expanduser(target))
    if os.path.lexists(target):
        raise Trouble(f"'{target}' is there already: name another file or folder", statuses.CANNOT_CREATE)
    if os.path.realpath(target).startswith(folder.path + os.sep):
        message = f"'{target}' is inside the farm's folder, and would go with it: name another place"
        raise Trouble(message, statuses.USAGE)
    with _temporary(target) as copy:
        note = _copied(folder, copy, run)
        if target.endswith(ARCHIVES):
            archive = f"{copy}.archive"
            try:
                _pack(copy, archive, target, note, run)
                os.rename(archive, target)
            except BaseException:
                _remove(archive)
                raise
        else:
            os.sync()  # once: a call for each of a hundred thousand objects would take minutes
            os.rename(copy, target)
        flush(os.path.dirname(target))
    return note | {"path": target}


def restore(folder: Folder, source: str, run: Run) -> dict[str, Any]:
    """Make the farm's folder, which must be empty or not there, of a copy; what is in it.

    Raises: Trouble; the folder is as it was then.
    """
    source = os.path.abspath(os.path.expanduser(source))
    if not os.path.exists(source):
        raise Trouble(f"there is no '{source}'", statuses.NO_INPUT)
    try:
        present = os.listdir(folder.path)
    except FileNotFoundError:
        present = []
    if present:
        message = f"'{folder.path}' is not empty: name another folder by --dir, or delete it by 'dl-farm reset'"
        raise Trouble(message, statuses.CANNOT_CREATE)
    from .supervision import marked

    pid = next(marked(folder.path), None)
    if pid is not None:
        message = f"process {pid} of a farm that was in '{folder.path}' still runs: end it first"
        raise Trouble(message, statuses.TRY_AGAIN)
    with _temporary(folder.path) as copy:
        if os.path.isdir(source):
            note = _noted(source)
            _take(source, copy, note, run)
        else:
            _unpack(source, copy, run)
            note = _noted(copy)
            os.unlink(os.path.join(copy, NOTE))
        _check(copy, note, run)
        os.sync()
        os.rename(copy, folder.path)
        flush(os.path.dirname(folder.path))
    folder.read()
    folder.make()
    environment.write_files(folder)  # for `env`, also before it is up
    return note | {"path": folder.path}


# -- the copy


def _copied(folder: Folder, copy: str, run: Run) -> dict[str, Any]:
    for name in ("keys", "client", "store", "workers"):
        os.mkdir(os.path.join(copy, name), 0o700)
    run.progress.update(message="copying settings and keys")
    for name in KEYS:
        _copy(folder.at("keys", name), os.path.join(copy, "keys", name))
    _copy(folder.at("config.json"), os.path.join(copy, "config.json"))
    if os.path.exists(folder.at("client", "config")):
        _copy(folder.at("client", "config"), os.path.join(copy, "client", "config"))
    for number in sorted(os.listdir(folder.at("workers"))) if os.path.isdir(folder.at("workers")) else []:
        if os.path.exists(folder.at("workers", number, "worker.json")):
            os.mkdir(os.path.join(copy, "workers", number), 0o700)
            _copy(folder.at("workers", number, "worker.json"), os.path.join(copy, "workers", number, "worker.json"))
    schemas = {}
    for name in DATABASES:
        if os.path.exists(folder.at(name)):
            schemas[name] = copy_database(folder.at(name), os.path.join(copy, name), run)
    objects = file_count = size = dropped = 0
    if os.path.exists(folder.at(INDEX)):
        objects, file_count, size, dropped = _copy_store(folder, copy, run)
    note = {
        "version": VERSION,
        "made_at": _now(),
        "farm_id": folder.settings.get("farm_id"),
        "databases": schemas,
        "objects": objects,
        "files": file_count,
        "bytes": size,
    }
    if dropped:
        run.warn(f"{dropped} objects whose files are missing or too short in the farm were left out of the copy")
    _write(os.path.join(copy, NOTE), json.dumps(note, indent=1).encode() + b"\n")
    return note


def copy_database(source: str, target: str, run: Run) -> int:
    """A whole and checked copy of a database that others may be writing; its schema version.

    Raises: Trouble (65) where the source is damaged.
    """
    name = os.path.basename(source)
    size = os.path.getsize(source)
    problem: str | None

    def progress(_: int, left: int, total: int) -> None:
        done = (total - left) / total if total else 1
        run.progress.update(message=f"copying {name}", done_bytes=int(size * done), total_bytes=size)

    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(connected(source)) as live, closing(sqlite3.connect(target, isolation_level=None)) as copy:
            # One view for all steps: without it each change by a server would begin the copy anew.
            live.execute("BEGIN")
            live.execute("SELECT 1 FROM sqlite_schema").fetchone()
            live.backup(copy, pages=PAGES, progress=progress, sleep=0)
            live.execute("ROLLBACK")
            run.progress.update(message=f"checking {name}")
            if problem := damage(copy):
                raise Trouble(f"'{source}' is damaged ({problem}): see 'dl-farm doctor'", statuses.DATA)
            return copy.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise Trouble(f"cannot copy '{source}': {error}", statuses.DATA) from None


def connected(path: str) -> sqlite3.Connection:
    """A connection that only reads, in autocommit mode."""
    from pathlib import Path

    db = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.execute("PRAGMA busy_timeout = 10000")
    return db


def damage(db: sqlite3.Connection) -> str | None:
    """What is wrong with a database, or None."""
    try:
        lines = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if lines == ["ok"] else "; ".join(str(line) for line in lines)[:300]


def _copy_store(folder: Folder, copy: str, run: Run) -> tuple[int, int, int, int]:
    """Copy the index and the files that it names: (objects, files, bytes, objects left out)."""
    index, files = os.path.join(copy, INDEX), os.path.join(copy, "store", "files")
    os.mkdir(files, 0o700)
    for number in range(FANOUT):
        os.mkdir(os.path.join(files, f"{number:02x}"), 0o700)
    have: set[str] = set()
    before: set[str] = set()
    for number in range(ROUNDS):
        _remove(index)
        copy_database(folder.at(INDEX), index, run)
        with closing(sqlite3.connect(index, isolation_level=None)) as db:
            wanted = dict(_named(db))
            _copy_files(folder.at("store", "files"), files, wanted, have, run)
            missing = wanted.keys() - have
            if not missing or missing == before or number == ROUNDS - 1:
                dropped = _drop(db, missing) if missing else 0
                objects = db.execute("SELECT count(*) FROM object").fetchone()[0]
                kept = dict(_named(db))
                short = "SELECT coalesce(sum(size), 0) FROM object WHERE content IS NOT NULL"
                short_bytes = db.execute(short).fetchone()[0] if has_contents(db) else 0
                break
            before = missing
    for name in have - kept.keys():
        _remove(os.path.join(files, name[-2:], name))
    return objects, len(kept), sum(kept.values()) + short_bytes, dropped


def has_contents(db: sqlite3.Connection) -> bool:
    """Whether short contents lie in an index: since schema 1, of which dl-s3d makes it when it starts."""
    return bool(db.execute("PRAGMA user_version").fetchone()[0])


def _named(db: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    """The files that an index names, with their sizes."""
    for table in ("object", "part"):
        for (text,) in db.execute(f"SELECT files FROM {table}"):
            yield from json.loads(text)


def _copy_files(source: str, target: str, wanted: dict[str, int], have: set[str], run: Run) -> None:
    """Copy those that are there with their full size, and note them in `have`."""
    todo = sorted(wanted.keys() - have)
    total = sum(wanted[name] for name in todo)
    run.progress.update(message="copying objects", done_count=0, total_count=len(todo), done_bytes=0, total_bytes=total)
    for name in todo:
        path = os.path.join(source, name[-2:], name)
        try:
            is_whole = os.stat(path).st_size == wanted[name]
        except FileNotFoundError:
            is_whole = False
        if is_whole:
            try:
                _share(path, os.path.join(target, name[-2:], name))
                have.add(name)
            except FileNotFoundError:
                pass  # its object went just now
        run.progress.add(done_count=1, done_bytes=wanted[name])


def _drop(db: sqlite3.Connection, missing: set[str]) -> int:
    """Take out what names missing files: dl-s3d would not serve it either. How many objects it was."""
    gone = []
    for bucket, key, text in db.execute("SELECT bucket, key, files FROM object"):
        if any(name in missing for name, _ in json.loads(text)):
            gone.append((bucket, key))
    parts = [
        (upload, number)
        for upload, number, text in db.execute("SELECT upload, number, files FROM part")
        if any(name in missing for name, _ in json.loads(text))
    ]
    db.execute("BEGIN IMMEDIATE")
    db.executemany("DELETE FROM object WHERE bucket = ? AND key = ?", gone)
    db.executemany("DELETE FROM part WHERE upload = ? AND number = ?", parts)
    db.execute("COMMIT")
    return len(gone)


def _share(source: str, target: str) -> None:
    """A file with the same content: by a reflink, a hard link, or by copying."""
    if not _reflink(source, target):
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one that knows no links
            _copy(source, target)


def _reflink(source: str, target: str) -> bool:
    import sys

    if sys.platform != "linux":
        return False
    import fcntl

    with open(source, "rb", buffering=0) as original:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(descriptor, FICLONE, original.fileno())
        except OSError:
            os.unlink(target)
            return False
        finally:
            os.close(descriptor)
    return True


# -- and back


def _noted(copy: str) -> dict[str, Any]:
    """The note of a copy.

    Raises: Trouble (65) where it is no copy, or one of a later version.
    """
    try:
        with open(os.path.join(copy, NOTE), "rb") as file:
            note = json.load(file)
        version = note["version"]
        if not isinstance(version, int) or not isinstance(note["databases"], dict):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        message = f"this is no copy that 'dl-farm backup' made: it has no readable {NOTE}"
        raise Trouble(message, statuses.DATA) from None
    if version > VERSION:
        raise Trouble("a later version of dl-farm made the copy: use that version", statuses.DATA)
    return note


def _take(source: str, target: str, note: dict[str, Any], run: Run) -> None:
    run.progress.update(message="restoring", done_count=0, total_count=note.get("files", 0))
    objects = os.path.join(source, "store", "files")
    for place, folders, names in os.walk(source):
        there = os.path.join(target, os.path.relpath(place, source))
        for name in folders:
            os.makedirs(os.path.join(there, name), mode=0o700, exist_ok=True)
        for name in names:
            if place == source and name == NOTE:
                continue
            if place.startswith(objects + os.sep):
                _share(os.path.join(place, name), os.path.join(there, name))
                run.progress.add(done_count=1)
            else:
                _copy(os.path.join(place, name), os.path.join(there, name))


def _check(copy: str, note: dict[str, Any], run: Run) -> None:
    """Let nothing become a farm that is not whole.

    Raises: Trouble (65).
    """
    for name in ("config.json", *(os.path.join("keys", name) for name in KEYS), *note["databases"]):
        if not os.path.isfile(os.path.join(copy, name)):
            raise Trouble(f"the copy is not whole: '{name}' is missing", statuses.DATA)
    for name in (*note["databases"], INDEX):
        path = os.path.join(copy, name)
        if os.path.exists(path):
            run.progress.update(message=f"checking {os.path.basename(name)}")
            try:
                with closing(sqlite3.connect(path)) as db:
                    problem = damage(db)
                    named = dict(_named(db)) if name == INDEX and not problem else {}
            except sqlite3.Error as error:
                problem, named = str(error), {}
            if problem:
                raise Trouble(f"the copy is damaged: '{name}': {problem}", statuses.DATA)
            for file, size in named.items():
                try:
                    is_whole = os.stat(os.path.join(copy, "store", "files", file[-2:], file)).st_size == size
                except OSError:
                    is_whole = False
                if not is_whole:
                    message = f"the copy is damaged: 'store/files/{file[-2:]}/{file}' is missing or cut"
                    raise Trouble(message, statuses.DATA)


# -- archives


def _pack(copy: str, archive: str, target: str, note: dict[str, Any], run: Run) -> None:
    import tarfile

    run.progress.update(message="packing", done_count=0, total_count=note["files"])

    def count(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        if entry.isfile():
            run.progress.add(done_count=1)
        entry.uname = entry.gname = ""
        return entry

    descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        mode: Any = "w|" if target.endswith(".tar") else "w|gz"
        # Two names of one file would become a link in the archive.
        with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT, dereference=True) as tar:
            for name in sorted(os.listdir(copy)):
                tar.add(os.path.join(copy, name), name, filter=count)
        file.flush()
        os.fsync(file.fileno())


def _unpack(source: str, target: str, run: Run) -> None:
    import tarfile
    import zlib

    run.progress.update(message="unpacking", done_count=0)
    try:
        with tarfile.open(source, "r|*") as tar:
            for entry in tar:
                if not (entry.isfile() or entry.isdir()) or entry.name.startswith("/") or ".." in entry.name.split("/"):
                    message = f"'{source}' was not made by 'dl-farm backup': it holds '{entry.name}'"
                    raise Trouble(message, statuses.DATA)
                path = os.path.join(target, entry.name)
                if entry.isdir():
                    os.makedirs(path, mode=0o700, exist_ok=True)
                    continue
                content = tar.extractfile(entry)
                assert content is not None
                _write_from(content.read, path)
                run.progress.add(done_count=1)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise Trouble(f"'{source}' is no whole archive: {error}", statuses.DATA) from None


# -- files


@contextmanager
def _temporary(target: str) -> Iterator[str]:
    """A new folder beside `target`, which is removed unless it was renamed.

    Raises: Trouble (73) for what the disk refuses meanwhile.
    """
    from shutil import rmtree

    copy = f"{target}.{os.getpid()}.new"
    try:
        try:
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            os.mkdir(copy, 0o700)
            yield copy
        except OSError as error:
            reason = error.strerror or str(error)
            raise Trouble(f"cannot write '{target}': {reason}", statuses.CANNOT_CREATE, path=target) from None
    finally:
        rmtree(copy, ignore_errors=True)


def _copy(source: str, target: str) -> None:
    try:
        file = open(source, "rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise Trouble(f"cannot read '{source}': {error.strerror}", statuses.NO_INPUT, path=source) from None
    with file:
        _write_from(file.read, target)


def _write_from(read: Callable[[int], bytes], target: str) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := read(COPY_BYTES):
            file.write(piece)


def _write(path: str, content: bytes) -> None:
    pieces = [content, b""]
    _write_from(lambda _: pieces.pop(0), path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
