"""Bodies of many sizes, both ways and many at a time, between clients and services of either version of HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from plugin.dev.processes import run
from proxy.model import HTTPSettings
from proxy.rules import Action
from tests.support.eventually import SCALE
from tests.support.http2_async import H2Exchange, HTTP2Backend
from tests.support.mesh import HandMadeMesh, sni
from tests.support.pages import Pages
from tests.support.worker import WorkerProcess, running_worker

_SIZES = (0, 1, 100, 16_383, 16_384, 65_535, 65_536, 300_000, 2_000_000)
"""Around the sizes of frames, records and windows."""
_EACH = 120
_TOGETHER = 20
_DEADLINE_S = 90 * SCALE
_FRAME = 16_384


@dataclass(frozen=True, slots=True)
class Stand:
    worker: WorkerProcess
    context: ssl.SSLContext
    certificate: Path
    key: Path


async def over_http2(exchange: H2Exchange) -> None:
    """What :class:`Pages` answers, by HTTP/2."""
    path = exchange.value(":path")
    if (await exchange.whole()).reset is not None:
        return
    if path == "/digest":
        body = hashlib.sha256(bytes(exchange.body)).hexdigest().encode()
        exchange.start([(":status", "200")])
    else:
        body = bytes(int(path.partition("?")[0].rpartition("/")[2]))
        length = [] if path.endswith("?chunked") else [("content-length", str(len(body)))]
        exchange.start([(":status", "200"), *length], end=not body)
    connection = exchange.connection
    while body and exchange.reset is None and not connection.ended.is_set():
        part = body[: min(_FRAME, connection.protocol.local_flow_control_window(exchange.number))]
        if part:
            body = body[len(part) :]
            exchange.send(part, end=not body)
            await connection.writer.drain()
        else:
            await asyncio.sleep(0.001)  # the window is closed; no event tells of its opening


@asynccontextmanager
async def stand(protocol: str, folder: Path) -> AsyncIterator[Stand]:
    mesh = HandMadeMesh()
    leaf = mesh.leaf("client")
    certificate, key = leaf.write(folder, "client")
    async with Pages() as pages, HTTP2Backend(over_http2) as newer, running_worker() as worker:
        port = newer.port if protocol == "http2" else pages.port
        service = mesh.service("web", port, protocol=protocol, http=HTTPSettings())
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(service,))
        yield Stand(worker, mesh.client_context(leaf), certificate, key)
        assert not [record for record in worker.records if record.get("reason") == "internal"]


async def pieces(data: bytes, chance: random.Random) -> AsyncIterator[bytes]:
    while data:
        length = chance.choice((1, 100, 5_000, 70_000)) if len(data) < 100_000 else 70_000
        yield data[:length]
        data = data[length:]


@pytest.mark.parametrize("protocol", ["http", "http2"])
async def test_a_client_of_http1(protocol: str, tmp_path: Path) -> None:
    chance = random.Random(protocol)
    async with stand(protocol, tmp_path) as running, asyncio.timeout(_DEADLINE_S):
        origin = f"https://127.0.0.1:{running.worker.port}"
        connector = aiohttp.TCPConnector(limit=_TOGETHER)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def exchange(upload: bytes, download: int, *, chunked: bool) -> None:
                options: dict[str, Any] = {"ssl": running.context, "server_hostname": sni("web")}
                body = pieces(upload, chance) if chunked else upload
                async with session.post(f"{origin}/digest", data=body, **options) as answer:
                    assert await answer.text() == hashlib.sha256(upload).hexdigest()
                path = f"/bytes/{download}{'?chunked' if chunked else ''}"
                async with session.get(origin + path, **options) as answer:
                    assert await answer.read() == bytes(download)

            await asyncio.gather(
                *(
                    exchange(chance.randbytes(chance.choice(_SIZES)), chance.choice(_SIZES), chunked=bool(number % 2))
                    for number in range(_EACH)
                )
            )


@pytest.mark.parametrize("protocol", ["http", "http2"])
async def test_a_client_of_http2(protocol: str, tmp_path: Path) -> None:
    chance = random.Random(protocol)
    uploads, downloads = tmp_path / "uploads", tmp_path / "downloads"
    for folder in (uploads, downloads):
        folder.mkdir()
    async with stand(protocol, tmp_path) as running:
        common = ["--http2", "--insecure", "--cert", str(running.certificate), "--key", str(running.key)]
        common += ["--connect-to", f"::127.0.0.1:{running.worker.port}"]
        transfers = []
        for number in range(_EACH // 2):
            sent = uploads / str(number)
            sent.write_bytes(chance.randbytes(chance.choice(_SIZES)))
            answer = [*common, "--output", f"{sent}.digest", f"https://{sni('web')}/digest"]
            transfers.append(["--upload-file", str(sent), *answer])
            size = chance.choice(_SIZES)
            transfers.append(
                [*common, "--output", f"{downloads}/{number}-{size}", f"https://{sni('web')}/bytes/{size}"]
            )
        together = ["--parallel", "--parallel-max", str(_TOGETHER), "--silent", "--show-error", "--fail-early"]
        command = ["curl", *together, *(part for transfer in transfers for part in (*transfer, "--next"))][:-1]
        await run(command, deadline_s=_DEADLINE_S)
    for number in range(_EACH // 2):
        digest = hashlib.sha256((uploads / str(number)).read_bytes()).hexdigest()
        assert (uploads / f"{number}.digest").read_text() == digest
    for received in downloads.iterdir():
        assert received.read_bytes() == bytes(int(received.name.partition("-")[2]))
    assert len(list(downloads.iterdir())) == _EACH // 2
