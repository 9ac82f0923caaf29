"""Requests from parameters and results from answers, in the three protocols that render farms speak.

rest-json (Deadline Cloud), json 1.1 (CloudWatch Logs) and query with XML answers (STS). Byte for byte what botocore
sends, and what it makes of the answers; a test compares the two for every operation.
Source: Smithy, AWS restJson1, awsJson1_1 and awsQuery protocols; botocore's serialize, parsers and validate modules.
"""

from __future__ import annotations

import re
from datetime import UTC
from json import dumps, loads
from urllib.parse import quote

from .. import statuses
from ..errors import Trouble

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from typing import Any
    from xml.etree.ElementTree import Element

    from .model import Operation, Service, Shape

SAFE = "-._~"
# What reading an answer of another shape than the model's can raise.
UNREADABLE = (ValueError, TypeError, AttributeError, KeyError, ArithmeticError, RecursionError)


class Request:
    """What goes over the wire, but for the host and the signature."""

    __slots__ = ("body", "headers", "method", "path", "query")

    def __init__(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.query, self.headers, self.body = method, path, query, headers, body


class BadAnswer(Exception):
    """The service answered something that can't be read; asking again may help."""


def request(service: Service, operation: Operation, parameters: dict[str, Any]) -> Request:
    """The request that asks for `operation`; idempotency tokens are filled in.

    Raises: Trouble (65) naming the parameters that are missing, unknown, of the wrong type or too small.
    """
    shape = operation.shape(operation.parameters)
    parameters = _with_tokens(operation, shape, parameters)
    faults = list(_faults(operation, shape, parameters, ""))
    if faults:
        raise Trouble(" ".join(f"cannot ask for {operation.name}: {'; '.join(faults)}".split()), statuses.DATA)
    protocol = service.metadata["protocol"]
    if protocol == "rest-json":
        return _rest_request(operation, shape, parameters)
    if protocol == "json":
        headers = {
            "X-Amz-Target": f"{service.metadata['targetPrefix']}.{operation.name}",
            "Content-Type": f"application/x-amz-json-{service.metadata['jsonVersion']}",
        }
        body = dumps(_to_json(operation, shape, parameters, {}, "unixTimestamp")).encode()
        return Request("POST", "/", "", headers, body)
    from urllib.parse import urlencode

    pairs = [("Action", operation.name), ("Version", service.metadata["apiVersion"])]
    pairs += _to_query(operation, shape, parameters, {}, "")
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    return Request("POST", "/", "", headers, urlencode(pairs).encode())


def result(service: Service, operation: Operation, status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """What an answer below 300 says, in botocore's shape but without ResponseMetadata.

    Raises: BadAnswer.
    """
    shape = operation.shape(operation.output)
    try:
        if service.metadata["protocol"] == "query":
            return _query_result(operation, shape, body)
        lenient = service.metadata["protocol"] == "rest-json"
        found = _from_json(operation, shape, loads(body) if body else {}, {}, lenient)
        if lenient:
            found = {**_from_headers(operation, shape, headers), **found}
        return found if isinstance(found, dict) else {}
    except UNREADABLE as error:
        raise BadAnswer(f"{operation.name}: the answer can't be read: {error}") from None


def failure(
    service: Service, operation: Operation, status: int, headers: dict[str, str], body: bytes
) -> tuple[str, str, dict[str, Any]]:
    """(code, message, modelled members) of an answer that is an error."""
    text = body.strip()
    if status >= 500 and (not text or text.startswith(b"<html>")):
        from http import HTTPStatus

        return str(status), HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "", {}
    if service.metadata["protocol"] == "query":
        return _query_failure(operation, status, body)
    try:
        fields = loads(body) if body else {}
    except (ValueError, RecursionError):
        fields = {"message": body.decode("utf-8", "replace")}
    if not isinstance(fields, dict):
        fields = {"message": str(fields)}
    code: Any = fields.get("__type", str(status))
    if service.metadata["protocol"] == "rest-json":
        code = headers.get("x-amzn-errortype", fields.get("code", fields.get("Code", code)))
    code = str(code).split(":", 1)[0].rsplit("#", 1)[-1]
    message = str(fields.get("message", fields.get("Message", "")) or "")
    members: dict[str, Any] = {}
    if code in operation.errors:
        shape = operation.shapes[operation.errors[code]]
        try:
            lenient = service.metadata["protocol"] == "rest-json"
            members = _from_json(operation, shape, fields, {}, lenient)
            members = {**_from_headers(operation, shape, headers), **members}
        except UNREADABLE:
            members = {}
    return code, message, members


# Parameters: checks


def _with_tokens(operation: Operation, shape: Shape, parameters: dict[str, Any]) -> dict[str, Any]:
    for name, member in shape.get("members", {}).items():
        if member.get("idempotencyToken") and name not in parameters:
            parameters = {**parameters, name: new_token()}
    return parameters


def new_token() -> str:
    """A random UUID (version 4); importing `uuid` for it would cost as much as the whole request."""
    from os import urandom

    number = urandom(16)
    digits = bytes([*number[:6], number[6] & 0x0F | 0x40, number[7], number[8] & 0x3F | 0x80, *number[9:]]).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "text"),
    "integer": ((int,), "a whole number"),
    "long": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "double": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "structure": ((dict,), "an object"),
    "map": ((dict,), "an object"),
    "list": ((list, tuple), "a list"),
    "blob": ((bytes, bytearray, str), "bytes"),
}


