"""Our commands and the reference client's, side by side on one farm: the same output, and each other's jobs."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

TEMPLATE = """
specificationVersion: jobtemplate-2023-09
name: {name}
description: "two\\nlines"
parameterDefinitions:
- {{name: In, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: in}}
- {{name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT, default: out}}
- {{name: Status, type: INT, default: 0}}
- {{name: Text, type: STRING, default: plain}}
- {{name: Share, type: FLOAT, default: 0.5}}
steps:
- name: copy
  parameterSpace: {{taskParameterDefinitions: [{{name: N, type: INT, range: "1-3"}}]}}
  script:
    actions:
      onRun:
        command: bash
        args: ["-c", "echo task {{{{Task.Param.N}}}}; cp -r '{{{{Param.In}}}}/.' '{{{{Param.Out}}}}/{{{{Task.Param.N}}}}'; exit {{{{Param.Status}}}}"]
"""  # noqa: E501
NAMES = ("plain.txt", "with space.txt", "été ☃.txt", "deep/er/file.bin", "empty", 'quote\'s "and" $x.txt')


class Side:
    """One of the two clients, with settings of its own, on the farm that both share."""

    def __init__(self, program: str, farm: Any, folder: Path) -> None:
        self.program, self.farm, self.folder = program, farm, folder
        folder.mkdir()
        config = folder / "config"
        config.write_text(Path(farm.environment["DEADLINE_CONFIG_FILE_PATH"]).read_text())
        self.environment = {**farm.environment, "DEADLINE_CONFIG_FILE_PATH": str(config), "HOME": str(folder)}

    def run(self, *words: str, status: int | None = 0, **options: Any) -> str:
        """What the command prints."""
        done = subprocess.run(
            [self.program, *words],
            env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options,
        )  # fmt: skip
        assert status is None or done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout

    def submit(self, bundle: Path, *words: str) -> str:
        """The id of the job that a bundle became."""
        return self.run("bundle", "submit", str(bundle), "--yes", *words).split()[-1]


@pytest.fixture(scope="module")
def ours(farm: Any, tmp_path_factory: pytest.TempPathFactory) -> Side:
    return Side("deadline", farm, tmp_path_factory.mktemp("sides") / "ours")


@pytest.fixture(scope="module")
def theirs(reference: str, farm: Any, tmp_path_factory: pytest.TempPathFactory) -> Side:
    return Side(reference, farm, tmp_path_factory.mktemp("sides") / "theirs")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "shot", "side by side: été")


def make_bundle(folder: Path, name: str) -> Path:
    for path in NAMES:
        file = folder / "in" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("" if path == "empty" else f"content of {path}\n")
    (folder / "template.yaml").write_text(TEMPLATE.format(name=json.dumps(name)))
    return folder


@pytest.fixture(scope="module")
def submitted(ours: Side, theirs: Side, bundle: Path) -> dict[str, str]:
    """A job that ended well from each side, of one bundle, by name of the side."""
    # The workers' outputs must not become the other job's inputs: both are submitted before either runs long.
    found = {"ours": ours.submit(bundle), "theirs": theirs.submit(bundle)}
    for job_id in found.values():
        ours.run("job", "wait", "--job-id", job_id)
    return found


def same(ours: Side, theirs: Side, *words: str, status: int = 0) -> str:
    """What both print, which is asserted to be equal."""
    wanted, got = theirs.run(*words, status=status), ours.run(*words, status=status)
    assert got == wanted
    return got


@pytest.mark.parametrize("words", [("queue", "list"), ("fleet", "list"), ("farm", "get"), ("queue", "get")])
def test_lists_and_answers_are_equal(ours: Side, theirs: Side, words: tuple[str, ...]) -> None:
    assert yaml.safe_load(same(ours, theirs, *words))


def test_farm_list_is_equal_but_for_the_region(ours: Side, theirs: Side) -> None:
    # Older versions of the reference client show no region.
    without = [re.sub(r"^- region: .*\n  ", "- ", side.run("farm", "list"), flags=re.M) for side in (ours, theirs)]
    assert without[0] == without[1]


def test_fleets_and_workers(ours: Side, theirs: Side) -> None:
    fleet = yaml.safe_load(ours.run("fleet", "list"))[0]["fleetId"]
    same(ours, theirs, "fleet", "get")
    same(ours, theirs, "fleet", "get", "--fleet-id", fleet)
    listed = same(ours, theirs, "worker", "list", "--fleet-id", fleet)
    worker = re.findall(r"worker-[0-9a-f]{32}", listed)[0]
    kept = [
        [line for line in side.run("worker", "get", "--fleet-id", fleet, "--worker-id", worker).splitlines()
         if not line.startswith("updated")]
        for side in (ours, theirs)
    ]  # fmt: skip
    assert kept[0] == kept[1]


def test_jobs_are_listed_and_told_of_alike(ours: Side, theirs: Side, submitted: dict[str, str]) -> None:
    for job_id in submitted.values():
        same(ours, theirs, "job", "get", "--job-id", job_id)
    same(ours, theirs, "job", "list")
    same(ours, theirs, "job", "list", "--page-size", "1", "--item-offset", "1")
    same(ours, theirs, "job", "get", "no such job has this name")
    assert "Found 2 job(s)" in same(ours, theirs, "job", "get", "side by side")


def test_both_make_the_same_job(ours: Side, submitted: dict[str, str]) -> None:
    jobs = [yaml.safe_load(ours.run("job", "get", "--job-id", submitted[side])) for side in ("ours", "theirs")]
    for job in jobs:
        for manifest in job["attachments"]["manifests"]:
            manifest["inputManifestPath"] = re.sub(r"/[0-9a-f]{32}/", "/<guid>/", manifest["inputManifestPath"])
        for name in [name for name in job if name.endswith("At") or name == "jobId"]:
            del job[name]
    assert jobs[0] == jobs[1]
    assert jobs[0]["attachments"]["manifests"][0]["inputManifestHash"]


def test_waiting_tells_the_same(ours: Side, theirs: Side, submitted: dict[str, str]) -> None:
    told = [
        {**json.loads(side.run("job", "wait", "--job-id", submitted["ours"], "--output", "json")), "elapsedTime": 0}
        for side in (ours, theirs)
    ]
    assert told[0] == told[1]
    assert told[0]["status"] == "SUCCEEDED"


def test_a_failure_is_told_alike(ours: Side, theirs: Side, bundle: Path) -> None:
    job = ours.submit(bundle, "-p", "Status=3", "--max-retries-per-task", "0")
    ours.run("job", "wait", "--job-id", job, status=2)
    told = [
        {**json.loads(side.run("job", "wait", "--job-id", job, "--output", "json", status=2)), "elapsedTime": 0}
        for side in (ours, theirs)
    ]
    assert told[0] == told[1]
    assert len(told[0]["failedTasks"]) == 3


@pytest.mark.parametrize("form", ["utc", "local", "relative"])
def test_logs_are_equal(ours: Side, theirs: Side, submitted: dict[str, str], form: str) -> None:
    words = ("job", "logs", "--job-id", submitted["theirs"], "--limit", "1000", "--timestamp-format", form)
    told = json.loads(ours.run(*words, "--output", "json"))
    assert any("task" in event["message"] for event in told["events"])
    wanted = json.loads(theirs.run(*words, "--output", "json", status=None))
    # Versions up to 0.54 fail here wherever CloudWatch gives an ingestion time, which it always does.
    if "error" not in wanted:
        del told["nextToken"], wanted["nextToken"]  # theirs leads past the newest line
        assert told == wanted
    lines = [
        [line for line in side.run(*words, "--output", "verbose").splitlines() if line.startswith("[")]
        for side in (ours, theirs)
    ]
    assert lines[0] == lines[1]


def test_each_downloads_what_the_other_submitted(
    ours: Side, theirs: Side, submitted: dict[str, str], bundle: Path
) -> None:
    wanted = {path: (bundle / "in" / path).read_bytes() for path in NAMES}
    for side, job in ((ours, submitted["theirs"]), (theirs, submitted["ours"])):
        out = bundle / "out"
        subprocess.run(["rm", "-rf", out], check=True)
        lines = [
            json.loads(line)
            for line in side.run(
                "job", "download-output", "--job-id", job, "--yes", "--output", "json"
            ).splitlines() if line
        ]  # fmt: skip
        summary = [line for line in lines if line["messageType"] == "summary"][-1]
        assert summary["fileCount"] == 3 * len(NAMES)
        assert sorted(summary["files"]) == sorted(str(out / n / path) for n in "123" for path in NAMES)
        assert lines[0]["messageType"] == "title"
        for n in "123":
            assert {path: (out / n / path).read_bytes() for path in NAMES} == wanted


def test_traces_are_equal(ours: Side, theirs: Side, submitted: dict[str, str]) -> None:
    told = []
    for side in (ours, theirs):
        trace = side.folder / "trace.json"
        words = ("--job-id", submitted["theirs"], "--trace-format", "chrome", "--trace-file", str(trace))
        text = side.run("job", "trace-schedule", *words)
        told.append((text.partition("SUMMARY")[2], json.loads(trace.read_text())))
    (text, trace), (wanted_text, wanted) = told
    assert text == wanted_text
    # Theirs numbers the workers by chance.
    for events in (trace["traceEvents"], wanted["traceEvents"]):
        assert len({event["pid"] for event in events}) <= 2
        for event in events:
            del event["pid"]
    assert trace == wanted


def test_cancel_and_requeue_say_the_same(ours: Side, theirs: Side, bundle: Path) -> None:
    told = []
    for side in (ours, theirs):
        job = side.submit(bundle, "--target-task-run-status", "SUSPENDED")
        texts = [side.run("job", "cancel", "--job-id", job, "--yes")]
        ours.run("job", "wait", "--job-id", job, status=3)
        texts.append(side.run("job", "requeue-tasks", "--job-id", job, "--yes"))
        text = re.sub(r"-[0-9a-f]{32}", "-<id>", "".join(texts))
        told.append(re.sub(r"(?m)^((created|ended)At): .*$", r"\1: <time>", text))
    assert told[0] == told[1]
    assert "Requeued a total of 3 tasks." in told[0]


@pytest.fixture
def settings(ours: Side, theirs: Side) -> Iterator[None]:
    yield
    for side in (ours, theirs):
        side.run("config", "clear", "settings.log_level")


def test_each_reads_what_the_other_set(ours: Side, theirs: Side, settings: None) -> None:
    ours.environment["DEADLINE_CONFIG_FILE_PATH"] = theirs.environment["DEADLINE_CONFIG_FILE_PATH"]
    ours.run("config", "set", "settings.log_level", "INFO")
    assert theirs.run("config", "get", "settings.log_level") == "INFO\n"
    theirs.run("config", "set", "settings.job_history_dir", "~/a b")
    assert ours.run("config", "get", "settings.job_history_dir") == "~/a b\n"
    shown = [json.loads(side.run("config", "show", "--output", "json")) for side in (ours, theirs)]
    assert {name: shown[0].get(name) for name in shown[1]} == shown[1]
