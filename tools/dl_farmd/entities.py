"""BatchGetJobEntity: what a session needs to know of its job.

Source: spec/service.md section 9.3.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from . import lookup, store
from .errors import ResourceNotFound, ServiceError
from .operations import Call, operation
from .scheduling import log_group
from .templates import SCHEMA_VERSION


@operation("BatchGetJobEntity")
def batch_get_job_entity(call: Call) -> dict[str, Any]:
    worker = lookup.worker(call.db, call.params)
    entities, errors = [], []
    for identifier in call.params["identifiers"]:
        ((kind, ids),) = identifier.items()
        try:
            found = _READ[kind](call.db, _job_of(call.db, worker, ids), worker, ids)
            if not found.get("extensions"):
                found.pop("extensions", None)  # agents of before extensions refuse even an empty list
            entities.append({kind: {**ids, **found}})
        except ServiceError as error:
            errors.append({kind: {**ids, "code": error.code, "message": error.message}})
    return {"entities": entities, "errors": errors}


def _job_of(db: sqlite3.Connection, worker: sqlite3.Row, ids: dict[str, Any]) -> sqlite3.Row:
    """The job, if the worker has or had a session of it: others are none of its business."""
    row = store.one(
        db,
        "SELECT jobs.*, job_documents.symbol_table FROM jobs JOIN job_documents USING (job) WHERE job_id = ?"
        " AND EXISTS (SELECT 1 FROM sessions WHERE sessions.job = jobs.job AND worker = ?)",
        ids["jobId"],
        worker["worker"],
    )
    if row is None:
        raise ResourceNotFound("job", ids["jobId"])
    return row


def _job_details(db: sqlite3.Connection, job: sqlite3.Row, worker: sqlite3.Row, ids: dict[str, Any]) -> dict[str, Any]:
    queue = store.one(db, "SELECT * FROM queues WHERE queue_id = ?", job["queue_id"])
    assert queue is not None
    rows = db.execute("SELECT extensions FROM environments WHERE job = ? AND step IS NULL", (job["job"],))
    outer = [name for row in rows for name in row["extensions"]]  # a queue environment may use others than the job
    result = {
        "logGroupName": log_group(job["farm_id"], job["queue_id"]),
        "schemaVersion": SCHEMA_VERSION,
        "parameters": job["parameters"],
        "extensions": sorted({*job["extensions"], *outer}),
        "pathMappingRules": path_mapping_rules(db, job["storage_profile_id"], worker["fleet_id"]),
        "jobAttachmentSettings": queue["job_attachment_settings"],
        "queueRoleArn": queue["role_arn"],
        "jobRunAsUser": queue["job_run_as_user"],
    }
    return {name: value for name, value in result.items() if value is not None}


def path_mapping_rules(db: sqlite3.Connection, profile_id: str | None, fleet_id: str) -> list[dict[str, str]]:
    """How the paths of a job's storage profile read on a fleet: by the names of locations that both know."""
    configuration = store.value(db, "SELECT configuration FROM fleets WHERE fleet_id = ?", fleet_id) or {}
    here_id = next((each.get("storageProfileId") for each in configuration.values() if isinstance(each, dict)), None)
    if profile_id is None or here_id is None or profile_id == here_id:
        return []
    sql = "SELECT * FROM storage_profiles WHERE storage_profile_id = ?"
    there, here = store.one(db, sql, profile_id), store.one(db, sql, here_id)
    if there is None or here is None:
        return []
    paths = {each["name"]: each["path"] for each in here["file_system_locations"]}
    return [
        {
            "sourcePathFormat": "windows" if there["os_family"] == "WINDOWS" else "posix",
            "sourcePath": each["path"],
            "destinationPath": paths[each["name"]],
        }
        for each in there["file_system_locations"]
        if each["name"] in paths
    ]


def _attachment_details(
    db: sqlite3.Connection, job: sqlite3.Row, worker: sqlite3.Row, ids: dict[str, Any]
) -> dict[str, Any]:
    if job["attachments"] is None:
        raise ResourceNotFound("job-attachments", ids["jobId"], "The job has no attachments.")
    return {"attachments": job["attachments"]}


def _step_details(db: sqlite3.Connection, job: sqlite3.Row, worker: sqlite3.Row, ids: dict[str, Any]) -> dict[str, Any]:
    step = store.one(db, "SELECT * FROM steps WHERE step_id = ? AND job = ?", ids["stepId"], job["job"])
    if step is None:
        raise ResourceNotFound("step", ids["stepId"])
    rows = db.execute(
        "SELECT other.step_id FROM step_edges JOIN steps AS other ON other.step = dependency WHERE consumer = ?"
        " ORDER BY other.position",
        (step["step"],),
    )
    result = {
        "schemaVersion": SCHEMA_VERSION,
        "template": step["template"],
        "dependencies": [row[0] for row in rows],
        "extensions": job["extensions"],
    }
    if "EXPR" in job["extensions"]:
        result["resolvedSymbolTable"] = step["symbol_table"]
    return result


def _environment_details(
    db: sqlite3.Connection, job: sqlite3.Row, worker: sqlite3.Row, ids: dict[str, Any]
) -> dict[str, Any]:
    row = store.one(
        db,
        "SELECT environments.*, steps.symbol_table FROM environments LEFT JOIN steps USING (step)"
        " WHERE environment_id = ? AND environments.job = ?",
        ids["environmentId"],
        job["job"],
    )
    if row is None:
        raise ResourceNotFound("environment", ids["environmentId"])
    result = {
        "schemaVersion": row["schema_version"],
        "template": row["template"],
        "extensions": row["extensions"],
    }
    table = job["symbol_table"] if row["step"] is None else row["symbol_table"]
    if "EXPR" in row["extensions"]:
        result["resolvedSymbolTable"] = table
    return result


_READ = {
    "jobDetails": _job_details,
    "jobAttachmentDetails": _attachment_details,
    "stepDetails": _step_details,
    "environmentDetails": _environment_details,
}
