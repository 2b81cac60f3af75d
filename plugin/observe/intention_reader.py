"""Reads the intentions of all linked services, promptly and over few connections.

One blocking query on the list of all intentions says *that* something changed and hints at the destinations that it
concerns; those are read at once, all others soon after when no destination explains the change, and else in a while.
What applies is then asked of ``intentions/match``, which takes many names at a time and needs no index (Consul 1.8 has
none). The list itself never decides: Consul leaves out silently what the token may not read, while ``match`` answers
403. One forbidden name makes Consul refuse all names of a request, so a refused request is halved until the forbidden
ones are found; those are asked apart from then on, at a bounded rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from plugin.consul import endpoints
from plugin.consul.api import IntentionMatch
from plugin.consul.client import ConsulClient, decode, decode_rows
from plugin.consul.poller import Poller, WatchState
from plugin.consul.transport import Reply
from plugin.consul.watch import Backoff, News
from plugin.errors import ConsulForbidden, ConsulUnavailable, GatewayError
from plugin.observe import denials
from plugin.observe.store import FactStore
from proxy.model import ServiceName

logger = logging.getLogger(__name__)

NAMES_PER_REQUEST = 100
FULL_READ_PAUSE_S = 2.0
"""Between a change and the read of every linked service."""
FULL_READ_REST = 100.0
"""Times as long as such a read took, before the next one: a change costs as much as it concerns, and this 1 % more.
Not after a change that no hint explains, for what the list leaves out may concern anybody."""
REQUESTS = 4
"""At a time."""
FORBIDDEN_RETRY_S = 1.0
FORBIDDEN_PER_S = 5.0
"""With many forbidden names the pause grows, so that no more than this many are asked for each second."""

_Matches = dict[str, tuple[IntentionMatch, ...] | None]
_ByDestination = dict[ServiceName, tuple[int, int]]
"""How many intentions a destination has, and the newest modification: differs whenever they do."""


class _Listed(
    msgspec.Struct,
    frozen=True,
    rename={
        "destination_name": "DestinationName",
        "destination_ns": "DestinationNS",
        "destination_partition": "DestinationPartition",
        "modify_index": "ModifyIndex",
    },
):
    destination_name: str
    destination_ns: str = "default"
    destination_partition: str = "default"
    modify_index: int = 0


class IntentionReader:
    def __init__(self, client: ConsulClient, store: FactStore, *, changed: Callable[[], None]) -> None:
        """``changed`` is called whenever any intention of the cluster may have changed."""
        self._client = client
        self._store = store
        self._changed = changed
        self._due: set[ServiceName] = set()
        self._all_due = asyncio.Event()
        self._unexplained = asyncio.Event()
        """A read of everything must not rest."""
        self._listed: _ByDestination = {}
        self._forbidden: set[ServiceName] = set()
        self._wake = asyncio.Event()
        self._ask_forbidden = asyncio.Event()
        self._requests = asyncio.Semaphore(REQUESTS)
        self._backoff = Backoff()
        self._confirmed_s: float | None = None
        self._problem: GatewayError | None = None
        self._count = 0
        self._answered: dict[ServiceName, int] = {}
        """The number of the newest request that each service was answered by."""
        self._signal: Poller[_ByDestination] = Poller(
            client,
            "intentions",
            endpoints.INTENTIONS,
            params=endpoints.EVERY_NAMESPACE,
            decode=_by_destination,
            learned=self._signalled,
            failed=self._failed,
            prompt=True,
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._signal.run(), name="intentions")
            group.create_task(self._read_due(), name="intentions of linked services")
            group.create_task(self._read_everything(), name="intentions of all linked services")
            group.create_task(self._retry_forbidden(), name="intentions that may not be read")

    def linked(self, added: Iterable[ServiceName], removed: Iterable[ServiceName]) -> None:
        for name in removed:
            self._due.discard(name)
            self._forbidden.discard(name)
            self._answered.pop(name, None)
        self._due.update(added)
        self._wake.set()

    def ask_afresh(self) -> None:
        """The token may read more than before."""
        self._signal.ask_afresh()
        self._ask_forbidden.set()

    def retry_now(self) -> None:
        """Whatever made questions fail may have passed."""
        self._signal.retry_now()

    def forget(self) -> None:
        """What was answered is of another cluster."""
        self._listed = {}
        self._signal.forget()

    def states(self) -> list[WatchState]:
        age_s = None if self._confirmed_s is None else time.monotonic() - self._confirmed_s
        problem = str(self._problem) if self._problem else ""
        name = "intentions of linked services"
        if not self._store.linked():
            # Nothing is asked then.
            age_s = self._signal.state().age_s
        index = self._signal.watch.index
        match = WatchState(name=name, index=index, age_s=age_s, problem=problem, requests=self._count)
        return [self._signal.state(), match]

    def _signalled(self, news: News[_ByDestination]) -> None:
        # Also when a wait ended without news: what the token may read changes without the index.
        explained = news.woken and self._hint(news.value or {})
        if not explained:
            self._unexplained.set()
        self._all_due.set()
        if news.woken:
            self._changed()

    def _hint(self, listed: _ByDestination) -> bool:
        """Whether any destination is seen to have changed."""
        before, self._listed = self._listed, listed
        touched = {name for name in before.keys() | listed.keys() if before.get(name) != listed.get(name)}
        if any("*" in (name.name, name.namespace) for name in touched):
            touched.update(self._names())
        self._due.update(touched & self._names())
        self._wake.set()
        return bool(touched)

    def _names(self) -> set[ServiceName]:
        return set(self._store.linked()) - self._forbidden

    def _failed(self, problem: GatewayError) -> None:
        for name in self._store.linked():
            self._store.intentions(name).failed(problem)

    async def _read_due(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due = sorted(self._due)
            self._due.clear()
            self._problem = await self._read_all(due)
            if self._problem is None:
                self._backoff.succeeded()
            else:
                await self._client.presence.pause(self._backoff.failed(self._problem))

    async def _read_everything(self) -> None:
        rest_s = 0.0
        while True:
            await self._all_due.wait()
            # What is known to have changed goes first, alone.
            await asyncio.sleep(FULL_READ_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._unexplained.wait()
            self._all_due.clear()
            self._unexplained.clear()
            began_s = time.monotonic()
            await self._read_all(sorted(self._names()))
            rest_s = FULL_READ_REST * (time.monotonic() - began_s)

    async def _retry_forbidden(self) -> None:
        while True:
            pause_s = max(FORBIDDEN_RETRY_S, len(self._forbidden) / FORBIDDEN_PER_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * random.uniform(1.0, 1.5)):
                    await self._ask_forbidden.wait()
            self._ask_forbidden.clear()
            await self._read_all(sorted(self._forbidden))

    async def _read_all(self, names: Sequence[ServiceName]) -> GatewayError | None:
        """Return a problem after which some of ``names`` have to be read again; they are due then."""
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(self._read(batch)) for batch in _batches(names)]
        return next((problem for read in reads if (problem := read.result()) is not None), None)

    async def _read(self, names: Sequence[ServiceName]) -> GatewayError | None:
        try:
            async with self._requests:
                self._count += 1
                asked = self._count
                matches, index = await self._match(names)
        except ConsulForbidden as problem:
            return await self._narrow_down(names, problem)
        except GatewayError as problem:
            self._due.update(names)
            self._wake.set()
            for name in names:
                self._store.intentions(name).failed(problem)
            return problem
        self._confirmed_s = time.monotonic()
        for name in names:
            self._allowed(name)
            # Reads overlap: the answer to an older question must not replace that to a newer one.
            if asked > self._answered.get(name, 0):
                self._answered[name] = asked
                self._store.intentions(name).learned(matches[name.name] or (), index=index)
        return None

    def _allowed(self, name: ServiceName) -> None:
        if name in self._forbidden:
            self._forbidden.discard(name)
            logger.info("intentions of %s: known again", name)
            self._client.refusals.lifted(time.monotonic())

    async def _narrow_down(self, names: Sequence[ServiceName], problem: ConsulForbidden) -> GatewayError | None:
        if len(names) > 1 and problem.rule:
            middle = len(names) // 2
            first, second = await self._read(names[:middle]), await self._read(names[middle:])
            return first or second
        for name in names:
            told = await denials.of_intentions(self._client, name, problem)
            if name not in self._forbidden:
                logger.warning("intentions of %s: %s", name, told)
            self._forbidden.add(name)
            self._store.intentions(name).failed(told)
        return None

    async def _match(self, names: Sequence[ServiceName]) -> tuple[_Matches, int]:
        wanted = [name.name for name in names]
        params = [("by", "destination"), *(("name", name) for name in wanted)]
        params += endpoints.tenancy(names[0])
        reply = await self._client.blocking_get(endpoints.INTENTIONS_MATCH, params)
        if reply.status != 200:
            raise ConsulUnavailable(f"Consul answered {reply.status} to {endpoints.INTENTIONS_MATCH}")
        matches = decode(reply, _Matches, endpoints.INTENTIONS_MATCH)
        # A name that is not answered for is not known; it must not pass for a service without intentions.
        if missing := [name for name in wanted if name not in matches]:
            raise ConsulUnavailable(f"Consul's answer about intentions leaves out {', '.join(missing[:5])}")
        return matches, reply.index or 0


def _by_destination(reply: Reply) -> _ByDestination:
    listed: _ByDestination = {}
    for row in decode_rows(reply, _Listed, endpoints.INTENTIONS):
        name = ServiceName(row.destination_name, row.destination_ns, row.destination_partition or "default")
        count, newest = listed.get(name, (0, 0))
        listed[name] = count + 1, max(newest, row.modify_index)
    return listed


def _batches(names: Sequence[ServiceName]) -> Iterable[Sequence[ServiceName]]:
    """Of one namespace and partition each: a request names them once, and its answer tells services by name alone."""
    places: dict[tuple[str, str], list[ServiceName]] = {}
    for name in names:
        places.setdefault((name.partition, name.namespace), []).append(name)
    for members in places.values():
        for start in range(0, len(members), NAMES_PER_REQUEST):
            yield members[start : start + NAMES_PER_REQUEST]
