"""The request that is asked about, as the data plane would have it before it decides. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from plugin.errors import ConfigError
from plugin.explain.caller import Caller
from proxy.http.message import Headers, RequestHead, Version
from proxy.http.policy.normalization import acceptable, normalized
from proxy.http.policy.told import as_told
from proxy.model import Mesh, Service
from proxy.policy.intentions import Policy
from proxy.rules import Normalization

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 section 5.6.2."""
_NOT_IN_VALUES = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = frozenset({b"connection", b"content-length", b"keep-alive", b"proxy-connection", b"transfer-encoding"})
"""Not part of the request that a server gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    source: str
    destination: str
    method: str = ""
    """Empty: GET."""
    path: str = ""
    """With the query. Empty: ``/``."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """May hold tokens: never shown."""


def question(source: str, destination: str, method: str, path: str, headers: Iterable[str]) -> Question:
    """``headers`` are ``name: value``. :raises ConfigError: when one of them can be in no request."""
    if method and not _TOKEN.fullmatch(method):
        raise ConfigError(f"{method!r} is no method of HTTP")
    return Question(
        source=source, destination=destination, method=method, path=path, headers=tuple(map(header, headers))
    )


def header(text: str) -> tuple[str, str]:
    """:raises ConfigError: when it is not ``name: value``."""
    name, colon, value = text.partition(":")
    if not colon or not _TOKEN.fullmatch(name) or _NOT_IN_VALUES.search(value):
        # Not the value: it may be a secret.
        raise ConfigError(f"the header {name[:40]!r} is not written as 'name: value'")
    return name.lower(), value.strip(" \t")


def as_decided(policy: Policy, service: Service, mesh: Mesh, who: Caller, head: RequestHead) -> RequestHead:
    """As :func:`proxy.http.policy.told.as_told`. Of the caller's certificate nothing is known here but its name."""
    if not policy.sees_what_is_added:
        return head
    element = f"By={service.leaf.spiffe_id};URI={who.spiffe_id}".encode()
    return as_told(
        head,
        client_certificate=b"" if mesh.sanitize_client_cert_header else element,
        request_id=b"00000000-0000-4000-8000-000000000000",
    )


def head_of(asked: Question, how: Normalization) -> RequestHead:
    """The head that is decided about.

    :raises proxy.http.errors.BadRequest: when the gateway would refuse it before policy is asked.
    :raises proxy.http.policy.normalization.Elsewhere: when the client would be sent elsewhere.
    """
    given: Headers = [(name.encode(), value.encode("utf-8")) for name, value in asked.headers]
    authority = next((value for name, value in given if name == b"host"), asked.destination.encode())
    head = RequestHead(
        (asked.method or "GET").encode(),
        normalized((asked.path or "/").encode(), how),
        authority,
        Version.HTTP_1_1,
        acceptable(
            [one for one in given if one[0] not in _FRAMING and one[0] not in (b"host", b"te", b"upgrade")],
            how.underscores,
        ),
    )
    for name, value in given:
        if name == b"content-length" and value.isdigit():
            head.length, head.has_length = int(value), True
        elif name == b"upgrade":
            head.upgrade = value
        elif name == b"te":
            head.trailers_wanted = value == b"trailers"
    return head
