"""The byte path to S3: signed requests over plain blocking sockets that stay open, one for each thread.

Everything that touches an object's bytes goes through `S3`, so that it can be replaced whole. Measured against
boto3, awscrt, obstore, s5cmd and rclone, this shape costs the least CPU for an object, small or large.
Source: Amazon S3 API Reference; Signature Version 4 (payloads unsigned: the checksum header binds the content).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from hmac import digest as hmac_digest
from threading import Event, Lock, local
from time import gmtime, monotonic, strftime, time
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote_plus, urlsplit

from . import statuses
from .errors import Trouble
from .sigv4 import UNSIGNED, signing_key
from .sockets import Broken, Changed, Connection, Dialer, Limit, Local, Part, Response, proxy_for

STALL_S = 120.0  # without a byte, a connection is given up
RETRY_S = 120.0  # passing failures in a row, without progress, are endured for so long
UNREACHED_S = 2.0  # the same while the endpoint has never answered: it may well not exist
FOREIGN_S = 10.0  # the same for answers that are none of S3's, such as the page of a proxy
BACKOFF_S = (0.05, 10.0)  # first and longest pause between two tries
REFRESH_S = 30.0  # how often credentials are asked for anew: whoever provides them knows when they end
PIPELINE_S = 5.0  # silence after which a server is thought not to take several requests at once
PROGRESS_BYTES = 1 << 16  # of a body that breaks off again and again: what must come for the budget to start anew
EMPTY_PAGES = 1000  # of a listing, in a row, after which it is thought to have no end

_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_SIZE = re.compile(rb"<Size>(\d+)</Size>")
_MODIFIED = re.compile(rb"<LastModified>([^<]*)</LastModified>")
_CODE = re.compile(rb"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]*)</Message>")
_REGION = re.compile(rb"<Region>([^<]*)</Region>")
_UPLOAD_ID = re.compile(rb"<UploadId>([^<]*)</UploadId>")
_NEXT = re.compile(rb"<NextContinuationToken>([^<]*)</NextContinuationToken>")
_UPLOAD = re.compile(rb"<Upload>.*?</Upload>", re.S)
_INITIATED = re.compile(rb"<Initiated>([^<]*)</Initiated>")
_NEXT_KEY = re.compile(rb"<NextKeyMarker>([^<]*)</NextKeyMarker>")
_NEXT_UPLOAD = re.compile(rb"<NextUploadIdMarker>([^<]*)</NextUploadIdMarker>")
_REFUSED = re.compile(rb"<Error>.*?</Error>", re.S)
_QUOTED = re.compile(rb"[&%+]")
_MORE_PAGES, _LAST_PAGE = b"<IsTruncated>true</IsTruncated>", b"<IsTruncated>false</IsTruncated>"
_PREFIX = re.compile(rb"<CommonPrefixes>\s*<Prefix>([^<]*)</Prefix>")
_AWS_HOST = re.compile(r"s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com(?:\.cn)?\Z")

# Which permission a refused request wants.
_PERMISSIONS = {"store": "s3:PutObject", "read": "s3:GetObject", "find": "s3:ListBucket", "list": "s3:ListBucket",
                "delete": "s3:DeleteObject"}  # fmt: skip
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_PASSING = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException",
            "RequestLimitExceeded", "TooManyRequests", "OperationAborted", "ConditionalRequestConflict",
            "BandwidthLimitExceeded", "IncompleteBody"}  # fmt: skip
_WRONG_CHECKSUM = {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "ChecksumMismatch",
                   "XAmzContentSHA256Mismatch"}  # fmt: skip
_CHECKSUM = "x-amz-checksum-xxhash128"
_UNTRUSTED = (18, 19, 20, 21)  # OpenSSL's words for certificates of nobody that we know
VERIFYING = "dl-s3d"  # a server that checks this header, as AWS does; others only call themselves AmazonS3


class KeyPair(Protocol):
    """Credentials, as `aws.Session.credentials()` gives them."""

    @property
    def access_key_id(self) -> str: ...
    @property
    def secret_access_key(self) -> str: ...
    @property
    def session_token(self) -> str | None: ...


class S3Error(Trouble):
    """A request that failed for good; `http_status` is 0 where no answer came."""

    def __init__(self, message: str, status: int, *, code: str | None = None, http_status: int = 0) -> None:
        super().__init__(message, status, code=code)
        self.http_status = http_status


class Stopping(Exception):
    """`S3.stop` was called: the request was given up."""


class Found(NamedTuple):
    """An object that a listing or a HEAD tells of. Units: `modified` as the server spells it."""

    key: str
    size: int
    modified: str


class Got(NamedTuple):
    """A whole object. `metadata` has lower-case names without x-amz-meta-; `modified` as in Last-Modified."""

    data: bytes
    metadata: dict[str, str]
    modified: str


class Upload(NamedTuple):
    """A multipart upload that was begun and not ended. Units: `initiated` as the server spells it."""

    key: str
    upload_id: str
    initiated: str


class Page(NamedTuple):
    """A page of a listing: keys with their sizes in bytes and times; `next` continues it."""

    keys: list[str]
    sizes: list[int]
    times: list[str]
    prefixes: list[str]
    next: str | None

    @property
    def found(self) -> list[Found]:
        """The objects, one by one."""
        return list(map(Found, self.keys, self.sizes, self.times))


class _Signer(NamedTuple):
    """What signs requests within one second."""

    second: int
    stamp: str
    scope: str
    key: bytes
    credential: str
    rows: tuple[tuple[str, str], ...]  # headers that every request has
    plain: tuple[str, str, str]  # of a request that has no others: as `_lines` gives them
    end: str  # of the authorization header, but for names and signature


class _Patience:
    """Decides whether a request that failed for a passing reason is tried again, and waits before it is."""

    def __init__(self, service: S3) -> None:
        self.service = service
        self.tries = 0
        self.since = 0.0
        self.came = 0

    def progress(self, amount: int) -> None:
        """Bytes have arrived: with enough of them the budget starts anew."""
        self.came += amount
        if self.came >= PROGRESS_BYTES:
            self.tries = self.came = 0

    def spend(self, budget_s: float, at_least_s: float = 0.0) -> bool:
        """Wait for the next try; False where the budget is spent. Raises: Stopping."""
        now = monotonic()
        if not self.tries:
            self.since = now
        self.tries += 1
        # A stalled connection has by itself used up the time, and still earns one more try.
        if self.tries > 1 and now - self.since > budget_s:
            return False
        from random import uniform  # costs 7 ms: only when something has failed already

        first, longest = BACKOFF_S
        pause = min(longest, first * 2 ** min(self.tries - 1, 20)) * uniform(0.5, 1.0)
        pause = min(pause, max(self.since + budget_s - now, first))
        if self.service.stopping.wait(max(pause, at_least_s)):
            raise Stopping
        return True


class S3:
    """One bucket at one endpoint. Every method may be called from any thread; each thread keeps its own connection.

    Raises (all methods): S3Error for what can't succeed or did not within the budget; Stopping after `stop`.
    """

    def __init__(
        self,
        endpoint: str | None,
        region: str,
        credentials: Callable[[], KeyPair],
        bucket: str,
        *,
        owner: str | None = None,
        ca_bundle: str | None = None,
        proxy: str | None = None,
        retry_s: float = RETRY_S,
        stall_s: float = STALL_S,
        bytes_per_s: int | None = None,
        user_agent: str = "deadline-tools",
        forget: Callable[[], None] | None = None,
    ) -> None:
        """`endpoint` None means AWS; `owner` is the account that must own the bucket.

        `forget` is called before `credentials` where the service says that those it got have expired.
        """
        self.region, self.bucket, self.owner = region, bucket, owner
        self._credentials, self._forget = credentials, forget
        self._proxy_url = proxy
        self.retry_s = retry_s
        self.user_agent = user_agent
        self.stopping = Event()
        self.limit = Limit(bytes_per_s, self.stopping) if bytes_per_s else None
        self._dialer = Dialer(self.stopping, stall_s, ca_bundle)
        self.verifies: bool | None = None  # whether the server checks content against the checksum we send
        self.checksums = True  # whether it takes the header at all
        self.pipelines: bool | None = None  # whether it takes requests before it has answered earlier ones
        self.quickest_s: float | None = None  # the shortest that an answer has taken
        self.quickest_by_method: dict[str, float] = {}  # likewise, in seconds: storing takes more than looking
        self._lock = Lock()
        self._local = local()
        self._signer: _Signer | None = None
        self._pair: KeyPair | None = None
        self._pair_at = 0.0
        self._skew = 0.0
        self._pause_until = 0.0
        self._address(endpoint)

    # Requests, as the API has them.

    def head(self, key: str) -> Found | None:
        """What the object is, or None where there is none."""
        response = self._request("find", "HEAD", key, expect=(200, 404), proof=_has_etag)
        return _found(key, response)

    def head_each(self, keys: list[str]) -> list[Found | None]:
        """What `head` tells of each of `keys`, asked for without waiting for the answers in between.

        Where a server doesn't bear that, they are asked for one after another, then and from then on.
        Source: RFC 9112 section 9.3.2.
        """
        found = self._head_together(keys) if len(keys) > 1 else []
        return [*found, *(self.head(key) for key in keys[len(found) :])]

    def put(
        self,
        key: str,
        data: bytes,
        *,
        hash: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
    ) -> bool:
        """Store `data`; with `if_absent`, False where the object was there already.

        Shape: `hash` is the XXH3 128 of `data` in hex, for the server to check.
        Raises: Changed where the server finds that it does not match.
        """
        return self._put(key, (), hash, metadata, if_absent, body=data)

    def put_file(
        self,
        key: str,
        descriptor: int,
        size: int,
        *,
        hash: str,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
    ) -> bool:
        """Store the first `size` bytes of an open file, as `put` does; nothing is stored unless they hash to `hash`."""
        part = Part(descriptor, 0, size, hash, bool(self.verifies and self.checksums))
        return self._put(key, (), hash, metadata, if_absent, part=part)

    def get(self, key: str, most: int = 1 << 30) -> Got | None:
        """A whole object in memory, or None where there is none."""
        parts: list[bytes] = []
        response = self.fetch(key, lambda block: parts.append(bytes(block)), most=most)
        if response is None:
            return None
        return Got(b"".join(parts), response.metadata(), response.header("last-modified") or "")

    def fetch(
        self,
        key: str,
        sink: Callable[[memoryview], Any],
        *,
        start: int = 0,
        length: int | None = None,
        etag: str | None = None,
        most: int | None = None,
        checked: bool = False,
    ) -> Response | None:
        """Hand an object, or `length` bytes of it from `start`, to `sink` in order; None where there is none.

        A connection that breaks midway is taken up where it stopped, provided that the object is still the same.
        The block is valid only while `sink` runs. With `checked` the answer tells the checksum that the store has.
        Raises: Changed where the object was replaced meanwhile; what was handed over is then of no use.
        """
        patience = _Patience(self)
        received = 0
        first: Response | None = None

        skipped = 0  # bytes that a server which serves no ranges sends once more

        def count(block: memoryview) -> None:
            nonlocal received, skipped
            if skipped:
                over = min(skipped, len(block))
                skipped -= over
                block = block[over:]
                if not block:
                    return
            if length is not None and received + len(block) > length:
                raise Changed
            if most is not None and received + len(block) > most:
                raise S3Error(f"'{self.url(key)}' is larger than {most} bytes", statuses.DATA)
            try:
                sink(block)
            except OSError as error:
                raise Local(error) from None
            received += len(block)

        def begin(response: Response) -> None:
            nonlocal skipped
            if response.header("etag") is None:
                raise Broken("what it sends is no object of S3's: is it a proxy, or another address that is wanted?")
            if response.status == 200 and length is not None and (position or response.length != length):
                raise S3Error(f"the server of '{self.url(key)}' does not serve ranges", statuses.UNAVAILABLE)
            skipped = position if response.status == 200 else 0
            told = response.header("content-range")
            if response.status == 206 and told and not told.startswith(f"bytes {position}-"):
                raise Broken(f"it sent '{told}', not what was asked for")

        while True:
            headers: tuple[tuple[str, str], ...] = ()
            position = start + received
            if position or length is not None:
                last = "" if length is None else str(start + length - 1)
                headers = (("range", f"bytes={position}-{last}"),)
                if etag:
                    headers = (("if-match", etag), *headers)
            asked = (*headers, ("x-amz-checksum-mode", "ENABLED")) if checked else headers
            before = received
            response = self._request(
                "read",
                "GET",
                key,
                headers=asked,
                begin=begin,
                sink=count,
                expect=(200, 206, 404, 416, 412),
                patience=patience,
                proof=_tells_why,
            )
            if response.status == 404:
                if b"<Code>NoSuchBucket<" in response.body:
                    raise self._error("read", key, response)
                return None
            if response.status == 412:
                if etag is None:
                    raise self._error("read", key, response)
                raise Changed
            if response.status == 416:
                if not position and length is None:  # some servers answer so for an empty object
                    return response
                raise Changed
            first = first or response
            etag = etag or response.header("etag")
            if not response.cut:
                if length is not None and received != length:
                    raise Changed
                return first
            patience.progress(received - before)

    def pages(
        self, prefix: str, *, after: str | None = None, delimiter: str | None = None, most: int | None = None
    ) -> Iterator[Page]:
        """The objects whose keys start with `prefix` and sort after `after`, a page of up to 1000 at a time."""
        from html import unescape

        token: str | None = None
        last, empty = after or "", 0
        while True:
            pairs = [("encoding-type", "url"), ("list-type", "2"), ("prefix", prefix)]
            if token:
                pairs.append(("continuation-token", token))
            elif after:
                pairs.append(("start-after", after))
            if delimiter:
                pairs.append(("delimiter", delimiter))
            if most:
                pairs.append(("max-keys", str(most)))
            body = self._request("list", "GET", None, query=_query(pairs), proof=_LISTING).body
            keys, sizes, times = _KEY.findall(body), _SIZE.findall(body), _MODIFIED.findall(body)
            if not len(keys) == len(sizes) == len(times):
                raise S3Error(f"cannot read the listing of '{self.url(prefix)}'", statuses.UNAVAILABLE)
            names, prefixes = _unquoted(keys, body), _unquoted(_PREFIX.findall(body), body)
            following = _NEXT.search(body)
            token = unescape(following[1].decode()) if following and _LAST_PAGE not in body else None
            top = max(names, default="")
            # What lies between two names that begin with the prefix begins with it, too.
            is_foreign = bool(names) and not (min(names).startswith(prefix) and top.startswith(prefix))
            if is_foreign or (_MORE_PAGES in body and not token):
                raise S3Error(f"cannot read the listing of '{self.url(prefix)}'", statuses.UNAVAILABLE)
            # A token alone is no sign that it goes on: names are, and they ascend.
            top = top or max(prefixes, default="")
            empty = 0 if top else empty + 1
            if (top and top <= last) or empty > EMPTY_PAGES:
                raise S3Error(f"the listing of '{self.url(prefix)}' has no end", statuses.UNAVAILABLE)
            last = top or last
            yield Page(names, list(map(int, sizes)), _decoded(times), prefixes, token)
            if not token:
                return

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        self._request("delete", "DELETE", key, expect=(200, 204, 404))

    def delete_many(self, keys: Iterable[str]) -> dict[str, str]:
        """Remove up to 1000 objects: of those that are still there, why."""
        from hashlib import md5
        from html import unescape
        from xml.sax.saxutils import escape

        rows = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
        space = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        body = f"<Delete{space}><Quiet>true</Quiet>{rows}</Delete>".encode()
        check = b64encode(md5(body, usedforsecurity=False).digest()).decode()
        headers = (("content-md5", check),)
        answer = self._request(
            "delete", "POST", None, query="delete=", headers=headers, body=body, proof=_DELETION
        ).body
        refused = {}
        for row in _REFUSED.findall(answer):
            key, code, said = (
                match[1].decode() if (match := each.search(row)) else "" for each in (_KEY, _CODE, _MESSAGE)
            )
            refused[unescape(key)] = f"{code}: {unescape(said)}" if said else code
        return refused

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """The multipart uploads to keys that start with `prefix` which were neither completed nor aborted."""
        from html import unescape

        key_marker = id_marker = ""
        while True:
            pairs = [("encoding-type", "url"), ("prefix", prefix)]
            if key_marker:
                pairs += [("key-marker", key_marker), ("upload-id-marker", id_marker)]
            query = _query([*pairs, ("uploads", "")])
            body = self._request("list", "GET", None, query=query, proof=_UPLOADS).body
            for row in _UPLOAD.findall(body):
                key, upload_id, at = (
                    match[1] if (match := each.search(row)) else b"" for each in (_KEY, _UPLOAD_ID, _INITIATED)
                )
                yield Upload(_unquoted([key], body)[0], unescape(upload_id.decode()), at.decode())
            following, following_id = _NEXT_KEY.search(body), _NEXT_UPLOAD.search(body)
            if _MORE_PAGES not in body or not following:
                return
            before = key_marker, id_marker
            key_marker = _unquoted([following[1]], body)[0]
            id_marker = unescape(following_id[1].decode()) if following_id else ""
            if key_marker < before[0] or (key_marker, id_marker) == before:
                raise S3Error(f"the listing of the uploads to '{self.url(prefix)}' has no end", statuses.UNAVAILABLE)

    def create_multipart(self, key: str) -> str:
        """Begin a multipart upload: its id."""
        while True:
            headers = (("x-amz-checksum-algorithm", "XXHASH128"),) if self.checksums else ()
            response = self._request(
                "store", "POST", key, query="uploads=", headers=headers, expect=(200, 400, 501), proof=_has_upload_id
            )
            if response.status == 200 and (match := _UPLOAD_ID.search(response.body)):
                from html import unescape

                return unescape(match[1].decode())
            if not self.checksums:
                raise self._error("store", key, response)
            self.checksums = False  # an older server: our own check stands alone

    def put_part(
        self, key: str, upload_id: str, number: int, hash: str, source: memoryview | tuple[int, int, int]
    ) -> str:
        """Send a part: its ETag.

        `source` is its content, or descriptor, offset and length of that.
        Raises: Changed where what lies in a file does not hash to `hash`.
        """
        headers = ((_CHECKSUM, checksum(hash)),) if self.checksums else ()
        query = _query([("partNumber", str(number)), ("uploadId", upload_id)])
        if isinstance(source, memoryview):
            response = self._request("store", "PUT", key, query=query, headers=headers, body=source, proof=_has_etag)
        else:
            part = Part(*source, hash, bool(self.verifies and self.checksums))
            response = self._request("store", "PUT", key, query=query, headers=headers, part=part, proof=_has_etag)
        return response.header("etag") or ""

    def complete_multipart(
        self, key: str, upload_id: str, parts: Iterable[tuple[int, str, str]], *, if_absent: bool = False
    ) -> bool:
        """Make the object of its `parts` (number, ETag, hash); False where `if_absent` and it was there already."""
        rows = []
        for number, etag, hash in parts:
            check = f"<ChecksumXXHASH128>{checksum(hash)}</ChecksumXXHASH128>" if self.checksums else ""
            etag = etag.replace("&", "&amp;").replace("<", "&lt;")
            rows.append(f"<Part><ETag>{etag}</ETag>{check}<PartNumber>{number}</PartNumber></Part>")
        space = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        body = f"<CompleteMultipartUpload{space}>{''.join(rows)}</CompleteMultipartUpload>".encode()
        headers = (("if-none-match", "*"),) if if_absent else ()
        query = _query([("uploadId", upload_id)])
        response = self._request(
            "store", "POST", key, query=query, headers=headers, body=body, expect=(200, 412), proof=_COMPLETION
        )
        return response.status == 200

    def abort_multipart(self, key: str, upload_id: str) -> None:
        """Drop a multipart upload and its parts."""
        self._request("store", "DELETE", key, query=_query([("uploadId", upload_id)]), expect=(200, 204, 404))

    def url(self, key: str) -> str:
        """How a person writes the object's address."""
        return f"s3://{self.bucket}/{key}"

    @property
    def is_private(self) -> bool:
        """Whether the connection is encrypted, so that nothing in between can damage what comes over it."""
        return self._dialer.tls

    def now(self) -> float:
        """The time by the server's clock, in epoch seconds, as far as it is known to differ from ours."""
        return time() + self._skew

    def stop(self) -> None:
        """Give up all requests that run, at once; later ones raise Stopping."""
        self.stopping.set()
        self._dialer.shut()

    def resume(self, within_s: float | None = None) -> None:
        """Allow requests again after `stop`, to clean up; with `within_s` failures are endured for no longer."""
        if within_s is not None:
            self.retry_s = self._dialer.stall_s = within_s
        self.stopping.clear()

    # How a request is made.

    def _head_together(self, keys: list[str]) -> list[Found | None]:
        """What is found of `keys`, of as many as were answered for good; each failure is left to whoever asks again."""
        if self.pipelines is False or self._dialer.proxy or self._pause_until > monotonic():
            return []
        connection = self._connection()
        found: list[Found | None] = []
        is_sent = False
        try:
            if connection.socket is None:
                connection.open()
            if self.pipelines is None:
                connection.endure(PIPELINE_S)
            requests = [self._head("HEAD", self._base + quote(key, safe="/-_.~"), "", (), 0) for key in keys]
            is_sent = True
            connection.send(b"".join(requests), b"")
            for key in keys:
                response = connection.receive("HEAD", behind=bool(found))
                if response.status not in (200, 404) or not _has_etag(response):
                    break
                found.append(_found(key, response))
                if not response.keep:
                    break
            if len(found) == len(keys) and self.pipelines is None:
                self.pipelines = True
                connection.endure()
        except (OSError, Broken):
            pass
        finally:
            connection.used += len(found)
            if len(found) < len(keys):
                connection.close()
                if is_sent and self.pipelines is None:
                    self.pipelines = False
        if self.stopping.is_set():
            raise Stopping
        return found

    def _put(
        self,
        key: str,
        headers: tuple[tuple[str, str], ...],
        hash: str | None,
        metadata: Mapping[str, str] | None,
        if_absent: bool,
        *,
        body: bytes | memoryview = b"",
        part: Part | None = None,
    ) -> bool:
        if hash is not None and self.checksums:
            headers += ((_CHECKSUM, checksum(hash)),)
        if if_absent:
            headers += (("if-none-match", "*"),)
        if metadata:
            headers += tuple((f"x-amz-meta-{name.lower()}", value) for name, value in metadata.items())
        expect = (200, 201, 204, 412) if if_absent else (200, 201, 204)
        response = self._request(
            "store", "PUT", key, headers=headers, body=body, part=part, expect=expect, proof=_has_etag
        )
        return response.status != 412

    def _request(
        self,
        doing: str,
        method: str,
        key: str | None,
        *,
        query: str = "",
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes | memoryview = b"",
        part: Part | None = None,
        begin: Callable[[Response], None] | None = None,
        sink: Callable[[memoryview], Any] | None = None,
        expect: tuple[int, ...] = (200,),
        patience: _Patience | None = None,
        proof: Callable[[Response], bool] | None = None,
    ) -> Response:
        """Make a request until it is answered for good: with a status of `expect`, and by S3, of which `proof` judges.

        With `sink` the body of a 200 or 206 goes there, after `begin` was shown the head; where the connection broke
        midway, the answer is returned as `cut`, after a wait. Without it, and for any other status, `body` holds it.
        """
        patience = patience or _Patience(self)
        mended: set[str] = set()
        while True:
            if self.stopping.is_set():
                raise Stopping
            if self._pause_until and (wait := self._pause_until - monotonic()) > 0 and self.stopping.wait(wait):
                raise Stopping
            path = self._path if key is None else self._base + quote(key, safe="/-_.~")
            length = part.length if part is not None else len(body)
            connection = self._connection()
            reused = connection.used > 0
            connection.answered = False
            response: Response | None = None
            began = monotonic()
            try:
                if connection.socket is None:
                    connection.open()
                    began = monotonic()
                head = self._head(method, path, query, headers, length)
                try:
                    if part is not None:
                        connection.send_file(head, part)
                    else:
                        connection.send(head, body)
                except (BrokenPipeError, ConnectionResetError):
                    # The server may have answered, and hung up, before it had read everything.
                    response = connection.receive(method)
                    response.keep = False
                else:
                    response = connection.receive(method)
                connection.used += 1
                took = monotonic() - began
                if took < self.quickest_by_method.get(method, 1e9):
                    self.quickest_by_method[method] = took
                    self.quickest_s = min(took, self.quickest_s or took)
                if self.verifies is None and response.status == 200 and (sent := dict(headers).get(_CHECKSUM)):
                    # One that only calls itself so does not tell what it found.
                    server = response.header("server") or ""
                    named = self._aws or server.startswith(VERIFYING)
                    self.verifies = named and response.header(_CHECKSUM) == sent
                if sink is not None and response.status in (200, 206):
                    if begin is not None:
                        begin(response)
                    connection.stream(response, sink)
                elif response.length != 0:
                    response.body = connection.whole(response)
            except Local as error:
                connection.close()
                raise error.error from None
            except (OSError, Broken) as error:
                connection.close()
                if self.stopping.is_set():
                    raise Stopping from None
                if reused and not connection.answered and "reused" not in mended:
                    mended.add("reused")  # the server had closed an idle connection: no fault of anyone's
                    continue
                self._endure(doing, key, error, patience)
                if sink is not None and response is not None and response.status in (200, 206):
                    response.cut = True
                    return response
                continue
            except BaseException:
                connection.close()
                raise
            if not response.keep:
                connection.close()
            status = response.status
            if status in expect and (proof is None or proof(response)):
                return response
            if method == "HEAD" and status in (301, 307, 400, 403) and "look" not in mended:
                # A HEAD has no body to say why; a GET of its first byte does.
                mended.add("look")
                look = self._request(doing, "GET", key, headers=(("range", "bytes=0-0"),), expect=(200, 206, 404, 416))
                if look.status == 404:
                    return look
                continue
            self._judge(doing, key, response, patience, mended)

    def _judge(self, doing: str, key: str | None, response: Response, patience: _Patience, mended: set[str]) -> None:
        """Mend what made the server refuse, or wait, or raise."""
        status = response.status
        match = _CODE.search(response.body)
        code = match[1].decode("utf-8", "replace") if match else ""
        if code in _WRONG_CHECKSUM:
            raise Changed
        if code in _EXPIRED and "credentials" not in mended:
            mended.add("credentials")
            with self._lock:
                # Many threads may hear of it, and one of them may have got new ones already.
                if self._pair is not None and self._pair.access_key_id == self._local.key_id:
                    if self._forget is not None:
                        self._forget()
                    self._signer, self._pair_at = None, 0.0
            return
        if code in ("RequestTimeTooSkewed", "RequestExpired") and "clock" not in mended:
            mended.add("clock")
            self._correct_clock(response)
            return
        region = response.header("x-amz-bucket-region") or ""
        if not region and (match := _REGION.search(response.body)):
            region = match[1].decode("utf-8", "replace")
        if (
            (status in (301, 307) or code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"))
            and region not in ("", self.region)
            and "region" not in mended
        ):
            mended.add("region")
            with self._lock:
                self.region, self._signer = region, None
                if self._aws:
                    self._address(None)
            self._connection().close()
            return
        is_foreign = _is_foreign(status, code)
        if is_foreign or status in (408, 429, 500, 502, 503, 504) or code in _PASSING:
            budget = min(self.retry_s, FOREIGN_S) if is_foreign else self.retry_s
            after = response.header("retry-after") or ""
            least = min(float(after), 30.0, budget) if after.isdecimal() else 0.0
            if status in (429, 503):
                # Everyone slows down, not only the thread that was told to.
                self._pause_until = monotonic() + max(least, 0.1 * 2 ** min(patience.tries, 6))
            if patience.spend(budget, least):
                return
        raise self._error(doing, key, response)

    def _endure(self, doing: str, key: str | None, error: BaseException, patience: _Patience) -> None:
        """Wait before the next try after a connection failed. Raises: S3Error where there will be none."""
        subject = self.url(key or "")
        where = self.origin
        final: str | None = None
        budget = self.retry_s
        name = type(error).__name__
        if name in ("SSLCertVerificationError", "CertificateError"):
            said = getattr(error, "verify_message", str(error)).rstrip(".")
            final = f"the certificate of '{where}' is refused: {said}"
            if getattr(error, "verify_code", 0) in _UNTRUSTED:
                final = f"the certificate of '{where}' is not trusted ({said}); set AWS_CA_BUNDLE to the authority's"
        elif getattr(error, "reason", "") == "WRONG_VERSION_NUMBER" and self.quickest_s is None:
            final = f"what answers at '{where}' speaks no TLS: is it http that is wanted?"
        elif self.quickest_s is None and isinstance(error, OSError):
            budget = min(budget, UNREACHED_S)
        if final is None and patience.spend(budget):
            return
        if final is None:
            if isinstance(error, BlockingIOError | TimeoutError):
                why = f"not a byte within {self._dialer.stall_s:g} s"
            elif isinstance(error, OSError):
                why = error.strerror or str(error) or name
            else:
                why = str(error)
            final = f"'{where}' does not answer: {why}"
        raise S3Error(f"cannot {doing} '{subject}': {final}", statuses.UNAVAILABLE)

    def _error(self, doing: str, key: str | None, response: Response) -> S3Error:
        """The S3Error that says what was refused, why, and what to do."""
        status, body = response.status, response.body
        code_match, message_match = _CODE.search(body), _MESSAGE.search(body)
        code = code_match[1].decode("utf-8", "replace") if code_match else ""
        said = message_match[1].decode("utf-8", "replace") if message_match else ""
        said = " ".join(said.split())[:300]
        subject = self.url(key or "")
        exit_status = statuses.DATA
        if code in _EXPIRED:
            why, exit_status = "the credentials have expired; sign in again", statuses.NOT_ALLOWED
        elif code == "RequestTimeTooSkewed":
            why, exit_status = "the clock of this machine is wrong: set it", statuses.CONFIGURATION
        elif code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"):
            why, exit_status = f"the credentials are refused ({code}); sign in again", statuses.NOT_ALLOWED
        elif status == 403:
            permission = _PERMISSIONS[doing]
            why = f"access denied; the role needs {permission}"
            if "kms" in said.lower():
                need = "kms:GenerateDataKey" if doing == "store" else "kms:Decrypt"
                why = f"access denied; the role needs {need} and kms:DescribeKey for the bucket's key"
            elif self.owner:
                why += f", and the bucket must belong to account {self.owner}"
            exit_status = statuses.NOT_ALLOWED
        elif _is_foreign(status, code):
            shown = " ".join(body[:60].decode("utf-8", "replace").split())
            why = f"what answers is no S3 ({status} '{shown}'): is it a proxy, or another address that is wanted?"
            exit_status = statuses.UNAVAILABLE
        elif status == 404:
            what = "the upload" if code == "NoSuchUpload" else "the object" if code == "NoSuchKey" else "the bucket"
            why, exit_status = f"{what} does not exist", statuses.NO_INPUT
        elif status in (301, 307):
            why, exit_status = "the bucket is in another region", statuses.CONFIGURATION
        elif status >= 500 or status in (408, 429) or code in _PASSING:
            why = f"the service failed ({status} {code or 'without a reason'}) for {self.retry_s:g} s; try again later"
            exit_status = statuses.TRY_AGAIN
        else:
            why = f"the service refused ({status})"
        if said and status not in (404,):
            why += f" [{code}: {said}]"
        return S3Error(f"cannot {doing} '{subject}': {why}", exit_status, code=code or None, http_status=status)

    def _correct_clock(self, response: Response) -> None:
        from email.utils import parsedate_to_datetime

        try:
            theirs = parsedate_to_datetime(response.header("date") or "").timestamp()
        except (TypeError, ValueError):
            return
        with self._lock:
            self._skew = theirs - time()
            self._signer = None

    def _head(self, method: str, path: str, query: str, headers: tuple[tuple[str, str], ...], length: int) -> bytes:
        """The signed head of a request."""
        signer = self._signer
        if signer is None or int(time() + self._skew) != signer.second:
            signer = self._renew()
        self._local.key_id = signer.credential
        names, lines, sent = _lines((*signer.rows, *headers)) if headers else signer.plain
        canonical = f"{method}\n{path}\n{query}\n{lines}\n\n{names}\n{UNSIGNED}"
        hashed = sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{signer.stamp}\n{signer.scope}\n{hashed}"
        signature = hmac_digest(signer.key, to_sign.encode(), "sha256").hex()
        target = f"{self._proxied}{path}?{query}" if query else self._proxied + path
        sized = f"content-length: {length}\r\n" if method in ("PUT", "POST") else ""
        return (
            f"{method} {target} HTTP/1.1\r\n{sent}\r\n{sized}{self._extra}"
            f"{signer.end}{names}, Signature={signature}\r\n\r\n"
        ).encode()

    def _renew(self) -> _Signer:
        """What signs from this second on; credentials are asked for anew now and then."""
        with self._lock:
            now = int(time() + self._skew)
            signer = self._signer
            if signer is not None and signer.second == now:
                return signer
            if self._pair is None or monotonic() - self._pair_at > REFRESH_S or not self._pair_at:
                self._pair = self._credentials()
                self._pair_at = monotonic()
            pair = self._pair
            stamp = strftime("%Y%m%dT%H%M%SZ", gmtime(now))
            key = signing_key(pair.secret_access_key, stamp[:8], self.region, "s3")
            scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
            rows = [("host", self._host), ("x-amz-content-sha256", UNSIGNED), ("x-amz-date", stamp)]
            if pair.session_token:
                rows.append(("x-amz-security-token", pair.session_token))
            if self.owner:
                rows.append(("x-amz-expected-bucket-owner", self.owner))
            end = f"authorization: AWS4-HMAC-SHA256 Credential={pair.access_key_id}/{scope}, SignedHeaders="
            self._signer = _Signer(now, stamp, scope, key, pair.access_key_id, tuple(rows), _lines(rows), end)
            return self._signer

    # Where requests go.

    def _address(self, endpoint: str | None) -> None:
        suffix = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        parts = urlsplit(endpoint or f"https://s3.{self.region}.{suffix}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Trouble(f"the S3 endpoint '{endpoint}' is no http or https address", statuses.CONFIGURATION)
        host, tls = parts.hostname, parts.scheme == "https"
        self._aws = bool(_AWS_HOST.match(host))
        path = parts.path.rstrip("/")
        # A certificate covers one label before s3: a bucket with dots in its name stays in the path.
        if self._aws and not (tls and "." in self.bucket):
            host = f"{self.bucket}.{host}"
            self._path, self._base = path + "/", path + "/"
        else:
            self._path = f"{path}/{self.bucket}"
            self._base = self._path + "/"
        usual = 443 if tls else 80
        shown = f"[{host}]" if ":" in host else host
        self.host = host
        self._host = shown if parts.port in (None, usual) else f"{shown}:{parts.port}"
        self.origin = f"{parts.scheme}://{self._host}"
        proxy = proxy_for(parts.scheme, host, self._proxy_url)
        self._dialer.aim(tls, host, parts.port or usual, proxy)
        self._proxied = ""
        self._extra = f"user-agent: {self.user_agent}\r\n"
        if proxy and not tls:
            self._proxied = self.origin
            self._extra += proxy[2]

    def _connection(self) -> Connection:
        try:
            connection: Connection = self._local.connection
        except AttributeError:
            connection = self._local.connection = Connection(self._dialer, self.limit)
        return connection


def _has_etag(response: Response) -> bool:
    """Whether an answer about an object is that of a store, which never does without.

    Plain WebDAV tells of what it stored by 201 or 204 and nothing else, as nothing that only stands in between does.
    """
    if response.status not in (200, 201, 204):
        return True
    return response.header("etag") is not None or (response.status != 200 and not response.body)


def _found(key: str, response: Response) -> Found | None:
    """What an answer to a HEAD tells."""
    if response.status == 404:
        return None
    return Found(key, int(response.header("content-length") or 0), response.header("last-modified") or "")


def _has_upload_id(response: Response) -> bool:
    return response.status != 200 or _UPLOAD_ID.search(response.body) is not None


def _tells_why(response: Response) -> bool:
    """Whether a 404 is S3's word that the object does not exist, rather than that of something in between."""
    return response.status != 404 or _CODE.search(response.body) is not None


def _document(element: bytes) -> Callable[[Response], bool]:
    """A function that tells whether an answer of status 200 is the XML document of that name, and whole."""
    begin, ends = re.compile(rb"<" + element + rb"[\s/>]"), (b"</" + element + b">", b"/>")

    def is_whole(response: Response) -> bool:
        if response.status != 200:
            return True
        return begin.search(response.body) is not None and response.body.rstrip().endswith(ends)

    return is_whole


_LISTING = _document(b"ListBucketResult")
_UPLOADS = _document(b"ListMultipartUploadsResult")
_DELETION = _document(b"DeleteResult")
_COMPLETION = _document(b"CompleteMultipartUploadResult")


def _is_foreign(status: int, code: str) -> bool:
    """Whether an answer that was judged can't be S3's: its errors have a code, and what succeeds is proven."""
    return not code and (status < 300 or status == 404)


def checksum(hash: str) -> str:
    """A hash as checksum headers and elements carry it: base64 of its bytes."""
    return b64encode(bytes.fromhex(hash)).decode()


def _lines(rows: Iterable[tuple[str, str]]) -> tuple[str, str, str]:
    """(names, lines to sign, lines to send) of headers."""
    rows = sorted(rows)
    names = ";".join([name for name, _ in rows])
    sent = "\r\n".join([f"{name}: {value}" for name, value in rows])
    return names, "\n".join([f"{name}:{value}" for name, value in rows]), sent


def _query(pairs: list[tuple[str, str]]) -> str:
    return "&".join(sorted(f"{name}={quote(value, safe='-_.~')}" for name, value in pairs))


def _decoded(rows: list[bytes]) -> list[str]:
    return b"\0".join(rows).decode("utf-8", "replace").split("\0") if rows else []


def _unquoted(keys: list[bytes], body: bytes) -> list[str]:
    """The keys of a listing, which says whether it has escaped them as it was asked to."""
    names = _decoded(keys)
    if len(names) == len(keys) and not _QUOTED.search(b"\0".join(keys)):
        return names
    from html import unescape

    is_quoted = b"<EncodingType>url</EncodingType>" in body
    names = []
    for key in keys:
        name = key.decode("utf-8", "replace")
        if "&" in name:
            name = unescape(name)
        names.append(unquote_plus(name) if is_quoted and ("%" in name or "+" in name) else name)
    return names
