"""CloudWatch Logs, as far as workers and readers of a farm use it, over a database of its own.

All work is done in one thread with its own connection, so logs never hold the farm's writer. Batches that came
together share a transaction and its flush to the disk (WAL, synchronous=FULL): what is answered is there after a kill
and after a loss of power.

A position in a stream is (time of an event, twice its number in the stream): events sit at even ones, the boundaries
that tokens name at odd ones, so that a token means the same from either side.

Source: spec/service.md sections 4.3 and 14; botocore's `logs` model; the CloudWatch Logs API reference.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import time
from typing import TYPE_CHECKING, Any

import orjson

from . import auth, log_patterns, store
from .errors import OtherProtocol, ServiceError, UnknownOperation, Validation
from .protocol import Model, Operation

if TYPE_CHECKING:
    from .auth import Principal
    from .farm import Farm
    from .server import Answer, Request

CONTENT = "content-type: application/x-amz-json-1.1\r\n"
TARGET = "Logs_20140328."
MAX_BATCH_BYTES = 1_048_576
EVENT_OVERHEAD = 26  # bytes that each event counts besides its message
ANSWER_BYTES = 1_000_000  # of messages and overhead in one answer of events
DAY_MS = 86_400_000
OLDEST_MS = 14 * DAY_MS
NEWEST_MS = 2 * 3_600_000
GROUP_LIMIT = 200  # requests in one transaction
FILTER_SCAN = 20_000  # events looked at for one answer of FilterLogEvents
DEFAULT_BYTES = 2 << 30  # setting logs_max_bytes: of messages; the longest idle streams go first
TRIM_EVERY = 16 << 20  # bytes written between two looks at the bound

SCHEMA = """
CREATE TABLE IF NOT EXISTS groups (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, group_id INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE, name TEXT NOT NULL,
    created_at INTEGER NOT NULL, first_at INTEGER, last_at INTEGER, ingested_at INTEGER,
    next_number INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, last_batch BLOB,
    UNIQUE (group_id, name)
);
CREATE TABLE IF NOT EXISTS events (
    stream_id INTEGER NOT NULL REFERENCES streams ON DELETE CASCADE, at INTEGER NOT NULL, number INTEGER NOT NULL,
    ingested_at INTEGER NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (stream_id, at, number)
) WITHOUT ROWID;
"""

Database = sqlite3.Connection
Function = Callable[["Logs", Database, dict[str, Any]], dict[str, Any]]
FUNCTIONS: dict[str, Function] = {}
READS = frozenset(("GetLogEvents", "FilterLogEvents", "DescribeLogStreams"))


def operation(function: Function) -> Function:
    """Register the function that answers the operation of its name."""
    FUNCTIONS["".join(part.capitalize() for part in function.__name__.split("_"))] = function
    return function


def not_found(what: str) -> OtherProtocol:
    """The error for a log group or stream that does not exist."""
    return OtherProtocol("ResourceNotFoundException", f"The specified log {what} does not exist.")


def invalid(message: str) -> OtherProtocol:
    """The error for a parameter that is wrong."""
    return OtherProtocol("InvalidParameterException", message)


def error(failure: ServiceError, request_id: str = "") -> Answer:
    """The answer of an error in the JSON 1.1 protocol."""
    from .server import Answer

    status = failure.http_status if failure.http_status >= 500 else 400
    code = failure.code
    if isinstance(failure, Validation):
        code = "SerializationException" if failure.members["reason"] == "CANNOT_PARSE" else "InvalidParameterException"
    body = orjson.dumps({"__type": code, "message": failure.message})
    return Answer(status, body, f"{CONTENT}x-amzn-errortype: {code}\r\n")


class Logs:
    """The log store: a database, the thread that works on it, and the way of requests to the thread and back."""

    def __init__(self, path: Path, farm: Farm) -> None:
        self.farm = farm
        self.path = path
        self.model = Model("logs", FUNCTIONS)
        self.max_bytes = int(farm.settings.get("logs_max_bytes", DEFAULT_BYTES))
        self.written = 0
        self._queue: SimpleQueue[tuple[Callable[[Database], Any], Callable[[Any], None] | None] | None] = SimpleQueue()
        self._owners: dict[tuple[str, str], str] = {}
        self._thread = Thread(target=self._work, name="logs", daemon=True)
        self._thread.start()

    def create(self, group: str, stream: str | None = None) -> None:
        """Make a log group, and a stream in it, unless they exist. Returns at once."""
        self._queue.put((lambda db: ensure(db, group, stream), None))

    def close(self) -> None:
        """Finish what is queued, and close the database."""
        self._queue.put(None)
        self._thread.join(timeout=10)

    def take(self, request: Request, principal: Principal) -> tuple[Answer, bool] | None:
        """Check a request and hand it to the thread, which answers it later."""
        name = request.headers.get("x-amz-target", "").removeprefix(TARGET)
        operation = self.model.operations.get(name)
        if operation is None or request.method != "POST":
            raise UnknownOperation(f"This farm does not know the operation {name}.")
        params = operation.parse([], "", {}, request.body)
        self.authorize(principal, name, params)
        function = FUNCTIONS[name]

        def answer(outcome: Any) -> None:
            request.connection.answer(request.id, self.answer_of(operation, outcome))

        self._queue.put((lambda db: function(self, db, params), answer))
        return None

    def answer_of(self, operation: Operation, outcome: Any) -> Answer:
        """The answer of what the thread made of a request: members, or an exception."""
        from .server import Answer

        if isinstance(outcome, ServiceError):
            return error(outcome)
        if isinstance(outcome, BaseException):
            self.farm.tell(f"{operation.name} failed: {type(outcome).__name__}: {outcome}")
            return error(OtherProtocol("ServiceUnavailableException", "The log store is not available at the moment."))
        return Answer(200, operation.answer(outcome), CONTENT)

    def authorize(self, principal: Principal, name: str, params: dict[str, Any]) -> None:
        """Let workers write their own streams, and readers read what belongs to their queue, fleet or farm.

        Raises: OtherProtocol (AccessDeniedException).
        """
        kind, claims = principal.kind, principal.claims
        group = params.get("logGroupName") or _group_of(params)
        parts = group.split("/")  # "", aws, deadline, farm, queue or fleet
        farm_id, owner_id = (
            (parts[3], parts[4]) if len(parts) == 5 and parts[:3] == ["", "aws", "deadline"] else ("", "")
        )
        if kind == "admin":
            return
        if kind == "worker" and name == "PutLogEvents" and farm_id and farm_id == claims.get("farm"):
            stream = params["logStreamName"]
            if owner_id == claims.get("fleet") and stream == claims.get("worker"):
                return
            if self._worker_of(owner_id, stream) == claims.get("worker"):
                return
        elif name in READS and kind == "user" and farm_id:
            place = {"farmId": farm_id, f"{owner_id.partition('-')[0]}Id": owner_id}
            if auth.level_at(claims, place, self.farm.db) >= auth.LEVELS["VIEWER"]:
                return
        elif name in READS and farm_id and claims.get("farm") == farm_id:
            if kind in ("queue_user", "queue_read", "queue_worker") and owner_id == claims.get("queue"):
                return
            if kind == "fleet_read" and owner_id == claims.get("fleet"):
                return
        raise OtherProtocol(
            "AccessDeniedException", f"User: {principal.arn} is not authorized to perform: logs:{name} on '{group}'"
        )

    def _worker_of(self, queue_id: str, session_id: str) -> str | None:
        key = (queue_id, session_id)
        worker = self._owners.get(key)
        if worker is None:
            worker = store.value(
                self.farm.db,
                "SELECT worker_id FROM sessions WHERE session_id = ? AND queue_id = ?",
                session_id,
                queue_id,
            )
            if worker is not None:
                if len(self._owners) > 10_000:
                    self._owners.clear()
                self._owners[key] = worker
        return worker

    def _work(self) -> None:
        db = store.connect(self.path)
        self.path.chmod(0o600)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        going = True
        while going:
            jobs = [self._queue.get()]
            try:
                while len(jobs) < GROUP_LIMIT:
                    jobs.append(self._queue.get_nowait())
            except Empty:
                pass
            if None in jobs:
                going = False
            self._run(db, [job for job in jobs if job is not None])
        db.close()

    def _run(self, db: Database, jobs: list[Any]) -> None:
        outcomes: list[tuple[Callable[[Any], None] | None, Any]] = []
        try:
            db.execute("BEGIN")
            for function, answer in jobs:
                db.execute("SAVEPOINT job")
                try:
                    outcome = function(db)
                except Exception as failure:
                    outcome = failure
                    db.execute("ROLLBACK TO job")
                db.execute("RELEASE job")
                outcomes.append((answer, outcome))
            trims = self.written > min(TRIM_EVERY, self.max_bytes // 8)
            if trims:
                self.written = 0
                self._trim(db)
            db.execute("COMMIT")
            if trims:
                db.executescript("PRAGMA incremental_vacuum(8192)")  # `execute` frees one page only
        except sqlite3.Error as failure:
            if db.in_transaction:
                db.execute("ROLLBACK")
            outcomes = [(answer, failure) for _, answer in jobs]

        def send() -> None:
            for answer, outcome in outcomes:
                if answer is not None:
                    answer(outcome)

        try:
            self.farm.loop.call_soon_threadsafe(send)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _trim(self, db: Database) -> None:
        """Drop the streams that were written least lately, until the rest fits; of the last one its oldest events."""
        total = store.value(db, "SELECT sum(bytes) FROM streams") or 0
        if total <= self.max_bytes:
            return
        aim = self.max_bytes * 9 // 10
        for row in db.execute("SELECT id, bytes FROM streams WHERE bytes > 0 ORDER BY ingested_at, id").fetchall():
            if total <= aim:
                return
            if row["bytes"] == total:
                self._shorten(db, row["id"], total - aim)
                return
            db.execute("DELETE FROM events WHERE stream_id = ?", (row["id"],))
            db.execute("UPDATE streams SET bytes = 0, first_at = NULL, last_at = NULL WHERE id = ?", (row["id"],))
            total -= row["bytes"]

    @staticmethod
    def _shorten(db: Database, stream_id: int, excess: int) -> None:
        """Drop a stream's oldest events that together have `excess` bytes."""
        freed = 0
        for row in db.execute(
            "SELECT at, number, length(CAST(message AS BLOB)) AS size FROM events WHERE stream_id = ?"
            " ORDER BY at, number",
            (stream_id,),
        ):
            freed += row["size"] + EVENT_OVERHEAD
            if freed >= excess:
                break
        db.execute(
            "DELETE FROM events WHERE stream_id = ? AND (at, number) <= (?, ?)", (stream_id, row["at"], row["number"])
        )
        db.execute(
            "UPDATE streams SET bytes = bytes - ?, first_at = (SELECT min(at) FROM events WHERE stream_id = ?)"
            " WHERE id = ?",
            (freed, stream_id, stream_id),
        )


