"""The byte path against a server that fails in every way that servers fail."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import threading
from calendar import timegm
from collections.abc import Callable
from pathlib import Path
from time import monotonic, strptime, time
from typing import Any, ClassVar

import pytest
from fake_s3 import Bucket, Keys, Request
from xxhash import xxh3_128_hexdigest

from libdeadline import statuses
from libdeadline.errors import Trouble
from libdeadline.s3 import S3, S3Error, Stopping
from libdeadline.sockets import Changed

DATA = bytes(range(256)) * 2000  # 512,000 bytes: larger than every buffer on the way
HASH = xxh3_128_hexdigest(DATA)
FAULTS = {
    "500": ("status", 500, "InternalError", "oops"),
    "503": ("status", 503, "SlowDown", "slower"),
    "429": ("status", 429, "TooManyRequests", "slower"),
    "400 that passes": ("status", 400, "RequestTimeout", "too slow"),
    "closed": ("close",),
    "reset": ("drop", 1000),
    "stalled": ("stall", 1.0),
}


def client(bucket: Bucket, **options: Any) -> S3:
    options = {"stall_s": 0.3, "retry_s": 20.0, **options}
    return S3(bucket.endpoint, "us-west-2", lambda: bucket.keys[0], "bench", owner="123456789012", **options)


def first_only(count: int, fault: tuple[Any, ...], method: str = "") -> Callable[[Request], tuple[Any, ...] | None]:
    """A plan by which the first `count` requests (of a method) fail."""
    left = [count]
    lock = threading.Lock()

    def plan(request: Request) -> tuple[Any, ...] | None:
        with lock:
            if method in ("", request.method) and left[0]:
                left[0] -= 1
                return fault
        return None

    return plan


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def put_file(s3: S3, file: Path, hash: str = HASH, size: int = len(DATA)) -> bool:
    with open(file, "rb") as opened:
        return s3.put_file("d/x", opened.fileno(), size, hash=hash)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_passing_failures_are_endured(bucket: Bucket, file: Path, fault: tuple[Any, ...]) -> None:
    s3 = client(bucket)
    for action in (
        lambda: s3.head("d/x"),
        lambda: s3.put("d/x", DATA, hash=HASH),
        lambda: put_file(s3, file),
        lambda: s3.get("d/x"),
        lambda: list(s3.pages("d/")),
    ):
        bucket.plan = first_only(2, fault)
        began = len(bucket.requests)
        result = action()
        assert len(bucket.requests) - began == 3
    assert bucket.objects["d/x"].data == DATA
    assert result[0].found[0].size == len(DATA)


KEYS = [f"d/{number:02}" for number in range(24)]  # of which every third is there, with as many bytes as its number


def stored_thirds(bucket: Bucket) -> list[int | None]:
    for number in range(0, len(KEYS), 3):
        bucket.put(KEYS[number], b"x" * number)
    return [None if number % 3 else number for number in range(len(KEYS))]


def sizes(s3: S3) -> list[int | None]:
    return [found.size if found else None for found in s3.head_each(KEYS)]


def test_many_are_asked_for_at_once(bucket: Bucket) -> None:
    wanted = stored_thirds(bucket)
    s3 = client(bucket)
    assert sizes(s3) == wanted == sizes(s3)
    assert [each.key for each in bucket.requests] == KEYS + KEYS
    assert s3.pipelines is True


@pytest.mark.parametrize("fault", [*FAULTS.values(), ("raw", b"no HTTP\r\n\r\n")], ids=[*FAULTS, "no HTTP"])
@pytest.mark.parametrize("at", [0, 11, 23])
def test_of_many_at_once_none_gets_the_answer_of_another(one_bucket: Bucket, fault: tuple[Any, ...], at: int) -> None:
    wanted = stored_thirds(one_bucket)
    s3 = client(one_bucket)
    for _ in range(2):
        left = [fault]
        one_bucket.plan = lambda request, left=left: left.pop() if request.key == KEYS[at] and left else None
        assert sizes(s3) == wanted
        assert not left


def test_refusals_of_many_at_once_are_told(bucket: Bucket) -> None:
    stored_thirds(bucket)
    bucket.plan = lambda request: ("status", 403, "AccessDenied", "no") if request.key == KEYS[5] else None
    with pytest.raises(S3Error) as error:
        client(bucket).head_each(KEYS)
    assert error.value.status == statuses.NOT_ALLOWED


class OneByOne(socketserver.BaseRequestHandler):
    """Takes what comes at once for one request: it answers the first and, `hangs_up` or not, forgets the others."""

    hangs_up: ClassVar[bool]
    many: ClassVar[list[int]]

    def handle(self) -> None:
        while data := self.request.recv(1 << 16):
            self.many.append(data.count(b"\r\n\r\n"))
            key = data.split(b" ", 2)[1].decode()
            number = int(key[-2:])
            status = "404 Not Found" if number % 3 else "200 OK"
            close = "connection: close\r\n" if self.hangs_up else ""
            self.request.sendall(f'HTTP/1.1 {status}\r\n{close}etag: "x"\r\ncontent-length: {number}\r\n\r\n'.encode())
            if self.hangs_up:
                return


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_server_for_one_request_at_a_time_is_borne(hangs_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libdeadline.s3.PIPELINE_S", 0.2)
    OneByOne.hangs_up, OneByOne.many = hangs_up, []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OneByOne) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        s3 = S3(f"http://127.0.0.1:{server.server_address[1]}", "us-west-2", Keys, "bench")
        wanted = [None if number % 3 else number for number in range(len(KEYS))]
        assert sizes(s3) == wanted == sizes(s3)
        server.shutdown()
    assert OneByOne.many == [len(KEYS)] + [1] * (2 * len(KEYS) - 1)  # tried once


@pytest.mark.parametrize("cut", [0, 1, 100_000, len(DATA) - 1])
def test_a_body_cut_short_goes_on_where_it_stopped(bucket: Bucket, cut: int) -> None:
    bucket.put("d/x", DATA)
    bucket.plan = first_only(1, ("cut", cut))
    got = client(bucket).get("d/x")
    assert got is not None and got.data == DATA
    ranges = [each.headers.get("range") for each in bucket.requests]
    assert ranges == [None, f"bytes={cut}-" if cut else None]


def test_an_object_replaced_while_it_is_read_is_not_mixed(bucket: Bucket) -> None:
    bucket.put("d/x", DATA)

    def plan(request: Request) -> tuple[Any, ...] | None:
        if "range" in request.headers:
            bucket.put("d/x", DATA[::-1])
            return None
        return ("cut", 5000)

    bucket.plan = plan
    with pytest.raises(Changed):
        client(bucket).get("d/x")


@pytest.mark.parametrize(
    ("action", "permission"),
    [
        (lambda s3: s3.put("d/x", b"1"), "s3:PutObject"),
        (lambda s3: s3.get("d/x"), "s3:GetObject"),
        (lambda s3: list(s3.pages("d/")), "s3:ListBucket"),
    ],
)
def test_a_refusal_is_not_retried_and_names_the_permission(
    bucket: Bucket, action: Callable[[S3], Any], permission: str
) -> None:
    bucket.plan = lambda request: ("status", 403, "AccessDenied", "no")
    with pytest.raises(S3Error) as error:
        action(client(bucket))
    assert len(bucket.requests) == 1
    assert error.value.status == statuses.NOT_ALLOWED
    assert permission in error.value.message
    assert "\n" not in error.value.message


def test_a_head_that_is_refused_learns_the_reason(bucket: Bucket) -> None:
    bucket.plan = lambda request: ("status", 403, "AccessDenied", "kms:Decrypt is missing")
    with pytest.raises(S3Error, match="kms:Decrypt"):
        client(bucket).head("d/x")
    assert [each.method for each in bucket.requests] == ["HEAD", "GET"]


def test_a_service_that_keeps_failing_is_given_up_within_the_budget(bucket: Bucket) -> None:
    bucket.plan = lambda request: ("status", 500, "InternalError", "oops")
    began = monotonic()
    with pytest.raises(S3Error) as error:
        client(bucket, retry_s=0.5).get("d/x")
    assert monotonic() - began < 5
    assert error.value.status == statuses.TRY_AGAIN
    assert len(bucket.requests) > 2


def test_silence_is_given_up_and_said(bucket: Bucket) -> None:
    bucket.plan = lambda request: ("stall", 3.0)
    s3 = client(bucket, retry_s=0.3, stall_s=0.3)
    s3.quickest_s = 0.1  # it has answered before
    began = monotonic()
    with pytest.raises(S3Error, match=r"not a byte within 0\.3 s") as error:
        s3.get("d/x")
    assert monotonic() - began < 2.5
    assert error.value.status == statuses.UNAVAILABLE
    assert len(bucket.requests) == 2  # a stall alone uses up the budget, and is still tried once more


def test_nobody_there_is_soon_told() -> None:
    s3 = S3("http://127.0.0.1:9", "us-west-2", Keys, "bench")
    began = monotonic()
    with pytest.raises(S3Error) as error:
        s3.head("x")
    assert monotonic() - began < 10
    assert error.value.status == statuses.UNAVAILABLE


def test_expired_credentials_are_replaced_in_flight(bucket: Bucket) -> None:
    s3 = client(bucket)
    assert s3.put("d/1", b"1")
    bucket.keys[:] = [Keys("AKIANEW", "other", "another")]
    assert s3.put("d/2", b"2")
    assert set(bucket.objects) == {"d/1", "d/2"}


def test_credentials_that_stay_expired_are_an_error(bucket: Bucket) -> None:
    s3 = S3(bucket.endpoint, "us-west-2", lambda: Keys("AKIAOLD"), "bench")
    with pytest.raises(S3Error, match="expired") as error:
        s3.put("d/1", b"1")
    assert error.value.status == statuses.NOT_ALLOWED
    assert len(bucket.requests) == 2


def test_a_wrong_clock_is_corrected(bucket: Bucket) -> None:
    def plan(request: Request) -> tuple[Any, ...] | None:
        made = timegm(strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))
        return None if abs(made - time()) < 900 else ("status", 403, "RequestTimeTooSkewed", "clock")

    bucket.plan = plan
    s3 = client(bucket)
    s3._skew = -7200.0
    assert s3.put("d/1", b"1")
    assert s3.put("d/2", b"2")
    assert len(bucket.requests) == 3  # corrected once, for good


def test_the_right_region_is_learned(bucket: Bucket) -> None:
    def plan(request: Request) -> tuple[Any, ...] | None:
        if "/us-west-2/s3/" in request.headers["authorization"]:
            headers = {"x-amz-bucket-region": "eu-west-1"}
            return ("status", 400, "AuthorizationHeaderMalformed", "wrong region", headers)
        return None

    bucket.plan = plan
    s3 = client(bucket)
    assert s3.put("d/1", b"1") and s3.put("d/2", b"2")
    assert s3.region == "eu-west-1"
    assert len(bucket.requests) == 3


def test_content_that_is_not_its_hash_is_never_stored(bucket: Bucket, file: Path) -> None:
    s3 = client(bucket)
    s3.head("x")  # so that it knows what server this is
    with pytest.raises(Changed):
        put_file(s3, file, xxh3_128_hexdigest(b"other"))
    assert not bucket.objects
    assert put_file(s3, file)  # and the next request works


def test_a_file_that_shrank_is_never_stored(bucket: Bucket, file: Path) -> None:
    s3 = client(bucket)
    s3.head("x")
    os.truncate(file, 1000)
    with pytest.raises(Changed):
        put_file(s3, file)
    assert not bucket.objects


def test_parts(bucket: Bucket, file: Path) -> None:
    s3 = client(bucket)
    upload_id = s3.create_multipart("d/x")
    parts = []
    with open(file, "rb") as opened:
        for number, start in enumerate(range(0, len(DATA), 200_000), 1):
            piece = DATA[start : start + 200_000]
            hash = xxh3_128_hexdigest(piece)
            bucket.plan = first_only(1, ("drop", 100_000))
            etag = s3.put_part("d/x", upload_id, number, hash, (opened.fileno(), start, len(piece)))
            parts.append((number, etag, hash))
        with pytest.raises(Changed):
            s3.put_part("d/x", upload_id, 9, xxh3_128_hexdigest(b"?"), (opened.fileno(), 0, 100))
    assert s3.complete_multipart("d/x", upload_id, parts)
    assert bucket.objects["d/x"].data == DATA
    assert not bucket.uploads


def test_present_objects_are_not_written_again(bucket: Bucket) -> None:
    s3 = client(bucket)
    assert s3.put("d/x", b"1", if_absent=True) is True
    assert s3.put("d/x", b"2", if_absent=True) is False
    assert bucket.objects["d/x"].data == b"1"


def test_listing_goes_through_all_pages() -> None:
    with Bucket(page=7) as bucket:
        names = {f"p/{index:03} é&<+%.x" for index in range(50)}
        for name in names:
            bucket.put(name, b"12345")
        s3 = client(bucket)
        found = [each for page in s3.pages("p/") for each in page.found]
        assert {each.key for each in found} == names
        assert {each.size for each in found} == {5}
        after = [each.key for page in s3.pages("p/", after="p/040") for each in page.found]
        assert len(after) == 10
        bucket.put("p/sub/1", b"")
        assert [each for page in s3.pages("p/", delimiter="/") for each in page.prefixes] == ["p/sub/"]


def test_metadata_and_odd_keys_survive(bucket: Bucket) -> None:
    s3 = client(bucket)
    key = "a b/+é%'()*!~/x"
    s3.put(key, b"1", metadata={"asset-root": "/proj", "Upper": "v"})
    got = s3.get(key)
    assert got is not None and got.metadata == {"asset-root": "/proj", "upper": "v"}
    assert key in bucket.objects


def test_the_owner_and_the_token_are_signed(one_bucket: Bucket) -> None:
    client(one_bucket).put("d/x", b"1", hash=xxh3_128_hexdigest(b"1"))
    headers = one_bucket.requests[0].headers
    signed = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"x-amz-expected-bucket-owner", "x-amz-checksum-xxhash128", "x-amz-security-token"} <= set(signed)
    assert headers["x-amz-expected-bucket-owner"] == "123456789012"


def test_stop_ends_a_request_at_once(bucket: Bucket) -> None:
    reached = threading.Event()

    def plan(request: Request) -> tuple[Any, ...]:
        reached.set()
        return ("stall", 5.0)

    bucket.plan = plan
    s3 = client(bucket, stall_s=60.0)
    result: list[BaseException] = []

    def ask() -> None:
        try:
            s3.get("d/x")
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert reached.wait(5)
    s3.stop()
    thread.join(2)
    assert not thread.is_alive()
    assert isinstance(result[0], Stopping)
    with pytest.raises(Stopping):
        s3.head("x")


def test_the_rate_is_limited(one_bucket: Bucket) -> None:
    s3 = client(one_bucket, bytes_per_s=1_000_000)
    began = monotonic()
    for _ in range(3):
        s3.put("d/x", DATA[:250_000])
    assert monotonic() - began > 0.4  # the last may be on its way when the others' time is over


def made_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for a host, and its key."""
    made = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", f"subjectAltName=DNS:{name}", "-out", made[0], "-keyout", made[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return made


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return made_certificate(tmp_path, "localhost")


