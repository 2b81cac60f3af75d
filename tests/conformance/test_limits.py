"""Limits, and clients that take more than their share: what each gateway does by itself, and what it can be told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from plugin.dev.external import ExternalService
from plugin.dev.gateway import Gateway
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.support.eventually import SCALE, eventually
from tests.support.mesh_client import MeshConnection, Refused
from tests.support.tls13 import TLS13Client

TOPIC = "Limits"
_PATIENCE_S = 20.0
"""Longer than the time that either gateway gives a client that has said nothing."""


class Held(contextlib.AsyncExitStack):
    """Connections that stay open until it is left."""

    def __init__(self, stand: Stand) -> None:
        super().__init__()
        self._stand = stand
        self.open: list[MeshConnection] = []

    async def take(self, service: str = "db") -> str:
        """Open one more: ``echo``, or ``refused``."""
        try:
            connection = await self.enter_async_context(self._stand.dial("web", service))
            if await connection.exchange(b"ping") != b"ping":
                return "garbled"
        except (Refused, OSError):
            return REFUSED
        self.open.append(connection)
        return "echo"


async def quiet(backend: ExternalService) -> None:
    await eventually(lambda: backend.connections == 0, what="the connections of before have ended")


async def reasons(stand: Stand, service: str) -> str:
    """Why the newest refused connection of ``service`` was, as the log says; ``""`` for a gateway without reasons."""
    if not isinstance(stand.gateway, Gateway):
        return ""
    gateway, name = stand.gateway, stand.named(service)

    def over_limit() -> str:
        records = [one for one in gateway.access_records() if one.get("service") == name]
        return next((str(one["reason"]) for one in records if one["reason"] == "over_limit"), "")

    found: str = await eventually(over_limit, what=f"the log says that {name} was over its limit")
    return found


@conformance(
    TOPIC,
    "MaxInboundConnections of service-defaults limits a linked service, and room is there again when one ends",
    envoy={"first two": "echo, echo", "third": "echo", "another service": "echo", "why": "", "after one ended": "echo"},
    ours={
        "first two": "echo, echo",
        "third": REFUSED,
        "another service": "echo",
        "why": "over_limit",
        "after one ended": "echo",
    },
    decision="028",
)
async def test_max_inbound_connections(stand: Stand) -> Observation:
    await stand.config("service-defaults", "db", Protocol="tcp", MaxInboundConnections=2)
    backend = await stand.offer()
    await stand.offer("other")
    await stand.settled()
    await quiet(backend)
    async with Held(stand) as held:
        first_two = f"{await held.take()}, {await held.take()}"
        third = await held.take()
        other = await stand.outcome(service="other")
        why = await reasons(stand, "db") if third == REFUSED else ""
        held.open[0].close()
        await eventually(lambda: backend.connections <= len(held.open) - 1, what="the external service sees it end")
        after = await held.take()
    return {"first two": first_two, "third": third, "another service": other, "why": why, "after one ended": after}


@conformance(
    TOPIC,
    "What no limit was written for takes more than 1,024 connections",
    envoy={"of 1,100": 1024},
    ours={"of 1,100": 1100},
    decision="028",
)
async def test_more_than_a_thousand(stand: Stand) -> Observation:
    backend = await stand.offer()
    await quiet(backend)
    async with Held(stand) as held:
        outcomes = [await held.take() for _ in range(1_100)]
        return {"of 1,100": outcomes.count("echo")}


@conformance(
    TOPIC,
    "--max-connections limits the gateway as a whole: the surplus is reset at once",
    envoy={"first two": "echo, echo", "third": "echo"},
    ours={"first two": "echo, echo", "third": REFUSED},
    decision="028",
    own_consul={"arguments": ("--max-connections=2",)},
)
async def test_max_connections(stand: Stand) -> Observation:
    backend = await stand.offer()
    await quiet(backend)
    async with Held(stand) as held:
        return {"first two": f"{await held.take()}, {await held.take()}", "third": await held.take()}


# --- clients that do not finish their handshake -----------------------------------------------------------------


def hello(stand_context: ssl.SSLContext, server_name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = stand_context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


async def ended_within(stand: Stand, said: bytes, *, then_bit_by_bit: bytes = b"") -> str:
    """What becomes of a client that says only this: ``ended`` within a while, or ``stays``."""
    reader, writer = await asyncio.open_connection(stand.gateway.address, stand.gateway.port)
    writer.write(said)
    drops = iter(then_bit_by_bit)
    until_s = time.monotonic() + _PATIENCE_S * SCALE
    try:
        while time.monotonic() < until_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    while await reader.read(65_536):
                        pass
                return "ended"
            if (drop := next(drops, None)) is not None:
                writer.write(bytes([drop]))
    except ConnectionError:
        return "ended"
    finally:
        writer.transport.abort()
    return "stays"


@conformance(
    TOPIC,
    "A handshake that is not finished is ended, however the client holds it up",
    envoy={"silent": "ended", "a byte at a time": "ended", "after its hello": "stays"},
    ours={"silent": "ended", "a byte at a time": "ended", "after its hello": "ended"},
    decision="028",
)
async def test_unfinished_handshakes(stand: Stand) -> Observation:
    await stand.offer()
    whole = hello((await stand.client()).context(), await stand.server_name("db"))
    silent, slow, half = await asyncio.gather(
        ended_within(stand, b""), ended_within(stand, b"", then_bit_by_bit=whole), ended_within(stand, whole)
    )
    return {"silent": silent, "a byte at a time": slow, "after its hello": half}


# --- clients that misuse an open session --------------------------------------------------------------------------


@conformance(
    TOPIC,
    "A client that changes its keys again and again, and sends nothing, is ended",
    expect={"three changes": "echo", "thousands": "ended"},
)
async def test_key_update_flood(stand: Stand) -> Observation:
    await stand.offer()
    context, name = (await stand.client()).context(), await stand.server_name("db")

    def flood() -> tuple[str, str]:
        client = TLS13Client((stand.gateway.address, stand.gateway.port), context, name)
        try:
            client.socket.sendall(b"".join(client.writer.key_update() for _ in range(3)))
            few = "echo" if client.exchange(b"ping") == b"ping" else "garbled"
            for _ in range(100):
                client.socket.sendall(b"".join(client.writer.key_update() for _ in range(100)))
            client.exchange(b"ping")
        except OSError:
            return few, "ended"
        finally:
            client.close()
        return few, "goes on"

    few, thousands = await asyncio.to_thread(flood)
    return {"three changes": few, "thousands": thousands}


@conformance(
    TOPIC,
    "A client that sends empty records again and again is ended",
    expect={"empty records": "ended"},
)
async def test_empty_records(stand: Stand) -> Observation:
    await stand.offer()
    context, name = (await stand.client()).context(), await stand.server_name("db")

    def flood() -> str:
        client = TLS13Client((stand.gateway.address, stand.gateway.port), context, name)
        try:
            client.socket.sendall(b"".join(client.writer.record(b"") for _ in range(1_000)))
            client.exchange(b"ping")
        except OSError:
            return "ended"
        finally:
            client.close()
        return "goes on"

    return {"empty records": await asyncio.to_thread(flood)}


@conformance(
    TOPIC,
    "Renegotiation (TLS 1.2) is refused",
    expect={"renegotiated": False},
)
async def test_renegotiation(stand: Stand) -> Observation:
    await stand.offer()
    client, name = await stand.client(), await stand.server_name("db")
    assert client.leaf is not None
    pair = client.leaf

    def ask() -> bool:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        key = load_pem_private_key(pair.private_key_pem.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        context.use_certificate(x509.load_pem_x509_certificate(pair.certificate_pem.encode()))
        context.use_privatekey(key)
        with socket.create_connection((stand.gateway.address, stand.gateway.port), 20) as raw:
            raw.setblocking(True)
            session = SSL.Connection(context, raw)
            session.set_tlsext_host_name(name.encode())
            session.set_connect_state()
            session.do_handshake()
            session.renegotiate()
            with contextlib.suppress(SSL.Error):
                session.do_handshake()
                session.send(b"ping")
                session.recv(4)
            return bool(session.total_renegotiations() and not session.renegotiate_pending())

    return {"renegotiated": await asyncio.to_thread(ask)}