def _group_of(params: dict[str, Any]) -> str:
    # An identifier is a group's name or its ARN.
    identifier: str = params.get("logGroupIdentifier", "")
    return identifier.partition(":log-group:")[2].removesuffix(":*") if identifier.startswith("arn:") else identifier


def ensure(db: Database, group: str, stream: str | None) -> tuple[int, int | None]:
    """(id of the log group, id of the stream) by name, made where missing."""
    now = int(time() * 1000)
    group_id = store.value(db, "SELECT id FROM groups WHERE name = ?", group)
    if group_id is None:
        group_id = db.execute("INSERT INTO groups (name, created_at) VALUES (?, ?)", (group, now)).lastrowid
    if stream is None:
        return group_id, None
    stream_id = store.value(db, "SELECT id FROM streams WHERE group_id = ? AND name = ?", group_id, stream)
    if stream_id is None:
        stream_id = db.execute(
            "INSERT INTO streams (group_id, name, created_at) VALUES (?, ?, ?)", (group_id, stream, now)
        ).lastrowid
    return group_id, stream_id


def find_group(db: Database, params: dict[str, Any]) -> int:
    """The id of the group that a request names.

    Raises: OtherProtocol.
    """
    if "logGroupName" in params and "logGroupIdentifier" in params:
        raise invalid("Only one of logGroupName and logGroupIdentifier may be given.")
    name = params.get("logGroupName") or _group_of(params)
    if not name:
        raise invalid("A logGroupName or a logGroupIdentifier is needed.")
    group_id = store.value(db, "SELECT id FROM groups WHERE name = ?", name)
    if group_id is None:
        raise not_found("group")
    return int(group_id)


