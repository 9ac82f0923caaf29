"""Jobs: their creation in the background, and what clients read and change of them.

Source: spec/service.md sections 4.1, 6 and 7.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Any

from . import auth, capabilities, lookup, pages, spaces, store, templates
from .errors import Conflict, ResourceNotFound, ServiceError, Validation
from .operations import Call, operation
from .run_status import (
    BEGUN,
    CHANGING,
    COLUMNS,
    STATUSES,
    WAITING,
    Ledger,
    counts,
    defer,
    is_many,
    requeue,
    stop,
)
from .tags import set_tags

MAX_FAILED_DEFAULT = 20
MAX_RETRIES_DEFAULT = 5
CREATE_AGAIN_S = 5
BATCH = 1000  # tasks written in one transaction: some milliseconds, for which heartbeats wait
COMMON = (
    "name",
    "description",
    "lifecycle_status",
    "priority",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
    "started_at",
    "ended_at",
    "source_job_id",
)
LISTED = "SELECT * FROM jobs"


def start(farm: Any) -> None:
    """Take up the jobs whose creation a stop of the service interrupted."""
    farm.background(templates.warm_up, lambda db, result: None, lambda db, error: None)
    for (job,) in farm.db.execute("SELECT job FROM jobs WHERE lifecycle_status = 'CREATE_IN_PROGRESS'").fetchall():
        begin_creation(farm, job)


def summary(row: sqlite3.Row) -> dict[str, Any]:
    """What every answer about a job holds."""
    result = {store.member_name(name): row[name] for name in COMMON}
    result |= {
        "jobId": row["job_id"],
        "lifecycleStatusMessage": row["lifecycle_message"],
        "maxFailedTasksCount": row["max_failed"],
        "maxRetriesPerTask": row["max_retries"],
        "maxWorkerCount": row["max_workers"],
        "taskRunStatus": row["status"],
        "taskRunStatusCounts": counts(row),
        "taskFailureRetryCount": row["retries"],
        "targetTaskRunStatus": row["target"],
        "description": row["description"] or None,
    }
    return result


def details(row: sqlite3.Row) -> dict[str, Any]:
    """A job as GetJob answers it."""
    return summary(row) | {
        "parameters": row["parameters"],
        "attachments": row["attachments"],
        "storageProfileId": row["storage_profile_id"],
    }


@operation("CreateJob")
def create_job(call: Call) -> dict[str, Any]:
    p, db, farm = call.params, call.db, call.farm
    queue = lookup.queue(db, p)
    template, kind, inherited = p.get("template"), p.get("templateType"), {}
    attachments, profile, source_id = p.get("attachments"), p.get("storageProfileId"), p.get("sourceJobId")
    if source_id is not None:
        source = store.one(
            db,
            "SELECT jobs.*, template, template_type, request FROM jobs JOIN job_documents USING (job)"
            " WHERE job_id = ? AND farm_id = ?",
            source_id,
            p["farmId"],
        )
        if source is None:
            raise ResourceNotFound("job", source_id)
        auth.authorize(call.principal, "GetJob", {**p, "queueId": source["queue_id"], "jobId": source_id}, db)
        if template is None:
            template, kind = source["template"], source["template_type"]
        inherited = {**source["request"]["inherited"], **source["request"]["given"]}
        attachments = attachments or source["attachments"]
        profile = profile or source["storage_profile_id"]
    if template is None:
        raise Validation("A job needs a template or a source job.", {"template": "Member must not be null"})
    if kind is None:
        raise Validation("A template needs its type.", {"templateType": "Member must not be null"})
    if profile is not None and profile not in (queue["allowed_storage_profile_ids"] or ()):
        raise Validation(
            f"Storage profile {profile} is not allowed on queue {p['queueId']}.",
            {"storageProfileId": "Storage profile is not among the queue's allowed storage profiles"},
        )
    if p.get("maxWorkerCount") == 0:
        raise Validation(
            "maxWorkerCount must be -1 or at least 1.", {"maxWorkerCount": "Member must be -1 or at least 1"}
        )
    job_id = farm.new_id("job")
    # A client pages through jobs by this time, so no two have the same.
    created_at = max(call.now, (store.value(db, "SELECT max(created_at) FROM jobs") or 0) + 1)
    store.insert(
        db, "jobs", job_id=job_id, farm_id=p["farmId"], queue_id=p["queueId"],
        name=p.get("nameOverride") or templates.raw_name(template, kind),
        description=p.get("descriptionOverride"),
        lifecycle_status="CREATE_IN_PROGRESS", lifecycle_message="The job is being created.",
        priority=p["priority"], max_failed=p.get("maxFailedTasksCount", MAX_FAILED_DEFAULT),
        max_retries=p.get("maxRetriesPerTask", MAX_RETRIES_DEFAULT), max_workers=p.get("maxWorkerCount", -1),
        storage_profile_id=profile, source_job_id=source_id, attachments=attachments,
        parameters=p.get("parameters") or {}, created_at=created_at, created_by=call.actor,
    )  # fmt: skip
    job = store.value(db, "SELECT last_insert_rowid()")
    request = {
        "given": p.get("parameters") or {},
        "inherited": inherited,
        "name": p.get("nameOverride"),
        "description": p.get("descriptionOverride"),
        "suspended": p.get("targetTaskRunStatus") == "SUSPENDED",
    }
    store.insert(db, "job_documents", job=job, template=template, template_type=kind, request=request)
    set_tags(call, f"farm/{p['farmId']}/queue/{p['queueId']}/job/{job_id}", p.get("tags"))
    farm.after_commit(lambda: begin_creation(farm, job))
    return {"jobId": job_id}


def begin_creation(farm: Any, job: int) -> None:
    """Make the steps and tasks of a job in the background."""

    def prepare() -> templates.JobRows:
        db = store.connect(farm.path, read_only=True)
        try:
            row = store.one(db, "SELECT * FROM jobs JOIN job_documents USING (job) WHERE job = ?", job)
            if row is None:
                raise templates.Refused("The job was deleted.")
            environments = db.execute(
                "SELECT name, template, template_type FROM queue_environments WHERE queue_id = ?"
                " ORDER BY priority, created_at, queue_environment_id",
                (row["queue_id"],),
            ).fetchall()
        finally:
            db.close()
        request = row["request"]
        return templates.build(
            templates.Document(row["template"], row["template_type"]),
            request["given"],
            [
                templates.Document(each["template"], each["template_type"], f"the queue environment '{each['name']}'")
                for each in environments
            ],
            inherited=request["inherited"],
        )

    farm.background(
        prepare, lambda db, result: _write(farm, db, job, result), lambda db, error: _fail(farm, db, job, error)
    )


def _fail(farm: Any, db: sqlite3.Connection, job: int, error: BaseException) -> None:
    if isinstance(error, sqlite3.OperationalError):
        # A full disk, say: nobody's fault, and over some time.
        farm.after(CREATE_AGAIN_S, lambda db: begin_creation(farm, job))
        return
    if isinstance(error, templates.Refused):
        message = str(error)[: templates.MAX_MESSAGE]
    else:
        farm.tell(f"creating a job failed: {type(error).__name__}: {error}")
        message = f"The farm could not create the job: {type(error).__name__}: {error}"[: templates.MAX_MESSAGE]
    _drop_rows(db, job)
    db.execute(
        "UPDATE jobs SET lifecycle_status = 'CREATE_FAILED', lifecycle_message = ?, ended_at = ? WHERE job = ?"
        " AND lifecycle_status = 'CREATE_IN_PROGRESS'",
        (message, farm.now_ms(), job),
    )


def _write(farm: Any, db: sqlite3.Connection, job: int, made: templates.JobRows) -> Iterator[None]:
    """Write the rows of a job; each step of the iterator is a transaction, between which requests are served.

    A job shows none of them before it has them all: see `lookup.step`, and the searches. What a stop of the service
    or a change of mind leaves half done is dropped.
    """
    row = _in_creation(db, job)
    if row is None:
        return
    _drop_rows(db, job)
    suspended = row["request"]["suspended"]
    totals = dict.fromkeys(STATUSES, 0)
    numbers: list[int] = []
    room = BATCH
    _write_environments(db, job, None, f"JOB:{row['job_id']}", made.environments)
    for position, step in enumerate(made.steps):
        status = "SUSPENDED" if suspended else "PENDING" if step.dependencies else "READY"
        totals[status] += step.count
        step_id = farm.new_id("step")
        store.insert(
            db, "steps", step_id=step_id, job=job, position=position, name=step.name, description=step.description,
            template=step.template, requirements=step.requirements, space=step.space, chunks=step.chunks,
            symbol_table=step.symbol_table, dependencies=len(step.dependencies), unresolved=len(step.dependencies),
            status=status, created_at=row["created_at"], **{COLUMNS[status]: step.count},
        )  # fmt: skip
        number = store.value(db, "SELECT last_insert_rowid()")
        numbers.append(number)
        _write_environments(db, job, number, f"STEP:{step_id}", step.environments)
        spaces.write(db, number, step.values)
        tasks = enumerate(step.tasks)
        while batch := list(islice(tasks, room)):
            db.executemany(
                "INSERT INTO tasks (step, number, status, parameters, chunk_group, chunk_value)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(number, index, status, *task) for index, task in batch],
            )
            room -= len(batch)
            if not room:
                yield
                room = BATCH
                if _in_creation(db, job) is None:  # canceled, or deleted
                    _drop_rows(db, job)
                    return
    db.executemany(
        "INSERT INTO step_edges VALUES (?, ?)",
        [
            (consumer, numbers[dependency])
            for consumer, step in zip(numbers, made.steps, strict=True)
            for dependency in step.dependencies
        ],
    )
    _complete(farm, db, job, made, totals, suspended)


def _complete(
    farm: Any, db: sqlite3.Connection, job: int, made: templates.JobRows, totals: dict[str, int], suspended: bool
) -> None:
    """Make a job that has all its rows one that can run."""
    row = _in_creation(db, job)
    assert row is not None
    request = row["request"]
    description = request["description"] if request["description"] is not None else made.description
    steps, tasks = len(made.steps), sum(totals.values())
    store.update(
        db, "jobs", {"job": job}, name=request["name"] or made.name[:512], description=description,
        lifecycle_status="CREATE_COMPLETE", parameters=made.parameters, extensions=made.extensions,
        lifecycle_message=f"Created {steps} step{'s' * (steps != 1)} and {tasks} task{'s' * (tasks != 1)}.",
        **{COLUMNS[status]: count for status, count in totals.items()},
    )  # fmt: skip
    store.update(db, "job_documents", {"job": job}, definitions=made.definitions, symbol_table=made.symbol_table)
    ledger = Ledger(db, farm.now_ms())
    ledger.look_at(job)
    if request["suspended"] != suspended:  # someone changed it meanwhile
        ledger.settle()
        set_job_target(farm, ledger, job, "SUSPENDED" if request["suspended"] else "READY")
    elif not suspended:
        capabilities.check_job(farm, ledger, job)
    ledger.settle()
    farm.emit("work", db, queue_id=row["queue_id"])


def _in_creation(db: sqlite3.Connection, job: int) -> sqlite3.Row | None:
    return store.one(
        db,
        "SELECT job_id, queue_id, created_at, request FROM jobs JOIN job_documents USING (job) WHERE job = ?"
        " AND lifecycle_status = 'CREATE_IN_PROGRESS'",
        job,
    )


def _drop_rows(db: sqlite3.Connection, job: int) -> None:
    db.execute("DELETE FROM environments WHERE job = ?", (job,))
    db.execute("DELETE FROM steps WHERE job = ?", (job,))


def _write_environments(
    db: sqlite3.Connection, job: int, step: int | None, prefix: str, environments: list[templates.EnvironmentRow]
) -> None:
    for position, each in enumerate(environments):
        # The position stands first: a queue's environment and a job's may have the same name.
        store.insert(
            db, "environments", environment_id=f"{prefix}:{position}:{each.name}"[:1024], job=job, step=step,
            position=position, template=each.template, schema_version=each.schema_version, extensions=each.extensions,
        )  # fmt: skip


@operation("GetJob")
def get_job(call: Call) -> dict[str, Any]:
    return details(lookup.job(call.db, call.params))


@operation("ListJobs")
def list_jobs(call: Call) -> dict[str, Any]:
    lookup.queue(call.db, call.params)
    more, args = auth.narrowed(call.principal, call.params, "job", call.db)
    rows, token = pages.rows(call, LISTED, f"queue_id = ? AND {more}", (call.params["queueId"], *args), ("-job",))
    return {"jobs": [summary(row) for row in rows], "nextToken": token}


@operation("BatchGetJob")
def batch_get_job(call: Call) -> dict[str, Any]:
    return batch(call, "jobs", lambda ids: details(lookup.job(call.db, ids)))


def batch(call: Call, name: str, get: Any) -> dict[str, Any]:
    """Answers of a batch operation: `get(ids)` for each of the request's identifiers, or its error."""
    items, errors = [], []
    for ids in call.params["identifiers"]:
        try:
            items.append({**get(ids), **ids})
        except ServiceError as error:
            errors.append({**ids, "code": error.code, "message": error.message})
    return {name: items, "errors": errors}


