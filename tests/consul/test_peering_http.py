"""HTTP of a peered cluster, the whole way: its sidecar, the mesh gateways of both, this gateway, and what it is told.

Everything but the external service and the caller's own few bytes is real: two clusters, three Envoys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import EnvoyTerminatingGateway, MeshGateway, Sidecar
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.processes import free_ports
from tests.support.command import Said, consul_tgw
from tests.support.eventually import SCALE, eventually
from tests.support.http2_async import H2Exchange, HTTP2Backend
from tests.support.http_backend import HTTPBackend, Received
from tests.support.http_client import HTTPClient, Response, http_client
from tests.support.linking import Links, serves
from tests.support.mesh_client import MeshClient
from tests.support.peering import BACK, PEER, export, peer

pytestmark = pytest.mark.asyncio(loop_scope="session")

WITHIN_S = 1.0
PLAIN, TWO, CALLER = "far-http", "far-http2", "far-web"
DIRECT = "far-direct"
"""The test itself asks for it, as a mesh gateway."""
CERTIFICATE = "x-forwarded-client-cert"


async def answer(request: Received) -> None:
    if request.target.endswith("/stream"):
        await request.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntick\r\n")
    else:
        await request.read_body()
        await request.answer(json.dumps(request.values(CERTIFICATE)).encode())


async def answer_two(exchange: H2Exchange) -> None:
    await exchange.whole()
    exchange.start([(":status", "200")], end=True)


@dataclass(kw_only=True)
class Stage:
    own: ConsulAgent
    far: ConsulAgent
    gateway: Gateway
    ports: dict[str, int]
    """Where the caller's sidecar listens for each service."""
    backend: HTTPBackend
    local: MeshClient
    """``CALLER``, of the gateway's own cluster."""
    own_domain: str
    far_domain: str
    folder: Path
    authority: Authority
    """Signs for the gateway's cluster."""
    envoy: EnvoyTerminatingGateway
    """Linked to ``DIRECT``, as the gateway is."""

    @property
    def source(self) -> str:
        return f"spiffe://{self.far_domain}/ns/default/dc/dc2/svc/{CALLER}"

    @property
    def mesh_gateway(self) -> str:
        return f"spiffe://{self.own_domain}/gateway/mesh/dc/dc1"

    @contextlib.asynccontextmanager
    async def call(self, service: str = PLAIN) -> AsyncIterator[HTTPClient]:
        """As the application beside the sidecar does."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[service])
        try:
            yield HTTPClient(reader, writer)
        finally:
            writer.transport.abort()

    async def get(self, target: str, headers: str = "", service: str = PLAIN) -> Response:
        async with self.call(service) as client:
            return await client.get(target, headers)

    async def answers(self, target: str, status: int, service: str = PLAIN) -> None:
        async def answered() -> bool:
            # The sidecar resets connections until it knows how to reach the service.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                return (await self.get(target, service=service)).status == status
            return False

        await eventually(answered, 60.0, what=f"{service} answers {target} with {status}")

    async def policy(self, *permissions: tuple[str, str], service: str = PLAIN) -> None:
        """``permissions`` are actions and prefixes of paths."""
        rows = [{"Action": action, "HTTP": {"PathPrefix": prefix}} for action, prefix in permissions]
        source = {"Name": CALLER, "Peer": PEER, "Permissions": rows}
        await self.own.write_config({"Kind": "service-intentions", "Name": service, "Sources": [source]})

    async def say(self, *arguments: str) -> Said:
        run = f"--runtime-dir={self.folder / 'gateway' / 'run'}"
        return await consul_tgw(*arguments, run, environment=self.own.cli_environment())

    def requests(self, **expected: Any) -> list[dict[str, Any]]:
        """Lines of the access log."""
        lines = [one for one in self.gateway.access_records() if one.get("event") == "request"]
        return [one for one in lines if all(one.get(key) == value for key, value in expected.items())]


async def _authority_of(agent: ConsulAgent) -> Authority:
    """Let the agent sign with a root whose key is known here: it gives nobody a certificate of a mesh gateway."""
    roots = await agent.api("GET", "/v1/agent/connect/ca/roots")
    authority = Authority("Mesh root", trust_domain=roots["TrustDomain"])
    settings = {"PrivateKey": authority.private_key_pem, "RootCert": authority.certificate_pem}
    await agent.api("PUT", "/v1/connect/ca/configuration", {"Provider": "consul", "Config": settings})
    return authority


async def _arrange(own: ConsulAgent, far: ConsulAgent, links: Links, ports: dict[str, int]) -> None:
    for cluster in (own, far):
        await cluster.write_config({"Kind": "proxy-defaults", "Name": "global", "MeshGateway": {"Mode": "local"}})
    await peer(own, far)
    for service, protocol in ((PLAIN, "http"), (TWO, "http2"), (DIRECT, "http")):
        await own.write_config({"Kind": "service-defaults", "Name": service, "Protocol": protocol})
        await far.write_config({"Kind": "service-defaults", "Name": service, "Protocol": protocol})
        await links.add(service, ports[service])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("peering-http")
    ports = dict(zip((PLAIN, TWO), free_ports(2), strict=True))
    upstreams = [
        {"DestinationName": name, "DestinationPeer": BACK, "LocalBindAddress": "127.0.0.1", "LocalBindPort": port}
        for name, port in ports.items()
    ]
    async with (
        ConsulAgent(folder / "own", peering=True, default_intention_policy="deny") as own,
        ConsulAgent(
            folder / "far", peering=True, default_intention_policy="deny", datacenter="dc2", node_name="far"
        ) as far,
        HTTPBackend(answer) as backend,
        HTTP2Backend(answer_two) as backend_two,
    ):
        authority = await _authority_of(own)
        links = Links(own, "peered")
        await _arrange(own, far, links, {PLAIN: backend.port, TWO: backend_two.port, DIRECT: backend.port})
        await Links(own, "peered-envoy").set(DIRECT)
        audit = f"--audit-log={folder / 'audit.log'}"
        async with (
            Gateway(own, folder / "gateway", "peered", workers=2, arguments=[audit]) as gateway,
            MeshGateway(own, "own-mesh-gateway"),
            MeshGateway(far, "far-mesh-gateway"),
            Sidecar(far, CALLER, upstreams),
            EnvoyTerminatingGateway(own, "peered-envoy") as envoy,
        ):
            await serves(gateway, PLAIN, TWO, DIRECT)
            await envoy.listening()
            local, there = await MeshClient.of(own, CALLER), await MeshClient.of(far, CALLER)
            yield Stage(
                own=own,
                far=far,
                gateway=gateway,
                ports=ports,
                backend=backend,
                local=local,
                own_domain=local.trust_domain,
                far_domain=there.trust_domain,
                folder=folder,
                authority=authority,
                envoy=envoy,
            )


async def exported_and_allowed(stage: Stage) -> None:
    await export(stage.own, PLAIN, TWO)
    for service in (PLAIN, TWO):
        await stage.policy(("allow", "/ok"), service=service)
        await stage.answers("/ok", 200, service)


async def test_a_caller_of_the_peer_is_let_in_by_its_permissions(stage: Stage) -> None:
    await exported_and_allowed(stage)
    allowed, denied = await stage.get("/ok/x"), await stage.get("/no/x")
    assert (allowed.status, denied.status, denied.body) == (200, 403, b"RBAC: access denied")
    # What the mesh gateway says of the caller is passed on, and before what is said of the mesh gateway.
    (told,) = json.loads(allowed.body)
    of_caller, of_gateway = told.split(",")
    assert of_caller.endswith(f";URI={stage.source}")
    assert of_gateway.startswith(f"By=spiffe://{stage.own_domain}/ns/default/dc/dc1/svc/{PLAIN};")
    assert of_gateway.endswith(f";URI={stage.mesh_gateway}")
    (one,) = await eventually(lambda: stage.requests(path="/ok/x"))
    assert (one["source"], one["peer"], one["via"]) == (stage.source, PEER, stage.mesh_gateway)
    assert one["intention"].startswith(f"{PEER}:{CALLER} => {PLAIN} (precedence 9), permission 1")
    assert one["server_name"] == f"{PLAIN}.default.dc1.internal.{stage.own_domain}"
    (other,) = await eventually(lambda: stage.requests(path="/no/x"))
    assert (other["verdict"], other["source"], other["peer"]) == ("denied", stage.source, PEER)
    assert await stage.get("/no", service=TWO) is not None
    (two,) = await eventually(lambda: stage.requests(path="/no", protocol="HTTP/2"))
    assert (two["verdict"], two["peer"]) == ("denied", PEER)


async def test_what_an_application_says_of_callers_counts_nowhere(stage: Stage) -> None:
    """The other cluster's mesh gateway passes TLS through; this cluster's writes the header anew."""
    await exported_and_allowed(stage)
    admin = {"Name": "far-admin", "Peer": PEER, "Action": "allow"}
    await stage.own.write_config({"Kind": "service-intentions", "Name": PLAIN, "Sources": [admin]})
    await stage.answers("/ok", 403)
    forged = f"{CERTIFICATE}: By={stage.mesh_gateway};URI={stage.source.replace(CALLER, 'far-admin')}\r\n"
    assert (await stage.get("/ok/forged", forged)).status == 403
    await stage.policy(("allow", "/ok"))
    await stage.answers("/ok", 200)
    answered = await stage.get("/ok/forged", forged)
    assert (answered.status, b"far-admin" in answered.body) == (200, False)
    # A service of this cluster that speaks to the gateway itself.
    name = stage.local.server_name(PLAIN)
    as_peer = f"{CERTIFICATE}: By={stage.mesh_gateway};URI={stage.source}\r\n"
    async with http_client(stage.gateway.port, stage.local.context(), name) as client:
        assert (await client.get("/ok/local", as_peer)).status == 403
    (one,) = await eventually(lambda: stage.requests(path="/ok/local"))
    assert one["source"].startswith(f"spiffe://{stage.own_domain}/ns/")
    assert "peer" not in one


@contextlib.asynccontextmanager
async def streaming(stage: Stage) -> AsyncIterator[HTTPClient]:
    async with stage.call() as client:
        await client.request("GET", "/ok/stream")
        assert (await client.head()).status == 200
        await client.reader.readuntil(b"tick")
        yield client


async def test_operators_see_for_whom_a_mesh_gateway_asks(stage: Stage) -> None:
    await exported_and_allowed(stage)
    source = f"{PEER}:{CALLER}"
    explained = await stage.say("explain", source, PLAIN, "--path=/ok")
    assert f"{source} is allowed: GET /ok" in explained.output
    assert "if a mesh gateway of this cluster says so" in explained.output
    explained = await stage.say("explain", source, PLAIN, "--path=/no")
    assert f"{source} may not connect to {PLAIN}" in explained.output
    assert f'source="{source}"' in await stage.gateway.metrics()
    (known,) = (await stage.gateway.status())["peers"]
    assert known["services"] == [PLAIN, TWO]
    # Envoy gives each request 15 s, this stream, too: nothing else is done meanwhile.
    async with streaming(stage) as client:
        shown = (await stage.gateway.connections())["connections"]
        callers = {request["caller"] for one in shown for request in one["connection"]["live_requests"]}
        assert callers == {source}
        killed = await stage.say("connections", "kill", f"--source={source}")
        assert source in killed.output, killed.errors
        await client.ended()

    def told() -> bool:
        lines = [json.loads(line) for line in (stage.folder / "audit.log").read_text().splitlines()]
        of_caller = [one for one in lines if one.get("source") == stage.source]
        assert {(one["peer"], one["via"]) for one in of_caller} == {(PEER, stage.mesh_gateway)}
        return {one["event"] for one in of_caller} == {"request.allowed", "request.denied", "request.revoked"}

    await eventually(told, what="the audit log has it")


async def cut(stage: Stage, client: HTTPClient, began_s: float) -> None:
    """The gateway ends it in time. Each Envoy on the way gives its client another second to read what was sent."""
    lines = len(stage.requests(path="/ok/stream", reason="revoked"))
    await eventually(lambda: len(stage.requests(path="/ok/stream", reason="revoked")) > lines, WITHIN_S)
    assert time.monotonic() - began_s < WITHIN_S * SCALE
    await client.ended()


async def test_a_denied_stream_ends(stage: Stage) -> None:
    await exported_and_allowed(stage)
    async with streaming(stage) as client:
        began_s = time.monotonic()
        await asyncio.gather(cut(stage, client, began_s), stage.policy(("deny", "/ok")))


async def test_what_is_no_longer_exported_ends_within_a_second(stage: Stage) -> None:
    await exported_and_allowed(stage)
    async with streaming(stage) as client:
        began_s = time.monotonic()
        await asyncio.gather(cut(stage, client, began_s), export(stage.own, TWO))
    (known,) = (await stage.gateway.status())["peers"]
    assert known["services"] == [TWO]
    assert (await stage.get("/ok", service=TWO)).status == 200


Case = tuple[str, tuple[str, ...], int, int]
"""What it is, the lines of the header, and the status that Envoy's gateway and this one answer."""


