"""Answers that are none: lying lengths, garbage, pages of proxies, listings without end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from fake_s3 import Bucket, Keys, Request
from test_s3 import DATA, HASH, client, file, first_only, put_file  # noqa: F401
from xxhash import xxh3_128_hexdigest

from libdeadline import statuses
from libdeadline.s3 import S3, S3Error
from libdeadline.store import Store

PAGE = b"<html><body>Please sign in to the network</body></html>"
ETAG = f'ETag: "{HASH}"\r\n'.encode()
TRUE = "<IsTruncated>true</IsTruncated>"


def http(status: str, headers: bytes, body: bytes) -> tuple[str, bytes]:
    return "raw", b"HTTP/1.1 %b\r\n%b\r\n%b" % (status.encode(), headers, body)


# Each is given once, or more often; what was asked for must come of the request all the same.
PASSING = {
    "no HTTP": ("raw", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "no status": ("raw", b"HTTP/1.1 OK\r\n\r\n"),
    "nothing but a head": ("raw", b"HTTP/1.1 200 OK\r\nETag: "),
    "two lengths": http("200 OK", ETAG + b"Content-Length: 5\r\ncontent-length: 6\r\n", b"123456"),
    "a length that is none": http("200 OK", ETAG + b"Content-Length: -5\r\n", b"12345"),
    "a length in hexadecimal": http("200 OK", ETAG + b"Content-Length: 0x10\r\n", b"1" * 16),
    "a length too short": http("200 OK", ETAG + b"Content-Length: 3\r\n", b"1" * 100),
    "a length too long": http("200 OK", ETAG + b"Content-Length: 512000\r\n", b"1" * 100),
    "a chunk of negative size": http("200 OK", ETAG + b"Transfer-Encoding: chunked\r\n", b"-5\r\n12345\r\n0\r\n\r\n"),
    "a chunk that goes on": http("200 OK", ETAG + b"Transfer-Encoding: chunked\r\n", b"5\r\n1234567\r\n0\r\n\r\n"),
    "chunks without end": http("200 OK", ETAG + b"Transfer-Encoding: chunked\r\n", b"5\r\n12345\r\n"),
    "trailers without end": http("200 OK", ETAG + b"Transfer-Encoding: chunked\r\n", b"0\r\n" + b"a: b\r\n" * 500),
    "a chunk's line without end": http("200 OK", ETAG + b"Transfer-Encoding: chunked\r\n", b"0" * 200_000),
    "continue, and then nothing": ("raw", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    "a page of a proxy": ("answer", 503, PAGE, {"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_is_no_answer_is_asked_for_again(one_bucket: Bucket, fault: tuple[Any, ...]) -> None:
    s3 = client(one_bucket)
    one_bucket.plan = first_only(2, fault)
    assert s3.put("d/x", DATA) is True
    one_bucket.plan = first_only(2, fault)
    got = s3.get("d/x")
    # An answer that tells of a wrong length is S3's own as far as anyone can tell: its content is what is looked at.
    assert got is not None
    if "length" not in str(fault) or len(got.data) > 100:
        one_bucket.plan = first_only(2, fault)
        found = s3.head("d/x")
        assert found is not None
    one_bucket.plan = first_only(2, fault)
    assert [each.key for page in s3.pages("d/") for each in page.found] == ["d/x"]


def test_continue_before_an_answer_is_passed_over(one_bucket: Bucket) -> None:
    one_bucket.put("d/x", b"12345")
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    one_bucket.plan = first_only(
        1, ("raw", early + b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 3\r\n\r\nabc'), "GET"
    )
    got = client(one_bucket).get("d/x")
    assert got is not None and got.data == b"abc"


class Endless:
    """A server that sends `piece` again and again, with pauses, to whoever asks for anything."""

    def __init__(self, first: bytes, piece: bytes, pause_s: float) -> None:
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.first, self.piece, self.pause_s = first, piece, pause_s
        self.asked = 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while not self.over.is_set():
            try:
                taken, _ = self.listener.accept()
            except OSError:
                return
            self.asked += 1
            threading.Thread(target=self.answer, args=(taken,), daemon=True).start()

    def answer(self, taken: socket.socket) -> None:
        with taken:
            try:
                taken.recv(65536)
                taken.sendall(self.first)
                while not self.over.wait(self.pause_s):
                    taken.sendall(self.piece)
            except OSError:
                pass

    def __enter__(self) -> S3:
        endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        return S3(endpoint, "us-west-2", Keys, "bench", stall_s=0.3, retry_s=0.6)

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.listener.close()


OK = b"HTTP/1.1 200 OK\r\n" + ETAG
ENDLESS = {
    "a head": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", 0.05),
    "a head that drips": (b"HTTP/1.1 200 OK\r\n", b"x", 0.1),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "a body that drips": (OK + b"Content-Length: 100000\r\n\r\n", b"x", 0.1),
    "a body without length that drips": (OK + b"\r\n", b"x", 0.1),
    "chunks that drip": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.1),
    "an error": (b"HTTP/1.1 500 Oops\r\n\r\n", b"x" * 100_000, 0.0),
    "an error in chunks": (
        b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n", 0.0),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_is_given_up(case: tuple[bytes, bytes, float]) -> None:
    server = Endless(*case)
    with server as s3:
        began = monotonic()
        with pytest.raises(S3Error) as error:
            s3.get("d/x")
        assert monotonic() - began < 5
        assert server.asked >= 2
        assert error.value.status in (statuses.UNAVAILABLE, statuses.TRY_AGAIN)
        assert "\n" not in error.value.message


def test_a_body_that_comes_slowly_but_comes_is_waited_for(one_bucket: Bucket) -> None:
    one_bucket.put("d/x", DATA)
    one_bucket.plan = first_only(1, ("late", 0.2))
    got = client(one_bucket, stall_s=0.5).get("d/x")
    assert got is not None and got.data == DATA
    assert len(one_bucket.requests) == 1


def test_a_body_that_breaks_off_again_and_again_is_given_up(one_bucket: Bucket) -> None:
    one_bucket.put("d/x", DATA)
    one_bucket.plan = lambda request: ("cut", 10)
    began = monotonic()
    with pytest.raises(S3Error) as error:
        client(one_bucket, retry_s=0.5).get("d/x")
    assert monotonic() - began < 5
    assert error.value.status == statuses.UNAVAILABLE
    one_bucket.plan = lambda request: ("cut", 100_000)  # but not one that goes on
    got = client(one_bucket, retry_s=0.2).get("d/x")
    assert got is not None and got.data == DATA


def test_a_server_without_ranges_is_listened_to_from_the_beginning(one_bucket: Bucket) -> None:
    one_bucket.put("d/x", DATA)
    whole = {"ETag": '"e"'}
    taken: list[bytes] = []
    one_bucket.plan = lambda request: ("answer", 200, DATA, whole) if "range" in request.headers else ("cut", 100_000)
    assert client(one_bucket).fetch("d/x", lambda block: taken.append(bytes(block))) is not None
    assert b"".join(taken) == DATA
    with pytest.raises(S3Error, match="ranges"):
        client(one_bucket).fetch("d/x", taken.append, start=1000, length=1000)


def test_another_range_than_was_asked_for_is_not_taken(one_bucket: Bucket) -> None:
    one_bucket.put("d/x", DATA)
    wrong = ("answer", 206, DATA[:400_000], {"ETag": '"e"', "Content-Range": "bytes 0-399999/512000"})

    def plan(request: Request) -> tuple[Any, ...] | None:
        ranged = [each for each in one_bucket.requests if "range" in each.headers]
        return ("cut", 100_000) if not ranged else wrong if len(ranged) == 1 else None

    one_bucket.plan = plan
    got = client(one_bucket).get("d/x")
    assert got is not None and got.data == DATA


# What something in between says with a status of success is no success.


def test_a_webdav_server_stores_without_a_word(one_bucket: Bucket, file: Path) -> None:  # noqa: F811
    s3 = client(one_bucket, retry_s=0.3)
    for status in (201, 204):
        one_bucket.plan = lambda request, status=status: ("answer", status, b"")
        assert s3.put("d/x", b"1")


@pytest.mark.parametrize("status", [200, 201])
def test_a_page_in_between_stores_nothing(one_bucket: Bucket, file: Path, status: int) -> None:  # noqa: F811
    one_bucket.plan = lambda request: ("answer", status, PAGE)
    s3 = client(one_bucket, retry_s=0.3)
    for action in (
        lambda: s3.put("d/x", b"1"),
        lambda: put_file(s3, file),
        lambda: s3.put_part("d/x", "u", 1, xxh3_128_hexdigest(DATA[:10]), (os.open(file, os.O_RDONLY), 0, 10)),
        lambda: list(s3.pages("d/")),
        lambda: list(s3.uploads("d/")),
        lambda: s3.delete_many(["d/x"]),
        lambda: s3.create_multipart("d/x"),
        lambda: s3.complete_multipart("d/x", "u", [(1, "e", xxh3_128_hexdigest(b""))]),
    ):
        with pytest.raises(S3Error, match="no S3|refused") as error:
            action()
        assert error.value.status in (statuses.UNAVAILABLE, statuses.DATA)
    if status == 200:
        with pytest.raises(S3Error, match="no S3"):
            s3.head("d/x")


def test_only_s3_says_that_an_object_does_not_exist(one_bucket: Bucket) -> None:
    one_bucket.plan = lambda request: ("answer", 404, PAGE)
    with pytest.raises(S3Error, match="no S3"):
        client(one_bucket, retry_s=0.3).get("d/x")
    one_bucket.plan = lambda request: ("status", 404, "NoSuchBucket", "no such bucket")
    one_bucket.requests.clear()
    with pytest.raises(S3Error, match="the bucket does not exist") as error:
        client(one_bucket).get("d/x")
    assert error.value.status == statuses.NO_INPUT
    assert len(one_bucket.requests) == 1
    one_bucket.plan = lambda request: None
    assert client(one_bucket).get("d/x") is None


def listing(*keys: str, more: str = "") -> tuple[Any, ...]:
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
        for key in keys
    )
    return "answer", 200, f"<ListBucketResult>{rows}{more}</ListBucketResult>".encode()


def token(text: str) -> str:
    return f"<NextContinuationToken>{text}</NextContinuationToken>"


def counted(make: Callable[[int], tuple[Any, ...]]) -> Callable[[Request], tuple[Any, ...]]:
    numbers = iter(range(1_000_000))
    return lambda request: make(next(numbers))


LISTINGS = {
    "the same page again and again": lambda n: listing("d/a", "d/b", more=TRUE + token("t")),
    "the same names with other tokens": lambda n: listing("d/a", "d/b", more=TRUE + token(f"t{n}")),
    "names that go back": lambda n: listing(f"d/{10 - n % 10}", more=TRUE + token(f"t{n}")),
    "pages of nothing": lambda n: listing(more=TRUE + token(f"t{n}")),
    "more to come, and no token": lambda n: listing("d/a", more=TRUE),
    "names of other folders": lambda n: listing("e/a"),
    "rows that lack something": lambda n: (
        "answer",
        200,
        b"<ListBucketResult><Contents><Key>d/a</Key></Contents></ListBucketResult>",
    ),
}


@pytest.mark.parametrize("case", LISTINGS.values(), ids=LISTINGS)
def test_a_listing_that_can_not_be_is_an_error(one_bucket: Bucket, case: Callable[[int], tuple[Any, ...]]) -> None:
    one_bucket.plan = counted(case)
    began = monotonic()
    with pytest.raises(S3Error) as error:
        list(client(one_bucket, retry_s=0.3).pages("d/"))
    assert monotonic() - began < 10
    assert error.value.status == statuses.UNAVAILABLE


def test_a_listing_of_uploads_that_goes_in_circles_is_an_error(one_bucket: Bucket) -> None:
    body = f"<ListMultipartUploadsResult>{TRUE}<NextKeyMarker>d/a</NextKeyMarker></ListMultipartUploadsResult>"
    one_bucket.plan = lambda request: ("answer", 200, body.encode())
    with pytest.raises(S3Error, match="no end"):
        list(client(one_bucket).uploads("d/"))


def test_a_listing_cut_in_the_middle_is_asked_for_again(one_bucket: Bucket) -> None:
    for number in range(20):
        one_bucket.put(f"d/{number}", b"1")
    # Without a length, nothing but its own end tells that it is whole.
    cut = listing(*(f"d/{number}" for number in range(10)))[2][:-30]
    one_bucket.plan = first_only(1, ("raw", b"HTTP/1.1 200 OK\r\n\r\n" + cut))
    assert len([each for page in client(one_bucket).pages("d/") for each in page.found]) == 20


def test_keys_that_the_server_did_not_escape_are_read_as_they_are(one_bucket: Bucket) -> None:
    one_bucket.plan = lambda request: listing("d/50%25+&amp;")
    assert [each.key for page in client(one_bucket).pages("d/") for each in page.found] == ["d/50%25+&"]


# What goes wrong late.


def test_an_error_that_comes_after_the_status_is_one(one_bucket: Bucket, file: Path) -> None:  # noqa: F811
    s3 = client(one_bucket)
    hash = xxh3_128_hexdigest(DATA)

    def upload() -> tuple[str, list[tuple[int, str, str]]]:
        upload_id = s3.create_multipart("d/x")
        with open(file, "rb") as opened:
            return upload_id, [(1, s3.put_part("d/x", upload_id, 1, hash, (opened.fileno(), 0, len(DATA))), hash)]

    for code, tries in (("InternalError", 3), ("AccessDenied", 1)):
        upload_id, parts = upload()
        one_bucket.plan = first_only(2, ("status", 200, code, "we encountered an error"))
        one_bucket.requests.clear()
        if tries == 1:
            with pytest.raises(S3Error, match=code):
                s3.complete_multipart("d/x", upload_id, parts)
        else:
            assert s3.complete_multipart("d/x", upload_id, parts)
        assert len(one_bucket.requests) == tries
    assert one_bucket.objects["d/x"].data == DATA


def test_an_answer_that_is_lost_is_no_second_write(one_bucket: Bucket) -> None:
    one_bucket.plan = first_only(1, ("after",))
    assert client(one_bucket).put("d/x", b"1", if_absent=True) is False  # ours, but who can tell
    assert one_bucket.objects["d/x"].data == b"1"


def test_conflicts_pass(one_bucket: Bucket) -> None:
    one_bucket.plan = first_only(2, ("status", 409, "ConditionalRequestConflict", "someone else is at it"))
    assert client(one_bucket).put("d/x", b"1", if_absent=True) is True
    assert len(one_bucket.requests) == 3


def test_a_server_may_not_ask_for_more_patience_than_there_is(one_bucket: Bucket) -> None:
    one_bucket.plan = lambda request: ("answer", 503, b"<Error><Code>SlowDown</Code></Error>", {"Retry-After": "25"})
    began = monotonic()
    with pytest.raises(S3Error) as error:
        client(one_bucket, retry_s=0.5).get("d/x")
    assert monotonic() - began < 3
    assert error.value.status == statuses.TRY_AGAIN


def test_a_server_is_given_the_time_it_asks_for(one_bucket: Bucket) -> None:
    one_bucket.put("d/x", b"1")
    slow = ("answer", 503, b"<Error><Code>SlowDown</Code></Error>", {"Retry-After": "1"})
    one_bucket.plan = first_only(1, slow)
    began = monotonic()
    assert client(one_bucket).get("d/x") is not None
    assert monotonic() - began >= 0.9
    assert len(one_bucket.requests) == 2


def test_a_clock_that_stays_wrong_is_said(one_bucket: Bucket) -> None:
    one_bucket.plan = lambda request: ("status", 403, "RequestTimeTooSkewed", "too large")
    with pytest.raises(S3Error, match="clock") as error:
        client(one_bucket).get("d/x")
    assert error.value.status == statuses.CONFIGURATION
    assert len(one_bucket.requests) == 2


def test_credentials_refused_before_their_time_are_got_anew_once(one_bucket: Bucket) -> None:
    """Whoever keeps credentials thinks them good still; of many threads that hear otherwise, one gets others."""
    kept: list[Keys] = []
    got = [0]

    def provide() -> Keys:
        if not kept:
            got[0] += 1
            kept.append(Keys() if got[0] == 1 else Keys("AKIANEW", "other", "another"))
        return kept[0]

    s3 = S3(one_bucket.endpoint, "us-west-2", provide, "bench", retry_s=10.0, forget=kept.clear)
    assert s3.put("d/first", b"1")
    one_bucket.keys[:] = [Keys("AKIANEW", "other", "another")]
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            s3.put(f"d/{number}", b"1")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failed
    assert len(one_bucket.objects) == 9
    assert got[0] == 2


# Manifests, of which nobody recorded what they hash to.


@pytest.mark.parametrize("times", [1, 2])
def test_a_manifest_damaged_on_its_way_is_read_again(one_bucket: Bucket, times: int) -> None:
    one_bucket.put("p/Manifests/m", b"the manifest")
    damage = iter([1, 2][:times])
    one_bucket.plan = lambda request: ("corrupt", flip) if (flip := next(damage, 0)) else None
    found = Store(client(one_bucket), "p").read_manifest("m")
    assert found is not None and found.data.read() == b"the manifest"
    assert len(one_bucket.requests) == times + 2


def test_a_manifest_is_what_its_checksum_says(one_bucket: Bucket) -> None:
    right, wrong = b"the manifest", b"THE manifest"
    one_bucket.put("p/Manifests/m", right)
    from libdeadline.s3 import checksum

    told = {"ETag": '"e"', "x-amz-checksum-xxhash128": checksum(xxh3_128_hexdigest(right))}
    one_bucket.plan = first_only(2, ("answer", 200, wrong, told))
    found = Store(client(one_bucket), "p").read_manifest("m")
    assert found is not None and found.data.read() == right
    assert all(each.headers["x-amz-checksum-mode"] == "ENABLED" for each in one_bucket.requests)


def test_a_manifest_damaged_while_it_is_stored_is_stored_again(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"the manifest")
    with Bucket(server="other", check=False) as bucket:
        bucket.plan = first_only(1, ("spoil",), "PUT")
        Store(client(bucket), "p").put_manifest("m", str(tmp_path / "m"), None)
        assert bucket.objects["p/Manifests/m"].data == b"the manifest"


def test_an_object_comes_from_s3_or_not_at_all(one_bucket: Bucket) -> None:
    one_bucket.plan = lambda request: ("answer", 200, PAGE)
    with pytest.raises(S3Error, match="no object of S3") as error:
        client(one_bucket, retry_s=0.3).get("d/x")
    assert error.value.status == statuses.UNAVAILABLE


def test_what_would_have_passed_is_worth_another_try(one_bucket: Bucket) -> None:
    one_bucket.plan = lambda request: ("status", 409, "OperationAborted", "a conflict")
    with pytest.raises(S3Error) as error:
        client(one_bucket, retry_s=0.3).put("d/x", b"1")
    assert error.value.status == statuses.TRY_AGAIN
    one_bucket.plan = lambda request: ("status", 412, "PreconditionFailed", "which nobody asked for")
    one_bucket.requests.clear()
    with pytest.raises(S3Error, match="refused"):
        client(one_bucket).get("d/x")
    assert len(one_bucket.requests) == 1
