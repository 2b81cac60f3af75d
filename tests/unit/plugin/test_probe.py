from __future__ import annotations

import asyncio
import os
import socket

from plugin.addresses import HostPort
from plugin.workers.probe import silence
from tests.support.process_limits import descriptors_left


async def test_a_worker_that_closes_what_says_nothing_is_there() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await silence(HostPort("127.0.0.1", port), 10.0) == ""
        assert await silence(HostPort("0.0.0.0", port), 10.0) == ""


async def test_a_queue_that_nobody_empties_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = HostPort("127.0.0.1", listener.getsockname()[1])
        assert await silence(address, 0.2) == f"no worker answers on {address} within 0.2 s"


async def test_a_closed_port_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = HostPort("127.0.0.1", listener.getsockname()[1])
    assert "does not accept connections" in await silence(address, 5.0)


async def test_our_own_lack_of_descriptors_says_nothing_about_the_workers() -> None:
    address = HostPort("127.0.0.1", 1)
    with descriptors_left(os.getpid(), 0):
        assert await silence(address, 5.0) == ""
