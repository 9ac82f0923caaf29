"""deadline job download-*: both clients tell a program the same, and take the same answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "farm"))
from dialogue import Person, inputs, profile
from renders import Renders


@pytest.fixture(scope="module")
def renders(farm: Any) -> Renders:
    return Renders(farm)


@pytest.fixture
def people(reference: str, renders: Renders, tmp_path: Path) -> list[Person]:
    """Ours and theirs, each with a folder of the same name as home."""
    found = []
    for name, program in (("ours", "deadline"), ("theirs", reference)):
        (tmp_path / name).mkdir()
        found.append(Person(renders, tmp_path / name, program))
    return found


def told(person: Person, what: str, job: str, *words: str, answer: Any = (), succeeds: bool = True) -> list[Any]:
    """What a download tells a program: kinds and values, without progress and without what is worded freely."""
    lines = [json.dumps({"messageType": "pathconfirm", "value": value}) + "\n" for value in answer]
    try:
        out, _ = person.download(what, job, "--output", "json", *words, answers="".join(lines))
        assert succeeds, out
    except AssertionError as failed:
        if succeeds:
            raise
        out = failed.args[0][1]
    found = []
    for line in out.splitlines():
        # The reference mixes lines that are no JSON into its messages; ours are warnings.
        message = json.loads(line) if line.startswith("{") else {"messageType": "warning"}
        kind = message["messageType"]
        if kind in ("title", "path", "presummary"):
            found.append((kind, message["value"]))
        elif kind == "summary":
            found.append((kind, message.get("fileCount"), message.get("files")))
        elif kind == "error":
            found.append((kind,))
    return json.loads(json.dumps(found).replace(str(person.folder), "<home>"))  # type: ignore[no-any-return]


def both(people: list[Person], what: str, job: str, *words: str, **more: Any) -> list[Any]:
    """What both tell, which is asserted to be the same; `<home>` in answers is each one's own folder."""
    answers = more.pop("answer", ())
    ours, theirs = (
        told(person, what, job, *words, answer=json.loads(json.dumps(answers).replace("<home>", str(person.folder))),
             **more)
        for person in people
    )  # fmt: skip
    assert ours == theirs
    return ours


def test_roots_are_asked_for_and_confirmed_alike(people: list[Person], renders: Renders, tmp_path: Path) -> None:
    job = inputs(renders, {"P:\\show": {"a/w": "w"}, "Q:\\": {"q": "q"}, str(tmp_path / "own"): {"n": "n"}})
    answer = [["<home>/1"], ["<home>/2"], ["<home>/1", "<home>/3", "<home>/4"]]
    found = both(people, "input", job, answer=answer)
    assert [each[0] for each in found] == ["title", "path", "path", "presummary", "path", "summary"]
    assert sorted(found[-1][2]) == ["<home>/1/a/w", "<home>/3/q", "<home>/4/n"]


def test_wrong_answers_and_none_are_refused_alike(people: list[Person], renders: Renders, tmp_path: Path) -> None:
    job = inputs(renders, {str(tmp_path / "own"): {"n": "n"}})
    for answer in ([], [["relative"]], [["/a", "/b"]]):
        found = both(people, "input", job, answer=answer, succeeds=False)
        assert [each[0] for each in found] == ["title", "presummary", "path", "error"]
    assert both(people, "input", "job-" + "0" * 32, "--yes", succeeds=False) == [["error"]]


def test_globs_choose_alike(people: list[Person], renders: Renders, tmp_path: Path) -> None:
    root = str(tmp_path / "own")
    job = inputs(renders, {root: {"d/a.exr": "a", "d/b.txt": "b", "e/a.exr": "x"}})
    overwrite = ("--conflict-resolution", "overwrite")
    for globs, count in ((["-i", "d/"], 2), (["-i", "*/e/*", "-i", "./*.txt"], 2), (["-i", "?.t[xyz]t"], 1)):
        found = both(people, "input", job, *globs, *overwrite, answer=[["<home>/new"]])
        assert found[-1][1] == count
    words = ("--match-paths-by", "JOB", "-i", f"{root}/d/*")
    assert both(people, "input", job, *words, *overwrite, answer=[[root]])[-1][1] == 2
    assert both(people, "input", job, "--yes", "-i", "nothing")[-1] == ["summary", None, None]


def test_storage_profiles_place_files_alike(people: list[Person], renders: Renders, tmp_path: Path) -> None:
    here = tmp_path / "show"
    studio = profile(renders, "LINUX", Show="/studio/show")
    mine = profile(renders, "LINUX", Show=str(here))
    job = inputs(renders, {"/studio/show/s": {"a": "a"}, str(tmp_path / "own"): {"u": "u"}}, studio)
    output = renders.submit("/studio", {"show/b": "b", "gone/c": "c"}, profile=studio)
    renders.render()
    for person in people:
        person.use(mine)
    answer = [["<home>/s", "<home>/own"]]
    found = both(people, "input", job, answer=answer)
    assert found[2] == ["path", [f"{here}/s", str(tmp_path / "own")]]
    # The reference succeeds only from a folder above the places.
    for person in people:
        person.folder = tmp_path
    words = ("--conflict-resolution", "overwrite")
    assert both(people, "output", output.ids["jobId"], *words)[-1] == ["summary", 1, ["<home>/show/b"]]


def test_globs_choose_output_alike(people: list[Person], renders: Renders, tmp_path: Path) -> None:
    root = str(tmp_path / "own")
    job = renders.submit(root, {"d/a.exr": "a", "d/b.txt": "b"}, {"e/a.exr": "x"}).ids["jobId"]
    renders.render()
    for glob, count in (("d/", 2), ("*/new/e/*", 1)):
        words = ("-i", glob, "--conflict-resolution", "overwrite")
        assert both(people, "output", job, *words, answer=[["<home>/new"]])[-1][1] == count
