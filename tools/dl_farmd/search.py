"""Search*: filters, groups, terms and sorts, turned into one WHERE and one ORDER BY.

An operation describes what can be searched as a `Target` and calls `run`.
Source: spec/service.md section 12; botocore's model, SearchFilterExpression and SearchSortExpression.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from math import isfinite, isqrt
from operator import and_, or_
from typing import TYPE_CHECKING, Any, Protocol

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
PARAMETER_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
# The kinds of jobs' parameter values.
NUMBERS = ("int", "float")
TEXTS = (
    "string", "path", "bool", "rangeExpr", "stringList", "pathList", "intList", "floatList", "boolList",
    "intListList",
)  # fmt: skip
Condition = tuple[str, list[Any]]


@dataclass(frozen=True)
class Field:
    """A field that can be filtered and sorted by: its SQL expression, and its kind: text, number or time (ms).

    A text that is put together for each row has those `parts` that sort as it does, and `split` makes them of one.
    """

    sql: str
    kind: str = "text"
    parts: tuple[str, ...] = ()
    split: Callable[[str], tuple[str, ...]] | None = None


class Parameters(Protocol):
    """How one search looks at the parameters of its rows.

    A condition may be a map: a byte for each row, 1 where the condition holds. `marked` makes SQL of it.
    """

    def sorting(self, name: str) -> Condition | None:
        """What sorts as the values of a parameter do: none before numbers, and these before texts. None: all alike."""

    def comparing(self, name: str, operator: str, value: float | str) -> Condition | bytes:
        """Whether a parameter's value compares so with a `comparable`."""

    def containing(self, word: str) -> Condition | bytes:
        """Whether the value of any parameter contains a word, in upper or lower case."""

    def marked(self, found: bytes) -> Condition:
        """Whether a row's byte is 1."""

    def placed(self) -> bool:
        """Whether what was made so far needs `Target.placed` as the source."""

    def varies(self, sql: str) -> bool:
        """Whether an expression may differ from row to row."""

    def sample(self) -> tuple[Condition, int] | None:
        """(what a small share of the rows meets, whatever they are sorted by; one in how many that is), if known."""


@dataclass(frozen=True)
class Target:
    """What a Search operation searches.

    `SELECT columns source` gives its rows, of which each is named by `key`; `fields` maps the service's names
    (`TASK_RUN_STATUS`); `terms` are the SQL expressions that a search term is looked for in. `parameters` makes what
    looks at parameters, of the database and the WHERE of all rows, and `placed` is the source that it may need.
    `order` sorts the rows where the request does not, and breaks ties where it does: SQL, a `-` before what descends.
    """

    columns: str
    source: str
    key: str
    fields: dict[str, Field]
    terms: tuple[str, ...]
    order: tuple[str, ...]
    parameters: Callable[[sqlite3.Connection, str, tuple[Any, ...]], Parameters] | None = None
    placed: str = ""


@dataclass
class Key:
    """What rows are sorted by."""

    sql: str
    descending: bool = False
    args: list[Any] = field(default_factory=list)
    nullable: bool = True


def run(call: Call, target: Target, where: str, args: tuple[Any, ...]) -> tuple[list[sqlite3.Row], dict[str, Any]]:
    """(the page of rows that match, totalResults and nextItemOffset as response members).

    Raises: Validation.
    """
    search = _Search(call, target, where, args)
    offset, size = call.params["itemOffset"], call.params.get("pageSize", PAGE)
    if "sortExpressions" in call.params:
        found, total = search.sorted_page(offset, size + 1)
    else:
        found, total = search.page(offset, size + 1)
    totals: dict[str, Any] = {"totalResults": min(total, MAX_TOTAL)}
    if len(found) > size:
        found.pop()
        if offset + size <= MAX_TOTAL:
            totals["nextItemOffset"] = offset + size
    return found, totals


