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
    flags: tuple[str, ...] = ()
    """Further ones of the command."""
    sidecar: bool = False
    """Through a sidecar, in plain TCP or HTTP to it; else the client speaks mutual TLS itself."""
    peers: bool = True
    """Whether HAProxy and ghostunnel are measured too, where they can."""
    rounds_share: float = 1.0
    """Of the rounds of others: for what has no goal."""

    @property
    def spread(self) -> bool:
        """Whether that are too many connections for one service of Envoy's."""
        return self.connections > 1_000


def at_least(value: float) -> Goal:
    return Goal(value=value, at_least=True)


def at_most(value: float) -> Goal:
    return Goal(value=value, at_least=False)


def _bytes(key: str, name: str, goal: float | None = None) -> tuple[Measure, Take]:
    measure = Measure(
        key=key,
        name=name,
        unit="GiB per CPU second",
        digits=2,
        scale=1 / GIB,
        ratio_goal=at_least(goal) if goal else None,
    )
    return measure, lambda result, cpu_s: per_cpu_second(result.bytes, cpu_s)


def _count(key: str, name: str, unit: str, goal: float | None = None) -> tuple[Measure, Take]:
    measure = Measure(key=key, name=name, unit=unit, ratio_goal=at_least(goal) if goal else None)
    return measure, lambda result, cpu_s: per_cpu_second(result.operations, cpu_s)


def _times(key: str, name: str, p50: float | None, p99: float | None) -> tuple[tuple[Measure, Take], ...]:
    """Median and 99th percentile; the goals are of the ratio."""
    goals = [at_most(value) if value else None for value in (p50, p99)]
    unit = "microseconds"
    return (
        (
            Measure(key=f"{key}-p50", name=f"{name}, median", unit=unit, ratio_goal=goals[0], more_is_better=False),
            lambda result, _cpu_s: result.p50_us,
        ),
        (
            Measure(
                key=f"{key}-p99", name=f"{name}, 99th percentile", unit=unit, ratio_goal=goals[1], more_is_better=False
            ),
            lambda result, _cpu_s: result.p99_us,
        ),
    )


_ROUND_TRIPS = "round trips per CPU second"
_REQUESTS = "requests per CPU second"
_CONNECTIONS = "connections per CPU second"
_CALLS = "calls per CPU second"


def _bulk(sidecar: bool, connections: int) -> tuple[Workload, ...]:
    where, mark = (", through a sidecar", "sidecar-") if sidecar else ("", "")
    many = "1 connection" if connections == 1 else f"{connections} connections"
    directions = (("down", "source", "external service to client"), ("up", "sink", "client to external service"))
    return tuple(
        Workload(
            command=f"bulk-{direction}",
            behaviour=behaviour,
            title=f"Bulk {direction}, {many}{where}",
            connections=connections,
            sidecar=sidecar,
            takes=(_bytes(f"{mark}bulk-{direction}-{connections}", f"Bulk, {told}, {many}{where}", 1.15),),
        )
        for direction, behaviour, told in directions
    )


def _echo(connections: int, goal: float | None = None, *, sidecar: bool = False) -> Workload:
    where, mark = (", through a sidecar", "sidecar-") if sidecar else ("", "")
    many = "1 connection" if connections == 1 else f"{connections:,} connections"
    takes = [_count(f"{mark}echo-{connections}", f"Messages of 128 bytes, {many}{where}", _ROUND_TRIPS, goal)]
    if connections == 1:
        takes += _times(f"{mark}echo", f"Echo of 128 bytes{where}", 1.0, 1.0)
    return Workload(
        command="echo",
        behaviour="echo",
        title=f"Echo, {many}{where}",
        connections=connections,
        slices=2 if connections == 1 else 1,
        sidecar=sidecar,
        takes=tuple(takes),
    )


def _sized(size: int) -> Workload:
    told = f"{size // KIB} KiB"
    return Workload(
        command="echo",
        behaviour="echo",
        title=f"Echo of {told}",
        connections=16,
        flags=(f"-size={size}",),
        takes=(_count(f"echo-size-{size}", f"Messages of {told}, 16 connections", _ROUND_TRIPS),),
        peers=False,
        rounds_share=0.6,
    )


def _new(kind: str, name: str, *, sidecar: bool = False) -> Workload:
    mark = "sidecar-" if sidecar else ""
    return Workload(
        command="new-connections",
        behaviour="echo",
        title=name,
        connections=8,
        flags=("-resume",) if kind == "resumed" else (),
        sidecar=sidecar,
        takes=(_count(f"{mark}new-{kind}", name, _CONNECTIONS, 1.0),),
    )


def _requests(
    command: str, behaviour: str, key: str, name: str, connections: int, unit: str, goal: float | None
) -> tuple[Workload, Workload]:
    """Straight to the gateway, and through a sidecar."""
    straight, through = (
        Workload(
            command=command,
            behaviour=behaviour,
            title=name + where,
            connections=connections,
            sidecar=bool(where),
            takes=(_count(mark + key, name + where, unit, goal),),
        )
        for mark, where in (("", ""), ("sidecar-", ", through a sidecar"))
    )
    return straight, through