def _faults(operation: Operation, shape: Shape, value: Any, name: str) -> Iterator[str]:
    kind = shape["type"]
    at = f"'{name}'" if name else "the parameters"
    if shape.get("document"):
        if not isinstance(value, (dict, list, str, int, float, bool)) and value is not None:
            yield f"{at} must be plain JSON, not {type(value).__name__}"
        return
    if kind == "timestamp":
        try:
            _moment(value)
        except (ValueError, TypeError, AttributeError, OverflowError):
            yield f"{at} must be a time, not {_shown(value)}"
        return
    types, called = TYPES[kind]
    if not isinstance(value, types):
        from decimal import Decimal

        if not (kind in ("float", "double") and isinstance(value, Decimal)):
            yield f"{at} must be {called}, not {_shown(value)}"
            return
    if kind == "structure":
        members = shape["members"]
        if shape.get("union") and len(value) != 1:
            yield f"{at} must have exactly one of {', '.join(members)}"
        for required in shape.get("required", ()):
            if required not in value:
                yield f"'{name + '.' if name else ''}{required}' is missing"
        for key, part in value.items():
            if key not in members:
                yield f"'{name + '.' if name else ''}{key}' is not one of {', '.join(members)}"
            else:
                yield from _faults(
                    operation, operation.shapes[members[key]["shape"]], part, f"{name}.{key}" if name else key
                )
    elif kind == "list":
        member = operation.shapes[shape["member"]["shape"]]
        for number, part in enumerate(value):
            yield from _faults(operation, member, part, f"{name}[{number}]")
    elif kind == "map":
        key_shape, value_shape = (operation.shapes[shape[part]["shape"]] for part in ("key", "value"))
        for key, part in value.items():
            yield from _faults(operation, key_shape, key, f"{name} (key: {key})")
            yield from _faults(operation, value_shape, part, f"{name}.{key}")
    minimum = shape.get("min")
    if minimum is not None:
        if kind in ("integer", "long", "float", "double"):
            if value < minimum:
                yield f"{at} must be at least {minimum}, not {value}"
        elif kind in ("string", "list") and len(value) < minimum:
            unit = "characters" if kind == "string" else "entries"
            yield f"{at} must have at least {minimum} {unit}" if minimum > 1 else f"{at} must not be empty"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# Parameters: on the wire


