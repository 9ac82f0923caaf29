"""The worker's configuration: options, then environment, then worker.toml, then defaults.

Source: spec worker 5.1.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from libdeadline import statuses
from libdeadline.errors import Trouble

CONFIGURATION_FILE = "/etc/amazon/deadline/worker.toml"
TRUE, FALSE = {"1", "on", "t", "true", "y", "yes"}, {"0", "off", "f", "false", "n", "no"}


@dataclass(frozen=True)
class Settings:
    """What the worker was told."""

    farm_id: str
    fleet_id: str
    state_dir: str
    profile: str | None = None
    region: str | None = None
    allow_instance_profile: bool = True
    no_shutdown: bool = False
    run_jobs_as_agent_user: bool = False
    posix_job_user: str | None = None
    cleanup_session_user_processes: bool = True
    retain_session_dir: bool = False
    session_root_dir: str = "/sessions"
    logs_dir: str | None = None
    local_session_logs: bool = True
    host_metrics_logging: bool = True
    host_metrics_logging_interval_s: float = 60
    capabilities: dict[str, dict[str, Any]] = field(default_factory=lambda: {"amounts": {}, "attributes": {}})


def read(state_dir: str | None = None, path: str | None = None) -> Settings:
    """The settings of the worker whose state stands in `state_dir`.

    worker.toml is looked for in the state folder, then in /etc/amazon/deadline.
    Raises: Trouble (78) where a value is missing or isn't what it should be.
    """
    environment = os.environ
    table = _table(path, state_dir or environment.get("DL_WORKER_DIR"))

    def text(variable: str, *keys: str) -> str | None:
        value = environment.get(variable) or _entry(table, keys)
        if value is not None and not isinstance(value, str):
            raise _wrong(".".join(keys), f"takes text, not '{value}'")
        return value or None

    def flag(variable: str, keys: tuple[str, str], default: bool, negated: bool = False) -> bool:
        """`negated`: the variable says the opposite of the entry, whose sense `default` has."""
        if variable in environment:
            value = environment[variable].lower()
            if value not in TRUE | FALSE:
                raise _wrong(variable, f"takes true or false, not '{environment[variable]}'")
            return (value in TRUE) != negated
        value = _entry(table, keys)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _wrong(".".join(keys), f"takes true or false, not '{value}'")
        return value

    def checked(name: str, value: str | None, pattern: str) -> str:
        if value is None:
            raise _wrong(name, "is missing: set it in the environment or in worker.toml")
        if not re.fullmatch(pattern, value):
            raise _wrong(name, f"is not an id: '{value}'")
        return value

    folder = (
        state_dir
        or environment.get("DL_WORKER_DIR")
        or text("DEADLINE_WORKER_PERSISTENCE_DIR", "worker", "worker_persistence_dir")
        or "/var/lib/deadline"
    )
    job_user = text("DEADLINE_WORKER_POSIX_JOB_USER", "os", "posix_job_user")
    if job_user and not re.fullmatch(r"[A-Za-z0-9_.][^:]{0,31}:[A-Za-z0-9_.][^:]{0,31}", job_user):
        raise _wrong("posix_job_user", f"takes user:group, not '{job_user}'")
    as_agent = flag("DEADLINE_WORKER_RUN_JOBS_AS_AGENT_USER", ("os", "run_jobs_as_agent_user"), False)
    if as_agent and job_user:
        raise _wrong("posix_job_user", "is set, and run_jobs_as_agent_user too: leave one out")
    is_writable = os.path.isdir("/sessions") and os.access("/sessions", os.W_OK)
    default_root = "/sessions" if is_writable else os.path.join(os.path.abspath(folder), "work")
    return Settings(
        farm_id=checked("farm_id", text("DEADLINE_WORKER_FARM_ID", "worker", "farm_id"), "farm-[a-z0-9]{32}"),
        fleet_id=checked("fleet_id", text("DEADLINE_WORKER_FLEET_ID", "worker", "fleet_id"), "fleet-[a-z0-9]{32}"),
        state_dir=os.path.abspath(folder),
        profile=text("DEADLINE_WORKER_PROFILE", "aws", "profile"),
        region=text("AWS_REGION", "aws", "region") or environment.get("AWS_DEFAULT_REGION"),
        allow_instance_profile=flag(
            "DEADLINE_WORKER_ALLOW_INSTANCE_PROFILE", ("aws", "allow_ec2_instance_profile"), True
        ),
        no_shutdown=not _shutdown_on_stop(flag),
        run_jobs_as_agent_user=as_agent,
        posix_job_user=job_user,
        cleanup_session_user_processes=flag(
            "DEADLINE_WORKER_CLEANUP_SESSION_USER_PROCESSES", ("worker", "cleanup_session_user_processes"), True
        ),
        retain_session_dir=flag("DEADLINE_WORKER_RETAIN_SESSION_DIR", ("os", "retain_session_dir"), False),
        session_root_dir=os.path.abspath(
            text("DEADLINE_WORKER_SESSION_ROOT_DIR", "worker", "session_root_dir") or default_root
        ),
        logs_dir=text("DEADLINE_WORKER_LOGS_DIR", "logging", "worker_logs_dir"),
        local_session_logs=flag("DEADLINE_WORKER_LOCAL_SESSION_LOGS", ("logging", "local_session_logs"), True),
        host_metrics_logging=flag("DEADLINE_WORKER_HOST_METRICS_LOGGING", ("logging", "host_metrics_logging"), True),
        host_metrics_logging_interval_s=_seconds(
            environment.get("DEADLINE_WORKER_HOST_METRICS_LOGGING_INTERVAL_SECONDS")
            or _entry(table, ("logging", "host_metrics_logging_interval_seconds"))
            or 60
        ),
        capabilities=_capabilities(table),
    )


def _shutdown_on_stop(flag: Callable[..., bool]) -> bool:
    return flag("DEADLINE_WORKER_NO_SHUTDOWN", ("os", "shutdown_on_stop"), True, negated=True)


def _table(path: str | None, state_dir: str | None) -> dict[str, Any]:
    named = [path] if path else [os.path.join(state_dir or "", "worker.toml"), CONFIGURATION_FILE]
    for name in named:
        try:
            with open(name, "rb") as file:
                return tomllib.load(file)
        except FileNotFoundError:
            if path:
                raise Trouble(f"no configuration file '{path}'", statuses.CONFIGURATION, path=path) from None
        except tomllib.TOMLDecodeError as error:
            raise Trouble(f"'{name}' is no TOML: {error}", statuses.CONFIGURATION, path=name) from None
    return {}


def _entry(table: dict[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = table
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        raise _wrong("host_metrics_logging_interval_seconds", f"takes seconds above 0, not '{value}'")
    return seconds


def _capabilities(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    import json

    found = {kind: dict(_entry(table, ("capabilities", kind)) or {}) for kind in ("amounts", "attributes")}
    text = os.environ.get("DEADLINE_WORKER_CAPABILITIES")
    if text:
        try:
            given = json.loads(text)
            for kind in found:
                found[kind].update(given.get(kind) or {})
        except (ValueError, AttributeError, TypeError):
            raise _wrong("DEADLINE_WORKER_CAPABILITIES", "takes JSON: {'amounts': {}, 'attributes': {}}") from None
    for name, value in found["amounts"].items():
        if not re.fullmatch(r"([a-zA-Z][a-zA-Z0-9]{0,63}:)?amount(\.[a-zA-Z_][a-zA-Z0-9_]*)+", name):
            raise _wrong(f"capability '{name}'", "is no amount name, such as amount.worker.vcpu")
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise _wrong(f"capability '{name}'", f"takes a number of at least 0, not '{value}'")
    for name, values in found["attributes"].items():
        if not re.fullmatch(r"([a-zA-Z][a-zA-Z0-9]{0,63}:)?attr(\.[a-zA-Z_][a-zA-Z0-9_]*)+", name):
            raise _wrong(f"capability '{name}'", "is no attribute name, such as attr.worker.os.family")
        if not isinstance(values, list) or not values or not all(isinstance(each, str) for each in values):
            raise _wrong(f"capability '{name}'", "takes a list of texts")
    return found


def _wrong(name: str, what: str) -> Trouble:
    return Trouble(f"configuration: {name} {what}", statuses.CONFIGURATION)
