"""The resources of a farm through boto3: made, read, listed in pages, changed, deleted, and refused."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

MISSING = "0" * 32


@pytest.fixture
def client(farmd: Any) -> Any:
    return farmd.client()


@pytest.fixture
def farm(client: Any) -> str:
    return str(client.create_farm(displayName="a farm of its own")["farmId"])


def refused(code: str, function: Any, **params: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        function(**params)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return dict(caught.value.response)


def test_farm(client: Any) -> None:
    farm = client.create_farm(displayName="one", description="first", tags={"team": "a"})["farmId"]
    got = client.get_farm(farmId=farm)
    assert (got["displayName"], got["description"], got["costScaleFactor"], got["createdBy"]) == (
        "one",
        "first",
        1.0,
        "admin",
    )
    assert abs(got["createdAt"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert "updatedAt" not in got
    client.update_farm(farmId=farm, displayName="two", costScaleFactor=2.5)
    got = client.get_farm(farmId=farm)
    assert (got["displayName"], got["description"], got["costScaleFactor"]) == ("two", "first", 2.5)
    assert got["updatedBy"] == "admin" and got["updatedAt"] >= got["createdAt"]
    queue = client.create_queue(farmId=farm, displayName="q")["queueId"]
    assert "queues" in refused("ValidationException", client.delete_farm, farmId=farm)["message"]
    client.delete_queue(farmId=farm, queueId=queue)
    client.delete_farm(farmId=farm)
    missing = refused("ResourceNotFoundException", client.get_farm, farmId=farm)
    assert (missing["resourceId"], missing["resourceType"]) == (farm, "farm")


def test_farms_show_in_their_own_region_only(farmd: Any, client: Any, farm: str) -> None:
    assert farm in [each["farmId"] for page in client.get_paginator("list_farms").paginate() for each in page["farms"]]
    assert farmd.client(region="eu-west-1").list_farms()["farms"] == []


def test_pages_hold_each_row_once_while_rows_are_added(client: Any, farm: str) -> None:
    made = [client.create_queue(farmId=farm, displayName=f"q{n}")["queueId"] for n in range(7)]
    seen: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = client.list_queues(farmId=farm, maxResults=3, **token)
        assert len(page["queues"]) <= 3
        seen += [each["queueId"] for each in page["queues"]]
        if "nextToken" not in page:
            break
        assert page["nextToken"]
        token = {"nextToken": page["nextToken"]}
        if len(made) == 7:
            client.delete_queue(farmId=farm, queueId=seen[0])  # a page that was read must not shift the next
        if len(made) < 9:
            made.append(client.create_queue(farmId=farm, displayName="late")["queueId"])
    assert seen == made
    full = client.list_queues(farmId=farm, maxResults=8)
    assert len(full["queues"]) == 8 and "nextToken" not in full
    for wrong in ("nonsense", "bm9uc2Vuc2U", page_token_of_farms(client)):
        refused("ValidationException", client.list_queues, farmId=farm, nextToken=wrong)


def page_token_of_farms(client: Any) -> str:
    client.create_farm(displayName="another")
    return str(client.list_farms(maxResults=1)["nextToken"])


def test_queue(client: Any, farm: str) -> None:
    user = {"runAs": "QUEUE_CONFIGURED_USER", "posix": {"user": "render", "group": "render"}}
    queue = client.create_queue(farmId=farm, displayName="q", jobRunAsUser=user)["queueId"]
    got = client.get_queue(farmId=farm, queueId=queue)
    assert got["jobRunAsUser"] == user and got["schedulingConfiguration"] == {"priorityFifo": {}}
    assert (got["status"], got["defaultBudgetAction"]) == ("IDLE", "NONE")
    assert not {"roleArn", "jobAttachmentSettings", "description", "updatedAt"} & set(got)
    weights = {"weightedBalanced": {"priorityWeight": 2.5, "maxPriorityOverride": {"alwaysScheduleFirst": {}}}}
    client.update_queue(
        farmId=farm, queueId=queue, description="d", schedulingConfiguration=weights,
        requiredFileSystemLocationNamesToAdd=["a", "b", "a"],
    )  # fmt: skip
    client.update_queue(
        farmId=farm, queueId=queue,
        requiredFileSystemLocationNamesToAdd=["c"], requiredFileSystemLocationNamesToRemove=["a"],
    )  # fmt: skip
    got = client.get_queue(farmId=farm, queueId=queue)
    assert (got["requiredFileSystemLocationNames"], got["schedulingConfiguration"]) == (["b", "c"], weights)
    assert client.list_queues(farmId=farm, status="IDLE")["queues"][0]["queueId"] == queue
    assert client.list_queues(farmId=farm, status="SCHEDULING")["queues"] == []
    no_user = refused(
        "ValidationException",
        client.create_queue,
        farmId=farm,
        displayName="q",
        jobRunAsUser={"runAs": "QUEUE_CONFIGURED_USER"},
    )
    assert no_user["fieldList"][0]["name"] == "jobRunAsUser"
    assert len(client.list_queues(farmId=farm)["queues"]) == 1, "a refused queue must leave nothing behind"
    refused(
        "ResourceNotFoundException",
        client.get_queue,
        farmId=client.create_farm(displayName="x")["farmId"],
        queueId=queue,
    )
    assert (
        refused("ResourceNotFoundException", client.create_queue, farmId=f"farm-{MISSING}", displayName="q")[
            "resourceType"
        ]
        == "farm"
    )


def test_fleet(client: Any, farm: str, farm_ids: Any) -> None:
    configuration = {
        "customerManaged": {
            "mode": "EVENT_BASED_AUTO_SCALING",
            "workerCapabilities": {
                "vCpuCount": {"min": 2, "max": 8},
                "memoryMiB": {"min": 1024},
                "osFamily": "WINDOWS",
                "cpuArchitectureType": "arm64",
                "acceleratorCount": {"min": 1, "max": 2},
                "customAmounts": [{"name": "amount.licenses", "min": 3}],
                "customAttributes": [{"name": "attr.room", "values": ["north", "south"]}],
            },
        }
    }
    fleet = client.create_fleet(
        farmId=farm, displayName="f", roleArn=farm_ids.role, maxWorkerCount=3, configuration=configuration,
        hostConfiguration={"scriptBody": "echo"},
    )["fleetId"]  # fmt: skip
    got = client.get_fleet(farmId=farm, fleetId=fleet)
    assert (got["status"], got["workerCount"], got["minWorkerCount"], got["maxWorkerCount"]) == ("ACTIVE", 0, 0, 3)
    assert got["configuration"]["customerManaged"]["autoScalingConfiguration"]["workerIdleDurationSeconds"] == 300
    assert got["hostConfiguration"] == {"scriptBody": "echo", "scriptTimeoutSeconds": 300}
    assert got["capabilities"]["amounts"] == [
        {"name": "amount.worker.vcpu", "min": 2, "max": 8},
        {"name": "amount.worker.memory", "min": 1024},
        {"name": "amount.worker.gpu", "min": 1, "max": 2},
        {"name": "amount.licenses", "min": 3},
    ]
    assert got["capabilities"]["attributes"] == [
        {"name": "attr.worker.os.family", "values": ["windows"]},
        {"name": "attr.worker.cpu.arch", "values": ["arm64"]},
        {"name": "attr.room", "values": ["north", "south"]},
    ]
    client.update_fleet(farmId=farm, fleetId=fleet, configuration=farm_ids.configuration, maxWorkerCount=5)
    got = client.get_fleet(farmId=farm, fleetId=fleet)
    assert got["configuration"] == farm_ids.configuration and len(got["capabilities"]["amounts"]) == 2
    wrong = refused("ValidationException", client.update_fleet, farmId=farm, fleetId=fleet, minWorkerCount=6)
    assert wrong["fieldList"][0]["name"] == "minWorkerCount"
    assert client.get_fleet(farmId=farm, fleetId=fleet)["minWorkerCount"] == 0
    assert client.list_volumes(farmId=farm, fleetId=fleet)["volumes"] == []
    refused("ResourceNotFoundException", client.get_volume, farmId=farm, fleetId=fleet, volumeId=f"volume-{MISSING}")
    assert [each["fleetId"] for each in client.list_fleets(farmId=farm, displayName="f")["fleets"]] == [fleet]
    assert client.list_fleets(farmId=farm, displayName="g")["fleets"] == []
    client.delete_fleet(farmId=farm, fleetId=fleet)
    refused("ResourceNotFoundException", client.get_fleet, farmId=farm, fleetId=fleet)


def test_a_service_managed_fleet_is_stored(client: Any, farm: str, farm_ids: Any) -> None:
    configuration = {
        "serviceManagedEc2": {
            "instanceCapabilities": {
                "vCpuCount": {"min": 1}, "memoryMiB": {"min": 512}, "osFamily": "LINUX",
                "cpuArchitectureType": "x86_64",
                "acceleratorCapabilities": {"selections": [{"name": "t4"}]},
            },
            "instanceMarketOptions": {"type": "spot"},
        }
    }  # fmt: skip
    fleet = client.create_fleet(
        farmId=farm, displayName="f", roleArn=farm_ids.role, maxWorkerCount=0, configuration=configuration
    )["fleetId"]
    got = client.get_fleet(farmId=farm, fleetId=fleet)
    assert got["configuration"] == configuration
    assert {"name": "amount.worker.gpu", "min": 1} in got["capabilities"]["amounts"]


def make_pair(client: Any, farm: str, farm_ids: Any) -> dict[str, str]:
    queue = client.create_queue(farmId=farm, displayName="q")["queueId"]
    fleet = client.create_fleet(
        farmId=farm, displayName="f", roleArn=farm_ids.role, maxWorkerCount=1, configuration=farm_ids.configuration
    )["fleetId"]
    return {"farmId": farm, "queueId": queue, "fleetId": fleet}


def test_queue_fleet_association(client: Any, farm: str, farm_ids: Any) -> None:
    pair = make_pair(client, farm, farm_ids)
    queue = {"farmId": farm, "queueId": pair["queueId"]}
    refused("ResourceNotFoundException", client.get_queue_fleet_association, **pair)
    for _ in range(2):
        client.create_queue_fleet_association(**pair)
    assert client.get_queue_fleet_association(**pair)["status"] == "ACTIVE"
    assert client.get_queue(**queue)["status"] == "SCHEDULING"
    assert refused("ConflictException", client.delete_queue, **queue)["reason"] == "RESOURCE_IN_USE"
    assert (
        refused("ConflictException", client.delete_fleet, farmId=farm, fleetId=pair["fleetId"])["reason"]
        == "RESOURCE_IN_USE"
    )
    conflict = refused("ConflictException", client.delete_queue_fleet_association, **pair)
    assert (conflict["reason"], conflict["context"]) == ("STATUS_CONFLICT", {"status": "ACTIVE"})
    # With no session open a stop is over at once.
    client.update_queue_fleet_association(**pair, status="STOP_SCHEDULING_AND_COMPLETE_TASKS")
    assert client.get_queue_fleet_association(**pair)["status"] == "STOPPED"
    assert client.get_queue(**queue)["status"] == "IDLE"
    client.update_queue_fleet_association(**pair, status="ACTIVE")
    assert client.get_queue(**queue)["status"] == "SCHEDULING"
    client.update_queue_fleet_association(**pair, status="STOP_SCHEDULING_AND_CANCEL_TASKS")
    listed = client.list_queue_fleet_associations(farmId=farm, queueId=pair["queueId"])["queueFleetAssociations"]
    assert [(each["fleetId"], each["status"]) for each in listed] == [(pair["fleetId"], "STOPPED")]
    assert client.list_queue_fleet_associations(farmId=farm, fleetId=f"fleet-{MISSING}")["queueFleetAssociations"] == []
    client.delete_queue_fleet_association(**pair)
    refused("ResourceNotFoundException", client.get_queue_fleet_association, **pair)
    client.delete_queue(**queue)


def test_a_fleet_that_cannot_run_the_queue_is_not_associated(client: Any, farm: str, farm_ids: Any) -> None:
    pair = make_pair(client, farm, farm_ids)
    client.update_queue(farmId=farm, queueId=pair["queueId"], requiredFileSystemLocationNamesToAdd=["assets"])
    assert "assets" in refused("ValidationException", client.create_queue_fleet_association, **pair)["message"]
    profile = client.create_storage_profile(
        farmId=farm, displayName="p", osFamily="LINUX",
        fileSystemLocations=[{"name": "assets", "path": "/mnt", "type": "SHARED"}],
    )["storageProfileId"]  # fmt: skip
    managed = {"customerManaged": {**farm_ids.configuration["customerManaged"], "storageProfileId": profile}}
    client.update_fleet(farmId=farm, fleetId=pair["fleetId"], configuration=managed)
    client.create_queue_fleet_association(**pair)
    windows = {
        "runAs": "QUEUE_CONFIGURED_USER",
        "windows": {"user": "u", "passwordArn": "arn:aws:secretsmanager:us-west-2:000000000000:secret:x"},
    }
    other = client.create_queue(farmId=farm, displayName="w", jobRunAsUser=windows)["queueId"]
    refused("ValidationException", client.create_queue_fleet_association, **{**pair, "queueId": other})


def test_limits(client: Any, farm: str) -> None:
    queue = client.create_queue(farmId=farm, displayName="q")["queueId"]
    limit = client.create_limit(farmId=farm, displayName="l", amountRequirementName="amount.maya", maxCount=3)[
        "limitId"
    ]
    got = client.get_limit(farmId=farm, limitId=limit)
    assert (got["currentCount"], got["maxCount"], got["amountRequirementName"]) == (0, 3, "amount.maya")
    client.update_limit(farmId=farm, limitId=limit, maxCount=-1)
    assert client.list_limits(farmId=farm)["limits"][0]["maxCount"] == -1
    refused("ValidationException", client.update_limit, farmId=farm, limitId=limit, maxCount=0)
    for name in ("maya", "amount.", "amount.worker.vcpu", "attr.x"):
        refused(
            "ValidationException",
            client.create_limit,
            farmId=farm,
            displayName="l",
            amountRequirementName=name,
            maxCount=1,
        )
    pair = {"farmId": farm, "queueId": queue, "limitId": limit}
    client.create_queue_limit_association(**pair)
    same = client.create_limit(farmId=farm, displayName="m", amountRequirementName="amount.maya", maxCount=1)["limitId"]
    refused("ValidationException", client.create_queue_limit_association, **{**pair, "limitId": same})
    refused("ValidationException", client.delete_limit, farmId=farm, limitId=limit)
    assert refused("ConflictException", client.delete_queue_limit_association, **pair)["reason"] == "STATUS_CONFLICT"
    client.update_queue_limit_association(**pair, status="STOP_LIMIT_USAGE_AND_COMPLETE_TASKS")
    assert client.get_queue_limit_association(**pair)["status"] == "STOPPED"
    assert len(client.list_queue_limit_associations(farmId=farm, limitId=limit)["queueLimitAssociations"]) == 1
    client.delete_queue_limit_association(**pair)
    client.delete_limit(farmId=farm, limitId=limit)
    refused("ResourceNotFoundException", client.get_limit, farmId=farm, limitId=limit)


ENVIRONMENT = """
specificationVersion: environment-2023-09
parameterDefinitions:
- {name: Greeting, type: STRING, default: hello}
environment:
  name: %s
  variables: {GREETING: "{{Param.Greeting}}"}
