"""Signatures, principals, and what each of them may call."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from libdeadline.minted import KeyRing

FARMS = "/2023-10-12/farms"


def remove(name: str) -> Any:
    return lambda headers: headers.pop(name)


def put(name: str, text: str) -> Any:
    return lambda headers: headers.__setitem__(name, text)


def replace(old: str, new: str) -> Any:
    return lambda headers: headers.__setitem__("authorization", headers["authorization"].replace(old, new))


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"change": remove("authorization")}, "MissingAuthenticationTokenException"),
        ({"change": put("authorization", "Basic abc")}, "IncompleteSignatureException"),
        ({"change": put("authorization", "AWS4-HMAC-SHA256 Credential=x")}, "IncompleteSignatureException"),
        ({"change": remove("x-amz-date")}, "IncompleteSignatureException"),
        ({"change": put("x-amz-date", "yesterday")}, "IncompleteSignatureException"),
        ({"change": replace("host;", "")}, "IncompleteSignatureException"),
        ({"change": replace("SignedHeaders=", "SignedHeaders=absent;")}, "IncompleteSignatureException"),
        ({"change": replace("aws4_request", "aws5_request")}, "IncompleteSignatureException"),
        ({"change": replace("us-west-2", "us-east-1")}, "InvalidSignatureException"),
        ({"change": put("x-amz-date", "20200101T000000Z")}, "InvalidSignatureException"),
        ({"off_s": -330}, "InvalidSignatureException"),
        ({"off_s": 330}, "InvalidSignatureException"),
        ({"key": ("AKIAUNKNOWN", "x")}, "UnrecognizedClientException"),
        ({"token": "nonsense"}, "UnrecognizedClientException"),
        ({"change": put("x-amz-security-token", "not signed")}, "IncompleteSignatureException"),
        ({"headers": {"x-amz-content-sha256": "0" * 64}}, "InvalidSignatureException"),
        ({"headers": {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}}, "InvalidSignatureException"),
    ],
)
def test_what_is_not_signed_right_is_refused(how: dict[str, Any], error: str, farmd: Any) -> None:
    how = dict(how)
    off_s = how.pop("off_s", 0)
    answer = farmd.send("GET", FARMS, now=time.time() + off_s, **how)
    assert (answer.status, answer.error) == (403, error)
    assert answer.body["message"]


def test_a_wrong_secret_and_a_tampered_request_are_refused(farmd: Any) -> None:
    key_id, secret = farmd.admin()
    answer = farmd.send("GET", FARMS, key=(key_id, secret + "x"))
    assert (answer.status, answer.error) == (403, "InvalidSignatureException")
    for change in (put("host", "elsewhere"), replace("Signature=", "Signature=0")):
        assert farmd.send("GET", FARMS, change=change).error == "InvalidSignatureException"


def test_a_tampered_body_or_query_is_refused(farmd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from http.client import HTTPConnection

    plain = HTTPConnection.request
    for target, body in ((f"{FARMS}?maxResults=2", b'{"displayName": "a"}'), (FARMS, b'{"displayName": "b"}')):

        def request(
            self: Any, method: str, url: str, content: Any, headers: Any, target: str = target, body: bytes = body
        ) -> None:
            plain(self, method, target, body, headers)

        monkeypatch.setattr(HTTPConnection, "request", request)
        assert farmd.send("POST", FARMS, b'{"displayName": "a"}').error == "InvalidSignatureException"


def test_odd_characters_in_paths_and_queries_are_signed_alike(farmd: Any) -> None:
    # 404 and 400 come after the signature has been checked.
    assert farmd.send("GET", "/2023-10-12/no%20such%2Fthing%C3%A4+(~*)").status == 404
    assert farmd.send("GET", f"{FARMS}?nextToken=a%2Bb%20%C3%A4%2F&maxResults=1").error == "ValidationException"


def test_boto_signs_as_we_check(farmd: Any, farm_ids: Any) -> None:
    client = farmd.client()
    assert client.list_fleets(farmId=farm_ids.farm, displayName="a b/c+ä~*'()")["fleets"] == []


def test_expired_credentials(farmd: Any) -> None:
    old = KeyRing.load(farmd.dir / "keys").mint({"kind": "worker"}, 60, time.time() - 61)
    answer = farmd.send("GET", FARMS, key=(old.access_key_id, old.secret_access_key), token=old.session_token)
    assert (answer.status, answer.error) == (403, "ExpiredTokenException")


def add_key(farmd: Any, key_id: str, **entry: Any) -> dict[str, str]:
    path = farmd.dir / "keys" / "access.json"
    entries = json.loads(path.read_text())
    entries[key_id] = {"secret": "s" * 40, **entry}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(entries))
    new.replace(path)
    credentials = {"accessKeyId": key_id, "secretAccessKey": "s" * 40}
    limit = time.monotonic() + 10
    while time.monotonic() < limit:  # the file is looked at once a second
        if farmd.send("GET", FARMS, key=(key_id, "s" * 40)).error != "UnrecognizedClientException":
            return credentials
        time.sleep(0.05)
    raise AssertionError("the key was not taken up")


def denied(function: Any, **params: Any) -> bool:
    try:
        function(**params)
    except ClientError as error:
        return bool(error.response["Error"]["Code"] == "AccessDeniedException")
    return False


@pytest.mark.parametrize(
    ("level", "may"),
    [
        ("VIEWER", [True, False, False, False]),
        ("CONTRIBUTOR", [True, True, False, False]),
        ("MANAGER", [True, True, True, False]),
        ("OWNER", [True, True, True, True]),
    ],
)
def test_users_by_level(level: str, may: list[bool], farmd: Any, farm_ids: Any) -> None:
    client = farmd.client(credentials=add_key(farmd, f"AKIA{level}", principal="user", name=f"a-{level}", level=level))
    queue = {"farmId": farm_ids.farm, "queueId": farm_ids.queue}
    tried = [
        not denied(client.get_queue, **queue),
        not denied(client.assume_queue_role_for_user, **queue),
        not denied(client.update_queue, **queue, description="changed"),
        not denied(client.create_farm, displayName="f"),
    ]
    assert tried == may
    worker = {"farmId": farm_ids.farm, "fleetId": farm_ids.fleet}
    assert denied(client.create_worker, **worker, hostProperties={"hostName": "h"})
    if level == "MANAGER":
        assert farmd.client().get_queue(**queue)["updatedBy"] == "a-MANAGER"


def test_a_user_of_one_farm_sees_no_other(farmd: Any, farm_ids: Any) -> None:
    other = farmd.client().create_farm(displayName="other")["farmId"]
    client = farmd.client(
        credentials=add_key(farmd, "AKIAONEFARM", principal="user", level="OWNER", farm=farm_ids.farm)
    )
    assert client.get_farm(farmId=farm_ids.farm)
    assert denied(client.get_farm, farmId=other)
    arn = "arn:aws:deadline:us-west-2:000000000000:farm/"
    assert client.list_tags_for_resource(resourceArn=arn + farm_ids.farm)["tags"] == {}
    assert denied(client.tag_resource, resourceArn=arn + other, tags={"a": "b"})


def test_a_batch_reaches_no_other_farm(farmd: Any, farm_ids: Any) -> None:
    credentials = add_key(farmd, "AKIABATCH", principal="user", level="OWNER", farm=farm_ids.farm)
    client = farmd.client(credentials=credentials)
    own = {"farmId": farm_ids.farm, "queueId": farm_ids.queue, "jobId": f"job-{'0' * 32}"}
    assert not denied(client.batch_get_job, identifiers=[own])
    assert denied(client.batch_get_job, identifiers=[own, {**own, "farmId": f"farm-{'0' * 32}"}])


def test_a_member_has_the_level_of_the_membership(farmd: Any, farm_ids: Any) -> None:
    person = "99999999-2222-3333-4444-555555555555"
    client = farmd.client(credentials=add_key(farmd, "AKIAMEMBER", principal="user", name="m", principal_id=person))
    queue = {"farmId": farm_ids.farm, "queueId": farm_ids.queue}
    fleet = {"farmId": farm_ids.farm, "fleetId": farm_ids.fleet}
    about = {"principalId": person, "principalType": "USER", "identityStoreId": "d-0123456789"}
    assert client.list_farms()["farms"] == []
    assert (
        denied(client.get_queue, **queue)
        and denied(client.list_queues, farmId=farm_ids.farm)
        and denied(client.get_farm, farmId=farm_ids.farm)
    )
    admin = farmd.client()
    admin.associate_member_to_queue(**queue, **about, membershipLevel="MANAGER")
    assert not denied(client.update_queue, **queue, description="by a member")
    assert denied(client.delete_queue, **queue)
    assert denied(client.get_fleet, **fleet)
    admin.associate_member_to_farm(farmId=farm_ids.farm, **about, membershipLevel="VIEWER")
    assert client.get_fleet(**fleet) and denied(client.update_fleet, **fleet, description="x")
    admin.disassociate_member_from_queue(**queue, principalId=person)
    assert denied(client.update_queue, **queue, description="x") and client.get_queue(**queue)


def test_role_credentials_reach_what_they_are_for(farmd: Any, farm_ids: Any) -> None:
    admin = farmd.client()
    queue = {"farmId": farm_ids.farm, "queueId": farm_ids.queue}
    for assume, params in (
        (admin.assume_queue_role_for_user, queue),
        (admin.assume_queue_role_for_read, queue),
        (admin.assume_fleet_role_for_read, {"farmId": farm_ids.farm, "fleetId": farm_ids.fleet}),
    ):
        credentials = assume(**params)["credentials"]
        assert 3500 < credentials["expiration"].timestamp() - time.time() <= 3600
        client = farmd.client(credentials=credentials)
        for call in (client.list_farms, client.create_farm):
            assert denied(call, **({"displayName": "x"} if call == client.create_farm else {}))
        identity = farmd.client("sts", credentials=credentials).get_caller_identity()
        assert identity["Account"] == "000000000000" and identity["Arn"].endswith(":assumed-role/farm/admin")
    no_role = admin.create_queue(farmId=farm_ids.farm, displayName="no role")["queueId"]
    with pytest.raises(ClientError, match="has no role"):
        admin.assume_queue_role_for_user(farmId=farm_ids.farm, queueId=no_role)


def test_credentials_survive_a_restart(farmd: Any, farm_ids: Any) -> None:
    credentials = farmd.client().assume_queue_role_for_user(farmId=farm_ids.farm, queueId=farm_ids.queue)["credentials"]
    farmd.restart()
    assert farmd.client("sts", credentials=credentials).get_caller_identity()["UserId"]


def make_worker(farmd: Any, farm_ids: Any, client: Any) -> tuple[str, Any]:
    ids = {"farmId": farm_ids.farm, "fleetId": farm_ids.fleet}
    worker = client.create_worker(**ids, hostProperties={"hostName": "host"})["workerId"]
    credentials = client.assume_fleet_role_for_worker(**ids, workerId=worker)["credentials"]
    return worker, farmd.client(credentials=credentials)


def test_a_worker_acts_for_itself_alone(farmd: Any, farm_ids: Any) -> None:
    bootstrap = farmd.client(
        credentials=add_key(farmd, "AKIABOOT", principal="bootstrap", farm=farm_ids.farm, fleet=farm_ids.fleet)
    )
    ids = {"farmId": farm_ids.farm, "fleetId": farm_ids.fleet}
    one, first = make_worker(farmd, farm_ids, bootstrap)
    two, second = make_worker(farmd, farm_ids, bootstrap)
    capabilities = {
        "amounts": [{"name": "amount.worker.vcpu", "value": 4}, {"name": "amount.worker.memory", "value": 4096}],
        "attributes": [
            {"name": "attr.worker.os.family", "values": ["linux"]},
            {"name": "attr.worker.cpu.arch", "values": ["x86_64"]},
        ],
    }  # fmt: skip
    assert first.update_worker(**ids, workerId=one, status="STARTED", capabilities=capabilities)["log"]
    assert denied(first.update_worker, **ids, workerId=two, status="STARTED")
    assert denied(second.assume_fleet_role_for_worker, **ids, workerId=one)
    for call, params in (
        (first.list_farms, {}),
        (first.get_worker, {**ids, "workerId": one}),
        (first.create_worker, {**ids, "hostProperties": {"hostName": "h"}}),
        (first.create_job, {"farmId": farm_ids.farm, "queueId": farm_ids.queue, "priority": 1}),
        (first.assume_queue_role_for_worker, {**ids, "workerId": one, "queueId": farm_ids.queue}),
        (bootstrap.list_farms, {}),
        (bootstrap.update_worker, {**ids, "workerId": one, "status": "STOPPED"}),
    ):
        assert denied(call, **params), params
    # With the bootstrap key nobody takes over a worker that is online; the worker itself renews its credentials.
    with pytest.raises(ClientError) as caught:
        bootstrap.assume_fleet_role_for_worker(**ids, workerId=one)
    assert caught.value.response["reason"] == "STATUS_CONFLICT"
    assert first.assume_fleet_role_for_worker(**ids, workerId=one)["credentials"]
    other_fleet = farmd.client().create_fleet(
        farmId=farm_ids.farm,
        displayName="o",
        roleArn=farm_ids.role,
        maxWorkerCount=1,
        configuration=farm_ids.configuration,
    )["fleetId"]
    assert denied(bootstrap.create_worker, farmId=farm_ids.farm, fleetId=other_fleet, hostProperties={"hostName": "h"})


def test_sts_knows_one_action(farmd: Any) -> None:
    sts = farmd.client("sts")
    identity = sts.get_caller_identity()
    assert identity["Arn"] == "arn:aws:iam::000000000000:user/admin" and identity["Account"] == "000000000000"
    with pytest.raises(ClientError) as caught:
        sts.assume_role(RoleArn=f"arn:aws:iam::000000000000:role/{'x' * 10}", RoleSessionName="session")
    assert caught.value.response["Error"]["Code"] == "InvalidAction"
    wrong = farmd.client("sts", credentials={"accessKeyId": "AKIANONE", "secretAccessKey": "x"})
    with pytest.raises(ClientError) as caught:
        wrong.get_caller_identity()
    assert caught.value.response["Error"]["Code"] == "InvalidClientTokenId"
