"""What dl-s3d acknowledged is there after a loss of power: the disk is taken to hold what was flushed, and no more."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from dl_tools.dl_s3d import store as store_module
from dl_tools.dl_s3d.service import Service
from dl_tools.dl_s3d.serving import Loop
from dl_tools.dl_s3d.store import FREE_BYTES, SHORT_BYTES, Object, Store

from libdeadline import disk
from libdeadline.minted import KeyRing

BUCKET = "bucket"
PART_BYTES = 5 << 20
FULL = 2  # PRAGMA synchronous
State = bytes | None  # of a key: its object's content, or that there is none


class Disk:
    """What a folder's disk is sure to hold: contents as they were flushed, names as their folders were."""

    def __init__(self) -> None:
        self.contents: dict[int, bytes] = {}  # by inode number
        self.names: dict[str, dict[str, tuple[int, int]]] = {}  # by folder: inode number and size
        self._open: list[int] = []  # keeps inode numbers from being used again
        self._lock = threading.Lock()

    def flush(self, path: str) -> None:
        with self._lock:
            try:
                if os.path.isdir(path):
                    found = {entry.name: entry.stat() for entry in os.scandir(path)}
                    self.names[path] = {name: (each.st_ino, each.st_size) for name, each in found.items()}
                else:
                    descriptor = os.open(path, os.O_RDONLY)
                    self._open.append(descriptor)
                    size = os.fstat(descriptor).st_size
                    self.contents[os.fstat(descriptor).st_ino] = os.pread(descriptor, size, 0)
            finally:
                disk.flush(path)

    def picture(self, store: Store, target: Path) -> None:
        """Make `target` what the next start would find. A file whose content was not flushed is torn: all zeros."""
        target.mkdir()
        shutil.copy(store.database, target)
        # In WAL mode, with less than FULL, SQLite flushes its log only before it takes it over into the database.
        if store._db.execute("PRAGMA synchronous").fetchone()[0] >= FULL:
            shutil.copy(f"{store.database}-wal", target)
        with self._lock:
            for folder, names in self.names.items():
                if not folder.startswith(store.files + os.sep):
                    continue
                place = target / "files" / os.path.basename(folder)
                place.mkdir(parents=True)
                for name, (inode, size) in names.items():
                    (place / name).write_bytes(self.contents.get(inode, bytes(size)))

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)


class Serving:
    """dl-s3d's loop in a thread, and a picture of its disk after some of its commits, before their answers."""

    def __init__(self, folder: Path, pictures: Path, disk: Disk, flushes: bool) -> None:
        self.folder, self.pictures, self.disk, self.flushes = folder, pictures, disk, flushes
        self.history: dict[str, list[State]] = {}  # what was tried, in order
        self.acknowledged: dict[str, int] = {}  # the last of it that was answered
        self.taken: list[tuple[Path, dict[str, int]]] = []
        self.said: list[str] = []
        self._commits = itertools.count(1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.ring = KeyRing.create(folder / "keys")
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.ready.wait(20)

    def _run(self) -> None:
        self.store = Store(str(self.folder / "store"), self.flushes)

        def commit() -> None:
            self.store.commit()
            if next(self._commits) % 12 == 0:
                self.take()

        service = Service(self.store, self.ring, "0" * 12, "us-west-2", lambda text: None, self.said.append)
        self.loop = Loop(self.listener, service.converse, commit, self.said.append)
        self.ready.set()
        self.loop.run(5.0)
        self.take()
        self.store.close()

    def take(self) -> None:
        acknowledged = dict(self.acknowledged)
        target = self.pictures / str(len(self.taken))
        self.disk.picture(self.store, target)
        self.taken.append((target, acknowledged))

    def client(self) -> Any:
        admin = next(iter(self.ring.keys().values()))
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.listener.getsockname()[1]}",
            region_name="us-west-2",
            aws_access_key_id=admin.access_key_id,
            aws_secret_access_key=admin.secret,
            config=Config(retries={"max_attempts": 0}),
        )

    def tried(self, key: str, state: State, call: Callable[..., Any], **more: Any) -> None:
        states = self.history.setdefault(key, [None])
        states.append(state)
        number = len(states) - 1
        call(Bucket=BUCKET, Key=key, **more)
        self.acknowledged[key] = number

    def stop(self) -> None:
        self.loop.stop()
        self.thread.join(20)
        self.listener.close()


