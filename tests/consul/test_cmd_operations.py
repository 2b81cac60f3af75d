"""What operators see of a running gateway and do to it from the command line, on a real Consul."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import struct
import sys
import tarfile
import termios
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
from plugin.process.tasks import spawn
from tests.support.command import ROOT, Said, consul_tgw
from tests.support.eventually import eventually
from tests.support.linking import Links, dial, let_in, serves
from tests.support.mesh_client import MeshClient, MeshConnection
from tests.support.secrecy import Output

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, SERVICE, OTHER = "operated", "operated-db", "operated-cache"
WEB, BATCH = "operated-web", "operated-batch"


@dataclass(frozen=True, kw_only=True)
class Stage:
    agent: ConsulAgent
    gateway: Gateway
    links: Links
    clients: dict[str, MeshClient]
    folder: Path
    port: int
    """Of the external services."""

    async def say(self, *arguments: str) -> Said:
        run = f"--runtime-dir={self.folder / 'run'}"
        return await consul_tgw(*arguments, run, environment=self.agent.cli_environment())

    async def connect(self, source: str, service: str = SERVICE) -> MeshConnection:
        connection = await dial(self.clients[source], self.gateway, service)
        assert await connection.exchange(b"ping") == b"ping"
        return connection


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(consul_agent: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("operations")
    links = Links(consul_agent, GATEWAY)
    async with ExternalService(echo) as external, Gateway(consul_agent, folder, GATEWAY, workers=2) as gateway:
        clients = {}
        for service in (SERVICE, OTHER):
            await links.add(service, external.port)
            for source in (WEB, BATCH):
                await consul_agent.write_intention(source, service)
                clients[source] = await MeshClient.of(consul_agent, source)
        await serves(gateway, SERVICE, OTHER)
        for client in clients.values():
            await let_in(client, gateway, SERVICE)
            await let_in(client, gateway, OTHER)
        yield Stage(
            agent=consul_agent, gateway=gateway, links=links, clients=clients, folder=folder, port=external.port
        )


def listed(said: Said) -> list[dict[str, Any]]:
    assert said.code == 0, said.errors
    found: list[dict[str, Any]] = said.json["connections"]
    return found


async def test_connections_are_found_by_what_they_are(stage: Stage) -> None:
    async with await stage.connect(WEB) as big, await stage.connect(BATCH), await stage.connect(WEB, OTHER):
        await big.exchange(b"x" * 50_000)

        async def all_three() -> bool:
            return len(listed(await stage.say("connections", "--json"))) == 3

        await eventually(all_three)
        of_service = listed(await stage.say("connections", "--json", "--service", SERVICE, "--sort", "bytes"))
        assert [one["connection"]["caller"] for one in of_service] == [WEB, BATCH]
        assert of_service[0]["connection"]["bytes_received"] > 50_000
        assert of_service[0]["id"] == f"{of_service[0]['worker']}-{of_service[0]['connection']['number']}"
        (of_batch,) = listed(await stage.say("connections", "--json", f"--source={BATCH}"))
        assert of_batch["connection"]["endpoint"] == f"127.0.0.1:{stage.port}"
        assert of_batch["connection"]["state"] == "open"
        spiffe_id = of_batch["connection"]["source"]
        assert listed(await stage.say("connections", "--json", f"--source={spiffe_id}"))[0]["id"] == of_batch["id"]
        client = of_batch["connection"]["client"]
        assert len(listed(await stage.say("connections", "--json", f"--client={client}"))) == 1
        assert len(listed(await stage.say("connections", "--json", f"--endpoint=127.0.0.1:{stage.port}"))) == 3
        assert listed(await stage.say("connections", "--json", "--older-than=3600")) == []
        assert listed(await stage.say("connections", "--json", "--idle=3600")) == []
        assert len(listed(await stage.say("connections", "--json", "--limit=1"))) == 1
        table = await stage.say("connections", "--watch", "--limit=2")
        assert table.code == 0
        assert "2 of 3 shown" in table.output
        assert of_batch["connection"]["intention"]


async def test_a_connection_is_ended_with_a_reason_that_the_access_log_keeps(stage: Stage) -> None:
    async with (
        await stage.connect(WEB) as first,
        await stage.connect(WEB) as second,
        await stage.connect(BATCH) as last,
    ):
        by_client = {one["connection"]["client"]: one for one in listed(await stage.say("connections", "--json"))}
        own = first.writer.get_extra_info("sockname")
        chosen = by_client[f"{own[0]}:{own[1]}"]
        said = await stage.say("connections", "kill", chosen["id"], "--reason", "ticket 4711")
        assert (said.code, said.errors) == (0, "")
        assert said.output.startswith(f"ended {chosen['id']}: {WEB} at {chosen['connection']['client']} to {SERVICE}")
        await first.ended()
        (line,) = await eventually(lambda: _killed(stage, "ticket 4711"))
        assert (line["worker"], line["number"]) == (chosen["worker"], chosen["connection"]["number"])
        assert line["detail"] == "ended by an operator: ticket 4711"
        assert await second.exchange(b"on") == b"on"
        nobody = await stage.say("connections", "kill", chosen["id"])
        assert (nobody.code, nobody.output) == (1, "")
        assert "there is no such connection" in nobody.errors
        several = await stage.say("connections", "kill", f"--service={SERVICE}", f"--source={WEB}", "--json")
        assert [one["connection"]["caller"] for one in several.json["ended"]] == [WEB]
        await second.ended()
        assert await last.exchange(b"on") == b"on"
    log = stage.gateway.log_path.read_text()
    assert f"connections.killed: an operator has ended 1 of the connections of {SERVICE}: ticket 4711" in log


def _killed(stage: Stage, reason: str) -> list[dict[str, Any]]:
    lines = stage.gateway.access_records()
    return [one for one in lines if one["reason"] == "killed" and reason in one.get("detail", "")]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "either WORKER-NUMBER, or --service, --source or both"),
        (("0-1", "--service=x"), "either WORKER-NUMBER, or --service, --source or both"),
        (("17",), "'17' is no connection: write WORKER-NUMBER"),
        (("0-1", "--reason=a\nb"), "one line of at most 200 printable characters"),
    ],
)
async def test_what_cannot_be_ended_is_said(stage: Stage, arguments: tuple[str, ...], complaint: str) -> None:
    said = await stage.say("connections", "kill", *arguments)
    assert (said.code, complaint in said.errors) == (2, True), said.errors


async def test_without_the_token_nothing_is_ended(stage: Stage) -> None:
    async with await stage.connect(WEB) as connection:
        environment = {**stage.agent.cli_environment(), "CONSUL_TGW_ADMIN_TOKEN": "this-is-not-the-admin-token"}
        address = f"--admin-address=127.0.0.1:{stage.gateway.admin_port}"
        said = await consul_tgw("connections", "kill", f"--service={SERVICE}", address, environment=environment)
        assert (said.code, "answered 401" in said.errors) == (2, True)
        assert await asyncio.wait_for(connection.exchange(b"on"), 20) == b"on"


def _changes(said: Said, service: str = SERVICE) -> list[tuple[str, int]]:
    assert said.code == 0, said.errors
    events = [one for one in said.json["events"] if one["event"] == "state.updated"]
    return [(one["what"], one["index"]) for event in events for one in event["changes"] if one["service"] == service]


async def test_events_say_what_changed_and_from_which_index(stage: Stage) -> None:
    followed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plugin", "events", "--follow", "--json", f"--service={SERVICE}"),
        f"--admin-address=127.0.0.1:{stage.gateway.admin_port}",
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=stage.agent.cli_environment(),
    )
    assert followed.stdout is not None
    try:
        async with await stage.connect(BATCH) as connection:
            lines = [json.loads(await asyncio.wait_for(followed.stdout.readline(), 30))]
            await stage.agent.write_intention(BATCH, SERVICE, "deny")
            written = await stage.agent.api("GET", f"/v1/config/service-intentions/{SERVICE}")
            await connection.ended()
        async with asyncio.timeout(30):
            while not any(line["event"] == "policy.ended" for line in lines):
                lines.append(json.loads(await followed.stdout.readline()))
    finally:
        followed.send_signal(signal.SIGINT)
        assert await followed.wait() == 130
        await stage.agent.write_intention(BATCH, SERVICE)
    ended = lines[-1]
    assert (ended["fields"]["source"], ended["fields"]["count"], ended["fields"]["reason"]) == (BATCH, 1, "revoked")
    told = [change for line in lines if line["event"] == "state.updated" for change in line["changes"]][-1]
    assert told["what"] == f"intention {BATCH} => {SERVICE}: allow -> deny"
    assert told["index"] >= written["ModifyIndex"]
    await let_in(stage.clients[BATCH], stage.gateway, SERVICE)
    await stage.agent.register_external(f"node-{OTHER}-2", "127.0.0.1", OTHER, stage.port, service_id=f"{OTHER}-2")

    async def two_instances() -> bool:
        said = await stage.say("events", "--json", f"--service={OTHER}")
        return any(what == "instances +1, now 2" and index for what, index in _changes(said, OTHER))

    await eventually(two_instances)
    shown = await stage.say("events")
    for name in ("admin.started", "worker.started", "gateway.ready", "registration.made", "state.updated"):
        assert name in shown.output
    assert f"{SERVICE}: intention {BATCH} => {SERVICE}: allow -> deny" in shown.output
    assert "gateway.ready" not in (await stage.say("events", f"--service={SERVICE}")).output
    assert (await stage.say("events", "--since=1ns")).output == ""
    wrong = await stage.say("events", "--since=yesterday")
    assert (wrong.code, "is not a duration" in wrong.errors) == (2, True)


async def test_top_shows_what_moves(stage: Stage) -> None:
    async with await stage.connect(WEB) as connection:

        async def flow() -> None:
            while True:
                await connection.exchange(b"x" * 20_000)
                await asyncio.sleep(0.01)

        flowing = spawn(flow(), name="flow")
        try:

            async def seen() -> dict[str, Any]:
                said = await stage.say("top", "--json", "--interval=1.5", f"--service={SERVICE}")
                rows = {one["source"]: one for one in said.json["rates"]}
                assert rows[WEB]["received"] > 10_000
                assert rows[WEB]["sent"] > 10_000
                return rows

            rows = await eventually(seen)
            assert rows[WEB]["open"] == rows[""]["open"] == 1
            table = await stage.say("top", "--interval=1.2", "--by=service")
        finally:
            flowing.cancel()
    assert table.code == 0
    assert SERVICE in table.output
    assert "connections/s" in table.output
    assert WEB not in table.output


async def test_certificates_are_sorted_by_their_end_and_name_what_renews_them(stage: Stage) -> None:
    own = Authority("Ops CA")
    ca_file = own.write(stage.folder, "ops-ca")
    await stage.links.set(OTHER, CAFile=str(ca_file), SNI="ops.example")

    async def shown() -> list[dict[str, Any]]:
        said = await stage.say("certs", "--json")
        found: list[dict[str, Any]] = said.json["certificates"]
        assert said.json["problems"] == []
        assert any(one["kind"] == "upstream_ca" for one in found)
        return found

    found = await eventually(shown)
    assert [one["not_after_s"] for one in found] == sorted(one["not_after_s"] for one in found)
    leaves = {one["services"][0]: one for one in found if one["kind"] == "leaf"}
    assert leaves.keys() == {SERVICE, OTHER}
    assert leaves[SERVICE]["spiffe_ids"][0].endswith(f"/svc/{SERVICE}")
    leaf = leaves[SERVICE]
    assert leaf["not_before_s"] < leaf["renewal_s"] < leaf["not_after_s"]
    issued = await stage.agent.api("GET", f"/v1/agent/connect/ca/leaf/{SERVICE}")
    assert leaf["serial"] == issued["SerialNumber"].lower()
    (root,) = [one for one in found if one["kind"] == "root"]
    assert root["active"] is True
    (authority,) = [one for one in found if one["kind"] == "upstream_ca"]
    assert (authority["path"], authority["services"]) == (str(ca_file), [OTHER])
    assert authority["modified_s"] == pytest.approx(ca_file.stat().st_mtime, abs=0.01)
    soon = await stage.say("certs", "--expiring-in=96h")
    assert (soon.code, "/svc/" in soon.output) == (1, True)
    assert "root, active" not in soon.output
    late = await stage.say("certs", "--expiring-in=1s")
    assert late.code == 0
    await stage.links.set(OTHER)
    await serves(stage.gateway, OTHER)


async def test_config_says_where_each_setting_comes_from(stage: Stage) -> None:
    said = await stage.say("config", "--json")
    assert said.code == 0, said.errors
    found = {one["name"]: one for one in (*said.json["settings"], *said.json["consul"])}
    assert found["--workers"] == {"name": "--workers", "value": "2", "origin": "flag", "where": "--workers"}
    assert found["--log-level"]["origin"] == "default"
    assert found["CONSUL_HTTP_ADDR"]["origin"] == "environment variable"
    table = await stage.say("config", "--service", GATEWAY)
    assert (table.code, "--drain-timeout" in table.output) == (0, True)
    environment = {**stage.agent.cli_environment(), "CONSUL_HTTP_TOKN": "for-nobody"}
    flags = ("run", "--service=other", "--address=127.0.0.1:8443", "--proxy-config={}", "--json")
    tried = await consul_tgw("config", *flags, environment=environment)
    assert tried.json["warnings"] == [
        "the environment variable CONSUL_HTTP_TOKN is read by nobody; did you mean CONSUL_HTTP_TOKEN?"
    ]
    for command in ("config", "run"):
        arguments = ("run", *flags[1:3]) if command == "config" else flags[1:3]
        wrong = await consul_tgw(
            command, *arguments, '--proxy-config={"connect_timeout": 1}', environment=stage.agent.cli_environment()
        )
        assert wrong.code == 2
        assert "connect_timeout is no key of Proxy.Config; did you mean connect_timeout_ms?" in wrong.errors


async def test_a_support_bundle_holds_everything_and_no_secret(stage: Stage) -> None:
    own_pki = Authority("Bundle CA")
    pair = own_pki.client("bundle")
    certificate, key = pair.write(stage.folder, "bundle-client")
    ca_file = str(own_pki.write(stage.folder, "bundle-ca"))
    await stage.links.set(OTHER, CAFile=ca_file, CertFile=str(certificate), KeyFile=str(key), SNI="b.example")
    await eventually(lambda: _has_upstream_tls(stage))
    token, slip = "5f0e1d2c-aaaa-bbbb-cccc-0123456789ab", "typed-by-mistake"
    (admin_token,) = (stage.folder / "run").glob("*/admin-token")
    environment = {**stage.agent.cli_environment(), "CONSUL_HTTP_TOKEN": token, "CONSUL_HTTP_AUTH": "me:my password"}
    path = stage.folder / "bundle.tar.gz"
    async with await stage.connect(WEB) as connection:
        # A slip that ends in what the bundle gathers: in an event.
        reason = f"--reason=from http://me:{slip}@consul.example"
        ended = await stage.say("connections", "kill", f"--source={WEB}", reason)
        assert ended.code == 0
        await connection.ended()
        said = await consul_tgw(
            *("support-bundle", str(path), "--json", f"--runtime-dir={stage.folder / 'run'}"), environment=environment
        )
    assert said.code == 0, said.output + said.errors
    with tarfile.open(path) as archive:
        files = {one.name.partition("/")[2]: archive.extractfile(one) for one in archive.getmembers()}
        contents = {name: file.read() for name, file in files.items() if file is not None}
    assert contents.keys() - {"README.txt"} == {one["name"] for one in said.json["contents"]}
    scanner = Output()
    for secret in (token, slip, "my password", admin_token.read_text().strip(), stage.agent.management_token):
        scanner.learn(secret)
    # The first line of a key in PEM is the same for all of its kind.
    scanner.learn(pair.private_key_pem.splitlines()[2])
    for name, data in contents.items():
        assert scanner.feed(name, data) == []
    assert b"http://<redacted>@consul.example" in contents["events.json"]
    for name in ("status", "snapshot", "config", "connections", "traffic", "certificates", "events", "check", "consul"):
        json.loads(contents[f"{name}.json"])
    assert b"consul_tgw_ready 1.0" in contents["metrics.txt"]
    processes = json.loads(contents["processes.json"])
    assert [one["name"] for one in processes] == ["control", "worker 0", "worker 1"]
    assert all(one["descriptors"] > 3 and one["status"]["VmRSS"] for one in processes)
    assert json.loads(contents["consul.json"])["Version"]
    again = await stage.say("support-bundle", str(path))
    assert (again.code, "is there already" in again.errors) == (2, True)
    await stage.links.set(OTHER)
    await serves(stage.gateway, OTHER)


async def _has_upstream_tls(stage: Stage) -> bool:
    return any(one["name"] == OTHER and one["upstream_tls"] for one in (await stage.gateway.status())["services"])


async def test_a_shell_completes_services_of_the_running_gateway(stage: Stage) -> None:
    words = f"consul-tgw connections --runtime-dir {stage.folder / 'run'} --service"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plugin"),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={
            **stage.agent.cli_environment(),
            "_CONSUL_TGW_COMPLETE": "bash_complete",
            "COMP_WORDS": f"{words} operated-c",
            "COMP_CWORD": str(len(words.split())),
        },
    )
    output, _ = await process.communicate()
    assert output.decode().split() == [f"plain,{OTHER}"]


async def test_requests_under_way_are_shown_and_ended(stage: Stage) -> None:
    api = "operated-api"
    held = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await held.wait()
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    await stage.agent.write_config({"Kind": "service-defaults", "Name": api, "Protocol": "http"})
    await stage.links.add(api, server.sockets[0].getsockname()[1])
    await stage.agent.write_intention(WEB, api)
    await serves(stage.gateway, api)
    await eventually(lambda: _intentions(stage, api))
    async with await dial(stage.clients[WEB], stage.gateway, api) as connection:
        await connection.send(b"GET /orders?secret=1 HTTP/1.1\r\nHost: api.example\r\n\r\n")

        async def under_way() -> dict[str, Any]:
            (one,) = listed(await stage.say("connections", "--json", f"--service={api}"))
            (request,) = one["connection"]["live_requests"]
            assert request["endpoint"]
            return one

        one = await eventually(under_way)
        (request,) = one["connection"]["live_requests"]
        assert (request["method"], request["path"], request["authority"]) == ("GET", "/orders", "api.example")
        assert (request["protocol"], one["connection"]["requests"]) == ("HTTP/1.1", 1)
        assert "GET api.example/orders" in (await stage.say("connections", f"--endpoint={request['endpoint']}")).output
        assert (await stage.say("connections", "kill", one["id"], "--reason=stuck for good")).code == 0
        await connection.ended()
    lines = await eventually(lambda: _killed(stage, "stuck for good"))
    assert {line.get("event", "connection") for line in lines} == {"request", "connection"}
    held.set()
    server.close()


async def _intentions(stage: Stage, service: str) -> bool:
    return any(one["name"] == service and one["intentions"] for one in (await stage.gateway.status())["services"])


async def test_a_live_table_is_left_with_q(stage: Stage) -> None:
    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    before = termios.tcgetattr(terminal)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plugin", "top", "--interval=0.3", f"--runtime-dir={stage.folder / 'run'}"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=ROOT,
        env={**stage.agent.cli_environment(), "TERM": "xterm-256color"},
    )
    seen = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(controller, lambda: seen.extend(os.read(controller, 65536)))
    try:
        await eventually(lambda: seen.count(SERVICE.encode()) >= 2, what="the table was drawn twice")
        os.write(controller, b"q")
        assert await asyncio.wait_for(process.wait(), 20) == 0
        assert termios.tcgetattr(terminal) == before
    finally:
        loop.remove_reader(controller)
        if process.returncode is None:
            process.kill()
        os.close(controller)
        os.close(terminal)


async def test_who_follows_events_follows_them_through_a_reload(stage: Stage) -> None:
    followed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plugin", "events", "--follow", "--json"),
        f"--admin-address=127.0.0.1:{stage.gateway.admin_port}",
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=stage.agent.cli_environment(),
    )
    assert followed.stdout is not None
    try:
        async with asyncio.timeout(60):
            first = json.loads(await followed.stdout.readline())
            assert first["number"] == 1
            assert (await stage.say("reload")).code == 0
            while json.loads(await followed.stdout.readline())["event"] != "gateway.reloaded":
                pass
    finally:
        followed.send_signal(signal.SIGINT)
        await followed.wait()
