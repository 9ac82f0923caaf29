"""Which farm, queue and job a command is about: its options, else the person's settings, else the only one there is.

Commands that act on a farm share these options, spelt alike:
  --profile=<name> --region=<name> --farm-id=<id> --queue-id=<id> --job-id=<id> --storage-profile-id=<id>
Source: client specification, standard resource options and region resolution.
"""

from __future__ import annotations

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
        found, _ = aws.list_farms(aws.Session(config), region=args.get("--region"))
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
            queues = list(session.client("deadline").items("ListQueues", {"farmId": farm_id}))
            if len(queues) != 1:
                raise _missing("queue", len(queues))
            queue_id = str(queues[0]["queueId"])
    return Target(config, session, farm_id, queue_id)


def _missing(what: str, count: int) -> Trouble:
    found = f"there are {count} to choose from" if count else "there is none to choose"
    return Trouble(
        f"which {what}? {found}: give --{what}-id, or set it with deadline config set defaults.{what}_id",
        statuses.USAGE,
    )
