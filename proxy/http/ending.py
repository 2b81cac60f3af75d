"""The last moments of a connection on which everything was said that will be.

Closing a socket while the peer still sends makes the kernel send a reset, which may overtake what the peer has not
read yet. So our direction is ended first, and what still comes is read and dropped until the peer has ended its own,
or for a moment.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.http.wire import Wire

_TICK_S = 1.0
_PATIENCE_TICKS = 10
"""So long a peer may take nothing of what waits for it."""
_MOST_DROPPED = 1024 * 1024


class Ending:
    """The owner of a wire until it is closed."""

    __slots__ = ("_done", "_dropped", "_ended", "_stuck", "_timer", "_waited", "_wire")

    def __init__(self, wire: Wire, done: Callable[[], None], *, ended: bool) -> None:
        """``done`` is called once, in a later turn, when the socket is closed.

        :param ended: the peer has ended its direction already.
        """
        self._wire = wire
        self._done = done
        self._ended = ended
        self._dropped = 0
        self._waited = 0
        self._stuck = 0
        wire.owner = self
        wire.finish()
        self._timer = wire.after(_TICK_S, self._tick)
        if ended:
            wire.soon(self._look)
        else:
            wire.listen()

    def stop(self) -> None:
        """Somebody else closes the wire."""
        self._timer.cancel()

    def on_bytes(self, data: memoryview) -> None:
        self._dropped += len(data)
        if self._dropped > _MOST_DROPPED:
            self._wire.pause()

    def on_end(self, *, cut: bool) -> None:
        self._ended = True
        self._look()

    def on_lost(self, error: Exception) -> None:
        self._close(reset=True)

    def on_room(self) -> None:
        pass

    def _look(self) -> None:
        if self._ended and not self._wire.waiting:
            self._close(reset=False)

    def _tick(self) -> None:
        waiting = self._wire.waiting
        if not waiting:
            self._close(reset=False)
            return
        self._stuck = self._stuck + 1 if waiting == self._waited else 0
        self._waited = waiting
        if self._stuck >= _PATIENCE_TICKS:
            self._close(reset=True)
        else:
            self._timer = self._wire.after(_TICK_S, self._tick)

    def _close(self, *, reset: bool) -> None:
        self._timer.cancel()
        if not self._wire.closed:
            self._wire.close(reset=reset)
            self._wire.loop.call_soon(self._done)
