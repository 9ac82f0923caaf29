"""dl-s3d as ordinary clients see it: boto3 does the talking, except where it is too polite."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest, xxh3_128_hexdigest

from libdeadline.minted import KeyRing

COMMANDS = Path(sys.executable).parent
BUCKET = "bucket"
MIB = 1 << 20


class Server:
    """A dl-s3d of the test's own, and clients for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listen = "127.0.0.1:0"
        self.start()
        self.ring = KeyRing.load(folder / "keys")
        self.admin = next(iter(self.ring.keys().values()))

    def start(self) -> None:
        words = [COMMANDS / "dl-s3d", "--dir", self.folder, "--listen", self.listen]
        with open(self.folder / "said", "ab") as said:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said)
        assert self.process.stdout
        self.url = json.loads(self.process.stdout.readline())["data"]["url"]
        self.host = self.url.removeprefix("http://")
        self.listen = self.host

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        assert self.process.stdout
        self.process.stdout.close()
        return self.process.wait(timeout=20)

    def client(self, key: str | None = None, secret: str | None = None, token: str | None = None, **config: object):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-west-2",
            aws_access_key_id=key or self.admin.access_key_id,
            aws_secret_access_key=secret or self.admin.secret,
            aws_session_token=token,
            config=Config(signature_version="s3v4", retries={"max_attempts": 0}, max_pool_connections=40, **config),
        )

    def minted(self, **claims: object):
        made = self.ring.mint(claims, 3600)
        return self.client(made.access_key_id, made.secret_access_key, made.session_token)

    def signed(self, method: str, path: str, body: bytes | None = None, **headers: str) -> dict[str, str]:
        """The headers of a request that was signed by botocore, for sending by hand."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = AWSRequest(method, self.url + path, headers=given, data=body or b"")
        S3SigV4Auth(Credentials(self.admin.access_key_id, self.admin.secret), "s3", "us-west-2").add_auth(request)
        return dict(request.headers)

    def files(self) -> list[Path]:
        return [path for path in (self.folder / "store" / "files").rglob("*") if path.is_file()]

    def kept(self) -> int:
        """How many contents lie in the store, whether something names them or not."""
        with contextlib.closing(sqlite3.connect(self.folder / "store" / "index.sqlite")) as db:
            return len(self.files()) + db.execute("SELECT count(*) FROM content").fetchone()[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("s3d"))
    yield made
    assert made.end() == 0
    assert (made.folder / "said").read_text() == ""  # it complains only of what should not happen


@pytest.fixture(scope="module")
def s3(server: Server):
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    return client


def refused(code: str, call, **parameters: object) -> dict:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return caught.value.response


def content(s3, key: str, **more: object) -> bytes:
    return s3.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read()


# -- buckets


def test_buckets_come_and_go(server: Server, s3) -> None:
    s3.create_bucket(Bucket="other", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    assert {"bucket", "other"} <= {each["Name"] for each in s3.list_buckets()["Buckets"]}
    assert s3.get_bucket_location(Bucket="other")["LocationConstraint"] == "us-west-2"
    assert s3.head_bucket(Bucket="other")["BucketRegion"] == "us-west-2"
    refused("BucketAlreadyOwnedByYou", s3.create_bucket, Bucket="other")
    s3.put_object(Bucket="other", Key="k", Body=b"")
    refused("BucketNotEmpty", s3.delete_bucket, Bucket="other")
    s3.delete_object(Bucket="other", Key="k")
    s3.delete_bucket(Bucket="other")
    refused("404", s3.head_bucket, Bucket="other")
    refused("NoSuchBucket", s3.put_object, Bucket="other", Key="k", Body=b"x")
    refused("NoSuchBucket", s3.list_objects_v2, Bucket="other")


@pytest.mark.parametrize("name", ["UPPER", "127.0.0.1", "a..b", "under_score", "-a-"])
def test_a_bad_bucket_name_is_refused(server: Server, name: str) -> None:
    headers = server.signed("PUT", f"/{name}")
    connection = http.client.HTTPConnection(server.host)
    connection.request("PUT", f"/{name}", headers=headers)
    assert b"InvalidBucketName" in connection.getresponse().read()


# -- objects


def test_an_object_keeps_what_was_given(s3) -> None:
    s3.put_object(
        Bucket=BUCKET,
        Key="kept",
        Body=b"hello",
        Metadata={"asset-root": "/proj", "MixedCase": "Value"},
        ContentType="text/plain",
        ContentEncoding="x-own",
        CacheControl="max-age=1",
    )
    for answer in (s3.head_object(Bucket=BUCKET, Key="kept"), s3.get_object(Bucket=BUCKET, Key="kept")):
        assert answer["Metadata"] == {"asset-root": "/proj", "mixedcase": "Value"}
        assert answer["ContentType"] == "text/plain"
        assert answer["ContentEncoding"] == "x-own"
        assert answer["CacheControl"] == "max-age=1"
        assert answer["ContentLength"] == 5
        assert answer["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert content(s3, "kept") == b"hello"
    assert s3.get_object(Bucket=BUCKET, Key="kept", ResponseContentType="x/y")["ContentType"] == "x/y"
    assert s3.head_object(Bucket=BUCKET, Key="kept")["ContentType"] == "text/plain"


def test_the_default_content_type_is_that_of_s3(s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="plain", Body=b"")
    assert s3.head_object(Bucket=BUCKET, Key="plain")["ContentType"] == "binary/octet-stream"


def test_deleting_is_idempotent(s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="del", Body=b"x")
    for _ in range(2):
        s3.delete_object(Bucket=BUCKET, Key="del")
        refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key="del")


def test_delete_objects(s3) -> None:
    keys = [f"many/{number} & <co> ü" for number in range(5)]
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in [*keys, "many/gone"]]})
    assert {each["Key"] for each in answer["Deleted"]} == {*keys, "many/gone"}
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="many/")["KeyCount"] == 0
    s3.put_object(Bucket=BUCKET, Key="quiet", Body=b"x")
    assert "Deleted" not in s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "quiet"}], "Quiet": True})


def test_overwriting_leaves_one_content(server: Server, s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="over", Body=b"1")
    count = server.kept()
    for number in range(7):
        s3.put_object(Bucket=BUCKET, Key="over", Body=b"2" * number * 40_000)
        assert content(s3, "over") == b"2" * number * 40_000
    assert server.kept() == count


def test_an_object_is_sent_as_it_was(server: Server, s3) -> None:
    """Whoever began to read goes on, whatever happens to the object."""
    old = random.Random(7).randbytes(24 * MIB)
    s3.put_object(Bucket=BUCKET, Key="read", Body=old)
    body = s3.get_object(Bucket=BUCKET, Key="read")["Body"]
    begun = body.read(MIB)
    s3.put_object(Bucket=BUCKET, Key="read", Body=b"new")
    s3.delete_object(Bucket=BUCKET, Key="read")
    assert begun + body.read() == old


@given(data=st.binary(min_size=0, max_size=300), first=st.integers(0, 320), last=st.integers(0, 320))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_range_is_the_slice(s3, data: bytes, first: int, last: int) -> None:
    s3.put_object(Bucket=BUCKET, Key="range", Body=data)
    if first >= len(data):
        refused("InvalidRange", s3.get_object, Bucket=BUCKET, Key="range", Range=f"bytes={first}-")
    else:
        answer = s3.get_object(Bucket=BUCKET, Key="range", Range=f"bytes={first}-")
        assert answer["Body"].read() == data[first:]
        assert answer["ContentRange"] == f"bytes {first}-{len(data) - 1}/{len(data)}"
        if first <= last:
            assert content(s3, "range", Range=f"bytes={first}-{last}") == data[first : last + 1]
        else:  # malformed: as if it were not there
            assert content(s3, "range", Range=f"bytes={first}-{last}") == data
    if last and data:
        assert content(s3, "range", Range=f"bytes=-{last}") == data[-last:]


def test_conditions_on_reading(s3) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="cond", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=BUCKET, Key="cond")["LastModified"]
    assert content(s3, "cond", IfMatch=etag) == b"x"
    refused("PreconditionFailed", s3.get_object, Bucket=BUCKET, Key="cond", IfMatch='"other"')
    refused("304", s3.get_object, Bucket=BUCKET, Key="cond", IfNoneMatch=etag)
    assert content(s3, "cond", IfNoneMatch='"other"') == b"x"
    refused("304", s3.get_object, Bucket=BUCKET, Key="cond", IfModifiedSince=modified)
    refused("PreconditionFailed", s3.get_object, Bucket=BUCKET, Key="cond", IfUnmodifiedSince="2001-01-01")
    # If-Match decides before If-Unmodified-Since does.
    assert content(s3, "cond", IfMatch=etag, IfUnmodifiedSince="2001-01-01") == b"x"


def test_conditions_on_writing(s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="once", Body=b"1", IfNoneMatch="*")
    refused("PreconditionFailed", s3.put_object, Bucket=BUCKET, Key="once", Body=b"2", IfNoneMatch="*")
    refused("PreconditionFailed", s3.put_object, Bucket=BUCKET, Key="once", Body=b"2" * MIB, IfNoneMatch="*")
    assert content(s3, "once") == b"1"
    etag = s3.head_object(Bucket=BUCKET, Key="once")["ETag"]
    refused("PreconditionFailed", s3.put_object, Bucket=BUCKET, Key="once", Body=b"3", IfMatch='"other"')
    s3.put_object(Bucket=BUCKET, Key="once", Body=b"3", IfMatch=etag)
    assert content(s3, "once") == b"3"
    refused("NoSuchKey", s3.put_object, Bucket=BUCKET, Key="never", Body=b"3", IfMatch=etag)


def test_of_many_that_write_once_one_does(server: Server, s3) -> None:
    barrier = threading.Barrier(8)

    def write(number: int) -> bool:
        client = server.client()
        barrier.wait()
        try:
            client.put_object(Bucket=BUCKET, Key="race", Body=str(number).encode() * 100_000, IfNoneMatch="*")
        except ClientError as error:
            assert error.response["Error"]["Code"] == "PreconditionFailed"
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert sum(won) == 1
    assert content(s3, "race") == str(won.index(True)).encode() * 100_000


def test_copying(s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="from ü/+?", Body=b"abc", Metadata={"a": "1"}, ContentType="x/y")
    s3.copy_object(Bucket=BUCKET, Key="to", CopySource={"Bucket": BUCKET, "Key": "from ü/+?"})
    s3.delete_object(Bucket=BUCKET, Key="from ü/+?")
    answer = s3.get_object(Bucket=BUCKET, Key="to")
    assert (answer["Body"].read(), answer["Metadata"], answer["ContentType"]) == (b"abc", {"a": "1"}, "x/y")
    refused("InvalidRequest", s3.copy_object, Bucket=BUCKET, Key="to", CopySource=f"{BUCKET}/to")
    s3.copy_object(Bucket=BUCKET, Key="to", CopySource=f"{BUCKET}/to", MetadataDirective="REPLACE", Metadata={"b": "2"})
    answer = s3.get_object(Bucket=BUCKET, Key="to")
    assert (answer["Body"].read(), answer["Metadata"]) == (b"abc", {"b": "2"})
    refused("NoSuchKey", s3.copy_object, Bucket=BUCKET, Key="x", CopySource=f"{BUCKET}/none")
    refused(
        "PreconditionFailed",
        s3.copy_object,
        Bucket=BUCKET,
        Key="x",
        CopySource=f"{BUCKET}/to",
        CopySourceIfMatch='"other"',
    )


def test_the_owner_that_is_expected(s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="owned", Body=b"x", ExpectedBucketOwner="000000000000")
    assert content(s3, "owned", ExpectedBucketOwner="000000000000") == b"x"
    refused("AccessDenied", s3.get_object, Bucket=BUCKET, Key="owned", ExpectedBucketOwner="111111111111")
    refused("AccessDenied", s3.put_object, Bucket=BUCKET, Key="owned", Body=b"y", ExpectedBucketOwner="111111111111")
    assert content(s3, "owned") == b"x"


def test_what_is_not_kept_is_refused(s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="sub", Body=b"x")
    refused("NotImplemented", s3.put_object_acl, Bucket=BUCKET, Key="sub", ACL="public-read")
    refused(
        "NotImplemented",
        s3.put_object_tagging,
        Bucket=BUCKET,
        Key="sub",
        Tagging={"TagSet": [{"Key": "a", "Value": "b"}]},
    )
    assert content(s3, "sub") == b"x"
    assert s3.get_object_tagging(Bucket=BUCKET, Key="sub")["TagSet"] == []
    assert "Status" not in s3.get_bucket_versioning(Bucket=BUCKET)


def test_errors_have_a_request_id(server: Server, s3) -> None:
    response = refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key="none here")
    assert response["Error"]["Key"] == "none here"
    connection = http.client.HTTPConnection(server.host)
    connection.request("GET", f"/{BUCKET}/none", headers=server.signed("GET", f"/{BUCKET}/none"))
    answer = connection.getresponse()
    request_id = answer.headers["x-amz-request-id"]
    assert request_id and f"<RequestId>{request_id}</RequestId>".encode() in answer.read()


# -- checksums


def test_content_is_compared_with_its_checksums(server: Server, s3) -> None:
    body = random.Random(3).randbytes(70_000)
    values = {
        "x-amz-checksum-crc32": zlib.crc32(body).to_bytes(4, "big"),
        "x-amz-checksum-sha1": hashlib.sha1(body).digest(),
        "x-amz-checksum-sha256": hashlib.sha256(body).digest(),
        "x-amz-checksum-sha512": hashlib.sha512(body).digest(),
        "x-amz-checksum-xxhash128": xxh3_128_digest(body),
        "content-md5": hashlib.md5(body).digest(),
    }
    for name, value in values.items():
        for good in (True, False):
            sent = value if good else bytes([value[0] ^ 1]) + value[1:]
            headers = server.signed("PUT", f"/{BUCKET}/sum", body, **{name: base64.b64encode(sent).decode()})
            connection = http.client.HTTPConnection(server.host)
            connection.request("PUT", f"/{BUCKET}/sum", body=body, headers=headers)
            response = connection.getresponse()
            answer = response.read()
            assert (response.status, b"BadDigest" in answer) == ((200, False) if good else (400, True)), (name, answer)
    headers = server.signed("PUT", f"/{BUCKET}/sum", body, **{"content-md5": "nonsense"})
    connection.request("PUT", f"/{BUCKET}/sum", body=body, headers=headers)
    assert b"InvalidDigest" in connection.getresponse().read()


# Check values of the CRC catalogue for the ASCII digits 1 to 9.
@pytest.mark.parametrize(
    ("name", "value"),
    [("crc32", "cbf43926"), ("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888")],
)
def test_checksums_have_their_published_values(server: Server, s3, name: str, value: str) -> None:
    encoded = base64.b64encode(bytes.fromhex(value)).decode()
    headers = server.signed("PUT", f"/{BUCKET}/crc", b"123456789", **{f"x-amz-checksum-{name}": encoded})
    connection = http.client.HTTPConnection(server.host)
    connection.request("PUT", f"/{BUCKET}/crc", body=b"123456789", headers=headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    answer = s3.head_object(Bucket=BUCKET, Key="crc", ChecksumMode="ENABLED")
    assert answer[f"Checksum{name.upper()}"] == encoded
    connection.close()
    headers = server.signed("PUT", f"/{BUCKET}/crc", b"123456780", **{f"x-amz-checksum-{name}": encoded})
    connection.request("PUT", f"/{BUCKET}/crc", body=b"123456780", headers=headers)
    assert b"BadDigest" in connection.getresponse().read()


def test_a_body_that_is_not_the_signed_one_is_refused(server: Server, s3) -> None:
    headers = server.signed("PUT", f"/{BUCKET}/tampered", b"what was signed")
    headers.pop("Content-MD5", None)
    connection = http.client.HTTPConnection(server.host)
    connection.request("PUT", f"/{BUCKET}/tampered", body=b"what was sent..", headers=headers)
    assert b"XAmzContentSHA256Mismatch" in connection.getresponse().read()
    refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key="tampered")


def test_a_key_that_names_its_content_must_be_right(server: Server, s3) -> None:
    body = b"some frame"
    good = f"Root/Data/{xxh3_128_hexdigest(body)}.xxh128"
    answer = s3.put_object(Bucket=BUCKET, Key=good, Body=body)
    assert "-" in answer["ETag"]  # so that nobody takes it for an MD5
    before = server.kept()
    wrong = f"Root/Data/{xxh3_128_hexdigest(b'other')}.xxh128"
    refused("BadDigest", s3.put_object, Bucket=BUCKET, Key=wrong, Body=body)
    refused("BadDigest", s3.copy_object, Bucket=BUCKET, Key=wrong, CopySource=f"{BUCKET}/{good}")
    refused("404", s3.head_object, Bucket=BUCKET, Key=wrong)
    assert server.kept() == before


@pytest.mark.parametrize("calculation", ["when_supported", "when_required"])
def test_chunked_bodies_with_trailers(server: Server, s3, calculation: str) -> None:
    class Unseekable(io.RawIOBase):
        """What botocore can't hash beforehand, and so sends in chunks with the checksum after it."""

        def __init__(self, data: bytes) -> None:
            self.source = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            return self.source.read(size)

    body = random.Random(4).randbytes(300_001)
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": str(len(body)),
        "x-amz-trailer": "x-amz-checksum-crc32",
        "content-encoding": "aws-chunked",
    }

    def send(checksum: str) -> tuple[int, bytes]:
        request = AWSRequest("PUT", f"{server.url}/{BUCKET}/trailer", headers=headers)
        request.context["payload_signing_enabled"] = True
        auth = S3SigV4Auth(Credentials(server.admin.access_key_id, server.admin.secret), "s3", "us-west-2")
        auth.payload = lambda _: headers["x-amz-content-sha256"]
        auth.add_auth(request)
        pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces)
        framed += b"0\r\nx-amz-checksum-crc32:" + checksum.encode() + b"\r\n\r\n"
        connection = http.client.HTTPConnection(server.host)
        if calculation == "when_supported":
            connection.request("PUT", f"/{BUCKET}/trailer", body=framed, headers=dict(request.headers))
        else:  # chunks within chunks, as botocore does it
            parts = (framed[at : at + 1000] for at in range(0, len(framed), 1000))
            connection.request(
                "PUT", f"/{BUCKET}/trailer", body=parts, headers=dict(request.headers), encode_chunked=True
            )
        response = connection.getresponse()
        return response.status, response.read()

    assert send(base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode())[0] == 200
    assert content(s3, "trailer") == body
    assert "ContentEncoding" not in s3.head_object(Bucket=BUCKET, Key="trailer")
    status, answer = send("AAAAAA==")
    assert (status, b"BadDigest" in answer) == (400, True)


