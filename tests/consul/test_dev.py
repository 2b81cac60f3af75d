"""``consul-tgw dev`` on a Consul that somebody else runs: it shows what it shows, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from plugin.dev.consul_agent import ConsulAgent

_PROJECT = Path(__file__).parents[2]
_DEADLINE_S = 150.0


async def dev_once(agent: ConsulAgent, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plugin", "dev", "--once"),
        cwd=_PROJECT,
        env=agent.cli_environment() | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_DEADLINE_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def everything_in(agent: ConsulAgent) -> dict[str, object]:
    kinds = ("terminating-gateway", "service-defaults", "service-intentions", "service-resolver", "proxy-defaults")
    entries = {kind: await agent.api("GET", f"/v1/config/{kind}") for kind in kinds}
    for listed in entries.values():
        for entry in listed:
            for changing in ("ModifyIndex", "Hash"):
                entry.pop(changing, None)
    return entries | {"services": await agent.api("GET", "/v1/catalog/services")}


async def test_on_an_existing_consul_it_takes_back_what_it_wrote(acl_agent: ConsulAgent) -> None:
    """With ACLs, gRPC on a port that nobody named, and an entry of the operator's own under the same name."""
    mine = {"Kind": "service-defaults", "Name": "billing-db", "Protocol": "tcp", "Meta": {"owner": "somebody"}}
    await acl_agent.write_config(mine)
    try:
        before = await everything_in(acl_agent)
        environment = {"CONSUL_GRPC_ADDR": ""}
        code, output = await dev_once(acl_agent, **environment)
        assert (code, "The round trip works." in output) == (0, True), output
        assert await everything_in(acl_agent) == before
    finally:
        await acl_agent.delete_config("service-defaults", "billing-db")
