"""dl-show - print a stream of records as the deadline command prints it

Usage:
  dl-show [options] <view>

Options:
  --output=<form>            verbose or json; auto is verbose on a terminal
                             [default: auto].
  --item-offset=<n>          Of views jobs and workers: where the list starts
                             [default: 0].
  --term=<text>              Of view job-matches: what was searched for.
  --run-status=<states>      Of view requeue: what dl-requeue was told.
  --timeout=<time>           Of view wait: what dl-wait was told.
  --timestamp-format=<form>  Of view logs: utc, local or relative to the
                             session's start [default: utc].

The views, and what they read: jobs, workers, queue-fleets, job, job-summary,
job-matches and parameters (resource records of dl-ls), wait (job and task
records of dl-wait --changes), logs (log records of dl-logs), requeue (what
dl-requeue writes), submission (what dl-submit writes), download-output,
download-input and download-summary (what dl-download writes), sync-output
(what dl-sync writes). The output is that of the reference client's commands. View wait has the statuses of dl-wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from libdeadline import command, jobs, statuses, times
from libdeadline.errors import Trouble
from libdeadline.records import Bundle, Error, File, Job, Log, Record, Resource, Session, Step, Task
from libdeadline.stream import Input

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
STATUSES = {"SUCCEEDED": 0, "FAILED": 2, "CANCELED": 3, "SUSPENDED": 4, "ARCHIVED": 4, "NOT_COMPATIBLE": 5}
LINES_A_WRITE = 256


class View:
    """One run of dl-show: its options, its input, and where text goes."""

    def __init__(self, args: command.Arguments, run: command.Run) -> None:
        self.args, self.run = args, run
        form = args.choice("--output", ("auto", "verbose", "json"))
        self.json = form == "json" or (form == "auto" and not _is_terminal())
        self.input = Input(0)

    def print(self, text: str = "") -> None:
        """A line of output."""
        self.run.print(text + "\n")

    def yaml(self, document: Any) -> None:
        """A YAML document, and an empty line."""
        from libdeadline import yaml_text

        self.run.print(yaml_text.dump(document) + "\n")

    def counted(self, name: str) -> int:
        """What the tool before counted under `name`, once the input is read."""
        return int(self.input.end.get(name) or 0) if self.input.end else 0

    def resources(self) -> list[dict[str, Any]]:
        """The answers of the service in all resource records, with datetimes."""
        return [times.moments(row.data) for row in self.input if isinstance(row, Resource)]


def _is_terminal() -> bool:
    import os

    return os.isatty(1)


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


def parameters_view(view: View) -> int:
    """The job parameters that a queue's environments define, merged.

    Raises: Trouble (65) where two environments define one parameter differently.
    Source: client specification, queue paramdefs semantics.
    """
    import yaml

    found: dict[str, dict[str, Any]] = {}
    for environment in sorted(view.resources(), key=lambda row: row.get("priority", 0)):
        template = yaml.safe_load(environment["template"]) or {}
        name = (template.get("environment") or {}).get("name") or environment.get("name")
        for definition in template.get("parameterDefinitions") or []:
            known = found.setdefault(definition["name"], _grouped(definition, f"Queue Environment: {name}"))
            differing = [
                member
                for member in {**known, **definition}
                if member not in ("userInterface", "description", "default")
                and known.get(member) != definition.get(member)
            ]
            if differing:
                raise Trouble(
                    f"queue environments define the parameter '{definition['name']}' differently: "
                    f"{', '.join(sorted(differing))}",
                    statuses.DATA,
                )
    view.yaml(list(found.values()))
    return statuses.OK


def _grouped(definition: dict[str, Any], label: str) -> dict[str, Any]:
    interface = dict(definition.get("userInterface") or {})
    if not interface:
        interface["control"] = _control_of(definition)
    interface.setdefault("groupLabel", label)
    return {**definition, "userInterface": interface}


def _control_of(definition: dict[str, Any]) -> str:
    kind = definition.get("type")
    if definition.get("allowedValues"):
        return "DROPDOWN_LIST"
    if kind in ("INT", "FLOAT"):
        return "SPIN_BOX"
    if kind == "PATH":
        if definition.get("objectType") == "FILE":
            return "CHOOSE_OUTPUT_FILE" if definition.get("dataFlow") == "OUT" else "CHOOSE_INPUT_FILE"
        return "CHOOSE_DIRECTORY"
    return "LINE_EDIT"


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
    if not view.json and _is_terminal():
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
    view.run.print(f"\r{text}\x1b[K" if _is_terminal() else f"{text}\n")


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


def submission_view(view: View) -> int:
    """What was submitted."""
    bundle: Bundle | None = None
    job: Job | None = None
    files = size = 0
    for row in view.input:
        if isinstance(row, Bundle):
            bundle = row
            name = row.queue_name
            view.print(f"Submitting to Queue: {name or row.queue_id}\n")
        elif isinstance(row, File):
            files += 1
            size += row.size or 0
        elif isinstance(row, Job):
            job = row
    if job is None or bundle is None:
        raise Trouble("no job was submitted in this stream", statuses.DATA)
    if files:
        from libdeadline.progress import size_text

        view.print(f"Upload Summary:\n    Processed {files} file{'s' * (files != 1)} totaling {size_text(size)}.")
    view.print("Waiting for Job to be created...")
    view.print(f"Submitted job bundle:\n   {bundle.path}")
    view.print(f"{job.lifecycle_status_message or 'Job creation completed successfully'}\n{job.job_id}")
    return statuses.OK


def requeue_view(view: View) -> int:
    """The tasks that were requeued."""
    states = [state.strip().upper() for state in (view.args["--run-status"] or "").split(",")]
    count = 0
    step: Step | None = None
    shown = 0

    def none_of_step() -> None:
        if step is not None and not shown:
            view.print("  Step has no tasks to requeue.")

    for row in view.input:
        if isinstance(row, Step):
            none_of_step()
            step, shown = row, 0
            view.print(f"\nStep: {row.name} ({row.step_id})")
        elif isinstance(row, Task):
            if not shown and step is not None:
                counts = step.task_run_status_counts or {}
                told = [(counts[state], state) for state in states if counts.get(state)]
                words = ", ".join(f"{number} {state} tasks" for number, state in told)
                view.print(f"  Requeuing an estimated {sum(number for number, _ in told)} total tasks ({words})...")
            shown += 1
            count += 1
            values = ",".join(f"{name}={next(iter(each.values()))}" for name, each in (row.parameters or {}).items())
            view.print(
                f"    {row.run_status} {values} ({row.task_id})" if values else f"    {row.run_status} {row.task_id}"
            )
    none_of_step()
    view.print(f"\nRequeued a total of {count} tasks.")
    return statuses.OK


def download_output_view(view: View) -> int:
    """The output files that were downloaded, under the name of their job."""
    return _download(view, "output")


def download_input_view(view: View) -> int:
    """The input files that were downloaded, under the name of their job."""
    return _download(view, "input")


def download_summary_view(view: View) -> int:
    """The files that were downloaded."""
    return _download(view, None)


def _download(view: View, what: str | None) -> int:
    import json
    import os
    from time import monotonic

    from libdeadline.progress import size_text

    began = monotonic()
    paths: list[str] = []
    folders: dict[str, int] = {}
    outcomes = {"new": 0, "present": 0, "skipped": 0}
    size = 0
    for row in view.input:
        if isinstance(row, Job) and what:
            name = row.name or row.job_id
            title = {"messageType": "title", "value": name}
            view.print(json.dumps(title) if view.json else f"Downloading {what} from Job {name!r}\n")
        elif isinstance(row, File):
            local = row.local_path or os.path.join(row.root or "", row.path)
            outcome = row.download or "new"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if outcome != "skipped":
                # A root that files were moved from is told of by where they are now.
                ending = os.sep + row.path.replace("/", os.sep)
                folder = local.removesuffix(ending) if local.endswith(ending) else os.path.dirname(local)
                folders[folder] = folders.get(folder, 0) + 1
                size += row.size or 0
                if view.json:
                    paths.append(local)
    count = outcomes["new"] + outcomes["present"]
    if view.json:
        told = f"Downloaded {count} files"
        view.print(json.dumps({"messageType": "summary", "value": told, "fileCount": count, "files": paths}) + "\n")
        return statuses.OK
    if not count and not outcomes["skipped"]:
        view.print("There are no files to download.")
        return statuses.OK
    seconds = max(monotonic() - began, 1e-5)
    view.print(f"Download Summary:\n    Downloaded {_files(count)} totaling {size_text(size)}.")
    if outcomes["present"]:
        view.print(f"    Of these, {outcomes['present']} were here already.")
    if outcomes["skipped"]:
        view.print(f"    Skipped {_files(outcomes['skipped'])}.")
    view.print(f"    Total download time of {round(seconds, 5)} seconds at {size_text(size / seconds)}/s.")
    view.print("    Download locations (total file counts):")
    for folder, number in folders.items():
        view.print(f"        {folder} ({_files(number)})")
    view.print()
    return statuses.OK


def sync_output_view(view: View) -> int:
    """The output of a queue's jobs, job by job as it comes, and how much it was."""
    import json

    listed: list[dict[str, Any]] = []
    files: dict[str, int] = {}
    trouble: Trouble | None = None
    try:
        for row in view.input:
            if isinstance(row, File) and row.job_id:
                files[row.job_id] = files.get(row.job_id, 0) + 1
            elif isinstance(row, Job):
                count = files.pop(row.job_id, 0)
                listed.append({"jobId": row.job_id, "name": row.name, "change": row.change, "files": count})
                listed[-1]["downloadStatus"] = row.download_status
                if not view.json:
                    reason = f" ({row.skip_reason})" if row.skip_reason else ""
                    view.print(
                        f"{row.name or row.job_id} ({row.job_id}): {row.download_status}{reason}, {_files(count)}"
                    )
                    listed.clear()
    except Trouble as error:
        if view.input.end is None or "session_actions" not in view.input.end:
            raise  # it did not come to looking
        trouble = error  # some of it failed: that is part of the summary
    counted = view.counted
    dry_run = bool(counted("dry_run"))
    fetched, size = counted("new") + counted("present") + counted("files"), 0
    for each in ("new_bytes", "present_bytes", "bytes"):
        size += counted(each)
    with_downloads = {each: counted(f"jobs_{each}") for each in ("completed", "added", "updated")}
    without = {
        "not using job attachments": counted("jobs_without_attachments"),
        "missing storage profile": counted("jobs_without_storage_profile"),
        "unchanged": counted("jobs_unchanged"),
        "inactive": counted("jobs_inactive"),
    }
    if view.json:
        summary = {
            "status": "failed" if trouble else "success",
            "dryRun": dry_run,
            "sessionActions": counted("session_actions"),
            "files": fetched,
            "bytes": size,
            "presentFiles": counted("present"),
            "skippedFiles": counted("skipped"),
            "failedFiles": counted("failed"),
            "unmappedFiles": counted("left_out"),
            "jobsWithDownloads": with_downloads,
            "jobsWithoutDownloads": {
                "notUsingJobAttachments": without["not using job attachments"],
                "missingStorageProfile": without["missing storage profile"],
                "unchanged": without["unchanged"],
                "inactive": without["inactive"],
            },
            "jobs": listed,
        }
        view.print(json.dumps(summary))
    else:
        _print_sync_summary(view, dry_run, fetched, size, with_downloads, without)
    if trouble:
        raise trouble
    return statuses.OK


