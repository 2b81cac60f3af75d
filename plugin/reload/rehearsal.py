"""Trying the next generation beside the running one: its control process and its workers, all but the sockets.

Here is the side of the running generation. The other one does everything that a start does, except to listen, to
register and to open admin pages, and then says whether it is ready. Nothing of the running generation is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
from collections import deque

import msgspec

from plugin.process.tasks import spawn
from plugin.reload import program
from plugin.reload.door import NotReloaded
from plugin.reload.messages import Briefing, Rehearsed, Request

_MARGIN_S = 15.0
"""For starting and ending the process itself."""
_TAIL_LINES = 5
_PR_SET_CHILD_SUBREAPER = 36
GO = b"go\n"


class Rehearsal:
    def __init__(self, request: Request, arguments: tuple[str, ...], briefing: Briefing) -> None:
        self._request = request
        self._arguments = arguments
        self._briefing = briefing
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    async def run(self) -> Rehearsed:
        """:raises NotReloaded: with the reason, when the new generation does not get ready."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            reader, self._writer = await asyncio.open_unix_connection(sock=ours)
            await self._start(theirs.fileno())
        assert self._process is not None
        assert self._process.stderr is not None
        listening = spawn(self._listen(self._process.stderr), name="rehearsal output")
        self._writer.write(msgspec.json.encode(self._briefing) + b"\n")
        try:
            async with asyncio.timeout(self._request.timeout_s + _MARGIN_S):
                line = await _line(reader)
        except TimeoutError as error:
            raise NotReloaded(f"the new generation said nothing within {self._request.timeout_s:g} s") from error
        if not line:
            await asyncio.wait([listening], timeout=_MARGIN_S)
            raise NotReloaded(f"the new generation did not start: {' '.join(self._tail) or 'it said nothing'}")
        rehearsed = msgspec.json.decode(line, type=Rehearsed)
        if rehearsed.problem:
            raise NotReloaded(f"the new generation did not get ready: {rehearsed.problem}")
        return rehearsed

    async def release(self) -> None:
        """Let it leave its workers to whoever takes them over."""
        assert self._process is not None
        assert self._writer is not None
        self._writer.write(GO)
        await self._gone()

    async def end(self) -> None:
        """It has failed, or is not wanted any more: its workers end with it. Does nothing after :meth:`release`."""
        if self._writer is not None:
            self._writer.close()
        await self._gone()

    async def _gone(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        try:
            async with asyncio.timeout(_MARGIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _start(self, connection: int) -> None:
        # Its workers stay when it goes, and become ours (prctl(2)), not those of process 1.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        standard_error = os.dup(2)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *program.command(self._request.executable, self._arguments),
                env=program.environment(
                    self._request.source, {program.REHEARSAL: f"{connection},{standard_error}"}, managed=False
                ),
                pass_fds=(connection, standard_error),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise NotReloaded(f"cannot start {self._request.executable}: {error.strerror}") from error
        finally:
            os.close(standard_error)

    async def _listen(self, output: asyncio.StreamReader) -> None:
        """What it says before it can speak for itself: wrong flags, code that cannot be imported."""
        with contextlib.suppress(OSError, ValueError):
            while line := await output.readline():
                text = line.decode(errors="replace").rstrip()
                self._tail.append(text)
                sys.stderr.write(f"{text}\n")


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Empty when the other side has gone; with our briefing unread, it goes with a reset."""
    try:
        return await reader.readline()
    except ConnectionResetError:
        return b""
