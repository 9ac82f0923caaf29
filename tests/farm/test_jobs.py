"""Jobs over the API: creation, what lists and searches show, and what clients change."""

from __future__ import annotations

import json
import sqlite3
import time
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from simulated_worker import SimulatedWorker, Submitted, audit, clear, environment, number_of, step, template

CHUNKED = {
    "name": "step",
    "script": {"actions": {"onRun": {"command": "true"}}},
    "parameterSpace": {
        "taskParameterDefinitions": [
            {"name": "Side", "type": "STRING", "range": ["left", "right"]},
            {
                "name": "Frame",
                "type": "CHUNK[INT]",
                "range": "1-6,9",
                "chunks": {"defaultTaskCount": 4, "rangeConstraint": "CONTIGUOUS"},
            },
        ]
    },
}


def refusal(call, *args, **kwargs):
    with pytest.raises(ClientError) as caught:
        call(*args, **kwargs)
    return caught.value.response


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


def test_a_job_is_created_as_its_template_says(farmd, farm_ids):
    body = template(
        {
            **step("first", 3),
            "description": "what comes first",
            "hostRequirements": {
                "amounts": [{"name": "amount.worker.vcpu", "min": 1}],
                "attributes": [{"name": "attr.worker.os.family", "anyOf": ["linux"]}],
            },
        },
        step("second", after=("first",)),
        name="job {{Param.Count}} {{RawParam.Where}}",
        description="a description",
        parameterDefinitions=[
            {"name": "Count", "type": "INT", "default": 7},
            {"name": "Where", "type": "PATH"},
            {"name": "How", "type": "STRING", "default": "so"},
            {"name": "Much", "type": "FLOAT", "default": 0.25},
        ],
    )
    job = Submitted(
        farmd, farm_ids, body, priority=12, parameters={"Where": {"path": "/in/./here"}, "Count": {"int": "8"}}
    )
    assert job.created["lifecycleStatus"] == "CREATE_COMPLETE", job.created["lifecycleStatusMessage"]
    assert job.created["name"] == "job 8 /in/./here"
    assert job.created["description"] == "a description"
    assert job.created["parameters"] == {
        "Count": {"int": "8"},
        "Where": {"path": "/in/./here"},
        "How": {"string": "so"},
        "Much": {"float": "0.25"},
    }
    assert (job.created["priority"], job.created["maxFailedTasksCount"], job.created["maxRetriesPerTask"]) == (
        12,
        20,
        5,
    )
    assert len(job.created["taskRunStatusCounts"]) == 12
    assert job.counts == {"READY": 3, "PENDING": 1}
    assert job.status == "READY"
    assert list(job.steps()) == ["first", "second"]
    got = farmd.client().get_step(**job.step_ids("first"))
    assert got["description"] == "what comes first"
    assert got["requiredCapabilities"] == {
        "amounts": [{"name": "amount.worker.vcpu", "min": 1.0}],
        "attributes": [{"name": "attr.worker.os.family", "anyOf": ["linux"]}],
    }
    assert got["parameterSpace"] == {"parameters": [{"name": "Frame", "type": "INT"}]}
    assert got["dependencyCounts"] == {
        "dependenciesResolved": 0,
        "dependenciesUnresolved": 0,
        "consumersResolved": 0,
        "consumersUnresolved": 1,
    }
    assert [task["parameters"] for task in job.tasks("first")] == [{"Frame": {"int": str(n)}} for n in (1, 2, 3)]
    assert job.tasks("second")[0]["parameters"] == {}
    client = farmd.client()
    assert client.list_step_dependencies(**job.step_ids("second"))["dependencies"] == [
        {"stepId": job.step_ids("first")["stepId"], "status": "UNRESOLVED"}
    ]
    assert client.list_step_consumers(**job.step_ids("first"))["consumers"] == [
        {"stepId": job.step_ids("second")["stepId"], "status": "UNRESOLVED"}
    ]
    definitions = client.list_job_parameter_definitions(**job.ids, maxResults=3)
    assert [each["name"] for each in definitions["jobParameterDefinitions"]] == ["Count", "Where", "How"]
    rest = client.list_job_parameter_definitions(**job.ids, nextToken=definitions["nextToken"])
    assert [each["name"] for each in rest["jobParameterDefinitions"]] == ["Much"]
    assert "nextToken" not in rest
    audit(farmd.dir)


