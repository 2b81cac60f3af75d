"""The side of the generation that is being tried: gets ready, says so, and waits for the word.

At the word it leaves its workers to its successor; if the running generation changes its mind or dies, they end.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Protocol

import msgspec

from plugin.errors import ConfigError, GatewayError
from plugin.reload import program
from plugin.reload.messages import Briefing, Rehearsed
from plugin.reload.rehearsal import GO
from plugin.settings import GatewaySettings

_BRIEFING_TIMEOUT_S = 10.0


class Generation(Protocol):
    @property
    def restored(self) -> bool:
        """Its workers have the saved state in force."""
        ...

    async def get_ready(self, briefing: Briefing) -> tuple[int, ...]:
        """The workers that have the newest state. :raises GatewayError: when that cannot be or takes too long."""
        ...

    async def leave(self, *, workers_go_on: bool) -> None: ...


class Understudy:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, briefing: Briefing) -> None:
        self._reader = reader
        self._writer = writer
        self.briefing = briefing

    @classmethod
    async def called(cls, settings: GatewaySettings, environment: Mapping[str, str]) -> Understudy:
        """:raises ConfigError: when the settings are of another gateway."""
        connection, standard_error = map(int, environment[program.REHEARSAL].split(","))
        # What came before went to the running generation, which passes it on while it lives.
        os.dup2(standard_error, 2)
        os.close(standard_error)
        reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=connection))
        async with asyncio.timeout(_BRIEFING_TIMEOUT_S):
            briefing = msgspec.json.decode(await reader.readline(), type=Briefing)
        understudy = cls(reader, writer, briefing)
        if settings.id != briefing.service_id:
            error = ConfigError(
                f"{settings.id} is another gateway than {briefing.service_id}: a reload cannot change the service ID;"
                " start another gateway instead"
            )
            await understudy.say(Rehearsed(problem=str(error)))
            raise error
        return understudy

    async def play(self, generation: Generation) -> int:
        """Returns the exit code."""
        try:
            pids = await generation.get_ready(self.briefing)
        except GatewayError as error:
            await generation.leave(workers_go_on=False)
            await self.say(Rehearsed(problem=str(error)))
            return 1
        await self.say(Rehearsed(pids=pids, restored=generation.restored))
        word = await self._reader.readline()
        await generation.leave(workers_go_on=word == GO)
        return 0

    async def say(self, rehearsed: Rehearsed) -> None:
        self._writer.write(msgspec.json.encode(rehearsed) + b"\n")
        await self._writer.drain()
