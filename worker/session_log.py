"""What openjd logs of a session, as records in the session's log and, if wanted, as text for people."""

from __future__ import annotations

import contextlib
import logging
import os

import orjson

from .folder import time_text


class LogFile(logging.Handler):
    """Writes what openjd logs to the session's log, a record a line, times cut to milliseconds.

    The local log, where one is kept, is text for people, as the reference writes it.
    """

    def __init__(self, path: str, local_path: str | None) -> None:
        super().__init__()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self.descriptor = os.open(path, flags, 0o600)
        self.local = None
        if local_path:
            os.makedirs(os.path.dirname(local_path), mode=0o700, exist_ok=True)
            self.local = os.open(local_path, flags, 0o600)

    def emit(self, record: logging.LogRecord) -> None:
        time = time_text(record.created)
        message = record.getMessage().encode("utf-8", "backslashreplace").decode()
        row = {"type": "log", "timestamp": time, "message": message}
        with contextlib.suppress(OSError):
            os.write(self.descriptor, orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            if self.local is not None:
                os.write(self.local, f"{time} {record.levelname} {message}\n".encode())
