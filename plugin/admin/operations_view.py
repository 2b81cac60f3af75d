"""What operators ask of a running gateway beyond its state: a seam, as ``view.py`` is."""

from __future__ import annotations

from typing import Protocol

import msgspec

from plugin.admin.view import WorkerConnection
from plugin.answers.certificates import CertificateList
from plugin.answers.traffic import Traffic
from plugin.effective import Effective
from plugin.events.ring import EventPage


class KillRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/connections/kill``: what a connection must have to be ended, all of it."""

    id: str = ""
    """Of a :class:`WorkerConnection`."""
    pid: int = 0
    """Of the process that carries it; 0 is any."""
    service: str = ""
    source: str = ""
    """The caller's name (``peer:name`` across a peering) or SPIFFE ID."""
    reason: str = ""
    """For the access log."""


class KillReport(msgspec.Struct, frozen=True):
    """The answer."""

    ended: tuple[WorkerConnection, ...]
    """As they were just before."""
    problems: tuple[str, ...] = ()
    """Workers that did not answer."""


class OperationsView(Protocol):
    async def events(self, after: int, wait_s: float) -> EventPage:
        """What came after event ``after``; waited for up to ``wait_s`` while there is none."""
        ...

    def stop_waiting(self) -> None:
        """Answer everybody who waits: the process ends."""
        ...

    def traffic(self) -> Traffic: ...

    def config(self) -> Effective: ...

    async def certificates(self) -> CertificateList: ...

    async def kill(self, wanted: KillRequest) -> KillReport:
        """:raises ConfigError: when it names nothing, or more than one connection by one ID."""
        ...
