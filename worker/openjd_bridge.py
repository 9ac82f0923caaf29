"""From the service's job entities to what openjd-sessions takes.

Nothing here is strict about members that it doesn't know: the service may add some at any time.
Source: spec worker 1.8, 2.3, 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from libdeadline import statuses
from libdeadline.errors import Trouble

if TYPE_CHECKING:
    from openjd.model import ParameterValue, RevisionExtensions
    from openjd.sessions import PathMappingRule

# The service's name of a type to OpenJD's.
PARAMETER_TYPES = {
    "int": "INT",
    "float": "FLOAT",
    "string": "STRING",
    "path": "PATH",
    "chunkInt": "CHUNK[INT]",
    "bool": "BOOL",
    "rangeExpr": "RANGE_EXPR",
    "stringList": "LIST[STRING]",
    "pathList": "LIST[PATH]",
    "intList": "LIST[INT]",
    "floatList": "LIST[FLOAT]",
    "boolList": "LIST[BOOL]",
    "intListList": "LIST[LIST[INT]]",
}
TEMPLATE_VERSIONS = ("jobtemplate-2023-09", "environment-2023-09")


def parameter_values(parameters: Mapping[str, Mapping[str, Any]] | None) -> dict[str, ParameterValue]:
    """Job or task parameters as OpenJD has them.

    Raises: Trouble (65) for a type that isn't known: the worker is older than the farm.
    """
    from openjd.model import ParameterValue, ParameterValueType

    found = {}
    for name, typed in (parameters or {}).items():
        kind, value = next(iter(typed.items()))
        if kind not in PARAMETER_TYPES:
            raise Trouble(f"parameter '{name}' is of a type that this worker doesn't know: '{kind}'", statuses.DATA)
        type_ = ParameterValueType(PARAMETER_TYPES[kind])
        found[name] = ParameterValue(type=type_, value=_native(kind, value))
    return found


def _native(kind: str, value: Any) -> Any:
    if kind == "bool":
        return _boolean(value)
    if kind == "boolList":
        return [_boolean(each) for each in value]
    if kind in ("intList",):
        return [int(each) for each in value]
    if kind == "floatList":
        return [float(each) for each in value]
    if kind == "intListList":
        return [[int(each) for each in row] for row in value]
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in ("true", "yes", "on", "1", "1.0"):
        return True
    if text in ("false", "no", "off", "0", "0.0"):
        return False
    raise Trouble(f"not a boolean: '{value}'", statuses.DATA)


def session_extensions(extensions: Iterable[str] | None) -> RevisionExtensions:
    """What a session permits: every known extension if the job says nothing, else what it says and redaction."""
    from openjd.model import RevisionExtensions, SpecificationRevision
    from openjd.model.v2023_09 import ExtensionName

    known = {each.value for each in ExtensionName}
    wanted = known if extensions is None else {*extensions, "REDACTED_ENV_VARS"} & known
    return RevisionExtensions(spec_rev=SpecificationRevision.v2023_09, supported_extensions=sorted(wanted))


def step_template(entity: Mapping[str, Any]) -> Any:
    """The step template of a stepDetails entity, simple actions written out.

    Raises: Trouble (65) naming what is wrong with it.
    """
    from openjd.model.v2023_09 import StepTemplate

    template = entity["template"]
    if "name" not in template:
        template = {"name": "step", "script": template}  # an obsolete form: the script alone
    parsed = _parsed(StepTemplate, template, entity, f"step '{entity['stepId']}'")
    if parsed.script is None:
        parsed = parsed.resolve_syntax_sugar()
    return parsed


def environment_template(entity: Mapping[str, Any]) -> Any:
    """The environment of an environmentDetails entity.

    Raises: Trouble (65) naming what is wrong with it.
    """
    from openjd.model.v2023_09 import Environment

    return _parsed(Environment, entity["template"], entity, f"environment '{entity['environmentId']}'")


def _parsed(model: Any, template: Any, entity: Mapping[str, Any], what: str) -> Any:
    from openjd.model import DecodeValidationError, parse_model

    version = entity.get("schemaVersion")
    if version not in TEMPLATE_VERSIONS:
        raise Trouble(
            f"{what} is written in '{version}', which this worker doesn't know: a newer worker may", statuses.DATA
        )
    try:
        return parse_model(model=model, obj=template, supported_extensions=list(entity.get("extensions") or []))
    except (DecodeValidationError, ValueError, TypeError) as error:
        raise Trouble(f"cannot read {what}: {error}", statuses.DATA) from None


def symbol_table(entity: Mapping[str, Any] | None) -> Any:
    """The table that the service resolved for this step or environment, or None.

    Raises: Trouble (65) if it isn't one.
    """
    text = (entity or {}).get("resolvedSymbolTable")
    if not text:
        return None
    from openjd.expr import SerializedSymbolTable

    try:
        return SerializedSymbolTable.from_json_str(text)
    except ValueError as error:
        raise Trouble(f"cannot read the resolved symbol table: {error}", statuses.DATA) from None


def path_mapping_rules(rules: Iterable[Mapping[str, str]]) -> list[PathMappingRule]:
    """Rules as the service writes them (sourcePathFormat, sourcePath, destinationPath), as OpenJD has them."""
    from openjd.sessions import PathFormat, PathMappingRule

    found = []
    for rule in rules:
        is_windows = rule["sourcePathFormat"].lower() == "windows"
        source: PurePath = (PureWindowsPath if is_windows else PurePosixPath)(rule["sourcePath"])
        found.append(
            PathMappingRule(
                source_path_format=PathFormat.WINDOWS if is_windows else PathFormat.POSIX,
                source_path=source,
                destination_path=PurePath(rule["destinationPath"]),
            )
        )
    return found
