"""Cross-entropy with the labels."""

from __future__ import annotations

from torch import Tensor

from limbeck import losses
from limbeck.errors import SignalError, check_choice, check_number
from limbeck.objectives.base import Objective
from limbeck.signals import IGNORED, Batch, Signals, counted


class CE(Objective, name="ce"):
    """Cross-entropy between the student's logits and the labels.

    Student logits (B, C) against labels (B,) int64, or (B, L, V) of token models against (B, L), the next token at each
    position: the mean then runs over the positions that the student's mask (B, L) counts and whose label is not -100, their
    sum over their number. Samples are weighted by ``batch.weight`` when there is one. The teacher is not used. On text that
    the teacher wrote this is sequence-level distillation.

    Args:
        label_smoothing: ε in [0, 1); the target is 1 - ε on the label plus ε/C on every class.
        views: "all" rows of a batch that holds several views of each sample (``batch.copies``), averaged over the views; the
            "first" view's alone, where the others are distilled and not labelled; or only those that are "mixed". The label
            of a text mixed with another (``batch.share``) is the mixture of theirs, λ CE(y) + (1 - λ) CE(y'), as in mixup
            (1710.09412).

    Scale:
        ln C at random initialisation (2.3 for 10 classes, 4.6 for 100, 10.4 for 32,000 tokens).
    """

    needs = frozenset({"labels", "logits"})
    needs_teacher = False
    per_position = True
    labels_of_mixtures = True
    formula = r"\mathcal{L} = -\frac{1}{B} \sum_i \log \mathrm{softmax}(z^S_i)_{y_i}"
    presets = {"ce": "ce()"}

    def __init__(self, *, label_smoothing: float = 0.0, views: str = "all") -> None:
        super().__init__()
        check_number("label_smoothing", label_smoothing, low=0.0, high=0.999)
        check_choice("views", views, ("all", "first", "mixed"))
        self.label_smoothing, self.views = label_smoothing, views
        self.labels_of_first_view = views == "first"

    def check(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        super().check(student, teacher, batch)
        if self.views == "mixed" and not any(batch.mixed):
            raise SignalError(
                f"{self.expression()} reads views that mix, and there is none; give one, as in --augment 'none | mixup=0.4'."
            )

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        counts = counted(student, batch)
        # What stands at a masked position need not be a class.
        labels = batch.labels if counts is None else batch.labels.where(counts, IGNORED)
        logits, labels = self._chosen(student.logits, batch), self._chosen(labels, batch)
        weight, mask, other, share = (
            None if part is None else self._chosen(part, batch)
            for part in (batch.weight, counts, batch.other_labels, batch.share)
        )
        values = losses.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if other is not None and share is not None:
            others = losses.cross_entropy(logits, other, label_smoothing=self.label_smoothing)
            values = share * values + (1 - share) * others
        return {"ce": losses.mean(values, weight=weight, mask=mask)}

    def _chosen(self, part: Tensor, batch: Batch) -> Tensor:
        """The rows of the views that are read."""
        if self.views == "all":
            return part
        chosen = [0] if self.views == "first" else [number for number, mixed in enumerate(batch.mixed) if mixed]
        return part.reshape(batch.copies, -1, *part.shape[1:])[chosen].flatten(0, 1)
