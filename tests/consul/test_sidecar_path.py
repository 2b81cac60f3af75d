"""From a real Envoy sidecar through the gateway: PostgreSQL, HTTP, and a TLS-wrapped service, under default deny.

The gateway runs with a token of the smallest policy that it needs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import Sidecar
from plugin.dev.external import ExternalService, hello
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.postgres import Postgres
from plugin.dev.processes import free_ports
from plugin.errors import StartError
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, serves

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY = "sidecar-gateway"
DATABASE, WEB, SECURED = "sidecar-db", "sidecar-web", "sidecar-secured"
CLIENT = "sidecar-client"
SMALLEST_POLICY = f"""
service "{GATEWAY}" {{ policy = "write" }}
service "{DATABASE}" {{ policy = "write" }}
service "{WEB}" {{ policy = "write" }}
service "{SECURED}" {{ policy = "write" }}
node_prefix "" {{ policy = "read" }}
"""
WITHIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Stage:
    agent: ConsulAgent
    gateway: Gateway
    sidecar: Sidecar
    ports: dict[str, int]
    """The sidecar's, by destination."""
    secured: ExternalService


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    acl_agent: ConsulAgent, postgres: Postgres, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("sidecar-path")
    links = Links(acl_agent, GATEWAY)
    ports = dict(zip((DATABASE, WEB, SECURED), free_ports(3), strict=True))
    ca_file = str(authority.write(folder, "external-ca"))
    token = await acl_agent.create_token(SMALLEST_POLICY)
    async with (
        ExternalService(hello) as web,
        ExternalService(hello, tls=authority.server("secured.example")) as secured,
        Gateway(acl_agent, folder, GATEWAY, token=token) as gateway,
    ):
        await links.add(DATABASE, postgres.port)
        await links.add(WEB, web.port)
        await links.add(SECURED, secured.port, CAFile=ca_file, SNI="secured.example")
        await serves(gateway, DATABASE, WEB, SECURED)
        async with Sidecar(acl_agent, CLIENT, list(ports.items())) as sidecar:
            yield Stage(agent=acl_agent, gateway=gateway, sidecar=sidecar, ports=ports, secured=secured)


async def get(port: int) -> str:
    """:raises aiohttp.ClientError: when the connection ends without an answer."""
    timeout = aiohttp.ClientTimeout(total=20 * SCALE)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"http://127.0.0.1:{port}/page") as answer,
    ):
        return await answer.text()


async def answers(port: int) -> bool:
    try:
        return "GET /page" in await get(port)
    except aiohttp.ClientError:
        return False


async def allow(stage: Stage, service: str) -> None:
    await stage.agent.write_intention(CLIENT, service)
    await eventually(lambda: _reached(stage, service), what=f"{service} has an intention in force")


async def _reached(stage: Stage, service: str) -> bool:
    services = (await stage.gateway.status())["services"]
    return any(one["name"] == service and one["intentions"] for one in services)


async def test_refused_without_an_intention_and_let_in_within_a_second(stage: Stage) -> None:
    with pytest.raises(aiohttp.ClientError):
        await get(stage.ports[WEB])
    await eventually(lambda: any(one["reason"] == "denied" for one in stage.gateway.access_records()))
    (refused, *_) = [one for one in stage.gateway.access_records() if one["reason"] == "denied"]
    assert (refused["service"], refused["verdict"]) == (WEB, "denied")
    assert refused["source"].endswith(f"/svc/{CLIENT}")
    await stage.agent.write_intention(CLIENT, WEB)
    began_s = time.monotonic()
    await eventually(lambda: answers(stage.ports[WEB]))
    assert time.monotonic() - began_s < WITHIN_S * SCALE
    await stage.agent.write_intention(CLIENT, WEB, "deny")
    began_s = time.monotonic()
    await eventually(lambda: _not(answers(stage.ports[WEB])))
    assert time.monotonic() - began_s < WITHIN_S * SCALE


