"""Driving a TLS handshake over a non-blocking socket, either side."""

from __future__ import annotations

import socket
from collections.abc import Callable

from proxy.errors import PeerError, UpstreamError
from proxy.model import CloseReason
from proxy.sockets.channel import Buffers
from proxy.sockets.steps import Steps
from proxy.tls.session import ServerSession, TLSSession, UpstreamSession


async def accept(
    steps: Steps,
    client: socket.socket,
    session: ServerSession,
    buffers: Buffers,
    speaks: Callable[[int], None],
    number: int,
) -> None:
    """Handshake with a client, which is told to ``speaks`` by its ``number`` when it says its first word. The caller
    sets the deadline.

    :raises PeerError: when it is refused; the alert that says so has been sent as far as the socket took it.
    """
    heard = False
    while True:
        received = await _receive(steps, client, buffers)
        if received == 0:
            if heard:
                raise PeerError(CloseReason.TLS_FAILED, "the client closed during the handshake")
            raise PeerError(CloseReason.NO_BYTES, "closed before the first byte")
        if not heard:
            heard = True
            speaks(number)
        session.feed(buffers.cipher, received)
        try:
            done = session.handshake()
        except PeerError:
            _send_what_fits(client, session, buffers)
            raise
        await _send(steps, client, session, buffers)
        if done:
            return


async def connect(steps: Steps, upstream: socket.socket, session: UpstreamSession, buffers: Buffers) -> None:
    """Handshake with an external service. The caller sets the deadline.

    :raises UpstreamError: when it is refused by either side.
    """
    while not session.handshake():
        await _send(steps, upstream, session, buffers)
        received = await _receive(steps, upstream, buffers)
        if received == 0:
            raise UpstreamError(
                CloseReason.UPSTREAM_TLS_FAILED,
                session.hint() or "the external service closed during the TLS handshake: is it a TLS port?",
            )
        session.feed(buffers.cipher, received)
    await _send(steps, upstream, session, buffers)


async def _receive(steps: Steps, source: socket.socket, buffers: Buffers) -> int:
    while True:
        # The peer's flight answers ours, or has hardly begun: reading before waiting would nearly always be in vain.
        await steps.readable(source)
        try:
            return source.recv_into(buffers.cipher.view)
        except (BlockingIOError, InterruptedError):
            pass


async def _send(steps: Steps, sink: socket.socket, session: TLSSession, buffers: Buffers) -> None:
    while not _send_what_fits(sink, session, buffers):
        await steps.writable(sink)


def _send_what_fits(sink: socket.socket, session: TLSSession, buffers: Buffers) -> bool:
    waiting = session.outgoing()
    if waiting is None:
        return True
    length = len(waiting)
    try:
        sent = sink.send(waiting)
    except (BlockingIOError, InterruptedError):
        return False
    session.sent(sent, buffers.cipher)
    return sent == length
