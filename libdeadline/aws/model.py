"""What a service's operations look like, taken from botocore's own service models without importing botocore.

A model is compacted once, into one file a botocore version: a line that says where each operation stands, then one
line for each operation with the shapes that it reaches. A call reads two lines instead of a megabyte of JSON.
Source: botocore/data/<service>/<api version>/service-2.json and paginators-1.json.
"""

from __future__ import annotations

import os
import sys
from json import dumps, loads

from .. import statuses
from ..errors import Trouble

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING:
    from typing import Any

    Shape = dict[str, Any]
    """One shape as botocore's JSON has it, without documentation; its members name other shapes."""

FORMAT = 1  # of the cache file; part of its name
KEPT = ("type", "required", "min", "union", "document", "payload", "flattened", "timestampFormat", "retryable")
KEPT_OF_MEMBER = ("shape", "location", "locationName", "idempotencyToken", "timestampFormat", "flattened", "hostLabel")
KEPT_OF_SERVICE = (
    "apiVersion", "endpointPrefix", "jsonVersion", "protocol", "serviceId", "signingName", "targetPrefix",
)  # fmt: skip


class Operation:
    """One operation: how to ask, what comes back, what can go wrong, and how it is paged."""

    __slots__ = ("errors", "method", "name", "output", "pages", "parameters", "prefix", "shapes", "uri", "wrapper")

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.method: str = fields["method"]
        self.uri: str = fields["uri"]
        self.prefix: str = fields["prefix"]  # before the host, with its dot
        self.parameters: str | None = fields["input"]  # name of a shape
        self.output: str | None = fields["output"]  # name of a shape
        self.wrapper: str | None = fields["wrapper"]  # element around the result, in query answers
        self.errors: dict[str, str] = fields["errors"]  # code to name of a shape
        self.pages: dict[str, Any] | None = fields["pages"]  # as botocore's paginators-1.json has it
        self.shapes: dict[str, Shape] = fields["shapes"]

    def shape(self, name: str | None) -> Shape:
        return self.shapes[name] if name else {"type": "structure", "members": {}}


class Service:
    """One service: its metadata, and its operations as they are asked for."""

    def __init__(self, name: str, metadata: dict[str, str], index: dict[str, tuple[int, int]], body: bytes) -> None:
        self.name, self.metadata, self._index, self._body = name, metadata, index, body
        self._operations: dict[str, Operation] = {}

    @property
    def signing_name(self) -> str:
        return self.metadata.get("signingName") or self.metadata["endpointPrefix"]

    @property
    def operation_names(self) -> list[str]:
        return list(self._index)

    def operation(self, name: str) -> Operation:
        """Raises: Trouble (70) where the service has no such operation: the installed botocore may be too old."""
        operation = self._operations.get(name)
        if operation is None:
            try:
                start, size = self._index[name]
            except KeyError:
                raise Trouble(
                    f"the installed botocore does not know the operation '{name}' of '{self.name}': "
                    "install a newer botocore",
                    statuses.CONFIGURATION,
                ) from None
            operation = self._operations[name] = Operation(name, loads(self._body[start : start + size]))
        return operation


_services: dict[str, Service] = {}


def service(name: str) -> Service:
    """The service that botocore calls `name` (deadline, logs, sts), from the cache where there is one.

    Raises: Trouble (78) where botocore isn't installed or doesn't know the service.
    """
    found = _services.get(name)
    if found is None:
        folder = botocore_folder()
        path = _cache_path(name, _version(folder))
        found = _cached(name, path)
        if found is None:
            data = compacted(name, folder)
            _keep(path, data)
            found = _opened(name, data)
        _services[name] = found
    return found