def _rest_request(operation: Operation, shape: Shape, parameters: dict[str, Any]) -> Request:
    labels: dict[str, Any] = {}
    query: list[str] = []
    headers: dict[str, str] = {}
    rest: dict[str, Any] = {}
    members = shape.get("members", {})
    for name, value in parameters.items():
        if value is None:
            continue
        member = members[name]
        location, wire_name = member.get("location"), member.get("locationName", name)
        of = operation.shapes[member["shape"]]
        if location == "uri":
            labels[wire_name] = _plain(of, member, value)
        elif location == "querystring":
            if isinstance(value, dict):
                pairs = [
                    (key, each) for key, more in value.items() for each in (more if type(more) is list else [more])
                ]
            elif of["type"] == "list":
                item, item_member = operation.shapes[of["member"]["shape"]], of["member"]
                pairs = [(wire_name, _plain(item, item_member, each)) for each in value]
            else:
                pairs = [(wire_name, _plain(of, member, value))]
            query += [f"{_encoded(key)}={_encoded(each)}" for key, each in pairs]
        elif location == "header":
            headers[wire_name] = str(_plain(of, {"timestampFormat": "rfc822", **member}, value))
        else:
            rest[name] = value

    def fill(match: re.Match[str]) -> str:
        label = match[1]
        return _encoded(labels[label[:-1]], "/~") if label.endswith("+") else _encoded(labels[label])

    path = re.sub(r"\{(.*?)\}", fill, operation.uri)
    body = b""
    if rest:
        body = dumps(_to_json(operation, shape, rest, {}, "unixTimestamp")).encode()
    elif any("location" not in member for member in members.values()):
        body = b"{}"
    if body:
        headers["Content-Type"] = "application/json"
    path, _, fixed = path.partition("?")
    return Request(operation.method, path, "&".join([fixed, *query] if fixed else query), headers, body)


def _plain(shape: Shape, member: dict[str, Any], value: Any) -> Any:
    """A value in a path, a query or a header."""
    kind = shape["type"]
    if kind == "boolean":
        return str(value).lower()
    if kind == "timestamp":
        return _time_text(value, member.get("timestampFormat") or shape.get("timestampFormat") or "iso8601")
    if kind in ("float", "double"):
        return str(_number(value))
    return value


def _to_json(operation: Operation, shape: Shape, value: Any, member: dict[str, Any], time_format: str) -> Any:
    kind = shape["type"]
    if shape.get("document"):
        return value
    if kind == "structure":
        members = shape["members"]
        return {
            members[key].get("locationName", key): _to_json(
                operation, operation.shapes[members[key]["shape"]], part, members[key], time_format
            )
            for key, part in value.items()
        }
    if kind == "list":
        item = operation.shapes[shape["member"]["shape"]]
        return [_to_json(operation, item, part, shape["member"], time_format) for part in value]
    if kind == "map":
        item = operation.shapes[shape["value"]["shape"]]
        return {key: _to_json(operation, item, part, shape["value"], time_format) for key, part in value.items()}
    if kind == "timestamp":
        return _time_text(value, member.get("timestampFormat") or shape.get("timestampFormat") or time_format)
    if kind == "blob":
        return _base64(value)
    if kind in ("float", "double"):
        return _number(value)
    return value


