#!/usr/bin/env python3
"""kills.py - uploads, downloads and syncs killed again and again, on a farm of its own

Usage: kills.py [--kills=<n>] [--seed=<n>] [--kinds=<names>] [--signal=<name>]

--kills   how many processes are struck, over all kinds [default: 200]
--seed    of all that is left to chance [default: 1]
--kinds   comma list of upload, pipeline, download, sync, follow [default: all]
--signal  KILL, TERM or INT [default: KILL]

Each trial strikes one to three times at moments in the middle of the work (bytes, requests and answers that the servers
saw, lines of a stream), lets the work come to its end, and looks: every key holds what its name says, tree and bucket
are whole, no manifest came before its files, nothing is left behind (temporary files, uploads in parts, journals,
locks), and of each file at most one part went over the wire again for each kill. Prints a line for each trial and a
table; the status is 1 where anything was violated, and the folder of the farm is kept then.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "faults")]

from conftest import SharedFarm  # noqa: E402
from killing import KINDS, Outcome, Trials, Violation  # noqa: E402


def options() -> dict[str, str]:
    found = {"kills": "200", "seed": "1", "kinds": ",".join(KINDS), "signal": "KILL"}
    for word in sys.argv[1:]:
        name, equals, value = word.removeprefix("--").partition("=")
        if name not in found or not equals:
            raise SystemExit(__doc__)
        found[name] = value
    return found


def table(outcomes: list[Outcome], violations: list[tuple[str, str]]) -> None:
    print(
        f"{'kind':10} {'trials':>6} {'kills':>6} {'most sent again':>16} {'whole parts again':>18} {'violations':>11}"
    )
    for kind in KINDS:
        mine = [each for each in outcomes if each.kind == kind]
        wrong = sum(name == kind for name, _ in violations)
        if mine or wrong:
            kills = sum(len(each.moments) for each in mine)
            most = max((each.again_bytes for each in mine), default=0) / (1 << 20)
            parts = max((each.again_parts for each in mine), default=0)
            print(f"{kind:10} {len(mine) + wrong:6} {kills:6} {most:12.1f} MiB {parts:18} {wrong:11}")


def main() -> int:
    given = options()
    kills, kinds = int(given["kills"]), given["kinds"].split(",")
    number = signal.Signals[f"SIG{given['signal']}"]
    dice = random.Random(int(given["seed"]))
    folder = Path(tempfile.mkdtemp(prefix="dl-kills-"))
    farm = SharedFarm(folder)
    trials = Trials(farm, folder, dice)
    outcomes: list[Outcome] = []
    violations: list[tuple[str, str]] = []
    struck = 0
    try:
        while struck < kills:
            kind = kinds[(len(outcomes) + len(violations)) % len(kinds)]
            try:
                done = trials.trial(kind, min(dice.choice((1, 1, 2, 3)), kills - struck), number)
            except Violation as violation:
                violations.append((kind, str(violation)))
                struck += 1
                print(f"{kind}: VIOLATION: {violation}", flush=True)
                continue
            outcomes.append(done)
            struck += len(done.moments)
            moments = ", ".join(f"{each.what} {each.count}" for each in done.moments)
            print(f"{struck:4} {kind:10} {done.again_bytes:10} again {done.seconds:6.1f} s  {moments}", flush=True)
    finally:
        trials.close()
        farm.down()
    table(outcomes, violations)
    if violations:
        print(f"see {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
