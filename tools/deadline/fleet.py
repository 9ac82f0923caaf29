"""Commands of the group fleet."""

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

from .options import given, reach
from .pipeline import Shell


def list_fleets(options: Arguments, shell: Shell) -> int:
    """deadline fleet list - list the fleets of a farm

    Usage: deadline fleet list [options]

    Options:
      --profile=<name>  AWS profile to use.
      --farm-id=<id>    Farm to look in.
      --region=<name>   AWS region of the farm.
    """
    return shell.become("dl-ls", "--format=yaml", "--fields=fleetId,displayName", *reach(options), "fleets")


def get(options: Arguments, shell: Shell) -> int:
    """deadline fleet get - print all about a fleet, or about the fleets of a queue

    Usage: deadline fleet get [options]

    Options:
      --profile=<name>  AWS profile to use.
      --farm-id=<id>    Farm of the fleet.
      --fleet-id=<id>   Fleet to print.
      --queue-id=<id>   Print the fleets of this queue, else of the default queue.
      --region=<name>   AWS region of the farm.
    """
    if options["--fleet-id"]:
        if options["--queue-id"]:
            raise Trouble("give --fleet-id or --queue-id, not both", statuses.USAGE)
        words = [*reach(options), *given(options, "--fleet-id")]
        return shell.become("dl-ls", "--format=yaml", *words, "fleet")
    return shell.run(["dl-ls", *reach(options), "queue-fleets"], ["dl-show", "queue-fleets"])


COMMANDS = {"list": list_fleets, "get": get}
