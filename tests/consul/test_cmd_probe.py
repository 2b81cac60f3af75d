"""``consul-tgw probe`` against a running gateway, external services with and without TLS, and a Consul with ACLs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.processes import free_ports
from tests.support.command import Said, consul_tgw
from tests.support.eventually import eventually
from tests.support.http_backend import HTTPBackend

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, WEB, BATCH = "probe-gw", "probe-web", "probe-batch"
DB, SAFE, OTHERS, API, GONE = "probe-db", "probe-safe", "probe-others", "probe-api", "probe-gone"
NAME = "safe.example"


@dataclass(frozen=True)
class Place:
    agent: ConsulAgent
    gateway: Gateway
    db: ExternalService
    run: Path

    async def probe(self, *arguments: str, token: str | None = None) -> Said:
        run = f"--runtime-dir={self.run}"
        return await consul_tgw("probe", run, *arguments, environment=self.agent.cli_environment(token))

    async def steps(self, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        said = await self.probe("--json", *arguments)
        assert said.output, said
        return said.code, {step["about"]: step for step in said.json["steps"]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(acl_agent: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    agent, folder = acl_agent, tmp_path_factory.mktemp("probe")
    authority, other = Authority("Probe CA"), Authority("Another CA")
    ca, wrong = authority.write(folder, "ca"), other.write(folder, "wrong")
    pair = authority.server(NAME)
    async with ExternalService(echo) as db, ExternalService(echo, tls=pair) as safe, HTTPBackend() as api:
        ports = {DB: db.port, SAFE: safe.port, OTHERS: safe.port, API: api.port, GONE: free_ports(1)[0]}
        for name, port in ports.items():
            await agent.register_external("probe-node", "127.0.0.1", name, port)
            await agent.write_intention(WEB, name)
        await agent.write_config({"Kind": "service-defaults", "Name": API, "Protocol": "http"})
        tls = {SAFE: {"CAFile": str(ca), "SNI": NAME}, OTHERS: {"CAFile": str(wrong), "SNI": NAME}}
        links = [{"Name": name, **tls.get(name, {})} for name in ports]
        await agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": links})
        async with Gateway(agent, folder, GATEWAY, token=agent.management_token) as gateway:

            async def served() -> bool:
                return [one["served"] for one in (await gateway.status())["services"]] == [True] * len(ports)

            await eventually(served)
            yield Place(agent, gateway, db, folder / "run")


async def test_the_whole_path_to_a_service_of_tcp(place: Place) -> None:
    seen = place.db.accepted
    said = await place.probe(DB, "--source", WEB)
    assert said.code == 0, said
    for text in (
        f"Consul gave a certificate of spiffe://{await _trust_domain(place)}/ns/default/dc/dc1/svc/{WEB}.",
        "TLSv1.3 as probe-db.default.dc1.internal.",
        "Valid until",
        f"{WEB} is allowed",
        f"The connection stays open, and goes to 127.0.0.1:{place.db.port}.",
        "accepts connections from here",
    ):
        assert text in said.output, said.output
    assert place.db.accepted == seen + 2, "through the gateway, and beside it"
    code, steps = await place.steps(DB, "--source", WEB, "--send", "ping\\r\\n")
    assert (code, steps["first byte"]["lines"][0][:13]) == (0, "6 bytes came,")
    assert steps["mutual TLS"]["ms"] > 0


async def _trust_domain(place: Place) -> str:
    return str((await place.gateway.status())["trust_domain"])


async def test_a_denied_caller_is_told_by_whom(place: Place) -> None:
    code, steps = await place.steps(DB, "--source", BATCH)
    assert (code, steps["policy"]["state"]) == (1, "bad")
    assert "The gateway says: denied:" in steps["gateway dial"]["lines"][1], steps


async def test_tls_to_the_external_service(place: Place) -> None:
    code, steps = await place.steps(SAFE, "--source", WEB)
    assert code == 0, steps
    assert steps["upstream TLS"]["lines"][0] == f"TLSv1.3 as {NAME}."
    assert f"Certificate of {NAME}, signed by CN=Probe CA." in steps["upstream TLS"]["lines"][1]
    code, steps = await place.steps(OTHERS, "--source", WEB)
    assert code == 1
    assert "its certificate is not accepted" in steps["upstream TLS"]["lines"][0]
    assert "The gateway says: upstream_tls_failed" in steps["gateway dial"]["lines"][1]


async def test_a_request_is_made_when_it_is_asked_for(place: Place) -> None:
    code, steps = await place.steps(API, "--source", WEB)
    assert (code, steps["first byte"]["state"]) == (0, "note")
    code, steps = await place.steps(API, "--source", WEB, "--path", "/health", "--method", "HEAD")
    assert (code, steps["first byte"]["lines"][0]) == (0, "HEAD /health was answered: HTTP/1.1 200 OK."), steps
    code, steps = await place.steps(API, "--source", BATCH, "--path", "/health")
    assert (code, "HTTP/1.1 403 Forbidden" in steps["first byte"]["lines"][0]) == (1, True), steps


async def test_without_a_right_to_the_certificate_the_rest_is_probed(place: Place) -> None:
    token = await place.agent.create_token('service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }')
    said = await place.probe(DB, "--source", "probe-locked", token=token)
    assert said.code == 0, said
    assert 'service "probe-locked" { policy = "write" }' in said.output
    assert "Valid until" in said.output
    code, steps = await place.steps(DB)
    assert (code, "first byte" in steps, steps["mutual TLS"]["state"]) == (0, False, "good")


async def test_nobody_is_behind_it(place: Place) -> None:
    code, steps = await place.steps(GONE, "--source", WEB)
    assert (code, steps["endpoint"]["state"]) == (1, "bad")
    assert "The gateway says: dial_failed" in " ".join(steps["gateway dial"]["lines"])
    said = await place.probe("probe-unknown")
    assert (said.code, "is not linked" in said.output) == (1, True), said


async def test_what_cannot_be_probed(place: Place) -> None:
    wrong = (
        ((DB, "--path", "/"), "has no paths"),
        ((API, "--send", "x"), "see --path"),
        ((API, "--path", "x"), "slash"),
    )
    answers = await asyncio.gather(*(place.probe(*arguments) for arguments, _ in wrong))
    for said, (_, message) in zip(answers, wrong, strict=True):
        assert (said.code, message in said.errors) == (2, True), said
