"""Operations on one object: storing, reading, copying."""

from __future__ import annotations

import os
from re import compile as pattern
from urllib.parse import unquote_to_bytes

from .checksums import HASHERS
from .conditions import asked_range, check_read, part_range
from .documents import document, element, time_text
from .exchange import Answer, Exchange
from .faults import Fault
from .intake import CHECKSUM, Intake
from .serving import Work
from .store import Files, Object, Store, now_ms
from .wire import Response, http_date

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
COPY_BYTES = 1 << 20


def hash_in(key: bytes) -> str | None:
    """The XXH3 128 that a key says its content has: 32 hex digits; None for keys of other kinds.

    Source: spec/attachments-and-bundles.md section 1.1.
    """
    found = CONTENT_NAMED.fullmatch(key)
    return found[1].decode() if found else None


def get(exchange: Exchange) -> Response:
    request, row = exchange.request, exchange.object()
    check_read(request.headers, row, "")
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
        start, length = part_range(row, request.query["partNumber"])
        headers["x-amz-mp-parts-count"] = str(max(1, len(row.files)))
        status = 206
    elif "range" in request.headers:
        asked = asked_range(request.headers["range"], row.size)
        if asked is not None:
            (start, length), status = asked, 206
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{row.size}"
    elif request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers |= {f"{CHECKSUM}{name}": value for name, value in row.checksums.items()}
        if row.checksums:
            is_composite = any("-" in value for value in row.checksums.values())
            headers["x-amz-checksum-type"] = "COMPOSITE" if is_composite else "FULL_OBJECT"
    response = Response(status, headers, length=length)
    if request.method == "GET":
        content = exchange.store.content(row)
        if content is not None:
            response.body = content[start : start + length]
        else:
            response.slices = exchange.store.slices(row.files, start, length)
            response.hold()
    return response


def put(exchange: Exchange) -> Answer:
    request = exchange.request
    kept = kept_headers(request.headers)
    exchange.need_length()
    exchange.check_write()
    intake = Intake(request, exchange.store, named=hash_in(request.key))
    try:
        trailers = yield from exchange.body(intake.feed)
        etag, checksums = intake.finish(trailers)
        if intake.files:
            yield Work(lambda: exchange.store.flush_files(intake.files))
        exchange.check_write()  # again: others may have written while the body came
        exchange.need_bucket()
        row = Object(request.key, intake.size, etag, now_ms(), kept, checksums, intake.files)
        exchange.store.put(request.bucket, row, intake.content)
    except BaseException:
        intake.abandon()
        raise
    return Response(headers={"ETag": f'"{etag}"', **checksum_headers(checksums)})


def source_of(exchange: Exchange) -> tuple[str, Object]:
    """(bucket, row) of what is to be copied."""
    text = exchange.request.headers["x-amz-copy-source"].partition("?")[0].lstrip("/")
    bucket, _, key = unquote_to_bytes(text).partition(b"/")
    try:
        name = bucket.decode()
        key.decode()
    except UnicodeDecodeError:
        raise Fault("InvalidArgument", "Copy Source must mention the source bucket and key.") from None
    if not name or not key:
        raise Fault("InvalidArgument", "Copy Source must mention the source bucket and key.")
    exchange.caller.need(name, key, write=False)
    if not exchange.store.has_bucket(name):
        raise Fault("NoSuchBucket", "The specified bucket does not exist.", BucketName=name)
    row = exchange.store.object(name, key)
    if row is None or not exchange.store.is_whole(row):
        raise Fault("NoSuchKey", "The specified key does not exist.", Key=key.decode())
    check_read(exchange.request.headers, row, "x-amz-copy-source-")
    return name, row


def copy(exchange: Exchange) -> Answer:
    request = exchange.request
    bucket, source = source_of(exchange)
    replaces = request.headers.get("x-amz-metadata-directive", "COPY").upper() == "REPLACE"
    if not replaces and (bucket, source.key) == (request.bucket, request.key):
        raise Fault(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing it.",
        )
    exchange.check_write()
    named, content = hash_in(request.key), exchange.store.content(source)
    files: Files = []
    if content is not None:
        digest = HASHERS["xxhash128"]()
        digest.update(memoryview(content))
        _check_name(named, digest.digest())
    else:
        files = yield Work(lambda: _copied(exchange.store, source.files, named))
    exchange.need_bucket()
    headers = kept_headers(request.headers) if replaces else source.headers
    row = Object(request.key, source.size, source.etag, now_ms(), headers, source.checksums, files)
    exchange.store.put(request.bucket, row, content)
    sums = "".join(element(f"Checksum{name.upper()}", value) for name, value in row.checksums.items())
    return document(
        "CopyObjectResult",
        f"<LastModified>{time_text(row.modified)}</LastModified><ETag>&quot;{row.etag}&quot;</ETag>{sums}",
    )


def _check_name(named: str | None, digest: bytes) -> None:
    if named is not None and digest.hex() != named:
        raise Fault("BadDigest", "The content's XXH3-128 is not the one that the key names.")


def _copied(store: Store, files: Files, named: str | None) -> Files:
    """Second names for `files`, which never change; runs in a thread."""
    if named is not None:
        _check_name(named, digests_of(store, files, {"xxhash128"})["xxhash128"])
    copies: Files = []
    try:
        for name, size in files:
            copy, descriptor = store.new_file()
            copies.append((copy, size))
            os.close(descriptor)
            os.unlink(store.path(copy))
            try:
                os.link(store.path(name), store.path(copy))
            except OSError:  # a file system without hard links
                from shutil import copyfile

                copyfile(store.path(name), store.path(copy))
        store.flush_files(copies)
    except BaseException:
        store.discard(copies)
        raise
    return copies


def digests_of(store: Store, files: Files, algorithms: set[str]) -> dict[str, bytes]:
    """Digests over the content of `files`; takes long, so it runs in a thread."""
    digests = {name: HASHERS[name]() for name in algorithms}
    for name, _ in files:
        with open(store.path(name), "rb", buffering=0) as file:
            while piece := file.read(COPY_BYTES):
                for digest in digests.values():
                    digest.update(memoryview(piece))
    return {name: digest.digest() for name, digest in digests.items()}


def kept_headers(headers: dict[str, str]) -> dict[str, str]:
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


def checksum_headers(checksums: dict[str, str]) -> dict[str, str]:
    if not checksums:
        return {}
    return {f"{CHECKSUM}{name}": value for name, value in checksums.items()} | {"x-amz-checksum-type": "FULL_OBJECT"}
