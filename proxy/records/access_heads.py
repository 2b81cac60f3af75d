"""Headers of a request and of its response, as the operators ``REQ``, ``RESP`` and ``REQ_WITHOUT_QUERY`` name them.

``NAME`` or ``NAME?OTHER``: the other one stands in for the first; ``:METHOD``, ``:PATH``, ``:AUTHORITY``, ``:SCHEME``
are not headers but parts of the request. Of a header that is repeated the first value counts, as in Envoy.
"""

from __future__ import annotations

from typing import Protocol

from proxy.http.message import Headers, RequestHead, ResponseHead
from proxy.records.access_record import AccessRecord

_SERVICE_TIME = b"x-envoy-upstream-service-time"
"""Envoy adds it to responses, and its formats read the time from there."""
_REQUEST_ID = b"x-request-id"


class Heads(Protocol):
    """Of one exchange."""

    head: RequestHead
    """As it came."""
    response: ResponseHead | None
    """As it was answered."""


def request_value(names: str, record: AccessRecord, heads: Heads | None, *, query: bool = True) -> str | None:
    if heads is None:
        return None
    for name in _alternatives(names):
        value = _of_request(name, record, heads.head)
        if value is not None:
            return value if query or name != b":path" else value.partition("?")[0]
    return None


def response_value(names: str, record: AccessRecord, heads: Heads | None) -> str | int | None:
    if heads is None or heads.response is None:
        return None
    for name in _alternatives(names):
        if name == _SERVICE_TIME and record.upstream_ms:
            return int(record.upstream_ms)
        value = _first(heads.response.headers, name)
        if value is None and name == b"content-length" and heads.response.announced_length is not None:
            return heads.response.announced_length
        if value is not None:
            return value
    return None


def _alternatives(names: str) -> list[bytes]:
    return [name.lower().encode() for name in names.split("?")[:2]]


def _of_request(name: bytes, record: AccessRecord, head: RequestHead) -> str | None:
    if name == b":method":
        return head.method.decode("latin-1")
    if name == b":path":
        return head.target.decode("latin-1")
    if name in (b":authority", b"host"):
        return head.authority.decode("latin-1")
    if name == b":scheme":
        return head.scheme.decode("latin-1")
    if name == _REQUEST_ID and record.request_id:
        return record.request_id
    return _first(head.headers, name)


def _first(headers: Headers, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in headers if key == name), None)
