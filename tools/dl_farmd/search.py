"""Search*: filters, groups, terms and sorts, turned into one WHERE and one ORDER BY.

An operation describes what can be searched as a `Target` and calls `run`.
Source: spec/service.md section 12; botocore's model, SearchFilterExpression and SearchSortExpression.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import orjson

from .errors import Validation
from .operations import Call

if TYPE_CHECKING:
    from .farm import Farm

MAX_TOTAL = 10_000  # totalResults counts no further, and no itemOffset goes beyond
PAGE = 100
MAX_DEPTH = 2  # the expression itself, and groups in it
COMPARISONS = {
    "EQUAL": "=",
    "GREATER_THAN": ">",
    "GREATER_THAN_EQUAL_TO": ">=",
    "LESS_THAN": "<",
    "LESS_THAN_EQUAL_TO": "<=",
}
Condition = tuple[str, list[Any]]
PARAMETER_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
# The kinds of parameter values, of jobs and of tasks; a task of a chunked step has one value of the chunk.
NUMBERS = ("int", "float", "chunkInt")
TEXTS = (
    "string", "path", "bool", "rangeExpr", "stringList", "pathList", "intList", "floatList", "boolList",
    "intListList",
)  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A field that can be filtered and sorted by: its SQL expression, and its kind: text, number or time (ms)."""

    sql: str
    kind: str = "text"


@dataclass(frozen=True)
class Target:
    """What a Search operation searches.

    `select` is `SELECT … FROM … [JOIN …]` without WHERE, `key` the columns that name one of its rows; `fields` maps the
    service's names (`TASK_RUN_STATUS`); `terms` are the SQL expressions that a search term is looked for in, of which a
    pair is (an id, the last part of it): terms without a hyphen are looked for in that part only. `outer` is (a
    condition with {} for what rows of an outer table must meet, the terms of those rows), which many rows share;
    `parameters` is the JSON column (or expression) with {name: {kind: text}}, if there is one; `order` is the ORDER BY
    where the request names none, and the tie-break where it does.
    """

    select: str
    key: str
    fields: dict[str, Field]
    terms: tuple[str | tuple[str, str], ...]
    order: str
    parameters: str | None = None
    outer: tuple[str, tuple[str, ...]] | None = None


def run(call: Call, target: Target, where: str, args: tuple[Any, ...]) -> tuple[list[sqlite3.Row], dict[str, Any]]:
    """(the page of rows that match, totalResults and nextItemOffset as response members).

    Raises: Validation.
    """
    conditions, bound = where, list(args)
    if "filterExpressions" in call.params:
        sql, more = _group(target, call.params["filterExpressions"], "filterExpressions", 1)
        conditions = f"({where}) AND {sql}"
        bound += more
    order, order_args = _order(target, call.params.get("sortExpressions", ()))
    offset, size = call.params["itemOffset"], call.params.get("pageSize", PAGE)
    rest, rest_args = f"WHERE {conditions} ORDER BY {order} LIMIT ? OFFSET ?", (*bound, *order_args, size + 1, offset)
    source = target.select[target.select.index(" FROM ") :]
    if "sortExpressions" in call.params:
        # What has to be sorted is sorted by itself: whole rows would take thrice the time.
        keys = call.db.execute(f"SELECT {target.key} {source} {rest}", rest_args).fetchall()
        one = f"{target.select} WHERE ({target.key}) = ({', '.join('?' * len(target.key.split(',')))})"
        found = [call.db.execute(one, tuple(key)).fetchone() for key in keys]
    else:
        found = call.db.execute(f"{target.select} {rest}", rest_args).fetchall()
    if len(found) <= size and (found or not offset):
        total = min(offset + len(found), MAX_TOTAL)  # the last page has been seen: no second look at all rows
    else:
        total = call.db.execute(
            f"SELECT count(*) FROM (SELECT 1 {source} WHERE {conditions} LIMIT {MAX_TOTAL})", bound
        ).fetchone()[0]
    totals: dict[str, Any] = {"totalResults": total}
    if len(found) > size:
        found.pop()
        if offset + size <= MAX_TOTAL:
            totals["nextItemOffset"] = offset + size
    return found, totals


