"""Append-only journals: JSON objects, one a line, by which the worker's processes tell each other things.

A journal has one writer at a time and any number of readers; it survives both. A line counts once its newline is there.
"""

from __future__ import annotations

import os
from typing import Any

import orjson


def append(path: str, *rows: dict[str, Any]) -> None:
    """Add `rows` in one write; the file is made for its owner alone.

    Raises: OSError; a torn write is taken back, so that the next line starts clean.
    """
    data = b"".join(_line(row) for row in rows)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        start = os.fstat(descriptor).st_size
        written = os.write(descriptor, data)
        while written < len(data):
            try:
                written += os.write(descriptor, data[written:])
            except OSError:
                os.ftruncate(descriptor, start)
                raise
    finally:
        os.close(descriptor)


def _line(row: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A file name that is no UTF-8, in a message: readable is enough here.
        return orjson.dumps(_readable(row), option=orjson.OPT_APPEND_NEWLINE)


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_readable(key): _readable(member) for key, member in value.items()}
    return [_readable(member) for member in value] if isinstance(value, list) else value


class Reader:
    """Reads a journal from `offset` on: each call of `read` gives the rows that were added since."""

    def __init__(self, path: str, offset: int = 0) -> None:
        self.path, self.offset = path, offset

    def read(self) -> list[dict[str, Any]]:
        """The rows added since the last call. A file that isn't there is an empty journal."""
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        end = data.rfind(b"\n") + 1
        self.offset += end
        rows = []
        for line in data[:end].splitlines():
            try:
                rows.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                continue  # half a line, left by a writer that died in the middle of it
        return rows


def heal(path: str) -> None:
    """End a line that a writer which died left without its newline, so that the next writer's first line is its own."""
    try:
        with open(path, "rb+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                file.write(b"\n")
    except FileNotFoundError:
        pass
