"""Job parameters: definitions of template and queue brought together, values judged, paths made absolute.

Source: attachments specification, job bundle files; job parameter definitions of Open Job Description 2023-09 and
its EXPR extension; the service model's JobParameter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from libdeadline import paths, statuses
from libdeadline.errors import Trouble
from libdeadline.walk import is_utf8

MEMBERS = {
    "STRING": "string",
    "PATH": "path",
    "INT": "int",
    "FLOAT": "float",
    "BOOL": "bool",
    "RANGE_EXPR": "rangeExpr",
    "LIST[STRING]": "stringList",
    "LIST[PATH]": "pathList",
    "LIST[INT]": "intList",
    "LIST[FLOAT]": "floatList",
    "LIST[BOOL]": "boolList",
    "LIST[LIST[INT]]": "intListList",
}
"""Type of a definition to the member of CreateJob's JobParameter that carries it."""

LONGEST_TEXT = 1024  # of a string or path value
LONGEST_INT = 20
LONGEST_FLOAT = 26
MOST_PARAMETERS = 200
MUST_AGREE = ("type", "minValue", "maxValue", "minLength", "maxLength", "dataFlow", "objectType")
JOB_FIELDS = {
    "priority": ("priority", 0, 100),
    "maxFailedTasksCount": ("max_failed_tasks_count", 0, 2147483647),
    "maxRetriesPerTask": ("max_retries_per_task", 0, 2147483647),
    "maxWorkerCount": ("max_worker_count", -1, 2147483647),
    "targetTaskRunStatus": ("target_task_run_status", None, None),
}
"""`deadline:` name to the bundle record's field and its limits."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,511}\Z")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_RANGE_PART = re.compile(r"\s*(-?[0-9]+)\s*(?:-\s*(-?[0-9]+)\s*(?::\s*(-?[0-9]+)\s*)?)?\Z")

Definition = dict[str, Any]


def definitions(found: Any, where: str) -> dict[str, Definition]:
    """The parameter definitions of a template, by name.

    Raises: Trouble (65) naming `where` and what is wrong.
    """
    result: dict[str, Definition] = {}
    if found is None:
        return result
    if not isinstance(found, list):
        raise Trouble(f"{where}: parameterDefinitions is not a list", statuses.DATA)
    for index, definition in enumerate(found):
        name = definition.get("name") if isinstance(definition, dict) else None
        if not isinstance(name, str) or not _NAME.match(name):
            raise Trouble(f"{where}: parameterDefinitions[{index}] has no valid name", statuses.DATA)
        kind = definition.get("type")
        if not isinstance(kind, str) or kind.upper() not in MEMBERS:
            raise Trouble(f"{where}: parameter '{name}' has the unknown type '{kind}'", statuses.DATA)
        if name in result:
            raise Trouble(f"{where}: parameter '{name}' is defined twice", statuses.DATA)
        choices = (("dataFlow", ("NONE", "IN", "OUT", "INOUT")), ("objectType", ("FILE", "DIRECTORY")))
        for key, allowed in choices:
            if definition.get(key, allowed[0]) not in allowed:
                raise Trouble(
                    f"{where}: parameter '{name}' has {key} '{definition[key]}', not one of {', '.join(allowed)}",
                    statuses.DATA,
                )
        if "allowedValues" in definition and not isinstance(definition["allowedValues"], list):
            raise Trouble(f"{where}: allowedValues of parameter '{name}' is not a list", statuses.DATA)
        result[name] = {**definition, "type": kind.upper()}
    return result


def merged(bundle: dict[str, Definition], queue: list[tuple[str, dict[str, Definition]]]) -> dict[str, Definition]:
    """The definitions of the bundle and of the queue's environments, (name, definitions) each, which must agree.

    Raises: Trouble (65) naming both places where they don't.
    """
    result: dict[str, Definition] = {}
    places: dict[str, str] = {}
    for place, found in [*((f"queue environment '{name}'", rows) for name, rows in queue), ("the template", bundle)]:
        for name, definition in found.items():
            known = result.get(name)
            if known is not None:
                differing = [key for key in MUST_AGREE if known.get(key) != definition.get(key)]
                if _choices(known) != _choices(definition):
                    differing.append("allowedValues")
                if differing:
                    raise Trouble(
                        f"parameter '{name}' is defined differently in {places[name]} and in {place}: "
                        f"{', '.join(differing)}",
                        statuses.DATA,
                    )
            result[name] = {**(known or {}), **definition}
            places[name] = place
    return result


def _choices(definition: Definition) -> Any:
    values = definition.get("allowedValues")
    return None if values is None else {str(value) for value in values}


def from_file(data: Any, where: str) -> dict[str, Any]:
    """The values in a parameter_values file, by name.

    Raises: Trouble (65) where the file is of another shape.
    """
    result: dict[str, Any] = {}
    if data is None:
        return result
    rows = data.get("parameterValues", []) if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise Trouble(f"'{where}' has no list 'parameterValues'", statuses.DATA, path=where)
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or "value" not in row:
            raise Trouble(f"'{where}': parameterValues[{index}] has no name and value", statuses.DATA, path=where)
        result[row["name"]] = row["value"]
    return result


def from_options(given: list[str]) -> dict[str, Any]:
    """The values given as Name=Value, as a JSON object, or as file://<path> of a JSON or YAML object; later ones win.

    Raises: Trouble 64 where an option is of no such form, 65 or 66 where its file is.
    """
    result: dict[str, Any] = {}
    for text in given:
        if text.startswith("file://"):
            result.update(_object(text.removeprefix("file://")))
        elif text.lstrip().startswith("{"):
            import json

            try:
                found = json.loads(text)
            except ValueError as error:
                raise Trouble(f"--parameter: '{text}' is no JSON: {error}", statuses.USAGE) from None
            result.update(found)
        else:
            name, equals, value = text.partition("=")
            if not equals or not name:
                raise Trouble(f"--parameter takes Name=Value, not '{text}'", statuses.USAGE)
            result[name] = value
    return result


def _object(path: str) -> dict[str, Any]:
    from .documents import parse

    kind = "JSON" if path.endswith(".json") else "YAML"
    try:
        with open(path, encoding="utf-8") as file:
            found = parse(file.read(), kind)
    except ValueError as error:
        raise Trouble(f"'{path}' is not {kind}: {error}", statuses.DATA, path=path) from None
    if not isinstance(found, dict):
        raise Trouble(f"'{path}' is not an object of names and values", statuses.DATA, path=path)
    if isinstance(found.get("parameterValues"), list):
        return from_file(found, path)
    return found


def job_fields(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Take the `deadline:` values out of `values`, as fields of the bundle record.

    Raises: Trouble (65) where there is no such field, or it takes no such value.
    """
    fields: dict[str, Any] = {}
    for name in [name for name in values if name.startswith("deadline:")]:
        value = values.pop(name)
        short = name.removeprefix("deadline:")
        if short not in JOB_FIELDS:
            known = ", ".join(f"deadline:{each}" for each in JOB_FIELDS)
            raise Trouble(f"{where}: there is no '{name}', only {known}", statuses.DATA)
        field, low, high = JOB_FIELDS[short]
        if low is None or high is None:
            if str(value).upper() not in ("READY", "SUSPENDED"):
                raise Trouble(f"{where}: {name} takes READY or SUSPENDED, not '{value}'", statuses.DATA)
            fields[field] = str(value).upper()
            continue
        if isinstance(value, bool) or not _INT.match(str(value)) or not low <= int(value) <= high:
            raise Trouble(f"{where}: {name} takes {low} to {high}, not '{value}'", statuses.DATA)
        fields[field] = int(value)
    return fields


