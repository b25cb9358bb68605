"""Two losses computed the way public code computes them, to be measured beside limbeck's.

Written from the formulas, for benchmarks only: the same numbers, with the tensors that public implementations form.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.losses import align
from limbeck.signals import Signals, paired

_EPSILON = 1e-7


class GatheredCRD(nn.Module):
    """CRD with a gather of (B, K + 1, dim) rows from each bank, and a batched product with them.

    Column 0 of ``chosen`` (B, K + 1) is the row of the sample itself, the others rows of other classes. They are given, as
    public code draws them in the data loader: see :func:`draw_negatives`.
    """

    student_bank: Tensor
    teacher_bank: Tensor

    def __init__(
        self, student_width: int, teacher_width: int, rows: int, *, dim: int = 128, temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.temperature, self.rows = temperature, rows
        self.student_head, self.teacher_head = nn.Linear(student_width, dim), nn.Linear(teacher_width, dim)
        bound = math.sqrt(3 / dim)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.empty(rows, dim).uniform_(-bound, bound))
        self.normalisers: list[Tensor] = []

    def forward(self, student: Tensor, teacher: Tensor, chosen: Tensor) -> Tensor:
        z_student, z_teacher = F.normalize(self.student_head(student)), F.normalize(self.teacher_head(teacher))
        sides = ((z_student, self.teacher_bank), (z_teacher, self.student_bank))
        scores = [self._scores(z, bank, chosen) for z, bank in sides]
        if not self.normalisers:
            self.normalisers = [score.detach().mean() * self.rows for score in scores]
        loss = sum(self._loss(score / z) for score, z in zip(scores, self.normalisers, strict=True))
        self._remember(chosen[:, 0], z_student, z_teacher)
        assert isinstance(loss, Tensor)
        return loss

    def _scores(self, z: Tensor, bank: Tensor, chosen: Tensor) -> Tensor:
        gathered = bank.index_select(0, chosen.flatten()).view(*chosen.shape, -1)
        return (torch.bmm(gathered, z[:, :, None]) / self.temperature).exp().squeeze(2)

    def _loss(self, scores: Tensor) -> Tensor:
        noise = (scores.shape[1] - 1) / self.rows
        found = (scores[:, 0] / (scores[:, 0] + noise + _EPSILON)).log()
        told_apart = (noise / (scores[:, 1:] + noise + _EPSILON)).log().sum(dim=1)
        return -(found + told_apart).mean()

    @torch.no_grad()
    def _remember(self, rows: Tensor, z_student: Tensor, z_teacher: Tensor) -> None:
        for bank, z in ((self.student_bank, z_student), (self.teacher_bank, z_teacher)):
            bank.index_copy_(0, rows, F.normalize(0.5 * bank[rows] + 0.5 * z))


def draw_negatives(other_classes: np.ndarray, count: int) -> np.ndarray:
    """The negatives of one sample, drawn without replacement from the rows of other classes, as a data loader does it."""
    return np.random.choice(other_classes, count, replace=False)


def broadcast_nst(student: Signals, teacher: Signals) -> Tensor:
    """NST with the product of every two channels at every position: B × C × C × HW numbers for each kernel."""
    total = torch.zeros(())
    for _, one, other in paired(student.features, teacher.features):
        ours, theirs = (F.normalize(maps.flatten(2), dim=2) for maps in align(one, other))
        total = total.to(ours.device) + _kernel(theirs, theirs) + _kernel(ours, ours) - 2 * _kernel(ours, theirs)
    return total


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one[:, :, None] * other[:, None]).sum(dim=3).square().mean()


def broadcast_bytes(student: Signals, teacher: Signals) -> int:
    """Bytes of the largest single product in :func:`broadcast_nst`."""
    largest = 0
    for _, one, other in paired(student.features, teacher.features):
        positions = min(one.shape[2] * one.shape[3], other.shape[2] * other.shape[3])
        channels = max(one.shape[1], other.shape[1])
        largest = max(largest, len(one) * channels * channels * positions * one.element_size())
    return largest
