"""Weighted soft labels: soft labels count where the student still has something to learn from them."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import check_number
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, cleared, counted


class WSLD(Objective, name="wsld"):
    """Cross-entropy with the teacher's softened probabilities, weighted sample by sample by how far behind the student is.

    Logits (B, C) with labels (B,) int64, or (B, L, C) with labels (B, L) and the student's mask (B, L). A sample's weight is
    1 - exp(-CE_S/CE_T), from the cross-entropies of student and teacher with its label at temperature 1: near 1 while the
    student is far worse than the teacher, 0.63 where they are equal, near 0 where the student is far better. The weights
    carry no gradient. Samples are weighted by ``batch.weight`` besides.

    Args:
        temperature: T > 0; both softmaxes of the soft labels are taken at logits/T, and the loss is multiplied by T².

    Scale:
        Near T²·ln C at initialisation (18 for 100 classes at T = 2), where the weights are near 1. Not zero for equal logits:
        it is a cross-entropy, and the teacher's own entropy remains, times 0.63.

    Differences:
        None known from the authors' formula: T = 2 and 2.5 times this loss beside the cross-entropy are theirs, for ImageNet.
        The divisor is CE_T + 1e-7. The weights are 1 - exp(-x) computed as one function, so that small ones are not rounded
        away.
    """

    needs = frozenset({"labels", "logits"})
    per_position = True
    formula = (
        r"\mathcal{L} = -\frac{T^2}{B} \sum_i w_i \sum_c p^T_{ic} \log p^S_{ic}, \quad p = \mathrm{softmax}(z / T), \quad "
        r"w_i = 1 - \exp\!\left( -\frac{\mathrm{CE}(z^S_i, y_i)}{\mathrm{CE}(z^T_i, y_i)} \right)"
    )
    paper = Paper(
        "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective",
        2021,
        arxiv="2102.00650",
    )
    presets = {"wsld": "ce + 2.5*wsld(temperature=2)"}

    def __init__(self, *, temperature: float = 2.0) -> None:
        super().__init__()
        check_number("temperature", temperature, low=0.0, open_low=True)
        self.temperature = temperature

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        counts = counted(student, batch)
        ours, theirs, labels = (cleared(part, counts) for part in (student.logits, teacher.logits, batch.labels))
        values = _weights(ours.detach(), theirs, labels) * _soft_cross_entropy(ours, theirs, self.temperature)
        return {"wsld": self.temperature**2 * losses.mean(values, weight=batch.weight, mask=counts)}


@losses.in_float32
def _weights(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    ratio = losses.cross_entropy(student, labels) / (losses.cross_entropy(teacher, labels) + 1e-7)
    return -torch.expm1(-ratio)


@losses.in_float32
def _soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """-Σ_c softmax(teacher/T)_c · log softmax(student/T)_c, without the class axis."""
    log_student = torch.log_softmax(student / temperature, dim=-1)
    return -(torch.softmax(teacher / temperature, dim=-1) * log_student).sum(dim=-1)
