"""Walks and globs."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libdeadline import walk
from libdeadline.errors import Trouble
from libdeadline.walk import Selection


def tree(root: Path, *files: str) -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def found(root: Path, **options: object) -> list[str]:
    return [folder + name for folder, names in walk.walk(str(root), **options) for name in names]


def notes(root: Path, **options: object) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    list(walk.walk(str(root), note=lambda why, path, error: told.append((why, path)), **options))
    return sorted(told)


def test_files_come_before_folders_and_by_name(tmp_path: Path) -> None:
    tree(tmp_path, "b", "a/z", "a/y", "c", "a/a/x", ".d/e", "a.b")
    assert found(tmp_path) == ["a.b", "b", "c", ".d/e", "a/y", "a/z", "a/a/x"]


def test_links(tmp_path: Path) -> None:
    tree(tmp_path, "in/d/f", "out/g")
    root = tmp_path / "in"
    os.symlink("d", root / "folder")
    os.symlink("d/f", root / "file")
    os.symlink("nothing", root / "dangling")
    os.symlink("../out", root / "outside")
    os.symlink("../..", root / "d" / "loop")
    assert found(root) == ["file", "d/f"]
    assert notes(root) == [("dangling", "dangling"), ("link", "d/loop"), ("link", "folder"), ("link", "outside")]
    (root / "d" / "loop").unlink()
    os.symlink("..", root / "d" / "loop")
    assert found(root, links="follow") == ["file", "d/f", "folder/f", "outside/g"]
    assert ("loop", "d/loop") in notes(root, links="follow")
    assert found(root, links="skip") == found(root, links="fail") == ["d/f"]
    assert ("link", "file") in notes(root, links="skip")


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    tree(tmp_path, "ok")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "void").mkdir()
    with open(os.fsencode(tmp_path) + b"/\xff", "wb"):
        pass
    os.mkdir(os.fsencode(tmp_path) + b"/d\xff")
    assert found(tmp_path) == ["ok"]
    assert notes(tmp_path) == [
        ("empty", "void"),
        ("special", "fifo"),
        ("undecodable", "d\udcff"),
        ("undecodable", "\udcff"),
    ]


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        found(tmp_path / "gone")


def test_a_huge_folder_comes_in_sorted_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "SORTED_AT_ONCE", 7)
    tree(tmp_path, *(f"f{n:02}" for n in range(20)))
    runs = [names for _, names in walk.walk(str(tmp_path))]
    assert [len(names) for names in runs] == [7, 7, 6]
    assert all(names == sorted(names) for names in runs)
    assert sorted(sum(runs, [])) == [f"f{n:02}" for n in range(20)]


# glob, a path, whether it matches; with the shell's dot rule
GLOBS = [
    ("*", "a", True, True),
    ("*", "a/b", True, True),  # it matches the folder a
    ("*.txt", "a.txt", True, True),
    ("*.txt", "d/a.txt", False, False),
    ("**/*.txt", "a.txt", True, True),
    ("**/*.txt", "d/e/a.txt", True, True),
    ("d/**", "d/e/a", True, True),
    ("d/**", "d", False, False),
    ("d/**/a", "d/a", True, True),
    ("d/**/a", "d/b/c/a", True, True),
    ("d/**/a", "d/b/c/ab", False, False),
    ("d/", "d/x", True, True),
    ("d/", "d", False, False),
    ("d", "d/x/y", True, True),
    ("d", "dx", False, False),
    ("./d/./e", "d/e", True, True),
    ("?", "a", True, True),
    ("?", "ab", False, False),
    ("a?b", "a/b", False, False),
    ("[ab]", "a", True, True),
    ("[!ab]", "a", False, False),
    ("[!ab]", "c", True, True),
    ("x[!a]b", "x/b", False, False),
    ("[a-c]x", "bx", True, True),
    ("[c-a]x", "bx", False, False),
    ("[]]", "]", True, True),
    ("[!]]", "]", False, False),
    ("[^a]", "b", True, True),
    ("[a", "[a", True, True),
    ("a[", "a[", True, True),
    ("[[]", "[", True, True),
    ("a.b", "axb", False, False),
    ("a+(b)", "a+(b)", True, True),
    ("A", "a", False, False),
    ("**", "a/b/c", True, True),
    ("a**b", "axxb", True, True),
    ("a**b", "a/b", False, False),
    ("*", ".a", True, False),
    ("**", ".a/b", True, False),
    ("**", "a/.b", True, False),
    (".*", ".a", True, True),
    ("d/.*", "d/.a", True, True),
    ("**/.a/*", "x/.a/b", True, True),
    ("?a", ".a", True, False),
    ("[.]a", ".a", True, False),
    ("*a", "b\na", True, True),
]


@pytest.mark.parametrize(("glob", "path", "hidden_too", "shell_rule"), GLOBS)
def test_globs(glob: str, path: str, hidden_too: bool, shell_rule: bool) -> None:
    assert Selection([glob]).takes(path) is hidden_too
    assert Selection([glob], hidden=False).takes(path) is shell_rule
    assert Selection(exclude=[glob]).takes(path) is not hidden_too


@pytest.mark.parametrize("glob", ["/a", "../a", "a/../b", "", ".", "/"])
def test_globs_that_leave_the_root_are_refused(glob: str) -> None:
    with pytest.raises(Trouble, match="relative to the root") as caught:
        Selection([glob])
    assert caught.value.status == 64


def test_excludes_beat_includes() -> None:
    chosen = Selection(["*.exr", "d"], ["d/cache", "*_tmp.exr"])
    assert [path for path in ("a.exr", "a_tmp.exr", "d/x", "d/cache/y", "e/z") if chosen.takes(path)] == [
        "a.exr",
        "d/x",
    ]


parts = st.text("ab.", min_size=1, max_size=3).filter(lambda part: part not in (".", ".."))
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)
globs = st.lists(parts | st.sampled_from(["**", "*", "?", "a*", "*b", "[ab]", "[!a]*"]), min_size=1, max_size=4).map(
    "/".join
)


@settings(max_examples=400)
@given(st.lists(globs, max_size=3), st.lists(globs, max_size=2), paths, st.booleans())
def test_a_file_that_is_taken_lies_in_folders_that_are_entered(
    include: list[str], exclude: list[str], path: str, hidden: bool
) -> None:
    chosen = Selection(include, exclude, hidden=hidden)
    if chosen.takes(path):
        folders = path.split("/")[:-1]
        assert all(chosen.enters("/".join(folders[: n + 1])) for n in range(len(folders)))


@given(globs, paths)
def test_a_folder_that_matches_takes_what_is_in_it(glob: str, path: str) -> None:
    if Selection([glob]).takes(path):
        assert Selection([glob]).takes(path + "/more")


def test_folders_where_nothing_can_match_are_not_entered(tmp_path: Path) -> None:
    tree(tmp_path, "keep/a", "cache/b", "other/c")
    chosen = Selection(["keep/**", "other"], ["other"])
    assert chosen.enters("keep") and not chosen.enters("cache") and not chosen.enters("other")
    assert found(tmp_path, selection=chosen) == ["keep/a"]


@pytest.mark.parametrize("include", [[], ["*"], ["**/*"], ["sub"], ["sub/*"], ["s*/**"], ["**/a"], [".h/*"], ["**/.x"]])
@pytest.mark.parametrize("exclude", [[], ["*"], ["**"], ["sub"], ["sub/*"], ["**/a"], [".*"]])
def test_exact_globs_choose_as_a_shell_does(tmp_path: Path, include: list[str], exclude: list[str]) -> None:
    from glob import glob

    tree(tmp_path, "a", "b", ".x", "sub/a", "sub/.x", "sub/deep/a", "sub/deep/c", ".h/a", ".h/.x", "s/a")

    def matched(patterns: list[str]) -> set[str]:
        names = {name for each in patterns for name in glob(each, root_dir=tmp_path, recursive=True)}
        return {name for name in names if (tmp_path / name).is_file()}

    selection = Selection(include, exclude, hidden=False, exact=True)
    assert set(found(tmp_path, selection=selection)) == matched(include or ["**/*"]) - matched(exclude)
