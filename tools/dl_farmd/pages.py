"""Pages of lists: `nextToken` carries the last row's sort key, so pages stay right while rows come and go."""

from __future__ import annotations

import sqlite3
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import orjson

from .errors import Validation
from .operations import Call

PAGE = 100  # rows, where the request names no maxResults
LIFE_MS = 24 * 3600 * 1000  # of a token: what the service says of its own


def rows(
    call: Call, select: str, where: str, args: tuple[Any, ...], order: tuple[str, ...], *, default: int = PAGE
) -> tuple[list[sqlite3.Row], str | None]:
    """(one page of rows, the next page's token or None) of `SELECT … FROM …` with `where`.

    Shape: `order` names the columns that sort the rows, ascending (`-` before one: descending); together they must be
    unique and never NULL, and be among the selected columns by their last name (`t.created_at` as `created_at`).
    Raises: Validation where the token is none of this operation's.
    """
    limit = call.params.get("maxResults", default)
    names = [name.lstrip("-") for name in order]
    token = call.params.get("nextToken")
    if token is not None:
        key = read_token(call, token, len(order))
        # (a, b) after (x, y), each in its own direction: a after x, or a = x and b after y.
        parts = []
        bound: list[Any] = []
        for index, name in enumerate(order):
            equal = "".join(f"{before} = ? AND " for before in names[:index])
            parts.append(f"({equal}{names[index]} {'<' if name[0] == '-' else '>'} ?)")
            bound += [*key[:index], key[index]]
        where = f"({where}) AND ({' OR '.join(parts)})"
        args = (*args, *bound)
    sorting = ", ".join(
        f"{name} {'DESC' if given[0] == '-' else 'ASC'}" for name, given in zip(names, order, strict=True)
    )
    found = call.db.execute(f"{select} WHERE {where} ORDER BY {sorting} LIMIT ?", (*args, limit + 1)).fetchall()
    if len(found) <= limit:
        return found, None
    found.pop()
    last = found[-1]
    return found, make_token(call, [last[name.rpartition(".")[2]] for name in names])


def nothing(call: Call, member: str) -> dict[str, Any]:
    """The answer of a list that is always empty: no token can be one of it.

    Raises: Validation where the request has a token.
    """
    if "nextToken" in call.params:
        read_token(call, call.params["nextToken"], 0)
    return {member: []}


def make_token(call: Call, key: list[Any]) -> str:
    """An opaque token for the page that starts after `key`: good for a day, for this list alone."""
    content = orjson.dumps([call.now, *key])
    return urlsafe_b64encode(call.farm.ring.seal(_about(call), content)).rstrip(b"=").decode()


def read_token(call: Call, token: str, length: int) -> list[Any]:
    """The key of a token that `make_token` made for the same request, bar maxResults.

    Raises: Validation.
    """
    key: list[Any]
    try:
        content = call.farm.ring.unseal(
            _about(call), urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        )
        made, *key = orjson.loads(content)
    except ValueError:  # what is not ASCII or Base64, too
        raise Validation("The nextToken is not valid.", {"nextToken": "Token was not given for this list"}) from None
    if call.now - made > LIFE_MS or len(key) != length:
        raise Validation("The nextToken has expired.", {"nextToken": "Token has expired"})
    return key


def _about(call: Call) -> bytes:
    """What a token is bound to: the operation, and what else it was asked, which must not change between pages."""
    asked = {name: value for name, value in call.params.items() if name not in ("nextToken", "maxResults")}
    return orjson.dumps([call.operation.name, call.actor, asked], option=orjson.OPT_SORT_KEYS)
