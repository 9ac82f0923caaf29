"""Searches at random, held to what the model says of each filter, worked out anew from the rows of the whole search."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from dl_tools.dl_farmd import searches
from in_process import Service, error_of, one_of_each

ORDERS = {
    "EQUAL": lambda a, b: a == b,
    "GREATER_THAN": lambda a, b: a > b,
    "GREATER_THAN_EQUAL_TO": lambda a, b: a >= b,
    "LESS_THAN": lambda a, b: a < b,
    "LESS_THAN_EQUAL_TO": lambda a, b: a <= b,
}
TARGETS = {
    "SearchJobs": ("jobs", searches.JOBS),
    "SearchSteps": ("steps", searches.STEPS),
    "SearchTasks": ("tasks", searches.TASKS),
    "SearchWorkers": ("workers", searches.WORKERS),
}
# Of the fields that no row shows, for these there is nothing to hold them to.
UNSEEN = {"SearchTasks": {"CREATED_AT", "CREATED_BY", "TASK_RUN_STATUS"}}


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, str]:
    """A farm with two queues, and jobs of all statuses, with parameters of all kinds."""
    found = one_of_each(service)
    farm = {"farmId": found["farmId"]}
    other = service.make("CreateQueue", **farm, displayName="other")["queueId"]
    rng = random.Random(7)
    statuses = ["READY", "SUSPENDED", "CANCELED", "FAILED", "SUCCEEDED"]
    for number in range(12):
        name = rng.choice(["beauty", "Beauty pass", "fx/smoke", "ünïcode 100%_x", "comp 10", "comp 9"])
        template = {
            "specificationVersion": "jobtemplate-2023-09",
            "name": f"{name} {number}",
            "parameterDefinitions": [
                {"name": "Shot", "type": "STRING", "default": rng.choice(["sh010", "SH020", "10", ""])},
                {"name": "Weight", "type": "INT", "default": rng.choice([-3, 0, 9, 10, 100])},
                *([{"name": "Ratio", "type": "FLOAT", "default": rng.choice([0.5, 1e3, 2])}] if number % 2 else []),
            ],
            "steps": [
                {
                    "name": f"step {index}",
                    "parameterSpace": {
                        "taskParameterDefinitions": [
                            {"name": "Frame", "type": "INT", "range": f"1-{rng.randint(1, 4)}"},
                            {"name": "Layer", "type": "STRING", "range": rng.sample(["bg", "FG", "9", "10"], 2)},
                        ]
                    },
                    "script": {"actions": {"onRun": {"command": "true"}}},
                }
                for index in range(rng.randint(1, 2))
            ],
        }
        queue = {**farm, "queueId": rng.choice([found["queueId"], other])}
        job = service.make(
            "CreateJob", **queue, priority=rng.choice([0, 9, 50, 50, 100]), templateType="JSON",
            template=json.dumps(template), maxWorkerCount=rng.choice([-1, 1, 10]), maxRetriesPerTask=rng.choice([0, 5]),
        )["jobId"]  # fmt: skip
        service.settle()
        service.make("UpdateJob", **queue, jobId=job, targetTaskRunStatus=rng.choice(statuses))
        if number == 5:
            service.make("UpdateJob", **queue, jobId=job, lifecycleStatus="ARCHIVED")
    for host in ("alpha", "beta", "ALPHA-2"):
        service.make("CreateWorker", **farm, fleetId=found["fleetId"], hostProperties={"hostName": host})
    return {**found, "other": other}


def scope(operation: str, ids: dict[str, str]) -> dict[str, Any]:
    where = (
        {"fleetIds": [ids["fleetId"]]} if operation == "SearchWorkers" else {"queueIds": [ids["queueId"], ids["other"]]}
    )
    return {"farmId": ids["farmId"], "itemOffset": 0, **where}


def member(name: str) -> str:
    first, *rest = name.lower().split("_")
    return first + "".join(each.capitalize() for each in rest)


def shown(row: dict[str, Any], name: str) -> Any:
    """What a row shows of a field, None where it has none."""
    if name == "HOST_NAME":
        return row.get("hostProperties", {}).get("hostName")
    return row.get(member(name))


def parameter(row: dict[str, Any], name: str) -> Any:
    given = row.get("jobParameters", row.get("parameters", {})).get(name)
    return None if given is None else number_of(next(iter(given.values())))


def number_of(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def holds(row: dict[str, Any], each: dict[str, Any], fields: Any, terms: Any) -> bool:
    """Whether a filter holds of a row."""
    ((kind, given),) = each.items()
    if kind == "groupFilter":
        found = [holds(row, inner, fields, terms) for inner in given["filters"]]
        return all(found) if given["operator"] == "AND" else any(found)
    operator = given.get("operator")
    if kind == "dateTimeFilter":
        value = shown(row, given["name"])
        return value is not None and ORDERS[operator](value, given["dateTime"])
    if kind in ("stringFilter", "stringListFilter"):
        value = shown(row, given["name"])
        wanted = given["values"] if "values" in given else [given["value"]]
        if fields[given["name"]].kind == "number":
            wanted = [float(text) for text in wanted]
        return (value in wanted) == (operator in ("EQUAL", "ANY_EQUALS"))
    if kind == "parameterFilter":
        value, wanted = parameter(row, given["name"]), number_of(given["value"])
        if operator == "NOT_EQUAL":
            return bool(value != wanted)
        if value is None or (operator != "EQUAL" and isinstance(value, str) != isinstance(wanted, str)):
            return False
        return bool(ORDERS[operator](value, wanted))
    term = given["searchTerm"].lower()
    words = [term] if given.get("matchType") == "CONTAINS" else term.split()
    texts = [str(shown(row, name) or "").lower() for name in terms]
    texts += [
        str(text).lower()
        for one in row.get("jobParameters", row.get("parameters", {})).values()
        for text in one.values()
    ]
    return any(word in text for word in words for text in texts)


def random_filter(rng: random.Random, operation: str, rows: list[dict[str, Any]], depth: int) -> dict[str, Any]:
    target = TARGETS[operation][1]
    fields = {name: each for name, each in target.fields.items() if name not in UNSEEN.get(operation, ())}
    row = rng.choice(rows)
    kinds = ["stringFilter", "stringListFilter", "dateTimeFilter", "searchTermFilter"]
    kinds += ["parameterFilter"] * 2 if target.parameters else []
    kinds += ["groupFilter"] * 2 if depth == 1 else []
    kind = rng.choice(kinds)
    if kind == "groupFilter":
        return {kind: random_group(rng, operation, rows, depth + 1)}
    if kind == "dateTimeFilter":
        name = rng.choice([name for name, each in fields.items() if each.kind == "time"])
        moment = shown(rng.choice(rows), name) or "2026-01-01T00:00:00.000Z"
        return {kind: {"name": name, "operator": rng.choice(sorted(ORDERS)), "dateTime": moment}}
    if kind == "parameterFilter":
        names = list(row.get("jobParameters", row.get("parameters", {}))) or ["Nobody"]
        name = rng.choice([*names, "Nobody"])
        value = rng.choice(["0", "9", "10.0", "1e1", "sh010", "FG", "x", str(parameter(row, name) or "7")])
        return {kind: {"name": name, "operator": rng.choice([*ORDERS, "NOT_EQUAL"]), "value": value}}
    if kind == "searchTermFilter":
        text = rng.choice(
            [str(shown(row, rng.choice(sorted(fields))) or "x"), "BEAUTY", "comp 9", "0%_", "100%", "sh0", "_"]
        )
        return {
            kind: {"searchTerm": text[:60], **rng.choice([{}, {"matchType": "CONTAINS"}, {"matchType": "FUZZY_MATCH"}])}
        }
    name = rng.choice([name for name, each in fields.items() if each.kind != "time"])
    values = [str(shown(rng.choice(rows), name)) for _ in range(rng.randint(1, 3))]
    values = [each if each not in ("None", "") else "7" for each in values]
    if kind == "stringFilter":
        return {kind: {"name": name, "operator": rng.choice(["EQUAL", "NOT_EQUAL"]), "value": values[0]}}
    return {kind: {"name": name, "operator": rng.choice(["ANY_EQUALS", "ALL_NOT_EQUALS"]), "values": values}}


def random_group(rng: random.Random, operation: str, rows: list[dict[str, Any]], depth: int = 1) -> dict[str, Any]:
    filters = [random_filter(rng, operation, rows, depth) for _ in range(rng.randint(1, 3))]
    return {"operator": rng.choice(["AND", "OR"]), "filters": filters}


TERMS = {
    "SearchJobs": ("NAME", "JOB_ID", "CREATED_BY"),
    "SearchSteps": ("NAME", "STEP_ID", "JOB_ID", "CREATED_BY"),
    "SearchTasks": ("TASK_ID", "STEP_ID", "JOB_ID"),
    "SearchWorkers": ("WORKER_ID", "FLEET_ID", "STATUS", "HOST_NAME"),
}


@pytest.mark.parametrize("operation", TARGETS)
def test_filters_find_what_they_say(operation: str, service: Service, ids: dict[str, str]) -> None:
    items, target = TARGETS[operation]
    whole = service.make(operation, **scope(operation, ids))
    rows = whole[items]
    assert len(rows) == whole["totalResults"] > 3 and "nextItemOffset" not in whole
    rng = random.Random(operation)
    sizes = set()
    for _ in range(250):
        group = random_group(rng, operation, rows)
        found = service.make(operation, **scope(operation, ids), filterExpressions=group)
        wanted = [row for row in rows if holds(row, {"groupFilter": group}, target.fields, TERMS[operation])]
        if operation == "SearchTasks" and "searchTermFilter" in json.dumps(group):
            continue  # a task's creator is searched, and not shown
        assert found[items] == wanted, json.dumps(group)
        assert found["totalResults"] == len(wanted)
        sizes.add(len(wanted))
    assert len(sizes) > 2


@pytest.mark.parametrize("operation", TARGETS)
def test_sorts_and_pages(operation: str, service: Service, ids: dict[str, str]) -> None:
    items, target = TARGETS[operation]
    rows = service.make(operation, **scope(operation, ids))[items]
    rng = random.Random(operation)
    names = [name for name in target.fields if name not in UNSEEN.get(operation, ())]
    for _ in range(60):
        chosen = rng.sample(names, rng.randint(1, 3))
        sorts: list[dict[str, Any]] = [
            {"fieldSort": {"name": name, "sortOrder": rng.choice(["ASCENDING", "DESCENDING"])}} for name in chosen
        ]
        wanted = list(rows)
        for each in reversed(sorts):
            name, down = each["fieldSort"]["name"], each["fieldSort"]["sortOrder"] == "DESCENDING"
            wanted.sort(key=lambda row, name=name: key(shown(row, name)), reverse=down)
        found: list[Any] = []
        offset: int | None = 0
        size = rng.choice([1, 3, 100])
        while offset is not None:
            page = service.make(
                operation, **{**scope(operation, ids), "itemOffset": offset}, pageSize=size, sortExpressions=sorts
            )
            assert page["totalResults"] == len(rows) and 0 < len(page[items]) <= size
            found += page[items]
            offset = page.get("nextItemOffset")
        assert [[shown(row, name) for name in chosen] for row in found] == [
            [shown(row, name) for name in chosen] for row in wanted
        ]
        assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, rows))


def key(value: Any) -> Any:
    return (value is not None, value if value is not None else 0)


def test_sorts_by_parameter_and_by_person(service: Service, ids: dict[str, str]) -> None:
    for way in ("ASCENDING", "DESCENDING"):
        found = service.make(
            "SearchJobs", **scope("SearchJobs", ids),
            sortExpressions=[{"parameterSort": {"name": "Weight", "sortOrder": way}}],
        )["jobs"]  # fmt: skip
        weights = [parameter(row, "Weight") for row in found]
        numbers = [each for each in weights if each is not None]
        assert numbers == sorted(numbers, reverse=way == "DESCENDING") and len(set(numbers)) > 2
    person = service.mint(kind="user", name="artist", level="OWNER")
    service.call(
        "CreateJob", {"farmId": ids["farmId"], "queueId": ids["other"], "priority": 1, "sourceJobId": ids["jobId"]},
        who=person,
    )  # fmt: skip
    service.settle()
    first = [
        {"userJobsFirst": {"userIdentityId": "artist"}},
        {"fieldSort": {"name": "CREATED_AT", "sortOrder": "ASCENDING"}},
    ]
    found = service.make("SearchJobs", **scope("SearchJobs", ids), sortExpressions=first)["jobs"]
    assert found[0]["createdBy"] == "artist" and {each["createdBy"] for each in found[1:]} == {"admin"}
    times = [each["createdAt"] for each in found[1:]]
    assert times == sorted(times)


def test_many_tasks_are_sorted_by_a_parameter_as_few_are(service: Service, ids: dict[str, str]) -> None:
    """Of steps with numbers, with texts and with no such parameter, a page of any size at any place."""
    rng = random.Random(3)
    # So many at each end are alike that the sample's rows are, too.
    numbers = ["-50"] * 50 + [str(rng.randint(-50, 50)) for _ in range(100)]
    texts = [f"v{rng.randint(0, 30)}" for _ in range(100)] + ["z"] * 50
    steps = [
        {"name": "numbers", "parameterSpace": {"taskParameterDefinitions": [
            {"name": "Key", "type": "INT", "range": numbers}]}},
        {"name": "texts", "parameterSpace": {"taskParameterDefinitions": [
            {"name": "Key", "type": "STRING", "range": texts}]}},
        {"name": "none", "parameterSpace": {"taskParameterDefinitions": [
            {"name": "Other", "type": "INT", "range": "1-100"}]}},
    ]  # fmt: skip
    for each in steps:
        each["script"] = {"actions": {"onRun": {"command": "true"}}}
    template = {"specificationVersion": "jobtemplate-2023-09", "name": "sorted", "steps": steps}
    job = service.make(
        "CreateJob", farmId=ids["farmId"], queueId=ids["other"], priority=1, template=json.dumps(template),
        templateType="JSON",
    )["jobId"]  # fmt: skip
    service.settle()
    wanted: list[Any] = [None] * 100 + sorted(map(float, numbers)) + sorted(texts)

    def value(row: dict[str, Any]) -> Any:
        found = row["parameters"].get("Key")
        return found and (float(found["int"]) if "int" in found else found["string"])

    for way, expected in (("ASCENDING", wanted), ("DESCENDING", wanted[::-1])):
        for size, offset in ((1, 0), (7, 0), (7, 7), (20, 90), (20, 240), (100, 0), (100, 300), (100, 380)):
            page = service.make(
                "SearchTasks", farmId=ids["farmId"], queueIds=[ids["other"]], jobId=job, itemOffset=offset,
                pageSize=size, sortExpressions=[{"parameterSort": {"name": "Key", "sortOrder": way}}],
            )  # fmt: skip
            assert [value(row) for row in page["tasks"]] == expected[offset : offset + size], (way, size, offset)
            assert page["totalResults"] == 400
    listed = service.make("ListSteps", farmId=ids["farmId"], queueId=ids["other"], jobId=job)["steps"]
    (only,) = [each["stepId"] for each in listed if each["name"] == "numbers"]
    one_step = {"stringFilter": {"name": "STEP_ID", "operator": "EQUAL", "value": only}}
    page = service.make(
        "SearchTasks", farmId=ids["farmId"], queueIds=[ids["other"]], itemOffset=0, pageSize=3,
        filterExpressions={"operator": "AND", "filters": [one_step]},
        sortExpressions=[{"parameterSort": {"name": "Key", "sortOrder": "ASCENDING"}}],
    )  # fmt: skip
    assert [value(row) for row in page["tasks"]] == [-50.0] * 3


WRONG = [
    {"stringFilter": {"name": "SHOE_SIZE", "operator": "EQUAL", "value": "9"}},
    {"stringFilter": {"name": "name", "operator": "EQUAL", "value": "9"}},
    {"stringFilter": {"name": "CREATED_AT", "operator": "EQUAL", "value": "9"}},
    *(
        {"stringFilter": {"name": "CREATED_BY", "operator": operator, "value": "9"}}
        for operator in (*sorted(set(ORDERS) - {"EQUAL"}), "ANY_EQUALS", "ALL_NOT_EQUALS")
    ),
    *(
        {"stringListFilter": {"name": "CREATED_BY", "operator": operator, "values": ["9"]}}
        for operator in (*ORDERS, "NOT_EQUAL")
    ),
    *(
        {"dateTimeFilter": {"name": "CREATED_AT", "operator": operator, "dateTime": 0}}
        for operator in ("NOT_EQUAL", "ANY_EQUALS", "ALL_NOT_EQUALS")
    ),
    {"dateTimeFilter": {"name": "NAME", "operator": "EQUAL", "dateTime": 0}},
    {"groupFilter": {"operator": "AND", "filters": [{"groupFilter": {"operator": "AND", "filters": [
        {"stringFilter": {"name": "CREATED_BY", "operator": "EQUAL", "value": "9"}}]}}]}},
]  # fmt: skip


@pytest.mark.parametrize("operation", TARGETS)
def test_what_can_not_be_searched_is_refused(operation: str, service: Service, ids: dict[str, str]) -> None:
    for wrong in WRONG:
        answer = service.call(
            operation, {**scope(operation, ids), "filterExpressions": {"operator": "AND", "filters": [wrong]}}
        )
        assert (answer.status, error_of(answer)) == (400, "ValidationException"), (wrong, answer.body)
        (fault,) = json.loads(answer.body)["fieldList"]
        assert fault["name"].startswith("filterExpressions.filters.1.member."), fault
    for params in (
        {"itemOffset": -1}, {"itemOffset": 10_001}, {"itemOffset": None}, {"pageSize": 0}, {"pageSize": 101},
        {"sortExpressions": []}, {"sortExpressions": [{"fieldSort": {"name": "X", "sortOrder": "ASCENDING"}}]},
        {"sortExpressions": [{"fieldSort": {"name": "CREATED_BY", "sortOrder": "UP"}}]}, {"sortExpressions": [{}] * 6},
        {"filterExpressions": {"operator": "AND", "filters": []}},
        {"filterExpressions": {"operator": "XOR", "filters": WRONG[:1]}},
        {"filterExpressions": {"operator": "AND", "filters": WRONG[:1] * 4}},
    ):  # fmt: skip
        answer = service.call(operation, {**scope(operation, ids), **params})
        assert (answer.status, error_of(answer)) == (400, "ValidationException"), (params, answer.body)
    where = "fleetIds" if operation == "SearchWorkers" else "queueIds"
    for given in ([], ["x"], [ids[where[:-1]]] * 11):
        answer = service.call(operation, {**scope(operation, ids), where: given})
        assert error_of(answer) == "ValidationException", given
    answer = service.call(operation, {**scope(operation, ids), where: [where[:-3] + "-" + "0" * 32]})
    assert error_of(answer) == "ResourceNotFoundException"
    beyond = service.make(operation, **{**scope(operation, ids), "itemOffset": 10_000})
    assert beyond["totalResults"] > 0 and "nextItemOffset" not in beyond
