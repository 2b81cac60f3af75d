"""Tells whose checks have begun to fail, or have stopped: which services to read again, however many there are.

Two blocking queries, for all checks that are critical and for all that warn. Consul wakes them only when one of those
checks changes, and answers with those alone: in a healthy datacenter next to nothing. They only hint. What counts is
read for each service, and a service whose checks may not be read cannot be read either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient, decode_rows
from plugin.consul.poller import Poller, WatchState
from plugin.consul.transport import Reply
from plugin.consul.watch import News
from plugin.errors import GatewayError
from proxy.model import ServiceName


class FailingCheck(
    msgspec.Struct,
    frozen=True,
    rename={
        "node": "Node",
        "check_id": "CheckID",
        "service_id": "ServiceID",
        "service_name": "ServiceName",
        "namespace": "Namespace",
        "partition": "Partition",
    },
):
    """What identifies a check, of a row of ``GET /v1/health/state/:state``. What it last said is left out: it changes
    often, and makes no instance another one."""

    node: str
    check_id: str
    service_id: str = ""
    """Empty: it is of the whole node."""
    service_name: str = ""
    namespace: str = "default"
    partition: str = "default"

    @property
    def service(self) -> ServiceName | None:
        """``None``: every service that has an instance on the node."""
        if not self.service_name:
            return None
        return ServiceName(self.service_name, self.namespace or "default", self.partition or "default")


Checks = frozenset[FailingCheck]
_STATES = ("critical", "warning")


class FailingChecks:
    def __init__(
        self,
        client: ConsulClient,
        *,
        turned: Callable[[Iterable[FailingCheck]], None],
        failed: Callable[[GatewayError], None],
    ) -> None:
        """``turned`` is told which checks came or went in either state; ``failed`` why nobody can tell."""
        self._turned = turned
        self._seen: dict[str, Checks] = {}
        self._pollers = [self._poller(client, state, failed) for state in _STATES]

    def _poller(self, client: ConsulClient, state: str, failed: Callable[[GatewayError], None]) -> Poller[Checks]:
        path = endpoints.health_state(state)

        def decode(reply: Reply) -> Checks:
            return frozenset(decode_rows(reply, FailingCheck, path))

        return Poller(
            client,
            f"{state} checks of any service",
            path,
            decode=decode,
            learned=lambda news: self._learned(state, news),
            failed=failed,
            prompt=True,
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for poller in self._pollers:
                group.create_task(poller.run(), name=poller.name)

    def ask_afresh(self) -> None:
        """The token may read more than before."""
        for poller in self._pollers:
            poller.ask_afresh()

    def retry_now(self) -> None:
        """Whatever made questions fail may have passed."""
        for poller in self._pollers:
            poller.retry_now()

    def states(self) -> list[WatchState]:
        return [poller.state() for poller in self._pollers]

    def _learned(self, state: str, news: News[Checks]) -> None:
        now = news.value or frozenset()
        turned = self._seen.get(state, frozenset()) ^ now
        self._seen[state] = now
        if turned:
            self._turned(turned)
