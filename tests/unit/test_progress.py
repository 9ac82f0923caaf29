"""The meter of progress: what it shows, and at which rate it says that things go."""

import json
import os
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from libdeadline.progress import Meter


class Shown:
    """A meter under a clock of the test's own, and the records that it has written."""

    def __init__(self, mode: str) -> None:
        self.now = 100.0
        self.reader, writer = os.pipe()
        with patch("libdeadline.progress.monotonic", lambda: self.now):
            self.meter = Meter("dl-x", mode, writer)

    def at(self, seconds: float, **fields: Any) -> str:
        self.now = 100.0 + seconds
        with patch("libdeadline.progress.monotonic", lambda: self.now):
            self.meter.update(**fields)
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, 1 << 16).decode()
        except BlockingIOError:
            return ""

    def record(self, seconds: float, **fields: Any) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self.at(seconds, **fields))
        return row

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.meter.descriptor)


@pytest.fixture
def shown() -> Iterator[Shown]:
    one = Shown("json")
    yield one
    one.close()


def test_the_rate_is_of_what_moved_and_the_time_left_of_all_that_goes(shown: Shown) -> None:
    for second in range(1, 60):
        row = shown.record(second, done_bytes=1000 * second, skipped_bytes=900 * second, total_bytes=100_000)
    assert row["bytes_per_s"] == pytest.approx(100, rel=0.01)
    assert row["eta_s"] == pytest.approx(41, rel=0.01)


def test_files_without_bytes_have_a_time_left_too(shown: Shown) -> None:
    for second in range(1, 60):
        row = shown.record(second, done_bytes=0, total_bytes=0, done_count=1000 * second, total_count=100_000)
    assert row["eta_s"] == pytest.approx(41, rel=0.01)


def test_the_time_left_is_told_once_it_is_known_and_rightly_from_then_on(shown: Shown) -> None:
    assert "eta_s" not in shown.record(20, message="checking", done_bytes=0, total_bytes=0)
    assert "eta_s" not in shown.record(20.5, message=None, done_bytes=500, total_bytes=100_000)
    for tenth in range(12, 80, 2):
        row = shown.record(20 + tenth / 10, done_bytes=100 * tenth)
        assert row["eta_s"] == pytest.approx(100 - tenth / 10, rel=0.01)
        assert row["bytes_per_s"] == pytest.approx(1000, rel=0.01)


def test_it_is_told_now_and_then_and_never_beyond_the_total(shown: Shown) -> None:
    assert shown.record(1, done_count=7, total_count=5)["done_count"] == 5
    assert shown.at(1.05, done_count=8) == ""
    assert shown.record(1.2)["done_count"] == 5


def test_at_rest_nothing_is_told(shown: Shown) -> None:
    shown.at(1, message="finding files", done_count=3)
    shown.meter.rest()
    assert json.loads(os.read(shown.reader, 1 << 16)) == {"type": "progress", "tool": "dl-x"}
    shown.meter.rest()
    shown.meter.finish()
    with pytest.raises(BlockingIOError):
        os.read(shown.reader, 1)


def test_a_bar_leaves_out_what_is_not_known() -> None:
    bar = Shown("bar")
    assert (
        bar.at(1, message="checking", done_bytes=0, total_bytes=0, done_count=0, total_count=0) == "\rdl-x:  checking"
    )
    text = bar.at(2, message=None, done_bytes=0, done_count=999, total_count=1000)
    assert text.startswith(f"\rdl-x:  [{'#' * 19} ]  99 %  999/1000") and "B/s" not in text
    bar.close()


def test_a_bar_tells_what_was_skipped() -> None:
    bar = Shown("bar")
    text = bar.at(1, done_bytes=3_000_000, skipped_bytes=2_000_000, total_bytes=6_000_000, done_count=3, total_count=6)
    assert text.startswith("\rdl-x:  [##########          ]  50 %  3/6  3.0 MB  ") and "2.0 MB skipped" in text
    bar.close()
