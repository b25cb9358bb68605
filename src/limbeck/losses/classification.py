"""Logits and labels: cross-entropy, a value for each sample or position, and standardised logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.losses.chunks import Projection, projected_row_loss, row_loss
from limbeck.losses.precision import in_float32


@dataclass(frozen=True)
class CrossEntropy:
    """-(1 - ε)·log q_label - ε/C·Σ log q; 0 where the label is the ignored one."""

    label_smoothing: float = 0.0
    ignored: int = -100

    def values(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…) a value for each row."""
        counts = target != self.ignored
        values = -log_student.gather(-1, target.where(counts, 0)[..., None]).squeeze(-1)
        if self.label_smoothing:
            values = (1 - self.label_smoothing) * values - self.label_smoothing * log_student.mean(dim=-1)
        return values.where(counts, 0.0)

    def gradient(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…, V) derivative of each row's value with respect to the student's logits/T."""
        counts = (target != self.ignored)[..., None]
        gradient = log_student.exp() - self.label_smoothing / log_student.shape[-1]
        ones = torch.full_like(gradient[..., :1], self.label_smoothing - 1)
        return gradient.scatter_add(-1, target[..., None].where(counts, 0), ones).where(counts, 0.0)


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, ignored: int = -100) -> Tensor:
    """-log softmax(logits)[label], (B,) from logits (B, C) and labels (B,); (B, L) from (B, L, V) and (B, L).

    With smoothing ε the target is (1 - ε) on the label and ε/C on every class. Rows whose label is ``ignored`` have the value
    0 and get a gradient of 0, whatever their logits are.
    """
    return row_loss(CrossEntropy(label_smoothing, ignored), logits, labels)


def projected_cross_entropy(
    student: Projection, labels: Tensor, *, label_smoothing: float = 0.0, ignored: int = -100
) -> Tensor:
    """:func:`cross_entropy` from hidden states (…, D), a weight and a bias, (…); no logits of all rows are made."""
    return projected_row_loss(CrossEntropy(label_smoothing, ignored), student, labels, mask=labels != ignored)


@in_float32
def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """-Σ_c p_c log q_c, (B,) from (B, C): :func:`kl_divergence` plus the entropy of p. Not multiplied by T²."""
    log_student = torch.log_softmax(student_logits / temperature, dim=-1)
    return -(torch.softmax(teacher_logits / temperature, dim=-1) * log_student).sum(dim=-1)


@in_float32
def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Logits over a temperature, in float32: where each side of a loss has its own, or a loss takes none."""
    return logits / temperature


@in_float32
def standardise(logits: Tensor) -> Tensor:
    """Logits (…, C) less their mean over the classes, over their unbiased standard deviation + 1e-7 (arXiv 2403.01427)."""
    # Equal logits, as of a classifier that starts at zero, have a deviation whose gradient is not defined: none then.
    deviation = logits.var(dim=-1, keepdim=True).clamp(min=1e-24).sqrt()
    return (logits - logits.mean(dim=-1, keepdim=True)) / (deviation + 1e-7)
