"""What the admin pages may ask of the running gateway: a seam, so that pages know nothing of processes or Consul."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import msgspec

from plugin.answers.status import Status
from plugin.workers.counters import Totals
from proxy.messages import Connection

if TYPE_CHECKING:
    from plugin.workers.worker import Worker


class WorkerConnection(msgspec.Struct, frozen=True):
    """A live connection and the worker that carries it."""

    worker: int
    pid: int
    connection: Connection
    id: str = ""
    """``WORKER-NUMBER``, as the access log has the two; while a replaced worker drains, its successor may have a
    connection of the same ID, and ``pid`` tells them apart."""


class ConnectionList(msgspec.Struct, frozen=True):
    """The answer of ``/api/connections``."""

    connections: tuple[WorkerConnection, ...]
    next: str
    """Pass it as ``after`` to get the following page; empty at the end."""
    problems: tuple[str, ...] = ()
    """Workers that did not answer."""


def shown(worker: Worker, page: Iterable[Connection]) -> list[WorkerConnection]:
    return [WorkerConnection(worker.index, worker.pid, one, f"{worker.index}-{one.number}") for one in page]


class GatewayView(Protocol):
    def not_ready(self) -> tuple[str, ...]:
        """Why new connections are not served with the newest state; empty when they are. Asked often, by probes."""
        ...

    def status(self) -> Status: ...

    def totals(self) -> Totals: ...

    async def connections(self, after: str, limit: int) -> ConnectionList:
        """Oldest first within each worker. :raises ConfigError: when ``after`` is not one of our own."""
        ...

    def snapshot(self) -> bytes:
        """The state the workers should have, as JSON without private keys."""
        ...
