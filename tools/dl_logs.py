"""dl-logs - read the logs of a job's session, or of a worker

Usage:
  dl-logs [options] [--] [<job>]

Options:
  --profile=<name>            AWS profile to use.
  --region=<name>             AWS region of the farm.
  --farm-id=<id>              Farm of the job or worker.
  --queue-id=<id>             Queue of the job.
  --session-id=<id>           Session to read; without it, the one that runs
                              and started last, else the one that ended last.
  --session-action-id=<id>    Read only what this action of the session logged.
  --all-sessions              Read every session of the job, in the order that
                              they started.
  --worker-id=<id>            Read the log of this worker instead.
  --fleet-id=<id>             Fleet of the worker.
  --limit=<n>                 Read at most this many of the newest lines
                              [default: 100].
  --all                       Read all lines.
  --follow                    Read all lines, and those to come until the job
                              ends, or the session that was named.
  --start-time=<time>         Only lines from this time on (ISO 8601).
  --end-time=<time>           Only lines up to this time.
  --next-token=<token>        Go on where an earlier answer stopped.
  --timestamp-format=<form>   Of times in text: utc, local or relative to the
                              session's start [default: utc].
  --format=<format>           records, text or auto: text on a terminal, else
                              records [default: auto].
  --open-ended                Accept a stream without an end record.

Without a <job>, the jobs are those of the job records on standard input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from time import sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from libdeadline import command, statuses
from libdeadline.errors import Trouble
from libdeadline.records import Job, Log, Record, Resource, Session

if TYPE_CHECKING:
    from libdeadline.aws import Client
    from libdeadline.targets import Target

PAGE_LINES = 10_000  # most that the service answers at once
FIRST_POLL_S = 0.25
LONGEST_POLL_S = 2.0
SETTLE_S = 3.0  # a session's last lines may arrive this long after its end
MONITOR = "DEADLINE_CLOUD_MONITOR_LOGIN"  # people signed in by the monitor read logs by the queue's or fleet's role
FORMATS = ("auto", "records", "text")
STAMPS = ("utc", "local", "relative")


class Stream(NamedTuple):
    """A log stream to read, the part of time to read of it, and what its times are relative to."""

    group: str
    name: str
    start: datetime | None
    end: datetime | None
    reference: datetime | None


def pages(logs: Client, stream: Stream, token: str | None, limit: int | None) -> Iterator[dict[str, Any]]:
    """Yield answers of GetLogEvents: the newest `limit` lines, or all of them from the first on if None.

    Shape:   each answer's events run from old to new.
    Source:  CloudWatch Logs API, GetLogEvents; a stream that does not exist yet has no lines.
    """
    from libdeadline.aws import ServiceError

    where: dict[str, Any] = {"logGroupName": stream.group, "logStreamName": stream.name}
    if stream.start is not None:
        where["startTime"] = int(stream.start.timestamp() * 1000)
    if stream.end is not None:
        where["endTime"] = int(stream.end.timestamp() * 1000) + 1  # itself it is exclusive
    # Only a forward token goes on from the head; one that points back must be sent as it was got.
    forward = limit is None or bool(token and token.startswith("f/"))
    try:
        while True:
            request = {**where, "startFromHead": forward, "limit": min(limit or PAGE_LINES, PAGE_LINES)}
            answer = logs.call("GetLogEvents", request | ({"nextToken": token} if token else {}))
            yield answer
            following = answer.get("nextForwardToken")
            if limit is not None or not following or following == token:
                return
            token = following
    except ServiceError as error:
        if error.code != "ResourceNotFoundException":
            raise


def lines(answer: dict[str, Any], stream: Stream) -> Iterator[Log]:
    """Yield a log record for each event of an answer."""
    for event in answer.get("events") or []:
        yield Log.of(
            timestamp=_stamp(event.get("timestamp")),
            message=str(event.get("message") or "").rstrip(),
            log_group=stream.group,
            log_stream=stream.name,
            ingestion_time=_stamp(event["ingestionTime"]) if event.get("ingestionTime") is not None else None,
        )


def _stamp(milliseconds: int | None) -> str:
    whole, part = divmod(int(milliseconds or 0), 1000)
    moment = datetime.fromtimestamp(whole, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{part:03}Z"


def chosen_session(sessions: list[dict[str, Any]]) -> dict[str, Any]:
    """The session to read: of those that run the last to start, else the last to end.

    Source: client specification, job logs, session choice.
    """
    never = datetime.min.replace(tzinfo=UTC)
    running = [session for session in sessions if not session.get("endedAt")]
    if running:
        return max(running, key=lambda session: session.get("startedAt") or never)
    return max(sessions, key=lambda session: session.get("endedAt") or never)


def session_of_action(action_id: str, session_id: str | None) -> str:
    """The session that an action belongs to.

    Raises: Trouble (64) where the id is none, or belongs to another session than `session_id`.
    """
    from libdeadline.jobs import session_of

    derived = session_of(action_id)
    if derived is None:
        raise Trouble(f"'{action_id}' is no session action id", statuses.USAGE)
    if session_id and session_id != derived:
        raise Trouble(f"session action '{action_id}' is not of session '{session_id}'", statuses.USAGE)
    return derived


def _moment(args: command.Arguments, option: str) -> datetime | None:
    from libdeadline import times

    if not args[option]:
        return None
    try:
        return times.of_text(args[option])
    except ValueError:
        raise Trouble(
            f"{option} takes a time such as 2026-01-31T12:00:00Z, not '{args[option]}'", statuses.USAGE
        ) from None


def _text(row: Log, stream: Stream, form: str) -> str:
    from libdeadline import times

    moment = times.of_text(row.timestamp)
    if form == "relative" and stream.reference:
        shown = str(moment - stream.reference)
    else:
        shown = (moment.astimezone() if form == "local" else moment).isoformat()
    return f"[{shown}] {row.message}\n"


class Reading:
    """One run of dl-logs: how lines go out."""

    def __init__(self, args: command.Arguments, run: command.Run) -> None:
        self.args, self.run = args, run
        self.form = args.choice("--timestamp-format", STAMPS) or "utc"
        self.start, self.end = _moment(args, "--start-time"), _moment(args, "--end-time")
        self.limit = None if args["--all"] or args["--follow"] else args.integer("--limit", 1)
        self.count = 0

    def read(self, logs: Client, stream: Stream) -> Iterator[Record]:
        """Yield the lines of a stream, then where to go on."""
        answer: dict[str, Any] = {}
        count = 0
        for answer in pages(logs, stream, self.args["--next-token"], self.limit):
            for row in lines(answer, stream):
                count += 1
                if self.run.text:
                    self.run.print(_text(row, stream, self.form))
                else:
                    yield row
        self.count += count
        # Lines older than the newest page are what a next page can bring; none are left below a full page.
        more = self.limit is not None and count >= self.limit
        yield Resource.of(
            resource="log_stream",
            id=stream.name,
            data={
                "logGroupName": stream.group,
                "logStreamName": stream.name,
                "nextToken": answer.get("nextBackwardToken") if more else None,
                "nextForwardToken": answer.get("nextForwardToken"),
            },
        )

    def follow(self, logs: Client, stream: Stream, end: Callable[[], datetime | None]) -> Iterator[Record]:
        """Yield the lines of a stream as they come, until SETTLE_S after `end()`."""
        token, pause, ended = None, FIRST_POLL_S, False
        while True:
            fresh = 0
            for answer in pages(logs, stream, token, None):
                for row in lines(answer, stream):
                    fresh += 1
                    if self.run.text:
                        self.run.print(_text(row, stream, self.form))
                    else:
                        yield row
                token = answer.get("nextForwardToken") or token
            self.count += fresh
            assert self.run.output is not None
            self.run.output.flush()
            if ended and not fresh:
                return
            moment = end()
            ended = moment is not None and (datetime.now(UTC) - moment).total_seconds() > SETTLE_S
            pause = FIRST_POLL_S if fresh or moment else min(2 * pause, LONGEST_POLL_S)
            if not ended:
                sleep(pause)


def worker_log(args: command.Arguments, reading: Reading) -> Iterator[Record]:
    """Yield the log of a worker."""
    from libdeadline import aws, targets

    if not args["--fleet-id"]:
        raise Trouble("which fleet? a worker's log needs --fleet-id", statuses.USAGE)
    reached = targets.target(args, queue=False)
    session = reached.session
    if session.credential_kind == MONITOR:
        session = aws.fleet_session(session, reached.farm_id, args["--fleet-id"])
    where = {"farmId": reached.farm_id, "fleetId": args["--fleet-id"], "workerId": args["--worker-id"]}
    worker = reached.session.client("deadline").call("GetWorker", where)
    group, name = _log_place(worker, f"/aws/deadline/{reached.farm_id}/{args['--fleet-id']}", args["--worker-id"])
    stream = Stream(group, name, reading.start, reading.end, worker.get("createdAt"))
    logs = session.client("logs")
    if args["--follow"]:
        yield from reading.follow(logs, stream, lambda: None)
    else:
        yield from reading.read(logs, stream)


def _log_place(answer: dict[str, Any], group: str, name: str) -> tuple[str, str]:
    options = (answer.get("log") or {}).get("options") or {}
    return options.get("logGroupName") or group, options.get("logStreamName") or name


def job_log(args: command.Arguments, reading: Reading, job: Job | None, reached: Target) -> Iterator[Record]:
    """Yield a job record, then for each session to read a session record and its lines."""
    from libdeadline import aws, jobs

    client = reached.session.client("deadline")
    where = {"farmId": reached.farm_id, "queueId": reached.queue_id}
    session_id = args["--session-id"]
    if args["--session-action-id"]:
        session_id = session_of_action(args["--session-action-id"], session_id)
    if job is None:
        raise Trouble("which job? name it: a session is found by its job", statuses.USAGE)
    where["jobId"] = job.job_id
    answer = client.call("GetJob", where)
    if not reading.run.text:
        yield jobs.record_of(answer, reached.farm_id, reached.queue_id)
    sessions = wanted_sessions(args, reading.run, client, where, session_id)
    session = reached.session
    if session.credential_kind == MONITOR:
        session = aws.queue_session(session, reached.farm_id, reached.queue_id)
    logs = session.client("logs")
    for each in sessions:
        yield from _session_log(args, reading, client, logs, where, each)


def wanted_sessions(
    args: command.Arguments, run: command.Run, client: Client, where: dict[str, str], session_id: str | None
) -> Iterable[dict[str, Any]]:
    """The sessions of a job that the options mean, in the order to read them in.

    Raises: Trouble (66) where there is none; with --follow there may be one yet.
    """
    if session_id:
        return [client.call("GetSession", {**where, "sessionId": session_id})]
    if args["--follow"]:
        return followed(client, where)
    sessions = list(client.items("ListSessions", where))
    run.count(sessions=len(sessions))
    if not sessions:
        raise Trouble(f"job '{where['jobId']}' has no sessions: no worker has started on it", statuses.NO_INPUT)
    if args["--all-sessions"]:
        never = datetime.min.replace(tzinfo=UTC)
        return sorted(sessions, key=lambda session: session.get("startedAt") or never)
    return [chosen_session(sessions)]


def followed(client: Client, where: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the sessions of a job as they start, until the job has ended."""
    from libdeadline.jobs import ENDED

    seen: set[str] = set()
    pause = FIRST_POLL_S
    while True:
        # Asked before the sessions, so that one that started just before the end is not missed.
        ended = client.call("GetJob", where).get("taskRunStatus") in ENDED
        fresh = [
            session
            for session in client.items("ListSessions", where)
            if session.get("startedAt") and session["sessionId"] not in seen
        ]
        for session in sorted(fresh, key=lambda each: each["startedAt"]):
            seen.add(session["sessionId"])
            yield session
        if ended and not fresh:
            return
        if not fresh:
            sleep(pause)
        pause = FIRST_POLL_S if fresh else min(2 * pause, LONGEST_POLL_S)


