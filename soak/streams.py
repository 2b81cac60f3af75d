"""Byte streams that tell how they ended: plain TCP or TLS, either side.

asyncio's own TLS can neither finish one direction nor tell a cut session from a finished one; here that is the point.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from typing import Self

_READ = 65_536
_HANDSHAKE_S = 30.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Broken(Exception):
    """The stream ended without an end. ``how``: ``reset``, ``cut`` (FIN without close_notify) or a TLS alert."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Stream:
    """One connected socket; sending and receiving may be in different tasks."""

    def __init__(self, connected: socket.socket, session: _Session | None = None) -> None:
        self._socket = connected
        self._session = session
        self._sending = asyncio.Lock()
        self._reset = False
        """A send was told of a reset. The kernel tells once: a receive would then see an end."""
        self.port: int = connected.getsockname()[1]
        """Of this side."""

    @classmethod
    async def connect(cls, address: str, port: int, context: ssl.SSLContext | None = None, name: str = "") -> Self:
        """:raises Broken: when it is refused, by TCP (``reset``) or by TLS. :raises TimeoutError: after 30 s."""
        connected = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                with _broken():
                    await loop.sock_connect(connected, (address, port))
                return await cls._secured(connected, context, name)
        except BaseException:
            connected.close()
            raise

    @classmethod
    async def accepted(cls, connected: socket.socket, context: ssl.SSLContext | None = None) -> Self:
        """The same for the other side."""
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                return await cls._secured(connected, context, None)
        except BaseException:
            connected.close()
            raise

    @classmethod
    async def _secured(cls, connected: socket.socket, context: ssl.SSLContext | None, name: str | None) -> Self:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return cls(connected)
        stream = cls(connected, _Session(context, name))
        await stream._handshake()
        return stream

    async def _handshake(self) -> None:
        assert self._session is not None
        with _broken():
            while True:
                try:
                    self._session.tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._feed()
                except ssl.SSLError:
                    await self._flush()
                    raise
                else:
                    await self._flush()
                    return

    async def send(self, data: bytes) -> None:
        """:raises Broken: when the other side has gone."""
        with _broken():
            async with self._sending:
                if self._session is None:
                    await self._send_now(data)
                else:
                    self._session.tls.write(data)
                    await self._flush_now()

    async def receive(self) -> bytes:
        """Some bytes; none when the other side has finished. :raises Broken: when it ended otherwise."""
        with _broken():
            if self._session is None:
                return await self._receive_now()
            while (data := self._session.read()) is None:
                await self._feed()
            return data

    async def finish(self) -> None:
        """End this side's direction; the other goes on."""
        with _broken():
            async with self._sending:
                if self._session is not None:
                    self._session.finish()
                    await self._flush_now()
                self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close()

    def close(self) -> None:
        self._socket.close()

    async def _feed(self) -> None:
        assert self._session is not None
        data = await self._receive_now()
        if not data:
            raise Broken("cut")
        self._session.incoming.write(data)

    async def _flush(self) -> None:
        async with self._sending:
            await self._flush_now()

    async def _flush_now(self) -> None:
        assert self._session is not None
        if waiting := self._session.outgoing.read():
            await self._send_now(waiting)

    async def _send_now(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except ConnectionResetError:
            self._reset = True
            raise

    async def _receive_now(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self._socket, _READ)
        if not data and self._reset:
            raise Broken("reset")
        return data


class _Session:
    def __init__(self, context: ssl.SSLContext, name: str | None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=name is None, server_hostname=name or None
        )
        self._read: deque[bytes] = deque()

    def read(self) -> bytes | None:
        """Plaintext; none at the end of the session; ``None`` while more ciphertext is needed."""
        if self._read:
            return self._read.popleft()
        try:
            return self.tls.read(_READ)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def finish(self) -> None:
        """Say close_notify. unwrap() also looks for the other side's, and chokes on data that comes before it: that
        is read first."""
        kept: list[bytes] = []
        while data := self.read():
            kept.append(data)
        self._read.extend(kept)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()


class _broken:
    """Turns the ways in which a peer ends a connection into :class:`Broken`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, ssl.SSLError):
            raise Broken(error.reason or str(error)) from error
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            raise Broken("reset") from error
