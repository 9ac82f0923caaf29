"""The values of a job's parameters, and the paths that they bring along."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from libdeadline import paths, statuses
from libdeadline.errors import Trouble

from . import parameters
from .parameters import Definition


class Values(NamedTuple):
    """The job's parameters, and the paths that they bring along."""

    sent: dict[str, dict[str, Any]]  # CreateJob's parameters
    lists: dict[str, list[str]]  # as in asset_references
    chosen_paths: list[str]  # folders of PATH values given on the command line


def resolve(bundle: str, definitions: dict[str, Definition], stored: dict[str, Any], given: dict[str, Any]) -> Values:
    """Bring values and definitions together; `stored` come from the bundle, `given` from the command line.

    Paths in the bundle are relative to it, those on the command line to the current folder.
    Raises: Trouble (65) at a value that does not fit, is missing or has no definition.
    """
    for name in [*stored, *given]:
        if name not in definitions and (":" not in name or name in given):
            known = ", ".join(sorted(definitions)) or "none"
            raise Trouble(f"there is no job parameter '{name}'; the job has: {known}", statuses.DATA)
    sent: dict[str, dict[str, Any]] = {}
    lists: dict[str, list[str]] = {"input_files": [], "input_dirs": [], "output_dirs": [], "referenced": []}
    chosen: list[str] = []
    for name, definition in definitions.items():
        value: Any = None
        if name in given:
            value = given[name]
            if parameters.is_path(definition):
                value = parameters.map_paths(definition, value, paths.absolute)
        elif name in stored:
            value = stored[name]
            if parameters.is_path(definition):
                value = parameters.map_paths(definition, value, lambda path: paths.absolute(path, bundle))
        elif "default" in definition:
            own = parameters.is_path(definition) and not definition.get("fromQueue")
            if own and definition["default"] and parameters.is_free(definition):
                value = parameters.default_path(bundle, name, definition)
        elif not definition.get("fromQueue"):
            raise Trouble(
                f"parameter '{name}' has no default and no value: give --parameter {name}=<value>", statuses.DATA
            )
        effective = definition.get("default") if value is None else value
        if value is not None:
            sent[name] = parameters.checked(name, definition, value)
        if parameters.is_path(definition) and effective is not None:
            each = sent[name] if name in sent else parameters.checked(name, definition, effective)
            for path in _texts(each):
                _attach(definition, path, lists)
                if name in given and path:
                    chosen.append(os.path.dirname(path) if definition.get("objectType") == "FILE" else path)
    if len(sent) > parameters.MOST_PARAMETERS:
        raise Trouble(
            f"the job has {len(sent)} parameter values; the service takes {parameters.MOST_PARAMETERS}", statuses.DATA
        )
    return Values(sent, lists, chosen)


def _texts(checked: dict[str, Any]) -> list[str]:
    (value,) = checked.values()
    return value if isinstance(value, list) else [value]


def _attach(definition: Definition, path: str, lists: dict[str, list[str]]) -> None:
    """Put a path into the lists, as data flow and object type say."""
    if not path:
        return
    flow, is_file = definition.get("dataFlow", "NONE"), definition.get("objectType") == "FILE"
    if flow == "NONE":
        lists["referenced"].append(path)
    if "IN" in flow:
        lists["input_files" if is_file else "input_dirs"].append(path)
    if "OUT" in flow:
        lists["output_dirs"].append(os.path.dirname(path) if is_file else path)