def test_yaml_and_expressions_with_parameters_of_every_type(farmd, farm_ids):
    text = """
specificationVersion: jobtemplate-2023-09
extensions: [EXPR]
name: "sum {{ Param.Whole + 1 }}"
parameterDefinitions:
- {name: Whole, type: INT}
- {name: Flag, type: BOOL, default: true}
- {name: Range, type: RANGE_EXPR, default: "1-3"}
- {name: Words, type: "LIST[STRING]", default: [a]}
- {name: Paths, type: "LIST[PATH]", default: [/a]}
- {name: Numbers, type: "LIST[INT]", default: [1]}
- {name: Parts, type: "LIST[FLOAT]", default: [0.5]}
- {name: Flags, type: "LIST[BOOL]", default: [false]}
- {name: Grid, type: "LIST[LIST[INT]]", default: [[1, 2], [3]]}
steps:
- name: step
  let: ["double = Param.Whole * 2"]
  parameterSpace:
    taskParameterDefinitions:
    - {name: Number, type: INT, range: "{{ Param.Numbers }}"}
  script: {actions: {onRun: {command: echo, args: ["{{ double }}"]}}}
"""
    given = {
        "Whole": {"int": "4"},
        "Flag": {"bool": "no"},
        "Words": {"stringList": ["x", "y"]},
        "Numbers": {"intList": ["5", "6", "7"]},
        "Flags": {"boolList": ["yes", "0"]},
        "Grid": {"intListList": [["9"]]},
    }
    job = Submitted(farmd, farm_ids, text, templateType="YAML", parameters=given)
    assert job.created["lifecycleStatus"] == "CREATE_COMPLETE", job.created["lifecycleStatusMessage"]
    assert job.created["name"] == "sum 5"
    assert job.created["parameters"] == {
        "Whole": {"int": "4"},
        "Flag": {"bool": "false"},
        "Range": {"rangeExpr": "1-3"},
        "Words": {"stringList": ["x", "y"]},
        "Paths": {"pathList": ["/a"]},
        "Numbers": {"intList": ["5", "6", "7"]},
        "Parts": {"floatList": ["0.5"]},
        "Flags": {"boolList": ["true", "false"]},
        "Grid": {"intListList": [["9"]]},
    }
    assert [task["parameters"]["Number"]["int"] for task in job.tasks()] == ["5", "6", "7"]
    worker = SimulatedWorker(farmd.client(), farm_ids.farm, farm_ids.fleet).start()
    worker.exchange()
    assert worker.schedule["assignedSessions"]
    found = farmd.client().batch_get_job_entity(
        **worker.ids,
        identifiers=[
            {"stepDetails": {"jobId": job.ids["jobId"], "stepId": job.step_ids()["stepId"]}},
            {"jobDetails": {"jobId": job.ids["jobId"]}},
        ],
    )
    step_details, job_details = found["entities"][0]["stepDetails"], found["entities"][1]["jobDetails"]
    table = {row["name"]: row["value"] for row in json.loads(step_details["resolvedSymbolTable"])}
    assert (table["double"], table["Step.Name"]) == ("8", "step")
    assert step_details["extensions"] == job_details["extensions"] == ["EXPR"]
    worker.work()
    worker.stop()


@pytest.mark.parametrize(
    ("text", "kind", "fields", "words"),
    [
        ("{", "JSON", {}, "not a valid JSON document"),
        ("[]", "YAML", {}, "not a valid YAML document"),
        ("name: x", "YAML", {}, "specificationVersion"),
        (json.dumps(template({**step(), "nonsense": 1})), "JSON", {}, "nonsense"),
        (json.dumps(template(step(), extensions=["TIME_TRAVEL"])), "JSON", {}, "TIME_TRAVEL"),
        (json.dumps(template(step())), "JSON", {"parameters": {"Stray": {"int": "1"}}}, "Stray"),
        (
            json.dumps(template(step(), parameterDefinitions=[{"name": "Needed", "type": "INT"}])),
            "JSON",
            {},
            "Needed",
        ),
        (
            json.dumps(template(step(), parameterDefinitions=[{"name": "N", "type": "INT", "maxValue": 5}])),
            "JSON",
            {"parameters": {"N": {"int": "6"}}},
            "N",
        ),
        (
            json.dumps(template(step(), parameterDefinitions=[{"name": "N", "type": "INT"}])),
            "JSON",
            {"parameters": {"N": {"intList": ["6"]}}},
            "another kind",
        ),
        (json.dumps(template(step(), name="{{Param.None}}")), "JSON", {}, "Param.None"),
        (json.dumps(template(step("a", after=("a",)))), "JSON", {}, "depend"),
        (json.dumps(template(step("a", 2_000_000))), "JSON", {}, "1,000,000 tasks"),
        (
            json.dumps(template(CHUNKED, extensions=["TASK_CHUNKING"])).replace("1-6,9", "1-2000000000"),
            "JSON",
            {},
            "1,000,000 tasks",
        ),
    ],
)
def test_what_can_not_be_created_says_why(farmd, farm_ids, text, kind, fields, words):
    job = Submitted(farmd, farm_ids, text, templateType=kind, **fields)
    assert job.created["lifecycleStatus"] == "CREATE_FAILED"
    assert words in job.created["lifecycleStatusMessage"]
    assert job.steps() == {}
    assert refusal(job.update, priority=1)["reason"] == "STATUS_CONFLICT"


