"""Children that cannot outlive us, waiting with deadlines, and free ports on loopback.

Knows nothing of what the programs are. A :class:`Child` is not bound to an event loop, so that one fixture's agent
can serve tests that each run a loop of their own.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import fcntl
import functools
import inspect
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from plugin.errors import StartError

START_DEADLINE_S = 60.0
"""How long a real part may take to become usable: a loaded two-core machine with cold caches needs its share."""

_TAIL_BYTES = 4096
_POLL_S = 0.05


class Child:
    """A running program: its own session, its output in a log file, killed by the kernel when we die."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        user: str | None = None,
    ) -> None:
        """Start it. ``environment`` replaces ours; ``user`` needs root. :raises StartError: when it cannot start."""
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    dies_with_us(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env=environment,
                    user=user,
                    group=user,
                    extra_groups=[] if user else None,
                    start_new_session=True,
                )
            except OSError as error:
                raise StartError(f"cannot start {name} ({command[0]}): {error.strerror}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """``None`` while it runs; negative: ended by that signal."""
        return self._process.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """To its whole process group, which is its own; nothing happens when it has ended."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def pause(self) -> None:
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    async def terminate(self, deadline_s: float = 10.0, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End it: politely, and after ``deadline_s`` seconds for certain."""
        self.send_signal(with_signal)
        self.resume()
        try:
            await wait_until(self._has_ended, deadline_s, what=f"{self.name} has ended")
        except StartError:
            await self.kill()

    async def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        await wait_until(self._has_ended, START_DEADLINE_S, what=f"{self.name} has been killed")

    def _has_ended(self) -> bool:
        return self.exit_code is not None

    def log_tail(self) -> str:
        """The end of what it printed."""
        with contextlib.suppress(FileNotFoundError), self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return log.read().decode(errors="replace").strip()
        return ""

    async def started(self, ready: Callable[[], object], deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until ``ready`` says so. :raises StartError: with the log's tail, when it ends or takes too long."""

        async def ready_or_ended() -> object:
            return self._has_ended() or await _answer(ready)

        try:
            await wait_until(ready_or_ended, deadline_s, what=f"{self.name} is ready")
        except StartError as error:
            raise StartError(f"{error}; the end of {self.log_path}:\n{self.log_tail()}") from error
        if self._has_ended():
            ended = f"{self.name} ended with {self.exit_code} while starting"
            raise StartError(f"{ended}; the end of {self.log_path}:\n{self.log_tail()}")

    def cpu_s(self) -> float:
        """Seconds of processor time so far, user and system. :raises ProcessLookupError: when it has ended."""
        # proc(5): the command in parentheses may hold spaces; fields 14 and 15 are utime and stime.
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Resident set size. :raises ProcessLookupError: when it has ended."""
        return int(self._proc("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _proc(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text()
        except FileNotFoundError as error:
            raise ProcessLookupError(f"{self.name} (process {self.pid}) has ended") from error


class Launcher(abc.ABC):
    """Something that is started and stopped; ``async with`` does both."""

    @abc.abstractmethod
    async def start(self) -> None: ...

    @abc.abstractmethod
    async def stop(self) -> None: ...

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


def dies_with_us(command: Sequence[str]) -> list[str]:
    """``command``, to be killed by the kernel when the thread that starts it ends.

    util-linux's ``setpriv`` asks for that and becomes the command: the process id stays. A ``preexec_fn`` could ask
    too, but runs Python between fork and exec, which is a deadlock where there are threads.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StartError("no setpriv on PATH: install util-linux")
    return [setpriv, "--pdeathsig", "KILL", "--", *command]


async def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    input_text: str = "",
    user: str | None = None,
    deadline_s: float = START_DEADLINE_S,
) -> str:
    """Run ``command`` to its end and return what it wrote on standard output.

    :raises StartError: with its output, when it cannot start, fails or takes longer than ``deadline_s`` seconds.
    """
    shown = " ".join(command)
    try:
        process = await asyncio.create_subprocess_exec(
            *dies_with_us(command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env=environment,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            start_new_session=True,
        )
    except OSError as error:
        raise StartError(f"cannot start `{shown}`: {error.strerror}") from error
    try:
        async with asyncio.timeout(deadline_s):
            output, errors = await process.communicate(input_text.encode())
    except TimeoutError as error:
        raise StartError(f"`{shown}` has not ended within {deadline_s:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        said = (errors + output).decode(errors="replace").strip()
        raise StartError(f"`{shown}` ended with {process.returncode}: {said}")
    return output.decode()


async def _answer(predicate: Callable[[], object]) -> object:
    answer = predicate()
    return await answer if inspect.isawaitable(answer) else answer


async def wait_until(
    predicate: Callable[[], object], deadline_s: float, *, what: str, every_s: float = _POLL_S
) -> None:
    """Ask ``predicate``, plain or async, until it answers something true.

    :raises StartError: when that takes longer than ``deadline_s`` seconds; ``what`` says what was waited for.
    """
    give_up_at = time.monotonic() + deadline_s
    while not await _answer(predicate):
        if time.monotonic() >= give_up_at:
            raise StartError(f"waited {deadline_s:.0f} s in vain until {what}")
        await asyncio.sleep(every_s)


_handed_out: set[int] = set()


def free_ports(count: int) -> list[int]:
    """``count`` different TCP ports that nothing uses on loopback, and that no other process of this user is given.

    From below the kernel's ephemeral range: out of it, any outgoing connection could take a port between this answer
    and its use.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    low, high = (10_000, first_ephemeral) if first_ephemeral > 20_000 else (first_ephemeral, 60_000)
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(low, high)
        if port not in _handed_out and _reserve(port) and _can_bind(port):
            _handed_out.add(port)
            ports.append(port)
    return ports


@functools.cache
def _reservations() -> int:
    """A descriptor of the file whose byte N is locked by the process that was given port N, for as long as it lives.

    Two runs of tests beside each other would else be given the same port now and then, between the look and the use.
    """
    path = Path(tempfile.gettempdir()) / f"consul-tgw-ports-{os.geteuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _reserve(port: int) -> bool:
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _can_bind(port: int) -> bool:
    # Consul's gossip uses the same number for UDP.
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def can_connect(address: str, port: int) -> bool:
    """Whether something listens there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1.0):
        return True
    return False
