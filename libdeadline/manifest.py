"""The asset manifest v2023-03-03: what files lie under a root, by name, content hash, size and time.

Entries are kept and moved in packed form, so that a million of them cost about 120 MB and a sort of bytes.
Source: asset manifest v2023-03-03; the canonical bytes are those of the reference's encoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice, pairwise
from json.encoder import encode_basestring_ascii
from operator import eq, lt
from typing import IO, Any, NamedTuple

from . import statuses
from .errors import Trouble
from .paths import PATH_BYTES, fold

SHOWN = 200  # characters of a path or value, at most, in a message
VERSION = "2023-03-03"
HASH_ALG = "xxh128"
BLOCK_BYTES = 1 << 18  # read and written at a time
BATCH = 1024  # entries encoded and checked at a time
SORTED_BYTES = 4 << 20  # up to which a manifest is best sorted in memory: its writer need not have done so

_HEAD = b'{"hashAlg":"xxh128","manifestVersion":"2023-03-03","paths":['
_ENTRY = re.compile(
    rb'\{"hash":"([A-Za-z0-9]+)","mtime":(0|-?[1-9][0-9]{0,17}),"path":"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)","size":(0|[1-9][0-9]{0,17})\}'
)
_TAIL = re.compile(rb'\],"totalSize":(0|[1-9][0-9]{0,17})\}[ \t\r\n]*')
_PLAIN = bytes({0, *range(0x20, 0x7F)} - set(b'"\\'))  # what stands in JSON as it is, and our separator
_OVERHEAD = len(b'{"hash":"","mtime":,"path":"","size":},') - len(b"\0\0\0")  # of canonical over packed
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_HASH = re.compile(r"[A-Za-z0-9]+\Z")
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")
_MOST = 1 << 63  # of sizes in bytes and times in microseconds: what records and file systems can tell
_SAFE = re.compile(
    rb"(?!\.\.?(?:/|\Z))[^/]+(?:/(?!\.\.?(?:/|\Z))[^/]+)*\Z"
).match  # what relative_problem has nothing against
_SUSPECT = (b"//", b"/.", b"\0/", b"/\0", b"\0.", b"\0\0")  # around NULs: what _SAFE may refuse holds one of these


class Entry(NamedTuple):
    """One file: `path` relative to the root with / between parts, `size` in bytes, `mtime` in microseconds."""

    path: str
    hash: str
    size: int
    mtime: int


class Summary(NamedTuple):
    """What was written: XXH3 128 and length of the manifest's bytes; number and bytes of the files in it."""

    hash: str
    size: int
    file_count: int
    total_size: int


def sort_key(path: str) -> bytes:
    """The bytes that sort as the UTF-16 code units of `path` do, which is the manifest's order.

    UTF-8 sorts by code point; characters beyond U+FFFF are therefore written as their two surrogates.
    """
    if path.isascii():
        return path.encode("ascii")
    if _ASTRAL.search(path):
        path = path.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")
        path = _ASTRAL.sub(_surrogates, path)
    return path.encode("utf-8", "surrogatepass")


def _surrogates(match: re.Match[str]) -> str:
    point = ord(match[0]) - 0x10000
    return chr(0xD800 + (point >> 10)) + chr(0xDC00 + (point & 0x3FF))


def _path_of(key: bytes) -> str:
    if key.isascii():
        return key.decode("ascii")
    path = key.decode("utf-8", "surrogatepass")
    return path.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")


def pack(path: str, hash: str, size: int, mtime: int) -> bytes:
    """An entry as bytes that sort in the manifest's order.

    Raises: Trouble (65) where the path holds a NUL, which no file system allows.
    """
    key = sort_key(path)
    if b"\0" in key:
        raise Trouble(f"the path '{_shown(path)}' holds a NUL byte", statuses.DATA, path=path)
    return b"%b\0%b\0%d\0%d" % (key, hash.encode("ascii"), mtime, size)


def unpack(packed: bytes) -> Entry:
    """The entry that `pack` made these bytes of."""
    key, digest, mtime, size = packed.split(b"\0")
    return Entry(_path_of(key), digest.decode("ascii"), int(size), int(mtime))


