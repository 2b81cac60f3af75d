"""Two real clusters that are peered: callers of the other one are let in by export and intention, and by nothing else.

The client stands for the sidecar of the other cluster: this cluster's mesh gateways pass its TLS through unchanged.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from plugin.check import check_gateway
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.settings import ConsulSettings
from tests.support.command import consul_tgw
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, let_in, serves
from tests.support.mesh_client import MeshClient, MeshConnection, Refused
from tests.support.peering import PEER, export, peer
from tests.support.rights import NODES, Rights, write

pytestmark = pytest.mark.asyncio(loop_scope="session")

WITHIN_S = 1.0
SERVICE, OTHER, CALLER = "peered-db", "peered-stays", "peered-web"


@dataclass(kw_only=True)
class Stage:
    own: ConsulAgent
    far: ConsulAgent
    gateway: Gateway
    rights: Rights
    links: Links
    caller: MeshClient
    """``CALLER`` of the other cluster; it trusts the roots of the gateway's cluster."""

    def name(self, service: str = SERVICE) -> str:
        return f"{service}.default.default.{PEER}.external.{self.caller.trust_domain}"

    async def connect(self, service: str = SERVICE) -> MeshConnection:
        return await self.caller.connect(self.gateway.address, self.gateway.port, self.name(service))

    async def allowed(self, service: str = SERVICE) -> bool:
        try:
            async with await self.connect(service) as connection:
                return await connection.exchange(b"ping") == b"ping"
        except Refused:
            return False

    async def export(self, *services: str) -> None:
        await export(self.own, *services)

    async def policy(self, action: str, service: str = SERVICE) -> None:
        source = {"Name": CALLER, "Peer": PEER, "Action": action}
        await self.own.write_config({"Kind": "service-intentions", "Name": service, "Sources": [source]})

    async def is_let_in(self, service: str = SERVICE) -> None:
        await eventually(lambda: self.allowed(service), 30.0, what=f"the peer reaches {service}")

    async def peered_names(self, service: str = SERVICE) -> list[str]:
        services = (await self.gateway.status())["services"]
        (found,) = [one for one in services if one["name"] == service]
        return [name for name in found["server_names"] if ".external." in name]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """The gateway's token may not ask about peering at first."""
    folder = tmp_path_factory.mktemp("peering")
    for name in ("own", "far", "gateway"):
        (folder / name).mkdir()
    async with (
        ConsulAgent(folder / "own", acl=True, peering=True) as own,
        ConsulAgent(folder / "far", peering=True, datacenter="dc2", node_name="far") as far,
        ExternalService(echo) as backend,
    ):
        await peer(own, far)
        links = Links(own, "peered")
        await links.add(SERVICE, backend.port)
        await links.add(OTHER, backend.port)
        rights = await Rights.of(own, write("peered", SERVICE, OTHER) + "\n" + NODES)
        of_far, of_own = await MeshClient.of(far, CALLER), await MeshClient.of(own, CALLER)
        assert of_far.trust_domain != of_own.trust_domain
        caller = dataclasses.replace(of_own, leaf=of_far.leaf)
        async with Gateway(own, folder / "gateway", "peered", token=rights.secret, workers=2) as gateway:
            await serves(gateway, SERVICE, OTHER)
            yield Stage(own=own, far=far, gateway=gateway, rights=rights, links=links, caller=caller)


async def findings(stage: Stage) -> list[Any]:
    settings = ConsulSettings(address=stage.own.http_address, token=stage.rights.secret)
    report = await check_gateway(settings, "peered", patience_s=5.0)
    return [*report.findings, *(one for service in report.services for one in service.findings)]


async def test_from_no_right_to_a_caller_that_is_let_in(stage: Stage) -> None:
    """Export, right, intention: without any of them nobody is let in, and each that is missing is named."""
    here, there = stage.gateway.address, stage.gateway.port
    own_caller = await MeshClient.of(stage.own, "peered-local")
    await stage.own.write_intention("peered-local", SERVICE)
    await let_in(own_caller, stage.gateway, SERVICE)
    assert "UNRECOGNIZED_NAME" in await stage.caller.refusal(here, there, stage.name())
    assert [one for one in await findings(stage) if one.level == "missing"] == []
    assert 'mesh = "read"' in "".join(one.text for one in await findings(stage))

    await stage.export(SERVICE)
    printed = await consul_tgw("acl-policy", "--service=peered", environment=stage.own.cli_environment())
    assert 'mesh = "read"' in printed.output
    assert 'peering = "read"' in printed.output
    without = printed.output.replace('peering = "read"', "")
    await stage.rights.become(without)

    async def named() -> bool:
        return any('peering = "read"' in text for text in (await stage.gateway.status())["warnings"])

    await eventually(named, 30.0, what="status names the right that is missing")
    # Consul takes up to ten seconds to refuse peerings: by then it is missing, before that a warning.
    assert [one.rule for one in await findings(stage) if one.level != "ok"] == ['peering = "read"']
    assert "UNRECOGNIZED_NAME" in await stage.caller.refusal(here, there, stage.name())
    assert await let_in(own_caller, stage.gateway, SERVICE) < 30.0

    await stage.rights.become(printed.output)
    await eventually(stage.peered_names, 30.0, what="the name of the peer is served")
    assert await stage.peered_names() == [stage.name()]
    assert await stage.peered_names(OTHER) == []
    (known,) = (await stage.gateway.status())["peers"]
    assert (known["name"], known["services"]) == (PEER, [SERVICE])
    assert [one for one in await findings(stage) if one.level != "ok"] == []

    # An intention for the same name in this cluster is none for the peer's.
    await stage.own.write_intention(CALLER, SERVICE)
    await let_in(await MeshClient.of(stage.own, CALLER), stage.gateway, SERVICE)
    assert not await stage.allowed()
    await stage.policy("allow")
    await stage.is_let_in()


