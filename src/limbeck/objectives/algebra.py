"""The algebra that adds and weighs objectives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, is_finite
from limbeck.objectives.base import Attack, Objective
from limbeck.objectives.companions import Companions
from limbeck.objectives.schedules import Schedule, Weight, weight_text
from limbeck.signals import Batch, Signals, scored_by_teacher


class WeightedSum(Objective):
    """Σ_k w_k · objective_k. Its terms are the weighted terms of its parts, so that they sum to the loss.

    A weight is a number or a schedule (see :mod:`limbeck.objectives.schedules`), whose weight of the present epoch is a
    monitor, ``weight.PART``. Until ``start_epoch`` is called it is that of the first epoch. Parts of weight zero are left
    out; those whose schedule is zero for a while are still computed. A sum without any part can be added to, and is an error
    where it is used.
    """

    def __init__(self, parts: list[tuple[Weight, Objective]]) -> None:
        super().__init__()
        for weight, part in parts:
            _check_weight(part, weight)
        parts = [
            (weight if isinstance(weight, Schedule) else float(weight), part) for weight, part in parts if weight != 0
        ]
        self.weights: tuple[Weight, ...] = tuple(weight for weight, _ in parts)
        for i, schedule in self._schedules():
            # A tensor: of a number, torch.compile would make a new program every epoch.
            self.register_buffer(f"weight{i}", torch.tensor(schedule.at(0)))
        self.parts = nn.ModuleList(part for _, part in parts)
        self.keys = _unique([part.name for _, part in parts])
        self.needs = frozenset().union(*(part.needs for _, part in parts))
        self.needs_teacher = any(part.needs_teacher for _, part in parts)
        self.needs_student = any(part.needs_student for _, part in parts)
        self.batch_coupled = any(part.batch_coupled for _, part in parts)
        self.order_free = all(part.order_free for _, part in parts)
        self.per_position = all(part.per_position for _, part in parts)
        self.any_vocabulary = all(part.any_vocabulary for _, part in parts)
        self.zero_when_equal = all(part.zero_when_equal for _, part in parts)
        reading = [part for _, part in parts if "labels" in part.needs]
        self.labels_of_first_view = all(part.labels_of_first_view for part in reading)
        self.minimum_batch = max((part.minimum_batch for _, part in parts), default=1)
        self.local_negatives = any(part.local_negatives for _, part in parts)
        self.dead_parameters = frozenset(
            f"parts.{i}.{name}" for i, (_, part) in enumerate(parts) for name in part.dead_parameters
        )

    def _schedules(self) -> list[tuple[int, Schedule]]:
        return [(i, weight) for i, weight in enumerate(self.weights) if isinstance(weight, Schedule)]

    def entries(self) -> list[tuple[str, Weight, Objective]]:
        """Its parts: the name under which terms are logged, the weight, and the objective."""
        parts = [part for part in self.parts if isinstance(part, Objective)]
        return list(zip(self.keys, self.weights, parts, strict=True))

    def check_not_empty(self) -> None:
        """Raise SettingError when no part is left."""
        if not self.weights:
            raise SettingError("every weight of the objective is zero, so there is nothing to train on.")

    def set_training_labels(self, labels: Tensor) -> None:
        for _, _, part in self.entries():
            part.set_training_labels(labels)

    def build(self, student: Signals, teacher: Signals) -> None:
        self.check_not_empty()
        for _, _, part in self.entries():
            part.build(student, teacher)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        self.check_not_empty()
        terms = {}
        compared = scored_by_teacher(student, batch)
        for i, (key, weight, part) in enumerate(self.entries()):
            now = getattr(self, f"weight{i}") if isinstance(weight, Schedule) else weight
            for term, value in part(compared if part.needs_teacher else student, teacher, batch).items():
                terms[_join(key, term)] = now * value
        return terms

    def new_classifier(self) -> nn.Module | None:
        heads = [head for _, _, part in self.entries() if (head := part.new_classifier()) is not None]
        if len(heads) > 1:
            raise SettingError(f"'{self}': two objectives would replace the student's classifier.")
        return heads[0] if heads else None

    def companions(self) -> Companions | None:
        asked = {str(part): wanted for _, _, part in self.entries() if (wanted := part.companions()) is not None}
        if len(set(asked.values())) > 1:
            raise SettingError(
                f"{' and '.join(asked)} each ask for other networks beside the student; take one of them, or the same peers."
            )
        return next(iter(asked.values()), None)

    def monitors(self) -> dict[str, Tensor]:
        weights = {f"weight.{self.keys[i]}": getattr(self, f"weight{i}").clone() for i, _ in self._schedules()}
        own = {_join(key, name): value for key, _, part in self.entries() for name, value in part.monitors().items()}
        return weights | own

    def no_weight_decay(self) -> set[str]:
        entries = enumerate(self.entries())
        return {f"parts.{i}.{name}" for i, (_, _, part) in entries for name in part.no_weight_decay()}

    def after_step(self) -> None:
        for _, _, part in self.entries():
            part.after_step()

    @property
    def attack(self) -> Attack | None:
        asked = dict.fromkeys(attack for _, _, part in self.entries() if (attack := part.attack) is not None)
        if len(asked) > 1:
            raise SettingError(f"'{self}': two objectives ask for different attacks, and a step has one.")
        return next(iter(asked), None)

    def set_epochs(self, epochs: int) -> None:
        for _, _, part in self.entries():
            part.set_epochs(epochs)

    def start_epoch(self, epoch: int) -> None:
        for i, schedule in self._schedules():
            getattr(self, f"weight{i}").fill_(schedule.at(epoch - 1))
        for _, _, part in self.entries():
            part.start_epoch(epoch)

    def check_batch_size(self, size: int) -> None:
        for _, _, part in self.entries():
            part.check_batch_size(size)

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        for _, _, part in self.entries():
            part.check(student, teacher, batch)

    def expression(self) -> str:
        return " + ".join(
            part.expression() if weight == 1 else f"{weight_text(weight)}*{part.expression()}"
            for _, weight, part in self.entries()
        )


def _join(part: str, term: str) -> str:
    return part if term == part else f"{part}.{term}"


def _unique(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}{names[: i + 1].count(name)}" for i, name in enumerate(names)]


def added(*objectives: Objective) -> WeightedSum:
    """The parts of all, in their order. Raises SettingError where one is no objective."""
    return WeightedSum([entry for objective in objectives for entry in _parts(objective)])


def weighted(objective: Objective, by: Weight) -> WeightedSum:
    """Each part times a weight. Raises SettingError where that is neither a finite number nor a schedule."""
    _check_weight(objective, by)
    return WeightedSum([(by * weight, part) for weight, part in _parts(objective)])


def _parts(objective: Objective) -> list[tuple[Weight, Objective]]:
    if isinstance(objective, WeightedSum):
        return [(weight, part) for _, weight, part in objective.entries()]
    if not isinstance(objective, Objective):
        raise SettingError(f"only objectives can be added, got {objective!r}.")
    return [(1.0, objective)]


def _check_weight(part: Objective, weight: object) -> None:
    if isinstance(weight, Schedule):
        return
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not is_finite(weight):
        raise SettingError(f"the weight of {part} must be a finite number or a schedule, got {weight!r}.")
