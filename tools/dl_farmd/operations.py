"""The table of operations: a module of this package adds its own with the decorator `operation`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auth import Principal
    from .farm import Farm
    from .protocol import Operation

OPERATIONS: dict[str, Callable[[Call], dict[str, Any] | None]] = {}


class Call:
    """One request, as its operation sees it.

    `params` are the checked members by name (absent ones left out, timestamps in ms); `db` is inside the
    request's transaction; `now` is in ms; `region` is that of the signature's scope; `held` says that the request
    was put off by a `Hold` before.
    """

    __slots__ = ("operation", "params", "db", "principal", "farm", "now", "region", "request_id", "held")

    def __init__(
        self,
        operation: Operation,
        params: dict[str, Any],
        db: sqlite3.Connection,
        principal: Principal,
        farm: Farm,
        now: int,
        region: str,
        request_id: str,
        held: bool = False,
    ) -> None:
        self.operation = operation
        self.params = params
        self.db = db
        self.principal = principal
        self.farm = farm
        self.now = now
        self.region = region
        self.request_id = request_id
        self.held = held

    @property
    def actor(self) -> str:
        """Who is calling, for createdBy and updatedBy."""
        return self.principal.name


class Hold(BaseException):
    """Raised by an operation that has nothing to answer yet: the request is undone, and runs once more.

    That is after `farm.wake(key)`, and after `seconds` at the latest. A request is held once: see `Call.held`.
    """

    def __init__(self, key: str, seconds: float) -> None:
        self.key = key
        self.seconds = seconds


Function = Callable[[Call], dict[str, Any] | None]


def operation(name: str) -> Callable[[Function], Function]:
    """Make the function the one that answers operation `name`: it returns the response's members."""

    def register(function: Function) -> Function:
        if name in OPERATIONS:
            raise ValueError(f"operation {name} is answered twice")
        OPERATIONS[name] = function
        return function

    return register
