"""dl-sync - fetch what the jobs of a queue have put out since the last time

Usage:
  dl-sync [options]

Options:
  --follow                  Go on: look for new output again and again.
  --interval=<time>         With --follow, between the end of one look and the
                            next [default: 60s].
  --bootstrap-lookback-minutes=<n>  Without a checkpoint, how far back output
                            is fetched from [default: 0].
  --force-bootstrap         Begin anew: heed no checkpoint, and forget which
                            jobs failed.
  --checkpoint-dir=<dir>    Where it is remembered what was fetched
                            [default: ~/.deadline/incremental_download].
  --ignore-storage-profiles  Take paths as the jobs have them.
  --storage-profile-id=<id>  Storage profile of this host, else the settings'.
  --conflict-resolution=<how>  Where a file exists that is not the same: skip,
                            overwrite, or create_copy, which puts the new one
                            beside it as "name (1).ext" [default: overwrite].
  --farm-id=<id>            Farm of the queue.
  --queue-id=<id>           Queue whose output to fetch.
  --profile=<name>          AWS profile to use.
  --region=<name>           AWS region to ask.
  --dry-run                 Tell which files there are; fetch and remember
                            nothing.
  --fsync                   Write each file through to the disk before it
                            gets its name.
  --jobs=<n>                Most connections at a time; by default as many as
                            the distance to the store makes useful.
  --limit-rate=<bytes>      Most bytes to receive in a second, such as 10M.
  --retry-for=<time>        How long passing failures in a row are endured
                            [default: 2m].
  --stall=<time>            Silence after which a connection is given up
                            [default: 2m].

Of each path the newest content is fetched, whole and as its hash says. What
fails does not hold up the rest: its job is tried again in the next runs, five
times in all, and the status is not 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from libdeadline import command, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble
from libdeadline.records import Record

if TYPE_CHECKING:
    from libdeadline.path_mapping import Rule
    from libdeadline.store import Store

    from .checkpoint import Checkpoint, Failures
    from .survey import Survey
    from .transfer import Done, Transfer

CONFLICTS = ("SKIP", "OVERWRITE", "CREATE_COPY")
SAVE_EVERY_S = 5.0  # at most, while jobs are done one after the other
PASSING = (statuses.UNAVAILABLE, statuses.TRY_AGAIN)  # a follower waits for these to pass


class Sync:
    """Fetching the output of one queue, once or again and again."""

    def __init__(self, args: Arguments, run: Run) -> None:
        from libdeadline.targets import target

        self.args, self.run = args, run
        if args["--storage-profile-id"] and args["--ignore-storage-profiles"]:
            raise Trouble("--storage-profile-id and --ignore-storage-profiles exclude each other", statuses.USAGE)
        self.lookback_s = _minutes(args["--bootstrap-lookback-minutes"]) * 60
        self.interval_s = args.seconds("--interval") or 0.0
        limit = args.bytes("--limit-rate")
        if limit == 0:
            raise Trouble("--limit-rate takes at least 1 byte a second", statuses.USAGE)
        self.limits = {
            "bytes_per_s": limit,
            "retry_s": args.seconds("--retry-for"),
            "stall_s": args.seconds("--stall"),
        }
        conflict = args.choice("--conflict-resolution", (*CONFLICTS, "CREATE-COPY")) or "OVERWRITE"
        self.options = {
            "conflict": conflict.replace("-", "_"),
            "jobs": args.integer("--jobs", 1, 1024),
            "fsync": args["--fsync"],
            "dry_run": args["--dry-run"],
        }
        self.folder = os.path.abspath(os.path.expanduser(args["--checkpoint-dir"]))
        os.makedirs(self.folder, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise Trouble(f"the folder '{self.folder}' cannot be written to", statuses.NOT_ALLOWED, path=self.folder)
        found = target(args)
        self.session, self.ids = found.session, {"farmId": found.farm_id, "queueId": found.queue_id}
        self.client = found.session.client("deadline", attempts=10)
        self.profile_id = None if args["--ignore-storage-profiles"] else found.config.get("settings.storage_profile_id")
        if self.profile_id == "":
            raise Trouble(
                "which storage profile has this host? give --storage-profile-id, or set settings.storage_profile_id; "
                "or give --ignore-storage-profiles, where jobs are submitted and their output is used on hosts alike",
                statuses.USAGE,
            )
        self.profiles: dict[str, dict[str, Any]] = {}
        key = f"{found.queue_id}_{self.profile_id or 'ignore-storage-profiles'}"
        self.checkpoint_path = os.path.join(self.folder, f"{key}_download_checkpoint.json")
        self.failures_path = os.path.join(self.folder, f"{key}_failed_jobs.json")
        self.store: Store | None = None
        self.transfer: Transfer | None = None

    def records(self) -> Iterator[Record]:
        """Look once, or again and again."""
        from libdeadline.path_mapping import check_local

        from .checkpoint import pid_lock, sweep

        profile = self._profile(self.profile_id) if self.profile_id else None
        if profile is not None:
            check_local(profile)
        for each in (profile or {}).get("fileSystemLocations") or ():
            if not os.path.isdir(each["path"]):
                self.run.warn(f"the location '{each['name']}' does not exist here: '{each['path']}'")
            elif not os.access(each["path"], os.W_OK):
                self.run.warn(f"the location '{each['name']}' cannot be written to: '{each['path']}'")
        self._open()
        with pid_lock(f"{self.checkpoint_path}.pid", self.run.warn):
            sweep(self.checkpoint_path)
            sweep(self.failures_path)
            checkpoint = self._start()
            if not self.args["--follow"]:
                yield from self._round(checkpoint)
                return
            while True:
                yield from self._followed(checkpoint)

    def _followed(self, checkpoint: Checkpoint) -> Iterator[Record]:
        """A round of a follower: what passes by itself does not end it."""
        from time import sleep

        try:
            yield from self._round(checkpoint)
        except Trouble as trouble:
            if trouble.status not in PASSING:
                raise
            self.run.warn(f"{trouble.message}: looking again in {self.interval_s:g} s")
            if self.store is not None:
                self.store.s3.resume()
        # What failed in this round was reported, and is tried again in the next.
        self.run.status = statuses.OK
        if self.run.output:
            self.run.output.flush()
        self.run.progress.clear()
        sleep(self.interval_s)

    def _open(self) -> None:
        from libdeadline.store import Store

        queue = self.client.call("GetQueue", self.ids)
        limits = {name: value for name, value in self.limits.items() if value is not None}
        self.store = Store.of_queue(self.session, queue, **limits)

    def _start(self) -> Checkpoint:
        """The checkpoint to go on from."""
        from .checkpoint import Checkpoint

        if not self.args["--force-bootstrap"]:
            found = Checkpoint.load(self.checkpoint_path)
            if found is not None:
                if found.profile_id != self.profile_id:
                    before = f"the storage profile '{found.profile_id}'" if found.profile_id else "no storage profile"
                    raise Trouble(
                        f"the checkpoint '{self.checkpoint_path}' was made with {before}: go on with the same, or "
                        "begin anew with --force-bootstrap",
                        statuses.USAGE,
                        path=self.checkpoint_path,
                    )
                return found
        elif not self.args["--dry-run"] and os.path.exists(self.failures_path):
            os.unlink(self.failures_path)
        return Checkpoint(self.profile_id, datetime.now(UTC) - timedelta(seconds=self.lookback_s))

    # One look.

    def _round(self, checkpoint: Checkpoint) -> Iterator[Record]:
        from . import survey as looking
        from .checkpoint import Failures
        from .transfer import Done, Transfer

        assert self.store is not None
        self.profiles.clear()  # a follower heeds what was changed
        if self.profile_id:
            self._profile(self.profile_id)
        now = datetime.now(UTC)
        completed = max(checkpoint.started, now - checkpoint.window)
        failures = Failures(self.failures_path)
        if self.args["--force-bootstrap"] and self.args["--dry-run"]:
            failures.counts.clear()
        if self.args["--dry-run"]:
            self.run.counts["dry_run"] = 1
        self._show("looking for new output")
        candidates = looking.found(self.client, self.ids, checkpoint.completed)
        self._add_failed(candidates, failures)
        survey = looking.surveyed(self.client, self.ids, checkpoint, candidates, completed, self.store, self._tell)
        for change in looking.CHANGES:
            self.run.count(**{f"jobs_{change}": survey.count(change)})
        self.run.count(session_actions=sum(work.actions for work in survey.works))
        self._show(None)
        from .status_file import SKIP_REASONS

        for job_id, change in survey.changes.items():
            if change in SKIP_REASONS:
                yield self._record(survey.jobs[job_id], change, "skipped", SKIP_REASONS[change])
        self.transfer = Transfer(self.run, self.store, survey.works, self._rules, self.options)
        keeping = _Keeping(self, checkpoint, failures, survey)
        whole = False
        try:
            for row in self.transfer.rows():
                if isinstance(row, Done):
                    yield keeping.done(row)
                else:
                    yield row
            whole = True
        finally:
            self.transfer.close(whole=whole)
            if not self.args["--dry-run"]:
                keeping.end(completed if whole else None)

    def _add_failed(self, candidates: dict[str, dict[str, Any]], failures: Failures) -> None:
        """Add the jobs to try again to the candidates, and take out those that were given up."""
        from libdeadline.aws import ServiceError

        from .survey import plain

        for job_id in failures.retried():
            if job_id in candidates:
                continue
            try:
                job = plain(self.client.call("GetJob", {**self.ids, "jobId": job_id}))
            except ServiceError as error:
                if error.http_status != 404:
                    raise
                del failures.counts[job_id]
                continue
            job.setdefault("attachments", None)
            job.setdefault("storageProfileId", None)
            candidates[job_id] = job
        for job_id in list(candidates):
            if failures.is_given_up(job_id):
                del candidates[job_id]

    def _rules(self, job: dict[str, Any]) -> list[Rule] | None:
        """The path mapping rules from a job's storage profile to this host's; None where paths stay as they are."""
        from libdeadline.path_mapping import rules_between

        theirs = job.get("storageProfileId")
        if self.profile_id is None or theirs == self.profile_id:
            return None
        return rules_between(self._profile(str(theirs)), self._profile(self.profile_id))

    def _profile(self, profile_id: str) -> dict[str, Any]:
        if profile_id not in self.profiles:
            asked = {**self.ids, "storageProfileId": profile_id}
            self.profiles[profile_id] = self.client.call("GetStorageProfileForQueue", asked)
        return self.profiles[profile_id]

    def _record(self, job: dict[str, Any], change: str, status: str, reason: str | None = None) -> Record:
        from libdeadline.jobs import record_of
        from libdeadline.times import moments

        return record_of(
            moments(job),
            self.ids["farmId"],
            self.ids["queueId"],
            change=change,
            download_status=status,
            skip_reason=reason,
        )

    def _tell(self, text: str) -> None:
        self.run.info(text)

    def _show(self, text: str | None) -> None:
        if self.run.mode != "none":
            self.run.progress.update(message=text)


class _Keeping:
    """Keeps the checkpoint, the failures and the status file of a round, while it runs and at its end."""

    def __init__(self, sync: Sync, checkpoint: Checkpoint, failures: Failures, survey: Survey) -> None:
        from time import monotonic

        self.sync, self.checkpoint, self.failures, self.survey = sync, checkpoint, failures, survey
        self.finished: dict[str, Done] = {}
        self.saved_at = monotonic()

    def done(self, done: Done) -> Record:
        """A job has been dealt with: remember that, and tell."""
        from time import monotonic

        from .status_file import status_of

        work, result = done.work, done.result
        sync = self.sync
        status = status_of(work.job, work.change, result)
        if not sync.args["--dry-run"]:
            self._remember(done)
            if monotonic() - self.saved_at >= SAVE_EVERY_S:
                self.checkpoint.save(sync.checkpoint_path)
                self.failures.save()
                self.saved_at = monotonic()
        return sync._record(work.job, work.change, status)

    def _remember(self, done: Done) -> None:
        work, job_id, counts = done.work, done.work.job_id, self.failures.counts
        self.finished[job_id] = done
        if done.result.error_code is None:
            self.checkpoint.jobs[job_id] = work.tracked
            counts.pop(job_id, None)
            return
        # It is new to the next run, which fetches all of its output.
        self.checkpoint.jobs.pop(job_id, None)
        self.failures.add(job_id, done.result.error_code)
        if self.failures.is_given_up(job_id):
            self.sync.run.warn(
                f"the output of the job '{job_id}' failed {counts[job_id]} times: given up until --force-bootstrap"
            )

    def end(self, completed: datetime | None) -> None:
        """The round is over; `completed` is the moment up to which all is here, None where it was broken off."""
        from . import status_file
        from .checkpoint import Tracked
        from .survey import INACTIVE, UNCHANGED

        sync, jobs = self.sync, self.checkpoint.jobs
        if completed is not None:
            for job_id, change in self.survey.changes.items():
                if change == INACTIVE:
                    before = jobs.pop(job_id)
                    # Where it is requeued, older sessions of it need no second look.
                    if before.ended_at is not None:
                        jobs[job_id] = Tracked({"jobId": job_id}, before.ended_at, {})
                elif change == UNCHANGED:
                    jobs[job_id] = jobs[job_id]._replace(job=self.survey.jobs[job_id])
                elif change in status_file.SKIP_REASONS:
                    jobs[job_id] = Tracked(self.survey.jobs[job_id], None, {})
            for job_id in self.survey.changes.keys() & self.failures.counts.keys() - self.finished.keys():
                if not self.failures.is_given_up(job_id):
                    del self.failures.counts[job_id]
            self.checkpoint.completed = completed
            profile = sync.profiles.get(sync.profile_id) if sync.profile_id else None
            places = status_file.places(sync.ids["queueId"], profile, sync.folder)
            results = {job_id: done.result for job_id, done in self.finished.items()}
            queue_id, warn = sync.ids["queueId"], sync.run.warn
            written = status_file.write(places, queue_id, sync.profile_id, self.survey, results, warn)
            if written and profile is None:
                status_file.point(queue_id, sync.folder, written[0], warn)
        self.checkpoint.save(sync.checkpoint_path)
        self.failures.save()


def _minutes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise Trouble(f"--bootstrap-lookback-minutes takes a number of minutes, not '{text}'", statuses.USAGE)
    return number


def stage(args: Arguments, run: Run) -> Iterator[Record]:
    yield from Sync(args, run).records()


def main() -> int:
    return command.run(__doc__, stage)
