"""Bodies, what comes before and behind them, and how their end is told, through both versions of HTTP."""

from __future__ import annotations

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Exchange, Mirror, TwoExchange, says
from tests.conformance.http_one import Answer, ask, connected, request, said
from tests.conformance.http_stand import mirrored
from tests.conformance.stand import Stand

TOPIC = "HTTP: bodies"
BOTH = ("db", "two")
"""Services: what stands behind ``db`` speaks HTTP/1.1, behind ``two`` HTTP/2."""
_WAY = {"db": "HTTP/1.1", "two": "HTTP/2"}


async def both(stand: Stand) -> dict[str, Mirror]:
    return {"db": await mirrored(stand), "two": await mirrored(stand, "two", protocol="http2")}


_CHUNKED = b"3\r\nabc\r\n0\r\nX-T: v\r\n\r\n"


@conformance(
    TOPIC,
    "Trailers of a request are passed on where both sides speak HTTP/2, else dropped",
    expect={
        "HTTP/1.1 to HTTP/1.1": "abc, none",
        "HTTP/1.1 to HTTP/2": "abc, none",
        "HTTP/2 to HTTP/1.1": "abc, none",
        "HTTP/2 to HTTP/2": "abc, x-t: v",
    },
)
async def test_request_trailers(stand: Stand) -> Observation:
    mirrors = await both(stand)
    facts = {}
    chunked = request("POST /one HTTP/1.1", "Transfer-Encoding: chunked", "TE: trailers", body=_CHUNKED)
    for service in BOTH:
        mirror = mirrors[service]
        await ask(stand, chunked, service)
        await two.ask(stand, two.headers("/two", method="POST"), b"abc", [("x-t", "v")], service=service)
        facts[f"HTTP/1.1 to {_WAY[service]}"] = _with_trailers(mirror, "/one")
        facts[f"HTTP/2 to {_WAY[service]}"] = _with_trailers(mirror, "/two")
    return {name: facts[name] for name in sorted(facts)}


def _with_trailers(mirror: Mirror, path: str) -> str:
    seen = mirror.last(path)
    if seen.version == 2:
        trailers = ", ".join(f"{name}: {value}" for name, value in seen.trailers)
        return f"{seen.body.decode()}, {trailers or 'none'}"
    data, _, end = seen.body.decode().partition("0\r\n")
    return f"{data.split()[1]}, {end.strip() or 'none'}"


@conformance(
    TOPIC,
    "Trailers of a response: Envoy passes them on where both sides speak HTTP/2, this gateway in every version",
    envoy={
        "HTTP/1.1 to HTTP/1.1": "abc, none",
        "HTTP/1.1 to HTTP/2": "abc, none",
        "HTTP/2 to HTTP/1.1": "abc, none",
        "HTTP/2 to HTTP/2": "abc, x-t: v",
    },
    ours={
        "HTTP/1.1 to HTTP/1.1": "abc, x-t: v",
        "HTTP/1.1 to HTTP/2": "abc, x-t: v",
        "HTTP/2 to HTTP/1.1": "abc, x-t: v",
        "HTTP/2 to HTTP/2": "abc, x-t: v",
    },
    decision="045",
)
async def test_response_trailers(stand: Stand) -> Observation:
    mirrors = await both(stand)
    mirrors["db"].scripts["/"] = says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n" + _CHUNKED
    )
    mirrors["two"].two_scripts["/"] = trailing
    facts = {}
    for service in BOTH:
        one = await ask(stand, request("GET / HTTP/1.1", "TE: trailers"), service)
        other = await two.ask(stand, two.headers("/", ("te", "trailers")), service=service)
        for version, answer in (("HTTP/1.1", one), ("HTTP/2", other)):
            trailers = ", ".join(f"{name.lower()}: {value}" for name, value in answer.trailers)
            facts[f"{version} to {_WAY[service]}"] = f"{answer.body.decode()}, {trailers or 'none'}"
    return {name: facts[name] for name in sorted(facts)}


