"""A mistake, or no memory, inside one request: it ends, is reported, and nothing of it is left; the others go on."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.dataplane import DataPlane
from proxy.http.exchange import Exchange
from proxy.http.h1.incoming import H1Incoming
from proxy.http.h1.outgoing import H1Outgoing
from proxy.http.pool import ServicePool
from proxy.messages import Limits, Update
from proxy.model import CloseReason, Service
from proxy.records.access_log import AccessLog
from proxy.sockets.listener import Listener
from proxy.sockets.poller import Poller
from tests.support.eventually import eventually
from tests.support.http_backend import HTTPBackend, Received
from tests.support.http_client import http_client
from tests.support.http_mesh import http_service
from tests.support.mesh import HandMadeMesh, sni


@asynccontextmanager
async def serving(
    poller: Poller, mesh: HandMadeMesh, service: Service, **limits: int
) -> AsyncIterator[tuple[DataPlane, int]]:
    """A data plane in this process, and its port."""
    plane = DataPlane(poller, worker=0, limits=Limits(**limits), access_log=AccessLog(-1), descriptors=1_024)
    listening = socket.create_server(("127.0.0.1", 0))
    port: int = listening.getsockname()[1]
    listener = Listener(poller.loop, listening, f"127.0.0.1:{port}", plane.admit)
    plane.apply(Update(1, mesh=mesh.settings(), upserts=(service,)))
    listener.start()
    try:
        yield plane, port
    finally:
        listener.stop()
        plane.end_all(CloseReason.DRAIN, "the test is over")
        plane.pools.close_idle()


def run(story: Callable[[Poller], Awaitable[None]]) -> None:
    poller = Poller()

    async def told() -> None:
        async with asyncio.timeout(60):
            await story(poller)

    with asyncio.Runner(loop_factory=lambda: poller.loop) as runner:
        runner.run(told())


async def chunked(request: Received) -> None:
    body = await request.read_body()
    await request.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    await request.say(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) or 1, body or b"x"))


@pytest.mark.parametrize("error", [MemoryError, KeyError])
@pytest.mark.parametrize(
    ("kind", "method", "told"),
    [
        (Exchange, "_seek", "500"),
        (Exchange, "on_request_data", "reset"),
        (Exchange, "on_response", "500"),
        (Exchange, "on_response_data", "reset"),
        (ServicePool, "add", "500"),
        (H1Outgoing, "send", "reset"),
        (H1Incoming, "send", "reset"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_mistake_ends_one_request(
    mesh: HandMadeMesh,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type,
    method: str,
    told: str,
    error: type[Exception],
) -> None:
    whole, armed = getattr(kind, method), [False]

    def failing(*arguments: object, **named: object) -> object:
        if armed[0]:
            armed[0] = False
            raise error("made by the test")
        return whole(*arguments, **named)

    monkeypatch.setattr(kind, method, failing)

    async def story(poller: Poller) -> None:
        context = mesh.client_context(mesh.leaf("web"))
        async with HTTPBackend(chunked) as backend:
            service = http_service(mesh, backend.port)
            async with serving(poller, mesh, service) as (plane, port):
                open_files = len(os.listdir("/proc/self/fd"))
                async with http_client(port, context, sni("db")) as other:
                    if kind is not ServicePool:
                        assert (await other.get()).status == 200
                    async with http_client(port, context, sni("db")) as client:
                        armed[0] = True
                        await client.request("PUT", "/", body=b"hello")
                        if told == "reset":
                            assert await client.ended() == "reset"
                        else:
                            assert (await client.response()).status == int(told)
                    assert not armed[0]
                    assert (await other.get()).status == 200
                    (counted,) = [one for one in plane.counters().requests if one.reason != CloseReason.COMPLETED]
                    assert (counted.reason, counted.requests) == (CloseReason.INTERNAL, 1)
                await eventually(lambda: not len(plane.live))
                state = plane.routes.state(service.name)
                assert state is not None
                for target in state.targets.values():
                    assert target.endpoints.load(target.endpoints.endpoints[0]) == 0
                plane.pools.close_idle()
                await eventually(lambda: len(os.listdir("/proc/self/fd")) <= open_files)
                assert len(plane.pools) == 0
        said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert said
        assert all("failed inside the gateway" in line for line in said)

    with caplog.at_level(logging.ERROR):
        run(story)


def test_requests_beyond_the_room_for_connections_are_told_so(mesh: HandMadeMesh) -> None:
    go_on = asyncio.Event()

    async def answer(request: Received) -> None:
        await go_on.wait()
        await request.answer()

    async def story(poller: Poller) -> None:
        context = mesh.client_context(mesh.leaf("web"))
        async with HTTPBackend(answer) as backend, serving(poller, mesh, http_service(mesh, backend.port)) as served:
            plane, port = served
            plane.pools._most = 1
            async with (
                http_client(port, context, sni("db")) as first,
                http_client(port, context, sni("db")) as second,
            ):
                await first.request()
                await eventually(lambda: len(backend.requests) == 1)
                response = await second.get()
                assert (response.status, response.body[-8:]) == (503, b"overflow")
                go_on.set()
                assert (await first.response()).status == 200
                assert (await second.get()).status == 200
                assert backend.connections == 1

    run(story)


def test_a_line_of_the_log_that_cannot_be_written_ends_nothing(
    mesh: HandMadeMesh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise ValueError("made by the test")

    monkeypatch.setattr(DataPlane, "request_ended", failing)

    async def story(poller: Poller) -> None:
        async with HTTPBackend() as backend, serving(poller, mesh, http_service(mesh, backend.port)) as (_, port):
            async with http_client(port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
                for _ in range(2):
                    assert (await client.get()).status == 200
            assert backend.connections == 1

    with caplog.at_level(logging.ERROR):
        run(story)
    assert len([one for one in caplog.records if "failed inside the gateway" in one.getMessage()]) == 2
