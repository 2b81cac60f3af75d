"""Checked streams through the real gateway on a real Consul while everything around them changes.

Both sides of each stream know every byte that has to come. The ledger knows which pair is allowed since when, by the
state that every worker has applied, and judges every connection: wrong or missing bytes, wrongly allowed, wrongly
closed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from plugin.process.tasks import spawn
from soak import chaos
from soak.invariants import Watch
from soak.ledger import Ledger
from soak.traffic import Traffic
from soak.world import World, running_world
from tests.support.eventually import SCALE, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

SEED = 20
FLIPS = 50
PUMPS, IDLE = 8, 20


@dataclass(frozen=True, kw_only=True)
class Stage:
    world: World
    traffic: Traffic
    watch: Watch
    chance: random.Random

    async def survives(self, fault: chaos.Fault, times: int = 1) -> None:
        """Let it happen under load, and the load go on for a while afterwards."""
        for _ in range(times):
            await fault(self.traffic, self.chance)
            assert self.ledger.violations == []
        await self.carries_on()
        assert self.ledger.violations == []

    async def carries_on(self) -> None:
        """Every kind of client gets on."""
        before = self.ledger.counts["rounds"]
        await eventually(lambda: self.ledger.counts["rounds"] > before + 4 * PUMPS, what="the streams go on")

    @property
    def ledger(self) -> Ledger:
        return self.world.ledger


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One gateway under load for all tests; its connections have to end properly after the last."""
    async with running_world(tmp_path_factory.mktemp("integrity"), Ledger()) as world:
        traffic, watch = Traffic(world, SEED), Watch(world)
        looking = spawn(watch.run(), name="watch")
        loads = [spawn(one, name="load") for one in traffic.all(pumps=PUMPS, idle=IDLE)]
        try:
            running = Stage(world=world, traffic=traffic, watch=watch, chance=random.Random(SEED))
            await running.carries_on()
            yield running
            traffic.stop()
            _, left = await asyncio.wait(loads, timeout=60 * SCALE)
            assert not left, "a client does not come to its end"
        finally:
            for task in (looking, *loads):
                task.cancel()
            await asyncio.gather(looking, *loads, return_exceptions=True)
        assert world.ledger.violations == []


async def test_fifty_changes_of_an_intention(stage: Stage) -> None:
    """Allowed streams never notice; denied ones end, and no byte sent after the denial was in force arrives."""
    await stage.survives(chaos.flip_intention, times=FLIPS)
    assert stage.ledger.counts["live connections ended by policy"] >= FLIPS
    assert stage.ledger.counts["refused"] > FLIPS


async def test_consul_is_killed_and_comes_back_with_its_state(stage: Stage) -> None:
    """While it reads its log again it knows an older policy, which must not be taken for the newest."""
    await stage.survives(chaos.kill_agent, times=3)


async def test_consul_is_stopped_in_place(stage: Stage) -> None:
    await stage.survives(chaos.stop_agent)


async def test_other_instances_while_those_before_carry_connections(stage: Stage) -> None:
    await stage.survives(chaos.churn_endpoints, times=5)


async def test_files_of_the_second_session_are_replaced(stage: Stage) -> None:
    await stage.survives(chaos.rotate_upstream_tls, times=2)


async def test_a_new_root_of_the_mesh(stage: Stage) -> None:
    before = {root["ID"] for root in await stage.world.roots()}
    await stage.survives(chaos.rotate_root)
    assert before < {root["ID"] for root in await stage.world.roots()}


async def test_a_service_is_unlinked_and_linked_again(stage: Stage) -> None:
    await stage.survives(chaos.relink, times=3)


async def test_the_control_process_is_killed(stage: Stage) -> None:
    """Nobody notices: the workers are taken over."""
    before = set(await stage.world.workers())
    lost = stage.ledger.counts["lost with their worker"]
    await stage.survives(chaos.restart_control)
    assert set(await stage.world.workers()) == before
    assert stage.ledger.counts["lost with their worker"] == lost


async def test_a_killed_worker_takes_only_its_own_connections_along(stage: Stage) -> None:
    """Its streams break, on both sides, and none of them looks finished."""
    before = stage.ledger.counts["lost with their worker"]
    await stage.survives(chaos.kill_worker, times=2)
    assert stage.ledger.counts["lost with their worker"] > before


async def test_leaves_are_renewed_by_age(stage: Stage) -> None:
    """They live for two minutes here."""
    await eventually(lambda: stage.watch.leaf_renewals > 0, 120.0, what="a leaf is renewed")
    await stage.carries_on()
    assert stage.ledger.violations == []
