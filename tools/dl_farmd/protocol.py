"""The wire format, compiled from botocore's own service model: routes, requests in, responses out, checks of both.

A timestamp inside the service is an integer: milliseconds since the epoch.
Source: spec/service.md section 2; Smithy restJson1 and awsJson1.1.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_plus

import orjson

from .errors import ServiceError, UnknownOperation, Validation

JSON = dict[str, Any]
Check = Callable[[Any, str, JSON], Any]  # (value, member path, faults by path) -> value in internal form
Render = Callable[[Any], Any]
MAX_FAULTS = 20  # reported per request


def to_iso(time_ms: int) -> str:
    """`time_ms` as ISO 8601 in UTC with milliseconds and Z."""
    seconds, ms = divmod(int(time_ms), 1000)
    return f"{_iso_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=4096)
def _iso_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def from_iso(text: str) -> int:
    """Milliseconds since the epoch of an ISO 8601 text; without an offset it is UTC.

    Raises: ValueError.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000 + 0.5)


class Operation:
    """One operation: how its request is read and checked, and its response is written.

    `token` names the member that makes it idempotent, if any. `mutates` tells whether it may write.
    """

    __slots__ = (
        "name", "method", "path", "status", "host", "token", "mutates", "labels", "queries", "headers", "check",
        "render", "check_output", "has_output", "body_members",
    )  # fmt: skip

    name: str
    method: str
    path: str
    status: int
    host: str
    token: str | None
    mutates: bool
    labels: list[str]
    queries: dict[str, tuple[str, str]]
    headers: dict[str, tuple[str, str]]
    check: Check
    render: Render
    check_output: Check | None
    has_output: bool
    body_members: frozenset[str]

    def parse(self, labels: list[str], query: str, headers: dict[str, str], body: bytes) -> JSON:
        """The checked parameters of a request, by member name, absent members left out.

        Raises: Validation.
        """
        params: JSON = {}
        if body and self.body_members:
            try:
                given = orjson.loads(body)
            except orjson.JSONDecodeError:
                raise Validation("The request body is not valid JSON.", reason="CANNOT_PARSE") from None
            if given is not None:
                if not isinstance(given, dict):
                    raise Validation("The request body must be a JSON object.", reason="CANNOT_PARSE")
                params = {name: value for name, value in given.items() if name in self.body_members}
        for name, text in zip(self.labels, labels, strict=True):
            params[name] = unquote(text) if "%" in text else text
        if self.queries and query:
            for part in query.split("&"):
                key, _, text = part.partition("=")
                member = self.queries.get(unquote_plus(key))
                if member is not None:
                    name, kind = member
                    value = unquote_plus(text)
                    if kind == "list":
                        params.setdefault(name, []).append(value)
                    else:
                        params[name] = _from_text(value, kind)
        for header, (name, kind) in self.headers.items():
            if header in headers:
                params[name] = _from_text(headers[header], kind)
        faults: JSON = {}
        params = self.check(params, "", faults)
        if faults:
            raise validation(faults)
        return params

    def answer(self, result: JSON) -> bytes:
        """The response body of `result` (member names to values in internal form; unknown ones are dropped)."""
        return orjson.dumps(self.render(result))

    def faults_of(self, body: bytes) -> JSON:
        """What in a response body breaks the output shape: member path to fault; empty where it fits."""
        faults: JSON = {}
        if self.check_output is not None:
            self.check_output(orjson.loads(body), "", faults)
        return faults


def validation(faults: JSON) -> Validation:
    """The ValidationException that lists `faults` (member path to what is wrong)."""
    count = len(faults)
    listed = "; ".join(f"Value at '{name}' failed to satisfy constraint: {text}" for name, text in faults.items())
    return Validation(f"{count} validation error{'s' if count > 1 else ''} detected: {listed}", faults)


