"""Whole jobs: submitted by the commands, run by real workers, read and downloaded again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ODD_NAMES = [
    "plain.txt",
    "with space.txt",
    'quote\'s "and" more.txt',
    "unicode \u00e9\u6771\u4eac\U0001f600.txt",
    "decomposed e\u0301.txt",
    "deep/er/still/file.bin",
    "-starts-with-dash",
    ".hidden",
    "back\\slash",
    "per%cent",
    "star*and?",
    "new\nline",
    "empty",
]

COPY = """
#!/usr/bin/env python3
import pathlib, shutil, sys
source, target = map(pathlib.Path, sys.argv[1:3])
for path in sorted(source.rglob("*")):
    if path.is_file():
        into = target / path.relative_to(source)
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_bytes(path.read_bytes()[::-1])
"""


def make_bundle(folder: Path, template: dict[str, Any], files: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(parents=True)
    body = {"specificationVersion": "jobtemplate-2023-09", **template}
    (folder / "template.json").write_text(json.dumps(body))
    for name, content in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def shell_step(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "script": {
            "actions": {"onRun": {"command": "bash", "args": ["{{Task.File.Run}}"]}},
            "embeddedFiles": [{"name": "Run", "type": "TEXT", "data": script}],
        },
        **more,
    }


def frames(text: str) -> dict[str, Any]:
    return {"taskParameterDefinitions": [{"name": "Frame", "type": "INT", "range": text}]}


def submit(farm: Any, bundle: Path, *options: str) -> str:
    done = farm.run(
        "bash", "-c", 'dl-bundle "$@" | dl-hash | dl-manifest | dl-upload | dl-submit', "x", str(bundle), *options
    )
    jobs = [row for row in map(json.loads, done.stdout.splitlines()) if row["type"] == "job"]
    assert len(jobs) == 1, done.stderr
    return jobs[0]["job_id"]


def wait(farm: Any, job: str, timeout_s: int = 120) -> tuple[int, list[dict[str, Any]]]:
    done = farm.run("dl-wait", "--timeout", str(timeout_s), job)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def jobs_of(farm: Any) -> list[dict[str, Any]]:
    done = farm.run("dl-ls", "jobs")
    assert done.returncode == 0, done.stderr
    return [row for row in map(json.loads, done.stdout.splitlines()) if row["type"] == "resource"]


def until(what: Any, timeout_s: float = 60) -> Any:
    """Poll `what` until it gives something true."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("it never came true")


@pytest.fixture
def copy_bundle(tmp_path: Path) -> Path:
    contents = {f"data/{name}": (b"" if name == "empty" else f"<{name}>".encode() * 50) for name in ODD_NAMES}
    parameters = [
        {"name": "Data", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "IN", "default": "data"},
        {"name": "Tool", "type": "PATH", "objectType": "FILE", "dataFlow": "IN", "default": "tool/copy.py"},
        {"name": "Out", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "OUT", "default": "out"},
    ]
    run = {"command": "python3", "args": ["{{Param.Tool}}", "{{Param.Data}}", "{{Param.Out}}/once"]}
    again = {"command": "python3", "args": ["{{Param.Tool}}", "{{Param.Out}}/once", "{{Param.Out}}/twice"]}
    steps = [
        {"name": "Once", "script": {"actions": {"onRun": run}}},
        {"name": "Twice", "script": {"actions": {"onRun": again}}, "dependencies": [{"dependsOn": "Once"}]},
    ]
    template = {"name": "copy", "parameterDefinitions": parameters, "steps": steps}
    return make_bundle(tmp_path / "bundle", template, {**contents, "tool/copy.py": COPY.lstrip().encode()})


