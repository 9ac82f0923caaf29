"""dl-session by its journals: order, outcomes, cancels, what a job's processes see."""

from __future__ import annotations

import os
import signal
import time

from dl_worker.folder import start_time
from dl_worker.processes import kill_session
from lone_session import SESSION_ID, STEP_ID, LoneSession, wait_for


def test_tasks_run_in_order_between_enter_and_exit(session: LoneSession) -> None:
    trace = session.tmp_path / "trace"
    outer = session.make_environment(
        "Outer", f"echo +outer >>{trace}; echo openjd_env: SEEN=yes", f"echo -outer >>{trace}"
    )
    inner = session.make_environment("Inner", f"echo +inner >>{trace}", f"echo -inner >>{trace}")
    session.step(
        f"echo $SEEN {{{{Task.Param.Frame}}}} >>{trace}",
        parameterSpace={"taskParameterDefinitions": [{"name": "Frame", "type": "INT", "range": "1-3"}]},
    )
    session.open()
    session.act({"envEnter": {"environmentId": outer}})
    session.act({"envEnter": {"environmentId": inner}})
    for frame in (3, 1, 2):
        session.run_task(Frame={"int": str(frame)})
    session.act({"envExit": {"environmentId": inner}})
    last = session.act({"envExit": {"environmentId": outer}})
    assert session.outcome(last)["status"] == "SUCCEEDED"
    assert trace.read_text().split("\n") == [
        "+outer", "+inner", "yes 3", "yes 1", "yes 2", "-inner", "-outer", "",
    ]  # fmt: skip
    assert session.end() == 0
    assert session.rows()[-1] == {"type": "end", "tool": "dl-session", "ok": True}
    assert not session.session_dir.exists()


def test_a_report_carries_times_exit_code_and_message(session: LoneSession) -> None:
    session.step("echo openjd_progress: 50; echo openjd_status: half way; echo openjd_fail: no more paint; exit 7")
    session.open()
    row = session.outcome(session.run_task())
    assert row["status"] == "FAILED"
    assert row["process_exit_code"] == 7
    assert row["progress_percent"] == 50
    assert row["progress_message"] == "no more paint"
    assert row["started_at"] <= row["ended_at"]
    assert "manifests" not in row
    assert "no more paint" in session.log()


def test_after_a_failed_task_only_exits_run(session: LoneSession) -> None:
    trace = session.tmp_path / "trace"
    identity = session.make_environment("Env", "true", f"echo left >>{trace}")
    session.step("exit 1")
    session.open()
    session.act({"envEnter": {"environmentId": identity}})
    failed = session.run_task()
    later = session.run_task()
    leave = session.act({"envExit": {"environmentId": identity}})
    assert session.outcome(leave)["status"] == "SUCCEEDED"
    assert session.outcome(failed)["status"] == "FAILED"
    row = session.outcome(later)
    assert row["status"] == "NEVER_ATTEMPTED"
    assert not {"started_at", "ended_at"} & row.keys()
    assert failed in row["progress_message"]
    assert trace.read_text() == "left\n"


def test_a_failed_enter_is_exited_all_the_same(session: LoneSession) -> None:
    trace = session.tmp_path / "trace"
    identity = session.make_environment("Env", "exit 3", f"echo left >>{trace}")
    session.step("true")
    session.open()
    enter = session.act({"envEnter": {"environmentId": identity}})
    task = session.run_task()
    leave = session.act({"envExit": {"environmentId": identity}})
    assert [session.outcome(each)["status"] for each in (enter, task, leave)] == [
        "FAILED",
        "NEVER_ATTEMPTED",
        "SUCCEEDED",
    ]
    assert trace.read_text() == "left\n"


