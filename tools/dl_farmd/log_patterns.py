"""Filter patterns of CloudWatch Logs: a text becomes a function that says whether a message matches.

    ERROR "two words" -not ?either ?or %regular expression%     terms, anywhere in the message
    { $.a.b[0] = "x*" && ($.n >= 4 || $.gone NOT EXISTS) }      messages that are JSON objects
    [ip, ..., status = 4* || status = 500, bytes > 1000]        words of the message, by position

Source: Amazon CloudWatch Logs user guide, "Filter pattern syntax for metric filters, subscription filters, filter log
events, and Live Tail".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from .errors import OtherProtocol

Matches = Callable[[str], bool]
Test = Callable[[Any], bool]  # of a value of a JSON message, or of a word
MAX_DEPTH = 40  # of parentheses
MAX_WILDCARDS = 3  # selectors with [*] or .* in one pattern
TERM = re.compile(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|%((?:[^%\\]|\\.)+)%|(\S+))')
REGEX = re.compile(r"[A-Za-z0-9:_#=@/;,\- ^$?\[\]{}|\\*+.]*")  # what may stand between % and %: no groups
TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"(?:[^"\\]|\\.)*") | (?P<regex>%(?:[^%\\]|\\.)+%) | (?P<mark>&&|\|\||!=|<=|>=|[=<>()])
      | (?P<selector>\$(?:\.\[(?:'[^']*'|"[^"]*")\]|\.\*|\.[^\s.\[\]()=!<>&|]+|\[(?:\d{1,9}|\*|'[^']*'|"[^"]*")\])*)
      | (?P<word>[^\s()=!<>&|"%]+)
    )""",
    re.VERBOSE,
)
PART = re.compile(r"""\.?\[(?:'([^']*)'|"([^"]*)"|(\d+)|(\*))\]|\.(\*)|\.([^.\[]+)""")
WORD = re.compile(r'"([^"]*)"|\[([^\]]*)\]|(\S+)')
ORDERS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def compiled(pattern: str) -> Matches:
    """Whether a message matches a pattern; the empty one matches all.

    Raises: OtherProtocol (InvalidParameterException) where it is no pattern.
    """
    text = pattern.strip()
    if text.startswith("{"):
        return _json_pattern(text)
    if text.startswith("["):
        return _word_pattern(text)
    return _terms(text)


def _invalid(why: str) -> OtherProtocol:
    return OtherProtocol("InvalidParameterException", f"Invalid filter pattern: {why}.")


def _regex(text: str) -> Callable[[str], bool]:
    if not REGEX.fullmatch(text):
        raise _invalid("a regular expression holds what is not supported")
    try:
        found = re.compile(text).search
    except re.error:
        raise _invalid("a regular expression is not valid") from None
    return lambda value: found(value) is not None


def _holds(word: str) -> Matches:
    return lambda message: word in message


def _terms(text: str) -> Matches:
    needed: list[Matches] = []
    either: list[Matches] = []
    barred: list[Matches] = []
    for sign, quoted, regex, plain in TERM.findall(text):
        word = plain or re.sub(r"\\(.)", r"\1", quoted)
        test = _regex(regex) if regex else _holds(word)
        {"": needed, "?": either, "-": barred}[sign].append(test)
    if needed or barred:
        either = []  # that is how the service has it: beside other terms, those with ? have no effect

    def matches(message: str) -> bool:
        return (
            all(test(message) for test in needed)
            and (not either or any(test(message) for test in either))
            and not any(test(message) for test in barred)
        )

    return matches


class Condition:
    """Comparisons joined by && and ||, && first, with parentheses: read from a text, `leaf` reading each comparison."""

    def __init__(self, text: str, leaf: Callable[[Condition], Any]) -> None:
        self.leaf = leaf
        self.depth = 0
        self.tokens: list[tuple[str, str]] = []
        place = 0
        text = text.strip()
        while place < len(text):
            found = TOKEN.match(text, place)
            if found is None or found.lastgroup is None:
                raise _invalid(f"'{text[place : place + 20]}' is not understood")
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            place = found.end()
        self.tokens.reverse()
        self.test = self.either()
        if self.tokens:
            raise _invalid(f"'{self.tokens[-1][1]}' is not expected")

    def next_is(self, *texts: str) -> bool:
        return bool(self.tokens) and self.tokens[-1][1] in texts

    def take(self, *kinds: str) -> tuple[str, str]:
        if not self.tokens or (kinds and self.tokens[-1][0] not in kinds):
            raise _invalid(f"'{self.tokens[-1][1]}' is not expected" if self.tokens else "it ends too early")
        return self.tokens.pop()

    def either(self) -> Test:
        tests = [self.both()]
        while self.next_is("||"):
            self.take()
            tests.append(self.both())
        return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)

    def both(self) -> Test:
        tests = [self.one()]
        while self.next_is("&&"):
            self.take()
            tests.append(self.one())
        return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)

    def one(self) -> Test:
        if not self.next_is("("):
            test: Test = self.leaf(self)
            return test
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _invalid("its parentheses are nested too deeply")
        self.take()
        test = self.either()
        if not self.next_is(")"):
            raise _invalid("a parenthesis is not closed")
        self.take()
        self.depth -= 1
        return test

    def comparison(self) -> Test:
        """Read an operator and what to compare with: a test of a number or a text."""
        operator = self.take("mark")[1]
        if operator not in ORDERS:
            raise _invalid(f"'{operator}' is not expected")
        kind, text = self.take("text", "regex", "word")
        number = _number(text) if kind == "word" else None
        if operator not in ("=", "!="):
            if number is None:
                raise _invalid(f"'{operator}' needs a number")
            order, bound = ORDERS[operator], number
            return lambda value: (given := _number(value)) is not None and order(given, bound)
        equal = _equality(kind, text, number)
        if operator == "=":
            return equal
        return lambda value: isinstance(value, str | int | float) and not equal(value)