def test_all_of_it_over_tls(certificate: tuple[Path, Path], file: Path) -> None:
    with Bucket(tls=certificate) as bucket:
        s3 = client(bucket, ca_bundle=str(certificate[0]))
        assert s3.put("d/small", b"1" * 1000, hash=xxh3_128_hexdigest(b"1" * 1000))
        assert put_file(s3, file)
        bucket.plan = first_only(1, ("cut", 100_000))
        got = s3.get("d/x")
        assert got is not None and got.data == DATA
        with pytest.raises(Changed):
            put_file(s3, file, xxh3_128_hexdigest(b"other"))
        bucket.plan = first_only(1, ("stall", 2.0))
        assert s3.head("d/x") is not None
        assert set(bucket.objects) == {"d/small", "d/x"}


def test_a_certificate_that_is_not_trusted_is_refused_at_once(certificate: tuple[Path, Path]) -> None:
    with Bucket(tls=certificate) as bucket:
        with pytest.raises(S3Error, match="AWS_CA_BUNDLE") as error:
            client(bucket).head("d/x")
        assert error.value.status == statuses.UNAVAILABLE
        assert not bucket.requests


def test_a_certificate_of_another_host_is_refused_at_once(tmp_path: Path) -> None:
    other = made_certificate(tmp_path, "example.org")
    with Bucket(tls=other) as bucket:
        with pytest.raises(S3Error, match="not valid for 'localhost'") as error:
            client(bucket, ca_bundle=str(other[0])).head("d/x")
        assert "AWS_CA_BUNDLE" not in error.value.message
        assert not bucket.requests


