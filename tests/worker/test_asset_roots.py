"""Where asset roots lie in a session, and which files count as output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from dl_worker.asset_roots import Seen, name_of, place

from libdeadline.errors import Trouble


def entry(root: str = "/proj", **more: Any) -> dict[str, Any]:
    return {"rootPath": root, "rootPathFormat": "posix", **more}


def test_names_are_the_reference_s() -> None:
    # Values of the specification, from the reference software.
    assert name_of("/proj") == "assetroot-3464c77016a3c8d3a20d"
    assert name_of("C:\\proj") == "assetroot-465ffcbc21d55af9df8a"


def test_places_keep_the_job_s_order_and_give_a_rule_each() -> None:
    windows = entry("C:\\proj", rootPathFormat="windows", outputRelativeDirectories=["a\\b", "."])
    roots = place([windows, entry(outputRelativeDirectories=["out/", "./x//y"])], [], "/s")
    assert [root.root_path for root in roots] == ["C:\\proj", "/proj"]
    assert roots[0].output_dirs == ("a/b", "")
    assert roots[1].output_dirs == ("out", "x/y")
    assert roots[1].rule == {
        "sourcePathFormat": "posix",
        "sourcePath": "/proj",
        "destinationPath": "/s/assetroot-3464c77016a3c8d3a20d",
    }


def test_a_location_lies_where_its_rule_says() -> None:
    rules = [{"sourcePathFormat": "posix", "sourcePath": "/mnt/show", "destinationPath": "/here/show"}]
    located = entry("/mnt/show", fileSystemLocationName="Show")
    (root,) = place([located], rules, "/s")
    assert (root.local_root, root.is_dynamic) == ("/here/show", False)
    # Without any rules it is a folder of the session, like a root without a location.
    assert place([located], [], "/s")[0].is_dynamic
    assert place([entry("/mnt/show")], rules, "/s")[0].is_dynamic
    with pytest.raises(Trouble, match="no path mapping rule for '/mnt/show/a'"):
        place([entry("/mnt/show/a", fileSystemLocationName="Show")], rules, "/s")


@pytest.mark.parametrize("outside", ["../x", "a/../../x", "/etc", "a/.."])
def test_an_output_folder_outside_is_refused(outside: str) -> None:
    with pytest.raises(Trouble, match="outside"):
        place([entry(outputRelativeDirectories=[outside])], [], "/s")


@pytest.mark.parametrize("outside", ["..\\x", "C:\\x", "\\x"])
def test_an_output_folder_outside_is_refused_in_windows_spelling(outside: str) -> None:
    with pytest.raises(Trouble, match="outside"):
        place([entry("C:\\p", rootPathFormat="windows", outputRelativeDirectories=[outside])], [], "/s")


class Tree:
    def __init__(self, folder: Path, *dirs: str) -> None:
        (self.root,) = place([entry(outputRelativeDirectories=list(dirs))], [], str(folder))
        self.folder = Path(self.root.local_root)
        self.folder.mkdir()
        self.seen = Seen(self.root)

    def write(self, path: str, text: str = "x", mtime_us: int | None = None) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if mtime_us is not None:
            os.utime(file, ns=(mtime_us * 1000, mtime_us * 1000))

    def changed(self) -> list[str]:
        return sorted(path for path, _, _ in self.seen.changed())


def test_new_and_changed_files_are_output_and_others_are_not(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "out")
    for name in ("same", "grown", "later", "earlier", "rounded"):
        tree.write(f"out/{name}", "x", 5_000_000)
        tree.seen.add(f"out/{name}", 1, 5_000_000)
    tree.write("out/grown", "xx", 5_000_000)
    tree.write("out/later", "x", 5_000_002)
    tree.write("out/earlier", "x", 4_000_000)
    tree.write("out/rounded", "x", 5_000_001)
    tree.write("out/deep/er/new")
    tree.write("out/.hidden")
    tree.write("elsewhere")
    assert tree.changed() == ["out/.hidden", "out/deep/er/new", "out/earlier", "out/grown", "out/later"]


def test_what_was_seen_is_listed_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "out", "out/deep", ".")
    tree.write("out/deep/a")
    found = list(tree.seen.changed())
    assert [path for path, _, _ in found] == ["out/deep/a"]
    for path, size, mtime in found:
        tree.seen.add(path, size, mtime)
    assert tree.changed() == []
    tree.write("out/deep/a", "xy")
    assert tree.changed() == ["out/deep/a"]


def test_what_is_noted_counts_once_it_is_added(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "out")
    for name in ("a", "b\udcff"):
        tree.write(f"out/{name}", "x", 5_000_000)
        tree.seen.note(f"out/{name}", 1, 5_000_000)
    assert tree.changed() == ["out/a", "out/b\udcff"]
    tree.seen.add_noted()
    assert tree.changed() == []
    tree.seen.note("out/a", 2, 5_000_000)
    tree.seen.forget_noted()
    tree.seen.add_noted()
    assert tree.changed() == []
    tree.write("out/a", "xx", 5_000_000)
    tree.seen.add("out/a", 2, 5_000_000)
    tree.write("out/a", "x", 5_000_000)  # as it was once, but not as it was last
    assert tree.changed() == ["out/a"]


def test_links_are_followed_only_within_the_root(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "out")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("s")
    tree.write("inside/data/a")
    tree.write("out/real")
    for name, target in (
        ("leak", tmp_path / "secret" / "key"),
        ("leaks", tmp_path / "secret"),
        ("gone", "nowhere"),
        ("again", "real"),
        ("data", tree.folder / "inside" / "data"),
        ("loop", "."),
    ):
        os.symlink(target, tree.folder / "out" / name)
    os.mkfifo(tree.folder / "out" / "pipe")
    assert tree.changed() == ["out/again", "out/data/a", "out/real"]


def test_missing_folders_hold_nothing(tmp_path: Path) -> None:
    assert Tree(tmp_path, "never/made").changed() == []
