"""What is said to the external service, and back to the client: the heads of messages, written anew.

Pure. What is for one connection alone (RFC 9110 section 7.6.1) and the framing have been taken out by the parsers;
here is what a gateway of the mesh adds, changes and takes out, as Envoy's gateway does where that is of use to the
external service. W3C trace context (``traceparent``, ``tracestate``, ``baggage``) passes untouched.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import re
import time

from proxy.http.message import Header, Headers, RequestHead, ResponseHead
from proxy.http.policy.tokens import Accepted
from proxy.http.policy.told import CLIENT_CERTIFICATE, FORWARDED_PROTO, NOT_PASSED_ON, OVER_TLS, REQUEST_ID

_WRITTEN_HERE = frozenset({CLIENT_CERTIFICATE})
"""Whoever may forge one of these is somebody else: also with underscores, which many servers take for dashes."""

_DNS_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?", re.ASCII)
_SEPARATORS = re.compile(r"[,;=\"\\\x00-\x20\x7f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URL_ENCODED = str.maketrans({"\n": "%0A", " ": "%20", "+": "%2B", "/": "%2F", "=": "%3D"})
"""Of PEM text in a header, as Envoy encodes it."""


def client_certificate_element(
    *, by: str, leaf_der: bytes, chain_pem: tuple[str, ...], subject: str, uris: tuple[str, ...], names: tuple[str, ...]
) -> bytes:
    """One element of ``x-forwarded-client-cert``, as Envoy's ``APPEND_FORWARD`` writes it.

    :param by: the SPIFFE ID of the linked service, whose certificate the gateway showed.
    :param leaf_der: the caller's certificate; ``chain_pem`` begins with it.
    :param subject: RFC 2253.
    :param names: DNS names of the caller's certificate. The caller chose them: what is none is left out, so that nobody
        writes a field, an element or a header of his own.
    """
    fields = [f"By={_value(by)}", f"Hash={hashlib.sha256(leaf_der).hexdigest()}"]
    if chain_pem:
        fields.append(f'Cert="{chain_pem[0].translate(_URL_ENCODED)}"')
        fields.append(f'Chain="{"".join(chain_pem).translate(_URL_ENCODED)}"')
    fields.append(f"Subject={_quoted(subject)}")
    fields.extend(f"URI={_value(uri)}" for uri in uris)
    fields.extend(f"DNS={name}" for name in names if _DNS_NAME.fullmatch(name))
    return ";".join(fields).encode("ascii", "backslashreplace")


def _value(text: str) -> str:
    """As the element's grammar wants it: quoted, if it holds what separates fields or elements."""
    return _quoted(text) if _SEPARATORS.search(text) else text


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    # As RFC 4514 section 2.4 writes any character; a line break would begin another header.
    return '"' + _CONTROL.sub(lambda found: f"\\\\{ord(found[0]):02X}", escaped) + '"'


_DRAWN_AT_ONCE = 64
_RANDOM = re.compile(rb"(.{8})(.{4}).(.{3})(.)(.{3})(.{12})")
_VARIANTS = {b"%x" % digit: b"%x" % (digit & 0x3 | 0x8) for digit in range(16)}
_drawn: list[tuple[bytes, ...]] = []
"""Random digits of the next ones."""


def new_request_id() -> bytes:
    """A random UUID (RFC 9562 section 5.4)."""
    if not _drawn:
        # One call of the system for many: it costs more than all the rest.
        _drawn.extend(_RANDOM.findall(os.urandom(_DRAWN_AT_ONCE * 16).hex().encode()))
    first, second, third, variant, fourth, last = _drawn.pop()
    return b"%b-%b-4%b-%b%b-%b" % (first, second, third, _VARIANTS[variant], fourth, last)


def request_for(
    head: RequestHead,
    *,
    authority: bytes,
    client_certificate: bytes,
    request_id: bytes,
    scheme: bytes,
    tokens: Accepted | None,
    reserved: frozenset[bytes] = frozenset(),
) -> RequestHead:
    """What the external service is asked. The target stays: exactly this was decided about.

    :param client_certificate: the element that is appended to what the client sent; empty: none is passed on at all.
    :param request_id: of a request that brought none.
    :param scheme: of the connection to the external service.
    :param tokens: that the request brought, and that were asked for.
    :param reserved: names that only the gateway writes (:attr:`proxy.policy.intentions.Policy.reserved_headers`).
    """
    headers: Headers = []
    certificates: list[bytes] = []
    has_id = has_proto = False
    removed = reserved if tokens is None else reserved | tokens.removed
    for header in head.headers:
        name = header[0]
        if name in removed:
            continue
        if b"_" in name and _dashed(name) in _WRITTEN_HERE | removed:
            continue
        if name.startswith(b"x-"):
            if name == CLIENT_CERTIFICATE:
                certificates.append(header[1])
                continue
            if name.startswith(NOT_PASSED_ON):
                continue
            if name == REQUEST_ID:
                has_id = True
            elif name == FORWARDED_PROTO:
                has_proto = True
        headers.append(header)
    if not has_proto:
        headers.append(OVER_TLS)
    if not has_id:
        headers.append((REQUEST_ID, request_id))
    if client_certificate:
        headers.append((CLIENT_CERTIFICATE, b",".join((*certificates, client_certificate))))
    if tokens is not None:
        headers += tokens.added
    return RequestHead(  # a fifth of what dataclasses.replace costs
        head.method,
        head.target,
        authority,
        head.version,
        headers,
        head.length,
        head.has_length,
        scheme,
        head.expects_continue,
        head.upgrade,
        head.trailers_wanted,
    )


def trailers_of_request(trailers: Headers, unwanted: frozenset[bytes]) -> Headers:
    """Without what :func:`request_for` writes or takes out, and without those ``unwanted``, however they are spelled:
    some servers put trailers among the headers."""
    unwanted = frozenset(map(_dashed, unwanted | _WRITTEN_HERE))
    return [trailer for trailer in trailers if _dashed(trailer[0]) not in unwanted]


def _dashed(name: bytes) -> bytes:
    return name.replace(b"_", b"-")


def response_for(head: ResponseHead, cookies: Headers) -> ResponseHead:
    """What the client is answered. ``date`` is added where it is missing (RFC 9110 section 6.6.1).

    :param cookies: that are set beside those of the external service.
    """
    added = [*cookies, date()]
    for name, _ in head.headers:
        if name == b"date":
            added = cookies
            break
    if not added:
        return head
    return ResponseHead(
        head.status,
        [*head.headers, *added],
        head.length,
        head.announced_length,
        head.reason,
        head.version,
        head.upgrade,
    )


_date: tuple[int, Header] = (0, (b"date", b""))


def date() -> Header:
    """Now, as a header."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = now, (b"date", email.utils.formatdate(now, usegmt=True).encode())
    return _date[1]
