"""One linked service that cannot be served never delays another."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, kept_out, let_in, serves, service_status
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, GOOD, CLIENT = "isolation-gateway", "isolation-good", "isolation-client"
ABSENT, JUNK, FORBIDDEN, NAMELESS = (
    "isolation-absent-file",
    "isolation-junk-key",
    "isolation-forbidden",
    "isolation-nameless",
)
WRITTEN = (GATEWAY, GOOD, ABSENT, JUNK, NAMELESS)
POLICY = f"""
{"".join(f'service "{name}" {{ policy = "write" }} ' for name in WRITTEN)}
service "{FORBIDDEN}" {{ policy = "read" }}
node_prefix "" {{ policy = "read" }}
"""
WITHIN_S = 1.0


async def link_bad_services(links: Links, port: int, authority: Authority, folder: Path) -> Path:
    """Returns the file that is missing."""
    certificate, _ = authority.client("gateway").write(folder, "client")
    junk, absent = folder / "junk.key", folder / "absent.pem"
    junk.write_text("this is no key\n")
    ca_file = str(authority.write(folder, "ca"))
    await links.add(ABSENT, port, CAFile=str(absent))
    await links.add(JUNK, port, CAFile=ca_file, CertFile=str(certificate), KeyFile=str(junk))
    await links.add(FORBIDDEN, port)
    await links.agent.register_external(f"node-{NAMELESS}", "nowhere.invalid", NAMELESS, port)
    await links.set(NAMELESS)
    return absent


async def test_bad_services_do_not_delay_the_good_one(
    acl_agent: ConsulAgent, authority: Authority, work_dir: Path
) -> None:
    async with ExternalService(echo) as backend:
        links = Links(acl_agent, GATEWAY)
        absent = await link_bad_services(links, backend.port, authority, work_dir)
        await links.add(GOOD, backend.port)
        token = await acl_agent.create_token(POLICY)
        async with Gateway(acl_agent, work_dir, GATEWAY, token=token) as gateway:
            await serves(gateway, GOOD)
            client = await MeshClient.of(acl_agent, CLIENT)
            await acl_agent.write_intention(CLIENT, GOOD)
            assert await let_in(client, gateway, GOOD) < WITHIN_S * SCALE
            await reasons_name(gateway, ABSENT, str(absent))
            await reasons_name(gateway, JUNK, "junk.key")
            await reasons_name(gateway, FORBIDDEN, f'service "{FORBIDDEN}" {{ policy = "write" }}')
            await reasons_name_or_warn(gateway, NAMELESS, "nowhere.invalid")
            async with await dial(client, gateway, GOOD) as connection:
                await connection.exchange(b"hello")
                began_s = time.monotonic()
                await acl_agent.write_intention(CLIENT, GOOD, "deny")
                await connection.ended()
                assert time.monotonic() - began_s < WITHIN_S * SCALE
            for bad in (ABSENT, JUNK, FORBIDDEN):
                assert not (await service_status(gateway, bad))["served"]
            await acl_agent.write_intention(CLIENT, ABSENT)
            authority.write(work_dir, "absent")
            await serves(gateway, ABSENT)


async def reasons_name(gateway: Gateway, service: str, word: str) -> None:
    async def named() -> bool:
        return any(word in reason for reason in (await service_status(gateway, service)).get("reasons", ()))

    await eventually(named, what=f"the reason of {service} names {word}")


async def test_a_service_that_turns_bad_goes_on_as_it_was_and_still_obeys_policy(
    consul_agent: ConsulAgent, authority: Authority, work_dir: Path
) -> None:
    gateway_name, service = "isolation-turning-gateway", "isolation-turning"
    ca_file = authority.write(work_dir, "ca")
    good_ca = ca_file.read_text()
    links = Links(consul_agent, gateway_name)
    async with (
        ExternalService(echo, tls=authority.server("turning.example")) as backend,
        Gateway(consul_agent, work_dir, gateway_name) as gateway,
    ):
        await links.add(service, backend.port, CAFile=str(ca_file))
        await serves(gateway, service)
        client = await MeshClient.of(consul_agent, CLIENT)
        await let_in(client, gateway, service)
        ca_file.write_text("half of a certif")
        await reasons_name_or_warn(gateway, service, str(ca_file))
        assert await let_in(client, gateway, service) < WITHIN_S * SCALE
        await consul_agent.write_intention(CLIENT, service, "deny")
        assert await kept_out(client, gateway, service) < WITHIN_S * SCALE
        ca_file.write_text(good_ca)
        await consul_agent.write_intention(CLIENT, service)
        await serves(gateway, service)
        await let_in(client, gateway, service)


async def reasons_name_or_warn(gateway: Gateway, service: str, word: str) -> None:
    async def named() -> bool:
        status = await service_status(gateway, service)
        return any(word in text for text in (*status.get("reasons", ()), *status.get("warnings", ())))

    await eventually(named, what=f"{service} complains about {word}")
