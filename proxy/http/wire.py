"""One channel as HTTP sees it: bytes in, bytes out, and how much is waiting.

What is written in one turn leaves in one piece: the head of a message, its small body and the last chunk are one
record and one system call. A turn ends when the callback of a socket returns, or at the latest with the next turn of
the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Protocol

from proxy.errors import PeerError, UpstreamError
from proxy.http.message import Data
from proxy.sockets.channel import END, READ_SIZE, Buffers, Channel
from proxy.sockets.poller import Callback, Poller

_READS_PER_WAKE = 4
_COALESCED = 16 * 1024
"""Bytes. What is larger goes straight to the channel."""
_CONGESTED = 256 * 1024
"""Bytes that wait for a slow peer before ``write`` asks for a pause."""

LOST = (OSError, PeerError, UpstreamError)
"""What a broken connection, or a broken TLS session, is told by."""


class WireOwner(Protocol):
    """The protocol that is spoken over the wire."""

    def on_bytes(self, data: memoryview) -> None:
        """Received; valid until this returns."""

    def on_end(self, *, cut: bool) -> None:
        """The peer sends no more; ``cut``: its TLS session ended without its last word."""

    def on_lost(self, error: Exception) -> None:
        """The connection is broken (one of ``LOST``, or a bug). The owner closes the wire."""

    def on_room(self) -> None:
        """Everything that was waiting has been taken, after ``write`` had asked for a pause."""


class Turn:
    """The wires of one worker that have something to send at the end of this turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wires: list[Wire] = []
        self._depth = 0
        self._scheduled = False

    def add(self, wire: Wire) -> None:
        self._wires.append(wire)
        if not self._depth and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Everything that is written inside leaves at its end."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        self._depth += 1

    def end(self) -> None:
        self._depth -= 1
        if not self._depth and self._wires:
            self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        while self._wires:
            wires, self._wires = self._wires, []
            for wire in wires:
                wire.flush()


