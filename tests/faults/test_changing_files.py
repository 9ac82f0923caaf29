"""Files that change while they are uploaded: no key holds another content than its name says, and each is reported."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from changes import CHANGES, STILL_RIGHT, rewrite
from fake_s3 import Bucket, Request, records, tree
from transfer_shell import Shell
from trees import LARGE, URI, assert_true_to_keys, hashed, large_file, manifest_of, wait_for
from xxhash import xxh3_128_hexdigest

PART = 8 << 20


def once(when: Callable[[Request], bool], deed: Callable[[], object]) -> Callable[[Request], None]:
    """A plan that does something when the first such request has arrived, before it is answered."""
    lock = threading.Lock()
    done: list[bool] = []

    def plan(request: Request) -> None:
        with lock:
            if not done and when(request):
                done.append(True)
                deed()

    return plan


def all_of(plans: list[Callable[[Request], None]]) -> Callable[[Request], None]:
    def plan(request: Request) -> None:
        for each in plans:
            each(request)

    return plan


def key_of(path: Path) -> str:
    return f"p/Data/{xxh3_128_hexdigest(path.read_bytes())}.xxh128"


def assert_reported(done: Any, *paths: Path) -> None:
    assert done.returncode in (66, 75), (done.returncode, done.stderr)
    lines = done.stderr.splitlines()
    for path in paths:
        assert len([line for line in lines if f"'{path}'" in line]) == 1, (path, done.stderr)
    assert len(lines) == len(paths), done.stderr
    end = records(done.stdout)[-1]
    assert end["ok"] is False and end["failed"] == len(paths)


def test_large_files_rewritten_between_their_parts(bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "small").write_bytes(b"small")
    plans, paths = [], []
    content = bytearray(random.Random(1).randbytes(LARGE))
    # While a part is on its way, something in it, in one that was sent, and in one to come.
    for part, where in (("1", 10), ("1", 2 * PART + 10), ("2", 10), ("2", 2 * PART + 10), ("3", PART + 10)):
        path = source / f"{part} {where}"
        content[:4] = len(paths).to_bytes(4, "big")
        path.write_bytes(content)
        key = key_of(path)
        plans.append(
            once(
                lambda request, key=key, part=part: (request.key, request.query.get("partNumber")) == (key, part),
                lambda path=path, where=where: rewrite(path, where),
            )
        )
        paths.append(path)
    stream = hashed(source)
    bucket.plan = all_of(plans)
    done = shell.run(bucket, "dl-upload", URI, "--jobs=1", text=stream)
    assert_reported(done, *paths)
    assert [each.data for each in bucket.objects.values()] == [b"small"]
    assert not bucket.uploads
    assert not os.listdir(shell.home / ".deadline" / "cache" / "uploads")


@pytest.mark.parametrize("size", [9000, 300_000, LARGE], ids=["small", "medium", "large"])
def test_files_that_change_while_they_are_on_their_way(bucket: Bucket, shell: Shell, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    plans, paths = [], []
    content = bytearray(random.Random(size).randbytes(size))
    changes = ["rewritten", "replaced", "fifo", "deleted", "copied"] if size == LARGE else list(CHANGES)
    for change in changes:
        path = source / change
        content[:4] = len(plans).to_bytes(4, "big")
        path.write_bytes(content)
        key = key_of(path)
        plans.append(
            once(
                lambda request, key=key: request.method == "PUT" and request.key == key,
                lambda change=change, path=path: CHANGES[change](path),
            )
        )
        if change not in STILL_RIGHT:
            paths.append(path)
    stream = hashed(source)
    right = {key_of(source / change) for change in STILL_RIGHT if change in changes}
    bucket.plan = all_of(plans)
    done = shell.run(bucket, "dl-upload", URI, text=stream)
    assert_reported(done, *paths)
    assert_true_to_keys(bucket)
    assert right <= bucket.objects.keys()
    if size == LARGE:
        assert right == bucket.objects.keys()  # what was begun of the others was aborted
    assert not bucket.uploads


def test_files_whose_content_was_there_already_are_looked_at_too(
    one_bucket: Bucket, shell: Shell, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    paths = []
    for change in CHANGES:
        for size in (0, 9000):
            if size or change not in ("rewritten", "mapped", "shrunk", "replaced"):
                path = source / f"{change} {size}"
                path.write_bytes(b"a" * size)
                paths.append(path)
    stream = hashed(source)
    assert shell.run(one_bucket, "dl-upload", URI, text=stream).returncode == 0
    for path in paths:
        CHANGES[path.name.rpartition(" ")[0]](path)
    done = shell.run(one_bucket, "dl-upload", URI, text=stream)
    assert_reported(done, *(path for path in paths if path.name.rpartition(" ")[0] not in STILL_RIGHT))


def test_a_server_that_only_claims_to_check_is_not_believed(shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(random.Random(name).randbytes(300_000))
    stream = hashed(source)
    with Bucket(server="AmazonS3", check=False) as bucket:
        bucket.plan = once(lambda request: request.method == "PUT", lambda: rewrite(source / "b", 150_000))
        done = shell.run(bucket, "dl-upload", URI, "--jobs=1", text=stream)
        assert_reported(done, source / "b")
        assert_true_to_keys(bucket)
        assert len(bucket.objects) == 1


def killed_when(bucket: Bucket, shell: Shell, stream: str, reached: Callable[[], bool]) -> None:
    """Start an upload, and kill it when something has come to be."""
    process = shell.start(bucket, "dl-upload", URI, stdin=-1)
    assert process.stdin is not None
    process.stdin.write(stream)
    process.stdin.close()
    wait_for(reached)
    process.kill()
    process.wait()


def test_an_upload_whose_id_never_arrived_is_found_and_aborted(
    one_bucket: Bucket, shell: Shell, tmp_path: Path
) -> None:
    path = large_file(tmp_path / "source")
    stream = hashed(tmp_path / "source")
    answered = threading.Event()
    one_bucket.plan = lambda request: ("held", answered) if "uploads" in request.query else None
    killed_when(one_bucket, shell, stream, lambda: bool(one_bucket.uploads))
    answered.set()
    one_bucket.upload_keys["foreign"], one_bucket.uploads["foreign"] = "p/Data/other.xxh128", {}
    one_bucket.plan = lambda request: None
    done = shell.run(one_bucket, "dl-upload", URI, text=stream)
    assert done.returncode == 0, done.stderr
    assert list(one_bucket.uploads) == ["foreign"]
    assert path.read_bytes() in [each.data for each in one_bucket.objects.values()]
    assert not os.listdir(shell.home / ".deadline" / "cache" / "uploads")


@pytest.mark.parametrize("change", ["rewritten anew", "deleted"])
def test_what_was_begun_of_a_file_that_is_another_by_now_is_aborted(
    one_bucket: Bucket, shell: Shell, tmp_path: Path, change: str
) -> None:
    path = large_file(tmp_path / "source")
    one_bucket.plan = lambda request: ("stall", 30) if "partNumber" in request.query else None
    killed_when(one_bucket, shell, hashed(tmp_path / "source"), lambda: one_bucket.count("PUT") > 0)
    one_bucket.plan = lambda request: None
    other = path.with_name("other")
    other.write_bytes(random.Random(9).randbytes(LARGE))
    if change == "deleted":
        path.unlink()
    else:
        other.replace(path)
    done = shell.run(one_bucket, "dl-upload", URI, text=hashed(tmp_path / "source"))
    assert done.returncode == 0, done.stderr
    assert not one_bucket.uploads
    assert not os.listdir(shell.home / ".deadline" / "cache" / "uploads")


def test_an_upload_that_someone_else_was_quicker_with_is_aborted(
    one_bucket: Bucket, shell: Shell, tmp_path: Path
) -> None:
    path = large_file(tmp_path / "source")
    content = path.read_bytes()
    key = f"p/Data/{xxh3_128_hexdigest(content)}.xxh128"
    one_bucket.plan = once(lambda request: request.query.get("partNumber") == "2", lambda: one_bucket.put(key, content))
    # S3 refuses to complete over what is there; the upload stays until it is aborted.
    complete = one_bucket.plan

    def plan(request: Request) -> tuple[Any, ...] | None:
        if request.method == "POST" and "uploadId" in request.query and request.headers.get("if-none-match"):
            return ("status", 412, "PreconditionFailed", "it exists")
        return complete(request)

    one_bucket.plan = plan
    done = shell.run(one_bucket, "dl-upload", URI, text=hashed(tmp_path / "source"))
    assert done.returncode == 0, done.stderr
    assert [row["upload"] for row in records(done.stdout) if row["type"] == "file"] == ["present"]
    assert not one_bucket.uploads


def test_the_link_that_a_kill_left_to_a_file_does_it_no_harm(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    """A run killed after its temporary got its name, and before it lost its own one."""
    path = large_file(tmp_path / "source")
    content = path.read_bytes()
    one_bucket.put(f"p/Data/{xxh3_128_hexdigest(content)}.xxh128", content)
    target = tmp_path / "target"
    target.mkdir()
    script = (
        "import os, sys\nfrom libdeadline import placing\n"
        "unlink = placing.Folder.unlink\n"
        "placing.Folder.unlink = lambda *it: os._exit(9) if it[1].endswith('.resumed.part') else unlink(*it)\n"
        "from dl_tools.dl_download import main\nraise SystemExit(main())"
    )
    words = (URI, f"--manifest={manifest_of(tmp_path / 'source', tmp_path / 'm')}", f"--to={target}")
    killed = shell.run(one_bucket, "python3", "-c", script, *words)
    assert killed.returncode == 9, killed.stderr
    (left,) = [name for name in os.listdir(target) if name != "large"]
    assert os.path.samefile(target / left, target / "large")
    with open(target / "large", "r+b") as file:
        file.write(b"mine")  # the person works on it
    mine = (target / "large").read_bytes()
    done = shell.run(one_bucket, "dl-download", *words)
    assert done.returncode == 0, done.stderr
    assert tree(target) == {"large": mine, "large (1)": content}


def test_a_pipeline_over_files_that_never_rest(bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    """Whatever changes at whatever moment: the store is true, and a manifest tells only of what was there once."""
    dice = random.Random(6)
    source = tmp_path / "source"
    history: dict[str, set[str]] = {}
    for number in range(60):
        path = source / f"{number:02}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(dice.randbytes(dice.choice([500, 20_000, 300_000, 3_000_000])))
        history[path.name] = {xxh3_128_hexdigest(path.read_bytes())}
    over = threading.Event()
    unrest = [CHANGES[name] for name in ("rewritten", "replaced", "deleted", "fifo", "folder", "copied", "touched")]
    touched: set[str] = set()

    def work() -> None:
        while not over.wait(dice.uniform(0.002, 0.03)):
            path = source / f"{dice.randrange(60):02}"
            touched.add(path.name)
            if path.is_file():
                dice.choice(unrest)(path)
            else:  # it comes again, or there would soon be nothing left
                if path.is_dir():
                    path.rmdir()
                path.unlink(missing_ok=True)
                path.write_bytes(dice.randbytes(30_000))
            if path.is_file():
                history[path.name].add(xxh3_128_hexdigest(path.read_bytes()))

    words = f"dl-hash --changed=fail --missing=fail '{source}' | dl-manifest | dl-upload {URI} --manifest-prefix=m"
    runs = []
    for restless in (True, True, False):
        for key in [key for key in bucket.objects if "/Manifests/" in key]:
            del bucket.objects[key]
        over.clear()
        thread = threading.Thread(target=work)
        if restless:
            thread.start()
        try:
            done = shell.run(bucket, "bash", "-c", f"set -o pipefail; {words} --limit-rate=60M")
        finally:
            over.set()
            if restless:
                thread.join()
        runs.append(done)
        assert "Traceback" not in done.stderr
        assert_true_to_keys(bucket)
        published = [found for key, found in bucket.objects.items() if "/Manifests/" in key]
        assert bool(published) == (done.returncode == 0)
        if done.returncode:
            # Each line is about a file that was changed, or says that a stage before this one failed.
            lines = [line for line in done.stderr.splitlines() if "the stream is not whole" not in line]
            assert lines
            for line in lines:
                assert any(f"{source}/{name}'" in line or f"'{name}'" in line for name in touched), line
        for found in published:
            for entry in json.loads(found.data)["paths"]:
                assert entry["hash"] in history[entry["path"]]
                assert f"p/Data/{entry['hash']}.xxh128" in bucket.objects
    assert any(done.returncode for done in runs[:2])


def test_what_a_killed_download_left_of_an_earlier_content_goes(
    one_bucket: Bucket, shell: Shell, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    path = large_file(source / "deep")
    one_bucket.put(key_of(path), path.read_bytes())
    words = ("dl-download", URI, f"--to={target}", f"--manifest={manifest_of(source, tmp_path / 'm')}")
    one_bucket.plan = lambda request: ("cut", 9 << 20) if "range" not in request.headers else ("stall", 30)
    process = shell.start(one_bucket, *words)
    wait_for(lambda: any("range" in each.headers for each in one_bucket.requests))
    process.kill()
    process.wait()
    (left,) = (target / "deep").iterdir()
    assert left.name.endswith(".resumed.part") and left.stat().st_size == 9 << 20
    one_bucket.plan = lambda request: None
    path.write_bytes(b"it is small now")
    one_bucket.put(key_of(path), path.read_bytes())
    manifest_of(source, tmp_path / "m")
    done = shell.run(one_bucket, *words)
    assert done.returncode == 0, done.stderr
    assert tree(target) == {"deep/large": b"it is small now"}
