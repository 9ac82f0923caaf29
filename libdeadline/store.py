"""The content-addressed store of a queue's job attachments: its keys, what is in it, and what is known to be in it.

Bucket-compatible with the reference client: keys, metadata and the readers' rules are its own.
Source: attachments specification, S3 layout and requests; local caches.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Condition, Lock, Thread
from time import gmtime, strftime, time
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from . import statuses
from .errors import Trouble
from .s3 import S3, Found, S3Error, checksum
from .sockets import Changed

if TYPE_CHECKING:
    from .aws import Session

DATA, MANIFESTS = "Data", "Manifests"
SUFFIX = ".xxh128"
MANIFEST_TRIES = 4  # to read a manifest as it is
MANIFEST_BYTES = 1 << 32  # most of a manifest: some twenty million files
SPOOLED_BYTES = 1 << 20  # of a manifest that is read, beyond which it is kept on disk
PAGE_KEYS = 1000  # of a listing
LIST_FROM = 64  # distinct contents, from which it is worth looking at a page of the listing
HEADS_A_PAGE = 10  # a page of a listing costs about as much as so many HEADs
MOST_PAGES = 1000  # of a listing that is read whole: a million keys, 25 MB here
LISTERS = 8  # ranges of the listing that are read at the same time, at the most
RANGES_A_PAGE = 1.2  # so that few of them need a second page
TRUST_S = 30 * 86400.0  # how long an object that was seen is taken to be still there
CHECKED_FIRST = 8  # hits of the check cache that are verified before any is trusted
TIDIED = 0.02  # share of the runs that remove from the check cache what is not believed any more
GUESSED_BYTES = 1 << 17  # of a content that may be sent unasked
GUESS_AFTER = 16  # contents that were asked for
GUESS_SHARE = 0.2  # of them that were there, lately, up to which the next is taken to be new
PROBE_EVERY = 16  # of those one is asked for all the same
CACHE_BATCH = 500  # objects that one transaction remembers
CACHE_LOADED = 100_000  # objects that are read into memory at once, some 15 MB

_OWN_NAME = re.compile(rf"[0-9a-f]{{32}}{re.escape(SUFFIX)}\Z")
_TASK_OUTPUT = re.compile(
    r"(?P<step>step-[0-9a-f]{32})/(?:(?P<task>task-[0-9a-f]{32}-\d+)/)?"
    r"(?P<folder>(?P<time>[^/]*?)_(?P<action>sessionaction-[0-9a-f]{32}-\d+))/(?P<name>[^/]*output[^/]*)\Z"
)


class OutputKey(NamedTuple):
    """The parts of an output manifest's key below its job."""

    step_id: str
    task_id: str | None
    folder: str
    action_id: str
    name: str


class Reading(NamedTuple):
    """A manifest that was read from a store: its bytes, how many, their XXH3 128, and what the store tells of it."""

    data: IO[bytes]
    size: int
    hash: str
    metadata: dict[str, str]
    modified: str


def join(prefix: str, *parts: str) -> str:
    """A key below a root prefix, which is never normalised; an empty prefix adds nothing."""
    return "/".join((prefix, *parts) if prefix else parts)


def parse_uri(uri: str) -> tuple[str, str]:
    """(bucket, root prefix) of s3://bucket/prefix; a prefix that ends in / keeps it, as in a queue's settings.

    Raises: Trouble (64).
    """
    match = re.fullmatch(r"s3://([^/]+)/(.+)", uri)
    if not match:
        raise Trouble(f"'{uri}' is not of the form s3://<bucket>/<root prefix>", statuses.USAGE)
    return match[1], match[2]


def input_manifest(farm_id: str, queue_id: str, root: str) -> str:
    """Where an input manifest goes, below Manifests/: a new place for each submission."""
    from uuid import uuid4

    from .paths import root_hash

    return f"{farm_id}/{queue_id}/Inputs/{uuid4().hex}/{root_hash(root)}_input"


