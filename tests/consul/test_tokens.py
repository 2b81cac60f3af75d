"""The life of the gateway's token: replaced in its file, deleted while in use, and replaced after that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from plugin.check import check_gateway
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.process.tasks import spawn
from plugin.settings import ConsulSettings
from tests.support.eventually import eventually
from tests.support.linking import Links, dial, kept_out, let_in, serves
from tests.support.mesh_client import MeshClient, MeshConnection
from tests.support.rights import NODES, Rights, write

pytestmark = pytest.mark.asyncio(loop_scope="session")


def atomically(file: Path, secret: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(secret + "\n")
    os.replace(new, file)


def in_place(file: Path, secret: str) -> None:
    file.write_text(secret + "\n")


@asynccontextmanager
async def serving(
    agent: ConsulAgent, work_dir: Path, name: str, rights: Rights
) -> AsyncIterator[tuple[Gateway, MeshClient, MeshConnection, Path]]:
    """A gateway with its token in a file, an echo service ``NAME-db``, and a live connection to that."""
    file, service = work_dir / "token", f"{name}-db"
    in_place(file, rights.secret)
    async with (
        ExternalService(echo) as backend,
        Gateway(agent, work_dir, name, token="", environment={"CONSUL_HTTP_TOKEN_FILE": str(file)}) as gateway,
    ):
        await Links(agent, name).add(service, backend.port)
        await agent.write_intention("tokens-client", service)
        client = await MeshClient.of(agent, "tokens-client")
        await serves(gateway, service)
        await let_in(client, gateway, service)
        async with await dial(client, gateway, service) as connection:
            yield gateway, client, connection, file


@pytest.mark.parametrize("replace", [atomically, in_place])
async def test_a_replaced_token_interrupts_nothing(
    acl_agent: ConsulAgent, work_dir: Path, replace: Callable[[Path, str], None]
) -> None:
    """The old one is deleted as soon as the new one is in the file."""
    name = f"tokens-{replace.__name__}"
    service, rules = f"{name}-db", f"{write(name, f'{name}-db', f'{name}-later')}\n{NODES}"
    old = await Rights.of(acl_agent, rules)
    async with serving(acl_agent, work_dir, name, old) as (gateway, client, connection, file):
        stop = asyncio.Event()
        exchanged = spawn(_exchange_until(stop, client, gateway, service, connection), name="exchange")
        replace(file, (await Rights.of(acl_agent, rules)).secret)
        await old.revoke()
        await acl_agent.write_intention("tokens-later", service)
        later = await MeshClient.of(acl_agent, "tokens-later")
        assert await let_in(later, gateway, service) < 10
        stop.set()
        assert await exchanged > 0
        await acl_agent.write_intention("tokens-client", service, "deny")
        await connection.ended()
        await serves(gateway, service)
        await well(gateway)
        assert "ACL not found" not in gateway.log_path.read_text()


async def _exchange_until(
    stop: asyncio.Event, client: MeshClient, gateway: Gateway, service: str, connection: MeshConnection
) -> int:
    """Exchanges on the live connection and on new ones; each has to go well."""
    count = 0
    while not stop.is_set():
        assert await connection.exchange(b"live") == b"live"
        async with await dial(client, gateway, service) as fresh:
            assert await fresh.exchange(b"new") == b"new"
        count += 1
    return count


async def test_a_deleted_token_leaves_the_last_state_and_a_new_one_heals(
    acl_agent: ConsulAgent, work_dir: Path
) -> None:
    name = "tokens-deleted"
    service, rules = f"{name}-db", f"{write(name, f'{name}-db')}\n{NODES}"
    old = await Rights.of(acl_agent, rules)
    async with serving(acl_agent, work_dir, name, old) as (gateway, client, connection, file):
        await old.revoke()
        # What it holds for the token ends with the next change of anything that is watched.
        await acl_agent.write_intention("tokens-client", service, "deny")

        async def told() -> bool:
            problems = [watch["problem"] for watch in (await gateway.status())["watches"]]
            return any(_names_it(problem, old) for problem in problems)

        await eventually(told, 90.0, what="the status says that the token is not known")
        assert any(_names_it(line, old) for line in gateway.log_path.read_text().splitlines())
        report = await check_gateway(
            ConsulSettings(address=acl_agent.http_address, token=old.secret), name, patience_s=5.0
        )
        assert any("ACL not found" in one.text and "CONSUL_HTTP_TOKEN_FILE" in one.text for one in report.findings)
        assert not report.ok

        assert await connection.exchange(b"live") == b"live"
        await let_in(client, gateway, service)
        states = {watch["name"]: watch for watch in (await gateway.status())["watches"]}
        assert states["intentions"]["known"]
        assert states["intentions"]["age_s"] > 0

        in_place(file, (await Rights.of(acl_agent, rules)).secret)
        await connection.ended()
        await kept_out(client, gateway, service)
        await acl_agent.write_intention("tokens-client", service)
        await let_in(client, gateway, service)

        await well(gateway)


async def well(gateway: Gateway) -> None:
    """Wait until the gateway is ready and no watch has a problem; some pass by themselves."""

    async def nothing_wrong() -> bool:
        status = await gateway.status()
        return status["ready"] and not any(watch["problem"] for watch in status["watches"])

    await eventually(nothing_wrong, 90.0, what="nothing is wrong any more")


def _names_it(text: str, token: Rights) -> bool:
    return "ACL not found" in text and token.accessor in text and "CONSUL_HTTP_TOKEN_FILE" in text
