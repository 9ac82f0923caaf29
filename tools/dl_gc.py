"""dl-gc - delete from a store what no manifest reaches any more

Usage:
  dl-gc [options]

Options:
  --farm-id=<id>            Farm of the queue.
  --queue-id=<id>           Queue whose store to clear up.
  --profile=<name>          AWS profile to use.
  --region=<name>           AWS region to ask.
  --s3-root-uri=<uri>       Clear up the store s3://bucket/prefix, with the
                            profile's own credentials; no queue is asked.
  --delete                  Delete; without this nothing is changed.
  --grace=<time>            Leave alone what is younger than this
                            [default: 30d].
  --uploads                 Look for multipart uploads that nobody ended, too,
                            and with --delete abort them.
  --retry-for=<time>        How long passing failures in a row are endured
                            [default: 2m].
  --stall=<time>            Silence after which a connection is given up
                            [default: 2m].

Only contents, Data/<hash>.xxh128, are ever deleted, and only where not one
manifest of the store names them. While one manifest can't be read, nothing
is. Writes an object record of each content found or deleted.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from time import monotonic
from typing import TYPE_CHECKING

from libdeadline import command, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble
from libdeadline.records import Object, Record

if TYPE_CHECKING:
    from libdeadline.s3 import Found
    from libdeadline.store import Hashes, Store

LOST = 1  # the answer: something that was deleted is needed after all
UNREACHED, DELETED, KEPT, UNFINISHED, ABORTED, MISSING = (
    "unreached",
    "deleted",
    "kept",
    "unfinished",
    "aborted",
    "missing",
)
BATCH = 1000  # keys that one request deletes
CHECKERS = 16  # requests at a time that look whether a content is still what it was
SAFE_GRACE_S = 86400.0  # a submission may take this long from its first content to its manifest
LISTED_FOR_S = 30.0  # how long a listing of the manifests is good for while deleting


class Sweep:
    """One run."""

    def __init__(self, args: Arguments, run: Run) -> None:
        from libdeadline.census import store_of
        from libdeadline.store import Hashes

        self.args, self.run = args, run
        self.grace_s = args.seconds("--grace") or 0.0
        if args["--delete"] and self.grace_s < SAFE_GRACE_S:
            run.warn("with a grace of less than a day, contents of submissions under way may be deleted")
        self.store: Store = store_of(args)
        self.reached: Hashes = Hashes()
        self.manifests: Hashes = Hashes()  # those that were read, by key and time
        self.deleted: Hashes = Hashes()
        self.listed_at = 0.0
        self.is_lost = False

    def records(self) -> Iterator[Record]:
        """What is found, and what was deleted."""
        told = "deleted" if self.args["--delete"] else "unreached"
        self.run.count(manifests=0, reached=0, young=0, **{told: 0, f"{told}_bytes": 0})
        yield from self._read_manifests()
        batch: list[Found] = []
        for found, hash in self._old_contents():
            if self.reached.get(hash) is not None:
                self.run.count(reached=1, reached_bytes=found.size)
                continue
            if not self.args["--delete"]:
                self.run.count(unreached=1, unreached_bytes=found.size)
                yield self._told(found, UNREACHED)
                continue
            batch.append(found)
            if len(batch) == BATCH:
                yield from self._delete(batch)
                batch = []
        if batch:
            yield from self._delete(batch)
        if self.deleted.count:
            # A submission may have found a content there just before it was deleted, and be done only now.
            yield from self._read_manifests()
        if self.args["--uploads"]:
            yield from self._uploads()

    def _read_manifests(self) -> Iterator[Record]:
        """Read those that were not read before; tell of what they need and is deleted.

        Raises: Trouble, where one can't be read.
        """
        from libdeadline.census import manifests, needs

        self._show("reading manifests")
        at = monotonic()
        new = (found for found in manifests(self.store) if self.manifests.get(_version(found)) is None)
        for found, entries in needs(self.store, new):
            if isinstance(entries, Exception):
                raise entries
            if entries is None:
                continue  # deleted since it was listed
            try:
                for entry in entries:
                    if not _is_hash(entry.hash):
                        continue
                    self.reached.set(entry.hash, 1)
                    if self.deleted.get(entry.hash):
                        yield self._lost(found, entry.hash, entry.path, entry.size)
            except Trouble as trouble:
                raise Trouble(
                    f"{trouble.message}: nothing is deleted while it is not known what this needs", trouble.status
                ) from None
            self.manifests.set(_version(found), 1)
            self.run.count(manifests=1)
        self.listed_at = at

    def _lost(self, found: Found, hash: str, path: str, size: int) -> Record:
        self.is_lost = True
        self.run.count(missing=1)
        return Object.of(
            key=self.store.data_key(hash),
            status=MISSING,
            hash=hash,
            expected_size=size,
            manifest_path=found.key[len(self.store.manifest_key("")) :],
            path=path,
            reason="a manifest that was stored meanwhile needs it: submit that job again",
        )

    def _old_contents(self) -> Iterator[tuple[Found, str]]:
        """Contents that are older than the grace period, with their hashes."""
        from libdeadline.census import contents, moment

        for page in contents(self.store):
            youngest = self.store.s3.now() - self.grace_s
            for found, hash in page:
                if hash is None:
                    self.run.count(foreign=1)
                    self.run.warn(f"'{self.store.s3.url(found.key)}' is no content by its name: it is left alone")
                elif moment(found.modified) > youngest:
                    self.run.count(young=1, young_bytes=found.size)
                else:
                    yield found, hash
            self._show("looking at contents")

    def _delete(self, batch: list[Found]) -> Iterator[Record]:
        """Delete those of a batch that still nothing needs, and that nobody has stored again."""
        from libdeadline.census import moment
        from libdeadline.pool import each

        if monotonic() - self.listed_at > LISTED_FOR_S or not self.deleted.count:
            yield from self._read_manifests()

        def look(found: Found) -> Found | None:
            return self.store.s3.head(found.key)

        going: list[Found] = []
        for found, now in each(look, batch, CHECKERS):
            if isinstance(now, Exception):
                raise now
            if self.reached.get(_hash_of(found)) is not None:
                self.run.count(reached=1, reached_bytes=found.size)
                yield self._told(found, KEPT, "a manifest that was stored meanwhile needs it")
            elif now is not None and moment(now.modified) != moment(found.modified):
                self.run.count(young=1, young_bytes=found.size)
                yield self._told(found, KEPT, "it was stored again meanwhile")
            elif now is not None:
                going.append(found)
        if not going:
            return
        for found in going:  # first: what was asked to go counts as gone, should no answer come
            self.deleted.set(_hash_of(found), 1)
        refused = self.store.s3.delete_many([found.key for found in going])
        for found in going:
            if found.key in refused:
                self.run.fail(
                    Trouble(
                        f"cannot delete '{self.store.s3.url(found.key)}': {refused[found.key]}", statuses.NOT_ALLOWED
                    )
                )
                self.run.count(refused=1)
                self.deleted.set(_hash_of(found), 0)
                continue
            self.run.count(deleted=1, deleted_bytes=found.size)
            yield self._told(found, DELETED)

    def _uploads(self) -> Iterator[Record]:
        from libdeadline.census import moment, time_text

        youngest = self.store.s3.now() - self.grace_s
        base = self.store.data_key("")[: -len(".xxh128")]
        for each in self.store.s3.uploads(base):
            begun = moment(each.initiated)
            if begun > youngest:
                self.run.count(young_uploads=1)
                continue
            if self.args["--delete"]:
                self.store.s3.abort_multipart(each.key, each.upload_id)
            status = ABORTED if self.args["--delete"] else UNFINISHED
            self.run.count(**{status: 1})
            yield Object.of(key=each.key, status=status, upload_id=each.upload_id, modified=time_text(begun))

    def _told(self, found: Found, status: str, reason: str | None = None) -> Record:
        from libdeadline.census import moment, time_text

        return Object.of(
            key=found.key,
            status=status,
            hash=_hash_of(found),
            size=found.size,
            modified=time_text(moment(found.modified)),
            reason=reason,
        )

    def _show(self, doing: str) -> None:
        if self.run.mode != "none":
            self.run.progress.update(message=doing, done_count=self.manifests.count + self.run.counts.get("reached", 0))


def _version(found: Found) -> str:
    from xxhash import xxh3_128_hexdigest

    return xxh3_128_hexdigest(f"{found.key}\0{found.size}\0{found.modified}".encode())


def _hash_of(found: Found) -> str:
    return found.key.rpartition("/")[2][:32]


def _is_hash(text: str) -> bool:
    return len(text) == 32 and not text.strip("0123456789abcdef")


def stage(args: Arguments, run: Run) -> Generator[Record, None, int]:
    sweep = Sweep(args, run)
    yield from sweep.records()
    return LOST if sweep.is_lost else statuses.OK


def main() -> int:
    return command.run(__doc__, stage)
