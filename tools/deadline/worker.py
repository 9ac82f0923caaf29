"""Commands of the group worker."""

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

from .options import given, reach
from .pipeline import Shell


def list_workers(options: Arguments, shell: Shell) -> int:
    """deadline worker list - list the workers of a fleet

    Usage: deadline worker list [options]

    Options:
      --profile=<name>   AWS profile to use.
      --farm-id=<id>     Farm of the fleet.
      --fleet-id=<id>    Fleet to look in.
      --region=<name>    AWS region of the farm.
      --page-size=<n>    Workers to list at most [default: 5].
      --item-offset=<n>  Workers to pass over first [default: 0].
    """
    if not options["--fleet-id"]:
        raise Trouble("which fleet? give --fleet-id", statuses.USAGE)
    size = options.integer("--page-size", 1)
    offset = options.integer("--item-offset", 0)
    return shell.run(
        [
            "dl-ls",
            *reach(options),
            *given(options, "--fleet-id"),
            f"--limit={size}",
            f"--item-offset={offset}",
            "workers",
        ],
        ["dl-show", f"--item-offset={offset}", "workers"],
    )


def get(options: Arguments, shell: Shell) -> int:
    """deadline worker get - print all about a worker

    Usage: deadline worker get [options]

    Options:
      --profile=<name>  AWS profile to use.
      --farm-id=<id>    Farm of the fleet.
      --fleet-id=<id>   Fleet of the worker.
      --worker-id=<id>  Worker to print.
      --region=<name>   AWS region of the farm.
    """
    for option in ("--fleet-id", "--worker-id"):
        if not options[option]:
            raise Trouble(f"which {option[2:-3]}? give {option}", statuses.USAGE)
    words = [*reach(options), *given(options, "--fleet-id")]
    return shell.become("dl-ls", "--format=yaml", *words, "worker", options["--worker-id"])


COMMANDS = {"list": list_workers, "get": get}
