"""dl-farm - a render farm on this machine: start it, stop it, point programs at it

Usage:
  dl-farm up [options] [--dir=<dir>] [--workers=<n>]
  dl-farm down [options] [--dir=<dir>]
  dl-farm status [options] [--dir=<dir>]
  dl-farm env [options] [--dir=<dir>] [--undo]
  dl-farm use [options] [--dir=<dir>] [--profile=<name>] [--undo]
  dl-farm reset [options] [--dir=<dir>] [--yes]
  dl-farm backup [options] [--dir=<dir>] [--] <copy>
  dl-farm restore [options] [--dir=<dir>] [--] <copy>
  dl-farm doctor [options] [--dir=<dir>]

Options:
  --dir=<dir>       Folder that holds all of the farm [default: ~/.deadline/farm].
  --workers=<n>     Workers to run, 0 to 100; without it as many as before, at
                    first half as many as there are cores.
  --profile=<name>  AWS profile that use adds to your files [default: dl-farm].
  --undo            With env: the commands that unset the variables. With use:
                    take back what use did.
  --yes             Delete without asking.

The first up makes a farm, a queue with attachments, a fleet and credentials; later ones start what is there. Up
returns when the servers answer and the workers are at work. Then

  eval "$(dl-farm env)"

points any AWS program of this shell at the farm, and use does so for all your shells.

Backup copies the farm as it is at one moment, also while it runs, into a new folder, or a new archive where <copy>
ends in .tar, .tar.gz or .tgz; restore makes a farm of such a copy, in a folder that is empty or not there. Doctor
tells what is wrong with the farm and how to mend it; it changes nothing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from libdeadline import command, statuses
from libdeadline.errors import Trouble

from .layout import Folder

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from libdeadline.command import Arguments, Run
    from libdeadline.records import Record

    from .doctor import Finding

RECORD_VERBS = ("up", "status", "backup", "restore", "doctor")
ANSWER_UNWELL = 1


def up(args: Arguments, run: Run) -> Folder:
    """Start, or bring up to date, all that belongs to the farm, and wait until it is ready.

    Raises: Trouble.
    """
    from . import default, environment, programs, resources
    from .supervision import Supervisor, free_ports, is_free

    _need_supervisor()
    folder = _folder(args)
    wanted = args.integer("--workers", 0, resources.MOST_WORKERS)
    os.umask(0o077)
    folder.make()
    with folder.locked():
        folder.read()
        settings, supervisor = folder.settings, Supervisor(folder)
        run.progress.update(message="starting the servers")
        is_running = supervisor.is_running
        if not is_running:
            folder.need_room()
            supervisor.end_leftovers()
            ports = settings.get("ports", {})
            if not ports or not all(is_free(port) for port in ports.values()):
                settings["ports"] = dict(zip(programs.SERVERS, free_ports(len(programs.SERVERS)), strict=True))
        if "token" not in settings:
            from secrets import token_hex

            settings |= {"version": 1, "token": token_hex(8), "region": folder.region, "account": folder.account}
        if wanted is not None or "workers" not in settings:
            settings["workers"] = max(1, (os.cpu_count() or 1) // 2) if wanted is None else wanted
        folder.write()
        environment.write_files(folder)
        _write_programs(folder)
        if is_running:
            supervisor.update()
        else:
            supervisor.start()
        session = resources.session(folder)
        resources.wait_for_servers(folder, session, supervisor.failing)
        client = session.client("deadline")
        run.progress.update(message="making farm, queue and fleet")
        resources.make(folder, client)
        if not os.path.exists(folder.at("client", "config")):
            environment.write_client_settings(folder)
        if _write_programs(folder):
            supervisor.update()
        default.refresh(folder)
        run.progress.update(message="waiting for the workers", done_count=0, total_count=settings["workers"])
        resources.wait_for_workers(
            folder, client, supervisor.has_all_workers, lambda count: run.progress.update(done_count=count)
        )
    return folder


def down(args: Arguments, run: Run) -> int:
    """Stop everything; nothing of the farm runs afterwards."""
    from .supervision import Supervisor

    folder = _folder(args)
    if not os.path.isdir(folder.at("run")):
        return statuses.OK
    _need_supervisor()
    with folder.locked():
        folder.read()
        run.progress.update(message="stopping")
        Supervisor(folder).stop(
            lambda left: run.progress.update(message=f"stopping the workers ({left} processes left)")
        )
    return statuses.OK


def environment_text(args: Arguments, run: Run) -> int:
    """Print the shell commands that point at the farm, or away from it."""
    from . import environment

    folder = _existing(args)
    text = environment.unsets(folder) if args["--undo"] else environment.exports(folder)
    sys.stdout.write(text)
    return statuses.OK


def use(args: Arguments, run: Run) -> int:
    """Make the farm the person's default, or take that back."""
    from . import default

    folder = _existing(args)
    with folder.locked():
        if not args["--undo"]:
            default.use(folder, args["--profile"])
        elif not default.undo(folder):
            run.warn("nothing to undo: this farm is not in use")
    return statuses.OK


