"""Floods of HTTP, with legitimate requests going on: nothing of these is lost, and the worker is what it was before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy.messages import Limits
from proxy.model import HTTPSettings
from proxy.rules import Action
from tests.floods.aim import Aim
from tests.floods.trial import Bench, Flood, Kind, withstand
from tests.support.mesh import TRUST_DOMAIN, HandMadeMesh
from tests.support.worker import WorkerProcess

_LARGE = bytes(1_000_000)
_KEPT_S = 5.0
"""The service ends idle connections itself, soon: those that the gateway keeps for later are not left behind. Not
sooner, or a legitimate POST meets that end and is lost, as it would be with any gateway (:mod:`proxy.http.pool`)."""
_KEPT_IN_FULL_S = 20.0
"""Where everybody is late by seconds, a service has to be as patient."""

FLOODS = [
    Flood("slow_heads+slow_bodies+slow_chunks+huge_heads+kept_alive", 100, 1_000, 2.0, "client_reset"),
    # Every request that is taken back has its line.
    Flood("pipelines+rapid_resets+provoked_resets+closed_windows", 8, 60, 2.0, "flood", lines=100_000),
    Flood("continuations+header_bombs+pings", 8, 60, reason="flood"),
]


async def _echo(request: web.Request) -> web.StreamResponse:
    return web.Response(body=await request.read())


async def _page(request: web.Request) -> web.StreamResponse:
    return web.Response(body=_LARGE if request.path == "/large" else b"page")


@asynccontextmanager
async def _service(kept_s: float) -> AsyncIterator[int]:
    application = web.Application(client_max_size=0)
    application.add_routes([web.post("/echo", _echo), web.get("/{any:.*}", _page)])
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=kept_s)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def bench(folder: Path, limits: Limits) -> AsyncIterator[Bench]:
    mesh = HandMadeMesh()
    (folder / "roots.pem").write_text(mesh.authority.certificate_pem)
    mesh.leaf("web").write(folder, "web")
    inventory, worker = folder / "inventory.jsonl", WorkerProcess()
    async with _service(_KEPT_S if limits.service_connections else _KEPT_IN_FULL_S) as port:
        try:
            with (folder / "worker.log").open("wb") as log:
                program = ("-m", "tests.floods.measured_worker", str(inventory))
                await worker.start(limits=limits, program=program, log=log)
            service = mesh.service("db", port, protocol="http", http=HTTPSettings())
            await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(service,))
            yield Bench(worker, Aim(worker.port, folder, TRUST_DOMAIN), inventory)
        finally:
            await worker.stop()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.name)
async def test_a_flood_harms_nobody_and_leaves_nothing(
    flood: Flood, tmp_path: Path, figures: list[dict[str, Any]], pytestconfig: pytest.Config
) -> None:
    await withstand(Kind("http_attack", ("legitimate", "--http"), bench), flood, tmp_path, figures, pytestconfig)