async def exported_and_allowed(stage: Stage, *services: str) -> None:
    await stage.rights.become(f'{write("peered", SERVICE, OTHER)}\n{NODES}\noperator = "read"')
    await stage.export(*services)
    for service in services:
        await stage.policy("allow", service)
        await stage.is_let_in(service)


async def test_a_certificate_counts_on_the_names_of_its_own_cluster_alone(stage: Stage) -> None:
    await exported_and_allowed(stage, SERVICE)
    await stage.own.write_config(
        {
            "Kind": "service-intentions",
            "Name": SERVICE,
            "Sources": [
                {"Name": CALLER, "Action": "allow"},
                {"Name": CALLER, "Peer": PEER, "Action": "allow"},
                {"Name": "*", "Action": "allow"},
                {"Name": "*", "Peer": PEER, "Action": "allow"},
            ],
        }
    )
    local = await MeshClient.of(stage.own, CALLER)
    await let_in(local, stage.gateway, SERVICE)
    await stage.is_let_in()
    here, there = stage.gateway.address, stage.gateway.port
    assert "UNKNOWN_CA" in await stage.caller.refusal(here, there, stage.caller.server_name(SERVICE))
    assert "UNKNOWN_CA" in await local.refusal(here, there, stage.name())


async def test_a_denied_live_connection_of_a_peer_ends(stage: Stage) -> None:
    await exported_and_allowed(stage, SERVICE)
    async with await stage.connect() as connection:
        assert await connection.exchange(b"ping") == b"ping"
        began_s = time.monotonic()
        await stage.policy("deny")
        await connection.ended()
        assert time.monotonic() - began_s < WITHIN_S * SCALE
    assert not await stage.allowed()


async def test_what_is_no_longer_exported_ends_within_a_second(stage: Stage) -> None:
    await exported_and_allowed(stage, SERVICE, OTHER)
    local = await MeshClient.of(stage.own, CALLER)
    await stage.own.write_config(
        {
            "Kind": "service-intentions",
            "Name": SERVICE,
            "Sources": [{"Name": CALLER, "Action": "allow"}, {"Name": CALLER, "Peer": PEER, "Action": "allow"}],
        }
    )
    await let_in(local, stage.gateway, SERVICE)
    async with (
        await dial(local, stage.gateway, SERVICE) as of_here,
        await stage.connect(OTHER) as of_other,
    ):
        ends = [await stage.connect() for _ in range(4)]  # so that both workers carry some
        for connection in (*ends, of_here, of_other):
            assert await connection.exchange(b"ping") == b"ping"
        began_s = time.monotonic()
        await stage.export(OTHER)
        for connection in ends:
            await connection.ended()
        assert time.monotonic() - began_s < WITHIN_S * SCALE
        for connection in (of_here, of_other):
            assert await connection.exchange(b"still") == b"still"
    name = stage.name()
    assert "UNRECOGNIZED_NAME" in await stage.caller.refusal(stage.gateway.address, stage.gateway.port, name)

    def logged() -> bool:
        return any(
            "no longer exported to peer cloud" in one.get("detail", "") for one in stage.gateway.access_records()
        )

    await eventually(logged, what="the access log says why")


async def test_a_peering_that_is_deleted_ends_everything_of_that_peer(stage: Stage) -> None:
    """The last one: the clusters are strangers afterwards."""
    await exported_and_allowed(stage, SERVICE)
    async with await stage.connect() as connection:
        assert await connection.exchange(b"ping") == b"ping"
        began_s = time.monotonic()
        await stage.own.api("DELETE", f"/v1/peering/{PEER}")
        await connection.ended()
        assert time.monotonic() - began_s < WITHIN_S * SCALE

    async def forgotten() -> bool:
        return not (await stage.gateway.status())["peers"] and not await stage.peered_names()

    await eventually(forgotten, what="the gateway knows no peer")
    assert not await stage.allowed()