def reset(args: Arguments, run: Run) -> int:
    """Stop everything and delete the farm's folder, with all jobs, logs and objects."""
    from shutil import rmtree

    from . import default

    folder = _folder(args)
    if not os.path.isdir(folder.path):
        return statuses.OK
    if not folder.exists and os.listdir(folder.path):
        raise Trouble(f"'{folder.path}' holds no farm: nothing is deleted", statuses.USAGE)
    if not args["--yes"]:
        if not os.isatty(0):
            raise Trouble(f"this would delete '{folder.path}' with all its jobs: say so by --yes", statuses.USAGE)
        sys.stderr.write(f"Delete '{folder.path}' with all its jobs, logs and files? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Trouble("nothing was deleted", statuses.USAGE)
    down(args, run)
    folder.read()
    default.undo(folder)
    socket_folder = os.path.dirname(folder.control_socket)
    try:
        if socket_folder != folder.at("run"):
            rmtree(socket_folder, ignore_errors=True)
        rmtree(folder.path)
    except OSError as error:
        raise Trouble(f"cannot delete '{error.filename}': {error.strerror}", statuses.IO) from None
    return statuses.OK


def back_up(args: Arguments, run: Run) -> dict[str, Any]:
    """Copy the farm; what is in the copy."""
    from . import backup

    os.umask(0o077)
    return backup.backup(_existing(args), args["<copy>"], run)


def restore(args: Arguments, run: Run) -> dict[str, Any]:
    """Make a farm of a copy; what is in it."""
    from . import backup

    os.umask(0o077)
    return backup.restore(_folder(args), args["<copy>"], run)


def findings(args: Arguments, run: Run) -> Iterator[Finding]:
    """What is right and wrong with the farm.

    Raises: Trouble (66) where there is none.
    """
    from . import doctor

    folder = _folder(args)
    if not any(os.path.lexists(folder.at(name)) for name in ("config.json", "farm.sqlite", "keys", "run")):
        raise Trouble(f"there is no farm in '{folder.path}': make one with 'dl-farm up'", statuses.NO_INPUT)
    return doctor.examine(folder, _option(folder), run)


# -- what is told of the farm


def resource_records(folder: Folder) -> Iterator[Record]:
    """The farm's ids, one record each."""
    from libdeadline.records import Resource

    settings = folder.settings
    farm = {"farmId": settings["farm_id"]}
    queue = {"s3BucketName": settings["bucket"], "rootPrefix": settings["root_prefix"]}
    yield Resource.of(resource="farm", id=settings["farm_id"], name="Local farm", data=farm)
    yield Resource.of(
        resource="queue",
        id=settings["queue_id"],
        name="Local queue",
        data={**farm, "queueId": settings["queue_id"], "jobAttachmentSettings": queue},
    )
    yield Resource.of(
        resource="fleet",
        id=settings["fleet_id"],
        name="Local fleet",
        data={**farm, "fleetId": settings["fleet_id"]},
    )


def state_records(folder: Folder) -> Iterator[Record]:
    """What runs: the servers, each process, the workers as the farm sees them, the queue with its jobs."""
    from libdeadline.records import Resource

    from . import programs, resources
    from .supervision import Supervisor

    processes = Supervisor(folder).processes() if os.path.exists(folder.control_socket) else []
    states = {each["name"]: each["statename"] for each in processes}
    for name in programs.SERVERS:
        state = states.get(name, "STOPPED")
        data: dict[str, Any] = {"url": folder.url(name)} if folder.settings else {}
        yield Resource.of(resource="server", id=f"dl-{name}", status=state, data=data)
    for each in processes:
        if each["name"] not in programs.SERVERS:
            data = {"group": each["group"], "pid": each["pid"], "description": each["description"]}
            yield Resource.of(resource="process", id=each["name"], status=each["statename"], data=data)
    if states.get("farmd") != "RUNNING" or "queue_id" not in folder.settings:
        return
    client = resources.session(folder).client("deadline", attempts=1)
    settings = folder.settings
    for worker in resources.workers(folder, client):
        data = {"farmId": settings["farm_id"], "fleetId": settings["fleet_id"]}
        yield Resource.of(resource="worker", id=worker["workerId"], status=worker["status"], data=data)
    ids = {"farmId": settings["farm_id"], "queueId": settings["queue_id"]}
    counts: dict[str, int] = {}
    for job in client.items("ListJobs", ids):
        status = job.get("taskRunStatus") or job["lifecycleStatus"]
        counts[status] = counts.get(status, 0) + 1
    yield Resource.of(
        resource="queue",
        id=settings["queue_id"],
        name="Local queue",
        data={"farmId": settings["farm_id"], "jobs": counts},
    )


def copy_record(note: dict[str, Any]) -> Record:
    """A copy that was made, or the farm that was made of one."""
    from libdeadline.records import Resource

    return Resource.of(resource="copy", id=note["path"], data={k: v for k, v in note.items() if k != "path"})


def summary(folder: Folder) -> str:
    """What a person wants to know after `up`."""
    settings = folder.settings
    option = _option(folder)
    workers = "1 worker" if settings["workers"] == 1 else f"{settings['workers']} workers"
    return f"""The farm is up: {workers}, all in {folder.path}

  farm   {settings["farm_id"]}
  queue  {settings["queue_id"]}

In this shell:       eval "$(dl-farm env{option})"
                     deadline bundle submit MY_BUNDLE
In all your shells:  dl-farm use{option}
What it is doing:    dl-farm status{option}
Stop it:             dl-farm down{option}
"""


def table(folder: Folder) -> str:
    """What `status` shows to a person."""
    rows = list(state_records(folder))
    shown = [row for row in rows if row["resource"] in ("server", "worker")]
    lines = [f"{folder.path}"]
    for row in shown:
        detail = row["data"].get("url", "")
        lines.append(f"  {row['resource']:8}{row['id']:42}{row.get('status', ''):12}{detail}".rstrip())
    for row in rows:
        if row["resource"] == "process" and row["status"] not in ("RUNNING", "EXITED"):
            lines.append(f"  process {row['id']:42}{row['status']:12}{row['data']['description']}".rstrip())
        if row["resource"] == "queue":
            counts = row["data"]["jobs"]
            jobs = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no jobs"
            lines.append(f"  queue   {row['id']:42}{jobs}")
    if shown and shown[0]["status"] == "STOPPED":
        lines.append(f"The farm is down. Start it with: dl-farm up{_option(folder)}")
    return "\n".join(lines) + "\n"


# -- the command


def stage(args: Arguments, run: Run) -> Generator[Record, None, int]:
    """What a program reads that asks for it."""
    if args["up"]:
        yield from resource_records(up(args, run))
    elif args["backup"]:
        yield copy_record(back_up(args, run))
    elif args["restore"]:
        yield copy_record(restore(args, run))
    elif args["doctor"]:
        answer = statuses.OK
        for found in findings(args, run):
            answer = ANSWER_UNWELL if found.status == "WRONG" else answer
            yield found.record()
        return answer
    else:
        yield from state_records(_existing(args))
    return statuses.OK


def told(args: Arguments, run: Run) -> int:
    """All that writes no records."""
    verbs = {"down": down, "env": environment_text, "use": use, "reset": reset}
    for name, verb in verbs.items():
        if args[name]:
            return verb(args, run)
    if args["doctor"]:
        return told_findings(args, run)
    if args["backup"]:
        text = copy_text("Copied", back_up(args, run))
    elif args["restore"]:
        note = restore(args, run)
        text = copy_text("Restored", note) + f"Start it with: dl-farm up{_option(_folder(args))}\n"
    else:
        text = summary(up(args, run)) if args["up"] else table(_existing(args))
    run.progress.clear()
    sys.stdout.write(text)
    return statuses.OK


def told_findings(args: Arguments, run: Run) -> int:
    """What doctor shows to a person: a line for each finding, and how many are bad."""
    wrong = 0
    for found in findings(args, run):
        wrong += found.status == "WRONG"
        run.print(found.line())
    told = {0: "The farm is well.", 1: "One thing needs attention."}
    run.print(told.get(wrong, f"{wrong} things need attention.") + "\n")
    return ANSWER_UNWELL if wrong else statuses.OK


def copy_text(did: str, note: dict[str, Any]) -> str:
    from .doctor import size_text

    return f"{did} {note['path']}: {note['objects']} objects ({size_text(note['bytes'])}), as of {note['made_at']}\n"


def main() -> int:
    writes_records = any(word in RECORD_VERBS for word in sys.argv[1:2]) and not os.isatty(1)
    return command.run(__doc__, stage) if writes_records else command.call(__doc__, told)


def _folder(args: Arguments) -> Folder:
    return Folder(args["--dir"])


def _existing(args: Arguments) -> Folder:
    """The folder of a farm that was made.

    Raises: Trouble (66).
    """
    folder = _folder(args)
    folder.read()
    if "queue_id" not in folder.settings:
        raise Trouble(f"there is no farm in '{folder.path}': make one with 'dl-farm up'", statuses.NO_INPUT)
    return folder


def _option(folder: Folder) -> str:
    """What to add to a command so that it means this farm."""
    from shlex import quote

    from .layout import DEFAULT_DIR

    return "" if folder.path == Folder(DEFAULT_DIR).path else f" --dir {quote(folder.path)}"


def _need_supervisor() -> None:
    from importlib.util import find_spec

    if find_spec("supervisor") is None:
        message = "supervisor is not installed: pip install 'deadline-tools[farm]'"
        raise Trouble(message, statuses.CONFIGURATION)


def _write_programs(folder: Folder) -> bool:
    """Write supervisord.conf; whether it changed."""
    from . import programs
    from .layout import replace

    return replace(folder.conf, programs.configuration(folder))
