"""Checks of what lies on disk: they need nothing to run."""

from __future__ import annotations

import json
import os
import stat
from contextlib import closing
from time import time
from typing import TYPE_CHECKING, Any

from . import environment
from .backup import DATABASES, INDEX, KEYS, connected, damage, has_contents
from .doctor import NOTE, OK, WRONG, Finding, size_text
from .layout import LEAST_FREE_BYTES
from .programs import SERVERS
from .resources import MOST_WORKERS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from .doctor import Patient

LOW_FREE_BYTES = 1 << 30  # below it a render can fill the disk in minutes
LOW_FREE_INODES = 10_000
EARLIEST_S = 1_735_689_600.0  # 2025: a clock that shows less was never set
AHEAD_S = 120.0  # S3 and the API refuse signatures from 300 s on; time stamps and expiries suffer before
SAMPLE = 2000  # objects whose files are looked at
REHASHED = 16  # of those that are named by their content: content read and hashed
REHASHED_BYTES = 16 << 20
LEFTOVER_S = 3600.0
MASTER_BYTES = 32
DISTRIBUTION = "deadline-tools"
PACKAGES = {
    "supervisor": "it keeps the farm's programs running",
    "botocore": "it describes the API",
    "boto3": "it finds credentials",
    "openjd-model": "it reads templates",
    "openjd-sessions": "it runs jobs",
    "orjson": "it reads and writes records",
    "xxhash": "it names contents",
    "docopt-ng": "it reads command lines",
    "psutil": "it measures the host",
    "pyyaml": "it reads templates",
}


def packages(patient: Patient) -> Iterator[Finding]:
    """What the farm needs of Python is installed."""
    import sys
    from importlib import metadata

    from libdeadline import __version__

    found = []
    for name, purpose in PACKAGES.items():
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding("packages", name, WRONG, f"not installed ({purpose})", f"pip install '{DISTRIBUTION}[farm]'")
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    yield Finding("packages", f"{DISTRIBUTION} {__version__}", OK, ", ".join([python, *found]))


def folder(patient: Patient) -> Iterator[Finding]:
    """The folder is ours, and closed to others."""
    place = patient.folder
    status = os.stat(place.path)
    wrong = False
    if status.st_uid != os.getuid():
        wrong = True
        remedy = f"run dl-farm as that user, or: chown -R {os.getuid()} {place.path}"
        yield Finding("folder", place.path, WRONG, f"belongs to user {status.st_uid}, not to you", remedy)
    if status.st_mode & 0o077:
        wrong = True
        text = f"others may enter it (mode {stat.S_IMODE(status.st_mode):04o})"
        yield Finding("folder", place.path, WRONG, text, f"chmod 700 {place.path}")
    if not os.access(place.path, os.R_OK | os.W_OK | os.X_OK):
        wrong = True
        yield Finding("folder", place.path, WRONG, "cannot be written", f"chmod 700 {place.path}")
    for name in ("keys", "run", "log", "store"):
        path = place.at(name)
        if not os.path.isdir(path):
            if name != "store":
                wrong = True
                yield Finding("folder", path, WRONG, "is missing", patient.up)
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK) or os.stat(path).st_uid != os.getuid():
            wrong = True
            yield Finding("folder", path, WRONG, "is not ours to write", f"chown {os.getuid()} and chmod 700 {path}")
    for name in ("config.json", *DATABASES, INDEX):
        path = place.at(name)
        try:
            status = os.stat(path)
        except OSError:
            continue
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o600 != 0o600:
            wrong = True
            text = f"is not ours to write (user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o})"
            yield Finding("folder", path, WRONG, text, f"chown {os.getuid()} and chmod 600 {path}")
    if not wrong:
        yield Finding("folder", place.path, OK, "is yours alone")


def settings(patient: Patient) -> Iterator[Finding]:
    """config.json can be read, and says what can be."""
    path = patient.folder.at("config.json")
    saved = f"put a copy back ('dl-farm restore'), or start anew: dl-farm reset{patient.option}"
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except FileNotFoundError:
        yield Finding("settings", path, WRONG, "is missing", saved)
        return
    except ValueError as error:
        yield Finding("settings", path, WRONG, f"is no JSON: {error}", saved)
        return
    problems = list(_problems(found))
    for name, text in problems:
        yield Finding("settings", path, WRONG, f"{name}: {text}", f"mend it by hand and run '{patient.restart}'")
    # What is only odd does not keep the other checks from looking further.
    if isinstance(found, dict) and not any(name in ("", "ports") or name.endswith("_id") for name, _ in problems):
        patient.folder.settings = found
        patient.has_settings = True
    if not problems:
        workers = f"{found['workers']} worker{'s' * (found['workers'] != 1)}"
        yield Finding("settings", path, OK, f"farm {found['farm_id']}, {workers}")


