"""How long connections live, and how they end: what one side does, the other side sees."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, Handler, echo, reset, sink
from plugin.dev.gateway import Gateway
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import Stand
from tests.support.eventually import SCALE, eventually
from tests.support.mesh_client import Refused
from tests.support.raw_tls import RawTLSClient, Truncated
from tests.support.sockets import keepalive_s, remote_ports

TOPIC = "Life of connections"
_DEADLINE_S = 20.0
_LARGE = 8_000_000


# --- the two sides -------------------------------------------------------------------------------------------


async def serve(stand: Stand, handler: Handler, service: str = "db") -> ExternalService:
    """An external service with this behaviour, linked and allowed; in force when it returns."""
    backend = await stand.backend(handler)
    await stand.register(service, backend.port)
    await stand.intention("web", service)
    await stand.link(service)

    async def let_in() -> bool:
        # A handshake alone proves nothing: the gateway may end it afterwards.
        with contextlib.suppress(Refused, OSError, TimeoutError):
            before = backend.accepted
            async with stand.dial("web", service) as connection:
                await connection.send(b"?")
                await eventually(lambda: backend.accepted > before, 2.0)
                return True
        return False

    await eventually(let_in, 60.0, what=f"{stand.named(service)} is reached through {stand.gateway.name}")
    await eventually(lambda: backend.connections == 0, what="the connections of before have ended")
    return backend


@asynccontextmanager
async def raw(stand: Stand, service: str = "db", *, receive_buffer: int = 0) -> AsyncIterator[RawTLSClient]:
    """A client that can finish its direction, reset, and tell how the other side ended."""
    context = (await stand.client()).context()
    name = await stand.server_name(service)
    opened = functools.partial(RawTLSClient, stand.gateway.port, context, name, receive_buffer=receive_buffer)
    client = await asyncio.to_thread(opened)
    try:
        yield client
    finally:
        client.close()


def ending(client: RawTLSClient) -> tuple[int, str]:
    """Read to the end: how many bytes came, and how it ended."""
    count = 0
    try:
        while data := client.receive():
            count += len(data)
    except ConnectionResetError:
        return count, "reset"
    except Truncated:
        return count, "cut"
    return count, "end"


class Witness:
    """A handler that notes how the client's direction ended, as the external service sees it."""

    def __init__(self, *, first: bytes = b"") -> None:
        self.seen: asyncio.Queue[str] = asyncio.Queue()
        self.first = first
        self.received = b""
        """The last piece that came, of whichever connection."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.first)
        try:
            while data := await reader.read(65_536):
                self.received = data
        except ConnectionResetError:
            self.seen.put_nowait("reset")
        else:
            self.seen.put_nowait("end")

    def forget(self) -> None:
        """What the connections before the observed one did."""
        while not self.seen.empty():
            self.seen.get_nowait()

    async def saw(self) -> str:
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            return await self.seen.get()


def reset_all(backend: ExternalService) -> None:
    backend.end_connections(reset=True)


# --- ends and resets -----------------------------------------------------------------------------------------


@conformance(
    TOPIC,
    "The client finishes first: the external service hears the end, and its answer still comes",
    expect={"answer": "100000", "the client sees": "end"},
)
async def test_client_finishes_first(stand: Stand) -> Observation:
    await serve(stand, sink)
    async with raw(stand) as client:

        def talk() -> tuple[bytes, str]:
            client.send(bytes(100_000))
            client.finish()
            answer = client.receive()
            return answer, ending(client)[1]

        answer, how = await asyncio.to_thread(talk)
    return {"answer": answer.decode(), "the client sees": how}


@conformance(
    TOPIC,
    "The external service finishes first: the client hears the end, and what it sends still arrives",
    expect={"the client sees": "end", "the external service heard": "thanks"},
)
async def test_service_finishes_first(stand: Stand) -> Observation:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def last_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.put_nowait(await reader.read())

    await serve(stand, last_words)
    while not heard.empty():
        heard.get_nowait()
    async with raw(stand) as client:

        def talk() -> str:
            how = ending(client)[1]
            client.send(b"thanks")
            client.finish()
            return how

        how = await asyncio.to_thread(talk)
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            words = await heard.get()
    return {"the client sees": how, "the external service heard": words.decode()}


@conformance(
    TOPIC,
    "A reset by the external service reaches the client",
    expect={"the client sees": "reset"},
)
async def test_service_resets(stand: Stand) -> Observation:
    backend = await serve(stand, echo)
    async with raw(stand) as client:
        await asyncio.to_thread(client.send, b"ping")
        await asyncio.to_thread(client.receive)
        reset_all(backend)
        return {"the client sees": (await asyncio.to_thread(ending, client))[1]}


@conformance(
    TOPIC,
    "A reset by the client reaches the external service",
    expect={"the external service sees": "reset"},
)
async def test_client_resets(stand: Stand) -> Observation:
    witness = Witness(first=b"hello")
    await serve(stand, witness)
    witness.forget()
    async with raw(stand) as client:
        await asyncio.to_thread(client.receive)
        client.reset()
        return {"the external service sees": await witness.saw()}


@conformance(
    TOPIC,
    "A large answer that is cut by a reset does not look complete",
    expect={"all of it came": False, "the client sees": "reset"},
)
async def test_large_answer_cut(stand: Stand) -> Observation:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(bytes(_LARGE))
        await writer.drain()
        await reset(reader, writer)

    await serve(stand, cut)
    async with raw(stand) as client:
        await asyncio.to_thread(client.send, b"go")
        await asyncio.to_thread(client.receive)
        await asyncio.to_thread(client.send, b"enough")
        count, how = await asyncio.to_thread(ending, client)
    return {"all of it came": count >= _LARGE, "the client sees": how}


@conformance(
    TOPIC,
    "A large upload that is cut by a reset does not look complete",
    expect={"the external service sees": "reset"},
)
async def test_large_upload_cut(stand: Stand) -> Observation:
    witness = Witness(first=b"hello")
    await serve(stand, witness)
    witness.forget()
    async with raw(stand) as client:

        def upload() -> None:
            client.receive()
            client.send(bytes(_LARGE))
            client.reset()

        await asyncio.to_thread(upload)
        return {"the external service sees": await witness.saw()}


@conformance(
    TOPIC,
    "A client that goes without the end of its session (no close_notify) has ended",
    expect={"the external service sees": "end"},
)
async def test_client_goes_without_close_notify(stand: Stand) -> Observation:
    witness = Witness(first=b"hello")
    await serve(stand, witness)
    witness.forget()
    async with raw(stand) as client:
        await asyncio.to_thread(client.receive)
        client.socket.shutdown(socket.SHUT_WR)
        return {"the external service sees": await witness.saw()}


@conformance(
    TOPIC,
    "A server that accepts and never answers: the client waits, and its end is passed on",
    expect={"the client": "waits", "the external service sees": "end"},
)
async def test_never_answers(stand: Stand) -> Observation:
    witness = Witness()
    await serve(stand, witness)
    witness.forget()
    async with raw(stand) as client:
        await asyncio.to_thread(client.send, b"hello?")
        client.socket.settimeout(2.0)
        try:
            waited = f"got {await asyncio.to_thread(client.receive)!r}"
        except TimeoutError:
            waited = "waits"
        await asyncio.to_thread(client.finish)
        return {"the client": waited, "the external service sees": await witness.saw()}


@conformance(
    TOPIC,
    "A server that speaks first is heard by a client that has not spoken",
    expect={"first words": "220 ready"},
)
async def test_server_speaks_first(stand: Stand) -> Observation:
    backend = await stand.backend(Witness(first=b"220 ready"))
    await stand.register("db", backend.port)
    await stand.intention("web", "db")
    await stand.link("db")

    async def first_words() -> bytes:
        with contextlib.suppress(Refused, OSError):
            async with stand.dial("web", "db") as connection:
                return await connection.receive()
        return b""

    words: bytes = await eventually(first_words, 60.0, what="the first words come")
    return {"first words": words.decode()}


# --- limits --------------------------------------------------------------------------------------------------


async def limited(stand: Stand, **meta: str) -> ExternalService:
    """An echo service whose service-defaults have this Meta (``idle_timeout``: ``tgw-idle-timeout``)."""
    keys = {f"tgw-{key.replace('_', '-')}": value for key, value in meta.items()}
    await stand.config("service-defaults", "db", Protocol="tcp", Meta=keys)
    return await stand.offer()


async def lasts(stand: Stand, *, busy: bool, at_most_s: float = 5.0) -> str:
    """What becomes of a connection within a while: ``stays`` or how it ended; then why, as the access log says."""
    async with stand.dial("web", "db") as connection:
        assert await connection.exchange(b"ping") == b"ping"
        until = time.monotonic() + at_most_s * SCALE
        try:
            while busy and time.monotonic() < until:
                assert await connection.exchange(b"busy") == b"busy"
            how = "stays" if busy else await connection.ended(at_most_s)
        except Refused as refused:
            how = refused.alert
        except TimeoutError:
            how = "stays"
        if how == "stays":
            return "stays" if await connection.exchange(b"still") == b"still" else "garbled"
    return f"ends, {await reason_of_the_newest(stand)}"


async def reason_of_the_newest(stand: Stand) -> str:
    assert isinstance(stand.gateway, Gateway)
    gateway, name = stand.gateway, stand.named("db")

    def newest() -> str:
        ours = [one for one in gateway.access_records() if one.get("service") == name]
        return str(ours[-1]["reason"]) if ours else ""

    await eventually(lambda: newest() in ("idle", "lifetime"), what=f"the log says how a connection of {name} ended")
    return newest()


@conformance(
    TOPIC,
    "tgw-idle-timeout ends what is silent, and nothing else",
    envoy={"silent": "stays", "busy": "stays"},
    ours={"silent": "ends, idle", "busy": "stays"},
    decision="016",
)
async def test_idle_timeout(stand: Stand) -> Observation:
    await limited(stand, idle_timeout="1500ms")
    return {"silent": await lasts(stand, busy=False), "busy": await lasts(stand, busy=True)}


@conformance(
    TOPIC,
    "tgw-half-closed-timeout ends what one side has ended and the other is silent on; without it both wait for an hour",
    envoy={"half closed, 1.5 s": "stays", "open": "stays", "half closed, no limit of its own": "stays"},
    ours={"half closed, 1.5 s": "ends, idle", "open": "stays", "half closed, no limit of its own": "stays"},
    decision="016",
)
async def test_half_closed_timeout(stand: Stand) -> Observation:
    forgotten = asyncio.Event()

    async def forget(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read to the end, and never end the own direction."""
        await reader.read()
        await forgotten.wait()

    await stand.config("service-defaults", "db", Protocol="tcp", Meta={"tgw-half-closed-timeout": "1500ms"})
    await serve_forgetful(stand, forget)
    try:
        return {
            "half closed, 1.5 s": await silence(stand, "db", finish=True),
            "open": await silence(stand, "db", finish=False),
            "half closed, no limit of its own": await silence(stand, "other", finish=True),
        }
    finally:
        forgotten.set()


