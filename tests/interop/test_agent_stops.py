"""The reference agent is stopped, drained, killed and lost with the whole farm: its work is done, once at a time."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from agents import PATIENCE_S, Site, kill_all, until


@pytest.fixture(autouse=True)
def at_work(site: Site) -> None:
    """The agent serves its queues again, whatever the test before did."""
    if site.process is None or site.process.poll() is not None:
        site.start()
    for queue in (site.ids.queue, site.ids.shared_queue):
        site.associate(queue, "ACTIVE")
    site.ready()


def succeeded(site: Site, ids: dict[str, str]) -> dict[str, Any]:
    """The job, which has ended well: each task once at a time, and the log of its last run whole."""
    job = site.wait(ids, "SUCCEEDED", "FAILED")
    assert job["taskRunStatus"] == "SUCCEEDED"
    site.check_once_at_a_time(ids)
    site.check_logs(ids)
    return job


def test_requeued_while_it_runs_and_when_it_is_done(site: Site, reference: str) -> None:
    ids = site.many("requeued", 2, 2, alone=True)
    [action] = until(lambda: site.running(ids, site.ids.fleet))
    run = action["definition"]["taskRun"]
    site.client.update_task(**ids, stepId=run["stepId"], taskId=run["taskId"], targetRunStatus="PENDING")
    succeeded(site, ids)
    requeue = [reference, "job", "requeue-tasks", "--run-status", "succeeded", "--yes", "--queue-id", ids["queueId"]]
    done = site.farm.run(*requeue, "--job-id", ids["jobId"], check=True)
    assert "Requeued a total of 2 tasks." in done.stdout
    succeeded(site, ids)
    runs = site.runs("requeued")
    assert sorted(runs) == ["1", "2"]
    for marks in runs.values():
        assert marks.count("begin") >= 2
        # A run that was called back may have had no time to write its end.
        assert marks[-2:] == ["begin", "end"]


def test_an_association_stops_when_what_runs_is_done(site: Site) -> None:
    ids = site.many("completes", 3, 2, alone=True)
    [action] = until(lambda: site.running(ids, site.ids.fleet))
    site.associate(site.ids.queue, "STOP_SCHEDULING_AND_COMPLETE_TASKS")
    ended = site.client.get_session_action(**ids, sessionActionId=action["sessionActionId"])
    assert ended["status"] == "SUCCEEDED"
    counts = site.client.get_job(**ids)["taskRunStatusCounts"]
    assert counts["READY"] and counts["READY"] + counts["SUCCEEDED"] == 3
    site.ready()
    site.associate(site.ids.queue, "ACTIVE")
    assert succeeded(site, ids)["taskFailureRetryCount"] == 0
    assert site.runs("completes") == {str(n): ["begin", "end"] for n in (1, 2, 3)}


def test_an_association_that_cancels_leaves_the_tasks_to_others(site: Site) -> None:
    ids = site.many("cancels", 3, 3)
    [action] = until(lambda: site.running(ids, site.ids.fleet))
    site.associate(site.ids.shared_queue, "STOP_SCHEDULING_AND_CANCEL_TASKS")
    ended = site.client.get_session_action(**ids, sessionActionId=action["sessionActionId"])
    assert ended["status"] == "CANCELED"
    assert site.process is not None and site.process.poll() is None
    assert succeeded(site, ids)["taskFailureRetryCount"] == 0
    sessions = {session["sessionId"]: session["fleetId"] for session in site.client.list_sessions(**ids)["sessions"]}
    for action in site.last_runs(ids).values():
        assert sessions[f"session-{action['sessionActionId'].split('-')[1]}"] == site.own_fleet


def test_an_operator_sets_the_worker_to_stopped(site: Site) -> None:
    ids = site.many("stopped", 2, 3)
    until(lambda: site.running(ids, site.ids.fleet))
    worker = site.worker
    site.client.update_worker(
        farmId=site.ids.farm, fleetId=site.ids.fleet, workerId=worker["workerId"], status="STOPPED"
    )
    assert site.process is not None and site.process.wait(PATIENCE_S) == 1  # it learns that it is off, and why
    assert site.worker["status"] == "STOPPED"
    assert succeeded(site, ids)["taskFailureRetryCount"] == 0
    site.start()
    site.ready()
    assert site.worker["workerId"] == worker["workerId"]


def test_killed_it_is_found_lost_and_its_task_goes_to_another(site: Site) -> None:
    ids = site.many("killed", 2, 2)
    until(lambda: site.running(ids, site.ids.fleet))
    worker = site.worker
    site.end(signal.SIGKILL)
    until(lambda: site.worker["status"] == "NOT_RESPONDING")
    assert succeeded(site, ids)["taskFailureRetryCount"] == 1
    interrupted = [action for action in site.task_actions(ids) if action["status"] == "INTERRUPTED"]
    assert len(interrupted) == 1
    site.start()
    site.ready()
    assert site.worker["workerId"] == worker["workerId"]


def test_all_that_runs_dies_at_once(site: Site) -> None:
    alone = site.many("dead-alone", 4, 1, alone=True)
    until(lambda: site.client.get_job(**alone)["taskRunStatusCounts"]["SUCCEEDED"])
    shared = site.many("dead-shared", 6, 1)
    until(lambda: site.running(shared, site.own_fleet))
    assert site.process is not None
    site.process.kill()
    kill_all(site.farm.dir)
    site.process.wait()
    site.farm.run("dl-farm", "up", "--dir", str(site.farm.dir), check=True)
    site.start()
    for ids in (alone, shared):
        job = site.wait(ids, "SUCCEEDED", "FAILED")
        assert job["taskRunStatus"] == "SUCCEEDED"
        assert job["taskRunStatusCounts"]["SUCCEEDED"] == len(site.last_runs(ids))
        site.check_once_at_a_time(ids)
    for key, count in (("dead-alone", 4), ("dead-shared", 6)):
        runs = site.runs(key)
        assert sorted(runs) == [str(n) for n in range(1, count + 1)]
        assert all(marks[-1] == "end" for marks in runs.values())
        assert sum(marks.count("begin") for marks in runs.values()) <= count + 2, "only what ran was run again"
    done = site.farm.run("dl-farm", "doctor", "--dir", str(site.farm.dir))
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_drains_when_its_host_stops_it(site: Site) -> None:
    ids = site.many("drained", 2, 2)
    until(lambda: site.running(ids, site.ids.fleet))
    assert site.end(signal.SIGTERM) == 0
    assert site.worker["status"] == "STOPPED"
    assert succeeded(site, ids)["taskFailureRetryCount"] == 0
    [interrupted] = [action for action in site.task_actions(ids) if action["status"] == "INTERRUPTED"]
    assert "signal" in site.client.get_session_action(
        **ids, sessionActionId=interrupted["sessionActionId"]
    )["progressMessage"].lower()  # fmt: skip
