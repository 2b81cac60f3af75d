"""Where ``consul-tgw reload`` knocks: a Unix socket in the runtime directory, for the same user and root.

One request at a time, one answer. It must not know what a reload does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from plugin.errors import GatewayError
from plugin.reload.messages import Answer, Request

NAME = "control.sock"
_REQUEST_TIMEOUT_S = 5.0
_CREDENTIALS = struct.Struct("3i")

Reload = Callable[[Request, asyncio.StreamWriter], Awaitable[Answer]]
"""Answers, or hands the connection on to the new generation and never returns."""


class NotReloaded(GatewayError):
    """The old generation goes on."""


class Door:
    def __init__(self, directory: Path, reload: Reload) -> None:
        self._path = directory / NAME
        self._reload = reload
        self._busy = False

    async def run(self) -> None:
        """For ever."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._visit, self._path)
        self._path.chmod(0o600)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _user(writer) not in (0, os.geteuid()):
                return
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                request = msgspec.json.decode(await reader.readline(), type=Request)
            await send_answer(writer, await self._answer(request, writer))
        except (OSError, TimeoutError, msgspec.MsgspecError):
            pass  # the visitor went away, or is none of ours
        finally:
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> Answer:
        if self._busy:
            return Answer(reloaded=False, text="a reload is going on already; wait for its end")
        self._busy = True
        try:
            return await self._reload(request, writer)
        except GatewayError as error:
            return Answer(reloaded=False, text=str(error))
        finally:
            self._busy = False


async def send_answer(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(msgspec.json.encode(answer) + b"\n")
    await writer.drain()


async def knock(directory: Path, request: Request, patience_s: float) -> Answer:
    """Ask the gateway whose runtime directory that is. :raises NotReloaded: without an answer."""
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_unix_connection(directory / NAME)
            with contextlib.closing(writer):
                writer.write(msgspec.json.encode(request) + b"\n")
                line = await reader.readline()
    except TimeoutError as error:
        raise NotReloaded(
            f"no answer within {patience_s:g} s; see `consul-tgw status` and the gateway's log"
        ) from error
    except OSError as error:
        raise NotReloaded(f"the gateway at {directory} cannot be asked: {error.strerror or error}") from error
    if not line:
        raise NotReloaded("the gateway ended without an answer; see its log")
    return msgspec.json.decode(line, type=Answer)


def _user(writer: asyncio.StreamWriter) -> int:
    connected: socket.socket = writer.get_extra_info("socket")
    _, user, _ = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)
