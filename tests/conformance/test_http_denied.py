"""What a caller gets that no intention lets in, and what becomes of its connection."""

from __future__ import annotations

from typing import Any

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_one import ENDED, Answer, OneConnection, ask, connected, request
from tests.conformance.http_stand import answered, http, mirrored, permit
from tests.conformance.stand import Stand
from tests.support.mesh_client import Refused

TOPIC = "HTTP: denied"
SECRET, OPEN = request("GET /secret HTTP/1.1"), request("GET /open HTTP/1.1")
CALL = b"\0\0\0\0\0"
"""An empty message of gRPC."""


async def guarded(stand: Stand, service: str = "db", protocol: str = "http") -> Any:
    """A service that denies ``/secret`` alone."""
    mirror = await mirrored(stand, service, protocol=protocol, wait=False)
    await permit(stand, service, [http("deny", PathPrefix="/secret"), http("allow", PathPrefix="/")])
    await answered(stand, "403", SECRET, service)
    await answered(stand, "200", OPEN, service)
    return mirror


async def then(connection: OneConnection, data: bytes = OPEN) -> str:
    """What a further request on the connection comes to."""
    try:
        return str((await connection.ask(data)).status)
    except (Refused, OSError):
        return ENDED


def told(answer: Answer) -> str:
    """All of a refusal but its date."""
    names = ", ".join(f"{name}: {value}" for name, value in sorted(answer.headers) if name not in ("date", "server"))
    return f"{answer.line} [{names}] {answer.text}"


FORBIDDEN = "HTTP/1.1 403 Forbidden [content-length: 19, content-type: text/plain] RBAC: access denied"


@conformance(
    TOPIC,
    "A denied request is answered with 403 and a line of text, and its connection goes on",
    expect={
        "GET": FORBIDDEN,
        "a request after it": "200",
        "HEAD": FORBIDDEN.removesuffix("RBAC: access denied"),
        "a request after that": "200",
        "it has a date": True,
        "requests that the external service saw": 0,
    },
)
async def test_denied(stand: Stand) -> Observation:
    mirror = await guarded(stand)
    # The service may have been served before its intention was written.
    seen_before = len(mirror.of("/secret"))
    async with connected(stand) as connection:
        get = await connection.ask(SECRET)
        after_get = await then(connection)
        head = await connection.ask(request("HEAD /secret HTTP/1.1"))
        after_head = await then(connection)
    return {
        "GET": told(get),
        "a request after it": after_get,
        "HEAD": told(head),
        "a request after that": after_head,
        "it has a date": bool(get.value("date")),
        "requests that the external service saw": len(mirror.of("/secret")) - seen_before,
    }


CLOSING = FORBIDDEN.replace("[", "[connection: close, ")


@conformance(
    TOPIC,
    "A denied request with a body is answered at once, and its connection is closed",
    expect={
        "Content-Length": CLOSING,
        "a request after it": ENDED,
        "chunked, and only its head sent": CLOSING,
        "a request after that": ENDED,
        "Connection: close": CLOSING,
    },
)
async def test_denied_with_a_body(stand: Stand) -> Observation:
    await guarded(stand)
    async with connected(stand) as connection:
        counted = await connection.ask(request("POST /secret HTTP/1.1", body=b"hello"))
        after_counted = await then(connection)
    async with connected(stand) as connection:
        chunked = await connection.ask(request("POST /secret HTTP/1.1", "Transfer-Encoding: chunked"))
        after_chunked = await then(connection)
    closing = await ask(stand, request("GET /secret HTTP/1.1", "Connection: close"))
    return {
        "Content-Length": told(counted),
        "a request after it": after_counted,
        "chunked, and only its head sent": told(chunked),
        "a request after that": after_chunked,
        "Connection: close": told(closing),
    }


@conformance(
    TOPIC,
    "A denied caller that waits for 100 Continue: Envoy asks for the body before it says no, this gateway says no",
    envoy={"before the 403": ["HTTP/1.1 100 Continue"], "answer": "HTTP/1.1 403 Forbidden"},
    ours={"before the 403": [], "answer": "HTTP/1.1 403 Forbidden"},
    decision="039",
)
async def test_denied_that_waits(stand: Stand) -> Observation:
    await guarded(stand)
    answer = await ask(stand, request("POST /secret HTTP/1.1", "Content-Length: 5", "Expect: 100-continue"))
    return {"before the 403": answer.interim, "answer": answer.line}


@conformance(
    TOPIC,
    "Requests in one packet, the denied one first: both are answered",
    expect={"answers": ["403", "200"]},
)
async def test_pipeline(stand: Stand) -> Observation:
    await guarded(stand)
    async with connected(stand) as connection:
        await connection.send(SECRET + OPEN)
        return {"answers": [str((await connection.receive()).status) for _ in range(2)]}


@conformance(
    TOPIC,
    "Over HTTP/2 a denied request is answered with 403, its connection and the other streams go on",
    expect={
        "GET": "403 text/plain RBAC: access denied",
        "POST with a body": "403",
        "POST that goes on": "403 reset NO_ERROR",
        "allowed, on the same connection": "200",
    },
)
async def test_http2(stand: Stand) -> Observation:
    await guarded(stand)
    async with two.connected(stand) as connection:
        get = await connection.ask(two.headers("/secret"))
        post = await connection.ask(two.headers("/secret", method="POST"), b"hello")
        open_ended = await connection.open(two.headers("/secret", method="POST"), end=False)
        await connection.until(lambda: open_ended.reset)
        allowed = await connection.ask(two.headers("/open"))
    return {
        "GET": f"{get.status} {get.value('content-type')} {get.body.decode()}",
        "POST with a body": post.outcome,
        "POST that goes on": open_ended.outcome,
        "allowed, on the same connection": allowed.outcome,
    }


@conformance(
    TOPIC,
    "A denied call of gRPC gets status 7 in the only head, over both versions and whatever the service's protocol",
    expect={
        "grpc": "200 application/grpc 7 RBAC: access denied",
        "http": "200 application/grpc 7 RBAC: access denied",
        "over HTTP/1.1": "HTTP/1.1 200 OK application/grpc 7 RBAC: access denied",
        "application/grpc-web": "403",
        "not gRPC, on a grpc service": "403",
    },
)
async def test_grpc(stand: Stand) -> Observation:
    await guarded(stand)
    await guarded(stand, "calls", "grpc")

    async def call(service: str) -> str:
        stream = await two.ask(stand, two.grpc("/secret/Call"), CALL, service=service)
        values = (stream.value("content-type"), stream.value("grpc-status"), stream.value("grpc-message"))
        return " ".join((stream.outcome, *values))

    typed = "Content-Type: application/grpc"
    one = await ask(stand, request("POST /secret/Call HTTP/1.1", typed, body=CALL))
    web = await ask(stand, request("POST /secret/Call HTTP/1.1", typed + "-web", body=CALL))
    plain = await two.ask(stand, two.headers("/secret"), service="calls")
    return {
        "grpc": await call("calls"),
        "http": await call("db"),
        "over HTTP/1.1": " ".join((one.line, *map(one.value, ("content-type", "grpc-status", "grpc-message")))),
        "application/grpc-web": str(web.status),
        "not gRPC, on a grpc service": plain.outcome,
    }


@conformance(
    TOPIC,
    "A caller without an intention is answered with the same 403",
    expect={"answer": FORBIDDEN, "requests that the external service saw": 0},
)
async def test_default_deny(stand: Stand) -> Observation:
    mirror = await mirrored(stand, source="")
    await answered(stand, "403")
    return {"answer": told(await ask(stand, request())), "requests that the external service saw": len(mirror.seen)}
