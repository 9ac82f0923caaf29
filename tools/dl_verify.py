"""dl-verify - check that a store holds what it should, and what its names say

Usage:
  dl-verify [options]

Options:
  --farm-id=<id>            Farm of the queue.
  --queue-id=<id>           Queue whose store to check.
  --profile=<name>          AWS profile to use.
  --region=<name>           AWS region to ask.
  --s3-root-uri=<uri>       Check the store s3://bucket/prefix, with the
                            profile's own credentials; no queue is asked.
  --sample=<percent>        Read only so many of a hundred contents, chosen
                            at random [default: 100].
  --quick                   Read no contents: see only that they exist, and
                            their sizes.
  --journal=<file>          Write to this file what was read and is good, and
                            don't read again what stands there.
  --repair-list=<file>      Write the files whose contents are missing or
                            wrong to this file, as records for dl-upload.
  --delete-damaged          Delete contents that are not what their names say,
                            once a second reading has found so too.
  --all                     Tell of what is good as well.
  --jobs=<n>                Contents that are read at the same time
                            [default: 16].
  --retry-for=<time>        How long passing failures in a row are endured
                            [default: 2m].
  --stall=<time>            Silence after which a connection is given up
                            [default: 2m].

Reads every content and hashes it, and every manifest and looks for what it
needs. Writes an object record of what is amiss, and has status 1 then.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import IO, TYPE_CHECKING, Any

from libdeadline import command, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble
from libdeadline.records import End, File, Object, Record, Root, encode

if TYPE_CHECKING:
    from libdeadline.s3 import Found
    from libdeadline.store import Hashes, Store

AMISS = 1  # the answer
GOOD, DAMAGED, MISSING, WRONG_SIZE, UNREADABLE, FOREIGN, DELETED = (
    "good",
    "damaged",
    "missing",
    "wrong_size",
    "unreadable",
    "foreign",
    "deleted",
)
FLUSH_EVERY_S = 1.0  # of the journal
ASKING = 8  # jobs that are asked for at the same time
STRIKES = 5  # contents in a row that can't be read, after which the store is thought to be ill


class Audit:
    """One run."""

    def __init__(self, args: Arguments, run: Run) -> None:
        from libdeadline.census import store_of
        from libdeadline.store import Hashes

        self.args, self.run = args, run
        self.share = _share(args["--sample"])
        self.threads = args.integer("--jobs", 1, 256) or 1
        self.salt = int.from_bytes(os.urandom(4), "big")
        self.store: Store = store_of(args)
        self.sizes = Hashes()  # what is in the store
        self.bad: dict[str, str] = {}  # hash to what is wrong with its content
        self.gone: set[str] = set()  # listed, and not there when they were read
        self.journal = Journal(args["--journal"], self.store) if args["--journal"] else None
        self.strikes = 0
        self.submissions = Submissions(args, run)
        self.figures = {"done_count": 0, "total_count": 0, "done_bytes": 0, "total_bytes": 0}

    def records(self) -> Iterator[Record]:
        """What is found. Returns the answer."""
        with _open(self.args["--repair-list"]) as repair:
            yield from self._contents()
            yield from self._manifests(repair)
        if self.args["--delete-damaged"]:
            yield from self._delete()

    # Contents.

    def _contents(self) -> Iterator[Record]:
        from libdeadline.pool import each

        for (found, hash), result in each(self._read, self._chosen(), self.threads):
            self._show(found)
            if result is None:
                # Deleted since it was listed, or lost behind a listing that still has it: who needs it tells.
                self.gone.add(hash)
                self.run.count(gone=1)
                continue
            if isinstance(result, Exception):
                self.bad[hash] = UNREADABLE
                yield self._told(found, UNREADABLE, hash, reason=self._unreadable(result))
                continue
            self.strikes = 0
            digest, size = result
            if digest == hash:
                self.run.count(read=1, read_bytes=size)
                if self.journal is not None:
                    self.journal.add(found)
                if self.args["--all"]:
                    yield self._told(found, GOOD, hash)
                continue
            self.bad[hash] = DAMAGED
            yield self._told(found, DAMAGED, hash, found_hash=digest, reason="its content is not what its name says")

    def _chosen(self) -> Iterator[tuple[Found, str]]:
        """What is to be read, of what is listed; all of it is taken into account."""
        from libdeadline.census import contents

        for page in contents(self.store):
            for found, hash in page:
                if hash is None:
                    self.run.count(foreign=1)
                    self.run.warn(f"'{self.store.s3.url(found.key)}' is no content by its name")
                    continue
                self.sizes.set(hash, found.size)
                self.run.count(contents=1, bytes=found.size)
                if self.args["--quick"] or (int(hash[:8], 16) ^ self.salt) >= self.share * 2**32:
                    continue
                if self.journal is not None and self.journal.knows(found):
                    self.run.count(known=1)
                    continue
                self.figures["total_count"] += 1
                self.figures["total_bytes"] += found.size
                yield found, hash

    def _read(self, item: tuple[Found, str]) -> tuple[str, int] | None:
        """(hash, size) of a content, or None where it is gone."""
        from xxhash import xxh3_128

        from libdeadline.sockets import Changed

        found, hash = item
        answer: tuple[str, int] | None = None
        for _ in range(2):  # what comes may have been damaged on its way
            digest, size = xxh3_128(), 0

            def sink(block: memoryview) -> None:
                nonlocal size
                digest.update(block)  # noqa: B023
                size += len(block)

            try:
                if self.store.s3.fetch(found.key, sink) is None:
                    return None
            except Changed:
                continue
            answer = digest.hexdigest(), size
            if answer[0] == hash:
                break
        if answer is None:
            raise Trouble(f"'{self.store.s3.url(found.key)}' changes while it is read", statuses.TRY_AGAIN)
        return answer

    def _unreadable(self, error: Exception) -> str:
        """Why a content can't be read. Raises: Trouble, where none can."""
        if not isinstance(error, Trouble):
            raise error
        self.strikes += 1
        if getattr(error, "http_status", 1) == 0 or self.strikes >= STRIKES:
            raise error
        return error.message

    # Manifests.

    def _manifests(self, repair: IO[bytes] | None) -> Iterator[Record]:
        from libdeadline.census import manifests, needs

        told: set[str] = set()
        rows = 0
        for found, entries in needs(self.store, manifests(self.store)):
            if entries is None:
                continue
            self.run.count(manifests=1)
            wanted: list[Any] = []
            try:
                if isinstance(entries, Exception):
                    raise entries
                for entry in entries:
                    self.run.count(entries=1)
                    if entry.hash in self.bad or self._size(entry.hash) != entry.size:
                        wanted.append(entry)
            except Trouble as trouble:
                if getattr(trouble, "http_status", 1) == 0:
                    raise
                yield self._told(found, UNREADABLE, None, reason=trouble.message)
                continue
            needed = []
            for entry in wanted:
                status, row = self._judged(found, entry)
                if status is None:
                    continue
                needed.append(entry)
                if row is not None and entry.hash not in told:
                    told.add(entry.hash)
                    yield row
            if repair is not None and needed:
                rows += self._note(repair, found, needed)
        if repair is not None:
            repair.write(encode(End.of(tool="dl-verify", ok=True, records=rows)))

    def _judged(self, found: Found, entry: Any) -> tuple[str | None, Record | None]:
        """(what is wrong with the content of an entry, the record that tells so if none has)."""
        if entry.hash in self.bad:
            return self.bad[entry.hash], None
        key = self.store.data_key(entry.hash)
        size = self._size(entry.hash)
        if size is None:
            # It may have been stored since the listing.
            at = self.store.s3.head(key) or self.store.s3.head(key.removesuffix(".xxh128"))
            if at is not None:
                self.sizes.set(_proper(entry.hash), at.size)
                self.gone.discard(entry.hash)
                size = at.size
        if size == entry.size:
            return None, None
        status = MISSING if size is None else WRONG_SIZE
        self.run.count(**{status: 1})
        row = Object.of(
            key=key,
            status=status,
            hash=entry.hash,
            size=size,
            expected_size=entry.size,
            manifest_path=found.key[len(self.store.manifest_key("")) :],
            path=entry.path,
            reason="a manifest needs it" if size is None else "a manifest has another size for it",
        )
        if size is None:
            self.bad[entry.hash] = MISSING
        return status, row

    def _size(self, hash: str) -> int | None:
        """The size of a content, or None where the store does not have it."""
        return None if hash in self.gone else self.sizes.get(_proper(hash))

    def _note(self, repair: IO[bytes], found: Found, entries: list[Any]) -> int:
        """Write the files of a manifest to the repair list: how many records that were."""
        from libdeadline.store import root_of

        got = self.store.s3.get(found.key)
        root = root_of(got.metadata) if got else None
        kind = _format_of(root) if root is not None else None
        if root is None:
            root, kind = self.submissions.root_of(found.key[len(self.store.manifest_key("")) :])
        if root is not None:
            repair.write(encode(Root.of(root=root, root_path_format=kind)))
        for entry in entries:
            row = File.of(
                path=entry.path, root=root, size=entry.size, mtime=entry.mtime, hash=entry.hash, hash_alg="xxh128"
            )
            repair.write(encode(row))
        return len(entries) + (root is not None)

    # What is done about it.

    def _delete(self) -> Iterator[Record]:
        damaged = [hash for hash, status in self.bad.items() if status == DAMAGED]
        for hash in damaged:
            for key in (self.store.data_key(hash), self.store.data_key(hash).removesuffix(".xxh128")):
                found = self.store.s3.head(key)
                if found is None:
                    continue
                result = self._read((found, hash))
                if result is not None and result[0] != hash:
                    self.store.s3.delete(key)
                    self.run.count(deleted=1)
                    yield Object.of(key=key, status=DELETED, hash=hash, found_hash=result[0], size=result[1])

    def _told(self, found: Found, status: str, hash: str | None, **fields: Any) -> Record:
        from libdeadline.census import moment, time_text

        self.run.count(**{status: 1})
        modified = time_text(moment(found.modified))
        return Object.of(key=found.key, status=status, hash=hash, size=found.size, modified=modified, **fields)

    def _show(self, found: Found) -> None:
        self.figures["done_count"] += 1
        self.figures["done_bytes"] += found.size
        if self.run.mode != "none":
            self.run.progress.update(**self.figures)

    @property
    def is_amiss(self) -> bool:
        counts = self.run.counts
        return any(counts.get(status) for status in (DAMAGED, MISSING, WRONG_SIZE, UNREADABLE))

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()


