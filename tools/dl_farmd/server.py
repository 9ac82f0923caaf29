"""HTTP/1.1 with a small parser of its own, and the group commit: requests that came together share one fsync."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import sys
from hashlib import sha256
from time import perf_counter, time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from libdeadline import statuses
from libdeadline.errors import Trouble

from . import auth, store
from .errors import Internal, ServiceError, Throttling, Unauthenticated, Validation
from .farm import Farm
from .operations import OPERATIONS, Call, Hold
from .protocol import Model, Operation, error_body

if TYPE_CHECKING:
    from pathlib import Path

    from libdeadline import command

MAX_HEAD = 64 * 1024  # bytes
MAX_BODY = 8 * 1024 * 1024  # bytes
GROUP_S = 0.02  # a group commits when it has run for this long
DRAIN_S = 5.0  # a request that has begun to arrive when we are told to stop may take this long
TOKEN_LIFE_MS = 24 * 3600 * 1000  # how long an answer is kept for its client token
PREFIX = "/2023-10-12/"

# Full, read-only or unreadable disks, locks, memory: what may be over soon, or once someone made room.
PASSING = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_INTERRUPT,
}  # fmt: skip

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

REASONS = {
    100: "Continue", 200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 402: "Payment Required",
    403: "Forbidden", 404: "Not Found", 409: "Conflict", 411: "Length Required", 413: "Content Too Large",
    429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    501: "Not Implemented", 505: "HTTP Version Not Supported",
}  # fmt: skip


class Request:
    """One request as received: `path` and `query` still encoded, header names in lower case."""

    __slots__ = ("connection", "method", "path", "query", "headers", "body", "id", "held")

    def __init__(
        self, connection: Connection, method: str, path: str, query: str, headers: dict[str, str], body: bytes
    ) -> None:
        self.connection = connection
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.id = str(uuid4())
        self.held = False


class Answer:
    """What goes back."""

    __slots__ = ("status", "headers", "body")

    def __init__(self, status: int, body: bytes, headers: str = "content-type: application/json\r\n") -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Connection(asyncio.Protocol):
    """One client's connection. It answers in order: while a request is open, what follows waits in the buffer."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = bytearray()
        self.busy = False
        self.keep = True
        self.continued = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.busy:
            self.read()
        elif len(self.buffer) > MAX_BODY + MAX_HEAD and self.transport:
            self.transport.pause_reading()

    def read(self) -> None:
        """Take one request from the buffer, if it is whole."""
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            if len(self.buffer) > MAX_HEAD:
                self.refuse(431, "The request's headers are too long.")
            return
        try:
            lines = self.buffer[:head_end].decode().split("\r\n")
            method, target, version = lines[0].split(" ")
            headers: dict[str, str] = {}
            for line in lines[1:]:
                name, colon, text = line.partition(":")
                if not colon or not name or name[-1] == " ":
                    raise ValueError("malformed header")
                name = name.lower()
                text = text.strip()
                headers[name] = f"{headers[name]},{text}" if name in headers else text
            length = int(headers.get("content-length", "0"))
            if length < 0 or target[:1] != "/":
                raise ValueError("malformed request")
        except ValueError:
            self.refuse(400, "The request is no valid HTTP.")
            return
        if version not in ("HTTP/1.1", "HTTP/1.0"):
            self.refuse(505, "Only HTTP/1.1 is spoken here.")
            return
        if "transfer-encoding" in headers:
            self.refuse(411, "The request needs a Content-Length.")
            return
        if length > MAX_BODY:
            self.refuse(413, "The request is too large.")
            return
        start = head_end + 4
        if len(self.buffer) < start + length:
            if headers.get("expect", "").lower() == "100-continue" and not self.continued and self.transport:
                self.continued = True
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body = bytes(self.buffer[start : start + length])
        del self.buffer[: start + length]
        wish = headers.get("connection", "").lower()
        self.keep = wish != "close" and (version == "HTTP/1.1" or wish == "keep-alive") and method != "HEAD"
        self.busy, self.continued = True, False
        path, _, query = target.partition("?")
        self.server.take(Request(self, method, path, query, headers, body))

    def answer(self, request_id: str, answer: Answer) -> None:
        """Send the answer of the open request, and go on with the next one."""
        transport = self.transport
        self.busy = False
        if transport is None:
            return
        closing = not self.keep or self.server.stopping
        length = "" if answer.status == 204 else f"content-length: {len(answer.body)}\r\n"
        head = (
            f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}\r\n"
            f"x-amzn-requestid: {request_id}\r\n{answer.headers}{length}"
            f"{'connection: close' + chr(13) + chr(10) if closing else ''}\r\n"
        )
        transport.write(head.encode() + answer.body)
        if closing:
            transport.close()
        elif self.buffer:
            transport.resume_reading()
            self.read()

    def refuse(self, status: int, message: str) -> None:
        """Answer what is no request, and hang up."""
        self.keep = False
        self.buffer.clear()
        body = orjson.dumps({"message": message, "reason": "CANNOT_PARSE"})
        self.answer(
            str(uuid4()),
            Answer(status, body, "content-type: application/json\r\nx-amzn-errortype: ValidationException\r\n"),
        )


