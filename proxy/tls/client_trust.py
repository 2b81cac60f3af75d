"""Which client certificates the mesh's roots vouch for, and the memory of those that were found good.

A sidecar shows the same leaf on every connection until it is renewed. The signatures of its chain are verified once
for each set of roots; that the client holds the leaf's key is proven in every handshake, by OpenSSL, as are the leaf's
own dates and extensions. What is remembered is bound to one :class:`ClientTrust`, which is replaced together with its
roots, and never outlives the first certificate of the chain to expire. What is not found good is never remembered.
"""

from __future__ import annotations

import time
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from OpenSSL import crypto

from proxy.tls.material import certificates_from_pem, trust
from proxy.tls.openssl import der_of, ffi, lib

GOOD = 0
"""X509_V_OK."""
_UNSPECIFIED = 1  # X509_V_ERR_UNSPECIFIED
_KEY_TOO_SMALL = 66  # X509_V_ERR_EE_KEY_TOO_SMALL; the binding does not name these two
_DIGEST_TOO_WEAK = 68  # X509_V_ERR_CA_MD_TOO_WEAK
_SMALLEST_MODULUS_BITS = 2_048
_SMALLEST_DIGEST_BYTES = 28  # SHA-224: 112 bits of security, as of OpenSSL's level 2

_REMEMBERED = 4_096


class ClientTrust:
    """One set of roots: those of the mesh, or of one peer."""

    def __init__(self, roots_pem: tuple[str, ...]) -> None:
        """:raises MaterialError: when a root does not parse."""
        self._store = crypto.X509Store()
        for root in roots_pem:
            trust(self._store, certificates_from_pem(root))
        lib.X509_STORE_set_purpose(self._store._store, lib.X509_PURPOSE_SSL_CLIENT)
        self._good_s: dict[bytes, tuple[float, float]] = {}
        """From when until when, Unix time: a clock may also be set back."""

    def verdict(self, leaf: Any, leaf_der: bytes, attempt: Any) -> int:
        """Do the roots vouch for ``leaf``?

        :param leaf: ``X509 *``.
        :param leaf_der: the same certificate.
        :param attempt: ``X509_STORE_CTX *`` of a verification that found no root; its chain so far is what the client
            presented.
        :returns: ``GOOD``, or OpenSSL's ``X509_V_ERR_...``.
        """
        good_s = self._good_s.get(leaf_der)
        if good_s is not None and good_s[0] <= time.time() < good_s[1]:
            return GOOD
        try:
            error, chain = self._verify(leaf, attempt)
            if error == GOOD:
                error = _weakness(chain)
            if error == GOOD:
                begins_s = max(one.not_valid_before_utc.timestamp() for one in chain)
                self._remember(leaf_der, begins_s, min(one.not_valid_after_utc.timestamp() for one in chain))
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
            # OpenSSL reads certificates that cannot be looked into here: how strong they are is not known.
            return _UNSPECIFIED
        return error

    def _verify(self, leaf: Any, attempt: Any) -> tuple[int, list[x509.Certificate]]:
        presented = ffi.gc(lib.X509_STORE_CTX_get1_chain(attempt), _free_chain)
        context = ffi.gc(lib.X509_STORE_CTX_new(), lib.X509_STORE_CTX_free)
        try:
            if lib.X509_STORE_CTX_init(context, self._store._store, leaf, presented) != 1:
                return _UNSPECIFIED, []
            if lib.X509_verify_cert(context) != 1:
                return int(lib.X509_STORE_CTX_get_error(context)) or _UNSPECIFIED, []
            return GOOD, _certificates(ffi.gc(lib.X509_STORE_CTX_get1_chain(context), _free_chain))
        finally:
            lib.ERR_clear_error()

    def _remember(self, leaf_der: bytes, begins_s: float, until_s: float) -> None:
        if len(self._good_s) >= _REMEMBERED:
            del self._good_s[next(iter(self._good_s))]
        self._good_s[leaf_der] = begins_s, until_s


def _certificates(chain: Any) -> list[x509.Certificate]:
    count = lib.sk_X509_num(chain)
    return [x509.load_der_x509_certificate(der_of(lib.sk_X509_value(chain, index))) for index in range(count)]


def _free_chain(chain: Any) -> None:
    for index in range(lib.sk_X509_num(chain)):
        lib.X509_free(lib.sk_X509_value(chain, index))
    lib.sk_X509_free(chain)


def _weakness(chain: list[x509.Certificate]) -> int:
    """What OpenSSL's security level 2 refuses: it applies the level to sessions, not to a verification of its own."""
    for certificate in chain:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey) and key.key_size < _SMALLEST_MODULUS_BITS:
            return _KEY_TOO_SMALL
    for certificate in chain[:-1]:  # a root is trusted as it is, whoever signed it
        digest = certificate.signature_hash_algorithm
        if digest is not None and digest.digest_size < _SMALLEST_DIGEST_BYTES:
            return _DIGEST_TOO_WEAK
    return GOOD
