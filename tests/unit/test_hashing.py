"""dl-hash: order, policies, cache, processes that die, files that change."""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dl_tools.dl_hash import cache as cache_module
from dl_tools.dl_hash import content
from dl_tools.dl_hash.cache import Cache
from dl_tools.dl_hash.content import Hasher, Refused, Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_hexdigest

BIN = Path(__file__).resolve().parents[2] / "bin"
COMMAND = [sys.executable, str(BIN / "dl-hash")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    return path


def run(*words: str, text: bytes = b"", status: int = 0) -> list[dict[str, object]]:
    done = subprocess.run([*COMMAND, *words], input=text, capture_output=True, timeout=60)
    assert done.returncode == status, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def files(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [row for row in rows if row["type"] == "file"]


def mixed_tree(root: Path) -> dict[str, bytes]:
    """Files of very different sizes, so that jobs end in another order than they begin."""
    found = {}
    for folder in ("a", "b/c", "d"):
        (root / folder).mkdir(parents=True)
        for n in range(40):
            size = 9_000_000 if n % 13 == 0 else n * 4099
            found[f"{folder}/f{n:02}"] = os.urandom(1024) * (size // 1024) + os.urandom(size % 1024)
    for name, data in found.items():
        (root / name).write_bytes(data)
    return found


@pytest.mark.parametrize("jobs", ["1", "2", "5"])
def test_the_order_is_that_of_the_walk_whatever_runs_side_by_side(tmp_path: Path, home: Path, jobs: str) -> None:
    wanted = mixed_tree(tmp_path / "in")
    rows = files(run("--jobs", jobs, "--no-cache", str(tmp_path / "in")))
    assert [row["path"] for row in rows] == sorted(wanted)
    assert {row["path"]: row["hash"] for row in rows} == {
        name: xxh3_128_hexdigest(data) for name, data in wanted.items()
    }
    assert [row["size"] for row in rows] == [len(wanted[str(row["path"])]) for row in rows]


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_filter_keeps_every_record_in_its_place(tmp_path: Path, home: Path, jobs: str) -> None:
    root = tmp_path / "in"
    wanted = mixed_tree(root)
    lines = []
    for n, name in enumerate(sorted(wanted) * 3):
        if n % 7 == 0:
            lines.append(json.dumps({"type": "note", "n": n}))
        lines.append(json.dumps({"type": "file", "path": name, "root": str(root), "n": n}))
    lines.append('{"type":"end","tool":"t","ok":true}')
    rows = run("--jobs", jobs, text="\n".join(lines).encode())
    assert [row.get("n") for row in rows[:-1]] == [json.loads(line)["n"] for line in lines[:-1]]
    for row in files(rows):
        assert row["hash"] == xxh3_128_hexdigest(wanted[str(row["path"])])


def test_a_record_leaves_before_the_next_one_comes(tmp_path: Path, home: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path)
    assert process.stdin and process.stdout
    for n in range(3):
        process.stdin.write(b'{"type":"file","path":"f","n":%d}\n' % n)
        process.stdin.flush()
        row = json.loads(process.stdout.readline())  # would wait for ever if it were held back
        assert row["n"] == n and row["hash"]
    process.stdin.write(b'{"type":"end","tool":"t","ok":true}\n')
    process.stdin.close()
    assert json.loads(process.stdout.readline())["ok"] is True
    assert process.wait(10) == 0


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: object, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.005)
    return False


@pytest.fixture
def busy(tmp_path: Path, home: Path) -> subprocess.Popen[bytes]:
    """A dl-hash in the middle of files that are many seconds of work, with its processes started."""
    root = tmp_path / "in"
    root.mkdir()
    for n in range(40):
        with open(root / f"f{n}", "wb") as file:
            file.truncate(8 << 30)
    process = subprocess.Popen([*COMMAND, "--jobs", "2", str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert until(lambda: len(children_of(process.pid)) == 2)
    # At work they have let go of the tool's output.
    workers = children_of(process.pid)
    assert until(lambda: all(os.readlink(f"/proc/{pid}/fd/1") == os.devnull for pid in workers))
    return process


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")
class TestDeaths:
    def test_a_killed_worker_is_a_failure(self, busy: subprocess.Popen[bytes]) -> None:
        os.kill(children_of(busy.pid)[0], signal.SIGKILL)
        out, err = busy.communicate(timeout=60)
        assert busy.returncode == 75
        assert json.loads(out.splitlines()[-1])["ok"] is False
        assert b"ended before its work was done: run again" in err and b"Traceback" not in err

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stopped_tool_says_so_and_leaves_nobody(
        self, busy: subprocess.Popen[bytes], number: signal.Signals
    ) -> None:
        workers = children_of(busy.pid)
        busy.send_signal(number)
        out, err = busy.communicate(timeout=60)
        assert busy.returncode == 128 + number
        assert json.loads(out.splitlines()[-1])["ok"] is False
        assert not any(alive(pid) for pid in workers)

    def test_a_killed_tool_ends_its_stream_at_once_and_its_workers_soon(self, busy: subprocess.Popen[bytes]) -> None:
        workers = children_of(busy.pid)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            busy.kill()
            assert busy.stdout
            # It would not come if a stopped worker held the pipe open.
            assert until(
                lambda: select.select([busy.stdout], [], [], 0)[0] and not os.read(busy.stdout.fileno(), 65536)
            )
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        assert until(lambda: not any(alive(pid) for pid in workers))


def hasher(root: Path, **fields: object) -> Hasher:
    return Hasher(Settings(str(root), True, None, False, {})._replace(**fields))


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"first")
    original, touched = content._read_into, []

    def read(descriptor: int, view: memoryview) -> int:
        count = original(descriptor, view)
        if not touched:
            touched.append(1)
            path.write_bytes(b"second")
            os.utime(path, ns=(1, 1))
        return count

    monkeypatch.setattr(content, "_read_into", read)
    done = hasher(tmp_path).folder(str(tmp_path), "", ["f"])
    assert json.loads(done.lines)["hash"] == xxh3_128_hexdigest(b"second")
    assert json.loads(done.lines)["size"] == 6


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_file_that_does_not_stop_changing_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * size)
    state = {"n": 0}
    original = content._identity

    def identity(status: os.stat_result) -> tuple[int, int, int, int]:
        state["n"] += 1
        os.utime(path, ns=(state["n"], state["n"]))
        return original(status)

    monkeypatch.setattr(content, "_identity", identity)
    done = hasher(tmp_path).folder(str(tmp_path), "", ["f"])
    assert done.lines == b""
    assert [trouble[0] for trouble in done.troubles] == ["changed"]


def test_a_file_that_grows_behind_a_size_that_stays_is_reported(tmp_path: Path) -> None:
    # Files of /proc have size 0 and content all the same.
    result = hasher(tmp_path)._result("/proc/self/cmdline", None)
    assert isinstance(result, Refused) and result.why == "changed"


def test_threads_give_what_one_reader_gives(tmp_path: Path) -> None:
    mixed_tree(tmp_path)
    names = [*sorted(os.listdir(tmp_path / "a")), "gone"]
    alone, many = hasher(tmp_path), hasher(tmp_path)
    many.readers = content.READERS
    one, other = alone.folder(str(tmp_path), "a/", names), many.folder(str(tmp_path), "a/", names)
    assert alone.threads is None and many.threads is not None
    assert one.lines == other.lines and one.size == other.size and one.troubles == other.troubles


def test_more_readers_come_when_reads_sleep_and_go_when_they_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(100):
        (tmp_path / f"f{n:03}").write_bytes(b"x")
    names = sorted(os.listdir(tmp_path))
    original, slow = content._read_into, [True]

    def read(descriptor: int, view: memoryview) -> int:
        if slow[0]:
            time.sleep(0.001)
        return original(descriptor, view)

    monkeypatch.setattr(content, "_read_into", read)
    one = hasher(tmp_path)
    one.folder(str(tmp_path), "", names)
    assert one.readers == content.READERS
    slow[0] = False
    for _ in range(content.TRIAL_EVERY):
        assert len(one.folder(str(tmp_path), "", names).lines.splitlines()) == 100
    assert one.readers == 1


file_names = st.builds("/{}/{}".format, st.sampled_from("ab"), st.text("abé😀\uffff'%", min_size=1, max_size=3))
known_files = st.tuples(
    file_names,
    st.integers(0, 2**40),
    st.integers(-(2**62), 2**62),
    st.integers(-(2**62), 2**62),
    st.integers(0, 2**63 - 1),
    st.sampled_from(["0" * 32, "f" * 32]),
)


def settle(*paths: Path) -> None:
    newest = max(max(path.stat().st_ctime, path.stat().st_mtime) for path in paths)
    time.sleep(max(0.0, newest + 2.05 - time.time()))


def cached(rows: list[dict[str, object]]) -> object:
    return rows[-1]["cached"]


class TestCache:
    def test_every_part_of_the_identity_counts(self, tmp_path: Path, home: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"a" * 5000)
        os.utime(path, ns=(10**18, 10**18))
        settle(path)
        assert cached(run(str(path))) == 0
        assert cached(run(str(path))) == 1
        assert cached(run("--rehash", str(path))) == 0
        assert cached(run("--no-cache", str(path))) == 0
        # The same size and modification time, other content: the change time gives it away.
        path.write_bytes(b"b" * 5000)
        os.utime(path, ns=(10**18, 10**18))
        rows = run(str(path))
        assert cached(rows) == 0 and files(rows)[0]["hash"] == xxh3_128_hexdigest(b"b" * 5000)

    def test_rehash_corrects_what_is_remembered(self, tmp_path: Path, home: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"a" * 5000)
        settle(path)
        run(str(path))
        database = home / ".deadline" / "cache" / "dl_hash.sqlite"
        with sqlite3.connect(database) as connection:
            folder, first, stored = connection.execute("SELECT folder, first, files FROM runs").fetchone()
            wrong = cache_module._unpacked(folder, first, stored)
            wrong["f"][-1] = "0" * 32
            connection.execute("UPDATE runs SET files = ?", [cache_module._packed(folder, first, wrong)])
        assert files(run(str(path)))[0]["hash"] == "0" * 32  # so it was indeed not read
        assert files(run("--rehash", str(path)))[0]["hash"] == xxh3_128_hexdigest(b"a" * 5000)
        assert files(run(str(path)))[0]["hash"] == xxh3_128_hexdigest(b"a" * 5000)

    def test_what_was_just_touched_is_not_remembered(self, tmp_path: Path, home: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"a" * 5000)
        assert cached(run(str(path))) == 0
        assert cached(run(str(path))) == 0

    @pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
    def test_a_damaged_cache_costs_time_only(self, tmp_path: Path, home: Path, damage: bytes) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"a" * 5000)
        settle(path)
        database = home / ".deadline" / "cache" / "dl_hash.sqlite"
        database.parent.mkdir(parents=True)
        database.write_bytes(damage)
        for _ in range(3):
            rows = run(str(path))
            assert files(rows)[0]["hash"] == xxh3_128_hexdigest(b"a" * 5000)
        assert cached(rows) == 1  # by now there is a new one

    def test_a_cache_that_cannot_be_written_costs_time_only(self, tmp_path: Path, home: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"a" * 5000)
        settle(path)
        (home / ".deadline").write_bytes(b"no folder")
        assert len(files(run(str(path)))) == 1

    def test_many_processes_share_it(self, tmp_path: Path, home: Path) -> None:
        for part in range(4):
            folder = tmp_path / f"in{part}"
            folder.mkdir()
            for n in range(50):
                (folder / f"f{n}").write_bytes(bytes([part, n]) * 2500)
        settle(tmp_path / "in3" / "f49")
        processes = [
            subprocess.Popen([*COMMAND, str(tmp_path / f"in{n % 4}")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for n in range(32)
        ]
        for n, process in enumerate(processes):
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0 and not err, err
            rows = [json.loads(line) for line in out.splitlines()]
            assert {row["path"]: row["hash"] for row in files(rows)} == {
                f"f{k}": xxh3_128_hexdigest(bytes([n % 4, k]) * 2500) for k in range(50)
            }
        for part in range(4):
            assert cached(run(str(tmp_path / f"in{part}"))) == 50

    def test_odd_names_are_found_again(self, tmp_path: Path, home: Path) -> None:
        names = ["a'b", 'q"', "new\nline", "é", "e\u0301", "😀", "%", "x" * 200]
        for name in names:
            (tmp_path / name).write_bytes(name.encode() * 5000)
        settle(*(tmp_path / name for name in names))
        words = ["--include", "*", "--exclude", "home", str(tmp_path)]
        assert cached(run(*words)) == 0
        assert cached(run(*words)) == len(names)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(st.lists(known_files, max_size=40), max_size=5), st.lists(file_names, max_size=40), st.integers(1, 9)
    )
    def test_find_tells_what_was_kept_last(
        self, tmp_path: Path, batches: list[list[cache_module.Known]], asked: list[str], longest: int
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache_module, "LONGEST_RUN", longest)
            (tmp_path / "c").unlink(missing_ok=True)
            wanted: dict[str, object] = {}
            for rows in batches:
                cache = Cache(str(tmp_path / "c"))
                cache.keep(rows)
                cache.close()
                assert cache.broken is None
                wanted.update({row[0]: row for row in rows})
            cache = Cache(str(tmp_path / "c"))
            assert cache.find(asked) == {path: wanted[path] for path in asked if path in wanted}
            assert cache.find([*wanted]) == wanted
            if wanted:
                connection = sqlite3.connect(tmp_path / "c")
                rows = connection.execute("SELECT folder, first, files FROM runs ORDER BY folder, first").fetchall()
                runs = [(row[0], cache_module._unpacked(*row)) for row in rows]
                stored = [f"{folder}/{name}" for folder, files in runs for name in sorted(files)]
                assert sorted(stored) == sorted(wanted)  # each once
                assert stored == sorted(stored, key=lambda path: (path.rpartition("/")[0], path.rpartition("/")[2]))
                assert all(len(files) <= longest for _, files in runs)
                connection.close()
            cache.close()

    def test_a_huge_folder_is_asked_for_a_few_names(self, tmp_path: Path) -> None:
        cache = Cache(str(tmp_path / "c"))
        rows = [(f"/d/{n:05}", n, -n, n, (1 << 63) - 1 - n, f"{n:032x}") for n in range(20_000)]
        for start in range(0, len(rows), 3000):
            cache.keep(rows[start : start + 3000])
        assert cache.broken is None
        few = [rows[n] for n in (0, 511, 512, 9999, 19_999)]
        assert cache.find([*(row[0] for row in few), "/d/none", "/e/1", "/d/"]) == {row[0]: row for row in few}
        assert cache.find([row[0] for row in rows]) == {row[0]: row for row in rows}
        cache.close()


def test_memory_stays_small_for_large_files_and_many_names(tmp_path: Path, home: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(200 << 20)
    (tmp_path / "many").mkdir()
    for n in range(6000):
        (tmp_path / "many" / f"a-name-of-some-length-{n:08}").touch()
    # The peak of a process begins with that of the one that starts it, and pytest's is high.
    starter = "import resource, subprocess, sys; subprocess.check_call(sys.argv[1:], stdout=subprocess.DEVNULL); "
    starter += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    words = [sys.executable, "-c", starter, *COMMAND, "--no-cache", str(tmp_path)]
    peak = int(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    assert 8 << 10 < peak < 40 << 10  # KiB