def _equality(kind: str, text: str, number: float | None) -> Test:
    if kind == "regex":
        finds = _regex(text[1:-1])
        return lambda value: isinstance(value, str | int | float) and finds(_text(value))
    plain = re.sub(r"\\(.)", r"\1", text[1:-1]) if kind == "text" else text
    fits = re.compile(".*".join(map(re.escape, plain.split("*"))), re.DOTALL).fullmatch

    def equals(value: Any) -> bool:
        if number is not None and not isinstance(value, str) and (given := _number(value)) is not None:
            return given == number
        if kind == "text" and not isinstance(value, str):
            return False
        return isinstance(value, str | int | float) and fits(_text(value)) is not None

    return equals


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, str) and not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", value):
        return None
    return float(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _json_pattern(text: str) -> Matches:
    if not text.endswith("}"):
        raise _invalid("a brace is not closed")
    wildcards = 0

    def leaf(condition: Condition) -> Test:
        nonlocal wildcards
        selector = condition.take("selector")[1]
        way = _way(selector)
        wildcards += way.count("*")
        if way.count("*") > 1 or wildcards > MAX_WILDCARDS:
            raise _invalid("it has too many wildcard selectors")
        if condition.next_is("IS"):
            condition.take()
            word = condition.take("word")[1]
            if word not in ("NULL", "TRUE", "FALSE"):
                raise _invalid(f"IS {word} is not supported")
            wanted = {"NULL": None, "TRUE": True, "FALSE": False}[word]
            return lambda message: any(value is wanted for value in _selected(message, way))
        if condition.next_is("NOT"):
            condition.take()
            if condition.take("word")[1] != "EXISTS":
                raise _invalid("NOT is followed by EXISTS alone")
            return lambda message: not any(True for _ in _selected(message, way))
        test = condition.comparison()
        return lambda message: any(test(value) for value in _selected(message, way) if value is not None)

    test = Condition(text[1:-1], leaf).test

    def matches(message: str) -> bool:
        if message.lstrip()[:1] != "{":
            return False
        try:
            document = orjson.loads(message)
        except orjson.JSONDecodeError:
            return False
        return test(document)

    return matches


def _way(selector: str) -> list[str | int]:
    """The keys, indices and `*` that a selector such as `$.a['b.c'][0].*` leads through."""
    way: list[str | int] = []
    for quoted, double, index, star, all_of, key in PART.findall(selector[1:]):
        way.append(int(index) if index else "*" if star or all_of else f"k{quoted or double or key}")
    if not way:
        raise _invalid("a selector names nothing")
    return way


def _selected(document: Any, way: list[str | int]) -> Iterator[Any]:
    """The values at the end of a way; lists and objects are none, bar for NOT EXISTS, which no caller tells apart."""
    places = [document]
    for part in way:
        following: list[Any] = []
        for place in places:
            if part == "*":
                following += place.values() if isinstance(place, dict) else place if isinstance(place, list) else ()
            elif isinstance(part, int):
                if isinstance(place, list) and part < len(place):
                    following.append(place[part])
            elif isinstance(place, dict) and part[1:] in place:
                following.append(place[part[1:]])
        places = following
    yield from places


def _word_pattern(text: str) -> Matches:
    if not text.endswith("]"):
        raise _invalid("a bracket is not closed")
    fields = [each.strip() for each in _split(text[1:-1])] if text[1:-1].strip() else []
    if fields.count("...") > 1:
        raise _invalid("it has more than one ellipsis")
    tests = [None if field == "..." else _field(field) for field in fields]
    gap = fields.index("...") if "..." in fields else None

    def matches(message: str) -> bool:
        found = [(each, each[1] or each[2] or each[3] or "") for each in WORD.finditer(message)]
        words: list[str] = [word for _, word in found]
        if gap is None:
            if len(words) < len(tests):
                return False
            if tests and len(words) > len(tests):
                # The last field takes the rest: [w1=ERROR, w2] matches lines of any length.
                words[len(tests) - 1 :] = [message[found[len(tests) - 1][0].start() :].strip()]
            pairs = zip(tests, words, strict=False)
        else:
            before, after = tests[:gap], tests[gap + 1 :]
            if len(words) < len(before) + len(after):
                return False
            ends = words[len(words) - len(after) :]
            pairs = zip([*before, *after], [*words[: len(before)], *ends], strict=True)
        return all(test is None or test(word) for test, word in pairs)

    return matches


def _split(text: str) -> list[str]:
    """The parts of a text between commas that stand in no quotes and in no regular expression."""
    parts: list[str] = re.findall(r'(?:[^,"%]|"(?:[^"\\]|\\.)*"|%(?:[^%\\]|\\.)*%)+', text)
    return parts


def _field(text: str) -> Test | None:
    """The test of a field `name`, `name = 4*` or `name = a || name = b`; None where there is no condition."""
    if re.fullmatch(r"[\w$.-]+", text):
        return None
    names = set()

    def leaf(condition: Condition) -> Test:
        names.add(condition.take("word", "selector")[1])
        return condition.comparison()

    test = Condition(text, leaf).test
    if len(names) > 1:
        raise _invalid("a condition names another field")
    return test
