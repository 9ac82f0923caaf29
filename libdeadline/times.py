"""Times as records carry them: RFC 3339 text in UTC, from and to datetimes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)\Z")


def text_of(moment: datetime) -> str:
    """RFC 3339 text, UTC, with microseconds only where there are any: 2025-07-03T10:49:33.821000Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def of_text(text: str) -> datetime:
    """The moment of an RFC 3339 or ISO 8601 text; without an offset it is taken as local time.

    Raises: ValueError.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.astimezone()


def texts(value: Any) -> Any:
    """`value` with every datetime in it turned to text."""
    if isinstance(value, datetime):
        return text_of(value)
    if isinstance(value, dict):
        return {name: texts(member) for name, member in value.items()}
    if isinstance(value, list):
        return [texts(member) for member in value]
    return value


def moments(value: Any, name: str = "") -> Any:
    """The inverse of `texts` for an answer of the service, whose times are the members named ...At."""
    if isinstance(value, dict):
        return {key: moments(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [moments(member, name) for member in value]
    if isinstance(value, str) and name.endswith("At") and _TIME.match(value):
        return of_text(value)
    return value
