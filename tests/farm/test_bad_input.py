"""Bad input: one line on standard error, the documented status, and nothing half-submitted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_main_job import jobs_of, make_bundle, shell_step

STEP = shell_step("Only", "true")
LIMITED = [
    {"name": "Count", "type": "INT", "default": 1, "minValue": 1, "maxValue": 9},
    {"name": "Kind", "type": "STRING", "default": "a", "allowedValues": ["a", "b"]},
    {"name": "Data", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "IN", "default": "data"},
]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    template = {"name": "fine", "parameterDefinitions": LIMITED, "steps": [STEP]}
    return make_bundle(tmp_path / "bundle", template, {"data/a.txt": b"a"})


def refused(farm: Any, status: int, *words: str, names: str = "", **environment: str) -> str:
    """Submit, and check that it failed in the way that it should; returns the line on standard error."""
    before = {row["id"] for row in jobs_of(farm)}
    done = farm.run("deadline", "bundle", "submit", *words, "--yes", env={**farm.environment, **environment}, stdin=-3)
    lines = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    assert len(lines) == 1, lines
    assert names in lines[0], lines[0]
    assert {row["id"] for row in jobs_of(farm)} == before
    return lines[0]


def test_missing_bundle(farm: Any, tmp_path: Path) -> None:
    refused(farm, 66, str(tmp_path / "gone"), names="gone")


def test_bundle_without_a_template(farm: Any, tmp_path: Path) -> None:
    refused(farm, 66, str(tmp_path), names="template")


@pytest.mark.parametrize("text", ["{", "[]", "", "steps: [", '{"specificationVersion": "jobtemplate-2023-09"}'])
def test_malformed_template(farm: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "template.yaml").write_text(text)
    refused(farm, 65, str(tmp_path))


def test_template_that_openjd_refuses(farm: Any, tmp_path: Path) -> None:
    bad = shell_step("Bad", "true", dependencies=[{"dependsOn": "Nobody"}])
    refused(farm, 65, str(make_bundle(tmp_path / "b", {"name": "bad", "steps": [bad]})))


@pytest.mark.parametrize(
    ("option", "names"),
    [("Nobody=1", "Nobody"), ("Count=10", "Count"), ("Count=many", "Count"), ("Kind=c", "Kind")],
)
def test_wrong_parameter(farm: Any, bundle: Path, option: str, names: str) -> None:
    refused(farm, 65, str(bundle), "-p", option, names=names)


def test_missing_input(farm: Any, bundle: Path, tmp_path: Path) -> None:
    refused(farm, 66, str(bundle), "-p", f"Data={tmp_path}/nowhere", "--require-paths-exist", names="nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_input(farm: Any, bundle: Path) -> None:
    (bundle / "data" / "a.txt").chmod(0)
    refused(farm, 77, str(bundle), names="a.txt")


def test_input_that_is_no_ordinary_file_is_left_out_aloud(farm: Any, bundle: Path) -> None:
    os.mkfifo(bundle / "data" / "pipe")
    done = farm.run("deadline", "bundle", "submit", str(bundle), "--yes")
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1 and "pipe" in done.stderr


def test_name_that_no_manifest_can_hold(farm: Any, bundle: Path) -> None:
    with open(os.fsencode(bundle / "data") + b"/caf\xe9", "w") as file:
        file.write("x")
    refused(farm, 65, str(bundle))


def own_credentials(farm: Any) -> list[str]:
    """Options that take the farm's queue, but not the credentials that the farm's settings name."""
    ids = json.loads(farm.run("deadline", "config", "show", "--output", "json").stdout)
    return ["--profile", "(default)", "--farm-id", ids["defaults.farm_id"], "--queue-id", ids["defaults.queue_id"]]


def test_no_credentials(farm: Any, bundle: Path, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    nothing = {"AWS_SHARED_CREDENTIALS_FILE": none, "AWS_CONFIG_FILE": none, "AWS_PROFILE": ""}
    refused(farm, 77, str(bundle), *own_credentials(farm), names="credentials", **nothing)


def test_wrong_credentials(farm: Any, bundle: Path) -> None:
    wrong = {"AWS_ACCESS_KEY_ID": "AKIAXXXXXXXXXXXXXXXX", "AWS_SECRET_ACCESS_KEY": "wrong", "AWS_PROFILE": ""}
    refused(farm, 77, str(bundle), *own_credentials(farm), **wrong)


def test_a_profile_that_is_not_there(farm: Any, bundle: Path) -> None:
    refused(farm, 78, str(bundle), "--profile", "nobody", names="nobody")


def test_farm_down(farm: Any, bundle: Path) -> None:
    refused(farm, 69, str(bundle), AWS_ENDPOINT_URL_DEADLINE="http://127.0.0.1:9")


def test_wrong_queue(farm: Any, bundle: Path) -> None:
    refused(farm, 66, str(bundle), "--queue-id", "queue-" + "0" * 32)


def test_wrong_usage(farm: Any, bundle: Path) -> None:
    refused(farm, 64, str(bundle), "--priority", "high")
    refused(farm, 64)


def test_priority_out_of_range(farm: Any, bundle: Path) -> None:
    refused(farm, 64, str(bundle), "--priority", "101", names="priority")


def test_a_job_id_that_is_not_there(farm: Any) -> None:
    for words in (["dl-wait"], ["dl-logs"], ["dl-download"]):
        done = farm.run(*words, "job-" + "0" * 32)
        assert done.returncode == 66, (words, done.stderr)
        assert len(done.stderr.splitlines()) == 1
        if done.stdout:
            assert json.loads(done.stdout.splitlines()[-1])["ok"] is False