def test_what_is_refused_at_once(farmd, farm_ids):
    client = farmd.client()
    ids = {"farmId": farm_ids.farm, "queueId": farm_ids.queue}
    text = json.dumps(template(step()))
    assert refusal(client.create_job, **ids, priority=50)["Error"]["Code"] == "ValidationException"
    fields = {"template": text, "templateType": "JSON", "priority": 50}
    assert refusal(client.create_job, **ids, **fields, maxWorkerCount=0)["Error"]["Code"] == "ValidationException"
    profile = refusal(client.create_job, **ids, **fields, storageProfileId="sp-" + "0" * 32)
    assert profile["fieldList"][0]["name"] == "storageProfileId"
    unknown = refusal(client.create_job, farmId=farm_ids.farm, queueId="queue-" + "0" * 32, **fields)
    assert (unknown["Error"]["Code"], unknown["resourceType"]) == ("ResourceNotFoundException", "queue")
    assert refusal(client.get_job, **ids, jobId="job-" + "0" * 32)["resourceType"] == "job"


def test_queue_environments_come_first_and_bring_parameters(farmd, farm_ids, worker):
    client = farmd.client()
    ids = {"farmId": farm_ids.farm, "queueId": farm_ids.queue}
    made = []
    for name, priority in (("late", 9), ("early", 1)):
        text = {
            "specificationVersion": "environment-2023-09",
            "parameterDefinitions": [{"name": f"Of_{name}", "type": "STRING", "default": name}],
            "environment": {**environment(name), "variables": {"WHICH": f"{{{{Param.Of_{name}}}}}"}},
        }
        made.append(
            client.create_queue_environment(**ids, priority=priority, templateType="JSON", template=json.dumps(text))[
                "queueEnvironmentId"
            ]
        )
    body = template(
        {**step("step", 2), "stepEnvironments": [environment("inner")]}, jobEnvironments=[environment("early")]
    )
    job = Submitted(farmd, farm_ids, body, parameters={"Of_late": {"string": "given"}})
    for each in made:
        client.delete_queue_environment(**ids, queueEnvironmentId=each)
    assert job.created["parameters"] == {"Of_early": {"string": "early"}, "Of_late": {"string": "given"}}
    worker.work()
    assert job.status == "SUCCEEDED"
    kinds = [(kind, body.get("environmentId", "").rpartition(":")[2]) for _, kind, body, _ in worker.ran]
    assert kinds[:5] == [
        ("envEnter", "early"), ("envEnter", "late"), ("envEnter", "early"), ("envEnter", "inner"), ("taskRun", ""),
    ]  # fmt: skip
    assert kinds[-4:] == [("envExit", "inner"), ("envExit", "early"), ("envExit", "late"), ("envExit", "early")]
    entered = [body["environmentId"] for _, kind, body, _ in worker.ran if kind == "envEnter"]
    left = [body["environmentId"] for _, kind, body, _ in worker.ran if kind == "envExit"]
    assert left == entered[::-1] and len(set(entered)) == 4
    entities = client.batch_get_job_entity(
        **worker.ids,
        identifiers=[{"environmentDetails": {"jobId": job.ids["jobId"], "environmentId": each}} for each in entered],
    )["entities"]
    versions = [each["environmentDetails"]["schemaVersion"] for each in entities]
    assert versions == ["environment-2023-09"] * 2 + ["jobtemplate-2023-09"] * 2
    assert entities[1]["environmentDetails"]["template"]["variables"] == {"WHICH": "{{Param.Of_late}}"}


