"""What dl-hash does about files that it can't or should not hash: told of each, as chosen, and never waited for."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DL_HASH = Path(sys.executable).parent / "dl-hash"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Some of everything; `wanted` and `d/in` are what there is to hash."""
    made = tmp_path / "[x]"  # a name that looks like a glob
    (made / "d").mkdir(parents=True)
    (made / "void").mkdir()
    (made / "wanted").write_text("w")
    (made / "d" / "in").write_text("in")
    os.mkfifo(made / "pipe")
    os.symlink("pipe", made / "to-pipe")
    os.symlink("/dev/zero", made / "to-device")
    os.symlink("wanted", made / "to-file")
    os.symlink("d", made / "to-folder")
    os.symlink("nothing", made / "to-nothing")
    os.symlink("to-itself", made / "to-itself")
    os.symlink("..", made / "d" / "up")
    here = os.getcwd()
    os.chdir(made)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            os.chdir(here)
            yield made
    finally:
        os.chdir(here)


def run(tree: Path, *words: str, text: bytes = b"") -> tuple[int, set[str], dict[str, str], dict[str, object]]:
    """(status, files with a hash, path to what was said, the end record); what is said to fail begins with "!"."""
    done = subprocess.run(
        [DL_HASH, "--no-cache", "--progress=json", *words], input=text, capture_output=True, timeout=30, cwd=tree,
        env={**os.environ, "HOME": str(tree.parent)},
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    said = {}
    for line in done.stderr.splitlines():
        row = json.loads(line)
        if row["type"] == "error":
            path = row["path"].removeprefix(f"{tree}/")
            assert path not in said
            said[path] = ("!" if row.get("status") else "") + row["message"].rpartition(": ")[2]
    return done.returncode, {row["path"] for row in rows if row["type"] == "file"}, said, rows[-1]


SPECIAL = {"pipe", "to-pipe", "to-device", "socket"}
NOTHING = {"to-nothing", "to-itself"}
CASES = [
    # options, files, what is warned of, what fails, status
    ([], {"wanted", "d/in", "to-file"}, {*SPECIAL, "to-folder", "d/up"}, NOTHING, 66),
    (["--missing=warn"], {"wanted", "d/in", "to-file"}, {*SPECIAL, *NOTHING, "to-folder", "d/up"}, set(), 0),
    (["--missing=skip", "--special=skip"], {"wanted", "d/in", "to-file"}, {"to-folder", "d/up"}, set(), 0),
    (["--missing=skip", "--special=fail"], {"wanted", "d/in", "to-file"}, {"to-folder", "d/up"}, SPECIAL, 65),
    (["--links=skip"], {"wanted", "d/in"}, {"pipe", "socket"}, set(), 0),
    (["--links=skip", "--empty-dirs=warn"], {"wanted", "d/in"}, {"pipe", "socket", "void"}, set(), 0),
    (["--links=skip", "--empty-dirs=fail"], {"wanted", "d/in"}, {"pipe", "socket"}, {"void"}, 65),
    (["--links=fail", "--special=skip"], {"wanted", "d/in"}, set(),
     {"to-pipe", "to-device", "to-file", "to-folder", "d/up", *NOTHING}, 65),
    (["--links=follow", "--missing=skip", "--special=skip"], {"wanted", "d/in", "to-file", "to-folder/in"},
     {"d/up", "to-folder/up"}, set(), 0),
]  # fmt: skip


@pytest.mark.parametrize(("options", "files", "warned", "failed", "status"), CASES)
def test_each_is_told_as_chosen(
    tree: Path, options: list[str], files: set[str], warned: set[str], failed: set[str], status: int
) -> None:
    got, hashed, said, end = run(tree, *options, ".")
    assert hashed == files
    assert {path for path, text in said.items() if text.startswith("!")} == failed
    assert {path for path, text in said.items() if not text.startswith("!")} == warned
    assert got == status
    assert end["ok"] is (status == 0)


@pytest.mark.parametrize("how", ["named", "listed", "records"])
def test_what_was_asked_for_by_name_is_not_waited_for_either(tree: Path, how: str) -> None:
    asked = ["pipe", "to-pipe", "to-device", "socket", "to-nothing", "to-itself", "gone", "wanted", "to-file"]
    if how == "named":
        status, hashed, said, _ = run(tree, *asked)
    elif how == "listed":
        status, hashed, said, _ = run(tree, "-0", text="\0".join(asked).encode())
    else:
        rows = "".join(json.dumps({"type": "file", "path": name}) + "\n" for name in asked)
        status, hashed, said, _ = run(tree, "--open-ended", text=rows.encode())
    assert status == 66
    assert hashed == {"wanted", "to-file"}
    assert {path for path, text in said.items() if text.startswith("!")} == {*NOTHING, "gone"}
    assert {path for path, text in said.items() if not text.startswith("!")} == SPECIAL


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tree: Path) -> None:
    row = {"type": "file", "path": "wanted", "size": 1, "mtime": 0}
    (tree / "wanted").unlink()
    os.mkfifo(tree / "wanted")
    _, hashed, said, _ = run(tree, "--open-ended", text=json.dumps(row).encode() + b"\n")
    assert not hashed and set(said) == {"wanted"}


@pytest.mark.parametrize(
    ("globs", "files"),
    [
        (["--exclude=to-*"], {"wanted", "d/in"}),
        (["--exclude=d"], {"wanted", "to-file"}),
        (["--exclude=*"], set()),
        (["--include=**/in"], {"d/in"}),
        (["--include=d/", "--exclude=**/i[a-m]"], {"d/in"}),
        (["--include=[!a-v]*"], {"wanted"}),
        (["--include=w?nted", "--include=d"], {"wanted", "d/in"}),
    ],
)
def test_globs_are_about_what_is_below_the_root(tree: Path, globs: list[str], files: set[str]) -> None:
    _, hashed, _, _ = run(tree, "--missing=skip", *globs, str(tree))
    assert hashed == files


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_what_may_not_be_read_fails(tree: Path) -> None:
    (tree / "wanted").chmod(0)
    (tree / "d").chmod(0)
    try:
        status, hashed, said, _ = run(tree, "--links=skip", ".")
    finally:
        (tree / "d").chmod(0o700)
    assert status == 77 and not hashed
    assert said["wanted"] == said["d"] == "!Permission denied"