class _Search:
    """One search: its conditions and its keys."""

    def __init__(self, call: Call, target: Target, where: str, args: tuple[Any, ...]) -> None:
        self.db, self.target, self.asked = call.db, target, call.params
        self.parameters = target.parameters(call.db, where, args) if target.parameters else None
        self.all = where, list(args)
        self.matching = self.conditions(target)
        self.keys = _keys(target, self.parameters, call.params.get("sortExpressions", ()))
        self.source = target.placed if self.parameters and self.parameters.placed() else target.source

    def conditions(self, target: Target) -> Condition:
        where, args = self.all
        if "filterExpressions" not in self.asked:
            return where, args
        found = _group(target, self.parameters, self.asked["filterExpressions"], "filterExpressions", 1)
        sql, more = _as_sql(found, self.parameters)
        return f"({where}) AND {sql}", [*args, *more]

    def select(self, columns: str, matching: Condition, rest: str, args: list[Any]) -> list[sqlite3.Row]:
        sql = f"SELECT {columns} {self.source} WHERE {matching[0]} {rest}"
        return self.db.execute(sql, (*matching[1], *args)).fetchall()

    def count(self, most: int) -> int:
        sql = f"SELECT count(*) FROM (SELECT 1 {self.source} WHERE {self.matching[0]} LIMIT ?)"
        return int(self.db.execute(sql, (*self.matching[1], most)).fetchone()[0])

    def page(self, offset: int, size: int) -> tuple[list[sqlite3.Row], int]:
        """(up to `size` rows, how many match)."""
        order, args = _order_by(self.keys)
        found = self.select(self.target.columns, self.matching, f"{order} LIMIT ? OFFSET ?", [*args, size, offset])
        if len(found) < size and (found or not offset):
            return found, offset + len(found)  # the last page has been seen: no second look at all rows
        return found, self.count(MAX_TOTAL)

    def sorted_page(self, offset: int, size: int) -> tuple[list[sqlite3.Row], int]:
        """The same of rows that come in another order than they are sorted in."""
        last = offset + size
        many = max(MAX_TOTAL, last) + 1
        total = self.count(many)
        if total <= offset:
            return [], total
        matching = self.matching
        bounds: list[Condition] = [("", [])]
        if total == many:
            # An index that finds so many one by one would take longer than to look at all.
            fields = {name: replace(each, sql=f"+{each.sql}") for name, each in self.target.fields.items()}
            matching = self.conditions(replace(self.target, fields=fields))
            bounds = [*self.bound(matching, last), *bounds]
        order, args = _order_by(self.keys)
        for more, bound in bounds:
            # What has to be sorted is sorted by itself: whole rows would take thrice the time.
            keys = self.select(
                self.target.key, (matching[0] + more, [*matching[1], *bound]), f"{order} LIMIT ? OFFSET ?",
                [*args, size, offset],
            )  # fmt: skip
            if len(keys) == min(size, total - offset):
                break
        one = (
            f"SELECT {self.target.columns} {self.target.source}"
            f" WHERE ({self.target.key}) = ({', '.join('?' * len(self.target.key.split(',')))})"
        )
        return [self.db.execute(one, tuple(key)).fetchone() for key in keys], total

    def bound(self, matching: Condition, last: int) -> list[Condition]:
        """What the first `last` rows very likely meet, and few others; nothing where that can't be told.

        SQLite keeps as many rows sorted as the page is deep, and where they come the wrong way round it puts each row
        in its place and takes another out again. A sample tells which need not be looked at.
        """
        sample = self.parameters.sample() if self.parameters else None
        if sample is None:
            return []
        (sampled, sampled_args), share = sample
        rank = last // share
        rank += 4 * isqrt(rank) + 4  # some standard deviations
        order, args = _order_by(self.keys)
        columns = ", ".join(key.sql for key in self.keys)
        bound = [arg for key in self.keys for arg in key.args]
        sql = f"SELECT {columns} {self.source} WHERE {matching[0]} AND {sampled} {order} LIMIT 1 OFFSET ?"
        found = self.db.execute(sql, (*bound, *matching[1], *sampled_args, *args, rank)).fetchone()
        if found is None:
            return []
        condition, bound = "1", []
        for key, value in zip(reversed(self.keys), reversed(tuple(found)), strict=True):
            condition, bound = _not_after(key, value, (condition, bound))
        return [(f" AND {condition}", bound)]


