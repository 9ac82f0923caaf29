"""Puts files below a folder that a person chose, and nowhere else, whole or not at all.

Folders are opened part by part without following links, and everything below is done relative to them, so that a
link which someone puts in the way leads nowhere. A link that was there before may lead elsewhere within the folder.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from threading import Lock
from time import time
from typing import Any

from . import statuses
from .errors import Trouble

IGNORES_CASE = sys.platform in ("win32", "darwin")  # as a rule: a disk may do otherwise
HAS_DIR_FD = os.open in os.supports_dir_fd and os.stat in os.supports_dir_fd
OPEN_FOLDERS = 256  # kept open, of each tree
RESUMED_BYTES = 32 << 20  # files from this size on are taken up where a killed run left them
LEFT_S = 86400.0  # after which nobody is thought to come back for them
LINK_DEPTH = 8
_PREFIX, _SUFFIX, _RESUMED_SUFFIX = ".dl-", ".part", ".resumed.part"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_UNNAMED = getattr(os, "O_TMPFILE", 0) if os.path.isdir("/proc/self/fd") else 0  # without /proc it can't get a name
_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS}
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Folder:
    """A folder that is open; names in it are reached without following links. It closes when nobody holds it."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.unnamed = bool(_UNNAMED) and HAS_DIR_FD  # whether its file system may take files without a name

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def _at(self, name: str) -> tuple[str, int | None]:
        if HAS_DIR_FD:
            return name, self.descriptor
        return os.path.join(self.path, name), None

    def stat(self, name: str) -> os.stat_result | None:
        """What is there under a name, a link itself rather than its target; None where there is nothing."""
        target, folder = self._at(name)
        try:
            return os.stat(target, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, name: str, flags: int) -> int:
        """Open a file that is no link."""
        target, folder = self._at(name)
        return os.open(target, flags | _FILE, 0o666, dir_fd=folder)

    def rename(self, name: str, to: str) -> None:
        source, folder = self._at(name)
        target, _ = self._at(to)
        os.replace(source, target, src_dir_fd=folder, dst_dir_fd=folder)

    def open_unnamed(self) -> int | None:
        """A new file that has no name yet and is gone with whoever has it open; None where there is no such thing."""
        if not self.unnamed:
            return None
        try:
            return os.open(".", _UNNAMED | os.O_RDWR | _FILE, 0o666, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
            self.unnamed = False
            return None

    def name(self, descriptor: int, name: str) -> None:
        """Give a name to a file that has none. Raises: FileExistsError."""
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self.descriptor, follow_symlinks=True)

    def claim(self, name: str, to: str) -> None:
        """Rename, but never over anything. Raises: FileExistsError."""
        source, folder = self._at(name)
        target, _ = self._at(to)
        try:
            os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without hard links: an empty file of that name is claimed, and then replaced.
            os.close(self.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            self.rename(name, to)
            return
        self.unlink(name)

    def unlink(self, name: str) -> None:
        target, folder = self._at(name)
        try:
            os.unlink(target, dir_fd=folder)
        except FileNotFoundError:
            pass

    def touch(self, name: str, mtime_us: int) -> None:
        """Set the times of a file."""
        target, folder = self._at(name)
        options: dict[str, Any] = {"dir_fd": folder} if folder is not None else {}
        if os.utime in os.supports_follow_symlinks:
            options["follow_symlinks"] = False
        os.utime(target, ns=(mtime_us * 1000, mtime_us * 1000), **options)

    def ignores_case(self) -> bool:
        """Whether two names that differ by case are one here: of what a disk is, only trying tells."""
        name = f"{_PREFIX}{os.getpid()}-case{_SUFFIX}"
        try:
            os.close(self.open(name, os.O_CREAT | os.O_WRONLY))
            return self.stat(name.upper()) is not None
        except OSError:
            return False
        finally:
            try:
                self.unlink(name)
            except OSError:
                pass

    def sweep(self, *, large: bool = False) -> bool:
        """Remove temporaries that killed runs left behind: whether there still are some.

        Without `large` those stay a while that can be taken up when their file's turn comes.
        """
        with os.scandir(self.descriptor if HAS_DIR_FD else self.path) as entries:
            names = [each.name for each in entries if each.name.startswith(_PREFIX) and each.name.endswith(_SUFFIX)]
        stay = False
        for name in names:
            try:
                descriptor = self.open(name, os.O_RDWR)
            except OSError:
                continue
            try:
                large_stays = not large and os.fstat(descriptor).st_mtime >= time() - LEFT_S
                if name.endswith(_RESUMED_SUFFIX) and large_stays:
                    stay = True
                elif _lock(descriptor):
                    self.unlink(name)
            finally:
                os.close(descriptor)
        return stay


class Temporary:
    """A file that is written before it gets its name: without any where that can be, else beside it.

    What is large keeps a name, under which the next run finds what a killed one left; one process at a time has it.
    """

    def __init__(self, folder: Folder, name: str, hash: str, size: int) -> None:
        """Raises: OSError."""
        self.folder = folder
        self.found = 0  # bytes that a killed run left in it
        self.name: str | None = None
        if size < RESUMED_BYTES:
            descriptor = folder.open_unnamed()
            if descriptor is not None:
                self.descriptor = descriptor
                return
        # Named after what it will be, so that the next run finds what a killed one left.
        base = _temporary_name(name, hash)
        own = f"{_PREFIX}{base}{_RESUMED_SUFFIX if size >= RESUMED_BYTES else _SUFFIX}"
        for attempt in range(100):
            self.descriptor = folder.open(own, os.O_CREAT | os.O_RDWR)
            if _lock(self.descriptor):
                about = os.fstat(self.descriptor)
                self.name, self.found = own, about.st_size
                if about.st_nlink > 1:
                    # A run was killed between giving it its name and taking this one away: it is a file in its place.
                    folder.unlink(own)
                elif about.st_nlink or not HAS_DIR_FD:  # else someone swept it up before we had it
                    return
            os.close(self.descriptor)
            own = f"{_PREFIX}{base}-{os.getpid()}-{attempt}{_SUFFIX}"
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.path.join(folder.path, name))

    def claim(self, name: str) -> None:
        """Give it its name, but never over anything. Raises: FileExistsError."""
        if self.name is None:
            self.folder.name(self.descriptor, name)
        else:
            self.folder.claim(self.name, name)

    def replace(self, name: str) -> None:
        """Give it its name, in place of whatever has it."""
        if self.name is None:
            try:
                self.folder.name(self.descriptor, name)
                return
            except FileExistsError:
                pass
            own = f"{_PREFIX}{_temporary_name(name, '')}-{os.getpid()}-{self.descriptor}{_SUFFIX}"
            self.folder.unlink(own)
            self.folder.name(self.descriptor, own)
            self.name = own
        self.folder.rename(self.name, name)

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def restart(self, at: int = 0) -> None:
        """Go on writing at an offset, with nothing behind it."""
        os.ftruncate(self.descriptor, at)
        os.lseek(self.descriptor, at, os.SEEK_SET)

    def write(self, block: memoryview) -> None:
        while block:
            block = block[os.write(self.descriptor, block) :]

    def close(self, *, remove: bool) -> None:
        """Let go of it. It is removed before its lock ends, so nobody else picks it up in between."""
        if remove and self.name is not None:
            try:
                self.folder.unlink(self.name)
            except OSError:
                pass
        os.close(self.descriptor)


