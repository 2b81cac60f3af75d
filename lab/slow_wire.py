"""A wire between two devices that carries every frame late, and loses some: a WAN on one machine.

What ``tc qdisc add ... netem`` does, for kernels that have no ``sch_netem``. It is for the network namespace in which
both devices are, and needs root there: ``python -m lab.slow_wire DEVICE DEVICE --delay-ms 75 --loss 0.01``. It prints
``ready`` once it carries, and what it has carried and lost when it is ended. The standard library alone.

Each device is the far end of a pair whose near end is in a bridge. The near ends must leave no checksum and no
segmentation to the hardware, of which there is none here: :func:`plain` sees to that.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import random
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL of linux/if_ether.h
_SIOCETHTOOL = 0x8946  # linux/sockios.h
_SET_CHECKSUMS, _SET_SEGMENTATION = 0x17, 0x1F  # ETHTOOL_STXCSUM, ETHTOOL_STSO of linux/ethtool.h
_OUTGOING = 4  # PACKET_OUTGOING of linux/if_packet.h
_FRAME_BYTES = 65536
_BATCH = 64


def plain(device: str) -> None:
    """Let the kernel finish each frame before ``device`` sends it. :raises OSError:"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in (_SET_CHECKSUMS, _SET_SEGMENTATION):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0), 8)
            fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP", device.encode(), ctypes.addressof(value)))


class Direction:
    """Frames from one device to the other, in the order in which they came."""

    def __init__(self, source: socket.socket, target: socket.socket, delay_s: float, lost: Callable[[], bool]) -> None:
        self.source = source
        self._target = target
        self._delay_s = delay_s
        self._lost = lost
        self._under_way: deque[tuple[float, bytes]] = deque()
        self.carried = 0
        self.dropped = 0

    def take(self, now_s: float) -> None:
        """Read what there is, up to a batch."""
        for _ in range(_BATCH):
            try:
                frame, (_, _, kind, *_) = self.source.recvfrom(_FRAME_BYTES)
            except BlockingIOError:
                return
            if kind == _OUTGOING:
                continue
            if self._lost():
                self.dropped += 1
            else:
                self._under_way.append((now_s + self._delay_s, frame))

    def give(self, now_s: float) -> None:
        """Send what has been under way for long enough."""
        while self._under_way and self._under_way[0][0] <= now_s:
            _, frame = self._under_way.popleft()
            try:
                self._target.send(frame)
                self.carried += 1
            except OSError:
                # A device that is down, or full: as on any wire, whoever cares sends it again.
                self.dropped += 1

    def due_s(self) -> float | None:
        """When the next frame arrives."""
        return self._under_way[0][0] if self._under_way else None


def _open(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    opened.bind((device, 0))
    opened.setblocking(False)
    return opened


def carry(devices: tuple[str, str], delay_s: float, loss: float, seed: int, ended: Callable[[], bool]) -> str:
    """Until ``ended``; what was carried and lost. ``loss`` is the share of frames, in each direction."""
    chance = random.Random(seed)
    one, other = (_open(device) for device in devices)
    directions = [
        Direction(source, target, delay_s, lambda: chance.random() < loss)
        for source, target in ((one, other), (other, one))
    ]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not ended():
        due = [at for direction in directions if (at := direction.due_s()) is not None]
        wait_s = max(0.0, min(due) - time.monotonic()) if due else 0.1
        readable, _, _ = select.select([one, other], [], [], min(wait_s, 0.1))
        now_s = time.monotonic()
        for direction in directions:
            if direction.source in readable:
                direction.take(now_s)
            direction.give(now_s)
    carried, dropped = (sum(getattr(one, name) for one in directions) for name in ("carried", "dropped"))
    return f"carried {carried} lost {dropped}"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m lab.slow_wire", description=__doc__)
    arguments.add_argument("devices", nargs=2, metavar="DEVICE")
    arguments.add_argument("--near", action="append", default=[], metavar="DEVICE", help="made plain before it begins")
    arguments.add_argument("--delay-ms", type=float, default=75.0, help="in each direction")
    arguments.add_argument("--loss", type=float, default=0.0, help="share of the frames, 0 to 1")
    arguments.add_argument("--seed", type=int, default=1)
    asked = arguments.parse_args()
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    for device in asked.near:
        plain(device)
    said = carry(tuple(asked.devices), asked.delay_ms / 1000, asked.loss, asked.seed, lambda: stopped)
    sys.stdout.write(said + "\n")


if __name__ == "__main__":
    main()
