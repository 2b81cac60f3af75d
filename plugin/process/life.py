"""The life of a running gateway: its phases, and which one follows which.

Decides nothing: the supervisor and the stop sequence say what happens, status and metrics show it.
"""

from __future__ import annotations

import enum
import logging

from proxy.logs import emit

logger = logging.getLogger(__name__)


class Phase(enum.StrEnum):
    STARTING = "starting"
    """Not every worker has had the first state in force yet."""
    SERVING = "serving"
    RELOADING = "reloading"
    """Serving, while a new generation of processes gets ready to take over."""
    LEAVING = "leaving"
    """Consul says critical, and new connections are still served: sidecars turn away."""
    DRAINING = "draining"
    """New connections are refused, live ones go on."""
    CLOSING = "closing"
    """What is left is ended, one by one."""


_NEXT = {
    Phase.STARTING: {Phase.SERVING, Phase.LEAVING},
    Phase.SERVING: {Phase.RELOADING, Phase.LEAVING},
    Phase.RELOADING: {Phase.SERVING, Phase.LEAVING},
    Phase.LEAVING: {Phase.DRAINING},
    Phase.DRAINING: {Phase.CLOSING},
    Phase.CLOSING: set[Phase](),
}


class Life:
    def __init__(self) -> None:
        self.phase = Phase.STARTING

    @property
    def stopping(self) -> bool:
        return self.phase in (Phase.LEAVING, Phase.DRAINING, Phase.CLOSING)

    def enter(self, phase: Phase) -> None:
        assert phase in _NEXT[self.phase], f"{phase} cannot follow {self.phase}"
        emit(logger, logging.INFO, "gateway.phase", f"{self.phase} is over, now {phase}", phase=phase.value)
        self.phase = phase