def test_what_speaks_no_tls_is_said_to(bucket: Bucket) -> None:
    s3 = S3(bucket.endpoint.replace("http://127.0.0.1", "https://localhost"), "us-west-2", Keys, "bench")
    began = monotonic()
    with pytest.raises(S3Error, match="speaks no TLS") as error:
        s3.head("d/x")
    assert monotonic() - began < 2
    assert error.value.status == statuses.UNAVAILABLE


class Proxy(socketserver.StreamRequestHandler):
    """A proxy that tunnels, and fetches plain http; it notes what it was asked."""

    rbufsize = 0  # what follows the head is not for us
    asked: ClassVar[list[str]] = []
    target: ClassVar[tuple[str, int]]

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.rfile.readline()
        self.asked.append(head.decode())
        with socket.create_connection(self.target) as there:
            if head.startswith(b"CONNECT"):
                self.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                there.sendall(head)
            threading.Thread(target=self.pump, args=(self.connection, there), daemon=True).start()
            self.pump(there, self.connection)

    @staticmethod
    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while block := source.recv(65536):
                sink.sendall(block)
        except OSError:
            pass


class ProxyServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_through_a_proxy(scheme: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Bucket(tls=certificate if scheme == "https" else None) as bucket,
        ProxyServer(("127.0.0.1", 0), Proxy) as proxy,
    ):
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        Proxy.asked, Proxy.target = [], ("127.0.0.1", int(bucket.endpoint.rpartition(":")[2]))
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret@127.0.0.1:{proxy.server_address[1]}")
        monkeypatch.setattr("libdeadline.sockets.is_loopback", lambda host: False)
        s3 = client(bucket, ca_bundle=str(certificate[0]))
        assert s3.put("d/x", b"1") and s3.head("d/x") is not None
        first = Proxy.asked[0]
        assert first.startswith("CONNECT localhost:" if scheme == "https" else f"PUT {bucket.endpoint}/bench/d/x ")
        assert "proxy-authorization: Basic bWU6c2VjcmV0" in first
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        before = len(Proxy.asked)
        assert client(bucket, ca_bundle=str(certificate[0])).head("d/x") is not None
        assert len(Proxy.asked) == before
        proxy.shutdown()


