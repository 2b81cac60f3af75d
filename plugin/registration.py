"""The gateway's own registration with the agent: made, kept, reported on, and taken back.

The agent alone tells sidecars about this gateway, so its view is watched: when it forgot the gateway or
somebody changed the definition, it is registered again. Whether the gateway is well is decided elsewhere; here it is
only reported, through a TTL check.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from plugin.addresses import HostPort
from plugin.consul import endpoints
from plugin.consul.api import TaggedAddress
from plugin.consul.client import ConsulClient, decode
from plugin.errors import ConsulForbidden, ConsulRejected, GatewayError
from proxy.logs import emit

logger = logging.getLogger(__name__)

TTL_S = 30
"""Without a report for this long the agent calls the gateway critical."""
REPORT_INTERVAL_S = 10.0
DEREGISTER_AFTER = "6h"
WAIT_S = 60.0
RETRY_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
FORBIDDEN_RETRY_S = 1.0
"""Up to half as long again. A right that is given announces itself nowhere, and a refusal costs the agent little."""
LEAST_INTERVAL_S = 1.0
"""Between two registrations: a quarrel with another writer must not keep the agent busy."""


def ready_check_id(service_id: str) -> str:
    return f"service:{service_id}:ready"


def definition(
    *,
    service: str,
    service_id: str,
    address: HostPort,
    meta: Mapping[str, str],
    proxy_config: Mapping[str, object],
    passing: bool,
    tagged_addresses: Mapping[str, HostPort] | None = None,
    bound: Sequence[HostPort] = (),
) -> dict[str, Any]:
    """Body of ``PUT /v1/agent/service/register``. An unspecified address (``0.0.0.0``) registers the node's own.

    :param bound: where the gateway listens; empty: at ``address``.
    """
    body: dict[str, Any] = {
        "Kind": "terminating-gateway",
        "ID": service_id,
        "Name": service,
        "Address": "" if _is_unspecified(address) else address.host,
        "Port": address.port,
        "Meta": dict(meta),
        "Checks": [
            {
                "CheckID": ready_check_id(service_id),
                "Name": "terminating-gateway ready",
                "TTL": f"{TTL_S}s",
                "Status": "passing" if passing else "critical",
                "DeregisterCriticalServiceAfter": DEREGISTER_AFTER,
            },
            {
                "CheckID": f"service:{service_id}:listening",
                "Name": "terminating-gateway listening",
                "TCP": str(_probed(address, bound)),
                "Interval": "10s",
                "Timeout": "5s",
                "Status": "passing" if passing else "critical",
                "DeregisterCriticalServiceAfter": DEREGISTER_AFTER,
            },
        ],
    }
    if tagged_addresses:
        body["TaggedAddresses"] = {name: {"Address": at.host, "Port": at.port} for name, at in tagged_addresses.items()}
    if proxy_config:
        body["Proxy"] = {"Config": dict(proxy_config)}
    return body


def _is_unspecified(address: HostPort) -> bool:
    return address.host in ("0.0.0.0", "::")


def _probed(address: HostPort, bound: Sequence[HostPort]) -> HostPort:
    """What the agent's TCP check asks: the registered address if we listen there, for a load balancer's may not be
    reached from here, else the first one that we do listen on."""
    probed = address if not bound or address in bound else bound[0]
    if _is_unspecified(probed):
        return HostPort("::1" if ":" in probed.host else "127.0.0.1", probed.port)
    return probed


class _Proxy(msgspec.Struct, rename="pascal"):
    config: dict[str, Any] | None = None


class AgentService(msgspec.Struct, rename="pascal", kw_only=True):
    """``GET /v1/agent/service/:id``, as far as it is ours to say."""

    kind: str = ""
    service: str = ""
    address: str = ""
    port: int = 0
    meta: dict[str, str] | None = None
    tagged_addresses: dict[str, TaggedAddress] | None = None
    proxy: _Proxy | None = None
    content_hash: str = ""

    @property
    def proxy_config(self) -> dict[str, Any]:
        return (self.proxy.config if self.proxy else None) or {}

    @property
    def tagged(self) -> dict[str, HostPort]:
        return {name: HostPort(at.address, at.port) for name, at in (self.tagged_addresses or {}).items()}

    def differs_from(self, wanted: Mapping[str, Any]) -> str:
        """The field that somebody has changed; empty when none has."""
        tagged: dict[str, dict[str, object]] = wanted.get("TaggedAddresses", {})
        # The agent adds some of its own (lan_ipv4), which are not ours to judge.
        found = {name: {"Address": at.host, "Port": at.port} for name, at in self.tagged.items() if name in tagged}
        fields: tuple[tuple[str, object, object], ...] = (
            ("Kind", self.kind, wanted["Kind"]),
            ("Name", self.service, wanted["Name"]),
            ("Address", self.address, wanted["Address"]),
            ("Port", self.port, wanted["Port"]),
            ("Meta", self.meta or {}, wanted["Meta"]),
            ("TaggedAddresses", found, tagged),
            ("Proxy.Config", self.proxy_config, wanted.get("Proxy", {}).get("Config", {})),
        )
        return next((name for name, agent, ours in fields if agent != ours), "")


class Registration:
    """Runs from the moment the gateway is ready until it is cancelled; then :meth:`withdraw`."""

    def __init__(
        self,
        client: ConsulClient,
        *,
        service: str,
        service_id: str,
        address: HostPort,
        meta: Mapping[str, str],
        proxy_config: Mapping[str, object],
        tagged_addresses: Mapping[str, HostPort] | None = None,
        bound: Sequence[HostPort] = (),
        unwell: Callable[[], Awaitable[str]],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """``unwell`` says why the gateway should not get connections; empty when it should."""
        self._client = client
        self._service_id = service_id
        self._wanted = definition(
            service=service,
            service_id=service_id,
            address=address,
            meta=meta,
            proxy_config=proxy_config,
            passing=True,
            tagged_addresses=tagged_addresses,
            bound=bound,
        )
        self._unwell = unwell
        self._on_change = on_change
        self._report_now = asyncio.Event()
        self._missing = asyncio.Event()
        self.registered = False
        self.check = ""
        """``passing`` or ``critical``, as last reported."""
        self.problem = ""

    def report_soon(self) -> None:
        """The gateway's health may have changed."""
        self._report_now.set()

    async def run(self) -> None:
        """Register, then watch and report for ever. Faults of Consul are retried, never raised."""
        await self._register_until_done()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_registered(), name="registration")
            group.create_task(self._watch(), name="registration watch")
            group.create_task(self._report(), name="registration check")

    async def fail(self, note: str) -> None:
        """Report critical, so that sidecars turn away. :raises ConsulError: when Consul did not take it."""
        if self.registered:
            await self._client.fail_check(ready_check_id(self._service_id), note)
            self._reported("critical", note)

    async def withdraw(self) -> None:
        """Deregister. :raises ConsulError: when Consul did not take it; the TTL check then does the rest."""
        if self.registered:
            await self._client.deregister_service(self._service_id)
            self.registered = False
            emit(logger, logging.INFO, "registration.withdrawn", f"{self._service_id} was deregistered")

    async def _keep_registered(self) -> None:
        while True:
            await self._missing.wait()
            self._missing.clear()
            await self._register_until_done()
            await asyncio.sleep(LEAST_INTERVAL_S)

    async def _register_until_done(self) -> None:
        attempt = 0
        while (problem := await self._register()) is not None:
            await self._client.presence.pause(_pause_s(problem, attempt))
            attempt += 1

    async def _register(self) -> GatewayError | None:
        """Return what kept it from being registered."""
        note = await self._unwell()
        status = "critical" if note else "passing"
        for check in self._wanted["Checks"]:
            check["Status"] = status
        try:
            await self._client.register_service(self._wanted)
        except GatewayError as error:
            rule = (
                f"; the token lacks the rule {error.rule}" if isinstance(error, ConsulForbidden) and error.rule else ""
            )
            self._failed(f"cannot register {self._service_id} with the agent: {error}{rule}")
            return error
        self.registered = True
        self._reported(status, note)
        message = f"{self._service_id} is registered with the agent, {status}"
        emit(logger, logging.INFO, "registration.made", message, service_id=self._service_id)
        return None

    async def _watch(self) -> None:
        """Ask the agent what it knows of us, by content hash: the answer comes when it differs, or after the wait."""
        path = endpoints.agent_service(self._service_id)
        known = ""
        attempt = 0
        while True:
            params = (("hash", known), ("wait", f"{WAIT_S:g}s")) if known else ()
            try:
                reply = await self._client.transport.request(
                    "GET", path, params, timeout_s=WAIT_S * 17 / 16 + 10.0 if known else 10.0
                )
                found = decode(reply, AgentService, path) if reply.status != 404 else None
            except GatewayError as error:
                self._failed(f"cannot watch the registration of {self._service_id}: {error}")
                await self._client.presence.pause(_pause_s(error, attempt))
                attempt, known = attempt + 1, ""
                continue
            attempt = 0
            known = found.content_hash if found is not None else ""
            if reason := self._wrong(found):
                emit(logger, logging.WARNING, "registration.lost", f"{reason}; registering again")
                self._missing.set()
                await asyncio.sleep(LEAST_INTERVAL_S)

    def _wrong(self, found: AgentService | None) -> str:
        if found is None:
            return f"the agent does not know {self._service_id} any more"
        changed = found.differs_from(self._wanted)
        return f"somebody changed {changed} of {self._service_id}" if changed else ""

    async def _report(self) -> None:
        check_id = ready_check_id(self._service_id)
        while True:
            note = await self._unwell()
            try:
                if note:
                    await self._client.fail_check(check_id, note)
                else:
                    await self._client.pass_check(check_id, "workers have the newest state and answer")
            except ConsulRejected as error:
                self._failed(f"the agent does not take reports on {check_id}: {error}")
                self._missing.set()
            except GatewayError as error:
                self._failed(f"cannot report on {check_id}: {error}")
            else:
                self._reported("critical" if note else "passing", note)
            await self._pause()

    async def _pause(self) -> None:
        """Until the next report is due, or something changed."""
        try:
            well = self.check == "passing" and not self.problem
            async with asyncio.timeout(REPORT_INTERVAL_S if well else LEAST_INTERVAL_S):
                await self._report_now.wait()
        except TimeoutError:
            return
        self._report_now.clear()

    def _reported(self, status: str, note: str) -> None:
        if status != self.check:
            level = logging.INFO if status == "passing" else logging.WARNING
            emit(logger, level, "registration.check", f"the gateway is {status}" + (f": {note}" if note else ""))
        self.check = status
        self.problem = ""
        self._on_change()

    def _failed(self, problem: str) -> None:
        if problem != self.problem:
            emit(logger, logging.WARNING, "registration.problem", problem)
        self.problem = problem
        self._on_change()


def _pause_s(problem: GatewayError, attempt: int) -> float:
    """How long to wait before the next try."""
    if isinstance(problem, ConsulForbidden):
        return FORBIDDEN_RETRY_S * random.uniform(1.0, 1.5)
    return RETRY_S[min(attempt, len(RETRY_S) - 1)]
