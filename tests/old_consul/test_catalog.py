"""Links, instances and subsets of Consul 1.8 come and go."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.external import ExternalService, banner_first, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from tests.support.eventually import eventually
from tests.support.linking import Links, dial, kept_out, let_in, serves, service_status
from tests.support.mesh_client import MeshClient
from tests.support.old_consul_agent import OldConsulAgent

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOURCE = "old-catalog-client"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(old_agent: OldConsulAgent) -> MeshClient:
    return await MeshClient.of(old_agent, SOURCE)


async def endpoints(gateway: Gateway, service: str) -> list[str]:
    return [one["address"] for one in (await service_status(gateway, service)).get("endpoints", [])]


async def refusal(client: MeshClient, gateway: Gateway, service: str) -> str:
    return await client.refusal(gateway.address, gateway.port, client.server_name(service))


async def test_instances_come_and_go(
    old_agent: OldConsulAgent, client: MeshClient, backend: ExternalService, work_dir: Path
) -> None:
    service = "old-instances"
    await old_agent.write_intention(SOURCE, service)
    links = Links(old_agent, "old-instances-gateway")
    await links.set(service)
    async with Gateway(old_agent, work_dir, "old-instances-gateway") as gateway:
        await serves(gateway, service)
        assert await endpoints(gateway, service) == []
        await old_agent.register_external("old-instances-node", "127.0.0.1", service, backend.port)
        await let_in(client, gateway, service)
        async with await dial(client, gateway, service) as live:
            assert await live.exchange(b"ping") == b"ping"
            await old_agent.deregister_external("old-instances-node")

            async def none_left() -> bool:
                return await endpoints(gateway, service) == []

            await eventually(none_left)
            await kept_out(client, gateway, service)
            assert await live.exchange(b"ping") == b"ping"
        await old_agent.register_external("old-instances-node", "127.0.0.1", service, backend.port)
        await let_in(client, gateway, service)


async def test_a_critical_instance_is_left_out(
    old_agent: OldConsulAgent, client: MeshClient, backend: ExternalService, work_dir: Path
) -> None:
    service = "old-health"
    await old_agent.write_intention(SOURCE, service)
    links = Links(old_agent, "old-health-gateway")
    await links.add(service, backend.port)
    await old_agent.register_external("old-health-bad", "127.0.0.1", service, 1, check_status="critical")
    async with Gateway(old_agent, work_dir, "old-health-gateway") as gateway:
        await serves(gateway, service)
        shown = (await service_status(gateway, service))["endpoints"]
        assert {one["address"]: one["healthy"] for one in shown} == {
            f"127.0.0.1:{backend.port}": True,
            "127.0.0.1:1": False,
        }
        for _ in range(10):
            async with await dial(client, gateway, service) as connection:
                assert await connection.exchange(b"ping") == b"ping"


@asynccontextmanager
async def everything_linked(agent: OldConsulAgent, gateway_name: str) -> AsyncIterator[Links]:
    """Link ``*`` for a while: it would concern the services of every other test."""
    links = Links(agent, gateway_name)
    await links.set("*")
    try:
        yield links
    finally:
        await links.remove("*")


async def test_a_wildcard_link_follows_the_catalog(
    old_agent: OldConsulAgent, client: MeshClient, backend: ExternalService, work_dir: Path
) -> None:
    service = "old-any"
    await old_agent.write_intention(SOURCE, service)
    async with (
        everything_linked(old_agent, "old-any-gateway"),
        Gateway(old_agent, work_dir, "old-any-gateway") as gateway,
    ):
        assert "UNRECOGNIZED_NAME" in await refusal(client, gateway, service)
        await old_agent.register_external("old-any-node", "127.0.0.1", service, backend.port)
        await let_in(client, gateway, service)
        assert (await service_status(gateway, service))["from_wildcard"]
        await old_agent.deregister_external("old-any-node")
        await eventually(lambda: _is_gone(gateway, service))

        # The workers hear of it a moment later than status has it.
        async def unknown() -> bool:
            try:
                return "UNRECOGNIZED_NAME" in await refusal(client, gateway, service)
            except AssertionError:  # let through
                return False

        await eventually(unknown)


async def _is_gone(gateway: Gateway, service: str) -> bool:
    return not await service_status(gateway, service)


async def test_an_explicit_link_keeps_its_tls_beside_a_wildcard(
    old_agent: OldConsulAgent, client: MeshClient, authority: Authority, work_dir: Path
) -> None:
    """When an instance registers again, Consul's list of linked services shows the fields of ``*`` instead."""
    service, name = "old-explicit", "old-explicit-gateway"
    ca_file = str(authority.write(work_dir, "ca"))
    await old_agent.write_intention(SOURCE, service)
    async with (
        ExternalService(echo, tls=authority.server("old.example")) as secure,
        everything_linked(old_agent, name) as links,
    ):
        await links.add(service, secure.port, CAFile=ca_file, SNI="old.example")
        async with Gateway(old_agent, work_dir, name) as gateway:
            await let_in(client, gateway, service)
            await old_agent.register_external("old-explicit-again", "127.0.0.1", service, secure.port)
            rows = await old_agent.api("GET", f"/v1/catalog/gateway-services/{name}")
            (row,) = (row for row in rows if row["Service"]["Name"] == service)
            assert row.get("FromWildcard"), "this Consul no longer mixes them up: the test has lost its subject"

            async def both() -> bool:
                return len(await endpoints(gateway, service)) == 2

            await eventually(both)
            shown = await service_status(gateway, service)
            assert (shown["upstream_tls"], shown["from_wildcard"]) == (True, False)
            await let_in(client, gateway, service)


