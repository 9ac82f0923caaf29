"""Profiles, credentials, regions and endpoints compared with what boto3 makes of the same files and variables."""

import json
import os
import threading
from pathlib import Path
from time import gmtime, strftime, time

import boto3
import botocore.exceptions
import botocore.session
import pytest
from botocore.config import Config as SdkConfig

from libdeadline import aws, config
from libdeadline.aws import credentials, endpoints, profiles
from libdeadline.errors import Trouble

CONFIG = """
[default]
region = eu-north-1
[profile static]
region=us-east-2
aws_access_key_id = AKIACONFIG
aws_secret_access_key = config-secret
aws_session_token = config-token
[profile "with space"]
region = ap-south-1
aws_access_key_id = AKIASPACE
aws_secret_access_key = s
[profile both]
aws_access_key_id = AKIALOSES
aws_secret_access_key = s
credential_process = echo nothing
[profile process]
region = us-west-1
s3 =
    addressing_style = path
    max_concurrent_requests = 5
credential_process = /bin/sh -c 'cat "$HOME/keys file.json"'
[profile served]
region = eu-west-1
services = mine
disable_host_prefix_injection = true
aws_access_key_id = AKIASERVED
aws_secret_access_key = s
[services mine]
deadline =
  endpoint_url = http://127.0.0.1:1/deadline
cloudwatch_logs =
  endpoint_url = http://127.0.0.1:2
[profile plain-endpoint]
region = eu-west-1
endpoint_url = http://127.0.0.1:3
[profile lost-services]
region = eu-west-1
services = nowhere
[profile half]
aws_access_key_id = AKIAHALF
[profile empty]
[profile sso]
sso_account_id = 123456789012
sso_role_name = r
sso_session = s
[sso-session s]
sso_region = us-east-1
sso_start_url = https://x.test
[profile fips]
region = us-east-1
use_fips_endpoint = true
use_dualstack_endpoint = true
[profile monitor]
monitor_id = m
user_id = u
region = us-west-2
[profile console]
login_session = arn:aws:iam::1:user/me
"""
CREDENTIALS = """
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = default-secret
[both]
aws_access_key_id = AKIABOTH
aws_secret_access_key = both-secret
[only-here]
aws_access_key_id: AKIAONLY
aws_secret_access_key: only=secret
region = sa-east-1
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("AWS_", "DEADLINE_", "DL_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    (tmp_path / ".aws" / "credentials").write_text(CREDENTIALS)
    write_keys(tmp_path)
    profiles.forget()
    yield
    profiles.forget()


def write_keys(home, life_s=3600.0, name="AKIAPROCESS"):
    fields = {
        "Version": 1,
        "AccessKeyId": name,
        "SecretAccessKey": "process-secret",
        "SessionToken": "process-token",
        "Expiration": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(time() + life_s)),
    }
    (home / "keys file.json").write_text(json.dumps(fields))


ENVIRONMENTS = {
    "nothing": {},
    "keys": {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env", "AWS_SESSION_TOKEN": "t"},
    "old token": {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env", "AWS_SECURITY_TOKEN": "old"},
    "profile": {"AWS_PROFILE": "static"},
    "default profile": {"AWS_DEFAULT_PROFILE": "process", "AWS_PROFILE": "static"},
    "region": {"AWS_DEFAULT_REGION": "ca-central-1"},
    "keys and profile": {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env", "AWS_PROFILE": "process"},
    "half": {"AWS_ACCESS_KEY_ID": "AKIAENV"},
    "no such profile": {"AWS_PROFILE": "gone"},
    "other files": {"AWS_CONFIG_FILE": "~/other", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"},
}
PROFILES = [None, "static", "with space", "both", "process", "only-here", "served", "half", "empty", "gone"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_credentials_and_region_are_those_that_boto3_finds(monkeypatch, tmp_path, environment, profile):
    (tmp_path / "other").write_text("[default]\nregion = me-south-1\n")
    for name, value in ENVIRONMENTS[environment].items():
        monkeypatch.setenv(name, value)
    profiles.forget()
    try:
        session = boto3.Session(profile_name=profile)
        found = session.get_credentials()
        theirs = found and tuple(found.get_frozen_credentials())[:3]
        region = session.region_name
    except botocore.exceptions.BotoCoreError as error:
        theirs, region = type(error).__name__, None
    ours = aws.Session(profile=profile)
    try:
        keys = ours.credentials()
        mine = (keys.access_key_id, keys.secret_access_key, keys.session_token)
    except Trouble as trouble:
        assert theirs is None or isinstance(theirs, str), theirs
        wanted = {"ProfileNotFound": 78, "PartialCredentialsError": 78, None: 77}
        assert trouble.status == wanted[theirs], trouble.message
        return
    assert mine == theirs
    assert ours.profile_region == region


def test_nothing_but_boto3_knows_the_rest(monkeypatch):
    """A profile that signs in by SSO is boto3's: its own error comes through, as one line."""
    with pytest.raises(Trouble) as caught:
        aws.Session(profile="sso").credentials()
    assert caught.value.status == 77 and "\n" not in caught.value.message and "SSO" in caught.value.message
    profiles.forget()
    path = Path(os.environ["HOME"]) / ".aws" / "config"
    path.write_text(
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\nregion = us-west-2\n"
        "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = s\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Trouble) as caught:
        aws.Session(profile="role").credentials()
    assert "127.0.0.1:9" in caught.value.message and "\n" not in caught.value.message


def test_credentials_of_boto3_are_handed_over_and_stay_fresh(monkeypatch):
    from botocore.credentials import Credentials, RefreshableCredentials

    from libdeadline.aws import sdk

    made = []

    def refreshed():
        made.append(1)
        return {
            "access_key": f"ASIA{len(made)}", "secret_key": "s", "token": "t",
            "expiry_time": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(time() + (100 if len(made) == 1 else 4000))),
        }  # fmt: skip

    found = RefreshableCredentials.create_from_metadata(refreshed(), refreshed, "test")
    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: found)
    source = sdk.credential_source(None)
    first = source.get()
    assert first.access_key_id == "ASIA2" and first.expires and first.expires > time() + 3000
    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: Credentials("AKIA", "s"))
    assert sdk.credential_source(None).get().expires is None
    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: None)
    with pytest.raises(Trouble) as caught:
        sdk.credential_source("static")
    assert caught.value.status == 77


