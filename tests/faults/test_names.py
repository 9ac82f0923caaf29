"""Names and paths of every kind, there and back: byte for byte, or said which can't."""

from __future__ import annotations

import os
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from fake_s3 import Bucket, records
from transfer_shell import Shell

URI = "--s3-root-uri=s3://bench/p"


def dig(folder: Path, depth: int) -> None:
    """A file in each of so many nested folders: the last are beyond what one call takes."""
    descriptor = os.open(folder, os.O_RDONLY)
    for number in range(depth):
        name = chr(97 + number % 26) * 200
        os.mkdir(name, dir_fd=descriptor)
        following = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = following
        file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
        os.write(file, f"deep {number}".encode())
        os.close(file)
    os.close(descriptor)


def contents(folder: Path) -> dict[bytes, bytes]:
    """Relative path to content, of all files, by a program that knows no limit to paths."""
    script = "find . -type f -printf '%P\\0' -execdir cat {} \\; -printf '\\0'"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, check=True)
    words = done.stdout.split(b"\0")[:-1]
    return dict(zip(words[::2], words[1::2], strict=True))


@pytest.fixture
def source(tmp_path: Path, odd_names: list[str]) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    for number, name in enumerate(odd_names):
        (made / name).write_text(str(number))
        (made / "in" / (name if len(name) < 200 else "n")).mkdir(parents=True)
        (made / "in" / (name if len(name) < 200 else "n") / "-x").write_text(f"in {number}")
    return made


def test_there_and_back(one_bucket: Bucket, shell: Shell, source: Path, tmp_path: Path) -> None:
    dig(source, 30)
    before = contents(source)
    assert max(map(len, before)) > 6000
    hashed = shell.run(one_bucket, "dl-hash", str(source))
    assert hashed.returncode == 0, hashed.stderr
    described = shell.run(one_bucket, "dl-manifest", f"--to={tmp_path / 'm'}", text=hashed.stdout)
    assert described.returncode == 0, described.stderr
    stored = shell.run(one_bucket, "dl-upload", URI, "--manifest-prefix=x", text=described.stdout)
    assert stored.returncode == 0, stored.stderr
    (path,) = (row["manifest_path"] for row in records(stored.stdout) if row["type"] == "manifest")
    same = shell.run(one_bucket, "dl-diff", str(tmp_path / "m" / path.removeprefix("x/")), str(source))
    assert same.returncode == 0, same.stdout
    target = tmp_path / "target"
    back = shell.run(one_bucket, "dl-download", URI, f"--manifest={path}", f"--to={target}")
    assert back.returncode == 0, back.stderr
    assert contents(target) == before
    for folder in (source, target):
        subprocess.run(["rm", "-rf", folder], check=True)  # which shutil can't


def test_of_a_changed_file_out_of_reach_of_one_call_is_told(one_bucket: Bucket, shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    dig(source, 25)
    hashed = shell.run(one_bucket, "dl-hash", str(source))
    last = next(row for row in records(hashed.stdout) if row["type"] == "file" and len(row["path"]) > 5000)
    script = f"cd {'/'.join(['a' * 200, 'b' * 200])}" + "".join(
        f" && cd {chr(97 + number) * 200}" for number in range(2, last["path"].count("/"))
    )
    subprocess.run(["bash", "-c", f"{script} && printf else! >file"], cwd=source, check=True)
    stored = shell.run(one_bucket, "dl-upload", URI, text=hashed.stdout)
    assert stored.returncode == 75
    assert records(stored.stdout)[-1]["failed"] == 1
    subprocess.run(["rm", "-rf", source], check=True)


@pytest.mark.parametrize("listed", [False, True], ids=["walked", "listed"])
def test_names_that_are_no_utf8_are_told_exactly(
    one_bucket: Bucket, shell: Shell, tmp_path: Path, listed: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good").write_text("good")
    os.mkdir(os.fsencode(source) + b"/di\xfer")
    bad = {b"b\xffd", b"di\xfer" if not listed else b"di\xfer/in"}
    for path in (b"b\xffd", b"di\xfer/in"):
        with open(os.path.join(os.fsencode(source), path), "w") as file:
            file.write("bad")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        if not listed:
            return shell.run(one_bucket, "dl-hash", *words, str(source))
        script = 'cd "$0" && find . -type f -print0 | dl-hash -0 "$@"'
        return shell.run(one_bucket, "bash", "-c", script, str(source), *words)

    done = run("--progress=json")
    assert done.returncode == 65
    errors = [row for row in records(done.stderr) if row["type"] == "error"]
    assert {b64decode(row["path_b64"]) for row in errors} == bad
    assert all("\ufffd" in row["path"] for row in errors)
    rows = records(done.stdout)
    assert rows[-1]["ok"] is False and rows[-1]["left_out"] == 2
    assert [row["path"] for row in rows if row["type"] == "file"] == ["good"]
    assert shell.run(one_bucket, "dl-manifest", text=done.stdout).returncode == 65
    # Whoever chose to leave them out gets the rest.
    for how, lines in (("skip", 0), ("warn", 2)):
        chosen = run(f"--undecodable={how}")
        assert chosen.returncode == 0
        assert records(chosen.stdout)[-1]["ok"] is True
        assert len(chosen.stderr.splitlines()) == lines
        assert chosen.stderr.count("\\xff") == lines // 2