class Server:
    """Takes requests, runs them in groups, answers them."""

    def __init__(self, farm: Farm, run: command.Run) -> None:
        self.farm = farm
        self.run = run
        self.model = Model("deadline")
        self.connections: set[Connection] = set()
        self.pending: list[Request] = []
        self.stopping = False
        self.lost = False
        self.strict = os.environ.get("DL_FARM_CHECK") == "1"
        self.access_log = run.level == "debug"

    def take(self, request: Request) -> None:
        """Put a request into the group that runs next."""
        if not self.pending:
            self.farm.loop.call_soon(self.run_group)
        self.pending.append(request)

    def run_group(self) -> None:
        """Run the waiting requests in one transaction, commit, answer."""
        group, self.pending = self.pending, []
        answers: list[tuple[Request, Answer, bool]] = []
        limit = perf_counter() + GROUP_S
        db = self.farm.db
        for index, request in enumerate(group):
            if request.held and request.connection.transport is None:
                continue  # who waited has gone: give its work to others
            outcome = self.run_one(request)
            if self.lost:
                # SQLite undid the whole transaction by itself (disk full, I/O error): nothing of the group was kept.
                self.lost = False
                answers = self.taken_back(answers)
            if outcome is not None:
                answers.append((request, *outcome))
            if perf_counter() > limit and index + 1 < len(group):
                self.pending = group[index + 1 :] + self.pending
                self.farm.loop.call_soon(self.run_group)
                break
        if db.in_transaction:
            try:
                db.execute("COMMIT")
                self.farm.committed()
            except sqlite3.Error as error:
                self.farm.undo()
                self.run.warn(f"cannot commit: {error}")
                answers = self.taken_back(answers)
        for request, answer, _ in answers:
            request.connection.answer(request.id, answer)

    def taken_back(self, answers: list[tuple[Request, Answer, bool]]) -> list[tuple[Request, Answer, bool]]:
        """`answers` where those that rest on a transaction that was undone ask to try again."""
        sorry = self.error(Throttling("The farm's database is not available at the moment."))
        return [(request, sorry if rests else answer, False) for request, answer, rests in answers]

    def run_one(self, request: Request) -> tuple[Answer, bool] | None:
        """(the answer, whether it rests on the open transaction) of a request; None where it is answered later."""
        headers = request.headers
        try:
            principal, region, service = auth.authenticate(
                self.farm.ring, self.farm.account, request.method, request.path, request.query, headers, request.body
            )
            if service == "logs" or "x-amz-target" in headers:
                return self.farm.logs.take(request, principal)
            if service == "sts":
                from . import sts

                return sts.answer(request, principal, self.farm.account), False
            operation, labels = self.model.route(request.method, request.path)
            answer, rests = self.run_operation(operation, labels, request, principal, region), True
        except Hold as hold:
            self.hold(request, hold)
            return None
        except ServiceError as error:
            if headers.get("x-amz-target") or (isinstance(error, Unauthenticated) and request.path == "/"):
                from . import logs, sts

                about = logs if "x-amz-target" in headers else sts
                answer, rests = about.error(error, request.id), False
            else:
                answer, rests = self.error(error), False
        except Exception as error:  # a fault outside of an operation must not leave the group unanswered
            answer, rests = self.error(self.fault(f"{request.method} {request.path}", error)), False
        if self.access_log:
            self.run.debug(f"{request.method} {request.path} {answer.status}")
        return answer, rests

    def hold(self, request: Request, hold: Hold) -> None:
        """Run a request again when it is woken, or its time is over."""
        if self.stopping:
            request.connection.answer(request.id, self.error(Throttling()))
            return
        request.held = True
        self.farm.hold(hold.key, hold.seconds, lambda: self.take(request))

    def run_operation(
        self, operation: Operation, labels: list[str], request: Request, principal: auth.Principal, region: str
    ) -> Answer:
        """The answer of one operation, run in a savepoint."""
        farm = self.farm
        db = farm.db
        function = OPERATIONS.get(operation.name)
        try:
            params = operation.parse(labels, request.query, request.headers, request.body)
        except RecursionError:
            raise Validation("The request is nested too deeply.", reason="CANNOT_PARSE") from None
        auth.authorize(principal, operation.name, params, db)
        if function is None:
            raise Validation(f"This farm does not know {operation.name}.", reason="UNKNOWN_OPERATION")
        call = Call(operation, params, db, principal, farm, farm.now_ms(), region, request.id, request.held)
        if not db.in_transaction:
            db.execute("BEGIN")
        if operation.mutates:
            db.execute("SAVEPOINT request")
        mark = farm.mark()
        try:
            token = params.get(operation.token) if operation.token else None
            body = self.once(call, function, token) if token else operation.answer(function(call) or {})
            if self.strict:
                self.hold_to_shape(operation, body)
        except BaseException as error:
            if not db.in_transaction:
                farm.undo()
                self.lost = True
            elif operation.mutates:
                db.execute("ROLLBACK TO request")
                db.execute("RELEASE request")
                farm.forget(mark)
            if isinstance(error, ServiceError):
                raise
            if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in PASSING:
                self.run.warn(f"{operation.name}: {error}")
                raise Throttling("The farm's database is not available at the moment.") from None
            if isinstance(error, Exception):
                raise self.fault(operation.name, error) from None
            raise
        if operation.mutates:
            db.execute("RELEASE request")
        if operation.status == 204:
            return Answer(204, b"", "")
        return Answer(operation.status, body)

    def fault(self, what: str, error: Exception) -> Internal:
        """Tell of a fault of ours; the error to answer."""
        import traceback

        self.run.warn(f"{what} failed: {type(error).__name__}: {error}")
        sys.stderr.write("".join(traceback.format_exception(error)))
        return Internal("An internal error occurred; dl-farmd has logged it.")

    def once(self, call: Call, function: Any, token: str) -> bytes:
        """The answer's body of a call with a client token: a repetition gets the first one's.

        Raises: Validation where the token came with another request before.
        """
        operation = call.operation
        plain = {name: value for name, value in call.params.items() if name != operation.token}
        digest = sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).digest()
        row = store.one(
            call.db,
            "SELECT digest, answer FROM client_tokens WHERE principal = ? AND operation = ? AND token = ?",
            call.actor, operation.name, token,
        )  # fmt: skip
        if row is not None:
            if row["digest"] != digest:
                raise Validation(
                    "The client token was used before with other parameters.",
                    {operation.token or "": "Client token was used with other parameters"},
                )
            return bytes(row["answer"])
        body = operation.answer(function(call) or {})
        store.insert(
            call.db, "client_tokens", principal=call.actor, operation=operation.name, token=token, digest=digest,
            answer=body, created_at=call.now,
        )  # fmt: skip
        return body

    def hold_to_shape(self, operation: Operation, body: bytes) -> None:
        """Refuse a response that breaks its output shape: for tests (DL_FARM_CHECK=1)."""
        faults = operation.faults_of(body)
        if faults:
            raise AssertionError(f"the response of {operation.name} breaks its shape: {faults} in {body[:2000]!r}")

    @staticmethod
    def error(error: ServiceError) -> Answer:
        """The answer of an error."""
        retry = f"retry-after: {error.retry_after_s}\r\n" if error.retry_after_s is not None else ""
        return Answer(
            error.http_status,
            error_body(error),
            f"content-type: application/json\r\nx-amzn-errortype: {error.code}\r\n{retry}",
        )