def test_files_with_odd_names_go_through_two_steps_and_come_back_exact(
    farm: Any, copy_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pictures"
    job = submit(farm, copy_bundle, "-p", f"Out={out}")
    assert wait(farm, job)[0] == 0
    done = farm.run("dl-download", job)
    assert done.returncode == 0, done.stderr
    for name in ODD_NAMES:
        original = (copy_bundle / "data" / name).read_bytes()
        assert (out / "once" / name).read_bytes() == original[::-1]
        assert (out / "twice" / name).read_bytes() == original


def test_a_second_submission_sends_nothing_new(farm: Any, copy_bundle: Path, tmp_path: Path) -> None:
    (copy_bundle / "data" / "only here").write_text(str(tmp_path))
    script = 'dl-bundle "$1" -p "Out=$2" | dl-hash | dl-manifest | dl-upload'
    counts = []
    for _ in range(2):
        done = farm.run("bash", "-c", script, "x", str(copy_bundle), str(tmp_path / "out"))
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        counts.append([row["upload"] for row in rows if row["type"] == "file"])
    assert counts[0].count("new") >= 1
    assert set(counts[1]) == {"present"}


def test_a_failing_task_fails_the_job_and_is_named(farm: Any, tmp_path: Path) -> None:
    script = "echo frame {{Task.Param.Frame}}; test {{Task.Param.Frame}} != 3"
    bundle = make_bundle(
        tmp_path / "b", {"name": "third fails", "steps": [shell_step("Render", script, parameterSpace=frames("1-4"))]}
    )
    job = submit(farm, bundle, "--max-retries-per-task", "1")
    status, rows = wait(farm, job)
    assert status == 2
    failed = [row for row in rows if row["type"] == "task"]
    assert [row["parameters"] for row in failed] == [{"Frame": {"int": "3"}}]
    assert failed[0]["failure_retry_count"] == 2
    counts = next(row for row in rows if row["type"] == "job")["task_run_status_counts"]
    assert counts["SUCCEEDED"] == 3 and counts["FAILED"] == 1
    session = failed[0]["session_id"]
    until(lambda: "frame 3" in farm.run("dl-logs", job, "--session-id", session).stdout)


def test_a_step_waits_for_all_that_it_depends_on(farm: Any, tmp_path: Path) -> None:
    shared = tmp_path / "trace"
    shared.mkdir()
    mark = f"sleep 0.1; date +%s%N > '{shared}/NAME-{{{{Task.Param.Frame}}}}'"
    steps = [
        shell_step("A", mark.replace("NAME", "a"), parameterSpace=frames("1-3")),
        shell_step("B", mark.replace("NAME", "b"), parameterSpace=frames("1-2"), dependencies=[{"dependsOn": "A"}]),
        shell_step(
            "C", mark.replace("NAME", "c"), parameterSpace=frames("1"),
            dependencies=[{"dependsOn": "A"}, {"dependsOn": "B"}],
        ),
    ]  # fmt: skip
    job = submit(farm, make_bundle(tmp_path / "b", {"name": "ordered", "steps": steps}))
    assert wait(farm, job)[0] == 0
    times = {path.name: int(path.read_text()) for path in shared.iterdir()}
    assert len(times) == 6
    assert max(t for n, t in times.items() if n[0] == "a") < min(t for n, t in times.items() if n[0] == "b")
    assert max(t for n, t in times.items() if n[0] == "b") < times["c-1"]


def test_environments_wrap_the_tasks_and_give_variables(farm: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def environment(name: str) -> dict[str, Any]:
        def say(text: str) -> dict[str, Any]:
            return {"command": "bash", "args": ["-c", f"echo {text} {name} >>{trace}; echo 'openjd_env: {name}=set'"]}

        return {"name": name, "script": {"actions": {"onEnter": say("enter"), "onExit": say("exit")}}}

    step = shell_step("Only", f'echo "run $OUTER $INNER" >>{trace}', stepEnvironments=[environment("INNER")])
    template = {"name": "wrapped", "jobEnvironments": [environment("OUTER")], "steps": [step]}
    assert wait(farm, submit(farm, make_bundle(tmp_path / "b", template)))[0] == 0
    until(lambda: "exit OUTER" in trace.read_text())
    assert trace.read_text().splitlines() == [
        "enter OUTER", "enter INNER", "run set set", "exit INNER", "exit OUTER",
    ]  # fmt: skip


def test_a_broken_environment_fails_the_job(farm: Any, tmp_path: Path) -> None:
    broken = {"name": "Broken", "script": {"actions": {"onEnter": {"command": "bash", "args": ["-c", "exit 9"]}}}}
    template = {"name": "broken", "jobEnvironments": [broken], "steps": [shell_step("Never", "echo ran")]}
    job = submit(farm, make_bundle(tmp_path / "b", template), "--max-retries-per-task", "0")
    assert wait(farm, job)[0] == 2


def test_hundreds_of_tasks(farm: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.mkdir()
    script = f": > {trace}/{{{{Task.Param.Frame}}}}"
    template = {"name": "many", "steps": [shell_step("Many", script, parameterSpace=frames("1-200"))]}
    job = submit(farm, make_bundle(tmp_path / "b", template))
    status, rows = wait(farm, job, 240)
    assert status == 0
    assert next(row for row in rows if row["type"] == "job")["task_run_status_counts"]["SUCCEEDED"] == 200
    assert len(list(trace.iterdir())) == 200


def test_cancelling_stops_what_runs(farm: Any, tmp_path: Path) -> None:
    started = tmp_path / "started"
    template = {"name": "long", "steps": [shell_step("Long", f"echo $$ > {started}; sleep 600")]}
    job = submit(farm, make_bundle(tmp_path / "b", template))
    pid = int(until(lambda: started.exists() and started.read_text()))
    done = farm.run("deadline", "job", "cancel", "--job-id", job, "--yes")
    assert done.returncode == 0, done.stderr
    assert wait(farm, job)[0] == 3
    until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("stage", ["dl-bundle", "dl-hash", "dl-manifest", "dl-upload"])
def test_a_killed_stage_creates_no_job(farm: Any, copy_bundle: Path, tmp_path: Path, stage: str) -> None:
    """The stage is held at a named pipe, so that it is alive and mid-stream when it is killed."""
    before = {row["id"] for row in jobs_of(farm)}
    names = ["dl-bundle", "dl-hash", "dl-manifest", "dl-upload", "dl-submit"]
    processes: list[subprocess.Popen[bytes]] = []
    gate = os.pipe()
    source: Any = subprocess.DEVNULL
    for name in names:
        words = [name, str(copy_bundle), "-p", f"Out={tmp_path / 'o'}"] if name == "dl-bundle" else [name]
        processes.append(
            subprocess.Popen(
                words, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=farm.environment
            )
        )
        source = processes[-1].stdout
        if name == stage:
            # The next stage reads a pipe that this test feeds, and gets only part of what the stage wrote.
            held = processes[-1].stdout
            source = gate[0]
    assert held is not None
    first = held.readline()
    victim = processes[names.index(stage)]
    victim.kill()
    os.write(gate[1], first)
    os.close(gate[1])
    held.close()
    os.close(gate[0])
    for process in processes[:-1]:
        if process.stdout and process is not victim:
            process.stdout.close()
    last = processes[-1]
    assert last.stdout
    output = last.stdout.read()
    statuses = [process.wait(30) for process in processes]
    assert statuses[-1] not in (0, None)
    assert json.loads(output.splitlines()[-1])["ok"] is False
    assert {row["id"] for row in jobs_of(farm)} == before


def test_a_service_killed_in_the_middle_comes_back_and_the_job_ends_well(farm: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.mkdir()
    script = f"sleep 0.3; echo x >> {trace}/{{{{Task.Param.Frame}}}}"
    template = {"name": "survivor", "steps": [shell_step("Work", script, parameterSpace=frames("1-20"))]}
    job = submit(farm, make_bundle(tmp_path / "b", template))
    until(lambda: len(list(trace.iterdir())) >= 3)
    for name in ("dl-farmd", "dl-s3d"):
        for pid in pids_of(name, farm.dir):
            os.kill(pid, signal.SIGKILL)
    status, rows = wait(farm, job, 120)
    assert status == 0
    assert sorted(int(path.name) for path in trace.iterdir()) == list(range(1, 21))
    assert all(path.read_text() == "x\n" for path in trace.iterdir()), "a task ran twice"


def pids_of(name: str, folder: Path) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(name.encode()) for word in words[:3]) and str(folder).encode() in b"\0".join(words):
                yield int(entry.name)
