"""What a text policy is."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from limbeck.errors import DataError, SettingError
from limbeck.policies.draw import Draw
from limbeck.policies.prompts import Prompts, Response
from limbeck.policies.writer import Writer, check_same_vocabulary


@dataclass(frozen=True)
class Policy(ABC):
    """Says which text teacher and student both see.

    A policy is a value: its arguments are its fields, and ``str(policy)`` writes it as :func:`parse_policy` reads it.

    Attributes:
        name: in expressions.
        inner: the fields that are policies themselves, in the order in which they stand in the parentheses.
    """

    name: ClassVar[str]
    inner: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def needs(self) -> frozenset[str]:
        """What it reads, of "completions", "student", "teacher" and "progress". Known before the first step."""

    @property
    def in_turns(self) -> bool:
        """Whether the two models write one text in turns; of a mixture, whether one of its policies has them."""
        return any(getattr(self, name).in_turns for name in self.inner)

    @abstractmethod
    def write(self, prompts: Prompts, student: Writer | None, teacher: Writer | None, draw: Draw) -> Response:
        """The text; :meth:`respond` has checked that what it needs is there."""

    def respond(self, prompts: Prompts, student: Writer | None, teacher: Writer | None, draw: Draw) -> Response:
        """Answers to the prompts, to be seen by both models. No gradient goes through them.

        Args:
            prompts: N prompts, and where answers end.
            student, teacher: with their own sampling settings; None for one that is not needed.
            draw: of this step.

        Raises:
            SettingError: something that the policy needs was not given, or the vocabularies differ.
            DataError: prompts or completions that cannot be used.
            TeacherError, NonFiniteError: logits of teacher or student that are NaN or infinite.
        """
        given = {
            "completions": prompts.completions is not None,
            "student": student is not None,
            "teacher": teacher is not None,
            "progress": draw.progress is not None,
        }
        for need in sorted(self.needs):
            if not given[need]:
                kind = DataError if need == "completions" else SettingError
                raise kind(f"the text policy {self} {_REASONS[need]}.")
        if student is not None and teacher is not None:
            check_same_vocabulary(student, teacher)
        return self.write(prompts, student, teacher, draw)

    def __str__(self) -> str:
        parts = []
        for item in dataclasses.fields(self):
            value: Any = getattr(self, item.name)
            if item.init and value != item.default and item.name not in self.inner:
                parts.append(f"{item.name}={value!r}")
        policies: list[Policy] = [getattr(self, name) for name in self.inner]
        if any(policy != _default(self, name) for policy, name in zip(policies, self.inner, strict=True)):
            parts = [*map(str, policies), *parts]
        return f"{self.name}({', '.join(parts)})" if parts else self.name


_REASONS = {
    "completions": "takes the data's own answers, and these prompts have none",
    "student": "writes with the student, and none was given",
    "teacher": "writes with the teacher, and none was given",
    "progress": "changes over the training, and how far that is was not given (progress of the draw)",
}


def _default(policy: Policy, name: str) -> object:
    item = next(item for item in dataclasses.fields(policy) if item.name == name)
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