def batch_update(call: Call, name: str, keys: tuple[str, ...], change: Any) -> dict[str, Any]:
    """Apply `change(item)` to each item of the request, each by itself; answers the errors."""
    errors = []
    for item in call.params[name]:
        call.db.execute("SAVEPOINT item")
        try:
            change(item)
        except ServiceError as error:
            call.db.execute("ROLLBACK TO item")
            errors.append({**{key: item[key] for key in keys}, "code": error.code, "message": error.message})
        call.db.execute("RELEASE item")
    return {"errors": errors}


@operation("UpdateJob")
def update_job(call: Call) -> dict[str, Any]:
    _update_job(call, call.params)
    return {}


@operation("BatchUpdateJob")
def batch_update_job(call: Call) -> dict[str, Any]:
    return batch_update(call, "jobs", ("farmId", "queueId", "jobId"), lambda item: _update_job(call, item))


def _update_job(call: Call, p: dict[str, Any]) -> None:
    db = call.db
    row = lookup.job(db, p)
    changeable(row["lifecycle_status"], "job", row["job_id"])
    if p.get("maxWorkerCount") == 0:
        raise Validation(
            "maxWorkerCount must be -1 or at least 1.", {"maxWorkerCount": "Member must be -1 or at least 1"}
        )
    columns = {
        "priority": p.get("priority"),
        "max_failed": p.get("maxFailedTasksCount"),
        "max_retries": p.get("maxRetriesPerTask"),
        "max_workers": p.get("maxWorkerCount"),
        "name": p.get("name"),
        "description": p.get("description"),
    }
    changed = {name: value for name, value in columns.items() if value is not None}
    store.update(db, "jobs", {"job": row["job"]}, **changed, updated_at=call.now, updated_by=call.actor)
    if row["lifecycle_status"] == "CREATE_IN_PROGRESS":
        _update_in_creation(call, row, p)
        return
    ledger = Ledger(db, call.now, call.actor)
    ledger.look_at(row["job"], failures="maxFailedTasksCount" in p)
    if "targetTaskRunStatus" in p:
        set_job_target(call.farm, ledger, row["job"], p["targetTaskRunStatus"])
    if p.get("lifecycleStatus") == "ARCHIVED":
        # What still runs is stopped; what is over keeps its status.
        set_job_target(call.farm, ledger, row["job"], "CANCELED")
        store.update(
            db, "jobs", {"job": row["job"]}, lifecycle_status="ARCHIVED", lifecycle_message="The job is archived."
        )
    ledger.settle()
    call.farm.emit("work", db, queue_id=row["queue_id"])


