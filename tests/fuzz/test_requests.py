"""Requests of every operation with one thing wrong somewhere inside: never a 5xx, and faults name their member.

The service runs in this process, over a database in a temporary folder; each example is one request with a signature.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))

from in_process import Service, error_of, one_of_each
from model_values import MODEL, OPERATIONS, SHAPES, valid

SEEDS = int(os.environ.get("DL_FUZZ_SEEDS", "60"))
WRONG: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64 - 1, 1e308, -1e308, "", "x", "0", "\x00", "é" * 300, "x" * 5000,
    "NaN", "farm-" + "0" * 32, "queue-" + "0" * 32, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", [], [None],
    [[]], ["x"] * 200, {}, {"x": None}, {"": ""}, {"fixed": {}}, {"__proto__": 1},
]  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Service(tmp_path_factory.mktemp("farm"))
    yield made
    made.farm.close()


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, str]:
    return one_of_each(service)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside."""
    found = [path] if path else []
    if isinstance(document, dict | list):
        for key, inner in document.items() if isinstance(document, dict) else enumerate(document):
            found += places(inner, (*path, key))
    return found


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_wrong_value(operation: str, service: Service, ids: dict[str, str]) -> None:
    modelled = {each["shape"] for each in MODEL["operations"][operation]["errors"]} | {"ValidationException"}
    shape = MODEL["operations"][operation]["input"]["shape"]
    in_path = {name for name, each in SHAPES[shape]["members"].items() if each.get("location") == "uri"}
    # What the other operations need is not deleted: these get ids that nothing has.
    known = {} if operation.startswith("Delete") else ids
    for seed in range(SEEDS):
        rng = random.Random(f"{operation} {seed}")
        params = {**valid(shape, rng, {}), **{name: known[name] for name in in_path if name in known}}
        replace_ids(params, known, rng)
        paths = [path for path in places(params) if path[0] not in in_path]
        if seed % 6 and paths:
            *way, last = rng.choice(paths)
            inside: Any = params
            for key in way:
                inside = inside[key]
            inside[last] = rng.choice(WRONG)
        service.errors.clear()
        answer = service.call(operation, params)
        if answer is None or answer.status in (200, 201, 204):
            continue
        assert answer.status < 500, (operation, params, answer.body, service.errors)
        error = error_of(answer)
        assert error in modelled, (operation, params, answer.body)
        if error == "ValidationException":
            body = json.loads(answer.body)
            assert body["message"] and body["reason"] in ("FIELD_VALIDATION_FAILED", "OTHER"), (operation, params, body)
    assert not service.farm.db.in_transaction
    assert not service.settle(), service.errors


def replace_ids(document: Any, known: dict[str, str], rng: random.Random) -> None:
    """Put ids of what exists in the place of most made-up ones."""
    for key, inner in document.items() if isinstance(document, dict) else enumerate(document):
        if isinstance(inner, dict | list):
            replace_ids(inner, known, rng)
        elif isinstance(key, str) and key in known and rng.random() < 0.8:
            document[key] = known[key]
        elif isinstance(inner, str) and rng.random() < 0.8:
            for each in known.values():
                if re.fullmatch(r"[a-z]+-[0-9a-f]{32}", inner) and each.startswith(inner[: inner.index("-") + 1]):
                    document[key] = each


def test_random_paths_and_bodies(service: Service) -> None:
    rng = random.Random(7)
    words = ["2023-10-12", "farms", "queues", "jobs", "%", "%zz", "..", "{farmId}", "é", "tags", "search", "?"] + [
        "",
        f"farm-{'0' * 32}",
    ]
    for _ in range(2000):
        path = "/" + "/".join(quote(rng.choice(words), safe="%?{}") for _ in range(rng.randint(0, 8)))
        body = rng.choice((b"", b"{}", b"null", b"[]", b"{", bytes(rng.randrange(256) for _ in range(9))))
        answer = service.send(rng.choice(("GET", "PUT", "POST", "PATCH", "DELETE", "HEAD")), path, body)
        assert answer.status in (200, 204, 400, 404), (path, body, answer.body)
