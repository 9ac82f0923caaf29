"""dl-credentials - get credentials of a queue's or fleet's role

Usage:
  dl-credentials [options]

Options:
  --profile=<name>   AWS profile to use.
  --region=<name>    AWS region of the farm.
  --farm-id=<id>     Farm of the queue.
  --queue-id=<id>    Queue whose role to take.
  --fleet-id=<id>    Take the role of this fleet, to read.
  --mode=<mode>      Of a queue: user, to submit and fetch files, or read
                     [default: user].
  --format=<format>  records, process (what credential_process of an AWS profile
                     wants) or export (commands for a shell). Without it records,
                     but nothing on a terminal.

The role is taken anew at each run; the credentials are good for some time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from libdeadline import command, statuses
from libdeadline.errors import Trouble
from libdeadline.records import Credentials, Record

FORMATS = ("records", "process", "export")


def assumed(args: command.Arguments) -> dict[str, Any]:
    """What the service gives for the role that the options name.

    Raises: Trouble (77) where the queue has no role, or the person no permission to take it.
    """
    from libdeadline import targets

    mode = args.choice("--mode", ("user", "read"))
    reached = targets.target(args, queue=not args["--fleet-id"])
    client = reached.session.client("deadline")
    if args["--fleet-id"]:
        where = {"farmId": reached.farm_id, "fleetId": args["--fleet-id"]}
        answer = client.call("AssumeFleetRoleForRead", where)
    else:
        where = {"farmId": reached.farm_id, "queueId": reached.queue_id}
        answer = client.call("AssumeQueueRoleForUser" if mode == "user" else "AssumeQueueRoleForRead", where)
    keys: dict[str, Any] = answer.get("credentials") or {}
    if not keys:
        raise Trouble("the service gave no credentials: the queue or fleet has no role", statuses.NOT_ALLOWED)
    return keys


def as_process(keys: dict[str, Any]) -> str:
    """The document that a credential_process prints.

    Source: AWS SDKs and Tools Reference Guide, process credential provider.
    """
    import json

    document = {
        "Version": 1,
        "AccessKeyId": keys["accessKeyId"],
        "SecretAccessKey": keys["secretAccessKey"],
        "SessionToken": keys["sessionToken"],
        "Expiration": keys["expiration"].isoformat(),
    }
    return json.dumps(document, indent=2) + "\n"


def as_exports(keys: dict[str, Any]) -> str:
    """Commands that set the credentials in a POSIX shell."""
    from shlex import quote

    names = {
        "AWS_ACCESS_KEY_ID": "accessKeyId",
        "AWS_SECRET_ACCESS_KEY": "secretAccessKey",
        "AWS_SESSION_TOKEN": "sessionToken",
    }
    return "".join(f"export {name}={quote(keys[member])}\n" for name, member in names.items())


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    from libdeadline import times

    form = args.choice("--format", FORMATS)
    if form is None and os.isatty(1):
        raise Trouble("credentials are not shown on a terminal: say --format, or pipe them on", statuses.USAGE)
    run.text = form in ("process", "export")
    keys = assumed(args)
    if run.text:
        run.print(as_process(keys) if form == "process" else as_exports(keys))
        return
    yield Credentials.of(
        access_key_id=keys["accessKeyId"],
        secret_access_key=keys["secretAccessKey"],
        session_token=keys["sessionToken"],
        expiration=times.text_of(keys["expiration"]),
    )


def main() -> int:
    return command.run(__doc__, stage)
