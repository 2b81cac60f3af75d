"""SPIFFE IDs of Consul's mesh: from the URI of a client certificate to the service that it names.

Pure text: whether the certificate is genuine was decided before. Parsing is strict, because two readers that
understand one URI differently are how a policy is passed: a URI is either exactly what Consul writes, or refused.
Only a service may call a linked service; Consul's other identities have an error of their own, which says what
they are. A mesh gateway may carry the requests of peers' services (:mod:`proxy.http.caller`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import quote, unquote_to_bytes

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """One service of a mesh."""

    trust_domain: str
    """Lower case."""
    service: str
    namespace: str = "default"
    partition: str = "default"
    datacenter: str = ""
    """Where the certificate was issued; no decision uses it."""


class MeshGateway(msgspec.Struct, frozen=True):
    """A mesh gateway. It calls for others, and never for itself."""

    trust_domain: str
    """Lower case."""
    datacenter: str
    partition: str = "default"


class IdentityError(Exception):
    """The certificate does not name exactly one service. The text quotes what it names instead."""


class NotAService(IdentityError):
    """A genuine Consul identity, but not that of a service. ``kind`` says which."""

    def __init__(self, kind: str, uri: str) -> None:
        super().__init__(f"{uri!r} is the identity of a {kind}, and only services may connect")
        self.kind = kind


_MAX_URI = 2_048
"""Bytes: the longest SPIFFE ID (SPIFFE-ID specification, section 2.3)."""

_URI = re.compile(r"spiffe://(?P<trust_domain>[a-z0-9._-]+)(?P<path>(?:/[^/?#]+)*)", re.ASCII)
_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_UNENCODED = "$&+,:;=@"
"""Beside letters, digits and ``-._~``: what Go leaves as it is in the segment of a path."""
_DEFAULT = "default"
_SERVICE = re.compile(
    r"(?:/ap/(?P<partition>[^/%]+))?/ns/(?P<namespace>[^/%]+)/dc/(?P<datacenter>[^/]+)/svc/(?P<service>[^/]+)"
)
_MESH_GATEWAY = re.compile(r"(?:/ap/(?P<partition>[^/%]+))?/gateway/mesh/dc/(?P<datacenter>[^/]+)")
_OTHER_KINDS = {
    "Consul client agent": re.compile(r"(?:/ap/[^/]+)?/agent/client/dc/[^/]+/id/[^/]+"),
    "Consul server": re.compile(r"/agent/server/dc/[^/]+"),
    "mesh gateway": _MESH_GATEWAY,
    "certificate authority": re.compile(r""),
}


def parse_spiffe_id(uri: str) -> Identity:
    """Return the service that ``uri`` names.

    The path is matched while still percent-encoded and its segments are decoded afterwards. A name has one encoding
    only, that of Consul (Go's ``url.URL``), and none has a slash. Consul writes the trust domain in lower case and
    leaves the default partition out. The letter case of a namespace and a partition is not significant to it: here
    they are lower case.

    :raises NotAService: for the URI of an agent, a server, a mesh gateway or an authority.
    :raises IdentityError: for anything else.
    """
    trust_domain, path = _parts(uri)
    match = _SERVICE.fullmatch(path)
    if match is None:
        _refuse(uri, path)
    return Identity(
        trust_domain=trust_domain,
        service=_decoded(match["service"], uri),
        namespace=_decoded(match["namespace"], uri).lower(),
        partition=_partition(match["partition"], uri),
        datacenter=_decoded(match["datacenter"], uri),
    )


def identity_of(san_uris: Sequence[str]) -> Identity:
    """Return the one service that a certificate with these URI names stands for.

    :raises IdentityError: when it names none, or more than one thing: then nobody can say who is calling.
    """
    return parse_spiffe_id(_only(san_uris))


def caller_of(san_uris: Sequence[str]) -> Identity | MeshGateway:
    """As :func:`identity_of`, and a mesh gateway, too: what it may do is for the policy of a service to say."""
    uri = _only(san_uris)
    try:
        return parse_spiffe_id(uri)
    except NotAService:
        trust_domain, path = _parts(uri)
        match = _MESH_GATEWAY.fullmatch(path)
        if match is None:
            raise
        return MeshGateway(trust_domain, _decoded(match["datacenter"], uri), _partition(match["partition"], uri))


cached_caller_of = functools.lru_cache(maxsize=4_096)(caller_of)
"""As :func:`caller_of`, which is pure: callers come back with the certificate they had."""


def _only(san_uris: Sequence[str]) -> str:
    if len(san_uris) != 1:
        found = "no URI" if not san_uris else f"{len(san_uris)} URIs ({', '.join(map(repr, san_uris))})"
        raise IdentityError(f"the certificate has {found} among its names; exactly one SPIFFE ID is needed")
    return san_uris[0]


def _parts(uri: str) -> tuple[str, str]:
    """Trust domain and path, the latter still percent-encoded."""
    if len(uri.encode("utf-8", "replace")) > _MAX_URI:
        raise IdentityError(f"a SPIFFE ID has at most {_MAX_URI} bytes; this one starts with {uri[:80]!r}")
    parts = _URI.fullmatch(uri)
    if parts is None or _CHARACTERS.fullmatch(parts["path"]) is None:
        raise IdentityError(f"{uri!r} is not a SPIFFE ID: spiffe://trust-domain/path and nothing else")
    return parts["trust_domain"], parts["path"]


def _refuse(uri: str, path: str) -> NoReturn:
    for kind, pattern in _OTHER_KINDS.items():
        if pattern.fullmatch(path):
            raise NotAService(kind, uri)
    raise IdentityError(f"{uri!r} is not the SPIFFE ID of a service: .../ns/NAMESPACE/dc/DATACENTER/svc/SERVICE")


def _partition(segment: str | None, uri: str) -> str:
    if segment is None:
        return _DEFAULT
    partition = _decoded(segment, uri).lower()
    if partition == _DEFAULT:
        raise IdentityError(f"{uri!r} names the default partition, which Consul leaves out")
    return partition


def _decoded(segment: str, uri: str) -> str:
    try:
        text = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError as error:
        raise IdentityError(f"{uri!r} has a percent-encoded segment that is not UTF-8") from error
    if any(character < " " or character == "\x7f" for character in text):
        raise IdentityError(f"{uri!r} has a control character in a name")
    if quote(text, safe=_UNENCODED) != segment or "/" in text:
        raise IdentityError(f"{uri!r} has a name that Consul encodes otherwise: {quote(text, safe=_UNENCODED)!r}")
    if text in {"*", ".", ".."}:
        raise IdentityError(f"{uri!r} has the segment {text!r}, which is no name")
    return text
