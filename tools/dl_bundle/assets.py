"""The files that a job brings along: found, counted, grouped under asset roots, and named in a second walk.

Two walks instead of a list of all files: the first finds the common paths, the second emits.
Source: attachments specification, grouping paths into asset roots.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from stat import S_ISDIR

from libdeadline import paths, statuses
from libdeadline.errors import Trouble
from libdeadline.paths import Group, Grouping
from libdeadline.records import File, OutputDir, Record, Root
from libdeadline.walk import walk

MOST_NAMED = 5  # paths in one message


class Assets:
    """Input files and folders, output folders and referenced paths, all absolute and normal."""

    def __init__(
        self,
        lists: dict[str, Iterable[str]],
        grouping: Grouping,
        *,
        require: bool,
        warn: Callable[[str], None],
        report: Callable[[str, str, OSError | None], None],
        found: Callable[[int], None],
    ) -> None:
        """`lists`: input_files, input_dirs, output_dirs, referenced.

        `report` is told what a walk leaves out, and `found` how many files there are so far.
        """
        self.grouping, self.require, self.warn, self.report, self.found = grouping, require, warn, report, found
        self.files = sorted({path for path in lists["input_files"] if path})
        self.folders = _outermost({path for path in lists["input_dirs"] if path})
        self.outputs = sorted({path for path in lists["output_dirs"] if path})
        self.referenced = sorted({path for path in lists["referenced"] if path})
        self.file_count = 0
        self.total_bytes = 0
        self.shared_count = 0
        self._touched: dict[str, set[int]] = {}  # input folder to the groups that files in it are in
        self._folder_groups: dict[str, Group | None] = {}

    def look(self) -> None:
        """The first walk: find missing inputs, the groups and their roots, and how much there is.

        Raises: Trouble 66 naming inputs that are missing, where they are required, 65 folders given as files.
        """
        missing: list[str] = []
        folders_as_files: list[str] = []
        present: list[str] = []
        for path in self.files:
            try:
                status = os.stat(path)
            except FileNotFoundError:
                missing.append(path)
                continue
            except OSError as error:
                raise Trouble(f"cannot read '{path}': {error.strerror}", statuses.NOT_ALLOWED, path=path) from None
            if S_ISDIR(status.st_mode):
                folders_as_files.append(path)
            present.append(path)
        if folders_as_files:
            raise Trouble(
                f"folders are given as input files: {_some(folders_as_files)}: name them as directories",
                statuses.DATA,
                path=folders_as_files[0],
            )
        missing += [path for path in self.folders if not os.path.isdir(path)]
        if missing and self.require:
            raise Trouble(f"input paths are missing: {_some(sorted(missing))}", statuses.NO_INPUT, path=missing[0])
        for path in missing:
            self.warn(f"input path '{path}' is missing: the job goes without it")
        self.referenced = sorted({*self.referenced, *missing})
        self.files = present
        self.folders = [path for path in self.folders if path not in missing]
        for path in self.files:
            self._count(path, self._group_of_file(path))
        listed = set(self.files)
        for folder in list(self.folders):
            if not self._look_into(folder, listed):
                self.folders.remove(folder)
                self.referenced.append(folder)
        for path in [*self.outputs, *self.referenced]:
            group = self.grouping.group_of(path)
            if group is not None:
                group.add(path)

    def _look_into(self, folder: str, listed: set[str]) -> bool:
        """Count what is in an input folder; say whether there is any file."""
        found = False
        touched = self._touched.setdefault(folder, set())

        def note(why: str, path: str, error: OSError | None) -> None:
            self.report(why, os.path.join(folder, path), error)

        for here, names in walk(folder, note=note):
            found = True
            base = os.path.join(folder, here)  # ends with a separator
            for name in names:
                path = base + name
                if path in listed:
                    continue
                group = self._group_of_walked(base, path)
                self._count(path, group)
                if group is not None:
                    touched.add(id(group))
            self.found(self.file_count)
        return found

    def _count(self, path: str, group: Group | None) -> None:
        if group is None:
            self.shared_count += 1
            return
        group.add(path)
        self.file_count += 1
        try:
            self.total_bytes += os.stat(path).st_size
        except OSError:
            pass  # hashing it will tell

    def _group_of_file(self, path: str) -> Group | None:
        return self.grouping.group_of(path)

    def _group_of_walked(self, folder: str, path: str) -> Group | None:
        """The group of a file that a walk found; of those in one folder only links need a look of their own."""
        if self.grouping.has_locations and os.path.islink(path):
            return self.grouping.group_of(path)
        if folder not in self._folder_groups:
            self._folder_groups.clear()  # a walk comes back to no folder
            self._folder_groups[folder] = self.grouping.group_of(path)
        return self._folder_groups[folder]

    def roots(self) -> list[tuple[str, Group]]:
        """The groups with their root paths, in the order of CreateJob's manifests."""
        found = []
        for group in self.grouping.groups.values():
            if group.common is None:
                continue
            path = group.common
            if os.path.isfile(path):
                path = os.path.dirname(path)
            found.append((path, group))
        return sorted(found, key=lambda pair: (pair[0], pair[1].location or ""))

    def unknown(self, known: Iterable[str]) -> list[str]:
        """The inputs and output folders that lie in none of the `known` folders."""
        folders = list(known)
        return [
            path
            for path in [*self.files, *self.folders, *self.outputs]
            if not any(paths.is_within(path, folder) for folder in folders) and self.grouping.group_of(path) is not None
        ]

    def records(self) -> Iterator[Record]:
        """The second walk: root, file and output_dir records, root after root."""
        for root, group in self.roots():
            yield Root.of(root=root, root_path_format=paths.path_format(), file_system_location_name=group.location)
            for path in self.files:
                if self._group_of_file(path) is group:
                    yield _file(root, path)
            listed = set(self.files)
            for folder in self.folders:
                if id(group) not in self._touched.get(folder, ()):
                    continue
                for here, names in walk(folder):
                    base = os.path.join(folder, here)
                    for name in names:
                        path = base + name
                        if path not in listed and self._group_of_walked(base, path) is group:
                            yield _file(root, path)
            for path in self.outputs:
                if self.grouping.group_of(path) is group:
                    yield OutputDir.of(root=root, path=paths.relative(path, root))


def _file(root: str, path: str) -> Record:
    relative = paths.relative(path, root).replace(os.sep, "/")
    row = File({"type": "file", "path": relative, "root": root})
    try:
        status = os.stat(path)
    except OSError:
        return row  # gone since the first walk: hashing it will tell
    row["size"], row["mtime"] = status.st_size, status.st_mtime_ns // 1000
    return row


def _outermost(folders: set[str]) -> list[str]:
    """`folders` without those inside of others, which a walk of the outer one covers.

    A folder that is reached through a link is not covered: walks don't enter links.
    """
    kept: list[str] = []
    for folder in sorted(folders):
        outer = next((each for each in kept if paths.is_within(folder, each)), None)
        if outer is None or _passes_link(outer, folder):
            kept.append(folder)
    return kept


def _passes_link(outer: str, folder: str) -> bool:
    while folder != outer:
        if os.path.islink(folder):
            return True
        folder = os.path.dirname(folder)
    return False


def _some(found: list[str]) -> str:
    shown = ", ".join(f"'{path}'" for path in found[:MOST_NAMED])
    return shown + (f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else "")