def test_an_empty_variable_is_none(monkeypatch):
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "")
    session = aws.Session()
    assert (session.region, session.credentials().access_key_id) == ("eu-north-1", "AKIADEFAULT")
    assert session.endpoint("deadline") == "https://deadline.eu-north-1.amazonaws.com"


def test_no_credentials_anywhere(monkeypatch, tmp_path):
    (tmp_path / ".aws" / "credentials").unlink()
    profiles.forget()
    with pytest.raises(Trouble) as caught:
        aws.Session().credentials()
    assert caught.value.status == 77
    assert "no AWS credentials" in caught.value.message


def test_the_profile_of_the_settings_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "static")
    assert aws.Session().credentials().access_key_id == "AKIACONFIG"
    for ambient in ("(default)", "default", ""):
        config.write("defaults.aws_profile_name", ambient)
        assert aws.Session().credentials().access_key_id == "AKIACONFIG"
    config.write("defaults.aws_profile_name", "only-here")
    assert aws.Session().credentials().access_key_id == "AKIAONLY"
    assert aws.Session().credentials().secret_access_key == "only=secret"
    assert aws.Session(profile="both").credentials().access_key_id == "AKIABOTH"


def test_which_region_is_asked(monkeypatch):
    config.write("defaults.aws_profile_name", "static")
    config.write("defaults.farm_id", "farm-1")
    assert aws.Session().region == "us-east-2"
    config.write("defaults.farm_region", "eu-west-2")
    assert aws.Session().region == "eu-west-2"
    assert aws.Session(region="eu-west-3").region == "eu-west-3"
    other = config.read().with_values({"defaults.farm_id": "farm-2"})
    assert aws.Session(other).region == "us-east-2"
    assert aws.Session().with_region("sa-east-1").region == "sa-east-1"
    assert aws.Session().profile_region == "us-east-2"
    empty = config.read().with_values({"defaults.aws_profile_name": "empty"})
    with pytest.raises(Trouble) as caught:
        _ = aws.Session(empty).region
    assert caught.value.status == 78 and "region" in caught.value.message
    monkeypatch.setenv("AWS_REGION", "us-gov-west-1")
    assert aws.Session(empty).region == "us-gov-west-1"


@pytest.mark.parametrize("profile", ["monitor", "console", "static"])
def test_the_kind_of_credentials_is_told_by_the_profile(monkeypatch, profile):
    kinds = {"monitor": "DEADLINE_CLOUD_MONITOR_LOGIN", "console": "AWS_CONSOLE_LOGIN", "static": "HOST_PROVIDED"}
    assert aws.Session(profile=profile).credential_kind == kinds[profile]
    monkeypatch.setenv("AWS_PROFILE", profile)
    assert aws.Session().credential_kind == kinds[profile]


