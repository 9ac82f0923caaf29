"""What dl-download fetches of a job: which attempt, whose manifest, and nothing that was tampered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from libdeadline.aws import Credentials
from libdeadline.s3 import S3


def store_of(farm: Any) -> tuple[S3, str]:
    """The farm's store as its owner reaches it, and its root prefix."""
    script = """
import json
from libdeadline import aws
from libdeadline.targets import target
found = target({})
queue = found.session.client("deadline").call("GetQueue", {"farmId": found.farm_id, "queueId": found.queue_id})
settings, keys = queue["jobAttachmentSettings"], found.session.credentials()
print(json.dumps([found.session.endpoint("s3"), found.session.region, settings["s3BucketName"],
                  settings["rootPrefix"], keys.access_key_id, keys.secret_access_key, keys.session_token]))
"""
    done = farm.run("python3", "-c", script)
    assert done.returncode == 0, done.stderr
    endpoint, region, bucket, prefix, *keys = json.loads(done.stdout)
    return S3(endpoint, region, lambda: Credentials(*keys), bucket), prefix


@pytest.fixture
def job(farm: Any, tmp_path: Path) -> tuple[str, Path]:
    """A job of two steps that has run, and the folder that its output is for."""
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    bundle.mkdir()
    run = {
        "command": "bash",
        "args": ["-c", "mkdir -p '{{Param.Out}}'; echo {{Task.Param.N}} >'{{Param.Out}}/{{Task.Param.N}}'"],
    }
    last = {"command": "bash", "args": ["-c", "mkdir -p '{{Param.Out}}'; echo all >'{{Param.Out}}/last'"]}
    numbers = {"taskParameterDefinitions": [{"name": "N", "type": "INT", "range": "1-3"}]}
    template = {
        "specificationVersion": "jobtemplate-2023-09",
        "name": "downloads",
        "parameterDefinitions": [
            {"name": "Out", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "OUT"},
            {"name": "In", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "IN", "default": "data"},
        ],
        "steps": [
            {"name": "Each", "parameterSpace": numbers, "script": {"actions": {"onRun": run}}},
            {"name": "Last", "dependencies": [{"dependsOn": "Each"}], "script": {"actions": {"onRun": last}}},
        ],
    }
    (bundle / "data").mkdir()
    (bundle / "data" / "x").write_text("input")
    (bundle / "template.json").write_text(json.dumps(template))
    done = farm.run(
        "bash",
        "-c",
        'dl-bundle "$0" -p "Out=$1" | dl-hash | dl-manifest | dl-upload | dl-submit',
        str(bundle),
        str(out),
    )
    assert done.returncode == 0, done.stderr
    job_id = next(row["job_id"] for row in map(json.loads, done.stdout.splitlines()) if row["type"] == "job")
    waited = farm.run("dl-wait", "--timeout", "120", job_id)
    assert waited.returncode == 0, waited.stderr
    return job_id, out


def downloaded(farm: Any, *words: str) -> tuple[int, str, list[dict[str, Any]]]:
    done = farm.run("dl-download", *words)
    return done.returncode, done.stderr, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_job_a_step_and_a_task(farm: Any, job: tuple[str, Path], tmp_path: Path) -> None:
    job_id, out = job
    steps = {}
    for line in farm.run("dl-ls", "steps", "--job-id", job_id).stdout.splitlines():
        row = json.loads(line)
        if row["type"] == "resource":
            steps[row["name"]] = row["id"]
    tasks = []
    for line in farm.run("dl-ls", "tasks", "--job-id", job_id, "--step-id", steps["Each"]).stdout.splitlines():
        row = json.loads(line)
        if row["type"] == "resource":
            tasks.append(row["id"])
    status, errors, _ = downloaded(farm, f"--map={out}={tmp_path / 'all'}", job_id)
    assert status == 0, errors
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["1", "2", "3", "last"]
    status, errors, _ = downloaded(farm, "--step-id", steps["Last"], f"--map={out}={tmp_path / 'last'}", job_id)
    assert status == 0, errors
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["last"]
    seen = []
    for task in tasks:
        folder = tmp_path / task
        words = ("--step-id", steps["Each"], "--task-id", task, f"--map={out}={folder}", job_id)
        status, errors, _ = downloaded(farm, *words)
        assert status == 0, errors
        seen += [path.name for path in folder.iterdir()]
    assert sorted(seen) == ["1", "2", "3"]
    status, errors, rows = downloaded(farm, "--input", f"--to={tmp_path / 'in'}", job_id)
    assert status == 0, errors
    assert [row["type"] for row in rows] == ["job", "manifest", "file", "end"]
    assert Path(rows[2]["local_path"]).read_text() == "input"
    # The same from a job record, as dl-wait or dl-submit write it.
    piped = farm.run("bash", "-c", 'dl-wait "$0" | dl-download --input --to="$1"', job_id, str(tmp_path / "in"))
    assert piped.returncode == 0, piped.stderr
    assert [row["download"] for row in map(json.loads, piped.stdout.splitlines()) if row["type"] == "file"] == [
        "present"
    ]


def test_an_output_manifest_that_was_tampered_with_is_refused(farm: Any, job: tuple[str, Path], tmp_path: Path) -> None:
    job_id, out = job
    s3, prefix = store_of(farm)
    pages = s3.pages(f"{prefix}/Manifests/")
    keys = [found.key for page in pages for found in page.found if f"/{job_id}/" in found.key]
    assert len(keys) == 4, keys
    got = s3.get(keys[0])
    assert got is not None
    document = json.loads(got.data)
    document["paths"][0]["path"] += ".exe"
    s3.put(keys[0], json.dumps(document).encode(), metadata=got.metadata)
    status, errors, _ = downloaded(farm, f"--map={out}={tmp_path / 'to'}", job_id)
    assert status == 65
    assert "is not the one that was recorded" in errors
    assert not (tmp_path / "to").exists()


def test_whoever_writes_to_the_store_does_not_choose_where_files_go(
    farm: Any, job: tuple[str, Path], tmp_path: Path
) -> None:
    """The root of an output manifest stands in its object's metadata, which no recorded hash is about."""
    job_id, out = job
    s3, prefix = store_of(farm)
    pages = s3.pages(f"{prefix}/Manifests/")
    key = next(found.key for page in pages for found in page.found if f"/{job_id}/" in found.key)
    got = s3.get(key)
    assert got is not None
    for root, why in ((str(tmp_path / "evil"), "none of the job's"), ("evil", "none of the job's")):
        s3.put(key, got.data, metadata={"asset-root": root})
        status, errors, rows = downloaded(farm, job_id)
        assert status == 65
        assert why in errors and len(errors.splitlines()) == 1
        assert not [row for row in rows if row["type"] == "file"]
        assert not (tmp_path / "evil").exists() and not out.exists()
    # Who wants it all the same says where.
    status, errors, _ = downloaded(farm, f"--map={out}={tmp_path / 'to'}", f"--map=evil={tmp_path / 'evil'}", job_id)
    assert status == 0, errors
    assert len(list((tmp_path / "to").iterdir())) + len(list((tmp_path / "evil").iterdir())) == 4
