"""Sessions in memory: what a server name gets, what resumption gets, and how errors are told."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from plugin.dev.pki import Authority
from proxy.errors import MaterialError, PeerError
from proxy.model import CloseReason, UpstreamTLS
from proxy.tls.client_trust import ClientTrust
from proxy.tls.context import FrontContext, ServiceContext, UpstreamContext, _uris
from proxy.tls.material import certificates_from_pem
from proxy.tls.openssl import Buffer
from proxy.tls.session import CLOSE_NOTIFY, WOULD_BLOCK, ServerSession
from tests.support import crafted
from tests.support.crafted import Issuer, Wanted
from tests.support.mesh import HandMadeMesh, sni

SCRATCH = Buffer(262_144)


def front_of(
    mesh: HandMadeMesh, select: Callable[[str], ServiceContext | None], *, objection: str = "", **settings: Any
) -> FrontContext:
    return FrontContext(mesh.settings(**settings), select, lambda _name, _uris: objection)


def handshake_with_output(
    front: FrontContext, context: ssl.SSLContext, name: str | None, session: object = None
) -> tuple[ssl.SSLObject, ServerSession, ssl.MemoryBIO]:
    """A whole handshake in memory, the client's first bytes to both sides' ends."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name, session=session)  # type: ignore[arg-type]
    server = front.accept()
    done = False
    for _ in range(10):
        try:
            client.do_handshake()
            if done:
                break
        except ssl.SSLWantReadError:
            pass
        data = outgoing.read()
        if data and not done:
            SCRATCH.view[: len(data)] = data
            server.feed(SCRATCH, len(data))
            done = server.handshake()
        waiting = server.outgoing()
        if waiting is not None:
            incoming.write(bytes(waiting))
            server.sent(len(waiting), SCRATCH)
    assert done
    return client, server, outgoing


def handshake(
    front: FrontContext, context: ssl.SSLContext, name: str | None, session: object = None
) -> tuple[ssl.SSLObject, ServerSession]:
    client, server, _ = handshake_with_output(front, context, name, session)
    return client, server


@pytest.fixture
def mesh() -> HandMadeMesh:
    return HandMadeMesh()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nothing_is_resumed_not_even_with_the_same_service(mesh: HandMadeMesh, version: ssl.TLSVersion) -> None:
    """A session made under one trust would be accepted under another's: no client may get one to offer."""
    other = Authority("Other", trust_domain="other")
    contexts = {
        sni("a"): ServiceContext(mesh.service("a").leaf, ClientTrust((mesh.authority.certificate_pem,))),
        sni("b"): ServiceContext(mesh.service("b").leaf, ClientTrust((other.certificate_pem,))),
    }
    front = front_of(mesh, contexts.get)
    context = mesh.client_context(mesh.leaf("web"), maximum=version)
    client, _ = handshake(front, context, sni("a"))
    if client.session is not None and (client.session.has_ticket or client.session.id):
        again, server = handshake(front, context, sni("a"), client.session)
        assert not again.session_reused
        assert server.peer_uris()
    with pytest.raises(PeerError) as refused:
        handshake(front, context, sni("b"), client.session)
    assert refused.value.reason is CloseReason.UNTRUSTED_CERTIFICATE


def test_server_names_are_compared_in_lower_case(mesh: HandMadeMesh) -> None:
    asked: list[str] = []

    def select(name: str) -> ServiceContext:
        asked.append(name)
        return chosen

    chosen = ServiceContext(mesh.service("db").leaf, ClientTrust((mesh.authority.certificate_pem,)))
    _, server = handshake(front_of(mesh, select), mesh.client_context(mesh.leaf("web")), sni("db").upper())
    assert set(asked) == {sni("db")} == {server.server_name}
    assert len(server.peer_uris()) == 1


def test_material_errors_name_the_thing(mesh: HandMadeMesh) -> None:
    with pytest.raises(MaterialError, match="no PEM certificate"):
        certificates_from_pem("hello")
    with pytest.raises(MaterialError, match="does not parse"):
        certificates_from_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    one, two = mesh.leaf("a"), mesh.leaf("b")
    mixed = UpstreamTLS(mesh.authority.certificate_pem, one.certificate_pem, two.private_key_pem)
    with pytest.raises(MaterialError, match=r"CertFile, KeyFile.*mismatch"):
        UpstreamContext(mixed)
    with pytest.raises(MaterialError, match="CAFile"):
        UpstreamContext(UpstreamTLS("junk"))


