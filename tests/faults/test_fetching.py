"""Large files from afar: in parts, in order, and right."""

from __future__ import annotations

import os
import random
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from fake_s3 import Bucket, Request, tree
from xxhash import xxh3_128_hexdigest

from libdeadline import fetching
from libdeadline.fetching import Fetcher, Item
from libdeadline.placing import Tree
from libdeadline.records import File
from libdeadline.s3 import S3
from libdeadline.store import Store

DATA = random.Random(9).randbytes(33 << 20)
HASH = xxh3_128_hexdigest(DATA)
KEY = f"p/Data/{HASH}.xxh128"


@pytest.fixture(autouse=True)
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FAR_S", 0.0)
    monkeypatch.setattr(fetching, "is_loopback", lambda host: False)


def fetched(bucket: Bucket, target: Path) -> Item:
    s3 = S3(bucket.endpoint, "us-west-2", lambda: bucket.keys[0], "bench", stall_s=1.0, retry_s=10.0)
    s3.head("x")  # how far it is gets known by the first answer
    finished: SimpleQueue[Any] = SimpleQueue()
    fetcher = Fetcher(Store(s3, "p"), "OVERWRITE", None, False, finished)
    row = File.of(path="sub/large", size=len(DATA), mtime=5, hash=HASH)
    fetcher.submit(Item(row, Tree(str(target)), "sub/large"))
    told = 0
    while not isinstance(token := finished.get(timeout=30), Item):
        told += token
    assert told == token.told <= len(DATA)
    fetcher.close()
    return token


def test_parts_arrive_whole(one_bucket: Bucket, tmp_path: Path) -> None:
    one_bucket.put(KEY, DATA)
    assert fetched(one_bucket, tmp_path).outcome == "new"
    assert tree(tmp_path) == {"sub/large": DATA}
    ranges = {each.headers["range"] for each in one_bucket.requests if each.method == "GET"}
    assert len(ranges) == 9


def test_parts_through_failures(one_bucket: Bucket, tmp_path: Path) -> None:
    dice = random.Random(4)
    faults = [("status", 503, "SlowDown", ""), ("cut", 1 << 20), ("close",), ("corrupt",), None, None]
    one_bucket.put(KEY, DATA)
    one_bucket.plan = lambda request: dice.choice(faults) if dice.random() < 0.4 else None
    assert fetched(one_bucket, tmp_path).outcome == "new"
    assert tree(tmp_path) == {"sub/large": DATA}


def test_what_a_killed_run_left_is_gone_on_with(one_bucket: Bucket, tmp_path: Path) -> None:
    one_bucket.put(KEY, DATA)
    left: list[str] = []

    def plan(request: Request) -> tuple[Any, ...] | None:
        # From the third part on nothing comes: what is there by then is two parts.
        first = int(request.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        return ("status", 403, "AccessDenied", "") if first >= 8 << 20 else None

    one_bucket.plan = plan
    real_close = fetching.Temporary.close
    try:
        # As a kill would: the temporary stays.
        fetching.Temporary.close = lambda self, *, remove: (left.append(self.name), real_close(self, remove=False))[1]
        assert fetched(one_bucket, tmp_path).trouble is not None
    finally:
        fetching.Temporary.close = real_close
    assert os.stat(tmp_path / "sub" / left[0]).st_size == 8 << 20
    one_bucket.plan = lambda request: None
    one_bucket.requests.clear()
    assert fetched(one_bucket, tmp_path).outcome == "new"
    assert tree(tmp_path) == {"sub/large": DATA}
    firsts = [int(each.headers["range"][6:].partition("-")[0]) for each in one_bucket.requests if each.method == "GET"]
    assert min(firsts) == 8 << 20


def test_a_large_content_that_is_missing_is_said(one_bucket: Bucket, tmp_path: Path) -> None:
    item = fetched(one_bucket, tmp_path)
    assert item.trouble is not None and "not in the store" in item.trouble.message
    assert tree(tmp_path) == {}
    one_bucket.put(KEY.removesuffix(".xxh128"), DATA)
    assert fetched(one_bucket, tmp_path).outcome == "new"
