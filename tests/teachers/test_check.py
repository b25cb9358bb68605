"""Which teachers are refused."""

from __future__ import annotations

import pytest

from limbeck.errors import TeacherError
from limbeck.evaluate import Score
from limbeck.teachers import check_above_chance


@pytest.mark.parametrize(("correct", "count", "classes"), [(6, 6, 2), (1, 1, 2), (10, 11, 2), (5, 10, 10), (60, 75, 2)])
def test_a_teacher_above_chance_passes(correct: int, count: int, classes: int) -> None:
    check_above_chance(Score(count, correct / count, 1.0, 1.0), classes)


@pytest.mark.parametrize(
    ("correct", "count", "classes"),
    [(5, 6, 2), (3, 6, 2), (10, 100, 10), (0, 6, 2), (5_200, 10_000, 2)],  # the last is no luck, and teaches little
)
def test_a_teacher_near_chance_is_refused(correct: int, count: int, classes: int) -> None:
    with pytest.raises(TeacherError, match="tokens, and guessing gives"):
        check_above_chance(Score(count, correct / count, 1.0, 1.0), classes, "tokens")