def test_an_impossible_tls_range_is_refused(mesh: HandMadeMesh) -> None:
    with pytest.raises(MaterialError, match="TLSv9"):
        front_of(mesh, lambda _: None, tls_min_version="TLSv9")
    with pytest.raises(MaterialError, match="NO-SUCH"):
        front_of(mesh, lambda _: None, cipher_suites=("NO-SUCH",))


def test_lent_ciphertext_is_kept_when_the_buffer_is_needed_again(mesh: HandMadeMesh) -> None:
    """However the reading stops in the middle, nothing of it is lost when the shared buffer is reused."""
    chosen = ServiceContext(mesh.service("db").leaf, ClientTrust((mesh.authority.certificate_pem,)))
    front = front_of(mesh, lambda _: chosen)
    client, server, outgoing = handshake_with_output(front, mesh.client_context(mesh.leaf("web")), sni("db"))
    sent = bytes(range(256)) * 400
    client.write(sent)
    ciphertext = outgoing.read()
    plaintext, received = Buffer(20_000), bytearray()
    cut = 40_000
    for part in (ciphertext[:cut], ciphertext[cut:]):
        SCRATCH.view[: len(part)] = part
        server.lend(SCRATCH, len(part))
        received += plaintext.view[: server.read(plaintext)[0]]
        server.keep()
        SCRATCH.view[:] = b"\xff" * SCRATCH.size
    while length := server.read(plaintext)[0]:
        received += plaintext.view[:length]
    assert bytes(received) == sent


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_everything_that_came_is_read_at_once_and_the_end_with_it(mesh: HandMadeMesh, version: ssl.TLSVersion) -> None:
    """Small records, one of them in pieces, then the last word in the same piece as data."""
    chosen = ServiceContext(mesh.service("db").leaf, ClientTrust((mesh.authority.certificate_pem,)))
    context = mesh.client_context(mesh.leaf("web"), maximum=version)
    client, server, outgoing = handshake_with_output(front_of(mesh, lambda _: chosen), context, sni("db"))
    outgoing.read()
    plaintext = Buffer(65_536)

    def fed(ciphertext: bytes) -> tuple[bytes, int]:
        SCRATCH.view[: len(ciphertext)] = ciphertext
        server.lend(SCRATCH, len(ciphertext))
        length, why = server.read(plaintext)
        return bytes(plaintext.view[:length]), why

    client.write(b"one")
    client.write(b"two")
    client.write(b"three")
    records = outgoing.read()
    assert fed(records[:-4]) == (b"onetwo", WOULD_BLOCK)
    assert fed(records[-4:]) == (b"three", WOULD_BLOCK)
    client.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    assert fed(outgoing.read()) == (b"last", CLOSE_NOTIFY)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_identity_that_may_not_call_is_refused_by_an_alert(mesh: HandMadeMesh, version: ssl.TLSVersion) -> None:
    chosen = ServiceContext(mesh.service("db").leaf, ClientTrust((mesh.authority.certificate_pem,)))
    front = front_of(mesh, lambda _: chosen, objection="you are not expected")
    with pytest.raises(PeerError, match="you are not expected") as refused:
        handshake(front, mesh.client_context(mesh.leaf("web"), maximum=version), sni("db"))
    assert refused.value.reason is CloseReason.BAD_IDENTITY


def test_a_failing_objection_refuses(mesh: HandMadeMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in what is asked during the handshake must not let anybody in."""
    chosen = ServiceContext(mesh.service("db").leaf, ClientTrust((mesh.authority.certificate_pem,)))
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))

    def fail(_name: str, _uris: tuple[str, ...]) -> str:
        raise ZeroDivisionError

    front = FrontContext(mesh.settings(), lambda _: chosen, fail)
    with pytest.raises(PeerError):
        handshake(front, mesh.client_context(mesh.leaf("web")), sni("db"))
    assert reported == [ZeroDivisionError]


def test_a_subject_that_cannot_be_read_is_not_passed_over() -> None:
    """It is read when it is asked for, and external services may be told it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "some service")])
    honest = crafted.issue(Issuer.of(Authority()), Wanted(subject=name), crafted.key_of()).public_bytes(crafted.DER)
    assert _uris(honest) == ((), False)
    with pytest.raises(ValueError, match="pars"):
        _uris(honest.replace(b"some service", b"\xff" * 12))