def find_stream(db: Database, params: dict[str, Any]) -> sqlite3.Row:
    """The row of the stream that a request names.

    Raises: OtherProtocol.
    """
    group_id = find_group(db, params)
    row = store.one(db, "SELECT * FROM streams WHERE group_id = ? AND name = ?", group_id, params["logStreamName"])
    if row is None:
        raise not_found("stream")
    return row


@operation
def create_log_group(logs: Logs, db: Database, params: dict[str, Any]) -> dict[str, Any]:
    name = params["logGroupName"]
    if store.value(db, "SELECT id FROM groups WHERE name = ?", name) is not None:
        raise OtherProtocol("ResourceAlreadyExistsException", "The specified log group already exists")
    ensure(db, name, None)
    return {}


@operation
def create_log_stream(logs: Logs, db: Database, params: dict[str, Any]) -> dict[str, Any]:
    group_id = find_group(db, params)
    name = params["logStreamName"]
    if store.value(db, "SELECT id FROM streams WHERE group_id = ? AND name = ?", group_id, name) is not None:
        raise OtherProtocol("ResourceAlreadyExistsException", "The specified log stream already exists")
    ensure(db, params["logGroupName"], name)
    return {}


@operation
def delete_log_group(logs: Logs, db: Database, params: dict[str, Any]) -> dict[str, Any]:
    db.execute("DELETE FROM groups WHERE id = ?", (find_group(db, params),))
    return {}


