"""HTTP as load: checked requests on kept connections, and calls that last.

What a permission denies must not get through, what it allows must not be refused.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from plugin.errors import GatewayError
from soak.asked import FLIP, NAME, OPEN, SHUT, Ask, Checked, pair_of
from soak.ledger import Flow, Ledger
from soak.pump import SILENCE_S, Content, Wrong
from soak.streams import Broken, Stream
from soak.world import CALLS, INTRUDER, STEADY, WEB, World

_REQUESTS = 20
"""Of a connection at most, before another one begins."""
_LARGEST = 200_000
_SMALL = 1_000
"""Of a request that may be denied: nobody reads what is left of a longer one, and its answer may be lost with that."""
_PIECES = 30
_LARGEST_PIECE = 4_000
_PAUSE_S = 0.15
_DENIED = b"RBAC: access denied"


@dataclass(slots=True)
class Call:
    """One that is open."""

    flow: Flow
    ask: Ask
    sent: int = 0


class WebTraffic:
    """Runs until cancelled, or stopped; everything it finds goes to the ledger of the world."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.calls: dict[int, Call] = {}
        """Open ones, by number."""
        self._seed = seed
        self._numbers = itertools.count(1)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    def all(self) -> list[Coroutine[Any, Any, None]]:
        """What is to be run, all at once."""
        running = [self._again(f"web/{number}", STEADY, WEB, self._requests) for number in range(3)]
        running += [self._again(f"calls/{number}", STEADY, CALLS, self._calls) for number in range(4)]
        running.append(self._again("intruder", INTRUDER, WEB, self._requests))
        return running

    async def _again(
        self, name: str, source: str, service: str, carry: Callable[[Flow, random.Random], Coroutine[Any, Any, None]]
    ) -> None:
        """One connection after the other."""
        chance, ledger = random.Random(f"{self._seed}/{name}"), self.world.ledger
        while not self._stop.is_set():
            flow = Flow((source, service), time.monotonic())
            try:
                await carry(flow, chance)
            except Broken as error:
                ledger.ended_early(flow, error.how)
            except (Wrong, h11.ProtocolError) as error:
                ledger.violated(f"bytes: {source} to {service}, port {flow.port}: {error}")
            except TimeoutError:
                ledger.violated(f"{source} to {service}, port {flow.port}: nothing moves")
            except GatewayError as error:
                ledger.event(f"no certificate for {source}: {error}")
            await self._pause(chance)

    async def _pause(self, chance: random.Random) -> None:
        await asyncio.sleep(_PAUSE_S * chance.random())

    async def _dial(self, flow: Flow) -> Stream:
        world = self.world
        context = await world.context(flow.pair[0])
        flow.opened_s = time.monotonic()
        world.ledger.counts["connections"] += 1
        name = world.server_name(flow.pair[1])
        stream = await Stream.connect(world.gateway.address, world.gateway.port, context, name)
        flow.port = stream.port
        return stream

    # --- HTTP/1.1 ----------------------------------------------------------------------------------------------

    async def _requests(self, flow: Flow, chance: random.Random) -> None:
        stream = await self._dial(flow)
        connection = h11.Connection(h11.CLIENT)
        try:
            for _ in range(chance.randint(1, _REQUESTS)):
                path = chance.choice((OPEN, OPEN, FLIP, SHUT))
                ask = Ask.random(chance, next(self._numbers), _LARGEST if path == OPEN else _SMALL)
                asked = Flow(pair_of(*flow.pair, path), time.monotonic(), stream.port)
                try:
                    async with asyncio.timeout(SILENCE_S):
                        status = await self._request(stream, connection, path, ask)
                except Broken:
                    if not self.world.ledger.may_end(asked):
                        raise
                    return
                self._judge(asked, status, ask)
                if self._stop.is_set() or h11.MUST_CLOSE in connection.states.values():
                    break
                connection.start_next_cycle()
                await self._pause(chance)
        finally:
            stream.reset()

    async def _request(self, stream: Stream, connection: h11.Connection, path: str, ask: Ask) -> int:
        length = (b"content-length", b"%d" % ask.up) if ask.seed % 3 else (b"transfer-encoding", b"chunked")
        headers = [(b"host", b"soak.example"), (NAME, ask.encode()), length]
        request = h11.Request(method="POST", target=f"{path}/{ask.number}", headers=headers)
        waiting = connection.send(request) or b""
        content, left = Content(ask.seed, True), ask.up
        while left:
            piece = content.take(min(left, 1 + ask.seed % 20_000))
            left -= len(piece)
            waiting += connection.send(h11.Data(data=piece)) or b""
            if len(waiting) > _SMALL * 4:
                await stream.send(waiting)
                waiting = b""
        await stream.send(waiting + (connection.send(h11.EndOfMessage()) or b""))
        return await self._response(stream, connection, ask)

    async def _response(self, stream: Stream, connection: h11.Connection, ask: Ask) -> int:
        status, body, told = 0, Checked(ask, ask.down, from_client=False), b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive()
                if not data and not status:
                    raise Broken("an end instead of a response")
                connection.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                told += b"" if status == 200 else bytes(event.data)
                if status == 200:
                    body.take(bytes(event.data))
                    self.world.ledger.verified(len(event.data))
            elif isinstance(event, h11.EndOfMessage):
                if status == 200:
                    body.end()
                elif (status, told) != (403, _DENIED):
                    raise Wrong(f"an answer of {status}: {told[:100]!r}")
                return status

    def _judge(self, asked: Flow, status: int, ask: Ask) -> None:
        ledger = self.world.ledger
        if status == 200:
            ledger.got_through(asked)
            ledger.counts["HTTP requests"] += 1
        else:
            ledger.refused(asked, f"request {ask.number}: {status}")

    # --- HTTP/2 ------------------------------------------------------------------------------------------------

    async def _calls(self, flow: Flow, chance: random.Random) -> None:
        stream = await self._dial(flow)
        core = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        core.initiate_connection()
        try:
            for _ in range(chance.randint(1, _REQUESTS // 4)):
                path = chance.choice((OPEN, FLIP, FLIP, SHUT))
                ask = Ask(next(self._numbers), chance.getrandbits(64), 0, 0)
                pieces = [chance.randint(1, _LARGEST_PIECE) for _ in range(chance.randint(1, _PIECES))]
                ask = Ask(ask.number, ask.seed, sum(pieces), sum(pieces))
                call = Call(Flow(pair_of(*flow.pair, path), time.monotonic(), stream.port), ask)
                self.calls[ask.number] = call
                try:
                    await _Calling(self.world.ledger, stream, core, call, path).run(pieces, chance)
                except Broken:
                    if not self.world.ledger.may_end(call.flow):
                        raise
                    return
                finally:
                    del self.calls[ask.number]
                if self._stop.is_set():
                    break
        finally:
            stream.reset()


class _Calling:
    """One call: pieces up, as many bytes back for each."""

    def __init__(self, ledger: Ledger, stream: Stream, core: H2Connection, call: Call, path: str) -> None:
        self._ledger = ledger
        self._stream = stream
        self._core = core
        self._call = call
        self._path = path
        self._number = core.get_next_available_stream_id()
        self._body = Checked(call.ask, call.ask.down, from_client=False)
        self._received = 0
        self._status = ""
        self._told: dict[bytes, bytes] = {}
        self._ended = ""
        """``end`` or ``reset``."""

    async def run(self, pieces: list[int], chance: random.Random) -> None:
        ask, content, sent = self._call.ask, Content(self._call.ask.seed, True), 0
        path = f"{self._path}/{ask.number}".encode()
        pseudo = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"soak.example"), (b":path", path)]
        fields = [(b"content-type", b"application/grpc"), (b"te", b"trailers"), (NAME, ask.encode())]
        self._core.send_headers(self._number, [*pseudo, *fields])
        for piece in pieces:
            if self._ended:
                break
            self._core.send_data(self._number, content.take(piece))
            sent += piece
            self._call.sent = sent
            await self._until(sent)
            await asyncio.sleep(_PAUSE_S * chance.random())
        if not self._ended:
            self._core.end_stream(self._number)
            await self._until(None)
        self._judge()

    async def _until(self, received: int | None) -> None:
        """So many bytes have come, or the end; with ``None`` the end."""
        await self._stream.send(self._core.data_to_send())
        async with asyncio.timeout(SILENCE_S):
            while not self._ended and (received is None or self._received < received):
                data = await self._stream.receive()
                if not data:
                    raise Broken("an end of the connection within a call")
                for event in self._core.receive_data(data):
                    self._take(event)
                await self._stream.send(self._core.data_to_send())

    def _take(self, event: Event) -> None:
        if isinstance(event, ResponseReceived | TrailersReceived) and event.stream_id == self._number:
            self._told |= {bytes(name): bytes(value) for name, value in event.headers or ()}
        elif isinstance(event, DataReceived):
            if event.flow_controlled_length:
                self._core.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
            if event.stream_id == self._number and event.data:
                self._body.take(event.data)
                self._received += len(event.data)
                self._call.flow.relayed = True
                self._ledger.verified(len(event.data))
        elif isinstance(event, StreamEnded) and event.stream_id == self._number:
            self._ended = self._ended or "end"
        elif isinstance(event, StreamReset) and event.stream_id == self._number:
            self._ended = self._ended or "reset"

    def _judge(self) -> None:
        status = self._told.get(b"grpc-status", b"").decode()
        if self._ended == "end" and status == "0":
            self._body.end()
            self._ledger.got_through(self._call.flow)
            self._ledger.counts["calls over HTTP/2"] += 1
        elif self._ended == "reset" or status == "7":
            self._ledger.refused(self._call.flow, f"call {self._call.ask.number}: {self._ended}, grpc-status {status}")
        else:
            raise Wrong(f"a call that ends with {self._told}")
