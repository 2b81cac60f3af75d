"""Learns what happens to a connection that no intention matches.

Consul has no endpoint for it. ``agent/self`` shows the settings it follows from, to tokens with ``agent:read``. Every
other token can ask ``agent/connect/authorize`` about a source that does not exist, provided that no intention with a
wildcard source answers in the default's place. That is excluded three times: what applies to the destination is read
before, the agent must give the default as its reason, and the index of all intentions must be the same before and
after. ``intentions/check`` would be the simpler question, but Consul's servers do not know ``default_intention_policy``
(seen in 1.21: the answer is that of the ACL policy). When neither way tells, the default stays unknown, which denies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from plugin.consul import endpoints
from plugin.consul.api import IntentionMatch
from plugin.consul.client import ConsulClient, decode
from plugin.consul.poller import WatchState
from plugin.consul.watch import Backoff
from plugin.errors import ConsulForbidden, ConsulRejected, ConsulUnavailable, GatewayError
from plugin.observe.store import FactStore
from proxy.model import ServiceName
from proxy.rules import Action

logger = logging.getLogger(__name__)

RELEARN_S = (120.0, 180.0)
"""An agent can be restarted with another policy without that anybody notices."""
UNDETERMINED_S = (20.0, 40.0)
"""A change of the intentions ends this pause."""
CANDIDATES = 8
"""Destinations that are tried at a time."""
REASONS = (
    "Default intention policy",
    "Default behavior configured by ACLs",
    "ACLs disabled, access is allowed by default",
)
"""How agents (1.8 to 1.21) say that no intention matched."""


class Undetermined(GatewayError):
    """The default is hidden behind wildcard intentions, or intentions changed while it was looked for."""


class _Authorization(msgspec.Struct, frozen=True, rename="pascal"):
    authorized: bool
    reason: str


class DefaultActionLearner:
    def __init__(self, client: ConsulClient, store: FactStore, gateway: str) -> None:
        self._client = client
        self._store = store
        self._gateway = client.home(gateway)
        self._backoff = Backoff()
        self._kick = asyncio.Event()
        self._problem: GatewayError | None = None
        self._confirmed_s: float | None = None
        self._requests = 0

    def agent_returned(self) -> None:
        """The agent was away: it may have been restarted with other settings."""
        self._kick.set()

    def intentions_changed(self) -> None:
        if isinstance(self._problem, Undetermined):
            self._kick.set()

    async def run(self) -> None:
        while True:
            self._kick.clear()
            pause_s = await self._learn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._kick.wait()

    async def _learn(self) -> float:
        self._requests += 1
        try:
            action = await self._from_agent()
            if action is None:
                action = await self._from_probe()
        except GatewayError as problem:
            if str(problem) != str(self._problem or ""):
                logger.warning("default intention action: %s", problem)
            self._problem = problem
            self._store.default_action.failed(problem)
            pause_s = self._backoff.failed(problem)
            return random.uniform(*UNDETERMINED_S) if isinstance(problem, Undetermined) else pause_s
        self._problem = None
        self._confirmed_s = time.monotonic()
        self._backoff.succeeded()
        self._store.default_action.learned(action)
        return random.uniform(*RELEARN_S)

    async def _from_agent(self) -> Action | None:
        try:
            answer = await self._client.get(endpoints.AGENT_SELF, type=dict[str, Any])
        except (ConsulForbidden, ConsulRejected):
            return None
        config = answer.get("Config") or {}
        datacenter, version = config.get("Datacenter"), config.get("Version")
        if isinstance(datacenter, str) and datacenter:
            self._store.set_datacenter(datacenter)
        if isinstance(version, str) and version:
            self._store.set_consul_version(version)
        return action_of_agent(answer.get("DebugConfig") or {})

    async def _from_probe(self) -> Action:
        linked = list(self._store.linked())
        others = random.sample(linked, min(len(linked), CANDIDATES - 1))
        # The gateway's own name comes first: its token must be allowed to write it, so it may read its intentions.
        for destination in (self._gateway, *others):
            try:
                action = await self._probe(destination)
            except ConsulForbidden:
                continue
            if action is not None:
                return action
        raise Undetermined(
            "the default is not known, so what no intention matches is denied: it can be learned when the token has "
            'agent_prefix "" { policy = "read" }, or from a service without an intention from * that the token may read'
        )

    async def _probe(self, destination: ServiceName) -> Action | None:
        before = await self._index()
        if any(reaches_everyone(intention) for intention in await self._intentions(destination)):
            return None
        answer = await self._ask(destination)
        if await self._index() != before:
            raise ConsulUnavailable("intentions changed while the default intention action was looked for")
        if not answer.reason.startswith(REASONS):
            return None
        return Action.ALLOW if answer.authorized else Action.DENY

    async def _index(self) -> int:
        reply = await self._client.blocking_get(endpoints.INTENTIONS, endpoints.NO_INTENTIONS)
        if reply.status != 200 or reply.index is None:
            raise ConsulUnavailable("Consul gives no index for intentions")
        return reply.index

    async def _intentions(self, destination: ServiceName) -> Iterable[IntentionMatch]:
        name = destination.name
        params = (("by", "destination"), ("name", name), *endpoints.tenancy(destination))
        reply = await self._client.blocking_get(endpoints.INTENTIONS_MATCH, params)
        matches = decode(reply, dict[str, tuple[IntentionMatch, ...] | None], endpoints.INTENTIONS_MATCH)
        if name not in matches:
            raise ConsulUnavailable(f"Consul's answer about the intentions of {name} does not mention it")
        return matches[name] or ()

    async def _ask(self, destination: ServiceName) -> _Authorization:
        source = f"spiffe://nobody.consul/ns/default/dc/nowhere/svc/nobody-{secrets.token_hex(16)}"
        question = {"Target": destination.name, "ClientCertURI": source, "ClientCertSerial": "00"}
        tenancy = endpoints.tenancy(destination)
        reply = await self._client.post(endpoints.AUTHORIZE, question, tenancy)
        return decode(reply, _Authorization, endpoints.AUTHORIZE)

    def state(self) -> WatchState:
        age_s = None if self._confirmed_s is None else time.monotonic() - self._confirmed_s
        problem = str(self._problem) if self._problem else ""
        return WatchState(
            name="default intention action", index=0, age_s=age_s, problem=problem, requests=self._requests
        )


def reaches_everyone(intention: IntentionMatch) -> bool:
    """Whether an intention could match a source that nobody has heard of."""
    return "*" in (intention.source_name, intention.source_ns)


def action_of_agent(config: Mapping[str, Any]) -> Action | None:
    """From ``DebugConfig`` of ``/v1/agent/self``; ``None`` when it does not say.

    ``DefaultIntentionPolicy`` (1.17 and later) comes before the ACL policy; without ACLs everything is allowed.
    Consul 1.8 spells ``ACLDefaultPolicy`` at the top level.
    """
    chosen = config.get("DefaultIntentionPolicy")
    if not chosen:
        if config.get("ACLsEnabled") is False:
            return Action.ALLOW
        resolver = config.get("ACLResolverSettings")
        chosen = (resolver if isinstance(resolver, dict) else config).get("ACLDefaultPolicy")
    return Action(chosen) if chosen in ("allow", "deny") else None
