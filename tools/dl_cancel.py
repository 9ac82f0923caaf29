"""dl-cancel - cancel jobs, steps or tasks, or set their state otherwise

Usage:
  dl-cancel [options] [--] [<job>...]

Options:
  --profile=<name>   AWS profile to use.
  --region=<name>    AWS region of the farm.
  --farm-id=<id>     Farm of the jobs.
  --queue-id=<id>    Queue of the jobs.
  --step-id=<id>     Only this step of the job.
  --task-id=<id>     Only this task of the step.
  --to=<state>       canceled, suspended, failed, succeeded, ready, pending;
                     of a job also archived [default: canceled].
  --open-ended       Accept a stream without an end record.

Without a <job>, the jobs are those of the job records on standard input. The
state of tasks that have ended stays, unless --to is pending or ready. Does not
wait until it has taken effect: see dl-wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from libdeadline import command, statuses
from libdeadline.errors import Trouble
from libdeadline.records import Job, Record

STATES = ("CANCELED", "SUSPENDED", "FAILED", "SUCCEEDED", "READY", "PENDING", "ARCHIVED")


def change(args: command.Arguments, where: dict[str, str], state: str) -> tuple[str, dict[str, Any]]:
    """The request that sets the state of a job, or of the step or task that the options name.

    Raises: Trouble (64) where they contradict each other.
    """
    if args["--task-id"]:
        if not args["--step-id"]:
            raise Trouble("--task-id needs --step-id", statuses.USAGE)
        ids = {"stepId": args["--step-id"], "taskId": args["--task-id"]}
        operation, member = "UpdateTask", "targetRunStatus"
    elif args["--step-id"]:
        ids, operation, member = {"stepId": args["--step-id"]}, "UpdateStep", "targetTaskRunStatus"
    else:
        ids, operation, member = {}, "UpdateJob", "targetTaskRunStatus"
    if state == "ARCHIVED":
        if ids:
            raise Trouble("only a whole job can be archived", statuses.USAGE)
        member = "lifecycleStatus"
    return operation, {**where, **ids, member: state}


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    from libdeadline import targets

    state = args.choice("--to", STATES) or "CANCELED"
    change(args, {}, state)
    wanted = [Job.of(job_id=job_id) for job_id in args["<job>"]]
    if not wanted:
        for row in run.input(Job, open_ended=args["--open-ended"]):
            if isinstance(row, Job):
                wanted.append(row)
            else:
                yield row
    for job in wanted:
        given = {"--farm-id": job.farm_id or args["--farm-id"], "--queue-id": job.queue_id or args["--queue-id"]}
        reached = targets.target({**args, **given})
        where = {"farmId": reached.farm_id, "queueId": reached.queue_id, "jobId": job.job_id}
        try:
            reached.session.client("deadline").call(*change(args, where, state))
        except Trouble as trouble:
            run.fail(trouble)
            continue
        yield Job({**job, "farm_id": reached.farm_id, "queue_id": reached.queue_id})


def main() -> int:
    return command.run(__doc__, stage)
