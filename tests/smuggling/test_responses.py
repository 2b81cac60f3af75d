"""However an external service writes the lines of its head, its client sees the message that it meant, or none.

Each response goes through a real worker and is read by h11, which knows nothing of the gateway, with the answer to a
second request behind it: were the end of the first one anywhere else, that one would not be found.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import h11
import pytest
import pytest_asyncio

from proxy.model import HTTPSettings
from proxy.rules import Action
from tests.support.eventually import SCALE
from tests.support.http_backend import HTTPBackend, Received
from tests.support.http_client import HTTPClient, http_client
from tests.support.mesh import HandMadeMesh, sni
from tests.support.worker import running_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

HIDDEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden"
"""What somebody who may write a header wants a client to take for the next response."""
_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Said:
    """``|`` is the end of a line: CR LF, and once more LF alone. Nothing else may be carried."""

    name: str
    sent: bytes
    body: bytes | None = None
    """``None``: it is refused."""
    value: str = ""
    """Of ``X-A``."""


OK = b"HTTP/1.1 200 OK|"
EITHER = (
    Said("plain", OK + b"Content-Length: 2||ok", b"ok"),
    Said(
        "body-is-a-head",
        OK + b"Content-Length: 40||" + b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\nxy",
        b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\nxy",
    ),
    Said("body-of-empty-lines", OK + b"Content-Length: 6||\n\n\r\n\r\n", b"\n\n\r\n\r\n"),
    Said("until-the-end", b"HTTP/1.0 200 OK|X-A: b||\n\r\nok", b"\n\r\nok", "b"),
    Said("chunked", OK + b"Transfer-Encoding: chunked||2\r\nok\r\n0\r\n\r\n", b"ok"),
    Said("interim", b"HTTP/1.1 103 Early|Link: x||" + OK + b"Content-Length: 2||ok", b"ok"),
    Said("folded", OK + b"X-A: b| c|Content-Length: 2||ok", b"ok", "b c"),
    Said("folded-twice", OK + b"X-A: b|\tc|  d|Content-Length: 2||ok", b"ok", "b c d"),
    Said("folded-at-once", OK + b"X-A:| b|Content-Length: 2||ok", b"ok", "b"),
    Said("fold-like-a-length", OK + b"X-A: b| Content-Length: 0|Content-Length: 2||ok", b"ok", "b Content-Length: 0"),
    Said("fold-like-a-response", OK + b"X-A: b| HTTP/1.1 200 OK|Content-Length: 2||ok", b"ok", "b HTTP/1.1 200 OK"),
    Said("folded-last", OK + b"Content-Length: 2|X-A: b| c||ok", b"ok", "b c"),
    Said("fold-of-nothing", OK + b" X-A: b|Content-Length: 2||ok"),
    Said("blank-fold", OK + b"X-A: b| |Content-Length: 2||ok"),
    Said("blank-fold-last", OK + b"Content-Length: 2|X-A: b|\t||ok"),
    Said("blank-fold-hides", OK + b"Content-Length: 0|X-A: b| |" + HIDDEN),
    Said("folded-length", OK + b"Content-Length:| 2||ok"),
    Said("folded-digits", OK + b"Content-Length: 2| 0||ok" + b"x" * 18),
    Said("folded-coding", OK + b"Transfer-Encoding:| chunked||2\r\nok\r\n0\r\n\r\n"),
    Said("folded-coding-beside-length", OK + b"Content-Length: 2|Transfer-Encoding:|\tchunked||ok"),
    Said("folded-name", OK + b"X-A| : b|Content-Length: 2||ok"),
    Said("two-lengths", OK + b"Content-Length: 2|Content-Length: 2||ok"),
    Said("length-and-chunks", OK + b"Content-Length: 2|Transfer-Encoding: chunked||2\r\nok\r\n0\r\n\r\n"),
)
AS_THEY_ARE = (
    Said("one-lf", b"HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 2\r\n\r\nok"),
    Said("lf-in-a-value", b"HTTP/1.1 200 OK\r\nX-A: b\nX-B: c\r\nContent-Length: 2\r\n\r\nok"),
    Said("two-lf-in-a-value", b"HTTP/1.1 200 OK\r\nX-A: b\n\nContent-Length: 0\r\nContent-Length: 2\r\n\r\nok"),
    Said("hidden-behind-two-lf", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\n\n" + HIDDEN.replace(b"\r", b"")),
    Said("hidden-behind-lf-crlf", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\n\r\n" + HIDDEN),
    Said("hidden-behind-crlf", b"HTTP/1.1 200 OK\nContent-Length: 0\nX-A: b\r\n\r\n" + HIDDEN + b"\n\n"),
    Said("crlf-at-last", b"HTTP/1.1 200 OK\nContent-Length: 2\n\r\nok"),
    Said("lf-at-last", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok"),
    Said("cr-in-lf", b"HTTP/1.1 200 OK\nX-A: b\rX-B: c\nContent-Length: 2\n\nok"),
    Said("cr-for-lf", b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok"),
    Said("fold-over-lf", b"HTTP/1.1 200 OK\r\nX-A: b\n c\r\nContent-Length: 2\r\n\r\nok"),
    Said("chunks-of-lf", b"HTTP/1.1 200 OK\nContent-Length: 0\nTransfer-Encoding: chunked\n\n0\n\n"),
    Said("nothing-but-lf", b"\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
)  # fmt: skip
CORPUS = (
    *(Said(f"{one.name}-crlf", one.sent.replace(b"|", b"\r\n"), one.body, one.value) for one in EITHER),
    *(Said(f"{one.name}-lf", one.sent.replace(b"|", b"\n"), one.body, one.value) for one in EITHER),
    *AS_THEY_ARE,
)
SENT = {f"/{one.name}": one for one in CORPUS}


async def answer(request: Received) -> None:
    said = SENT.get(request.target)
    if said is None:
        await request.answer(b"marker")
    else:
        await request.say(said.sent)
        request.writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[HTTPClient]:
    mesh = HandMadeMesh()
    async with HTTPBackend(answer) as backend, running_worker() as worker:
        service = mesh.service("old", backend.port, protocol="http", http=HTTPSettings())
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(service,))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("old")) as connected:
            yield connected


async def read(client: HTTPClient, target: str) -> tuple[h11.Response, bytes]:
    """As h11 does. Nothing may be left over."""
    reader = h11.Connection(h11.CLIENT)
    asked = h11.Request(method="GET", target=target, headers=[("host", "old")])
    await client.send((reader.send(asked) or b"") + (reader.send(h11.EndOfMessage()) or b""))
    response, body = None, b""
    async with asyncio.timeout(_DEADLINE_S * SCALE):
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                reader.receive_data(await client.reader.read(65_536))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None
                assert reader.trailing_data == (b"", False)
                return response, body


@pytest.mark.parametrize("said", CORPUS, ids=lambda said: said.name)
async def test_a_client_sees_what_was_meant_or_nothing(client: HTTPClient, said: Said) -> None:
    response, body = await read(client, f"/{said.name}")
    if said.body is None:
        assert response.status_code in (502, 503)  # 503: its head never ends
    else:
        assert (response.status_code, body) == (200, said.body)
        values = [value.decode() for name, value in response.headers if name == b"x-a"]
        assert values == ([said.value] if said.value else [])
    assert (await read(client, "/marker"))[1] == b"marker"
