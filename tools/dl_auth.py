"""dl-auth - tell who is signed in to Deadline Cloud, sign in and out

Usage:
  dl-auth status [options]
  dl-auth login [options]
  dl-auth logout [options]

Options:
  --profile=<name>   AWS profile, instead of the one in the settings.
  --output=<format>  How status prints: verbose, for people, or json. Without
                     it, verbose on a terminal and json elsewhere.
  --timeout=<time>   How long login waits for the person, such as 10m; without
                     it, until they have signed in or given up.

Credentials of the Deadline Cloud monitor and of AWS console sign-in come and go
with the monitor, which login starts and logout tells. All other credentials are
managed where they come from.
"""

from __future__ import annotations

import os
import sys
from math import inf
from time import monotonic, sleep

from libdeadline import command, config, statuses
from libdeadline.errors import Trouble

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING:
    from subprocess import Popen
    from typing import IO

AUTHENTICATED, NEEDS_LOGIN, CONFIGURATION_ERROR = "AUTHENTICATED", "NEEDS_LOGIN", "CONFIGURATION_ERROR"
MONITOR, CONSOLE, NOT_VALID = "DEADLINE_CLOUD_MONITOR_LOGIN", "AWS_CONSOLE_LOGIN", "NOT_VALID"
POLL_S = 0.5
GRACE_S = 10.0  # after the monitor ended well, for its credentials to work
LABEL_COLUMNS = 17


def probed(settings: config.Config) -> tuple[str, str, Trouble | None]:
    """(source, status, what stood in the way): one listing of one farm decides."""
    from libdeadline import aws
    from libdeadline.aws import profiles

    profiles.forget()
    session = aws.Session(settings)
    try:
        source = session.credential_kind
    except Trouble as trouble:
        return NOT_VALID, CONFIGURATION_ERROR, trouble
    try:
        session.client("deadline").call("ListFarms", {"maxResults": 1})
    except Trouble as trouble:
        return source, NEEDS_LOGIN if source in (MONITOR, CONSOLE) else CONFIGURATION_ERROR, trouble
    return source, AUTHENTICATED, None


def tell_status(settings: config.Config, output: str | None) -> int:
    source, status, trouble = probed(settings)
    name = settings.get(config.PROFILE)
    available = status == AUTHENTICATED
    if output == "verbose" or (output is None and sys.stdout.isatty()):
        rows = [
            ("Profile Name", name),
            ("Source", source),
            ("Status", status),
            ("API Availability", str(available)),
        ]
        if trouble:
            rows.append(("Reason", trouble.message))
        for label, value in rows:
            print(f"{label + ':':>{LABEL_COLUMNS}} {value}")
    else:
        from json import dumps

        fields = {"profile_name": name, "source": source, "status": status, "api_availability": available}
        print(dumps({**fields, **({"reason": trouble.message} if trouble else {})}))
    return statuses.OK


def monitor_program(settings: config.Config) -> str:
    """The monitor's program file.

    Raises: Trouble (78) where the settings name none.
    """
    path = settings.file("deadline-cloud-monitor.path")
    if not path:
        raise Trouble(
            "the settings do not say where the Deadline Cloud monitor is: start the monitor once, or set "
            "'deadline-cloud-monitor.path' with dl-config",
            statuses.CONFIGURATION,
        )
    return path


