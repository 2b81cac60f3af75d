"""Intentions as Consul has them, on new and on live connections."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo, hello
from plugin.dev.gateway import Gateway
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, kept_out, let_in, sample, serves
from tests.support.mesh_client import MeshClient, MeshConnection, Refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

WITHIN_S = 1.0
"""From the write of an intention to its effect; milliseconds on a quiet machine."""


@dataclass(kw_only=True)
class Stage:
    """A gateway whose two workers serve an echo service under one name for each test."""

    agent: ConsulAgent
    gateway: Gateway
    links: Links
    backend: ExternalService
    clients: dict[str, MeshClient] = field(default_factory=dict)

    async def link(self, service: str) -> None:
        await self.links.add(service, self.backend.port)
        await serves(self.gateway, service)

    async def client(self, name: str) -> MeshClient:
        if name not in self.clients:
            self.clients[name] = await MeshClient.of(self.agent, name)
        return self.clients[name]

    async def policy(self, destination: str, *sources: tuple[str, str]) -> None:
        """Write the destination's intentions as a whole: ``(source, action)``."""
        written = [{"Name": source, "Action": action} for source, action in sources]
        await self.agent.write_config({"Kind": "service-intentions", "Name": destination, "Sources": written})

    async def allowed(self, source: str, service: str) -> bool:
        """Of a new connection, at this moment."""
        try:
            async with await dial(await self.client(source), self.gateway, service) as connection:
                return await connection.exchange(b"ping") == b"ping"
        except Refused:
            return False


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def deny_stage(acl_agent: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Default deny."""
    name = "policy-deny-gateway"
    folder = tmp_path_factory.mktemp(name)
    async with ExternalService(echo) as backend, Gateway(acl_agent, folder, name, workers=2) as gateway:
        yield Stage(agent=acl_agent, gateway=gateway, links=Links(acl_agent, name), backend=backend)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def allow_stage(consul_agent: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Default allow."""
    name = "policy-allow-gateway"
    folder = tmp_path_factory.mktemp(name)
    async with ExternalService(echo) as backend, Gateway(consul_agent, folder, name) as gateway:
        yield Stage(agent=consul_agent, gateway=gateway, links=Links(consul_agent, name), backend=backend)


async def carries(connection: MeshConnection, exchanges: int) -> None:
    for number in range(exchanges):
        message = b"exchange %d" % number
        assert await connection.exchange(message) == message


async def ended_within_s(connection: MeshConnection, began_s: float) -> float:
    await connection.ended()
    return time.monotonic() - began_s


async def test_only_the_denied_live_connections_end(
    deny_stage: Stage, record_testsuite_property: Callable[[str, object], None]
) -> None:
    service, kept, lost = "policy-live", "policy-kept", "policy-lost"
    await deny_stage.link(service)
    await deny_stage.policy(service, (kept, "allow"), (lost, "allow"))
    for source in (kept, lost):
        await let_in(await deny_stage.client(source), deny_stage.gateway, service)
    # Several of each, so that both workers carry some.
    kept_open = [await dial(await deny_stage.client(kept), deny_stage.gateway, service) for _ in range(6)]
    lost_open = [await dial(await deny_stage.client(lost), deny_stage.gateway, service) for _ in range(6)]
    for connection in kept_open + lost_open:
        await carries(connection, 1)
    before = sample(await deny_stage.gateway.metrics(), "consul_tgw_policy_closed_total")
    began_s = time.monotonic()
    await deny_stage.policy(service, (kept, "allow"), (lost, "deny"))
    took_s = [await ended_within_s(connection, began_s) for connection in lost_open]
    record_testsuite_property("write_to_live_end_ms", round(max(took_s) * 1000))
    assert max(took_s) < WITHIN_S * SCALE
    assert not await deny_stage.allowed(lost, service)
    for connection in kept_open:
        await carries(connection, 10)
        connection.close()
    records = await eventually(lambda: _closed(deny_stage, lost, service), what="they are in the access log")
    assert {one["verdict"] for one in records} == {"allowed"}

    async def counted() -> bool:
        return sample(await deny_stage.gateway.metrics(), "consul_tgw_policy_closed_total") == before + len(lost_open)

    await eventually(counted)


def _closed(stage: Stage, source: str, service: str) -> list[dict[str, str]]:
    found = [
        one
        for one in stage.gateway.access_records()
        if one.get("service") == service and one["reason"] == "revoked" and one["source"].endswith(f"/{source}")
    ]
    return found if len(found) == 6 else []


async def test_deleting_the_last_intention_ends_it_under_default_deny(deny_stage: Stage) -> None:
    service, source = "policy-deleted", "policy-deleted-client"
    await deny_stage.link(service)
    await deny_stage.policy(service, (source, "allow"))
    client = await deny_stage.client(source)
    await let_in(client, deny_stage.gateway, service)
    async with await dial(client, deny_stage.gateway, service) as connection:
        await carries(connection, 1)
        began_s = time.monotonic()
        await deny_stage.agent.delete_config("service-intentions", service)
        assert await ended_within_s(connection, began_s) < WITHIN_S * SCALE
    assert not await deny_stage.allowed(source, service)


async def test_a_new_connection_follows_within_a_second(
    deny_stage: Stage, record_testsuite_property: Callable[[str, object], None]
) -> None:
    service, source = "policy-new", "policy-new-client"
    await deny_stage.link(service)
    client = await deny_stage.client(source)
    assert not await deny_stage.allowed(source, service)
    await deny_stage.agent.write_intention(source, service)
    opened_s = await let_in(client, deny_stage.gateway, service)
    await deny_stage.agent.write_intention(source, service, "deny")
    refused_s = await kept_out(client, deny_stage.gateway, service)
    record_testsuite_property("write_to_new_allowed_ms", round(opened_s * 1000))
    record_testsuite_property("write_to_new_refused_ms", round(refused_s * 1000))
    assert max(opened_s, refused_s) < WITHIN_S * SCALE


async def test_the_exact_source_wins_over_any_source(deny_stage: Stage) -> None:
    service = "policy-any"
    await deny_stage.link(service)
    await deny_stage.policy(service, ("*", "allow"), ("policy-any-out", "deny"))
    await let_in(await deny_stage.client("policy-any-in"), deny_stage.gateway, service)
    assert not await deny_stage.allowed("policy-any-out", service)


async def test_the_destination_counts_before_the_source(deny_stage: Stage) -> None:
    """``* -> db`` has precedence 8, ``web -> *`` 6: the deny decides, whatever the order of writing."""
    service, other, source = "policy-db", "policy-db-other", "policy-db-web"
    await deny_stage.link(service)
    await deny_stage.link(other)
    client = await deny_stage.client(source)
    try:
        await deny_stage.policy("*", (source, "allow"))
        await let_in(client, deny_stage.gateway, service)
        async with await dial(client, deny_stage.gateway, service) as connection:
            await carries(connection, 1)
            await deny_stage.policy(service, ("*", "deny"))
            await connection.ended()
        assert not await deny_stage.allowed(source, service)
        assert await deny_stage.allowed(source, other)
        await deny_stage.policy(service, ("*", "deny"), (source, "allow"))
        await let_in(client, deny_stage.gateway, service)
        assert not await deny_stage.allowed("policy-db-stranger", service)
    finally:
        await deny_stage.agent.delete_config("service-intentions", "*")


async def test_by_default_allowed(allow_stage: Stage) -> None:
    service = "policy-open"
    await allow_stage.link(service)
    assert (await allow_stage.gateway.status())["default_action"] == "allow"
    client = await allow_stage.client("policy-open-client")
    await let_in(client, allow_stage.gateway, service)
    async with await dial(client, allow_stage.gateway, service) as connection:
        await carries(connection, 1)
        await allow_stage.policy(service, ("policy-open-client", "deny"))
        await connection.ended()
    assert await allow_stage.allowed("policy-open-other", service)
    await allow_stage.agent.delete_config("service-intentions", service)
    await let_in(client, allow_stage.gateway, service)


async def test_by_default_denied(deny_stage: Stage) -> None:
    service = "policy-closed"
    await deny_stage.link(service)
    assert (await deny_stage.gateway.status())["default_action"] == "deny"
    assert not await deny_stage.allowed("policy-closed-client", service)


async def status_of(connection: MeshConnection, path: str) -> int:
    """Ask for ``path``; of the response, which has a length."""
    await connection.send(f"GET {path} HTTP/1.1\r\nhost: service\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await connection.receive_exactly(1)
    (length,) = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    await connection.receive_exactly(int(length))
    return int(head.split(b" ")[1])


async def test_permissions_decide_about_each_request_of_a_connection_that_stays(deny_stage: Stage) -> None:
    service, source = "policy-permissions", "policy-permissions-client"
    agent = deny_stage.agent

    async def permit(prefix: str) -> None:
        permission = {"Action": "allow", "HTTP": {"PathPrefix": prefix}}
        sources = [{"Name": source, "Permissions": [permission]}]
        await agent.write_config({"Kind": "service-intentions", "Name": service, "Sources": sources})

    await agent.write_config({"Kind": "service-defaults", "Name": service, "Protocol": "http"})
    async with ExternalService(hello) as backend:
        await deny_stage.links.add(service, backend.port)
        await serves(deny_stage.gateway, service)
        await permit("/public")
        client = await deny_stage.client(source)
        async with await dial(client, deny_stage.gateway, service) as connection:

            async def answers(path: str, expected: int) -> None:
                async def is_so() -> bool:
                    return await status_of(connection, path) == expected

                await eventually(is_so, what=f"{path} is answered {expected}")

            await answers("/public/a", 200)
            assert await status_of(connection, "/secret") == 403
            assert await status_of(connection, "/public/../secret") == 403
            await permit("/secret")
            await answers("/secret", 200)
            assert await status_of(connection, "/public/a") == 403
        other = await deny_stage.client("policy-permissions-other")
        async with await dial(other, deny_stage.gateway, service) as connection:
            assert await status_of(connection, "/secret") == 403


async def test_unlinking_ends_live_connections_and_linking_serves_again(allow_stage: Stage) -> None:
    service, stays = "policy-unlinked", "policy-stays"
    for name in (service, stays):
        await allow_stage.link(name)
    client = await allow_stage.client("policy-unlinked-client")
    async with (
        await dial(client, allow_stage.gateway, service) as ends,
        await dial(client, allow_stage.gateway, stays) as goes_on,
    ):
        await carries(ends, 1)
        await carries(goes_on, 1)
        await allow_stage.links.remove(service)
        await ends.ended()
        await carries(goes_on, 10)
    name = client.server_name(service)
    assert "UNRECOGNIZED_NAME" in await client.refusal(allow_stage.gateway.address, allow_stage.gateway.port, name)
    await allow_stage.links.set(service)
    await let_in(client, allow_stage.gateway, service)
