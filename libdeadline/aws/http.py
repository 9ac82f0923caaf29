"""HTTP/1.1 over kept-alive sockets: what service calls need, without the 50 ms that http.client takes to import.

Bodies are whole in memory: API calls are small. Bulk data has its own way (`libdeadline.s3`).
Source: RFC 9112; RFC 9110.
"""

from __future__ import annotations

import os
import socket
from select import select
from threading import Lock
from urllib.parse import SplitResult, unquote, urlsplit

from .. import statuses
from ..errors import Trouble

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING:
    from collections.abc import Mapping
    from ssl import SSLContext
    from typing import Any

TIMEOUT_S = 60.0
IDLE_CONNECTIONS = 10  # kept open for each endpoint
HEAD_BYTES = 1 << 18  # longest head of an answer
LOOPBACK = ("localhost", "::1")


class ConnectionTrouble(Exception):
    """No answer: refused, cut, timed out or not verified. `passing` says whether trying again makes sense."""

    def __init__(self, reason: str, *, passing: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.passing = reason, passing


class Answer:
    """Status, headers (lower-case names) and body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class Transport:
    """How connections are made: which proxy, which certificates, how long to wait."""

    def __init__(self, *, proxy: str = "", ca_bundle: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """`proxy` and `ca_bundle` are the person's settings; empty ones leave it to the environment."""
        self.proxy, self.ca_bundle, self.timeout_s = proxy, ca_bundle, timeout_s
        self._pools: dict[tuple[str, str, int], Pool] = {}
        self._lock = Lock()
        self._context: SSLContext | None = None

    def pool(self, scheme: str, host: str, port: int) -> Pool:
        with self._lock:
            key = (scheme, host, port)
            if key not in self._pools:
                self._pools[key] = Pool(self, scheme, host, port)
            return self._pools[key]

    def send(self, url: str, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Ask the server of `url` (whose path is not looked at) for `target`, a path with its query.

        Raises: ConnectionTrouble; the request may then have reached the server, or not.
        """
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return self.pool(parts.scheme, parts.hostname or "", port).send(method, target, headers, body)

    def proxy_for(self, scheme: str, host: str, port: int) -> SplitResult | None:
        """The proxy to reach a host through. A proxy can't reach our own loopback, so none is asked to."""
        if host in LOOPBACK or host.startswith("127."):
            return None
        chosen = self.proxy
        if not chosen:
            name = f"{scheme}_proxy"
            chosen = os.environ.get(name) or os.environ.get(name.upper()) or ""
            if scheme == "http" and "REQUEST_METHOD" in os.environ:
                chosen = os.environ.get(name) or ""  # in a CGI program HTTP_PROXY is a request header
            if not chosen or _bypassed(host, port):
                return None
        parts = urlsplit(chosen if "://" in chosen else f"http://{chosen}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Trouble(f"the proxy '{parts.hostname or parts.scheme}' is no http URL", statuses.CONFIGURATION)
        return parts

    def context(self) -> SSLContext:
        with self._lock:
            if self._context is None:
                self._context = self._new_context()
            return self._context

    def _new_context(self) -> SSLContext:
        import ssl

        bundle = (
            os.path.expanduser(self.ca_bundle)
            or os.environ.get("AWS_CA_BUNDLE")
            or os.environ.get("REQUESTS_CA_BUNDLE")
        )
        if not bundle:
            paths = ssl.get_default_verify_paths()
            if not (paths.cafile or (paths.capath and os.listdir(paths.capath))):
                from .model import botocore_folder

                bundle = os.path.join(botocore_folder(), "cacert.pem")  # a bare container has none of its own
        try:
            folder = bool(bundle) and os.path.isdir(bundle or "")
            return ssl.create_default_context(
                cafile=None if folder else bundle or None, capath=bundle if folder else None
            )
        except (OSError, ssl.SSLError) as error:
            raise Trouble(
                f"cannot use the certificates in '{bundle}': {error.strerror or error}: correct settings.ca_bundle "
                "or AWS_CA_BUNDLE",
                statuses.CONFIGURATION,
                path=bundle,
            ) from None


class Pool:
    """Open connections to one server; any number of threads may send."""

    def __init__(self, transport: Transport, scheme: str, host: str, port: int) -> None:
        self.transport, self.scheme, self.host, self.port = transport, scheme, host, port
        self._idle: list[Connection] = []
        self._lock = Lock()
        self._proxy = transport.proxy_for(scheme, host, port)

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = self._taken()
        try:
            if self._proxy and self.scheme == "http":
                target = f"http://{_authority(self.host, self.port)}{target}"
                headers = {**headers, **_proxy_headers(self._proxy)}
            answer, reusable = connection.exchange(method, target, headers, body)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise ConnectionTrouble(_reason(error)) from None
            raise
        with self._lock:
            if reusable and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return answer
        connection.close()
        return answer

    def _taken(self) -> Connection:
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection = self._idle.pop()
            if connection.is_open():
                return connection
            connection.close()
        return Connection(self._connected())

    def _connected(self) -> socket.socket:
        host, port, proxy = self.host, self.port, self._proxy
        if proxy:
            host, port = proxy.hostname or "", proxy.port or (443 if proxy.scheme == "https" else 80)
        try:
            # A name in text would be looked at by the IDNA codec, which takes its time to load.
            name: Any = host.encode() if host.isascii() else host
            sock = socket.create_connection((name, port), self.transport.timeout_s)
        except UnicodeError:
            raise ConnectionTrouble(f"'{host}' is no host name", passing=False) from None
        except OSError as error:
            raise ConnectionTrouble(_reason(error)) from None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if proxy and proxy.scheme == "https":
                sock = self._encrypted(sock, host)
            if self.scheme == "https":
                if proxy:
                    _tunnel(sock, _authority(self.host, self.port, always=True), proxy)
                sock = self._encrypted(sock, self.host)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise ConnectionTrouble(_reason(error)) from None
            raise
        return sock

    def _encrypted(self, sock: socket.socket, host: str) -> socket.socket:
        import ssl

        try:
            return self.transport.context().wrap_socket(sock, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise ConnectionTrouble(
                f"the certificate of '{host}' is not trusted ({error.verify_message}): set settings.ca_bundle or "
                "AWS_CA_BUNDLE if a proxy or a server of your own issued it",
                passing=False,
            ) from None


class Connection:
    """One socket, and what was read from it too early."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.read_ahead = b""

    def is_open(self) -> bool:
        """Whether it can take a request: the server has neither closed it nor said anything unasked."""
        try:
            return not self.read_ahead and not select([self.sock], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        self.sock.close()

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[Answer, bool]:
        """The answer, and whether the connection can be used again.

        Raises: OSError, ConnectionTrouble.
        """
        lines = [f"{method} {target} HTTP/1.1"]
        for name, value in headers.items():
            if "\r" in value or "\n" in value:
                raise Trouble(f"header '{name}' can't hold a line end", statuses.DATA)
            lines.append(f"{name}: {value}")
        if body or method not in ("GET", "HEAD", "DELETE"):
            lines.append(f"content-length: {len(body)}")
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("utf-8") + body)
        status, found, version = self._head()
        while 100 <= status < 200:
            status, found, version = self._head()
        data, delimited = self._body(method, status, found)
        token = found.get("connection", "").lower()
        reusable = delimited and "close" not in token and (version != "HTTP/1.0" or "keep-alive" in token)
        return Answer(status, found, data), reusable

    def _head(self) -> tuple[int, dict[str, str], str]:
        data = self.read_ahead
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > HEAD_BYTES:
                raise ConnectionTrouble("the head of the answer is too long", passing=False)
            data += self._more()
        self.read_ahead = data[end + 4 :]
        first, *lines = data[:end].decode("iso-8859-1").split("\r\n")
        version, _, rest = first.partition(" ")
        try:
            status = int(rest[:3])
        except ValueError:
            status = 0
        if not version.startswith("HTTP/1.") or not status:
            raise ConnectionTrouble("the answer is not HTTP/1.1", passing=False)
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        return status, headers, version

    def _body(self, method: str, status: int, headers: dict[str, str]) -> tuple[bytes, bool]:
        if method == "HEAD" or status in (204, 304):
            return b"", True
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks(), True
        if "content-length" in headers:
            size = headers["content-length"].split(",")[0]
            if not (size.isascii() and size.isdigit()):
                raise ConnectionTrouble("the answer's content-length is no number", passing=False)
            return self._exactly(int(size)), True
        parts = [self.read_ahead]
        self.read_ahead = b""
        while block := self.sock.recv(1 << 16):
            parts.append(block)
        return b"".join(parts), False

    def _chunks(self) -> bytes:
        parts = []
        while True:
            digits = self._line().split(b";")[0].strip()
            if not digits or digits.strip(b"0123456789abcdefABCDEF"):
                raise ConnectionTrouble("the answer is badly chunked")
            size = int(digits, 16)
            if not size:
                break
            parts.append(self._exactly(size))
            self._line()
        while self._line():
            pass  # trailers
        return b"".join(parts)

    def _line(self) -> bytes:
        while (end := self.read_ahead.find(b"\r\n")) < 0:
            self.read_ahead += self._more()
        line, self.read_ahead = self.read_ahead[:end], self.read_ahead[end + 2 :]
        return line

    def _exactly(self, size: int) -> bytes:
        parts, have = [self.read_ahead], len(self.read_ahead)
        while have < size:
            block = self._more()
            parts.append(block)
            have += len(block)
        data = b"".join(parts)
        self.read_ahead = data[size:]
        return data[:size]

    def _more(self) -> bytes:
        block = self.sock.recv(1 << 16)
        if not block:
            raise ConnectionTrouble("the server closed the connection")
        return block


def _tunnel(sock: socket.socket, authority: str, proxy: SplitResult) -> None:
    lines = [f"CONNECT {authority} HTTP/1.1", f"host: {authority}"]
    lines += [f"{name}: {value}" for name, value in _proxy_headers(proxy).items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    connection = Connection(sock)
    status, _, _ = connection._head()
    if status == 407:
        raise ConnectionTrouble(f"the proxy '{proxy.hostname}' wants other credentials in its URL", passing=False)
    if not 200 <= status < 300:
        raise ConnectionTrouble(f"the proxy '{proxy.hostname}' answered {status}", passing=status >= 500)


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    from base64 import b64encode

    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _authority(host: str, port: int, *, always: bool = False) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port == 80 and not always else f"{shown}:{port}"


def _bypassed(host: str, port: int) -> bool:
    """Whether NO_PROXY names the host, as curl and urllib read it."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if listed.strip() == "*":
        return True
    for entry in listed.lower().split(","):
        name = entry.strip().lstrip(".")
        if name and any(each == name or each.endswith(f".{name}") for each in (host.lower(), f"{host.lower()}:{port}")):
            return True
    return False


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    return (error.strerror or str(error) or type(error).__name__).lower()
