"""Where a session keeps the files of each asset root, and which of them a task changed.

Source: spec attachments 11.1, 11.3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import shake_256
from typing import Any, NamedTuple

from libdeadline import statuses
from libdeadline.errors import Trouble

SAME_TIME_US = 1  # times closer than this are the same: some file systems and tools round


class AssetRoot(NamedTuple):
    """One of the job's asset roots: the service's `manifest` entry and the folder that stands for it here."""

    root_path: str
    root_path_format: str
    file_system_location_name: str | None
    local_root: str
    is_dynamic: bool  # the folder is the session's own, and goes with it
    input_manifest_path: str | None
    input_manifest_hash: str | None
    output_dirs: tuple[str, ...]  # relative to the root, with / between parts

    @property
    def rule(self) -> dict[str, str]:
        """The path mapping rule that leads from the root to the folder here."""
        return {
            "sourcePathFormat": self.root_path_format,
            "sourcePath": self.root_path,
            "destinationPath": self.local_root,
        }


def name_of(root_path: str) -> str:
    """The folder name that stands for a root within a session: the reference's, so that people recognise it."""
    return f"assetroot-{shake_256(root_path.encode()).hexdigest(10)}"


def place(
    manifests: Sequence[Mapping[str, Any]], rules: Sequence[Mapping[str, str]], session_dir: str
) -> list[AssetRoot]:
    """The asset roots of a job, in its order, each with its folder here.

    A root of a file system location lies where the rule of exactly that path says; without any rules, and without a
    location, it gets a folder of the session.
    Raises: Trouble (78) where there are rules but none for a location's root; (65) for an output folder outside.
    """
    placed = []
    for each in manifests:
        root_path, location = each["rootPath"], each.get("fileSystemLocationName")
        local_root = os.path.join(session_dir, name_of(root_path))
        is_dynamic = True
        if location and rules:
            exact = [rule["destinationPath"] for rule in rules if rule["sourcePath"] == root_path]
            if not exact:
                raise Trouble(
                    f"no path mapping rule for '{root_path}' of the file system location '{location}': "
                    "add the location to the storage profile of this fleet",
                    statuses.CONFIGURATION,
                )
            local_root, is_dynamic = exact[0], False
        placed.append(
            AssetRoot(
                root_path,
                each["rootPathFormat"].lower(),
                location,
                local_root,
                is_dynamic,
                each.get("inputManifestPath"),
                each.get("inputManifestHash"),
                tuple(_output_dirs(each)),
            )
        )
    return placed


def _output_dirs(manifest: Mapping[str, Any]) -> Iterator[str]:
    is_windows = manifest["rootPathFormat"].lower() == "windows"
    for given in manifest.get("outputRelativeDirectories") or ():
        path = given.replace("\\", "/") if is_windows else given
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if path.startswith("/") or ".." in parts or (is_windows and parts and parts[0].endswith(":")):
            raise Trouble(f"the output folder '{given}' lies outside of '{manifest['rootPath']}'", statuses.DATA)
        yield "/".join(parts)


class Seen:
    """The files of one asset root as the session last knew them: synced as input, or uploaded as output."""

    def __init__(self, root: AssetRoot) -> None:
        self.root = root
        self._files: dict[str, tuple[int, int]] = {}

    def add(self, path: str, size: int, mtime_us: int) -> None:
        self._files[path] = (size, mtime_us)

    def changed(self) -> Iterator[tuple[str, int, int]]:
        """(path, size, mtime) of each file below the output folders that is new or not as it was last seen.

        Units: bytes, microseconds; paths are relative to the root with / between parts, each once.
        A folder that isn't there holds nothing. A symlink that leads out of the root is left out.
        """
        real_root = os.path.realpath(self.root.local_root)
        told = set()
        for folder in self.root.output_dirs:
            for path, stat in _walk(self.root.local_root, folder, real_root):
                if path in told:
                    continue
                told.add(path)
                mtime_us = stat.st_mtime_ns // 1000
                size, before_us = self._files.get(path, (-1, 0))
                if size != stat.st_size or abs(mtime_us - before_us) > SAME_TIME_US:
                    yield path, stat.st_size, mtime_us


def _walk(local_root: str, folder: str, real_root: str) -> Iterator[tuple[str, os.stat_result]]:
    from stat import S_ISREG

    top = os.path.join(local_root, *folder.split("/")) if folder else local_root
    pending = [(top, folder, frozenset[tuple[int, int]]())]
    while pending:
        place_, relative, above = pending.pop()
        try:
            own = os.stat(place_)
            entries = sorted(os.scandir(place_), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        identity = (own.st_dev, own.st_ino)
        if identity in above:
            continue  # a symlink that leads back up
        for entry in entries:
            path = f"{relative}/{entry.name}" if relative else entry.name
            if entry.is_symlink() and not _is_within(os.path.realpath(entry.path), real_root):
                continue
            if entry.is_dir():
                pending.append((entry.path, path, above | {identity}))
                continue
            try:
                stat = os.stat(entry.path)
            except FileNotFoundError:
                continue  # a dangling link, or gone by now
            if S_ISREG(stat.st_mode):
                yield path, stat


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
