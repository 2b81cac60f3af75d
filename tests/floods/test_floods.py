"""Each flood with legitimate traffic going on: nothing of it is lost, and the worker is then what it was before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plugin.dev.external import ExternalService, echo, sink
from proxy.messages import Limits
from proxy.rules import Action
from tests.floods.aim import Aim
from tests.floods.trial import Bench, Flood, Kind, withstand
from tests.support.mesh import TRUST_DOMAIN, HandMadeMesh
from tests.support.worker import WorkerProcess

_CHAIN = 400
"""Certificates: more than the 100 KiB that OpenSSL takes."""

FLOODS = [
    Flood("silent", 2_000, 2_000, 3.0),
    Flood("byte_at_a_time", 200, 1_000, 3.0),
    Flood("garbage", 500, 5_000),
    Flood("half_open", 300, 2_000, 3.0),
    Flood("connect_and_close", 5_000, 5_000),
    Flood("never_reading", 30, 60, 2.0, "client_reset"),
    Flood("never_stopping", 10, 60, 2.0),
    Flood("deaf_service", 30, 60, 1.0, "client_reset"),
    Flood("full_service", 50, 500, 1.0, "dial_timeout"),
    Flood("resets", 400, 4_000),
    Flood("idle", 1_000, 10_000, 2.0, at_once=True),
    Flood("huge_certificates", 20, 200, reason="tls_failed"),
    Flood("key_updates", 5, 50),
    Flood("empty_records", 5, 50),
]


@asynccontextmanager
async def full_queue() -> AsyncIterator[int]:
    """A port whose queue takes nobody any more."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(server.getsockname())
        yield server.getsockname()[1]


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    while not writer.is_closing():
        await asyncio.sleep(0.2)
        # Without reading, only a failing write tells that the other side has gone.
        writer.write(b".")


@asynccontextmanager
async def bench(folder: Path, limits: Limits) -> AsyncIterator[Bench]:
    mesh = HandMadeMesh()
    (folder / "roots.pem").write_text(mesh.authority.certificate_pem)
    web = mesh.leaf("web")
    web.write(folder, "web")
    (folder / "huge.pem").write_text(web.certificate_pem + mesh.authority.certificate_pem * _CHAIN)
    inventory, worker = folder / "inventory.jsonl", WorkerProcess()
    program = ("-m", "tests.floods.measured_worker", str(inventory))
    async with (
        ExternalService(echo) as db,
        ExternalService(sink) as bottomless,
        ExternalService(deaf) as ears,
        full_queue() as full,
    ):
        try:
            with (folder / "worker.log").open("wb") as log:
                await worker.start(limits=limits, program=program, log=log)
            ports = {"db": db.port, "sink": bottomless.port, "deaf": ears.port, "full": full}
            services = tuple(
                # The busy ones have the time that the default gives them; the full one never answers.
                mesh.service(name, port, connect_timeout_s=1.0 if name == "full" else 5.0)
                for name, port in ports.items()
            )
            await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=services)
            yield Bench(worker, Aim(worker.port, folder, TRUST_DOMAIN), inventory)
        finally:
            await worker.stop()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.name)
async def test_a_flood_harms_nobody_and_leaves_nothing(
    flood: Flood, tmp_path: Path, figures: list[dict[str, Any]], pytestconfig: pytest.Config
) -> None:
    await withstand(Kind("attack", ("legitimate",), bench), flood, tmp_path, figures, pytestconfig)
