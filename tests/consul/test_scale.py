"""What a change costs with 200 linked services, counted rather than timed: requests, assemblies, bytes for a worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from pathlib import Path
from typing import Any

import pytest

from bench.scale.costs import connections_to
from bench.scale.fleet import Fleet, service
from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.dev.consul_agent import ConsulAgent
from plugin.gateway import Gateway
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from plugin.settings import ConsulSettings
from plugin.workers.published import Published
from proxy import frames
from proxy.messages import Update
from proxy.model import ServiceName
from tests.support.eventually import eventually

SERVICES = 200
MOST_CONNECTIONS = 63
ONE_SERVICE = 20_000
"""Bytes: more than a service with its leaf and five instances, less than three of them."""
QUIET_S = 1.5


class Counted:
    """A control plane with everything but workers."""

    def __init__(self, client: ConsulClient) -> None:
        self.store = FactStore()
        self.published = Published()
        self.updates: list[Update] = []
        self.assembled: list[ServiceName] = []
        self.requests: list[tuple[str, tuple[tuple[str, str], ...]]] = []
        """Those that did not wait for a change: path and parameters."""
        self.asked_s = time.monotonic()
        self.observer = Observer(client, self.store, "tgw")
        self.gateway = Gateway(self.store, self.published, self._publish)
        self._assemble, self.gateway._assembler.assemble = self.gateway._assembler.assemble, self._counted  # type: ignore[method-assign]
        self._request, client.transport.request = client.transport.request, self._asked  # type: ignore[method-assign]

    def _publish(self, names: Collection[ServiceName], *, mesh: bool) -> None:
        self.updates.append(self.published.delta(names, mesh=mesh))

    def _counted(self, facts: Any, mesh: Any, **more: Any) -> Any:
        self.assembled.append(facts.name)
        return self._assemble(facts, mesh, **more)

    async def _asked(self, method: str, path: str, params: Iterable[tuple[str, str]] = (), **more: Any) -> Any:
        asked = tuple(params)
        if "index" not in dict(asked):
            self.requests.append((path, asked))
            self.asked_s = time.monotonic()
        return await self._request(method, path, asked, **more)

    async def quiet(self) -> None:
        """Nothing has been read for a while; then begin to count."""
        await eventually(lambda: time.monotonic() - self.asked_s > QUIET_S)
        self.updates.clear()
        self.assembled.clear()
        self.requests.clear()

    def reads(self, path: str) -> int:
        return Counter(asked for asked, _ in self.requests)[path]

    def upserts(self) -> list[ServiceName]:
        return [one.name for update in self.updates for one in update.upserts]

    def bytes(self) -> int:
        return sum(len(frames.encode(update)) for update in self.updates)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    agent = ConsulAgent(tmp_path / "agent")
    await agent.start()
    try:
        async with Fleet.on(agent, SERVICES, 9) as written:
            await written.write(["web"])
            await written.link("tgw", written.names)
            yield written
    finally:
        await agent.stop()


@contextlib.asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[Counted]:
    async with ConsulClient(ConsulSettings(address=fleet.agent.http_address)) as client:
        counted = Counted(client)
        tasks = [
            asyncio.get_running_loop().create_task(part) for part in (counted.observer.run(), counted.gateway.run())
        ]
        try:
            yield counted
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_change_costs_what_it_concerns(fleet: Fleet) -> None:
    async with running(fleet) as counted:
        services = counted.published.services
        await eventually(lambda: counted.published.complete, timeout_s=60.0)
        # Complete is with every service: signatures are waited for, however few Consul gives a second.
        assert len(services) == SERVICES
        assert _connections(fleet) <= MOST_CONNECTIONS

        # Beyond those that have a blocking query of their own.
        name = ServiceName(service(150))
        await counted.quiet()
        await fleet.set_check(150, "critical")
        await eventually(lambda: _unhealthy(services[name]) == 1)
        assert counted.reads(endpoints.health(service(150))) == 1
        # The second is for those of its instances that are in the mesh; it may still be under way.
        of_health = Counter(path for path, _ in counted.requests if path.startswith("/v1/health/"))
        both = Counter((endpoints.health(service(150)), endpoints.health_connect(service(150))))
        assert of_health <= both
        assert counted.upserts() == [name]
        assert counted.assembled == [name]
        assert counted.bytes() < ONE_SERVICE

        await counted.quiet()
        await fleet.intend(service(160), {"web": "deny"})
        await eventually(lambda: services[ServiceName(service(160))].intentions[0].action == "deny")  # type: ignore[index]
        matches = [params for path, params in counted.requests if path == endpoints.INTENTIONS_MATCH]
        assert [value for params in matches for key, value in params if key == "name"] == [service(160)]
        assert counted.upserts() == counted.assembled == [ServiceName(service(160))]
        assert counted.bytes() < ONE_SERVICE

        await counted.quiet()
        await fleet.link("tgw", fleet.names[:-1])
        await eventually(lambda: len(services) == SERVICES - 1)
        assert counted.upserts() == []
        assert [name for update in counted.updates for name in update.removals] == [ServiceName(fleet.names[-1])]

        await counted.quiet()
        await fleet.register_one_more(150)
        await eventually(lambda: len(services[name].server_names[0].endpoints) == 6, timeout_s=30.0)
        # Consul says only that some service has changed: everything is read, and one service is sent.
        assert counted.upserts() == counted.assembled == [name]

        # Of its checks nothing is new.
        await fleet.move(170, 7)
        moved = ServiceName(service(170))
        await eventually(lambda: {one.port for one in services[moved].server_names[0].endpoints} == {7})
        assert _connections(fleet) <= MOST_CONNECTIONS


def _unhealthy(of: Any) -> int:
    return sum(not endpoint.healthy for endpoint in of.server_names[0].endpoints)


def _connections(fleet: Fleet) -> int:
    return connections_to(fleet.agent.http_port, [os.getpid()])
