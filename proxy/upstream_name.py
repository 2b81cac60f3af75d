"""Is this the server that the link's ``SNI`` names? Certificates in, a verdict out; sessions are ``tls.py``'s."""

from __future__ import annotations

import ipaddress

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity

from proxy.errors import UpstreamError
from proxy.model import CloseReason


def check_name(certificate: x509.Certificate, expected: str) -> None:
    """Check ``expected`` (a DNS name, an IP address or a URI) against the SANs, by RFC 9525; never the CN.

    :raises UpstreamError: names what was expected and what was presented.
    """
    if "://" in expected:
        if expected in _san_texts(certificate):
            return
    else:
        try:
            wanted = IPAddress_ID(expected) if is_ip_address(expected) else DNS_ID(expected)
            verify_service_identity(extract_patterns(certificate), obligatory_ids=[wanted], optional_ids=[])
        except (VerificationError, CertificateError, ValueError):
            pass
        else:
            return
    presented = ", ".join(_san_texts(certificate)) or "no subject alternative name"
    raise UpstreamError(
        CloseReason.UPSTREAM_TLS_FAILED,
        f"the external service's certificate is not for {expected!r} (the link's SNI); it presents {presented}",
    )


def _san_texts(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(getattr(name, "value", "")) for name in names]


def is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
