"""AWS profiles: what stands in ~/.aws/config and ~/.aws/credentials, and what the environment puts on top.

Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files"; compared with botocore by a test.
"""

from __future__ import annotations

import os

from .. import statuses
from ..errors import Trouble

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING:
    from collections.abc import Mapping

    Values = Mapping[str, str]

CONFIG_PATH = os.path.join("~", ".aws", "config")
CREDENTIALS_PATH = os.path.join("~", ".aws", "credentials")


class Profiles:
    """The shared files as they stood when they were read."""

    def __init__(self) -> None:
        self.config_path = os.path.expanduser(os.environ.get("AWS_CONFIG_FILE") or CONFIG_PATH)
        self.credentials_path = os.path.expanduser(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or CREDENTIALS_PATH)
        self._config: dict[str, dict[str, str]] = {}
        self._services: dict[str, dict[str, str]] = {}
        self._sessions: dict[str, dict[str, str]] = {}
        for name, values in _sections(self.config_path).items():
            if name == "default":
                # [profile default] wins over [default]
                self._config.setdefault("default", values)
            elif (words := _words(name))[:1] == ["profile"] and len(words) == 2:
                self._config[words[1]] = values
            elif words[:1] == ["services"] and len(words) == 2:
                self._services[words[1]] = values
            elif words[:1] == ["sso-session"] and len(words) == 2:
                self._sessions[words[1]] = values
        self._credentials = _sections(self.credentials_path)

    @property
    def names(self) -> list[str]:
        """Profiles in the order of the files: those of the config file first."""
        return list(dict.fromkeys([*self._config, *self._credentials]))

    def __contains__(self, name: object) -> bool:
        return name in self._config or name in self._credentials

    def config(self, name: str) -> Values:
        """The profile's section in the config file; keys are lower case, a nested one is `outer.inner`."""
        return self._config.get(name, {})

    def credentials(self, name: str) -> Values:
        """The profile's section in the credentials file."""
        return self._credentials.get(name, {})

    def value(self, name: str, key: str) -> str | None:
        return self.config(name).get(key) or self.credentials(name).get(key)

    def endpoint(self, name: str, service_key: str) -> str | None:
        """The endpoint URL that a profile sets for a service: its `services` section first, then endpoint_url."""
        values = self.config(name)
        if services := values.get("services"):
            if services not in self._services:
                raise Trouble(
                    f"profile '{name}' names the services section '{services}', which is not in "
                    f"'{self.config_path}': add it or remove the line",
                    statuses.CONFIGURATION,
                    path=self.config_path,
                )
            if url := self._services[services].get(f"{service_key}.endpoint_url"):
                return url
        return values.get("endpoint_url")


_read: dict[tuple[str, str, str], Profiles] = {}


def read() -> Profiles:
    """The shared files, read once a process for each place that they can be."""
    key = (
        os.environ.get("AWS_CONFIG_FILE", ""),
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", ""),
        os.path.expanduser("~"),
    )
    if key not in _read:
        _read[key] = Profiles()
    return _read[key]


def forget() -> None:
    """Read the files again when they are next asked for: somebody signed in or out."""
    _read.clear()


def _words(name: str) -> list[str]:
    """A section's name as a shell would split it: `profile "my name"`."""
    if '"' not in name and "'" not in name and "\\" not in name:
        return name.split()
    from shlex import split

    try:
        return split(name)
    except ValueError:
        return []


def _sections(path: str) -> dict[str, dict[str, str]]:
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8-sig", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except OSError as error:
        raise Trouble(f"cannot read '{path}': {error.strerror}", statuses.CONFIGURATION, path=path) from None
    sections: dict[str, dict[str, str]] = {}
    values: dict[str, str] | None = None
    key = ""
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if not content or content[0] in "#;":
            continue
        if line[0].isspace() and key and values is not None:
            # A nested setting below `s3 =` or a service's name.
            inner, separator, value = content.partition("=")
            if values[key]:
                values[key] += f"\n{content}"
            elif separator:
                values[f"{key}.{inner.strip().lower()}"] = value.strip()
            continue
        if content[0] == "[" and "]" in content:
            values = sections.setdefault(content[1 : content.rindex("]")].strip(), {})
            key = ""
            continue
        name, separator, value = content.partition("=")
        if ":" in name:
            name, separator, value = content.partition(":")
        if not separator or values is None:
            raise Trouble(
                f"cannot read '{path}', line {number}: this is neither a [section] nor key = value",
                statuses.CONFIGURATION,
                path=path,
            )
        key = name.strip().lower()
        values[key] = value.strip()
    return sections
