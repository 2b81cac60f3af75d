"""Policy while many are connected: one source of hundreds is denied, and one service has a thousand intentions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.generator import Generator, Identity
from bench.scale.canary import identity, quantile
from bench.scale.fleet import Fleet, service
from bench.scale.subjects import Ours
from plugin.assemble.intentions import decode_intentions
from plugin.consul.api import IntentionMatch
from plugin.errors import StartError
from proxy.model import ServiceName
from proxy.policy.identity import Identity as Caller
from proxy.policy.intention_index import IntentionIndex

_AT_A_TIME = 6
_OPEN_DEADLINE_S = 180.0
_WATCH_S = 4.0
_BEFORE_S = 3.0

Progress = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class CrowdFigures:
    connections: int
    sources: int
    workers: int
    denied: int
    """Connections of the source that is denied."""
    ended: int
    """Of these."""
    others_ended: int
    ended_ms: float
    """From just before the write until the last of them had ended."""
    latency_us: dict[str, tuple[float, float, float]]
    """Of a byte there and back on connections that stay, p50, p99 and the longest: before the deny, and in the second
    after it."""
    memory_mib: dict[str, float]
    commands_s: dict[str, float]


@dataclass(slots=True, kw_only=True)
class DecisionFigures:
    """By number of intentions of one service."""

    decision_us: dict[int, float]
    effect_ms: dict[int, float]
    """From the write of the whole entry until a client sees the effect, median."""


async def identities(fleet: Fleet, folder: Path, count: int) -> list[Identity]:
    """Leaves of as many clients, at the rate at which Consul signs."""
    permits = asyncio.Semaphore(_AT_A_TIME)

    async def one(number: int) -> Identity:
        async with permits:
            for _ in range(60):
                with contextlib.suppress(Exception):
                    return await identity(fleet.agent.api, folder, f"crowd-{number:03}")
                await asyncio.sleep(0.5)
        raise StartError(f"Consul signs no leaf for crowd-{number:03}")

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def measure(
    generator: Generator,
    fleet: Fleet,
    subject: Ours,
    folder: Path,
    clients: Sequence[Identity],
    connections: int,
    commands: Callable[[Ours], Any],
    progress: Progress,
) -> CrowdFigures:
    """``subject`` runs, and links the first service of the fleet, which lets everybody in."""
    name, domain, datacenter = service(0), fleet.trust_domain, fleet.agent.datacenter
    listed, roots = folder / "clients", folder / "crowd-roots.pem"
    listed.write_text("".join(f"{one.certificate} {one.key}\n" for one in clients))
    answer = await fleet.agent.api("GET", "/v1/agent/connect/ca/roots")
    roots.write_text("".join(root["RootCert"] for root in answer["Roots"]))
    flags = [
        f"-address={subject.host}:{subject.port}",
        f"-server-name={name}.default.{datacenter}.internal.{domain}",
        f"-spiffe-id=spiffe://{domain}/ns/default/dc/{datacenter}/svc/{name}",
        f"-roots={roots}",
        f"-clients={listed}",
        f"-connections={connections}",
        "-interval=4ms",
    ]
    sources = [f"crowd-{number:03}" for number in range(len(clients))]
    await fleet.intend(name, dict.fromkeys(sources, "allow"))
    async with generator.session("crowd", *flags) as session:
        progress(f"{connections:,} connections of {len(clients)} sources")
        await session.event(_OPEN_DEADLINE_S)
        await asyncio.sleep(_BEFORE_S)
        commands_s, memory = await commands(subject), subject.memory()
        await asyncio.sleep(_BEFORE_S)
        began_ns = time.time_ns()
        await fleet.intend(name, {**dict.fromkeys(sources, "allow"), sources[0]: "deny"})
        ended: list[tuple[int, int]] = []
        deadline_s = time.monotonic() + _WATCH_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                event = await session.event(left_s)
                ended.append((event["source"], event["at_ns"]))
        session.release()
        trips: list[tuple[int, int]] = []
        while (event := await session.event())["event"] != "done":
            if event["event"] == "trip":
                trips.append((event["at_ns"], event["took_ns"]))
            else:
                ended.append((event["source"], event["at_ns"]))
        lost = event["lost"]
    denied_at = [at_ns for source, at_ns in ended if source == 0]
    around = {
        "before": [took for at_ns, took in trips if began_ns - 2e9 < at_ns < began_ns],
        "in the second after": [took for at_ns, took in trips if began_ns <= at_ns < began_ns + 1e9],
    }
    return CrowdFigures(
        connections=connections,
        sources=len(clients),
        workers=len(subject.gateway.worker_pids()),
        denied=connections // len(clients),
        ended=len(denied_at),
        others_ended=len(ended) - len(denied_at) + lost,
        ended_ms=(max(denied_at) - began_ns) / 1e6 if denied_at else float("nan"),
        latency_us={
            when: (quantile(took, 0.5) / 1e3, quantile(took, 0.99) / 1e3, max(took) / 1e3)
            for when, took in around.items()
            if took
        },
        memory_mib=memory,
        commands_s=commands_s,
    )


def decision_us(count: int, repeats: int = 20_000) -> float:
    """Microseconds to find the intention that decides about a caller, of ``count`` intentions of one service."""
    rows = tuple(
        IntentionMatch(source_name=f"source-{number}", destination_name="db", action="allow", precedence=9)
        for number in range(count)
    )
    index = IntentionIndex(decode_intentions(rows))
    caller = Caller(ServiceName("x").namespace, "dc1", f"source-{count // 2}", "example.consul")
    began_s = time.perf_counter()
    for _ in range(repeats):
        index.first_match(caller, "")
    return (time.perf_counter() - began_s) / repeats * 1e6
