"""CloudWatch Logs: order, tokens from either side, limits, filters, repetition, who may read and write."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

NOW = int(time.time() * 1000) - 60_000


@pytest.fixture
def logs(farmd: Any) -> Any:
    return farmd.client("logs")


@pytest.fixture
def stream(logs: Any) -> dict[str, str]:
    group = f"/test/{uuid4()}"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    return {"logGroupName": group, "logStreamName": "s"}


def put(logs: Any, stream: dict[str, str], *events: tuple[int, str]) -> Any:
    return logs.put_log_events(**stream, logEvents=[{"timestamp": NOW + at, "message": text} for at, text in events])


def texts(answer: Any) -> list[str]:
    return [event["message"] for event in answer["events"]]


def code(function: Any, **params: Any) -> str:
    with pytest.raises(ClientError) as caught:
        function(**params)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(caught.value.response["Error"]["Code"])


def test_events_come_in_the_order_of_their_times(logs: Any, stream: dict[str, str]) -> None:
    put(logs, stream, (5, "c"), (5, "d"), (9, "f"))
    put(logs, stream, (1, "a"), (2, "b"), (5, "e"))
    answer = logs.get_log_events(**stream, startFromHead=True)
    assert texts(answer) == ["a", "b", "c", "d", "e", "f"]
    event = answer["events"][0]
    assert event["timestamp"] == NOW + 1 and abs(event["ingestionTime"] - time.time() * 1000) < 60_000


def test_the_last_events_are_the_default(logs: Any, stream: dict[str, str]) -> None:
    put(logs, stream, *((n, str(n)) for n in range(10)))
    answer = logs.get_log_events(**stream, limit=3)
    assert texts(answer) == ["7", "8", "9"]
    back = logs.get_log_events(**stream, limit=3, nextToken=answer["nextBackwardToken"])
    assert texts(back) == ["4", "5", "6"]
    forth = logs.get_log_events(**stream, limit=2, nextToken=back["nextForwardToken"])
    assert texts(forth) == ["7", "8"]


def test_walks_in_both_directions_meet_every_event_once(logs: Any, stream: dict[str, str]) -> None:
    put(logs, stream, *((n // 4, str(n)) for n in range(23)))  # several share a time
    for head, token_name in ((True, "nextForwardToken"), (False, "nextBackwardToken")):
        seen: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = logs.get_log_events(**stream, limit=5, startFromHead=head, **token)
            if token and page[token_name] == token["nextToken"]:
                assert texts(page) == []
                break
            seen = seen + texts(page) if head else texts(page) + seen
            token = {"nextToken": page[token_name]}
        assert seen == [str(n) for n in range(23)]


def test_the_same_token_comes_back_at_the_end_and_finds_what_is_new(logs: Any, stream: dict[str, str]) -> None:
    empty = logs.get_log_events(**stream)
    assert (
        texts(empty) == []
        and empty["nextForwardToken"].startswith("f/")
        and empty["nextBackwardToken"].startswith("b/")
    )
    put(logs, stream, (1, "a"))
    first = logs.get_log_events(**stream, nextToken=empty["nextForwardToken"])
    assert texts(first) == ["a"]
    again = logs.get_log_events(**stream, nextToken=first["nextForwardToken"])
    assert texts(again) == [] and again["nextForwardToken"] == first["nextForwardToken"]
    assert texts(logs.get_log_events(**stream, nextToken=again["nextBackwardToken"])) == ["a"]
    put(logs, stream, (1, "b"))
    assert texts(logs.get_log_events(**stream, nextToken=again["nextForwardToken"])) == ["b"]
    assert code(logs.get_log_events, **stream, nextToken="nonsense") == "InvalidParameterException"


def test_times_bound_what_is_read(logs: Any, stream: dict[str, str]) -> None:
    put(logs, stream, *((n, str(n)) for n in range(10)))
    answer = logs.get_log_events(**stream, startTime=NOW + 3, endTime=NOW + 6, startFromHead=True)
    assert texts(answer) == ["3", "4", "5"]


def test_an_answer_is_bounded_in_bytes(logs: Any, stream: dict[str, str]) -> None:
    for batch in range(3):
        put(logs, stream, *((batch, "x" * 200_000) for _ in range(4)))
    first = logs.get_log_events(**stream, startFromHead=True)
    assert 1 <= len(first["events"]) < 12
    rest = logs.get_log_events(**stream, nextToken=first["nextForwardToken"])
    final = logs.get_log_events(**stream, nextToken=rest["nextForwardToken"])
    assert len(first["events"]) + len(rest["events"]) + len(final["events"]) == 12


def test_a_repeated_batch_is_dropped(logs: Any, stream: dict[str, str]) -> None:
    for _ in range(3):
        assert put(logs, stream, (1, "a"), (2, "b"))["nextSequenceToken"]
    put(logs, stream, (3, "c"))
    put(logs, stream, (1, "a"), (2, "b"))  # not the last batch any more: kept
    assert texts(logs.get_log_events(**stream, startFromHead=True)) == ["a", "a", "b", "b", "c"]


def test_wrong_batches_are_refused(logs: Any, stream: dict[str, str]) -> None:
    def refused(events: list[tuple[int, str]]) -> str:
        return code(
            logs.put_log_events, **stream, logEvents=[{"timestamp": at, "message": text} for at, text in events]
        )

    assert refused([(NOW + 2, "a"), (NOW, "b")]) == "InvalidParameterException"
    assert refused([(NOW - 90_000_000, "a"), (NOW, "b")]) == "InvalidParameterException"
    assert refused([(NOW, "x" * 600_000), (NOW, "y" * 600_000)]) == "InvalidParameterException"
    assert refused([(NOW, "")]) == "InvalidParameterException"
    assert refused([]) == "InvalidParameterException"
    assert refused([(NOW, "x")] * 10_001) == "InvalidParameterException"
    assert texts(logs.get_log_events(**stream)) == []


def test_events_too_old_and_too_new_are_rejected_and_told(logs: Any, stream: dict[str, str]) -> None:
    day = 86_400_000
    now = int(time.time() * 1000)
    answer = logs.put_log_events(
        **stream,
        logEvents=[
            {"timestamp": now - 14 * day - 1000, "message": "old"},
            {"timestamp": now - 14 * day + 60_000, "message": "kept"},
        ],
    )
    assert answer["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    answer = logs.put_log_events(
        **stream, logEvents=[{"timestamp": now, "message": "now"}, {"timestamp": now + 3 * 3_600_000, "message": "new"}]
    )
    assert answer["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 1}
    assert texts(logs.get_log_events(**stream, startFromHead=True)) == ["kept", "now"]


def test_what_does_not_exist_is_not_found(logs: Any, stream: dict[str, str]) -> None:
    missing = {**stream, "logStreamName": "none"}
    assert code(logs.get_log_events, **missing) == "ResourceNotFoundException"
    event = {"timestamp": NOW, "message": "x"}
    assert code(logs.put_log_events, **missing, logEvents=[event]) == "ResourceNotFoundException"
    assert code(logs.create_log_stream, logGroupName="/none", logStreamName="s") == "ResourceNotFoundException"
    assert code(logs.create_log_group, logGroupName=stream["logGroupName"]) == "ResourceAlreadyExistsException"
    assert code(logs.create_log_stream, **stream) == "ResourceAlreadyExistsException"
    assert code(logs.start_query, startTime=0, endTime=1, queryString="x") == "UnknownOperationException"
    logs.delete_log_stream(**stream)
    assert code(logs.get_log_events, **stream) == "ResourceNotFoundException"
    logs.delete_log_group(logGroupName=stream["logGroupName"])
    assert code(logs.filter_log_events, logGroupName=stream["logGroupName"]) == "ResourceNotFoundException"


def test_filtering_over_streams(logs: Any, stream: dict[str, str]) -> None:
    group = stream["logGroupName"]
    logs.create_log_stream(logGroupName=group, logStreamName="t")
    other = {**stream, "logStreamName": "t"}
    put(logs, stream, (1, "ERROR one"), (3, "warning three"), (5, "ERROR five (fatal)"))
    put(logs, other, (2, "ERROR two"), (4, "info four"))

    def found(**params: Any) -> list[str]:
        return texts(logs.filter_log_events(logGroupName=group, **params))

    assert found() == ["ERROR one", "ERROR two", "warning three", "info four", "ERROR five (fatal)"]
    assert found(filterPattern="ERROR") == ["ERROR one", "ERROR two", "ERROR five (fatal)"]
    assert found(filterPattern="ERROR -fatal") == ["ERROR one", "ERROR two"]
    assert found(filterPattern="?warning ?info") == ["warning three", "info four"]
    assert found(filterPattern='"five (fatal)"') == ["ERROR five (fatal)"]
    assert found(filterPattern="%^ERROR t.o$%") == ["ERROR two"]
    assert found(filterPattern="error") == []
    assert found(logStreamNames=["t"]) == ["ERROR two", "info four"]
    assert found(logStreamNamePrefix="s") == ["ERROR one", "warning three", "ERROR five (fatal)"]
    assert found(startTime=NOW + 2, endTime=NOW + 4) == ["ERROR two", "warning three"]
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=group, filterPattern="ERROR", PaginationConfig={"PageSize": 1}
    )
    events = [event for page in pages for event in page["events"]]
    assert [event["message"][6:9] for event in events] == ["one", "two", "fiv"]
    assert len({event["eventId"] for event in events}) == 3
    put(logs, other, (6, '{"level": "ERROR", "ms": 12}'), (7, '{"level": "INFO", "ms": 7}'))
    assert found(filterPattern="{ $.level = ERROR && $.ms > 10 }") == ['{"level": "ERROR", "ms": 12}']
    assert found(filterPattern="[level=ERROR, word != t*]") == ["ERROR one", "ERROR five (fatal)"]
    for wrong in ("{ $.x == 1 }", "[", "%(%"):
        assert code(logs.filter_log_events, logGroupName=group, filterPattern=wrong) == "InvalidParameterException"
    assert code(logs.filter_log_events, logGroupName=group, logStreamNames=["no"]) == "ResourceNotFoundException"


def test_groups_and_streams_are_listed(logs: Any) -> None:
    prefix = f"/list/{uuid4()}"
    for name in "cab":
        logs.create_log_group(logGroupName=f"{prefix}/{name}")
    pages = logs.get_paginator("describe_log_groups").paginate(
        logGroupNamePrefix=prefix, PaginationConfig={"PageSize": 2}
    )
    names = [group["logGroupName"] for page in pages for group in page["logGroups"]]
    assert names == [f"{prefix}/{name}" for name in "abc"]
    group = f"{prefix}/a"
    for n, name in enumerate(("x2", "x1", "y1")):
        logs.create_log_stream(logGroupName=group, logStreamName=name)
        put(logs, {"logGroupName": group, "logStreamName": name}, (n, name))

    def listed(**params: Any) -> list[str]:
        pages = logs.get_paginator("describe_log_streams").paginate(
            logGroupName=group, **params, PaginationConfig={"PageSize": 2}
        )
        return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]

    assert listed() == ["x1", "x2", "y1"]
    assert listed(descending=True) == ["y1", "x2", "x1"]
    assert listed(logStreamNamePrefix="x") == ["x1", "x2"]
    assert listed(orderBy="LastEventTime") == ["x2", "x1", "y1"]
    assert listed(orderBy="LastEventTime", descending=True) == ["y1", "x1", "x2"]
    (one,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="y")["logStreams"]
    assert (one["firstEventTimestamp"], one["lastEventTimestamp"]) == (NOW + 2, NOW + 2)


def test_readers_read_their_group_only(farmd: Any, farm_ids: Any, logs: Any) -> None:
    queue_group = f"/aws/deadline/{farm_ids.farm}/{farm_ids.queue}"
    fleet_group = f"/aws/deadline/{farm_ids.farm}/{farm_ids.fleet}"
    for group in (queue_group, fleet_group):
        # The service makes the streams of a farm by itself.
        put(logs, {"logGroupName": group, "logStreamName": "s"}, (1, "text"))
    admin = farmd.client()
    queue = {"farmId": farm_ids.farm, "queueId": farm_ids.queue}
    for assume, params, mine, other in (
        (admin.assume_queue_role_for_user, queue, queue_group, fleet_group),
        (admin.assume_queue_role_for_read, queue, queue_group, fleet_group),
        (
            admin.assume_fleet_role_for_read,
            {"farmId": farm_ids.farm, "fleetId": farm_ids.fleet},
            fleet_group,
            queue_group,
        ),
    ):
        reader = farmd.client("logs", credentials=assume(**params)["credentials"])
        assert texts(reader.get_log_events(logGroupName=mine, logStreamName="s")) == ["text"]
        assert code(reader.get_log_events, logGroupName=other, logStreamName="s") == "AccessDeniedException"
        assert code(reader.get_log_events, logGroupName="/other", logStreamName="s") == "AccessDeniedException"
        event = {"timestamp": NOW, "message": "x"}
        assert (
            code(reader.put_log_events, logGroupName=mine, logStreamName="s", logEvents=[event])
            == "AccessDeniedException"
        )


def test_a_worker_writes_its_own_stream_only(farmd: Any, farm_ids: Any) -> None:
    admin = farmd.client()
    ids = {"farmId": farm_ids.farm, "fleetId": farm_ids.fleet}
    worker = admin.create_worker(**ids, hostProperties={"hostName": "h"})["workerId"]
    credentials = admin.assume_fleet_role_for_worker(**ids, workerId=worker)["credentials"]
    logs = farmd.client("logs", credentials=credentials)
    group = f"/aws/deadline/{farm_ids.farm}/{farm_ids.fleet}"
    event = {"timestamp": NOW, "message": "x"}
    logs.put_log_events(logGroupName=group, logStreamName=worker, logEvents=[event])
    other = admin.create_worker(**ids, hostProperties={"hostName": "h"})["workerId"]
    session_group = f"/aws/deadline/{farm_ids.farm}/{farm_ids.queue}"
    for name, stream in ((group, other), (session_group, f"session-{'0' * 32}"), ("/other", worker)):
        assert (
            code(logs.put_log_events, logGroupName=name, logStreamName=stream, logEvents=[event])
            == "AccessDeniedException"
        )
    assert code(logs.get_log_events, logGroupName=group, logStreamName=worker) == "AccessDeniedException"


def test_logs_survive_kill_9(farmd: Any, stream: dict[str, str]) -> None:
    logs = farmd.client("logs")
    for n in range(20):
        put(logs, stream, (n, str(n)))
    farmd.restart()
    assert texts(farmd.client("logs").get_log_events(**stream, startFromHead=True)) == [str(n) for n in range(20)]


def test_the_store_is_bounded(tmp_path: Path, start_farmd: Any) -> None:
    """The stream that was written least lately goes first, then the oldest events of what is left; the file shrinks."""
    import json

    folder = tmp_path / "farm"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"settings": {"logs_max_bytes": 4_000_000}}))
    server = start_farmd(folder)
    logs = server.client("logs")
    logs.create_log_group(logGroupName="/g")
    streams = [{"logGroupName": "/g", "logStreamName": name} for name in ("idle", "busy")]
    for stream in streams:
        logs.create_log_stream(**stream)
    idle, busy = streams
    put(logs, idle, *((n, f"{n}" + "x" * 100_000) for n in range(9)))
    for batch in range(12):
        put(logs, busy, *((batch, f"{batch}.{n}" + "x" * 100_000) for n in range(9)))
    assert texts(logs.get_log_events(**idle)) == []
    kept: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = logs.get_log_events(**busy, startFromHead=True, **token)
        if token == {"nextToken": page["nextForwardToken"]}:
            break
        kept += [text.partition("x")[0] for text in texts(page)]
        token = {"nextToken": page["nextForwardToken"]}
    assert kept == [f"{batch}.{n}" for batch in range(12) for n in range(9)][-len(kept) :]
    assert 20 <= len(kept) <= 45
    assert server.stop() == 0
    assert 2_000_000 < (folder / "logs.sqlite").stat().st_size < 8_000_000
    (folder / "config.json").write_text(json.dumps({"settings": {"logs_max_bytes": 400_000}}))
    server.start()
    put(server.client("logs"), busy, (99, "x" * 100_000))
    assert server.stop() == 0
    assert (folder / "logs.sqlite").stat().st_size < 800_000
