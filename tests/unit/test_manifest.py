"""The manifest codec: against the format's own vectors, a naive writer, and hostile input."""

import io
import json
from collections.abc import Callable, Iterable
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_hexdigest

from libdeadline import manifest
from libdeadline.errors import Trouble
from libdeadline.manifest import Builder, Entry

# attachments specification, manifest sample and further literals
SAMPLE = (
    b'{"hashAlg":"xxh128","manifestVersion":"2023-03-03","paths":['
    b'{"hash":"6bba86c7e069f56d5a10b435f1c8e49c","mtime":1704164645123456,"path":"a.txt","size":6},'
    b'{"hash":"5c7401c0ec22eeeeeaf06c6480b2cd11","mtime":1704164645123456,"path":"sub/B.txt","size":1},'
    b'{"hash":"99aa06d3014798d86001c324468d497f","mtime":1704164645123456,"path":"zero.bin","size":0}],"totalSize":7}'
)
SAMPLE_HASH = "de4392d36cd5fc1bd33ec174d7e9bb9e"
MTIME = 1704164645123456
SAMPLE_ENTRIES = [
    Entry("zero.bin", "99aa06d3014798d86001c324468d497f", 0, MTIME),
    Entry("sub/B.txt", "5c7401c0ec22eeeeeaf06c6480b2cd11", 1, MTIME),
    Entry("a.txt", "6bba86c7e069f56d5a10b435f1c8e49c", 6, MTIME),
]
LITERALS = [
    ("é.txt", rb'"\u00e9.txt"'),
    ("😀.txt", rb'"\ud83d\ude00.txt"'),
    ("Ａ.txt", rb'"\uff21.txt"'),
    ("e\u0301.txt", rb'"e\u0301.txt"'),
    ('q"uo\\te.txt', rb'"q\"uo\\te.txt"'),
    ("\udcff", rb'"\udcff"'),
    ("\x7f", rb'"\u007f"'),
]

characters = st.characters(exclude_characters="\0") | st.sampled_from('aé/"\\\x7f\x1f\ud83d\ude00\udcff😀\uffff\ue000')
names = st.text(characters, min_size=1, max_size=12)
hashes = st.text("0123456789abcdef", min_size=32, max_size=32)
entries = st.lists(
    st.builds(Entry, names, hashes, st.integers(0, 2**53), st.integers(-(2**40), 2**53)),
    min_size=1,
    max_size=30,
    unique_by=lambda entry: entry.path,
)


