"""Path mapping: from the paths of one host to those of another, by storage profiles; pure functions for every system.

Source: attachments specification, rules from two storage profiles, path mapping rules file; Open Job
Description's path mapping.
"""

from __future__ import annotations

import ntpath
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from . import statuses
from .errors import Trouble
from .paths import absolute, flavour_of, relative_problem


class Rule(NamedTuple):
    """What lies under `source_path` on the one host lies under `destination_path` on the other."""

    source_path_format: str  # posix or windows
    source_path: str
    destination_path: str


def rules_between(source: Mapping[str, Any], local: Mapping[str, Any]) -> list[Rule]:
    """The rules from the host of one storage profile to the host of another.

    Shape:  profiles as GetStorageProfile returns them; one rule for each location name that both have.
            The same profile needs none.
    """
    if source.get("storageProfileId") == local.get("storageProfileId"):
        return []
    here = {each["name"]: each["path"] for each in local.get("fileSystemLocations", ())}
    form = "windows" if str(source.get("osFamily", "")).upper() == "WINDOWS" else "posix"
    return [
        Rule(form, each["path"], here[each["name"]])
        for each in source.get("fileSystemLocations", ())
        if each["name"] in here
    ]


def parse(document: Any, name: str) -> list[Rule]:
    """The rules of a path mapping file: a list, or an object with the key path_mapping_rules.

    Raises: Trouble (65) where it is of another shape; a rule has exactly three keys, all texts.
    """
    rows = document.get("path_mapping_rules") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise Trouble(f"'{name}' holds no list of path mapping rules", statuses.DATA, path=name)
    rules = []
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(Rule._fields):
            raise Trouble(f"'{name}': rule {index} needs exactly {', '.join(Rule._fields)}", statuses.DATA, path=name)
        if not all(isinstance(value, str) and value for value in row.values()):
            raise Trouble(
                f"'{name}': rule {index} has an empty value, or one that is no text", statuses.DATA, path=name
            )
        if row["source_path_format"].lower() not in ("posix", "windows"):
            raise Trouble(
                f"'{name}': rule {index} has source_path_format '{row['source_path_format']}', not posix or windows",
                statuses.DATA,
                path=name,
            )
        rules.append(Rule(row["source_path_format"].lower(), row["source_path"], row["destination_path"]))
    return rules


def read(path: str) -> list[Rule]:
    """The rules of a path mapping file.

    Raises: Trouble (65) where it holds none; OSError.
    """
    from json import loads

    with open(path, "rb") as file:
        data = file.read()
    try:
        document = loads(data)
    except ValueError as error:
        raise Trouble(f"'{path}' is no JSON: {error}", statuses.DATA, path=path) from None
    return parse(document, path)


class PathMapping:
    """Applies rules: the longest source that holds a path, by whole parts, is replaced by its destination.

    Windows sources compare without regard to case, and take / for \\. The rest of the path is put behind the
    destination with the separators of `destination`, posixpath or ntpath, by default those of this host.
    Paths are taken apart by the rule's flavour, so `..` in one never leads out of a source unseen.
    Raises: Trouble (65) where rules have different formats: then which one reads a path would be a guess.
    """

    def __init__(self, rules: Iterable[Rule], destination: Any = os.path) -> None:
        self.rules = list(rules)
        formats = {rule.source_path_format for rule in self.rules}
        if len(formats) > 1:
            raise Trouble("path mapping rules of posix and of windows sources are mixed", statuses.DATA)
        self._source = flavour_of(formats.pop()) if formats else destination
        self._destination = destination
        parts = [(self._parts(rule.source_path), rule.destination_path) for rule in self.rules]
        self._longest_first = sorted(parts, key=lambda pair: len(pair[0]), reverse=True)

    def apply(self, path: str) -> str | None:
        """Where `path` (absolute, of the source host) is on the destination host.

        None if no rule holds it, or where a part of it can't be a name there.
        """
        given = self._split(path)
        compared = [self._source.normcase(part) for part in given]
        for source, destination in self._longest_first:
            if compared[: len(source)] == source:
                rest = given[len(source) :]
                if self._destination is ntpath and rest and relative_problem("/".join(rest), windows=True):
                    return None  # such as C:, which would lead to another drive
                joined: str = self._destination.join(destination, *rest) if rest else destination
                return joined
        return None

    def below(self, path: str) -> list[tuple[list[str], str]]:
        """The rules for what lies below `path`: (parts of the way down as they compare, destination), longest first."""
        folder = self._parts(path)
        length = len(folder)
        return [
            (source[length:], destination)
            for source, destination in self._longest_first
            if len(source) > length and source[:length] == folder
        ]

    def _parts(self, path: str) -> list[str]:
        return [self._source.normcase(part) for part in self._split(path)]

    def _split(self, path: str) -> list[str]:
        normal = self._source.normpath(path)
        if self._source is not ntpath and normal.startswith("//"):
            normal = normal[1:]
        drive, rest = self._source.splitdrive(normal)
        start = drive + (self._source.sep if rest.startswith(self._source.sep) or drive.startswith("\\\\") else "")
        return [start, *(part for part in rest.split(self._source.sep) if part)]


class Places:
    """Where the files below one root go by rules: each as PathMapping maps the root and its path put together.

    `folder` is where all go that no rule for a part of the root holds, None where they have no place.
    """

    def __init__(self, root: str, path_format: str, rules: Iterable[Rule], destination: Any = os.path) -> None:
        """Rules of the other format are left aside. Shape: `destination` as for PathMapping."""
        mapping = PathMapping((rule for rule in rules if rule.source_path_format == path_format), destination)
        here = mapping.apply(root)
        self.folder = None if here is None else absolute(here, flavour=destination)
        self._inner = [(parts, absolute(folder, flavour=destination)) for parts, folder in mapping.below(root)]
        self._normcase = flavour_of(path_format).normcase

    @property
    def is_empty(self) -> bool:
        """Whether no file has a place."""
        return self.folder is None and not self._inner

    def find(self, path: str) -> tuple[str, str] | None:
        """(folder, path below it) of a manifest's `path`, or None where it has no place."""
        for parts, folder in self._inner:
            head = path.split("/", len(parts))
            if len(head) > len(parts) and [self._normcase(part) for part in head[:-1]] == parts:
                return folder, head[-1]
        return None if self.folder is None else (self.folder, path)


def check_local(profile: Mapping[str, Any]) -> None:
    """See that a storage profile, as GetStorageProfileForQueue returns it, can be that of this host.

    Raises: Trouble (78), where it is of another system: its paths would be made up anew below the current folder.
    """
    is_windows = str(profile.get("osFamily", "")).upper() == "WINDOWS"
    if is_windows != (os.path is ntpath):
        name = profile.get("displayName") or profile.get("storageProfileId")
        raise Trouble(
            f"the storage profile '{name}' is one of {profile.get('osFamily')} and can't be this host's: give another "
            f"with --storage-profile-id, or set settings.storage_profile_id",
            statuses.CONFIGURATION,
        )
