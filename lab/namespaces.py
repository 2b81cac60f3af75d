"""One host of the lab: namespaces of its own for network, files, name and processes.

Its first process is ``host.sh``. The kernel ends it when we end, however that happens, and everything in the host with
it: processes, mounts and network devices have no names outside, so nothing can be left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from plugin.dev import processes
from plugin.dev.processes import Child, Launcher, dies_with_us
from plugin.errors import StartError

T = TypeVar("T")

_INIT = Path(__file__).resolve().parent / "host.sh"
_UNSHARE = ("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STOP_DEADLINE_S = 30.0
RUN_DEADLINE_S = 120.0
"""How long a command in a host may take: a script waits for Consul by itself, and says what it has waited for."""


class Inside:
    """A way into a host that runs, by its first process."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        """Of its first process, as it is seen from here."""

    def command(self, *command: str) -> list[str]:
        """``command``, to be run in the host, and ended with whoever runs it: `nsenter` stays as its parent."""
        return ["nsenter", f"--target={self.pid}", "--all", "--", *dies_with_us(command)]

    async def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        input_text: str = "",
        deadline_s: float = RUN_DEADLINE_S,
    ) -> str:
        """What ``command`` writes on standard output; ``environment`` is added to a plain one.

        :raises StartError: with its output, when it fails or takes longer than ``deadline_s`` seconds.
        """
        return await processes.run(
            self.command(*command),
            environment=plain_environment() | dict(environment or {}),
            input_text=input_text,
            deadline_s=deadline_s,
        )

    async def control(self, service: str, verb: str) -> None:
        """``start``, ``stop``, ``restart`` or ``kill`` a service that a script has made. :raises StartError:"""
        if verb == "kill":
            await self.run("sv", "kill", f"/etc/sv/{service}")
        else:
            await self.run("sv", "-w", "60", verb, f"/etc/sv/{service}")

    def power_off(self) -> None:
        """End everything in it at once, as losing the machine would."""
        os.kill(self.pid, signal.SIGKILL)


class Namespaces(Launcher):
    """Makes a host, without any network yet, and ends it."""

    def __init__(self, name: str, folder: Path, shared: Sequence[Path] = ()) -> None:
        """``folder`` is the host's own; ``shared`` are there in the host too, wherever they are mounted from."""
        self.name = name
        self._folder = folder
        self._shared = [str(path) for path in shared]
        self._child: Child | None = None

    async def start(self) -> None:
        """:raises StartError: with what could not be done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        ready = self._folder / "ready"
        ready.unlink(missing_ok=True)
        self._child = Child(
            self.name,
            [*_UNSHARE, "bash", str(_INIT), str(self._folder), self.name, *self._shared],
            self._folder / "host.log",
            environment=plain_environment(),
        )
        await self._child.started(lambda: ready.exists() and ready.read_text() == "ready\n")

    async def stop(self) -> None:
        """Returns when nothing of it is left."""
        if self._child is None:
            return
        first = None
        with contextlib.suppress(StartError):
            first = self.inside().pid
        await self._child.kill()
        self._child = None
        if first is not None:
            # The kernel ends all others before the first process is a zombie: pid_namespaces(7).
            await processes.wait_until(lambda: _has_ended(first), _STOP_DEADLINE_S, what=f"{self.name} has ended")

    def inside(self) -> Inside:
        """:raises StartError: when it does not run."""
        if self._child is not None:
            # The one child of `unshare` is the first process of the host.
            children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children")
            try:
                return Inside(self.name, int(children.read_text().split()[0]))
            except (OSError, IndexError):
                pass
        raise StartError(f"the host {self.name} does not run")


def _has_ended(pid: int) -> bool:
    try:
        # proc(5): the state comes after the command, which is in parentheses and may hold spaces.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def plain_environment() -> dict[str, str]:
    """What a host's processes get of ours: nothing."""
    return {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"}


async def together(*work: Awaitable[T]) -> list[T]:
    """The results of all, which go on at the same time; raises what the first raises, and gives the others up."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_coroutine(one)) for one in work]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _coroutine(one: Awaitable[T]) -> T:
    return await one
