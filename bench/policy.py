"""How long a change of policy takes to reach new and live connections, seen by the clients."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from bench import mesh as bench_mesh
from bench.gateways import Gateway
from bench.generator import Generator, Session
from bench.mesh import CLIENT, REVOKED_CLIENT, BenchMesh
from plugin.dev.processes import wait_until
from plugin.errors import StartError

HELD = 20
"""Live connections of each client during a change."""
REFUSAL_DEADLINE_S = 30.0

_BEHAVIOUR = "echo"
_SETTLE_S = 0.5
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One change to deny. Times are from just before the write is sent to Consul."""

    refused_ms: float
    """Until an attempt to connect had failed."""
    ended: int
    """Of ``HELD`` live connections, how many ended in the time allowed."""
    ended_ms: float | None
    """Until the last of them had ended; ``None`` when not all did."""
    allowed_lost: int
    """Of ``HELD`` connections that stay allowed."""
    let_in_again: int
    """Attempts that succeeded after one had been refused."""


async def revoke(generator: Generator, mesh: BenchMesh, gateway: Gateway, *, patience_s: float) -> Revocation:
    """Allow, connect, deny, and watch for at most ``patience_s`` seconds what becomes of live connections.

    :raises StartError: when new connections are not refused within ``REFUSAL_DEADLINE_S`` seconds.
    """
    await bench_mesh.allow(mesh.agent, _BEHAVIOUR, revoked_client=True)
    await _let_in(generator, mesh, gateway)
    other = mesh.identities[CLIENT]
    flags = [
        *mesh.aim(gateway.address, _BEHAVIOUR, REVOKED_CLIENT).flags(),
        f"-other-certificate={other.certificate}",
        f"-other-key={other.key}",
        f"-connections={HELD}",
    ]
    async with generator.session("watch", *flags) as session:
        await session.event()
        await asyncio.sleep(_SETTLE_S)
        written_ns = time.time_ns()
        await bench_mesh.allow(mesh.agent, _BEHAVIOUR, revoked_client=False)
        seen = await _watch(session, patience_s)
        session.release()
        summary = await _summary(session, seen)
    if seen.refused_ns is None:
        raise StartError(f"{gateway.label} went on accepting a denied client for {REFUSAL_DEADLINE_S:.0f} s")
    return Revocation(
        refused_ms=(seen.refused_ns - written_ns) / _NS_PER_MS,
        ended=len(seen.ended_ns),
        ended_ms=(max(seen.ended_ns) - written_ns) / _NS_PER_MS if len(seen.ended_ns) == HELD else None,
        allowed_lost=summary["connections_lost"],
        let_in_again=summary["let_in_again"],
    )


class _Seen:
    def __init__(self) -> None:
        self.refused_ns: int | None = None
        self.ended_ns: list[int] = []

    def take(self, event: dict[str, int | str]) -> None:
        if event["event"] == "refused":
            self.refused_ns = int(event["at_ns"])
        elif event["event"] == "ended":
            self.ended_ns.append(int(event["at_ns"]))

    @property
    def complete(self) -> bool:
        return self.refused_ns is not None and len(self.ended_ns) == HELD


async def _watch(session: Session, patience_s: float) -> _Seen:
    seen = _Seen()
    began_s = time.monotonic()
    while not seen.complete:
        allowed_s = patience_s if seen.refused_ns is not None else max(patience_s, REFUSAL_DEADLINE_S)
        left_s = began_s + allowed_s - time.monotonic()
        if left_s <= 0:
            break
        with contextlib.suppress(TimeoutError):
            seen.take(await session.event(left_s))
    return seen


async def _summary(session: Session, seen: _Seen) -> dict[str, int]:
    while (event := await session.event())["event"] != "done":
        # What ends by the release itself is no effect of policy; a refusal that came late still is one.
        if event["event"] == "refused":
            seen.take(event)
    return event


async def _let_in(generator: Generator, mesh: BenchMesh, gateway: Gateway) -> None:
    async def connects() -> bool:
        with contextlib.suppress(StartError):
            await generator.load(
                "new-connections", mesh.aim(gateway.address, _BEHAVIOUR, REVOKED_CLIENT), duration_s=0.01
            )
            return True
        return False

    await wait_until(connects, REFUSAL_DEADLINE_S, what=f"{gateway.label} lets {REVOKED_CLIENT} in", every_s=0.2)
