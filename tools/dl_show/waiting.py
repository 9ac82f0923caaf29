"""The view of a wait for a job."""

from __future__ import annotations

from typing import Any

from libdeadline import jobs, statuses
from libdeadline.errors import Trouble
from libdeadline.records import Job, Task

from .view import View, is_terminal

IN_PROGRESS = ("RUNNING", "STARTING", "ASSIGNED")
STATUSES = {"SUCCEEDED": 0, "FAILED": 2, "CANCELED": 3, "SUSPENDED": 4, "ARCHIVED": 4, "NOT_COMPATIBLE": 5}


def wait_view(view: View) -> int:
    """How a job goes on, and how it ended."""
    import json

    limit_s = view.args.seconds("--timeout")
    job: Job | None = None
    failed: list[dict[str, Any]] = []
    for row in view.input:
        if isinstance(row, Task):
            failed.append(
                {"stepId": row.step_id, "taskId": row.task_id, "stepName": row.step_name, "sessionId": row.session_id}
            )
        elif isinstance(row, Job):
            if not view.json and job is None:
                view.print(f"Waiting for job {row.job_id} to complete...\nJob Name: {row.name}")
            job = row
            if not view.json:
                _print_waiting(view, row, limit_s)
    if job is None:
        raise Trouble("there is no job in the stream", statuses.DATA)
    if not view.json and is_terminal():
        view.print()
    elapsed = job.elapsed_s or 0.0
    state = _ended_as(job)
    if state is None:
        told = f"Timeout waiting for job {job.job_id} to complete after {elapsed:.1f} seconds"
        if view.json:
            document = {"error": told, "timeout": True, "jobId": job.job_id, "jobName": job.name}
            view.print(json.dumps(document, indent=2))
        else:
            view.print(f"Job ID: {job.job_id}\nJob Name: {job.name}\nError waiting for job completion: {told}")
        return 1
    if view.json:
        document = {
            "jobId": job.job_id,
            "jobName": job.name,
            "status": state,
            "elapsedTime": elapsed,
            "failedTasks": failed,
        }
        view.print(json.dumps(document, indent=2))
    else:
        view.print(f"Job ID: {job.job_id}\nJob completed with status: {state}\nElapsed time: {elapsed:.1f} seconds")
        if failed:
            view.print(f"Found {len(failed)} failed tasks:")
            view.yaml(failed)
        else:
            view.print("No failed tasks found.")
    return 2 if failed else STATUSES.get(state, 2)


def _ended_as(job: Job) -> str | None:
    if job.lifecycle_status in ("CREATE_FAILED", "UPLOAD_FAILED", "ARCHIVED"):
        return str(job.lifecycle_status)
    return job.task_run_status if job.task_run_status in jobs.ENDED else None


def _print_waiting(view: View, job: Job, limit_s: float | None) -> None:
    counts = job.task_run_status_counts or {}
    workers = sum(counts.get(name, 0) for name in IN_PROGRESS)
    elapsed = job.elapsed_s or 0.0
    left = f", {max(0.0, limit_s - elapsed):.1f}s remaining" if limit_s else ""
    text = (
        f"Current status: {job.task_run_status or job.lifecycle_status} ({counts.get('SUCCEEDED', 0)}/"
        f"{sum(counts.values())} tasks succeeded, {workers} workers running). [{elapsed:.1f}s elapsed{left}]"
    )
    # A line that is drawn over on a terminal, a line for each change elsewhere.
    view.run.print(f"\r{text}\x1b[K" if is_terminal() else f"{text}\n")
