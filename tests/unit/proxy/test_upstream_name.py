"""The name check of upstream certificates, RFC 9525."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from plugin.dev.pki import Authority
from proxy.errors import UpstreamError
from proxy.tls.upstream_name import check_name, is_ip_address, server_name_of
from tests.support import crafted
from tests.support.crafted import Issuer, Wanted

PARTNER = Authority("Partner CA")


def certificate(*names: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(PARTNER.server(*names).certificate_pem.encode())


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        ("db.example", "db.example"),
        ("DB.example", "db.EXAMPLE"),
        ("*.example.org", "db.example.org"),
        ("10.0.0.9", "10.0.0.9"),
        ("::1", "0:0:0:0:0:0:0:1"),
        ("spiffe://partner/api", "spiffe://partner/api"),
    ],
)
def test_names_that_match(presented: str, expected: str) -> None:
    check_name(certificate("other.example", presented), expected)


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        ("db.example", "db2.example"),
        ("*.example.org", "example.org"),
        ("*.example.org", "a.b.example.org"),
        ("d*.example.org", "db.example.org"),
        ("10.0.0.9", "10.0.0.8"),
        ("spiffe://partner/api", "spiffe://partner/API"),
        ("db.example", "10.0.0.9"),
        ("db.example", "not a name"),
    ],
)
def test_names_that_do_not_match_are_told_with_what_was_presented(presented: str, expected: str) -> None:
    with pytest.raises(UpstreamError) as refused:
        check_name(certificate(presented), expected)
    assert repr(expected) in str(refused.value)
    assert presented in str(refused.value)


def test_a_certificate_without_names_matches_nothing() -> None:
    with pytest.raises(UpstreamError, match=r"no subject alternative name \(its common name 'server' does not count"):
        check_name(certificate(), "server")


def test_of_very_many_names_some_are_told() -> None:
    names = [f"n{number}.example" for number in range(30)]
    with pytest.raises(UpstreamError) as refused:
        check_name(certificate(*names), "db.example")
    assert "n19.example and 10 more" in str(refused.value)


@pytest.mark.parametrize(
    ("expected", "sent"),
    [
        ("db.example", "db.example"),
        ("10.0.0.9", ""),
        ("::1", ""),
        ("spiffe://partner/api", ""),
        ("", ""),
    ],
)
def test_only_a_dns_name_is_sent_as_server_name(expected: str, sent: str) -> None:
    assert server_name_of(expected) == sent


def test_what_is_an_address() -> None:
    assert is_ip_address("10.0.0.1")
    assert is_ip_address("::1")
    assert not is_ip_address("db.example")


@pytest.mark.parametrize("names", [crafted.raw_names("spiffe://partner/api"), b"\x30\x82\xff", b""])
def test_names_that_cannot_be_read_are_no_match(names: bytes) -> None:
    """OpenSSL takes such a certificate."""
    issuer = Issuer.of(PARTNER)
    odd = crafted.issue(issuer, Wanted(raw_names=names), crafted.key_of())
    for expected in ("db.example", "10.0.0.9", "spiffe://partner/api"):
        with pytest.raises(UpstreamError, match="no subject alternative name"):
            check_name(odd, expected)


def test_a_subject_that_cannot_be_read_is_not_told() -> None:
    named = Wanted(subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "some service")]))
    der = crafted.issue(Issuer.of(PARTNER), named, crafted.key_of()).public_bytes(crafted.DER)
    bit_string = der.replace(b"\x0c\x0csome service", b"\x03\x0c\x00ome service")
    assert bit_string != der
    with pytest.raises(UpstreamError, match=r"no subject alternative name$"):
        check_name(x509.load_der_x509_certificate(bit_string), "db.example")