async def serve_forgetful(stand: Stand, handler: Handler) -> None:
    """As ``db`` and as ``other``; its connections are never seen to end."""
    backend = await stand.backend(handler)
    for service in ("db", "other"):
        await stand.register(service, backend.port, node=service)
        await stand.intention("web", service)
        await stand.link(service)
    await stand.settled()


async def silence(stand: Stand, service: str, *, finish: bool) -> str:
    """What becomes of a connection on which nobody says anything, and whose direction the client may have finished."""
    async with raw(stand, service) as client:

        def wait() -> str:
            client.send(b"?")
            if finish:
                client.finish()
            client.socket.settimeout(4.0 * SCALE)
            try:
                return "stays" if client.receive() else "ends"
            except ConnectionResetError:
                return "ends"
            except TimeoutError:
                return "stays"

        how = await asyncio.to_thread(wait)
    return how if how == "stays" else f"ends, {await reason_of_the_newest(stand)}"


@conformance(
    TOPIC,
    "tgw-max-lifetime ends what is busy, too",
    envoy={"silent": "stays", "busy": "stays"},
    ours={"silent": "ends, lifetime", "busy": "ends, lifetime"},
    decision="016",
)
async def test_max_lifetime(stand: Stand) -> Observation:
    await limited(stand, max_lifetime="1.5s")
    return {"silent": await lasts(stand, busy=False), "busy": await lasts(stand, busy=True)}


