"""Every command of the reference client against the farm and, where ours has it, beside ours.

One farm with a prepared set of jobs serves the whole table. The reference must end each row with the row's status;
where a row compares, ours says the same but for what differs by nature: times, and folders of the two sides.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PRELOADED = Path(__file__).parent / "preloaded.py"
LIMIT_S = 60.0
TEMPLATE = """
specificationVersion: jobtemplate-2023-09
name: every command
description: all of them
parameterDefinitions:
- {name: In, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: in}
- {name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT, default: out}
- {name: Status, type: INT, default: 0}
steps:
- name: frames
  parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-2"}]}
  script:
    actions: {onRun: {command: bash, args: ["{{Task.File.run}}"]}}
    embeddedFiles:
    - name: run
      type: TEXT
      data: |
        echo frame {{Task.Param.N}} with $PACKAGES
        cp '{{Param.In}}/a.txt' '{{Param.Out}}/frame-{{Task.Param.N}}.txt'
        exit {{Param.Status}}
- name: sheet
  dependencies: [{dependsOn: frames}]
  script:
    actions: {onRun: {command: bash, args: ["-c", "cat '{{Param.Out}}'/frame-*.txt > '{{Param.Out}}/sheet.txt'"]}}
"""
ENVIRONMENT = """
specificationVersion: environment-2023-09
parameterDefinitions: [{name: Packages, type: STRING, default: none, description: "what\\nto have"}]
environment: {name: Packages, variables: {PACKAGES: "{{Param.Packages}}"}}
"""
NOWHERE = "0" * 32
CHANGING = {"elapsedTime", "nextToken", "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"}


class Row(NamedTuple):
    """A command, its status, and how ours compares.

    text: ours prints the same. json: the same but for times and secrets. summary: the last message is the same.
    refusal: ours refuses, too, in words and with a status of its own. runs: ours ends with the same status.
    Nothing: only the reference is run.
    """

    words: str
    status: int = 0
    ours: str = "text"


READING = [
    Row("auth status --output json"),
    Row("auth status --output verbose"),
    Row("auth login", 1, "refusal"),
    Row("auth logout", 1, "refusal"),
    Row("config show"),
    Row("config get defaults.farm_id"),
    Row("config get settings.nothing_such", 1, "refusal"),
    Row("farm list"),
    Row("farm get"),
    Row(f"farm get --farm-id farm-{NOWHERE}", 1, "refusal"),
    Row("fleet list"),
    Row("fleet get"),
    Row("fleet get --fleet-id {fleet}"),
    Row(f"fleet get --fleet-id fleet-{NOWHERE}", 1, "refusal"),
    Row("worker list --fleet-id {fleet}"),
    Row("worker list --fleet-id {fleet} --page-size 1 --item-offset 1"),
    Row("worker get --fleet-id {fleet} --worker-id {worker}"),
    Row(f"worker get --fleet-id {{fleet}} --worker-id worker-{NOWHERE}", 1, "refusal"),
    Row("queue list"),
    Row("queue get"),
    Row(f"queue get --queue-id queue-{NOWHERE}", 1, "refusal"),
    Row("queue paramdefs"),
    Row("queue export-credentials", ours="json"),
    Row("queue export-credentials --mode read", ours="json"),
    Row("job list"),
    Row("job list --page-size 1 --item-offset 1"),
    Row("job get --job-id {done}"),
    Row("job get {bad}"),
    Row("job get every"),
    Row("job get 'none has this name'"),
    Row(f"job get --job-id job-{NOWHERE}", 1, "refusal"),
    Row("job wait --job-id {done} --output json", ours="json"),
    Row("job wait --job-id {bad} --output json", 2, "json"),
    Row("job wait --job-id {bad} --output verbose", 2, "runs"),
    Row("job wait --job-id {idle} --output json", 4, "json"),
    Row("job logs --job-id {done} --output json --limit 1000", ours="json"),
    Row("job logs --job-id {done} --session-id {session} --output json", ours="json"),
    Row("job logs --job-id {done} --session-action-id {action} --output json", ours="json"),
    Row("job logs --job-id {done} --session-action-id {action} --output verbose", ours="runs"),
    Row("job logs --job-id {done} --output json --limit 3 --timestamp-format relative", ours="json"),
    Row("job logs --job-id {done} --start-time 2020-01-01T00:00:00Z --end-time 2020-01-02T00:00:00Z", ours="json"),
    Row("job trace-schedule --job-id {done} -v --trace-format chrome --trace-file {side}/trace.json", ours="runs"),
    Row("job trace-schedule --job-id {idle}", 1, "refusal"),
    Row("job download-output --job-id {idle} --yes --output verbose", ours="runs"),
    Row("job download-output --job-id {done} --step-id {step} --yes --conflict-resolution skip", ours="runs"),
    Row("job download-output --job-id {done} --yes --output json --conflict-resolution overwrite", ours="summary"),
    Row(
        "job download-output --job-id {done} --yes --include *sheet.txt --conflict-resolution overwrite", ours="summary"
    ),
    Row("job download-input --job-id {done} --yes --output json --conflict-resolution overwrite", ours="summary"),
    Row("job download-input --job-id {done} --yes --output verbose --conflict-resolution overwrite", ours="runs"),
    Row("bundle list {bundle}/.. --output json", ours=""),
    Row("bundle info {bundle} --output json", ours=""),
    Row("bundle submit {bundle} --yes --save-debug-snapshot {side}/snapshot", ours=""),
]
WRITING = {
    "settings": [
        Row("config set settings.log_level ERROR"),
        Row("config get settings.log_level"),
        Row("config clear settings.log_level"),
        Row("config show --output verbose", ours="runs"),
    ],
    "a link of the monitor's": [
        Row("config set settings.auto_accept true"),
        Row("handle-web-url deadline://download-output?farm-id={farm}&queue-id={queue}&job-id={done}", ours=""),
        Row("config clear settings.auto_accept"),
    ],
    "the end of a job and its return": [
        Row("bundle submit {bundle} --yes --name {name} --target-task-run-status suspended --priority 3", ours="runs"),
        Row("job wait", 4, "runs"),
        Row("job cancel --yes --mark-as failed", ours="runs"),
        Row("job wait --timeout 30 --max-poll-interval 1", 2, "runs"),
        Row("job requeue-tasks --yes --run-status failed", ours="runs"),
        Row("job cancel --yes", ours="runs"),
        Row("job wait --timeout 30 --max-poll-interval 1", 3, "runs"),
        Row("job requeue-tasks --yes --run-status succeeded", ours="runs"),
    ],
    "bundles that a queue's people share": [
        Row("bundle upload {bundle} --name shared", ours=""),
        Row("bundle list --queue --output json", ours=""),
        Row("bundle info --queue shared --output json", ours=""),
        Row("bundle hide shared", ours=""),
        Row("bundle list --queue --show-hidden --output verbose", ours=""),
        Row("bundle unhide shared", ours=""),
        Row("bundle upload {bundle} --name shared --yes", ours=""),
        Row("bundle download shared -o {side}/fetched --output json", ours=""),
        Row("bundle info {side}/fetched/shared", ours=""),
    ],
    "manifests and attachments": [
        Row("manifest snapshot --root {bundle}/in -d {side}/made -n made --json", ours="runs"),
        Row("manifest diff --root {bundle}/in --manifest {made} --json"),
        Row("manifest upload {made} --s3-cas-uri {store} --json", ours="runs"),
        Row("attachment upload -m {made} -r {bundle}/in --s3-root-uri {store} --json", ours="runs"),
        Row("manifest download {side}/made --job-id {done} --asset-type all --json", ours="runs"),
        # It refuses its own option --conflict-resolution, which it always sets, before it asks anyone.
        Row("attachment download -m {made} --s3-root-uri {store} --json", 1, ""),
    ],
    "outputs of a queue": [
        Row("queue sync-output --ignore-storage-profiles {since} --checkpoint-dir {side} --dry-run", ours="runs"),
        Row("queue sync-output --ignore-storage-profiles {since} --checkpoint-dir {side}", ours="runs"),
        Row("queue sync-output --storage-profile-id {profile} {since} --checkpoint-dir {side}", ours="runs"),
    ],
}  # fmt: skip
ELSEWHERE = {
    "bundle gui-submit": "test_windows.py",
    "config gui": "test_windows.py",
    "mcp-server": "test_mcp_server.py",
}


class Reference:
    """The reference client, loaded once: see preloaded.py."""

    def __init__(self, program: str, environment: dict[str, str], folder: Path) -> None:
        self.folder = folder
        python = Path(program).with_name("python3")
        self.process = subprocess.Popen(
            [python, PRELOADED], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.commands: list[str] = json.loads(self.process.stdout.readline())

    def run(self, words: list[str]) -> tuple[int, str, str]:
        """Status, standard output and standard error of a command."""
        assert self.process.stdin and self.process.stdout
        files = [self.folder / name for name in ("stdin", "stdout", "stderr")]
        for file in files:
            file.write_bytes(b"")
        request = {"words": words, "files": [str(file) for file in files], "folder": str(self.folder)}
        self.process.stdin.write(f"{json.dumps(request)}\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        return status, files[1].read_text(), files[2].read_text()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(LIMIT_S)


class Prepared(NamedTuple):
    values: dict[str, str]
    folder: Path
    environment: dict[str, dict[str, str]]
    reference: Reference

    def run(self, side: str, row: Row) -> tuple[int, str, str]:
        """What a side says to a row, its own folder and name made anonymous."""
        values = {**self.values, "side": str(self.folder / side), "name": f"{side}-job"}
        for made in (self.folder / side / "made").glob("made-*.manifest"):
            values["made"] = str(made)
        words = [word.format_map(values) for word in shlex.split(row.words)]
        if side == "theirs":
            status, text, errors = self.reference.run(words)
        else:
            done = subprocess.run(
                ["deadline", *words], env=self.environment[side], cwd=self.folder / side, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=LIMIT_S,
            )  # fmt: skip
            status, text, errors = done.returncode, done.stdout, done.stderr
        text = text.replace(str(self.folder / side), "<folder>").replace(f"{side}-job", "<name>")
        return status, re.sub(r"(?m)^(\s*estimatedTimeRemaining: )\d+ .*$", r"\1<time>", text), errors


@pytest.fixture(scope="module")
def prepared(
    reference: str, farm: Any, connect: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prepared]:
    """Jobs that ended well, ended badly and wait, on a queue with an environment and a storage profile."""
    folder = tmp_path_factory.mktemp("every")
    environment = {}
    for side in ("ours", "theirs", "setup"):
        (folder / side / "made").mkdir(parents=True)
        (folder / side / "config").write_bytes(farm.settings)
        own = {"HOME": str(folder / side), "DEADLINE_CONFIG_FILE_PATH": str(folder / side / "config")}
        environment[side] = {**farm.environment, **own}
    bundle = folder / "bundle"
    (bundle / "in").mkdir(parents=True)
    (bundle / "in" / "a.txt").write_text("content\n")
    (bundle / "template.yaml").write_text(TEMPLATE)
    (folder / "location").mkdir()

    client = connect("deadline")
    farm_id = client.list_farms()["farms"][0]["farmId"]
    queue_id = client.list_queues(farmId=farm_id)["queues"][0]["queueId"]
    fleet_id = client.list_fleets(farmId=farm_id)["fleets"][0]["fleetId"]
    queue = {"farmId": farm_id, "queueId": queue_id}
    client.create_queue_environment(**queue, priority=1, templateType="YAML", template=ENVIRONMENT)
    profile = client.create_storage_profile(
        farmId=farm_id, displayName="here", osFamily="LINUX",
        fileSystemLocations=[{"name": "shared", "path": str(folder / "location"), "type": "SHARED"}],
    )["storageProfileId"]  # fmt: skip
    client.update_queue(**queue, allowedStorageProfileIdsToAdd=[profile])

    def submit(*words: str) -> str:
        done = subprocess.run(
            ["deadline", "bundle", "submit", bundle, "--yes", *words], env=environment["setup"], capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        return done.stdout.split()[-1]

    jobs = {
        "done": submit(),
        "bad": submit("-p", "Status=3", "--max-retries-per-task", "0", "--name", "bad"),
        "idle": submit("--target-task-run-status", "SUSPENDED", "--name", "idle"),
    }
    for name, status in (("done", 0), ("bad", 2)):
        wait = ["deadline", "job", "wait", "--job-id", jobs[name]]
        assert subprocess.run(wait, env=environment["setup"], capture_output=True).returncode == status
    _until_sessions_ended(client, queue, jobs.values())
    job = {**queue, "jobId": jobs["done"]}
    step = next(step["stepId"] for step in client.list_steps(**job)["steps"] if step["name"] == "frames")
    task = client.list_tasks(**job, stepId=step)["tasks"][0]
    action = task["latestSessionActionId"]
    values = {
        **jobs, "since": "--bootstrap-lookback-minutes=60", "store": "s3://deadline-local/DeadlineCloud",
        "farm": farm_id, "queue": queue_id, "fleet": fleet_id, "profile": profile, "step": step,
        "worker": client.list_workers(farmId=farm_id, fleetId=fleet_id)["workers"][0]["workerId"],
        "bundle": str(bundle), "action": action, "session": f"session-{action.split('-')[1]}",
    }  # fmt: skip
    loaded = Reference(reference, environment["theirs"], folder / "theirs")
    try:
        yield Prepared(values, folder, environment, loaded)
    finally:
        loaded.close()


def _until_sessions_ended(client: Any, queue: dict[str, str], jobs: Iterable[str]) -> None:
    """Until the logs and workers of these jobs say nothing new."""
    limit = time.monotonic() + LIMIT_S
    for job in jobs:
        while not all("endedAt" in each for each in client.list_sessions(**queue, jobId=job)["sessions"]):
            assert time.monotonic() < limit, "sessions do not end"
            time.sleep(0.05)


def _plain(value: Any) -> Any:
    """JSON without what changes from call to call."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if name not in CHANGING}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _cut_last_moment(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Drop from ours what the reference leaves out: lines of the very millisecond in which the action ended."""
    surplus = ours["events"][len(theirs["events"]) :]
    if len({event["timestamp"] for event in surplus}) == 1:
        del ours["events"][len(theirs["events"]) :]
        ours["count"] -= len(surplus)


