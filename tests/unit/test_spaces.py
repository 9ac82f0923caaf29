"""Which values the tasks of a step have, told by their numbers alone, against openjd-model and the plain way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dl_tools.dl_farmd import spaces, task_values, templates
from dl_tools.dl_farmd.search import comparable
from hypothesis import given, settings
from hypothesis import strategies as st

INTS = st.lists(st.integers(-30, 30), min_size=1, max_size=4)
EXPRESSIONS = st.sampled_from(["1-5", "10-2:-3", "-4--1", "1-3,9,20-30:5", "7", "0-1"])
DEFINITIONS = st.one_of(
    INTS.map(lambda values: {"type": "INT", "range": values}),
    EXPRESSIONS.map(lambda text: {"type": "INT", "range": text}),
    st.lists(st.floats(-5, 5), min_size=1, max_size=3).map(lambda values: {"type": "FLOAT", "range": values}),
    st.lists(st.sampled_from(["a", "B", "10", "9", "-"]), min_size=1, max_size=4).map(
        lambda values: {"type": "STRING", "range": values}
    ),
)
WORDS = st.sampled_from(["0", "1", "10", "01", "00", "99", "9", "-", "-1", "7-", "", "123", "a"])


def values_by_task(made: dict[str, tuple[int, list[Any]]], tasks: int) -> list[dict[str, str]]:
    """What spaces.py says of each task."""
    texts = {
        name: [text for each in content for text in (map(str, range(*each)) if isinstance(each, list) else [each])]
        for name, (_, content) in made.items()
    }
    return [
        {name: texts[name][number // stride % len(texts[name])] for name, (stride, _) in made.items()}
        for number in range(tasks)
    ]


def built(space: dict[str, Any], extensions: list[str]) -> templates.StepRow:
    body = {
        "specificationVersion": "jobtemplate-2023-09",
        "name": "n",
        **({"extensions": extensions} if extensions else {}),
        "steps": [{"name": "s", "parameterSpace": space, "script": {"actions": {"onRun": {"command": "true"}}}}],
    }
    (step,) = templates.build(templates.Document(json.dumps(body), "JSON"), {}, []).steps
    return step


def told(step: templates.StepRow) -> list[dict[str, str]]:
    """What openjd-model says of each task."""
    return [{name: next(iter(value.values())) for name, value in json.loads(task[0]).items()} for task in step.tasks]


@st.composite
def parameter_spaces(draw: st.DrawFn) -> dict[str, Any]:
    """Up to four parameters, combined in any way, those of an association as long as each other."""
    count = draw(st.integers(1, 4))
    definitions = [{"name": f"P{index}", **draw(DEFINITIONS)} for index in range(count)]
    names = [each["name"] for each in definitions]
    way = draw(st.sampled_from(["none", "product", "association", "both"]))
    space: dict[str, Any] = {"taskParameterDefinitions": definitions}
    if way == "product" or count == 1:
        order = draw(st.permutations(names))
        space["combination"] = " * ".join(order)
    elif way != "none":
        together = names if way == "association" else names[:2]
        length = draw(st.integers(1, 4))
        for each in definitions[: len(together)]:
            each.update(type="INT", range=draw(st.lists(st.integers(-9, 9), min_size=length, max_size=length)))
        rest = names[len(together) :]
        space["combination"] = " * ".join(draw(st.permutations([f"({', '.join(together)})", *rest])))
    return space


@settings(max_examples=150, deadline=None)
@given(parameter_spaces())
def test_the_number_of_a_task_tells_its_values(space: dict[str, Any]) -> None:
    step = built(space, [])
    assert values_by_task(step.values, step.count) == told(step)


@pytest.mark.parametrize("constraint", ["CONTIGUOUS", "NONCONTIGUOUS"])
@pytest.mark.parametrize("combination", [None, "Frame * Layer", "Layer * Frame"])
@pytest.mark.parametrize("frames", ["1-9", "1-3,7,20-30:5"])
def test_so_it_does_where_tasks_are_chunked(constraint: str, combination: str | None, frames: str) -> None:
    chunks = {"defaultTaskCount": 3, "rangeConstraint": constraint}
    space = {
        "taskParameterDefinitions": [
            {"name": "Frame", "type": "CHUNK[INT]", "range": frames, "chunks": chunks},
            {"name": "Layer", "type": "STRING", "range": ["a", "b"]},
        ],
        **({"combination": combination} if combination else {}),
    }
    step = built(space, ["TASK_CHUNKING"])
    assert values_by_task(step.values, step.count) == told(step)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["1", "2", "3", "a", "07"]), min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 3)
)
def test_values_that_recur_are_described_as_they_are(values: list[str], stride: int, times: int) -> None:
    texts = [text for text in values for _ in range(stride)] * times
    found = values_by_task({"P": spaces.described(texts)}, len(texts))
    assert [each["P"] for each in found] == texts


CONTENTS = st.one_of(
    st.lists(st.sampled_from(["a", "B", "10", "9.5", "-2", "1e3", "", str(2**60), str(2**60 + 1)]), min_size=1),
    st.lists(
        st.builds(
            lambda start, count, step: range(start, start + count * step, step),
            st.integers(-40, 200), st.integers(1, 40), st.sampled_from([1, 2, 7, -1, -3]),
        ),
        min_size=1, max_size=3,
    ),
)  # fmt: skip


def texts_of(content: Any) -> list[str]:
    return [text for each in content for text in (map(str, each) if isinstance(each, range) else [each])]


@settings(max_examples=400, deadline=None)
@given(CONTENTS, WORDS)
def test_words_are_found_in_values(content: Any, word: str) -> None:
    wanted = [word.lower() in text.lower() for text in texts_of(content)]
    assert list(map(bool, task_values._containing(content, word))) == wanted


@settings(max_examples=400, deadline=None)
@given(
    CONTENTS, st.sampled_from(sorted(task_values.HOLDS)), st.sampled_from(["9", "-2", "9.5", "B", "", "1e400", "17"])
)
def test_values_compare(content: Any, operator: str, text: str) -> None:
    other = comparable(text)
    assert other is not None

    def holds(value: Any) -> bool:
        return isinstance(value, str) == isinstance(other, str) and bool(task_values.HOLDS[operator](value, other))

    wanted = [holds(comparable(each)) for each in texts_of(content)]
    assert list(map(bool, task_values._compared(content, operator, other))) == wanted


@settings(max_examples=300, deadline=None)
@given(st.lists(CONTENTS, min_size=1, max_size=3))
def test_sort_keys_sort_as_values_do(contents: list[Any]) -> None:
    named = {str(index): content for index, content in enumerate(contents)}
    width = task_values.WIDTH
    rows = []
    for name, keys in task_values._sort_keys(named).items():
        texts = texts_of(named[name])
        assert len(keys) == width * len(texts)
        rows += [(keys[width * at : width * (at + 1)], comparable(text)) for at, text in enumerate(texts)]
    for key, value in rows:
        assert key > bytes(width)  # those without the parameter come first
        for other_key, other in rows:
            plain = (isinstance(value, str), value) < (isinstance(other, str), other)  # type: ignore[operator]
            assert (key < other_key) == plain
