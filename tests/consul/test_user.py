"""``--user`` as root uses it: a low port is bound, and nothing of root is left."""

from __future__ import annotations

import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.processes import can_connect
from plugin.errors import StartError
from tests.support.eventually import eventually
from tests.support.linking import Links, serves, service_status

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where nobody may write: pytest's own folders are closed to other users."""
    path = Path(tempfile.mkdtemp(prefix="consul-tgw-user-"))
    shutil.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    yield path
    shutil.rmtree(path)


def low_port() -> int:
    for port in range(1023, 600, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port below 1024 is free")


def status_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(re.findall(r"^(\w+):\s+(.*)$", text, re.MULTILINE))


async def test_it_binds_a_low_port_and_nothing_of_root_is_left(consul_agent: ConsulAgent, folder: Path) -> None:
    port = low_port()
    gateway = Gateway(consul_agent, folder, "user-low", port=port, arguments=["--user", "nobody"])
    async with gateway:
        assert can_connect("127.0.0.1", port)
        assert gateway.child is not None
        workers = gateway.worker_pids()
        assert workers
        for pid in (gateway.child.pid, *workers):
            status = status_of(pid)
            assert set(status["Uid"].split()) == {str(NOBODY.pw_uid)}
            assert set(status["Gid"].split()) == {str(NOBODY.pw_gid)}
            assert {int(status[field], 16) for field in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
        assert gateway.access_log_path.stat().st_uid == NOBODY.pw_uid


@pytest.mark.parametrize("file", ["CAFile", "CertFile", "KeyFile"])
async def test_a_file_that_the_user_may_not_read_is_named_and_harms_its_service_alone(
    consul_agent: ConsulAgent, folder: Path, file: str
) -> None:
    authority, name = Authority(), f"user-{file.lower()}"
    certificate, key = authority.client("client").write(folder, "client")
    paths = {"CAFile": authority.write(folder, "ca"), "CertFile": certificate, "KeyFile": key}
    for path in paths.values():
        shutil.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    shutil.chown(paths[file], 0, 0)
    paths[file].chmod(0o600)
    links = Links(consul_agent, name)
    async with Gateway(consul_agent, folder, name, arguments=["--user", "nobody"]) as gateway:
        await links.add(f"{name}-plain", 5432)
        await links.add(f"{name}-tls", 5433, **{key: str(path) for key, path in paths.items()})
        await serves(gateway, f"{name}-plain")

        async def told() -> bool:
            reasons = (await service_status(gateway, f"{name}-tls")).get("reasons", ())
            said = f"{paths[file]} may not be read by the gateway's user (uid {NOBODY.pw_uid})"
            return any(said in reason for reason in reasons)

        await eventually(told, what=f"{file} is named")
        assert not (await service_status(gateway, f"{name}-tls"))["served"]
        shutil.chown(paths[file], NOBODY.pw_uid, NOBODY.pw_gid)
        await serves(gateway, f"{name}-tls")


async def test_workers_with_a_low_port_are_taken_over(consul_agent: ConsulAgent, folder: Path) -> None:
    port = low_port()
    gateway = Gateway(consul_agent, folder, "user-again", port=port, arguments=["--user", "nobody"])
    async with gateway:
        workers = set(gateway.worker_pids())
        await gateway.kill_control()
        assert can_connect("127.0.0.1", port)
        await gateway.start()
        shown = (await gateway.status())["workers"]
        assert {worker["pid"] for worker in shown if worker["adopted"]} == workers
        assert can_connect("127.0.0.1", port)
        assert gateway.child is not None
        assert set(status_of(gateway.child.pid)["Uid"].split()) == {str(NOBODY.pw_uid)}


async def test_a_user_who_does_not_exist_is_named(consul_agent: ConsulAgent, folder: Path) -> None:
    gateway = Gateway(consul_agent, folder, "user-absent", arguments=["--user", "no-such-user"])
    with pytest.raises(StartError, match="--user no-such-user: there is no such user on this host"):
        await gateway.start()


def text_of(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def nobody_reads(pid: int, name: str) -> bool:
    """Whether another process of the user ``nobody`` may open this file of ``/proc``."""
    command = ["/usr/bin/head", "-c0", f"/proc/{pid}/{name}"]
    asked = subprocess.run(
        command, user="nobody", group=NOBODY.pw_gid, extra_groups=[], check=False, stderr=subprocess.PIPE
    )
    assert asked.returncode == 0 or b"Permission denied" in asked.stderr
    return asked.returncode == 0


async def test_the_workers_of_root_are_somebody_else_and_hold_no_token(acl_agent: ConsulAgent, folder: Path) -> None:
    token = acl_agent.management_token
    gateway = Gateway(acl_agent, folder, "user-worker", environment={"VAULT_TOKEN": token})
    async with gateway:
        assert gateway.child is not None
        assert token in text_of(gateway.child.pid, "environ")
        (worker,) = gateway.worker_pids()
        status = status_of(worker)
        assert set(status["Uid"].split()) == {str(NOBODY.pw_uid)}
        assert {int(status[field], 16) for field in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
        for name in ("environ", "cmdline"):
            assert token not in text_of(worker, name)
        await gateway.kill_control()
        await gateway.start()
        assert [one["pid"] for one in (await gateway.status())["workers"]] == [worker]


@pytest.mark.parametrize("allowed", [False, True])
async def test_its_own_user_cannot_read_the_token_out_of_it(
    acl_agent: ConsulAgent, folder: Path, allowed: bool
) -> None:
    arguments = ["--user", "nobody", *(["--allow-debugging"] if allowed else [])]
    async with Gateway(acl_agent, folder, f"user-memory-{allowed}", arguments=arguments) as gateway:
        assert gateway.child is not None
        for pid in (gateway.child.pid, *gateway.worker_pids()):
            for name in ("environ", "mem"):
                assert nobody_reads(pid, name) is allowed, (pid, name)
