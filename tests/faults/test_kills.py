"""Transfers that are struck in the middle of their work. The long form, of 200 kills, is tests/bench/kills.py."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_s3 import Bucket, Request
from killing import KINDS, Trials
from transfer_shell import Shell
from trees import URI, hashed, large_file, manifest_of
from xxhash import xxh3_128_hexdigest


@pytest.fixture(scope="module")
def trials(farm: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    made = Trials(farm, tmp_path_factory.mktemp("kills"), random.Random(20), large=1)
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_after_kills_leaves_everything_right_and_nothing_behind(trials: Trials, kind: str) -> None:
    assert trials.trial(kind, 2).moments


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("kind", ["upload", "download", "sync"])
def test_a_signal_ends_a_run_cleanly(trials: Trials, kind: str, number: signal.Signals) -> None:
    assert trials.trial(kind, 1, number).moments


@pytest.mark.parametrize("tool", ["dl-upload", "dl-download"])
def test_a_second_signal_ends_a_run_at_once(one_bucket: Bucket, shell: Shell, tmp_path: Path, tool: str) -> None:
    """The first one waits for a server that answers nothing, not even that an upload is aborted."""
    path = large_file(tmp_path / "source")
    reached, cleaning = threading.Event(), threading.Event()
    if tool == "dl-download":
        one_bucket.put(f"p/Data/{xxh3_128_hexdigest(path.read_bytes())}.xxh128", path.read_bytes())

    def plan(request: Request) -> tuple[Any, ...] | None:
        if request.method == "DELETE":
            cleaning.set()
        elif "partNumber" not in request.query and request.method != "GET":
            return None
        reached.set()
        return ("stall", 30)

    one_bucket.plan = plan
    words = () if tool == "dl-upload" else (f"--manifest={manifest_of(path.parent, tmp_path / 'm')}", "--to=to")
    process = shell.start(one_bucket, tool, URI, *words, stdin=-1, cwd=tmp_path)
    assert process.stdin is not None
    process.stdin.write(hashed(path.parent))
    process.stdin.close()
    assert reached.wait(20)
    process.send_signal(signal.SIGTERM)
    if tool == "dl-upload":
        assert cleaning.wait(20)
        process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 4
