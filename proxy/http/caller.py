"""Who asks, on one connection: an identity of the mesh, and the certificate that proved it."""

from __future__ import annotations

import base64
import functools
import textwrap

from cryptography import x509

from proxy.http.forward import client_certificate_element
from proxy.policy.identity import Identity


class Caller:
    __slots__ = ("_by", "_certificates", "_element", "identity", "peer")

    def __init__(self, identity: Identity, peer: str, by: str, certificates: tuple[bytes, ...]) -> None:
        """``by``: the SPIFFE ID of the service that is called; ``certificates``: DER, the caller's own first."""
        self.identity = identity
        self.peer = peer
        self._by = by
        self._certificates = certificates
        self._element: bytes | None = None

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