def naive(rows: list[Entry]) -> bytes:
    """The format, written down again as simply as can be."""
    ordered = sorted(rows, key=lambda row: row.path.encode("utf-16-be", "surrogatepass"))
    document = {
        "hashAlg": "xxh128",
        "manifestVersion": "2023-03-03",
        "paths": [{"hash": row.hash, "mtime": row.mtime, "path": row.path, "size": row.size} for row in ordered],
        "totalSize": sum(row.size for row in rows),
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")


def test_the_sample_is_written_to_the_byte() -> None:
    data = manifest.encode(SAMPLE_ENTRIES)
    assert data == SAMPLE
    assert xxh3_128_hexdigest(data) == SAMPLE_HASH


def test_the_summary_tells_of_the_bytes_and_of_the_files() -> None:
    builder, parts = Builder(), []
    for entry in SAMPLE_ENTRIES:
        builder.add(*entry)
    assert builder.write(parts.append) == (SAMPLE_HASH, 361, 3, 7)


@pytest.mark.parametrize(("name", "text"), LITERALS)
def test_names_are_escaped_as_the_format_has_it(name: str, text: bytes) -> None:
    assert b'"path":' + text + b"," in manifest.encode([Entry(name, "0", 0, 0)])


def test_names_sort_by_utf16_code_units() -> None:
    data = manifest.encode([Entry(name, "0", 0, 0) for name in ("Ａ", "😀", "é", "z", "Z")])
    assert [entry.path for entry in manifest.decode(data)] == ["Z", "z", "é", "😀", "Ａ"]


def joined(rows: list[Entry]) -> list[Entry]:
    """Entries whose lone surrogates, where they make a pair, are that pair's character: JSON can't tell them apart."""
    return [row._replace(path=json.loads(json.dumps(row.path))) for row in rows]


@given(entries)
def test_any_entries_are_written_as_a_naive_writer_does(rows: list[Entry]) -> None:
    assert manifest.encode(rows) == naive(rows)


@given(entries)
def test_what_was_written_is_read(rows: list[Entry]) -> None:
    data = manifest.encode(rows)
    assert json.loads(data)["paths"] == [
        {"hash": row.hash, "mtime": row.mtime, "path": row.path, "size": row.size} for row in manifest.decode(data)
    ]
    assert sorted(manifest.decode(data)) == sorted(joined(rows))


@given(entries, st.sampled_from([None, 1]), st.booleans(), st.booleans())
def test_other_spellings_of_the_json_are_read_alike(
    rows: list[Entry], indent: int | None, ascii_only: bool, extra: bool
) -> None:
    document = json.loads(naive(rows))
    if extra:
        document["more"] = document["paths"][0]["more"] = [1]
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    assert manifest.decode(text.encode("utf-8", "surrogatepass")) == manifest.decode(naive(rows))


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 30000])
def test_blocks_fit_together(count: int) -> None:
    rows = [Entry(f"some/rather/long/folder/file-{n:06}.exr", f"{n:032x}", n, n) for n in range(count)]
    data = manifest.encode(rows)
    assert data == naive(rows)
    assert list(manifest.read(io.BytesIO(data))) == rows
    assert manifest.encode(reversed(rows)) == data


def test_a_name_that_looks_like_a_boundary_is_a_name() -> None:
    rows = [Entry(f'}},{{"hash":"{n}', "0" * 32, 1, 1) for n in range(30000)]
    assert sorted(manifest.decode(manifest.encode(rows))) == sorted(rows)


def test_of_equal_paths_the_last_counts() -> None:
    assert manifest.decode(manifest.encode([Entry("a", "2", 2, 2), Entry("b", "3", 3, 3), Entry("a", "1", 1, 1)])) == [
        Entry("a", "1", 1, 1),
        Entry("b", "3", 3, 3),
    ]


def test_strictly_equal_paths_need_equal_contents() -> None:
    builder = Builder()
    builder.add("a", "1", 1, 1)
    builder.add("a", "1", 1, 2)
    assert len(builder.packed(strict=True)) == 1
    builder.add("a", "2", 1, 2)
    with pytest.raises(Trouble, match="'a' comes twice"):
        builder.packed(strict=True)


def test_there_is_no_empty_manifest() -> None:
    with pytest.raises(Trouble, match="at least one"):
        manifest.encode([])


def changed(**fields: object) -> bytes:
    document = json.loads(SAMPLE)
    for name, value in fields.items():
        if value is None:
            del document[name]
        else:
            document[name] = value
    return json.dumps(document).encode()


