"""dl-bundle against a real farm: queue, queue environments, storage profile."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CALL = """
import json, sys
from libdeadline import aws, config
answer = aws.Session(config.read()).client("deadline").call(sys.argv[1], json.loads(sys.argv[2]))
print(json.dumps(answer, default=str))
"""
CONDA = """
specificationVersion: environment-2023-09
parameterDefinitions:
- {name: CondaPackages, type: STRING, default: blender, maxLength: 20}
- {name: Verbosity, type: INT, default: 1, minValue: 0, maxValue: 3}
environment:
  name: Conda
  variables: {PACKAGES: "{{Param.CondaPackages}}"}
"""
TEMPLATE = """
specificationVersion: jobtemplate-2023-09
name: Test
parameterDefinitions:
- {name: In, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: data}
- {name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT, default: out}
steps:
- name: Only
  script: {actions: {onRun: {command: "true"}}}
"""


class Place(NamedTuple):
    farm_id: str
    queue_id: str
    bare_queue_id: str
    storage_profile_id: str
    folder: Path


@pytest.fixture(scope="module")
def place(farm: Any, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A queue with an environment and a storage profile, and a queue without attachments."""

    def call(operation: str, **parameters: Any) -> dict[str, Any]:
        done = farm.run(sys.executable, "-c", CALL, operation, json.dumps(parameters))
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    folder = Path(os.path.realpath(tmp_path_factory.mktemp("places")))
    farm_id = farm.run("deadline", "config", "get", "defaults.farm_id").stdout.strip()
    first = farm.run("deadline", "config", "get", "defaults.queue_id").stdout.strip()
    found = call("GetQueue", farmId=farm_id, queueId=first)
    settings = {"jobAttachmentSettings": found["jobAttachmentSettings"], "roleArn": found["roleArn"]}
    queue_id = call("CreateQueue", farmId=farm_id, displayName="with", **settings)["queueId"]
    bare = call("CreateQueue", farmId=farm_id, displayName="bare")["queueId"]
    call("CreateQueueEnvironment", farmId=farm_id, queueId=queue_id, priority=1, templateType="YAML", template=CONDA)
    locations = [
        {"name": "Disk", "path": f"{folder}/disk", "type": "LOCAL"},
        {"name": "Nas", "path": f"{folder}/nas", "type": "SHARED"},
    ]
    profile = call(
        "CreateStorageProfile", farmId=farm_id, displayName="W", osFamily="LINUX", fileSystemLocations=locations
    )["storageProfileId"]
    call("UpdateQueue", farmId=farm_id, queueId=queue_id, allowedStorageProfileIdsToAdd=[profile])
    return Place(farm_id, queue_id, bare, profile, folder)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = Path(os.path.realpath(tmp_path)) / "bundle"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a").write_bytes(b"aa")
    (folder / "template.yaml").write_text(TEMPLATE)
    return folder


def read(farm: Any, *words: str, status: int = 0) -> tuple[list[dict[str, Any]], str]:
    done = farm.run("dl-bundle", *words)
    assert done.returncode == status, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_queue_says_where_to_and_takes_its_own_parameters(farm: Any, place: Place, bundle: Path) -> None:
    rows, _ = read(farm, "--queue-id", place.queue_id, "-p", "Verbosity=3", str(bundle))
    head = rows[0]
    assert (head["farm_id"], head["queue_id"], head["queue_name"]) == (place.farm_id, place.queue_id, "with")
    assert head["s3_bucket_name"] and head["root_prefix"]
    assert head["parameters"] == {
        "Verbosity": {"int": "3"},
        "In": {"path": f"{bundle}/data"},
        "Out": {"path": f"{bundle}/out"},
    }
    assert [row["type"] for row in rows] == ["bundle", "root", "file", "output_dir", "end"]
    assert head["file_count"] == 1 and head["total_bytes"] == 2


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("Verbosity=4", "parameter 'Verbosity': 4 is more than maxValue 3"),
        ("CondaPackages=" + "x" * 21, "maxLength is 20"),
        ("Conda=x", "there is no job parameter 'Conda'; the job has: CondaPackages, In, Out, Verbosity"),
    ],
)
def test_values_of_queue_parameters_are_judged(farm: Any, place: Place, bundle: Path, value: str, why: str) -> None:
    rows, errors = read(farm, "--queue-id", place.queue_id, "-p", value, str(bundle), status=65)
    assert why in errors and len(errors.splitlines()) == 1
    assert [row["type"] for row in rows] == ["end"]


def test_definitions_that_contradict_the_queue_are_refused(farm: Any, place: Place, bundle: Path) -> None:
    text = TEMPLATE.replace("steps:", "- {name: Verbosity, type: INT, default: 1, maxValue: 9}\nsteps:")
    (bundle / "template.yaml").write_text(text)
    _, errors = read(farm, "--queue-id", place.queue_id, str(bundle), status=65)
    assert "parameter 'Verbosity' is defined differently in queue environment 'Conda' and in the template" in errors


def test_locations_of_the_storage_profile_decide_the_roots(farm: Any, place: Place, bundle: Path) -> None:
    for name in ("disk/deep/x", "nas/y"):
        path = place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"z")
    inputs = {"filenames": [f"{place.folder}/disk/deep/x"], "directories": [f"{place.folder}/nas"]}
    (bundle / "asset_references.json").write_text(json.dumps({"assetReferences": {"inputs": inputs}}))
    words = ["--queue-id", place.queue_id, "--storage-profile-id", place.storage_profile_id, str(bundle)]
    rows, _ = read(farm, *words)
    assert rows[0]["storage_profile_id"] == place.storage_profile_id
    roots = {row["root"]: row.get("file_system_location_name") for row in rows if row["type"] == "root"}
    assert roots == {str(bundle): None, f"{place.folder}/disk": "Disk"}
    files = [(row["root"], row["path"]) for row in rows if row["type"] == "file"]
    assert sorted(files) == sorted([(str(bundle), "data/a"), (f"{place.folder}/disk", "deep/x")])


def test_a_queue_without_attachments_stores_nothing_and_says_so(farm: Any, place: Place, bundle: Path) -> None:
    rows, errors = read(farm, "--queue-id", place.bare_queue_id, str(bundle))
    assert [row["type"] for row in rows] == ["bundle", "end"]
    assert "s3_bucket_name" not in rows[0]
    assert "queue 'bare' takes no job attachments" in errors


def test_a_queue_that_is_not_there(farm: Any, bundle: Path) -> None:
    rows, errors = read(farm, "--queue-id", "queue-" + "0" * 32, str(bundle), status=66)
    assert [row["type"] for row in rows] == ["end"]
    assert len(errors.splitlines()) == 1