async def test_a_subset_has_a_name_of_its_own(old_agent: OldConsulAgent, client: MeshClient, work_dir: Path) -> None:
    service, name = "old-subset", "old-subset-gateway"
    await old_agent.write_intention(SOURCE, service)
    async with (
        ExternalService(functools.partial(banner_first, banner=b"one")) as one,
        ExternalService(functools.partial(banner_first, banner=b"two")) as two,
    ):
        for version, backend in (("v1", one), ("v2", two)):
            await old_agent.register_external(
                f"old-subset-{version}", "127.0.0.1", service, backend.port, meta={"version": version}
            )
        await Links(old_agent, name).set(service)
        resolver = {"v2": {"Filter": "Service.Meta.version == v2"}}
        async with Gateway(old_agent, work_dir, name) as gateway:
            await let_in_subset_free(client, gateway, service)
            await old_agent.write_config({"Kind": "service-resolver", "Name": service, "Subsets": resolver})
            wanted = client.server_name(service, subset="v2")

            async def named() -> bool:
                return wanted in (await service_status(gateway, service)).get("server_names", [])

            await eventually(named)
            for _ in range(4):
                async with await client.connect(gateway.address, gateway.port, wanted) as connection:
                    assert await connection.receive_exactly(3) == b"two"
            await old_agent.delete_config("service-resolver", service)

            async def forgotten() -> bool:
                return wanted not in (await service_status(gateway, service)).get("server_names", [])

            await eventually(forgotten)
            assert "UNRECOGNIZED_NAME" in await client.refusal(gateway.address, gateway.port, wanted)


async def let_in_subset_free(client: MeshClient, gateway: Gateway, service: str) -> None:
    await serves(gateway, service)
    async with await dial(client, gateway, service) as connection:
        assert await connection.receive_exactly(3) in (b"one", b"two")


async def test_an_entry_is_deleted_and_written_again(
    old_agent: OldConsulAgent, client: MeshClient, backend: ExternalService, work_dir: Path
) -> None:
    service, name = "old-entry", "old-entry-gateway"
    await old_agent.write_intention(SOURCE, service)
    links = Links(old_agent, name)
    await links.add(service, backend.port)
    async with Gateway(old_agent, work_dir, name) as gateway:
        await let_in(client, gateway, service)
        async with await dial(client, gateway, service) as live:
            assert await live.exchange(b"ping") == b"ping"
            await old_agent.delete_config("terminating-gateway", name)
            await live.ended()
        assert "UNRECOGNIZED_NAME" in await refusal(client, gateway, service)
        await links.write()
        await let_in(client, gateway, service)
