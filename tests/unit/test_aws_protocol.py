"""Requests, answers and errors compared with botocore's, for every operation and generated values."""

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.credentials import Credentials
from botocore.exceptions import ParamValidationError
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from libdeadline import sigv4
from libdeadline.aws import model, protocol
from libdeadline.errors import Trouble

ROUNDS = 12  # samples of each operation: the first has every member, the second only the required ones
# Event streams and blobs of logs are not for these clients.
LOGS = (
    "CreateLogGroup", "CreateLogStream", "DeleteLogGroup", "DeleteLogStream", "DescribeLogGroups",
    "DescribeLogStreams", "FilterLogEvents", "GetLogEvents", "GetQueryResults", "PutLogEvents",
    "PutRetentionPolicy", "StartQuery", "StopQuery", "TagResource",
)  # fmt: skip
STS = ("AssumeRole", "AssumeRoleWithWebIdentity", "GetCallerIdentity", "GetSessionToken", "GetAccessKeyInfo")
TEXTS = (
    "farm-0123456789abcdef0123456789abcdef", "a b", "ä/東 京?&=+%", 'qu"ote\\', "line\nbreak", "-._~!*'()", "x" * 300,
    "arn:aws:deadline:us-west-2:123456789012:farm/farm-1", "\U0001f3ac",
)  # fmt: skip


@cache
def botocore_model(service):
    return botocore.session.Session().get_service_model(service)


def operations():
    for service, names in (
        ("deadline", botocore_model("deadline").operation_names),
        ("logs", LOGS),
        ("sts", STS),
    ):
        for name in names:
            yield pytest.param(service, name, id=f"{service}-{name}")


class Made:
    """Values that fit a shape, for a request or for an answer on the wire."""

    def __init__(self, seed: str, everything: bool, nothing: bool) -> None:
        self.random, self.everything, self.nothing = Random(seed), everything, nothing

    def wanted(self, shape, member) -> bool:
        if member in shape.required_members:
            return True
        return self.everything or (not self.nothing and self.random.random() < 0.5)

    def members(self, shape, depth):
        if shape.is_tagged_union:
            return [self.random.choice(list(shape.members))]
        names = list(shape.members)
        self.random.shuffle(names)
        return [name for name in names if self.wanted(shape, name) and (depth < 6 or name in shape.required_members)]

    def scalar(self, shape):
        random, kind = self.random, shape.type_name
        low = shape.metadata.get("min", -5)
        if kind == "string":
            text = random.choice(shape.enum) if shape.enum else random.choice(TEXTS)
            return text + "x" * (shape.metadata.get("min", 1) - len(text))
        if kind in ("integer", "long"):
            return random.randint(int(low), int(low) + 1000)
        if kind in ("float", "double"):
            return random.choice([float(low) + random.random() * 100, int(low) + 1, low + 1e-7, 1e21])
        if kind == "boolean":
            return random.random() < 0.5
        raise AssertionError(kind)

    def moment(self):
        moment = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=self.random.randint(0, 10**8))
        return moment.replace(microsecond=self.random.choice([0, 1000, 123456, 999999]))

    def parameter(self, shape, depth=0):
        kind = shape.type_name
        if kind == "structure":
            if shape.is_document_type:
                return self.document()
            return {name: self.parameter(shape.members[name], depth + 1) for name in self.members(shape, depth)}
        if kind == "list":
            count = max(shape.metadata.get("min", 0), self.random.randint(0, 3) if depth < 6 else 0)
            return [self.parameter(shape.member, depth + 1) for _ in range(count)]
        if kind == "map":
            return {
                self.scalar(shape.key): self.parameter(shape.value, depth + 1)
                for _ in range(self.random.randint(0, 3) if depth < 6 else 0)
            }
        if kind == "timestamp":
            moment = self.moment()
            return self.random.choice([
                moment, moment.replace(tzinfo=None), moment.isoformat(), int(moment.timestamp()),
                moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            ])  # fmt: skip
        if kind == "blob":
            return b"\x00\xffbytes"
        return self.scalar(shape)

    def document(self):
        return self.random.choice(["text", 3, {"a": [1, None, {"b": True}]}, [1.5, "x"]])

    def wire(self, shape, depth=0):
        """A JSON answer's value, with the oddities that a server may send."""
        kind = shape.type_name
        if kind == "structure":
            if shape.is_document_type:
                return self.document()
            fields = {
                shape.members[name].serialization.get("name", name): self.wire(shape.members[name], depth + 1)
                for name in self.members(shape, depth)
            }
            if not shape.is_tagged_union and self.random.random() < 0.3:
                fields["somethingNew"] = [1]
                optional = [name for name in shape.members if name not in fields]
                if optional:
                    fields[self.random.choice(optional)] = None
            return fields
        if kind == "list":
            return [self.wire(shape.member, depth + 1) for _ in range(self.random.randint(0, 3) if depth < 6 else 0)]
        if kind == "map":
            return {
                self.scalar(shape.key): self.wire(shape.value, depth + 1)
                for _ in range(self.random.randint(0, 3) if depth < 6 else 0)
            }
        if kind == "timestamp":
            moment = self.moment()
            return self.random.choice([
                moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), moment.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.timestamp(),
                int(moment.timestamp()), moment.astimezone().isoformat(),
            ])  # fmt: skip
        if kind == "blob":
            return base64.b64encode(b"\x00\xffbytes").decode()
        return self.scalar(shape)

    def xml(self, shape, tag, depth=0):
        kind = shape.type_name
        if kind == "structure":
            inner = "".join(
                self.xml(shape.members[name], shape.members[name].serialization.get("name", name), depth + 1)
                for name in self.members(shape, depth)
            )
        elif kind == "list":
            inner = "".join(
                self.xml(shape.member, shape.member.serialization.get("name", "member"), depth + 1)
                for _ in range(self.random.randint(0, 3))
            )
        elif kind == "map":
            key, value = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
            inner = "".join(
                f"<entry>{self.xml(shape.key, key, depth + 1)}{self.xml(shape.value, value, depth + 1)}</entry>"
                for _ in range(self.random.randint(0, 3))
            )
        elif kind == "timestamp":
            inner = self.moment().strftime("%Y-%m-%dT%H:%M:%SZ")
        elif kind == "blob":
            inner = base64.b64encode(b"\x00").decode()
        else:
            value = self.scalar(shape)
            inner = escape(str(value).lower() if isinstance(value, bool) else str(value).replace("\n", " "))
        return f"<{tag}>{inner}</{tag}>"