def forget_tokens(db: sqlite3.Connection) -> None:
    """Drop the client tokens whose time is over."""
    db.execute("DELETE FROM client_tokens WHERE created_at < ?", (Farm.now_ms() - TOKEN_LIFE_MS,))


def serve(folder: str, address: str | None, run: command.Run) -> int:
    """Serve the farm in `folder` until SIGTERM or SIGINT; returns the exit status."""
    from pathlib import Path

    path = Path(folder).expanduser().absolute()
    sock = listening_socket(address)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = only_one(path)
    _raise_file_limit()
    # The background thread must not hold a request up for the default 5 ms at each switch.
    sys.setswitchinterval(0.001)
    try:
        asyncio.run(_serve(path, sock, bool(address), run))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise Trouble(f"cannot write in '{path}': {error.strerror}: make room there", statuses.IO) from None
    finally:
        os.close(lock)
    return statuses.OK


async def _serve(path: Path, sock: Any, own_socket: bool, run: command.Run) -> None:
    import signal

    from .logs import Logs

    tell = _teller(run)
    farm = Farm(path, tell)
    farm.logs = Logs(path / "logs.sqlite", farm)
    server = Server(farm, run)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    farm.start(loop)
    farm.every(600, forget_tokens)
    listener = await loop.create_server(lambda: Connection(server), sock=sock, backlog=1024)
    host, port = sock.getsockname()[:2]
    if own_socket:
        _write_port(path, port)
    tell(f"serving '{path}' on {host}:{port}")
    await stopped.wait()
    server.stopping = farm.stopping = True
    listener.close()
    farm.wake_all()
    limit = time() + DRAIN_S
    while time() < limit and any(each.busy or each.buffer for each in server.connections):
        await asyncio.sleep(0.01)
    for each in list(server.connections):
        if each.transport:
            each.transport.close()
    await asyncio.sleep(0)
    farm.close()
    farm.logs.close()
    tell("stopped")


