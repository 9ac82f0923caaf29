"""Rules of the worker protocol, one by one, against a farm that answers as it is told."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dl_worker import entities, held_session, host, job_environment, journal, processes, service, settings
from dl_worker.dl_worker_watch import Metrics, ask_for_drain, spot_left_s
from dl_worker.folder import Folder, SessionFolder, read_json
from dl_worker.held_session import HeldSession, update_of

from libdeadline import statuses
from libdeadline.aws import ServiceError
from libdeadline.errors import Trouble

JOB = "job-" + "a" * 32
NOW = "2026-01-02T03:04:05.678Z"


def refused(code: str, http_status: int, **response: Any) -> ServiceError:
    return ServiceError("Operation", code, "no", http_status, response)


# What an answer means


@pytest.mark.parametrize(
    ("trouble", "passing"),
    [
        (refused("ThrottlingException", 429), True),
        (refused("InternalServerException", 500), True),
        (refused("InternalServerErrorException", 500), True),
        (refused("500", 503), True),
        (refused("ConflictException", 409, reason="CONCURRENT_MODIFICATION"), True),
        (refused("ConflictException", 409, reason="STATUS_CONFLICT"), False),
        (refused("AccessDeniedException", 403), False),
        (refused("ValidationException", 400), False),
        (refused("ResourceNotFoundException", 404), False),
        (Trouble("cannot reach", statuses.UNAVAILABLE), True),
        (Trouble("not whole", statuses.TRY_AGAIN), True),
        (Trouble("no credentials", statuses.NOT_ALLOWED), False),
    ],
)
def test_what_is_worth_another_try(trouble: Trouble, passing: bool) -> None:
    assert service.is_passing(trouble) is passing


def test_a_conflict_is_about_one_resource() -> None:
    trouble = refused(
        "ConflictException", 409, reason="STATUS_CONFLICT", resourceId="worker-1", context={"status": "STOPPING"}
    )
    assert service.conflict(trouble, "worker-1") == "STOPPING"
    assert service.conflict(trouble, "worker-2") is None
    assert service.conflict(refused("ConflictException", 409, reason="RESOURCE_IN_USE", resourceId="w"), "w") is None
    assert service.conflict(refused("ConflictException", 409, reason="STATUS_CONFLICT", resourceId="w"), "w") == ""


def test_waits_grow_to_half_a_minute_and_respect_what_the_service_asks() -> None:
    for attempt in range(60):
        delay = service.backoff_s(attempt)
        assert 0 <= delay <= min(2.0 ** (attempt - 1), 30)
        assert attempt <= 11 or delay >= 24
        assert 50 <= service.backoff_s(attempt, 50) <= 60


def test_persist_asks_until_it_may_not() -> None:
    answers: list[Any] = [refused("ThrottlingException", 429), refused("500", 500), {"ok": True}]
    waits: list[float] = []

    def call() -> dict[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Trouble):
            raise answer
        return answer

    assert service.persist(call, waits.append) == {"ok": True}
    assert len(waits) == 2
    answers = [refused("AccessDeniedException", 403)]
    with pytest.raises(ServiceError):
        service.persist(call, waits.append)


# What a report holds


def report(**fields: Any) -> dict[str, Any]:
    return {"session_action_id": "sa", "status": "RUNNING", "started_at": NOW, **fields}


def test_a_running_report() -> None:
    update = update_of(report(updated_at=NOW, progress_percent=12.5, progress_message="hi"))
    assert update == {
        "startedAt": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
        "updatedAt": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
        "progressPercent": 12.5,
        "progressMessage": "hi",
    }


def test_a_final_report() -> None:
    row = report(status="SUCCEEDED", ended_at=NOW, process_exit_code=0, progress_percent=0, manifests=[{}])
    assert update_of(row).keys() == {"completedStatus", "startedAt", "endedAt", "processExitCode", "manifests"}
    assert "updatedAt" not in update_of(report(status="FAILED", ended_at=NOW, updated_at=NOW))


def test_never_attempted_carries_no_times() -> None:
    row = report(status="NEVER_ATTEMPTED", ended_at=NOW, progress_message="why")
    assert update_of(row) == {"completedStatus": "NEVER_ATTEMPTED", "progressMessage": "why"}


# Entities


class Farm:
    """Answers BatchGetJobEntity from `known`; remembers what it was asked."""

    def __init__(self, **known: Any) -> None:
        self.known, self.asked = known, []
        self.trouble: list[Trouble] = []
        self.too_big_over = 100

    def call(self, operation: str, identifiers: list[dict[str, dict[str, str]]]) -> dict[str, Any]:
        assert operation == "BatchGetJobEntity"
        assert 1 <= len(identifiers) <= 10
        self.asked.append([entities.key_of(each) for each in identifiers])
        if self.trouble:
            raise self.trouble.pop(0)
        found, errors = [], []
        for number, each in enumerate(identifiers):
            ((kind, ids),) = each.items()
            if number >= self.too_big_over:
                errors.append({kind: {**ids, "code": "MaxPayloadSizeExceeded", "message": "too big"}})
            elif ids.get("stepId", "").endswith("bad"):
                errors.append({kind: {**ids, "code": "AccessDeniedException", "message": "not yours"}})
            else:
                found.append({kind: {**ids, "extra": "unknown members are welcome"}})
        return {"entities": found, "errors": errors}


def task(step: str) -> dict[str, Any]:
    return {"taskRun": {"stepId": step, "parameters": {}}}


def test_each_entity_is_asked_for_once(tmp_path: Path) -> None:
    folder, farm = SessionFolder(str(tmp_path)), Farm()
    environment = f"JOB:{JOB}:Env / with ⅓ odd name"
    wanted = [
        each
        for definition in (
            task("step-1"), task("step-1"), {"envEnter": {"environmentId": environment}},
            {"envExit": {"environmentId": environment}}, {"syncInputJobAttachments": {}},
            {"syncInputJobAttachments": {"stepId": "step-1"}},
        )
        for each in entities.needed(JOB, definition)
    ]  # fmt: skip
    assert entities.fetch(farm, folder, wanted) == {}  # type: ignore[arg-type]
    assert farm.asked == [["stepDetails:step-1", f"environmentDetails:{environment}", f"jobAttachmentDetails:{JOB}"]]
    assert entities.fetch(farm, folder, wanted) == {}  # type: ignore[arg-type]
    assert len(farm.asked) == 1
    assert (read_json(folder.entity("environmentDetails", environment)) or {})["environmentId"] == environment


def test_many_entities_go_ten_at_a_time_and_big_ones_again(tmp_path: Path) -> None:
    folder, farm = SessionFolder(str(tmp_path)), Farm()
    farm.too_big_over = 4
    wanted = [each for n in range(23) for each in entities.needed(JOB, task(f"step-{n}"))]
    assert entities.fetch(farm, folder, wanted) == {}  # type: ignore[arg-type]
    assert all(os.path.exists(folder.entity("stepDetails", f"step-{n}")) for n in range(23))


def test_an_entity_that_is_refused_is_named_with_the_reason(tmp_path: Path) -> None:
    folder, farm = SessionFolder(str(tmp_path)), Farm()
    wanted = [*entities.needed(JOB, task("step-bad")), *entities.needed(JOB, task("step-good"))]
    failed = entities.fetch(farm, folder, wanted)  # type: ignore[arg-type]
    assert failed == {"stepDetails:step-bad": "AccessDeniedException: not yours"}


def test_a_broken_service_is_asked_a_few_times_and_a_throttling_one_for_ever(tmp_path: Path) -> None:
    folder, farm = SessionFolder(str(tmp_path)), Farm()
    wanted = entities.needed(JOB, task("step-1"))
    farm.trouble = [refused("ThrottlingException", 429) for _ in range(50)]
    assert entities.fetch(farm, folder, wanted, lambda s: None) == {}  # type: ignore[arg-type]
    wanted = entities.needed(JOB, task("step-2"))
    farm.trouble = [refused("InternalServerErrorException", 500) for _ in range(50)]
    asked = len(farm.asked)
    assert list(entities.fetch(farm, folder, wanted, lambda s: None)) == ["stepDetails:step-2"]  # type: ignore[arg-type]
    assert len(farm.asked) - asked == entities.FAULTS


# Held sessions


def held(tmp_path: Path, *journal_rows: dict[str, Any]) -> HeldSession:
    folder = SessionFolder(str(tmp_path / ("session-" + "0" * 32)))
    os.makedirs(folder.file("entities"), exist_ok=True)
    about = {"queue_id": "q", "job_id": JOB, "session_dir": str(tmp_path / "work"), "retain_session_dir": False}
    about |= {"farm_id": "f", "fleet_id": "fl", "worker_id": "w", "session_id": folder.session_id, "wakes": []}
    Path(folder.file("session.json")).write_text(json.dumps(about))
    if journal_rows:
        journal.append(folder.outbox, *journal_rows)
    return HeldSession(folder, Farm())  # type: ignore[arg-type]


def offered(*definitions: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"sessionActionId": f"sa-{n}", "definition": each} for n, each in enumerate(definitions)]


EXIT = {"envExit": {"environmentId": "e"}}


def test_a_session_whose_process_is_gone_fails_the_first_and_the_exits(tmp_path: Path) -> None:
    session = held(tmp_path, {"type": "session"})
    session.starts = held_session.STARTS
    session.offered.update(
        (each["sessionActionId"], each["definition"]) for each in offered(task("s"), task("s"), EXIT)
    )
    session.look()
    assert [row["status"] for row in session.unreported().values()] == ["FAILED", "NEVER_ATTEMPTED", "FAILED"]
    assert session.is_urgent()
    # And so it goes with what the farm assigns later.
    session.offer(offered(task("s"), task("s"), EXIT, EXIT, task("s")))
    assert [session.reports[f"sa-{n}"]["status"] for n in (3, 4)] == ["FAILED", "NEVER_ATTEMPTED"]


def test_what_ran_when_the_process_died_failed_and_what_was_done_stays(tmp_path: Path) -> None:
    done = {"type": "action", "session_action_id": "sa-0", "status": "SUCCEEDED", "started_at": NOW, "ended_at": NOW}
    running = {"type": "action", "session_action_id": "sa-1", "status": "RUNNING", "started_at": NOW}
    session = held(tmp_path, {"type": "session"}, done, running)
    session.offered.update((each["sessionActionId"], each["definition"]) for each in offered(*[task("s")] * 3))
    session.look()
    assert [session.reports[f"sa-{n}"]["status"] for n in range(3)] == ["SUCCEEDED", "FAILED", "NEVER_ATTEMPTED"]
    assert session.reports["sa-1"]["started_at"] == NOW
    assert "died unexpectedly" in session.reports["sa-1"]["progress_message"]


def test_what_the_farm_has_is_not_told_again_not_even_after_a_restart(tmp_path: Path) -> None:
    row = {"type": "action", "session_action_id": "sa-0", "status": "RUNNING", "started_at": NOW, "updated_at": "1"}
    session = held(tmp_path, {"type": "session"}, row)
    sent = session.unreported()
    assert list(sent) == ["sa-0"]
    # While the call was under way, the action went on: that news stays.
    journal.append(session.folder.outbox, {**row, "updated_at": "2"})
    session.read()
    session.acknowledge(sent)
    assert session.unreported()["sa-0"]["updated_at"] == "2"
    session.acknowledge(session.unreported())
    assert session.unreported() == {}
    assert HeldSession(session.folder, session.farm).unreported() == {}


def test_a_restarted_scheduler_knows_what_was_handed_over(tmp_path: Path) -> None:
    session = held(tmp_path)
    session.is_opened = True
    session.offer(offered(task("s"), task("s")))
    rows = journal.Reader(session.folder.inbox)
    seen: list[dict[str, Any]] = []
    import time

    until = time.monotonic() + 20
    while len(seen) < 2 and time.monotonic() < until:
        seen += rows.read()
    assert [row["session_action_id"] for row in seen] == ["sa-0", "sa-1"]
    again = HeldSession(session.folder, session.farm)
    assert list(again.told) == ["sa-0", "sa-1"]
    again.offer(offered(task("s"), task("s")))
    assert again._feed_queue.empty()
    # What is not listed any more is taken back, what is cancelled is told once.
    again.offer(offered(task("s")))
    again.cancel(["sa-0"])
    again.cancel(["sa-0"])
    assert [row["type"] for row in rows.read()] == ["withdraw", "cancel"]


def test_a_session_half_removed_is_swept_and_a_whole_one_stays(tmp_path: Path) -> None:
    session = held(tmp_path, {"type": "session"})
    folder = Folder(str(tmp_path / "state")).prepare()
    for name in ("session-a.gone", "session-b"):
        os.makedirs(folder.file("sessions", name))
        Path(folder.file("sessions", name, "log.jsonl")).write_text("x")
    os.rename(session.folder.path, folder.file("sessions", "session-c"))
    held_session.sweep(folder.file("sessions"))
    assert os.listdir(folder.file("sessions")) == ["session-c"]
    HeldSession(next(folder.sessions()), session.farm).remove()
    assert os.listdir(folder.file("sessions")) == []


# Who a job runs as


def test_the_user_of_a_job() -> None:
    def user(job: dict[str, Any], **more: Any) -> Any:
        known = {"run_jobs_as_agent_user": False, "posix_job_user": None, **more}
        return held_session.job_user(SimpleNamespace(**known), job)

    configured = {"jobRunAsUser": {"runAs": "QUEUE_CONFIGURED_USER", "posix": {"user": "render", "group": "farm"}}}
    assert user(configured) == {"user": "render", "group": "farm"}
    assert user(configured, run_jobs_as_agent_user=True) is None
    assert user(configured, posix_job_user="a:b") == {"user": "a", "group": "b"}
    assert user({"jobRunAsUser": {"runAs": "WORKER_AGENT_USER"}}) is None
    for wrong in ({}, {"jobRunAsUser": {"runAs": "QUEUE_CONFIGURED_USER"}}):
        with pytest.raises(Trouble):
            user(wrong)


def test_the_environment_of_a_job_is_clean() -> None:
    given = {
        "HOME": "/h", "PATH": "/p", "AWS_REGION": "r", "AWS_ENDPOINT_URL_S3": "http://s3", "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "x", "AWS_PROFILE": "x", "AWS_CONFIG_FILE": "x",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "x", "AWS_WEB_IDENTITY_TOKEN_FILE": "x", "DEADLINE_WORKER_FARM_ID": "x",
        "DEADLINE_CONFIG_FILE_PATH": "x", "DL_WORKER_DIR": "x", "SUPERVISOR_SERVER_URL": "x",
    }  # fmt: skip
    assert job_environment.scrubbed(given) == {
        "HOME": "/h", "PATH": "/p", "AWS_REGION": "r", "AWS_ENDPOINT_URL_S3": "http://s3",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }  # fmt: skip


# Configuration


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("AWS_", "DEADLINE_", "DL_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "worker.toml").write_text(
        f"""
