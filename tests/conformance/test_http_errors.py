"""What a client gets when the external service does not answer, or not as HTTP asks for."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Exchange, Mirror, Script, reflect, reset, says, silence
from tests.conformance.http_one import ENDED, Answer, ask, connected, request, said
from tests.conformance.http_stand import answered, mirrored
from tests.conformance.stand import Stand
from tests.conformance.test_resolvers import unanswering
from tests.support.mesh_client import Refused

TOPIC = "HTTP: errors"
CALL = b"\0\0\0\0\0"
_LOST = "upstream connect error or disconnect/reset before headers. reset reason: "


def told(answer: Answer) -> str:
    """An answer that the gateway made: its status, and its text."""
    kind = answer.value("content-type")
    return " ".join(part for part in (answer.line.removeprefix("HTTP/1.1 "), f"[{kind}]" if kind else "", answer.text))


async def outcome(stand: Stand, data: bytes, service: str = "db") -> str:
    """As :func:`told`; ``ended`` for a connection that ends without an answer."""
    try:
        return told(await ask(stand, data, service))
    except (Refused, OSError):
        return ENDED


async def call(stand: Stand, path: str, service: str = "db") -> str:
    """What a call of gRPC comes to."""
    stream = await two.ask(stand, two.grpc(path), CALL, service=service)
    return " ".join((stream.outcome, stream.value("grpc-status"), stream.value("grpc-message"))).strip()


async def offered(stand: Stand, service: str, port: int) -> None:
    """A service of HTTP whose only instance is at ``port``."""
    await stand.config("service-defaults", service, Protocol="http")
    await stand.register(service, port, node=service)
    await stand.intention("web", service)
    await stand.link(service)


@conformance(
    TOPIC,
    "Nobody listens at the instance's port: 503, and the client's connection goes on",
    expect={
        "GET": f"503 Service Unavailable [text/plain] {_LOST}remote connection failure",
        "again on the same connection": 503,
        "POST": 503,
        "HTTP/2": "503",
        "gRPC": f"200 14 {_LOST}remote connection failure",
    },
)
async def test_refused(stand: Stand) -> Observation:
    await offered(stand, "gone", 1)
    await answered(stand, "503", service="gone")
    async with connected(stand, "gone") as connection:
        get = await connection.ask(request())
        again = await connection.ask(request())
    return {
        "GET": told(get),
        "again on the same connection": again.status,
        "POST": (await ask(stand, request("POST / HTTP/1.1", body=b"x"), "gone")).status,
        "HTTP/2": (await two.ask(stand, two.headers(), service="gone")).outcome,
        "gRPC": await call(stand, "/", "gone"),
    }


@conformance(
    TOPIC,
    "The instance's machine does not answer: 503 after ConnectTimeout",
    expect={"answer": f"503 Service Unavailable [text/plain] {_LOST}connection timeout", "after about": "1 s"},
)
async def test_connect_timeout(stand: Stand) -> Observation:
    await stand.config("service-resolver", "far", ConnectTimeout="1s")
    async with unanswering() as port:
        await offered(stand, "far", port)
        await answered(stand, "503", service="far")
        began_s = time.monotonic()
        answer = await ask(stand, request(), "far")
        return {"answer": told(answer), "after about": _about(time.monotonic() - began_s)}


def _about(elapsed_s: float) -> str:
    return "1 s" if 0.9 <= elapsed_s < 4.0 else f"{elapsed_s:.1f} s"


@conformance(
    TOPIC,
    "The last instance is taken away: Envoy's gateway refuses connections to the service, this one says why",
    envoy={"with an instance": "200", "without": ENDED},
    ours={"with an instance": "200", "without": "503 Service Unavailable [text/plain] no healthy upstream"},
    decision="038",
)
async def test_no_instance(stand: Stand) -> Observation:
    await mirrored(stand)
    before = await said(stand, request())
    await stand.deregister("db")
    await answered(stand, ENDED if stand.is_envoy else "503")
    return {"with an instance": before, "without": await outcome(stand, request())}


async def close(exchange: Exchange) -> bool:
    await exchange.read_body()
    return False


async def abort(exchange: Exchange) -> bool:
    await exchange.read_body()
    reset(exchange)
    return False


@conformance(
    TOPIC,
    "The external service ends the connection instead of answering: 503, and no POST is sent twice",
    expect={
        "closed, GET": f"503 Service Unavailable [text/plain] {_LOST}connection termination",
        "closed, POST": f"503 Service Unavailable [text/plain] {_LOST}connection termination",
        "reset, GET": f"503 Service Unavailable [text/plain] {_LOST}connection termination",
        "closed, HTTP/2": "503",
        "closed, gRPC": f"200 14 {_LOST}connection termination",
        "POSTs that it saw for one": 1,
    },
)
async def test_ended(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    mirror.scripts |= {"/close": close, "/abort": abort, "/once": close}
    await ask(stand, request("POST /once HTTP/1.1", body=b"x"))
    return {
        "closed, GET": told(await ask(stand, request("GET /close HTTP/1.1"))),
        "closed, POST": told(await ask(stand, request("POST /close HTTP/1.1", body=b"x"))),
        "reset, GET": told(await ask(stand, request("GET /abort HTTP/1.1"))),
        "closed, HTTP/2": (await two.ask(stand, two.headers("/close"))).outcome,
        "closed, gRPC": await call(stand, "/close"),
        "POSTs that it saw for one": len(mirror.of("/once")),
    }


@conformance(
    TOPIC,
    "A kept connection to the external service has ended when the next GET comes: Envoy fails it, here it is repeated",
    envoy={"GET": "503", "POST": "503", "GETs that the service saw": 1},
    ours={"GET": "200", "POST": "503", "GETs that the service saw": 2},
    decision="038",
)
async def test_repeated(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    refused: set[str] = set()

    async def not_at_first(exchange: Exchange) -> bool:
        await exchange.read_body()
        if exchange.seen.method in refused:
            return await reflect(exchange)
        refused.add(exchange.seen.method)
        return False

    mirror.scripts["/second"] = not_at_first
    async with connected(stand) as connection:
        facts = {}
        for method in ("GET", "POST"):
            await connection.ask(request("GET /before HTTP/1.1"))
            facts[method] = str((await connection.ask(request(f"{method} /second HTTP/1.1"))).status)
    gets = [seen for seen in mirror.of("/second") if seen.method == "GET"]
    return facts | {"GETs that the service saw": len(gets)}


_HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
_HALF_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"


async def completeness(stand: Stand, path: str) -> str:
    """Whether the answer ends as it should. How much of one that is cut reaches the client is up to the kernels."""
    try:
        answer = await ask(stand, request(f"GET {path} HTTP/1.1"))
    except (Refused, OSError):
        return "cut"
    return "complete" if answer.complete else "cut"


@conformance(
    TOPIC,
    "A response that breaks off looks broken off: never complete, in either version",
    expect={
        "closed": "cut",
        "reset": "cut",
        "closed, chunked": "cut",
        "a bad chunk": "cut",
        "HTTP/2": "200 reset INTERNAL_ERROR",
        "gRPC": "200 reset INTERNAL_ERROR",
    },
)
async def test_cut(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    mirror.scripts |= {
        "/closed": says(_HALF, then="close"),
        "/reset": says(_HALF, then="reset"),
        "/chunked": says(_HALF_CHUNKED, then="close"),
        "/bad": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n", then="close"),
    }
    return {
        "closed": await completeness(stand, "/closed"),
        "reset": await completeness(stand, "/reset"),
        "closed, chunked": await completeness(stand, "/chunked"),
        "a bad chunk": await completeness(stand, "/bad"),
        "HTTP/2": (await two.ask(stand, two.headers("/closed"))).outcome,
        "gRPC": (await two.ask(stand, two.grpc("/closed"), CALL)).outcome,
    }


async def half_then_silence(exchange: Exchange) -> bool:
    await exchange.read_body()
    await exchange.write(_HALF)
    await exchange.reader.read()
    return False


_SLOW = "504 Gateway Timeout [text/plain] upstream request timeout"


@conformance(
    TOPIC,
    "RequestTimeout: 504, counted from the end of the request; what the client says about timeouts changes nothing",
    expect={
        "GET": _SLOW,
        "after about": "1 s",
        "POST": _SLOW,
        "HTTP/2": "504",
        "gRPC": "200 14 upstream request timeout",
        "x-envoy-upstream-rq-timeout-ms: 60000": _SLOW,
        "in the middle of the response": "cut",
        "in the middle, HTTP/2": "200 reset INTERNAL_ERROR",
        "the request itself took longer": 200,
    },
)
async def test_request_timeout(stand: Stand) -> Observation:
    await stand.config("service-resolver", "db", RequestTimeout="1s")
    mirror = await mirrored(stand)
    mirror.scripts |= {"/silent": silence, "/half": half_then_silence}
    silent = request("GET /silent HTTP/1.1")
    began_s = time.monotonic()
    get = await ask(stand, silent)
    elapsed = _about(time.monotonic() - began_s)
    async with connected(stand) as connection:
        await connection.send(request("POST /slow HTTP/1.1", "Content-Length: 4") + b"ab")
        # Longer than the timeout; nothing else tells that it has not struck.
        assert await connection.is_open(1.5), "an answer to a request that is not complete"
        await connection.send(b"cd")
        slow = await connection.receive()
    return {
        "GET": told(get),
        "after about": elapsed,
        "POST": told(await ask(stand, request("POST /silent HTTP/1.1", body=b"x"))),
        "HTTP/2": (await two.ask(stand, two.headers("/silent"))).outcome,
        "gRPC": await call(stand, "/silent"),
        "x-envoy-upstream-rq-timeout-ms: 60000": told(
            await ask(stand, request("GET /silent HTTP/1.1", "x-envoy-upstream-rq-timeout-ms: 60000"))
        ),
        "in the middle of the response": await completeness(stand, "/half"),
        "in the middle, HTTP/2": (await two.ask(stand, two.headers("/half"))).outcome,
        "the request itself took longer": slow.status,
    }


_BAD = "502 Bad Gateway [text/plain] " + _LOST + "protocol error"
_OK = b"Content-Length: 2\r\n\r\nok"
MALFORMED: Mapping[str, bytes] = {
    "not HTTP": b"garbage\r\n\r\n",
    "a bad header name": b"HTTP/1.1 200 OK\r\nbad name: x\r\n" + _OK,
    "NUL in a value": b"HTTP/1.1 200 OK\r\nA: b\0c\r\n" + _OK,
    "Content-Length and chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + _OK,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + _OK,
    "the same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + _OK,
    "120 headers": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: a\r\n" % number for number in range(120)) + _OK,
}
OLD: Mapping[str, bytes] = {
    "lines end with LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "LF, chunked": b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\r\nok\r\n0\r\n\r\n",
    "LF, HTTP/1.0, until the end": b"HTTP/1.0 200 OK\nA: b c\n\nok",
    "a folded header": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n" + _OK,
    "folded with a tab": b"HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\n" + _OK,
    "folded before its value": b"HTTP/1.1 200 OK\r\nA:\r\n b c\r\n" + _OK,
    "folded, LF": b"HTTP/1.1 200 OK\nA: b\n c\nContent-Length: 2\n\nok",
}
SPLIT: Mapping[str, bytes] = {
    "one line ends with LF": b"HTTP/1.1 200 OK\r\nA: b\nB: c\r\n" + _OK,
    "LF, then an empty line with CR LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\r\nok",
    "an empty line with LF among CR LF": b"HTTP/1.1 200 OK\r\nA: b\n\nX\r\n" + _OK,
    "a folded length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok",
    "folded digits of a length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n 0\r\n\r\nok",
    "a fold before any header": b"HTTP/1.1 200 OK\r\n A: b\r\n" + _OK,
    "a fold of white space alone": b"HTTP/1.1 200 OK\r\nA: b\r\n \r\n" + _OK,
}
LENIENT: Mapping[str, bytes] = {
    "204 with a body": b"HTTP/1.1 204 No Content\r\n" + _OK,
    "a head of 70 KiB": b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"a" * 35_840 + b"\r\n") * 2 + _OK,
    "status 999": b"HTTP/1.1 999 Odd\r\n" + _OK,
    "status 1000": b"HTTP/1.1 1000 Odd\r\n" + _OK,
    "HTTP/2.0 in the status line": b"HTTP/2.0 200 OK\r\n" + _OK,
}
WELL_FORMED: Mapping[str, bytes] = {
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + _OK,
    "no reason": b"HTTP/1.1 200\r\n" + _OK,
    "bytes above 127 in a value": b"HTTP/1.1 200 OK\r\nA: \xe4\xff\r\n" + _OK,
    "500": b"HTTP/1.1 500 Internal Server Error\r\n" + _OK,
}


def scripted(mirror: Mirror, responses: Mapping[str, bytes]) -> dict[str, str]:
    """Paths by name, each answered so, and then the connection is closed."""
    scripts: dict[str, Script] = {
        f"/{number}": says(data, then="close") for number, data in enumerate(responses.values())
    }
    mirror.scripts |= scripts
    return dict(zip(responses, scripts, strict=True))


@conformance(
    TOPIC,
    "A response that is not HTTP/1.1, or whose length is ambiguous, is 502",
    expect=dict.fromkeys(MALFORMED, _BAD),
)
async def test_malformed(stand: Stand) -> Observation:
    paths = scripted(await mirrored(stand), MALFORMED)
    return {name: told(await ask(stand, request(f"GET {path} HTTP/1.1"))) for name, path in paths.items()}


@conformance(
    TOPIC,
    "A response of an old server, with lines that end with LF alone, or folded ones, is passed on clean",
    expect=dict.fromkeys(OLD, "200, a: b c, ok"),
)
async def test_old(stand: Stand) -> Observation:
    paths = scripted(await mirrored(stand), OLD)
    answers = {name: await ask(stand, request(f"GET {path} HTTP/1.1")) for name, path in paths.items()}
    folded = {name: " ".join(answer.value("a").split()) or "b c" for name, answer in answers.items()}
    return {name: f"{answer.status}, a: {folded[name]}, {answer.text}" for name, answer in answers.items()}


@conformance(
    TOPIC,
    "A response whose head, or its end, can be read in two ways: Envoy chooses one, this gateway takes none",
    envoy={
        "one line ends with LF": "200 'ok'",
        "LF, then an empty line with CR LF": "200 'ok'",
        "an empty line with LF among CR LF": r"200 'X\r\nContent-Length: 2\r\n\r\nok'",
        "a folded length": "200 'ok'",
        "folded digits of a length": "502",
        "a fold before any header": "502",
        "a fold of white space alone": "200 'ok'",
    },
    ours=dict.fromkeys(SPLIT, "502"),
    decision="033",
)
async def test_split(stand: Stand) -> Observation:
    paths = scripted(await mirrored(stand), SPLIT)
    return {name: await _seen(stand, path) for name, path in paths.items()}


async def _seen(stand: Stand, path: str) -> str:
    """The status, and of an answer of the external service its body as the client has it."""
    try:
        answer = await ask(stand, request(f"GET {path} HTTP/1.1"))
    except (Refused, OSError):
        return ENDED
    return str(answer.status) if answer.status == 502 else f"{answer.status} {answer.text!r}"


@conformance(
    TOPIC,
    "A response that is a little off: Envoy mends most, this gateway does not guess",
    envoy={
        "204 with a body": "502",
        "a head of 70 KiB": "200 ok",
        "status 999": "999 ok",
        "status 1000": "1000 ok",
        "HTTP/2.0 in the status line": "200 ok",
    },
    ours={
        "204 with a body": "204",
        "a head of 70 KiB": "502",
        "status 999": "999 ok",
        "status 1000": "502",
        "HTTP/2.0 in the status line": "502",
    },
    decision="033",
)
async def test_lenient(stand: Stand) -> Observation:
    paths = scripted(await mirrored(stand), LENIENT)
    answers = {name: await ask(stand, request(f"GET {path} HTTP/1.1")) for name, path in paths.items()}
    return {
        name: str(one.status) if one.status in (502, 503) else f"{one.status} {one.text}".strip()
        for name, one in answers.items()
    }


@conformance(
    TOPIC,
    "What is odd but well-formed is passed on",
    expect={
        "HTTP/1.0": "HTTP/1.1 200 OK ok",
        "no reason": "HTTP/1.1 200 OK ok",
        "bytes above 127 in a value": "HTTP/1.1 200 OK ok",
        "500": "HTTP/1.1 500 Internal Server Error ok",
    },
)
async def test_well_formed(stand: Stand) -> Observation:
    paths = scripted(await mirrored(stand), WELL_FORMED)
    answers = {name: await ask(stand, request(f"GET {path} HTTP/1.1")) for name, path in paths.items()}
    return {name: f"{one.line} {one.text}" for name, one in answers.items()}
