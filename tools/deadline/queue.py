"""Commands of the group queue."""

from libdeadline.command import Arguments

from .options import given, reach
from .pipeline import Shell


def list_queues(options: Arguments, shell: Shell) -> int:
    """deadline queue list - list the queues of a farm

    Usage: deadline queue list [options]

    Options:
      --profile=<name>  AWS profile to use.
      --farm-id=<id>    Farm to look in.
      --region=<name>   AWS region of the farm.
    """
    return shell.become("dl-ls", "--format=yaml", "--fields=queueId,displayName", *reach(options), "queues")


def get(options: Arguments, shell: Shell) -> int:
    """deadline queue get - print all about a queue

    Usage: deadline queue get [options]

    Options:
      --profile=<name>  AWS profile to use.
      --farm-id=<id>    Farm of the queue.
      --queue-id=<id>   Queue to print, else the default queue.
      --region=<name>   AWS region of the farm.
    """
    return shell.become("dl-ls", "--format=yaml", *reach(options), "queue")


def paramdefs(options: Arguments, shell: Shell) -> int:
    """deadline queue paramdefs - print the job parameters that a queue's environments define

    Usage: deadline queue paramdefs [options]

    Options:
      --profile=<name>  AWS profile to use.
      --farm-id=<id>    Farm of the queue.
      --queue-id=<id>   Queue to look at, else the default queue.
      --region=<name>   AWS region of the farm.
    """
    return shell.run(["dl-ls", "--whole", *reach(options), "queue-environments"], ["dl-show", "parameters"])


def export_credentials(options: Arguments, shell: Shell) -> int:
    """deadline queue export-credentials - print credentials of a queue's role for AWS programs

    Usage: deadline queue export-credentials [options]

    Options:
      --profile=<name>          AWS profile to use.
      --farm-id=<id>            Farm of the queue.
      --queue-id=<id>           Queue whose role to take, else the default queue.
      --region=<name>           AWS region of the farm.
      --mode=<mode>             user or read [default: user].
      --output-format=<format>  credentials_process [default: credentials_process].
    """
    options.choice("--output-format", ("credentials_process",))
    mode = options.choice("--mode", ("user", "read"))
    return shell.become("dl-credentials", *reach(options), f"--mode={mode}", "--format=process")


def sync_output(options: Arguments, shell: Shell) -> int:
    """deadline queue sync-output - download what the jobs of a queue have put out since the last time

    Usage: deadline queue sync-output [options]

    Options:
      --profile=<name>            AWS profile to use.
      --farm-id=<id>              Farm of the queue.
      --queue-id=<id>             Queue whose output to download, else the default queue.
      --region=<name>             AWS region of the farm.
      --storage-profile-id=<id>   Storage profile of this host, else the settings'.
      --ignore-storage-profiles   Take paths as the jobs have them.
      --bootstrap-lookback-minutes=<n>  Without a checkpoint, how far back output is downloaded from [default: 0].
      --checkpoint-dir=<dir>      Where it is remembered what was downloaded
                                  [default: ~/.deadline/incremental_download].
      --force-bootstrap           Begin anew: heed no checkpoint.
      --conflict-resolution=<how>  Where a file exists: skip, overwrite or create_copy [default: overwrite].
      --dry-run                   Download nothing.
      --json                      Print a summary as JSON; with --follow, records as they come.
      --follow                    Go on: look again and again.
      --interval=<time>           With --follow, the time between two looks [default: 60s].
    """
    names = (
        "--ignore-storage-profiles",
        "--bootstrap-lookback-minutes",
        "--checkpoint-dir",
        "--force-bootstrap",
        "--conflict-resolution",
        "--dry-run",
        "--follow",
    )
    interval = given(options, "--interval") if options["--follow"] else []
    sync = ["dl-sync", *reach(options), *given(options, *names), *interval]
    if options["--follow"] and options["--json"]:
        return shell.become(*sync)  # there is no end to sum up at
    form = "json" if options["--json"] else "verbose"
    return shell.run(sync, ["dl-show", f"--output={form}", "sync-output"])


COMMANDS = {
    "list": list_queues,
    "get": get,
    "paramdefs": paramdefs,
    "export-credentials": export_credentials,
    "sync-output": sync_output,
}
