"""Rules of a job's life that are easily forgotten, where no other file tests them.

Source: spec/service.md, sections 6 to 11.
"""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
from own_farmd import CONFIGURATION, ROLE
from simulated_worker import SimulatedWorker, Submitted, audit, clear, environment, number_of, step, template


@pytest.fixture(autouse=True)
def _cleared(farmd, farm_ids):
    yield
    clear(farmd, farm_ids)
    audit(farmd.dir)


@pytest.fixture
def worker(farmd, farm_ids):
    worker = SimulatedWorker(farmd.client(), farm_ids.farm, farm_ids.fleet).start()
    yield worker
    worker.stop()


def own_queue(farmd, farm_ids, **fields):
    """A queue and a fleet of its own for it, with a worker."""
    client = farmd.client()
    farm = farm_ids.farm
    user = {"runAs": "WORKER_AGENT_USER"}
    queue = client.create_queue(farmId=farm, displayName="own", jobRunAsUser=user, roleArn=ROLE, **fields)["queueId"]
    fleet = client.create_fleet(
        farmId=farm, displayName="own", roleArn=ROLE, maxWorkerCount=10, configuration=CONFIGURATION
    )["fleetId"]
    client.create_queue_fleet_association(farmId=farm, queueId=queue, fleetId=fleet)
    worker = SimulatedWorker(client, farm, fleet).start()
    return SimpleNamespace(farm=farm, queue=queue, fleet=fleet, worker=worker)


def until(condition, limit_s=10):
    give_up = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def only_runs(worker):
    return [(body, status) for _, kind, body, status in worker.ran if kind == "taskRun"]


# -- Failures: section 7.3


def test_inputs_that_can_not_be_synced_cost_the_first_task(farmd, farm_ids, worker):
    manifests = [{"rootPath": "/a", "rootPathFormat": "posix", "outputRelativeDirectories": ["out"]}]
    job = Submitted(
        farmd, farm_ids, template(step("step", 2)), maxRetriesPerTask=0, maxFailedTasksCount=5,
        attachments={"manifests": manifests, "fileSystem": "COPIED"},
    )  # fmt: skip
    synced = []

    def decide(kind, body, action_id):
        if kind == "syncInputJobAttachments":
            synced.append(body)
            return "FAILED" if len(synced) == 1 else "SUCCEEDED"
        return "SUCCEEDED"

    worker.work(decide)
    assert job.statuses() == ["FAILED", "SUCCEEDED"]
    assert [task["failureRetryCount"] for task in job.tasks()] == [1, 0]


def test_what_was_given_back_before_anything_ran_is_tried_again(farmd, farm_ids, worker):
    """The very first action of a session may be returned, and that is nobody's failure."""
    job = Submitted(farmd, farm_ids, template(step(), jobEnvironments=[environment("e")]), maxRetriesPerTask=0)
    returned = []

    def decide(kind, body, action_id):
        if not returned:
            returned.append(action_id)
            return "NEVER_ATTEMPTED"
        return "SUCCEEDED"

    worker.work(decide)
    assert job.status == "SUCCEEDED" and job.get()["taskFailureRetryCount"] == 0
    # What was never entered is not exited.
    assert [kind for _, kind, _, _ in worker.ran[:2]] == ["envEnter", "taskRun"]
    assert [kind for _, kind, _, _ in worker.ran[2:]] == ["envEnter", "taskRun", "envExit"]


def test_the_limit_of_failures_is_lowered_below_what_failed(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 4)), maxRetriesPerTask=0, maxFailedTasksCount=10)
    decided = []

    def decide(kind, body, action_id):
        decided.append(action_id)
        return "FAILED" if len(decided) <= 2 else None

    worker.exchange()
    for _ in range(8):
        worker.run_assigned(decide)
        worker.exchange()
    assert job.counts["FAILED"] == 2 and "ASSIGNED" in job.counts
    job.update(maxFailedTasksCount=1)
    worker.work()
    assert job.counts == {"FAILED": 4} and job.status == "FAILED"