def _print_sync_summary(
    view: View, dry_run: bool, fetched: int, size: int, with_downloads: dict[str, int], without: dict[str, int]
) -> None:
    from libdeadline.progress import size_text

    what = "Summary of incremental output download:"
    if dry_run:
        what = "Summary of DRY RUN for incremental output download (no files were downloaded to the file system):"
    view.print(f"\n{what}\n  Downloaded session actions: {view.counted('session_actions')}")
    view.print(f"  Downloaded files: {fetched}\n  Downloaded bytes: {size_text(size)}")
    for name, title in (("present", "here already"), ("skipped", "skipped"), ("failed", "failed")):
        if view.counted(name):
            view.print(f"  Files {title}: {view.counted(name)}")
    if view.counted("left_out"):
        view.print(f"  Files without a place on this host: {view.counted('left_out')}")
    for title, counts in (("with", with_downloads), ("without", without)):
        view.print(f"  Jobs {title} downloads:")
        for name, count in counts.items():
            view.print(f"    {name}: {count}")
    view.print("This is a DRY RUN so the checkpoint was not saved" if dry_run else "Checkpoint saved")


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


VIEWS: dict[str, Callable[[View], int]] = {
    "jobs": jobs_view,
    "workers": workers_view,
    "job": job_view,
    "job-summary": job_summary_view,
    "job-matches": job_matches_view,
    "queue-fleets": queue_fleets_view,
    "parameters": parameters_view,
    "wait": wait_view,
    "logs": logs_view,
    "requeue": requeue_view,
    "submission": submission_view,
    "download-output": download_output_view,
    "download-input": download_input_view,
    "download-summary": download_summary_view,
    "sync-output": sync_output_view,
}


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    run.text = True
    view = args["<view>"]
    if view not in VIEWS:
        raise Trouble(f"there is no view '{view}': it is one of {', '.join(VIEWS)}", statuses.USAGE)
    status = VIEWS[view](View(args, run))
    return status
    yield Error.of(tool="", message="")


def main() -> int:
    return command.run(__doc__, stage)
