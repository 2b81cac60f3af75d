"""A mistake, or no memory, inside one connection: that connection ends, is counted and named; nothing else notices."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.dataplane import DataPlane
from proxy.messages import Limits, Update
from proxy.model import CloseReason
from proxy.records.access_log import AccessLog
from proxy.rules import Action
from proxy.sockets.channel import TLSChannel
from proxy.sockets.listener import Listener
from proxy.sockets.poller import Poller
from proxy.tls.handshake import accept
from tests.support.eventually import eventually
from tests.support.mesh import EchoServer, HandMadeMesh, connected, sni

CONNECTIONS = 5


@asynccontextmanager
async def serving(poller: Poller, mesh: HandMadeMesh) -> AsyncIterator[tuple[DataPlane, int]]:
    """A data plane in this process, and its port."""
    plane = DataPlane(poller, worker=0, limits=Limits(), access_log=AccessLog(-1), descriptors=1_024)
    listening = socket.create_server(("127.0.0.1", 0))
    port: int = listening.getsockname()[1]
    listener = Listener(poller.loop, listening, f"127.0.0.1:{port}", plane.admit)
    async with EchoServer() as echo:
        plane.apply(Update(1, mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),)))
        listener.start()
        try:
            yield plane, port
        finally:
            listener.stop()
            plane.end_all(CloseReason.DRAIN, "the test is over")


def ended_inside(plane: DataPlane) -> int:
    return sum(count.connections for count in plane.counters().counts if count.reason == CloseReason.INTERNAL)


def run(story: Callable[[Poller], Awaitable[None]]) -> None:
    poller = Poller()

    async def told() -> None:
        async with asyncio.timeout(60):
            await story(poller)

    with asyncio.Runner(loop_factory=lambda: poller.loop) as runner:
        runner.run(told())


@pytest.mark.parametrize("error", [MemoryError, KeyError, AssertionError])
@pytest.mark.parametrize("method", ["receive", "transmit", "flush"])
def test_in_the_relay(
    mesh: HandMadeMesh,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    error: type[Exception],
) -> None:
    whole = getattr(TLSChannel, method)
    victims: set[int] = set()

    def failing(channel: TLSChannel, *arguments: object) -> object:
        if channel.fd in victims:
            raise error("made by the test")
        return whole(channel, *arguments)

    monkeypatch.setattr(TLSChannel, method, failing)

    async def story(poller: Poller) -> None:
        context = mesh.client_context(mesh.leaf("web"))
        async with serving(poller, mesh) as (plane, port), asyncio.TaskGroup() as group:
            others_done = asyncio.Event()
            open_files = len(os.listdir("/proc/self/fd"))
            group.create_task(_go_on(port, mesh, others_done))
            async with connected(port, context, sni("db")) as client:
                await client.exchange(b"fine")
                (carrier,) = [one for one in plane.live if str(one.life.client).endswith(_port(client))]
                victims.add(carrier._client.fileno())
                client.writer.write(b"x" * 100)
                await client.ended()
                victims.clear()
            await eventually(lambda: ended_inside(plane) == 1)
            number = carrier.life.number
            others_done.set()
            await eventually(lambda: not len(plane.live))
            await eventually(lambda: len(os.listdir("/proc/self/fd")) <= open_files)
        said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert said == [f"connection {number} failed inside the gateway"]

    with caplog.at_level(logging.ERROR):
        run(story)


def test_in_the_handshake(
    mesh: HandMadeMesh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    victims = [2]

    async def failing(*arguments: object) -> None:
        victims[0] -= 1
        if victims[0] == 0:
            raise MemoryError
        await accept(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("proxy.tls.handshake.accept", failing)

    async def story(poller: Poller) -> None:
        context = mesh.client_context(mesh.leaf("web"))
        async with serving(poller, mesh) as (plane, port):
            async with connected(port, context, sni("db")) as first:
                await first.exchange(b"one")
                with pytest.raises(ConnectionError):
                    await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=sni("db"))
                assert await first.exchange(b"still") == b"still"
                async with connected(port, context, sni("db")) as third:
                    assert await third.exchange(b"three") == b"three"
            assert ended_inside(plane) == 1
            assert plane.counters().pending_handshakes == 0
        said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert said == ["connection 2 failed inside the gateway"]

    with caplog.at_level(logging.ERROR):
        run(story)


async def _go_on(port: int, mesh: HandMadeMesh, done: asyncio.Event) -> None:
    context = mesh.client_context(mesh.leaf("other"))
    async with connected(port, context, sni("db")) as client:
        while not done.is_set():
            assert await client.exchange(b"other" * 1_000) == b"other" * 1_000
            await asyncio.sleep(0.01)


def _port(client: object) -> str:
    return f":{client.writer.get_extra_info('sockname')[1]}"  # type: ignore[attr-defined]
