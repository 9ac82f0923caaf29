"""When a request is to be refused although it is allowed: conditions on what is there, and ranges of it.

Source: RFC 9110 sections 13 and 14; Amazon S3 API reference, "Conditional requests".
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from math import inf

from .faults import Fault
from .store import Object

MOST_PARTS = 10000
FAILED = "At least one of the pre-conditions you specified did not hold."


def check_read(headers: dict[str, str], row: Object, prefix: str) -> None:
    """If-Match and the like: for GET and HEAD, or with `prefix` for the source of a copy.

    Source: RFC 9110 section 13.2.2.
    """
    failed = Fault("PreconditionFailed", FAILED)
    unchanged = failed if prefix else Fault("NotModified", "Not Modified")
    if f"{prefix}if-match" in headers:
        if not is_tag_among(row.etag, headers[f"{prefix}if-match"]):
            raise failed
    elif row.modified // 1000 > _http_time(headers.get(f"{prefix}if-unmodified-since"), inf):
        raise failed
    if f"{prefix}if-none-match" in headers:
        if is_tag_among(row.etag, headers[f"{prefix}if-none-match"]):
            raise unchanged
    elif row.modified // 1000 <= _http_time(headers.get(f"{prefix}if-modified-since"), -inf):
        raise unchanged


def check_write(headers: dict[str, str], row: Object | None) -> None:
    """If-None-Match and If-Match of a request that writes, where `row` is what is there.

    Raises: Fault.
    """
    if "if-none-match" in headers:
        if headers["if-none-match"].strip() != "*":
            raise Fault("NotImplemented", "If-None-Match takes '*' with a request that writes.")
        if row is not None:
            raise Fault("PreconditionFailed", FAILED, Condition="If-None-Match")
    if "if-match" in headers:
        if row is None:
            raise Fault("NoSuchKey", "The specified key does not exist.")
        if not is_tag_among(row.etag, headers["if-match"]):
            raise Fault("PreconditionFailed", FAILED, Condition="If-Match")


def is_tag_among(etag: str, text: str) -> bool:
    tags = [each.strip().removeprefix("W/").strip('"') for each in text.split(",")]
    return "*" in tags or etag in tags


def _http_time(text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return default  # RFC 9110: a condition with a malformed date is ignored


def asked_range(text: str, size: int) -> tuple[int, int] | None:
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


def part_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_PARTS):
        raise Fault("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive.")
    return int(text)


def part_range(row: Object, text: str) -> tuple[int, int]:
    """(start, length) of one part of an object."""
    parts = row.files or [("", 0)]
    number = part_number(text)
    if number > len(parts):
        raise Fault("InvalidRange", "The requested partnumber is not satisfiable.")
    return sum(size for _, size in parts[: number - 1]), parts[number - 1][1]
