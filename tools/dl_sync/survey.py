"""Finds out what output there is that was not fetched yet: by job, by session, by session action.

    SearchJobs ── candidates ──▶ GetJob ── what has changed ──▶ ListSessions ──▶ ListSessionActions ── works

Source: attachments specification, incremental download, algorithm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from libdeadline.aws import ServiceError
from libdeadline.pool import each
from libdeadline.store import output_key

from .checkpoint import Tracked

if TYPE_CHECKING:
    from collections.abc import Callable

    from libdeadline.aws import Client
    from libdeadline.store import Store

    from .checkpoint import Checkpoint

ACTIVE = ("READY", "ASSIGNED", "STARTING", "SCHEDULED", "RUNNING")
PAGE = 100  # jobs, the most that SearchJobs gives
ASKING = 3  # requests at a time

# What a candidate turns out to be. Of the first three, output is fetched.
ADDED, UPDATED, COMPLETED = "added", "updated", "completed"
UNCHANGED, INACTIVE, WITHOUT_ATTACHMENTS, WITHOUT_PROFILE = (
    "unchanged",
    "inactive",
    "without_attachments",
    "without_storage_profile",
)
CHANGES = (ADDED, UPDATED, COMPLETED, UNCHANGED, INACTIVE, WITHOUT_ATTACHMENTS, WITHOUT_PROFILE)
FETCHED = (ADDED, UPDATED, COMPLETED)


class Output(NamedTuple):
    """A manifest of what one session action put out below one root of its job."""

    task_id: str
    ended_at: str
    root: str
    root_path_format: str
    location: str | None
    manifest_path: str
    hash: str | None


class Work:
    """A job with output to fetch, and what is to be remembered once it is here."""

    def __init__(self, job: dict[str, Any], change: str) -> None:
        self.job, self.change = job, change
        self.outputs: list[Output] = []
        self.actions = 0
        self.succeeded: set[str] = set()  # tasks
        self.farm_failed: set[str] = set()  # tasks that failed while rendering, and not while being fetched
        self.tracked = Tracked(job, None, {})

    @property
    def job_id(self) -> str:
        return str(self.job["jobId"])


class Survey:
    """What a run found: the changes by job, and the works."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.changes: dict[str, str] = {}
        self.works: list[Work] = []

    def count(self, change: str) -> int:
        return sum(1 for each_change in self.changes.values() if each_change == change)


def found(client: Client, ids: Mapping[str, str], since: datetime) -> dict[str, dict[str, Any]]:
    """The jobs that may have output since a moment, by id, as the checkpoint keeps them."""
    jobs: dict[str, dict[str, Any]] = {}
    active = {"stringListFilter": {"name": "TASK_RUN_STATUS", "operator": "ANY_EQUALS", "values": list(ACTIVE)}}
    ended = {"dateTimeFilter": {"name": "ENDED_AT", "operator": "GREATER_THAN_EQUAL_TO", "dateTime": since}}
    for condition in (active, ended):
        for job in _walk(client, ids, condition):
            if job["taskRunStatusCounts"].get("SUCCEEDED", 0) > 0:
                jobs[job["jobId"]] = plain(job)
    return jobs


