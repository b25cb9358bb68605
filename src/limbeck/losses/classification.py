"""Losses between logits and labels, and between logits and logits. Values are per sample or position, not reduced."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.precision import in_float32


@in_float32
def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)[label], (B,) from logits (B, C) and labels (B,); (B, L) from (B, L, C) and (B, L).

    With smoothing ε the target is (1 - ε) on the label and ε/C on every class.
    """
    classes = logits.shape[-1]
    values = F.cross_entropy(
        logits.reshape(-1, classes), labels.reshape(-1), reduction="none", label_smoothing=label_smoothing
    )
    return values.reshape(labels.shape)


@in_float32
def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) between softmaxes at a temperature, (B,) from (B, C) or (B, L) from (B, L, C).

    Σ_c p_c (log p_c - log q_c), p = softmax(teacher/T), q = softmax(student/T). Not multiplied by T².
    """
    log_student = torch.log_softmax(student_logits / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher_logits / temperature, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)


@in_float32
def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """-Σ_c p_c log q_c, (B,) from (B, C): :func:`kl_divergence` plus the entropy of p. Not multiplied by T²."""
    log_student = torch.log_softmax(student_logits / temperature, dim=-1)
    return -(torch.softmax(teacher_logits / temperature, dim=-1) * log_student).sum(dim=-1)


@in_float32
def standardise(logits: Tensor) -> Tensor:
    """Logits (…, C) less their mean over the classes, over their unbiased standard deviation + 1e-7 (arXiv 2403.01427)."""
    # Equal logits, as of a classifier that starts at zero, have a deviation whose gradient is not defined: none then.
    deviation = logits.var(dim=-1, keepdim=True).clamp(min=1e-24).sqrt()
    return (logits - logits.mean(dim=-1, keepdim=True)) / (deviation + 1e-7)