def with_entry(**fields: object) -> bytes:
    document = json.loads(SAMPLE)
    for name, value in fields.items():
        if value is None:
            del document["paths"][1][name]
        else:
            document["paths"][1][name] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (SAMPLE[:-1], "not JSON"),
        (SAMPLE + b"x", "not JSON"),
        (SAMPLE.replace(b'},{"hash":"5', b'}junk,{"hash":"5'), "not JSON"),
        (SAMPLE.replace(b'},{"hash":"5', b'},junk{"hash":"5'), "not JSON"),
        (SAMPLE.replace(b"a.txt", b"a\x01.txt"), "not JSON"),
        (SAMPLE.replace(b"a.txt", b"a\\x.txt"), "not JSON"),
        (b"[]", "no 'manifestVersion'"),
        (b"[" * 100000, "not JSON"),
        (changed(manifestVersion=None), "no 'manifestVersion'"),
        (changed(manifestVersion="2025-12-04-beta"), "'2025-12-04-beta' is not known, only 2023-03-03"),
        (changed(hashAlg=None), "no 'hashAlg'"),
        (changed(hashAlg="md5"), "'md5' is not known"),
        (changed(totalSize=None), "no 'totalSize'"),
        (changed(totalSize="7"), "'totalSize' is no whole number"),
        (changed(totalSize=True), "'totalSize' is no whole number"),
        (changed(paths=None), "no 'paths'"),
        (changed(paths=[]), "at least one"),
        (changed(paths={}), "at least one"),
        (changed(paths=[1]), "is no object"),
        (with_entry(hash=None), r"paths\[1\] has no 'hash'"),
        (with_entry(size="1"), r"paths\[1\].size is of the wrong type"),
        (with_entry(mtime=1.5), r"paths\[1\].mtime is of the wrong type"),
        (with_entry(path=7), r"paths\[1\].path is of the wrong type"),
        (with_entry(hash="../x"), "other than letters and digits"),
        (with_entry(hash=""), "other than letters and digits"),
        (with_entry(path="a\0b"), "NUL"),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Trouble, match=why) as caught:
        manifest.decode(data)
    assert caught.value.status == 65


@given(st.binary(max_size=200), st.integers(0, len(SAMPLE)), st.integers(0, len(SAMPLE)))
def test_damage_is_refused_or_valid_json(damage: bytes, start: int, end: int) -> None:
    data = SAMPLE[: min(start, end)] + damage + SAMPLE[max(start, end) :]
    try:
        found = manifest.decode(data)
    except Trouble:
        return
    rows = json.loads(data)["paths"]
    assert found == [Entry(row["path"], row["hash"], row["size"], row["mtime"]) for row in rows]


def checked(*paths: str, windows: bool = False, ignore_case: bool = False) -> list[str]:
    rows = manifest.decode(manifest.encode([Entry(path, "0", 0, 0) for path in paths]))
    return [row.path for row in manifest.check(rows, windows=windows, ignore_case=ignore_case)]


@pytest.mark.parametrize(
    "path",
    ["", "/a", "../a", "a/../b", "a/..", "./a", "a//b", "a/", "a/./b", ".", "..", "a/.."],
)
def test_paths_that_are_no_plain_way_down_are_refused(path: str) -> None:
    with pytest.raises(Trouble, match="refused"):
        checked(path)


@pytest.mark.parametrize(
    "path",
    ["C:/a", "a:b", "a\\b", "..\\a", "nul", "NUL.txt", "a/com1", "COM1 .txt", "a.", "a ", "a/b./c", "a?", "a\x1fb"],
)
def test_windows_refuses_more(path: str) -> None:
    assert checked(path) == [path]
    with pytest.raises(Trouble, match="refused"):
        checked(path, windows=True)


@pytest.mark.parametrize("path", ["a", "a/b", "...", "..a", "a..", "-", " a", "a b/c\n", "a\\b", "é/😀", "nul"])
def test_odd_but_safe_names_pass(path: str) -> None:
    assert checked(path) == [path]


@pytest.mark.parametrize(("paths", "why"), [
    (("a", "a/b"), "is a file and a folder"),
    (("a", "a b", "a!", "a/b/c"), "is a file and a folder"),
    (("x/a", "x/a-b/c", "x/a/b"), "is a file and a folder"),
])  # fmt: skip
def test_a_file_that_is_a_folder_too_is_refused(paths: tuple[str, ...], why: str) -> None:
    with pytest.raises(Trouble, match=why):
        checked(*paths)


def test_names_that_begin_alike_pass() -> None:
    assert len(checked("a", "a b", "a!b", "a-b/c", "ab", "b/a", "b/a.b/c")) == 7


