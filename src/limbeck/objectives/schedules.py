"""Weights that change from epoch to epoch: ``decay(100, 0.7)*infoflow()``, ``until(epochs=10)*kd()``.

A schedule is a factor before an objective, as a number is. Four of them, their products and sums of weighted objectives make
the weights of the field: a decay for supervision that counts early, a ramp that ends, and the two halves of a window.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeAlias

from limbeck.errors import SettingError, check_choice, check_number, check_whole, is_finite, unknown_name
from limbeck.expression import Factor, Scheduled


class Schedule:
    """A weight for each epoch of a stage. Schedules multiply with numbers, with each other and with objectives."""

    def at(self, epoch: int) -> float:
        """The weight in an epoch, counted from 0 in each stage."""
        raise SettingError(f"{type(self).__name__} defines no at(epoch).")

    @property
    def bound(self) -> float:
        """What its absolute value never exceeds."""
        raise SettingError(f"{type(self).__name__} defines no bound.")

    def expression(self) -> str:
        """The text that makes it again."""
        raise SettingError(f"{type(self).__name__} defines no expression().")

    def __mul__(self, other: Weight) -> Weight:
        if isinstance(other, Schedule):
            return _product([self, other])
        if isinstance(other, bool) or not isinstance(other, int | float):
            return NotImplemented  # an objective knows what to do
        check_number(f"what {self} is multiplied by", other)
        return _product([self], float(other))

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.expression()


Weight: TypeAlias = float | Schedule


@dataclass(frozen=True)
class Decay(Schedule):
    """start · factor^k in epoch k: full at the start, and less by one factor every epoch.

    Args:
        start: weight of the first epoch, not 0.
        factor: in [0, 1]; 1 is a constant, 0 leaves the first epoch alone.
    """

    start: float
    factor: float

    def __post_init__(self) -> None:
        check_number("start", self.start)
        check_number("factor", self.factor, low=0.0, high=1.0)
        if self.start == 0:
            raise SettingError("start must not be 0, or the weight is 0 in every epoch.")

    def at(self, epoch: int) -> float:
        return float(self.start) * float(self.factor) ** epoch

    @property
    def bound(self) -> float:
        return abs(float(self.start))

    def expression(self) -> str:
        return f"decay({weight_text(self.start)}, {weight_text(self.factor)})"


_SHAPES = ("linear", "sigmoid", "geometric")


@dataclass(frozen=True)
class Ramp(Schedule):
    """From start to end over so many epochs, and constant from then on.

    Epoch k has the weight start + (end - start)·r(t) with t = min(k/epochs, 1), so that it is ``end`` from epoch number
    ``epochs`` on, counted from 0.

    Args:
        start: weight of the first epoch (but see ``sigmoid``).
        end: weight from epoch number ``epochs`` on.
        epochs: how many epochs it takes, at least 1.
        shape: ``linear``: r = t. ``sigmoid``: r = exp(-5(1 - t)²), which begins with 0.0067 of the way. ``geometric``: every
            epoch multiplies by the same number, for two weights of one sign; a decay turned round is such a ramp.
    """

    start: float
    end: float
    epochs: int
    shape: str = "linear"

    def __post_init__(self) -> None:
        check_number("start", self.start)
        check_number("end", self.end)
        check_whole("epochs", self.epochs, low=1)
        check_choice("shape", self.shape, _SHAPES)
        if self.start == 0 and self.end == 0:
            raise SettingError("start and end must not both be 0, or the weight is 0 in every epoch.")
        if self.shape == "geometric" and not (self.start > 0 < self.end or self.start < 0 > self.end):
            raise SettingError(
                f"a geometric ramp needs a start and an end of one sign that are not 0, got {self.start!r} and {self.end!r}."
            )

    def at(self, epoch: int) -> float:
        if epoch >= self.epochs:
            return float(self.end)
        start, end, done = float(self.start), float(self.end), epoch / self.epochs
        if self.shape == "geometric":
            # Of logarithms, since the quotient of the two may be beyond the range of floats.
            size = math.exp((1 - done) * math.log(abs(start)) + done * math.log(abs(end))) if epoch > 0 else abs(start)
            return math.copysign(size, start)
        share = done if self.shape == "linear" else math.exp(-5 * (1 - done) ** 2)
        return start * (1 - share) + end * share

    @property
    def bound(self) -> float:
        return max(abs(float(self.start)), abs(float(self.end)))

    def expression(self) -> str:
        shape = "" if self.shape == "linear" else f", shape={self.shape!r}"
        return f"ramp({weight_text(self.start)}, {weight_text(self.end)}, epochs={self.epochs}{shape})"


@dataclass(frozen=True)
class _Switch(Schedule):
    epochs: int

    def __post_init__(self) -> None:
        check_whole("epochs", self.epochs, low=1)

    @property
    def bound(self) -> float:
        return 1.0

    def expression(self) -> str:
        return f"{type(self).__name__.lower()}(epochs={self.epochs})"


class Until(_Switch):
    """1 in the first epochs and 0 from then on.

    Args:
        epochs: how many epochs it is 1, at least 1.
    """

    def at(self, epoch: int) -> float:
        return float(epoch < self.epochs)


class After(_Switch):
    """0 in the first epochs and 1 from then on.

    Args:
        epochs: how many epochs it is 0, at least 1.
    """

    def at(self, epoch: int) -> float:
        return float(epoch >= self.epochs)


SCHEDULES: Mapping[str, type[Schedule]] = {"after": After, "decay": Decay, "ramp": Ramp, "until": Until}
"""What stands for a weight in expressions, by name."""


@dataclass(frozen=True)
class Product(Schedule):
    """A number times schedules, which stand in the order of their texts, so that equal products are equal."""

    number: float
    factors: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        if not is_finite(self.bound):
            raise SettingError(f"{self.expression()}: the weight must be finite in every epoch.")

    def at(self, epoch: int) -> float:
        return self.number * math.prod(factor.at(epoch) for factor in self.factors)

    @property
    def bound(self) -> float:
        return abs(self.number) * math.prod(factor.bound for factor in self.factors)

    def expression(self) -> str:
        number = [] if self.number == 1 else [weight_text(self.number)]
        return "*".join([*number, *(factor.expression() for factor in self.factors)])


def _product(schedules: Iterable[Schedule], number: float = 1.0) -> Weight:
    factors: list[Schedule] = []
    for schedule in schedules:
        if isinstance(schedule, Product):
            number *= schedule.number
            factors += schedule.factors
        else:
            factors.append(schedule)
    if number == 0:
        return 0.0
    if number == 1 and len(factors) == 1:
        return factors[0]
    return Product(number, tuple(sorted(factors, key=str)))


# -- as text -----------------------------------------------------------------------------------------------------------


def weight_text(weight: Weight) -> str:
    """The shortest text that reads as the same weight.

    >>> weight_text(0.5 * Decay(100, 0.7))
    '0.5*decay(100, 0.7)'
    """
    if isinstance(weight, Schedule):
        return weight.expression()
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)


def make_weight(weight: float | Scheduled) -> Weight:
    """The weight that the reader of expressions found.

    Raises:
        SettingError: a schedule has not the arguments that it takes; the sentence begins with the schedule's text.
    """
    if not isinstance(weight, Scheduled):
        return weight
    return functools.reduce(operator.mul, map(_make, weight.factors), weight.number)


def _make(factor: Factor) -> Schedule:
    cls = SCHEDULES[factor.name]
    try:
        return cls(**_bound(factor, cls))
    except SettingError as error:
        raise SettingError(f"{factor.text}: {error}") from None


def _bound(factor: Factor, cls: type[Any]) -> dict[str, Any]:
    """The arguments of a schedule by name, those that were given by place too."""
    names = {part.name: part.default is MISSING for part in fields(cls)}
    if len(factor.values) > len(names):
        raise SettingError(f"{len(factor.values)} values are too many for {_example(factor.name, names)}.")
    given = dict(zip(names, factor.values, strict=False))
    for name, value in factor.arguments.items():
        if name not in names:
            raise SettingError(unknown_name(f"argument of {factor.name}", name, names))
        if name in given:
            raise SettingError(f"the argument '{name}' is given twice, by its place and by its name.")
        given[name] = value
    missing = [name for name, required in names.items() if required and name not in given]
    if missing:
        raise SettingError(f"{factor.name} needs the argument '{missing[0]}', as in {_example(factor.name, names)}.")
    return given


def _example(name: str, names: Mapping[str, bool]) -> str:
    return f"{name}({', '.join(f'{each}=…' for each, required in names.items() if required)})"
