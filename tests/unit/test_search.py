"""Searches of the embedded farm against a plain evaluation of the same filters and sorts in Python."""

from __future__ import annotations

import json
import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest
from dl_tools.dl_farmd import search
from dl_tools.dl_farmd.errors import Validation
from dl_tools.dl_farmd.search import Field, JsonParameters, Target
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ("shot one", "Shot Two", "", "über", "50%", "a_b", "wow!", 'say "a"')
TARGET = Target(
    columns="jobs.*",
    source="FROM jobs",
    key="jobs.job",
    fields={
        "NAME": Field("jobs.name"),
        "STATUS": Field("jobs.status"),
        "PRIORITY": Field("jobs.priority", "number"),
        "ENDED_AT": Field("jobs.ended_at", "time"),
        "CREATED_BY": Field("jobs.created_by"),
    },
    terms=("jobs.name", "jobs.created_by"),
    order=("-jobs.job",),
    parameters=lambda db, where, args: JsonParameters("jobs.parameters"),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(NAMES),
            "status": st.sampled_from((None, "READY", "FAILED")),
            "priority": st.integers(0, 3),
            "ended_at": st.one_of(st.none(), st.integers(1, 5)),
            "created_by": st.sampled_from(("ann", "Bob")),
            "parameters": st.dictionaries(
                st.sampled_from(("Frame", "Scene")),
                st.sampled_from(
                    (
                        {"int": "9"},
                        {"int": "10"},
                        {"string": 'b "2"\\'},
                        {"string": "b 2"},
                        {"path": "/x"},
                        {"float": "9.0"},
                    )
                ),
            ),
        }
    ),
    max_size=6,
)
ORDERED = ("EQUAL", "GREATER_THAN", "GREATER_THAN_EQUAL_TO", "LESS_THAN", "LESS_THAN_EQUAL_TO")
LEAVES = st.one_of(
    st.builds(
        lambda operator, at: {"dateTimeFilter": {"name": "ENDED_AT", "operator": operator, "dateTime": at}},
        st.sampled_from(ORDERED), st.integers(1, 5),
    ),
    st.builds(
        lambda name, operator, value: {"parameterFilter": {"name": name, "operator": operator, "value": value}},
        st.sampled_from(("Frame", 'odd "name"', "None")), st.sampled_from((*ORDERED, "NOT_EQUAL")),
        st.sampled_from(("9", "9.5", "10", "b 2", "/x", "nan")),
    ),
    st.builds(
        lambda name, operator, value: {"stringFilter": {"name": name, "operator": operator, "value": value}},
        st.sampled_from(("NAME", "STATUS")), st.sampled_from(("EQUAL", "NOT_EQUAL")),
        st.sampled_from((*NAMES, "READY")),
    ),
    st.builds(
        lambda operator, value: {"stringFilter": {"name": "PRIORITY", "operator": operator, "value": value}},
        st.sampled_from(("EQUAL", "NOT_EQUAL")), st.sampled_from(("1", "2.0", "7")),
    ),
    st.builds(
        lambda name, operator, values: {"stringListFilter": {"name": name, "operator": operator, "values": values}},
        st.sampled_from(("NAME", "STATUS")), st.sampled_from(("ANY_EQUALS", "ALL_NOT_EQUALS")),
        st.lists(st.sampled_from((*(name for name in NAMES if name), "READY", "FAILED")), min_size=1, max_size=3),
    ),
    st.builds(
        lambda term, how: {"searchTermFilter": {"searchTerm": term, **how}},
        st.sampled_from(("shot", "TWO one", "%", "_", "!", 'B "2', '"', "\\", "b 2", "/X", "ann", "   ", "Ü")),
        st.sampled_from(({}, {"matchType": "CONTAINS"}, {"matchType": "FUZZY_MATCH"})),
    ),
)  # fmt: skip


def group(filters: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"filters": st.lists(filters, min_size=1, max_size=3), "operator": st.sampled_from(("AND", "OR"))}
    )


EXPRESSIONS = group(st.one_of(LEAVES, group(LEAVES).map(lambda inner: {"groupFilter": inner})))


