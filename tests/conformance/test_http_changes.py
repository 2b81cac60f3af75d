"""How soon a change of permissions is felt, and what cannot be evaluated."""

from __future__ import annotations

from typing import Any

from plugin.dev.gateway import Gateway
from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Exchange, Mirror, TwoExchange
from tests.conformance.http_one import ENDED, OneConnection, connected, request, said
from tests.conformance.http_stand import answered, http, mirrored, permit
from tests.conformance.stand import Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import Refused

TOPIC = "HTTP: changes of intentions"
ALLOW_ALL = http("allow", PathPrefix="/")
CALL = b"\0\0\0\0\0"


@conformance(
    TOPIC,
    "Permissions change: a live connection feels it at its next request here; in Envoy only new connections do",
    envoy={
        "kept alive, before": 200,
        "HTTP/2, before": "200",
        "a new connection": "403",
        "kept alive, after": 200,
        "HTTP/2, after": "200",
        "allowed again, a new connection": "200",
    },
    ours={
        "kept alive, before": 200,
        "HTTP/2, before": "200",
        "a new connection": "403",
        "kept alive, after": 403,
        "HTTP/2, after": "403",
        "allowed again, a new connection": "200",
    },
    decision="037",
)
async def test_change(stand: Stand) -> Observation:
    await mirrored(stand, source="")
    await permit(stand, "db", [ALLOW_ALL])
    await answered(stand, "200")
    async with connected(stand) as one, two.connected(stand) as other:
        before = (await one.ask(request())).status
        before_two = (await other.ask(two.headers())).outcome
        await permit(stand, "db", [http("deny", PathPrefix="/")])
        await answered(stand, "403")
        changed = await said(stand, request())
        after = (await one.ask(request())).status
        after_two = (await other.ask(two.headers())).outcome
    await permit(stand, "db", [ALLOW_ALL])
    await answered(stand, "200")
    return {
        "kept alive, before": before,
        "HTTP/2, before": before_two,
        "a new connection": changed,
        "kept alive, after": after,
        "HTTP/2, after": after_two,
        "allowed again, a new connection": await said(stand, request()),
    }


async def streams_on(exchange: Exchange) -> bool:
    """A websocket, as far as a gateway can tell."""
    await exchange.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    while data := await exchange.reader.read(65536):
        await exchange.write(data)
    return False


def opens(exchange: TwoExchange) -> None:
    exchange.respond("200", b"", [("content-type", "application/grpc")], end=False)


async def _lives(reading: Any) -> bool:
    """Whether what is read from answers still, rather than having ended."""
    try:
        await reading
    except (Refused, OSError):
        return False
    return True


@conformance(
    TOPIC,
    "Permissions change: live websockets and calls of gRPC that are not permitted any more end here; Envoy's go on",
    envoy={
        "websocket": "goes on",
        "the one still allowed": "goes on",
        "gRPC": "goes on",
        "gRPC still allowed": "goes on",
    },
    ours={"websocket": "ended", "the one still allowed": "goes on", "gRPC": "ended", "gRPC still allowed": "goes on"},
    decision="037",
)
async def test_live_streams(stand: Stand) -> Observation:
    mirror = await mirrored(stand, source="")
    calls = await mirrored(stand, "calls", protocol="grpc", source="")
    mirror.scripts |= {"/lost": streams_on, "/kept": streams_on}
    calls.early_two_scripts |= {"/lost": opens, "/kept": opens}
    for service in ("db", "calls"):
        await permit(stand, service, [ALLOW_ALL])
        await answered(stand, "200", service=service)
    upgrade = ("Upgrade: websocket", "Connection: Upgrade")
    async with (
        connected(stand) as lost,
        connected(stand) as kept,
        two.connected(stand, "calls") as connection,
    ):
        for path, socket in (("/lost", lost), ("/kept", kept)):
            assert (await socket.ask(request(f"GET {path} HTTP/1.1", *upgrade))).status == 101
        lost_call = await connection.open(two.grpc("/lost"), end=False)
        kept_call = await connection.open(two.grpc("/kept"), end=False)
        await connection.until(lambda: lost_call.status and kept_call.status)
        for service in ("db", "calls"):
            await permit(stand, service, [http("deny", PathPrefix="/lost"), ALLOW_ALL])
            await answered(stand, "403", request("GET /lost/probe HTTP/1.1"), service)
        await stand.settled()
        return {
            "websocket": await _echoes(lost),
            "the one still allowed": await _echoes(kept),
            "gRPC": await _takes(connection, calls, lost_call, "/lost"),
            "gRPC still allowed": await _takes(connection, calls, kept_call, "/kept"),
        }


