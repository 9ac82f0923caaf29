"""The S3 operations: which one a request asks for, and what it does.

Source: Amazon S3 API reference; spec/service.md section 15.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from email.utils import parsedate_to_datetime
from hashlib import md5
from math import inf
from re import compile as pattern
from secrets import token_urlsafe
from typing import Any
from urllib.parse import unquote_to_bytes

from libdeadline.minted import KeyRing

from . import listing
from .auth import Caller, identify
from .checksums import HASHERS, composite
from .documents import document, element, fault, parsed, time_text
from .faults import Fault
from .intake import CHECKSUM, AwsChunks, Chunks, Intake
from .serving import COMMIT, Connection, Flow, Gone, Work
from .store import Files, Object, Part, Store, Upload, now_ms
from .wire import Request, Response, address, http_date, parse

BUCKET_NAME = pattern(r"(?!xn--|\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
CONTENT_NAMED = pattern(rb"(?:.*/)?Data/([0-9a-f]{32})\.xxh128")
KEPT_HEADERS = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
)
SHOWN_NAMES = {
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "content-type": "Content-Type",
    "expires": "Expires",
}
OVERRIDES = {f"response-{name}": shown for name, shown in SHOWN_NAMES.items()}
DEFAULT_TYPE = "binary/octet-stream"
METADATA = "x-amz-meta-"
METADATA_BYTES = 8192  # S3 takes 2 KB; asset roots in JSON can be longer than that when escaped
PART_BYTES = 5 << 20  # least that a part other than the last holds
MOST_PARTS = 10000
DOCUMENT_BYTES = 4 << 20  # longest XML request
DRAIN_BYTES = 1 << 30  # of a refused body is read, so that its sender gets to the answer
COPY_BYTES = 1 << 20
# Asked for by name in the query; answering the plain operation instead would do something else than was asked.
UNSUPPORTED = frozenset(
    [
        "accelerate",
        "acl",
        "analytics",
        "attributes",
        "cors",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "legal-hold",
        "lifecycle",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "renameObject",
        "replication",
        "requestPayment",
        "restore",
        "retention",
        "select",
        "session",
        "tagging",
        "torrent",
        "versions",
        "website",
    ]
)

Answer = Generator[Any, Any, Response]


class Service:
    """Answers requests from a store, for the principals of a key ring.

    `account` is the farm's: what a client gives as the expected owner of a bucket must equal it.
    `note` is told of each request, `complain` of what goes wrong here.
    """

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        account: str,
        region: str,
        note: Callable[[str], None],
        complain: Callable[[str], None],
    ) -> None:
        self.store, self.ring, self.account, self.region = store, ring, account, region
        self.note, self.complain = note, complain

    # -- a connection

    def converse(self, connection: Connection) -> Flow:
        """Answer the requests of one connection, one after the other."""
        while True:
            connection.busy = False
            try:
                head = yield from connection.head()
                if head is None:
                    return
                connection.busy = True
                request = parse(head)
            except (ValueError, Fault) as error:
                bad = (
                    error
                    if isinstance(error, Fault)
                    else Fault("RequestHeaderSectionTooLarge", "The head is too long.")
                )
                response = fault(bad, "/", "0")
                response.close = True
                yield from connection.respond(None, "0", response)
                return
            exchange = Exchange(self, connection, request)
            response = yield from exchange.answered()
            response.close = response.close or not request.keep_alive or connection.loop.stopping
            yield from connection.respond(request, request.id, response)
            self.note(f"{request.method} {request.path}?{request.raw_query} {response.status}")
            if response.close:
                # Closed with bytes unread, the kernel would send a reset, and the client might lose the response.
                yield from exchange.drained(DRAIN_BYTES)
                return


class Exchange:
    """One request and the making of its response."""

    __slots__ = ("service", "store", "connection", "request", "caller", "left", "is_read", "decoder")

    def __init__(self, service: Service, connection: Connection, request: Request) -> None:
        self.service, self.store, self.connection, self.request = service, service.store, connection, request
        self.caller: Caller
        self.left = 0  # bytes of the body not read yet; -1: chunked
        self.is_read = False
        self.decoder: Chunks | None = None

    def answered(self) -> Answer:
        request = self.request
        try:
            try:
                self.left = request.body_length
                response = yield from self._operation()
            finally:
                self.is_read = self.left == 0
        except Fault as error:
            response = fault(error, request.path, request.id)
        except (Gone, GeneratorExit):
            raise
        except Exception as error:  # whatever it is, it concerns this request, and the others go on
            self.service.complain(f"{request.method} {request.path}: {type(error).__name__}: {error}")
            broken = Fault("InternalError", "We encountered an internal error; dl-s3d's log tells which.")
            response = fault(broken, request.path, request.id)
        if not self.is_read:
            if "100-continue" in request.headers.get("expect", "").lower():
                response.close = True  # nobody can tell whether a body follows
            elif self.left:
                yield from self.drained(DRAIN_BYTES)
                response.close = response.close or self.left != 0
        if self.store.changed:
            # Even an answer that changed nothing may tell of a change that is not durable yet.
            try:
                yield COMMIT
            except Fault as error:
                response = fault(error, request.path, request.id)
        return response

    def _operation(self) -> Answer:
        request = self.request
        address(request)
        self.caller = identify(self.service.ring, request)
        owner = request.headers.get("x-amz-expected-bucket-owner")
        if owner is not None and owner != self.service.account:
            raise Fault("AccessDenied", "Access Denied: the bucket is not the expected owner's.")
        method, query = request.method, request.query
        if not UNSUPPORTED.isdisjoint(query) or query.get("versionId", "null") != "null":
            if method == "GET" and "tagging" in query and request.key:
                self.caller.need(request.bucket, request.key, write=False)
                self._object()
                return document("Tagging", "<TagSet></TagSet>")
            raise Fault("NotImplemented", "This server keeps neither versions nor the settings that you ask for.")
        if not request.bucket:
            if method != "GET":
                raise Fault("MethodNotAllowed", "The specified method is not allowed against this resource.")
            return self._list_buckets()
        if request.key:
            return (yield from self._on_object(method, query))
        return (yield from self._on_bucket(method, query))

    def _on_bucket(self, method: str, query: dict[str, str]) -> Answer:
        bucket, caller = self.request.bucket, self.caller
        if method == "PUT" and not query.keys() - {"x-id"} or method == "PUT" and "X-Amz-Signature" in query:
            return (yield from self._create_bucket())
        self._need_bucket()
        if method == "HEAD":
            caller.need_bucket(bucket)
            return Response(headers={"x-amz-bucket-region": self.service.region}, length=0)
        if method == "GET" and "location" in query:
            caller.need_bucket(bucket)
            return document("LocationConstraint", self.service.region)
        if method == "GET" and "versioning" in query:
            caller.need_bucket(bucket)
            return document("VersioningConfiguration", "")
        if method == "GET" and "uploads" in query:
            caller.need(bucket, query.get("prefix", "").encode(), write=False)
            return listing.list_uploads(self.store, self.request, self.service.account)
        if method == "GET":
            caller.need(bucket, query.get("prefix", "").encode(), write=False)
            return listing.list_objects(self.store, self.request, self.service.account)
        if method == "POST" and "delete" in query:
            return (yield from self._delete_objects())
        if method == "DELETE" and not query.keys() - {"x-id"}:
            caller.need_admin()
            if not self.store.delete_bucket(bucket):
                raise Fault("BucketNotEmpty", "The bucket you tried to delete is not empty.")
            return Response(204)
        raise Fault("MethodNotAllowed", "The specified method is not allowed against this resource.")

    def _on_object(self, method: str, query: dict[str, str]) -> Answer:
        request = self.request
        self.caller.need(request.bucket, request.key, write=method not in ("GET", "HEAD"))
        self._need_bucket()
        if method in ("GET", "HEAD"):
            if "uploadId" in query:
                self._upload()
                return listing.list_parts(self.store, request, self.service.account)
            return self._get()
        if method == "PUT" and "partNumber" in query:
            copied = "x-amz-copy-source" in request.headers
            return (yield from (self._copy_part() if copied else self._put_part()))
        if method == "PUT":
            copied = "x-amz-copy-source" in request.headers
            return (yield from (self._copy() if copied else self._put()))
        if method == "POST" and "uploads" in query:
            return self._create_upload()
        if method == "POST" and "uploadId" in query:
            return (yield from self._complete_upload())
        if method == "DELETE" and "uploadId" in query:
            self.store.drop_upload(self._upload().id)
            return Response(204)
        if method == "DELETE":
            self.caller.need_admin()
            self._check_write_conditions()
            self.store.forget(request.bucket, request.key)
            return Response(204)
        raise Fault("MethodNotAllowed", "The specified method is not allowed against this resource.")

    def _need_bucket(self) -> None:
        if not self.store.has_bucket(self.request.bucket):
            raise Fault("NoSuchBucket", "The specified bucket does not exist.", BucketName=self.request.bucket)

    # -- the body

    def _body(self, sink: Callable[[memoryview], None]) -> Generator[Any, Any, dict[str, str]]:
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

    def drained(self, limit: int) -> Generator[Any, Any, None]:
        """Read what is left of the body and forget it, up to `limit` bytes."""
        seen = [0]

        def count(piece: memoryview) -> None:
            seen[0] += len(piece)
            if seen[0] > limit:
                raise Fault("EntityTooLarge", "too long to be read for nothing")

        try:
            yield from self._unframed(count)
        except Fault:
            self.left = self.left or -1

    def _document(self, root: str) -> Generator[Any, Any, Any]:
        """The XML in the body."""
        body = bytearray()

        def add(piece: memoryview) -> None:
            nonlocal body
            body += piece
            if len(body) > DOCUMENT_BYTES:
                raise Fault("MalformedXML", "The XML you provided is too long.")

        checks = Intake(self.request, self.store, opaque=True)
        trailers = yield from self._body(add)
        for update in (digest.update for digest in checks.digests.values()):
            update(memoryview(body))
        checks.finish(trailers)
        return parsed(bytes(body), root)

    # -- buckets

    def _list_buckets(self) -> Response:
        self.caller.need_admin()
        account = self.service.account
        rows = "".join(
            f"<Bucket>{element('Name', name)}{element('CreationDate', time_text(created))}</Bucket>"
            for name, created in self.store.buckets()
        )
        owner = f"<Owner>{element('ID', account)}{element('DisplayName', account)}</Owner>"
        return document("ListAllMyBucketsResult", f"{owner}<Buckets>{rows}</Buckets>")

    def _create_bucket(self) -> Answer:
        self.caller.need_admin()
        name = self.request.bucket
        if not BUCKET_NAME.fullmatch(name) or ".." in name:
            raise Fault("InvalidBucketName", "The specified bucket is not valid.", BucketName=name)
        if self.left:
            yield from self._document("CreateBucketConfiguration")
        if not self.store.create_bucket(name):
            raise Fault(
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own it.",
                BucketName=name,
            )
        return Response(headers={"Location": f"/{name}"})

    def _delete_objects(self) -> Answer:
        self.caller.need_admin()
        tree = yield from self._document("Delete")
        keys = [each.findtext("Key") or "" for each in tree.findall("Object")]
        if not keys or len(keys) > listing.PAGE or "" in keys:
            raise Fault("MalformedXML", "A Delete document names 1 to 1000 keys.")
        for key in keys:
            self.store.forget(self.request.bucket, key.encode())
        quiet = tree.findtext("Quiet") == "true"
        shown = "" if quiet else "".join(f"<Deleted>{element('Key', key)}</Deleted>" for key in keys)
        return document("DeleteResult", shown)

    # -- objects

    def _object(self) -> Object:
        row = self.store.object(self.request.bucket, self.request.key)
        if row is None or not self.store.is_whole(row):
            raise Fault("NoSuchKey", "The specified key does not exist.", Key=self.request.key.decode())
        return row

    def _get(self) -> Response:
        request, row = self.request, self._object()
        _check_read_conditions(request.headers, row, "")
        headers = {
            "Last-Modified": http_date(row.modified // 1000),
            "ETag": f'"{row.etag}"',
            "Accept-Ranges": "bytes",
            "Content-Type": DEFAULT_TYPE,
        }
        for name, value in row.headers.items():
            headers[SHOWN_NAMES.get(name, name)] = value
        for name, shown in OVERRIDES.items():
            if name in request.query:
                headers[shown] = "".join(each for each in request.query[name] if each >= " ")
        start, length, status = 0, row.size, 200
        if "partNumber" in request.query:
            start, length = _part_range(row, request.query["partNumber"])
            headers["x-amz-mp-parts-count"] = str(max(1, len(row.files)))
            status = 206
        elif "range" in request.headers:
            asked = _asked_range(request.headers["range"], row.size)
            if asked is not None:
                (start, length), status = asked, 206
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{row.size}"
        elif request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            headers |= {f"{CHECKSUM}{name}": value for name, value in row.checksums.items()}
            if row.checksums:
                is_composite = any("-" in value for value in row.checksums.values())
                headers["x-amz-checksum-type"] = "COMPOSITE" if is_composite else "FULL_OBJECT"
        slices = [] if request.method == "HEAD" else self.store.slices(row.files, start, length)
        return Response(status, headers, slices=slices, length=length)

    def _check_write_conditions(self) -> None:
        """If-None-Match and If-Match of a request that writes."""
        headers = self.request.headers
        if "if-none-match" not in headers and "if-match" not in headers:
            return
        row = self.store.object(self.request.bucket, self.request.key)
        if row is not None and not self.store.is_whole(row):
            row = None
        if "if-none-match" in headers:
            if headers["if-none-match"].strip() != "*":
                raise Fault("NotImplemented", "If-None-Match takes '*' with a request that writes.")
            if row is not None:
                raise Fault(
                    "PreconditionFailed",
                    "At least one of the pre-conditions you specified did not hold.",
                    Condition="If-None-Match",
                )
        if "if-match" in headers:
            if row is None:
                raise Fault("NoSuchKey", "The specified key does not exist.", Key=self.request.key.decode())
            if not _is_tag_among(row.etag, headers["if-match"]):
                raise Fault(
                    "PreconditionFailed",
                    "At least one of the pre-conditions you specified did not hold.",
                    Condition="If-Match",
                )

    def _put(self) -> Answer:
        request = self.request
        kept = _kept_headers(request.headers)
        self._need_length()
        self._check_write_conditions()
        named = CONTENT_NAMED.fullmatch(request.key)
        intake = Intake(request, self.store, named=named[1].decode() if named else None)
        try:
            trailers = yield from self._body(intake.feed)
            etag, checksums = intake.finish(trailers)
            self._check_write_conditions()  # again: others may have written while the body came
            self._need_bucket()
            row = Object(request.key, intake.size, etag, now_ms(), kept, checksums, intake.files)
            self.store.put(request.bucket, row)
        except BaseException:
            intake.abandon()
            raise
        return Response(headers={"ETag": f'"{etag}"', **_checksum_headers(checksums)})

    def _need_length(self) -> None:
        headers = self.request.headers
        if "content-length" not in headers and "transfer-encoding" not in headers:
            raise Fault("MissingContentLength", "You must provide the Content-Length HTTP header.")

    def _source(self) -> tuple[str, Object]:
        """(bucket, row) of what is to be copied."""
        text = self.request.headers["x-amz-copy-source"].partition("?")[0].lstrip("/")
        bucket, _, key = unquote_to_bytes(text).partition(b"/")
        try:
            name = bucket.decode()
            key.decode()
        except UnicodeDecodeError:
            raise Fault("InvalidArgument", "Copy Source must mention the source bucket and key.") from None
        if not name or not key:
            raise Fault("InvalidArgument", "Copy Source must mention the source bucket and key.")
        self.caller.need(name, key, write=False)
        if not self.store.has_bucket(name):
            raise Fault("NoSuchBucket", "The specified bucket does not exist.", BucketName=name)
        row = self.store.object(name, key)
        if row is None or not self.store.is_whole(row):
            raise Fault("NoSuchKey", "The specified key does not exist.", Key=key.decode())
        _check_read_conditions(self.request.headers, row, "x-amz-copy-source-")
        return name, row

    def _copy(self) -> Answer:
        request = self.request
        bucket, source = self._source()
        replaces = request.headers.get("x-amz-metadata-directive", "COPY").upper() == "REPLACE"
        if not replaces and (bucket, source.key) == (request.bucket, request.key):
            raise Fault(
                "InvalidRequest",
                "This copy request is illegal because it is trying to copy an object to itself without changing it.",
            )
        self._check_write_conditions()
        named = CONTENT_NAMED.fullmatch(request.key)
        files: Files = yield Work(lambda: self._copied(source.files, named[1].decode() if named else None))
        self._need_bucket()
        headers = _kept_headers(request.headers) if replaces else source.headers
        row = Object(request.key, source.size, source.etag, now_ms(), headers, source.checksums, files)
        self.store.put(request.bucket, row)
        sums = "".join(element(f"Checksum{name.upper()}", value) for name, value in row.checksums.items())
        return document(
            "CopyObjectResult",
            f"<LastModified>{time_text(row.modified)}</LastModified><ETag>&quot;{row.etag}&quot;</ETag>{sums}",
        )

    def _copied(self, files: Files, named: str | None) -> Files:
        """Second names for `files`, which never change; runs in a thread."""
        if named is not None and self._digests(files, {"xxhash128"})["xxhash128"].hex() != named:
            raise Fault("BadDigest", "The content's XXH3-128 is not the one that the key names.")
        copies: Files = []
        try:
            for name, size in files:
                copy, descriptor = self.store.new_file()
                copies.append((copy, size))
                os.close(descriptor)
                os.unlink(self.store.path(copy))
                try:
                    os.link(self.store.path(name), self.store.path(copy))
                except OSError:  # a file system without hard links
                    from shutil import copyfile

                    copyfile(self.store.path(name), self.store.path(copy))
        except BaseException:
            self.store.discard(copies)
            raise
        return copies

    def _digests(self, files: Files, algorithms: set[str]) -> dict[str, bytes]:
        """Digests over the content of `files`; takes long, so it runs in a thread."""
        digests = {name: HASHERS[name]() for name in algorithms}
        for name, _ in files:
            with open(self.store.path(name), "rb", buffering=0) as file:
                while piece := file.read(COPY_BYTES):
                    for digest in digests.values():
                        digest.update(memoryview(piece))
        return {name: digest.digest() for name, digest in digests.items()}

    # -- multipart uploads

    def _create_upload(self) -> Response:
        request = self.request
        algorithm = request.headers.get("x-amz-checksum-algorithm", "").lower() or None
        if algorithm is not None and algorithm not in HASHERS:
            raise Fault("InvalidRequest", "Checksum algorithm provided is unsupported.")
        kind = request.headers.get("x-amz-checksum-type", "").upper() or None
        if algorithm and kind is None:
            kind = "FULL_OBJECT" if algorithm == "crc64nvme" else "COMPOSITE"
        row = Upload(
            token_urlsafe(24),
            request.bucket,
            request.key,
            now_ms(),
            _kept_headers(request.headers),
            algorithm,
            kind,
        )
        self.store.create_upload(row)
        response = document(
            "InitiateMultipartUploadResult",
            element("Bucket", row.bucket) + element("Key", row.key.decode()) + element("UploadId", row.id),
        )
        if algorithm:
            response.headers |= {"x-amz-checksum-algorithm": algorithm.upper(), "x-amz-checksum-type": kind or ""}
        return response

    def _upload(self) -> Upload:
        request = self.request
        row = self.store.upload(request.query.get("uploadId", ""), request.bucket, request.key)
        if row is None:
            raise Fault("NoSuchUpload", "The specified upload does not exist: it may have been aborted or completed.")
        return row

    def _part_number(self) -> int:
        text = self.request.query["partNumber"]
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_PARTS):
            raise Fault("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive.")
        return int(text)

    def _put_part(self) -> Answer:
        upload, number = self._upload(), self._part_number()
        self._need_length()
        intake = Intake(self.request, self.store)
        try:
            trailers = yield from self._body(intake.feed)
            etag, checksums = intake.finish(trailers)
            self._upload()  # it may have been aborted meanwhile
            self.store.put_part(upload.id, Part(number, intake.size, etag, now_ms(), checksums, intake.files))
        except BaseException:
            intake.abandon()
            raise
        return Response(headers={"ETag": f'"{etag}"', **_checksum_headers(checksums)})

    def _copy_part(self) -> Answer:
        upload, number = self._upload(), self._part_number()
        _, source = self._source()
        start, length = 0, source.size
        text = self.request.headers.get("x-amz-copy-source-range")
        if text is not None:
            asked = _asked_range(text, source.size)
            if asked is None:
                raise Fault("InvalidArgument", "x-amz-copy-source-range must be of the form bytes=first-last.")
            start, length = asked
        slices = self.store.slices(source.files, start, length)

        def copy() -> tuple[Files, str]:
            name, descriptor = self.store.new_file()
            digest = md5(usedforsecurity=False)
            try:
                with os.fdopen(descriptor, "wb", buffering=0) as target:
                    for each in slices:
                        with open(each.path, "rb", buffering=0) as file:
                            file.seek(each.offset)
                            left = each.length
                            while left and (piece := file.read(min(left, COPY_BYTES))):
                                left -= len(piece)
                                digest.update(piece)
                                target.write(piece)
            except BaseException:
                self.store.discard([(name, 0)])
                raise
            return [(name, length)], digest.hexdigest()

        files, etag = yield Work(copy)
        try:
            self._upload()
        except Fault:
            self.store.discard(files)
            raise
        part = Part(number, length, etag, now_ms(), {}, files)
        self.store.put_part(upload.id, part)
        return document(
            "CopyPartResult",
            f"<LastModified>{time_text(part.modified)}</LastModified><ETag>&quot;{etag}&quot;</ETag>",
        )

    def _complete_upload(self) -> Answer:
        request = self.request
        upload_id = request.query["uploadId"]
        tree = yield from self._document("CompleteMultipartUpload")
        done = self.store.object(request.bucket, request.key)
        if done is not None and done.upload == upload_id:
            return self._completed(done)  # the answer was lost, and the client asks again
        upload = self._upload()
        self._check_write_conditions()
        chosen = self._chosen_parts(tree, {part.number: part for part in self.store.parts(upload.id)})
        size = sum(part.size for part in chosen)
        if request.headers.get("x-amz-mp-object-size", str(size)) != str(size):
            raise Fault("InvalidRequest", "The provided object size does not match the one of the parts.")
        files = [file for part in chosen for file in part.files]
        row = Object(request.key, size, "", now_ms(), upload.headers, {}, files, upload.id)
        tags = b"".join(_tag_bytes(part.etag) for part in chosen)
        row.etag = f"{md5(tags, usedforsecurity=False).hexdigest()}-{len(chosen)}"
        algorithm = upload.algorithm
        whole = {name: request.headers[CHECKSUM + name] for name in HASHERS if CHECKSUM + name in request.headers}
        named = CONTENT_NAMED.fullmatch(request.key)
        needed = {name for name, value in whole.items() if "-" not in value}
        if named:
            needed.add("xxhash128")
        if upload.checksum_type == "FULL_OBJECT" and algorithm:
            needed.add(algorithm)
        if needed:
            digests = yield Work(lambda: self._digests(files, needed))
            self._upload()
            self._check_write_conditions()
            if named and digests["xxhash128"].hex() != named[1].decode():
                raise Fault("BadDigest", "The content's XXH3-128 is not the one that the key names.")
            for name in needed & (whole.keys() | ({algorithm} if algorithm else set())):
                if digests[name]:
                    row.checksums[name] = _base64(digests[name])
                elif name in whole:
                    row.checksums[name] = whole[name]
        if algorithm and upload.checksum_type == "COMPOSITE" and all(algorithm in part.checksums for part in chosen):
            row.checksums[algorithm] = composite(algorithm, [part.checksums[algorithm] for part in chosen])
        for name, value in whole.items():
            if row.checksums.get(name, value) != value:
                raise Fault("BadDigest", f"The {name.upper()} you specified did not match the calculated checksum.")
        self.store.finish_upload(upload.id, request.bucket, row)
        return self._completed(row)

    def _completed(self, row: Object) -> Response:
        request = self.request
        sums = "".join(element(f"Checksum{name.upper()}", value) for name, value in row.checksums.items())
        location = f"http://{request.headers.get('host', '')}{request.path}"
        return document(
            "CompleteMultipartUploadResult",
            f"{element('Location', location)}{element('Bucket', request.bucket)}"
            f"{element('Key', request.key.decode())}<ETag>&quot;{row.etag}&quot;</ETag>{sums}",
        )

    def _chosen_parts(self, tree: Any, stored: dict[int, Part]) -> list[Part]:
        chosen: list[Part] = []
        for each in tree.findall("Part"):
            try:
                number = int(each.findtext("PartNumber") or "")
            except ValueError:
                raise Fault("MalformedXML", "A part has no number.") from None
            part = stored.get(number)
            tag = (each.findtext("ETag") or "").strip('"')
            if part is None or part.etag != tag:
                raise Fault("InvalidPart", "One or more of the specified parts could not be found.")
            if chosen and number <= chosen[-1].number:
                raise Fault("InvalidPartOrder", "The list of parts was not in ascending order.")
            for name, value in part.checksums.items():
                if (each.findtext(f"Checksum{name.upper()}") or value) != value:
                    raise Fault("InvalidPart", "The checksum of a part is not the one that was uploaded.")
            chosen.append(part)
        if not chosen:
            raise Fault("MalformedXML", "You must specify at least one part.")
        for part in chosen[:-1]:
            if part.size < PART_BYTES:
                raise Fault(
                    "EntityTooSmall",
                    "Your proposed upload is smaller than the minimum allowed size.",
                    MinSizeAllowed=str(PART_BYTES),
                    ProposedSize=str(part.size),
                    PartNumber=str(part.number),
                )
        return chosen


def _kept_headers(headers: dict[str, str]) -> dict[str, str]:
    """The headers that an object keeps: what it is, and the user's metadata, names in lower case.

    Raises: Fault where the metadata is too long.
    """
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
    encodings = [each.strip() for each in kept.pop("content-encoding", "").split(",")]
    if encoding := ",".join(each for each in encodings if each and each.lower() != "aws-chunked"):
        kept["content-encoding"] = encoding
    metadata = {name: value for name, value in headers.items() if name.startswith(METADATA)}
    if sum(len(name) - len(METADATA) + len(value) for name, value in metadata.items()) > METADATA_BYTES:
        raise Fault("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size.")
    return kept | metadata


def _checksum_headers(checksums: dict[str, str]) -> dict[str, str]:
    if not checksums:
        return {}
    return {f"{CHECKSUM}{name}": value for name, value in checksums.items()} | {"x-amz-checksum-type": "FULL_OBJECT"}


def _check_read_conditions(headers: dict[str, str], row: Object, prefix: str) -> None:
    """If-Match and the like: for GET and HEAD, or with `prefix` for the source of a copy.

    Source: RFC 9110 section 13.2.2.
    """
    failed = Fault("PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
    unchanged = failed if prefix else Fault("NotModified", "Not Modified")
    if f"{prefix}if-match" in headers:
        if not _is_tag_among(row.etag, headers[f"{prefix}if-match"]):
            raise failed
    elif row.modified // 1000 > _http_time(headers.get(f"{prefix}if-unmodified-since"), inf):
        raise failed
    if f"{prefix}if-none-match" in headers:
        if _is_tag_among(row.etag, headers[f"{prefix}if-none-match"]):
            raise unchanged
    elif row.modified // 1000 <= _http_time(headers.get(f"{prefix}if-modified-since"), -inf):
        raise unchanged


def _is_tag_among(etag: str, text: str) -> bool:
    tags = [each.strip().removeprefix("W/").strip('"') for each in text.split(",")]
    return "*" in tags or etag in tags


def _http_time(text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return default  # RFC 9110: a condition with a malformed date is ignored


def _asked_range(text: str, size: int) -> tuple[int, int] | None:
    """(start, length) of a Range header; None where it is to be ignored.

    Raises: Fault where it lies outside the object.
    """
    unit, _, spec = text.partition("=")
    first, dash, last = spec.strip().partition("-")
    digits = all(not each or (each.isascii() and each.isdigit()) for each in (first, last))
    if unit.strip() != "bytes" or not dash or not digits or not (first or last) or len(spec) > 40:
        return None
    if not first:
        start = max(0, size - int(last))
        if int(last) == 0 or size == 0:
            raise _outside(text, size)
        return start, size - start
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise _outside(text, size)
    end = min(int(last), size - 1) if last else size - 1
    return start, end - start + 1


def _outside(text: str, size: int) -> Fault:
    return Fault(
        "InvalidRange", "The requested range is not satisfiable.", RangeRequested=text, ActualObjectSize=str(size)
    )


def _part_range(row: Object, text: str) -> tuple[int, int]:
    """(start, length) of one part of an object."""
    parts = row.files or [("", 0)]
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_PARTS):
        raise Fault("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive.")
    number = int(text)
    if number > len(parts):
        raise Fault("InvalidRange", "The requested partnumber is not satisfiable.")
    return sum(size for _, size in parts[: number - 1]), parts[number - 1][1]


def _tag_bytes(etag: str) -> bytes:
    return bytes.fromhex(etag.partition("-")[0])


def _base64(value: bytes) -> str:
    from base64 import b64encode

    return b64encode(value).decode()
