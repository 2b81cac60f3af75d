"""The lab as a whole: makes the hosts, connects them, runs on them what the plan says, and ends it all."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import network, plan, programs
from lab.namespaces import Inside, Namespaces, together
from lab.plan import Step
from lab.topology import Federation, Topology
from plugin.dev.processes import Launcher
from plugin.errors import StartError

SWITCH = "switch"
_SCRIPT_DEADLINE_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A part of the work that has begun, or ended after ``seconds``."""

    what: str
    hosts: tuple[str, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Hosts that run, whoever keeps them."""

    topology: Topology
    federation: Federation
    hosts: dict[str, Inside]
    switch: Inside

    async def cut(self, name: str) -> None:
        """Let nothing through the network ``name``."""
        await network.cut(self.switch, name)

    async def restore(self, name: str) -> None:
        await network.restore(self.switch, name)


class Lab(Launcher):
    """Builds a lab; everything in it ends with it, or with this process."""

    def __init__(
        self,
        topology: Topology,
        federation: Federation,
        folder: Path,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """``folder`` gets secrets and the output of what fails; it is made, for root alone."""
        self.topology = topology
        self.federation = federation
        self.folder = folder
        self._report = report
        self._namespaces: dict[str, Namespaces] = {}

    async def start(self) -> None:
        """:raises StartError: when it cannot be built: with what failed where; the folder has the hosts' logs then."""
        require_root()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._reported("secrets"):
            await programs.make_secrets(self.topology, self.federation, self.folder / "hosts")
        with self._reported("hosts and networks", tuple(self.topology.hosts)):
            shared = programs.shared()
            for name in (SWITCH, *self.topology.hosts):
                self._namespaces[name] = Namespaces(name, self.folder / "hosts" / name, shared)
            await together(*(one.start() for one in self._namespaces.values()))
            running = self.running()
            await network.connect(self.topology, self.federation, running.switch, running.hosts)
        try:
            await self._provision()
        except StartError:
            await self.keep_logs()
            raise

    async def _provision(self) -> None:
        printed: dict[str, str] = {}
        for step in plan.steps(self.topology, self.federation):
            with self._reported(step.script, step.hosts):
                printed[step.script] = await self._run_step(step, printed.get(step.input_from, ""))

    async def _run_step(self, step: Step, input_text: str) -> str:
        """What it has printed on its one host, or on all of them."""
        return "".join(await together(*(self.script(host, step.script, input_text) for host in step.hosts)))

    async def script(self, host: str, script: str, input_text: str = "") -> str:
        """Run a script of ``vagrant/provision``, and return what it prints. :raises StartError:"""
        try:
            return await self.inside(host).run(
                str(plan.SCRIPTS / script),
                environment=plan.environment(self.topology, self.federation, host) | programs.environment(),
                input_text=input_text,
                deadline_s=_SCRIPT_DEADLINE_S,
            )
        except StartError as error:
            raise StartError(f"{script} on {host}: {error}") from error

    def inside(self, host: str) -> Inside:
        """:raises StartError: when that host does not run."""
        return self._namespaces[host].inside()

    def running(self) -> Running:
        """:raises StartError: when one of the hosts does not run."""
        return Running(
            topology=self.topology,
            federation=self.federation,
            hosts={name: self.inside(name) for name in self.topology.hosts},
            switch=self.inside(SWITCH),
        )

    async def stop(self) -> None:
        """End everything; the logs that were kept stay in the folder, secrets do not."""
        await together(*(one.stop() for one in self._namespaces.values()))
        self._namespaces = {}
        shutil.rmtree(self.folder / "hosts", ignore_errors=True)

    async def keep_logs(self) -> Path:
        """Copy what the hosts' programs have written to ``logs`` of the folder, which is returned."""
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        for name in self.topology.hosts:
            with contextlib.suppress(StartError):
                said = await self.inside(name).run("bash", "-c", "tail -n 2000 /var/log/lab/*.log 2>/dev/null || true")
                (logs / f"{name}.log").write_text(said)
        return logs

    @contextlib.contextmanager
    def _reported(self, what: str, hosts: tuple[str, ...] = ()) -> Iterator[None]:
        since = time.monotonic()
        self._report(Progress(what=what, hosts=hosts))
        yield
        self._report(Progress(what=what, hosts=hosts, seconds=time.monotonic() - since))


def require_root() -> None:
    """:raises StartError: when we are not root."""
    if os.geteuid() != 0:
        raise StartError(
            "not root: the lab makes network namespaces and mounts: run it as root, as with `sudo make lab`"
        )
