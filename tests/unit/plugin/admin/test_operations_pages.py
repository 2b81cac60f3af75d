"""The pages with which operators act, without a gateway behind them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from plugin.addresses import HostPort
from plugin.admin.app import AdminServer, build_app
from plugin.admin.guard import Access
from plugin.admin.operations_view import KillReport, KillRequest
from plugin.admin.token import AdminToken
from plugin.answers.certificates import CertificateList
from plugin.answers.traffic import Traffic, traffic
from plugin.effective import Effective
from plugin.errors import ConfigError
from plugin.events.ring import EventPage, EventRing
from plugin.process.tasks import spawn
from plugin.workers.counters import Totals
from tests.unit.plugin.admin.test_admin import View

TOKEN = "an-admin-token-for-nobody"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


class Asked:
    """The seam's other side."""

    def __init__(self) -> None:
        self.ring = EventRing()
        self.killed: list[KillRequest] = []
        self.waiting = asyncio.Event()

    async def events(self, after: int, wait_s: float) -> EventPage:
        self.waiting.set()
        return await self.ring.wait_after(after, wait_s)

    def stop_waiting(self) -> None:
        self.ring.stop_waiting()

    def config(self) -> Effective:
        return Effective(settings=(), consul=(), proxy_config=())

    def traffic(self) -> Traffic:
        return traffic(Totals())

    async def certificates(self) -> CertificateList:
        return CertificateList(())

    async def kill(self, wanted: KillRequest) -> KillReport:
        if not wanted.id:
            raise ConfigError("say which connections")
        self.killed.append(wanted)
        return KillReport(())


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
async def server(asked: Asked) -> AsyncIterator[AdminServer]:
    started = AdminServer(build_app(View(), Access(token=AdminToken(TOKEN)), operations=asked))
    await started.start(HostPort("127.0.0.1", 0), chosen=True)
    yield started
    await started.stop()


async def ask(server: AdminServer, path: str, **options: object) -> tuple[int, str]:
    method = "POST" if options else "GET"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{server.address}{path}", **options) as answer,  # type: ignore[arg-type]
    ):
        return answer.status, await answer.text()


async def test_what_ends_connections_needs_the_token_and_exact_words(server: AdminServer, asked: Asked) -> None:
    path = "/api/connections/kill"
    assert (await ask(server, path, json={"id": "0-1"}))[0] == 401
    assert await ask(server, path, json={"id": "0-1"}, headers=AUTHORIZED) == (200, '{"ended":[],"problems":[]}')
    bodies: tuple[object, ...] = ({}, {"id": 1}, {"service": "x", "sources": "y"}, [])
    for wrong in bodies:
        assert (await ask(server, path, json=wrong, headers=AUTHORIZED))[0] == 400
    assert [one.id for one in asked.killed] == ["0-1"]


async def test_reading_is_free_on_loopback(server: AdminServer) -> None:
    for path in ("/api/events", "/api/traffic", "/api/certificates", "/api/config"):
        assert (await ask(server, path))[0] == 200
    for query in ("after=x", "wait=soon", "wait=5"):
        assert (await ask(server, f"/api/events?{query}"))[0] == 400


async def test_who_waits_for_an_event_does_not_hold_up_the_end(server: AdminServer, asked: Asked) -> None:
    waiting = spawn(ask(server, "/api/events?wait=20s"), name="waiting")
    await asyncio.wait_for(asked.waiting.wait(), 20)
    began_s = time.monotonic()
    await server.stop()
    assert time.monotonic() - began_s < 5
    assert (await waiting)[0] == 200
