"""Queue environments: OpenJD environment templates that every job of a queue enters."""

from __future__ import annotations

import sqlite3
from typing import Any

from . import lookup, pages, store
from .errors import ResourceNotFound, Validation
from .operations import Call, operation

EXTENSIONS = ["TASK_CHUNKING", "REDACTED_ENV_VARS", "FEATURE_BUNDLE_1", "EXPR", "WRAP_ACTIONS"]


def _name_of(template: str, template_type: str) -> str:
    """The name of the environment that a template defines, which must be valid.

    Raises: Validation.
    """
    from openjd.model import DocumentType, decode_environment_template, document_string_to_object

    try:
        document = document_string_to_object(document=template, document_type=DocumentType[template_type])
        return decode_environment_template(template=document, supported_extensions=EXTENSIONS).environment.name
    except ValueError as error:  # among them DecodeValidationError
        raise Validation("The environment template is not valid.", {"template": str(error)[:2000]}) from None
    except RecursionError:
        raise Validation("The environment template is not valid.", {"template": "Nested too deeply"}) from None


def _get(db: sqlite3.Connection, ids: dict[str, Any]) -> sqlite3.Row:
    lookup.queue(db, ids)
    row = store.one(
        db, "SELECT * FROM queue_environments WHERE queue_environment_id = ? AND queue_id = ?",
        ids["queueEnvironmentId"], ids["queueId"],
    )  # fmt: skip
    if row is None:
        raise ResourceNotFound("queue-environment", ids["queueEnvironmentId"])
    return row


@operation("CreateQueueEnvironment")
def create_queue_environment(call: Call) -> dict[str, Any]:
    lookup.queue(call.db, call.params)
    identity = call.farm.new_id("queueenv")
    store.insert(
        call.db, "queue_environments", queue_environment_id=identity,
        name=_name_of(call.params["template"], call.params["templateType"]),
        created_at=call.now, created_by=call.actor,
        **store.columns(call.params, ("farmId", "queueId", "priority", "templateType", "template")),
    )  # fmt: skip
    return {"queueEnvironmentId": identity}


@operation("GetQueueEnvironment")
def get_queue_environment(call: Call) -> dict[str, Any]:
    return store.members(_get(call.db, call.params))


@operation("ListQueueEnvironments")
def list_queue_environments(call: Call) -> dict[str, Any]:
    lookup.queue(call.db, call.params)
    found, token = pages.rows(
        call, "SELECT * FROM queue_environments", "queue_id = ?", (call.params["queueId"],),
        ("priority", "created_at", "queue_environment_id"),
    )  # fmt: skip
    return {"environments": [store.members(row) for row in found], "nextToken": token}


@operation("UpdateQueueEnvironment")
def update_queue_environment(call: Call) -> None:
    row = _get(call.db, call.params)
    changes = store.columns(call.params, ("priority", "templateType", "template"))
    if "template" in changes or "template_type" in changes:
        changes["name"] = _name_of(
            changes.get("template", row["template"]), changes.get("template_type", row["template_type"])
        )
    store.update(
        call.db, "queue_environments", {"queue_environment_id": row["queue_environment_id"]},
        updated_at=call.now, updated_by=call.actor, **changes,
    )  # fmt: skip


@operation("DeleteQueueEnvironment")
def delete_queue_environment(call: Call) -> None:
    # The model gives this operation no error for what does not exist: deleting it again is no failure.
    call.db.execute(
        "DELETE FROM queue_environments WHERE farm_id = ? AND queue_id = ? AND queue_environment_id = ?",
        (call.params["farmId"], call.params["queueId"], call.params["queueEnvironmentId"]),
    )
