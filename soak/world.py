"""Everything that a soak runs on: a Consul that keeps its state, the gateway with two workers, external services."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import load_key_pair
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority, KeyPair
from plugin.dev.processes import Child, can_connect, free_ports
from plugin.errors import ConsulError, StartError
from soak.asked import FLIP, OPEN, pair_of
from soak.ledger import Ledger, Pair, Standing
from soak.services import PumpService
from soak.web_service import CallService, WebService

NAME = "soak-gateway"
STEADY, FLIPPED, INTRUDER = "soak-steady", "soak-flipped", "soak-intruder"
"""Sources: always allowed, now and then denied, never allowed."""
PLAIN, SECURED, RELINKED, STOPPED = "soak-plain", "soak-secured", "soak-relinked", "soak-stopped"
"""Linked services: TCP; mutual TLS; unlinked now and then; a process of its own, which is stopped now and then."""
WEB, CALLS = "soak-web", "soak-calls"
"""Of the protocols http and grpc, with permissions by path (:mod:`soak.asked`)."""
IN_FORCE_S = 60.0
"""A change that is not in every worker by then is lost."""
_POLL_S = 0.01
_PROJECT = Path(__file__).resolve().parent.parent
_TLS_NAME = "secured.example"
_SHORT_LEAVES = {"LeafCertTTL": "120s", "SkipValidate": True}
_LEAF_AGE_S = 15.0
"""A client asks the agent for its newest leaf and the roots after that long."""


class World:
    """Use :func:`running_world`. All waiting has deadlines: :class:`StartError` says what did not come."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder = folder
        self.ledger = ledger
        hcl = 'connect { ca_config { leaf_cert_ttl = "120s" SkipValidate = true } }'
        self.agent = ConsulAgent(folder / "consul", persistent=True, default_intention_policy="deny", extra_hcl=hcl)
        self.gateway = Gateway(self.agent, folder / "gateway", NAME, workers=2)
        self.plain = PumpService(ledger.verified, ledger.violated, ports=4)
        self.secured = PumpService(ledger.verified, ledger.violated)
        self.web = WebService(ledger)
        self.calls = CallService(ledger)
        self.stopped: Child | None = None
        self.control_away = False
        """The control process is being restarted: the admin API need not answer."""
        self.consul_away = False
        self.links = [PLAIN, SECURED, RELINKED, STOPPED, WEB, CALLS]
        self.permission = "allow"
        """Of the path that is now and then denied."""
        self.actions = {STEADY: "allow", FLIPPED: "allow"}
        self.authority = Authority("External CA")
        self._client_authority = Authority("Gateway client CA")
        self._identities: dict[str, tuple[float, ssl.SSLContext]] = {}
        self._trust_domain = ""
        self._roots = 0

    # --- in Consul -------------------------------------------------------------------------------------------

    async def write_links(self) -> None:
        fields = {"CAFile": "ca.pem", "CertFile": "client.pem", "KeyFile": "client.key"}
        secured = {key: str(self.folder / name) for key, name in fields.items()} | {"SNI": _TLS_NAME}
        services = [{"Name": name, **(secured if name == SECURED else {})} for name in self.links]
        await self.agent.write_config({"Kind": "terminating-gateway", "Name": NAME, "Services": services})

    async def write_intentions(self, service: str) -> None:
        actions = self.actions if service == PLAIN else {STEADY: "allow"}
        sources = [{"Name": source, "Action": action} for source, action in actions.items()]
        await self.agent.write_config({"Kind": "service-intentions", "Name": service, "Sources": sources})

    async def write_permissions(self) -> None:
        """Of both services of HTTP."""
        permissions = [
            {"Action": "allow", "HTTP": {"PathPrefix": f"{OPEN}/"}},
            {"Action": self.permission, "HTTP": {"PathPrefix": f"{FLIP}/"}},
        ]
        sources = [{"Name": STEADY, "Permissions": permissions}]
        for service in (WEB, CALLS):
            await self.agent.write_config({"Kind": "service-intentions", "Name": service, "Sources": sources})

    async def permit(self, action: str) -> float:
        """Write the permission of that path; seconds until it is in force in every worker."""
        pairs = [pair_of(STEADY, service, FLIP) for service in (WEB, CALLS)]
        self.permission = action
        began_s = time.monotonic()
        for pair in pairs:
            self.ledger.stands(pair, Standing.CHANGING)
        await self.write_permissions()
        what = f"{action} {FLIP}"
        await self.in_force(lambda shown: {permission_of(shown, one) for one in (WEB, CALLS)} == {action}, what)
        for pair in pairs:
            self.ledger.stands(pair, Standing.ALLOWED if action == "allow" else Standing.DENIED)
        took_s = time.monotonic() - began_s
        self.ledger.effects_s.append(took_s)
        return took_s

    async def register(self, service: str, number: int, port: int) -> None:
        await self.agent.register_external(f"{service}-{number}", "127.0.0.1", service, port)

    async def deregister(self, service: str, number: int) -> None:
        await self.agent.deregister_external(f"{service}-{number}")

    async def new_root(self) -> None:
        # Each has a name of its own, as Consul's have. With one name for two, the certificate by which the former root
        # vouches for the next one looks self-signed, and whoever learns of the next one late cannot verify with it.
        self._roots += 1
        authority = Authority(f"Mesh root {self._roots}", trust_domain=self._trust_domain)
        keys = {"PrivateKey": authority.private_key_pem, "RootCert": authority.certificate_pem}
        path = self.folder / "ca.json"
        path.write_text(json.dumps({"Provider": "consul", "Config": keys | _SHORT_LEAVES}))
        await self.agent.cli("connect", "ca", "set-config", f"-config-file={path}")
        # A sidecar is told of new roots; so are these clients.
        self._identities.clear()

    async def roots(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.agent.api("GET", "/v1/agent/connect/ca/roots"))["Roots"]
        return found

    # --- files of the link with TLS --------------------------------------------------------------------------

    def write_ca(self, *authorities: Authority) -> str:
        text = "".join(one.certificate_pem for one in authorities)
        _replace(self.folder / "ca.pem", text)
        return text

    def write_client_pair(self) -> KeyPair:
        pair = self._client_authority.client("gateway")
        _replace(self.folder / "client.key", pair.private_key_pem)
        _replace(self.folder / "client.pem", pair.certificate_pem)
        return pair

    def show(self, authority: Authority) -> None:
        """The external service has a new certificate, of that authority."""
        self.secured.secure(authority.server(_TLS_NAME), self._client_authority.certificate_pem)

    # --- what is in force ------------------------------------------------------------------------------------

    async def in_force(self, holds: Callable[[Mapping[str, Any]], bool], what: str) -> float:
        """Wait until the state that every worker has reported as ``Applied`` is one that ``holds``; seconds that took.

        The admin API shows the state with its generation, and the generation of each worker.
        """
        began_s = time.monotonic()
        while True:
            with contextlib.suppress(StartError):
                snapshot = await self.gateway.snapshot()
                if holds(snapshot):
                    status = await self.gateway.status()
                    workers = [one for one in status["workers"] if not one["draining"]]
                    if len(workers) == self.gateway.workers and all(
                        one["generation"] >= snapshot["generation"] for one in workers
                    ):
                        return time.monotonic() - began_s
            if time.monotonic() - began_s > IN_FORCE_S:
                raise StartError(f"not in force after {IN_FORCE_S:g} s: {what}")
            await asyncio.sleep(_POLL_S)

    async def decide(self, source: str, action: str) -> float:
        """Write the intention of ``source`` for ``PLAIN``; seconds until it is in force in every worker."""
        pair: Pair = (source, PLAIN)
        self.actions[source] = action
        began_s = time.monotonic()
        self.ledger.stands(pair, Standing.CHANGING)
        await self.write_intentions(PLAIN)
        await self.in_force(lambda shown: action_of(shown, *pair) == action, f"{action} {source}")
        self.ledger.stands(pair, Standing.ALLOWED if action == "allow" else Standing.DENIED)
        took_s = time.monotonic() - began_s
        self.ledger.effects_s.append(took_s)
        return took_s

    async def workers(self) -> list[int]:
        status = await self.gateway.status()
        return [one["pid"] for one in status["workers"] if one["connected"]]

    # --- clients ---------------------------------------------------------------------------------------------

    async def context(self, source: str) -> ssl.SSLContext:
        """The newest leaf of ``source`` and all roots; while Consul is away, those of before."""
        known = self._identities.get(source)
        if known is not None and (time.monotonic() - known[0] < _LEAF_AGE_S or self.consul_away):
            return known[1]
        try:
            async with asyncio.timeout(10.0):
                roots = await self.agent.api("GET", "/v1/agent/connect/ca/roots", timeout_s=10.0)
                leaf = await self.agent.api("GET", f"/v1/agent/connect/ca/leaf/{source}", timeout_s=10.0)
        except (ConsulError, TimeoutError):
            if known is None:
                raise
            return known[1]
        self._trust_domain = roots["TrustDomain"]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata="".join(root["RootCert"] for root in roots["Roots"]))
        load_key_pair(context, KeyPair(leaf["CertPEM"], leaf["PrivateKeyPEM"]))
        self._identities[source] = (time.monotonic(), context)
        return context

    def server_name(self, service: str) -> str:
        return f"{service}.default.{self.agent.datacenter}.internal.{self._trust_domain}"

    # --- start -----------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        self.write_ca(self.authority)
        self.write_client_pair()
        self.show(self.authority)
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "plugin.dev.external", "echo", f"--port={port}"]
        self.stopped = Child("external service", command, self.folder / "external.log", folder=_PROJECT)
        await self.stopped.started(lambda: can_connect("127.0.0.1", port))
        places = {PLAIN: self.plain.ports[0], SECURED: self.secured.ports[0], RELINKED: self.plain.ports[0]}
        for service, place in (places | {STOPPED: port}).items():
            await self.register(service, 0, place)
            # These services share a machine with everything else: slow is not broken.
            await self.agent.write_config({"Kind": "service-resolver", "Name": service, "ConnectTimeout": "60s"})
            await self.write_intentions(service)
        for service, protocol, place in ((WEB, "http", self.web.port), (CALLS, "grpc", self.calls.port)):
            await self.agent.write_config({"Kind": "service-defaults", "Name": service, "Protocol": protocol})
            await self.register(service, 0, place)
            await self.agent.write_config({"Kind": "service-resolver", "Name": service, "ConnectTimeout": "60s"})
        await self.write_permissions()
        await self.write_links()

    async def serving(self) -> None:
        """Wait until all links are served by every worker."""
        for source in (STEADY, FLIPPED, INTRUDER):
            await self.context(source)
        await self.in_force(lambda shown: set(self.links) <= set(by_name(shown)), "all services are served")
        for service in self.links:
            self.ledger.stands((STEADY, service), Standing.ALLOWED)
        self.ledger.stands((FLIPPED, PLAIN), Standing.ALLOWED)
        for service in (WEB, CALLS):
            self.ledger.stands(pair_of(STEADY, service, FLIP), Standing.ALLOWED)