def test_attachments_are_kept_and_synced(farmd, farm_ids, worker):
    manifests = [
        {"rootPath": "/b", "rootPathFormat": "posix", "inputManifestPath": "x", "inputManifestHash": "1"},
        {"rootPath": "/a", "rootPathFormat": "posix", "outputRelativeDirectories": ["out"]},
    ]
    attachments = {"manifests": manifests, "fileSystem": "COPIED"}
    job = Submitted(farmd, farm_ids, template(step("a"), step("b", after=("a",))), attachments=attachments)
    assert job.get()["attachments"] == attachments

    def decide(kind, body, action_id):
        outputs = [{}, {"outputManifestPath": "o", "outputManifestHash": "2"}]
        return {"completedStatus": "SUCCEEDED", **({"manifests": outputs} if kind == "taskRun" else {})}

    worker.work(decide)
    kinds = [(kind, body) for _, kind, body, _ in worker.ran]
    a, b = job.step_ids("a")["stepId"], job.step_ids("b")["stepId"]
    assert [kind for kind, _ in kinds] == [
        "syncInputJobAttachments", "taskRun", "syncInputJobAttachments", "syncInputJobAttachments", "taskRun",
    ]  # fmt: skip
    assert kinds[0][1] == {} and kinds[2][1] == {} and kinds[3][1] == {"stepId": b}
    run = next(action for action in job.actions() if "taskRun" in action["definition"])
    assert run["manifests"] == [{}, {"outputManifestPath": "o", "outputManifestHash": "2"}]
    found = farmd.client().batch_get_job_entity(
        **worker.ids,
        identifiers=[
            {"jobAttachmentDetails": {"jobId": job.ids["jobId"]}},
            {"stepDetails": {"jobId": job.ids["jobId"], "stepId": b}},
            {"jobDetails": {"jobId": job.ids["jobId"]}},
            {"jobDetails": {"jobId": "job-" + "0" * 32}},
        ],
    )
    assert found["entities"][0]["jobAttachmentDetails"]["attachments"] == attachments
    assert found["entities"][1]["stepDetails"]["dependencies"] == [a]
    details = found["entities"][2]["jobDetails"]
    assert details["jobAttachmentSettings"] == {"s3BucketName": "bucket", "rootPrefix": "root"}
    assert details["jobRunAsUser"] == {"runAs": "WORKER_AGENT_USER"}
    assert found["errors"][0]["jobDetails"]["code"] == "ResourceNotFoundException"


def test_paths_are_mapped_between_storage_profiles(farmd, farm_ids):
    client = farmd.client()
    farm = {"farmId": farm_ids.farm}

    def profile(family, **paths):
        locations = [{"name": name, "path": path, "type": "SHARED"} for name, path in paths.items()]
        return client.create_storage_profile(
            **farm, displayName="profile", osFamily=family, fileSystemLocations=locations
        )["storageProfileId"]  # fmt: skip

    theirs = profile("WINDOWS", Projects="P:\\shows", Tools="T:\\")
    ours = profile("LINUX", Projects="/mnt/shows", Cache="/var/cache")
    shared = client.get_fleet(**farm, fleetId=farm_ids.fleet)
    managed = {**shared["configuration"]["customerManaged"], "storageProfileId": ours}
    fleet = client.create_fleet(
        **farm, displayName="mapped", roleArn=shared["roleArn"], maxWorkerCount=1,
        configuration={"customerManaged": managed},
    )["fleetId"]  # fmt: skip
    queue = client.create_queue(**farm, displayName="mapped", allowedStorageProfileIds=[theirs, ours])["queueId"]
    client.create_queue_fleet_association(**farm, queueId=queue, fleetId=fleet)
    ids = SimpleNamespace(farm=farm_ids.farm, queue=queue, fleet=fleet)
    worker = SimulatedWorker(client, farm_ids.farm, fleet).start()

    def rules(**fields):
        job = Submitted(farmd, ids, template(step()), **fields)
        worker.exchange()
        wanted = [{"jobDetails": {"jobId": job.ids["jobId"]}}]
        found = client.batch_get_job_entity(**worker.ids, identifiers=wanted)["entities"][0]["jobDetails"]
        worker.work()
        return job.get().get("storageProfileId"), found["pathMappingRules"]

    rule = {"sourcePathFormat": "windows", "sourcePath": "P:\\shows", "destinationPath": "/mnt/shows"}
    assert rules(storageProfileId=theirs) == (theirs, [rule])
    assert rules(storageProfileId=ours) == (ours, [])
    assert rules() == (None, [])
    worker.stop()


