"""The contract of an objective, and the algebra that adds and weighs objectives."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError, is_finite
from limbeck.objectives.registry import register
from limbeck.signals import Batch, Signals


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    title: str
    year: int
    arxiv: str | None = None
    venue: str | None = None

    @property
    def link(self) -> str | None:
        """Address of the abstract, when the paper is on arXiv."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None


class Objective(nn.Module):
    """What is compared between student and teacher.

    A subclass with ``name="…"`` in its class line is registered under that name: it then appears in expressions, in
    ``limbeck list``, in ``limbeck explain`` and in the contract test. An objective sees Signals and the batch; it never sees
    a network, a file or a device.

    Class attributes:
        needs: of ``labels``, ``logits``, ``embedding``, ``features``, ``index``; checked before the first step.
        needs_teacher: False for losses of the student alone.
        batch_coupled: True when the loss of a sample depends on the others in the batch. Such a batch is not silently split
            into micro-batches.
        local_negatives: True when, among several processes, each keeps to its own samples by definition.
        zero_when_equal: True when the loss is zero for a student whose signals are the teacher's.
        per_position: True when (B, L, C) logits with labels and a mask (B, L) are understood.
        dead_parameters: parameters that receive no gradient by definition, with the reason in the docstring.
        formula: LaTeX of the loss.
        paper: where it was published.
        presets: named expressions in which the method is used, such as ``{"icd": "ce + icd()"}``.

    Every argument of ``__init__`` is stored under its own name, so that the objective can be written back as text.
    """

    name: ClassVar[str] = ""
    needs: frozenset[str] = frozenset()
    needs_teacher: bool = True
    batch_coupled: bool = False
    local_negatives: bool = False
    zero_when_equal: bool = False
    per_position: bool = False
    dead_parameters: frozenset[str] = frozenset()
    formula: ClassVar[str] = ""
    paper: ClassVar[Paper | None] = None
    presets: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, *, name: str | None = None, aliases: tuple[str, ...] = (), **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if name is not None:
            cls.name = name
            register(cls, name, aliases)

    def build(self, student: Signals, teacher: Signals) -> None:
        """Make heads and buffers, sized from the signals of one probe batch. Called once, before the optimizer exists."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms; their sum is the loss."""
        raise SettingError(f"{type(self).__name__} defines no forward(student, teacher, batch).")

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        """The terms of :meth:`forward`. The teacher's signals are cut off from its graph first: a teacher never learns here."""
        terms: dict[str, Tensor] = super().__call__(student, teacher.detach(), batch)
        return terms

    def monitors(self) -> dict[str, Tensor]:
        """Detached scalars worth logging that are not part of the loss, such as a learned temperature."""
        return {}

    def after_step(self) -> None:
        """Bring own parameters back into their range; called after each step of the optimizer."""

    def no_weight_decay(self) -> set[str]:
        """Names of own parameters that weight decay leaves alone."""
        return set()

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The arguments of ``__init__`` and their defaults (``inspect.Parameter.empty`` for those that must be given)."""
        if cls.__init__ is Objective.__init__:
            return {}
        return {p.name: p.default for p in inspect.signature(cls).parameters.values()}

    def arguments(self) -> dict[str, Any]:
        """The arguments it was made with, by name."""
        return {name: getattr(self, name) for name in self.defaults()}

    def expression(self) -> str:
        """The text that makes this objective again: the name and the arguments that are not at their default."""
        defaults = self.defaults()
        given = {key: value for key, value in self.arguments().items() if value != defaults[key]}
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Raise SignalError with a sentence on each need that these signals do not meet."""
        student_has, teacher_has = student.available(), teacher.available()
        for need in sorted(self.needs):
            if need == "index" and batch.index is None:
                raise SignalError(f"{self.expression()} needs each sample's index, and the batches carry none.")
            if need in ("labels", "index"):
                continue
            for who, has in (("student", student_has), ("teacher", teacher_has)):
                if need not in has and (who == "student" or self.needs_teacher):
                    raise SignalError(f"{self.expression()} needs the {who}'s {need}: {_HOW_TO_GIVE.get(need, '')}")

    def __add__(self, other: Objective) -> WeightedSum:
        return WeightedSum([*_weighted(self), *_weighted(other)])

    def __radd__(self, other: object) -> WeightedSum:
        # sum([CE(), KD()]) starts from the number 0.
        if isinstance(other, int) and other == 0:
            return WeightedSum(_weighted(self))
        return NotImplemented

    def __mul__(self, weight: float) -> WeightedSum:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not is_finite(weight):
            raise SettingError(f"the weight of {self} must be a finite number, got {weight!r}.")
        return WeightedSum([(weight * inner, part) for inner, part in _weighted(self)])

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.expression()


