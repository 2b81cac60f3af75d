"""``consul-tgw explain`` against a running gateway: what it says is what happens, and its remedies help."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from tests.support.command import Said, consul_tgw
from tests.support.eventually import eventually
from tests.support.mesh import EchoServer
from tests.support.mesh_client import MeshClient, Refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, DB, API, OTHER = "explain-gw", "explain-db", "explain-api", "explain-other"
WEB, BATCH = "explain-web", "explain-batch"


@dataclass(frozen=True)
class Place:
    agent: ConsulAgent
    gateway: Gateway
    run: Path

    async def explain(self, *arguments: str) -> Said:
        run = f"--runtime-dir={self.run}"
        return await consul_tgw("explain", run, *arguments, environment=self.agent.cli_environment())

    async def do(self, remedy: str) -> None:
        """As an operator who pastes it."""
        command, _, entry = remedy.partition(" <<'EOF'\n")
        assert command.startswith("consul ")
        await self.agent.cli(*shlex.split(command)[1:], input_text=entry.removesuffix("EOF"))

    async def call(self, source: str, service: str) -> str:
        """``open``, or how it was refused."""
        client = await MeshClient.of(self.agent, source)
        async with await client.connect(
            self.gateway.address, self.gateway.port, client.server_name(service)
        ) as connection:
            try:
                return "open" if await connection.exchange(b"ping") == b"ping" else "other bytes"
            except Refused as refused:
                return refused.alert

    async def told(self, source: str, destination: str, path: str = "") -> dict[str, Any]:
        """What the admin API says, without a command around it."""
        query = {"source": source, "destination": destination, "path": path}
        url = f"http://127.0.0.1:{self.gateway.admin_port}/api/explain"
        async with aiohttp.ClientSession() as session, session.get(url, params=query) as answer:
            decoded: dict[str, Any] = await answer.json()
            return decoded

    async def denied(self, *arguments: str) -> dict[str, Any]:
        said = await self.explain("--json", *arguments)
        assert (said.code, said.json["verdict"]) == (1, "denied"), said
        return said.json

    async def allows(self, source: str, destination: str, path: str = "") -> None:
        async def allowed() -> bool:
            return bool((await self.told(source, destination, path))["verdict"] == "allowed")

        await eventually(allowed)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(consul_agent: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("explain")
    agent = consul_agent
    async with EchoServer() as echo:
        for name in (DB, API):
            await agent.register_external("explain-node", "127.0.0.1", name, echo.port)
        await agent.write_config({"Kind": "service-defaults", "Name": API, "Protocol": "http"})
        await agent.write_intention("*", DB, "deny")
        permissions = [
            {"Action": "deny", "HTTP": {"PathPrefix": "/admin"}},
            {"Action": "allow", "HTTP": {"Methods": ["GET"]}},
        ]
        sources = [{"Name": WEB, "Permissions": permissions}, {"Name": "*", "Action": "deny"}]
        await agent.write_config({"Kind": "service-intentions", "Name": API, "Sources": sources})
        links = [{"Name": DB}, {"Name": API}]
        await agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": links})
        async with Gateway(agent, folder, GATEWAY) as gateway:

            async def served() -> bool:
                return [one["served"] for one in (await gateway.status())["services"]] == [True, True]

            await eventually(served)
            yield Place(agent, gateway, folder / "run")


async def test_a_denied_caller_is_let_in_by_the_remedy(place: Place) -> None:
    assert await place.call(WEB, DB) != "open"
    said = await place.explain(WEB, DB)
    assert said.code == 1
    assert f"* => {DB} (precedence 8) decides: deny." in said.output
    told = await place.denied(WEB, DB)
    (remedy,) = told["remedies"]
    assert remedy in said.output
    await place.do(str(remedy))
    await place.allows(WEB, DB)
    assert await place.call(WEB, DB) == "open"
    said = await place.explain(WEB, DB)
    assert f"{WEB} => {DB} (precedence 9) decides: allow." in said.output
    assert f"* => {DB} (precedence 8) matches too and loses" in said.output
    assert await place.call(BATCH, DB) != "open"


async def test_its_own_denial_is_replaced(place: Place) -> None:
    await place.agent.write_intention(BATCH, DB, "deny")

    async def its_own() -> bool:
        return f"{BATCH} => {DB} (precedence 9) decides" in str((await place.told(BATCH, DB))["steps"])

    await eventually(its_own)
    (remedy,) = (await place.denied(BATCH, DB))["remedies"]
    await place.do(str(remedy))
    await place.allows(BATCH, DB)
    assert await place.call(BATCH, DB) == "open"


async def test_requests_are_decided_by_the_permissions(place: Place) -> None:
    read = await place.explain(WEB, API, "--path", "/items?x=1")
    assert (read.code, "Permission 2 (GET any path): matches" in read.output) == (0, True), read
    admin = await place.explain(WEB, API, "--path", "/x/%2e%2e/admin/users", "--header", "x-a: b")
    assert admin.code == 1
    assert "decided about and forwarded as /admin/users" in admin.output
    assert "Permission 1 (/admin*): matches" in admin.output
    posted = await place.explain(WEB, API, "--method", "POST")
    assert (posted.code, "allowed by default allow" in posted.output) == (0, True), "an agent without ACLs allows"
    assert (await place.explain(BATCH, API)).code == 1
    for source in (WEB, BATCH):
        (remedy,) = (await place.denied(source, API, "--path", "/admin"))["remedies"]
        await place.do(str(remedy))
        await place.allows(source, API, "/admin")
    asked = ((WEB, "/items"), (WEB, "/admin/users"), (BATCH, "/items"))
    verdicts = [(await place.told(source, API, path))["verdict"] for source, path in asked]
    assert verdicts == ["allowed", "denied", "denied"]


async def test_what_is_not_linked_is_linked_by_the_remedy(place: Place) -> None:
    said = await place.explain("--json", WEB, OTHER)
    assert (said.code, said.json["verdict"]) == (1, "not_served")
    await place.do(said.json["remedies"][0])

    async def linked() -> bool:
        return bool((await place.told(WEB, OTHER))["steps"][0]["state"] == "good")

    await eventually(linked)
    entry = await place.agent.api("GET", f"/v1/config/terminating-gateway/{GATEWAY}")
    assert [one["Name"] for one in entry["Services"]] == [DB, API, OTHER]


async def test_a_connection_that_has_ended_and_one_that_lives(place: Place) -> None:
    assert await place.call("explain-nobody", DB) != "open"
    await eventually(lambda: bool(place.gateway.access_records()))
    record = next(one for one in reversed(place.gateway.access_records()) if one["verdict"] == "denied")
    said = await place.explain("--connection", f"{record['worker']}-{record['number']}")
    assert said.code == 1
    assert f"Policy denied it, by * => {DB} (precedence 8)." in said.output
    assert record["detail"] in said.output
    client = await MeshClient.of(place.agent, WEB)
    async with await client.connect(place.gateway.address, place.gateway.port, client.server_name(DB)) as connection:
        await connection.exchange(b"ping")
        (live,) = (await place.gateway.connections())["connections"]
        said = await place.explain("--connection", f"{live['worker']}-{live['connection']['number']}")
        assert (said.code, "It is live: spiffe://" in said.output) == (0, True), said
    assert (await place.explain("--connection", "0-999999")).code == 1


async def test_what_cannot_be_explained(place: Place) -> None:
    wrong = (
        ((WEB,), "SOURCE DESTINATION"),
        ((WEB, "a/b/c/d"), "names no service"),
        (("west:web", DB), "no peer is known"),
        ((WEB, API, "--path", "x"), "begins with a slash"),
        ((WEB, API, "--header", "x"), "is not written as"),
        (("--connection", "17"), "is no connection"),
        ((WEB, API, "--token-file", "/does/not/exist"), "cannot be read"),
    )
    answers = await asyncio.gather(*(place.explain(*arguments) for arguments, _ in wrong))
    for said, (_, message) in zip(answers, wrong, strict=True):
        assert (said.code, message in said.errors, "Traceback" in said.errors) == (2, True, False), said
