"""Many external services in a real Consul's catalog, linked to gateways, and the changes that operators make to them.

Instances are written by ``PUT /v1/txn``, many to a request; config entries one by one, several at a time, over one
session. What a gateway does with them is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import ConsulRejected

INSTANCES = 5
"""Of each service."""
NODES = 50
"""External ones, among which instances are spread."""
_OPERATIONS_PER_TRANSACTION = 64
"""Consul takes 128."""
_AT_A_TIME = 8


def service(number: int) -> str:
    return f"scale-{number:05}"


class Fleet:
    """``count`` services behind one external port; an asynchronous context manager's session underneath."""

    def __init__(
        self, agent: ConsulAgent, session: aiohttp.ClientSession, count: int, port: int, trust_domain: str
    ) -> None:
        self.agent = agent
        self.trust_domain = trust_domain
        self.count = count
        self._session = session
        self.port = port
        self._permits = asyncio.Semaphore(_AT_A_TIME)

    @classmethod
    @asynccontextmanager
    async def on(cls, agent: ConsulAgent, count: int, port: int) -> AsyncIterator[Fleet]:
        """Nothing is written yet. ``port`` is on 127.0.0.1, of an external service that answers."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            roots = await agent.api("GET", "/v1/agent/connect/ca/roots")
            yield cls(agent, session, count, port, roots["TrustDomain"])

    @property
    def names(self) -> list[str]:
        return [service(number) for number in range(self.count)]

    async def write(self, sources: Sequence[str]) -> None:
        """Every instance and, for each service, an allow for each of ``sources``."""
        await self._transactions(self._node(node) for node in range(NODES))
        await self._transactions(
            operation
            for number in range(self.count)
            for each in range(INSTANCES)
            for operation in (self._instance(number, each), _check(number, each))
        )
        await self.all(self.intend(name, {source: "allow" for source in sources}) for name in self.names)

    async def link(self, gateway: str, names: Iterable[str]) -> None:
        """Write the gateway's entry."""
        links = [{"Name": name} for name in names]
        await self.config({"Kind": "terminating-gateway", "Name": gateway, "Services": links})

    async def intend(self, name: str, actions: dict[str, str]) -> None:
        """Write the whole ``service-intentions`` entry of a service: actions by source."""
        sources = [{"Name": source, "Action": action} for source, action in actions.items()]
        await self.config({"Kind": "service-intentions", "Name": name, "Sources": sources})

    async def set_check(self, number: int, status: str) -> None:
        """The check of the last instance of a service."""
        await self._transactions([_check(number, INSTANCES - 1, status)])

    async def move(self, number: int, port: int) -> None:
        """The instances of a service to another port; their checks stay as they are."""
        await self._transactions(self._instance(number, each, port) for each in range(INSTANCES))

    async def register_one_more(self, number: int) -> None:
        """Another instance of a service."""
        await self._transactions([self._instance(number, INSTANCES), _check(number, INSTANCES)])

    async def config(self, entry: dict[str, Any]) -> None:
        await self._put("/v1/config", entry)

    async def one_of_few(self, write: Callable[[], Awaitable[None]]) -> None:
        """Wait for a permit, then for the write."""
        async with self._permits:
            await write()

    async def all(self, writes: Iterable[Any]) -> None:
        """Run coroutines, a few at a time."""
        async with asyncio.TaskGroup() as group:
            for write in writes:
                await self._permits.acquire()
                group.create_task(write).add_done_callback(lambda _: self._permits.release())

    async def _transactions(self, operations: Iterable[dict[str, Any]]) -> None:
        batch: list[dict[str, Any]] = []
        for operation in operations:
            batch.append(operation)
            if len(batch) >= _OPERATIONS_PER_TRANSACTION:
                await self._put("/v1/txn", batch)
                batch = []
        if batch:
            await self._put("/v1/txn", batch)

    def _node(self, node: int) -> dict[str, Any]:
        meta = {"external-node": "true", "external-probe": "false"}
        return {"Node": {"Verb": "set", "Node": {"Node": _node(node), "Address": "127.0.0.1", "Meta": meta}}}

    def _instance(self, number: int, each: int, port: int = 0) -> dict[str, Any]:
        where = {"Address": "127.0.0.1", "Port": port or self.port}
        instance = {"ID": _id(number, each), "Service": service(number), **where}
        return {"Service": {"Verb": "set", "Node": _node_of(number, each), "Service": instance}}

    async def _put(self, path: str, body: object) -> None:
        async with self._session.put(self.agent.http_address + path, json=body) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise ConsulRejected(f"PUT {path}: HTTP {answer.status}: {text[:500]}", answer.status)


def _node(number: int) -> str:
    return f"scale-node-{number:03}"


def _node_of(number: int, each: int) -> str:
    return _node((number * INSTANCES + each) % NODES)


def _id(number: int, each: int) -> str:
    return f"{service(number)}-{each}"


def _check(number: int, each: int, status: str = "passing") -> dict[str, Any]:
    check = {
        "Node": _node_of(number, each),
        "CheckID": f"check-{_id(number, each)}",
        "Name": "answers",
        "ServiceID": _id(number, each),
        "Status": status,
    }
    return {"Check": {"Verb": "set", "Check": check}}
