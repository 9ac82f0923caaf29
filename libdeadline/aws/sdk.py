"""The way through boto3: credentials that are not quick to get, and with DL_AWS=boto3 every call.

Importing boto3 costs a third of a second, so only the functions that need it do.
"""

from __future__ import annotations

from datetime import datetime

from .. import statuses
from ..errors import Trouble
from .credentials import Credentials, Source, Unkept, no_credentials

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING:
    from typing import Any

    from . import Session


def credential_source(profile: str | None) -> Source:
    """The credentials that boto3 finds for a profile; None: in its default chain. boto3 keeps them fresh.

    Raises: Trouble 77 where it finds none.
    """
    import boto3
    import botocore.exceptions as sdk_errors

    try:
        found = boto3.Session(profile_name=profile).get_credentials()
    except sdk_errors.BotoCoreError as error:
        raise translated(error, "find credentials") from None
    if found is None:
        raise no_credentials(profile)

    def frozen() -> Credentials:
        try:
            keys = found.get_frozen_credentials()
        except (sdk_errors.BotoCoreError, sdk_errors.ClientError) as error:
            raise translated(error, "get credentials") from None
        expiry = getattr(found, "_expiry_time", None)
        return Credentials(
            keys.access_key,
            keys.secret_key,
            keys.token,
            expiry.timestamp() if isinstance(expiry, datetime) else None,
            getattr(found, "account_id", None),
        )

    return Unkept(frozen)


class SdkClient:
    """A client whose calls go through boto3, with the results and errors of `libdeadline.aws.Client`."""

    def __init__(self, session: Session, service: str, endpoint: str, max_attempts: int, timeout_s: float) -> None:
        import boto3
        from botocore.config import Config

        from . import user_agent

        keys = session.credentials()
        settings = session.config
        options: dict[str, Any] = {}
        if proxy := settings.get("settings.https_proxy"):
            options["proxies"] = {"http": proxy, "https": proxy}
        self._session, self._service = session, service
        self._client = boto3.Session(
            keys.access_key_id, keys.secret_access_key, keys.session_token, region_name=session.region
        ).client(  # type: ignore[call-overload,unused-ignore]
            service,
            endpoint_url=endpoint,
            verify=settings.file("settings.ca_bundle") or None,
            config=Config(
                user_agent_extra=user_agent(),
                inject_host_prefix=session.injects_host_prefix(endpoint),
                retries={"mode": "standard", "total_max_attempts": max_attempts},
                connect_timeout=timeout_s,
                read_timeout=timeout_s,
                **options,
            ),
        )
        self._key = keys.access_key_id

    def call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        import botocore.exceptions as sdk_errors
        from botocore import xform_name

        from . import ServiceError

        keys = self._session.credentials()
        if keys.access_key_id != self._key:
            # Only what signs is changed: the client itself took half a second to make.
            from botocore.credentials import Credentials as SdkCredentials

            self._client._request_signer._credentials = SdkCredentials(
                keys.access_key_id, keys.secret_access_key, keys.session_token
            )
            self._key = keys.access_key_id
        try:
            answer: dict[str, Any] = getattr(self._client, xform_name(operation))(**parameters)
        except sdk_errors.ClientError as error:
            response = error.response
            known = ("Error", "ResponseMetadata")
            metadata = response.get("ResponseMetadata", {})
            raise ServiceError(
                operation,
                str(response.get("Error", {}).get("Code", "")),
                str(response.get("Error", {}).get("Message", "")),
                int(metadata.get("HTTPStatusCode", 0)),
                {key: value for key, value in response.items() if key not in known},
                request_id=metadata.get("RequestId"),
            ) from None
        except sdk_errors.BotoCoreError as error:
            raise translated(error, f"ask for {operation}") from None
        answer.pop("ResponseMetadata", None)
        return answer


def translated(error: Exception, doing: str) -> Trouble:
    """The Trouble that stands for an SDK error."""
    import botocore.exceptions as sdk_errors

    status = statuses.UNAVAILABLE
    if isinstance(error, (sdk_errors.ProfileNotFound, sdk_errors.NoRegionError, sdk_errors.InvalidConfigError)):
        status = statuses.CONFIGURATION
    elif isinstance(error, sdk_errors.ParamValidationError):
        status = statuses.DATA
    elif isinstance(
        error,
        (
            sdk_errors.NoCredentialsError,
            sdk_errors.CredentialRetrievalError,
            sdk_errors.SSOError,
            sdk_errors.TokenRetrievalError,
            sdk_errors.ClientError,
        ),
    ):
        status = statuses.NOT_ALLOWED
    text = " ".join(str(error).split()).rstrip(".")
    return Trouble(f"cannot {doing}: {text}", status)