def started(program: str, verb: str, profile: str, said: IO[bytes]) -> Popen[bytes]:
    """The monitor at work; it prints to a file, which nobody has to drain while it runs."""
    import subprocess

    try:
        return subprocess.Popen(
            [program, verb, "--profile", profile],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise Trouble(
            f"cannot start the Deadline Cloud monitor '{program}': {error.strerror}: correct the setting "
            "'deadline-cloud-monitor.path'",
            statuses.CONFIGURATION,
            path=program,
        ) from None


def words_in(said: IO[bytes]) -> str:
    """What a monitor that has ended printed."""
    said.seek(0)
    return said.read().decode("utf-8", "replace").strip()


def log_in(settings: config.Config, timeout_s: float | None) -> int:
    from tempfile import TemporaryFile

    source, trouble = source_of(settings)
    name = settings.get(config.PROFILE)
    kind = checked_kind(source, name, trouble, "sign in to")
    if source == CONSOLE:
        from importlib.util import find_spec

        if find_spec("awscrt") is None:
            raise Trouble(
                "console sign-in needs the package awscrt: install it with pip install 'botocore[crt]'",
                statuses.CONFIGURATION,
            )
    program = monitor_program(settings)
    print(f"Logging into AWS Profile '{name}' for AWS Deadline Cloud", flush=True)
    with TemporaryFile() as said:
        process, signed_in = None, False
        try:
            process = started(program, "login", name, said)
            print("The Deadline Cloud monitor opens now: sign in there, then come back.", flush=True)
            wait_for_sign_in(settings, process, said, timeout_s)
            signed_in = True
        finally:
            # A monitor that signed the person in stays open: it is their window now.
            if process is not None and not signed_in and process.poll() is None:
                process.kill()
                process.wait()
    print(f"\nSuccessfully logged in: {kind}: {name}\n")
    return statuses.OK


def wait_for_sign_in(settings: config.Config, process: Popen[bytes], said: IO[bytes], timeout_s: float | None) -> None:
    """Return once the credentials work.

    Raises: Trouble 75 after `timeout_s` seconds, 77 where the monitor failed, or ended and nothing came of it.
    """
    name = settings.get(config.PROFILE)
    end = inf if timeout_s is None else monotonic() + timeout_s
    ended_at: float | None = None
    while True:
        _, status, trouble = probed(settings)
        if status == AUTHENTICATED:
            return
        if ended_at is None and process.poll() is not None:
            if process.returncode:
                words = " ".join(words_in(said).split())
                raise Trouble(
                    f"Deadline Cloud monitor was not able to log into the {name} profile{': ' if words else ''}{words}",
                    statuses.NOT_ALLOWED,
                )
            ended_at = monotonic()
        if ended_at is not None and monotonic() > ended_at + GRACE_S:
            raise Trouble(
                f"the Deadline Cloud monitor ended, but the profile '{name}' still gives no access: "
                f"{trouble.message if trouble else 'no reason given'}",
                statuses.NOT_ALLOWED,
            )
        if monotonic() > end:
            raise Trouble(f"nobody signed in to the profile '{name}' within {timeout_s:g} s", statuses.TRY_AGAIN)
        sleep(POLL_S)


def source_of(settings: config.Config) -> tuple[str, Trouble | None]:
    """Where credentials come from, by the look of the profile, or what is wrong with it."""
    from libdeadline import aws

    try:
        return aws.Session(settings).credential_kind, None
    except Trouble as trouble:
        return NOT_VALID, trouble


def checked_kind(source: str, name: str, trouble: Trouble | None, doing: str) -> str:
    """What kind of profile it is, for a person.

    Raises: Trouble (78) for kinds that nobody signs in to here.
    """
    if trouble:
        raise trouble
    if source == MONITOR:
        return "Deadline Cloud monitor profile"
    if source == CONSOLE:
        return "AWS Console sign-in profile"
    raise Trouble(
        f"there is nothing to {doing} with the profile '{name}': only profiles of the Deadline Cloud monitor and of "
        "AWS console sign-in are signed in and out here",
        statuses.CONFIGURATION,
    )


def log_out(settings: config.Config, run: command.Run) -> int:
    source, trouble = source_of(settings)
    name = settings.get(config.PROFILE)
    checked_kind(source, name, trouble, "sign out of")
    if source == MONITOR:
        print(ended(monitor_program(settings), name) or "Successfully logged out")
        return statuses.OK
    forget_console_token(settings)
    try:
        ended(monitor_program(settings), name)
    except Trouble as failed:
        run.debug(f"the monitor was not told: {failed.message}")
    print(f"Successfully logged out of AWS Console sign-in profile: {name}")
    return statuses.OK


def ended(program: str, name: str) -> str:
    """What the monitor said when it signed a profile out."""
    from tempfile import TemporaryFile

    with TemporaryFile() as said:
        process = started(program, "logout", name, said)
        try:
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        words = words_in(said)
    if status:
        one_line = " ".join(words.split())
        raise Trouble(
            f"the Deadline Cloud monitor could not log the profile '{name}' out (status {status})"
            f"{': ' if words else ''}{one_line}",
            statuses.NOT_ALLOWED,
        )
    return words


def forget_console_token(settings: config.Config) -> None:
    """Delete the token that console sign-in left; that there is none is fine.

    Source: botocore, LoginTokenLoader: the file is named after the SHA-256 of the session's name.
    """
    from hashlib import sha256

    from libdeadline import aws
    from libdeadline.errors import os_trouble

    session = aws.Session(settings)
    login_session = session.profiles.config(session.profile_name)["login_session"]
    folder = os.environ.get("AWS_LOGIN_CACHE_DIRECTORY")
    folder = os.path.expandvars(folder) if folder else os.path.join("~", ".aws", "login", "cache")
    path = os.path.join(os.path.expanduser(folder), f"{sha256(login_session.encode()).hexdigest()}.json")
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise os_trouble(error, "delete") from None


def signed(args: command.Arguments, run: command.Run) -> int:
    settings = config.read().with_values({config.PROFILE: args["--profile"]})
    if args["status"]:
        return tell_status(settings, args.choice("--output", ("verbose", "json")))
    if args["login"]:
        return log_in(settings, args.seconds("--timeout"))
    return log_out(settings, run)


def main() -> int:
    return command.call(__doc__, signed)
