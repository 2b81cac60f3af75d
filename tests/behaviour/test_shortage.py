"""A worker without a free file descriptor: it says so, and blames no endpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from plugin.dev.external import ExternalService, echo
from proxy.messages import DialCount
from proxy.upstream.ejection import FAILURES
from tests.support.eventually import eventually
from tests.support.mesh import HandMadeMesh, allow, connected, sni
from tests.support.process_limits import descriptors_left
from tests.support.worker import WorkerProcess, running_worker


def refused(worker: WorkerProcess) -> list[dict[str, Any]]:
    return [record for record in worker.records if record["reason"] == "exhausted"]


async def test_without_descriptors_the_reason_is_said_and_no_endpoint_is_left_out(
    mesh: HandMadeMesh, work_dir: Path
) -> None:
    context = mesh.client_context(mesh.leaf("web"))
    log = work_dir / "worker.log"
    attempts = 2 * FAILURES
    with log.open("wb") as stream:
        async with running_worker(log=stream) as worker, ExternalService(echo) as one, ExternalService(echo) as other:
            db = mesh.service("db", one.port, other.port, intentions=(allow("web"),))
            await worker.update(mesh=mesh.settings(), upserts=(db,))

            async def echoed() -> bool:
                async with connected(worker.port, context, sni("db")) as client:
                    return await client.exchange(b"ping") == b"ping"

            def enough(wanted: int) -> bool:
                return len(refused(worker)) >= wanted

            assert await echoed()
            await worker.record(reason="client_eof")
            assert worker.process is not None
            with descriptors_left(worker.process.pid, 1):
                for number in range(attempts):
                    async with connected(worker.port, context, sni("db")) as client:
                        assert await client.ended() == b""
                    await eventually(partial(enough, number + 1))
            assert all("Too many open files" in record["detail"] for record in refused(worker))
            for _ in range(4):
                assert await echoed()
            assert one.accepted + other.accepted == 5
            assert one.accepted in (2, 3), "both are used"
            counted = DialCount("db", shortages=2 * attempts)
            await eventually(lambda: worker.counters is not None and worker.counters.dials == (counted,))
    said = [line for line in log.read_text().splitlines() if " dial.exhausted: " in line]
    assert len(said) == 1
    assert "LimitNOFILE" in said[0]
