"""Names of every kind on the whole way: bundle, job, worker, output, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_from_the_bundle_to_the_output(farm: Any, tmp_path: Path, odd_names: list[str]) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    data = bundle / "data"
    data.mkdir(parents=True)
    for number, name in enumerate(odd_names):
        (data / name).write_text(str(number))
    (data / "deep" / "/".join(["d" * 100] * 20)).mkdir(parents=True)
    (data / "deep" / "/".join(["d" * 100] * 20) / "*").write_text("deep")
    before = contents(data)
    assert len(before) == len(odd_names) + 1
    run = {"command": "bash", "args": ["-euc", "mkdir -p '{{Param.Out}}'; cp -R '{{Param.In}}/.' '{{Param.Out}}'"]}
    template = {
        "specificationVersion": "jobtemplate-2023-09",
        "name": "names",
        "parameterDefinitions": [
            {"name": "Out", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "OUT"},
            {"name": "In", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "IN", "default": "data"},
        ],
        "steps": [{"name": "Copy", "script": {"actions": {"onRun": run}}}],
    }
    (bundle / "template.json").write_text(json.dumps(template))
    checkpoint = ("--checkpoint-dir", str(tmp_path / "checkpoint"), "--ignore-storage-profiles")
    assert farm.run("dl-sync", *checkpoint).returncode == 0
    stages = 'dl-bundle "$0" -p "Out=$1" | dl-hash | dl-manifest | dl-upload | dl-submit'
    done = farm.run("bash", "-c", stages, str(bundle), str(out))
    assert done.returncode == 0, done.stderr
    job_id = next(
        row["job_id"] for row in map(json.loads, done.stdout.rstrip("\n").split("\n")) if row["type"] == "job"
    )
    waited = farm.run("dl-wait", "--timeout", "120", job_id)
    assert waited.returncode == 0, waited.stderr
    # Inputs, outputs, and outputs as a follower gets them.
    got = farm.run("dl-download", "--input", f"--map={bundle}={tmp_path / 'in'}", job_id)
    assert got.returncode == 0, got.stderr
    assert contents(next((tmp_path / "in").rglob("COM1.txt")).parent) == before
    got = farm.run("dl-download", f"--map={out}={tmp_path / 'back'}", job_id)
    assert got.returncode == 0, got.stderr
    assert contents(tmp_path / "back") == before
    got = farm.run("dl-sync", *checkpoint)
    assert got.returncode == 0, got.stderr
    assert contents(out) == before
