"""Workers over the API: their life, their credentials, and what becomes of their work when they or the service go."""

from __future__ import annotations

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from own_farmd import CONFIGURATION, ROLE
from simulated_worker import CAPABILITIES, SimulatedWorker, Submitted, audit, clear, environment, step, template


@pytest.fixture(scope="module", autouse=True)
def _impatient(farmd):
    """A worker is looked at every half second here, and an idle one is held for a tenth."""
    config = farmd.dir / "config.json"
    settings = json.loads(config.read_text()) if config.exists() else {}
    settings["settings"] = {**settings.get("settings", {}), "worker_look_s": 0.5, "worker_hold_s": 0.1}
    config.write_text(json.dumps(settings))
    farmd.restart()


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


def refusal(call, *args, **kwargs):
    with pytest.raises(ClientError) as caught:
        call(*args, **kwargs)
    return caught.value.response


def silence(farmd, worker):
    """Have the service think that a worker was not heard for an hour, and wait until it acts on it."""
    db = sqlite3.connect(farmd.dir / "farm.sqlite", timeout=10)
    db.execute("UPDATE workers SET heard_at = heard_at - 3600000 WHERE worker_id = ?", (worker.worker_id,))
    db.commit()
    db.close()
    limit = time.monotonic() + 10
    while worker.status != "NOT_RESPONDING":
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_the_life_of_a_worker(farmd, farm_ids):
    client = farmd.client()
    worker = SimulatedWorker(client, farm_ids.farm, farm_ids.fleet).create()
    assert worker.status == "CREATED"
    assert refusal(worker.exchange)["context"] == {"status": "CREATED"}
    worker.start()
    assert worker.started["log"] == {
        "logDriver": "awslogs",
        "options": {
            "logGroupName": f"/aws/deadline/{farm_ids.farm}/{farm_ids.fleet}",
            "logStreamName": worker.worker_id,
        },
        "parameters": {"interval": "5"},
    }
    assert worker.status == "STARTED"
    worker.exchange()
    assert worker.status == "IDLE"
    got = client.get_worker(**worker.ids)
    assert got["hostProperties"] == {"hostName": "simulated"}
    assert worker.worker_id in [each["workerId"] for each in client.list_workers(
        farmId=farm_ids.farm, fleetId=farm_ids.fleet)["workers"]]  # fmt: skip
    term = {"searchTermFilter": {"searchTerm": worker.worker_id, "matchType": "CONTAINS"}}
    found = client.search_workers(
        farmId=farm_ids.farm, fleetIds=[farm_ids.fleet], itemOffset=0,
        filterExpressions={"operator": "AND", "filters": [term]},
    )  # fmt: skip
    assert [each["workerId"] for each in found["workers"]] == [worker.worker_id] and found["totalResults"] == 1
    assert client.batch_get_worker(identifiers=[worker.ids])["workers"][0]["status"] == "IDLE"
    before = client.get_fleet(farmId=farm_ids.farm, fleetId=farm_ids.fleet)["workerCount"]
    assert refusal(client.delete_worker, **worker.ids)["context"] == {"status": "IDLE"}
    client.update_worker(**worker.ids, status="STOPPING")
    assert worker.status == "STOPPING"
    worker.exchange()
    conflict = refusal(worker.start)
    assert (conflict["reason"], conflict["resourceId"]) == ("STATUS_CONFLICT", worker.worker_id)
    assert conflict["context"] == {"status": "STOPPING"}
    worker.stop()
    assert refusal(worker.exchange)["context"] == {"status": "STOPPED"}
    worker.start()
    worker.stop()
    client.delete_worker(**worker.ids)
    assert refusal(client.get_worker, **worker.ids)["Error"]["Code"] == "ResourceNotFoundException"
    assert client.get_fleet(farmId=farm_ids.farm, fleetId=farm_ids.fleet)["workerCount"] == before - 1


def test_a_fleet_has_no_more_workers_than_it_may(farmd, farm_ids):
    client = farmd.client()
    fleet = client.get_fleet(farmId=farm_ids.farm, fleetId=farm_ids.fleet)
    small = client.create_fleet(
        farmId=farm_ids.farm, displayName="small", roleArn=fleet["roleArn"], maxWorkerCount=1,
        configuration=fleet["configuration"],
    )["fleetId"]  # fmt: skip
    first = SimulatedWorker(client, farm_ids.farm, small).create()
    conflict = refusal(SimulatedWorker(client, farm_ids.farm, small).create)
    assert (conflict["Error"]["Code"], conflict["resourceId"]) == ("ConflictException", small)
    # One that is gone takes no place: hosts come and go.
    first.stop()
    second = SimulatedWorker(client, farm_ids.farm, small).create()
    assert client.get_fleet(farmId=farm_ids.farm, fleetId=small)["workerCount"] == 2
    second.start()
    silence(farmd, second)
    third = SimulatedWorker(client, farm_ids.farm, small).create()
    # Nor does one that never came: its agent died before it wrote down who it is.
    refusal(SimulatedWorker(client, farm_ids.farm, small).create)
    db = sqlite3.connect(farmd.dir / "farm.sqlite", timeout=10)
    db.execute("UPDATE workers SET created_at = created_at - 3600000 WHERE worker_id = ?", (third.worker_id,))
    db.commit()
    db.close()
    SimulatedWorker(client, farm_ids.farm, small).create()


