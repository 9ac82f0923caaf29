"""Filter patterns of CloudWatch Logs: the examples of its user guide, and what is no pattern."""

from __future__ import annotations

import json

import pytest
from dl_tools.dl_farmd.errors import OtherProtocol
from dl_tools.dl_farmd.log_patterns import compiled

LINES = ["[ERROR 400] BAD REQUEST", "[ERROR 401] UNAUTHORIZED REQUEST", "[ERROR 419] MISSING ARGUMENTS"]
TRAIL = json.dumps(
    {
        "eventType": "UpdateTrail",
        "sourceIPAddress": "111.111.111.111",
        "arrayKey": ["value", "another value"],
        "objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
        "SomeObject": None,
        "ThisFlag": True,
        "thatFlag": False,
        "cluster.name": "c",
        "bandwidth": 80,
        "text": "80",
        "ratio": 0.001,
        "deep": {"a-b": {"c_d": [[1, 2], [3, "x y"]]}},
    }
)
USERS = json.dumps(
    {
        "user": {"id": 1, "email": "John.Stiles@example.com"},
        "users": [{"id": 2, "email": "John.Doe@example.com"}, {"id": 3, "email": "Jane.Doe@example.com"}],
        "actions": ["GET", "PUT", "DELETE"],
        "coordinates": [[0, 1, 2], [4, 5, 6], [7, 8, 9]],
    }
)
ACCESS = '127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'
WORDS = [
    "INFO 09/25/2014 12:00:00 GET /service/resource/67 1200",
    "WARNING 09/25/2014 12:00:02 Invalid user request",
    "ERROR 09/25/2014 12:00:02 Failed to process request",
]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("", [0, 1, 2]),
        ('" "', [0, 1, 2]),
        ("ERROR", [0, 1, 2]),
        ("error", []),
        ("ERROR ARGUMENTS", [2]),
        ("?BAD ?ARGUMENTS", [0, 2]),
        ("?BAD ?ARGUMENTS REQUEST", [0, 1]),
        ("ERROR -ARGUMENTS", [0, 1]),
        ("-ERROR", []),
        ('"BAD REQUEST"', [0]),
        ('-"BAD REQUEST" ERROR', [1, 2]),
        ("%4[01]0%", [0]),
        ("%UNAUTHORIZED|MISSING%", [1, 2]),
        (r"%^\[ERROR 4.9\]%", [2]),
    ],
)
def test_terms(pattern: str, matching: list[int]) -> None:
    matches = compiled(pattern)
    assert [index for index, line in enumerate(LINES) if matches(line)] == matching


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ('{ $.eventType = "UpdateTrail" }', True),
        ("{$.eventType=UpdateTrail}", True),
        ('{ $.eventType != "UpdateTrail" }', False),
        ('{ $.eventType = "Update*" }', True),
        ('{ $.eventType = "*Tr*l" }', True),
        ('{ $.eventType = "Trail" }', False),
        ("{ $.eventType = %Trail% }", True),
        ("{ $.sourceIPAddress != 123.123.* }", True),
        ("{ $.sourceIPAddress = 111.111.* }", True),
        ('{ $.arrayKey[0] = "value" }', True),
        ('{ $.arrayKey[1] = "value" }', False),
        ('{ $.arrayKey[2] = "value" }', False),
        ('{ $.arrayKey[2] != "value" }', False),
        ("{ $.arrayKey[*] = %an.{5}% }", True),
        (r"{ $.* = %111\.111\.111\.1[0-9]{1,2}% }", True),
        ("{ $.objectList[*].id = 2 }", True),
        ("{ $.objectList[*].id = 3 }", False),
        ("{ $.['cluster.name'] = \"c\" }", True),
        ('{ $.["cluster.name"] = "c" }', True),
        ("{ $.SomeObject IS NULL }", True),
        ("{ $.eventType IS NULL }", False),
        ("{ $.SomeOtherObject IS NULL }", False),
        ("{ $.ThisFlag IS TRUE }", True),
        ("{ $.ThisFlag IS FALSE }", False),
        ("{ $.thatFlag IS FALSE }", True),
        ("{ $.bandwidth IS TRUE }", False),
        ("{ $.SomeOtherObject NOT EXISTS }", True),
        ("{ $.SomeObject NOT EXISTS }", False),
        ("{ $.arrayKey[7] NOT EXISTS }", True),
        ("{ $.bandwidth > 75 }", True),
        ("{ $.bandwidth >= 80 && $.bandwidth <= 80 }", True),
        ("{ $.bandwidth < 80 }", False),
        ("{ $.bandwidth = 8e+1 }", True),
        ("{ $.bandwidth = 80.0 }", True),
        ("{ $.bandwidth != 81 }", True),
        ("{ $.bandwidth = 8* }", True),
        ('{ $.bandwidth = "80" }', False),
        ('{ $.text = "80" }', True),
        ("{ $.text = 80 }", True),
        ("{ $.ratio = 1e-3 }", True),
        ("{ $.ratio < -1 }", False),
        ("{ $.deep.a-b.c_d[1][0] = 3 }", True),
        ('{ $.deep.a-b.c_d[1][1] = "x y" }', True),
        ('{ $.deep = "*" }', False),
        ("{ $.missing = 1 || $.bandwidth = 80 }", True),
        ("{ $.missing != 1 }", False),
        ("{ ($.bandwidth = 1 || $.bandwidth = 80) && ($.text = 1) }", False),
    ],
)
def test_json(pattern: str, matches: bool) -> None:
    assert compiled(pattern)(TRAIL) is matches


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ('{ ($.user.id = 1) && ($.users[0].email = "John.Doe@example.com") }', True),
        (
            '{ $.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = "n" && $.actions[2] = "n" }',
            True,
        ),
        (
            '{ ($.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = "n") && $.actions[2] = "n" }',
            False,
        ),
        ('{ ($.user.id = 2 && $.users[0].email = "nonmatch") || $.actions[2] = "GET" }', False),
    ],
)
def test_compound_expressions(pattern: str, matches: bool) -> None:
    assert compiled(pattern)(USERS) is matches


