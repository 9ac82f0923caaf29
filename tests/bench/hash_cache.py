#!/usr/bin/env python3
"""hash_cache.py - many dl-hash on one cache that is vandalised, some of them killed, again and again

Usage: hash_cache.py [--rounds=<n>] [--seed=<n>] [--processes=<n>]

--rounds     how often [default: 20]
--seed       of all that is left to chance [default: 1]
--processes  at a time; a quarter of them is killed [default: 32]

Each round deletes, cuts, scribbles on, swaps and locks the cache away while the processes use it. Prints a line for
each; the status is 1 where a hash was wrong, a run failed that was not killed, or the cache did not recover.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from vandals import RightHashes


def main() -> int:
    given = {"rounds": "20", "seed": "1", "processes": "32"}
    for word in sys.argv[1:]:
        name, equals, value = word.removeprefix("--").partition("=")
        if name not in given or not equals:
            raise SystemExit(__doc__)
        given[name] = value
    wrong = 0
    processes = int(given["processes"])
    for seed in range(int(given["seed"]), int(given["seed"]) + int(given["rounds"])):
        with tempfile.TemporaryDirectory(prefix="dl-cache-") as folder:
            trial = RightHashes(Path(folder), seed)
            began = time.monotonic()
            trial.run(processes, processes // 4)
            seconds = time.monotonic() - began
            trial.hash()
            recovered = trial.hash()[-1]["cached"] == trial.cacheable
            wrong += len(trial.wrong) + (not recovered)
            deeds = ", ".join(f"{name.lstrip('_')} {count}" for name, count in sorted(Counter(trial.deeds).items()))
            print(f"seed {seed}: {trial.ended} ended, {trial.killed} killed, {seconds:.1f} s; {deeds}", flush=True)
            for each in (*trial.wrong, *([] if recovered else ["the cache did not recover"])):
                print(f"seed {seed}: VIOLATION: {each}", flush=True)
    print(f"{wrong} violations")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