def test_signed_chunks(server: Server, s3) -> None:
    # The algorithm of the S3 reference, written anew here.
    import hmac
    from datetime import UTC, datetime

    body = random.Random(5).randbytes(150_000)
    chunks = [body[:65536], body[65536:131072], body[131072:], b""]
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/us-west-2/s3/aws4_request"
    secret = server.admin.secret

    def mac(key: bytes, text: str) -> bytes:
        return hmac.new(key, text.encode(), "sha256").digest()

    key = mac(mac(mac(mac(b"AWS4" + secret.encode(), now[:8]), "us-west-2"), "s3"), "aws4_request")

    def send(tamper: bool) -> tuple[int, bytes]:
        headers = {
            "host": server.host,
            "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "x-amz-date": now,
            "x-amz-decoded-content-length": str(len(body)),
        }
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        names = ";".join(sorted(headers))
        canonical = f"PUT\n/{BUCKET}/signed\n\n{lines}\n{names}\n{headers['x-amz-content-sha256']}"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        previous = mac(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={server.admin.access_key_id}/{scope},"
            f"SignedHeaders={names},Signature={previous}"
        )
        framed = b""
        for chunk in chunks:
            empty, own = hashlib.sha256(b"").hexdigest(), hashlib.sha256(chunk).hexdigest()
            previous = mac(key, f"AWS4-HMAC-SHA256-PAYLOAD\n{now}\n{scope}\n{previous}\n{empty}\n{own}").hex()
            if tamper and chunk is chunks[1]:
                chunk = b"X" + chunk[1:]
            framed += b"%x;chunk-signature=%s\r\n%s\r\n" % (len(chunk), previous.encode(), chunk)
        connection = http.client.HTTPConnection(server.host)
        connection.request("PUT", f"/{BUCKET}/signed", body=framed, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()

    assert send(tamper=False)[0] == 200
    assert content(s3, "signed") == body
    s3.delete_object(Bucket=BUCKET, Key="signed")
    status, answer = send(tamper=True)
    assert (status, b"SignatureDoesNotMatch" in answer) == (403, True)
    refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key="signed")


