"""An S3 bucket in memory that verifies signatures and checksums, and misbehaves as it is told.

`Bucket.plan` is asked before each request is answered: it returns None, or a fault:
("status", code, error code, message) · ("close",) before an answer · ("cut", bytes) an answer cut short ·
("corrupt", bits) one wrong byte in the body · ("stall", seconds) silence before the answer · ("drop", bytes) the
connection is reset after so many bytes of the request's body were read · ("spoil",) one wrong byte in what was sent,
as it arrives · ("after",) what was asked for is done, and the connection closed without an answer · ("raw", bytes)
these bytes for an answer, and nothing behind them · ("drip", seconds) an answer that comes in small pieces, with
pauses of so long, after the first half · ("late", seconds) the second half of an answer after so long ·
("answer", status, body, headers) an answer of any kind · ("held", event) it does what was asked, and
answers when the event is set.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import ssl
import struct
import threading
from base64 import b64decode
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import gmtime, strftime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from xxhash import xxh3_128

from libdeadline import sigv4


class Keys(NamedTuple):
    access_key_id: str = "AKIATEST"
    secret_access_key: str = "secret"
    session_token: str | None = "token"


class Request(NamedTuple):
    method: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]


class Object(NamedTuple):
    data: bytes
    metadata: dict[str, str]
    modified: float


class Bucket:
    """The bucket `bench` on a port of its own."""

    def __init__(
        self, *, server: str = "dl-s3d", check: bool = True, page: int = 1000, tls: tuple[Path, Path] | None = None
    ) -> None:
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.upload_keys: dict[str, str] = {}
        self.requests: list[Request] = []
        self.plan: Callable[[Request], tuple[Any, ...] | None] = lambda request: None
        self.keys = [Keys()]
        self.server_name, self.check, self.page = server, check, page
        self.tls = tls
        self.clock = 1_700_000_000.0
        self._lock = threading.Lock()

    def __enter__(self) -> Bucket:
        bucket = self

        class Handler(_Handler):
            pass

        Handler.bucket = bucket
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def endpoint(self) -> str:
        port = self._http.server_address[1]
        return f"https://localhost:{port}" if self.tls else f"http://127.0.0.1:{port}"

    def put(self, key: str, data: bytes, metadata: dict[str, str] | None = None) -> None:
        with self._lock:
            self.clock += 1
            self.objects[key] = Object(data, metadata or {}, self.clock)

    def count(self, method: str, **query: str) -> int:
        """How many requests there were with a method, and with these in the query."""
        return sum(1 for each in self.requests if each.method == method and query.items() <= each.query.items())


class _Handler(BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def version_string(self) -> str:
        return self.bucket.server_name

    def handle_any(self) -> None:
        bucket = self.bucket
        parts = urlsplit(self.path)
        key = unquote(parts.path).partition("/bench")[2].removeprefix("/")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, key, query, headers)
        bucket.requests.append(request)
        fault = bucket.plan(request)
        self.fault = fault
        length = int(headers.get("content-length") or 0)
        if fault and fault[0] == "drop":
            self.rfile.read(min(length, fault[1]))
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        if fault and fault[0] == "close":
            self.close_connection = True
            return
        if fault and fault[0] == "stall":
            threading.Event().wait(fault[1])
        if fault and fault[0] == "raw":
            self.wfile.write(fault[1])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault and fault[0] == "answer":
            self.reply(*fault[1:])
            return
        if fault and fault[0] == "spoil" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault and fault[0] == "after":
            self.wfile = io.BytesIO()
            self.close_connection = True
        if fault and fault[0] == "status":
            self.fail(*fault[1:])
            return
        problem = self.unauthorized(headers, parts.path, parts.query)
        if problem:
            self.fail(403, problem, "refused")
            return
        getattr(self, f"do_it_{self.command.lower()}")(request, body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def unauthorized(self, headers: dict[str, str], path: str, query: str) -> str | None:
        authorization = headers.get("authorization", "")
        try:
            access_key_id = sigv4.parse_authorization(authorization)[0]
        except ValueError:
            return "AccessDenied"
        known = [each for each in self.bucket.keys if each.access_key_id == access_key_id]
        if not known:
            return "ExpiredToken"
        if headers.get("x-amz-security-token") != known[0].session_token:
            return "InvalidToken"
        if "x-amz-security-token" not in authorization:
            return "AccessDenied"
        ok = sigv4.matches(
            self.command, path, query, headers, headers["x-amz-content-sha256"], authorization,
            known[0].secret_access_key,
        )  # fmt: skip
        return None if ok else "SignatureDoesNotMatch"

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, size: int | None = None):
        fault = self.fault
        if fault and fault[0] == "corrupt" and body:
            flipped = fault[1] if len(fault) > 1 else 1
            body = bytes([body[0] ^ flipped]) + body[1:]
        if fault and fault[0] == "held":
            fault[1].wait(30)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        if self.command != "HEAD":
            if fault and fault[0] == "cut":
                self.wfile.write(body[: fault[1]])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault and fault[0] in ("drip", "late"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                rest = body[len(body) // 2 :]
                piece = 10 if fault[0] == "drip" else len(rest)
                for start in range(0, len(rest), piece):
                    threading.Event().wait(fault[1])
                    self.wfile.write(rest[start : start + piece])
                    self.wfile.flush()
                return
            self.wfile.write(body)

    def fail(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        self.reply(status, body.encode(), headers)

    def wrong(self, request: Request, body: bytes) -> bool:
        given = request.headers.get("x-amz-checksum-xxhash128")
        if self.bucket.check and given and b64decode(given) != xxh3_128(body).digest():
            self.fail(400, "BadDigest", "the checksum does not match")
            return True
        return False

    def checked(self, request: Request) -> dict[str, str]:
        """What a server that checked a checksum answers with."""
        given = request.headers.get("x-amz-checksum-xxhash128")
        return {"x-amz-checksum-xxhash128": given} if given and self.bucket.check else {}

    def do_it_put(self, request: Request, body: bytes) -> None:
        bucket = self.bucket
        if self.wrong(request, body):
            return
        if "uploadId" in request.query:
            parts = bucket.uploads.get(request.query["uploadId"])
            if parts is None:
                self.fail(404, "NoSuchUpload", "no such upload")
                return
            parts[int(request.query["partNumber"])] = body
            self.reply(200, headers={"ETag": f'"{xxh3_128(body).hexdigest()}"', **self.checked(request)})
            return
        if request.headers.get("if-none-match") == "*" and request.key in bucket.objects:
            self.fail(412, "PreconditionFailed", "it exists")
            return
        metadata = {name[11:]: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}
        bucket.put(request.key, body, metadata)
        self.reply(200, headers={"ETag": '"e"', **self.checked(request)})

    def do_it_post(self, request: Request, body: bytes) -> None:
        bucket = self.bucket
        if "uploads" in request.query:
            name = f"u{len(bucket.upload_keys)}"
            bucket.uploads[name] = {}
            bucket.upload_keys[name] = request.key
            self.reply(
                200,
                f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>".encode(),
            )
            return
        parts = bucket.uploads.get(request.query.get("uploadId", ""))
        if parts is None:
            self.fail(404, "NoSuchUpload", "no such upload")
            return
        named = [int(each) for each in re.findall(rb"<PartNumber>(\d+)</PartNumber>", body)]
        etags = re.findall(rb"<ETag>([^<]*)</ETag>", body)
        for number, etag in zip(named, etags, strict=True):
            if etag.decode().strip('"') != xxh3_128(parts[number]).hexdigest():
                self.fail(400, "InvalidPart", "wrong etag")
                return
        bucket.put(request.key, b"".join(parts[number] for number in named))
        del bucket.uploads[request.query["uploadId"]]
        self.reply(200, b"<CompleteMultipartUploadResult/>")

    def do_it_head(self, request: Request, body: bytes) -> None:
        found = self.bucket.objects.get(request.key)
        if found is None:
            self.reply(404)
        else:
            self.reply(200, b"", {"ETag": '"e"'}, len(found.data))

    def do_it_get(self, request: Request, body: bytes) -> None:
        bucket = self.bucket
        if "uploads" in request.query:
            rows = "".join(
                f"<Upload><Key>{quote(bucket.upload_keys[each])}</Key><UploadId>{each}</UploadId>"
                f"<Initiated>{strftime('%Y-%m-%dT%H:%M:%S.000Z', gmtime())}</Initiated></Upload>"
                for each in bucket.uploads
                if bucket.upload_keys[each].startswith(request.query["prefix"])
            )
            self.reply(200, f"<ListMultipartUploadsResult>{rows}</ListMultipartUploadsResult>".encode())
            return
        if not request.key:
            self.listing(request)
            return
        found = bucket.objects.get(request.key)
        if found is None:
            self.fail(404, "NoSuchKey", "no such key")
            return
        headers = {"ETag": f'"{xxh3_128(found.data).hexdigest()}"', "Last-Modified": formatdate(found.modified)}
        headers.update({f"x-amz-meta-{name}": value for name, value in found.metadata.items()})
        if "if-match" in request.headers and request.headers["if-match"] != headers["ETag"]:
            self.fail(412, "PreconditionFailed", "it changed")
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if span:
            start = int(span[1])
            if start >= len(found.data):
                self.fail(416, "InvalidRange", "beyond the end")
                return
            self.reply(206, found.data[start : int(span[2]) + 1 if span[2] else None], headers)
        else:
            self.reply(200, found.data, headers)

    def listing(self, request: Request) -> None:
        bucket, query = self.bucket, request.query
        after = query.get("continuation-token") or query.get("start-after") or ""
        with bucket._lock:
            keys = sorted(key for key in bucket.objects if key.startswith(query["prefix"]) and key > after)
        delimiter = query.get("delimiter")
        prefixes: list[str] = []
        if delimiter:
            start = len(query["prefix"])
            prefixes = sorted({key[: key.index(delimiter, start) + 1] for key in keys if delimiter in key[start:]})
            keys = [key for key in keys if delimiter not in key[start:]]
        page, more = keys[: bucket.page], len(keys) > bucket.page
        rows = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>"
            f"{strftime('%Y-%m-%dT%H:%M:%S.000Z', gmtime(bucket.objects[key].modified))}"
            f"</LastModified><Size>{len(bucket.objects[key].data)}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        common = "".join(f"<CommonPrefixes><Prefix>{quote(each)}</Prefix></CommonPrefixes>" for each in prefixes)
        if query.get("continuation-token"):
            common = ""  # told on the first page
        told = f"<EncodingType>url</EncodingType><IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        self.reply(200, f"<ListBucketResult>{told}{rows}{common}{token}</ListBucketResult>".encode())

    def do_it_delete(self, request: Request, body: bytes) -> None:
        if "uploadId" in request.query:
            self.bucket.uploads.pop(request.query["uploadId"], None)
        else:
            self.bucket.objects.pop(request.key, None)
        self.reply(204)


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]  # names have line ends of other kinds


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = Path(at) / name
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found
