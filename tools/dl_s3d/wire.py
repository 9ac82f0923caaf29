"""Requests and responses of HTTP/1.1, as bytes and as objects.

Source: RFC 9112; Amazon S3 API reference for addressing by path and the common headers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from os import urandom
from time import gmtime, strftime, time
from urllib.parse import unquote_to_bytes

from .faults import Fault

HEAD_BYTES = 1 << 16  # longest request line with headers
KEY_BYTES = 1024  # longest key
WHOLE_BYTES = 1 << 16  # content up to this is read at once and leaves with its head
HELD_FILES = 256  # most that one response keeps open; later ones are opened in their turn
PHRASES = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    304: "Not Modified",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}

_RUN = urandom(5).hex().upper()
_NUMBERS = count(1)


@dataclass(slots=True)
class Request:
    """A request as received: `path` and `raw_query` still encoded, header names in lower case.

    Shape: `query` maps decoded names to decoded values, the first of each; `bucket` is "" for the service itself,
    `key` is b"" for the bucket itself.
    """

    method: str
    path: str
    raw_query: str
    headers: dict[str, str]
    keep_alive: bool
    bucket: str = ""
    key: bytes = b""
    query: dict[str, str] = field(default_factory=dict)
    id: str = ""

    @property
    def body_length(self) -> int:
        """Bytes that follow the head; -1 where they come chunked.

        Raises: Fault where Content-Length is no number.
        """
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return -1
        length = self.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise Fault("InvalidArgument", "Content-Length is not a whole number.")
        return int(length)


@dataclass(slots=True)
class Slice:
    """`length` bytes of a file from `offset` on."""

    path: str
    offset: int
    length: int


@dataclass(slots=True)
class Response:
    """What to answer: `body` is in memory, or `slices` of files follow, of `length` bytes in all.

    A response to HEAD says the length of what GET would give and sends nothing. Files are opened when the response is
    made: an object that is overwritten meanwhile is still sent as it was.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    slices: list[Slice] = field(default_factory=list)
    length: int | None = None
    close: bool = False
    descriptors: list[int] = field(default_factory=list)

    def hold(self) -> None:
        """Open the files of `slices`, or read what is short into `body`.

        Raises: OSError.
        """
        if len(self.slices) == 1 and self.slices[0].length <= WHOLE_BYTES:
            (part,) = self.slices
            descriptor = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.body, self.slices = os.pread(descriptor, part.length, part.offset), []
            finally:
                os.close(descriptor)
            return
        for part in self.slices[:HELD_FILES]:
            self.descriptors.append(os.open(part.path, os.O_RDONLY | os.O_CLOEXEC))

    def release(self) -> None:
        """Close what `hold` opened."""
        while self.descriptors:
            os.close(self.descriptors.pop())


def parse(head: bytes) -> Request:
    """The request of a head, without its empty line.

    Raises: Fault where it is no HTTP/1.x request; nothing more can be read from such a connection.
    """
    line, *lines = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith(("/", "http://")):
        raise Fault("InvalidRequest", "The request line is malformed.")
    method, target, version = words
    if not target.startswith("/"):
        target = "/" + target.split("/", 3)[3] if target.count("/") > 2 else "/"
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name[-1] in " \t":
            raise Fault("InvalidRequest", "A header is malformed.")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    if "content-length" in headers and "transfer-encoding" in headers:
        raise Fault("InvalidRequest", "Content-Length and Transfer-Encoding exclude each other.")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (version != "HTTP/1.0" or "keep-alive" in connection)
    path, _, raw_query = target.partition("?")
    return Request(method, path, raw_query, headers, keep_alive, id=f"{_RUN}{next(_NUMBERS):08X}")


def address(request: Request) -> None:
    """Fill in `bucket`, `key` and `query`.

    Raises: Fault where the key is too long or no UTF-8.
    """
    host = request.headers.get("host", "").partition(":")[0]
    bucket, _, key = request.path[1:].partition("/")
    if host.endswith(".localhost"):  # addressed by host name
        bucket, key = host.removesuffix(".localhost"), request.path[1:]
    request.bucket = unquote_to_bytes(bucket).decode("utf-8", "replace")
    request.key = unquote_to_bytes(key)
    if len(request.key) > KEY_BYTES:
        raise Fault("KeyTooLongError", "Your key is too long.", MaxSizeAllowed=str(KEY_BYTES))
    try:
        request.key.decode()
        for part in request.raw_query.split("&") if request.raw_query else ():
            name, _, value = part.partition("=")
            request.query.setdefault(_decoded(name), _decoded(value))
    except UnicodeDecodeError:
        raise Fault("InvalidURI", "Couldn't parse the specified URI: it is not UTF-8.") from None


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode() if "%" in text or "+" in text else text


@lru_cache(maxsize=1024)
def http_date(seconds: int) -> str:
    """RFC 9110 date of seconds since the epoch."""
    return strftime("%a, %d %b %Y %H:%M:%S GMT", gmtime(seconds))


def head_of(response: Response, request_id: str) -> bytes:
    """The status line and headers of a response, with the empty line."""
    status = response.status
    lines = [
        f"HTTP/1.1 {status} {PHRASES.get(status, 'Unknown')}",
        f"x-amz-request-id: {request_id}",
        f"Date: {http_date(int(time()))}",
        "Server: dl-s3d",
    ]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if status != 204 and status != 304:
        length = len(response.body) if response.length is None else response.length
        lines.append(f"Content-Length: {length}")
    if response.close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