# -- listing


@given(
    keys=st.sets(st.text("a/b-é\U0001f600&<\n\x01 +%", min_size=1, max_size=6), max_size=25),
    prefix=st.text("a/b", max_size=2),
    delimiter=st.sampled_from(["", "/", "-", "b/"]),
    size=st.integers(1, 7),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_hold_what_is_there(server: Server, s3, keys: set[str], prefix: str, delimiter: str, size: int) -> None:
    bucket = "listing"
    with contextlib.suppress(ClientError):
        s3.create_bucket(Bucket=bucket)
    there = {
        each["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for each in page.get("Contents", [])
    }
    for key in there - keys:
        s3.delete_object(Bucket=bucket, Key=key)
    for key in keys - there:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())

    wanted: list[str] = []
    commons: list[str] = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            wanted.append(key)
        elif key[: cut + len(delimiter)] not in commons:
            commons.append(key[: cut + len(delimiter)])
    for name in ("list_objects_v2", "list_objects"):
        pages = s3.get_paginator(name).paginate(
            Bucket=bucket, Prefix=prefix, Delimiter=delimiter, PaginationConfig={"PageSize": size}
        )
        seen, seen_commons = [], []
        for page in pages:
            entries = [each["Key"] for each in page.get("Contents", [])]
            groups = [each["Prefix"] for each in page.get("CommonPrefixes", [])]
            assert len(entries) + len(groups) <= size
            if name == "list_objects_v2":
                assert page["KeyCount"] == len(entries) + len(groups)
            assert page["IsTruncated"] is False or len(entries) + len(groups) == size
            seen += entries
            seen_commons += groups
            assert all(each["Size"] == len(each["Key"].encode()) for each in page.get("Contents", []))
        assert (seen, seen_commons) == (wanted, commons)
    if wanted and not delimiter:
        middle = wanted[len(wanted) // 2]
        later = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=middle).get("Contents", [])
        assert [each["Key"] for each in later] == wanted[len(wanted) // 2 + 1 :]


def test_a_common_prefix_is_passed_over_at_once(server: Server, s3) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: s3.put_object(Bucket=BUCKET, Key=f"deep/{n % 3}/{n:04}", Body=b""), range(1500)))
    answer = s3.list_objects_v2(Bucket=BUCKET, Prefix="deep/", Delimiter="/", MaxKeys=2)
    assert [each["Prefix"] for each in answer["CommonPrefixes"]] == ["deep/0/", "deep/1/"]
    assert answer["IsTruncated"]
    answer = s3.list_objects_v2(
        Bucket=BUCKET, Prefix="deep/", Delimiter="/", ContinuationToken=answer["NextContinuationToken"]
    )
    assert [each["Prefix"] for each in answer["CommonPrefixes"]] == ["deep/2/"]
    answer = s3.list_objects_v2(Bucket=BUCKET, Prefix="deep/")
    assert (answer["KeyCount"], answer["IsTruncated"]) == (1000, True)
    assert s3.list_objects_v2(Bucket=BUCKET, MaxKeys=0)["KeyCount"] == 0
    refused("InvalidArgument", s3.list_objects_v2, Bucket=BUCKET, ContinuationToken="nonsense")


