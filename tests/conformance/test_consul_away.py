"""Consul is away, or comes back as another one: who is carried meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from plugin.dev.consul_agent import ConsulAgent
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import Stand
from tests.support.eventually import SCALE, eventually
from tests.support.mesh_client import MeshConnection, Refused

TOPIC = "Consul away"
_PATIENCE_S = 120.0


class Together:
    """Lets the two runs of a case do something to the Consul that they share, once, when both are ready for it."""

    def __init__(self) -> None:
        self._barrier: asyncio.Barrier | None = None

    async def do(self, what: Callable[[], Awaitable[Any]]) -> None:
        if self._barrier is None:
            self._barrier = asyncio.Barrier(2)
        async with asyncio.timeout(_PATIENCE_S * SCALE):
            if await self._barrier.wait() == 0:
                await what()
            await self._barrier.wait()


async def _carries(connection: MeshConnection) -> str:
    try:
        return "echo" if await connection.exchange(b"ping") == b"ping" else "garbled"
    except Refused:
        return "ended"


async def _pause(agent: ConsulAgent) -> None:
    agent.pause()


async def _resume(agent: ConsulAgent) -> None:
    agent.resume()


_stopped, _resumed = Together(), Together()


@conformance(
    TOPIC,
    "While the agent's process is stopped, live and new connections are carried and the denied ones are not",
    expect={"live": "echo", "new": "echo", "denied": "refused", "after it is back": "refused"},
    own_consul={"acl": False},
)
async def test_agent_stopped(stand: Stand) -> Observation:
    await stand.offer()
    await stand.intention("cron", "db", "deny")
    await stand.kept_out("cron")
    await stand.server_name("db")
    await stand.client("cron")
    async with stand.dial("web", "db") as live:
        await _carries(live)
        await _stopped.do(lambda: _pause(stand.agent))
        seen = {"live": await _carries(live), "new": await stand.outcome(), "denied": await stand.outcome("cron")}
    await _resumed.do(lambda: _resume(stand.agent))
    await stand.intention("web", "db", "deny")
    await stand.kept_out()
    return {**seen, "after it is back": await stand.outcome()}


_killed, _emptied = Together(), Together()


@conformance(
    TOPIC,
    "An agent that comes back with all its data gone takes no link away and lets nobody in who was denied",
    expect={
        "killed": {"live": "echo", "allowed": "echo", "denied": "refused"},
        "back and empty": {"live": "echo", "allowed": "echo", "denied": "refused"},
    },
    own_consul={"acl": False},
)
async def test_agent_restarted_empty(stand: Stand) -> Observation:
    await stand.offer()
    await stand.intention("cron", "db", "deny")
    await stand.kept_out("cron")
    await stand.server_name("db")
    async with stand.dial("web", "db") as live:

        async def seen() -> dict[str, str]:
            denied = await stand.outcome("cron")
            return {"live": await _carries(live), "allowed": await stand.outcome(), "denied": denied}

        await _carries(live)
        await _killed.do(stand.agent.kill)
        killed = await seen()
        await _emptied.do(stand.agent.start)
        # Longer than it takes either gateway to ask the new agent everything.
        began_s = asyncio.get_running_loop().time()
        await eventually(lambda: asyncio.get_running_loop().time() - began_s > 8.0)
        return {"killed": killed, "back and empty": await seen()}
