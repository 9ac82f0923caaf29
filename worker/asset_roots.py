"""Where a session keeps the files of each asset root, and which of them a task changed.

Source: spec attachments 11.1, 11.3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import shake_256
from itertools import pairwise
from typing import Any, NamedTuple

from libdeadline import statuses
from libdeadline.errors import Trouble
from libdeadline.store import Hashes

SAME_TIME_US = 1  # times closer than this are the same: some file systems and tools round
KEY_BYTES, STATE_BYTES = 16, 6  # of a file that is known: the hash of its path, and that of its size and time
NOTE_BYTES = KEY_BYTES + STATE_BYTES


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
    """The files of one asset root as the session last knew them: synced as input, or uploaded as output.

    Kept by hashes of the path and of the rest, so that a million files take 25 MB.
    """

    def __init__(self, root: AssetRoot) -> None:
        self.root = root
        self._files = Hashes()
        self._noted = bytearray()

    def add(self, path: str, size: int, mtime_us: int) -> None:
        """A file as it is known from now on."""
        self._files.set(_key(path), _state(size, mtime_us))

    def note(self, path: str, size: int, mtime_us: int) -> None:
        """Keep a file in mind, for `add_noted`."""
        self._noted += bytes.fromhex(_key(path)) + _state(size, mtime_us).to_bytes(STATE_BYTES, "big")

    def forget_noted(self) -> None:
        """Drop what was noted."""
        self._noted.clear()

    def add_noted(self) -> None:
        """Add what was noted."""
        for at in range(0, len(self._noted), NOTE_BYTES):
            key, state = self._noted[at : at + KEY_BYTES], self._noted[at + KEY_BYTES : at + NOTE_BYTES]
            self._files.set(key.hex(), int.from_bytes(state, "big"))
        self.forget_noted()

    def changed(self) -> Iterator[tuple[str, int, int]]:
        """(path, size, mtime) of each file below the output folders that is new or not as it was last seen.

        Units: bytes, microseconds; paths are relative to the root with / between parts, each once.
        A folder that isn't there holds nothing. A symlink that leads out of the root is left out.
        """
        real_root = os.path.realpath(self.root.local_root)
        told: set[str] | None = set() if _overlap(self.root.output_dirs) else None
        for folder in self.root.output_dirs:
            for path, stat in _walk(self.root.local_root, folder, real_root):
                if told is not None:
                    if path in told:
                        continue
                    told.add(path)
                size, mtime_us = stat.st_size, stat.st_mtime_ns // 1000
                known = self._files.get(_key(path))
                times = range(mtime_us - SAME_TIME_US, mtime_us + SAME_TIME_US + 1)
                if known is None or known not in [_state(size, each) for each in times]:
                    yield path, size, mtime_us


def _key(path: str) -> str:
    from xxhash import xxh3_128_hexdigest

    return xxh3_128_hexdigest(path.encode("utf-8", "surrogatepass"))


def _state(size: int, mtime_us: int) -> int:
    """A number of 48 bits that tells sizes and times apart."""
    from xxhash import xxh3_64_intdigest

    return int(xxh3_64_intdigest(b"%d %d" % (size, mtime_us))) >> 16


def _overlap(folders: Sequence[str]) -> bool:
    """Whether one of these relative folders lies in another, or stands twice."""
    ordered = sorted(f"{folder}/" if folder else "" for folder in folders)
    return any(other.startswith(one) for one, other in pairwise(ordered))


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
