"""The two gateways that are compared, seen alike: an address, a family of processes, start and stop."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Protocol

import aiohttp

from bench import accounting
from bench.figures import ENVOY, OURS
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.processes import Child, free_ports

_PROJECT = Path(__file__).resolve().parent.parent
_ADMIN_TIMEOUT_S = 5.0
_MAX_CONNECTIONS = 20_000
"""For each worker: more than any workload has."""


class Gateway(Protocol):
    """One gateway, pinned to its processors."""

    label: str
    name: str
    """Its service name: that of its terminating-gateway entry."""
    linked: bool
    """Whether everything is linked to it in Consul; the others serve one service of each kind."""

    def address(self, behaviour: str) -> str:
        """``ip:port`` where the mesh reaches the service behind it."""

    def carries(self, behaviour: str) -> bool:
        """Whether it does what that service needs."""

    async def start(self) -> None:
        """Return when it serves what is linked to it."""

    async def stop(self) -> None: ...

    def processes(self) -> frozenset[int]:
        """Everything whose time and memory are its own."""


class EnvoyGateway:
    """``consul connect envoy -gateway=terminating``, with as many workers (``--concurrency``)."""

    label = ENVOY
    linked = True

    def __init__(self, agent: ConsulAgent, name: str, processors: frozenset[int], *, workers: int = 1) -> None:
        self.name = name
        self._processors = processors
        self._launcher = EnvoyTerminatingGateway(agent, name, concurrency=workers)

    def address(self, behaviour: str) -> str:
        return f"{self._launcher.address}:{self._launcher.port}"

    def carries(self, behaviour: str) -> bool:
        return True

    async def start(self) -> None:
        await self._launcher.start()
        await self._launcher.listening()
        accounting.pin(self.processes(), self._processors)

    async def stop(self) -> None:
        await self._launcher.stop()

    def processes(self) -> frozenset[int]:
        return accounting.family(self._launcher.pid)


def own_settings() -> dict[str, str]:
    """What our environment says to this gateway; the agent leaves it out together with what it says to Consul."""
    return {name: value for name, value in os.environ.items() if name.startswith("CONSUL_TGW_")}


class OurGateway:
    """``consul-tgw run``, with as many workers.

    Without an access log, as Envoy has none unless the operator asks for it in proxy-defaults.
    """

    label = OURS
    linked = True

    def __init__(self, agent: ConsulAgent, name: str, processors: frozenset[int], *, workers: int = 1) -> None:
        self.name = name
        self._workers = workers
        self._agent = agent
        self._processors = processors
        self._port, self._admin_port = free_ports(2)
        self._child: Child | None = None

    def address(self, behaviour: str) -> str:
        return f"127.0.0.1:{self._port}"

    def carries(self, behaviour: str) -> bool:
        return True

    async def start(self) -> None:
        runtime_dir = self._agent.work_dir / f"{self.name}.runtime"
        runtime_dir.mkdir(mode=0o700, exist_ok=True)
        self._child = Child(
            self.label,
            [
                *(sys.executable, "-m", "plugin", "run"),
                f"--service={self.name}",
                f"--address=127.0.0.1:{self._port}",
                f"--admin-address=127.0.0.1:{self._admin_port}",
                f"--workers={self._workers}",
                f"--max-connections={_MAX_CONNECTIONS * self._workers}",
                "--access-log=off",
                "--drain-timeout=1",
                f"--runtime-dir={runtime_dir}",
            ],
            self._agent.work_dir / f"{self.name}.log",
            environment={**self._agent.cli_environment(), **own_settings()},
            folder=_PROJECT,
        )
        await self._child.started(self._is_ready)
        accounting.pin(self.processes(), self._processors)

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.terminate()
            self._child = None

    def processes(self) -> frozenset[int]:
        assert self._child is not None
        return accounting.family(self._child.pid)

    async def _is_ready(self) -> bool:
        return await self._admin("/ready") is not None

    async def _admin(self, path: str) -> str | None:
        timeout = aiohttp.ClientTimeout(total=_ADMIN_TIMEOUT_S)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://127.0.0.1:{self._admin_port}{path}") as answer,
            ):
                if answer.status == 200:
                    return await answer.text()
        return None
