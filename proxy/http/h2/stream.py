"""One stream of HTTP/2, either side: a body in each direction, with flow control (RFC 9113 sections 5 and 6.9).

What comes in is delivered at once, and the peer may send more when the other side has taken it. While the stream is
paused, what still comes within its window is held here. What goes out and finds no window is held here as well; whoever
sends it was asked for a pause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from h2.errors import ErrorCodes

from proxy.http.h2.engine import Engine
from proxy.http.h2.heads import Malformed
from proxy.http.message import UNKNOWN_LENGTH, Data, Headers


class Streams(Protocol):
    """What a stream needs of its connection."""

    engine: Engine
    congested: bool
    """Too much waits for the peer to read it."""

    def send_data(self, number: int, data: memoryview, *, end: bool) -> None: ...

    def hold(self, change: int) -> None:
        """So many bytes more, or less, are kept by a stream."""

    def give_back(self, number: int, length: int) -> None: ...

    def wait_for_room(self, stream: Stream) -> None:
        """:meth:`Stream.pump` is called when there may be room."""

    def later(self, callback: Callable[[], None]) -> None:
        """In a later turn."""

    def ended(self, stream: Stream) -> None:
        """Nothing more will be said on it."""

    def reset(self, stream: Stream, code: ErrorCodes) -> None: ...


class Stream:
    __slots__ = (
        "_connection",
        "_held",
        "_held_end",
        "_kept",
        "_owed",
        "_paused",
        "_queue",
        "_received",
        "_releasing",
        "_trailers",
        "_wants_room",
        "done",
        "expected",
        "heard_end",
        "number",
        "said_end",
        "to_send",
    )

    def __init__(self, connection: Streams, number: int) -> None:
        self._connection = connection
        self.number = number
        self.expected = UNKNOWN_LENGTH
        """Bytes that Content-Length announces to come."""
        self.to_send = UNKNOWN_LENGTH
        """Bytes that are still to be sent, where the last of them is the end: nothing can follow."""
        self.heard_end = False
        self.said_end = False
        self.done = False
        """It calls nobody any more."""
        self._received = 0
        self._owed = 0
        """Bytes of the window that were not given back."""
        self._paused = False
        self._releasing = False
        self._held: deque[bytes] = deque()
        self._held_end: Headers | None = None
        self._queue: deque[memoryview] = deque()
        self._kept = 0
        """Bytes of what is held, either way."""
        self._trailers: Headers | None = None
        """The end that waits behind the queue."""
        self._wants_room = False

    # --- for the version's stream to say what it means ------------------------------------------------------------

    def on_data(self, data: Data) -> None:
        raise NotImplementedError

    def on_end(self, trailers: Headers) -> None:
        raise NotImplementedError

    def on_room(self) -> None:
        raise NotImplementedError

    # --- receiving ------------------------------------------------------------------------------------------------

    def take_data(self, data: memoryview, length: int, *, end: bool) -> None:
        """
        :param length: of the frame with its padding, which is what counts for flow control.
        :raises Malformed: when it is not as long as was announced.
        """
        self._received += len(data)
        self._check_length(end=end)
        self.heard_end = end
        self._owed += length
        if data and (self._paused or self._held):
            self._held.append(bytes(data))
            self._keep(len(data))
        elif data:
            self.on_data(data)
        if not self._paused and not self._held:
            self._give_back()
        if end:
            self._take_end([])

    def take_trailers(self, trailers: Headers) -> None:
        """:raises Malformed: when the body before them is not as long as was announced."""
        self._check_length(end=True)
        self.heard_end = True
        self._take_end(trailers)

    def _check_length(self, *, end: bool) -> None:
        if self.expected == UNKNOWN_LENGTH:
            return
        if self._received > self.expected or (end and self._received != self.expected):
            raise Malformed("Content-Length and the body differ")

    def _take_end(self, trailers: Headers) -> None:
        if self._held:
            self._held_end = trailers
        elif not self.done:
            self.on_end(trailers)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if not self._paused:
            return
        self._paused = False
        if not self._held and self._held_end is None:
            self._give_back()
        elif not self._releasing:
            self._releasing = True
            self._connection.later(self._release)

    def _release(self) -> None:
        self._releasing = False
        while self._held and not self._paused and not self.done:
            data = self._held.popleft()
            self._keep(-len(data))
            self.on_data(data)
        if self._paused or self.done:
            return
        self._give_back()
        if self._held_end is not None:
            trailers, self._held_end = self._held_end, None
            self.on_end(trailers)

    def _give_back(self) -> None:
        if self._owed and not self.done:
            owed, self._owed = self._owed, 0
            self._connection.give_back(0 if self.heard_end else self.number, owed)

    def _keep(self, change: int) -> None:
        self._kept += change
        self._connection.hold(change)

    # --- sending --------------------------------------------------------------------------------------------------

    def send(self, data: Data) -> bool:
        if self.done or self.said_end or self._trailers is not None or not data:
            return True
        sent = 0 if self._queue else self._write(data if isinstance(data, memoryview) else memoryview(data))
        if sent < len(data) and not self.done:
            self._queue.append(memoryview(bytes(data[sent:] if sent else data)))
            self._keep(len(data) - sent)
        # With its last byte a stream may have ended, and nothing more is to be sent.
        if self._queue or (self._connection.congested and not self.said_end):
            self._wants_room = True
            self._connection.wait_for_room(self)
            return False
        return True

    def finish(self, trailers: Headers) -> None:
        if self.done or self.said_end or self._trailers is not None:
            return
        self._trailers = trailers
        if not self._queue:
            self._write_end()

    @property
    def is_held(self) -> bool:
        """Something of it waits for a window."""
        return bool(self._queue)

    def pump(self, most: int) -> bool:
        """Send what waits, at most so many bytes; true when it has to wait longer."""
        while self._queue and most > 0:
            piece = self._queue[0]
            sent = self._write(piece[:most])
            if not sent:
                return True
            if not self._queue:
                break  # with that the stream has ended
            most -= sent
            self._keep(-sent)
            if sent == len(piece):
                self._queue.popleft()
            else:
                self._queue[0] = piece[sent:]
        if self.done:
            return False
        if self._queue:
            return True
        if self._trailers is not None:
            if not self.said_end:  # the last byte may have said it
                self._write_end()
            return False
        if self._wants_room and not self._connection.congested:
            self._wants_room = False
            self.on_room()
        return self._wants_room and not self.done

    def _write(self, data: memoryview) -> int:
        """What there is window for. Returns how much that was.

        Nothing while much waits already: then the stream stays open, and counts among those that the peer may have.
        """
        if self._connection.congested:
            return 0
        engine = self._connection.engine
        length = min(len(data), engine.room(self.number))
        if length <= 0:
            return 0
        ends = False
        if self.to_send != UNKNOWN_LENGTH:
            if length > self.to_send:
                self._connection.reset(self, ErrorCodes.INTERNAL_ERROR)
                return length
            self.to_send -= length
            ends = self.to_send == 0
        self._connection.send_data(self.number, data[:length], end=ends)
        if ends:
            self._said_end()
        return length

    def _write_end(self) -> None:
        engine, trailers = self._connection.engine, self._trailers
        if self.to_send > 0:
            # Less than was announced: nobody may take it for complete.
            self._connection.reset(self, ErrorCodes.INTERNAL_ERROR)
            return
        if trailers:
            engine.headers(self.number, trailers, end=True)
        else:
            self._connection.send_data(self.number, memoryview(b""), end=True)
        self._said_end()

    def _said_end(self) -> None:
        self.said_end = True
        self.on_said_end()

    def on_said_end(self) -> None:
        """Our direction is finished."""

    # --- the end --------------------------------------------------------------------------------------------------

    def finish_off(self) -> None:
        """It has ended, one way or the other. What it owes to the window of the connection is given back."""
        self.done = True
        self._queue.clear()
        self._held.clear()
        if self._kept:
            self._keep(-self._kept)
        owed, self._owed = self._owed, 0
        if owed:
            self._connection.give_back(0, owed)
