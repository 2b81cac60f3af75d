"""``docs/capacity.md``: what a fleet of gateways needs, by arithmetic from the figures of an outcome. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.scale.control import Figures
from bench.scale.run import Outcome
from bench.scale.words import markdown

OURS = "consul-tgw"
SIGNATURES_PER_S = 50
"""``csr_max_per_second`` of Consul's servers, unless it was changed."""
LEAF_LIFE_H = 72.0
"""``leaf_cert_ttl`` of Consul, unless it was changed."""
RENEWED_AT = 0.675
"""Of a leaf's life, in the middle of the time in which the gateway first asks for the next one."""
CONNECTIONS_OF_AN_AGENT = 200
"""``http_max_conns_per_client``."""
CONNECTIONS_OF_A_GATEWAY = 64


@dataclass(frozen=True, slots=True)
class Line:
    """``at_nothing + each * number``."""

    at_nothing: float
    each: float

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Line:
        """The least squares; flat through a single point. :raises ValueError: without one."""
        if not points:
            raise ValueError("no figures")
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        each = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
        return cls(mean_y - each * mean_x, each)

    def at(self, number: float) -> float:
        return self.at_nothing + self.each * number


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of this gateway, as measured."""

    control_mib: Line
    """By services, as the next."""
    worker_mib: Line
    connection_kib: float | None
    """Of a worker's memory, for each connection that it carries."""
    start_cpu_s: Line
    idle_ms: Line
    """Milliseconds of processor time a second."""


def costs(outcome: Outcome) -> Costs:
    """:raises ValueError: when no gateway of ours was measured."""
    ours = [one for one in outcome.figures if one.label == OURS]

    def line(of: Sequence[tuple[Figures, float | None]]) -> Line:
        return Line.through([(one.services, value) for one, value in of if value is not None])

    worker = line([(one, one.memory_mib.get("worker")) for one in ours])
    connection_kib = None
    if (crowd := outcome.crowd) is not None and "worker" in crowd.memory_mib:
        largest = max(one.services for one in ours)
        carried = crowd.connections / max(1, crowd.workers)
        connection_kib = (crowd.memory_mib["worker"] - worker.at(largest)) * 1024 / carried
    return Costs(
        control_mib=line([(one, one.memory_mib.get("control process")) for one in ours]),
        worker_mib=worker,
        connection_kib=connection_kib,
        start_cpu_s=line([(one, one.start.gateway / 1000 if one.start else None) for one in ours]),
        idle_ms=line([(one, one.idle.gateway if one.idle else None) for one in ours]),
    )


def page(outcome: Outcome) -> str:
    found = costs(outcome)
    lines = [
        "# Capacity",
        "",
        *markdown(_INTRODUCTION),
        "",
        "## One gateway",
        "",
        "| For | Arithmetic | 100 services | 1,000 services | 5,000 services |",
        "|---|---|--:|--:|--:|",
        *_gateway_rows(found),
        "",
        *markdown(_GATEWAY),
        "",
        "## What Consul bears",
        "",
        "| For | Arithmetic | 3 gateways, 100 services | 10 gateways, 1,000 services | 50 gateways, 1,000 services |",
        "|---|---|--:|--:|--:|",
        *_consul_rows(),
        "",
        *markdown(_CONSUL),
        "",
        "## How many gateways",
        "",
        *markdown(_HOW_MANY),
        "",
    ]
    return "\n".join(lines)


def _gateway_rows(found: Costs) -> list[str]:
    sizes = (100, 1_000, 5_000)

    def row(what: str, line: Line, unit: str, digits: int) -> str:
        arithmetic = f"{line.at_nothing:,.{digits}f} + services x {line.each:.4f}"
        values = " | ".join(f"{line.at(size):,.{digits}f}" for size in sizes)
        return f"| {what}, {unit} | {arithmetic} | {values} |"

    rows = [
        row("Memory of the control process", found.control_mib, "MiB", 0),
        row("Memory of each worker, without connections", found.worker_mib, "MiB", 0),
        row("CPU until all are served", found.start_cpu_s, "s", 1),
        row("CPU at rest", found.idle_ms, "ms a second", 1),
    ]
    first = " | ".join(f"{size / SIGNATURES_PER_S:,.0f}" for size in sizes)
    rows.append(f"| First start, s | services / {SIGNATURES_PER_S} | {first} |")
    if found.connection_kib is not None:
        each = f"{found.connection_kib:.0f}"
        rows.append(f"| Memory of each connection, KiB | measured | {each} | {each} | {each} |")
    return rows


