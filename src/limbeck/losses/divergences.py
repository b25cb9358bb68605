"""How far the student's probabilities are from the teacher's: a value for each row, chunk by chunk.

Throughout p is the teacher's softmax and q the student's, of logits/T: of a sample's C classes, or of a position's V tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.losses.chunks import Projection, RowLoss, projected_row_loss, row_loss

# exp(-60) of a probability is nothing in float32 and float64, and exp(60) is finite in both.
_FAR = 60.0


@dataclass(frozen=True)
class KullbackLeibler:
    """a·KL(p ‖ M) + b·KL(q ‖ M) with the mixture M = m·p + (1 - m)·q, a row's Σ over its classes or tokens.

    Computed from differences of log-probabilities, so that nothing is the logarithm of a rounded 0. A logit of -inf is a
    probability of 0, and 0·log 0 is 0.

    Args:
        of_teacher: a ≥ 0.
        of_student: b ≥ 0.
        mix: m in [0, 1], the teacher's part in the mixture.
    """

    of_teacher: float
    of_student: float
    mix: float

    def values(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…) a value for each row."""
        gap = log_student - target
        if not self.of_student:
            return self.of_teacher * _mean(target, _excess(-gap, self.mix))
        of_student = self.of_student * _mean(log_student, _excess(gap, 1 - self.mix))
        return of_student + self.of_teacher * _mean(target, _excess(-gap, self.mix)) if self.of_teacher else of_student

    def gradient(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…, V) derivative of each row's value with respect to the student's logits/T."""
        if not self.of_student and self.mix == 0:
            return self.of_teacher * (log_student.exp() - target.exp())
        # q·∂D/∂q = q·(b·log(q/M) + (b·m - a·(1 - m))·p/M), less what is the same times q for every class.
        slope, q = None, log_student.exp()
        if self.of_student:
            slope = self.of_student * (q * _excess(log_student - target, 1 - self.mix))
        factor = self.of_student * self.mix - self.of_teacher * (1 - self.mix)
        if factor and self.mix < 1:
            other = target if self.mix == 0 else log_student + _excess(target - log_student, self.mix)
            slope = factor * other.exp() if slope is None else slope + factor * other.exp()
        assert slope is not None  # one of the two weights is above 0
        return _through_softmax(slope.where(log_student.isfinite(), 0.0), q)


def _excess(gap: Tensor, own: float) -> Tensor:
    """log(x/M) for M = own·x + (1 - own)·y, from the gap log x - log y."""
    if own == 0:
        return gap
    return -torch.log1p((1 - own) * torch.expm1((-gap).clamp(max=_FAR)))


def _mean(log_x: Tensor, values: Tensor) -> Tensor:
    """Σ x·values, where a probability of 0 counts as 0 whatever the value is."""
    return (log_x.exp() * values).where(log_x > -torch.inf, 0.0).sum(dim=-1)


def _through_softmax(slope: Tensor, q: Tensor) -> Tensor:
    """From q·∂D/∂q to the derivative with respect to the logits of q."""
    return slope - q * slope.sum(dim=-1, keepdim=True)


@dataclass(frozen=True)
class TotalVariation:
    """½ Σ |p - q|, at most 1. Where p = q it has no gradient."""

    def values(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…) a value for each row."""
        return (log_student.exp() - target.exp()).abs().sum(dim=-1) / 2

    def gradient(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…, V) derivative of each row's value with respect to the student's logits/T."""
        q = log_student.exp()
        return _through_softmax(q * (q - target.exp()).sign() / 2, q)


@dataclass(frozen=True)
class SortedDistance:
    """Σ_k |p_(k) - q_(k)| of probabilities in descending order, at most 2; the shorter row ends in zeros.

    The distance of Universal Logit Distillation (arXiv 2402.12030) between rows of different vocabularies.
    """

    def values(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…) a value for each row."""
        ours, theirs = (_descending(rows.exp()) for rows in (log_student, target))
        both = min(ours.shape[-1], theirs.shape[-1])
        shared = (ours[..., :both] - theirs[..., :both]).abs().sum(dim=-1)
        return shared + ours[..., both:].sum(dim=-1) + theirs[..., both:].sum(dim=-1)

    def gradient(self, log_student: Tensor, target: Tensor) -> Tensor:
        """(…, V) derivative of each row's value with respect to the student's logits/T."""
        q = log_student.exp()
        ours, order = q.sort(dim=-1, descending=True, stable=True)
        theirs = _descending(target.exp())[..., : ours.shape[-1]]
        missing = ours.shape[-1] - theirs.shape[-1]
        theirs = torch.nn.functional.pad(theirs, (0, missing))
        sign = torch.zeros_like(q).scatter(-1, order, (ours - theirs).sign())
        return _through_softmax(q * sign, q)


