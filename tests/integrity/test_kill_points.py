"""A fault at every step of a connection's life: whatever fails wherever, it ends once and leaves nothing behind.

The seams are the calls into the kernel and into OpenSSL, the decision, and the dial. One run without a fault counts
them; then each of them fails in turn, in each way.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from plugin.dev.external import load_key_pair
from plugin.dev.pki import Authority
from proxy import tcp_carriage
from proxy.model import CloseReason, UpstreamTLS
from proxy.policy.intentions import Policy
from proxy.tls.session import ServerSession, TLSSession, UpstreamSession
from tests.support.mesh import HandMadeMesh, allow, sni
from tests.support.plane import Peer, PlaneUnderTest

UPLOAD, ANSWER = b"u" * 40_000, b"a" * 40_000
PARTNER = Authority("Partner CA")
_SOCKET_SEAMS = ("recv_into", "send", "shutdown", "setsockopt", "getsockopt", "connect_ex")
_SESSION_SEAMS = ("feed", "lend", "keep", "read", "write", "outgoing", "sent", "close_notify", "version")


class Fault(enum.StrEnum):
    RESET = "reset"
    """The kernel says that the peer has gone."""
    BUG = "bug"
    """A mistake of this program, in a call that is not the kernel's."""
    CLOSE = "close"
    """Somebody ends the connection at this very moment."""


class Seams:
    """Counts the calls of every seam, and lets one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, at: int = 0, fault: Fault = Fault.RESET) -> None:
        self.armed = False
        self.count = 0
        self.failed = ""
        self.close: Callable[[], None] = lambda: None
        self._at, self._fault = at, fault
        self._patch(monkeypatch)

    def _patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seams = self

        class FaultySocket(socket.socket):
            """What the data plane has of either side."""

            def accept(self) -> tuple[socket.socket, Any]:
                accepted, address = super().accept()
                return FaultySocket(fileno=accepted.detach()), address

        for name in _SOCKET_SEAMS:
            setattr(FaultySocket, name, self._wrapped(f"socket.{name}", getattr(socket.socket, name)))
        self.socket_type = FaultySocket
        monkeypatch.setattr(socket, "socket", FaultySocket)
        for name in _SESSION_SEAMS:
            monkeypatch.setattr(TLSSession, name, self._wrapped(f"tls.{name}", getattr(TLSSession, name)))
        for kind in (ServerSession, UpstreamSession):
            monkeypatch.setattr(kind, "handshake", self._wrapped("tls.handshake", kind.handshake))
        monkeypatch.setattr(ServerSession, "peer_uris", self._wrapped("tls.peer_uris", ServerSession.peer_uris))
        monkeypatch.setattr(Policy, "authorize", seams._wrapped("authorize", Policy.authorize))
        for name in ("TLSChannel", "Relay"):
            monkeypatch.setattr(tcp_carriage, name, self._wrapped(name, getattr(tcp_carriage, name)))

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def seam(*arguments: Any, **named: Any) -> Any:
            self.count += self.armed
            if self.armed and self.count == self._at:
                self.failed = name
                self._fail(name, arguments)
            return function(*arguments, **named)

        return seam

    def _fail(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self._fault is Fault.CLOSE:
            self.close()
        elif name.startswith("socket.") and self._fault is Fault.RESET:
            with contextlib.suppress(OSError):
                _SHUTDOWN(arguments[0], socket.SHUT_RDWR)  # what was told of a reset has nothing more to say
            raise ConnectionResetError(104, "Connection reset by peer")
        elif not name.startswith("socket.") and self._fault is Fault.BUG:
            raise RuntimeError(f"a bug in {name}")


@pytest.fixture(scope="module")
def mesh() -> HandMadeMesh:
    return HandMadeMesh()


@pytest.fixture(scope="module")
def upstream_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_key_pair(context, PARTNER.server("db.example"))
    return context


def run(mesh: HandMadeMesh, upstream_context: ssl.SSLContext | None, seams: Seams) -> tuple[int, CloseReason]:
    """One connection from its beginning to its end: how many seams it met, and why it ended."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.setblocking(False)
        under_test = stack.enter_context(PlaneUnderTest())
        tls = upstream_context and UpstreamTLS(ca_pem=PARTNER.certificate_pem, server_name="db.example")
        service = mesh.service("db", listening.getsockname()[1], intentions=(allow("web"),), upstream_tls=tls)
        under_test.update(mesh=mesh.settings(), upserts=(service,))

        def close() -> None:
            for one in under_test.plane.live:
                under_test.loop.call_soon(one.close, CloseReason.KILLED, "at this very moment")

        seams.close = close
        connected = _PLAIN_SOCKET(socket.AF_INET, socket.SOCK_STREAM)
        connected.connect(("127.0.0.1", under_test.port))
        client = Peer(connected, mesh.client_context(mesh.leaf("web")), sni("db"))
        seams.armed = True
        _converse(under_test, client, listening, upstream_context, seams)
        client.close()
        assert under_test.until(lambda: not under_test.plane.live), f"it does not end after a fault of {seams.failed}"
        seams.armed = False
        under_test.check()
        assert list(under_test.closed.values()) == [1]
        (reason,) = under_test.reasons
    return seams.count, reason


