"""dl-wait - wait until jobs have ended, and tell how

Usage:
  dl-wait [options] [--] [<job>...]

Options:
  --profile=<name>            AWS profile to use.
  --region=<name>             AWS region of the farm.
  --farm-id=<id>              Farm of the jobs.
  --queue-id=<id>             Queue of the jobs.
  --timeout=<time>            Stop waiting after this long (90, 10m, 2h).
  --max-poll-interval=<time>  Longest pause between two looks [default: 120].
  --changes                   Write a job record at each change, not only at
                              the end.
  --open-ended                Accept a stream without an end record.

Waits for each <job>, or for the jobs whose records are on standard input, and
writes a job record for each and a task record for each failed task. The exit
status is that of the first job that did not succeed: 0 all succeeded, 1 timed
out, 2 failed, 3 cancelled, 4 archived or suspended, 5 not compatible.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from libdeadline import command, statuses
from libdeadline.errors import Trouble
from libdeadline.records import Job, Record, Task

if TYPE_CHECKING:
    from libdeadline.aws import Client

SUCCEEDED, TIMED_OUT, FAILED, CANCELLED, HALTED, NOT_COMPATIBLE = range(6)
ANSWERS = {
    "SUCCEEDED": SUCCEEDED,
    "FAILED": FAILED,
    "CANCELED": CANCELLED,
    "SUSPENDED": HALTED,
    "NOT_COMPATIBLE": NOT_COMPATIBLE,
}
FIRST_POLL_S = 0.2
POLL_SHARE = 0.05  # a pause is at most this part of the time waited: an end is noticed that much late, not minutes
OUTAGE_S = 300.0  # a service that does not answer for longer ends the wait
BUSY = ("RUNNING", "STARTING", "ASSIGNED")


def answer_of(job: dict[str, Any]) -> int | None:
    """The exit status that the state of a job stands for, or None while it goes on."""
    lifecycle = job.get("lifecycleStatus")
    if lifecycle in ("CREATE_FAILED", "UPLOAD_FAILED"):
        return FAILED
    if lifecycle == "ARCHIVED":
        return HALTED
    if lifecycle == "CREATE_IN_PROGRESS":
        return None
    return ANSWERS.get(job.get("taskRunStatus") or "")


def watched(
    client: Client, where: dict[str, str], run: command.Run, deadline: float | None, longest_s: float
) -> Iterator[tuple[dict[str, Any], int | None]]:
    """Yield the job at each look, with its answer; the last is the end, or TIMED_OUT.

    Raises: what the service answers, once it fails at first or for longer than OUTAGE_S.
    """
    began = monotonic()
    job: dict[str, Any] | None = None
    lost: float | None = None
    while True:
        try:
            job = client.call("GetJob", where)
            lost = None
        except Trouble as trouble:
            now = monotonic()
            if job is None or trouble.status not in (statuses.UNAVAILABLE, statuses.TRY_AGAIN):
                raise
            if lost is None:
                lost = now
                run.warn(f"cannot look at job '{where['jobId']}' for now: {trouble.message}")
            elif now - lost > OUTAGE_S:
                raise
        answer = answer_of(job)
        now = monotonic()
        if answer is None and deadline is not None and now >= deadline:
            answer = TIMED_OUT
        yield job, answer
        if answer is not None:
            return
        pause = min(longest_s, max(FIRST_POLL_S, POLL_SHARE * (now - began)))
        if deadline is not None:
            pause = min(pause, max(0.0, deadline - now))
        sleep(pause)


def failed_tasks(client: Client, where: dict[str, str]) -> Iterator[Task]:
    """Yield a task record for each failed task of a job, in the order of steps and tasks."""
    from libdeadline.jobs import session_of

    for step in client.items("ListSteps", where):
        if not (step.get("taskRunStatusCounts") or {}).get("FAILED"):
            continue
        for task in client.items("ListTasks", {**where, "stepId": step["stepId"]}):
            if task.get("runStatus") == "FAILED":
                yield Task.of(
                    task_id=task["taskId"],
                    step_id=step["stepId"],
                    job_id=where["jobId"],
                    step_name=step.get("name"),
                    run_status="FAILED",
                    parameters=task.get("parameters") or None,
                    session_id=session_of(task.get("latestSessionActionId")),
                    failure_retry_count=task.get("failureRetryCount"),
                )


def show(run: command.Run, job: dict[str, Any], rows: int) -> None:
    """Report how far a job is."""
    counts = job.get("taskRunStatusCounts") or {}
    total = sum(counts.values())
    done = sum(counts.get(name, 0) for name in ANSWERS if name != "SUSPENDED")
    busy = sum(counts.get(name, 0) for name in BUSY)
    name = job.get("name") or job["jobId"]
    status = job.get("taskRunStatus") or job.get("lifecycleStatus") or ""
    told = f"{name}: {status}" + (f", {busy} running" if busy else "") + (f" ({rows} jobs)" if rows > 1 else "")
    run.progress.update(message=told, done_count=done, total_count=total)


def stage(args: command.Arguments, run: command.Run) -> Generator[Record, None, int]:
    from libdeadline import jobs, targets

    began = monotonic()
    limit_s = args.seconds("--timeout")
    longest_s = max(FIRST_POLL_S, args.seconds("--max-poll-interval") or 0.0)
    wanted = [Job.of(job_id=job_id) for job_id in args["<job>"]]
    if not wanted:
        for row in run.input(Job, open_ended=args["--open-ended"]):
            if isinstance(row, Job):
                wanted.append(row)
            else:
                yield row
        if not wanted:
            raise Trouble("there is no job to wait for in the stream: name one, or pipe job records in", statuses.DATA)
    deadline = None if limit_s is None else began + limit_s
    reached: dict[tuple[str | None, str | None], targets.Target] = {}
    status = SUCCEEDED
    for row in wanted:
        place = (row.farm_id, row.queue_id)
        if place not in reached:
            given = {"--farm-id": row.farm_id or args["--farm-id"], "--queue-id": row.queue_id or args["--queue-id"]}
            reached[place] = targets.target({**args, **given})
        farm_id, queue_id = reached[place].farm_id, reached[place].queue_id
        client = reached[place].session.client("deadline")
        where = {"farmId": farm_id, "queueId": queue_id, "jobId": row.job_id}
        answer: int | None = None
        job: dict[str, Any] = {}
        told: Any = None
        for job, answer in watched(client, where, run, deadline, longest_s):
            show(run, job, len(wanted))
            state = (job.get("lifecycleStatus"), job.get("taskRunStatus"), job.get("taskRunStatusCounts"))
            if args["--changes"] and answer is None and state != told:
                told = state
                yield jobs.record_of(job, farm_id, queue_id, elapsed_s=round(monotonic() - began, 6))
                assert run.output is not None
                run.output.flush()
        tasks: list[Task] = []
        if answer not in (SUCCEEDED, TIMED_OUT):
            tasks = list(failed_tasks(client, where))
            if tasks:
                answer = FAILED
        if job.get("lifecycleStatus") == "CREATE_FAILED":
            run.warn(f"job '{row.job_id}' could not be created: {job.get('lifecycleStatusMessage')}")
        known = jobs.record_of(job, farm_id, queue_id, elapsed_s=round(monotonic() - began, 6))
        yield Job({**row, **known})
        yield from tasks
        status = status or answer or SUCCEEDED
    return status


def main() -> int:
    return command.run(__doc__, stage)
