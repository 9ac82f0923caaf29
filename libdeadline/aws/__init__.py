"""Calling AWS: "this operation with these parameters", signed and sent without the SDK, which stays the authority.

    session = aws.Session(config.read())
    for farm in session.client("deadline").items("ListFarms"):
        ...

A call's result is what boto3 returns, without ResponseMetadata. What goes wrong is a Trouble; what the service
refuses is a ServiceError. With DL_AWS=boto3 in the environment everything goes through boto3, to the same results.
Source: design, reaching AWS; botocore's service models; AWS SDKs and Tools Reference Guide, "Retry behavior".
"""

from __future__ import annotations

import os
import sys
from threading import Lock
from time import sleep, time
from urllib.parse import urlsplit

from .. import __version__, sigv4, statuses
from .. import config as settings
from ..digests import sha256
from ..errors import Trouble
from . import credentials as identity
from . import endpoints, model, profiles, protocol
from .credentials import Credentials
from .http import TIMEOUT_S, Answer, ConnectionTrouble, Transport

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from .sdk import SdkClient

__all__ = [
    "REGIONS", "Client", "Credentials", "ServiceError", "Session", "endpoint", "fleet_session", "list_farms",
    "queue_session", "regions", "user_agent",
]  # fmt: skip

ATTEMPTS = 3
BACKOFF_CAP_S = 20.0
RETRY_AFTER_CAP_S = 60.0
RETRY_TOKENS, RETRY_COST, THROTTLED_COST = 500, 14, 5
SKEW_S = 240.0  # a clock further off than this is to blame for a refused signature
REGIONS = (
    "us-east-1", "us-east-2", "us-west-2", "ap-northeast-1", "ap-northeast-2", "ap-southeast-1", "ap-southeast-2",
    "eu-central-1", "eu-west-1", "eu-west-2",
)  # fmt: skip
REGIONS_VARIABLE = "DEADLINE_CLOUD_REGIONS"

THROTTLED = frozenset((
    "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottledException",
    "TooManyRequestsException", "ProvisionedThroughputExceededException", "TransactionInProgressException",
    "RequestLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException", "RequestThrottled", "SlowDown",
    "PriorRequestNotComplete", "EC2ThrottledException",
))  # fmt: skip
PASSING = frozenset(("RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete", "IDPCommunicationError"))
SKEWED = frozenset((
    "RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture", "InvalidSignatureException",
    "SignatureDoesNotMatch", "AuthFailure",
))  # fmt: skip
SIGN_IN_AGAIN = frozenset((
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
    "InvalidAccessKeyId", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
    "IncompleteSignature", "IncompleteSignatureException", *SKEWED,
))  # fmt: skip
# Listings that a person signed in by the monitor sees only their own part of.
OWN_LISTINGS = ("ListFarms", "ListQueues", "ListFleets", "ListJobs")
UNSIGNED_HEADERS = ("user-agent", "connection")


class ServiceError(Trouble):
    """What a service refused, with its own words and the members that its model gives the error.

    Shape: `code` and `service_message` as the service sent them; `response` has the error's members (reason,
    resourceId, context, retryAfterSeconds, fieldList, ...); `message` is the line for a person.
    """

    def __init__(
        self,
        operation: str,
        code: str,
        message: str,
        http_status: int,
        response: dict[str, Any] | None = None,
        *,
        request_id: str | None = None,
    ) -> None:
        text = " ".join(message.split()).rstrip(".")
        hint = ""
        if code in SIGN_IN_AGAIN:
            hint = ": sign in again, and check the clock of this machine"
        elif code in ("AccessDeniedException", "AccessDenied"):
            hint = f": ask for permission to call {operation}"
        super().__init__(
            f"{operation} failed: {code}{': ' + text if text else ''}{hint}", _status(code, http_status), code=code
        )
        self.code: str = code
        self.operation, self.http_status, self.request_id = operation, http_status, request_id
        self.service_message = message
        self.response = response or {}


