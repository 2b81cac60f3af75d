"""Client certificates that no honest authority issues, some of them DER that no builder writes."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from plugin.dev.pki import Authority, KeyPair

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DER = serialization.Encoding.DER
_DAY = datetime.timedelta(days=1)
_SAN = x509.ObjectIdentifier("2.5.29.17")
_RSA_SHA256, _RSA_WITH = bytes.fromhex("06092a864886f70d01010b"), bytes.fromhex("06092a864886f70d0101")
_OID_OF_HASH = {"md5": 4, "sha1": 5}


def key_of(size: int = 0) -> Key:
    """A key of RSA with so many bits; of P-256 without."""
    return rsa.generate_private_key(65_537, size) if size else ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Whoever signs: an authority, or somebody who only says so."""

    key: Key
    name: x509.Name
    chain_pem: str = ""
    """What a client shows behind its own certificate."""

    @classmethod
    def of(cls, authority: Authority) -> Issuer:
        key = private_key(KeyPair("", authority.private_key_pem))
        name = x509.load_pem_x509_certificate(authority.certificate_pem.encode()).subject
        return cls(key=key, name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a certificate says; the defaults are those of an honest leaf."""

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    raw_names: bytes | None = None
    """Instead of both: the value of the SAN extension, DER."""
    subject: x509.Name = field(default_factory=lambda: x509.Name([]))
    ca: bool = False
    path_length: int | None = None
    signs: bool = False
    """keyCertSign"""
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
    begins: datetime.timedelta = -_DAY
    """From now."""
    ends: datetime.timedelta = _DAY
    more: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    """Further extensions, each with its criticality."""


def issue(issuer: Issuer, wanted: Wanted, key: Key) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(wanted.subject)
        .issuer_name(issuer.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + wanted.begins)
        .not_valid_after(now + wanted.ends)
        .add_extension(x509.BasicConstraints(ca=wanted.ca, path_length=wanted.path_length), critical=True)
        .add_extension(_usage(wanted.signs), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if wanted.usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(wanted.usages), critical=False)
    names = [*map(x509.UniformResourceIdentifier, wanted.uris), *map(x509.DNSName, wanted.dns)]
    if wanted.raw_names is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(_SAN, wanted.raw_names), critical=False)
    elif names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension, critical in wanted.more:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer.key, hashes.SHA256())


def leaf(issuer: Issuer, wanted: Wanted, key: Key | None = None) -> KeyPair:
    key = key or key_of()
    return pair(issue(issuer, wanted, key).public_bytes(serialization.Encoding.DER), key, issuer.chain_pem)


def intermediate(issuer: Issuer, name: str, **wanted: object) -> Issuer:
    """One more between the root and a leaf; by default an honest one."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    settings = {"subject": subject, "ca": True, "signs": True, "usages": (), **wanted}
    key = key_of()
    certificate = issue(issuer, Wanted(**settings), key)  # type: ignore[arg-type]
    return Issuer(key=key, name=subject, chain_pem=_pem(certificate) + issuer.chain_pem)


def between(subject: Issuer, issuer: Issuer) -> str:
    """A certificate, PEM, by which ``issuer`` vouches for an authority that exists."""
    return _pem(issue(issuer, Wanted(subject=subject.name, ca=True, signs=True, usages=()), subject.key))


def weakly_signed(issuer: Issuer, wanted: Wanted, digest: str) -> KeyPair:
    """A leaf that an RSA key signed over ``md5`` or ``sha1``, which no builder does any more."""
    assert isinstance(issuer.key, rsa.RSAPrivateKey)
    key = key_of()
    number = bytes([_OID_OF_HASH[digest]])
    body = issue(issuer, wanted, key).tbs_certificate_bytes.replace(_RSA_SHA256, _RSA_WITH + number)
    algorithm = _der(0x30, _RSA_WITH + number + b"\x05\x00")
    hashed = {"md5": hashes.MD5(), "sha1": hashes.SHA1()}[digest]
    signature = issuer.key.sign(body, padding.PKCS1v15(), hashed)
    return pair(_der(0x30, body + algorithm + _der(0x03, b"\0" + signature)), key, issuer.chain_pem)


def raw_uri(content: bytes) -> bytes:
    """The value of a SAN extension with one URI of these bytes."""
    return _der(0x30, _der(0x86, content))


def raw_names(uri: str) -> bytes:
    """As :func:`raw_uri`, with an X.400 address behind it that is empty."""
    return _der(0x30, _der(0x86, uri.encode()) + _der(0xA3, b""))


def pair(certificate_der: bytes, key: Key, chain_pem: str = "") -> KeyPair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(_pem_of(certificate_der) + chain_pem, private.decode())


def private_key(pair: KeyPair) -> Key:
    key = serialization.load_pem_private_key(pair.private_key_pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def _usage(signs: bool) -> x509.KeyUsage:
    off = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    return x509.KeyUsage(digital_signature=True, key_cert_sign=signs, **off)


def _der(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _pem_of(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)
