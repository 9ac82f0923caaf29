"""Lists of objects and of unfinished uploads: pages, common prefixes, continuation.

Source: Amazon S3 API reference, ListObjectsV2, ListObjects, ListMultipartUploads, ListParts.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from .documents import document, element, key_text, time_text
from .faults import Fault
from .store import Object, Store, Upload
from .wire import Request, Response

PAGE = 1000  # most keys and common prefixes in an answer


@dataclass(slots=True)
class Page:
    """One page: `last` is the key or common prefix that the next page starts after."""

    objects: list[Object]
    prefixes: list[bytes]
    last: bytes | None
    is_truncated: bool


def after(prefix: bytes) -> bytes | None:
    """The first key that sorts after all that start with `prefix`; None where there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else None


def page(store: Store, bucket: str, prefix: bytes, delimiter: bytes, start: bytes, limit: int) -> Page:
    """At most `limit` objects and common prefixes after `start`, in order.

    A common prefix is passed over in one step, however many objects it holds.
    """
    found = Page([], [], None, False)
    if limit <= 0:
        return found
    end = after(prefix)
    # The key after `start` in byte order; a common prefix was given whole, so all of it lies behind.
    if delimiter and start.startswith(prefix) and (cut := start.find(delimiter, len(prefix))) >= 0:
        behind = after(start[: cut + len(delimiter)])
        if behind is None:
            return found
        position = behind
    else:
        position = start + b"\0" if start else b""
    position = max(position, prefix)
    while True:
        room = limit - len(found.objects) - len(found.prefixes)
        jump = None
        for row in store.objects(bucket, position, end, room + 1):
            if len(found.objects) + len(found.prefixes) == limit:
                found.is_truncated = True
                return found
            cut = row.key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                common = row.key[: cut + len(delimiter)]
                found.prefixes.append(common)
                found.last = common
                jump = after(common)
                break
            found.objects.append(row)
            found.last = row.key
        if jump is None:
            return found
        position = jump


def list_objects(store: Store, request: Request, account: str) -> Response:
    """The answer to ListObjectsV2 (`list-type=2`) and ListObjects."""
    query = request.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    encoding = _encoding(query)
    limit = min(_whole(query, "max-keys", PAGE), PAGE)
    is_v2 = query.get("list-type") == "2"
    if is_v2 and "continuation-token" in query:
        start = _untoken(query["continuation-token"])
    else:
        start = query.get("start-after" if is_v2 else "marker", "").encode()
    found = page(store, request.bucket, prefix.encode(), delimiter.encode(), start, limit)
    # One whose file a crash has cut is not served: were it listed, no client would store it again.
    objects = [row for row in found.objects if store.is_whole(row)]

    shown = [element("Name", request.bucket), element("Prefix", key_text(prefix.encode(), encoding))]
    if delimiter:
        shown.append(element("Delimiter", key_text(delimiter.encode(), encoding)))
    shown += [element("MaxKeys", limit), element("IsTruncated", "true" if found.is_truncated else "false")]
    if encoding:
        shown.append(element("EncodingType", encoding))
    if is_v2:
        shown.append(element("KeyCount", len(objects) + len(found.prefixes)))
        if "continuation-token" in query:
            shown.append(element("ContinuationToken", query["continuation-token"]))
        if query.get("start-after"):
            shown.append(element("StartAfter", key_text(query["start-after"].encode(), encoding)))
        if found.is_truncated and found.last is not None:
            shown.append(element("NextContinuationToken", _token(found.last)))
    else:
        shown.append(element("Marker", key_text(start, encoding)))
        if found.is_truncated and found.last is not None:
            shown.append(element("NextMarker", key_text(found.last, encoding)))
    owner = f"<Owner>{element('ID', account)}{element('DisplayName', account)}</Owner>"
    with_owner = not is_v2 or query.get("fetch-owner") == "true"
    for row in objects:
        shown.append(
            f"<Contents>{element('Key', key_text(row.key, encoding))}"
            f"<LastModified>{time_text(row.modified)}</LastModified><ETag>&quot;{row.etag}&quot;</ETag>"
            f"<Size>{row.size}</Size>{owner if with_owner else ''}"
            f"<StorageClass>STANDARD</StorageClass></Contents>"
        )
    shown += [_common(each, encoding) for each in found.prefixes]
    return document("ListBucketResult", "".join(shown))


