"""Text of one of the two models alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from limbeck.policies.base import Policy
from limbeck.policies.draw import Draw, Stream
from limbeck.policies.generation import generate
from limbeck.policies.prompts import Prompts, Response
from limbeck.policies.writer import Writer


@dataclass(frozen=True)
class StudentText(Policy):
    """The student's own samples: on-policy distillation, and GKD (arXiv 2306.13649) with λ = 1.

    Written anew at each step, with the present student.
    """

    name: ClassVar[str] = "student"

    @property
    def needs(self) -> frozenset[str]:
        """The student."""
        return frozenset({"student"})

    def write(self, prompts: Prompts, student: Writer | None, teacher: Writer | None, draw: Draw) -> Response:
        """Its samples."""
        assert student is not None
        return generate(student, prompts, draw, Stream.STUDENT)


@dataclass(frozen=True)
class TeacherText(Policy):
    """The teacher's samples: with the cross-entropy, sequence-level distillation (SeqKD, arXiv 1606.07947).

    That paper takes the best of a beam search; these are samples, or the greedy text at temperature 0.
    """

    name: ClassVar[str] = "teacher"

    @property
    def needs(self) -> frozenset[str]:
        """The teacher."""
        return frozenset({"teacher"})

    def write(self, prompts: Prompts, student: Writer | None, teacher: Writer | None, draw: Draw) -> Response:
        """Its samples."""
        assert teacher is not None
        return generate(teacher, prompts, draw, Stream.TEACHER)
