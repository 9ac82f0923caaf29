"""What was acknowledged is there after kill -9; what was not is whole or absent; starting and stopping."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from own_farmd import CONFIGURATION, ROLE, Farmd
from simulated_worker import SimulatedWorker

RUN = [sys.executable, "-c", "from dl_tools.dl_farmd import main; raise SystemExit(main())"]


def test_acknowledged_writes_survive_kill_9(farmd: Any) -> None:
    farm = farmd.client().create_farm(displayName="f")["farmId"]
    for _ in range(3):
        acknowledged: list[str] = []
        clients = [farmd.client(user_agent_extra=f"writer-{n}") for n in range(4)]

        def write(client: Any, acknowledged: list[str] = acknowledged) -> None:
            while True:
                try:
                    acknowledged.append(client.create_queue(farmId=farm, displayName="q", tags={"a": "b"})["queueId"])
                except (BotoCoreError, ClientError):
                    return

        writers = [threading.Thread(target=write, args=(client,)) for client in clients]
        for writer in writers:
            writer.start()
        while len(acknowledged) < 60:
            time.sleep(0.001)
        farmd.kill()
        for writer in writers:
            writer.join()
        farmd.start()
        client = farmd.client()
        pages = client.get_paginator("list_queues").paginate(farmId=farm)
        there = {queue["queueId"] for page in pages for queue in page["queues"]}
        assert set(acknowledged) <= there
        for queue in there - set(acknowledged):  # written, but the answer was lost: then whole
            arn = f"arn:aws:deadline:us-west-2:000000000000:farm/{farm}/queue/{queue}"
            assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"a": "b"}
    db = sqlite3.connect(farmd.dir / "farm.sqlite")
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()


def test_a_retry_after_a_crash_makes_no_second_resource(farmd: Any) -> None:
    farm = farmd.client().create_farm(displayName="f", clientToken="the token")["farmId"]
    farmd.restart()
    assert farmd.client().create_farm(displayName="f", clientToken="the token")["farmId"] == farm


def test_the_connections_are_as_the_page_says(tmp_path: Path) -> None:
    """The writers', of jobs and of logs: WAL and synchronous=FULL, as dl-farmd(8) promises."""
    from queue import SimpleQueue

    from dl_tools.dl_farmd.farm import Farm
    from dl_tools.dl_farmd.logs import Logs

    farm = Farm(tmp_path, lambda message: None)
    farm.logs = SimpleNamespace(close=lambda: None)
    farm.loop = SimpleNamespace(call_soon_threadsafe=lambda send: send())
    logs, answers = Logs(tmp_path / "logs.sqlite", farm), SimpleQueue()
    levels = ("synchronous", "journal_mode", "foreign_keys")
    ask = [lambda db, level=level: db.execute(f"PRAGMA {level}").fetchone()[0] for level in levels]
    for question in ask:
        logs._queue.put((question, answers.put))
    logs.close()
    full = [2, "wal", 1]
    assert [question(farm.db) for question in ask] == full
    assert [answers.get(timeout=10) for _ in ask] == full
    farm.close()
    page = (Path(__file__).parents[2] / "man" / "man8" / "dl-farmd.8").read_text()
    assert "SQLite database in WAL mode with synchronous=FULL" in page
    assert "logs: another one, likewise in WAL mode with synchronous=FULL" in page


