"""The cook-book: every page of ``docs/recipes`` is followed on a real Consul with ACLs, from a real sidecar.

All of them go through one gateway. PostgreSQL and Redis are real. The directory (LDAP) and the mail relay are small
servers of the test that speak the exchanges that ``curl`` asks for, over real TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev import locate
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import Sidecar
from plugin.dev.external import ExternalService, Handler, hello, load_key_pair
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.postgres import Postgres
from plugin.dev.processes import free_ports
from tests.support.command import ROOT
from tests.support.console import commands, run_commands
from tests.support.directory_and_mail import MailRelay, directory
from tests.support.dns_server import dns_server
from tests.support.eventually import eventually
from tests.support.key_server import KeyServer, SigningKey
from tests.support.linking import dial
from tests.support.mesh_client import MeshClient, Refused
from tests.support.redis import Redis

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENTRIES, PAGES = ROOT / "consul-config", ROOT / "docs" / "recipes"
GATEWAY = "terminating-gateway"
NAMES = {
    "orders-db": "orders.rds.example",
    "sessions": "sessions.cache.example",
    "directory": "ldap.corp.example",
    "mail-relay": "relay.mail.example",
    "payments-api": "api.payments.example",
    "ledger": "ledger.corp.example",
    "warehouse": "warehouse.example",
}
"""Of the external services that have one: in DNS, and in their certificates."""
UPSTREAMS = (
    *("orders-db", "sessions", "directory", "mail-relay", "payments-api", "inventory", "ledger"),
    *("reports", "reports-v2", "orders-api", "reports-api"),
)
KEY = SigningKey("login")


@dataclass
class Kitchen:
    agent: ConsulAgent
    gateway: Gateway
    relays: tuple[MailRelay, MailRelay]
    """With TLS from the first byte, and with STARTTLS."""
    external: dict[str, ExternalService]
    environment: dict[str, str]

    async def follow(self, page: str) -> None:
        """Run what ``page`` says, as it is written."""
        await run_commands(tuple(commands((PAGES / f"{page}.md").read_text())), self.environment, ROOT)

    async def keeps_out(self, *services: str) -> None:
        """``batch``, for which no intention is written."""
        client = await MeshClient.of(self.agent, "batch")
        for service in services:
            name = client.server_name(service)

            async def refused(name: str = name) -> bool:
                return bool(await client.refusal(self.gateway.address, self.gateway.port, name))

            await eventually(refused, what=f"batch is kept out of {service}")


async def site(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1: says under which name it was asked for what."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        found = re.search(r"^host: *(\S+)", head, re.IGNORECASE | re.MULTILINE)
        assert found is not None
        body = f"{found[1]} was asked for {head.split()[1]}\n"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()


@contextlib.asynccontextmanager
async def external_services(
    folder: Path,
) -> AsyncIterator[tuple[dict[str, ExternalService], tuple[MailRelay, MailRelay]]]:
    """Those of this process, by service; the CA of each is in ``folder``, as the links name it."""
    relay = MailRelay()
    handlers: dict[str, Handler] = {"directory": directory, "mail-relay": relay, "payments-api": site}
    files = {"directory": "ldap-ca", "mail-relay": "smtp-ca", "payments-api": "payments-ca", "ledger": "ledger-ca"}
    async with contextlib.AsyncExitStack() as stack:
        running = {}
        authorities = {name: Authority(f"CA of {name}") for name in files}
        for name, authority in authorities.items():
            authority.write(folder, files[name])
            handler = handlers.get(name) or functools.partial(hello, name=name)
            running[name] = ExternalService(handler, tls=authority.server(NAMES[name]))
        for name in ("inventory", "reports-v1", "reports-v2", "warehouse", "orders-api", "reports-api"):
            running[name] = ExternalService(functools.partial(hello, name=name))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_key_pair(context, authorities["mail-relay"].server(NAMES["mail-relay"]))
        submission = MailRelay(context)
        running["submission"] = ExternalService(submission)
        for service in running.values():
            await stack.enter_async_context(service)
        yield running, (relay, submission)


def variable(name: str) -> str:
    return name.upper().replace("-", "_")


def environment_of(
    agent: ConsulAgent, ports: dict[str, int], external: dict[str, int], folder: Path, keys: KeyServer
) -> dict[str, str]:
    """What the pages take from their reader's shell."""
    programs = (Path(sys.executable).parent, locate.consul().parent, locate.postgres_bin())
    claims = {"iss": "https://login.example/", "aud": "reports", "exp": int(time.time()) + 3600}
    environment = agent.cli_environment()
    environment |= {
        "PATH": ":".join((*map(str, programs), environment["PATH"])),
        "COLUMNS": "200",
        "RUNTIME_DIRECTORY": str(folder / "run"),
        "TLS_DIR": str(folder / "tls"),
        "LOGIN": f"https://127.0.0.1:{keys.port}",
        "READER": KEY.sign(**claims),
        "WRITER": KEY.sign(groups={"reports": "write"}, **claims),
    }
    environment |= {f"WEB_{variable(name)}": str(port) for name, port in ports.items()}
    return environment | {f"{variable(name)}_PORT": str(port) for name, port in external.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kitchen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kitchen]:
    folder = tmp_path_factory.mktemp("recipes")
    tls_dir = folder / "tls"
    tls_dir.mkdir()
    rds, cache = Authority("CA of orders-db"), Authority("CA of sessions")
    rds.write(tls_dir, "rds-ca")
    cache.write(tls_dir, "redis-ca")
    agent = ConsulAgent(folder / "consul", acl=True, extra_hcl=(ENTRIES / "acl-default-deny" / "agent.hcl").read_text())
    ports = dict(zip(UPSTREAMS, free_ports(len(UPSTREAMS)), strict=True))
    redis = Redis(folder / "redis", cache, cache.server(NAMES["sessions"]))
    postgres = Postgres(password="correct horse", tls=rds.server(NAMES["orders-db"]))
    async with (
        agent,
        dns_server() as names,
        redis,
        postgres,
        external_services(tls_dir) as (external, relays),
        KeyServer(folder) as keys,
        Sidecar(agent, "web", list(ports.items())),
        Gateway(
            agent, folder, GATEWAY, token=agent.management_token, arguments=[f"--dns-server={names.address}"]
        ) as gateway,
    ):
        names.records.update({name: ["127.0.0.1"] for name in NAMES.values()})
        keys.serve(KEY)
        keys.authority.write(tls_dir, "login-ca")
        external_ports = {name: service.port for name, service in external.items()}
        external_ports |= {"orders-db": postgres.port, "sessions": redis.port}
        environment = environment_of(agent, ports, external_ports, folder, keys)
        environment |= {"PGPASSWORD": postgres.password, "PGUSER": postgres.user, "PGDATABASE": "postgres"}
        await agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": []})
        yield Kitchen(agent, gateway, relays, external, environment)


