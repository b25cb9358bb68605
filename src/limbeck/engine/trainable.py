"""Everything that trains, in one module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from limbeck.heads import Projected
from limbeck.objectives.base import Objective
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped


@dataclass(frozen=True)
class Stage:
    """What trains, on which objective, for how long. A run is a list of stages.

    trains: of "student" and "objective" (its heads). What does not train is in eval mode and keeps its weights.
    lr, schedule: the run's when None.
    """

    objective: Objective
    epochs: int
    trains: tuple[str, ...] = ("student", "objective")
    lr: float | None = None
    schedule: str | None = None


class Trainable(nn.Module):
    """Student and objectives of all stages in one module.

    The optimizer, DDP or FSDP, ``torch.compile``, the moving average and the checkpoint all see this module, and so all that
    trains and nothing else. Its forward returns the weighted terms of the active stage's objective and the student's
    detached logits.
    """

    def __init__(self, student: Tapped, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.student = student
        self.objectives = nn.ModuleList(stage.objective for stage in stages)
        self._trains = [stage.trains for stage in stages]
        # What its owner froze stays frozen.
        self._learning = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
        self.stage = 0

    @property
    def objective(self) -> Objective:
        """The active stage's objective."""
        objective = self.objectives[self.stage]
        assert isinstance(objective, Objective)
        return objective

    def forward(self, inputs: Tensor, teacher: Signals, batch: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        student: Signals = self.student(inputs) if self.objective.needs_student else Signals()
        if batch.attacked is not None:
            student = student.with_attacked(batch.attacked)
        terms = self.objective(student, teacher, batch)
        return terms, None if student.logits is None else student.logits.detach()

    def activate(self, stage: int) -> None:
        """Switch to a stage: its objective computes the loss, and only what it trains asks for gradients."""
        self.stage = stage
        self._unfreeze_student("student" in self._trains[stage])
        for number, objective in enumerate(self.objectives):
            objective.requires_grad_(number == stage and "objective" in self._trains[stage])

    @property
    def new_classifier(self) -> nn.Module | None:
        """What the last stage's objective puts in the place of the student's classifier, if anything."""
        final = self.objectives[-1]
        assert isinstance(final, Objective)
        return final.new_classifier()

    def logits(self, inputs: Tensor) -> Tensor:
        """The student's logits (B, C), of its new classifier if it gets one."""
        signals: Signals = self.student(inputs)
        head = self.new_classifier
        if head is None:
            assert signals.logits is not None
            return signals.logits
        assert signals.embedding_map is not None
        logits: Tensor = head(signals.embedding_map)
        return logits

    def kept(self) -> dict[str, nn.Module]:
        """The modules whose weights are the result, by the prefix of their names in it."""
        head = self.new_classifier
        return {"": self.student.network} if head is None else {"network.": self.student.network, "head.": head}

    def release(self) -> nn.Module:
        """The finished student in eval mode, its parameters asking for gradients as they did at first.

        Where its classifier is replaced, the old one is taken out of the network, and this module's own forward ends.
        """
        self._unfreeze_student(True)
        head = self.new_classifier
        if head is None:
            return self.student.network.eval()
        path, classifier = self.student.paths["embedding_map"]["embedding_map"], self.student.classifier
        assert classifier is not None
        return Projected(self.student.network, path, classifier, head).eval()

    def _unfreeze_student(self, learns: bool) -> None:
        for name, parameter in self.student.named_parameters():
            parameter.requires_grad_(learns and name in self._learning)

    def train(self, mode: bool = True) -> Trainable:
        super().train(mode)
        if mode:
            self.student.train("student" in self._trains[self.stage])
            self.objective.train("objective" in self._trains[self.stage])
        return self

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that their objective or network exempts from weight decay."""
        exempt = set()
        for number, objective in enumerate(self.objectives):
            assert isinstance(objective, Objective)
            exempt |= {f"objectives.{number}.{name}" for name in objective.no_weight_decay()}
        own = getattr(self.student.network, "no_weight_decay", None)  # the convention of timm
        if callable(own):
            exempt |= {f"student.network.{name}" for name in own()}
        return exempt