def _not_after(key: Key, value: Any, rest: Condition) -> Condition:
    """That a row sorts before one whose key has this value, or equal to it, and `rest` holds."""
    sql, (then, args) = key.sql, rest
    if value is None and key.descending:
        return f"({sql} IS NOT NULL OR {then})", [*key.args, *args]
    if value is None:
        return f"({sql} IS NULL AND {then})", [*key.args, *args]
    way = ">" if key.descending else "<"
    before = f"({sql} {way}= ? AND ({sql} {way} ? OR {then}))", [*key.args, value, *key.args, value, *args]
    if key.descending or not key.nullable:
        return before
    return f"({sql} IS NULL OR {before[0]})", [*key.args, *before[1]]


def _order_by(keys: list[Key]) -> Condition:
    parts = [f"{key.sql} {'DESC' if key.descending else 'ASC'}" for key in keys]
    return f"ORDER BY {', '.join(parts)}", [arg for key in keys for arg in key.args]


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


class JsonParameters:
    """Parameters in a column (or expression) with {name: {kind: text}} of each row."""

    def __init__(self, column: str) -> None:
        self.column = column

    def placed(self) -> bool:
        return False

    def varies(self, sql: str) -> bool:
        return True

    def sample(self) -> tuple[Condition, int] | None:
        return None

    def marked(self, found: bytes) -> Condition:
        raise NotImplementedError

    def sorting(self, name: str) -> Condition:
        # SQLite itself casts what must be numbers.
        number = f"CAST({self._text(name, NUMBERS)} AS REAL)"
        return f"coalesce({number}, dl_comparable({self._text(name, TEXTS)}))", []

    def comparing(self, name: str, operator: str, value: float | str) -> Condition:
        sql, _ = self.sorting(name)
        if operator == "NOT_EQUAL":
            return f"{sql} IS NOT ?", [value]
        if operator == "EQUAL" and isinstance(value, str):
            return f"{self._text(name, TEXTS)} = ?", [value]
        if operator == "EQUAL":
            return f"{sql} = ?", [value]
        kind = "text" if isinstance(value, str) else "real"
        return f"(typeof({sql}) = '{kind}' AND {sql} {COMPARISONS[operator]} ?)", [value]

    def containing(self, word: str) -> Condition:
        # The text as a whole is quicker to look at than its values, of which few have what it has not.
        return (
            f"({self.column} LIKE ? ESCAPE '!' AND EXISTS (SELECT 1 FROM json_tree({self.column}) AS leaf"
            " WHERE leaf.atom LIKE ? ESCAPE '!'))",
            [pattern(orjson.dumps(word).decode()[1:-1]), pattern(word)],
        )

    def _text(self, name: str, kinds: tuple[str, ...]) -> str:
        """The SQL of a parameter's text, if it is of one of these kinds; else of NULL."""
        # Names are words: what is none names no parameter, and could not stand in the path.
        if not PARAMETER_NAME.fullmatch(name):
            return "NULL"
        extracts = [f"json_extract({self.column}, '$.{name}.{kind}')" for kind in kinds]
        return f"coalesce({', '.join(extracts)})"


def _group(
    target: Target, parameters: Parameters | None, group: dict[str, Any], path: str, depth: int
) -> Condition | bytes:
    if depth > MAX_DEPTH:
        raise Validation("The filter groups are nested too deeply.", {path: f"At most {MAX_DEPTH - 1} level of groups"})
    found: list[Condition | bytes] = []
    for index, each in enumerate(group["filters"]):
        kind, given = next(iter(each.items()))
        own = f"{path}.filters.{index + 1}.member.{kind}"
        if kind == "groupFilter":
            found.append(_group(target, parameters, given, own, depth + 1))
        elif kind == "parameterFilter":
            found.append(_parameter(parameters, given, own))
        elif kind == "searchTermFilter":
            found.append(_term(target, parameters, given))
        else:
            found.append(FILTERS[kind](target, given, own))
    return _combined(found, group["operator"], parameters)


def _combined(found: list[Condition | bytes], operator: str, parameters: Parameters | None) -> Condition | bytes:
    """Conditions with AND or OR between them: maps become one, so that each row is looked up once."""
    maps = [int.from_bytes(each) for each in found if isinstance(each, bytes)]
    parts = [each for each in found if not isinstance(each, bytes)]
    if maps:
        size = next(len(each) for each in found if isinstance(each, bytes))
        merged = reduce(and_ if operator == "AND" else or_, maps).to_bytes(size)
        if not parts:
            return merged
        parts.append(_as_sql(merged, parameters))
    return f"({f' {operator} '.join(sql for sql, _ in parts)})", [arg for _, args in parts for arg in args]


