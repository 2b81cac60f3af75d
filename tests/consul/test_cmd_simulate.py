"""``consul-tgw simulate`` against a running gateway: what it foretells is what then happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from plugin.linking.hcl import to_hcl
from tests.support.command import Said, consul_tgw
from tests.support.eventually import eventually
from tests.support.mesh import EchoServer
from tests.support.mesh_client import MeshClient, MeshConnection

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, DB, API, NEW = "simulate-gw", "simulate-db", "simulate-api", "simulate-new"
WEB, BATCH = "simulate-web", "simulate-batch"


def intentions(name: str, *sources: Mapping[str, Any]) -> dict[str, Any]:
    return {"Kind": "service-intentions", "Name": name, "Sources": list(sources)}


def source(name: str, action: str) -> dict[str, Any]:
    return {"Name": name, "Action": action}


NOW = intentions(DB, source(WEB, "allow"), source("*", "deny"))
THEN = intentions(DB, source(WEB, "deny"), source(BATCH, "allow"), source("*", "deny"))


@dataclass(frozen=True)
class Place:
    agent: ConsulAgent
    gateway: Gateway
    folder: Path

    async def simulate(self, *entries: Mapping[str, Any] | str, options: tuple[str, ...] = ()) -> Said:
        paths = []
        for number, entry in enumerate(entries):
            path = self.folder / f"entry-{number}.hcl"
            path.write_text(entry if isinstance(entry, str) else to_hcl(entry))
            paths.append(str(path))
        run = f"--runtime-dir={self.folder / 'run'}"
        return await consul_tgw("simulate", run, *options, *paths, environment=self.agent.cli_environment())

    async def foretold(self, *entries: Mapping[str, Any] | str) -> tuple[int, dict[str, Any]]:
        said = await self.simulate(*entries, options=("--json",))
        assert said.output, said
        return said.code, said.json

    async def connect(self, who: str, service: str) -> MeshConnection:
        client = await MeshClient.of(self.agent, who)
        return await client.connect(self.gateway.address, self.gateway.port, client.server_name(service))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(consul_agent: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder, agent = tmp_path_factory.mktemp("simulate"), consul_agent
    async with EchoServer() as echo:
        for name in (DB, API, NEW):
            await agent.register_external("simulate-node", "127.0.0.1", name, echo.port)
        await agent.write_config({"Kind": "service-defaults", "Name": API, "Protocol": "http"})
        await agent.write_config(NOW)
        await agent.write_config(intentions(NEW, source("*", "deny")))
        links = [{"Name": DB}, {"Name": API}]
        await agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": links})
        async with Gateway(agent, folder, GATEWAY) as gateway:

            async def served() -> bool:
                return [one["served"] for one in (await gateway.status())["services"]] == [True, True]

            await eventually(served)
            yield Place(agent, gateway, folder)


def effects(found: dict[str, Any], service: str = DB) -> dict[str, str]:
    return {one["source"]: one["effect"] for one in found["access"] if one["service"] == service}


async def test_an_intention_that_cuts_is_foretold_and_not_written(place: Place) -> None:
    async with await place.connect(WEB, DB) as connection:
        await connection.exchange(b"ping")
        before = await place.agent.api("GET", f"/v1/config/service-intentions/{DB}")
        generation = (await place.gateway.status())["generation"]
        code, found = await place.foretold(THEN)
        assert (code, effects(found), found["connections_cut"]) == (1, {WEB: "loses", BATCH: "gains"}, 1)
        (cut,) = found["connections"]
        assert (cut["source"], f"denied by intention {WEB} => {DB} (precedence 9)" in cut["why"]) == (WEB, True)
        said = await place.simulate(THEN)
        assert said.code == 1
        assert f"{WEB} => {DB} from 127.0.0.1:" in said.output
        assert "Nothing was written." in said.output
        assert await place.agent.api("GET", f"/v1/config/service-intentions/{DB}") == before
        assert (await place.gateway.status())["generation"] == generation
        assert await connection.exchange(b"still") == b"still"
        await place.agent.write_config(THEN)
        assert await connection.ended() != ""
    async with await place.connect(BATCH, DB) as connection:

        async def allowed() -> bool:
            return bool((await place.foretold(THEN))[1]["access"] == [])

        await eventually(allowed)
        nothing = await place.simulate(THEN)
        assert (nothing.code, "Nothing changes for anybody" in nothing.output) == (0, True)
    await place.agent.write_config(NOW)


async def test_links_that_come_and_go(place: Place) -> None:
    links = {"Kind": "terminating-gateway", "Name": GATEWAY, "Services": [{"Name": API}, {"Name": NEW}]}
    code, found = await place.foretold(links, intentions(NEW, source(BATCH, "allow"), source("*", "deny")))
    states = {one["name"]: (one["before"], one["after"]) for one in found["services"]}
    assert code == 1
    assert states == {DB: ("served", "not linked"), NEW: ("not linked", "served")}
    assert effects(found, NEW) == {BATCH: "gains"}
    assert effects(found, DB)[WEB] == "loses"


async def test_files_expressions_and_providers_that_are_wrong(place: Place) -> None:
    links = [{"Name": DB, "CAFile": "/no/such/ca.pem"}, {"Name": API}]
    code, found = await place.foretold({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": links})
    (service,) = found["services"]
    assert (code, "/no/such/ca.pem does not exist" in " ".join(service["problems"])) == (1, True), service
    broken = {"Action": "allow", "HTTP": {"PathRegex": "/("}}
    code, found = await place.foretold(intentions(API, {"Name": WEB, "Permissions": [broken]}))
    (service,) = found["services"]
    assert (code, "is not an expression of RE2" in service["problems"][0]) == (1, True), found
    code, found = await place.foretold({"Kind": "service-defaults", "Name": DB, "Protocol": "http"})
    assert found["services"][0]["differences"][0] == "protocol: tcp -> http"


async def test_permissions_and_json_from_standard_input_forms(place: Place) -> None:
    entry = intentions(API, {"Name": WEB, "Permissions": [{"Action": "deny", "HTTP": {"PathPrefix": "/"}}]})
    code, found = await place.foretold(json.dumps([entry]))
    assert (code, found["access"][0]["after"]["kind"]) == (1, "by_request")
    spelled = f'kind = "service-intentions"\nname = "{API}"\nsources {{\n name = "{WEB}"\n action = "deny"\n}}\n'
    code, found = await place.foretold(spelled)
    assert effects(found, API) == {WEB: "loses"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"Kind": "ingress-gateway", "Name": "x"}, "cannot be simulated"),
        ({"Kind": "service-defaults", "Name": DB, "Protocl": "http"}, "has the field 'Protocl'"),
        (intentions(DB, {"Name": WEB, "Action": "permit"}), "has the Action 'permit'"),
        ("Kind = ", "is not read as HCL"),
        ("", "is empty"),
        ("{", "is not JSON"),
    ],
)
async def test_what_is_no_entry(place: Place, entry: Mapping[str, Any] | str, message: str) -> None:
    said = await place.simulate(entry)
    assert (said.code, message in said.errors, "Traceback" in said.errors) == (2, True, False), said