@asynccontextmanager
async def running_world(folder: Path, ledger: Ledger) -> AsyncIterator[World]:
    """Everything started and all links served; ``folder`` exists and is empty."""
    world = World(folder, ledger)
    async with contextlib.AsyncExitStack() as stack:
        for part in (world.plain, world.secured, world.web, world.calls, world.agent):
            await stack.enter_async_context(part)
        stack.push_async_callback(_end, world)
        await world.prepare()
        await stack.enter_async_context(world.gateway)
        await world.serving()
        yield world


async def _end(world: World) -> None:
    if world.stopped is not None:
        await world.stopped.terminate()


def by_name(snapshot: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The services of ``/api/snapshot``."""
    return {service["name"]["name"]: service for service in snapshot.get("upserts", ())}


def action_of(snapshot: Mapping[str, Any], source: str, service: str) -> str:
    """What the exact intention says; empty without one."""
    found = by_name(snapshot).get(service, {}).get("intentions") or ()
    return next((one["action"] for one in found if one["source"] == source), "")


def permission_of(snapshot: Mapping[str, Any], service: str) -> str:
    """What the permission of the path says that is now and then denied; empty without one."""
    found = by_name(snapshot).get(service, {}).get("intentions") or ()
    permissions = [permission for one in found for permission in one.get("permissions", ())]
    return next((one["action"] for one in permissions if one["path_value"] == f"{FLIP}/"), "")


def _replace(path: Path, text: str) -> None:
    """As deployments do it: nobody reads half of it."""
    temporary = path.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path)
