"""What the demonstration does on its stage: real requests through sidecar, gateway and external service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from plugin.dev.gateway import Gateway
from plugin.dev.processes import wait_until
from plugin.dev.stage import Stage
from plugin.errors import StartError
from plugin.process import tasks

_REQUEST_TIMEOUT_S = 15.0
_RECORD_DEADLINE_S = 15.0
_END_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request and what came of it."""

    source: str
    destination: str
    expected: bool
    """Whether it should get through."""
    answered: bool
    text: str
    """The answer, or how it failed."""
    elapsed_ms: float

    @property
    def as_expected(self) -> bool:
        return self.expected == self.answered


async def ask_http(stage: Stage, source: str, service: str, path: str = "/orders", *, expected: bool) -> Outcome:
    """``GET`` through the sidecar of ``source``. An HTTP service says no with a status, a TCP one with an end."""
    ports = stage.web_ports if source == "web" else stage.batch_ports

    async def request() -> str:
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://127.0.0.1:{ports[service]}{path}") as answer,
        ):
            text = (await answer.text()).strip()
            if not answer.ok:
                raise StartError(f"GET {path}: {answer.status} {answer.reason}: {text}")
            return text

    return await _attempt(source, service, expected, request)


async def ask_database(stage: Stage, source: str, *, expected: bool) -> Outcome:
    """A query with psql through the sidecar of ``source``."""
    ports = stage.web_ports if source == "web" else stage.batch_ports

    async def request() -> str:
        sql = "select 'PostgreSQL ' || current_setting('server_version') || ': ' || count(*) || ' tables'"
        return await stage.postgres.psql(f"{sql} from pg_tables", port=ports["billing-db"])

    return await _attempt(source, "billing-db", expected, request)


async def _attempt(source: str, destination: str, expected: bool, request: Callable[[], Awaitable[str]]) -> Outcome:
    began = time.monotonic()
    try:
        text, answered = await request(), True
    except (aiohttp.ClientError, StartError, TimeoutError) as error:
        text, answered = (str(error).strip().splitlines() or [type(error).__name__])[-1], False
    elapsed_ms = (time.monotonic() - began) * 1_000
    return Outcome(
        source=source,
        destination=destination,
        expected=expected,
        answered=answered,
        text=text,
        elapsed_ms=elapsed_ms,
    )


async def everybody_asks(stage: Stage) -> list[Outcome]:
    """One round: what is allowed gets through, what is denied does not."""
    return [
        await ask_http(stage, "web", "legacy-http", expected=True),
        await ask_http(stage, "web", "partner-api", expected=True),
        await ask_database(stage, "web", expected=True),
        await ask_database(stage, "batch", expected=False),
        await ask_http(stage, "web", "legacy-http", "/admin", expected=False),
        await ask_http(stage, "batch", "legacy-http", expected=False),
    ]


class LiveSession:
    """A connection to the database that stays open, through ``web``'s sidecar and the gateway."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None

    async def open(self) -> None:
        """Connect, and log in as far as PostgreSQL's first answer. :raises StartError: when there is none."""
        port = self._stage.web_ports["billing-db"]
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
                self._writer.write(_startup_message(self._stage.postgres.user))
                if not await self._reader.read(1):
                    raise StartError("the gateway or the database closed the session")
        except (OSError, TimeoutError) as error:
            raise StartError(f"no session with the database: {error}") from error

    async def ended(self, deadline_s: float) -> float:
        """When the session was ended from the other side, monotonic seconds. :raises StartError: when it is not."""
        assert self._reader is not None
        try:
            async with asyncio.timeout(deadline_s):
                with contextlib.suppress(ConnectionError):
                    while await self._reader.read(65_536):
                        pass
        except TimeoutError:
            raise StartError(f"the live session was still open after {deadline_s:g} s") from None
        return time.monotonic()

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()


def _startup_message(user: str) -> bytes:
    """PostgreSQL's first message (protocol 3.0): who logs in to which database."""
    body = b"\x00\x03\x00\x00" + b"user\x00" + user.encode() + b"\x00database\x00postgres\x00\x00"
    return (len(body) + 4).to_bytes(4, "big") + body


async def flip(stage: Stage) -> float:
    """Deny ``web`` the database while it has a session there, and allow it again.

    :returns: milliseconds from sending the change to Consul to the end of the live session.
    :raises StartError: when the session was not ended.
    """
    session = LiveSession(stage)
    await session.open()
    original = await stage.agent.api("GET", "/v1/config/service-intentions/billing-db")
    try:
        began = time.monotonic()
        ended = tasks.spawn(session.ended(_END_DEADLINE_S), name="live session")
        await stage.agent.write_config(_with_action(original, "web", "deny"))
        return (await ended - began) * 1_000
    finally:
        await stage.agent.write_config(_with_action(original, "web", "allow"))
        await session.close()


def _with_action(entry: dict[str, Any], source: str, action: str) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(entry))
    for key in ("CreateIndex", "ModifyIndex", "Hash"):
        changed.pop(key, None)
    for item in changed["Sources"]:
        if item["Name"] == source:
            item["Action"] = action
    return changed


async def records_of_round(gateway: Gateway, count: int) -> list[dict[str, Any]]:
    """The access log's newest lines once there are at least ``count``."""

    def enough() -> bool:
        return len(connection_records(gateway)) >= count

    await wait_until(enough, _RECORD_DEADLINE_S, what="the access log has every connection and request")
    return connection_records(gateway)


def connection_records(gateway: Gateway) -> list[dict[str, Any]]:
    """Connections, and of HTTP services requests."""
    events = ("connection", "request")
    return [record for record in gateway.access_records() if record.get("event", "connection") in events]
