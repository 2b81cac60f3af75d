"""A throwaway certificate authority: server and client certificates, mesh leaves, and the bad ones tests need.

Everything is EC P-256 and lives in memory; ``write`` is for programs that only read files.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)
_CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its key, PEM."""

    certificate_pem: str
    """The leaf first, then the intermediates of its authority, if any."""
    private_key_pem: str

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """The paths of ``NAME.pem`` and ``NAME.key`` in ``folder``; the key is for its owner alone."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_text(self.certificate_pem)
        key.touch(mode=0o600)
        key.write_text(self.private_key_pem)
        return certificate, key


class Authority:
    """A CA. With a ``parent`` it is an intermediate, and what it issues comes with the chain."""

    def __init__(self, name: str = "Throwaway CA", *, parent: Authority | None = None, trust_domain: str = "") -> None:
        """``trust_domain`` makes it a mesh CA: its certificate carries the URI ``spiffe://TRUST-DOMAIN``."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._parent = parent
        issuer = parent or self
        builder = (
            _builder(self._name, issuer._name, self._key.public_key(), 365 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_authority_key(issuer._key), critical=False)
        )
        if trust_domain:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")])
            builder = builder.add_extension(names, critical=False)
        self.certificate_pem = _pem(builder.sign(issuer._key, hashes.SHA256()))

    @property
    def private_key_pem(self) -> str:
        """For a Consul that is to sign with it (``connect ca set-config``)."""
        return _key_pem(self._key)

    @property
    def chain_pem(self) -> str:
        """The intermediates that a peer needs to get from a leaf to the root; empty for a root."""
        return "" if self._parent is None else self.certificate_pem + self._parent.chain_pem

    def write(self, folder: Path, name: str) -> Path:
        """The path of ``NAME.pem`` in ``folder``, which holds the CA's certificate."""
        path = folder / f"{name}.pem"
        path.write_text(self.certificate_pem)
        return path

    def server(self, *names: str, valid: datetime.timedelta = 30 * _DAY) -> KeyPair:
        """For a server with these SANs, each a DNS name, an IP address or a URI."""
        return self._issue(names[0] if names else "server", names, [ExtendedKeyUsageOID.SERVER_AUTH], valid)

    def client(self, name: str, *names: str, valid: datetime.timedelta = 30 * _DAY) -> KeyPair:
        """For a client whose common name is ``name``, with these SANs."""
        return self._issue(name, names, [ExtendedKeyUsageOID.CLIENT_AUTH], valid)

    def expired(self, *names: str) -> KeyPair:
        """As :meth:`server`, a day too old."""
        return self.server(*names, valid=-_DAY)

    def leaf(
        self,
        trust_domain: str,
        service: str,
        *,
        datacenter: str = "dc1",
        namespace: str = "default",
        partition: str = "default",
        valid: datetime.timedelta = 3 * _DAY,
    ) -> KeyPair:
        """A leaf of a mesh, as Consul names services: one SPIFFE ID as its only SAN."""
        path = f"/ns/{namespace}/dc/{datacenter}/svc/{service}"
        if partition != "default":
            path = f"/ap/{partition}{path}"
        return self.identity(f"spiffe://{trust_domain}{path}", valid=valid)

    def identity(self, *uris: str, valid: datetime.timedelta = 3 * _DAY) -> KeyPair:
        """A mesh certificate with exactly these URIs as its SANs: none and several are of use in tests."""
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        return self._issue("", uris, usages, valid)

    def _issue(
        self, subject: str, names: Sequence[str], usages: list[x509.ObjectIdentifier], valid: datetime.timedelta
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(subject), self._name, key.public_key(), valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_authority_key(self._key), critical=False)
        )
        if names:
            # RFC 5280 4.2.1.6: critical when the subject is empty.
            alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
            builder = builder.add_extension(alternatives, critical=not subject)
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(_pem(certificate) + self.chain_pem, _key_pem(key))


def _name(common_name: str) -> x509.Name:
    # RFC 5280 bounds a common name at 64 characters; the SANs carry the names that count.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])] if common_name else [])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, valid: datetime.timedelta
) -> x509.CertificateBuilder:
    """``valid`` is counted from now; a negative one makes a certificate that ended that long ago."""
    now = datetime.datetime.now(datetime.UTC)
    ends = now + valid
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends - _DAY) - _CLOCK_SKEW)
        .not_valid_after(ends)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _alternative(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded.decode()
