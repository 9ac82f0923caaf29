"""dl-verify and dl-gc on a real store: what is found, what is deleted, and what never is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from renders import BUCKET, Renders, clients
from simulated_worker import Submitted, step, template
from xxhash import xxh3_128_hexdigest

from libdeadline import store
from libdeadline.command import Arguments, Run, parse


class Place:
    """A store of its own below a root prefix of the farm's bucket."""

    data_key, put_manifest, stored = Renders.data_key, Renders.put_manifest, Renders.keys

    def __init__(self, farm: Any) -> None:
        self.farm, self.prefix = farm, f"care-{uuid4().hex[:8]}"
        self.s3 = clients(farm)["s3"]
        self.uri = f"s3://{BUCKET}/{self.prefix}"

    def put(self, text: str, *, legacy: str | None = None) -> str:
        """Store a content that no manifest names, or under the legacy name of another: its key."""
        key = self.data_key(legacy or text)
        if legacy:
            key = key.removesuffix(".xxh128")
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode())
        return key

    def run(self, *words: str, status: int = 0, **more: Any) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
        """(object records, end record, standard error) of a command."""
        done = self.farm.run(*words, "--s3-root-uri", self.uri, **more)
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return [row for row in rows if row["type"] == "object"], rows[-1], done.stderr


@pytest.fixture
def place(farm: Any) -> Place:
    return Place(farm)


