"""Processor time, memory and placement of processes, of this one and its children."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from bench import accounting
from bench.accounting import Placement
from plugin.errors import StartError

# The parent works until the kernel, which counts in hundredths of a second, has noticed.
_FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
while time.process_time() < 0.1:
    pass
print(child.pid, flush=True)
sys.stdin.read()
child.communicate()
"""


@pytest.fixture
def parent_and_child() -> Iterator[tuple[int, int]]:
    with subprocess.Popen(
        [sys.executable, "-c", _FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        yield parent.pid, int(parent.stdout.readline())
        parent.communicate(timeout=60)


def test_a_family_is_a_process_with_its_descendants(parent_and_child: tuple[int, int]) -> None:
    parent, child = parent_and_child
    assert accounting.family(parent) == {parent, child}
    assert accounting.family(child) == {child}
    assert {parent, child} <= accounting.family(os.getpid())


def _burn(until_s: float) -> None:
    while time.thread_time() < until_s:
        pass


def test_cpu_time_counts_threads_that_have_ended() -> None:
    before_s = accounting.cpu_s([os.getpid()])
    thread = threading.Thread(target=_burn, args=(0.2,))
    thread.start()
    thread.join()
    # The kernel's clock for this has a resolution of a tick, usually 10 ms.
    assert accounting.cpu_s([os.getpid()]) - before_s >= 0.15


def test_cpu_time_is_summed_over_processes(parent_and_child: tuple[int, int]) -> None:
    parent, child = parent_and_child
    both = accounting.cpu_s([parent, child])
    assert both == pytest.approx(accounting.cpu_s([parent]) + accounting.cpu_s([child]), abs=0.05)
    assert both > 0


def test_a_process_that_has_ended_is_an_error_not_zero() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait(timeout=60)
    with pytest.raises(StartError, match="ended while it was measured"):
        accounting.cpu_s([ended.pid])


def test_memory_grows_by_what_is_used() -> None:
    before = accounting.memory([os.getpid()])
    used = bytearray(b"x" * 32 * 1024**2)
    after = accounting.memory([os.getpid()])
    assert after.pss - before.pss >= len(used) * 0.9
    assert after.rss - before.rss >= len(used) * 0.9


def test_what_is_shared_counts_once_in_the_proportional_sum(parent_and_child: tuple[int, int]) -> None:
    together = accounting.memory(parent_and_child)
    assert 0 < together.pss < together.rss


def test_pinned_processes_and_what_they_start_stay_on_their_processors(parent_and_child: tuple[int, int]) -> None:
    processor = frozenset({min(os.sched_getaffinity(0))})
    accounting.pin(parent_and_child, processor)
    assert [os.sched_getaffinity(pid) for pid in parent_and_child] == [processor, processor]


class TestPlacement:
    def test_the_gateway_gets_the_last_processor_for_itself(self) -> None:
        assert Placement.choose({0, 1, 2, 3}) == Placement(frozenset({3}), frozenset({0, 1, 2}))

    def test_a_single_processor_is_shared(self) -> None:
        assert Placement.choose({0}) == Placement(frozenset({0}), frozenset({0}))

    def test_says_who_is_where(self) -> None:
        assert str(Placement.choose({4, 5})) == "gateway on CPU 5, client and external service on CPU 4"


def test_the_processor_has_a_name() -> None:
    assert accounting.processor_model().strip()
