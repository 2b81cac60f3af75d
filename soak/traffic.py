"""The load: checked pumps, short requests, idle connections and callers that must never get in."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from plugin.errors import GatewayError
from soak.ledger import Flow
from soak.pump import Last, Progress, Round, Side, Wrong, random_round
from soak.streams import Broken, Stream
from soak.web import WebTraffic
from soak.world import FLIPPED, INTRUDER, PLAIN, RELINKED, SECURED, STEADY, STOPPED, World

_ROUNDS = 12
"""Of a connection at most, before it ends by a half close and another one begins."""
_REQUEST_EVERY_S = 0.15
_IDLE_ASKS_EVERY_S = 20.0
_PATIENCE_S = 60.0
_PAUSE_S = 0.1
_RAMP_S = 0.1
"""Between two idle connections: a handshake costs the load generator as much as the gateway."""


class Traffic:
    """Runs until cancelled; everything it finds goes to the ledger of the world."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.pumps: dict[int, tuple[Flow, Progress]] = {}
        """Open ones, by number."""
        self.streams: dict[int, Stream] = {}
        self.web = WebTraffic(world, seed)
        self._seed = seed
        self._numbers = itertools.count(1)
        self._stop = asyncio.Event()

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Let every connection end properly: pumps finish their round."""
        self._stop.set()
        self.web.stop()

    def all(self, *, pumps: int, idle: int) -> list[Coroutine[Any, Any, None]]:
        """What is to be run, all at once."""
        pairs = [(STEADY, PLAIN), (FLIPPED, PLAIN), (STEADY, SECURED), (STEADY, RELINKED)]
        running = [self.pump(*pairs[number % len(pairs)], number) for number in range(pumps)]
        running += [self.requests(source, service) for source, service in (*pairs, (STEADY, STOPPED))]
        running += [self.requests(INTRUDER, service) for service in (PLAIN, SECURED)]
        running += self.web.all()
        return running + [self.idle(STEADY, PLAIN, number) for number in range(idle)]

    async def pump(self, source: str, service: str, number: int) -> None:
        """One checked connection after the other."""
        chance = random.Random(f"{self._seed}/{number}")
        while not self._stopping:
            flow = Flow((source, service), time.monotonic())
            if not await self._judged(flow, lambda flow=flow: self._pump(flow, chance)):  # type: ignore[misc]
                await asyncio.sleep(_PAUSE_S)

    async def _pump(self, flow: Flow, chance: random.Random) -> None:
        ledger = self.world.ledger
        stream = await self._dial(flow)
        number, progress = next(self._numbers), Progress()
        side = Side(stream, progress, ledger.verified)
        self.pumps[number], self.streams[number] = (flow, progress), stream
        try:
            for _ in range(chance.randint(1, _ROUNDS)):
                await self._round(side, flow, random_round(chance, number))
                if self._stopping:
                    break
            last = chance.choice((Last.CLIENT_FIRST, Last.SERVICE_FIRST))
            await self._round(side, flow, random_round(chance, number, last))
            ledger.counts["half closes, " + ("client first" if last is Last.CLIENT_FIRST else "service first")] += 1
        finally:
            del self.pumps[number], self.streams[number]
            stream.reset()

    async def _round(self, side: Side, flow: Flow, one: Round) -> None:
        await side.send_round(one, from_client=True)
        self.world.ledger.got_through(flow)
        self.world.ledger.counts["rounds"] += 1

    async def requests(self, source: str, service: str) -> None:
        """A new connection for each request, refused or not as the policy says."""
        chance = random.Random(f"{self._seed}/{source}/{service}")
        while not self._stopping:
            flow = Flow((source, service), time.monotonic())
            await self._judged(flow, lambda flow=flow: self._request(flow, chance))  # type: ignore[misc]
            await asyncio.sleep(_REQUEST_EVERY_S * (0.5 + chance.random()))

    async def _request(self, flow: Flow, chance: random.Random) -> None:
        ledger = self.world.ledger
        stream = await self._dial(flow)
        try:
            if flow.pair[1] == STOPPED:
                await self._echo(stream, chance)
                ledger.got_through(flow)
            else:
                side = Side(stream, Progress(), ledger.verified)
                last = chance.choice((Last.CLIENT_FIRST, Last.SERVICE_FIRST))
                await self._round(side, flow, random_round(chance, next(self._numbers), last, largest=4_096))
        finally:
            stream.reset()
        ledger.counts["requests"] += 1

    async def _echo(self, stream: Stream, chance: random.Random) -> None:
        data = chance.randbytes(chance.randint(1, 20_000))
        received = b""
        async with asyncio.timeout(_PATIENCE_S):
            await stream.send(data)
            while len(received) < len(data):
                piece = await stream.receive()
                if not piece:
                    raise Wrong(f"a clean end after {len(received)} of {len(data)} bytes: truncated")
                received += piece
        if received != data:
            raise Wrong("an echo of other bytes")
        self.world.ledger.verified(2 * len(data))

    async def idle(self, source: str, service: str, number: int) -> None:
        """A connection that says little."""
        chance = random.Random(f"{self._seed}/idle/{number}")
        await asyncio.sleep(number * _RAMP_S)
        while not self._stopping:
            flow = Flow((source, service), time.monotonic())
            if not await self._judged(flow, lambda flow=flow: self._idle(flow, chance)):  # type: ignore[misc]
                await asyncio.sleep(_PAUSE_S)

    async def _idle(self, flow: Flow, chance: random.Random) -> None:
        stream = await self._dial(flow)
        number = next(self._numbers)
        side = Side(stream, Progress(), self.world.ledger.verified)
        try:
            while not self._stopping:
                await self._round(side, flow, random_round(chance, number, largest=64))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _IDLE_ASKS_EVERY_S * (0.5 + chance.random()))
            await self._round(side, flow, random_round(chance, number, Last.CLIENT_FIRST, largest=64))
        finally:
            stream.reset()

    async def _dial(self, flow: Flow) -> Stream:
        world = self.world
        context = await world.context(flow.pair[0])
        flow.opened_s = time.monotonic()
        world.ledger.counts["connections"] += 1
        name = world.server_name(flow.pair[1])
        stream = await Stream.connect(world.gateway.address, world.gateway.port, context, name)
        flow.port = stream.port
        return stream

    async def _judged(self, flow: Flow, carry: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Carry it, and let the ledger judge how it ended; false when it did not get to its end."""
        ledger = self.world.ledger
        try:
            await carry()
        except Broken as error:
            ledger.ended_early(flow, error.how)
        except Wrong as error:
            ledger.violated(f"{flow.pair[0]} to {flow.pair[1]}, port {flow.port}: {error}")
        except TimeoutError:
            ledger.violated(f"{flow.pair[0]} to {flow.pair[1]}, port {flow.port}: nothing moves")
        except GatewayError as error:
            ledger.event(f"no certificate for {flow.pair[0]}: {error}")
        else:
            return True
        return False
