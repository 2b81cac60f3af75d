from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from plugin import health
from plugin.gateway import Gateway
from plugin.health import Health
from plugin.process.life import Life
from plugin.workers.pool import Workers
from plugin.workers.published import Published
from proxy.model import Mesh


class Clock:
    now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(health, "time", clock)
    return clock


def made(**workers: Any) -> tuple[Health, Published, SimpleNamespace]:
    published = Published(1, Mesh("x.consul", "dc1", ()), {}, frozenset(), complete=True)
    rest = SimpleNamespace(ready=True, complaint="", addresses=tuple, **workers)
    gateway = SimpleNamespace(mesh_problems=("the roots are awaited",))
    return Health(cast(Workers, rest), published, cast(Gateway, gateway), Life()), published, rest


async def test_nothing_is_lacking_when_every_worker_is_up_to_date(clock: Clock) -> None:
    checked, _, _ = made()
    assert checked.shortcomings() == ()
    assert await checked.unwell() == ""


def test_what_is_lacking_first_is_named() -> None:
    checked, published, workers = made()
    workers.ready = False
    assert checked.shortcomings() == ("not every worker has state 1 in force",)
    workers.complaint = "worker 0 is not running: exited with code 3"
    assert checked.shortcomings() == ("worker 0 is not running: exited with code 3",)
    published.complete = False
    assert "still awaited" in checked.shortcomings()[0]
    published.mesh = None
    assert checked.shortcomings() == ("the roots are awaited",)


async def test_only_what_lasts_makes_it_unwell(clock: Clock) -> None:
    checked, _, workers = made()
    assert await checked.unwell() == ""
    workers.ready = False
    clock.now_s += health.GRACE_S
    assert await checked.unwell() == ""
    clock.now_s += 0.1
    assert await checked.unwell() == "not every worker has state 1 in force"
    workers.ready = True
    assert await checked.unwell() == ""


async def test_a_gateway_that_was_never_well_has_no_grace(clock: Clock) -> None:
    checked, _, workers = made()
    workers.ready = False
    assert await checked.unwell() != ""
