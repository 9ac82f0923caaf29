"""dl-worker-watch - watch the host: notices that it will go, and how busy it is

Usage:
  dl-worker-watch [options]

Options:
  --dir=<dir>    State folder of the worker. Default: $DL_WORKER_DIR, else
                 $DEADLINE_WORKER_PERSISTENCE_DIR, else /var/lib/deadline.
  --config=<file>
                 Configuration; by default worker.toml in the state folder, else
                 /etc/amazon/deadline/worker.toml.

On EC2 it looks every second whether the instance is to be stopped (spot interruption, auto scaling), and if so has
dl-worker-schedule drain the worker in the time that is left. Now and then it writes a line of host metrics to the
worker's log.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from libdeadline import command, statuses

from . import settings, supervision
from .folder import Folder, Wake, is_alive, read_json, write_json
from .host import Metadata

if TYPE_CHECKING:
    from libdeadline.command import Arguments, Run

NOTICE_S = 1.0  # between two looks at the instance metadata
TOKEN_S = 300
SCALING_GRACE_S = 120.0
NEVER_S = 3600.0


class Notices:
    """What EC2 says about the end of this instance."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self.token = metadata.token(TOKEN_S)
        self.token_until = monotonic() + TOKEN_S / 2

    @property
    def is_on_ec2(self) -> bool:
        return self.token is not None

    def look(self) -> tuple[float, str] | None:
        """The seconds that are left and why, once there is a notice."""
        if monotonic() > self.token_until:
            self.token = self.metadata.token(TOKEN_S) or self.token
            self.token_until = monotonic() + TOKEN_S / 2
        if self.token is None:
            return None
        action = self.metadata.get("spot/instance-action", self.token)
        if action:
            left_s = spot_left_s(action, datetime.now(UTC))
            if left_s is not None:
                return left_s, "the spot instance is to be interrupted"
        if self.metadata.get("autoscaling/target-lifecycle-state", self.token) == "Terminated":
            return SCALING_GRACE_S, "auto scaling is to terminate the instance"
        return None


def spot_left_s(text: str, now: datetime) -> float | None:
    """How long until a spot interruption, by the JSON of spot/instance-action; None if it is none."""
    import json

    try:
        fields = json.loads(text)
        at = datetime.fromisoformat(fields["time"])
    except (ValueError, KeyError, TypeError):
        return None
    if fields.get("action") not in ("stop", "terminate", "hibernate"):
        return None
    return max(1.0, (at - now).total_seconds())


class Metrics:
    """How busy the host is, as rates since the last look.

    Source: spec worker 5.4.
    """

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        self._time = monotonic()
        self._network, self._disk = psutil.net_io_counters(), psutil.disk_io_counters()
        psutil.cpu_percent()

    def sample(self) -> dict[str, str]:
        psutil = self._psutil
        passed = max(1e-3, monotonic() - self._time)
        network, disk = psutil.net_io_counters(), psutil.disk_io_counters()
        memory, swap, space = psutil.virtual_memory(), psutil.swap_memory(), psutil.disk_usage("/")

        def rate(read: Callable[[], float]) -> str:
            try:
                return str(round(max(0.0, read()) / passed))
            except (AttributeError, TypeError):
                return "NOT_AVAILABLE"

        before_network, before_disk = self._network, self._disk
        found = {
            "cpu-usage-percent": str(psutil.cpu_percent()),
            "memory-total-bytes": str(memory.total),
            "memory-used-bytes": str(memory.total - memory.available),
            "memory-used-percent": str(memory.percent),
            "swap-used-bytes": str(swap.used),
            "total-disk-bytes": str(space.total),
            "total-disk-used-bytes": str(space.used),
            "total-disk-used-percent": str(round(space.used / space.total * 100, 1)),
            "user-disk-available-bytes": str(space.free),
            "network-sent-bytes-per-second": rate(lambda: network.bytes_sent - before_network.bytes_sent),
            "network-recv-bytes-per-second": rate(lambda: network.bytes_recv - before_network.bytes_recv),
            "disk-read-bytes-per-second": rate(lambda: disk.read_bytes - before_disk.read_bytes),
            "disk-write-bytes-per-second": rate(lambda: disk.write_bytes - before_disk.write_bytes),
        }
        self._time, self._network, self._disk = monotonic(), network, disk
        return found


def ask_for_drain(folder: Folder, grace_s: float, message: str) -> bool:
    """Have dl-worker-schedule stop the worker within `grace_s`; whether there is one."""
    scheduler = read_json(folder.file("run", "schedule.lock"))
    if scheduler is None or not is_alive(scheduler):
        return False
    write_json(folder.file("run", "drain.json"), {"grace_s": grace_s, "message": message})
    os.kill(scheduler["pid"], signal.SIGTERM)
    return True


def watch(folder: Folder, known: settings.Settings, run: Run) -> None:
    """Watch until told to stop."""
    wake = Wake(folder.wake("watch"))
    notices = Notices(Metadata())
    metrics = Metrics() if known.host_metrics_logging else None
    every_s = known.host_metrics_logging_interval_s
    due = monotonic() + every_s
    has_asked = False
    while True:
        wait_s = NOTICE_S if notices.is_on_ec2 and not has_asked else NEVER_S
        if metrics is not None:
            wait_s = min(wait_s, max(0.0, due - monotonic()))
        wake.wait(wait_s)
        if metrics is not None and monotonic() >= due:
            due = monotonic() + every_s
            folder.tell_log("Metrics", "System", "host metrics", **metrics.sample())
        notice = notices.look() if notices.is_on_ec2 and not has_asked else None
        if notice:
            grace_s, message = notice
            run.warn(f"{message} in {grace_s:.0f} s")
            has_asked = ask_for_drain(folder, grace_s, message)


def main_of(args: Arguments, run: Run) -> int:
    known = settings.read(args["--dir"], args["--config"])
    folder = Folder(known.state_dir).prepare()
    held = folder.lock("watch")
    supervision.end_with_supervisor()
    try:
        watch(folder, known, run)
    except command.Stopped:
        pass
    finally:
        os.close(held)
    return statuses.OK


def main() -> int:
    return command.call(__doc__, main_of)
