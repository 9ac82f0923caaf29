"""The errors that an operation may answer: raise one, and the frame rolls the request back and serialises it.

Source: spec/service.md section 2.1; the error shapes of botocore's `deadline` model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ServiceError(Exception):
    """An error answer: its modelled name, HTTP status, and the members of its body besides `message`."""

    code = "InternalServerErrorException"
    http_status = 500

    def __init__(self, message: str, *, retry_after_s: int | None = None, **members: Any) -> None:
        super().__init__(message)
        self.message = message
        self.members = {name: value for name, value in members.items() if value is not None}
        self.retry_after_s = retry_after_s


class Internal(ServiceError):
    """Our fault. Reference worker agents exit on it, so a passing trouble is `Throttling` instead."""


class AccessDenied(ServiceError):
    """The principal may not call this operation on this resource."""

    code = "AccessDeniedException"
    http_status = 403

    def __init__(self, message: str, context: Mapping[str, str] | None = None) -> None:
        super().__init__(message, context=context)


class Conflict(ServiceError):
    """The state of a resource forbids the request.

    `reason` is CONFLICT_EXCEPTION, CONCURRENT_MODIFICATION, RESOURCE_ALREADY_EXISTS, RESOURCE_IN_USE or
    STATUS_CONFLICT; `resource_type` is a word such as `worker`. Reference agents read `reason`, `resourceId` and
    `context` ({"status": ...}).
    """

    code = "ConflictException"
    http_status = 409

    def __init__(
        self,
        reason: str,
        resource_type: str,
        resource_id: str,
        message: str,
        context: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, resourceType=resource_type, resourceId=resource_id, context=context)


class ResourceNotFound(ServiceError):
    """No such resource, or not below the parent that the path names."""

    code = "ResourceNotFoundException"
    http_status = 404

    def __init__(self, resource_type: str, resource_id: str, message: str | None = None) -> None:
        super().__init__(
            message or f"Resource of type {resource_type} with id {resource_id} does not exist.",
            resourceType=resource_type,
            resourceId=resource_id,
        )


class Quota(ServiceError):
    """A quota of the farm is used up."""

    code = "ServiceQuotaExceededException"
    http_status = 402

    def __init__(
        self,
        resource_type: str,
        message: str,
        *,
        quota_code: str = "L-LOCAL",
        resource_id: str | None = None,
        reason: str = "SERVICE_QUOTA_EXCEEDED_EXCEPTION",
    ) -> None:
        super().__init__(
            message,
            reason=reason,
            resourceType=resource_type,
            resourceId=resource_id,
            serviceCode="deadline",
            quotaCode=quota_code,
        )


class Throttling(ServiceError):
    """Not now: every client tries again after `retry_after_s`."""

    code = "ThrottlingException"
    http_status = 429

    def __init__(self, message: str = "Try again later.", retry_after_s: int = 1) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class Validation(ServiceError):
    """The request is wrong.

    `fields` maps member paths to what is wrong with them; `reason` is FIELD_VALIDATION_FAILED where there are
    fields, else OTHER (or UNKNOWN_OPERATION, CANNOT_PARSE).
    """

    code = "ValidationException"
    http_status = 400

    def __init__(
        self,
        message: str,
        fields: Mapping[str, str] | None = None,
        reason: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            message,
            reason=reason or ("FIELD_VALIDATION_FAILED" if fields else "OTHER"),
            fieldList=[{"name": name, "message": text} for name, text in fields.items()] if fields else None,
            context=context,
        )


class UnknownOperation(ServiceError):
    """No operation at this path and method."""

    code = "UnknownOperationException"
    http_status = 404


class Unauthenticated(ServiceError):
    """A request that is not signed as it must be; `code` is the general name for what is wrong with it."""

    http_status = 403

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OtherProtocol(ServiceError):
    """An error of CloudWatch Logs (`code` from its model), always HTTP 400."""

    http_status = 400

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
