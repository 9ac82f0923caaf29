"""dl-manifest - write the manifests of a stream of hashed files, or turn manifests into file records

Usage:
  dl-manifest [options]
  dl-manifest cat [options] [--] <manifest>...
  dl-manifest merge [options] [--] <manifest>...
  dl-manifest subtract [options] [--] <manifest> <other>...

Without a command, hashed file records are read from standard input and every record is passed on; once the
stream is whole, one manifest for each root is written, and a manifest record emitted for each. cat gives the
file records of manifests one after another; merge gives each path once, as the last manifest that has it says;
subtract gives the files of the first manifest that the others lack or have with other content.

Options:
  --to=<dir>        Folder for the manifests, named <name>-<hash of root>-<time>.manifest.
                    By default they go to the cache, named after their own hash.
  --name=<name>     Beginning of those names; by default the root, with _ between its
                    parts.
  --root=<dir>      Root of files whose records name none, by default the current
                    folder, and of those that cat, merge and subtract give.
  --root-as=<text>  Spelling of the root that goes into the name of the manifest.
  --open-ended      Take input without an end record as whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Any

from libdeadline import command, manifest, paths, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble
from libdeadline.records import File, Manifest, Record, Root

CACHE = "~/.deadline/cache/manifests"


def passing(rows: Iterator[Record], builders: dict[str, manifest.Builder], facts: dict[str, Root], here: str) -> Any:
    """Yield `rows` as they come, and collect the entries of each root.

    Raises: Trouble (65) at a file record without hash, size or mtime, or with a path that no manifest may have.
    """
    root, builder = None, manifest.Builder()
    for row in rows:
        if isinstance(row, File):
            if row.get("root", here) != root or root is None:
                root = row.get("root", here)
                builder = builders.setdefault(root, manifest.Builder())
            try:
                path = row["path"]
                if problem := paths.relative_problem(path):
                    raise Trouble(f"the path '{path}' is refused: {problem}", statuses.DATA, path=path)
                hash_, size, mtime = row["hash"], row["size"], row["mtime"]
                if type(size) is not int or type(mtime) is not int or not _is_hash(hash_):
                    raise Trouble(
                        f"file record '{path}' has a hash, size or mtime that is none", statuses.DATA, path=path
                    )
                builder.add(path, hash_, size, mtime)
            except KeyError as error:
                raise Trouble(
                    f"file record '{row.get('path')}' has no {error.args[0]}: pass the stream through dl-hash",
                    statuses.DATA,
                    path=row.get("path"),
                ) from None
        elif isinstance(row, Root):
            facts[row.root] = row
        yield row


def _is_hash(text: Any) -> bool:
    return isinstance(text, str) and text.isalnum() and text.isascii()


def write(builder: manifest.Builder, folder: str, name: str | None) -> tuple[str, manifest.Summary]:
    """Write a manifest into `folder`, whole and durable: as `name`, or named after its hash. Returns its path.

    Raises: OSError; nothing but a temporary file was written then, and that is gone.
    """
    from tempfile import mkstemp

    os.makedirs(folder, mode=0o700, exist_ok=True)
    descriptor, temporary = mkstemp(prefix=".dl-manifest-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            summary = builder.write(lambda data: _write_all(file, data))
            os.fchmod(descriptor, 0o666 & ~_umask())
            os.fsync(descriptor)
        path = os.path.join(folder, name or f"{summary.hash}.manifest")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(folder)
    return path, summary


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: str) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # a system on which folders can't be opened
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def writing(args: Arguments, run: Run) -> Iterator[Record]:
    """The stage without a command."""
    here = paths.absolute(args["--root"] or ".")
    builders: dict[str, manifest.Builder] = {}
    facts: dict[str, Root] = {}
    yield from passing(run.input(File, Root, open_ended=args["--open-ended"]), builders, facts, here)
    local = any(args[option] is not None for option in ("--to", "--name", "--root-as"))
    if args["--root-as"] is not None and len(builders) > 1:
        raise Trouble("--root-as goes with one root, but the stream has several", statuses.USAGE)
    folder = args["--to"] or ("." if local else os.path.expanduser(CACHE))
    from time import time

    now = time()
    for root, builder in builders.items():
        fact = facts.get(root)
        name = None
        if local:
            name = manifest.local_name(args["--root-as"] or root, args["--name"], now)
        for _ in manifest.check_packed(builder.packed(strict=True)):
            pass
        path, summary = write(builder, paths.absolute(folder), name)
        run.count(manifests=1, files=summary.file_count, bytes=summary.total_size)
        yield Manifest.of(
            root=root,
            root_path_format=fact.root_path_format if fact else paths.path_format(),
            file_system_location_name=fact.file_system_location_name if fact else None,
            path=path,
            hash=summary.hash,
            hash_alg=manifest.HASH_ALG,
            size=summary.size,
            total_size=summary.total_size,
            file_count=summary.file_count,
        )


def reading(args: Arguments, run: Run) -> Iterator[Record]:
    """The stages cat, merge and subtract."""
    root = paths.absolute(args["--root"]) if args["--root"] is not None else None
    names = args["<manifest>"]
    if root is not None:
        yield Root.of(root=root, root_path_format=paths.path_format())
    if args["cat"]:
        for name in names:
            with _open(name) as file:
                for entry in manifest.check(manifest.read(file, name)):
                    yield _record(entry, root)
        return
    if args["merge"]:
        builder = manifest.Builder()
        for name in names:
            with _open(name) as file:
                for batch in manifest.read_batches(file, name):
                    builder.extend_packed(batch)
        entries = builder.entries()
    else:
        taken: dict[str, set[tuple[str, int]]] = {}
        for name in args["<other>"]:
            with _open(name) as file:
                for entry in manifest.read(file, name):
                    taken.setdefault(entry.path, set()).add((entry.hash, entry.size))
        entries = _remaining(names[0], taken)
    for entry in manifest.check(entries):
        yield _record(entry, root)


def _remaining(name: str, taken: dict[str, set[tuple[str, int]]]) -> Iterator[manifest.Entry]:
    with _open(name) as file:
        for entry in manifest.read(file, name):
            if (entry.hash, entry.size) not in taken.get(entry.path, ()):
                yield entry


def _open(name: str) -> IO[bytes]:
    return open(name, "rb")


def _record(entry: manifest.Entry, root: str | None) -> Record:
    return File.of(
        path=entry.path, root=root, size=entry.size, mtime=entry.mtime, hash=entry.hash, hash_alg=manifest.HASH_ALG
    )


def stage(args: Arguments, run: Run) -> Iterator[Record]:
    if args["cat"] or args["merge"] or args["subtract"]:
        return (yield from reading(args, run))
    return (yield from writing(args, run))


def main() -> int:
    return command.run(__doc__, stage)
