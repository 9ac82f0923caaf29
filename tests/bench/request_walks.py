"""A long campaign of requests made from the service model, right and wrong; the suite runs a short one (tests/fuzz).

    python tests/bench/request_walks.py [SEED [STEPS [COUNT]]]

Walks through all operations COUNT times with the seeds SEED, SEED + 1, ... in STEPS steps each, half of the walks with
every status change of more than two tasks done in batches. Prints one JSON line for each: how many requests were
answered how. The first fault ends it with a traceback. The other campaigns are longer with DL_FUZZ_SEEDS:

    DL_FUZZ_SEEDS=1000 pytest tests/fuzz/test_requests.py
    DL_FUZZ_SEEDS=50 pytest tests/fuzz/test_service_model.py tests/fuzz/test_logs_requests.py
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))
sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

from dl_tools.dl_farmd import capabilities, changes, run_status
from simulated_worker import audit
from test_sequences import Walk

MANY, BATCH = run_status.MANY, changes.BATCH


class BatchedWalk(Walk):
    """A walk in which a few tasks are many, and whose changes are often interrupted by the next requests."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        settle = self.service.settle

        def carry_out() -> list[str]:
            settle()
            while self.rng.random() < 0.8 and (row := self.next_change()):
                self.carry_on(row)
            return settle()

        self.service.settle = carry_out  # type: ignore[method-assign]

    def next_change(self) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self.service.farm.db.execute("SELECT * FROM changes ORDER BY change").fetchone()
        return found

    def carry_on(self, row: sqlite3.Row) -> None:
        assert self.service.farm.transaction(lambda db: changes.go_on(self.service.farm, db, row)) is None
        self.counts["batches"] += 1

    def run(self, steps: int) -> None:
        super().run(steps)
        while row := self.next_change():
            self.carry_on(row)


def walk(seed: int, steps: int) -> dict[str, Any]:
    kind = BatchedWalk if seed % 2 else Walk
    run_status.MANY = capabilities.MANY = 2 if seed % 2 else MANY
    changes.BATCH = 2 if seed % 2 else BATCH
    with tempfile.TemporaryDirectory(prefix="dl-walk-") as folder:
        walked = kind(Path(folder) / "farm", seed)
        walked.run(steps)
        assert not walked.service.settle(), walked.service.errors
        walked.service.farm.close()
        audit(Path(folder) / "farm")
    kinds = {name: count for name, count in sorted(walked.counts.items()) if "Exception" in name or name.islower()}
    return {"seed": seed, **kinds}


def main(seed: int = 1, steps: int = 5000, count: int = 4) -> None:
    for each in range(seed, seed + count):
        print(json.dumps(walk(each, steps)), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
