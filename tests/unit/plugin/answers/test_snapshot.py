"""The printed state holds everything but keys."""

from __future__ import annotations

import msgspec

from plugin.answers.snapshot import REDACTED, redacted_json
from proxy.messages import Update
from proxy.model import Leaf, Mesh, ServerName, Service, ServiceName, UpstreamTLS
from proxy.rules import TokenProvider

SECRET = "-----BEGIN PRIVATE KEY-----\nsecret"


def test_private_keys_are_left_out_and_nothing_else_is() -> None:
    leaf = Leaf("CHAIN", SECRET, "spiffe://td/svc", "0b", 1.0, 2.0)
    tls = UpstreamTLS("CA", "CLIENT CHAIN", SECRET, "db.example")
    plain = UpstreamTLS("CA")
    update = Update(
        7,
        Mesh("td.consul", "dc1", ("ROOT",)),
        (
            Service(ServiceName("db"), leaf, (ServerName("db.sni"),), upstream_tls=tls),
            Service(ServiceName("api"), leaf, (), upstream_tls=plain),
        ),
        full=True,
    )
    printed = redacted_json(update)
    assert b"secret" not in printed
    db, api = msgspec.json.decode(printed)["upserts"]
    assert db["leaf"]["private_key_pem"] == db["upstream_tls"]["private_key_pem"] == REDACTED
    assert api["upstream_tls"]["private_key_pem"] == ""
    restored = printed.replace(msgspec.json.encode(REDACTED), msgspec.json.encode(SECRET))
    assert msgspec.json.decode(restored, type=Update) == update


def test_keys_of_providers_are_shown_unless_they_are_shared_secrets() -> None:
    public, shared = {"kty": "EC", "kid": "a", "x": "PUBLIC"}, {"kty": "oct", "kid": "b", "k": "secret"}
    provider = TokenProvider("okta", keys_json=msgspec.json.encode({"keys": [public, shared]}).decode())
    without = TokenProvider("auth0", problem="no such entry")
    mesh = Mesh("td.consul", "dc1", ("ROOT",), token_providers=(provider, without))
    printed = redacted_json(Update(7, mesh))
    assert b"secret" not in printed
    assert b"PUBLIC" in printed
    assert msgspec.json.decode(printed, type=Update).mesh is not None
    assert "secret" not in repr(mesh)
