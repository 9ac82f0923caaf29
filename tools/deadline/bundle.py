"""Commands of the group bundle."""

import os

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

from .options import REACH, accepts_all, given
from .pipeline import Shell

PASSED = (
    "--storage-profile-id", "--name", "--priority", "--max-failed-tasks-count", "--max-retries-per-task",
    "--max-worker-count", "--target-task-run-status", "--job-attachments-file-system", "--require-paths-exist",
    "--known-asset-path", "--parameter",
)  # fmt: skip


def submit(options: Arguments, shell: Shell) -> int:
    """deadline bundle submit - submit a job bundle to a queue

    Usage: deadline bundle submit [options] <job-bundle-dir>

    Options:
      -p, --parameter=<name=value>...       Value of a job parameter; may be repeated.
      --profile=<name>                      AWS profile to use.
      --farm-id=<id>                        Farm of the queue.
      --region=<name>                       AWS region of the farm.
      --queue-id=<id>                       Queue to submit to.
      --storage-profile-id=<id>             Storage profile of this workstation.
      --name=<name>                         Name of the job, in place of the template's.
      --priority=<n>                        0 to 100; higher goes first.
      --max-failed-tasks-count=<n>          Failed tasks after which the job stops.
      --max-retries-per-task=<n>            Attempts of a task beyond the first.
      --max-worker-count=<n>                Workers at a time at most; -1: no limit.
      --target-task-run-status=<status>     READY, or SUSPENDED to wait for a word.
      --job-attachments-file-system=<kind>  COPIED or VIRTUAL.
      --yes                                 Do not ask.
      --require-paths-exist                 Fail where an input file is missing.
      --submitter-name=<name>               Name of the program that submits.
      --known-asset-path=<path>...          Folder that files may come from; may be repeated.
      --force-s3-check                      Ask the store about every file.
      --no-force-s3-check                   Trust what earlier uploads remembered.
    """
    options.choice("--target-task-run-status", ("READY", "SUSPENDED"))
    if options["--force-s3-check"] and options["--no-force-s3-check"]:
        raise Trouble("give --force-s3-check or --no-force-s3-check, not both", statuses.USAGE)
    if options["--submitter-name"]:
        os.environ["DL_SUBMITTER"] = options["--submitter-name"]
    who = given(options, "--profile", "--region")
    own_job = not any(options[name] for name in REACH)
    asks = os.isatty(0) and not accepts_all(options)
    bundle = ["dl-bundle", *who, *given(options, "--farm-id", "--queue-id", *PASSED)]
    return shell.run(
        [*bundle, *(["--unknown-paths=pass"] if asks else []), "--", options["<job-bundle-dir>"]],
        # Descriptor 3 is our standard input: that of a stage is its pipe.
        *([["dl-consent", "--answers=3"]] if asks else []),
        ["dl-hash"],
        ["dl-manifest"],
        ["dl-upload", *who, *given(options, "--force-s3-check", "--no-force-s3-check")],
        ["dl-submit", *who, *(["--remember"] if own_job else [])],
        ["dl-show", "submission"],
        asks=asks,
    )


COMMANDS = {"submit": submit}
