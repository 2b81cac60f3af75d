"""Everything the demonstration needs, started in order and ended in reverse, each step told as it happens.

Outside the mesh: an HTTP service, an HTTPS service of a partner, a PostgreSQL. In the mesh: ``web`` and ``batch`` with
their Envoy sidecars. Between them: the gateway. All on loopback.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import string
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import Sidecar
from plugin.dev.external import ExternalService, hello
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.postgres import Postgres
from plugin.dev.processes import can_connect, free_ports, wait_until
from plugin.dev.remote_agent import RemoteAgent
from plugin.errors import StartError

GATEWAY = "terminating-gateway"
SERVICES = ("billing-db", "partner-api", "legacy-http")
PARTNER_NAME = "api.partner.example"
_FIELD = {field: re.compile(rf'^{field}\s*=\s*"([^"]+)"', re.MULTILINE) for field in ("Kind", "Name")}
_EXTERNAL_NODE = "outside-the-mesh"
# Where people look first, when nothing else is there.
_PREFERRED = {"consul": 8500, "grpc": 8502, "gateway": 8443, "admin": 19090}

Report = Callable[[str, str], None]
"""Gets the name of a step and what came of it."""


class Stage:
    """Use as ``async with``; every attribute is there afterwards."""

    def __init__(self, work_dir: Path, report: Report) -> None:
        self.work_dir = work_dir
        self.agent = self._agent()
        self.postgres = Postgres()
        self.authority = Authority("Partner CA")
        partner = functools.partial(hello, name="partner-api")
        self.http = ExternalService(functools.partial(hello, name="legacy-http"))
        self.https = ExternalService(partner, tls=self.authority.server(PARTNER_NAME))
        self.web_ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        self.batch_ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        self.gateway = Gateway(
            self.agent, work_dir, GATEWAY, port=preferred("gateway"), admin_port=preferred("admin"), workers=0
        )
        self.web = Sidecar(self.agent, "web", list(self.web_ports.items()))
        self.batch = Sidecar(self.agent, "batch", list(self.batch_ports.items()))
        self._report = report
        self._stack = contextlib.AsyncExitStack()

    def _agent(self) -> ConsulAgent:
        if os.environ.get("CONSUL_HTTP_ADDR"):
            return RemoteAgent(self.work_dir / "consul")
        agent = ConsulAgent(self.work_dir / "consul", default_intention_policy="deny")
        agent.http_port, agent.grpc_port = preferred("consul"), preferred("grpc")
        return agent

    async def __aenter__(self) -> Stage:
        try:
            await self._set_up()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _set_up(self) -> None:
        await self._step("Consul agent", self.agent, lambda: self.agent.http_address)
        await self._step("PostgreSQL, outside the mesh", self.postgres, lambda: f"127.0.0.1:{self.postgres.port}")
        await self._step("HTTP service, outside the mesh", self.http, lambda: f"127.0.0.1:{self.http.port}")
        await self._step("TLS service, outside the mesh", self.https, lambda: f"127.0.0.1:{self.https.port}")
        await self._register_external()
        await self._write_entries()
        await self._step("Terminating gateway", self.gateway, lambda: f"{self.gateway.address}:{self.gateway.port}")
        await self._step("web, in the mesh, with its sidecar", self.web, lambda: "allowed by intention")
        await self._step("batch, in the mesh, with its sidecar", self.batch, lambda: "denied by intention")
        await self._wait_for_the_catalog()

    async def _step(
        self, name: str, part: contextlib.AbstractAsyncContextManager[Any], outcome: Callable[[], str]
    ) -> None:
        self._report(name, "")
        began = time.monotonic()
        await self._stack.enter_async_context(part)
        self._report(name, f"{outcome()}  ({time.monotonic() - began:.1f} s)")

    async def _register_external(self) -> None:
        name = "External services in the catalog"
        self._report(name, "")
        ports = {"billing-db": self.postgres.port, "partner-api": self.https.port, "legacy-http": self.http.port}
        for service, port in ports.items():
            await self.agent.register_external(_EXTERNAL_NODE, "127.0.0.1", service, port)
        self._stack.push_async_callback(self._forget_external)
        self._report(name, ", ".join(SERVICES))

    async def _forget_external(self) -> None:
        if isinstance(self.agent, RemoteAgent):
            await self.agent.deregister_external(_EXTERNAL_NODE)

    async def _write_entries(self) -> None:
        folder = entries_folder()
        tls_dir = self.work_dir / "tls"
        tls_dir.mkdir()
        self.authority.write(tls_dir, "partner-ca")
        for path in sorted(folder.glob("*.hcl")):
            text = string.Template(path.read_text()).safe_substitute(TLS_DIR=str(tls_dir))
            if not text.lstrip().startswith("Kind") and "\nKind" not in text:
                continue  # an ACL policy, which is no config entry
            if isinstance(self.agent, RemoteAgent):
                if "proxy-defaults" in text:
                    continue  # somebody's own mesh: its global settings are not ours to write
                await self._take_back(self.agent, text)
            self._report(f"consul config write {path.name}", "")
            await self.agent.write_config(text)
            self._report(f"consul config write {path.name}", "written")

    async def _take_back(self, agent: RemoteAgent, text: str) -> None:
        """In the end, let the entry of ``text`` be again what it is now."""
        kind, name = (_FIELD[field].search(text).group(1) for field in ("Kind", "Name"))  # type: ignore[union-attr]
        former = await agent.config_entry(kind, name)
        self._stack.push_async_callback(agent.restore_config, kind, name, former)

    async def _wait_for_the_catalog(self) -> None:
        """A request that comes before the sidecar knows the gateway fails, and Envoy remembers such failures."""
        name = "Sidecars know the gateway"
        self._report(name, "")
        for sidecar in (self.web, self.batch):
            await wait_until(functools.partial(_has_healthy_endpoints, sidecar), 60, what=f"{sidecar.service}: {name}")
        self._report(name, "yes")


async def _has_healthy_endpoints(sidecar: Sidecar) -> bool:
    with contextlib.suppress(StartError):
        clusters = await sidecar.admin("/clusters")
        healthy = {
            line.split(".", 1)[0]
            for line in clusters.splitlines()
            if line.endswith("health_flags::healthy") and "127.0.0.1" in line
        }
        return set(SERVICES) <= healthy
    return False


def entries_folder() -> Path:
    """The config entries of the demonstration: those of the checkout, else those that were installed.

    :raises StartError: when there are none.
    """
    for folder in (Path(__file__).parents[2] / "consul-config", Path(__file__).parent / "consul-config"):
        if folder.is_dir():
            return folder
    raise StartError("no consul-config folder: run the demonstration from a checkout")


def preferred(what: str) -> int:
    """The usual port for it if that is free, else any free one."""
    port = _PREFERRED[what]
    return free_ports(1)[0] if can_connect("127.0.0.1", port) else port