def output_manifest(
    farm_id: str,
    queue_id: str,
    job_id: str,
    step_id: str,
    task_id: str | None,
    action_id: str,
    started_at: float,
    root: str,
    location: str | None = None,
) -> str:
    """Where a session action's output manifest goes, below Manifests/. Units: `started_at` in epoch seconds."""
    from .paths import root_hash

    task = f"{task_id}/" if task_id else ""
    folder = f"{action_time(started_at)}_{action_id}"
    return f"{farm_id}/{queue_id}/{job_id}/{step_id}/{task}{folder}/{root_hash((location or '') + root)}_output"


def action_time(started_at: float) -> str:
    """Epoch seconds as output keys spell them, microseconds cut off as the worker agent does."""
    whole = int(started_at)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(whole))}.{int((started_at - whole) * 1e6):06d}Z"


def output_key(below_job: str) -> OutputKey | None:
    """The parts of what follows <job id>/ in an output manifest's key, or None where it is no such key."""
    match = _TASK_OUTPUT.match(below_job)
    if not match:
        return None
    return OutputKey(match["step"], match["task"], match["folder"], match["action"], match["name"])


def latest_outputs(keys: Iterable[tuple[OutputKey, Found]]) -> list[tuple[OutputKey, Found]]:
    """Of each task's outputs those of its latest attempt; outputs of steps without tasks are all kept.

    Source: attachments specification, which manifests.
    """
    rows = list(keys)
    latest: dict[str, str] = {}
    for key, _ in rows:
        if key.task_id:
            latest[key.task_id] = max(latest.get(key.task_id, ""), key.folder)
    return [(key, found) for key, found in rows if not key.task_id or latest[key.task_id] == key.folder]


def root_metadata(root: str, location: str | None = None) -> dict[str, str]:
    """User metadata of an output manifest: its asset root, in JSON as well where it is not ASCII."""
    from json import dumps

    metadata = {"asset-root": root if root.isascii() else dumps(root)}
    if not root.isascii():
        metadata["asset-root-json"] = dumps(root)
    if location:
        metadata["file-system-location-name"] = location
    return metadata


def root_of(metadata: Mapping[str, str]) -> str | None:
    """The asset root that an output manifest's metadata tells, or None.

    Raises: Trouble (65) where asset-root-json is no JSON string.
    """
    text = metadata.get("asset-root-json")
    if text is None:
        return metadata.get("asset-root")
    from json import loads

    try:
        root = loads(text)
    except ValueError:
        root = None
    if not isinstance(root, str):
        raise Trouble("the manifest's asset-root-json is no JSON string", statuses.DATA)
    return root