def test_a_worker_of_another_kind_gets_no_work(farmd, farm_ids):
    worker = SimulatedWorker(farmd.client(), farm_ids.farm, farm_ids.fleet).create()
    wrong = json.loads(json.dumps(CAPABILITIES))
    wrong["attributes"][0]["values"] = ["windows"]
    conflict = refusal(farmd.client().update_worker, **worker.ids, status="STARTED", capabilities=wrong)
    assert conflict["context"] == {"status": "NOT_COMPATIBLE"}
    assert worker.status == "NOT_COMPATIBLE"
    assert refusal(worker.exchange)["context"] == {"status": "NOT_COMPATIBLE"}
    weak = json.loads(json.dumps(CAPABILITIES))
    weak["amounts"][1]["value"] = 256
    conflict = refusal(farmd.client().update_worker, **worker.ids, status="STARTED", capabilities=weak)
    assert conflict["context"] == {"status": "NOT_COMPATIBLE"}
    worker.start()
    assert worker.status == "STARTED"
    worker.stop()


def test_credentials_of_a_worker_are_good_for_its_own_work_only(farmd, farm_ids):
    client = farmd.client()
    job = Submitted(farmd, farm_ids, template(step()))
    other_job = Submitted(farmd, farm_ids, template(step()), priority=1)
    mine, other = (SimulatedWorker(client, farm_ids.farm, farm_ids.fleet).create() for _ in range(2))
    credentials = client.assume_fleet_role_for_worker(**mine.ids)["credentials"]
    mine.client = farmd.client(credentials=credentials)
    mine.start()
    queue_role = {"farmId": farm_ids.farm, "fleetId": farm_ids.fleet, "workerId": mine.worker_id}
    before = refusal(mine.client.assume_queue_role_for_worker, **queue_role, queueId=farm_ids.queue)
    assert before["Error"]["Code"] == "AccessDeniedException"
    mine.exchange()
    given = mine.client.assume_queue_role_for_worker(**queue_role, queueId=farm_ids.queue)["credentials"]
    assert given["accessKeyId"].startswith("ASIA")
    assert mine.client.assume_fleet_role_for_worker(**mine.ids)["credentials"]
    entities = mine.client.batch_get_job_entity(
        **mine.ids,
        identifiers=[{"jobDetails": {"jobId": job.ids["jobId"]}}, {"jobDetails": {"jobId": other_job.ids["jobId"]}}],
    )
    assert len(entities["entities"]) == 1
    assert entities["errors"][0]["jobDetails"]["jobId"] == other_job.ids["jobId"]
    for call, params in (
        (mine.client.update_worker_schedule, other.ids),
        (mine.client.assume_fleet_role_for_worker, other.ids),
        (mine.client.get_job, job.ids),
        (mine.client.update_job, {**job.ids, "priority": 100}),
        (farmd.client(credentials=given).get_job, job.ids),
    ):
        assert refusal(call, **params)["Error"]["Code"] == "AccessDeniedException"
    farmd.restart()  # credentials outlive the service
    mine.work()
    assert job.status == "SUCCEEDED"
    mine.stop()


def test_the_work_of_a_lost_worker_is_done_by_another(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 2), jobEnvironments=[environment("e")]), maxRetriesPerTask=3)
    lost = SimulatedWorker(farmd.client(), farm_ids.farm, farm_ids.fleet).start()
    lost.exchange()
    enter, run = (each[0] for each in lost.actions()[:2])
    lost.end(enter)
    lost.begin(run)
    lost.exchange()
    assert "RUNNING" in job.statuses()
    silence(farmd, lost)
    audit(farmd.dir)
    assert job.counts == {"READY": 2} and job.get()["taskFailureRetryCount"] == 1
    [session] = job.sessions()
    assert session["lifecycleStatus"] == "ENDED"
    assert [action["status"] for action in job.actions()] == ["SUCCEEDED", "INTERRUPTED"]
    assert refusal(lost.exchange)["context"] == {"status": "NOT_RESPONDING"}
    worker.work()
    assert job.status == "SUCCEEDED"
    # Back again, it starts anew.
    lost.pending.clear()
    lost.start()
    lost.exchange()
    assert lost.status == "IDLE"
    lost.stop()


