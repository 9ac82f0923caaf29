"""CopyJobTemplate: the template of a job as an object in the farm's S3 side.

The object is written by a thread, with a credential for the target alone; meanwhile the request is held.
"""

from __future__ import annotations

from threading import Thread
from typing import Any
from urllib.parse import quote

from . import lookup, store
from .errors import AccessDenied, ServiceError, Throttling, Validation
from .operations import Call, Hold, operation

WAIT_S = 30.0
LIFE_S = 60  # of the credential
OUTCOMES: dict[str, ServiceError | str] = {}  # by request id: what went wrong, or the template's type


@operation("CopyJobTemplate")
def copy_job_template(call: Call) -> dict[str, Any]:
    if call.held:
        outcome = OUTCOMES.pop(call.request_id, None) or Throttling("The copy takes too long.")
        if isinstance(outcome, ServiceError):
            raise outcome
        return {"templateType": outcome}
    job = lookup.job(call.db, call.params)
    document = store.one(call.db, "SELECT template, template_type FROM job_documents WHERE job = ?", job["job"])
    if document is None:
        raise Validation(f"The job {job['job_id']} has no template.")
    target = call.params["targetS3Location"]
    port = call.farm.config.get("ports", {}).get("s3d")
    if port is None:
        raise Validation("This farm has no S3 side to copy to.")
    claims = {"kind": "queue_user", "bucket": target["bucketName"], "prefix": ""}
    if call.principal.kind != "admin":
        # Whoever is no administrator reaches what the queue's role reaches.
        settings = lookup.queue(call.db, call.params)["job_attachment_settings"] or {}
        if settings.get("s3BucketName") != target["bucketName"]:
            raise AccessDenied(f"The queue's role does not reach the bucket {target['bucketName']}.")
        claims["prefix"] = settings["rootPrefix"]
    farm, request_id = call.farm, call.request_id
    key = f"copy {request_id}"
    content, kind = document["template"].encode(), document["template_type"]

    def work() -> None:
        try:
            _put(farm, port, claims, target["bucketName"], target["key"], content)
            outcome: ServiceError | str = kind
        except ServiceError as error:
            outcome = error
        except OSError as error:
            outcome = Throttling(f"The farm's S3 side can't be reached: {error}")

        def finish() -> None:
            OUTCOMES[request_id] = outcome
            farm.wake(key)
            farm.loop.call_later(WAIT_S, OUTCOMES.pop, request_id, None)

        try:
            farm.loop.call_soon_threadsafe(finish)
        except RuntimeError:
            pass  # the loop is closed

    Thread(target=work, name="copy", daemon=True).start()
    raise Hold(key, WAIT_S)


def _put(farm: Any, port: int, claims: dict[str, str], bucket: str, key: str, content: bytes) -> None:
    """Write an object.

    Raises: OSError, ServiceError.
    """
    from hashlib import sha256
    from http.client import HTTPConnection, HTTPException

    from libdeadline import sigv4

    minted = farm.ring.mint(claims, LIFE_S)
    path = quote(f"/{bucket}/{key}", safe="/-_.~")
    digest = sha256(content).hexdigest()
    headers = sigv4.sign(
        "PUT", path, "", {"host": f"127.0.0.1:{port}", "x-amz-content-sha256": digest}, digest,
        access_key_id=minted.access_key_id, secret=minted.secret_access_key, token=minted.session_token,
        region=farm.region, service="s3",
    )  # fmt: skip
    connection = HTTPConnection("127.0.0.1", port, timeout=WAIT_S / 2)
    try:
        connection.request("PUT", path, content, headers)
        response = connection.getresponse()
        text = response.read(2000).decode("utf-8", "replace")
    except HTTPException as error:
        raise Throttling(f"The farm's S3 side broke off: {type(error).__name__}") from None
    finally:
        connection.close()
    if response.status == 403:
        raise AccessDenied(f"The target {bucket}/{key} can't be written to.")
    if response.status >= 500:
        raise Throttling("The farm's S3 side is not available at the moment.")
    if response.status >= 300:
        code = text.partition("<Code>")[2].partition("</Code>")[0] or str(response.status)
        raise Validation(f"The template can't be copied: {code}.", {"targetS3Location": f"The S3 side answered {code}"})
