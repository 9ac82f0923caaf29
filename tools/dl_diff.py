"""dl-diff - tell how a folder, a stream of files or another manifest differs from a manifest

Usage:
  dl-diff [options] [--include=<glob>]... [--exclude=<glob>]... [--] <manifest> [<other>]

<other> is a folder, whose files are compared by size and modification time, or a manifest, whose files are compared
by content. Without it, file records are read from standard input and compared by their hashes: dl-hash <folder> |
dl-diff <manifest> compares a folder by content. Each file that differs is a file record with a status. The exit
status is 1 if there is any.

Options:
  --only=<statuses>  Which to tell of and to count as a difference: new, modified and
                     deleted, separated by commas [default: new,modified,deleted].
  --include=<glob>   Compare only files that match; may be repeated.
  --exclude=<glob>   Do not compare files that match; may be repeated.
  --no-hidden        Do not compare what begins with a dot, unless an --include
                     spells the dot.
  --exact-globs      A glob that matches a folder is not about what is in it:
                     <folder>/** is. Of excludes, too, --no-hidden holds.
  --links=<how>      In a folder, as for dl-hash: files, follow, skip or fail
                     [default: files].
  --open-ended       Take input records without an end record as whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from libdeadline import command, long_paths, manifest, paths, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble, os_trouble
from libdeadline.records import File, Record, Root
from libdeadline.walk import Selection, walk

DIFFERENT = 1
STATUSES = ("new", "modified", "deleted")
TOLERANCE_US = 1  # of times, which pass through a float on their way to a disk


def in_folder(folder: str, links: str, selection: Selection | None, run: Run) -> Iterator[File]:
    """The files of a folder, without hashes.

    Raises: Trouble 66 where it can't be listed.
    """

    def note(why: str, path: str, error: OSError | None) -> None:
        if why == "unreadable" and error is not None:
            run.fail(Trouble(f"cannot read '{path}': {error.strerror}", statuses.NOT_ALLOWED, path=path))
        elif why == "undecodable" or (why == "link" and links == "fail"):
            what = "a link" if why == "link" else "not UTF-8, which no manifest holds"
            run.fail(Trouble(f"'{path}' is {what}", statuses.DATA, path=path))

    try:
        for here, names in walk(folder, links=links, selection=selection, note=note):
            base = os.path.join(folder, here)
            for name in names:
                try:
                    status = long_paths.status(os.path.join(base, name))
                except FileNotFoundError:
                    continue  # gone meanwhile, and so it is told as deleted
                row = File({"type": "file", "path": here + name, "root": folder})
                row["size"], row["mtime"] = status.st_size, status.st_mtime_ns // 1000
                yield row
    except OSError as error:
        raise os_trouble(error, "read") from None


def in_manifest(name: str) -> Iterator[File]:
    """The files of a manifest."""
    with open(name, "rb") as file:
        for entry in manifest.read(file, name):
            yield _record(entry, None)


def in_stream(rows: Iterator[Record]) -> Iterator[File]:
    """The file records of a stream.

    Raises: Trouble (65) where one has no hash.
    """
    for row in rows:
        if isinstance(row, File):
            if row.hash is None or row.size is None:
                raise Trouble(
                    f"file record '{row.path}' has no hash: pass the stream through dl-hash",
                    statuses.DATA,
                    path=row.path,
                )
            yield row


def changed(row: File, entry: manifest.Entry) -> bool:
    """Whether a file differs: by its hash where it has one, else by size and time."""
    if row.size != entry.size:
        return True
    if row.hash is not None:
        return row.hash != entry.hash
    return row.mtime is None or abs(row.mtime - entry.mtime) > TOLERANCE_US


def stage(args: Arguments, run: Run) -> Iterator[Record]:
    only = args["--only"].split(",")
    for status in only:
        if status not in STATUSES:
            raise Trouble(f"--only takes some of {','.join(STATUSES)}, not '{status}'", statuses.USAGE)
    links = args.choice("--links", ("files", "follow", "skip", "fail"))
    assert links is not None
    selection = None
    if args["--include"] or args["--exclude"] or args["--no-hidden"]:
        selection = Selection(
            args["--include"], args["--exclude"], hidden=not args["--no-hidden"], exact=args["--exact-globs"]
        )
    other, root = args["<other>"], None
    if other is None:
        files = in_stream(run.input(File, open_ended=args["--open-ended"]))
    elif os.path.isdir(other):
        root = paths.absolute(other)
        files = in_folder(root, links, selection, run)
    else:
        files = in_manifest(other)
    known: dict[str, manifest.Entry] = {}
    with open(args["<manifest>"], "rb") as file:
        for entry in manifest.read(file, args["<manifest>"]):
            if selection is None or selection.takes(entry.path):
                known[entry.path] = entry
    if root is not None:
        yield Root.of(root=root, root_path_format=paths.path_format())
    counts = dict.fromkeys(STATUSES, 0)
    for row in files:
        if selection is not None and not selection.takes(row.path):
            continue
        former = known.pop(row.path, None)
        if former is not None and not changed(row, former):
            continue
        status = "new" if former is None else "modified"
        if status in only:
            counts[status] += 1
            row["status"] = status
            yield row
    if "deleted" in only:
        for entry in known.values():
            counts["deleted"] += 1
            row = _record(entry, root)
            row["status"] = "deleted"
            yield row
    run.count(**counts)
    return DIFFERENT if any(counts.values()) else statuses.OK


def _record(entry: manifest.Entry, root: str | None) -> File:
    return File.of(
        path=entry.path, root=root, size=entry.size, mtime=entry.mtime, hash=entry.hash, hash_alg=manifest.HASH_ALG
    )


def main() -> int:
    return command.run(__doc__, stage)