class Model:
    """The compiled operations of one service, and the routes to them."""

    def __init__(self, service: str, only: Iterable[str] | None = None) -> None:
        """Load botocore's newest model of `service`; with `only`, just these operations."""
        document = _load(service)
        self.shapes: dict[str, JSON] = document["shapes"]
        self._checks: dict[tuple[str, bool], list[Check]] = {}
        self._renders: dict[str, list[Render]] = {}
        self.operations: dict[str, Operation] = {}
        self._routes: dict[str, JSON] = {}
        wanted = set(only) if only is not None else None
        for name, description in document["operations"].items():
            if wanted is None or name in wanted:
                operation = self._compile(name, description)
                self.operations[name] = operation
                self._add_route(operation)

    def route(self, method: str, path: str) -> tuple[Operation, list[str]]:
        """The operation at a raw path, and its labels still encoded.

        Raises: UnknownOperation.
        """
        node = self._routes.get(method)
        labels: list[str] = []
        if node is not None:
            for segment in path[1:].split("/"):
                following = node.get(segment)
                if following is None:
                    following = node.get("{}")
                    if following is None:
                        break
                    labels.append(segment)
                node = following
            else:
                operation = node.get(".")
                if operation is not None:
                    return operation, labels
        raise UnknownOperation(f"No operation is at {method} {path}.")

    def _add_route(self, operation: Operation) -> None:
        node = self._routes.setdefault(operation.method, {})
        for segment in operation.path[1:].split("/"):
            node = node.setdefault("{}" if segment.startswith("{") else segment, {})
        node["."] = operation

    def _compile(self, name: str, description: JSON) -> Operation:
        operation = Operation()
        http = description["http"]
        operation.name, operation.method = name, http["method"]
        operation.path = http["requestUri"].partition("?")[0]
        operation.status = http.get("responseCode", 200)
        operation.host = description.get("endpoint", {}).get("hostPrefix", "").rstrip(".")
        operation.mutates = not (http["method"] == "GET" or name.startswith(("Search", "BatchGet")))
        operation.labels = re.findall(r"\{([^}]+)\}", operation.path)
        operation.queries, operation.headers, operation.token = {}, {}, None
        shape = self.shapes[description["input"]["shape"]] if "input" in description else {"members": {}}
        body = set()
        labels: dict[str, str] = {}
        for member, reference in shape["members"].items():
            location, wire = reference.get("location"), reference.get("locationName", member)
            kind = self.shapes[reference["shape"]]["type"]
            if location == "uri":
                labels[wire] = member
            elif location == "querystring":
                operation.queries[wire] = (member, kind)
            elif location == "header":
                operation.headers[wire.lower()] = (member, kind)
            else:
                body.add(member)
            if reference.get("idempotencyToken"):
                operation.token = member
        operation.labels = [labels[wire] for wire in operation.labels]
        operation.body_members = frozenset(body)
        operation.check = self._check(description["input"]["shape"]) if "input" in description else _check_nothing
        output = description.get("output", {}).get("shape")
        operation.has_output = bool(output)
        operation.render = self._render(output) if output else _render_nothing
        operation.check_output = self._check(output, lenient=True) if output else None
        return operation

    def _check(self, name: str, lenient: bool = False) -> Check:
        """The check of shape `name`. `lenient` is for output: a union may hold members that we do not know."""
        key = (name, lenient)
        if key in self._checks:
            return self._late(self._checks[key])
        self._checks[key] = []
        check = self._make_check(self.shapes[name], lenient)
        self._checks[key].append(check)
        return check

    @staticmethod
    def _late(cell: list[Check]) -> Check:
        if cell:
            return cell[0]

        def later(value: Any, path: str, faults: JSON) -> Any:  # a recursive shape
            return cell[0](value, path, faults)

        return later

    def _make_check(self, shape: JSON, lenient: bool) -> Check:
        kind = shape["type"]
        if shape.get("document"):
            return _check_document
        if kind == "structure":
            members = {
                member: self._check(reference["shape"], lenient) for member, reference in shape["members"].items()
            }
            required = tuple(shape.get("required", ()))
            return _structure_check(members, required, bool(shape.get("union")))
        if kind == "list":
            return _list_check(self._check(shape["member"]["shape"], lenient), shape.get("min"), shape.get("max"))
        if kind == "map":
            return _map_check(
                self._check(shape["key"]["shape"], lenient),
                self._check(shape["value"]["shape"], lenient),
                shape.get("min"),
                shape.get("max"),
            )
        if kind == "string":
            return _string_check(shape)
        if kind in ("integer", "long", "short"):
            return _integer_check(shape.get("min"), shape.get("max"), kind)
        if kind in ("float", "double"):
            return _number_check(shape.get("min"), shape.get("max"))
        if kind == "boolean":
            return _check_boolean
        if kind == "timestamp":
            return _check_timestamp
        raise ValueError(f"the service model has a shape of type '{kind}'")

    def _render(self, name: str) -> Render:
        if name in self._renders:
            cell = self._renders[name]
            return cell[0] if cell else lambda value: cell[0](value)
        self._renders[name] = []
        shape = self.shapes[name]
        kind = shape["type"]
        render: Render = _same
        if shape.get("document"):
            pass
        elif kind == "structure":
            plain: list[tuple[str, Render | None]] = []
            special: list[tuple[str, Render | None]] = []
            for member, reference in shape["members"].items():
                inner = self._render(reference["shape"])
                if inner is _same:
                    plain.append((member, None))
                else:
                    special.append((member, inner))
            render = _structure_render(tuple(plain + special))
        elif kind == "list":
            inner = self._render(shape["member"]["shape"])
            if inner is not _same:
                render = _list_render(inner)
        elif kind == "map":
            inner = self._render(shape["value"]["shape"])
            if inner is not _same:
                render = _map_render(inner)
        elif kind == "timestamp":
            render = to_iso
        self._renders[name].append(render)
        return render


