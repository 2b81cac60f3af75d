"""What is wrong with a file is said with the line it is on."""

from __future__ import annotations

import contextlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from plugin.assemble.pem import PEMError, read_authorities, read_certificates, read_private_key
from plugin.dev.pki import Authority

ONE, TWO = Authority("One"), Authority("Two")
PAIR = ONE.client("gateway")
CERTIFICATE, KEY = PAIR.certificate_pem, PAIR.private_key_pem


def problem_of_certificates(content: str | bytes) -> str:
    with pytest.raises(PEMError) as raised:
        read_certificates(content.encode() if isinstance(content, str) else content)
    return str(raised.value)


def problem_of_key(content: str) -> str:
    with pytest.raises(PEMError) as raised:
        read_private_key(content.encode())
    return str(raised.value)


def test_a_bundle_keeps_its_order_and_loses_what_is_around() -> None:
    bundle = f"# one\r\n{ONE.certificate_pem}\n\nSubject: zwei é\n{TWO.certificate_pem}trailing"
    assert read_certificates(bundle.encode()).pem == ONE.certificate_pem + TWO.certificate_pem


def test_windows_line_ends_and_a_byte_order_mark_are_fine() -> None:
    windows = "\ufeff" + ONE.certificate_pem.replace("\n", "\r\n")
    assert read_certificates(windows.encode()).pem == ONE.certificate_pem


def test_a_key_beside_its_certificate_is_left_out_of_the_chain() -> None:
    certificates = read_certificates((KEY + CERTIFICATE).encode())
    assert "PRIVATE KEY" not in certificates.pem
    assert read_private_key((CERTIFICATE + KEY).encode()).public_key == certificates.first_public_key


def test_the_end_of_life_is_that_of_each_certificate() -> None:
    content = read_certificates((CERTIFICATE + ONE.certificate_pem).encode())
    expected = [x509.load_pem_x509_certificate(pem.encode()) for pem in (CERTIFICATE, ONE.certificate_pem)]
    assert content.not_after_s[0] == expected[0].not_valid_after_utc.timestamp()
    assert content.not_after_s[1] == expected[-1].not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        ("hello", "holds no certificate; it must be PEM"),
        (KEY, "only PRIVATE KEY"),
        (CERTIFICATE.replace("-----END CERTIFICATE-----", ""), "block that starts at line 1 and has no"),
        (f"#\n#\n{CERTIFICATE[:200]}", "block that starts at line 3 and has no"),
        (CERTIFICATE[:200] + "\n" + CERTIFICATE, "block that starts at line 1 and has no"),
        (f"{ONE.certificate_pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "at line 1"),
        ("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "unreadable certificate at line 1"),
    ],
)
def test_what_is_wrong_with_certificates(content: str, problem: str) -> None:
    assert problem in problem_of_certificates(content)


def test_the_line_is_that_of_the_bad_certificate() -> None:
    good_lines = len(ONE.certificate_pem.splitlines())
    bad = f"{ONE.certificate_pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert f"at line {good_lines + 1}" in problem_of_certificates(bad)


def test_der_is_recognised() -> None:
    der = x509.load_pem_x509_certificate(ONE.certificate_pem.encode()).public_bytes(Encoding.DER)
    assert "looks like DER" in problem_of_certificates(der)


JUNK = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_an_unreadable_authority_is_left_out_and_told() -> None:
    read = read_authorities((ONE.certificate_pem + JUNK + TWO.certificate_pem + JUNK).encode())
    assert read.pem == ONE.certificate_pem + TWO.certificate_pem
    assert len(read.not_after_s) == 2
    first, second = read.unreadable
    good_lines = len(ONE.certificate_pem.splitlines())
    assert f"at line {good_lines + 1}:" in first
    assert f"at line {2 * good_lines + 4}:" in second


def test_a_certificate_to_be_shown_is_never_left_out() -> None:
    assert "unreadable certificate" in problem_of_certificates(CERTIFICATE + JUNK)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (JUNK + JUNK, "unreadable certificate at line 1"),
        (ONE.certificate_pem + TWO.certificate_pem[:300], "has no"),
        (KEY, "only PRIVATE KEY"),
    ],
)
def test_authorities_that_are_refused(content: str, problem: str) -> None:
    with pytest.raises(PEMError, match=problem):
        read_authorities(content.encode())


def test_a_bundle_of_many_authorities_is_read_whole() -> None:
    many = [Authority(f"Public {number}") for number in range(150)]
    read = read_authorities("\n".join(f"# {one!r}\n{one.certificate_pem}" for one in many).encode())
    assert read.pem == "".join(one.certificate_pem for one in many)
    assert read.unreadable == ()


@pytest.mark.parametrize("format_", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused_with_a_remedy(format_: PrivateFormat) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    content = key.private_bytes(Encoding.PEM, format_, BestAvailableEncryption(b"secret"))
    assert "encrypted with a passphrase" in problem_of_key(content.decode())
    assert "store the key unencrypted" in problem_of_key(content.decode())


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_keys_of_every_kind(key: ec.EllipticCurvePrivateKey) -> None:
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    read = read_private_key(b"# comment\n" + content)
    assert read.pem == content.decode()
    assert "PRIVATE" not in repr(read)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is empty"),
        (CERTIFICATE, "only CERTIFICATE"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "unreadable private key at line 1"),
        (KEY.replace("-----END", "----END"), "has no"),
    ],
)
def test_what_is_wrong_with_a_key(content: str, problem: str) -> None:
    assert problem in problem_of_key(content)


@given(st.binary(max_size=200) | st.binary(max_size=40).map(lambda junk: CERTIFICATE.encode()[:300] + junk))
def test_any_content_is_certificates_or_a_problem(content: bytes) -> None:
    for read in (read_certificates, read_authorities, read_private_key):
        with contextlib.suppress(PEMError):
            read(content)


def test_an_error_quotes_no_line_of_a_key() -> None:
    key = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
    text = f"-----BEGIN CERTIFICATE-----\nAAAA\n-----END {key}-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(PEMError) as raised:
        read_certificates(text.encode())
    assert key not in str(raised.value)
    with pytest.raises(PEMError) as raised:
        read_private_key(f"-----BEGIN PRIVATE KEY-----\n{key}\na: b\n-----END PRIVATE KEY-----\n".encode())
    assert key not in str(raised.value)
