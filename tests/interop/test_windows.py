"""The windows of the reference client, on a screen that nobody sees: they list what the farm has, and submit to it.

The queue has no environment with parameters: as the case may be the reference drops their fields while it loads a
bundle, and breaks when it submits.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

DRIVER = Path(__file__).parent / "window_driver.py"
LIMIT_S = 90
SCREEN = "1280x1000x24"
TEMPLATE = """
specificationVersion: jobtemplate-2023-09
name: from a window
parameterDefinitions:
- {name: In, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: in}
- {name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT, default: out}
steps:
- name: copy
  script: {actions: {onRun: {command: bash, args: ["-c", "cp '{{Param.In}}'/* '{{Param.Out}}'"]}}}
"""


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """The name of an X display, in memory only."""
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("Xvfb is not installed")
    reading, writing = os.pipe()
    words = [server, "-displayfd", str(writing), "-screen", "0", SCREEN, "-nolisten", "tcp"]
    process = subprocess.Popen(words, pass_fds=[writing], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading) as number:
            name = number.readline().strip()
        if not name:
            pytest.skip("Xvfb does not start")
        yield f":{name}"
    finally:
        process.terminate()
        process.wait(LIMIT_S)


class Desk(NamedTuple):
    program: str
    environment: dict[str, str]
    folder: Path

    def drive(self, words: list[str], steps: list[tuple[str, str]]) -> tuple[str, list[list[str]]]:
        """What a command with a window prints when someone took these steps; the texts on the screen at each."""
        report = self.folder / "report"
        shutil.rmtree(report, ignore_errors=True)
        report.mkdir()
        environment = {**self.environment, "WINDOW_STEPS": json.dumps(steps), "WINDOW_REPORT": str(report)}
        try:
            done = subprocess.run(
                [self.program, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=LIMIT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            state = report / "now.json"
            raise AssertionError(f"{error.stderr}\n{state.read_text() if state.exists() else 'no window'}") from None
        if "qt.qpa.plugin" in done.stderr:
            pytest.skip(f"Qt has no use of X here: {done.stderr}")
        assert done.returncode == 0, done.stdout + done.stderr
        seen = json.loads((report / "seen.json").read_text())
        assert [tuple(each["step"]) for each in seen] == steps, done.stdout
        return done.stdout, [each["texts"] for each in seen]


@pytest.fixture
def desk(screen: str, reference_with_windows: str, farm: Any, tmp_path: Path) -> Desk:
    driver = tmp_path / "driver"
    driver.mkdir()
    shutil.copy(DRIVER, driver / "sitecustomize.py")
    (tmp_path / "config").write_bytes(farm.settings)
    environment = {
        **farm.environment, "HOME": str(tmp_path), "DEADLINE_CONFIG_FILE_PATH": str(tmp_path / "config"),
        "DISPLAY": screen, "QT_QPA_PLATFORM": "xcb", "PYTHONPATH": str(driver),
    }  # fmt: skip
    bundle = tmp_path / "bundle"
    (bundle / "in").mkdir(parents=True)
    (bundle / "in" / "a.txt").write_text("content\n")
    (bundle / "template.yaml").write_text(TEMPLATE)
    return Desk(reference_with_windows, environment, tmp_path)


def test_a_bundle_that_the_queue_shares_is_found_and_submitted(desk: Desk, farm: Any) -> None:
    upload = [desk.program, "bundle", "upload", str(desk.folder / "bundle"), "--name", "shared", "--yes"]
    subprocess.run(upload, env=desk.environment, check=True, capture_output=True, timeout=LIMIT_S)
    steps = [
        ("press", "Queue"), ("choose", "shared"), ("see", "copy"), ("press", "Select"), ("see", "Local queue"),
        ("press", "Submit"), ("press", "OK"), ("see", "Submission complete"), ("press", "OK"),
        ("close", "Deadline Cloud"),
    ]  # fmt: skip
    printed, _ = desk.drive(["bundle", "gui-submit", "--browse", "--output", "json"], steps)
    job_id = json.loads(printed)["jobId"]
    wait = farm.run("deadline", "job", "wait", "--job-id", job_id, "--timeout", str(LIMIT_S))
    assert wait.returncode == 0, wait.stdout + wait.stderr


def test_a_bundle_is_submitted(desk: Desk, farm: Any, connect: Callable[[str], Any]) -> None:
    client = connect("deadline")
    ids = {"farmId": client.list_farms()["farms"][0]["farmId"]}
    ids["queueId"] = client.list_queues(**ids)["queues"][0]["queueId"]
    client.create_queue(farmId=ids["farmId"], displayName="another queue")
    steps = [
        ("see", "Local farm"), ("see", "another queue"), ("press", "Submit"), ("press", "OK"),
        ("see", "Submission complete"), ("press", "OK"), ("close", "Deadline Cloud"),
    ]  # fmt: skip
    words = ["bundle", "gui-submit", str(desk.folder / "bundle"), "--output", "json", "--name", "by hand"]
    printed, seen = desk.drive(words, steps)
    assert {"(us-west-2) Local farm", "Local queue", "another queue", "by hand"} <= set(seen[2])
    assert any("/bundle/in/a.txt" in text for text in seen[3]), "it asks before it uploads"
    job_id = json.loads(printed)["jobId"]
    wait = farm.run("deadline", "job", "wait", "--job-id", job_id, "--timeout", str(LIMIT_S))
    assert wait.returncode == 0, wait.stdout + wait.stderr
    assert client.get_job(**ids, jobId=job_id)["name"] == "by hand"
    farm.run("deadline", "job", "download-output", "--job-id", job_id, "--yes", check=True)
    assert (desk.folder / "bundle" / "out" / "a.txt").read_text() == "content\n"


def test_settings_are_shown(desk: Desk) -> None:
    _, [texts, _] = desk.drive(["config", "gui"], [("see", "dl-farm"), ("press", "Cancel")])
    assert "AWS profile" in texts
