"""Trees to upload, what dl-hash and dl-manifest make of them, and what a bucket must hold then."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

from fake_s3 import Bucket, tree
from xxhash import xxh3_128_hexdigest

URI = "--s3-root-uri=s3://bench/p"
LARGE = 33 << 20  # sent in parts, three of them


def make_tree(folder: Path, count: int = 60, seed: int = 1) -> dict[str, bytes]:
    """Files of many sizes, some alike, some empty, with odd names."""
    dice = random.Random(seed)
    for index in range(count):
        size = dice.choice([0, 1, 3000, 131_072, 131_073, 300_000])
        content = dice.randbytes(size) if index % 4 else b"the same"
        path = (
            folder / f"d{index % 5}" / dice.choice(["plain", "sp ace", "ünï", "q\"uo'te", "new\nline"]) / f"{index}.x"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tree(folder)


def hashed(folder: Path, *names: str) -> str:
    """The stream that dl-hash makes of a folder."""
    rows: list[dict[str, Any]] = [{"type": "root", "root": str(folder), "root_path_format": "posix"}]
    for name in names or sorted(tree(folder)):
        about = (folder / name).stat()
        hash = xxh3_128_hexdigest((folder / name).read_bytes())
        rows.append({
            "type": "file", "path": name, "root": str(folder), "size": about.st_size,
            "mtime": about.st_mtime_ns // 1000, "hash": hash, "hash_alg": "xxh128",
        })  # fmt: skip
    rows.append({"type": "end", "tool": "dl-hash", "ok": True})
    return "".join(json.dumps(row) + "\n" for row in rows)


def manifest_of(folder: Path, where: Path) -> Path:
    entries = []
    for name, content in sorted(tree(folder).items(), key=lambda item: item[0].encode("utf-16-be")):
        mtime = (folder / name).stat().st_mtime_ns // 1000
        entries.append({"hash": xxh3_128_hexdigest(content), "mtime": mtime, "path": name, "size": len(content)})
    document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": entries, "totalSize": 0}
    where.write_text(json.dumps(document, separators=(",", ":")))
    return where


def assert_true_to_keys(bucket: Bucket) -> None:
    """What the bucket holds under a hash hashes to it."""
    for key, found in bucket.objects.items():
        if "/Data/" in key:
            assert key == f"p/Data/{xxh3_128_hexdigest(found.data)}.xxh128"


def large_file(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "large"
    path.write_bytes(random.Random(5).randbytes(LARGE))
    return path


def wait_for(condition: Any, timeout_s: float = 20.0) -> None:
    """Wait until `condition` holds."""
    tick = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        tick.wait(0.02)
    raise AssertionError("it did not come to be")
