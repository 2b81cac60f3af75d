"""External services of HTTP: they check each request, answer with bytes of its seed, and say how far each call got."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError, StreamClosedError

from plugin.dev.processes import Launcher
from plugin.process.tasks import spawn
from soak.asked import Ask, Checked, arrived
from soak.ledger import Ledger
from soak.pump import Content, Wrong
from soak.streams import Broken, Stream

_PIECE = 16_384


class _Listening(Launcher):
    """On loopback; every connection is a task."""

    def __init__(self, ledger: Ledger) -> None:
        self.port = 0
        self._ledger = ledger
        self._listening: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listening.setblocking(False)
        self.port = self._listening.getsockname()[1]
        self._keep(spawn(self._accept(self._listening), name="accept requests"))

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
            self._keep(spawn(self._serve_one(accepted), name="serve requests"))

    async def _serve_one(self, accepted: socket.socket) -> None:
        stream = await Stream.accepted(accepted)
        try:
            await self._serve(stream)
        except (Wrong, ProtocolError, h11.ProtocolError) as error:
            self._ledger.violated(f"bytes at the external service: {type(error).__name__}: {error}")
        except Broken:
            pass  # whether that was right is judged at the client
        finally:
            stream.close()

    async def _serve(self, stream: Stream) -> None:
        raise NotImplementedError


class WebService(_Listening):
    """Of HTTP/1.1. A request that breaks off before its end is none: its client is judged."""

    async def _serve(self, stream: Stream) -> None:
        while (connection := h11.Connection(h11.SERVER)) and await self._requests(stream, connection):
            pass

    async def _requests(self, stream: Stream, connection: h11.Connection) -> bool:
        ask, body = None, None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive()
                if not data and ask is not None:
                    raise Broken("the gateway has given a request up")
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                arrived(self._ledger, event.target.decode())
                ask = Ask.of(event.headers)
                body = Checked(ask, ask.up, from_client=True)
            elif isinstance(event, h11.Data):
                assert body is not None
                body.take(bytes(event.data))
                self._ledger.verified(len(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert body is not None
                assert ask is not None
                body.end()
                await self._answer(stream, connection, ask)
                connection.start_next_cycle()
                ask = None
            else:
                return False

    async def _answer(self, stream: Stream, connection: h11.Connection, ask: Ask) -> None:
        length = [("content-length", str(ask.down))] if ask.seed % 2 else [("transfer-encoding", "chunked")]
        sent = connection.send(h11.Response(status_code=200, headers=length)) or b""
        content, left = Content(ask.seed, False), ask.down
        while left:
            piece = content.take(min(left, 1 + ask.seed % _PIECE))
            left -= len(piece)
            await stream.send(sent + (connection.send(h11.Data(data=piece)) or b""))
            sent = b""
        await stream.send(sent + (connection.send(h11.EndOfMessage()) or b""))


class CallService(_Listening):
    """Of HTTP/2: each piece of a call is checked, and answered with as many bytes."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.received: dict[int, int] = {}
        """Bytes of each call, by its number."""

    async def _serve(self, stream: Stream) -> None:
        core = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        core.initiate_connection()
        await stream.send(core.data_to_send())
        calls: dict[int, tuple[Ask, Checked, Content]] = {}
        while data := await stream.receive():
            for event in core.receive_data(data):
                # Of what came at once the library has seen the end: a call that was reset takes no answer.
                with contextlib.suppress(StreamClosedError):
                    self._take(core, event, calls)
            await stream.send(core.data_to_send())

    def _take(self, core: H2Connection, event: Event, calls: dict[int, tuple[Ask, Checked, Content]]) -> None:
        if isinstance(event, RequestReceived):
            self._begin(core, event, calls)
        elif isinstance(event, DataReceived) and event.stream_id in calls:
            self._echo(core, event, calls[event.stream_id])
        elif isinstance(event, StreamEnded) and event.stream_id in calls:
            calls.pop(event.stream_id)[1].end()
            core.send_headers(event.stream_id, [(b"grpc-status", b"0")], end_stream=True)
        elif isinstance(event, StreamReset):
            calls.pop(event.stream_id or 0, None)

    def _begin(
        self, core: H2Connection, event: RequestReceived, calls: dict[int, tuple[Ask, Checked, Content]]
    ) -> None:
        number = event.stream_id
        headers = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
        assert number is not None
        arrived(self._ledger, dict(headers)[b":path"].decode())
        ask = Ask.of(headers)
        calls[number] = ask, Checked(ask, ask.up, from_client=True), Content(ask.seed, False)
        self.received[ask.number] = 0
        core.send_headers(number, [(b":status", b"200"), (b"content-type", b"application/grpc")])

    def _echo(self, core: H2Connection, event: DataReceived, call: tuple[Ask, Checked, Content]) -> None:
        ask, body, content = call
        data, number = event.data or b"", event.stream_id
        assert number is not None
        body.take(data)
        self.received[ask.number] += len(data)
        self._ledger.verified(len(data))
        if event.flow_controlled_length:
            core.acknowledge_received_data(event.flow_controlled_length, number)
        if data:
            core.send_data(number, content.take(len(data)))