class Submissions:
    """Knows the roots of manifests that submissions stored, which don't tell them: the jobs do.

    The jobs of a queue are asked for once, and only when a manifest of its submissions needs something.
    """

    def __init__(self, args: Arguments, run: Run) -> None:
        self.args, self.run = args, run
        self.queues: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}

    def root_of(self, path: str) -> tuple[str | None, str | None]:
        """(root, its format) of a manifest by its place below Manifests/; None and None where nobody can tell."""
        farm_id, _, rest = path.partition("/")
        queue_id, _, rest = rest.partition("/")
        if not rest.startswith("Inputs/"):
            return None, None
        queue = (farm_id, queue_id)
        if queue not in self.queues:
            self.queues[queue] = self._asked(farm_id, queue_id)
        return self.queues[queue].get(path, (None, None))

    def _asked(self, farm_id: str, queue_id: str) -> dict[str, tuple[str, str]]:
        from libdeadline.aws import Session
        from libdeadline.pool import each
        from libdeadline.targets import config_of

        client = Session(config_of(self.args)).client("deadline")
        ids = {"farmId": farm_id, "queueId": queue_id}

        def ask(row: dict[str, Any]) -> dict[str, Any]:
            return dict(client.call("GetJob", {**ids, "jobId": row["jobId"]}))

        roots: dict[str, tuple[str, str]] = {}
        try:
            for _, job in each(ask, client.items("ListJobs", ids), ASKING):
                if isinstance(job, Exception):
                    raise job
                for row in (job.get("attachments") or {}).get("manifests") or ():
                    if row.get("inputManifestPath"):
                        roots[row["inputManifestPath"]] = row["rootPath"], row["rootPathFormat"].lower()
        except Trouble as trouble:
            # A queue that is gone, or another's, or no service: the files stay without a root.
            self.run.info(f"the roots of submissions to '{queue_id}' are not known: {trouble.message}")
        return roots


