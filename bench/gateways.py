"""The two gateways that are compared, seen alike: an address, a family of processes, start and stop."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Protocol

import aiohttp

from bench import accounting
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.processes import Child, free_ports

_PROJECT = Path(__file__).resolve().parent.parent
_ADMIN_TIMEOUT_S = 5.0


class Gateway(Protocol):
    """One gateway with one worker, pinned to its processors."""

    label: str
    name: str
    """Its service name: that of its terminating-gateway entry."""

    @property
    def address(self) -> str:
        """``ip:port`` where the mesh reaches it."""

    async def start(self) -> None:
        """Return when it serves what is linked to it."""

    async def stop(self) -> None: ...

    def processes(self) -> frozenset[int]:
        """Everything whose time and memory are its own."""


class EnvoyGateway:
    """``consul connect envoy -gateway=terminating``, with ``--concurrency 1``."""

    label = "Envoy"

    def __init__(self, agent: ConsulAgent, name: str, processors: frozenset[int]) -> None:
        self.name = name
        self._processors = processors
        self._launcher = EnvoyTerminatingGateway(agent, name, concurrency=1)

    @property
    def address(self) -> str:
        return f"{self._launcher.address}:{self._launcher.port}"

    async def start(self) -> None:
        await self._launcher.start()
        await self._launcher.listening()
        accounting.pin(self.processes(), self._processors)

    async def stop(self) -> None:
        await self._launcher.stop()

    def processes(self) -> frozenset[int]:
        return accounting.family(self._launcher.pid)


class OurGateway:
    """``consul-tgw run --workers 1``.

    Without an access log, as Envoy has none unless the operator asks for it in proxy-defaults.
    """

    label = "consul-tgw"

    def __init__(self, agent: ConsulAgent, name: str, processors: frozenset[int]) -> None:
        self.name = name
        self._agent = agent
        self._processors = processors
        self._port, self._admin_port = free_ports(2)
        self._child: Child | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        runtime_dir = self._agent.work_dir / f"{self.name}.runtime"
        runtime_dir.mkdir(mode=0o700, exist_ok=True)
        self._child = Child(
            self.label,
            [
                *(sys.executable, "-m", "plugin", "run"),
                f"--service={self.name}",
                f"--address={self.address}",
                f"--admin-address=127.0.0.1:{self._admin_port}",
                "--workers=1",
                "--access-log=off",
                "--drain-timeout=1",
                f"--runtime-dir={runtime_dir}",
            ],
            self._agent.work_dir / f"{self.name}.log",
            environment=self._agent.cli_environment(),
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

    async def worker_pids(self) -> list[int]:
        """The processes that carry connections."""
        answer = json.loads(await self._admin("/api/status") or "{}")
        return [int(worker["pid"]) for worker in answer.get("workers", [])]

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