def _load(service: str) -> JSON:
    # botocore's own loader would import a good part of botocore; its data files have a fixed layout.
    from importlib.util import find_spec

    spec = find_spec("botocore")
    if spec is None or spec.origin is None:
        raise RuntimeError("botocore is not installed")
    versions = sorted(Path(spec.origin).with_name("data").joinpath(service).iterdir())
    packed = versions[-1] / "service-2.json.gz"
    if packed.exists():
        return orjson.loads(gzip.decompress(packed.read_bytes()))  # type: ignore[no-any-return]
    return orjson.loads((versions[-1] / "service-2.json").read_bytes())  # type: ignore[no-any-return]


def _from_text(text: str, kind: str) -> Any:
    if kind in ("integer", "long") and re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text  # the check then says what is wrong with it


def _fault(faults: JSON, path: str, text: str) -> None:
    if len(faults) < MAX_FAULTS:
        faults.setdefault(path or "body", text)


def _check_nothing(value: Any, path: str, faults: JSON) -> Any:
    return {}


def _check_document(value: Any, path: str, faults: JSON) -> Any:
    return value


def _check_boolean(value: Any, path: str, faults: JSON) -> Any:
    if value is not True and value is not False:
        _fault(faults, path, "Member must be a boolean")
    return value


def _check_timestamp(value: Any, path: str, faults: JSON) -> Any:
    try:
        if isinstance(value, str):
            time_ms = from_iso(value)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        else:
            time_ms = int(value * 1000 + 0.5)
        if not -62135596800000 <= time_ms <= 253402300799999:  # the years 1 to 9999
            raise ValueError
        return time_ms
    except (ValueError, OverflowError):
        _fault(faults, path, "Member must be an ISO 8601 timestamp")
        return None


def _structure_check(members: dict[str, Check], required: tuple[str, ...], union: bool) -> Check:
    def check(value: Any, path: str, faults: JSON) -> Any:
        if not isinstance(value, dict):
            _fault(faults, path, "Member must be an object")
            return None
        result = {}
        prefix = path + "." if path else ""
        for name, item in value.items():
            inner = members.get(name)
            if inner is not None and item is not None:
                result[name] = inner(item, prefix + name, faults)
        for name in required:
            if name not in result:
                _fault(faults, prefix + name, "Member must not be null")
        if union and len(result) != 1:
            _fault(faults, path, f"Exactly one member of the union must be set: {', '.join(members)}")
        return result

    return check


def _list_check(inner: Check, minimum: int | None, maximum: int | None) -> Check:
    def check(value: Any, path: str, faults: JSON) -> Any:
        if not isinstance(value, list):
            _fault(faults, path, "Member must be a list")
            return None
        _check_length(len(value), minimum, maximum, path, faults)
        result = []
        for index, item in enumerate(value):
            if item is None:
                _fault(faults, f"{path}.{index + 1}.member", "Member must not be null")
            else:
                result.append(inner(item, f"{path}.{index + 1}.member", faults))
        return result

    return check


