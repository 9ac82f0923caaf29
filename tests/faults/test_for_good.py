"""A store that fails for good: each command ends in time, says why in one error record, and does no harm."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from fake_s3 import Bucket, records, tree
from test_transfers import PAGE, hashed, make_tree, manifest_of
from transfer_shell import Shell
from xxhash import xxh3_128_hexdigest

URI = "--s3-root-uri=s3://bench/p"
QUICK = ("--retry-for=0.4", "--stall=0.4", "--progress=json")
FAULTS: dict[str, tuple[tuple[Any, ...], set[int]]] = {
    "500": (("status", 500, "InternalError", "oops"), {75}),
    "503 and a long pause": (("answer", 503, b"<Error><Code>SlowDown</Code></Error>", {"Retry-After": "30"}), {75}),
    "closed": (("close",), {69}),
    "stalled": (("stall", 2.0), {69}),
    "expired": (("status", 400, "ExpiredToken", "expired"), {77}),
    "denied": (("status", 403, "AccessDenied", "no"), {77}),
    "signature": (("status", 403, "SignatureDoesNotMatch", "no"), {77}),
    "clock": (("status", 403, "RequestTimeTooSkewed", "no"), {78}),
    "elsewhere": (("status", 301, "PermanentRedirect", "no"), {78}),
    "no bucket": (("status", 404, "NoSuchBucket", "no"), {66}),
    "page": (PAGE, {69}),
    "page not found": (("answer", 404, b"<html>not here</html>"), {69}),
    "garbage": (("raw", b"\0\1garbage\r\n\r\n"), {69}),
}
COMMANDS = {
    "dl-upload": ("dl-upload", "--manifest-prefix=y"),
    "dl-download": ("dl-download", "--manifest=x/out_output"),
    "dl-verify": ("dl-verify", "--delete-damaged"),
    "dl-gc": ("dl-gc", "--delete", "--grace=0", "--uploads"),
}


@pytest.mark.parametrize(("fault", "statuses"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_it_ends_and_says_why(
    one_bucket: Bucket,
    shell: Shell,
    tmp_path: Path,
    command: tuple[str, ...],
    fault: tuple[Any, ...],
    statuses: set[int],
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    files = make_tree(source, 8)
    manifest = manifest_of(source, tmp_path / "m")
    if command[0] != "dl-upload":
        for content in files.values():
            one_bucket.put(f"p/Data/{xxh3_128_hexdigest(content)}.xxh128", content)
        one_bucket.put("p/Data/" + "0" * 32 + ".xxh128", b"nothing needs it, and it is not what its name says")
        one_bucket.put("p/Manifests/x/out_output", manifest.read_bytes(), {"asset-root": str(source)})
    before = dict(one_bucket.objects)
    rows = hashed(source).splitlines(keepends=True)
    row = {"type": "manifest", "root": str(source), "path": str(manifest)}
    text = "".join([*rows[:-1], json.dumps(row) + "\n", rows[-1]])
    one_bucket.plan = lambda request: fault
    words = (*command, URI, *QUICK, *([f"--to={target}"] if command[0] == "dl-download" else []))
    began = monotonic()
    done = shell.run(one_bucket, *words, text=text if command[0] == "dl-upload" else "")
    assert monotonic() - began < 15
    assert done.returncode in statuses, done.stderr
    errors = [each for each in records(done.stderr) if each["type"] == "error" and each.get("status")]
    assert [each["status"] for each in errors] == [done.returncode]
    assert "\n" not in errors[0]["message"] and "s3://bench" in errors[0]["message"]
    assert records(done.stdout)[-1]["ok"] is False
    assert one_bucket.objects == before
    assert not target.exists() or not [name for name in tree(target) if os.path.basename(name).startswith(".dl-")]
