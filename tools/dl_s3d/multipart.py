"""Multipart uploads: begun, filled, completed into an object that consists of the files of its parts."""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import md5
from secrets import token_urlsafe
from typing import Any

from .checksums import HASHERS, composite
from .conditions import asked_range, part_number
from .documents import document, element, time_text
from .exchange import Answer, Exchange
from .faults import Fault
from .intake import CHECKSUM, Intake
from .objects import COPY_BYTES, checksum_headers, digests_of, hash_in, kept_headers, source_of
from .serving import Work
from .store import Files, Object, Part, Upload, now_ms
from .wire import Response

PART_BYTES = 5 << 20  # least that a part other than the last holds


def create_upload(exchange: Exchange) -> Response:
    request = exchange.request
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
        kept_headers(request.headers),
        algorithm,
        kind,
    )
    exchange.store.create_upload(row)
    response = document(
        "InitiateMultipartUploadResult",
        element("Bucket", row.bucket) + element("Key", row.key.decode()) + element("UploadId", row.id),
    )
    if algorithm:
        response.headers |= {"x-amz-checksum-algorithm": algorithm.upper(), "x-amz-checksum-type": kind or ""}
    return response


def upload_of(exchange: Exchange) -> Upload:
    request = exchange.request
    row = exchange.store.upload(request.query.get("uploadId", ""), request.bucket, request.key)
    if row is None:
        raise Fault("NoSuchUpload", "The specified upload does not exist: it may have been aborted or completed.")
    return row


def put_part(exchange: Exchange) -> Answer:
    upload, number = upload_of(exchange), part_number(exchange.request.query["partNumber"])
    exchange.need_length()
    # Of content that will be hashed as a whole, the entity tags of parts need no MD5.
    intake = Intake(exchange.request, exchange.store, opaque=hash_in(exchange.request.key) is not None, short=0)
    try:
        trailers = yield from exchange.body(intake.feed)
        etag, checksums = intake.finish(trailers)
        yield Work(lambda: exchange.store.flush_files(intake.files))
        upload_of(exchange)  # it may have been aborted meanwhile
        exchange.store.put_part(upload.id, Part(number, intake.size, etag, now_ms(), checksums, intake.files))
    except BaseException:
        intake.abandon()
        raise
    return Response(headers={"ETag": f'"{etag}"', **checksum_headers(checksums)})


def copy_part(exchange: Exchange) -> Answer:
    upload, number = upload_of(exchange), part_number(exchange.request.query["partNumber"])
    _, source = source_of(exchange)
    start, length = 0, source.size
    text = exchange.request.headers.get("x-amz-copy-source-range")
    if text is not None:
        asked = asked_range(text, source.size)
        if asked is None:
            raise Fault("InvalidArgument", "x-amz-copy-source-range must be of the form bytes=first-last.")
        start, length = asked
    content, slices = exchange.store.content(source), exchange.store.slices(source.files, start, length)

    def copy() -> tuple[Files, str]:
        name, descriptor = exchange.store.new_file()
        digest = md5(usedforsecurity=False)
        try:
            with os.fdopen(descriptor, "wb") as target:
                if content is not None:
                    piece = content[start : start + length]
                    digest.update(piece)
                    target.write(piece)
                for each in slices:
                    with open(each.path, "rb", buffering=0) as file:
                        file.seek(each.offset)
                        left = each.length
                        while left and (piece := file.read(min(left, COPY_BYTES))):
                            left -= len(piece)
                            digest.update(piece)
                            target.write(piece)
            exchange.store.flush_files([(name, length)])
        except BaseException:
            exchange.store.discard([(name, 0)])
            raise
        return [(name, length)], digest.hexdigest()

    files, etag = yield Work(copy)
    try:
        upload_of(exchange)
    except Fault:
        exchange.store.discard(files)
        raise
    part = Part(number, length, etag, now_ms(), {}, files)
    exchange.store.put_part(upload.id, part)
    return document(
        "CopyPartResult",
        f"<LastModified>{time_text(part.modified)}</LastModified><ETag>&quot;{etag}&quot;</ETag>",
    )


def complete_upload(exchange: Exchange) -> Answer:
    request = exchange.request
    upload_id = request.query["uploadId"]
    tree = yield from exchange.document("CompleteMultipartUpload")
    done = exchange.store.object(request.bucket, request.key)
    if done is not None and done.upload == upload_id:
        return _completed(exchange, done)  # the answer was lost, and the client asks again
    upload = upload_of(exchange)
    exchange.check_write()
    chosen = _chosen_parts(tree, {part.number: part for part in exchange.store.parts(upload.id)})
    size = sum(part.size for part in chosen)
    if request.headers.get("x-amz-mp-object-size", str(size)) != str(size):
        raise Fault("InvalidRequest", "The provided object size does not match the one of the parts.")
    files = [file for part in chosen for file in part.files]
    row = Object(request.key, size, "", now_ms(), upload.headers, {}, files, upload.id)
    tags = b"".join(_tag_bytes(part.etag) for part in chosen)
    row.etag = f"{md5(tags, usedforsecurity=False).hexdigest()}-{len(chosen)}"
    algorithm = upload.algorithm
    whole = {name: request.headers[CHECKSUM + name] for name in HASHERS if CHECKSUM + name in request.headers}
    named = hash_in(request.key)
    needed = {name for name, value in whole.items() if "-" not in value}
    if named:
        needed.add("xxhash128")
    if upload.checksum_type == "FULL_OBJECT" and algorithm:
        needed.add(algorithm)
    if needed:
        digests = yield Work(lambda: digests_of(exchange.store, files, needed))
        upload_of(exchange)
        now = {part.number: part.files for part in exchange.store.parts(upload.id)}
        if any(now.get(part.number) != part.files for part in chosen):
            raise Fault("InvalidPart", "A part was uploaded anew meanwhile.")
        exchange.check_write()
        if named and digests["xxhash128"].hex() != named:
            raise Fault("BadDigest", "The content's XXH3-128 is not the one that the key names.")
        for name in needed & (whole.keys() | ({algorithm} if algorithm else set())):
            if digests[name]:
                row.checksums[name] = b64encode(digests[name]).decode()
            elif name in whole:
                row.checksums[name] = whole[name]
    if algorithm and upload.checksum_type == "COMPOSITE" and all(algorithm in part.checksums for part in chosen):
        row.checksums[algorithm] = composite(algorithm, [part.checksums[algorithm] for part in chosen])
    for name, value in whole.items():
        if row.checksums.get(name, value) != value:
            raise Fault("BadDigest", f"The {name.upper()} you specified did not match the calculated checksum.")
    exchange.store.finish_upload(upload.id, request.bucket, row)
    return _completed(exchange, row)


def _completed(exchange: Exchange, row: Object) -> Response:
    request = exchange.request
    sums = "".join(element(f"Checksum{name.upper()}", value) for name, value in row.checksums.items())
    location = f"http://{request.headers.get('host', '')}{request.path}"
    return document(
        "CompleteMultipartUploadResult",
        f"{element('Location', location)}{element('Bucket', request.bucket)}"
        f"{element('Key', request.key.decode())}<ETag>&quot;{row.etag}&quot;</ETag>{sums}",
    )


def _chosen_parts(tree: Any, stored: dict[int, Part]) -> list[Part]:
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


def _tag_bytes(etag: str) -> bytes:
    return bytes.fromhex(etag.partition("-")[0])
