"""dl-config - show and change the settings

Usage:
  dl-config show [options]
  dl-config get [options] [--] <name>
  dl-config set [options] [--] <name> <value>
  dl-config clear [options] [--] <name>

Options:
  --output=<format>  How show prints: verbose, for people, or json. Without it,
                     verbose on a terminal and json elsewhere.

The settings are those of the reference client, in the same file; dl-config show
explains each. Settings such as the queue are kept for each profile and farm:
set those first. A value of '' is allowed for every setting.
"""

from __future__ import annotations

import os
import sys

from libdeadline import command, config

WIDTH = 77  # columns of a description
INDENT = "   "


def verbose(settings: config.Config) -> str:
    """All settings for a person."""
    from textwrap import fill

    lines = ["AWS Deadline Cloud configuration file:", f"{INDENT}{settings.path}", ""]
    for name, setting in config.SETTINGS.items():
        value = settings.get(name)
        lines.append(f"{name}: {value} {'(default)' if value == settings.default(name) else ''}")
        lines.append(fill(setting.description, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT))
        lines.append("")
    return "\n".join(lines)


def as_json(settings: config.Config) -> str:
    """All settings as one JSON object on one line; every value is a string."""
    from json import dumps

    rows = {"settings.config_file_path": os.path.abspath(settings.path)}
    return dumps({**rows, **{name: settings.get(name) for name in config.SETTINGS}})


def settings_shown_or_changed(args: command.Arguments, run: command.Run) -> int:
    if args["show"]:
        output = args.choice("--output", ("verbose", "json"))
        settings = config.read()
        if output == "verbose" or (output is None and sys.stdout.isatty()):
            print(verbose(settings))
        else:
            print(as_json(settings))
    elif args["get"]:
        print(config.read().get(args["<name>"]))
    elif args["set"]:
        config.write(args["<name>"], args["<value>"])
    else:
        config.clear(args["<name>"])
    return 0


def main() -> int:
    return command.call(__doc__, settings_shown_or_changed)
