"""The XML that S3 speaks: written by hand, read with a limit.

Source: Amazon S3 API reference; shapes and member names as in botocore's s3 model.
"""

from __future__ import annotations

from re import compile as pattern
from time import gmtime, strftime
from urllib.parse import quote
from xml.etree import ElementTree

from .faults import Fault
from .wire import Response

HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
SPECIAL = pattern('[&<>"\\x00-\\x1f\\x7f]')
NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def escaped(text: str) -> str:
    """Text for an element; control characters as S3 writes them, which is by number."""
    return SPECIAL.sub(lambda match: NAMED.get(match[0]) or f"&#x{ord(match[0]):X};", text)


def element(name: str, value: object) -> str:
    return f"<{name}>{escaped(str(value))}</{name}>"


def document(name: str, content: str, status: int = 200) -> Response:
    body = f"{HEADER}<{name}{NAMESPACE}>{content}</{name}>".encode()
    return Response(status, {"Content-Type": "application/xml"}, body)


def fault(error: Fault, resource: str, request_id: str) -> Response:
    """The document of an error."""
    if error.status == 304:
        return Response(304)
    details = "".join(element(name, value) for name, value in error.details.items())
    body = (
        f"{HEADER}<Error>{element('Code', error.code)}{element('Message', error.message)}{details}"
        f"{element('Resource', resource)}{element('RequestId', request_id)}</Error>"
    )
    return Response(error.status, {"Content-Type": "application/xml"}, body.encode())


def time_text(milliseconds: int) -> str:
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(milliseconds // 1000))}.{milliseconds % 1000:03d}Z"


def key_text(key: bytes, encoding: str | None) -> str:
    """A key, URL-encoded if the request asked for that."""
    text = key.decode()
    return quote(text, safe="/*-._~") if encoding == "url" else text


def parsed(body: bytes, root: str) -> ElementTree.Element:
    """The document of a request, its names without namespaces.

    Raises: Fault.
    """
    try:
        if b"<!DOCTYPE" in body:
            raise ValueError
        tree = ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError):
        raise Fault("MalformedXML", "The XML you provided was not well-formed.") from None
    for each in tree.iter():
        each.tag = each.tag.rpartition("}")[2]
    if tree.tag != root:
        raise Fault("MalformedXML", f"The XML you provided is not a {root} document.")
    return tree
