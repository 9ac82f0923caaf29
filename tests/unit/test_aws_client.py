"""Calls over real sockets: answers, refusals, repeated attempts, connections, proxies, certificates, pages, regions."""

import json
import socket
import threading
from contextlib import closing, suppress
from datetime import UTC, datetime
from time import gmtime, monotonic, strftime, time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import CERTIFICATE, FARMS, HANG, KEY, Server, answer, refusal

from libdeadline import aws, config, sigv4
from libdeadline.aws import http, model, profiles
from libdeadline.errors import Trouble


@pytest.fixture
def serve(request):
    def start(answers, **options):
        server = Server(answers, **options)
        request.addfinalizer(server.close)
        return server

    return start


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    import os

    for name in list(os.environ):
        if name.upper().startswith(("AWS_", "DEADLINE_", "DL_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "AGENT")):
            monkeypatch.delenv(name)
    for name, _ in aws.AGENT_MARKERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    profiles.forget()
    yield
    profiles.forget()


@pytest.fixture
def slept(monkeypatch):
    """The waits between attempts, not waited for."""
    waits = []
    monkeypatch.setattr(aws, "sleep", waits.append)
    return waits


def client(server, monkeypatch, service="deadline", **options):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    return aws.Session().client(service, **options)


def test_a_request_is_signed_and_the_answer_parsed(serve, monkeypatch):
    server = serve([FARMS])
    result = client(server, monkeypatch).call("ListFarms", {"maxResults": 7})
    assert result == {"farms": [{"farmId": "farm-1", "createdAt": datetime(2025, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)}]}
    (asked,) = server.asked
    assert (asked.method, asked.target) == ("GET", "/2023-10-12/farms?maxResults=7")
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"
    assert asked.headers["x-amz-security-token"] == "token"
    assert "app/deadline-client#" in asked.headers["user-agent"]
    assert "content-length" not in asked.headers
    assert sigv4.matches(
        "GET", asked.path, asked.query, asked.headers, sigv4.EMPTY_SHA256, asked.headers["authorization"], "secret"
    )
    assert not sigv4.matches(
        "GET", asked.path, asked.query, asked.headers, sigv4.EMPTY_SHA256, asked.headers["authorization"], "other"
    )


def test_a_body_and_awkward_names_are_signed_too(serve, monkeypatch):
    server = serve([answer(), answer(204)])
    deadline = client(server, monkeypatch)
    deadline.call("CreateFarm", {"displayName": "ä b", "clientToken": "t", "tags": {"k": "v"}})
    deadline.call(
        "UntagResource", {"resourceArn": "arn:aws:deadline:us-west-2:1:farm/farm-1", "tagKeys": ["b c", "a&"]}
    )
    for asked in server.asked:
        assert sigv4.matches(
            asked.method,
            asked.path,
            asked.query,
            asked.headers,
            sigv4.sha256(asked.body).hexdigest(),
            asked.headers["authorization"],
            "secret",
        )
    assert server.asked[0].headers["x-amz-client-token"] == "t"
    assert json.loads(server.asked[0].body) == {"displayName": "ä b", "tags": {"k": "v"}}
    assert server.asked[1].target.endswith("?tagKeys=b%20c&tagKeys=a%26")
    assert server.connections == 1


def test_logs_and_sts_are_spoken_to_in_their_own_ways(serve, monkeypatch):
    def reply(asked):
        if "x-amz-target" in asked.headers:
            return answer(fields={"events": [{"timestamp": 5, "message": "m"}], "nextForwardToken": "f"})
        body = (
            b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
            b"<Arn>arn:x</Arn><UserId>u</UserId><Account>123</Account></GetCallerIdentityResult>"
            b"<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
        )
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    server = serve(reply)
    logs = client(server, monkeypatch, "logs")
    answered = logs.call("GetLogEvents", {"logGroupName": "g", "logStreamName": "s"})
    assert answered == {"events": [{"timestamp": 5, "message": "m"}], "nextForwardToken": "f"}
    assert client(server, monkeypatch, "sts").call("GetCallerIdentity") == {
        "Arn": "arn:x", "UserId": "u", "Account": "123",
    }  # fmt: skip
    assert server.asked[0].headers["x-amz-target"] == "Logs_20140328.GetLogEvents"
    assert server.asked[1].body == b"Action=GetCallerIdentity&Version=2011-06-15"
    assert "/us-west-2/logs/" in server.asked[0].headers["authorization"]
    assert "/us-west-2/sts/" in server.asked[1].headers["authorization"]


@pytest.mark.parametrize(
    ("first", "tries"),
    [
        (refusal(500, "InternalServerException"), 2),
        (refusal(500, "InternalServerErrorException"), 2),
        (refusal(502, "x"), 2),
        (refusal(503, "x"), 2),
        (refusal(429, "ThrottlingException"), 2),
        (refusal(400, "ThrottlingException"), 2),
        (refusal(400, "RequestTimeout"), 2),
        (None, 2),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{}", 2),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{", 2),
        (refusal(400, "ValidationException"), 1),
        (refusal(403, "AccessDeniedException"), 1),
        (refusal(404, "ResourceNotFoundException"), 1),
        (refusal(409, "ConflictException"), 1),
        (refusal(402, "ServiceQuotaExceededException"), 1),
        (b"nonsense\r\n\r\n", 1),
    ],
)
def test_passing_failures_are_tried_again_and_others_not(serve, monkeypatch, slept, first, tries):
    server = serve([first, FARMS])
    deadline = client(server, monkeypatch)
    if tries == 1:
        with pytest.raises(Trouble):
            deadline.call("ListFarms")
        assert not slept
    else:
        assert deadline.call("ListFarms")["farms"]
        assert len(slept) == 1 and 0 <= slept[0] <= 1
        invocations = {asked.headers["amz-sdk-invocation-id"] for asked in server.asked}
        assert len(invocations) == 1
        assert server.asked[1].headers["amz-sdk-request"] == "attempt=2; max=3"
    assert len(server.asked) == tries


def test_attempts_end(serve, monkeypatch, slept):
    server = serve([refusal(500, "InternalServerException", "broken", retryAfterSeconds=4)])
    with pytest.raises(aws.ServiceError) as caught:
        client(server, monkeypatch).call("ListFarms")
    assert len(server.asked) == 3 and len(slept) == 2
    assert caught.value.status == 75
    assert caught.value.message == "ListFarms failed: InternalServerException: broken"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(aws.ServiceError):
        client(server, monkeypatch).call("ListFarms")
    assert len(server.asked) == 4
    with pytest.raises(aws.ServiceError):
        client(server, monkeypatch, attempts=5).call("ListFarms")
    assert len(server.asked) == 9


def test_the_service_says_how_long_to_wait(serve, monkeypatch, slept):
    server = serve([refusal(429, "ThrottlingException", retry_after="7"), refusal(503, "x", retry_after="9999"), FARMS])
    client(server, monkeypatch).call("ListFarms")
    assert slept == [7.0, aws.RETRY_AFTER_CAP_S]


def test_the_same_token_goes_with_each_attempt(serve, monkeypatch, slept):
    server = serve([refusal(500, "x"), None, answer()])
    client(server, monkeypatch).call("CreateFarm", {"displayName": "f"})
    assert len({asked.headers["x-amz-client-token"] for asked in server.asked}) == 1
    assert len(server.asked) == 3


def test_a_client_stops_adding_to_the_load_when_all_fails(serve, monkeypatch, slept):
    server = serve([refusal(500, "x")])
    deadline = client(server, monkeypatch)
    for _ in range(30):
        with pytest.raises(aws.ServiceError):
            deadline.call("ListFarms")
    repeated = len(server.asked) - 30
    assert repeated == aws.RETRY_TOKENS // aws.RETRY_COST


@pytest.mark.parametrize(
    ("http_status", "code", "status"),
    [
        (400, "ValidationException", 65), (409, "ConflictException", 65), (404, "ResourceNotFoundException", 66),
        (403, "AccessDeniedException", 77), (400, "AccessDeniedException", 77), (400, "ResourceNotFoundException", 66),
        (403, "UnrecognizedClientException", 77), (400, "ExpiredTokenException", 77), (401, "other", 77),
        (402, "ServiceQuotaExceededException", 69), (429, "TooManyRequestsException", 75), (503, "other", 75),
    ],
)  # fmt: skip
def test_what_a_refusal_means_for_a_script(serve, monkeypatch, slept, http_status, code, status):
    fields = {"resourceId": "farm-1", "resourceType": "farm", "reason": "r", "context": {"a": "b"}}
    server = serve([refusal(http_status, code, "A reason.\nof two lines", **fields)])
    with pytest.raises(aws.ServiceError) as caught:
        client(server, monkeypatch).call("GetFarm", {"farmId": "farm-1"})
    error = caught.value
    assert (error.status, error.code, error.http_status, error.operation) == (status, code, http_status, "GetFarm")
    assert error.message.startswith(f"GetFarm failed: {code}: A reason. of two lines")
    if code == "ResourceNotFoundException":
        assert (error.response["resourceId"], error.response["context"]) == ("farm-1", {"a": "b"})


def test_nobody_answers(monkeypatch, slept):
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_DEADLINE", f"http://127.0.0.1:{port}")
    with pytest.raises(Trouble) as caught:
        aws.Session().client("deadline").call("ListFarms")
    assert caught.value.status == 69
    assert caught.value.message.startswith(
        f"cannot reach 'http://127.0.0.1:{port}' for ListFarms: connection refused: is the farm"
    )
    assert len(slept) == 2


def test_a_host_that_does_not_exist(monkeypatch, slept):
    monkeypatch.setenv("AWS_ENDPOINT_URL_DEADLINE", "http://no-such-host.invalid:1")
    with pytest.raises(Trouble) as caught:
        aws.Session().client("deadline").call("ListFarms")
    assert caught.value.status == 69 and "management.no-such-host.invalid" in caught.value.message


def test_no_answer_in_time(serve, monkeypatch, slept):
    server = serve([HANG])
    begun = monotonic()
    with pytest.raises(Trouble) as caught:
        client(server, monkeypatch, timeout_s=0.2, attempts=1).call("ListFarms")
    assert caught.value.status == 69 and "no answer in time" in caught.value.message
    assert monotonic() - begun < 5


def test_connections_are_kept_and_dead_ones_dropped(serve, monkeypatch, slept):
    closing_answer = FARMS.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
    server = serve([FARMS, FARMS, closing_answer, FARMS, FARMS])
    deadline = client(server, monkeypatch)
    for _ in range(5):
        deadline.call("ListFarms")
    assert [asked.connection for asked in server.asked] == [1, 1, 1, 2, 2]


def test_a_connection_that_the_server_closed_meanwhile_is_not_used(serve, monkeypatch, slept):
    closed = threading.Event()

    def last(sock, file):
        sock.sendall(FARMS)
        sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = serve([last, FARMS])
    deadline = client(server, monkeypatch)
    deadline.call("ListFarms")
    assert closed.wait(5)
    deadline.call("ListFarms")
    assert [asked.connection for asked in server.asked] == [1, 2]
    assert not slept


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n"
        + b'{"far\r\n7;x=y\r\nms":[]}\r\n0\r\nt: v\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{"farms":[]}',
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length:   12\r\n\r\n{"farms":[]}',
        b'HTTP/1.0 200 OK\r\ncontent-length: 12\r\n\r\n{"farms":[]}',
    ],
)
def test_bodies_however_they_are_delimited(serve, monkeypatch, raw):
    server = serve([raw])
    deadline = client(server, monkeypatch)
    assert deadline.call("ListFarms") == {"farms": []}
    assert deadline.call("ListFarms") == {"farms": []}
    assert server.connections == (2 if b"close" in raw or b"HTTP/1.0" in raw else 1)


