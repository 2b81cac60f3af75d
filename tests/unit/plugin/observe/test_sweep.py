"""Rounds of reads: everything that is due, a few at a time, what failed again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from plugin.consul.client import ConsulClient
from plugin.errors import ConsulUnavailable, GatewayError
from plugin.observe import sweep
from plugin.observe.sweep import Sweep
from proxy.model import ServiceName
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul

NAMES = [ServiceName(f"s{number}") for number in range(9)]


async def test_all_that_is_due_is_read_a_few_at_a_time_and_what_failed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "SWEEP_PAUSE_S", 0.02)
    reads: Counter[ServiceName] = Counter()
    running, most = 0, 0

    async def read(name: ServiceName) -> GatewayError | None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        reads[name] += 1
        if name == NAMES[0] and reads[name] == 1:
            rounds.again(name)
            return ConsulUnavailable("away for a moment")
        return None

    async with FakeConsul() as fake, ConsulClient(fake.settings) as client:
        rounds = Sweep(client, "tests", read, at_a_time=2)
        task = asyncio.get_running_loop().create_task(rounds.run())
        try:
            rounds.ask(NAMES)
            rounds.discard(NAMES[8])
            await eventually(lambda: reads[NAMES[0]] == 2)
            assert {name: reads[name] for name in NAMES} == dict.fromkeys(NAMES, 1) | {NAMES[0]: 2, NAMES[8]: 0}
            assert most == 2
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