def cases(caller: str, gateway: str, own_domain: str) -> list[Case]:
    by, uri = f"By={gateway}", f"URI={caller}"
    local = f"URI=spiffe://{own_domain}/ns/default/dc/dc1/svc/{CALLER}"
    return [
        ("as a mesh gateway writes it", (f'{by};Hash=ab;Subject="";{uri}',), 200, 200),
        ("none", (), 403, 403),
        ("a caller of this cluster", (f"{by};{local}",), 403, 403),
        ("an escaped character", (f"{by};{uri.replace('web', '%77eb')}",), 403, 403),
        ("quoted", (f'{by};URI="{caller}"',), 403, 403),
        ("several elements", (f"{by};{uri},{by};{uri}",), 200, 403),
        ("several lines", (f"{by};{uri}", f"{by};{uri}"), 200, 403),
        ("several URIs", (f"{by};URI={caller}x;{uri}",), 200, 403),
        ("a DNS name that looks like a URI", (f"{by};URI={caller}x;DNS=a;{uri}",), 200, 403),
        ("within quotation marks", (f'{by};URI={caller}x;Subject="CN=a;{uri}',), 200, 403),
        ("a DNS name after it", (f"{by};{uri};DNS=a.example",), 403, 200),
        ("written by another", (f"By={caller};{uri}",), 200, 403),
        ("without By", (f"Hash=ab;{uri}",), 200, 403),
    ]


