"""A WAN that is slow: the hosts of the gateways' datacenter are behind a slow wire, the others are as they were."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lab import plan
from lab.lab import Running
from lab.namespaces import plain_environment
from lab.topology import WAN
from plugin.dev import processes
from plugin.dev.processes import Child, Launcher
from plugin.errors import StartError

_CHECKOUT = Path(__file__).resolve().parent.parent
_FAR = "far-side"
_NEAR_ENDS, _WIRE_ENDS = ("near0", "near1"), ("wire0", "wire1")


class SlowWire(Launcher):
    """Between the datacenters, on the WAN: :mod:`lab.slow_wire`. The network is whole again after :meth:`stop`."""

    def __init__(self, running: Running, folder: Path, *, round_trip_ms: float, loss: float) -> None:
        """``round_trip_ms`` are added to each round trip; ``loss`` is the share of frames that are lost, each way."""
        self._running = running
        self._log = folder / "slow-wire.log"
        self._settings = [f"--delay-ms={round_trip_ms / 2}", f"--loss={loss}"]
        self._child: Child | None = None
        self._moved: list[str] = []

    async def start(self) -> None:
        """:raises StartError: when it cannot be made."""
        far = plan.gateway_datacenter(self._running.topology)
        hosts = {name for name, host in self._running.topology.hosts.items() if host.datacenter == far}
        self._moved = [port for port, host in (await self._ports()).items() if host in hosts]
        lines = [f"link add {_FAR} type bridge", f"link set {_FAR} up"]
        for bridge, near, end in zip((WAN, _FAR), _NEAR_ENDS, _WIRE_ENDS, strict=True):
            lines += [f"link add {near} type veth peer name {end}", f"link set {near} master {bridge} up"]
            lines.append(f"link set {end} up")
        await self._ip([*lines, *(f"link set {port} master {_FAR}" for port in self._moved)])
        self._log.unlink(missing_ok=True)
        self._child = Child(
            "the slow wire",
            [*self._in_switch(), sys.executable, "-m", "lab.slow_wire", *_WIRE_ENDS]
            + [f"--near={near}" for near in _NEAR_ENDS]
            + self._settings,
            self._log,
            folder=_CHECKOUT,
        )
        await self._child.started(lambda: "ready" in self._log.read_text())

    async def stop(self) -> None:
        if self._child is None:
            return
        await self._child.terminate()
        self._child = None
        await self._ip([*(f"link set {port} master {WAN}" for port in self._moved), f"link del {_FAR}"])
        await self._ip([f"link del {near}" for near in _NEAR_ENDS])

    def lost(self) -> tuple[int, int]:
        """Frames that it has carried, and lost; after :meth:`stop`. :raises StartError: when it has not said."""
        words = self._log.read_text().split()
        try:
            return int(words[words.index("carried") + 1]), int(words[words.index("lost") + 1])
        except (ValueError, IndexError) as error:
            raise StartError(f"the slow wire has said: {' '.join(words)}") from error

    async def _ports(self) -> dict[str, str]:
        """Of the WAN, with the host that is connected."""
        said = await processes.run([*self._in_switch(), "ip", "-json", "link", "show", "master", WAN])
        return {link["ifname"]: link.get("ifalias", "") for link in json.loads(said)}

    def _in_switch(self) -> list[str]:
        # Its network alone: the program and its Python are this machine's.
        return ["nsenter", f"--target={self._running.switch.pid}", "--net", "--"]

    async def _ip(self, lines: list[str]) -> None:
        await processes.run(
            [*self._in_switch(), "ip", "-batch", "-"],
            environment=plain_environment(),
            input_text="".join(f"{line}\n" for line in lines),
        )
