"""dl-download - fetch the files of jobs, or of manifests, from the store

Usage:
  dl-download [options] [--manifest=<m>]... [--map=<s=d>]... [--include=<g>]... [--exclude=<g>]... [--] [<job-id>...]

Options:
  --input                   The jobs' input files; without it, their output.
  --assets=<kind>           input, output or all, the inputs first. With a step,
                            inputs are those of the job and the output of the
                            steps that it depends on [default: output].
  --step-id=<id>            Only output of this step.
  --task-id=<id>            Only output of this task; needs the step as well.
  --manifest=<m>            The files of a manifest, by its place below
                            Manifests/ in the store or as a local file; may
                            be repeated, and later ones win.
  --to=<dir>                Put the files here; for files of one root.
  --below=<dir>             Put the files of a manifest whose root no rule
                            tells into a folder of its name below <dir>.
  --map=<s=d>               Put what lies at or below the folder <s> of the
                            job below the folder <d>; may be repeated.
  --path-mapping-rules=<file>  The same, as path mapping rules in a file.
  --include=<g>             Only files that match; may be repeated.
  --exclude=<g>             No files that match; may be repeated.
  --match-paths-by=<side>   What globs are about: job, paths as the job has
                            them, or local, as they are here [default: job].
  --conflict-resolution=<how>  Where a file exists that is not the same: skip,
                            overwrite, or create_copy, which puts the new one
                            beside it as "name (1).ext". By default what the
                            settings say, else create_copy.
  --ignore-storage-profiles  Take paths as the job has them.
  --storage-profile-id=<id>  Storage profile of this host.
  --farm-id=<id>            Farm of the jobs.
  --queue-id=<id>           Queue of the jobs.
  --profile=<name>          AWS profile to use.
  --region=<name>           AWS region to ask.
  --s3-root-uri=<uri>       Use the store s3://bucket/prefix, with the
                            profile's own credentials; no service is asked.
  --dry-run                 Tell which files there are, and fetch none.
  --list                    Tell which files there are, under the roots that they
                            have in the job, and fetch none.
  --fsync                   Write each file through to the disk before it
                            gets its name.
  --jobs=<n>                Most connections at a time; by default as many as
                            the distance to the store makes useful.
  --limit-rate=<bytes>      Most bytes to receive in a second, such as 10M.
  --retry-for=<time>        How long passing failures in a row are endured
                            [default: 2m].
  --stall=<time>            Silence after which a connection is given up
                            [default: 2m].
  --open-ended              Accept input that does not end in an end record.

Without a <job-id> or a manifest, reads job and manifest records and fetches
the files of each. A file appears whole and as its hash says, or not at all;
one that is here already is left alone.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from libdeadline import command, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble
from libdeadline.records import File, Job, Manifest, Record

if TYPE_CHECKING:
    from libdeadline.aws import Client
    from libdeadline.fetching import Fetcher, Item
    from libdeadline.manifest import Entry
    from libdeadline.path_mapping import Places, Rule
    from libdeadline.placing import Tree
    from libdeadline.store import Store

    from .sources import Files, Loaded, Source

WINDOW = 4096  # files on their way at a time
KEPT_ENTRIES = 1 << 15  # of a manifest, that are not read from it twice
CONFLICTS = ("SKIP", "OVERWRITE", "CREATE_COPY")


class Batch:
    """The files of one root: which they are, and where they go."""

    def __init__(self, root: str, root_path_format: str, files: Files, places: Places) -> None:
        self.root, self.root_path_format, self.files, self.places = root, root_path_format, files, places
        self.chosen: list[tuple[Entry, str | None, str]] | None = None  # what is wanted, where that is not too much


class Download:
    """One run."""

    def __init__(self, args: Arguments, run: Run) -> None:
        from libdeadline import path_mapping
        from libdeadline.targets import config_of

        self.args, self.run = args, run
        self.settings = config_of(args)
        conflict = args.choice("--conflict-resolution", (*CONFLICTS, "CREATE-COPY"))
        conflict = conflict or self.settings.choice("settings.conflict_resolution")
        self.conflict = {"CREATE-COPY": "CREATE_COPY", "NOT_SELECTED": "CREATE_COPY"}.get(conflict, conflict)
        self.jobs = args.integer("--jobs", 1, 1024)
        limit = args.bytes("--limit-rate")
        if limit == 0:
            raise Trouble("--limit-rate takes at least 1 byte a second", statuses.USAGE)
        self.limits: dict[str, Any] = {
            "bytes_per_s": limit,
            "retry_s": args.seconds("--retry-for"),
            "stall_s": args.seconds("--stall"),
        }
        side = args.choice("--match-paths-by", ("job", "local"))
        self.included = _globs(args["--include"])
        self.excluded = _globs(args["--exclude"])
        self.by_local = side == "local"
        self.rules = [_rule_of(text) for text in args["--map"]]
        if args["--path-mapping-rules"]:
            self.rules += path_mapping.read(args["--path-mapping-rules"])
        if args["--task-id"] and not args["--step-id"]:
            raise Trouble("--task-id needs --step-id as well", statuses.USAGE)
        self.assets = args.choice("--assets", ("input", "output", "all"))
        if args["--input"]:
            self.assets = "input"
        self.dry = args["--dry-run"] or args["--list"]
        if args["--input"] and args["--step-id"]:
            raise Trouble("--input and --step-id exclude each other: inputs belong to the job", statuses.USAGE)
        self.farm_id = self.queue_id = ""
        self.store: Store | None = None
        self.client: Client | None = None
        self.fetcher: Fetcher | None = None
        self.trees: dict[str, Tree] = {}
        self.profiles: dict[str, Any] = {}
        self.finished: SimpleQueue[Any] = SimpleQueue()
        self.figures = dict.fromkeys(("done_bytes", "total_bytes", "done_count", "total_count", "skipped_bytes"), 0)

    # What to fetch.

    def records(self) -> Iterator[Record]:
        """The work, and what comes of it."""
        args = self.args
        if args["--manifest"]:
            if args["<job-id>"]:
                raise Trouble("give manifests or jobs, not both", statuses.USAGE)
            yield from self._manifests([self._named(text) for text in args["--manifest"]])
        elif args["<job-id>"]:
            for job_id in args["<job-id>"]:
                yield from self._job(Job.of(job_id=job_id), job_id, tell=True)
        else:
            given: list[Source] = []
            for row in self.run.input(Job, Manifest, open_ended=args["--open-ended"]):
                yield row
                if isinstance(row, Job):
                    yield from self._job(row, row.job_id)
                elif isinstance(row, Manifest):
                    given.append(self._source_of(row))
            if given:
                yield from self._manifests(given)

    def _job(self, row: Job, job_id: str, *, tell: bool = False) -> Iterator[Record]:
        from libdeadline.jobs import record_of

        from . import sources

        store = self._open(row.farm_id, row.queue_id)
        ids = {"farmId": self.farm_id, "queueId": self.queue_id, "jobId": job_id}
        job: dict[str, Any] = {}
        if self.client is not None:
            job = self.client.call("GetJob", ids)
            if tell:
                yield record_of(job, self.farm_id, self.queue_id)
        elif self.assets != "output":
            raise Trouble(
                "for inputs the service is asked for the job's manifests: leave --s3-root-uri out", statuses.USAGE
            )
        elif not (self.farm_id and self.queue_id):
            raise Trouble("--s3-root-uri needs --farm-id and --queue-id as well", statuses.USAGE)
        formats = {
            each["rootPath"]: each["rootPathFormat"].lower()
            for each in (job.get("attachments") or {}).get("manifests") or ()
        }
        found: list[Source] = []
        step_id = self.args["--step-id"]
        if self.assets != "output":
            assert self.client is not None
            found += sources.inputs(job)
            if step_id:
                for each in self.client.items("ListStepDependencies", {**ids, "stepId": step_id}):
                    found += sources.outputs(store, ids, each["stepId"], None, self.client)
        if self.assets != "input":
            found += sources.outputs(store, ids, step_id, self.args["--task-id"], self.client)
        if not found:
            what = "" if self.assets == "all" else f"{self.assets} "
            self.run.info(f"there are no {what}files of '{job_id}'")
        profiled = self._profile_rules(job)
        yield from self._fetched(sources.load(store, found), formats if self.client else None, profiled)

    def _manifests(self, found: list[Source]) -> Iterator[Record]:
        from . import sources

        local_only = self.dry and all(source.file for source in found)
        store = None if local_only else self._open(None, None)
        yield from self._fetched(sources.load(store, found), None, None)

    def _named(self, text: str) -> Source:
        """The source that --manifest means; its root by the hash in its name, where a rule's source has that hash."""
        from libdeadline.paths import root_hash

        from .sources import Source

        name = os.path.basename(text)
        rule = next((rule for rule in self.rules if root_hash(rule.source_path) in name), None)
        root = rule.source_path if rule else None
        kind = rule.source_path_format if rule else None
        if os.path.exists(text):
            return Source(root, kind, file=os.path.abspath(text))
        if "/" not in text:
            raise Trouble(f"there is no manifest file '{text}'", statuses.NO_INPUT, path=text)
        return Source(root, kind, manifest_path=text, output=name.endswith("_output"))

    def _source_of(self, row: Manifest) -> Source:
        from .sources import Source

        if not row.manifest_path and not row.path:
            raise Trouble("a manifest record has neither 'manifest_path' nor 'path'", statuses.DATA)
        return Source(
            row.root,
            row.root_path_format,
            row.file_system_location_name,
            row.manifest_path,
            None if row.manifest_path else row.path,
            row.hash,
            bool(row.output),
        )

    def _open(self, farm_id: str | None, queue_id: str | None) -> Store:
        """The store of a queue; asked for again only when the queue is another one."""
        from libdeadline import aws
        from libdeadline.store import Store, parse_uri
        from libdeadline.targets import target

        args = self.args
        if self.store is not None and queue_id in (None, self.queue_id):
            return self.store
        if args["--s3-root-uri"]:
            bucket, prefix = parse_uri(args["--s3-root-uri"])
            session = aws.Session(self.settings)
            self.farm_id = farm_id or self.settings.get("defaults.farm_id")
            self.queue_id = queue_id or self.settings.get("defaults.queue_id")
        else:
            given = {"--farm-id": args["--farm-id"] or farm_id, "--queue-id": args["--queue-id"] or queue_id}
            found = target({**args, **given})
            session, self.farm_id, self.queue_id = found.session, found.farm_id, found.queue_id
            self.client = session.client("deadline")
            queue = self.client.call("GetQueue", {"farmId": self.farm_id, "queueId": self.queue_id})
            attachments = queue.get("jobAttachmentSettings") or {}
            bucket, prefix = attachments.get("s3BucketName", ""), attachments.get("rootPrefix", "")
            if not bucket:
                raise Trouble(
                    f"the queue '{self.queue_id}' has no files: it has no job attachment settings",
                    statuses.CONFIGURATION,
                )
            session = aws.queue_session(session, self.farm_id, self.queue_id)
        if self.fetcher is not None:
            self.fetcher.close()
            self.fetcher = None
        limits = {name: value for name, value in self.limits.items() if value is not None}
        self.store = Store.open(session, bucket, prefix, **limits)
        return self.store

    # Where it goes.

    def _profile_rules(self, job: dict[str, Any]) -> list[Rule] | None:
        """The rules from the job's storage profile to this host's; None where profiles don't matter."""
        from libdeadline.path_mapping import check_local, rules_between

        if self.args["--ignore-storage-profiles"] or self.args["--list"] or self.client is None:
            return None
        ours, theirs = self.settings.get("settings.storage_profile_id"), job.get("storageProfileId")
        if not ours or not theirs:
            if ours or theirs:
                whose = "the job has" if theirs else "this host has"
                self.run.warn(f"only {whose} a storage profile: paths are taken as they are")
            return None
        if ours == theirs:
            return None
        for each in (ours, theirs):
            if each not in self.profiles:
                asked = {"farmId": self.farm_id, "queueId": self.queue_id, "storageProfileId": each}
                self.profiles[each] = self.client.call("GetStorageProfileForQueue", asked)
        check_local(self.profiles[ours])
        return rules_between(self.profiles[theirs], self.profiles[ours])

    def _places(
        self,
        root: str,
        kind: str,
        profiled: list[Rule] | None,
        *,
        stays: bool = False,
        roots: Container[str] | None = None,
    ) -> Places:
        """Where the files of a root go; those without a place are left out.

        With `stays`, those that no rule of the storage profiles holds stay where the job has them. `roots` are the
        job's, where there is one: whoever may write to the store may not choose others.
        Raises: Trouble, 78 where all of them would have to stay and can't, 65 where they may not.
        """
        from libdeadline.path_mapping import Places
        from libdeadline.paths import path_format, root_problem

        fixed = root if self.args["--list"] else self.args["--to"] and os.path.abspath(self.args["--to"])
        places = Places(root, kind, () if fixed else (*self.rules, *(profiled or ())))
        if fixed:
            places.folder = fixed
        elif places.folder is None and (profiled is None or stays):
            if kind == path_format():
                problem = root_problem(root, kind)
                if roots is not None and root not in roots:
                    problem = "it is none of the job's"
                if problem:
                    raise Trouble(
                        f"a manifest names the root '{root}', but {problem}: if its files are wanted, tell where they "
                        f"go with --map '{root}=<folder>'",
                        statuses.DATA,
                        path=root,
                    )
                places.folder = root
            elif places.is_empty:
                raise Trouble(
                    f"'{root}' is a {kind} path: tell where its files go with --map '{root}=<folder>'",
                    statuses.CONFIGURATION,
                    path=root,
                )
        return places

    def _fetched(
        self, loaded: Iterable[Loaded], formats: dict[str, str] | None, profiled: list[Rule] | None
    ) -> Iterator[Record]:
        """The manifests' records, and those of their files as they are fetched.

        Shape: `formats` has the path format of each root of the job; None, where no job is known.
        """
        from .sources import Files

        roots: dict[str, list[Loaded]] = {}
        own: set[str] = set()
        for each in loaded:
            source = each.source
            root = source.root
            if root is None and self.args["--below"] is not None:
                root = self._own_folder(source, own)
            if root is None and not self.args["--to"]:
                name = source.manifest_path or source.file
                raise Trouble(
                    f"whose files are those of '{name}'? give --to, --below, or path mapping rules with its root",
                    statuses.USAGE,
                )
            kind = source.root_path_format or (formats or {}).get(root or "") or _format_of(root or "")
            source = source._replace(root=root, root_path_format=kind)
            roots.setdefault(root or "", []).append(each._replace(source=source))
            yield Manifest.of(
                root=root,
                root_path_format=kind,
                file_system_location_name=source.location,
                manifest_path=source.manifest_path,
                path=source.file,
                hash=source.hash,
                hash_alg="xxh128" if source.hash else None,
                size=each.size,
                output=source.output or None,
            )
        if self.args["--to"] and len(roots) > 1:
            raise Trouble(f"--to is for files of one root, and these are of {len(roots)}: use --map", statuses.USAGE)
        batches = []
        for root, parts in roots.items():
            kind = parts[0].source.root_path_format or "posix"
            # Output goes where both profiles say, or it is left out; what is put in need not be of a location.
            stays = not all(part.source.output for part in parts)
            places = self._places(root, kind, profiled, stays=stays, roots=formats)
            batches.append(Batch(root, kind, Files(parts), places))
        # All is checked, of all roots, before anything is written.
        self.run.progress.update(message="checking the manifests", **self.figures)
        count, left_out, needed = self._measured(batches)
        if left_out and not count:
            self.run.warn("no file lies in a location that both storage profiles have: paths are taken as they are")
            for batch in batches:
                batch.places = self._places(batch.root, batch.root_path_format, None, roots=formats)
            count, left_out, needed = self._measured(batches)
        self.run.progress.update(message=None)
        self.figures["total_count"] += count
        self.figures["total_bytes"] += sum(needed.values())
        if left_out:
            self.run.warn(f"{left_out} files lie outside of the locations that both storage profiles have: left out")
            self.run.count(left_out=left_out)
        if not self.dry and _too_large(needed):
            # Much of it may be here already.
            needed = dict.fromkeys(needed, 0)
            for batch in batches:
                for entry, folder, local in self._chosen(batch):
                    if folder is not None:
                        needed[folder] += _missing(folder, local, entry.size)
            if trouble := _too_large(needed):
                raise trouble
        for batch in batches:
            yield from self._transferred(batch)

    def _measured(self, batches: list[Batch]) -> tuple[int, int, dict[str, int]]:
        """(files that are wanted, files that have no place, bytes by folder)."""
        needed: dict[str, int] = {}
        count = left_out = 0
        for batch in batches:
            for entry, folder, _ in self._remembered(batch):
                if folder is None:
                    left_out += 1
                else:
                    count += 1
                    needed[folder] = needed.get(folder, 0) + entry.size
        return count, left_out, needed

    def _own_folder(self, source: Source, taken: set[str]) -> str:
        """The folder of a manifest's name that its files go to."""
        name = os.path.basename(source.manifest_path or source.file or "")
        folder = os.path.join(os.path.abspath(self.args["--below"]), name)
        if folder in taken:
            raise Trouble(
                f"the files of two manifests named '{name}' would go to '{folder}': fetch them one after the other, or "
                f"give --to",
                statuses.USAGE,
            )
        if os.path.isfile(folder):
            raise Trouble(
                f"the files of the manifest would go to '{folder}', which is a file: run it in another folder, or "
                f"say with path mapping rules or --to where they go",
                statuses.CANNOT_CREATE,
                path=folder,
            )
        taken.add(folder)
        return folder

    def _chosen(self, batch: Batch) -> Iterator[tuple[Entry, str | None, str]]:
        """The files that are wanted: manifest entry, folder (None where it has no place), and path below that."""
        begin = batch.root.replace("\\", "/") if batch.root_path_format == "windows" else batch.root
        begin = begin.rstrip("/")
        find, included, excluded = batch.places.find, self.included, self.excluded
        for entry in batch.files:
            folder, local = find(entry.path) or (None, "")
            if included or excluded:
                if self.by_local and folder is not None:
                    name = os.path.join(folder, local).replace("\\", "/")
                else:
                    name = f"{begin}/{entry.path}"
                if (included and not included(name)) or (excluded and excluded(name)):
                    continue
            yield entry, folder, local

    def _remembered(self, batch: Batch) -> Iterator[tuple[Entry, str | None, str]]:
        """What `_chosen` gives, which `batch` keeps for the next time where it is not too much."""
        kept: list[tuple[Entry, str | None, str]] | None = []
        for each in self._chosen(batch):
            if kept is not None:
                kept.append(each)
                if len(kept) > KEPT_ENTRIES:
                    kept = None
            yield each
        batch.chosen = kept

    # How it comes.

    def _transferred(self, batch: Batch) -> Iterator[Record]:
        """Fetch the files of a batch: their records, in order."""
        from libdeadline.fetching import Fetcher, Item
        from libdeadline.placing import Tree

        if self.dry:
            for entry, folder, local in self._chosen(batch):
                if folder is not None:
                    row = _row_of(entry, batch.root or folder)
                    if not self.args["--list"]:
                        row["local_path"] = os.path.join(folder, local)
                    yield row
            return
        assert self.store is not None
        if self.fetcher is None:
            self.fetcher = Fetcher(self.store, self.conflict, self.jobs, self.args["--fsync"], self.finished)
        pending: deque[Item] = deque()
        chosen = iter(batch.chosen) if batch.chosen is not None else self._chosen(batch)
        more = True
        while more or pending:
            while more and len(pending) < WINDOW:
                try:
                    entry, folder, local = next(chosen)
                except StopIteration:
                    more = False
                    break
                if folder is None:
                    continue
                row = _row_of(entry, batch.root or folder)
                tree = self.trees.get(folder)
                if tree is None:
                    tree = self.trees[folder] = Tree(folder)
                item = Item(row, tree, local)
                pending.append(item)
                self.fetcher.submit(item)
            if not pending:
                break
            self._wait(pending)
            while pending and pending[0].done:
                out = self._outcome(pending.popleft())
                if out is not None:
                    yield out

    def _wait(self, pending: deque[Item]) -> None:
        """Wait until something has come of the files, best of those at the front."""
        from time import sleep

        from libdeadline.pool import taken

        if not pending[0].done:
            self._note(taken(self.finished))
            sleep(NAP_S[len(pending) > MANY])
        while not self.finished.empty():
            self._note(self.finished.get())
        if self.run.mode != "none":
            self.run.progress.update(**self.figures)

    def _note(self, token: Any) -> None:
        figures = self.figures
        if isinstance(token, int):
            figures["done_bytes"] += token
            return
        if token.fatal:
            raise token.trouble
        size = token.row["size"]
        figures["done_count"] += 1
        figures["done_bytes"] += max(size - token.told, 0)
        if token.outcome != "new":
            figures["skipped_bytes"] += size

    def _outcome(self, item: Item) -> Record | None:
        row = item.row
        if item.trouble is not None:
            self.run.fail(item.trouble)
            self.run.count(failed=1)
            return None
        row["download"] = item.outcome
        parent = item.local.rpartition("/")[0]
        row["local_path"] = (
            os.path.join(item.tree.path, parent, item.name) if parent else os.path.join(item.tree.path, item.name)
        )
        counts, outcome = self.run.counts, str(item.outcome)
        counts[outcome] = counts.get(outcome, 0) + 1
        counts[f"{outcome}_bytes"] = counts.get(f"{outcome}_bytes", 0) + row["size"]
        return row

    def close(self, *, whole: bool) -> None:
        if self.fetcher is not None:
            if whole:
                self.fetcher.close()
                for tree in self.trees.values():
                    tree.finish()
            else:
                self.fetcher.stop()


