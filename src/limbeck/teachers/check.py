"""Whether a teacher has anything to teach."""

from __future__ import annotations

from limbeck.errors import TeacherError
from limbeck.evaluate import Score

_LUCK = 0.01


def check_above_chance(found: Score, classes: int, samples: str) -> None:
    """Raise TeacherError unless the accuracy is clearly above 1/classes. ``samples``: what it is of, as in "test images".

    Clearly: by a twentieth of the way to being always right, and so that guessing would be as good in at most one of a
    hundred tries on that many samples. A teacher that is always right passes, however few the samples.
    """
    chance = 1 / classes
    near, luck = found.accuracy < chance + 0.05 * (1 - chance), _by_luck(found, chance)
    if found.accuracy == 1 or not (near or luck > _LUCK):
        return
    what = (
        f"the teacher's accuracy is {found.accuracy:.2%} on {found.count:,} {samples}, and guessing gives {chance:.2%}"
    )
    if near:
        raise TeacherError(
            f"{what}. Its weights are probably missing (NAME@FILE), of another data set, or its classes are in another order. "
            "allow_weak_teacher goes on all the same."
        )
    raise TeacherError(
        f"{what}, but is as good on so few in {luck:.0%} of tries: whether the teacher knows anything cannot be told. Hold "
        "more out (a larger val_fraction), or go on all the same with allow_weak_teacher."
    )


def _by_luck(found: Score, chance: float) -> float:
    """The probability that guessing is right at least as often."""
    from scipy.stats import binom

    correct = round(found.accuracy * found.count)
    return float(binom.sf(correct - 1, found.count, chance))
