"""Runs the transcripts of tests/pipelines, and offers the farm that tests share.

A transcript holds prose at column 0, commands as `  $ `, their continuation as `  > `, and below them,
indented by two spaces, what they print on standard output and `[status]` where that is not 0.
A line that ends in ` (re)` or ` (glob)` is a pattern. `needs: farm` on the first line asks for the farm.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMANDS = Path(sys.executable).parent
MARK = "--- next command ---"


def command_environment(home: Path) -> dict[str, str]:
    """An environment with our commands first on PATH, a home of its own and nothing of the person's AWS settings."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DEADLINE_", "DL_", "XDG_"))
    }
    return {
        **kept,
        "HOME": str(home),
        "PATH": f"{COMMANDS}:{os.environ['PATH']}",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "AWS_EC2_METADATA_DISABLED": "true",
        "DEADLINE_CLOUD_TELEMETRY_OPT_OUT": "true",
    }


class SharedFarm:
    """A real farm on this machine: its folder, and the environment that points any AWS program at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.dir = folder / "farm"
        base = command_environment(self.home)
        up = ["dl-farm", "up", "--dir", str(self.dir), "--workers", "2"]
        done = subprocess.run(up, env=base, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"dl-farm up: status {done.returncode}\n{done.stdout}\n{done.stderr}")
        exports = subprocess.run(
            ["dl-farm", "env", "--dir", str(self.dir)], env=base, capture_output=True, text=True, check=True
        ).stdout
        printed = subprocess.run(
            ["bash", "-c", f"{exports}\nenv -0"], env=base, capture_output=True, text=True, check=True
        ).stdout
        self.environment = dict(item.split("=", 1) for item in printed.split("\0") if "=" in item)

        self.settings = Path(self.environment["DEADLINE_CONFIG_FILE_PATH"]).read_bytes()

    def run(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        """A command with the farm's environment, its output captured as text."""
        return subprocess.run(words, **{"env": self.environment, "capture_output": True, "text": True, **options})

    def down(self) -> None:
        base = command_environment(self.home)
        subprocess.run(["dl-farm", "down", "--dir", str(self.dir)], env=base, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def farm() -> Iterator[SharedFarm]:
    """A farm of the test file's own: tests leave queues, workers and settings behind that others would trip over."""
    folder = Path(tempfile.mkdtemp(prefix="dl-test-"))
    try:
        own = SharedFarm(folder)
        yield own
        own.down()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    shared = getattr(session, "_dl_farm", None)
    if shared is not None:
        shared.down()
        shutil.rmtree(shared.folder, ignore_errors=True)


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    if file_path.suffix == ".t" and file_path.parent.name == "pipelines":
        return TranscriptFile.from_parent(parent, path=file_path)
    return None


class TranscriptFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        yield Transcript.from_parent(self, name=self.path.stem)


class Differs(Exception):
    pass


class Transcript(pytest.Item):
    """One transcript: run in one shell, compared whole."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.text = self.path.read_text()
        self.needs_farm = self.text.startswith("needs: farm\n")

    def runtest(self) -> None:
        with tempfile.TemporaryDirectory(prefix="dl-t-") as folder:
            home = Path(folder)
            environment = command_environment(home)
            if self.needs_farm:
                shared = _farm_of(self.session)
                (home / ".farm-settings").write_bytes(shared.settings)
                environment = {
                    **shared.environment,
                    "HOME": str(home),
                    "DEADLINE_CONFIG_FILE_PATH": str(home / ".farm-settings"),
                }
            lines = self.text.splitlines()
            commands = _steps(lines)
            script = "\n".join(
                f"{command}\n{{ __s=$?; }} 2>/dev/null; printf '%s %s\\n' {shlex.quote(MARK)} $__s"
                for command, _ in commands
            )
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=300,
            )
            seen = _blocks(done.stdout.decode("utf-8", "backslashreplace"))
            wanted_lines: list[str] = []
            seen_lines: list[str] = []
            for index, (command, wanted) in enumerate(commands):
                got = seen[index] if index < len(seen) else ["(the shell ended before this command)"]
                wanted_lines += [f"$ {command}", *wanted]
                seen_lines += [f"$ {command}", *_aligned(wanted, got)]
            if wanted_lines != seen_lines:
                diff = "\n".join(difflib.unified_diff(wanted_lines, seen_lines, "wanted", "seen", lineterm="", n=6))
                errors = done.stderr.decode("utf-8", "replace")[-3000:]
                raise Differs(f"{diff}\n\nstandard error:\n{errors}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        if isinstance(excinfo.value, Differs):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


def _farm_of(session: pytest.Session) -> SharedFarm:
    """The farm that the transcripts of this run share: started on first use, ended with the run."""
    shared = getattr(session, "_dl_farm", None)
    if shared is None:
        folder = Path(tempfile.mkdtemp(prefix="dl-test-"))
        shared = session._dl_farm = SharedFarm(folder)  # type: ignore[attr-defined]
    return shared


def _steps(lines: list[str]) -> list[tuple[str, list[str]]]:
    steps: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("  $ "):
            steps.append((line[4:], []))
        elif line.startswith("  > ") and steps and not steps[-1][1]:
            steps[-1] = (f"{steps[-1][0]}\n{line[4:]}", [])
        elif line.startswith("  ") and steps:
            steps[-1][1].append(line[2:])
    return steps


def _blocks(text: str) -> list[list[str]]:
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        head, mark, status = line.rpartition(f"{MARK} ")
        if mark and status.isdigit():
            if head:
                blocks[-1].append(f"{head} (no-eol)")
            if status != "0":
                blocks[-1].append(f"[{status}]")
            blocks.append([])
        else:
            blocks[-1].append(line)
    return blocks[:-1]


def _aligned(wanted: list[str], got: list[str]) -> list[str]:
    """`got`, with each line that a pattern of `wanted` matches replaced by that pattern."""
    if len(wanted) != len(got):
        return got
    return [pattern if _line_matches(pattern, line) else line for pattern, line in zip(wanted, got, strict=True)]


def _line_matches(pattern: str, line: str) -> bool:
    if pattern.endswith(" (re)"):
        return re.fullmatch(pattern[:-5], line) is not None
    if pattern.endswith(" (glob)"):
        return fnmatch.fnmatchcase(line, pattern[:-7].replace("[", "[[]"))
    return pattern == line


@pytest.fixture
def odd_names() -> list[str]:
    """File names that something on the way could stumble over."""
    return [
        "n" * 255, "new\nline", "tab\tb", 'q"uo\'te', "back\\slash", "a\r", "\x01\x1b[2J", "\x7f", "trail.", "trail ",
        " ", "...", "..x", ".hidden", "-rf", "--", "-", "*", "**", "?", "[a]", "a*b", "{x}", "$HOME", "`id`", "~",
        "#", "%41", "+", "&amp;", "<x>", "con", "NUL", "COM1.txt", "a:b", "C:", "\u00e9", "e\u0301", "\U0001f600",
        "\U0001f469\u200d\U0001f680", "\u2028", "\ufeffbom", "\uffff", "\ue000",
    ]  # fmt: skip
