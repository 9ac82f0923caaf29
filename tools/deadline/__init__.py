"""deadline - AWS Deadline Cloud, as a front for the dl tools

Usage:
  deadline [options] <group> <command> [<argument>...]

Options:
  -x                        Print the pipeline on standard error, then run it.
  -n                        Print the pipeline on standard output, and run
                            nothing.
  --redirect-output=<file>  Send standard output and standard error there.
  --redirect-mode=<mode>    append to that file or replace it
                            [default: append].
"""

from __future__ import annotations

from libdeadline import command, statuses
from libdeadline.errors import Trouble

from . import grammar

# What each group is for. Its module is imported only when it is asked for.
GROUPS = {
    "attachment": "Upload and download the files of manifests.",
    "auth": "Sign in and out, and see who you are.",
    "bundle": "Submit job bundles.",
    "config": "See and change the settings of this workstation.",
    "farm": "Look at farms.",
    "fleet": "Look at fleets.",
    "job": "Look at jobs, wait for them, cancel them; get their logs and their output.",
    "manifest": "Make manifests of folders, compare them, upload and download them.",
    "queue": "Look at queues, and take their roles.",
    "worker": "Look at workers.",
}


def dispatch(args: command.Arguments, run: command.Run) -> int:
    """Run the command that the words name, and return its status."""
    words: list[str] = args["words"]
    if args["--redirect-output"]:
        _redirect(args["--redirect-output"], args.choice("--redirect-mode", ("append", "replace")) or "append")
    if not words:
        return _tell(command.usage(__doc__ or "") + "\n" + _list("Groups", GROUPS))
    group = words[0]
    if group not in GROUPS:
        raise Trouble(f"there is no command '{group}' (see deadline --help)", statuses.USAGE)
    from importlib import import_module

    commands = import_module(f".{group}", __name__).COMMANDS
    name = words[1] if len(words) > 1 else ""
    if name in ("", "-h", "--help"):
        listed = {each: _summary(function) for each, function in commands.items()}
        text = f"deadline {group} - {GROUPS[group]}\n\n{_list('Commands', listed)}"
        return _help(text) if name else _tell(text)
    if name not in commands:
        raise Trouble(f"there is no command '{group} {name}' (see deadline {group} --help)", statuses.USAGE)
    function = commands[name]
    text = _unindented(function.__doc__)
    options = grammar.parse(text, words[2:])
    if options is None:
        return _help(text)
    import os

    from .pipeline import Shell

    os.environ["DL_CLI_COMMAND"] = f"deadline.{group}.{name}"

    status: int = function(options, Shell(args, run))
    return status


def _redirect(path: str, mode: str) -> None:
    import os

    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if mode == "append" else os.O_TRUNC)
    descriptor = os.open(path, flags, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _unindented(text: str) -> str:
    # Python takes the indentation off a docstring only from 3.13 on.
    first, _, rest = text.partition("\n")
    return "\n".join([first, *(line.removeprefix("    ") for line in rest.split("\n"))]).rstrip() + "\n"


def _summary(function: object) -> str:
    return str(function.__doc__).partition("\n")[0].partition(" - ")[2]


def _list(title: str, entries: dict[str, str]) -> str:
    width = max(map(len, entries))
    return f"{title}:\n" + "".join(f"  {name.ljust(width)}  {told}\n" for name, told in entries.items())


def _help(text: str) -> int:
    import sys

    sys.stdout.write(text)
    return statuses.OK


def _tell(text: str) -> int:
    # A group without a command is a command typed wrongly: nothing for a script to read.
    import sys

    sys.stderr.write(text)
    return statuses.USAGE


def main() -> int:
    """Run the command that the arguments name. Returns its status."""
    return command.call(__doc__ or "", dispatch, parser=grammar.root)
