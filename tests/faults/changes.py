"""What can happen to a file between two looks at it, the size and the time of its last change kept where possible."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path


def _timed(path: Path, about: os.stat_result) -> None:
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns), follow_symlinks=False)


def rewrite(path: Path, where: int | None = None) -> None:
    """Change a byte in place."""
    about = path.stat()
    where = about.st_size // 2 if where is None else where
    with open(path, "r+b", buffering=0) as file:
        file.seek(where)
        byte = file.read(1)
        file.seek(where)
        file.write(bytes([byte[0] ^ 1]))
    _timed(path, about)


def _mapped(path: Path) -> None:
    about = path.stat()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[about.st_size // 2] ^= 1
        memory.flush()
    _timed(path, about)


def _grown(path: Path) -> None:
    about = path.stat()
    with open(path, "ab") as file:
        file.write(b"more")
    _timed(path, about)


def _shrunk(path: Path) -> None:
    about = path.stat()
    os.truncate(path, about.st_size - 1)
    _timed(path, about)


def _replaced(path: Path) -> None:
    about = path.stat()
    other = path.with_name(path.name + "~")
    other.write_bytes(b"\1" * about.st_size)
    _timed(other, about)
    other.replace(path)


def _linked(path: Path) -> None:
    about = path.stat()
    other = path.parent.parent / (path.name + ".elsewhere")
    other.write_bytes(b"\1" * max(about.st_size, 1))
    _timed(other, about)
    path.unlink()
    path.symlink_to(other)
    _timed(path, about)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _folder(path: Path) -> None:
    about = path.stat()
    path.unlink()
    path.mkdir()
    _timed(path, about)


def _fifo(path: Path) -> None:
    about = path.stat()
    path.unlink()
    os.mkfifo(path)
    _timed(path, about)


def _copied(path: Path) -> None:
    other = path.with_name(path.name + "~")
    other.write_bytes(path.read_bytes())
    other.replace(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "rewritten": rewrite,
    "mapped": _mapped,
    "grown": _grown,
    "shrunk": _shrunk,
    "replaced": _replaced,
    "linked": _linked,
    "dangling": _dangling,
    "folder": _folder,
    "fifo": _fifo,
    "deleted": Path.unlink,
    "copied": _copied,
    "touched": Path.touch,
    "closed off and opened": lambda path: path.chmod(0o600),
}
STILL_RIGHT = ["copied", "touched", "closed off and opened"]  # the content is the same