@conformance(
    TOPIC,
    "A limit that is no duration is reported, and no limit",
    envoy={"silent": "stays", "told": False},
    ours={"silent": "stays", "told": True},
    decision="016",
)
async def test_bad_limits(stand: Stand) -> Observation:
    await limited(stand, idle_timeout="soon", max_lifetime="-1s")
    return {"silent": await lasts(stand, busy=False, at_most_s=2.0), "told": await told(stand)}


async def told(stand: Stand) -> bool:
    """Whether the status of the service names both keys."""
    if not isinstance(stand.gateway, Gateway):
        return "tgw-idle-timeout" in (stand.agent.work_dir / f"{stand.gateway.proxy_id}.log").read_text()
    gateway, name = stand.gateway, stand.named("db")

    async def in_status() -> bool:
        (found,) = [one for one in (await gateway.status())["services"] if one["name"] == name]
        texts = " ".join(found.get("warnings", ()))
        return "tgw-idle-timeout" in texts and "tgw-max-lifetime" in texts

    await eventually(in_status, what=f"the status of {name} names both keys")
    return True


async def keepalive_of_all(agent: ConsulAgent) -> None:
    prefix = "envoy_gateway_remote_tcp_"
    keys = {"enable_keepalive": True, "keepalive_time": 120, "keepalive_interval": "11", "keepalive_probes": 4}
    config = {f"{prefix}{key}": value for key, value in keys.items()}
    await agent.write_config({"Kind": "proxy-defaults", "Name": "global", "Config": config})


