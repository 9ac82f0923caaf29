"""Paths: made absolute and normal, grouped under asset roots, and judged safe; POSIX and Windows forms alike.

Nothing here asks which system it runs on: `flavour` is posixpath or ntpath.
Source: attachments specification, grouping paths into asset roots.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_RESERVED = re.compile(
    r"(?i)(con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3]|conin\$|conout\$)[ ]*(\..*)?\Z"
)
_PLAIN = re.compile(r"(?!\.\.?(?:/|\Z))[^/\0]+(?:/(?!\.\.?(?:/|\Z))[^/\0]+)*\Z")  # a way down, by parts that are names
PATH_BYTES = 65_535  # most of a path below a root: beyond, it was made to do harm
_NOT_ON_WINDOWS = re.compile(r'[<>:"\\|?*\x00-\x1f]')


def path_format(flavour: Any = os.path) -> str:
    """What the service calls this flavour: posix or windows."""
    return "windows" if flavour is ntpath else "posix"


def flavour_of(path_format: str) -> Any:
    """The path functions for posix or windows."""
    return ntpath if path_format.lower() == "windows" else posixpath


def root_hash(text: str) -> str:
    """XXH3 128 of a path's UTF-8 bytes: the name of a root in keys and in local manifest names."""
    from xxhash import xxh3_128_hexdigest

    return xxh3_128_hexdigest(text.encode("utf-8", "surrogateescape"))


def fold(name: str) -> str:
    """What is alike of two names that are one where neither case counts nor how letters are composed."""
    from unicodedata import normalize

    return name.casefold() if name.isascii() else normalize("NFC", normalize("NFC", name).casefold())


def absolute(path: str, base: str | None = None, flavour: Any = os.path) -> str:
    """`path` from `base` (the working directory), with `.`, `..` and double separators taken out.

    Links are not resolved: the manifest has the name that was given.
    """
    normal: str = flavour.normpath(flavour.join(base if base is not None else os.getcwd(), path))
    # POSIX leaves the meaning of exactly two leading slashes open; to Linux and macOS they are one.
    return normal[1:] if flavour is posixpath and normal.startswith("//") else normal


def is_within(path: str, folder: str, flavour: Any = os.path) -> bool:
    """Whether `path` is `folder` or lies below it, by whole components; both are absolute and normal."""
    path, folder = flavour.normcase(path), flavour.normcase(folder)
    if path == folder:
        return True
    separator = flavour.sep
    return path.startswith(folder if folder.endswith(separator) else folder + separator)


def relative(path: str, folder: str, flavour: Any = os.path) -> str:
    """`path` from `folder`, in which it lies, with the flavour's separators; '.' for the folder itself."""
    rest = path[len(folder) :].lstrip(flavour.sep)
    return rest or "."


def common(first: str, second: str, flavour: Any = os.path) -> str:
    """The longest path that holds both, by whole components; both are absolute and normal, on one drive."""
    if first == second:
        return first
    result: str = flavour.commonpath((first, second))
    return result


def anchor(path: str, flavour: Any = os.path) -> str:
    r"""The first component of an absolute path: `/`, `C:\` or `\\server\share\`."""
    drive, root, _ = flavour.splitroot(path) if hasattr(flavour, "splitroot") else _split_root(path, flavour)
    result: str = drive + (root or flavour.sep)
    return result


def _split_root(path: str, flavour: Any) -> tuple[str, str, str]:
    drive, rest = flavour.splitdrive(path)
    stripped = rest.lstrip("/\\" if flavour is ntpath else "/")
    return drive, flavour.sep if len(stripped) < len(rest) else "", stripped


def root_problem(root: str, path_format: str) -> str | None:
    """Why a root that a record or a store names can't be a folder to put files below, or None."""
    flavour = flavour_of(path_format)
    if not flavour.isabs(root):
        return "it is not absolute"
    if "\0" in root:
        return "it holds a NUL byte"
    if ".." in re.split(r"[\\/]" if flavour is ntpath else "/", root):
        return "it has a '..'"
    return None


