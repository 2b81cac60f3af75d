"""Callers of a peer while roots change, the gateway is replaced, Consul is away, and peerings come anew."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.saved_state import form
from tests.support.command import consul_tgw
from tests.support.eventually import eventually
from tests.support.linking import Links, serves
from tests.support.mesh_client import MeshClient, MeshConnection, Refused
from tests.support.peering import PEER, export, peer

pytestmark = pytest.mark.asyncio(loop_scope="session")

SERVICE, CALLER = "lasting-db", "lasting-web"


@dataclass(kw_only=True)
class Stage:
    own: ConsulAgent
    far: ConsulAgent
    gateway: Gateway
    folder: Path

    async def caller(self, name: str = CALLER) -> MeshClient:
        """Of the other cluster as it is now; it trusts the roots that this one has now."""
        of_own, of_far = await MeshClient.of(self.own, name), await MeshClient.of(self.far, name)
        return dataclasses.replace(of_own, leaf=of_far.leaf)

    async def connect(self, caller: MeshClient) -> MeshConnection:
        name = f"{SERVICE}.default.default.{PEER}.external.{caller.trust_domain}"
        return await caller.connect(self.gateway.address, self.gateway.port, name)

    @contextlib.asynccontextmanager
    async def live(self, caller: MeshClient) -> AsyncIterator[MeshConnection]:
        async with await self.connect(caller) as connection:
            assert await connection.exchange(b"before") == b"before"
            yield connection

    async def allowed(self, caller: MeshClient) -> bool:
        with contextlib.suppress(Refused):
            async with await self.connect(caller) as connection:
                return await connection.exchange(b"ping") == b"ping"
        return False

    async def is_let_in(self, caller: MeshClient) -> None:
        await eventually(lambda: self.allowed(caller), 30.0, what="the peer is let in")

    async def is_kept_out(self, caller: MeshClient) -> None:
        async def refused() -> bool:
            return not await self.allowed(caller)

        await eventually(refused, 30.0, what="the peer is kept out")

    async def peer_status(self) -> dict[str, Any]:
        known = (await self.gateway.status())["peers"]
        return known[0] if known else {}


async def new_root(agent: ConsulAgent) -> None:
    roots = await agent.api("GET", "/v1/agent/connect/ca/roots")
    authority = Authority("Next mesh root", trust_domain=roots["TrustDomain"])
    settings = {"PrivateKey": authority.private_key_pem, "RootCert": authority.certificate_pem}
    await agent.api("PUT", "/v1/connect/ca/configuration", {"Provider": "consul", "Config": settings})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("peering-life")
    async with (
        ConsulAgent(folder / "own", peering=True, persistent=True, default_intention_policy="deny") as own,
        ConsulAgent(folder / "far", peering=True, datacenter="dc2", node_name="far") as far,
        ExternalService(echo) as backend,
    ):
        await peer(own, far)
        await Links(own, "lasting").add(SERVICE, backend.port)
        await export(own, SERVICE)
        anybody = {"Name": "*", "Peer": PEER, "Action": "allow"}
        await own.write_config({"Kind": "service-intentions", "Name": SERVICE, "Sources": [anybody]})
        state = f"--state-dir={folder / 'state'}"
        async with Gateway(own, folder / "gateway", "lasting", workers=2, arguments=[state]) as gateway:
            await serves(gateway, SERVICE)
            yield Stage(own=own, far=far, gateway=gateway, folder=folder)


async def test_roots_of_either_side_change_under_live_connections(stage: Stage) -> None:
    before = await stage.caller()
    await stage.is_let_in(before)
    async with stage.live(before) as connection:
        await new_root(stage.far)
        after = await stage.caller("lasting-newcomer")
        await stage.is_let_in(after)
        assert (await stage.peer_status())["roots"] == 2
        # Its cluster lists the former root for as long as leaves of it live.
        assert await stage.allowed(before)
        await new_root(stage.own)
        await stage.is_let_in(await stage.caller("lasting-newcomer"))
        assert await connection.exchange(b"after") == b"after"


async def test_a_reload_is_not_noticed_and_obeys_what_comes_later(stage: Stage) -> None:
    caller = await stage.caller()
    await stage.is_let_in(caller)
    async with stage.live(caller) as connection:
        run = f"--runtime-dir={stage.folder / 'gateway' / 'run'}"
        said = await consul_tgw("reload", run, environment=stage.own.cli_environment())
        assert said.code == 0, said.errors
        assert await stage.allowed(caller)
        assert await connection.exchange(b"after") == b"after"
        assert [one["index"] for one in (await stage.gateway.status())["workers"] if one["index"] < 0]
        # In the former workers, too.
        await export(stage.own)
        await connection.ended()
    await stage.is_kept_out(caller)
    await export(stage.own, SERVICE)
    await stage.is_let_in(caller)


async def test_a_start_while_consul_is_away_knows_its_peers(stage: Stage) -> None:
    caller = await stage.caller()
    await stage.is_let_in(caller)

    def saved() -> bool:
        states = [form.decode(found.read_bytes()) for found in (stage.folder / "state").glob("*.state")]
        return any(state.peers is not None and state.exports is not None for state in states)

    await eventually(saved, what="peers and exports are saved")
    await stage.gateway.stop()
    await stage.own.kill()
    await stage.gateway.start()
    await stage.is_let_in(caller)
    assert (await stage.gateway.status())["consul_away"]
    async with stage.live(caller) as connection:
        await stage.own.start()

        async def confirmed() -> bool:
            return not (await stage.gateway.status())["restored_from_s"]

        await eventually(confirmed, 60.0, what="Consul has said everything anew")
        assert await connection.exchange(b"after") == b"after"
        await export(stage.own)
        await connection.ended()


async def test_what_ended_while_the_gateway_was_down_has_ended(stage: Stage) -> None:
    await export(stage.own, SERVICE)
    caller = await stage.caller()
    await stage.is_let_in(caller)
    await stage.gateway.stop()
    await export(stage.own)
    await stage.gateway.start()
    await stage.is_kept_out(caller)
    assert (await stage.peer_status()).get("services", []) == []


async def test_another_cluster_under_the_name_of_a_peer_is_another_one(stage: Stage) -> None:
    """The last one: a dev agent that starts again is another cluster, with another authority and trust domain."""
    await export(stage.own, SERVICE)
    former = await stage.caller()
    await stage.is_let_in(former)
    domain = (await stage.peer_status())["trust_domain"]
    async with stage.live(former) as connection:
        await stage.own.api("DELETE", f"/v1/peering/{PEER}")
        await connection.ended()

        async def forgotten() -> bool:
            return not await stage.own.api("GET", "/v1/peerings")

        await eventually(forgotten, 30.0, what="the peering is deleted")
    await stage.far.restart()
    await peer(stage.own, stage.far)
    newcomer = await stage.caller()
    await stage.is_let_in(newcomer)
    assert (await stage.peer_status())["trust_domain"] != domain
    name = f"{SERVICE}.default.default.{PEER}.external.{newcomer.trust_domain}"
    refusal = await dataclasses.replace(newcomer, leaf=former.leaf).refusal(
        stage.gateway.address, stage.gateway.port, name
    )
    assert "UNKNOWN_CA" in refusal