NAP_S = (0.002, 0.02)  # so that several files are told of at a time: when few are pending, and many
MANY = 64


def _rule_of(text: str) -> Rule:
    from libdeadline.path_mapping import Rule

    source, equals, destination = text.rpartition("=")
    if not equals or not source or not destination:
        raise Trouble(f"--map takes <source>=<destination>, not '{text}'", statuses.USAGE)
    return Rule(_format_of(source), source, os.path.abspath(destination))


def _format_of(root: str) -> str:
    """The kind of path that a root is, by its look."""
    return "windows" if re.match(r"[A-Za-z]:[\\/]|\\\\", root) else "posix"


def _globs(patterns: Sequence[str]) -> Callable[[str], Any] | None:
    """A function that tells whether a path, root and all with / between parts, matches one of the globs.

    Source: attachments specification, filters of downloads.
    """
    from fnmatch import translate

    whole = []
    for pattern in patterns:
        pattern = re.sub("/+", "/", pattern.replace("\\", "/").removeprefix("./"))
        if not pattern:
            continue  # is about nothing in particular
        if not re.match(r"[/*]|[A-Za-z]:", pattern):
            pattern = "*/" + pattern
        if pattern.endswith("/"):
            pattern += "*"
        whole.append(translate(pattern))
    return re.compile("|".join(whole)).match if whole else None