def test_a_head_without_end_is_given_up(serve, monkeypatch, slept):
    server = serve([lambda sock, file: sock.sendall(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 60000)])
    with pytest.raises(Trouble) as caught:
        client(server, monkeypatch).call("ListFarms")
    assert caught.value.status == 69


def test_many_threads_share_a_client(serve, monkeypatch):
    server = serve(lambda asked: answer(fields={"farms": [{"farmId": asked.query}]}))
    deadline = client(server, monkeypatch)
    wrong = []

    def work(number):
        for _ in range(20):
            result = deadline.call("ListFarms", {"maxResults": number})
            if result["farms"][0]["farmId"] != f"maxResults={number}":
                wrong.append(result)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(server.asked) == 160 and server.connections <= 8


def test_a_clock_that_is_wrong_is_allowed_for(serve, monkeypatch, slept):
    ahead = 3600

    def reply(asked):
        sent = datetime.strptime(asked.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(sent - (time() + ahead)) > 300:
            date = strftime("%a, %d %b %Y %H:%M:%S GMT", gmtime(time() + ahead))
            return refusal(403, "InvalidSignatureException", "Signature expired", date=date)
        return FARMS

    server = serve(reply)
    deadline = client(server, monkeypatch)
    assert deadline.call("ListFarms")["farms"]
    assert deadline.call("ListFarms")["farms"]
    assert len(server.asked) == 3


def test_a_wrong_signature_is_not_the_clocks_fault(serve, monkeypatch, slept):
    date = strftime("%a, %d %b %Y %H:%M:%S GMT", gmtime())
    server = serve([refusal(403, "InvalidSignatureException", date=date)])
    with pytest.raises(aws.ServiceError) as caught:
        client(server, monkeypatch).call("ListFarms")
    assert len(server.asked) == 1 and caught.value.status == 77


def test_pages_follow_tokens(serve, monkeypatch):
    def reply(asked):
        number = int(asked.query.partition("nextToken=")[2].partition("&")[0] or 0)
        fields = {"farms": [{"farmId": f"farm-{number}-{each}"} for each in range(2)]}
        if number < 3:
            fields["nextToken"] = str(number + 1)
        return answer(fields=fields)

    server = serve(reply)
    deadline = client(server, monkeypatch)
    asked_for = {"maxResults": 2}
    assert [farm["farmId"] for farm in deadline.items("ListFarms", asked_for)] == [
        f"farm-{page}-{each}" for page in range(4) for each in range(2)
    ]
    assert asked_for == {"maxResults": 2}
    assert all("maxResults=2" in asked.query for asked in server.asked)
    pages = deadline.pages("ListFarms")
    next(pages)
    assert len(server.asked) == 5


def test_a_token_given_twice_is_no_loop(serve, monkeypatch):
    server = serve([answer(fields={"farms": [], "nextToken": "same"})])
    with pytest.raises(Trouble) as caught:
        list(client(server, monkeypatch).pages("ListFarms"))
    assert caught.value.status == 75 and len(server.asked) == 2


def test_wrong_parameters_never_reach_the_service(serve, monkeypatch):
    server = serve([FARMS])
    deadline = client(server, monkeypatch)
    for operation, parameters, status in (
        ("ListQueues", {}, 65),
        ("ListFarms", {"maxResults": "7"}, 65),
        ("NoSuchOperation", {}, 78),
    ):
        with pytest.raises(Trouble) as caught:
            deadline.call(operation, parameters)
        assert caught.value.status == status
    assert not server.asked


# Proxies and certificates


@pytest.fixture
def tls_files(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    return certificate, key


def test_certificates_are_checked(serve, monkeypatch, slept, tls_files, tmp_path):
    server = serve([FARMS], tls_files=tls_files)
    with pytest.raises(Trouble) as caught:
        client(server, monkeypatch).call("ListFarms")
    assert caught.value.status == 69 and "certificate" in caught.value.message
    assert not slept and not server.asked
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls_files[0]))
    assert client(server, monkeypatch).call("ListFarms")["farms"]
    monkeypatch.delenv("AWS_CA_BUNDLE")
    config.write("settings.ca_bundle", "~/cert.pem")
    deadline = client(server, monkeypatch)
    assert deadline.call("ListFarms")["farms"] and deadline.call("ListFarms")["farms"]
    config.write("settings.ca_bundle", str(tmp_path / "gone.pem"))
    with pytest.raises(Trouble) as caught:
        client(server, monkeypatch).call("ListFarms")
    assert caught.value.status == 78 and "gone.pem" in caught.value.message