_HOW_TO_GIVE = {
    "embedding": "the input of the classifier was not tapped; name its layer with 'classifier'.",
    "features": "no feature maps were tapped; name the layers with 'taps', as in taps={'layer2': 'blocks.3'}.",
    "logits": "the network returns none.",
}


def _weighted(objective: Objective) -> list[tuple[float, Objective]]:
    if isinstance(objective, WeightedSum):
        return [(weight, part) for _, weight, part in objective.entries()]
    if not isinstance(objective, Objective):
        raise SettingError(f"only objectives can be added, got {objective!r}.")
    return [(1.0, objective)]


class WeightedSum(Objective):
    """Σ_k w_k · objective_k. Its terms are the weighted terms of its parts, so that they sum to the loss.

    Parts of weight zero are left out. A sum without any part can be added to, and is an error where it is used.
    """

    def __init__(self, parts: list[tuple[float, Objective]]) -> None:
        super().__init__()
        for weight, part in parts:
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not is_finite(weight):
                raise SettingError(f"the weight of {part} must be a finite number, got {weight!r}.")
        parts = [(float(weight), part) for weight, part in parts if weight != 0]
        self.weights = tuple(weight for weight, _ in parts)
        self.parts = nn.ModuleList(part for _, part in parts)
        self.keys = _unique([part.name for _, part in parts])
        self.needs = frozenset().union(*(part.needs for _, part in parts))
        self.needs_teacher = any(part.needs_teacher for _, part in parts)
        self.batch_coupled = any(part.batch_coupled for _, part in parts)
        self.local_negatives = any(part.local_negatives for _, part in parts)
        self.dead_parameters = frozenset(
            f"parts.{i}.{name}" for i, (_, part) in enumerate(parts) for name in part.dead_parameters
        )

    def entries(self) -> list[tuple[str, float, Objective]]:
        """Its parts: the name under which terms are logged, the weight, and the objective."""
        parts = [part for part in self.parts if isinstance(part, Objective)]
        return list(zip(self.keys, self.weights, parts, strict=True))

    def check_not_empty(self) -> None:
        """Raise SettingError when no part is left."""
        if not self.weights:
            raise SettingError("every weight of the objective is zero, so there is nothing to train on.")

    def build(self, student: Signals, teacher: Signals) -> None:
        self.check_not_empty()
        for _, _, part in self.entries():
            part.build(student, teacher)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        self.check_not_empty()
        terms = {}
        for key, weight, part in self.entries():
            for term, value in part(student, teacher, batch).items():
                terms[_join(key, term)] = weight * value
        return terms

    def monitors(self) -> dict[str, Tensor]:
        return {_join(key, name): value for key, _, part in self.entries() for name, value in part.monitors().items()}

    def no_weight_decay(self) -> set[str]:
        entries = enumerate(self.entries())
        return {f"parts.{i}.{name}" for i, (_, _, part) in entries for name in part.no_weight_decay()}

    def after_step(self) -> None:
        for _, _, part in self.entries():
            part.after_step()

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        for _, _, part in self.entries():
            part.check(student, teacher, batch)

    def expression(self) -> str:
        return " + ".join(
            part.expression() if weight == 1 else f"{_shortest(weight)}*{part.expression()}"
            for _, weight, part in self.entries()
        )


def _shortest(weight: float) -> str:
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)


def _join(part: str, term: str) -> str:
    return part if term == part else f"{part}.{term}"


def _unique(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}{names[: i + 1].count(name)}" for i, name in enumerate(names)]
