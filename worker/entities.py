"""What a session needs to know of its job: asked for once, ten at a time, and left in the session's folder.

Source: spec worker 1.8.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from time import sleep
from typing import Any

from libdeadline.errors import Trouble

from . import service
from .folder import SessionFolder, write_json
from .service import Farm, Wait

BATCH = 10  # identifiers in one call, the service's limit
FAULTS = 8  # answers of a broken service before the actions that need the entity fail
NAMES = {
    "jobDetails": "jobId",
    "jobAttachmentDetails": "jobId",
    "stepDetails": "stepId",
    "environmentDetails": "environmentId",
}

Identifier = dict[str, dict[str, str]]


def needed(job_id: str, definition: dict[str, Any]) -> list[Identifier]:
    """The entities that an action can't do without."""
    kind, detail = _parts(definition)
    match kind:
        case "syncInputJobAttachments" if detail.get("stepId"):
            return [_step(job_id, detail["stepId"])]
        case "syncInputJobAttachments":
            return [{"jobAttachmentDetails": {"jobId": job_id}}]
        case "taskRun":
            return [_step(job_id, detail["stepId"])]
        case "envEnter" | "envExit":
            return [{"environmentDetails": {"jobId": job_id, "environmentId": detail["environmentId"]}}]
    return []


def helpful(job_id: str, definition: dict[str, Any]) -> list[Identifier]:
    """The entities that an action is better off with: the step that an environment belongs to, for its name."""
    kind, detail = _parts(definition)
    identity = str(detail.get("environmentId", "")) if kind == "envEnter" else ""
    return [_step(job_id, identity.split(":")[1])] if identity.startswith("STEP:") else []


def _parts(definition: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    nothing: tuple[str, dict[str, Any]] = ("", {})
    return next(iter(definition.items()), nothing)


def _step(job_id: str, step_id: str) -> Identifier:
    return {"stepDetails": {"jobId": job_id, "stepId": step_id}}


def path_of(folder: SessionFolder, identifier: Identifier) -> str:
    """Where the entity stands in the session's folder."""
    kind, ids = next(iter(identifier.items()))
    return folder.entity(kind, "" if NAMES[kind] == "jobId" else ids[NAMES[kind]])


def key_of(identifier: Identifier) -> str:
    kind, ids = next(iter(identifier.items()))
    return f"{kind}:{ids[NAMES[kind]]}"


def fetch(farm: Farm, folder: SessionFolder, wanted: Iterable[Identifier], wait: Wait = sleep) -> dict[str, str]:
    """Have the entities in the folder; for each that can't be had, its key and why.

    Those that are there are not asked for again: an entity doesn't change under a session.
    """
    os.makedirs(folder.file("entities"), mode=0o700, exist_ok=True)
    missing = {key_of(each): each for each in wanted if not os.path.exists(path_of(folder, each))}
    failed: dict[str, str] = {}
    pending = list(missing.values())
    size = BATCH
    while pending:
        batch, pending = pending[:size], pending[size:]
        try:
            answer = _ask(farm, batch, wait)
        except Trouble as trouble:
            failed.update({key_of(each): trouble.message for each in batch})
            continue
        for entity in answer.get("entities") or ():
            for kind, fields in entity.items():
                if kind in NAMES and isinstance(fields, dict) and NAMES[kind] in fields:
                    identifier = {kind: {NAMES[kind]: fields[NAMES[kind]]}}
                    write_json(path_of(folder, identifier), fields)
        too_big: list[Identifier] = []
        for error in answer.get("errors") or ():
            for kind, fields in error.items():
                if kind not in NAMES or not isinstance(fields, dict):
                    continue
                key = f"{kind}:{fields.get(NAMES[kind])}"
                if fields.get("code") == "MaxPayloadSizeExceeded" and len(batch) > 1 and key in missing:
                    too_big.append(missing[key])
                else:
                    failed[key] = f"{fields.get('code')}: {fields.get('message') or kind}"
        pending += too_big
        if too_big:
            size = max(1, len(batch) // 2)
        for each in batch:
            key = key_of(each)
            if key not in failed and each not in too_big and not os.path.exists(path_of(folder, each)):
                failed[key] = "the farm's answer doesn't hold it"
    return failed


def _ask(farm: Farm, batch: Sequence[Identifier], wait: Wait) -> dict[str, Any]:
    faults = 0

    def again(trouble: Trouble) -> bool:
        nonlocal faults
        if not service.is_passing(trouble) and not service.is_expired(trouble):
            return False
        if getattr(trouble, "http_status", 0) != 429:
            faults += 1
        return faults < FAULTS

    return service.persist(lambda: farm.call("BatchGetJobEntity", identifiers=list(batch)), wait, again)
