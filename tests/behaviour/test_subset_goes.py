"""A server name that is taken away from under a live connection."""

from __future__ import annotations

import msgspec

from proxy.model import ServerName
from tests.support.mesh import EchoServer, HandMadeMesh, allow, connected, sni
from tests.support.worker import WorkerProcess


async def test_a_connection_to_a_subset_that_is_gone_goes_on_and_ends_as_any_other(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    context = mesh.client_context(mesh.leaf("web"))
    subset = f"v1.{sni('db')}"
    async with EchoServer() as echo:
        without = mesh.service("db", echo.port, intentions=(allow("web"),))
        names = (*without.server_names, ServerName(subset, without.server_names[0].endpoints, "v1"))
        await worker.update(mesh=mesh.settings(), upserts=(msgspec.structs.replace(without, server_names=names),))
        async with connected(worker.port, context, subset) as client:
            assert await client.exchange(b"ping") == b"ping"
            await worker.update(upserts=(without,))
            assert await client.exchange(b"still") == b"still"
        record = await worker.record(reason="client_eof")
    assert (record["server_name"], record["bytes_sent"]) == (subset, 9)