def _teller(run: command.Run) -> Any:
    # Starts, stops and serious events are told at every log level: a supervisor's log must show them.
    def tell(message: str) -> None:
        run._tell(message, "")

    return tell


def listening_socket(address: str | None) -> Any:
    """The socket to accept from: bound to `address`, or standard input.

    Raises: Trouble.
    """
    import socket
    import stat

    if address is None:
        if not stat.S_ISSOCK(os.fstat(0).st_mode):
            raise Trouble("standard input is no socket: give --listen, or run under supervisord", statuses.USAGE)
        sock = socket.socket(fileno=os.dup(0))
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen(1024)
        sock.setblocking(False)
        return sock
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise Trouble(f"--listen takes an address such as 127.0.0.1:8650, not '{address}'", statuses.USAGE)
    host = host.strip("[]")
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise Trouble(f"dl-farmd listens on loopback only, not on '{host}'", statuses.NOT_ALLOWED)
    sock = socket.socket(socket.AF_INET6 if host == "::1" else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, int(port)))
    except OSError as error:
        raise Trouble(f"cannot listen on '{address}': {error.strerror}", statuses.UNAVAILABLE) from None
    sock.listen(1024)
    sock.setblocking(False)
    return sock


def only_one(folder: Path) -> int:
    """The descriptor that holds the folder's lock for as long as it is open.

    Raises: Trouble (75) where another dl-farmd serves it.
    """
    import fcntl

    descriptor = os.open(folder / "farmd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Trouble(f"another dl-farmd serves '{folder}': stop it first", statuses.TRY_AGAIN) from None
    return descriptor


def _write_port(folder: Path, port: int) -> None:
    run_folder = folder / "run"
    run_folder.mkdir(exist_ok=True)
    temporary = run_folder / ".farmd.port"
    temporary.write_text(f"{port}\n")
    temporary.replace(run_folder / "farmd.port")


def _raise_file_limit() -> None:
    # Each worker keeps a connection open, and the usual soft limit is 1024.
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        pass
