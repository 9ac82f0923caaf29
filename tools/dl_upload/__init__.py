"""dl-upload - store files and manifests by their content hash

Usage:
  dl-upload [options]

Options:
  --farm-id=<id>            Farm that the files are for; else the bundle
                            record's, else the settings'.
  --queue-id=<id>           Queue whose store to use; likewise.
  --profile=<name>          AWS profile to use.
  --region=<name>           AWS region to ask.
  --s3-root-uri=<uri>       Use the store s3://bucket/prefix, with the
                            profile's own credentials; no queue is asked.
  --manifest-prefix=<key>   Store manifests under their own names below
                            Manifests/<key>; '' for Manifests/ itself.
  --output                  The files are outputs of a session action, and so
                            are their manifests. Needs the next five options,
                            the task's only where there is a task.
  --job-id=<id>             Job of the session action.
  --step-id=<id>            Its step.
  --task-id=<id>            Its task.
  --session-action-id=<id>  The session action.
  --session-action-start-time=<t>  When it started, in seconds since 1970.
  --path-mapping-rules=<file>  Where the roots lie on this host; the records go
                            on naming them as they are.
  --jobs=<n>                Most connections at a time; by default as many as
                            the distance to the store makes useful.
  --limit-rate=<bytes>      Most bytes to send in a second, such as 10M.
  --force-s3-check          Ask the store about each content, whatever the
                            check cache knows.
  --no-force-s3-check       Trust the check cache, whatever the settings say.
  --verify                  Read each content back and hash it.
  --retry-for=<time>        How long passing failures in a row are endured
                            [default: 2m].
  --stall=<time>            Silence after which a connection is given up
                            [default: 2m].
  --open-ended              Accept input that does not end in an end record.

Reads hashed file records, stores their contents while they come in, and
passes them on with "upload": new or present. A content is hashed again as it
is read: a file that changed is reported and not stored. Manifests follow when
everything else is stored and the input was whole.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event, Thread
from time import sleep, time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from libdeadline import command, long_paths, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble, os_trouble
from libdeadline.pool import taken
from libdeadline.records import Bundle, File, Manifest, Record

from .sending import LARGE_BYTES, Item, Sender, changed, holds

if TYPE_CHECKING:
    from libdeadline.store import CheckCache, Store

WINDOW = 8192  # records that may wait for one before them
WAKE_EVERY = 256  # records that need nothing done, before the emitter is told of them
NAP_S = (0.002, 0.02)  # so that the emitter wakes for several contents at a time: when few are pending, and many
MANY = 64
SKEW_NS = 5_000_000_000  # by which a stage before this one may have begun earlier, or a file server's clock be behind
SENT, FAILED = 1, 2  # numbers of the contents that were seen
_HASH = re.compile(r"[0-9a-f]{32}\Z")


class _End(NamedTuple):
    """What the feeder says last: what went wrong, if anything."""

    error: BaseException | None


class Upload:
    """One run: a thread that takes records in, the threads that send, and the generator that gives records out."""

    def __init__(self, args: Arguments, run: Run) -> None:
        from libdeadline import path_mapping
        from libdeadline.store import Hashes

        if args["--force-s3-check"] and args["--no-force-s3-check"]:
            raise Trouble("--force-s3-check and --no-force-s3-check exclude each other", statuses.USAGE)
        self.args, self.run = args, run
        self.limits = {
            "bytes_per_s": _limit(args),
            "retry_s": args.seconds("--retry-for"),
            "stall_s": args.seconds("--stall"),
        }
        self.jobs = args.integer("--jobs", 1, 1024)
        self.started_at = _output_time(args)
        self.hashed_after_ns = _began_ns() - SKEW_NS  # whatever was touched since may have changed since it was hashed
        self.store: Store | None = None
        self.cache: CheckCache | None = None
        self.sender: Sender | None = None
        self.bundle: Bundle | None = None
        self.farm_id = self.queue_id = ""
        self.pending: deque[Item] = deque()  # in the order of the input
        self.finished: SimpleQueue[Any] = SimpleQueue()  # items as they are done, bytes of parts, None, and the end
        self.seen = Hashes()
        self.trusted = 0  # contents given out as present on the word of the check cache
        self.total_bytes = self.total_count = 0
        self.announced_bytes = self.announced_count = 0  # by the bundle
        self.done_bytes = self.done_count = self.skipped_bytes = 0
        self._room = Event()
        self.trusts_cache = not args["--verify"]  # and the settings allow it
        self.rules = path_mapping.read(args["--path-mapping-rules"]) if args["--path-mapping-rules"] else []
        self.folders: dict[str, str] = {}  # root: where it lies on this host
        self._passed = 0
        self._rows = run.input(Bundle, File, Manifest, open_ended=args["--open-ended"], before_wait=self._before_wait)

    def feed(self) -> None:
        """Take records in until there are no more."""
        try:
            for row in self._rows:
                self._admit(row)
                if len(self.pending) > WINDOW:
                    while True:
                        self._room.clear()
                        if len(self.pending) <= WINDOW // 2:
                            break
                        self._room.wait(1.0)
            self.finished.put(_End(None))
        except BaseException as error:
            self.finished.put(_End(error))

    def _admit(self, row: Record) -> None:
        item = Item(row)
        if not isinstance(row, File):
            if isinstance(row, Bundle) and self.bundle is None:
                self.bundle = row
                self.announced_bytes, self.announced_count = row.total_bytes or 0, row.file_count or 0
            self._pass(item)
            return
        hash, size = row.get("hash"), row.get("size")
        if type(hash) is not str or not _HASH.match(hash) or row.get("hash_alg", "xxh128") != "xxh128":
            raise Trouble(
                f"'{row.path}' comes without an xxh128 hash: put dl-hash before", statuses.DATA, path=row.path
            )
        sender = self.sender or self._open()
        item.size = size or 0
        self.total_bytes += item.size
        self.total_count += 1
        if self.seen.get(hash) is not None:
            item.twin = True
            self._pass(item)
            return
        self.seen.set(hash, SENT)
        presence = sender.presence
        if self.trusts_cache:
            known, verify = presence.cached(hash)
            if known is not None and size in (None, known):
                item.cached = verify
                if not verify:
                    item.outcome = "present"
                    self._pass(item)
                    return
        listing = presence.listing()
        if listing is not None and item.cached is None and not self.args["--verify"]:
            known = listing.get(hash)
            if known is not None and size in (None, known):
                item.outcome = "present"
                self._pass(item)
                return
        self.pending.append(item)
        sender.submit(item)

    def _pass(self, item: Item) -> None:
        item.done = True
        self.pending.append(item)
        self._passed += 1
        if self._passed % WAKE_EVERY == 0:
            self.finished.put(None)

    def _before_wait(self) -> None:
        self.finished.put(None)  # what was passed on since the last time can go out
        output = self.run.output
        if output is not None:
            output.flush()

    def emitted(self) -> Iterator[Record]:
        """The records in the order of the input, each when it is done with; those from the first manifest on last."""
        end: _End | None = None
        held: list[Record] | None = None
        pending = self.pending
        while end is None or pending:
            token = taken(self.finished)
            while True:
                if type(token) is Item:
                    self._count(token)
                elif isinstance(token, int):
                    self.done_bytes += token
                elif token is not None:
                    end = token
                if self.finished.empty():
                    break
                token = self.finished.get()
            while pending and pending[0].done:
                item = pending[0]
                row = item.row
                if type(row) is File:
                    if (item.twin or item.cached is False) and self._again(item):
                        break
                    if not item.counted:
                        self._count(item)
                    row = self._outcome(item)
                elif isinstance(row, Manifest) and held is None:
                    held = []
                pending.popleft()
                if held is None:
                    yield row
                else:
                    held.append(row)
            if len(pending) <= WINDOW // 2:
                self._room.set()
            self._report()
            if pending and not pending[0].done:
                sleep(NAP_S[len(pending) > MANY])
        if end.error is not None:
            raise end.error
        if self.trusted and self.sender is not None and self.sender.presence.stale:
            raise Trouble(
                "the check cache took contents for stored that are not; it has been emptied: run again",
                statuses.TRY_AGAIN,
            )
        for row in held or ():
            # With a file missing, no manifest may claim that it is there.
            yield self._published(row) if isinstance(row, Manifest) and not self.run.status else row

    def _count(self, item: Item) -> None:
        """Take note of an item that is done. Raises: Trouble, where there is no point in going on."""
        if item.fatal:
            assert item.trouble is not None
            raise item.trouble
        if isinstance(item.row, File) and not item.counted:
            item.counted = True
            self.done_count += 1
            self.done_bytes += item.size - item.large_bytes
            if item.outcome != "new":
                self.skipped_bytes += item.size

    def _again(self, item: Item) -> bool:
        """Whether an item that seemed done has to be sent after all, and now is."""
        assert self.sender is not None
        if item.twin:
            if self.seen.get(item.row["hash"]) == SENT:
                item.outcome = "present"
                return False
        elif not (item.cached is False and self.sender.presence.stale):
            return False
        item.twin = item.done = item.sought = False
        item.cached = item.outcome = None
        self.seen.set(item.row["hash"], SENT)  # as long as it doesn't fail too
        self.sender.submit(item)
        return True

    def _outcome(self, item: Item) -> Record:
        row, hash = item.row, item.row["hash"]
        if item.trouble is None and item.outcome == "present":
            item.trouble = self._changed(row)
            if item.size >= LARGE_BYTES:
                assert self.sender is not None
                self.sender.forget(hash, item.size)
        if item.trouble is not None:
            if item.outcome is None:
                self.seen.set(hash, FAILED)  # another file with this content may still have it
            self.run.fail(item.trouble)
            self.run.count(failed=1)
            return row
        if item.cached is False:
            self.trusted += 1
        row["upload"] = outcome = item.outcome
        counts = self.run.counts
        counts[outcome] = counts.get(outcome, 0) + 1
        counts[f"{outcome}_bytes"] = counts.get(f"{outcome}_bytes", 0) + item.size
        return row

    def _report(self) -> None:
        if self.run.mode != "none":
            self.run.progress.update(
                done_bytes=self.done_bytes,
                total_bytes=max(self.total_bytes, self.announced_bytes),
                done_count=self.done_count,
                total_count=max(self.total_count, self.announced_count),
                skipped_bytes=self.skipped_bytes,
            )

    def _published(self, row: Manifest) -> Manifest:
        """Store a manifest: its record with the place it went to."""
        from libdeadline import store

        if self.store is None:
            self._open()
        assert self.store is not None
        args, path, root = self.args, row.path, row.root
        if not path or (root is None and args["--manifest-prefix"] is None):
            raise Trouble("a manifest record has no 'path' or no 'root': put dl-manifest before", statuses.DATA)
        if args["--manifest-prefix"] is None and not (self.farm_id and self.queue_id):
            raise Trouble(
                "a manifest is stored for a queue: give --farm-id and --queue-id, or --manifest-prefix", statuses.USAGE
            )
        metadata = None
        if args["--output"]:
            place = store.output_manifest(
                self.farm_id, self.queue_id, args["--job-id"], args["--step-id"], args["--task-id"],
                args["--session-action-id"], self.started_at, str(root), row.file_system_location_name,
            )  # fmt: skip
            row["output"] = True
        elif args["--manifest-prefix"] is not None:
            place = store.join(args["--manifest-prefix"], os.path.basename(path))
        else:
            place = store.input_manifest(self.farm_id, self.queue_id, str(root))
        if root is not None and (args["--output"] or args["--manifest-prefix"] is not None):
            metadata = store.root_metadata(root, row.file_system_location_name)
        try:
            row["hash"] = self.store.put_manifest(place, path, row.hash, metadata)
        except OSError as error:
            raise os_trouble(error, "read the manifest") from None
        row["manifest_path"] = place
        self.run.count(manifests=1)
        return row

    def _open(self) -> Sender:
        """Find the store and start what sends to it."""
        from libdeadline import aws, config
        from libdeadline.store import CheckCache, Presence, Store, parse_uri
        from libdeadline.targets import config_of, target

        args, bundle = self.args, self.bundle
        settings = config_of(args)
        if args["--force-s3-check"] or (
            not args["--no-force-s3-check"] and settings.boolean("settings.force_s3_check")
        ):
            self.trusts_cache = False
        if args["--s3-root-uri"]:
            bucket, prefix = parse_uri(args["--s3-root-uri"])
            session = aws.Session(settings)
            self.farm_id = settings.get("defaults.farm_id")
            self.queue_id = settings.get("defaults.queue_id")
        else:
            if bundle is not None and bundle.queue_id and not args["--queue-id"]:
                self.farm_id, self.queue_id = str(bundle.farm_id), bundle.queue_id
                bucket, prefix = bundle.s3_bucket_name or "", bundle.root_prefix or ""
                session = aws.Session(settings)
            else:
                found = target(args)
                session, self.farm_id, self.queue_id = found.session, found.farm_id, found.queue_id
                ids = {"farmId": self.farm_id, "queueId": self.queue_id}
                attachments = session.client("deadline").call("GetQueue", ids).get("jobAttachmentSettings") or {}
                bucket, prefix = attachments.get("s3BucketName", ""), attachments.get("rootPrefix", "")
            if not bucket:
                raise Trouble(
                    f"the queue '{self.queue_id}' takes no files: it has no job attachment settings",
                    statuses.CONFIGURATION,
                )
            session = aws.queue_session(session, self.farm_id, self.queue_id)
        limits: dict[str, Any] = {name: value for name, value in self.limits.items() if value is not None}
        self.store = Store.open(session, bucket, prefix, **limits)
        caches = config.cache_folder()
        self.cache = CheckCache(os.path.join(caches, "stored.sqlite"), f"{self.store.s3.origin} {self.store.url()}")
        self.sender = Sender(
            self.store,
            Presence(self.store, self.cache),
            self.jobs,
            args["--verify"],
            os.path.join(caches, "uploads"),
            self._local_path,
            self.finished,
        )
        return self.sender

    def _changed(self, row: Record) -> Trouble | None:
        """What is wrong with a file that was not read because its content is stored: it may be another one by now."""
        path = self._local_path(row)
        try:
            about = long_paths.status(path)
            size = row.get("size", about.st_size)
            if (
                about.st_size == size
                and about.st_mtime_ns // 1000 == row.get("mtime", about.st_mtime_ns // 1000)
                and about.st_ctime_ns < self.hashed_after_ns
                and stat.S_ISREG(about.st_mode)
            ):
                return None
            return None if holds(path, row["hash"], size) else changed(path)
        except OSError as error:
            return os_trouble(error, "read")

    def _local_path(self, row: Record) -> str:
        """Where a file lies on this host."""
        root = row.get("root") or ""
        folder = self.folders.get(root)
        if folder is None:
            folder = self._local_root(root)
            folder = self.folders[root] = os.path.join(folder, "") if folder else ""
        return folder + row["path"]  # type: ignore[no-any-return]

    def _local_root(self, root: str) -> str:
        if self.rules and root:
            from libdeadline.path_mapping import PathMapping

            for kind in ("posix", "windows"):
                here = PathMapping(rule for rule in self.rules if rule.source_path_format == kind).apply(root)
                if here is not None:
                    return here
        return root

    def close(self, *, whole: bool, abort: bool) -> None:
        """Let go of everything; where the run did not come to its end, stop what goes on.

        `abort`: nobody will go on with uploads that are half done.
        """
        if self.sender is not None:
            if whole:
                self.sender.close()
            else:
                self.sender.stop(abort=abort)
        if self.cache is not None:
            self.cache.close()
            if self.cache.problem:
                self.run.debug(f"the check cache could not be used: {self.cache.problem}")


def _began_ns() -> int:
    """When the files were hashed at the latest: in a pipeline as it began, in a saved stream when that was written."""
    now = time_ns()
    try:
        about = os.fstat(0)
    except OSError:
        return now
    return min(now, about.st_mtime_ns) if stat.S_ISREG(about.st_mode) else now


def _limit(args: Arguments) -> int | None:
    limit = args.bytes("--limit-rate")
    if limit == 0:
        raise Trouble("--limit-rate takes at least 1 byte a second", statuses.USAGE)
    return limit


def _output_time(args: Arguments) -> float:
    """When the session action started. Raises: Trouble (64) where options of --output are missing or stand alone."""
    needed = ("--job-id", "--step-id", "--session-action-id", "--session-action-start-time")
    if not args["--output"]:
        alone = [name for name in (*needed, "--task-id") if args[name] is not None]
        if alone:
            raise Trouble(f"{alone[0]} is for outputs: give --output as well", statuses.USAGE)
        return 0.0
    missing = [name for name in needed if not args[name]]
    if missing:
        raise Trouble(f"--output needs {missing[0]} as well", statuses.USAGE)
    if args["--manifest-prefix"] is not None:
        raise Trouble("--output and --manifest-prefix exclude each other", statuses.USAGE)
    try:
        return float(args["--session-action-start-time"])
    except ValueError:
        raise Trouble(
            f"--session-action-start-time takes seconds since 1970, not '{args['--session-action-start-time']}'",
            statuses.USAGE,
        ) from None


def stage(args: Arguments, run: Run) -> Iterator[Record]:
    upload = Upload(args, run)
    whole, abort = False, True
    Thread(target=upload.feed, daemon=True).start()
    try:
        # While the stages before this one start up, load what will be needed.
        import xxhash  # noqa: F401

        from libdeadline import aws, store, targets  # noqa: F401

        yield from upload.emitted()
        whole = True
    except Trouble:
        abort = False  # the next run goes on where this one failed
        raise
    finally:
        upload.close(whole=whole, abort=abort)


def main() -> int:
    return command.run(__doc__, stage)
