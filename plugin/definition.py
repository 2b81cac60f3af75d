"""The gateway's definition with the agent, where somebody else keeps it (``--no-register``).

Reads ``GET /v1/agent/service/:id`` and follows it by content hash. What it says about external services takes effect
at once, also another choice of addresses. It writes nothing to Consul.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from plugin.addresses import HostPort, bind_addresses
from plugin.consul import endpoints
from plugin.consul.client import ConsulClient, decode
from plugin.errors import ConfigError, GatewayError
from plugin.registration import AgentService
from proxy.logs import emit

logger = logging.getLogger(__name__)

WAIT_S = 60.0
ANSWER_S = 10.0
QUICK_ANSWER_S = 1.0
"""For an agent that is not necessary."""
RETRY_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
PATIENCE_S = 10.0
"""How long a start waits for the definition before it binds what the flags alone say."""


class Definition:
    """As somebody else registered it; its ``Proxy.Config`` lies under that of the flags, key by key."""

    def __init__(
        self,
        client: ConsulClient,
        service_id: str,
        address: HostPort,
        proxy_config: Mapping[str, object],
        *,
        learned: Callable[[Mapping[str, object]], None] = lambda config: None,
    ) -> None:
        """``address`` and ``proxy_config`` are those of the flags; ``learned`` gets each merged ``Proxy.Config``."""
        self._client = client
        self._service_id = service_id
        self._path = endpoints.agent_service(service_id)
        self._address = address
        self._own = dict(proxy_config)
        self.learned = learned
        self.bind_now: Callable[[tuple[HostPort, ...]], tuple[str, ...]] = lambda addresses: ()
        """Called with what is to be bound from now on; says why some of it cannot be."""
        self._hash = ""
        self._found: AgentService | None = None
        self._bound: tuple[HostPort, ...] | None = None
        self._unbound: tuple[str, ...] = ()
        """Why some of that could not be bound."""
        self.problem = ""

    @property
    def known(self) -> bool:
        """The agent has told it since the start."""
        return self._found is not None

    @property
    def proxy_config(self) -> dict[str, object]:
        return {**(self._found.proxy_config if self._found is not None else {}), **self._own}

    async def bind(self, former: tuple[HostPort, ...] = ()) -> tuple[HostPort, ...]:
        """Read the definition and return what is to be bound; after ``PATIENCE_S`` without it, what the flags say.

        :param former: what it said before an earlier start, if that is known: nothing is waited for then.
        :raises ConfigError: when it names an address that cannot be used.
        """
        if former and not await self._ask(QUICK_ANSWER_S):
            self._bound = former
            return former
        deadline = time.monotonic() + PATIENCE_S
        attempt = 0
        while not self.known and not await self._ask(ANSWER_S) and time.monotonic() < deadline:
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1
        self._bound = self._wanted()
        return self._bound

    async def run(self) -> None:
        """Follow the definition for ever. Faults of Consul are retried, never raised."""
        attempt = 0
        while True:
            if await self._ask(WAIT_S * 17 / 16 + ANSWER_S if self._hash else ANSWER_S):
                attempt = 0
            else:
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1

    async def _ask(self, timeout_s: float) -> bool:
        params = (("hash", self._hash), ("wait", f"{WAIT_S:g}s")) if self._hash else ()
        try:
            reply = await self._client.transport.request("GET", self._path, params, timeout_s=timeout_s)
            found = decode(reply, AgentService, self._path) if reply.status != 404 else None
        except GatewayError as error:
            self._hash = ""
            self._say(f"cannot read the definition of {self._service_id}: {error}")
            return False
        if found is None:
            self._hash = ""
            self._say(
                f"the agent has no service {self._service_id}: register it, or leave out --no-register;"
                " until then the flags and the last definition apply"
            )
            return False
        changed = self._found is None or found.content_hash != self._found.content_hash
        self._found, self._hash = found, found.content_hash
        if changed:
            self.learned(self.proxy_config)
        self._say(self._wrong() or self._rebind())
        return True

    def _wanted(self) -> tuple[HostPort, ...]:
        tagged = self._found.tagged if self._found is not None else {}
        return bind_addresses(self._address, self.proxy_config, tagged)

    def _wrong(self) -> str:
        assert self._found is not None
        if self._found.kind != "terminating-gateway":
            return (
                f"{self._service_id} is registered as {self._found.kind or 'an ordinary service'}; "
                "register it with Kind terminating-gateway, or sidecars will not find the gateway"
            )
        return ""

    def _rebind(self) -> str:
        """Bind what the definition says now; tried again with every answer of the agent, about once a minute."""
        if self._bound is None:
            return ""
        try:
            wanted = self._wanted()
        except ConfigError as error:
            return f"the definition of {self._service_id} cannot be bound, what is bound stays: {error}"
        if set(wanted) == set(self._bound) and not self._unbound:
            return ""
        self._unbound = self.bind_now(wanted)
        self._bound = wanted
        emit(
            logger, logging.INFO, "definition.bound", f"listening on {', '.join(map(str, wanted))} is what it says now"
        )
        return "; ".join(self._unbound)

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            emit(logger, logging.WARNING, "definition.problem", problem, service_id=self._service_id)
        self.problem = problem