def test_defaults_are_those_that_clients_send(farmd, farm_ids):
    got = Submitted(farmd, farm_ids, template(step())).get()
    assert (got["maxFailedTasksCount"], got["maxRetriesPerTask"], got["maxWorkerCount"]) == (20, 5, -1)


# -- Target statuses: section 7.4


def test_a_job_that_is_made_suspended_waits(farmd, farm_ids, worker):
    body = template(step("a"), step("b", after=("a",)))
    job = Submitted(farmd, farm_ids, body, targetTaskRunStatus="SUSPENDED")
    assert (job.status, job.counts) == ("SUSPENDED", {"SUSPENDED": 2})
    assert worker.exchange()["assignedSessions"] == {}
    job.update(targetTaskRunStatus="READY")
    assert (job.statuses("a"), job.statuses("b")) == (["READY"], ["PENDING"])
    worker.work()
    assert job.status == "SUCCEEDED"


def test_a_mark_of_success_frees_what_waits(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("a", 2), step("b", after=("a",))))
    farmd.client().update_step(**job.step_ids("a"), targetTaskRunStatus="SUCCEEDED")
    assert (job.statuses("a"), job.statuses("b")) == (["SUCCEEDED"] * 2, ["READY"])
    worker.work()
    assert job.status == "SUCCEEDED"
    assert [body["stepId"] for body, _ in only_runs(worker)] == [job.step_ids("b")["stepId"]]


# -- Sessions: section 8


def test_the_next_session_comes_with_the_end_of_the_last(farmd, farm_ids, worker):
    """Rule 9: an answer that leaves a session out may hold the next one."""
    first = Submitted(farmd, farm_ids, template(step()))
    second = Submitted(farmd, farm_ids, template(step()))
    before = set(worker.exchange()["assignedSessions"])
    worker.run_assigned()
    answer = worker.exchange()["assignedSessions"]
    assert not before & set(answer)
    assert [session["jobId"] for session in answer.values()] == [second.ids["jobId"]]
    assert first.status == "SUCCEEDED"
    worker.work()


def test_environments_of_one_priority_are_entered_by_age(farmd, farm_ids):
    ids = own_queue(farmd, farm_ids)
    client = farmd.client()
    for name, priority in (("older", 5), ("newer", 5), ("first", 0)):
        text = {"specificationVersion": "environment-2023-09", "environment": environment(name)}
        client.create_queue_environment(
            farmId=ids.farm, queueId=ids.queue, priority=priority, templateType="JSON", template=json.dumps(text)
        )
    Submitted(farmd, ids, template(step()))
    ids.worker.work()
    entered = [body["environmentId"].rpartition(":")[2] for _, kind, body, _ in ids.worker.ran if kind == "envEnter"]
    assert entered == ["first", "older", "newer"]
    ids.worker.stop()


# -- Choosing work: section 10.1


def test_weights_can_be_overruled_for_the_highest_and_lowest_priority(farmd, farm_ids):
    weights = {
        "priorityWeight": 0.0, "errorWeight": 0.0, "submissionTimeWeight": 0.0, "renderingTaskWeight": 0.0,
        "maxPriorityOverride": {"alwaysScheduleFirst": {}}, "minPriorityOverride": {"alwaysScheduleLast": {}},
    }  # fmt: skip
    ids = own_queue(farmd, farm_ids, schedulingConfiguration={"weightedBalanced": weights})
    last, plain, first = (Submitted(farmd, ids, template(step()), priority=priority) for priority in (0, 50, 100))
    ids.worker.work()
    ended = [job.get()["endedAt"] for job in (first, plain, last)]
    assert ended == sorted(ended) and len(set(ended)) == 3
    ids.worker.stop()


