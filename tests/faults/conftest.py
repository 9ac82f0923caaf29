"""What the tests of transfers share: a bucket that misbehaves when told to, and commands pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_s3 import Bucket
from transfer_shell import Shell


@pytest.fixture(params=["checking server", "plain server"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """A bucket whose server checks checksums and says so, and one that does neither."""
    is_checking = request.param == "checking server"
    with Bucket(server="dl-s3d" if is_checking else "other", check=is_checking) as made:
        yield made


@pytest.fixture
def one_bucket() -> Iterator[Bucket]:
    with Bucket() as made:
        yield made


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")
