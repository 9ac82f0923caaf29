"""Path mapping, for both kinds of host on any host."""

import ntpath
import posixpath
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from libdeadline.errors import Trouble
from libdeadline.path_mapping import PathMapping, Places, Rule, check_local, parse, rules_between
from libdeadline.paths import is_within


def profile(id_: str, family: str, **locations: str) -> dict[str, object]:
    rows = [{"name": name, "path": path, "type": "LOCAL"} for name, path in locations.items()]
    return {"storageProfileId": id_, "osFamily": family, "fileSystemLocations": rows}


def test_one_rule_for_each_name_that_both_have() -> None:
    windows = profile("sp-1", "WINDOWS", Proj="P:\\", Tools="C:\\tools")
    linux = profile("sp-2", "LINUX", Proj="/mnt/proj", Cache="/cache")
    assert rules_between(windows, linux) == [Rule("windows", "P:\\", "/mnt/proj")]
    assert rules_between(linux, windows) == [Rule("posix", "/mnt/proj", "P:\\")]
    assert rules_between(profile("sp-3", "MACOS", Proj="/Volumes/p"), linux) == [
        Rule("posix", "/Volumes/p", "/mnt/proj")
    ]
    assert rules_between(linux, linux) == []
    assert rules_between({"storageProfileId": "a"}, {"storageProfileId": "b"}) == []


WINDOWS = [
    Rule("windows", "C:\\Proj", "/mnt/p"),
    Rule("windows", "c:/proj/sub", "/x"),
    Rule("windows", "\\\\s\\h", "/h"),
]
POSIX = [Rule("posix", "/proj", "Z:\\p"), Rule("posix", "/", "Y:\\")]


@pytest.mark.parametrize(
    ("rules", "destination", "path", "wanted"),
    [
        (WINDOWS, posixpath, "C:\\Proj\\a\\b", "/mnt/p/a/b"),
        (WINDOWS, posixpath, "c:/PROJ/A", "/mnt/p/A"),
        (WINDOWS, posixpath, "C:\\Proj", "/mnt/p"),
        (WINDOWS, posixpath, "C:\\Proj\\Sub\\f", "/x/f"),
        (WINDOWS, posixpath, "C:\\Project", None),
        (WINDOWS, posixpath, "C:\\Proj\\..\\secret", None),
        (WINDOWS, posixpath, "C:\\Proj\\sub\\..\\f", "/mnt/p/f"),
        (WINDOWS, posixpath, "D:\\Proj", None),
        (WINDOWS, posixpath, "\\\\S\\H\\f", "/h/f"),
        (WINDOWS, ntpath, "C:\\Proj\\a", "/mnt/p\\a"),
        (POSIX, ntpath, "/proj/a/b", "Z:\\p\\a\\b"),
        (POSIX, ntpath, "/project", "Y:\\project"),
        (POSIX, ntpath, "/Proj/a", "Y:\\Proj\\a"),
        (POSIX, ntpath, "//proj/a", "Z:\\p\\a"),
        (POSIX[:1], ntpath, "/other", None),
        # What is a name on the one system leads elsewhere on the other, or nowhere.
        (POSIX[:1], ntpath, "/proj/C:/x", None),
        (POSIX[:1], ntpath, "/proj/\\x", None),
        (POSIX[:1], ntpath, "/proj/..\\..\\x", None),
        (POSIX[:1], ntpath, "/proj/NUL", None),
        (POSIX, posixpath, "/proj/C:/x", "Z:\\p/C:/x"),
        # A path that starts from a drive's current folder, or from the current drive, is of no root.
        (WINDOWS, posixpath, "C:Proj\\a", None),
        (WINDOWS, posixpath, "\\Proj\\a", None),
        ([Rule("windows", "C:", "/x")], posixpath, "C:\\a", None),
        ([Rule("windows", "C:\\", "/x")], posixpath, "c:/a\\B//c\\", "/x/a/B/c"),
        ([Rule("windows", "C:\\Proj\\", "/x")], posixpath, "C:\\PROJ", "/x"),
        ([Rule("windows", "\\\\Server\\Share\\", "/x")], posixpath, "//server/share/a", "/x/a"),
        ([Rule("windows", "\\\\server\\share", "/x")], posixpath, "\\\\server\\share2\\a", None),
        ([Rule("posix", "/a/b/", "/x/")], posixpath, "/a/b", "/x/"),
        ([Rule("posix", "/a/b/", "/x/")], posixpath, "/a//b/./c/../d/", "/x/d"),
        ([Rule("posix", "/a/B", "/x")], posixpath, "/a/b", None),
        ([Rule("windows", "P:\\a", "Q:\\b\\")], ntpath, "p:\\A\\c", "Q:\\b\\c"),
        ([Rule("windows", "P:\\a", "\\\\s\\h")], ntpath, "p:/a/c", "\\\\s\\h\\c"),
        (POSIX[:1], ntpath, "proj/a", None),
        ([], posixpath, "/a", None),
    ],
)
def test_the_longest_source_wins_by_whole_parts(
    rules: list[Rule], destination: object, path: str, wanted: str | None
) -> None:
    assert PathMapping(rules, destination).apply(path) == wanted
    assert PathMapping(rules[::-1], destination).apply(path) == wanted


LETTERS = st.characters(codec="utf-8", exclude_characters='/\\\0:<>|?*"', min_codepoint=33)
NAME = st.text(LETTERS, min_size=1, max_size=8).filter(
    lambda name: not name.endswith((".", " ")) and len(name.lower()) == len(name)
)
PARTS = st.lists(NAME, min_size=1, max_size=4)
FLAVOUR = st.sampled_from([posixpath, ntpath])