def test_a_job_made_after_another(farmd, farm_ids):
    definitions = [{"name": "A", "type": "INT", "default": 1}, {"name": "B", "type": "INT", "default": 2}]
    first = Submitted(
        farmd, farm_ids, template(step("step", 2), parameterDefinitions=definitions), parameters={"A": {"int": "5"}}
    )
    made = farmd.client().create_job(
        farmId=farm_ids.farm, queueId=farm_ids.queue, priority=1, sourceJobId=first.ids["jobId"],
        parameters={"B": {"int": "6"}}, nameOverride="again", descriptionOverride="a copy",
        targetTaskRunStatus="SUSPENDED",
    )  # fmt: skip
    second = object.__new__(Submitted)
    second.farmd, second.ids = farmd, {**first.ids, "jobId": made["jobId"]}
    job = second.wait_created()
    assert job["parameters"] == {"A": {"int": "5"}, "B": {"int": "6"}}
    assert (job["name"], job["description"], job["sourceJobId"]) == ("again", "a copy", first.ids["jobId"])
    assert second.status == "SUSPENDED" and second.counts == {"SUSPENDED": 2}
    second.update(targetTaskRunStatus="READY")
    assert second.counts == {"READY": 2}
    second.update(targetTaskRunStatus="CANCELED")
    first.update(targetTaskRunStatus="CANCELED")
    assert (second.status, first.status) == ("CANCELED", "CANCELED")


def test_a_repeated_create_makes_no_second_job(farmd, farm_ids):
    client = farmd.client()
    fields = {
        "farmId": farm_ids.farm, "queueId": farm_ids.queue, "template": json.dumps(template(step())),
        "templateType": "JSON", "priority": 50, "clientToken": "once-only",
    }  # fmt: skip
    first = client.create_job(**fields)["jobId"]
    assert client.create_job(**fields)["jobId"] == first
    farmd.restart()
    assert farmd.client().create_job(**fields)["jobId"] == first


def test_chunks(farmd, farm_ids, worker):
    body = template(CHUNKED, extensions=["TASK_CHUNKING"])
    job = Submitted(farmd, farm_ids, body, maxRetriesPerTask=1)
    assert job.created["lifecycleStatus"] == "CREATE_COMPLETE", job.created["lifecycleStatusMessage"]
    assert job.counts == {"READY": 14}
    failed = []

    def decide(kind, body, action_id):
        if kind == "taskRun" and body["parameters"]["Frame"]["chunkInt"] == "5-6" and not failed:
            failed.append(action_id)
            return "FAILED"
        return "SUCCEEDED"

    worker.work(decide)
    assert job.status == "SUCCEEDED"
    runs = [
        (body["parameters"]["Side"]["string"], body["parameters"]["Frame"]["chunkInt"], status)
        for _, kind, body, status in worker.ran
        if kind == "taskRun" and status != "NEVER_ATTEMPTED"
    ]
    assert all("taskId" not in body for _, kind, body, _ in worker.ran if kind == "taskRun")
    # What failed in company goes alone the second time, after all that is fresh.
    assert sorted(runs) == sorted(
        [("left", "1-4", "SUCCEEDED"), ("left", "5-6", "FAILED"), ("left", "9-9", "SUCCEEDED")]
        + [("right", text, "SUCCEEDED") for text in ("1-4", "5-6", "9-9")]
        + [("left", "5-5", "SUCCEEDED"), ("left", "6-6", "SUCCEEDED")]
    )
    assert [run[1] for run in runs[-2:]] == ["5-5", "6-6"]
    assert job.get()["taskFailureRetryCount"] == 2
    frame = next(task for task in job.tasks() if task["parameters"]["Frame"]["chunkInt"] == "5")
    assert len(job.actions(taskId=frame["taskId"])) == 2
    assert farmd.client().get_step(**job.step_ids())["parameterSpace"]["parameters"][1] == {
        "name": "Frame", "type": "CHUNK_INT", "chunks": {"defaultTaskCount": 4, "rangeConstraint": "CONTIGUOUS"},
    }  # fmt: skip


