"""dl-worker-logs - ship the logs of sessions and worker to CloudWatch Logs

Usage:
  dl-worker-logs [options]

Options:
  --dir=<dir>    State folder of the worker. Default: $DL_WORKER_DIR, else
                 $DEADLINE_WORKER_PERSISTENCE_DIR, else /var/lib/deadline.
  --config=<file>
                 Configuration; by default worker.toml in the state folder, else
                 /etc/amazon/deadline/worker.toml.
  --once         Ship what is there and end.

Killed and started again it goes on where it was: a batch that was on its way is sent again as it was, so that the
service can tell it for a repeat. Told to stop, it first ships what the sessions' end still writes.
"""

from __future__ import annotations

import contextlib
import os
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from libdeadline import command, statuses
from libdeadline.errors import Trouble

from . import service, settings, supervision
from .folder import Folder, SessionFolder, Wake, now_text, read_json, write_json
from .service import Farm

if TYPE_CHECKING:
    from libdeadline.command import Arguments, Run

# The service's limits for one batch, and one event. Source: CloudWatch Logs API Reference, PutLogEvents.
BATCH_BYTES, EVENT_OVERHEAD_BYTES, BATCH_EVENTS = 1_048_576, 26, 10_000
EVENT_BYTES = 256_000
SPAN_MS, OLD_MS, AHEAD_MS = 24 * 3600_000, 24 * 3600_000, 2 * 3600_000
LOOK_S = 0.5  # between two looks at logs that grow
IDLE_S = 5.0  # and where no session runs
STREAM_S = 0.25  # between two batches of one stream: five a second are allowed
STOP_S = 15.0  # longest that it goes on after it was told to stop
ROTATE_BYTES = 5 << 20


class Stream:
    """One log file and the log stream that it goes to.

    State: <file>.offset holds how much was acknowledged; while a batch is on its way also where that ends, and the
    time by which its events were judged.
    """

    def __init__(self, path: str, offset_path: str, where: dict[str, str]) -> None:
        self.path, self.offset_path, self.where = path, offset_path, where
        self.due = 0.0
        self.attempt = 0
        self.limit = BATCH_EVENTS

    def is_grown(self) -> bool:
        """Whether there is something to ship."""
        try:
            return bool(os.stat(self.path).st_size > self._state()["offset"])
        except FileNotFoundError:
            return False

    def _state(self) -> dict[str, Any]:
        state = read_json(self.offset_path) or {"offset": 0}
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.path).st_size < state["offset"]:
                return {"offset": 0}  # a new file has taken the place of a rotated one
        return state

    def ship(self, farm: Farm) -> None:
        """Send one batch; written down before it leaves and after it is acknowledged.

        Raises: Trouble; the batch is then sent again, as it is, next time.
        """
        state = self._state()
        now_ms = state.get("now_ms") or int(time() * 1000)
        events, end = batch_of(self.path, state["offset"], state.get("end"), now_ms, self.limit)
        if end == state["offset"]:
            return
        if not events:
            write_json(self.offset_path, {"offset": end})
            return
        if "end" not in state:
            write_json(self.offset_path, {"offset": state["offset"], "end": end, "now_ms": now_ms})
        try:
            self._put(farm, events)
        except Trouble as trouble:
            if trouble.status != statuses.DATA or service.is_expired(trouble):
                raise
            if len(events) > 1:
                # One of them is refused: halves find it, and the others get through.
                self.limit = len(events) // 2
                write_json(self.offset_path, {"offset": state["offset"]})
                return
            write_json(self.offset_path, {"offset": end})
            raise Trouble(f"a line of '{self.path}' is refused and left out: {trouble.message}") from None
        self.limit = BATCH_EVENTS
        write_json(self.offset_path, {"offset": end})

    def _put(self, farm: Farm, events: list[dict[str, Any]]) -> None:
        names = {"logGroupName": self.where["group"], "logStreamName": self.where["stream"]}
        try:
            farm.logs().call("PutLogEvents", {**names, "logEvents": events})
        except Trouble as trouble:
            if not service.is_missing(trouble):
                raise
            farm.logs().call("CreateLogStream", names)
            farm.logs().call("PutLogEvents", {**names, "logEvents": events})

    def rotate(self) -> None:
        """Begin a new file once all of a big one is shipped; what is written meanwhile moves over."""
        shipped = self._state()["offset"]
        if shipped < ROTATE_BYTES or self.is_grown():
            return
        old = f"{self.path}.1"
        os.replace(self.path, old)
        write_json(self.offset_path, {"offset": 0})
        with open(old, "rb") as file:
            file.seek(shipped)
            rest = file.read()
        if rest:
            with open(self.path, "ab", buffering=0) as file:
                file.write(rest)