def samples(service, name):
    for number in range(ROUNDS):
        yield Made(f"{service}/{name}/{number}", everything=number == 0, nothing=number == 1)


@cache
def ours(service):
    return model.service(service)


@pytest.mark.parametrize(("service", "name"), list(operations()))
def test_requests_are_botocores_byte_for_byte(service, name):
    their_model = botocore_model(service)
    their_operation = their_model.operation_model(name)
    serializer = create_serializer(their_model.protocol)
    for made in samples(service, name):
        shape = their_operation.input_shape
        parameters = made.parameter(shape) if shape else {}
        for token in their_operation.idempotent_members:
            parameters.setdefault(token, "token-1")
        request = serializer.serialize_to_request(parameters, their_operation)
        prefix = request.get("host_prefix") or ""
        prepare_request_dict(request, "https://example.test")
        theirs = create_request_object(request)
        signer = SigV4Auth(Credentials("AKIA", "secret", "token"), their_model.signing_name, "us-west-2")
        signer.add_auth(theirs)
        prepared = theirs.prepare()

        operation = ours(service).operation(name)
        mine = protocol.request(ours(service), operation, parameters)
        url = urlsplit(prepared.url)
        assert mine.method == prepared.method
        assert operation.prefix == prefix
        assert (mine.path, mine.query) == (url.path, url.query)
        body = prepared.body or b""
        assert mine.body == (body.encode() if isinstance(body, str) else body)
        for header, value in mine.headers.items():
            assert _text(prepared.headers[header]) == value
        extra = {header.lower() for header in prepared.headers} - {header.lower() for header in mine.headers}
        assert extra <= {"x-amz-date", "x-amz-security-token", "authorization", "content-length", "content-type"}
        if mine.body:
            assert "content-type" not in extra

        stamp = datetime.strptime(_text(prepared.headers["X-Amz-Date"]), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        headers = {header.lower(): value for header, value in mine.headers.items()}
        headers["host"] = url.netloc
        sigv4.sign(
            mine.method,
            mine.path,
            "&".join(sorted(mine.query.split("&"))),
            headers,
            sigv4.sha256(mine.body).hexdigest(),
            access_key_id="AKIA",
            secret="secret",
            token="token",
            region="us-west-2",
            service=ours(service).signing_name,
            now=stamp.timestamp(),
        )
        assert headers["authorization"] == _text(prepared.headers["Authorization"])


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize(("service", "name"), list(operations()))
def test_answers_are_read_as_botocore_reads_them(service, name):
    their_model = botocore_model(service)
    shape = their_model.operation_model(name).output_shape
    parser = create_parser(their_model.protocol)
    operation = ours(service).operation(name)
    for made in samples(service, name):
        if their_model.protocol == "query":
            wrapper = shape.serialization["resultWrapper"]
            inner = made.xml(shape, wrapper)
            body = (
                f'<{name}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{inner}'
                f"<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{name}Response>"
            ).encode()
        else:
            body = json.dumps(made.wire(shape)).encode() if shape else b""
        answer = {"status_code": 200, "headers": {"x-amzn-requestid": "r"}, "body": body}
        theirs = parser.parse(answer, shape)
        theirs.pop("ResponseMetadata")
        assert protocol.result(ours(service), operation, 200, {"x-amzn-requestid": "r"}, body) == theirs


@pytest.mark.parametrize(("service", "name"), list(operations()))
def test_errors_are_read_as_botocore_reads_them(service, name):
    their_model = botocore_model(service)
    parser = create_parser(their_model.protocol)
    operation = ours(service).operation(name)
    shapes = their_model.operation_model(name).error_shapes
    for number, shape in enumerate(shapes):
        made = Made(f"{service}/{name}/error/{number}", everything=number % 2 == 0, nothing=False)
        status = shape.metadata.get("error", {}).get("httpStatusCode", 400)
        headers = {"x-amzn-requestid": "r"}
        if their_model.protocol == "query":
            inner = made.xml(shape, "Error")[:-8]
            if "<message>" not in inner:
                inner += "<message>no</message>"
            body = f"<ErrorResponse>{inner}<Code>{shape.error_code}</Code></Error></ErrorResponse>".encode()
        else:
            fields = made.wire(shape)
            fields.pop("Retry-After", None)
            if their_model.protocol == "json" or number % 2:
                fields["__type"] = f"com.amazonaws#{shape.error_code}"
            else:
                headers["x-amzn-errortype"] = f"{shape.error_code}:http://internal.amazon.com/"
            if any(each.serialization.get("location") == "header" for each in shape.members.values()):
                headers["retry-after"] = "7"
            body = json.dumps(fields).encode()
        # botocore looks headers up in any case, as its HTTP client hands them over.
        from botocore.compat import HTTPHeaders

        answer = {"status_code": status, "headers": HTTPHeaders.from_dict(headers), "body": body}
        theirs = parser.parse(answer, None)
        members = parser.parse(answer, shape)
        members.pop("ResponseMetadata", None)
        code, message, found = protocol.failure(ours(service), operation, status, headers, body)
        assert (code, found) == (theirs["Error"]["Code"], members)
        assert code == shape.error_code
        assert message == (theirs["Error"].get("Message") or "")
        if "retry-after" in headers:
            assert found["retryAfterSeconds"] == 7


@pytest.mark.parametrize(
    ("status", "headers", "body", "code", "message"),
    [
        (503, {}, b"<html>busy</html>", "503", "Service Unavailable"),
        (500, {}, b"", "500", "Internal Server Error"),
        (400, {}, b"not json", "400", "not json"),
        (403, {}, b'{"Message":"no","code":"a.b#Denied:x"}', "Denied", "no"),
        (403, {"x-amzn-errortype": "Denied:http://x"}, b'{"message":"no"}', "Denied", "no"),
        (404, {}, b"", "404", ""),
        (400, {}, b'{"__type":"X#ValidationException","message":"m"}', "ValidationException", "m"),
    ],
)
def test_errors_that_no_model_knows(status, headers, body, code, message):
    answer = {"status_code": status, "headers": headers, "body": body}
    theirs = create_parser("rest-json").parse(answer, None)["Error"]
    assert (theirs["Code"], theirs["Message"]) == (code, message)
    service = ours("deadline")
    assert protocol.failure(service, service.operation("GetFarm"), status, headers, body)[:2] == (code, message)


def spoilt(made, value):
    """`value` with one thing in it replaced, removed or added."""
    random = made.random
    if isinstance(value, dict) and value and random.random() < 0.7:
        key = random.choice(list(value))
        part = spoilt(made, value[key])
        return {**value, key: part}
    if isinstance(value, list) and value and random.random() < 0.7:
        return [spoilt(made, value[0]), *value[1:]]
    if isinstance(value, dict) and random.random() < 0.6:
        return {**value, "unheardOf": 1} if random.random() < 0.5 else dict(list(value.items())[1:])
    return random.choice([None, "", [], {}, 3, -(10**6), True, object(), 1.5, "text"])


@pytest.mark.parametrize(
    "name", [name for name in ours("deadline").operation_names if name.startswith(("C", "U", "B"))]
)
def test_parameters_that_botocore_refuses_are_refused(name):
    """And no others."""
    shape = botocore_model("deadline").operation_model(name).input_shape
    operation = ours("deadline").operation(name)
    for number in range(60):
        made = Made(f"spoilt/{name}/{number}", everything=False, nothing=False)
        parameters = made.parameter(shape)
        if "clientToken" in shape.members:
            parameters.setdefault("clientToken", "token")
        wrong = spoilt(made, parameters)
        if not isinstance(wrong, dict):
            continue
        theirs = ParamValidator().validate(wrong, shape).has_errors()
        try:
            protocol.request(ours("deadline"), operation, wrong)
            mine = False
        except Trouble as trouble:
            mine = True
            assert trouble.status == 65 and "\n" not in trouble.message
        assert mine == theirs, (wrong, ParamValidator().validate(wrong, shape).generate_report())


def test_a_refused_parameter_is_named():
    service = ours("deadline")
    with pytest.raises(Trouble) as caught:
        protocol.request(service, service.operation("ListJobs"), {"farmId": "", "maxResults": 0, "x": 1})
    message = caught.value.message
    assert "'queueId' is missing" in message
    assert "'maxResults' must be at least 1, not 0" in message
    assert "'x' is not one of" in message
    with pytest.raises(ParamValidationError):
        create_serializer("rest-json", include_validation=True).serialize_to_request(
            {"farmId": "f", "maxResults": 0}, botocore_model("deadline").operation_model("ListJobs")
        )


def test_an_idempotency_token_is_made_once_for_a_request():
    service = ours("deadline")
    parameters = {"displayName": "f"}
    tokens = {
        protocol.request(service, service.operation("CreateFarm"), parameters).headers["X-Amz-Client-Token"]
        for _ in range(5)
    }
    assert len(tokens) == 5
    assert all(len(token) == 36 and token[14] == "4" and token[19] in "89ab" for token in tokens)
    assert parameters == {"displayName": "f"}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"farms": 3}', b'{"farms":[{"createdAt":"never"}]}'])