# -- multipart


def parts_of(s3, key: str, pieces: list[bytes], **created: object) -> tuple[str, list[dict]]:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key, **created)["UploadId"]
    done = []
    for number, piece in enumerate(pieces, 1):
        answer = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=piece)
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    return upload, done


def test_multipart_upload(server: Server, s3) -> None:
    pieces = [os.urandom(5 * MIB), os.urandom(6 * MIB), b"tail"]
    upload, done = parts_of(s3, "mp", pieces, Metadata={"a": "b"}, ContentType="x/y")
    listed = s3.list_parts(Bucket=BUCKET, Key="mp", UploadId=upload, MaxParts=2)
    assert [(each["PartNumber"], each["Size"]) for each in listed["Parts"]] == [(1, 5 * MIB), (2, 6 * MIB)]
    assert listed["IsTruncated"] and listed["NextPartNumberMarker"] == 2
    assert [each["UploadId"] for each in s3.list_multipart_uploads(Bucket=BUCKET, Prefix="mp")["Uploads"]] == [upload]
    refused("404", s3.head_object, Bucket=BUCKET, Key="mp")
    answer = s3.complete_multipart_upload(Bucket=BUCKET, Key="mp", UploadId=upload, MultipartUpload={"Parts": done})
    tags = b"".join(hashlib.md5(piece).digest() for piece in pieces)
    assert answer["ETag"] == f'"{hashlib.md5(tags).hexdigest()}-3"'
    assert content(s3, "mp") == b"".join(pieces)
    whole = b"".join(pieces)
    assert content(s3, "mp", Range=f"bytes={5 * MIB - 3}-{11 * MIB + 1}") == whole[5 * MIB - 3 : 11 * MIB + 2]
    second = s3.get_object(Bucket=BUCKET, Key="mp", PartNumber=2)
    assert (second["Body"].read(), second["PartsCount"]) == (pieces[1], 3)
    head = s3.head_object(Bucket=BUCKET, Key="mp")
    assert (head["Metadata"], head["ContentType"]) == ({"a": "b"}, "x/y")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET, Prefix="mp")
    # A client whose answer was lost asks again, and gets the same one.
    again = s3.complete_multipart_upload(Bucket=BUCKET, Key="mp", UploadId=upload, MultipartUpload={"Parts": done})
    assert again["ETag"] == answer["ETag"]
    refused(
        "NoSuchUpload",
        s3.complete_multipart_upload,
        Bucket=BUCKET,
        Key="mp",
        UploadId="unknown",
        MultipartUpload={"Parts": done},
    )


