"""A stage of a submission dies at some moment: the whole fails, and no job comes of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from changes import CHANGES, STILL_RIGHT
from gate import Gate
from killing import store_of
from xxhash import xxh3_128_hexdigest

TEMPLATE = """
specificationVersion: jobtemplate-2023-09
name: never to be made
parameterDefinitions: [{name: In, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: in}]
steps: [{name: one, script: {actions: {onRun: {command: "true"}}}}]
"""
STAGES = ("dl-bundle", "dl-hash", "dl-manifest", "dl-upload", "dl-submit")
FILES = 200


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "shot"
    (folder / "in").mkdir(parents=True)
    for number in range(FILES):
        (folder / "in" / f"{number}.dat").write_bytes(os.urandom(8192))
    (folder / "template.yaml").write_text(TEMPLATE)
    return folder


def job_count(farm: Any) -> int:
    lines = farm.run("dl-ls", "--search", "never to be made", "jobs").stdout.splitlines()
    return int(json.loads(lines[-1])["total"])


def children_of(pid: int) -> dict[str, int]:
    """The stages that run, by the name of their command."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        for word in words:
            name = os.path.basename(word.decode())
            if name in (*STAGES, "dl-show"):
                found[name] = int(child)
    return found


def started(farm: Any, bundle: Path, home: Path) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """A submission whose stages have all been started."""
    process = subprocess.Popen(
        ["deadline", "bundle", "submit", str(bundle), "--yes"],
        env={**farm.environment, "HOME": str(home)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            stages = children_of(process.pid)
        except OSError:
            continue
        if len(stages) == len(STAGES) + 1:
            return process, stages
    process.kill()
    raise AssertionError("the stages did not start")


# The delay hits another moment of the victim's work; nothing depends on which.
@pytest.mark.parametrize(("victim", "delay_s"), [*zip(STAGES, (0.0, 0.1, 0.2, 0.2, 0.0), strict=True)])
def test_a_killed_stage_means_no_job(farm: Any, bundle: Path, tmp_path: Path, victim: str, delay_s: float) -> None:
    before = job_count(farm)
    process, stages = started(farm, bundle, tmp_path)
    # Held, the stage that creates the job can't be done before another one is killed, whatever the machine's load.
    os.kill(stages["dl-submit"], signal.SIGSTOP)
    time.sleep(delay_s)
    os.kill(stages[victim], signal.SIGKILL)
    os.kill(stages["dl-submit"], signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    if victim in ("dl-submit",) or process.returncode:
        assert process.returncode == 137, err
        assert f"{victim} was ended by signal 9" in err
        assert "Traceback" not in err
        assert job_count(farm) == before
    else:
        # The victim had done all of its work, and was gone, before the signal came.
        assert job_count(farm) == before + 1
    for pid in stages.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_files_that_change_on_their_way_mean_no_job(farm: Any, tmp_path: Path) -> None:
    """Each is reported by its path, the store is true to its names, and no job is made of it."""
    folder = tmp_path / "shot" / "in"
    folder.mkdir(parents=True)
    names = [name for name in CHANGES for _ in range(2)]
    dice = random.Random(3)
    paths = []
    for number, name in enumerate(names):
        # Every second one is large enough to be sent by the kernel, which nobody looks at.
        paths.append(folder / f"{number} {name}")
        paths[-1].write_bytes(dice.randbytes(200_000 if number % 2 else 5000))
    changing = [path for path in paths if path.name.partition(" ")[2] not in STILL_RIGHT]
    contents = {xxh3_128_hexdigest(path.read_bytes()) for path in paths}
    (folder.parent / "template.yaml").write_text(TEMPLATE)
    before = job_count(farm)
    hashed = farm.run("bash", "-c", 'set -o pipefail; dl-bundle "$0" | dl-hash | dl-manifest', str(folder.parent))
    assert hashed.returncode == 0, hashed.stderr
    gate = Gate(farm.environment["AWS_ENDPOINT_URL_S3"])
    gate.arm("requests", 1, lambda: [CHANGES[path.name.partition(" ")[2]](path) for path in paths])  # type: ignore[func-returns-value]
    try:
        done = farm.run(
            "bash", "-c", "set -o pipefail; dl-upload --force-s3-check | dl-submit",
            input=hashed.stdout, env={**farm.environment, "AWS_ENDPOINT_URL_S3": gate.url},
        )  # fmt: skip
    finally:
        gate.close()
    assert done.returncode == 65, done.stderr
    lines = done.stderr.splitlines()
    for path in changing:
        assert len([line for line in lines if line.startswith("dl-upload: ") and f"'{path}'" in line]) == 1, done.stderr
    assert len(lines) == len(changing) + 1
    assert "the stream is not whole: 'dl-upload' reported a failure" in lines[-1]
    assert job_count(farm) == before
    s3, prefix = store_of(farm)
    found = [row.key for page in s3.pages(f"{prefix}/") for row in page.found]
    assert not [key for key in found if "/Manifests/" in key]
    stored = {}
    for key in found:
        got = s3.get(key)
        assert got is not None
        stored[key.rpartition("/")[2].partition(".")[0]] = xxh3_128_hexdigest(got.data)
    assert all(name == hash for name, hash in stored.items())
    assert len(contents & stored.keys()) >= len(paths) - len(changing)


def test_a_killed_wrapper_leaves_no_stage_that_waits(farm: Any, bundle: Path, tmp_path: Path) -> None:
    process, stages = started(farm, bundle, tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    left = {
        name: Path(f"/proc/{pid}/stat").read_text() for name, pid in stages.items() if Path(f"/proc/{pid}").exists()
    }
    assert not left
