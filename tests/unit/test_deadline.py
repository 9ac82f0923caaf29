"""The wrapper: how words are parsed, how stages run, and what their statuses and messages become."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from dl_tools import deadline
from dl_tools.deadline import grammar, pipeline

from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble

USAGE = """deadline test do - do it

Usage: deadline test do [options] <what> [<how>]

Options:
  -p, --parameter=<name=value>...  Given
                                   often.
  --size=<n>                       How many
                                   [default: 5].
  --yes                            Agree.

Words after.
"""


def test_options_and_arguments() -> None:
    args = grammar.parse(USAGE, ["-p", "A=1", "x", "--parameter=B= 2", "-pC=", "--yes", "--size", "7", "--", "--y"])
    assert args == {
        "--parameter": ["A=1", "B= 2", "C="], "--size": "7", "--yes": True, "<what>": "x", "<how>": "--y",
    }  # fmt: skip
    assert grammar.parse(USAGE, ["x"]) == {
        "--parameter": [], "--size": "5", "--yes": False, "<what>": "x", "<how>": None,
    }  # fmt: skip
    assert grammar.parse(USAGE, ["x", "--help", "--nonsense"]) is None


def test_an_option_of_two_letters_is_not_one_of_one_letter() -> None:
    usage = "t - t\n\nUsage: t [options]\n\nOptions:\n  -i, --in=<x>...  In.\n  -ie, --both=<x>...  Both.\n"
    args = grammar.parse(usage, ["-ie", "1", "-ie=2", "-ix", "-i", "e"])
    assert args == {"--in": ["x", "e"], "--both": ["1", "2"]}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "<what> is missing"),
        (["a", "b", "c"], "unexpected argument 'c'"),
        (["a", "--siz=1"], "unknown option '--siz'"),
        (["a", "-z"], "unknown option '-z'"),
        (["a", "--size"], "--size needs a value"),
        (["a", "--yes=1"], "--yes takes no value"),
    ],
)
def test_wrong_words(words: list[str], told: str) -> None:
    with pytest.raises(Trouble, match=told) as caught:
        grammar.parse(USAGE, words)
    assert caught.value.status == 64


def test_root_options_end_at_the_group() -> None:
    args = grammar.root(deadline.__doc__ or "", ["-x", "--log-level", "debug", "job", "-n", "--help"])
    assert args["words"] == ["job", "-n", "--help"]
    assert args["-x"] and not args["-n"] and args["--log-level"] == "debug"


def commands() -> list[tuple[str, str]]:
    return [(group, name) for group in deadline.GROUPS for name in import_module(f"dl_tools.deadline.{group}").COMMANDS]


@pytest.mark.parametrize(("group", "name"), commands())
def test_every_command_has_help_and_a_place_in_the_page(group: str, name: str) -> None:
    done = run_deadline(group, name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"deadline {group} {name} - ")
    page = (Path(__file__).parents[2] / "man" / "man1" / "deadline.1").read_text()
    section = page.partition(f'.Ss "deadline {group} {name}"\n')[2].partition("\n.S")[0]
    assert section
    function = import_module(f"dl_tools.deadline.{group}").COMMANDS[name]
    for option in grammar.options_of(function.__doc__).values():
        assert f"Fl {option.name[1:]}" in section, option.name


@pytest.mark.parametrize("words", [[], ["job"], ["nothing"], ["job", "nothing"], ["farm", "list", "--nothing"]])
def test_wrong_commands_are_status_64_on_standard_error(words: list[str]) -> None:
    done = run_deadline(*words)
    assert done.returncode == 64
    assert done.stdout == ""
    assert done.stderr


def run_deadline(*words: str) -> subprocess.CompletedProcess[str]:
    launcher = Path(__file__).parents[2] / "bin" / "deadline"
    return subprocess.run([sys.executable, launcher, *words], capture_output=True, text=True)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pipeline.Shell:
    """A wrapper whose tools are small scripts: t-say, t-fail, t-die, t-pass."""
    scripts = {
        "t-say": "i=0; while [ $i -lt ${1:-3} ]; do echo line $i; i=$((i+1)); done",
        "t-fail": 'cat >/dev/null; echo \'{"type":"error","tool":"t-fail","message":"it broke",'
        '"status":77}\' >&2; exit 77',
        "t-late": 'cat >/dev/null; echo \'{"type":"error","tool":"t-late","message":'
        '"the stream is not whole: x","status":65}\' >&2; exit 65',
        "t-die": "kill -9 $$",
        "t-pass": "cat",
        "t-answer": "cat; exit 3",
        "t-head": "head -n 1",
        "t-warn": 'cat; echo \'{"type":"error","tool":"t-warn","message":"look"}\' >&2',
    }
    for name, text in scripts.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "deadline")])
    args = Arguments({"-x": False, "-n": False, "--log-level": None, "--progress": None})
    return pipeline.Shell(args, Run("deadline", "warning", "none"))


def test_a_pipeline_passes_what_its_stages_say(shell: pipeline.Shell, capfd: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["t-say"], ["t-pass"], ["t-warn"]) == 0
    out, err = capfd.readouterr()
    assert out == "line 0\nline 1\nline 2\n"
    assert err == "t-warn: warning: look\n"


@pytest.mark.parametrize(
    ("stages", "status", "told"),
    [
        (["t-say", "t-fail", "t-late"], 77, "t-fail: it broke\n"),
        (["t-fail", "t-late", "t-late"], 77, "t-fail: it broke\n"),
        (["t-say", "t-die", "t-late"], 137, "deadline: t-die was ended by signal 9\n"),
        (["t-die", "t-late"], 137, "deadline: t-die was ended by signal 9\n"),
        (["t-say", "t-late"], 65, "t-late: the stream is not whole: x\n"),
        (["t-say", "t-answer", "t-pass"], 3, ""),
    ],
)
def test_the_first_cause_is_the_status_and_is_told_alone(
    shell: pipeline.Shell, capfd: pytest.CaptureFixture[str], stages: list[str], status: int, told: str
) -> None:
    assert shell.run(*([stage] for stage in stages)) == status
    assert capfd.readouterr().err == told


def test_progress_as_json_passes_records_and_leaves_out_what_follows(
    shell: pipeline.Shell, capfd: pytest.CaptureFixture[str]
) -> None:
    shell.mode = "json"
    assert shell.run(["t-say"], ["t-warn"], ["t-fail"], ["t-late"]) == 77
    rows = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(row["tool"], row.get("status")) for row in rows] == [("t-warn", None), ("t-fail", 77)]
    assert shell.run(["t-die"], ["t-late"]) == 137
    assert json.loads(capfd.readouterr().err)["message"] == "t-die was ended by signal 9"


def test_a_stage_whose_reader_left_is_no_cause(shell: pipeline.Shell, capfd: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["t-say", "100000"], ["t-head"]) == 0
    assert capfd.readouterr().out == "line 0\n"


def test_reading_gives_status_and_output(shell: pipeline.Shell) -> None:
    assert shell.read(["t-say", "1"], ["t-answer"]) == (3, b"line 0\n")
    # More than a pipe holds must not block it.
    status, output = shell.read(["t-say", "30000"])
    assert (status, output.count(b"\n")) == (0, 30000)


def test_a_missing_tool_starts_nothing(shell: pipeline.Shell) -> None:
    with pytest.raises(Trouble, match="'t-none' is not installed"):
        shell.run(["t-say"], ["t-none"])


def test_what_is_printed_is_quoted(shell: pipeline.Shell, capfd: pytest.CaptureFixture[str]) -> None:
    shell.dry = True
    assert shell.run(["t-say", "a b", "$c", "d'e"], ["t-pass"], asks=True) == 0
    assert capfd.readouterr().out == "{ t-say 'a b' '$c' 'd'\"'\"'e' | t-pass; } 3<&0\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_stages(tmp_path: Path, number: int) -> None:
    """The stages get the signal, have time to clean up, and none is left behind."""
    stage = tmp_path / "t-sleep"
    stage.write_text(
        f"#!{sys.executable}\nimport os, signal, sys, time\n"
        "def stop(number, frame):\n    open(sys.argv[1] + '.stopped', 'w').close()\n    os._exit(128 + number)\n"
        "signal.signal(signal.SIGTERM, stop)\nsignal.signal(signal.SIGINT, stop)\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    stage.chmod(0o755)
    program = (
        "import sys; from libdeadline import command; from dl_tools.deadline import pipeline, grammar\n"
        f"sys.argv[0] = {str(tmp_path / 'deadline')!r}\n"
        "def main(args, run):\n"
        f"    stages = [['t-sleep', each] for each in {[str(tmp_path / name) for name in 'ab']}]\n"
        "    return pipeline.Shell(args, run).run(*stages)\n"
        "doc = 'deadline - x\\n\\nUsage:\\n  deadline [options]\\n\\nOptions:\\n  -x  A.\\n  -n  B.\\n'\n"
        "raise SystemExit(command.call(doc, main, [], parser=grammar.root))\n"
    )
    # A session of its own has no terminal, as under a service or a window.
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stderr=subprocess.PIPE)
    pids = [int(wait_for(tmp_path / name)) for name in "ab"]
    process.send_signal(number)
    assert process.wait(15) == 128 + number
    assert b"stopped by signal" in process.stderr.read()
    assert (tmp_path / "a.stopped").exists() and (tmp_path / "b.stopped").exists()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def wait_for(path: Path) -> str:
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")