def start(farm: Farm) -> None:
    """Teach the database to compare parameters."""
    farm.db.create_function("dl_comparable", 1, comparable, deterministic=True)


def comparable(text: str | None) -> float | str | None:
    """A parameter's text as a number if it is one, so that "10" compares with "9.5" as numbers do."""
    try:
        number = float(text)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return text
    return number if isfinite(number) else text


def _group(target: Target, group: dict[str, Any], path: str, depth: int) -> Condition:
    if depth > MAX_DEPTH:
        raise Validation("The filter groups are nested too deeply.", {path: f"At most {MAX_DEPTH - 1} level of groups"})
    parts, args = [], []
    for index, each in enumerate(group["filters"]):
        kind, given = next(iter(each.items()))
        own = f"{path}.filters.{index + 1}.member.{kind}"
        if kind == "groupFilter":
            sql, more = _group(target, given, own, depth + 1)
        else:
            sql, more = FILTERS[kind](target, given, own)
        parts.append(sql)
        args += more
    return "(" + f" {group['operator']} ".join(parts) + ")", args


def _field(target: Target, name: str, path: str, *kinds: str) -> Field:
    field = target.fields.get(name)
    if field is None or (kinds and field.kind not in kinds):
        known = ", ".join(name for name, each in target.fields.items() if not kinds or each.kind in kinds)
        raise Validation(f"'{name}' can't be used here.", {f"{path}.name": f"Must be one of: {known}"})
    return field


def _operator(given: dict[str, Any], path: str, *allowed: str) -> str:
    operator = str(given["operator"])
    if operator not in allowed:
        raise Validation(
            f"The operator {operator} is not supported for this filter.",
            {f"{path}.operator": f"Must be one of: {', '.join(allowed)}"},
        )
    return operator


def _date_time(target: Target, given: dict[str, Any], path: str) -> Condition:
    field = _field(target, given["name"], path, "time")
    operator = _operator(given, path, *COMPARISONS)
    return f"{field.sql} {COMPARISONS[operator]} ?", [given["dateTime"]]


def _string(target: Target, given: dict[str, Any], path: str) -> Condition:
    field = _field(target, given["name"], path, "text", "number")
    operator = _operator(given, path, "EQUAL", "NOT_EQUAL")
    return f"{field.sql} {'IS' if operator == 'EQUAL' else 'IS NOT'} ?", [_typed(field, given["value"], path)]


def _string_list(target: Target, given: dict[str, Any], path: str) -> Condition:
    field = _field(target, given["name"], path, "text", "number")
    operator = _operator(given, path, "ANY_EQUALS", "ALL_NOT_EQUALS")
    values = [_typed(field, each, path) for each in given["values"]]
    listed = f"ifnull({field.sql}, '') {'IN' if operator == 'ANY_EQUALS' else 'NOT IN'}"
    return f"{listed} ({', '.join('?' * len(values))})", values


def _typed(field: Field, text: str, path: str) -> Any:
    if field.kind != "number":
        return text
    value = comparable(text)
    if isinstance(value, str):
        raise Validation(f"'{text}' is no number.", {f"{path}.value": "Must be a number for this field"})
    return value


def _parameter_value(target: Target, name: str, kinds: tuple[str, ...]) -> str:
    """The SQL of a parameter's text in {name: {kind: text}}, if it is of one of these kinds; else of NULL."""
    # Names are words: what is none names no parameter, and could not stand in the path.
    if not PARAMETER_NAME.fullmatch(name):
        return "NULL"
    extracts = [f"json_extract({target.parameters}, '$.{name}.{kind}')" for kind in kinds]
    return f"coalesce({', '.join(extracts)})"


