"""Real Envoy proxies that a Consul agent configures: sidecars, and Consul's own terminating gateway.

``consul connect envoy -bootstrap`` registers and writes the bootstrap; Envoy is then started here rather than by that
command, which replaces itself from a thread and so loses the request to die with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from plugin.addresses import HostPort
from plugin.dev import locate
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.processes import START_DEADLINE_S, Child, Launcher, free_ports, wait_until
from plugin.errors import ConsulError, StartError

_ADMIN_TIMEOUT_S = 10.0


class _Envoy(Launcher):
    """One Envoy process. Subclasses say how it is registered and which listeners it must have to be of use."""

    def __init__(
        self,
        agent: ConsulAgent,
        proxy_id: str,
        *,
        token: str | None,
        concurrency: int,
        dns_server: HostPort | None = None,
        live_deadline_s: float = START_DEADLINE_S,
    ) -> None:
        self._live_deadline_s = live_deadline_s
        self.agent = agent
        self.proxy_id = proxy_id
        self.token = agent.management_token if token is None else token
        self.concurrency = concurrency
        self.admin_port = free_ports(1)[0]
        self._dns_server = dns_server
        self.child: Child | None = None

    @property
    def pid(self) -> int:
        """Envoy's own. :raises StartError: when it does not run."""
        return self._running().pid

    def cpu_s(self) -> float:
        """Seconds of processor time that Envoy has used."""
        return self._running().cpu_s()

    def _running(self) -> Child:
        if self.child is None:
            raise StartError(f"the Envoy of {self.proxy_id} does not run: start it first")
        return self.child

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.terminate()
            self.child = None

    async def admin(self, path: str, method: str = "GET") -> str:
        """What Envoy's admin interface answers. :raises StartError: when it does not, or not with HTTP 200."""
        address = f"http://127.0.0.1:{self.admin_port}{path}"
        timeout = aiohttp.ClientTimeout(total=_ADMIN_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, address) as answer,
            ):
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StartError(f"no answer from {address}: {error}") from error
        if answer.status != 200:
            raise StartError(f"{address}: HTTP {answer.status}: {text.strip()}")
        return text

    async def listeners(self) -> list[str]:
        """The names of the active listeners."""
        answer = json.loads(await self.admin("/listeners?format=json"))
        return [listener["name"] for listener in answer.get("listener_statuses", [])]

    async def _run(self, *registration: str) -> None:
        envoy = await asyncio.to_thread(locate.envoy)
        bootstrap = await self.agent.cli(
            "connect",
            "envoy",
            *registration,
            "-bootstrap",
            "-ignore-envoy-compatibility",
            f"-grpc-addr={self.agent.grpc_address}",
            f"-admin-bind=127.0.0.1:{self.admin_port}",
            token=self.token,
        )
        work_dir = self.agent.work_dir
        path = work_dir / f"{self.proxy_id}.bootstrap.json"
        path.write_text(_asking(self._dns_server, bootstrap) if self._dns_server else bootstrap)
        path.chmod(0o600)
        command = [str(envoy), "--config-path", str(path), "--concurrency", str(self.concurrency)]
        self.child = Child(
            f"Envoy ({self.proxy_id})",
            [*command, "--disable-hot-restart", "--log-level", "warning"],
            work_dir / f"{self.proxy_id}.log",
            folder=work_dir,
        )
        await self.child.started(self._is_live, self._live_deadline_s)

    async def _is_live(self) -> bool:
        with contextlib.suppress(StartError):
            return (await self.admin("/ready")).strip() == "LIVE"
        return False


def _asking(dns_server: HostPort, bootstrap: str) -> str:
    """Let Envoy resolve with that name server instead of those of /etc/resolv.conf."""
    package = "envoy.extensions.network.dns_resolver.cares.v3"
    address = {"address": dns_server.host, "port_value": dns_server.port}
    settings: dict[str, Any] = json.loads(bootstrap)
    settings["typed_dns_resolver_config"] = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": f"type.googleapis.com/{package}.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": address}],
        },
    }
    return json.dumps(settings)


