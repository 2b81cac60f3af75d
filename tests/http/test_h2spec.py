"""h2spec, another project's test of HTTP/2 and HPACK implementations, against a worker.

It is of RFC 7540 and opens plain connections; a small server of this test adds mutual TLS to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plugin.dev import locate
from proxy.model import HTTPSettings
from proxy.rules import Action
from tests.support.eventually import eventually
from tests.support.mesh import HandMadeMesh, sni
from tests.support.pages import Pages
from tests.support.worker import running_worker

_DEADLINE_S = 120
_CASES = 140
"""There are more; with fewer, it has not run them all."""
_ELSE = {
    # The port speaks HTTP/1.1, too: what is no preface is answered as a bad request of it, and then ended.
    ("3.5. HTTP/2 Connection Preface", "Sends invalid connection preface"),
    # RFC 9113 section 5.3 has taken priorities out of the protocol: frames about them are ignored.
    ("5.3.1. Stream Dependencies", "Sends HEADERS frame that depend on itself"),
    ("5.3.1. Stream Dependencies", "Sends PRIORITY frame that depend on itself"),
}


@asynccontextmanager
async def without_tls(port: int, context: ssl.SSLContext, server_name: str) -> AsyncIterator[int]:
    """A port of loopback whose connections go on to ``port`` with TLS."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        further = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=server_name)
        open_ones.extend((writer, further[1]))
        await asyncio.gather(carry(reader, further[1]), carry(further[0], writer))
        ended.append(writer)

    open_ones: list[asyncio.StreamWriter] = []
    ended: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in open_ones:
            writer.close()
        await eventually(lambda: 2 * len(ended) == len(open_ones), what="all connections have ended")


async def test_another_projects_tests_pass(tmp_path: Path) -> None:
    mesh, report = HandMadeMesh(), tmp_path / "report.xml"
    async with Pages() as pages, running_worker() as worker:
        service = mesh.service("web", pages.port, protocol="http", http=HTTPSettings())
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(service,))
        context = mesh.client_context(mesh.leaf("client"))
        async with without_tls(worker.port, context, sni("web")) as port:
            command = [str(locate.h2spec()), "--strict", "--port", str(port), "--junit-report", str(report)]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            try:
                printed, _ = await asyncio.wait_for(process.communicate(), _DEADLINE_S)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    cases = [
        (suite.get("name", ""), case.get("classname", ""), case)
        for suite in ElementTree.parse(report).getroot().iter("testsuite")
        for case in suite.iter("testcase")
    ]
    failed = {
        (section, name)
        for section, name, case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    assert len(cases) >= _CASES, printed.decode()
    assert failed == _ELSE, printed.decode()[-3_000:]
