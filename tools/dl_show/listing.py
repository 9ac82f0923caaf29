"""Views of what dl-ls lists: jobs, workers, fleets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from libdeadline import statuses

from .view import View

COMPLETED = ("SUCCEEDED", "FAILED", "CANCELED")
IN_PROGRESS = ("RUNNING", "STARTING", "ASSIGNED")
PENDING = ("PENDING", "READY", "SCHEDULED")
SUMMARY = (
    ("ready", ("READY",)),
    ("running", ("RUNNING", "STARTING", "ASSIGNED", "SCHEDULED")),
    ("interrupting", ("INTERRUPTING",)),
    ("pending", ("PENDING",)),
    ("suspended", ("SUSPENDED",)),
    ("succeeded", ("SUCCEEDED",)),
    ("failed", ("FAILED",)),
    ("canceled", ("CANCELED",)),
    ("not compatible", ("NOT_COMPATIBLE",)),
)
NAME_CHARACTERS = 80


def time_left(job: dict[str, Any], now: datetime) -> str:
    """How long a job may still take, by the tasks that it did since it started, or N/A.

    Source: client specification, job list.
    """
    counts, started = job.get("taskRunStatusCounts"), job.get("startedAt")
    if not counts or not started:
        return "N/A"
    completed = sum(counts.get(name, 0) for name in COMPLETED)
    left = sum(counts.get(name, 0) for name in IN_PROGRESS + PENDING)
    if not completed or not left:
        return "N/A"
    return duration((now - started).total_seconds() / completed * left)


def duration(seconds: float) -> str:
    """Seconds in words: 5 seconds, 1 minute, 2 hours, 3 minutes."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} seconds"
    minutes, hours = whole // 60 % 60, whole // 3600

    def words(count: int, unit: str) -> str:
        return f"{count} {unit}" if count == 1 else f"{count} {unit}s"

    if not hours:
        return words(minutes, "minute")
    return words(hours, "hour") + (f", {words(minutes, 'minute')}" if minutes else "")


def jobs_view(view: View) -> int:
    """A page of jobs, newest first."""
    rows = view.resources()
    now = datetime.now(UTC)
    name = "name" if rows and "name" in rows[0] else "displayName"
    members = (name, "jobId", "taskRunStatus", "startedAt", "endedAt", "createdBy", "createdAt")
    listed = [
        {**{member: row.get(member, "") for member in members}, "estimatedTimeRemaining": time_left(row, now)}
        for row in rows
    ]
    offset = view.args.integer("--item-offset", 0)
    view.print(f"Displaying {len(rows)} of {view.counted('total')} Jobs starting at {offset}\n")
    view.yaml(listed)
    return statuses.OK


def workers_view(view: View) -> int:
    """A page of workers."""
    rows = view.resources()
    listed = [{member: row.get(member, "") for member in ("workerId", "status", "createdAt")} for row in rows]
    offset = view.args.integer("--item-offset", 0)
    view.print(f"Displaying {len(rows)} of {view.counted('total')} workers starting at {offset}\n")
    view.yaml(listed)
    return statuses.OK


def job_view(view: View) -> int:
    """All that the service tells about one job."""
    for row in view.resources():
        _print_job(view, row)
    return statuses.OK


def _print_job(view: View, row: dict[str, Any]) -> None:
    from libdeadline import yaml_text

    view.print(yaml_text.dump(row))
    view.print(f"estimatedTimeRemaining: {time_left(row, datetime.now(UTC))}")


def job_summary_view(view: View) -> int:
    """What a person needs to know of a job before it is changed."""
    members = (
        "name",
        "jobId",
        "taskRunStatus",
        "taskRunStatusCounts",
        "startedAt",
        "endedAt",
        "createdBy",
        "createdAt",
    )
    for row in view.resources():
        shown = {member: row.get(member, "") for member in members}
        counts = row.get("taskRunStatusCounts") or {}
        shown["taskRunStatusCounts"] = {name: count for name, count in counts.items() if count}
        view.yaml(shown)
    return statuses.OK


def job_matches_view(view: View) -> int:
    """The jobs that a search found: all about the only one, or a few lines of each."""
    term = view.args["--term"] or ""
    rows = view.resources()
    total = max(view.counted("total"), len(rows))
    if not rows:
        view.print(f'No jobs found matching "{term}"')
        return statuses.OK
    if total == 1:
        _print_job(view, rows[0])
        return statuses.OK
    view.print(f'Found {total} job(s) matching "{term}", showing most recent {len(rows)}:\n')
    for row in rows:
        counts = row.get("taskRunStatusCounts") or {}
        told = [(sum(counts.get(name, 0) for name in names), word) for word, names in SUMMARY]
        tasks = ", ".join(f"{count} {word}" for count, word in told if count) or "no tasks"
        created = row["createdAt"].astimezone().strftime("%Y-%m-%d %H:%M:%S %z") if row.get("createdAt") else ""
        view.print(f"  {shortened(row.get('name') or row.get('displayName') or '')}")
        view.print(f"    {row['jobId']}  {row.get('taskRunStatus', ''):<12}  {created}")
        view.print(f"    Tasks: {tasks}\n")
    if total > len(rows):
        view.print(f"  ... and {total - len(rows)} more")
    view.print("\nTo get details, run: deadline job get --job-id <job-id>")
    return statuses.OK


def shortened(name: str) -> str:
    """A name of at most NAME_CHARACTERS, two thirds of what is kept from its head and one from its tail."""
    if len(name) <= NAME_CHARACTERS:
        return name
    kept = NAME_CHARACTERS - 3
    head = kept * 2 // 3
    return f"{name[:head]}...{name[len(name) - (kept - head) :]}"


def queue_fleets_view(view: View) -> int:
    """The fleets of a queue, all about each."""
    rows = view.resources()
    fleets = [row for row in rows if "fleetId" in row]
    name = next((row.get("displayName") for row in rows if "fleetId" not in row), "")
    view.print(f"Showing all fleets ({len(fleets)} total) associated with queue: {name}")
    for fleet in fleets:
        view.print()
        view.yaml(fleet)
    return statuses.OK