_entry: Callable[[Any], Entry] = partial(tuple.__new__, Entry)  # without the frame that Entry(...) costs


def unpack_all(batch: list[bytes]) -> Iterator[Entry]:
    """The entries that `pack` made these bytes of."""
    joined = b"\0".join(batch)
    if not batch or not joined.isascii():
        return map(unpack, batch)
    pieces = joined.decode("ascii").split("\0")
    return map(_entry, zip(pieces[0::4], pieces[1::4], map(int, pieces[3::4]), map(int, pieces[2::4]), strict=True))


class Builder:
    """Collects the entries of one root and writes its manifest.

    A path that was added twice keeps what was added last.
    """

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._is_ordered = False

    def __len__(self) -> int:
        return len(self._packed)

    def add(self, path: str, hash: str, size: int, mtime: int) -> None:
        """Add an entry; `hash` is 32 hex digits, `size` bytes, `mtime` microseconds."""
        self._packed.append(pack(path, hash, size, mtime))
        self._is_ordered = False

    def extend_packed(self, rows: Iterable[bytes]) -> None:
        """Add entries in the form of `pack`."""
        self._packed.extend(rows)
        self._is_ordered = False

    def packed(self, *, strict: bool = False) -> list[bytes]:
        """The packed entries in the manifest's order, each path once.

        Raises: Trouble (65) with `strict` where a path was added with two contents.
        """
        if not self._is_ordered:
            given = self._packed
            ordered = sorted(given)  # a NUL ends the path, so bytes sort as paths do
            keys = [row.split(b"\0", 1)[0] for row in ordered]
            if any(map(eq, keys, islice(keys, 1, None))):
                if strict:
                    for one, other in pairwise(map(unpack, ordered)):
                        if one.path == other.path and (one.hash, one.size) != (other.hash, other.size):
                            raise Trouble(
                                f"'{one.path}' comes twice, with different contents: run again",
                                statuses.DATA,
                                path=one.path,
                            )
                last = {row.split(b"\0", 1)[0]: row for row in given}
                ordered = sorted(last.values())
            self._packed, self._is_ordered = ordered, True
        return self._packed

    def entries(self) -> Iterator[Entry]:
        """The entries in the manifest's order."""
        return unpacked(self.packed())

    def write(self, write: Callable[[bytes], Any]) -> Summary:
        """Hand the manifest's bytes to `write`, in blocks.

        Raises: Trouble (65) where there are no entries: the format has no empty manifest.
        """
        return write_packed(self.packed(), write)


def write_packed(rows: Iterable[bytes], write: Callable[[bytes], Any]) -> Summary:
    """Hand the manifest of packed entries, which come in order and without repeats, to `write`, in blocks.

    Raises: Trouble (65) where there are no entries; nothing has been written then.
    """
    from xxhash import xxh3_128

    digest = xxh3_128()
    size = count = total = 0
    block = bytearray(_HEAD)
    for batch in _batches(rows):
        if count:
            block += b","
        quote = b'"'
        if b"".join(batch).translate(None, _PLAIN):
            quote = b""
            batch = [_with_json_path(row) for row in batch]
        keys, hashes, mtimes, sizes = _columns(batch)
        parts: list[Any] = [
            b'{"hash":"', None, b'","mtime":', None, b',"path":' + quote, None, quote + b',"size":', None, b"},"
        ] * len(batch)  # fmt: skip
        parts[1::9], parts[3::9], parts[5::9], parts[7::9] = hashes, mtimes, keys, sizes
        parts[-1] = b"}"
        block += b"".join(parts)
        total += sum(map(int, sizes))
        count += len(batch)
        if len(block) >= BLOCK_BYTES:
            digest.update(block)
            size += len(block)
            write(bytes(block))
            block.clear()
    if not count:
        raise Trouble("there are no files: a manifest needs at least one", statuses.DATA)
    block += b'],"totalSize":%d}' % total
    digest.update(block)
    size += len(block)
    write(bytes(block))
    return Summary(digest.hexdigest(), size, count, total)


