"""The S3 API over a store: connections, and which operation a request asks for.

  Service     a connection's requests, one after the other
  Exchange    one request: its body, its response, who asks
  operation   its meaning: buckets, objects, multipart, listing
  Store       what is kept
Source: Amazon S3 API reference; spec/service.md section 15.
"""

from __future__ import annotations

from collections.abc import Callable

from libdeadline.minted import KeyRing

from . import buckets, listing, multipart, objects
from .auth import identify
from .documents import document, fault
from .exchange import Answer, Exchange
from .faults import Fault
from .serving import Connection, Flow
from .store import Store
from .wire import Response, address, parse

# Asked for by name in the query; answering the plain operation instead would do something else than was asked.
UNSUPPORTED = frozenset(
    [
        "accelerate",
        "acl",
        "analytics",
        "attributes",
        "cors",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "legal-hold",
        "lifecycle",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "renameObject",
        "replication",
        "requestPayment",
        "restore",
        "retention",
        "select",
        "session",
        "tagging",
        "torrent",
        "versions",
        "website",
    ]
)


class Service:
    """Answers requests from a store, for the principals of a key ring.

    `account` is the farm's: what a client gives as the expected owner of a bucket must equal it.
    `note` is told of each request, `complain` of what goes wrong here.
    """

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        account: str,
        region: str,
        note: Callable[[str], None],
        complain: Callable[[str], None],
    ) -> None:
        self.store, self.ring, self.account, self.region = store, ring, account, region
        self.note, self.complain = note, complain

    # -- a connection

    def converse(self, connection: Connection) -> Flow:
        """Answer the requests of one connection, one after the other."""
        while True:
            connection.busy = False
            try:
                head = yield from connection.head()
                if head is None:
                    return
                connection.busy = True
                request = parse(head)
            except (ValueError, Fault) as error:
                bad = (
                    error
                    if isinstance(error, Fault)
                    else Fault("RequestHeaderSectionTooLarge", "The head is too long.")
                )
                response = fault(bad, "/", "0")
                response.close = True
                yield from connection.respond(None, "0", response)
                return
            exchange = Exchange(self.store, self.account, self.region, self.complain, connection, request)
            response = yield from exchange.answered(lambda exchange: operation(exchange, self.ring))
            response.close = response.close or not request.keep_alive or connection.loop.stopping
            try:
                yield from connection.respond(request, request.id, response)
            finally:
                response.release()
            self.note(f"{request.method} {request.path}?{request.raw_query} {response.status}")
            if response.close:
                # Closed with bytes unread, the kernel would send a reset, and the client might lose the response.
                yield from exchange.drained()
                return


def operation(exchange: Exchange, ring: KeyRing) -> Answer:
    request = exchange.request
    address(request)
    exchange.caller = identify(ring, request)
    owner = request.headers.get("x-amz-expected-bucket-owner")
    if owner is not None and owner != exchange.account:
        raise Fault("AccessDenied", "Access Denied: the bucket is not the expected owner's.")
    method, query = request.method, request.query
    if not UNSUPPORTED.isdisjoint(query) or query.get("versionId", "null") != "null":
        if method == "GET" and "tagging" in query and request.key:
            exchange.caller.need(request.bucket, request.key, write=False)
            exchange.object()
            return document("Tagging", "<TagSet></TagSet>")
        raise Fault("NotImplemented", "This server keeps neither versions nor the settings that you ask for.")
    if not request.bucket:
        if method != "GET":
            raise Fault("MethodNotAllowed", "The specified method is not allowed against this resource.")
        return buckets.list_buckets(exchange)
    if request.key:
        return (yield from _on_object(exchange, method, query))
    return (yield from _on_bucket(exchange, method, query))


def _on_bucket(exchange: Exchange, method: str, query: dict[str, str]) -> Answer:
    bucket, caller = exchange.request.bucket, exchange.caller
    if method == "PUT" and not query.keys() - {"x-id"} or method == "PUT" and "X-Amz-Signature" in query:
        return (yield from buckets.create_bucket(exchange))
    exchange.need_bucket()
    if method == "HEAD":
        caller.need_bucket(bucket)
        return Response(headers={"x-amz-bucket-region": exchange.region}, length=0)
    if method == "GET" and "location" in query:
        caller.need_bucket(bucket)
        return document("LocationConstraint", exchange.region)
    if method == "GET" and "versioning" in query:
        caller.need_bucket(bucket)
        return document("VersioningConfiguration", "")
    if method == "GET" and "uploads" in query:
        caller.need(bucket, query.get("prefix", "").encode(), write=False)
        return listing.list_uploads(exchange.store, exchange.request, exchange.account)
    if method == "GET":
        caller.need(bucket, query.get("prefix", "").encode(), write=False)
        return listing.list_objects(exchange.store, exchange.request, exchange.account)
    if method == "POST" and "delete" in query:
        return (yield from buckets.delete_objects(exchange))
    if method == "DELETE" and not query.keys() - {"x-id"}:
        caller.need_admin()
        if not exchange.store.delete_bucket(bucket):
            raise Fault("BucketNotEmpty", "The bucket you tried to delete is not empty.")
        return Response(204)
    raise Fault("MethodNotAllowed", "The specified method is not allowed against this resource.")


def _on_object(exchange: Exchange, method: str, query: dict[str, str]) -> Answer:
    request = exchange.request
    exchange.caller.need(request.bucket, request.key, write=method not in ("GET", "HEAD"))
    exchange.need_bucket()
    if method in ("GET", "HEAD"):
        if "uploadId" in query:
            multipart.upload_of(exchange)
            return listing.list_parts(exchange.store, request, exchange.account)
        return objects.get(exchange)
    if method == "PUT" and "partNumber" in query:
        copied = "x-amz-copy-source" in request.headers
        return (yield from (multipart.copy_part(exchange) if copied else multipart.put_part(exchange)))
    if method == "PUT":
        copied = "x-amz-copy-source" in request.headers
        return (yield from (objects.copy(exchange) if copied else objects.put(exchange)))
    if method == "POST" and "uploads" in query:
        return multipart.create_upload(exchange)
    if method == "POST" and "uploadId" in query:
        return (yield from multipart.complete_upload(exchange))
    if method == "DELETE" and "uploadId" in query:
        exchange.store.drop_upload(multipart.upload_of(exchange).id)
        return Response(204)
    if method == "DELETE":
        exchange.caller.need_admin()
        exchange.check_write()
        exchange.store.forget(request.bucket, request.key)
        return Response(204)
    raise Fault("MethodNotAllowed", "The specified method is not allowed against this resource.")
