"""Where the teacher's Signals come from."""

from limbeck.teachers.check import check_above_chance
from limbeck.teachers.frozen import FrozenTeacher, NoTeacher, Teacher

__all__ = ["FrozenTeacher", "NoTeacher", "Teacher", "check_above_chance"]
