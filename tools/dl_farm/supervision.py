"""supervisord of one farm: started, told what to run, ended with all that it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from libdeadline import statuses
from libdeadline.errors import Trouble

from . import environment
from .layout import HOST
from .programs import MARK, SERVERS, command_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .layout import Folder

START_S = 20.0  # for supervisord to answer
DRAIN_S = 30.0  # for workers to end their sessions
STOP_S = 20.0  # for the servers
KILL_S = 3.0  # between SIGTERM and SIGKILL for what is left
POLL_S = 0.05
RUNNING_STATES = ("STARTING", "RUNNING", "BACKOFF", "STOPPING")


class Supervisor:
    """The supervisord of a farm's folder, alive or not."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    # -- talking to it

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of its XML-RPC interface.

        Raises: OSError where it doesn't run; xmlrpc.client.Fault for what it refuses.
        """
        from http.client import HTTPException
        from xmlrpc.client import ProtocolError, ServerProxy

        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, serverurl=f"unix://{self.folder.control_socket}")
        try:
            target: Any = ServerProxy(f"http://{HOST}", transport=transport)
            for name in method.split("."):
                target = getattr(target, name)
            return target(*arguments)
        except (HTTPException, ProtocolError) as error:
            raise ConnectionError(f"supervisord answers nonsense: {error}") from error
        finally:
            transport.close()

    @property
    def is_running(self) -> bool:
        try:
            return self.call("supervisor.getState")["statename"] == "RUNNING"
        except OSError:
            return False

    def processes(self) -> list[dict[str, Any]]:
        """What supervisord tells of each process; nothing where it doesn't run."""
        try:
            return self.call("supervisor.getAllProcessInfo")
        except OSError:
            return []

    def failing(self) -> str | None:
        """The name of a server that supervisord has to start again and again, if there is one."""
        states = {each["name"]: each["statename"] for each in self.processes()}
        return next((name for name in SERVERS if states.get(name) in ("BACKOFF", "FATAL", "EXITED")), None)

    def has_all_workers(self) -> bool:
        """Whether every program of a worker runs, or has done its work."""
        found = [each for each in self.processes() if each["group"].startswith("worker")]
        return all(
            each["statename"] == "RUNNING" or (each["statename"] == "EXITED" and not each["exitstatus"])
            for each in found
        )

    # -- starting

    def start(self) -> None:
        """Start supervisord, in a session of its own, and wait until it answers.

        Raises: Trouble (69) with what it said.
        """
        folder = self.folder
        for name in (folder.control_socket, folder.pid_file):
            try:
                os.unlink(name)  # of one that was killed
            except FileNotFoundError:
                pass
        words = [sys.executable, "-m", f"{__package__}.holding", "-c", folder.conf]
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DEADLINE_", "DL_"))
        }
        output = folder.at("log", "supervisord.out")
        with open(output, "wb") as file:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**inherited, MARK: folder.path, "PATH": command_path(), **environment.past_proxies()},
                cwd=folder.path,
                start_new_session=True,
            )
        give_up = monotonic() + START_S
        while not self.is_running:
            if child.poll() is not None or monotonic() > give_up:
                with open(output, encoding="utf-8", errors="replace") as file:
                    said = " ".join(file.read().removeprefix("Error: ").partition("\nFor help")[0].split())[:300]
                if child.poll() is None:
                    child.kill()
                raise Trouble(f"supervisord does not start: {said or 'it says nothing'}", statuses.UNAVAILABLE)
            sleep(POLL_S)

    def update(self) -> None:
        """Bring what runs in line with the configuration file: add, end, and restart what changed."""
        ((added, changed, removed),) = self.call("supervisor.reloadConfig")
        self.stop_groups([*changed, *removed])
        for name in [*changed, *removed]:
            self.call("supervisor.removeProcessGroup", name)
        for name in [*changed, *added]:
            self.call("supervisor.addProcessGroup", name)
        # A program that was stopped, or that supervisord gave up, is started again; where nothing of its group runs,
        # also those that had done their work: a worker that was stopped has to enrol anew.
        from xmlrpc.client import Fault

        found = self.processes()
        alive = {each["group"] for each in found if each["statename"] in RUNNING_STATES}
        for each in found:
            is_over = each["statename"] in ("STOPPED", "FATAL")
            if is_over or (each["statename"] == "EXITED" and each["group"] not in alive):
                try:
                    self.call("supervisor.startProcess", f"{each['group']}:{each['name']}", False)
                except Fault:
                    pass  # it was quicker

    # -- ending

    def stop_groups(self, names: list[str], on_wait: Callable[[int], None] = lambda left: None) -> None:
        """Tell groups to stop, all at once, and wait until they have; supervisord kills what takes too long."""
        from xmlrpc.client import Fault

        for name in names:
            try:
                self.call("supervisor.stopProcessGroup", name, False)
            except Fault:
                pass  # no such group any more
        give_up = monotonic() + DRAIN_S
        while monotonic() < give_up:
            left = [each for each in self.processes() if each["group"] in names and each["statename"] in RUNNING_STATES]
            if not left:
                return
            on_wait(len(left))
            sleep(POLL_S)

    def stop(self, on_wait: Callable[[int], None] = lambda left: None) -> bool:
        """End the workers, then the servers and supervisord, then whatever else carries the farm's mark.

        Whether anything ran.
        Raises: Trouble (75) where a process can't be ended.
        """
        did_run = False
        if self.is_running:
            did_run = True
            pid = self.call("supervisor.getPID")
            workers = {each["group"] for each in self.processes() if each["group"].startswith("worker")}
            self.stop_groups(sorted(workers), on_wait)
            self.call("supervisor.shutdown")
            give_up = monotonic() + STOP_S
            while is_alive(pid) and monotonic() < give_up:
                sleep(POLL_S)
        did_run = self.end_leftovers() or did_run
        for name in (self.folder.control_socket, self.folder.pid_file):
            try:
                os.unlink(name)
            except FileNotFoundError:
                pass
        return did_run

    def end_leftovers(self) -> bool:
        """End processes of this farm that no supervisord looks after (any more). Whether there were any."""
        found = list(marked(self.folder.path))
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in marked(self.folder.path):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            give_up = monotonic() + KILL_S
            while left := list(marked(self.folder.path)):
                if monotonic() > give_up:
                    break
                sleep(POLL_S)
            if not left:
                return bool(found)
        raise Trouble(f"process {left[0]} of the farm cannot be ended: end it by hand", statuses.TRY_AGAIN)


def marked(path: str) -> Iterator[int]:
    """Ids of the living processes that carry the mark of the farm at `path`, other than ours and our parents."""
    own = _ancestors()
    mark = os.fsencode(f"{MARK}={path}")
    if os.path.isdir("/proc/self"):
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in own:
                continue
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        yield int(name)
            except OSError:
                continue  # someone else's, or gone
        return
    listed = subprocess.run(["ps", "-axEww", "-o", "pid=,command="], capture_output=True).stdout
    for line in listed.splitlines():
        pid, _, rest = line.strip().partition(b" ")
        if int(pid) not in own and (rest.endswith(b" " + mark) or b" " + mark + b" " in rest):
            yield int(pid)


def _ancestors() -> set[int]:
    """Our process and those above it: `down` may be typed in a shell that a job opened."""
    own, pid = {os.getpid()}, os.getppid()
    while pid > 1 and pid not in own:
        own.add(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return own


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        if os.path.isdir("/proc/self"):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def is_free(port: int) -> bool:
    """Whether a server could listen at a port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Distinct free ports."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