def test_multipart_faults(server: Server, s3) -> None:
    before = len(server.files())
    upload, done = parts_of(s3, "bad", [b"small", b"tail"])
    complete = {"Bucket": BUCKET, "Key": "bad", "UploadId": upload}
    refused("EntityTooSmall", s3.complete_multipart_upload, **complete, MultipartUpload={"Parts": done})
    refused("InvalidPartOrder", s3.complete_multipart_upload, **complete, MultipartUpload={"Parts": done[::-1]})
    wrong = [{"PartNumber": 1, "ETag": '"00000000000000000000000000000000"'}]
    refused("InvalidPart", s3.complete_multipart_upload, **complete, MultipartUpload={"Parts": wrong})
    refused(
        "InvalidPart",
        s3.complete_multipart_upload,
        **complete,
        MultipartUpload={"Parts": [{**done[0], "PartNumber": 9}]},
    )
    refused("InvalidArgument", s3.upload_part, **complete, PartNumber=10001, Body=b"")
    s3.put_object(Bucket=BUCKET, Key="bad", Body=b"x")
    refused(
        "PreconditionFailed",
        s3.complete_multipart_upload,
        **complete,
        MultipartUpload={"Parts": done[:1]},
        IfNoneMatch="*",
    )
    s3.upload_part(**complete, PartNumber=1, Body=b"another")
    s3.abort_multipart_upload(**complete)
    refused("NoSuchUpload", s3.upload_part, **complete, PartNumber=1, Body=b"x")
    s3.delete_object(Bucket=BUCKET, Key="bad")
    assert len(server.files()) == before


def test_a_multipart_upload_must_be_what_its_key_names(server: Server, s3) -> None:
    pieces = [os.urandom(5 * MIB), b"tail"]
    key = f"Root/Data/{xxh3_128_hexdigest(b''.join(pieces))}.xxh128"
    upload, done = parts_of(s3, key, pieces)
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": done})
    assert content(s3, key) == b"".join(pieces)
    other = f"Root/Data/{xxh3_128_hexdigest(b'other')}.xxh128"
    upload, done = parts_of(s3, other, pieces)
    refused(
        "BadDigest",
        s3.complete_multipart_upload,
        Bucket=BUCKET,
        Key=other,
        UploadId=upload,
        MultipartUpload={"Parts": done},
    )
    refused("404", s3.head_object, Bucket=BUCKET, Key=other)
    s3.abort_multipart_upload(Bucket=BUCKET, Key=other, UploadId=upload)


