"""Where dl-download puts what, and which files its globs mean."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from dl_tools import dl_download
from dl_tools.dl_download import Batch, Download
from dl_tools.dl_download.sources import Files, Loaded, Source

from libdeadline import command
from libdeadline.errors import Trouble
from libdeadline.path_mapping import Places, Rule


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEADLINE_CONFIG_FILE_PATH", str(tmp_path / "config"))


def download(*words: str) -> Download:
    return Download(command.parse(dl_download.__doc__ or "", list(words)), command.Run("dl-download", "error", "none"))


def places(root: str, *words: str, kind: str = "posix", profiled: list[Rule] | None = None) -> Places:
    return download(*words)._places(root, kind, profiled)


def test_without_rules_a_root_is_where_it_was() -> None:
    assert places("/proj").find("a/b") == ("/proj", "a/b")


def test_a_root_of_another_system_needs_a_rule() -> None:
    with pytest.raises(Trouble, match="--map") as caught:
        places("C:\\proj", kind="windows")
    assert (caught.value.status, caught.value.path) == (78, "C:\\proj")
    assert places("C:\\proj", "--map=C:\\proj=/here", kind="windows").folder == "/here"
    assert places("C:\\proj\\sub", "--map=c:/PROJ=/here", kind="windows").folder == "/here/sub"


def test_the_longest_rule_that_holds_the_root_decides() -> None:
    words = ("--map=/=/r", "--map=/proj=/here", "--map=/proj/deep=/there")
    assert places("/proj", *words).find("x") == ("/here", "x")
    assert places("/proj", *words).find("deep/x") == ("/there", "x")
    assert places("/proj/deep/er", *words).folder == "/there/er"
    assert places("/project", *words).folder == "/r/project"


def test_rules_below_a_root_take_their_part_of_it() -> None:
    words = ("--map=/mnt/a=/x", "--map=/mnt/a/b=/y")
    found = places("/mnt", *words)
    assert [found.find(path) for path in ("a/b/c", "a/c", "ab/c", "a")] == [
        ("/y", "c"), ("/x", "c"), ("/mnt", "ab/c"), ("/mnt", "a"),
    ]  # fmt: skip
    # Between storage profiles what no location holds has no place here, unless it was put in.
    rules = [Rule("posix", "/mnt/a", "/x")]
    assert [places("/mnt", profiled=rules).find(path) for path in ("a/c", "b")] == [("/x", "c"), None]
    assert places("/elsewhere", profiled=rules).is_empty
    assert places("/mnt/a/c", profiled=rules).folder == "/x/c"
    stays = download()._places("/mnt", "posix", rules, stays=True)
    assert [stays.find(path) for path in ("a/c", "b")] == [("/x", "c"), ("/mnt", "b")]
    with pytest.raises(Trouble, match="--map"):
        download()._places("C:\\x", "windows", [Rule("windows", "C:\\y", "/y")], stays=True)


def test_to_wins() -> None:
    assert places("C:\\x", "--to=/there", "--map=C:\\x=/here", kind="windows").find("a") == ("/there", "a")


def chosen(tmp_path: Path, root: str, paths: list[str], *words: str, kind: str = "posix") -> list[str]:
    entries = [{"hash": "0" * 32, "mtime": 0, "path": path, "size": 1} for path in sorted(paths)]
    document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": entries, "totalSize": 0}
    where = tmp_path / "m"
    where.write_text(json.dumps(document))
    file = open(where, "rb")  # noqa: SIM115
    files = Files([Loaded(Source(root, kind, file=str(where)), file, where.stat().st_size)])
    run = download(*words)
    batch = Batch(root, kind, files, run._places(root, kind, None))
    return [entry.path for entry, folder, _ in run._chosen(batch) if folder is not None]


# Source: attachments specification, filters: examples that the reference was tried with.
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--include=renders/*.exr",), ["sub/renders/x/a.exr"]),
        (("--include=*.exr",), ["a.exr", "sub/renders/x/a.exr", "xrenders/a.exr"]),
        (("--include=/r/a.exr",), ["a.exr"]),
        (("--include=./a.exr", "--exclude=sub/"), ["a.exr", "xrenders/a.exr"]),
        (("--include=xrenders\\",), ["xrenders/a.exr"]),
        (("--exclude=*.exr",), ["A.EXR", "b.txt"]),
        (("--include=nothing",), []),
        (("--include=./", "--include=b.txt"), ["b.txt"]),
        (("--include=",), ["A.EXR", "a.exr", "b.txt", "sub/renders/x/a.exr", "xrenders/a.exr"]),
        (("--include=/out/*", "--match-paths-by=local"), []),
        (("--include=b.*", "--include=A.*"), ["A.EXR", "b.txt"]),
    ],
)
def test_globs(tmp_path: Path, words: tuple[str, ...], wanted: list[str]) -> None:
    paths = ["a.exr", "A.EXR", "b.txt", "sub/renders/x/a.exr", "xrenders/a.exr"]
    assert chosen(tmp_path, "/r", paths, *words) == wanted


def test_globs_about_local_paths(tmp_path: Path) -> None:
    words = ("--map=C:\\r=/here", "--include=/here/s*", "--match-paths-by=local")
    assert chosen(tmp_path, "C:\\r", ["a", "sub/b"], *words, kind="windows") == ["sub/b"]
    words = ("--map=C:\\r=/here", "--include=C:/r/a")
    assert chosen(tmp_path, "C:\\r", ["a", "sub/b"], *words, kind="windows") == ["a"]


def test_a_later_manifest_wins(tmp_path: Path) -> None:
    parts = []
    for name, hash in (("one", "1" * 32), ("two", "2" * 32)):
        entries = [{"hash": hash, "mtime": 0, "path": path, "size": 1} for path in ("both", name)]
        document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": entries, "totalSize": 0}
        (tmp_path / name).write_text(json.dumps(document))
        file = open(tmp_path / name, "rb")  # noqa: SIM115
        parts.append(Loaded(Source("/r", "posix"), file, os.stat(tmp_path / name).st_size))
    found = {entry.path: entry.hash[0] for entry in Files(parts)}
    assert found == {"both": "2", "one": "1", "two": "2"}


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_the_order_of_a_manifest_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr("libdeadline.manifest.SORTED_BYTES", limit)
    names = ["b", "a/b", "a", "c"]
    for order in (["b", "c", "a"], ["a", "b", "c"]):
        assert chosen_in_order(tmp_path, order) == ["a", "b", "c"]
    with pytest.raises(Trouble, match="a file and a folder"):
        chosen_in_order(tmp_path, names)
    with pytest.raises(Trouble, match="stands twice"):
        chosen_in_order(tmp_path, ["b", "a", "b"])


def chosen_in_order(tmp_path: Path, paths: list[str]) -> list[str]:
    entries = [{"hash": "1" * 32, "mtime": 0, "path": path, "size": 1} for path in paths]
    document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": entries, "totalSize": len(paths)}
    (tmp_path / "m").write_text(json.dumps(document, separators=(",", ":")))
    with open(tmp_path / "m", "rb") as file:
        files = Files([Loaded(Source("/r", "posix"), file, os.stat(tmp_path / "m").st_size)])
        first = [entry.path for entry in files]
        assert [entry.path for entry in files] == first
        return first


def test_a_file_and_a_folder_of_one_name_are_refused_across_manifests(tmp_path: Path) -> None:
    parts = []
    for name, path in (("one", "a"), ("two", "a/b")):
        entries = [{"hash": "1" * 32, "mtime": 0, "path": path, "size": 1}]
        document = {"hashAlg": "xxh128", "manifestVersion": "2023-03-03", "paths": entries, "totalSize": 0}
        (tmp_path / name).write_text(json.dumps(document))
        file = open(tmp_path / name, "rb")  # noqa: SIM115
        parts.append(Loaded(Source("/r", "posix"), file, os.stat(tmp_path / name).st_size))
    with pytest.raises(Trouble, match="a file and a folder"):
        list(Files(parts))
