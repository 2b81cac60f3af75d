"""Asks a running gateway's admin server, for the commands that show something of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import msgspec

from plugin.addresses import HostPort
from plugin.errors import ConfigError, GatewayError
from plugin.runtime_dir import base_directory, gateway_directories, read_admin_address
from plugin.status import Status

TIMEOUT_S = 10.0


class NotRunning(GatewayError):
    """No gateway answers."""


def fetch(path: str, *, service: str, admin_address: str, runtime_dir: Path | None) -> bytes:
    """The body of ``path`` from the gateway that is meant. :raises NotRunning: when there is none, or several."""
    return asyncio.run(_fetch(path, service, admin_address, runtime_dir))


async def _fetch(path: str, service: str, admin_address: str, runtime_dir: Path | None) -> bytes:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        address = admin_address or await _find(session, service, base_directory(runtime_dir))
        return await _get(session, address, path)


async def _find(session: aiohttp.ClientSession, service: str, base: Path) -> str:
    running: dict[str, Status] = {}
    for directory in gateway_directories(base):
        try:
            address = read_admin_address(directory)
            running[address] = msgspec.json.decode(await _get(session, address, "/api/status"), type=Status)
        except (OSError, GatewayError, msgspec.MsgspecError):
            continue
    suitable = [a for a, status in running.items() if service in ("", status.service, status.service_id)]
    if len(suitable) == 1:
        return suitable[0]
    if not suitable:
        whose = f"gateway {service}" if service else "gateway"
        raise NotRunning(
            f"no running {whose} was found under {base}; start it, or say where it is with --admin-address"
            " or --runtime-dir"
        )
    names = ", ".join(f"{running[a].service_id} ({a})" for a in suitable)
    raise NotRunning(f"several gateways are running: {names}; choose one with --service or --admin-address")


async def _get(session: aiohttp.ClientSession, address: str, path: str) -> bytes:
    try:
        where = HostPort.parse(address, what="admin address")
    except ConfigError as error:
        raise NotRunning(str(error)) from error
    try:
        async with session.get(f"http://{where}{path}") as answer:
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NotRunning(f"no gateway answers at {where}: {str(error) or 'it took too long'}") from error
    if answer.status != 200:
        raise NotRunning(f"{where}{path} answered {answer.status}: {body.decode(errors='replace').strip()}")
    return body
