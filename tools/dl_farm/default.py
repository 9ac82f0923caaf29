"""`use`: the farm as the person's default, in their own files, and the way back.

What is changed is remembered: as long as a file is as we left it, `--undo` puts back the very bytes that were there;
where the person edited it since, only our own lines are taken out.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from libdeadline import config, statuses
from libdeadline.errors import Trouble

from . import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from .layout import Folder

BEGIN = "# dl-farm use: what follows, up to the line that says so, was added by it"
END = "# dl-farm use: end"


def use(folder: Folder, profile: str) -> None:
    """Add a profile to the person's AWS files and make it, the farm and the queue the defaults of Deadline clients.

    Raises: Trouble where a profile of that name is there already, or a file can't be written.
    """
    record = _read_record(folder)
    if record is not None:
        if record["profile"] == profile:
            refresh(folder)
            return
        undo(folder)
    files = {
        "config": os.path.expanduser(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config"),
        "credentials": os.path.expanduser(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"),
        "client": config.location(),
    }
    for path in files.values():
        if os.path.realpath(path).startswith(folder.path + os.sep):
            message = "this shell points at the farm already ('dl-farm env'): run 'dl-farm use' in another one"
            raise Trouble(message, statuses.USAGE)
    for name in ("config", "credentials"):
        text = (_bytes(files[name]) or b"").decode("utf-8", "surrogateescape")
        for header in (f"[profile {profile}]", f"[services {profile}]", f"[{profile}]"):
            if any(line.strip() == header for line in text.splitlines()):
                message = f"'{files[name]}' has a section {header} that is not ours: give another name by --profile"
                raise Trouble(message, statuses.CONFIGURATION)
    record = {"profile": profile, "files": {}}
    before = {name: _bytes(path) for name, path in files.items()}
    for name, path in files.items():
        is_new_folder = not os.path.isdir(os.path.dirname(os.path.realpath(path)))
        entry = {"path": path, "before": _coded(before[name]), "after": None, "is_new_folder": is_new_folder}
        record["files"][name] = entry
    _write_record(folder, record)  # first: what is done halfway can be undone
    record["previous_profile"] = config.read(files["client"]).get(config.PROFILE)
    _apply(folder, record)


def refresh(folder: Folder) -> None:
    """Put the farm's present ports into the person's files, if it is in use."""
    record = _read_record(folder)
    if record is None:
        return
    for name in ("config", "credentials"):
        entry = record["files"][name]
        content = _bytes(entry["path"]) or b""
        start, end = content.find(BEGIN.encode()), content.find(END.encode())
        if 0 <= start < end:
            key = environment.admin_key(folder)
            wanted = _block(folder, record["profile"], name, key)
            changed = content[:start] + wanted.encode() + content[end + len(END) + 1 :]
            if changed != content:
                untouched = _coded(content) == entry["after"]
                _store(entry["path"], changed)
                if untouched:
                    entry["after"] = _coded(changed)
    _write_record(folder, record)


def undo(folder: Folder) -> bool:
    """Take back what `use` did; false where there is nothing to take back."""
    record = _read_record(folder)
    if record is None:
        return False
    for name, entry in record["files"].items():
        path, content = entry["path"], _bytes(entry["path"])
        if content is None:
            continue
        if entry["after"] is not None and _coded(content) == entry["after"]:
            _restore(path, _decoded(entry["before"]), entry["is_new_folder"])
        elif name == "client":
            _undo_settings(folder, record, path)
        else:
            _without_block(path, content)
    os.unlink(folder.at("use.json"))
    return True


def _apply(folder: Folder, record: dict[str, Any]) -> None:
    profile = record["profile"]
    key = environment.admin_key(folder)
    for name, entry in record["files"].items():
        path = entry["path"]
        if name == "client":
            environment.write_client_settings(folder, path, profile)
        else:
            content = _bytes(path) or b""
            gap = b"" if not content else b"\n" if content.endswith(b"\n") else b"\n\n"
            _store(path, content + gap + _block(folder, profile, name, key).encode())
        entry["after"] = _coded(_bytes(path))
        _write_record(folder, record)


def _block(folder: Folder, profile: str, name: str, key: tuple[str, str]) -> str:
    text = environment.profile_text(folder, profile) if name == "config" else environment.credentials_text(profile, key)
    return f"{BEGIN}\n{text}{END}\n"


def _without_block(path: str, content: bytes) -> None:
    start, end = content.find(BEGIN.encode()), content.find(END.encode())
    if not 0 <= start < end:
        return
    before, after = content[:start], content[end + len(END) :].removeprefix(b"\n")
    if before.endswith(b"\n\n"):
        before = before[:-1]
    _store(path, before + after)


def _undo_settings(folder: Folder, record: dict[str, Any], path: str) -> None:
    """Settings that are still as `use` made them go back to what they were."""
    settings = config.read(path)
    if settings.get(config.PROFILE) != record["profile"]:
        return
    if settings.get(config.QUEUE) == folder.settings.get("queue_id"):
        config.clear(config.QUEUE, path)
    if settings.get(config.FARM) == folder.settings.get("farm_id"):
        config.clear(config.FARM, path)
    config.write(config.PROFILE, record.get("previous_profile") or settings.default(config.PROFILE), path)


def _read_record(folder: Folder) -> dict[str, Any] | None:
    try:
        with open(folder.at("use.json"), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except ValueError:
        path = folder.at("use.json")
        raise Trouble(
            f"'{path}' is damaged: take the profile out of your files by hand", statuses.CONFIGURATION
        ) from None


def _write_record(folder: Folder, record: dict[str, Any]) -> None:
    from .layout import replace

    replace(folder.at("use.json"), json.dumps(record, indent=1) + "\n")


def _guarded(path: str, doing: Callable[[], Any]) -> Any:
    try:
        return doing()
    except OSError as error:
        raise Trouble(f"cannot change '{path}': {error.strerror}", statuses.CANNOT_CREATE, path=path) from None


def _bytes(path: str) -> bytes | None:
    def read() -> bytes | None:
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    return _guarded(path, read)


def _store(path: str, content: bytes) -> None:
    """Replace a person's file; one that is a link stays a link, and keeps its mode."""

    def write() -> None:
        target = os.path.realpath(path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else 0o600
        temporary = f"{target}.{os.getpid()}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    _guarded(path, write)


def _restore(path: str, content: bytes | None, is_new_folder: bool) -> None:
    """Make a file what it was; where it wasn't, nothing stays that came with it."""
    if content is not None:
        _store(path, content)
        return
    _guarded(path, lambda: os.unlink(path))
    with suppress(OSError):  # the settings' writers leave their lock
        os.unlink(f"{path}.lock")
    if is_new_folder:
        with suppress(OSError):
            os.rmdir(os.path.dirname(path))


def _coded(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode()


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
