"""Checks of what runs: supervisord, servers, workers, and what nobody looks after."""

from __future__ import annotations

import os
from time import time
from typing import TYPE_CHECKING

from libdeadline.errors import Trouble

from . import resources
from .doctor import NOTE, OK, WRONG, Finding, tail
from .layout import HOST
from .programs import SERVERS
from .supervision import RUNNING_STATES, Supervisor, is_alive, is_free, marked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .doctor import Patient

LOOP_S = 600.0  # in which
LOOP_EXITS = 3  # unexpected ends of one program are a crash loop
LOG_BYTES = 1 << 20  # of supervisord's log, from its end


def supervisor(patient: Patient) -> Iterator[Finding]:
    """supervisord answers, or the farm is down as it should be."""
    from importlib.util import find_spec

    if find_spec("supervisor") is None:
        return  # told by the check of the packages
    place = patient.folder
    control = Supervisor(place)
    patient.is_up = control.is_running
    if patient.is_up:
        patient.processes = control.processes()
        pid = control.call("supervisor.getPID")
        yield Finding("supervisor", "supervisord", OK, f"runs as process {pid}")
        if _number(place.pid_file) != pid:
            text = f"does not name supervisord's process, {pid}"
            yield Finding("supervisor", place.pid_file, WRONG, text, patient.restart)
        return
    found = list(marked(place.path))
    if found:
        text = f"is gone, and {len(found)} processes of the farm live on without it (such as {found[0]})"
        yield Finding("supervisor", "supervisord", WRONG, text, f"{patient.up} (it ends them first)")
        return
    stale = [path for path in (place.pid_file, place.control_socket) if os.path.lexists(path)]
    pid = _number(place.pid_file)
    for path in stale:
        detail = f" by process {pid}, which is {'another program' if is_alive(pid) else 'gone'}" if pid else ""
        text = f"was left behind{detail}: supervisord was killed"
        yield Finding("supervisor", path, WRONG, text, f"{patient.up}, or dl-farm down{patient.option}")
    if not stale:
        yield Finding("supervisor", "supervisord", NOTE, "the farm is down", patient.up)


def processes(patient: Patient) -> Iterator[Finding]:
    """Every program runs, and goes on running."""
    if not patient.is_up:
        return
    ends = _unexpected_ends(patient)
    wrong = False
    for each in patient.processes:
        name, state = each["name"], each["statename"]
        subject = f"{each['group']}:{name}" if each["group"] != name else name
        log = each.get("stdout_logfile") or each.get("logfile") or ""
        is_done = state == "EXITED" and not each["exitstatus"]
        many = ends.get(name, 0) >= LOOP_EXITS
        if (state in ("RUNNING", "STARTING") or is_done) and not many:
            continue
        wrong = True
        if many:
            text = f"ended {ends[name]} times within {LOOP_S / 60:.0f} minutes"
            if state not in RUNNING_STATES:
                text += f", now {state}"
        else:
            text = f"is {state}"
        said = f"; it said last: {tail(log)}" if log else ""
        yield Finding("processes", subject, WRONG, f"{text}{said}", f"mend that, then {patient.up} (log: {log})")
    if not patient.processes or any(name not in {each["name"] for each in patient.processes} for name in SERVERS):
        wrong = True
        yield Finding("processes", "supervisord", WRONG, "does not look after the servers", patient.restart)
    if not wrong:
        yield Finding("processes", "processes", OK, f"{len(patient.processes)} run, or have done their work")


def _unexpected_ends(patient: Patient) -> dict[str, int]:
    """How often each program ended lately without being told to, as supervisord's log tells."""
    import re
    from datetime import datetime

    ends: dict[str, int] = {}
    path = patient.folder.at("log", "supervisord.log")
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ends
    pattern = re.compile(r"(\S+ \S+),\d+ \w+ exited: (\S+) \(.*not expected\)")
    for line in lines:
        if found := pattern.match(line):
            try:
                at = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").timestamp()
            except ValueError:
                continue
            if at > time() - LOOP_S:
                ends[found[2]] = ends.get(found[2], 0) + 1
    return ends


