"""Who asks, and what they may do: Signature Version 4 in the header or in the query, and the claims of the key.

Source: Amazon S3 API reference, "Authenticating requests (AWS Signature Version 4)"; the farm's rules for principals.
"""

from __future__ import annotations

from calendar import timegm
from dataclasses import dataclass
from functools import lru_cache
from hmac import compare_digest
from time import strptime, time
from typing import Any
from urllib.parse import unquote

from libdeadline import minted, sigv4

from .faults import Fault
from .wire import Request

SKEW_S = 900
LONGEST_PRESIGNED_S = 604800
WRITERS = ("queue_user", "queue_worker")
READERS = ("queue_read",)


@dataclass(slots=True)
class Caller:
    """Whose request it is: `prefix` is the key prefix that a queue role is confined to; "" and no bucket for an admin.

    The rest is what the signatures of a body sent in signed chunks are made of.
    """

    is_admin: bool
    can_write: bool
    bucket: str | None
    prefix: bytes
    secret: str
    region: str = ""
    timestamp: str = ""
    signature: str = ""

    def need(self, bucket: str, key: bytes, *, write: bool) -> None:
        """Let an access to an object (or, to list, to a prefix of keys) pass.

        Raises: Fault.
        """
        if self.is_admin:
            return
        inside = bucket == self.bucket and key.startswith(self.prefix)
        if not inside or (write and not self.can_write):
            raise Fault("AccessDenied", "Access Denied: the credentials do not allow this on that key.")

    def need_bucket(self, bucket: str) -> None:
        """Let an access that tells no more than that the bucket exists pass."""
        if not self.is_admin and bucket != self.bucket:
            raise Fault("AccessDenied", "Access Denied: the credentials are for another bucket.")

    def need_admin(self) -> None:
        if not self.is_admin:
            raise Fault("AccessDenied", "Access Denied: this needs the farm's own key.")


def identify(ring: minted.KeyRing, request: Request) -> Caller:
    """The caller of a signed request.

    Raises: Fault.
    """
    authorization = request.headers.get("authorization")
    if authorization:
        return _by_header(ring, request, authorization)
    if "X-Amz-Signature" in request.query:
        return _by_query(ring, request)
    raise Fault("AccessDenied", "Access Denied: the request is not signed.")


def _by_header(ring: minted.KeyRing, request: Request, authorization: str) -> Caller:
    headers = request.headers
    try:
        key_id, day, region, service, signed, signature = sigv4.parse_authorization(authorization)
    except ValueError as error:
        raise Fault("AuthorizationHeaderMalformed", f"The authorization header is wrong: {error}.") from None
    stamp = headers.get("x-amz-date", "")
    _check_time(stamp, day, SKEW_S)
    payload_hash = headers.get("x-amz-content-sha256")
    if payload_hash is None:
        raise Fault("InvalidRequest", "Missing required header for this request: x-amz-content-sha256.")
    caller = _caller(ring, key_id, headers.get("x-amz-security-token"))
    # What decides about the request must be under the signature; the rest of the headers may be a proxy's.
    loose = [name for name in headers if name.startswith("x-amz-") and name not in signed]
    if "host" not in signed or loose:
        raise Fault("AccessDenied", f"There were headers present which were not signed: {', '.join(loose) or 'host'}.")
    try:
        good = service == "s3" and sigv4.matches(
            request.method, request.path, request.raw_query, headers, payload_hash, authorization, caller.secret
        )
    except ValueError as error:
        raise Fault("SignatureDoesNotMatch", f"The signature can't be checked: {error}.") from None
    if not good:
        raise Fault("SignatureDoesNotMatch", _MISMATCH)
    caller.region, caller.timestamp, caller.signature = region, stamp, signature
    return caller


