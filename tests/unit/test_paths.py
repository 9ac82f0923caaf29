"""Paths and asset roots, POSIX and Windows."""

import ntpath
import os
import posixpath
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libdeadline import paths
from libdeadline.paths import Grouping, Location


def test_the_hash_of_a_root_is_the_formats() -> None:
    # literals of the attachments specification, S3 layout
    assert paths.root_hash("/proj") == "731442b4ddb4a5b53a932cb24fb47f14"
    assert paths.root_hash("LocName/proj") == "6c369881e45cab9e005c59bd641cd011"
    assert paths.root_hash("") == "99aa06d3014798d86001c324468d497f"


@pytest.mark.parametrize(
    ("path", "base", "flavour", "wanted"),
    [
        ("a/../b/./c//d/", "/x", posixpath, "/x/b/c/d"),
        ("/a//b", "/x", posixpath, "/a/b"),
        ("//a", "/x", posixpath, "/a"),
        ("..", "/", posixpath, "/"),
        ("a/b", "C:\\x", ntpath, "C:\\x\\a\\b"),
        ("D:/y/../z", "C:\\x", ntpath, "D:\\z"),
        ("\\\\server\\share\\a\\..", "C:\\x", ntpath, "\\\\server\\share\\"),
    ],
)
def test_absolute(path: str, base: str, flavour: object, wanted: str) -> None:
    assert paths.absolute(path, base, flavour) == wanted


@pytest.mark.parametrize(
    ("path", "folder", "flavour", "wanted"),
    [
        ("/a/b", "/a", posixpath, True),
        ("/a", "/a", posixpath, True),
        ("/ab", "/a", posixpath, False),
        ("/a", "/", posixpath, True),
        ("/A/b", "/a", posixpath, False),
        ("c:\\A\\b", "C:\\a", ntpath, True),
        ("C:\\ab", "C:\\a", ntpath, False),
        ("C:\\a", "C:\\", ntpath, True),
        ("D:\\a", "C:\\", ntpath, False),
        ("\\\\s\\share\\a", "\\\\S\\Share\\", ntpath, True),
    ],
)
def test_within(path: str, folder: str, flavour: object, wanted: bool) -> None:
    assert paths.is_within(path, folder, flavour) is wanted


@pytest.mark.parametrize(
    ("path", "flavour", "wanted"),
    [
        ("/a/b", posixpath, "/"),
        ("C:\\a", ntpath, "C:\\"),
        ("\\\\server\\share\\a\\b", ntpath, "\\\\server\\share\\"),
        ("\\\\server\\share", ntpath, "\\\\server\\share\\"),
    ],
)
def test_anchor(path: str, flavour: object, wanted: str) -> None:
    assert paths.anchor(path, flavour) == wanted


parts = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=4)
relative_paths = st.lists(parts | st.sampled_from(["..", ".", ""]), min_size=1, max_size=5).map("/".join)


@given(relative_paths)
def test_what_is_judged_safe_stays_below_the_root_and_has_one_spelling(path: str) -> None:
    if paths.relative_problem(path) is None:
        joined = posixpath.join("/root/folder", path)
        assert joined.startswith("/root/folder/")
        assert posixpath.normpath(joined) == joined


@given(relative_paths)
def test_what_is_judged_safe_for_windows_stays_below_the_root_there(path: str) -> None:
    if paths.relative_problem(path, windows=True) is None:
        joined = ntpath.normpath(ntpath.join("C:\\root", path))
        assert paths.is_within(joined, "C:\\root", ntpath)
        assert joined != "C:\\root"


@given(st.lists(parts.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4).map("/".join))
def test_plain_paths_are_safe(path: str) -> None:
    assert paths.relative_problem(path) is None


def roots(grouping: Grouping, *found: str) -> list[tuple[str | None, str | None]]:
    for path in found:
        group = grouping.group_of(path)
        if group is not None:
            group.add(path)
    return sorted(((group.common, group.location) for group in grouping.groups.values()), key=str)


def test_files_share_their_longest_common_path() -> None:
    assert roots(Grouping(), "/proj/x/a", "/proj/x/b/c") == [("/proj/x", None)]
    assert roots(Grouping(), "/proj/x", "/data/y") == [("/", None)]
    assert roots(Grouping(), "/proj/xa", "/proj/xb") == [("/proj", None)]


def test_drives_and_shares_are_groups_of_their_own() -> None:
    found = roots(Grouping(flavour=ntpath), "C:\\p\\a", "c:\\P\\b", "D:\\x", "\\\\s\\h\\a\\1", "\\\\s\\h\\a\\2")
    assert {(path or "").lower() for path, _ in found} == {"c:\\p", "d:\\x", "\\\\s\\h\\a"}
    assert len(found) == 3


def test_a_local_location_is_its_own_root_and_a_shared_one_is_left_out(tmp_path: Path) -> None:
    base = os.path.realpath(tmp_path)
    grouping = Grouping(
        [
            Location("Disk", f"{base}/disk", "LOCAL"),
            Location("Deeper", f"{base}/disk/deep", "LOCAL"),
            Location("Nas", f"{base}/nas", "SHARED"),
        ]
    )
    found = roots(
        grouping, f"{base}/disk/a/b/c", f"{base}/disk/deep/x/y", f"{base}/nas/z", f"{base}/diskette/q", f"{base}/p"
    )
    assert found == [(base, None), (f"{base}/disk", "Disk"), (f"{base}/disk/deep", "Deeper")]


def test_links_are_resolved_but_never_named_outside_of_their_root(tmp_path: Path) -> None:
    base = os.path.realpath(tmp_path)
    for name in ("disk", "nas", "proj"):
        os.mkdir(f"{base}/{name}")
        Path(f"{base}/{name}/f").touch()
    os.symlink(f"{base}/disk/f", f"{base}/proj/to-disk")
    os.symlink(f"{base}/nas/f", f"{base}/proj/to-nas")
    os.symlink(f"{base}/disk", f"{base}/alias")
    locations = [Location("Disk", f"{base}/alias", "LOCAL"), Location("Nas", f"{base}/nas", "SHARED")]
    found = roots(Grouping(locations), f"{base}/proj/to-disk", f"{base}/proj/to-nas", f"{base}/alias/f")
    # Under the names that they were given, links go with the folder that they lie in.
    assert found == [(f"{base}/alias", "Disk"), (f"{base}/proj", None)]


@pytest.mark.parametrize(
    ("root", "kind", "is_fit"),
    [
        ("/proj", "posix", True), ("/", "posix", True), ("/a/b/", "posix", True), ("/a\\..\\b", "posix", True),
        ("proj", "posix", False), ("", "posix", False), ("/a/../b", "posix", False), ("/a\0b", "posix", False),
        ("C:\\proj", "windows", True), ("\\\\srv\\share\\a", "windows", True), ("C:/proj", "windows", True),
        ("C:proj", "windows", False), ("proj", "windows", False), ("C:\\a\\..\\b", "windows", False),
        ("C:/a/../b", "windows", False),
    ],
)  # fmt: skip
def test_roots_that_someone_else_names(root: str, kind: str, is_fit: bool) -> None:
    assert (paths.root_problem(root, kind) is None) is is_fit