def servers(patient: Patient) -> Iterator[Finding]:
    """The servers answer signed requests, at this machine's own address alone."""
    if not patient.has_settings:
        return
    place = patient.folder
    ports = place.settings["ports"]
    if not patient.is_up:
        for name in SERVERS:
            if not is_free(ports[name]) and not list(marked(place.path)):
                text = f"port {ports[name]} is taken by another program"
                yield Finding("servers", f"dl-{name}", NOTE, text, "none: up takes another port")
        return
    session = resources.session(place) if patient.has_keys else None
    for name in SERVERS:
        subject = f"dl-{name}"
        remedy = f"see {place.at('log', f'{name}.log')}, then {patient.restart}"
        if session is None:
            yield Finding("servers", subject, WRONG, "cannot be asked: there is no key to sign with", "see keys")
            continue
        try:
            if name == "farmd":
                client = session.client("deadline", attempts=1, timeout_s=resources.PROBE_S)
                client.call("ListFarms", {"maxResults": 1})
                session.client("sts", attempts=1, timeout_s=resources.PROBE_S).call("GetCallerIdentity", {})
                session.client("logs", attempts=1, timeout_s=resources.PROBE_S).call(
                    "DescribeLogStreams", {"logGroupName": f"/aws/deadline/{place.settings['farm_id']}/none"}
                )
            else:
                resources.ask_s3(place, "GET", "/", resources.PROBE_S)
        except Trouble as trouble:
            if "ResourceNotFound" not in (getattr(trouble, "code", "") or ""):
                text = f"does not answer at {place.url(name)}: {trouble.message}"
                yield Finding("servers", subject, WRONG, text, remedy)
                continue
        patient.answering.add(name)
        yield Finding("servers", subject, OK, f"answers at {place.url(name)}")
    for name, address in _open_to_others(ports):
        text = f"other machines can reach it: it listens at {address}, not at {HOST}"
        yield Finding("servers", f"dl-{name}", WRONG, text, patient.restart)


