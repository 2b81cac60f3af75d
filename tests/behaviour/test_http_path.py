"""One worker, real sockets, HTTP/1.1 on both sides: requests in, the same requests out, and their responses back."""

from __future__ import annotations

from typing import Any

from proxy.model import HTTPSettings, Service
from tests.support.http_backend import HTTPBackend
from tests.support.http_client import http_client
from tests.support.mesh import TRUST_DOMAIN, HandMadeMesh, allow, sni
from tests.support.worker import WorkerProcess


def http_service(mesh: HandMadeMesh, *ports: int, **fields: Any) -> Service:
    fields.setdefault("http", HTTPSettings())
    fields.setdefault("intentions", (allow("web"),))
    return mesh.service("db", *ports, protocol="http", **fields)


async def test_requests_of_one_connection_reach_the_external_service(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            for _ in range(3):
                response = await client.get("/a?b=c", "user-agent: me\r\n")
                assert (response.status, response.body) == (200, b"ok")
        assert backend.connections == 1
        request = backend.requests[0]
        assert (request.method, request.target, request.value("host")) == ("GET", "/a?b=c", "service")
        record = await worker.record(event="request")
    assert (record["method"], record["path"], record["status"], record["verdict"]) == ("GET", "/a", 200, "allowed")
    assert record["source"] == f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
    assert (record["protocol"], record["user_agent"], record["reason"]) == ("HTTP/1.1", "me", "completed")
    assert record["request_id"] == request.value("x-request-id")
