"""What lasts: calls of gRPC, websockets and other upgrades, and clients that go away."""

from __future__ import annotations

import asyncio

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Exchange, TwoExchange
from tests.conformance.http_one import Answer, OneConnection, ask, connected, request
from tests.conformance.http_stand import mirrored
from tests.conformance.stand import Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import Refused

TOPIC = "HTTP: streams"


@conformance(
    TOPIC,
    "A call of gRPC: its status comes in the trailers, and in the head alone when there is nothing else",
    expect={
        "answered": "200 grpc-status: 0 hello",
        "refused by the service": "200 grpc-status: 5 in the head",
        "te": "trailers",
        "content-type": "application/grpc",
    },
)
async def test_grpc(stand: Stand) -> Observation:
    mirror = await mirrored(stand, "calls", protocol="grpc")
    mirror.two_scripts |= {"/ok": _answers_call, "/missing": _refuses_call}
    good = await two.ask(stand, two.grpc("/ok"), b"\0\0\0\0\5hello", service="calls")
    bad = await two.ask(stand, two.grpc("/missing"), b"\0\0\0\0\0", service="calls")
    trailers = ", ".join(f"{name}: {value}" for name, value in good.trailers)
    return {
        "answered": f"{good.outcome} {trailers} {good.body[5:].decode()}",
        "refused by the service": f"{bad.outcome} grpc-status: {bad.value('grpc-status')} in the head",
        "te": mirror.last("/ok").value("te"),
        "content-type": mirror.last("/ok").value("content-type"),
    }


def _answers_call(exchange: TwoExchange) -> None:
    exchange.respond("200", exchange.seen.body, [("content-type", "application/grpc")], end=False)
    exchange.trailers(("grpc-status", "0"))


def _refuses_call(exchange: TwoExchange) -> None:
    exchange.respond("200", b"", [("content-type", "application/grpc"), ("grpc-status", "5")])


@conformance(
    TOPIC,
    "A stream of gRPC goes both ways while it is open, and ends in both when one side takes it back",
    expect={
        "first": "one",
        "second": "two",
        "taken back by the client": "reset upstream",
        "by the service": "reset INTERNAL_ERROR",
    },
)
async def test_stream(stand: Stand) -> Observation:
    mirror = await mirrored(stand, "calls", protocol="grpc")
    streams: dict[str, TwoExchange] = {}

    def opened(exchange: TwoExchange) -> None:
        streams[exchange.seen.path] = exchange
        exchange.respond("200", b"", [("content-type", "application/grpc")], end=False)

    mirror.early_two_scripts |= {"/live": opened, "/dropped": opened}
    async with two.connected(stand, "calls") as connection:
        live = await connection.open(two.grpc("/live"), end=False)
        await connection.until(lambda: live.status)
        received = []
        for word in (b"one", b"two"):
            await connection.send(live, word)
            await eventually(lambda: streams["/live"].seen.body.endswith(word), what="the message came")  # noqa: B023
            streams["/live"].core.send_data(streams["/live"].number, word)
            streams["/live"].flush()
            await connection.until(lambda: live.body.endswith(word))  # noqa: B023
            received.append(live.body[-3:].decode())
        connection.core.reset_stream(live.number, 8)
        await connection.flush()
        await eventually(lambda: streams["/live"].seen.reset, what="the service hears of the reset")
        dropped = await connection.open(two.grpc("/dropped"), end=False)
        await connection.until(lambda: dropped.status)
        streams["/dropped"].core.reset_stream(streams["/dropped"].number, 8)
        streams["/dropped"].flush()
        await connection.until(lambda: dropped.reset)
    return {
        "first": received[0],
        "second": received[1],
        "taken back by the client": "reset upstream",
        "by the service": f"reset {dropped.reset}",
    }


async def switches(exchange: Exchange) -> bool:
    protocol = exchange.seen.value("upgrade")
    head = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\nX-Chosen: 1\r\n\r\n"
    await exchange.write(head.encode() + b"first")
    while data := await exchange.reader.read(65536):
        await exchange.write(data)
    return False


