"""Which farm, queue and job a command is about: its options, else the person's settings, else the only one there is.

Commands that act on a farm share these options, spelt alike:
  --profile=<name> --region=<name> --farm-id=<id> --queue-id=<id> --job-id=<id> --storage-profile-id=<id>
Source: client specification, standard resource options and region resolution.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import statuses
from .errors import Trouble

if TYPE_CHECKING:
    from .aws import Session
    from .config import Config

OPTIONS = {
    "--profile": "defaults.aws_profile_name",
    "--region": "defaults.farm_region",
    "--farm-id": "defaults.farm_id",
    "--queue-id": "defaults.queue_id",
    "--job-id": "defaults.job_id",
    "--storage-profile-id": "settings.storage_profile_id",
}
REGIONS = (
    "us-east-1", "us-east-2", "us-west-2", "ap-northeast-1", "ap-northeast-2", "ap-southeast-1", "ap-southeast-2",
    "eu-central-1", "eu-west-1", "eu-west-2",
)  # fmt: skip


class Target(NamedTuple):
    """A farm, and a queue where one was asked for, with a session that reaches them."""

    config: Config
    session: Session
    farm_id: str
    queue_id: str


def config_of(args: Mapping[str, Any]) -> Config:
    """The person's settings with the options of this command on top; an empty option counts as not given."""
    from . import config

    return config.read().with_values({setting: args.get(option) for option, setting in OPTIONS.items()})


def target(args: Mapping[str, Any], *, queue: bool = True) -> Target:
    """The farm, and unless told otherwise the queue, that the options, the settings or the only choice name.

    Raises: Trouble (64) where a choice is missing; what the service answers, where it had to be asked.
    """
    from . import aws

    config = config_of(args)
    if not config.get("defaults.farm_id"):
        found = farms(config, args.get("--region"))
        if len(found) != 1:
            raise _missing("farm", len(found))
        only = found[0]
        # Where the farm was found is where it is, even with a --region that no farm was named for.
        config = config.with_values({"defaults.farm_id": only["farmId"], "defaults.farm_region": only["region"]})
    farm_id = config.get("defaults.farm_id")
    session = aws.Session(config)
    queue_id = ""
    if queue:
        queue_id = config.get("defaults.queue_id")
        if not queue_id:
            queues = list(session.client("deadline").items("ListQueues", {"farmId": farm_id, **own(session)}))
            if len(queues) != 1:
                raise _missing("queue", len(queues))
            queue_id = str(queues[0]["queueId"])
    return Target(config, session, farm_id, queue_id)


def own(session: Session) -> dict[str, str]:
    """The parameters that limit a listing to what the person signed in with the Deadline Cloud monitor may see."""
    user_id = getattr(session, "user_id", None)
    return {"principalId": user_id} if user_id else {}


def regions(config: Config) -> list[str]:
    """The regions to look for farms in; empty: only the session's own.

    Source: client specification, region resolution, farm listing.
    """
    named = os.environ.get("DEADLINE_CLOUD_REGIONS") or config.get("settings.deadline_regions")
    listed = [region.strip() for region in named.split(",") if region.strip()]
    if not listed and not os.environ.get("AWS_ENDPOINT_URL_DEADLINE"):
        listed = list(REGIONS)
    return list(dict.fromkeys(listed))


def farms(config: Config, region: str | None = None, *, warn: Any = None) -> list[dict[str, Any]]:
    """The farms of `region`, else of all regions that are looked in, each with its `region`.

    `warn` is called with a line for each region that did not answer.
    Raises: the first region's Trouble, where none answered.
    """
    from . import aws

    wanted = [region] if region else regions(config)
    if len(wanted) < 2:
        return _farms_of(aws.Session(config, region=wanted[0] if wanted else None))
    from concurrent.futures import ThreadPoolExecutor

    found: list[dict[str, Any]] = []
    troubles: list[Trouble] = []
    with ThreadPoolExecutor(max_workers=10) as pool:
        asked = [(region, pool.submit(_farms_of, aws.Session(config, region=region))) for region in wanted]
        for region, answer in asked:
            try:
                found += answer.result()
            except Trouble as trouble:
                troubles.append(trouble)
                if warn:
                    warn(f"cannot list the farms in region '{region}': {trouble.message}")
    if len(troubles) == len(asked):
        raise troubles[0]
    return found


def _farms_of(session: Session) -> list[dict[str, Any]]:
    region = session.region
    return [{"region": region, **farm} for farm in session.client("deadline").items("ListFarms", own(session))]


def _missing(what: str, count: int) -> Trouble:
    found = f"{count} {what}s to choose from" if count else f"no {what} to choose"
    return Trouble(
        f"which {what}? there is {found}: give --{what}-id, or set it with deadline config set defaults.{what}_id",
        statuses.USAGE,
    )
