"""The printed state holds everything but keys."""

from __future__ import annotations

import msgspec

from plugin.snapshot import REDACTED, redacted_json
from proxy.messages import Update
from proxy.model import Leaf, Mesh, ServerName, Service, ServiceName, UpstreamTLS

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