def _comparable_parameter(target: Target, name: str) -> str:
    """The SQL of a parameter's value as it compares: see `comparable`. SQLite itself casts what must be numbers."""
    number = f"CAST({_parameter_value(target, name, NUMBERS)} AS REAL)"
    return f"coalesce({number}, dl_comparable({_parameter_value(target, name, TEXTS)}))"


def _parameter(target: Target, given: dict[str, Any], path: str) -> Condition:
    if target.parameters is None:
        raise Validation("There are no parameters to filter by here.", {path: "Not supported by this operation"})
    operator = _operator(given, path, *COMPARISONS, "NOT_EQUAL")
    sql = _comparable_parameter(target, given["name"])
    value = comparable(given["value"])
    if operator == "NOT_EQUAL":
        return f"{sql} IS NOT ?", [value]
    if operator == "EQUAL" and isinstance(value, str):
        return f"{_parameter_value(target, given['name'], TEXTS)} = ?", [value]
    if operator == "EQUAL":
        return f"{sql} = ?", [value]
    kind = "text" if isinstance(value, str) else "real"
    return f"(typeof({sql}) = '{kind}' AND {sql} {COMPARISONS[operator]} ?)", [value]


def _term(target: Target, given: dict[str, Any], path: str) -> Condition:
    text = given["searchTerm"]
    words = [text] if given.get("matchType", "FUZZY_MATCH") == "CONTAINS" else text.split() or [text]
    parts, args = [], []
    for word in words:
        for term in target.terms:
            sql = term if isinstance(term, str) else term[0] if "-" in word else term[1]
            parts.append(f"{sql} LIKE ? ESCAPE '!'")
            args.append(_pattern(word))
        if target.outer:
            # Looked at once for each outer row, not again for each of the thousands of rows in it.
            condition, outer_terms = target.outer
            parts.append(condition.format(" OR ".join(f"{sql} LIKE ? ESCAPE '!'" for sql in outer_terms)))
            args += [_pattern(word)] * len(outer_terms)
        if target.parameters:
            # The text as a whole is quicker to look at than its values, of which few have what it has not.
            parts.append(
                f"({target.parameters} LIKE ? ESCAPE '!' AND EXISTS (SELECT 1 FROM json_tree({target.parameters})"
                " AS leaf WHERE leaf.atom LIKE ? ESCAPE '!'))"
            )
            args += [_pattern(orjson.dumps(word).decode()[1:-1]), _pattern(word)]
    # LIKE of NULL is NULL, which leaves the others to decide. Inside a function all parts would be worked out.
    return f"({' OR '.join(parts)})", args


def _pattern(word: str) -> str:
    """The LIKE pattern, with `!` as its escape, of what contains a word."""
    return "%" + re.sub("[!%_]", r"!\g<0>", word) + "%"


FILTERS = {
    "dateTimeFilter": _date_time,
    "parameterFilter": _parameter,
    "searchTermFilter": _term,
    "stringFilter": _string,
    "stringListFilter": _string_list,
}


def _order(target: Target, sorts: Any) -> Condition:
    parts: list[str] = []
    args: list[Any] = []
    for index, each in enumerate(sorts):
        kind, given = next(iter(each.items()))
        path = f"sortExpressions.{index + 1}.member.{kind}"
        way = "DESC" if given.get("sortOrder") == "DESCENDING" else "ASC"
        if kind == "fieldSort":
            parts.append(f"{_field(target, given['name'], path).sql} {way}")
        elif kind == "userJobsFirst":
            parts.append(f"{_field(target, 'CREATED_BY', path).sql} = ? DESC")
            args.append(given["userIdentityId"])
        elif target.parameters is None:
            raise Validation("There are no parameters to sort by here.", {path: "Not supported by this operation"})
        else:
            parts.append(f"{_comparable_parameter(target, given['name'])} {way}")
    return ", ".join([*parts, target.order]), args
