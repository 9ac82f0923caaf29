"""Commands of the group auth."""

from libdeadline.command import Arguments

from .options import given, output_form
from .pipeline import Shell


def login(options: Arguments, shell: Shell) -> int:
    """deadline auth login - sign in with the Deadline Cloud monitor

    Usage: deadline auth login
    """
    return shell.become("dl-auth", "login")


def logout(options: Arguments, shell: Shell) -> int:
    """deadline auth logout - sign out again

    Usage: deadline auth logout
    """
    return shell.become("dl-auth", "logout")


def status(options: Arguments, shell: Shell) -> int:
    """deadline auth status - tell who is signed in, and whether Deadline Cloud answers

    Usage: deadline auth status [options]

    Options:
      --profile=<name>  AWS profile to look at.
      --output=<form>   verbose or json; else verbose on a terminal.
    """
    return shell.become("dl-auth", "status", *given(options, "--profile"), f"--output={output_form(options)}")


COMMANDS = {"login": login, "logout": logout, "status": status}
