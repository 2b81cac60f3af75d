"""Reads the instances and the health of all linked services within the connection budget.

The first services get a blocking query of their own, which wakes for them alone. The others share three. Two name the
checks that fail (:mod:`plugin.observe.failing_checks`), and a service whose checks turn is read at once, it alone. One
wakes for any service of the datacenter, and says names alone, not what has changed. After that one the services
without a query of their own are read again, a few at a time, with a rest after each sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from plugin.consul import endpoints
from plugin.consul.api import HealthEntry
from plugin.consul.client import ConsulClient, decode_rows
from plugin.consul.poller import Poller, WatchState, watch_state, watch_state_since
from plugin.consul.transport import Reply
from plugin.consul.watch import News, Watch
from plugin.errors import ConsulForbidden, ConsulUnavailable, GatewayError
from plugin.observe import denials
from plugin.observe.denials import Hidden
from plugin.observe.failing_checks import FailingCheck, FailingChecks
from plugin.observe.slots import Slot
from plugin.observe.store import FactStore
from plugin.observe.sweep import Sweep
from proxy.logs import emit
from proxy.model import ServiceName

logger = logging.getLogger(__name__)

OWN_QUERIES = 26
"""With those for what all services share and the reads, 1,000 linked services stay under 64 connections."""
SWEEP_REQUESTS = 4
"""At a time."""
TURNED_REQUESTS = 2
"""At a time, of services whose checks have turned."""
QUIET_SWEEP_S = 300.0
"""How long the services without a query of their own are not read while Consul says of no change."""
FORBIDDEN_RETRY_S = 1.0
FORBIDDEN_PER_S = 5.0
"""With many forbidden names the pause grows, so that no more than this many are asked for each second."""

Instances = tuple[HealthEntry, ...]


class InstanceReader:
    def __init__(self, client: ConsulClient, store: FactStore, *, own_queries: int = OWN_QUERIES) -> None:
        self._client = client
        self._store = store
        self._own_limit = own_queries
        self._own: dict[ServiceName, Poller[Instances]] = {}
        self._connections = 0
        """Held by blocking queries of single services, also by those that were stopped and are not answered yet."""
        self._shared = _Shared(client, store)
        self._group: asyncio.TaskGroup | None = None
        self._waiting: set[ServiceName] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.linked(self._waiting, ())
            group.create_task(self._shared.run(), name="shared instances")

    def linked(self, added: Iterable[ServiceName], removed: Iterable[ServiceName]) -> None:
        for name in removed:
            self._waiting.discard(name)
            self._shared.discard(name)
            if (poller := self._own.pop(name, None)) is not None:
                poller.stop()
        if self._group is None:
            self._waiting.update(added)
            return
        for name in sorted(added):
            if self._connections < self._own_limit:
                self._watch(name, self._group)
            else:
                self._shared.add(name)

    def _watch(self, name: ServiceName, group: asyncio.TaskGroup) -> None:
        slot = self._store.instances(name)
        poller: Poller[Instances] = Poller(
            self._client,
            f"instances of {name}",
            endpoints.health(name.name),
            params=endpoints.tenancy(name),
            decode=_decoder(name),
            learned=lambda news: _learn(self._client, slot, poller.watch, name, news),
            failed=slot.failed,
            explain=lambda problem: denials.of_instances(self._client, name, problem),
        )
        self._own[name] = poller
        self._connections += 1
        group.create_task(poller.run(), name=poller.name).add_done_callback(self._ended)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._connections -= 1

    def ask_afresh(self) -> None:
        """The token may read more than before."""
        for poller in self._own.values():
            poller.ask_afresh()
        self._shared.ask_afresh()

    def retry_now(self) -> None:
        """Whatever made questions fail may have passed."""
        for poller in self._own.values():
            poller.retry_now()
        self._shared.retry_now()

    def states(self) -> list[WatchState]:
        return [*self._shared.states(), *(poller.state() for poller in self._own.values())]

    def newest(self) -> list[WatchState]:
        """As :meth:`states`, with one in the place of those that have no query of their own."""
        return [*self._shared.newest(), *(poller.state() for poller in self._own.values())]


@dataclass(slots=True)
class _Member:
    slot: Slot[Instances]
    watch: Watch[Instances]
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Two reads at a time could come back in the wrong order."""

    def is_on(self, nodes: set[str]) -> bool:
        return any(entry.node.node in nodes for entry in self.slot.fact.value or ())


