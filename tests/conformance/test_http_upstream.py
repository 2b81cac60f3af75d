"""The external service's side: which version it is spoken to in over TLS, and how it takes streams back."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter

from plugin.dev.pki import Authority
from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Exchange, Mirror, TwoExchange
from tests.conformance.http_one import connected, request, said
from tests.conformance.http_stand import mirrored, reached
from tests.conformance.stand import Stand

TOPIC = "HTTP: external services"
PARTNER = Authority("Partner CA")
CALL = b"\0\0\0\0\0"
_KNOWN: dict[str, tuple[str, ...]] = {
    "h2, http/1.1": ("h2", "http/1.1"),
    "h2": ("h2",),
    "http/1.1": ("http/1.1",),
    "no ALPN": (),
}


class Selecting(Mirror):
    """Remembers what ALPN came to."""

    def __init__(self) -> None:
        super().__init__()
        self.selected = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.selected = writer.get_extra_info("ssl_object").selected_alpn_protocol() or "nothing"
        await super().serve(reader, writer)


@conformance(
    TOPIC,
    "Over TLS the protocol of the service alone is offered by ALPN, and spoken whatever is selected",
    expect={
        "http, h2, http/1.1": "http/1.1 selected, HTTP/1.1 spoken",
        "http, h2": "nothing selected, HTTP/1.1 spoken",
        "http, http/1.1": "http/1.1 selected, HTTP/1.1 spoken",
        "http, no ALPN": "nothing selected, HTTP/1.1 spoken",
        "http2, h2, http/1.1": "h2 selected, HTTP/2 spoken",
        "http2, h2": "h2 selected, HTTP/2 spoken",
        "http2, http/1.1": "nothing selected, HTTP/2 spoken",
        "http2, no ALPN": "nothing selected, HTTP/2 spoken",
    },
)
async def test_alpn(stand: Stand) -> Observation:
    trusted = stand.folder / "partner.pem"
    trusted.write_text(PARTNER.certificate_pem)
    mirrors: dict[str, tuple[str, Selecting]] = {}
    for protocol in ("http", "http2"):
        for number, (words, known) in enumerate(_KNOWN.items()):
            service, mirror = f"{protocol}-{number}", Selecting()
            backend = await stand.backend(mirror.serve, tls=PARTNER.server("db.example"), alpn=known)
            await stand.config("service-defaults", service, Protocol=protocol)
            await stand.register(service, backend.port, node=service)
            await stand.intention("web", service)
            await stand.link(service, CAFile=str(trusted), SNI="db.example")
            mirrors[f"{protocol}, {words}"] = service, mirror
    facts = {}
    for name, (service, mirror) in mirrors.items():
        await reached(stand, service)
        spoken = {1: "HTTP/1.1", 2: "HTTP/2"}[mirror.last("/ready").version]
        facts[name] = f"{mirror.selected} selected, {spoken} spoken"
    return facts


def first_refused(exchange: TwoExchange, seen: Counter[str], how: str) -> None:
    """Take the first one of a path back, answer the next."""
    seen[exchange.seen.path] += 1
    if seen[exchange.seen.path] > 1:
        exchange.respond("200", b"ok", [("grpc-status", "0")])
    elif how == "goaway":
        exchange.core.close_connection(0, last_stream_id=max(exchange.number - 2, 0))
    else:
        exchange.core.reset_stream(exchange.number, {"refused": 7, "cancelled": 8}[how])
    exchange.flush()


@conformance(
    TOPIC,
    "HTTP/2: a stream that the service takes back is sent again here, where that does no harm; Envoy answers 503",
    envoy={
        "REFUSED_STREAM": "503",
        "GOAWAY before it": "503",
        "CANCEL": "503",
        "gRPC, REFUSED_STREAM": "14",
        "sent": {"/refused": 1, "/goaway": 1, "/cancelled": 1, "/call": 1},
        "its message is whole each time": True,
    },
    ours={
        "REFUSED_STREAM": "200",
        "GOAWAY before it": "200",
        "CANCEL": "200",
        "gRPC, REFUSED_STREAM": "0",
        "sent": {"/refused": 2, "/goaway": 2, "/cancelled": 2, "/call": 2},
        "its message is whole each time": True,
    },
    decision="038",
)
async def test_taken_back(stand: Stand) -> Observation:
    mirror = await mirrored(stand, protocol="http2")
    seen: Counter[str] = Counter()
    for how in ("refused", "goaway", "cancelled"):
        mirror.early_two_scripts[f"/{how}"] = functools.partial(first_refused, seen=seen, how=how)
    # When it is complete, so that its message has gone for certain.
    mirror.two_scripts["/call"] = functools.partial(first_refused, seen=seen, how="refused")
    facts: dict[str, object] = {
        "REFUSED_STREAM": await said(stand, request("GET /refused HTTP/1.1")),
        "GOAWAY before it": await said(stand, request("GET /goaway HTTP/1.1")),
        "CANCEL": await said(stand, request("GET /cancelled HTTP/1.1")),
    }
    stream = await two.ask(stand, two.grpc("/call"), CALL)
    return facts | {
        "gRPC, REFUSED_STREAM": stream.value("grpc-status"),
        "sent": dict(seen),
        "its message is whole each time": {one.body for one in mirror.of("/call")} == {CALL},
    }


async def too_large(exchange: Exchange) -> bool:
    await exchange.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    return False


@conformance(
    TOPIC,
    "A response that comes before the request is complete reaches the client, and then its connection is closed",
    expect={"HTTP/1.1": "413 close no", "goes on": False, "HTTP/2": "413 reset NO_ERROR"},
)
async def test_early(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    mirror.scripts["/large"] = too_large
    async with connected(stand) as connection:
        await connection.send(request("POST /large HTTP/1.1", "Content-Length: 1000000") + b"x" * 1000)
        answer = await connection.receive()
        goes_on = await connection.is_open(5.0)
    async with two.connected(stand) as other:
        stream = await other.open(two.headers("/large", method="POST"), end=False)
        await other.until(lambda: stream.reset)
    told = f"{answer.status} {answer.value('connection')} {answer.text}"
    return {"HTTP/1.1": told, "goes on": goes_on, "HTTP/2": stream.outcome}