def test_parts_by_copying(s3) -> None:
    whole = os.urandom(6 * MIB)
    s3.put_object(Bucket=BUCKET, Key="whole", Body=whole)
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    done = []
    for number, text in enumerate((f"bytes=0-{5 * MIB - 1}", f"bytes={5 * MIB}-{6 * MIB - 1}"), 1):
        answer = s3.upload_part_copy(
            Bucket=BUCKET,
            Key="parts",
            UploadId=upload,
            PartNumber=number,
            CopySource=f"{BUCKET}/whole",
            CopySourceRange=text,
        )
        done.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={"Parts": done})
    assert content(s3, "parts") == whole


def test_the_transfer_manager_of_boto3(s3, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(random.Random(6).randbytes(21 * MIB + 5))
    s3.upload_file(str(source), BUCKET, "managed", ExtraArgs={"ExpectedBucketOwner": "000000000000"})
    s3.download_file(BUCKET, "managed", str(target))
    assert target.read_bytes() == source.read_bytes()


# -- signatures and principals


def test_who_may_not(server: Server, s3) -> None:
    refused("InvalidAccessKeyId", server.client(key="AKIANOBODY").list_buckets)
    refused("SignatureDoesNotMatch", server.client(secret="wrong").list_buckets)
    made = server.ring.mint({"kind": "queue_user", "bucket": BUCKET, "prefix": "Root"}, -10)
    expired = server.client(made.access_key_id, made.secret_access_key, made.session_token)
    refused("ExpiredToken", expired.list_objects_v2, Bucket=BUCKET, Prefix="Root/")
    forged = server.client(made.access_key_id, made.secret_access_key, made.session_token[:-3] + "abc")
    refused("InvalidToken", forged.list_objects_v2, Bucket=BUCKET, Prefix="Root/")
    refused("InvalidToken", server.client(made.access_key_id, made.secret_access_key).list_buckets)
    with urlopen_status(f"{server.url}/{BUCKET}/kept") as status:
        assert status == 403


def test_a_signature_that_is_no_text(server: Server) -> None:
    headers = server.signed("GET", "/")
    for name in ("Authorization", "X-Amz-Date"):
        connection = http.client.HTTPConnection(server.host)
        connection.request("GET", "/", headers={**headers, name: headers[name][:-1] + "\x80"})
        assert connection.getresponse().status == 403


@contextlib.contextmanager
def urlopen_status(url: str, **options: object) -> Iterator[int]:
    from urllib.error import HTTPError

    try:
        with urlopen(Request(url, **options), timeout=10) as response:
            yield response.status
    except HTTPError as error:
        yield error.code


def test_a_queue_role_reaches_its_prefix_only(server: Server, s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="Root/a", Body=b"a")
    s3.put_object(Bucket=BUCKET, Key="Root2/b", Body=b"b")
    with contextlib.suppress(ClientError):
        s3.create_bucket(Bucket="secret")
    for kind in ("queue_user", "queue_worker", "queue_read"):
        role = server.minted(kind=kind, bucket=BUCKET, prefix="Root")
        assert role.get_object(Bucket=BUCKET, Key="Root/a")["Body"].read() == b"a"
        assert role.list_objects_v2(Bucket=BUCKET, Prefix="Root/")["KeyCount"] >= 1
        role.head_bucket(Bucket=BUCKET)
        refused("AccessDenied", role.get_object, Bucket=BUCKET, Key="Root2/b")
        refused("AccessDenied", role.list_objects_v2, Bucket=BUCKET)
        refused("AccessDenied", role.list_objects_v2, Bucket=BUCKET, Prefix="Root")
        refused("AccessDenied", role.get_object, Bucket="secret", Key="Root/a")
        refused("AccessDenied", role.put_object, Bucket=BUCKET, Key="elsewhere", Body=b"")
        refused("AccessDenied", role.delete_object, Bucket=BUCKET, Key="Root/a")
        refused("AccessDenied", role.copy_object, Bucket=BUCKET, Key="Root/c", CopySource=f"{BUCKET}/Root2/b")
        refused("AccessDenied", role.list_buckets)
        refused("AccessDenied", role.create_bucket, Bucket="mine-now")
        if kind == "queue_read":
            refused("AccessDenied", role.put_object, Bucket=BUCKET, Key="Root/new", Body=b"")
            refused("AccessDenied", role.create_multipart_upload, Bucket=BUCKET, Key="Root/new")
        else:
            role.put_object(Bucket=BUCKET, Key="Root/new", Body=b"")
            upload = role.create_multipart_upload(Bucket=BUCKET, Key="Root/new")["UploadId"]
            role.abort_multipart_upload(Bucket=BUCKET, Key="Root/new", UploadId=upload)
    for claims in ({"kind": "worker"}, {"kind": "queue_user"}, {"kind": "queue_user", "bucket": BUCKET}):
        refused("AccessDenied", server.minted(**claims).get_object, Bucket=BUCKET, Key="Root/a")


def test_presigned_urls(server: Server, s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="pre signed/ü", Body=b"x")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "pre signed/ü"}, ExpiresIn=60)
    assert urlopen(url).read() == b"x"
    with urlopen_status(url.replace("X-Amz-Expires=60", "X-Amz-Expires=61")) as status:
        assert status == 403
    put = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "pre2"}, ExpiresIn=60)
    assert urlopen(Request(put, data=b"put", method="PUT")).status == 200
    assert content(s3, "pre2") == b"put"
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "pre2"}, ExpiresIn=1)
    give_up = time.monotonic() + 10
    while True:  # it expires by itself
        with urlopen_status(url) as status:
            if status == 403:
                break
        assert time.monotonic() < give_up
    role = server.minted(kind="queue_read", bucket=BUCKET, prefix="pre signed")
    url = role.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "pre signed/ü"})
    assert urlopen(url).read() == b"x"