def _consul_rows() -> list[str]:
    fleets = ((3, 100), (10, 1_000), (50, 1_000))

    def row(what: str, arithmetic: str, values: Sequence[float], digits: int = 0) -> str:
        return f"| {what} | {arithmetic} | {' | '.join(f'{value:,.{digits}f}' for value in values)} |"

    renewal_s = LEAF_LIFE_H * 3600 * RENEWED_AT
    return [
        row(
            "Leaves to sign when all start for the first time",
            "gateways x services",
            [gateways * services for gateways, services in fleets],
        ),
        row(
            "Time for that, s",
            f"leaves / {SIGNATURES_PER_S}",
            [gateways * services / SIGNATURES_PER_S for gateways, services in fleets],
        ),
        row(
            "Leaves to sign at rest, an hour",
            f"leaves / ({LEAF_LIFE_H:.0f} h x {RENEWED_AT})",
            [gateways * services / renewal_s * 3600 for gateways, services in fleets],
        ),
        row(
            "Connections to agents, at most",
            f"gateways x {CONNECTIONS_OF_A_GATEWAY}",
            [gateways * CONNECTIONS_OF_A_GATEWAY for gateways, _ in fleets],
        ),
    ]


_INTRODUCTION = """
What gateways need, and what a fleet of them asks of Consul, as arithmetic that you can do with your own numbers.
Written by `make scale` from the figures in [scale.md](scale.md); what a core carries in traffic is in
[performance.md](performance.md).
"""
_GATEWAY = """
Lines are drawn through the measured sizes; beyond the largest one they are an estimate. With the leaves in the agent,
a start takes the CPU time of the table and not the time that Consul takes to sign.

- Descriptors: two for each connection, and 64 ([tuning.md](tuning.md#descriptors)).

- The control process needs a part of one core: what it does at rest, and in a storm of changes what
[scale.md](scale.md) has. Workers need as many cores as the traffic does.
"""
_CONSUL = f"""
- Each gateway asks the agent on its own host. An agent lets one client address have {CONNECTIONS_OF_AN_AGENT}
connections (`http_max_conns_per_client`), and a gateway has fewer than {CONNECTIONS_OF_A_GATEWAY} with any number of
services: three gateways may share an agent and an address, and nothing else with many connections.

- A blocking query that waits costs the servers a goroutine. One that wakes costs the answer. A gateway has about 40
of them: 26 for services of their own, and one for each kind of thing that all services share. A config entry that is
written wakes those for every kind of config entry, in every gateway of the fleet: multiply what a change costs the
agent in [scale.md](scale.md) by the number of gateways, for the servers answer them all.

- Signing is the bottleneck of a first start, since the servers sign {SIGNATURES_PER_S} leaves a second for everybody:
sidecars that start meanwhile wait as well. Start gateways one after the other, or raise `csr_max_per_second`. A
gateway that starts again finds its leaves in the agent, and with `--state-dir` it serves before it has asked.

- The agent keeps watches of its own for every gateway that is registered with it, whichever program runs behind it:
memory and CPU of the agent in [scale.md](scale.md) are with that.
"""
_HOW_MANY = """
Gateways of one name are equal: sidecars spread new connections over those that pass their check, and each gateway
links every service of the entry. So the number of gateways follows from traffic, and the number of services in one
entry from what Consul bears.

- For traffic: the cores that [performance.md](performance.md) asks for, divided by the cores of a host, and one host
more, so that one may stop.

- For connections: `--max-connections` of each worker, times workers and gateways that are left when one stops.

- For memory: the control process, and for each worker its services and its share of the connections, by the table
above.

- Part a name in two when its services are for different teams or networks, or when a first start takes longer than
you can wait: two entries of 1,000 services sign as many leaves as one of 2,000, but each gateway starts in half the
time and reads half as much when an instance comes or goes.
"""
