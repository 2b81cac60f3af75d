"""A Python server as an external service that tells what it sees: ``python -m tests.support.python_server PORT LOG``.

aiohttp with the parser that it has in Python: written by others than ours, in another language, from the same RFC.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from aiohttp import web

from plugin.dev.processes import Child, Launcher, can_connect, free_ports
from tests.support.seeing import Sight, SightLog

_ROOT = Path(__file__).parents[2]
_LONGEST = 128 * 1024
_STATUS = {"/not-modified": 304, "/no-content": 204}


class PythonServer(Launcher):
    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self._folder = tempfile.TemporaryDirectory(prefix="consul-tgw-python-")
        self._log = SightLog(Path(self._folder.name) / "seen.jsonl")
        self.child: Child | None = None

    async def start(self) -> None:
        self.child = Child(
            "the Python server",
            [sys.executable, "-m", "tests.support.python_server", str(self.port), str(self._log.path)],
            Path(self._folder.name) / "output.log",
            environment={**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"},
            folder=_ROOT,
        )
        await self.child.started(lambda: can_connect("127.0.0.1", self.port))

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.terminate()
            self.child = None
        self._folder.cleanup()

    def sights(self) -> list[Sight]:
        return self._log.sights()


async def _serve(port: int, log: Path) -> None:
    with log.open("a", buffering=1) as seen:

        def tell(request: web.BaseRequest, body: bytes) -> None:
            sight = {
                "method": request.method,
                "target": request.raw_path,
                "path": request.path,
                "host": ", ".join(request.headers.getall("Host", [])),
                "caller": ", ".join(request.headers.getall("X-Forwarded-Client-Cert", [])),
                "status": "200",
            }
            seen.write(json.dumps({**sight, "body": body.decode("latin-1"), "completed": "OK"}) + "\n")

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            if request.path == "/early":
                early = web.StreamResponse()
                await early.prepare(request)
                await early.write(b"early")
                tell(request, await request.read())
                await early.write_eof()
                return early
            tell(request, await request.read())
            status = _STATUS.get(request.path, 200)
            return web.Response(status=status, text="seen" if status == 200 else None)

        options: dict[str, Any] = {"max_line_size": _LONGEST, "max_field_size": _LONGEST, "access_log": None}
        runner = web.ServerRunner(web.Server(answer, **options))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
