"""Reads which sidecars there are for the linked services that need to know it: those with several instances.

Sidecars have names of their own, so nothing that is read for a service says that it gets one. One blocking query wakes
for any service of the datacenter; after a wake-up, and when the instances of a service change, its sidecars are read, a
few services at a time, with a rest after each sweep. What cannot be read keeps its last answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from plugin.assemble.mesh_instances import could_be_mixed
from plugin.consul import endpoints
from plugin.consul.api import HealthEntry
from plugin.consul.client import ConsulClient, decode_rows
from plugin.consul.poller import Poller, WatchState
from plugin.consul.watch import News
from plugin.errors import GatewayError
from plugin.observe.store import FactStore
from plugin.observe.sweep import Sweep
from proxy.model import ServiceName

SWEEP_REQUESTS = 2
"""At a time."""
SWEEP_REST = 9.0
"""Times as long as a sweep took: that an instance goes into the mesh is rare, and other services come and go."""

SIDECARS: endpoints.Params = (("filter", 'Service.Kind == "connect-proxy"'),)

logger = logging.getLogger(__name__)


class SidecarReader:
    def __init__(self, client: ConsulClient, store: FactStore) -> None:
        self._client = client
        self._store = store
        self._members: set[ServiceName] = set()
        self._sweep = Sweep(client, "sidecars", self._read, at_a_time=SWEEP_REQUESTS, rest=SWEEP_REST)
        self._needed = asyncio.Event()
        self._reported: set[ServiceName] = set()
        self._signal: Poller[bytes] = Poller(
            client,
            "sidecars of any service",
            endpoints.CATALOG_SERVICES,
            decode=lambda reply: reply.body,
            learned=self._signalled,
            # A signal that fails says nothing about any service; the poller itself reports it and asks again.
            failed=lambda problem: None,
        )

    async def run(self) -> None:
        """Read until cancelled; ask nothing until a service needs it."""
        self._store.subscribe_instances(self.instances_changed)
        await self._needed.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep.run(), name="sidecars of linked services")
            group.create_task(self._signal.run(), name=self._signal.name)

    def linked(self, _: Iterable[ServiceName], removed: Iterable[ServiceName]) -> None:
        """What is added is looked at when its instances are known."""
        for name in removed:
            self._discard(name)

    def instances_changed(self, name: ServiceName) -> None:
        if could_be_mixed(self._store.service_facts(name).instances.value or ()):
            self._members.add(name)
            self._needed.set()
            self._sweep.ask([name])
        else:
            self._discard(name)

    def ask_afresh(self) -> None:
        """The token may read more than before."""
        self._sweep.ask(self._members)

    def retry_now(self) -> None:
        """Whatever made questions fail may have passed."""
        self._signal.retry_now()

    def states(self) -> list[WatchState]:
        return [self._signal.state()] if self._members else []

    def _discard(self, name: ServiceName) -> None:
        self._members.discard(name)
        self._sweep.discard(name)
        self._reported.discard(name)

    def _signalled(self, news: News[bytes]) -> None:
        if news.woken:
            self._sweep.ask(self._members)

    async def _read(self, name: ServiceName) -> GatewayError | None:
        """Return the problem after which ``name`` has to be read again."""
        path = endpoints.health_connect(name.name)
        if name not in self._members:
            return None
        slot = self._store.sidecars(name)
        try:
            reply = await self._client.blocking_get(path, (*endpoints.tenancy(name), *SIDECARS))
            slot.learned(decode_rows(reply, HealthEntry, path), index=reply.index or 0)
        except GatewayError as problem:
            slot.failed(problem)
            return self._failed(name, problem)
        self._reported.discard(name)
        return None

    def _failed(self, name: ServiceName, problem: GatewayError) -> GatewayError:
        if name in self._members:
            self._sweep.again(name)
            if name not in self._reported:
                self._reported.add(name)
                logger.warning("sidecars of %s: %s", name, problem)
        return problem
