"""What the set of workers is to be, said once by whoever starts the gateway."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from plugin.addresses import HostPort
from plugin.workers import process
from proxy.messages import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    gateway: str
    """The gateway's service ID."""
    addresses: tuple[HostPort, ...]
    count: int
    limits: Limits = field(default_factory=Limits)
    access_log_fd: int = -1
    audit_log_fd: int = -1
    audit_allowed: bool = False
    log_level: str = "info"
    log_format: str = "text"
    handover_timeout_s: float = 3600.0
    """How long a replaced worker may keep its live connections."""
    retire_after_s: float = 0.0
    """How long an address that is no longer wanted is still served."""
    command: tuple[str, ...] = field(default_factory=process.worker_command)


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))
