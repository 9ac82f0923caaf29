"""Path mapping rules: where what lies at a path on one host lies on another.

Source: attachments specification, path mapping rules file and storage profiles; OpenJD path mapping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from . import statuses
from .errors import Trouble
from .paths import absolute, flavour_of, is_within, relative

FORMATS = ("posix", "windows")


class Rule(NamedTuple):
    """What lies at or below `source_path` lies at or below `destination_path` here."""

    source_path_format: str
    source_path: str
    destination_path: str


def read(path: str) -> list[Rule]:
    """The rules in a file: a JSON list, or an object that has it as `path_mapping_rules`.

    Raises: Trouble (65) where it is neither; OSError.
    """
    from json import loads

    with open(path, "rb") as file:
        data = file.read()
    try:
        document = loads(data)
    except ValueError as error:
        raise Trouble(f"'{path}' is no JSON: {error}", statuses.DATA, path=path) from None
    items = document.get("path_mapping_rules") if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise Trouble(f"'{path}' holds no list of path mapping rules", statuses.DATA, path=path)
    return [_rule(item, path, number) for number, item in enumerate(items, 1)]


def _rule(item: Any, path: str, number: int) -> Rule:
    try:
        rule = Rule(*(item[name] for name in Rule._fields))
    except (TypeError, KeyError) as error:
        raise Trouble(f"rule {number} in '{path}' has no {error}", statuses.DATA, path=path) from None
    if not all(isinstance(value, str) and value for value in rule) or rule.source_path_format.lower() not in FORMATS:
        raise Trouble(f"rule {number} in '{path}' is not of three texts, the first posix or windows", statuses.DATA)
    return rule._replace(source_path_format=rule.source_path_format.lower())


def between(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[Rule]:
    """The rules from one storage profile to another, as the service describes them: one for each location by name."""
    here = {each["name"]: each["path"] for each in ours.get("fileSystemLocations") or ()}
    kind = "windows" if str(theirs.get("osFamily", "")).lower() == "windows" else "posix"
    return [
        Rule(kind, each["path"], here[each["name"]])
        for each in theirs.get("fileSystemLocations") or ()
        if each["name"] in here
    ]


def exact(root: str, rules: Iterable[Rule]) -> Rule | None:
    """The first rule for just this path, if any."""
    return next((rule for rule in rules if rule.source_path == root), None)


def longest(path: str, path_format: str, rules: Sequence[Rule]) -> tuple[Rule, str] | None:
    """The rule with the longest source that holds `path`, and the rest of the path with / between parts, or None.

    Shape: `path` is absolute, in the spelling of `path_format`; only rules of that format apply.
    """
    flavour = flavour_of(path_format)
    normal = absolute(path, "/", flavour)
    best: tuple[Rule, str] | None = None
    length = -1
    for rule in rules:
        if rule.source_path_format != path_format.lower():
            continue
        source = absolute(rule.source_path, "/", flavour)
        if len(source) > length and is_within(normal, source, flavour):
            rest = relative(normal, source, flavour)
            best, length = (rule, "" if rest == "." else rest.replace(flavour.sep, "/")), len(source)
    return best