def test_a_short_silence_is_measured_as_it_is(start_farmd, tmp_path):
    """A worker that calls is heard, however little the farm writes of it."""
    (tmp_path / "farm").mkdir()
    settings = {"worker_silence_s": 1, "worker_look_s": 0.05, "worker_hold_s": 0.1}
    (tmp_path / "farm" / "config.json").write_text(json.dumps({"settings": settings}))
    server = start_farmd(tmp_path / "farm")
    client = server.client()
    farm = client.create_farm(displayName="farm")["farmId"]
    fleet = client.create_fleet(
        farmId=farm, displayName="fleet", roleArn=ROLE, maxWorkerCount=1, configuration=CONFIGURATION
    )["fleetId"]
    worker = SimulatedWorker(client, farm, fleet).start()
    until = time.monotonic() + 2
    while time.monotonic() < until:
        worker.exchange()
    assert worker.status == "IDLE"
    limit = time.monotonic() + 5
    while worker.status != "NOT_RESPONDING":
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_what_a_lost_worker_had_not_begun_is_not_held_against_the_task(farmd, farm_ids):
    job = Submitted(farmd, farm_ids, template(step()), maxRetriesPerTask=0)
    lost = SimulatedWorker(farmd.client(), farm_ids.farm, farm_ids.fleet).start()
    lost.exchange()
    silence(farmd, lost)
    assert [action["status"] for action in job.actions()] == ["RECLAIMED"]
    assert job.counts == {"READY": 1} and job.get()["taskFailureRetryCount"] == 0


def test_a_worker_that_starts_anew_gives_its_work_back(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step()), maxRetriesPerTask=1)
    worker.exchange()
    worker.begin(worker.actions()[0][0])
    worker.exchange()
    worker.start()
    assert job.counts == {"READY": 1} and job.get()["taskFailureRetryCount"] == 1
    worker.work()
    assert job.counts == {"SUCCEEDED": 1}


def test_a_worker_that_stops_is_given_no_more(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 3), jobEnvironments=[environment("e")]))
    worker.exchange()
    enter, run = (each[0] for each in worker.actions()[:2])
    worker.end(enter)
    worker.begin(run)
    worker.exchange()
    farmd.client().update_worker(**worker.ids, status="STOPPING")
    worker.end(run, "INTERRUPTED")
    worker.exchange()
    assert [kind for _, kind, _ in worker.actions()] == ["envExit"]
    worker.work()
    assert worker.schedule["assignedSessions"] == {} and job.counts == {"READY": 3}
    worker.stop()


def test_sessions_of_a_worker_are_listed(farmd, farm_ids, worker):
    jobs = [Submitted(farmd, farm_ids, template(step())) for _ in range(3)]
    worker.work()
    client = farmd.client()
    listed = client.list_sessions_for_worker(**worker.ids, maxResults=2)
    assert [each["jobId"] for each in listed["sessions"]] == [job.ids["jobId"] for job in (jobs[2], jobs[1])]
    rest = client.list_sessions_for_worker(**worker.ids, nextToken=listed["nextToken"])
    assert [each["jobId"] for each in rest["sessions"]] == [jobs[0].ids["jobId"]]
    one = client.get_session(**jobs[0].ids, sessionId=rest["sessions"][0]["sessionId"])
    assert one["log"]["options"]["logStreamName"] == one["sessionId"]
    assert one["workerLog"]["options"]["logStreamName"] == worker.worker_id
    assert one["hostProperties"] == {"hostName": "simulated"}
    assert client.batch_get_session(identifiers=[{**jobs[0].ids, "sessionId": one["sessionId"]}])["sessions"]


def test_an_idle_worker_hears_of_a_job_at_once(farmd, farm_ids, worker):
    worker.exchange()  # the first answer after a start comes at once
    begun = time.monotonic()
    assert not worker.exchange()["assignedSessions"]
    assert time.monotonic() - begun > 0.08  # held while there is nothing
    config = farmd.dir / "config.json"
    text = config.read_text()
    config.write_text(json.dumps({"settings": {"worker_hold_s": 50}}))
    farmd.restart()
    try:
        for _ in range(3):
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(lambda: (worker.exchange(), time.monotonic()))
                time.sleep(0.2)
                assert not asked.done()
                begun = time.monotonic()
                Submitted(farmd, farm_ids, template(step()))
                schedule, heard = asked.result(40)
            assert schedule["assignedSessions"] and heard - begun < 20
            worker.work()
    finally:
        config.write_text(text)
        farmd.restart()