def test_noncontiguous_chunks_that_adapt(farmd, farm_ids, worker):
    definition = {
        "name": "Frame",
        "type": "CHUNK[INT]",
        "range": "1-40:2",
        "chunks": {"defaultTaskCount": 2, "targetRuntimeSeconds": 1, "rangeConstraint": "NONCONTIGUOUS"},
    }
    one = {**CHUNKED, "parameterSpace": {"taskParameterDefinitions": [definition]}}
    job = Submitted(farmd, farm_ids, template(one, extensions=["TASK_CHUNKING"]))
    sizes = []

    def decide(kind, body, action_id):
        from datetime import UTC, datetime, timedelta

        values = body["parameters"]["Frame"]["chunkInt"].split(",")
        sizes.append(len(values))
        now = datetime.now(UTC)
        # A task takes a quarter of a second, so that four fill the target of one.
        return {
            "completedStatus": "SUCCEEDED", "endedAt": now, "startedAt": now - timedelta(seconds=0.25 * len(values)),
        }  # fmt: skip

    worker.work(decide)
    assert job.counts == {"SUCCEEDED": 20}
    assert sizes[0] == 2 and sizes[1:-1] == [4] * len(sizes[1:-1]) and sum(sizes) == 20


def test_lists_and_batches(farmd, farm_ids):
    client = farmd.client()
    job = Submitted(farmd, farm_ids, template(step("step", 250)))
    pages, token, numbers = 0, {}, []
    while True:
        page = client.list_tasks(**job.step_ids(), maxResults=100, **token)
        numbers += [number_of(task["taskId"]) for task in page["tasks"]]
        pages += 1
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert pages == 3 and numbers == list(range(250))
    identity = {**job.step_ids(), "taskId": f"task-{job.step_ids()['stepId'][5:]}-7"}
    found = client.batch_get_task(identifiers=[identity, {**identity, "taskId": identity["taskId"][:-1] + "999"}])
    assert [task["parameters"] for task in found["tasks"]] == [{"Frame": {"int": "8"}}]
    assert [error["code"] for error in found["errors"]] == ["ResourceNotFoundException"]
    assert client.batch_get_step(identifiers=[job.step_ids()])["steps"][0]["name"] == "step"
    assert client.batch_get_job(identifiers=[job.ids])["jobs"][0]["jobId"] == job.ids["jobId"]
    errors = client.batch_update_task(
        tasks=[
            {**identity, "targetRunStatus": "SUCCEEDED"},
            {**identity, "taskId": "task-" + "0" * 32 + "-0", "targetRunStatus": "SUCCEEDED"},
        ]
    )["errors"]
    assert [error["code"] for error in errors] == ["ResourceNotFoundException"]
    assert job.counts == {"READY": 249, "SUCCEEDED": 1}
    errors = client.batch_update_job(
        jobs=[{**job.ids, "priority": 3}, {**job.ids, "jobId": "job-" + "0" * 32, "priority": 3}]
    )["errors"]
    assert [error["code"] for error in errors] == ["ResourceNotFoundException"]
    assert job.get()["priority"] == 3
    job.update(targetTaskRunStatus="CANCELED")
    newest = client.list_jobs(farmId=farm_ids.farm, queueId=farm_ids.queue, maxResults=1)
    assert newest["jobs"][0]["jobId"] == job.ids["jobId"] and "nextToken" in newest


