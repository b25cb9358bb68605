"""Intervals of accuracies by class, against other implementations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from limbeck.report.evaluation.classes import newcombe, wilson


@given(count=st.integers(1, 400), right=st.integers(0, 400))
def test_wilson_is_scipys(count: int, right: int) -> None:
    right = min(right, count)
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")

    assert wilson(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(count=st.integers(1, 400), right=st.integers(0, 400), other=st.integers(0, 400))
def test_the_interval_of_a_difference_holds_it_and_turns_with_it(count: int, right: int, other: int) -> None:
    one, two = min(right, count) / count, min(other, count) / count
    low, high = newcombe(one, two, count)

    assert -1 <= low <= one - two <= high <= 1
    assert newcombe(two, one, count) == pytest.approx((-high, -low))


def test_newcombe_by_hand() -> None:
    # 7 of 10 (Wilson 0.39678 to 0.89221) and 2 of 10 (0.05668 to 0.50984).
    low = 0.5 - ((0.7 - 0.39678) ** 2 + (0.50984 - 0.2) ** 2) ** 0.5
    high = 0.5 + ((0.89221 - 0.7) ** 2 + (0.2 - 0.05668) ** 2) ** 0.5

    assert newcombe(0.7, 0.2, 10) == pytest.approx((low, high), abs=1e-4)


def test_more_images_are_surer() -> None:
    widths = [high - low for low, high in (newcombe(0.7, 0.8, count) for count in (10, 100, 1000))]

    assert widths == sorted(widths, reverse=True)