def compacted(name: str, botocore_folder: str) -> bytes:
    """The cache file's content for a service."""
    folder = os.path.join(botocore_folder, "data", name)
    try:
        version = max(os.listdir(folder))
        model = _read_json(os.path.join(folder, version, "service-2.json"))
    except (FileNotFoundError, ValueError):
        raise Trouble(
            f"the installed botocore has no service '{name}': install boto3 1.42 or newer", statuses.CONFIGURATION
        ) from None
    pages: dict[str, Any] = {}
    for extra in ("paginators-1.json", "paginators-1.sdk-extras.json"):
        try:
            found = _read_json(os.path.join(folder, version, extra))
        except FileNotFoundError:
            continue
        for operation, more in found.get("merge", found)["pagination"].items():
            pages.setdefault(operation, {}).update(more)
    lines: list[bytes] = []
    index: dict[str, tuple[int, int]] = {}
    start = 0
    for operation in sorted(model["operations"]):
        line = dumps(_slice(model, operation, pages.get(operation)), separators=(",", ":")).encode()
        index[operation] = (start, len(line))
        start += len(line) + 1
        lines.append(line)
    metadata = {key: model["metadata"][key] for key in KEPT_OF_SERVICE if key in model["metadata"]}
    head = dumps({"metadata": metadata, "index": index, "size": start}, separators=(",", ":")).encode()
    return b"\n".join([head, *lines, b""])


def _slice(model: dict[str, Any], name: str, pages: dict[str, Any] | None) -> dict[str, Any]:
    operation = model["operations"][name]
    shapes: dict[str, Shape] = {}
    errors = {}
    for error in operation.get("errors", ()):
        shape = error["shape"]
        errors[model["shapes"][shape].get("error", {}).get("code", shape)] = shape
    output = operation.get("output", {})
    wanted = [operation.get("input", {}).get("shape"), output.get("shape"), *errors.values()]
    while wanted:
        each = wanted.pop()
        if not each or each in shapes:
            continue
        full = model["shapes"][each]
        shape = shapes[each] = {key: full[key] for key in KEPT if key in full}
        if "members" in full:
            shape["members"] = {
                member: {key: value for key, value in of.items() if key in KEPT_OF_MEMBER}
                for member, of in full["members"].items()
            }
            wanted += [of["shape"] for of in full["members"].values()]
        for part in ("member", "key", "value"):
            if part in full:
                shape[part] = {key: value for key, value in full[part].items() if key in KEPT_OF_MEMBER}
                wanted.append(full[part]["shape"])
    return {
        "method": operation["http"].get("method", "POST"),
        "uri": operation["http"].get("requestUri", "/"),
        "prefix": operation.get("endpoint", {}).get("hostPrefix", ""),
        "input": operation.get("input", {}).get("shape"),
        "output": output.get("shape"),
        "wrapper": output.get("resultWrapper"),
        "errors": errors,
        "pages": pages,
        "shapes": shapes,
    }


def _opened(name: str, data: bytes) -> Service:
    line, _, body = data.partition(b"\n")
    head = loads(line)
    if head["size"] != len(body):
        raise ValueError("cut off")
    return Service(name, head["metadata"], head["index"], body)


def _cached(name: str, path: str) -> Service | None:
    try:
        with open(path, "rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_uid not in (0, os.getuid()):
                return None
            return _opened(name, file.read())
    except (OSError, ValueError, KeyError):
        return None


def _keep(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        pass  # a host without a writable home does without: each start is some 60 ms slower


def _cache_path(name: str, version: str) -> str:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "deadline-tools", f"aws-{name}-{version}-{FORMAT}.json")


def botocore_folder() -> str:
    for entry in sys.path:
        folder = os.path.join(entry or ".", "botocore")
        if os.path.isfile(os.path.join(folder, "__init__.py")):
            return folder
    try:
        import botocore  # in an archive or behind an import hook
    except ImportError:
        raise Trouble("botocore is not installed: install boto3", statuses.CONFIGURATION) from None
    return os.path.dirname(str(botocore.__file__))


def _version(folder: str) -> str:
    with open(os.path.join(folder, "__init__.py"), encoding="utf-8") as file:
        for line in file:
            if line.startswith("__version__"):
                return line.partition("=")[2].strip().strip("'\"")
    return "unknown"


def _read_json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return loads(file.read())
    except FileNotFoundError:
        from gzip import open as open_gzip

        with open_gzip(path + ".gz", "rb") as packed:
            return loads(packed.read())
