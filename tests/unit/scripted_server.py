"""A server that answers what a test tells it to, byte for byte, for tests of clients."""

import json
import socket
import ssl
import threading
from contextlib import closing

from libdeadline import sigv4

KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBwKzVpUAW1rOM8fR
U0mzd9axbStWhGVG8VnXF+Xi5fKhRANCAASYdRAcVUnyvphAXfZdttLsqeQt71bo
7zPawbsD6NYUFr+quUiK//NpsghH9HK9ZkGp8hgSh8Y5uoAITjwCKZwY
-----END PRIVATE KEY-----
"""
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBijCCATGgAwIBAgIBATAKBggqhkjOPQQDAjAXMRUwEwYDVQQDDAxzZXJ2aWNl
LnRlc3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBcxFTATBgNV
BAMMDHNlcnZpY2UudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJh1EBxV
SfK+mEBd9l220uyp5C3vVujvM9rBuwPo1hQWv6q5SIr/82myCEf0cr1mQanyGBKH
xjm6gAhOPAIpnBijbDBqMCgGA1UdEQQhMB+CDHNlcnZpY2UudGVzdIIJbG9jYWxo
b3N0hwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgKEMB0GA1Ud
DgQWBBRca8vUF6DKs1Rcuft2F8vT11nYtDAKBggqhkjOPQQDAgNHADBEAiAMn8vU
PUSP+7o7qQFar+U/kxxLi+yTz3GefymPGoqoMgIgfSxGi+uGjbsYdlN+4XNRNUt4
BmUMku36olWCm8RCEt0=
-----END CERTIFICATE-----
"""
HANG = b"hang"


def answer(status=200, fields=None, **headers):
    body = json.dumps(fields if fields is not None else {}).encode()
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def refusal(status, code, message="no", **fields):
    headers = {name: fields.pop(name) for name in list(fields) if name in ("retry_after", "date")}
    return answer(status, {"message": message, **fields}, x_amzn_errortype=code, **headers)


FARMS = answer(fields={"farms": [{"farmId": "farm-1", "createdAt": "2025-01-01T00:00:00.5Z"}]})


class Asked:
    def __init__(self, connection, head, body):
        first, *lines = head.decode().split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.path, _, self.query = self.target.partition("?")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.connection, self.body = connection, body

    @property
    def region(self):
        return sigv4.parse_authorization(self.headers["authorization"])[2]


class Server:
    """A server that answers what a test tells it to: a list of raw answers in turn, or a function of the request.

    None closes the connection instead, HANG leaves it without an answer; the last answer is repeated.
    """

    def __init__(self, answers, tls_files=None):
        self.answers, self.asked = answers, []
        self.context, self.closed = None, False
        if tls_files:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*tls_files)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"{'https' if tls_files else 'http'}://127.0.0.1:{self.port}"
        self.connections = 0
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if self.closed:
                sock.close()
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(sock, self.connections), daemon=True).start()

    def serve(self, sock, number):
        try:
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            with closing(sock), sock.makefile("rb") as file:
                while True:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        line = file.readline()
                        if not line:
                            return
                        head += line
                    asked = Asked(number, head[:-4], b"")
                    asked.body = file.read(int(asked.headers.get("content-length", 0)))
                    with self.lock:
                        self.asked.append(asked)
                        if callable(self.answers):
                            reply = self.answers(asked)
                        else:
                            reply = self.answers[min(len(self.asked), len(self.answers)) - 1]
                    if reply is None:
                        return
                    if reply == HANG:
                        file.readline()
                        return
                    if callable(reply):
                        reply(sock, file)
                        return
                    sock.sendall(reply)
                    if b"connection: close" in reply.split(b"\r\n\r\n")[0]:
                        return
        except OSError:
            pass

    def close(self):
        # A thread that still waits on a closed socket would take connections of the next one of its number.
        self.closed = True
        with socket.create_connection(("127.0.0.1", self.port)):
            self.thread.join()
        self.listener.close()