def spelled(parts: list[str], flavour: ModuleType, drive: str = "C:\\") -> str:
    start = drive if flavour is ntpath else "/"
    return start + flavour.sep.join(parts)  # type: ignore[no-any-return]


def rule(source: list[str], source_flavour: Any, destination: list[str], flavour: Any) -> Rule:
    form = "windows" if source_flavour is ntpath else "posix"
    return Rule(form, spelled(source, source_flavour), spelled(destination, flavour, "Z:\\"))


@given(source=PARTS, rest=PARTS, destination=PARTS, theirs=FLAVOUR, ours=FLAVOUR)
@example(source=["a"], rest=["con"], destination=["x"], theirs=posixpath, ours=ntpath)
def test_what_lies_below_a_source_lies_below_its_destination(
    source: list[str], rest: list[str], destination: list[str], theirs: Any, ours: Any
) -> None:
    mapping = PathMapping([rule(source, theirs, destination, ours)], ours)
    target = spelled(destination, ours, "Z:\\")
    found = mapping.apply(spelled(source + rest, theirs))
    if found is None:
        assert ours is ntpath  # a name that Windows reserves
    else:
        assert found == ours.join(target, *rest)
        assert is_within(found, target, ours)
    assert mapping.apply(spelled(source, theirs)) == target
    # A name that only begins alike is another.
    assert mapping.apply(spelled([*source[:-1], source[-1] + "x", *rest], theirs)) is None


@given(source=PARTS, rest=PARTS, data=st.data())
def test_spellings_of_windows_are_one(source: list[str], rest: list[str], data: st.DataObject) -> None:
    mapping = PathMapping([rule(source, ntpath, ["to"], posixpath)], posixpath)
    given_path = "".join(
        data.draw(st.sampled_from([char.lower(), char.upper()])) if char.isascii() else char
        for char in spelled(source, ntpath)
    )
    path = given_path + "\\" + "\\".join(rest)
    path = "".join(data.draw(st.sampled_from(["\\", "/", "\\\\"])) if char == "\\" else char for char in path[3:])
    spelling = given_path[:3] + path + data.draw(st.sampled_from(["", "/", "\\", "\\."]))
    assert mapping.apply(spelling) == posixpath.join("/to", *rest)


@given(
    root=st.lists(st.sampled_from("aBc"), max_size=3),
    path=st.lists(st.sampled_from("aAbBc"), min_size=1, max_size=4),
    sources=st.lists(st.lists(st.sampled_from("aAbBc"), max_size=4), max_size=4),
    flavour=FLAVOUR,
)
def test_files_of_a_root_go_where_their_whole_paths_are_mapped_to(
    root: list[str], path: list[str], sources: list[list[str]], flavour: Any
) -> None:
    """Root by root and file by file are the same, whatever rules lie above, at and below the root."""
    form = "windows" if flavour is ntpath else "posix"
    rules = [Rule(form, spelled(source, flavour), f"/to{index}") for index, source in enumerate(sources)]
    places = Places(spelled(root, flavour), form, rules, posixpath)
    at = places.find("/".join(path))
    wanted = PathMapping(rules, posixpath).apply(spelled(root + path, flavour))
    # A rule for the very file is none for a folder, which a location is.
    assume(not any(flavour.normcase("/".join(source)) == flavour.normcase("/".join(root + path)) for source in sources))
    assert (posixpath.join(*at) if at else None) == wanted
    assert places.is_empty or rules


def test_places_of_windows_do_not_heed_case() -> None:
    rules = [Rule("windows", "P:\\Show\\Cache", "/cache"), Rule("posix", "/x", "/y")]
    places = Places("p:\\SHOW", "windows", rules, posixpath)
    assert [places.find(path) for path in ("cache/A", "CACHE/b", "cached/c")] == [
        ("/cache", "A"),
        ("/cache", "b"),
        None,
    ]


@pytest.mark.parametrize(("family", "is_here"), [("LINUX", True), ("MACOS", True), ("WINDOWS", False)])
def test_a_profile_of_another_system_is_not_this_hosts(
    family: str, is_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, wanted in ((posixpath, is_here), (ntpath, not is_here)):
        monkeypatch.setattr("libdeadline.path_mapping.os", type("System", (), {"path": path}))
        if wanted:
            check_local(profile("sp-1", family))
        else:
            with pytest.raises(Trouble, match="sp-1") as caught:
                check_local(profile("sp-1", family))
            assert caught.value.status == 78


def test_mixed_formats_are_refused() -> None:
    with pytest.raises(Trouble, match="mixed"):
        PathMapping([*WINDOWS, *POSIX])


def test_a_rules_file_is_a_list_or_openjds_object() -> None:
    row = {"source_path_format": "POSIX", "source_path": "/a", "destination_path": "/b"}
    assert parse([row], "f") == parse({"version": "1", "path_mapping_rules": [row]}, "f") == [Rule("posix", "/a", "/b")]


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"path_mapping_rules": None},
        [1],
        [{"source_path_format": "posix", "source_path": "/a"}],
        [{"source_path_format": "posix", "source_path": "/a", "destination_path": "/b", "more": "x"}],
        [{"source_path_format": "dos", "source_path": "/a", "destination_path": "/b"}],
        [{"source_path_format": "posix", "source_path": "", "destination_path": "/b"}],
        [{"source_path_format": "posix", "source_path": 1, "destination_path": "/b"}],
    ],
)
def test_other_shapes_are_refused(document: object) -> None:
    with pytest.raises(Trouble) as caught:
        parse(document, "f")
    assert caught.value.status == 65
