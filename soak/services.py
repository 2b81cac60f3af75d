"""The external services of a soak: they check what they receive, and say how far each connection got."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from plugin.dev.external import load_key_pair
from plugin.dev.pki import KeyPair
from plugin.dev.processes import Launcher
from plugin.process.tasks import spawn
from soak.pump import Last, Progress, Side, Wrong
from soak.streams import Broken, Stream


class PumpService(Launcher):
    """Serves rounds of :mod:`soak.pump` on loopback, at as many ports as wanted."""

    def __init__(self, verified: Callable[[int], None], wrong: Callable[[str], None], *, ports: int = 1) -> None:
        self.progress: dict[int, Progress] = {}
        """Of every connection that has announced itself, by its number."""
        self.ports: list[int] = []
        self.context: ssl.SSLContext | None = None
        """For connections that come from now on; ``None`` is plain TCP."""
        self._verified = verified
        self._wrong = wrong
        self._count = ports
        self._listening: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for _ in range(self._count):
            listening = socket.create_server(("127.0.0.1", 0), backlog=512)
            listening.setblocking(False)
            self._listening.append(listening)
            self.ports.append(listening.getsockname()[1])
            self._keep(spawn(self._accept(listening), name="accept pumps"))

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listening in self._listening:
            listening.close()

    def secure(self, pair: KeyPair, client_ca_pem: str) -> None:
        """Speak TLS from the next connection on, and ask for a certificate of that CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_key_pair(context, pair)
        context.load_verify_locations(cadata=client_ca_pem)
        context.verify_mode = ssl.CERT_REQUIRED
        self.context = context

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
            self._keep(spawn(self._serve(accepted), name="serve a pump"))

    async def _serve(self, accepted: socket.socket) -> None:
        try:
            stream = await Stream.accepted(accepted, self.context)
        except (Broken, TimeoutError):
            return  # whether that was right is judged at the client
        progress = Progress()
        side = Side(stream, progress, self._verified)
        try:
            last = Last.NO
            while last is Last.NO:
                one = await side.header()
                last = one.last
                self.progress[one.pump] = progress
                await side.send_round(one, from_client=False)
        except Wrong as error:
            self._wrong(f"at the external service: {error}")
        except (Broken, TimeoutError):
            pass
        finally:
            stream.close()
