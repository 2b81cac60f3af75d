from __future__ import annotations

import asyncio

import pytest

from plugin.admin import doorkeeper
from plugin.admin.doorkeeper import Doorkeeper
from tests.support.eventually import eventually


class Line(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture(autouse=True)
def few_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorkeeper, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(doorkeeper, "REQUEST_WITHIN_S", 60.0)
    monkeypatch.setattr(doorkeeper, "ANSWER_WITHIN_S", 60.0)


async def test_the_one_that_waits_longest_makes_room() -> None:
    keeper = Doorkeeper(asyncio.get_running_loop())
    served, slow, slower, newest = (Line() for _ in range(4))
    keeper.opened(served)
    keeper.request_came(served)
    keeper.opened(slow)
    keeper.opened(slower)
    assert (served.aborted, slow.aborted, slower.aborted) == (False, True, False)
    keeper.request_came(slower)
    keeper.opened(newest)
    assert (served.aborted, slower.aborted, newest.aborted) == (False, False, True)
    keeper.closed(served)
    later = Line()
    keeper.opened(later)
    assert not later.aborted


@pytest.mark.parametrize("asked", [False, True])
async def test_nobody_stays(monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    monkeypatch.setattr(doorkeeper, "ANSWER_WITHIN_S" if asked else "REQUEST_WITHIN_S", 0.01)
    keeper = Doorkeeper(asyncio.get_running_loop())
    line = Line()
    keeper.opened(line)
    if asked:
        keeper.request_came(line)
    await eventually(lambda: line.aborted)