def test_failures_weigh_on_a_job(farmd, farm_ids):
    weights = {"priorityWeight": 1.0, "errorWeight": -100.0, "submissionTimeWeight": 0.0, "renderingTaskWeight": 0.0}
    ids = own_queue(farmd, farm_ids, schedulingConfiguration={"weightedBalanced": weights})
    high = Submitted(farmd, ids, template(step()), priority=60)
    low = Submitted(farmd, ids, template(step()), priority=10)
    worker = ids.worker
    worker.exchange()
    worker.run_assigned(lambda kind, body, action_id: "FAILED")
    answer = worker.exchange()["assignedSessions"]
    assert [session["jobId"] for session in answer.values()] == [low.ids["jobId"]]
    worker.work()
    assert high.status == low.status == "SUCCEEDED"
    worker.stop()


def test_a_new_scheduling_configuration_holds_at_the_next_choice(farmd, farm_ids):
    ids = own_queue(farmd, farm_ids)
    low = Submitted(farmd, ids, template(step()), priority=10)
    high = Submitted(farmd, ids, template(step("step", 2)), priority=90)
    worker = ids.worker
    worker.exchange()
    assert high.counts == {"ASSIGNED": 1, "READY": 1}
    weights = {"priorityWeight": 0.0, "errorWeight": 0.0, "submissionTimeWeight": 0.0, "renderingTaskWeight": -100.0}
    farmd.client().update_queue(
        farmId=ids.farm, queueId=ids.queue,
        schedulingConfiguration={"weightedBalanced": {**weights, "renderingTaskBuffer": 0}},
    )  # fmt: skip
    worker.run_assigned()  # what it has is never taken from it
    answer = worker.exchange()["assignedSessions"]
    assert [session["jobId"] for session in answer.values()] == [low.ids["jobId"]]
    worker.work()
    assert high.status == low.status == "SUCCEEDED"
    worker.stop()


def test_a_worker_leaves_its_job_only_for_one_that_is_behind_by_more_than_the_buffer(farmd, farm_ids):
    balanced = {"priorityBalanced": {"renderingTaskBuffer": 1}}
    ids = own_queue(farmd, farm_ids, schedulingConfiguration=balanced)
    workers = [ids.worker, *(SimulatedWorker(farmd.client(), ids.farm, ids.fleet).start() for _ in range(2))]
    old = Submitted(farmd, ids, template(step("step", 9)))
    for worker in workers:
        worker.exchange()
    new = Submitted(farmd, ids, template(step("step", 9)))

    def jobs():
        return [each["jobId"] for worker in workers for each in worker.schedule["assignedSessions"].values()]

    assert jobs() == [old.ids["jobId"]] * 3
    for worker in workers:
        worker.run_assigned()
        worker.exchange()
    # The first one goes over, for two others are at the old job and none at the new one. Then they are even enough,
    # however many short tasks each worker was given ahead.
    assert jobs() == [new.ids["jobId"], old.ids["jobId"], old.ids["jobId"]]
    for worker in workers:
        worker.work()
        worker.stop()
    assert old.status == new.status == "SUCCEEDED"


# -- Parameter spaces: sections 6 and 10.2


def test_a_combination_is_walked_in_its_own_order(farmd, farm_ids, worker):
    space = {
        "taskParameterDefinitions": [
            {"name": "A", "type": "INT", "range": "1-2"},
            {"name": "B", "type": "STRING", "range": ["x", "y"]},
            {"name": "C", "type": "FLOAT", "range": ["0.5", "1.5"]},
            {"name": "D", "type": "PATH", "range": ["/d"]},
        ],
        "combination": "(A, B) * C * D",
    }
    job = Submitted(farmd, farm_ids, template({**step(), "parameterSpace": space}))
    expected = [
        {"A": {"int": a}, "B": {"string": b}, "C": {"float": c}, "D": {"path": "/d"}}
        for a, b in (("1", "x"), ("2", "y"))
        for c in ("0.5", "1.5")
    ]
    assert [task["parameters"] for task in job.tasks()] == expected
    assert farmd.client().get_step(**job.step_ids())["parameterSpace"]["combination"] == "(A, B) * C * D"
    worker.work()
    assert [body["parameters"] for body, _ in only_runs(worker)] == expected


