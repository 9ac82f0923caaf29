"""A worker, or a lone dl-session, for each test or each file of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lone_session import LoneSession
from own_worker import OwnWorker


@pytest.fixture(scope="module")
def worker(farm: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnWorker]:
    """A worker at work, for tests that leave it as they find it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = OwnWorker(farm, tmp_path_factory.mktemp("worker"), monkeypatch)
        made.enrol()
        made.start()
        yield made
        made.close()


@pytest.fixture
def own_worker(farm: Any, tmp_path: Path) -> Iterator[OwnWorker]:
    """A worker at work, for tests that end or change it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = OwnWorker(farm, tmp_path, monkeypatch)
        made.enrol()
        made.start("dl-worker-schedule")
        yield made
        made.close()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[LoneSession]:
    made = LoneSession(tmp_path)
    made.start()
    yield made
    made.close()