def database(rows: list[dict[str, Any]]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.row_factory = sqlite3.Row
    search.start(SimpleNamespace(db=db))
    db.execute("CREATE TABLE jobs (job INTEGER PRIMARY KEY, name, status, priority, ended_at, created_by, parameters)")
    for row in rows:
        values = {**row, "parameters": json.dumps(row["parameters"])}
        db.execute(
            f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", tuple(values.values())
        )
    return db


def run(rows: list[dict[str, Any]], **params: Any) -> tuple[list[int], dict[str, Any]]:
    db = database(rows)
    call = SimpleNamespace(params={"itemOffset": 0, **params}, db=db)
    found, totals = search.run(call, TARGET, "1", ())
    return [row["job"] - 1 for row in found], totals


def number(text: str | None) -> Any:
    try:
        value = float(text)
    except (ValueError, TypeError):
        return text
    return value if value == value else text


def compare(left: Any, operator: str, right: Any) -> bool:
    if operator == "NOT_EQUAL":
        return bool(left != right)
    if left is None or isinstance(left, str) != isinstance(right, str):
        return False
    return {
        "EQUAL": left == right,
        "GREATER_THAN": left > right,
        "GREATER_THAN_EQUAL_TO": left >= right,
        "LESS_THAN": left < right,
        "LESS_THAN_EQUAL_TO": left <= right,
    }[operator]


def lower(text: str) -> str:
    # SQLite's lower() knows ASCII only.
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def matches(row: dict[str, Any], expression: dict[str, Any]) -> bool:
    ((kind, about),) = expression.items()
    if kind == "groupFilter":
        results = [matches(row, each) for each in about["filters"]]
        return all(results) if about["operator"] == "AND" else any(results)
    if kind == "searchTermFilter":
        words = [about["searchTerm"]]
        if about.get("matchType") != "CONTAINS":
            words = about["searchTerm"].split() or words
        texts = [
            row["name"],
            row["created_by"],
            *(value for each in row["parameters"].values() for value in each.values()),
        ]
        return any(lower(word) in lower(text) for word in words for text in texts)
    if kind == "parameterFilter":
        value = next(iter(row["parameters"].get(about["name"], {"": None}).values()))
        return compare(number(value), about["operator"], number(about["value"]))
    value = row[about["name"].lower()]
    if kind == "dateTimeFilter":
        return compare(value, about["operator"], about["dateTime"])
    if kind == "stringListFilter":
        return (value in about["values"]) == (about["operator"] == "ANY_EQUALS")
    wanted = number(about["value"]) if about["name"] == "PRIORITY" else about["value"]
    return (value == wanted) == (about["operator"] == "EQUAL")


@settings(max_examples=400, deadline=None)
@given(ROWS, EXPRESSIONS)
def test_filters(rows: list[dict[str, Any]], expression: dict[str, Any]) -> None:
    found, totals = run(rows, filterExpressions=expression)
    wanted = [index for index, row in enumerate(rows) if matches(row, {"groupFilter": expression})]
    assert found == wanted[::-1]
    assert totals == {"totalResults": len(wanted)}


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(1, 3))
def test_pages_hold_every_row_once(rows: list[dict[str, Any]], size: int) -> None:
    seen: list[int] = []
    offset = 0
    while True:
        found, totals = run(rows, itemOffset=offset, pageSize=size)
        assert totals["totalResults"] == len(rows)
        seen += found
        if "nextItemOffset" not in totals:
            break
        assert len(found) == size
        offset = totals["nextItemOffset"]
    assert seen == list(range(len(rows)))[::-1]


def test_sorts() -> None:
    plain = {"name": "n", "status": None, "ended_at": None, "created_by": "ann", "parameters": {}}
    rows = [
        {**plain, "priority": 1, "created_by": "bob", "parameters": {"Frame": {"int": "10"}}},
        {**plain, "priority": 2, "parameters": {"Frame": {"int": "9"}}},
        {**plain, "priority": 1, "parameters": {"Frame": {"float": "9.5"}}},
    ]
    by_priority = {"fieldSort": {"name": "PRIORITY", "sortOrder": "ASCENDING"}}
    assert run(rows)[0] == [2, 1, 0]
    assert run(rows, sortExpressions=[by_priority])[0] == [2, 0, 1]
    frame = {"parameterSort": {"name": "Frame", "sortOrder": "DESCENDING"}}
    assert run(rows, sortExpressions=[frame])[0] == [0, 2, 1]
    assert run(rows, sortExpressions=[{"userJobsFirst": {"userIdentityId": "bob"}}])[0] == [0, 2, 1]
    assert run(rows, sortExpressions=[by_priority, frame])[0] == [0, 2, 1]


@pytest.mark.parametrize(
    ("expression", "member"),
    [
        ({"stringFilter": {"name": "NOTHING", "operator": "EQUAL", "value": "x"}}, "name"),
        ({"stringFilter": {"name": "name", "operator": "EQUAL", "value": "x"}}, "name"),
        ({"stringFilter": {"name": "ENDED_AT", "operator": "EQUAL", "value": "x"}}, "name"),
        ({"stringFilter": {"name": "NAME", "operator": "GREATER_THAN", "value": "x"}}, "operator"),
        ({"stringFilter": {"name": "PRIORITY", "operator": "EQUAL", "value": "high"}}, "value"),
        ({"dateTimeFilter": {"name": "NAME", "operator": "EQUAL", "dateTime": 1}}, "name"),
        ({"dateTimeFilter": {"name": "ENDED_AT", "operator": "NOT_EQUAL", "dateTime": 1}}, "operator"),
        ({"stringListFilter": {"name": "NAME", "operator": "EQUAL", "values": ["x"]}}, "operator"),
        ({"parameterFilter": {"name": "x", "operator": "ANY_EQUALS", "value": "x"}}, "operator"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_its_path(expression: dict[str, Any], member: str) -> None:
    for depth in range(2):
        with pytest.raises(Validation) as caught:
            run([], filterExpressions={"operator": "AND", "filters": [expression]})
        (fault,) = caught.value.members["fieldList"]
        assert fault["name"].startswith("filterExpressions.filters.1.member.") and fault["name"].endswith(f".{member}")
        expression = {"groupFilter": {"operator": "OR", "filters": [expression]}}
        assert depth < 2
    with pytest.raises(Validation, match="nested too deeply"):
        run([], filterExpressions={"operator": "AND", "filters": [expression]})
    with pytest.raises(Validation):
        run([], sortExpressions=[{"fieldSort": {"name": "NOTHING", "sortOrder": "ASCENDING"}}])
