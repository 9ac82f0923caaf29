"""The farm's folder: where what lies, and what is remembered.

config.json          ports, ids, number of workers             0600, as everything here
keys/                master key and long-term keys             dl-farmd and dl-s3d read them
farm.sqlite, logs.sqlite                                       dl-farmd's
store/               objects                                   dl-s3d's
supervisord.conf     what runs                                 written anew by each `up`
run/                 lock, pid file, control socket
log/                 of supervisord and the servers
aws/                 config and credentials that `env` points at
client/config        settings of Deadline Cloud clients: the farm and queue as defaults
workers/<n>/         state of worker n, and credentials to enrol with
use.json             what `use` changed in the person's files
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from libdeadline import statuses
from libdeadline.disk import flush
from libdeadline.errors import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_DIR = os.path.join("~", ".deadline", "farm")
REGION = "us-west-2"
ACCOUNT = "000000000000"
HOST = "127.0.0.1"
SOCKET_PATH_BYTES = 100  # sun_path holds 108, 104 on macOS; supervisord binds a longer temporary name first
LOCK_WAIT_S = 60.0
LEAST_FREE_BYTES = 32 << 20  # of the disk: databases and logs of a small job need some


class Folder:
    """The paths in a farm's folder, and its remembered settings."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(os.path.expanduser(path))
        if "\n" in self.path:
            raise Trouble("--dir: the folder's name must not hold a line break", statuses.USAGE)
        self.settings: dict[str, Any] = {}

    def at(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    @property
    def exists(self) -> bool:
        return os.path.exists(self.at("config.json"))

    @property
    def conf(self) -> str:
        return self.at("supervisord.conf")

    @property
    def pid_file(self) -> str:
        return self.at("run", "supervisord.pid")

    @property
    def control_socket(self) -> str:
        """The socket that supervisord is told what to do by: in the folder, or where paths are short."""
        path = self.at("run", "supervisor.sock")
        if len(os.fsencode(path)) + 12 <= SOCKET_PATH_BYTES:
            return path
        return os.path.join(self._short_folder(), "supervisor.sock")

    def _short_folder(self) -> str:
        import tempfile
        from hashlib import sha256

        name = sha256(os.fsencode(self.path)).hexdigest()[:12]
        parts = [tempfile.gettempdir(), f"dl-farm-{os.getuid()}", name]
        if len(os.path.join(*parts)) + 30 > SOCKET_PATH_BYTES:
            parts[0] = "/tmp"
        return os.path.join(*parts)

    def make(self) -> None:
        """Make what is missing, readable by nobody else.

        Raises: Trouble (73).
        """
        try:
            for name in ("", "keys", "run", "log", "aws", "client", "workers"):
                os.makedirs(self.at(name), mode=0o700, exist_ok=True)
            socket_folder = os.path.dirname(self.control_socket)
            os.makedirs(socket_folder, mode=0o700, exist_ok=True)
            for each in {socket_folder, os.path.dirname(socket_folder)} - {self.at("run"), self.path}:
                status = os.stat(each, follow_symlinks=False)
                if status.st_uid != os.getuid() or status.st_mode & 0o022:
                    raise Trouble(f"'{each}' belongs to someone else: remove it", statuses.NOT_ALLOWED)
        except OSError as error:
            message = f"cannot make the farm's folder '{error.filename or self.path}': {error.strerror}"
            raise Trouble(message, statuses.CANNOT_CREATE) from None

    def need_room(self) -> None:
        """Let a farm be started only where there is room for it.

        Raises: Trouble (73).
        """
        room = os.statvfs(self.path)
        free = room.f_bavail * room.f_frsize
        if free < LEAST_FREE_BYTES:
            message = f"the disk that holds '{self.path}' has only {free >> 20} MiB left: make room"
            raise Trouble(message, statuses.CANNOT_CREATE)

    def read(self) -> None:
        """Fill `settings` from config.json, if there is one.

        Raises: Trouble (78) where it is damaged.
        """
        path = self.at("config.json")
        try:
            with open(path, "rb") as file:
                self.settings = json.load(file)
            ports = self.settings["ports"]
            if not all(isinstance(ports[name], int) for name in ("farmd", "s3d")):
                raise ValueError
        except FileNotFoundError:
            self.settings = {}
        except (ValueError, KeyError, TypeError):
            message = f"'{path}' is damaged: mend it, or start anew with 'dl-farm reset'"
            raise Trouble(message, statuses.CONFIGURATION) from None

    def write(self) -> None:
        replace(self.at("config.json"), json.dumps(self.settings, indent=1) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other `dl-farm up`, `down` and `reset` waiting meanwhile.

        Raises: Trouble (75) where another one goes on for too long.
        """
        import fcntl
        from time import monotonic, sleep

        descriptor = os.open(self.at("run", "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            give_up = monotonic() + LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if monotonic() > give_up:
                        message = f"another dl-farm is busy with '{self.path}': wait for it, or end it"
                        raise Trouble(message, statuses.TRY_AGAIN) from None
                    sleep(0.1)
            yield
        finally:
            os.close(descriptor)

    # -- what is remembered

    def url(self, server: str) -> str:
        return f"http://{HOST}:{self.settings['ports'][server]}"

    @property
    def region(self) -> str:
        return self.settings.get("region", REGION)

    @property
    def account(self) -> str:
        return self.settings.get("account", ACCOUNT)


def replace(path: str, text: str, mode: int = 0o600) -> bool:
    """Write a file whole or not at all; false where it holds that text already.

    Raises: Trouble (73, 74).
    """
    temporary = f"{path}.{os.getpid()}.new"
    try:
        try:
            with open(path, encoding="utf-8") as file:
                if file.read() == text:
                    return False
        except (FileNotFoundError, UnicodeDecodeError):
            pass
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        flush(os.path.dirname(path))
    except OSError as error:
        raise Trouble(f"cannot write '{path}': {error.strerror}", statuses.IO, path=path) from None
    return True