def _as_sql(found: Condition | bytes, parameters: Parameters | None) -> Condition:
    if isinstance(found, bytes):
        assert parameters is not None
        return parameters.marked(found)
    return found


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
    if field.split:
        return f"{'' if operator == 'EQUAL' else 'NOT '}{_same(field)}", [*field.split(given["value"])]
    return f"{field.sql} {'IS' if operator == 'EQUAL' else 'IS NOT'} ?", [_typed(field, given["value"], path)]


def _string_list(target: Target, given: dict[str, Any], path: str) -> Condition:
    field = _field(target, given["name"], path, "text", "number")
    operator = _operator(given, path, "ANY_EQUALS", "ALL_NOT_EQUALS")
    if field.split:
        any_of = " OR ".join([_same(field)] * len(given["values"]))
        bound = [part for each in given["values"] for part in field.split(each)]
        return f"{'' if operator == 'ANY_EQUALS' else 'NOT '}({any_of})", bound
    values = [_typed(field, each, path) for each in given["values"]]
    listed = f"ifnull({field.sql}, '') {'IN' if operator == 'ANY_EQUALS' else 'NOT IN'}"
    return f"{listed} ({', '.join('?' * len(values))})", values


def _same(field: Field) -> str:
    return f"({' AND '.join(f'{part} = ?' for part in field.parts)})"


def _typed(field: Field, text: str, path: str) -> Any:
    if field.kind != "number":
        return text
    value = comparable(text)
    if isinstance(value, str):
        raise Validation(f"'{text}' is no number.", {f"{path}.value": "Must be a number for this field"})
    return value


def _parameter(parameters: Parameters | None, given: dict[str, Any], path: str) -> Condition | bytes:
    if parameters is None:
        raise Validation("There are no parameters to filter by here.", {path: "Not supported by this operation"})
    operator = _operator(given, path, *COMPARISONS, "NOT_EQUAL")
    value = comparable(given["value"])
    assert value is not None
    return parameters.comparing(given["name"], operator, value)


def _term(target: Target, parameters: Parameters | None, given: dict[str, Any]) -> Condition | bytes:
    text = given["searchTerm"]
    words = [text] if given.get("matchType", "FUZZY_MATCH") == "CONTAINS" else text.split() or [text]
    found: list[Condition | bytes] = []
    for word in words:
        found += [(f"{term} LIKE ? ESCAPE '!'", [pattern(word)]) for term in target.terms]
        if parameters:
            found.append(parameters.containing(word))
    # LIKE of NULL is NULL, which leaves the others to decide. Inside a function all parts would be worked out.
    return _combined(found, "OR", parameters)


def pattern(word: str) -> str:
    """The LIKE pattern, with `!` as its escape, of what contains a word."""
    return "%" + re.sub("[!%_]", r"!\g<0>", word) + "%"


FILTERS = {
    "dateTimeFilter": _date_time,
    "stringFilter": _string,
    "stringListFilter": _string_list,
}


def _keys(target: Target, parameters: Parameters | None, sorts: Any) -> list[Key]:
    keys: list[Key] = []
    for index, each in enumerate(sorts):
        kind, given = next(iter(each.items()))
        path = f"sortExpressions.{index + 1}.member.{kind}"
        descending = given.get("sortOrder") == "DESCENDING"
        if kind == "fieldSort":
            field = _field(target, given["name"], path)
            keys += [Key(sql, descending) for sql in field.parts or (field.sql,)]
        elif kind == "userJobsFirst":
            keys.append(Key(f"{_field(target, 'CREATED_BY', path).sql} = ?", True, [given["userIdentityId"]]))
        elif parameters is None:
            raise Validation("There are no parameters to sort by here.", {path: "Not supported by this operation"})
        else:
            sorting = parameters.sorting(given["name"])
            if sorting is not None:
                keys.append(Key(sorting[0], descending, sorting[1]))
    keys += [Key(sql.lstrip("-"), sql.startswith("-"), nullable=False) for sql in target.order]
    return [key for key in keys if parameters.varies(key.sql)] if parameters and sorts else keys
