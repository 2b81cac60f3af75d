"""The versions of HTTP on both sides, and what in them is refused."""

from __future__ import annotations

import asyncio

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_one import ENDED, ask, request
from tests.conformance.http_stand import mirrored
from tests.conformance.stand import Stand
from tests.support.mesh_client import Refused

TOPIC = "HTTP: versions"


async def outcome(stand: Stand, data: bytes, service: str = "db") -> str:
    """The status, and whether the gateway says that it closes; ``ended`` for a connection without an answer."""
    try:
        answer = await ask(stand, data, service)
    except (Refused, OSError):
        return ENDED
    return f"{answer.status} [close]" if answer.value("connection") == "close" else str(answer.status)


@conformance(
    TOPIC,
    "The protocol of a service says what is spoken to it; its clients choose by their first bytes",
    expect={
        "http, HTTP/1.1": [200, "HTTP/1.1"],
        "http, HTTP/2": [200, "HTTP/1.1"],
        "http2, HTTP/1.1": [200, "HTTP/2"],
        "http2, HTTP/2": [200, "HTTP/2"],
        "grpc, HTTP/1.1": [200, "HTTP/2"],
        "grpc, HTTP/2": [200, "HTTP/2"],
    },
)
async def test_protocols(stand: Stand) -> Observation:
    facts = {}
    for protocol in ("http", "http2", "grpc"):
        mirror = await mirrored(stand, protocol, protocol=protocol)
        one = await ask(stand, request("GET /one HTTP/1.1"), protocol)
        other = await two.ask(stand, two.headers("/two"), service=protocol)
        spoken = {1: "HTTP/1.1", 2: "HTTP/2"}
        facts[f"{protocol}, HTTP/1.1"] = [one.status, spoken[mirror.last("/one").version]]
        facts[f"{protocol}, HTTP/2"] = [int(other.status), spoken[mirror.last("/two").version]]
    return facts


@conformance(
    TOPIC,
    "ALPN: Envoy selects nothing, whatever is offered; this gateway selects the version, and speaks it",
    envoy={"h2": "none", "http/1.1": "none", "h2, http/1.1": "none", "consul~x": "none"},
    ours={"h2": "h2", "http/1.1": "http/1.1", "h2, http/1.1": "h2", "consul~x": "none"},
    decision="036",
)
async def test_alpn(stand: Stand) -> Observation:
    await mirrored(stand)
    client, name = await stand.client("web"), await stand.server_name("db")
    facts = {}
    for offer in (["h2"], ["http/1.1"], ["h2", "http/1.1"], ["consul~x"]):
        context = client.context()
        context.set_alpn_protocols(offer)
        _, writer = await asyncio.open_connection(
            stand.gateway.address, stand.gateway.port, ssl=context, server_hostname=name
        )
        facts[", ".join(offer)] = writer.get_extra_info("ssl_object").selected_alpn_protocol() or "none"
        writer.transport.abort()
    return facts


# --- what is not a plain request -----------------------------------------------------------------------------

_UPGRADE, _BAD = "426 [close]", "400 [close]"
LINES: dict[str, tuple[str, str]] = {
    "GET / HTTP/1.0": (_UPGRADE, "426"),
    "GET / HTTP/1.2": (_UPGRADE, "505 [close]"),
    "GET / HTTP/2.0": (_UPGRADE, "505 [close]"),
    "GET /": (_UPGRADE, _BAD),
    "GET  / HTTP/1.1": ("200", _BAD),
    "get / HTTP/1.1": (_BAD, _BAD),
    "FOO / HTTP/1.1": (_BAD, "501 [close]"),
    "G@T / HTTP/1.1": (_BAD, _BAD),
    "GET relative HTTP/1.1": (_BAD, _BAD),
    "GET * HTTP/1.1": (_BAD, _BAD),
    "GET ftp://db.example/ HTTP/1.1": (_BAD, _BAD),
    "GET http:/// HTTP/1.1": (_BAD, _BAD),
    "GET http://other.example/ HTTP/1.1": ("200", _BAD),
    "GET /\x01 HTTP/1.1": (_BAD, _BAD),
    "GET /\xe4 HTTP/1.1": (_BAD, _BAD),
    "OPTIONS * HTTP/1.1": ("404", "200"),
    "CONNECT db:80 HTTP/1.1": ("404 [close]", "501 [close]"),
}
"""What is answered to each by Envoy's gateway and by ours. Host is db.example."""