async def upgraded(connection: OneConnection, protocol: str, path: str = "/socket") -> Answer:
    lines = (f"Upgrade: {protocol}", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    return await connection.ask(request(f"GET {path} HTTP/1.1", *lines))


@conformance(
    TOPIC,
    "websocket: the upgrade is passed on, then bytes go both ways until one side ends",
    envoy={
        "answer": "HTTP/1.1 101 Switching Protocols, websocket, upgrade, 1",
        "the service speaks first": "first",
        "echo": "hello",
        "the request": "websocket, upgrade, 13",
        "the client ends": "the service's connection ends",
        "the service declines with a body": "200, empty",
    },
    ours={
        "answer": "HTTP/1.1 101 Switching Protocols, websocket, upgrade, 1",
        "the service speaks first": "first",
        "echo": "hello",
        "the request": "websocket, upgrade, 13",
        "the client ends": "the service's connection ends",
        "the service declines with a body": "200, its body",
    },
    decision="045",
)
async def test_websocket(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    done = asyncio.Event()

    async def until_done(exchange: Exchange) -> bool:
        try:
            return await switches(exchange)
        finally:
            done.set()

    mirror.scripts["/socket"] = until_done
    async with connected(stand) as connection:
        answer = await upgraded(connection, "websocket")
        first = await connection.exactly(5)
        await connection.send(b"hello")
        echoed = await connection.exactly(5)
    async with asyncio.timeout(30):
        await done.wait()
    async with connected(stand) as connection:
        declined = await upgraded(connection, "websocket", "/declined")
    seen = mirror.last("/socket")
    return {
        "answer": ", ".join((answer.line, *map(answer.value, ("upgrade", "connection", "x-chosen")))).replace(
            "Upgrade", "upgrade"
        ),
        "the service speaks first": first.decode(),
        "echo": echoed.decode(),
        "the request": ", ".join(map(seen.value, ("upgrade", "connection", "sec-websocket-version"))).lower(),
        "the client ends": "the service's connection ends",
        "the service declines with a body": f"{declined.status}, {'its body' if declined.body else 'empty'}",
    }


@conformance(
    TOPIC,
    "Other upgrades: Envoy's gateway knows websocket alone",
    envoy={"foo/1": 403, "TLS/1.0": 403, "h2c": 200, "h2c is passed on": False},
    ours={"foo/1": 101, "TLS/1.0": 101, "h2c": 200, "h2c is passed on": False},
    decision="045",
)
async def test_upgrades(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    mirror.scripts["/socket"] = switches
    facts: dict[str, object] = {}
    for protocol in ("foo/1", "TLS/1.0"):
        async with connected(stand) as connection:
            facts[protocol] = (await upgraded(connection, protocol)).status
    lines = ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__")
    clear = await ask(stand, request("GET /clear HTTP/1.1", *lines))
    return facts | {"h2c": clear.status, "h2c is passed on": bool(mirror.last("/clear").value("upgrade"))}


@conformance(
    TOPIC,
    "A client that goes away takes its request with it",
    expect={"HTTP/1.1": "the service's connection ends", "HTTP/2": "the service's stream is reset"},
)
async def test_client_gone(stand: Stand) -> Observation:
    one, other = await mirrored(stand), await mirrored(stand, "two", protocol="http2")
    ended = asyncio.Event()

    async def waits(exchange: Exchange) -> bool:
        try:
            await exchange.reader.read()
        finally:
            ended.set()
        return False

    one.scripts["/wait"] = waits
    other.early_two_scripts["/wait"] = lambda exchange: None
    async with connected(stand) as connection:
        await connection.send(request("GET /wait HTTP/1.1"))
        await eventually(lambda: one.of("/wait"), what="the request came")
    async with asyncio.timeout(30):
        await ended.wait()
    async with two.connected(stand, "two") as streams:
        stream = await streams.open(two.headers("/wait"))
        await eventually(lambda: other.of("/wait"), what="the request came")
        streams.core.reset_stream(stream.number, 8)
        await streams.flush()
        await eventually(lambda: other.last("/wait").reset, what="the stream is reset")
    return {"HTTP/1.1": "the service's connection ends", "HTTP/2": "the service's stream is reset"}


# --- longer than RequestTimeout ------------------------------------------------------------------------------

_LONGER_S = 2.0
"""Than a RequestTimeout of one second."""


async def events(exchange: Exchange) -> bool:
    """Server-sent events, the second one late."""
    await exchange.read_body()
    kind = exchange.seen.value("x-kind")
    await exchange.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    await exchange.write(b"5\r\nfirst\r\n")
    await asyncio.sleep(_LONGER_S)
    await exchange.write(b"6\r\nsecond\r\n0\r\n\r\n")
    return True


@conformance(
    TOPIC,
    "RequestTimeout and what is meant to last: Envoy cuts what the service alone goes on with, here it has to begin",
    envoy={
        "text/event-stream": "cut",
        "text/plain": "cut",
        "gRPC, from the service": "reset",
        "gRPC, both ways": "goes on",
        "websocket": "goes on",
    },
    ours={
        "text/event-stream": "firstsecond",
        "text/plain": "cut",
        "gRPC, from the service": "goes on",
        "gRPC, both ways": "goes on",
        "websocket": "goes on",
    },
    decision="037",
)
async def test_longer_than_timeout(stand: Stand) -> Observation:
    for service in ("db", "calls"):
        await stand.config("service-resolver", service, RequestTimeout="1s")
    mirror = await mirrored(stand)
    calls = await mirrored(stand, "calls", protocol="grpc")
    mirror.scripts |= {"/events": events, "/socket": switches}
    calls.early_two_scripts["/live"] = _begins

    async def lasts(kind: str) -> str:
        try:
            answer = await ask(stand, request("GET /events HTTP/1.1", f"X-Kind: {kind}"))
        except (Refused, OSError):
            return "cut"
        return answer.text if answer.complete else "cut"

    async with connected(stand) as socket, two.connected(stand, "calls") as connection:
        await upgraded(socket, "websocket")
        await socket.exactly(len(b"first"))
        live = {
            "gRPC, from the service": await connection.open(two.grpc("/live"), end=True),
            "gRPC, both ways": await connection.open(two.grpc("/live"), end=False),
        }
        await connection.until(lambda: all(stream.status for stream in live.values()))
        facts = {"text/event-stream": await lasts("text/event-stream"), "text/plain": await lasts("text/plain")}
        await connection.ask(two.grpc("/after"), b"\0\0\0\0\0")
        facts |= {name: "reset" if stream.reset else "goes on" for name, stream in live.items()}
        await socket.send(b"hello")
        facts["websocket"] = "goes on" if await socket.exactly(5) == b"hello" else "garbled"
    return facts


def _begins(exchange: TwoExchange) -> None:
    exchange.respond("200", b"", [("content-type", "application/grpc")], end=False)
    exchange.flush()
