"""What a store holds, and what its manifests need of it: for those who audit it, and those who clear it up.

Source: attachments specification, S3 layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

from . import manifest
from .errors import Trouble
from .pool import each
from .s3 import Found
from .store import SUFFIX, Store

READERS = 8  # manifests that are fetched at the same time
_NAME = re.compile(rf"([0-9a-f]{{32}})(?:{re.escape(SUFFIX)})?\Z")


def contents(store: Store) -> Iterator[list[tuple[Found, str | None]]]:
    """What lies under Data/, a page of the listing at a time: each object, and the hash that its name promises.

    The hash is None for what is no content by its name. Very early submitters wrote names without extension.
    """
    start = len(store.data_key("")) - len(SUFFIX)
    for page in store.s3.pages(store.data_key("")[:start]):
        yield [(found, match[1] if (match := _NAME.match(found.key[start:])) else None) for found in page.found]


def manifests(store: Store) -> Iterator[Found]:
    """What lies under Manifests/."""
    for page in store.s3.pages(store.manifest_key("")):
        # Consoles make objects named like folders.
        yield from (found for found in page.found if not (found.key.endswith("/") and not found.size))


def needs(store: Store, found: Iterable[Found]) -> Iterator[tuple[Found, Iterator[manifest.Entry] | Exception | None]]:
    """Of each manifest its entries, or why it can't be read, or None where it is gone by now.

    Raises: Trouble (65), on iterating over entries, where it is no manifest after all.
    """

    start = len(store.manifest_key(""))

    def read(at: Found) -> IO[bytes] | None:
        found = store.read_manifest(at.key[start:])
        return found.data if found else None

    for at, data in each(read, found, READERS):
        if data is None or isinstance(data, Exception):
            yield at, data
        else:
            yield at, manifest.read(data, at.key)


def moment(text: str) -> float:
    """Epoch seconds, whole, of a time as S3 spells it: RFC 3339 in listings, an HTTP date in headers.

    Raises: Trouble (65).
    """
    from datetime import datetime
    from email.utils import parsedate_to_datetime

    try:
        parse: Any = datetime.fromisoformat if text[:4].isdecimal() else parsedate_to_datetime
        return float(int(parse(text).timestamp()))
    except (ValueError, TypeError, IndexError):
        raise Trouble(f"the store gives a time that can't be read: '{text}'") from None


def time_text(epoch_s: float) -> str:
    """RFC 3339, UTC, of epoch seconds."""
    from time import gmtime, strftime

    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(epoch_s))


def store_of(args: Any) -> Store:
    """The store that a command is about: of the queue of its options or settings, or of --s3-root-uri.

    Raises: Trouble.
    """
    from . import aws
    from .store import parse_uri
    from .targets import config_of, target

    given = {"retry_s": args.seconds("--retry-for"), "stall_s": args.seconds("--stall")}
    limits: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if args["--s3-root-uri"]:
        bucket, prefix = parse_uri(args["--s3-root-uri"])
        return Store.open(aws.Session(config_of(args)), bucket, prefix, **limits)
    found = target(args)
    queue = found.session.client("deadline").call("GetQueue", {"farmId": found.farm_id, "queueId": found.queue_id})
    return Store.of_queue(found.session, queue, **limits)
