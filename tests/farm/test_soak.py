"""Whatever people, workers and kills do, nothing is lost, run twice or left over: a short soak; see soak.py.

The long form is tests/bench/soak.py.
"""

from __future__ import annotations

import pytest
from soak import soak


@pytest.mark.parametrize("seed", [9, 10])
def test_a_soak(tmp_path, seed):
    done = soak(tmp_path / "farm", seed, 70, most_jobs=10, kill_share=0.05)
    assert done["kills"] and done["restarts"] and done["taskRun"] > 20, done
