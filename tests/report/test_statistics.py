"""Means, intervals and p-values against hand computation and against scipy."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from limbeck.report.statistics import Difference, Stat, half_width, holm, paired_difference

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_the_interval_by_hand() -> None:
    # 10, 8, 13 hundredths: mean 31/3, variance ((1/3)² + (7/3)² + (8/3)²)/2 = 19/3, t(0.975, 2) = 4.302653.
    found = paired_difference([0.10, 0.08, 0.13])
    assert found is not None
    assert (found.mean, found.std, found.count) == pytest.approx((0.31 / 3, math.sqrt(19 / 3) / 100, 3))
    reach = 4.302653 * math.sqrt(19 / 3) / 100 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.31 / 3 - reach, 0.31 / 3 + reach), rel=1e-6)
    assert found.verdict == "better"


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_interval_and_p_are_those_of_scipy(differences: list[float]) -> None:
    found = paired_difference(differences)
    assert found is not None
    if statistics.stdev(differences) < 1e-9:
        return
    error = stats.sem(differences)
    low, high = stats.t.interval(0.95, len(differences) - 1, loc=statistics.mean(differences), scale=error)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-12)
    assert found.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-6, abs=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_the_verdict_is_where_the_interval_lies_and_agrees_with_p(differences: list[float]) -> None:
    found = paired_difference(differences)
    assert found is not None
    if found.low is None or found.high is None or found.p is None:
        assert found.verdict == "not told apart"
        return
    sign = 1 if found.low > 0 else -1 if found.high < 0 else 0
    assert found.verdict == {1: "better", -1: "worse", 0: "not told apart"}[sign]
    if abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (sign != 0)
    opposite = paired_difference([-value for value in differences])
    assert opposite is not None
    assert opposite.verdict == {1: "worse", -1: "better", 0: "not told apart"}[sign]


def test_one_pair_and_equal_pairs_have_no_interval() -> None:
    assert paired_difference([]) is None
    assert paired_difference([0.1]) == Difference(0.1, None, 1)
    equal = paired_difference([0.7 - 0.6, 0.8 - 0.7, 0.9 - 0.8])  # equal up to rounding
    assert equal is not None
    assert (equal.low, equal.high, equal.p) == (None, None, None)
    assert equal.verdict == "not told apart"


@given(st.lists(st.floats(-1, 1), min_size=200, max_size=200), st.floats(-0.5, 0.5))
def test_an_interval_that_holds_the_mean_moves_with_it(differences: list[float], shift: float) -> None:
    here, there = paired_difference(differences), paired_difference([value + shift for value in differences])
    assert here is not None
    assert there is not None
    if here.low is not None and here.high is not None:
        assert here.low <= here.mean <= here.high
        assert (there.low, there.high) == pytest.approx((here.low + shift, here.high + shift), abs=1e-9)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    found = [paired_difference(generator.normal(0.02, 0.01, size=4).tolist()) for _ in range(2000)]
    held = sum(one.low <= 0.02 <= one.high for one in found if one and one.low is not None and one.high is not None)
    assert held / 2000 == pytest.approx(0.95, abs=0.015)  # three standard deviations of the share


@pytest.mark.parametrize(("count", "reach"), [(2, 8.985), (3, 2.484), (4, 1.591), (5, 1.242)])
def test_half_width_by_the_tables_of_student(count: int, reach: float) -> None:
    assert half_width(count) == pytest.approx(reach, abs=5e-4)


def test_holm_by_hand() -> None:
    # Sorted 0.01·4, 0.02·3, 0.03·2, 0.9·1, each at least the one before.
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(p_values)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(values: list[float]) -> None:
    found = holm(values)
    for value, corrected in zip(values, found, strict=True):
        assert value <= corrected <= min(1.0, len(values) * value) + 1e-15
    assert [found[i] for i in sorted(range(len(values)), key=lambda i: values[i])] == sorted(found)


@given(p_values, st.floats(0.001, 0.2))
def test_holm_rejects_what_the_step_down_rule_rejects(values: list[float], level: float) -> None:
    rejected = 0
    for rank, value in enumerate(sorted(values)):
        if (len(values) - rank) * value > level:
            break
        rejected += 1
    assert sum(value <= level for value in holm(values)) == rejected


def test_a_stat_of_nothing_is_none() -> None:
    assert Stat.of([None, None]) is None
