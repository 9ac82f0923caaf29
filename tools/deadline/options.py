"""Options that many commands share, handed on to the tools."""

import os

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

REACH = ("--profile", "--region", "--farm-id", "--queue-id", "--storage-profile-id")


def given(options: Arguments, *names: str) -> list[str]:
    """The options of these names that were given, as the tools take them."""
    words = []
    for name in names:
        value = options.get(name)
        if value is True:
            words.append(name)
        elif isinstance(value, list):
            words += [f"{name}={each}" for each in value]
        elif value:
            words.append(f"{name}={value}")
    return words


def reach(options: Arguments) -> list[str]:
    """The options that say which farm and queue, and as whom."""
    return given(options, *REACH)


def output_form(options: Arguments) -> str:
    """--output as it was given, else verbose on a terminal and json elsewhere."""
    form = options.choice("--output", ("verbose", "json"))
    return form or ("verbose" if os.isatty(1) else "json")


def job_of(options: Arguments) -> str:
    """The job that --job-id or the settings name.

    Raises: Trouble (64).
    """
    from libdeadline import targets

    job_id = options.get("--job-id") or targets.config_of(options).get("defaults.job_id")
    if not job_id:
        raise Trouble(
            "which job? give --job-id, or set the default with deadline config set defaults.job_id", statuses.USAGE
        )
    return str(job_id)


def accepts_all(options: Arguments) -> bool:
    """Whether every question is to be answered with yes."""
    from libdeadline import targets

    return bool(options.get("--yes")) or targets.config_of(options).boolean("settings.auto_accept")
