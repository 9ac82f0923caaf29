"""The worker against a real farm: what it reports, and that any process may be killed in the middle of a render."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from dl_worker.folder import poke, read_json, start_time, write_json
from own_worker import OwnWorker, wait_for

COUNT = "for i in 1 2 3 4 5 6 7 8; do echo count {{Task.Param.N}} $i; sleep 0.1; done"


def counted(tasks: int) -> list[str]:
    return [f"count {task} {i}" for task in range(1, tasks + 1) for i in range(1, 9)]


def lines_of(log: list[str]) -> list[str]:
    return [line for line in log if line.startswith("count ")]


def test_a_job_with_environments_and_two_steps(worker: OwnWorker) -> None:
    def step(name: str, script: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "script": {"actions": {"onRun": {"command": "sh", "args": ["-c", script]}}}, **more}

    def environment(name: str) -> dict[str, Any]:
        actions = {
            key: {"command": "sh", "args": ["-c", f"echo count {word} {name}; echo openjd_env: IN_{name}=yes"]}
            for key, word in (("onEnter", "+"), ("onExit", "-"))
        }
        return {"name": name, "script": {"actions": actions}}

    job_id = worker.submit_steps(
        [
            step("One", "echo count one $IN_Outer$IN_Inner", stepEnvironments=[environment("Inner")]),
            step("Two", "echo count two $IN_Outer$IN_Inner", dependencies=[{"dependsOn": "One"}]),
        ],
        template={"jobEnvironments": [environment("Outer")]},
    )
    assert worker.outcome(job_id) == "SUCCEEDED"
    log = lines_of(worker.whole_log(job_id))
    assert [line for line in log if line.startswith(("count one", "count two"))] == [
        "count one yesyes",
        "count two yes",
    ]
    assert log.index("count + Outer") < log.index("count + Inner") < log.index("count one yesyes")
    assert log.count("count + Outer") == log.count("count - Outer")
    assert log.count("count + Inner") == log.count("count - Inner") == 1
    assert {action["status"] for action in worker.actions(job_id)} == {"SUCCEEDED"}


def test_daemons_killed_in_the_middle_are_not_noticed(worker: OwnWorker) -> None:
    job_id = worker.submit(COUNT, 6)
    wait_for(lambda: b"count 1 1" in _bytes(worker))
    for name in ("dl-worker-schedule", "dl-worker-logs", "dl-worker-credentials", "dl-worker-schedule"):
        before = len(_bytes(worker))
        worker.kill(name)
        wait_for(lambda before=before: len(_bytes(worker)) > before + 100)
    assert worker.outcome(job_id) == "SUCCEEDED"
    assert [action["status"] for action in worker.actions(job_id)] == ["SUCCEEDED"] * 6
    assert len(worker.sessions(job_id)) == 1
    assert lines_of(worker.whole_log(job_id)) == counted(6)


def _bytes(worker: OwnWorker) -> bytes:
    """The log of the running session as it stands here."""
    for session in worker.folder.sessions():
        if os.path.exists(session.log):
            return Path(session.log).read_bytes()
    return b""


def test_all_daemons_killed_at_once_while_the_render_goes_on(worker: OwnWorker) -> None:
    job_id = worker.submit(COUNT, 2)
    wait_for(lambda: b"count 1 3" in _bytes(worker))
    for process in worker.processes.values():
        process.kill()
        process.wait()
    wait_for(lambda: b"count 1 8" in _bytes(worker))
    worker.start()
    assert worker.outcome(job_id) == "SUCCEEDED"
    assert len(worker.sessions(job_id)) == 1
    assert lines_of(worker.whole_log(job_id)) == counted(2)


def test_a_killed_session_fails_its_action_and_the_task_runs_again(worker: OwnWorker) -> None:
    leave = {"command": "sh", "args": ["-c", f"echo left >>{worker.base}/left"]}
    environment = {"name": "E", "script": {"actions": {"onEnter": {"command": "true"}, "onExit": leave}}}
    script = f"echo $$ >>{worker.base}/pids; {COUNT}"
    job_id = worker.submit(script, 2, template={"jobEnvironments": [environment]})
    wait_for(lambda: b"count 1 2" in _bytes(worker))
    (pid,) = worker.session_pids()
    os.kill(pid, signal.SIGKILL)
    assert worker.outcome(job_id) == "SUCCEEDED"
    _, first, *rest = worker.actions(job_id)
    assert first["status"] == "FAILED"
    message = worker.client.call(
        "GetSessionAction",
        worker.ids(queueId=worker.queue_id, jobId=job_id, sessionActionId=first["sessionActionId"]),
    )["progressMessage"]
    assert "killed by signal 9" in message
    done = [action for action in rest if "taskRun" in action["definition"] and action["status"] == "SUCCEEDED"]
    assert len(done) == 2
    # The environment of the killed session was exited as well.
    wait_for(lambda: (worker.base / "left").read_text() == "left\nleft\n")
    # What the killed one had started did not go on beside the second attempt.
    pids = (worker.base / "pids").read_text().split()
    assert start_time(int(pids[0])) is None
    assert "count 1 8" in worker.whole_log(job_id)


def test_a_failing_task_is_reported_with_its_reason(worker: OwnWorker) -> None:
    job_id = worker.submit("echo openjd_fail: out of paint; exit 9", maxRetriesPerTask=0)
    assert worker.outcome(job_id) == "FAILED"
    (action,) = worker.actions(job_id)
    told = worker.client.call(
        "GetSessionAction",
        worker.ids(queueId=worker.queue_id, jobId=job_id, sessionActionId=action["sessionActionId"]),
    )
    assert (told["status"], told["processExitCode"], told["progressMessage"]) == ("FAILED", 9, "out of paint")


def test_cancel_of_a_job(worker: OwnWorker) -> None:
    job_id = worker.submit("sleep 60", 3)
    wait_for(lambda: worker.job(job_id).get("taskRunStatus") == "RUNNING")
    worker.client.call("UpdateJob", worker.ids(queueId=worker.queue_id, jobId=job_id, targetTaskRunStatus="CANCELED"))
    assert worker.outcome(job_id) == "CANCELED"
    statuses = {action["status"] for action in worker.actions(job_id)}
    assert "CANCELED" in statuses
    assert "SUCCEEDED" not in statuses
    wait_for(lambda: not worker.session_pids())


def test_a_drain_interrupts_reports_and_leaves_nothing(own_worker: OwnWorker) -> None:
    job_id = own_worker.submit(f"echo $$ >{own_worker.base}/pid; sleep 60")
    wait_for((own_worker.base / "pid").exists)
    assert own_worker.stop("dl-worker-schedule") == 0
    assert own_worker.worker_status() == "STOPPED"
    (action,) = own_worker.actions(job_id)
    assert action["status"] == "INTERRUPTED"
    assert not own_worker.session_pids()
    assert start_time(int((own_worker.base / "pid").read_text())) is None
    assert own_worker.folder.enrolment()["status"] == "STOPPED"
    assert os.listdir(own_worker.folder.file("work")) == []
    # Back again it is the same worker, and the task runs.
    worker_id = own_worker.folder.worker()["worker_id"]
    assert own_worker.enrol() == worker_id
    own_worker.start("dl-worker-schedule")
    wait_for(lambda: own_worker.job(job_id).get("taskRunStatus") == "RUNNING")


def test_a_worker_that_the_farm_forgot_enrols_anew(own_worker: OwnWorker) -> None:
    old = own_worker.folder.worker()["worker_id"]
    ids = own_worker.ids(fleetId=own_worker.fleet_id, workerId=old)
    wait_for(lambda: own_worker.worker_status() == "IDLE")
    own_worker.stop("dl-worker-schedule")
    own_worker.client.call("DeleteWorker", ids)
    own_worker.folder.write_enrolment(**{**own_worker.folder.enrolment(), "status": "STARTED"})
    own_worker.start("dl-worker-schedule")
    wait_for(lambda: own_worker.folder.worker().get("worker_id") not in (None, old))
    assert own_worker.outcome(own_worker.submit("true")) == "SUCCEEDED"


def test_a_worker_that_the_farm_took_for_stopped_enrols_again_and_drops_its_work(own_worker: OwnWorker) -> None:
    job_id = own_worker.submit(f"echo $$ >>{own_worker.base}/pids; sleep 60")
    wait_for((own_worker.base / "pids").exists)
    assert own_worker.run("dl-worker-enroll", "--stop").returncode == 0
    wait_for(lambda: len((own_worker.base / "pids").read_text().split()) > 1)
    first, second = (own_worker.base / "pids").read_text().split()
    assert start_time(int(first)) is None
    assert start_time(int(second)) is not None
    wait_for(lambda: own_worker.job(job_id)["taskRunStatus"] == "RUNNING")


def test_nothing_of_the_agent_reaches_a_job(worker: OwnWorker) -> None:
    job_id = worker.submit("env; cat $AWS_CONFIG_FILE $AWS_SHARED_CREDENTIALS_FILE")
    assert worker.outcome(job_id) == "SUCCEEDED"
    log = "\n".join(worker.whole_log(job_id))
    fleet = Path(worker.folder.file("credentials", f"{worker.folder.worker()['worker_id']}.json")).read_text()
    secrets = re.findall(r'"(?:AccessKeyId|SecretAccessKey|SessionToken)": "([^"]+)"', fleet)
    assert len(secrets) == 3
    bootstrap = Path(worker.environment["AWS_SHARED_CREDENTIALS_FILE"]).read_text()
    secrets += re.findall(r"aws_(?:access_key_id|secret_access_key) *= *(\S+)", bootstrap)
    assert len(secrets) >= 5
    for secret in secrets:
        assert secret not in log
    assert worker.environment["AWS_CONFIG_FILE"] not in log
    assert str(worker.folder.file("credentials")) not in log
    assert f"AWS_PROFILE=deadline-{worker.queue_id}" in log


def test_the_queue_profile_works_for_a_job_and_goes_with_its_last_session(worker: OwnWorker) -> None:
    probe = "import boto3; print('count', boto3.client('sts').get_caller_identity()['Arn'])"
    job_id = worker.submit(f'python3 -c "{probe}"; stat -c "count %a %n" $(dirname $AWS_CONFIG_FILE)/*')
    assert worker.outcome(job_id) == "SUCCEEDED"
    log = lines_of(worker.whole_log(job_id))
    assert worker.fleet_id not in log[0] and "assumed-role" in log[0]
    modes = {line.split("/")[-1]: line.split()[1] for line in log[1:]}
    assert modes["aws_credentials.json"] == modes["config"] == modes["credentials"] == "600"
    assert modes["get_aws_credentials.sh"] == "700"
    wait_for(lambda: not os.listdir(worker.folder.file("queues")))


def test_redacted_values_do_not_reach_the_log(worker: OwnWorker) -> None:
    enter = {"command": "sh", "args": ["-c", "echo openjd_redacted_env: PASS=hunter2; echo it is hunter2"]}
    step = {"name": "S", "script": {"actions": {"onRun": {"command": "sh", "args": ["-c", "echo count $PASS"]}}}}
    job_id = worker.submit_steps(
        [step],
        template={
            "extensions": ["REDACTED_ENV_VARS"],
            "jobEnvironments": [{"name": "E", "script": {"actions": {"onEnter": enter}}}],
        },
    )
    assert worker.outcome(job_id) == "SUCCEEDED"
    log = worker.whole_log(job_id)
    assert "count ********" in log
    assert not any("hunter2" in line for line in log)


def test_many_tasks_each_reported_once(worker: OwnWorker) -> None:
    job_id = worker.submit("true", 150)
    assert worker.outcome(job_id) == "SUCCEEDED"
    actions = worker.actions(job_id)
    assert [action["status"] for action in actions] == ["SUCCEEDED"] * 150
    assert len({action["definition"]["taskRun"]["taskId"] for action in actions}) == 150


class MetadataService:
    """Stands for EC2's instance metadata service, which can't be had here."""

    def __init__(self) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        from threading import Thread

        answers: dict[str, str] = {"instance-id": "i-0123456789abcdef0"}
        self.answers = answers

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.answer("token" if self.path == "/latest/api/token" else None)

            def do_GET(self) -> None:
                known = self.headers.get("X-aws-ec2-metadata-token") == "token"
                self.answer(answers.get(self.path.removeprefix("/latest/meta-data/")) if known else None)

            def answer(self, text: str | None) -> None:
                self.send_response(200 if text else 404)
                self.send_header("Content-Length", str(len(text or "")))
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


def test_a_spot_notice_drains_the_worker_in_time(own_worker: OwnWorker) -> None:
    from datetime import UTC, datetime, timedelta

    metadata = MetadataService()
    own_worker.environment["AWS_EC2_METADATA_DISABLED"] = "false"
    own_worker.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = metadata.url
    own_worker.start("dl-worker-watch")
    job_id = own_worker.submit(f"echo $$ >{own_worker.base}/pid; sleep 60")
    wait_for((own_worker.base / "pid").exists)
    at = (datetime.now(UTC) + timedelta(seconds=8)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata.answers["spot/instance-action"] = f'{{"action": "terminate", "time": "{at}"}}'
    assert own_worker.processes["dl-worker-schedule"].wait(30) == 0
    assert own_worker.worker_status() == "STOPPED"
    (action,) = own_worker.actions(job_id)
    ids = own_worker.ids(queueId=own_worker.queue_id, jobId=job_id, sessionActionId=action["sessionActionId"])
    told = own_worker.client.call("GetSessionAction", ids)
    assert (told["status"], told["progressMessage"]) == ("INTERRUPTED", "the spot instance is to be interrupted")
    metadata.server.shutdown()


def test_a_copied_host_becomes_a_worker_of_its_own(own_worker: OwnWorker) -> None:
    metadata = MetadataService()
    own_worker.environment["AWS_EC2_METADATA_DISABLED"] = "false"
    own_worker.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = metadata.url
    own_worker.stop("dl-worker-schedule")
    first = own_worker.folder.worker()["worker_id"]
    assert own_worker.enrol() == first  # the instance is noted with the worker that there is
    metadata.answers["instance-id"] = "i-0fedcba9876543210"
    second = own_worker.enrol()
    assert second != first
    assert own_worker.folder.worker() == {"worker_id": second, "instance_id": "i-0fedcba9876543210"}
    metadata.server.shutdown()


def test_a_host_configuration_runs_once_before_any_work(own_worker: OwnWorker) -> None:
    own_worker.stop("dl-worker-schedule")
    script = "#!/bin/sh\necho made ready for $DEADLINE_FLEET_ID; echo x >>made; exit $(cat status)"
    fleet = own_worker.client.call("GetFleet", own_worker.ids(fleetId=own_worker.fleet_id))
    own_worker.client.call(
        "UpdateFleet",
        own_worker.ids(
            fleetId=own_worker.fleet_id,
            configuration=fleet["configuration"],
            hostConfiguration={"scriptBody": script, "scriptTimeoutSeconds": 300},
        ),
    )
    status, made = Path(own_worker.folder.file("status")), Path(own_worker.folder.file("made"))
    status.write_text("3")
    failed = own_worker.run("dl-worker-enroll")
    assert failed.returncode == 78
    assert "host configuration ended with status 3" in failed.stderr
    assert own_worker.worker_status() == "STOPPED"
    status.write_text("0")
    own_worker.enrol()
    own_worker.enrol()
    assert made.read_text() == "x\nx\n"  # the failed one and the good one; a third time it is skipped
    assert not os.path.exists(own_worker.folder.file("host_configuration.sh"))
    assert f"made ready for {own_worker.fleet_id}" in Path(own_worker.folder.file("log", "worker.jsonl")).read_text()


def test_credentials_that_run_out_are_renewed_under_a_running_task(worker: OwnWorker) -> None:
    job_id = worker.submit(f"until [ -e {worker.base}/gate ]; do sleep 0.05; done; cat $AWS_CONFIG_FILE >/dev/null")
    wait_for(lambda: os.listdir(worker.folder.file("queues")))
    keys = worker.folder.file("queues", worker.queue_id, "aws_credentials.json")
    wait_for(lambda: os.path.exists(keys))
    held = read_json(keys) or {}
    write_json(keys, {**held, "Expiration": "2020-01-01T00:00:00Z"})
    poke(worker.folder.wake("credentials"))
    wait_for(lambda: (read_json(keys) or {}).get("Expiration", "2020") > "2021")
    assert (read_json(keys) or {})["AccessKeyId"] != held["AccessKeyId"]
    assert os.stat(keys).st_mode & 0o777 == 0o600
    (worker.base / "gate").touch()
    assert worker.outcome(job_id) == "SUCCEEDED"


def test_a_session_with_a_log_that_cannot_be_is_refused(own_worker: OwnWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    from dl_worker import held_session
    from dl_worker.service import Farm as WorkerFarm
    from dl_worker.settings import read

    own_worker.stop("dl-worker-schedule")
    for name, value in own_worker.environment.items():
        monkeypatch.setenv(name, value)
    farm = WorkerFarm(own_worker.folder, read(), own_worker.folder.worker()["worker_id"])
    assigned = {"queueId": own_worker.queue_id, "jobId": "job-" + "0" * 32, "logConfiguration": {"logDriver": "syslog"}}
    folder = own_worker.folder.session("session-" + "0" * 32)
    session = held_session.create(folder, farm, own_worker.folder.enrolment() or {}, assigned, [], "/nowhere")
    session.start()
    actions = [{"sessionActionId": f"sa-{n}", "definition": {"taskRun": {"stepId": "step-1"}}} for n in range(2)]
    session.offer(actions)
    wait_for(lambda: session.look() or len(session.reports) == 2)
    assert [row["status"] for row in session.reports.values()] == ["FAILED", "NEVER_ATTEMPTED"]
    session.drop()
    wait_for(lambda: session.look() or session.has_ended)
    assert "syslog" in session.reports["sa-0"]["progress_message"]
