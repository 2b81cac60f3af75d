"""The name check of upstream certificates, RFC 9525."""

from __future__ import annotations

import pytest
from cryptography import x509

from plugin.dev.pki import Authority
from proxy.errors import UpstreamError
from proxy.upstream_name import check_name, is_ip_address

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
    with pytest.raises(UpstreamError, match="no subject alternative name"):
        check_name(certificate(), "server")


def test_what_is_an_address() -> None:
    assert is_ip_address("10.0.0.1")
    assert is_ip_address("::1")
    assert not is_ip_address("db.example")