def test_an_old_signature_is_refused(server: Server) -> None:
    from libdeadline import sigv4

    for age_s, status in ((0, 200), (840, 200), (960, 403), (-960, 403)):
        headers = {"host": server.host, "x-amz-content-sha256": sigv4.EMPTY_SHA256}
        key = {"access_key_id": server.admin.access_key_id, "secret": server.admin.secret, "token": None}
        sigv4.sign(
            "GET", "/", "", headers, sigv4.EMPTY_SHA256, **key, region="x", service="s3", now=time.time() - age_s
        )
        connection = http.client.HTTPConnection(server.host)
        connection.request("GET", "/", headers=headers)
        assert connection.getresponse().status == status


# -- the wire


def test_bad_requests_are_answered(server: Server) -> None:
    for sent, answer in (
        (b"nonsense\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", b" 400 "),
        (b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n", b" 400 "),
        (b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n", b" 403 "),
        (b"GET /b/" + b"k" * 1025 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"KeyTooLong"),
        (b"GET /b/%ff HTTP/1.1\r\nHost: x\r\n\r\n", b"InvalidURI"),
    ):
        with socket.create_connection(server.host.split(":"), timeout=10) as sock:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            received = b""
            while data := sock.recv(65536):
                received += data
        assert answer in received, sent[:60]


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nonsense_does_no_harm(server: Server, s3, data: st.DataObject) -> None:
    """A request with bytes changed, cut or added gets an answer or a closed connection, and the server goes on."""
    method = data.draw(st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"]))
    path = data.draw(st.sampled_from(["/", f"/{BUCKET}", f"/{BUCKET}/nonsense", f"/{BUCKET}/none"]))
    query = data.draw(
        st.sampled_from(
            [
                "",
                "uploads",
                "uploadId=x&partNumber=1",
                "partNumber=x&uploadId=",
                "delete",
                "list-type=2&max-keys=x",
                "acl",
            ]
        )
    )
    body = data.draw(st.sampled_from([b"", b"x" * 100, b"<Delete>", b"<Delete><Object/></Delete>"]))
    extra = data.draw(
        st.dictionaries(
            st.sampled_from(
                ["Range", "If-Match", "x-amz-copy-source", "Content-MD5", "x-amz-checksum-crc32", "x-amz-trailer",
                 "x-amz-checksum-algorithm", "Transfer-Encoding", "Expect", "x-amz-decoded-content-length",
                 "Content-Encoding", "If-Modified-Since", "x-amz-copy-source-range"]
            ),
            st.sampled_from(["", "x", "bytes=0-", "bytes=-0", "*", "chunked", "aws-chunked", "100-continue", "/a/b"]),
            max_size=3,
        )
    )  # fmt: skip
    target = f"{path}?{query}" if query else path
    headers = server.signed(method, target, body, **extra)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    sent = (
        f"{method} {target} HTTP/1.1\r\nHost: {server.host}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(sent)))
        sent = sent[:at] + data.draw(st.binary(max_size=3)) + sent[at + data.draw(st.integers(0, 3)) :]
    with socket.create_connection(server.host.split(":"), timeout=10) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                received += piece
    assert not received or received.startswith(b"HTTP/1.1 "), received[:100]
    assert b" 500 " not in received.split(b"\r\n")[0], (sent, received)
    assert server.process.poll() is None


def test_one_connection_carries_many_requests(server: Server, s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="keep", Body=b"1234567")
    head = "\r\n".join(f"{name}: {value}" for name, value in server.signed("GET", f"/{BUCKET}/keep").items())
    request = f"GET /{BUCKET}/keep HTTP/1.1\r\nHost: {server.host}\r\n{head}\r\n\r\n".encode()
    with socket.create_connection(server.host.split(":"), timeout=10) as sock:
        sock.sendall(request * 20)  # pipelined
        received = b""
        while received.count(b"1234567") < 20:
            data = sock.recv(65536)
            assert data, received[-300:]
            received += data
    assert received.count(b"HTTP/1.1 200 OK") == 20


def test_expect_100_continue(server: Server, s3) -> None:
    body = b"x" * 100_000
    for key, status in (("expected", b"HTTP/1.1 100 Continue\r\n\r\n"), ("", b"HTTP/1.1 403")):
        headers = server.signed("PUT", f"/{BUCKET}/expected", body)
        if not key:
            headers["Authorization"] = headers["Authorization"][:-4] + "0000"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(server.host.split(":"), timeout=10) as sock:
            sock.sendall(
                f"PUT /{BUCKET}/expected HTTP/1.1\r\nHost: {server.host}\r\n{lines}"
                f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            )
            assert sock.recv(65536).startswith(status)
            if key:
                sock.sendall(body)
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    assert content(s3, "expected") == body


def test_a_body_that_stops_midway_leaves_nothing(server: Server, s3) -> None:
    before = len(server.files())
    headers = server.signed("PUT", f"/{BUCKET}/cut", b"x" * 300_000)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    give_up = time.monotonic() + 10
    with socket.create_connection(server.host.split(":"), timeout=10) as sock:
        request = f"PUT /{BUCKET}/cut HTTP/1.1\r\nHost: {server.host}\r\n{lines}Content-Length: 300000\r\n\r\n"
        sock.sendall(request.encode() + b"x" * 200_000)
        while len(server.files()) == before:
            assert time.monotonic() < give_up
    while len(server.files()) != before:
        assert time.monotonic() < give_up
    refused("404", s3.head_object, Bucket=BUCKET, Key="cut")


def test_many_threads(server: Server, s3) -> None:
    def work(number: int) -> None:
        rng = random.Random(number)
        for turn in range(12):
            key, body = f"threads/{number}/{turn}", rng.randbytes(rng.choice([0, 1, 5000, 200_000]))
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
            assert content(s3, key) == body
            if turn % 3 == 0:
                s3.delete_object(Bucket=BUCKET, Key=key)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    listed = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="threads/")
    assert sum(page["KeyCount"] for page in listed) == 32 * 8


# -- life and death


def test_only_one_serves_a_folder(server: Server) -> None:
    words = [COMMANDS / "dl-s3d", "--dir", server.folder, "--listen", "127.0.0.1:0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.startswith("dl-s3d: another dl-s3d serves")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--listen", "0.0.0.0:0"], 64),
        (["--listen", "somewhere"], 64),
        (["--listen", "127.0.0.1:99999"], 64),
        ([], 64),
    ],
)
def test_where_it_does_not_listen(tmp_path: Path, words: list[str], status: int) -> None:
    done = subprocess.run(
        [COMMANDS / "dl-s3d", "--dir", tmp_path, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)


def test_an_inherited_socket(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen([COMMANDS / "dl-s3d", "--dir", tmp_path], stdin=listener)
        host, port = listener.getsockname()
        with urlopen_status(f"http://{host}:{port}/") as status:  # waits in the backlog until it is ready
            assert status == 403
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_killed_while_writing(tmp_path: Path) -> None:
    """Whatever was acknowledged is there, whatever is there is whole, and nothing else stays."""
    server = Server(tmp_path)
    server.client().create_bucket(Bucket=BUCKET)
    acknowledged: dict[str, bytes] = {}
    attempted: set[str] = set()

    def write(worker: int, stop: threading.Event) -> None:
        client = server.client(connect_timeout=2, read_timeout=5)
        rng = random.Random(worker)
        number = 0
        while not stop.is_set():
            number += 1
            body = rng.randbytes(rng.choice([10, 3000, 300_000]))
            key = f"Data/{xxh3_128_hexdigest(body)}.xxh128"
            attempted.add(key)
            try:
                client.put_object(Bucket=BUCKET, Key=key, Body=body)
            except Exception:
                return
            acknowledged[key] = body

    for _ in range(3):
        stop = threading.Event()
        threads = [threading.Thread(target=write, args=(number, stop)) for number in range(6)]
        goal = len(acknowledged) + 30
        for thread in threads:
            thread.start()
        give_up = time.monotonic() + 30
        while len(acknowledged) < goal and time.monotonic() < give_up:
            time.sleep(0.01)
        server.end(signal.SIGKILL)
        stop.set()
        for thread in threads:
            thread.join()
        server.start()
        client = server.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        there = {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", [])}
        assert acknowledged.keys() <= there.keys() <= attempted
        for key in there:
            body = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            assert key == f"Data/{xxh3_128_hexdigest(body)}.xxh128"
        give_up = time.monotonic() + 10
        while server.kept() != len(there):  # the sweep of leftovers
            assert time.monotonic() < give_up, (server.kept(), len(there))
    assert server.end() == 0


def test_a_file_that_lost_its_end_is_not_served(tmp_path: Path) -> None:
    server = Server(tmp_path)
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="lost", Body=b"x" * 500_000)
    (file,) = server.files()
    os.truncate(file, 100)  # as after a power loss
    refused("404", client.head_object, Bucket=BUCKET, Key="lost")
    refused("NoSuchKey", client.get_object, Bucket=BUCKET, Key="lost")
    # Nor listed, from which uploads would conclude that it is there.
    listed = client.list_objects_v2(Bucket=BUCKET)
    assert ("Contents" in listed, listed["KeyCount"]) == (False, 0)
    client.put_object(Bucket=BUCKET, Key="lost", Body=b"y", IfNoneMatch="*")
    assert content(client, "lost") == b"y"
    server.end()


def test_an_upload_that_nobody_finishes_is_dropped(tmp_path: Path) -> None:
    server = Server(tmp_path)
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    old, _ = parts_of(client, "old", [b"part"])
    new, _ = parts_of(client, "new", [b"part"])
    server.end()
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "index.sqlite")) as db, db:
        db.execute("UPDATE upload SET created = created - 8 * 24 * 3600 * 1000 WHERE id = ?", (old,))
    server.start()
    uploads = server.client().list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [each["UploadId"] for each in uploads] == [new]
    assert len(server.files()) == 1
    server.end()


