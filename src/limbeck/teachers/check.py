"""Whether a teacher has anything to teach."""

from __future__ import annotations

import math

from limbeck.errors import TeacherError
from limbeck.evaluate import Score


def check_above_chance(found: Score, classes: int) -> None:
    """Raise TeacherError unless the accuracy is clearly above 1/classes.

    Clearly: by three standard errors of guessing on that many samples, and by a twentieth of the way to being always right.
    """
    chance = 1 / classes
    noise = 3 * math.sqrt(chance * (1 - chance) / max(1, found.count))
    needed = chance + max(noise, 0.05 * (1 - chance))
    if found.accuracy < needed:
        raise TeacherError(
            f"the teacher's accuracy is {found.accuracy:.2%} on {found.count:,} images, and guessing gives {chance:.2%}. Its "
            "weights are probably missing (NAME@FILE), of another data set, or its classes are in another order. "
            "allow_weak_teacher goes on all the same."
        )
