"""Where pages of the documentation are followed as they are written: addresses, ports and names are those of pages.

It runs in a network namespace of its own, in which 10.0.0.5 is the gateway's address and 10.0.0.9 that of a database,
so that nothing of a page has to be put in other words. ``python -m tests.support.reading_room FOLDER`` is the room, and
:class:`ReadingRoom` starts it. It is asked by lines on standard input, and answers each with a line.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
import sys
import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugin.dev import locate
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import Sidecar
from plugin.dev.external import ExternalService, echo, hello
from plugin.dev.postgres import Postgres
from plugin.dev.processes import Child, Launcher, can_connect, dies_with_us
from plugin.linking.hcl import to_hcl
from tests.support.command import ROOT
from tests.support.console import Command, Terminals, commands
from tests.support.eventually import SCALE
from tests.support.key_server import SigningKey, key_set
from tests.support.mesh_client import MeshClient, MeshConnection
from tests.support.short_connections import Traffic

GATEWAY_ADDRESS, ENVOY_ADDRESS, DATABASE_ADDRESS = "10.0.0.5", "10.0.0.4", "10.0.0.9"
ADDRESSES = (GATEWAY_ADDRESS, ENVOY_ADDRESS, DATABASE_ADDRESS)
GATEWAY = "my-gateway"
ADMIN_PORT = 19090
CONNECTION = "0-17"
"""The connection that pages ask about; whatever ID it has in the room takes its place."""
MIGRATION = "docs/migration-from-envoy.md"
MAIL_UPSTREAM = 9292
"""Of the sidecar of ``web``: an echo."""
LEAVING_S = 60.0
DEADLINE_S = 240.0
KEY = SigningKey("login")
NETWORK = "ip link set lo up && " + " && ".join(f"ip address add {one}/32 dev lo" for one in ADDRESSES)
# A version that somebody has installed beside this one.
OTHER_VERSION = "mount -t tmpfs tmpfs /opt && ln -s {environment} /opt/consul-tgw-0.2"


class ReadingRoom(Launcher):
    """The room, from outside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """:raises AssertionError: when it cannot be prepared."""
        rights = ["--map-root-user", "--user"] if os.geteuid() else []
        other = OTHER_VERSION.format(environment=Path(sys.executable).parents[1])
        room = f"{NETWORK} && {other} && exec {sys.executable} -m tests.support.reading_room {self._folder}"
        self._process = await asyncio.create_subprocess_exec(
            *dies_with_us(["unshare", *rights, "--net", "--mount", "sh", "-c", room]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=2**24,
        )
        await self._answer()

    async def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                async with asyncio.timeout(30.0 * SCALE):
                    await self._process.wait()
            finally:
                if self._process.returncode is None:
                    self._process.kill()
                    await self._process.wait()

    async def follow(self, page: str) -> None:
        """Do what the page says. :raises AssertionError: with what happened instead."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(page.encode() + b"\n")
        await self._answer()

    async def _answer(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S * SCALE):
            line = await self._process.stdout.readline()
        assert line, "the reading room has ended; its standard error says why"
        problem = json.loads(line)["problem"]
        assert not problem, problem


@dataclass(kw_only=True)
class Room:
    """What is in it."""

    folder: Path
    agent: ConsulAgent
    environment: dict[str, str]
    gateway: Child | None = None
    held: list[MeshConnection] = field(default_factory=list)

    async def follow(self, page: str) -> None:
        in_checkout = not page.startswith("docs/")
        if not in_checkout and self.gateway is None:
            await self._start_gateway()
        text = (ROOT / page).read_text()
        if CONNECTION in text:
            text = text.replace(CONNECTION, await self._a_live_connection())
        terminals = Terminals(self.environment, ROOT if in_checkout else self.folder)
        try:
            if page == MIGRATION:
                await self._migrate(terminals, list(commands(text)))
            else:
                await terminals.run(list(commands(text)))
        finally:
            await terminals.close()

    async def _migrate(self, terminals: Terminals, steps: list[Command]) -> None:
        """Beginning with Envoy's gateway alone, under traffic: not one connection may be lost on the way."""
        await self.end_gateway()
        # Not those that Envoy's gateway cannot serve: it would wait for them with all the others.
        await _write_links(self.agent, [{"Name": name} for name in ("billing-db", "mail")])
        await terminals.run(steps[:1])
        async with Traffic(MAIL_UPSTREAM) as traffic:
            await terminals.run(steps[1:])
        traffic.check()

    async def end_gateway(self) -> None:
        """It leaves Consul: a check that stayed behind would be one of Envoy's gateway, which has the same ID."""
        for connection in self.held:
            connection.close()
        self.held.clear()
        if self.gateway is not None:
            await self.gateway.terminate(LEAVING_S * SCALE)
            self.gateway = None

    async def _start_gateway(self) -> None:
        """As pages have it, with services in all the states that they speak of."""
        await _write_mesh(self.agent)
        command = [str(Path(sys.executable).parent / "consul-tgw"), "run", f"--service={GATEWAY}"]
        command += [f"--address={GATEWAY_ADDRESS}:8443", "--workers=1", "--drain-delay=0", "--drain-timeout=0"]
        log = self.folder / "gateway.log"
        self.gateway = Child("the gateway", command, log, environment=self.environment, folder=self.folder)
        await self.gateway.started(self._serves)

    async def _serves(self) -> bool:
        status = await self._admin("/api/status")
        served = [one["name"] for one in status.get("services", ()) if one["served"]]
        return bool(status.get("ready")) and len(served) >= len(_LINKED) - 1

    async def _admin(self, path: str) -> dict[str, Any]:
        """What the admin API says; nothing while it does not answer."""
        if not can_connect("127.0.0.1", ADMIN_PORT):
            return {}
        reader, writer = await asyncio.open_connection("127.0.0.1", ADMIN_PORT)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
        _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        found: dict[str, Any] = json.loads(body)
        return found

    async def _a_live_connection(self) -> str:
        """The ID of one from ``web`` to ``billing-db``; another one is there as well."""
        client = await MeshClient.of(self.agent, "web")
        for _ in range(2):
            connection = await client.connect(GATEWAY_ADDRESS, 8443, client.server_name("billing-db"))
            # PostgreSQL answers to SSLRequest, and waits then.
            await connection.send(b"\0\0\0\x08\x04\xd2\x16\x2f")
            await connection.receive_exactly(1)
            self.held.append(connection)
        found = (await self._admin("/api/connections?search=billing-db"))["connections"]
        return str(found[0]["id"])


_LINKED = ("billing-db", "partner-api", "orders-api", "reports-api", "mail", "ledger-db", "mainframe")


async def _write_mesh(agent: ConsulAgent) -> None:
    # What earlier pages have left.
    await agent.deregister_external("external-orders-example")
    links: list[dict[str, Any]] = [{"Name": name} for name in _LINKED]
    links[-1] |= {"CAFile": "/etc/consul-tgw/tls/mainframe-ca.pem", "SNI": "mainframe.example"}
    await agent.register_external("external-10-0-0-9", DATABASE_ADDRESS, "billing-db", 5432, service_id="billing-db")
    await agent.register_external("external-ledger", DATABASE_ADDRESS, "ledger-db", 5999)
    await agent.register_external("external-mainframe", DATABASE_ADDRESS, "mainframe", 5998)
    for name in ("partner-api", "orders-api", "reports-api"):
        await agent.write_config({"Kind": "service-defaults", "Name": name, "Protocol": "http"})
    for name in ("billing-db", "partner-api", "mail", "ledger-db"):
        await agent.write_intention("web", name)
    await agent.write_config(
        {
            "Kind": "jwt-provider",
            "Name": "login",
            "Issuer": "https://login.example/",
            "Audiences": ["reports"],
            "JSONWebKeySet": {"Local": {"JWKS": base64.b64encode(key_set(KEY)).decode()}},
        }
    )
    reads = {"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET"]}}
    await agent.write_config(
        {"Kind": "service-intentions", "Name": "orders-api", "Sources": [{"Name": "web", "Permissions": [reads]}]}
    )
    await agent.write_config(
        {
            "Kind": "service-intentions",
            "Name": "reports-api",
            "JWT": {"Providers": [{"Name": "login"}]},
            "Sources": [{"Name": "web", "Action": "allow"}],
        }
    )
    await _write_links(agent, links)