def test_what_is_no_json_object_does_not_match() -> None:
    matches = compiled("{ $.a NOT EXISTS }")
    assert [matches(text) for text in ("a line", "{", "[]", '"x"', "", '{"a": 1} more')] == [False] * 6
    assert matches("{}") and matches(' {"b": 1}\n') and not matches('{"a": null}')


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("[ip, user, username, timestamp, request, status_code, bytes]", True),
        (r"[ip=%127\.0\.0\.[1-9]%, user, username, timestamp, request =*.html*, status_code = 4*, bytes]", True),
        ("[..., request =*.html*, status_code = 4*, bytes]", True),
        ("[..., request =*.php*, status_code = 4*, bytes]", False),
        ("[ip, user, username, timestamp, request =*.html*, status_code = 404 || status_code = 410, bytes]", True),
        ("[ip, user, username, timestamp, request, status_code = 400 || status_code = 410, bytes]", False),
        ("[ip, ..., bytes > 1000]", True),
        ("[ip, ..., bytes > 2000]", False),
        ("[ip, user = Prod, ...]", True),
        ("[ip, user != Prod, ...]", False),
        ('[ip, user = "P*", username = "frank", ...]', True),
        ("[ip, user, username, timestamp = 10/Oct/*, ...]", True),
        ("[a, b, c, d, e, f, g, h]", False),
        ("[a, b, c, d, e, f, g, ..., h]", False),
        ("[a, b]", True),
        ("[]", True),
        ("[...]", True),
    ],
)
def test_words(pattern: str, matches: bool) -> None:
    assert compiled(pattern)(ACCESS) is matches


def test_words_in_order() -> None:
    for pattern, matching in (
        ("[w1=ERROR, w2]", [2]),
        ("[w1=ERROR || w1=WARNING, w2]", [1, 2]),
        ("[w1!=ERROR && w1!=WARNING, w2]", [0]),
        ("[w1=%INFO|ERROR%, w2]", [0, 2]),
    ):
        matches = compiled(pattern)
        assert [index for index, line in enumerate(WORDS) if matches(line)] == matching, pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "{", "{}", "{ }", "{ $ }", "{ $. = 1 }", "{ $.a }", "{ $.a = }", "{ $.a = 1", "{ = 1 }", "{ $.a == 1 }",
        "{ a = 1 }", "{ $.a = 1 && }", "{ $.a = 1 || }", "{ ($.a = 1 }", "{ $.a = 1) }", "{ $.a > x }", '{ $.a > "1" }',
        "{ $.a EXISTS }", "{ $.a IS NOT NULL }", "{ $.a IS }", "{ $.a NOT }", "{ $.a = %(x)% }",
        "{ $.a = %[% }", "{ $.*.* = 1 }",
        "{ $.a[*] = 1 || $.b[*] = 1 || $.c[*] = 1 || $.d[*] = 1 }", "{ $.a[-1] = 1 }", "{ $..a = 1 }", "{ $.a = 1 } x",
        "[", "[a", "[a = ]", "[..., ...]", "[a = 1 && b = 2]", "[a = %(%]", "%(%", "%[%", "%é%",
        "{ " + "(" * 200 + " }",
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(OtherProtocol, match="filter pattern") as caught:
        compiled(pattern)
    assert caught.value.code == "InvalidParameterException"
