"""Background tasks are neither lost nor silent."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

import pytest

from plugin.process import tasks


async def test_task_survives_without_a_reference() -> None:
    done = asyncio.Event()

    async def work() -> None:
        # Nothing but this frame and the task itself refers to the future that is awaited.
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, future.set_result, None)
        await future
        done.set()

    tasks.spawn(work(), name="forgotten")
    gc.collect()
    await asyncio.wait_for(done.wait(), 5)


async def test_error_that_nobody_awaits_is_logged_with_the_name(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise ValueError("broken")

    task = tasks.spawn(work(), name="the culprit")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the culprit" in record.getMessage()
    assert record.exc_info is not None


async def test_cancelled_task_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    task = tasks.spawn(asyncio.sleep(60), name="cancelled")
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not caplog.records