async def _write_links(agent: ConsulAgent, links: list[dict[str, Any]]) -> None:
    await agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": links})


def _write_files(folder: Path) -> None:
    """Those that pages name without a folder."""
    may = {"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET", "POST"]}}
    entries: dict[str, dict[str, Any]] = {
        "service-intentions-billing-db": {
            "Kind": "service-intentions",
            "Name": "billing-db",
            "Sources": [{"Name": "web", "Action": "allow"}, {"Name": "batch", "Action": "allow"}],
        },
        "service-intentions-orders-api": {
            "Kind": "service-intentions",
            "Name": "orders-api",
            "Sources": [{"Name": "web", "Permissions": [may]}],
        },
        "service-intentions-new": {
            "Kind": "service-intentions",
            "Name": "new",
            "Sources": [{"Name": "web", "Action": "allow"}],
        },
        "terminating-gateway": {
            "Kind": "terminating-gateway",
            "Name": GATEWAY,
            "Services": [*({"Name": name} for name in _LINKED[:-1]), {"Name": "new"}],
        },
    }
    for name, entry in entries.items():
        (folder / f"{name}.hcl").write_text(to_hcl(entry))
    an_hour_ago = int(time.time()) - 3600
    (folder / "token.jwt").write_text(KEY.sign(iss="https://login.example/", aud="reports", exp=an_hour_ago))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, port: int) -> None:
    """To the loopback ``port``: PostgreSQL lets in who comes from there."""
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
            target.write_eof()

    try:
        await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))
    finally:
        other_writer.close()


