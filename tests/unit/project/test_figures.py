"""Medians, spreads, ratios and goals of the comparison with Envoy."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import ENVOY, OURS, Goal, Measure, Row, Spread, compare, pair_ratios, per_cpu_second, speed_of_two

_POSITIVE = st.floats(min_value=1e-6, max_value=1e9)
_PAIRS = st.lists(st.tuples(_POSITIVE, _POSITIVE), min_size=1, max_size=20)
_AT_LEAST = Measure(key="throughput", name="throughput", unit="per s", ratio_goal=Goal(value=0.95, at_least=True))


def both(measure: Measure, envoy: list[float], ours: list[float]) -> Row:
    return compare(measure, {ENVOY: envoy, OURS: ours})


class TestSpread:
    @given(st.lists(_POSITIVE, min_size=1))
    def test_the_median_lies_between_its_bounds(self, values: list[float]) -> None:
        spread = Spread.of(values)
        assert spread.lowest <= spread.median <= spread.highest
        assert (spread.lowest, spread.highest, spread.rounds) == (min(values), max(values), len(values))

    def test_one_outlier_does_not_move_the_median(self) -> None:
        assert Spread.of([10.0, 11.0, 1000.0]).median == 11.0

    def test_an_even_number_of_rounds_gives_the_middle(self) -> None:
        assert Spread.of([1.0, 2.0, 4.0, 100.0]).median == 3.0

    def test_no_round_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="no round"):
            Spread.of([])

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_what_is_no_number_is_an_error(self, value: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            Spread.of([1.0, value])


class TestGoal:
    def test_at_least_includes_the_bound(self) -> None:
        goal = Goal(value=0.7, at_least=True)
        assert goal.met(0.7)
        assert goal.met(2.0)
        assert not goal.met(0.699)

    def test_at_most_includes_the_bound(self) -> None:
        goal = Goal(value=1.1, at_least=False)
        assert goal.met(1.1)
        assert goal.met(0.1)
        assert not goal.met(1.101)


class TestPairRatios:
    def test_each_round_is_compared_with_its_neighbour_only(self) -> None:
        # The machine became half as fast between the rounds; the gateways' ratio did not change.
        assert pair_ratios([100.0, 50.0], [90.0, 45.0]) == [0.9, 0.9]

    @given(_PAIRS)
    def test_equal_gateways_give_one(self, pairs: list[tuple[float, float]]) -> None:
        same = [value for value, _ in pairs]
        assert pair_ratios(same, same) == [1.0] * len(same)

    def test_rounds_that_cannot_be_paired_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="2 rounds of Envoy and 1 of ours"):
            pair_ratios([1.0, 2.0], [1.0])

    def test_a_ratio_to_zero_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="zero"):
            pair_ratios([0.0], [1.0])


class TestCompare:
    @given(_PAIRS)
    def test_the_ratio_is_ours_over_envoys_and_free_of_scale(self, pairs: list[tuple[float, float]]) -> None:
        envoy, ours = [theirs for theirs, _ in pairs], [mine for _, mine in pairs]
        row = both(Measure(key="memory", name="memory", unit="KiB", scale=1 / 1024), envoy, ours)
        assert row.ratio is not None
        assert row.ours is not None
        assert row.ratio.median == pytest.approx(statistics.median(mine / theirs for theirs, mine in pairs))
        assert row.ours.median == pytest.approx(statistics.median(ours) / 1024)

    def test_a_goal_for_the_ratio_judges_its_median(self) -> None:
        assert both(_AT_LEAST, [10.0, 10.0, 10.0], [9.6, 9.7, 1.0]).met is True
        assert both(_AT_LEAST, [10.0, 10.0, 10.0], [9.6, 9.0, 9.1]).met is False

    def test_a_goal_of_our_own_needs_no_envoy(self) -> None:
        measure = Measure(key="revoked", name="revoked", unit="ms", own_goal=Goal(value=100.0, at_least=False))
        row = compare(measure, {OURS: [12.0, 15.0, 400.0]})
        assert (row.envoy, row.ratio) == (None, None)
        assert row.met is True
        assert both(measure, [], [101.0]).met is False

    def test_without_a_goal_nothing_is_judged(self) -> None:
        assert both(Measure(key="memory", name="memory", unit="KiB"), [1.0], [2.0]).met is None

    def test_a_ratio_goal_without_envoy_is_not_judged(self) -> None:
        assert both(_AT_LEAST, [], [1.0]).met is None

    def test_others_have_values_and_no_ratio(self) -> None:
        row = compare(_AT_LEAST, {ENVOY: [2.0, 2.0], OURS: [1.0, 3.0], "HAProxy": [5.0]})
        assert row.values["HAProxy"].median == 5.0
        assert row.ratio == Spread(1.0, 0.5, 1.5, 2)

    def test_a_limit_of_the_machine_is_nobodys_figure(self) -> None:
        row = compare(_AT_LEAST, {"this machine": [7.0]})
        assert (row.envoy, row.ours, row.ratio, row.met) == (None, None, None, None)


class TestPerCpuSecond:
    def test_divides(self) -> None:
        assert per_cpu_second(300.0, 1.5) == 200.0

    def test_no_processor_time_is_an_error_not_infinity(self) -> None:
        with pytest.raises(ValueError, match="longer"):
            per_cpu_second(300.0, 0.0)


def test_two_workers_that_cost_as_much_for_each_operation_are_twice_as_fast() -> None:
    assert speed_of_two(20_000.0, 20_000.0) == 2.0
    assert speed_of_two(20_000.0, 19_000.0) == pytest.approx(1.9)
