"""Parsing of the wrapper's words by the usage texts that its help shows, without docopt.

docopt and the module re cost as much as starting Python does, and the tool behind the wrapper pays that anyway.
The texts keep to a part of docopt's form: in "Options:", lines such as
`  -p, --parameter=<name=value>...  Words.` (`...`: may be repeated); in "Usage:", the positional arguments.
"""

from __future__ import annotations

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

COMMON = ("--progress", "--log-level")


class Option:
    """An option: its name, whether it takes a value, may be repeated, and what it is without being given."""

    def __init__(self, name: str, takes_value: bool, repeated: bool, default: str | None) -> None:
        self.name, self.takes_value, self.repeated = name, takes_value, repeated
        self.start: str | list[str] | bool | None = default if takes_value else False
        if repeated:
            self.start = []


def options_of(text: str) -> dict[str, Option]:
    """The options that a usage text declares, by each of their spellings."""
    found: dict[str, Option] = {}
    head, told = "", ""
    for line in [*text.partition("Options:")[2].split("\n"), ""]:
        line = line.strip()
        if head and (not line or line.startswith("-")):
            _declare(head, told, found)
            head = ""
        if line.startswith("-"):
            head, _, told = line.partition("  ")
        elif head:
            told += " " + line
        elif not line and found:
            break
    return found


def _declare(head: str, told: str, found: dict[str, Option]) -> None:
    spellings = head.split(", ")
    name, equals, argument = spellings[-1].partition("=")
    default = told.partition("[default: ")[2].partition("]")[0] or None
    option = Option(name, bool(equals), argument.endswith("..."), default)
    for spelling in spellings:
        found[spelling.partition("=")[0]] = option


def taken(words: list[str], options: dict[str, Option], values: Arguments, *, all_words: bool) -> list[str] | None:
    """Take the options off `words` into `values`, and return the other words; None if help is asked for.

    With `all_words` options may stand anywhere up to `--`; without, they end at the first word that is none.
    Raises: Trouble (64).
    """
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word in ("-h", "--help"):
            return None
        if word == "--":
            return rest + words[index:]
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if all_words:
                continue
            return rest + words[index:]
        name, equals, value = word.partition("=")
        if not word.startswith("--") and (name not in options or len(name) == 2):
            name, equals, value = word[:2], word[2:], word[2:]
        option = options.get(name)
        if option is None:
            raise Trouble(f"unknown option '{name}' (see --help)", statuses.USAGE)
        if not option.takes_value:
            if equals:
                raise Trouble(f"{name} takes no value (see --help)", statuses.USAGE)
            values[option.name] = True
            continue
        if not equals:
            if index == len(words):
                raise Trouble(f"{name} needs a value (see --help)", statuses.USAGE)
            value = words[index]
            index += 1
        if option.repeated:
            values[option.name] = [*values[option.name], value]
        else:
            values[option.name] = value
    return rest


def parse(text: str, words: list[str]) -> Arguments | None:
    """The options and arguments of one command, or None if its help is asked for.

    Raises: Trouble (64).
    """
    options = options_of(text)
    values = Arguments({option.name: option.start for option in options.values()})
    rest = taken(words, options, values, all_words=True)
    if rest is None:
        return None
    usage = text.partition("Usage:")[2].strip().partition("\n")[0]
    for token in usage.split():
        name = token.strip("[]<>")
        optional = token.startswith("[")
        if not token.startswith(("<", "[<")):
            continue
        if rest:
            values[f"<{name}>"] = rest.pop(0)
        elif optional:
            values[f"<{name}>"] = None
        else:
            raise Trouble(f"<{name}> is missing; usage: {usage}", statuses.USAGE)
    if rest:
        raise Trouble(f"unexpected argument '{rest[0]}'; usage: {usage}", statuses.USAGE)
    return values


def root(text: str, words: list[str]) -> Arguments:
    """The wrapper's own options, and the words of the command.

    Raises: Trouble (64).
    """
    options = options_of(text)
    for name in COMMON:
        options[name] = Option(name, True, False, None)
    options["--version"] = Option("--version", False, False, None)
    values = Arguments({option.name: option.start for option in options.values()})
    rest = taken(words, options, values, all_words=False)
    if rest is None:
        return Arguments({"--help": True})
    values["words"] = rest
    return values