def test_nothing_is_answered_before_it_is_on_the_disk(farmd: Any, tmp_path: Path) -> None:
    """Between what is written to the write-ahead logs and the answer there is a flush of that file."""
    import re

    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    client = farmd.client()
    client.create_farm(displayName="warm")
    logs = farmd.client("logs")
    logs.create_log_group(logGroupName="traced")
    logs.create_log_stream(logGroupName="traced", logStreamName="s")
    calls = "trace=pwrite64,fsync,fdatasync,sendto,sendmsg,write"
    words = ["strace", "-f", "-y", "-s", "12", "-e", calls, "-o", tmp_path / "traced", "-p", str(farmd.process.pid)]
    trace = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert trace.stderr is not None
    if "attached" not in (first := trace.stderr.readline()):
        trace.wait()
        pytest.skip(f"strace may not attach: {first}")
    for _ in range(20):
        client.create_farm(displayName="f")
    for number in range(20):
        event = {"timestamp": int(time.time() * 1000), "message": str(number)}
        logs.put_log_events(logGroupName="traced", logStreamName="s", logEvents=[event])
    trace.send_signal(signal.SIGINT)
    trace.communicate()
    answers, dirty, written = 0, set(), set()
    for line in (tmp_path / "traced").read_text().splitlines():
        found = re.match(r"\d+ +(\w+)\(\d+<([^>]*)>", line)
        if found is None:
            continue
        call, path = found.groups()
        if call == "pwrite64" and path.endswith(("farm.sqlite-wal", "logs.sqlite-wal")):
            dirty.add(path)
            written.add(Path(path).name)
        elif call in ("fsync", "fdatasync"):
            dirty.discard(path)
        elif '"HTTP/1.1 200' in line:
            answers += 1
            assert not dirty, line
    assert answers >= 40 and written == {"farm.sqlite-wal", "logs.sqlite-wal"}


def test_each_acknowledged_write_is_in_the_log_where_it_was_when_it_was_answered(tmp_path: Path) -> None:
    """What a loss of power may leave: the database as it was flushed, the write-ahead log cut or garbled anywhere
    beyond what had been flushed. Everything that was answered before that point is there, and nothing in part."""
    chance = random.Random(5)
    server = Farmd(tmp_path / "farm")
    try:
        client = server.client()
        farm = client.create_farm(displayName="f")["farmId"]
        database, log = server.dir / "farm.sqlite", server.dir / "farm.sqlite-wal"
        acknowledged: list[tuple[str, int]] = []
        pictures = []
        for index in range(120):
            queue = client.create_queue(farmId=farm, displayName="q" * 90, tags={"a": "b"})["queueId"]
            acknowledged.append((queue, log.stat().st_size))
            if index % 20 == 19:
                os.kill(server.process.pid, signal.SIGSTOP)  # at a moment between, or amid, its transactions
                folder = tmp_path / str(index)
                folder.mkdir()
                shutil.copy(database, folder)
                shutil.copy(log, folder)
                os.kill(server.process.pid, signal.SIGCONT)
                pictures.append((folder, list(acknowledged)))
    finally:
        server.kill()
    for folder, answered in pictures:
        whole = (folder / "farm.sqlite-wal").read_bytes()
        base = (folder / "farm.sqlite").read_bytes()
        for round_ in range(6):
            at = chance.choice([size for _, size in answered]) if round_ else len(whole)
            tail = b"" if chance.random() < 0.5 else bytes(chance.randbytes(min(len(whole) - at, 9000)))
            place = folder / f"cut{round_}"
            place.mkdir()
            (place / "farm.sqlite").write_bytes(base)
            (place / "farm.sqlite-wal").write_bytes(whole[:at] + tail)
            db = sqlite3.connect(place / "farm.sqlite")
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            there = {row[0] for row in db.execute("SELECT queue_id FROM queues")}
            tagged = db.execute("SELECT count(*) FROM tags").fetchone()[0]
            db.close()
            assert {queue for queue, size in answered if size <= at} <= there
            assert tagged == len(there)


def test_sigterm_finishes_open_requests(farmd: Any) -> None:
    client = farmd.client()
    results: list[str] = []

    def write() -> None:
        try:
            while True:
                results.append(client.create_farm(displayName="last")["farmId"])
        except (BotoCoreError, ClientError) as error:
            results.append(type(error).__name__)

    writer = threading.Thread(target=write)
    writer.start()
    while len(results) < 5:
        time.sleep(0.001)
    assert farmd.stop() == 0
    writer.join()
    # Between requests the connection closes cleanly: no answer was cut off.
    assert results[-1] in ("EndpointConnectionError", "ConnectionClosedError"), results[-1]
    assert not (farmd.dir / "farm.sqlite-wal").exists(), "the write-ahead log is merged at a clean end"
    farmd.start()
    for farm in results[:-1]:
        farmd.client().get_farm(farmId=farm)


