"""Processor time, memory and placement of processes, from Linux's /proc.

A gateway may be several processes: figures are sums over a process and its descendants.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from plugin.errors import StartError

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, summed over processes."""

    rss: int
    """Resident; pages that processes share are counted for each."""
    pss: int
    """Resident; a shared page is divided among those who share it."""


def family(pid: int) -> frozenset[int]:
    """``pid`` and its descendants that run now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found, waiting = set(), [pid]
    while waiting:
        current = waiting.pop()
        found.add(current)
        waiting += children.get(current, [])
    return frozenset(found)


def cpu_s(pids: Collection[int]) -> float:
    """User and system seconds that all threads of ``pids``, also ended ones, have used.

    :raises StartError: when one of them has ended: its time would be missing.
    """
    ticks = 0
    for pid in pids:
        try:
            fields = _stat(pid)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise StartError(f"process {pid} of a gateway ended while it was measured: see its log") from error
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def thread_s(pids: Collection[int]) -> dict[int, float]:
    """The same for each thread that lives."""
    found = {}
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = _fields((thread / "stat").read_text())
                found[int(thread.name)] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return found


def memory(pids: Collection[int]) -> Memory:
    rss = pss = 0
    for pid in pids:
        kibibytes = {}
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            kibibytes[name] = int(value.split()[0])
        rss += kibibytes["Rss"] * 1024
        pss += kibibytes["Pss"] * 1024
    return Memory(rss, pss)


@dataclass(frozen=True, slots=True)
class Placement:
    """Which processors the gateway under test gets, and which everything else."""

    gateway: frozenset[int]
    others: frozenset[int]

    @classmethod
    def choose(cls, usable: Collection[int]) -> Placement:
        """The last processor for the gateway, when there are two or more; else nobody is kept apart."""
        if len(usable) < 2:
            return cls(frozenset(usable), frozenset(usable))
        last = max(usable)
        return cls(frozenset({last}), frozenset(usable) - {last})

    def __str__(self) -> str:
        gateway, others = (",".join(map(str, sorted(side))) for side in (self.gateway, self.others))
        return f"gateway on CPU {gateway}, client and external service on CPU {others}"


def pin(pids: Collection[int], processors: frozenset[int]) -> None:
    """Keep every thread of ``pids``, and what they start from now on, on ``processors``."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), processors)


def allow_descriptors(count: int) -> int:
    """Let this process and its children have ``count`` open files, or as many as may be: how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in ((count, max(count, hard)), (min(count, hard), hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted[0], soft), wanted[1]))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def processor_model() -> str:
    """As the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return os.uname().machine


def _stat(pid: int) -> list[str]:
    return _fields(Path(f"/proc/{pid}/stat").read_text())


def _fields(stat: str) -> list[str]:
    # proc(5): the command in parentheses may hold spaces; what follows starts with the state, field 3.
    return stat.rpartition(")")[2].split()
