"""dl-manifest - write the manifests of a stream of hashed files, or turn manifests into file records

Usage:
  dl-manifest [options]
  dl-manifest cat [options] [--among=<dir>]... [--] <manifest>...
  dl-manifest stat [options] [--among=<dir>]... [--] <manifest>...
  dl-manifest merge [options] [--] <manifest>...
  dl-manifest subtract [options] [--] <manifest> <other>...

Without a command, hashed file records are read from standard input and every record is passed on; once the
stream is whole, one manifest for each root is written, and a manifest record emitted for each. cat gives the
file records of manifests one after another; stat gives a manifest record for each; merge gives each path once,
as the last manifest that has it says; subtract gives the files of the first manifest that the others lack or
have with other content.

Options:
  --to=<dir>        Folder for the manifests, named <name>-<hash of root>-<time>.manifest.
                    By default they go to the cache, named after their own hash.
  --name=<name>     Beginning of those names; by default the root, with _ between its
                    parts.
  --root=<dir>      Root of files whose records name none, by default the current
                    folder, and of those that cat, merge and subtract give.
  --among=<dir>     The root of a manifest is that of these folders whose hash, as
                    spelled here, its file name holds; may be repeated.
  --path-mapping-rules=<file>  The same, of the sources of path mapping rules.
  --manifests       With cat, a manifest record too, behind the files of each.
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
MANY = 100_000  # files whose manifest takes a while to write


def passing(
    rows: Iterator[Record], builders: dict[str, manifest.Builder], facts: dict[str, Root | Manifest], here: str
) -> Any:
    """Yield `rows` as they come, and collect the entries of each root; what dl-diff calls deleted is none.

    Raises: Trouble (65) at a file record without hash, size or mtime, or with a path that no manifest may have.
    """
    root, builder = None, manifest.Builder()
    for row in rows:
        if isinstance(row, File) and row.get("status") != "deleted":
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
        elif isinstance(row, Manifest) and row.root is not None:
            facts.setdefault(row.root, row)
        yield row


def _is_hash(text: Any) -> bool:
    return isinstance(text, str) and text.isalnum() and text.isascii()


def write(builder: manifest.Builder, folder: str, name: str | None) -> tuple[str, manifest.Summary]:
    """Write a manifest into `folder`, whole and durable: as `name`, or named after its hash. Returns its path.

    Raises: OSError; nothing but a temporary file was written then, and that is gone. Where a kill leaves one, the next
    run that writes into the folder removes it.
    """
    from libdeadline.placing import Temporary, Tree

    os.makedirs(folder, mode=0o700, exist_ok=True)
    place = Tree(folder).folder("")
    temporary = Temporary(place, name or "", "", 0)
    is_placed = False
    try:
        temporary.restart()
        summary = builder.write(lambda data: temporary.write(memoryview(data)))
        os.fsync(temporary.descriptor)
        last = name or f"{summary.hash}.manifest"
        temporary.replace(last)
        is_placed = True
    finally:
        temporary.close(remove=not is_placed)
    _sync_folder(folder)
    return os.path.join(folder, last), summary


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
    facts: dict[str, Root | Manifest] = {}
    yield from passing(run.input(File, Root, Manifest, open_ended=args["--open-ended"]), builders, facts, here)
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
        if len(builder) > MANY:
            run.progress.update(message="writing the manifest")
        for _ in manifest.check_packed(builder.packed(strict=True)):
            pass
        path, summary = write(builder, paths.absolute(folder), name)
        if len(builder) > MANY:
            run.progress.rest()
        run.count(manifests=1, files=summary.file_count, bytes=summary.total_size)
        yield Manifest.of(
            root=root,
            root_path_format=(fact.root_path_format if fact else None) or paths.path_format(),
            file_system_location_name=fact.file_system_location_name if fact else None,
            path=path,
            hash=summary.hash,
            hash_alg=manifest.HASH_ALG,
            size=summary.size,
            total_size=summary.total_size,
            file_count=summary.file_count,
        )


def reading(args: Arguments, run: Run) -> Iterator[Record]:
    """The stages cat, stat, merge and subtract."""
    root = paths.absolute(args["--root"]) if args["--root"] is not None else None
    names = args["<manifest>"]
    if args["cat"] or args["stat"]:
        yield from telling(args, root, run)
        return
    if root is not None:
        yield Root.of(root=root, root_path_format=paths.path_format())
    if args["merge"]:
        builder = manifest.Builder()
        for name in names:
            with _open(name) as file:
                for batch in manifest.read_batches(file, name):
                    builder.extend_packed(batch)
        entries = manifest.unpacked(manifest.check_packed(builder.packed()))
    else:
        taken: dict[str, set[tuple[str, int]]] = {}
        for name in args["<other>"]:
            with _open(name) as file:
                for entry in manifest.read(file, name):
                    taken.setdefault(entry.path, set()).add((entry.hash, entry.size))
        entries = manifest.check(_remaining(names[0], taken))
    for entry in entries:
        yield _record(entry, root)


def telling(args: Arguments, root: str | None, run: Run) -> Iterator[Record]:
    """The stages cat and stat."""
    known = _roots(args)
    if known and root is not None:
        raise Trouble("give --root, or where to find the roots of manifests, not both", statuses.USAGE)
    told: set[str] = set()
    for name in args["<manifest>"]:
        of, kind = _root_of(name, known) if known else (root, paths.path_format())
        if of is not None and of not in told:
            told.add(of)
            yield Root.of(root=of, root_path_format=kind)
        with _open(name) as file:
            total_size = file_count = 0
            for entry in manifest.read_checked(file, name):
                total_size += entry.size
                file_count += 1
                if args["cat"]:
                    yield _record(entry, of)
            if args["cat"] and not args["--manifests"]:
                continue
            hash_, size = _hash_of(file)
        run.count(manifests=1, files=file_count, bytes=total_size)
        yield Manifest.of(
            root=of,
            root_path_format=kind if of is not None else None,
            path=paths.absolute(name),
            hash=hash_,
            hash_alg=manifest.HASH_ALG,
            size=size,
            total_size=total_size,
            file_count=file_count,
        )


def _roots(args: Arguments) -> list[tuple[str, str, str]]:
    """The roots that manifests may be of: the spelling that is hashed, the root, and what kind of path it is."""
    known = []
    for spelling in args["--among"]:
        absolute = paths.absolute(spelling)
        known += [(each, absolute, paths.path_format()) for each in dict.fromkeys((spelling, absolute))]
    if args["--path-mapping-rules"]:
        from libdeadline import path_mapping

        for rule in path_mapping.read(args["--path-mapping-rules"]):
            known.append((rule.source_path, rule.source_path, rule.source_path_format))
        if not known:
            raise Trouble(f"'{args['--path-mapping-rules']}' holds no rule", statuses.DATA)
    return known


def _root_of(name: str, known: list[tuple[str, str, str]]) -> tuple[str, str]:
    base = os.path.basename(name)
    for spelling, root, kind in known:
        if paths.root_hash(spelling) in base:
            return root, kind
    spellings = ", ".join(f"'{spelling}'" for spelling, _, _ in known)
    raise Trouble(f"whose files are those of '{name}'? its name holds the hash of none of {spellings}", statuses.USAGE)


def _hash_of(file: IO[bytes]) -> tuple[str, int]:
    from xxhash import xxh3_128

    digest, size = xxh3_128(), 0
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


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
    if (args["--among"] or args["--path-mapping-rules"]) and not (args["cat"] or args["stat"]):
        raise Trouble("--among and --path-mapping-rules go with cat and stat", statuses.USAGE)
    if args["--manifests"] and not args["cat"]:
        raise Trouble("--manifests goes with cat", statuses.USAGE)
    if args["cat"] or args["stat"] or args["merge"] or args["subtract"]:
        return (yield from reading(args, run))
    return (yield from writing(args, run))


def main() -> int:
    return command.run(__doc__, stage)
