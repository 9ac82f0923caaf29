"""The environment of a session's processes: the agent's own, without anything that is the agent's alone.

Source: spec worker 2.2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# What leads to the agent's credentials, or tells a job about the agent's inside.
AGENT_ONLY = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CREDENTIAL_FILE",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_BEARER_TOKEN_BEDROCK",
    "DEADLINE_CONFIG_FILE_PATH",
)
AGENT_ONLY_PREFIXES = ("AWS_CONTAINER_", "DEADLINE_WORKER_", "DL_", "SUPERVISOR_")


def scrubbed(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """`environment` (by default this process's) without what is the agent's alone.

    Region and endpoints stay: they are no secret, and programs of a job reach the store by them. The shared AWS files
    are set to nothing, so that a job without a queue role doesn't fall back on those in the home of the agent's user.
    """
    given = os.environ if environment is None else environment
    kept = {
        name: value
        for name, value in given.items()
        if name not in AGENT_ONLY and not name.startswith(AGENT_ONLY_PREFIXES)
    }
    kept["AWS_CONFIG_FILE"] = kept["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    return kept


def of_session(opening: Mapping[str, object], settings: Mapping[str, str] | None) -> dict[str, str]:
    """The variables that every process of a session gets: ids, and the queue role's profile where there is one.

    `opening` is the inbox's open record; `settings` the job's attachment settings.
    """
    variables = {
        f"DEADLINE_{name.upper()}": str(opening[name])
        for name in ("farm_id", "fleet_id", "worker_id", "queue_id", "job_id", "session_id")
    }
    if settings:
        variables["DEADLINE_JA_S3_BUCKET"] = settings["s3BucketName"]
        variables["DEADLINE_JA_ROOT_PREFIX"] = settings["rootPrefix"]
    profile = opening.get("profile")
    if isinstance(profile, dict):
        variables.update(profile)
    return variables