def _session_log(
    args: command.Arguments,
    reading: Reading,
    client: Client,
    logs: Client,
    where: dict[str, str],
    session: dict[str, Any],
) -> Iterator[Record]:
    from libdeadline import times

    session_id = session["sessionId"]
    if not session.get("startedAt"):
        raise Trouble(f"session '{session_id}' has not started", statuses.NO_INPUT)
    group, name = _log_place(session, f"/aws/deadline/{where['farmId']}/{where['queueId']}", session_id)
    start, end, reference = reading.start, reading.end, session["startedAt"]
    extra: dict[str, Any] = {}
    if args["--session-action-id"]:
        action = client.call("GetSessionAction", {**where, "sessionActionId": args["--session-action-id"]})
        if not action.get("startedAt"):
            raise Trouble(f"session action '{args['--session-action-id']}' has not started", statuses.NO_INPUT)
        reference = action["startedAt"]
        last = action.get("endedAt") or datetime.now(UTC)
        start, end = max(start or reference, reference), min(end or last, last)
        if start > end:
            raise Trouble(
                f"session action '{args['--session-action-id']}' ran from {times.text_of(reference)} to "
                f"{times.text_of(last)}, not in the time asked for",
                statuses.NO_INPUT,
            )
        extra = {"action_started_at": times.text_of(reference)}
        extra |= {"action_ended_at": times.text_of(action["endedAt"])} if action.get("endedAt") else {}
    if not reading.run.text:
        yield Session.of(
            session_id=session_id,
            job_id=where["jobId"],
            fleet_id=session.get("fleetId"),
            worker_id=session.get("workerId"),
            lifecycle_status=session.get("lifecycleStatus"),
            started_at=times.text_of(session["startedAt"]),
            ended_at=times.text_of(session["endedAt"]) if session.get("endedAt") else None,
            log_group=group,
            log_stream=name,
            **extra,
        )
    stream = Stream(group, name, start, end, reference)
    if not args["--follow"]:
        yield from reading.read(logs, stream)
        return

    def ended() -> datetime | None:
        moment: datetime | None = client.call("GetSession", {**where, "sessionId": session_id}).get("endedAt")
        return moment

    yield from reading.follow(logs, stream, ended)


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    import os

    from libdeadline import targets

    form = args.choice("--format", FORMATS)
    run.text = form == "text" or (form == "auto" and os.isatty(1))
    reading = Reading(args, run)
    for row in _read(args, run, reading, targets):
        if not run.text:
            yield row
    if run.text and not reading.count:
        run.info("there are no log lines")


def _read(args: command.Arguments, run: command.Run, reading: Reading, targets: Any) -> Iterator[Record]:
    if args["--worker-id"]:
        yield from worker_log(args, reading)
        return
    if args["<job>"]:
        yield from job_log(args, reading, Job.of(job_id=args["<job>"]), targets.target(args))
        return
    wanted = []
    for row in run.input(Job, open_ended=args["--open-ended"]):
        if isinstance(row, Job):
            wanted.append(row)
        else:
            yield row
    if not wanted:
        raise Trouble("there is no job in the stream: name one, or pipe job records in", statuses.DATA)
    for job in wanted:
        given = {"--farm-id": job.farm_id or args["--farm-id"], "--queue-id": job.queue_id or args["--queue-id"]}
        yield from job_log(args, reading, job, targets.target({**args, **given}))


def main() -> int:
    return command.run(__doc__, stage)