@pytest.mark.parametrize("service", ["deadline", "logs", "sts", "s3"])
@pytest.mark.parametrize(
    ("profile", "environment"),
    [
        ("served", {}),
        ("plain-endpoint", {}),
        ("served", {"AWS_ENDPOINT_URL": "http://127.0.0.1:4"}),
        ("served", {"AWS_ENDPOINT_URL_DEADLINE": "http://127.0.0.1:5", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:6"}),
        ("served", {"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "http://127.0.0.1:7", "AWS_ENDPOINT_URL_LOGS": "http://x:1"}),
        ("served", {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:8"}),
        ("static", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}),
    ],
)
def test_endpoints_that_somebody_set(monkeypatch, service, profile, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    session = boto3.Session(profile_name=profile, aws_access_key_id="a", aws_secret_access_key="b")
    theirs = session.client(service, config=SdkConfig(s3={"addressing_style": "path"})).meta.endpoint_url
    assert aws.Session(profile=profile).endpoint(service) == theirs


def test_endpoints_that_are_wrong(monkeypatch):
    with pytest.raises(Trouble) as caught:
        aws.Session(profile="lost-services").endpoint("deadline")
    assert caught.value.status == 78 and "nowhere" in caught.value.message
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:80")
    with pytest.raises(Trouble) as caught:
        aws.Session(profile="static").endpoint("deadline")
    assert caught.value.status == 78
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for region in ("evil.test/", "a b", "-"):
        with pytest.raises(Trouble):
            aws.Session(profile="static", region=region).endpoint("deadline")


SDK = botocore.session.Session()


@pytest.mark.parametrize("service", ["deadline", "logs", "sts", "s3"])
@pytest.mark.parametrize("variant", ["", "fips", "dualstack"])
def test_endpoints_of_aws_are_those_of_botocores_rules(monkeypatch, service, variant):
    from botocore.endpoint_provider import EndpointProvider

    loader = SDK.get_component("data_loader")
    rules = loader.load_service_model(service, "endpoint-rule-set-1")
    provider = EndpointProvider(rules, loader.load_data("partitions"))
    if variant:
        monkeypatch.setenv(f"AWS_USE_{variant.upper()}_ENDPOINT", "true")
    checked = 0
    for partition in ("aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-iso-e", "aws-iso-f", "aws-eusc"):
        regions = {
            "aws": aws.REGIONS, "aws-cn": ("cn-north-1",), "aws-us-gov": ("us-gov-west-1", "us-gov-east-1"),
            "aws-iso": ("us-iso-east-1",), "aws-iso-b": ("us-isob-east-1",), "aws-iso-e": ("eu-isoe-west-1",),
            "aws-iso-f": ("us-isof-south-1",), "aws-eusc": ("eusc-de-east-1",),
        }[partition]  # fmt: skip
        for region in regions:
            wanted = {"Region": region, "UseFIPS": variant == "fips", "UseDualStack": variant == "dualstack"}
            if service == "sts":
                wanted["UseGlobalEndpoint"] = False
            if service == "s3":
                wanted.update(UseGlobalEndpoint=False, ForcePathStyle=True, Accelerate=False)
            try:
                theirs = provider.resolve_endpoint(**wanted).url
            except botocore.exceptions.EndpointProviderError:
                continue
            checked += 1
            assert endpoints.resolved(service, region, profiles.read(), "default") == theirs
    assert checked >= 10


@pytest.mark.parametrize(
    ("url", "environment", "profile", "injected"),
    [
        ("https://deadline.us-west-2.amazonaws.com", {}, "static", True),
        ("https://deadline.example.test:1", {}, "static", True),
        ("https://deadline.example.test", {"AWS_DISABLE_HOST_PREFIX_INJECTION": "true"}, "static", False),
        ("https://deadline.example.test", {}, "served", False),
        ("http://127.0.0.1:1", {}, "static", False),
        ("http://[::1]:1", {}, "static", False),
        ("http://localhost:1", {}, "static", False),
    ],
)
def test_where_a_host_prefix_goes(monkeypatch, url, environment, profile, injected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert aws.Session(profile=profile).injects_host_prefix(url) == injected


# Credentials over time


def test_a_process_is_asked_again_only_when_its_credentials_are_about_to_end(monkeypatch, tmp_path):
    counter = tmp_path / "calls"
    (tmp_path / ".aws" / "config").write_text(
        f"[profile p]\nregion=x\ncredential_process = sh -c 'echo >>{counter}; cat \"{tmp_path}/keys file.json\"'\n"
    )
    profiles.forget()
    session = aws.Session(profile="p")
    now = time()
    write_keys(tmp_path, 900, "AKIA1")
    monkeypatch.setattr(credentials, "time", lambda: now)
    for later, calls, name in ((0, 1, "AKIA1"), (590, 1, "AKIA1"), (610, 2, "AKIA2"), (611, 2, "AKIA2")):
        monkeypatch.setattr(credentials, "time", lambda later=later: now + later)
        if later == 610:
            write_keys(tmp_path, 1510, "AKIA2")
        assert session.credentials().access_key_id == name
        assert len(counter.read_text()) == calls


def test_old_credentials_serve_while_new_ones_cannot_be_had(monkeypatch):
    now = time()
    clock = [now]
    monkeypatch.setattr(credentials, "time", lambda: clock[0])
    lives = [now + 900]

    def provider():
        if not lives:
            raise Trouble("no more", 77)
        return aws.Credentials("A", "s", None, lives.pop())

    source = credentials.Source(provider)
    assert source.get().access_key_id == "A"
    clock[0] = now + 700  # within five minutes of their end
    assert source.get().access_key_id == "A"
    clock[0] = now + 760  # within two and a half
    with pytest.raises(Trouble):
        source.get()


def test_one_thread_fetches_and_the_others_go_on(monkeypatch):
    now = time()
    clock = [now]
    monkeypatch.setattr(credentials, "time", lambda: clock[0])
    fetching, go_on = threading.Event(), threading.Event()
    calls = []

    def provider():
        calls.append(1)
        if len(calls) == 2:
            fetching.set()
            assert go_on.wait(5)
        return aws.Credentials(f"A{len(calls)}", "s", None, clock[0] + 900)

    source = credentials.Source(provider)
    source.get()
    clock[0] = now + 650
    slow = threading.Thread(target=source.get)
    slow.start()
    assert fetching.wait(5)
    assert source.get().access_key_id == "A1"
    go_on.set()
    slow.join()
    assert source.get().access_key_id == "A2" and len(calls) == 2
    # The first ones of all are waited for, and fetched once.
    calls.clear()
    fresh = credentials.Source(provider)
    threads = [threading.Thread(target=fresh.get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("false", 77, "failed with status 1"),
        ("sh -c 'echo sign in first >&2; exit 3'", 77, "status 3: sign in first"),
        ("/no/such/program", 78, "cannot start"),
        ("'unclosed", 78, "cannot start"),
        ("echo hello", 78, "something else"),
        ("echo '{\"Version\": 2}'", 78, "version 2"),
        ('echo \'{"Version": 1, "AccessKeyId": "a"}\'', 78, "SecretAccessKey"),
        ('echo \'{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "Expiration": 1}\'', 0, ""),
        ("echo '[]'", 78, "something else"),
        ("cat", 78, "something else"),  # its standard input is empty, not ours
    ],
)
def test_a_process_that_gives_no_credentials(tmp_path, command, status, says):
    (tmp_path / ".aws" / "config").write_text(f"[profile p]\ncredential_process = {command}\n")
    profiles.forget()
    session = aws.Session(profile="p")
    if not status:
        assert session.credentials().expires == 1
        return
    with pytest.raises(Trouble) as caught:
        session.credentials()
    assert (caught.value.status, says in caught.value.message) == (status, True), caught.value.message


def test_a_file_that_another_process_keeps_fresh(tmp_path):
    path = tmp_path / "keys file.json"
    session = aws.Session().with_credentials(lambda: credentials.from_file(str(path)))
    assert session.credentials().session_token == "process-token"
    path.unlink()
    with pytest.raises(Trouble) as caught:
        credentials.from_file(str(path))
    assert caught.value.status == 66


def test_keys_never_show(monkeypatch):
    keys = aws.Credentials("AKIA", "geheim", "geheimer")
    assert "geheim" not in repr(keys) and "geheim" not in str(vars(aws)["Credentials"])
    assert not hasattr(keys, "__dict__")


def test_a_file_of_profiles_that_is_broken(tmp_path):
    path = tmp_path / ".aws" / "config"
    path.write_text("[default]\nregion = x\nnonsense\n")
    profiles.forget()
    with pytest.raises(Trouble) as caught:
        aws.Session().credentials()
    assert caught.value.status == 78 and f"'{path}', line 3:" in caught.value.message
