"""Lists: tokens that hold for one list and one day, bounds of maxResults, and what members see."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from in_process import Service, error_of, one_of_each
from model_values import MODEL, OPERATIONS, SHAPES

PERSON = "99999999-2222-3333-4444-555555555555"
DAY_MS = 24 * 3600 * 1000


def members(operation: str) -> dict[str, Any]:
    return dict(SHAPES[MODEL["operations"][operation]["input"]["shape"]]["members"])


LISTS = [operation for operation in OPERATIONS if "nextToken" in members(operation)]


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, str]:
    """One of each, and of each kind that is listed at least three."""
    found = one_of_each(service)
    farm = {"farmId": found["farmId"]}
    queue = {**farm, "queueId": found["queueId"]}
    get = service.make
    fleet = get("GetFleet", **farm, fleetId=found["fleetId"])
    steps = [{"name": f"s{n}", "script": {"actions": {"onRun": {"command": "true"}}}} for n in range(6)]
    for each in steps[1:3]:
        each["dependencies"] = [{"dependsOn": "s0"}]
    steps[3]["dependencies"] = [{"dependsOn": "s1"}, {"dependsOn": "s2"}]
    steps[0]["parameterSpace"] = {"taskParameterDefinitions": [{"name": "N", "type": "INT", "range": "1-5"}]}
    template = {
        "specificationVersion": "jobtemplate-2023-09", "name": "j", "steps": steps,
        "parameterDefinitions": [{"name": f"P{n}", "type": "INT", "default": n} for n in range(4)],
    }  # fmt: skip
    for n in range(3):
        get("CreateFarm", displayName=f"f{n}")
        other = get("CreateQueue", **farm, displayName=f"q{n}")["queueId"]
        more = get(
            "CreateFleet", **farm, displayName=f"l{n}", maxWorkerCount=9, roleArn=fleet["roleArn"],
            configuration=fleet["configuration"],
        )["fleetId"]  # fmt: skip
        get("CreateQueueFleetAssociation", **farm, queueId=other, fleetId=more)
        limit = get("CreateLimit", **farm, displayName="l", amountRequirementName=f"amount.x{n}", maxCount=1)["limitId"]
        get("CreateQueueLimitAssociation", **queue, limitId=limit)
        get("CreateStorageProfile", **farm, displayName=f"p{n}", osFamily="LINUX")
        get("CreateWorker", **farm, fleetId=found["fleetId"], hostProperties={"hostName": f"h{n}"})
        environment = {
            "specificationVersion": "environment-2023-09",
            "environment": {"name": f"e{n}", "variables": {"A": "b"}},
        }
        get("CreateQueueEnvironment", **queue, priority=n, templateType="JSON", template=json.dumps(environment))
        get("CreateLicenseEndpoint", vpcId="vpc-1", subnetIds=["subnet-1"], securityGroupIds=["sg-1"])
        get(
            "CreateMonitor", displayName="m", subdomain=f"m{n}", roleArn=fleet["roleArn"],
            identityCenterInstanceArn="arn:aws:sso:::instance/ssoins-0123456789abcdef",
        )  # fmt: skip
        get(
            "CreateBudget", **farm, displayName="b", usageTrackingResource={"queueId": other}, actions=[],
            approximateDollarLimit=1000, schedule={"fixed": {"startTime": 0, "endTime": "2100-01-01T00:00:00Z"}},
        )  # fmt: skip
        about = {"principalId": f"{n}" * 8 + PERSON[8:], "principalType": "USER", "identityStoreId": "d-0123456789"}
        for operation, where in (
            ("AssociateMemberToFarm", farm), ("AssociateMemberToQueue", queue),
            ("AssociateMemberToFleet", {**farm, "fleetId": found["fleetId"]}),
        ):  # fmt: skip
            get(operation, **where, **about, membershipLevel="VIEWER")
        allowed = get("ListStorageProfiles", **farm)["storageProfiles"]
        get(
            "UpdateQueue", **queue,
            allowedStorageProfileIdsToAdd=[each["storageProfileId"] for each in allowed],
        )  # fmt: skip
        made = get("CreateJob", **queue, priority=50, templateType="JSON", template=json.dumps(template))["jobId"]
    for n in range(3):
        about = {"principalId": f"{n}" * 8 + PERSON[8:], "principalType": "USER", "identityStoreId": "d-0123456789"}
        get("AssociateMemberToJob", **queue, jobId=made, **about, membershipLevel="VIEWER")
    service.settle()
    # Sessions: the worker runs whatever it is given, one task after the other.
    worker = {**farm, "fleetId": found["fleetId"], "workerId": found["workerId"]}
    now = "2026-11-28T00:00:00Z"
    updates: dict[str, Any] = {}
    for _ in range(60):
        answer = service.call("UpdateWorkerSchedule", {**worker, "updatedSessionActions": updates})
        if answer is None:
            break
        assigned = json.loads(answer.body)["assignedSessions"]
        updates = {
            action["sessionActionId"]: {"completedStatus": "SUCCEEDED", "startedAt": now, "endedAt": now}
            for session in assigned.values()
            for action in session["sessionActions"]
        }
    first = get("ListSteps", **queue, jobId=made)["steps"]
    about = {
        "farmId": found["farmId"], "resourceIds": {"queueIds": [found["queueId"]]}, "groupBy": ["JOB_ID"],
        "statistics": ["SUM"], "startTime": 0, "endTime": "2100-01-01T00:00:00Z",
    }  # fmt: skip
    aggregation = get("StartSessionsStatisticsAggregation", **about)["aggregationId"]
    service.settle()
    return {
        **found, "jobId": made, "stepId": first[0]["stepId"], "lastStepId": first[3]["stepId"],
        "aggregationId": aggregation, "principalId": "0" * 8 + PERSON[8:],
    }  # fmt: skip


def asked(operation: str, ids: dict[str, str]) -> dict[str, Any]:
    required = SHAPES[MODEL["operations"][operation]["input"]["shape"]].get("required", ())
    params = {name: ids[name] for name in required}
    if operation == "ListStepDependencies":
        params["stepId"] = ids["lastStepId"]
    return params


EMPTY = ("ListVolumes", "ListMeteredProducts", "ListAvailableMeteredProducts")


@pytest.mark.parametrize("operation", LISTS)
def test_pages_together_are_the_list(operation: str, service: Service, ids: dict[str, str]) -> None:
    params = asked(operation, ids)
    output = MODEL["operations"][operation]["output"]["shape"]
    (member,) = [name for name, each in SHAPES[output]["members"].items() if SHAPES[each["shape"]]["type"] == "list"]
    whole = service.make(operation, **params)
    assert "nextToken" not in whole
    if operation in EMPTY:
        assert whole[member] == []
        return
    walked, token = [], None
    while True:
        page = service.make(operation, **params, maxResults=1, **({"nextToken": token} if token else {}))
        assert len(page[member]) == 1
        walked += page[member]
        token = page.get("nextToken")
        if token is None:
            break
    assert walked == whole[member]
    # The dependencies of a step are the fewest: two.
    assert len(walked) >= 2, operation


@pytest.mark.parametrize("operation", LISTS)
def test_a_token_that_is_not_of_this_list_is_refused(
    operation: str, service: Service, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = asked(operation, ids)

    def refused(token: str, **more: Any) -> None:
        answer = service.call(operation, {**params, **more, "nextToken": token})
        assert (answer.status, error_of(answer)) == (400, "ValidationException"), (token, answer.body)
        body = json.loads(answer.body)
        assert body["reason"] == "FIELD_VALIDATION_FAILED" and body["fieldList"][0]["name"] == "nextToken"

    foreign = service.make("ListTasks", **asked("ListTasks", ids), maxResults=2)["nextToken"]
    for token in ("x", "é", "\x00", "=" * 9, "A" * 4096, "A" * 4097, urlsafe_b64encode(b'[1,2,"x"]').decode()):
        refused(token)
    if operation != "ListTasks":
        refused(foreign)
    if operation in EMPTY:
        return
    good = service.make(operation, **params, maxResults=1)["nextToken"]
    content = bytearray(urlsafe_b64decode(good + "=="))
    for place in (0, 20, len(content) - 2):
        content[place] ^= 1
        refused(urlsafe_b64encode(bytes(content)).decode())
        content[place] ^= 1
    # Of the same operation, for another parent or with another filter; of another caller.
    stranger = service.mint(kind="user", level="OWNER", name="stranger")
    answer = service.call(operation, {**params, "nextToken": good}, who=stranger)
    assert error_of(answer) == "ValidationException", answer.body
    if operation == "ListQueues":
        refused(good, status="IDLE")
    if operation == "ListSessionActions":
        refused(good, sessionId=service.make("ListSessions", **params)["sessions"][0]["sessionId"])
    now = service.farm.now_ms()
    monkeypatch.setattr(service.farm, "now_ms", lambda: now + DAY_MS + 60_000)
    if operation != "GetSessionsStatisticsAggregation":  # which is gone itself by then
        refused(good)


@pytest.mark.parametrize("operation", LISTS)
def test_max_results_has_bounds(operation: str, service: Service, ids: dict[str, str]) -> None:
    params = asked(operation, ids)
    top = SHAPES[members(operation)["maxResults"]["shape"]]["max"]
    for count in (0, -1, top + 1, 2**31, "x", "", "1.5", "1e2"):
        answer = service.call(operation, {**params, "maxResults": count})
        assert (answer.status, error_of(answer)) == (400, "ValidationException"), (count, answer.body)
    for count in (1, top):
        service.make(operation, **params, maxResults=count)


def test_lists_show_what_one_is_a_member_of(tmp_path: Path) -> None:
    service = Service(tmp_path / "farm")
    found = one_of_each(service)
    get, farm = service.make, {"farmId": found["farmId"]}
    queue, job = {**farm, "queueId": found["queueId"]}, {**farm, "queueId": found["queueId"], "jobId": found["jobId"]}
    other_farm = {"farmId": get("CreateFarm", displayName="other")["farmId"]}
    other_queue = {**farm, "queueId": get("CreateQueue", **farm, displayName="other")["queueId"]}
    about = {"principalId": PERSON, "principalType": "USER", "identityStoreId": "d-0123456789"}
    person = service.mint(kind="user", name="p", principal_id=PERSON)
    owner = service.mint(kind="user", name="o", level="OWNER", farm=other_farm["farmId"])

    def listed(what: str, who: Any = None, **params: Any) -> list[str] | str:
        answer = service.call(f"List{what.capitalize()}s", params, who=who)
        if answer.status != 200:
            return error_of(answer)
        return [each[f"{what}Id"] for each in json.loads(answer.body)[f"{what}s"]]

    assert listed("farm", person) == [] == listed("farm", principalId=PERSON)
    assert set(listed("farm")) == {farm["farmId"], other_farm["farmId"]}
    assert listed("farm", owner) == [other_farm["farmId"]]
    assert listed("queue", person, **farm) == "AccessDeniedException" == listed("job", person, **queue)
    get("AssociateMemberToJob", **job, **about, membershipLevel="VIEWER")
    assert listed("job", person, **queue) == [job["jobId"]] == listed("job", principalId=PERSON, **queue)
    assert listed("queue", person, **farm) == [queue["queueId"]] == listed("queue", principalId=PERSON, **farm)
    assert listed("fleet", person, **farm) == []
    assert error_of(service.call("GetQueue", queue, who=person)) == "AccessDeniedException"
    get("AssociateMemberToFleet", **farm, fleetId=found["fleetId"], **about, membershipLevel="VIEWER")
    assert listed("fleet", person, **farm) == [found["fleetId"]] == listed("fleet", principalId=PERSON, **farm)
    assert listed("farm", person) == [farm["farmId"]] == listed("farm", principalId=PERSON)
    get("DisassociateMemberFromJob", **job, principalId=PERSON)
    get("AssociateMemberToQueue", **other_queue, **about, membershipLevel="VIEWER")
    assert listed("queue", person, **farm) == [other_queue["queueId"]]
    assert listed("job", person, **queue) == "AccessDeniedException"
    # Searches and aggregations name their queues and fleets in lists.
    search = {"itemOffset": 0, "farmId": farm["farmId"]}
    for operation in ("SearchJobs", "SearchSteps", "SearchTasks"):
        for queues, allowed in (
            ([other_queue["queueId"]], True),
            ([q["queueId"] for q in (other_queue, queue)], False),
        ):
            answer = service.call(operation, {**search, "queueIds": queues}, who=person)
            assert (answer.status == 200) == allowed, answer.body
    assert service.call("SearchWorkers", {**search, "fleetIds": [found["fleetId"]]}, who=person).status == 200
    get("AssociateMemberToFarm", **farm, **about, membershipLevel="VIEWER")
    assert set(listed("queue", person, **farm)) == {queue["queueId"], other_queue["queueId"]}
    assert listed("job", person, **queue) == [job["jobId"]]
    assert listed("farm", person) == [farm["farmId"]]
    service.farm.close()
