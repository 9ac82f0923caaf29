"""Every operation with every kind of credential: who may call what, and on whose behalf.

The table says what each kind may call; all else is AccessDeniedException, whatever the request holds.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from in_process import CAPABILITIES, Service, error_of, one_of_each
from model_values import MODEL, OPERATIONS, SHAPES, valid

READER = "99999999-3333-3333-4444-555555555555"
COPIER = "99999999-2222-3333-4444-555555555555"
WORKER = {
    "AssumeFleetRoleForWorker", "AssumeQueueRoleForWorker", "UpdateWorker", "UpdateWorkerSchedule",
    "BatchGetJobEntity", "DeleteWorker",
}  # fmt: skip
BOOTSTRAP = {"CreateWorker", "AssumeFleetRoleForWorker"}
READS = {operation for operation in OPERATIONS if operation.startswith(("Get", "List", "Search", "BatchGet"))} - WORKER
WRITES = {
    "CONTRIBUTOR": {
        "CreateJob", "UpdateJob", "UpdateStep", "UpdateTask", "UpdateSession", "BatchUpdateJob", "BatchUpdateTask",
        "CopyJobTemplate", "AssumeQueueRoleForUser", "AssumeQueueRoleForRead", "AssumeFleetRoleForRead",
        "StartSessionsStatisticsAggregation",
    },
    "MANAGER": {
        "UpdateFarm", "DeleteWorker", "TagResource", "UntagResource",
        *(f"{verb}{noun}" for verb in ("Create", "Update") for noun in ("Queue", "Fleet")),
        *(
            f"{verb}{noun}"
            for verb in ("Create", "Update", "Delete")
            for noun in (
                "QueueEnvironment", "Budget", "Limit", "StorageProfile", "QueueFleetAssociation",
                "QueueLimitAssociation",
            )
        ),
    },
}  # fmt: skip
LEVELS = ("VIEWER", "CONTRIBUTOR", "MANAGER", "OWNER")
MANAGES_ALL = set(OPERATIONS) - (WORKER - {"DeleteWorker"}) - {"CreateWorker"}
MAY: dict[str, set[str]] = {
    "admin": set(OPERATIONS),
    "worker": WORKER,
    "bootstrap": BOOTSTRAP,
    "VIEWER": READS,
    "CONTRIBUTOR": READS | WRITES["CONTRIBUTOR"],
    "MANAGER": READS | WRITES["CONTRIBUTOR"] | WRITES["MANAGER"],
    "OWNER": MANAGES_ALL,
    **{kind: set() for kind in ("queue_worker", "queue_user", "queue_read", "fleet_read", "another_worker",
                                "bootstrap_of_another_fleet", "owner_of_another_farm", "member_of_nothing")},
}  # fmt: skip


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, str]:
    return one_of_each(service)


@pytest.fixture(scope="module")
def who(service: Service, ids: dict[str, str]) -> dict[str, Any]:
    """A credential of each kind, by name."""
    farm = {"farm": ids["farmId"]}
    queue, fleet = {**farm, "queue": ids["queueId"]}, {**farm, "fleet": ids["fleetId"]}
    other = service.make("CreateWorker", farmId=ids["farmId"], fleetId=ids["fleetId"], hostProperties={"hostName": "o"})
    return {
        "admin": None,
        "worker": service.mint(kind="worker", **fleet, worker=ids["workerId"]),
        "another_worker": service.mint(kind="worker", **fleet, worker=other["workerId"]),
        "bootstrap": service.mint(kind="bootstrap", **fleet),
        "bootstrap_of_another_fleet": service.mint(kind="bootstrap", **farm, fleet=f"fleet-{'0' * 32}"),
        "queue_worker": service.mint(kind="queue_worker", **queue, fleet=ids["fleetId"], worker=ids["workerId"]),
        "queue_user": service.mint(kind="queue_user", **queue, bucket="b"),
        "queue_read": service.mint(kind="queue_read", **queue, bucket="b"),
        "fleet_read": service.mint(kind="fleet_read", **fleet),
        "owner_of_another_farm": service.mint(kind="user", name="x", level="OWNER", farm="farm-" + "0" * 32),
        "member_of_nothing": service.mint(kind="user", name="y", principal_id="nobody"),
        **{level: service.mint(kind="user", name=level, level=level) for level in LEVELS},
    }  # fmt: skip


def test_the_table_knows_all_kinds(who: dict[str, Any]) -> None:
    assert who.keys() == MAY.keys()


# What is outside of all farms, whoever is somebody may read; and make, who is OWNER of more than one farm.
OUTSIDE = {
    operation
    for operation in OPERATIONS
    if not {"farmId", "resourceArn", "identifiers", "jobs", "tasks"}
    & set(SHAPES[MODEL["operations"][operation]["input"]["shape"]]["members"])
}


@pytest.mark.parametrize("kind", MAY)
def test_each_operation(kind: str, service: Service, ids: dict[str, str], who: dict[str, Any]) -> None:
    for operation in OPERATIONS:
        shape = SHAPES[MODEL["operations"][operation]["input"]["shape"]]
        in_path = {name for name, each in shape["members"].items() if each.get("location") == "uri"}
        allowed = operation in MAY[kind]
        if operation in OUTSIDE and kind in ("owner_of_another_farm", "member_of_nothing"):
            allowed = operation in READS
        # What is allowed must not do harm here: it gets ids that nothing has, unless they are what it is about.
        known = ids
        if allowed and kind not in ("worker", "bootstrap"):
            known = {name: re.sub(r"[0-9a-f]{32}", "0" * 32, each) for name, each in ids.items()}
        if allowed and kind == "worker" and operation in ("DeleteWorker", "UpdateWorker"):
            continue  # see the tests below
        if allowed and operation.startswith("Create"):
            continue
        for seed in range(3):
            params = {
                **valid(MODEL["operations"][operation]["input"]["shape"], random.Random(f"{operation} {seed}"), {}),
                **{
                    name: known[name]
                    for name in in_path | {"queueId", "fleetId"}
                    if name in known and name in shape["members"]
                },
            }
            fill(params, known)
            answer = service.call(operation, params, who=who[kind])
            if answer is None:
                continue
            error = error_of(answer)
            if error == "ValidationException" and not allowed:
                continue
            assert answer.status < 500
            assert (error == "AccessDeniedException") == (not allowed), (
                kind,
                operation,
                params,
                answer.status,
                answer.body,
            )
            if error == "AccessDeniedException":
                assert json.loads(answer.body)["message"].endswith(f"deadline:{operation}")


def fill(document: Any, known: dict[str, str]) -> None:
    """Name what exists wherever a batch or a search names something."""
    for key, inner in document.items() if isinstance(document, dict) else enumerate(document):
        if isinstance(inner, dict):
            fill(inner, known)
        elif isinstance(inner, list):
            fill(inner, known)
            if key in ("queueIds", "fleetIds"):
                document[key] = [known[key[:-1]]]
        elif key in known:
            document[key] = known[key]


def test_a_worker_reads_its_own_jobs_only(service: Service, ids: dict[str, str], who: dict[str, Any]) -> None:
    farm = {"farmId": ids["farmId"]}
    worker = {**farm, "fleetId": ids["fleetId"], "workerId": ids["workerId"]}
    other = service.make("CreateJob", **farm, queueId=ids["queueId"], priority=1, sourceJobId=ids["jobId"])["jobId"]
    service.settle()
    step = service.make("ListSteps", **farm, queueId=ids["queueId"], jobId=other)["steps"][0]["stepId"]
    wanted = [
        {"jobDetails": {"jobId": ids["jobId"]}},
        {"jobDetails": {"jobId": other}},
        {"stepDetails": {"jobId": ids["jobId"], "stepId": ids["stepId"]}},
        {"stepDetails": {"jobId": other, "stepId": step}},
        {"stepDetails": {"jobId": ids["jobId"], "stepId": step}},
        {"jobAttachmentDetails": {"jobId": other}},
        {"environmentDetails": {"jobId": ids["jobId"], "environmentId": f"JOB:{other}:0:x"}},
    ]
    answer = service.call("BatchGetJobEntity", {**worker, "identifiers": wanted}, who=who["worker"])
    body = json.loads(answer.body)
    assert [next(iter(each)) for each in body["entities"]] == ["jobDetails", "stepDetails"]
    assert all(each[kind]["jobId"] == ids["jobId"] for each in body["entities"] for kind in each)
    assert {each[kind]["code"] for each in body["errors"] for kind in each} == {"ResourceNotFoundException"}
    answer = service.call("BatchGetJobEntity", {**worker, "identifiers": wanted[:1]}, who=who["another_worker"])
    assert error_of(answer) == "AccessDeniedException"


def test_a_worker_reports_its_own_actions_only(service: Service, ids: dict[str, str], who: dict[str, Any]) -> None:
    fleet = {"farmId": ids["farmId"], "fleetId": ids["fleetId"]}
    thief = service.make("CreateWorker", **fleet, hostProperties={"hostName": "t"})["workerId"]
    own = service.mint(kind="worker", farm=ids["farmId"], fleet=ids["fleetId"], worker=thief)
    about = {**fleet, "workerId": thief}
    assert (
        service.call("UpdateWorker", {**about, "status": "STARTED", "capabilities": CAPABILITIES}, who=own).status
        == 200
    )
    stolen = {ids["sessionActionId"]: {"completedStatus": "SUCCEEDED"}}
    answer = service.call("UpdateWorkerSchedule", {**about, "updatedSessionActions": stolen}, who=own)
    assert (answer.status, error_of(answer)) == (404, "ResourceNotFoundException")
    assert json.loads(answer.body)["resourceId"] == ids["sessionActionId"]
    found = service.make(
        "GetSessionAction", **{name: ids[name] for name in ("farmId", "queueId", "jobId", "sessionActionId")}
    )
    assert found["status"] == "ASSIGNED"
    # A queue's role is for whoever has work of the queue.
    answer = service.call("AssumeQueueRoleForWorker", {**about, "queueId": ids["queueId"]}, who=own)
    assert error_of(answer) == "AccessDeniedException"
    working = {**fleet, "workerId": ids["workerId"], "queueId": ids["queueId"]}
    answer = service.call("AssumeQueueRoleForWorker", working, who=who["worker"])
    credentials = json.loads(answer.body)["credentials"]
    assert credentials["expiration"] > "2026" and len(credentials["secretAccessKey"]) >= 40
    # What nobody has is not there; the same bootstrap credentials do not take over a worker at work.
    answer = service.call("AssumeFleetRoleForWorker", {**fleet, "workerId": ids["workerId"]}, who=who["bootstrap"])
    body = json.loads(answer.body)
    assert (answer.status, body["reason"], body["resourceId"]) == (409, "STATUS_CONFLICT", ids["workerId"])
    assert body["context"]["status"] in ("STARTED", "IDLE", "RUNNING")
    answer = service.call("DeleteWorker", {**fleet, "workerId": ids["workerId"]}, who=who["worker"])
    assert (answer.status, json.loads(answer.body)["reason"]) == (409, "STATUS_CONFLICT")
    assert service.call("UpdateWorker", {**about, "status": "STOPPED"}, who=own).status == 200
    assert service.call("DeleteWorker", about, who=own).status == 200
    for operation, more in (
        ("UpdateWorkerSchedule", {}),
        ("UpdateWorker", {"status": "STARTED"}),
        ("AssumeFleetRoleForWorker", {}),
    ):
        assert error_of(service.call(operation, {**about, **more}, who=own)) == "ResourceNotFoundException", operation


def test_a_job_is_not_copied_from_where_one_may_not_read(service: Service, ids: dict[str, str]) -> None:
    own = service.make("CreateQueue", farmId=ids["farmId"], displayName="own")["queueId"]
    about = {"principalType": "USER", "identityStoreId": "d-0123456789", "membershipLevel": "CONTRIBUTOR"}
    service.make("AssociateMemberToQueue", farmId=ids["farmId"], queueId=own, principalId=COPIER, **about)
    person = service.mint(kind="user", name="c", principal_id=COPIER)
    copy = {"farmId": ids["farmId"], "queueId": own, "priority": 1, "sourceJobId": ids["jobId"]}
    assert error_of(service.call("CreateJob", copy, who=person)) == "AccessDeniedException"
    service.make(
        "AssociateMemberToQueue", farmId=ids["farmId"], queueId=ids["queueId"], principalId=COPIER,
        **{**about, "membershipLevel": "VIEWER"},
    )  # fmt: skip
    assert service.call("CreateJob", copy, who=person).status == 201


def test_who_may_read_and_write_which_logs(service: Service, ids: dict[str, str], who: dict[str, Any]) -> None:
    from dl_tools.dl_farmd import auth, logs
    from dl_tools.dl_farmd.errors import OtherProtocol

    store = logs.Logs(service.farm.folder / "logs.sqlite", service.farm)
    farm, queue, fleet = ids["farmId"], ids["queueId"], ids["fleetId"]
    person = service.mint(kind="user", name="member", principal_id=READER)
    about = {"principalType": "USER", "identityStoreId": "d-0123456789", "membershipLevel": "VIEWER"}
    service.make("AssociateMemberToFleet", farmId=farm, fleetId=fleet, principalId=READER, **about)
    session = (f"/aws/deadline/{farm}/{queue}", ids["sessionId"])
    worker_log = (f"/aws/deadline/{farm}/{fleet}", ids["workerId"])
    foreign = (f"/aws/deadline/farm-{'0' * 32}/queue-{'0' * 32}", ids["sessionId"])
    other = ("/somewhere/else", "s")
    reads, writes = sorted(logs.READS), sorted(set(logs.FUNCTIONS) - logs.READS)
    readers = {
        "VIEWER": {session, worker_log, foreign}, "CONTRIBUTOR": {session, worker_log, foreign},
        "MANAGER": {session, worker_log, foreign}, "OWNER": {session, worker_log, foreign},
        "queue_user": {session}, "queue_read": {session}, "queue_worker": {session}, "fleet_read": {worker_log},
        "member": {worker_log}, "owner_of_another_farm": {foreign},
    }  # fmt: skip
    writers = {"worker": {session, worker_log}}
    for kind, key in {**who, "member": person}.items():
        if kind == "admin":
            continue
        resolved = service.farm.ring.resolve(key.access_key_id, key.session_token)
        principal = auth.principal_of(resolved, service.farm.account)
        for place in (session, worker_log, foreign, other):
            for name in (*reads, *writes):
                params = {"logGroupName": place[0], "logStreamName": place[1]}
                allowed = place in (readers.get(kind, set()) if name in reads else writers.get(kind, set()))
                if name in writes and name != "PutLogEvents":
                    allowed = False
                try:
                    store.authorize(principal, name, params)
                    may = True
                except OtherProtocol as error:
                    assert error.code == "AccessDeniedException"
                    may = False
                assert may == allowed, (kind, name, place)
    store.close()