def _open_to_others(ports: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Servers that listen at more than the loopback address, where the system tells."""
    names = {ports[name]: name for name in SERVERS}
    for table, loopback in (
        ("tcp", ("0100007F",)),
        ("tcp6", ("0" * 24 + "01000000", "0000000000000000FFFF00000100007F")),
    ):
        try:
            with open(f"/proc/net/{table}", encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        for row in rows:
            address, _, port = row[1].partition(":")
            if row[3] == "0A" and int(port, 16) in names and address not in loopback:
                yield names[int(port, 16)], "every address" if not address.strip("0") else f"address {address}"


def workers(patient: Patient) -> Iterator[Finding]:
    """As many workers as there should be are enrolled and tell that they live."""
    if "farmd" not in patient.answering:
        return
    place = patient.folder
    client = resources.session(place).client("deadline", attempts=1, timeout_s=10.0)
    wanted = place.settings["workers"] if isinstance(place.settings.get("workers"), int) else 0
    rows = {row["workerId"]: row for row in resources.workers(place, client)}
    own: dict[str, str] = {}
    for number in range(1, wanted + 1):
        worker_id = _worker_id(place.at("workers", str(number), "worker.json"))
        if worker_id is None:
            text = "has not enrolled" if patient.is_up else "has never enrolled"
            said = tail(place.at("workers", str(number), "log", "dl-worker-enroll.log"))
            where = place.at("workers", str(number), "log")
            yield Finding("workers", f"worker {number}", WRONG, f"{text}; it said last: {said}", f"see {where}")
        else:
            own[worker_id] = f"worker {number}"
    good = 0
    for worker_id, subject in own.items():
        row = rows.get(worker_id)
        if row is None:
            text = f"says it is {worker_id}, which the farm does not know"
            remedy = f"rm {place.at('workers', subject.split()[1], 'worker.json')} && {patient.restart}"
            yield Finding("workers", subject, WRONG, text, remedy)
        elif row["status"] not in resources.ONLINE:
            where = place.at("workers", subject.split()[1], "log")
            text = f"({worker_id}) is {row['status']}"
            yield Finding("workers", subject, WRONG, text, f"{patient.up}; its logs are in {where}")
        else:
            good += 1  # who was not heard of for long, the farm calls NOT_RESPONDING
    others = sum(row["status"] == "NOT_RESPONDING" for worker_id, row in rows.items() if worker_id not in own)
    if others:
        text = f"{others} workers that this farm does not run were not heard of for long"
        yield Finding("workers", "other workers", NOTE, text, "delete them (aws deadline delete-worker), or start them")
    if good == wanted:
        yield Finding("workers", "workers", OK, f"{good} of {wanted} at work")


def capabilities(patient: Patient) -> Iterator[Finding]:
    """The fleet says of its workers what this machine has."""
    if "farmd" not in patient.answering:
        return
    place = patient.folder
    ids = {"farmId": place.settings["farm_id"], "fleetId": place.settings["fleet_id"]}
    fleet = resources.session(place).client("deadline", attempts=1, timeout_s=10.0).call("GetFleet", ids)
    said = fleet["configuration"].get("customerManaged", {}).get("workerCapabilities", {})
    here = resources.capabilities()
    differing = []
    for name, value in here.items():
        told = said.get(name)
        if isinstance(value, dict) and isinstance(told, dict):
            # The memory that a kernel leaves differs by a little from boot to boot.
            slack = value["min"] // 20 if name == "memoryMiB" else 0
            fits = told.get("min", 0) <= value["max"] + slack and told.get("max", value["max"]) >= value["min"] - slack
            if not fits:
                differing.append(f"{name} {told.get('min')} to {told.get('max')}, here {value['min']}")
        elif told != value:
            differing.append(f"{name} {told}, here {value}")
    if differing:
        text = f"the fleet's worker capabilities are not this machine's: {'; '.join(differing)}"
        remedy = "put them right (aws deadline update-fleet): jobs that ask for more than there is would wait for ever"
        yield Finding("capabilities", fleet["fleetId"], WRONG, text, remedy)
    else:
        yield Finding("capabilities", fleet["fleetId"], OK, "the fleet's worker capabilities are this machine's")


def orphans(patient: Patient) -> Iterator[Finding]:
    """No process of the farm lives that nobody looks after."""
    if not patient.is_up:
        return  # told by the check of supervisord
    roots = {each["pid"] for each in patient.processes if each["pid"]}
    roots.add(Supervisor(patient.folder).call("supervisor.getPID"))
    found = [pid for pid in marked(patient.folder.path) if not _belongs(pid, roots)]
    for pid in found:
        text = f"({_command(pid)}) carries the farm's mark, and nothing of the farm looks after it"
        yield Finding("orphans", f"process {pid}", WRONG, text, f"kill {pid}")
    if not found:
        yield Finding("orphans", "processes", OK, "none is on its own")


def _belongs(pid: int, roots: set[int]) -> bool:
    """Whether a process stands below `roots`, or below a session, which outlives the program that started it."""
    seen: set[int] = set()
    while pid > 1 and pid not in seen:
        if pid in roots or "dl-session" in _command(pid):
            return True
        seen.add(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return not is_alive(pid) or not os.path.isdir("/proc/self")
    return False


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()[:200]
    except OSError:
        return "gone"


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _worker_id(path: str) -> str | None:
    import json

    try:
        with open(path, "rb") as file:
            found = json.load(file)["worker_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


CHECKS = (supervisor, processes, servers, workers, capabilities, orphans)
