"""How fast files are hashed and manifests coded, against the reference and against xxhsum, in interleaved rounds.

    python3 tests/bench/hashing.py [--reference /path/to/deadline] [--data DIR] [--rounds N] [--sets S,M,L,manifest]

Data sets, made on first use: S 20,000 files of 4 to 64 KiB, M 400 of 4 MiB, L 3 of 1 GiB, and a manifest of 1,000,000
entries. Files are read once before each set, so that the page cache is warm. Every figure is of a whole process:
median of wall and CPU seconds and of peak memory; ratios are medians of the ratios of each round.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

BIN = Path(__file__).resolve().parents[2] / "bin"
MAKE = {"S": (20_000, 4 << 10, 64 << 10), "M": (400, 4 << 20, 4 << 20), "L": (3, 1 << 30, 1 << 30)}
ENTRIES = 1_000_000
OURS_CODEC = """
import sys
from libdeadline import manifest
builder = manifest.Builder()
with open(sys.argv[1], "rb") as file:
    for batch in manifest.read_batches(file):
        builder.extend_packed(batch)
with open(sys.argv[2], "wb") as file:
    builder.write(file.write)
"""
OURS_SCAN = """
import sys
from libdeadline import manifest
with open(sys.argv[1], "rb") as file:
    print(sum(len(batch) for batch in manifest.read_batches(file)))
"""
THEIR_CODEC = """
import sys
from deadline.job_attachments.asset_manifests.decode import decode_manifest
with open(sys.argv[1]) as file:
    found = decode_manifest(file.read())
with open(sys.argv[2], "w") as file:
    file.write(found.encode())
"""


class Figures(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_mib: float


def measured(words: list[str], environment: dict[str, str]) -> Figures:
    """Run a command to its end. The peak is that of its largest process."""
    starter = "import resource, subprocess, sys, time; t = time.perf_counter(); "
    starter += "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
    starter += "w = time.perf_counter() - t; u = resource.getrusage(resource.RUSAGE_CHILDREN); "
    starter += "print(w, u.ru_utime + u.ru_stime, u.ru_maxrss / 1024)"
    done = subprocess.run([sys.executable, "-c", starter, *words], env=environment, stdout=subprocess.PIPE, check=True)
    return Figures(*map(float, done.stdout.split()))


def make(data: Path, name: str) -> Path:
    """The folder of a data set."""
    count, low, high = MAKE[name]
    folder = data / name
    if folder.exists():
        return folder
    generator = random.Random(name)
    block = generator.randbytes(1 << 22)
    partial = data / f".{name}"
    shutil.rmtree(partial, ignore_errors=True)
    for n in range(count):
        size = generator.randint(low, high)
        path = partial / f"d{n // 500:03}" / f"file-{n:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(n.to_bytes(8, "big"))
            left = size - 8
            while left > 0:
                start = generator.randrange(1 << 16)
                left -= file.write(block[start : start + min(left, len(block) - start)])
    partial.rename(folder)
    return folder


def make_manifest(data: Path) -> Path:
    from libdeadline import manifest

    path = data / "million.manifest"
    if not path.exists():
        builder = manifest.Builder()
        for n in range(ENTRIES):
            builder.add(f"project/shot_{n // 1000:04}/frame_{n:06}.exr", f"{n * 7919:032x}", n % 70000, 10**15 + n)
        with open(path, "wb") as file:
            builder.write(file.write)
    return path


def warm(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass


def compare(title: str, commands: dict[str, tuple[list[str], bool]], rounds: int, home: Path) -> None:
    """Run the commands in turn and print their figures; the first is what the others are compared with.

    `commands`: label to (words, whether the caches are to be empty).
    """
    environment = {**os.environ, "HOME": str(home), "DEADLINE_CLOUD_TELEMETRY_OPT_OUT": "true"}
    found: dict[str, list[Figures]] = {label: [] for label in commands}
    for turn in range(rounds):
        for label in list(commands) if turn % 2 == 0 else list(commands)[::-1]:
            words, empty = commands[label]
            if empty:
                shutil.rmtree(home, ignore_errors=True)
                home.mkdir()
            else:
                measured(words, environment)  # fills the caches
            found[label].append(measured(words, environment))
    base = next(iter(commands))
    print(f"\n{title}\n{'':44}{'wall s':>9}{'CPU s':>9}{'MiB':>8}{'wall x':>9}{'CPU x':>9}")
    for label, figures in found.items():
        middle = [statistics.median(column) for column in zip(*figures, strict=True)]
        pairs = list(zip(found[base], figures, strict=True))
        wall = statistics.median(first.wall_s / own.wall_s for first, own in pairs)
        cpu = statistics.median(first.cpu_s / max(own.cpu_s, 0.001) for first, own in pairs)
        print(f"{label:44}{middle[0]:9.3f}{middle[1]:9.3f}{middle[2]:8.0f}{wall:9.1f}{cpu:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", help="the reference's deadline command")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "deadline-bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", default="S,M,L,manifest")
    args = parser.parse_args()
    args.data.mkdir(parents=True, exist_ok=True)
    python, ours = sys.executable, str(BIN / "dl-hash")
    with tempfile.TemporaryDirectory() as temporary:
        home, out = Path(temporary) / "home", Path(temporary) / "out"
        out.mkdir()
        for name in args.sets.split(","):
            if name == "manifest":
                continue
            folder = make(args.data, name)
            commands: dict[str, tuple[list[str], bool]] = {}
            if args.reference:
                snapshot = [args.reference, "manifest", "snapshot", "--root", str(folder), "--destination", str(out)]
                commands["reference manifest snapshot, no cache"] = (snapshot, True)
                commands["reference, warm cache"] = (snapshot, False)
            if shutil.which("xxhsum"):
                find = f"find '{folder}' -type f -print0 | xargs -0 xxhsum -H2"
                commands["find | xargs xxhsum -H2"] = (["sh", "-c", find], True)
            commands["dl-hash, no cache"] = ([python, ours, str(folder)], True)
            commands["dl-hash, warm cache"] = ([python, ours, str(folder)], False)
            whole = f"'{python}' '{ours}' '{folder}' | '{python}' '{BIN}/dl-manifest' --to '{out}'"
            commands["dl-hash | dl-manifest, no cache"] = (["sh", "-c", whole], True)
            warm(folder)
            compare(f"{name}: {MAKE[name][0]} files", commands, args.rounds, home)
        if "manifest" in args.sets.split(","):
            path, copy = str(make_manifest(args.data)), str(out / "copy")
            commands = {}
            if args.reference:
                interpreter = str(Path(args.reference).resolve().parent / "python3")
                commands["reference decode and encode"] = ([interpreter, "-c", THEIR_CODEC, path, copy], True)
            commands["ours, decode and encode"] = ([python, "-c", OURS_CODEC, path, copy], True)
            commands["ours, streamed decode"] = ([python, "-c", OURS_SCAN, path], True)
            compare(f"manifest of {ENTRIES} entries", commands, args.rounds, home)
            assert Path(path).read_bytes() == Path(copy).read_bytes(), "the copy differs"
    print(f"\n{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
