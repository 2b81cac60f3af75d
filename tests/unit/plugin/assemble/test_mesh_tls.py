"""TLS.Incoming. The golden meshes show whole answers; here is what OpenSSL makes of the names."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from plugin.assemble import mesh_tls
from plugin.assemble.mesh_tls import IncomingTLS, incoming_tls
from plugin.consul.api import DirectionalTLS


def test_no_settings_are_the_defaults() -> None:
    assert incoming_tls(None) == incoming_tls(DirectionalTLS()) == IncomingTLS()


@pytest.mark.parametrize("iana", sorted(mesh_tls._OPENSSL_NAMES))
def test_openssl_knows_every_cipher_suite_that_consul_allows(iana: str) -> None:
    (name,) = incoming_tls(DirectionalTLS(cipher_suites=(iana,))).cipher_suites
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(f"{name}:@SECLEVEL=0".encode())
    assert name in SSL.Connection(context, None).get_cipher_list()


def test_a_suite_in_openssls_own_spelling_is_kept() -> None:
    name = "ECDHE-RSA-AES256-GCM-SHA384"
    assert incoming_tls(DirectionalTLS(cipher_suites=(name,))).cipher_suites == (name,)


@pytest.mark.parametrize("name", ["", "ALL", "@SECLEVEL=0", "RC4-SHA", "tls_rsa_with_aes_128_cbc_sha"])
def test_anything_else_leaves_the_built_in_choice(name: str) -> None:
    settings = incoming_tls(DirectionalTLS(cipher_suites=("ECDHE-RSA-AES256-GCM-SHA384", name)))
    assert settings.cipher_suites == ()
    assert "CipherSuites" in settings.warnings[0]