class _Shared:
    """The services without a query of their own."""

    def __init__(self, client: ConsulClient, store: FactStore) -> None:
        self._client = client
        self._store = store
        self._members: dict[ServiceName, _Member] = {}
        self._confirmed_s: float | None = None
        """When any of them was confirmed last, monotonic."""
        self._all_asked_s = 0.0
        """When all of them were to be read last, monotonic."""
        self._sweep = Sweep(client, "instances", self._read, at_a_time=SWEEP_REQUESTS)
        self._at_once = Sweep(client, "instances", self._read, at_a_time=TURNED_REQUESTS, pause_s=0.0, rest=1.0)
        self._forbidden: set[ServiceName] = set()
        self._ask_forbidden = asyncio.Event()
        self._needed = asyncio.Event()
        self._checks = FailingChecks(client, turned=self._checks_turned, failed=self._signal_failed)
        self._any_service: Poller[bytes] = Poller(
            client,
            "any service",
            endpoints.CATALOG_SERVICES,
            decode=lambda reply: reply.body,
            learned=self._signalled,
            failed=self._signal_failed,
        )

    def add(self, name: ServiceName) -> None:
        self._members[name] = _Member(self._store.instances(name), Watch(_decoder(name)))
        self._needed.set()
        self._sweep.ask([name])

    def ask_afresh(self) -> None:
        self._any_service.ask_afresh()
        self._checks.ask_afresh()
        self._ask_forbidden.set()
        self._ask_all()

    def retry_now(self) -> None:
        self._any_service.retry_now()
        self._checks.retry_now()

    def discard(self, name: ServiceName) -> None:
        self._members.pop(name, None)
        self._sweep.discard(name)
        self._at_once.discard(name)
        self._forbidden.discard(name)

    async def run(self) -> None:
        await self._needed.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep.run(), name="instances without a query of their own")
            group.create_task(self._at_once.run(), name="instances whose checks have turned")
            group.create_task(self._retry_forbidden(), name="instances that may not be read")
            group.create_task(self._any_service.run(), name=self._any_service.name)
            group.create_task(self._checks.run(), name="failing checks")

    def _signalled(self, news: News[bytes]) -> None:
        # At times also when a wait ended without news: what the token may read changes without the index, and is mostly
        # noticed otherwise.
        if news.woken or time.monotonic() - self._all_asked_s > QUIET_SWEEP_S:
            self._ask_all()
        elif self._confirmed_s is not None and self._sweep.idle and self._at_once.idle:
            # Consul says that what was read is as it was.
            self._confirmed_s = time.monotonic()

    def _ask_all(self) -> None:
        self._all_asked_s = time.monotonic()
        self._sweep.ask(self._members)

    def _signal_failed(self, problem: GatewayError) -> None:
        for member in self._members.values():
            member.slot.failed(problem)

    def _checks_turned(self, checks: Iterable[FailingCheck]) -> None:
        services = {check.service for check in checks}
        nodes = {check.node for check in checks if check.service is None}
        turned = {name for name in services if name in self._members}
        turned.update(name for name, member in self._members.items() if nodes and member.is_on(nodes))
        self._at_once.ask(turned - self._forbidden)

    async def _retry_forbidden(self) -> None:
        """Apart, so that what is not allowed delays nobody else."""
        while True:
            pause_s = max(FORBIDDEN_RETRY_S, len(self._forbidden) / FORBIDDEN_PER_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * random.uniform(1.0, 1.5)):
                    await self._ask_forbidden.wait()
            self._ask_forbidden.clear()
            if self._forbidden:
                self._sweep.ask(self._forbidden)

    async def _read(self, name: ServiceName) -> GatewayError | None:
        """Return the problem after which ``name`` has to be read again soon."""
        member = self._members.get(name)
        if member is None:
            return None
        async with member.reading:
            return await self._read_member(name, member.slot, member.watch)

    async def _read_member(
        self, name: ServiceName, slot: Slot[Instances], watch: Watch[Instances]
    ) -> GatewayError | None:
        watch.requests += 1
        # A plain read is what the servers know now, whatever index came before.
        watch.index = 0
        try:
            reply = await self._client.blocking_get(endpoints.health(name.name), endpoints.tenancy(name))
        except GatewayError as problem:
            watch.fail(problem, time.monotonic())
        else:
            news = watch.receive(reply, time.monotonic())
            if news is not None:
                self._confirmed_s = time.monotonic()
                self._allowed(name)
                _learn(self._client, slot, watch, name, news)
                return None
        failure = watch.problem or ConsulUnavailable(f"no usable answer about the instances of {name}")
        watch.problem = failure = await denials.of_instances(self._client, name, failure)
        slot.failed(failure)
        if name not in self._members:
            return None
        if isinstance(failure, ConsulForbidden):
            self._forbidden.add(name)
            return None
        self._sweep.ask([name])
        return failure

    def _allowed(self, name: ServiceName) -> None:
        if name in self._forbidden:
            self._forbidden.discard(name)
            self._client.refusals.lifted(time.monotonic())

    def states(self) -> list[WatchState]:
        members = [watch_state(f"instances of {name}", one.watch) for name, one in self._members.items()]
        return [*self._signals(), *members]

    def newest(self) -> list[WatchState]:
        members = [watch_state_since("instances of any other service", self._confirmed_s)] if self._members else []
        return [*self._signals(), *members]

    def _signals(self) -> list[WatchState]:
        return [self._any_service.state(), *self._checks.states()] if self._members else []


def _learn(
    client: ConsulClient, slot: Slot[Instances], watch: Watch[Instances], name: ServiceName, news: News[Instances]
) -> None:
    """What can be seen is used; that it is not all is said, where Consul says so (1.11 and later)."""
    said = str(slot.fact.problem or "")
    slot.learned(news.value, index=news.index)
    if not watch.filtered:
        return
    problem = denials.of_some_instances(client, name)
    slot.failed(problem)
    if str(problem) != said:
        emit(logger, logging.WARNING, "instances.hidden", str(problem), service=str(name))


def _decoder(name: ServiceName) -> Callable[[Reply], Instances]:
    def decoded(reply: Reply) -> Instances:
        path = endpoints.health(name.name)
        instances = decode_rows(reply, HealthEntry, path)
        if not instances and reply.filtered:
            # Consul hides instances instead of refusing. What was known stays: losing a permission is not an outage.
            raise Hidden(f"Consul hides the instances of {name}", endpoints.NODE_READ_RULE)
        return instances

    return decoded
