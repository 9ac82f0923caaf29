"""How many small requests a second dl-s3d answers: python tests/bench/s3d_speed.py [objects] [connections]

The client is sixteen threads with a socket each, so the two share the machine. Client and server CPU are
told beside the rate: on a busy machine they are the figures to compare.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

from xxhash import xxh3_128

from libdeadline import sigv4
from libdeadline.minted import KeyRing

BUCKET = "/bench"


class Client:
    """One connection, and requests signed on it."""

    def __init__(self, host: str, key_id: str, secret: str) -> None:
        self.host, self.key_id, self.secret = host, key_id, secret
        name, _, port = host.partition(":")
        self.socket = socket.create_connection((name, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method: str, path: str, body: bytes = b"", **extra: str) -> tuple[int, bytes]:
        headers = {"host": self.host, "x-amz-content-sha256": sigv4.UNSIGNED}
        headers |= {name.replace("_", "-"): value for name, value in extra.items()}
        sigv4.sign(
            method, path, "", headers, sigv4.UNSIGNED,
            access_key_id=self.key_id, secret=self.secret, token=None, region="us-west-2", service="s3",
        )  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        length = f"content-length: {len(body)}\r\n" if method == "PUT" else ""
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\n{lines}{length}\r\n".encode() + body)
        head, content = b"", b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(65536)
        head, _, content = head.partition(b"\r\n\r\n")
        left = 0
        if method != "HEAD":
            left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0) - len(content)
        while left > 0:
            piece = self.socket.recv(1 << 20)
            content += piece
            left -= len(piece)
        return int(head[9:12]), content


def contents(count: int) -> Iterator[bytes]:
    """Bodies of 4 to 64 KB."""
    rng = random.Random(1)
    pool = rng.randbytes(1 << 20)
    for _ in range(count):
        start = rng.randrange(len(pool) - 65536)
        yield pool[start : start + rng.randrange(4096, 65536)]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 16
    command = Path(sys.executable).parent / "dl-s3d"
    with tempfile.TemporaryDirectory() as folder:
        words = [command, "--dir", folder, "--listen", "127.0.0.1:0"]
        server = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert server.stdout
        host = json.loads(server.stdout.readline())["data"]["url"].removeprefix("http://")
        key = next(iter(KeyRing.load(Path(folder) / "keys").keys().values()))
        Client(host, key.access_key_id, key.secret).ask("PUT", BUCKET)
        bodies = list(contents(count))
        for method in ("PUT", "HEAD", "GET"):
            before, cpu, began = os.times(), server_cpu_s(server.pid), time.monotonic()
            run(host, key.access_key_id, key.secret, method, bodies, connections)
            wall, after = time.monotonic() - began, os.times()
            own = after.user + after.system - before.user - before.system
            theirs = server_cpu_s(server.pid) - cpu
            print(
                f"{method:5}{count / wall:7.0f} a second   server {theirs / count * 1e6:5.0f} us CPU each"
                f"   client {own / count * 1e6:5.0f}"
            )
        server.terminate()
        server.wait()


def run(host: str, key_id: str, secret: str, method: str, bodies: list[bytes], connections: int) -> None:
    left = iter(bodies)
    lock = threading.Lock()
    wrong: list[int] = []

    def work() -> None:
        client = Client(host, key_id, secret)
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                return
            digest = xxh3_128(body)
            path = f"{BUCKET}/Root/Data/{digest.hexdigest()}.xxh128"
            if method == "PUT":
                status, _ = client.ask("PUT", path, body, x_amz_checksum_xxhash128=b64encode(digest.digest()).decode())
            else:
                status, content = client.ask(method, path)
                if method == "GET" and content != body:
                    status = 0
            if status != 200:
                wrong.append(status)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise SystemExit(f"{len(wrong)} answers were not 200: {set(wrong)}")


def server_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