def _status(code: str, http_status: int) -> int:
    if code in THROTTLED or code in PASSING or http_status == 429 or http_status >= 500:
        return statuses.TRY_AGAIN
    if code in SIGN_IN_AGAIN or code in ("AccessDeniedException", "AccessDenied") or http_status in (401, 403):
        return statuses.NOT_ALLOWED
    if code in ("ResourceNotFoundException", "NoSuchBucket", "NoSuchKey") or http_status == 404:
        return statuses.NO_INPUT
    if code in ("ServiceQuotaExceededException",):
        return statuses.UNAVAILABLE
    return statuses.DATA


class Session:
    """Who asks, and where: settings, profile, credentials and region. Made without any network or SDK."""

    def __init__(
        self,
        config: settings.Config | None = None,
        *,
        profile: str | None = None,
        region: str | None = None,
    ) -> None:
        """`profile` and `region` are what a command was told; the settings decide where it was told nothing."""
        config = config or settings.read()
        self.config = config.with_values({settings.PROFILE: profile, "defaults.farm_region": region})
        self.profile = self.config.profile()
        self._region = region or None
        self._source: identity.Source | None = None
        self._profiles: profiles.Profiles | None = None
        self._transport: Transport | None = None
        self._clients: dict[tuple[str, str, int, float], Client] = {}
        self._lock = Lock()

    @property
    def profiles(self) -> profiles.Profiles:
        """The AWS profiles.

        Raises: Trouble (78) where the one asked for doesn't exist.
        """
        if self._profiles is None:
            found = profiles.read()
            identity.check_profile(found, self.profile_name)
            self._profiles = found
        return self._profiles

    @property
    def profile_name(self) -> str:
        """The AWS profile in effect: of the settings, else of the environment, else default."""
        return self.profile or identity.ambient_profile() or "default"

    @property
    def region(self) -> str:
        """The region to ask: what the command was told, else the farm's, else the profile's.

        Raises: Trouble (78) where nothing says which.
        """
        region = self._region or self.config.get("defaults.farm_region") or self.profile_region
        if not region:
            raise Trouble(
                f"no AWS region is set for the profile '{self.profile_name}': give --region, or set AWS_REGION or "
                "the profile's region",
                statuses.CONFIGURATION,
            )
        return region

    @property
    def profile_region(self) -> str | None:
        """The region of profile and environment, whatever farm is in question."""
        # botocore doesn't read AWS_REGION, so what it does read goes first.
        return (
            os.environ.get("AWS_DEFAULT_REGION")
            or self.profiles.value(self.profile_name, "region")
            or os.environ.get("AWS_REGION")
            or None
        )

    def credentials(self) -> Credentials:
        """Credentials that are good for a while yet.

        Raises: Trouble 77 where there are none, 78 where the profile doesn't exist.
        """
        return self._credential_source().get()

    def forget_credentials(self) -> None:
        """Get others at the next use: a service refused these before their time."""
        self._credential_source().forget()

    def _credential_source(self) -> identity.Source:
        with self._lock:
            if self._source is None:
                self._source = identity.resolved(self.profiles, self.profile)
            return self._source

    @property
    def credential_kind(self) -> str:
        """DEADLINE_CLOUD_MONITOR_LOGIN, AWS_CONSOLE_LOGIN or HOST_PROVIDED, by the look of the profile."""
        return identity.kind_of(self.profiles, self.profile)

    def principal_id(self) -> str | None:
        """The user that the monitor signed in, for listings of what is theirs; None for other credentials."""
        if self.credential_kind != identity.MONITOR or isinstance(self._source, _Borrowed):
            return None
        return self.profiles.config(self.profile_name).get("user_id")

    def with_credentials(self, provider: Callable[[], Credentials]) -> Session:
        """The same with other credentials: `provider` is called again shortly before they expire."""
        return self._with(_Borrowed(provider), self._region)

    def with_region(self, region: str) -> Session:
        """The same in another region, with the same credentials and connections."""
        return self._with(self._credential_source(), region)

    def _with(self, source: identity.Source, region: str | None) -> Session:
        other = Session(self.config, region=region)
        other._source, other._profiles = source, self._profiles
        other._transport = self.transport
        return other

    @property
    def transport(self) -> Transport:
        """Connections, proxy and certificates as the settings want them."""
        if self._transport is None:
            bundle = self.config.get("settings.ca_bundle")
            if not bundle and not os.environ.get("AWS_CA_BUNDLE"):
                bundle = self.profiles.value(self.profile_name, "ca_bundle") or ""
            self._transport = Transport(proxy=self.config.get("settings.https_proxy"), ca_bundle=bundle)
        return self._transport

    def endpoint(self, service: str) -> str:
        """The URL of a service (deadline, logs, sts, s3) for this session."""
        return endpoints.resolved(service, self.region, self.profiles, self.profile_name)

    def injects_host_prefix(self, url: str) -> bool:
        return endpoints.injects_prefix(url, self.profiles, self.profile_name)

    def client(self, service: str, *, attempts: int | None = None, timeout_s: float = TIMEOUT_S) -> Client:
        """A client of a service; any number of threads may call it. `attempts` counts the first one."""
        if attempts is None:
            attempts = _attempts(self.profiles.value(self.profile_name, "max_attempts"))
        key = (service, self.region, attempts, timeout_s)
        with self._lock:
            if key in self._clients:
                return self._clients[key]
        client = Client(self, service, attempts, timeout_s)
        with self._lock:
            return self._clients.setdefault(key, client)


