"""What records cost in memory: a stage that passes them on must not keep them, and one that must keep them is compact.

tests/bench/million.py measures the same with a million files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_s3 import Bucket
from transfer_shell import COMMANDS, Shell
from xxhash import xxh3_128_hexdigest

from libdeadline import manifest

FEW, MANY = 5_000, 25_000
PASSING_MIB, HASHING_MIB, TRANSFER_MIB = 20, 40, 64  # of a process, however many records there are
GROWTH_BYTES = 150  # a record, because no two runs are alike; one that is kept as a line takes 230, else 700
WAITING_BYTES = 400  # where some thousands may wait for others
KEPT_BYTES = 400  # a record, where all are kept: a million in 400 MB
CONTENT = b"content"
# Between pytest and the command, because a process begins with the peak of the one that started it.
STARTER = """
import json, os, resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
os.write(int(sys.argv[1]), json.dumps([status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]).encode())
"""


class Measure:
    """Runs commands on streams of FEW and of MANY records."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        (folder / "file").write_bytes(CONTENT)
        self.hash, self.mtime = xxh3_128_hexdigest(CONTENT), (folder / "file").stat().st_mtime_ns // 1000

    def stream(self, count: int, distinct: int = 1) -> Path:
        """A submission's records: `count` files, with `distinct` paths that are links to one file."""
        path = self.folder / f"stream-{count}-{distinct}"
        root = str(self.folder)
        about = {"root": root, "size": len(CONTENT), "mtime": self.mtime, "hash": self.hash, "hash_alg": "xxh128"}
        bundle = {"path": root, "template": "{}", "template_type": "JSON", "farm_id": "farm-1", "queue_id": "queue-1"}
        with open(path, "w") as file:
            for row in (
                {"type": "bundle", **bundle, "known_asset_paths": [root]},
                {"type": "root", "root": root, "root_path_format": "posix"},
            ):
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
            for number in range(count):
                name = "file" if distinct == 1 else f"folder/file-{number % distinct:06}.exr"
                file.write(json.dumps({"type": "file", "path": name, **about}, separators=(",", ":")) + "\n")
            file.write('{"type":"end","tool":"test","ok":true}\n')
        return path

    def manifest(self, count: int) -> Path:
        path = self.folder / f"{count}.manifest"
        rows = (manifest.Entry(f"folder/file-{n:06}.exr", f"{n:032x}", n, self.mtime) for n in range(count))
        path.write_bytes(manifest.encode(rows))
        return path

    def peak(self, *words: str, source: Path | None = None) -> int:
        """KiB that a command used at most."""
        reader, writer = os.pipe()
        with open(source or os.devnull, "rb") as given, open(self.folder / "output", "wb") as output:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", STARTER, str(writer), f"{COMMANDS}/{words[0]}", *words[1:]],
                stdin=given, stdout=output, stderr=subprocess.PIPE, env=self.environment, pass_fds=(writer,),
                start_new_session=True, cwd=self.folder, check=True,
            )  # fmt: skip
        os.close(writer)
        with open(reader, "rb") as figures:
            status, kib = json.load(figures)
        assert status == 0, done.stderr
        return int(kib)


@pytest.fixture
def measure(tmp_path: Path, one_bucket: Bucket, shell: Shell) -> Measure:
    return Measure(tmp_path, {**shell.environment(one_bucket), "DL_PROGRESS": "json"})


def judge(few: int, many: int, bytes_each: int, most_mib: int) -> None:
    grown = (many - few) * 1024 / (MANY - FEW)
    print(f"{grown:.1f} bytes a record, {many / 1024:.1f} MiB")
    assert grown <= bytes_each, f"{grown:.0f} bytes more for each record: {few} KiB became {many} KiB"
    assert many <= most_mib * 1024, f"{many / 1024:.1f} MiB"


@pytest.mark.parametrize(("words", "bytes_each", "most_mib"), [
    ("dl-hash", GROWTH_BYTES, HASHING_MIB),
    ("dl-consent", GROWTH_BYTES, PASSING_MIB),
    ("dl-submit --dry-run --farm-id=farm-1 --queue-id=queue-1", GROWTH_BYTES, PASSING_MIB),
    ("dl-show attachment-upload", GROWTH_BYTES, PASSING_MIB),
    ("dl-show --output=verbose download-summary", GROWTH_BYTES, PASSING_MIB),
    ("dl-upload --s3-root-uri=s3://b/p --manifest-prefix=m", WAITING_BYTES, TRANSFER_MIB),
])  # fmt: skip
def test_a_stage_that_passes_records_on_does_not_keep_them(
    measure: Measure, words: str, bytes_each: int, most_mib: int
) -> None:
    few, many = (measure.peak(*words.split(), source=measure.stream(count)) for count in (FEW, MANY))
    judge(few, many, bytes_each, most_mib)


@pytest.mark.parametrize(("words", "most_mib"), [
    ("dl-manifest cat", PASSING_MIB),
    ("dl-manifest stat", PASSING_MIB),
    ("dl-download --dry-run --to=to --s3-root-uri=s3://b/p --manifest", TRANSFER_MIB),
])  # fmt: skip
def test_a_manifest_is_read_in_constant_memory(measure: Measure, words: str, most_mib: int) -> None:
    # More than the 4 MiB that dl-download sorts at once.
    few, many = (measure.peak(*words.split(), str(measure.manifest(count + 35_000))) for count in (FEW, MANY))
    judge(few, many, GROWTH_BYTES, most_mib)


def test_what_must_be_kept_is_kept_compactly(measure: Measure) -> None:
    few, many = (measure.peak("dl-manifest", "--to=to", source=measure.stream(count, count)) for count in (FEW, MANY))
    judge(few, many, KEPT_BYTES, TRANSFER_MIB)
    few, many = (measure.peak("dl-diff", *[str(measure.manifest(count))] * 2) for count in (FEW, MANY))
    judge(few, many, KEPT_BYTES, TRANSFER_MIB)
