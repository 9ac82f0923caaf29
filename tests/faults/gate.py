"""A way to an HTTP server that counts what passes, and does something at an exact moment of it."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

BLOCK = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)


class Asked(NamedTuple):
    """What a request asked for."""

    method: str
    path: str
    query: str

    @property
    def part(self) -> str:
        """The part of an upload that it sends, or ''."""
        found = re.search(r"partNumber=(\d+)", self.query)
        return found[1] if found else ""


class Gate:
    """Passes requests on to a server. Units: bytes of bodies, and of whole answers.

    `sent` and `received` tell how many bytes went either way, by what was asked for; `answered`, how often the server
    said 200 to it, whether or not that reached the client.
    """

    def __init__(self, url: str) -> None:
        self._target = (str(urlsplit(url).hostname), int(urlsplit(url).port or 80))
        self._lock = threading.Lock()
        self._deed: Callable[[], None] | None = None
        self._at: dict[str, int] = {}
        self.passed: Counter[str] = Counter()  # requests, answers, up, down since `arm`
        self.sent: Counter[Asked] = Counter()
        self.received: Counter[Asked] = Counter()
        self.answered: Counter[Asked] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def arm(self, what: str, count: int, deed: Callable[[], None]) -> None:
        """Do something when so many requests or answers, or bytes up or down, have come, before the last one passes."""
        with self._lock:
            self.passed.clear()
            self._at, self._deed = {what: count}, deed

    def disarm(self) -> None:
        """Do nothing any more."""
        with self._lock:
            self._deed = None

    def forget(self) -> None:
        """Count anew, and do nothing."""
        with self._lock:
            self._deed = None
            for each in (self.passed, self.sent, self.received, self.answered):
                each.clear()

    def _note(self, what: str, count: int) -> None:
        with self._lock:
            self.passed[what] += count
            if self._deed is None or self.passed[what] < self._at.get(what, 1 << 62):
                return
            deed, self._deed = self._deed, None
        deed()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)  # what is counted is on its way, not here
            asked: list[Asked] = []
            for work in (self._up, self._down):
                threading.Thread(target=self._run, args=(work, near, far, asked), daemon=True).start()

    @staticmethod
    def _run(
        work: Callable[[socket.socket, socket.socket, list[Asked]], None],
        near: socket.socket,
        far: socket.socket,
        asked: list[Asked],
    ) -> None:
        try:
            work(near, far, asked)
        except OSError:
            pass
        for each in (near, far):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _up(self, near: socket.socket, far: socket.socket, asked: list[Asked]) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                block = near.recv(BLOCK)
                if not block:
                    return
                data += block
            head, _, data = data.partition(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            path, _, query = target.partition("?")
            now = Asked(method, unquote(path), query)
            asked[:] = [now]
            self._note("requests", 1)
            far.sendall(head + b"\r\n\r\n")
            found = _LENGTH.search(head)
            left = int(found[1]) if found else 0
            while left:
                block, data = (data[:left], data[left:]) if data else (near.recv(min(left, BLOCK)), b"")
                if not block:
                    return
                left -= len(block)
                with self._lock:
                    self.sent[now] += len(block)
                self._note("up", len(block))
                far.sendall(block)

    def _down(self, near: socket.socket, far: socket.socket, asked: list[Asked]) -> None:
        last: Asked | None = None
        while block := far.recv(BLOCK):
            now = asked[0]
            if now is not last:
                last = now
                if block.startswith(b"HTTP/1.1 2"):
                    with self._lock:
                        self.answered[now] += 1
                self._note("answers", 1)
            with self._lock:
                self.received[now] += len(block)
            self._note("down", len(block))
            near.sendall(block)