class Sidecar(_Envoy):
    """A client service of the mesh and its sidecar, with a loopback port for each destination."""

    def __init__(
        self,
        agent: ConsulAgent,
        service: str,
        upstreams: Sequence[tuple[str, int] | Mapping[str, Any]] = (),
        *,
        token: str | None = None,
        service_id: str | None = None,
        service_port: int | None = None,
        proxy_config: Mapping[str, Any] | None = None,
        concurrency: int = 1,
    ) -> None:
        """``upstreams`` are ``(destination, local port)``, or elements of ``Proxy.Upstreams`` as Consul's API has
        them. ``service_port`` is where the service itself listens, if it does."""
        self.service = service
        self.service_id = service_id or service
        super().__init__(agent, f"{self.service_id}-sidecar-proxy", token=token, concurrency=concurrency)
        self.public_port = free_ports(1)[0]
        self._service_port = service_port or free_ports(1)[0]
        self._proxy_config = dict(proxy_config or {})
        self.upstreams = [_upstream(upstream) for upstream in upstreams]

    async def start(self) -> None:
        """Register both, start Envoy and wait until the upstreams listen."""
        await self.agent.register_service(self._definition())
        await self._run(f"-sidecar-for={self.service_id}")
        await self._running().started(self._listens)

    async def stop(self) -> None:
        await super().stop()
        # The agent may be paused or gone; what it would forget is then nobody's concern.
        with contextlib.suppress(ConsulError):
            await self.agent.deregister_service(self.service_id)

    async def _listens(self) -> bool:
        with contextlib.suppress(StartError):
            return len(await self.listeners()) >= len(self.upstreams) + 1
        return False

    def _definition(self) -> dict[str, Any]:
        proxy = {"Upstreams": self.upstreams, "Config": self._proxy_config}
        return {
            "Name": self.service,
            "ID": self.service_id,
            "Address": "127.0.0.1",
            "Port": self._service_port,
            "Connect": {"SidecarService": {"Port": self.public_port, "Address": "127.0.0.1", "Proxy": proxy}},
        }


def _upstream(upstream: tuple[str, int] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(upstream, Mapping):
        return dict(upstream)
    destination, port = upstream
    return {"DestinationName": destination, "LocalBindAddress": "127.0.0.1", "LocalBindPort": port}


class EnvoyTerminatingGateway(_Envoy):
    """``consul connect envoy -gateway=terminating``: what this project is compared with."""

    def __init__(
        self,
        agent: ConsulAgent,
        name: str = "terminating-gateway",
        address: str = "127.0.0.1",
        port: int | None = None,
        *,
        token: str | None = None,
        concurrency: int = 1,
        arguments: Sequence[str] = (),
        register: bool = True,
        dns_server: HostPort | None = None,
        live_deadline_s: float = START_DEADLINE_S,
    ) -> None:
        """``arguments`` are further ones of the command. Without ``register``, somebody else has registered it.
        ``dns_server`` is asked instead of those of /etc/resolv.conf. With many services it is
        live after ``live_deadline_s`` seconds at the latest, or has failed."""
        super().__init__(
            agent,
            name,
            token=token,
            concurrency=concurrency,
            dns_server=dns_server,
            live_deadline_s=live_deadline_s,
        )
        self.name = name
        self._arguments = list(arguments)
        self._register = register
        self.address = address
        self.port = port or free_ports(1)[0]

    async def start(self) -> None:
        """Register it, start Envoy and wait until it is live: it listens only when something is linked."""
        registration = [f"-service={self.name}", f"-address={self.address}:{self.port}", *self._arguments, "-register"]
        await self._run(
            "-gateway=terminating", f"-proxy-id={self.proxy_id}", *(registration if self._register else self._arguments)
        )

    async def stop(self) -> None:
        await super().stop()
        if self._register:
            with contextlib.suppress(ConsulError):
                await self.agent.deregister_service(self.proxy_id)

    async def listening(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until its listener is there. :raises StartError: when nothing is linked by then."""
        await wait_until(self.listeners, deadline_s, what=f"{self.proxy_id} has a listener")


class MeshGateway(_Envoy):
    """``consul connect envoy -gateway=mesh``: the way between clusters; one address stands for LAN and WAN."""

    def __init__(
        self,
        agent: ConsulAgent,
        name: str = "mesh-gateway",
        port: int | None = None,
        *,
        token: str | None = None,
        concurrency: int = 1,
    ) -> None:
        super().__init__(agent, name, token=token, concurrency=concurrency)
        self.name = name
        self.address = "127.0.0.1"
        self.port = port or free_ports(1)[0]

    async def start(self) -> None:
        """Register it, start Envoy and wait until it listens."""
        address = f"{self.address}:{self.port}"
        where = (f"-address={address}", f"-wan-address={address}")
        await self._run("-gateway=mesh", f"-service={self.name}", f"-proxy-id={self.proxy_id}", *where, "-register")
        await self._running().started(self._listens)

    async def stop(self) -> None:
        await super().stop()
        with contextlib.suppress(ConsulError):
            await self.agent.deregister_service(self.proxy_id)

    async def _listens(self) -> bool:
        with contextlib.suppress(StartError):
            return bool(await self.listeners())
        return False