async def test_postgresql_with_tls_from_end_to_end(kitchen: Kitchen) -> None:
    await kitchen.follow("postgresql")
    await kitchen.keeps_out("orders-db")


async def test_postgresql_takes_tls_of_the_gateway_for_nonsense(kitchen: Kitchen) -> None:
    """What the page says does not work, does not."""
    ca_file = f"{kitchen.environment['TLS_DIR']}/rds-ca.pem"
    link = {"Name": "orders-db", "CAFile": ca_file, "SNI": NAMES["orders-db"]}
    await kitchen.agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": [link]})
    client = await MeshClient.of(kitchen.agent, "web")

    async def fails() -> bool:
        async with await dial(client, kitchen.gateway, "orders-db") as connection:
            with contextlib.suppress(Refused, EOFError):
                await connection.send(b"\0\0\0\x08\x04\xd2\x16\x2f")
                await connection.receive()
        return any(record["reason"] == "upstream_tls_failed" for record in kitchen.gateway.access_records())

    await eventually(fails, what="TLS to PostgreSQL fails")


async def test_redis(kitchen: Kitchen) -> None:
    await kitchen.follow("redis")
    await kitchen.keeps_out("sessions")


async def test_a_directory_with_ldaps(kitchen: Kitchen) -> None:
    await kitchen.follow("ldap")
    assert set(kitchen.external["directory"].server_names) == {"ldap.corp.example"}
    await kitchen.keeps_out("directory")


async def test_a_mail_relay(kitchen: Kitchen) -> None:
    await kitchen.follow("smtp")
    for relay, subject in zip(kitchen.relays, ("Order 4711", "Order 4712"), strict=True):
        assert f"Subject: {subject}" in relay.messages[-1]
    await kitchen.keeps_out("mail-relay")


async def test_a_provider_s_https_api(kitchen: Kitchen) -> None:
    await kitchen.follow("saas-api")
    assert set(kitchen.external["payments-api"].server_names) == {"api.payments.example"}


async def test_everything_linked_and_one_service_otherwise(kitchen: Kitchen) -> None:
    await kitchen.follow("wildcard")
    assert set(kitchen.external["ledger"].server_names) == {"ledger.corp.example"}
    await kitchen.keeps_out("inventory", "ledger")


async def test_subsets(kitchen: Kitchen) -> None:
    await kitchen.follow("subsets")
    own, gateways = "Service.Meta.version == v1", "Service.Kind == `terminating-gateway`"
    for condition, found in ((own, []), (f"{own} or {gateways}", [GATEWAY])):
        # What a sidecar asks Consul for; the page says what comes of it.
        rows = await kitchen.agent.api("GET", "/v1/health/connect/reports", params={"filter": condition})
        assert [row["Service"]["Service"] for row in rows] == found
    await kitchen.keeps_out("reports")


async def test_a_destination_is_reached_under_the_name_of_its_address(kitchen: Kitchen) -> None:
    """As a sidecar in transparent mode asks for it; catching the application's packets is the sidecar's own part."""
    await kitchen.follow("destinations")
    gateway, client = kitchen.gateway, await MeshClient.of(kitchen.agent, "web")
    name = f"destination.warehouse-example.{client.server_name('warehouse')}"
    async with await client.connect(gateway.address, gateway.port, name) as connection:
        await connection.send(b"GET /stock HTTP/1.1\r\nhost: warehouse.example\r\n\r\n")
        assert (await connection.receive_exactly(12)) == b"HTTP/1.1 200"
    batch = await MeshClient.of(kitchen.agent, "batch")
    assert await batch.refusal(gateway.address, gateway.port, name)


async def test_intentions_that_tell_requests_apart(kitchen: Kitchen) -> None:
    await kitchen.follow("l7-intentions")


async def test_tokens(kitchen: Kitchen) -> None:
    await kitchen.follow("jwt")


async def test_an_acl_policy_where_the_default_is_to_deny(kitchen: Kitchen, tmp_path: Path) -> None:
    kitchen.environment["TOKEN_FILE"] = str(tmp_path / "token")
    await kitchen.follow("acl-default-deny")
    await kitchen.keeps_out("inventory")