def _update_in_creation(call: Call, row: sqlite3.Row, p: dict[str, Any]) -> None:
    """Changes of a job that has no tasks yet: they wait with the request that is being carried out."""
    target = p.get("targetTaskRunStatus")
    if p.get("lifecycleStatus") == "ARCHIVED" or target in ("FAILED", "SUCCEEDED"):
        raise Conflict(
            "STATUS_CONFLICT", "job", row["job_id"], "The job is still being created.", {"status": "CREATE_IN_PROGRESS"}
        )
    if target == "CANCELED":
        store.update(
            call.db, "jobs", {"job": row["job"]}, lifecycle_status="CREATE_FAILED", ended_at=call.now,
            lifecycle_message="The job was canceled before it was created.",
        )  # fmt: skip
        return
    request = store.value(call.db, "SELECT request FROM job_documents WHERE job = ?", row["job"])
    for member, key in (("name", "name"), ("description", "description")):
        if member in p:
            request[key] = p[member]
    if target is not None:
        request["suspended"] = target == "SUSPENDED"
    store.update(call.db, "job_documents", {"job": row["job"]}, request=request)


def changeable(lifecycle: str, kind: str, identity: str) -> None:
    """Refuse to change what belongs to a job that is archived or was never made."""
    if lifecycle in ("ARCHIVED", "CREATE_FAILED"):
        raise Conflict(
            "STATUS_CONFLICT", kind, identity, f"A job that is {lifecycle} can't be changed.", {"status": lifecycle}
        )