def is_path(definition: Definition) -> bool:
    """Whether values are paths that are made absolute and may have data behind them."""
    return definition["type"] in ("PATH", "LIST[PATH]")


def is_free(definition: Definition) -> bool:
    """Whether any value will do, as opposed to one of a few."""
    item = definition.get("item")
    return "allowedValues" not in definition and not (isinstance(item, dict) and "allowedValues" in item)


def map_paths(definition: Definition, value: Any, change: Callable[[str], str]) -> Any:
    """A PATH or LIST[PATH] value with `change` applied to each path in it that is free and not empty."""
    if not is_free(definition):
        return value
    if isinstance(value, str) and definition["type"] == "PATH":
        return change(value) if value else value
    if definition["type"] == "LIST[PATH]" and (isinstance(value, (list, str))):
        items = _listed(value)
        return [change(item) if isinstance(item, str) and item else item for item in items]
    return value


def default_path(bundle: str, name: str, definition: Definition) -> Any:
    """The value that a PATH default stands for: relative to the bundle's folder, and within it.

    Raises: Trouble (65) where it is absolute or leads out.
    """

    def resolved(path: str) -> str:
        if os.path.isabs(path):
            raise Trouble(
                f"parameter '{name}': its default '{path}' is absolute; it must be relative to the bundle",
                statuses.DATA,
            )
        inside = os.path.realpath(bundle)
        if not paths.is_within(os.path.realpath(os.path.join(inside, path)), inside):
            raise Trouble(f"parameter '{name}': its default '{path}' leads out of the bundle", statuses.DATA)
        return paths.absolute(path, bundle)

    return map_paths(definition, definition["default"], resolved)


def _listed(value: Any) -> list[Any]:
    """A list, or the JSON text of one."""
    if isinstance(value, str):
        import json

        try:
            value = json.loads(value)
        except ValueError:
            pass
    if not isinstance(value, list):
        raise ValueError(f"'{value}' is not a list")
    return value


def checked(name: str, definition: Definition, value: Any) -> dict[str, Any]:
    """A value as CreateJob takes it: {member: text}, or lists of texts.

    Raises: Trouble (65) where it does not fit its definition.
    """
    kind = definition["type"]
    try:
        if kind.startswith("LIST["):
            return {MEMBERS[kind]: _check_list(definition, kind[5:-1], _listed(value))}
        return {MEMBERS[kind]: _check_one(definition, kind, value)}
    except ValueError as error:
        raise Trouble(f"parameter '{name}': {error}", statuses.DATA) from None