def test_case_clashes_are_refused_where_case_does_not_count() -> None:
    assert len(checked("A/x", "a/y")) == 2
    with pytest.raises(Trouble, match="by case or form alone"):
        checked("A/x", "a/y", ignore_case=True)
    assert len(checked("a/x", "a/y", ignore_case=True)) == 2


def verdict(check: Callable[[], Iterable[Entry]]) -> list[Entry] | str:
    try:
        return list(check())
    except Trouble as trouble:
        return trouble.message


def in_batches(rows: list[bytes], **how: bool) -> list[list[Entry] | str]:
    verdicts = []
    for size in (1, 2, 3):
        with patch.object(manifest, "BATCH", size):
            verdicts.append(verdict(lambda: manifest.unpacked(manifest.check_packed(rows, **how))))
    return verdicts


@given(st.lists(st.text("ab./-é", max_size=4), max_size=12), st.booleans(), st.integers(-1, 3), st.booleans())
def test_batches_are_judged_as_entries_are(paths: list[str], ordered: bool, size: int, ignore_case: bool) -> None:
    rows = [manifest.pack(path, "0", size, n) for n, path in enumerate(paths)]
    rows = sorted(rows) if ordered else rows
    one_by_one = verdict(lambda: manifest.check(map(manifest.unpack, rows), ignore_case=ignore_case))
    for verdict_of_batches in in_batches(rows, ignore_case=ignore_case):
        assert verdict_of_batches == one_by_one


@pytest.mark.parametrize("paths", ["c b", "a b b c", "a a/b", "a ab a/b", "a a-b/c a/b c", "a ab abc a- a/b", "a ab b"])
def test_what_goes_over_batches_is_judged_too(paths: str) -> None:
    rows = [manifest.pack(path, "0", 0, 0) for path in paths.split()]
    one_by_one = verdict(lambda: manifest.check(map(manifest.unpack, rows)))
    assert in_batches(rows) == [one_by_one] * 3


def test_large_batches_of_common_names_are_judged_at_once() -> None:
    rows = [manifest.pack(f"shot/frame.{n:05}.exr", f"{n:032x}", n, n) for n in range(5000)]
    data = io.BytesIO()
    manifest.write_packed(rows, data.write)
    data.seek(0)
    with patch.object(manifest._Judge, "look", side_effect=AssertionError):
        assert list(manifest.read_checked(data)) == [manifest.unpack(row) for row in rows]


def test_repeats_and_disorder_are_refused() -> None:
    row = Entry("a", "0", 0, 0)
    with pytest.raises(Trouble, match="stands twice"):
        list(manifest.check([row, row]))
    with pytest.raises(Trouble, match="not in order"):
        list(manifest.check([row._replace(path="b"), row]))


def test_the_local_name_holds_the_hash_of_the_root_as_typed() -> None:
    # XXH("/proj") from the attachments specification, S3 layout
    name = manifest.local_name("/proj", "work", 0.0)
    assert name.startswith("work-731442b4ddb4a5b53a932cb24fb47f14-19") and name.endswith(".manifest")
    assert manifest.local_name("/proj/a:b\\c", None, 0.0).startswith("proj_a_b_c-")


def test_order_is_found_out_and_leaves_the_file_where_it_was() -> None:
    rows = [Entry(f"some/rather/long/folder/file-{n:06}.exr", f"{n:032x}", n, n) for n in range(5000)]
    file = io.BytesIO(b"before" + manifest.encode(rows))
    file.seek(6)
    assert manifest.is_ordered(file) and list(manifest.read(file)) == rows
    document = json.loads(manifest.encode(rows))
    document["paths"].append(document["paths"][-1])
    assert not manifest.is_ordered(io.BytesIO(json.dumps(document).encode()))
    document["paths"][-2:] = reversed(document["paths"][-3:-1])
    assert not manifest.is_ordered(io.BytesIO(json.dumps(document, separators=(",", ":")).encode()))
