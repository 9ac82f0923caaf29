"""Figures of whole processes, start-up included, taken from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

# A process of its own waits for the command, so that what the bench itself used and waited for is not counted.
_STARTER = """
import json, resource, subprocess, sys, time
words, stdin, stdout = json.loads(sys.argv[1])
with open(stdin, "rb") as source, open(stdout, "wb") as target:
    began = time.perf_counter()
    done = subprocess.run(words, stdin=source, stdout=target, stderr=subprocess.PIPE)
    wall = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.stderr.buffer.write(done.stderr[-2000:])
"""


class Figures(NamedTuple):
    """Wall and CPU (user and system) seconds of a command with its children; peak MiB of the largest process."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def measured(
    words: list[str], environment: dict[str, str], *, stdin: Path | None = None, stdout: Path | None = None, cwd: Path
) -> Figures:
    """Run a command to its end. Raises: SystemExit where it fails."""
    files = [str(stdin or "/dev/null"), str(stdout or "/dev/null")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _STARTER, json.dumps([words, *files])],
        env=environment,
        cwd=cwd,
        capture_output=True,
        check=True,
    )
    status, *figures = json.loads(done.stdout)
    if status:
        raise SystemExit(f"{words}: status {status}: {done.stderr.decode('utf-8', 'replace')}")
    return Figures(*figures)


def middle(rows: list[Figures]) -> Figures:
    """The median of each figure."""
    return Figures(*(median(column) for column in zip(*rows, strict=True)))


def ratios(theirs: list[Figures], ours: list[Figures]) -> tuple[float, float]:
    """How many times theirs ours is, wall and CPU: medians of the ratios of each round."""
    pairs = list(zip(theirs, ours, strict=False))
    wall = median(one.wall_s / other.wall_s for one, other in pairs)
    return wall, median(one.cpu_s / max(other.cpu_s, 1e-3) for one, other in pairs)