def _map_check(key_check: Check, value_check: Check, minimum: int | None, maximum: int | None) -> Check:
    def check(value: Any, path: str, faults: JSON) -> Any:
        if not isinstance(value, dict):
            _fault(faults, path, "Member must be a map")
            return None
        result = {}
        for key, item in value.items():
            key_check(key, f"{path}.key", faults)
            if item is not None:  # a null value in a map equals its absence
                result[key] = value_check(item, f"{path}.{key}.value", faults)
        _check_length(len(result), minimum, maximum, path, faults)
        return result

    return check


def _check_length(length: int, minimum: int | None, maximum: int | None, path: str, faults: JSON) -> None:
    if minimum is not None and length < minimum:
        _fault(faults, path, f"Member must have length greater than or equal to {minimum}")
    if maximum is not None and length > maximum:
        _fault(faults, path, f"Member must have length less than or equal to {maximum}")


def _string_check(shape: JSON) -> Check:
    minimum, maximum = shape.get("min"), shape.get("max")
    values = frozenset(shape["enum"]) if "enum" in shape else None
    pattern = shape.get("pattern")
    matches = _compiled(pattern).fullmatch if pattern else None
    listed = ", ".join(shape.get("enum", ()))

    def check(value: Any, path: str, faults: JSON) -> Any:
        if not isinstance(value, str):
            _fault(faults, path, "Member must be a string")
            return None
        if values is not None and value not in values:
            _fault(faults, path, f"Member must satisfy enum value set: [{listed}]")
        if minimum is not None and len(value) < minimum:
            _fault(faults, path, f"Member must have length greater than or equal to {minimum}")
        elif maximum is not None and len(value) > maximum:
            _fault(faults, path, f"Member must have length less than or equal to {maximum}")
        elif matches is not None and matches(value) is None:
            _fault(faults, path, f"Member must satisfy regular expression pattern: {pattern}")
        return value

    return check


def _compiled(pattern: str) -> re.Pattern[str]:
    # The models' patterns are Java's, where \w, \d and \s are ASCII alone; Python's re lacks the properties of Unicode.
    if r"\p{" not in pattern:
        return re.compile(pattern, re.ASCII)
    for java, python in ((r"\p{L}", r"\w"), (r"\p{N}", r"\d"), (r"\p{Z}", r"\s")):
        pattern = pattern.replace(java, python)
    return re.compile(pattern)


def _integer_check(minimum: float | None, maximum: float | None, kind: str) -> Check:
    bits = {"integer": 31, "short": 15}.get(kind, 63)
    low = -(1 << bits) if minimum is None else int(minimum)
    high = (1 << bits) - 1 if maximum is None else int(maximum)

    def check(value: Any, path: str, faults: JSON) -> Any:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            _fault(faults, path, "Member must be an integer")
            return None
        if value < low:
            _fault(faults, path, f"Member must have value greater than or equal to {low}")
        elif value > high:
            _fault(faults, path, f"Member must have value less than or equal to {high}")
        return value

    return check


def _number_check(minimum: float | None, maximum: float | None) -> Check:
    def check(value: Any, path: str, faults: JSON) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            _fault(faults, path, "Member must be a number")
            return None
        value = float(value)
        if minimum is not None and value < minimum:
            _fault(faults, path, f"Member must have value greater than or equal to {minimum:g}")
        elif maximum is not None and value > maximum:
            _fault(faults, path, f"Member must have value less than or equal to {maximum:g}")
        return value

    return check


def _same(value: Any) -> Any:
    return value


def _render_nothing(value: Any) -> Any:
    return {}


def _structure_render(members: tuple[tuple[str, Render | None], ...]) -> Render:
    def render(value: Any) -> Any:
        result = {}
        for name, inner in members:
            item = value.get(name)
            if item is not None:
                result[name] = item if inner is None else inner(item)
        return result

    return render


def _list_render(inner: Render) -> Render:
    return lambda value: [inner(item) for item in value]


def _map_render(inner: Render) -> Render:
    return lambda value: {key: inner(item) for key, item in value.items()}


def error_body(error: ServiceError) -> bytes:
    """The JSON body of an error answer."""
    return orjson.dumps({"message": error.message, **error.members})
