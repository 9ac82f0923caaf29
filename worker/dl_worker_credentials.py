"""dl-worker-credentials - keep the fleet role's and the queue roles' credentials fresh

Usage:
  dl-worker-credentials [options]

Options:
  --dir=<dir>    State folder of the worker. Default: $DL_WORKER_DIR, else
                 $DEADLINE_WORKER_PERSISTENCE_DIR, else /var/lib/deadline.
  --config=<file>
                 Configuration; by default worker.toml in the state folder, else
                 /etc/amazon/deadline/worker.toml.
  --once         Renew what is due and end.

Renews each set 15 minutes before it expires, into the same files, whole or not at all.
"""

from __future__ import annotations

import os
from time import time
from typing import TYPE_CHECKING

from libdeadline import command, statuses
from libdeadline.errors import Trouble

from . import enrolment, queue_role, service, settings, supervision
from .folder import Folder, Wake
from .service import Farm

if TYPE_CHECKING:
    from libdeadline.command import Arguments, Run

EARLY_S = 15 * 60.0  # before it expires, a set is renewed
AGAIN_S = 60.0  # between two attempts within that time
LONGEST_S = 3600.0  # clocks jump and hosts sleep: look at least this often
ENROLMENT_S = 30.0


class Keeper:
    """Looks when each set expires, and renews it in time."""

    def __init__(self, folder: Folder, known: settings.Settings, run: Run) -> None:
        self.folder, self.known, self.run = folder, known, run
        self.wake = Wake(folder.wake("credentials"))
        self.tried: dict[str, float] = {}
        self.farm: Farm | None = None

    def keep(self) -> None:
        """Renew what is due, and sleep until something is, for ever."""
        while True:
            self.wake.wait(self.renew())

    def renew(self) -> float:
        """Renew what is due; for how long nothing will be."""
        now = self.folder.enrolment()
        if now is None or (now["status"] == "STARTING"):
            return ENROLMENT_S
        worker_id = now["worker_id"]
        if self.farm is None or self.farm.worker_id != worker_id:
            self.farm = Farm(self.folder, self.known, worker_id)
        farm = self.farm
        path = service.credentials_path(self.folder, worker_id)
        due = [self._renewed(worker_id, service.expiry(path), lambda: self._renew_fleet(farm))]
        for queue_id in self._queues():
            keys = os.path.join(queue_role.folder_of(self.folder, queue_id), "aws_credentials.json")
            due.append(
                self._renewed(
                    queue_id, service.expiry(keys), lambda queue_id=queue_id: self._renew_queue(farm, queue_id)
                )
            )
        return max(1.0, min(due) - time())

    def _queues(self) -> list[str]:
        place = self.folder.file("queues")
        return [name for name in sorted(os.listdir(place)) if os.path.exists(os.path.join(place, name, "role.json"))]

    def _renewed(self, name: str, expires: float | None, renew: object) -> float:
        """When a set is due next; it is renewed if that is now."""
        assert callable(renew)
        now = time()
        due = max((expires or 0) - EARLY_S, self.tried.get(name, 0) + AGAIN_S)
        if now < due:
            return min(due, now + LONGEST_S)
        self.tried[name] = now
        try:
            expires = renew()
        except (Trouble, OSError) as error:
            # An OSError: the queue's folder went with its last session meanwhile, or the disk is full.
            why = error.message if isinstance(error, Trouble) else str(error)
            self.run.warn(f"cannot renew the credentials of '{name}': {why}")
            self.folder.tell_log("AWSCreds", "Refresh", why, level="ERROR", resource=name)
            return now + AGAIN_S
        if expires is None:
            return now + LONGEST_S
        return max(expires - EARLY_S, now + AGAIN_S)

    def _renew_fleet(self, farm: Farm) -> float:
        path = service.credentials_path(self.folder, farm.worker_id)
        if (service.expiry(path) or 0) > time():
            try:
                return enrolment.assume_fleet_role(farm, _no_wait, own=True)
            except Trouble as trouble:
                # Those that are refused though they haven't expired, as after a reset of the farm: start from scratch.
                if service.is_passing(trouble):
                    raise
        return enrolment.assume_fleet_role(farm, _no_wait)

    def _renew_queue(self, farm: Farm, queue_id: str) -> float | None:
        return queue_role.refresh(farm, queue_id, _no_wait)


def _no_wait(seconds: float) -> None:
    # The next look is soon enough, and another set may be due before it.
    raise Trouble("the farm can't give credentials for now", statuses.TRY_AGAIN)


def main_of(args: Arguments, run: Run) -> int:
    known = settings.read(args["--dir"], args["--config"])
    folder = Folder(known.state_dir).prepare()
    held = folder.lock("credentials")
    supervision.end_with_supervisor()
    keeper = Keeper(folder, known, run)
    try:
        if args["--once"]:
            keeper.renew()
        else:
            keeper.keep()
    except command.Stopped:
        if args["--once"]:
            raise
    finally:
        os.close(held)
    return statuses.OK


def main() -> int:
    return command.call(__doc__, main_of)
