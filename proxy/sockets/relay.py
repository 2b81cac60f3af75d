"""Two-way copying between a client and an external service.

Rules, for each direction:

1. What was received is offered to the other side at once; what it does not take stays with that side's channel,
   and nothing more is received until it has gone: memory is bounded by one read per direction.
2. The end of one direction is passed on (FIN, or close_notify and FIN) after its last byte; the other goes on.
3. A failed *write* kills only its direction. What the peer had sent before it went is still delivered: its own
   direction then meets the end or the reset, and that decides. The kernel tells of a reset once: when the write was
   told, the end that the other direction meets is that reset. Delivery goes on while the receiver takes something;
   what the receiver itself still says is heard by nobody, and is read only so that it can go on.
4. A reset is passed on as a reset, and a TLS session that ended without close_notify as one.
5. An end is passed on as an end only when a peer made it. Whatever else ends a connection (policy, a limit, a drain,
   a bug, the death of this process) resets both sides: what was cut must not look complete.

The relay ends exactly once, through :meth:`Relay.close`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.errors import PeerError, UpstreamError
from proxy.model import CloseReason
from proxy.sockets.channel import END, Channel
from proxy.sockets.poller import Poller
from proxy.sockets.streams import Pace, Streams

_READS_PER_WAKE = 4
"""A fast stream gives way to the other connections of the worker after this many reads."""
_LAST_WORDS_S = 10.0
"""A receiver must take some of what a lost peer had sent at least so often, or it is told of the reset."""


class _Direction:
    """Copies from ``source`` to ``sink``."""

    __slots__ = ("broken", "bytes", "dead", "ended", "finished", "pace", "relay", "sink", "source", "stalled", "taken")

    def __init__(self, relay: Relay, source: Channel, sink: Channel) -> None:
        self.relay = relay
        self.source = source
        self.sink = sink
        self.bytes = 0
        self.pace = Pace()
        self.stalled = False
        self.taken = False
        """The sink took something since that was last looked at."""
        self.ended = False
        self.finished = False
        self.dead = False
        self.broken: Exception | None = None
        """What a write was told, when the sink's connection has broken down and not only ended (``EPIPE``)."""

    def listen(self) -> None:
        self.relay.poller.on_readable(self.source.fd, self.on_readable)

    def wait_for(self, length: int) -> None:
        self.source.wait_for(length)

    def read_now(self) -> None:
        if not (self.relay.closed or self.stalled or self.ended):
            self.relay.poller.run(self.source.fd, self.on_readable)

    def silence(self) -> None:
        """Be called no more."""
        self.relay.poller.ignore_readable(self.source.fd)
        self.relay.poller.ignore_writable(self.sink.fd)

    def _await_room(self) -> None:
        self.stalled = True
        self.relay.poller.on_writable(self.sink.fd, self._on_sink_writable)

    def on_readable(self) -> None:
        source = self.source
        self.relay.moved = True
        for _ in range(_READS_PER_WAKE):
            try:
                received = source.receive()
            except (OSError, PeerError, UpstreamError) as error:
                self.relay.source_failed(self, error)
                return
            if received > 0:
                self.bytes += received
                self.relay.streams.note(self, self.pace, received)
                if not self._send(received) or not source.more:
                    return
            elif received == END:
                self._source_ended()
                return
            else:
                return
        if source.more:
            # Other connections get their turn first; the socket alone might not wake us again.
            self.relay.loop.call_soon(self.read_now)

    def _send(self, length: int) -> bool:
        try:
            if self.sink.transmit(length):
                return True
        except (OSError, PeerError, UpstreamError) as error:
            self._sink_failed(error)
            return False
        self._stall()
        return False

    def _stall(self) -> None:
        self.silence()
        self._await_room()

    def _on_sink_writable(self) -> None:
        self.relay.moved = self.taken = True
        try:
            if not (self._finish_sink() if self.ended else self.sink.flush()):
                return
        except (OSError, PeerError, UpstreamError) as error:
            self._sink_failed(error)
            return
        self.silence()
        self.stalled = False
        if self.ended:
            self._finish()
        else:
            self.listen()
            if self.source.more:
                self.on_readable()

    def _source_ended(self) -> None:
        if (broken := self.relay.broken(self)) is not None:
            self.relay.source_failed(self, broken)
            return
        self.ended = True
        self.silence()
        self.relay.note_end(self)
        try:
            if self._finish_sink():
                self._finish()
                return
        except (OSError, PeerError, UpstreamError) as error:
            self._sink_failed(error)
            return
        self._await_room()

    def _finish_sink(self) -> bool:
        return self.sink.finish(cut=self.source.cut)

    def _finish(self) -> None:
        self.finished = True
        self.relay.direction_finished()

    def _sink_failed(self, error: Exception) -> None:
        """The sink takes no more; what it sent before is still to be delivered by the other direction."""
        if not isinstance(error, BrokenPipeError):
            self.broken = error
        self.silence()
        self.ended = self.dead = True
        self._finish()
        if not self.relay.closed:
            self.relay.peer_lost(self.sink)
            self.relay.poller.on_readable(self.source.fd, self._discard)
            self.discard_now()

    def source_lost(self) -> None:
        self.relay.peer_lost(self.source)

    def discard_now(self) -> None:
        if not self.relay.closed:
            self.relay.poller.run(self.source.fd, self._discard)

    def _discard(self) -> None:
        """A service that answers while it reads takes nothing more until its answers are taken."""
        source = self.source
        for _ in range(_READS_PER_WAKE):
            try:
                received = source.receive()
            except (OSError, PeerError, UpstreamError) as error:
                self.relay.source_failed(self, error)
                return
            if received == END:
                self.relay.poller.ignore_readable(source.fd)
                return
            if received < 0:
                return
        if source.more:
            self.relay.loop.call_soon(self.discard_now)