def test_searches(farmd, farm_ids):
    client = farmd.client()
    names = ["search alpha", "search beta", "search gamma"]
    parameters = [{"name": "Weight", "type": "INT", "default": 1}]
    jobs = [
        Submitted(farmd, farm_ids, template(step("step", 3), name=name, parameterDefinitions=parameters),
                  priority=60 + index, parameters={"Weight": {"int": str(8 + index)}})
        for index, name in enumerate(names)
    ]  # fmt: skip
    scope = {"farmId": farm_ids.farm, "queueIds": [farm_ids.queue], "itemOffset": 0}

    def search(*filters, **more):
        found = client.search_jobs(**scope, filterExpressions={"operator": "AND", "filters": list(filters)}, **more)
        return [job["name"] for job in found["jobs"]], found["totalResults"]

    term = {"searchTermFilter": {"searchTerm": "SEARCH", "matchType": "CONTAINS"}}
    assert search(term) == (names[::-1], 3)
    by_priority = [{"fieldSort": {"name": "PRIORITY", "sortOrder": "ASCENDING"}}]
    assert search(term, sortExpressions=by_priority) == (names, 3)
    assert search(term, {"stringFilter": {"name": "NAME", "operator": "EQUAL", "value": "search beta"}})[1] == 1
    heavy = {"parameterFilter": {"name": "Weight", "operator": "GREATER_THAN_EQUAL_TO", "value": "9"}}
    assert search(term, heavy) == ([names[2], names[1]], 2)
    since = {
        "dateTimeFilter": {
            "name": "CREATED_AT", "operator": "GREATER_THAN_EQUAL_TO", "dateTime": jobs[1].created["createdAt"],
        }
    }  # fmt: skip
    assert search(term, since)[1] == 2
    assert len({job.created["createdAt"] for job in jobs}) == 3
    jobs[0].update(targetTaskRunStatus="CANCELED")
    alive = {"stringListFilter": {"name": "TASK_RUN_STATUS", "operator": "ANY_EQUALS", "values": ["READY", "RUNNING"]}}
    assert search(term, alive) == ([names[2], names[1]], 2)
    row = client.search_jobs(
        **scope, filterExpressions={"operator": "AND", "filters": [term]}, pageSize=1
    )  # fmt: skip
    assert row["nextItemOffset"] == 1 and len(row["jobs"][0]["taskRunStatusCounts"]) == 12
    assert (
        refusal(search, {"stringFilter": {"name": "SHOE_SIZE", "operator": "EQUAL", "value": "9"}})["Error"]["Code"]
        == "ValidationException"
    )
    of_job = {**scope, "jobId": jobs[2].ids["jobId"]}
    assert [step["name"] for step in client.search_steps(**of_job)["steps"]] == ["step"]
    frames = {"parameterFilter": {"name": "Frame", "operator": "GREATER_THAN", "value": "1"}}
    tasks = client.search_tasks(**of_job, filterExpressions={"operator": "AND", "filters": [frames]})
    assert [task["parameters"]["Frame"]["int"] for task in tasks["tasks"]] == ["2", "3"]
    assert {task["jobId"] for task in tasks["tasks"]} == {jobs[2].ids["jobId"]}
    third = jobs[2].tasks()[2]["taskId"]
    for text, count in {
        third: 1, third[-9:]: 1, third[:20]: 3, "TASK-": 3, jobs[2].step_ids()["stepId"]: 3, jobs[2].ids["jobId"]: 3,
        third[9:25]: 3, "admin": 3, "nothing-2": 0, "zz": 0,
    }.items():  # fmt: skip
        term = {"searchTermFilter": {"searchTerm": text, "matchType": "CONTAINS"}}
        found = client.search_tasks(**of_job, filterExpressions={"operator": "AND", "filters": [term]})
        assert found["totalResults"] == count, text
    for job in jobs:
        job.update(lifecycleStatus="ARCHIVED")
    term = {"searchTermFilter": {"searchTerm": "SEARCH", "matchType": "CONTAINS"}}
    assert (
        search(term, {"stringFilter": {"name": "LIFECYCLE_STATUS", "operator": "EQUAL", "value": "ARCHIVED"}})[1] == 3
    )
    assert refusal(jobs[0].update, targetTaskRunStatus="READY")["context"] == {"status": "ARCHIVED"}


def test_old_jobs_go_with_all_that_hangs_on_them(farmd, farm_ids, worker):
    done = Submitted(farmd, farm_ids, template(step("step", 3), jobEnvironments=[environment("e")]), tags={"a": "b"})
    failed = Submitted(farmd, farm_ids, template({**step(), "nonsense": 1}))
    worker.work()
    waiting = Submitted(farmd, farm_ids, template(step("step", 2)))
    gone = SimulatedWorker(farmd.client(), farm_ids.farm, farm_ids.fleet).start()
    gone.stop()
    config = farmd.dir / "config.json"
    before = config.read_text() if config.exists() else "{}"
    config.write_text(json.dumps({"settings": {"keep_jobs_days": 1e-9, "retention_look_s": 0.1}}))
    farmd.restart()
    try:
        limit = time.monotonic() + 30
        for job in (done, failed):
            while True:
                try:
                    job.get()
                except ClientError as error:
                    assert error.response["Error"]["Code"] == "ResourceNotFoundException"
                    break
                assert time.monotonic() < limit
                time.sleep(0.05)
        assert waiting.counts == {"READY": 2}
        client, fleet = farmd.client(), {"farmId": farm_ids.farm, "fleetId": farm_ids.fleet}
        workers = [each["workerId"] for each in client.list_workers(**fleet)["workers"]]
        assert worker.worker_id in workers and gone.worker_id not in workers
        assert client.get_fleet(**fleet)["workerCount"] == len(workers)
        left = "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM tasks), (SELECT count(*) FROM actions)"
        while True:
            db = sqlite3.connect(farmd.dir / "farm.sqlite")
            found = db.execute(left).fetchone()
            db.close()
            if found == (1, 2, 0):
                break
            assert time.monotonic() < limit, found
            time.sleep(0.05)
    finally:
        config.write_text(before)
        farmd.restart()
    audit(farmd.dir)


