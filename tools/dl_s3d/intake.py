"""Taking in the body of a request: its framing undone, its checksums compared, its bytes kept or written to a file.

    socket ─▶ length or HTTP chunks ─▶ aws-chunked, if so encoded ─▶ digests ─▶ memory, while short ─▶ file

Each stage is fed whatever arrived and passes on what is content; nothing holds more than a short content.
Source: RFC 9112 section 7.1; Amazon S3 API reference, "Transferring payload in multiple chunks" and "trailing headers".
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest

from libdeadline import sigv4

from .auth import Caller
from .checksums import HASHERS, Hasher
from .faults import Fault
from .store import SHORT_BYTES, Files, Store
from .wire import Request

LINE_BYTES = 8192
TRAILER_BYTES = 16384
OBJECT_BYTES = 5 << 40
CHECKSUM = "x-amz-checksum-"
STREAMING = "STREAMING-"

Sink = Callable[[memoryview], None]


class Intake:
    """The content of one request: fed in pieces, then `finish`ed or `abandon`ed.

    `named` is the XXH3-128 that the key says the content has (the store of job attachments is addressed so).
    `opaque` content needs no MD5 for an entity tag. Of content of up to `short` bytes `content` becomes the bytes,
    of longer `files` the file that holds them.
    """

    def __init__(
        self,
        request: Request,
        store: Store,
        *,
        named: str | None = None,
        opaque: bool = False,
        short: int = SHORT_BYTES,
    ) -> None:
        self.store, self.headers, self.named, self.short = store, request.headers, named, short
        self.size = 0
        self.content: bytes | None = None
        self.files: Files = []
        self._held = bytearray()
        self._descriptor = -1
        self.expected = _expected(request.headers)
        self.algorithms = set(self.expected)
        trailer = request.headers.get("x-amz-trailer", "").lower()
        self.algorithms |= {name for name in HASHERS if CHECKSUM + name in trailer}
        # An entity tag need not be an MD5, and MD5 is the slowest thing here: content with an XXH3-128 does without.
        self.opaque = opaque or named is not None or "xxhash128" in self.algorithms
        needed = set(self.algorithms)
        needed.add("xxhash128" if self.opaque else "md5")
        if "content-md5" in request.headers:
            needed.add("md5")
        self.payload_hash = request.headers.get("x-amz-content-sha256", sigv4.UNSIGNED)
        if self._signs_payload:
            needed.add("sha256")
        self.digests: dict[str, Hasher] = {name: HASHERS[name]() for name in needed}
        self._updates = [digest.update for digest in self.digests.values()]

    @property
    def _signs_payload(self) -> bool:
        return self.payload_hash != sigv4.UNSIGNED and not self.payload_hash.startswith(STREAMING)

    def feed(self, data: memoryview) -> None:
        """Take a piece of content.

        Raises: Fault where the disk refuses it.
        """
        self.size += len(data)
        if self.size > OBJECT_BYTES:
            raise Fault("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")
        for update in self._updates:
            update(data)
        if self.size <= self.short:
            self._held += data
            return
        try:
            if self._descriptor < 0:
                name, self._descriptor = self.store.new_file()
                self.files = [(name, 0)]
                held, self._held = self._held, bytearray()
                self._write(memoryview(held))
            self._write(data)
        except OSError as error:
            raise Fault("InsufficientStorage", f"The object cannot be written: {error.strerror}.") from error

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    def finish(self, trailers: dict[str, str]) -> tuple[str, dict[str, str]]:
        """(entity tag, checksums) of the content, all of which has come.

        Raises: Fault where the content isn't what the headers, the trailers or the key say.
        """
        self._close()
        if self.files:
            self.files = [(self.files[0][0], self.size)]
        elif self._held:
            self.content = bytes(self._held)
        self.expected |= _expected(trailers)
        values = {name: digest.digest() for name, digest in self.digests.items()}
        if self._signs_payload and values["sha256"].hex() != self.payload_hash:
            raise Fault("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header is not the content's.")
        if "content-md5" in self.headers and _unbase64(self.headers["content-md5"], 16) != values["md5"]:
            raise Fault("BadDigest", "The Content-MD5 you specified did not match what we received.")
        if self.named is not None and values["xxhash128"].hex() != self.named:
            raise Fault(
                "BadDigest", "The content's XXH3-128 is not the one that the key names.", Hash=values["xxhash128"].hex()
            )
        checksums = dict(self.expected)
        for name in self.algorithms:
            value = values[name]
            if name in self.expected:
                if value and _unbase64(self.expected[name], len(value)) != value:
                    raise Fault("BadDigest", f"The {name.upper()} you specified did not match the calculated checksum.")
            elif value:
                checksums[name] = b64encode(value).decode()
        # "-1" marks it, as for a multipart upload, as something that no client takes for the content's MD5.
        etag = f"{values['xxhash128'].hex()}-1" if self.opaque else values["md5"].hex()
        return etag, checksums

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._close()
        self.store.discard(self.files)
        self.files = []

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _expected(headers: dict[str, str]) -> dict[str, str]:
    return {name[len(CHECKSUM) :]: value for name, value in headers.items() if name[len(CHECKSUM) :] in HASHERS}


def _unbase64(text: str, length: int) -> bytes:
    try:
        value = b64decode(text, validate=True)
    except ValueError:
        value = b""
    if len(value) != length:
        raise Fault("InvalidDigest", "A checksum you specified is not valid.")
    return value


class Chunks:
    """Undoes HTTP/1.1 chunked transfer coding."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.done = False
        self._left = 0  # bytes of the chunk to come
        self._line = bytearray()
        self._state = self._size_line
        self.trailers: dict[str, str] = {}

    def feed(self, data: memoryview) -> memoryview:
        """Take a piece; what is left of it, after the end, is the next request's."""
        while data and not self.done:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                self._content(piece)
                if not self._left:
                    self._state = self._after_content
            else:
                data = self._read_line(data)
        return data

    def _read_line(self, data: memoryview) -> memoryview:
        # Lines are short and content is long: looking at each line's bytes costs nothing that matters.
        end = bytes(data[:LINE_BYTES]).find(b"\n")
        if end < 0:
            self._line += data
            if len(self._line) > LINE_BYTES:
                raise Fault("IncompleteBody", "A line in the chunked body is too long.")
            return data[len(data) :]
        line = bytes(self._line + data[:end]).removesuffix(b"\r")
        self._line.clear()
        self._state(line)
        return data[end + 1 :]

    def _content(self, piece: memoryview) -> None:
        self.sink(piece)

    def _size_line(self, line: bytes) -> None:
        size, _, extension = line.partition(b";")
        try:
            length = int(size.strip(), 16)
            if length < 0:
                raise ValueError
        except ValueError:
            raise Fault("IncompleteBody", "The chunked body is malformed.") from None
        self._begin(length, extension)
        self._left = length
        if not length:
            self._state = self._trailer_line

    def _begin(self, length: int, extension: bytes) -> None:
        pass

    def _after_content(self, line: bytes) -> None:
        if line:
            raise Fault("IncompleteBody", "The chunked body is malformed.")
        self._state = self._size_line

    def _trailer_line(self, line: bytes) -> None:
        if not line:
            self._end()
            return
        name, _, value = line.decode("latin-1").partition(":")
        self.trailers[name.strip().lower()] = value.strip()
        if sum(len(value) for value in self.trailers.values()) > TRAILER_BYTES:
            raise Fault("IncompleteBody", "The trailing headers are too long.")

    def _end(self) -> None:
        self.done = True