def batch_of(
    path: str, offset: int, end: int | None, now_ms: int, limit: int = BATCH_EVENTS
) -> tuple[list[dict[str, Any]], int]:
    """The events of the lines from `offset` on that make one batch, and where they end in the file.

    `end`: exactly the lines up to there, for a batch that is sent again. Events that the service would refuse for
    their time get the time `now_ms`. The same file, offset, end and time always give the same batch.
    Shape: events in order of time, as PutLogEvents takes them; a long message makes several.
    """
    import orjson

    events: list[dict[str, Any]] = []
    size = 0
    oldest = newest = None
    position = offset
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n") or (end is not None and position >= end):
                break
            try:
                row = orjson.loads(line)
                at_ms, message = _milliseconds(row["timestamp"]), str(row["message"])
            except (ValueError, KeyError, TypeError):
                position += len(line)
                continue  # half a line, of a writer that was killed
            if not now_ms - OLD_MS < at_ms < now_ms + AHEAD_MS:
                at_ms = now_ms
            pieces = _pieces(message or " ")
            more = sum(len(piece.encode()) + EVENT_OVERHEAD_BYTES for piece in pieces)
            low = at_ms if oldest is None else min(oldest, at_ms)
            high = at_ms if newest is None else max(newest, at_ms)
            is_full = size + more > BATCH_BYTES or len(events) + len(pieces) > limit or high - low >= SPAN_MS
            if events and is_full and end is None:
                break
            oldest, newest, size = low, high, size + more
            events += [{"timestamp": at_ms, "message": piece} for piece in pieces]
            position += len(line)
    return sorted(events, key=lambda event: event["timestamp"]), position


def _milliseconds(text: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _pieces(message: str) -> list[str]:
    """`message` in pieces that each fit into an event, cut between characters."""
    if len(message) * 4 <= EVENT_BYTES or len(message.encode()) <= EVENT_BYTES:
        return [message]
    pieces, start = [], 0
    while start < len(message):
        stop = min(len(message), start + EVENT_BYTES)
        while len(message[start:stop].encode()) > EVENT_BYTES:
            stop -= max(1, (len(message[start:stop].encode()) - EVENT_BYTES) // 4)
        pieces.append(message[start:stop])
        start = stop
    return pieces


class Shipper:
    """All streams of the worker, each shipped as it grows."""

    def __init__(self, folder: Folder, known: settings.Settings, run: Run) -> None:
        self.folder, self.known, self.run = folder, known, run
        self.wake = Wake(folder.wake("logs"))
        self.streams: dict[str, Stream] = {}
        self.farm: Farm | None = None

    def serve(self) -> None:
        """Ship for ever."""
        while True:
            self.wake.wait(self.ship())

    def finish(self) -> None:
        """Ship what the end of the sessions still writes, for a while."""
        until = monotonic() + STOP_S
        while monotonic() < until:
            delay = self.ship()
            if not self.folder.is_locked("schedule") and not self._is_grown():
                return
            self.wake.wait(min(delay, LOOK_S))

    def _is_grown(self) -> bool:
        return any(stream.is_grown() for stream in self.streams.values())

    def ship(self) -> float:
        """Send a batch of each stream that has something; when to look again, in seconds."""
        self._find()
        now = monotonic()
        next_due = IDLE_S if len(self.streams) <= 1 else LOOK_S
        for stream in self.streams.values():
            if not stream.is_grown():
                continue
            if stream.due > now:
                next_due = min(next_due, stream.due - now)
                continue
            try:
                assert self.farm is not None
                stream.ship(self.farm)
                stream.attempt = 0
                stream.due = monotonic() + STREAM_S
            except Trouble as trouble:
                if stream.attempt in (0, 10) or stream.attempt % 100 == 0:
                    self.run.warn(f"cannot ship '{stream.path}': {trouble.message}")
                stream.attempt += 1
                stream.due = monotonic() + max(1.0, service.backoff_s(stream.attempt, service.retry_after_s(trouble)))
            if stream.is_grown():
                next_due = min(next_due, max(0.0, stream.due - monotonic()))
            elif stream.path == self.folder.file("log", "worker.jsonl"):
                stream.rotate()
        return next_due

    def _find(self) -> None:
        enrolment = self.folder.enrolment()
        if enrolment is None:
            return
        if self.farm is None or self.farm.worker_id != enrolment["worker_id"]:
            self.farm = Farm(self.folder, self.known, enrolment["worker_id"])
        found: dict[str, Stream] = {}
        own = self.folder.file("log", "worker.jsonl")
        if enrolment.get("log"):
            found[own] = self._stream(own, self.folder.file("log", "worker.offset"), enrolment["log"])
        for session in self.folder.sessions():
            where = self._where(session)
            if where:
                found[session.log] = self._stream(session.log, session.file("log.offset"), where)
        self.streams = found

    def _where(self, session: SessionFolder) -> dict[str, str] | None:
        known = self.streams.get(session.log)
        if known is not None:
            return known.where
        return (read_json(session.file("session.json")) or {}).get("log")

    def _stream(self, path: str, offset_path: str, where: dict[str, str]) -> Stream:
        known = self.streams.get(path)
        return known if known is not None and known.where == where else Stream(path, offset_path, where)


def main_of(args: Arguments, run: Run) -> int:
    known = settings.read(args["--dir"], args["--config"])
    folder = Folder(known.state_dir).prepare()
    held = folder.lock("logs")
    supervision.end_with_supervisor()
    shipper = Shipper(folder, known, run)
    try:
        if args["--once"]:
            shipper.ship()
            while shipper._is_grown():
                shipper.wake.wait(shipper.ship())
        else:
            try:
                shipper.serve()
            except command.Stopped:
                shipper.finish()
    finally:
        os.close(held)
    return statuses.OK


def main() -> int:
    return command.call(__doc__, main_of)


__all__ = ("batch_of", "main", "now_text")