@operation
def delete_log_stream(logs: Logs, db: Database, params: dict[str, Any]) -> dict[str, Any]:
    db.execute("DELETE FROM streams WHERE id = ?", (find_stream(db, params)["id"],))
    return {}


@operation
def put_log_events(logs: Logs, db: Database, params: dict[str, Any]) -> dict[str, Any]:
    events = params["logEvents"]
    sizes = [len(event["message"].encode("utf-8", "surrogatepass")) + EVENT_OVERHEAD for event in events]
    if sum(sizes) > MAX_BATCH_BYTES:
        raise invalid(f"The batch of log events is larger than {MAX_BATCH_BYTES} bytes.")
    times = [event["timestamp"] for event in events]
    if any(later < earlier for earlier, later in zip(times, times[1:], strict=False)):
        raise invalid("Log events in a single PutLogEvents request must be in chronological order.")
    if times[-1] - times[0] > DAY_MS:
        raise invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
    group = params["logGroupName"]
    if group.startswith("/aws/deadline/"):
        # The service makes the streams of workers and sessions; that a writer may have this one was checked before.
        ensure(db, group, params["logStreamName"])
    stream = find_stream(db, params)
    now = int(time() * 1000)
    answer: dict[str, Any] = {"nextSequenceToken": f"{stream['id']:020d}{stream['next_number'] + len(events):036d}"}
    digest = sha256(orjson.dumps(events)).digest()
    if stream["last_batch"] == digest:
        return answer  # the writer had no answer the first time
    old = sum(1 for each in times if each < now - OLDEST_MS)
    new = next((index for index, each in enumerate(times) if each > now + NEWEST_MS), len(times))
    rejected = {}
    if old:
        rejected["tooOldLogEventEndIndex"] = old
    if new < len(times):
        rejected["tooNewLogEventStartIndex"] = new
    if rejected:
        answer["rejectedLogEventsInfo"] = rejected
    kept = range(old, new)
    number = stream["next_number"]
    db.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
        [(stream["id"], times[index], number + index, now, events[index]["message"]) for index in kept],
    )
    size = sum(sizes[old:new])
    if kept:
        db.execute(
            "UPDATE streams SET next_number = ?, bytes = bytes + ?, last_batch = ?, ingested_at = ?,"
            " first_at = min(ifnull(first_at, ?), ?), last_at = max(ifnull(last_at, 0), ?) WHERE id = ?",
            (number + len(events), size, digest, now, times[old], times[old], times[new - 1], stream["id"]),
        )
    logs.written += size
    return answer


