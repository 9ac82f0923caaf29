"""From a job template and its parameter values to the rows of a job: everything that needs openjd-model.

It runs in a background thread: nothing here touches the database. Importing openjd.model takes up to a second,
so it happens in the functions, and `warm_up` does it ahead of the first job.
Source: spec/service.md section 6; the Open Job Description specification 2023-09.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from . import spaces

EXTENSIONS = ("TASK_CHUNKING", "REDACTED_ENV_VARS", "FEATURE_BUNDLE_1", "EXPR", "WRAP_ACTIONS")
SCHEMA_VERSION = "jobtemplate-2023-09"
MAX_TASKS = 1_000_000  # a job
TOO_MANY = f"The job has more than {MAX_TASKS:,} tasks, which is the most that one job can have."
MAX_MESSAGE = 4096  # characters of a failure's reason

# The API's kinds of job parameter values, by the template's types.
JOB_KINDS = {
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
TASK_KINDS = {"INT": "int", "FLOAT": "float", "STRING": "string", "PATH": "path", "CHUNK[INT]": "chunkInt"}


Task = tuple[str, int | None, int | None]


class Refused(Exception):
    """The job can't be made: the message says why, for the person who submitted it."""


@dataclass(slots=True)
class Document:
    """An environment or job template as text: `kind` is JSON or YAML; `label` names it in messages."""

    text: str
    kind: str
    label: str = "the job template"


@dataclass(slots=True)
class EnvironmentRow:
    """An environment as a session needs it: the environment object alone, and how to parse it."""

    name: str
    template: dict[str, Any]
    schema_version: str
    extensions: list[str]


@dataclass(slots=True)
class StepRow:
    """A step, its dependencies as positions of other steps, and its `count` tasks.

    `tasks` gives once, as they are needed, each task's parameters as JSON text, and for chunked steps its group and
    value: a million of them would not be held in memory.
    `chunks` is {parameter, size, target_s, contiguous}, `values` the (stride, content) of parameters: see spaces.py.
    """

    name: str
    template: dict[str, Any]
    description: str | None = None
    requirements: dict[str, Any] | None = None
    space: dict[str, Any] | None = None
    chunks: dict[str, Any] | None = None
    values: dict[str, tuple[int, list[Any]]] = field(default_factory=dict)
    symbol_table: str | None = None
    dependencies: list[int] = field(default_factory=list)
    environments: list[EnvironmentRow] = field(default_factory=list)
    count: int = 1
    tasks: Iterator[Task] = field(default_factory=lambda: iter([("{}", None, None)]))


@dataclass(slots=True)
class JobRows:
    """A job ready to be written."""

    name: str
    description: str | None
    parameters: dict[str, Any]
    definitions: list[dict[str, Any]]
    extensions: list[str]
    symbol_table: str | None
    environments: list[EnvironmentRow]
    steps: list[StepRow]


def warm_up() -> None:
    """Import what the first job would else wait for."""
    import openjd.model  # noqa: F401


def raw_name(text: str, kind: str) -> str:
    """The name that a template gives, before its format strings are resolved; cheap, since no one waits for a parse."""
    pattern = r'^name\s*:\s*(?:"((?:[^"\\]|\\.)*)"|\'((?:[^\']|\'\')*)\'|([^#\n]*))'
    if kind == "JSON":
        try:
            name = orjson.loads(text).get("name")
        except (ValueError, AttributeError):
            name = None
    else:
        found = re.search(pattern, text, re.MULTILINE)
        name = next((group for group in found.groups() if group), None) if found else None
    return name.strip()[:512] or "job" if isinstance(name, str) else "job"


