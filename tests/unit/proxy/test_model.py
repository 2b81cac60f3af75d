"""The hand-over types: keys stay out of sight, but do arrive."""

from __future__ import annotations

import io

from rich.console import Console
from rich.pretty import pprint

from proxy.frames import WorkerFrames, encode
from proxy.messages import Update
from proxy.model import Leaf, ServerName, Service, ServiceName, UpstreamTLS

LEAF = Leaf("chain", "SECRET", "spiffe://x", "01", 0.0, 1.0)
TLS = UpstreamTLS(ca_pem="ca", certificate_chain_pem="chain", private_key_pem="SECRET")
SERVICE = Service(name=ServiceName("db"), leaf=LEAF, server_names=(ServerName("db.x"),), upstream_tls=TLS)


def test_no_representation_shows_a_key() -> None:
    out = io.StringIO()
    pprint(SERVICE, console=Console(file=out))
    for text in (repr(SERVICE), str(SERVICE), f"{LEAF}", out.getvalue()):
        assert "SECRET" not in text
        assert "<redacted>" in text


def test_the_key_does_cross_the_process_boundary() -> None:
    (update,) = WorkerFrames().feed(encode(Update(generation=1, upserts=(SERVICE,))))
    assert update == Update(generation=1, upserts=(SERVICE,))


def test_names_are_short_where_namespaces_are_not_used() -> None:
    assert str(ServiceName("db")) == "db"
    assert str(ServiceName("db", "team")) == "team/db"
    assert str(ServiceName("db", "team", "east")) == "east/team/db"