def test_requests_under_way_are_finished_when_told_to_stop(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.client().create_bucket(Bucket=BUCKET)
    body = b"x" * 300_000
    headers = server.signed("PUT", f"/{BUCKET}/late", body)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(server.host.split(":"), timeout=10) as sock:
        request = f"PUT /{BUCKET}/late HTTP/1.1\r\nHost: {server.host}\r\n{lines}Content-Length: 300000\r\n\r\n"
        sock.sendall(request.encode() + body[:200_000])
        give_up = time.monotonic() + 10
        while not server.files():
            assert time.monotonic() < give_up
        server.process.terminate()
        with pytest.raises(OSError):
            while time.monotonic() < give_up:
                socket.create_connection(server.host.split(":"), timeout=0.2).close()
        sock.sendall(body[200_000:])
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
    assert server.process.wait(timeout=10) == 0
    server.start()
    assert content(server.client(), "late") == body
    server.end()


@pytest.mark.skipif(not os.path.exists("/dev/full") or shutil.which("mount") is None, reason="Linux only")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", room], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        server = Server(room)
        client = server.client()
        client.create_bucket(Bucket=BUCKET)
        response = refused("InsufficientStorage", client.put_object, Bucket=BUCKET, Key="big", Body=b"x" * 4 * MIB)
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 507
        client.put_object(Bucket=BUCKET, Key="small", Body=b"fits")
        assert content(client, "small") == b"fits"
        assert server.kept() == 1
        server.end()
    finally:
        subprocess.run(["umount", room], check=True)