def set_job_target(farm: Any, ledger: Ledger, job: int, target: str) -> None:
    """Bring all tasks of a job to a target status; see `run_status.stop` and `requeue`, and for many `defer`."""
    row = store.one(ledger.db, "SELECT * FROM jobs WHERE job = ?", job)
    assert row is not None
    if row["lifecycle_status"] == CHANGING or is_many(row, target):
        for (step,) in ledger.db.execute("SELECT step FROM steps WHERE job = ?", (job,)).fetchall():
            _turn_begun(ledger, step, target)
        defer(ledger, job, None, target)
        store.update(ledger.db, "jobs", {"job": job}, target=target)
        ledger.look_at(job)
        return
    for (step,) in ledger.db.execute("SELECT step FROM steps WHERE job = ? ORDER BY position", (job,)).fetchall():
        set_step_target(farm, ledger, step, target, check=False)
    if target in ("READY", "PENDING"):
        ledger.settle()
        capabilities.check_job(farm, ledger, job)
    store.update(ledger.db, "jobs", {"job": job}, target=target)
    ledger.look_at(job)


def set_step_target(farm: Any, ledger: Ledger, step: int, target: str, *, check: bool = True) -> None:
    """Bring all tasks of a step to a target status."""
    row = store.one(
        ledger.db,
        f"SELECT {lookup.STEP_COLUMNS}, jobs.lifecycle_status AS job_lifecycle FROM steps JOIN jobs USING (job)"
        " WHERE step = ?",
        step,
    )
    assert row is not None
    if row["job_lifecycle"] == CHANGING or is_many(row, target):
        _turn_begun(ledger, step, target)
        defer(ledger, row["job"], step, target)
        return
    if target in ("READY", "PENDING"):
        requeue(ledger, step)
        if check:
            ledger.settle()
            capabilities.check_job(farm, ledger, store.value(ledger.db, "SELECT job FROM steps WHERE step = ?", step))
    else:
        stop(ledger, step, target)
    store.update(ledger.db, "steps", {"step": step}, target=target, updated_at=ledger.now, updated_by=ledger.actor)
    ledger.look_at_step(step)


