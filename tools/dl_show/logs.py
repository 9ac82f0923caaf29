"""The view of a log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from libdeadline import statuses, times
from libdeadline.records import Job, Log, Resource, Session

from .view import View

LINES_A_WRITE = 256


def logs_view(view: View) -> int:
    """The lines of a session's log."""
    import json

    form = view.args.choice("--timestamp-format", ("utc", "local", "relative")) or "utc"
    job: Job | None = None
    session: Session | None = None
    page: dict[str, Any] = {}
    events: list[dict[str, Any]] = []
    count = 0
    waiting: list[str] = []
    for row in view.input:
        if isinstance(row, Job):
            job = row
        elif isinstance(row, Session):
            session = row
            if not view.json:
                _print_log_head(view, job, row, form)
        elif isinstance(row, Resource) and row.resource == "log_stream":
            page = row.data
        elif isinstance(row, Log):
            count += 1
            stamp = _stamp(row.timestamp, form, session)
            if view.json:
                taken = _stamp(row.ingestion_time, form, session) if row.ingestion_time else None
                events.append({"timestamp": stamp, "message": row.message, "ingestionTime": taken, "eventId": None})
            else:
                waiting.append(f"[{stamp}] {row.message}\n")
        if waiting and (len(waiting) >= LINES_A_WRITE or not _more_to_read()):
            view.run.print("".join(waiting))
            waiting.clear()
    if waiting:
        view.run.print("".join(waiting))
    token = page.get("nextToken")
    if view.json:
        document = {
            "jobId": job.job_id if job else None,
            "jobName": job.name if job else None,
            "events": events,
            "count": count,
            "nextToken": token,
            "logGroup": page.get("logGroupName") or (session.log_group if session else None),
            "logStream": page.get("logStreamName") or (session.log_stream if session else None),
        }
        view.print(json.dumps(document, indent=2))
    elif not count:
        view.print("No logs found for the specified session.")
    else:
        view.print(f"\nRetrieved {count} log events.")
        if token:
            view.print(f'More logs are available. Use --next-token "{token}" to retrieve the next page.')
    return statuses.OK


def _more_to_read() -> bool:
    from select import select

    return bool(select([0], [], [], 0)[0])


def _print_log_head(view: View, job: Job | None, session: Session, form: str) -> None:
    view.print(f"Retrieving logs for session {session.session_id} from log group {session.log_group}...")
    if job:
        view.print(f"Job ID: {job.job_id}\nJob Name: {job.name}")
    began = session.action_started_at
    if began:
        start = times.of_text(began)
        view.print(f"Session action start: {start.isoformat()}")
        if session.action_ended_at:
            end = times.of_text(session.action_ended_at)
            view.print(f"Session action end: {end.isoformat()}")
        else:
            end = datetime.now(UTC)
            view.print("Session action is still running")
        view.print(f"Session action duration: {end - start}")
    if form == "relative":
        view.print(f"Logs relative to start time: {_reference(session).isoformat()}")
    view.print()


def _reference(session: Session) -> datetime:
    return times.of_text(session.action_started_at or session.started_at or "1970-01-01T00:00:00Z")


def _stamp(text: str, form: str, session: Session | None) -> str:
    moment = times.of_text(text)
    if form == "relative" and session is not None:
        return str(moment - _reference(session) + timedelta(0))
    return (moment.astimezone() if form == "local" else moment).isoformat()
