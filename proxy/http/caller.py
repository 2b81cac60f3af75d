"""Who asks: the service of the mesh at the other end of a connection, or one of a peer for whom a mesh gateway asks.

A connection of a service has one caller, whom its certificate names. One of a mesh gateway has a caller for each
request: what the gateway says about it (:mod:`proxy.http.forwarded_certificate`) counts because the gateway is of this
cluster's own mesh and terminates TLS of peers' callers. It speaks for services of peers that import the service,
and for nobody of this cluster. What others say in that header is passed on, and never looked at.
"""

from __future__ import annotations

import base64
import functools
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from proxy.http.forward import client_certificate_element
from proxy.http.forwarded_certificate import Unreadable, forwarded_uri
from proxy.live import Source, text_of
from proxy.model import CloseReason
from proxy.policy.decision import Refusal
from proxy.policy.identity import Identity, IdentityError, MeshGateway, parse_spiffe_id

if TYPE_CHECKING:
    from proxy.http.message import Headers
    from proxy.policy.intentions import Policy


@dataclass(frozen=True, slots=True)
class Asker:
    """Who makes one request."""

    identity: Identity
    peer: str
    """The peer that it lives in; empty for this cluster."""
    spiffe_id: str
    text: str
    """``peer:name``"""


class Caller:
    """The other end of one connection."""

    __slots__ = ("_by", "_certificates", "_element", "asker", "gateway", "spiffe_id", "text")

    def __init__(self, source: Source, spiffe_id: str, by: str, certificates: tuple[bytes, ...]) -> None:
        """``by``: the SPIFFE ID of the service that is called; ``certificates``: DER, the caller's own first."""
        identity, peer = source
        self.spiffe_id = spiffe_id
        self.text = text_of(source)
        self.gateway: MeshGateway | None = None
        self.asker: Asker | None = None
        """Who makes all of its requests; ``None`` for a mesh gateway, see :meth:`asker_of`."""
        if isinstance(identity, MeshGateway):
            self.gateway = identity
        else:
            self.asker = Asker(identity, peer, spiffe_id, self.text)
        self._by = by
        self._certificates = certificates
        self._element: bytes | None = None

    def asker_of(self, headers: Headers, policy: Policy) -> Asker | Refusal:
        """Who makes the request with these headers."""
        if self.asker is not None:
            return self.asker
        assert self.gateway is not None
        if objection := policy.objection_to(self.gateway):
            return Refusal(CloseReason.BAD_IDENTITY, None, objection)
        try:
            uri = forwarded_uri(headers, self.spiffe_id)
            identity = parse_spiffe_id(uri)
            peer = policy.importer_of(identity)
        except (Unreadable, IdentityError) as error:
            return Refusal(CloseReason.BAD_IDENTITY, None, str(error))
        return Asker(identity, peer, uri, text_of((identity, peer)))

    def certificate_element(self) -> bytes:
        """Its element of ``x-forwarded-client-cert``."""
        if self._element is None:
            self._element = _element(self._by, self._certificates)
            self._certificates = ()
        return self._element


def _pem(der: bytes) -> str:
    """RFC 7468 section 5."""
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""))


@functools.lru_cache(maxsize=1_024)
def _element(by: str, certificates: tuple[bytes, ...]) -> bytes:
    """A sidecar shows the same certificates on all of its connections."""
    leaf = x509.load_der_x509_certificate(certificates[0])
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
        dns_names = tuple(names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        uris = dns_names = ()
    return client_certificate_element(
        by=by,
        leaf_der=certificates[0],
        # Not parsed: what a caller shows beside its own certificate may be anything that OpenSSL passes over.
        chain_pem=tuple(map(_pem, certificates)),
        subject=leaf.subject.rfc4514_string(),
        uris=uris,
        names=dns_names,
    )