def _problems(found: Any) -> Iterator[tuple[str, str]]:
    import re

    if not isinstance(found, dict):
        yield "", "is no JSON object"
        return
    ports = found.get("ports")
    numbers = [ports.get(name) for name in SERVERS] if isinstance(ports, dict) else []
    if not numbers or not all(type(port) is int and 0 < port < 65536 for port in numbers):
        yield "ports", "must name a port, 1 to 65535, for farmd and for s3d"
    elif len(set(numbers)) < len(numbers):
        yield "ports", "the servers cannot share one port"
    for kind in ("farm", "queue", "fleet"):
        value = found.get(f"{kind}_id")
        if not isinstance(value, str) or not re.fullmatch(f"{kind}-[0-9a-f]{{32}}", value):
            yield f"{kind}_id", "is no id" if value else "is missing: 'dl-farm up' did not come to its end"
    workers = found.get("workers")
    if type(workers) is not int or not 0 <= workers <= MOST_WORKERS:
        yield "workers", f"must be 0 to {MOST_WORKERS}"
    if not re.fullmatch("[0-9]{12}", str(found.get("account", "0" * 12))):
        yield "account", "must be twelve digits"
    own = found.get("settings", {})
    if not isinstance(own, dict):
        yield "settings", "must be an object of numbers"
        return
    for name, value in own.items():
        if type(value) not in (int, float) or value < 0:
            yield f"settings.{name}", "must be a number that is not negative"


def keys(patient: Patient) -> Iterator[Finding]:
    """The keys are there, whole, and nobody else's to read."""
    place = patient.folder
    lost = "put them back from a copy ('dl-farm restore'); new ones are made by 'up' where both files are away"
    wrong = False
    for name in KEYS:
        path = place.at("keys", name)
        try:
            status = os.stat(path)
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            wrong = True
            yield Finding("keys", path, WRONG, f"cannot be read: {error.strerror}", lost)
            continue
        if stat.S_IMODE(status.st_mode) != 0o600:
            wrong = True
            text = f"has mode {stat.S_IMODE(status.st_mode):04o}, not 0600"
            yield Finding("keys", path, WRONG, text, f"chmod 600 {path}")
        if name == "master" and len(content) != MASTER_BYTES:
            wrong = True
            yield Finding("keys", path, WRONG, f"holds {len(content)} bytes, not {MASTER_BYTES}", lost)
        if name == "access.json":
            try:
                entries = json.loads(content)
                principals = [entry["principal"] for entry in entries.values() if isinstance(entry["secret"], str)]
            except (ValueError, KeyError, TypeError, AttributeError):
                wrong = True
                yield Finding("keys", path, WRONG, "is no object of keys with secrets", lost)
                continue
            patient.has_keys = "admin" in principals
            if not patient.has_keys:
                wrong = True
                yield Finding("keys", path, WRONG, "holds no key of an admin", lost)
    if not wrong:
        yield Finding("keys", place.at("keys"), OK, "are whole, and yours alone")
    credentials = place.at("aws", "credentials")
    if patient.has_keys and not wrong:
        key = environment.admin_key(place)
        try:
            with open(credentials, encoding="utf-8") as file:
                is_ours = file.read() == environment.credentials_text(environment.PROFILE, key)
        except (OSError, UnicodeDecodeError):
            is_ours = False
        if not is_ours:
            yield Finding("keys", credentials, WRONG, "does not hold the key of the farm's owner", patient.up)


def disk(patient: Patient) -> Iterator[Finding]:
    """There is room."""
    path = patient.folder.path
    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    remedy = "make room, or remove old jobs' files (dl-gc)"
    if free < LOW_FREE_BYTES:
        text = f"only {size_text(free)} left on its disk"
        if free < LEAST_FREE_BYTES:
            text += ": the farm does not start with so little"
        yield Finding("disk", path, WRONG, text, remedy)
    else:
        yield Finding("disk", path, OK, f"{size_text(free)} left on its disk")
    if room.f_files and room.f_favail < LOW_FREE_INODES:
        yield Finding("disk", path, WRONG, f"only {room.f_favail} more files fit on its disk", remedy)


def clock(patient: Patient) -> Iterator[Finding]:
    """Time goes forward: what was written is not of the future."""
    now = time()
    newest, path = 0.0, ""
    for name in ("config.json", *DATABASES, f"{DATABASES[0]}-wal", INDEX, "log/supervisord.log", "log/farmd.log"):
        try:
            written = os.stat(patient.folder.at(name)).st_mtime
        except OSError:
            continue
        if written > newest:
            newest, path = written, patient.folder.at(name)
    if now < EARLIEST_S:
        yield Finding(
            "clock", "clock", WRONG, "this machine's clock was never set", "set it (timedatectl set-ntp true)"
        )
    elif newest > now + AHEAD_S:
        text = f"'{path}' was written {newest - now:.0f} s in the future: the clock was set back"
        yield Finding("clock", "clock", WRONG, text, "set the clock right, or wait until it is past that")
    else:
        yield Finding("clock", "clock", OK, "is past all that was written")