def trailing(exchange: TwoExchange) -> None:
    exchange.respond("200", b"abc", end=False)
    exchange.trailers(("x-t", "v"))


async def continues(exchange: Exchange) -> bool:
    await exchange.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await exchange.read_body()
    await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    return True


async def declines(exchange: Exchange) -> bool:
    await exchange.write(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    return False


@conformance(
    TOPIC,
    "Expect: 100-continue: Envoy promises what the external service has not; here the external service decides",
    envoy={
        "it continues": "100 Continue, then 200",
        "it declines": "100 Continue, then 417",
        "it was asked": False,
        "another expectation": "fancy",
    },
    ours={
        "it continues": "100 Continue, then 200",
        "it declines": "417 Expectation Failed",
        "it was asked": True,
        "another expectation": "417",
    },
    decision="039",
)
async def test_continue(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    mirror.scripts |= {"/yes": continues, "/no": declines}

    async def expecting(path: str) -> str:
        async with connected(stand) as connection:
            await connection.send(request(f"POST {path} HTTP/1.1", "Expect: 100-continue", "Content-Length: 2"))
            first = await connection.until(b"\r\n\r\n")
            if not first.startswith(b"HTTP/1.1 100"):
                return first.decode().split("\r\n")[0].removeprefix("HTTP/1.1 ")
            await connection.send(b"ab")
            return f"100 Continue, then {(await connection.receive()).status}"

    facts: dict[str, object] = {"it continues": await expecting("/yes"), "it declines": await expecting("/no")}
    status = await said(stand, request("GET /other HTTP/1.1", "Expect: fancy"))
    return facts | {
        "it was asked": mirror.last("/yes").value("expect") == "100-continue",
        "another expectation": mirror.last("/other").value("expect") if status == "200" else status,
    }


@conformance(
    TOPIC,
    "Interim responses that nobody asked for: Envoy drops them, this gateway passes them on",
    envoy={
        "103 and 102, HTTP/1.1": [],
        "100, HTTP/1.1": [],
        "103 and 102, HTTP/2": [],
        "the answer": [200, 200, "200"],
    },
    ours={
        "103 and 102, HTTP/1.1": ["103", "102"],
        "100, HTTP/1.1": ["100"],
        "103 and 102, HTTP/2": ["103", "102"],
        "the answer": [200, 200, "200"],
    },
    decision="045",
)
async def test_interim(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    mirror.scripts |= {"/hints": says(hints + ok), "/100": says(b"HTTP/1.1 100 Continue\r\n\r\n" + ok)}
    one = await ask(stand, request("GET /hints HTTP/1.1"))
    hundred = await ask(stand, request("GET /100 HTTP/1.1"))
    other = await two.ask(stand, two.headers("/hints"))
    return {
        "103 and 102, HTTP/1.1": [line.split()[1] for line in one.interim],
        "100, HTTP/1.1": [line.split()[1] for line in hundred.interim],
        "103 and 102, HTTP/2": other.interim,
        "the answer": [one.status, hundred.status, other.outcome],
    }


@conformance(
    TOPIC,
    "Responses without a body, and how the others end",
    expect={
        "204": "204 none",
        "304": "304 Content-Length 5",
        "HEAD": "200 Content-Length 50",
        "no length": "200 chunked, whole",
        "chunked": "200 chunked, whole",
        "all on one connection": True,
        "204, HTTP/2": "204",
        "HEAD, HTTP/2": "200 Content-Length 50",
        "no length, HTTP/2": "200, whole",
    },
)
async def test_framing(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    mirror.scripts |= {
        "/204": says(b"HTTP/1.1 204 No Content\r\n\r\n"),
        "/304": says(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n"),
        "/head": says(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"),
        "/unsaid": says(b"HTTP/1.1 200 OK\r\n\r\nwhole", then="close"),
        "/chunked": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwh\r\n3\r\nole\r\n0\r\n\r\n"),
    }

    def shown(answer: Answer) -> str:
        length, coding = answer.value("content-length"), answer.value("transfer-encoding")
        framing = f"Content-Length {length}" if length else coding or "none"
        return f"{answer.status} {framing}" + (f", {answer.text}" if answer.body else "")

    async with connected(stand) as connection:
        facts = {
            name: shown(await connection.ask(request(f"{line} HTTP/1.1")))
            for name, line in {
                "204": "GET /204",
                "304": "GET /304",
                "HEAD": "HEAD /head",
                "no length": "GET /unsaid",
                "chunked": "GET /chunked",
            }.items()
        }
    async with two.connected(stand) as other:
        empty = await other.ask(two.headers("/204"))
        head = await other.ask(two.headers("/head", method="HEAD"))
        unsaid = await other.ask(two.headers("/unsaid"))
    return facts | {
        "all on one connection": True,
        "204, HTTP/2": empty.outcome,
        "HEAD, HTTP/2": f"{head.outcome} Content-Length {head.value('content-length')}",
        "no length, HTTP/2": f"{unsaid.outcome}, {unsaid.body.decode()}",
    }


@conformance(
    TOPIC,
    "How the body of a request is announced to an external service of HTTP/1.1",
    expect={
        "GET": "neither",
        "GET, Content-Length: 0": "content-length: 0",
        "GET with a body": "content-length: 3",
        "POST, Content-Length: 0": "content-length: 0",
        "POST, chunked": "transfer-encoding: chunked",
        "GET, chunked": "transfer-encoding: chunked",
        "POST, HTTP/2, with a length": "content-length: 3",
        "POST, HTTP/2, without": "transfer-encoding: chunked",
    },
)
async def test_announced(stand: Stand) -> Observation:
    mirror = await mirrored(stand)

    def announced() -> str:
        seen = mirror.last("/body")
        said = [f"{name}: {value}" for name, value in seen.headers if name in ("content-length", "transfer-encoding")]
        return " and ".join(said) or "neither"

    requests = {
        "GET": request("GET /body HTTP/1.1"),
        "GET, Content-Length: 0": request("GET /body HTTP/1.1", "Content-Length: 0"),
        "GET with a body": request("GET /body HTTP/1.1", body=b"abc"),
        "POST, Content-Length: 0": request("POST /body HTTP/1.1", "Content-Length: 0"),
        "POST, chunked": request("POST /body HTTP/1.1", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
        "GET, chunked": request("GET /body HTTP/1.1", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    }
    facts = {}
    for name, data in requests.items():
        await ask(stand, data)
        facts[name] = announced()
    await two.ask(stand, two.headers("/body", ("content-length", "3"), method="POST"), b"abc")
    facts["POST, HTTP/2, with a length"] = announced()
    await two.ask(stand, two.headers("/body", method="POST"), b"abc")
    return facts | {"POST, HTTP/2, without": announced()}


async def counts(exchange: Exchange) -> bool:
    """Send back as many bytes as came."""
    await exchange.read_body()
    body = exchange.seen.body
    await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return True


@conformance(
    TOPIC,
    "Bodies of megabytes pass whole in both directions, in either version",
    expect={"HTTP/1.1, 5 MB": [200, True], "HTTP/2, 3 MB": ["200", True], "300 requests, connections upstream": 1},
)
async def test_large(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    mirror.scripts["/large"] = counts
    large = bytes(range(256)) * 20_000
    one = await ask(stand, request("POST /large HTTP/1.1", body=large))
    part = large[:3_000_000]
    other = await two.ask(stand, two.headers("/large", ("content-length", str(len(part))), method="POST"), part)
    async with connected(stand) as connection:
        for _ in range(300):
            await connection.ask(request("GET /again HTTP/1.1"))
    return {
        "HTTP/1.1, 5 MB": [one.status, one.body == large],
        "HTTP/2, 3 MB": [other.outcome, other.body == part],
        "300 requests, connections upstream": len({seen.connection for seen in mirror.of("/again")}),
    }
