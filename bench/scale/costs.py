"""What processes cost: processor time to the nanosecond, memory, connections to the agent. From Linux's /proc."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from bench import accounting

_ESTABLISHED = "01"


def cpu_ms(pids: Collection[int]) -> float:
    """Milliseconds that the threads which run now have spent on a processor (``schedstat``, first field)."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int(path.read_text().split()[0])
    return total / 1e6


def memory_mib(pids: Collection[int]) -> float:
    """Proportional set size."""
    return accounting.memory(pids).pss / 2**20


def connections_to(port: int, pids: Collection[int]) -> int:
    """Established connections of these processes to a port on 127.0.0.1."""
    own: set[str] = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(path.readlink())
                if target.startswith("socket:["):
                    own.add(target[len("socket:[") : -1])
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        count += fields[3] == _ESTABLISHED and int(fields[2].split(":")[1], 16) == port and fields[9] in own
    return count


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of processor time."""

    gateway: float
    agent: float

    def minus(self, other: Cost, times: float = 1.0) -> Cost:
        """Never below nothing: what is subtracted is an average."""
        return Cost(max(0.0, self.gateway - other.gateway * times), max(0.0, self.agent - other.agent * times))

    def over(self, number: float) -> Cost:
        return Cost(self.gateway / number, self.agent / number)


class Meter:
    """Measures a gateway's processes and the agent's from when it is made."""

    def __init__(self, gateway: Callable[[], Collection[int]], agent: int) -> None:
        self._gateway, self._agent = gateway, agent
        self._began_s = time.monotonic()
        self._before = self._now()

    def _now(self) -> Cost:
        return Cost(cpu_ms(self._gateway()), cpu_ms([self._agent]))

    @property
    def passed_s(self) -> float:
        return time.monotonic() - self._began_s

    def read(self) -> Cost:
        return self._now().minus(self._before)
