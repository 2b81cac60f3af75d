"""Keeps a fresh leaf certificate for every linked service, without one connection for each.

A leaf is asked for when its service is linked, when the signing key changed, and from 60 % of its life on. What was
measured with Consul 1.21 decides how: a plain read makes the agent sign a new leaf at once after the signing key
changed, unless the agent is already doing so by itself (it takes up to 30 s, to spare the servers); a plain read does
not renew by age before 90 %; Consul 1.8 renews for blocking reads only. So a plain read comes first and a blocking one,
which joins the agent's own renewal, second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time

from plugin.consul import endpoints
from plugin.consul.api import LeafCertificate, Roots
from plugin.consul.client import ConsulClient, decode
from plugin.consul.poller import WatchState, watch_state_since
from plugin.consul.watch import Backoff, Bucket
from plugin.errors import ConsulForbidden, ConsulRejected, ConsulUnavailable, GatewayError
from plugin.observe.leaves import KnownLeaf, convert
from plugin.observe.slots import Slot
from plugin.observe.store import FactStore
from plugin.process import tasks
from proxy.logs import emit
from proxy.model import Leaf, ServiceName
from proxy.policy.identity import parse_spiffe_id

logger = logging.getLogger(__name__)

PLAIN_READS = 6
"""At a time."""
READS_PER_S = 50.0
READS_BURST = 40
"""The servers sign 50 leaves a second by default (``csr_max_per_second``), for all of their clients. What the agent
still has, after a restart of the gateway say, does not count."""
EXPECTED_FAILURES = 3
"""Failures in a row that pass by themselves and are not worth a warning."""
BLOCKING_READS = 4
"""At a time; each may hold its connection for ``BLOCKING_WAIT_S``."""
BLOCKING_WAIT_S = 35.0
"""Longer than the 30 s over which an agent spreads renewals after the signing key changed."""
CLOCK_INTERVAL_S = 2.0
CLOCK_TOLERANCE_S = 5.0
DATACENTER_PATIENCE_S = 0.5
"""Other answers usually tell the datacenter within this time, and spare the servers a signature."""


class LeafKeeper:
    def __init__(self, client: ConsulClient, store: FactStore) -> None:
        self._client = client
        self._store = store
        self._plain = asyncio.Semaphore(PLAIN_READS)
        self._blocking = asyncio.Semaphore(BLOCKING_READS)
        self._bucket = Bucket(READS_BURST, READS_PER_S)
        self._roots: Roots | None = None
        self._kept: dict[ServiceName, _Kept] = {}
        self._confirmed_s: float | None = None
        """When any leaf was confirmed last, monotonic."""

    def roots_changed(self, roots: Roots) -> None:
        self._roots = roots
        for kept in self._kept.values():
            if kept.known is not None and not kept.known.signed_by_active(roots):
                kept.kick.set()

    async def watch_clock(self) -> None:
        """For ever. Pauses are measured by a clock that is never set and, on Linux, stands still while the machine
        sleeps; leaves expire by the other one. When the two drift apart, every leaf is asked for."""
        apart_s = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(CLOCK_INTERVAL_S)
            jumped_s = time.time() - time.monotonic() - apart_s
            if abs(jumped_s) < CLOCK_TOLERANCE_S:
                continue
            apart_s += jumped_s
            message = f"the clock has jumped by {jumped_s:+.0f} s; every leaf is asked for"
            emit(logger, logging.WARNING, "clock.jumped", message, seconds=round(jumped_s))
            for kept in self._kept.values():
                kept.kick.set()

    def ask_afresh(self) -> None:
        """The token may be allowed more than before."""
        for kept in self._kept.values():
            if kept.forbidden:
                kept.kick.set()

    def retry_now(self) -> None:
        """Whatever made questions fail may have passed."""
        for kept in self._kept.values():
            if kept.failing:
                kept.kick.set()

    def forget(self) -> None:
        """The roots are those of another cluster."""
        self._roots = None

    def states(self) -> list[WatchState]:
        return [kept.state() for kept in self._kept.values()]

    def newest(self) -> list[WatchState]:
        """One in the place of :meth:`states`, as old as the one that was confirmed last."""
        return [watch_state_since("leaf of any service", self._confirmed_s)] if self._kept else []

    def renewal_due_s(self, name: ServiceName) -> float:
        """When the next leaf is first asked for by its age, Unix time; 0 while there is none."""
        kept = self._kept.get(name)
        return kept.known.renewal_due_s(kept.fraction) if kept is not None and kept.known is not None else 0.0

    async def keep(self, name: ServiceName) -> None:
        """Run until cancelled, which is what happens when ``name`` is unlinked."""
        kept = self._kept[name] = _Kept(name, self._store.leaf(name))
        try:
            while True:
                pause_s = await self._renew(kept)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await kept.kick.wait()
        finally:
            if self._kept.get(name) is kept:
                del self._kept[name]

    async def learn_datacenter(self, gateway: str) -> None:
        """Until it is known: without a linked service, the gateway's own leaf tells the agent's datacenter to a token
        that may not read the agent's settings. Its token must be allowed to write that name, to register it."""
        backoff = Backoff()
        await asyncio.sleep(DATACENTER_PATIENCE_S)
        while not self._store.mesh_facts().datacenter:
            answer = await self._request(self._client.home(gateway), index=0)
            if isinstance(answer, GatewayError):
                logger.debug("datacenter: %s", answer)
                await self._client.presence.pause(backoff.failed(answer))
            else:
                self._store.set_datacenter(parse_spiffe_id(answer.leaf.spiffe_id).datacenter)

    async def _renew(self, kept: _Kept) -> float:
        """Ask once or twice; return the seconds until it is worth asking again."""
        kept.kick.clear()
        try:
            forbidden = kept.forbidden
            kept.take(await self._read(kept, index=0))
            self._confirmed_s = time.monotonic()
            if forbidden:
                self._client.refusals.lifted(time.monotonic())
            # With all blocking reads taken, plain ones go on: they find what the agent renewed by itself.
            if not kept.renewed and self._is_stale(kept) and not self._blocking.locked():
                kept.take(await self._read(kept, index=kept.index))
                self._confirmed_s = time.monotonic()
        except GatewayError as problem:
            refused = isinstance(problem, ConsulForbidden)
            return kept.failed(problem) + (self._client.refusals.wait_s(time.monotonic()) if refused else 0.0)
        self._learn_datacenter(kept)
        return self._next_question_s(kept)

    async def _read(self, kept: _Kept, *, index: int) -> KnownLeaf:
        async with self._blocking if index else self._plain:
            kept.requests += 1
            if not index:
                await asyncio.sleep(self._bucket.take(time.monotonic()))
            # Consul 1.11 lets later reads of a leaf hang for minutes after a blocking one was abandoned (issue 12568):
            # whoever waits may be cancelled, the request may not.
            request = tasks.spawn(self._request(kept.name, index), name=f"leaf of {kept.name}")
            answer = await asyncio.shield(request)
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    async def _request(self, name: ServiceName, index: int) -> KnownLeaf | GatewayError:
        path = endpoints.leaf(name.name)
        try:
            reply = await self._client.blocking_get(path, endpoints.tenancy(name), index=index, wait_s=BLOCKING_WAIT_S)
            if reply.remembered and not index:
                self._bucket.give_back()
            if reply.status == 404:
                return ConsulRejected(f"Consul has no {path}: is Connect enabled on the agent?", 404)
            return convert(decode(reply, LeafCertificate, path), index=reply.index or 1, now_s=time.time())
        except GatewayError as problem:
            return problem

    def _learn_datacenter(self, kept: _Kept) -> None:
        """A leaf is issued in the agent's own datacenter, which few tokens may ask for otherwise."""
        if kept.renewed and kept.known is not None and not self._store.mesh_facts().datacenter:
            self._store.set_datacenter(parse_spiffe_id(kept.known.leaf.spiffe_id).datacenter)

    def _is_stale(self, kept: _Kept) -> bool:
        known = kept.known
        return known is None or not known.signed_by_active(self._roots) or time.time() >= known.renewal_due_s(0.0)

    def _next_question_s(self, kept: _Kept) -> float:
        known = kept.known
        if known is None or not known.signed_by_active(self._roots):
            stale = sum(1 for each in self._kept.values() if self._is_stale(each))
            return max(2.0, stale / READS_PER_S) * random.uniform(0.5, 1.5)
        due_s = known.renewal_due_s(kept.fraction) - time.time()
        return due_s if due_s > 0 else known.recheck_s() * random.uniform(0.7, 1.3)


