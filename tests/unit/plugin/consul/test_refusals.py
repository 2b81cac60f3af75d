"""What is refused is asked again at a bounded rate, and all of it at once when one right was given."""

from __future__ import annotations

from plugin.consul.refusals import BURST, PER_S, Refusals


def test_many_questions_share_one_rate() -> None:
    refusals = Refusals()
    waits = [refusals.wait_s(100.0) for _ in range(500)]
    assert waits[:BURST] == [0.0] * BURST
    assert waits[-1] >= (500 - BURST) / PER_S
    assert refusals.wait_s(1e6) == 0.0


def test_one_answer_after_the_other_is_told_once() -> None:
    refusals, told = Refusals(), list[float]()
    now_s = 5.0
    refusals.listen(lambda: told.append(now_s))
    for now_s in (5.0, 5.1, 5.9, 6.1):
        refusals.lifted(now_s)
    assert told == [5.0, 6.1]


def test_another_token_is_always_told() -> None:
    refusals, told = Refusals(), list[float]()
    refusals.listen(lambda: told.append(0.0))
    refusals.lifted(5.0)
    refusals.rights_changed(5.1)
    refusals.rights_changed(5.2)
    assert len(told) == 3