def test_a_failed_exit_affects_only_itself(session: LoneSession) -> None:
    trace = session.tmp_path / "trace"
    outer = session.make_environment("Outer", "true", f"echo outer >>{trace}")
    inner = session.make_environment("Inner", "true", "exit 5")
    session.open()
    ids = [
        session.act({kind: {"environmentId": identity}})
        for kind, identity in (("envEnter", outer), ("envEnter", inner), ("envExit", inner), ("envExit", outer))
    ]
    assert [session.outcome(each)["status"] for each in ids] == ["SUCCEEDED", "SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert trace.read_text() == "outer\n"


def test_an_environment_without_enter_succeeds_at_once(session: LoneSession) -> None:
    identity = session.make_environment("Env", None, "true")
    session.open()
    row = session.outcome(session.act({"envEnter": {"environmentId": identity}}))
    assert row["status"] == "SUCCEEDED"
    assert row["started_at"]


def test_an_unknown_action_fails_with_a_reason(session: LoneSession) -> None:
    session.step("true")
    session.open()
    strange = session.act({"SDK_UNKNOWN_MEMBER": {"name": "defragment"}})
    later = session.run_task()
    assert session.outcome(strange)["status"] == "FAILED"
    assert "newer worker" in session.outcome(strange)["progress_message"]
    assert session.outcome(later)["status"] == "NEVER_ATTEMPTED"


def test_an_entity_that_could_not_be_had_fails_its_action(session: LoneSession) -> None:
    session.open()
    action = session.act({"taskRun": {"stepId": STEP_ID, "parameters": {}}}, error="the farm says: gone")
    row = session.outcome(action)
    assert (row["status"], row["progress_message"]) == ("FAILED", "the farm says: gone")
    assert "process_exit_code" not in row


def test_cancel_of_the_running_action_and_of_queued_ones(session: LoneSession) -> None:
    trace = session.tmp_path / "trace"
    identity = session.make_environment("Env", "true", f"echo left >>{trace}")
    session.step(f"echo ran >>{trace}; sleep 60")
    session.open()
    session.act({"envEnter": {"environmentId": identity}})
    running, queued = session.run_task(), session.run_task()
    session.until_running(running)
    wait_for(trace.exists)
    session.tell({"type": "cancel", "session_action_ids": [running, queued]})
    leave = session.act({"envExit": {"environmentId": identity}})
    assert session.outcome(running)["status"] == "CANCELED"
    assert session.outcome(queued)["status"] == "NEVER_ATTEMPTED"
    assert session.outcome(leave)["status"] == "SUCCEEDED"
    assert trace.read_text() == "ran\nleft\n"


def test_a_cancelled_queued_action_does_not_run(session: LoneSession) -> None:
    gate, trace = session.tmp_path / "gate", session.tmp_path / "trace"
    other = "step-" + "f" * 32
    session.step(f"while [ ! -e {gate} ]; do sleep 0.05; done")
    session.step(f"echo ran >>{trace}", step_id=other)
    session.open()
    running, queued = session.run_task(), session.run_task(step_id=other)
    session.until_running(running)
    session.tell({"type": "cancel", "session_action_ids": [queued]})
    gate.touch()
    assert session.outcome(running)["status"] == "SUCCEEDED"
    assert session.outcome(queued)["status"] == "NEVER_ATTEMPTED"
    assert not trace.exists()


def test_notify_then_terminate_lets_the_job_clean_up(session: LoneSession) -> None:
    trace = session.tmp_path / "trace"
    session.step(
        f"trap 'echo told >>{trace}; exit 3' TERM; echo up >>{trace}; while true; do sleep 0.05; done",
        on_run={"cancelation": {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": 20}},
    )
    session.open()
    running = session.run_task()
    wait_for(trace.exists)
    session.tell({"type": "cancel", "session_action_ids": [running]})
    assert session.outcome(running)["status"] == "CANCELED"
    assert trace.read_text() == "up\ntold\n"


def test_a_timeout_is_a_failure_that_says_so(session: LoneSession) -> None:
    session.step("sleep 60", on_run={"timeout": 1})
    session.open()
    row = session.outcome(session.run_task())
    assert row["status"] == "FAILED"
    assert row["progress_message"].startswith("TIMEOUT")


def test_a_stop_interrupts_and_leaves_environments(session: LoneSession) -> None:
    trace = session.tmp_path / "trace"
    identity = session.make_environment("Env", "true", f"echo left >>{trace}")
    session.step("sleep 60")
    session.open()
    session.act({"envEnter": {"environmentId": identity}})
    running, queued = session.run_task(), session.run_task()
    session.until_running(running)
    session.tell({"type": "stop", "grace_s": 4, "message": "the worker stops (signal 15)"})
    assert session.outcome(running)["status"] == "INTERRUPTED"
    assert session.outcome(queued)["status"] == "NEVER_ATTEMPTED"
    assert session.process and session.process.wait(10) == 0
    assert trace.read_text() == "left\n"
    assert not session.session_dir.exists()


def test_sigterm_stops_the_session(session: LoneSession) -> None:
    session.step("sleep 60")
    session.open()
    running = session.run_task()
    session.until_running(running)
    assert session.process
    session.process.send_signal(signal.SIGTERM)
    assert session.process.wait(10) == 0
    assert session.last(running)["status"] == "INTERRUPTED"


def test_a_job_sees_its_ids_and_nothing_of_the_agent(session: LoneSession) -> None:
    session.opening = {
        "profile": {
            "AWS_PROFILE": "deadline-queue-1",
            "AWS_CONFIG_FILE": "/q/config",
            "AWS_SHARED_CREDENTIALS_FILE": "/q/credentials",
        }
    }
    session.job["jobAttachmentSettings"] = {"s3BucketName": "bucket", "rootPrefix": "pre/fix"}
    session.step("env | sort")
    session.open()
    action = session.run_task()
    assert session.outcome(action)["status"] == "SUCCEEDED"
    log = session.log()
    for line in (
        "DEADLINE_FARM_ID=farm-1", "DEADLINE_FLEET_ID=fleet-1",
        "DEADLINE_WORKER_ID=worker-1", "DEADLINE_QUEUE_ID=queue-1",
        f"DEADLINE_SESSION_ID={SESSION_ID}", f"DEADLINE_SESSIONACTION_ID={action}", f"DEADLINE_STEP_ID={STEP_ID}",
        f"DEADLINE_TASK_ID=task-{'e' * 32}-0", "DEADLINE_JA_S3_BUCKET=bucket", "DEADLINE_JA_ROOT_PREFIX=pre/fix",
        "AWS_PROFILE=deadline-queue-1", "AWS_CONFIG_FILE=/q/config",
    ):  # fmt: skip
        assert line in log, line
    assert "AGENT" not in log
    assert "DL_WORKER" not in log


def test_without_a_queue_role_a_job_gets_no_credentials_at_all(session: LoneSession) -> None:
    session.step("env | grep AWS_ | sort")
    session.open()
    session.outcome(session.run_task())
    assert "AWS_SHARED_CREDENTIALS_FILE=/dev/null" in session.log()
    assert "AWS_PROFILE" not in session.log()


def test_parameters_of_every_type(session: LoneSession) -> None:
    session.job["parameters"] = {
        "I": {"int": "3"}, "F": {"float": "2.50"}, "S": {"string": "a 'b'"}, "P": {"path": "/proj/x"},
    }  # fmt: skip
    session.job["pathMappingRules"] = [
        {"sourcePathFormat": "posix", "sourcePath": "/proj", "destinationPath": "/mnt/here"}
    ]
    session.step("printf '%s|' {{Param.I}} {{Param.F}} \"{{Param.S}}\" {{Param.P}} {{RawParam.P}}")
    session.open()
    session.outcome(session.run_task())
    assert "3|2.50|a 'b'|/mnt/here/x|/proj/x|" in session.log()


def test_a_template_of_a_later_version_fails_with_a_hint(session: LoneSession) -> None:
    from dl_worker.folder import write_json

    session.open()
    write_json(
        session.folder.entity("stepDetails", STEP_ID),
        {"jobId": "j", "stepId": STEP_ID, "schemaVersion": "jobtemplate-2030-01", "template": {}, "dependencies": []},
    )
    row = session.outcome(session.run_task())
    assert row["status"] == "FAILED"
    assert "newer worker" in row["progress_message"]


def test_a_session_that_cannot_open_fails_first_and_never_attempts_the_rest(session: LoneSession) -> None:
    session.job["parameters"] = {"X": {"quaternion": "1"}}
    session.step("true")
    first, second = session.run_task(), session.run_task()
    session.open()
    assert session.outcome(first)["status"] == "FAILED"
    assert "quaternion" in session.outcome(first)["progress_message"]
    assert session.outcome(second)["status"] == "NEVER_ATTEMPTED"


def test_a_second_process_refuses_the_folder(session: LoneSession) -> None:
    import subprocess

    wait_for(lambda: session.rows())
    again = subprocess.run(["dl-session", session.folder.path], env=session.environment, capture_output=True, text=True)
    assert again.returncode == 75
    assert "another dl-session" in again.stderr


def test_the_session_ends_itself_when_its_worker_is_gone(session: LoneSession) -> None:
    session.about(scheduler_lock="/nowhere", supervisor={"pid": 1 << 30, "start_time": 1})
    session.step("sleep 60")
    session.open()
    running = session.run_task()
    session.until_running(running)
    assert session.process and session.process.wait(20) == 0
    assert session.last(running)["status"] == "INTERRUPTED"


def test_the_log_is_lines_with_times_that_never_tear(session: LoneSession) -> None:
    session.step("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf '\\377\\n'")
    session.open()
    session.outcome(session.run_task())
    log = session.log().splitlines()
    lines = [line for line in log if line.startswith("line ")]
    assert lines == [f"line {i}" for i in range(2000)]


def test_many_small_tasks_are_quick(session: LoneSession) -> None:
    session.step("true")
    session.open()
    ids = [session.run_task() for _ in range(50)]
    session.outcome(ids[0])
    started = time.monotonic()
    session.outcome(ids[-1])
    assert time.monotonic() - started < 10
    assert os.path.exists(session.folder.outbox)


def test_a_successor_fails_what_ran_and_exits_what_was_entered(session: LoneSession) -> None:
    trace = session.tmp_path / "trace"
    outer = session.make_environment("Outer", f"echo +outer >>{trace}", f"echo -outer >>{trace}")
    inner = session.make_environment("Inner", f"echo +inner >>{trace}", f"echo -inner >>{trace}")
    gone = session.make_environment("Gone", f"echo +gone >>{trace}", f"echo -gone >>{trace}")
    session.step(f"echo task >>{trace}; sleep 60")
    session.open()
    for kind, identity in (("envEnter", outer), ("envEnter", gone), ("envExit", gone), ("envEnter", inner)):
        session.act({kind: {"environmentId": identity}})
    running, queued = session.run_task(), session.run_task()
    wait_for(lambda: "task" in (trace.read_text() if trace.exists() else ""))
    session.until_running(running)
    assert session.process
    session.process.kill()
    session.process.wait()
    kill_session(SESSION_ID)
    session.tell({"type": "resume", "message": "the session's process died (killed by signal 9)"})
    session.start()
    exits = [session.act({"envExit": {"environmentId": identity}}) for identity in (inner, outer)]
    assert [session.outcome(each)["status"] for each in exits] == ["SUCCEEDED", "SUCCEEDED"]
    row = session.outcome(running)
    assert (row["status"], row["progress_message"]) == ("FAILED", "the session's process died (killed by signal 9)")
    assert row["started_at"] and "process_exit_code" not in row
    assert session.outcome(queued)["status"] == "NEVER_ATTEMPTED"
    assert trace.read_text().split() == ["+outer", "+gone", "-gone", "+inner", "task", "-inner", "-outer"]
    assert session.end() == 0


def test_a_successor_of_a_dropped_session_exits_by_itself(session: LoneSession) -> None:
    trace = session.tmp_path / "trace"
    outer = session.make_environment("Outer", f"echo + >>{trace}", f"echo - >>{trace}")
    session.open()
    session.outcome(session.act({"envEnter": {"environmentId": outer}}))
    assert session.process
    session.process.kill()
    session.process.wait()
    session.tell({"type": "end"})
    session.start()
    assert session.process.wait(30) == 0
    assert trace.read_text().split() == ["+", "-"]
    assert not session.session_dir.exists()


def test_what_a_job_leaves_running_ends_with_the_session(session: LoneSession) -> None:
    pid_file = session.tmp_path / "pid"
    stray = f"setsid sh -c 'echo $$ >{pid_file}; exec sleep 300' >/dev/null 2>&1 &"
    session.step(f"{stray} while [ ! -s {pid_file} ]; do sleep 0.01; done")
    session.open()
    assert session.outcome(session.run_task())["status"] == "SUCCEEDED"
    pid = int(pid_file.read_text())
    assert start_time(pid) is not None
    assert session.end() == 0
    assert start_time(pid) is None
    assert "left running" in session.log()
