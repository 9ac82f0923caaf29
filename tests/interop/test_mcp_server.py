"""The reference client's MCP server, driven over its pipes by the protocol's own client: every tool that it offers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).parent / "mcp_session.py"
LIMIT_S = 60
TEMPLATE = """
specificationVersion: jobtemplate-2023-09
name: asked for
parameterDefinitions:
- {name: Word, type: STRING, default: none}
- {name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT, default: out}
steps:
- name: say
  parameterSpace: {taskParameterDefinitions: [{name: N, type: INT, range: "1-2"}]}
  script:
    actions:
      onRun: {command: bash, args: ["-c", "echo said {{Param.Word}}; echo {{Param.Word}} > '{{Param.Out}}/{{Task.Param.N}}.txt'"]}
"""  # noqa: E501


class Session:
    """A running server and its client."""

    def __init__(self, program: str, environment: dict[str, str], log: Path) -> None:
        python = Path(program).with_name("python3")
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [python, DRIVER, program, "mcp-server"], env=environment, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self.process.stdin and self.process.stdout
        self.to, self.back = self.process.stdin, self.process.stdout
        about = json.loads(self.back.readline())
        assert about["server"] == "deadline-cloud"
        self.tools: list[str] = about["tools"]
        self.called: set[str] = set()

    def call(self, tool: str, **arguments: Any) -> Any:
        """What a tool answers, which must be no error: the server calls those a success as well."""
        name = f"deadline_{tool}"
        self.called.add(name)
        self.to.write(f"{json.dumps([name, arguments])}\n")
        self.to.flush()
        answer = json.loads(self.back.readline())
        assert not answer["error"], (tool, answer)
        value = json.loads(answer["text"][0])
        assert not (isinstance(value, dict) and value.get("error")), (tool, value)
        return value

    def close(self) -> None:
        self.to.close()
        self.process.wait(LIMIT_S)


@pytest.fixture
def session(reference_with_mcp: str, farm: Any, tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "config").write_bytes(farm.settings)
    own = {"HOME": str(tmp_path), "DEADLINE_CONFIG_FILE_PATH": str(tmp_path / "config")}
    made = Session(reference_with_mcp, {**farm.environment, **own}, tmp_path / "log")
    try:
        yield made
    finally:
        made.close()


def test_an_assistant_finds_its_way_submits_and_fetches(
    session: Session, connect: Callable[[str], Any], farm: Any, tmp_path: Path
) -> None:
    bundle = tmp_path / "asked"
    bundle.mkdir()
    (bundle / "template.yaml").write_text(TEMPLATE)
    # Its argument job_parameters, JSON in a string, never arrives: the package of the protocol has parsed it by then.
    (bundle / "parameter_values.yaml").write_text("parameterValues: [{name: Word, value: hello}]")

    assert session.call("check_authentication_status")["_name_"] == "AUTHENTICATED"
    farm_id = session.call("list_farms")["farms"][0]["farmId"]
    queue_id = session.call("list_queues", farmId=farm_id)["queues"][0]["queueId"]
    fleet_id = session.call("list_fleets", farmId=farm_id)["fleets"][0]["fleetId"]
    client = connect("deadline")
    profile = client.create_storage_profile(
        farmId=farm_id, displayName="here", osFamily="LINUX", fileSystemLocations=[]
    )["storageProfileId"]
    client.update_queue(farmId=farm_id, queueId=queue_id, allowedStorageProfileIdsToAdd=[profile])
    profiles = session.call("list_storage_profiles_for_queue", farmId=farm_id, queueId=queue_id)["storageProfiles"]
    assert [each["storageProfileId"] for each in profiles] == [profile]

    sent = session.call(
        "submit_job", job_bundle_dir=str(bundle), name="by an assistant", farm_id=farm_id, queue_id=queue_id,
        priority=60, max_worker_count=1,
    )  # fmt: skip
    job_id = sent["job_id"]
    assert sent["status"] == "success"
    waited = farm.run("deadline", "job", "wait", "--job-id", job_id, "--timeout", str(LIMIT_S))
    assert waited.returncode == 0, waited.stdout

    job = {"farmId": farm_id, "queueId": queue_id, "jobId": job_id}
    told = session.call("get_job", **job)
    assert (told["name"], told["priority"], told["taskRunStatus"]) == ("by an assistant", 60, "SUCCEEDED")
    assert [each["jobId"] for each in session.call("list_jobs", farmId=farm_id, queueId=queue_id)["jobs"]] == [job_id]
    for words in ({"nameContains": "assistant"}, {"taskRunStatus": "SUCCEEDED", "pageSize": 1}):
        found = session.call("search_jobs", farmId=farm_id, queueIds=[queue_id], **words)
        assert (found["totalResults"], found["jobs"][0]["jobId"]) == (1, job_id)
    assert session.call("search_jobs", nameContains="nobody's")["jobs"] == []
    step = session.call("list_steps", **job)["steps"][0]
    assert step["taskRunStatusCounts"]["SUCCEEDED"] == 2
    tasks = session.call("list_tasks", **job, stepId=step["stepId"])["tasks"]
    assert [task["parameters"]["N"]["int"] for task in tasks] == ["1", "2"]

    session_id = session.call("list_sessions", **job)["sessions"][0]["sessionId"]
    assert session.call("get_session", **job, sessionId=session_id)["fleetId"] == fleet_id
    ids = {"farm_id": farm_id, "queue_id": queue_id, "job_id": job_id, "session_id": session_id}
    lines = [event["message"] for event in session.call("get_session_logs", **ids, limit=500)["events"]]
    assert lines.count("said hello") == 2
    both = session.call("get_session_and_worker_logs", **ids, limit=200)
    assert both["session_logs"]["count"] and both["worker_logs"]["count"], both

    fetched = session.call("download_job_output", farm_id=farm_id, queue_id=queue_id, job_id=job_id)
    assert fetched["status"] == "success"
    assert [(bundle / "out" / f"{n}.txt").read_text() for n in (1, 2)] == ["hello\n"] * 2

    at = {"farm_id": farm_id, "queue_id": queue_id}
    assert session.call("upload_bundle", job_bundle=str(bundle), name="shared", **at)["success"]
    assert [each["name"] for each in session.call("list_shared_bundles", **at)["bundles"]] == ["shared"]
    path = session.call("download_bundle", bundle_name="shared", output_dir=str(tmp_path / "to"), **at)["path"]
    assert (Path(path) / "template.yaml").read_text() == TEMPLATE

    assert session.called == set(session.tools), "every tool was called"
