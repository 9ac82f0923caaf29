"""HTTP over plain blocking sockets that stay open, for bytes by the gigabyte: one connection for each thread.

Files go out by sendfile where the kernel and the server allow it, and answers come in through one buffer.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
from base64 import b64encode
from collections.abc import Callable
from mmap import mmap
from threading import Event, Lock
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from . import statuses
from .errors import Trouble

BUFFER_BYTES = 1 << 17  # for each connection: answers, and files read for sending
SEND_BYTES = 1 << 22  # most that one sendfile call moves, so that a stop is soon noticed
CONNECT_S = 10.0
SHORTEST_STALL_S = 0.1  # to the kernel, 0 would mean for ever
TRICKLE_BYTES = 1024  # a body that brings less within the time of a stall is as good as silent
ANSWER_BYTES = 1 << 24  # most of an answer that is no object: a page of a listing with the longest keys takes 5 MB
LINE_BYTES = 1 << 16  # most of a line between chunks
TRAILERS = 100  # most lines behind the last chunk

_MSG_MORE = getattr(socket, "MSG_MORE", 0)
_HAS_SENDFILE = hasattr(os, "sendfile") and bool(_MSG_MORE)
_HAS_PREADV = hasattr(os, "preadv")
_SEEKING = Lock()  # where the system can't read from an offset
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,15}\Z")


class Changed(Exception):
    """What was read, or what arrived, is not what its checksum says; nothing was stored."""


class Local(Exception):
    """A local file failed, not the connection."""

    def __init__(self, error: OSError) -> None:
        self.error = error


class Broken(Exception):
    """The connection ended, or what came over it is no HTTP."""


class Response:
    """An answer: status and headers; its body is still in the connection until read."""

    __slots__ = ("_lower", "body", "chunked", "cut", "head", "keep", "length", "status")

    def __init__(self, head: bytes, method: str) -> None:
        """Raises: ValueError where the head is not HTTP's, or tells of two lengths."""
        self.head = head
        self._lower = lower = head.lower()
        self.status = int(head[9:12])
        self.keep = b"\r\nconnection: close" not in lower and head.startswith(b"HTTP/1.1")
        self.chunked = self.cut = False
        self.body = b""
        match = _LENGTH.search(lower)
        told = lower.count(b"\r\ncontent-length:")
        if told != (match is not None) and (match is None or len(set(_lengths(lower))) != 1):
            raise ValueError("its length is none")
        if method == "HEAD" or self.status in (204, 304):
            self.length: int | None = 0
        elif b"\r\ntransfer-encoding:" in lower:
            self.chunked, self.length = True, None
        else:
            self.length = int(match[1]) if match else None

    def header(self, name: str) -> str | None:
        """The value of a header; `name` in lower case."""
        start = self._lower.find(b"\r\n" + name.encode() + b":")
        if start < 0:
            return None
        start += len(name) + 3
        return self.head[start : self.head.find(b"\r\n", start)].strip().decode("utf-8", "replace")

    def metadata(self) -> dict[str, str]:
        """The object's user metadata."""
        pairs = {}
        for line in self.head.decode("utf-8", "replace").split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower().startswith("x-amz-meta-"):
                pairs[name[11:].lower()] = value.strip()
        return pairs


def _lengths(head: bytes) -> list[bytes]:
    return [line.partition(b":")[2].strip() for line in head.split(b"\r\n") if line.startswith(b"content-length:")]