def relative_problem(path: str, *, windows: bool = False) -> str | None:
    """Why a manifest's `path` may not be used under a root, or None.

    It must name a file below the root by its parts alone: no `..`, no absolute path, nothing that another
    spelling could name too. With `windows` each part must also be a name that Windows gives to just one file.
    """
    if len(path) > PATH_BYTES // 4 and len(path.encode("utf-8", "surrogatepass")) > PATH_BYTES:
        return f"it is longer than {PATH_BYTES} bytes"
    if not windows and _PLAIN.match(path):
        return None
    if not path:
        return "it is empty"
    if path[0] == "/":
        return "it is absolute"
    if "\0" in path:
        return "it holds a NUL byte"
    for part in path.split("/"):
        if part in ("", "."):
            return "it has an empty part or a '.'"
        if part == "..":
            return "it has a '..'"
        if windows:
            if bad := _NOT_ON_WINDOWS.search(part):
                return f"Windows allows no {bad[0]!r} in a name"
            if part[-1] in ". ":
                return "Windows drops a dot or a space at the end of a name"
            if _RESERVED.match(part):
                return f"'{part}' is reserved on Windows"
    return None


class Location(NamedTuple):
    """A file system location of a storage profile: its name, folder, and LOCAL or SHARED."""

    name: str
    path: str
    type: str


class Root(NamedTuple):
    """An asset root and what lies under it; files are the group's own business."""

    path: str
    location: str | None


class Group:
    """Paths that will share an asset root: those in one LOCAL location, or on one drive outside of all."""

    def __init__(self, location: str | None, limit: str, flavour: Any = os.path) -> None:
        self.location, self.limit, self.flavour = location, limit, flavour
        self.common: str | None = None
        self._inside = ""  # what a path begins with that the common path holds already

    def add(self, path: str) -> None:
        """Widen the common path so that it holds `path`, absolute and normal."""
        if self.common is None:
            self.common = path
        elif not path.startswith(self._inside):
            self.common = common(self.common, path, self.flavour)
        else:
            return
        separator = self.flavour.sep
        self._inside = self.common if self.common.endswith(separator) else self.common + separator


class Grouping:
    """Sorts paths into groups by the storage profile's locations.

    A path belongs to the longest location that holds it once links are resolved, by whole components. In a
    LOCAL location the group's root is the location's own folder, because that is the path that a worker
    looks its mapping rules up by; elsewhere it is the longest common path.
    """

    def __init__(self, locations: Iterable[Location] = (), flavour: Any = os.path) -> None:
        self.flavour = flavour
        self.groups: dict[str, Group] = {}
        resolved = [(flavour.realpath(location.path), location) for location in locations]
        self._locations = sorted(resolved, key=lambda pair: len(pair[0]), reverse=True)

    @property
    def has_locations(self) -> bool:
        """Whether links matter at all."""
        return bool(self._locations)

    def location_of(self, path: str) -> Location | None:
        """The longest location that holds `path` (absolute) once its links are resolved."""
        if not self._locations:
            return None
        real = self.flavour.realpath(path)
        for folder, location in self._locations:
            if is_within(real, folder, self.flavour):
                return location
        return None

    def group_of(self, path: str) -> Group | None:
        """The group that `path` (absolute, normal) belongs to, made at need; None: a SHARED location, left out.

        A link that lies outside of the location that its target is in can't be named relative to that
        location; its content goes under its own name.
        """
        location = self.location_of(path)
        if location is not None and not is_within(path, absolute(location.path, flavour=self.flavour), self.flavour):
            location = None
        if location is not None and location.type == "SHARED":
            return None
        if location is None:
            limit = anchor(path, self.flavour)
            key = "drive:" + self.flavour.normcase(limit)
        else:
            limit = absolute(location.path, flavour=self.flavour)
            key = "location:" + location.name
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(location.name if location else None, limit, self.flavour)
            if location is not None:
                group.common = limit
        return group
