"""dl-show - print a stream of records as the deadline command prints it

Usage:
  dl-show [options] <view>

Options:
  --output=<form>            verbose or json; auto is verbose on a terminal
                             [default: auto].
  --item-offset=<n>          Of views jobs and workers: where the list starts
                             [default: 0].
  --term=<text>              Of view job-matches: what was searched for.
  --run-status=<states>      Of view requeue: what dl-requeue was told.
  --timeout=<time>           Of view wait: what dl-wait was told.
  --root=<dir>               Of views snapshot and manifest-diff: the root as it
                             was typed.
  --timestamp-format=<form>  Of view logs: utc, local or relative to the
                             session's start [default: utc].

The views, and what they read: jobs, workers, queue-fleets, job, job-summary,
job-matches and parameters (resource records of dl-ls), wait (job and task
records of dl-wait --changes), logs (log records of dl-logs), requeue (what
dl-requeue writes), submission (what dl-submit writes), download-output,
download-input and download-summary (what dl-download writes), sync-output
(what dl-sync writes), snapshot and manifest-download (what dl-manifest writes),
manifest-diff (what dl-diff writes), manifest-upload and attachment-upload (what
dl-upload writes), attachment-download (what dl-download writes). The output is that of the reference client's commands.
View wait has the statuses of dl-wait.
"""

from __future__ import annotations

from collections.abc import Generator

from libdeadline import command, statuses
from libdeadline.errors import Trouble
from libdeadline.records import Record

# The module and function of each view; only the one that is asked for is imported.
VIEWS = {
    "jobs": ("listing", "jobs_view"),
    "workers": ("listing", "workers_view"),
    "job": ("listing", "job_view"),
    "job-summary": ("listing", "job_summary_view"),
    "job-matches": ("listing", "job_matches_view"),
    "queue-fleets": ("listing", "queue_fleets_view"),
    "parameters": ("parameters", "parameters_view"),
    "wait": ("waiting", "wait_view"),
    "logs": ("logs", "logs_view"),
    "requeue": ("changes", "requeue_view"),
    "submission": ("changes", "submission_view"),
    "download-output": ("files", "download_output_view"),
    "download-input": ("files", "download_input_view"),
    "download-summary": ("files", "download_summary_view"),
    "sync-output": ("files", "sync_output_view"),
    "snapshot": ("manifests", "snapshot_view"),
    "manifest-diff": ("manifests", "manifest_diff_view"),
    "manifest-upload": ("manifests", "manifest_upload_view"),
    "manifest-download": ("manifests", "manifest_download_view"),
    "attachment-upload": ("manifests", "attachment_upload_view"),
    "attachment-download": ("manifests", "attachment_download_view"),
}


def stage(args: command.Arguments, run: command.Run) -> Generator[Record, None, int]:
    from importlib import import_module

    from .view import View

    run.text = True
    if args["<view>"] not in VIEWS:
        raise Trouble(f"there is no view '{args['<view>']}': it is one of {', '.join(VIEWS)}", statuses.USAGE)
    module, function = VIEWS[args["<view>"]]
    status: int = getattr(import_module(f".{module}", __name__), function)(View(args, run))
    yield from ()
    return status


def main() -> int:
    return command.run(__doc__, stage)
