"""Runs the ``console`` blocks of a page of the documentation as a reader types them.

A line that starts with ``$`` is a command, lines with ``>`` continue it, and the others are what is seen: each must be
part of a line that the command prints, in this order; ``...`` stands for any lines. What was written to Consul takes
effect a moment later, so that a command is repeated until it shows what the page says.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.eventually import eventually

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Command:
    text: str
    """For a shell."""
    shown: tuple[str, ...]


def commands(page: str) -> Iterator[Command]:
    """All of a page, in their order."""
    for block in _BLOCK.finditer(page):
        text: list[str] = []
        shown: list[str] = []
        for line in block.group(1).splitlines():
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


async def run_commands(found: Sequence[Command], environment: Mapping[str, str], folder: Path) -> None:
    """Run them in ``folder``. :raises AssertionError: with what a command printed instead."""
    for command in found:

        async def as_written(command: Command = command) -> bool:
            code, output = await _bash(command.text, environment, folder)
            assert shows(output, command.shown), f"{command.text}\nprinted ({code}): {output}"
            assert code == 0 or command.shown, f"{command.text}\nended with {code}: {output}"
            return True

        await eventually(as_written, _DEADLINE_S, what=f"{command.text}")


async def _bash(text: str, environment: Mapping[str, str], folder: Path) -> tuple[int, str]:
    """Exit code and everything that was printed."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", text),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(environment),
        cwd=folder,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_DEADLINE_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()
