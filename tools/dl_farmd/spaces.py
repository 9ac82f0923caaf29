"""Parameter spaces: which values the tasks of a step have, told by a task's number alone.

Task n has value number n // stride % (how many values there are) of each parameter. The table task_parameters keeps
that for each step and parameter, since a search has no time to read a hundred thousand tasks. Its `content` is a list
of texts, or of ranges of whole numbers [first, end, step], which are Python's and below EXACT.
Source: the Open Job Description specification 2023-09, combinationExpr; tasks come in the order of openjd-model.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

import orjson

EXACT = 2**53  # whole numbers up to here are floating-point numbers, too, as which parameters are compared
WORD = re.compile(r"\w+|[(),*]")


def strides(combination: str | None, lengths: dict[str, int]) -> dict[str, int]:
    """How many tasks in a row have the same value of each parameter, of which there are so many values each.

    In `A * B` each of A's values goes with all of B's in turn, in `(A, B)` with its own.
    """
    words = WORD.findall("*".join(lengths) if combination is None else combination)[::-1]

    def product() -> tuple[int, dict[str, int]]:
        factors = [factor()]
        while words and words[-1] == "*":
            words.pop()
            factors.append(factor())
        total, found = 1, {}
        for length, inner in reversed(factors):
            found.update({name: stride * total for name, stride in inner.items()})
            total *= length
        return total, found

    def factor() -> tuple[int, dict[str, int]]:
        word = words.pop()
        if word != "(":
            return lengths[word], {word: 1}
        length, found = product()
        while words.pop() == ",":
            found.update(product()[1])
        return length, found

    return product()[1]


def described(texts: list[str]) -> tuple[int, list[Any]]:
    """(stride, content) of a parameter whose text of each task is known."""
    run = next((index for index, text in enumerate(texts) if text != texts[0]), len(texts))
    values = texts[::run]
    if [text for text in values for _ in range(run)] != texts:
        run, values = 1, texts
    for length in range(1, len(values)):
        if len(values) % length == 0 and values[:length] * (len(values) // length) == values:
            values = values[:length]
            break
    try:
        first, last = int(values[0]), int(values[-1])
        step = int(values[1]) - first if len(values) > 1 else 1
        whole = range(first, last + (1 if step > 0 else -1), step)
    except ValueError:  # no numbers, or twice the same
        return run, values
    if len(whole) != len(values) or list(map(str, whole)) != values:
        return run, values
    return run, ranges([whole])


def ranges(values: list[range]) -> list[Any]:
    """The content of whole numbers."""
    if any(abs(end) > EXACT for each in values for end in (each.start, each.stop)):
        return [str(value) for each in values for value in each]
    return [[each.start, each.stop, each.step] for each in values]


def write(db: sqlite3.Connection, step: int, parameters: dict[str, tuple[int, list[Any]]]) -> None:
    """Keep the (stride, content) of a step's parameters."""
    db.executemany(
        "INSERT INTO task_parameters (step, name, stride, content) VALUES (?, ?, ?, ?)",
        [(step, name, stride, orjson.dumps(content).decode()) for name, (stride, content) in parameters.items()],
    )


def write_all(db: sqlite3.Connection) -> None:
    """Do so for all the tasks that there are."""
    for (step,) in db.execute("SELECT step FROM steps").fetchall():
        texts: dict[str, list[str]] = {}
        for (parameters,) in db.execute("SELECT parameters || '' FROM tasks WHERE step = ? ORDER BY number", (step,)):
            for name, value in orjson.loads(parameters).items():
                texts.setdefault(name, []).extend(value.values())
        write(db, step, {name: described(found) for name, found in texts.items()})
