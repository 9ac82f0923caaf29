"""Fetches the output that a survey found: of each path the newest, verified, whole, and each failure by itself.

    manifests ──▶ checked, kept in one temporary file ──▶ who owns which path ──▶ files, job by job, task by task

Source: attachments specification, incremental download, algorithm.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BufferedReader, RawIOBase
from queue import SimpleQueue
from shutil import copyfileobj
from tempfile import TemporaryFile
from threading import Lock
from time import sleep
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from libdeadline import manifest, statuses
from libdeadline.aws import ServiceError
from libdeadline.errors import Trouble
from libdeadline.fetching import Fetcher, Item
from libdeadline.paths import path_format, root_problem
from libdeadline.placing import IGNORES_CASE, Tree
from libdeadline.pool import each, taken
from libdeadline.records import File, Record
from libdeadline.s3 import S3Error
from libdeadline.store import Hashes

from .status_file import JobResult, Result

if TYPE_CHECKING:
    from libdeadline.command import Run
    from libdeadline.path_mapping import Places, Rule
    from libdeadline.store import Store

    from .survey import Output, Work

READERS = 10  # manifests that are fetched at the same time
WINDOW = 4096  # files on their way at a time
NAP_S = 0.002  # so that several files are told of at a time
STRIKES = 3  # contents in a row that the store fails to give, after which it is thought to be ill
TOLD_PATHS = 10  # of those that are left out
_OF_CREDENTIALS = (
    "ExpiredToken",
    "InvalidToken",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
)


class Part:
    """A manifest with output, as it was read."""

    def __init__(self, work: Work, output: Output) -> None:
        self.work, self.output = work, output
        self.places: Places | None = None
        self.start = self.length = 0  # in the file that holds all manifests
        self.is_streamed = False  # large and in order: read without being held in memory
        self.order: tuple[float, str, str] = (0.0, "", "")
        self.number = 0
        self.trouble: Trouble | None = None


class Done(NamedTuple):
    """A job whose files have all been dealt with."""

    work: Work
    result: JobResult


class Transfer:
    """Fetching for one run. Iterate over `rows`: file records, and Done after those of each job."""

    def __init__(
        self,
        run: Run,
        store: Store,
        works: list[Work],
        rules_of: Callable[[dict[str, Any]], list[Rule] | None],
        options: Mapping[str, Any],
    ) -> None:
        """`rules_of` a job gives its path mapping rules; None where paths stay as they are.

        Shape: `options` has conflict (SKIP, OVERWRITE, CREATE_COPY), jobs, fsync and dry_run.
        """
        self.run, self.store, self.works = run, store, works
        self.rules_of, self.options = rules_of, options
        self.results = {work.job_id: _result_of(work) for work in works}
        self.parts = [Part(work, output) for work in works for output in work.outputs]
        self.owners = Hashes()
        self.finished: SimpleQueue[Any] = SimpleQueue()
        self.fetcher: Fetcher | None = None
        self.trees: dict[str, Tree] = {}
        self.left_out: dict[str, tuple[int, list[str]]] = {}
        self.fetched = False  # whether the store has answered with anything yet
        self.strikes = 0  # contents in a row that the store failed to give
        self.figures = dict.fromkeys(("done_bytes", "total_bytes", "done_count", "total_count", "skipped_bytes"), 0)

    def rows(self) -> Iterator[Record | Done]:
        """Fetch everything.

        Raises: Trouble where there is no point in going on; what was not told as Done is not done then.
        """
        with TemporaryFile() as spool:
            self._find_places()
            self._read_manifests(spool)
            self._find_owners(spool)
            self._warn_of_left_out()
            self.figures["total_count"] = self.owners.count
            yield from self._fetched(spool)

    def close(self, *, whole: bool) -> None:
        if self.fetcher is not None:
            if whole:
                self.fetcher.close()
                for tree in self.trees.values():
                    tree.finish()
            else:
                self.fetcher.stop()

    # Where it goes.

    def _find_places(self) -> None:
        known: dict[tuple[str, str], Places] = {}
        wrong: dict[str, Trouble] = {}
        rules: dict[str, list[Rule] | None] = {}
        for part in self.parts:
            job_id, output = part.work.job_id, part.output
            if job_id not in rules and job_id not in wrong:
                try:
                    rules[job_id] = self.rules_of(part.work.job)
                except ServiceError as error:
                    if error.http_status != 404:
                        raise
                    wrong[job_id] = error
            if job_id in wrong:
                part.trouble = wrong[job_id]
                continue
            key = (job_id, output.root)
            problem = root_problem(output.root, output.root_path_format)
            if problem and rules[job_id] is None and output.root_path_format == path_format():
                part.trouble = Trouble(f"the root '{output.root}' of '{job_id}' is refused: {problem}", statuses.DATA)
                continue
            if key not in known:
                known[key] = places(output.root, output.root_path_format, rules[job_id])
            part.places = known[key]

    # What there is.

    def _read_manifests(self, spool: IO[bytes]) -> None:
        from email.utils import parsedate_to_datetime

        lock = Lock()
        end = 0

        def read(part: Part) -> float:
            nonlocal end
            got = self.store.read_manifest(part.output.manifest_path, part.output.hash)
            if got is None:
                url = self.store.s3.url(self.store.manifest_key(part.output.manifest_path))
                raise Trouble(f"there is no manifest '{url}'", statuses.NO_INPUT)
            name = part.output.manifest_path
            part.is_streamed = got.size > manifest.SORTED_BYTES and manifest.is_ordered(got.data, name)
            for _ in _checked(got.data, name, sort=not part.is_streamed):
                pass  # all of it is checked before any of it is used
            got.data.seek(0)
            with lock:
                copyfileobj(got.data, spool)
                part.start, part.length = end, got.size
                end += got.size
            return parsedate_to_datetime(got.modified).timestamp() if got.modified else 0.0

        for part, modified in each(read, [part for part in self.parts if part.trouble is None], READERS):
            if isinstance(modified, Trouble):
                self._raise_if_general(modified)
                part.trouble = modified
            elif isinstance(modified, Exception):
                raise modified
            else:
                self.fetched, self.strikes = True, 0
                part.order = (modified, part.output.ended_at, part.output.manifest_path)
        self.parts.sort(key=lambda part: part.order)
        for number, part in enumerate(self.parts):
            part.number = number

    def _entries(self, spool: IO[bytes], part: Part) -> Iterator[manifest.Entry]:
        if part.trouble is not None:
            return iter(())
        data = BufferedReader(_Region(spool, part.start, part.length))
        return _checked(data, part.output.manifest_path, sort=not part.is_streamed)

    def _find_owners(self, spool: IO[bytes]) -> None:
        """Of each local path, which manifest was stored last."""
        for part in self.parts:
            for entry in self._entries(spool, part):
                at = part.places.find(entry.path) if part.places else None
                if at is None:
                    count, paths = self.left_out.setdefault(part.work.job_id, (0, []))
                    if count < TOLD_PATHS:
                        paths.append(f"{part.output.root}/{entry.path}")
                    self.left_out[part.work.job_id] = (count + 1, paths)
                else:
                    self.owners.set(_key(*at), part.number)

    def _warn_of_left_out(self) -> None:
        for job_id, (count, paths) in self.left_out.items():
            more = f" and {count - len(paths)} more" if count > len(paths) else ""
            self.run.warn(
                f"{count} files of the job '{job_id}' have no place on this host, and are left out: "
                f"{', '.join(paths)}{more}"
            )
            self.run.count(left_out=count)

    # How it comes.

    def _fetched(self, spool: IO[bytes]) -> Iterator[Record | Done]:
        by_job: dict[str, list[Part]] = {}
        for part in self.parts:
            by_job.setdefault(part.work.job_id, []).append(part)
        pending: deque[tuple[Item, Result] | Done] = deque()
        chosen = self._chosen(spool, by_job)
        more = True
        while more or pending:
            while more and len(pending) < WINDOW:
                try:
                    step = next(chosen)
                except StopIteration:
                    more = False
                    break
                if isinstance(step, Record):
                    yield step
                else:
                    pending.append(step)
            while pending:
                first = pending[0]
                if isinstance(first, Done):
                    yield first
                elif first[0].done:
                    out = self._outcome(*first)
                    if out is not None:
                        yield out
                else:
                    break
                pending.popleft()
            if pending and (not more or len(pending) >= WINDOW):
                self._wait()
            self._take_notes()

    def _chosen(
        self, spool: IO[bytes], by_job: Mapping[str, list[Part]]
    ) -> Iterator[Record | Done | tuple[Item, Result]]:
        """The files, handed to the fetcher as they are given; in a dry run as records."""
        for work in self.works:
            result = self.results[work.job_id]
            for part in sorted(by_job.get(work.job_id, ()), key=lambda part: part.output.task_id):
                task_id = part.output.task_id
                if part.trouble is not None:
                    self._fail(part.trouble, result, result.tasks.setdefault(task_id, Result()))
                    continue
                for entry in self._entries(spool, part):
                    at = part.places.find(entry.path) if part.places else None
                    if at is None:
                        continue
                    task = result.tasks.setdefault(task_id, Result())
                    if self.owners.get(_key(*at)) == part.number:
                        yield self._submitted(part, task, entry, *at)
            if result.total:
                # Tasks whose output others have replaced are not told of, beside those whose output is here.
                result.tasks = {name: each for name, each in result.tasks.items() if each.total or each.error_code}
            yield Done(work, result)

    def _submitted(
        self, part: Part, task: Result, entry: manifest.Entry, folder: str, local: str
    ) -> Record | tuple[Item, Result]:
        task.total += 1
        self.results[part.work.job_id].total += 1
        self.figures["total_bytes"] += entry.size
        row = File.of(
            path=entry.path,
            root=part.output.root,
            size=entry.size,
            mtime=entry.mtime,
            hash=entry.hash,
            hash_alg="xxh128",
            job_id=part.work.job_id,
            task_id=part.output.task_id or None,
        )
        if self.options["dry_run"]:
            row["local_path"] = os.path.join(folder, local)
            self.run.count(files=1, bytes=entry.size)
            return row
        try:
            tree = self.trees.get(folder)
            if tree is None:
                tree = self.trees[folder] = Tree(folder)
        except OSError as error:
            item = Item(row, None, local)  # type: ignore[arg-type]
            item.trouble = _trouble_of(error, os.path.join(folder, local))
            item.done = True
            return item, task
        item = Item(row, tree, local)
        if self.fetcher is None:
            self.fetcher = Fetcher(
                self.store, self.options["conflict"], self.options["jobs"], self.options["fsync"], self.finished
            )
        self.fetcher.submit(item)
        return item, task

    def _wait(self) -> None:
        """Wait until something has come of the files."""
        self._note(taken(self.finished))
        sleep(NAP_S)

    def _take_notes(self) -> None:
        """Take note of what has come of files meanwhile: also where none had to be waited for, or all would be kept."""
        while not self.finished.empty():
            self._note(self.finished.get())
        if self.run.mode != "none":
            self.run.progress.update(**self.figures)

    def _note(self, token: Any) -> None:
        figures = self.figures
        if isinstance(token, int):
            figures["done_bytes"] += token
            return
        size = token.row["size"]
        figures["done_count"] += 1
        figures["done_bytes"] += max(size - token.told, 0)
        if token.outcome != "new":
            figures["skipped_bytes"] += size

    def _outcome(self, item: Item, task: Result) -> Record | None:
        row = item.row
        if item.trouble is not None:
            self._fail(item.trouble, self.results[row["job_id"]], task)
            return None
        self.fetched, self.strikes = True, 0
        row["download"] = item.outcome
        row["local_path"] = os.path.join(item.tree.path, item.local.rpartition("/")[0], item.name)
        task.done += 1
        self.results[row["job_id"]].done += 1
        self.run.count(**{str(item.outcome): 1, f"{item.outcome}_bytes": row["size"]})
        return row

    def _fail(self, trouble: Trouble, job: JobResult, task: Result) -> None:
        """Report what failed for one file or manifest. Raises: Trouble, where everything else would fail too."""
        self._raise_if_general(trouble)
        code = error_code(trouble)
        task.fail(code, trouble.message)
        job.fail(code, trouble.message)
        self.run.fail(trouble)
        self.run.count(failed=1)

    def _raise_if_general(self, trouble: Trouble) -> None:
        """Raise what concerns more than one file: no connection, no credentials, a fault of ours."""
        if trouble.status == statuses.SOFTWARE:
            raise trouble
        if isinstance(trouble, ServiceError) and trouble.http_status != 404:
            raise trouble
        if isinstance(trouble, S3Error):
            refused = trouble.http_status == 403 and (not self.fetched or trouble.code in _OF_CREDENTIALS)
            self.strikes += trouble.status == statuses.TRY_AGAIN
            if refused or trouble.http_status in (0, 401) or self.strikes >= STRIKES:
                raise trouble


def places(root: str, kind: str, rules: list[Rule] | None) -> Places:
    """Where the files of a root go; those without a place are left out.

    With `rules` None the root stays where it is, if such a path can be on this host at all.
    """
    from libdeadline.path_mapping import Places

    found = Places(root, kind, rules or ())
    if rules is None and kind == path_format():
        found.folder = root
    return found


def error_code(trouble: Trouble) -> str:
    """How the status file calls what went wrong."""
    cause = trouble.__cause__
    if isinstance(cause, OSError):
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return "DISK_FULL"
        if isinstance(cause, PermissionError) or cause.errno == errno.EROFS:
            return "PERMISSION_DENIED"
        if isinstance(cause, FileNotFoundError):
            return "PATH_NOT_FOUND"
        if isinstance(cause, ConnectionError | TimeoutError):
            return "NETWORK_ERROR"
        return "UNKNOWN"
    return {
        statuses.NOT_ALLOWED: "PERMISSION_DENIED",
        statuses.NO_INPUT: "PATH_NOT_FOUND",
        statuses.UNAVAILABLE: "NETWORK_ERROR",
        statuses.TRY_AGAIN: "NETWORK_ERROR",
    }.get(trouble.status, "UNKNOWN")


def _result_of(work: Work) -> JobResult:
    result = JobResult()
    result.succeeded, result.farm_failed = work.succeeded, work.farm_failed
    return result


class _Region(RawIOBase):
    """A part of a file, read as if it were all; in the same thread others may read the file meanwhile."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, at: int, whence: int = 0) -> int:
        self._at = at + (0, self._at, self._length)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(buffer), self._length - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _checked(data: IO[bytes], name: str, *, sort: bool) -> Iterator[manifest.Entry]:
    """The entries of a manifest, in order. Raises: Trouble (65) where one could lead out of its root."""
    rows: Iterable[bytes] = manifest.read_packed(data, name)
    if sort:
        rows = sorted(rows)
    return manifest.unpacked(manifest.check_packed(rows, windows=os.name == "nt", ignore_case=IGNORES_CASE))


def _key(folder: str, local: str) -> str:
    from xxhash import xxh3_128_hexdigest

    path = os.path.normcase(os.path.join(folder, local))
    return xxh3_128_hexdigest(path.encode("utf-8", "surrogatepass"))


def _trouble_of(error: OSError, path: str) -> Trouble:
    from libdeadline.errors import os_trouble

    error.filename = path
    trouble = os_trouble(error, "write")
    trouble.__cause__ = error
    return trouble
