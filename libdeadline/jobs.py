"""Jobs as the service tells of them, and as records carry them."""

from __future__ import annotations

import re
from typing import Any

from . import times
from .records import Job

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SUSPENDED", "NOT_COMPATIBLE")  # task run statuses that stay
UNFINISHED_CREATION = "CREATE_IN_PROGRESS"
_ACTION_ID = re.compile(r"sessionaction-([0-9a-f]{32})-\d+\Z")


def record_of(answer: dict[str, Any], farm_id: str, queue_id: str, **fields: Any) -> Job:
    """The job record of a GetJob or SearchJobs answer."""
    counts = answer.get("taskRunStatusCounts")
    return Job.of(
        job_id=answer["jobId"],
        farm_id=farm_id,
        queue_id=queue_id,
        name=answer.get("name") or answer.get("displayName"),
        lifecycle_status=answer.get("lifecycleStatus"),
        lifecycle_status_message=answer.get("lifecycleStatusMessage"),
        task_run_status=answer.get("taskRunStatus"),
        task_run_status_counts=dict(counts) if counts else None,
        started_at=times.text_of(answer["startedAt"]) if answer.get("startedAt") else None,
        ended_at=times.text_of(answer["endedAt"]) if answer.get("endedAt") else None,
        **fields,
    )


def session_of(action_id: str | None) -> str | None:
    """The session that a session action belongs to, by its id, or None where it is no such id."""
    match = _ACTION_ID.match(action_id or "")
    return f"session-{match[1]}" if match else None
