"""One worker and a dead instance: nobody notices it, it is left out, and it comes back by itself."""

from __future__ import annotations

from pathlib import Path

from plugin.dev.external import ExternalService, echo
from proxy.messages import DialCount
from proxy.upstream.ejection import FAILURES
from tests.support.eventually import eventually
from tests.support.mesh import HandMadeMesh, allow, connected, sni
from tests.support.ports import shared_port
from tests.support.worker import running_worker


async def test_a_dead_instance_costs_nobody_a_connection_and_comes_back_by_itself(
    mesh: HandMadeMesh, work_dir: Path
) -> None:
    context = mesh.client_context(mesh.leaf("web"))
    dead_port = shared_port(["127.0.0.1"])
    log = work_dir / "worker.log"

    def logged(event: str) -> list[str]:
        return [line for line in log.read_text().splitlines() if f" {event}: 127.0.0.1:{dead_port} " in line]

    with log.open("wb") as stream:
        async with running_worker(log=stream) as worker, ExternalService(echo) as alive:

            async def used() -> None:
                async with connected(worker.port, context, sni("db")) as client:
                    assert await client.exchange(b"ping") == b"ping"

            db = mesh.service("db", alive.port, dead_port, intentions=(allow("web"),))
            await worker.update(mesh=mesh.settings(), upserts=(db,))
            for _ in range(2 * FAILURES):
                await used()
            (ejected,) = await eventually(lambda: logged("endpoint.ejected"))
            assert "Connection refused" in ejected
            assert alive.accepted == 2 * FAILURES
            counted = DialCount("db", failures=FAILURES, ejections=1)
            await eventually(lambda: worker.counters is not None and worker.counters.dials == (counted,))

            async with ExternalService(echo, port=dead_port) as returned:

                async def reached_again() -> bool:
                    await used()
                    return returned.accepted > 0

                await eventually(reached_again, 60.0)
                assert len(await eventually(lambda: logged("endpoint.returned"))) == 1
