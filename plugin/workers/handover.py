"""Taking over the workers of a control process that is gone.

A worker without a control process waits on ``worker-<pid>.sock`` in the runtime directory. Whoever connects gets its
``Hello`` together with the descriptors of its listening sockets (``SCM_RIGHTS``, unix(7)); from then on the
connection is its control connection. What is done with an adopted worker is ``pool.py``'s decision.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from plugin.process.runtime_dir import RuntimeDirectory
from plugin.workers.sockets import is_listening
from proxy.errors import FrameError
from proxy.frames import ControlFrames
from proxy.logs import emit
from proxy.messages import Hello, ToControl

logger = logging.getLogger(__name__)

_MOST_DESCRIPTORS = 253
"""``SCM_MAX_FD`` of the kernel."""
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A live worker without a control process, already connected."""

    pid: int
    """As the kernel says, not as the worker says."""
    hello: Hello
    connection: socket.socket
    frames: ControlFrames
    """The reader that has consumed the hello."""
    early: tuple[ToControl, ...]
    """Frames that came with it."""
    listeners: tuple[socket.socket, ...]

    def close(self) -> None:
        for owned in (self.connection, *self.listeners):
            owned.close()


async def find_orphans(directory: RuntimeDirectory, *, known: frozenset[int], deadline_s: float) -> list[Orphan]:
    """Connect to every waiting worker except the ``known`` pids; sockets that nobody listens on are removed."""
    paths = [path for pid, path in directory.socket_paths() if pid not in known]
    found = await asyncio.gather(*(asyncio.to_thread(adopt, path, deadline_s) for path in paths))
    return [orphan for orphan in found if orphan is not None]


def adopt(path: Path, deadline_s: float) -> Orphan | None:
    """Take over the worker that waits at ``path``. Blocks for up to about ``deadline_s``: call it in a thread."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(deadline_s)
    try:
        connection.connect(str(path))
        return _greeted(path, connection)
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except (OSError, FrameError, EOFError) as error:
        emit(logger, logging.WARNING, "worker.not_adopted", f"the worker at {path} did not answer: {error}")
    connection.close()
    return None


def _greeted(path: Path, connection: socket.socket) -> Orphan:
    pid, uid = _peer(connection)
    if uid != os.geteuid():
        raise PermissionError(f"it belongs to user {uid}")
    frames = ControlFrames()
    received: list[ToControl] = []
    descriptors: list[int] = []
    try:
        while not received:
            data, fds, _, _ = socket.recv_fds(connection, 65536, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            descriptors += fds
            if not data:
                raise EOFError("it closed the connection before its first frame")
            received += frames.feed(data)
        hello = received[0]
        if not isinstance(hello, Hello):
            raise FrameError(f"its first frame is {type(hello).__name__}, not Hello")
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        raise
    return Orphan(
        pid=pid,
        hello=hello,
        connection=connection,
        frames=frames,
        early=tuple(received[1:]),
        listeners=_listening(descriptors),
    )


def _listening(descriptors: list[int]) -> tuple[socket.socket, ...]:
    sockets = [socket.socket(fileno=fd) for fd in descriptors]
    for other in sockets:
        if not is_listening(other):
            other.close()
    return tuple(kept for kept in sockets if kept.fileno() >= 0)


def _peer(connection: socket.socket) -> tuple[int, int]:
    """``(pid, uid)`` of the process that listens at the other end (``SO_PEERCRED``)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid
