"""What points a program at the farm: variables, AWS profile files, settings of Deadline Cloud clients.

Source: spec/service.md section 1.1, AWS SDKs and Tools Reference Guide.
"""

from __future__ import annotations

import json
import os
from shlex import quote
from typing import TYPE_CHECKING

from libdeadline import statuses
from libdeadline.errors import Trouble

from .layout import HOST, replace

if TYPE_CHECKING:
    from .layout import Folder

PROFILE = "dl-farm"
SERVICES = {"deadline": "farmd", "s3": "s3d", "sts": "farmd", "cloudwatch_logs": "farmd"}  # by botocore's service ids


def endpoints(folder: Folder) -> dict[str, str]:
    """The variables that any program, with whatever credentials, needs to reach the farm."""
    return {
        "AWS_REGION": folder.region,
        "AWS_DEFAULT_REGION": folder.region,
        **{f"AWS_ENDPOINT_URL_{name.upper()}": folder.url(server) for name, server in SERVICES.items()},
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
        "DEADLINE_CLOUD_TELEMETRY_OPT_OUT": "true",
    }


def variables(folder: Folder) -> dict[str, str]:
    """The variables that make the farm's owner of a shell."""
    return {
        "AWS_CONFIG_FILE": folder.at("aws", "config"),
        "AWS_SHARED_CREDENTIALS_FILE": folder.at("aws", "credentials"),
        "AWS_PROFILE": PROFILE,
        **endpoints(folder),
        "DEADLINE_CONFIG_FILE_PATH": folder.at("client", "config"),
    }


# Set in a shell, these would win over the profile and lead elsewhere.
OVERRIDING = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def past_proxies() -> dict[str, str]:
    """The variables that keep requests to this machine from a proxy, if one is set."""
    if not any(os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES):
        return {}
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = given if HOST in given.split(",") else ",".join(each for each in (given, HOST) if each)
    return {"NO_PROXY": hosts, "no_proxy": hosts}


def exports(folder: Folder) -> str:
    """Shell commands that set the variables, for `eval`."""
    lines = [f"export {name}={quote(value)}" for name, value in (variables(folder) | past_proxies()).items()]
    return "\n".join([*lines, f"unset {' '.join(OVERRIDING)}"]) + "\n"


def unsets(folder: Folder) -> str:
    """Shell commands that take the variables away again."""
    return f"unset {' '.join(variables(folder))}\n"


def profile_text(folder: Folder, name: str) -> str:
    """The sections of an AWS config file."""
    services = "".join(f"{service} =\n  endpoint_url = {folder.url(server)}\n" for service, server in SERVICES.items())
    return (
        f"[profile {name}]\nregion = {folder.region}\nservices = {name}\ndisable_host_prefix_injection = true\n"
        # Without it the SDK presigns URLs by Signature Version 2, which S3 takes no more.
        "s3 =\n  signature_version = s3v4\n\n"
        f"[services {name}]\n{services}"
    )


def credentials_text(name: str, key: tuple[str, str]) -> str:
    """The section of an AWS credentials file; `key` is access key id and secret."""
    return f"[{name}]\naws_access_key_id = {key[0]}\naws_secret_access_key = {key[1]}\n"


def admin_key(folder: Folder) -> tuple[str, str]:
    """The access key id and secret of the farm's owner, made with the master key when missing.

    Raises: Trouble (78) where the keys are damaged.
    """
    from libdeadline.minted import KeyRing

    try:
        keys = KeyRing.create(folder.at("keys")).keys()
        return next((key_id, key.secret) for key_id, key in keys.items() if key.claims.get("principal") == "admin")
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        message = f"the keys in '{folder.at('keys')}' are damaged: {error or 'there is none of an admin'}"
        raise Trouble(message, statuses.CONFIGURATION) from None


def bootstrap_key(folder: Folder, farm_id: str, fleet_id: str) -> tuple[str, str]:
    """The key that workers of a fleet enrol with; it can do nothing else."""
    from base64 import b64encode
    from secrets import token_bytes

    from libdeadline.minted import access_key_id

    path = folder.at("keys", "access.json")
    with open(path, encoding="utf-8") as file:
        keys = json.load(file)
    for key_id, key in keys.items():
        if (key.get("principal"), key.get("farm"), key.get("fleet")) == ("bootstrap", farm_id, fleet_id):
            return key_id, key["secret"]
    key_id, secret = access_key_id("AKIA"), b64encode(token_bytes(30)).decode()
    keys[key_id] = {"secret": secret, "principal": "bootstrap", "farm": farm_id, "fleet": fleet_id}
    replace(path, json.dumps(keys, indent=1) + "\n")
    return key_id, secret


def write_files(folder: Folder) -> None:
    """The AWS files that `variables` names.

    Raises: Trouble (73, 74).
    """
    replace(folder.at("aws", "config"), profile_text(folder, PROFILE))
    replace(folder.at("aws", "credentials"), credentials_text(PROFILE, admin_key(folder)))


def write_client_settings(folder: Folder, path: str | None = None, profile: str = PROFILE) -> None:
    """Make the farm and the queue the defaults of the client settings at `path`."""
    from libdeadline import config

    path = path or folder.at("client", "config")
    wanted = {
        config.PROFILE: profile,
        config.FARM: folder.settings["farm_id"],
        config.QUEUE: folder.settings["queue_id"],
    }
    for name, value in wanted.items():
        if config.read(path).get(name) != value:
            config.write(name, value, path)