def test_a_proxy_is_asked_for_the_whole_url(serve, monkeypatch, slept):
    proxy = serve([FARMS])
    config.write("settings.https_proxy", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://service.test:8080/base/")
    assert aws.Session().client("deadline").call("ListFarms")["farms"]
    (asked,) = proxy.asked
    assert asked.target == "http://management.service.test:8080/base/2023-10-12/farms"
    assert asked.headers["host"] == "management.service.test:8080"
    assert asked.headers["proxy-authorization"] == "Basic bWU6cEBzcw=="
    assert "proxy-authorization" not in asked.headers["authorization"]


def tunnelling(port, status=200):
    """A proxy that lets CONNECT through to a port of this machine, whatever host is asked for."""

    def relay(sock, file):
        if status != 200:
            sock.sendall(f"HTTP/1.1 {status} x\r\n\r\n".encode())
            return
        with socket.create_connection(("127.0.0.1", port)) as other:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")

            def forward():
                with suppress(OSError):
                    while block := other.recv(65536):
                        sock.sendall(block)

            threading.Thread(target=forward, daemon=True).start()
            while block := file.read1(65536):
                other.sendall(block)

    return lambda asked: relay


def test_a_proxy_tunnels_to_encrypted_endpoints(serve, monkeypatch, slept, tls_files):
    server = serve([FARMS], tls_files=tls_files)
    proxy = serve(tunnelling(server.port))
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls_files[0]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://service.test")
    monkeypatch.setenv("AWS_DISABLE_HOST_PREFIX_INJECTION", "true")
    deadline = aws.Session().client("deadline")
    assert deadline.call("ListFarms")["farms"] and deadline.call("ListFarms")["farms"]
    assert [asked.method for asked in proxy.asked] == ["CONNECT"]
    assert proxy.asked[0].target == "service.test:443"
    assert server.asked[0].headers["host"] == "service.test"
    assert len(server.asked) == 2


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (403, 1), (503, 3)])
def test_a_proxy_that_refuses(serve, monkeypatch, slept, status, tries):
    proxy = serve(tunnelling(0, status))
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://service.test")
    with pytest.raises(Trouble) as caught:
        aws.Session().client("deadline").call("ListFarms")
    assert caught.value.status == 69 and "proxy" in caught.value.message
    assert len(proxy.asked) == tries