def _to_query(
    operation: Operation, shape: Shape, value: Any, member: dict[str, Any], prefix: str
) -> list[tuple[str, str]]:
    kind = shape["type"]
    pairs: list[tuple[str, str]] = []
    if kind == "structure":
        for key, part in value.items():
            of = shape["members"][key]
            name = of.get("locationName", key)
            name = f"{prefix}.{name}" if prefix else name
            pairs += _to_query(operation, operation.shapes[of["shape"]], part, of, name)
        return pairs
    if kind == "list":
        if not value:
            return [(prefix, "")]
        of = shape["member"]
        flat = member.get("flattened") or shape.get("flattened")
        if not flat:
            prefix = f"{prefix}.{of.get('locationName', 'member')}"
        elif of.get("locationName"):
            prefix = ".".join([*prefix.split(".")[:-1], of["locationName"]])
        for number, part in enumerate(value, 1):
            pairs += _to_query(operation, operation.shapes[of["shape"]], part, of, f"{prefix}.{number}")
        return pairs
    if kind == "map":
        prefix = prefix if member.get("flattened") or shape.get("flattened") else f"{prefix}.entry"
        for number, (key, part) in enumerate(value.items(), 1):
            for side, default, each in (("key", "key", key), ("value", "value", part)):
                of = shape[side]
                name = f"{prefix}.{number}.{of.get('locationName', default)}"
                pairs += _to_query(operation, operation.shapes[of["shape"]], each, of, name)
        return pairs
    if kind == "blob":
        return [(prefix, _base64(value))]
    if kind == "timestamp":
        text = _time_text(value, member.get("timestampFormat") or shape.get("timestampFormat") or "iso8601")
        return [(prefix, str(text))]
    if kind == "boolean":
        return [(prefix, "true" if value else "false")]
    return [(prefix, str(_number(value) if kind in ("float", "double") else value))]


def _encoded(value: Any, safe: str = SAFE) -> str:
    return quote(value if isinstance(value, (str, bytes)) else str(value), safe=safe)


def _base64(value: bytes | str) -> str:
    from base64 import b64encode

    return b64encode(value.encode() if isinstance(value, str) else value).decode()


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float)):
        value = float(value)  # a Decimal
    if value == float("inf"):
        return "Infinity"
    if value == float("-inf"):
        return "-Infinity"
    return "NaN" if value != value else value


# Times


def _moment(value: Any) -> datetime:
    """A time that was given as a datetime, as epoch seconds or as text; without an offset it is UTC."""
    from datetime import datetime

    moment = value if isinstance(value, datetime) else parsed_time(value)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def parsed_time(value: Any) -> datetime:
    """An aware datetime of epoch seconds, an RFC 3339 text or an RFC 822 text.

    Raises: ValueError, TypeError.
    """
    from datetime import datetime, timedelta

    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                from email.utils import parsedate_to_datetime

                moment = parsedate_to_datetime(value)
                return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        else:
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value)


def _time_text(value: Any, time_format: str) -> Any:
    """A time on the wire: text, or a number of seconds for unixTimestamp."""
    moment = _moment(value)
    if time_format.lower() == "iso8601":
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if moment.microsecond else "%Y-%m-%dT%H:%M:%SZ")
    from calendar import timegm

    seconds = timegm(moment.timetuple())
    if time_format.lower() == "rfc822":
        from email.utils import formatdate

        return formatdate(seconds, usegmt=True)
    return (seconds * 10**6 + moment.microsecond) / 10**6 if moment.microsecond else seconds


# Answers


def _from_json(operation: Operation, shape: Shape, value: Any, member: dict[str, Any], lenient: bool) -> Any:
    """A value of an answer; `lenient` makes a number of a text, as rest-json does."""
    kind = shape["type"]
    shapes = operation.shapes
    if kind == "structure":
        if shape.get("document") or value is None:
            return value
        members = shape["members"]
        if shape.get("union"):
            tags = [key for key, part in value.items() if part is not None and key != "__type"]
            if len(tags) != 1:
                raise ValueError(f"{len(tags)} members in a union")
            if tags[0] not in [of.get("locationName", key) for key, of in members.items()]:
                return {"SDK_UNKNOWN_MEMBER": {"name": next(iter(value))}}
        parsed = {}
        for key, of in members.items():
            raw = value.get(of.get("locationName", key))
            if raw is not None:
                parsed[key] = _from_json(operation, shapes[of["shape"]], raw, of, lenient)
        return parsed
    if kind == "list":
        of = shape["member"]
        item = shapes[of["shape"]]
        return [None if part is None else _from_json(operation, item, part, of, lenient) for part in value]
    if kind == "map":
        of = shape["value"]
        item = shapes[of["shape"]]
        return {key: _from_json(operation, item, part, of, lenient) for key, part in value.items()}
    if kind == "timestamp":
        return parsed_time(value)
    if kind == "blob":
        from base64 import b64decode

        return b64decode(value)
    if lenient:
        if kind in ("integer", "long"):
            return int(value)
        if kind in ("float", "double"):
            return float(value)
        if kind == "boolean":
            return value if isinstance(value, bool) else isinstance(value, str) and value.lower() == "true"
    return value


