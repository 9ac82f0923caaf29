"""What tasks, steps and jobs go through: failures, retries, dependencies, cancels, requeues, limits, priorities."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from own_farmd import CONFIGURATION, ROLE
from simulated_worker import SimulatedWorker, Submitted, audit, clear, environment, number_of, step, template


@pytest.fixture(autouse=True)
def _cleared(farmd, farm_ids):
    yield
    clear(farmd, farm_ids)


@pytest.fixture
def worker(farmd, farm_ids):
    worker = SimulatedWorker(farmd.client(), farm_ids.farm, farm_ids.fleet).start()
    yield worker
    audit(farmd.dir)
    worker.stop()
    audit(farmd.dir)


@pytest.fixture
def two_workers(farmd, farm_ids):
    workers = [SimulatedWorker(farmd.client(), farm_ids.farm, farm_ids.fleet).start() for _ in range(2)]
    yield workers
    audit(farmd.dir)
    for worker in workers:
        worker.stop()
    audit(farmd.dir)


def queue_of_its_own(farmd, farm_ids, fleet=None, **fields):
    """A queue that only `fleet` (or the shared one) works for; stop it with `.close()`."""
    client = farmd.client()
    queue = client.create_queue(
        farmId=farm_ids.farm, displayName="own", jobRunAsUser={"runAs": "WORKER_AGENT_USER"}, **fields
    )["queueId"]
    pair = {"farmId": farm_ids.farm, "queueId": queue, "fleetId": fleet or farm_ids.fleet}
    client.create_queue_fleet_association(**pair)
    return SimpleNamespace(farm=farm_ids.farm, queue=queue, fleet=pair["fleetId"], pair=pair)


def close(farmd, ids):
    clear(farmd, ids)
    farmd.client().update_queue_fleet_association(**ids.pair, status="STOP_SCHEDULING_AND_CANCEL_TASKS")


def test_a_task_that_fails_is_retried_and_then_failed(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 3)), maxRetriesPerTask=2)

    def decide(kind, body, action_id):
        return "FAILED" if number_of(body["taskId"]) == 1 else "SUCCEEDED"

    worker.work(decide)
    assert job.statuses() == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert [task["failureRetryCount"] for task in job.tasks()] == [0, 3, 0]
    got = job.get()
    assert (got["taskRunStatus"], got["taskFailureRetryCount"]) == ("FAILED", 3)
    assert got["startedAt"] <= got["endedAt"]
    # Every failure ends its session; a task is tried again after those that are fresh.
    assert len(job.sessions()) == 3
    failed = job.tasks()[1]
    actions = job.actions(taskId=failed["taskId"])
    assert [action["status"] for action in actions] == ["FAILED"] * 3
    assert failed["latestSessionActionId"] == actions[-1]["sessionActionId"]
    detail = farmd.client().get_session_action(**job.ids, sessionActionId=actions[0]["sessionActionId"])
    assert detail["processExitCode"] == 1


def test_dependencies_are_waited_for_and_taken_back(farmd, farm_ids, worker):
    job = Submitted(
        farmd,
        farm_ids,
        template(step("a"), step("b", 2, after=("a",)), step("c", after=("a", "b"))),
        maxRetriesPerTask=0,
    )
    order = []

    def decide(kind, body, action_id):
        order.append(body["stepId"])
        return "SUCCEEDED"

    worker.work(decide)
    ids = [job.step_ids(name)["stepId"] for name in "abbc"]
    assert order == ids
    assert job.steps()["c"]["dependencyCounts"]["dependenciesResolved"] == 2
    # Requeued: what came after it and is not begun waits again.
    farmd.client().update_step(**job.step_ids("c"), targetTaskRunStatus="READY")
    assert job.statuses("c") == ["SUCCEEDED"]  # a step's requeue leaves what succeeded
    job.update_task(0, "READY", "c")
    assert job.statuses("c") == ["READY"]
    job.update_task(0, "READY", "a")
    assert (job.statuses("a"), job.statuses("b"), job.statuses("c")) == (["READY"], ["SUCCEEDED"] * 2, ["PENDING"])
    assert job.status == "READY" and "endedAt" not in job.get()
    worker.work()
    assert job.status == "SUCCEEDED"


def test_what_waits_again_is_taken_back_from_its_worker(farmd, farm_ids, two_workers):
    first, second = two_workers
    job = Submitted(farmd, farm_ids, template(step("a"), step("b", 2, after=("a",))), maxRetriesPerTask=0)
    first.exchange()
    first.run_assigned()
    first.exchange()  # one task of b, which it begins
    first.begin(first.actions()[0][0])
    first.exchange()
    second.exchange()  # the other one, which it does not
    assert job.statuses("b") == ["RUNNING", "ASSIGNED"]
    job.update_task(0, "READY", "a")
    assert job.statuses("b") == ["RUNNING", "INTERRUPTING"]
    second.exchange()
    second.run_assigned()
    assert [status for _, _, _, status in second.ran] == ["CANCELED"]
    second.exchange()
    assert job.statuses("b") == ["RUNNING", "PENDING"] and job.statuses("a") == ["ASSIGNED"]
    second.work()
    first.work()
    second.work()
    assert job.status == "SUCCEEDED" and job.get()["taskFailureRetryCount"] == 0


def test_a_failed_step_ends_the_job_although_others_wait(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("a"), step("b", 2, after=("a",))), maxRetriesPerTask=0)
    worker.work(lambda *_: "FAILED")
    assert job.counts == {"FAILED": 1, "PENDING": 2}
    assert job.status == "FAILED" and "endedAt" in job.get()
    # Marked as succeeded it counts as such.
    job.update_task(0, "SUCCEEDED", "a")
    assert job.counts == {"SUCCEEDED": 1, "READY": 2}
    worker.work()
    assert job.status == "SUCCEEDED"


def test_too_many_failures_stop_the_job(farmd, farm_ids, two_workers):
    job = Submitted(farmd, farm_ids, template(step("step", 6)), maxRetriesPerTask=0, maxFailedTasksCount=1)
    first, second = two_workers
    first.exchange()
    second.exchange()
    held = second.actions()[0][0]
    second.begin(held)
    second.exchange()
    for _ in range(2):
        first.run_assigned(lambda *_: "FAILED")
        first.exchange()
    assert job.counts == {"FAILED": 5, "INTERRUPTING": 1}
    second.exchange()
    assert second.schedule["cancelSessionActions"]
    second.end(held, "CANCELED")
    second.exchange()
    assert job.counts == {"FAILED": 6} and job.status == "FAILED"
    assert not first.exchange()["assignedSessions"] and not second.schedule["assignedSessions"]


def test_an_environment_that_fails_costs_the_first_task(farmd, farm_ids, worker):
    job = Submitted(
        farmd, farm_ids, template(step("step", 2), jobEnvironments=[environment("good"), environment("bad")]),
        maxRetriesPerTask=1,
    )  # fmt: skip
    worker.work(lambda kind, body, _: "FAILED" if body.get("environmentId", "").endswith("bad") else "SUCCEEDED")
    assert job.statuses() == ["FAILED", "FAILED"] and job.get()["taskFailureRetryCount"] == 4
    assert len(job.sessions()) == 4
    kinds = [(kind, status) for _, kind, _, status in worker.ran[:5]]
    # Exits of both, the failed one too, in reverse.
    assert kinds == [
        ("envEnter", "SUCCEEDED"), ("envEnter", "FAILED"), ("taskRun", "NEVER_ATTEMPTED"),
        ("envExit", "FAILED"), ("envExit", "SUCCEEDED"),
    ]  # fmt: skip


def test_an_exit_that_fails_stops_nothing(farmd, farm_ids, worker):
    body = template(step("step", 2), jobEnvironments=[environment("outer"), environment("inner")])
    job = Submitted(farmd, farm_ids, body)
    worker.work(lambda kind, *_: "FAILED" if kind == "envExit" else "SUCCEEDED")
    assert job.status == "SUCCEEDED" and len(job.sessions()) == 1
    assert [kind for _, kind, _, _ in worker.ran].count("envExit") == 2


def test_an_interrupted_task_is_not_to_blame(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step()), maxRetriesPerTask=0)
    worker.exchange()
    worker.end(worker.actions()[0][0], "INTERRUPTED")
    worker.exchange()
    assert job.get()["taskFailureRetryCount"] == 0
    worker.work()
    assert job.status == "SUCCEEDED"


def test_reports_may_come_twice_and_late(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 2)), maxRetriesPerTask=0)
    worker.exchange()
    action = worker.actions()[0][0]
    worker.end(action)
    update = dict(worker.pending)
    worker.exchange()
    worker.exchange(update)
    worker.exchange({action: {**update[action], "completedStatus": "FAILED"}})
    worker.work()
    assert job.counts == {"SUCCEEDED": 2}
    stranger = f"sessionaction-{'0' * 32}-0"
    with pytest.raises(Exception, match="session-action") as caught:
        worker.exchange({stranger: update[action]})
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_progress_is_shown_while_a_task_runs(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step()))
    worker.exchange()
    action = worker.actions()[0][0]
    assert job.statuses() == ["ASSIGNED"]
    worker.begin(action, progressPercent=40.0, progressMessage="rendering")
    worker.exchange()
    assert (job.statuses(), job.status) == (["RUNNING"], "RUNNING")
    assert "startedAt" in job.get() and "startedAt" in job.tasks()[0]
    seen = farmd.client().get_session_action(**job.ids, sessionActionId=action)
    assert (seen["status"], seen["progressPercent"], seen["progressMessage"]) == ("RUNNING", 40.0, "rendering")
    # A session in hand is listed again and again until it is reported.
    assert worker.exchange()["assignedSessions"] == worker.exchange()["assignedSessions"]
    worker.work()
    assert job.status == "SUCCEEDED"


@pytest.mark.parametrize("target", ["CANCELED", "FAILED", "SUCCEEDED", "SUSPENDED"])
@pytest.mark.parametrize("moment", ["waiting", "assigned", "entering", "running"])
def test_a_job_is_stopped_at_any_moment(farmd, farm_ids, worker, target, moment):
    body = template(step("a", 3), step("b", after=("a",)), jobEnvironments=[environment("around")])
    job = Submitted(farmd, farm_ids, body)
    if moment != "waiting":
        worker.exchange()
        enter, run = (each[0] for each in worker.actions()[:2])
        if moment != "assigned":
            worker.begin(enter)
            worker.exchange()
        if moment == "running":
            worker.end(enter)
            worker.begin(run)
            worker.exchange()
    job.update(targetTaskRunStatus=target)
    if moment == "waiting":
        assert job.counts == {target: 4}
        return
    got = job.get()
    assert got["taskRunStatus"] == "INTERRUPTING" and got["targetTaskRunStatus"] == target
    assert job.counts == {"INTERRUPTING": 1, target: 3}
    assert job.tasks("a")[0]["targetRunStatus"] == target
    job.update(targetTaskRunStatus=target)  # the same again is harmless
    worker.exchange()
    canceled = next(iter(worker.schedule["cancelSessionActions"].values()))
    assert canceled == ([run] if moment == "running" else [enter, run])
    worker.work()
    got = job.get()
    assert got["taskRunStatus"] == target and job.counts == {target: 4}
    assert "targetTaskRunStatus" not in got
    assert ("endedAt" in got) == (target != "SUSPENDED")
    assert "envExit" in [kind for _, kind, _, _ in worker.ran]
    assert not worker.exchange()["assignedSessions"]


def test_a_success_that_came_before_the_cancel_is_kept(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 2)))
    worker.exchange()
    action = worker.actions()[0][0]
    worker.begin(action)
    worker.exchange()
    job.update(targetTaskRunStatus="CANCELED")
    worker.end(action, "SUCCEEDED")
    worker.exchange()
    assert sorted(job.statuses()) == ["CANCELED", "SUCCEEDED"]
    assert job.status == "CANCELED"


def test_requeue_while_a_cancel_is_on_its_way(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 2)))
    worker.exchange()
    action = worker.actions()[0][0]
    worker.begin(action)
    worker.exchange()
    job.update(targetTaskRunStatus="CANCELED")
    assert job.counts == {"INTERRUPTING": 1, "CANCELED": 1}
    job.update(targetTaskRunStatus="READY")
    assert job.counts == {"INTERRUPTING": 1, "READY": 1}
    worker.exchange()
    worker.run_assigned()
    worker.exchange()
    assert job.get()["taskFailureRetryCount"] == 0
    worker.work()
    assert job.counts == {"SUCCEEDED": 2}


def test_requeue_forgets_attempts_and_times(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 2)), maxRetriesPerTask=1)
    worker.work(lambda *_: "FAILED")
    assert job.counts == {"FAILED": 2} and job.get()["taskFailureRetryCount"] == 4
    ids = job.step_ids()
    job.update_task(0, "PENDING")  # what "requeue-tasks" of the reference client sends
    task = farmd.client().get_task(**ids, taskId=f"task-{ids['stepId'][5:]}-0")
    assert (task["runStatus"], task["failureRetryCount"]) == ("READY", 0)
    assert "startedAt" not in task and "endedAt" not in task
    assert job.counts == {"READY": 1, "FAILED": 1} and job.get()["taskFailureRetryCount"] == 2
    assert "endedAt" not in job.get()
    worker.work()
    assert job.counts == {"SUCCEEDED": 1, "FAILED": 1} and job.status == "FAILED"
    # One of many that failed may be tried again, whatever the others did.
    job.update_task(1, "READY")
    job.update(maxFailedTasksCount=0, targetTaskRunStatus="READY")
    worker.work(lambda *_: "FAILED")
    assert job.counts == {"SUCCEEDED": 1, "FAILED": 1}
    job.update_task(1, "READY")
    assert job.counts == {"SUCCEEDED": 1, "READY": 1}
    worker.work()
    assert job.counts == {"SUCCEEDED": 2}


def test_a_running_task_is_requeued(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step()))
    worker.exchange()
    first = worker.actions()[0][0]
    worker.begin(first)
    worker.exchange()
    job.update_task(0, "READY")
    assert job.statuses() == ["INTERRUPTING"]
    worker.exchange()
    worker.run_assigned()
    assert worker.ran[-1][3] == "CANCELED"
    worker.work()
    assert job.statuses() == ["SUCCEEDED"]
    assert job.tasks()[0]["latestSessionActionId"] != first


def test_one_task_of_several_in_hand_is_canceled(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 30)), maxRetriesPerTask=0)
    # Short tasks: after the first the worker is given several at once.
    worker.exchange()
    worker.run_assigned()
    worker.exchange()
    given = worker.actions()
    assert len(given) > 3
    worker.begin(given[0][0])
    worker.exchange()
    numbers = [number_of(body["taskId"]) for _, _, body in given]
    job.update_task(numbers[2], "CANCELED")
    assert job.statuses()[numbers[2]] == "INTERRUPTING"
    worker.exchange()
    assert list(worker.schedule["cancelSessionActions"].values()) == [[given[2][0]]]
    worker.work()
    assert job.statuses()[numbers[2]] == "CANCELED"
    assert job.counts == {"SUCCEEDED": 29, "CANCELED": 1}


def test_a_session_is_ended_by_hand(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 2), jobEnvironments=[environment("around")]))
    worker.exchange()
    enter, run = (each[0] for each in worker.actions()[:2])
    worker.end(enter)
    worker.begin(run)
    worker.exchange()
    session = job.sessions()[0]["sessionId"]
    farmd.client().update_session(**job.ids, sessionId=session, targetLifecycleStatus="ENDED")
    assert farmd.client().get_session(**job.ids, sessionId=session)["targetLifecycleStatus"] == "ENDED"
    worker.exchange()
    worker.run_assigned()
    worker.exchange()
    assert job.counts == {"READY": 2}
    worker.work()
    assert job.status == "SUCCEEDED" and job.get()["taskFailureRetryCount"] == 0
    sessions = job.sessions()
    assert len(sessions) == 2 and all(each["lifecycleStatus"] == "ENDED" for each in sessions)
    exits = [action for action in job.actions(sessionId=session) if "envExit" in action["definition"]]
    assert [action["status"] for action in exits] == ["SUCCEEDED"]


def test_priority_then_age(farmd, farm_ids, worker):
    jobs = [Submitted(farmd, farm_ids, template(step()), priority=priority) for priority in (10, 80, 50, 80)]
    order = []

    def decide(kind, body, action_id):
        order.append(next(i for i, job in enumerate(jobs) if job.step_ids()["stepId"] == body["stepId"]))
        return "SUCCEEDED"

    worker.work(decide)
    assert order == [1, 3, 2, 0]


def test_a_better_job_takes_the_worker_after_what_it_has_in_hand(farmd, farm_ids, worker):
    low = Submitted(farmd, farm_ids, template(step("step", 4), jobEnvironments=[environment("e")]), priority=10)
    worker.exchange()
    worker.end(worker.actions()[0][0])
    worker.exchange()
    high = Submitted(farmd, farm_ids, template(step()), priority=90)
    worker.work()
    assert low.status == high.status == "SUCCEEDED"
    assert high.get()["endedAt"] < low.get()["endedAt"]
    assert len(low.sessions()) == 2


def test_max_worker_count(farmd, farm_ids, two_workers):
    job = Submitted(farmd, farm_ids, template(step("step", 4)), maxWorkerCount=1)
    first, second = two_workers
    assert first.exchange()["assignedSessions"]
    assert not second.exchange()["assignedSessions"]
    job.update(maxWorkerCount=2)
    assert second.exchange()["assignedSessions"]
    first.work()
    second.work()
    assert job.status == "SUCCEEDED"


def test_fewer_workers_than_before(farmd, farm_ids, two_workers):
    job = Submitted(farmd, farm_ids, template(step("step", 6)), maxWorkerCount=2)
    first, second = two_workers
    assert first.exchange()["assignedSessions"] and second.exchange()["assignedSessions"]
    job.update(maxWorkerCount=1)
    second.work()  # it ends what it has in hand
    assert [status for _, _, _, status in second.ran] == ["SUCCEEDED"]
    first.work()
    assert job.status == "SUCCEEDED" and len(first.ran) == 5


def test_workers_share_a_job(farmd, farm_ids, two_workers):
    job = Submitted(farmd, farm_ids, template(step("step", 4)))
    for worker in two_workers:
        worker.exchange()
    numbers = [number_of(body["taskId"]) for worker in two_workers for _, _, body in worker.actions()]
    assert numbers == [0, 1]
    for worker in two_workers:
        worker.work()
    assert job.status == "SUCCEEDED"
    assert {session["workerId"] for session in job.sessions()} == {worker.worker_id for worker in two_workers}


def test_balanced_queues_spread_workers_over_jobs(farmd, farm_ids, two_workers):
    ids = queue_of_its_own(farmd, farm_ids, schedulingConfiguration={"priorityBalanced": {"renderingTaskBuffer": 1}})
    jobs = [Submitted(farmd, ids, template(step("step", 5))) for _ in range(2)]
    for worker in two_workers:
        worker.exchange()
    assert [job.counts["ASSIGNED"] for job in jobs] == [1, 1]
    for worker in two_workers:
        worker.work()
    assert [job.status for job in jobs] == ["SUCCEEDED"] * 2
    close(farmd, ids)


def test_weighted_queues_choose_by_weight(farmd, farm_ids, two_workers):
    weights = {"priorityWeight": 1.0, "errorWeight": 0.0, "submissionTimeWeight": 0.0, "renderingTaskWeight": -100.0}
    ids = queue_of_its_own(farmd, farm_ids, schedulingConfiguration={"weightedBalanced": weights})
    low, high = (Submitted(farmd, ids, template(step("step", 3)), priority=priority) for priority in (10, 60))
    first, second = two_workers
    first.exchange()
    assert (high.counts.get("ASSIGNED"), low.counts.get("ASSIGNED")) == (1, None)
    # A running task weighs more than the difference in priority.
    second.exchange()
    assert (high.counts.get("ASSIGNED"), low.counts.get("ASSIGNED")) == (1, 1)
    for worker in two_workers:
        worker.work()
    assert high.status == low.status == "SUCCEEDED"
    close(farmd, ids)


def test_what_no_fleet_can_run_is_not_compatible(farmd, farm_ids, worker):
    needs = {"hostRequirements": {"attributes": [{"name": "attr.worker.os.family", "anyOf": ["windows"]}]}}
    job = Submitted(farmd, farm_ids, template(step("fits", 2), {**step("never", 3), **needs}))
    assert job.counts == {"NOT_COMPATIBLE": 3, "CANCELED": 2}
    assert job.status == "NOT_COMPATIBLE" and "endedAt" in job.get()
    assert not worker.exchange()["assignedSessions"]
    job.update(targetTaskRunStatus="READY")
    assert job.counts == {"NOT_COMPATIBLE": 3, "CANCELED": 2}
    # A fleet of the right kind comes: requeued it can run.
    client = farmd.client()
    windows = {"customerManaged": {**CONFIGURATION["customerManaged"]}}
    windows["customerManaged"]["workerCapabilities"] = {
        **CONFIGURATION["customerManaged"]["workerCapabilities"],
        "osFamily": "WINDOWS",
    }
    queue = client.get_queue(farmId=farm_ids.farm, queueId=farm_ids.queue)
    assert queue["jobRunAsUser"] == {"runAs": "WORKER_AGENT_USER"}
    fleet = client.create_fleet(
        farmId=farm_ids.farm, displayName="windows", roleArn=ROLE, maxWorkerCount=1, configuration=windows
    )["fleetId"]
    pair = {"farmId": farm_ids.farm, "queueId": farm_ids.queue, "fleetId": fleet}
    client.create_queue_fleet_association(**pair)
    job.update(targetTaskRunStatus="READY")
    assert job.counts == {"READY": 5}
    worker.work()
    # The Linux worker does what it can, and no more.
    assert job.counts == {"READY": 3, "SUCCEEDED": 2}
    client.update_queue_fleet_association(**pair, status="STOP_SCHEDULING_AND_CANCEL_TASKS")
    assert job.counts == {"NOT_COMPATIBLE": 3, "SUCCEEDED": 2}


def test_amounts_and_custom_capabilities(farmd, farm_ids):
    client = farmd.client()
    capabilities = {
        **CONFIGURATION["customerManaged"]["workerCapabilities"],
        "vCpuCount": {"min": 4, "max": 8},
        "customAmounts": [{"name": "amount.licences", "min": 2, "max": 2}],
        "customAttributes": [{"name": "attr.studio", "values": ["Berlin", "Oslo"]}],
    }
    fleet = client.create_fleet(
        farmId=farm_ids.farm, displayName="special", roleArn=ROLE, maxWorkerCount=1,
        configuration={"customerManaged": {**CONFIGURATION["customerManaged"], "workerCapabilities": capabilities}},
    )["fleetId"]  # fmt: skip
    ids = queue_of_its_own(farmd, farm_ids, fleet)

    def fits(**requirements):
        job = Submitted(farmd, ids, template({**step(), "hostRequirements": requirements}))
        assert job.status in ("READY", "NOT_COMPATIBLE")
        return job.status == "READY"

    def amount(name, **bounds):
        return fits(amounts=[{"name": name, **bounds}])

    def attribute(name, **members):
        return fits(attributes=[{"name": name, **members}])

    assert amount("amount.worker.vcpu", min=4) and not amount("amount.worker.vcpu", min=5)
    assert amount("amount.worker.vcpu", max=8) and not amount("amount.worker.vcpu", max=7)
    assert not amount("amount.worker.memory", max=100_000)  # the fleet names no maximum
    assert amount("amount.LICENCES", min=2) and not amount("amount.unknown", min=1)
    assert amount("amount.worker.gpu", max=1) and not amount("amount.worker.gpu", min=1)
    assert attribute("attr.studio", anyOf=["oslo", "rome"]) and not attribute("attr.studio", anyOf=["rome"])
    assert attribute("attr.studio", allOf=["oslo", "berlin"]) and not attribute("attr.studio", allOf=["oslo", "rome"])
    close(farmd, ids)


def test_limits_are_never_exceeded(farmd, farm_ids, two_workers):
    client = farmd.client()
    limit = client.create_limit(
        farmId=farm_ids.farm, displayName="licences", amountRequirementName="amount.limit.licence", maxCount=1
    )["limitId"]
    needs = {"hostRequirements": {"amounts": [{"name": "amount.limit.licence", "min": 1}]}}
    unknown = Submitted(farmd, farm_ids, template({**step(), **needs}))
    assert unknown.status == "NOT_COMPATIBLE"
    pair = {"farmId": farm_ids.farm, "queueId": farm_ids.queue, "limitId": limit}
    client.create_queue_limit_association(**pair)
    job = Submitted(farmd, farm_ids, template({**step("step", 3), **needs}))
    assert job.status == "READY"
    first, second = two_workers
    first.exchange()
    assert not second.exchange()["assignedSessions"]
    assert len(first.actions()) == 1
    count = client.get_limit(farmId=farm_ids.farm, limitId=limit)["currentCount"]
    assert count == 1
    shown = client.get_session_action(**job.ids, sessionActionId=first.actions()[0][0])
    assert shown["acquiredLimits"] == [{"limitId": limit, "count": 1}]
    client.update_limit(farmId=farm_ids.farm, limitId=limit, maxCount=2)
    assert second.exchange()["assignedSessions"]
    first.work()
    second.work()
    assert job.status == "SUCCEEDED"
    assert client.get_limit(farmId=farm_ids.farm, limitId=limit)["currentCount"] == 0
    # Lowered, it holds for the next task of a session, too.
    job = Submitted(farmd, farm_ids, template({**step("step", 4), **needs}))
    assert first.exchange()["assignedSessions"] and second.exchange()["assignedSessions"]
    client.update_limit(farmId=farm_ids.farm, limitId=limit, maxCount=1)
    first.run_assigned()
    assert not first.exchange()["assignedSessions"]
    second.work()
    first.work()
    assert job.status == "SUCCEEDED"
    client.update_queue_limit_association(**pair, status="STOP_LIMIT_USAGE_AND_CANCEL_TASKS")


@pytest.mark.parametrize("status", ["STOP_SCHEDULING_AND_COMPLETE_TASKS", "STOP_SCHEDULING_AND_CANCEL_TASKS"])
def test_an_association_is_stopped(farmd, farm_ids, worker, status):
    client = farmd.client()
    ids = queue_of_its_own(farmd, farm_ids)
    job = Submitted(farmd, ids, template(step("step", 3), jobEnvironments=[environment("e")]))
    worker.exchange()
    enter, run = (each[0] for each in worker.actions()[:2])
    worker.end(enter)
    worker.begin(run)
    worker.exchange()
    client.update_queue_fleet_association(**ids.pair, status=status)
    assert client.get_queue_fleet_association(**ids.pair)["status"] == status
    worker.work()
    assert job.counts == ({"READY": 3} if "CANCEL" in status else {"READY": 2, "SUCCEEDED": 1})
    limit = time.monotonic() + 10
    while client.get_queue_fleet_association(**ids.pair)["status"] != "STOPPED":
        assert time.monotonic() < limit
        time.sleep(0.05)
    client.update_queue_fleet_association(**ids.pair, status="ACTIVE")
    worker.work()
    assert job.status == "SUCCEEDED"
    close(farmd, ids)


def test_archived_jobs_are_left_alone(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 2)))
    worker.exchange()
    job.update(lifecycleStatus="ARCHIVED")
    worker.work()
    assert job.get()["lifecycleStatus"] == "ARCHIVED" and job.counts == {"CANCELED": 2}
    assert job.sessions()[0]["lifecycleStatus"] == "ENDED"
