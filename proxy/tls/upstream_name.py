"""Is this the server that the link's ``SNI`` names? Certificates in, a verdict out; sessions are ``session.py``'s."""

from __future__ import annotations

import ipaddress

from cryptography import x509
from cryptography.x509.oid import NameOID
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity

from proxy.errors import UpstreamError
from proxy.model import CloseReason
from proxy.tls.unreadable import UNREADABLE

_NAMES_TOLD = 20
"""Of a certificate with hundreds of names; a line of the log is to stay readable."""


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
        except (VerificationError, CertificateError, *UNREADABLE):
            pass
        else:
            return
    raise UpstreamError(
        CloseReason.UPSTREAM_TLS_FAILED,
        f"the external service's certificate is not for {expected!r} (the link's SNI); it presents "
        f"{_presented(certificate)}",
    )


def server_name_of(expected: str) -> str:
    """What is sent as server name for a link's ``SNI``; empty for what is no DNS name (RFC 6066, section 3)."""
    return "" if "://" in expected or is_ip_address(expected) else expected


def _presented(certificate: x509.Certificate) -> str:
    if names := _san_texts(certificate):
        more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
        return ", ".join(names[:_NAMES_TOLD]) + more
    try:
        common_names = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except UNREADABLE:
        common_names = []
    ignored = f" (its common name {common_names[0]!r} does not count, RFC 9525)" if common_names else ""
    return f"no subject alternative name{ignored}"


def _san_texts(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return []
    return [str(getattr(name, "value", "")) for name in names]


def is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
