"""What the kernel grants a running process, and what it has used."""

from __future__ import annotations

import itertools
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def descriptors_left(pid: int, count: int) -> Iterator[None]:
    """The process ``pid`` may open ``count`` descriptors more."""
    listed = list(Path(f"/proc/{pid}/fd").iterdir())
    # Of this process itself, the list had one more: its own.
    used = {int(entry.name) for entry in listed if entry.is_symlink()}
    free = (number for number in itertools.count() if number not in used)
    with _limited(pid, next(itertools.islice(free, count, None))):
        yield


@contextmanager
def no_new_descriptors(pid: int) -> Iterator[None]:
    """The process ``pid`` may open nothing, whatever it closes."""
    with _limited(pid, 3):
        yield


@contextmanager
def _limited(pid: int, limit: int) -> Iterator[None]:
    former = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, former[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, former)


def runnable_s(pid: int) -> float:
    """How long the first thread of ``pid`` has run or waited for a processor so far (proc(5), ``schedstat``).

    What spins is always one or the other, however busy the machine is.
    """
    running_ns, waiting_ns, _ = map(int, Path(f"/proc/{pid}/schedstat").read_text().split())
    return (running_ns + waiting_ns) / 1e9


def cpu_s(pid: int) -> float:
    """Processor time of all threads of ``pid`` so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
