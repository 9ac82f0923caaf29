"""A long randomised soak of dl-farmd, with kills; the suite runs a short one (tests/farm/test_soak.py).

    python tests/bench/soak.py [SEED [TURNS [COUNT]]]

Runs COUNT soaks with the seeds SEED, SEED + 1, ... of TURNS turns each, and prints one JSON line for each. The first
breach ends it with a traceback, and leaves the farm's folder and the timeline of what happened.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))

from soak import soak


def main(seed: int = 1, turns: int = 1000, count: int = 1) -> None:
    for each in range(seed, seed + count):
        folder = Path(tempfile.mkdtemp(prefix="dl-soak-"))
        try:
            print(json.dumps({"seed": each, **soak(folder / "farm", each, turns)}), flush=True)
        except BaseException:
            print(f"seed {each}: see {folder}", file=sys.stderr)
            raise
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
