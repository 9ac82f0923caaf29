"""The farm as an ordinary user: nothing needs more than that, and nothing of it is open to others."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

STRANGER = 54_321  # a user id that no system gives out and that /etc/passwd doesn't know
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
LISTENING, UNCONNECTED = "0A", "07"
SECRETS = ("keys/master", "keys/access.json", "aws/credentials", "config.json", "farm.sqlite", "logs.sqlite")
TEMPLATE = {
    "specificationVersion": "jobtemplate-2023-09",
    "name": "Who",
    "parameterDefinitions": [
        {"name": "Words", "type": "PATH", "objectType": "FILE", "dataFlow": "IN", "default": "words.txt"}
    ],
    "steps": [
        {
            "name": "Who",
            "script": {
                "actions": {"onRun": {"command": "bash", "args": ["{{Task.File.Run}}"]}},
                "embeddedFiles": [
                    {
                        "name": "Run",
                        "type": "TEXT",
                        "data": 'echo "I am $(id -u), groups $(id -G)"; cat "{{Param.Words}}"',
                    }
                ],
            },
        }
    ],
}


class Person:
    """Someone with a home folder. `run` runs a command as them, with nothing of root's."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.farm = home / ".deadline" / "farm"
        self.id = os.geteuid() or STRANGER
        self.before = as_a_stranger() if os.geteuid() == 0 else []

    def run(self, *words: str) -> str:
        commands = Path(sys.executable).parent
        environment = {"HOME": str(self.home), "PATH": f"{commands}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(
            [*self.before, *words],
            env=environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def processes(self) -> list[Path]:
        """The folders in /proc of all that carries the farm's mark."""
        mark = f"DEADLINE_LOCAL_FARM={self.farm.resolve()}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(entry)
            except OSError:
                pass  # another user's, or gone
        return found


def as_a_stranger() -> list[str]:
    """What comes before a command that root runs as a stranger.

    Where root keeps Python or this installation in a folder that others may not enter (a home, mostly), the command
    gets a view of the file system of its own, in which this folder holds nothing but them and may be entered.
    """
    become = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "--inh-caps=-all"]
    needed = sorted({sys.prefix, sys.base_prefix})
    closed = {
        str(next(parent for parent in reversed(Path(place).parents) if not parent.stat().st_mode & stat.S_IXOTH))
        for place in needed
        if not all(parent.stat().st_mode & stat.S_IXOTH for parent in Path(place).parents)
    }
    if not closed:
        return become
    steps = ["set -e", "aside=$(mktemp -d)", "mount -t tmpfs none $aside"]
    inside = [place for place in needed if any(place.startswith(f"{folder}/") for folder in closed)]
    for number, place in enumerate(inside):
        steps += [f"mkdir $aside/{number}", f"mount --bind {shlex.quote(place)} $aside/{number}"]
    steps += [f"mount -t tmpfs -o mode=755 none {shlex.quote(folder)}" for folder in closed]
    for number, place in enumerate(inside):
        steps += [f"mkdir -p {shlex.quote(place)}", f"mount --bind $aside/{number} {shlex.quote(place)}"]
    steps += ["umount -l $aside", "rmdir $aside", 'exec "$@"']
    view = ["unshare", "--mount", "--propagation=private", "sh", "-c", "\n".join(steps), "sh"]
    tried = subprocess.run([*view, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"others cannot run {inside}: {closed} is closed to them, and may not be covered: {tried.stderr}")
    return [*view, *become]


def sockets(process: Path) -> set[str]:
    """The inode numbers of a process's sockets."""
    targets = [os.readlink(each) for each in (process / "fd").iterdir()]
    return {target[8:-1] for target in targets if target.startswith("socket:[")}


def bound(inodes: set[str]) -> list[str]:
    """The addresses, in the hexadecimal of /proc/net, that those of `inodes` listen at."""
    rows = []
    for name in ("tcp", "tcp6", "udp", "udp6"):
        path = Path("/proc/net") / name
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[9] in inodes and fields[3] in (LISTENING, UNCONNECTED):
                rows.append(fields[1].partition(":")[0])
    return rows


@pytest.fixture
def person() -> Iterator[Person]:
    home = Path(tempfile.mkdtemp(prefix="dl-person-"))  # pytest's own folders are closed to others
    made = Person(home)
    try:
        bundle = home / "bundle"
        bundle.mkdir()
        (bundle / "template.json").write_text(json.dumps(TEMPLATE))
        (bundle / "words.txt").write_text("words of the bundle")
        for path in (home, bundle, *bundle.iterdir()):
            os.chown(path, made.id, made.id if os.geteuid() == 0 else os.getegid())
        yield made
        made.run("dl-farm", "down")
        assert made.processes() == []
    finally:
        for process in made.processes():
            os.kill(int(process.name), 9)
        shutil.rmtree(home, ignore_errors=True)


def test_an_ordinary_user_runs_a_farm_and_it_is_theirs_alone(person: Person) -> None:
    person.run("dl-farm", "up", "--workers=1")
    script = """set -eu
    eval "$(dl-farm env)"
    deadline bundle submit --yes bundle >&2
    job=$(dl-ls jobs | sed -n 's/.*"id":"\\(job-[0-9a-f]*\\)".*/\\1/p')
    dl-wait "$job" >&2
    echo "$job"
    """
    job = person.run("bash", "-c", script).strip()
    read = f'eval "$(dl-farm env)"; dl-logs {job}'
    give_up = time.monotonic() + 20
    while "words of the bundle" not in (said := person.run("bash", "-c", read)):  # the last lines come after the end
        assert time.monotonic() < give_up, said
    assert f"I am {person.id}, " in said, said

    processes = person.processes()
    commands = [(each / "cmdline").read_bytes().replace(b"\0", b" ").decode() for each in processes]
    for name in ("supervisord", "dl-farmd", "dl-s3d", "dl-worker-schedule"):
        assert any(name in command for command in commands), (name, commands)
    for process in processes:
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        assert status["Uid"].split() == [str(person.id)] * 4, status
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0, status
        assert not person.before or status["Groups"].split() + status["Gid"].split() == [str(person.id)] * 4, status

    addresses = bound({inode for process in processes for inode in sockets(process)})
    assert len(addresses) >= 2 and set(addresses) <= set(LOOPBACK), addresses

    for name in SECRETS:
        assert stat.S_IMODE((person.farm / name).stat().st_mode) == 0o600, name
    credentials = [path for path in person.farm.glob("workers/1/**/*") if "credentials" in path.name]
    assert credentials
    for path in [person.home, *person.home.rglob("*")]:
        assert path.lstat().st_uid == person.id, path
    for path in [person.farm, *person.farm.rglob("*")]:
        assert path.is_symlink() or not path.stat().st_mode & 0o077, path
