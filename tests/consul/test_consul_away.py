"""A real agent goes away and comes back: how old the state may become, and how soon all is well again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, kept_out, let_in, sample, serves
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOURCE, SERVICE, GATEWAY = "away-client", "away-db", "away-gateway"
MAXIMUM_S = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backend() -> AsyncIterator[ExternalService]:
    async with ExternalService(echo) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="session")
async def agent(backend: ExternalService, work_dir: Path) -> AsyncIterator[ConsulAgent]:
    """Its own, for it is stopped; default deny."""
    async with ConsulAgent(work_dir / "consul", persistent=True, default_intention_policy="deny") as started:
        await Links(started, GATEWAY).add(SERVICE, backend.port)
        await started.write_intention(SOURCE, SERVICE)
        yield started


async def reasons(gateway: Gateway) -> set[str]:
    return {record["reason"] for record in gateway.access_records()}


async def test_a_state_that_is_too_old_lets_nobody_new_in(agent: ConsulAgent, work_dir: Path) -> None:
    async with Gateway(agent, work_dir, GATEWAY, arguments=[f"--max-state-age={MAXIMUM_S:g}"]) as gateway:
        await serves(gateway, SERVICE)
        client = await MeshClient.of(agent, SOURCE)
        async with await dial(client, gateway, SERVICE) as live:
            assert await live.exchange(b"before") == b"before"
            agent.pause()
            await kept_out(client, gateway, SERVICE, 60.0)
            assert await live.exchange(b"during") == b"during"
            status, metrics = await gateway.status(), await gateway.metrics()
            assert status["too_old"]
            assert status["state_age_s"] > MAXIMUM_S
            assert sample(metrics, "consul_tgw_state_too_old") == 1
            assert sample(metrics, "consul_tgw_fact_age_seconds", kind="intentions") > 0

            async def logged() -> bool:
                return "stale_state" in await reasons(gateway)

            await eventually(logged, what="the refusal is in the access log")
            agent.resume()
            await let_in(client, gateway, SERVICE)
            assert await live.exchange(b"after") == b"after"
            assert not (await gateway.status())["too_old"]
        # The clock of the workers goes on when nobody is there to tell them anything.
        await gateway.kill_control()
        await kept_out(client, gateway, SERVICE, 60.0)
        await gateway.start()
        await let_in(client, gateway, SERVICE)


async def test_everything_is_confirmed_soon_after_consul_is_back(agent: ConsulAgent, work_dir: Path) -> None:
    async with Gateway(agent, work_dir, GATEWAY) as gateway:
        await serves(gateway, SERVICE)
        client = await MeshClient.of(agent, SOURCE)
        await agent.kill()

        async def away() -> bool:
            return bool((await gateway.status())["consul_away"])

        await eventually(away, what="the gateway knows that Consul is away")
        outage_s = time.monotonic() + 6.0
        await eventually(lambda: time.monotonic() > outage_s)
        await let_in(client, gateway, SERVICE)
        await agent.start()
        back_s = time.monotonic()

        async def confirmed() -> bool:
            status = await gateway.status()
            # The entry, the intentions and the rest were answered after the return.
            age_s = time.monotonic() - back_s
            return not status["consul_away"] and status["state_age_s"] < age_s + 5.0 and not problems(status)

        await eventually(confirmed, what="everything is confirmed again")
        took_s = time.monotonic() - back_s
        assert took_s < 3.0 * SCALE


def problems(status: dict[str, object]) -> list[str]:
    watches = status["watches"]
    assert isinstance(watches, list)
    return [watch["name"] for watch in watches if watch["problem"]]