_HTTP1, _SIDECAR_HTTP1 = _requests("http1", "http", "http1", "HTTP/1.1, small requests", 16, _REQUESTS, 1.0)
_HTTP2, _SIDECAR_HTTP2 = _requests("http2", "http2", "http2", "HTTP/2, small requests", 4, _REQUESTS, 0.5)
_GRPC, _SIDECAR_GRPC = _requests("grpc-unary", "grpc", "grpc-unary", "gRPC, unary calls", 4, _CALLS, None)

STEADY: dict[str, tuple[Workload, ...]] = {
    "bulk": (
        *_bulk(False, 1),
        *_bulk(False, 16),
        Workload(
            command="duplex",
            behaviour="duplex",
            title="Full duplex",
            connections=4,
            takes=(_bytes("duplex-4", "Full duplex, both directions together, 4 connections"),),
        ),
    ),
    "echo": (_echo(1), _echo(16), _echo(256, 1.0), _echo(2_000), *map(_sized, (KIB, 4 * KIB, 16 * KIB, 64 * KIB))),
    "connections": (
        _new("full", "New connections, full handshake"),
        _new("resumed", "New connections, the client offers a session"),
    ),
    "http": (
        _HTTP1,
        Workload(
            command="http1",
            behaviour="http",
            title="HTTP/1.1, one request at a time",
            connections=1,
            slices=2,
            takes=_times("http1", "HTTP/1.1 request", 1.3, None),
        ),
        _HTTP2,
        Workload(
            command="http-down",
            behaviour="http",
            title="Responses of 1 MiB",
            connections=4,
            takes=(_bytes("http-down", "HTTP/1.1, responses of 1 MiB", 0.9),),
        ),
        Workload(
            command="http-up",
            behaviour="http",
            title="Requests of 1 MiB",
            connections=4,
            takes=(_bytes("http-up", "HTTP/1.1, requests of 1 MiB", 0.9),),
        ),
    ),
    "grpc": (
        _GRPC,
        Workload(
            command="grpc-stream",
            behaviour="grpc",
            title="gRPC, streams",
            connections=4,
            takes=(_count("grpc-stream", "gRPC, messages on open streams", "messages per CPU second"),),
        ),
    ),
    "sidecar": (
        *_bulk(True, 16),
        _echo(1, sidecar=True),
        _echo(256, 1.0, sidecar=True),
        _new("sidecar", "New connections, through a sidecar", sidecar=True),
        _SIDECAR_HTTP1,
        _SIDECAR_HTTP2,
        _SIDECAR_GRPC,
    ),
}
"""Workloads of each part that is steady load."""

REFUSED = Measure(
    key="refused",
    name="Deny written to Consul until a new connection is refused",
    unit="milliseconds",
    digits=1,
    own_goal=at_most(100.0),
    more_is_better=False,
)
ENDED = Measure(
    key="ended",
    name="Deny written to Consul until live connections have ended",
    unit="milliseconds",
    digits=1,
    own_goal=at_most(100.0),
    more_is_better=False,
)

IDLE = (1_000, 10_000)
"""Connections of which the memory is measured."""
MEMORY = {
    count: Measure(
        key=f"memory-{count}",
        name=f"Memory per idle connection of {count:,}",
        unit="KiB (PSS)",
        digits=1,
        scale=1 / KIB,
        ratio_goal=at_most(1.0),
        more_is_better=False,
    )
    for count in IDLE
}
MEMORY_BASE = Measure(
    key="memory-base",
    name="Memory of all its processes before",
    unit="MiB (PSS)",
    digits=1,
    scale=1 / KIB**2,
    more_is_better=False,
)

TWO_WORKERS = {
    "echo": Measure(
        key="two-echo",
        name="Two workers, messages of 128 bytes, 256 connections",
        unit="times one worker",
        digits=2,
        own_goal=at_least(1.9),
    ),
    "bulk": Measure(
        key="two-bulk",
        name="Two workers, bulk to the client, 16 connections",
        unit="times one worker",
        digits=2,
        own_goal=at_least(1.9),
    ),
}

LIMIT_COPY = Measure(
    key="limit-copy", name="Bytes from socket to socket, no TLS", unit="GiB per CPU second", digits=2, scale=1 / GIB
)
LIMIT_AES = Measure(
    key="limit-aes", name="AES-128-GCM, records of 16 KiB", unit="GiB per CPU second", digits=2, scale=1 / GIB
)
LIMIT_SIGN = Measure(key="limit-sign", name="ECDSA P-256, signatures", unit="per CPU second")
LIMIT_VERIFY = Measure(key="limit-verify", name="ECDSA P-256, verifications", unit="per CPU second")
LIMIT_X25519 = Measure(key="limit-x25519", name="X25519, key and shared secret", unit="per CPU second")
LIMIT_HANDSHAKE = Measure(
    key="limit-handshake", name="Full handshakes of mutual TLS, the server's side, in memory", unit="per CPU second"
)
LIMITS = (LIMIT_COPY, LIMIT_AES, LIMIT_SIGN, LIMIT_VERIFY, LIMIT_X25519, LIMIT_HANDSHAKE)

SECTIONS: dict[str, tuple[Measure, ...]] = {
    **{part: tuple(measure for one in work for measure, _ in one.takes) for part, work in STEADY.items()},
    "policy": (REFUSED, ENDED),
    "memory": (*MEMORY.values(), MEMORY_BASE),
    "scaling": tuple(TWO_WORKERS.values()),
    "limits": LIMITS,
}
"""All measures, by the part that gives them."""
PARTS = tuple(SECTIONS)
