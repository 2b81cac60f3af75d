"""What was cut must not look complete: ends that neither side made, as both sides see them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from typing import ClassVar

from plugin.dev.external import load_key_pair
from plugin.dev.gateway import Gateway
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import Stand
from tests.conformance.test_connection_life import TOPIC, Witness, ending, raw, serve
from tests.conformance.upstream import NAME, PARTNER
from tests.support.eventually import SCALE, eventually
from tests.support.raw_tls import RawTLSClient

_DEADLINE_S = 20.0


def kill_data_plane(stand: Stand) -> None:
    """As the kernel does when memory is short."""
    gateway = stand.gateway
    for pid in gateway.worker_pids() if isinstance(gateway, Gateway) else [gateway.pid]:
        os.kill(pid, signal.SIGKILL)


@conformance(
    TOPIC,
    "The gateway is killed between two messages: neither side takes that for the end of what the other sends",
    envoy={"the client sees": "cut", "the external service sees": "end"},
    ours={"the client sees": "reset", "the external service sees": "reset"},
    decision="029",
    own_consul={},
)
async def test_killed(stand: Stand) -> Observation:
    witness = Witness(first=b"half of the answer")
    await serve(stand, witness)
    witness.forget()
    async with raw(stand) as client:
        await asyncio.to_thread(client.receive)
        await asyncio.to_thread(client.send, b"half of the upload")
        await eventually(lambda: witness.received == b"half of the upload", what="it has come")
        kill_data_plane(stand)
        return {
            "the client sees": (await asyncio.to_thread(ending, client))[1],
            "the external service sees": await witness.saw(),
        }


@conformance(
    TOPIC,
    "An answer over TLS that ends without the end of its session is not given one",
    envoy={"the client sees": "end"},
    ours={"the client sees": "cut"},
    decision="029",
)
async def test_service_goes_without_close_notify(stand: Stand) -> Observation:
    with _CutService() as service:
        ca_file = PARTNER.write(stand.folder, "partner")
        await stand.register("db", service.port)
        await stand.intention("web", "db")
        await stand.link("db", CAFile=str(ca_file), SNI=NAME)
        seen: str = await eventually(lambda: _ending_of_an_answer(stand), 60.0, what="an answer comes")
    return {"the client sees": seen}


async def _ending_of_an_answer(stand: Stand) -> str:
    """How it ended; empty when none came, because the link is not in force yet."""
    try:
        async with raw(stand) as client:
            await asyncio.to_thread(client.send, b"?")
            count, how = await asyncio.to_thread(ending, client)
    except (OSError, AssertionError, ssl.SSLError):
        return ""
    return how if count == len(_CutService.ANSWER) else ""


class _CutService:
    """Speaks TLS, answers, and ends the TCP connection alone."""

    ANSWER = b"half of the answer"

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_key_pair(self._context, PARTNER.server(NAME))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(_DEADLINE_S * SCALE)
        self.port: int = self._listening.getsockname()[1]
        self._serving = asyncio.get_running_loop().run_in_executor(None, self._serve)

    def __enter__(self) -> _CutService:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            with accepted:
                self._answer(accepted)

    def _answer(self, accepted: socket.socket) -> None:
        accepted.settimeout(_DEADLINE_S * SCALE)
        try:
            with self._context.wrap_socket(accepted, server_side=True) as session:
                session.recv(1)
                session.send(self.ANSWER)
                # The descriptor alone: the session would say goodbye.
                with socket.socket(fileno=os.dup(session.fileno())) as plain:
                    plain.shutdown(socket.SHUT_WR)
                    while plain.recv(65_536):
                        pass
        except OSError:
            pass  # a connection that came before the link was in force


class _Deaf:
    """Reads nothing of what a client sends that begins with ``!``, and tells how its connection stands."""

    STATES: ClassVar = {1: "open", 7: "reset", 8: "ended"}
    """Of ``tcpi_state``: TCP_ESTABLISHED, TCP_CLOSE, TCP_CLOSE_WAIT (linux/tcp_states.h)."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.over = asyncio.Event()
        self._socket: socket.socket | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"!":
            self._socket = writer.get_extra_info("socket")
            self.reached.set()
            await self.over.wait()

    @property
    def state(self) -> str:
        assert self._socket is not None
        return self.STATES[self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]]


def _send_until_it_is_stuck(client: RawTLSClient) -> None:
    client.send(b"!")
    client.socket.settimeout(2.0)
    with contextlib.suppress(TimeoutError):
        while True:
            client.send(bytes(65_536))


@conformance(
    TOPIC,
    "A client resets after it sent more than the external service reads: in the end the service is told",
    envoy={"after 3 s": "open", "after 13 s": "open"},
    ours={"after 3 s": "open", "after 13 s": "reset"},
    decision="029",
)
async def test_last_words_that_nobody_takes(stand: Stand) -> Observation:
    service = _Deaf()
    await serve(stand, service)
    try:
        async with raw(stand) as client:
            await asyncio.to_thread(_send_until_it_is_stuck, client)
            await asyncio.wait_for(service.reached.wait(), _DEADLINE_S)
            client.reset()
            await asyncio.sleep(3)
            soon = service.state
            await asyncio.sleep(10)
            return {"after 3 s": soon, "after 13 s": service.state}
    finally:
        service.over.set()
