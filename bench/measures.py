"""What is measured, in which unit, and what it is to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import Goal, Measure, per_cpu_second
from bench.generator import LoadResult

GIB = 1024**3
KIB = 1024

Take = Callable[[LoadResult, float], float]
"""The raw value of a round, from what the client saw and the gateway's CPU seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A steady load for one round's time."""

    command: str
    """Of the generator."""
    behaviour: str
    """Of the external service behind it."""
    title: str
    connections: int
    takes: tuple[tuple[Measure, Take], ...]
    slices: int = 1
    """Rounds are this many times as many, and as much shorter: for what a moment of the machine's would spoil whole."""


def _bulk(command: str, behaviour: str, title: str, connections: int, goal: float = 0.95) -> Workload:
    measure = Measure(
        name=title, unit="GiB per CPU second", digits=2, scale=1 / GIB, ratio_goal=Goal(value=goal, at_least=True)
    )
    return Workload(
        command=command,
        behaviour=behaviour,
        title=title,
        connections=connections,
        takes=((measure, lambda result, cpu_s: per_cpu_second(result.bytes, cpu_s)),),
    )


def _requests(command: str, behaviour: str, title: str, connections: int, goal: float) -> Workload:
    measure = Measure(name=title, unit="requests per CPU second", ratio_goal=Goal(value=goal, at_least=True))
    return Workload(
        command=command,
        behaviour=behaviour,
        title=title,
        connections=connections,
        takes=((measure, lambda result, cpu_s: per_cpu_second(result.operations, cpu_s)),),
    )


WORKLOADS = (
    _bulk("bulk-down", "source", "Bulk, external service to client", 4),
    _bulk("bulk-up", "sink", "Bulk, client to external service", 4),
    Workload(
        command="new-connections",
        behaviour="echo",
        title="New connections",
        connections=8,
        takes=(
            (
                Measure(
                    name="New mutual-TLS connections",
                    unit="per CPU second",
                    ratio_goal=Goal(value=0.7, at_least=True),
                ),
                lambda result, cpu_s: per_cpu_second(result.operations, cpu_s),
            ),
        ),
    ),
    Workload(
        command="echo",
        behaviour="echo",
        title="Echo",
        connections=1,
        slices=4,
        takes=(
            (
                Measure(
                    name="Echo of 128 bytes, median",
                    unit="microseconds",
                    ratio_goal=Goal(value=1.1, at_least=False),
                ),
                lambda result, _cpu_s: result.p50_us,
            ),
            (
                Measure(
                    name="Echo of 128 bytes, 99th percentile",
                    unit="microseconds",
                    ratio_goal=Goal(value=1.1, at_least=False),
                ),
                lambda result, _cpu_s: result.p99_us,
            ),
            (
                Measure(name="Echo round trips", unit="per CPU second"),
                lambda result, cpu_s: per_cpu_second(result.operations, cpu_s),
            ),
        ),
    ),
    _requests("http1", "http", "HTTP/1.1, small requests", 16, 0.7),
    _requests("http2", "http2", "HTTP/2, small requests", 4, 0.3),
    _bulk("http-down", "http", "HTTP/1.1, responses of 1 MiB", 4, 0.9),
    _bulk("http-up", "http", "HTTP/1.1, requests of 1 MiB", 4, 0.9),
    Workload(
        command="http-latency",
        behaviour="http",
        title="HTTP/1.1, one request at a time",
        connections=1,
        slices=4,
        takes=(
            (
                Measure(
                    name="HTTP/1.1 request, median",
                    unit="microseconds",
                    ratio_goal=Goal(value=1.3, at_least=False),
                ),
                lambda result, _cpu_s: result.p50_us,
            ),
            (
                Measure(name="HTTP/1.1 request, 99th percentile", unit="microseconds"),
                lambda result, _cpu_s: result.p99_us,
            ),
        ),
    ),
)

MEMORY_RSS = Measure(name="Resident memory per idle connection", unit="KiB (RSS)", digits=1, scale=1 / KIB)
MEMORY_PSS = Measure(name="Proportional memory per idle connection", unit="KiB (PSS)", digits=1, scale=1 / KIB)
MEMORY_BASE = Measure(name="Memory of all its processes before", unit="MiB (PSS)", digits=1, scale=1 / KIB**2)

REFUSED = Measure(
    name="Deny written to Consul until a new connection is refused",
    unit="milliseconds",
    digits=1,
    own_goal=Goal(value=100.0, at_least=False),
)
ENDED = Measure(
    name="Deny written to Consul until live connections have ended",
    unit="milliseconds",
    digits=1,
    own_goal=Goal(value=100.0, at_least=False),
)
