"""Programs that others wrote for AWS, by what `dl-farm env` sets: the AWS CLI, s5cmd and rclone."""

from __future__ import annotations

import filecmp
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from agents import until

LIMIT_S = 60
BIG = 11_000_000  # bytes: in parts, for each of these programs
FILES = {"plain.txt": 1, "empty": 0, "é ☃.txt": 2000, "plus+&=?#%20.txt": 30, "deep/er/x": 5, "deep/big": BIG}
TEMPLATE = """
specificationVersion: jobtemplate-2023-09
name: from the AWS CLI
parameterDefinitions: [{name: Word, type: STRING}]
steps:
- name: say
  parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-3"}]}
  script: {actions: {onRun: {command: bash, args: ["-c", "echo {{Param.Word}} {{Task.Param.N}}"]}}}
"""


class Client:
    def __init__(self, programs: Path, farm: Any, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.environment = {
            **farm.environment, "HOME": str(folder), "AWS_PAGER": "", "RCLONE_CONFIG": str(folder / "rclone.conf"),
        }  # fmt: skip
        self.environment.pop("AWS_CA_BUNDLE", None)  # rclone can't have one
        (folder / "rclone.conf").write_text(
            f"[farm]\ntype = s3\nprovider = Other\nenv_auth = true\nregion = {self.environment['AWS_REGION']}\n"
            f"endpoint = {self.environment['AWS_ENDPOINT_URL_S3']}\n"
        )

    def run(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [self.programs / words[0], *words[1:]], env=self.environment, cwd=self.folder, capture_output=True,
            text=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S,
        )  # fmt: skip
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def aws(self, *words: str) -> Any:
        text = self.run("aws", *words, "--output", "json")
        return json.loads(text) if text else None


@pytest.fixture
def client(other_clients: Path, farm: Any, tmp_path: Path) -> Client:
    return Client(other_clients, farm, tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path, size in FILES.items():
        file = tmp_path / "tree" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(range(251)) * (size // 251) + b"x" * (size % 251))
    return tmp_path / "tree"


def is_same(one: Path, other: Path) -> bool:
    names = [sorted(str(path.relative_to(top)) for path in top.rglob("*")) for top in (one, other)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(one, other, list(FILES), shallow=False)[1:])


def test_the_aws_cli_makes_a_job_and_reads_its_log(client: Client, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(TEMPLATE)
    farm_id = client.aws("deadline", "list-farms", "--query", "farms[0].farmId")
    at = ["--farm-id", farm_id]
    queue_id = client.aws("deadline", "list-queues", *at, "--query", "queues[0].queueId")
    queue = [*at, "--queue-id", queue_id]
    jobs = [
        client.aws(
            "deadline", "create-job", *queue, "--template", "file://job.yaml", "--template-type", "YAML", "--priority",
            "50", "--parameters", json.dumps({"Word": {"string": word}}), "--query", "jobId",
        )
        for word in ("hello", "goodbye")
    ]  # fmt: skip
    for job in jobs:
        client.aws("deadline", "wait", "job-create-complete", *queue, "--job-id", job)
        client.aws("deadline", "wait", "job-succeeded", *queue, "--job-id", job)
    found = client.aws(
        "deadline", "search-jobs", *at, "--queue-ids", queue_id, "--item-offset", "0", "--page-size", "1",
        "--sort-expressions", '[{"fieldSort": {"name": "CREATED_AT", "sortOrder": "DESCENDING"}}]',
        "--filter-expressions", '{"operator": "AND", "filters": [{"searchTermFilter": {"searchTerm": "AWS CLI"}}]}',
    )  # fmt: skip
    assert (found["totalResults"], [job["jobId"] for job in found["jobs"]]) == (2, [jobs[1]])
    step = client.aws("deadline", "list-steps", *queue, "--job-id", jobs[0], "--query", "steps[0].stepId")
    tasks = client.aws("deadline", "list-tasks", *queue, "--job-id", jobs[0], "--step-id", step, "--page-size", "2")
    assert [task["runStatus"] for task in tasks["tasks"]] == ["SUCCEEDED"] * 3
    group = f"/aws/deadline/{farm_id}/{queue_id}"
    assert group in client.aws("logs", "describe-log-groups", "--query", "logGroups[].logGroupName")
    # A worker sends what it has a moment after the task is done.
    wanted = {f"hello {n}" for n in (1, 2, 3)}
    ask = ["logs", "filter-log-events", "--log-group-name", group, "--filter-pattern", '"hello"']
    until(lambda: wanted <= {event["message"] for event in client.aws(*ask)["events"]})
    error = client.run("aws", "deadline", "get-job", *queue, "--job-id", f"job-{'0' * 32}", status=255)
    assert "ResourceNotFoundException" in error
    assert client.aws("sts", "get-caller-identity")["Account"].isdigit()


def test_the_aws_cli_keeps_files(client: Client, tree: Path, tmp_path: Path) -> None:
    client.run("aws", "s3", "mb", "s3://a-bucket")
    client.run("aws", "s3", "sync", "tree", "s3://a-bucket/kept", "--quiet")
    assert client.run("aws", "s3", "sync", "tree", "s3://a-bucket/kept", "--dryrun") == ""
    client.run("aws", "s3", "sync", "s3://a-bucket/kept", "back", "--quiet")
    assert is_same(tree, tmp_path / "back")
    head = client.aws("s3api", "head-object", "--bucket", "a-bucket", "--key", "kept/deep/big")
    assert head["ContentLength"] == BIG and head["ETag"].endswith('-2"')
    client.run("aws", "s3", "mv", "s3://a-bucket/kept/plain.txt", "s3://a-bucket/moved", "--quiet")
    assert "moved" in client.run("aws", "s3", "ls", "s3://a-bucket/")
    client.run("aws", "s3", "rb", "s3://a-bucket", "--force")
    assert "NoSuchBucket" in client.run("aws", "s3", "ls", "s3://a-bucket/", status=255)


def test_s5cmd_keeps_files(client: Client, tree: Path, tmp_path: Path) -> None:
    s5cmd = ["s5cmd", "--log", "error", "--endpoint-url", client.environment["AWS_ENDPOINT_URL_S3"]]
    client.run(*s5cmd, "cp", "--part-size", "5", "tree/", "s3://deadline-local/s5/")
    client.run(*s5cmd, "cp", "s3://deadline-local/s5/*", "back/")
    assert is_same(tree, tmp_path / "back")
    (tree / "plain.txt").unlink()
    client.run(*s5cmd, "sync", "--delete", "tree/", "s3://deadline-local/s5/")
    listed = client.run("s5cmd", *s5cmd[3:], "ls", "s3://deadline-local/s5/*").splitlines()
    assert len(listed) == len(FILES) - 1
    client.run(*s5cmd, "rm", "s3://deadline-local/s5/*")


def test_rclone_keeps_files(client: Client, tree: Path, tmp_path: Path) -> None:
    client.run("rclone", "sync", "--s3-upload-cutoff=5M", "--s3-chunk-size=5M", "tree", "farm:deadline-local/rclone")
    client.run("rclone", "check", "--download", "tree", "farm:deadline-local/rclone")
    client.run("rclone", "copy", "farm:deadline-local/rclone", "back")
    assert is_same(tree, tmp_path / "back")
    # It keeps files' times as metadata of its own.
    assert (tmp_path / "back/plain.txt").stat().st_mtime_ns == (tree / "plain.txt").stat().st_mtime_ns
    client.run("rclone", "moveto", "farm:deadline-local/rclone/deep/big", "farm:deadline-local/rclone/big")
    assert client.run("rclone", "lsf", "farm:deadline-local/rclone/deep") == "er/\n"
    client.run("rclone", "purge", "farm:deadline-local/rclone")
    assert "rclone/" not in client.run("rclone", "lsf", "farm:deadline-local")
