"""A session that talks: a query every so often on one connection from web to the database, and when answers came."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator

from lab.actors import Actors
from lab.namespaces import plain_environment
from lab.proofs.proof import Disproved, holds
from plugin.dev.processes import dies_with_us, wait_until
from plugin.errors import StartError

EVERY_S = 0.1
_BEGINS_WITHIN_S = 30.0


class Talk:
    """Listens to one session, until it ends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.answers: list[float] = []
        """When each has come, by :func:`time.monotonic`."""
        self.client = ""
        """Where it comes from, as PostgreSQL's server sees it: the gateway that carries it."""
        self.ended = False

    async def listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.strip():
                self.answers.append(time.monotonic())
                self.client = line.decode().strip()
        self.ended = True

    async def first(self) -> None:
        """:raises Disproved: when the session is not let in."""
        with contextlib.suppress(StartError):
            await wait_until(lambda: self.answers or self.ended, _BEGINS_WITHIN_S, what="a session begins")
        holds(self.answers, "a session with the database has not begun")

    def longest_silence_s(self, since: float) -> float:
        """Between answers, from ``since`` until now."""
        times = [since, *(at for at in self.answers if at > since), time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    async def heard_after(self, moment: float, deadline_s: float) -> float:
        """Seconds from ``moment`` to the next answer. :raises Disproved: when none comes in time, or it has ended."""
        give_up_at = time.monotonic() + deadline_s
        while time.monotonic() < give_up_at and not self.ended:
            for at in self.answers:
                if at > moment:
                    return at - moment
            await asyncio.sleep(EVERY_S)
        what = "has ended" if self.ended else f"has been silent for {deadline_s:.0f} s"
        raise Disproved(f"an open session {what}")

    async def until_ended(self, deadline_s: float) -> None:
        """:raises Disproved: when it goes on."""
        give_up_at = time.monotonic() + deadline_s
        while not self.ended:
            holds(time.monotonic() < give_up_at, f"the session has not ended within {deadline_s:.0f} s")
            await asyncio.sleep(EVERY_S / 4)


@contextlib.asynccontextmanager
async def talking(actors: Actors) -> AsyncIterator[Talk]:
    """:raises Disproved: when the session does not begin."""
    command = ("psql", "--no-psqlrc", "-qtA", "-h", "127.0.0.1", "-U", "app", "-d", "postgres")
    process = await asyncio.create_subprocess_exec(
        *dies_with_us(actors.application.host.command(*command)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=plain_environment() | {"PGCONNECT_TIMEOUT": "10", "PGSSLMODE": "disable"},
    )
    assert process.stdin is not None
    process.stdin.write(f"select inet_client_addr() \\watch {EVERY_S}\n".encode())
    talk = Talk(process)
    listening = asyncio.get_running_loop().create_task(talk.listen())
    try:
        await talk.first()
        yield talk
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        listening.cancel()
        await asyncio.wait({listening})
