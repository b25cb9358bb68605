"""Where the teacher's Signals come from."""

from limbeck.teachers.frozen import FrozenTeacher, NoTeacher, Teacher

__all__ = ["FrozenTeacher", "NoTeacher", "Teacher"]
