"""deadline manifest and deadline attachment: what they write, store and fetch on a real farm."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from libdeadline.paths import root_hash

TEMPLATE = """
specificationVersion: jobtemplate-2023-09
name: manifests
parameterDefinitions:
- {name: In, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: in}
- {name: Out, type: PATH, objectType: DIRECTORY, dataFlow: OUT, default: out}
steps:
- name: First
  script: {actions: {onRun: {command: bash, args: ["-c", "mkdir -p '{{Param.Out}}'; echo 1 >'{{Param.Out}}/first'"]}}}
- name: Second
  dependencies: [{dependsOn: First}]
  script: {actions: {onRun: {command: bash, args: ["-c", "mkdir -p '{{Param.Out}}'; echo 2 >'{{Param.Out}}/second'"]}}}
"""


class Person:
    """Somebody at the farm with a home and a working folder of their own."""

    def __init__(self, farm: Any, folder: Path) -> None:
        self.folder = folder
        config = folder / "config"
        config.write_text(Path(farm.environment["DEADLINE_CONFIG_FILE_PATH"]).read_text())
        self.environment = {**farm.environment, "HOME": str(folder), "DEADLINE_CONFIG_FILE_PATH": str(config)}

    def run(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout if not status else done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self.run("deadline", *words, "--json"))

    def snapshot(self, *words: str) -> list[str]:
        """The paths in the manifest that a snapshot made of `work`."""
        made = self.json("manifest", "snapshot", "--root", "work", "-d", "kept", *words)
        return [entry["path"] for entry in json.loads(Path(made["manifest"]).read_text())["paths"]]


@pytest.fixture
def person(farm: Any, tmp_path: Path) -> Person:
    work = tmp_path / "work"
    for path in ("a.txt", "sub/b.txt", "sub/deep/c.txt", ".hidden/d.txt"):
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(f"{path} of {tmp_path.name}\n")
    (tmp_path / "kept").mkdir()
    return Person(farm, tmp_path)


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ([], ["a.txt", "sub/b.txt", "sub/deep/c.txt"]),
        (["-e", "sub/*"], ["a.txt", "sub/deep/c.txt"]),
        (["-i", "*"], ["a.txt"]),
        (["-i", "sub/**", "-e", "**/c.txt"], ["sub/b.txt"]),
        (["-i", ".hidden/*"], [".hidden/d.txt"]),
        (["-ie", '{"exclude": ["a.txt"]}'], ["sub/b.txt", "sub/deep/c.txt"]),
        (["-ie", '{"exclude": ["a.txt"]}', "-i", "a.txt"], ["a.txt"]),
    ],
)
def test_globs_choose_what_a_snapshot_holds(person: Person, words: list[str], paths: list[str]) -> None:
    assert person.snapshot(*words) == paths


def test_a_snapshot_is_named_after_its_root_as_typed(person: Person) -> None:
    made = person.json("manifest", "snapshot", "--root", "work")
    assert made["root"] == "work"
    name = Path(made["manifest"])
    assert name.parent == person.folder / "work"
    assert name.name.startswith(f"work-{root_hash('work')}-")
    assert person.run("deadline", "manifest", "snapshot", "--root", "work", "-i", "gone", "--json") == ""
    assert "'nowhere'" in person.run("deadline", "manifest", "snapshot", "--root", "nowhere", status=66)
    # A glob that leads out of the root makes no manifest whose name and root disagree.
    assert "'../*'" in person.run("deadline", "manifest", "snapshot", "--root", "work", "-i", "../*", status=64)


def test_a_root_is_no_glob(person: Person) -> None:
    """The reference takes the root for a part of the glob, and finds nothing."""
    root = person.folder / "shot [1]*"
    root.mkdir()
    (root / "x").write_text("x")
    (root / "y").write_text("y")
    made = person.json("manifest", "snapshot", "--root", root.name, "-d", "kept", "-e", "y")
    assert [entry["path"] for entry in json.loads(Path(made["manifest"]).read_text())["paths"]] == ["x"]


def test_a_file_that_is_gone_is_no_success(person: Person) -> None:
    """The reference passes it over, and notes that it is in the store."""
    made = person.json("manifest", "snapshot", "--root", "work", "-d", "kept")["manifest"]
    (person.folder / "work/sub/b.txt").unlink()
    upload = ["deadline", "attachment", "upload", "-m", made, "-r", "work", "--upload-manifest-path", "gone"]
    assert "sub/b.txt" in person.run(*upload, status=66)
    person.run("dl-download", "--list", "--below=/", f"--manifest=gone/{Path(made).name}", status=66)


def test_files_do_not_go_over_the_manifest_itself(person: Person) -> None:
    made = person.json("manifest", "snapshot", "--root", "work", "-d", ".")["manifest"]
    before = Path(made).read_bytes()
    assert "is a file" in person.run("deadline", "attachment", "download", "-m", made, status=73)
    assert Path(made).read_bytes() == before


def test_what_changed_since_a_snapshot_is_told_and_kept(person: Person) -> None:
    was = person.json("manifest", "snapshot", "--root", "work", "-d", "kept", "-n", "was")["manifest"]
    same = {"new": [], "modified": [], "deleted": []}
    assert person.json("manifest", "diff", "--root", "work", "--manifest", was) == same
    text = person.run("deadline", "manifest", "diff", "--root", "work", "--manifest", was)
    assert text == "Manifest Diff of root directory: work\nNo differences\n"
    b, c = person.folder / "work/sub/b.txt", person.folder / "work/sub/deep/c.txt"
    times = c.stat()
    (person.folder / "work/a.txt").unlink()
    (person.folder / "work/new").write_text("new\n")
    b.write_text("longer than it was before, by far\n")
    c.write_text(c.read_text().upper())
    os.utime(c, ns=(times.st_atime_ns, times.st_mtime_ns))  # neither size nor time tell of it
    changes = {"new": ["new"], "modified": ["sub/b.txt"], "deleted": ["a.txt"]}
    look = ["manifest", "diff", "--root", "work", "--manifest", was]
    assert person.json(*look) == changes
    assert person.json(*look, "--force-rehash") == {**changes, "modified": ["sub/b.txt", "sub/deep/c.txt"]}
    assert person.json(*look, "-e", "sub/**") == {**changes, "modified": []}
    assert person.snapshot("--diff", was) == ["new", "sub/b.txt"]
    assert person.snapshot("--diff", was, "--force-rehash") == ["new", "sub/b.txt", "sub/deep/c.txt"]
    text = person.run("deadline", *look)
    assert text.splitlines() == [
        "Manifest Diff of root directory: work",
        "├──a.txt -",
        "├──new +",
        "└──sub/",
        "     └──b.txt M",
    ]
    # What -n shows does the same where it is pasted.
    shown = person.run("deadline", "-n", *look)
    assert person.run("bash", "-c", shown) == text


def test_files_of_manifests_go_up_and_come_down(person: Person) -> None:
    made = person.json("manifest", "snapshot", "--root", "work", "-d", "kept")["manifest"]
    up = ["attachment", "upload", "-m", made, "-r", "work", "--upload-manifest-path", "by/hand"]
    first, again = person.json(*up), person.json(*up)
    assert (first["total_files"], first["processed_files"], first["skipped_files"]) == (3, 3, 0)
    assert (again["total_files"], again["processed_files"], again["skipped_files"]) == (3, 0, 3)
    assert set(first) == {
        "total_time", "total_files", "total_bytes", "processed_files", "processed_bytes", "skipped_files",
        "skipped_bytes", "transfer_rate",
    }  # fmt: skip
    # Without rules: into a folder of the manifest's name.
    down = person.json("attachment", "download", "-m", made)
    assert (down["processed_files"], down["processed_bytes"]) == (3, first["total_bytes"])
    own = person.folder / Path(made).name
    assert (own / "sub/b.txt").read_text() == (person.folder / "work/sub/b.txt").read_text()
    # With a rule: where that says.
    rules = person.folder / "rules.json"
    rule = {"source_path_format": "posix", "source_path": "work", "destination_path": str(person.folder / "there")}
    rules.write_text(json.dumps({"path_mapping_rules": [rule]}))
    person.json("attachment", "download", "-m", made, "--path-mapping-rules", str(rules))
    assert (person.folder / "there/a.txt").read_text() == (person.folder / "work/a.txt").read_text()
    # The manifest is in the store, byte for byte.
    base = Path(made).name
    rows = person.run("dl-download", "--list", "--below=/", f"--manifest=by/hand/{base}").splitlines()
    stored = json.loads(rows[0])
    assert stored["root"] == str(person.folder / "work")
    assert stored["size"] == Path(made).stat().st_size


@pytest.mark.parametrize(("kind", "root"), [("posix", "/far/away"), ("windows", "P:\\far away")])
def test_a_rule_says_where_the_files_of_a_root_lie(person: Person, kind: str, root: str) -> None:
    made = person.json("manifest", "snapshot", "--root", "work", "-d", "kept")["manifest"]
    renamed = person.folder / f"shot-{root_hash(root)}.manifest"
    Path(made).rename(renamed)
    rules = person.folder / "rules.json"
    there = {"source_path_format": kind, "source_path": root, "destination_path": str(person.folder / "work")}
    rules.write_text(json.dumps([there]))
    words = ["-m", str(renamed), "--path-mapping-rules", str(rules)]
    done = person.json("attachment", "upload", *words, "--upload-manifest-path", f"ruled/{kind}")
    assert (done["total_files"], done["total_bytes"]) == (3, sum(map(len, contents(person.folder / "work").values())))
    # The stored manifest tells of the root, and makes nothing up about a location of a storage profile.
    listed = person.run("dl-download", "--list", f"--manifest=ruled/{kind}/{renamed.name}").splitlines()
    stored = json.loads(listed[0])
    assert (stored["root"], stored["root_path_format"]) == (root, kind)
    assert "file_system_location_name" not in stored
    rules.write_text(json.dumps([{**there, "destination_path": str(person.folder / "there")}]))
    assert person.json("attachment", "download", *words)["processed_files"] == 3
    assert contents(person.folder / "there") == contents(person.folder / "work")
    shutil.copy(renamed, person.folder / f"other-{root_hash(root)}.manifest")
    two = ["-m", f"other-{root_hash(root)}.manifest", *words]
    assert "would both go to" in person.run("deadline", "attachment", "download", *two, status=64)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder that are not hidden."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".hidden" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_store_is_named_by_its_uri_without_a_profile(person: Person) -> None:
    queue = person.run("dl-ls", "--format=json", "queue")
    settings = json.loads(queue)
    settings = (settings[0] if isinstance(settings, list) else settings)["jobAttachmentSettings"]
    uri = f"s3://{settings['s3BucketName']}/another/prefix"
    made = person.json("manifest", "snapshot", "--root", "work", "-d", "kept")["manifest"]
    assert person.json("attachment", "upload", "-m", made, "-r", "work", "--s3-root-uri", uri)["processed_files"] == 3
    fetch = ["attachment", "download", "-m", made, "--s3-root-uri", uri]
    assert person.json(*fetch)["processed_files"] == 3
    # From that store indeed: a neighbour of it has none of the files.
    shutil.rmtree(person.folder / Path(made).name)
    person.run("deadline", "attachment", "download", "-m", made, "--s3-root-uri", uri + "/empty", status=66)
    done = person.json("manifest", "upload", made, "--s3-cas-uri", uri, "--s3-manifest-prefix", "snaps")
    base = Path(made).name
    assert done == {"uploaded": [{"local_manifest_path": made, "s3_manifest_path": f"snaps/{base}"}]}
    listed = person.run("dl-download", "--list", "--below=/", f"--s3-root-uri={uri}", f"--manifest=snaps/{base}")
    assert json.loads(listed.splitlines()[0])["manifest_path"] == f"snaps/{base}"
    assert person.run("deadline", "manifest", "upload", made).startswith("Uploaded manifest ")


def test_a_manifest_of_no_root_that_was_named_is_refused(person: Person) -> None:
    made = person.json("manifest", "snapshot", "--root", "work", "-d", "kept")["manifest"]
    (person.folder / "other").mkdir()
    told = person.run("deadline", "attachment", "upload", "-m", made, "-r", "other", status=64)
    assert "whose files are those of" in told
    assert "give --root-dirs or" in person.run("deadline", "attachment", "upload", "-m", made, status=64)
    (person.folder / "work/a.txt").write_text("changed since\n")
    assert "changed" in person.run("deadline", "attachment", "upload", "-m", made, "-r", "work", status=75)
    person.run("deadline", "manifest", "upload", "work/a.txt", status=65)


@pytest.fixture(scope="module")
def job(farm: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A job of two steps that has run: its id, its root, and its steps by name."""
    folder = tmp_path_factory.mktemp("manifests")
    someone = Person(farm, folder)
    bundle = folder / "bundle"
    (bundle / "in").mkdir(parents=True)
    (bundle / "in/x").write_text("x\n")
    (bundle / "template.yaml").write_text(TEMPLATE)
    submit = "dl-bundle bundle | dl-hash | dl-manifest | dl-upload | dl-submit | dl-wait --timeout 120"
    rows = [json.loads(line) for line in someone.run("bash", "-c", submit).splitlines()]
    job_id = next(row["job_id"] for row in rows if row["type"] == "job")
    listed = [json.loads(line) for line in someone.run("dl-ls", f"--job-id={job_id}", "steps").splitlines()]
    steps = {row["data"]["name"]: row["data"]["stepId"] for row in listed if row["type"] == "resource"}
    return {"id": job_id, "root": str(bundle), "steps": steps}


