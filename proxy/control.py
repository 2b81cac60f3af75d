"""The worker's end of the link with its control process, and the door for the next one.

A control process that dies takes nothing with it: the worker serves on with what it knows, and a successor finds it
through the Unix socket at ``Start.handover_path``, gets its listening sockets, and drives it from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path

from proxy.errors import FrameError
from proxy.frames import WorkerFrames, encode
from proxy.messages import Hello, ToControl, ToWorker

logger = logging.getLogger(__name__)

_READ_SIZE = 1024 * 1024
_MOST_UNSENT = 64 * 1024 * 1024
"""Bytes. A control process that reads nothing for that long is hung; reports to it are dropped."""
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_S = 0.2
_MOST_DESCRIPTORS = 253
"""``SCM_MAX_FD`` of the kernel: as many as one message may carry."""
_PEER_CREDENTIALS = struct.Struct("3i")


class ControlLink:
    """Frames over one socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        on_frame: Callable[[ToWorker], None],
        on_lost: Callable[[], None],
    ) -> None:
        connected.setblocking(False)
        self._loop = loop
        self._socket = connected
        self._frames = WorkerFrames()
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._unsent = bytearray()
        self._descriptors: deque[int] = deque()
        self._closed = False
        loop.add_reader(connected.fileno(), self._on_readable)

    def send(self, frame: ToControl) -> None:
        """Send when the socket takes it; never waits."""
        if self._closed or len(self._unsent) > _MOST_UNSENT:
            return
        idle = not self._unsent
        self._unsent += encode(frame)
        if idle:
            self._flush()

    def check(self) -> None:
        """Notice now what the event loop would notice at its next turn: above all, that the other end is gone."""
        if not self._closed:
            self._on_readable()

    def take_descriptor(self) -> int:
        """The oldest descriptor that came with a frame and was not taken yet; -1 when there is none."""
        return self._descriptors.popleft() if self._descriptors else -1

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            while self._descriptors:
                os.close(self._descriptors.popleft())
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _on_readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _READ_SIZE, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        self._descriptors += descriptors
        if not data:
            self._lost()
            return
        try:
            for frame in self._frames.feed(data):
                self._on_frame(frame)
        except FrameError as error:
            # Nothing of a broken frame was used; the state in force stays.
            logger.error("the control process is not understood, serving on without it: %s", error)
            self._lost()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._socket.fileno(), self._flush)
            return
        except OSError:
            self._unsent.clear()  # the reading side notices the loss
        self._loop.remove_writer(self._socket.fileno())

    def _lost(self) -> None:
        self.close()
        self._on_lost()


class HandoverDoor:
    """Where a new control process knocks. Only the same user, and only while no control process is there."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: Path,
        *,
        wanted: Callable[[], bool],
        hello: Callable[[], tuple[Hello, list[int]]],
        adopted: Callable[[socket.socket], None],
    ) -> None:
        """``hello`` gives the first frame and the listening sockets' descriptors that travel with it.

        :raises OSError: when the socket cannot be bound.
        """
        self._loop = loop
        self._path = path
        self._wanted = wanted
        self._hello = hello
        self._adopted = adopted
        self._owner = os.geteuid()  # the worker may become another user; the control process does not
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen(4)
        self._pause: asyncio.TimerHandle | None = None
        self._watch()

    def _watch(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._on_knock)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _on_knock(self) -> None:
        try:
            visitor, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                # The visitor waits. To try at once would spin until a descriptor is free.
                self._loop.remove_reader(self._socket.fileno())
                self._pause = self._loop.call_later(_PAUSE_S, self._watch)
            return
        if not self._wanted() or _user_of(visitor) != self._owner:
            visitor.close()
            return
        frame, descriptors = self._hello()
        try:
            # A fresh Unix socket takes one small frame whole.
            socket.send_fds(visitor, [encode(frame)], descriptors)
        except OSError as error:
            logger.warning("the new control process went away: %s", error)
            visitor.close()
            return
        self._adopted(visitor)


def _user_of(visitor: socket.socket) -> int:
    raw = visitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, user, _ = _PEER_CREDENTIALS.unpack(raw)
    return int(user)
