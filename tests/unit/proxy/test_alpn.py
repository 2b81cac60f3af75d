"""Protocols in handshakes: what a client is answered, and what an external service is offered."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from plugin.dev.pki import Authority
from proxy.messages import Update
from proxy.model import HTTPSettings, Service, ServiceName, UpstreamTLS
from proxy.routes import RouteTable
from proxy.rules import Action
from proxy.tls.openssl import Buffer
from proxy.tls.session import ServerSession, TLSSession, UpstreamSession
from tests.support.mesh import HandMadeMesh, sni

SCRATCH = Buffer(262_144)
MESH = HandMadeMesh()
PARTNER = Authority("Partner CA")


def table_with(service: Service) -> RouteTable:
    table = RouteTable()
    table.apply(Update(1, MESH.settings(Action.ALLOW), (service,)))
    return table


def handshake(ours: ServerSession | UpstreamSession, theirs: ssl.SSLContext, **options: Any) -> str | None:
    """In memory. :returns: the protocol, as the other side says."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = theirs.wrap_bio(incoming, outgoing, **options)
    done = peer_done = False
    for _ in range(10):
        if not done:
            done = ours.handshake()
        move(ours, incoming)
        if not peer_done:
            try:
                peer.do_handshake()
                peer_done = True
            except ssl.SSLWantReadError:
                pass
        data = outgoing.read()
        SCRATCH.view[: len(data)] = data
        ours.feed(SCRATCH, len(data))
        if done and peer_done:
            return peer.selected_alpn_protocol()
    raise AssertionError("the handshake did not end")


def move(session: TLSSession, incoming: ssl.MemoryBIO) -> None:
    waiting = session.outgoing()
    if waiting is not None:
        incoming.write(bytes(waiting))
        session.sent(len(waiting), SCRATCH)


def client(*offered: str, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = MESH.client_context(MESH.leaf("web"), maximum=maximum)
    if offered:
        context.set_alpn_protocols(list(offered))
    return context


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        (("h2",), "h2"),
        (("http/1.1",), "http/1.1"),
        (("http/1.1", "h2"), "h2"),
        (("spdy/3", "h2", "http/1.1"), "h2"),
        (("http/1.0", "http/1.1"), "http/1.1"),
        (("consul~db", "h3"), None),
        ((), None),
    ],
)
def test_an_http_service_answers_with_what_it_prefers(
    offered: tuple[str, ...], answer: str | None, maximum: ssl.TLSVersion
) -> None:
    session = table_with(MESH.service("db", protocol="http", http=HTTPSettings())).accept()
    assert session is not None
    assert handshake(session, client(*offered, maximum=maximum), server_hostname=sni("db")) == answer
    assert session.alpn() == (answer or "").encode()


def test_a_service_that_is_carried_whole_never_answers() -> None:
    session = table_with(MESH.service("db")).accept()
    assert session is not None
    assert handshake(session, client("h2", "http/1.1"), server_hostname=sni("db")) is None


def test_a_change_of_the_protocol_changes_the_answer() -> None:
    table = table_with(MESH.service("db"))
    for generation, (http, answer) in enumerate([(HTTPSettings(), "h2"), (None, None)], 2):
        table.apply(Update(generation, None, (MESH.service("db", http=http),)))
        session = table.accept()
        assert session is not None
        assert handshake(session, client("h2"), server_hostname=sni("db")) == answer


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """An external service that speaks both versions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder: Path = tmp_path_factory.mktemp("partner")
    context.load_cert_chain(*PARTNER.server("db.example").write(folder, "server"))
    context.set_alpn_protocols(["http/1.1", "h2"])
    return context


@pytest.mark.parametrize(
    ("protocol", "http", "chosen"),
    [
        ("http", HTTPSettings(), "http/1.1"),
        ("http2", HTTPSettings(), "h2"),
        ("grpc", HTTPSettings(), "h2"),
        ("tcp", None, None),
        ("http", None, None),
    ],
)
def test_an_external_service_is_offered_what_it_will_be_spoken_to_in(
    partner: ssl.SSLContext, protocol: str, http: HTTPSettings | None, chosen: str | None
) -> None:
    tls = UpstreamTLS(PARTNER.certificate_pem, server_name="db.example")
    table = table_with(MESH.service("db", 80, protocol="tcp", upstream_tls=tls))
    table.apply(Update(2, None, (MESH.service("db", 80, protocol=protocol, http=http, upstream_tls=tls),)))
    state = table.state(ServiceName("db"))
    assert state is not None
    assert state.upstream_tls is not None
    session = state.upstream_tls.connect()
    assert handshake(session, partner, server_side=True) == chosen
    assert session.alpn() == (chosen or "").encode()