def work(serving: Serving, number: int) -> None:
    """Store, replace, copy and delete, short contents and long ones."""
    s3, chance = serving.client(), random.Random(number)
    sizes = (1, 3000, SHORT_BYTES, SHORT_BYTES + 1, 200_000)
    for turn in range(14):
        key, body = f"{number}/{turn}", chance.randbytes(sizes[turn % len(sizes)])
        serving.tried(key, body, s3.put_object, Body=body)
        serving.tried(f"{number}/again", body, s3.put_object, Body=body)
        if turn % 3 == 0:
            serving.tried(f"{key}/copy", body, s3.copy_object, CopySource=f"{BUCKET}/{key}")
        if turn % 4 == 0:
            serving.tried(key, None, s3.delete_object)
    if number < 2:
        parts = [chance.randbytes(PART_BYTES), chance.randbytes(10), chance.randbytes(PART_BYTES)]
        key = f"{number}/parts"
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        named = {"Bucket": BUCKET, "Key": key, "UploadId": upload}
        tags = [s3.upload_part(**named, PartNumber=1, Body=parts[0])["ETag"]]
        serving.tried(f"{number}/source", parts[2], s3.put_object, Body=parts[2])
        source = {"CopySource": f"{BUCKET}/{number}/source"}
        tags.append(s3.upload_part_copy(**named, PartNumber=2, **source)["CopyPartResult"]["ETag"])
        serving.tried(f"{number}/bit", parts[1], s3.put_object, Body=parts[1])
        source = {"CopySource": f"{BUCKET}/{number}/bit"}
        tags.append(s3.upload_part_copy(**named, PartNumber=3, **source)["CopyPartResult"]["ETag"])
        chosen = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]}
        whole = parts[0] + parts[2] + parts[1]
        serving.tried(key, whole, s3.complete_multipart_upload, UploadId=upload, MultipartUpload=chosen)


def found(store: Store, key: str) -> State:
    row = store.whole_object(BUCKET, key.encode())
    if row is None:
        return None
    content = store.content(row)
    return b"".join(Path(store.path(name)).read_bytes() for name, _ in row.files) if content is None else content


def wrong(serving: Serving) -> list[str]:
    """Keys that a picture shows otherwise than it was answered before it was taken, or tried after."""
    lost = []
    for place, acknowledged in serving.taken:
        store = Store(str(place))
        for key, number in acknowledged.items():
            if found(store, key) not in serving.history[key][number:]:
                lost.append(f"{place.name}: {key}")
        # Nor does anything stay that no row names.
        store._sweeper.join()
        db = store._db
        named = " UNION ALL ".join(
            f"SELECT json_extract(value, '$[0]') FROM {each}, json_each(files)" for each in ("object", "part")
        )
        there = {path.name for path in (place / "files").glob("*/*")}
        if not there <= {row[0] for row in db.execute(named)}:
            lost.append(f"{place.name}: leftovers")
        orphans = "SELECT count(*) FROM content WHERE id NOT IN (SELECT content FROM object WHERE content IS NOT NULL)"
        assert db.execute(orphans).fetchone()[0] == 0
        assert db.execute("PRAGMA quick_check").fetchone()[0] == "ok"
        store.close()
    return lost


