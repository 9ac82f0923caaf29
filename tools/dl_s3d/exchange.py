"""One request on its way: its body taken in, its response held back until what it tells is durable."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from .auth import Caller
from .conditions import check_write
from .documents import fault, parsed
from .faults import Fault
from .intake import AwsChunks, Chunks, Intake
from .serving import COMMIT, Connection, Gone
from .store import Object, Store
from .wire import Request, Response

DOCUMENT_BYTES = 4 << 20  # longest XML request
DRAIN_BYTES = 1 << 30  # of a refused body is read, so that its sender gets to the answer

Answer = Generator[Any, Any, Response]


class Exchange:
    """One request and the making of its response.

    `account` and `region` are the farm's; `complain` is told of what goes wrong here.
    """

    __slots__ = ("store", "account", "region", "complain", "connection", "request", "caller", "left", "decoder")

    def __init__(
        self,
        store: Store,
        account: str,
        region: str,
        complain: Callable[[str], None],
        connection: Connection,
        request: Request,
    ) -> None:
        self.store, self.account, self.region, self.complain = store, account, region, complain
        self.connection, self.request = connection, request
        self.caller: Caller
        self.left = 0  # bytes of the body not read yet; -1: chunked
        self.decoder: Chunks | None = None

    def answered(self, operation: Callable[[Exchange], Answer]) -> Answer:
        """The response, once all that it tells is durable."""
        request = self.request
        try:
            self.left = request.body_length
            response = yield from operation(self)
        except Fault as error:
            response = fault(error, request.path, request.id)
        except (Gone, GeneratorExit):
            raise
        except Exception as error:  # whatever it is, it concerns this request, and the others go on
            self.complain(f"{request.method} {request.path}: {type(error).__name__}: {error}")
            broken = Fault("InternalError", "We encountered an internal error; dl-s3d's log tells which.")
            response = fault(broken, request.path, request.id)
        if self.left and "100-continue" in request.headers.get("expect", "").lower():
            response.close = True  # nobody can tell whether a body follows
        elif self.left:
            yield from self.drained()
            response.close = response.close or self.left != 0
        if self.store.changed:
            # Even an answer that changed nothing may tell of a change that is not durable yet.
            try:
                yield COMMIT
            except Fault as error:
                response.release()
                response = fault(error, request.path, request.id)
        return response

    # -- what most operations need

    def need_bucket(self) -> None:
        if not self.store.has_bucket(self.request.bucket):
            raise Fault("NoSuchBucket", "The specified bucket does not exist.", BucketName=self.request.bucket)

    def need_length(self) -> None:
        headers = self.request.headers
        if "content-length" not in headers and "transfer-encoding" not in headers:
            raise Fault("MissingContentLength", "You must provide the Content-Length HTTP header.")

    def object(self) -> Object:
        """The object that the request names.

        Raises: Fault where there is none.
        """
        row = self.store.whole_object(self.request.bucket, self.request.key)
        if row is None:
            raise Fault("NoSuchKey", "The specified key does not exist.", Key=self.request.key.decode())
        return row

    def check_write(self) -> None:
        """Let a write pass if the conditions in its headers hold now."""
        headers = self.request.headers
        if "if-none-match" in headers or "if-match" in headers:
            check_write(headers, self.store.whole_object(self.request.bucket, self.request.key))

    # -- the body

    def body(self, sink: Callable[[memoryview], None]) -> Generator[Any, Any, dict[str, str]]:
        """Feed the whole content of the body to `sink`; returns the trailing headers.

        Raises: Fault, with what was not read left to be drained; Gone.
        """
        request, connection = self.request, self.connection
        if "100-continue" in request.headers.get("expect", "").lower() and not connection.buffer:
            yield from connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.request.headers.pop("expect", None)  # the body follows for sure now
        streamed = request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
        inner: Chunks | None = None
        count = [0]

        def counted(piece: memoryview) -> None:
            count[0] += len(piece)
            sink(piece)

        if streamed or "aws-chunked" in request.headers.get("content-encoding", "").lower():
            inner = AwsChunks(counted, request, self.caller)
            sink_of_framing: Callable[[memoryview], Any] = inner.feed
        else:
            sink_of_framing = counted
        yield from self._unframed(sink_of_framing)
        trailers = dict(self.decoder.trailers) if self.decoder else {}
        if inner is not None:
            if not inner.done:
                raise Fault("IncompleteBody", "The request body ended before its last chunk.")
            announced = request.headers.get("x-amz-decoded-content-length", str(count[0]))
            if announced != str(count[0]):
                raise Fault("IncompleteBody", "The request body is not as long as x-amz-decoded-content-length says.")
            trailers |= inner.trailers
        return trailers

    def _unframed(self, sink: Callable[[memoryview], Any]) -> Generator[Any, Any, None]:
        connection = self.connection
        if self.left < 0:
            if self.decoder is None:
                self.decoder = Chunks(sink)
            self.decoder.sink = sink
            while not self.decoder.done:
                data = yield from connection.received()
                rest = self.decoder.feed(data)
                if rest:
                    connection.buffer = bytes(rest)
            self.left = 0
            return
        while self.left:
            data = yield from connection.received()
            if len(data) > self.left:
                connection.buffer = bytes(data[self.left :])
                data = data[: self.left]
            self.left -= len(data)
            sink(data)

    def drained(self) -> Generator[Any, Any, None]:
        """Read what is left of the body and forget it, up to a limit."""
        seen = [0]

        def count(piece: memoryview) -> None:
            seen[0] += len(piece)
            if seen[0] > DRAIN_BYTES:
                raise Fault("EntityTooLarge", "too long to be read for nothing")

        try:
            yield from self._unframed(count)
        except Fault:
            self.left = self.left or -1

    def document(self, root: str) -> Generator[Any, Any, Any]:
        """The XML in the body."""
        body = bytearray()

        def add(piece: memoryview) -> None:
            nonlocal body
            body += piece
            if len(body) > DOCUMENT_BYTES:
                raise Fault("MalformedXML", "The XML you provided is too long.")

        checks = Intake(self.request, self.store, opaque=True)
        trailers = yield from self.body(add)
        for update in (digest.update for digest in checks.digests.values()):
            update(memoryview(body))
        checks.finish(trailers)
        return parsed(bytes(body), root)