def chunked(count: int, **chunks):
    frames = {"name": "Frame", "type": "CHUNK[INT]", "range": f"1-{count}"}
    frames["chunks"] = {"defaultTaskCount": 3, "rangeConstraint": "CONTIGUOUS", **chunks}
    return template({**step(), "parameterSpace": {"taskParameterDefinitions": [frames]}}, extensions=["TASK_CHUNKING"])


def test_one_frame_of_a_chunk_is_requeued_by_itself(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, chunked(6))
    worker.work()
    assert [body["parameters"]["Frame"]["chunkInt"] for body, _ in only_runs(worker)] == ["1-3", "4-6"]
    job.update_task(4, "READY")
    job.update_task(0, "READY")
    worker.work()
    # They do not follow on each other, so they are no chunk.
    assert [body["parameters"]["Frame"]["chunkInt"] for body, _ in only_runs(worker)][2:] == ["1-1", "5-5"]
    again = job.tasks()[4]
    assert len(job.actions(taskId=again["taskId"])) == 2
    assert job.status == "SUCCEEDED"


def test_one_frame_of_a_running_chunk_is_canceled(farmd, farm_ids, worker):
    """They share an action, and so its end; those that were not told to stop run again."""
    job = Submitted(farmd, farm_ids, chunked(3), maxRetriesPerTask=0)
    worker.exchange()
    worker.begin(worker.actions()[0][0])
    worker.exchange()
    assert job.statuses() == ["RUNNING"] * 3
    job.update_task(1, "CANCELED")
    assert job.statuses() == ["RUNNING", "INTERRUPTING", "RUNNING"]
    worker.exchange()
    worker.run_assigned()
    worker.exchange()
    worker.work()
    assert job.statuses() == ["SUCCEEDED", "CANCELED", "SUCCEEDED"] and job.get()["taskFailureRetryCount"] == 0


# -- Limits: section 11.1


@pytest.mark.parametrize("mode", ["STOP_LIMIT_USAGE_AND_COMPLETE_TASKS", "STOP_LIMIT_USAGE_AND_CANCEL_TASKS"])
def test_a_limit_leaves_a_queue(farmd, farm_ids, mode):
    ids = own_queue(farmd, farm_ids)
    client = farmd.client()
    limit = client.create_limit(
        farmId=ids.farm, displayName="l", amountRequirementName=f"amount.own.{mode[-14:].lower()}", maxCount=-1
    )
    pair = {"farmId": ids.farm, "queueId": ids.queue, "limitId": limit["limitId"]}
    client.create_queue_limit_association(**pair)
    name = client.get_limit(farmId=ids.farm, limitId=limit["limitId"])["amountRequirementName"]
    # A fraction of a whole is a whole of it.
    needs = {"hostRequirements": {"amounts": [{"name": name, "min": 1.5}]}}
    job = Submitted(farmd, ids, template({**step("step", 2), **needs}))
    worker = ids.worker
    worker.exchange()
    worker.begin(worker.actions()[0][0])
    worker.exchange()
    assert client.get_limit(farmId=ids.farm, limitId=limit["limitId"])["currentCount"] == 2
    client.update_queue_limit_association(**pair, status=mode)
    cancels = mode.endswith("CANCEL_TASKS")
    # What has not begun could not run any more.
    assert job.counts == ({"INTERRUPTING": 1, "NOT_COMPATIBLE": 1} if cancels else {"RUNNING": 1, "NOT_COMPATIBLE": 1})
    worker.exchange()
    worker.run_assigned()
    assert only_runs(worker)[0][1] == ("CANCELED" if cancels else "SUCCEEDED")
    worker.exchange()
    until(lambda: client.get_queue_limit_association(**pair)["status"] == "STOPPED")
    assert client.get_limit(farmId=ids.farm, limitId=limit["limitId"])["currentCount"] == 0
    client.delete_queue_limit_association(**pair)
    client.delete_limit(farmId=ids.farm, limitId=limit["limitId"])
    worker.stop()


