"""dl-bundle - read a job bundle, and emit what a job made of it consists of

Usage:
  dl-bundle [options] [--parameter=<name=value>]... [--known-asset-path=<path>]... [--] <dir>

Reads the job bundle in the folder <dir>, checks it, and emits a bundle record, then for each asset root a root
record, a file record for each input file and an output_dir record for each folder that the job writes to.

Options:
  -p, --parameter=<name=value>          Value of a job parameter: Name=Value, a JSON object,
                                        or file://<path> of a JSON or YAML object; may be
                                        repeated, later ones win.
  --name=<name>                         Name of the job, in place of the template's.
  --priority=<n>                        0 to 100; higher goes first.
  --max-failed-tasks-count=<n>          Failed tasks after which the job stops.
  --max-retries-per-task=<n>            Attempts of a task beyond the first.
  --max-worker-count=<n>                Workers at a time at most; -1: no limit.
  --target-task-run-status=<status>     READY or SUSPENDED.
  --job-attachments-file-system=<kind>  COPIED or VIRTUAL.
  --require-paths-exist                 Fail where an input path is missing, instead of
                                        going without it.
  --known-asset-path=<path>             Folder that files may come from; may be repeated.
  --unknown-paths=<do>                  About input and output paths outside of all known
                                        folders: refuse, or pass them on in the bundle
                                        record for a later stage to ask about
                                        [default: refuse].
  --undecodable=<do>                    About file names that are no UTF-8 and can't stand in
                                        a manifest: skip, warn or fail [default: fail].
  --offline                             Ask no service: no farm, no queue parameters, no
                                        storage profile.
  --profile=<name>                      AWS profile to use.
  --region=<name>                       AWS region of the farm.
  --farm-id=<id>                        Farm of the queue.
  --queue-id=<id>                       Queue that the job is for.
  --storage-profile-id=<id>             Storage profile of this workstation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from libdeadline import command, paths, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble
from libdeadline.records import Bundle, Record

from . import documents, parameters
from .checking import Check
from .service import Inquiry, Service
from .values import resolve

MOST_UNKNOWN = 100  # unknown paths that a record names
MOST_SHOWN = 5  # in a message
FEW_FILES = 200  # and few bytes: these may go ahead while the template is still being checked
FEW_BYTES = 32 << 20
LARGEST = 2147483647


def known_folders(bundle: str, options: list[str], chosen: list[str], locations: list[Any], config: Any) -> list[str]:
    """The folders that files may come from without a question, none inside of another.

    Source: attachments specification, known asset paths.
    """
    configured = config.get("settings.known_asset_paths").split(os.pathsep)
    found = [bundle, *chosen, *(paths.absolute(os.path.expanduser(path)) for path in options if path)]
    for path in [*configured, *(location.path for location in locations if location.type == "LOCAL")]:
        path = os.path.expanduser(path)
        if os.path.isabs(path):
            found.append(paths.absolute(path))
    kept: list[str] = []
    for path in sorted(set(found), key=len):
        if not any(paths.is_within(path, folder) for folder in kept):
            kept.append(path)
    return kept


def fields(args: Arguments) -> dict[str, Any]:
    """The fields of the bundle record that options set.

    Raises: Trouble (64) where one is out of range.
    """
    return {
        "priority": args.integer("--priority", 0, 100),
        "max_failed_tasks_count": args.integer("--max-failed-tasks-count", 0, LARGEST),
        "max_retries_per_task": args.integer("--max-retries-per-task", 0, LARGEST),
        "max_worker_count": args.integer("--max-worker-count", -1, LARGEST),
        "target_task_run_status": args.choice("--target-task-run-status", ("READY", "SUSPENDED")),
    }


class Leaving:
    """What to do about files that a walk leaves out."""

    def __init__(self, args: Arguments, run: Run) -> None:
        self.run = run
        self.require = bool(args["--require-paths-exist"])
        self.undecodable = args.choice("--undecodable", ("skip", "warn", "fail")) or "fail"

    def __call__(self, why: str, path: str, error: OSError | None) -> None:
        if why == "undecodable":
            self._do(
                self.undecodable, f"the name '{path}' is no UTF-8, which a manifest can't hold", statuses.DATA, path
            )
        elif why == "unreadable":
            reason = error.strerror if error else "unknown"
            self._do("fail", f"cannot read '{path}': {reason}", statuses.NOT_ALLOWED, path)
        elif why == "dangling":
            do = "fail" if self.require else "warn"
            self._do(do, f"'{path}' is a link to nothing, and is left out", statuses.NO_INPUT, path)
        elif why == "special":
            self._do("warn", f"'{path}' is no regular file, and is left out", statuses.DATA, path)
        elif why == "link":
            self._do("warn", f"'{path}' is a link to a folder, and is not entered", statuses.DATA, path)

    def _do(self, do: str, message: str, status: int, path: str) -> None:
        if do == "fail":
            self.run.fail(Trouble(message, status, path=path))
        elif do == "warn":
            self.run.warn(message, path=path)


def stage(args: Arguments, run: Run) -> Iterator[Record]:
    chosen = fields(args)
    file_system = args.choice("--job-attachments-file-system", ("COPIED", "VIRTUAL"))
    passes = args.choice("--unknown-paths", ("refuse", "pass")) == "pass"
    given = parameters.from_options(args["--parameter"])
    bundle = documents.check_folder(args["<dir>"])
    template = documents.template(bundle)
    if args["--name"]:
        template = documents.renamed(template, args["--name"])
    # Before any thread is started: a process is forked.
    check = Check(template.text, template.data, template.path)
    try:
        yield from _emit(args, run, bundle, template, given, chosen, file_system, passes, check)
        check.wait()
    finally:
        check.close()


def _emit(
    args: Arguments,
    run: Run,
    bundle: str,
    template: documents.Document,
    given: dict[str, Any],
    chosen: dict[str, Any],
    file_system: str | None,
    passes: bool,
    check: Check,
) -> Iterator[Record]:
    from libdeadline.paths import Grouping, Location
    from libdeadline.targets import config_of

    inquiry = None if args["--offline"] else Inquiry(args)
    config = config_of(args)
    own = parameters.definitions(template.data.get("parameterDefinitions"), f"job template '{template.path}'")
    stored_file = documents.read(bundle, "parameter_values")
    stored = parameters.from_file(stored_file.data, stored_file.path) if stored_file else {}
    job_fields = parameters.job_fields(stored, stored_file.path if stored_file else "")
    references = documents.asset_references(bundle)
    if documents.find(bundle, "hooks"):
        run.info(f"the hooks of '{bundle}' are not run")
    service = inquiry.answer() if inquiry else Service()
    queue_only = {
        name: {**definition, "fromQueue": True}
        for name, definition in parameters.merged({}, service.environments).items()
        if name not in own
    }
    for name in [name for name in stored if ":" in name]:
        run.warn(f"the value of '{name}' in '{bundle}' is for another render farm, and is left out")
    values = resolve(bundle, parameters.merged(own, service.environments) | queue_only, stored, given)
    lists = {
        name: [paths.absolute(path, bundle) for path in references[name]] + values.lists[name] for name in references
    }
    locations = [
        Location(each["name"], each["path"], each["type"])
        for each in (service.storage_profile or {}).get("fileSystemLocations", ())
    ]
    settings = service.queue.get("jobAttachmentSettings")
    has_paths = any(lists[name] for name in ("input_files", "input_dirs", "output_dirs"))
    assets = None
    known: list[str] = []
    unknown: list[str] = []
    if (settings or args["--offline"]) and any(lists.values()):
        from .assets import Assets

        assets = Assets(
            lists,
            Grouping(locations),
            require=args["--require-paths-exist"],
            warn=run.warn,
            report=Leaving(args, run),
            found=lambda count: run.progress.update(message="finding files", done_count=count),
        )
        assets.look()
        run.progress.rest()
        known = known_folders(bundle, args["--known-asset-path"], values.chosen_paths, locations, config)
        unknown = assets.unknown(known)
        if unknown and not passes:
            shown = ", ".join(f"'{path}'" for path in unknown[:MOST_SHOWN])
            more = f" and {len(unknown) - MOST_SHOWN} more" if len(unknown) > MOST_SHOWN else ""
            raise Trouble(
                f"paths lie outside of all known asset paths: {shown}{more}: give --known-asset-path with a folder "
                "that holds them, or set settings.known_asset_paths",
                statuses.NOT_ALLOWED,
                path=unknown[0],
            )
    elif has_paths:
        run.warn(
            f"queue '{service.queue.get('displayName', service.queue_id)}' takes no job attachments: files stay "
            "where they are, and workers must reach them by the same paths"
        )
    chosen = {name: job_fields.get(name) if value is None else value for name, value in chosen.items()}
    for name in ("max_failed_tasks_count", "max_retries_per_task"):
        if chosen[name] is None:
            chosen[name] = config.integer(f"settings.{name}")
    yield Bundle.of(
        path=bundle,
        template=template.text,
        template_type=template.type,
        name=template.data["name"],
        farm_id=service.farm_id,
        queue_id=service.queue_id,
        queue_name=service.queue.get("displayName"),
        parameters=values.sent,
        **{**chosen, "priority": 50 if chosen["priority"] is None else chosen["priority"]},
        storage_profile_id=config.get("settings.storage_profile_id") or None,
        file_system=file_system or config.choice("defaults.job_attachments_file_system"),
        s3_bucket_name=settings["s3BucketName"] if settings else None,
        root_prefix=settings["rootPrefix"] if settings else None,
        file_count=assets.file_count if assets else 0,
        total_bytes=assets.total_bytes if assets else 0,
        known_asset_paths=known or None,
        unknown_asset_paths=unknown[:MOST_UNKNOWN] or None,
    )
    if assets is not None:
        if assets.file_count > FEW_FILES or assets.total_bytes > FEW_BYTES:
            check.wait()  # nobody should upload for minutes to learn of a misspelt key
        run.count(files=assets.file_count, bytes=assets.total_bytes)
        yield from assets.records()


def main() -> int:
    return command.run(__doc__, stage)
