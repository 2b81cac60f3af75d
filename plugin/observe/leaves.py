"""Turns Consul's leaf certificates into what workers serve, and says when to ask for the next one. Pure.

Consul's chain is not always in order and may hold a certificate twice (in a secondary datacenter), and issuer or
subject may be empty: certificates are put in order by their key identifiers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from plugin.consul.api import LeafCertificate, Roots
from plugin.errors import ConsulUnavailable
from proxy.model import Leaf
from proxy.policy.identity import IdentityError, parse_spiffe_id

_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate and its extensions raises."""

RENEW_FROM = 0.60
RENEW_UNTIL = 0.75
"""The part of a leaf's life in which the gateway first asks for the next one."""
RECHECK = 0.03
"""Part of a leaf's life between two questions after that: the agent itself picks the moment between 60 and 90 %."""
MINIMUM_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class KnownLeaf:
    """A leaf with what is needed to replace it."""

    leaf: Leaf = field(repr=False)
    authority_key_id: str
    """``aa:bb:...``, as ``Roots`` spells ``SigningKeyID``; empty when the certificate has none."""
    index: int

    def signed_by_active(self, roots: Roots | None) -> bool:
        """False when Consul has turned to another signing key since: the agent has, or soon will have, a new leaf."""
        active = [root for root in (roots.roots or () if roots else ()) if root.active]
        if not active or not active[0].signing_key_id or not self.authority_key_id:
            return True
        return active[0].signing_key_id.lower() == self.authority_key_id

    def renewal_due_s(self, fraction: float) -> float:
        """Unix time, seconds, at ``fraction`` (0 to 1) between the earliest and the latest first question."""
        life_s = self.leaf.not_after_s - self.leaf.not_before_s
        return self.leaf.not_before_s + life_s * (RENEW_FROM + (RENEW_UNTIL - RENEW_FROM) * fraction)

    def recheck_s(self) -> float:
        return max(MINIMUM_PAUSE_S, (self.leaf.not_after_s - self.leaf.not_before_s) * RECHECK)


def convert(answer: LeafCertificate, *, index: int, now_s: float) -> KnownLeaf:
    """:raises ConsulUnavailable: when it cannot be served: unreadable, without its key, of another service, expired."""
    try:
        certificates = x509.load_pem_x509_certificates(answer.cert_pem.encode())
        key = load_pem_private_key(answer.private_key_pem.encode(), password=None)
        leaf = certificates[0]
        uris = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        )
    except (x509.ExtensionNotFound, *_UNREADABLE) as error:
        # The text of the error is left out: it may quote what was parsed.
        raise _unusable(answer, f"it cannot be read ({type(error).__name__})") from None
    if uris != [answer.service_uri]:
        raise _unusable(answer, f"it names {uris}, not {answer.service_uri}")
    try:
        parse_spiffe_id(answer.service_uri)
    except IdentityError as error:
        raise _unusable(answer, str(error)) from error
    encoding = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*encoding) != leaf.public_key().public_bytes(*encoding):
        raise _unusable(answer, "its private key is that of another certificate")
    if leaf.not_valid_after_utc.timestamp() <= now_s:
        raise _unusable(answer, f"it expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%SZ}; compare the clocks")
    return KnownLeaf(
        leaf=Leaf(
            certificate_chain_pem="".join(_pem(certificate) for certificate in _in_chain_order(certificates)),
            private_key_pem=answer.private_key_pem,
            spiffe_id=answer.service_uri,
            serial_number=answer.serial_number,
            not_before_s=leaf.not_valid_before_utc.timestamp(),
            not_after_s=leaf.not_valid_after_utc.timestamp(),
        ),
        authority_key_id=_authority_key(leaf).hex(":"),
        index=index,
    )


def _unusable(answer: LeafCertificate, why: str) -> ConsulUnavailable:
    return ConsulUnavailable(f"the leaf certificate of {answer.service} from Consul cannot be served: {why}")


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _in_chain_order(certificates: list[x509.Certificate]) -> list[x509.Certificate]:
    """The leaf, the chain of its issuers, then what does not hang together with it, each once."""
    chain = certificates[:1]
    rest = [certificate for certificate in dict.fromkeys(certificates) if certificate != chain[0]]
    while rest:
        wanted = _authority_key(chain[-1])
        issuer = next((each for each in rest if wanted and _subject_key(each) == wanted), rest[0])
        rest.remove(issuer)
        chain.append(issuer)
    return chain


def _subject_key(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return b""


def _authority_key(certificate: x509.Certificate) -> bytes:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return b""
    return extension.value.key_identifier or b""
