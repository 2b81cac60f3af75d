"""Whom the roots vouch for: every chain once, good ones remembered, and nothing remembered that should not be."""

from __future__ import annotations

import datetime
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from OpenSSL import crypto

from plugin.dev.pki import Authority, KeyPair
from proxy.errors import PeerError
from proxy.model import CloseReason
from proxy.tls import client_trust
from proxy.tls.client_trust import ClientTrust
from proxy.tls.context import FrontContext, ServiceContext
from tests.support.mesh import TRUST_DOMAIN, HandMadeMesh, sni
from tests.unit.proxy.test_tls import front_of, handshake


class CountingTrust(ClientTrust):
    """Counts how often signatures were verified."""

    verified = 0

    def _verify(self, leaf: Any, attempt: Any) -> tuple[int, list[x509.Certificate]]:
        self.verified += 1
        return super()._verify(leaf, attempt)


class Stand:
    """A front for one service, and clients of it."""

    def __init__(self, mesh: HandMadeMesh, folder: Path, *roots_pem: str) -> None:
        self.trust = CountingTrust(roots_pem or (mesh.authority.certificate_pem,))
        chosen = ServiceContext(mesh.service("db").leaf, self.trust)
        self.front: FrontContext = front_of(mesh, lambda _: chosen)
        self._folder = folder

    def connect(self, pair: KeyPair) -> tuple[str, ...]:
        """The URIs that the gateway saw. The client shows exactly the certificates of ``pair``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # or it would not even show a weak certificate
        context.load_cert_chain(*pair.write(self._folder, "client"))
        return handshake(self.front, context, sni("db"))[1].peer_uris()

    def refusal(self, pair: KeyPair) -> str:
        with pytest.raises(PeerError) as refused:
            self.connect(pair)
        assert refused.value.reason is CloseReason.UNTRUSTED_CERTIFICATE
        return str(refused.value)


@pytest.fixture
def mesh() -> HandMadeMesh:
    return HandMadeMesh()


@pytest.fixture
def stand(mesh: HandMadeMesh, tmp_path: Path) -> Stand:
    return Stand(mesh, tmp_path)


def test_a_leaf_is_verified_once(mesh: HandMadeMesh, stand: Stand) -> None:
    web, api = mesh.leaf("web"), mesh.leaf("api")
    for pair, name in ((web, "web"), (api, "api"), (web, "web"), (api, "api")):
        assert stand.connect(pair) == (f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/{name}",)
    assert stand.trust.verified == 2


def test_other_roots_know_nothing_of_it(mesh: HandMadeMesh, stand: Stand, tmp_path: Path) -> None:
    """The roots that replace others start without a memory."""
    web = mesh.leaf("web")
    stand.connect(web)
    other = Stand(mesh, tmp_path, Authority("Other", trust_domain=TRUST_DOMAIN).certificate_pem)
    assert "unable to get local issuer" in other.refusal(web) or "signature" in other.refusal(web)
    assert other.trust.verified > 0


def test_a_refused_leaf_is_not_remembered(mesh: HandMadeMesh, stand: Stand) -> None:
    foreign = Authority("Foreign").leaf(TRUST_DOMAIN, "web")
    for _ in range(2):
        assert "unable to get local issuer" in stand.refusal(foreign)
    assert stand.trust.verified == 2


def test_names_of_a_known_leaf_with_another_signature_are_refused(mesh: HandMadeMesh, stand: Stand) -> None:
    """An authority of the same name, issuing the same identity: only the signature tells."""
    stand.connect(mesh.leaf("web"))
    forged = Authority("Mesh CA", trust_domain=TRUST_DOMAIN).leaf(TRUST_DOMAIN, "web")
    stand.refusal(forged)


def test_an_expired_leaf_is_refused(mesh: HandMadeMesh, stand: Stand) -> None:
    expired = mesh.authority.leaf(TRUST_DOMAIN, "web", valid=-datetime.timedelta(hours=1))
    assert "expired" in stand.refusal(expired)


def test_the_memory_ends_with_the_first_certificate_of_the_chain(
    mesh: HandMadeMesh, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root lives for a year, the intermediate as well; the leaf ends first."""
    intermediate = Authority("Intermediate", parent=mesh.authority)
    web = intermediate.leaf(TRUST_DOMAIN, "web", valid=datetime.timedelta(hours=2))
    stand.connect(web)
    real = time.time
    for later_s, verified in ((3_600, 1), (7_300, 2)):
        monkeypatch.setattr(time, "time", lambda later_s=later_s: real() + later_s)
        stand.connect(web)  # OpenSSL, with its own clock, has no objection
        assert stand.trust.verified == verified


