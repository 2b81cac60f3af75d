"""Runs the ``console`` blocks of a page of the documentation as a reader types them.

A line that starts with ``$`` is a command, lines with ``>`` continue it, and the others are what is seen: each must be
part of a line that the command prints, in this order; ``...`` stands for any lines. What was written to Consul takes
effect a moment later, so that a command is repeated until it shows what the page says.

A command whose comment is ``in a terminal of its own`` goes on beside those after it. One whose last line is ``^C`` is
ended by Ctrl-C once it has printed what is shown. A block below ``<!-- not run: WHY -->`` is not run.
"""

from __future__ import annotations

import asyncio
import codecs
import functools
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from plugin.dev.processes import dies_with_us
from tests.support.eventually import eventually

_BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>.+?) -->\n+)?^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_OWN_TERMINAL = "# in a terminal of its own"
_CTRL_C = "^C"
_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Command:
    text: str
    """For a shell."""
    shown: tuple[str, ...]

    @property
    def goes_on(self) -> bool:
        return self.text.endswith(_OWN_TERMINAL)

    @property
    def interrupted(self) -> bool:
        return self.shown[-1:] == (_CTRL_C,)


def not_run(page: str) -> list[tuple[str, str]]:
    """The blocks of a page that are not run, each with the reason."""
    return [(block["text"], block["why"]) for block in _BLOCK.finditer(page) if block["why"]]


def commands(page: str) -> Iterator[Command]:
    """All of a page that are run, in their order."""
    for block in _BLOCK.finditer(page):
        if block["why"]:
            continue
        text: list[str] = []
        shown: list[str] = []
        for line in block["text"].splitlines():
            if line.startswith("$ "):
                if text:
                    yield Command("\n".join(text), tuple(shown))
                text, shown = [line[2:]], []
            elif line.startswith("> "):
                assert text, f"nothing to continue: {line}"
                text.append(line[2:])
            else:
                assert text, f"no command has printed this: {line}"
                shown.append(line)
        if text:
            yield Command("\n".join(text), tuple(shown))


def shows(output: str, wanted: Sequence[str]) -> bool:
    """Whether each of ``wanted`` is part of a line of ``output``, in this order."""
    lines = iter(output.splitlines())
    parts = (one.strip() for one in wanted)
    return all(any(part in line for line in lines) for part in parts if part and part != "...")


class Terminals:
    """Those of one reader: commands that go on run beside the others until :meth:`close`."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        """``folder`` is the working directory."""
        self.environment = environment
        self.folder = folder
        self._own: list[_Shell] = []

    async def run(self, found: Sequence[Command]) -> None:
        """:raises AssertionError: with what a command printed instead of what is shown."""
        for command in found:
            if command.goes_on:
                await self._begin(command)
            elif command.interrupted:
                await self._interrupt(command)
            else:
                await eventually(functools.partial(self._as_written, command), _DEADLINE_S, what=command.text)

    async def _as_written(self, command: Command) -> bool:
        shell = await _Shell.start(command.text, self.environment, self.folder)
        code = await shell.ended()
        assert shows(shell.output, command.shown), f"{command.text}\nprinted ({code}): {shell.output}"
        assert code == 0 or command.shown, f"{command.text}\nended with {code}: {shell.output}"
        return True

    async def _begin(self, command: Command) -> None:
        shell = await _Shell.start(command.text, self.environment, self.folder)
        self._own.append(shell)
        await shell.shows(command.shown)

    async def _interrupt(self, command: Command) -> None:
        shell = await _Shell.start(command.text, self.environment, self.folder)
        try:
            await shell.shows(command.shown[:-1])
        finally:
            shell.interrupt()
            code = await shell.ended()
        assert code in (0, 130), f"{command.text}\nended with {code}: {shell.output}"

    async def close(self) -> None:
        """Ctrl-C in each of them, the last one first, and once more when it has said something to that."""
        while self._own:
            await self._own.pop().leave()


class _Shell:
    """One command, and what it has printed on either stream."""

    def __init__(self, text: str, process: asyncio.subprocess.Process) -> None:
        self.output = ""
        self._text = text
        self._process = process
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def start(cls, text: str, environment: Mapping[str, str], folder: Path) -> Self:
        process = await asyncio.create_subprocess_exec(
            *dies_with_us(["bash", "-o", "pipefail", "-c", text]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        return cls(text, process)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while part := await self._process.stdout.read(65536):
            self.output += decoder.decode(part)

    async def shows(self, wanted: Sequence[str]) -> None:
        """Wait until it has printed that, and something at all."""

        def seen() -> bool:
            assert shows(self.output, wanted), f"{self._text}\nprinted: {self.output}"
            return bool(self.output)

        await eventually(seen, _DEADLINE_S, what=self._text)

    def interrupt(self) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGINT)

    async def leave(self) -> None:
        heard = len(self.output)
        self.interrupt()
        await eventually(lambda: self._reading.done() or len(self.output) > heard, _DEADLINE_S, what=self._text)
        self.interrupt()
        await self.ended()

    async def ended(self) -> int:
        """Its exit code. :raises TimeoutError: when it does not end; it is killed then."""
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await self._process.wait()
                await self._reading
        finally:
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
        assert self._process.returncode is not None
        return self._process.returncode


async def run_commands(found: Sequence[Command], environment: Mapping[str, str], folder: Path) -> None:
    """Run them in ``folder``. :raises AssertionError: with what a command printed instead."""
    terminals = Terminals(environment, folder)
    try:
        await terminals.run(found)
    finally:
        await terminals.close()