# -- Budgets: section 11.2


@pytest.mark.parametrize("kind", ["STOP_SCHEDULING_AND_COMPLETE_TASKS", "STOP_SCHEDULING_AND_CANCEL_TASKS"])
def test_a_budget_that_is_used_up_stops_the_queue(start_farmd, tmp_path, kind):
    """A worker second costs a dollar here."""
    (tmp_path / "farm").mkdir()
    settings = {"dollars_per_worker_hour": 3600, "budget_interval_s": 0.05, "worker_hold_s": 0.05}
    (tmp_path / "farm" / "config.json").write_text(json.dumps({"settings": settings}))
    server = start_farmd(tmp_path / "farm")
    client = server.client()
    ids = own_queue(server, SimpleNamespace(farm=client.create_farm(displayName="farm")["farmId"]))
    now = time.time()
    budget = client.create_budget(
        farmId=ids.farm, displayName="b", usageTrackingResource={"queueId": ids.queue}, approximateDollarLimit=0.5,
        actions=[{"type": kind, "thresholdPercentage": 50}],
        schedule={"fixed": {"startTime": now - 3600, "endTime": now + 3600}},
    )["budgetId"]  # fmt: skip
    job = Submitted(server, ids, template(step("step", 2)))
    worker = ids.worker
    worker.exchange()
    worker.begin(worker.actions()[0][0])
    worker.exchange()
    until(lambda: client.get_queue(farmId=ids.farm, queueId=ids.queue)["status"] == "SCHEDULING_BLOCKED")
    assert client.get_queue(farmId=ids.farm, queueId=ids.queue)["blockedReason"] == "BUDGET_THRESHOLD_REACHED"
    assert client.get_budget(farmId=ids.farm, budgetId=budget)["usages"]["approximateDollarUsage"] >= 0.25
    worker.exchange()
    worker.run_assigned()
    canceled = kind.endswith("CANCEL_TASKS")
    assert [status for _, status in only_runs(worker)] == ["CANCELED" if canceled else "SUCCEEDED"]
    assert worker.exchange()["assignedSessions"] == {}
    assert job.counts == ({"READY": 2} if canceled else {"READY": 1, "SUCCEEDED": 1})
    client.update_budget(farmId=ids.farm, budgetId=budget, approximateDollarLimit=1000)
    worker.work()
    assert job.status == "SUCCEEDED"
    audit(server.dir)


# -- Time-outs


def test_time_outs_reach_the_worker_as_the_template_has_them(farmd, farm_ids, worker):
    actions = {"onRun": {"command": "sleep", "args": ["9"], "timeout": 2,
                         "cancelation": {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": 1}}}  # fmt: skip
    job = Submitted(farmd, farm_ids, template({"name": "step", "script": {"actions": actions}}), maxRetriesPerTask=0)
    worker.exchange()
    identifiers = [{"stepDetails": {"jobId": job.ids["jobId"], "stepId": job.step_ids()["stepId"]}}]
    answer = farmd.client().batch_get_job_entity(**worker.ids, identifiers=identifiers)
    [entity] = answer["entities"]
    assert entity["stepDetails"]["template"]["script"]["actions"] == actions
    # The worker ends it, and says FAILED.
    [(action_id, _, body)] = worker.actions()
    assert number_of(body["taskId"]) == 0
    worker.end(action_id, "FAILED", progressMessage="TIMEOUT: it took longer than 2 seconds", processExitCode=-15)
    worker.exchange()
    assert job.status == "FAILED"
    shown = farmd.client().get_session_action(**job.ids, sessionActionId=action_id)
    assert (shown["progressMessage"], shown["processExitCode"]) == ("TIMEOUT: it took longer than 2 seconds", -15)