class Store:
    """The store below a root prefix of a bucket. Its methods may be called from any thread."""

    def __init__(self, s3: S3, prefix: str) -> None:
        self.s3, self.prefix = s3, prefix

    @classmethod
    def open(cls, session: Session, bucket: str, prefix: str, *, expect_owner: bool = True, **options: Any) -> Store:
        """The store as `session` reaches it; `options` are those of `S3`.

        The bucket's owner is expected to be the account of the credentials, where that can be found out.
        """
        owner = account_of(session) if expect_owner else None
        transport = session.transport
        s3 = S3(
            session.endpoint("s3"),
            session.region,
            session.credentials,
            bucket,
            owner=owner,
            ca_bundle=transport.ca_bundle or None,
            proxy=transport.proxy or None,
            forget=session.forget_credentials,
            **options,
        )
        return cls(s3, prefix)

    @classmethod
    def of_queue(cls, session: Session, queue: Mapping[str, Any], **options: Any) -> Store:
        """The store of a queue, as GetQueue tells of it, reached by the queue's own role.

        Raises: Trouble (78) where the queue has none.
        """
        from .aws import queue_session

        settings = queue.get("jobAttachmentSettings") or {}
        if not settings.get("s3BucketName"):
            raise Trouble(
                f"the queue '{queue['queueId']}' has no files: it has no job attachment settings",
                statuses.CONFIGURATION,
            )
        role = queue_session(session, queue["farmId"], queue["queueId"])
        return cls.open(role, settings["s3BucketName"], settings.get("rootPrefix") or "", **options)

    def data_key(self, hash: str) -> str:
        """The key of a content."""
        return join(self.prefix, DATA, hash + SUFFIX)

    def manifest_key(self, path: str) -> str:
        """The key of a manifest by its path below Manifests/."""
        return join(self.prefix, MANIFESTS, path)

    def url(self) -> str:
        """How a person writes the store's address."""
        return self.s3.url(self.prefix)

    def read_manifest(self, path: str, hash: str | None = None) -> Reading | None:
        """A manifest, by its path below Manifests/; None where there is none. `hash` is what was recorded of it.

        Where nothing was, what comes is compared with the checksum that the store has. Where the store has none, and
        the connection is not encrypted, it must come twice alike: a wrong digit in it would be a wrong file.
        Raises: Trouble, 65 where it is not what was recorded, 75 where it never comes alike.
        """
        from tempfile import SpooledTemporaryFile

        from xxhash import xxh3_128

        key = self.manifest_key(path)
        seen: set[str] = set()
        for _ in range(MANIFEST_TRIES):
            digest = xxh3_128()
            data: IO[bytes] = SpooledTemporaryFile(SPOOLED_BYTES)  # noqa: SIM115

            def sink(block: memoryview) -> None:
                digest.update(block)  # noqa: B023
                data.write(block)  # noqa: B023

            try:
                response = self.s3.fetch(key, sink, most=MANIFEST_BYTES, checked=not hash)
            except Changed:
                continue
            if response is None:
                return None
            found = digest.hexdigest()
            if hash:
                is_right = found == hash
            else:
                told = response.header("x-amz-checksum-xxhash128") or ""
                is_known = bool(told) and "-" not in told  # that of an upload in parts is another
                is_right = told == checksum(found) if is_known else self.s3.is_private or found in seen
            if is_right:
                size = data.tell()
                data.seek(0)
                return Reading(data, size, found, response.metadata(), response.header("last-modified") or "")
            if hash and found in seen:
                break
            seen.add(found)
        if hash and seen:
            raise Trouble(
                f"the manifest '{self.s3.url(key)}' is not the one that was recorded: its hash is {found}",
                statuses.DATA,
            )
        raise Trouble(f"'{self.s3.url(key)}' never comes twice alike: try again", statuses.TRY_AGAIN)

    def _arrived(self, path: str, hash: str) -> bool:
        """Whether a manifest that was stored is what was sent: it is read back where nobody else made sure."""
        if self.s3.is_private or (self.s3.verifies and self.s3.checksums):
            return True
        try:
            return self.read_manifest(path, hash) is not None
        except S3Error:
            return True  # stored, but not to be read with these credentials
        except Trouble:
            return False

    def put_manifest(self, path: str, file: str, hash: str | None, metadata: Mapping[str, str] | None = None) -> str:
        """Store the manifest in a local file: its hash.

        Raises: Trouble (75) where the file is not what `hash` was recorded of; OSError.
        """
        from xxhash import xxh3_128

        key = self.manifest_key(path)
        with open(file, "rb", buffering=0) as source:
            digest = xxh3_128()
            size = 0
            while block := source.read(1 << 20):
                digest.update(block)
                size += len(block)
            found = digest.hexdigest()
            if hash is None or found == hash:
                for _ in range(3):
                    try:
                        self.s3.put_file(key, source.fileno(), size, hash=found, metadata=metadata)
                    except Changed:
                        continue  # damaged on its way, or written to meanwhile
                    if self._arrived(path, found):
                        return found
        raise Trouble(f"the manifest '{file}' changed while it was stored: run again", statuses.TRY_AGAIN, path=file)


def account_of(session: Session) -> str | None:
    """The account that the session's credentials belong to, or None where nobody can tell."""
    named = getattr(session.credentials(), "account_id", None) or os.environ.get("AWS_ACCOUNT_ID")
    if named:
        return str(named)
    try:
        return str(session.client("sts", attempts=1).call("GetCallerIdentity")["Account"])
    except (Trouble, KeyError):
        return None


