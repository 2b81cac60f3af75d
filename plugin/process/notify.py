"""What a service manager is told: systemd's notification protocol, sd_notify(3), one datagram for each message.

Without ``NOTIFY_SOCKET`` nothing is sent. A lost message is never an error of the gateway.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class ServiceManager:
    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # An abstract socket is written with "@" for its first zero byte.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        # Opened once: the watchdog must be fed also when this process may open nothing more.
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if path else None
        self.watchdog_interval_s = _watchdog_interval_s(environment)
        """Seconds between two :meth:`alive` messages; 0 when no watchdog is set."""

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Until the next :meth:`ready`. The time lets systemd tell this message from an earlier one."""
        monotonic_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_us}")

    def stopping(self, longest_s: float) -> None:
        """It may take ``longest_s``, also where TimeoutStopSec is shorter."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(longest_s * 1_000_000)}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._sender is not None:
            with contextlib.suppress(OSError):
                self._sender.sendto(message.encode(), self._address)


def _watchdog_interval_s(environment: Mapping[str, str]) -> float:
    """Half of ``WATCHDOG_USEC``, if it is meant for this process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(environment.get("WATCHDOG_USEC", "0")) / 2_000_000
    except ValueError:
        return 0.0
