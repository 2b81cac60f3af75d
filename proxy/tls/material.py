"""PEM text into what OpenSSL works with: trusted certificates, and a certificate with its key.

Everything here reports what is wrong with the text by :class:`proxy.errors.MaterialError`; it never reads a file.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from proxy.errors import MaterialError
from proxy.tls.openssl import lib
from proxy.tls.unreadable import UNREADABLE

_PEM_MARK = "-----BEGIN CERTIFICATE-----"


def certificates_from_pem(text: str) -> list[x509.Certificate]:
    """Parse every certificate in ``text``.

    :raises MaterialError: when there is none, or one does not parse.
    """
    if _PEM_MARK not in text:
        raise MaterialError("holds no PEM certificate (no BEGIN CERTIFICATE line)")
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except (ValueError, x509.InvalidVersion) as error:
        raise MaterialError(f"holds a certificate that does not parse: {explain(error)}") from error


def trust(store: crypto.X509Store, roots: list[x509.Certificate]) -> None:
    """Make ``roots`` the anchors of ``store``, beside those it has.

    :raises MaterialError: when OpenSSL cannot read what was parsed here.
    """
    for root in roots:
        try:
            store.add_cert(crypto.X509.from_cryptography(root))
        except crypto.Error as error:
            lib.ERR_clear_error()
            raise MaterialError(f"holds a certificate that OpenSSL cannot use: {_subject(root)}") from error
    lib.ERR_clear_error()  # a root listed twice is reported there, and is no error


def _subject(certificate: x509.Certificate) -> str:
    """It is read only now, and what is wrong with the certificate may be just that."""
    try:
        return certificate.subject.rfc4514_string()
    except UNREADABLE:
        return f"that with the serial number {certificate.serial_number:x}, whose subject cannot be read"


def present(context: SSL.Context, chain_pem: str, key_pem: str, what: str) -> None:
    """Let ``context`` show this certificate, with its chain and key.

    :raises MaterialError: naming ``what``, when they cannot be used together.
    """
    try:
        chain = certificates_from_pem(chain_pem)
        key = load_pem_private_key(key_pem.encode(), None)
        context.use_certificate(chain[0])
        for intermediate in chain[1:]:
            context.add_extra_chain_cert(intermediate)
        context.use_privatekey(key)  # type: ignore[arg-type]
        context.check_privatekey()
    except (MaterialError, ValueError, TypeError, UnsupportedAlgorithm, SSL.Error, crypto.Error) as error:
        lib.ERR_clear_error()
        raise MaterialError(f"{what} cannot be used: {explain(error)}") from error


def explain(error: Exception) -> str:
    """An error of OpenSSL, or another one, as one line."""
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return "; ".join(str(entry[-1]) for entry in error.args[0])
    # Without what the library quotes of the text: it may be lines of a key.
    return str(error).partition('("')[0] or type(error).__name__