@contextlib.asynccontextmanager
async def prepared(folder: Path) -> AsyncIterator[Room]:
    home = folder / "home"
    home.mkdir()
    _write_files(folder)
    agent = ConsulAgent(folder / "consul", acl=True)
    # Connections are held that never say who they are.
    database = Postgres(settings={"authentication_timeout": "10min"})
    async with contextlib.AsyncExitStack() as stack:
        for part in (agent, database):
            await stack.enter_async_context(part)
        await database.psql("create role billing superuser login")
        await database.psql("create database billing")
        passed_on = functools.partial(_pass_on, port=database.port)
        await stack.enter_async_context(ExternalService(passed_on, address=DATABASE_ADDRESS, port=5432))
        for name in ("partner-api", "orders-api", "reports-api"):
            service = await stack.enter_async_context(ExternalService(hello, address=DATABASE_ADDRESS))
            await agent.register_external(f"external-{name}", DATABASE_ADDRESS, name, service.port)
        mail = await stack.enter_async_context(ExternalService(echo, address=DATABASE_ADDRESS))
        await agent.register_external("external-mail", DATABASE_ADDRESS, "mail", mail.port)
        await stack.enter_async_context(Sidecar(agent, "web", [("billing-db", 9191), ("mail", MAIL_UPSTREAM)]))
        programs = (
            *(Path(sys.executable).parent, locate.consul().parent, locate.envoy().parent),
            locate.postgres_bin(),
        )
        environment = agent.cli_environment() | {
            "PATH": ":".join((*map(str, programs), os.environ["PATH"])),
            "HOME": str(home),
            "COLUMNS": "200",
            "RUNTIME_DIRECTORY": str(folder / "run"),
            "PAGER": "cat",
            "MANPAGER": "cat",
        }
        room = Room(folder=folder, agent=agent, environment=environment)
        try:
            yield room
        finally:
            await room.end_gateway()


async def main(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        async with prepared(folder) as room:
            _say("")
            while line := (await reader.readline()).decode().strip():
                problem = ""
                try:
                    await room.follow(line)
                except (Exception, asyncio.CancelledError):  # noqa: BLE001 - the asking test reports it
                    problem = traceback.format_exc()
                _say(problem)
    except Exception:  # noqa: BLE001 - as above
        _say(traceback.format_exc())


def _say(problem: str) -> None:
    sys.stdout.write(json.dumps({"problem": problem}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
