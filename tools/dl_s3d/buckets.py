"""Operations on buckets, and on many objects of one."""

from __future__ import annotations

from re import compile as pattern

from . import listing
from .documents import document, element, time_text
from .exchange import Answer, Exchange
from .faults import Fault
from .wire import Response

BUCKET_NAME = pattern(r"(?!xn--|\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def list_buckets(exchange: Exchange) -> Response:
    exchange.caller.need_admin()
    account = exchange.account
    rows = "".join(
        f"<Bucket>{element('Name', name)}{element('CreationDate', time_text(created))}</Bucket>"
        for name, created in exchange.store.buckets()
    )
    owner = f"<Owner>{element('ID', account)}{element('DisplayName', account)}</Owner>"
    return document("ListAllMyBucketsResult", f"{owner}<Buckets>{rows}</Buckets>")


def create_bucket(exchange: Exchange) -> Answer:
    exchange.caller.need_admin()
    name = exchange.request.bucket
    if not BUCKET_NAME.fullmatch(name) or ".." in name:
        raise Fault("InvalidBucketName", "The specified bucket is not valid.", BucketName=name)
    if exchange.left:
        yield from exchange.document("CreateBucketConfiguration")
    if not exchange.store.create_bucket(name):
        raise Fault(
            "BucketAlreadyOwnedByYou",
            "Your previous request to create the named bucket succeeded and you already own it.",
            BucketName=name,
        )
    return Response(headers={"Location": f"/{name}"})


def delete_objects(exchange: Exchange) -> Answer:
    exchange.caller.need_admin()
    tree = yield from exchange.document("Delete")
    keys = [each.findtext("Key") or "" for each in tree.findall("Object")]
    if not keys or len(keys) > listing.PAGE or "" in keys:
        raise Fault("MalformedXML", "A Delete document names 1 to 1000 keys.")
    for key in keys:
        exchange.store.forget(exchange.request.bucket, key.encode())
    quiet = tree.findtext("Quiet") == "true"
    shown = "" if quiet else "".join(f"<Deleted>{element('Key', key)}</Deleted>" for key in keys)
    return document("DeleteResult", shown)
