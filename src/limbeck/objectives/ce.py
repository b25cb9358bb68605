"""Cross-entropy with the labels."""

from __future__ import annotations

from torch import Tensor

from limbeck import losses
from limbeck.errors import check_choice, check_number
from limbeck.objectives.base import Objective
from limbeck.signals import Batch, Signals


class CE(Objective, name="ce"):
    """Cross-entropy between the student's logits and the labels.

    Student logits (B, C) against labels (B,) int64, or (B, L, C) against (B, L) with the student's mask (B, L). Samples are
    weighted by ``batch.weight`` when there is one. The teacher is not used.

    Args:
        label_smoothing: ε in [0, 1); the target is 1 - ε on the label plus ε/C on every class.
        views: "all" rows of a batch that holds several views of each sample (``batch.copies``), averaged over the views; or
            the "first" view's alone, where the others are distilled and not labelled.

    Scale:
        ln C at random initialisation (2.3 for 10 classes, 4.6 for 100).
    """

    needs = frozenset({"labels", "logits"})
    needs_teacher = False
    per_position = True
    formula = r"\mathcal{L} = -\frac{1}{B} \sum_i \log \mathrm{softmax}(z^S_i)_{y_i}"
    presets = {"ce": "ce()"}

    def __init__(self, *, label_smoothing: float = 0.0, views: str = "all") -> None:
        super().__init__()
        check_number("label_smoothing", label_smoothing, low=0.0, high=0.999)
        check_choice("views", views, ("all", "first"))
        self.label_smoothing, self.views = label_smoothing, views
        self.labels_of_first_view = views == "first"

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        rows = slice(len(batch) // batch.copies if self.views == "first" else None)
        values = losses.cross_entropy(student.logits[rows], batch.labels[rows], label_smoothing=self.label_smoothing)
        weight, mask = (None if part is None else part[rows] for part in (batch.weight, student.mask))
        return {"ce": losses.mean(values, weight=weight, mask=mask)}
