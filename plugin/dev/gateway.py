"""A gateway of this project as a child process, started as an operator starts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.processes import START_DEADLINE_S, Child, Launcher, can_connect, free_ports
from plugin.errors import StartError

_ADMIN_TIMEOUT_S = 10.0


class Gateway(Launcher):
    """``consul-tgw run`` against ``agent``; its access log is a file in ``work_dir``."""

    def __init__(
        self,
        agent: ConsulAgent,
        work_dir: Path,
        name: str = "terminating-gateway",
        *,
        port: int | None = None,
        admin_port: int | None = None,
        workers: int = 1,
        token: str | None = None,
        drain_timeout_s: float = 2.0,
        drain_delay_s: float = 0.0,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        bound_port: int | None = None,
        choose_access_log: bool = True,
    ) -> None:
        """``bound_port`` is a port it listens on, if ``port`` is not; without ``choose_access_log``, proxy-defaults say
        where the access log is."""
        self.agent = agent
        self.name = name
        self.address = "127.0.0.1"
        self.port = port or free_ports(1)[0]
        self._bound_port = bound_port or self.port
        self._choose_access_log = choose_access_log
        self.admin_port = admin_port or free_ports(1)[0]
        self.workers = workers
        self.access_log_path = work_dir / f"{name}.access.log"
        self.child: Child | None = None
        self._work_dir = work_dir
        self._token = token
        self._drain_timeout_s = drain_timeout_s
        self._drain_delay_s = drain_delay_s
        self._arguments = list(arguments)
        self._environment = dict(environment or {})
        self._orphans: set[int] = set()

    @property
    def log_path(self) -> Path:
        return self._work_dir / f"{self.name}.log"

    async def start(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Start it and wait until it is ready. :raises StartError: with the log's tail."""
        self._work_dir.mkdir(parents=True, exist_ok=True)
        self.child = Child(
            f"gateway {self.name}",
            self._command(),
            self.log_path,
            environment=self.agent.cli_environment(self._token) | self._environment,
            folder=Path(__file__).parents[2],
        )
        await self.child.started(self.is_ready, deadline_s)

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "plugin", "run", f"--service={self.name}"]
        command += [f"--address={self.address}:{self.port}", f"--admin-address=127.0.0.1:{self.admin_port}"]
        command += [f"--workers={self.workers}"]
        if self._choose_access_log:
            command.append(f"--access-log={self.access_log_path}")
        command += [f"--drain-delay={self._drain_delay_s}", f"--drain-timeout={self._drain_timeout_s}"]
        command += ["--drain-window=0", f"--runtime-dir={self._work_dir / 'run'}"]
        return command + self._arguments

    async def stop(self) -> None:
        """As an operator does: drain, leave Consul, end."""
        if self.child is not None:
            await self.child.terminate(self._drain_delay_s + self._drain_timeout_s + 15)
            self.child = None

        self._end_orphans()

    async def kill_control(self) -> None:
        """As a crash ends the control process: its workers serve on, until :meth:`stop` or a successor."""
        if self.child is not None:
            self._orphans.update(self.worker_pids())
            await self.child.kill()
            self.child = None

    def _end_orphans(self) -> None:
        for pid in self._orphans:
            if b"proxy" in _command_line(pid):
                os.kill(pid, signal.SIGKILL)
        self._orphans.clear()

    async def is_ready(self) -> bool:
        try:
            status, _ = await self._get("/ready")
        except StartError:
            return False
        return status == 200 and await asyncio.to_thread(can_connect, self.address, self._bound_port)

    async def status(self) -> dict[str, Any]:
        """What ``/api/status`` answers. :raises StartError: when it does not."""
        _, text = await self._get("/api/status")
        decoded: dict[str, Any] = json.loads(text)
        return decoded

    async def connections(self) -> dict[str, Any]:
        """The first page of ``/api/connections``: live connections, with the worker that carries each."""
        _, text = await self._get("/api/connections")
        decoded: dict[str, Any] = json.loads(text)
        return decoded

    async def snapshot(self) -> dict[str, Any]:
        """What the workers have, as ``/api/snapshot`` answers."""
        _, text = await self._get("/api/snapshot")
        decoded: dict[str, Any] = json.loads(text)
        return decoded

    async def metrics(self) -> str:
        """What ``/metrics`` answers, Prometheus text."""
        return (await self._get("/metrics"))[1]

    def access_records(self) -> list[dict[str, Any]]:
        """Every line of the access log that is complete by now, oldest first."""
        if not self.access_log_path.exists():
            return []
        whole_lines = self.access_log_path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in whole_lines]

    def worker_pids(self) -> list[int]:
        """The processes of the data plane that this control process has started."""
        if self.child is None:
            return []
        return [pid for pid in children_of(self.child.pid) if b"proxy" in _command_line(pid)]

    async def _get(self, path: str) -> tuple[int, str]:
        address = f"http://127.0.0.1:{self.admin_port}{path}"
        timeout = aiohttp.ClientTimeout(total=_ADMIN_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(address) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StartError(f"no answer from {address}: {error}") from error


def children_of(pid: int) -> list[int]:
    """Process IDs of the direct children that live."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(text) for text in path.read_text().split()] if path.exists() else []


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
