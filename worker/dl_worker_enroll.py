"""dl-worker-enroll - make this host a worker of its fleet, or take it out

Usage:
  dl-worker-enroll [options] [--stop]

Options:
  --dir=<dir>    State folder of the worker. Default: $DL_WORKER_DIR, else
                 $DEADLINE_WORKER_PERSISTENCE_DIR, else /var/lib/deadline.
  --config=<file>
                 Configuration; by default worker.toml in the state folder, else
                 /etc/amazon/deadline/worker.toml.
  --stop         Tell the farm that the worker is STOPPED, instead of STARTED.

Makes the worker in the farm if worker.json names none, fetches the fleet role's credentials, and tells the farm that
the worker is STARTED and what this host can do. Ends as soon as that is done.
"""

from __future__ import annotations

import os
from time import sleep
from typing import TYPE_CHECKING

from libdeadline import command, statuses
from libdeadline.errors import Trouble

from . import enrolment, settings
from .folder import Folder, poke
from .service import Farm

if TYPE_CHECKING:
    from libdeadline.command import Arguments, Run

STOP_S = 10.0  # how long --stop tries
REPEAT_S = 5.0  # a supervisor starts a failed one-shot again at once: not more often than this


def main_of(args: Arguments, run: Run) -> int:
    known = settings.read(args["--dir"], args["--config"])
    folder = Folder(known.state_dir).prepare()
    if args["--stop"]:
        worker_id = folder.worker().get("worker_id")
        if not worker_id:
            raise Trouble(f"there is no worker in '{folder.path}'", statuses.NO_INPUT)
        if not enrolment.set_status(Farm(folder, known, worker_id), "STOPPED", STOP_S):
            raise Trouble("the farm could not be told that the worker is STOPPED", statuses.UNAVAILABLE)
        enrolment.note_stopped(folder)
        return statuses.OK
    now = folder.enrolment()
    if enrolment.is_current(now) and folder.is_locked("schedule"):
        run.info("the worker is STARTED already")
        return statuses.OK
    if now is not None:
        # Whoever waits for an enrolment must not take that of an earlier life for ours.
        enrolment.note_stopped(folder, "STARTING")
    try:
        done = enrolment.enrol(
            folder, known, tell=lambda trouble: run.warn(f"{trouble.message}; asking again until it can")
        )
    except Trouble as trouble:
        folder.tell_log("Worker", "Status", trouble.message, level="ERROR")
        if os.environ.get("SUPERVISOR_ENABLED"):
            run.warn(f"{trouble.message}; trying again in {REPEAT_S:g} s")
            sleep(REPEAT_S)
        raise
    for name in ("schedule", "credentials", "logs"):
        poke(folder.wake(name))
    run.info(f"{done['worker_id']} is STARTED")
    return statuses.OK


def main() -> int:
    return command.call(__doc__, main_of)
