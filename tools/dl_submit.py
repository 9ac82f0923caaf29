"""dl-submit - create the job that a whole stream describes

Usage:
  dl-submit [options]

Options:
  --profile=<name>   AWS profile to use.
  --region=<name>    AWS region of the farm.
  --farm-id=<id>     Farm to submit to, in place of the bundle record's.
  --queue-id=<id>    Queue to submit to, in place of the bundle record's.
  --no-wait          Do not wait until the job is created.
  --remember         Make the job the default job in the settings.
  --dry-run          Print the CreateJob request as JSON, and create nothing.
  --open-ended       Accept a stream without an end record.

Reads bundle, root, file, output_dir and manifest records as dl-upload writes
them, passes all on, and when the stream has come to a good end creates the
job and adds a job record.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep

from libdeadline import command, statuses
from libdeadline.errors import Trouble
from libdeadline.records import Bundle, File, Manifest, OutputDir, Record, Root

TYPE_CHECKING = False  # typing would be all that needs itself here
if TYPE_CHECKING:
    from typing import Any

    from libdeadline.aws import Client

FIRST_POLL_S = 0.05
LONGEST_POLL_S = 5.0
CREATION_LIMIT_S = 300.0


class Submission:
    """What the stream has told so far; file records leave nothing behind but their root."""

    def __init__(self) -> None:
        self.bundle: Bundle | None = None
        self.roots: dict[str, Root] = {}
        self.with_files: set[str] = set()
        self.output_dirs: dict[str, set[str]] = {}
        self.manifests: dict[str, Manifest] = {}

    def read(self, row: Record) -> None:
        """Take in one record."""
        if isinstance(row, File):
            if row.root is not None:
                self.with_files.add(row.root)
        elif isinstance(row, Root):
            self.roots[row.root] = row
        elif isinstance(row, OutputDir):
            self.output_dirs.setdefault(row.root, set()).add(row.path)
        elif isinstance(row, Manifest):
            if not row.output and row.root is not None:
                self.manifests[row.root] = row
        elif isinstance(row, Bundle):
            if self.bundle is not None:
                raise Trouble("the stream holds two bundles: submit them one at a time", statuses.DATA)
            self.bundle = row

    def request(self, farm_id: str, queue_id: str) -> dict[str, Any]:
        """The parameters of CreateJob.

        Raises: Trouble (65) where a root has files but no stored manifest.
        Source: attachments specification, CreateJob attachments and CreateJob body.
        """
        bundle = self.bundle
        assert bundle is not None
        body: dict[str, Any] = {
            "farmId": farm_id,
            "queueId": queue_id,
            "template": bundle.template,
            "templateType": bundle.template_type,
            "priority": 50 if bundle.priority is None else bundle.priority,
        }
        optional = {
            "storageProfileId": bundle.storage_profile_id,
            "attachments": self._attachments(bundle),
            "targetTaskRunStatus": bundle.target_task_run_status,
            "maxWorkerCount": bundle.max_worker_count,
            "maxFailedTasksCount": bundle.max_failed_tasks_count,
            "maxRetriesPerTask": bundle.max_retries_per_task,
            "parameters": bundle.parameters or None,
        }
        return body | {name: value for name, value in optional.items() if value is not None}

    def _attachments(self, bundle: Bundle) -> dict[str, Any] | None:
        if not bundle.s3_bucket_name and not self.manifests:
            return None
        manifests = []
        for path, root in self.roots.items():
            manifest = self.manifests.get(path)
            if path in self.with_files and (manifest is None or manifest.manifest_path is None):
                raise Trouble(
                    f"the files under '{path}' are not stored: put dl-hash, dl-manifest and dl-upload before dl-submit",
                    statuses.DATA,
                    path=path,
                )
            entry: dict[str, Any] = {"rootPath": path, "rootPathFormat": root.root_path_format}
            if root.file_system_location_name:
                entry["fileSystemLocationName"] = root.file_system_location_name
            if manifest is not None and manifest.manifest_path:
                entry["inputManifestPath"] = manifest.manifest_path
                entry["inputManifestHash"] = manifest.hash
            if self.output_dirs.get(path):
                entry["outputRelativeDirectories"] = sorted(self.output_dirs[path])
            manifests.append(entry)
        if not manifests:
            return None
        return {"manifests": manifests, "fileSystem": bundle.file_system or "COPIED"}


def created(client: Client, farm_id: str, queue_id: str, job_id: str) -> dict[str, Any]:
    """The job, once the service has taken its template apart.

    Raises: Trouble 65 the service refused it, 75 it is not done after CREATION_LIMIT_S; the job exists.
    """
    from libdeadline.jobs import UNFINISHED_CREATION

    deadline = monotonic() + CREATION_LIMIT_S
    pause = FIRST_POLL_S
    while True:
        job = client.call("GetJob", {"farmId": farm_id, "queueId": queue_id, "jobId": job_id})
        status = job.get("lifecycleStatus")
        if status == "CREATE_FAILED":
            reason = " ".join(str(job.get("lifecycleStatusMessage") or "no reason given").split())
            raise Trouble(f"job '{job_id}' could not be created: {reason}", statuses.DATA, code=status)
        if status != UNFINISHED_CREATION:
            return job
        if monotonic() + pause > deadline:
            raise Trouble(
                f"job '{job_id}' was submitted, but is still being created after {CREATION_LIMIT_S:.0f} s: "
                "look at it with dl-ls job",
                statuses.TRY_AGAIN,
            )
        sleep(pause)
        pause = min(2 * pause, LONGEST_POLL_S)


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    from libdeadline import targets

    submission = Submission()
    run.text = bool(args["--dry-run"])
    for row in run.input(Bundle, Root, File, OutputDir, Manifest, open_ended=args["--open-ended"]):
        first = submission.bundle is None
        submission.read(row)
        if first and submission.bundle is not None:
            from libdeadline import aws  # while the stages before are at work
        if not run.text:
            yield row
    bundle = submission.bundle
    if bundle is None:
        raise Trouble("there is no bundle to submit in the stream: begin it with dl-bundle", statuses.DATA)
    given = {"--farm-id": args["--farm-id"] or bundle.farm_id, "--queue-id": args["--queue-id"] or bundle.queue_id}
    reached = targets.target({**args, **given})
    request = submission.request(reached.farm_id, reached.queue_id)
    if submission.roots and "attachments" not in request:
        run.warn(f"queue '{reached.queue_id}' takes no job attachments: the job refers to files where they are")
    if run.text:
        import json

        run.print(json.dumps(request, indent=2) + "\n")
        return
    from uuid import uuid4

    client = reached.session.client("deadline")
    # One token for one run: a retry of the request makes no second job, a second run of a saved stream does.
    answer = client.call("CreateJob", {**request, "clientToken": str(uuid4())})
    job_id = answer["jobId"]
    try:
        if args["--remember"]:
            from libdeadline import config

            config.write("defaults.job_id", job_id)
        job = {"jobId": job_id} if args["--no-wait"] else created(client, reached.farm_id, reached.queue_id, job_id)
    except (command.Stopped, aws.ServiceError):
        run.warn(f"job '{job_id}' was submitted, and goes on")
        raise
    from libdeadline import jobs

    yield jobs.record_of(job, reached.farm_id, reached.queue_id)


def main() -> int:
    return command.run(__doc__, stage)
