"""dl-farm: what it promises when things go well, and when someone kills, damages or takes what it needs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMANDS = Path(sys.executable).parent


class Farm:
    """A farm of the test's own, driven by the command."""

    def __init__(self, home: Path, folder: Path | None = None) -> None:
        self.home = home
        self.folder = folder or home / "farm"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DEADLINE_", "DL_"))}
        self.environment = {**kept, "HOME": str(home), "PATH": f"{COMMANDS}:{os.environ['PATH']}"}

    def __call__(self, *words: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["dl-farm", *words, f"--dir={self.folder}"],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, (done.args, done.returncode, done.stdout, done.stderr)
        if status:
            assert done.stderr.count("\n") == 1 and done.stderr.startswith("dl-farm: "), done.stderr
        return done

    def records(self, *words: str) -> list[dict]:
        rows = [json.loads(line) for line in self(*words).stdout.splitlines()]
        assert rows[-1]["type"] == "end" and rows[-1]["ok"]
        return rows[:-1]

    @property
    def config(self) -> dict:
        return json.loads((self.folder / "config.json").read_text())

    def shell(self, script: str) -> str:
        exports = self("env").stdout
        done = subprocess.run(
            ["bash", "-c", f"set -u; {exports}{script}"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def farms(self) -> list[str]:
        """The farms that a client of AWS sees."""
        script = 'import boto3; print(*[f["farmId"] for f in boto3.client("deadline").list_farms()["farms"]])'
        return self.shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}").split()

    def processes(self) -> dict[int, str]:
        """Whatever carries the farm's mark: id to command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if f"DEADLINE_LOCAL_FARM={self.folder.resolve()}".encode() in (
                        entry / "environ"
                    ).read_bytes().split(b"\0"):
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
        return found

    def process(self, text: str) -> int:
        return next(pid for pid, command in self.processes().items() if text in command)


def until(condition: Callable[[], object], limit_s: float = 20) -> None:
    give_up = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm("reset", "--yes")
    assert farm.processes() == {}


@pytest.fixture(scope="module")
def idle_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    farm = Farm(tmp_path_factory.mktemp("idle"))
    farm("up", "--workers=0")
    yield farm.folder
    farm("reset", "--yes")


@pytest.fixture
def idle(tmp_path: Path, idle_folder: Path) -> Farm:
    """A farm without workers that tests share, each with a home of its own; they leave it as it was."""
    return Farm(tmp_path, idle_folder)


def test_a_farm_with_all_that_belongs_to_it(local: Farm) -> None:
    rows = {row["resource"]: row["id"] for row in local.records("up", "--workers=2")}
    assert local.farms() == [rows["farm"]]
    script = f"""
import boto3
d = boto3.client("deadline")
ids = dict(farmId="{rows["farm"]}")
queue = d.get_queue(**ids, queueId="{rows["queue"]}")
assert queue["jobAttachmentSettings"] == {{"s3BucketName": "deadline-local", "rootPrefix": "DeadlineCloud"}}, queue
assert queue["jobRunAsUser"]["runAs"] == "WORKER_AGENT_USER" and queue["roleArn"], queue
fleet = d.get_fleet(**ids, fleetId="{rows["fleet"]}")
assert fleet["maxWorkerCount"] == 100, fleet
links = d.list_queue_fleet_associations(**ids)["queueFleetAssociations"]
assert [(l["queueId"], l["fleetId"], l["status"]) for l in links] == [("{rows["queue"]}", "{rows["fleet"]}", "ACTIVE")]
workers = d.list_workers(**ids, fleetId="{rows["fleet"]}")["workers"]
assert len(workers) == 2 and all(w["status"] in ("STARTED", "IDLE") for w in workers), workers
keys = d.assume_queue_role_for_user(**ids, queueId="{rows["queue"]}")["credentials"]
s3 = boto3.client("s3", aws_access_key_id=keys["accessKeyId"], aws_secret_access_key=keys["secretAccessKey"],
                  aws_session_token=keys["sessionToken"])
s3.put_object(Bucket="deadline-local", Key="DeadlineCloud/x", Body=b"x", ExpectedBucketOwner="000000000000")
boto3.client("s3").get_object(Bucket="deadline-local", Key="DeadlineCloud/x")
"""
    local.shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}")
    settings = local.shell("dl-config get defaults.farm_id; dl-config get defaults.queue_id").split()
    assert settings == [rows["farm"], rows["queue"]]
    # Nobody else may read it, and the owner's key is nowhere that a worker is given.
    for path in [local.folder, *local.folder.rglob("*")]:
        assert not path.lstat().st_mode & 0o077 or stat.S_ISLNK(path.lstat().st_mode), path
    keys = json.loads((local.folder / "keys" / "access.json").read_text())
    secret = next(key["secret"] for key in keys.values() if key["principal"] == "admin")
    for pid, command in local.processes().items():
        assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes(), command
    for path in (local.folder / "workers").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_more_and_fewer_workers(local: Farm) -> None:
    def online() -> int:
        return sum(
            row["resource"] == "worker" and row["status"] in ("STARTED", "IDLE") for row in local.records("status")
        )

    def groups() -> set[str]:
        return {row["data"]["group"] for row in local.records("status") if row["resource"] == "process"}

    local("up", "--workers=1")
    first = local.process("dl-farmd")
    local("up", "--workers=3")
    assert (online(), groups()) == (3, {"worker1", "worker2", "worker3"})
    local("up", "--workers=1")
    until(lambda: (online(), groups()) == (1, {"worker1"}))
    local("up")
    assert groups() == {"worker1"}
    local("up", "--workers=0")
    assert groups() == set()
    assert local.process("dl-farmd") == first  # nothing else was disturbed


def test_up_from_another_shell_disturbs_nothing(local: Farm) -> None:
    local("up", "--workers=1")
    before = {pid for pid, command in local.processes().items() if "dl-worker-enroll" not in command}
    local("up", PATH=f"{COMMANDS}:/usr/bin:/bin", http_proxy="http://127.0.0.1:9", AWS_PROFILE="other", TERM="dumb")
    assert local.processes().keys() == before


def test_servers_that_are_killed_come_back_and_nobody_is_refused(local: Farm) -> None:
    local("up", "--workers=0")
    for name in ("farmd", "s3d"):
        port = local.config["ports"][name]
        killed = local.process(f"dl-{name}")
        os.kill(killed, signal.SIGKILL)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:  # at once, while it is away
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 4")
        assert local.process(f"dl-{name}") != killed
    assert len(local.farms()) == 1


def test_supervisord_killed(local: Farm) -> None:
    before = local.records("up", "--workers=1")
    os.kill(local.process("supervisord.conf"), signal.SIGKILL)
    assert len(local.processes()) >= 3  # the servers and the worker go on without it
    assert local.records("up") == before
    assert len(local.farms()) == 1
    os.kill(local.process("supervisord.conf"), signal.SIGKILL)
    local("down")
    assert local.processes() == {}


HEAD = """
import boto3, json, sys, time
c = json.load(open(sys.argv[1]))
d, s = boto3.client("deadline"), boto3.client("s3")
ids = {"farmId": c["farm_id"], "queueId": c["queue_id"]}
"""
SUBMIT = """
# The first attempt leaves a mark and takes its time.
code = "import os, sys, time; m = sys.argv[1]; os.path.exists(m) or (open(m, 'w').close(), time.sleep(60))"
run = {"command": "python3", "args": ["-c", code, sys.argv[2]]}
space = {"taskParameterDefinitions": [{"name": "T", "type": "INT", "range": "1-2"}]}
body = {"specificationVersion": "jobtemplate-2023-09", "name": "j",
        "steps": [{"name": "s", "parameterSpace": space, "script": {"actions": {"onRun": run}}}]}
for n in range(20):
    s.put_object(Bucket=c["bucket"], Key=f"k/{n}", Body=b"%d" % n)
job = d.create_job(**ids, template=json.dumps(body), templateType="JSON", priority=5)["jobId"]
while d.get_job(**ids, jobId=job).get("taskRunStatus") != "RUNNING":
    time.sleep(0.05)
print(job)
"""
FINISH = """
for n in range(20):
    assert s.get_object(Bucket=c["bucket"], Key=f"k/{n}")["Body"].read() == b"%d" % n
while (job := d.get_job(**ids, jobId=sys.argv[2]))["taskRunStatus"] != "SUCCEEDED":
    assert job["taskRunStatus"] not in ("FAILED", "CANCELED"), job
    time.sleep(0.1)
assert job["taskRunStatusCounts"]["SUCCEEDED"] == 2
print(job["taskFailureRetryCount"])
"""


def client(local: Farm, script: str, *words: object) -> str:
    """What a program of the farm's clients prints."""
    line = [sys.executable, "-c", HEAD + script, str(local.folder / "config.json"), *map(str, words)]
    return local.shell(shlex.join(line)).strip()


def test_everything_killed_at_once(local: Farm, tmp_path: Path) -> None:
    """What was acknowledged is there afterwards, and a job that was at work is done."""
    local("up", "--workers=1")
    job = client(local, SUBMIT, tmp_path / "mark")
    for pid in local.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    until(lambda: local.processes() == {})
    local("up")
    client(local, FINISH, job)


def test_down_in_good_order(local: Farm, tmp_path: Path) -> None:
    """Workers give back what they do while the servers still take it; nobody is to blame, and nothing is left open."""
    local("up", "--workers=1")
    job = client(local, SUBMIT, tmp_path / "mark")
    local("down")
    assert local.processes() == {}
    assert not (local.folder / "farm.sqlite-wal").exists()
    db = sqlite3.connect(local.folder / "farm.sqlite")
    assert db.execute("SELECT status FROM workers").fetchall() == [("STOPPED",)]
    assert db.execute("SELECT DISTINCT status FROM sessions").fetchall() == [("ENDED",)]
    assert db.execute("SELECT status, attempts FROM tasks").fetchall() == [("READY", 0)] * 2
    assert ("INTERRUPTED",) in db.execute("SELECT status FROM actions WHERE kind = 'taskRun'").fetchall()
    db.close()
    local("up")
    assert client(local, FINISH, job) == "0"


def listening(pids: Iterator[int]) -> set[str]:
    """The addresses at which processes listen, as the kernel tells them: a hexadecimal address and port."""
    texts = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6", "udp", "udp6")]
    rows = [line.split() for text in texts for line in text.splitlines()]
    bound = {row[9]: row[1] for row in rows if row[3] in ("0A", "07")}  # LISTEN; of UDP, any
    found = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(entry)
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(bound.get(target[8:-1], ""))
    return found - {""}


def test_ports_of_ones_choice_and_none_beyond_loopback(local: Farm) -> None:
    from dl_tools.dl_farm.supervision import free_ports

    chosen = dict(zip(("farmd", "s3d"), free_ports(2), strict=True))
    local.folder.mkdir(mode=0o700)
    (local.folder / "config.json").write_text(json.dumps({"ports": chosen, "settings": {"keep_jobs_days": 7}}))
    local("up", "--workers=1")
    assert local.config["ports"] == chosen and local.config["settings"] == {"keep_jobs_days": 7}
    assert listening(iter(local.processes())) == {f"0100007F:{port:04X}" for port in chosen.values()}


def test_a_port_that_someone_took(local: Farm) -> None:
    local("up", "--workers=1")
    local("use")
    ports = local.config["ports"]
    local("down")
    local("up")
    assert local.config["ports"] == ports
    local("down")
    with socket.create_server(("127.0.0.1", ports["farmd"])):
        local("up")
        assert local.config["ports"]["farmd"] != ports["farmd"]
        assert len(local.farms()) == 1
        url = f"http://127.0.0.1:{local.config['ports']['farmd']}"
        assert url in (local.home / ".aws" / "config").read_text()
        states = [row["status"] for row in local.records("status") if row["resource"] == "worker"]
        assert states in (["STARTED"], ["IDLE"])
    local("use", "--undo")
    assert not (local.home / ".aws").exists()


@pytest.mark.parametrize(("name", "workers"), [("it's 100% (ü), a=b; c#d", 1), ("x" * 120, 0)], ids=["odd", "long"])
def test_odd_folders(tmp_path: Path, name: str, workers: int) -> None:
    farm = Farm(tmp_path, tmp_path / name)
    try:
        farm("up", f"--workers={workers}")
        assert len(farm.farms()) == 1
        farm("down")
        assert farm.processes() == {}
    finally:
        farm("reset", "--yes")


@pytest.mark.parametrize("name", ['say "x"', "a #b", "a ;b"])
def test_a_folder_that_supervisord_cannot_be_told_of(tmp_path: Path, name: str) -> None:
    farm = Farm(tmp_path, tmp_path / name)
    farm("up", status=78)
    assert farm.processes() == {}


def test_two_at_once_make_one_farm(local: Farm) -> None:
    words = ["dl-farm", "up", "--workers=0", f"--dir={local.folder}"]
    both = [subprocess.Popen(words, env=local.environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [each.communicate(timeout=60)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(local.farms()) == 1


def test_interrupted_at_any_moment_it_makes_one_farm(local: Farm) -> None:
    words = ["dl-farm", "up", "--workers=0", f"--dir={local.folder}"]
    for delay_s in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        child = subprocess.Popen(words, env=local.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(timeout=delay_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    local("up")
    assert len(local.farms()) == 1
    script = (
        f'import boto3; print(len(boto3.client("deadline").list_queues(farmId="{local.config["farm_id"]}")["queues"]))'
    )
    assert local.shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}").strip() == "1"


def test_variables_survive_eval_in_any_folder(tmp_path: Path) -> None:
    farm = Farm(tmp_path, tmp_path / "it's $HOME `x`")
    farm("up", "--workers=0")
    try:
        seen = farm.shell('printf "%s\\n" "$AWS_CONFIG_FILE"')
        assert seen == f"{farm.folder}/aws/config\n"
        stale = {"AWS_ACCESS_KEY_ID": "AKIASTALE", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
        assert farm("env", **stale).stdout == farm("env").stdout
        proxied = farm("env", http_proxy="http://127.0.0.1:9", NO_PROXY="example.com").stdout
        assert "NO_PROXY=example.com,127.0.0.1\n" in proxied
        assert farm.shell('echo "${AWS_ACCESS_KEY_ID-none} ${AWS_ENDPOINT_URL-none}"') == "none none\n"
    finally:
        farm("reset", "--yes")


def test_use_and_edits_made_since(idle: Farm) -> None:
    aws = idle.home / ".aws"
    aws.mkdir(mode=0o755)
    (aws / "config").write_text("[default]\nregion = eu-west-1")  # no line break at the end
    (aws / "config").chmod(0o640)
    settings = idle.home / ".deadline" / "config"
    settings.parent.mkdir()
    settings.write_text("# mine\n[defaults]\naws_profile_name = work\n\n[profile-work defaults]\nfarm_id = farm-1\n")
    before = {path: path.read_bytes() for path in (aws / "config", settings)}

    idle("use", "--profile=here")
    assert stat.S_IMODE((aws / "config").stat().st_mode) == 0o640
    assert stat.S_IMODE((aws / "credentials").stat().st_mode) == 0o600
    idle("use", "--profile=here")  # once more changes nothing
    idle("use", "--undo")
    assert {path: path.read_bytes() for path in before} == before
    assert not (aws / "credentials").exists()

    idle("use", "--profile=here")
    with open(aws / "config", "a") as file:
        file.write("[profile later]\nregion = eu-west-2\n")
    subprocess.run(["dl-config", "set", "settings.log_level", "DEBUG"], env=idle.environment, check=True)
    idle("use", "--undo")
    text = (aws / "config").read_text()
    assert text == "[default]\nregion = eu-west-1\n[profile later]\nregion = eu-west-2\n"
    assert "aws_profile_name = work" in settings.read_text()
    assert "DEBUG" in settings.read_text() and "# mine" in settings.read_text()

    (aws / "config").write_text("[profile dl-farm]\nregion = eu-west-1\n")
    idle("use", status=78)
    assert (aws / "config").read_text() == "[profile dl-farm]\nregion = eu-west-1\n"
    assert "aws_profile_name = work" in settings.read_text()
    assert "not in use" in idle("use", "--undo").stderr


def test_use_of_a_link(idle: Farm) -> None:
    aws, kept = idle.home / ".aws", idle.home / "dotfiles"
    aws.mkdir()
    kept.mkdir()
    (kept / "config").write_text("[default]\n")
    (aws / "config").symlink_to(kept / "config")
    idle("use")
    assert (aws / "config").is_symlink() and "dl-farm" in (kept / "config").read_text()
    idle("use", "--undo")
    assert (aws / "config").is_symlink() and (kept / "config").read_text() == "[default]\n"


def test_use_in_a_shell_that_points_at_the_farm(idle: Farm) -> None:
    idle("use", status=64, AWS_CONFIG_FILE=str(idle.folder / "aws" / "config"))


def test_reset_takes_back_use(local: Farm) -> None:
    local("up", "--workers=0")
    local("use")
    assert (local.home / ".aws" / "config").exists()
    local("reset", "--yes")
    assert not (local.home / ".aws").exists() and not local.folder.exists()
    local("up", "--workers=0")
    assert len(local.farms()) == 1


# -- troubles, one line each


def test_troubles(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    farm("status", status=66)
    farm("env", status=66)
    farm("use", status=66)
    farm("up", "--workers=101", status=64)
    farm("up", "--workers=few", status=64)
    assert not farm.folder.exists()
    farm("down")
    farm("reset", "--yes")

    farm.folder.mkdir()
    (farm.folder / "thesis.txt").write_text("all of it")
    farm("reset", "--yes", status=64)
    assert (farm.folder / "thesis.txt").exists()
    (farm.folder / "config.json").write_text("{")
    for verb in ("up", "status", "env", "down"):
        if verb != "down":
            farm(verb, status=78)
    Farm(tmp_path, tmp_path / "farm" / "thesis.txt" / "x")("up", status=73)


def test_a_socket_file_that_nobody_serves(local: Farm) -> None:
    local("up", "--workers=0")
    local("down")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(local.folder / "run" / "supervisor.sock"))
    (local.folder / "run" / "supervisord.pid").write_text("1\n")
    assert local.records("status")[0]["status"] == "STOPPED"
    local("up")
    assert len(local.farms()) == 1


def test_no_home(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    del farm.environment["HOME"]
    farm.environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    farm("up", "--workers=0")
    farm("reset", "--yes")
    assert farm.processes() == {}


def test_the_full_disk(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", room], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    farm = Farm(tmp_path, room / "farm")
    try:
        done = subprocess.run(
            ["dl-farm", "up", "--workers=0", f"--dir={farm.folder}"],
            env=farm.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 73
        assert done.stderr.count("\n") == 1 and "make room" in done.stderr
        farm("down")
        assert farm.processes() == {}
    finally:
        subprocess.run(["umount", room], check=True)


def test_what_is_damaged_is_told(local: Farm) -> None:
    local("up", "--workers=0")
    local("down")
    (local.folder / "store" / "index.sqlite").rename(local.folder / "kept")
    (local.folder / "store" / "index.sqlite").write_bytes(b"no database" * 1000)
    done = local("up", status=69)
    assert "dl-s3d does not start" in done.stderr and "index" in done.stderr
    (local.folder / "kept").replace(local.folder / "store" / "index.sqlite")
    local("up")
    master = local.folder / "keys" / "master"
    kept = master.read_bytes()
    master.write_bytes(b"short")
    local("env")
    local("up", status=78)
    master.write_bytes(kept)


def test_people_get_text(idle: Farm) -> None:
    """On a terminal nothing is a record."""
    import pty

    for verb, text in (("up", "dl-farm env --dir "), ("status", "dl-s3d")):
        master, slave = pty.openpty()
        words = ["dl-farm", verb, f"--dir={idle.folder}"]
        child = subprocess.Popen(words, env=idle.environment, stdout=slave, stderr=slave, stdin=slave)
        os.close(slave)
        seen = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data
        os.close(master)
        assert child.wait() == 0
        assert text in seen.decode() and '"type"' not in seen.decode(), seen.decode()
