"""dl-upload and dl-download as commands, against a server that fails and files that change."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_s3 import Bucket, Keys, Request, records, tree
from transfer_shell import Shell
from trees import LARGE, URI, assert_true_to_keys, hashed, large_file, make_tree, manifest_of, wait_for
from xxhash import xxh3_128_hexdigest

QUICK = ("--retry-for=20", "--stall=1")


KINDS = ("500", "503", "slower", "409", "close", "drop", "cut", "corrupt", "stall", "spoil", "after", "page", "garbage",
         "late")  # fmt: skip
PAGE = ("answer", 200, b"<html>sign in</html>", {})


def mayhem(seed: int, share: float, spoil: bool = False) -> Any:
    """A plan by which a share of all requests fails, in every way; with `spoil` content is damaged going up, too."""
    dice = random.Random(seed)
    lock = threading.Lock()

    def plan(request: Request) -> tuple[Any, ...] | None:
        with lock:
            if dice.random() >= share:
                return None
            kind = dice.choice(KINDS)
            amount = dice.randrange(1, 200_000)
        return {
            "500": ("status", 500, "InternalError", "oops"),
            "503": ("status", 503, "SlowDown", "slower"),
            "slower": ("answer", 503, b"<Error><Code>SlowDown</Code></Error>", {"Retry-After": "1"}),
            "409": ("status", 409, "ConditionalRequestConflict", "") if request.method == "PUT" else None,
            "spoil": ("spoil",) if spoil and request.method == "PUT" else None,
            "after": ("after",),
            "page": PAGE,
            "garbage": ("raw", b"HTTP/1.1 2"),
            "late": ("late", 0.2),
            "close": ("close",),
            "drop": ("drop", amount),
            "cut": ("cut", amount),
            "corrupt": ("corrupt",) if request.method == "GET" and "/Data/" in request.key else None,
            "stall": ("stall", 1.5) if amount < 20_000 else None,
        }[kind]

    return plan


@pytest.mark.parametrize("seed", [1, 2])
def test_there_and_back_through_mayhem(bucket: Bucket, shell: Shell, tmp_path: Path, seed: int) -> None:
    source = tmp_path / "source"
    if seed == 2:
        large_file(source)
    files = {**make_tree(source, seed=seed), **tree(source)}
    bucket.plan = mayhem(seed, 0.2, spoil=bucket.check)
    up = shell.run(bucket, "dl-upload", URI, *QUICK, text=hashed(source))
    assert up.returncode == 0, up.stderr
    assert_true_to_keys(bucket)
    assert {xxh3_128_hexdigest(each) for each in files.values()} == {key[7:39] for key in bucket.objects}
    end = records(up.stdout)[-1]
    assert 0 < end["new"] <= len(bucket.objects)  # one whose answer was lost counts as present
    assert end["new"] + end["present"] == len(files)
    paths = [row["path"] for row in records(up.stdout) if row["type"] == "file"]
    assert paths == sorted(files)
    bucket.plan = mayhem(seed + 10, 0.2)
    manifest = manifest_of(source, tmp_path / "m")
    target = tmp_path / "target"
    down = shell.run(bucket, "dl-download", URI, *QUICK, f"--manifest={manifest}", f"--to={target}")
    assert down.returncode == 0, down.stderr
    assert tree(target) == files
    for name in files:
        assert (target / name).stat().st_mtime_ns // 1000 == (source / name).stat().st_mtime_ns // 1000


def test_each_content_is_sent_once_and_not_again(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    files = make_tree(source)
    stream = hashed(source)
    assert shell.run(one_bucket, "dl-upload", URI, text=stream).returncode == 0
    distinct = len({xxh3_128_hexdigest(each) for each in files.values()})
    assert one_bucket.count("PUT") == distinct
    one_bucket.requests.clear()
    again = shell.run(one_bucket, "dl-upload", URI, text=stream)
    assert {row["upload"] for row in records(again.stdout) if row["type"] == "file"} == {"present"}
    assert 0 < len(one_bucket.requests) < distinct  # the check cache was believed, but not blindly
    one_bucket.requests.clear()
    asked = shell.run(one_bucket, "dl-upload", URI, "--force-s3-check", text=stream)
    assert asked.returncode == 0
    assert one_bucket.count("HEAD") == distinct
    assert one_bucket.count("PUT") == 0


def test_a_check_cache_that_lies_is_found_out(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    stream = hashed(source)
    assert shell.run(one_bucket, "dl-upload", URI, text=stream).returncode == 0
    stored = dict(one_bucket.objects)
    one_bucket.objects.clear()
    again = shell.run(one_bucket, "dl-upload", URI, text=stream)
    assert again.returncode == 0, again.stderr
    assert one_bucket.objects.keys() == stored.keys()


def test_a_cache_that_is_no_database_does_no_harm(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    make_tree(tmp_path / "source", 5)
    cache = shell.home / ".deadline" / "cache"
    cache.mkdir(parents=True)
    (cache / "stored.sqlite").write_bytes(b"this is no database" * 1000)
    done = shell.run(one_bucket, "dl-upload", URI, text=hashed(tmp_path / "source"))
    assert done.returncode == 0, done.stderr


def test_many_contents_are_looked_for_by_listing(shell: Shell, tmp_path: Path) -> None:
    with Bucket(page=1000) as bucket:
        for index in range(3000):
            content = f"old {index}".encode()
            bucket.put(f"p/Data/{xxh3_128_hexdigest(content)}.xxh128", content)
        source = tmp_path / "source"
        source.mkdir()
        for index in range(2900, 3500):
            (source / f"{index:05}").write_bytes(f"old {index}".encode())
        done = shell.run(bucket, "dl-upload", URI, "--jobs=2", text=hashed(source))
        assert done.returncode == 0, done.stderr
        outcomes = [row["upload"] for row in records(done.stdout) if row["type"] == "file"]
        assert outcomes == ["present"] * 100 + ["new"] * 500
        assert bucket.count("GET", **{"list-type": "2"}) >= 3
        assert bucket.count("HEAD") < 600
        assert_true_to_keys(bucket)


def test_a_listing_that_is_refused_is_done_without(shell: Shell, tmp_path: Path) -> None:
    with Bucket() as bucket:
        bucket.plan = lambda request: None if request.key else ("status", 403, "AccessDenied", "no listing")
        source = tmp_path / "source"
        make_tree(source, 200)
        done = shell.run(bucket, "dl-upload", URI, text=hashed(source))
        assert done.returncode == 0, done.stderr
        assert_true_to_keys(bucket)


def test_an_object_of_the_wrong_size_is_replaced(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"right")
    key = f"p/Data/{xxh3_128_hexdigest(b'right')}.xxh128"
    one_bucket.put(key, b"")
    done = shell.run(one_bucket, "dl-upload", URI, text=hashed(source))
    assert done.returncode == 0
    assert one_bucket.objects[key].data == b"right"


@pytest.mark.parametrize("size", [10, 200_000, LARGE], ids=["small", "medium", "large"])
@pytest.mark.parametrize("change", ["rewritten", "grown", "shrunk", "deleted", "folder"])
def test_a_file_that_changed_is_reported_and_not_stored(
    bucket: Bucket, shell: Shell, tmp_path: Path, size: int, change: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good").write_bytes(b"good")
    bad = source / "bad"
    bad.write_bytes(b"x" * size)
    stream = hashed(source)
    if change == "rewritten":
        about = bad.stat()
        with open(bad, "r+b") as file:
            file.seek(size // 2)
            file.write(b"y")
        os.utime(bad, ns=(about.st_atime_ns, about.st_mtime_ns))
    elif change == "grown":
        with open(bad, "ab") as file:
            file.write(b"y")
    elif change == "shrunk":
        os.truncate(bad, size - 1)
    else:
        bad.unlink()
        if change == "folder":
            bad.mkdir()
    done = shell.run(bucket, "dl-upload", URI, text=stream)
    assert done.returncode in (66, 75), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "bad" in done.stderr
    end = records(done.stdout)[-1]
    assert end["ok"] is False and end["new"] == 1 and end["failed"] == 1
    assert [found.data for found in bucket.objects.values()] == [b"good"]
    assert not bucket.uploads


def test_the_twin_of_a_changed_file_is_stored(bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"twin")
    (source / "b").write_bytes(b"twin")
    stream = hashed(source)
    (source / "a").write_bytes(b"else")
    done = shell.run(bucket, "dl-upload", URI, text=stream)
    assert done.returncode == 75
    assert [found.data for found in bucket.objects.values()] == [b"twin"]


def test_manifests_come_last_and_only_when_all_is_well(bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source, 20)
    manifest = manifest_of(source, tmp_path / "m")
    row = {"type": "manifest", "root": str(source), "root_path_format": "posix", "path": str(manifest)}
    lines = hashed(source).splitlines(keepends=True)
    ids = ("--farm-id=farm-1", "--queue-id=queue-2")

    def stream(*, end: str) -> str:
        # The manifest first: it must still be stored last.
        return json.dumps(row) + "\n" + "".join(lines[:-1]) + end

    cut = shell.run(bucket, "dl-upload", URI, *ids, text=stream(end=""))
    assert cut.returncode == 65
    failed = shell.run(bucket, "dl-upload", URI, *ids, text=stream(end='{"type":"end","tool":"x","ok":false}\n'))
    assert failed.returncode == 65
    assert not [key for key in bucket.objects if "Manifests" in key]
    bucket.requests.clear()
    done = shell.run(bucket, "dl-upload", URI, *ids, text=stream(end=lines[-1]))
    assert done.returncode == 0, done.stderr
    last = [each for each in bucket.requests if each.method == "PUT"][-1]
    name = xxh3_128_hexdigest(str(source).encode())
    assert last.method == "PUT" and last.key.startswith("p/Manifests/farm-1/queue-2/Inputs/")
    assert last.key.endswith(f"/{name}_input")
    assert bucket.objects[last.key].data == manifest.read_bytes()
    out = [each for each in records(done.stdout) if each["type"] == "manifest"][0]
    assert f"p/Manifests/{out['manifest_path']}" == last.key
    assert out["hash"] == xxh3_128_hexdigest(manifest.read_bytes())


def test_output_manifests_have_their_key_and_metadata(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"a")
    manifest = manifest_of(source, tmp_path / "m")
    for root, location in (("/proj", None), ("/pröj", "Loc")):
        row = {"type": "manifest", "root": root, "path": str(manifest)}
        if location:
            row["file_system_location_name"] = location
        text = json.dumps(row) + '\n{"type":"end","tool":"x","ok":true}\n'
        done = shell.run(
            one_bucket, "dl-upload", URI, "--farm-id=f", "--queue-id=q", "--output", "--job-id=j", "--step-id=s",
            "--task-id=t", "--session-action-id=sa-1", "--session-action-start-time=1700000000.1", text=text,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        name = xxh3_128_hexdigest(((location or "") + root).encode())
        key = f"p/Manifests/f/q/j/s/t/2023-11-14T22:13:20.099999Z_sa-1/{name}_output"
        metadata = one_bucket.objects[key].metadata
        if location:
            assert metadata == {
                "asset-root": '"/pr\\u00f6j"', "asset-root-json": '"/pr\\u00f6j"', "file-system-location-name": "Loc",
            }  # fmt: skip
        else:
            assert metadata == {"asset-root": "/proj"}


def test_a_killed_upload_goes_on_with_its_parts(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    path = large_file(source)
    stream = hashed(source)
    stored = threading.Event()

    def plan(request: Request) -> tuple[Any, ...] | None:
        if request.query.get("partNumber") == "5":
            stored.wait(10)
            return ("stall", 30)
        return None

    one_bucket.plan = plan
    process = shell.start(one_bucket, "dl-upload", URI, stdin=-1)
    assert process.stdin is not None
    process.stdin.write(stream)
    process.stdin.close()
    journals = shell.home / ".deadline" / "cache" / "uploads"
    wait_for(lambda: journals.is_dir() and [each for each in journals.iterdir() if each.read_text().count("\n") == 7])
    stored.set()
    process.kill()
    process.wait()
    one_bucket.plan = lambda request: None
    one_bucket.requests.clear()
    done = shell.run(one_bucket, "dl-upload", URI, text=stream)
    assert done.returncode == 0, done.stderr
    sent = [each.query["partNumber"] for each in one_bucket.requests if "partNumber" in each.query]
    assert sent == ["5"]
    assert one_bucket.objects[f"p/Data/{xxh3_128_hexdigest(path.read_bytes())}.xxh128"].data == path.read_bytes()
    assert not one_bucket.uploads
    assert not list(journals.iterdir())


def test_a_failed_upload_goes_on_with_its_parts(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    path = large_file(source)
    (source / "small").write_bytes(b"small")
    journals = shell.home / ".deadline" / "cache" / "uploads"

    def plan(request: Request) -> tuple[Any, ...] | None:
        if request.method == "PUT" and "partNumber" not in request.query:
            # Another file fails for good while the large one is on its way.
            wait_for(lambda: [each for each in journals.iterdir() if each.read_text().count("\n") == 7])
            return ("status", 403, "AccessDenied", "")
        return ("stall", 30) if request.query.get("partNumber") == "5" else None

    one_bucket.plan = plan
    assert shell.run(one_bucket, "dl-upload", URI, text=hashed(source, "large", "small")).returncode == 77
    one_bucket.plan = lambda request: None
    one_bucket.requests.clear()
    assert shell.run(one_bucket, "dl-upload", URI, text=hashed(source)).returncode == 0
    assert [each.query["partNumber"] for each in one_bucket.requests if "partNumber" in each.query] == ["5"]
    assert path.read_bytes() in [found.data for found in one_bucket.objects.values()]


def test_a_journal_of_what_is_stored_by_now_goes(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    path = large_file(source)
    one_bucket.plan = lambda request: ("status", 403, "AccessDenied", "") if "partNumber" in request.query else None
    assert shell.run(one_bucket, "dl-upload", URI, text=hashed(source)).returncode == 77
    one_bucket.plan = lambda request: None
    one_bucket.put(f"p/Data/{xxh3_128_hexdigest(path.read_bytes())}.xxh128", path.read_bytes())
    done = shell.run(one_bucket, "dl-upload", URI, text=hashed(source))
    assert [row["upload"] for row in records(done.stdout) if row["type"] == "file"] == ["present"]
    assert not one_bucket.uploads
    assert not list((shell.home / ".deadline" / "cache" / "uploads").iterdir())


def test_an_upload_that_was_cleared_away_starts_anew(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    path = large_file(source)
    stream = hashed(source)
    one_bucket.plan = lambda request: ("status", 403, "AccessDenied", "") if "partNumber" in request.query else None
    assert shell.run(one_bucket, "dl-upload", URI, text=stream).returncode == 77
    one_bucket.plan = lambda request: None
    one_bucket.uploads.clear()
    done = shell.run(one_bucket, "dl-upload", URI, text=stream)
    assert done.returncode == 0, done.stderr
    assert [found.data for found in one_bucket.objects.values()] == [path.read_bytes()]


def test_what_nobody_came_back_for_is_cleared_away(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    path = large_file(source)
    stream = hashed(source)
    one_bucket.plan = lambda request: ("status", 403, "AccessDenied", "") if "partNumber" in request.query else None
    assert shell.run(one_bucket, "dl-upload", URI, text=stream).returncode == 77
    (journal,) = (shell.home / ".deadline" / "cache" / "uploads").iterdir()
    os.utime(journal, (0, 0))
    one_bucket.plan = lambda request: None
    path.write_bytes(path.read_bytes()[::-1])  # another content, so another upload
    assert len(one_bucket.uploads) == 1
    assert shell.run(one_bucket, "dl-upload", URI, text=hashed(source)).returncode == 0
    assert not one_bucket.uploads and not journal.exists()


def test_a_stopped_upload_is_aborted(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    large_file(source)
    reached = threading.Event()

    def plan(request: Request) -> tuple[Any, ...] | None:
        if "partNumber" in request.query:
            reached.set()
            return ("stall", 30)
        return None

    one_bucket.plan = plan
    process = shell.start(one_bucket, "dl-upload", URI, stdin=-1)
    assert process.stdin is not None
    process.stdin.write(hashed(source))
    process.stdin.close()
    assert reached.wait(10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 128 + signal.SIGTERM
    assert process.stdout is not None
    assert records(process.stdout.read())[-1]["ok"] is False
    assert not one_bucket.uploads
    assert not one_bucket.objects


def test_a_content_that_is_wrong_in_the_store_is_never_put_in_place(
    one_bucket: Bucket, shell: Shell, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name, content in (("a", b"right"), ("b", b"also right")):
        (source / name).write_bytes(content)
        one_bucket.put(f"p/Data/{xxh3_128_hexdigest(content)}.xxh128", content)
    wrong = f"p/Data/{xxh3_128_hexdigest(b'right')}.xxh128"
    manifest = manifest_of(source, tmp_path / "m")
    for content in (b"wrong", b"wrong and longer", b""):
        one_bucket.put(wrong, content)
        done = shell.run(one_bucket, "dl-download", URI, f"--manifest={manifest}", f"--to={target}")
        assert done.returncode == 65
        assert len(done.stderr.splitlines()) == 1
        assert tree(target) == {"b": b"also right"}
    del one_bucket.objects[wrong]
    gone = shell.run(one_bucket, "dl-download", URI, f"--manifest={manifest}", f"--to={target}")
    assert gone.returncode == 66
    one_bucket.put(wrong.removesuffix(".xxh128"), b"right")  # as very early submitters named it
    legacy = shell.run(one_bucket, "dl-download", URI, f"--manifest={manifest}", f"--to={target}")
    assert legacy.returncode == 0, legacy.stderr
    assert tree(target) == {"a": b"right", "b": b"also right"}


def test_a_killed_download_leaves_nothing_behind_after_the_next(
    one_bucket: Bucket, shell: Shell, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    large_file(source)
    files = {**make_tree(source, 40), **tree(source)}
    for content in files.values():
        one_bucket.put(f"p/Data/{xxh3_128_hexdigest(content)}.xxh128", content)
    manifest = manifest_of(source, tmp_path / "m")
    words = ("dl-download", URI, f"--manifest={manifest}", f"--to={target}")
    dice = random.Random(3)
    for _ in range(6):
        reached = threading.Event()
        left = [dice.randrange(1, 30)]

        def plan(request: Request, left: list[int] = left, reached: threading.Event = reached) -> Any:
            left[0] -= 1
            if left[0] > 0:
                return None
            reached.set()
            return ("stall", 5)

        one_bucket.plan = plan
        process = shell.start(one_bucket, *words)
        wait_for(lambda reached=reached, process=process: reached.is_set() or process.poll() is not None)
        process.kill()
        process.wait()
        for name, content in tree(target).items():
            assert name.rpartition("/")[2].startswith(".dl-") or content == files[name]
    one_bucket.plan = lambda request: None
    done = shell.run(one_bucket, *words)
    assert done.returncode == 0, done.stderr
    assert tree(target) == files


def test_a_large_download_goes_on_where_it_was_killed(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    path = large_file(source)
    content = path.read_bytes()
    one_bucket.put(f"p/Data/{xxh3_128_hexdigest(content)}.xxh128", content)
    manifest = manifest_of(source, tmp_path / "m")
    words = ("dl-download", URI, f"--manifest={manifest}", f"--to={target}")
    reached = threading.Event()

    def plan(request: Request) -> tuple[Any, ...] | None:
        if "range" in request.headers:
            reached.set()
            return ("stall", 5)
        return ("cut", 32 << 20 | 5)

    one_bucket.plan = plan
    process = shell.start(one_bucket, *words)
    assert reached.wait(10)
    process.kill()
    process.wait()
    one_bucket.plan = lambda request: None
    one_bucket.requests.clear()
    done = shell.run(one_bucket, *words)
    assert done.returncode == 0, done.stderr
    assert [each.headers.get("range") for each in one_bucket.requests] == [f"bytes={32 << 20 | 5}-"]
    assert tree(target) == {"large": content}


def test_a_stopped_download_removes_its_temporaries(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(source, 10)
    for content in tree(source).values():
        one_bucket.put(f"p/Data/{xxh3_128_hexdigest(content)}.xxh128", content)
    manifest = manifest_of(source, tmp_path / "m")
    reached = threading.Event()

    def plan(request: Request) -> tuple[Any, ...]:
        reached.set()
        return ("stall", 30)

    one_bucket.plan = plan
    process = shell.start(one_bucket, "dl-download", URI, f"--manifest={manifest}", f"--to={target}")
    assert reached.wait(10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 128 + signal.SIGTERM
    assert not [name for name in tree(target) if ".dl-" in name]


def test_a_refusal_stops_everything_with_one_line(bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    make_tree(tmp_path / "source", 40)
    bucket.plan = lambda request: ("status", 403, "AccessDenied", "no")
    done = shell.run(bucket, "dl-upload", URI, text=hashed(tmp_path / "source"))
    assert done.returncode == 77
    assert len(done.stderr.splitlines()) == 1
    assert records(done.stdout)[-1]["ok"] is False


def test_credentials_that_expire_midway_are_reported(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    make_tree(tmp_path / "source", 40)
    environment = shell.environment(one_bucket)

    def plan(request: Request) -> None:
        if one_bucket.count("PUT") > 5:
            one_bucket.keys[:] = [Keys("AKIAOTHER")]

    one_bucket.plan = plan
    shell.environment = lambda bucket: environment  # type: ignore[method-assign]
    done = shell.run(one_bucket, "dl-upload", URI, text=hashed(tmp_path / "source"))
    assert done.returncode == 77
    assert "expired" in done.stderr
    assert_true_to_keys(one_bucket)


GOOD = {"path": "a", "hash": xxh3_128_hexdigest(b"x"), "mtime": 0, "size": 1}
HOSTILE = {
    **{ascii(path): {"path": path} for path in ("../up", "a/../../up", "/etc/up", "//s/up", "a//b", "./a", "a/.", "a/",
                                                "", ".", "..", "/", "a\0b", "\ud800", "/".join("a" * 40_000))},
    "negative": {"size": -1},
    "beyond all sizes": {"size": 10**30},
    "beyond all times": {"mtime": -(10**30)},
    "a fraction": {"size": 1.0},
    "no number": {"size": float("nan")},
    "no hash": {"hash": "../../up"},
    "a list": {"path": ["a"]},
}  # fmt: skip


@pytest.mark.parametrize("changed", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_entry_is_refused_before_anything_is_written(
    one_bucket: Bucket, shell: Shell, tmp_path: Path, changed: dict[str, Any]
) -> None:
    one_bucket.put(f"p/Data/{GOOD['hash']}.xxh128", b"x")
    entries = [{**GOOD, "path": "good"}, {**GOOD, **changed}]
    document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": entries, "totalSize": 2}
    (tmp_path / "m").write_text(json.dumps(document))
    done = shell.run(one_bucket, "dl-download", URI, f"--manifest={tmp_path / 'm'}", f"--to={tmp_path / 'deep' / 'to'}")
    assert done.returncode == 65
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
    assert len(done.stderr) < 2000 and done.stderr.rstrip("\n").isprintable()
    assert records(done.stdout)[-1]["ok"] is False
    assert not (tmp_path / "deep").exists() and not (tmp_path / "up").exists()


def test_a_sum_that_is_wrong_is_not_believed(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    one_bucket.put(f"p/Data/{GOOD['hash']}.xxh128", b"x")
    document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": [GOOD], "totalSize": 10**17}
    (tmp_path / "m").write_text(json.dumps(document))
    words = (URI, "--progress=json", f"--manifest={tmp_path / 'm'}", f"--to={tmp_path / 'to'}")
    done = shell.run(one_bucket, "dl-download", *words)
    assert done.returncode == 0, done.stderr
    assert [row["total_bytes"] for row in records(done.stderr)][-1] == 1


def test_a_path_deeper_than_any_call_takes_is_written(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    one_bucket.put(f"p/Data/{GOOD['hash']}.xxh128", b"x")
    entries = [{**GOOD, "path": "/".join([letter * 9] * 1100)} for letter in "ab"]
    document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": entries, "totalSize": 2}
    (tmp_path / "m").write_text(json.dumps(document))
    done = shell.run(one_bucket, "dl-download", URI, f"--manifest={tmp_path / 'm'}", f"--to={tmp_path / 'to'}")
    assert done.returncode == 0, done.stderr
    found = subprocess.run(["find", ".", "-type", "f", "-printf", "%d %s\n"], cwd=tmp_path / "to", capture_output=True)
    assert found.stdout == b"1100 1\n" * 2
    subprocess.run(["rm", "-rf", tmp_path / "to"], check=True)


def test_more_than_the_disk_holds_is_refused(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    entry = {"hash": "0" * 32, "mtime": 0, "size": 10**17, "path": "huge"}
    document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": [entry], "totalSize": 10**17}
    (tmp_path / "m").write_text(json.dumps(document))
    done = shell.run(one_bucket, "dl-download", URI, f"--manifest={tmp_path / 'm'}", f"--to={tmp_path / 'to'}")
    assert done.returncode == 73
    assert "not enough space" in done.stderr
    assert not (tmp_path / "to").exists()


def test_odd_names_and_times_come_back(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    names = [
        "n" * 255,
        "trailing.",
        "trailing ",
        "con",
        "a:b",
        "é",
        "e\u0301",
        "\U0001f600",
        "-rf",
        "\udcff",
        "a\\b",
        ".dl-x",
    ]
    entry = {"hash": xxh3_128_hexdigest(b"x"), "size": 1}
    one_bucket.put(f"p/Data/{entry['hash']}.xxh128", b"x")
    times = [0, 1, -1_000_001, 1_704_164_645_123_456]
    entries = [{**entry, "path": name, "mtime": times[index % 4]} for index, name in enumerate(names)]
    document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": entries, "totalSize": 2}
    (tmp_path / "m").write_text(json.dumps(document))
    done = shell.run(one_bucket, "dl-download", URI, f"--manifest={tmp_path / 'm'}", f"--to={tmp_path / 'to'}")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "to")) == sorted(names)
    for each in entries:
        assert os.stat(tmp_path / "to" / each["path"]).st_mtime_ns == each["mtime"] * 1000


def test_a_link_put_in_the_way_leads_nowhere(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    """Someone swaps folders for links, again and again, while files are put below them."""
    source, target, outside = tmp_path / "source", tmp_path / "target", tmp_path / "outside"
    outside.mkdir()
    target.mkdir()
    folders = [f"d{number}" for number in range(60)]
    for name in folders:
        (source / name).mkdir(parents=True)
        for index in range(4):
            (source / name / str(index)).write_bytes(f"{name} {index}".encode())
    for content in tree(source).values():
        one_bucket.put(f"p/Data/{xxh3_128_hexdigest(content)}.xxh128", content)
    over, swapped = threading.Event(), threading.Event()

    def swap() -> None:
        while not over.is_set():
            for name in folders:
                place = target / name
                with contextlib.suppress(OSError):
                    if not place.is_symlink() and place.exists():
                        os.rename(place, target / f"old-{time.monotonic_ns()}")
                        swapped.set()
                    os.symlink(outside, place)
                    os.unlink(place)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        shell.run(one_bucket, "dl-download", URI, f"--manifest={manifest_of(source, tmp_path / 'm')}", f"--to={target}")
    finally:
        over.set()
        thread.join()
    assert swapped.is_set()
    assert not os.listdir(outside)


def test_progress_never_passes_its_total(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    large_file(source)
    make_tree(source, 40)
    one_bucket.plan = mayhem(4, 0.1)
    manifest = manifest_of(source, tmp_path / "m")
    for words in (
        ("dl-upload", URI, *QUICK, "--progress=json", "--limit-rate=60M"),
        (
            "dl-download",
            URI,
            *QUICK,
            "--progress=json",
            "--limit-rate=25M",
            f"--manifest={manifest}",
            f"--to={tmp_path / 'to'}",
        ),
    ):
        done = shell.run(one_bucket, *words, text=hashed(source))
        assert done.returncode == 0, done.stderr
        seen = [row for row in records(done.stderr) if row["type"] == "progress"]
        assert len(seen) > 2
        for row in seen:
            assert row["done_bytes"] <= row["total_bytes"] and row["done_count"] <= row["total_count"]
        sums = [row["done_bytes"] for row in seen]
        assert sums == sorted(sums)
        total = sum(len(content) for content in tree(source).values())
        assert seen[-1]["done_bytes"] == seen[-1]["total_bytes"] == total
        assert seen[-1]["done_count"] == len(tree(source))


def test_what_the_bundle_announced_is_what_is_to_come(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    make_tree(tmp_path / "source", 4)
    bundle = {"type": "bundle", "path": "/b", "template": "{}", "template_type": "JSON"}
    text = json.dumps({**bundle, "file_count": 1000, "total_bytes": 10**9}) + "\n" + hashed(tmp_path / "source")
    done = shell.run(one_bucket, "dl-upload", URI, *QUICK, "--progress=json", text=text)
    assert done.returncode == 0, done.stderr
    seen = [row for row in records(done.stderr) if row["type"] == "progress"]
    assert {(row["total_count"], row["total_bytes"]) for row in seen} == {(1000, 10**9)}


def test_a_full_window_waits_and_does_nothing_else(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(9_000):  # more than are taken in while nothing goes out
        (source / f"{number}").write_text(str(number))
    stream = hashed(source)
    puts = itertools.count()

    def plan(request: Request) -> tuple[Any, ...] | None:
        # A few come back while the window is full, and then nothing does.
        if request.method != "PUT":
            return None
        return ("stall", 30) if next(puts) > 400 else ("stall", 0.1)

    one_bucket.plan = plan
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = shell.run(one_bucket, "dl-upload", URI, "--retry-for=0", "--stall=4", text=stream)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 69, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_where_hardly_anything_is_there_small_files_are_sent_unasked(
    one_bucket: Bucket, shell: Shell, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    files = {f"{number:03}": f"content {number}".encode() for number in range(300)}
    for name, data in files.items():
        (source / name).write_bytes(data)
    stream = hashed(source)
    # No listing tells what is there: all of the last are, and of one the content is another.
    one_bucket.plan = lambda request: ("status", 403, "AccessDenied", "") if "list-type" in request.query else None
    for data in list(files.values())[280:]:
        one_bucket.put(f"p/Data/{xxh3_128_hexdigest(data)}.xxh128", data)
    damaged = f"p/Data/{xxh3_128_hexdigest(files['290'])}.xxh128"
    one_bucket.put(damaged, b"cut")
    done = shell.run(one_bucket, "dl-upload", URI, "--jobs=1", text=stream)
    assert done.returncode == 0, done.stderr
    end = records(done.stdout)[-1]
    assert (end["new"], end["present"]) == (281, 19)
    assert_true_to_keys(one_bucket)
    assert one_bucket.count("HEAD") < 100
    # Where much is there, none is.
    one_bucket.requests.clear()
    shutil.rmtree(shell.home / ".deadline")
    again = shell.run(one_bucket, "dl-upload", URI, "--jobs=1", text=stream)
    assert again.returncode == 0, again.stderr
    assert one_bucket.count("PUT") == 0
