"""Steady loads, round by round, the gateways in turns."""

from __future__ import annotations

from bench import accounting
from bench.figures import ENVOY
from bench.gateways import Gateway
from bench.generator import Aim, LoadResult
from bench.measures import Workload
from bench.pace import Cost, Pace
from bench.world import Rounds, World, record, told
from plugin.errors import StartError

_PEERS_EVERY = 2
"""They have rounds less often: nothing is judged by them."""


async def measure(world: World, workload: Workload, pace: Pace) -> None:
    """All rounds of ``workload``. :raises StartError: when one fails; nothing is kept then."""
    rounds: dict[str, Rounds] = {}
    resumed: dict[str, list[float]] = {}
    count = _rounds(workload, pace)
    for number in range(count):
        taking_part = [*world.both, *(_peers(world, workload) if number % _PEERS_EVERY == 0 else ())]
        # The order is turned round each time, so that what gets faster or slower meanwhile favours nobody.
        for gateway in taking_part if number % 2 == 0 else taking_part[::-1]:
            result, used_s = await _round(world, workload, gateway, pace.round_s / workload.slices)
            said = []
            for one, take in workload.takes:
                value = take(result, used_s)
                record(rounds, one, gateway.label, value)
                said.append(told(one, value))
            resumed.setdefault(gateway.label, []).append(result.resumed / result.operations)
            world.progress(
                f"{workload.title} {number + 1}/{count}, {gateway.label}: {'; '.join(said)} "
                f"(CPU {used_s / result.seconds:.0%})"
            )
    world.findings.keep(rounds)
    if "-resume" in workload.flags:
        shares = ", ".join(f"{label} {sum(all_of) / len(all_of):.0%}" for label, all_of in resumed.items())
        world.findings.notes[workload.takes[0][0].key] = f"Connections that went on with a session: {shares}."


def cost(workload: Workload, peers: int) -> Cost:
    """``peers``: how many are there beside the two gateways."""
    each = 2 + (peers / _PEERS_EVERY if workload.peers and not workload.sidecar else 0)
    # Thousands of connections take their time to be made; so do many short rounds to be started.
    made_s = 0.001 * workload.connections if workload.spread else 0.0
    return Cost(each * workload.rounds_share, each * made_s * 5 + each * 0.4 * (workload.slices - 1) * 5)


def _rounds(workload: Workload, pace: Pace) -> int:
    return max(2, round(pace.rounds * workload.rounds_share)) * workload.slices


def _peers(world: World, workload: Workload) -> list[Gateway]:
    if workload.sidecar or not workload.peers:
        return []
    return [peer for peer in world.peers if peer.carries(workload.behaviour)]


def _aim(world: World, workload: Workload, gateway: Gateway) -> Aim:
    if workload.sidecar:
        return world.mesh.aim_at_sidecar(gateway.name, workload.behaviour)
    address = gateway.address(workload.behaviour)
    return world.mesh.aim(address, workload.behaviour, spread=workload.spread and gateway.linked)


async def _round(world: World, workload: Workload, gateway: Gateway, duration_s: float) -> tuple[LoadResult, float]:
    processes = gateway.processes()
    result, used_s = await world.generator.load(
        workload.command,
        _aim(world, workload, gateway),
        duration_s=duration_s,
        connections=workload.connections,
        flags=workload.flags,
        clock=lambda: accounting.cpu_s(processes),
    )
    if gateway.processes() != processes:
        raise StartError(f"{gateway.label} started or lost a process while it was measured: see its log")
    return result, used_s


async def check_tls(world: World) -> None:
    """All must do the same cryptography, or nothing can be compared.

    :raises StartError: when our gateway and Envoy's differ. Of the others, one that differs is left out.
    """
    found = {}
    for gateway in (*world.both, *world.peers):
        aim = world.mesh.aim(gateway.address("echo"), "echo")
        result, _ = await world.generator.load("new-connections", aim, duration_s=0.2)
        found[gateway.label] = result.tls
        world.progress(f"{gateway.label}: {result.tls}")
    wanted = found[ENVOY]
    if found[world.ours.label] != wanted:
        raise StartError(
            "the gateways negotiate different TLS parameters and cannot be compared: "
            + "; ".join(f"{label}: {tls}" for label, tls in found.items())
        )
    for peer in [peer for peer in world.peers if found[peer.label] != wanted]:
        world.peers.remove(peer)
        world.findings.remarks.append(f"{peer.label} is left out: it negotiates {found.pop(peer.label)}")
    world.findings.tls = found
