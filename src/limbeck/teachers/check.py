"""Whether a teacher has anything to teach."""

from __future__ import annotations

from limbeck.errors import TeacherError
from limbeck.evaluate import Score

_LUCK = 0.01


def check_above_chance(found: Score, classes: int, counted: str = "images") -> None:
    """Raise TeacherError unless the accuracy is clearly above 1/classes.

    Clearly: by a twentieth of the way to being always right, and so that guessing would be as good in at most one of a
    hundred tries on that many samples. A teacher that is always right passes, however few the samples. ``counted`` is what
    the samples are called, in the plural.
    """
    chance = 1 / classes
    needed = chance + 0.05 * (1 - chance)
    if found.accuracy < 1 and (found.accuracy < needed or _by_luck(found, chance) > _LUCK):
        raise TeacherError(
            f"the teacher's accuracy is {found.accuracy:.2%} on {found.count:,} {counted}, and guessing gives {chance:.2%}. "
            "Its weights are probably missing (NAME@FILE), of another data set, or its classes are in another order. "
            "allow_weak_teacher goes on all the same."
        )


def _by_luck(found: Score, chance: float) -> float:
    """The probability that guessing is right at least as often."""
    from scipy.stats import binom

    correct = round(found.accuracy * found.count)
    return float(binom.sf(correct - 1, found.count, chance))
