"""Who is let in, when, and what the gateway knows of the caller."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from lab.actors import APPLICATION, DATABASE, HTTP, Actors, Gateway
from lab.live import live_query
from lab.namespaces import plain_environment, together
from lab.proofs.proof import holds
from lab.topology import LEGACY
from plugin.dev.processes import dies_with_us, wait_until
from plugin.errors import StartError

LIVE_ENDS_WITHIN_S = 5.0
"""From the moment that Consul is told, over several processes of a machine that is busy."""


async def refused_without_an_intention(actors: Actors) -> str:
    for service in (DATABASE, HTTP):
        try:
            await actors.forget(service)
        except StartError as error:
            holds("404" in str(error) or "not found" in str(error).lower(), str(error))
        await actors.until_refused(service)
    identity = await actors.identity(APPLICATION)

    async def written_down() -> bool:
        denied = {(one.get("service"), one.get("source")) for one in await _denials(actors)}
        return {(DATABASE, identity), (HTTP, identity)} <= denied

    await wait_until(written_down, 20.0, what=f"gateways have written down that {identity} was denied both services")
    return f"the gateways have denied {identity}, and written it down"


async def _denials(actors: Actors) -> list[dict[str, Any]]:
    logs = await together(*(gateway.records("audit") for gateway in actors.gateways))
    return [one for log in logs for one in log if one["event"] in ("connection.denied", "request.denied")]


async def works_with_an_intention(actors: Actors) -> str:
    since = time.monotonic()
    for service in (DATABASE, HTTP):
        await actors.allow(service)
    for service in (DATABASE, HTTP):
        await actors.until_reached(service)
    took_s = time.monotonic() - since
    rows = await actors.application.sql("select customer from invoices order by number")
    holds(rows == "Ada\nGrace", f"the database has answered {rows!r}")
    page = await actors.application.http("/hello")
    addresses = [_legacy_address(actors, gateway) for gateway in actors.gateways]
    holds("asked for /hello by " in page, f"the HTTP service has answered {page!r}")
    holds(any(f"by {address} " in page for address in addresses), f"not asked by a gateway of {addresses}: {page!r}")
    return f"rows of PostgreSQL and a page, {took_s:.1f} s after the intentions were written"


def _legacy_address(actors: Actors, gateway: Gateway) -> str:
    return actors.running.topology.hosts[gateway.host.name].addresses[LEGACY]


async def a_live_connection_ends_on_deny(actors: Actors) -> str:
    """That of the service that is denied, and no other."""
    async with live_query(actors) as live, _waiting_request(actors) as other:
        since = time.monotonic()
        await actors.deny(DATABASE)
        await asyncio.wait({live.query}, timeout=LIVE_ENDS_WITHIN_S)
        took_s = time.monotonic() - since
        holds(live.query.done(), f"the connection has not ended within {LIVE_ENDS_WITHIN_S:.0f} s after it was denied")
        holds(not await actors.application.reaches(DATABASE), "a new connection is let in after the deny")
        page = await other.answer()
        holds("asked for /waited by " in page, f"the connection to the service that is allowed was touched: {page!r}")

    async def written_down() -> bool:
        records = await live.gateway.records("access")
        return any(one.get("reason") == "revoked" and one.get("service") == DATABASE for one in records)

    await wait_until(written_down, 10.0, what=f"{live.gateway.host.name} has logged the end as revoked", every_s=0.2)
    await actors.allow(DATABASE)
    await actors.until_reached(DATABASE)
    return f"ended {took_s:.1f} s after the deny, as revoked; the one to {HTTP} went on"


class _WaitingRequest:
    """A connection to the HTTP service that was opened, and is not used before :meth:`answer`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> str:
        """What comes for a request that is sent only now; empty when the connection has ended."""
        async with asyncio.timeout(30.0):
            output, _ = await self._process.communicate(b"go\n")
        return output.decode()


@contextlib.asynccontextmanager
async def _waiting_request(actors: Actors) -> AsyncIterator[_WaitingRequest]:
    script = r"""
        exec 3<>/dev/tcp/127.0.0.1/8080
        printf 'GET /opened HTTP/1.1\r\nHost: legacy-http\r\n\r\n' >&3
        while read -r line <&3; do [[ $line == legacy-http* ]] && break; done
        echo opened
        read -r go
        printf 'GET /waited HTTP/1.1\r\nHost: legacy-http\r\nConnection: close\r\n\r\n' >&3
        cat <&3
    """
    process = await asyncio.create_subprocess_exec(
        *dies_with_us(actors.application.host.command("bash", "-c", script)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=plain_environment(),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30.0):
            said = await process.stdout.readline()
        holds(said == b"opened\n", f"the HTTP service is not reached: {said!r}")
        yield _WaitingRequest(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