@pytest.mark.parametrize(
    ("host", "no_proxy", "used"),
    [
        ("service.test", "", True), ("service.test", "*", False), ("service.test", "other,.test", False),
        ("service.test", "service.test", False), ("service.test", "ice.test", True), ("127.0.0.1", "", False),
        ("localhost", "", False), ("service.test", "service.test:443", False), ("service.test", "service.test:1", True),
    ],
)  # fmt: skip
def test_which_hosts_are_reached_through_the_proxy(monkeypatch, host, no_proxy, used):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (http.Transport().proxy_for("https", host, 443) is not None) == used


def test_a_proxy_that_is_no_url(monkeypatch):
    config.write("settings.https_proxy", "socks5://me:secret@proxy:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://service.test")
    with pytest.raises(Trouble) as caught:
        aws.Session().client("deadline").call("ListFarms")
    assert caught.value.status == 78 and "secret" not in caught.value.message


# Farms in all regions, the monitor's user, roles of queues


def test_farms_are_looked_for_in_every_region(serve, monkeypatch, slept):
    def reply(asked):
        if asked.region == "eu-west-1":
            return refusal(403, "AccessDeniedException", "not there")
        return answer(fields={"farms": [{"farmId": f"farm-{asked.region}"}]})

    server = serve(reply)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    farms, warnings = aws.list_farms(aws.Session())
    assert [farm["region"] for farm in farms] == [name for name in aws.REGIONS if name != "eu-west-1"]
    assert all(farm["farmId"] == f"farm-{farm['region']}" for farm in farms)
    assert len(warnings) == 1 and "'eu-west-1'" in warnings[0] and "not there" in warnings[0]
    config.write("settings.deadline_regions", "us-east-1, ,eu-west-1,us-east-1")
    assert aws.regions(aws.Session()) == ["us-east-1", "eu-west-1"]
    monkeypatch.setenv("DEADLINE_CLOUD_REGIONS", "eu-west-1,eu-west-1 ")
    with pytest.raises(aws.ServiceError):
        aws.list_farms(aws.Session())
    assert aws.list_farms(aws.Session(), region="us-east-2")[0][0]["farmId"] == "farm-us-east-2"


