"""What the gateway's own machine is short of when a dial fails: that says nothing about the external service.

Such a failure leaves no endpoint out. It is said aloud, with the remedy, but not once for each connection.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from proxy.errors import UpstreamError
from proxy.logs import emit
from proxy.model import CloseReason

logger = logging.getLogger(__name__)

QUIET_S = 10.0
"""At least so long between two log lines of one worker."""

_REMEDIES = {
    errno.EMFILE: "the worker has no file descriptor left; raise its limit (LimitNOFILE of systemd, ulimit -n)",
    errno.ENFILE: "the machine has no file descriptor left; raise fs.file-max",
    errno.ENOBUFS: "the kernel has no buffers left for sockets; raise net.ipv4.tcp_mem or the memory of the machine",
    errno.ENOMEM: "no memory is left; raise the limit of the gateway's memory or the memory of the machine",
    errno.EADDRNOTAVAIL: "no local address and port are left for this destination; widen "
    "net.ipv4.ip_local_port_range, or give the machine an address of this family",
}


class ShortageError(UpstreamError):
    """Dialling failed for want of something that the gateway's own machine has to provide."""

    def __init__(self, error: OSError, remedy: str) -> None:
        super().__init__(CloseReason.EXHAUSTED, f"{error.strerror or error}: {remedy}")


def shortage(error: OSError) -> ShortageError | None:
    """Return what ``error`` of a dial says about this machine; ``None`` when it is about the destination."""
    remedy = _REMEDIES.get(error.errno or 0)
    return ShortageError(error, remedy) if remedy else None


class ShortageLog:
    """One log line for the first of many."""

    def __init__(self, now: Callable[[], float]) -> None:
        """``now`` in seconds, of a clock that only goes forward."""
        self._now = now
        self._quiet_until_s = float("-inf")
        self._unsaid = 0

    def note(self, service: str, failure: ShortageError) -> None:
        if self._now() < self._quiet_until_s:
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} more since this was said last)" if self._unsaid else ""
        emit(logger, logging.ERROR, "dial.exhausted", f"cannot dial {service}: {failure}{more}", service=service)
        self._quiet_until_s, self._unsaid = self._now() + QUIET_S, 0
