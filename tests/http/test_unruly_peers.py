"""Peers that leave, cut, reset and misspeak, under a policy that changes: no mistake of ours, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from proxy.model import HTTPSettings, Service
from tests.http.unruly import Clients
from tests.http.unruly import Service as Unruly
from tests.support.eventually import SCALE, eventually
from tests.support.http2_async import HTTP2Backend
from tests.support.mesh import HandMadeMesh, allow, deny, sni
from tests.support.worker import running_worker

_LASTS_S = 5.0
_TOGETHER = 10
"""Clients of each version."""


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_goes_wrong_inside_and_nothing_is_left(seed: int, tmp_path: Path) -> None:
    chance, mesh = random.Random(seed), HandMadeMesh()
    unruly = Unruly(chance)
    older = await asyncio.start_server(unruly.serve, "127.0.0.1", 0)
    ports = {"older": older.sockets[0].getsockname()[1]}
    log = tmp_path / "worker.log"

    def services(*, allowed: bool) -> tuple[Service, ...]:
        settings = HTTPSettings(request_timeout_s=2.0)
        intentions = ((allow if allowed else deny)("web"),)
        return tuple(
            mesh.service(
                name, port, protocol="http2" if name == "newer" else "http", http=settings, intentions=intentions
            )
            for name, port in ports.items()
        )

    with log.open("wb") as written:
        async with older, HTTP2Backend(unruly.answer_http2) as newer, running_worker(log=written) as worker:
            ports["newer"] = newer.port
            await worker.update(mesh=mesh.settings(), upserts=services(allowed=True))
            before = worker.descriptors()
            context = mesh.client_context(mesh.leaf("web"))
            clients = Clients(worker.port, context, lambda: sni(chance.choice(list(ports))), chance)
            ends_s = time.monotonic() + _LASTS_S * SCALE

            async def again(connection: Callable[[], Awaitable[None]]) -> None:
                while time.monotonic() < ends_s:
                    await connection()

            async def change_policy() -> None:
                allowed = True
                while time.monotonic() < ends_s:
                    await asyncio.sleep(chance.random() * (1.5 if allowed else 0.2))
                    allowed = not allowed
                    await worker.update(upserts=services(allowed=allowed))

            kinds = (clients.over_http1, clients.over_http2)
            await asyncio.gather(change_policy(), *(again(kind) for kind in kinds for _ in range(_TOGETHER)))
            await eventually(lambda: worker.counters is not None and worker.counters.open_connections == 0)
            # What is idle would be kept for the next requests for half a minute.
            unruly.end()
            for side in newer.sides:
                side.writer.close()
            await eventually(lambda: worker.descriptors() <= before, what="no connection is left")
            reasons = {str(record.get("reason")) for record in worker.records}
    assert clients.answered > 50
    assert {"completed", "denied", "revoked", "client_reset", "upstream_reset", "bad_response"} <= reasons
    assert "internal" not in reasons
    assert "Traceback" not in log.read_text()
