"""How SearchTasks looks at parameters and ids: in maps made of the values that spaces.py keeps.

A map has some bytes for each task of the steps that are searched, one step after the other. To look there costs
SQLite a tenth of what it takes to read a task's parameters, which are JSON, and to compare or sort them.
"""

from __future__ import annotations

import operator
import re
import sqlite3
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import orjson

from .search import Condition, comparable
from .spaces import EXACT

Content = list[str] | list[range]
Axis = tuple[int, str]  # stride, and content as JSON
SHARE = 61  # one task in so many is a sample; a prime, since values recur after round numbers of tasks
OPPOSITE = bytes([1, 0]) + bytes(254)
WIDTH = 4  # bytes of a sort key, which is what `array` calls "I"
HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUAL": operator.eq,
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_EQUAL_TO": operator.ge,
    "LESS_THAN": operator.lt,
    "LESS_THAN_EQUAL_TO": operator.le,
}


def start(farm: Any) -> None:
    """Make the table that a search of several steps keeps their places in the maps in."""
    farm.db.execute("CREATE TEMP TABLE places (place_of INTEGER PRIMARY KEY, base INTEGER NOT NULL)")


class TaskValues:
    """The tasks of those steps that `where` finds in `jobs` and `steps`."""

    def __init__(self, db: sqlite3.Connection, where: str, args: tuple[Any, ...]) -> None:
        self.db, self.where, self.args = db, where, args
        self.needs_places = False
        self.known_steps: list[sqlite3.Row] | None = None
        self.known_contents: dict[str, Content] = {}

    def placed(self) -> bool:
        return self.needs_places

    def varies(self, sql: str) -> bool:
        return "tasks." in sql or len(self.steps()) > 1

    def sample(self) -> tuple[Condition, int] | None:
        sizes = [step["tasks"] for step in self.steps()]
        if len(sizes) * max(sizes) < 3 * sum(sizes):
            numbers = orjson.dumps(list(range(0, max(sizes), SHARE))).decode()
            return ("tasks.number IN (SELECT value FROM json_each(?))", [numbers]), SHARE
        return (f"(tasks.number + steps.step) % {SHARE} = 0", []), SHARE

    def sorting(self, name: str) -> Condition | None:
        axes = {step: found[0] for step, found in self.axes("AND task_parameters.name = ?", name).items()}
        keys = _sort_keys({raw: self.content(raw) for _, raw in axes.values()})
        parts = []
        for step in self.steps():
            if step["step"] in axes:
                stride, raw = axes[step["step"]]
                parts.append(_for_tasks(keys[raw], stride, step["tasks"], WIDTH))
            else:
                parts.append(bytes(WIDTH * step["tasks"]))
        found = b"".join(parts)
        if found == found[:WIDTH] * (len(found) // WIDTH):
            return None
        return f"substr(?, ({self.place()}) * {WIDTH} + 1, {WIDTH})", [found]

    def comparing(self, name: str, operator: str, value: float | str) -> bytes:
        opposite = operator == "NOT_EQUAL"
        axes = self.axes("AND task_parameters.name = ?", name)
        known: dict[str, bytes] = {}
        parts = []
        for step in self.steps():
            for stride, raw in axes.get(step["step"], ()):
                if raw not in known:
                    known[raw] = _compared(self.content(raw), "EQUAL" if opposite else operator, value)
                parts.append(_for_tasks(known[raw], stride, step["tasks"]))
            if step["step"] not in axes:
                parts.append(bytes(step["tasks"]))
        found = b"".join(parts)
        return found.translate(OPPOSITE) if opposite else found

    def containing(self, word: str) -> Condition | bytes:
        """Whether a parameter's value has a word; or the id of the task, its step or its job, or who created that."""
        has, axes = _has(word), self.axes()
        # What goes beyond the hyphen before a task's number must end there and begin the number.
        before, hyphen, after = word.rpartition("-")
        before, digits = before.lower(), after.isascii() and after.isdecimal()
        known: dict[str, bytes] = {}
        parts, crossing = [], []
        for step in self.steps():
            task = f"task-{step['step_id'][5:]}"
            crossing.append(bytes([task.endswith(before)]) * step["tasks"])
            if any(map(has, (f"{task}-", step["step_id"], step["job_id"], step["created_by"]))):
                parts.append(b"\1" * step["tasks"])
                continue
            found = 0
            if digits and not hyphen:
                found = int.from_bytes(_containing([range(step["tasks"])], word))
            for stride, raw in axes.get(step["step"], ()):
                if raw not in known:
                    known[raw] = _containing(self.content(raw), word)
                if 1 in known[raw]:
                    found |= int.from_bytes(_for_tasks(known[raw], stride, step["tasks"]))
            parts.append(found.to_bytes(step["tasks"]))
        whole, crossed = b"".join(parts), b"".join(crossing)
        if not digits or not hyphen or 1 not in crossed:
            return whole
        (sql, args), (more, more_args) = self.marked(whole), self.marked(crossed)
        return f"({sql} OR ({more} AND tasks.number LIKE ?))", [*args, *more_args, f"{after}%"]

    def marked(self, found: bytes) -> Condition:
        if 1 not in found:
            return "0", []
        if 0 not in found:
            return "1", []
        return f"substr(?, {self.place()} + 1, 1) = x'01'", [found]

    def place(self) -> str:
        """The SQL of a task's place in the maps."""
        if len(self.steps()) == 1:
            return "tasks.number"
        if not self.needs_places:
            self.needs_places = True
            places, base = [], 0
            for step in self.steps():
                places.append((step["step"], base))
                base += step["tasks"]
            self.db.execute("DELETE FROM places")
            self.db.executemany("INSERT INTO places VALUES (?, ?)", places)
        return "places.base + tasks.number"

    def steps(self) -> list[sqlite3.Row]:
        """The steps that have tasks, in the order of the maps."""
        if self.known_steps is None:
            rows = self.db.execute(
                "SELECT steps.step, steps.step_id, jobs.job_id, jobs.created_by,"
                " (SELECT max(number) + 1 FROM tasks WHERE tasks.step = steps.step) AS tasks"
                f" FROM jobs CROSS JOIN steps USING (job) WHERE {self.where}",
                self.args,
            )
            self.known_steps = [row for row in rows if row["tasks"]]
        return self.known_steps

    def axes(self, which: str = "", *args: str) -> dict[int, list[Axis]]:
        """The parameters by step."""
        found: dict[int, list[Axis]] = {}
        for step, stride, raw in self.db.execute(
            "SELECT steps.step, stride, content || '' FROM jobs CROSS JOIN steps USING (job)"
            f" CROSS JOIN task_parameters USING (step) WHERE {self.where} {which}",
            (*self.args, *args),
        ):
            found.setdefault(step, []).append((stride, raw))
        return found

    def content(self, raw: str) -> Content:
        if raw not in self.known_contents:
            found = orjson.loads(raw)
            self.known_contents[raw] = [range(*each) for each in found] if isinstance(found[0], list) else found
        return self.known_contents[raw]


def _for_tasks(items: bytes, stride: int, tasks: int, width: int = 1) -> bytes:
    """What each task has, of what each value has: `width` bytes."""
    if stride > 1:
        items = b"".join([items[at : at + width] * stride for at in range(0, len(items), width)])
    return items * (tasks * width // len(items))


def _sort_keys(contents: dict[str, Content]) -> dict[str, bytes]:
    """The sort keys of each content's values, from 1 up: as bytes they compare as the values of all contents do."""
    wholes = {raw: _whole(content) for raw, content in contents.items()}
    ends = [end for found in wholes.values() for part in found or () for end in _ends(part)]
    keys: dict[str, array[int]] = {}
    if all(wholes.values()) and ends and max(ends) - min(ends) < 2 ** (8 * WIDTH) - 1:
        below = min(ends) - 1
        for raw, found in wholes.items():
            keys[raw] = array("I")
            for part in found or ():
                if isinstance(part, range):
                    keys[raw].extend(range(part.start - below, part.stop - below, part.step))
                else:
                    keys[raw].extend([value - below for value in part])
    else:
        values = {raw: list(map(comparable, _texts(content))) for raw, content in contents.items()}
        rising = sorted(set(chain.from_iterable(values.values())), key=lambda value: (isinstance(value, str), value))
        ranks = {value: rank for rank, value in enumerate(rising, 1)}
        keys = {raw: array("I", [ranks[value] for value in found]) for raw, found in values.items()}
    if sys.byteorder == "little":
        for each in keys.values():
            each.byteswap()
    return {raw: each.tobytes() for raw, each in keys.items()}


def _whole(content: Content) -> list[Sequence[int]] | None:
    """The values, if all are whole numbers that are compared as they are."""
    if isinstance(content[0], range):
        return [each for each in content if isinstance(each, range)]
    values = [value for value in map(comparable, content) if isinstance(value, float)]  # type: ignore[arg-type]
    if len(values) < len(content) or not all(value.is_integer() and abs(value) < EXACT for value in values):
        return None
    return [list(map(int, values))]


def _ends(values: Sequence[int]) -> tuple[int, int]:
    if isinstance(values, range):
        return values[0], values[-1]
    return min(values), max(values)


def _texts(content: Content) -> list[str]:
    return [text for each in content for text in ([each] if isinstance(each, str) else map(str, each))]


def _compared(content: Content, operator: str, value: float | str) -> bytes:
    """A byte for each value, 1 where it compares so."""
    return b"".join(
        [
            bytes([_holds(comparable(each), operator, value)])
            if isinstance(each, str)
            else _compared_range(each, operator, value)
            for each in content
        ]
    )


def _holds(one: Any, operator: str, other: float | str) -> bool:
    return isinstance(one, str) == isinstance(other, str) and HOLDS[operator](one, other)


def _compared_range(values: range, operator: str, other: float | str) -> bytes:
    if isinstance(other, str):
        return bytes(len(values))
    rising = values if values.step > 0 else values[::-1]
    left, right = bisect_left(rising, other), bisect_right(rising, other)
    first, end = {
        "EQUAL": (left, right),
        "GREATER_THAN": (right, len(values)),
        "GREATER_THAN_EQUAL_TO": (left, len(values)),
        "LESS_THAN": (0, left),
        "LESS_THAN_EQUAL_TO": (0, right),
    }[operator]
    found = bytes(first) + b"\1" * (end - first) + bytes(len(values) - end)
    return found if rising is values else found[::-1]


def _containing(content: Content, word: str) -> bytes:
    """A byte for each value, 1 where it has the word."""
    has = _has(word)
    return b"".join(
        [bytes([has(each)]) if isinstance(each, str) else _range_containing(each, word) for each in content]
    )


def _range_containing(values: range, word: str) -> bytes:
    if re.fullmatch("-?[0-9]*", word) is None:
        return bytes(len(values))
    low, high = min(values[0], values[-1]), max(values[0], values[-1])
    if low < 0 or high > 10 * len(values) + 1000 or not word.isdecimal():
        return bytes([word in str(value) for value in values])
    found = _numbers_containing(word, high + 1)
    rising = found[low : high + 1 : abs(values.step)]
    return rising if values.step > 0 else rising[::-1]


def _numbers_containing(word: str, end: int) -> bytes:
    """A byte for each number from 0 up to `end`, 1 where its digits have the word: far quicker than to look at each.

    With `after` digits after it, that is the case for 10**after numbers in a row, at the same place in each `period`.
    """
    found = 0
    for after in range(len(str(end)) - len(word) + 1):
        run, period = 10**after, 10 ** (after + len(word))
        first = int(word) * run
        pattern = bytes(first) + b"\1" * run + bytes(period - first - run)
        numbers = (pattern * (end // period + 1))[:end]
        if word[0] == "0":  # no number begins so
            numbers = (bytes(period) + numbers[period:])[:end]
        found |= int.from_bytes(numbers)
    if word == "0":
        found |= 1 << 8 * (end - 1)  # but this one itself
    return found.to_bytes(end)


def _has(word: str) -> Callable[[str], bool]:
    """Whether a text has a word. Only A to Z are also found as small letters, as by LIKE."""
    wanted = word.encode().lower()  # of bytes, which leaves all other letters alone
    return lambda text: wanted in text.encode().lower()
