"""Where lines go, when proxy-defaults say: running workers follow, also those that were taken over."""

from __future__ import annotations

import asyncio
from pathlib import Path

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from tests.conftest import AgentFactory
from tests.support.eventually import eventually


async def log_to(agent: ConsulAgent, path: Path, text: str) -> None:
    access_logs = {"Enabled": True, "Type": "file", "Path": str(path), "TextFormat": text}
    await agent.write_config({"Kind": "proxy-defaults", "Name": "global", "AccessLogs": access_logs})


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def written_to(gateway: Gateway, path: Path, text: str) -> None:
    """Wait until a connection that is no TLS leaves its line there."""

    async def found() -> bool:
        _, writer = await asyncio.open_connection(gateway.address, gateway.port)
        writer.write(b"this is not TLS\r\n\r\n")
        await writer.drain()
        writer.close()
        return text in lines(path)

    await eventually(found, what=f"{text} in {path}")


async def test_running_workers_follow_the_target(start_agent: AgentFactory, work_dir: Path) -> None:
    agent = await start_agent()
    first, second = work_dir / "first.log", work_dir / "second.log"
    gateway = Gateway(agent, work_dir / "gateway", choose_access_log=False)
    async with gateway:
        await log_to(agent, first, "1 %CONSUL_TGW_REASON%")
        await written_to(gateway, first, "1 not_tls")
        workers = gateway.worker_pids()
        await log_to(agent, second, "2 %CONSUL_TGW_VERDICT%")
        await written_to(gateway, second, "2 refused")
        assert gateway.worker_pids() == workers
        await gateway.kill_control()
        await gateway.start()
        second.unlink()
        await log_to(agent, first, "3 %RESPONSE_FLAGS%")
        await written_to(gateway, first, "3 NC")
        await log_to(agent, work_dir / "absent" / "x.log", "4")

        async def reported() -> bool:
            return any("cannot be opened" in warning for warning in (await gateway.status())["warnings"])

        await eventually(reported)
        await written_to(gateway, first, "4")