def test_chains_with_an_intermediate_and_with_the_root_itself(mesh: HandMadeMesh, stand: Stand) -> None:
    intermediate = Authority("Intermediate", parent=mesh.authority)
    web = intermediate.leaf(TRUST_DOMAIN, "web")
    with_root = KeyPair(web.certificate_pem + mesh.authority.certificate_pem, web.private_key_pem)
    assert stand.connect(web) == stand.connect(with_root)
    direct = mesh.leaf("api")
    stand.connect(KeyPair(direct.certificate_pem + mesh.authority.certificate_pem, direct.private_key_pem))
    assert stand.trust.verified == 2


def test_a_missing_intermediate_is_refused(mesh: HandMadeMesh, stand: Stand) -> None:
    web = Authority("Intermediate", parent=mesh.authority).leaf(TRUST_DOMAIN, "web")
    alone = web.certificate_pem.partition("-----END CERTIFICATE-----\n")
    assert "unable to get local issuer" in stand.refusal(KeyPair(alone[0] + alone[1], web.private_key_pem))


def test_a_leaf_does_not_issue(mesh: HandMadeMesh, stand: Stand) -> None:
    """A chain through the leaf of a service, whose key a service has."""
    leaf = mesh.leaf("web")
    certificate = x509.load_pem_x509_certificate(leaf.certificate_pem.encode())
    key = serialization.load_pem_private_key(leaf.private_key_pem.encode(), None)
    forged = issue(certificate.subject, key, "sha256", issued_to=f"spiffe://{TRUST_DOMAIN}/admin")
    chain = KeyPair(forged.certificate_pem + leaf.certificate_pem, forged.private_key_pem)
    assert stand.refusal(chain)


def test_a_self_signed_leaf_is_refused(stand: Stand) -> None:
    key = rsa.generate_private_key(65_537, 2_048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "self")])
    assert "self-signed" in stand.refusal(issue(subject, key, "sha256", key=key))


def test_a_certificate_for_servers_only_is_refused(mesh: HandMadeMesh, stand: Stand) -> None:
    server = mesh.authority.server(f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web")
    assert "purpose" in stand.refusal(server)


@pytest.mark.parametrize(
    ("bits", "digest", "words"),
    [(1_024, "sha256", "key too"), (2_048, "sha1", "digest"), (2_048, "sha256", "")],
)
@pytest.mark.filterwarnings("ignore:X509.sign:DeprecationWarning")
def test_weak_roots_and_signatures_are_refused(
    mesh: HandMadeMesh, tmp_path: Path, bits: int, digest: str, words: str
) -> None:
    key = rsa.generate_private_key(65_537, bits)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "RSA root")])
    root = issue(subject, key, "sha256", key=key, ca=True)
    stand = Stand(mesh, tmp_path, root.certificate_pem)
    uri = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
    leaf = issue(subject, key, digest, issued_to=uri)
    if words:
        assert words in stand.refusal(leaf)
    else:
        assert stand.connect(leaf) == (uri,)


def test_the_memory_is_bounded(mesh: HandMadeMesh, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_trust, "_REMEMBERED", 2)
    pairs = [mesh.leaf(name) for name in "abc"]
    for pair in pairs:
        stand.connect(pair)
    stand.connect(pairs[2])
    assert stand.trust.verified == 3
    stand.connect(pairs[0])
    assert stand.trust.verified == 4


def test_a_failing_verification_refuses(mesh: HandMadeMesh, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))
    monkeypatch.setattr(stand.trust, "_good_s", None)
    with pytest.raises(PeerError):
        stand.connect(mesh.leaf("web"))
    assert reported == [AttributeError]


def issue(
    issuer: x509.Name,
    issuer_key: Any,
    digest: str,
    *,
    issued_to: str = "",
    key: CertificateIssuerPrivateKeyTypes | None = None,
    ca: bool = False,
) -> KeyPair:
    """A certificate that no well-kept authority would issue. Without ``issued_to`` it is in the issuer's own name."""
    key = key or rsa.generate_private_key(65_537, 2_048)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]) if issued_to else issuer)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if issued_to:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(issued_to)])
        builder = builder.add_extension(names, critical=True)
    certificate = crypto.X509.from_cryptography(builder.sign(issuer_key, hashes.SHA256()))
    if digest != "sha256":  # ``cryptography`` signs with nothing weaker
        certificate.sign(crypto.PKey.from_cryptography_key(issuer_key), digest)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(crypto.dump_certificate(crypto.FILETYPE_PEM, certificate).decode(), key_pem.decode())
