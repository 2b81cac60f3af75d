"""The throwaway authority makes what it says, and what real verifiers accept or refuse."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification

from plugin.dev.pki import Authority, KeyPair


def chain(pair: KeyPair) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pair.certificate_pem.encode())


def alternatives(pair: KeyPair) -> list[object]:
    names = chain(pair)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [name.value for name in names.value]


def verify(pair: KeyPair, root: Authority, name: str) -> None:
    store = verification.Store(x509.load_pem_x509_certificates(root.certificate_pem.encode()))
    leaf, *intermediates = chain(pair)
    verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name)).verify(leaf, intermediates)


def test_server_certificate_verifies_for_its_name_only() -> None:
    root = Authority()
    pair = root.server("db.example", "127.0.0.1")
    verify(pair, root, "db.example")
    with pytest.raises(verification.VerificationError):
        verify(pair, root, "other.example")


def test_intermediate_comes_with_the_chain() -> None:
    root = Authority("root")
    intermediate = Authority("intermediate", parent=root)
    pair = intermediate.server("db.example")
    assert len(chain(pair)) == 2
    verify(pair, root, "db.example")


def test_certificate_of_another_authority_does_not_verify() -> None:
    pair = Authority().server("db.example")
    with pytest.raises(verification.VerificationError):
        verify(pair, Authority(), "db.example")


def test_expired_certificate_is_expired_and_nothing_else() -> None:
    root = Authority()
    pair = root.expired("db.example")
    certificate = chain(pair)[0]
    assert certificate.not_valid_before_utc < certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC)
    with pytest.raises(verification.VerificationError):
        verify(pair, root, "db.example")


def test_names_keep_their_kind() -> None:
    pair = Authority().server("db.example", "192.0.2.1", "2001:db8::1", "https://db.example/x")
    kinds = chain(pair)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [type(name).__name__ for name in kinds] == [
        "DNSName",
        "IPAddress",
        "IPAddress",
        "UniformResourceIdentifier",
    ]


def test_mesh_leaf_has_exactly_consuls_identity() -> None:
    authority = Authority(trust_domain="mesh.consul")
    assert alternatives(authority.leaf("mesh.consul", "web")) == ["spiffe://mesh.consul/ns/default/dc/dc1/svc/web"]
    named = authority.leaf("mesh.consul", "web", datacenter="dc2", namespace="team", partition="part")
    assert alternatives(named) == ["spiffe://mesh.consul/ap/part/ns/team/dc/dc2/svc/web"]


def test_identity_takes_any_number_of_uris() -> None:
    authority = Authority()
    assert len(alternatives(authority.identity("spiffe://a/b", "spiffe://a/c"))) == 2
    with pytest.raises(x509.ExtensionNotFound):
        alternatives(authority.identity())


def test_written_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    pair = Authority().client("gateway")
    certificate, key = pair.write(tmp_path, "client")
    assert certificate.read_text() == pair.certificate_pem
    assert key.read_text() == pair.private_key_pem
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
