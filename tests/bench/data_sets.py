"""The sets of files that transfers and hashing are measured with; made once, kept between runs."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import NamedTuple


class Shape(NamedTuple):
    """How many files of which sizes in bytes, and how many distinct contents (0: all)."""

    files: int
    least: int
    most: int
    distinct: int = 0


SHAPES = {
    "S": Shape(20_000, 4 << 10, 64 << 10),
    "S4": Shape(5_000, 4 << 10, 64 << 10),
    "M": Shape(400, 4 << 20, 4 << 20),
    "L": Shape(3, 1 << 30, 1 << 30),
    "D": Shape(5_000, 4 << 10, 64 << 10, 500),
}
SETTLED_S = 6.0  # age before which a file is read once more, since it may have changed after it was hashed
ENTRIES = 1_000_000  # of the large manifest


def make(data: Path, name: str) -> Path:
    """The folder of a set."""
    shape, folder = SHAPES[name], data / name
    if folder.exists():
        return folder
    dice = random.Random(name)
    block = dice.randbytes(1 << 22)
    partial = data / f".{name}"
    shutil.rmtree(partial, ignore_errors=True)
    contents: list[tuple[int, int]] = []
    for number in range(shape.files):
        if shape.distinct and len(contents) >= shape.distinct:
            seed, size = dice.choice(contents)
        else:
            seed, size = number, dice.randint(shape.least, shape.most)
            contents.append((seed, size))
        path = partial / f"d{number // 500:03}" / f"file-{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(seed.to_bytes(8, "big"))
            left, start = size - 8, seed % (1 << 16)
            while left > 0:
                left -= file.write(block[start : start + min(left, len(block) - start)])
    partial.rename(folder)
    time.sleep(SETTLED_S)
    return folder


def warm(folder: Path) -> None:
    """Read every file once, so that the page cache has it."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass


def drop(folder: Path) -> None:
    """Have the system forget what it keeps of the files in memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_manifest(data: Path) -> Path:
    """A manifest of a million entries."""
    from libdeadline import manifest

    path = data / "million.manifest"
    if not path.exists():
        builder = manifest.Builder()
        for n in range(ENTRIES):
            builder.add(f"project/shot_{n // 1000:04}/frame_{n:06}.exr", f"{n * 7919:032x}", n % 70000, 10**15 + n)
        with open(path, "wb") as file:
            builder.write(file.write)
    return path
