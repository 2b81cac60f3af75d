"""How long a change takes until a client of the mesh sees its effect: one service, tried again and again."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.generator import Identity
from plugin.errors import StartError

_TRY_EACH_S = 0.002
_ANSWER_S = 5.0
EFFECT_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A client that asks for one service of a gateway, as ``identity``."""

    host: str
    port: int
    server_name: str
    identity: Identity

    async def is_let_in(self) -> bool:
        """One connection with a byte there and back: a refusal shows with the first read at the latest."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Who the gateway is was checked elsewhere; here only time counts.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(self.identity.certificate, self.identity.key)
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_connection(
                    self.host, self.port, ssl=context, server_hostname=self.server_name
                )
                writer.write(b"*")
                return await reader.read(1) == b"*"
        except (OSError, TimeoutError):
            return False
        finally:
            if writer is not None:
                writer.transport.abort()

    async def until(self, let_in: bool, deadline_s: float = EFFECT_DEADLINE_S) -> None:
        """Return when it is so. :raises StartError: when that takes longer than ``deadline_s``."""
        began_s = time.perf_counter()
        while await self.is_let_in() is not let_in:
            if time.perf_counter() - began_s > deadline_s:
                state = "let in" if let_in else "refused"
                raise StartError(f"a client of {self.server_name} was not {state} within {deadline_s:.0f} s")
            await asyncio.sleep(_TRY_EACH_S)

    async def follow(self, write: Callable[[bool], Awaitable[None]], *, samples: int, at_most_s: float) -> list[float]:
        """Deny and allow in turns; milliseconds from just before each write until its effect. Fewer than ``samples``
        when the time is over; at least one."""
        taken: list[float] = []
        began_s = time.monotonic()
        allowed = True
        while len(taken) < samples and (not taken or time.monotonic() - began_s < at_most_s):
            allowed = not allowed
            written_s = time.perf_counter()
            await write(allowed)
            with contextlib.suppress(StartError):
                await self.until(allowed)
            taken.append((time.perf_counter() - written_s) * 1000)
            await asyncio.sleep(0.05)
        if not allowed:
            await write(True)
            await self.until(True)
        return taken


def quantile(values: Sequence[float], part: float) -> float:
    """The value at or above ``part`` of them all; the greatest one for a part near 1 of few."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


async def identity(api: Callable[..., Awaitable[dict[str, str]]], folder: Path, name: str) -> Identity:
    """A leaf of Consul's CA for a client, in files."""
    leaf = await api("GET", f"/v1/agent/connect/ca/leaf/{name}")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_text(leaf["CertPEM"])
    key.write_text(leaf["PrivateKeyPEM"])
    key.chmod(0o600)
    return Identity(certificate=certificate, key=key)