async def test_psql_gets_a_result_of_many_megabytes(stage: Stage, postgres: Postgres) -> None:
    await allow(stage, DATABASE)
    wanted = 16 * 1024 * 1024
    result = await postgres.psql(f"select repeat('x', {wanted})", port=stage.ports[DATABASE])
    assert len(result) == wanted
    records = await eventually(
        lambda: [one for one in stage.gateway.access_records() if one["bytes_sent"] > wanted], what="its log line"
    )
    assert records[0]["service"] == DATABASE
    assert records[0]["source"].endswith(f"/svc/{CLIENT}")


async def test_a_long_transaction_outlives_what_changes_around_it(stage: Stage, postgres: Postgres) -> None:
    await allow(stage, DATABASE)
    port = stage.ports[DATABASE]
    await postgres.psql("create table if not exists carried (note text)", port=port)
    work = (
        "begin; insert into carried values ('first'); select pg_sleep(5); insert into carried values ('last'); commit"
    )
    transaction = asyncio.get_running_loop().create_task(postgres.psql(work, port=port))
    in_work = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    await eventually(lambda: _equals(postgres.psql(in_work), "1"), what="the transaction is under way")
    await stage.agent.write_intention("somebody-else", DATABASE)
    await stage.agent.write_intention("somebody-else", DATABASE, "deny")
    await stage.agent.register_external("node-sidecar-db-2", "127.0.0.1", DATABASE, free_ports(1)[0])
    await stage.agent.deregister_external("node-sidecar-db-2")
    await stage.agent.write_config({"Kind": "service-defaults", "Name": DATABASE, "Protocol": "tcp"})
    assert await postgres.psql("select count(*) from carried", port=port) == "0"
    assert not transaction.done()
    await transaction
    assert await postgres.psql("select count(*) from carried", port=port) == "2"


async def test_http_goes_into_a_tls_wrapped_service(stage: Stage) -> None:
    await allow(stage, SECURED)
    assert "GET /page" in await get(stage.ports[SECURED])
    assert stage.secured.server_names[-1] == "secured.example"


async def test_a_certificate_of_another_name_is_not_accepted(stage: Stage, authority: Authority) -> None:
    """The link says which name the external service must have; an impostor with a valid certificate is cut off."""
    await allow(stage, SECURED)
    async with ExternalService(hello, tls=authority.server("impostor.example")) as impostor:
        await stage.agent.register_external("node-sidecar-secured", "127.0.0.1", SECURED, impostor.port)
        await eventually(lambda: _not(answers(stage.ports[SECURED])), what="the impostor is refused")
        await stage.agent.register_external("node-sidecar-secured", "127.0.0.1", SECURED, stage.secured.port)
        await eventually(lambda: answers(stage.ports[SECURED]), what="the right one is reached again")

    def logged() -> bool:
        reasons = {one["reason"] for one in stage.gateway.access_records() if one["service"] == SECURED}
        return "upstream_tls_failed" in reasons

    await eventually(logged, what="the reason is in the access log")


async def test_denied_psql_is_told_nothing(stage: Stage, postgres: Postgres) -> None:
    await allow(stage, DATABASE)
    assert await postgres.psql("select 1", port=stage.ports[DATABASE]) == "1"
    await stage.agent.write_intention(CLIENT, DATABASE, "deny")
    began_s = time.monotonic()

    async def refused() -> bool:
        try:
            await postgres.psql("select 1", port=stage.ports[DATABASE])
        except StartError as error:
            return "server closed the connection unexpectedly" in str(error) or "reset by peer" in str(error)
        return False

    await eventually(refused)
    assert time.monotonic() - began_s < 5 * SCALE


async def _not(question: Awaitable[bool]) -> bool:
    return not await question


async def _equals(question: Awaitable[str], wanted: str) -> bool:
    return await question == wanted
