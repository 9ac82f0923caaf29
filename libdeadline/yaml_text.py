"""YAML text of what the service answers, as PyYAML writes it, mostly without importing PyYAML.

Block style, members in the order they came, indent 2. Scalars that are plain beyond doubt are written here;
any other (quotes, folding, several lines) sends the whole document through PyYAML, which costs its import.
Source: client specification, output format selection; YAML 1.1, resolution of plain scalars.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

# A letter first, and no indicator that would need quotes.
_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9_./+()-]|:(?=[A-Za-z0-9/:]))*(?: [A-Za-z0-9_./+()-]+)*\Z")
_FOLD_COLUMN = 78  # text with spaces is folded beyond 80 columns
_RESOLVED = frozenset(["y", "n", "yes", "no", "true", "false", "on", "off", "null", "none", "nan", "inf"])


class _NotPlain(Exception):
    """A scalar that only PyYAML is trusted with."""


def dump(value: Any) -> str:
    """The YAML text of a value made of dicts, lists, strings, numbers, booleans, None and datetimes.

    A string of several lines is shown in literal style, a newline added at its end where there is none.
    """
    value = _with_whole_lines(value)
    lines: list[str] = []
    try:
        if isinstance(value, (dict, list)) and value:
            _block(value, "", lines)
            return "\n".join(lines) + "\n"
    except _NotPlain:
        pass
    return _by_pyyaml(value)


def _block(value: Any, indent: str, lines: list[str]) -> None:
    if isinstance(value, dict):
        for key, member in value.items():
            _entry(f"{indent}{_scalar(key)}:", member, indent, lines)
    else:
        for member in value:
            if isinstance(member, dict) and member:
                start = len(lines)
                _block(member, indent + "  ", lines)
                lines[start] = f"{indent}- {lines[start][len(indent) + 2 :]}"
            elif isinstance(member, list) and member:
                raise _NotPlain
            else:
                line = f"{indent}- {_scalar(member)}"
                if len(line) > _FOLD_COLUMN:
                    raise _NotPlain
                lines.append(line)


def _entry(head: str, member: Any, indent: str, lines: list[str]) -> None:
    if isinstance(member, dict) and member:
        lines.append(head)
        _block(member, indent + "  ", lines)
    elif isinstance(member, list) and member:
        lines.append(head)
        _block(member, indent, lines)  # PyYAML does not indent a sequence inside a mapping
    else:
        line = f"{head} {_scalar(member)}"
        if len(line) > _FOLD_COLUMN and " " in line[len(head) + 1 :]:
            raise _NotPlain
        lines.append(line)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.match(value) and value.lower() not in _RESOLVED and len(value) < 120:
            return value
        if value == "":
            return "''"
        raise _NotPlain
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and "e" not in repr(value) and "n" not in repr(value)):
        return repr(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if value == {}:
        return "{}"
    if value == []:
        return "[]"
    raise _NotPlain


def _with_whole_lines(value: Any) -> Any:
    if isinstance(value, str):
        return value + "\n" if "\n" in value and not value.endswith("\n") else value
    if isinstance(value, dict):
        return {key: _with_whole_lines(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_whole_lines(member) for member in value]
    return value


def _by_pyyaml(value: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        # The same object met twice is written twice: an answer has no anchors.
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    return yaml.dump_all([value], Dumper=Dumper, sort_keys=False)
