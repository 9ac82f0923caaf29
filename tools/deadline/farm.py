"""Commands of the group farm."""

from libdeadline.command import Arguments

from .options import reach
from .pipeline import Shell


def list_farms(options: Arguments, shell: Shell) -> int:
    """deadline farm list - list the farms that you may see

    Usage: deadline farm list [options]

    Options:
      --profile=<name>  AWS profile to use.
      --region=<name>   Look only in this AWS region.
    """
    return shell.become("dl-ls", "--format=yaml", "--fields=region,farmId,displayName", *reach(options), "farms")


def get(options: Arguments, shell: Shell) -> int:
    """deadline farm get - print all about a farm

    Usage: deadline farm get [options]

    Options:
      --profile=<name>  AWS profile to use.
      --farm-id=<id>    Farm to print, else the default farm.
      --region=<name>   AWS region of the farm.
    """
    return shell.become("dl-ls", "--format=yaml", *reach(options), "farm")


COMMANDS = {"list": list_farms, "get": get}
