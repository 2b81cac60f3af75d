"""The Consul client: python-consul2's calls where they are right, and blocking reads, which it lacks.

It asks and decodes. When to ask again is decided by :mod:`plugin.consul.watch`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from consul import base

from plugin.consul import endpoints
from plugin.consul.presence import Presence
from plugin.consul.refusals import Refusals
from plugin.consul.transport import MARGIN_S, MAX_CONNECTIONS, UNREADABLE, Reply, Transport
from plugin.consul.watch import WAIT_S
from plugin.errors import ConsulBusy, ConsulError, ConsulRejected, ConsulUnavailable
from plugin.settings import ConsulSettings
from proxy.model import ServiceName

T = TypeVar("T")


class ConsulClient(base.Consul):
    """Usable inside one event loop, as an asynchronous context manager."""

    def __init__(self, settings: ConsulSettings, *, max_connections: int = MAX_CONNECTIONS) -> None:
        # The library's own constructor reads CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN again, over what was passed, and
        # fails on an address with a path or in IPv6. Settings are decided once, elsewhere.
        self.transport = Transport(settings, max_connections=max_connections)
        self.http = self.transport
        self._home_namespace = settings.namespace or "default"
        self._home_partition = settings.partition or "default"
        self.refusals = Refusals()
        self.presence = Presence(self.transport)
        self.wait_s = WAIT_S
        """How long a blocking query may be held."""
        self.scheme = self.transport.scheme
        self.consistency = "default"
        self.dc = None
        self.token = None
        self.agent = base.Consul.Agent(self)
        self.catalog = base.Consul.Catalog(self)
        self.health = base.Consul.Health(self)

    async def __aenter__(self) -> ConsulClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.presence.close()
        await self.transport.close()

    def home(self, service: str) -> ServiceName:
        """``service`` in the namespace and the partition of the settings, where the gateway itself is."""
        return ServiceName(service, self._home_namespace, self._home_partition)

    def namespaces_seen(self) -> None:
        """This is Consul Enterprise: say from now on which namespace and partition each request means."""
        self.transport.has_namespaces = True

    @property
    def address(self) -> str:
        return self.transport.address

    async def blocking_get(
        self, path: str, params: Iterable[tuple[str, str]] = (), *, index: int = 0, wait_s: float = 0.0
    ) -> Reply:
        """Read ``path``; with an ``index``, hold the request until Consul knows a newer one or ``wait_s`` is over.

        Consul adds up to a sixteenth to the wait; an answer that is later than that by more than a margin counts as
        lost. Returns status 200 or 404. :raises ConsulError, ConfigError: for everything else.
        """
        asked = list(params)
        if not index:
            return await self._ask("GET", path, asked)
        asked += [("index", str(index)), ("wait", f"{max(1, round(wait_s * 1000))}ms")]
        return await self._ask("GET", path, asked, timeout_s=wait_s * 17 / 16 + MARGIN_S)

    async def _ask(
        self,
        method: str,
        path: str,
        params: Iterable[tuple[str, str]],
        *,
        body: str | None = None,
        timeout_s: float = MARGIN_S,
    ) -> Reply:
        """A question whose answer is only good if it comes from the cluster that our state is of."""
        cluster = await self.presence.admit()
        try:
            reply = await self.transport.request(method, path, params, body=body, timeout_s=timeout_s)
        except ConsulBusy:
            await self.presence.believe(cluster)
            raise
        except ConsulUnavailable:
            self.presence.doubt()
            raise
        except ConsulError:
            await self.presence.believe(cluster)
            raise
        await self.presence.believe(cluster)
        return reply

    async def get(self, path: str, params: Iterable[tuple[str, str]] = (), *, type: type[T]) -> T:
        """Read ``path`` once. :raises ConsulRejected: 404; and what :meth:`blocking_get` raises."""
        reply = await self.blocking_get(path, params)
        if reply.status == 404:
            raise ConsulRejected(f"Consul has no {path}", 404)
        return decode(reply, type, path)

    async def put(
        self, path: str, body: Mapping[str, Any] | None = None, params: Iterable[tuple[str, str]] = ()
    ) -> bytes:
        """Write; returns Consul's answer. :raises ConsulError: for every status but 200."""
        data = json.dumps(body) if body is not None else None
        return (await self.transport.request("PUT", path, params, body=data)).body

    async def post(self, path: str, body: Mapping[str, Any], params: Iterable[tuple[str, str]] = ()) -> Reply:
        """Ask a question that needs a body. :raises ConsulError, ConfigError: for every status but 200."""
        return await self._ask("POST", path, params, body=json.dumps(body))

    async def register_service(self, definition: Mapping[str, Any]) -> None:
        """``PUT /v1/agent/service/register``; the library's call lacks ``Kind``, ``Proxy`` and ``Checks``."""
        await self.put(endpoints.REGISTER, definition)

    async def deregister_service(self, service_id: str) -> None:
        """:raises ConsulRejected: with status 404 when the agent does not know it."""
        await self.agent.service.deregister(service_id)

    async def pass_check(self, check_id: str, note: str = "") -> None:
        """:raises ConsulRejected: when the agent has no such check (404; 500 in Consul 1.8)."""
        await self.agent.check.ttl_pass(check_id, note or None)

    async def fail_check(self, check_id: str, note: str = "") -> None:
        """:raises ConsulRejected: when the agent has no such check (404; 500 in Consul 1.8)."""
        await self.agent.check.ttl_fail(check_id, note or None)


def decode(reply: Reply, type: type[T], path: str) -> T:
    """:raises ConsulUnavailable: when the body is not what the endpoint promises. Its text never quotes the body."""
    try:
        return msgspec.json.decode(reply.body, type=type)
    except UNREADABLE as error:
        raise ConsulUnavailable(f"Consul's answer to {path} cannot be read: {error}") from error


def decode_rows(reply: Reply, row: type[T], path: str) -> tuple[T, ...]:
    """As :func:`decode`, for a list; some endpoints answer ``null`` when there are no rows."""
    return () if reply.body.strip() == b"null" else decode(reply, tuple[row, ...], path)  # type: ignore[valid-type]
