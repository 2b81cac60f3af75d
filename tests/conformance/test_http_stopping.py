"""What requests notice when a gateway is stopped the way service managers stop it (SIGTERM)."""

from __future__ import annotations

import asyncio

from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.gateway import Gateway
from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Exchange, TwoExchange
from tests.conformance.http_one import ENDED, connected, request
from tests.conformance.http_stand import mirrored
from tests.conformance.stand import Links, Stand
from tests.conformance.test_stopping import terminate
from tests.support.eventually import eventually
from tests.support.mesh_client import Refused

TOPIC = "Stopping"


def stopped(stand: Stand) -> EnvoyTerminatingGateway | Gateway:
    """A gateway of the kind under test that the case may stop."""
    name = stand.named("gw")
    if stand.is_envoy:
        return EnvoyTerminatingGateway(stand.agent, name)
    return Gateway(stand.agent, stand.folder / "gateway", name, drain_timeout_s=60.0)


@conformance(
    TOPIC,
    "SIGTERM, over HTTP: Envoy cuts requests under way, this gateway answers them and says that it goes",
    envoy={"HTTP/1.1": ENDED, "HTTP/2": ENDED, "kept alive without a request": ENDED},
    ours={
        "HTTP/1.1": "200, Connection: close",
        "HTTP/2": "200, GOAWAY NO_ERROR",
        "kept alive without a request": ENDED,
    },
    decision="037",
)
async def test_requests(stand: Stand) -> Observation:
    gateway = stopped(stand)
    own = Stand(stand.agent, gateway, Links(stand.agent, gateway.name), stand.folder / "own", stand.dns)
    go_on = asyncio.Event()

    async def waits(exchange: Exchange) -> bool:
        await go_on.wait()
        await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    streams: list[TwoExchange] = []
    async with own, gateway:
        one = await mirrored(own)
        other = await mirrored(own, "two", protocol="http2")
        one.scripts["/slow"] = waits
        other.early_two_scripts["/slow"] = streams.append
        async with connected(own) as idle, connected(own) as busy, two.connected(own, "two") as connection:
            await idle.ask(request())
            await busy.send(request("GET /slow HTTP/1.1"))
            stream = await connection.open(two.headers("/slow"))
            await eventually(lambda: one.of("/slow") and streams, what="both requests came")
            terminate(own)
            # It has noticed when the idle connection ends.
            kept = ENDED if not await idle.rest() else "answered"
            go_on.set()
            try:
                answer = await busy.receive()
                told = f"{answer.status}, Connection: {answer.value('connection')}"
            except (Refused, OSError):
                told = ENDED
            streams[0].respond("200", b"ok")
            streams[0].flush()
            try:
                await connection.until(lambda: stream.ended and connection.goaway)
                finished = f"{stream.outcome}, GOAWAY {connection.goaway}"
            except (Refused, OSError):
                finished = ENDED
    return {"HTTP/1.1": told, "HTTP/2": finished, "kept alive without a request": kept}
