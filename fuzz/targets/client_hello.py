"""Any bytes, in any chunks, are a handshake that goes on or a PeerError with its close reason, and nobody gets in."""

from __future__ import annotations

from functools import lru_cache

from fuzz.draw import Draw
from proxy.errors import PeerError
from proxy.messages import Update
from proxy.model import CloseReason
from proxy.routes import RouteTable
from proxy.rules import Action
from proxy.sockets.channel import Buffers
from proxy.tls.session import ServerSession
from tests.support.mesh import HandMadeMesh

CODE = ("proxy.tls.session", "proxy.tls.context")

_REASONS = {
    CloseReason.NOT_TLS,
    CloseReason.NO_SERVER_NAME,
    CloseReason.UNKNOWN_SERVER_NAME,
    CloseReason.NO_CERTIFICATE,
    CloseReason.UNTRUSTED_CERTIFICATE,
    CloseReason.TLS_FAILED,
}


@lru_cache(maxsize=1)
def _worker() -> tuple[RouteTable, Buffers]:
    mesh, table = HandMadeMesh(), RouteTable()
    table.apply(Update(generation=1, mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db"),), full=True))
    return table, Buffers()


def run(data: bytes) -> None:
    table, buffers = _worker()
    session = table.accept()
    assert session is not None
    draw = Draw(data)
    cuts = [1 + draw.below(255) for _ in range(draw.below(6))]
    while draw.left:
        chunk = draw.take(cuts.pop() if cuts else draw.left)
        buffers.cipher.view[: len(chunk)] = chunk
        session.feed(buffers.cipher, len(chunk))
        reason = _reason(session)
        if reason is not None:
            assert reason in _REASONS
            break
    assert not session.has_peer_certificate()


def _reason(session: ServerSession) -> CloseReason | None:
    """Why the handshake ended with the bytes so far; ``None`` while it goes on."""
    try:
        done = session.handshake()
    except PeerError as error:
        return error.reason
    assert not done
    return None
