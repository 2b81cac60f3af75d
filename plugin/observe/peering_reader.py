"""Reads which linked services are exported to which peers and, from when there is one, what verifies those peers.

Most clusters have no peers, and most tokens no right to ask for them: then nothing is exported, nothing else suffers,
and peerings are not asked for. Both questions block, so what changes is known at once.

Consul before 1.17.2 does not say what exported-services entries come to: then they are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from plugin.assemble.peers import read_peers, rows_of
from plugin.consul import endpoints
from plugin.consul.api import ExportedService, ExportedServicesEntry, Peering
from plugin.consul.client import ConsulClient, decode_rows
from plugin.consul.poller import Poller, WatchState
from plugin.consul.watch import News
from plugin.errors import ConsulForbidden, GatewayError
from plugin.observe.store import FactStore
from proxy.model import ServiceName

EXPORTS, ENTRIES, PEERS = "exported services", "exported-services entries", "peerings"
_NO_EXPORTS = "this Consul does not list exported services (1.17.2 and later do): exported-services entries are read"
_NO_ENTRIES = "this Consul has no exported-services entries, so no peer is let in"
_NO_PEERINGS = "this Consul has no peering, or it is not enabled"


class PeeringReader:
    def __init__(self, client: ConsulClient, store: FactStore) -> None:
        self._store = store
        self._wanted = asyncio.Event()
        self._unlisted = asyncio.Event()
        """Exports are not listed, or were not at some time."""
        self._listed: bool | None = None
        self._unresolved: tuple[str, ...] = ()
        self._unusable: tuple[str, ...] = ()
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
        path = endpoints.config("exported-services")
        self._entries: Poller[tuple[ExportedServicesEntry, ...]] = Poller(
            client,
            ENTRIES,
            path,
            params=endpoints.DEFAULT_NAMESPACE,
            decode=lambda reply: decode_rows(reply, ExportedServicesEntry, path),
            learned=self._entries_learned,
            failed=self._entries_failed,
            absent=_NO_ENTRIES,
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
            group.create_task(_run_once(self._unlisted, self._entries), name=ENTRIES)
            group.create_task(_run_once(self._wanted, self._peerings), name=PEERS)

    def states(self) -> Iterator[WatchState]:
        yield self._exports.state()
        if self._unlisted.is_set():
            yield self._entries.state()
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
        return self._exports, self._entries, self._peerings

    def _links_changed(self, added: frozenset[ServiceName], removed: frozenset[ServiceName]) -> None:
        self._look()

    def _look(self) -> None:
        if self._store.is_any_exported():
            self._wanted.set()

    def _exports_learned(self, news: News[tuple[ExportedService, ...]]) -> None:
        if withheld := self._withheld(self._exports):
            self._store.exports.failed(withheld)
            return
        was_listed, self._listed = self._listed, news.value is not None or self._exports.not_told is not None
        if not self._listed:
            self._unlisted.set()
            if was_listed and self._entries.watch.known:
                self._take(self._entries.watch.value or ())
            return
        self._resolved(())
        self._store.exports.learned(news.value, index=news.index)
        self._look()

    def _entries_learned(self, news: News[tuple[ExportedServicesEntry, ...]]) -> None:
        if self._listed:
            return
        if withheld := self._withheld(self._entries):
            self._store.exports.failed(withheld)
        elif news.value is None:
            self._resolved(())
            self._store.exports.learned(None)
        else:
            self._take(news.value)

    def _withheld(self, poller: Poller[Any]) -> GatewayError | None:
        """Consul leaves out what is exported, or does not tell what was known."""
        if poller.watch.filtered:
            # A list that is told in part would take away what is exported still.
            rule = endpoints.rule("mesh", "", "read")
            text = f"the token may not read all {poller.name}; add to its policy: {rule}"
            return ConsulForbidden(text, rule)
        not_told = poller.not_told
        if not_told is not None and self._store.exports.fact.value:
            return ConsulForbidden(str(not_told), not_told.rule)
        return None

    def _entries_failed(self, problem: GatewayError) -> None:
        if not self._listed:
            self._store.exports.failed(problem)

    def _take(self, entries: tuple[ExportedServicesEntry, ...]) -> None:
        rows, problems = rows_of(entries)
        self._resolved(problems)
        self._store.exports.learned(rows)
        self._look()

    def _resolved(self, problems: tuple[str, ...]) -> None:
        self._unresolved = problems
        self._store.set_unusable_peers((*self._unresolved, *self._unusable))

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
        self._unusable = peers.problems
        self._store.set_unusable_peers((*self._unresolved, *self._unusable))
        self._store.peers.learned(peers.bundles, index=news.index)

    def _peerings_failed(self, problem: GatewayError) -> None:
        self._store.peers.failed(problem)


async def _run_once(wanted: asyncio.Event, poller: Poller[Any]) -> None:
    await wanted.wait()
    await poller.run()