def _batches(rows: Iterable[bytes]) -> Iterator[list[bytes]]:
    source = iter(rows)
    while batch := list(islice(source, BATCH)):
        yield batch


def _columns(batch: list[bytes]) -> tuple[list[bytes], list[bytes], list[bytes], list[bytes]]:
    """The keys, hashes, times and sizes of packed entries: by one split of all, which is cheaper than one of each."""
    pieces = b"\0".join(batch).split(b"\0")
    return pieces[0::4], pieces[1::4], pieces[2::4], pieces[3::4]


def _with_json_path(packed: bytes) -> bytes:
    key, rest = packed.split(b"\0", 1)
    return encode_basestring_ascii(key.decode("utf-8", "surrogatepass")).encode("ascii") + b"\0" + rest


def encode(entries: Iterable[Entry]) -> bytes:
    """The canonical bytes of the manifest of `entries`, which come in any order.

    Raises: Trouble (65) where there are none.
    """
    builder = Builder()
    for entry in entries:
        builder.add(*entry)
    parts: list[bytes] = []
    builder.write(parts.append)
    return b"".join(parts)


def decode(data: bytes) -> list[Entry]:
    """The entries of a manifest, in its order, checked as the reference checks them.

    Paths are not judged here: see `check`.
    Raises: Trouble (65) where this is no manifest of a version that we know.
    """
    from io import BytesIO

    return list(read(BytesIO(data)))


def read(file: IO[bytes], name: str = "manifest") -> Iterator[Entry]:
    """The entries of the manifest in `file` (seekable), as they are read; see `decode`."""
    return chain.from_iterable(map(unpack_all, read_batches(file, name)))


def read_packed(file: IO[bytes], name: str = "manifest") -> Iterator[bytes]:
    """The packed entries of the manifest in `file` (seekable), in its order, a block in memory at a time."""
    return chain.from_iterable(read_batches(file, name))


def read_batches(file: IO[bytes], name: str = "manifest") -> Iterator[list[bytes]]:
    """The packed entries of the manifest in `file` (seekable), in its order, in lists of a few thousand.

    Canonical bytes are scanned in constant memory; anything else that is valid JSON is parsed whole.
    Raises: Trouble (65), perhaps after some entries, where this is no manifest of a version that we know.
    """
    given = 0
    start = file.tell()
    try:
        for batch in _scan(file):
            yield batch
            given += len(batch)
        return
    except _NotCanonicalError:
        pass
    file.seek(start)
    yield list(islice(_parse(file.read(), name), given, None))


def is_ordered(file: IO[bytes], name: str = "manifest") -> bool:
    """Whether the entries of the manifest in `file` come in its order, as those of canonical ones do.

    Then a large one need not be held in memory to be sorted. `file` is left where it was.
    """
    start, before = file.tell(), b""
    try:
        for batch in read_batches(file, name):
            if not all(map(lt, [before, *batch[:-1]], batch)):
                return False
            before = batch[-1] if batch else before
        return True
    finally:
        file.seek(start)


class _NotCanonicalError(Exception):
    pass


def _scan(file: IO[bytes]) -> Iterator[list[bytes]]:
    buffer = file.read(BLOCK_BYTES)
    if not buffer.startswith(_HEAD):
        raise _NotCanonicalError
    buffer = buffer[len(_HEAD) :]
    while True:
        more = file.read(BLOCK_BYTES)
        if not more:
            break
        buffer += more
        # Within a JSON string a quote is escaped, so this can only be a boundary.
        cut = buffer.rfind(b'},{"hash":"')
        if cut >= 0:
            yield _batch(buffer[: cut + 1])
            buffer = buffer[cut + 2 :]
    end = buffer.rfind(b"}],")
    if end < 0 or not _TAIL.fullmatch(buffer, end + 1):
        raise _NotCanonicalError
    yield _batch(buffer[: end + 1])


