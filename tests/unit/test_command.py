"""The frame: arguments, statuses, signals, standard error. A small tool of the test's own runs in it."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from libdeadline.command import Run

TOOL = '''
"""dl-sample - a tool for the test

Usage:
  dl-sample [options] [--count=<n>] [--size=<bytes>] [--for=<time>] [--pick=<one>] [--] [<name>...]

Options:
  --count=<n>     Number.
  --size=<bytes>  Size.
  --for=<time>    Duration.
  --pick=<one>    One of a few.
  --fail=<how>    Fail in this way.
"""
import os, sys, time
from libdeadline import command
from libdeadline.errors import Trouble
from libdeadline.records import File

def stage(args, run):
    args.integer("--count", 1, 9), args.bytes("--size"), args.seconds("--for"), args.choice("--pick", ("RED", "BLUE"))
    how = args["--fail"]
    for name in args["<name>"]:
        yield File.of(path=name)
    if how == "trouble":
        raise Trouble("cannot do 'it': no reason", 69)
    if how == "bug":
        raise ValueError("odd\\nlines")
    if how == "missing":
        open("/nonexistent/x")
    if how == "later":
        run.fail(Trouble("one of many", 66, path="x"))
    if how == "answer":
        return 3
    if how == "loading":
        seen = []
        def hook(event, words):
            if event == "import" and (seen or words[0] == "orjson.orjson"):
                seen.append(words[0])
                if len(seen) == 5:
                    os.kill(os.getpid(), 15)
        sys.addaudithook(hook)
        yield File.of(path="x")
    if how == "wait":
        try:
            run.progress.update(done_count=1, total_count=2)
            while True:
                time.sleep(0.05)
                run.progress.update()
        finally:
            os.write(2, b"cleaned up\\n")
    if how == "flood":
        while True:
            yield File.of(path="x" * 100)
    if how == "read":
        yield from run.input(File)

raise SystemExit(command.run(__doc__, stage))
'''


@pytest.fixture
def tool(tmp_path: Path) -> list[str]:
    path = tmp_path / "sample.py"
    path.write_text(TOOL.lstrip())
    return [sys.executable, str(path)]


def run(tool: list[str], *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*tool, *words], capture_output=True, text=True, timeout=30, **options)


def test_a_good_run(tool: list[str]) -> None:
    done = run(tool, "a", "--", "--b")
    assert done.returncode == 0 and done.stderr == ""
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("path") for row in rows[:-1]] == ["a", "--b"]
    assert rows[-1] == {"type": "end", "tool": "dl-sample", "ok": True, "records": 2}


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("trouble", 69, "dl-sample: cannot do 'it': no reason"),
        ("bug", 70, "dl-sample: internal error: ValueError: odd lines; please report it"),
        ("missing", 66, "dl-sample: cannot use '/nonexistent/x': No such file or directory"),
        ("later", 66, "dl-sample: one of many"),
    ],
)
def test_a_failure_is_one_line_a_status_and_an_end_that_is_not_ok(
    tool: list[str], how: str, status: int, line: str
) -> None:
    done = run(tool, "--fail", how, "a")
    assert done.returncode == status
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(line)
    end = json.loads(done.stdout.splitlines()[-1])
    assert end["ok"] is False and end["status"] == status and end["records"] == 1


def test_an_answer_is_a_status_of_a_whole_stream(tool: list[str]) -> None:
    done = run(tool, "--fail=answer")
    assert done.returncode == 3
    assert json.loads(done.stdout)["ok"] is True


@pytest.mark.parametrize(
    "words",
    [
        ["--unknown"],
        ["--coun=3"],
        ["--count"],
        ["--count=x"],
        ["--count=10"],
        ["--size=-1"],
        ["--for=soon"],
        ["--pick=green"],
        ["--count=1", "--count=2"],
        ["--progress=loud"],
    ],
)
def test_wrong_usage_is_64_and_one_line(tool: list[str], words: list[str]) -> None:
    done = run(tool, *words)
    assert done.returncode == 64
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("dl-sample: ")


def test_debug_shows_a_traceback_and_nothing_else_does(tool: list[str]) -> None:
    assert "Traceback" in run(tool, "--fail=bug", "--log-level=debug").stderr
    assert "Traceback" not in run(tool, "--fail=bug", "--log-level=info").stderr


def test_errors_as_records(tool: list[str]) -> None:
    done = run(tool, "--progress=json", "--fail=later")
    assert json.loads(done.stderr) == {
        "type": "error", "tool": "dl-sample", "message": "one of many", "status": 66, "path": "x",
    }  # fmt: skip


def test_a_schema_that_is_not_ours_is_refused(tool: list[str]) -> None:
    assert run(tool, env={**os.environ, "DL_SCHEMA": "2"}).returncode == 64
    assert run(tool, env={**os.environ, "DL_SCHEMA": "1"}).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cleans_up_and_ends_the_stream(tool: list[str], number: int) -> None:
    with subprocess.Popen(
        [*tool, "--progress=json", "--fail=wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        assert json.loads(process.stderr.readline())["done_count"] == 1
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert json.loads(out)["ok"] is False
    assert b"cleaned up" in err


def test_a_signal_while_the_codec_loads_waits_until_it_is_there(tool: list[str]) -> None:
    """The codec's initialisation, interrupted by an exception, crashes the interpreter."""
    done = run(tool, "--fail=loading")
    assert done.returncode == 128 + signal.SIGTERM, done
    assert json.loads(done.stdout.splitlines()[-1])["ok"] is False
    assert done.stderr == "dl-sample: stopped by signal 15\n"


def test_a_closed_pipe_ends_it_quietly(tool: list[str]) -> None:
    script = 'set -o pipefail; "$@" --fail=flood | head -n 1 >/dev/null; echo ${PIPESTATUS[0]}'
    done = subprocess.run(["bash", "-c", script, "x", *tool], capture_output=True, text=True, timeout=30)
    assert done.stdout == "141\n" and done.stderr == ""


def test_a_full_disk_is_74(tool: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*tool, "a"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74
    assert done.stderr == "dl-sample: cannot write the output: No space left on device\n"


def test_a_terminal_as_input_is_refused(tool: list[str]) -> None:
    master, slave = pty.openpty()
    done = run(tool, "--fail=read", stdin=slave)
    os.close(master)
    os.close(slave)
    assert done.returncode == 64 and "nothing to read" in done.stderr


def test_a_terminal_gets_a_bar(tool: list[str]) -> None:
    master, slave = pty.openpty()
    with open(os.devnull, "w") as null, subprocess.Popen([*tool, "--fail=wait"], stdout=null, stderr=slave) as process:
        shown = b""
        while b"%" not in shown:
            shown += os.read(master, 1000)
        process.terminate()
    os.close(slave)
    os.close(master)
    assert b"dl-sample:" in shown and b"50 %" in shown


def test_a_line_for_people_holds_nothing_that_a_terminal_obeys(capfd: pytest.CaptureFixture[str]) -> None:
    Run("dl-x", "warning", "none").warn("'a\x1b[2Jb\rc\td\u202ee\x9b' and\nthe rest")
    assert capfd.readouterr().err == "dl-x: warning: 'a\\x1b[2Jb\\rc\\td\\u202ee\\x9b' and the rest\n"
