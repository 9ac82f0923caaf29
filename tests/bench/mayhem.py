"""Uploads and downloads through a store that fails in every way, one seed after another: what is to be byte-exact?

Usage: python3 tests/bench/mayhem.py [first seed] [number of seeds]
Each seed goes to a server that checks what it stores and to one that does not. Status 1 if one went wrong.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))


def main() -> int:
    from fake_s3 import Bucket
    from test_transfers import test_there_and_back_through_mayhem
    from transfer_shell import Shell

    given = [int(word) for word in sys.argv[1:3]]
    first, number = [*given, 1000, 20][:2] if len(given) != 1 else (given[0], 20)
    wrong = 0
    for seed in range(first, first + number):
        for is_checking in (True, False):
            began = monotonic()
            with (
                tempfile.TemporaryDirectory() as folder,
                Bucket(server="dl-s3d" if is_checking else "other", check=is_checking) as bucket,
            ):
                outcome = "good"
                try:
                    test_there_and_back_through_mayhem(bucket, Shell(Path(folder) / "home"), Path(folder), seed)
                except AssertionError as error:
                    outcome, wrong = f"WRONG {error}", wrong + 1
                requests = len(bucket.requests)
            kind, took_s = "checking" if is_checking else "plain", monotonic() - began
            print(f"{seed} {kind}: {requests} requests, {took_s:.1f} s, {outcome}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