def _batch(text: bytes) -> list[bytes]:
    """The packed entries of canonical text that holds whole entries, with commas between."""
    rows = _ENTRY.findall(text)
    batch = [b"\0".join((path, hash_, mtime, size)) for hash_, mtime, path, size in rows]
    # The entries and the commas between must be all that there is.
    if sum(map(len, batch)) + len(batch) * _OVERHEAD - 1 != len(text):
        raise _NotCanonicalError
    if b"\\" in text or not text.isascii():
        return [b"\0".join((_key_of_json(path), hash_, mtime, size)) for hash_, mtime, path, size in rows]
    return batch


def _key_of_json(text: bytes) -> bytes:
    """The sort key of a path that stands in JSON as `text`."""
    from json import loads

    try:
        path = loads(b'"%b"' % text)
    except ValueError:
        raise _NotCanonicalError from None
    key = sort_key(path)
    if b"\0" in key:
        raise _NotCanonicalError
    return key


def _parse(data: bytes, name: str) -> Iterator[bytes]:
    from json import loads

    def refuse(why: str) -> Trouble:
        return Trouble(f"'{name}' is not an asset manifest: {why}", statuses.DATA)

    try:
        document = loads(data, object_pairs_hook=_object)
    except _TwiceError as error:
        raise refuse(f"'{_shown(error)}' stands twice in one object") from None
    except (ValueError, RecursionError) as error:
        raise refuse(f"it is not JSON ({error})") from None
    if not isinstance(document, dict) or "manifestVersion" not in document:
        raise refuse("it has no 'manifestVersion'")
    if document["manifestVersion"] != VERSION:
        raise refuse(f"version '{_shown(document['manifestVersion'])}' is not known, only {VERSION}")
    for key in ("hashAlg", "paths", "totalSize"):
        if key not in document:
            raise refuse(f"it has no '{key}'")
    if document["hashAlg"] != HASH_ALG:
        raise refuse(f"hash algorithm '{_shown(document['hashAlg'])}' is not known, only {HASH_ALG}")
    if not _is_integer(document["totalSize"]):
        raise refuse("'totalSize' is no whole number")
    if not isinstance(document["paths"], list) or not document["paths"]:
        raise refuse("'paths' is not a list of at least one file")
    for index, row in enumerate(document["paths"]):
        if not isinstance(row, dict):
            raise refuse(f"paths[{index}] is no object")
        for key, right in (("path", str), ("hash", str), ("size", int), ("mtime", int)):
            if key not in row:
                raise refuse(f"paths[{index}] has no '{key}'")
            value = row[key]
            if not (isinstance(value, str) if right is str else _is_integer(value)):
                raise refuse(f"paths[{index}].{key} is of the wrong type")
        if not _HASH.match(row["hash"]):
            raise refuse(f"paths[{index}].hash has characters other than letters and digits")
        if row["size"] >= _MOST or abs(row["mtime"]) >= _MOST:
            raise refuse(f"paths[{index}] has a size or time that can't be")
        yield pack(row["path"], row["hash"], row["size"], row["mtime"])


class _TwiceError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of JSON's `pairs`. Raises: _TwiceError where readers could differ in which of two values they take."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return made


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check(entries: Iterable[Entry], *, windows: bool = False, ignore_case: bool = False) -> Iterator[Entry]:
    """Pass `entries` on, but refuse those that could write outside a root or over one another.

    `windows`: names must be possible there as well; `ignore_case`: no two names differ by case, or by the form of
    their characters (composed or not), alone.
    The entries come in the manifest's order. Memory is constant, but for a set of names with `ignore_case`.
    Raises: Trouble (65) at the first entry that is wrong or out of order.
    """
    judge = _Judge(windows, ignore_case)
    for entry in entries:
        judge.look(sort_key(entry.path), entry.size)
        yield entry


def check_packed(rows: Iterable[bytes], *, windows: bool = False, ignore_case: bool = False) -> Iterator[bytes]:
    """As `check`, for packed entries."""
    judge = _Judge(windows, ignore_case)
    for batch in _batches(rows):
        if judge.look_at_all(batch):
            yield from batch
        else:
            for row in batch:
                key, _, _, size = row.split(b"\0")
                judge.look(key, int(size))
                yield row


