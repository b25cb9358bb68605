"""Everything that trains, in one module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from limbeck.objectives.base import Objective
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped


@dataclass(frozen=True)
class Stage:
    """What trains, on which objective, for how long. A run is a list of stages.

    trains: of "student" and "objective" (its heads). What does not train is in eval mode and keeps its weights.
    """

    objective: Objective
    epochs: int
    trains: tuple[str, ...] = ("student", "objective")
    lr: float | None = None


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
        student: Signals = self.student(inputs)
        terms = self.objective(student, teacher, batch)
        return terms, None if student.logits is None else student.logits.detach()

    def activate(self, stage: int) -> None:
        """Switch to a stage: its objective computes the loss, and only what it trains asks for gradients."""
        self.stage = stage
        self._unfreeze_student("student" in self._trains[stage])
        for number, objective in enumerate(self.objectives):
            objective.requires_grad_(number == stage and "objective" in self._trains[stage])

    def release(self) -> nn.Module:
        """The student's network in eval mode, its parameters asking for gradients as they did at first."""
        self._unfreeze_student(True)
        return self.student.network.eval()

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
