"""Walking a folder in constant memory and a fixed order, and choosing files by globs.

Order: the files of a folder by name, then its folders by name, each in full. Names sort by code point.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator

from . import long_paths, statuses
from .errors import Trouble

SORTED_AT_ONCE = 50_000  # names of one folder; more than these come in sorted runs
LINKS = ("files", "follow", "skip", "fail")

Note = Callable[[str, str, OSError | None], None]
"""Told what the walk leaves out: a word for why, the path relative to the root, the error if there was one.

Words: link (a link that is not followed), dangling (a link to nothing), loop (a link to a folder around it),
special (no file, folder or link), undecodable (a name that is no UTF-8), empty (a folder with nothing in it),
unreadable.
"""


def ignore(why: str, path: str, error: OSError | None) -> None:
    """A Note that forgets."""


def walk(
    root: str, *, links: str = "files", selection: Selection | None = None, note: Note = ignore
) -> Iterator[tuple[str, list[str]]]:
    """The files below `root`: for each folder its path relative to the root, with / at its end if any, and names.

    `links`: files - a link to a file counts as that file, links to folders are not entered; follow - they
    are, too; skip and fail - no link counts (the caller's note makes the difference between the two).
    Raises: OSError where `root` itself can't be listed.
    """
    follow, to_files = links == "follow", links in ("files", "follow")
    stack: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while stack:
        folder, around = stack.pop()
        here = os.path.join(root, folder) if folder else root
        descriptor = -1
        try:
            try:
                listing = os.scandir(here)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG or os.scandir not in os.supports_fd:
                    raise
                # What it tells of its entries it asks this descriptor, which must stay open for so long.
                descriptor = long_paths.opened(here, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                listing = os.scandir(descriptor)
            if follow:
                status = long_paths.status(here)
                around |= {(status.st_dev, status.st_ino)}
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            if not folder:
                raise
            note("unreadable", folder.rstrip("/"), error)
            continue
        names: list[str] = []
        folders: list[str] = []
        found = False
        with listing:
            while True:
                try:
                    entry = next(listing, None)
                except OSError as error:
                    note("unreadable", folder.rstrip("/") or ".", error)
                    break
                if entry is None:
                    break
                found = True
                name = entry.name
                path = folder + name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if selection is None or selection.enters(path):
                            folders.append(name)
                        continue
                    if selection is not None and not selection.takes(path) and not (follow and entry.is_dir()):
                        continue
                    if not name.isascii() and not is_utf8(name):
                        note("undecodable", path, None)
                    elif entry.is_file(follow_symlinks=False):
                        names.append(name)
                    elif not entry.is_symlink():
                        note("special", path, None)
                    elif not to_files:
                        note("link", path, None)
                    elif entry.is_file():
                        names.append(name)
                    elif entry.is_dir():
                        if not follow:
                            note("link", path, None)
                        elif _id(entry) in around:
                            note("loop", path, None)
                        elif selection is None or selection.enters(path):
                            folders.append(name)
                    else:
                        note("special" if _leads_somewhere(entry) else "dangling", path, None)
                except OSError as error:
                    # A link that leads back to itself leads to nothing.
                    note(*(("dangling", path, None) if error.errno == errno.ELOOP else ("unreadable", path, error)))
                if len(names) >= SORTED_AT_ONCE:
                    yield folder, sorted(names)
                    names = []
        if descriptor >= 0:
            os.close(descriptor)
        if not found:
            note("empty", folder.rstrip("/") or ".", None)
        if names:
            names.sort()
            yield folder, names
        for name in sorted(folders, reverse=True):
            if not name.isascii() and not is_utf8(name):
                note("undecodable", folder + name, None)
            else:
                stack.append((f"{folder}{name}/", around))


def _leads_somewhere(entry: os.DirEntry[str]) -> bool:
    try:
        entry.stat()
    except FileNotFoundError:
        return False
    return True


def _id(entry: os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino


def is_utf8(name: str) -> bool:
    """Whether a name, as os.fsdecode gives it, can stand in a record and in a manifest."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class Selection:
    """Which paths to take, by globs relative to the root.

    `*`, `?` and `[...]` match within one part; a part `**` matches any number of parts. What matches a
    folder takes all that is in it. A path is taken if an include matches it (or there is none) and no exclude
    does. Unless `hidden`, wildcards don't match a dot at the beginning of a part. If `exact`, globs are about
    files alone, those of excludes as those of includes: what matches a folder takes nothing that is in it.
    Raises: Trouble (64) where a glob is absolute or climbs with `..`.
    """

    def __init__(
        self, include: Iterable[str] = (), exclude: Iterable[str] = (), *, hidden: bool = True, exact: bool = False
    ) -> None:
        include = list(include) or ["**"]
        self._exact = exact
        self._include = [_parts(glob) for glob in include]
        self._includes = re.compile("|".join(_regex(parts, hidden, exact) for parts in self._include), re.S)
        self._starts = [[part if part == "**" else re.compile(_part(part, hidden), re.S) for part in parts]
                        for parts in self._include]  # fmt: skip
        excluded = [_regex(_parts(glob), hidden or not exact, exact) for glob in exclude]
        self._excludes = re.compile("|".join(excluded), re.S) if excluded else None

    def takes(self, path: str) -> bool:
        """Whether the file `path` is taken."""
        if not self._includes.fullmatch(path):
            return False
        return not (self._excludes and self._excludes.fullmatch(path))

    def enters(self, folder: str) -> bool:
        """Whether anything in `folder` could be taken."""
        if self._excludes and not self._exact and self._excludes.fullmatch(folder):
            return False
        parts = folder.split("/")
        return any(_may_begin(parts, start) for start in self._starts)


def _may_begin(parts: list[str], glob: list[str | re.Pattern[str]]) -> bool:
    for part, wanted in zip(parts, glob, strict=False):
        if isinstance(wanted, str):
            return True
        if not wanted.fullmatch(part):
            return False
    return True


def _parts(glob: str) -> list[str]:
    parts = [part for part in glob.split("/") if part not in ("", ".")]
    if glob.startswith("/") or ".." in parts or not parts:
        raise Trouble(f"the glob '{glob}' is refused: globs are relative to the root, without '..'", statuses.USAGE)
    if glob.endswith("/") and parts[-1] != "**":
        parts.append("**")
    return parts


def _regex(parts: list[str], hidden: bool, exact: bool) -> str:
    any_part = "[^/]+" if hidden else r"(?!\.)[^/]+"
    text = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            text += f"{any_part}(?:/{any_part})*" if last else f"(?:{any_part}/)*"
        else:
            text += _part(part, hidden) + ("/" if not last else "" if exact else f"(?:/{any_part})*")
    return f"(?:{text})"


def _part(glob: str, hidden: bool) -> str:
    text = "" if hidden or glob[0] not in "*?[" else r"(?!\.)"
    position = 0
    while position < len(glob):
        letter = glob[position]
        position += 1
        if letter == "*":
            if not text.endswith("[^/]*"):
                text += "[^/]*"
        elif letter == "?":
            text += "[^/]"
        elif letter == "[":
            end = glob.find("]", position + (2 if glob[position : position + 1] in ("!", "^") else 1))
            if end < 0:
                text += r"\["
                continue
            body = glob[position:end].replace("\\", r"\\").replace("[", r"\[").replace("&", r"\&").replace("~", r"\~")
            if body[0] in "!^":
                text += f"(?![{_closed(body[1:])}])[^/]"
            else:
                text += f"[{_closed(body)}]"
            position = end + 1
        else:
            text += re.escape(letter)
    return text


def _closed(body: str) -> str:
    """The body of a bracket expression for `re`: `]` and `^` literal, ranges that run backwards as their ends."""
    body = re.sub(r"(?<!\\)(\]|\^|\|)", r"\\\1", body)
    return re.sub(r"([^\\])-([^\\])", lambda m: m[0] if m[1] <= m[2] else rf"{re.escape(m[1])}{re.escape(m[2])}", body)
