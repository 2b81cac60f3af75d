"""What this worker has room for, and telling operators when it has none, without flooding their logs.

Pure but for the clock that the callers bring and the log. It counts nothing that lives: whoever asks says how many
there are.
"""

from __future__ import annotations

import logging
import resource

from proxy.logs import emit
from proxy.messages import Limits

logger = logging.getLogger(__name__)

_OWN_DESCRIPTORS = 64
"""Listening sockets, logs, the link with the control process, and some that are being closed."""
_DESCRIPTORS_EACH = 2
"""The client's and the external service's."""
_REMIND_EACH_S = 10.0
_LINES_EACH_S = 50
_LINES_AT_ONCE = 500


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as its hard limit allows (setrlimit(2)); return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # a sandbox may forbid it; what there is will do
    return soft


def connections_for(descriptors: int) -> int:
    """How many connections so many descriptors carry."""
    if descriptors == resource.RLIM_INFINITY:
        return 1 << 31
    return max(1, (descriptors - _OWN_DESCRIPTORS) // _DESCRIPTORS_EACH)


class Room:
    """The share of one worker in each limit."""

    def __init__(self, limits: Limits, descriptors: int) -> None:
        """``descriptors``: how many this process may have. Warns when they do not do for the limits."""
        self._workers = max(limits.workers, 1)
        wanted, possible = self.share(limits.connections), connections_for(descriptors)
        self.connections = min(wanted or possible, possible)
        self.limited_by = "the limit" if wanted and wanted <= possible else "what its open files allow"
        self.pending_handshakes = self.share(limits.pending_handshakes)
        self.of_a_service = self.share(limits.service_connections)
        if wanted > possible:
            emit(
                logger,
                logging.WARNING,
                "limits.descriptors",
                f"{descriptors} open files do for {possible} connections of this worker, and its share of"
                f" --max-connections is {wanted}: raise the hard limit of open files (LimitNOFILE= of systemd,"
                f" ulimit -Hn) to {wanted * _DESCRIPTORS_EACH + _OWN_DESCRIPTORS}, or lower --max-connections",
            )

    def share(self, whole: int) -> int:
        """This worker's part of what the gateway may have; at least one, and 0 for no limit."""
        return -(-whole // self._workers)


class Reminder:
    """Says that something happens again and again: the first time at once, then how often, now and then."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._quiet_until_s = 0.0
        self._untold = 0

    def note(self, detail: str, now_s: float) -> None:
        """It has happened. ``detail`` of the newest stands for all; ``now_s`` is of the monotonic clock."""
        self._untold += 1
        if now_s < self._quiet_until_s:
            return
        times = f" ({self._untold} times since the last line about it)" if self._untold > 1 else ""
        emit(logger, logging.WARNING, self._event, detail + times, count=self._untold)
        self._quiet_until_s = now_s + _REMIND_EACH_S
        self._untold = 0


class LineBudget:
    """How many lines of a log strangers may cause: a burst, then so many a second."""

    def __init__(self, event: str = "access_log.left_out", log: str = "access log") -> None:
        self._left = float(_LINES_AT_ONCE)
        self._at_s = 0.0
        self._log = log
        self._reminder = Reminder(event)

    def spend(self, now_s: float) -> bool:
        """Is there a line left? ``now_s`` is of the monotonic clock."""
        self._left = min(_LINES_AT_ONCE, self._left + (now_s - self._at_s) * _LINES_EACH_S)
        self._at_s = now_s
        if self._left < 1:
            self._reminder.note(
                f"connections that ended before their caller was known are left out of the {self._log}: there are too"
                " many; the metrics count all of them",
                now_s,
            )
            return False
        self._left -= 1
        return True
