"""Reads which linked services are exported to which peers and, from when there is one, what verifies those peers.

Most clusters have no peers, and most tokens no right to ask for them: then nothing is exported, nothing else suffers,
and peerings are not asked for. Both questions block, so what changes is known at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from plugin.assemble.peers import read_peers
from plugin.consul import endpoints
from plugin.consul.api import ExportedService, Peering
from plugin.consul.client import ConsulClient, decode_rows
from plugin.consul.poller import Poller, WatchState
from plugin.consul.watch import News
from plugin.errors import ConsulForbidden, GatewayError
from plugin.observe.store import FactStore
from proxy.model import ServiceName

EXPORTS, PEERS = "exported services", "peerings"
_NO_EXPORTS = "this Consul cannot list exported services (1.17.2 and later can), so no peer is let in"
_NO_PEERINGS = "this Consul has no peering, or it is not enabled"


class PeeringReader:
    def __init__(self, client: ConsulClient, store: FactStore) -> None:
        self._store = store
        self._wanted = asyncio.Event()
        self._exports: Poller[tuple[ExportedService, ...]] = Poller(
            client,
            EXPORTS,
            endpoints.EXPORTED_SERVICES,
            params=endpoints.EXPORTED_SERVICES_PARAMS,
            decode=lambda reply: decode_rows(reply, ExportedService, endpoints.EXPORTED_SERVICES),
            learned=self._exports_learned,
            failed=store.exports.failed,
            absent=_NO_EXPORTS,
        )
        self._peerings: Poller[tuple[Peering, ...]] = Poller(
            client,
            PEERS,
            endpoints.PEERINGS,
            decode=lambda reply: decode_rows(reply, Peering, endpoints.PEERINGS),
            learned=self._peerings_learned,
            failed=self._peerings_failed,
            absent=_NO_PEERINGS,
        )
        store.set_exports_awaited()

    async def run(self) -> None:
        """Until cancelled."""
        self._store.subscribe_links(self._links_changed)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._exports.run(), name=EXPORTS)
            await self._wanted.wait()
            group.create_task(self._peerings.run(), name=PEERS)

    def states(self) -> Iterator[WatchState]:
        yield self._exports.state()
        if self._wanted.is_set():
            yield self._peerings.state()

    def ask_afresh(self) -> None:
        for poller in self._pollers():
            poller.ask_afresh()

    def retry_now(self) -> None:
        for poller in self._pollers():
            poller.retry_now()

    def forget(self) -> None:
        for poller in self._pollers():
            poller.forget()

    def _pollers(self) -> tuple[Poller[Any], ...]:
        return self._exports, self._peerings

    def _links_changed(self, added: frozenset[ServiceName], removed: frozenset[ServiceName]) -> None:
        self._look()

    def _look(self) -> None:
        if self._store.is_any_exported():
            self._wanted.set()

    def _exports_learned(self, news: News[tuple[ExportedService, ...]]) -> None:
        if self._exports.watch.filtered:
            # Consul answers 403; a list that is told in part would take away what is exported still.
            rule = endpoints.rule("mesh", "", "read")
            text = f"the token may not read all exported services; add to its policy: {rule}"
            self._store.exports.failed(ConsulForbidden(text, rule))
            return
        not_told = self._exports.not_told
        if not_told is not None and self._store.exports.fact.value:
            self._store.exports.failed(ConsulForbidden(str(not_told), not_told.rule))
            return
        self._store.exports.learned(news.value, index=news.index)
        self._look()

    def _peerings_learned(self, news: News[tuple[Peering, ...]]) -> None:
        if self._peerings.watch.filtered:
            rule = endpoints.rule("peering", "", "read")
            text = f"the token may not read all peerings; add to its policy: {rule}"
            self._peerings_failed(ConsulForbidden(text, rule))
            return
        not_told = self._peerings.not_told
        if not_told is not None:
            # It is asked because a service is exported: now it is needed.
            self._peerings_failed(ConsulForbidden(f"peerings: {not_told}", not_told.rule))
            return
        peers = read_peers(news.value or ())
        self._store.set_unusable_peers(peers.problems)
        self._store.peers.learned(peers.bundles, index=news.index)

    def _peerings_failed(self, problem: GatewayError) -> None:
        self._store.peers.failed(problem)