class Connection:
    """One socket to the endpoint, or to a proxy, and the buffer that answers arrive in."""

    def __init__(self, dialer: Dialer, limit: Limit | None) -> None:
        self.dialer, self.limit = dialer, limit
        self.buffer = mmap(-1, BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.socket: Any = None
        self.plain = False  # no TLS: the kernel may send files by itself
        self.used = 0
        self.start = self.end = 0
        self.answered = False
        self.since, self.came = 0.0, 0  # of the body that is being received: how much came since when

    def open(self) -> None:
        self.socket, self.plain = self.dialer.open()
        self.used = 0

    def close(self) -> None:
        if self.socket is not None:
            self.dialer.forget(self.socket)
            try:
                self.socket.close()
            except OSError:
                pass
            self.socket = None

    def endure(self, silence_s: float | None = None) -> None:
        """Give up after that much silence from now on, or as usual again."""
        limit_s = self.dialer.stall_s if silence_s is None else min(silence_s, self.dialer.stall_s)
        _limit_silence(self.socket, limit_s, self.plain)

    def send(self, head: bytes, body: bytes | memoryview) -> None:
        if self.limit is not None and body:
            self.socket.sendall(head, _MSG_MORE if self.plain else 0)
            view = memoryview(body)
            while view:
                self.limit.take(min(len(view), BUFFER_BYTES))
                self.socket.sendall(view[:BUFFER_BYTES])
                view = view[BUFFER_BYTES:]
            return
        if not body or not self.plain:
            self.socket.sendall(b"".join((head, body)) if body else head)
            return
        sent = self.socket.sendmsg((head, body))
        if sent < len(head):
            self.socket.sendall(head[sent:])
            sent = len(head)
        if sent < len(head) + len(body):
            self.socket.sendall(memoryview(body)[sent - len(head) :])

    def send_file(self, head: bytes, part: Part) -> None:
        """Send `head` and then the part of the file.

        The content is hashed as it is read for sending and its last block withheld until the hash is right, so a
        server that checks nothing can't store anything wrong either. A server that does check gets it by sendfile.
        Raises: Changed; the connection must then be closed.
        """
        limit = self.limit
        if part.trusted and self.plain and _HAS_SENDFILE:
            self.socket.sendall(head, _MSG_MORE)
            offset, left, target = part.offset, part.length, self.socket.fileno()
            while left:
                step = min(left, SEND_BYTES if limit is None else BUFFER_BYTES)
                if limit is not None:
                    limit.take(step)
                sent = os.sendfile(target, part.descriptor, offset, step)
                if not sent:
                    raise Changed
                offset += sent
                left -= sent
            return
        from xxhash import xxh3_128

        digest = xxh3_128()
        offset, left, view = part.offset, part.length, self.view
        if not left and part.hash is not None and digest.hexdigest() != part.hash:
            raise Changed
        if self.plain and left:
            self.socket.sendall(head, _MSG_MORE)
        else:
            self.socket.sendall(head)
        while left:
            try:
                got = read_at(part.descriptor, view[: min(left, BUFFER_BYTES)], offset)
            except OSError as error:
                raise Local(error) from None
            if not got:
                raise Changed
            digest.update(view[:got])
            left -= got
            if not left and part.hash is not None and digest.hexdigest() != part.hash:
                raise Changed
            if limit is not None:
                limit.take(got)
            self.socket.sendall(view[:got])
            offset += got

    def receive(self, method: str, *, behind: bool = False) -> Response:
        """The head of the next answer; `behind`: it may have come together with the last one.

        Raises: Broken, OSError.
        """
        buffer, view, receive = self.buffer, self.view, self.socket.recv_into
        have = 0
        if behind:
            have = self.end - self.start
            buffer[:have] = bytes(view[self.start : self.end])
        until = 0.0
        while True:
            end = buffer.find(b"\r\n\r\n", 0, have)
            if end < 0:
                if have == BUFFER_BYTES:
                    raise Broken("its answer has no end")
                got = receive(view[have:])
                if not got:
                    raise Broken("it closed the connection")
                self.answered = True
                have += got
                if not until:
                    until = monotonic() + self.dialer.stall_s
                elif monotonic() > until:
                    raise Broken("the head of its answer does not come to an end")
                continue
            head = bytes(view[: end + 2])
            if not head.startswith(b"HTTP/1."):
                raise Broken("its answer is no HTTP")
            if head[9:10] == b"1":  # 100 Continue and its kind
                rest = bytes(view[end + 4 : have])
                have = len(rest)
                buffer[:have] = rest
                continue
            self.start, self.end = end + 4, have
            try:
                return Response(head, method)
            except ValueError:
                raise Broken("its answer is no HTTP") from None

    def stream(self, response: Response, sink: Callable[[memoryview], Any]) -> None:
        """Hand the body to `sink`, block by block. Raises: Broken where it is cut short; what came was handed over."""
        view, receive, limit = self.view, self.socket.recv_into, self.limit
        if response.chunked:
            self._stream_chunks(sink)
            return
        left = response.length
        have = self.end - self.start
        if left is not None and have > left:
            raise Broken("it sent more than it announced")
        if have:
            sink(view[self.start : self.end])
        self.start = self.end
        if left is None:
            response.keep = False
            self.since, self.came = monotonic(), 0
            while got := receive(view):
                sink(view[:got])
                self._watch(got)
            return
        left -= have
        whole = socket.MSG_WAITALL if self.plain else 0
        self.since, self.came = monotonic(), 0
        while left:
            if limit is not None:
                limit.take(min(left, BUFFER_BYTES))
            step = left if left < BUFFER_BYTES else BUFFER_BYTES
            got = receive(view, step, whole)
            if not got:
                raise Broken(f"it closed the connection {left} bytes early")
            sink(view[:got])
            left -= got
            if left:
                self._watch(got)

    def whole(self, response: Response) -> bytes:
        """The body, of an answer that is no object. Raises: Broken where it is cut short, or has no end."""
        body = bytearray()

        def take(block: memoryview) -> None:
            if len(body) + len(block) > ANSWER_BYTES:
                raise Broken("its answer has no end")
            body.extend(block)

        self.stream(response, take)
        return bytes(body)

    def _watch(self, got: int) -> None:
        """Take note of bytes that came. Raises: Broken where they come so slowly that it will never end."""
        self.came += got
        now = monotonic()
        if self.came >= TRICKLE_BYTES:
            self.since, self.came = now, 0
        elif now - self.since >= self.dialer.stall_s:
            raise Broken(f"it sent {self.came} bytes within {now - self.since:.1f} s")

    def _stream_chunks(self, sink: Callable[[memoryview], Any]) -> None:
        self.since, self.came = monotonic(), 0
        while True:
            line = self._line().partition(b";")[0].strip()
            if not _CHUNK.match(line):
                raise Broken("its answer is no HTTP")
            size = int(line, 16)
            if not size:
                for _ in range(TRAILERS):
                    if not self._line():
                        return
                raise Broken("its answer has no end")
            while size:
                if self.start == self.end:
                    self._more()
                step = min(size, self.end - self.start)
                sink(self.view[self.start : self.start + step])
                self.start += step
                size -= step
            if self._line():
                raise Broken("its answer is no HTTP")

    def _line(self) -> bytes:
        line = b""
        while True:
            end = self.buffer.find(b"\n", self.start, self.end)
            if end >= 0:
                line += self.view[self.start : end]
                self.start = end + 1
                return line.removesuffix(b"\r")
            line += self.view[self.start : self.end]
            if len(line) > LINE_BYTES:
                raise Broken("its answer is no HTTP")
            self._more()

    def _more(self) -> None:
        self.start, self.end = 0, self.socket.recv_into(self.view)
        if not self.end:
            raise Broken("it closed the connection")
        self._watch(self.end)


class Part(NamedTuple):
    """A stretch of an open file to send; `hash` is what it must hash to; `trusted`: the server checks that."""

    descriptor: int
    offset: int
    length: int
    hash: str | None
    trusted: bool


class Limit:
    """Holds transfers back to a rate, over all threads together. Units: bytes, seconds."""

    def __init__(self, bytes_per_s: int, stopping: Event) -> None:
        self._rate = bytes_per_s
        self._stopping = stopping
        self._lock = Lock()
        self._free_at = monotonic()

    def take(self, amount: int) -> None:
        """Wait until `amount` bytes may go."""
        with self._lock:
            now = monotonic()
            start = max(self._free_at, now - 0.1)
            self._free_at = start + amount / self._rate
        if start > now:
            self._stopping.wait(start - now)


class Dialer:
    """Opens connections to one place, directly or through a proxy, and can shut all that are open."""

    def __init__(self, stopping: Event, stall_s: float, ca_bundle: str | None) -> None:
        """`stall_s`: silence after which reading and writing fail."""
        self.stopping, self._ca_bundle = stopping, ca_bundle
        self.stall_s = max(stall_s, SHORTEST_STALL_S)
        self.tls, self.host, self.port = False, "", 0
        self.proxy: tuple[str, int, str] | None = None
        self._context: Any = None
        self._sockets: dict[Any, None] = {}
        self._lock = Lock()

    def aim(self, tls: bool, host: str, port: int, proxy: tuple[str, int, str] | None) -> None:
        """Set where the next connections lead; `proxy` as `proxy_for` gives it."""
        self.tls, self.host, self.port, self.proxy = tls, host, port, proxy

    def shut(self) -> None:
        """Make all that is being read or written fail at once."""
        for each in list(self._sockets):
            try:
                socket.socket.shutdown(each, socket.SHUT_RDWR)
            except OSError:
                pass

    def open(self) -> tuple[Any, bool]:
        """A connection, and whether it is plain: without TLS. Raises: OSError; Trouble, for wrong settings."""
        host, port = (self.proxy[0], self.proxy[1]) if self.proxy else (self.host, self.port)
        raw = socket.create_connection((host, port), timeout=min(CONNECT_S, self.stall_s))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _limit_silence(raw, self.stall_s, not self.tls)
        if self.tls:
            if self.proxy:
                self._tunnel(raw)
            if self._context is None:
                self._context = _tls_context(self._ca_bundle)
            raw = self._context.wrap_socket(raw, server_hostname=self.host)
        with self._lock:
            self._sockets[raw] = None
        if self.stopping.is_set():
            raw.close()
            raise OSError("stopped")
        return raw, not self.tls

    def _tunnel(self, raw: socket.socket) -> None:
        assert self.proxy is not None
        name = f"[{self.host}]" if ":" in self.host else self.host
        raw.sendall(f"CONNECT {name}:{self.port} HTTP/1.1\r\nhost: {name}:{self.port}\r\n{self.proxy[2]}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            block = raw.recv(4096)
            if not block or len(answer) > 1 << 16:
                raise OSError("the proxy closed the connection")
            answer += block
        if answer[9:12] != b"200":
            said = answer.split(b"\r\n")[0].decode("utf-8", "replace")
            raise OSError(f"the proxy refused: {said}")

    def forget(self, used: Any) -> None:
        """Take note that a connection is closed."""
        with self._lock:
            self._sockets.pop(used, None)


def _limit_silence(used: socket.socket, limit_s: float, is_plain: bool) -> None:
    if not is_plain or sys.platform == "win32":
        used.settimeout(limit_s)
        return
    # The kernel keeps the time, which spares a poll before each read and write.
    used.settimeout(None)
    limit = struct.pack("ll", int(limit_s), int(limit_s % 1 * 1e6))
    used.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    used.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def page_buffer(size: int) -> memoryview:
    """Memory that begins on a page: the kernel copies into it twice as fast as into what lies anywhere."""
    return memoryview(mmap(-1, size))


def read_at(descriptor: int, view: memoryview, offset: int) -> int:
    """Read from an offset of an open file into `view`: how many bytes, 0 at its end. Threads may share the file."""
    if _HAS_PREADV:
        return os.preadv(descriptor, [view], offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(view))
    view[: len(data)] = data
    return len(data)


def read_first(descriptor: int, length: int) -> bytes:
    """The first `length` bytes of an open file, or fewer where it is shorter."""
    if _HAS_PREADV:
        return os.pread(descriptor, length, 0)
    data = bytearray(length)
    return bytes(data[: read_at(descriptor, memoryview(data), 0)])


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name."""
    return host in ("localhost", "::1") or host.startswith("127.")


def proxy_for(scheme: str, host: str, of_settings: str | None) -> tuple[str, int, str] | None:
    """(host, port, authorization header line) of the proxy for `host`, of the settings or the environment, if any.

    Shape: the settings' proxy is for https; both give way to NO_PROXY, and none is asked for our own loopback.
    """
    if is_loopback(host):
        return None
    found = of_settings if scheme == "https" else None
    if not found and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    proxies = getproxies_environment()
    found = found or proxies.get(scheme) or proxies.get("all")
    if not found or proxy_bypass_environment(host):
        return None
    parts = urlsplit(found if "://" in found else f"http://{found}")
    if not parts.hostname:
        raise Trouble(f"the proxy address '{found}' is not valid", statuses.CONFIGURATION)
    line = ""
    if parts.username:
        from urllib.parse import unquote

        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        line = f"proxy-authorization: Basic {b64encode(pair.encode()).decode()}\r\n"
    return parts.hostname, parts.port or 80, line


def _tls_context(ca_bundle: str | None) -> Any:
    import ssl

    bundle = ca_bundle or os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    try:
        context = ssl.create_default_context(cafile=bundle) if bundle else ssl.create_default_context()
    except OSError as error:
        raise Trouble(f"cannot read the certificates in '{bundle}': {error}", statuses.CONFIGURATION) from None
    if not bundle and not context.cert_store_stats()["x509_ca"]:
        try:
            from botocore.httpsession import where  # its bundle is what boto3 would trust

            context.load_verify_locations(where())
        except (ImportError, OSError):
            pass
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