def test_one_server_a_folder(farmd: Any) -> None:
    second = subprocess.run(
        [*RUN, "--dir", str(farmd.dir), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 75 and "another dl-farmd serves" in second.stderr
    assert farmd.client().list_farms()


@pytest.mark.parametrize(
    ("address", "status"),
    [("0.0.0.0:0", 77), ("192.0.2.1:0", 77), ("8650", 64), ("127.0.0.1:x", 64), ("127.0.0.1:99999", 64)],
)
def test_it_listens_on_loopback_only(address: str, status: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUN, "--dir", str(tmp_path), "--listen", address], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == status and len(done.stderr.splitlines()) == 1


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "farm.sqlite")
    db.execute("PRAGMA user_version = 999")
    db.close()
    done = subprocess.run(
        [*RUN, "--dir", str(tmp_path), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 78 and "schema 999" in done.stderr
    (tmp_path / "farm.sqlite").write_bytes(b"no database at all " * 100)
    done = subprocess.run(
        [*RUN, "--dir", str(tmp_path), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 65 and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"settings": 1}', '{"settings": {"logs_max_bytes": "much"}}', '{"settings": {"x": -1}}']
)
def test_a_wrong_configuration_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    done = subprocess.run(
        [*RUN, "--dir", str(tmp_path), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 78 and len(done.stderr.splitlines()) == 1 and "config.json" in done.stderr


def test_a_wrong_key_file_is_told_in_one_line(tmp_path: Path) -> None:
    from libdeadline.minted import KeyRing

    KeyRing.create(tmp_path / "keys")
    for name, content in (("access.json", b"{"), ("master", b"short")):
        whole = (tmp_path / "keys" / name).read_bytes()
        (tmp_path / "keys" / name).write_bytes(content)
        done = subprocess.run(
            [*RUN, "--dir", str(tmp_path), "--listen", "127.0.0.1:0"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 78 and len(done.stderr.splitlines()) == 1 and name in done.stderr
        (tmp_path / "keys" / name).write_bytes(whole)


def test_clients_wait_while_the_socket_is_held(tmp_path: Path) -> None:
    """The listening socket on standard input, as supervisord holds it: killed and started anew, nobody is refused."""
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([*RUN, "--dir", str(tmp_path)], stdin=sock.fileno(), stderr=subprocess.DEVNULL)

    server = start()
    try:
        answers: list[int] = []

        def ask() -> None:
            from http.client import HTTPConnection

            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/2023-10-12/farms")
            answers.append(connection.getresponse().status)

        ask()
        server.kill()
        server.wait()
        waiting = [threading.Thread(target=ask) for _ in range(5)]
        for each in waiting:
            each.start()
        server = start()
        for each in waiting:
            each.join()
        assert answers == [403] * 6
    finally:
        server.kill()
        server.wait()
        sock.close()


def test_an_operation_that_fails_midway_leaves_nothing(farmd: Any) -> None:
    client = farmd.client()
    farm = client.create_farm(displayName="f")["farmId"]
    with pytest.raises(ClientError):
        client.create_queue(farmId=farm, displayName="q", tags={f"t{n}": "" for n in range(51)})
    assert client.list_queues(farmId=farm)["queues"] == []


def test_a_full_disk_is_told_as_try_again(tmp_path: Path) -> None:
    """With a bound on the database's size the writes end in 429, what was acknowledged stays, and reading goes on."""
    from dl_tools.dl_farmd import server as server_module
    from dl_tools.dl_farmd.farm import Farm

    farm = Farm(tmp_path, lambda message: None)
    farm.logs = SimpleNamespace()
    run = SimpleNamespace(level="warning", warn=lambda message: None, debug=lambda message: None)
    server = server_module.Server(farm, run)
    farm.loop = SimpleNamespace(call_soon=lambda function, *args: None)
    size = farm.db.execute("PRAGMA page_count").fetchone()[0]
    farm.db.execute(f"PRAGMA max_page_count = {size + 20}")
    admin = next(iter(farm.ring.keys().values()))
    answered: list[tuple[int, bytes]] = []

    class Connection:
        def answer(self, request_id: str, answer: Any) -> None:
            answered.append((answer.status, answer.body))

    def request(method: str, path: str, body: bytes = b"") -> Any:
        from hashlib import sha256

        from libdeadline import sigv4

        headers = sigv4.sign(
            method, path, "", {"host": "x"}, sha256(body).hexdigest(), access_key_id=admin.access_key_id,
            secret=admin.secret, token=None, region="us-west-2", service="deadline",
        )  # fmt: skip
        return server_module.Request(Connection(), method, path, "", headers, body)

    made: list[str] = []
    for _ in range(200):
        group = [
            request("POST", "/2023-10-12/farms", json.dumps({"displayName": "f", "description": "x" * 100}).encode())
            for _ in range(20)
        ]
        answered.clear()
        for each in group:
            server.take(each)
        while server.pending:
            server.run_group()
        assert {status for status, _ in answered} <= {200, 429}, answered
        made += [json.loads(body)["farmId"] for status, body in answered if status == 200]
        if any(status == 429 for status, _ in answered):
            break
    else:
        raise AssertionError("the disk never became full")
    there = {row[0] for row in farm.db.execute("SELECT farm_id FROM farms")}
    assert there == set(made)
    farm.close()


def test_a_disk_that_is_full_and_has_room_again(tmp_path: Path) -> None:
    """Reading and idle workers go on, writing is told to try again, a start says what is missing, nothing is lost."""
    room = tmp_path / "room"
    room.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", room], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    server = Farmd(room / "farm")
    try:
        client, logs = server.client(), server.client("logs")
        farm = client.create_farm(displayName="f")["farmId"]
        fleet = client.create_fleet(
            farmId=farm, displayName="f", roleArn=ROLE, maxWorkerCount=1, configuration=CONFIGURATION
        )["fleetId"]
        worker = SimulatedWorker(client, farm, fleet).start()
        worker.exchange()
        logs.create_log_group(logGroupName="g")
        logs.create_log_stream(logGroupName="g", logStreamName="s")
        left = os.statvfs(room)
        (room / "filler").write_bytes(bytes(left.f_bavail * left.f_frsize - 300_000))
        made: list[str] = []
        with pytest.raises(ClientError) as caught:
            while len(made) < 2000:
                made.append(client.create_queue(farmId=farm, displayName="q", description="x" * 100)["queueId"])
        assert caught.value.response["Error"]["Code"] == "ThrottlingException"
        assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]
        assert "available" in caught.value.response["Error"]["Message"]
        event = {"timestamp": int(time.time() * 1000), "message": "m" * 200_000}
        with pytest.raises(ClientError) as caught:
            for _ in range(20):
                logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=[event])
        assert caught.value.response["Error"]["Code"] == "ServiceUnavailableException"
        worker.exchange()
        assert len(client.list_queues(farmId=farm, maxResults=1)["queues"]) == 1
        server.kill()
        with pytest.raises(RuntimeError):
            server.start()
        assert server.process.returncode == 74
        assert server.log.read_text().splitlines()[-1].endswith("make room there")
        (room / "filler").unlink()
        server.start()
        made.append(client.create_queue(farmId=farm, displayName="q")["queueId"])
        logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=[event])
        worker.exchange()
        pages = client.get_paginator("list_queues").paginate(farmId=farm)
        assert {queue["queueId"] for page in pages for queue in page["queues"]} == set(made)
        assert server.stop() == 0
    finally:
        server.kill()
        subprocess.run(["umount", room], check=True)