@pytest.fixture
def after_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], Serving]]:
    simulated = Disk()
    monkeypatch.setattr(store_module, "flush", simulated.flush)

    def run(flushes: bool) -> Serving:
        (tmp_path / "pictures").mkdir()
        serving = Serving(tmp_path, tmp_path / "pictures", simulated, flushes)
        try:
            serving.client().create_bucket(Bucket=BUCKET)
            threads = [threading.Thread(target=work, args=(serving, number)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            serving.stop()
        assert serving.said == []
        assert len(serving.acknowledged) > 6 * 15 and len(serving.taken) > 4
        monkeypatch.setattr(store_module, "flush", disk.flush)
        return serving

    yield run
    simulated.close()


def test_what_was_acknowledged_survives_a_loss_of_power(after_work: Callable[[bool], Serving]) -> None:
    serving = after_work(True)
    assert wrong(serving) == []
    # The last picture has all of it.
    last, acknowledged = serving.taken[-1]
    assert acknowledged == {key: len(states) - 1 for key, states in serving.history.items()}


def test_without_flushing_it_may_not(after_work: Callable[[bool], Serving]) -> None:
    """Else the test above would show nothing."""
    assert len(wrong(after_work(False))) > 100


def test_nothing_is_answered_before_it_is_on_the_disk(tmp_path: Path) -> None:
    """As the system sees it: between what is written to the log, to files and to their folders, and the answer."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    command = [Path(sys.executable).parent / "dl-s3d", "--dir", tmp_path]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = subprocess.Popen(command, stdin=listener.fileno())
        port = listener.getsockname()[1]
    files = str(tmp_path / "store" / "files")
    calls = "trace=pwrite64,write,openat,link,linkat,fsync,fdatasync,sendto"
    traced = tmp_path / "traced"
    words = ["strace", "-f", "-y", "-s", "12", "-e", calls, "-o", traced, "-p", str(server.pid)]
    trace = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert trace.stderr is not None
    try:
        if "attached" not in (first := trace.stderr.readline()):
            pytest.skip(f"strace may not attach: {first}")
        ring = KeyRing.create(tmp_path / "keys")
        admin = next(iter(ring.keys().values()))
        s3 = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-west-2",
            aws_access_key_id=admin.access_key_id, aws_secret_access_key=admin.secret,
        )  # fmt: skip
        s3.create_bucket(Bucket=BUCKET)
        for number in range(5):
            s3.put_object(Bucket=BUCKET, Key=f"short/{number}", Body=b"x" * 100)
            s3.put_object(Bucket=BUCKET, Key=f"long/{number}", Body=b"x" * 2 * SHORT_BYTES)
            s3.copy_object(Bucket=BUCKET, Key=f"copy/{number}", CopySource=f"{BUCKET}/long/{number}")
        key = {"Bucket": BUCKET, "Key": "parts"}
        key["UploadId"] = s3.create_multipart_upload(**key)["UploadId"]
        s3.upload_part(**key, PartNumber=1, Body=b"x")
        s3.upload_part_copy(**key, PartNumber=2, CopySource=f"{BUCKET}/short/0")
    finally:
        trace.send_signal(signal.SIGINT)
        trace.communicate()
        server.terminate()
        server.wait()
    dirty: set[str] = set()
    seen = {"log": 0, "file": 0, "folder": 0, "answer": 0}
    for line in traced.read_text().splitlines():
        line = line.partition(" ")[2].lstrip()  # after the number of the thread
        if opened := re.match(r"openat\(.*O_CREAT.* = \d+<([^>]*)>", line):
            if opened[1].startswith(files):
                dirty.add(os.path.dirname(opened[1]))
                seen["folder"] += 1
        elif linked := re.match(r'link(?:at)?\(.*"([^"]*)"[^"]*$', line):
            dirty.add(os.path.dirname(linked[1]))
        elif found := re.match(r"(\w+)\(\d+<([^>]*)>", line):
            call, path = found.groups()
            if call == "pwrite64" and path.endswith("index.sqlite-wal"):
                dirty.add(path)
                seen["log"] += 1
            elif call == "write" and path.startswith(files):
                dirty.add(path)
                seen["file"] += 1
            elif call in ("fsync", "fdatasync"):
                dirty.discard(path)
            elif '"HTTP/1.1 200' in line:
                seen["answer"] += 1
                assert not dirty, line
    assert all(number >= 7 for number in seen.values()), seen


# -- the index


def test_an_index_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """It knew no short contents: what it names stays in files, what comes is kept beside."""
    Store(str(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as db, db:
        db.executescript("ALTER TABLE object DROP COLUMN content; DROP TABLE content; PRAGMA user_version = 0;")
        db.execute("INSERT INTO bucket VALUES ('bucket', 0)")
        db.execute("INSERT INTO object VALUES ('bucket', x'6f', 3, 'e', 0, '{}', '{}', '[[\"00aa\", 3]]', NULL)")
    (tmp_path / "files" / "aa" / "00aa").write_bytes(b"old")
    for _ in range(2):
        store = Store(str(tmp_path))
        store.put(BUCKET, Object(b"n", 3, "e", 0), b"new")
        store.commit()
        assert [found(store, "o"), found(store, "n")] == [b"old", b"new"]
        store.close()


def test_an_index_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    Store(str(tmp_path / "store")).close()
    index = tmp_path / "store" / "index.sqlite"
    with closing(sqlite3.connect(index)) as db:
        db.execute("PRAGMA user_version = 99")
    before = index.read_bytes()
    command = [Path(sys.executable).parent / "dl-s3d", "--dir", tmp_path, "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 78 and "schema 99" in done.stderr and len(done.stderr.splitlines()) == 1
    assert index.read_bytes() == before


def test_room_of_deleted_contents_is_given_back(tmp_path: Path) -> None:
    store, count, body = Store(str(tmp_path)), 1000, os.urandom(60_000)
    for number in range(count):
        store.put(BUCKET, Object(b"%d" % number, len(body), "e", 0), body)
    store.commit()
    for number in range(count - 5):
        store.forget(BUCKET, b"%d" % number)
        if number % 100 == 0:
            store.commit()
    store.commit()
    assert found(store, str(count - 1)) == body
    store.close()
    assert (tmp_path / "index.sqlite").stat().st_size < 5 * len(body) + FREE_BYTES + (1 << 20) < count * len(body)


def test_flushing_is_chosen_by_the_settings_and_the_option(tmp_path: Path) -> None:
    from dl_tools.dl_s3d import settings

    assert settings(str(tmp_path))[2] is True
    for number in (0, 1):
        (tmp_path / "config.json").write_text(json.dumps({"settings": {"flush_objects": number}}))
        assert settings(str(tmp_path))[2] is bool(number)
    for flushes, level in ((True, FULL), (False, FULL - 1)):
        store = Store(str(tmp_path / "store"), flushes)
        assert store._db.execute("PRAGMA synchronous").fetchone()[0] == level
        store.close()