@pytest.mark.parametrize(
    ("words", "step", "paths"),
    [
        ([], None, ["in/x", "out/first", "out/second"]),
        (["--asset-type", "input"], None, ["in/x"]),
        (["--asset-type", "OUTPUT"], None, ["out/first", "out/second"]),
        (["--asset-type", "output"], "First", ["out/first"]),
        (["--asset-type", "input"], "Second", ["in/x", "out/first"]),
        ([], "First", ["in/x", "out/first"]),
    ],
)
def test_manifests_of_a_job_are_merged(
    person: Person, job: dict[str, Any], words: list[str], step: str | None, paths: list[str]
) -> None:
    scope = ["--step-id", job["steps"][step]] if step else []
    done = person.json("manifest", "download", "kept", "--job-id", job["id"], *scope, *words)
    [downloaded] = done["downloaded"]
    assert downloaded["manifest_root"] == job["root"]
    local = Path(downloaded["local_manifest_path"])
    name = job["root"].replace("/", "_").removeprefix("_")
    assert local.parent == person.folder / "kept"
    assert local.name.startswith(f"{name}-{root_hash(job['root'])}-")
    assert [entry["path"] for entry in json.loads(local.read_text())["paths"]] == paths


def test_a_pipeline_that_is_shown_can_be_pasted(person: Person, job: dict[str, Any]) -> None:
    shown = person.run("deadline", "-n", "manifest", "download", "kept", "--job-id", job["id"], "--json")
    assert [shlex.split(stage)[0] for stage in shown.split(" | ")] == ["dl-download", "dl-manifest", "dl-show"]
    assert json.loads(person.run("bash", "-c", shown))["downloaded"][0]["manifest_root"] == job["root"]
