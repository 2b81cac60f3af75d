"""The parts of the control process that run side by side, each a coroutine that never ends by itself.

Knows nothing of what they do. One that fails by a mistake of ours is reported once, through :attr:`Parts.failed`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from plugin.process.tasks import spawn

logger = logging.getLogger(__name__)

END_TIMEOUT_S = 5.0


class Parts:
    def __init__(self) -> None:
        self.failed = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def run(self, name: str, part: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = spawn(self._guard(name, part), name=name)

    async def end(self, *names: str) -> None:
        """End the parts of these names, or all; waits for them, though not for ever."""
        ending = [self._tasks.pop(name) for name in names or tuple(self._tasks) if name in self._tasks]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=END_TIMEOUT_S)

    async def _guard(self, name: str, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except Exception:
            logger.exception("%s failed by a mistake of this program; the workers go on without it", name)
            self.failed.set()


async def first(*awaited: asyncio.Event | asyncio.Task[None]) -> None:
    """Wait until an event is set or a task has ended."""
    waiting = [spawn(one.wait(), name="wait") if isinstance(one, asyncio.Event) else one for one in awaited]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one, task in zip(awaited, waiting, strict=True):
        if isinstance(one, asyncio.Event):
            task.cancel()