async def first_probe_s(stand: Stand) -> float | None:
    """On the gateway's socket to the external service: seconds until the kernel's first probe."""
    backend = await stand.offer()
    await eventually(lambda: backend.connections == 0, what="the connections of before have ended")
    async with stand.dial("web", "db") as connection:
        assert await connection.exchange(b"ping") == b"ping"
        (port,) = remote_ports(backend.port)
        with contextlib.suppress(AssertionError):
            await eventually(lambda: keepalive_s(port, backend.port) is not None, 3.0)
        return keepalive_s(port, backend.port)


@conformance(
    TOPIC,
    "The keepalive keys of proxy-defaults reach the socket to the external service",
    expect={"first probe": "within 120 s"},
    own_consul={"before": keepalive_of_all},
)
async def test_keepalive(stand: Stand) -> Observation:
    seconds = await first_probe_s(stand)
    return {"first probe": "within 120 s" if seconds is not None and 60 < seconds <= 120 else f"in {seconds} s"}


@conformance(
    TOPIC,
    "Without those keys the socket to the external service has no keepalive",
    expect={"first probe": "never"},
)
async def test_no_keepalive(stand: Stand) -> Observation:
    seconds = await first_probe_s(stand)
    return {"first probe": "never" if seconds is None else f"in {seconds:.0f} s"}