class Wire:
    """See the module. Until :meth:`listen` nothing is received."""

    __slots__ = (
        "_asked_for_pause",
        "_buffers",
        "_channel",
        "_ended",
        "_failure",
        "_finish_cut",
        "_finishing",
        "_passed_on",
        "_poller",
        "_queue",
        "_queued",
        "_reading",
        "_told",
        "_turn",
        "bytes_received",
        "bytes_sent",
        "closed",
        "owner",
        "untouched",
    )

    owner: WireOwner
    """Whoever speaks over it sets this, before anything can be told."""

    def __init__(self, poller: Poller, buffers: Buffers, turn: Turn, channel: Channel, owner: WireOwner | None) -> None:
        if owner is not None:
            self.owner = owner
        self.closed = False
        self.bytes_received = 0
        self.bytes_sent = 0
        """Plaintext that was written, sent or not."""
        self._poller = poller
        self._buffers = buffers
        self._turn = turn
        self._channel = channel
        self._queue: list[bytes] = []
        self._queued = 0
        self._passed_on = False
        """Something of what was written may wait in the channel: asking it costs more than most writes."""
        self._reading = False
        self._told = False
        """The turn knows that there is something to send."""
        self._asked_for_pause = False
        self._finishing = False
        self._finish_cut = False
        self._ended = False
        """The peer's direction: nothing more is read."""
        self._failure: Exception | None = None
        """What a write was told. The kernel tells of a reset once: the end that is read after it is that reset."""
        self.untouched = False
        """Nothing that was written since :meth:`mark` has left: the peer cannot have seen any of it."""
        poller.supervise(channel.fd, self._lost, self._reset)

    @property
    def alpn(self) -> bytes:
        """What was negotiated in the handshake; empty: nothing was."""
        return self._channel.alpn()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._poller.loop

    def soon(self, callback: Callback) -> None:
        """Call it in a later turn, unless the wire is closed by then. Its mistakes are told as any other's."""
        self._poller.loop.call_soon(self._run, callback)

    def after(self, delay_s: float, callback: Callback) -> asyncio.TimerHandle:
        """As :meth:`soon`, that much later."""
        return self._poller.loop.call_later(delay_s, self._run, callback)

    def _run(self, callback: Callback) -> None:
        if not self.closed:
            with self._turn.one():
                self._poller.run(self._channel.fd, callback)

    # --- receiving -------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Receive from now on; what has come already is delivered in a later turn."""
        if self._reading or self.closed:
            return
        self._reading = True
        self._poller.on_readable(self._channel.fd, self._on_readable)
        if self._channel.more:
            self._poller.loop.call_soon(self._read_now)

    def pause(self) -> None:
        self._reading = False
        if not self.closed:
            self._poller.ignore_readable(self._channel.fd)

    def _read_now(self) -> None:
        if self._reading and not self.closed:
            self._poller.run(self._channel.fd, self._on_readable)

    def _on_readable(self) -> None:
        turn = self._turn
        turn.begin()
        try:
            self._receive()
        finally:
            turn.end()

    def _receive(self) -> None:
        channel, view = self._channel, self._buffers.plain.view
        for _ in range(_READS_PER_WAKE):
            try:
                received = channel.receive()
            except LOST as error:
                self.owner.on_lost(error)
                return
            if received == END:
                self._reading, self._ended = False, True
                self._poller.ignore_readable(channel.fd)
                if self._failure is not None:
                    self.owner.on_lost(self._failure)
                else:
                    self.owner.on_end(cut=channel.cut)
                return
            if received < 0:
                return
            self.bytes_received += received
            self.owner.on_bytes(view[:received])
            if not self._reading or self.closed or not channel.more:
                return
        # Other connections get their turn first; the socket alone might not wake us again.
        self._poller.loop.call_soon(self._read_now)

    # --- sending ---------------------------------------------------------------------------------------------

    def write(self, data: Data) -> bool:
        """Take ``data``; false asks for a pause until ``on_room``. Errors are told to the owner in a later turn."""
        if self.closed or self._failure is not None:
            return True
        length = len(data)
        self.bytes_sent += length
        if length > _COALESCED:
            self._pass_on()
            self._write_through(data)
            self.untouched = False
        else:
            self._queue.append(bytes(data))
            self._queued += length
            if self._queued > _COALESCED:
                self._pass_on()
                self.untouched = False
        if not self._told:
            self._told = True
            self._turn.add(self)
        if self._passed_on and self._queued + self._channel.waiting > _CONGESTED:
            self._asked_for_pause = True
        return not self._asked_for_pause

    @property
    def waiting(self) -> int:
        """Bytes that the peer has not taken; once the wire has failed nobody will."""
        if self.closed or self._failure is not None:
            return 0
        return self._queued + (self._channel.waiting if self._passed_on else 0)

    def hold(self, change: int) -> None:
        """So many bytes more, or less, are kept by the owner for whoever is slow to take them."""
        self._buffers.stall(change)

    @property
    def short(self) -> bool:
        """The worker keeps as much for the slow as it should."""
        return self._buffers.largest_read < READ_SIZE

    def mark(self) -> None:
        """See ``untouched``; what was written before may not have left either, then it stays false."""
        self.untouched = not self.waiting

    def finish(self, *, cut: bool = False) -> None:
        """End our direction after everything that was written."""
        if self.closed or self._finishing:
            return
        self._finishing = True
        self._finish_cut = cut
        self._pass_on()
        try:
            if not self._channel.finish(cut=cut):
                self._poller.on_writable(self._channel.fd, self._on_writable)
        except LOST as error:
            if self._ended:  # else the other direction tells
                self._fail(error)

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it."""
        self._told = False
        if self.closed or self._failure is not None:
            return
        queued = self._queued
        try:
            self._pass_on()
            if self.untouched and not self._has_failed() and self._channel.waiting < queued:
                self.untouched = False  # the socket took some of it at once
            if self._channel.flush():
                self._passed_on = False
                self._emptied()
                self.untouched = self.untouched and self._has_failed()
            else:
                self.untouched = False
                self._channel.note_waiting()
                self._poller.on_writable(self._channel.fd, self._on_writable)
        except LOST as error:
            self._fail(error)

    def _has_failed(self) -> bool:
        return self._failure is not None

    def _pass_on(self) -> None:
        if self._queue:
            queue, self._queue, self._queued = self._queue, [], 0
            self._write_through(queue[0] if len(queue) == 1 else b"".join(queue))

    def _write_through(self, data: Data) -> None:
        self._passed_on = True
        try:
            self._channel.write(data)
        except LOST as error:
            self._fail(error)

    def _on_writable(self) -> None:
        self._turn.begin()
        try:
            channel = self._channel
            if channel.finish(cut=self._finish_cut) if self._finishing else channel.flush():
                self._poller.ignore_writable(channel.fd)
                self._emptied()
        except LOST as error:
            self._fail(error)
        finally:
            self._turn.end()

    def _emptied(self) -> None:
        if self._asked_for_pause and not self._finishing:
            self._asked_for_pause = False
            self._poller.loop.call_soon(self._make_room)

    def _make_room(self) -> None:
        if not self.closed and not self._asked_for_pause:
            self._poller.run(self._channel.fd, self._tell_room)

    def _tell_room(self) -> None:
        with self._turn.one():
            self.owner.on_room()

    # --- the end ---------------------------------------------------------------------------------------------

    def close(self, *, reset: bool) -> None:
        """Close the socket now; what was not sent is lost. The owner hears nothing more."""
        if self.closed:
            return
        if not reset:
            self.flush()
        self.closed = True
        self._queue.clear()
        self._poller.forget(self._channel.fd)
        self._channel.close(reset=reset)

    def hint(self) -> str:
        """What may be why the peer ended without a word; empty when nothing is known."""
        return self._channel.hint()

    def _fail(self, error: Exception) -> None:
        """Told later: a writer is in the middle of something. What the peer had sent before is read first."""
        if self.closed or self._failure is not None:
            return
        self._failure = error
        self._queue.clear()
        self._queued = 0
        self._poller.ignore_writable(self._channel.fd)
        if not (self._reading and isinstance(error, OSError)):
            self._poller.loop.call_soon(self._lost, error)

    def _lost(self, error: Exception) -> None:
        """Also a mistake in a callback, or a reset while nobody read or wrote."""
        if not self.closed:
            with self._turn.one():
                self.owner.on_lost(error)

    def _reset(self) -> None:
        self._lost(self._failure or ConnectionResetError("the connection was reset"))