[worker]
farm_id = "farm-{"1" * 32}"
fleet_id = "fleet-{"2" * 32}"
[aws]
[logging]
local_session_logs = false
host_metrics_logging_interval_seconds = 5
[os]
shutdown_on_stop = false
posix_job_user = "job:group"
[capabilities.amounts]
"amount.worker.memory" = 1
"acme:amount.licences" = 3
[capabilities.attributes]
"attr.site" = ["a", "b"]
"""
    )
    return tmp_path


def test_settings_come_from_file_and_environment(configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = settings.read(str(configured))
    assert known.farm_id == "farm-" + "1" * 32
    assert (known.no_shutdown, known.local_session_logs, known.posix_job_user) == (True, False, "job:group")
    assert known.host_metrics_logging_interval_s == 5
    monkeypatch.setenv("DEADLINE_WORKER_NO_SHUTDOWN", "off")
    monkeypatch.setenv("DEADLINE_WORKER_FARM_ID", "farm-" + "3" * 32)
    monkeypatch.setenv("DEADLINE_WORKER_CAPABILITIES", '{"amounts": {"amount.worker.memory": 2}}')
    known = settings.read(str(configured))
    assert (known.farm_id[-1], known.no_shutdown) == ("3", False)
    found = host.capabilities(known)
    amounts = {each["name"]: each["value"] for each in found["amounts"]}
    assert amounts["amount.worker.memory"] == 2
    assert amounts["acme:amount.licences"] == 3
    assert amounts["amount.worker.vcpu"] == os.cpu_count()
    assert {"name": "attr.site", "values": ["a", "b"]} in found["attributes"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEADLINE_WORKER_FARM_ID", "farm-1"),
        ("DEADLINE_WORKER_NO_SHUTDOWN", "maybe"),
        ("DEADLINE_WORKER_POSIX_JOB_USER", "nobody"),
        ("DEADLINE_WORKER_CAPABILITIES", "[]"),
        ("DEADLINE_WORKER_CAPABILITIES", '{"amounts": {"amount.x": -1}}'),
        ("DEADLINE_WORKER_CAPABILITIES", '{"attributes": {"size": ["x"]}}'),
        ("DEADLINE_WORKER_HOST_METRICS_LOGGING_INTERVAL_SECONDS", "0"),
        ("DEADLINE_WORKER_RUN_JOBS_AS_AGENT_USER", "yes"),
    ],
)
def test_a_wrong_setting_is_named(configured: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Trouble) as caught:
        settings.read(str(configured))
    assert caught.value.status == statuses.CONFIGURATION


# The host


def test_what_a_spot_notice_says() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    at = (now + timedelta(seconds=110)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert spot_left_s(json.dumps({"action": "terminate", "time": at}), now) == 110
    assert spot_left_s(json.dumps({"action": "stop", "time": "2020-01-01T00:00:00Z"}), now) == 1
    for nothing in ("", "<html>", "{}", json.dumps({"action": "smile", "time": at})):
        assert spot_left_s(nothing, now) is None


def test_metrics_have_the_reference_s_names_and_are_text() -> None:
    sample = Metrics().sample()
    assert {
        "cpu-usage-percent",
        "memory-total-bytes",
        "swap-used-bytes",
        "disk-write-bytes-per-second",
    } <= sample.keys()
    assert len(sample) == 13
    assert all(isinstance(value, str) for value in sample.values())


def test_without_a_scheduler_nobody_is_asked_to_drain(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path)).prepare()
    assert ask_for_drain(folder, 100, "why") is False
    Path(folder.file("run", "schedule.lock")).write_text('{"pid": 1, "start_time": 0}')
    assert ask_for_drain(folder, 100, "why") is False


def test_the_processes_of_a_session_are_found_and_ended(tmp_path: Path) -> None:
    import subprocess

    mark = "session-" + "9" * 32
    environment = {**os.environ, "DEADLINE_SESSION_ID": mark}
    process = subprocess.Popen(["sh", "-c", "setsid sleep 60 & sleep 60"], env=environment, start_new_session=True)
    import time

    until = time.monotonic() + 20
    while len(processes.of_session(mark)) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(processes.of_session(mark)) == 3
    assert processes.kill_session(mark) >= 3
    process.wait()
    assert processes.of_session(mark) == []
