"""Hostnames in a real catalog: when they are asked for again, what operators see of faults, how they are dialled."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from tests.support.command import consul_tgw
from tests.support.dns_server import AAAA, A, DNSServer, dns_server
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, let_in, serves, service_status
from tests.support.mesh_client import MeshClient
from tests.support.ports import deaf, shared_port

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENT = "dns-client"
PATIENT_S = 6.0
"""Less than the control process would wait for an answer that does not come."""


@pytest_asyncio.fixture(loop_scope="session")
async def dns() -> AsyncIterator[DNSServer]:
    async with dns_server() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def backend() -> AsyncIterator[ExternalService]:
    async with ExternalService(echo) as service:
        yield service


def gateway_of(agent: ConsulAgent, work_dir: Path, name: str, dns: DNSServer) -> Gateway:
    return Gateway(agent, work_dir, name, arguments=[f"--dns-server={dns.address}"])


async def offer(links: Links, service: str, port: int, **link: str) -> str:
    """Register ``service`` by a hostname and link it; the hostname."""
    hostname = f"{service}.example"
    await links.agent.register_external(f"node-{service}", hostname, service, port)
    await links.set(service, **link)
    return hostname


async def warned(gateway: Gateway, service: str, *words: str) -> None:
    async def told() -> bool:
        warnings = (await service_status(gateway, service)).get("warnings", ())
        return any(all(word in warning for word in words) for warning in warnings)

    await eventually(told, 60.0, what=f"the status of {service} warns of {', '.join(words)}")


async def test_a_fault_of_the_name_server_is_in_the_status_while_the_last_answer_is_used(
    consul_agent: ConsulAgent, work_dir: Path, dns: DNSServer, backend: ExternalService
) -> None:
    links = Links(consul_agent, "dns-fault-gateway")
    dns.ttl_s = 1
    dns.records["dns-fault.example"] = ["127.0.0.1"]
    async with gateway_of(consul_agent, work_dir, links.gateway_name, dns) as gateway:
        hostname = await offer(links, "dns-fault", backend.port)
        await serves(gateway, "dns-fault")
        client = await MeshClient.of(consul_agent, CLIENT)
        await let_in(client, gateway, "dns-fault")
        dns.broken = True
        await warned(gateway, "dns-fault", hostname, "cannot be resolved")
        assert (await service_status(gateway, "dns-fault"))["served"]
        await let_in(client, gateway, "dns-fault")
        dns.broken = False
        del dns.records[hostname]
        await warned(gateway, "dns-fault", hostname, "not found")
        await let_in(client, gateway, "dns-fault")
        dns.records[hostname] = ["127.0.0.1"]

        async def all_is_well() -> bool:
            return not (await service_status(gateway, "dns-fault"))["warnings"]

        await eventually(all_is_well, 90.0, what="the warning goes when the name is back")


async def test_a_name_is_asked_for_again_when_its_ttl_says_so(
    consul_agent: ConsulAgent, work_dir: Path, dns: DNSServer, backend: ExternalService
) -> None:
    links = Links(consul_agent, "dns-ttl-gateway")
    dns.records |= {"dns-long.example": ["127.0.0.1"], "dns-short.example": ["127.0.0.1"]}
    dns.ttls_s |= {"dns-long.example": 3_600, "dns-short.example": 1}
    async with gateway_of(consul_agent, work_dir, links.gateway_name, dns) as gateway:
        for service in ("dns-long", "dns-short"):
            await offer(links, service, backend.port)
        await serves(gateway, "dns-long", "dns-short")
        asked = dict(dns.questions)

        def twice_more() -> bool:
            return dns.questions["dns-short.example"] >= asked["dns-short.example"] + 4

        await eventually(twice_more, 60.0, what="the name with the short TTL is asked for twice more")
        assert dns.questions["dns-long.example"] == asked["dns-long.example"]


async def test_a_name_that_is_not_answered_does_not_keep_the_gateway_from_beginning(
    consul_agent: ConsulAgent, work_dir: Path, dns: DNSServer, backend: ExternalService
) -> None:
    links = Links(consul_agent, "dns-start-gateway")
    hostname = await offer(links, "dns-silent", backend.port)
    dns.silent_for = {(hostname, A), (hostname, AAAA)}
    await links.add("dns-good", backend.port)
    async with gateway_of(consul_agent, work_dir, links.gateway_name, dns) as gateway:
        await serves(gateway, "dns-good")
        began_s, complete_s = (logged_at_s(gateway, event) for event in ("gateway.started", "gateway.complete"))
        assert complete_s - began_s < PATIENT_S * SCALE
        status = await service_status(gateway, "dns-silent")
        assert any(hostname in text for text in (*status["reasons"], *status["warnings"]))
        await let_in(await MeshClient.of(consul_agent, CLIENT), gateway, "dns-good")


def logged_at_s(gateway: Gateway, event: str) -> float:
    """Unix time of the first line of the log with this event."""
    found = re.search(rf"^(\S+) INFO {re.escape(event)}:", gateway.log_path.read_text(), re.MULTILINE)
    assert found is not None, f"no {event} in {gateway.log_path}"
    return datetime.datetime.fromisoformat(found[1]).timestamp()


@pytest.mark.parametrize("dead", ["127.0.0.1", "::1"])
async def test_tls_goes_to_the_family_that_answers(
    consul_agent: ConsulAgent, work_dir: Path, dns: DNSServer, authority: Authority, dead: str
) -> None:
    service = "dns-tls-4" if dead == "::1" else "dns-tls-6"
    links = Links(consul_agent, f"{service}-gateway")
    port = shared_port(["127.0.0.1", "::1"])
    alive = "::1" if dead == "127.0.0.1" else "127.0.0.1"
    dns.records[f"{service}.example"] = ["127.0.0.1", "::1"]
    tls = authority.server(f"{service}.example")
    async with (
        ExternalService(echo, tls=tls, address=alive, port=port) as backend,
        gateway_of(consul_agent, work_dir, links.gateway_name, dns) as gateway,
    ):
        with deaf(dead, port):
            ca_file = str(authority.write(work_dir, "ca"))
            hostname = await offer(links, service, port, CAFile=ca_file, SNI=f"{service}.example")
            await serves(gateway, service)
            endpoints = (await service_status(gateway, service))["endpoints"]
            assert [(one["address"], one["hostname"]) for one in endpoints] == [
                (f"127.0.0.1:{port}", hostname),
                (f"[::1]:{port}", hostname),
            ]
            client = await MeshClient.of(consul_agent, CLIENT)
            await let_in(client, gateway, service)
            began_s = time.monotonic()
            for _ in range(4):
                await let_in(client, gateway, service)
            # Each attempt on the dead address would cost the connect timeout, 5 s.
            assert time.monotonic() - began_s < 5.0 * SCALE
            assert set(backend.server_names) == {hostname}


async def test_check_asks_the_name_servers_that_it_is_told(consul_agent: ConsulAgent, dns: DNSServer) -> None:
    gateway, service = "check-dns-gateway", "check-dns"
    hostname = await offer(Links(consul_agent, gateway), service, 5432)
    dns.records[hostname] = ["127.0.0.1"]
    arguments = ("check", f"--service={gateway}", "--patience=5", "--json")
    environment = consul_agent.cli_environment()
    asked = await consul_tgw(*arguments, f"--dns-server={dns.address}", environment=environment)
    assert hostname not in asked.output
    other = await consul_tgw(*arguments, environment=environment)
    assert any(hostname in one["text"] for one in other.findings[service])
    wrong = await consul_tgw(*arguments, "--dns-server=nowhere", environment=environment)
    assert (wrong.code, "--dns-server" in wrong.errors) == (2, True)
