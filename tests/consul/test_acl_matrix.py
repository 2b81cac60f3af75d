"""Each ACL rule that can be missing: who is affected, who is not, what the operator is told, and how soon it heals."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.check import check_gateway
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.errors import StartError
from plugin.process.tasks import spawn
from plugin.settings import ConsulSettings
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, kept_out, let_in, serves, service_status
from tests.support.mesh_client import MeshClient
from tests.support.rights import NODES, Rights, write

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROMPTLY_S = 6.0
"""From the write in Consul to the first connection that is carried."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backend() -> AsyncIterator[ExternalService]:
    async with ExternalService(echo) as service:
        yield service


@dataclass(frozen=True)
class Missing:
    name: str
    rules: str
    """Of the token; ``GW``, ``GOOD`` and ``BAD`` stand for the names."""
    told: str
    """The rule that is asked for."""


MATRIX = [
    Missing("nothing-on-one", f"{write('GW', 'GOOD')}\n{NODES}", write("BAD")),
    Missing("write-on-one", f'{write("GW", "GOOD")}\nservice "BAD" {{ policy = "read" }}\n{NODES}', write("BAD")),
    Missing(
        "intentions-of-one",
        f'{write("GW", "GOOD")}\nservice "BAD" {{ policy = "write", intentions = "deny" }}\n{NODES}',
        'service "BAD" { policy = "write", intentions = "read" }',
    ),
    Missing("node-of-one", f'{write("GW", "GOOD", "BAD")}\nnode "node-GOOD" {{ policy = "read" }}', NODES),
]


@pytest.mark.parametrize("case", MATRIX, ids=lambda case: case.name)
async def test_one_service_lacks_a_right(
    acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path, case: Missing
) -> None:
    gateway, good, bad = (f"matrix-{case.name}-{part}" for part in ("gw", "good", "bad"))

    def named(text: str) -> str:
        return text.replace("GW", gateway).replace("GOOD", good).replace("BAD", bad)

    rights = await Rights.of(acl_agent, named(case.rules))
    async with Gateway(acl_agent, work_dir, gateway, token=rights.secret) as running:
        links = Links(acl_agent, gateway)
        client = await MeshClient.of(acl_agent, "matrix-client")
        for service in (good, bad):
            await links.add(service, backend.port)
            await acl_agent.write_intention("matrix-client", service)
        await serves(running, good)
        await let_in(client, running, good)
        await told_everywhere(acl_agent, running, rights, bad, named(case.told))
        await kept_out(client, running, bad)

        async with await dial(client, running, good) as connection:
            began_s = time.monotonic()
            await rights.become(f"{write(gateway, good, bad)}\n{NODES}")
            await let_in(client, running, bad)
            assert time.monotonic() - began_s < PROMPTLY_S * SCALE
            assert await connection.exchange(b"still") == b"still"
        await serves(running, good, bad)
        assert not (await service_status(running, bad))["warnings"]


async def told_everywhere(agent: ConsulAgent, running: Gateway, rights: Rights, service: str, rule: str) -> None:
    """The status page, the log and ``check`` name the rule, the service and the token."""

    async def in_the_status() -> bool:
        status = await service_status(running, service)
        return not status["served"] and any(
            rule in reason and rights.accessor in reason and service in reason for reason in status["reasons"]
        )

    await eventually(in_the_status, what=f"the status names {rule}")
    log = running.log_path.read_text().splitlines()
    assert [line for line in log if rule in line and rights.accessor in line and service in line]
    report = await check_gateway(
        ConsulSettings(address=agent.http_address, token=rights.secret), running.name, patience_s=5.0
    )
    findings = {one.name: [each for each in one.findings if each.level == "missing"] for one in report.services}
    assert {each.rule for each in findings.pop(service) if each.rule} == {rule}
    assert not any(findings.values()), "the others are fine"


async def test_no_node_may_be_read(acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path) -> None:
    """No instance is visible then: everything stays closed, and no catalog is taken for empty."""
    gateway, service = "matrix-nodes-gw", "matrix-nodes-db"
    rights = await Rights.of(acl_agent, write(gateway, service))
    async with Gateway(acl_agent, work_dir, gateway, token=rights.secret) as running:
        await Links(acl_agent, gateway).add(service, backend.port)
        await acl_agent.write_intention("matrix-client", service)
        client = await MeshClient.of(acl_agent, "matrix-client")
        await told_everywhere(acl_agent, running, rights, service, NODES)
        await kept_out(client, running, service)
        await rights.become(f"{write(gateway, service)}\n{NODES}")
        assert await let_in(client, running, service) < PROMPTLY_S * SCALE