def _temporary_name(name: str, hash: str) -> str:
    from xxhash import xxh3_64_hexdigest

    return str(xxh3_64_hexdigest(os.fsencode(name) + hash.encode()))


def _lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


class Tree:
    """A folder that files are put below. Threads may share it."""

    def __init__(self, path: str) -> None:
        """The folder is made where it does not exist. Raises: OSError."""
        os.makedirs(path, exist_ok=True)
        self.path = path
        self._real = os.path.realpath(path)
        self._folders: dict[str, Folder] = {}
        self._lock = Lock()
        self._spelled: dict[str, str] | None = None  # where case does not count: what was put here, by what is alike
        # The chosen folder itself may be a link: that is the person's own choice.
        self._root = Folder(path, os.open(path, _FOLDER & ~getattr(os, "O_NOFOLLOW", 0)) if HAS_DIR_FD else -1)
        self._left = {""} if self._root.sweep() else set()  # folders in which large temporaries stay
        self._folders[""] = self._root
        if self._root.ignores_case():
            self._spelled = {}

    def claim(self, path: str) -> None:
        """Take note that a file is to be put at `path`.

        Raises: Trouble (65) where this folder takes it for another one that was, spelled otherwise.
        """
        if self._spelled is None:
            return
        from .paths import fold

        end = 0
        while end >= 0:
            end = path.find("/", end + 1)
            name = path if end < 0 else path[:end]
            known = self._spelled.setdefault(fold(name), name)
            if known != name:
                raise Trouble(
                    f"'{path}' is not written: in '{self.path}' it is one with '{known}', from which it differs by "
                    "case or form alone",
                    statuses.DATA,
                    path=os.path.join(self.path, path),
                )

    def finish(self) -> None:
        """All files are in their places: remove what killed runs left of others, such as earlier contents of theirs."""
        for path in self._left:
            try:
                self.folder(path).sweep(large=True)
            except (OSError, Trouble):
                continue  # it is no longer there

    def folder(self, path: str) -> Folder:
        """The folder at a relative path, with / between parts; made where it does not exist.

        Raises: Trouble (65) where a link leads out; OSError.
        """
        known = self._folders.get(path)
        if known is not None:
            return known
        with self._lock:
            return self._reach(path, 0)

    def _reach(self, path: str, depth: int) -> Folder:
        """The folder, from the nearest one that is known on, part by part: a path may have thousands."""
        known = len(path)
        while path[:known] not in self._folders:
            known = max(path.rfind("/", 0, known), 0)
        found = self._folders[path[:known]]
        while known < len(path):
            following = path.find("/", known + 1)
            known = following if following >= 0 else len(path)
            found = self._enter(found, path[:known], depth)
        return found

    def _enter(self, parent: Folder, path: str, depth: int) -> Folder:
        """The folder at `path`, of which all but the last part is `parent`."""
        name = path.rpartition("/")[2]
        shown = os.path.join(self.path, path) if os.sep == "/" else os.path.join(self.path, *path.split("/"))
        made = False
        target, at = parent._at(name)
        try:
            os.mkdir(target, dir_fd=at)
            made = True
        except FileExistsError:
            pass
        if HAS_DIR_FD:
            try:
                found = Folder(shown, os.open(name, _FOLDER, dir_fd=parent.descriptor))
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                    raise
                found = self._follow(path, parent, name, shown, depth)
        else:
            real = os.path.realpath(shown)
            if not _within(real, self._real):
                raise _leads_out(shown, self.path)
            found = Folder(shown, -1)
        if not made and found.sweep():
            self._left.add(path)
        if len(self._folders) >= OPEN_FOLDERS:
            for old in list(self._folders)[1 : OPEN_FOLDERS // 2]:
                del self._folders[old]
        self._folders[path] = found
        return found

    def _follow(self, path: str, parent: Folder, name: str, shown: str, depth: int) -> Folder:
        """The folder that a link leads to, if it is below this tree, reached without following links in turn."""
        about = parent.stat(name)
        if about is None or not stat.S_ISLNK(about.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), shown)
        real = os.path.realpath(os.path.join(self._real, *path.split("/")))
        if depth >= LINK_DEPTH or not _within(real, self._real):
            raise _leads_out(shown, self.path)
        rest = os.path.relpath(real, self._real)
        reached = self._root if rest == "." else self._reach(rest.replace(os.sep, "/"), depth + 1)
        return Folder(shown, os.dup(reached.descriptor))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _leads_out(path: str, root: str) -> Trouble:
    return Trouble(f"the link '{path}' leads out of '{root}': nothing is written through it", statuses.DATA, path=path)


def copy_names(name: str) -> Iterator[str]:
    """The names beside `name` that a copy may get: stem (1).ext, stem (2).ext, ..."""
    stem, extension = os.path.splitext(name)
    number = 1
    while True:
        yield f"{stem} ({number}){extension}"
        number += 1