@conformance(
    TOPIC,
    "Odd request lines: Envoy forgives some, this gateway none; OPTIONS * is for the external service",
    envoy={line: statuses[0] for line, statuses in LINES.items()},
    ours={line: statuses[1] for line, statuses in LINES.items()},
    decision="033",
)
async def test_refused_lines(stand: Stand) -> Observation:
    await mirrored(stand)
    return {line: await outcome(stand, request(line)) for line in LINES}


ABSOLUTE = {
    "GET http://db.example/x HTTP/1.1": "GET /x HTTP/1.1, db.example",
    "GET https://db.example/x?q HTTP/1.1": "GET /x?q HTTP/1.1, db.example",
    "GET http://db.example HTTP/1.1": "GET / HTTP/1.1, db.example",
    "OPTIONS http://db.example/x HTTP/1.1": "OPTIONS /x HTTP/1.1, db.example",
    "PATCH /x HTTP/1.1": "PATCH /x HTTP/1.1, db.example",
    "PROPFIND /x HTTP/1.1": "PROPFIND /x HTTP/1.1, db.example",
    "TRACE /x HTTP/1.1": "TRACE /x HTTP/1.1, db.example",
    "DELETE /x HTTP/1.1": "DELETE /x HTTP/1.1, db.example",
}


@conformance(TOPIC, "Absolute form is taken apart; methods of RFC 9110 and WebDAV are passed on", expect=ABSOLUTE)
async def test_lines(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    facts = {}
    for line in ABSOLUTE:
        await ask(stand, request(line))
        facts[line] = f"{mirror.last().line}, {mirror.last().value('host')}"
    return facts


@conformance(
    TOPIC,
    "HTTP/2 requests that HTTP/1.1 could not say",
    envoy={
        "OPTIONS *": "404",
        "CONNECT": "404",
        "extended CONNECT": "ended",
        "method FOO": "200",
        "method get": "200",
        "path with bytes above 127": "200",
        "path with a fragment": "400",
        "relative path": "ended",
        "empty path": "ended",
        "path with a space": "ended",
        "absolute path": "ended",
        "te: gzip": "ended",
    },
    ours={
        "OPTIONS *": "200",
        "CONNECT": "501",
        "extended CONNECT": "reset PROTOCOL_ERROR",
        "method FOO": "200",
        "method get": "reset PROTOCOL_ERROR",
        "path with bytes above 127": "reset PROTOCOL_ERROR",
        "path with a fragment": "reset PROTOCOL_ERROR",
        "relative path": "reset PROTOCOL_ERROR",
        "empty path": "reset PROTOCOL_ERROR",
        "path with a space": "reset PROTOCOL_ERROR",
        "absolute path": "reset PROTOCOL_ERROR",
        "te: gzip": "reset PROTOCOL_ERROR",
    },
    decision="035",
)
async def test_odd_streams(stand: Stand) -> Observation:
    await mirrored(stand)
    authority = (":authority", "db.example")
    extended = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/"), authority]
    streams = {
        "OPTIONS *": two.headers("*", method="OPTIONS"),
        "CONNECT": [(":method", "CONNECT"), authority],
        "extended CONNECT": extended,
        "method FOO": two.headers(method="FOO"),
        "method get": two.headers(method="get"),
        "path with bytes above 127": two.headers("/ä"),
        "path with a fragment": two.headers("/a#b"),
        "relative path": two.headers("a"),
        "empty path": two.headers(""),
        "path with a space": two.headers("/a b"),
        "absolute path": two.headers("http://abs.example/x"),
        "te: gzip": two.headers("/", ("te", "gzip")),
    }
    return {name: await two.outcome(stand, pairs) for name, pairs in streams.items()}


_TOO_LARGE = "431 [close]"


@conformance(
    TOPIC,
    "Heads up to 60 KiB and 100 headers pass; larger ones are 431, over HTTP/2 Envoy resets the stream",
    envoy={
        "59 KiB": "200",
        "61 KiB": _TOO_LARGE,
        "a target of 59 KiB": "200",
        "a target of 70 KiB": _TOO_LARGE,
        "100 headers": "200",
        "101 headers": _TOO_LARGE,
        "HTTP/2, 58 KiB": "200",
        "HTTP/2, 62 KiB": "reset INTERNAL_ERROR",
        "HTTP/2, 96 headers": "200",
        "HTTP/2, 101 headers": "reset INTERNAL_ERROR",
        "HTTP/2, after that": "200",
    },
    ours={
        "59 KiB": "200",
        "61 KiB": _TOO_LARGE,
        "a target of 59 KiB": "200",
        "a target of 70 KiB": _TOO_LARGE,
        "100 headers": "200",
        "101 headers": _TOO_LARGE,
        "HTTP/2, 58 KiB": "200",
        "HTTP/2, 62 KiB": "431",
        "HTTP/2, 96 headers": "200",
        "HTTP/2, 101 headers": "431",
        "HTTP/2, after that": "200",
    },
    decision="033",
)
async def test_large_heads(stand: Stand) -> Observation:
    await mirrored(stand)
    # Short of a round number: the request line and Host count as well, and what the mirror sends back is a body.
    heads = {
        "59 KiB": request("GET / HTTP/1.1", "X-Large: " + "a" * (59 * 1024)),
        "61 KiB": request("GET / HTTP/1.1", "X-Large: " + "a" * (61 * 1024)),
        "a target of 59 KiB": request("GET /?" + "a" * (59 * 1024) + " HTTP/1.1"),
        "a target of 70 KiB": request("GET /?" + "a" * (70 * 1024) + " HTTP/1.1"),
        "100 headers": request("GET / HTTP/1.1", *(f"X-{number}: a" for number in range(99))),
        "101 headers": request("GET / HTTP/1.1", *(f"X-{number}: a" for number in range(100))),
    }
    facts = {}
    for name, data in heads.items():
        facts[name] = await outcome(stand, data)
    kib = [(f"x-{number}", "a" * 1000) for number in range(62)]
    async with two.connected(stand) as connection:
        for name, more in (
            ("58 KiB", kib[:58]),
            ("62 KiB", kib),
            ("96 headers", [(f"x-{number}", "a") for number in range(96)]),
            ("101 headers", [(f"x-{number}", "a") for number in range(101)]),
            ("after that", []),
        ):
            facts[f"HTTP/2, {name}"] = (await connection.ask(two.headers("/", *more))).outcome
    return facts


FRAMING: dict[str, bytes] = {
    "Content-Length and chunked": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "Content-Length: 3,3": b"Content-Length: 3,3\r\n\r\nabc",
    "Content-Length: +3": b"Content-Length: +3\r\n\r\nabc",
    "a length beyond 64 bits": b"Content-Length: 99999999999999999999\r\n\r\n",
    "gzip, chunked": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size of 0x3": b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "chunks that end with LF": b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "a chunk extension": b"Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\n\r\n",
    "Chunked": b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
    "a name with a space": b"Bad name: x\r\n\r\n",
    "a space before the colon": b"A : b\r\n\r\n",
    "an empty name": b": b\r\n\r\n",
    "NUL in a value": b"A: b\0c\r\n\r\n",
    "CR in a value": b"A: b\rc\r\n\r\n",
    "a folded line": b"A: b\r\n c\r\n\r\n",
    "lines that end with LF": b"A: b\n\n",
}
"""What follows ``POST / HTTP/1.1`` and Host."""


@conformance(
    TOPIC,
    "Requests whose end or whose headers can be read in two ways",
    envoy={
        "Content-Length and chunked": "400",
        "the same length twice": "400",
        "Content-Length: 3,3": "400",
        "Content-Length: +3": "400",
        "a length beyond 64 bits": "400",
        "gzip, chunked": "501",
        "identity": "501",
        "chunked twice": "501",
        "a chunk size of 0x3": "400",
        "chunks that end with LF": "400",
        "a chunk extension": "200",
        "Chunked": "200",
        "a name with a space": "400",
        "a space before the colon": "400",
        "an empty name": "400",
        "NUL in a value": "400",
        "CR in a value": "200",
        "a folded line": "200",
        "lines that end with LF": "200",
    },
    ours=dict.fromkeys(FRAMING, "400") | {"gzip, chunked": "501", "identity": "501", "Chunked": "200"},
    decision="033",
)
async def test_ambiguous(stand: Stand) -> Observation:
    await mirrored(stand)
    facts = {}
    for name, rest in FRAMING.items():
        facts[name] = (await outcome(stand, b"POST / HTTP/1.1\r\nHost: db.example\r\n" + rest)).split()[0]
    return facts
