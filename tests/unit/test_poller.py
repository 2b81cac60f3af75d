"""The IO around a watch: reports, recovery, and an end that abandons nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from plugin.consul.client import ConsulClient, decode
from plugin.consul.poller import Poller
from plugin.consul.watch import News
from plugin.errors import GatewayError
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul, body, status

PATH = "/v1/config/mesh"


class Polled:
    def __init__(self, client: ConsulClient) -> None:
        self.values: list[list[str] | None] = []
        self.problems: list[GatewayError] = []
        self.poller: Poller[list[str]] = Poller(
            client,
            "mesh",
            PATH,
            decode=lambda reply: decode(reply, list[str], PATH),
            learned=self._learned,
            failed=self.problems.append,
        )
        self.task = asyncio.get_running_loop().create_task(self.poller.run())

    def _learned(self, news: News[list[str]]) -> None:
        self.values.append(news.value)


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        consul.values[PATH] = ["a"]
        yield consul


@contextlib.asynccontextmanager
async def polling(fake: FakeConsul) -> AsyncIterator[Polled]:
    async with ConsulClient(fake.settings) as client:
        polled = Polled(client)
        try:
            yield polled
        finally:
            polled.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await polled.task


async def test_changes_arrive_one_by_one(fake: FakeConsul) -> None:
    async with polling(fake) as polled:
        await eventually(lambda: polled.values == [["a"]])
        await eventually(lambda: "index" in fake.requests[-1].query)
        await fake.put(PATH, ["a", "b"])
        await eventually(lambda: polled.values == [["a"], ["a", "b"]])
        state = polled.poller.state()
        assert (state.name, state.index, state.problem) == ("mesh", 11, "")


async def test_repeated_problem_is_logged_once_and_its_end_too(
    fake: FakeConsul, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "plugin")
    fake.fail(PATH, status(500, "No cluster leader"), status(500, "No cluster leader"), body(b"{", 11))
    async with polling(fake) as polled:
        await eventually(lambda: polled.values == [["a"]])
        assert len(polled.problems) == 3
        ours = [record for record in caplog.records if record.name == "plugin.consul.poller"]
        assert [record.levelname for record in ours] == ["WARNING", "WARNING", "INFO"]
        assert "No cluster leader" in ours[0].getMessage()


async def test_stop_says_nothing_more_and_lets_the_poll_end(fake: FakeConsul) -> None:
    async with polling(fake) as polled:
        await eventually(lambda: polled.values and "index" in fake.requests[-1].query and fake.open == 1)
        polled.poller.stop()
        await asyncio.sleep(0.05)
        assert fake.open == 1, "the poll was abandoned"
        await fake.put(PATH, ["b"])
        await asyncio.wait_for(polled.task, 10)
        assert polled.values == [["a"]]


async def test_stop_ends_a_pause(fake: FakeConsul) -> None:
    fake.values.clear()
    fake.fail(PATH, status(403, "Permission denied"))
    async with polling(fake) as polled:
        await eventually(lambda: polled.problems)
        polled.poller.stop()
        await asyncio.wait_for(polled.task, 5)
