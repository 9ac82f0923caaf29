"""dl-hash - add the content hash to file records, or to the files of folders and lists

Usage:
  dl-hash [options] [--include=<glob>]... [--exclude=<glob>]... [--] [<path>...]

Without a <path>, file records are read from standard input (with -0 or -l: names) and written in the same
order with hash, hash_alg, size and mtime filled in; records of other kinds pass unchanged. Each <path> is a
file, or a folder that is walked.

Options:
  --root=<dir>          Folder that the paths in the records are relative to. By
                        default a folder that is walked is its own root, and
                        files start from the current folder.
  --path-mapping-rules=<file>  Where the roots of records lie on this host; the
                        records go on naming them as they are.
  -0, --null            Standard input is a list of names, each ended by a NUL.
  -l, --lines           Standard input is a list of names, one a line.
  --include=<glob>      Take only files that match; may be repeated.
  --exclude=<glob>      Leave out files that match; may be repeated.
  --no-hidden           Leave out what begins with a dot, unless an --include
                        spells the dot.
  --exact-globs         A glob that matches a folder is not about what is in it:
                        <folder>/** is. Of excludes, too, --no-hidden holds.
  --links=<how>         files: a link counts as the file that it leads to, and
                        linked folders are left out with a warning; follow:
                        they are entered; skip: links are left out; fail: a
                        link is a failure
                        [default: files].
  --special=<do>        What to do about sockets, devices and the like: skip, warn
                        or fail [default: warn].
  --missing=<do>        About files that are gone, and links to nothing: skip, warn
                        or fail [default: fail].
  --changed=<do>        About files that keep changing while they are read: skip,
                        warn or fail [default: fail].
  --undecodable=<do>    About names that are no UTF-8 and can't stand in a manifest:
                        skip, warn or fail [default: fail].
  --empty-dirs=<do>     About empty folders, which a manifest can't hold: skip, warn
                        or fail [default: skip].
  --no-cache            Neither ask nor fill the hash cache.
  --rehash              Read every file, whatever the cache says, and correct it.
  -j, --jobs=<n>        Processes that hash; by default one for each core, at most
                        eight.
  --open-ended          Take input records without an end record as whole.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

from libdeadline import command, paths, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble
from libdeadline.records import Bundle, File, Foreign, Record, Root

DOS = ("skip", "warn", "fail")
MOST_PROCESSES = 8
KEEP_AT_ONCE = 4096  # rows of the cache in a transaction
LIST_AT_ONCE = 4096  # names of a list that are looked at together
READ_BYTES = 1 << 17
REASONS = {
    "loop": "it is a link to a folder that it lies in",
    "special": "it is no regular file",
    "link": "it is a link",
    "folder link": "it is a link to a folder, and those are entered with --links=follow",
    "dangling": "it is a link to nothing",
    "undecodable": "its name is no UTF-8, which a manifest can't hold",
    "empty": "it is an empty folder, which a manifest can't hold",
}


class Policies:
    """What to do about files that get no hash, and how often it was done."""

    def __init__(self, args: Arguments, run: Run) -> None:
        self.run = run
        chosen = {
            name: args.choice(f"--{name}", DOS) or "fail" for name in ("special", "missing", "changed", "undecodable")
        }
        self.links = links = args["--links"]
        self.do = {
            **chosen,
            "dangling": chosen["missing"],
            "empty": args.choice("--empty-dirs", DOS) or "skip",
            "link": "fail" if links == "fail" else "skip",
            "folder link": "warn",
            "loop": "fail" if links == "fail" else "warn",
        }

    def note(self, why: str, path: str, error: OSError | None) -> None:
        """Told by a walk."""
        if error is not None and why == "unreadable":
            if error.errno in (errno.ENOENT, errno.ELOOP):
                why = "missing"
            self.report(why, path, f"cannot read '{path}': {error.strerror}")
        else:
            if why == "link" and self.links == "files":
                why = "folder link"  # of those to files none is left out
            self.report(why, path, f"'{path}' is left out: {REASONS[why]}")

    def report(self, why: str, path: str, message: str) -> None:
        """Skip, warn or fail, as chosen for `why`; what has no choice fails."""
        do = self.do.get(why, "fail")
        self.run.count(**{"empty_dirs" if why == "empty" else "left_out": 1})
        if do == "warn":
            self.run.warn(message, path=path)
        elif do == "fail":
            status = {
                "missing": statuses.NO_INPUT,
                "dangling": statuses.NO_INPUT,
                "unreadable": statuses.NOT_ALLOWED,
                "changed": statuses.TRY_AGAIN,
            }.get(why, statuses.DATA)
            self.run.fail(Trouble(message, status, path=path))


class Results:
    """Turns what the pool gives into records, counts it and keeps it in the cache."""

    def __init__(self, run: Run, policies: Policies, cache: str | None) -> None:
        self.run, self.policies, self.cache_path = run, policies, cache
        self.fresh: list[Any] = []
        self.cache: Any = None
        run.counts.update(files=0, bytes=0, cached=0)

    def record(self, item: Any) -> Record:
        if isinstance(item, Record):
            return item
        for why, path, message in item.troubles:
            self.policies.report(why, path, message)
        self.run.count(files=item.files, bytes=item.size, cached=item.cached)
        self.run.progress.add(done_count=item.files, done_bytes=item.size)
        if self.cache_path and item.fresh:
            self.fresh += item.fresh
            if len(self.fresh) >= KEEP_AT_ONCE:
                self.keep()
        block = Foreign()
        block.line = item.lines
        return block

    def keep(self) -> None:
        """Write what was hashed to the cache."""
        if not self.fresh or not self.cache_path:
            return
        if self.cache is None:
            # Only now: the processes that a connection must not be carried into have been forked.
            from .cache import Cache

            self.cache = Cache(self.cache_path)
        self.cache.keep(self.fresh)
        self.fresh = []
        if self.cache.broken:
            self.run.debug(f"the hash cache can't be used: {self.cache.broken}")
            self.cache_path = None

    def close(self) -> None:
        """Write what is left, and let go of the cache."""
        self.keep()
        if self.cache is not None:
            self.cache.close()


def names(descriptor: int, separator: bytes) -> Iterator[list[str]]:
    """The names on a descriptor, in lists, each as soon as it was read."""
    tail = b""
    while block := os.read(descriptor, READ_BYTES):
        *whole, tail = (tail + block).split(separator)
        yield [os.fsdecode(name) for name in whole if name]
    if tail:
        yield [os.fsdecode(tail)]


def stage(args: Arguments, run: Run) -> Iterator[Record]:
    from .content import Settings
    from .pool import Pool

    links = args.choice("--links", ("files", "follow", "skip", "fail"))
    assert links is not None
    listed = args["--null"] or args["--lines"]
    selection = _selection(args, listed)
    processes = _processes(args)
    policies = Policies(args, run)
    cache = None if args["--no-cache"] else os.path.expanduser("~/.deadline/cache/dl_hash.sqlite")
    root = paths.absolute(args["--root"]) if args["--root"] else None
    results = Results(run, policies, cache)
    follow = links in ("files", "follow")
    settings = Settings(root or paths.absolute("."), follow, cache, args["--rehash"], _places(args))
    pool = Pool(settings, processes)
    try:
        if args["<path>"]:
            work = _named(args["<path>"], root, links, selection, policies, pool)
        elif listed:
            separator = b"\0" if args["--null"] else b"\n"
            work = _listed(separator, root or paths.absolute("."), selection, policies, pool, run)
        else:
            work = _piped(args["--open-ended"], pool, results, run)
        for item in work:
            yield results.record(item)
        for item in pool.finish():
            yield results.record(item)
    finally:
        pool.close()
        results.close()


def _selection(args: Arguments, listed: bool) -> Any:
    if not (args["--include"] or args["--exclude"] or args["--no-hidden"]):
        return None  # then --exact-globs is about nothing
    if not listed and not args["<path>"]:
        raise Trouble(
            "--include, --exclude and --no-hidden choose among folders and lists, not records", statuses.USAGE
        )
    from libdeadline.walk import Selection

    return Selection(args["--include"], args["--exclude"], hidden=not args["--no-hidden"], exact=args["--exact-globs"])


def _places(args: Arguments) -> dict[str, str]:
    if not args["--path-mapping-rules"]:
        return {}
    if args["<path>"] or args["--null"] or args["--lines"]:
        raise Trouble("--path-mapping-rules is about roots of records, not folders and lists", statuses.USAGE)
    from libdeadline import path_mapping

    rules = path_mapping.read(args["--path-mapping-rules"])
    return {rule.source_path: rule.destination_path for rule in reversed(rules)}


def _processes(args: Arguments) -> int:
    wanted = args.integer("--jobs", 1, 256)
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


def _root_record(root: str) -> Record:
    if not _is_utf8(root):
        raise Trouble(f"the root '{root}' is no UTF-8, which a manifest can't go with", statuses.DATA, path=root)
    return Root.of(root=root, root_path_format=paths.path_format())


def _within(path: str, root: str) -> str:
    """`path` relative to `root`, with / between parts.

    Raises: Trouble (65) where it lies outside.
    """
    if not paths.is_within(path, root) or path == root:
        raise Trouble(
            f"'{path}' lies outside of the root '{root}': give a --root that holds it", statuses.DATA, path=path
        )
    return paths.relative(path, root).replace(os.sep, "/")


def _named(
    named: list[str], root: str | None, links: str, selection: Any, policies: Policies, pool: Any
) -> Iterator[Any]:
    """The files and folders that were named."""
    from stat import S_ISDIR

    from libdeadline.walk import walk

    told: set[str] = set()
    here = paths.absolute(".")
    for name in named:
        path = paths.absolute(name)
        try:
            is_folder = S_ISDIR(os.stat(path).st_mode)
        except OSError as error:
            policies.note("unreadable", name, error)
            continue
        own = path if is_folder else here if paths.is_within(path, here) else os.path.dirname(path)
        base = root or own
        inside = "" if path == base else _within(path, base)
        if not is_folder and not inside.isascii() and not _is_utf8(inside):
            policies.note("undecodable", inside, None)
            continue
        if base not in told:
            told.add(base)
            yield from pool.put(_root_record(base))
        if not is_folder:
            if selection is None or selection.takes(inside):
                folder, _, last = inside.rpartition("/")
                yield from pool.folder(base, folder + "/" if folder else "", [last])
            continue
        prefix = inside + "/" if inside else ""
        chosen = _Below(selection, prefix) if selection and prefix else selection

        def note(why: str, path: str, error: OSError | None, prefix: str = prefix) -> None:
            policies.note(why, prefix + path, error)

        for folder, found in walk(path, links=links, selection=chosen, note=note):
            policies.run.progress.add(total_count=len(found))
            yield from pool.folder(base, prefix + folder, found)


class _Below:
    """A selection for a walk that starts below the root."""

    def __init__(self, selection: Any, prefix: str) -> None:
        self.selection, self.prefix = selection, prefix

    def takes(self, path: str) -> bool:
        return bool(self.selection.takes(self.prefix + path))

    def enters(self, folder: str) -> bool:
        return bool(self.selection.enters(self.prefix + folder))


def _is_utf8(name: str) -> bool:
    from libdeadline.walk import is_utf8

    return is_utf8(name)


def _listed(separator: bytes, root: str, selection: Any, policies: Policies, pool: Any, run: Run) -> Iterator[Any]:
    """The files of a list; folders in it are passed over, because find(1) lists what is in them."""
    from stat import S_ISDIR

    if os.isatty(0):
        raise Trouble("nothing to read: pipe names in (see --help)", statuses.USAGE)
    yield from pool.put(_root_record(root))
    for batch in names(0, separator):
        folder, together = "", []
        for name in batch:
            inside = _within(paths.absolute(name), root) if paths.absolute(name) != root else ""
            if not inside or (selection is not None and not selection.takes(inside)):
                continue
            if not inside.isascii() and not _is_utf8(inside):
                policies.note("undecodable", inside, None)
                continue
            try:
                if S_ISDIR(os.stat(os.path.join(root, inside)).st_mode):
                    continue
            except OSError:
                pass  # reading it will tell
            before, _, last = inside.rpartition("/")
            before = before + "/" if before else ""
            if before != folder and together:
                yield from pool.folder(root, folder, together)
                together = []
            folder = before
            together.append(last)
        run.progress.add(total_count=len(batch))
        if together:
            yield from pool.folder(root, folder, together)
        yield from pool.ready()


def _piped(open_ended: bool, pool: Any, results: Results, run: Run) -> Iterator[Any]:
    """The file records on standard input, other records in their places."""
    from libdeadline.stream import Input

    if os.isatty(0):
        raise Trouble("nothing to read: pipe records in, or name what to hash (see --help)", statuses.USAGE)
    rows: list[dict[str, Any]] = []
    output = run.output
    assert output is not None

    def before_wait() -> None:
        # What was read is hashed and written before the tool sleeps, or a slow stream would stand still.
        for item in pool.rows(rows):
            output.write(results.record(item))
        rows.clear()
        for item in pool.until_readable(0):
            output.write(results.record(item))
        output.flush()

    try:
        for row in Input(0, (Bundle, File), open_ended=open_ended, before_wait=before_wait):
            if isinstance(row, Bundle) and row.file_count is not None and row.total_bytes is not None:
                run.progress.update(total_count=row.file_count, total_bytes=row.total_bytes)
            if isinstance(row, File):
                rows.append(dict(row))
                if len(rows) >= LIST_AT_ONCE:
                    yield from pool.rows(rows)
                    rows.clear()
            else:
                yield from pool.rows(rows)
                rows.clear()
                yield from pool.put(row)
    except Trouble:
        # What came before a cut is passed on, whether or not there was a pause between.
        yield from pool.rows(rows)
        yield from pool.finish()
        raise
    yield from pool.rows(rows)


def main() -> int:
    return command.run(__doc__, stage)
