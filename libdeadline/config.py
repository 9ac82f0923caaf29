"""The settings that a person keeps for Deadline Cloud: one INI file, shared with the reference client.

A setting is named `section.key`. A setting may depend on others: their values become part of the name of the
section that it is kept in, so that another profile, farm or queue brings its own values with it.

The file is read as Python's configparser reads it, by code of our own that starts in a third of the time, keeps
comments when it writes, and takes a `%` that stands for nothing as a `%`.
Source: client specification, configuration; Python documentation, configparser, "Supported INI File Structure".
"""

from __future__ import annotations

import os

from . import statuses
from .errors import Trouble, os_trouble

# As in `command`: typing and collections would cost more than all the rest of this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATH_VARIABLE = "DEADLINE_CONFIG_FILE_PATH"
DEFAULT_PATH = os.path.join("~", ".deadline", "config")
CACHE_FOLDER = os.path.join("~", ".deadline", "cache")
AMBIENT_PROFILES = ("", "default", "(default)")  # all mean the ambient AWS credential chain
TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")
INTERPOLATION_DEPTH = 10
FOLDER_MODE = 0o700
FILE_MODE = 0o600


class Setting:
    """One setting: default, what it depends on, what values it takes, and its meaning."""

    __slots__ = ("choices", "default", "depends_on", "description", "kind", "section_prefix")

    def __init__(
        self,
        default: str,
        description: str,
        *,
        depends_on: str = "",
        kind: str = "text",
        choices: tuple[str, ...] = (),
        section_prefix: str = "",
    ) -> None:
        self.default, self.description, self.depends_on = default, description, depends_on
        self.kind, self.choices, self.section_prefix = kind, choices, section_prefix


PROFILE, FARM, QUEUE = "defaults.aws_profile_name", "defaults.farm_id", "defaults.queue_id"

SETTINGS: dict[str, Setting] = {
    "deadline-cloud-monitor.path": Setting(
        "", "Program file of the Deadline Cloud monitor, which signs people in. The monitor sets it.", kind="path"
    ),
    PROFILE: Setting(
        "(default)",
        "AWS profile to act with. '(default)' or nothing means whatever AWS finds by itself. Farm, queue and other "
        "settings are kept for each profile.",
        section_prefix="profile-",
    ),
    "settings.job_history_dir": Setting(
        "~/.deadline/job_history/{profile}",
        "Folder in which submitters keep a copy of each bundle that they submitted.",
        depends_on=PROFILE,
        kind="path",
    ),
    FARM: Setting("", "Farm to work with when a command names none.", depends_on=PROFILE),
    "defaults.farm_region": Setting(
        "", "AWS region of the default farm. Empty means the region of the profile.", depends_on=FARM
    ),
    "settings.storage_profile_id": Setting(
        "",
        "Storage profile that describes this workstation: which file systems it has, and where they are mounted.",
        depends_on=FARM,
    ),
    QUEUE: Setting("", "Queue to work with when a command names none.", depends_on=FARM),
    "defaults.job_id": Setting(
        "", "Job to work with when a command names none. A submission sets it to the new job.", depends_on=QUEUE
    ),
    "settings.auto_accept": Setting("false", "Whether to answer every confirmation with yes.", kind="boolean"),
    "settings.conflict_resolution": Setting(
        "NOT_SELECTED",
        "What a download does where a file exists already: SKIP leaves it, OVERWRITE replaces it, CREATE_COPY puts "
        "the new one beside it, NOT_SELECTED asks.",
        choices=("NOT_SELECTED", "SKIP", "OVERWRITE", "CREATE_COPY"),
    ),
    "settings.log_level": Setting(
        "WARNING", "How much commands tell of what they do.", choices=("ERROR", "WARNING", "INFO", "DEBUG")
    ),
    "settings.deadline_regions": Setting(
        "", "AWS regions in which to look for farms, separated by commas. Empty means all regions of Deadline Cloud."
    ),
    "telemetry.opt_out": Setting("false", "Whether to send no usage data at all.", kind="boolean"),
    "telemetry.identifier": Setting("", "Random identifier of this installation in usage data."),
    "defaults.job_attachments_file_system": Setting(
        "COPIED",
        "How workers get a job's input files: COPIED downloads all of them before a task starts, VIRTUAL fetches "
        "each when it is first read.",
        depends_on=FARM,
        choices=("COPIED", "VIRTUAL"),
    ),
    "settings.s3_max_pool_connections": Setting("50", "Most connections to S3 at a time.", kind="integer"),
    "settings.small_file_threshold_multiplier": Setting(
        "20",
        "Files of up to this many chunks of 8 MiB are uploaded side by side, larger ones one after another in parts.",
        kind="integer",
    ),
    "settings.known_asset_paths": Setting(
        "",
        "Folders outside of the storage profile's locations that job files may come from without a warning, "
        f"separated by '{os.pathsep}'.",
        kind="paths",
    ),
    "settings.locale": Setting("", "Language of the windows, such as en_US. Empty means the system's."),
    "settings.force_s3_check": Setting(
        "false",
        "Whether to ask S3 about every file before leaving out its upload, instead of trusting what earlier uploads "
        "remembered.",
        kind="boolean",
    ),
    "settings.allow_bundle_hooks": Setting(
        "false", "Whether hooks that a job bundle brings along may run on this machine.", kind="boolean"
    ),
    "settings.allow_environment_hooks": Setting(
        "false", "Whether hooks in the folder that DEADLINE_HOOKS_DIR names may run on this machine.", kind="boolean"
    ),
    "settings.submitter_update_notification": Setting(
        "true", "Whether submitters look for a newer version of themselves.", kind="boolean"
    ),
    "settings.max_retries_per_task": Setting(
        "5", "How often a failed task of a new job is tried again.", kind="integer"
    ),
    "settings.max_failed_tasks_count": Setting(
        "20", "How many failed tasks make a new job stop.", kind="integer"
    ),
    "settings.https_proxy": Setting("", "URL of the proxy to reach AWS through."),
    "settings.ca_bundle": Setting(
        "", "File of the certificates to trust, in PEM form, where a proxy or a server of your own needs it.",
        kind="path",
    ),
    "settings.job_bundle_default_directory": Setting(
        "", "Folder in which windows start to look for job bundles.", depends_on=PROFILE, kind="path"
    ),
}  # fmt: skip