@pytest.mark.parametrize("gives_back", ["stops", "succeeds"])
def test_an_idle_worker_of_another_fleet_hears_of_what_a_worker_makes_ready(farmd, farm_ids, worker, gives_back):
    client = farmd.client()
    other = client.create_fleet(
        farmId=farm_ids.farm, displayName="other", roleArn=ROLE, maxWorkerCount=1, configuration=CONFIGURATION
    )["fleetId"]
    pair = {"farmId": farm_ids.farm, "queueId": farm_ids.queue, "fleetId": other}
    client.create_queue_fleet_association(**pair)
    config = farmd.dir / "config.json"
    text = config.read_text()
    config.write_text(json.dumps({"settings": {"worker_hold_s": 50}}))
    farmd.restart()
    idle = SimulatedWorker(farmd.client(), farm_ids.farm, other)
    try:
        Submitted(farmd, farm_ids, template(step("one"), step("two", 2, after=("one",))))
        worker.exchange()
        [(action, _, _)] = [each for each in worker.actions() if each[1] == "taskRun"]
        idle.start()
        idle.exchange()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(idle.exchange)
            time.sleep(0.2)
            assert not asked.done()
            if gives_back == "stops":
                worker.stop()
            else:
                worker.end(action)
                worker.exchange()
            assert asked.result(20)["assignedSessions"]
    finally:
        config.write_text(text)
        farmd.restart()
        idle.stop()
        client.update_queue_fleet_association(**pair, status="STOP_SCHEDULING_AND_CANCEL_TASKS")


def test_a_service_that_was_away_does_not_lose_its_workers(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step("step", 2)))
    worker.exchange()
    action = worker.actions()[0][0]
    worker.begin(action)
    worker.exchange()
    farmd.kill()
    db = sqlite3.connect(farmd.dir / "farm.sqlite")
    db.execute("UPDATE workers SET heard_at = heard_at - 3600000")
    db.commit()
    db.close()
    farmd.start()
    time.sleep(1.2)  # two looks at the workers
    assert worker.status == "RUNNING"
    worker.end(action)
    worker.work()
    assert job.counts == {"SUCCEEDED": 2} and job.get()["taskFailureRetryCount"] == 0


def test_statistics_sum_worker_time(farmd, farm_ids, worker):
    job = Submitted(farmd, farm_ids, template(step(), name="measured"))
    worker.exchange()
    worker.begin(worker.actions()[0][0])
    worker.exchange()
    time.sleep(0.3)
    worker.work()
    client = farmd.client()
    [session] = job.sessions()
    span = (session["endedAt"] - session["startedAt"]).total_seconds()
    started = client.start_sessions_statistics_aggregation(
        farmId=farm_ids.farm, resourceIds={"queueIds": [farm_ids.queue]}, groupBy=["JOB_ID", "USAGE_TYPE"],
        statistics=["SUM", "AVG", "MAX", "MIN"], startTime=session["startedAt"].timestamp() - 60,
        endTime=session["endedAt"].timestamp() + 60,
    )["aggregationId"]  # fmt: skip
    limit = time.monotonic() + 10
    while True:
        found = client.get_sessions_statistics_aggregation(farmId=farm_ids.farm, aggregationId=started)
        if found["status"] != "IN_PROGRESS":
            break
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert found["status"] == "COMPLETED"
    [row] = [row for row in found["statistics"] if row["jobId"] == job.ids["jobId"]]
    assert (row["jobName"], row["usageType"], row["count"]) == ("measured", "COMPUTE", 1)
    assert row["runtimeInSeconds"]["sum"] == pytest.approx(span) and span > 0.3
    assert row["costInUsd"]["sum"] == pytest.approx(span / 3600)


def test_a_dead_service_takes_nothing_with_it(farmd, farm_ids, worker):
    """Killed while it answers: what was acknowledged stands, what was not is reported again."""
    job = Submitted(farmd, farm_ids, template(step("step", 40)), maxRetriesPerTask=0)
    for round_ in range(6):
        worker.exchange()
        worker.run_assigned()
        if round_ % 2:
            reported = dict(worker.pending)
            farmd.process.kill()
            try:
                worker.exchange()
            except (BotoCoreError, ClientError):
                worker.pending = reported
            farmd.process.wait()
            farmd.start()
        audit(farmd.dir)
    worker.work()
    assert job.counts == {"SUCCEEDED": 40}
    assert sorted(status for _, kind, _, status in worker.ran if kind == "taskRun") == ["SUCCEEDED"] * 40
    runs = [body["taskId"] for _, kind, body, _ in worker.ran if kind == "taskRun"]
    assert len(set(runs)) == len(runs) == 40
