"""A worker's operating-system process: start, watch, signal. Also of one that another control process started.

Only process ids and signals are handled here; what a worker is told is ``pool.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import proxy
from plugin.errors import StartError
from proxy import compiled

_POLL_S = 0.25
_INHERITED = re.compile(
    r"PATH|LANG|LC_[A-Z]+|TZ|TMPDIR|PYTHON[A-Z]+|LD_[A-Z_]+|GLIBC_TUNABLES|MALLOC_[A-Z_]+|OPENSSL_[A-Z]+|COVERAGE_[A-Z_]+"
)
"""Variables that change how an interpreter or a library runs."""
_ALLOCATOR = "glibc.malloc.tcache_count=127"
"""A TLS handshake takes some hundred small blocks and gives them back. With glibc's 7 of each size at hand most of them
go through the arena and its lock, which is two in a hundred of what a new connection costs; 127 is the most."""


def worker_command(identity: tuple[int, int] | None = None, *, debuggable: bool = False) -> tuple[str, ...]:
    """How the interpreter that runs us runs a worker; ``-P`` keeps the working directory off the import path.

    ``identity`` is the user and the group that it becomes before it serves.
    """
    command = [sys.executable, "-P", "-m", "proxy"]
    if identity is not None:
        command += [f"--user={identity[0]}", f"--group={identity[1]}"]
    if debuggable:
        command.append("--debuggable")
    return tuple(command)


def worker_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What an interpreter needs of ours, and nothing else: whatever secret we were started with, a worker has none."""
    kept = {"GLIBC_TUNABLES": _ALLOCATOR}
    kept |= {name: value for name, value in environment.items() if _INHERITED.fullmatch(name)}
    kept |= compiled.handed_on(environment)
    source_tree = str(Path(proxy.__file__).parent.parent)
    if source_tree not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (source_tree, kept.get("PYTHONPATH", ""))))
    return kept


def is_gone(pid: int) -> bool:
    """Ended, and perhaps not waited for (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def start(command: Sequence[str], control_fd: int, inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a worker that reads frames from ``control_fd``. :raises StartError: when it cannot be executed."""
    try:
        return subprocess.Popen(
            [*command, "--control-fd", str(control_fd)],
            pass_fds=(control_fd, *inherited),
            stdin=subprocess.DEVNULL,
            env=worker_environment(),
            # Ctrl-C in a terminal reaches the whole group; workers end by being told, not by that.
            start_new_session=True,
        )
    except OSError as error:
        raise StartError(f"cannot start a worker with {command[0]}: {error.strerror}") from error


class Process:
    """Tells once, through ``on_exit``, that the process has ended, with its exit code (``None``: not our child)."""

    def __init__(
        self, pid: int, on_exit: Callable[[int | None], None], child: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.pid = pid
        self._child = child
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._pidfd = -1
        self._timer: asyncio.TimerHandle | None = None
        self.exited = asyncio.Event()
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            # An old kernel, a sandbox that forbids it, or a process that is gone: ask now and then instead.
            self._timer = self._loop.call_later(0, self._poll)
        else:
            self._loop.add_reader(self._pidfd, self._ended)

    def signal(self, number: signal.Signals) -> None:
        if self.exited.is_set():
            return
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)

    def forget(self) -> None:
        """Stop watching; the process goes on."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        if self._gone():
            self._ended()
        else:
            self._timer = self._loop.call_later(_POLL_S, self._poll)

    def _gone(self) -> bool:
        if self._child is not None:
            return self._child.poll() is not None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def _ended(self) -> None:
        self.forget()
        code = self._child.wait() if self._child is not None else self._code_of_adopted()
        self.exited.set()
        self._on_exit(code)

    def _code_of_adopted(self) -> int | None:
        """After a reload, or as the first process of a container, it is our child all the same."""
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        return None