@operation
def get_log_events(logs: Logs, db: Database, params: dict[str, Any]) -> dict[str, Any]:
    stream = find_stream(db, params)
    start, end = params.get("startTime", 0), params.get("endTime", 1 << 62)
    token = params.get("nextToken")
    forward = params.get("startFromHead", False)
    boundary: tuple[int, int] | None = None
    if token is not None:
        found = re.fullmatch(r"([fb])/([0-9]+-(?:-1|[0-9]+))", token)
        if found is None:
            raise invalid("The specified nextToken is invalid.")
        forward = found[1] == "f"
        at, number = _numbers(found[2])
        boundary = at, number
    sql = "SELECT at, number, ingested_at, message FROM events WHERE stream_id = ? AND at >= ? AND at < ?"
    args: tuple[Any, ...] = (stream["id"], start, end)
    if boundary is not None:
        # number > (odd boundary) / 2 rounded down; number < the same rounded up
        half = boundary[1] // 2 if forward else (boundary[1] + 1) // 2
        sql += f" AND (at, number) {'>' if forward else '<'} (?, ?)"
        args += (boundary[0], half)
    way = "ASC" if forward else "DESC"
    rows: list[sqlite3.Row] = []
    size = 0
    for row in db.execute(f"{sql} ORDER BY at {way}, number {way} LIMIT ?", (*args, params.get("limit", 10_000))):
        size += len(row["message"].encode()) + EVENT_OVERHEAD
        if rows and size > ANSWER_BYTES:
            break
        rows.append(row)
    if not forward:
        rows.reverse()
    if rows:
        first, last = rows[0], rows[-1]
        before, after = (first["at"], 2 * first["number"] - 1), (last["at"], 2 * last["number"] + 1)
    else:
        before = after = boundary or ((start, -1) if forward else (min(end, 1 << 61), -1))
        if boundary is None and not forward:
            # Nothing yet, asked from the end: what comes later must lie ahead.
            before = after = (start, -1)
    return {
        "events": [
            {"timestamp": row["at"], "message": row["message"], "ingestionTime": row["ingested_at"]} for row in rows
        ],
        "nextForwardToken": f"f/{after[0]}-{after[1]}",
        "nextBackwardToken": f"b/{before[0]}-{before[1]}",
    }


def _numbers(token: str) -> tuple[int, ...]:
    """The numbers of a token, each of which the database can hold.

    Raises: OtherProtocol.
    """
    numbers = tuple(int(each) for each in re.findall(r"(?:(?<=-)-)?[0-9]+", token) if len(each) < 25)
    if len(numbers) != len(re.findall(r"[0-9]+", token)) or max(numbers) >= 1 << 63:
        raise invalid("The specified nextToken is invalid.")
    return numbers


@operation
def filter_log_events(logs: Logs, db: Database, params: dict[str, Any]) -> dict[str, Any]:
    group_id = find_group(db, params)
    names, prefix = params.get("logStreamNames"), params.get("logStreamNamePrefix")
    if names and prefix:
        raise invalid("Only one of logStreamNames and logStreamNamePrefix may be given.")
    sql = "SELECT id, name FROM streams WHERE group_id = ?"
    args: tuple[Any, ...] = (group_id,)
    if names:
        sql += f" AND name IN ({', '.join('?' * len(names))})"
        args += tuple(names)
    elif prefix:
        sql += " AND substr(name, 1, ?) = ?"
        args += (len(prefix), prefix)
    streams = {row["id"]: row["name"] for row in db.execute(sql, args)}
    if names and len(streams) < len(set(names)):
        raise not_found("stream")
    wanted = log_patterns.compiled(params.get("filterPattern", ""))
    sql = (
        f"SELECT stream_id, at, number, ingested_at, message FROM events"
        f" WHERE stream_id IN ({', '.join(map(str, streams))}) AND at >= ? AND at < ?"
    )
    args = (params.get("startTime", 0), params.get("endTime", 1 << 62))
    if "nextToken" in params:
        if not re.fullmatch(r"[0-9]+-[0-9]+-[0-9]+", params["nextToken"]):
            raise invalid("The specified nextToken is invalid.")
        sql += " AND (at, stream_id, number) > (?, ?, ?)"
        args += _numbers(params["nextToken"])
    events: list[dict[str, Any]] = []
    limit, size = params.get("limit", 10_000), 0
    place = token = None
    for seen, row in enumerate(db.execute(f"{sql} ORDER BY at, stream_id, number", args)):
        if len(events) >= limit or size > ANSWER_BYTES or seen >= FILTER_SCAN:
            token = place
            break
        place = f"{row['at']}-{row['stream_id']}-{row['number']}"
        if wanted(row["message"]):
            size += len(row["message"].encode()) + EVENT_OVERHEAD
            events.append(
                {
                    "logStreamName": streams[row["stream_id"]],
                    "timestamp": row["at"],
                    "message": row["message"],
                    "ingestionTime": row["ingested_at"],
                    "eventId": f"{row['at']:020d}{row['stream_id']:012d}{row['number']:024d}",
                }
            )
    return {"events": events, "searchedLogStreams": [], "nextToken": token}


