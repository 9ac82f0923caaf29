"""Who we are: AWS credentials, got natively where that is quick, by boto3 where it isn't.

Natively: the environment, keys in the shared files, `credential_process`, a file that another process keeps fresh,
and any function that fetches some. Sign-in, assumed roles, web identity, containers, instance metadata: boto3.
Source: botocore's order of providers; client specification, session cache and credential source.
"""

from __future__ import annotations

import os
from threading import Lock
from time import time

from .. import statuses
from ..errors import Trouble

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .profiles import Profiles

    Provider = Callable[[], "Credentials"]

ADVISORY_S, MANDATORY_S = 300.0, 150.0  # before the end of their life: try to refresh; refuse to go on with the old
MONITOR, CONSOLE, HOST = "DEADLINE_CLOUD_MONITOR_LOGIN", "AWS_CONSOLE_LOGIN", "HOST_PROVIDED"


class Credentials:
    """Keys to sign with. `expires` is in seconds since the epoch; None: they don't."""

    __slots__ = ("access_key_id", "account_id", "expires", "secret_access_key", "session_token")

    def __init__(
        self,
        access_key_id: str,
        secret_access_key: str,
        session_token: str | None = None,
        expires: float | None = None,
        account_id: str | None = None,
    ) -> None:
        self.access_key_id, self.secret_access_key, self.session_token = access_key_id, secret_access_key, session_token
        self.expires, self.account_id = expires, account_id

    def __repr__(self) -> str:
        return f"<credentials {self.access_key_id}>"


class Source:
    """Credentials that stay fresh: asked for again shortly before they expire, by one thread at a time."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._current: Credentials | None = None
        self._advisory_s, self._mandatory_s = ADVISORY_S, MANDATORY_S
        self._lock = Lock()

    def get(self) -> Credentials:
        """Credentials that are good for a while yet.

        Raises: Trouble, what the provider raises, once the old ones are too close to their end to go on with.
        """
        current = self._current
        left = _left(current)
        if current and left > self._advisory_s:
            return current
        usable = current is not None and left > self._mandatory_s
        if not self._lock.acquire(blocking=not usable):
            assert current is not None
            return current  # another thread fetches new ones, and these still do
        try:
            if self._current is not current and self._current and _left(self._current) > self._mandatory_s:
                return self._current
            try:
                fresh = self._provider()
            except Trouble:
                if usable and current:
                    return current
                raise
            # Short-lived ones are kept for two thirds of their life, or each call would fetch new ones.
            life = _left(fresh)
            self._advisory_s, self._mandatory_s = min(ADVISORY_S, life / 3), min(MANDATORY_S, life / 6)
            self._current = fresh
            return fresh
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Ask the provider at the next use: the service refused what we have."""
        self._current = None


class Unkept(Source):
    """Credentials whose provider keeps them fresh itself: boto3's, or a file that another process rewrites."""

    def get(self) -> Credentials:
        return self._provider()


def _left(credentials: Credentials | None) -> float:
    if credentials is None:
        return 0.0
    return float("inf") if credentials.expires is None else credentials.expires - time()


