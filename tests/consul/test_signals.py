"""How the process that an operator started answers to signals and to its service manager."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, let_in, serves, service_status
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Manager:
    """What systemd is for a service of ``Type=notify``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.messages: list[str] = []

    def heard(self, message: str) -> bool:
        try:
            while True:
                self.messages += self._socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            pass
        return message in self.messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    yield one
    one.close()


def pid_of(gateway: Gateway) -> int:
    assert gateway.child is not None
    return gateway.child.pid


def is_gone(pid: int) -> bool:
    """Ended, and perhaps not waited for."""
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


async def test_the_service_manager_is_told(consul_agent: ConsulAgent, tmp_path: Path, manager: Manager) -> None:
    """Ready when it serves, alive while it does, stopping when it is asked to."""
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    async with Gateway(consul_agent, tmp_path, "signals-notify", environment=environment) as gateway:
        await eventually(lambda: manager.heard("READY=1"), what="READY=1 is sent")
        manager.messages.clear()
        await eventually(lambda: manager.heard("WATCHDOG=1"), what="WATCHDOG=1 is sent again and again")
        assert not manager.heard("STOPPING=1")
        os.kill(pid_of(gateway), signal.SIGTERM)
        await eventually(lambda: manager.heard("STOPPING=1"), what="STOPPING=1 is sent")


async def test_a_second_signal_ends_at_once(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    """The first one drains: a live connection goes on. The second one does not wait for it."""
    drain_s = 600.0
    async with ExternalService(echo) as backend:
        links = Links(consul_agent, "signals-twice")
        await links.add("signals-twice-db", backend.port)
        async with Gateway(consul_agent, tmp_path, "signals-twice", drain_timeout_s=drain_s) as gateway:
            await serves(gateway, "signals-twice-db")
            client = await MeshClient.of(consul_agent, "signals-web")
            async with await dial(client, gateway, "signals-twice-db") as connection:
                assert await connection.exchange(b"ping") == b"ping"
                pid, workers = pid_of(gateway), gateway.worker_pids()
                os.kill(pid, signal.SIGTERM)
                await eventually(lambda: "draining" in gateway.log_path.read_text(), what="it drains")
                assert await connection.exchange(b"still") == b"still"
                began_s = time.monotonic()
                os.kill(pid, signal.SIGTERM)
                assert await connection.ended() in ("eof", "reset")
                await eventually(lambda: all(map(is_gone, [pid, *workers])), what="no process is left")
                assert time.monotonic() - began_s < 60 * SCALE < drain_s
        services = await consul_agent.api("GET", "/v1/agent/services")
        assert "signals-twice" not in services


async def test_sighup_reads_the_files_of_the_links_again(
    consul_agent: ConsulAgent, tmp_path: Path, authority: Authority
) -> None:
    """A file that was missing is there now; the connections that are open do not notice."""
    pair = authority.server("db.example")
    async with ExternalService(echo, tls=pair) as secured, ExternalService(echo) as plain:
        links = Links(consul_agent, "signals-hup")
        await links.add("signals-hup-plain", plain.port)
        await links.add("signals-hup-db", secured.port, CAFile=str(tmp_path / "ca.pem"), SNI="db.example")
        async with Gateway(consul_agent, tmp_path / "gateway", "signals-hup") as gateway:
            client = await MeshClient.of(consul_agent, "signals-web")
            await let_in(client, gateway, "signals-hup-plain")
            async with await dial(client, gateway, "signals-hup-plain") as connection:
                assert "ca.pem" in str(await service_status(gateway, "signals-hup-db"))
                authority.write(tmp_path, "ca")
                os.kill(pid_of(gateway), signal.SIGHUP)
                await eventually(
                    lambda: "reading the files of all links" in gateway.log_path.read_text(),
                    what="SIGHUP is taken",
                )
                await let_in(client, gateway, "signals-hup-db")
                assert await connection.exchange(b"ping") == b"ping"
