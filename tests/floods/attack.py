"""One flood, in a process of its own: ``python -m tests.floods.attack PORT FOLDER DOMAIN NAMES COUNT HOLD_S``.

It tries so many connections, holds what stays open for a while, and goes. How the gateway ends
them is not its concern: every failure of a socket is what an attacker lives with.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable

from tests.floods.aim import Aim, parser

_TOGETHER = 64
_RESET = struct.pack("ii", 1, 0)
_GARBAGE = (
    b"GET / HTTP/1.1\r\nHost: db\r\n\r\n",
    b"SSH-2.0-OpenSSH_9\r\n",
    b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(35),  # SSLv2 ClientHello
    b"\x16\x03\x01\xff\xff\x01\x00\xff\xfb" + bytes(2_000),  # a record longer than any may be
    b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16_000),  # a message of 16 MiB
    b"\x17\x03\x03\x00\x10" + bytes(16),  # data before any handshake
)
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[Aim, int, float], Awaitable[int]]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def hello(aim: Aim) -> bytes:
    outgoing = ssl.MemoryBIO()
    session = aim.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=aim.name())
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


async def plain(aim: Aim) -> Stream:
    return await asyncio.open_connection("127.0.0.1", aim.port)


async def secure(aim: Aim, context: ssl.SSLContext, service: str = "db") -> Stream:
    return await asyncio.open_connection("127.0.0.1", aim.port, ssl=context, server_hostname=aim.name(service))


async def many(count: int, one: Callable[[int], Awaitable[None]]) -> int:
    """Call ``one`` with each number, some of them side by side."""
    limit = asyncio.Semaphore(_TOGETHER)

    async def guarded(number: int) -> None:
        async with limit:
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
                await one(number)

    await asyncio.gather(*(guarded(number) for number in range(count)))
    return count


async def holding(count: int, hold_s: float, opened: Callable[[int], Awaitable[Stream]]) -> int:
    """Open so many and keep them for a while."""
    held: list[Stream] = []

    async def keep(number: int) -> None:
        held.append(await opened(number))

    await many(count, keep)
    await asyncio.sleep(hold_s)
    for _, writer in held:
        writer.transport.abort()
    return count


async def to_the_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


@attack
async def silent(aim: Aim, count: int, hold_s: float) -> int:
    return await holding(count, hold_s, lambda _: plain(aim))


@attack
async def byte_at_a_time(aim: Aim, count: int, hold_s: float) -> int:
    said = hello(aim)
    held: list[Stream] = []

    async def keep(_: int) -> None:
        held.append(await plain(aim))

    await many(count, keep)
    until_s = time.monotonic() + hold_s
    for byte in said:
        for _reader, writer in held:
            if not writer.transport.is_closing():
                writer.write(bytes([byte]))
        if time.monotonic() > until_s:
            break
        await asyncio.sleep(0.05)
    for opened in held:
        opened[1].transport.abort()
    return count


@attack
async def garbage(aim: Aim, count: int, _hold_s: float) -> int:
    async def one(number: int) -> None:
        reader, writer = await plain(aim)
        kind = number % (len(_GARBAGE) + 1)
        writer.write(os.urandom(4_000) if kind == len(_GARBAGE) else _GARBAGE[kind])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await to_the_end(reader)
        writer.transport.abort()

    return await many(count, one)


@attack
async def half_open(aim: Aim, count: int, hold_s: float) -> int:
    """Half of them fall silent after their hello, half when the gateway has answered it."""
    said = hello(aim)

    async def one(number: int) -> Stream:
        reader, writer = await plain(aim)
        writer.write(said)
        if number % 2:
            await reader.read(1)
        return reader, writer

    return await holding(count, hold_s, one)


@attack
async def connect_and_close(aim: Aim, count: int, _hold_s: float) -> int:
    async def one(_: int) -> None:
        (await plain(aim))[1].transport.abort()

    return await many(count, one)


@attack
async def never_reading(aim: Aim, count: int, hold_s: float) -> int:
    """To an echo service: what comes back is not taken, and still more is sent."""
    return await _writing(aim, count, hold_s, "db")


@attack
async def never_stopping(aim: Aim, count: int, hold_s: float) -> int:
    """To a service that takes everything."""
    return await _writing(aim, count, hold_s, "sink")


@attack
async def deaf_service(aim: Aim, count: int, hold_s: float) -> int:
    """To a service that accepts and never reads."""
    return await _writing(aim, count, hold_s, "deaf")


@attack
async def full_service(aim: Aim, count: int, hold_s: float) -> int:
    """To a service whose queue is full, so that it never accepts."""
    context = aim.context()
    return await holding(count, hold_s, lambda _: secure(aim, context, "full"))


async def _writing(aim: Aim, count: int, hold_s: float, service: str) -> int:
    context, data = aim.context(), os.urandom(65_536)

    async def one(_: int) -> None:
        reader, writer = await secure(aim, context, service)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(hold_s):
                while True:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()

    return await many(count, one)


@attack
async def resets(aim: Aim, count: int, _hold_s: float) -> int:
    """Before the hello, in the middle of the handshake, while the service is dialled, in the middle of the relay."""
    context, said = aim.context(), hello(aim)

    async def one(number: int) -> None:
        stage = number % 4
        if stage < 2:
            reader, writer = await plain(aim)
            if stage == 1:
                writer.write(said)
                await reader.read(1)
        else:
            reader, writer = await secure(aim, context, "full" if stage == 2 else "db")
            if stage == 3:
                writer.write(os.urandom(50_000))
                await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()

    return await many(count, one)


@attack
async def idle(aim: Aim, count: int, hold_s: float) -> int:
    context = aim.context()

    async def one(_: int) -> Stream:
        reader, writer = await secure(aim, context)
        writer.write(b"ping")
        await reader.readexactly(4)
        return reader, writer

    return await holding(count, hold_s, one)


@attack
async def huge_certificates(aim: Aim, count: int, _hold_s: float) -> int:
    """More certificates than any chain has (``huge.pem``)."""
    context = aim.context("huge.pem")

    async def one(_: int) -> None:
        reader, writer = await secure(aim, context)
        async with asyncio.timeout(10):
            await to_the_end(reader)
        writer.transport.abort()

    return await many(count, one)


@attack
async def key_updates(aim: Aim, count: int, _hold_s: float) -> int:
    return await _records(aim, count, lambda writer: b"".join(writer.key_update() for _ in range(100)))


@attack
async def empty_records(aim: Aim, count: int, _hold_s: float) -> int:
    return await _records(aim, count, lambda writer: b"".join(writer.record(b"") for _ in range(100)))


async def _records(aim: Aim, count: int, flood: Callable[..., bytes]) -> int:
    from tests.support.tls13 import TLS13Client

    def one() -> None:
        client = TLS13Client(("127.0.0.1", aim.port), aim.context(), aim.name())
        try:
            for _ in range(100):
                client.socket.sendall(flood(client.writer))
        except OSError:
            pass  # it was ended, as it should be
        finally:
            client.close()

    for _ in range(count):
        await asyncio.to_thread(one)
    return count


def main() -> None:
    arguments = parser()
    arguments.add_argument("names", help="one, or several at a time: NAME+NAME")
    arguments.add_argument("count", type=int)
    arguments.add_argument("hold_s", type=float)
    given = arguments.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    aim = Aim(given.port, given.folder, given.domain)
    asyncio.run(_run([ATTACKS[name] for name in given.names.split("+")], aim, given.count, given.hold_s))


async def _run(chosen: list[Attack], aim: Aim, count: int, hold_s: float) -> None:
    # What a peer's reset leaves behind in asyncio's TLS is of no interest here.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    await asyncio.gather(*(one(aim, count, hold_s) for one in chosen))


if __name__ == "__main__":
    main()