def resolved(profiles: Profiles, profile: str | None) -> Source:
    """The credentials of a profile; None: of the ambient chain, which AWS_PROFILE may steer.

    Raises: Trouble 77 where there are none, 78 where the profile doesn't exist or is half set up.
    """
    if not profile and os.environ.get("AWS_ACCESS_KEY_ID"):
        return Source(_from_environment)
    name = profile or ambient_profile() or "default"
    check_profile(profiles, name)
    config, shared = profiles.config(name), profiles.credentials(name)
    # botocore's order: roles and sign-in come before keys in the shared files, and those before a process.
    slow = (
        "role_arn" in config
        or "role_arn" in shared
        or (not profile and os.environ.get("AWS_ROLE_ARN") and os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"))
        or "sso_account_id" in config
        or "sso_role_name" in config
    )
    if not slow:
        if "aws_access_key_id" in shared:
            return _fixed(shared, profiles.credentials_path, name)
        if "login_session" not in config:
            if process := config.get("credential_process") or shared.get("credential_process"):
                return Source(lambda: from_process(process, name))
            if "aws_access_key_id" in config:
                return _fixed(config, profiles.config_path, name)
            if _nothing_else():
                raise no_credentials(profile)
    from .sdk import credential_source

    return credential_source(profile)


def ambient_profile() -> str | None:
    """The profile that the environment names, as botocore reads it."""
    return os.environ.get("AWS_DEFAULT_PROFILE") or os.environ.get("AWS_PROFILE") or None


def check_profile(profiles: Profiles, name: str) -> None:
    """Raises: Trouble (78) where a profile that somebody named doesn't exist."""
    if name != "default" and name not in profiles:
        known = ", ".join(profiles.names) or "none"
        raise Trouble(
            f"there is no AWS profile '{name}' in '{profiles.config_path}': choose one of those that exist ({known}) "
            "with --profile, the setting defaults.aws_profile_name or AWS_PROFILE",
            statuses.CONFIGURATION,
        )


def no_credentials(profile: str | None) -> Trouble:
    where = f"for the AWS profile '{profile}'" if profile else "in the environment or in the AWS files"
    return Trouble(f"there are no AWS credentials {where}: sign in, or name another profile", statuses.NOT_ALLOWED)


def kind_of(profiles: Profiles, profile: str | None) -> str:
    """Where credentials come from, by the profile's look: MONITOR, CONSOLE or HOST. No network is asked."""
    config = profiles.config(profile or ambient_profile() or "default")
    if "monitor_id" in config:
        return MONITOR
    return CONSOLE if "login_session" in config else HOST


def from_process(command: str, profile: str) -> Credentials:
    """What a profile's `credential_process` prints.

    Raises: Trouble 77 where it fails, 78 where it can't be started or prints something else.
    Source: AWS CLI User Guide, "Sourcing credentials with an external process".
    """
    import subprocess

    try:
        words = _command_words(command)
        # Its standard input is not ours: that may be a stream of records.
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except (OSError, ValueError, IndexError) as error:
        raise Trouble(
            f"cannot start the credential_process of AWS profile '{profile}': {error}", statuses.CONFIGURATION
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise Trouble(
            f"the credential_process of AWS profile '{profile}' failed with status {done.returncode}"
            f"{': ' + said if said else ''}: sign in again",
            statuses.NOT_ALLOWED,
        )
    return from_json(done.stdout, f"the credential_process of AWS profile '{profile}'")


def from_file(path: str) -> Credentials:
    """Credentials in a file, in the form that a credential_process prints.

    Raises: Trouble 66, 74, 77, 78.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        from ..errors import os_trouble

        raise os_trouble(error, "read the credentials in") from None
    return from_json(data, f"'{path}'")


def from_json(data: bytes, subject: str) -> Credentials:
    """Credentials in the form that a credential_process prints: version 1."""
    from json import loads

    try:
        fields = loads(data)
        if fields.get("Version") != 1:
            raise Trouble(
                f"{subject} gave credentials of version {fields.get('Version')}, not 1", statuses.CONFIGURATION
            )
        return Credentials(
            fields["AccessKeyId"],
            fields["SecretAccessKey"],
            fields.get("SessionToken"),
            _epoch(fields.get("Expiration")),
            fields.get("AccountId"),
        )
    except KeyError as error:
        raise Trouble(f"{subject} gave no {error.args[0]}", statuses.CONFIGURATION) from None
    except (ValueError, TypeError, AttributeError):
        raise Trouble(f"{subject} gave no credentials but something else", statuses.CONFIGURATION) from None


def _epoch(value: str | None) -> float | None:
    from .protocol import parsed_time

    return parsed_time(value).timestamp() if value else None


def _command_words(command: str) -> list[str]:
    if os.name == "nt":
        from botocore.compat import compat_shell_split

        return list(compat_shell_split(command))
    from shlex import split

    return split(command)


def _from_environment() -> Credentials:
    environment = os.environ
    secret = environment.get("AWS_SECRET_ACCESS_KEY")
    if not secret:
        raise Trouble(
            "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not: set both or none", statuses.CONFIGURATION
        )
    return Credentials(
        environment["AWS_ACCESS_KEY_ID"],
        secret,
        environment.get("AWS_SESSION_TOKEN") or environment.get("AWS_SECURITY_TOKEN") or None,
        account_id=environment.get("AWS_ACCOUNT_ID") or None,
    )


def _fixed(values: Mapping[str, str], path: str, name: str) -> Source:
    if not values.get("aws_secret_access_key"):
        raise Trouble(
            f"AWS profile '{name}' in '{path}' has aws_access_key_id but no aws_secret_access_key: add it",
            statuses.CONFIGURATION,
        )
    token = values.get("aws_session_token") or values.get("aws_security_token")
    credentials = Credentials(
        values["aws_access_key_id"], values["aws_secret_access_key"], token, account_id=values.get("aws_account_id")
    )
    return Source(lambda: credentials)


def _nothing_else() -> bool:
    """Whether boto3 could find nothing more: then there is no need to load it."""
    return (
        os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        and not os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        and not os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        and not os.environ.get("AWS_CREDENTIAL_FILE")
        and not os.environ.get("BOTO_CONFIG")
        and not os.path.exists("/etc/boto.cfg")
        and not os.path.exists(os.path.expanduser("~/.boto"))
    )
