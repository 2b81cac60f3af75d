"""Watches Consul for one gateway and writes what it learns into the fact store.

It owns the watches and their lives; it decides nothing about connections. Whatever happens to Consul, the store keeps
what was known, and asking goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from plugin.consul import endpoints
from plugin.consul.api import (
    GatewayService,
    MeshEntry,
    ProxyDefaults,
    Roots,
    ServiceDefaults,
    ServiceResolver,
    TerminatingGatewayEntry,
)
from plugin.consul.client import ConsulClient, decode, decode_rows
from plugin.consul.poller import Poller, WatchState
from plugin.consul.transport import Reply
from plugin.consul.watch import Backoff, News
from plugin.errors import GatewayError
from plugin.observe.default_action import DefaultActionLearner
from plugin.observe.instance_reader import InstanceReader
from plugin.observe.intention_reader import IntentionReader
from plugin.observe.leaf_keeper import LeafKeeper
from plugin.observe.peering_reader import PeeringReader
from plugin.observe.provider_reader import PATH as PROVIDERS
from plugin.observe.provider_reader import ProviderReader
from plugin.observe.rights import RightsWatcher
from plugin.observe.sidecar_reader import SidecarReader
from plugin.observe.slots import EntryList, Slot
from plugin.observe.store import FactStore
from proxy.model import ServiceName

T = TypeVar("T")
E = TypeVar("E", ServiceDefaults, ServiceResolver)

_LIST_AGAIN_S = 5.0
"""How long a new link waits for that, beside everything else that it has to wait for."""

logger = logging.getLogger(__name__)


class Observer:
    """All that the gateway ``gateway`` (the name of its terminating-gateway entry) reads from Consul."""

    def __init__(self, client: ConsulClient, store: FactStore, gateway: str) -> None:
        self._client = client
        self._store = store
        self._gateway = gateway
        self._leaves = LeafKeeper(client, store)
        self._instances = InstanceReader(client, store)
        self._sidecars = SidecarReader(client, store)
        self._providers = ProviderReader(client, store)
        self._peering = PeeringReader(client, store)
        self._default_action = DefaultActionLearner(client, store, gateway)
        self._intentions = IntentionReader(client, store, changed=self._default_action.intentions_changed)
        self._keeping: dict[ServiceName, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._entry_answered = asyncio.Event()
        self._absent = asyncio.Event()
        """The list of entries lacks ours: there is none, or it may not be read."""
        self._refused = asyncio.Event()
        """Ends the pause after the entry by its name was refused."""
        self._agent_away = False
        self._linked_rows = self._poller(
            "linked services",
            endpoints.gateway_services(gateway),
            self._rows,
            lambda news: store.gateway_services.learned(news.value or (), index=news.index),
            store.gateway_services.failed,
        )
        self._lists = self._make_list_pollers()
        self._pollers = [self._linked_rows, *self._make_pollers(), *self._lists]
        self._rights = RightsWatcher(
            client,
            {endpoints.gateway_services(gateway): self._linked_rows.watch, PROVIDERS: self._providers.watch},
        )
        client.refusals.listen(self._rights_changed)
        client.presence.watch(gateway, returned=self._agent_returned, replaced=self._consul_replaced)

    async def run(self) -> None:
        """Observe until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._store.subscribe_links(self._links_changed)
            for poller in self._pollers:
                run = self._after_entry(poller.run) if poller in self._lists else poller.run()
                group.create_task(run, name=poller.name)
            group.create_task(self._confirm_absence(), name="terminating-gateway entry")
            group.create_task(self._after_entry(self._intentions.run), name="intentions")
            group.create_task(self._instances.run(), name="instances")
            group.create_task(self._sidecars.run(), name="sidecars")
            group.create_task(self._after_entry(self._providers.run), name="jwt-provider")
            group.create_task(self._after_entry(self._peering.run), name="peering")
            group.create_task(self._default_action.run(), name="default intention action")
            group.create_task(self._leaves.learn_datacenter(self._gateway), name="datacenter")
            group.create_task(self._leaves.watch_clock(), name="clock")
            group.create_task(self._rights.run(), name="rights of the token")

    async def _after_entry(self, part: Callable[[], Awaitable[None]]) -> None:
        """The first answer about the entry tells whether there are namespaces; a question that is under way by then
        would be held for a minute without asking about them."""
        await self._entry_answered.wait()
        await part()

    @property
    def away(self) -> str:
        """Why nothing is asked at the moment; empty when the agent is there."""
        return str(self._client.presence.problem or "")

    def leaf_renewal_due_s(self, name: ServiceName) -> float:
        """When the next leaf of ``name`` is first asked for by its age, Unix time; 0 while there is none."""
        return self._leaves.renewal_due_s(name)

    def watch_states(self) -> list[WatchState]:
        return [
            *(poller.state() for poller in self._pollers),
            self._default_action.state(),
            *self._intentions.states(),
            *self._instances.states(),
            *self._sidecars.states(),
            *self._providers.states(),
            *self._peering.states(),
            *self._leaves.states(),
        ]

    def newest_states(self) -> list[WatchState]:
        """As :meth:`watch_states`, but of what is read for each service only the newest answer: as many as there are
        kinds of facts, however many services."""
        return [
            *(poller.state() for poller in self._pollers),
            self._default_action.state(),
            *self._intentions.states(),
            *self._instances.newest(),
            *self._sidecars.states(),
            *self._providers.states(),
            *self._peering.states(),
            *self._leaves.newest(),
        ]

    def _rights_changed(self) -> None:
        """Ask again what was refused or told in part: its right may have been given."""
        for poller in self._pollers:
            poller.ask_afresh()
        self._refused.set()
        self._intentions.ask_afresh()
        self._instances.ask_afresh()
        self._sidecars.ask_afresh()
        self._providers.ask_afresh()
        self._peering.ask_afresh()
        self._leaves.ask_afresh()
        self._default_action.agent_returned()

    def _agent_returned(self) -> None:
        """What failed meanwhile is asked for at once."""
        for poller in self._pollers:
            poller.retry_now()
        self._intentions.retry_now()
        self._instances.retry_now()
        self._sidecars.retry_now()
        self._providers.retry_now()
        self._peering.retry_now()
        self._leaves.retry_now()
        self._default_action.agent_returned()

    def _consul_replaced(self) -> None:
        assert self._group is not None
        self._absent.clear()
        for poller in self._pollers:
            poller.forget()
        self._store.forget()
        self._intentions.forget()
        self._providers.forget()
        self._peering.forget()
        self._leaves.forget()
        self._default_action.agent_returned()
        self._group.create_task(self._leaves.learn_datacenter(self._gateway), name="datacenter")

    def _links_changed(self, added: frozenset[ServiceName], removed: frozenset[ServiceName]) -> None:
        assert self._group is not None
        for name in removed:
            self._keeping.pop(name).cancel()
        for name in sorted(added):
            self._keeping[name] = self._group.create_task(self._leaves.keep(name), name=f"leaf of {name}")
        self._intentions.linked(added, removed)
        self._instances.linked(added, removed)
        self._sidecars.linked(added, removed)
        for kind, row, entries in self._entry_lists():
            if added and entries.doubt(added):
                self._group.create_task(self._list_again(kind, row, entries, added), name=f"{kind} of new links")

    def _entry_lists(self) -> list[tuple[str, type[Any], EntryList[Any]]]:
        store = self._store
        return [
            ("service-defaults", ServiceDefaults, store.service_defaults),
            ("service-resolver", ServiceResolver, store.service_resolvers),
        ]

    async def _list_again(self, kind: str, row: type[E], entries: EntryList[E], names: frozenset[ServiceName]) -> None:
        """Read the list once more for new links. An entry that was written before the link may still be on its way to
        the poller; without it, a service of http would be carried as tcp until it is there."""
        path = endpoints.config(kind)
        try:
            async with asyncio.timeout(_LIST_AGAIN_S):
                reply = await self._client.blocking_get(path, endpoints.EVERY_NAMESPACE)
            index = reply.index or 0
            if reply.status != 404 and index >= entries.index:
                entries.learned(decode_rows(reply, row, path), index=index)
        except (GatewayError, TimeoutError) as problem:
            # The poller asks for the same, tells of its own problems and does not give up.
            logger.debug("%s of new links: %s", kind, problem)
        entries.sure(names)

    def _make_pollers(self) -> list[Poller[Any]]:
        return [
            self._poller(
                "terminating-gateway entry",
                endpoints.config("terminating-gateway"),
                self._own_entry,
                self._entry_learned,
                self._entry_failed,
            ),
            self._poller("roots", endpoints.ROOTS, _roots, self._roots_learned, self._roots_failed),
        ]

    def _make_list_pollers(self) -> list[Poller[Any]]:
        store = self._store
        return [
            *(self._entries(kind, row, entries) for kind, row, entries in self._entry_lists()),
            self._single("proxy-defaults", ProxyDefaults, store.proxy_defaults),
            self._single("mesh", MeshEntry, store.mesh),
        ]

    def _poller(
        self,
        name: str,
        path: str,
        decode: Callable[[Reply], T | None],
        learned: Callable[[News[T]], None],
        failed: Callable[[GatewayError], None],
        params: endpoints.Params = (),
    ) -> Poller[T]:
        return Poller(self._client, name, path, decode=decode, learned=learned, failed=failed, params=params)

    # Lists are read rather than single entries: a blocking read of one entry answers 200 with what was deleted.

    def _entries(self, kind: str, row: type[E], entries: EntryList[E]) -> Poller[tuple[E, ...]]:
        def learned(news: News[tuple[E, ...]]) -> None:
            if news.changed or not entries.current:
                entries.learned(news.value or (), index=news.index)

        path = endpoints.config(kind)
        everywhere = endpoints.EVERY_NAMESPACE
        return self._poller(
            kind, path, lambda reply: decode_rows(reply, row, path), learned, entries.failed, params=everywhere
        )

    def _single(self, kind: str, row: type[T], slot: Slot[T]) -> Poller[tuple[T, ...]]:
        def learned(news: News[tuple[T, ...]]) -> None:
            slot.learned(next(iter(news.value or ()), None), index=news.index)

        path = endpoints.config(kind)
        once = endpoints.DEFAULT_NAMESPACE
        return self._poller(kind, path, lambda reply: decode_rows(reply, row, path), learned, slot.failed, params=once)

    def _rows(self, reply: Reply) -> tuple[GatewayService, ...]:
        return decode_rows(reply, GatewayService, endpoints.gateway_services(self._gateway))

    def _own_entry(self, reply: Reply) -> TerminatingGatewayEntry | None:
        path = endpoints.config("terminating-gateway")
        for entry in decode_rows(reply, TerminatingGatewayEntry, path):
            if entry.name == self._gateway:
                return entry
        return None

    def _entry_learned(self, news: News[TerminatingGatewayEntry]) -> None:
        if news.value is None:
            self._absent.set()
        else:
            self._absent.clear()
            self._take_entry(news.value, news.index)
        self._entry_answered.set()

    def _entry_failed(self, problem: GatewayError) -> None:
        self._store.entry.failed(problem)
        self._entry_answered.set()

    def _take_entry(self, entry: TerminatingGatewayEntry | None, index: int) -> None:
        if entry is not None and entry.namespace:
            self._client.namespaces_seen()
        self._store.entry.learned(entry, index=index)

    async def _confirm_absence(self) -> None:
        """Tell a missing entry from one that Consul left out because the token may not read it."""
        backoff = Backoff()
        path = endpoints.config("terminating-gateway", self._gateway)
        while True:
            await self._absent.wait()
            try:
                reply = await self._client.blocking_get(path)
                entry = None if reply.status == 404 else decode(reply, TerminatingGatewayEntry, path)
            except GatewayError as problem:
                if str(problem) != str(self._store.entry.fact.problem or ""):
                    logger.warning("terminating-gateway entry: %s", problem)
                self._store.entry.failed(problem)
                self._refused.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.failed(problem)):
                        await self._refused.wait()
                continue
            if backoff.failures:
                self._client.refusals.lifted(time.monotonic())
            backoff.succeeded()
            if self._absent.is_set():
                self._absent.clear()
                self._take_entry(entry, reply.index or 0)

    def _roots_learned(self, news: News[Roots]) -> None:
        if news.value is None or not self._client.presence.expect(news.value.trust_domain):
            return
        self._store.roots.learned(news.value, index=news.index)
        if news.changed:
            self._leaves.roots_changed(news.value)
        if self._agent_away:
            self._agent_away = False
            self._default_action.agent_returned()

    def _roots_failed(self, problem: GatewayError) -> None:
        self._store.roots.failed(problem)
        self._agent_away = True


def _roots(reply: Reply) -> Roots:
    return decode(reply, Roots, endpoints.ROOTS)