class _Borrowed(identity.Source):
    """Credentials of a role, not of the person."""


class Client:
    """One service in one region: `call`, `pages` and `items`."""

    def __init__(self, session: Session, service: str, attempts: int, timeout_s: float) -> None:
        self.session, self.service_name = session, service
        self.region = session.region
        self.endpoint = session.endpoint(service)
        self.attempts = max(1, attempts)
        self._service = model.service(service)
        self._transport = session.transport
        if timeout_s != self._transport.timeout_s:
            self._transport = Transport(
                proxy=self._transport.proxy, ca_bundle=self._transport.ca_bundle, timeout_s=timeout_s
            )
        self._prefixed = session.injects_host_prefix(self.endpoint)
        self._quota = _Quota()
        self._skew_s = 0.0
        self._sdk: SdkClient | None = None
        if os.environ.get("DL_AWS") == "boto3":
            from .sdk import SdkClient

            self._sdk = SdkClient(session, service, self.endpoint, self.attempts, timeout_s)

    def call(self, operation: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask for an operation, by its name in the API, such as ListFarms.

        Shape:  parameters and result as boto3 has them, without ResponseMetadata; times are aware datetimes.
                An idempotency token is made where the caller gives none, so a repeated attempt does no harm.
        Raises: ServiceError what the service refuses; Trouble 65 wrong parameters, 69 not reachable, 75 no sensible
                answer, 77 no credentials. After 69 and 75 the operation may have been carried out all the same.
        """
        given = dict(parameters or {})
        if operation in OWN_LISTINGS and self.service_name == "deadline" and "principalId" not in given:
            principal = self.session.principal_id()
            if principal:
                given["principalId"] = principal
        if self._sdk:
            return self._sdk.call(operation, given)
        shape = self._service.operation(operation)
        return self._asked(shape, protocol.request(self._service, shape, given))

    def pages(self, operation: str, parameters: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """The result of each page of a listing, asked for as they are taken.

        Raises: what `call` does; Trouble (75) where the service gives the same token twice, to loop for ever.
        """
        paging = self._paging(operation)
        given = dict(parameters or {})
        asked = _listed(paging["input_token"])
        tokens: list[Any] = [given.get(name) for name in asked]
        while True:
            page = self.call(operation, given)
            yield page
            found = [_reached(page, path) for path in _listed(paging["output_token"])]
            more = paging.get("more_results")
            if not any(found) or (more and not _reached(page, more)):
                return
            if found == tokens:
                raise Trouble(f"{operation} gave the same nextToken twice: try again", statuses.TRY_AGAIN)
            tokens = found
            given.update({name: token for name, token in zip(asked, found, strict=True) if token})

    def items(self, operation: str, parameters: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """The entries of a listing, page after page."""
        path = _listed(self._paging(operation)["result_key"])[0]
        for page in self.pages(operation, parameters):
            yield from _reached(page, path) or ()

    def _paging(self, operation: str) -> dict[str, Any]:
        paging = self._service.operation(operation).pages
        if paging is None:
            raise Trouble(f"{operation} is no listing with pages", statuses.SOFTWARE)
        return paging

    def _asked(self, operation: model.Operation, request: protocol.Request) -> dict[str, Any]:
        url = urlsplit(self.endpoint)
        host, netloc = url.hostname or "", url.netloc.rpartition("@")[2]
        if self._prefixed and operation.prefix:
            host, netloc = operation.prefix + host, operation.prefix + netloc
        default_port = 443 if url.scheme == "https" else 80
        port = url.port or default_port
        if url.port == default_port:
            netloc = netloc.rpartition(":")[0]
        pool = self._transport.pool(url.scheme, host, port)
        path = url.path.rstrip("/") + request.path
        target = f"{path}?{request.query}" if request.query else path
        invocation = protocol.new_token()
        attempt, cost = 1, 0
        while True:
            failed: Trouble
            wait_s = 0.0
            retry = False
            spent = RETRY_COST
            try:
                headers = self._signed(request, netloc, path, invocation, attempt)
                answer = pool.send(request.method, target, headers, request.body)
            except ConnectionTrouble as error:
                failed = _unreachable(f"{url.scheme}://{netloc}", host, operation.name, error)
                retry = error.passing
            else:
                if answer.status < 300:
                    try:
                        result = protocol.result(self._service, operation, answer.status, answer.headers, answer.body)
                    except protocol.BadAnswer as bad:
                        failed, retry = Trouble(str(bad), statuses.TRY_AGAIN), True
                    else:
                        self._quota.give(cost or 1)
                        return result
                else:
                    refused = self._refusal(operation, answer)
                    failed = refused
                    throttled = refused.code in THROTTLED or answer.status == 429
                    retry = (
                        throttled
                        or refused.code in PASSING
                        or answer.status in (500, 502, 503, 504)
                        or self._retryable(operation, refused.code)
                        or self._skew_corrected(refused, answer)
                    )
                    spent = THROTTLED_COST if throttled else RETRY_COST
                    wait_s = _retry_after(answer.headers)
            if not retry or attempt >= self.attempts or not self._quota.take(spent):
                raise failed
            cost = spent
            sleep(max(wait_s, _jitter() * min(2.0 ** (attempt - 1), BACKOFF_CAP_S)))
            attempt += 1

    def _signed(
        self, request: protocol.Request, netloc: str, path: str, invocation: str, attempt: int
    ) -> dict[str, str]:
        keys = self.session.credentials()
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers["host"] = netloc
        headers["amz-sdk-invocation-id"] = invocation
        headers["amz-sdk-request"] = f"attempt={attempt}; max={self.attempts}" if attempt > 1 else f"attempt={attempt}"
        query = "&".join(sorted(request.query.split("&"))) if "&" in request.query else request.query
        sigv4.sign(
            request.method,
            path,
            query,
            headers,
            sha256(request.body).hexdigest(),
            access_key_id=keys.access_key_id,
            secret=keys.secret_access_key,
            token=keys.session_token,
            region=self.region,
            service=self._service.signing_name,
            now=time() + self._skew_s,
        )
        headers["user-agent"] = user_agent()
        return headers

    def _refusal(self, operation: model.Operation, answer: Answer) -> ServiceError:
        code, message, members = protocol.failure(self._service, operation, answer.status, answer.headers, answer.body)
        request_id = answer.headers.get("x-amzn-requestid") or answer.headers.get("x-amz-request-id")
        return ServiceError(operation.name, code, message, answer.status, members, request_id=request_id)

    def _retryable(self, operation: model.Operation, code: str) -> bool:
        shape = operation.errors.get(code)
        return shape is not None and "retryable" in operation.shapes[shape]

    def _skew_corrected(self, refused: ServiceError, answer: Answer) -> bool:
        """Whether the refusal was our clock's fault, which is corrected for from now on."""
        if refused.code not in SKEWED or "date" not in answer.headers:
            return False
        try:
            skew = protocol.parsed_time(answer.headers["date"]).timestamp() - time()
        except (ValueError, TypeError):
            return False
        if abs(skew - self._skew_s) < SKEW_S:
            return False
        self._skew_s = skew
        return True


class _Quota:
    """What a client may still spend on repeated attempts: when all fails, it stops adding to the load."""

    def __init__(self) -> None:
        self._tokens = RETRY_TOKENS
        self._lock = Lock()

    def take(self, amount: int) -> bool:
        with self._lock:
            if self._tokens < amount:
                return False
            self._tokens -= amount
            return True

    def give(self, amount: int) -> None:
        with self._lock:
            self._tokens = min(RETRY_TOKENS, self._tokens + amount)


def endpoint(service: str, region: str, config: settings.Config | None = None) -> str:
    """The URL of a service in a region, for the settings' profile."""
    return Session(config, region=region).endpoint(service)


def queue_session(session: Session, farm_id: str, queue_id: str, mode: str = "user") -> Session:
    """A session with the credentials of a queue's role, fetched when first needed and kept fresh.

    `mode` is user (to submit and download) or read.
    Raises: Trouble (64) for another mode; at first use, what AssumeQueueRoleForUser or ...ForRead raises.
    """
    if mode not in ("user", "read"):
        raise Trouble(f"a queue's role is taken as user or read, not as '{mode}'", statuses.USAGE)
    operation = "AssumeQueueRoleForUser" if mode == "user" else "AssumeQueueRoleForRead"
    return _role_session(session, operation, {"farmId": farm_id, "queueId": queue_id}, f"queue '{queue_id}'")


def fleet_session(session: Session, farm_id: str, fleet_id: str) -> Session:
    """A session with the credentials of a fleet's role, to read: fetched when first needed and kept fresh.

    Raises: at first use, what AssumeFleetRoleForRead raises.
    """
    return _role_session(
        session, "AssumeFleetRoleForRead", {"farmId": farm_id, "fleetId": fleet_id}, f"fleet '{fleet_id}'"
    )


def _role_session(session: Session, operation: str, parameters: dict[str, Any], subject: str) -> Session:
    def assumed() -> Credentials:
        keys = session.client("deadline").call(operation, parameters).get("credentials") or {}
        if not keys:
            raise Trouble(
                f"{subject} gave no credentials: it needs a role, and you permission to use it",
                statuses.NOT_ALLOWED,
            )
        return Credentials(
            keys["accessKeyId"], keys["secretAccessKey"], keys["sessionToken"], keys["expiration"].timestamp()
        )

    return session.with_credentials(assumed)


def regions(session: Session) -> list[str]:
    """The regions to look for farms in, each once, in the order given."""
    listed = os.environ.get(REGIONS_VARIABLE) or session.config.get("settings.deadline_regions")
    if listed:
        return list(dict.fromkeys(name.strip() for name in listed.split(",") if name.strip()))
    if os.environ.get("AWS_ENDPOINT_URL_DEADLINE"):
        return [session.profile_region or session.region]
    return list(REGIONS)


def list_farms(
    session: Session, *, region: str | None = None, parameters: Mapping[str, Any] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """All farms, each with its `region`, and what went wrong in regions that could not be asked.

    `region` limits it to one, whose errors surface. Farms come in the order of the regions.
    Raises: ServiceError, Trouble, where the only region, or each of several, fails.
    """
    if region:
        client = session.with_region(region).client("deadline")
        return [{**farm, "region": region} for farm in client.items("ListFarms", parameters)], []
    names = regions(session)
    if len(names) == 1:
        return list_farms(session, region=names[0], parameters=parameters)
    session.credentials()  # once, before ten threads ask for them; and without them no region need be asked
    found: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, Trouble] = {}

    def ask(name: str) -> None:
        try:
            found[name] = list_farms(session, region=name, parameters=parameters)[0]
        except Trouble as trouble:
            failed[name] = trouble

    _in_threads(ask, names)
    if len(failed) == len(names):
        first = failed[names[0]]
        causes = "; ".join(f"{name}: {failed[name].message}" for name in names)
        raise Trouble(f"cannot list farms in any of {len(names)} regions: {causes}", first.status, code=first.code)
    farms = [farm for name in names for farm in found.get(name, ())]
    if session.credential_kind == identity.MONITOR:
        home = session.profile_region
        farms = [farm for farm in farms if not farm.get("kmsKeyArn") or farm["region"] == home]
    warnings = [f"cannot list farms in region '{name}': {failed[name].message}" for name in names if name in failed]
    return farms, warnings


def _in_threads(work: Callable[[str], None], names: list[str]) -> None:
    from threading import Thread

    threads = [Thread(target=work, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def user_agent() -> str:
    """How we name ourselves to services, in the form that the reference client's figures are counted by."""
    parts = [
        f"deadline-tools/{__version__}",
        f"lang/python#{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}",
        f"os/{sys.platform}",
        f"app/deadline-client#{__version__}",
    ]
    for variable, label in (("DL_SUBMITTER", "submitter"), ("DL_CLI_COMMAND", "cli-command")):
        value = os.environ.get(variable, "")
        clean = "".join(char if char.isascii() and (char.isalnum() or char in "-._#") else "-" for char in value)
        if clean:
            parts.append(f"{label}/{clean}")
    agent = invoking_agent()
    if agent:
        parts.append(f"invoked-by/{agent}")
    return " ".join(parts)


AGENT_MARKERS = (
    ("CLAUDECODE", "claude-code"), ("CLAUDE_CODE", "claude-code"), ("CODEX_SANDBOX", "codex"),
    ("CODEX_THREAD_ID", "codex"), ("CURSOR_AGENT", "cursor"), ("REPL_ID", "replit"), ("GEMINI_CLI", "gemini"),
    ("OPENCODE", "opencode"), ("AUGMENT_AGENT", "auggie"), ("GOOSE_PROVIDER", "goose"),
)  # fmt: skip


def invoking_agent() -> str | None:
    """The software agent that runs this command, by the marks that agents leave in the environment, or None."""
    environment = os.environ
    for variable in ("AI_AGENT", "AGENT"):
        value = environment.get(variable, "")
        if value and value.lower() not in ("1", "true"):
            name = "".join(char for char in value.split("_")[0] if char.isascii() and (char.isalnum() or char in "._-"))
            if name:
                return name[:64].lower()
    for variable, name in AGENT_MARKERS:
        if environment.get(variable):
            return name
    if "devin" in environment.get("EDITOR", ""):
        return "devin"
    if "kiro" in environment.get("TERM_PROGRAM", ""):
        return "kiro"
    return "unknown" if environment.get("AGENT", "").lower() in ("1", "true") else None


def _unreachable(url: str, host: str, operation: str, error: ConnectionTrouble) -> Trouble:
    hint = ""
    if error.passing:
        near = host == "localhost" or host.startswith("127.")
        hint = ": is the farm on this machine up?" if near else ": check the network and the proxy settings"
    return Trouble(f"cannot reach '{url}' for {operation}: {error.reason}{hint}", statuses.UNAVAILABLE)


def _attempts(of_profile: str | None) -> int:
    value = os.environ.get("AWS_MAX_ATTEMPTS") or of_profile or ""
    return int(value) if value.isdigit() and int(value) > 0 else ATTEMPTS


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(max(float(headers.get("retry-after", "0")), 0.0), RETRY_AFTER_CAP_S)
    except ValueError:
        return 0.0


def _jitter() -> float:
    # `random` costs 7 ms to import, and is needed only when something has failed already.
    from random import random

    return random()


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def _reached(page: Any, path: str) -> Any:
    for part in path.split("."):
        page = page.get(part) if isinstance(page, dict) else None
    return page
