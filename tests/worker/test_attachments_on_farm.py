"""Inputs and outputs of a job on a real farm: what is synced, what counts as output, and in which order it is told."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from own_worker import OwnWorker, wait_for


def stored(worker: OwnWorker, root: Path) -> dict[str, Any]:
    """Hash and store the files below `root` as an input manifest; its entry for CreateJob."""
    pipeline = (
        f"dl-hash --no-cache {root} | dl-manifest | dl-upload --farm-id {worker.farm_id} --queue-id {worker.queue_id}"
    )
    done = subprocess.run(["bash", "-c", pipeline], env=worker.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    manifest = next(row for row in rows if row["type"] == "manifest")
    return {
        "rootPath": str(root),
        "rootPathFormat": "posix",
        "inputManifestPath": manifest["manifest_path"],
        "inputManifestHash": manifest["hash"],
    }


def step(name: str, script: str, after: str | None = None, tasks: int = 1) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": name,
        "parameterSpace": {"taskParameterDefinitions": [{"name": "N", "type": "INT", "range": f"1-{tasks}"}]},
        "script": {"actions": {"onRun": {"command": "bash", "args": ["-euc", script]}}},
    }
    if after:
        made["dependencies"] = [{"dependsOn": after}]
    return made


def manifests(worker: OwnWorker, job_id: str) -> list[list[dict[str, str]]]:
    """What each taskRun told of its outputs, in order."""
    found = []
    for action in worker.actions(job_id):
        if "taskRun" not in action["definition"]:
            continue
        ids = worker.ids(queueId=worker.queue_id, jobId=job_id, sessionActionId=action["sessionActionId"])
        found.append(worker.client.call("GetSessionAction", ids).get("manifests") or [])
    return found


def listed(worker: OwnWorker, manifest_path: str) -> dict[str, int]:
    """Path to size of what an output manifest lists."""
    done = worker.run(
        "dl-download", "--dry-run", f"--queue-id={worker.queue_id}", f"--manifest={manifest_path}", "--to=/nowhere"
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["path"]: row["size"] for row in rows if row["type"] == "file"}


def job_with(worker: OwnWorker, roots: list[dict[str, Any]], steps: list[dict[str, Any]], place: Path) -> str:
    return worker.submit_steps(
        steps,
        template={"parameterDefinitions": [{"name": "Place", "type": "PATH", "default": str(place)}]},
        parameters={"Place": {"path": str(place)}},
        attachments={"manifests": roots, "fileSystem": "COPIED"},
    )


def test_outputs_of_each_task_are_told_once_and_by_position(worker: OwnWorker, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for root in (first, second):
        (root / "out").mkdir(parents=True)
    (first / "scene.txt").write_text("scene")
    (second / "out" / "known.txt").write_text("known")
    script = """
        cd {{Param.Place}}
        grep -q scene scene.txt
        case {{Task.Param.N}} in
        1) mkdir -p out/deep; echo one >out/deep/1.txt; echo hidden >out/.hidden; echo 'odd' >'out/sp ace