def test_a_damaged_content_is_found_deleted_and_restored(place: Place, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_text("as it should be")
    os.utime(root / "f", ns=(1_700_000_000_000_000_000,) * 2)
    place.put_manifest("any/where/out_output", {"f": "as it should be", "g": "fine"}, str(root))
    place.s3.delete_object(Bucket=BUCKET, Key=place.data_key("as it should be"))
    key = place.put("as it shouldn't", legacy="as it should be")
    (found,), end, _ = place.run("dl-verify", "--repair-list", str(tmp_path / "list"), status=1)
    assert [found["key"], found["status"], found["found_hash"]] == [
        key, "damaged", xxh3_128_hexdigest(b"as it shouldn't"),
    ]  # fmt: skip
    assert [end["contents"], end["read"], end["damaged"], end["entries"]] == [2, 1, 1, 2]
    assert key in place.stored()
    (_, gone), _, _ = place.run("dl-verify", "--delete-damaged", status=1)
    assert [gone["key"], gone["status"]] == [key, "deleted"]
    (missing,), _, _ = place.run("dl-verify", status=1)
    assert [missing["status"], missing["path"], missing["manifest_path"]] == [
        "missing", "f", "any/where/out_output",
    ]  # fmt: skip
    with (tmp_path / "list").open() as repair:
        uploaded = place.farm.run("dl-upload", "--s3-root-uri", place.uri, "--force-s3-check", stdin=repair)
    assert uploaded.returncode == 0, uploaded.stderr
    assert place.run("dl-verify")[1]["read"] == 2


def test_the_files_of_a_submission_are_listed_with_their_roots(farm: Any, tmp_path: Path) -> None:
    """So that they can be stored again from anywhere; manifests of inputs say nothing of it themselves."""
    renders = Renders(farm)
    root, lost = tmp_path / "root", tmp_path / "lost"
    (root / "sub").mkdir(parents=True)
    path = store.input_manifest(renders.ids.farm, renders.ids.queue, str(root))
    renders.put_manifest(path, {"a": "a", "sub/b": "b"}, str(root))
    key = f"{renders.prefix}/Manifests/{path}"
    body = renders.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    renders.s3.put_object(Bucket=BUCKET, Key=key, Body=body)  # without metadata, as submissions store them
    for entry in json.loads(body)["paths"]:
        (root / entry["path"]).write_text(entry["path"][-1])
        os.utime(root / entry["path"], ns=(0, entry["mtime"] * 1000))
    row = {"rootPath": str(root), "rootPathFormat": "posix", "inputManifestPath": path}
    Submitted(
        renders, renders.ids, template(step()), targetTaskRunStatus="SUSPENDED",
        attachments={"manifests": [row], "fileSystem": "COPIED"},
    )  # fmt: skip
    renders.s3.delete_object(Bucket=BUCKET, Key=renders.data_key("b"))
    done = farm.run(*renders.command("dl-verify", "--repair-list", str(lost)))
    assert done.returncode == 1, done.stderr
    rows = [json.loads(line) for line in lost.read_text().splitlines()]
    assert [(row["type"], row.get("root"), row.get("path")) for row in rows[:-1]] == [
        ("root", str(root), None), ("file", str(root), "sub/b"),
    ]  # fmt: skip
    with lost.open() as repair:
        done = farm.run(*renders.command("dl-upload", "--force-s3-check"), stdin=repair, cwd="/")
    assert done.returncode == 0, done.stderr
    done = farm.run(*renders.command("dl-verify"))
    assert done.returncode == 0, done.stdout


def test_a_size_that_differs_and_a_manifest_that_is_none_are_told(place: Place) -> None:
    from libdeadline import manifest

    key = place.put("content")
    rows = [manifest.Entry("f", xxh3_128_hexdigest(b"content"), 99, 0)]
    place.s3.put_object(Bucket=BUCKET, Key=f"{place.prefix}/Manifests/m", Body=manifest.encode(rows))
    place.s3.put_object(Bucket=BUCKET, Key=f"{place.prefix}/Manifests/odd", Body=b"[]")
    place.s3.put_object(Bucket=BUCKET, Key=f"{place.prefix}/Data/read me.txt", Body=b"hello")
    (wrong, odd), end, said = place.run("dl-verify", status=1)
    assert [wrong["key"], wrong["status"], wrong["size"], wrong["expected_size"]] == [key, "wrong_size", 7, 99]
    assert [odd["status"], "not an asset manifest" in odd["reason"]] == ["unreadable", True]
    assert end["foreign"] == 1
    assert "read me.txt" in said


def test_a_content_that_is_listed_and_lost_is_missing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes between the listing and the reading matters to who needs it, and to nobody else."""
    from dl_tools import dl_verify

    place.put_manifest("m", {"f": "lost", "g": "fine"}, "/r")
    place.put("of nobody")
    read = dl_verify.Audit._read

    def lose(audit: Any, item: Any) -> Any:
        if item[0].key in (place.data_key("lost"), place.data_key("of nobody")):
            place.s3.delete_object(Bucket=BUCKET, Key=item[0].key)
        return read(audit, item)

    monkeypatch.setattr(dl_verify.Audit, "_read", lose)
    for name, value in place.farm.environment.items():
        monkeypatch.setenv(name, value)
    run = Run("dl-verify", "warning", "none")
    audit = dl_verify.Audit(parse(dl_verify.__doc__ or "", ["--s3-root-uri", place.uri]), run)
    (missing,) = audit.records()
    assert [missing["status"], missing["path"], missing["key"]] == ["missing", "f", place.data_key("lost")]
    assert [run.counts[name] for name in ("contents", "read", "gone", "missing")] == [3, 1, 2, 1]
    assert audit.is_amiss


def test_a_sample_reads_a_part_and_all_manifests(place: Place) -> None:
    place.put_manifest("m", {f"f{number}": f"text {number}" for number in range(60)}, "/r")
    _, end, _ = place.run("dl-verify", "--sample", "50%")
    assert [end["contents"], end["entries"]] == [60, 60]
    assert 10 < end["read"] < 50
    assert "read" not in place.run("dl-verify", "--sample", "0")[1]


def test_only_what_no_manifest_of_any_farm_names_is_deleted(place: Place) -> None:
    place.put_manifest("farm-1/queue-1/Inputs/x/a_input", {"a": "kept by one"}, "/r")
    place.put_manifest("farm-2/queue-9/job/step/out_output", {"b": "kept by another", "a": "kept by one"}, "/r")
    other = [f"{place.prefix}/JobBundles/x.ojd", f"{place.prefix}/Data/notes", f"{place.prefix}-else/Data/{'0' * 32}"]
    for key in other:
        place.s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    orphans = {place.put("orphan"), place.put("very old", legacy="very old")}
    before = place.stored("")
    found, _, _ = place.run("dl-gc", "--grace", "0")
    assert {row["key"] for row in found} == orphans
    assert place.stored("") == before
    found, end, _ = place.run("dl-gc", "--grace", "0", "--delete")
    assert {row["key"]: row["status"] for row in found} == dict.fromkeys(orphans, "deleted")
    assert [end["deleted"], end["deleted_bytes"], end["reached"], end["foreign"]] == [2, 14, 2, 1]
    assert place.stored("") == before - orphans
    place.s3.head_object(Bucket=BUCKET, Key=other[2])
    place.run("dl-verify")


def test_unfinished_uploads_are_aborted(place: Place) -> None:
    key = place.data_key("a large one")
    begun = place.s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    place.s3.upload_part(Bucket=BUCKET, Key=key, UploadId=begun, PartNumber=1, Body=b"part")
    assert place.run("dl-gc", "--uploads")[1]["young_uploads"] == 1
    (found,), _, _ = place.run("dl-gc", "--uploads", "--grace", "0")
    assert [found["status"], found["upload_id"], found["key"]] == ["unfinished", begun, key]
    (found,), _, _ = place.run("dl-gc", "--uploads", "--grace", "0", "--delete")
    assert found["status"] == "aborted"
    uploads = place.s3.list_multipart_uploads(Bucket=BUCKET, Prefix=place.prefix)
    assert not uploads.get("Uploads")


class Swept(SimpleNamespace):
    rows: list[Any]
    lost: bool


def sweep(place: Place, monkeypatch: pytest.MonkeyPatch, **hooks: Any) -> Swept:
    """Run dl-gc --delete --grace 0 in this process, and have something happen at its critical moments."""
    from dl_tools import dl_gc

    from libdeadline.s3 import S3

    for name, value in place.farm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dl_gc, "BATCH", 2)
    listed, deleted = dl_gc.Sweep._old_contents, S3.delete_many

    def old_contents(self: Any) -> Iterator[Any]:
        rows = list(listed(self))
        hooks.get("after_listing", lambda: None)()
        yield from rows

    def delete_many(self: Any, keys: list[str]) -> dict[str, str]:
        refused = deleted(self, keys)
        hooks.get("after_deleting", lambda: None)()
        return refused

    monkeypatch.setattr(dl_gc.Sweep, "_old_contents", old_contents)
    monkeypatch.setattr(S3, "delete_many", delete_many)
    options = ("--delete", "--uploads", "--farm-id", "--queue-id", "--profile", "--region", "--retry-for", "--stall")
    args = Arguments({**dict.fromkeys(options), "--delete": True, "--grace": "0", "--s3-root-uri": place.uri})
    each = dl_gc.Sweep(args, Run("dl-gc", "error", "none"))
    rows = list(each.records())
    return Swept(rows=[(row["status"], row["key"]) for row in rows], lost=each.is_lost)


def test_what_a_submission_takes_up_meanwhile_is_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from libdeadline import manifest

    keys = {text: place.put(text) for text in ("one", "two", "three", "four", "five")}

    def submit() -> None:
        time.sleep(1.1)  # Last-Modified has no more than seconds
        place.put("two")  # stored again; its manifest is yet to come
        rows = [manifest.Entry("f", xxh3_128_hexdigest(b"three"), 5, 0)]
        place.s3.put_object(Bucket=BUCKET, Key=f"{place.prefix}/Manifests/new", Body=manifest.encode(rows))

    swept = sweep(place, monkeypatch, after_listing=submit)
    told = {row for row in swept.rows if row[1] != keys["three"]}  # which is told of only where it was in hand
    assert told == {("deleted", keys[each]) for each in ("one", "four", "five")} | {("kept", keys["two"])}
    assert not swept.lost
    assert place.stored() == {keys["two"], keys["three"]}


def test_what_was_deleted_and_is_needed_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from libdeadline import manifest

    key = place.put("needed")

    def submit() -> None:
        rows = [manifest.Entry("f", xxh3_128_hexdigest(b"needed"), 6, 0)]
        place.s3.put_object(Bucket=BUCKET, Key=f"{place.prefix}/Manifests/late", Body=manifest.encode(rows))

    swept = sweep(place, monkeypatch, after_deleting=submit)
    assert swept.rows == [("deleted", key), ("missing", key)]
    assert swept.lost
