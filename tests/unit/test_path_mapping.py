"""Path mapping, for both kinds of host on any host."""

import ntpath
import posixpath

import pytest

from libdeadline.errors import Trouble
from libdeadline.path_mapping import PathMapping, Rule, parse, rules_between


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
        (POSIX[:1], ntpath, "proj/a", None),
        ([], posixpath, "/a", None),
    ],
)
def test_the_longest_source_wins_by_whole_parts(
    rules: list[Rule], destination: object, path: str, wanted: str | None
) -> None:
    assert PathMapping(rules, destination).apply(path) == wanted
    assert PathMapping(rules[::-1], destination).apply(path) == wanted


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