def list_uploads(store: Store, request: Request, account: str) -> Response:
    query = request.query
    prefix, delimiter = query.get("prefix", "").encode(), query.get("delimiter", "").encode()
    encoding = _encoding(query)
    limit = min(_whole(query, "max-uploads", PAGE), PAGE)
    marker, id_marker = query.get("key-marker", "").encode(), query.get("upload-id-marker", "")
    rows = [row for row in store.uploads(request.bucket) if row.key.startswith(prefix)]
    if marker:
        passed = [row.id for row in rows if row.key == marker]
        later = set(passed[passed.index(id_marker) + 1 :]) if id_marker in passed else set()
        rows = [row for row in rows if row.key > marker or row.id in later]
    uploads: list[Upload] = []
    prefixes: list[bytes] = []
    is_truncated, last = False, ("", "")
    for row in rows:
        cut = row.key.find(delimiter, len(prefix)) if delimiter else -1
        common = row.key[: cut + len(delimiter)] if cut >= 0 else None
        if common is not None and prefixes and prefixes[-1] == common:
            continue
        if len(uploads) + len(prefixes) >= limit:
            is_truncated = True
            break
        if common is not None:
            prefixes.append(common)
        else:
            uploads.append(row)
        last = (key_text(row.key, encoding), row.id)
    owner = f"{element('ID', account)}{element('DisplayName', account)}"
    shown = [
        element("Bucket", request.bucket),
        element("KeyMarker", key_text(marker, encoding)),
        element("UploadIdMarker", id_marker),
        element("Prefix", key_text(prefix, encoding)),
        element("MaxUploads", limit),
        element("IsTruncated", "true" if is_truncated else "false"),
    ]
    if delimiter:
        shown.append(element("Delimiter", key_text(delimiter, encoding)))
    if encoding:
        shown.append(element("EncodingType", encoding))
    if is_truncated:
        shown += [element("NextKeyMarker", last[0]), element("NextUploadIdMarker", last[1])]
    for row in uploads:
        shown.append(
            f"<Upload>{element('Key', key_text(row.key, encoding))}{element('UploadId', row.id)}"
            f"<Initiator>{owner}</Initiator><Owner>{owner}</Owner><StorageClass>STANDARD</StorageClass>"
            f"{element('Initiated', time_text(row.created))}</Upload>"
        )
    shown += [_common(each, encoding) for each in prefixes]
    return document("ListMultipartUploadsResult", "".join(shown))


def list_parts(store: Store, request: Request, account: str) -> Response:
    query = request.query
    limit = min(_whole(query, "max-parts", PAGE), PAGE)
    marker = _whole(query, "part-number-marker", 0)
    rows = [part for part in store.parts(query["uploadId"]) if part.number > marker]
    encoding = _encoding(query)
    shown = [
        element("Bucket", request.bucket),
        element("Key", key_text(request.key, encoding)),
        element("UploadId", query["uploadId"]),
        element("PartNumberMarker", marker),
        element("MaxParts", limit),
        element("IsTruncated", "true" if len(rows) > limit else "false"),
        f"<Owner>{element('ID', account)}</Owner><StorageClass>STANDARD</StorageClass>",
    ]
    if len(rows) > limit > 0:
        shown.append(element("NextPartNumberMarker", rows[limit - 1].number))
    for part in rows[:limit]:
        sums = "".join(element(f"Checksum{name.upper()}", value) for name, value in part.checksums.items())
        shown.append(
            f"<Part>{element('PartNumber', part.number)}{element('LastModified', time_text(part.modified))}"
            f"<ETag>&quot;{part.etag}&quot;</ETag>{element('Size', part.size)}{sums}</Part>"
        )
    return document("ListPartsResult", "".join(shown))


def _common(prefix: bytes, encoding: str | None) -> str:
    return f"<CommonPrefixes>{element('Prefix', key_text(prefix, encoding))}</CommonPrefixes>"


def _encoding(query: dict[str, str]) -> str | None:
    encoding = query.get("encoding-type") or None
    if encoding not in (None, "url"):
        raise Fault("InvalidArgument", "Invalid Encoding Method specified in Request.")
    return encoding


def _whole(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise Fault("InvalidArgument", f"Argument {name} must be a whole number.", ArgumentName=name)
    return int(text)


def _token(key: bytes) -> str:
    return urlsafe_b64encode(b"1" + key).decode()


def _untoken(text: str) -> bytes:
    try:
        key = urlsafe_b64decode(text.encode("ascii"))
    except ValueError:
        key = b""
    if key[:1] != b"1":
        raise Fault("InvalidArgument", "The continuation token provided is incorrect.")
    return key[1:]