class AwsChunks(Chunks):
    """Undoes aws-chunked, and checks the signature of each chunk and of the trailer where the body is so signed."""

    def __init__(self, sink: Sink, request: Request, caller: Caller) -> None:
        super().__init__(sink)
        kind = request.headers.get("x-amz-content-sha256", "")
        self.is_signed = kind.startswith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        self.has_trailer = kind.endswith("-TRAILER")
        self.caller = caller
        self.signature = ""
        self.previous = caller.signature
        self.hash = sha256()

    def _begin(self, length: int, extension: bytes) -> None:
        self.hash = sha256()
        self.signature = ""
        for part in extension.decode("latin-1").split(";"):
            name, _, value = part.partition("=")
            if name.strip() == "chunk-signature":
                self.signature = value.strip()
        if not length:
            self._check_chunk()

    def _content(self, piece: memoryview) -> None:
        if self.is_signed:
            self.hash.update(piece)
        self.sink(piece)

    def _after_content(self, line: bytes) -> None:
        super()._after_content(line)
        self._check_chunk()

    def _check_chunk(self) -> None:
        if not self.is_signed:
            return
        wanted = self._sign("AWS4-HMAC-SHA256-PAYLOAD", f"{sigv4.EMPTY_SHA256}\n{self.hash.hexdigest()}")
        if not compare_digest(wanted.encode(), self.signature.encode("latin-1")):
            raise Fault("SignatureDoesNotMatch", "The signature of a chunk of the body is wrong.")
        self.previous = wanted

    def _sign(self, algorithm: str, tail: str) -> str:
        caller = self.caller
        day = caller.timestamp[:8]
        scope = f"{day}/{caller.region}/s3/aws4_request"
        to_sign = f"{algorithm}\n{caller.timestamp}\n{scope}\n{self.previous}\n{tail}"
        key = sigv4.signing_key(caller.secret, day, caller.region, "s3")
        return hmac_digest(key, to_sign.encode(), "sha256").hex()

    def _end(self) -> None:
        if self.is_signed and self.has_trailer:
            lines = "".join(
                f"{name}:{value}\n" for name, value in self.trailers.items() if name != "x-amz-trailer-signature"
            )
            wanted = self._sign("AWS4-HMAC-SHA256-TRAILER", sha256(lines.encode("latin-1")).hexdigest())
            if not compare_digest(wanted.encode(), self.trailers.get("x-amz-trailer-signature", "").encode("latin-1")):
                raise Fault("SignatureDoesNotMatch", "The signature of the trailing headers is wrong.")
        self.done = True
