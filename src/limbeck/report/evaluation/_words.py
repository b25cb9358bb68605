"""Figures in words, and which of the networks a figure shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from limbeck.evaluate.record import Evaluation

MOST_STUDENTS = 5
"""Beside the teacher; with more, colours and markers come round again."""
_NAMED = 3


@dataclass(frozen=True)
class Cast:
    """Who is shown, each with the number of its colour, the teacher first; remark: who is left out, or nothing."""

    numbers: dict[str, int]
    remark: str

    @property
    def students(self) -> list[str]:
        """Without the teacher, whose number is 0."""
        return [who for who, number in self.numbers.items() if number]

    @property
    def legend(self) -> tuple[tuple[str, int], ...]:
        """As a plate has it."""
        return tuple(self.numbers.items())


def cast(evaluation: Evaluation, having: Collection[str], looks: Mapping[str, int]) -> Cast:
    """Teacher and students of those in ``having``: of more than five students the best by accuracy, or by what stands for it.

    looks: the number of each network's colour; 0 is the teacher's.
    """
    students = [who for who in evaluation.students if who in having]
    best = sorted(students, key=evaluation.quality, reverse=True)[:MOST_STUDENTS]
    shown = [who for who in students if who in best]
    numbers = {who: looks[who] for who in shown}
    if evaluation.teacher is not None and evaluation.teacher in having:
        numbers = {evaluation.teacher: 0, **numbers}
    return Cast(numbers, _remark(len(students), [who for who in students if who not in best]))


def _remark(count: int, left: Sequence[str]) -> str:
    if not left:
        return ""
    # A page that names a dozen of them in each section is read by nobody.
    names = f"; {listed(left)} {'is' if len(left) == 1 else 'are'} left out" if len(left) <= _NAMED else ""
    return f" Figures show the {MOST_STUDENTS} best of {count} students{names}."


def in_order(evaluation: Evaluation, having: Collection[str]) -> list[str]:
    """All networks in ``having``, the teacher first."""
    first = [evaluation.teacher] if evaluation.teacher is not None else []
    return [who for who in first + evaluation.students if who in having]


def teachers(evaluation: Evaluation) -> frozenset[str]:
    """The teacher's name, if there is one: whose row stands back in a table."""
    return frozenset() if evaluation.teacher is None else frozenset({evaluation.teacher})


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage."""
    return f"{100 * share:.{digits}f} %"


def three(value: float) -> str:
    """A number with three decimals."""
    return f"{value:.3f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}"


def listed(parts: Sequence[str]) -> str:
    """A list in a sentence."""
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else "".join(parts)