def read_checked(
    file: IO[bytes], name: str = "manifest", *, windows: bool = False, ignore_case: bool = False
) -> Iterator[Entry]:
    """The entries of `read`, checked as by `check`, for less."""
    return unpacked(check_packed(read_packed(file, name), windows=windows, ignore_case=ignore_case))


def unpacked(rows: Iterable[bytes]) -> Iterator[Entry]:
    """The entries of packed ones, a batch ahead of who asks for them."""
    return chain.from_iterable(map(unpack_all, _batches(rows)))


class _Judge:
    def __init__(self, windows: bool, ignore_case: bool) -> None:
        self.windows = windows
        self.before = b""
        # Each begins with the one before it; in the manifest's order all that begin alike stand together.
        self.prefixes: list[bytes] = []
        self.folded: dict[str, str] | None = {} if ignore_case else None

    def look_at_all(self, batch: list[bytes]) -> bool:
        """Whether there is surely nothing wrong with these packed entries; else `look` at each."""
        if self.windows or self.folded is not None or len(self.prefixes) > 1:
            return False
        keys, _, _, sizes = _columns(batch)
        text = b"\0%b\0" % b"\0".join(keys)
        if any(map(text.__contains__, _SUSPECT)) or b"-" in b"".join(sizes) or max(map(len, keys)) > PATH_BYTES:
            return False
        if not text.isascii() and _SURROGATE.search(text):
            return False
        befores = [self.before or b"\0", *keys[:-1]]
        if not all(map(lt, befores, keys)) or any(map(bytes.startswith, keys, befores)):
            return False
        self.before = keys[-1]
        self.prefixes = [self.before]
        return True

    def look(self, key: bytes, size: int) -> None:
        if self.windows or not _SAFE(key) or len(key) > PATH_BYTES:
            from .paths import relative_problem

            if problem := relative_problem(_path_of(key), windows=self.windows):
                raise _refused(_path_of(key), problem)
        if not key.isascii() and not _is_possible(_path_of(key)):
            raise _refused(_path_of(key), "it is no Unicode")
        if size < 0:
            raise _refused(_path_of(key), "its size is negative")
        if key <= self.before:
            raise _refused(_path_of(key), "it stands twice" if key == self.before else "the entries are not in order")
        prefixes = self.prefixes
        while prefixes and not key.startswith(prefixes[-1]):
            prefixes.pop()
        for shorter in prefixes:
            if key[len(shorter)] == 0x2F:
                raise _refused(_path_of(key), f"'{_path_of(shorter)}' is a file and a folder")
        prefixes.append(key)
        self.before = key
        if self.folded is not None:
            self._look_at_case(_path_of(key), self.folded)

    def _look_at_case(self, path: str, folded: dict[str, str]) -> None:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            known = folded.setdefault(fold(name), name)
            if known != name:
                raise _refused(path, f"it differs from '{_shown(known)}' by case or form alone")


def _is_possible(path: str) -> bool:
    """Whether a file can have such a name: with os.fsdecode's surrogates, for bytes that are no UTF-8, or none."""
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _refused(path: str, why: str) -> Trouble:
    shown = _shown(path) if _is_possible(path) else ascii(path)[1:-1]
    return Trouble(f"the manifest's path '{shown}' is refused: {why}", statuses.DATA, path=path)


def local_name(root: str, name: str | None, when: float) -> str:
    """The file name of a manifest that is kept locally: <name>-<XXH of the root as typed>-<local time>.manifest.

    The hash in it is how a manifest file is matched with its root later.
    Source: the names of the reference's `manifest snapshot`.
    """
    from time import localtime, strftime

    from .paths import root_hash

    if not name:
        name = re.sub(r"[/\\:]", "_", root).removeprefix("_")
    return f"{name}-{root_hash(root)}-{strftime('%Y-%m-%dT%H-%M-%S', localtime(when))}.manifest"
