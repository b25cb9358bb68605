"""What can be said from a few numbers: their mean and spread, and how surely two methods differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

LEVEL = 0.95
"""Of the confidence intervals: so often they hold the true difference."""

FEW_PAIRS = 5
"""With fewer pairs than this, an interval of Student's t is wide: its factor is 12.7 at two pairs and 2.8 at five."""

Verdict = Literal["better", "worse", "not told apart"]

# Accuracies of equal differences differ by less than this, from rounding alone.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Stat:
    """Mean of ``count`` numbers and their sample standard deviation (n-1), which one number does not have."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Stat | None:
        """Of the values that are there; None when none is."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        mean = math.fsum(known) / len(known)
        spread = math.fsum((value - mean) ** 2 for value in known)
        return cls(mean, math.sqrt(spread / (len(known) - 1)) if len(known) > 1 else None, len(known))


@dataclass(frozen=True)
class Difference(Stat):
    """Mean of ``count`` paired differences, how surely it is not 0, and its place among the others.

    low, high: 95 % confidence interval of the mean by Student's t with n-1 degrees of freedom; None with one pair, and where
        all pairs differ by the same, which leaves nothing to estimate a spread from. p: of the two-sided paired t-test, None
        where there is no interval. p_holm: the same, corrected by Holm's method for all methods that are compared with one
        baseline. verdict: whether the interval excludes 0, and on which side.
    """

    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def verdict(self) -> Verdict:
        """In plain words; "not told apart" where there is no interval."""
        if self.low is not None and self.low > 0:
            return "better"
        return "worse" if self.high is not None and self.high < 0 else "not told apart"


def paired_difference(differences: Sequence[float]) -> Difference | None:
    """What paired differences say; None when there is none.

    >>> paired_difference([0.1, 0.08, 0.13]).verdict
    'better'
    """
    from scipy import stats

    stat = Stat.of(differences)
    if stat is None:
        return None
    if stat.std is None or stat.std < _ROUNDING:
        return Difference(stat.mean, stat.std, stat.count)
    reach = half_width(stat.count) * stat.std
    p = 2 * float(stats.t.sf(abs(stat.mean) / stat.std * math.sqrt(stat.count), stat.count - 1))
    return Difference(stat.mean, stat.std, stat.count, stat.mean - reach, stat.mean + reach, p)


def half_width(count: int) -> float:
    """How far an interval of ``count`` pairs (at least 2) reaches to each side, in standard deviations of the differences."""
    from scipy import stats

    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) / math.sqrt(count)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of m tests, corrected for there being m of them (Holm 1979).

    The k-th smallest (from 0) is multiplied by m - k, and is at least the one before it and at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