class Config:
    """The settings as they stood when they were read, with the overrides of one command on top. Immutable."""

    __slots__ = ("_ini", "_overrides", "path")

    def __init__(self, path: str, ini: Ini, overrides: Mapping[str, str] | None = None) -> None:
        self.path, self._ini, self._overrides = path, ini, dict(overrides or {})

    def get(self, name: str) -> str:
        """The value of a setting, or its default.

        Raises: Trouble (64) where there is no such setting.
        """
        setting = find(name)
        if name in self._overrides:
            return self._overrides[name]
        stored = self._ini.get(self.section(name), name.partition(".")[2])
        if stored is None:
            return self.default(name)
        return os.path.normpath(stored) if os.sep == "\\" and setting.kind == "path" and stored else stored

    def default(self, name: str) -> str:
        """What `get` answers where nothing was set."""
        value = find(name).default
        if "{profile}" in value:
            value = value.replace("{profile}", self.get(PROFILE))
        return value.replace("/", os.sep) if find(name).kind == "path" else value

    def boolean(self, name: str) -> bool:
        """The value of a setting that is yes or no.

        Raises: Trouble (78) where it is neither.
        """
        value = self.get(name).strip().lower()
        if value == "":
            value = self.default(name)
        if value not in TRUE + FALSE:
            raise self._unusable(name, "true or false")
        return value in TRUE

    def integer(self, name: str) -> int:
        """The value of a setting that is a whole number.

        Raises: Trouble (78) where it is none.
        """
        try:
            return int(self.get(name) or self.default(name))
        except ValueError:
            raise self._unusable(name, "a whole number") from None

    def choice(self, name: str) -> str:
        """The value of a setting that is one of a few, spelt as SETTINGS spells it.

        Raises: Trouble (78) where it is none of them.
        """
        value = (self.get(name) or self.default(name)).upper()
        if value not in find(name).choices:
            raise self._unusable(name, f"one of {', '.join(find(name).choices)}")
        return value

    def file(self, name: str) -> str:
        """The value of a setting that is a path, with `~` expanded."""
        return os.path.expanduser(self.get(name))

    def section(self, name: str) -> str:
        """The section that a setting is kept in, as the settings that it depends on stand."""
        prefixes, setting = [], find(name)
        while setting.depends_on:
            on = setting.depends_on
            setting = SETTINGS[on]
            prefixes.append(setting.section_prefix + self.get(on))
        return " ".join([*reversed(prefixes), name.partition(".")[0]])

    def with_values(self, values: Mapping[str, str | None]) -> Config:
        """These settings with `values` on top, for one command; None and empty values count as not given.

        An override holds whatever the settings that it depends on are; nothing is ever saved from here.
        """
        for name in values:
            find(name)
        return Config(
            self.path, self._ini, {**self._overrides, **{name: value for name, value in values.items() if value}}
        )

    def profile(self) -> str | None:
        """The AWS profile that is asked for, or None for the ambient credential chain."""
        value = self.get(PROFILE)
        return None if value in AMBIENT_PROFILES else value

    def extra(self, section: str, key: str) -> str | None:
        """A value that another program keeps in the same file (the monitor's session id), or None."""
        return self._ini.get(section, key)

    def _unusable(self, name: str, allowed: str) -> Trouble:
        return Trouble(
            f"setting '{name}' is '{self.get(name)}', which is not {allowed}: set it again",
            statuses.CONFIGURATION,
        )


