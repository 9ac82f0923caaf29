"""The hash cache under vandals: it may cost time, and never gives a wrong hash."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dl_tools.dl_hash.cache import Cache, Known
from vandals import RightHashes
from xxhash import xxh3_128_hexdigest

COMMAND = str(Path(sys.executable).parent / "dl-hash")


def rows_of(count: int) -> list[Known]:
    return [(f"/d/{n // 100}/{n:05}", n, n, n, n, xxh3_128_hexdigest(str(n).encode())) for n in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_a_byte_that_changed_anywhere_gives_no_wrong_answer(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    rows = rows_of(1500)
    wanted = {row[0]: row for row in rows}
    path = tmp_path / "c"
    cache = Cache(str(path))
    cache.keep(rows)
    cache.close()
    whole = path.read_bytes()
    caught = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(dice.choice([1, 1, 8, 200])):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged if dice.random() < 0.8 else damaged[: dice.randrange(len(damaged))])
        cache = Cache(str(path))
        found = cache.find(list(wanted))
        caught += cache.broken is not None
        assert found.items() <= wanted.items()
        cache.close()
        if cache.broken is None:
            cache = Cache(str(path))
            cache.keep(rows[:50])
            cache.close()
        # Whatever it was, one that can't be used is replaced by the second run at the latest.
        for _ in range(2):
            cache = Cache(str(path))
            cache.keep(rows)
            cache.close()
        cache = Cache(str(path))
        assert cache.find(list(wanted)) == wanted, cache.broken
        cache.close()
    assert caught > 10  # so the damage was indeed where it matters


def test_many_processes_vandals_and_kills(tmp_path: Path) -> None:
    """32 processes on one cache, some of them killed, while the cache is deleted, cut, scribbled on and locked away."""
    trial = RightHashes(tmp_path, seed=1)
    trial.run(processes=32, kills=8)
    assert trial.wrong == []
    assert trial.ended == 24 and trial.killed == 8
    assert len(trial.deeds) >= 5
    rows = trial.hash()
    assert rows[-1]["ok"] is True and "cached" in rows[-1]
    assert trial.hash()[-1]["cached"] == trial.cacheable  # it has recovered
    assert sorted(os.listdir(trial.cache.parent)) == [trial.cache.name]


def test_a_full_disk_costs_time_only(tmp_path: Path) -> None:
    trial = RightHashes(tmp_path, seed=2)
    trial.cache.parent.mkdir(parents=True)
    for most in (0, 1, 4096, 10_000, 20_000):
        done = subprocess.run(
            [COMMAND, str(trial.root)], env=trial.environment, capture_output=True, text=True, timeout=60,
            preexec_fn=lambda most=most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        )  # fmt: skip
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert trial.hashes(done.stdout) == trial.wanted
    assert trial.hash()[-1]["ok"] is True
    assert trial.hash()[-1]["cached"] == trial.cacheable


def test_without_the_cache_it_is_not_even_looked_at(tmp_path: Path) -> None:
    trial = RightHashes(tmp_path, seed=3)
    rows = trial.hash("--no-cache")
    assert rows[-1]["cached"] == 0
    assert not list(trial.home.iterdir())
    trial.hash()
    before = trial.cache.stat()
    time.sleep(0.01)
    trial.hash("--no-cache")
    after = trial.cache.stat()
    assert before == after  # access time and all
    assert sorted(os.listdir(trial.cache.parent)) == [trial.cache.name]


def test_rehash_reads_every_byte(tmp_path: Path) -> None:
    trial = RightHashes(tmp_path, seed=4)
    trial.hash()
    assert trial.hash()[-1]["cached"] == trial.cacheable
    done = trial.hash("--rehash")
    assert done[-1]["cached"] == 0
    if sys.platform == "linux":
        read = bytes_read(trial, "--rehash")
        assert read >= sum(path.stat().st_size for path in trial.files)
        assert bytes_read(trial) < read / 2


def bytes_read(trial: Any, *words: str) -> int:
    """Bytes that a run asks the kernel for, its processes included."""
    script = "import subprocess, sys; subprocess.run(sys.argv[1:], stdout=-3); print(open('/proc/self/io').read())"
    done = subprocess.run(
        [sys.executable, "-c", script, COMMAND, *words, "--jobs=1", str(trial.root)],
        env=trial.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return int(done.stdout.split("rchar:")[1].split()[0])
