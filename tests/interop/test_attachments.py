"""A submission's attachments, ours and the reference's: the same fields of the job, manifests to the byte, metadata."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "farm"))
from renders import BUCKET, Renders

FILES = (
    "proj/a/b.txt", "proj/c.txt", "proj/.hidden", "proj/deep/er/ü😀 x", "data/d", "loc/deep/x", "loc/e", "loc/in/f",
    "shared/s",
)  # fmt: skip
TEMPLATE = {
    "specificationVersion": "jobtemplate-2023-09",
    "name": "attachments",
    "steps": [{"name": "s", "script": {"actions": {"onRun": {"command": "true"}}}}],
}


@pytest.fixture(scope="module")
def renders(farm: Any) -> Renders:
    return Renders(farm)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for number, name in enumerate(FILES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} of {tmp_path}")
        os.utime(path, ns=(0, 1_704_164_645_123_456_789 + number))
    (tmp_path / "proj/link").symlink_to(tmp_path / "data/d")
    (tmp_path / "proj/linked").symlink_to(tmp_path / "data")
    (tmp_path / "proj/empty/er").mkdir(parents=True)
    return tmp_path


def submitted(renders: Renders, program: str, bundle: Path, *words: str) -> dict[str, Any]:
    """What a submission sent: the job's attachments, and each manifest's bytes, metadata and content type."""
    command = renders.command(program, "bundle", "submit", str(bundle), "--yes", *words)
    environment = {**renders.farm.environment, "HOME": str(bundle.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    job_id = re.findall("job-[0-9a-f]{32}", done.stdout)[-1]
    job = renders.api.get_job(farmId=renders.ids.farm, queueId=renders.ids.queue, jobId=job_id)
    stored = []
    for row in (job.get("attachments") or {}).get("manifests") or ():
        if "inputManifestPath" in row:
            key = f"{renders.prefix}/Manifests/{row['inputManifestPath']}"
            got = renders.s3.get_object(Bucket=BUCKET, Key=key)
            stored.append((got["Body"].read(), got["Metadata"], got["ContentType"]))
            for entry in json.loads(stored[-1][0])["paths"]:
                renders.s3.head_object(Bucket=BUCKET, Key=f"{renders.prefix}/Data/{entry['hash']}.xxh128")
            row["inputManifestPath"] = re.sub("/[0-9a-f]{32}/", "/<guid>/", row["inputManifestPath"])
    return {"attachments": job.get("attachments"), "profile": job.get("storageProfileId"), "stored": stored}


@pytest.mark.parametrize(
    ("inputs", "folders", "outputs", "references", "words", "roots"),
    [
        (["proj/a/b.txt", "data/d"], [], ["proj/out", "out"], ["nowhere/x"], [], ["."]),
        ([], ["proj"], ["proj"], [], ["--job-attachments-file-system", "VIRTUAL"], ["proj"]),
        (["proj/none", "proj/c.txt"], ["gone", "proj/empty"], [], [], [], ["."]),
        ([], [], ["out/a", "out/b"], [], [], ["out"]),
        (["loc/deep/x", "loc/in/f", "proj/c.txt"], [], ["loc/out", "shared/out"], [], ["profile"],
         ["loc", "loc/in", "proj"]),
        (["shared/s"], [], ["shared/out"], ["shared/x"], ["profile"], []),
    ],
)  # fmt: skip
def test_the_same_attachments_arrive(
    reference: str,
    renders: Renders,
    place: Path,
    inputs: list[str],
    folders: list[str],
    outputs: list[str],
    references: list[str],
    words: list[str],
    roots: list[str],
) -> None:
    def absolute(names: list[str]) -> list[str]:
        return [str(place / name) for name in names]

    bundle = place / "bundle"
    bundle.mkdir()
    (bundle / "template.json").write_text(json.dumps(TEMPLATE))
    listed = {
        "inputs": {"filenames": absolute(inputs), "directories": absolute(folders)},
        "outputs": {"directories": absolute(outputs)},
        "referencedPaths": absolute(references),
    }
    (bundle / "asset_references.json").write_text(json.dumps({"assetReferences": listed}))
    if words == ["profile"]:
        locations = [("Loc", "loc", "LOCAL"), ("In", "loc/in", "LOCAL"), ("Shared", "shared", "SHARED")]
        made = renders.api.create_storage_profile(
            farmId=renders.ids.farm, displayName=place.name, osFamily="LINUX",
            fileSystemLocations=[
                {"name": name, "path": str(place / path), "type": kind} for name, path, kind in locations
            ],
        )["storageProfileId"]  # fmt: skip
        renders.api.update_queue(
            farmId=renders.ids.farm, queueId=renders.ids.queue, allowedStorageProfileIdsToAdd=[made]
        )
        words = ["--storage-profile-id", made]
    words = [*words, "--known-asset-path", str(place), "--target-task-run-status", "SUSPENDED"]
    ours, theirs = (submitted(renders, program, bundle, *words) for program in ("deadline", reference))
    assert ours == theirs
    found = [row["rootPath"] for row in (ours["attachments"] or {}).get("manifests") or ()]
    assert found == [os.path.normpath(path) for path in absolute(roots)]
