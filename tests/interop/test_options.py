"""Every option of the commands of the reference client is one of ours: each spelling, with or without a value."""

from __future__ import annotations

import json
import subprocess
from importlib import import_module
from pathlib import Path

from dl_tools import deadline
from dl_tools.deadline import grammar

# Lists all commands with their options: each spelling, and whether a value follows.
SCRIPT = """
import json
from deadline.client.cli import main
found = {}
for group, commands in main.commands.items():
    for name, command in getattr(commands, "commands", {}).items():
        found[f"{group} {name}"] = {
            spelling: not option.is_flag
            for option in command.params if hasattr(option, "is_flag")
            for spelling in (*option.opts, *option.secondary_opts)
        }
print(json.dumps(found))
"""
COMMANDS = {
    "manifest snapshot", "manifest diff", "manifest upload", "manifest download", "attachment upload",
    "attachment download", "job download-output", "job download-input", "queue sync-output",
}  # fmt: skip


def test_every_option_of_the_reference_is_ours(reference: str) -> None:
    python = Path(reference).parent / "python"
    done = subprocess.run([python, "-c", SCRIPT], capture_output=True, text=True, check=True)
    theirs: dict[str, dict[str, bool]] = json.loads(done.stdout)
    seen: set[str] = set()
    missing: set[str] = set()
    for group in deadline.GROUPS:
        for name, function in import_module(f"dl_tools.deadline.{group}").COMMANDS.items():
            command = f"{group} {name}"
            seen.add(command)
            ours = grammar.options_of(function.__doc__)
            for spelling, takes_value in theirs.get(command, {}).items():
                if spelling in ("-h", "--help"):
                    continue
                if spelling not in ours or ours[spelling].takes_value != takes_value:
                    missing.add(f"{command} {spelling}")
    assert seen >= COMMANDS and theirs.keys() >= COMMANDS
    assert missing <= {"bundle submit --save-debug-snapshot"}  # which takes a submission apart for support