@pytest.mark.parametrize(("access", "told"), [("deny", "read"), ("read", "write")])
async def test_the_gateways_own_name(
    acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path, access: str, told: str
) -> None:
    """Without read it knows no links; with read alone it serves, but cannot register."""
    gateway, service = f"matrix-own-{access}", f"matrix-own-{access}-db"
    rest = f"{write(service)}\n{NODES}"
    rights = await Rights.of(acl_agent, f'service "{gateway}" {{ policy = "{access}" }}\n{rest}')
    await Links(acl_agent, gateway).add(service, backend.port)
    await acl_agent.write_intention("matrix-client", service)
    running = Gateway(acl_agent, work_dir, gateway, token=rights.secret)
    starting = spawn(running.start(), name="gateway")
    rule = f'service "{gateway}" {{ policy = "{told}" }}'
    try:
        await eventually(lambda: rule in _log(running) and rights.accessor in _log(running), what=f"{rule} in the log")

        async def in_the_status() -> bool:
            try:
                return rule in str(await running.status())
            except StartError:
                return False

        await eventually(in_the_status, what=f"{rule} in the status")
        settings = ConsulSettings(address=acl_agent.http_address, token=rights.secret)
        report = await check_gateway(settings, gateway, patience_s=5.0)
        assert rule in {one.rule for one in report.findings if one.level != "ok"}
        began_s = time.monotonic()
        await rights.become(f"{write(gateway)}\n{rest}")
        await starting
        assert time.monotonic() - began_s < 2 * PROMPTLY_S * SCALE
        await let_in(await MeshClient.of(acl_agent, "matrix-client"), running, service)
    finally:
        starting.cancel()
        await running.stop()


def _log(running: Gateway) -> str:
    return running.log_path.read_text() if running.log_path.exists() else ""


async def test_a_lost_right_keeps_the_last_state_and_is_reported(
    acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path
) -> None:
    gateway, service = "matrix-lost-gw", "matrix-lost-db"
    rights = await Rights.of(acl_agent, f"{write(gateway, service)}\n{NODES}")
    async with Gateway(acl_agent, work_dir, gateway, token=rights.secret) as running:
        await Links(acl_agent, gateway).add(service, backend.port)
        await acl_agent.write_intention("matrix-client", service)
        client = await MeshClient.of(acl_agent, "matrix-client")
        await let_in(client, running, service)
        async with await dial(client, running, service) as connection:
            await rights.become(f"{write(gateway)}\n{NODES}")
            await acl_agent.write_intention("matrix-other", service, "deny")

            async def reported() -> bool:
                status = await service_status(running, service)
                return status["served"] and any(write(service) in warning for warning in status["warnings"])

            await eventually(reported, 90.0, what="the lost right is reported")
            assert await connection.exchange(b"ping") == b"ping"
            await let_in(client, running, service)
            await rights.become(f"{write(gateway, service)}\n{NODES}")
            await acl_agent.write_intention("matrix-client", service, "deny")
            await connection.ended()


async def test_wildcard_rows_that_were_hidden_appear(
    acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path
) -> None:
    """Nothing is refused here: Consul leaves the service out of what ``*`` stands for."""
    gateway, service = "matrix-star-gw", "matrix-star-db"
    rights = await Rights.of(acl_agent, f"{write(gateway)}\n{NODES}")
    await acl_agent.register_external(f"node-{service}", "127.0.0.1", service, backend.port)
    await acl_agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": [{"Name": "*"}]})
    try:
        async with Gateway(acl_agent, work_dir, gateway, token=rights.secret) as running:
            await acl_agent.write_intention("matrix-client", service)
            client = await MeshClient.of(acl_agent, "matrix-client")
            await kept_out(client, running, service)
            await rights.become(f"{write(gateway, service)}\n{NODES}")
            assert await let_in(client, running, service) < PROMPTLY_S * SCALE
    finally:
        await acl_agent.delete_config("terminating-gateway", gateway)