def _check_list(definition: Definition, inner: str, items: list[Any]) -> list[Any]:
    low, high = _limit(definition, "minLength"), _limit(definition, "maxLength")
    if low is not None and len(items) < low:
        raise ValueError(f"it has {len(items)} items, but minLength is {low}")
    if high is not None and len(items) > high:
        raise ValueError(f"it has {len(items)} items, but maxLength is {high}")
    limits = definition.get("item") or {}
    if not isinstance(limits, dict):
        raise ValueError("its definition has an 'item' that is no object")
    most = 64 if inner in ("STRING", "PATH") else 512
    if len(items) > most:
        raise ValueError(f"it has {len(items)} items; the service takes {most}")
    if inner == "LIST[INT]":
        result = []
        for item in items:
            if not isinstance(item, list):
                raise ValueError(f"'{item}' is not a list")
            result.append(_check_list(limits, "INT", item))
        return result
    return [_check_one(limits, inner, item) for item in items]


def _check_one(limits: Definition, kind: str, value: Any) -> str:
    if kind in ("STRING", "PATH"):
        return _check_text(limits, value)
    if kind == "INT":
        return _check_int(limits, value)
    if kind == "FLOAT":
        return _check_float(limits, value)
    if kind == "BOOL":
        return _check_bool(value)
    return _check_range(limits, value)


def _check_text(limits: Definition, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{value!r} is not a text")
    text = str(value)
    if not is_utf8(text):
        raise ValueError(f"'{text}' is no UTF-8")
    low, high, allowed = _limit(limits, "minLength"), _limit(limits, "maxLength"), _choice(limits)
    if allowed is not None and text not in [str(each) for each in allowed]:
        raise ValueError(f"'{text}' is not one of {_some(allowed)}")
    if low is not None and len(text) < low:
        raise ValueError(f"'{text}' has {len(text)} characters, but minLength is {low}")
    if high is not None and len(text) > high:
        raise ValueError(f"'{text}' has {len(text)} characters, but maxLength is {high}")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"it has {len(text)} characters; the service takes {LONGEST_TEXT}")
    return text


def _check_int(limits: Definition, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not (
        isinstance(value, int) or (isinstance(value, str) and _INT.match(value.strip()))
    ):
        raise ValueError(f"'{value}' is not a whole number")
    number = int(value)
    _check_limits(limits, Decimal(number), str(number))
    text = str(number)
    if len(text) > LONGEST_INT:
        raise ValueError(f"{text} has more than {LONGEST_INT} digits")
    return text


def _check_float(limits: Definition, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"'{value}' is not a number")
    text = str(value).strip()
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"'{value}' is not a number") from None
    if not number.is_finite():
        raise ValueError(f"'{value}' is not a finite number")
    _check_limits(limits, number, text)
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        text = str(number)  # such as +1, .5 or 01, which the service does not take as they are
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text) or len(text) > LONGEST_FLOAT:
        text = repr(float(number))
        if text in ("inf", "-inf"):
            raise ValueError(f"'{value}' is too large")
    return text


def _check_limits(limits: Definition, number: Decimal, text: str) -> None:
    low, high, allowed = _limit(limits, "minValue"), _limit(limits, "maxValue"), _choice(limits)
    if allowed is not None and number not in [_number(each, "allowedValues") for each in allowed]:
        raise ValueError(f"{text} is not one of {_some(allowed)}")
    if low is not None and number < low:
        raise ValueError(f"{text} is less than minValue {low}")
    if high is not None and number > high:
        raise ValueError(f"{text} is more than maxValue {high}")


def _limit(limits: Definition, name: str) -> Decimal | None:
    value = limits.get(name)
    return None if value is None else _number(value, name)


def _choice(limits: Definition) -> list[Any] | None:
    allowed = limits.get("allowedValues")
    if allowed is not None and not isinstance(allowed, list):
        raise ValueError("its definition has allowedValues that are no list")
    return allowed


def _number(value: Any, name: str) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise ValueError(f"its definition has {name} '{value}', which is no number")
    return number


def _check_bool(value: Any) -> str:
    if isinstance(value, float) and value in (0.0, 1.0):
        value = int(value)
    found = _BOOLS.get(str(value).lower())
    if found is None:
        raise ValueError(f"'{value}' is not one of {', '.join(_BOOLS)}")
    return "true" if found else "false"


def _check_range(limits: Definition, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{value}' is not a range such as 1-10:2,20")
    for part in value.split(","):
        match = _RANGE_PART.match(part)
        step = int(match[3]) if match and match[3] else 1
        if not match or step == 0:
            raise ValueError(f"'{value}' is not a range such as 1-10:2,20")
        if match[2] and (int(match[1]) > int(match[2])) != (step < 0) and int(match[1]) != int(match[2]):
            raise ValueError(f"the range '{part.strip()}' runs backwards")
    return _check_text(limits, value)


def _some(allowed: list[Any]) -> str:
    shown = [f"'{each}'" for each in allowed[:8]]
    return ", ".join(shown) + (f" and {len(allowed) - 8} more" if len(allowed) > 8 else "")
