"""Background tasks that cannot be lost: the event loop keeps only weak references to its tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)
_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Run ``coroutine`` in the background; an error that nobody awaits is logged, never swallowed."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the task %s ended with an error", task.get_name(), exc_info=error)


async def finish_in_thread(work: Callable[[], T], then: Callable[[T], None]) -> None:
    """Run ``work`` in a thread, and ``then`` with what it returns, also when this is cancelled meanwhile.

    Nothing ends a thread: without this, whoever is cancelled goes on beside it, and does not know what it did.
    """
    running = spawn(asyncio.to_thread(work), name="in a thread")
    try:
        await asyncio.shield(running)
    finally:
        await asyncio.wait([running])
        then(running.result())
