"""One gateway under test with everything a case needs, the same for Envoy's and for ours.

The names that a case gives to services are its own: :meth:`Stand.named` makes them unique in the Consul that the
cases share, and what a case writes is taken away when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from plugin.addresses import HostPort
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.external import ExternalService, Handler, banner_first, echo
from plugin.dev.gateway import Gateway
from tests.support.dns_server import DNSServer, dns_server
from tests.support.eventually import SCALE, eventually
from tests.support.mesh_client import MeshClient, MeshConnection, Refused

REFUSED = "refused"
"""However it was: an alert, a reset, an end without a byte. The two gateways refuse differently."""

_QUIET_S = 1.0
_CHANGING = frozenset({"last_updated", "version_info", "last_update_attempt"})
_NAME_LENGTH = 6
_numbers = itertools.count(1)


class Links:
    """The terminating-gateway entry of one gateway, shared by the cases that run on it."""

    def __init__(self, agent: ConsulAgent, gateway_name: str) -> None:
        self._agent = agent
        self._gateway_name = gateway_name
        self._links: dict[str, dict[str, Any]] = {}
        self._writing = asyncio.Lock()

    async def set(self, service: str, fields: Mapping[str, Any]) -> None:
        self._links[service] = {"Name": service, **fields}
        await self.write()

    async def remove(self, service: str) -> None:
        if self._links.pop(service, None) is not None:
            await self.write()

    async def write(self) -> None:
        async with self._writing:
            entry = {"Kind": "terminating-gateway", "Name": self._gateway_name}
            await self._agent.write_config(entry | {"Services": list(self._links.values())})


class Stand:
    """For one case and one of the two gateways."""

    def __init__(
        self,
        agent: ConsulAgent,
        gateway: Gateway | EnvoyTerminatingGateway,
        links: Links,
        folder: Path,
        dns: DNSServer,
    ):
        self.agent = agent
        self.gateway = gateway
        self.folder = folder
        """For the files of the case (``CAFile`` ...)."""
        self.dns = dns
        """Resolves hostnames for both gateways. Use names of :meth:`hostname`."""
        self._links = links
        self._number = next(_numbers)
        self._stack = contextlib.AsyncExitStack()
        self._clients: dict[str, MeshClient] = {}

    @property
    def is_envoy(self) -> bool:
        return isinstance(self.gateway, EnvoyTerminatingGateway)

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def named(self, name: str) -> str:
        """``name``, unique to this case on this gateway; the same for the same name."""
        return f"{name}-{'e' if self.is_envoy else 'o'}{self._number}"

    def hostname(self, name: str) -> str:
        """As :meth:`named`, with a dot."""
        return f"{self.named(name)}.example"

    # --- outside the mesh ------------------------------------------------------------------------------------

    async def backend(self, handler: Handler = echo, **options: Any) -> ExternalService:
        """An external service, until the case ends; ``options`` as of :class:`ExternalService`."""
        return await self._stack.enter_async_context(ExternalService(handler, **options))

    async def talker(self, name: str, **options: Any) -> ExternalService:
        """A backend that says its ``name`` first, then echoes: for :meth:`answering`."""
        banner = name.encode().ljust(_NAME_LENGTH)
        assert len(banner) == _NAME_LENGTH, f"{name} is longer than {_NAME_LENGTH}"
        return await self.backend(functools.partial(banner_first, banner=banner), **options)

    # --- in Consul -------------------------------------------------------------------------------------------

    async def register(self, service: str, port: int, node: str = "one", **fields: Any) -> None:
        """An instance of ``service`` at loopback ``port``; ``fields`` as of ``ConsulAgent.register_external``."""
        address = fields.pop("address", "127.0.0.1")
        node = self.named(f"node-{node}")
        await self.agent.register_external(node, address, self.named(service), port, **fields)
        self._stack.push_async_callback(self._quietly, self.agent.deregister_external, node)

    async def deregister(self, node: str = "one") -> None:
        await self.agent.deregister_external(self.named(f"node-{node}"))

    async def link(self, service: str, **fields: Any) -> None:
        """Link ``service``; ``fields`` are of the link (``CAFile``, ``SNI``)."""
        await self._links.set(self.named(service), fields)
        self._stack.push_async_callback(self._links.remove, self.named(service))

    async def unlink(self, service: str) -> None:
        await self._links.remove(self.named(service))

    async def link_all(self, **fields: Any) -> None:
        """Link ``*``. Only for a case with a Consul of its own."""
        await self._links.set("*", fields)

    async def intention(self, source: str, service: str, action: str = "allow") -> None:
        """``source`` and ``service`` are names of the case, or ``*``."""
        one, other = ("*" if name == "*" else self.named(name) for name in (source, service))
        await self.agent.write_intention(one, other, action)
        self._stack.push_async_callback(self._quietly, self.agent.delete_intention, one, other)

    async def no_intention(self, source: str, service: str) -> None:
        await self.agent.delete_intention(self.named(source), self.named(service))

    async def config(self, kind: str, service: str, **fields: Any) -> None:
        """Write a ``service-defaults`` or ``service-resolver`` of a service of the case."""
        name = self.named(service)
        await self.agent.write_config({"Kind": kind, "Name": name, **fields})
        self._stack.push_async_callback(self._quietly, self.agent.delete_config, kind, name)

    async def no_config(self, kind: str, service: str) -> None:
        await self.agent.delete_config(kind, self.named(service))

    async def offer(self, service: str = "db", source: str = "web", **link: Any) -> ExternalService:
        """The usual: an echo service, registered, linked, and allowed for ``source``; return when it is reached."""
        backend = await self.backend()
        await self.register(service, backend.port)
        await self.intention(source, service)
        await self.link(service, **link)
        await self.reached(source, service)
        return backend

    @staticmethod
    async def _quietly(undo: Callable[..., Awaitable[None]], *arguments: str) -> None:
        with contextlib.suppress(Exception):  # the case may have taken it away, or stopped Consul
            await undo(*arguments)

    # --- from inside the mesh --------------------------------------------------------------------------------

    async def client(self, source: str = "web") -> MeshClient:
        """``source`` as a client that speaks mutual TLS to the gateway, with a leaf of the agent's CA."""
        if source not in self._clients:
            self._clients[source] = await MeshClient.of(self.agent, self.named(source))
        return self._clients[source]

    async def server_name(self, service: str, subset: str = "") -> str:
        client = await self.client()
        return client.server_name(self.named(service), subset=subset, datacenter=self.agent.datacenter)

    @asynccontextmanager
    async def dial(
        self, source: str, service: str, *, subset: str = "", name: str = ""
    ) -> AsyncIterator[MeshConnection]:
        """As a sidecar dials; ``name`` replaces the server name. :raises Refused: when the handshake is."""
        server_name = name or await self.server_name(service, subset)
        connection = await (await self.client(source)).connect(self.gateway.address, self.gateway.port, server_name)
        async with connection:
            yield connection

    async def outcome(self, source: str = "web", service: str = "db", **dial: Any) -> str:
        """Of one exchange with an echo service: ``echo`` or ``refused``."""
        try:
            async with self.dial(source, service, **dial) as connection:
                return "echo" if await connection.exchange(b"ping") == b"ping" else "garbled"
        except (Refused, OSError):
            return REFUSED

    async def answering(self, source: str = "web", service: str = "db", **dial: Any) -> str:
        """Which :meth:`talker` answers a new connection: its name, or ``refused``."""
        try:
            async with self.dial(source, service, **dial) as connection:
                await connection.send(b"?")
                return (await connection.receive_exactly(_NAME_LENGTH)).decode().strip()
        except (Refused, OSError):
            return REFUSED

    async def tally(self, connections: int, source: str = "web", service: str = "db", **dial: Any) -> dict[str, int]:
        """How often each talker answered so many connections, one after the other."""
        answers = [await self.answering(source, service, **dial) for _ in range(connections)]
        return {name: answers.count(name) for name in sorted(set(answers))}

    async def reached(self, source: str = "web", service: str = "db", **dial: Any) -> None:
        """Wait until a new connection is carried."""

        async def carried() -> bool:
            return await self.outcome(source, service, **dial) == "echo"

        await eventually(carried, 60.0, what=f"{self.named(service)} is reached through {self.gateway.name}")

    async def kept_out(self, source: str = "web", service: str = "db", **dial: Any) -> None:
        """Wait until a new connection is refused."""

        async def refused() -> bool:
            return await self.outcome(source, service, **dial) == REFUSED

        await eventually(refused, 60.0, what=f"{self.named(service)} is refused by {self.gateway.name}")

    # --- the gateway itself ----------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Wait until the gateway has taken over what was written: its state has not changed for a while.

        Before an observation that something does *not* happen. Not a proof: a change that comes later than that is
        a change of the gateway's own making.
        """
        deadline = time.monotonic() + 60.0 * SCALE
        seen, since = await self._state(), time.monotonic()
        while time.monotonic() - since < _QUIET_S * SCALE:
            assert time.monotonic() < deadline, f"{self.gateway.name} does not come to rest"
            await asyncio.sleep(0.1)
            if (now := await self._state()) != seen:
                seen, since = now, time.monotonic()

    async def _state(self) -> str:
        if isinstance(self.gateway, EnvoyTerminatingGateway):
            dump = json.loads(await self.gateway.admin("/config_dump?include_eds"))
            return json.dumps(_without_times(dump), sort_keys=True)
        return str((await self.gateway.status())["generation"])


def _without_times(dumped: Any) -> Any:
    """Envoy writes down when it got a resource, and gets some again and again."""
    if isinstance(dumped, dict):
        return {key: _without_times(value) for key, value in dumped.items() if key not in _CHANGING}
    if isinstance(dumped, list):
        return sorted((_without_times(value) for value in dumped), key=str)
    return dumped


class Stands:
    """A Consul with both gateways, for many cases."""

    def __init__(
        self,
        folder: Path,
        *,
        acl: bool = True,
        agent: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        before: Callable[[ConsulAgent], Awaitable[None]] | None = None,
    ) -> None:
        """With ACLs, what no intention allows is denied.

        :param agent: options of :class:`ConsulAgent`.
        :param arguments: of ``consul-tgw run``.
        :param before: prepares Consul before the gateways start.
        """
        self.agent = ConsulAgent(folder / "consul", acl=acl, **dict(agent or {}))
        self.dns: DNSServer
        self._folder = folder
        self._arguments = arguments
        self._before = before
        self._stack = contextlib.AsyncExitStack()
        self._gateways: list[tuple[Gateway | EnvoyTerminatingGateway, Links]] = []

    async def __aenter__(self) -> Self:
        try:
            self.dns = await self._stack.enter_async_context(dns_server())
            await self._stack.enter_async_context(self.agent)
            if self._before is not None:
                await self._before(self.agent)
            arguments = [*self._arguments, f"--dns-server={self.dns.address}"]
            ours = Gateway(self.agent, self._folder / "ours", "gateway-ours", arguments=arguments)
            envoy = EnvoyTerminatingGateway(self.agent, "gateway-envoy", dns_server=HostPort.parse(self.dns.address))
            for gateway in (envoy, ours):
                await self._stack.enter_async_context(gateway)
                self._gateways.append((gateway, Links(self.agent, gateway.name)))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def fresh(self) -> Iterator[Stand]:
        """A stand for Envoy's gateway, then one for ours."""
        for gateway, links in self._gateways:
            yield Stand(self.agent, gateway, links, self._folder / f"case-{next(_numbers)}", self.dns)
