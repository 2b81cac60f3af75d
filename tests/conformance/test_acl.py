"""What a gateway does with a token that lacks a right."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.gateway import Gateway
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import MeshClient, Refused
from tests.support.rights import NODES, Rights, write

TOPIC = "ACLs"
NOTHING_S = 5.0
"""Without an answer for this long there is none."""


class Limited:
    """A gateway of the stand's kind with a token of its own, linked to ``good`` and ``bad``."""

    def __init__(self, stand: Stand, gateway: Gateway | EnvoyTerminatingGateway, client: MeshClient) -> None:
        self._stand = stand
        self.gateway = gateway
        self._client = client

    def server_name(self, service: str) -> str:
        return self._client.server_name(self._stand.named(service), datacenter=self._stand.agent.datacenter)

    async def outcome(self, service: str) -> str:
        """Of an exchange by an allowed client: ``echo`` or ``refused``."""
        address, port = self.gateway.address, self.gateway.port
        try:
            async with await self._client.connect(address, port, self.server_name(service)) as connection:
                return "echo" if await connection.exchange(b"ping") == b"ping" else "garbled"
        except (Refused, OSError):
            return REFUSED

    async def becomes(self, service: str, outcome: str) -> None:
        async def has() -> bool:
            return await self.outcome(service) == outcome

        await eventually(has, 60.0, what=f"{service} is {outcome} by {self.gateway.name}")

    async def stranger(self, service: str) -> str:
        """Where the first bytes of a client without a certificate go: an echo of them came from the backend."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        session = context.wrap_bio(incoming, outgoing, server_hostname=self.server_name(service))
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            hello = outgoing.read()
        try:
            async with asyncio.timeout(NOTHING_S):
                reader, writer = await asyncio.open_connection(self.gateway.address, self.gateway.port)
                writer.write(hello)
                answer = await reader.read(len(hello))
                writer.close()
        except (TimeoutError, OSError):
            return "nowhere"
        return "to the external service" if answer and hello.startswith(answer) else "nowhere"


@asynccontextmanager
async def limited(stand: Stand, rights: Rights) -> AsyncIterator[Limited]:
    name = stand.named("limited")
    kind = EnvoyTerminatingGateway(stand.agent, name, token=rights.secret) if stand.is_envoy else None
    async with kind or Gateway(stand.agent, stand.folder, name, token=rights.secret) as gateway:
        services = [{"Name": stand.named(service)} for service in ("good", "bad")]
        await stand.agent.write_config({"Kind": "terminating-gateway", "Name": name, "Services": services})
        try:
            yield Limited(stand, gateway, await stand.client("web"))
        finally:
            await stand.agent.delete_config("terminating-gateway", name)


def rules(stand: Stand, *writable: str, rest: str = NODES) -> str:
    return f"{write(stand.named('limited'), *map(stand.named, writable))}\n{rest}"


async def two_services(stand: Stand) -> None:
    backend = await stand.backend()
    for service in ("good", "bad"):
        await stand.register(service, backend.port, node=service)
        await stand.intention("web", service)


@conformance(
    TOPIC,
    "The token lacks service:write on one of two linked services",
    envoy={"the other": "echo", "that one": "refused", "bytes of a stranger go": "to the external service"},
    ours={"the other": "echo", "that one": "refused", "bytes of a stranger go": "nowhere"},
    decision="019",
)
async def test_no_write_on_one_service(stand: Stand) -> Observation:
    await two_services(stand)
    read_only = f'service "{stand.named("bad")}" {{ policy = "read" }}\n{NODES}'
    rights = await Rights.of(stand.agent, rules(stand, "good", rest=read_only))
    async with limited(stand, rights) as gateway:
        await gateway.becomes("good", "echo")
        if stand.is_envoy:
            await eventually(lambda: _goes(gateway), 60.0, what="Envoy has the cluster")
        return {
            "the other": await gateway.outcome("good"),
            "that one": await gateway.outcome("bad"),
            "bytes of a stranger go": await gateway.stranger("bad"),
        }


async def _goes(gateway: Limited) -> bool:
    return await gateway.stranger("bad") != "nowhere"


@conformance(
    TOPIC,
    "The right that one service lacked is given: it is served without a restart",
    expect={"before": "refused", "after": "echo", "the other": "echo"},
)
async def test_a_right_is_given_later(stand: Stand) -> Observation:
    await two_services(stand)
    rights = await Rights.of(stand.agent, rules(stand, "good"))
    async with limited(stand, rights) as gateway:
        await gateway.becomes("good", "echo")
        before = await gateway.outcome("bad")
        await rights.become(rules(stand, "good", "bad"))
        await gateway.becomes("bad", "echo")
        return {"before": before, "after": await gateway.outcome("bad"), "the other": await gateway.outcome("good")}