class Hashes:
    """A set of content hashes with a number each: plain while they are few, then packed, a million in 25 MB.

    Shape: hashes are 32 lower-case hex digits; numbers are 0 to 2**48 - 1.
    """

    _WIDTH = 20  # 14 bytes of the hash (2 choose the bucket) and 6 of the number

    def __init__(self, plain: int = 1 << 15) -> None:
        """`plain`: how many are kept in a dict, which is ten times as quick; these take some 6 MB."""
        self._most_plain = plain
        self._plain: dict[str, int] | None = {}
        self._buckets: list[bytearray | None] = []
        self._packed = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return self._packed if self._plain is None else len(self._plain)

    def get(self, hash: str) -> int | None:
        """The number of a hash, or None where it is not in the set."""
        if self._plain is not None:
            return self._plain.get(hash)
        at, bucket = self._place(hash)
        return None if at < 0 or bucket is None else int.from_bytes(bucket[at + 14 : at + 20], "big")

    def set(self, hash: str, number: int) -> None:
        """Put a hash in, or give it another number."""
        if self._plain is not None:
            self._plain[hash] = number
            if len(self._plain) > self._most_plain:
                self._pack()
            return
        raw = bytes.fromhex(hash)
        at, bucket = self._place(hash)
        if bucket is None:
            bucket = self._buckets[int.from_bytes(raw[:2], "big")] = bytearray()
        if at >= 0:
            bucket[at + 14 : at + 20] = number.to_bytes(6, "big")
        else:
            bucket += raw[2:] + number.to_bytes(6, "big")
            self._packed += 1

    def _pack(self) -> None:
        assert self._plain is not None
        plain, self._plain = self._plain, None
        self._buckets = [None] * 65536
        for hash, number in plain.items():
            self.set(hash, number)

    def _place(self, hash: str) -> tuple[int, bytearray | None]:
        raw = bytes.fromhex(hash)
        bucket = self._buckets[int.from_bytes(raw[:2], "big")]
        if bucket is None:
            return -1, None
        rest = raw[2:]
        at = bucket.find(rest)
        while at >= 0 and at % self._WIDTH:
            at = bucket.find(rest, at + 1)
        return at, bucket


