"""One control connection to a worker: frames out without ever waiting, frames in as they come.

Knows framing and flow, not meaning. A worker that reads slowly makes its channel :attr:`busy`; whoever sends then
keeps the change and sends the newest state on ``on_writable``, so nothing piles up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from proxy.errors import FrameError
from proxy.frames import ControlFrames
from proxy.messages import ToControl


class Channel(asyncio.Protocol):
    def __init__(
        self,
        *,
        on_frame: Callable[[ToControl], None],
        on_writable: Callable[[], None],
        on_closed: Callable[[str], None],
        frames: ControlFrames | None = None,
    ) -> None:
        """``on_closed`` is called once, with a problem or an empty text. ``frames`` may already have read some."""
        self._on_frame = on_frame
        self._on_writable = on_writable
        self._on_closed = on_closed
        self._frames = frames or ControlFrames()
        self._transport: asyncio.Transport | None = None
        self._problem = ""
        self.busy = False
        """The worker has not read what it was sent; hold further frames back."""

    @classmethod
    async def open(
        cls,
        connected: socket.socket,
        *,
        on_frame: Callable[[ToControl], None],
        on_writable: Callable[[], None],
        on_closed: Callable[[str], None],
        frames: ControlFrames | None = None,
    ) -> Channel:
        """Take over a connected stream socket."""
        connected.setblocking(False)
        channel = cls(on_frame=on_frame, on_writable=on_writable, on_closed=on_closed, frames=frames)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=connected)
        return channel

    @property
    def open_for_frames(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, frame: bytes) -> None:
        """Queue an encoded frame; a closed channel swallows it, as ``on_closed`` has told or is about to."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def send_descriptors(self, frame: bytes, descriptors: Sequence[int]) -> bool:
        """Send ``frame`` with descriptors (``SCM_RIGHTS``); false when other bytes wait before it: try again soon."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return True
        if transport.get_write_buffer_size():
            return False
        with transport.get_extra_info("socket").dup() as connected:
            try:
                sent = socket.send_fds(connected, [frame], list(descriptors))
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                self._problem = str(error)
                self.close()
                return True
        if sent < len(frame):
            transport.write(frame[sent:])
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._on_frame(frame)
        except FrameError as error:
            self._problem = str(error)
            self.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.busy = True

    def resume_writing(self) -> None:
        self.busy = False
        self._on_writable()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._on_closed(self._problem or (str(error) if error else ""))
