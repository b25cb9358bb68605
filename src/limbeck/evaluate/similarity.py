"""How alike two sets of representations of the same N samples are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck import losses
from limbeck.evaluate.kinds import Count, Number, Share

_SCALE = 10.0  # the largest that ICD's learned scale reaches by default
_BATCH = 64  # the benchmark's


@dataclass(frozen=True)
class Consistency:
    """The matrix L of similarities of N student rows to the N teacher rows of the same samples, over batches of ``batch``.

    L_ij = scale · cos(student i, teacher j). invariance: ICD's invariance term of L, mean over the samples in nats; zero if
    and only if every L is symmetric. asymmetry: ‖L − Lᵀ‖ / ‖L + Lᵀ‖ in Frobenius norms, 0 for symmetric. own_teacher: share of
    students whose most similar teacher is their own. same_structure: correlation of cos(student i, student j) with cos(teacher
    i, teacher j) over all pairs of different samples of a batch, which SP and RKD drive; None where all are equal.
    """

    batch: Count
    scale: Number
    invariance: Number
    asymmetry: Number
    own_teacher: Share
    same_structure: Number | None


def linear_cka(one: Tensor, other: Tensor, *, debiased: bool = False) -> float | None:
    """Linear centred kernel alignment of (N, D) and (N, E) representations (arXiv 1905.00414), 1 for equal up to a rotation.

    Debiased, the estimate of the same without the bias that few samples in many dimensions give (it needs four samples
    and may be below 0). None where one of them is the same for all samples, or the samples are too few.
    """
    return linear_ckas(Centred.of(one), Centred.of(other))[debiased]


@dataclass(frozen=True)
class Centred:
    """Rows (N, D), float64, their mean taken away, and how far they align with themselves, computed once for many pairs."""

    rows: Tensor
    own: tuple[float, float | None]

    @classmethod
    def of(cls, values: Tensor) -> Centred:
        """From representations (N, D)."""
        rows = values.double() - values.double().mean(dim=0)
        return cls(rows, _alignments(rows, rows))


def linear_ckas(one: Centred, other: Centred) -> tuple[float | None, float | None]:
    """:func:`linear_cka` of two of the same samples, as it is and debiased."""
    if len(one.rows) < 2 or not (one.rows.any() and other.rows.any()):
        return None, None
    biased, debiased = (
        None if pair is None or mine is None or its is None or not mine * its > 0 else pair / math.sqrt(mine * its)
        for pair, mine, its in zip(_alignments(one.rows, other.rows), one.own, other.own, strict=True)
    )
    return biased, debiased


def _alignments(x: Tensor, y: Tensor) -> tuple[float, float | None]:
    """‖XᵀY‖², and the unbiased estimate of HSIC (Song et al. 2012) for linear kernels; None for fewer than four samples."""
    count, product = len(x), (x.T @ y).square().sum().item()
    if count < 4:
        return product, None
    rows_x, rows_y = x.square().sum(dim=1), y.square().sum(dim=1)
    found = product - count / (count - 2) * (rows_x @ rows_y).item()
    return product, found + (rows_x.sum() * rows_y.sum()).item() / ((count - 1) * (count - 2))


def consistency(student: Tensor, teacher: Tensor, *, batch: int = _BATCH, scale: float = _SCALE) -> Consistency | None:
    """From rows (N, D) of both in one space; None with fewer than two samples.

    The samples are mixed by a fixed permutation and cut into full batches, so that a split in the order of its classes gives
    batches as they are in training.
    """
    count = len(student)
    size = min(batch, count)
    if size < 2:
        return None
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    sums, pairs = torch.zeros(4, dtype=torch.float64), []
    blocks = [rows for rows in order.split(size) if len(rows) == size]
    for rows in blocks:
        mine, theirs = losses.unit(student[rows].double()), losses.unit(teacher[rows].double())
        similarity = scale * mine @ theirs.T
        sums += torch.stack(
            [
                losses.invariance(similarity),
                (similarity - similarity.T).square().sum(),
                (similarity + similarity.T).square().sum(),
                (similarity.argmax(dim=1) == torch.arange(size)).double().mean(),
            ]
        )
        upper = torch.triu_indices(size, size, offset=1)
        pairs.append(torch.stack([(mine @ mine.T)[upper[0], upper[1]], (theirs @ theirs.T)[upper[0], upper[1]]]))
    invariance, difference, total, own = sums.tolist()
    return Consistency(
        batch=size,
        scale=scale,
        invariance=invariance / len(blocks),
        asymmetry=math.sqrt(difference / total) if total else 0.0,
        own_teacher=own / len(blocks),
        same_structure=_correlation(torch.cat(pairs, dim=1)),
    )


def aligned(student: Tensor, teacher: Tensor, fit_on: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Student rows (N, D) and teacher rows (N, E) in one space: the orthogonal map that fits ``fit_on`` best (Procrustes).

    ``fit_on`` are such rows of other samples. Both are centred by its means; the narrower of the two
    is rotated into the space of the other, so nothing but a rotation is fitted, on samples that are not measured.
    """
    means = [rows.double().mean(dim=0) for rows in fit_on]
    ours, theirs = (rows.double() - mean for rows, mean in zip(fit_on, means, strict=True))
    left, _, right = torch.linalg.svd(ours.T @ theirs, full_matrices=False)
    if ours.shape[1] <= theirs.shape[1]:
        return (student.double() - means[0]) @ (left @ right), teacher.double() - means[1]
    return student.double() - means[0], (teacher.double() - means[1]) @ (left @ right).T


def _correlation(pairs: Tensor) -> float | None:
    if pairs.shape[1] < 2 or (pairs.std(dim=1) < 1e-12).any():
        return None
    return torch.corrcoef(pairs)[0, 1].item()