class CheckCache:
    """What was seen in which store and when, in a file of our own that may be deleted at any time.

    Any number of processes may share it. Where it can't be used it knows nothing, and says why once in `problem`.
    """

    def __init__(self, path: str, store: str) -> None:
        """`store` names endpoint, bucket and root prefix."""
        self.problem: str | None = None
        self._lock = Lock()
        self._batch: list[tuple[int, bytes, int, int]] = []
        self._base: Any = None
        self._asked = 0
        self._loaded: dict[bytes, int] | None = None
        try:
            import sqlite3

            os.makedirs(os.path.dirname(path), exist_ok=True)
            base = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=OFF")  # a lost row costs a request, no more
            base.execute("CREATE TABLE IF NOT EXISTS stores (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
            base.execute(
                "CREATE TABLE IF NOT EXISTS seen (store INTEGER, hash BLOB, size INTEGER, at INTEGER, "
                "PRIMARY KEY (store, hash)) WITHOUT ROWID"
            )
            base.execute("INSERT OR IGNORE INTO stores (name) VALUES (?)", (store,))
            (self._store,) = base.execute("SELECT id FROM stores WHERE name = ?", (store,)).fetchone()
            self._base = base
        except (OSError, ImportError) as error:
            self.problem = str(error)
        except Exception as error:
            if type(error).__module__ != "sqlite3":
                raise
            self.problem = str(error)
            self._discard(path)

    def size_of(self, hash: str) -> int | None:
        """The size under which the object was last seen, not too long ago, or None."""
        if self._base is None:
            return None
        raw = bytes.fromhex(hash)
        if self._loaded is not None:
            return self._loaded.get(raw)
        with self._lock:
            self._asked += 1
            if self._asked == CACHE_BATCH // 8:
                self._load()
            row = self._run("SELECT size, at FROM seen WHERE store = ? AND hash = ?", (self._store, raw))
        return row[0] if row and row[1] > time() - TRUST_S else None

    def _load(self) -> None:
        """Read all that is known of the store at once, unless that is very much."""
        try:
            text = "SELECT hash, size FROM seen WHERE store = ? AND at > ? LIMIT ?"
            rows = self._base.execute(text, (self._store, time() - TRUST_S, CACHE_LOADED + 1)).fetchall()
        except Exception as error:
            if type(error).__module__ != "sqlite3":
                raise
            self.problem = str(error)
            return
        if len(rows) <= CACHE_LOADED:
            self._loaded = dict(rows)

    def add(self, hash: str, size: int) -> None:
        """Remember that the object is there."""
        if self._base is None:
            return
        with self._lock:
            self._batch.append((self._store, bytes.fromhex(hash), size, int(time())))
            if len(self._batch) >= CACHE_BATCH:
                self._flush()

    def forget(self) -> None:
        """Drop all that is known of this store: it turned out to be wrong."""
        with self._lock:
            self._batch.clear()
            self._loaded = None
            if self._base is not None:
                self._run("DELETE FROM seen WHERE store = ?", (self._store,))

    def close(self) -> None:
        """Write what is left and close the file."""
        with self._lock:
            if self._base is not None:
                self._flush()
                if os.urandom(1)[0] < 256 * TIDIED:
                    self._run("DELETE FROM seen WHERE at < ?", (time() - TRUST_S,))
                self._base.close()
                self._base = None

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        try:
            self._base.execute("BEGIN IMMEDIATE")
            self._base.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", batch)
            self._base.execute("COMMIT")
        except Exception as error:
            if type(error).__module__ != "sqlite3":
                raise
            self.problem = str(error)
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")

    def _run(self, text: str, values: tuple[Any, ...]) -> Any:
        try:
            return self._base.execute(text, values).fetchone()
        except Exception as error:
            if type(error).__module__ != "sqlite3":
                raise
            self.problem = str(error)
            return None

    def _discard(self, path: str) -> None:
        # A damaged cache is worth nothing; the next run starts a new one.
        if "malformed" in (self.problem or "") or "not a database" in (self.problem or ""):
            for name in (path, path + "-wal", path + "-shm"):
                try:
                    os.unlink(name)
                except OSError:
                    pass


class Presence:
    """Knows, finds out and remembers which contents are in a store, by the cheapest means for the run.

    A few contents are asked for one by one. Once there are many, a first page of the listing, in which hashes lie
    evenly, tells how large the store is, and whether to read all of its listing or to go on asking. Where hardly any
    is found that way, small ones may be sent unasked: the store refuses what it has.
    """

    def __init__(self, store: Store, cache: CheckCache | None) -> None:
        self.store, self.cache = store, cache
        self.listed: Hashes | None = None  # all that is in the store, where that was listed
        self.backlog: Callable[[], int] = lambda: 0  # how many contents are waiting to be looked for by now
        self._changed = Condition()
        self._listing = False
        self._estimate: float | None = None  # keys in the store
        self._may_list = True
        self._waiting = 0
        self.trusted = 0
        self._salt = int.from_bytes(os.urandom(4), "big")
        self.stale = False
        self._asked = self._guessed = 0
        self._share = 0.5  # of those that were asked for that were there, the latest counting most

    def expect(self, waiting: int) -> None:
        """Tell how many contents are waiting to be looked for; starts a listing where that pays."""
        if waiting < LIST_FROM or not self._may_list or self._listing or self.listed is not None:
            return
        if self._estimate is not None and self._estimate / PAGE_KEYS * HEADS_A_PAGE > waiting:
            return
        self._listing = True
        Thread(target=self._list, args=(waiting,), daemon=True).start()

    def listing(self) -> Hashes | None:
        """All that is in the store, where that is being listed: waited for, and looked up for less than a hand-over."""
        if self._listing:
            with self._changed:
                while self._listing:
                    self._changed.wait()
        return self.listed

    def find(self, hash: str) -> int | None:
        """The size of the object of a content, or None where the store does not have it."""
        return self.find_each([hash])[0]

    def find_each(self, hashes: list[str]) -> list[int | None]:
        """What `find` tells of each content."""
        self._await_listing()
        if self.listed is not None:
            return [self.listed.get(hash) for hash in hashes]
        rows = self.store.s3.head_each([self.store.data_key(hash) for hash in hashes])
        for row in rows:
            self.learn(row is not None)
        return [row.size if row else None for row in rows]

    def is_likely_new(self, size: int) -> bool:
        """Whether to send a content of that many bytes unasked, on the condition that it is not there."""
        self._await_listing()
        if self.listed is not None or size > GUESSED_BYTES or self._asked < GUESS_AFTER or self._share > GUESS_SHARE:
            return False
        self._guessed += 1
        return self._guessed % PROBE_EVERY != 0

    def learn(self, was_there: bool) -> None:
        """Take note of whether a content was there."""
        self._asked += 1
        self._share += (was_there - self._share) / GUESS_AFTER

    def _await_listing(self) -> None:
        if self._listing:
            with self._changed:
                while self._listing and self._estimate is not None and self.listed is None:
                    self._changed.wait()

    def cached(self, hash: str) -> tuple[int | None, bool]:
        """(size by the check cache, whether to verify that): of the hits some are always verified."""
        if self.cache is None or self.stale:
            return None, False
        size = self.cache.size_of(hash)
        if size is None:
            return None, False
        self.trusted += 1
        chance = (int(hash[:8], 16) ^ self._salt) / 2**32
        return size, self.trusted <= CHECKED_FIRST or chance < 2 * CHECKED_FIRST / self.trusted

    def remember(self, hash: str, size: int) -> None:
        """Remember that a content is in the store."""
        if self.cache is not None:
            self.cache.add(hash, size)

    def refute(self) -> None:
        """A hit of the check cache was wrong: none is believed any more."""
        self.stale = True
        if self.cache is not None:
            self.cache.forget()

    def _list(self, waiting: int) -> None:
        base = self.store.data_key("")[: -len(SUFFIX)]
        try:
            table = Hashes()
            first = next(self.store.s3.pages(base, most=PAGE_KEYS))
            self._take(first.keys, first.sizes, table, len(base))
            if first.next is None:
                self._estimate = float(table.count)
                self.listed = table
                return
            names = [key[len(base) : len(base) + 8] for key in first.keys]
            last = next((name for name in reversed(names) if re.fullmatch("[0-9a-f]{8}", name)), "")
            share = (int(last, 16) + 1) / (1 << 32) if last else 1.0
            estimate = table.count / share
            pages = estimate / PAGE_KEYS
            waiting = max(waiting, self.backlog())  # all of them may have come in while the page was on its way
            if pages > MOST_PAGES or pages * HEADS_A_PAGE > waiting:
                self._estimate = estimate
                return
            self._estimate = estimate  # from here on, those who look wait for the listing
            self._read_all(base, first.keys[-1], last, table, pages)
            self.listed = table
        except Exception:
            # Without permission to list, or where it fails for another reason, each content is asked for.
            self._may_list = False
        finally:
            with self._changed:
                self._listing = False
                self._changed.notify_all()

    def _read_all(self, base: str, last_key: str, last: str, table: Hashes, pages: float) -> None:
        """Read the rest of the listing, in ranges at the same time; of few pages each range is hardly more than one."""
        start = int(last, 16) if last else 0
        ranges = max(1, min(LISTERS, int((pages - 1) * RANGES_A_PAGE + 1)))
        step = ((1 << 32) - start) // ranges + 1
        bounds = [last_key] + [f"{base}{start + step * index:08x}" for index in range(1, ranges)]
        failed: list[BaseException] = []
        lock = Lock()

        def read(after: str, end: str | None) -> None:
            try:
                for number, page in enumerate(self.store.s3.pages(base, after=after)):
                    if number > MOST_PAGES:
                        raise Trouble(f"the listing of '{self.store.s3.url(base)}' has no end", statuses.UNAVAILABLE)
                    count = len(page.keys) if end is None else bisect_right(page.keys, end)
                    with lock:
                        self._take(page.keys[:count], page.sizes, table, len(base))
                    if count < len(page.keys) or failed:
                        return
            except BaseException as error:
                failed.append(error)

        each_range: Iterator[tuple[str, str | None]] = zip(bounds, [*bounds[1:], None], strict=True)
        threads = [Thread(target=read, args=each, daemon=True) for each in each_range]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def _take(self, keys: list[str], sizes: list[int], table: Hashes, start: int) -> None:
        for key, size in zip(keys, sizes, strict=False):
            if _OWN_NAME.match(key, start):
                table.set(key[start : start + 32], size)
