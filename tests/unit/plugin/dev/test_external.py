"""Each behaviour of the sample services, seen from a client."""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path

import pytest

from plugin.dev.external import (
    ExternalService,
    Handler,
    banner_first,
    echo,
    hello,
    reset,
    silent,
    sink,
    slow_echo,
    source,
)
from tests.support.eventually import eventually


async def talk(service: ExternalService, data: bytes = b"") -> bytes:
    """Send ``data`` and EOF; everything that comes back."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(service.address, service.port)
        try:
            writer.write(data)
            writer.write_eof()
            return await reader.read()
        finally:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("behaviour", "sent", "answer"),
    [
        (echo, b"hello", b"hello"),
        (functools.partial(slow_echo, delay_s=0.01), b"hello", b"hello"),
        (functools.partial(banner_first, banner=b"220\r\n"), b"hello", b"220\r\nhello"),
        (sink, b"x" * 200_000, b"200000"),
        (functools.partial(source, size=200_000), b"", bytes(200_000)),
        (silent, b"hello", b""),
    ],
    ids=["echo", "slow-echo", "banner-first", "sink", "source", "silent"],
)
async def test_behaviour(behaviour: Handler, sent: bytes, answer: bytes) -> None:
    async with ExternalService(behaviour) as service:
        assert await talk(service, sent) == answer
        assert service.accepted == 1
        await eventually(lambda: service.connections == 0)


async def test_reset_is_a_reset() -> None:
    async with ExternalService(reset) as service:
        with pytest.raises(ConnectionResetError):
            await talk(service, b"hello")


async def test_hello_keeps_the_connection() -> None:
    request = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    async with ExternalService(functools.partial(hello, name="web")) as service:
        answer = await talk(service, request % 1 + request % 2)
    assert answer.count(b"200 OK") == 2
    assert b"Hello from web: POST /2 HTTP/1.1\n" in answer


@pytest.mark.parametrize("with_reset", [True, False])
async def test_open_connections_can_be_ended(with_reset: bool) -> None:
    async with ExternalService(silent) as service:
        reader, _writer = await asyncio.open_connection(service.address, service.port)
        await eventually(lambda: service.connections == 1)
        service.end_connections(reset=with_reset)
        async with asyncio.timeout(30):
            if with_reset:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            else:
                assert await reader.read() == b""


async def test_stopped_service_refuses_connections() -> None:
    service = ExternalService(silent)
    async with service:
        pass
    with pytest.raises(ConnectionRefusedError):
        await talk(service)


async def test_command_serves_until_ended() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "plugin.dev.external", "echo", stdout=asyncio.subprocess.PIPE, cwd=_ROOT
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("echo listening on 127.0.0.1:")
        service = ExternalService(silent, port=int(line.rpartition(":")[2]))
        assert await talk(service, b"hello") == b"hello"
    finally:
        process.kill()
        await process.wait()


_ROOT = Path(__file__).parents[4]
