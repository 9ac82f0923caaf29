"""Manifests as an enemy would write them: refused in one line, or harmless."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libdeadline import manifest, paths, placing, statuses
from libdeadline.errors import Trouble
from libdeadline.manifest import Entry
from libdeadline.placing import Tree

HASH = "0" * 32
# What paths are made of that lead astray somewhere, and what they hide behind.
PIECES = st.sampled_from(
    ["..", ".", "", "/", "\\", "a", "A", "é", "e\u0301", "C:", "//", "\0", "\n", "\x1b[2J", "con", "NUL.txt", "a:b",
     "x.", "x ", "-rf", "~", "$HOME", "%TEMP%", "*", "[", "?", "\ud800", "\udcff", "\U0001f600", "\u202e", "n" * 256]
)  # fmt: skip
PATHS = st.one_of(
    st.lists(PIECES, max_size=6).map("/".join),
    st.lists(PIECES, max_size=6).map("".join),
    st.lists(PIECES, max_size=6).map("\\".join),
    st.text(max_size=8),
)
NUMBERS = st.one_of(
    st.integers(0, 5),
    st.integers(-(10**30), 10**30),
    st.sampled_from([-1, 2**63 - 1, 2**63, 10**18, 1e400, float("nan"), 1.0, True, None, "1", [], {}]),
)
WORDS = st.sampled_from([HASH, HASH.upper(), "", "../../x", "a" * 1000, "g" * 32, HASH + "\n", 5, None, ["x"]])


def usually(right: Any, *wrong: Any) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(right), st.just(right), st.just(right), st.sampled_from(wrong))


ENTRIES = st.one_of(
    st.fixed_dictionaries({"path": PATHS, "hash": st.just(HASH), "size": st.integers(0, 9), "mtime": st.just(0)}),
    st.fixed_dictionaries({"path": PATHS, "hash": WORDS, "size": NUMBERS, "mtime": NUMBERS}),
    st.dictionaries(st.sampled_from(["path", "hash", "size", "mtime", "x"]), st.one_of(PATHS, NUMBERS)),
    st.sampled_from([None, 1, "a", [], {}]),
)
DOCUMENTS = st.fixed_dictionaries({
    "hashAlg": usually("xxh128", "md5", None, ["xxh128"], "x" * 1000),
    "manifestVersion": usually("2023-03-03", "2099-01-01", 1, None, {}),
    "paths": st.one_of(st.lists(ENTRIES, max_size=6), st.sampled_from([None, {}, "a", 1])),
    "totalSize": st.one_of(st.integers(0, 99), NUMBERS),
})  # fmt: skip


def refusal(work: Callable[[], Any]) -> Any:
    """What `work` gives; a Trouble, which must be one of data, as its message."""
    try:
        return work()
    except Trouble as trouble:
        assert trouble.status == statuses.DATA
        assert len(trouble.message) < 2000
        return trouble


def written(root: str, entries: list[Entry]) -> list[str]:
    """Put an empty file where each entry says: the places, as the system knows them."""
    tree = Tree(root)
    places = []
    for entry in entries:
        tree.claim(entry.path)
        parent, _, name = entry.path.rpartition("/")
        try:
            folder = tree.folder(parent)
            os.close(folder.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError as error:
            assert not isinstance(error, FileExistsError)  # no file over another, or over a folder
            assert len(name) > 200 or len(entry.path) > 200
            continue
        places.append(os.readlink(f"/proc/self/fd/{folder.descriptor}"))
    return places


@given(DOCUMENTS)
@example({"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "totalSize": 0,
          "paths": [{"path": "/".join("a" * 1100), "hash": HASH, "size": 0, "mtime": 0}]})  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_nothing_is_written_outside(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    rows = refusal(lambda: sorted(manifest.read_packed(BytesIO(data))))
    if isinstance(rows, Trouble):
        return
    entries = refusal(lambda: list(manifest.unpacked(manifest.check_packed(rows))))
    # In batches or one by one, the verdict is the same.
    singly = refusal(lambda: list(manifest.check(map(manifest.unpack, rows))))
    assert str(singly) == str(entries)
    if isinstance(entries, Trouble):
        return
    for entry in entries:
        assert 0 <= entry.size < 2**63 and abs(entry.mtime) < 2**63
    with tempfile.TemporaryDirectory() as base:
        root = os.path.join(os.path.realpath(base), "some", "where")
        for place in written(root, entries):
            assert paths.is_within(place, root)
        assert os.listdir(base) == ["some"] and os.listdir(os.path.join(base, "some")) == ["where"]


@given(st.lists(PATHS, max_size=6, unique=True))
@settings(max_examples=300, deadline=None)
def test_what_windows_is_given_are_names_there(names: list[str]) -> None:
    import ntpath

    rows = refusal(lambda: sorted(manifest.pack(name, HASH, 0, 0) for name in names))
    if isinstance(rows, Trouble):
        return
    entries = refusal(lambda: list(manifest.unpacked(manifest.check_packed(rows, windows=True, ignore_case=True))))
    if isinstance(entries, Trouble):
        return
    root = "C:\\some\\where"
    seen = set()
    for entry in entries:
        place = ntpath.normpath(ntpath.join(root, *entry.path.split("/")))
        assert paths.is_within(place, root, ntpath) and place != root
        assert place == root + "\\" + entry.path.replace("/", "\\")
        for part in entry.path.split("/"):
            assert not set(part) & set('<>:"\\|?*') and part[-1] not in ". " and min(part) >= " "
            assert part.partition(".")[0].rstrip().upper() not in ("CON", "PRN", "AUX", "NUL", "COM1")
        seen.add(paths.fold(entry.path))
    assert len(seen) == len(entries)


CANONICAL = manifest.encode(
    [Entry("a/b c.exr", "0" * 32, 5, 1), Entry('q"\\u\n', "1" * 32, 0, -1), Entry("é\U0001f600", "2" * 32, 7, 10**15)]
)
CHANGES = st.lists(
    st.tuples(
        st.integers(0, len(CANONICAL)),
        st.integers(0, 3),
        st.binary(max_size=3)
        | st.sampled_from([b'"', b"\\", b"},{", b"]}", b"\\ud800", b"\\u0000", b"0", b"/../"]),
    ),
    min_size=1,
    max_size=3,
)  # fmt: skip


@given(CHANGES)
@settings(max_examples=500, deadline=None)
def test_the_quick_reader_reads_what_the_other_does(changes: list[tuple[int, int, bytes]]) -> None:
    data = CANONICAL
    for at, removed, added in changes:
        data = data[:at] + added + data[at + removed :]
    quick = refusal(lambda: list(manifest.read(BytesIO(data))))
    other = refusal(lambda: [manifest.unpack(row) for row in manifest._parse(data, "manifest")])
    assert str(quick) == str(other)


def test_json_that_is_deep_or_twofold_is_refused() -> None:
    head = '{"hashAlg":"xxh128","manifestVersion":"2023-03-03","totalSize":1,"paths":'
    entry = f'{{"path":"a","hash":"{HASH}","size":1,"mtime":0}}'
    for text in (
        head + "[" * 100_000 + "]" * 100_000 + "}",
        head + f'[{entry}],"paths":[{entry}]}}',
        head + "[" + entry.replace('"path":"a"', '"path":"../a","path":"a"') + "]}",
        head + "[" + entry.replace("1,", "9" * 5000 + ",") + "]}",
        head + "[" + entry.replace("1,", "NaN,") + "]}",
    ):
        assert isinstance(refusal(lambda text=text: manifest.decode(text.encode())), Trouble)


def test_a_path_may_be_deep_but_not_without_end() -> None:
    assert paths.relative_problem("/".join("a" * 10_000)) is None
    assert paths.relative_problem("/".join("a" * 40_000)) is not None
    for length in (2, 10_000, 40_000):
        rows = [manifest.pack("/".join("a" * length), HASH, 0, 0)]
        passed = refusal(lambda rows=rows: list(manifest.check_packed(rows)))
        assert isinstance(passed, Trouble) == (length == 40_000)


@pytest.mark.parametrize(("one", "other"), [("a/X", "A/y"), ("é", "e\u0301"), ("straße", "STRASSE"), ("d/f", "D/F")])
def test_names_that_a_disk_takes_for_one_are_not_both_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str
) -> None:
    monkeypatch.setattr(placing.Folder, "ignores_case", lambda self: True)
    tree = Tree(str(tmp_path))
    tree.claim(one)
    tree.claim(one)
    with pytest.raises(Trouble, match="case or form"):
        tree.claim(other)
    monkeypatch.undo()
    tree = Tree(str(tmp_path))
    tree.claim(one)
    tree.claim(other)  # this disk keeps them apart
    assert os.listdir(tmp_path) == []
