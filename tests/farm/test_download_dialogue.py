"""deadline job download-output and download-input: the dialogue with a program or a person, and where files go."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dialogue import Person, inputs, kinds, profile, values
from renders import BUCKET, Renders, texts

from libdeadline.paths import root_hash


@pytest.fixture(scope="module")
def renders(farm: Any) -> Renders:
    return Renders(farm)


@pytest.fixture
def person(renders: Renders, tmp_path: Path) -> Person:
    return Person(renders, tmp_path)


def test_roots_of_another_system_get_a_place_and_then_all_are_confirmed(person: Person, renders: Renders) -> None:
    here = person.folder
    job = inputs(renders, {"P:\\show": {"a/w": "w"}, "Q:\\": {"q": "q"}, str(here / "own"): {"n": "n"}})
    places = [str(here / name) for name in ("one", "two", "own")]
    moved = [str(here / name) for name in ("one", "other", "own")]
    told = person.messages("input", job, answer=[places[:1], places[1:2], moved])
    assert kinds(told) == ["title", "path", "path", "presummary", "path", "summary"]
    assert values(told, "path") == [["P:\\show"], ["Q:\\"], places]
    assert values(told, "presummary") == [dict(zip(places, (["a/w"], ["q"], ["n"]), strict=True))]
    (summary,) = [message for message in told if message["messageType"] == "summary"]
    assert (summary["fileCount"], sorted(summary["files"])) == (
        3,
        [f"{moved[0]}/a/w", f"{moved[1]}/q", f"{moved[2]}/n"],
    )
    assert (here / "one/a/w").read_text() == "w"
    # Two that go to one place are confirmed as one.
    told = person.messages("input", job, answer=[places[:1], places[:1], [places[0], places[2]]])
    assert values(told, "path")[2] == [places[0], places[2]]
    assert texts(here / "one") == {"a/w": "w", "q": "q"}


@pytest.mark.parametrize("words", [["--output", "json"], ["--output", "verbose"]])
def test_yes_never_asks(person: Person, renders: Renders, words: list[str]) -> None:
    """The reference waits for an answer here, or fails with no word about why."""
    job = inputs(renders, {"P:\\show": {"a": "a"}})
    out, errors = person.download("input", job, "--yes", *words, status=78)
    assert "P:\\show" in errors
    if "json" in words:
        told = [json.loads(line) for line in out.splitlines()]
        assert kinds(told) == ["title", "error"]
        assert "P:\\show" in told[1]["value"]
    assert not list(person.folder.glob("P:*"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "nobody confirms"),
        ("nonsense", "expected a pathconfirm"),
        ('{"messageType": "other", "value": ["/a"]}', "expected a pathconfirm"),
        ('{"messageType": "pathconfirm", "value": ["relative"]}', "absolute paths"),
        ('{"messageType": "pathconfirm", "value": ["/a", "/b"]}', "1 absolute"),
        ('{"messageType": "pathconfirm"}', "expected a pathconfirm"),
    ],
)
def test_a_wrong_answer_is_an_error_message(person: Person, renders: Renders, line: str, told: str) -> None:
    job = inputs(renders, {str(person.folder / "in"): {"a": "a"}})
    out, errors = person.download("input", job, "--output", "json", answers=line + "\n", status=64)
    assert kinds([json.loads(line) for line in out.splitlines()]) == ["title", "presummary", "path", "error"]
    assert told in json.loads(out.splitlines()[-1])["value"] and told in errors
    assert not (person.folder / "in").exists()


def test_every_failure_is_told_to_a_program(person: Person, renders: Renders) -> None:
    for words, status in ((["--task-id", "task-1"], 64), (["--conflict-resolution", "guess"], 64)):
        (message,) = person.messages("output", "job-" + "0" * 32, *words, status=status)
        assert message["messageType"] == "error" and message["value"]
    (message,) = person.messages("output", "job-" + "0" * 32, status=66)
    assert message["messageType"] == "error" and "job-000" in message["value"]


def test_storage_profiles_place_output(person: Person, renders: Renders) -> None:
    """Mapped output is not asked about, needs no special working directory, and warnings are messages, told once."""
    here = person.folder / "show"
    here.mkdir()
    studio = profile(renders, "LINUX", Show="/studio/show")
    person.use(profile(renders, "LINUX", Show=str(here)))
    job = renders.submit("/studio", {"show/b": "b", "gone/c": "c"}, profile=studio)
    renders.render()
    told = person.messages("output", job.ids["jobId"])
    assert kinds(told) == ["title", "warning", "summary"]
    assert "1 files lie outside" in values(told, "warning")[0]
    assert person.errors.count("1 files lie outside") == 1
    assert texts(here) == {"b": "b"}
    assert max(int(value) for value in values(told, "progress")) <= 100
    # Without the profiles it is a plain root, which is asked about.
    plain = person.messages("output", job.ids["jobId"], "--ignore-storage-profiles", answer=[[str(here / "x")]])
    assert values(plain, "path") == [["/studio"]]
    assert texts(here / "x") == {"show/b": "b", "gone/c": "c"}


def test_a_storage_profile_of_another_system_is_refused(person: Person, renders: Renders) -> None:
    """Its paths would be made up anew below the current folder."""
    person.use(profile(renders, "WINDOWS", Show="P:\\show"))
    job = inputs(renders, {"/studio/show": {"a": "a"}}, profile(renders, "LINUX", Show="/studio/show"))
    told = person.messages("input", job, "--yes", status=78)
    assert kinds(told) == ["title", "error"]
    assert "WINDOWS" in told[1]["value"]
    assert not list(person.folder.glob("P:*"))


def test_output_of_no_common_location_is_taken_as_it_is(person: Person, renders: Renders) -> None:
    studio = profile(renders, "LINUX", Show="/studio/show")
    person.use(profile(renders, "LINUX", Show=str(person.folder)))
    out = person.folder / "out"
    job = renders.submit(out, {"f": "f"}, profile=studio)
    renders.render()
    told = person.messages("output", job.ids["jobId"], answer=[[str(out)]])
    assert kinds(told) == ["title", "warning", "presummary", "path", "summary"]
    assert texts(out) == {"f": "f"}


def test_storage_profiles_place_input_and_the_rest_stays(person: Person, renders: Renders) -> None:
    here, own = person.folder / "show", person.folder / "own"
    windows = profile(renders, "WINDOWS", Show="P:\\show")
    studio = profile(renders, "LINUX", Show="/studio/show")
    person.use(profile(renders, "LINUX", Show=str(here)))
    job = inputs(renders, {"/studio/show/s1": {"a": "a"}, str(own): {"u": "u"}}, studio)
    told = person.messages("input", job, "--yes")
    assert texts(here) == {"s1/a": "a"} and texts(own) == {"u": "u"}
    assert kinds(told) == ["title", "summary"]
    told = person.messages("input", job, answer=[[str(here / "s1"), str(person.folder / "moved")]])
    assert values(told, "path") == [[str(here / "s1"), str(own)]]
    assert texts(person.folder / "moved") == {"u": "u"}
    # Of a job of another system, only a root that no rule holds is asked for.
    job = inputs(renders, {"p:\\SHOW\\s2": {"w/x": "x"}, "Q:\\": {"q": "q"}}, windows)
    place = str(person.folder / "q")
    told = person.messages("input", job, answer=[[place], [str(here / "s2"), place]])
    assert values(told, "path") == [["Q:\\"], [str(here / "s2"), place]]
    assert texts(here) == {"s1/a": "a", "s2/w/x": "x"}
    assert texts(person.folder / "q") == {"q": "q"}


def test_globs_of_local_paths_see_where_roots_were_moved_to(person: Person, renders: Renders) -> None:
    root, new = person.folder / "root", person.folder / "new"
    job = inputs(renders, {str(root): {"d/a": "a", "b": "b"}})
    told = person.messages("input", job, "-i", f"{new}/d/", answer=[[str(new)]])
    assert values(told, "presummary") == [{str(root): ["b", "d/a"]}]
    assert texts(new) == {"d/a": "a"}
    told = person.messages("input", job, "-i", "d/", answer=[[str(new)]])
    assert values(told, "presummary") == [{str(root): ["d/a"]}]
    assert kinds(person.messages("input", job, "-i", f"{root}/d/", answer=[[str(new)]]))[-1] == "summary"
    told = person.messages("input", job, "-i", f"{new}/d/", "--match-paths-by", "job")
    assert kinds(told) == ["title", "summary"]
    assert texts(new) == {"d/a": "a"}
    # The reference matches the place as well, and downloads nothing.
    person.messages("input", job, "-i", f"{root}/b", "--match-paths-by", "JOB", answer=[[str(new)]])
    assert texts(new) == {"d/a": "a", "b": "b"}


def test_roots_that_are_moved_together_keep_all_files(person: Person, renders: Renders) -> None:
    """The reference fails where a path with a folder stands in both, and writes both into one file elsewhere."""
    both = str(person.folder / "both")
    job = inputs(
        renders,
        {
            str(person.folder / "a"): {"f.txt": "of a", "d/x": "a", "only": "o"},
            str(person.folder / "b"): {"f.txt": "of b", "d/x": "b"},
        },
    )
    told = person.messages("input", job, answer=[[both, both]])
    assert texts(Path(both)) == {"f.txt": "of a", "f (1).txt": "of b", "d/x": "a", "d/x (1)": "b", "only": "o"}
    assert max(int(value) for value in values(told, "progress")) <= 100


def test_a_person_edits_a_root_and_chooses_what_happens_to_files(person: Person, renders: Renders) -> None:
    root, new = person.folder / "root", person.folder / "new"
    job = inputs(renders, {str(root): {"a": "a"}})
    new.mkdir()
    (new / "a").write_text("mine")
    out, _ = person.download("input", job, "--output", "verbose", answers=f"0\n{new}\ny\n1\n")
    assert f"[0] {root}" in out and f"[0] {new}" in out and "Skipped 1 file" in out
    assert texts(new) == {"a": "mine"}
    out, _ = person.download("input", job, "--output", "verbose", answers="n\n")
    assert "canceled" in out and not root.exists()
    out, _ = person.download("input", job, "--output", "verbose", answers=f"0\n{new}\n\nn\n")
    assert "canceled" in out and texts(new) == {"a": "mine"}
    person.download("input", job, "--output", "verbose", answers=f"0\n{new}\n\n2\n")
    assert texts(new) == {"a": "a"}
    _, errors = person.download("input", job, "--output", "verbose", answers="", status=64)
    assert "nobody answers" in errors


def test_ctrl_c_at_a_question_ends_it(person: Person, renders: Renders) -> None:
    """The reference goes on asking, and downloads once it is answered."""
    root = person.folder / "root"
    job = inputs(renders, {str(root): {"a": "a"}})
    command = renders.command("deadline", "job", "download-input", "--job-id", job, "--output", "verbose")
    running = subprocess.Popen(
        command,
        env=person.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout and running.stdin
    out = ""
    while not out.endswith("[y]: "):
        out += running.stdout.read(1) or pytest.fail(out)
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 128 + signal.SIGINT
    running.communicate()
    assert not root.exists()


def test_an_input_manifest_that_is_not_the_recorded_one_is_refused(person: Person, renders: Renders) -> None:
    root = person.folder / "root"
    job = inputs(renders, {str(root): {"a": "a"}})
    ids = {"farmId": renders.ids.farm, "queueId": renders.ids.queue}
    (row,) = renders.api.get_job(**ids, jobId=job)["attachments"]["manifests"]
    renders.put_manifest(row["inputManifestPath"], {"evil": "a"}, str(root))
    told = person.messages("input", job, "--yes", status=65)
    assert kinds(told) == ["title", "error"]
    assert "not the one that was recorded" in told[1]["value"]
    assert not root.exists()


def test_manifests_of_output_alone_and_of_another_system(person: Person, renders: Renders) -> None:
    """The reference fails without inputs, and makes a name of a root of Windows that no Windows has."""
    job = renders.submit("Q:\\w\\x", {"a": "a"}, rootPathFormat="windows")
    renders.render()
    for which, count in (("all", 1), ("output", 1), ("input", 0)):
        words = ("manifest", "download", str(person.folder), "--job-id", job.ids["jobId"], "--asset-type", which)
        out, _ = person.run(*renders.command("deadline", *words, "--json"))
        downloaded = json.loads(out)["downloaded"]
        assert [row["manifest_root"] for row in downloaded] == ["Q:\\w\\x"] * count
        for row in downloaded:
            assert Path(row["local_manifest_path"]).name.startswith("Q__w_x-" + root_hash("Q:\\w\\x"))


def test_words_in_a_root_prefix_change_nothing(farm: Any, tmp_path: Path) -> None:
    """The reference looks for task- and step- in the whole key, and then takes what an older attempt left."""
    renders = Renders(farm)
    renders.prefix = f"task-9/step-1/{tmp_path.name}/"
    renders.api.update_queue(
        farmId=renders.ids.farm, queueId=renders.ids.queue,
        jobAttachmentSettings={"s3BucketName": BUCKET, "rootPrefix": renders.prefix},
    )  # fmt: skip
    out = tmp_path / "out"
    job = renders.submit(out, {"a": "old", "b": "old"}, {"c": "c"})
    renders.render()
    renders.outputs[job.ids["jobId"], 0] = {"a": "new"}
    job.update_task(0, "PENDING")
    renders.render()
    person = Person(renders, tmp_path)
    person.messages("output", job.ids["jobId"], "--yes")
    assert texts(out) == {"a": "new", "c": "c"}
