"""What a request is told to the external service with, as permissions see it. Pure.

Envoy's gateway writes these headers before it decides, so that ``x-request-id`` is always there, and a caller's own
``x-forwarded-client-cert`` is never all of its value. Decided in docs/decisions/040-permissions.md.
"""

from __future__ import annotations

from proxy.http.message import Headers, RequestHead

CLIENT_CERTIFICATE = b"x-forwarded-client-cert"
REQUEST_ID = b"x-request-id"
FORWARDED_PROTO = b"x-forwarded-proto"
OVER_TLS = (FORWARDED_PROTO, b"https")
"""All callers come over TLS, whatever a ``:scheme`` says."""
ADDED = frozenset({CLIENT_CERTIFICATE, REQUEST_ID, FORWARDED_PROTO})
NOT_PASSED_ON = b"x-envoy-"
"""What sidecars say to each other: timeouts, attempts, retries. It is not for anybody outside the mesh."""


def as_told(head: RequestHead, *, client_certificate: bytes, request_id: bytes) -> RequestHead:
    """``head`` with these headers as they are forwarded (:func:`proxy.http.forward.request_for`).

    :param client_certificate: the gateway's element; empty: none is passed on at all.
    :param request_id: of a request that brought none.
    """
    headers: Headers = [header for header in head.headers if header[0] != CLIENT_CERTIFICATE]
    names = {name for name, _ in headers}
    if FORWARDED_PROTO not in names:
        headers.append(OVER_TLS)
    if REQUEST_ID not in names:
        headers.append((REQUEST_ID, request_id))
    if client_certificate:
        sent = [value for name, value in head.headers if name == CLIENT_CERTIFICATE]
        headers.append((CLIENT_CERTIFICATE, b",".join((*sent, client_certificate))))
    return RequestHead(
        head.method,
        head.target,
        head.authority,
        head.version,
        headers,
        head.length,
        head.has_length,
        head.scheme,
        head.expects_continue,
        head.upgrade,
        head.trailers_wanted,
    )