def build(
    template: Document,
    given: dict[str, Any],
    queue_environments: list[Document],
    *,
    inherited: dict[str, Any] | None = None,
) -> JobRows:
    """The rows of the job that `template` makes of the parameter values `given` ({name: {kind: value}}).

    `queue_environments` are in the order in which sessions enter them. `inherited` are values of a job that this one
    is made after: they count where nothing is given, and names that this job does not know are passed over.
    Raises: Refused.
    """
    from pathlib import Path

    from openjd.model import (
        DecodeValidationError,
        DocumentType,
        FormatStringError,
        create_job_with_symbol_tables,
        decode_environment_template,
        decode_job_template,
        document_string_to_object,
        merge_job_parameter_definitions,
        preprocess_job_parameters,
    )
    from openjd.model import create_job as create_plain_job

    def decoded(document: Document, decode: Any) -> tuple[dict[str, Any], Any]:
        try:
            raw = document_string_to_object(document=document.text, document_type=DocumentType(document.kind))
            return raw, decode(template=raw, supported_extensions=list(EXTENSIONS))
        except (DecodeValidationError, NotImplementedError, RecursionError) as error:
            raise Refused(f"{document.label[0].upper()}{document.label[1:]} is not valid: {error}") from error

    raw, model = decoded(template, decode_job_template)
    outer = [decoded(document, decode_environment_template) for document in queue_environments]
    outer_models = [each for _, each in outer]
    try:
        definitions = merge_job_parameter_definitions(job_template=model, environment_templates=outer_models)
        types = {each.name: each.type.value for each in definitions}
        given = {**{name: value for name, value in (inherited or {}).items() if name in types}, **given}
        values = preprocess_job_parameters(
            job_template=model,
            job_parameter_values={name: _to_model(name, value, types.get(name)) for name, value in given.items()},
            job_template_dir=Path(),
            current_working_dir=Path(),
            allow_job_template_dir_walk_up=True,
            environment_templates=outer_models,
        )
        extensions = [str(getattr(each, "value", each)) for each in model.extensions or ()]
        with_expressions = "EXPR" in extensions or any("EXPR" in (each.extensions or ()) for each in outer_models)
        if with_expressions:
            made = create_job_with_symbol_tables(
                job_template=model, job_parameter_values=values, environment_templates=outer_models
            )
            job, table = made.job, made.job_symbol_table.to_json_str()
            step_tables = {name: each.to_json_str() for name, each in made.step_symbol_tables.items()}
        else:
            job = create_plain_job(job_template=model, job_parameter_values=values, environment_templates=outer_models)
            table, step_tables = None, {}
    except (DecodeValidationError, FormatStringError, ValueError, NotImplementedError) as error:
        raise Refused(str(error)) from error

    parameters = {name: _to_service(value, given.get(name)) for name, value in values.items()}
    environments = [
        EnvironmentRow(
            name=each_raw["environment"]["name"],
            template=each_raw["environment"],
            schema_version=each_raw["specificationVersion"],
            extensions=[str(name) for name in each_raw.get("extensions") or ()],
        )
        for each_raw, _ in outer
    ]
    environments += [
        EnvironmentRow(each["name"], each, SCHEMA_VERSION, extensions) for each in raw.get("jobEnvironments") or ()
    ]
    return JobRows(
        name=str(job.name),
        description=raw.get("description"),
        parameters=parameters,
        definitions=[_plain(each.model_dump(mode="json", exclude_none=True)) for each in definitions],
        extensions=extensions,
        symbol_table=table,
        environments=environments,
        steps=_steps(raw, job, extensions, step_tables),
    )


def _steps(raw: dict[str, Any], job: Any, extensions: list[str], tables: dict[str, str]) -> list[StepRow]:
    positions = {str(step.name): position for position, step in enumerate(job.steps)}
    rows, total = [], 0
    for step, template in zip(job.steps, raw["steps"], strict=True):
        name = str(step.name)
        row = StepRow(name=name, template=_plain(template), description=template.get("description"))
        row.symbol_table = tables.get(name)
        row.dependencies = sorted({positions[str(each.dependsOn)] for each in step.dependencies or ()})
        row.environments = [
            EnvironmentRow(each["name"], each, SCHEMA_VERSION, extensions)
            for each in template.get("stepEnvironments") or ()
        ]
        row.requirements = _requirements(step.hostRequirements)
        total = _add_tasks(row, step, total)
        rows.append(row)
    return rows


def _requirements(host: Any) -> dict[str, Any] | None:
    if host is None:
        return None
    amounts = []
    for each in host.amounts or ():
        amount: dict[str, Any] = {"name": str(each.name)}
        for bound in ("min", "max"):
            if getattr(each, bound) is not None:
                amount[bound] = float(getattr(each, bound))
        amounts.append(amount)
    attributes = []
    for each in host.attributes or ():
        attribute: dict[str, Any] = {"name": str(each.name)}
        for member in ("anyOf", "allOf"):
            if getattr(each, member):
                attribute[member] = [str(value) for value in getattr(each, member)]
        attributes.append(attribute)
    return {"amounts": amounts, "attributes": attributes}