class _Kept:
    """The leaf of one linked service."""

    def __init__(self, name: ServiceName, slot: Slot[Leaf]) -> None:
        self.name = name
        self.known: KnownLeaf | None = None
        self.index = 0
        self.fraction = random.random()
        """Where in the renewal window this leaf is asked for: spread, so that a fleet does not come at once."""
        self.renewed = False
        """The newest answer was another leaf than the one before."""
        self.requests = 0
        self.kick = asyncio.Event()
        self._slot = slot
        self._backoff = Backoff()
        self._confirmed_s: float | None = None
        self._problem: GatewayError | None = None

    def take(self, answer: KnownLeaf) -> None:
        self.renewed = self.known is None or answer.leaf != self.known.leaf
        if self.renewed:
            self.known = answer
            self.fraction = random.random()
        self.index = answer.index
        self._confirmed_s = time.monotonic()
        self._backoff.succeeded()
        if self._problem is not None:
            logger.info("leaf of %s: known again", self.name)
            self._problem = None
        self._slot.learned(answer.leaf, index=answer.index)

    def failed(self, problem: GatewayError) -> float:
        """Keep what is there; return the seconds to pause."""
        pause_s = self._backoff.failed(problem)
        passing = isinstance(problem, ConsulUnavailable)
        news = self._backoff.failures == EXPECTED_FAILURES if passing else str(problem) != str(self._problem or "")
        logger.log(logging.WARNING if news else logging.DEBUG, "leaf of %s: %s", self.name, problem)
        self._problem = problem
        self._slot.failed(problem)
        return pause_s

    @property
    def failing(self) -> bool:
        return self._problem is not None

    @property
    def forbidden(self) -> bool:
        return isinstance(self._problem, ConsulForbidden)

    def state(self) -> WatchState:
        return WatchState(
            name=f"leaf of {self.name}",
            index=self.index,
            age_s=None if self._confirmed_s is None else time.monotonic() - self._confirmed_s,
            problem=str(self._problem) if self._problem else "",
            requests=self.requests,
        )
