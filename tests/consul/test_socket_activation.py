"""Listening sockets from the service manager: served on, kept through a reload, refused when they do not fit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.errors import StartError
from tests.support import activated
from tests.support.command import consul_tgw
from tests.support.linking import Links, let_in, serves
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

SERVICE = "activated-db"


class ActivatedGateway(Gateway):
    """Started as systemd starts it; how many workers is up to the sockets."""

    sockets = 1

    def _command(self) -> list[str]:
        command = [argument for argument in super()._command() if argument != f"--workers={self.workers}"]
        return [sys.executable, activated.__file__, self.address, str(self.port), str(self.sockets), *command]


def listeners(port: int) -> int:
    """Sockets that listen on loopback ``port`` (``/proc/net/tcp``)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1] == f"0100007F:{port:04X}" and row[3] == "0A" for row in rows)


async def test_given_sockets_are_served_through_a_reload(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    name = "activated-gateway"
    async with ExternalService(echo) as backend:
        await Links(consul_agent, name).add(SERVICE, backend.port)
        await consul_agent.write_intention("activated-web", SERVICE)
        client = await MeshClient.of(consul_agent, "activated-web")
        async with ActivatedGateway(consul_agent, tmp_path, name) as gateway:
            await serves(gateway, SERVICE)
            # Bound without SO_REUSEPORT: no other socket than the given one can be there.
            await let_in(client, gateway, SERVICE)
            assert len((await gateway.status())["workers"]) == 1
            place = f"--runtime-dir={tmp_path / 'run'}"
            said = await consul_tgw("reload", place, environment=consul_agent.cli_environment())
            assert said.code == 0, said.output
            status = await gateway.status()
            assert (status["reloads"], sum(not one["draining"] for one in status["workers"])) == (1, 1)
            await let_in(client, gateway, SERVICE)
            command = gateway._command()
            flags = [*command[command.index("run") + 1 :], "--workers=2"]
            said = await consul_tgw("reload", place, "--", *flags, environment=consul_agent.cli_environment())
            assert said.code == 1
            assert "systemd has 1 socket(s) for each address" in said.errors
            await let_in(client, gateway, SERVICE)


async def test_two_sockets_are_two_workers(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    gateway = ActivatedGateway(consul_agent, tmp_path, "activated-two")
    gateway.sockets = 2
    async with gateway:
        assert len((await gateway.status())["workers"]) == 2
        assert listeners(gateway.port) == 2


async def test_sockets_that_do_not_fit_are_refused(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    gateway = ActivatedGateway(consul_agent, tmp_path, "activated-wrong", arguments=["--workers=3"])
    with pytest.raises(StartError, match=r"systemd has 1 socket\(s\) for .*, and --workers asks for 3"):
        await gateway.start()
    await gateway.stop()