def _from_headers(operation: Operation, shape: Shape, headers: dict[str, str]) -> dict[str, Any]:
    found = {}
    for name, member in shape.get("members", {}).items():
        wire_name = member.get("locationName", name).lower()
        if member.get("location") == "header" and wire_name in headers:
            of = operation.shapes[member["shape"]]
            found[name] = _from_json(operation, of, headers[wire_name], member, True)
    return found


def _query_result(operation: Operation, shape: Shape, body: bytes) -> dict[str, Any]:
    root = _xml(body)
    if operation.wrapper:
        inner = next((child for child in root if _tag(child) == operation.wrapper), None)
        root = root if inner is None else inner
    found = _from_xml(operation, shape, root, {})
    return found if isinstance(found, dict) else {}


def _query_failure(operation: Operation, status: int, body: bytes) -> tuple[str, str, dict[str, Any]]:
    try:
        root = _xml(body)
    except ValueError:
        return str(status), body.decode("utf-8", "replace").strip(), {}
    error = next((node for node in root.iter() if _tag(node) == "Error"), root)
    texts = {_tag(child): child.text or "" for child in error}
    code = texts.get("Code", str(status))
    members: dict[str, Any] = {}
    if code in operation.errors:
        try:
            members = _from_xml(operation, operation.shapes[operation.errors[code]], error, {})
        except UNREADABLE:
            members = {}
    return code, texts.get("Message", ""), members


def _xml(body: bytes) -> Element:
    from xml.etree.ElementTree import ParseError, fromstring

    try:
        return fromstring(body)
    except ParseError as error:
        raise ValueError(str(error)) from None


def _tag(node: Element) -> str:
    return node.tag.rpartition("}")[2]


def _from_xml(operation: Operation, shape: Shape, node: Element, member: dict[str, Any]) -> Any:
    kind = shape["type"]
    shapes = operation.shapes
    if kind == "structure":
        parsed: dict[str, Any] = {}
        for key, of in shape["members"].items():
            inner = shapes[of["shape"]]
            name = of.get("locationName", key)
            if inner["type"] in ("list", "map") and (of.get("flattened") or inner.get("flattened")):
                if inner["type"] == "list":
                    name = inner["member"].get("locationName", name)
                nodes = [child for child in node if _tag(child) == name]
                if nodes:
                    parsed[key] = _from_xml_nodes(operation, inner, nodes)
                continue
            child = next((child for child in node if _tag(child) == name), None)
            if child is not None:
                parsed[key] = _from_xml(operation, inner, child, of)
        return parsed
    if kind in ("list", "map"):
        return _from_xml_nodes(operation, shape, list(node))
    text = node.text or ""
    if kind == "timestamp":
        return parsed_time(text)
    if kind in ("integer", "long"):
        return int(text)
    if kind in ("float", "double"):
        return float(text)
    if kind == "boolean":
        return text == "true"
    if kind == "blob":
        from base64 import b64decode

        return b64decode(text)
    return text


def _from_xml_nodes(operation: Operation, shape: Shape, nodes: list[Element]) -> Any:
    if shape["type"] == "list":
        item = operation.shapes[shape["member"]["shape"]]
        return [_from_xml(operation, item, each, shape["member"]) for each in nodes]
    parsed = {}
    names = [shape[side].get("locationName", side) for side in ("key", "value")]
    for entry in nodes:
        sides = {_tag(child): child for child in entry}
        key, value = (
            _from_xml(operation, operation.shapes[shape[side]["shape"]], sides[name], {})
            for side, name in zip(("key", "value"), names, strict=True)
        )
        parsed[key] = value
    return parsed
