"""The judge of a soak: what it excuses and what it does not."""

from __future__ import annotations

import pytest

from soak.ledger import Flow, Ledger, Standing

PAIR = ("web", "db")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(now=clock)


def at(clock: Clock, ledger: Ledger, *standings: tuple[float, Standing]) -> None:
    for now_s, standing in standings:
        clock.now_s = now_s
        ledger.stands(PAIR, standing)


def test_an_allowed_connection_may_not_end(clock: Clock, ledger: Ledger) -> None:
    at(clock, ledger, (1, Standing.ALLOWED))
    clock.now_s = 9
    ledger.ended_early(Flow(PAIR, 2.0, port=7), "reset")
    (told,) = ledger.violations
    assert told.startswith("wrongly closed: web to db, port 7")


@pytest.mark.parametrize("opened_s", [2.0, 5.5, 6.5])
def test_it_may_end_while_the_policy_changes_and_after(clock: Clock, ledger: Ledger, opened_s: float) -> None:
    at(clock, ledger, (1, Standing.ALLOWED), (5, Standing.CHANGING), (6, Standing.DENIED))
    clock.now_s = 9
    ledger.ended_early(Flow(PAIR, opened_s), "reset")
    assert ledger.violations == []


def test_it_may_not_end_after_a_change_that_was_over_when_it_opened(clock: Clock, ledger: Ledger) -> None:
    at(clock, ledger, (1, Standing.DENIED), (2, Standing.CHANGING), (3, Standing.ALLOWED))
    clock.now_s = 9
    ledger.ended_early(Flow(PAIR, 4.0), "reset")
    assert len(ledger.violations) == 1


def test_nobody_gets_through_who_was_denied_all_the_time(clock: Clock, ledger: Ledger) -> None:
    at(clock, ledger, (1, Standing.ALLOWED), (2, Standing.CHANGING), (3, Standing.DENIED))
    clock.now_s = 9
    ledger.got_through(Flow(PAIR, 2.5))
    assert ledger.violations == []
    ledger.got_through(Flow(PAIR, 4.0))
    ledger.got_through(Flow(("stranger", "db"), 1.0))
    assert [text.partition(":")[0] for text in ledger.violations] == ["wrongly allowed"] * 2


def test_a_killed_worker_excuses_what_it_carried_and_nothing_else(clock: Clock, ledger: Ledger) -> None:
    at(clock, ledger, (1, Standing.ALLOWED))
    clock.now_s = 10
    ledger.lost([7])
    clock.now_s = 11
    ledger.ended_early(Flow(PAIR, 2.0, port=7), "reset")
    ledger.ended_early(Flow(PAIR, 9.5, port=8), "reset")
    assert ledger.violations == []
    ledger.ended_early(Flow(PAIR, 2.0, port=8), "reset")
    ledger.ended_early(Flow(PAIR, 10.5, port=7), "reset")
    assert len(ledger.violations) == 2


def test_a_request_that_was_allowed_all_the_time_may_not_be_refused() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    pair = ("web", "db /flip")
    ledger.stands(pair, Standing.ALLOWED)
    asked = Flow(pair, clock.now_s)
    clock.now_s += 1
    ledger.refused(asked, "403")
    assert len(ledger.violations) == 1
    ledger.stands(pair, Standing.CHANGING)
    ledger.refused(asked, "403")
    clock.now_s += 1
    ledger.stands(pair, Standing.DENIED)
    clock.now_s += 1
    late = Flow(pair, clock.now_s)
    ledger.refused(late, "403")
    assert len(ledger.violations) == 1
    ledger.got_through(asked)
    assert len(ledger.violations) == 1
    ledger.got_through(late)
    assert "wrongly allowed" in ledger.violations[1]