async def _echoes(socket: Any) -> str:
    try:
        await socket.send(b"ping")
        return "goes on" if await socket.exactly(4) == b"ping" else "garbled"
    except (Refused, OSError):
        return ENDED


async def _takes(connection: two.TwoConnection, mirror: Mirror, stream: two.Stream, path: str) -> str:
    """Whether a message of a live call still reaches the service."""
    if not stream.ended:
        # A stream that was reset is told of before the answer to what is asked after it.
        await connection.ask(two.grpc("/other"), CALL)
    if stream.ended:
        return ENDED
    await connection.send(stream, b"more")
    await eventually(lambda: mirror.last(path).body == b"more", what="the message came")
    return "goes on"


@conformance(
    TOPIC,
    "An intention becomes a plain deny: live connections are answered with 403 here, Envoy's go on for ten minutes",
    envoy={"new": "403", "kept alive": 200},
    ours={"new": "403", "kept alive": 403},
    decision="037",
)
async def test_denied_while_live(stand: Stand) -> Observation:
    await mirrored(stand)
    async with connected(stand) as connection:
        assert (await connection.ask(request())).status == 200
        await stand.intention("web", "db", "deny")
        await answered(stand, "403")
        return {"new": await said(stand, request()), "kept alive": (await connection.ask(request())).status}


# --- what cannot be evaluated --------------------------------------------------------------------------------


@conformance(
    TOPIC,
    "A regex that is none, which Consul stores: Envoy's gateway takes over nothing more, here it denies at its place",
    envoy={
        "before the bad one": "200",
        "where it decides": "200",
        "a service linked later": ENDED,
        "a deny written later": "200",
        "named by status": False,
    },
    ours={
        "before the bad one": "200",
        "where it decides": "403",
        "a service linked later": "200",
        "a deny written later": "403",
        "named by status": True,
    },
    decision="043",
    own_consul={},
)
async def test_bad_regex(stand: Stand) -> Observation:
    await mirrored(stand)
    await mirrored(stand, "other")
    await permit(stand, "db", [http("allow", PathExact="/first"), http("deny", PathRegex="/("), ALLOW_ALL])
    await stand.settled()
    await mirrored(stand, "later", wait=False)
    await stand.intention("web", "other", "deny")
    if not stand.is_envoy:
        await answered(stand, "200", service="later")
        await answered(stand, "403", service="other")
    await stand.settled()
    return {
        "before the bad one": await said(stand, request("GET /first HTTP/1.1")),
        "where it decides": await said(stand, request("GET /second HTTP/1.1")),
        "a service linked later": await said(stand, request(), "later"),
        "a deny written later": await said(stand, request(), "other"),
        "named by status": await named_by_status(stand, "/("),
    }


async def named_by_status(stand: Stand, text: str, service: str = "db") -> bool:
    """Whether the gateway itself says what is wrong with ``text``; Envoy has nowhere to say it."""
    if not isinstance(stand.gateway, Gateway):
        return False
    shown = (await stand.gateway.status())["services"]
    return any(text in warning for one in shown if one["name"] == stand.named(service) for warning in one["warnings"])


# --- a change of protocol ------------------------------------------------------------------------------------


@conformance(
    TOPIC,
    "A service turns from tcp to http: here no connection goes on that nobody decides about request by request",
    envoy={"before": "raw", "new": "by request", "live": "goes on raw"},
    ours={"before": "raw", "new": "by request", "live": ENDED},
    decision="037",
)
async def test_protocol(stand: Stand) -> Observation:
    mirror = await mirrored(stand, protocol="tcp")
    async with connected(stand) as live:
        before = await _carriage(live, mirror)
        await stand.config("service-defaults", "db", Protocol="http")

        async def by_request() -> bool:
            async with connected(stand) as connection:
                return await _carriage(connection, mirror) == "by request"

        await eventually(by_request, 60.0, what="new connections are carried by request")
        await stand.settled()
        try:
            after = f"goes on {await _carriage(live, mirror)}"
        except (Refused, OSError):
            after = ENDED
    return {"before": before, "new": "by request", "live": after}


async def _carriage(connection: OneConnection, mirror: Mirror) -> str:
    """``raw`` when the external service sees what the client wrote, letter for letter."""
    await connection.ask(request("GET /carriage HTTP/1.1"))
    return "raw" if "Host" in mirror.last("/carriage").names else "by request"
