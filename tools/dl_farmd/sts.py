"""STS as far as clients of a farm ask it: GetCallerIdentity, in the Query protocol with XML answers.

Source: AWS STS API reference, GetCallerIdentity; spec/service.md section 4.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from .errors import ServiceError

if TYPE_CHECKING:
    from .auth import Principal
    from .server import Answer, Request

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
CODES = {
    "UnrecognizedClientException": "InvalidClientTokenId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
}


def answer(request: Request, principal: Principal, account: str) -> Answer:
    """The answer of a signed request for STS."""
    from .server import Answer

    form = parse_qs(request.body.decode("latin-1") if request.body else request.query)
    action = form.get("Action", [""])[0]
    if action != "GetCallerIdentity":
        failure = ServiceError(f"Could not find operation {action} for version 2011-06-15")
        failure.code, failure.http_status = "InvalidAction", 400
        return error(failure, request.id)
    # An assumed role's UserId is the role's unique id, a colon and the session's name; a user's is the unique id.
    user_id = "AIDA" + f"{abs(hash_name(principal.arn)):016X}"[:16]
    if ":assumed-role/" in principal.arn:
        user_id = f"AROA{user_id[4:]}:{principal.arn.rpartition('/')[2]}"
    account = principal.arn.split(":")[4] or account
    body = (
        f'<GetCallerIdentityResponse xmlns="{NAMESPACE}"><GetCallerIdentityResult>'
        f"<Arn>{escape(principal.arn)}</Arn><UserId>{escape(user_id)}</UserId><Account>{escape(account)}</Account>"
        f"</GetCallerIdentityResult><ResponseMetadata><RequestId>{request.id}</RequestId></ResponseMetadata>"
        "</GetCallerIdentityResponse>"
    )
    return Answer(200, body.encode(), "content-type: text/xml\r\n")


def hash_name(name: str) -> int:
    """A number that stands for `name`, the same in every run."""
    from hashlib import sha256

    return int.from_bytes(sha256(name.encode()).digest()[:8], "big")


def error(failure: ServiceError, request_id: str) -> Answer:
    """The answer of an error, in the Query protocol, where the general names are others."""
    from .server import Answer

    code = CODES.get(failure.code) or failure.code.removesuffix("Exception")
    kind = "Receiver" if failure.http_status >= 500 else "Sender"
    body = (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>{kind}</Type><Code>{escape(code)}</Code>'
        f"<Message>{escape(failure.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return Answer(failure.http_status, body.encode(), "content-type: text/xml\r\n")
