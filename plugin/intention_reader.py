"""Reads the intentions of all linked services, promptly and over few connections.

One blocking query on the list of all intentions says *that* something changed; it matches nothing, so it costs no
bytes. Then ``intentions/match``, which takes many names at a time and needs no index (Consul 1.8 gives none), says what
applies now. The list itself never decides: Consul leaves out silently what the token may not read, while ``match``
answers 403. One forbidden name makes Consul refuse all names of a request, so a refused request is halved until the
forbidden ones are found; those are asked apart from then on, and slowly.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence

from plugin.consul import endpoints
from plugin.consul.api import IntentionMatch
from plugin.consul.client import ConsulClient, decode
from plugin.consul.poller import Poller, WatchState
from plugin.consul.transport import Reply
from plugin.consul.watch import Backoff, News
from plugin.errors import ConsulForbidden, ConsulUnavailable, GatewayError
from plugin.store import FactStore
from proxy.model import ServiceName

logger = logging.getLogger(__name__)

NAMES_PER_REQUEST = 100
REQUESTS = 4
"""At a time."""
FORBIDDEN_RETRY_S = 8.0
FORBIDDEN_PER_S = 5.0
"""With many forbidden names the pause grows, so that no more than this many are asked for each second."""

_Matches = dict[str, tuple[IntentionMatch, ...] | None]


class IntentionReader:
    def __init__(self, client: ConsulClient, store: FactStore, *, changed: Callable[[], None]) -> None:
        """``changed`` is called whenever any intention of the cluster may have changed."""
        self._client = client
        self._store = store
        self._changed = changed
        self._due: set[ServiceName] = set()
        self._forbidden: set[ServiceName] = set()
        self._wake = asyncio.Event()
        self._requests = asyncio.Semaphore(REQUESTS)
        self._backoff = Backoff()
        self._confirmed_s: float | None = None
        self._problem: GatewayError | None = None
        self._count = 0
        self._signal: Poller[bytes] = Poller(
            client,
            "intentions",
            endpoints.INTENTIONS,
            params=endpoints.NO_INTENTIONS,
            decode=_body,
            learned=self._signalled,
            failed=self._failed,
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._signal.run(), name="intentions")
            group.create_task(self._read_due(), name="intentions of linked services")
            group.create_task(self._retry_forbidden(), name="intentions that may not be read")

    def linked(self, added: Iterable[ServiceName], removed: Iterable[ServiceName]) -> None:
        for name in removed:
            self._due.discard(name)
            self._forbidden.discard(name)
        self._due.update(added)
        self._wake.set()

    def states(self) -> list[WatchState]:
        age_s = None if self._confirmed_s is None else time.monotonic() - self._confirmed_s
        problem = str(self._problem) if self._problem else ""
        name = "intentions of linked services"
        index = self._signal.watch.index
        match = WatchState(name=name, index=index, age_s=age_s, problem=problem, requests=self._count)
        return [self._signal.state(), match]

    def _signalled(self, news: News[bytes]) -> None:
        # Also when a wait ended without news: what the token may read changes without the index.
        self._due.update(name for name in self._store.linked() if name not in self._forbidden)
        self._wake.set()
        if news.woken:
            self._changed()

    def _failed(self, problem: GatewayError) -> None:
        for name in self._store.linked():
            self._store.intentions(name).failed(problem)

    async def _read_due(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due = sorted(self._due)
            self._due.clear()
            await self._read_all(due)
            if self._problem is not None:
                await asyncio.sleep(self._backoff.failed(self._problem))
                self._wake.set()
            else:
                self._backoff.succeeded()

    async def _retry_forbidden(self) -> None:
        while True:
            pause_s = max(FORBIDDEN_RETRY_S, len(self._forbidden) / FORBIDDEN_PER_S)
            await asyncio.sleep(pause_s * random.uniform(1.0, 1.5))
            await self._read_all(sorted(self._forbidden))

    async def _read_all(self, names: Sequence[ServiceName]) -> None:
        self._problem = None
        async with asyncio.TaskGroup() as group:
            for batch in _batches(names):
                group.create_task(self._read(batch))

    async def _read(self, names: Sequence[ServiceName]) -> None:
        try:
            async with self._requests:
                matches, index = await self._match(names)
        except ConsulForbidden as problem:
            await self._narrow_down(names, problem)
        except GatewayError as problem:
            self._problem = problem
            self._due.update(names)
            for name in names:
                self._store.intentions(name).failed(problem)
        else:
            self._confirmed_s = time.monotonic()
            for name in names:
                self._forbidden.discard(name)
                self._store.intentions(name).learned(matches[endpoints.qualified(name)] or (), index=index)

    async def _narrow_down(self, names: Sequence[ServiceName], problem: ConsulForbidden) -> None:
        if len(names) > 1 and problem.rule:
            middle = len(names) // 2
            await self._read(names[:middle])
            await self._read(names[middle:])
            return
        for name in names:
            if name not in self._forbidden:
                logger.warning("intentions of %s: %s", name, problem)
            self._forbidden.add(name)
            self._store.intentions(name).failed(problem)

    async def _match(self, names: Sequence[ServiceName]) -> tuple[_Matches, int]:
        self._count += 1
        wanted = [endpoints.qualified(name) for name in names]
        params = [("by", "destination"), *(("name", name) for name in wanted)]
        params += [pair for pair in endpoints.tenancy(names[0]) if pair[0] == "partition"]
        reply = await self._client.blocking_get(endpoints.INTENTIONS_MATCH, params)
        if reply.status != 200:
            raise ConsulUnavailable(f"Consul answered {reply.status} to {endpoints.INTENTIONS_MATCH}")
        matches = decode(reply, _Matches, endpoints.INTENTIONS_MATCH)
        # A name that is not answered for is not known; it must not pass for a service without intentions.
        if missing := [name for name in wanted if name not in matches]:
            raise ConsulUnavailable(f"Consul's answer about intentions leaves out {', '.join(missing[:5])}")
        return matches, reply.index or 0


def _body(reply: Reply) -> bytes:
    return reply.body


def _batches(names: Sequence[ServiceName]) -> Iterable[Sequence[ServiceName]]:
    """Of one partition each, since a request names only one."""
    partitions: dict[str, list[ServiceName]] = {}
    for name in names:
        partitions.setdefault(name.partition, []).append(name)
    for members in partitions.values():
        for start in range(0, len(members), NAMES_PER_REQUEST):
            yield members[start : start + NAMES_PER_REQUEST]