@operation
def describe_log_groups(logs: Logs, db: Database, params: dict[str, Any]) -> dict[str, Any]:
    limit = params.get("limit", 50)
    prefix, part = params.get("logGroupNamePrefix", ""), params.get("logGroupNamePattern", "")
    if prefix and part:
        raise invalid("Only one of logGroupNamePrefix and logGroupNamePattern may be given.")
    rows = db.execute(
        "SELECT groups.*, (SELECT sum(bytes) FROM streams WHERE group_id = groups.id) AS bytes FROM groups"
        " WHERE substr(name, 1, ?) = ? AND instr(lower(name), lower(?)) AND name > ? ORDER BY name LIMIT ?",
        (len(prefix), prefix, part, params.get("nextToken", ""), limit + 1),
    ).fetchall()
    groups = [
        {
            "logGroupName": row["name"],
            "creationTime": row["created_at"],
            "storedBytes": row["bytes"] or 0,
            "metricFilterCount": 0,
            "logGroupClass": "STANDARD",
            "arn": logs_arn(logs.farm, row["name"]) + ":*",
            "logGroupArn": logs_arn(logs.farm, row["name"]),
        }
        for row in rows[:limit]
    ]
    return {"logGroups": groups, "nextToken": groups[-1]["logGroupName"] if len(rows) > limit else None}


@operation
def describe_log_streams(logs: Logs, db: Database, params: dict[str, Any]) -> dict[str, Any]:
    group_id = find_group(db, params)
    group = store.value(db, "SELECT name FROM groups WHERE id = ?", group_id)
    prefix, limit = params.get("logStreamNamePrefix", ""), params.get("limit", 50)
    by_time = params.get("orderBy") == "LastEventTime"
    if by_time and prefix:
        raise invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
    descending = params.get("descending", False)
    key = "ifnull(last_at, 0)" if by_time else "0"
    sql = f"SELECT *, {key} AS sort FROM streams WHERE group_id = ? AND substr(name, 1, ?) = ?"
    args: tuple[Any, ...] = (group_id, len(prefix), prefix)
    if "nextToken" in params:
        sort, _, name = params["nextToken"].partition(":")
        if not re.fullmatch(r"[0-9]+", sort):
            raise invalid("The specified nextToken is invalid.")
        sql += f" AND ({key}, name) {'<' if descending else '>'} (?, ?)"
        args += (*_numbers(sort), name)
    way = "DESC" if descending else "ASC"
    rows = db.execute(f"{sql} ORDER BY sort {way}, name {way} LIMIT ?", (*args, limit + 1)).fetchall()
    token = f"{rows[limit - 1]['sort']}:{rows[limit - 1]['name']}" if len(rows) > limit else None
    streams = [
        {
            "logStreamName": row["name"],
            "creationTime": row["created_at"],
            "firstEventTimestamp": row["first_at"],
            "lastEventTimestamp": row["last_at"],
            "lastIngestionTime": row["ingested_at"],
            "uploadSequenceToken": f"{row['id']:020d}{row['next_number']:036d}",
            "arn": f"{logs_arn(logs.farm, group)}:log-stream:{row['name']}",
            "storedBytes": 0,  # what the real one answers since 2019
        }
        for row in rows[:limit]
    ]
    return {"logStreams": streams, "nextToken": token}


def logs_arn(farm: Farm, group: str) -> str:
    """The ARN of a log group."""
    return f"arn:aws:logs:{farm.region}:{farm.account}:log-group:{group}"