def test_addresses_of_aws_name_the_bucket_in_the_host() -> None:
    def host(bucket: str, region: str = "us-west-2", endpoint: str | None = None) -> tuple[str, str]:
        s3 = S3(endpoint, region, Keys, bucket)
        head = s3._head("GET", s3._base + "k", "", (), 0).decode()
        return head.split("host: ")[1].split("\r\n")[0], head.split(" ")[1]

    assert host("b") == ("b.s3.us-west-2.amazonaws.com", "/k")
    assert host("b", "cn-north-1") == ("b.s3.cn-north-1.amazonaws.com.cn", "/k")
    assert host("b.c") == ("s3.us-west-2.amazonaws.com", "/b.c/k")
    assert host("b", endpoint="https://s3.dualstack.eu-west-1.amazonaws.com") == (
        "b.s3.dualstack.eu-west-1.amazonaws.com",
        "/k",
    )
    assert host("b", endpoint="http://127.0.0.1:9000") == ("127.0.0.1:9000", "/b/k")
    assert host("b", endpoint="http://[::1]:9000/base/") == ("[::1]:9000", "/base/b/k")
    with pytest.raises(Trouble):
        host("b", endpoint="ftp://x")


def test_files_are_read_alike_where_the_system_reads_only_in_order(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from libdeadline import sockets

    with open(file, "rb") as opened:
        for has in (True, False):
            monkeypatch.setattr(sockets, "_HAS_PREADV", has)
            for offset in (0, 7, len(DATA) - 3, len(DATA)):
                view = memoryview(bytearray(100))
                got = sockets.read_at(opened.fileno(), view, offset)
                assert bytes(view[:got]) == DATA[offset : offset + 100]
            assert sockets.read_first(opened.fileno(), 50) == DATA[:50]
            assert sockets.read_first(opened.fileno(), len(DATA) + 9) == DATA
