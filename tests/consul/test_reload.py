"""``consul-tgw reload`` under traffic: other flags, other code, a new generation that does not start."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.processes import free_ports
from plugin.process.tasks import spawn
from proxy.messages import PROTOCOL_VERSION
from tests.support.command import ROOT, Said, consul_tgw
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, kept_out, let_in, sample
from tests.support.mesh_client import MeshClient, MeshConnection, Refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIVE = 4


class Traffic:
    """Connections that come without a pause, and some that live through everything, each byte of them accounted for."""

    def __init__(self, client: MeshClient, gateway: Gateway, service: str) -> None:
        self._client, self._gateway, self._service = client, gateway, service
        self.connects = 0
        self.failures: list[str] = []
        self.exchanged = 0
        self.accepted: list[float] = []

    async def _connect(self) -> None:
        while True:
            try:
                async with await dial(self._client, self._gateway, self._service) as connection:
                    assert await connection.exchange(b"ping") == b"ping"
            except (Refused, OSError) as error:
                self.failures.append(f"new: {error!r}")
            self.connects += 1

    async def _live(self, connection: MeshConnection) -> None:
        sent, received = hashlib.sha256(), hashlib.sha256()
        try:
            while True:
                piece = os.urandom(4096)
                sent.update(piece)
                received.update(await connection.exchange(piece))
                assert sent.digest() == received.digest()
                self.exchanged += 1
                await asyncio.sleep(0.01)
        except (Refused, OSError, AssertionError) as error:
            self.failures.append(f"live: {error!r}")

    async def _scrape(self) -> None:
        while True:
            self.accepted.append(sample(await self._gateway.metrics(), "consul_tgw_connections_accepted_total"))
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        connections = [await dial(self._client, self._gateway, self._service) for _ in range(LIVE)]
        tasks = [spawn(self._live(one), name="live") for one in connections]
        tasks += [spawn(self._connect(), name="connect"), spawn(self._scrape(), name="scrape")]
        try:
            yield
            assert [task.get_name() for task in tasks if task.done() and not task.cancelled()] == []
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for connection in connections:
                connection.close()

    async def goes_on(self) -> None:
        connects, exchanged, scraped = self.connects, self.exchanged, len(self.accepted)
        await eventually(
            lambda: (
                self.connects > connects + 20
                and self.exchanged > exchanged + 10 * LIVE
                and len(self.accepted) > scraped + 3
            ),
            what="connections come and go",
        )


@asynccontextmanager
async def serving(
    agent: ConsulAgent, folder: Path, name: str, **options: object
) -> AsyncIterator[tuple[Gateway, Traffic]]:
    service = f"{name}-db"
    links = Links(agent, name)
    async with (
        ExternalService(echo) as backend,
        Gateway(agent, folder, name, **options) as gateway,  # type: ignore[arg-type]
    ):
        await links.add(service, backend.port)
        client = await MeshClient.of(agent, f"{name}-web")
        await let_in(client, gateway, service)
        yield gateway, Traffic(client, gateway, service)


async def reload(gateway: Gateway, *flags: str) -> Said:
    place = gateway.log_path.parent / "run"
    return await consul_tgw("reload", f"--runtime-dir={place}", *flags, environment=gateway.agent.cli_environment())


async def pids(gateway: Gateway, *, former: bool) -> set[int]:
    workers = (await gateway.status())["workers"]
    return {worker["pid"] for worker in workers if (worker["index"] < 0) == former}


def flags_of(gateway: Gateway) -> list[str]:
    """Of its ``run``."""
    command = gateway._command()
    return command[command.index("run") + 1 :]


async def test_no_connection_notices(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    """Two reloads, the second one with more workers: same process, same sockets, every worker new."""
    async with serving(consul_agent, tmp_path, "reload-plain", workers=2) as (gateway, traffic):
        assert gateway.child is not None
        before = await pids(gateway, former=False)
        async with traffic.flowing():
            await traffic.goes_on()
            said = await reload(gateway)
            assert said.code == 0, said.errors
            assert "reload-plain is reloaded: 2 new workers serve" in said.output
            assert not before & await pids(gateway, former=False)
            await eventually(lambda: _only(gateway, before), what="the former workers keep their connections")
            await traffic.goes_on()
            more = [one.replace("--workers=2", "--workers=3") for one in flags_of(gateway)]
            said = await reload(gateway, "--", *more)
            assert said.code == 0, said.errors
            await traffic.goes_on()
            status = await gateway.status()
            assert (status["pid"], status["reloads"]) == (gateway.child.pid, 2)
            assert len(await pids(gateway, former=False)) == 3
        assert traffic.failures == []
        assert traffic.accepted == sorted(traffic.accepted), "a counter went back"
        await eventually(lambda: _only(gateway, set()), what="workers without connections leave")
        assert (await gateway.status())["worker_restarts"] == 0


async def _only(gateway: Gateway, wanted: set[int]) -> bool:
    return await pids(gateway, former=True) <= wanted


async def test_another_address_is_served_before_the_former_one_is_closed(
    consul_agent: ConsulAgent, tmp_path: Path
) -> None:
    async with serving(consul_agent, tmp_path, "reload-moves", drain_delay_s=2 * SCALE) as (gateway, _):
        former = gateway.port
        (other,) = free_ports(1)
        moved = [one.replace(f":{former}", f":{other}") for one in flags_of(gateway)]
        said = await reload(gateway, "--", *moved)
        assert said.code == 0, said.errors
        client = await MeshClient.of(consul_agent, "reload-moves-web")
        await let_in(client, gateway, "reload-moves-db")  # the former address is still served
        gateway.port = other
        await let_in(client, gateway, "reload-moves-db")
        await eventually(lambda: _refused(former), what="the former address is closed")
        rows = await consul_agent.api("GET", "/v1/catalog/service/reload-moves")
        assert [row["ServicePort"] for row in rows] == [other]
        assert (await reload(gateway)).code == 0


async def _refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return True
    writer.close()
    return False


WRONG = [
    (["--no-such-flag"], "No such option '--no-such-flag'"),
    (["--service-id=other"], "other is another gateway than reload-wrong"),
    (["--address=127.0.0.1:{taken}"], "cannot listen on 127.0.0.1:{taken}: another process"),
    (["--access-log=/nowhere/at/all"], "cannot open the access log /nowhere/at/all"),
]


async def test_what_does_not_start_changes_nothing(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    async with serving(consul_agent, tmp_path, "reload-wrong") as (gateway, traffic), ExternalService(echo) as other:
        before = await pids(gateway, former=False)
        async with traffic.flowing():
            for flags, why in WRONG:
                wrong = [one.format(taken=other.port) for one in flags]
                said = await reload(gateway, "--", *flags_of(gateway), *wrong)
                assert said.code == 1
                assert why.format(taken=other.port) in said.errors
            await traffic.goes_on()
        assert traffic.failures == []
        status = await gateway.status()
        assert (status["phase"], status["reloads"]) == ("serving", 0)
        assert await pids(gateway, former=False) == before


async def test_another_protocol_version_takes_over(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    """An upgrade: the code that reloads is of a version that the running workers cannot speak with."""
    tree = tmp_path / "newer"
    for package in ("plugin", "proxy"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    messages = tree / "proxy" / "messages.py"
    text, changed = re.subn(r"^PROTOCOL_VERSION = \d+$", "PROTOCOL_VERSION = 999", messages.read_text(), flags=re.M)
    assert changed == 1
    messages.write_text(text)
    async with serving(consul_agent, tmp_path / "gw", "reload-upgrade", workers=2) as (gateway, traffic):
        async with traffic.flowing():
            await traffic.goes_on()
            place = gateway.log_path.parent / "run"
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "plugin", "reload", f"--runtime-dir={place}"),
                cwd=tree,
                env=consul_agent.cli_environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await asyncio.wait_for(child.communicate(), 120 * SCALE)
            assert child.returncode == 0, output.decode()
            assert b"2 new workers serve; 2 former workers" in output
            await traffic.goes_on()
            log = gateway.log_path.read_text()
            assert log.count("of an earlier start is replaced") == log.count(f"version={PROTOCOL_VERSION}\n") == 2
            assert await pids(gateway, former=True)
        assert traffic.failures == []
        assert traffic.accepted == sorted(traffic.accepted), "a counter went back"


class Elsewhere(Gateway):
    """Runs a copy of the program."""

    tree: Path

    def _command(self) -> list[str]:
        return ["env", "-C", str(self.tree), *super()._command()]


async def test_a_worker_of_a_program_that_was_replaced_on_disk(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    """It is refused by name; the other one serves on, and the reload that is asked for mends it."""
    tree, name = tmp_path / "tree", "reload-replaced"
    for package in ("plugin", "proxy"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    gateway = Elsewhere(consul_agent, tmp_path, name, workers=2)
    gateway.tree = tree
    async with gateway:
        assert gateway.child is not None
        messages = tree / "proxy" / "messages.py"
        text = re.sub(r"^PROTOCOL_VERSION = \d+$", "PROTOCOL_VERSION = 999", messages.read_text(), flags=re.M)
        messages.write_text(text)
        os.kill(min(await pids(gateway, former=False)), signal.SIGKILL)

        async def explained() -> bool:
            return any("consul-tgw reload" in one for one in (await gateway.status())["not_ready"])

        await eventually(explained, what="the remedy is named")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "plugin", "reload", f"--runtime-dir={tmp_path / 'run'}"),
            cwd=tree,
            env=consul_agent.cli_environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(child.communicate(), 120 * SCALE)
        assert child.returncode == 0, output.decode()
        assert len(await pids(gateway, former=False)) == 2
        assert (await gateway.status())["ready"]


async def test_only_a_running_gateway_can_be_reloaded(tmp_path: Path) -> None:
    said = await consul_tgw("reload", f"--runtime-dir={tmp_path}", environment=dict(os.environ))
    assert said.code == 2
    assert "no running gateway was found" in said.errors


async def test_it_reloads_while_consul_is_away(tmp_path: Path) -> None:
    """From the saved state; without one it is told what is missing, and nothing changes."""
    name, service = "reload-away", "reload-away-db"
    async with (
        ConsulAgent(tmp_path / "consul", persistent=True, default_intention_policy="deny") as agent,
        ExternalService(echo) as backend,
    ):
        links = Links(agent, name)
        await links.add(service, backend.port)
        await agent.write_intention("web", service)
        client = await MeshClient.of(agent, "web")
        arguments = [f"--state-dir={tmp_path / 'state'}"]
        async with Gateway(agent, tmp_path, name, arguments=arguments) as gateway:
            await let_in(client, gateway, service)
            await agent.kill()

            async def away() -> bool:
                return bool((await gateway.status())["consul_away"])

            await eventually(away, what="Consul is away")
            traffic = Traffic(client, gateway, service)
            before = await pids(gateway, former=False)
            async with traffic.flowing():
                await traffic.goes_on()
                for reloads in (1, 2):
                    said = await reload(gateway)
                    assert said.code == 0, said.errors
                    await traffic.goes_on()
                    status = await gateway.status()
                    assert (status["reloads"], status["ready"], bool(status["consul_away"])) == (reloads, True, True)
            assert traffic.failures == []
            assert not before & await pids(gateway, former=False)
            flags = [one for one in flags_of(gateway) if not one.startswith("--state-dir")]
            said = await reload(gateway, "--timeout=3", "--", *flags)
            assert said.code == 1
            assert "onsul" in said.errors
            await let_in(client, gateway, service)
            await agent.start()

            async def confirmed() -> bool:
                return not (await gateway.status())["restored_from_s"]

            await eventually(confirmed, what="Consul has confirmed everything")
            await agent.write_intention("web", service, "deny")
            await kept_out(client, gateway, service)


class Unprivileged(Gateway):
    """As the shipped unit starts it: another user, without capabilities, who can never get any."""

    def _command(self) -> list[str]:
        return [*SANDBOX, *super()._command()]


SANDBOX = (
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
    *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"),
)


class Manager:
    """What a service manager hears."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._heard: list[str] = []

    @property
    def states(self) -> list[str]:
        """``READY``, ``RELOADING`` and ``STOPPING`` so far, in their order."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._heard.append(self._socket.recv(4096).decode())
        named = (re.match(r"(READY|RELOADING|STOPPING)=1$", one, re.M) for one in self._heard)
        return [found[1] for found in named if found]

    def stamp_of_the_reload(self) -> int:
        """Microseconds, which tell one RELOADING from the next (sd_notify(3))."""
        told = next(one for one in self._heard if one.startswith("RELOADING=1"))
        return int(re.search(r"^MONOTONIC_USEC=(\d+)$", told, re.M)[1])  # type: ignore[index]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where nobody may write: pytest's own folders are closed to other users."""
    path = Path(tempfile.mkdtemp(prefix="consul-tgw-reload-"))
    shutil.chown(path, "nobody")
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("kind", [Gateway, Unprivileged])
async def test_it_reloads_as_services_run(consul_agent: ConsulAgent, open_folder: Path, kind: type[Gateway]) -> None:
    """As root whose workers are another user, and as nobody without any right; its admin pages go to a Unix socket."""
    name = f"reload-{kind.__name__.lower()}"
    service, admin = f"{name}-db", open_folder / "admin.sock"
    manager = Manager(open_folder / "notify.sock")
    flags = ["--worker-user=daemon"] if kind is Gateway else []
    command = () if kind is Gateway else SANDBOX
    links = Links(consul_agent, name)
    gateway = kind(
        consul_agent,
        open_folder,
        name,
        arguments=flags,
        environment={"NOTIFY_SOCKET": str(open_folder / "notify.sock")},
    )

    async def asked_to_reload(*arguments: str) -> str:
        """As ExecReload of the unit does."""
        child = await asyncio.create_subprocess_exec(
            *(*command, sys.executable, "-m", "plugin", "reload", f"--runtime-dir={open_folder / 'run'}", *arguments),
            cwd=ROOT,
            env=consul_agent.cli_environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(child.communicate(), 120 * SCALE)
        assert child.returncode == 0, output.decode()
        return output.decode()

    async def reloads() -> int:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(admin))) as session,
            session.get("http://localhost/api/status") as answer,
        ):
            status = await answer.json()
        assert status["ready"], status
        return int(status["reloads"])

    try:
        async with ExternalService(echo) as backend, gateway:
            await links.add(service, backend.port)
            client = await MeshClient.of(consul_agent, f"{name}-web")
            await let_in(client, gateway, service)
            assert manager.states == ["READY"]
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
            async with await dial(client, gateway, service) as live:
                await live.exchange(b"before")
                own = [one for one in flags_of(gateway) if not one.startswith("--admin-address")]
                await asked_to_reload("--", *own, f"--admin-address=unix://{admin}")
                assert await reloads() == 1
                await asked_to_reload()
                assert await reloads() == 2
                assert await live.exchange(b"after") == b"after"
            assert manager.states == ["READY", "RELOADING", "READY", "RELOADING", "READY"]
            assert manager.stamp_of_the_reload() >= before
            await let_in(client, gateway, service)
        assert manager.states[5:] == ["STOPPING"]
        assert not admin.exists()
    finally:
        manager.close()