class Journal:
    """What was read and found good, in a file that a later run goes on from.

    Shape: a line for each object: the XXH3 128 of its store, key, size and time. One that was cut counts for
    nothing.
    """

    def __init__(self, path: str, store: Store) -> None:
        from time import monotonic

        from libdeadline.store import Hashes

        self.place = f"{store.s3.origin}\0{store.s3.bucket}\0"
        self.known: Hashes = Hashes()
        with open(path, "ab+") as file:
            file.seek(0)
            for line in file:
                if len(line) == 33:
                    try:
                        self.known.set(line[:32].decode("ascii"), 0)
                    except ValueError:
                        continue
                elif not line.endswith(b"\n"):
                    file.truncate(file.tell() - len(line))
        self.file = open(path, "ab")  # noqa: SIM115
        self.flushed_at = monotonic()

    def _line(self, found: Found) -> str:
        from xxhash import xxh3_128_hexdigest

        return xxh3_128_hexdigest(f"{self.place}{found.key}\0{found.size}\0{found.modified}".encode())

    def knows(self, found: Found) -> bool:
        return self.known.get(self._line(found)) is not None

    def add(self, found: Found) -> None:
        from time import monotonic

        self.file.write(self._line(found).encode() + b"\n")
        if monotonic() - self.flushed_at > FLUSH_EVERY_S:
            self.file.flush()
            self.flushed_at = monotonic()

    def close(self) -> None:
        self.file.close()


class _open:
    """A file that is written whole or not at all, or None where there is no path."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.file: IO[bytes] | None = None

    def __enter__(self) -> IO[bytes] | None:
        if self.path:
            self.temporary = f"{self.path}.{os.getpid()}.tmp"
            self.file = open(self.temporary, "wb")
        return self.file

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self.file is not None and self.path:
            self.file.close()
            if kind is None:
                os.replace(self.temporary, self.path)
            else:
                os.unlink(self.temporary)


def _proper(hash: str) -> str:
    """A hash that the table takes: one that is none is in no store."""
    is_hash = len(hash) == 32 and not hash.strip("0123456789abcdef")
    return hash if is_hash else "f" * 32


def _format_of(root: str) -> str:
    return "windows" if root[1:3] in (":\\", ":/") or root.startswith("\\\\") else "posix"


def _share(text: str) -> float:
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise Trouble(f"--sample takes a number from 0 to 100, not '{text}'", statuses.USAGE)
    return number / 100


def stage(args: Arguments, run: Run) -> Generator[Record, None, int]:
    audit = Audit(args, run)
    try:
        yield from audit.records()
    finally:
        audit.close()
    return AMISS if audit.is_amiss else statuses.OK


def main() -> int:
    return command.run(__doc__, stage)