def begun(farmd, farm_ids, tasks, **fields):
    """A job whose creation takes a while, not waited for."""
    job = object.__new__(Submitted)
    text = json.dumps(template(step("step", tasks)))
    made = farmd.client().create_job(
        farmId=farm_ids.farm, queueId=farm_ids.queue, template=text, templateType="JSON", priority=1, **fields
    )
    job.farmd, job.ids = farmd, {"farmId": farm_ids.farm, "queueId": farm_ids.queue, "jobId": made["jobId"]}
    return job


def rows_of(farmd, job):
    """(lifecycle status, tasks in the database) of a job."""
    db = sqlite3.connect(farmd.dir / "farm.sqlite", timeout=10)
    found = db.execute(
        "SELECT lifecycle_status, (SELECT count(*) FROM tasks JOIN steps USING (step) WHERE steps.job = jobs.job)"
        " FROM jobs WHERE job_id = ?",
        (job.ids["jobId"],),
    ).fetchone()
    db.close()
    return found


def wait_for_rows(farmd, job):
    limit = time.monotonic() + 30
    while not rows_of(farmd, job)[1]:
        assert time.monotonic() < limit
    return rows_of(farmd, job)


def test_a_job_in_creation_survives_the_death_of_the_service(farmd, farm_ids):
    job = begun(farmd, farm_ids, 150_000)
    status, tasks = wait_for_rows(farmd, job)
    if status == "CREATE_IN_PROGRESS":  # half a job shows nothing of itself
        assert job.steps() == {} or job.get()["lifecycleStatus"] == "CREATE_COMPLETE"
    farmd.kill()
    farmd.start()
    assert job.wait_created()["lifecycleStatus"] == "CREATE_COMPLETE"
    assert job.counts == {"READY": 150_000} and rows_of(farmd, job)[1] == 150_000
    job.update(targetTaskRunStatus="CANCELED")
    limit = time.monotonic() + 60
    while job.get()["lifecycleStatus"] != "UPDATE_SUCCEEDED":
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert job.counts == {"CANCELED": 150_000} and "endedAt" in job.get()
    audit(farmd.dir)


def test_minds_are_changed_while_a_job_is_created(farmd, farm_ids):
    canceled, parked, freed = (
        begun(farmd, farm_ids, 60_000, targetTaskRunStatus=target) for target in ("READY", "READY", "SUSPENDED")
    )
    wait_for_rows(farmd, canceled)
    canceled.update(targetTaskRunStatus="CANCELED")
    parked.update(targetTaskRunStatus="SUSPENDED", name="parked", priority=7)
    freed.update(targetTaskRunStatus="READY")
    limit = time.monotonic() + 60
    for each in (freed, parked):  # so many tasks are changed after the creation
        while each.wait_created()["lifecycleStatus"] not in ("CREATE_COMPLETE", "UPDATE_SUCCEEDED"):
            assert time.monotonic() < limit
            time.sleep(0.05)
    assert canceled.get()["lifecycleStatus"] == "CREATE_FAILED" or canceled.counts == {"CANCELED": 60_000}
    assert (parked.counts, parked.get()["name"], parked.get()["priority"]) == ({"SUSPENDED": 60_000}, "parked", 7)
    assert freed.counts == {"READY": 60_000}
    limit = time.monotonic() + 20
    while canceled.get()["lifecycleStatus"] == "CREATE_FAILED" and rows_of(farmd, canceled)[1]:
        assert time.monotonic() < limit
        time.sleep(0.05)
    audit(farmd.dir)
