"""Waiting for what must become true, with one factor for slow machines."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

SCALE = float(os.environ.get("CONSUL_TGW_TEST_SCALE", "1"))
"""Every deadline of a test is multiplied by it."""

_POLL_S = 0.02


async def eventually(predicate: Callable[[], Any | Awaitable[Any]], timeout_s: float = 30.0, *, what: str = "") -> Any:
    """Ask ``predicate``, plain or async, until it answers something true, and return that.

    A failed ``assert`` in it counts as not yet. ``timeout_s`` seconds are scaled by ``CONSUL_TGW_TEST_SCALE``.

    :raises AssertionError: when it does not become true in time: with ``what``, the last answer and the last failure.
    """
    deadline_s = timeout_s * SCALE
    give_up_at = time.monotonic() + deadline_s
    while True:
        answer: object = None
        failure: AssertionError | None = None
        try:
            answer = predicate()
            if inspect.isawaitable(answer):
                answer = await answer
        except AssertionError as error:
            failure = error
        if failure is None and answer:
            return answer
        if time.monotonic() >= give_up_at:
            last = f"last failure: {failure}" if failure is not None else f"last answer: {answer!r}"
            raise AssertionError(f"not within {deadline_s:.0f} s: {what or predicate}; {last}") from failure
        await asyncio.sleep(_POLL_S)
