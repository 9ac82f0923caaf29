"""dl-farm backup, restore and doctor: a copy of a farm at work is a farm, and what was broken on purpose is told."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from test_dl_farm import Farm, until

TEMPLATE = {
    "specificationVersion": "jobtemplate-2023-09",
    "name": "Kept",
    "steps": [{"name": "S", "script": {"actions": {"onRun": {"command": "echo", "args": ["words to keep"]}}}}],
}


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm("reset", "--yes")
    assert farm.processes() == {}


def command(farm: Farm, *words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a verb that takes a path."""
    done = subprocess.run(
        ["dl-farm", words[0], f"--dir={farm.folder}", *map(str, words[1:])],
        env=farm.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, (done.args, done.returncode, done.stdout, done.stderr)
    assert not status or done.stderr.count("\n") == 1, done.stderr
    return done


def python(farm: Farm, script: str) -> str:
    """What a script says that has boto3's clients `d` and `s`, and the farm's settings `c`."""
    head = (
        "import boto3, json\n"
        f"c = json.load(open({str(farm.folder / 'config.json')!r}))\n"
        "ids = dict(farmId=c['farm_id'])\n"
        "d, s = boto3.client('deadline'), boto3.client('s3')\n"
    )
    return farm.shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(head + script)}")


def findings(farm: Farm) -> dict[tuple[str, str], dict]:
    """What doctor finds wrong, by check and subject; its status must agree."""
    done = subprocess.run(
        ["dl-farm", "doctor", f"--dir={farm.folder}"], env=farm.environment, capture_output=True, text=True, timeout=60
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[-1]["type"] == "end" and rows[-1]["ok"], (done.stdout, done.stderr)
    assert done.stderr == ""
    wrong = [row for row in rows[:-1] if row["status"] == "WRONG"]
    assert all(row["data"]["remedy"] for row in wrong), wrong
    assert done.returncode == (1 if wrong else 0)
    return {(row["data"]["check"], row["id"]): row["data"] for row in wrong}


def named_files(store: Path) -> dict[Path, int]:
    """The files that an index names, with their sizes."""
    with closing(sqlite3.connect(f"{(store / 'index.sqlite').as_uri()}?mode=ro", uri=True)) as db:
        texts = [row[0] for row in db.execute("SELECT files FROM object UNION ALL SELECT files FROM part")]
    return {store / "files" / name[-2:] / name: size for text in texts for name, size in json.loads(text)}


def test_a_farm_at_work_is_copied_and_the_copy_is_a_farm(local: Farm, tmp_path: Path) -> None:
    local("up", "--workers=1")
    script = f"""
j = d.create_job(**ids, queueId=c['queue_id'], template={json.dumps(TEMPLATE)!r}, templateType='JSON', priority=50)
for n in range(40): s.put_object(Bucket=c['bucket'], Key=f'kept/{{n}}', Body=bytes([n]) * n * 9000)
import time
while d.get_job(**ids, queueId=c['queue_id'], jobId=j['jobId']).get('taskRunStatus') != 'SUCCEEDED': time.sleep(.05)
print(j['jobId'])
"""
    job_id = python(local, script).strip()
    # Objects come, change and go all the while.
    busy = f"""
n = 0
while not __import__('os').path.exists({str(tmp_path / "enough")!r}):
    n += 1
    s.put_object(Bucket=c['bucket'], Key=f'busy/{{n % 7}}', Body=b'x' * (1 + n % 90) * 5000)
    s.delete_object(Bucket=c['bucket'], Key=f'busy/{{(n + 3) % 7}}')
    if n == 20: open({str(tmp_path / "started")!r}, 'w')
print(n)
"""
    counted: list[str] = []
    writer = threading.Thread(target=lambda: counted.append(python(local, busy)))
    writer.start()
    try:
        until((tmp_path / "started").exists)
        told = json.loads(command(local, "backup", tmp_path / "copy").stdout.splitlines()[0])
    finally:
        (tmp_path / "enough").touch()
        writer.join()
    assert int(counted[0]) > 20
    assert told["resource"] == "copy" and told["id"] == str(tmp_path / "copy") and told["data"]["objects"] >= 40
    assert sorted(path.name for path in tmp_path.iterdir() if ".new" in path.name) == []
    workers = python(local, "print(len(d.list_workers(**ids, fleetId=c['fleet_id'])['workers']))")

    again = Farm(tmp_path, tmp_path / "deep" / "again")
    command(again, "restore", tmp_path / "copy")
    try:
        files = named_files(again.folder / "store")
        assert len(files) >= 20 and all(path.stat().st_size == size for path, size in files.items())
        assert set((again.folder / "store" / "files").glob("*/*")) == set(files)
        for path in [again.folder, *again.folder.rglob("*")]:
            assert not path.stat().st_mode & 0o077, path
        again("up")  # beside the first one, which keeps its ports
        assert again.config["ports"] != local.config["ports"]
        check = f"""
job = d.get_job(**ids, queueId=c['queue_id'], jobId={job_id!r})
assert job['name'] == 'Kept' and job['taskRunStatus'] == 'SUCCEEDED', job
assert [j['jobId'] for j in d.list_jobs(**ids, queueId=c['queue_id'])['jobs']] == [{job_id!r}]
for n in range(40): assert s.get_object(Bucket=c['bucket'], Key=f'kept/{{n}}')['Body'].read() == bytes([n]) * n * 9000
l = boto3.client('logs')
group = f"/aws/deadline/{{c['farm_id']}}/{{c['queue_id']}}"
events = l.filter_log_events(logGroupName=group)['events']
assert any('words to keep' in e['message'] for e in events), events
print(len(d.list_workers(**ids, fleetId=c['fleet_id'])['workers']))
"""
        assert python(again, check) == workers  # the worker is the one that it was
        assert findings(again) == {}
    finally:
        again("reset", "--yes")
    assert findings(local) == {}  # what the copy shared with it is still there
    check = "print(s.get_object(Bucket=c['bucket'], Key='kept/39')['Body'].read() == bytes([39]) * 39 * 9000)"
    assert python(local, check) == "True\n"


@pytest.fixture(scope="module")
def down(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm that is down and holds a few objects; tests leave it as it was."""
    farm = Farm(tmp_path_factory.mktemp("down"))
    farm("up", "--workers=0")
    python(farm, "for n in range(5): s.put_object(Bucket=c['bucket'], Key=f'k/{n}', Body=b'y' * (n + 1) * 100_000)")
    farm("down")
    yield farm
    farm("reset", "--yes")


def test_what_backup_refuses(down: Farm, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        assert "there already" in command(down, "backup", tmp_path / name, status=73).stderr
    command(down, "backup", tmp_path / "file" / "x", status=73)
    command(down, "backup", down.folder / "inside", status=64)
    command(Farm(tmp_path, tmp_path / "none"), "backup", tmp_path / "copy", status=66)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine" and not (down.folder / "inside").exists()


def test_what_restore_refuses(down: Farm, tmp_path: Path) -> None:
    copy, again = tmp_path / "copy", Farm(tmp_path, tmp_path / "again")
    command(down, "backup", copy)
    command(again, "restore", tmp_path / "none", status=66)
    command(down, "restore", copy, status=73)  # there is a farm
    (tmp_path / "plain").mkdir()
    command(again, "restore", tmp_path / "plain", status=65)

    def refused(path: Path, change: bytes | None, text: str) -> None:
        kept = path.read_bytes()
        path.unlink()  # it may be the farm's own file
        if change is not None:
            path.write_bytes(change)
        assert text in command(again, "restore", copy, status=65).stderr
        assert not again.folder.exists() and not list(tmp_path.glob("*.new"))
        path.unlink(missing_ok=True)
        path.write_bytes(kept)
        path.chmod(0o600)

    path = copy / "farm.sqlite"
    refused(path, path.read_bytes()[:8192], "damaged")
    refused(path, None, "'farm.sqlite' is missing")
    refused(copy / "keys" / "master", None, "missing")
    refused(copy / "backup.json", None, "no copy")
    refused(copy / "backup.json", b'{"version": 99, "databases": {}}', "later version")
    file = next(path for path, size in named_files(copy / "store").items() if size > 1)
    refused(file, file.read_bytes()[:1], "cut")
    command(again, "restore", copy)
    assert again.config == down.config
    assert findings(again) == {}
    again("reset", "--yes")


def test_archives_that_are_cut_or_someone_elses(down: Farm, tmp_path: Path) -> None:
    again = Farm(tmp_path, tmp_path / "again")
    command(down, "backup", tmp_path / "copy.tar")
    whole = (tmp_path / "copy.tar").read_bytes()
    assert (tmp_path / "copy.tar").stat().st_mode & 0o777 == 0o600
    for name, content in {"a.tar": whole[: len(whole) // 3], "b.tar": b"no archive", "c.tgz": b""}.items():
        (tmp_path / name).write_bytes(content)
        command(again, "restore", tmp_path / name, status=65)
    for name, kind in (("../out", tarfile.REGTYPE), (f"{tmp_path}/out", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        with tarfile.open(tmp_path / "d.tar", "w") as tar:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/"
            tar.addfile(entry, io.BytesIO())
        command(again, "restore", tmp_path / "d.tar", status=65)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "b.tar", "c.tgz", "copy.tar", "d.tar"]
    again.folder.mkdir()
    command(again, "restore", tmp_path / "copy.tar")
    assert again.config == down.config
    assert findings(again) == {}
    command(down, "backup", tmp_path / "copy.tgz")
    command(again, "restore", tmp_path / "copy.tgz", status=73)
    again("reset", "--yes")
    command(again, "restore", tmp_path / "copy.tgz")
    assert findings(again) == {}


def test_an_object_whose_file_is_lost_is_left_out(down: Farm, tmp_path: Path) -> None:
    file = next(path for path, size in named_files(down.folder / "store").items() if size == 300_000)
    file.rename(tmp_path / "kept")
    try:
        wrong = findings(down)
        assert [key[0] for key in wrong] == ["store", "store"] and ("store", "s3://deadline-local/k/2") in wrong
        done = command(down, "backup", tmp_path / "copy")
        assert "1 objects" in done.stderr and json.loads(done.stdout.splitlines()[0])["data"]["objects"] == 4
        assert all(path.stat().st_size == size for path, size in named_files(tmp_path / "copy" / "store").items())
    finally:
        (tmp_path / "kept").rename(file)


def test_backup_killed_leaves_no_copy(down: Farm, tmp_path: Path) -> None:
    words = ["dl-farm", "backup", f"--dir={down.folder}", str(tmp_path / "copy")]
    child = subprocess.Popen(words, env=down.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: list(tmp_path.glob("copy.*.new")) or child.poll() is not None)
    child.terminate()
    assert child.wait() in (0, 128 + signal.SIGTERM)
    assert not list(tmp_path.glob("copy.*"))
    assert child.returncode == 0 or not (tmp_path / "copy").exists()


def test_a_database_is_copied_in_one_view_while_another_writes(tmp_path: Path) -> None:
    from dl_tools.dl_farm import backup

    from libdeadline.command import Run

    path, words = tmp_path / "live.sqlite", "x" * 2000
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE first (n INTEGER PRIMARY KEY, words TEXT)")
        db.execute("CREATE TABLE last (n INTEGER PRIMARY KEY, words TEXT)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO first VALUES (?, ?)", ((n, words) for n in range(10_000)))
        db.executemany("INSERT INTO last VALUES (?, ?)", ((n, words) for n in range(10_000)))
        db.execute("COMMIT")
    script = f"""
import itertools, sqlite3
db = sqlite3.connect({str(path)!r}, isolation_level=None)
for n in itertools.count(10000):
    db.execute("BEGIN")
    db.execute("INSERT INTO first VALUES (?, 'x')", (n,))
    db.execute("INSERT INTO last VALUES (?, 'x')", (n,))
    db.execute("UPDATE first SET words = ? WHERE n = ?", (str(n) * 300, n % 5000))
    db.execute("COMMIT")
    if n == 10100: print(flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        try:
            backup.copy_database(str(path), str(tmp_path / "copy.sqlite"), Run("test", "warning", "none"))
            assert writer.poll() is None
        finally:
            writer.kill()

    def counts(path: Path) -> list[int]:
        with closing(sqlite3.connect(path)) as db:
            return [db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("first", "last")]

    first, last = counts(tmp_path / "copy.sqlite")
    assert first == last > 10_000 and counts(path)[0] > first


# -- doctor


def test_doctor_of_a_farm_that_is_down(down: Farm, tmp_path: Path) -> None:
    assert findings(down) == {}
    assert Farm(tmp_path)("doctor", status=66)
    master, settings = down.folder / "keys" / "master", down.folder / "config.json"
    kept = {path: path.read_bytes() for path in (master, settings, down.folder / "store" / "index.sqlite")}

    master.chmod(0o644)
    down.folder.chmod(0o755)
    wrong = findings(down)
    assert set(wrong) == {("keys", str(master)), ("folder", str(down.folder))}
    for each in wrong.values():  # what it says to do is what mends it
        subprocess.run(["sh", "-c", each["remedy"]], check=True)
    assert findings(down) == {}

    master.write_bytes(b"short")
    assert "5 bytes" in findings(down)[("keys", str(master))]["text"]
    master.unlink()
    assert "No such file" in findings(down)[("keys", str(master))]["text"]
    master.write_bytes(kept[master])
    master.chmod(0o600)

    settings.write_text("{")
    assert set(findings(down)) == {("settings", str(settings))}
    for change, text in (
        ({"ports": {"farmd": 8000}}, "ports"),
        ({"ports": {"farmd": 8000, "s3d": 8000}}, "share"),
        ({"farm_id": "mine"}, "farm_id"),
        ({"workers": "many"}, "workers"),
        ({"settings": {"logs_max_bytes": "big"}}, "logs_max_bytes"),
        ({"settings": {"worker_look_s": -1}}, "worker_look_s"),
        ({"settings": []}, "settings"),
    ):
        settings.write_text(json.dumps(json.loads(kept[settings]) | change))
        assert text in findings(down)[("settings", str(settings))]["text"], change
    settings.write_bytes(kept[settings])

    index = down.folder / "store" / "index.sqlite"
    for damage in (b"no database" * 1000, kept[index][:4096] + b"\xff" * (len(kept[index]) - 4096)):
        index.write_bytes(damage)
        assert "damaged" in findings(down)[("databases", str(index))]["text"]
        command(down, "backup", tmp_path / "copy", status=65)
        assert os.listdir(tmp_path) == []
    index.write_bytes(kept[index])
    assert findings(down) == {}

    os.utime(settings, (4e9, 4e9))
    assert ("clock", "clock") in findings(down)
    os.utime(settings)
    (down.folder / "run" / "supervisord.pid").write_text("1\n")
    assert ("supervisor", str(down.folder / "run" / "supervisord.pid")) in findings(down)
    down("down")
    assert findings(down) == {}


def test_doctor_of_a_farm_that_runs(local: Farm) -> None:
    local("up", "--workers=1")
    assert findings(local) == {}
    # A server that was killed once is no news; one that cannot live is, with its reason.
    master = local.folder / "keys" / "master"
    kept = master.read_bytes()
    master.write_bytes(b"short")
    os.kill(local.process("dl-farmd"), signal.SIGKILL)
    until(lambda: len([line for line in supervisor_log(local) if "exited: farmd" in line]) >= 3)
    wrong = findings(local)
    assert "32 bytes" in wrong[("processes", "farmd")]["text"], wrong
    assert {("keys", str(master)), ("servers", "dl-farmd")} <= set(wrong)
    master.write_bytes(kept)
    local("down")
    (local.folder / "log" / "supervisord.log").unlink()
    local("up")
    assert findings(local) == {}

    with subprocess.Popen(["sleep", "300"], env={**os.environ, "DEADLINE_LOCAL_FARM": str(local.folder)}) as stray:
        wrong = findings(local)
        assert set(wrong) == {("orphans", f"process {stray.pid}")} and "sleep 300" in str(wrong)
        stray.kill()

    change = """
v = d.get_fleet(**ids, fleetId=c['fleet_id'])['configuration']
v['customerManaged']['workerCapabilities']['vCpuCount'] = {'min': 9000, 'max': 9000}
d.update_fleet(**ids, fleetId=c['fleet_id'], configuration=v)
"""
    python(local, change)
    wrong = findings(local)
    assert [key[0] for key in wrong] == ["capabilities"] and "9000" in str(wrong)
    python(local, change.replace("9000", str(os.cpu_count())))
    assert findings(local) == {}

    put = """
from xxhash import xxh3_128_hexdigest as h
for body in (b'abc', b'abc' * 100_000):
    s.put_object(Bucket=c['bucket'], Key=f"DeadlineCloud/Data/{h(body)}.xxh128", Body=body)
"""
    python(local, put)
    (file,) = (path for path, size in named_files(local.folder / "store").items() if size == 300_000)
    file.write_bytes(b"abX" * 100_000)
    assert "not what its name says" in str(findings(local))
    file.write_bytes(b"abc" * 100_000)
    with closing(sqlite3.connect(local.folder / "store" / "index.sqlite")) as db:
        for damage, back in ((b"abc", b"abX"), (b"abX", b"abc")):
            db.execute("UPDATE content SET bytes = ? WHERE bytes = ?", (back, damage))
            db.commit()
            assert ("not what its name says" in str(findings(local))) == (back == b"abX")

    stop = ["supervisorctl", "-c", str(local.folder / "supervisord.conf"), "stop", "worker1:*"]
    subprocess.run(stop, env=local.environment, check=True, capture_output=True)
    wrong = findings(local)
    assert {key[0] for key in wrong} == {"processes", "workers"}
    local("up")  # the remedy
    assert findings(local) == {}

    os.kill(local.process("supervisord.conf"), signal.SIGKILL)
    wrong = findings(local)
    assert set(wrong) == {("supervisor", "supervisord")} and "live on without it" in str(wrong)


def supervisor_log(farm: Farm) -> list[str]:
    try:
        return (farm.folder / "log" / "supervisord.log").read_text().splitlines()
    except FileNotFoundError:
        return []


def test_doctor_of_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "none", room], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    farm = Farm(tmp_path, room / "farm")
    try:
        farm("up", "--workers=0")
        wrong = findings(farm)
        assert set(wrong) == {("disk", str(farm.folder))} and "MiB left" in str(wrong)
        # A copy that does not fit leaves nothing.
        (room / "full").write_bytes(bytes(60 << 20))
        with open(farm.folder / "store" / "files" / "00" / "big00", "wb") as file:
            file.write(bytes(20 << 20))
        with closing(sqlite3.connect(farm.folder / "store" / "index.sqlite")) as db, db:
            db.execute(
                "INSERT INTO object VALUES ('deadline-local', x'61', ?, 'e', 0, '{}', '{}', ?, NULL, NULL)",
                (20 << 20, json.dumps([["big00", 20 << 20]])),
            )
        command(farm, "backup", room / "copy.tar", status=73)
        assert sorted(os.listdir(room)) == ["farm", "full"]
        farm("down")
    finally:
        for pid in farm.processes():
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["umount", room], check=True)