def _checked(prepared: Prepared, row: Row) -> None:
    status, wanted, errors = prepared.run("theirs", row)
    assert status == row.status, (row.words, wanted, errors)
    assert status or "Traceback" not in errors + wanted, (row.words, wanted, errors)
    if not row.ours:
        return
    status, got, errors = prepared.run("ours", row)
    if row.ours == "refusal":
        assert status >= 64 and not got and errors.count("\n") == 1, (row.words, status, got, errors)
        return
    assert status == row.status, (row.words, got, errors)
    if row.ours == "text":
        assert got == wanted
    elif row.ours == "json":
        found, theirs = json.loads(got), json.loads(wanted)
        if "--session-action-id" in row.words:
            _cut_last_moment(found, theirs)
        assert _plain(found) == _plain(theirs)
    elif row.ours == "summary":
        assert [line for line in got.splitlines() if '"summary"' in line] == [
            line for line in wanted.splitlines() if '"summary"' in line
        ]


@pytest.mark.parametrize("row", READING, ids=[row.words for row in READING])
def test_it_answers(prepared: Prepared, row: Row) -> None:
    _checked(prepared, row)


@pytest.mark.parametrize("rows", WRITING.values(), ids=WRITING)
def test_one_after_another(prepared: Prepared, rows: list[Row]) -> None:
    for row in rows:
        _checked(prepared, row)


def test_the_table_has_every_command(prepared: Prepared) -> None:
    rows = [row.words for row in [*READING, *(row for rows in WRITING.values() for row in rows)]]
    missing = [
        command for command in prepared.reference.commands
        if not any(f"{words} ".startswith(f"{command} ") for words in rows)
    ]  # fmt: skip
    assert missing == sorted(ELSEWHERE)
