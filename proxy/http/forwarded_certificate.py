"""``x-forwarded-client-cert`` as a mesh gateway writes it: whose certificate it saw.

Envoy's ``SANITIZE_SET``: one line, one element, put together by the gateway alone. Anything else was not written so and
says nothing about who is calling. In an element, a caller chose its DNS names and its subject; with a second ``URI``, a
second element or a quotation that ends otherwise than it seems to, one of them would be speaking.
Grammar: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers
"""

from __future__ import annotations

import functools
import re

from proxy.http.message import Headers
from proxy.http.policy.told import CLIENT_CERTIFICATE

_PLAIN = rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
"""Visible ASCII without what separates or quotes."""
_QUOTED = rb'"[\x20\x21\x23-\x5b\x5d-\x7e]*(?:\\[\x20-\x7e][\x20\x21\x23-\x5b\x5d-\x7e]*)*"'
_FIELD = rb"(By|Hash|Cert|Chain|Subject|URI|DNS)=(" + _QUOTED + rb"|" + _PLAIN + rb")"
_FIRST, _NEXT = re.compile(_FIELD), re.compile(rb";" + _FIELD)


class Unreadable(Exception):
    """Why nobody can say who is calling."""


def forwarded_uri(headers: Headers, gateway: str) -> str:
    """The SPIFFE ID of the caller.

    :param gateway: the SPIFFE ID of the mesh gateway that sends the request: it has to be the one that wrote this.
    :raises Unreadable: when there is not exactly one, in the form that such a gateway writes.
    """
    lines = [value for name, value in headers if name == CLIENT_CERTIFICATE]
    if len(lines) != 1:
        found = f"{len(lines)} lines of" if lines else "no"
        raise Unreadable(f"the mesh gateway sent {found} x-forwarded-client-cert; exactly one says who is calling")
    return _uri_of(lines[0], gateway.encode())


@functools.lru_cache(maxsize=512)
def _uri_of(line: bytes, gateway: bytes) -> str:
    """A caller has the same certificate, and with it the same line, until its leaf is renewed."""
    fields = _fields(line)
    if fields.get(b"By") != [gateway]:
        raise Unreadable("the x-forwarded-client-cert of the mesh gateway was not written by it: By names another")
    uris = fields.get(b"URI", [])
    if len(uris) != 1:
        found = f"{len(uris)} URIs" if uris else "no URI"
        raise Unreadable(f"the mesh gateway's x-forwarded-client-cert has {found}; exactly one says who is calling")
    return uris[0].decode("ascii")


def _fields(line: bytes) -> dict[bytes, list[bytes]]:
    """Of the one element: what is written under each key, quotation marks included."""
    fields: dict[bytes, list[bytes]] = {}
    match = _FIRST.match(line)
    while match is not None:
        fields.setdefault(match[1], []).append(match[2])
        if match.end() == len(line):
            return fields
        match = _NEXT.match(line, match.end())
    raise Unreadable("the mesh gateway sent an x-forwarded-client-cert that is not one element as Envoy writes it")