def _walk(client: Client, ids: Mapping[str, str], condition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The jobs of a queue that meet a condition, by their creation.

    Each page starts where the creation times of the one before it ended, because an offset would skip jobs when
    others cease to match meanwhile. It moves on by offset only among jobs of the very same moment.
    """
    seen: set[str] = set()
    start: datetime | None = None
    offset = 0
    while True:
        filters: list[dict[str, Any]] = [{"groupFilter": {"filters": [condition], "operator": "AND"}}]
        if start is not None:
            filters.append(
                {"dateTimeFilter": {"name": "CREATED_AT", "operator": "GREATER_THAN_EQUAL_TO", "dateTime": start}}
            )
        asked = {
            "farmId": ids["farmId"],
            "queueIds": [ids["queueId"]],
            "filterExpressions": {"filters": filters, "operator": "AND"},
            "sortExpressions": [{"fieldSort": {"name": "CREATED_AT", "sortOrder": "ASCENDING"}}],
            "itemOffset": offset,
            "pageSize": PAGE,
        }
        jobs = client.call("SearchJobs", asked).get("jobs") or []
        for job in jobs:
            if job["jobId"] not in seen:
                seen.add(job["jobId"])
                yield job
        if len(jobs) < PAGE:
            return
        last = jobs[-1]["createdAt"]
        offset, start = (offset + PAGE, start) if last == start else (0, last)


def plain(value: Any) -> Any:
    """An answer of the service with its times as the reference's checkpoint spells them."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return value


def surveyed(
    client: Client,
    ids: Mapping[str, str],
    checkpoint: Checkpoint,
    candidates: dict[str, dict[str, Any]],
    completed: datetime,
    store: Store,
    tell: Callable[[str], None],
) -> Survey:
    """What the candidates are, and the output of those that have some.

    `completed` is the moment up to which all will have been fetched.
    """
    survey = Survey()
    for job_id in checkpoint.jobs:
        if job_id not in candidates:
            survey.changes[job_id] = INACTIVE
    for job_id in candidates:
        job, change = _judged(client, ids, checkpoint, candidates[job_id], completed)
        if change is None:
            tell(f"the job '{job_id}' is gone")
            continue
        survey.jobs[job_id], survey.changes[job_id] = job, change
        if change in FETCHED:
            survey.works.append(Work(job, change))
    _find_outputs(client, ids, checkpoint, survey, store, tell)
    return survey


def _judged(
    client: Client,
    ids: Mapping[str, str],
    checkpoint: Checkpoint,
    job: dict[str, Any],
    completed: datetime,
) -> tuple[dict[str, Any], str | None]:
    """The job as it is to be remembered, and what has become of it; None where it does not exist any more."""
    before = checkpoint.jobs.get(job["jobId"])
    known = before.job if before and set(before.job) != {"jobId"} else None
    if known is None:
        if "attachments" not in job or "storageProfileId" not in job:
            try:
                whole = client.call("GetJob", {**ids, "jobId": job["jobId"]})
            except ServiceError as error:
                if error.http_status != 404:
                    raise
                return job, None
            job["attachments"] = plain(whole.get("attachments"))
            job["storageProfileId"] = whole.get("storageProfileId")
    elif known.get("attachments") is None:
        return known, WITHOUT_ATTACHMENTS
    elif known.get("storageProfileId") is None and checkpoint.profile_id is not None:
        return known, WITHOUT_PROFILE
    else:
        job["attachments"], job["storageProfileId"] = known["attachments"], known.get("storageProfileId")
    if job["attachments"] is None:
        return {"jobId": job["jobId"], "name": job.get("name"), "attachments": None}, WITHOUT_ATTACHMENTS
    if job["storageProfileId"] is None and checkpoint.profile_id is not None:
        kept = ("jobId", "name", "attachments", "storageProfileId")
        return {name: job.get(name) for name in kept}, WITHOUT_PROFILE
    counts = job["taskRunStatusCounts"]
    if known is not None:
        same_count = known.get("taskRunStatusCounts", {}).get("SUCCEEDED") == counts["SUCCEEDED"]
        if same_count and _when(known.get("endedAt")) == _when(job.get("endedAt")):
            return job, UNCHANGED
    ended = _when(job.get("endedAt"))
    if counts["SUCCEEDED"] == sum(counts.values()) and ended is not None and ended < completed:
        return job, COMPLETED
    return job, UPDATED if known is not None else ADDED


def _find_outputs(
    client: Client,
    ids: Mapping[str, str],
    checkpoint: Checkpoint,
    survey: Survey,
    store: Store,
    tell: Callable[[str], None],
) -> None:
    """Fill in the works: their outputs, and what is to be remembered of each, by itself."""
    gone: set[str] = set()
    sessions: list[tuple[Work, dict[str, Any]]] = []

    def listed(work: Work) -> list[dict[str, Any]]:
        return list(client.items("ListSessions", {**ids, "jobId": work.job_id}))

    for work, rows in each(listed, survey.works, ASKING):
        if isinstance(rows, Exception):
            if isinstance(rows, ServiceError) and rows.http_status == 404:
                gone.add(work.job_id)
                tell(f"the job '{work.job_id}' is gone")
                continue
            raise rows
        before = checkpoint.jobs.get(work.job_id)
        threshold = before.ended_at if before and before.ended_at else checkpoint.started
        if work.change != ADDED:
            threshold -= checkpoint.window
        wanted = [row for row in rows if row.get("endedAt") is None or row["endedAt"] >= threshold]
        sessions += [(work, row) for row in wanted]
        ends = [row["endedAt"] for row in wanted if row.get("endedAt") is not None]
        if before and before.ended_at:
            ends.append(before.ended_at)
        work.tracked = Tracked(work.job, max(ends, default=None), dict(before.indexes) if before else {})

    def acted(pair: tuple[Work, dict[str, Any]]) -> list[dict[str, Any]]:
        work, session = pair
        asked = {**ids, "jobId": work.job_id, "sessionId": session["sessionId"]}
        return list(client.items("ListSessionActions", asked))

    listings: dict[str, dict[str, dict[str, str]]] = {}
    for (work, session), rows in each(acted, sessions, ASKING):
        if isinstance(rows, Exception):
            if isinstance(rows, ServiceError) and rows.http_status == 404:
                gone.add(work.job_id)
                continue
            raise rows
        session_id = session["sessionId"]
        last = work.tracked.indexes.get(session_id, -1)
        newest = last
        for action in rows:
            run = (action.get("definition") or {}).get("taskRun")
            if run is None or action["status"] not in ("SUCCEEDED", "FAILED"):
                continue
            index = int(action["sessionActionId"].rpartition("-")[2])
            task_id = run.get("taskId") or ""
            if action["status"] == "FAILED":
                work.farm_failed.add(task_id)
                continue
            work.succeeded.add(task_id)
            if index <= last:
                continue
            newest = max(newest, index)
            work.actions += 1
            outputs = list(_outputs_of(action, run, work, ids, store, listings))
            if not outputs:
                tell(f"'{action['sessionActionId']}' of the job '{work.job_id}' has no output")
            work.outputs += outputs
        if newest > last:
            work.tracked = work.tracked._replace(indexes={**work.tracked.indexes, session_id: newest})
    for work in survey.works:
        # A failed attempt stays in the list of actions after a later one has succeeded.
        work.farm_failed -= work.succeeded
    survey.works = [work for work in survey.works if work.job_id not in gone]
    for job_id in gone:
        survey.changes.pop(job_id, None)


def _outputs_of(
    action: dict[str, Any],
    run: dict[str, Any],
    work: Work,
    ids: Mapping[str, str],
    store: Store,
    listings: dict[str, dict[str, dict[str, str]]],
) -> Iterator[Output]:
    """The output manifests of a session action, in the order of the job's roots."""
    from libdeadline.paths import root_hash

    roots = work.job["attachments"].get("manifests") or []
    ended_at = plain(action.get("endedAt")) or ""
    recorded = action.get("manifests")
    if recorded is None:
        # Workers of old don't tell what they stored. One listing of a step serves all of its actions.
        step = f"{ids['farmId']}/{ids['queueId']}/{work.job_id}/{run['stepId']}/"
        if step not in listings:
            listings[step] = _listed(store, step, f"{run['stepId']}/")
        names = listings[step].get(action["sessionActionId"], {})
        recorded = []
        for root in roots:
            name = root_hash((root.get("fileSystemLocationName") or "") + root["rootPath"])
            path = next((path for key, path in names.items() if key.startswith(name)), None)
            recorded.append({"outputManifestPath": path} if path else {})
    for root, row in zip(roots, recorded, strict=False):
        if row.get("outputManifestPath"):
            yield Output(
                run.get("taskId") or "",
                ended_at,
                root["rootPath"],
                root["rootPathFormat"].lower(),
                root.get("fileSystemLocationName"),
                row["outputManifestPath"],
                row.get("outputManifestHash"),
            )


def _listed(store: Store, step: str, step_part: str) -> dict[str, dict[str, str]]:
    """The output manifests below a step: by session action, then by name, the path below Manifests/."""
    prefix, start = store.manifest_key(step), len(store.manifest_key(""))
    names: dict[str, dict[str, str]] = {}
    for page in store.s3.pages(prefix):
        for at in page.found:
            key = output_key(step_part + at.key[len(prefix) :])
            if key is not None:
                names.setdefault(key.action_id, {})[key.name] = at.key[start:]
    return names


def _when(text: str | None) -> datetime | None:
    from libdeadline.times import of_text

    return of_text(text) if text else None