def _row_of(entry: Entry, root: str) -> File:
    path, hash, size, mtime = entry
    return File(
        {"type": "file", "path": path, "root": root, "size": size, "mtime": mtime, "hash": hash, "hash_alg": "xxh128"}
    )


def _missing(folder: str, local: str, size: int) -> int:
    """How many bytes of a file are not here yet, by the look of its size."""
    try:
        about = os.stat(os.path.join(folder, local))
    except OSError:
        return size
    return 0 if about.st_size == size else size


def _too_large(needed: dict[str, int]) -> Trouble | None:
    """The trouble (73) with files that do not fit where they are to go, by folder and bytes, if they don't."""
    from libdeadline.progress import size_text

    by_disk: dict[int, tuple[str, int, int]] = {}
    for folder, amount in needed.items():
        there = folder
        while not os.path.exists(there) and os.path.dirname(there) != there:
            there = os.path.dirname(there)
        try:
            if hasattr(os, "statvfs"):
                about = os.statvfs(there)
                free = about.f_bavail * about.f_frsize
            else:
                from shutil import disk_usage

                free = disk_usage(there).free
            device = os.stat(there).st_dev
        except OSError:
            continue
        name, sum_, _ = by_disk.get(device, (folder, 0, 0))
        by_disk[device] = (name, sum_ + amount, free)
    for name, amount, free in by_disk.values():
        if amount > free:
            return Trouble(
                f"not enough space for '{name}': the files take {size_text(amount)}, and {size_text(free)} are free",
                statuses.CANNOT_CREATE,
                path=name,
            )
    return None


def stage(args: Arguments, run: Run) -> Iterator[Record]:
    download = Download(args, run)
    whole = False
    try:
        yield from download.records()
        whole = True
    finally:
        download.close(whole=whole)


def main() -> int:
    return command.run(__doc__, stage)
