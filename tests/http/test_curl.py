"""curl, the client that everybody has: straight to the gateway with a leaf of the mesh, and through a sidecar."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.processes import run
from plugin.errors import StartError
from tests.http.conftest import PAGES, HTTPStage
from tests.support.eventually import SCALE, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

_DEADLINE_S = 30 * SCALE
_LARGE = 8_000_000
_VERSIONS = {"--http1.1": "1.1", "--http2-prior-knowledge": "2", "--http2": "2"}
"""What curl is asked for, and what it then says that it has spoken."""


@dataclass(frozen=True, slots=True)
class Way:
    """How curl gets to the service."""

    origin: str
    options: tuple[str, ...]
    version: str
    """Of HTTP, spoken by curl."""

    async def curl(self, path: str, *options: str, input_text: str = "") -> str:
        """:raises StartError: when curl fails."""
        command = ["curl", "--silent", "--show-error", "--max-time", str(int(_DEADLINE_S)), *self.options, *options]
        return await run([*command, self.origin + path], input_text=input_text, deadline_s=_DEADLINE_S + 5)


_WAYS = ["direct --http1.1", "direct --http2", "sidecar --http1.1", "sidecar --http2-prior-knowledge"]


@pytest_asyncio.fixture(loop_scope="session", params=_WAYS)
async def way(request: pytest.FixtureRequest, http_stage: HTTPStage, tmp_path: Path) -> Way:
    kind, option = request.param.split()
    version = _VERSIONS[option]
    if kind == "sidecar":
        return Way(f"http://127.0.0.1:{http_stage.ports[PAGES]}", (option,), version)
    assert http_stage.client.leaf is not None
    certificate, key = http_stage.client.leaf.write(tmp_path, "leaf")
    name, gateway = http_stage.client.server_name(PAGES), http_stage.gateway
    options = (
        option,
        # The mesh names services by SPIFFE ID, which curl cannot check; other tests do.
        "--insecure",
        *("--cert", str(certificate), "--key", str(key)),
        *("--connect-to", f"::{gateway.address}:{gateway.port}"),
    )
    return Way(f"https://{name}", options, version)


Policy = Callable[[str], Awaitable[None]]


@pytest_asyncio.fixture(loop_scope="session")
async def policy(http_stage: HTTPStage) -> AsyncIterator[Policy]:
    """Decides about the pages; they are allowed again afterwards."""

    async def decide(action: str) -> None:
        await http_stage.decide(PAGES, action)

    yield decide
    await http_stage.decide(PAGES, "allow")


async def test_a_page(way: Way) -> None:
    printed = await way.curl("/", "--write-out", "|%{http_code}|%{http_version}|%{content_type}")
    assert printed.startswith("<!doctype html>")
    assert printed.endswith(f"|200|{way.version}|text/html; charset=utf-8")


async def test_a_head(way: Way) -> None:
    printed = await way.curl("/bytes/1000", "--head")
    assert "content-length: 1000" in printed.lower()


# curl 7.88, which Debian has, cannot send a second request on a connection of HTTP/2 by prior knowledge.
@pytest.mark.parametrize("way", _WAYS[:3], indirect=True)
async def test_several_requests_on_one_connection(way: Way) -> None:
    more = [part for number in range(4) for part in (f"{way.origin}/bytes/{number}", "--output", "/dev/null")]
    printed = await way.curl("/bytes/9", "--output", "/dev/null", *more, "--write-out", "%{num_connects} ")
    assert printed.split() == ["1", "0", "0", "0", "0"]


@pytest.mark.parametrize("framing", ["", "?chunked"])
async def test_a_large_download(way: Way, framing: str, tmp_path: Path) -> None:
    target = tmp_path / "received"
    await way.curl(f"/bytes/{_LARGE}{framing}", "--output", str(target))
    assert target.read_bytes() == bytes(_LARGE)


async def test_a_large_upload_with_its_length(way: Way, tmp_path: Path) -> None:
    """Over HTTP/1.1 curl sends ``Expect: 100-continue`` first."""
    source = tmp_path / "sent"
    source.write_bytes(os.urandom(_LARGE))
    printed = await way.curl("/digest", "--data-binary", f"@{source}")
    assert printed == hashlib.sha256(source.read_bytes()).hexdigest()


async def test_an_upload_without_its_length(way: Way) -> None:
    text = "a line of many\n" * 200_000
    printed = await way.curl("/digest", "--upload-file", "-", input_text=text)
    assert printed == hashlib.sha256(text.encode()).hexdigest()


async def test_a_path_is_normalised(way: Way) -> None:
    assert await way.curl("/a/../bytes/3", "--path-as-is") == "\0" * 3


async def test_a_denied_request(http_stage: HTTPStage, way: Way, policy: Policy) -> None:
    await policy("deny")
    printed = await way.curl("/", "--write-out", "|%{http_code}")
    assert printed == "RBAC: access denied|403"


async def test_a_download_ends_when_it_is_denied(http_stage: HTTPStage, way: Way, policy: Policy) -> None:
    download = asyncio.ensure_future(way.curl("/bytes/100000000000", "--output", "/dev/null"))  # noqa: TID251
    await eventually(lambda: http_stage.pages.sending == 1, what="the download has begun")
    await policy("deny")
    with pytest.raises(StartError, match=r"ended with (18|56|92)"):  # partial, receiving, or a stream's error
        await download
    await eventually(lambda: http_stage.pages.sending == 0, what="the service knows that nobody receives")