class Relay:
    """Joins two channels until both directions have finished."""

    __slots__ = (
        "_client",
        "_down",
        "_first_end",
        "_last_words",
        "_on_close",
        "_on_half_closed",
        "_up",
        "_upstream",
        "closed",
        "loop",
        "moved",
        "poller",
        "streams",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        client: Channel,
        upstream: Channel,
        on_close: Callable[[CloseReason, str], None],
        streams: Streams,
        on_half_closed: Callable[[], None] | None = None,
    ) -> None:
        """``on_close`` is called once, after both sockets are closed, with the reason and a detail.

        :param on_half_closed: is called once, when the first direction has ended.
        """
        self.loop = loop
        self.poller = poller
        self.streams = streams
        self.closed = False
        self.moved = False
        self._client = client
        self._upstream = upstream
        self._on_close: Callable[[CloseReason, str], None] | None = on_close
        self._on_half_closed = on_half_closed
        self._up: _Direction | None = _Direction(self, client, upstream)
        self._down: _Direction | None = _Direction(self, upstream, client)
        self._first_end: CloseReason | None = None
        self._last_words: asyncio.TimerHandle | None = None

    @property
    def bytes_received(self) -> int:
        """From the client."""
        return self._up.bytes if self._up else 0

    @property
    def bytes_sent(self) -> int:
        """To the client."""
        return self._down.bytes if self._down else 0

    @property
    def half_closed(self) -> bool:
        """Whether one side has ended."""
        return any(direction is not None and direction.ended for direction in (self._up, self._down))

    def start(self) -> None:
        assert self._up is not None
        assert self._down is not None
        for direction in (self._up, self._down):
            self.poller.supervise(direction.source.fd, self._broken, direction.source_lost)
        self._up.listen()
        self._down.listen()
        # Data, or the end, may have come with the last bytes of either handshake: no socket event announces it.
        for direction in (self._up, self._down):
            if not self.closed and direction and direction.source.more:
                direction.on_readable()

    def note_end(self, direction: _Direction) -> None:
        if self._first_end is None:
            self._first_end = CloseReason.CLIENT_EOF if direction is self._up else CloseReason.UPSTREAM_EOF
        if self._on_half_closed is not None:
            self._half_closed()

    def _half_closed(self) -> None:
        on_half_closed, self._on_half_closed = self._on_half_closed, None
        if on_half_closed:
            on_half_closed()

    def broken(self, direction: _Direction) -> Exception | None:
        """How the connection of this direction's source broke down, when the other direction was told."""
        other = self._down if direction is self._up else self._up
        return other.broken if other is not None else None

    def source_failed(self, direction: _Direction, error: Exception) -> None:
        from_client = direction is self._up
        if isinstance(error, PeerError | UpstreamError):
            self.close(error.reason, str(error))
        else:
            reason = CloseReason.CLIENT_RESET if from_client else CloseReason.UPSTREAM_RESET
            told = (error.strerror or "") if isinstance(error, OSError) else str(error)
            self.close(reason, "; ".join(filter(None, (told, self._hint(reason)))))

    def peer_lost(self, peer: Channel) -> None:
        """Its connection has broken down, and some of what it sent may not be delivered yet."""
        direction = self._up if peer is self._client else self._down
        if self._last_words is None and direction is not None and not direction.ended:
            direction.taken = False
            self._last_words = self.loop.call_later(_LAST_WORDS_S, self._check_last_words, direction)

    def _check_last_words(self, direction: _Direction) -> None:
        if direction.taken:
            direction.taken = False
            self._last_words = self.loop.call_later(_LAST_WORDS_S, self._check_last_words, direction)
        else:
            reason = CloseReason.CLIENT_RESET if direction is self._up else CloseReason.UPSTREAM_RESET
            self.close(reason, f"what it had sent before was not taken for {_LAST_WORDS_S:g} s")

    def direction_finished(self) -> None:
        up, down = self._up, self._down
        if up is None or down is None:
            return
        if not (up.finished and down.finished):
            if self._on_half_closed is not None:
                self._half_closed()
            return
        if self._first_end is None:
            self._first_end = CloseReason.UPSTREAM_RESET if up.dead else CloseReason.CLIENT_RESET
        self._end(self._first_end, self._hint(self._first_end), reset=False)

    def _hint(self, reason: CloseReason) -> str:
        """Why an external service that never sent a byte may have ended the connection."""
        if reason not in (CloseReason.UPSTREAM_EOF, CloseReason.UPSTREAM_RESET) or self.bytes_sent:
            return ""
        return self._upstream.hint()

    def _broken(self, error: Exception) -> None:
        self.close(CloseReason.INTERNAL, f"{type(error).__name__}: {error}")

    def close(self, reason: CloseReason, detail: str) -> None:
        """Reset both sides now: neither has said its last word. The first call decides; later ones do nothing."""
        self._end(reason, detail, reset=True)

    def _end(self, reason: CloseReason, detail: str, *, reset: bool) -> None:
        if self.closed:
            return
        self.closed = True
        for direction in (self._up, self._down):
            if direction is not None and direction.pace.streaming:
                self.streams.leave(direction, direction.pace)
        for channel in (self._client, self._upstream):
            self.poller.forget(channel.fd)
            channel.close(reset=reset)
        if self._last_words is not None:
            self._last_words.cancel()
        self._on_half_closed = None
        on_close, self._on_close = self._on_close, None
        if on_close:
            on_close(reason, detail)
        # The directions point back here: without this the cycle collector would have to find every connection.
        self._up = self._down = None
