"""Cross-entropy with the labels."""

from __future__ import annotations

from torch import Tensor

from limbeck import losses
from limbeck.errors import check_number
from limbeck.objectives.base import Objective
from limbeck.signals import Batch, Signals


class CE(Objective, name="ce"):
    """Cross-entropy between the student's logits and the labels.

    Student logits (B, C) against labels (B,) int64, or (B, L, C) against (B, L) with the student's mask (B, L). Samples are
    weighted by ``batch.weight`` when there is one. The teacher is not used.

    Args:
        label_smoothing: ε in [0, 1); the target is 1 - ε on the label plus ε/C on every class.

    Scale:
        ln C at random initialisation (2.3 for 10 classes, 4.6 for 100).
    """

    needs = frozenset({"labels", "logits"})
    needs_teacher = False
    per_position = True
    formula = r"\mathcal{L} = -\frac{1}{B} \sum_i \log \mathrm{softmax}(z^S_i)_{y_i}"
    presets = {"ce": "ce()"}

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_number("label_smoothing", label_smoothing, low=0.0, high=0.999)
        self.label_smoothing = label_smoothing

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        values = losses.cross_entropy(student.logits, batch.labels, label_smoothing=self.label_smoothing)
        return {"ce": losses.mean(values, weight=batch.weight, mask=student.mask)}
