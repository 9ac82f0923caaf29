"""S3 servers on the loopback interface to measure clients with: our own, rclone's, nginx as a fast one, and a delay."""

from __future__ import annotations

import heapq
import json
import os
import selectors
import shutil
import socket
import subprocess
import time
from pathlib import Path
from threading import Thread

KEY, SECRET, REGION, BUCKET = "AKIABENCHBENCHBENCH0", "bench", "us-west-2", "bench"


class Server:
    """A server process; `url` is where it is, `environment` what a client needs beyond that."""

    def __init__(self, words: list[str], url: str, environment: dict[str, str] | None = None) -> None:
        self.url, self.environment = url, environment or {}
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        host, port = url.split("//")[1].split(":")
        while True:
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{words[0]} does not start") from None
                time.sleep(0.05)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def s3d(folder: Path, program: str) -> Server:
    """dl-s3d: verifies signatures and checksums."""
    keys = folder / "keys"
    keys.mkdir(parents=True)
    (keys / "master").write_bytes(os.urandom(32))
    (keys / "access.json").write_text(json.dumps({KEY: {"secret": SECRET, "principal": "admin"}}))
    for each in keys.iterdir():
        each.chmod(0o600)
    port = free_port()
    server = Server([program, f"--dir={folder}", f"--listen=127.0.0.1:{port}"], f"http://127.0.0.1:{port}")
    from libdeadline.aws import Credentials
    from libdeadline.s3 import S3

    S3(server.url, REGION, lambda: Credentials(KEY, SECRET), BUCKET)._request("store", "PUT", None)
    return server


def rclone(folder: Path, program: str) -> Server:
    """rclone's S3 server: verifies signatures, and an MD5 of every body."""
    (folder / BUCKET).mkdir(parents=True)
    port = free_port()
    options = [f"--auth-key={KEY},{SECRET}", f"--addr=127.0.0.1:{port}", "--vfs-cache-mode=off", "--no-checksum"]
    return Server([program, "serve", "s3", *options, str(folder)], f"http://127.0.0.1:{port}")


def nginx(folder: Path, program: str, *, tls: bool) -> Server:
    """nginx with WebDAV's PUT: verifies nothing, lists nothing, and is hardly felt."""
    (folder / "data" / BUCKET).mkdir(parents=True)
    port = free_port()
    listen, environment = f"127.0.0.1:{port}", {}
    scheme, lines = "http", ""
    if tls:
        scheme, listen = "https", listen + " ssl"
        lines = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_session_cache off;"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=127.0.0.1"]
            + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"],
            check=True,
            capture_output=True,
        )
        environment["AWS_CA_BUNDLE"] = f"{folder}/cert.pem"
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log /dev/null; worker_processes 1; user root;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; sendfile on; keepalive_requests 1000000; client_max_body_size 0;\n"
        f"client_body_temp_path {folder}/tmp; client_body_buffer_size 128k;\n"
        f"server {{ listen {listen}; {lines} root {folder}/data;\n"
        "location / { dav_methods PUT DELETE; create_full_put_path on; } } }\n"
    )
    words = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return Server(words, f"{scheme}://127.0.0.1:{port}", environment)


class Delay:
    """Passes connections on to a server, each way half a round trip later."""

    def __init__(self, server: Server, round_trip_s: float) -> None:
        self.environment = server.environment
        self._half = round_trip_s / 2
        host, port = server.url.split("//")[1].split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._due: list[tuple[float, int, socket.socket, bytes]] = []
        self._closing = False
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._closing:
            wait = 0.2 if not self._due else max(0.0, self._due[0][0] - time.monotonic())
            for key, _ in self._selector.select(min(wait, 0.2)):
                number += 1
                if key.fileobj is self._listener:
                    self._pair(self._listener.accept()[0])
                    continue
                source, other = key.fileobj, key.data
                try:
                    block = source.recv(1 << 18)
                except OSError:
                    block = b""
                if not block:
                    self._selector.unregister(source)
                heapq.heappush(self._due, (time.monotonic() + self._half, number, other, block))
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, target, block = heapq.heappop(self._due)
                try:
                    if block:
                        target.sendall(block)
                    elif target in self._selector.get_map():
                        target.shutdown(socket.SHUT_WR)
                    else:
                        target.close()
                except OSError:
                    pass
        self._selector.close()
        self._listener.close()

    def _pair(self, client: socket.socket) -> None:
        server = socket.create_connection(self._target)
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)


def installed(name: str) -> str | None:
    """A program of the system, also where PATH leaves out what administrators use."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