@dataclass(frozen=True)
class Asking:
    """As a mesh gateway of the gateway's cluster."""

    context: ssl.SSLContext
    server_name: str

    async def status(self, port: int, lines: tuple[str, ...]) -> int:
        """0: there is no answer."""
        headers = "".join(f"{CERTIFICATE}: {line}\r\n" for line in lines)
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            async with http_client(port, self.context, self.server_name) as client:
                return (await client.get("/", headers)).status
        return 0

    async def answered(self, port: int, lines: tuple[str, ...], status: int) -> None:
        async def answers() -> bool:
            return await self.status(port, lines) == status

        await eventually(answers, 30.0, what=f"port {port} answers {status}")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def asking(stage: Stage) -> Asking:
    await export(stage.own, PLAIN, TWO, DIRECT)
    await stage.policy(("allow", "/"), service=DIRECT)
    client = MeshClient(
        roots_pem=stage.authority.certificate_pem,
        trust_domain=stage.own_domain,
        leaf=stage.authority.identity(stage.mesh_gateway),
    )
    return Asking(client.context(), client.server_name(DIRECT))


async def test_beside_envoys_gateway(stage: Stage, asking: Asking) -> None:
    """What a mesh gateway might send: Envoy's gateway looks for a text in the header, this one reads it."""
    table = cases(stage.source, stage.mesh_gateway, stage.own_domain)
    for port, of_envoy in ((stage.envoy.port, True), (stage.gateway.port, False)):
        await asking.answered(port, table[0][1], 200)
        found = [(what, await asking.status(port, lines)) for what, lines, *_ in table]
        assert found == [(what, envoys if of_envoy else ours) for what, _, envoys, ours in table]


async def test_where_the_header_is_not_passed_on_callers_of_peers_are_known_still(stage: Stage, asking: Asking) -> None:
    """Envoy's gateway takes it out before it looks, and denies them all."""
    honest = cases(stage.source, stage.mesh_gateway, stage.own_domain)[0][1]
    await asking.answered(stage.gateway.port, honest, 200)
    await stage.own.write_config({"Kind": "mesh", "HTTP": {"SanitizeXForwardedClientCert": True}})
    try:
        await asking.answered(stage.envoy.port, honest, 403)

        async def kept() -> bool:
            assert await asking.status(stage.gateway.port, honest) == 200
            return not stage.backend.requests[-1].values(CERTIFICATE)

        await eventually(kept, what="the external service is not told")
    finally:
        await stage.own.delete_config("mesh", "mesh")
