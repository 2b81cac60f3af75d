"""The launchers start the real parts, and end them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plugin.dev.consul_agent import AgentTLS, ConsulAgent
from plugin.dev.envoy import EnvoyTerminatingGateway, Sidecar
from plugin.dev.external import ExternalService, echo, hello
from plugin.dev.pki import Authority
from plugin.dev.postgres import Postgres
from plugin.dev.processes import free_ports
from plugin.errors import ConsulRejected, ConsulUnavailable, StartError
from tests.conftest import AgentFactory
from tests.support.eventually import eventually
from tests.support.mesh_client import MeshClient


async def open_stream(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def echoes(port: int) -> bool:
    try:
        async with asyncio.timeout(5):
            reader, writer = await open_stream(port)
            writer.write(b"hello")
            answer = await reader.read(5)
            writer.close()
            return answer == b"hello"
    except (OSError, TimeoutError):
        return False


async def link(agent: ConsulAgent, gateway: str, service: str, port: int, client: str) -> None:
    await agent.register_external(f"node-{service}", "127.0.0.1", service, port)
    await agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": [{"Name": service}]})
    await agent.write_intention(client, service)


async def test_agent_answers_its_command_line_and_its_api(consul_agent: ConsulAgent) -> None:
    assert "1.21." in await consul_agent.cli("version")
    await consul_agent.write_config('Kind = "service-defaults"\nName = "launched-cli"\nProtocol = "http"')
    entry = await consul_agent.api("GET", "/v1/config/service-defaults/launched-cli")
    assert entry["Protocol"] == "http"
    await consul_agent.delete_config("service-defaults", "launched-cli")
    with pytest.raises(ConsulRejected, match="404"):
        await consul_agent.api("GET", "/v1/config/service-defaults/launched-cli")


async def test_command_line_failure_tells_what_consul_said(consul_agent: ConsulAgent) -> None:
    with pytest.raises(StartError, match="Failed to decode config entry"):
        await consul_agent.cli("config", "write", "-", input_text='Kind = "nonsense"')


async def test_agent_with_acl_refuses_strangers_and_knows_its_tokens(acl_agent: ConsulAgent) -> None:
    with pytest.raises(ConsulRejected, match="403"):
        await acl_agent.api("PUT", "/v1/kv/x", {}, token="")
    token = await acl_agent.create_token('key_prefix "" { policy = "write" }')
    assert await acl_agent.api("PUT", "/v1/kv/x", {}, token=token) is True
    leaf_token = await acl_agent.create_token(service="launched-service")
    client = await MeshClient.of(acl_agent, "launched-service", token=leaf_token)
    assert client.leaf is not None


async def test_persistent_agent_keeps_its_state_and_its_ca(start_agent: AgentFactory) -> None:
    agent = await start_agent(persistent=True)
    await agent.register_external("ext", "127.0.0.1", "db", 5432)
    before = await agent.api("GET", "/v1/agent/connect/ca/roots")
    await agent.restart()
    after = await agent.api("GET", "/v1/agent/connect/ca/roots")
    assert after["ActiveRootID"] == before["ActiveRootID"]
    assert len(await agent.api("GET", "/v1/health/service/db")) == 1


async def test_paused_agent_does_not_answer_until_resumed(start_agent: AgentFactory) -> None:
    agent = await start_agent()
    agent.pause()
    with pytest.raises(ConsulUnavailable):
        await agent.api("GET", "/v1/status/leader", timeout_s=1.0)
    agent.resume()
    assert await agent.api("GET", "/v1/status/leader")


async def test_agent_serves_its_api_over_tls(start_agent: AgentFactory, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.server("127.0.0.1", "localhost").write(tmp_path, "agent")
    ca = authority.write(tmp_path, "ca")
    agent = await start_agent(tls=AgentTLS(ca_file=ca, certificate_file=certificate, key_file=key))
    output = await agent.cli("members", f"-http-addr={agent.https_address}", f"-ca-file={ca}")
    assert "alive" in output


async def test_agent_that_cannot_start_says_why(start_agent: AgentFactory) -> None:
    with pytest.raises(StartError, match="nonsense_setting"):
        await start_agent(extra_hcl="nonsense_setting = true")


async def test_sidecar_reaches_an_external_service_through_consuls_own_gateway(consul_agent: ConsulAgent) -> None:
    (local_port,) = free_ports(1)
    async with ExternalService(echo) as external:
        await link(consul_agent, "launched-gateway", "launched-echo", external.port, "launched-client")
        async with (
            EnvoyTerminatingGateway(consul_agent, "launched-gateway") as gateway,
            Sidecar(consul_agent, "launched-client", [("launched-echo", local_port)]) as sidecar,
        ):
            await gateway.listening()
            await eventually(lambda: echoes(local_port), 60, what="the echo comes back")
            assert _command(gateway.pid).startswith("envoy")
            assert gateway.cpu_s() > 0
            pids = (gateway.pid, sidecar.pid)
    assert not any(_runs(pid) for pid in pids)
    services = await consul_agent.api("GET", "/v1/agent/services")
    assert not {name for name in services if name.startswith("launched-")}


async def test_mesh_client_sees_the_served_leaf_and_the_refusal(consul_agent: ConsulAgent) -> None:
    async with ExternalService(echo) as external:
        await link(consul_agent, "seen-gateway", "seen-echo", external.port, "seen-client")
        async with EnvoyTerminatingGateway(consul_agent, "seen-gateway") as gateway:
            await gateway.listening()
            client = await MeshClient.of(consul_agent, "seen-client")
            name = client.server_name("seen-echo")
            async with await client.connect("127.0.0.1", gateway.port, name) as connection:
                assert await connection.exchange(b"hello") == b"hello"
                assert connection.served_spiffe_id == f"spiffe://{client.trust_domain}/ns/default/dc/dc1/svc/seen-echo"
            stranger = MeshClient(roots_pem=client.roots_pem, trust_domain=client.trust_domain, leaf=None)
            assert "CERTIFICATE_REQUIRED" in await stranger.refusal("127.0.0.1", gateway.port, name)
            forged = Authority("Forged CA").leaf(client.trust_domain, "seen-client")
            forger = MeshClient(roots_pem=client.roots_pem, trust_domain=client.trust_domain, leaf=forged)
            assert "UNKNOWN_CA" in await forger.refusal("127.0.0.1", gateway.port, name)
            with pytest.raises(AssertionError, match="not refused"):
                await client.refusal("127.0.0.1", gateway.port, name)


async def test_postgres_asks_for_the_password_and_answers(postgres: Postgres) -> None:
    assert await postgres.psql("select 40 + 2") == "42"
    impostor = Postgres(password="wrong")
    with pytest.raises(StartError, match="password authentication failed"):
        await impostor.psql("select 1", port=postgres.port)


async def test_postgres_speaks_tls(authority: Authority) -> None:
    async with Postgres(tls=authority.server("127.0.0.1")) as cluster:
        in_use = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        assert await cluster.psql(in_use, tls_mode="require") == "t"
        folder = cluster.child.log_path.parent if cluster.child else Path("/")
    assert not folder.exists()


async def test_external_service_asks_for_a_client_certificate(authority: Authority) -> None:
    async with ExternalService(
        hello, tls=authority.server("web.example"), client_ca_pem=authority.certificate_pem
    ) as external:
        client = MeshClient(roots_pem=authority.certificate_pem, trust_domain="", leaf=authority.client("gateway"))
        async with await client.connect("127.0.0.1", external.port, "web.example") as connection:
            await connection.send(b"GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
            assert b"200 OK" in await connection.receive()
        assert external.server_names == ["web.example"]
        assert len(external.client_certificates) == 1
        stranger = MeshClient(roots_pem=authority.certificate_pem, trust_domain="", leaf=None)
        assert await stranger.refusal("127.0.0.1", external.port, "web.example") in ("eof", "reset")
        assert external.accepted == 1


async def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from plugin.dev.consul_agent import ConsulAgent\n"
        "from plugin.dev.envoy import Sidecar\n"
        "from plugin.dev.postgres import Postgres\n"
        "async def main():\n"
        "    agent, postgres = ConsulAgent(pathlib.Path(sys.argv[1])), Postgres()\n"
        "    sidecar = Sidecar(agent, 'client')\n"
        "    for part in (agent, sidecar, postgres): await part.start()\n"
        "    sys.stdout.write(f'{agent.child.pid} {sidecar.pid} {postgres.child.pid}\\n'); sys.stdout.flush()\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    try:
        async with asyncio.timeout(120):
            pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        await parent.wait()
    assert len(pids) == 3
    await eventually(lambda: not any(_runs(pid) for pid in pids), what="all of them have ended")


def _runs(pid: int) -> bool:
    try:
        # A zombie waits only for whoever adopted it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()
