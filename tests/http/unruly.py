"""Clients and services of both versions of HTTP that leave, cut, reset and misspeak by chance, from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable

from h2.exceptions import ProtocolError

from tests.support.http2_async import H2Exchange, http2_client
from tests.support.http_client import http_client

_PATIENCE_S = 3.0
_LOST = (OSError, EOFError, ValueError, IndexError, TimeoutError, ProtocolError, asyncio.LimitOverrunError)
"""What a peer of this gateway, and of these services, lives with."""
_NONSENSE = (
    b"nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\nand more",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
)


class Service:
    """Answers in HTTP/1.1, mostly."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._open: set[asyncio.StreamWriter] = set()

    def end(self) -> None:
        """All that is open."""
        for writer in self._open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(*_LOST):
            while await self._one(reader, writer):
                await writer.drain()
        self._open.discard(writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; false is the end of the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        fate = self._chance.random()
        if fate < 0.05:
            writer.transport.abort()
            return False
        if fate < 0.2:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        early = fate > 0.9
        if not early:
            await _body(reader, head)
        return self._answer(writer, with_body=not head.startswith(b"head")) and not early

    def _answer(self, writer: asyncio.StreamWriter, *, with_body: bool) -> bool:
        body = bytes(self._chance.choice((0, 10, 20_000, 300_000))) if with_body else b""
        fate = self._chance.random()
        if fate < 0.4:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return True
        if fate < 0.75:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(body), 7_000):
                part = body[at : at + 7_000]
                writer.write(b"%x\r\n%s\r\n" % (len(part), part))
                if self._chance.random() < 0.02:
                    return False
            writer.write(b"0\r\n\r\n" if with_body else b"")
            return True
        if fate < 0.8:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body)
        elif fate < 0.9:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
        else:
            writer.write(self._chance.choice(_NONSENSE))
        return False

    async def answer_http2(self, exchange: H2Exchange) -> None:
        fate = self._chance.random()
        if fate < 0.1:
            exchange.cancel()
            return
        if fate < 0.15:
            exchange.connection.writer.transport.abort()
            return
        if fate > 0.3:
            await exchange.whole()
        body = bytes(self._chance.choice((0, 10, 10_000)))
        if exchange.reset is None:
            exchange.start([(":status", "200")], end=not body)
            if body and self._chance.random() < 0.1:
                exchange.cancel()
            elif body:
                exchange.send(body, end=True)


async def _body(reader: asyncio.StreamReader, head: bytes) -> None:
    if b"content-length:" in head:
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
    elif b"chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass


class Clients:
    """Each call is one connection, from its beginning to some end."""

    def __init__(self, port: int, context: ssl.SSLContext, name: Callable[[], str], chance: random.Random) -> None:
        self._port, self._context, self._name, self._chance = port, context, name, chance
        self.answered = 0

    async def over_http1(self) -> None:
        chance = self._chance
        with contextlib.suppress(*_LOST):
            async with asyncio.timeout(_PATIENCE_S), http_client(self._port, self._context, self._name()) as client:
                for _ in range(chance.randint(1, 8)):
                    method = chance.choice(("GET", "HEAD", "POST", "PUT", "DELETE"))
                    body = bytes(chance.choice((0, 5, 50_000, 400_000))) if method in ("POST", "PUT") else b""
                    if chance.random() < 0.2:
                        await client.send(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n" * chance.randint(1, 6))
                        return
                    if chance.random() < 0.1:
                        await client.send(b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
                        return
                    await client.request(method, "/", "", body)
                    if chance.random() < 0.15:
                        return
                    while (await client.response(bodiless=method == "HEAD")).status < 200:
                        pass
                    self.answered += 1

    async def over_http2(self) -> None:
        chance = self._chance
        with contextlib.suppress(*_LOST, BaseExceptionGroup):
            async with asyncio.timeout(_PATIENCE_S), http2_client(self._port, self._context, self._name()) as client:
                exchanges = []
                for _ in range(chance.randint(1, 40)):
                    upload = chance.random() < 0.4
                    exchange = client.request("POST" if upload else "GET", "/", end=not upload)
                    if upload:
                        exchange.send(bytes(chance.choice((1, 500, 1_000))), end=chance.random() < 0.8)
                    if chance.random() < 0.15:
                        exchange.cancel()
                    else:
                        exchanges.append(exchange)
                for exchange in exchanges[: chance.randint(0, 40)]:
                    self.answered += bool((await exchange.whole()).headers)