def test_all_regions_fail(serve, monkeypatch, slept):
    server = serve(lambda asked: refusal(403, "AccessDeniedException", f"not in {asked.region}"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    with pytest.raises(Trouble) as caught:
        aws.list_farms(aws.Session())
    assert caught.value.status == 77
    assert all(f"{name}: " in caught.value.message for name in aws.REGIONS)


def test_an_endpoint_of_ones_own_is_one_region(serve, monkeypatch):
    server = serve([FARMS])
    monkeypatch.setenv("AWS_ENDPOINT_URL_DEADLINE", server.url)
    farms, warnings = aws.list_farms(aws.Session())
    assert [farm["region"] for farm in farms] == ["us-west-2"] and not warnings
    assert [asked.region for asked in server.asked] == ["us-west-2"]


def monitor_profile(tmp_path, **more):
    folder = tmp_path / ".aws"
    folder.mkdir(exist_ok=True)
    fields = {"region": "us-west-2", "monitor_id": "monitor-1", "user_id": "user-1", "identity_store_id": "d-1", **more}
    keys = {"Version": 1, "AccessKeyId": "AKIAMONITOR", "SecretAccessKey": "secret"}
    (folder / "keys.json").write_text(json.dumps(keys))
    fields["credential_process"] = f"cat {folder}/keys.json"
    lines = ["[profile mine]", *(f"{name} = {value}" for name, value in fields.items())]
    (folder / "config").write_text("\n".join(lines))


def test_the_monitors_user_sees_what_is_theirs(serve, monkeypatch, tmp_path):
    monitor_profile(tmp_path)

    def reply(asked):
        return answer(fields={"farms": [{"farmId": asked.region, "kmsKeyArn": "arn:k"}], "queues": []})

    server = serve(reply)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    session = aws.Session(profile="mine")
    assert session.credential_kind == "DEADLINE_CLOUD_MONITOR_LOGIN" and session.principal_id() == "user-1"
    deadline = session.client("deadline")
    deadline.call("ListFarms")
    deadline.call("ListQueues", {"farmId": "f"})
    deadline.call("ListFarms", {"principalId": "other"})
    deadline.call("ListStorageProfilesForQueue", {"farmId": "f", "queueId": "q"})
    assert ["principalId=user-1" in asked.query for asked in server.asked] == [True, True, False, False]
    assert "AKIAMONITOR" in server.asked[0].headers["authorization"]
    # Farms with a key of one's own can't be opened from another region than the monitor's.
    assert [farm["farmId"] for farm in aws.list_farms(session)[0]] == ["us-west-2"]
    role = session.with_credentials(lambda: aws.Credentials("AKIAROLE", "s"))
    role.client("deadline").call("ListFarms")
    assert "principalId" not in server.asked[-1].query and "AKIAROLE" in server.asked[-1].headers["authorization"]


def test_the_role_of_a_queue_is_taken_when_needed_and_again_before_it_ends(serve, monkeypatch):
    def reply(asked):
        if asked.path.endswith(("/user-roles", "/read-roles")):
            number = sum(each.path == asked.path for each in server.asked)
            return answer(
                fields={
                    "credentials": {
                        "accessKeyId": f"ASIA{number}",
                        "secretAccessKey": "s",
                        "sessionToken": "t",
                        "expiration": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(time() + lives.pop(0))),
                    }
                }
            )
        return FARMS

    lives = [3600, 100, 3600, 3600]
    server = serve(reply)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    session = aws.Session()
    queue = aws.queue_session(session, "farm-1", "queue-1")
    assert not server.asked
    assert queue.credentials().access_key_id == queue.credentials().access_key_id == "ASIA1"
    assert queue.client("deadline").call("ListFarms")
    assert "ASIA1" in server.asked[-1].headers["authorization"]
    read = aws.queue_session(session, "farm-1", "queue-1", "read")
    assert read.credentials().access_key_id == "ASIA1"
    paths = [asked.path for asked in server.asked if "roles" in asked.path]
    assert paths == [
        "/2023-10-12/farms/farm-1/queues/queue-1/user-roles",
        "/2023-10-12/farms/farm-1/queues/queue-1/read-roles",
    ]
    fleet = aws.fleet_session(session, "farm-1", "fleet-1")
    assert fleet.credentials().access_key_id == "ASIA1"
    assert server.asked[-1].path == "/2023-10-12/farms/farm-1/fleets/fleet-1/read-roles"
    with pytest.raises(Trouble):
        aws.queue_session(session, "farm-1", "queue-1", "admin")


def test_a_role_without_credentials(serve, monkeypatch):
    server = serve([answer(fields={"credentials": None})])
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    with pytest.raises(Trouble) as caught:
        aws.queue_session(aws.Session(), "farm-1", "queue-1").credentials()
    assert caught.value.status == 77 and "'queue-1'" in caught.value.message


# The way through boto3


def test_boto3_gives_the_same_results_and_the_same_refusals(serve, monkeypatch, slept):
    def reply(asked):
        if "missing" in asked.path:
            return refusal(
                404, "ResourceNotFoundException", "gone", resourceId="x", resourceType="farm", context={"a": "b"}
            )
        return answer(fields={"farms": [{"farmId": "f", "createdAt": "2025-01-01T00:00:00Z"}]})

    server = serve(reply)
    results, errors = [], []
    for route in ("", "boto3"):
        monkeypatch.setenv("DL_AWS", route)
        deadline = client(server, monkeypatch)
        results.append((deadline.call("ListFarms", {"maxResults": 3}), list(deadline.items("ListFarms"))))
        for operation, parameters in (("GetFarm", {"farmId": "missing"}), ("GetFarm", {})):
            with pytest.raises(Trouble) as caught:
                deadline.call(operation, parameters)
            error = caught.value
            if isinstance(error, aws.ServiceError):
                errors.append((error.message, error.status, error.code, error.http_status, error.response))
            else:
                errors.append(error.status)
    assert results[0] == results[1]
    assert errors[:2] == errors[2:]
    agents = {asked.headers["user-agent"].startswith("Boto3") for asked in server.asked}
    assert agents == {True, False}
    assert all("app/deadline-client#" in asked.headers["user-agent"] for asked in server.asked)
    assert all(asked.headers["host"] == f"127.0.0.1:{server.port}" for asked in server.asked)


def test_boto3_cannot_reach_a_service(monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_DEADLINE", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("DL_AWS", "boto3")
    with pytest.raises(Trouble) as caught:
        aws.Session().client("deadline", attempts=1).call("ListFarms")
    assert caught.value.status == 69 and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("environment", "ending"),
    [
        ({}, f"app/deadline-client#{aws.__version__}"),
        ({"DL_SUBMITTER": "Blender#4.2", "DL_CLI_COMMAND": "deadline.job.list"},
         "submitter/Blender#4.2 cli-command/deadline.job.list"),
        ({"DL_SUBMITTER": "My App\r\nx: y"}, "submitter/My-App--x--y"),
        ({"AI_AGENT": "My Agent_1.0_x"}, "invoked-by/myagent"),
        ({"CLAUDECODE": "1"}, "invoked-by/claude-code"),
        ({"AGENT": "1", "CODEX_SANDBOX": "x"}, "invoked-by/codex"),
        ({"EDITOR": "/opt/devin/ed"}, "invoked-by/devin"),
        ({"AGENT": "true"}, "invoked-by/unknown"),
    ],
)  # fmt: skip
def test_how_we_name_ourselves(monkeypatch, environment, ending):
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("TERM_PROGRAM", raising=False)
    monkeypatch.delenv("AI_AGENT", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert aws.user_agent().endswith(ending)


def test_importing_and_calling_loads_no_sdk(serve, monkeypatch, tmp_path):
    """Neither botocore nor the slow modules of the standard library."""
    import os
    import subprocess
    import sys

    server = serve([FARMS])
    program = (
        "import sys\nfrom libdeadline import aws\n"
        "print(len(list(aws.Session().client('deadline').items('ListFarms'))))\n"
        "print(sorted({'boto3', 'botocore', 'http.client', 'urllib.request', 'email', 'ssl', 'subprocess', 'typing',"
        " 'logging', 'uuid', 'configparser', 'asyncio'} & set(sys.modules)))"
    )
    environment = {**os.environ, "AWS_ENDPOINT_URL": server.url}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-I", "-c", program], env=environment, capture_output=True, text=True, check=True
        )
    assert done.stdout == "1\n[]\n"
    assert (tmp_path / ".cache" / "deadline-tools").is_dir()
    assert model.service("deadline")


PARTS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 x\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 100 x\r\n\r\n",
    b"content-length: 3\r\n", b"content-length: -1\r\n", b"content-length: x\r\n", b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n", b"\r\n", b"3\r\n", b"abc", b"0\r\n\r\n", b"fffffffff\r\n", b": \r\n", b"-5\r\n",
    b"\xff\n",
]  # fmt: skip


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(PARTS), max_size=9).map(lambda parts: [PARTS[0], *parts] if len(parts) % 4 else parts))
def test_no_bytes_break_the_reader(parts):
    """Whatever a server sends before it closes, there is an answer or a ConnectionTrouble."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"".join(parts))
        theirs.shutdown(socket.SHUT_WR)
        connection = http.Connection(ours)
        try:
            found, reusable = connection.exchange("GET", "/", {"host": "x"}, b"")
        except http.ConnectionTrouble:
            return
        assert 200 <= found.status < 1000 and isinstance(found.body, bytes)
        if "content-length" in found.headers and "chunked" not in found.headers.get("transfer-encoding", ""):
            assert found.status == 204 or len(found.body) == int(found.headers["content-length"].split(",")[0])