def test_an_answer_that_makes_no_sense(body):
    service = ours("deadline")
    with pytest.raises(protocol.BadAnswer):
        protocol.result(service, service.operation("ListFarms"), 200, {}, body)


def test_the_cache_holds_what_the_model_says_and_survives_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(model, "_services", {})
    first = model.service("deadline")
    (path,) = (tmp_path / "deadline-tools").iterdir()
    assert sorted(first.operation_names) == sorted(botocore_model("deadline").operation_names)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"{}\n" + whole):
        path.write_bytes(damaged)
        monkeypatch.setattr(model, "_services", {})
        again = model.service("deadline")
        assert again.operation("GetFarm").shapes == first.operation("GetFarm").shapes
        assert path.read_bytes() == whole
    path.chmod(0o400)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(model, "_services", {})
    assert model.service("deadline").operation("GetFarm").uri == first.operation("GetFarm").uri


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["farms", "farmId", "createdAt", "message", "Message", "__type", "code", "reason",
                             "fieldList", "context", "nextToken", "jobs", "events", "credentials", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(
    st.sampled_from([("deadline", "ListFarms"), ("deadline", "GetJob"), ("deadline", "AssumeQueueRoleForUser"),
                     ("logs", "GetLogEvents"), ("sts", "GetCallerIdentity")]),
    JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60),
    st.sampled_from([400, 403, 404, 429, 500, 503]),
)  # fmt: skip
def test_no_answer_breaks_the_reader(which, body, status):
    service = ours(which[0])
    operation = service.operation(which[1])
    try:
        assert isinstance(protocol.result(service, operation, 200, {}, body), dict)
    except protocol.BadAnswer:
        pass
    code, message, members = protocol.failure(service, operation, status, {"retry-after": "soon"}, body)
    assert isinstance(code, str) and isinstance(message, str) and isinstance(members, dict)


def test_an_answer_nested_too_deep():
    service = ours("deadline")
    body = b"[" * 100_000
    with pytest.raises(protocol.BadAnswer):
        protocol.result(service, service.operation("ListFarms"), 200, {}, body)
    assert protocol.failure(service, service.operation("ListFarms"), 400, {}, body)[0] == "400"


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC) | st.none()),
    st.sampled_from(["iso8601", "unixTimestamp", "rfc822"]),
)
def test_times_go_out_as_botocore_writes_them(moment, time_format):
    theirs = create_serializer("rest-json", include_validation=False)._convert_timestamp_to_str(moment, time_format)
    assert protocol._time_text(moment, time_format) == theirs
    back = protocol.parsed_time(theirs)
    assert abs(back - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))) < timedelta(seconds=1)