"""


def test_queue_environments(client: Any, farm: str) -> None:
    queue = {"farmId": farm, "queueId": client.create_queue(farmId=farm, displayName="q")["queueId"]}
    ids = [
        client.create_queue_environment(**queue, priority=priority, templateType="YAML", template=ENVIRONMENT % name)[
            "queueEnvironmentId"
        ]
        for name, priority in (("Late", 10), ("Early", 1), ("Middle", 5))
    ]
    listed = client.list_queue_environments(**queue)["environments"]
    assert [(each["name"], each["priority"]) for each in listed] == [("Early", 1), ("Middle", 5), ("Late", 10)]
    got = client.get_queue_environment(**queue, queueEnvironmentId=ids[0])
    assert (got["template"], got["templateType"]) == (ENVIRONMENT % "Late", "YAML")
    client.update_queue_environment(**queue, queueEnvironmentId=ids[0], priority=0, template=ENVIRONMENT % "First")
    assert client.list_queue_environments(**queue)["environments"][0]["name"] == "First"
    for text in ("{", "a: b", "[]", ENVIRONMENT % "First" + "extra: 1\n", "[" * 5000, "\x00"):
        bad = refused(
            "ValidationException",
            client.create_queue_environment,
            **queue,
            priority=1,
            templateType="YAML",
            template=text,
        )
        assert bad["fieldList"][0]["name"] == "template"
    client.delete_queue_environment(**queue, queueEnvironmentId=ids[0])
    refused("ResourceNotFoundException", client.get_queue_environment, **queue, queueEnvironmentId=ids[0])


def test_storage_profiles(client: Any, farm: str) -> None:
    one, two = ({"name": name, "path": f"/mnt/{name}", "type": "SHARED"} for name in ("one", "two"))
    profile = client.create_storage_profile(farmId=farm, displayName="p", osFamily="LINUX", fileSystemLocations=[one])[
        "storageProfileId"
    ]
    client.update_storage_profile(
        farmId=farm,
        storageProfileId=profile,
        osFamily="MACOS",
        fileSystemLocationsToAdd=[two],
        fileSystemLocationsToRemove=[one],
    )
    got = client.get_storage_profile(farmId=farm, storageProfileId=profile)
    assert (got["osFamily"], got["fileSystemLocations"]) == ("MACOS", [two])
    refused("ValidationException", client.update_storage_profile, farmId=farm, storageProfileId=profile,
            fileSystemLocationsToAdd=[{**two, "path": "/other"}])  # fmt: skip
    queue = client.create_queue(farmId=farm, displayName="q", allowedStorageProfileIds=[profile])["queueId"]
    other = client.create_storage_profile(farmId=farm, displayName="o", osFamily="LINUX")["storageProfileId"]
    listed = client.list_storage_profiles_for_queue(farmId=farm, queueId=queue)["storageProfiles"]
    assert [each["storageProfileId"] for each in listed] == [profile]
    assert len(client.list_storage_profiles(farmId=farm)["storageProfiles"]) == 2
    allowed = client.get_storage_profile_for_queue(farmId=farm, queueId=queue, storageProfileId=profile)
    assert allowed["fileSystemLocations"] == [two]
    refused(
        "ResourceNotFoundException",
        client.get_storage_profile_for_queue,
        farmId=farm,
        queueId=queue,
        storageProfileId=other,
    )
    refused(
        "ValidationException",
        client.update_queue,
        farmId=farm,
        queueId=queue,
        allowedStorageProfileIdsToAdd=[f"sp-{MISSING}"],
    )
    client.delete_storage_profile(farmId=farm, storageProfileId=profile)
    assert client.get_queue(farmId=farm, queueId=queue)["allowedStorageProfileIds"] == []


def test_budgets(client: Any, farm: str) -> None:
    queue = client.create_queue(farmId=farm, displayName="q")["queueId"]
    now = datetime.now(UTC).replace(microsecond=0)
    stop = {"type": "STOP_SCHEDULING_AND_COMPLETE_TASKS", "thresholdPercentage": 50.0}
    schedule = {"fixed": {"startTime": now - timedelta(days=1), "endTime": now + timedelta(days=1)}}
    budget = client.create_budget(
        farmId=farm, displayName="b", usageTrackingResource={"queueId": queue}, approximateDollarLimit=10,
        actions=[stop], schedule=schedule,
    )["budgetId"]  # fmt: skip
    got = client.get_budget(farmId=farm, budgetId=budget)
    assert (got["status"], got["usages"], got["actions"]) == ("ACTIVE", {"approximateDollarUsage": 0.0}, [stop])
    assert got["schedule"] == schedule and got["usageTrackingResource"] == {"queueId": queue}
    cancel = {"type": "STOP_SCHEDULING_AND_CANCEL_TASKS", "thresholdPercentage": 100.0, "description": "enough"}
    client.update_budget(farmId=farm, budgetId=budget, actionsToAdd=[cancel], actionsToRemove=[stop], status="INACTIVE")
    got = client.get_budget(farmId=farm, budgetId=budget)
    assert (got["status"], got["actions"]) == ("INACTIVE", [cancel])
    assert client.list_budgets(farmId=farm, status="ACTIVE")["budgets"] == []
    backwards = {"fixed": {"startTime": now, "endTime": now}}
    refused("ValidationException", client.update_budget, farmId=farm, budgetId=budget, schedule=backwards)
    # A queue that wants a budget is blocked without an active one.
    client.update_queue(farmId=farm, queueId=queue, defaultBudgetAction="STOP_SCHEDULING_AND_COMPLETE_TASKS")
    got = client.get_queue(farmId=farm, queueId=queue)
    assert (got["status"], got["blockedReason"]) == ("SCHEDULING_BLOCKED", "NO_BUDGET_CONFIGURED")
    client.update_budget(farmId=farm, budgetId=budget, status="ACTIVE")
    assert client.get_queue(farmId=farm, queueId=queue)["status"] == "IDLE"
    client.delete_budget(farmId=farm, budgetId=budget)
    assert client.get_queue(farmId=farm, queueId=queue)["status"] == "SCHEDULING_BLOCKED"
    refused("ResourceNotFoundException", client.get_budget, farmId=farm, budgetId=budget)


def test_members(client: Any, farm: str, farm_ids: Any) -> None:
    pair = make_pair(client, farm, farm_ids)
    person = {
        "principalId": "11111111-2222-3333-4444-555555555555",
        "principalType": "USER",
        "identityStoreId": "d-0123456789",
    }
    client.associate_member_to_farm(farmId=farm, membershipLevel="VIEWER", **person)
    client.associate_member_to_farm(farmId=farm, membershipLevel="OWNER", **person)
    client.associate_member_to_queue(farmId=farm, queueId=pair["queueId"], membershipLevel="MANAGER", **person)
    client.associate_member_to_fleet(farmId=farm, fleetId=pair["fleetId"], membershipLevel="CONTRIBUTOR", **person)
    assert client.list_farm_members(farmId=farm)["members"] == [{"farmId": farm, "membershipLevel": "OWNER", **person}]
    listed = client.list_fleet_members(farmId=farm, fleetId=pair["fleetId"])["members"]
    assert listed == [{"farmId": farm, "fleetId": pair["fleetId"], "membershipLevel": "CONTRIBUTOR", **person}]
    own = client.list_memberships(principalId=person["principalId"])["memberships"]
    assert sorted(next(iter(each)) for each in own) == ["farm", "fleet", "queue"]
    only = client.list_memberships(principalId=person["principalId"], resourceTypes=["QUEUE"])["memberships"]
    assert only == [{"queue": {"farmId": farm, "queueId": pair["queueId"], "membershipLevel": "MANAGER", **person}}]
    client.disassociate_member_from_queue(farmId=farm, queueId=pair["queueId"], principalId=person["principalId"])
    assert client.list_queue_members(farmId=farm, queueId=pair["queueId"])["members"] == []
    refused("ResourceNotFoundException", client.disassociate_member_from_queue,
            farmId=farm, queueId=pair["queueId"], principalId=person["principalId"])  # fmt: skip


def test_monitors(client: Any, farm_ids: Any) -> None:
    monitor = client.create_monitor(
        displayName="m", subdomain="studio", roleArn=farm_ids.role,
        identityCenterInstanceArn="arn:aws:sso:::instance/ssoins-0123456789abcdef",
    )  # fmt: skip
    got = client.get_monitor(monitorId=monitor["monitorId"])
    assert (
        got["url"].startswith("https://studio.")
        and got["identityCenterApplicationArn"] == monitor["identityCenterApplicationArn"]
    )
    client.update_monitor_settings(monitorId=monitor["monitorId"], settings={"a": "1", "b": "2"})
    client.update_monitor_settings(monitorId=monitor["monitorId"], settings={"a": "", "c": "3"})
    assert client.get_monitor_settings(monitorId=monitor["monitorId"])["settings"] == {"b": "2", "c": "3"}
    refused("ValidationException", client.create_monitor, displayName="m", subdomain="studio", roleArn=farm_ids.role,
            identityCenterInstanceArn="arn:aws:sso:::instance/ssoins-0123456789abcdef")  # fmt: skip
    client.update_monitor(monitorId=monitor["monitorId"], subdomain="other")
    assert client.list_monitors()["monitors"][0]["url"].startswith("https://other.")
    client.delete_monitor(monitorId=monitor["monitorId"])
    refused("ResourceNotFoundException", client.get_monitor, monitorId=monitor["monitorId"])


def test_what_only_the_cloud_has(client: Any) -> None:
    assert client.list_available_metered_products()["meteredProducts"] == []
    endpoint = client.create_license_endpoint(vpcId="vpc-1", subnetIds=["subnet-1"], securityGroupIds=["sg-1"])[
        "licenseEndpointId"
    ]
    assert client.get_license_endpoint(licenseEndpointId=endpoint)["status"] == "NOT_READY"
    assert client.list_metered_products(licenseEndpointId=endpoint)["meteredProducts"] == []
    refused("ResourceNotFoundException", client.put_metered_product, licenseEndpointId=endpoint, productId="a-b")
    client.delete_license_endpoint(licenseEndpointId=endpoint)
    refused("ResourceNotFoundException", client.get_license_endpoint, licenseEndpointId=endpoint)


def test_tags(client: Any, farm: str) -> None:
    queue = client.create_queue(farmId=farm, displayName="q", tags={"a": "1"})["queueId"]
    arn = f"arn:aws:deadline:us-west-2:000000000000:farm/{farm}/queue/{queue}"
    client.tag_resource(resourceArn=arn, tags={"b": "2", "a": "3"})
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"a": "3", "b": "2"}
    client.untag_resource(resourceArn=arn, tagKeys=["a", "x"])
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "2"}
    refused("ValidationException", client.tag_resource, resourceArn=arn, tags={f"t{n}": "" for n in range(50)})
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "2"}
    client.delete_queue(farmId=farm, queueId=queue)
    refused("ResourceNotFoundException", client.list_tags_for_resource, resourceArn=arn)
    for wrong in (
        "arn:aws:deadline:us-west-2:000000000000:queue/x/farm/y",
        "arn:aws:deadline:eu-west-1:000000000000:farm/" + farm,
    ):
        refused("ResourceNotFoundException", client.list_tags_for_resource, resourceArn=wrong)
    refused("ValidationException", client.list_tags_for_resource, resourceArn="no arn at all")


def test_a_client_token_makes_one_resource(client: Any, farm: str) -> None:
    made = {client.create_queue(farmId=farm, displayName="q", clientToken="token")["queueId"] for _ in range(3)}
    assert len(made) == 1 and len(client.list_queues(farmId=farm)["queues"]) == 1
    refused("ValidationException", client.create_queue, farmId=farm, displayName="other", clientToken="token")
    client.create_queue(farmId=farm, displayName="q", clientToken="other token")
    assert len(client.list_queues(farmId=farm)["queues"]) == 2
    # A token of a refused request is free: the same request may succeed later.
    profile = {"farmId": farm, "displayName": "p", "clientToken": "third"}
    refused("ValidationException", client.create_queue, **profile, allowedStorageProfileIds=[f"sp-{MISSING}"])
    assert client.create_queue(**profile)["queueId"]


def test_budget_usage_blocks_and_frees_the_queue(farmd: Any, client: Any, farm: str, farm_ids: Any) -> None:
    """Usage is summed from sessions; these are written behind the server's back, as the scheduler would write them."""
    import sqlite3

    pair = make_pair(client, farm, farm_ids)
    now = int(time.time() * 1000)
    db = sqlite3.connect(farmd.dir / "farm.sqlite", timeout=10)
    with db:
        db.execute(
            "INSERT INTO jobs (job_id, farm_id, queue_id, name, lifecycle_status, lifecycle_message, priority,"
            " max_failed, max_retries, max_workers, parameters, created_at, created_by)"
            " VALUES ('job-b', ?, ?, 'j', 'CREATE_COMPLETE', '', 50, 1, 1, -1, '{}', ?, 'x')",
            (farm, pair["queueId"], now),
        )
        job = db.execute("SELECT job FROM jobs WHERE job_id = 'job-b'").fetchone()[0]
        db.execute(
            "INSERT INTO sessions (session_id, job, step, queue_id, fleet_id, worker, worker_id, status,"
            " started_at, ended_at) VALUES ('session-b', ?, 0, ?, ?, 0, 'w', 'ENDED', ?, ?)",
            (job, pair["queueId"], pair["fleetId"], now - 3_600_000, now),
        )
    db.close()
    client.create_queue_fleet_association(**pair)
    budget = client.create_budget(
        farmId=farm, displayName="b", usageTrackingResource={"queueId": pair["queueId"]}, approximateDollarLimit=1.5,
        actions=[{"type": "STOP_SCHEDULING_AND_COMPLETE_TASKS", "thresholdPercentage": 60}],
        schedule={"fixed": {"startTime": (now - 86_400_000) / 1000, "endTime": (now + 86_400_000) / 1000}},
    )["budgetId"]  # fmt: skip
    got = client.get_budget(farmId=farm, budgetId=budget)
    assert got["usages"]["approximateDollarUsage"] == pytest.approx(1.0, rel=0.01) and "queueStoppedAt" in got
    queue = client.get_queue(farmId=farm, queueId=pair["queueId"])
    assert (queue["status"], queue["blockedReason"]) == ("SCHEDULING_BLOCKED", "BUDGET_THRESHOLD_REACHED")
    client.update_budget(farmId=farm, budgetId=budget, approximateDollarLimit=10)
    assert client.get_queue(farmId=farm, queueId=pair["queueId"])["status"] == "SCHEDULING"
    assert "queueStoppedAt" not in client.get_budget(farmId=farm, budgetId=budget)
