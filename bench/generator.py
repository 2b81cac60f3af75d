"""Builds and drives ``loadgen``, the client and the external service of all measurements."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from plugin.dev.processes import dies_with_us, run
from plugin.errors import StartError
from scripts.build_consul import find_go

_SOURCE = Path(__file__).resolve().parent / "loadgen"
_BUILD_DEADLINE_S = 300.0
_ANSWER_DEADLINE_S = 60.0


class Negotiated(msgspec.Struct, frozen=True):
    """The TLS parameters that client and gateway agreed on."""

    version: str
    cipher: str
    group: str
    chain: int
    """Certificates that the gateway sends."""

    def __str__(self) -> str:
        certificates = "one certificate" if self.chain == 1 else f"{self.chain} certificates"
        return f"{self.version}, {self.cipher}, {self.group}, {certificates}"


class LoadResult(msgspec.Struct, frozen=True):
    """What a workload saw."""

    tls: Negotiated
    seconds: float = 0.0
    operations: int = 0
    bytes: int = 0
    errors: int = 0
    first_error: str = ""
    resumed: int = 0
    """Of new connections, those that went on with the session of another."""
    p50_us: float = 0.0
    p99_us: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client service's leaf in files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Secure:
    """What the mutual TLS of a workload needs."""

    services: Sequence[tuple[str, str]]
    """Server name and SPIFFE ID of each; connections take turns."""
    roots: Path
    client: Identity
    tls_max: str = "1.3"

    def flags(self) -> list[str]:
        names = [flag for name, uri in self.services for flag in (f"-server-name={name}", f"-spiffe-id={uri}")]
        return [
            *names,
            f"-roots={self.roots}",
            f"-certificate={self.client.certificate}",
            f"-key={self.client.key}",
            f"-tls-max={self.tls_max}",
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Where a workload connects to, and as whom."""

    address: str
    secure: Secure | None
    """``None``: to a sidecar, which speaks TLS itself."""

    def flags(self) -> list[str]:
        return [f"-address={self.address}", *(self.secure.flags() if self.secure else ["-plain"])]


class Session:
    """A command that goes on until it is released, and prints events meanwhile."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def event(self, deadline_s: float = _ANSWER_DEADLINE_S) -> dict[str, Any]:
        """The next line. :raises TimeoutError: without one in time. :raises StartError: when the command ended."""
        assert self._process.stdout is not None
        async with asyncio.timeout(deadline_s):
            line = await self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            said = (await self._process.stderr.read()).decode(errors="replace").strip()
            raise StartError(f"the load generator ended early: {said or 'without a word'}")
        event: dict[str, Any] = json.loads(line)
        return event

    def begin(self) -> None:
        """Answer to ``ready``: now all clocks have been read."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def release(self) -> None:
        """Ask it to finish; its last lines are still to be read."""
        assert self._process.stdin is not None
        self._process.stdin.close()


class Generator:
    """The compiled generator, kept on its own processors."""

    def __init__(self, program: Path, processors: frozenset[int]) -> None:
        self._program = program
        self._processors = processors

    @classmethod
    async def build(cls, folder: Path, processors: frozenset[int]) -> Generator:
        """:raises StartError: with the compiler's words, when it cannot be built."""
        go = await asyncio.to_thread(find_go)
        program = folder / "loadgen"
        environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
        await run(
            [go, "build", "-trimpath", "-o", str(program), "."],
            environment=environment,
            folder=_SOURCE,
            deadline_s=_BUILD_DEADLINE_S,
        )
        return cls(program, processors)

    async def load(
        self,
        workload: str,
        aim: Aim,
        *,
        duration_s: float,
        connections: int = 1,
        flags: Sequence[str] = (),
        clock: Callable[[], float] = lambda: 0.0,
    ) -> tuple[LoadResult, float]:
        """Run a workload to its end: what it saw, and by how much ``clock`` went on, from when all connections were
        there until the end, when they still are.

        :raises StartError: when it cannot run, or a connection failed.
        """
        chosen = (f"-duration={int(duration_s * 1000)}ms", f"-connections={connections}", *flags)
        async with self.session(workload, *aim.flags(), *chosen) as session:
            try:
                await session.event()
                before = clock()
                session.begin()
                event = await session.event(duration_s + _ANSWER_DEADLINE_S)
                used = clock() - before
            except TimeoutError as error:
                raise StartError(f"{workload} to {aim.address} has not ended in time") from error
        result = msgspec.convert(event, LoadResult)
        if result.errors:
            raise StartError(
                f"{workload} to {aim.address}: {result.errors} failed, the first with {result.first_error}"
            )
        return result, used

    @contextlib.asynccontextmanager
    async def session(self, command: str, *flags: str) -> AsyncIterator[Session]:
        """Run a command that ends when it is released; here, at the latest."""
        process = await asyncio.create_subprocess_exec(
            *dies_with_us(self._command(command, *flags)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        session = Session(process)
        try:
            yield session
        finally:
            session.release()
            await _ended(process)

    @contextlib.asynccontextmanager
    async def external_services(self) -> AsyncIterator[dict[str, int]]:
        """The loopback port of each external service, by behaviour."""
        async with self.session("serve") as session:
            yield await session.event()

    def _command(self, *arguments: str) -> list[str]:
        # Placed before it starts: Go decides by the processors it sees then how many threads run at once.
        processors = ",".join(map(str, sorted(self._processors)))
        return ["taskset", "--cpu-list", processors, str(self._program), *arguments]


async def _ended(process: asyncio.subprocess.Process, deadline_s: float = 15.0) -> None:
    try:
        async with asyncio.timeout(deadline_s):
            # Drains what is left to say, so that nobody waits for a full pipe.
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