new "line" Ünï.txt';;
        2) echo two >out/2.txt; echo more >>out/deep/1.txt; echo outside >elsewhere.txt;;
        3) true;;
        4) touch -d 2001-01-01 out/2.txt; ln -s /etc/passwd out/leak; ln -s gone out/dangling; ln -s 2.txt out/link;;
        esac
    """
    roots = [
        {**stored(worker, second), "outputRelativeDirectories": ["out"]},
        {**stored(worker, first), "outputRelativeDirectories": ["out"]},
    ]
    job_id = job_with(worker, roots, [step("Render", script, tasks=4)], first)
    assert worker.outcome(job_id) == "SUCCEEDED", "\n".join(worker.log(job_id))
    told = manifests(worker, job_id)
    assert [[bool(each) for each in task] for task in told] == [[False, True]] * 2 + [[False, False]] + [[False, True]]
    lists = [listed(worker, task[1]["outputManifestPath"]) for task in told if task[1]]
    assert lists[0] == {"out/deep/1.txt": 4, "out/.hidden": 7, 'out/sp ace\nnew "line" Ünï.txt': 4}
    assert lists[1] == {"out/2.txt": 4, "out/deep/1.txt": 9}
    assert lists[2] == {"out/2.txt": 4, "out/link": 4}
    key = told[0][1]["outputManifestPath"].split("/")
    assert key[:3] == [worker.farm_id, worker.queue_id, job_id]
    assert key[3].startswith("step-") and key[4].startswith("task-") and key[5].endswith("-1")
    wait_for(lambda: os.listdir(worker.folder.file("work")) == [])


def test_a_later_step_sees_what_a_former_one_made_of_an_input(worker: OwnWorker, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "out").mkdir(parents=True)
    (root / "out" / "state.txt").write_text("from the person\n")
    steps = [
        step("Bake", "cd {{Param.Place}}; echo from the bake >out/state.txt; echo new >out/new.txt"),
        step("Render", "cd {{Param.Place}}; cat out/state.txt out/new.txt; ls out", after="Bake"),
    ]
    job_id = job_with(worker, [{**stored(worker, root), "outputRelativeDirectories": ["out"]}], steps, root)
    assert worker.outcome(job_id) == "SUCCEEDED", "\n".join(worker.log(job_id))
    log = worker.whole_log(job_id)
    assert "from the bake" in log and "new" in log
    assert "from the person" not in log
    assert not any("(1)" in line for line in log)
    # What was synced is no output of the second step.
    assert [bool(each) for (each,) in manifests(worker, job_id)] == [True, False]
    # And a person gets it back.
    back = tmp_path / "back"
    done = worker.run("dl-download", f"--queue-id={worker.queue_id}", f"--to={back}", job_id)
    assert done.returncode == 0, done.stderr
    assert (back / "out" / "state.txt").read_text() == "from the bake\n"


def test_a_missing_input_fails_the_sync_and_nothing_else_is_tried(worker: OwnWorker, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_text("a")
    entry = stored(worker, root)
    entry["inputManifestPath"] = entry["inputManifestPath"].replace("_input", "0_input")
    job_id = worker.submit_steps([step("S", "true")], attachments={"manifests": [entry]}, maxRetriesPerTask=0)
    wait_for(lambda: worker.actions(job_id) and worker.actions(job_id)[0]["status"] == "FAILED")
    (action, *rest) = worker.actions(job_id)
    ids = worker.ids(queueId=worker.queue_id, jobId=job_id, sessionActionId=action["sessionActionId"])
    assert "there is no manifest" in worker.client.call("GetSessionAction", ids)["progressMessage"]
    assert all(each["status"] != "SUCCEEDED" for each in rest)


def test_an_output_that_cannot_be_stored_fails_the_task(worker: OwnWorker, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "out").mkdir(parents=True)
    (root / "a").write_text("a")
    script = "cd {{Param.Place}}/out; printf x >$'bad\\xff'; echo good >good"
    entry = {**stored(worker, root), "outputRelativeDirectories": ["out"]}
    job_id = worker.submit_steps(
        [step("S", script)],
        template={"parameterDefinitions": [{"name": "Place", "type": "PATH", "default": str(root)}]},
        parameters={"Place": {"path": str(root)}},
        attachments={"manifests": [entry]},
        maxRetriesPerTask=0,
    )
    assert worker.outcome(job_id) == "FAILED"
    (sync, task) = worker.actions(job_id)[:2]
    assert sync["status"] == "SUCCEEDED"
    ids = worker.ids(queueId=worker.queue_id, jobId=job_id, sessionActionId=task["sessionActionId"])
    told = worker.client.call("GetSessionAction", ids)
    assert "UTF-8" in told["progressMessage"]
    assert not any(told.get("manifests") or [])