def find(name: str) -> Setting:
    """The definition of a setting.

    Raises: Trouble (64) where there is none of that name.
    """
    try:
        return SETTINGS[name]
    except KeyError:
        pass
    if "." not in name:
        raise Trouble(f"'{name}' is no setting name: it takes the form section.key", statuses.USAGE)
    from difflib import get_close_matches

    close = get_close_matches(name, SETTINGS, 1)
    raise Trouble(f"there is no setting '{name}'{f': did you mean {close[0]}?' if close else ''}", statuses.USAGE)


def location() -> str:
    """Where the settings are kept: what DEADLINE_CONFIG_FILE_PATH names, else ~/.deadline/config."""
    return os.path.expanduser(os.environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def cache_folder() -> str:
    """The folder of hash and check caches."""
    return os.path.expanduser(CACHE_FOLDER)


def read(path: str | None = None) -> Config:
    """The settings in the file at `path` (else the person's own). A file that doesn't exist holds none.

    Raises: Trouble (78) naming file and line where it is not an INI file; 77 where it can't be read.
    """
    path = path or location()
    return Config(path, Ini(_load(path), path))


def write(name: str, value: str, path: str | None = None) -> None:
    """Set one setting in the file, below the profile, farm and queue that are the defaults there.

    Comments, order and whatever else is in the file stay. Two writers wait for each other.
    Raises: Trouble 64 unknown setting, 65 not a value for it, 73/74/77/78 the file; it is then as it was.
    """
    value = checked(name, value)
    path = path or location()
    # A link to a file that is kept elsewhere stays a link.
    target = os.path.realpath(path)
    try:
        os.makedirs(os.path.dirname(target), FOLDER_MODE, exist_ok=True)
        with _Lock(target + ".lock"):
            config = read(target)
            text = config._ini.edited(config.section(name), name.partition(".")[2], value)
            _store(target, text)
    except OSError as error:
        trouble = os_trouble(error, "write")
        trouble.status = statuses.CANNOT_CREATE if trouble.status == statuses.NO_INPUT else trouble.status
        raise trouble from None


def clear(name: str, path: str | None = None) -> None:
    """Set one setting back to its default, explicitly, as the reference client does."""
    write(name, read(path).default(name), path)


def checked(name: str, value: str) -> str:
    """`value` as it is to be stored for a setting; empty is always allowed.

    Raises: Trouble (65) saying what is allowed.
    """
    setting = find(name)
    if value == "":
        return value
    if len(value.splitlines()) > 1:
        raise Trouble(f"'{name}' takes one line, not {value!r}", statuses.DATA)
    if setting.choices:
        if value.upper() not in setting.choices:
            raise Trouble(f"'{name}' takes one of {', '.join(setting.choices)}, not '{value}'", statuses.DATA)
        return value.upper()
    if setting.kind == "boolean" and value.lower() not in TRUE + FALSE:
        raise Trouble(f"'{name}' takes true or false, not '{value}'", statuses.DATA)
    if setting.kind == "integer" and not (value.isascii() and value.isdigit()):
        raise Trouble(f"'{name}' takes a whole number from 0 up, not '{value}'", statuses.DATA)
    if setting.kind == "path":
        return value.replace("\\", "/") if os.sep == "\\" else value
    return value


class Ini:
    """The text of an INI file, taken apart so that a value can be read, and one line changed."""

    __slots__ = ("_defaults", "_ends", "_lines", "_path", "_sections", "_spans")

    def __init__(self, text: str, path: str) -> None:
        self._path = path
        self._lines = text.split("\n")
        self._sections: dict[str, dict[str, str]] = {}
        self._defaults: dict[str, str] = {}
        self._spans: dict[tuple[str, str], tuple[int, int]] = {}  # first and last line of a value, from 0
        self._ends: dict[str, int] = {}  # last line with content of a section
        self._parse()

    def get(self, section: str, key: str) -> str | None:
        values = self._sections.get(section)
        if values is None:
            return None
        value = values.get(key.lower(), self._defaults.get(key.lower()))
        return None if value is None else self._interpolated(value, values, INTERPOLATION_DEPTH)

    def edited(self, section: str, key: str, value: str) -> str:
        """The text of the file with that value set and nothing else changed.

        Raises: Trouble (65) where an INI file can't hold the value.
        """
        stripped = "\n".join(line.strip() for line in value.strip().split("\n"))
        shown = stripped.replace("%", "%%").replace("\n", "\n\t")
        entry = f"{key.lower()} = {shown}".rstrip().split("\n")
        want = {name: dict(values) for name, values in self._sections.items()}
        want.setdefault(section, {})[key.lower()] = stripped.replace("%", "%%")
        for lines in self._variants(section, key.lower(), entry, want):
            text = "\n".join(lines)
            try:
                got = Ini(text, self._path)
            except Trouble:
                continue
            if got._sections == want and got._defaults == self._defaults:
                return text if text.endswith("\n") else text + "\n"
        raise Trouble(f"cannot store {value!r}: the settings file can't hold it", statuses.DATA)

    def _variants(
        self, section: str, key: str, entry: list[str], want: dict[str, dict[str, str]]
    ) -> Iterator[list[str]]:
        # First the least change; where odd indentation would give it another meaning, the whole file anew.
        lines = self._lines
        if (section, key) in self._spans:
            first, last = self._spans[section, key]
            yield lines[:first] + entry + lines[last + 1 :]
        elif section in self._ends:
            end = self._ends[section] + 1
            yield lines[:end] + entry + lines[end:]
        else:
            while lines and not lines[-1].strip():
                lines = lines[:-1]
            yield [*lines, *([""] if lines else []), f"[{section}]", *entry, ""]
        plain: list[str] = []
        for name, values in [("DEFAULT", self._defaults), *want.items()]:
            if values or name != "DEFAULT":
                plain.append(f"[{name}]")
                plain += [f"{k} = {v}".replace("\n", "\n\t") for k, v in values.items()]
                plain.append("")
        yield plain

    def _parse(self) -> None:
        section: str | None = None
        values: dict[str, list[str]] | None = None
        collected: dict[str, dict[str, list[str]]] = {}
        key = ""
        indent_level = 0
        for number, line in enumerate(self._lines):
            content = line.strip()
            if not content or content[0] in "#;":
                if not content and values is not None and key:
                    values[key].append("")
                continue
            indent = len(line) - len(line.lstrip())
            if values is not None and key and indent > indent_level:
                values[key].append(content)
                assert section is not None
                self._spans[section, key] = (self._spans[section, key][0], number)
                self._ends[section] = number
                continue
            indent_level = indent
            close = content.rfind("]")
            if content[0] == "[" and close > 1:
                section = content[1:close]
                if section in collected and section != "DEFAULT":
                    raise self._wrong(number, f"section '{section}' stands there twice")
                values = collected.setdefault(section, {})
                self._ends[section] = number
                key = ""
                continue
            if values is None or section is None:
                raise self._wrong(number, "a setting must stand below a [section]")
            cut = min((at for at in (content.find("="), content.find(":")) if at >= 0), default=-1)
            if cut < 0:
                raise self._wrong(number, "this is neither a [section] nor key = value")
            key = content[:cut].rstrip().lower()
            if not key:
                raise self._wrong(number, "the key before '=' is missing")
            if key in values:
                raise self._wrong(number, f"'{key}' stands in section '{section}' twice")
            values[key] = [content[cut + 1 :].strip()]
            self._spans[section, key] = (number, number)
            self._ends[section] = number
        for name, found in collected.items():
            joined = {each: "\n".join(parts).rstrip() for each, parts in found.items()}
            if name == "DEFAULT":
                self._defaults = joined
            else:
                self._sections[name] = joined

    def _interpolated(self, value: str, values: dict[str, str], depth: int) -> str:
        if "%" not in value or not depth:
            return value
        out, rest = [], value
        while "%" in rest:
            before, _, rest = rest.partition("%")
            out.append(before)
            if rest.startswith("%"):
                out.append("%")
                rest = rest[1:]
                continue
            close = rest.find(")s")
            name = rest[1:close].lower() if rest.startswith("(") and close > 0 else ""
            other = values.get(name, self._defaults.get(name)) if name else None
            if other is None:
                out.append("%")  # stands for nothing, so for itself: a password in a proxy's URL
            else:
                out.append(self._interpolated(other, values, depth - 1))
                rest = rest[close + 2 :]
        return "".join([*out, rest])

    def _wrong(self, number: int, why: str) -> Trouble:
        return Trouble(
            f"cannot read the settings in '{self._path}', line {number + 1}: {why}: correct or remove that line",
            statuses.CONFIGURATION,
            path=self._path,
        )


class _Lock:
    """Holds a lock file, so that of two writers one waits. The system lets go of it when a process dies."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            import fcntl

            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        except ImportError:
            import msvcrt

            msvcrt.locking(self.descriptor, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except BaseException:
            os.close(self.descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _load(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return ""
    except NotADirectoryError as error:
        raise os_trouble(error, "read the settings in") from None
    except OSError as error:
        trouble = os_trouble(error, "read the settings in")
        trouble.status = statuses.CONFIGURATION if isinstance(error, IsADirectoryError) else trouble.status
        raise trouble from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Trouble(
            f"cannot read the settings in '{path}', line {line}: it is not UTF-8: save the file as UTF-8",
            statuses.CONFIGURATION,
            path=path,
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _store(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
