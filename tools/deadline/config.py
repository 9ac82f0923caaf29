"""Commands of the group config."""

from libdeadline.command import Arguments

from .options import output_form
from .pipeline import Shell


def show(options: Arguments, shell: Shell) -> int:
    """deadline config show - print all settings and their values

    Usage: deadline config show [options]

    Options:
      --output=<form>  verbose or json; else verbose on a terminal.
    """
    return shell.become("dl-config", "show", f"--output={output_form(options)}")


def get(options: Arguments, shell: Shell) -> int:
    """deadline config get - print the value of a setting

    Usage: deadline config get <setting-name>
    """
    return shell.become("dl-config", "get", "--", options["<setting-name>"])


def set_value(options: Arguments, shell: Shell) -> int:
    """deadline config set - set a setting

    Usage: deadline config set <setting-name> <value>
    """
    return shell.become("dl-config", "set", "--", options["<setting-name>"], options["<value>"])


def clear(options: Arguments, shell: Shell) -> int:
    """deadline config clear - set a setting back to its default

    Usage: deadline config clear <setting-name>
    """
    return shell.become("dl-config", "clear", "--", options["<setting-name>"])


COMMANDS = {"show": show, "get": get, "set": set_value, "clear": clear}