def _turn_begun(ledger: Ledger, step: int, target: str) -> None:
    """Let those tasks of a step that a worker has in hand take a target once the worker reports."""
    if target in WAITING:
        ledger.put(step, "INTERRUPTING", "INTERRUPTING", columns=", target = 'READY'")
    else:
        stop(ledger, step, target, only=(*BEGUN, "INTERRUPTING"))
    store.update(ledger.db, "steps", {"step": step}, target=target, updated_at=ledger.now, updated_by=ledger.actor)
    ledger.look_at_step(step)


@operation("ListJobParameterDefinitions")
def list_job_parameter_definitions(call: Call) -> dict[str, Any]:
    row = lookup.job(call.db, call.params)
    found = store.one(call.db, "SELECT definitions FROM job_documents WHERE job = ?", row["job"])
    items, token = pages_of_list(call, found["definitions"] if found else [])
    return {"jobParameterDefinitions": items, "nextToken": token}


def pages_of_list(call: Call, items: list[Any]) -> tuple[list[Any], str | None]:
    """A page of a list that does not change."""
    first = 0
    if "nextToken" in call.params:
        (first,) = pages.read_token(call, call.params["nextToken"], 1)
        if not isinstance(first, int):
            raise Validation("The nextToken is not valid.", {"nextToken": "Token was not given by this operation"})
    last = first + call.params.get("maxResults", pages.PAGE)
    return items[first:last], pages.make_token(call, [last]) if last < len(items) else None