def _add_tasks(row: StepRow, step: Any, total: int) -> int:
    from openjd.model import StepParameterSpaceIterator

    space = step.parameterSpace
    if space is None:
        return total + 1
    definitions = space.taskParameterDefinitions
    kinds = {name: TASK_KINDS[each.type.value] for name, each in definitions.items()}
    chunked = next((name for name, kind in kinds.items() if kind == "chunkInt"), None)
    row.space = {"parameters": [_parameter(name, each) for name, each in definitions.items()]}
    if space.combination is not None:
        row.space["combination"] = str(space.combination)
    # Refused here, since for chunks the model makes a list of a range before it can be counted.
    if any(len(each.range) > MAX_TASKS for each in definitions.values()):
        raise Refused(TOO_MANY)
    if chunked is not None:
        chunks = definitions[chunked].chunks
        row.chunks = {
            "parameter": chunked,
            "size": int(chunks.defaultTaskCount),
            "target_s": int(chunks.targetRuntimeSeconds or 0),
            "contiguous": chunks.rangeConstraint.value == "CONTIGUOUS",
        }
    sets = StepParameterSpaceIterator(space=space, chunks_task_count_override=1 if chunked else None)
    row.count = len(sets)
    if total + row.count > MAX_TASKS:
        raise Refused(TOO_MANY)
    if not row.count:
        raise Refused(f"Step '{row.name}' has no tasks: a range of its parameter space is empty.")
    strides = spaces.strides(
        row.space.get("combination"), {name: len(each.range) for name, each in definitions.items()}
    )
    row.values = {name: (strides[name], _content(each.range)) for name, each in definitions.items()}
    row.tasks = _tasks(sets, kinds) if chunked is None else _chunked_tasks(sets, kinds, chunked)
    return total + row.count


def _content(values: Any) -> list[Any]:
    """A list, or an IntRangeExpr, as spaces.py keeps it."""
    if isinstance(values, list):
        return [str(value) for value in values]
    found = []
    for each in values.ranges:
        step = each[1] - each[0] if len(each) > 1 else 1
        found.append(range(each[0], each[0] + step * len(each), step))
    return spaces.ranges(found)


def _tasks(sets: Any, kinds: dict[str, str]) -> Iterator[Task]:
    for each in sets:
        parameters = {name: {kinds[name]: value.value} for name, value in each.items()}
        yield orjson.dumps(parameters).decode(), None, None


def _chunked_tasks(sets: Any, kinds: dict[str, str], chunked: str) -> Iterator[Task]:
    groups: dict[bytes, int] = {}
    for each in sets:
        # A single value comes as the range "5-5" or "5": the task is that value.
        found = re.fullmatch(r"(-?\d+)(?:-\1)?", each[chunked].value)
        if found is None:
            raise Refused(f"There is a chunk of one task that reads '{each[chunked].value}'.")
        parameters = {name: {kinds[name]: value.value} for name, value in each.items()}
        parameters[chunked] = {"chunkInt": found[1]}
        others = {name: value for name, value in parameters.items() if name != chunked}
        group = groups.setdefault(orjson.dumps(others, option=orjson.OPT_SORT_KEYS), len(groups))
        yield orjson.dumps(parameters).decode(), group, int(found[1])


def _parameter(name: str, definition: Any) -> dict[str, Any]:
    kind = definition.type.value
    result: dict[str, Any] = {"name": name, "type": "CHUNK_INT" if kind == "CHUNK[INT]" else kind}
    if definition.chunks is not None:
        chunks = definition.chunks
        result["chunks"] = {
            "defaultTaskCount": int(chunks.defaultTaskCount),
            "rangeConstraint": chunks.rangeConstraint.value,
        }
        if chunks.targetRuntimeSeconds is not None:
            result["chunks"]["targetRuntimeSeconds"] = int(chunks.targetRuntimeSeconds)
    return result


def _to_model(name: str, given: dict[str, Any], kind: str | None) -> Any:
    """A parameter value as openjd-model takes it, of the API's one-key object.

    Raises: Refused where a list was given for a scalar or the other way round.
    """
    ((_, value),) = given.items()
    if kind is None:
        return value  # unknown: the model says so, together with all others
    if isinstance(value, list) != kind.startswith("LIST"):
        raise Refused(f"Parameter {name} is of type {kind}: the value given for it is of another kind.")
    try:
        if kind == "LIST[INT]":
            return [int(item) for item in value]
        if kind == "LIST[FLOAT]":
            return [float(item) for item in value]
        if kind == "LIST[LIST[INT]]":
            return [[int(item) for item in inner] for inner in value]
    except (ValueError, TypeError):
        raise Refused(f"Parameter {name} is of type {kind}: an item given for it is no number.") from None
    return value


def _to_service(value: Any, given: dict[str, Any] | None) -> dict[str, Any]:
    kind = JOB_KINDS[value.type.value]
    if kind == "path" and given is not None:
        return {kind: next(iter(given.values()))}  # the model tidies relative paths; the submitter's spelling stands
    return {kind: _text(value.value)}


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    return str(value)


def _plain(document: Any) -> Any:
    """`document` with nothing in it that JSON has not: YAML makes dates, decimals and other keys of some words."""
    import json

    return json.loads(json.dumps(document, default=str))