_PLAIN_SOCKET = socket.socket
_SHUTDOWN = socket.socket.shutdown


def _converse(
    under_test: PlaneUnderTest, client: Peer, listening: socket.socket, context: ssl.SSLContext | None, seams: Seams
) -> None:
    """Upload, answer, and end by half closes, as far as it goes."""
    upstreams: list[Peer] = []

    def accept() -> None:
        with contextlib.suppress(BlockingIOError):
            accepted, _ = listening.accept()
            upstreams.append(Peer(_PLAIN_SOCKET(fileno=accepted.detach()), context))

    def over() -> bool:
        return bool(under_test.closed) or bool(client.ended and (not upstreams or upstreams[0].ended))

    def reached(holds: Callable[[], object]) -> bool:
        def either() -> bool:
            accept()
            for peer in upstreams:
                peer.step()
            return over() or bool(holds())

        assert under_test.until(either, client), f"nothing moves after a fault of {seams.failed}, {seams.count}"
        return not over()

    try:
        if not reached(lambda: client.established):
            return
        client.send(UPLOAD)
        if not reached(lambda: upstreams and upstreams[0].received == UPLOAD):
            return
        upstreams[0].send(ANSWER)
        if reached(lambda: client.received == ANSWER):
            client.finish()
            reached(lambda: upstreams[0].ended)
            upstreams[0].finish()
            reached(lambda: False)
    finally:
        accept()
        for peer in upstreams:
            # Never a byte that the client has not sent, and never a wrong end.
            assert UPLOAD.startswith(peer.received)
            assert peer.ended != "end" or peer.received == UPLOAD or not peer.received
            peer.close()
        assert ANSWER.startswith(client.received)
        assert client.ended != "end" or client.received == ANSWER or not client.received


@pytest.fixture
def quiet() -> Iterator[None]:
    """The log tells of every bug, with its traceback."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("secured", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.usefixtures("quiet")
def test_a_fault_at_every_step(
    mesh: HandMadeMesh,
    upstream_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    secured: bool,
) -> None:
    context = upstream_context if secured else None
    with monkeypatch.context() as patched:
        steps, reason = run(mesh, context, Seams(patched))
    assert reason is CloseReason.CLIENT_EOF
    assert steps > 30
    reasons = set()
    for at in range(1, steps + 1):
        with monkeypatch.context() as patched:
            seams = Seams(patched, at=at, fault=fault)
            reasons.add(run(mesh, context, seams)[1])
    wanted = {Fault.RESET: CloseReason.CLIENT_RESET, Fault.BUG: CloseReason.INTERNAL, Fault.CLOSE: CloseReason.KILLED}
    assert wanted[fault] in reasons
