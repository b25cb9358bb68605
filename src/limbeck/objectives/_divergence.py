"""What the objectives have in common that compare the probabilities of each row: KL, Jensen-Shannon, total variation."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from limbeck import losses
from limbeck.errors import check_number
from limbeck.objectives.base import Objective
from limbeck.signals import Batch, Signals


class Divergence(Objective):
    """T^k times the mean over rows of a divergence between softmaxes at logits/T.

    Rows are the samples of logits (B, C), or the positions of (B, L, V) that the student's mask (B, L) counts: their sum
    over their number. The float32 tensor of all rows is never made (:mod:`limbeck.losses.chunks`).

    Class attributes:
        power: k, for which the gradient keeps its size at high temperatures.
    """

    needs = frozenset({"logits"})
    per_position = True
    zero_when_equal = True
    power: ClassVar[int] = 2

    def __init__(self, kind: losses.RowLoss, *, temperature: float) -> None:
        super().__init__()
        check_number("temperature", temperature, low=0.0, open_low=True)
        self.kind, self.temperature = kind, temperature

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        values = losses.divergence(
            student.logits, teacher.logits, self.kind, temperature=self.temperature, mask=student.mask
        )
        mean = losses.mean(values, weight=batch.weight, mask=student.mask)
        return {self.name: self.temperature**self.power * mean}
