"""Runs commands of the reference client, each in a process of its own that is forked from one which has it loaded.

Half a second of each command is the import of it. Requests come as JSON lines on standard input, and the status of
each goes out as a line; what the command prints goes to the files that the request names. It runs in the
reference's own virtual environment and calls what its program file calls.
"""

import json
import os
import sys

from deadline.client.cli import main


def leaves(command, words):
    """The words of every command below a group."""
    import click

    if not isinstance(command, click.Group):
        yield " ".join(words)
        return
    for name in command.list_commands(None):
        yield from leaves(command.get_command(None, name), [*words, name])


def serve():
    print(json.dumps(sorted(leaves(main, []))), flush=True)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            for number, path in enumerate(request["files"]):
                opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                os.dup2(opened, number)
            os.chdir(request["folder"])
            sys.argv[0:] = ["deadline", *request["words"]]
            sys.stdin = open(0, closefd=False)  # noqa: SIM115, the other one has read ahead
            sys.exit(main())
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


serve()
