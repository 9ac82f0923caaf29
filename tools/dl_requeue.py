"""dl-requeue - run tasks again that have ended

Usage:
  dl-requeue [options] [--] <job>

Options:
  --profile=<name>       AWS profile to use.
  --region=<name>        AWS region of the farm.
  --farm-id=<id>         Farm of the job.
  --queue-id=<id>        Queue of the job.
  --step-id=<id>         Only tasks of this step.
  --run-status=<states>  States to requeue from, separated by commas: suspended,
                         canceled, failed, succeeded, not_compatible
                         [default: suspended,canceled,failed].
  --dry-run              Change nothing; only write the records.

Writes a job record, and for each step a step record and then a task record
for each of its tasks in these states, with the state that it had.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import sleep
from typing import TYPE_CHECKING, Any

from libdeadline import command, statuses
from libdeadline.errors import Trouble
from libdeadline.records import Record, Step, Task

if TYPE_CHECKING:
    from libdeadline.aws import Client

STATES = ("SUSPENDED", "CANCELED", "FAILED", "SUCCEEDED", "NOT_COMPATIBLE")
BATCH = 100  # tasks in a request at most
ATTEMPTS = 5
PASSING = ("ThrottlingException", "InternalServerErrorException")


def requeued(client: Client, where: dict[str, str], tasks: list[dict[str, Any]], run: command.Run) -> list[str]:
    """Set tasks to PENDING, and return the ids of those that the service took.

    Those that it refused are reported as failures of the run.
    """
    done: list[str] = []
    for start in range(0, len(tasks), BATCH):
        left = {task["taskId"]: task for task in tasks[start : start + BATCH]}
        for attempt in range(ATTEMPTS):
            items = [
                {**where, "stepId": task["stepId"], "taskId": task["taskId"], "targetRunStatus": "PENDING"}
                for task in left.values()
            ]
            errors = {
                each["taskId"]: each for each in client.call("BatchUpdateTask", {"tasks": items}).get("errors", [])
            }
            done += [task_id for task_id in left if task_id not in errors]
            left = {task_id: left[task_id] for task_id in errors if task_id in left}
            passing = {task_id for task_id in left if errors[task_id].get("code") in PASSING}
            for task_id in [each for each in left if each not in passing or attempt == ATTEMPTS - 1]:
                run.fail(Trouble(f"cannot requeue task '{task_id}': {errors[task_id].get('message')}", statuses.DATA))
                del left[task_id]
            if not left:
                break
            sleep(0.5 * 2**attempt)
    return done


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    from libdeadline import jobs, targets

    states = {word.strip().upper() for word in args["--run-status"].split(",") if word.strip()}
    unknown = states.difference(STATES)
    if unknown or not states:
        raise Trouble(f"--run-status takes some of {', '.join(STATES)}, not '{args['--run-status']}'", statuses.USAGE)
    reached = targets.target(args)
    client = reached.session.client("deadline")
    where = {"farmId": reached.farm_id, "queueId": reached.queue_id, "jobId": args["<job>"]}
    yield jobs.record_of(client.call("GetJob", where), reached.farm_id, reached.queue_id)
    for step in client.items("ListSteps", where):
        if args["--step-id"] not in (None, step["stepId"]):
            continue
        counts = step.get("taskRunStatusCounts") or {}
        yield Step.of(
            step_id=step["stepId"],
            job_id=args["<job>"],
            name=step.get("name"),
            task_run_status=step.get("taskRunStatus"),
            task_run_status_counts=dict(counts),
        )
        if not any(counts.get(state) for state in states):
            continue
        tasks = [
            {**task, "stepId": step["stepId"]}
            for task in client.items("ListTasks", {**where, "stepId": step["stepId"]})
            if task.get("runStatus") in states
        ]
        done = None if args["--dry-run"] else set(requeued(client, where, tasks, run))
        for task in tasks:
            if done is None or task["taskId"] in done:
                run.count(tasks=1)
                yield Task.of(
                    task_id=task["taskId"],
                    step_id=step["stepId"],
                    job_id=args["<job>"],
                    step_name=step.get("name"),
                    run_status=task.get("runStatus"),
                    parameters=task.get("parameters") or None,
                )


def main() -> int:
    return command.run(__doc__, stage)
