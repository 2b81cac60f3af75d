"""The two gateways, seen alike by what is measured here: start until everything is served, processes, an address."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection
from typing import Protocol

from bench import accounting
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.gateway import Gateway
from plugin.dev.processes import free_ports
from plugin.errors import StartError

READY_DEADLINE_S = 240.0
_LOOK_EACH_S = 0.2


class Subject(Protocol):
    label: str
    name: str
    """Of its terminating-gateway entry."""
    host: str
    port: int

    async def start(self, services: int) -> None:
        """Return when it says that it serves as many. :raises StartError: after ``READY_DEADLINE_S``."""

    async def stop(self) -> None: ...

    def processes(self) -> Collection[int]: ...

    def memory(self) -> dict[str, float]:
        """MiB by what it is of."""


class Ours:
    label = "consul-tgw"

    def __init__(self, agent: ConsulAgent, name: str, workers: int = 1) -> None:
        self.name = name
        self.host = "127.0.0.1"
        self.gateway = Gateway(
            agent,
            agent.work_dir / name,
            name,
            workers=workers,
            choose_access_log=False,
            arguments=["--access-log=off"],
        )
        self.port = self.gateway.port

    async def start(self, services: int) -> None:
        began_s = time.monotonic()
        await self.gateway.start(READY_DEADLINE_S)
        while await self._served() < services:
            await _wait(began_s, f"{self.label} serves {services} services")

    async def _served(self) -> int:
        """A look at the metrics costs the gateway something, and is only taken once it is ready."""
        with contextlib.suppress(StartError):
            if await self.gateway.is_ready():
                return sum(one["served"] for one in (await self.gateway.status())["services"])
        return -1

    async def stop(self) -> None:
        await self.gateway.stop()

    def processes(self) -> Collection[int]:
        assert self.gateway.child is not None
        return accounting.family(self.gateway.child.pid)

    def memory(self) -> dict[str, float]:
        assert self.gateway.child is not None
        control, workers = [self.gateway.child.pid], self.gateway.worker_pids()
        return {
            "control process": accounting.memory(control).pss / 2**20,
            "worker": accounting.memory(workers).pss / 2**20 / max(1, len(workers)),
        }


class Envoys:
    label = "Envoy"

    def __init__(self, agent: ConsulAgent, name: str) -> None:
        self.name = name
        self.host = "127.0.0.1"
        self.port = free_ports(1)[0]
        self._envoy = EnvoyTerminatingGateway(
            agent, name, self.host, self.port, concurrency=1, live_deadline_s=READY_DEADLINE_S
        )

    async def start(self, services: int) -> None:
        """Live, with a listener, and with a cluster for each service."""
        began_s = time.monotonic()
        await self._envoy.start()
        await self._envoy.listening(READY_DEADLINE_S)
        while await self._clusters() < services:
            await _wait(began_s, f"{self.label} has {services} clusters")

    async def _clusters(self) -> int:
        text = await self._envoy.admin("/stats?filter=^cluster_manager.active_clusters$")
        return int(text.partition(":")[2] or 0)

    async def stop(self) -> None:
        await self._envoy.stop()

    def processes(self) -> Collection[int]:
        return accounting.family(self._envoy.pid)

    def memory(self) -> dict[str, float]:
        return {"Envoy": accounting.memory(self.processes()).pss / 2**20}


async def _wait(began_s: float, what: str) -> None:
    if time.monotonic() - began_s > READY_DEADLINE_S:
        raise StartError(f"waited {READY_DEADLINE_S:.0f} s in vain until {what}")
    await asyncio.sleep(_LOOK_EACH_S)