def _by_query(ring: minted.KeyRing, request: Request) -> Caller:
    query = request.query
    try:
        key_id, day, region, service, terminator = query["X-Amz-Credential"].rsplit("/", 4)
        stamp, signed = query["X-Amz-Date"], query["X-Amz-SignedHeaders"].split(";")
        life_s = int(query["X-Amz-Expires"])
        if query["X-Amz-Algorithm"] != "AWS4-HMAC-SHA256" or terminator != "aws4_request" or service != "s3":
            raise ValueError
    except (KeyError, ValueError):
        raise Fault("AuthorizationQueryParametersError", "The query parameters of the signature are wrong.") from None
    if not 0 < life_s <= LONGEST_PRESIGNED_S:
        raise Fault("AuthorizationQueryParametersError", "X-Amz-Expires must be between 1 and 604800 seconds.")
    sent = _check_time(stamp, day, None)
    if time() > sent + life_s:
        raise Fault("AccessDenied", "Request has expired.")
    if sent > time() + SKEW_S:
        raise Fault("AccessDenied", "Request is not valid yet.")
    caller = _caller(ring, key_id, query.get("X-Amz-Security-Token"))
    missing = [name for name in signed if name not in request.headers]
    loose = [name for name in request.headers if name.startswith("x-amz-") and name not in signed]
    if missing or loose or "host" not in signed:
        raise Fault("AccessDenied", "Signed headers are missing, or headers present were not signed.")
    pairs = [part for part in request.raw_query.split("&") if unquote(part.partition("=")[0]) != "X-Amz-Signature"]
    canonical_query = "&".join(sorted(part if "=" in part else f"{part}=" for part in pairs))
    payload_hash = request.headers.get("x-amz-content-sha256", sigv4.UNSIGNED)
    canonical = sigv4.canonical_request(
        request.method, request.path, canonical_query, request.headers, sorted(signed), payload_hash
    )
    if not compare_digest(
        sigv4.signature(canonical, caller.secret, stamp, region, service).encode(), query["X-Amz-Signature"].encode()
    ):
        raise Fault("SignatureDoesNotMatch", _MISMATCH)
    caller.region, caller.timestamp, caller.signature = region, stamp, query["X-Amz-Signature"]
    return caller


_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your key and signing method."
)


def _check_time(stamp: str, day: str, skew_s: int | None) -> float:
    try:
        sent = _seconds(stamp)
    except ValueError:
        raise Fault("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header.") from None
    if day != stamp[:8]:
        raise Fault("AuthorizationHeaderMalformed", "The date of the credential scope is not that of the request.")
    if skew_s is not None and abs(time() - sent) > skew_s:
        raise Fault("RequestTimeTooSkewed", "The difference between the request time and the server's is too large.")
    return sent


@lru_cache(maxsize=256)  # clients sign many requests in the same second
def _seconds(stamp: str) -> int:
    return timegm(strptime(stamp, "%Y%m%dT%H%M%SZ"))


def _caller(ring: minted.KeyRing, key_id: str, token: str | None) -> Caller:
    try:
        key = ring.resolve(key_id, token)
    except minted.UnknownKey:
        raise Fault("InvalidAccessKeyId", "The AWS access key Id you provided does not exist in our records.") from None
    except minted.Expired:
        raise Fault("ExpiredToken", "The provided token has expired.") from None
    except minted.CredentialError:
        raise Fault("InvalidToken", "The provided token is malformed or otherwise invalid.") from None
    return caller_of(key)


def caller_of(key: minted.Principal) -> Caller:
    """What the owner of a key may do here: an admin's key everything, a queue role's its bucket and root prefix."""
    claims: dict[str, Any] = key.claims
    if key.expires is None:
        is_admin = claims.get("principal") == "admin"
        return Caller(is_admin, is_admin, None, b"", key.secret)
    kind, bucket, prefix = claims.get("kind"), claims.get("bucket"), claims.get("prefix")
    if kind not in WRITERS + READERS or not bucket or not isinstance(prefix, str):
        return Caller(False, False, None, b"", key.secret)
    inside = f"{prefix}/".encode() if prefix else b""
    return Caller(False, kind in WRITERS, bucket, inside, key.secret)