def _descending(rows: Tensor) -> Tensor:
    return rows.sort(dim=-1, descending=True).values


FORWARD_KL = KullbackLeibler(1.0, 0.0, 0.0)
REVERSE_KL = KullbackLeibler(0.0, 1.0, 1.0)
TOTAL_VARIATION = TotalVariation()


def jensen_shannon(beta: float = 0.5) -> KullbackLeibler:
    """β·KL(p ‖ M) + (1 - β)·KL(q ‖ M), M = β·p + (1 - β)·q: the generalised Jensen-Shannon divergence (arXiv 2306.13649).

    β = 0 stands for the forward and β = 1 for the reverse KL, which the formula approaches divided by β and 1 - β and at
    which it is 0 itself; so has TRL's GKD trainer.
    """
    if beta in (0, 1):
        return REVERSE_KL if beta else FORWARD_KL
    return KullbackLeibler(beta, 1 - beta, beta)


def skewed_kl(alpha: float = 0.1, *, reverse: bool = False) -> KullbackLeibler:
    """KL(p ‖ α·p + (1 - α)·q), or reverse KL(q ‖ (1 - α)·p + α·q): the skewed divergences of arXiv 2402.03898."""
    return KullbackLeibler(0.0, 1.0, 1 - alpha) if reverse else KullbackLeibler(1.0, 0.0, alpha)


def divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kind: RowLoss = FORWARD_KL,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """A divergence between softmaxes at a temperature, (B,) from logits (B, C) or (B, L) from (B, L, V); float32 inside.

    ``kind``: :data:`FORWARD_KL`, :data:`REVERSE_KL`, :data:`TOTAL_VARIATION`, or what :func:`jensen_shannon` and
    :func:`skewed_kl` give. ``mask`` (B, L) bool: where it is False the value and the gradient are 0, whatever stands there.
    Not multiplied by T². No gradient reaches the teacher. The float32 tensor of all rows is never made: see
    :func:`limbeck.losses.chunks.row_loss`.
    """
    return row_loss(kind, student_logits, teacher_logits, temperature=temperature, mask=mask)


def projected_divergence(
    student: Projection,
    teacher: Projection,
    kind: RowLoss = FORWARD_KL,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """:func:`divergence` from hidden states (…, D) and the classifiers' weights, (…); no logits of all rows are made.

    Gradients reach the student's hidden states, weight and bias: see :func:`limbeck.losses.chunks.projected_row_loss`.
    """
    return projected_row_loss(kind, student, teacher, temperature=temperature, mask=mask)


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) between softmaxes at a temperature, (B,) from (B, C) or (B, L) from (B, L, C).

    Σ_c p_c (log p_c - log q_c): :func:`divergence` of :data:`FORWARD_KL`. Not multiplied by T².
    """
    return divergence(student_logits, teacher_logits, temperature=temperature)


def sorted_distance(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Σ_k |p_(k) - q_(k)|, probabilities in descending order, (…) from logits (…, V) and (…, W) of any two vocabularies."""
    return row_loss(SortedDistance(), student_logits, teacher_logits, temperature=temperature, mask=mask)
