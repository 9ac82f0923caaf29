"""The server as a socket sees it: routes, bodies, headers, connections, and what is no HTTP."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import quote

import pytest

FARMS = "/2023-10-12/farms"


def create(farmd: Any, body: bytes) -> Any:
    return farmd.send("POST", FARMS, body, {"content-type": "application/json"})


def test_every_answer_has_a_request_id_and_times_have_milliseconds(farmd: Any) -> None:
    made = create(farmd, b'{"displayName": "f"}')
    assert made.status == 200 and len(made.headers["x-amzn-requestid"]) == 36
    got = farmd.send("GET", f"{FARMS}/{made.body['farmId']}")
    assert len(got.body["createdAt"]) == len("2026-01-02T03:04:05.678Z") and got.body["createdAt"][-5] == "."
    assert got.body["createdAt"].endswith("Z")
    assert None not in got.body.values()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/2023-10-12/nothing"),
        ("PUT", FARMS),
        ("GET", "/2023-10-12"),
        ("GET", "/"),
        ("GET", "/2022-01-01/farms"),
        ("GET", f"{FARMS}/farm-{'0' * 32}/queues/queue-{'0' * 32}/jobs/job-{'0' * 32}/nothing"),
    ],
)
def test_an_unknown_path_is_an_unknown_operation(method: str, path: str, farmd: Any) -> None:
    answer = farmd.send(method, path)
    assert (answer.status, answer.error) == (404, "UnknownOperationException")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"text"', b"\xff", b'{"displayName": "x"', b"{}{}", b"[" * 100_000])
def test_a_body_that_is_no_object_cannot_be_parsed(body: bytes, farmd: Any) -> None:
    answer = create(farmd, body)
    assert (answer.status, answer.error, answer.body["reason"]) == (400, "ValidationException", "CANNOT_PARSE")


def test_null_equals_absence_and_unknown_members_are_ignored(farmd: Any) -> None:
    assert create(farmd, b'{"displayName": "f", "description": null, "unheardOf": [1]}').status == 200
    answer = create(farmd, b'{"displayName": null}')
    assert (answer.status, answer.body["fieldList"]) == (
        400, [{"name": "displayName", "message": "Member must not be null"}],
    )  # fmt: skip


def test_unions_have_exactly_one_member(farmd: Any, farm_ids: Any) -> None:
    path = f"{FARMS}/{farm_ids.farm}/queues"
    for wrong in ({}, {"priorityFifo": {}, "priorityBalanced": {}}, {"unheardOf": {}}, {"priorityFifo": None}):
        body = json.dumps({"displayName": "q", "schedulingConfiguration": wrong}).encode()
        answer = farmd.send("POST", path, body)
        assert answer.status == 400 and answer.body["fieldList"][0]["name"] == "schedulingConfiguration"


def test_all_faults_are_listed_with_their_paths(farmd: Any, farm_ids: Any) -> None:
    fleet = {
        "displayName": "",
        "roleArn": "no arn",
        "configuration": {"customerManaged": {"mode": "FAST", "workerCapabilities": {"vCpuCount": {"min": 0}}}},
    }
    answer = farmd.send("POST", f"{FARMS}/{farm_ids.farm}/fleets", json.dumps(fleet).encode())
    names = {fault["name"] for fault in answer.body["fieldList"]}
    inside = "configuration.customerManaged"
    assert {"displayName", "roleArn", "maxWorkerCount", f"{inside}.mode"} <= names
    assert f"{inside}.workerCapabilities.vCpuCount.min" in names
    assert f"{inside}.workerCapabilities.osFamily" in names


def test_times_may_be_numbers_or_have_any_offset(farmd: Any, farm_ids: Any) -> None:
    client = farmd.client()
    for start in (
        "2026-01-01T02:00:00+02:00",
        "2026-01-01T00:00:00Z",
        1767225600,
        1767225600.0,
        "2026-01-01T00:00:00.000",
    ):
        body = {
            "displayName": "b", "usageTrackingResource": {"queueId": farm_ids.queue}, "approximateDollarLimit": 1,
            "actions": [], "schedule": {"fixed": {"startTime": start, "endTime": "2027-01-01T00:00:00Z"}},
        }  # fmt: skip
        made = farmd.send("POST", f"{FARMS}/{farm_ids.farm}/budgets", json.dumps(body).encode())
        assert made.status == 200, made
        got = farmd.send("GET", f"{FARMS}/{farm_ids.farm}/budgets/{made.body['budgetId']}")
        assert got.body["schedule"]["fixed"]["startTime"] == "2026-01-01T00:00:00.000Z"
        client.delete_budget(farmId=farm_ids.farm, budgetId=made.body["budgetId"])
    for wrong in ("yesterday", True, 1e300, "", {}):
        body["schedule"] = {"fixed": {"startTime": wrong, "endTime": "2027-01-01T00:00:00Z"}}
        answer = farmd.send("POST", f"{FARMS}/{farm_ids.farm}/budgets", json.dumps(body).encode())
        assert answer.body["fieldList"][0]["name"] == "schedule.fixed.startTime"


def test_labels_are_decoded_after_routing(farmd: Any, farm_ids: Any) -> None:
    arn = f"arn:aws:deadline:us-west-2:000000000000:farm/{farm_ids.farm}"
    answer = farmd.send("POST", f"/2023-10-12/tags/{quote(arn, safe='')}", b'{"tags": {"a": "b"}}')
    assert (answer.status, answer.body) == (204, b"")
    answer = farmd.send("GET", f"/2023-10-12/tags/{quote(arn, safe='')}")
    assert answer.body == {"tags": {"a": "b"}}
    answer = farmd.send("DELETE", f"/2023-10-12/tags/{quote(arn, safe='')}?tagKeys=a&tagKeys=b")
    assert answer.status == 204
    assert farmd.send("GET", f"/2023-10-12/tags/{quote(arn, safe='')}").body == {"tags": {}}
    assert farmd.send("GET", f"{FARMS}/farm%2Fx").body["reason"] == "FIELD_VALIDATION_FAILED"


@pytest.mark.parametrize("number", ["0", "101", "-1", "ten", "1.5", "", "9" * 40])
def test_numbers_in_the_query_are_checked(number: str, farmd: Any) -> None:
    answer = farmd.send("GET", f"{FARMS}?maxResults={number}")
    assert (answer.status, answer.body["fieldList"][0]["name"]) == (400, "maxResults")


def test_a_host_prefix_is_no_matter(farmd: Any) -> None:
    answer = farmd.send("GET", FARMS, headers={"host": f"management.localhost:{farmd.port}"})
    assert answer.status == 200


def raw(farmd: Any, content: bytes, *, until: bytes = b"") -> bytes:
    """What the server sends back before it hangs up, or up to `until`."""
    with socket.create_connection(("127.0.0.1", farmd.port), timeout=10) as sock:
        sock.sendall(content)
        received = b""
        while not (until and until in received):
            data = sock.recv(65536)
            if not data:
                break
            received += data
    return received


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET farms HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad name : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: -5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 70_000, 431),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_and_hung_up_on(content: bytes, status: int, farmd: Any) -> None:
    assert raw(farmd, content).startswith(b"HTTP/1.1 %d " % status)
    assert farmd.send("GET", FARMS).status == 200


def test_requests_on_one_connection_are_answered_in_order(farmd: Any) -> None:
    one = b"GET /2023-10-12/farms HTTP/1.1\r\nhost: x\r\n\r\n"
    two = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    received = raw(farmd, one * 20 + two)
    assert received.count(b"HTTP/1.1 403 Forbidden") == 21
    assert received.count(b"connection: close") == 1
    assert received.count(b"application/json") == 20 and received.count(b"text/xml") == 1


def test_a_request_may_come_in_pieces(farmd: Any) -> None:
    with socket.create_connection(("127.0.0.1", farmd.port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST /2023-10-12/farms HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}":
            sock.sendall(bytes([byte]))
        received = b""
        while data := sock.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 403 Forbidden")


def test_expect_continue_is_answered(farmd: Any) -> None:
    content = b"POST /2023-10-12/farms HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    assert raw(farmd, content, until=b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_client_that_hangs_up_early_harms_nobody(farmd: Any) -> None:
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", farmd.port), timeout=10) as sock:
            sock.sendall(b"GET /2023-10-12/farms HTTP/1.1\r\nhost: x\r\n\r\n")
    assert farmd.send("GET", FARMS).status == 200
