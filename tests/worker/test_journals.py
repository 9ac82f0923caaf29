"""Journals, pipes with names, locks: what holds the worker's processes together."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from dl_worker import journal
from dl_worker.folder import (
    Folder,
    SessionFolder,
    Wake,
    is_alive,
    poke,
    process_name,
    read_json,
    time_text,
    try_lock,
    write_json,
)
from hypothesis import given
from hypothesis import strategies as st


def test_a_reader_gets_each_row_once_as_the_journal_grows(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    reader = journal.Reader(path)
    assert reader.read() == []
    journal.append(path, {"a": 1}, {"a": 2})
    assert reader.read() == [{"a": 1}, {"a": 2}]
    journal.append(path, {"a": "new\nline"})
    assert reader.read() == [{"a": "new\nline"}]
    assert reader.read() == []
    assert journal.Reader(path).read() == [{"a": 1}, {"a": 2}, {"a": "new\nline"}]


@given(st.binary(max_size=40), st.integers(0, 200))
def test_a_torn_line_costs_only_itself(garbage: bytes, cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "j")
        journal.append(path, {"first": 1}, {"second": "x" * 150})
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[:cut] + garbage.replace(b"\n", b" "))
        journal.heal(path)
        journal.append(path, {"last": 1})
        assert journal.Reader(path).read()[-1] == {"last": 1}
        assert Path(path).read_bytes().endswith(b"\n")


def test_half_a_line_is_not_read_before_its_end_is_there(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"a":')
    reader = journal.Reader(str(path))
    assert reader.read() == []
    path.write_bytes(b'{"a":1}\n')
    assert reader.read() == [{"a": 1}]


def test_a_name_that_is_no_utf_8_can_be_told(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    journal.append(path, {"message": "cannot read 'bad\udcff'", "list": ["\udcfe"]})
    assert journal.Reader(path).read() == [{"message": "cannot read 'bad\\udcff'", "list": ["\\udcfe"]}]


def test_many_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    code = """
import sys
from dl_worker import journal
for i in range(200):
    journal.append(sys.argv[1], {'w': sys.argv[2], 'i': i, 'x': 'y' * 500})
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    rows = journal.Reader(path).read()
    for name in "ab":
        assert [row["i"] for row in rows if row["w"] == name] == list(range(200))


def test_a_poke_wakes_the_one_that_waits_and_is_lost_on_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "wake")
    poke(path)
    wake = Wake(path)
    assert not wake.wait(0)
    threading.Timer(0.05, poke, (path,)).start()
    assert wake.wait(20)
    for _ in range(70_000):  # more than a pipe holds
        wake.poke()
    assert wake.wait(0)
    while wake.wait(0):
        pass


def test_a_lock_lives_as_long_as_its_process(tmp_path: Path) -> None:
    folder = SessionFolder(str(tmp_path))
    code = """
import sys, time
from dl_worker.folder import try_lock
held = try_lock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, folder.file("lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        assert folder.is_running()
        assert try_lock(folder.file("lock")) is None
        holder.kill()
        holder.wait()
        assert not folder.is_running()


def test_a_process_is_told_from_another_with_its_number() -> None:
    own = process_name(os.getpid())
    assert own and is_alive(own)
    assert not is_alive({**own, "start_time": own["start_time"] - 1})
    assert not is_alive({"pid": 1 << 30, "start_time": 1})
    with subprocess.Popen(["true"]) as child:
        name = process_name(child.pid)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(name)  # a zombie does nothing any more


def test_files_are_replaced_whole_with_their_mode(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    write_json(path, {"a": 1})
    assert os.stat(path).st_mode & 0o777 == 0o600
    write_json(path, {"a": 2}, 0o640)
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert read_json(path) == {"a": 2}
    assert os.listdir(tmp_path) == ["x.json"]
    (tmp_path / "x.json").write_text("{")
    assert read_json(path) is None


def test_times_are_cut_to_milliseconds_and_never_rounded_up() -> None:
    assert time_text(1700000000.9999) == "2023-11-14T22:13:20.999Z"
    assert time_text(0) == "1970-01-01T00:00:00.000Z"


def test_a_second_daemon_of_a_kind_is_refused(tmp_path: Path) -> None:
    import pytest

    from libdeadline.errors import Trouble

    folder = Folder(str(tmp_path)).prepare()
    held = folder.lock("logs")
    assert folder.is_locked("logs")
    assert not folder.is_locked("schedule")
    with pytest.raises(Trouble, match="another dl-worker-logs"):
        folder.lock("logs")
    os.close(held)
    assert not folder.is_locked("logs")