def databases(patient: Patient) -> Iterator[Finding]:
    """The databases are whole."""
    import sqlite3

    for name in (*DATABASES, INDEX):
        path = patient.folder.at(name)
        if not os.path.exists(path):
            if os.path.exists(patient.folder.at("config.json")):
                remedy = f"put a copy back: dl-farm restore; else '{patient.up}' makes an empty one"
                yield Finding("databases", path, WRONG, "is missing", remedy)
            continue
        try:
            with closing(connected(path)) as db:
                problem = damage(db)
                pages, page_bytes = (db.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_count", "page_size"))
        except sqlite3.Error as error:
            problem = str(error)
        if problem:
            remedy = (
                f"dl-farm down{patient.option}, keep the folder aside, then 'dl-farm restore' a copy; "
                f"or save what can be read: sqlite3 {path} .recover"
            )
            yield Finding("databases", path, WRONG, f"is damaged: {problem}", remedy)
        else:
            yield Finding("databases", path, OK, f"is whole ({size_text(pages * page_bytes)})")


def store(patient: Patient) -> Iterator[Finding]:
    """Objects have their files, and contents the hashes that they are named by. Large stores are sampled."""
    import sqlite3
    from random import sample

    index, files = patient.folder.at(INDEX), patient.folder.at("store", "files")
    if not os.path.exists(index):
        return
    try:
        with closing(connected(index)) as db:
            keys = db.execute("SELECT bucket, key FROM object").fetchall()
            total = len(keys)
            if total > SAMPLE:
                keys = sample(keys, SAMPLE)
            # An index that no server of this version opened yet has no short contents.
            content = "content" if has_contents(db) else "NULL"
            query = f"SELECT bucket, key, size, files, {content} FROM object WHERE bucket = ? AND key = ?"
            rows = [row for key in keys for row in db.execute(query, key)]
            broken = [row for row in rows if not _is_whole(files, row)]
            # What was replaced between the two looks is not broken.
            broken = [row for row in broken if db.execute(query, row[:2]).fetchone() == row]
            changed = [row for row in _named_by_content(rows) if row not in broken and not _is_genuine(db, files, row)]
    except sqlite3.Error:
        return  # told by the check of the databases
    for row in broken[:3] + changed[:3]:
        text = "its file is missing or cut" if row in broken else "its content is not what its name says"
        remedy = "submit again the job that needs it (uploads skip nothing that is missing), or restore a copy"
        if row in changed:
            remedy = f"delete it (aws s3 rm) and submit again; check the disk of {files}"
        name = f"s3://{row[0]}/{bytes(row[1]).decode('utf-8', 'replace')}"
        yield Finding("store", name, WRONG, text, remedy)
    looked = f"{len(rows)} of {total} looked at" if total > len(rows) else f"{total} objects"
    if broken or changed:
        text = f"{len(broken)} without whole files and {len(changed)} with false content ({looked})"
        yield Finding("store", files, WRONG, text, "see 'dl-verify' for all of them")
    else:
        yield Finding("store", files, OK, f"objects have their files ({looked})")


def _is_whole(files: str, row: tuple[Any, ...]) -> bool:
    try:
        return all(os.stat(os.path.join(files, name[-2:], name)).st_size == size for name, size in json.loads(row[3]))
    except OSError:
        return False


def _named_by_content(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    from random import sample

    named = [row for row in rows if bytes(row[1]).endswith(b".xxh128") and row[2] <= REHASHED_BYTES]
    return sample(named, min(REHASHED, len(named)))


def _is_genuine(db: sqlite3.Connection, files: str, row: tuple[Any, ...]) -> bool:
    from xxhash import xxh3_128

    digest = xxh3_128()
    try:
        if row[4] is not None:
            found = db.execute("SELECT bytes FROM content WHERE id = ?", (row[4],)).fetchone()
            if found is None:
                raise FileNotFoundError
            digest.update(found[0])
        for name, _ in json.loads(row[3]):
            with open(os.path.join(files, name[-2:], name), "rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
    except OSError:
        return True  # gone meanwhile
    return bytes(row[1]).rpartition(b"/")[2].decode("latin-1") == f"{digest.hexdigest()}.xxh128"


def leftovers(patient: Patient) -> Iterator[Finding]:
    """Temporary files of commands that were killed, and folders of workers that are no more."""
    place, old = patient.folder, time() - LEFTOVER_S
    for name in ("", "aws", "client", "keys", "workers"):
        try:
            entries = list(os.scandir(place.at(name)))
        except OSError:
            continue
        for entry in entries:
            if entry.name.endswith(".new") and entry.stat(follow_symlinks=False).st_mtime < old:
                yield Finding(
                    "leftovers", entry.path, NOTE, "was left by a command that was killed", f"rm {entry.path}"
                )
    wanted = place.settings.get("workers")
    if isinstance(wanted, int) and os.path.isdir(place.at("workers")):
        for name in sorted(os.listdir(place.at("workers"))):
            work = place.at("workers", name, "work")
            if name.isdigit() and int(name) > wanted and os.path.isdir(work) and os.listdir(work):
                text = "holds files of sessions, and there is no such worker any more"
                yield Finding("leftovers", work, NOTE, text, f"rm -r {work}")


CHECKS = (packages, folder, settings, keys, disk, clock, databases, store, leftovers)
