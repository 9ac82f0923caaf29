"""Files whose path is longer than the system takes in one call (PATH_MAX), reached part by part."""

from __future__ import annotations

import errno
import os

STEP_BYTES = 2048  # of a path, at most, in one call
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_CAN = os.open in os.supports_dir_fd and os.stat in os.supports_dir_fd


def opened(path: str, flags: int) -> int:
    """A descriptor of the file or folder, as os.open gives it. Raises: OSError."""
    try:
        return os.open(path, flags)
    except OSError as error:
        folder, name = _reached(path, error)
    try:
        return os.open(name, flags, dir_fd=folder)
    finally:
        os.close(folder)


def status(path: str, *, follow_symlinks: bool = True) -> os.stat_result:
    """What os.stat tells of the file or folder. Raises: OSError."""
    try:
        return os.stat(path, follow_symlinks=follow_symlinks)
    except OSError as error:
        folder, name = _reached(path, error)
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=follow_symlinks)
    finally:
        os.close(folder)


def _reached(path: str, error: OSError) -> tuple[int, bytes]:
    """A descriptor of a folder on the way, and the rest of the path, where that is what `error` is about."""
    raw = os.fsencode(path)
    if error.errno != errno.ENAMETOOLONG or len(raw) <= STEP_BYTES or not _CAN:
        raise error
    folder = -1
    while len(raw) > STEP_BYTES:
        cut = raw.rfind(b"/", 0, STEP_BYTES)
        if cut < 0:
            os.close(folder)
            raise error
        try:
            following = os.open(raw[: cut + 1], _FOLDER, dir_fd=folder if folder >= 0 else None)
        finally:
            if folder >= 0:
                os.close(folder)
        folder = following
        raw = raw[cut:].lstrip(b"/")
    return folder, raw
