"""Batches of log events: within the service's limits, and always the same from the same place on."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from dl_worker import dl_worker_logs
from dl_worker.dl_worker_logs import BATCH_BYTES, EVENT_BYTES, Stream, batch_of
from dl_worker.folder import read_json, time_text
from hypothesis import given, settings
from hypothesis import strategies as st

from libdeadline import statuses
from libdeadline.errors import Trouble

NOW_MS = 1_700_000_000_000
HOUR_MS = 3600_000
LATER = b'{"type":"log","timestamp":"2023-11-14T22:13:20.000Z","message":"later"}\n'


def write(path: Path, *rows: tuple[int, str]) -> str:
    path.write_bytes(
        b"".join(
            json.dumps({"type": "log", "timestamp": time_text(at / 1000), "message": text}).encode() + b"\n"
            for at, text in rows
        )
    )
    return str(path)


def test_events_carry_the_line_s_time_and_come_in_its_order(tmp_path: Path) -> None:
    path = write(tmp_path / "l", (NOW_MS + 2, "b"), (NOW_MS + 1, "a"), (NOW_MS + 2, ""))
    events, end = batch_of(path, 0, None, NOW_MS)
    assert [(event["timestamp"] - NOW_MS, event["message"]) for event in events] == [(1, "a"), (2, "b"), (2, " ")]
    assert end == Path(path).stat().st_size


def test_a_line_without_its_end_waits_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "l"
    write(path, (NOW_MS, "a"))
    whole = path.read_bytes()
    path.write_bytes(b'{"type":"lo\n' + whole + whole[:-1])
    events, end = batch_of(str(path), 0, None, NOW_MS)
    assert [event["message"] for event in events] == ["a"]
    assert end == 12 + len(whole)


def test_times_that_would_be_refused_become_now(tmp_path: Path) -> None:
    path = write(
        tmp_path / "l", (NOW_MS - 25 * HOUR_MS, "old"), (NOW_MS + 3 * HOUR_MS, "ahead"), (NOW_MS - HOUR_MS, "x")
    )
    events, _ = batch_of(path, 0, None, NOW_MS)
    assert {event["message"]: event["timestamp"] - NOW_MS for event in events} == {"old": 0, "ahead": 0, "x": -HOUR_MS}


def test_a_batch_spans_less_than_a_day(tmp_path: Path) -> None:
    path = write(tmp_path / "l", (NOW_MS - 23 * HOUR_MS, "a"), (NOW_MS, "b"), (NOW_MS + 90 * 60_000, "c"))
    events, end = batch_of(path, 0, None, NOW_MS)
    assert [event["message"] for event in events] == ["a", "b"]
    events, _ = batch_of(path, end, None, NOW_MS)
    assert [event["message"] for event in events] == ["c"]


def test_a_long_line_becomes_several_events_cut_between_characters(tmp_path: Path) -> None:
    text = "é" * 200_000 + "\N{SNOWMAN}" * 100_000
    path = write(tmp_path / "l", (NOW_MS, text))
    events, _ = batch_of(path, 0, None, NOW_MS)
    assert "".join(event["message"] for event in events) == text
    assert max(len(event["message"].encode()) for event in events) <= EVENT_BYTES
    assert len(events) <= 4


lines = st.lists(st.tuples(st.integers(0, 1000), st.text(max_size=50).map(lambda s: s * 900)), max_size=80)


@settings(max_examples=60, deadline=None)
@given(lines)
def test_all_lines_go_once_in_lawful_batches(rows: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "l", *((NOW_MS + at, text) for at, text in rows))
        offset, sent = 0, []
        while True:
            events, end = batch_of(path, offset, None, NOW_MS, 20)
            if end == offset:
                break
            assert len(events) <= 20
            assert sum(len(event["message"].encode()) + 26 for event in events) <= BATCH_BYTES
            assert [event["timestamp"] for event in events] == sorted(event["timestamp"] for event in events)
            # Once more, as after a kill: exactly the same, whatever came after.
            before = Path(path).read_bytes()
            Path(path).write_bytes(before + LATER)
            assert batch_of(path, offset, end, NOW_MS) == (events, end)
            Path(path).write_bytes(before)
            sent += events
            offset = end
        wanted = sorted((NOW_MS + at, text or " ") for at, text in rows)
        assert sorted((event["timestamp"], event["message"]) for event in sent) == wanted


class Service:
    """Stands for the farm's logs: remembers batches, and refuses or loses what it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.poison: str | None = None
        self.lost = 0

    def logs(self) -> Service:
        return self

    def call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        assert operation == "PutLogEvents"
        messages = [event["message"] for event in parameters["logEvents"]]
        if self.poison in messages:
            raise Trouble("InvalidParameterException", statuses.DATA)
        self.batches.append(messages)
        if self.lost:
            self.lost -= 1
            raise Trouble("the connection broke", statuses.UNAVAILABLE)
        return {}


def shipped(stream: Stream, service: Service, rounds: int = 50) -> None:
    for _ in range(rounds):
        try:
            stream.ship(service)  # type: ignore[arg-type]
        except Trouble:
            pass


def now_rows(*texts: str) -> list[tuple[int, str]]:
    import time

    return [(int(time.time() * 1000), text) for text in texts]


def test_a_batch_whose_fate_is_unknown_is_sent_again_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "l"
    write(path, *now_rows("a", "b"))
    service = Service()
    service.lost = 1
    where = {"group": "g", "stream": "s"}
    try:
        Stream(str(path), str(tmp_path / "o"), where).ship(service)  # type: ignore[arg-type]
    except Trouble:
        pass
    before = path.read_bytes()
    path.write_bytes(before + before)
    shipped(Stream(str(path), str(tmp_path / "o"), where), service)
    assert service.batches == [["a", "b"], ["a", "b"], ["a", "b"]]
    assert read_json(str(tmp_path / "o")) == {"offset": len(before) * 2}


def test_one_refused_line_does_not_hold_up_the_others(tmp_path: Path) -> None:
    path = tmp_path / "l"
    write(path, *now_rows("a", "b", "poison", "c", "d"))
    service = Service()
    service.poison = "poison"
    shipped(Stream(str(path), str(tmp_path / "o"), {"group": "g", "stream": "s"}), service)
    assert sorted(sum(service.batches, [])) == ["a", "b", "c", "d"]


def test_a_rotated_log_begins_anew(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(dl_worker_logs, "ROTATE_BYTES", 10)
    path = tmp_path / "l"
    write(path, *now_rows("a", "b"))
    service = Service()
    stream = Stream(str(path), str(tmp_path / "o"), {"group": "g", "stream": "s"})
    shipped(stream, service)
    stream.rotate()
    assert not path.exists()
    write(path, *now_rows("c"))
    shipped(stream, service)
    assert service.batches == [["a", "b"], ["c"]]
