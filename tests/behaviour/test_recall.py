"""What a worker remembers for whoever asks: what did not end well, and which endpoints it leaves out."""

from __future__ import annotations

import json
from typing import Any

from plugin.dev.external import ExternalService, echo
from proxy.messages import AccessLogTarget, Recall, Recollection
from proxy.model import ServiceName
from proxy.upstream.ejection import FAILURES
from tests.support.eventually import eventually
from tests.support.mesh import HandMadeMesh, alert_of, allow, connected, deny, sni
from tests.support.ports import shared_port
from tests.support.worker import WorkerProcess, running_worker


async def recalled(worker: WorkerProcess, **asked: Any) -> Recollection:
    number = 1 + sum(isinstance(frame, Recollection) for frame in worker.frames)
    await worker.send(Recall(number, **asked))

    def answer() -> Recollection | None:
        return next((one for one in worker.frames if isinstance(one, Recollection) and one.id == number), None)

    found: Recollection = await eventually(answer)
    return found


async def test_without_an_access_log_what_was_refused_is_remembered(mesh: HandMadeMesh) -> None:
    async with running_worker() as worker, ExternalService(echo) as backend:
        await worker.send(AccessLogTarget(False))
        db = mesh.service("db", backend.port, intentions=(allow("web"), deny("batch")))
        await worker.update(mesh=mesh.settings(), upserts=(db,))
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            await client.exchange(b"ping")
        await alert_of(worker.port, mesh.client_context(mesh.leaf("batch")), sni("db"))

        async def refused() -> list[dict[str, Any]]:
            return [json.loads(line) for line in (await recalled(worker, allowed=False)).records]

        (record,) = await eventually(refused)
        assert (record["verdict"], record["service"], record["precedence"]) == ("denied", "db", 9)
        assert "batch may not connect to db: denied by intention batch => db" in record["detail"]
        assert (await recalled(worker, number=record["number"])).records != ()
        assert (await recalled(worker, service=ServiceName("cache"))).records == ()
        assert worker.records == []


async def test_endpoints_that_are_left_out_are_told(mesh: HandMadeMesh) -> None:
    dead_port = shared_port(["127.0.0.1"])
    async with running_worker() as worker, ExternalService(echo) as alive:
        db = mesh.service("db", alive.port, dead_port, intentions=(allow("web"),))
        await worker.update(mesh=mesh.settings(), upserts=(db,))
        assert (await recalled(worker, service=ServiceName("db"))).left_out == ()
        for _ in range(2 * FAILURES):
            async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
                await client.exchange(b"ping")
        assert (await recalled(worker, service=ServiceName("db"))).left_out == (f"127.0.0.1:{dead_port}",)
        assert (await recalled(worker)).left_out == ()
